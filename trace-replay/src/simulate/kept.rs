//! A load that is run many times: in memory if it is small enough, else read again each time.

use anyhow::Context;
use tiering::sim::{Access, Request};
use tiering::{FileId, Nanos, ObjectId};

use super::load::{Source, Survey, object_len};

/// One access in 24 bytes: how long an object is that is read, the survey knows.
#[derive(Clone, Copy)]
struct Kept {
    at: Nanos,
    file: u32,
    index: u32,
    /// Of a read, its first byte; else [`WRITTEN`] or [`DELETED`].
    offset: u32,
    /// Bytes, or of a deletion objects.
    len: u32,
}

const WRITTEN: u32 = u32::MAX;
const DELETED: u32 = u32::MAX - 1;

impl Kept {
    /// None for what does not fit: then nothing of the trace is kept.
    fn new(request: &Request) -> Option<Self> {
        let (offset, len) = match request.access {
            Access::Read { offset, .. } if offset >= DELETED => return None,
            Access::Read { offset, len, .. } => (offset, len),
            Access::Write(len) => (WRITTEN, len),
            Access::Delete(objects) => (DELETED, objects),
        };
        Some(Self {
            at: request.at,
            file: u32::try_from(request.id.file.0).ok()?,
            index: request.id.index,
            offset,
            len,
        })
    }

    fn request(self, ends: &[u64]) -> Request {
        let Self { at, len, .. } = self;
        let id = ObjectId::new(FileId(u64::from(self.file)), self.index);
        let access = match self.offset {
            WRITTEN => Access::Write(len),
            DELETED => Access::Delete(len),
            offset => Access::Read {
                offset,
                len,
                object_len: object_len(ends, id).max(offset.saturating_add(len)),
            },
        };
        Request { at, id, access }
    }
}

/// A load, run as often as it is wanted.
pub struct Load {
    source: Source,
    survey: Survey,
    kept: Option<Vec<Kept>>,
}

impl Load {
    /// Reads a trace in which something is read or written. It stays in memory if it has at most `most` accesses.
    ///
    /// # Errors
    /// As [`Source::survey`].
    pub fn open(source: Source, most: u64) -> anyhow::Result<Self> {
        let survey = source.survey()?;
        let mut load = Self {
            source,
            survey,
            kept: None,
        };
        if load.survey.requests <= most {
            let mut kept = Vec::with_capacity(usize::try_from(load.survey.requests)?);
            for request in load.source.requests(&load.survey)? {
                match Kept::new(&request?) {
                    Some(request) => kept.push(request),
                    None => return Ok(load),
                }
            }
            load.kept = Some(kept);
        }
        Ok(load)
    }

    /// Accesses to objects, deletions included.
    pub fn requests(&self) -> u64 {
        self.survey.requests
    }

    /// Of these, the ones in memory: all or none.
    pub fn kept(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.len() as u64)
    }

    /// Bytes of all distinct objects that were read or written.
    pub fn footprint(&self) -> u64 {
        self.survey.footprint
    }

    /// Calls `take` with all accesses, in the order of time, up to `most` of them.
    ///
    /// # Errors
    /// When a trace that is not in memory can no longer be read, or has become shorter.
    pub fn each(&self, most: u64, mut take: impl FnMut(Request)) -> anyhow::Result<()> {
        let most = most.min(self.requests());
        if let Some(kept) = &self.kept {
            let ends = &self.survey.ends;
            let all = kept.iter().take(usize::try_from(most)?);
            all.for_each(|request| take(request.request(ends)));
            return Ok(());
        }
        let mut requests = self.source.requests(&self.survey)?;
        for _ in 0..most {
            let request = requests.next();
            take(request.context("the trace has become shorter while it was read again")??);
        }
        Ok(())
    }
}

#[cfg(test)]
impl Load {
    /// A load that is in memory and in no file.
    pub fn of(requests: &[Request]) -> Self {
        let mut ends = Vec::new();
        for Request { id, access, .. } in requests {
            let (Access::Read {
                object_len: len, ..
            }
            | Access::Write(len)) = access
            else {
                continue;
            };
            let begin = u64::from(id.index) * u64::from(tiering::DEFAULT_OBJECT_BYTES);
            let file = id.file.0 as usize;
            ends.resize(ends.len().max(file + 1), 0);
            ends[file] = ends[file].max(begin + u64::from(*len));
        }
        Self {
            source: Source::new(std::path::Path::new(""), None, 1.0),
            survey: Survey {
                requests: requests.len() as u64,
                footprint: ends.iter().sum(),
                ends: ends.into(),
            },
            kept: requests.iter().map(Kept::new).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::io::Write as _;

    /// Files that are written, read in parts and deleted.
    fn trace() -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
        writeln!(file, "ts_us,client,op,path,offset,length,result").unwrap();
        for n in 0..300 {
            let (at, name, len) = (n * 1000, n % 7, 3_000_000 * (n % 5 + 1));
            let mut line = |op, offset, len| {
                writeln!(file, "{at},c,{op},f{name},{offset},{len},ok").unwrap();
            };
            match n % 4 {
                0 => {
                    line("write", 0, len);
                    line("close", 0, 0);
                }
                1 if n % 3 == 0 => line("unlink", 0, 0),
                _ => line("read", n * 10, len),
            }
        }
        file.flush().unwrap();
        file
    }

    #[test]
    fn a_trace_above_the_bound_is_read_again_and_is_the_same() {
        assert_eq!(size_of::<Kept>(), 24);
        let file = trace();
        let open = |most| Load::open(Source::new(file.path(), None, 1.0), most).unwrap();
        let count = open(0).requests();
        let (streamed, kept) = (open(count - 1), open(count));
        assert_eq!((streamed.kept(), kept.kept()), (0, count));
        assert_eq!(streamed.footprint(), kept.footprint());
        let all = |load: &Load, most| {
            let mut all = Vec::new();
            load.each(most, |request| all.push(request)).unwrap();
            all
        };
        assert_eq!(all(&streamed, u64::MAX), all(&kept, u64::MAX));
        assert_eq!(all(&streamed, 100), all(&kept, u64::MAX)[..100]);
        let kinds = all(&kept, u64::MAX);
        let kinds = kinds.iter().map(|r| match r.access {
            Access::Read { .. } => 0,
            Access::Write(_) => 1,
            Access::Delete(_) => 2,
        });
        assert_eq!(kinds.collect::<std::collections::BTreeSet<_>>().len(), 3);
        // What is gone since is an error, not an end.
        file.as_file().set_len(4000).unwrap();
        assert!(streamed.each(u64::MAX, |_| ()).is_err());
    }
}
