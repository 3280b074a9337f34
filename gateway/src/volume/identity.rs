//! The identity record: which version of content a file in the tree is.
//!
//! Kept in the extended attribute `user.tierdav.id`. 48 bytes, little endian, so that it fits
//! into a 256-byte ext4 inode and a listing reads no extra block:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | bit 0: dirty, bit 1: lock_null, bit 2: dirty as a whole, bit 3: in pools |
//! | 2 | 2 | zero |
//! | 4 | 4 | CRC-32C of bytes 8..48, then bytes 0..4 |
//! | 8 | 8 | file_id |
//! | 16 | 8 | len |
//! | 24 | 8 | mtime, ns since 1970: Last-Modified, and the mtime of the file when inline |
//! | 32 | 8 | created, ns since 1970 |
//! | 40 | 8 | inode number the record was made for |
//!
//! When the state is inline, (mtime, len, inode) are the stamp: a file that differs was written
//! beside the gateway, and its identity is derived from what it is now, its time of birth included. A placeholder may be copied and touched, as long as
//! nothing is written into it ([`Identity::describes_if_hollow`]).

use std::cell::RefCell;

use tiering::FileId;

use super::tree::Stat;

/// Name of the attribute.
pub const ATTRIBUTE: &str = "user.tierdav.id";
/// Bytes of an encoded record.
pub const ENCODED_BYTES: usize = 48;

const VERSION: u8 = 1;
const DIRTY: u8 = 1;
const LOCK_NULL: u8 = 2;
const ALL_DIRTY: u8 = 4;
const POOLED: u8 = 8;

/// Set in every derived id, clear in every random one.
const DERIVED: u64 = 1 << 63;

/// Where the content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All in the tree's plain file.
    Inline,
    /// Some of it only in the cache tier.
    Dirty,
    /// In pools; the file is a sparse placeholder of the right size and time.
    Pooled,
}

/// The decoded record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// This version of the content.
    pub file_id: FileId,
    /// Bytes of content.
    pub len: u64,
    /// Last-Modified, ns since 1970.
    pub mtime_ns: i64,
    /// Creation, ns since 1970.
    pub created_ns: i64,
    /// Inode of the tree file.
    pub ino: u64,
    /// Where the content is.
    pub state: State,
    /// No object was in the tree when the version was committed (else see `dirty_set`).
    pub all_dirty: bool,
    /// Made by a LOCK; nothing was PUT yet.
    pub lock_null: bool,
}

impl Identity {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; ENCODED_BYTES] {
        let mut out = [0u8; ENCODED_BYTES];
        out[0] = VERSION;
        out[1] = match self.state {
            State::Inline => 0,
            State::Dirty => DIRTY,
            State::Pooled => POOLED,
        } | if self.lock_null { LOCK_NULL } else { 0 }
            | if self.all_dirty { ALL_DIRTY } else { 0 };
        out[8..16].copy_from_slice(&self.file_id.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.len.to_le_bytes());
        out[24..32].copy_from_slice(&self.mtime_ns.to_le_bytes());
        out[32..40].copy_from_slice(&self.created_ns.to_le_bytes());
        out[40..48].copy_from_slice(&self.ino.to_le_bytes());
        let crc = checksum(&out);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a record; `None` when it is none of ours (length, version, checksum).
    pub fn decode(bytes: &[u8]) -> Option<Identity> {
        let bytes: &[u8; ENCODED_BYTES] = bytes.try_into().ok()?;
        let u64_at = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let crc = u32::from_le_bytes(bytes[4..8].try_into().ok()?);
        if bytes[0] != VERSION || crc != checksum(bytes) {
            return None;
        }
        Some(Identity {
            file_id: FileId(u64_at(8)?),
            len: u64_at(16)?,
            mtime_ns: u64_at(24)? as i64,
            created_ns: u64_at(32)? as i64,
            ino: u64_at(40)?,
            state: match bytes[1] & (DIRTY | POOLED) {
                0 => State::Inline,
                DIRTY => State::Dirty,
                POOLED => State::Pooled,
                _ => return None,
            },
            all_dirty: bytes[1] & ALL_DIRTY != 0,
            lock_null: bytes[1] & LOCK_NULL != 0,
        })
    }

    /// Whether the record still describes a file that now looks like this. A placeholder stays one when it is copied with its
    /// time, as a backup of the root and the way back do.
    pub(super) fn describes(&self, stat: &Stat) -> bool {
        let (same_len, same_time) = (self.len == stat.len, self.mtime_ns == stat.mtime_ns);
        match self.state {
            // Its file gets length and time when it is settled. A copy that somebody made has its attributes, but not its bytes.
            State::Dirty => self.ino == stat.ino,
            State::Inline => same_time && same_len && self.ino == stat.ino,
            State::Pooled => same_len && same_time,
        }
    }

    /// Whether the record describes a file that now looks like this if, and only if, that has no data at all: a placeholder
    /// that was touched, or copied without its time. Taken for a plain file it would be served as zeros; but what somebody
    /// wrote into one looks the same from outside.
    pub(super) fn describes_if_hollow(&self, stat: &Stat) -> bool {
        self.state == State::Pooled && self.len == stat.len && self.mtime_ns != stat.mtime_ns
    }

    /// Whether the file is the one that the record was written for, not a copy of it or changed by others.
    pub(super) fn is_own(&self, stat: &Stat) -> bool {
        self.mtime_ns == stat.mtime_ns && self.len == stat.len && self.ino == stat.ino
    }
}

fn checksum(bytes: &[u8; ENCODED_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[8..]), &bytes[..4])
}

/// The identity of a file without a valid record: a hash of what it is now.
///
/// The device number is left out: it changes over reboots. Inodes are used again, and copies may keep length and mtime: the
/// time of birth tells them apart, where the file system knows it.
pub fn derived(mtime_ns: i64, len: u64, ino: u64, created_ns: i64) -> FileId {
    let stamp = [ino, mtime_ns as u64, len, created_ns as u64];
    FileId(stamp.into_iter().fold(0x7469_6572, mix) | DERIVED)
}

/// The identity of a directory without a record.
pub fn derived_dir(ino: u64) -> FileId {
    FileId(mix(0x6469_7200, ino) | DERIVED)
}

/// One round of splitmix64 over the running hash and the next word.
fn mix(h: u64, x: u64) -> u64 {
    let mut z = (h ^ x).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether this id is that of content written beside the gateway.
pub fn is_derived(id: FileId) -> bool {
    id.0 & DERIVED != 0
}

/// A fresh random id: never 0, never a derived one.
pub fn fresh() -> std::io::Result<FileId> {
    thread_local! {
        /// Drawn, but not handed out yet.
        static DRAWN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    DRAWN.with_borrow_mut(|drawn| {
        loop {
            match drawn.pop() {
                Some(id) if id & !DERIVED != 0 => return Ok(FileId(id & !DERIVED)),
                Some(_) => {}
                None => draw(drawn)?,
            }
        }
    })
}

/// Draws some random numbers with one system call.
fn draw(drawn: &mut Vec<u64>) -> std::io::Result<()> {
    // Up to 256 bytes are never cut short (getrandom(2)).
    let mut bytes = [0u8; 256];
    let n = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    let (whole, _) = bytes[..n].as_chunks();
    drawn.extend(whole.iter().map(|b| u64::from_le_bytes(*b)));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(id: u64, len: u64, m: i64, c: i64, ino: u64, state in 0usize..3, all_dirty: bool, lock_null: bool) {
            let state = [State::Inline, State::Dirty, State::Pooled][state];
            let it = Identity { file_id: FileId(id), len, mtime_ns: m, created_ns: c, ino, state, all_dirty, lock_null };
            prop_assert_eq!(Identity::decode(&it.encode()), Some(it));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_one_flipped_bit_is_seen(
            bytes in proptest::collection::vec(any::<u8>(), 0..64), bit in 0usize..ENCODED_BYTES * 8
        ) {
            prop_assert_eq!(Identity::decode(&bytes), None);
            let it = Identity { file_id: FileId(7), len: 1, mtime_ns: 2, created_ns: 3, ino: 4, state: State::Dirty, all_dirty: true, lock_null: false };
            let mut e = it.encode();
            e[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Identity::decode(&e), None);
        }
    }

    #[test]
    fn derived_ids_differ_with_each_part_and_from_random_ones() {
        let base = derived(1, 2, 3, 4);
        let others = [
            derived(2, 2, 3, 4),
            derived(1, 3, 3, 4),
            derived(1, 2, 4, 4),
            derived(1, 2, 3, 5),
        ];
        assert!(!others.contains(&base));
        assert_ne!(base.0 & DERIVED, 0);
        assert_eq!(fresh().unwrap().0 & DERIVED, 0);
    }
}
