//! libCacheSim's oracleGeneral.
//!
//! An object is what starts at one offset of one path: block traces keep their blocks apart, whole files are one
//! object each. Numbers as paths are kept, others are hashed. The index of each object's next request is filled in by a
//! second pass from the end, which holds one number per object.

use super::{FAILED, Kept, NO_COUNTERPART, Writer};
use crate::read::ORACLE_RECORD_BYTES as RECORD;
use crate::trace::Entry;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};

/// Records that the second pass holds at a time.
const BLOCK: u64 = 1 << 15;

/// Writes records of 24 bytes.
pub struct OracleWriter {
    out: BufWriter<File>,
    first: Option<i64>,
    records: u64,
}

impl OracleWriter {
    /// `file` must be open for reading, too, and be seekable.
    pub fn new(file: File) -> OracleWriter {
        OracleWriter {
            out: BufWriter::with_capacity(1 << 16, file),
            first: None,
            records: 0,
        }
    }
}

impl Writer for OracleWriter {
    fn write(&mut self, entry: &Entry) -> std::io::Result<Kept> {
        if !(entry.op.reads() || entry.op.writes()) {
            return Ok(Kept::No(NO_COUNTERPART));
        }
        if !entry.outcome.is_ok() {
            return Ok(Kept::No(FAILED));
        }
        let Ok(size) = u32::try_from(entry.length) else {
            return Ok(Kept::No("over 4 GiB at once"));
        };
        let first = *self.first.get_or_insert(entry.at_us);
        let seconds = entry.at_us.saturating_sub(first).div_euclid(1_000_000);
        let Ok(seconds) = u32::try_from(seconds) else {
            return Ok(Kept::No("before the first entry, or 136 years after it"));
        };
        self.out.write_all(&seconds.to_le_bytes())?;
        self.out
            .write_all(&object(&entry.path, entry.offset).to_le_bytes())?;
        self.out.write_all(&size.to_le_bytes())?;
        self.out.write_all(&(-1_i64).to_le_bytes())?;
        self.records += 1;
        Ok(Kept::Yes)
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.out.flush()?;
        let file = self.out.get_mut();
        let mut next: HashMap<[u8; 8], u64> = HashMap::new();
        let mut end = self.records;
        while end > 0 {
            let begin = end.saturating_sub(BLOCK);
            let mut block = vec![0; (end - begin) as usize * RECORD];
            file.seek(SeekFrom::Start(begin * RECORD as u64))?;
            file.read_exact(&mut block)?;
            let mut index = end;
            for record in block.chunks_exact_mut(RECORD).rev() {
                index -= 1;
                let mut id = [0; 8];
                id.copy_from_slice(&record[4..12]);
                if let Some(later) = next.insert(id, index) {
                    record[16..].copy_from_slice(&later.to_le_bytes());
                }
            }
            file.seek(SeekFrom::Start(begin * RECORD as u64))?;
            file.write_all(&block)?;
            end = begin;
        }
        Ok(())
    }
}

/// The object's number: FNV-1a of path and offset, or the path itself when it is a number.
pub(crate) fn object(path: &str, offset: u64) -> u64 {
    if offset == 0
        && let Ok(number) = path.parse()
    {
        return number;
    }
    let bytes = path.as_bytes().iter().copied().chain(offset.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
