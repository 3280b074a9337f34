//! Opens the tiers in the right order, recovers what a crash left, and closes them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tiering::Tier;

use crate::config::Config;
use crate::metrics::{Gauge, Metrics};
use crate::objects::pools::{AttachError, Pools};
use crate::objects::{
    Backing, CacheOptions, Capacity, IoContext, MigratorHandle, ObjectCache, WritePolicy,
};
use crate::recorder::{Recorder, RecorderConfig};
use crate::volume::{
    Kind, Ownership, ResourcePath, Volume, VolumeError, VolumeOptions, Walked, is_cache, is_known,
};

/// A cache tier of at most this, unless the configuration says otherwise.
const AUTO_CAPACITY_MAX: u64 = 64 << 30;

/// The opened tiers.
pub struct Tiers {
    /// The namespace.
    pub volume: Arc<Volume>,
    /// The object cache.
    pub cache: Arc<ObjectCache>,
    /// The trace.
    pub recorder: Recorder,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// Moves objects until it is stopped; none offline.
    pub migrator: Option<MigratorHandle>,
}

fn capacity(config: &Config, cache_dir: &Path) -> anyhow::Result<Capacity> {
    if let Some(bytes) = config.cache_capacity {
        return Ok(Capacity::Bytes(bytes));
    }
    let fs = rustix::fs::statvfs(cache_dir)
        .with_context(|| format!("cannot measure {}", cache_dir.display()))?;
    Ok(Capacity::HalfOf {
        free: fs.f_bavail.saturating_mul(fs.f_frsize),
        most: AUTO_CAPACITY_MAX,
    })
}

async fn pool_capacity(config: &Config, pools: Arc<dyn Pools>) -> anyhow::Result<u64> {
    if !pools.has_cache() {
        return Ok(0);
    }
    if let Some(bytes) = config.cache_capacity {
        return Ok(bytes);
    }
    let space = tokio::task::spawn_blocking(move || pools.space(Tier::Cache)).await?;
    let space = space
        .map_err(|e| AttachError::passing(format!("the cache pool cannot be measured: {e}")))?;
    // Ceph stops all writes to an OSD that is nearly full: leave it room.
    Ok((space.used + space.available) / 10 * 8)
}

/// What was chosen; else by whether the default cache directory is on a device of its own, as far as file systems can tell.
fn write_policy(config: &Config) -> WritePolicy {
    let device = |path: &Path| rustix::fs::stat(path).map(|s| s.st_dev);
    config.write_policy.unwrap_or_else(|| {
        let shared = config.cache_dir.as_ref().is_some_and(
            |cache| matches!((device(cache), device(&config.root)), (Ok(a), Ok(b)) if a == b),
        );
        if shared {
            WritePolicy::Around
        } else {
            WritePolicy::Back
        }
    })
}

/// Size and free bytes of the file systems under the tiers.
fn register_volumes(metrics: &Metrics, config: &Config) {
    let of = |path: &Path, bytes: fn(&rustix::fs::StatVfs) -> u64| {
        let path = path.to_path_buf();
        move || rustix::fs::statvfs(&path).map_or(f64::NAN, |fs| bytes(&fs) as f64)
    };
    let size = |fs: &rustix::fs::StatVfs| fs.f_blocks.saturating_mul(fs.f_frsize);
    let available = |fs: &rustix::fs::StatVfs| fs.f_bavail.saturating_mul(fs.f_frsize);
    metrics.gauge(Gauge::RootSizeBytes, of(&config.root, size));
    metrics.gauge(Gauge::RootAvailableBytes, of(&config.root, available));
    if let Some(dir) = &config.cache_dir {
        metrics.gauge(Gauge::CacheSizeBytes, of(dir, size));
        metrics.gauge(Gauge::CacheAvailableBytes, of(dir, available));
    }
}

/// Refuses a cache that clients of the root would see, and could delete.
fn refuse_visible(root: &Path, cache_dir: &Path) -> anyhow::Result<()> {
    let whole = |key: &str, dir: &Path| {
        resolved(dir).with_context(|| format!("{key} = {}: cannot be resolved", dir.display()))
    };
    let (root, cache) = (whole("root", root)?, whole("cache_dir", cache_dir)?);
    anyhow::ensure!(
        !cache.starts_with(&root) || cache.starts_with(root.join(".tierdav")),
        "cache_dir = {}: is inside the root, {}, where clients would see it and could delete what is in it: \
         choose a directory beside the root, and move there what is in this one, if anything is",
        cache_dir.display(),
        root.display()
    );
    Ok(())
}

/// A path without links, whether it exists already or not.
fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for there in path.ancestors() {
        match there.canonicalize() {
            Ok(real) => return Ok(real.join(path.strip_prefix(there).unwrap_or(Path::new("")))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(path)
}

/// Refuses a cache whose objects were cut at another size: their place in the files would be wrong.
fn keep_object_size(dir: &Path, object_size: u32) -> anyhow::Result<()> {
    let file = dir.join("object_size");
    let at = || format!("cannot use {}", file.display());
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim() == object_size.to_string() => return Ok(()),
        Ok(text) => {
            let shards = std::fs::read_dir(dir.join("objects"))
                .into_iter()
                .flatten()
                .flatten();
            let used = shards
                .flat_map(|s| std::fs::read_dir(s.path()).into_iter().flatten())
                .next()
                .is_some();
            anyhow::ensure!(
                !used,
                "object_size = {object_size}, but the cache in {} holds objects of {} bytes: \
                 set object_size to that, or drain the cache with that size first",
                dir.display(),
                text.trim()
            );
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(at),
    }
    let temporary = dir.join("object_size.tmp");
    let write = || {
        let mut out = std::fs::File::create(&temporary)?;
        writeln!(out, "{object_size}")?;
        out.sync_all()?;
        std::fs::rename(&temporary, &file)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().with_context(at)
}

/// Opens every file once, so that the volume knows the paths of all versions: what an offline scrub compares with. Tells what
/// may not be read: somebody else put it there.
///
/// # Errors
/// When the tree cannot be read for another reason.
pub async fn learn_paths(volume: &Volume) -> Result<Vec<ResourcePath>, VolumeError> {
    let mut forbidden = Vec::new();
    let mut queue = vec![ResourcePath::root()];
    let mut walked = Walked::default();
    while let Some(collection) = queue.pop() {
        let members = match volume.list_once(&collection, &mut walked).await {
            Err(VolumeError::Forbidden { path, .. }) => {
                forbidden.push(path);
                continue;
            }
            listed => listed?,
        };
        for (name, meta) in members {
            let Ok(path) = collection.join(&name) else {
                continue;
            };
            if meta.kind == Kind::Collection {
                queue.push(path);
                continue;
            }
            match volume.open_read(&path, IoContext::default()).await {
                Err(VolumeError::Forbidden { path, .. }) => forbidden.push(path),
                opened => drop(opened?),
            }
        }
    }
    Ok(forbidden)
}

/// Refuses directories that a command which does not serve would have to make, or that hold nothing of ours: a name that was
/// mistyped, or a volume that is not mounted, must not pass for one in which all is well.
///
/// # Errors
/// Which directory, and what to do.
pub fn refuse_unknown(config: &Config) -> anyhow::Result<()> {
    let root = config.root.display();
    anyhow::ensure!(
        is_known(&config.root)?,
        "root = {root}: no gateway has served this directory yet: is this the root that is meant, and is its volume mounted?"
    );
    if let Some(dir) = &config.cache_dir {
        anyhow::ensure!(
            is_cache(dir)?,
            "cache_dir = {}: this is no cache of a gateway: name the one that belongs to root {root}, is its volume mounted? \
             If there is none, say cache_dir = none",
            dir.display()
        );
    }
    Ok(())
}

/// Opens root and cache and recovers what a crash left, for a command that does not serve.
///
/// # Errors
/// What cannot be opened, and what to do.
pub async fn open(config: &Config) -> anyhow::Result<Tiers> {
    Opening::prepare(config, Arc::new(Metrics::new()), false)?
        .tiers()
        .await
}

/// What there is before the tiers are open.
pub struct Opening<'a> {
    config: &'a Config,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// The trace.
    pub recorder: Recorder,
    ownership: Arc<Ownership>,
    online: bool,
}

impl Opening<'_> {
    /// Makes the directories and takes their locks. `online` also records a trace, and lets the tiers move objects.
    ///
    /// # Errors
    /// What cannot be made or written.
    pub fn prepare(
        config: &Config,
        metrics: Arc<Metrics>,
        online: bool,
    ) -> anyhow::Result<Opening<'_>> {
        let make = |dir: &Path, key: &str| {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("{key} = {}: cannot make the directory", dir.display()))
        };
        make(&config.root, "root")?;
        if let Some(dir) = &config.cache_dir {
            refuse_visible(&config.root, dir)?;
            make(dir, "cache_dir")?;
        }
        // Before anything in them is touched: a gateway may be at work there.
        let ownership = Ownership::take(&config.root, config.cache_dir.as_deref())?;
        if let Some(dir) = &config.cache_dir {
            keep_object_size(dir, config.object_size)?;
        }
        let recorder = if online && config.trace {
            let dir = match &config.cache_dir {
                Some(dir) => dir.join("trace"),
                None => config.root.join(".tierdav").join("trace"),
            };
            make(&dir, "trace directory")?;
            let mut settings = RecorderConfig::new(dir);
            settings.segment_bytes = config.trace_segment_size;
            settings.segment_age = config.trace_segment_age;
            settings.retention_bytes = config.trace_retention;
            Recorder::start(settings).context("cannot record the trace")?
        } else {
            Recorder::disabled()
        };
        recorder.register(&metrics);
        register_volumes(&metrics, config);
        Ok(Opening {
            config,
            metrics,
            recorder,
            ownership: Arc::new(ownership),
            online,
        })
    }

    /// Opens root and cache and recovers what a crash left. After an error that [`may_pass`] it can be tried again.
    ///
    /// # Errors
    /// What cannot be opened, and what to do.
    pub async fn tiers(&self) -> anyhow::Result<Tiers> {
        let config = self.config;
        let pools = crate::pools::open(config, &self.metrics).await?;
        let options = CacheOptions {
            cache_dir: config.cache_dir.clone(),
            pools: pools.clone(),
            object_bytes: config.object_size,
            capacity: match (&config.cache_dir, pools) {
                (Some(dir), _) => capacity(config, dir)?,
                (None, Some(pools)) => Capacity::Bytes(pool_capacity(config, pools).await?),
                (None, None) => Capacity::Bytes(0),
            },
            write_policy: write_policy(config),
            tuning: config.tuning(),
            durability: config.durability,
            in_place: config.in_place,
        };
        let (recorder, metrics) = (self.recorder.clone(), Arc::clone(&self.metrics));
        let cache =
            tokio::task::spawn_blocking(move || ObjectCache::open(options, recorder, metrics))
                .await?;
        let cache = cache.context("cannot open the cache tier")?;
        let volume = Volume::open(VolumeOptions {
            root: config.root.clone(),
            cache: Arc::clone(&cache),
            log_dir: config.cache_dir.as_ref().map(|d| d.join("log")),
            durability: config.durability,
            symlinks: config.symlinks,
            quota_bytes: config.quota,
            assume_journal: false,
            ownership: Some(Arc::clone(&self.ownership)),
        })
        .await?;
        volume.register(&self.metrics);
        let backing = Arc::clone(&volume) as Arc<dyn Backing>;
        let migrator = if self.online {
            Some(cache.start_migrator(backing))
        } else {
            cache.attach_backing(backing);
            None
        };
        Ok(Tiers {
            volume,
            cache,
            recorder: self.recorder.clone(),
            metrics: Arc::clone(&self.metrics),
            migrator,
        })
    }
}

/// Whether it is the cluster that does not answer, or lacks something yet, rather than the settings that are wrong.
pub fn may_pass(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        let attach = e.downcast_ref::<AttachError>();
        let volume = e.downcast_ref::<VolumeError>();
        attach.is_some_and(AttachError::may_pass)
            || volume.is_some_and(|e| matches!(e, VolumeError::Pools(attach) if attach.may_pass()))
    })
}

impl Tiers {
    /// Stops moving, seals the trace and makes a checkpoint. Root and cache stay this process's until it ends.
    ///
    /// # Errors
    /// When the checkpoint fails; what was acknowledged is still in the log.
    pub async fn close(self) -> anyhow::Result<()> {
        if let Some(migrator) = self.migrator {
            migrator.stop().await;
        }
        let recorder = self.recorder.clone();
        let sealed = tokio::task::spawn_blocking(move || recorder.finish()).await;
        self.volume
            .shutdown()
            .await
            .context("the last checkpoint failed; the next start recovers from the log")?;
        Ok(sealed?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cache_that_clients_would_see_is_refused_by_whatever_way_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let hidden = root.join(".tierdav/cache");
        let beside = dir.path().join("root-cache");
        let inside = root.join("cache");
        std::fs::create_dir_all(&root).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&root, &link).unwrap();
        for seen in [&root, &inside, &link, &link.join("new/cache")] {
            let refused = refuse_visible(&root, seen).unwrap_err().to_string();
            assert!(refused.contains("inside the root"), "{refused}");
        }
        for unseen in [&hidden, &beside] {
            refuse_visible(&root, unseen).unwrap();
        }
    }
}
