//! One file of the intent log, written such that a sync is one write of the disk and no more.
//!
//! A segment has zeros before it has records ([`zeros`] says why), and one that is no longer needed is written over as the next one. That records of before stand behind the new
//! ones does no harm: numbers are consecutive, and each run has a salt, see `record`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::SEGMENT_BYTES;
use super::record::segment_header;
use crate::zeros;

/// Writes end at a multiple of this, in zeros: a part of a page whose rest is not in memory would have to be read first.
const PAGE_BYTES: u64 = 4096;
/// Zeros that are written at a time.
const AHEAD_BYTES: u64 = 1 << 20;
/// Longest write before which that is worth it: a longer one waits for its own bytes, and no second time for as many zeros.
const SHORT_BYTES: usize = 128 << 10;

/// A segment that is written.
pub(super) struct Segment {
    file: File,
    path: PathBuf,
    /// Number of its first record.
    pub first: u64,
    /// Bytes of header and records.
    pub end: u64,
    /// Bytes of the file, all of them written.
    filled: u64,
    /// All that was asked of the disk was done.
    sound: bool,
}

/// A segment that is not written any more.
pub(super) struct Closed {
    path: PathBuf,
    /// Bytes of header and records.
    pub bytes: u64,
    /// The number after its last record.
    pub until: u64,
    sound: bool,
}

/// A file to write the next segment over.
pub(super) struct Spare(PathBuf);

impl Segment {
    /// A durable, empty segment for records from `first` on, in the place of `spare` if there is one.
    pub fn begin(
        (dir, dir_file): (&Path, &File),
        first: u64,
        salt: u64,
        spare: Option<Spare>,
    ) -> io::Result<Segment> {
        let path = dir.join(format!("{first:016x}.log"));
        let header = segment_header(first, salt);
        let mut page = [0; PAGE_BYTES as usize];
        page[..header.len()].copy_from_slice(&header);
        // The name last: a segment is read at a start, and then its header is that of its name.
        let file = match spare.map(|spare| spare.take_over(&page, &path)) {
            Some(Ok(file)) => file,
            Some(Err(_)) | None => Segment::create(&path, &page).inspect_err(|_| {
                let _ = std::fs::remove_file(&path);
            })?,
        };
        dir_file.sync_all()?;
        Ok(Segment {
            filled: file.metadata()?.len(),
            file,
            path,
            first,
            end: header.len() as u64,
            sound: true,
        })
    }

    fn create(path: &Path, page: &[u8]) -> io::Result<File> {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).open(path)?;
        file.write_all_at(page, 0)?;
        file.sync_all()?;
        Ok(file)
    }

    /// Appends whole frames and waits until they are on stable storage.
    pub fn append(&mut self, mut frames: Vec<u8>) -> io::Result<()> {
        let end = self.end + frames.len() as u64;
        let padded = end.next_multiple_of(PAGE_BYTES);
        let short = frames.len() <= SHORT_BYTES;
        frames.resize((padded - self.end) as usize, 0);
        self.sound = false;
        self.file.write_all_at(&frames, self.end)?;
        if padded > self.filled {
            self.filled = padded;
            if short {
                let to = SEGMENT_BYTES.min(self.filled + AHEAD_BYTES);
                self.filled = zeros::fill(&self.file, self.filled, to);
            }
        }
        rustix::fs::fdatasync(&self.file)?;
        self.end = end;
        self.sound = true;
        Ok(())
    }

    /// Ends it; `until` is the number after its last record.
    pub fn close(self, until: u64) -> Closed {
        Closed {
            path: self.path,
            bytes: self.end,
            until,
            sound: self.sound,
        }
    }
}

impl Closed {
    /// Ends the segment, whose records are no longer needed.
    pub fn retire(self, keep: bool) -> io::Result<Option<Spare>> {
        if !keep || !self.sound {
            std::fs::remove_file(self.path)?;
            return Ok(None);
        }
        let spare = self.path.with_extension("spare");
        std::fs::rename(self.path, &spare)?;
        Ok(Some(Spare(spare)))
    }
}

impl Spare {
    /// Whether `path` is one that an earlier run left.
    pub fn is_name(path: &Path) -> bool {
        path.extension().is_some_and(|x| x == "spare")
    }

    fn take_over(self, page: &[u8], path: &Path) -> io::Result<File> {
        let over = || {
            let file = File::options().write(true).open(&self.0)?;
            file.write_all_at(page, 0)?;
            rustix::fs::fdatasync(&file)?;
            std::fs::rename(&self.0, path)?;
            Ok(file)
        };
        over().inspect_err(|_| {
            let _ = std::fs::remove_file(&self.0);
        })
    }

    pub fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "a spare segment of the intent log stays");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_a_failed_write_left_behind_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let dir_file = File::open(dir.path()).unwrap();
        let begin =
            |first, spare| Segment::begin((dir.path(), &dir_file), first, 7, spare).unwrap();
        let mut segment = begin(1, None);
        segment.append(vec![1; 10]).unwrap();
        let kept = segment.close(2).retire(true).unwrap();
        assert!(kept.is_some());
        let mut segment = begin(2, kept);
        segment.append(vec![2; 10]).unwrap();
        let end = segment.end;
        segment.file = File::open(&segment.path).unwrap();
        segment.append(vec![3; 10]).unwrap_err();
        assert_eq!(segment.end, end);
        let closed = segment.close(3);
        assert_eq!(closed.bytes, end);
        assert!(closed.retire(true).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
