//! COPY: built aside under a temporary name, then renamed in.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tiering::FileId;

use super::apply::{self, Place};
use super::change::fresh_dir;
use super::error::{At, VolumeError};
use super::identity::{self, Identity, State};
use super::log::record::Record;
use super::path::ResourcePath;
use super::tree::{self, Entry, id_name};
use super::types::{Check, Kind, Replaced};
use super::upload::{Origin, Prepared, quota_exceeded};
use super::usage::Reservation;
use super::{Durability, Inner, Volume, cache_error, hop, now_ns, unavailable};
use crate::objects::{IoContext, Writes};

/// Bytes of one read when content must go through the process.
const CHUNK_BYTES: usize = 1 << 20;

impl Volume {
    /// Copies a file, or a collection (`recursive`: with everything below it), with dead properties.
    ///
    /// The copy appears whole or not at all, under new ids. `check` gets the destination.
    pub async fn copy(
        &self,
        from: &ResourcePath,
        version: Option<FileId>,
        to: &ResourcePath,
        overwrite: bool,
        recursive: bool,
        check: Check,
    ) -> Result<Replaced, VolumeError> {
        if to.is_root() || to.is_within(from) || from.is_within(to) {
            return Err(VolumeError::Forbidden {
                op: "copy",
                path: from.clone(),
                why: "source and destination overlap",
            });
        }
        let (inner, source, target) = (Arc::clone(&self.inner), from.clone(), to.clone());
        let kind = hop(move || {
            // Said now rather than after the work; checked again under the hold of the path.
            let (dir, name) = inner.place(&target)?;
            let old = inner.occupant(&dir, name, &target)?;
            if old.is_some() && !overwrite {
                return Err(VolumeError::PreconditionFailed { path: target });
            }
            Ok(inner.found(&source)?.meta.kind)
        })
        .await?;
        match kind {
            Kind::File => self.copy_file(from, version, to, overwrite, check).await,
            Kind::Collection => self.copy_tree(from, to, overwrite, recursive, check).await,
        }
    }

    async fn copy_file(
        &self,
        from: &ResourcePath,
        version: Option<FileId>,
        to: &ResourcePath,
        overwrite: bool,
        check: Check,
    ) -> Result<Replaced, VolumeError> {
        let (inner, source, target) = (Arc::clone(&self.inner), from.clone(), to.clone());
        inner.turn_to_upload(to).await?;
        let io = IoContext::default();
        let (reader, mut prepared, origin, reserved) = hop(move || {
            let (found, reader) = inner.open_read(&source, io)?;
            if version.is_some_and(|version| found.meta.file_id != version) {
                return Err(VolumeError::PreconditionFailed { path: source });
            }
            let props = inner.props_of(&reader, &source)?;
            let mut reserved = inner.usage.reservation(0);
            inner.check_room(&target, found.meta.len, &mut reserved)?;
            let prepared = Prepared::new(&inner, &target)?;
            Ok((
                reader,
                prepared,
                Origin::Copy {
                    props,
                    mode: found.mode,
                    overwrite,
                },
                reserved,
            ))
        })
        .await?;
        let inner = Arc::clone(&self.inner);
        let staged = async {
            let tree = Arc::clone(&prepared.tree);
            let mut staging = inner
                .cache
                .stage_from(&reader, prepared.id, tree, io)
                .await?;
            inner.tune(&mut staging);
            prepared.follow(&staging);
            staging.finish().await
        }
        .await
        .map_err(|e| cache_error("copy", to, e))?;
        let guard = inner.locks.lock(&[to]).await;
        let target = to.clone();
        hop(move || {
            let result = inner.publish(&target, prepared, staged, &origin, &check);
            drop((guard, reserved));
            result.map(|(_, created)| Replaced(!created))
        })
        .await
    }

    async fn copy_tree(
        &self,
        from: &ResourcePath,
        to: &ResourcePath,
        overwrite: bool,
        recursive: bool,
        check: Check,
    ) -> Result<Replaced, VolumeError> {
        let (inner, source, target) = (Arc::clone(&self.inner), from.clone(), to.clone());
        let built = hop(move || {
            let mut built = Built {
                id: fresh_dir(&target)?.file_id,
                reserved: inner.usage.reservation(0),
                bytes: 0,
                inner,
                named: true,
            };
            built.fill(&source, recursive)?;
            Ok(built)
        })
        .await?;
        let guard = self.inner.locks.lock(&[to]).await;
        let target = to.clone();
        hop(move || {
            let result = built.install(&target, overwrite, check);
            drop(guard);
            result
        })
        .await
    }
}

/// A copied collection on its way, `.tierdav/tmp/<id>`; gone when dropped.
struct Built {
    inner: Arc<Inner>,
    id: FileId,
    reserved: Reservation,
    bytes: u64,
    named: bool,
}

impl Drop for Built {
    fn drop(&mut self) {
        if self.named {
            self.inner.cleaner.remove(id_name(self.id), false);
        }
    }
}

impl Built {
    fn fill(&mut self, from: &ResourcePath, recursive: bool) -> Result<(), VolumeError> {
        let inner = Arc::clone(&self.inner);
        // Of its own, and from before the first write: the kernel tells each descriptor of a write error once (syncfs(2)), and
        // others sync the tree by theirs.
        let root = inner.tree.dir(&ResourcePath::root());
        let writes = Writes::alone(root.at("open the root for", from)?.into());
        let identity = Identity {
            file_id: self.id,
            ..fresh_dir(from)?
        };
        let top =
            apply::prepare_dir(&inner.tree.tmp, &id_name(self.id), &identity).at("mkdir", from)?;
        let mut left = vec![(from.clone(), top)];
        while let Some((path, to)) = left.pop() {
            let dir = inner.tree.dir(&path).at("open", &path)?;
            tree::set_props(&to, &tree::get_props(&dir).at("read properties", &path)?)
                .at("set properties", &path)?;
            if !recursive {
                break;
            }
            for name in tree::names(&dir).at("list", &path)? {
                let Some(name) = inner.seen(&path, name) else {
                    continue;
                };
                let Ok(child) = path.join(&name) else {
                    continue;
                };
                let Entry::Found(found) =
                    inner.tree.look(&dir, &name, &child).at("stat", &child)?
                else {
                    continue;
                };
                match found.meta.kind {
                    Kind::Collection => {
                        let identity = fresh_dir(&child)?;
                        left.push((
                            child.clone(),
                            apply::prepare_dir(&to, &name, &identity).at("mkdir", &child)?,
                        ));
                    }
                    Kind::File => match self.copy_into(&child, &to, &name) {
                        // Gone since the listing: as if the copy had begun a moment later.
                        Ok(()) | Err(VolumeError::NotFound { .. }) => {}
                        Err(e) => return Err(e),
                    },
                }
            }
        }
        if inner.durability == Durability::Commit {
            inner
                .tree
                .sync(&writes)
                .map_err(|e| unavailable("sync", from, e.into()))?;
        }
        Ok(())
    }

    /// Copies one file as a plain one: the cache holds nothing of it.
    fn copy_into(
        &mut self,
        path: &ResourcePath,
        to: &OwnedFd,
        name: &str,
    ) -> Result<(), VolumeError> {
        let inner = &self.inner;
        let (found, reader) = inner.open_read(path, IoContext::default())?;
        // The quota counts all of the copy at its end; what the disk has free is without what was copied so far.
        let bytes = self.bytes.saturating_add(found.meta.len);
        if !self.reserved.grow(bytes) {
            return Err(quota_exceeded(path));
        }
        inner.check_disk(path, found.meta.len)?;
        self.bytes = bytes;
        let props = inner.props_of(&reader, path)?;
        let target = create_in(to, name).at("create", path)?;
        let now = now_ns();
        let identity = Identity {
            file_id: identity::fresh().at("draw an id for", path)?,
            len: found.meta.len,
            mtime_ns: now,
            created_ns: now,
            ino: 0,
            state: State::Inline,
            all_dirty: false,
            lock_null: false,
        };
        if inner.cache.pools().is_some() {
            // Dressed first: if the copy comes to nothing, its placeholder says which objects have to go.
            let state = State::Pooled;
            let identity = Identity { state, ..identity };
            apply::dress(&target, &identity, Some(found.mode), &props, []).at("prepare", path)?;
            let staged = tokio::runtime::Handle::current().block_on(async {
                let (id, tree) = (identity.file_id, Arc::new(target));
                let io = IoContext::default();
                let staging = inner.cache.stage_from(&reader, id, tree, io).await?;
                staging.finish().await
            });
            staged.map_err(|e| cache_error("copy", path, e))?.publish();
            return Ok(());
        }
        if let Some(source) = reader.tree().filter(|_| !found.dirty()) {
            share_bytes(source, &target, found.meta.len).at("copy", path)?;
        } else {
            let runtime = tokio::runtime::Handle::current();
            let mut at = 0;
            while at < found.meta.len {
                let read = runtime.block_on(reader.read(at, CHUNK_BYTES));
                let (data, _) = read.map_err(|e| cache_error("copy", path, e))?;
                target.write_all_at(&data, at).at("write", path)?;
                at += data.len() as u64;
            }
        }
        apply::dress(&target, &identity, Some(found.mode), &props, []).at("prepare", path)?;
        Ok(())
    }

    fn install(
        mut self,
        to: &ResourcePath,
        overwrite: bool,
        check: Check,
    ) -> Result<Replaced, VolumeError> {
        let inner = Arc::clone(&self.inner);
        let (dir, name) = inner.place(to)?;
        let old = inner.occupant(&dir, name, to)?;
        if !check(old.as_ref().map(|f| &f.meta)) || (old.is_some() && !overwrite) {
            return Err(VolumeError::PreconditionFailed { path: to.clone() });
        }
        inner.all_seen(to, old.as_ref())?;
        let tmp = id_name(self.id);
        let record = || Record::Install {
            path: to.clone(),
            id: self.id,
            replaced: old.as_ref().map(|f| f.meta.file_id),
        };
        let left = inner.commit(to, record, &[&dir], || {
            let from = Place {
                dir: &inner.tree.tmp,
                name: &tmp,
            };
            let place = Place { dir: &dir, name };
            apply::rename_in(&inner.tree, &from, Kind::Collection, &place, old.as_ref())
                .at("name", to)
        })?;
        left.clear(&inner.tree, &inner.cache, &inner.cleaner);
        self.named = false;
        inner.usage.collection_placed(self.bytes);
        Ok(Replaced(old.is_some()))
    }
}

fn create_in(dir: &OwnedFd, name: &str) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(
        dir,
        name,
        flags,
        Mode::from(0o666),
    )?))
}

/// Copies by reflink where the file system can, else inside the kernel, else through memory.
fn share_bytes(from: &File, to: &File, len: u64) -> io::Result<()> {
    if len == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let (mut read, mut written) = (0u64, 0u64);
    while written < len {
        let want = usize::try_from(len - written)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), want) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(_) => {}
            Err(
                rustix::io::Errno::XDEV | rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP,
            ) => {
                return through_memory(from, to, written, len);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn through_memory(from: &File, to: &File, mut at: u64, len: u64) -> io::Result<()> {
    let mut buf = vec![0u8; CHUNK_BYTES];
    while at < len {
        let n = usize::try_from(len - at)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES);
        from.read_exact_at(&mut buf[..n], at)?;
        to.write_all_at(&buf[..n], at)?;
        at += n as u64;
    }
    Ok(())
}
