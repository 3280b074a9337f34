//! The live segment: what the recorder appends to, readable up to the last whole frame after a crash.
//!
//! ```text
//! header  "TIERDAVT" | version u32 | wall clock at the anchor, microseconds since 1970 u64
//! frame   payload length u32 | crc32c of the payload u32 | payload
//! payload entries, each a tag byte and:
//!         1 path definition   id u32 | length u32 | UTF-8
//!         2 client definition id u32 | length u32 | UTF-8
//!         3 record            58 bytes, the fields of `Record` in order
//! ```
//! All numbers are little-endian. Definitions precede the first record of the segment that uses them.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use super::record::{Op, Record, TierServed};
use crate::types::FileId;

const MAGIC: &[u8; 8] = b"TIERDAVT";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 20;
const FRAME_HEAD_LEN: usize = 8;
/// Longest payload that a reader believes.
const PAYLOAD_MAX: usize = 16 << 20;

/// What is wrong with a trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// It does not begin like a live segment of this version.
    #[error("not a live trace segment of version {VERSION}")]
    Header,
    /// A whole frame does not match its checksum, or makes no sense.
    #[error("damaged frame at byte {offset}")]
    Frame {
        /// Where the frame begins.
        offset: usize,
    },
    /// It cannot be read.
    #[error("{0}")]
    Read(String),
    /// A sealed segment cannot be written or read.
    #[error("sealed segment: {0}")]
    Sealed(String),
}

/// A record with its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The operation.
    pub record: Record,
    /// Microseconds since 1970 when it began.
    pub wall_us: u64,
    /// Who asked; empty for the gateway itself.
    pub client: Arc<str>,
    /// The resource; empty when none or unknown.
    pub path: Arc<str>,
    /// The destination of MOVE and COPY; else empty.
    pub path2: Arc<str>,
}

/// The beginning of a segment.
#[must_use]
pub fn header(anchor_wall_us: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&anchor_wall_us.to_le_bytes());
    out
}

/// Gathers entries into one frame.
#[derive(Debug, Default)]
pub struct FrameWriter {
    payload: Vec<u8>,
}

impl FrameWriter {
    /// Bytes gathered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether nothing was gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Names a path.
    pub fn path(&mut self, id: u32, name: &str) {
        self.define(1, id, name);
    }

    /// Names a client.
    pub fn client(&mut self, id: u32, name: &str) {
        self.define(2, id, name);
    }

    fn define(&mut self, tag: u8, id: u32, name: &str) {
        self.payload.push(tag);
        self.payload.extend_from_slice(&id.to_le_bytes());
        self.payload
            .extend_from_slice(&(name.len() as u32).to_le_bytes());
        self.payload.extend_from_slice(name.as_bytes());
    }

    /// Adds a record.
    pub fn record(&mut self, r: &Record) {
        let p = &mut self.payload;
        p.push(3);
        p.extend_from_slice(&r.at_ns.to_le_bytes());
        p.extend_from_slice(&r.client.to_le_bytes());
        p.push(r.op as u8);
        p.extend_from_slice(&r.path.to_le_bytes());
        p.extend_from_slice(&r.path2.to_le_bytes());
        p.extend_from_slice(&r.file.0.to_le_bytes());
        p.extend_from_slice(&r.object.to_le_bytes());
        p.extend_from_slice(&r.offset.to_le_bytes());
        p.extend_from_slice(&r.len.to_le_bytes());
        p.push(r.tier as u8);
        // Latencies beyond 2^48 ns (78 hours) are shown as that.
        p.extend_from_slice(&r.latency_ns.min((1 << 48) - 1).to_le_bytes()[..6]);
        p.extend_from_slice(&r.status.to_le_bytes());
    }

    /// Appends the frame to `out` and begins the next one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&self.payload).to_le_bytes());
        out.extend_from_slice(&self.payload);
        self.payload.clear();
    }
}

/// Reads a live segment, one row at a time and one frame in memory. A torn tail ends it silently: that is how a crash looks.
#[derive(Debug)]
pub struct LiveReader<R> {
    source: R,
    at: usize,
    payload: Vec<u8>,
    /// Bytes of the payload that were read.
    used: usize,
    anchor_wall_us: u64,
    paths: HashMap<u32, Arc<str>>,
    clients: HashMap<u32, Arc<str>>,
    ended: bool,
}

/// Reads a live segment.
///
/// # Errors
/// [`TraceError::Header`] when it is something else, [`TraceError::Read`] when it cannot be read.
pub fn read_live<R: Read>(mut source: R) -> Result<LiveReader<R>, TraceError> {
    let mut head = Vec::new();
    let whole = fill(&mut source, &mut head, HEADER_LEN)?;
    let mut cut = Cut(&head);
    let magic = cut.take(8).filter(|_| whole).ok_or(TraceError::Header)?;
    let version = cut.u32().ok_or(TraceError::Header)?;
    let anchor_wall_us = cut.u64().ok_or(TraceError::Header)?;
    if magic != MAGIC || version != VERSION {
        return Err(TraceError::Header);
    }
    Ok(LiveReader {
        source,
        at: HEADER_LEN,
        payload: Vec::new(),
        used: 0,
        anchor_wall_us,
        paths: HashMap::new(),
        clients: HashMap::new(),
        ended: false,
    })
}

/// Reads `len` bytes into `into`; `false` when there are not as many.
fn fill(source: &mut impl Read, into: &mut Vec<u8>, len: usize) -> Result<bool, TraceError> {
    into.clear();
    let read = source.by_ref().take(len as u64).read_to_end(into);
    read.map_err(|e| TraceError::Read(e.to_string()))?;
    Ok(into.len() == len)
}

impl<R: Read> LiveReader<R> {
    fn next_frame(&mut self) -> Option<Result<(), TraceError>> {
        let damaged = TraceError::Frame { offset: self.at };
        self.used = 0;
        // The head of the frame goes where its payload will be.
        match fill(&mut self.source, &mut self.payload, FRAME_HEAD_LEN) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(e) => return Some(Err(e)),
        }
        let mut cut = Cut(&self.payload);
        let (len, crc) = (cut.u32()? as usize, cut.u32()?);
        if len > PAYLOAD_MAX {
            return Some(Err(damaged));
        }
        match fill(&mut self.source, &mut self.payload, len) {
            Ok(true) if crc32c::crc32c(&self.payload) == crc => {}
            Ok(true) => return Some(Err(damaged)),
            Ok(false) => return None,
            Err(e) => return Some(Err(e)),
        }
        self.at += FRAME_HEAD_LEN + len;
        Some(Ok(()))
    }

    /// The next record of the frame; `None` at its end, `Some(None)` when it makes no sense.
    fn entry(&mut self) -> Option<Option<Row>> {
        loop {
            let mut cut = Cut(self.payload.get(self.used..)?);
            let tag = cut.take(1)?[0];
            let row = match tag {
                1 | 2 => {
                    let named = cut
                        .u32()
                        .zip(cut.u32())
                        .and_then(|(id, len)| Some((id, cut.take(len as usize)?)));
                    let Some((id, name)) = named else {
                        return Some(None);
                    };
                    let Ok(name) = std::str::from_utf8(name) else {
                        return Some(None);
                    };
                    let names = if tag == 1 {
                        &mut self.paths
                    } else {
                        &mut self.clients
                    };
                    names.insert(id, name.into());
                    None
                }
                3 => match record(&mut cut) {
                    Some(record) => Some(self.row(record)),
                    None => return Some(None),
                },
                _ => return Some(None),
            };
            self.used = self.payload.len() - cut.0.len();
            if row.is_some() {
                return Some(row);
            }
        }
    }

    fn row(&self, record: Record) -> Row {
        let name = |names: &HashMap<u32, Arc<str>>, id| names.get(&id).cloned().unwrap_or_default();
        Row {
            wall_us: self.anchor_wall_us.saturating_add(record.at_ns / 1000),
            client: name(&self.clients, record.client),
            path: name(&self.paths, record.path),
            path2: name(&self.paths, record.path2),
            record,
        }
    }
}

impl<R: Read> Iterator for LiveReader<R> {
    type Item = Result<Row, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(row) = self.entry() {
                self.ended = row.is_none();
                return Some(row.ok_or(TraceError::Frame { offset: self.at }));
            }
            let frame = self.next_frame();
            if !matches!(frame, Some(Ok(()))) {
                // What is left of the frame is not to be read.
                self.ended = true;
                return frame.and_then(Result::err).map(Err);
            }
        }
    }
}

fn record(cut: &mut Cut<'_>) -> Option<Record> {
    Some(Record {
        at_ns: cut.u64()?,
        client: cut.u32()?,
        op: Op::from_code(cut.take(1)?[0])?,
        path: cut.u32()?,
        path2: cut.u32()?,
        file: FileId(cut.u64()?),
        object: cut.u32()?,
        offset: cut.u64()?,
        len: cut.u64()?,
        tier: TierServed::from_code(cut.take(1)?[0])?,
        latency_ns: cut
            .array::<6>()
            .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], 0, 0]))?,
        status: cut.array().map(u16::from_le_bytes)?,
    })
}

/// The rest of some bytes.
struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_record() -> impl Strategy<Value = Record> {
        let ops = proptest::sample::select(Op::ALL);
        let ids = (
            0..1u64 << 40,
            0..3u32,
            0..3u32,
            0..3u32,
            any::<u64>(),
            any::<u32>(),
        );
        let numbers = (
            0..1u64 << 50,
            0..1u64 << 50,
            0..3u8,
            0..1u64 << 48,
            any::<u16>(),
        );
        (ops, ids, numbers).prop_map(
            |(
                op,
                (at_ns, client, path, path2, file, object),
                (offset, len, tier, latency_ns, status),
            )| {
                let tier = TierServed::from_code(tier).unwrap();
                Record {
                    at_ns,
                    client,
                    op,
                    path,
                    path2,
                    file: FileId(file),
                    object,
                    offset,
                    len,
                    tier,
                    latency_ns,
                    status,
                }
            },
        )
    }

    fn segment(records: &[Record], per_frame: usize) -> Vec<u8> {
        let mut out = header(1_000_000);
        let mut frame = FrameWriter::default();
        frame.path(1, "/a");
        frame.path(2, "/b\u{1}");
        frame.client(1, "127.0.0.1");
        for batch in records.chunks(per_frame) {
            batch.iter().for_each(|r| frame.record(r));
            frame.finish(&mut out);
        }
        out
    }

    #[test]
    fn a_record_takes_what_the_format_says() {
        let mut frame = FrameWriter::default();
        frame.record(&Record::new(Op::Get, 1));
        assert_eq!(frame.len(), 1 + 58);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in proptest::collection::vec(any_record(), 1..50), per_frame in 1..9usize) {
            let bytes = segment(&records, per_frame);
            let rows: Vec<Row> = read_live(&bytes[..]).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(rows.iter().map(|r| r.record).collect::<Vec<_>>(), records);
            for row in rows {
                prop_assert_eq!(row.wall_us, 1_000_000 + row.record.at_ns / 1000);
                prop_assert_eq!(&*row.path, ["", "/a", "/b\u{1}"][row.record.path as usize]);
            }
        }

        #[test]
        fn a_torn_tail_keeps_every_whole_frame(records in proptest::collection::vec(any_record(), 1..30), cut in 0..2000usize) {
            let bytes = segment(&records, 3);
            let torn = &bytes[..bytes.len() - cut.min(bytes.len() - HEADER_LEN)];
            let rows: Vec<Row> = read_live(torn).unwrap().map(Result::unwrap).collect();
            let read: Vec<Record> = rows.iter().map(|r| r.record).collect();
            prop_assert_eq!(&read[..], &records[..read.len()]);
        }

        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), framed: bool) {
            if framed {
                let payload = std::mem::take(&mut bytes);
                let mut frame = FrameWriter { payload };
                bytes = header(0);
                frame.finish(&mut bytes);
            }
            if let Ok(reader) = read_live(&bytes[..]) {
                let _ = reader.count();
            }
        }
    }
}
