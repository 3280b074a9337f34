//! The tree under the root: every look and every change relative to a directory handle.
//!
//! Names are resolved by `openat2` beneath the root, without magic links and, unless allowed,
//! without symbolic ones. The last step is always one name in an open directory, so that nothing
//! swapped in between can lead outside.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, SeekFrom, StatxFlags, Timespec, Timestamps,
    XattrFlags,
};
use rustix::io::Errno;

use super::fine_time;
use super::identity::{self, Identity, State};
use super::journal;
use super::open_files::{OpenFiles, Opened, Stamp};
use super::path::{HIDDEN, ResourcePath};
use super::props;
use super::records::Records;
use super::types::{Found, Kind, Meta, Stale, Symlinks};
use crate::objects::{FileSystemSync, Writes};

/// Longest text handed to one `openat2` (`PATH_MAX` is 4096 with its NUL).
const RESOLVE_BYTES_MAX: usize = 4000;

/// What holds a name.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Nothing.
    Absent,
    /// Something that is no resource: a refused link, a device, a pipe.
    Other,
    /// A file or collection.
    Found(Box<Found>),
}

impl Entry {
    fn found(self) -> Option<Found> {
        match self {
            Entry::Found(found) => Some(*found),
            Entry::Absent | Entry::Other => None,
        }
    }
}

/// The open root.
pub(crate) struct Tree {
    root: Arc<OwnedFd>,
    /// The root's (`st_dev`); what is mounted below it, and each subvolume of Btrfs, has another.
    pub device: u64,
    symlinks: Symlinks,
    hidden_real: PathBuf,
    /// Syncing a directory makes the inodes that its entries name durable, too ([`journal::covers_inodes`]).
    pub journals_inodes: bool,
    /// Where `syncfs` is as strong as a sync of each file ([`journal::syncs_whole`]).
    pub file_system_sync: Option<Arc<FileSystemSync>>,
    /// Everything since the start.
    all_writes: Writes,
    /// The file system, not those mounted below it, if any change there after a look gives another [`Stamp`], however soon it is made.
    fine_times: Option<(u32, u32)>,
    /// What the kernel has in memory of it needs no question to anybody else: not so for file systems of a network.
    in_memory: bool,
    /// Files read a moment ago.
    pub open_files: OpenFiles,
    /// What attributes said.
    records: Records,
    /// Whether it is asked.
    remembers: bool,
    /// `.tierdav`.
    pub hidden: OwnedFd,
    /// `.tierdav/tmp`: prepared and discarded things.
    pub tmp: OwnedFd,
    /// `.tierdav/dirty`: a second name for each file with dirty objects.
    pub dirty: OwnedFd,
}

/// `f_type` of file systems of this machine (statfs(2)): ext4, XFS, Btrfs, F2FS, tmpfs, ZFS, bcachefs.
const LOCAL: [u32; 7] = [
    journal::EXT,
    journal::XFS,
    journal::BTRFS,
    0xf2f5_2010,
    0x0102_1994,
    0x2fc1_2fc1,
    0xca45_1a4e,
];

const DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

pub(crate) fn id_name(id: tiering::FileId) -> String {
    format!("{:016x}", id.0)
}

/// Opens a directory.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, DIR, Mode::empty())?)
}

/// Opens a directory in another, made if absent.
pub(crate) fn make_dir(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(dir, name, Mode::from(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = DIR | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// A directory of this length has a few hundred names at most.
const DIRECTORY_BYTES: u64 = 4096;

impl Tree {
    /// Opens `root`, makes the hidden directories.
    ///
    /// `in_place`: whether what the kernel or the tree remembers may be used.
    pub fn open(root: &Path, symlinks: Symlinks, in_place: bool) -> io::Result<Tree> {
        let root = open_dir(root)?;
        let hidden = make_dir(&root, HIDDEN)?;
        let (tmp, dirty) = (make_dir(&hidden, "tmp")?, make_dir(&hidden, "dirty")?);
        let hidden_real = std::fs::read_link(proc_path(&hidden, None))?;
        let kind = rustix::fs::fstatfs(&root)?.f_type as u32;
        let journals_inodes = journal::covers_inodes(&root, kind)?;
        // Each has a descriptor of its own: an error is told to it, whoever else was told (syncfs(2)).
        let handle = || rustix::fs::openat(&dirty, ".", DIR, Mode::empty());
        let file_system_sync = match journal::syncs_whole(kind, journals_inodes) {
            true => Some(Arc::new(FileSystemSync::new(handle()?.into()))),
            false => None,
        };
        let all_writes = Writes::alone(handle()?.into());
        let in_memory = in_place && LOCAL.contains(&kind);
        // A full disk is no reason not to start.
        let fine_times = match in_memory && fine_time::tells_changes_apart(&tmp).unwrap_or(false) {
            true => Some(statx(&tmp, "", AtFlags::EMPTY_PATH)?.dev),
            false => None,
        };
        Ok(Tree {
            fine_times,
            journals_inodes,
            file_system_sync,
            all_writes,
            in_memory,
            remembers: in_place,
            device: rustix::fs::fstat(&root)?.st_dev,
            open_files: OpenFiles::default(),
            records: Records::default(),
            root: root.into(),
            symlinks,
            hidden_real,
            hidden,
            tmp,
            dirty,
        })
    }

    /// See [`VolumeOptions::assume_journal`](super::VolumeOptions::assume_journal).
    pub fn assume_journal(&mut self) -> io::Result<()> {
        let handle = rustix::fs::openat(&self.dirty, ".", DIR, Mode::empty())?;
        self.journals_inodes = true;
        self.file_system_sync = Some(Arc::new(FileSystemSync::new(handle.into())));
        Ok(())
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Makes `writes` to the root's file system durable.
    pub fn sync(&self, writes: &Writes) -> Result<(), Errno> {
        writes.sync()?;
        match &self.file_system_sync {
            Some(_) => Ok(()),
            // An ext4 without a journal empties the device's cache before it writes the last inodes; this ends with that.
            None => rustix::fs::fsync(&self.hidden),
        }
    }

    /// Makes everything since the start durable.
    pub fn sync_all(&self) -> Result<(), Errno> {
        self.sync(&self.all_writes)
    }

    /// A directory of the hidden one, created when missing.
    pub fn hidden_path(&self) -> &Path {
        &self.hidden_real
    }

    /// Whether what the kernel has in memory is used on whatever thread.
    pub fn in_memory(&self) -> bool {
        self.in_memory
    }

    /// Whether a name may be a link to a resource elsewhere.
    pub fn follows_links(&self) -> bool {
        self.symlinks == Symlinks::InsideRoot
    }

    fn flags(&self) -> ResolveFlags {
        let base = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match self.symlinks {
            Symlinks::Refuse => base | ResolveFlags::NO_SYMLINKS,
            Symlinks::InsideRoot => base,
        }
    }

    /// Opens what `path` names beneath the root, if the kernel can tell from memory what that is; `None` when it would have to
    /// ask a disk, or anything is in the way. Needs Linux 5.12.
    fn resolve_now(&self, path: &ResourcePath, flags: OFlags) -> Option<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let how = self.flags() | ResolveFlags::CACHED;
        let name = path.relative();
        if name.is_empty() || self.follows_links() || !self.in_memory {
            return None;
        }
        rustix::fs::openat2(&self.root, name, flags, Mode::empty(), how).ok()
    }

    /// Opens what `path` names beneath the root.
    fn resolve(&self, path: &ResourcePath, flags: OFlags) -> io::Result<OwnedFd> {
        let mut rest = path.relative();
        if rest.is_empty() {
            rest = ".";
        }
        let mut base: Option<OwnedFd> = None;
        while rest.len() > RESOLVE_BYTES_MAX {
            let cut = rest.as_bytes()[..RESOLVE_BYTES_MAX]
                .iter()
                .rposition(|b| *b == b'/');
            let (head, tail) = rest.split_at(cut.ok_or(Errno::NAMETOOLONG)?);
            base = Some(self.openat2(base.as_ref(), head, DIR)?);
            rest = &tail[1..];
        }
        let fd = self.openat2(base.as_ref(), rest, flags)?;
        if self.symlinks == Symlinks::InsideRoot {
            // A link below the root may point at the gateway's own directory, which is no place.
            let real = std::fs::read_link(proc_path(&fd, None))?;
            if real.starts_with(&self.hidden_real) {
                return Err(Errno::NOENT.into());
            }
        }
        Ok(fd)
    }

    fn openat2(&self, base: Option<&OwnedFd>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let base = base.unwrap_or(&self.root);
        let flags = flags | OFlags::CLOEXEC;
        loop {
            // EAGAIN: a rename elsewhere raced with the walk; the kernel asks to try again.
            match rustix::fs::openat2(base, path, flags, Mode::empty(), self.flags()) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Opens a collection.
    pub fn dir(&self, path: &ResourcePath) -> io::Result<OwnedFd> {
        self.resolve(path, DIR)
    }

    /// Opens the collection that holds `path`; the root itself is `.` in itself.
    pub fn parent<'p>(&self, path: &'p ResourcePath) -> io::Result<(Arc<OwnedFd>, &'p str)> {
        let root = || Arc::clone(&self.root);
        match path.parent() {
            Some(parent) if parent.is_root() => Ok((root(), path.name())),
            Some(parent) => Ok((self.dir(&parent)?.into(), path.name())),
            None => Ok((root(), ".")),
        }
    }

    /// Opens a file's content to read.
    pub fn file(&self, path: &ResourcePath) -> io::Result<File> {
        Ok(File::from(self.resolve(
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
        )?))
    }

    /// An open file and what it is, if neither takes a disk; `None` otherwise, and for what is no plain file of the gateway's.
    /// It may have been opened earlier: [`Tree::is_still`] tells whether it is what the name means now.
    pub fn open_now(&self, path: &ResourcePath) -> Option<Arc<Opened>> {
        if let Some(opened) = self.open_files.get(path) {
            return Some(opened);
        }
        let now = super::now_ns();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.resolve_now(path, flags)?);
        let (found, stamp) = self.look_open(&file, || get_identity(&file).ok())?;
        if found.meta.kind != Kind::File {
            return None;
        }
        let opened = Arc::new(Opened::new(file, found, stamp));
        if self.is_settled(&stamp, now) {
            self.open_files.put(path.clone(), Arc::clone(&opened));
        }
        Some(opened)
    }

    /// Whether `path` names a file of more than so many bytes, or a collection with others below it or with many members, as far as its
    /// status tells. Links are not followed.
    pub fn is_large(&self, path: &ResourcePath, bytes: u64) -> bool {
        let Ok((dir, name)) = self.parent(path) else {
            return false;
        };
        match statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.file_type == FileType::RegularFile => stat.len > bytes,
            Ok(stat) if stat.file_type == FileType::Directory => {
                stat.links > 2 || stat.len > DIRECTORY_BYTES
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// The status of what `path` names, if the kernel can tell from memory; `None` otherwise, and for what does not exist.
    pub fn status_now(&self, path: &ResourcePath) -> Option<Stat> {
        if path.is_root() {
            return statx(&self.root, "", AtFlags::EMPTY_PATH).ok();
        }
        let fd = self.resolve_now(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        statx(&fd, "", AtFlags::EMPTY_PATH).ok()
    }

    /// What a name means, if the kernel can tell from memory; `None` otherwise, and for what does not exist.
    pub fn find_now(&self, path: &ResourcePath) -> Option<Found> {
        if let Some(opened) = self.open_files.get(path)
            && self.is_still(path, &opened)
        {
            return Some(opened.found.clone());
        }
        let fd = self.resolve_now(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let read = || {
            let mut buf = [0u8; 128];
            let at = proc_path(&fd, None);
            match rustix::fs::getxattr(at, identity::ATTRIBUTE, &mut buf[..]) {
                Ok(n) => Some(Identity::decode(&buf[..n])),
                Err(Errno::NODATA) => Some(None),
                Err(_) => None,
            }
        };
        Some(self.look_open(&fd, read)?.0)
    }

    /// What an open file or directory is, and in which state: as that is known, else by its record, which `read` tells and which is
    /// remembered. `None` where the record does not describe it, or cannot be read.
    fn look_open(
        &self,
        fd: &impl AsFd,
        read: impl FnOnce() -> Option<Option<Identity>>,
    ) -> Option<(Found, Stamp)> {
        let mut stat = statx(fd, "", AtFlags::EMPTY_PATH).ok()?;
        let entry = match self.known(&stat) {
            Some(entry) => entry,
            None => {
                let (before, now) = (Stamp::of(&stat), super::now_ns());
                let record = read()?;
                stat = statx(fd, "", AtFlags::EMPTY_PATH).ok()?;
                self.learn(before, &stat, record, now);
                entry_of(record, &stat)
            }
        };
        let found = entry.found().filter(|f| f.stale.is_none())?;
        Some((found, Stamp::of(&stat)))
    }

    /// What a file or directory in this state is, if that is known.
    fn known(&self, stat: &Stat) -> Option<Entry> {
        if !self.remembers {
            return None;
        }
        let known = self.records.get(&Stamp::of(stat))?;
        let mut entry = entry_of(known.record, stat);
        if let Entry::Found(found) = &mut entry {
            found.meta.bare = known.bare;
        }
        Some(entry)
    }

    /// Remembers a record that was read after `before` and before `stat`, if nothing has changed between.
    fn learn(&self, before: Stamp, stat: &Stat, record: Option<Identity>, now: i64) {
        let fits =
            record.is_none_or(|r| stat.file_type != FileType::RegularFile || r.describes(stat));
        if self.in_memory && fits && before == Stamp::of(stat) && self.is_settled(&before, now) {
            self.records.put(before, record, false);
        }
    }

    /// Remembers the record that a file has been given, and whether it has no dead properties, for whom `status` tells what the
    /// file is like since. The caller holds its name: nobody else changes what is said of it.
    ///
    /// Not of a dirty version: that may be settled at any time, and its record with it. Nor where a change might not be seen.
    pub fn learn_given(
        &self,
        record: Identity,
        bare: bool,
        status: impl FnOnce() -> Result<Stat, Errno>,
    ) {
        let lasts = record.state != State::Dirty && !identity::is_derived(record.file_id);
        if lasts
            && self.fine_times.is_some()
            && let Ok(stat) = status()
            && self.fine_times == Some(stat.dev)
            && record.is_own(&stat)
        {
            self.records.put(Stamp::of(&stat), Some(record), bare);
        }
    }

    /// Whether a change from `now_ns` on would give another stamp.
    fn is_settled(&self, stamp: &Stamp, now_ns: i64) -> bool {
        self.fine_times == Some(stamp.dev) || stamp.is_settled(now_ns)
    }

    /// Whether a name means what was opened under it, unchanged.
    pub fn is_still(&self, path: &ResourcePath, opened: &Opened) -> bool {
        let stat = statx(&self.root, path.relative(), AtFlags::SYMLINK_NOFOLLOW);
        let same = stat.is_ok_and(|stat| Stamp::of(&stat) == opened.stamp);
        if !same {
            self.open_files.close(path);
        }
        same
    }

    /// What `path` names.
    pub fn find(&self, path: &ResourcePath) -> io::Result<Entry> {
        match self.parent(path) {
            Ok((dir, name)) => self.look(&dir, name, path),
            Err(e) if is_absent(&e) => Ok(Entry::Absent),
            Err(e) => Err(e),
        }
    }

    /// What `name` is in `dir`; `path` is where that is, to follow an allowed link.
    pub fn look(&self, dir: &OwnedFd, name: &str, path: &ResourcePath) -> io::Result<Entry> {
        if let Some(entry) = self.look_here(dir, name)? {
            return Ok(entry);
        }
        self.follow(path)
    }

    /// [`Tree::look`] at a member of the collection `at`.
    pub fn look_in(&self, dir: &OwnedFd, name: &str, at: &ResourcePath) -> io::Result<Entry> {
        if let Some(entry) = self.look_here(dir, name)? {
            return Ok(entry);
        }
        match at.join(name) {
            Ok(path) => self.follow(&path),
            Err(_) => Ok(Entry::Other),
        }
    }

    /// [`look_at`], without asking for what is known.
    fn look_here(&self, dir: &OwnedFd, name: &str) -> io::Result<Option<Entry>> {
        if !self.in_memory {
            return look_at(dir, name);
        }
        let stat = match statx(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Some(Entry::Absent)),
            other => other?,
        };
        if stat.file_type == FileType::Symlink {
            return Ok(None);
        }
        if let Some(entry) = self.known(&stat) {
            return Ok(Some(entry));
        }
        let now = super::now_ns();
        let (entry, read) = look_and_tell(dir, name)?;
        if let Some((record, after)) = read {
            self.learn(Stamp::of(&stat), &after, record, now);
        }
        Ok(entry)
    }

    /// The encoded dead properties of a name in a directory, without opening it, into `value`; `false` when it is gone. Links are
    /// not followed.
    pub fn props_in(&self, dir: &OwnedFd, name: &str, value: &mut Vec<u8>) -> io::Result<bool> {
        let stamp = || statx(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|s| Stamp::of(&s));
        let before = self.in_memory.then(stamp);
        let there = get_props_at(dir, name, value)?;
        if there
            && value.is_empty()
            && let Some(Ok(before)) = before
            && stamp() == Ok(before)
        {
            self.records.note_bare(&before);
        }
        Ok(there)
    }

    /// The encoded dead properties of a resource, if that takes no disk; `None` otherwise.
    pub fn props_now(&self, path: &ResourcePath) -> Option<Vec<u8>> {
        let fd = self.resolve_now(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let stamp = || statx(&fd, "", AtFlags::EMPTY_PATH).map(|s| Stamp::of(&s));
        let before = stamp().ok()?;
        if self.records.get(&before).is_some_and(|known| known.bare) {
            return Some(Vec::new());
        }
        let mut value = Vec::new();
        let at = proc_path(&fd, None);
        read_props(&mut value, |buf| {
            rustix::fs::getxattr(at.as_str(), props::ATTRIBUTE, buf)
        })
        .ok()?;
        if value.is_empty() && stamp() == Ok(before) {
            self.records.note_bare(&before);
        }
        Some(value)
    }

    /// What an allowed symbolic link leads to.
    fn follow(&self, path: &ResourcePath) -> io::Result<Entry> {
        // A symbolic link.
        match self.symlinks {
            Symlinks::Refuse => Ok(Entry::Other),
            Symlinks::InsideRoot => {
                match self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
                    Ok(fd) => Ok(match look_fd(&fd)? {
                        // The link is a further name: when it goes, what it leads to stays.
                        Entry::Found(mut found) => {
                            found.links = found.links.saturating_add(1);
                            Entry::Found(found)
                        }
                        other => other,
                    }),
                    Err(e) if is_absent(&e) => Ok(Entry::Other),
                    Err(e) => Err(e),
                }
            }
        }
    }
}

/// Errors of a walk that mean: there is no such place beneath the root.
pub(crate) fn is_absent(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NXIO)
    )
}

/// The file's path for calls that take no directory handle. The kernel follows the magic link to
/// the open directory itself, wherever that is now.
pub(crate) fn proc_path(fd: &impl AsRawFd, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("/proc/self/fd/{}/{name}", fd.as_raw_fd()),
        None => format!("/proc/self/fd/{}", fd.as_raw_fd()),
    }
}

/// Looks at a name without following links; `None` for a symbolic link.
pub(crate) fn look_at(dir: &OwnedFd, name: &str) -> io::Result<Option<Entry>> {
    Ok(look_and_tell(dir, name)?.0)
}

/// [`look_at`], and the record and status that it rests on.
#[expect(clippy::type_complexity, reason = "two optional results of one look")]
fn look_and_tell(
    dir: &OwnedFd,
    name: &str,
) -> io::Result<(Option<Entry>, Option<(Option<Identity>, Stat)>)> {
    let absent = || Ok((Some(Entry::Absent), None));
    // The record before the status: settling writes times first and the record last, so a record
    // that says inline goes with the times seen after it.
    let mut buf = [0u8; 128];
    let record = match rustix::fs::lgetxattr(
        proc_path(dir, Some(name)),
        identity::ATTRIBUTE,
        &mut buf[..],
    ) {
        Ok(n) => Identity::decode(&buf[..n]),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE | Errno::PERM | Errno::ACCESS) => None,
        Err(Errno::NOENT) => return absent(),
        Err(e) => return Err(e.into()),
    };
    let stat = match statx(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return absent(),
        other => other?,
    };
    if stat.file_type == FileType::Symlink {
        return Ok((None, None));
    }
    let mismatch =
        record.is_some_and(|r| stat.file_type == FileType::RegularFile && !r.describes(&stat));
    if mismatch {
        // Written beside the gateway, or a touched placeholder, or another file took the name between the two calls.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => return Ok((Some(look_fd(&fd)?), None)),
            Err(Errno::NOENT) => return absent(),
            Err(Errno::ACCESS | Errno::LOOP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok((Some(entry_of(record, &stat)), Some((record, stat))))
}

/// Looks at an open file or directory.
pub(crate) fn look_fd(fd: &impl AsFd) -> io::Result<Entry> {
    let record = get_identity(fd)?;
    let stat = statx(fd, "", AtFlags::EMPTY_PATH)?;
    let touched = record.is_some_and(|r| r.describes_if_hollow(&stat)) && is_hollow(fd);
    Ok(entry_as(record, &stat, touched))
}

/// Whether an open file has no data anywhere. Not so where the file system cannot tell, or the question fails.
fn is_hollow(fd: &impl AsFd) -> bool {
    rustix::fs::seek(fd, SeekFrom::Data(0)) == Err(Errno::NXIO)
}

/// The record of an open file, valid or not for what the file now is.
pub(crate) fn get_identity(fd: &impl AsFd) -> io::Result<Option<Identity>> {
    let mut buf = [0u8; 128];
    match rustix::fs::fgetxattr(fd, identity::ATTRIBUTE, &mut buf[..]) {
        Ok(n) => Ok(Identity::decode(&buf[..n])),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// What `statx` says, as far as it matters here.
pub(crate) struct Stat {
    pub file_type: FileType,
    pub mode: u32,
    pub len: u64,
    pub mtime_ns: i64,
    pub created_ns: i64,
    pub ctime_ns: i64,
    pub dev: (u32, u32),
    pub ino: u64,
    pub links: u32,
}

/// `statx` of a name in a directory, or of an open file with an empty name.
pub(crate) fn statx(dir: &impl AsFd, name: &str, flags: AtFlags) -> Result<Stat, Errno> {
    let s = rustix::fs::statx(
        dir,
        name,
        flags,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )?;
    let ns = |t: rustix::fs::StatxTimestamp| {
        t.tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(t.tv_nsec))
    };
    let mtime_ns = ns(s.stx_mtime);
    let born = s.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(Stat {
        file_type: FileType::from_raw_mode(u32::from(s.stx_mode)),
        mode: u32::from(s.stx_mode) & 0o7777,
        len: s.stx_size,
        mtime_ns,
        created_ns: if born { ns(s.stx_btime) } else { mtime_ns },
        ctime_ns: ns(s.stx_ctime),
        dev: (s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        links: s.stx_nlink,
    })
}

/// What a file or directory is by its record and status alone: a touched placeholder counts as written to.
fn entry_of(record: Option<Identity>, stat: &Stat) -> Entry {
    entry_as(record, stat, false)
}

/// [`entry_of`]; `touched`: it is known to be a placeholder all the same.
fn entry_as(record: Option<Identity>, stat: &Stat, touched: bool) -> Entry {
    let kind = match stat.file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Collection,
        _ => return Entry::Other,
    };
    let mut stale = None;
    let identity = match (kind, record) {
        (Kind::File, Some(r)) if touched || r.describes(stat) => r,
        (Kind::Collection, r) => Identity {
            file_id: r.map_or_else(|| identity::derived_dir(stat.ino), |r| r.file_id),
            len: 0,
            mtime_ns: stat.mtime_ns,
            created_ns: r.map_or(stat.created_ns, |r| r.created_ns),
            ino: stat.ino,
            state: State::Inline,
            all_dirty: false,
            lock_null: false,
        },
        (Kind::File, r) => {
            stale = r.map(|r| match r.ino == stat.ino {
                true => Stale::Changed(r.file_id),
                false => Stale::Copied,
            });
            Identity {
                file_id: identity::derived(stat.mtime_ns, stat.len, stat.ino, stat.created_ns),
                len: stat.len,
                mtime_ns: stat.mtime_ns,
                created_ns: r.map_or(stat.created_ns, |r| r.created_ns),
                ino: stat.ino,
                state: State::Inline,
                all_dirty: false,
                lock_null: false,
            }
        }
    };
    let executable = kind == Kind::File && stat.mode & 0o100 != 0;
    let meta = Meta::of(&identity, kind, executable);
    Entry::Found(Box::new(Found {
        meta,
        identity,
        stale,
        mode: stat.mode,
        links: match identity.state {
            State::Pooled if !identity.is_own(stat) => stat.links.max(2),
            State::Pooled | State::Inline | State::Dirty => stat.links,
        },
    }))
}

/// Writes the identity record.
pub(crate) fn set_identity(fd: &impl AsFd, id: &Identity) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        fd,
        identity::ATTRIBUTE,
        &id.encode(),
        XattrFlags::empty(),
    )?)
}

/// The encoded dead properties of an open file or directory; empty for none.
pub(crate) fn get_props(fd: &impl AsFd) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    read_props(&mut value, |buf| {
        rustix::fs::fgetxattr(fd, props::ATTRIBUTE, buf)
    })?;
    Ok(value)
}

/// The encoded dead properties of a name in a directory, without opening it, into `value`; `false` when it is gone. Links are
/// not followed.
pub(crate) fn get_props_at(dir: &OwnedFd, name: &str, value: &mut Vec<u8>) -> io::Result<bool> {
    match read_props(value, |buf| {
        rustix::fs::lgetxattr(proc_path(dir, Some(name)), props::ATTRIBUTE, buf)
    }) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn read_props(
    value: &mut Vec<u8>,
    get: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    value.resize(4096, 0);
    loop {
        let len = match get(value) {
            Ok(n) => n,
            // A symbolic link cannot have any: PERM.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => 0,
            Err(Errno::RANGE) if value.len() < props::VALUE_BYTES_MAX => {
                value.resize(props::VALUE_BYTES_MAX, 0);
                continue;
            }
            Err(e) => return Err(e),
        };
        value.truncate(len);
        return Ok(());
    }
}

/// Writes the encoded dead properties; empty removes them.
pub(crate) fn set_props(fd: &impl AsFd, value: &[u8]) -> io::Result<()> {
    if value.is_empty() {
        return match rustix::fs::fremovexattr(fd, props::ATTRIBUTE) {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(e) => Err(e.into()),
        };
    }
    match rustix::fs::fsetxattr(fd, props::ATTRIBUTE, value, XattrFlags::empty()) {
        // What does not fit the attribute area is a lack of space, whatever the file system calls it.
        Err(Errno::TOOBIG | Errno::RANGE) => Err(Errno::NOSPC.into()),
        other => Ok(other?),
    }
}

/// The permissions of owner, group and others, which a new version keeps. That a program runs as its owner it does not: its owner is
/// the gateway from then on, and its content anybody's who may write here.
const PERMISSIONS: u32 = 0o777;

/// What a new version keeps of a mode.
pub(crate) fn kept_mode(mode: u32) -> u32 {
    mode & PERMISSIONS
}

/// Sets what a new version keeps of a mode.
pub(crate) fn set_mode(fd: &impl AsFd, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(fd, Mode::from(kept_mode(mode)))?)
}

/// Sets a file's mtime; its atime stays.
pub(crate) fn set_mtime(fd: &impl AsFd, mtime_ns: i64) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _,
        },
    };
    Ok(rustix::fs::futimens(fd, &times)?)
}

/// The names in an open directory, `.` and `..` left out, as bytes.
pub(crate) fn names(dir: &impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            out.push(name.to_vec());
        }
    }
    Ok(out)
}

/// Opens a directory by raw name for the gateway's own work below the hidden directory.
pub(crate) fn open_dir_raw(dir: &impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir,
        OsStr::from_bytes(name),
        DIR | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}
