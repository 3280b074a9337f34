//! Traces of caches as text, as libCacheSim takes them: one access to one whole object per line, columns named by a
//! header (`version,time,op,size,lbn` or `# time, object, size, next_access_vtime`). Without a header the columns are
//! time, object, size.

use super::lines::{Bad, LineFormat, LineReader, field, number};
use super::{CacheRecord, CacheRecords, ReadError, Reader, Unusable};
use crate::content::stream_key;
use crate::trace::{Entry, Level, Op};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

const TIMES: &[&str] = &["time", "timestamp", "ts", "clock_time", "real_time"];
const OBJECTS: &[&str] = &[
    "object",
    "obj",
    "obj_id",
    "object_id",
    "id",
    "key",
    "lbn",
    "lba",
    "block",
];
const SIZES: &[&str] = &["size", "obj_size", "object_size", "length", "bytes"];

/// What stands where in a line.
#[derive(Clone, Copy)]
struct Columns {
    delimiter: char,
    time: usize,
    object: usize,
    /// None: every object counts as one byte.
    size: Option<usize>,
}

impl Columns {
    /// By a header line, with or without `#` in front.
    fn named(line: &str) -> Option<Columns> {
        let line = line.trim_start_matches(['#', ' ']);
        let delimiter = [',', '\t', ';', '|', ' ']
            .into_iter()
            .find(|d| line.contains(*d))?;
        let names: Vec<String> = line
            .split(delimiter)
            .map(|name| {
                name.trim()
                    .trim_matches('"')
                    .to_ascii_lowercase()
                    .replace('-', "_")
            })
            .collect();
        let find = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
        Some(Columns {
            delimiter,
            time: find(TIMES)?,
            object: find(OBJECTS)?,
            size: find(SIZES),
        })
    }
}

/// Whether a file that begins with this line is such a trace.
pub fn is_cache_csv(line: &str) -> bool {
    Columns::named(line).is_some()
}

/// What a line means.
pub struct CacheLines {
    columns: Option<Columns>,
    client: Arc<str>,
    first: Option<f64>,
}

impl LineFormat for CacheLines {
    fn level(&self) -> Level {
        Level::FileOperations
    }

    fn line(&mut self, line: &str) -> Result<Option<Entry>, Bad> {
        let columns = match self.columns {
            Some(columns) => columns,
            None => {
                let named = Columns::named(line);
                let columns = self.columns.insert(named.unwrap_or(Columns {
                    delimiter: ',',
                    time: 0,
                    object: 1,
                    size: Some(2),
                }));
                if named.is_some() {
                    return Ok(None);
                }
                *columns
            }
        };
        let fields: Vec<&str> = line.split(columns.delimiter).map(str::trim).collect();
        let time = field(line, &fields, columns.time)?;
        let object = field(line, &fields, columns.object)?;
        let length: u64 = match columns.size {
            Some(at) => number(line, field(line, &fields, at)?)?,
            None => 1,
        };
        super::check_end(Op::FileRead, 0, length).map_err(|why| Bad::at(line, line, why))?;
        let seconds: f64 = number(line, time)?;
        if !(0.0..=1e12).contains(&seconds) {
            return Err(Bad::at(line, time, "not a time in seconds"));
        }
        let object = object.trim_matches('"');
        if object.is_empty() {
            return Err(Bad::at(line, line, "no object"));
        }
        let first = *self.first.get_or_insert(seconds);
        let path = crate::trace::normal_path(object);
        Ok(Some(Entry {
            length,
            ..Entry::new(
                ((seconds - first) * 1e6).round() as i64,
                self.client.clone(),
                Op::FileRead,
                path,
            )
        }))
    }
}

/// Reads such a trace.
pub struct CacheCsvReader(LineReader<CacheLines>);

impl CacheCsvReader {
    /// Reads `input`, which is called `file` in messages.
    pub fn new(input: Box<dyn Read>, file: &Path) -> Self {
        let lines = CacheLines {
            columns: None,
            client: "cache".into(),
            first: None,
        };
        Self(LineReader::new(input, file, lines))
    }
}

impl Reader for CacheCsvReader {
    fn level(&self) -> Level {
        self.0.level()
    }

    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
        self.0.next_entry()
    }

    fn cache_records(&mut self) -> Option<&mut CacheRecords> {
        Some(self)
    }

    fn unusable(&self) -> &Unusable {
        self.0.unusable()
    }
}

impl Iterator for CacheCsvReader {
    type Item = Result<CacheRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_entry()?.map(|entry| {
            CacheRecord {
                at_us: entry.at_us,
                // A number for an object that has a name: any spread of the names will do.
                object: entry
                    .path
                    .parse()
                    .unwrap_or_else(|_| stream_key(0, &entry.path, 0)),
                bytes: entry.length,
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &'static str) -> (Vec<(i64, u64, u64)>, Unusable) {
        let mut reader = CacheCsvReader::new(Box::new(text.as_bytes()), Path::new("t.csv"));
        let records: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        let records = records.iter().map(|r| (r.at_us, r.object, r.bytes));
        (records.collect(), reader.unusable().clone())
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let want = vec![(0, 42, 512), (1_500_000, 7, 4096)];
        for text in [
            "version,time,op,size,lbn\n1,10,2a,512,42\n1,11.5,2a,4096,7\n",
            "# time, object, size, next_access_vtime\n10, 42, 512, -1\n11.5, 7, 4096, 3\n",
            "timestamp\tobj-id\tobj-size\n10\t42\t512\n11.5\t7\t4096\n",
            "10,42,512\n11.5,7,4096,-1\n",
        ] {
            assert_eq!(read(text).0, want, "{text}");
        }
        // The nearest microsecond, though a fraction of seconds since 1970 is not exact.
        let since_1970 = "1600000000.0,1,1\n1600000000.2,2,1\n1600000001.000003,3,1\n";
        let want = [(0, 1, 1), (200_000, 2, 1), (1_000_003, 3, 1)];
        assert_eq!(read(since_1970).0, want);
        assert_eq!(read("time,key\n3,8\n").0, [(0, 8, 1)]);
        let (named, _) = read("time,key,size\n3,a/b,9\n4,c,9\n5,a/b,9\n");
        assert!(named[0].1 == named[2].1 && named[0].1 != named[1].1);
        assert!(is_cache_csv("version,time,op,size,lbn") && !is_cache_csv("ts_us,client,op,path"));
        assert!(!is_cache_csv("1,2,3"));
    }

    #[test]
    fn what_cannot_be_used_is_counted() {
        let (records, unusable) = read("time,id,size\n1,2,3\n1\nx,2,3\n1,2,-3\n1,,3\n-1,2,3\n");
        assert_eq!((records.len(), unusable.lines), (1, 5), "{unusable:?}");
        assert!(
            unusable.examples[0].contains("t.csv:3: column"),
            "{unusable:?}"
        );
    }
}
