//! Records of the intent log and their framing: pure functions over bytes.
//!
//! A segment is a header, `TDAVLOG3`, the first record's number (`u64`), a salt (`u64`), the CRC-32C of all that (`u32`) and four
//! zeros, then frames: `u32` payload length, `u32` CRC-32C of salt, number and payload, `u64` number, payload. All little endian.
//! Numbers are consecutive, so that a frame left over from an older use of the blocks is never taken for a new one; and nobody knows
//! the salt, so that what a client uploaded, which was in these blocks, is never taken for a frame. Behind whatever is not the next
//! frame, a damaged one or a blank, reading goes on with the first whole frame that has a later number, wherever it begins (`scan`).
//! Earlier versions wrote `TDAVLOG2`, where no PUT has content that is not in the cache as well, and `TDAVLOG1`, without salt and
//! checksum: there a damaged frame is passed over by its length, and reading stops at one that is blank or too long.

use bytes::Bytes;
use tiering::FileId;

use super::scan::{Head, Scan, zeros};
use crate::volume::identity::{ENCODED_BYTES, Identity};
use crate::volume::path::ResourcePath;

/// First bytes of every segment.
const MAGIC: &[u8; 8] = b"TDAVLOG3";
/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 32;
/// Bytes of a frame before its payload.
pub const FRAME_BYTES: usize = 16;

/// One object of a PUT: in the cache tier, or in the log and the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedObject {
    /// Which stripe of the file.
    pub index: u32,
    /// Bytes.
    pub len: u32,
    /// Its bytes, when the log carries them; else the object file was synced before. Of a version whose content is all in the tree
    /// it is all of that (`volume/logged.rs`).
    pub inline: Option<Bytes>,
}

/// An intended change of the namespace. Replayed only if it was not applied, see `replay`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A new version of a file takes a name. Prepared as `.tierdav/tmp/<file_id>`.
    Put {
        /// Where.
        path: ResourcePath,
        /// What.
        identity: Identity,
        /// Permission bits.
        mode: u32,
        /// Some of its bytes are in the prepared file, which was synced.
        in_tree: bool,
        /// Dead properties, encoded.
        props: Bytes,
        /// What the cache or the log holds.
        objects: Vec<LoggedObject>,
    },
    /// A synced directory tree prepared as `.tierdav/tmp/<id>` takes a name.
    Install {
        /// Where.
        path: ResourcePath,
        /// The directory's id, also its temporary name.
        id: FileId,
        /// Who had the name.
        replaced: Option<FileId>,
    },
    /// A new collection.
    Mkcol {
        /// Where.
        path: ResourcePath,
        /// What.
        identity: Identity,
    },
    /// A resource changes its name.
    Move {
        /// Old name.
        from: ResourcePath,
        /// New name.
        to: ResourcePath,
        /// Who moves.
        id: FileId,
        /// Who had the new name.
        replaced: Option<FileId>,
    },
    /// A resource goes.
    Delete {
        /// Its name.
        path: ResourcePath,
        /// Who.
        id: FileId,
    },
    /// New dead properties, mode or identity record of a resource whose content stays.
    Attributes {
        /// Its name.
        path: ResourcePath,
        /// Who.
        id: FileId,
        /// All dead properties, encoded.
        props: Bytes,
        /// New permission bits.
        mode: Option<u32>,
        /// No longer a resource that only a LOCK made.
        unlock_null: bool,
    },
    /// All bytes of these versions are in their files, on stable storage: nothing of them is only in the cache any more. Unlike the
    /// others it follows what it tells of, and is replayed in any case.
    Settled {
        /// Which.
        ids: Vec<FileId>,
    },
    /// Record `number` failed when it was applied and must not be replayed.
    Abort {
        /// The failed record.
        number: u64,
    },
}

struct Writer(Vec<u8>);

impl Writer {
    fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn bytes(&mut self, v: &[u8]) {
        self.u32(v.len() as u32);
        self.0.extend_from_slice(v);
    }
    fn path(&mut self, v: &ResourcePath) {
        self.bytes(v.relative().as_bytes());
    }
    /// 0 stands for none: no id is 0.
    fn id(&mut self, v: Option<FileId>) {
        self.u64(v.map_or(0, |id| id.0));
    }
}

struct Reader(Bytes);

impl Reader {
    fn take(&mut self, n: usize) -> Option<Bytes> {
        (n <= self.0.len()).then(|| self.0.split_to(n))
    }
    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    fn u64(&mut self) -> Option<u64> {
        self.take(8)?[..].try_into().ok().map(u64::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take(4)?[..].try_into().ok().map(u32::from_le_bytes)
    }
    fn bytes(&mut self) -> Option<Bytes> {
        let n = self.u32()?;
        self.take(n as usize)
    }
    fn path(&mut self) -> Option<ResourcePath> {
        let b = self.bytes()?;
        ResourcePath::parse(&format!("/{}", std::str::from_utf8(&b).ok()?)).ok()
    }
    fn id(&mut self) -> Option<Option<FileId>> {
        self.u64().map(|v| (v != 0).then_some(FileId(v)))
    }
    fn identity(&mut self) -> Option<Identity> {
        Identity::decode(&self.take(ENCODED_BYTES)?)
    }
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer(Vec::with_capacity(256));
        match self {
            Record::Put {
                path,
                identity,
                mode,
                in_tree,
                props,
                objects,
            } => {
                w.0.push(1);
                w.path(path);
                w.0.extend_from_slice(&identity.encode());
                w.u32(*mode);
                w.0.push(u8::from(*in_tree));
                w.bytes(props);
                w.u32(objects.len() as u32);
                for o in objects {
                    w.u32(o.index);
                    w.u32(o.len);
                    w.0.push(u8::from(o.inline.is_some()));
                    if let Some(data) = &o.inline {
                        w.bytes(data);
                    }
                }
            }
            Record::Install { path, id, replaced } => {
                w.0.push(2);
                w.path(path);
                w.u64(id.0);
                w.id(*replaced);
            }
            Record::Mkcol { path, identity } => {
                w.0.push(3);
                w.path(path);
                w.0.extend_from_slice(&identity.encode());
            }
            Record::Move {
                from,
                to,
                id,
                replaced,
            } => {
                w.0.push(4);
                w.path(from);
                w.path(to);
                w.u64(id.0);
                w.id(*replaced);
            }
            Record::Delete { path, id } => {
                w.0.push(5);
                w.path(path);
                w.u64(id.0);
            }
            Record::Attributes {
                path,
                id,
                props,
                mode,
                unlock_null,
            } => {
                w.0.push(6);
                w.path(path);
                w.u64(id.0);
                w.bytes(props);
                w.0.push(u8::from(mode.is_some()));
                w.u32(mode.unwrap_or(0));
                w.0.push(u8::from(*unlock_null));
            }
            Record::Abort { number } => {
                w.0.push(7);
                w.u64(*number);
            }
            Record::Settled { ids } => {
                w.0.push(8);
                w.u32(ids.len() as u32);
                ids.iter().for_each(|id| w.u64(id.0));
            }
        }
        w.0
    }

    fn decode(payload: Bytes) -> Option<Record> {
        let mut r = Reader(payload);
        let record = match r.u8()? {
            1 => {
                let path = r.path()?;
                let identity = r.identity()?;
                let mode = r.u32()?;
                let in_tree = r.flag()?;
                let props = r.bytes()?;
                let count = r.u32()?;
                let mut objects = Vec::new();
                for _ in 0..count {
                    let (index, len) = (r.u32()?, r.u32()?);
                    let inline = if r.flag()? { Some(r.bytes()?) } else { None };
                    objects.push(LoggedObject { index, len, inline });
                }
                Record::Put {
                    path,
                    identity,
                    mode,
                    in_tree,
                    props,
                    objects,
                }
            }
            2 => Record::Install {
                path: r.path()?,
                id: FileId(r.u64()?),
                replaced: r.id()?,
            },
            3 => Record::Mkcol {
                path: r.path()?,
                identity: r.identity()?,
            },
            4 => Record::Move {
                from: r.path()?,
                to: r.path()?,
                id: FileId(r.u64()?),
                replaced: r.id()?,
            },
            5 => Record::Delete {
                path: r.path()?,
                id: FileId(r.u64()?),
            },
            6 => {
                let (path, id, props) = (r.path()?, FileId(r.u64()?), r.bytes()?);
                let (has_mode, mode) = (r.flag()?, r.u32()?);
                let unlock_null = r.flag()?;
                Record::Attributes {
                    path,
                    id,
                    props,
                    mode: has_mode.then_some(mode),
                    unlock_null,
                }
            }
            7 => Record::Abort { number: r.u64()? },
            8 => {
                let count = r.u32()?;
                let ids = (0..count).map(|_| r.u64().map(FileId));
                Record::Settled {
                    ids: ids.collect::<Option<_>>()?,
                }
            }
            _ => return None,
        };
        r.0.is_empty().then_some(record)
    }
}

/// The header of a segment whose first record is `first`.
pub fn segment_header(first: u64, salt: u64) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8..16].copy_from_slice(&first.to_le_bytes());
    out[16..24].copy_from_slice(&salt.to_le_bytes());
    let sum = crc32c::crc32c(&out[..24]);
    out[24..28].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Appends the frame of `record` to `out`.
pub fn frame(number: u64, record: &Record, salt: u64, out: &mut Vec<u8>) {
    let payload = record.encode();
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&checksum(Some(salt), number, &payload).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&payload);
}

fn checksum(salt: Option<u64>, number: u64, payload: &[u8]) -> u32 {
    let salt = salt.map_or(0, |salt| crc32c::crc32c(&salt.to_le_bytes()));
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &number.to_le_bytes()), payload)
}

/// Why a segment cannot be read at all.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Its header is damaged.
    Damaged,
    /// It is of a version of this program that is not known here.
    Foreign,
}

/// All whole records of a segment, in order, with their numbers. Whatever else there is is left out.
///
/// # Errors
/// The header. A segment that was only begun, and so has none, has no records.
pub fn parse_segment(bytes: Bytes) -> Result<Vec<(u64, Record)>, Unusable> {
    let mut out = Vec::new();
    let mut r = Reader(bytes);
    let Some((mut next, salt)) = parse_header(&mut r)? else {
        return Ok(out);
    };
    let frames = r.0;
    // Without a salt anything might pass for a frame.
    let scan = salt.map(|salt| Scan::new(&frames, salt));
    let mut at = 0;
    loop {
        let head = Head::at(&frames, at);
        let whole = head.filter(|head| {
            let payload = &frames[at + FRAME_BYTES..head.end];
            head.number == next && head.crc == checksum(salt, next, payload)
        });
        match (whole, &scan, head) {
            (Some(head), _, _) => {
                let payload = frames.slice(at + FRAME_BYTES..head.end);
                out.extend(Record::decode(payload).map(|record| (next, record)));
                at = head.end;
            }
            (None, Some(scan), _) => {
                let Some(found) = scan.next_frame(at, next) else {
                    break;
                };
                (at, next) = found;
                continue;
            }
            (None, None, Some(damaged)) => at = damaged.end,
            (None, None, None) => break,
        }
        let Some(n) = next.checked_add(1) else { break };
        next = n;
    }
    Ok(out)
}

/// Number of the first record, and the salt; `None` if nothing was written yet.
fn parse_header(r: &mut Reader) -> Result<Option<(u64, Option<u64>)>, Unusable> {
    let start = r.0.slice(..r.0.len().min(HEADER_BYTES));
    if start.iter().all(|b| *b == 0) && zeros(&r.0) == r.0.len() {
        return Ok(None);
    }
    let magic = r.take(MAGIC.len()).ok_or(Unusable::Damaged)?;
    let version = magic.strip_prefix(&MAGIC[..7]).ok_or(Unusable::Damaged)?;
    let first = r.u64().ok_or(Unusable::Damaged);
    match version {
        b"1" => Ok(Some((first?, None))),
        b"2" | b"3" => {
            let (first, salt) = (first?, r.u64().ok_or(Unusable::Damaged)?);
            let sum = r.take(8).ok_or(Unusable::Damaged)?;
            match crc32c::crc32c(&start[..24]).to_le_bytes() == sum[..4] {
                true => Ok(Some((first, Some(salt)))),
                false => Err(Unusable::Damaged),
            }
        }
        _ => Err(Unusable::Foreign),
    }
}

/// For [`crate::fuzzing`]: a payload behind a checksum that is right.
pub(crate) fn fuzz_payload(data: &[u8]) {
    if let Some(record) = Record::decode(Bytes::copy_from_slice(data)) {
        let again = Record::decode(record.encode().into());
        assert_eq!(again, Some(record));
    }
}

/// For [`crate::fuzzing`]: a segment, and payloads.
pub(crate) fn fuzz_seeds() -> Vec<Vec<u8>> {
    let Ok(path) = ResourcePath::parse("/a/b") else {
        return Vec::new();
    };
    let records = [
        Record::Delete {
            path: path.clone(),
            id: FileId(7),
        },
        Record::Install {
            path,
            id: FileId(8),
            replaced: Some(FileId(9)),
        },
        Record::Abort { number: 3 },
        Record::Settled {
            ids: vec![FileId(7), FileId(8)],
        },
    ];
    let mut segment = segment_header(1, 7).to_vec();
    for (record, number) in records.iter().zip(1..) {
        frame(number, record, 7, &mut segment);
    }
    let payloads = records.iter().map(Record::encode);
    std::iter::once(segment).chain(payloads).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::volume::identity::State;
    use proptest::prelude::*;

    const SALT: u64 = 0x1234_5678_9abc_def0;

    fn path() -> impl Strategy<Value = ResourcePath> {
        "(/[a-cé ]{1,4}){1,3}".prop_map(|s| ResourcePath::parse(&s).unwrap())
    }
    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..30).prop_map(Bytes::from)
    }
    fn identity() -> impl Strategy<Value = Identity> {
        (1u64.., any::<u64>(), any::<i64>(), any::<bool>()).prop_map(|(id, len, t, lock_null)| {
            Identity {
                file_id: FileId(id),
                len,
                mtime_ns: t,
                created_ns: t,
                ino: len,
                state: State::Dirty,
                all_dirty: lock_null,
                lock_null,
            }
        })
    }
    fn id() -> impl Strategy<Value = FileId> {
        (1u64..).prop_map(FileId)
    }
    fn replaced() -> impl Strategy<Value = Option<FileId>> {
        proptest::option::of(id())
    }
    fn record() -> impl Strategy<Value = Record> {
        let object = (any::<u32>(), any::<u32>(), proptest::option::of(bytes()))
            .prop_map(|(index, len, inline)| LoggedObject { index, len, inline });
        prop_oneof![
            (
                path(),
                identity(),
                any::<u32>(),
                any::<bool>(),
                bytes(),
                proptest::collection::vec(object, 0..3)
            )
                .prop_map(|(path, identity, mode, in_tree, props, objects)| {
                    Record::Put {
                        path,
                        identity,
                        mode,
                        in_tree,
                        props,
                        objects,
                    }
                }),
            (path(), id(), replaced()).prop_map(|(path, id, replaced)| Record::Install {
                path,
                id,
                replaced
            }),
            (path(), identity()).prop_map(|(path, identity)| Record::Mkcol { path, identity }),
            (path(), path(), id(), replaced()).prop_map(|(from, to, id, replaced)| Record::Move {
                from,
                to,
                id,
                replaced
            }),
            (path(), id()).prop_map(|(path, id)| Record::Delete { path, id }),
            (
                path(),
                id(),
                bytes(),
                proptest::option::of(any::<u32>()),
                any::<bool>()
            )
                .prop_map(|(path, id, props, mode, unlock_null)| Record::Attributes {
                    path,
                    id,
                    props,
                    mode,
                    unlock_null
                }),
            any::<u64>().prop_map(|number| Record::Abort { number }),
            proptest::collection::vec(id(), 0..5).prop_map(|ids| Record::Settled { ids }),
        ]
    }

    fn segment(first: u64, records: &[Record]) -> (Vec<u8>, Vec<usize>) {
        let mut out = segment_header(first, SALT).to_vec();
        let mut ends = Vec::new();
        for (i, r) in records.iter().enumerate() {
            frame(first + i as u64, r, SALT, &mut out);
            ends.push(out.len());
        }
        (out, ends)
    }

    #[test]
    fn segments_of_earlier_versions_are_read() {
        let path = ResourcePath::parse("/a").unwrap();
        let record = Record::Delete {
            path,
            id: FileId(7),
        };
        let mut segment = b"TDAVLOG1".to_vec();
        segment.extend(5u64.to_le_bytes());
        for number in 5u64..7 {
            let payload = record.encode();
            let crc = crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &payload);
            segment.extend((payload.len() as u32).to_le_bytes());
            segment.extend(crc.to_le_bytes());
            segment.extend(number.to_le_bytes());
            segment.extend(payload);
        }
        let mut second = segment_header(5, 7);
        second[7] = b'2';
        let sum = crc32c::crc32c(&second[..24]);
        second[24..28].copy_from_slice(&sum.to_le_bytes());
        let mut second = second.to_vec();
        (5..7).for_each(|number| frame(number, &record, 7, &mut second));
        let both = [(5, record.clone()), (6, record)];
        assert_eq!(parse_segment(Bytes::from(segment.clone())).unwrap(), both);
        assert_eq!(parse_segment(Bytes::from(second)).unwrap(), both);
        // Nothing tells the frames of the first one from what a client sent.
        segment[16] ^= 1;
        assert_eq!(parse_segment(Bytes::from(segment)).unwrap(), []);
        let later = Bytes::from_static(b"TDAVLOG4 and so on");
        assert_eq!(parse_segment(later), Err(Unusable::Foreign));
        for begun in [&b""[..], &[0; 4096]] {
            assert_eq!(parse_segment(Bytes::from_static(begun)), Ok(Vec::new()));
        }
        let mut headless = vec![0; 4096];
        headless.push(1);
        assert_eq!(parse_segment(headless.into()), Err(Unusable::Damaged));
    }

    proptest! {
        #[test]
        fn every_cut_keeps_exactly_the_whole_records(
            records in proptest::collection::vec(record(), 0..5), first in 1u64..1000, cut: prop::sample::Index
        ) {
            let (all, ends) = segment(first, &records);
            let at = cut.index(all.len() + 1);
            let got = match parse_segment(Bytes::copy_from_slice(&all[..at])) {
                Ok(got) => got,
                Err(unusable) => {
                    prop_assert!(unusable == Unusable::Damaged && (1..HEADER_BYTES).contains(&at));
                    Vec::new()
                }
            };
            let whole = ends.iter().filter(|e| **e <= at).count();
            prop_assert_eq!(got.len(), whole);
            for (i, (n, r)) in got.iter().enumerate() {
                prop_assert_eq!(*n, first + i as u64);
                prop_assert_eq!(r, &records[i]);
            }
        }

        #[test]
        fn a_damaged_byte_never_yields_a_wrong_record(
            records in proptest::collection::vec(record(), 1..4), at: prop::sample::Index, with in 1u8..
        ) {
            let (mut all, _) = segment(1, &records);
            let at = at.index(all.len());
            all[at] ^= with;
            // A damage that says another version is a header of that version.
            prop_assume!(at != 7 || all[7] != b'1');
            let got = parse_segment(Bytes::from(all));
            prop_assert_eq!(got.is_err(), at < 28);
            let got = got.unwrap_or_default();
            prop_assert!(got.len() < records.len() || (28..HEADER_BYTES).contains(&at));
            for (number, got) in &got {
                prop_assert_eq!(got, &records[*number as usize - 1]);
            }
        }

        /// What stands behind the records may be a client's choice, down to the number that comes next.
        #[test]
        fn frames_with_another_salt_are_never_taken(
            records in proptest::collection::vec(record(), 1..4), others in proptest::collection::vec(record(), 1..4),
            salt: u64
        ) {
            prop_assume!(salt != SALT);
            let (mut all, _) = segment(1, &records);
            for (number, other) in (records.len() as u64 + 1..).zip(&others) {
                frame(number, other, salt, &mut all);
            }
            prop_assert_eq!(parse_segment(Bytes::from(all)).unwrap().len(), records.len());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut tail in proptest::collection::vec(any::<u8>(), 0..200), header: bool) {
            if header {
                let mut all = segment_header(1, SALT).to_vec();
                all.append(&mut tail);
                tail = all;
            }
            let _ = parse_segment(Bytes::from(tail.clone()));
            let _ = Record::decode(Bytes::from(tail));
        }
    }
}
