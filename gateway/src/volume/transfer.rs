//! Taking content of files into the pools, and out of them again. Name, times and properties stay; so do id and entity tag, but
//! for files on their way into the pools that no gateway wrote.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;
use tiering::FileId;

use super::apply::{self, Place};
use super::error::{At, VolumeError};
use super::identity::{self, Identity, State};
use super::path::ResourcePath;
use super::tree::id_name;
use super::types::{Found, Kind};
use super::{Inner, Volume, cache_error, hop, unavailable};
use crate::objects::{ContentReader, Extent, IoContext};

/// Bytes read or written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What became of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// It was moved; its bytes.
    Moved(u64),
    /// It was there already.
    Already,
    /// It has several names: the content of one cannot go without the others.
    Linked,
}

/// A file that is moved.
struct Job {
    found: Found,
    /// The version in its new form.
    id: FileId,
    reader: ContentReader,
    props: Vec<u8>,
    /// Its new form in `.tierdav/tmp`.
    to: Arc<File>,
    /// And its name there.
    name: String,
}

impl Volume {
    /// Moves the content of a plain file into the pools, verified, and leaves a placeholder. A crash leaves the plain file.
    /// `taken`: the versions that are in the pools ([`Volume::pooled_files`]), whose objects bear their ids; this one joins them.
    pub async fn import(
        &self,
        path: &ResourcePath,
        taken: &Arc<Mutex<HashSet<FileId>>>,
    ) -> Result<Transfer, VolumeError> {
        let taken = Arc::clone(taken);
        // What was derived from the file's inode is only that file's as long as it has the inode, which is about to be free. Nor
        // is a record proof: a copy that somebody made of the file before its import may have got its inode.
        let renamed = move |id| match !identity::is_derived(id) && taken.lock().insert(id) {
            true => Ok(id),
            false => identity::fresh(),
        };
        let job = match self.begin_transfer(path, State::Pooled, renamed).await? {
            Ok(job) => job,
            Err(skipped) => return Ok(skipped),
        };
        let cache = &self.inner.cache;
        let (id, len) = (job.id, job.found.identity.len);
        let staged = async {
            let io = IoContext::default();
            let staging = cache.stage_from(&job.reader, id, Arc::clone(&job.to), io);
            let staged = staging.await?.finish().await?;
            // Every object once more, against its checksum.
            let reader = cache.pooled_reader(id, len, io);
            reader.announce(len);
            let mut at = 0;
            while at < len {
                at += reader.read(at, CHUNK_BYTES).await?.0.len() as u64;
            }
            Ok(staged)
        };
        let staged = match staged.await {
            Ok(staged) => staged,
            Err(e) => {
                self.inner.cleaner.remove(job.name, false);
                return Err(cache_error("import", path, e));
            }
        };
        let renamed = move || staged.publish();
        self.end_transfer(path, job, State::Pooled, renamed).await?;
        Ok(Transfer::Moved(len))
    }

    /// Moves the content of a file out of the pools into a plain file, verified. A crash leaves it in the pools.
    pub async fn export(&self, path: &ResourcePath) -> Result<Transfer, VolumeError> {
        let job = match self.begin_transfer(path, State::Inline, Ok).await? {
            Ok(job) => job,
            Err(skipped) => return Ok(skipped),
        };
        let (id, len) = (job.id, job.found.identity.len);
        if let Err(e) = copy_out(&job, path, len).await {
            self.inner.cleaner.remove(job.name, false);
            return Err(e);
        }
        self.end_transfer(path, job, State::Inline, || ()).await?;
        self.inner.cache.purge(id, Extent::Whole(len));
        Ok(Transfer::Moved(len))
    }

    /// Whether no placeholder is left, as far as names can be read; the root then no longer insists on its pools.
    pub async fn leave_pools(&self) -> Result<bool, VolumeError> {
        let tree = self.pooled_files().await?;
        if !tree.files.is_empty() || tree.hidden().next().is_some() {
            return Ok(false);
        }
        let inner = Arc::clone(&self.inner);
        hop(move || {
            let root = ResourcePath::root();
            let flags = rustix::fs::AtFlags::empty();
            match rustix::fs::unlinkat(&inner.tree.hidden, "pools", flags) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(true),
                Err(e) => Err(e).at("remove the marker of pools of", &root),
            }
        })
        .await
    }

    /// Opens a file and makes its new form, whose id `renamed` says; `Err`: there is nothing to do.
    async fn begin_transfer(
        &self,
        path: &ResourcePath,
        want: State,
        renamed: impl FnOnce(FileId) -> io::Result<FileId> + Send + 'static,
    ) -> Result<Result<Job, Transfer>, VolumeError> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        hop(move || {
            let (found, reader) = inner.open_read(&path, IoContext::default())?;
            if found.pooled() == (want == State::Pooled) {
                return Ok(Err(Transfer::Already));
            }
            if found.links > 1 {
                return Ok(Err(Transfer::Linked));
            }
            let (_, props) = inner.stored_props(&path)?;
            // Objects that came to nothing are found by the name of the file beside them, which must never be that of a
            // version that lives in the pools.
            let id = renamed(found.identity.file_id).at("draw an id for", &path)?;
            let name = match want {
                State::Pooled => id,
                State::Inline | State::Dirty => identity::fresh().at("draw an id for", &path)?,
            };
            let to = Arc::new(apply::create_tmp(&inner.tree, name).at("create", &path)?);
            Ok(Ok(Job {
                found,
                id,
                reader,
                props,
                to,
                name: id_name(name),
            }))
        })
        .await
    }

    /// Gives the new form the file's name, if the file is still the same. `renamed` is called as soon as it has the name,
    /// whether or not that becomes durable: from then on the content is where the new form says.
    async fn end_transfer(
        &self,
        path: &ResourcePath,
        job: Job,
        state: State,
        renamed: impl FnOnce() + Send + 'static,
    ) -> Result<(), VolumeError> {
        let guard = self.inner.locks.lock(&[path]).await;
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        hop(move || {
            let done = inner.replace_form(&path, &job, state, renamed);
            if done.is_err() {
                inner.cleaner.remove(job.name, false);
            }
            drop(guard);
            done
        })
        .await
    }
}

impl Inner {
    fn replace_form(
        &self,
        path: &ResourcePath,
        job: &Job,
        state: State,
        renamed: impl FnOnce(),
    ) -> Result<(), VolumeError> {
        let (dir, name) = self.place(path)?;
        let old = self.occupant(&dir, name, path)?;
        let same = old.as_ref().is_some_and(|o| {
            o.meta.kind == Kind::File && o.identity.file_id == job.found.identity.file_id
        });
        let Some(old) = old.filter(|_| same) else {
            return Err(VolumeError::PreconditionFailed { path: path.clone() });
        };
        let identity = Identity {
            file_id: job.id,
            state,
            all_dirty: false,
            ..job.found.identity
        };
        apply::dress(&job.to, &identity, Some(job.found.mode), &job.props, [])
            .at("prepare", path)?;
        rustix::fs::fsync(&job.to).map_err(|e| unavailable("sync", path, e.into()))?;
        let to = Place { dir: &dir, name };
        let from = Place {
            dir: &self.tree.tmp,
            name: &job.name,
        };
        let changes = self.sync.begin();
        let left = apply::rename_in(&self.tree, &from, Kind::File, &to, Some(&old));
        let left = left.at("rename", path)?;
        renamed();
        self.sync
            .sync(changes, &dir)
            .map_err(|e| unavailable("sync", path, e))?;
        left.clear(&self.tree, &self.cache, &self.cleaner);
        Ok(())
    }
}

/// Writes the whole content to the new form, durable and read back.
async fn copy_out(job: &Job, path: &ResourcePath, len: u64) -> Result<(), VolumeError> {
    job.reader.announce(len);
    let (mut at, mut crc) = (0, 0);
    while at < len {
        let read = job.reader.read(at, CHUNK_BYTES).await;
        let (data, _) = read.map_err(|e| cache_error("export", path, e))?;
        crc = crc32c::crc32c_append(crc, &data);
        let (to, from, failed) = (Arc::clone(&job.to), at, path.clone());
        at += data.len() as u64;
        hop(move || to.write_all_at(&data, from).at("write", &failed)).await?;
    }
    let (to, checked) = (Arc::clone(&job.to), path.clone());
    hop(move || {
        rustix::fs::fdatasync(&to).map_err(|e| unavailable("sync", &checked, e.into()))?;
        verify(&to, len, crc, &checked)
    })
    .await
}

fn verify(file: &File, len: u64, want: u32, path: &ResourcePath) -> Result<(), VolumeError> {
    let mut buf = vec![0; CHUNK_BYTES];
    let (mut at, mut crc) = (0, 0);
    while at < len {
        let n = (len - at).min(CHUNK_BYTES as u64) as usize;
        file.read_exact_at(&mut buf[..n], at).at("verify", path)?;
        crc = crc32c::crc32c_append(crc, &buf[..n]);
        at += n as u64;
    }
    if crc == want {
        return Ok(());
    }
    let source = std::io::Error::other("what was written reads differently");
    Err(VolumeError::Io {
        op: "verify",
        path: path.clone(),
        source,
    })
}
