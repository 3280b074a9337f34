//! Content that is in memory: with the gateway, or with the kernel.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use tiering::Tier;

use super::open_files::HOT_BYTES_MAX;
use super::page_cache;
use super::swift::Swift;
use crate::objects::CheckedObject;

/// Longest content of a file that the kernel may be asked to send by itself, and longest cached object that it may be from: a larger one is not likely to be in memory, and few
/// of those cost more than what they are sent with.
const SENT_BYTES_MAX: u64 = 4 << 20;
/// Shortest content that is sent so although it is in memory: copying less costs less than the calls.
const SENT_BYTES_MIN: u64 = 32 << 10;
/// How far apart pages of a plain file are looked at for whether it is in memory: as far as the kernel reads ahead. What it forgets,
/// it forgets by the file, or in large pieces.
const LOOK_BYTES: usize = 128 << 10;
/// The smallest page of a kernel.
const PAGE_BYTES: usize = 4 << 10;
/// Bytes that one call sends at most, so that other connections have their turn.
const SEND_BYTES: usize = 1 << 20;

/// Content of a version: all of it, or a part.
#[derive(Debug, Clone)]
pub enum Content {
    /// These bytes.
    Memory(Bytes),
    /// Those of a file, most likely in the kernel's memory.
    File(FileContent),
}

/// A part of what a file contains.
#[derive(Debug, Clone)]
pub struct FileContent {
    file: Arc<File>,
    part: Range<u64>,
    /// The cached object that the file is.
    object: Option<CheckedObject>,
    sends: Arc<Swift>,
}

impl Content {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File(file) => file.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FileContent {
    /// Whether `len` bytes of a file of `whole` should be sent by the kernel. What is kept in memory, if it is read, is not short.
    pub(crate) fn is_worth(len: u64, whole: u64) -> bool {
        let may_be_kept = whole <= HOT_BYTES_MAX as u64;
        let min = if may_be_kept { SENT_BYTES_MIN } else { 1 };
        (min..=SENT_BYTES_MAX).contains(&len)
    }

    /// A `part` of `file`, which may be a cached `object`, if the kernel can send it without a disk, as far as can be told, and
    /// sends lately did not wait.
    pub(crate) fn now(
        file: Arc<File>,
        part: Range<u64>,
        object: Option<CheckedObject>,
        sends: &Arc<Swift>,
    ) -> Option<FileContent> {
        // All of an object may have to be read to check it, by a thread that others wait for.
        if object.is_some_and(|object| u64::from(object.len) > SENT_BYTES_MAX) {
            return None;
        }
        let content = FileContent {
            file,
            part,
            object,
            sends: Arc::clone(sends),
        };
        (sends.is_on() && content.is_in_memory()).then_some(content)
    }

    fn is_in_memory(&self) -> bool {
        let step = match self.object {
            // What a disk made of an object in the meantime is found when it is read from there, which must not pass unseen.
            Some(_) => PAGE_BYTES,
            None => LOOK_BYTES,
        };
        page_cache::holds(&self.file, self.part.clone(), step)
    }

    /// Where the file is.
    pub(crate) fn tier(&self) -> Tier {
        match self.object {
            Some(_) => Tier::Cache,
            None => Tier::Backing,
        }
    }

    /// The first `len` bytes of `file`.
    #[cfg(test)]
    pub(crate) fn of_test(file: File, len: u64) -> FileContent {
        FileContent {
            file: Arc::new(file),
            part: 0..len,
            object: None,
            sends: Arc::new(Swift::new(true)),
        }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.part.end - self.part.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    /// Has the kernel write what is there from its byte `at` on to a socket, as much as that takes now.
    ///
    /// # Errors
    /// Those of sendfile(2); `UnexpectedEof` if the file has become shorter, `InvalidData` if it is an object that has become another
    /// while it was sent: then the reply must not be ended as if it were whole.
    pub fn send(&self, socket: BorrowedFd<'_>, at: u64) -> io::Result<usize> {
        let sent = self.send_checked(socket, at);
        if let Err(error) = &sent
            && FileContent::is_trouble(error)
        {
            tracing::error!(%error, "content cannot be sent; connection broken off");
        }
        sent
    }

    /// Whether such an error is one of the content, not of the socket.
    pub fn is_trouble(error: &io::Error) -> bool {
        matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData
        ) || error.raw_os_error() == Some(Errno::IO.raw_os_error())
    }

    fn send_checked(&self, socket: BorrowedFd<'_>, at: u64) -> io::Result<usize> {
        // A slow client may have outlasted the kernel's memory of an object: what comes from a disk is checked.
        if let Some(object) = self.object
            && at > 0
            && !self.is_in_memory()
        {
            self.sends.noting(|| self.check(object))?;
        }
        let mut from = self.part.start.saturating_add(at);
        let left = self.part.end.saturating_sub(from);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let send =
            || rustix::fs::sendfile(socket, &self.file, Some(&mut from), left.min(SEND_BYTES));
        match self.sends.noting(send)? {
            0 if left > 0 => Err(ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    }

    /// Reads all of the object, and compares the checksum.
    fn check(&self, object: CheckedObject) -> io::Result<()> {
        let mut bytes = vec![0; object.len as usize];
        self.file.read_exact_at(&mut bytes, 0)?;
        match crc32c::crc32c(&bytes) == object.crc {
            true => Ok(()),
            false => Err(ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn file(len: usize) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &vec![7; len]).unwrap();
        Arc::new(file)
    }

    #[test]
    fn only_what_is_in_memory_and_whole_is_sent() {
        let sends = Arc::new(Swift::new(true));
        let len = 300_000;
        let file = file(len as usize);
        let never = Arc::new(Swift::new(false));
        let now = |object, sends| FileContent::now(Arc::clone(&file), 0..len, object, sends);
        let too_long = SENT_BYTES_MAX as u32 + 1;
        assert!(
            now(
                Some(CheckedObject {
                    crc: 1,
                    len: too_long
                }),
                &sends
            )
            .is_none()
        );
        for object in [
            None,
            Some(CheckedObject {
                crc: 1,
                len: 300_000,
            }),
        ] {
            assert!(now(object, &sends).is_some());
            assert!(now(object, &never).is_none());
        }
    }

    #[test]
    fn an_object_that_comes_from_the_disk_again_is_checked_before_the_rest_is_sent() {
        use std::os::fd::AsFd;
        // Not on a tmpfs, which has nowhere to drop pages to.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let bytes: Vec<u8> = (0..300_000u32).map(|n| (n >> 8) as u8).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        let file = Arc::new(file);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        for (crc, good) in [(crc32c::crc32c(&bytes), true), (1, false)] {
            let sends = Arc::new(Swift::new(true));
            let object = CheckedObject { crc, len: 300_000 };
            let part = 100_000..200_000;
            let content = FileContent::now(Arc::clone(&file), part, Some(object), &sends);
            let content = content.unwrap();
            assert_eq!(content.len(), 100_000);
            assert_eq!(content.send(ours.as_fd(), 99_998).unwrap(), 2);
            let mut sent_bytes = [0; 2];
            io::Read::read_exact(&mut &theirs, &mut sent_bytes).unwrap();
            assert_eq!(sent_bytes, bytes[199_998..200_000]);
            file.sync_all().unwrap();
            // Tried until it is done, since what is in use just then stays.
            let dropped = (0..10_000).any(|_| {
                rustix::fs::fadvise(&*file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                std::thread::yield_now();
                !content.is_in_memory()
            });
            assert!(dropped);
            let sent = content.send(ours.as_fd(), 99_999);
            if sent.is_ok() {
                // Its page is in use until somebody reads it.
                io::Read::read_exact(&mut &theirs, &mut sent_bytes[..1]).unwrap();
            }
            assert_eq!(
                sent.map_err(|e| e.kind()),
                if good {
                    Ok(1)
                } else {
                    Err(ErrorKind::InvalidData)
                }
            );
        }
    }

    #[test]
    fn a_file_that_has_become_shorter_is_an_error_not_an_end() {
        let sends = Arc::new(Swift::new(true));
        let file = file(5);
        let content = FileContent::now(Arc::clone(&file), 0..5, None, &sends).unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = std::os::fd::AsFd::as_fd(&ours);
        assert_eq!(content.send(socket, 3).unwrap(), 2);
        assert_eq!(content.send(socket, 5).unwrap(), 0);
        file.set_len(4).unwrap();
        assert_eq!(content.send(socket, 3).unwrap(), 1);
        let error = content.send(socket, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        drop(ours);
        let mut all = Vec::new();
        io::Read::read_to_end(&mut &theirs, &mut all).unwrap();
        assert_eq!(all.len(), 3);
    }
}
