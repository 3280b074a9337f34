//! libCacheSim's oracleGeneral: records of 24 bytes, little-endian: time in seconds (u32), object (u64), size (u32),
//! index of the next request for the same object (i64, -1 for none).
//!
//! Each record becomes a read of a whole file that is named by the object's number.

use super::{CacheRecord, CacheRecords, ReadError, Reader, Unusable};
use crate::trace::{Entry, Level, Op};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of one record.
pub const RECORD_BYTES: usize = 24;

/// Reads oracleGeneral from any byte stream.
pub struct OracleReader {
    input: BufReader<Box<dyn Read>>,
    file: PathBuf,
    client: Arc<str>,
    first: Option<u32>,
    unusable: Unusable,
    records: u64,
    ended: bool,
}

impl OracleReader {
    /// Reads `input`, which is called `file` in messages.
    pub fn new(input: Box<dyn Read>, file: &Path) -> OracleReader {
        OracleReader {
            input: BufReader::with_capacity(1 << 16, input),
            file: file.to_path_buf(),
            client: Arc::from("cache"),
            first: None,
            unusable: Unusable::default(),
            records: 0,
            ended: false,
        }
    }

    fn record(&mut self) -> std::io::Result<Option<[u8; RECORD_BYTES]>> {
        let mut record = [0; RECORD_BYTES];
        let mut got = 0;
        while got < RECORD_BYTES {
            match self.input.read(&mut record[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if got == RECORD_BYTES {
            self.records += 1;
            return Ok(Some(record));
        }
        if got > 0 {
            let (file, records) = (self.file.display(), self.records);
            self.unusable.add_as("incomplete record", || {
                format!("{file}: record {records}: incomplete record: {got} of 24 bytes at the end")
            });
        }
        Ok(None)
    }
}

impl Reader for OracleReader {
    fn level(&self) -> Level {
        Level::FileOperations
    }

    fn cache_records(&mut self) -> Option<&mut CacheRecords> {
        Some(self)
    }

    fn next_entry(&mut self) -> Option<Result<Entry, ReadError>> {
        let client = self.client.clone();
        Some(self.next()?.map(|record| Entry {
            length: record.bytes,
            ..Entry::new(
                record.at_us,
                client,
                Op::FileRead,
                record.object.to_string().into(),
            )
        }))
    }

    fn unusable(&self) -> &Unusable {
        &self.unusable
    }
}

impl Iterator for OracleReader {
    type Item = Result<CacheRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = match self.record() {
            Ok(Some(record)) => record,
            Ok(None) => {
                self.ended = true;
                return None;
            }
            Err(source) => {
                self.ended = true;
                return Some(Err(ReadError::Io {
                    path: self.file.clone(),
                    source,
                }));
            }
        };
        let time = little_endian(&record[..4]) as u32;
        let first = *self.first.get_or_insert(time);
        Some(Ok(CacheRecord {
            at_us: (i64::from(time) - i64::from(first)) * 1_000_000,
            object: little_endian(&record[4..12]),
            bytes: little_endian(&record[12..16]),
        }))
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
