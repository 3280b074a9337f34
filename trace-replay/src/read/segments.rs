//! Our own trace: live and sealed segments of the gateway, one file or a directory of them.

use std::collections::HashSet;
use std::fs::File;
use std::io::ErrorKind::NotFound;
use std::io::{BufReader, Seek};
use std::path::{Path, PathBuf};

use tiering::trace::{Op as GatewayOp, ParquetReader, Row, TraceError, header, read_live};

use super::{ReadError, Reader, Unusable};
use crate::trace::{Entry, Level, Op, Outcome, normal_path};

/// Reads segments in the order of their names, which is that of time. One segment's requests are held at a time, to
/// put them in the order in which they began (they are recorded in the order in which they ended).
pub struct SegmentReader {
    files: std::vec::IntoIter<PathBuf>,
    entries: std::vec::IntoIter<Entry>,
    anchor_us: Option<u64>,
    unusable: Unusable,
    /// Whether it is a directory, which a gateway may be at work in.
    directory: bool,
    /// Whether any segment could be read, or has just begun.
    readable: bool,
    /// Why the first of those that hold nothing readable does not.
    foreign: Option<ReadError>,
}

/// How the name of a sealed segment ends.
const SEALED: &str = "parquet";

fn is_sealed(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == SEALED)
}

/// Whether this is a segment by its name.
pub fn is_segment(path: &Path) -> bool {
    is_sealed(path) || path.extension().is_some_and(|e| e == "live")
}

impl SegmentReader {
    /// Reads one segment, or all in a directory.
    ///
    /// # Errors
    /// When the directory cannot be read or holds no segment.
    pub fn new(path: &Path) -> Result<SegmentReader, ReadError> {
        let mut files = vec![path.to_path_buf()];
        let directory = path.is_dir();
        if directory {
            let io = |source| ReadError::Io {
                path: path.to_path_buf(),
                source,
            };
            let names = std::fs::read_dir(path).map_err(io)?;
            files = names
                .map(|e| e.map(|e| e.path()))
                .collect::<Result<_, _>>()
                .map_err(io)?;
            files.retain(|p| is_segment(p));
            files.sort();
            // One that was just sealed is there in both forms for a moment.
            let sealed: HashSet<PathBuf> = files.iter().filter(|f| is_sealed(f)).cloned().collect();
            files.retain(|f| is_sealed(f) || !sealed.contains(&f.with_extension(SEALED)));
            if files.is_empty() {
                let reason = "no .parquet or .live segment in it".to_string();
                return Err(ReadError::Format {
                    path: path.to_path_buf(),
                    reason,
                });
            }
        }
        let (files, entries) = (files.into_iter(), Vec::new().into_iter());
        Ok(SegmentReader {
            files,
            entries,
            anchor_us: None,
            unusable: Unusable::default(),
            directory,
            readable: false,
            foreign: None,
        })
    }

    /// Reads a segment. In a directory, one that is gone, or was sealed since, is no error, nor is one that has just begun;
    /// of one that is damaged, what comes before the damage is used.
    fn load(&mut self, path: &Path) -> Result<(), ReadError> {
        let mut entries = Vec::new();
        let mut end = self.read(path, &mut entries);
        if self.directory {
            let gone = |end: &Result<(), ReadError>| matches!(end, Err(ReadError::Io { source, .. }) if source.kind() == NotFound);
            if gone(&end) && !is_sealed(path) {
                end = self.read(&path.with_extension(SEALED), &mut entries);
            }
            if gone(&end) {
                let path = path.display();
                let what = "segment that is gone by now";
                self.unusable.add_as(what, || format!("{path}: {what}"));
                end = Ok(());
            }
        }
        match end {
            Err(error @ ReadError::Format { .. }) if self.directory || !entries.is_empty() => {
                let what = "segment that is damaged, or has just begun";
                self.unusable.add_as(what, || format!("{error}"));
                self.foreign.get_or_insert(error);
            }
            end => end?,
        }
        entries.sort_by_key(|e: &Entry| e.at_us);
        self.entries = entries.into_iter();
        Ok(())
    }

    fn read(&mut self, path: &Path, entries: &mut Vec<Entry>) -> Result<(), ReadError> {
        let io = |source| ReadError::Io {
            path: path.to_path_buf(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let mut again = file.try_clone().map_err(io)?;
        // The error does not tell whether the disk or the content is to blame. Reading once more does.
        let mut format = |error: TraceError| {
            let read = again.rewind();
            let source = match read.and_then(|()| std::io::copy(&mut again, &mut std::io::sink())) {
                Err(source) => source,
                Ok(_) => match error {
                    TraceError::Read(text) => std::io::Error::other(text),
                    error => {
                        let (path, reason) = (path.to_path_buf(), error.to_string());
                        return ReadError::Format { path, reason };
                    }
                },
            };
            io(source)
        };
        if is_sealed(path) {
            for row in ParquetReader::new(file).map_err(&mut format)? {
                self.take(row.map_err(&mut format)?, entries);
            }
        } else {
            let begins = file.metadata().map_err(io)?.len() < header(0).len() as u64;
            self.readable |= begins;
            for row in read_live(BufReader::new(file)).map_err(&mut format)? {
                self.take(row.map_err(&mut format)?, entries);
            }
        }
        self.readable = true;
        Ok(())
    }

    fn take(&mut self, row: Row, entries: &mut Vec<Entry>) {
        self.readable = true;
        let Some(op) = request(row.record.op) else {
            let name = row.record.op.as_str();
            let what = "row of the gateway's own work, no request";
            self.unusable
                .add_as(what, || format!("{name} of {}: {what}", row.path));
            return;
        };
        // A PROPFIND has its depth there.
        let listing = op == Op::DavStat && row.record.offset > 0;
        let (op, offset) = match listing {
            true => (Op::DavList, 0),
            false => (op, row.record.offset),
        };
        if let Err(why) = super::check_end(op, offset, row.record.len) {
            self.unusable
                .add_as(why, || format!("{} of {}: {why}", op.name(), row.path));
            return;
        }
        let anchor = *self.anchor_us.get_or_insert(row.wall_us);
        entries.push(Entry {
            at_us: row
                .wall_us
                .cast_signed()
                .saturating_sub(anchor.cast_signed()),
            thread: "".into(),
            op,
            path: normal_path(&row.path),
            path2: (!row.path2.is_empty()).then(|| normal_path(&row.path2)),
            offset,
            length: row.record.len,
            latency_us: row.record.latency_ns / 1000,
            outcome: Outcome::Status(row.record.status),
            ranged: row.record.status == 206,
            client: row.client,
        });
    }
}

/// The request that a row is about; none for object I/O and movement.
fn request(op: GatewayOp) -> Option<Op> {
    Some(match op {
        GatewayOp::Get | GatewayOp::Revalidate => Op::DavGet,
        GatewayOp::Put => Op::DavPut,
        GatewayOp::Patch => Op::DavPatch,
        GatewayOp::Head => Op::DavHead,
        GatewayOp::Propfind => Op::DavStat,
        GatewayOp::Proppatch => Op::DavProppatch,
        GatewayOp::Mkcol => Op::DavMkcol,
        GatewayOp::Delete => Op::DavDelete,
        GatewayOp::Move => Op::DavMove,
        GatewayOp::Copy => Op::DavCopy,
        GatewayOp::Lock => Op::DavLock,
        GatewayOp::Unlock => Op::DavUnlock,
        GatewayOp::Options => Op::DavOptions,
        GatewayOp::ObjectRead
        | GatewayOp::ObjectWrite
        | GatewayOp::Promote
        | GatewayOp::Flush
        | GatewayOp::Evict
        | GatewayOp::Other => return None,
    })
}

impl Reader for SegmentReader {
    fn level(&self) -> Level {
        Level::WebdavRequests
    }

    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            let Some(path) = self.files.next() else {
                // Something else has such names, too: an empty trace would look like a quiet gateway.
                return self.foreign.take().filter(|_| !self.readable).map(Err);
            };
            if let Err(error) = self.load(&path) {
                return Some(Err(error));
            }
        }
    }

    fn unusable(&self) -> &Unusable {
        &self.unusable
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tiering::trace::{FrameWriter, Record, write_parquet};

    fn live() -> Vec<u8> {
        let mut out = header(1_000_000);
        let mut frame = FrameWriter::default();
        frame.path(1, "/d/a");
        frame.client(1, "10.0.0.1");
        let row = |op, at_ns, status| Record {
            path: 1,
            client: 1,
            len: 7,
            status,
            ..Record::new(op, at_ns)
        };
        frame.record(&row(GatewayOp::Get, 9_000, 206));
        frame.record(&row(GatewayOp::ObjectRead, 9_500, 0));
        frame.record(&row(GatewayOp::Put, 2_000, 201));
        frame.finish(&mut out);
        out
    }

    #[test]
    fn both_kinds_of_segment_say_the_same_in_order_of_begin() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("trace-1.live"), live()).unwrap();
        let sealed = write_parquet(Vec::new(), read_live(&live()[..]).unwrap()).unwrap();
        std::fs::write(dir.path().join("trace-0.parquet"), sealed).unwrap();
        std::fs::write(dir.path().join("other.txt"), "x").unwrap();
        let mut reader = SegmentReader::new(dir.path()).unwrap();
        let mut seen = Vec::new();
        while let Some(entry) = reader.next_entry() {
            let e = entry.unwrap();
            assert_eq!((&*e.path, &*e.client, e.length), ("d/a", "10.0.0.1", 7));
            seen.push((e.op, e.ranged));
        }
        assert_eq!(seen, [(Op::DavPut, false), (Op::DavGet, true)].repeat(2));
        assert_eq!(reader.unusable().lines, 2);
    }

    #[test]
    fn a_directory_that_a_gateway_works_in_is_read_whole_whatever_happens_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let live = live();
        let mut damaged = live.clone();
        let at = damaged.len() - 1;
        // A second frame, which is damaged.
        damaged.extend(&live[header(1_000_000).len()..]);
        damaged[at + 20] ^= 1;
        let sealed = write_parquet(Vec::new(), read_live(&live[..]).unwrap()).unwrap();
        std::fs::write(path("trace-0.live"), &damaged).unwrap();
        // In both forms, as it is for a moment.
        std::fs::write(path("trace-1.live"), &live).unwrap();
        std::fs::write(path("trace-1.parquet"), &sealed).unwrap();
        std::fs::write(path("trace-2.live"), &live).unwrap();
        std::fs::write(path("trace-3.parquet"), &sealed).unwrap();
        std::fs::write(path("trace-4.live"), "").unwrap();
        let mut reader = SegmentReader::new(dir.path()).unwrap();
        // Sealed, and removed, after the names were read.
        std::fs::remove_file(path("trace-2.live")).unwrap();
        std::fs::write(path("trace-2.parquet"), &sealed).unwrap();
        std::fs::remove_file(path("trace-3.parquet")).unwrap();
        let mut seen = 0;
        while let Some(entry) = reader.next_entry() {
            entry.unwrap();
            seen += 1;
        }
        assert_eq!(seen, 3 * 2);
        let reasons = &reader.unusable().reasons;
        let counted: Vec<u64> = reasons.values().copied().collect();
        assert_eq!(counted, [3, 2, 1], "{reasons:?}");
        // Alone, what is no segment is an error.
        let mut alone = SegmentReader::new(&path("trace-4.live")).unwrap();
        assert!(alone.next_entry().unwrap().is_err());
    }

    #[test]
    fn a_directory_in_which_nothing_is_a_segment_is_an_error_and_one_that_has_just_begun_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = dir.path().join("table.parquet");
        std::fs::write(&foreign, "PAR1 of somebody else PAR1").unwrap();
        let mut reader = SegmentReader::new(dir.path()).unwrap();
        let error = reader.next_entry().unwrap().unwrap_err();
        assert!(matches!(&error, ReadError::Format { path, .. } if *path == foreign));
        assert!(reader.next_entry().is_none());
        std::fs::write(dir.path().join("trace-0.live"), &live()[..3]).unwrap();
        let mut reader = SegmentReader::new(dir.path()).unwrap();
        assert!(reader.next_entry().is_none());
        assert_eq!(reader.unusable().lines, 2);
    }

    /// A directory in place of the segment: it can be opened, and every read of it fails.
    #[test]
    fn what_the_disk_does_not_give_is_an_error_and_no_damage() {
        for name in ["trace-0.live", "trace-0.parquet"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join("trace-1.live"), live()).unwrap();
            let mut reader = SegmentReader::new(dir.path()).unwrap();
            let error = reader.next_entry().unwrap().unwrap_err();
            assert!(matches!(error, ReadError::Io { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_row_past_all_files_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut segment = header(1_000_000);
        let mut frame = FrameWriter::default();
        frame.path(1, "/d/a");
        for offset in [0, u64::MAX] {
            frame.record(&Record {
                path: 1,
                offset,
                len: 7,
                ..Record::new(GatewayOp::Put, 2_000)
            });
        }
        frame.finish(&mut segment);
        let path = dir.path().join("trace-0.live");
        std::fs::write(&path, segment).unwrap();
        let mut reader = SegmentReader::new(&path).unwrap();
        assert_eq!(reader.next_entry().unwrap().unwrap().length, 7);
        assert!(reader.next_entry().is_none());
        assert_eq!(reader.unusable().reasons[super::super::TOO_LARGE], 1);
    }

    #[test]
    fn an_empty_directory_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        assert!(SegmentReader::new(dir.path()).is_err_and(|e| e.to_string().contains("segment")));
    }
}
