//! Puts the rooms together: opens the tiers, recovers, serves, and stops in order.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tiering::Tier;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::admin::status::places_of;
use crate::admin::{Admin, Door};
use crate::auth::Users;
use crate::config::{Config, ConfigError};
use crate::dav::{Dav, DavOptions};
use crate::http::{self, Front, Limits, tls};
use crate::metrics::{Gauge, Metrics, Window};
use crate::objects::pools::Pools;
use crate::objects::{Backing, CacheOptions, Durability, IoContext, MigratorHandle, ObjectCache};
use crate::recorder::{Recorder, RecorderConfig};
use crate::volume::{Kind, ResourcePath, Volume, VolumeError, VolumeOptions};

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

fn capacity(config: &Config, cache_dir: &Path) -> anyhow::Result<u64> {
    if let Some(bytes) = config.cache_capacity {
        return Ok(bytes);
    }
    let fs = rustix::fs::statvfs(cache_dir)
        .with_context(|| format!("cannot measure {}", cache_dir.display()))?;
    Ok((fs.f_bavail.saturating_mul(fs.f_frsize) / 2).min(AUTO_CAPACITY_MAX))
}

async fn pool_capacity(config: &Config, pools: Arc<dyn Pools>) -> anyhow::Result<u64> {
    if !pools.has_cache() {
        return Ok(0);
    }
    if let Some(bytes) = config.cache_capacity {
        return Ok(bytes);
    }
    let space = tokio::task::spawn_blocking(move || pools.space(Tier::Cache)).await?;
    let space = space.context("cannot measure the cache pool: set cache_capacity")?;
    // Ceph stops all writes to an OSD that is nearly full: leave it room.
    Ok((space.used + space.available) / 10 * 8)
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

/// Opens every file once, so that the volume knows the paths of all versions: what an offline scrub compares with.
///
/// # Errors
/// When the tree cannot be read.
pub async fn learn_paths(volume: &Volume) -> Result<u64, VolumeError> {
    let mut files = 0;
    let mut queue = vec![ResourcePath::root()];
    while let Some(collection) = queue.pop() {
        for (name, meta) in volume.list(&collection).await? {
            let Ok(path) = collection.join(&name) else {
                continue;
            };
            if meta.kind == Kind::Collection {
                queue.push(path);
            } else {
                files += 1;
                drop(volume.open_read(&path, IoContext::default()).await?);
            }
        }
    }
    Ok(files)
}

/// Opens root and cache and recovers what a crash left. `online` also records a trace and moves objects.
///
/// # Errors
/// What cannot be opened, and what to do.
pub async fn open(config: &Config, online: bool) -> anyhow::Result<Tiers> {
    let make = |dir: &Path, key: &str| {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("{key} = {}: cannot make the directory", dir.display()))
    };
    make(&config.root, "root")?;
    if let Some(dir) = &config.cache_dir {
        make(dir, "cache_dir")?;
        keep_object_size(dir, config.object_size)?;
    }
    let metrics = Arc::new(Metrics::new());
    let pools = crate::pools::open(config, online, &metrics).await?;
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
    let options = CacheOptions {
        cache_dir: config.cache_dir.clone(),
        pools: pools.clone(),
        object_bytes: config.object_size,
        capacity_bytes: match (&config.cache_dir, pools) {
            (Some(dir), _) => capacity(config, dir)?,
            (None, Some(pools)) => pool_capacity(config, pools).await?,
            (None, None) => 0,
        },
        high_watermark: config.high_watermark,
        low_watermark: config.low_watermark,
        max_dirty_age: config.max_dirty_age,
        write_policy: config.write_policy,
        policy: config.policy.clone(),
        migrate_bytes_per_s: config.migrate_bandwidth,
        migrate_ops_per_s: config.migrate_ops,
        migrate_in_flight: config.migrate_in_flight,
        durability: config.durability,
    };
    let (r, m) = (recorder.clone(), Arc::clone(&metrics));
    let cache = tokio::task::spawn_blocking(move || ObjectCache::open(options, r, m)).await?;
    let cache = cache.context("cannot open the cache tier")?;
    let volume = Volume::open(VolumeOptions {
        root: config.root.clone(),
        cache: Arc::clone(&cache),
        log_dir: config.cache_dir.as_ref().map(|d| d.join("log")),
        durability: config.durability,
        symlinks: config.symlinks,
        quota_bytes: config.quota,
    })
    .await?;
    let backing = Arc::clone(&volume) as Arc<dyn Backing>;
    let migrator = if online {
        Some(cache.start_migrator(backing))
    } else {
        cache.attach_backing(backing);
        None
    };
    Ok(Tiers {
        volume,
        cache,
        recorder,
        metrics,
        migrator,
    })
}

impl Tiers {
    /// Stops moving, makes a checkpoint and seals the trace.
    ///
    /// # Errors
    /// When the checkpoint fails; what was acknowledged is still in the log.
    pub async fn close(self) -> anyhow::Result<()> {
        if let Some(migrator) = self.migrator {
            migrator.stop().await;
        }
        self.volume
            .shutdown()
            .await
            .context("the last checkpoint failed; the next start recovers from the log")?;
        let recorder = self.recorder.clone();
        tokio::task::spawn_blocking(move || recorder.finish()).await?;
        Ok(())
    }
}

/// Reads the files that the configuration names: users and certificates.
///
/// # Errors
/// [`ConfigError`] with one line per file that is missing or makes no sense.
pub fn check_files(config: &Config) -> Result<(Users, Option<tls::Tls>), ConfigError> {
    let users = Users::open(config.users_file.clone());
    let passwords = config.users_file.is_some();
    let tls = config
        .tls
        .clone()
        .map(|files| tls::Tls::open(files, passwords))
        .transpose();
    match (users, tls) {
        (Ok(users), Ok(tls)) => Ok((users, tls)),
        (users, tls) => {
            let users = users.err().map(|e| format!("  {e}"));
            let tls = tls.err().map(|e| format!("  {e}"));
            Err(ConfigError(users.into_iter().chain(tls).collect()))
        }
    }
}

/// Allows as many open files as the system grants: each connection takes one, and files that were just read stay open.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the server from starting, or its state from being flushed at the end.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let passwords = config.users_file.is_some();
    let (users, tls) = check_files(&config)?;
    let (users, tls) = (Arc::new(users), tls.map(Arc::new));
    // Bound before recovery, so that clients wait in the backlog instead of being refused.
    let listener = http::bind(config.listen)?;
    let address = listener.local_addr()?;
    let admin_listener = config.admin_listen.map(http::bind).transpose()?;

    let admin_address = admin_listener.as_ref().and_then(|l| l.local_addr().ok());
    // Open from before recovery until all is flushed: who asks whether the server is ready gets an answer.
    let door = Arc::new(Door::default());
    if let Some(listener) = admin_listener {
        tokio::spawn(Arc::clone(&door).serve(listener));
    }

    let tiers = open(&config, true).await?;
    let dav_options = DavOptions {
        public_base_url: config.public_base_url.clone(),
        allow_infinite_depth: config.allow_infinite_depth,
        max_xml_bytes: config.max_xml_bytes,
        max_body_bytes: config.max_body_bytes,
        body_idle_timeout: config.body_idle_timeout,
        lock_timeout_max: config.lock_timeout_max,
        sync_locks: config.durability == Durability::Commit,
    };
    let dav = Dav::new(
        Arc::clone(&tiers.volume),
        tiers.recorder.clone(),
        Arc::clone(&tiers.metrics),
        dav_options,
    )
    .await?;
    {
        let dav = Arc::downgrade(&dav);
        tiers.metrics.gauge(Gauge::Locks, move || {
            dav.upgrade().map_or(0.0, |d| d.locks().len() as f64)
        });
    }
    if let Some(tls) = &tls {
        let tls = Arc::clone(tls);
        let not_after = move || tls.not_after() as f64;
        tiers.metrics.gauge(Gauge::TlsNotAfter, not_after);
    }
    let front = Arc::new(Front {
        dav: Arc::clone(&dav),
        users: Arc::clone(&users),
        recorder: tiers.recorder.clone(),
        metrics: Arc::clone(&tiers.metrics),
        tls: tls.clone(),
        limits: Limits {
            max_connections: config.max_connections,
            max_header_bytes: config.max_header_bytes,
            header_timeout: config.header_timeout,
            stall_timeout: config.body_idle_timeout,
        },
        stopping: AtomicBool::new(false),
    });
    let (stop, stopped) = watch::channel(false);
    let stopping = Arc::new(AtomicBool::new(false));
    let reload = Arc::new(Notify::new());
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}/");
    door.open(Admin {
        volume: Arc::clone(&tiers.volume),
        cache: Arc::clone(&tiers.cache),
        dav: Arc::clone(&dav),
        metrics: Arc::clone(&tiers.metrics),
        stopping: Arc::clone(&stopping),
        reload: Arc::clone(&reload),
        started: Instant::now(),
        serving: url.clone(),
        window: Window::new(&tiers.metrics),
        places: parking_lot::Mutex::new(places_of(&config)),
    });
    let kept_open = Arc::clone(&tiers.volume);
    let expiry = tokio::spawn(async move {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            dav.expire().await;
            kept_open.close_old();
        }
    });
    announce(&config, &url, admin_address);

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let serving = tokio::spawn(front.serve(listener, stopped, config.shutdown_grace));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {}
            () = reload.notified() => {}
        }
        users.reload();
        if let Some(tls) = &tls {
            tls.reload(passwords);
        }
    }
    tracing::info!(
        "stopping: running requests may finish within {} s",
        config.shutdown_grace.as_secs()
    );
    stopping.store(true, Ordering::Relaxed);
    let _ = stop.send(true);
    let cut = serving.await?;
    if cut > 0 {
        tracing::warn!(connections = cut, "cut off at the end of shutdown_grace");
    }
    expiry.abort();
    tiers.close().await?;
    tracing::info!("stopped");
    Ok(())
}

fn announce(config: &Config, url: &str, admin: Option<std::net::SocketAddr>) {
    let mut text = format!("TierDAV serves {} on {url}\n", config.root.display());
    if let Some(admin) = admin {
        text += &format!(
            "  status       tierdav status --admin {admin}   metrics http://{admin}/.tierdav/metrics\n  look at it   http://{admin}/.tierdav/\n"
        );
    }
    if let Some(pools) = &config.pools {
        let cache = pools.cache_pool.as_deref().unwrap_or("no cache pool");
        text += &format!("  Ceph pools   {} below {cache}\n", pools.data_pool);
    }
    if let Some(dir) = &config.cache_dir {
        text += &format!("  cache tier   {}\n", dir.display());
    }
    text += &format!("  mount it     mount -t davfs -o conf=FILE,uid=$(id -u) {url} DIR\n");
    text += "               with `buf_size 256` and `delay_upload 0` in FILE (Linux 6.16 and later need buf_size 64 or more)\n";
    // A closed standard output is no reason to stop serving.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
