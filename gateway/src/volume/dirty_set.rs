//! Which objects of a version were only in the cache tier when it was committed.
//!
//! Without this a cache object that vanished behind the gateway's back could not be told from one that was
//! flushed, and its range of the plain file, a hole, would be served as zeros. Most versions are dirty as a
//! whole: a flag in the identity record says so. For the others the attribute `user.tierdav.dirty` holds
//! CRC-32C of the rest (4 bytes, little endian), then pairs of LEB128 numbers: objects skipped, objects dirty.
//!
//! Objects are counted in the size that the cache tier was cut at. That goes with a cache that is lost, so that the attribute
//! `user.tierdav.object_size` of `.tierdav/dirty` has it, too (4 bytes, little endian).
//!
//! The set is not kept up to date: a flushed object stays in the cache tier until its version is settled.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

const ATTRIBUTE: &str = "user.tierdav.dirty";
const OBJECT_SIZE: &str = "user.tierdav.object_size";
/// Beside identity and properties in one 4 KiB attribute block of ext4. Enough for some 500 runs.
const BYTES_MAX: usize = 2048;

/// Encodes ascending indices; `None` when they are too scattered to fit.
fn encode(indices: &[u32]) -> Option<Vec<u8>> {
    let mut out = vec![0u8; 4];
    let mut next = 0u32;
    let mut left = indices;
    while let Some(&first) = left.first() {
        let run = left
            .iter()
            .zip(first..)
            .take_while(|(index, expected)| **index == *expected)
            .count();
        number(&mut out, first.checked_sub(next)?);
        number(&mut out, run as u32);
        next = first.saturating_add(run as u32);
        left = &left[run..];
        if out.len() > BYTES_MAX {
            return None;
        }
    }
    let crc = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    Some(out)
}

fn number(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Decodes the indices below `objects`; `None` when the bytes are none of ours.
fn decode(bytes: &[u8], objects: u32) -> Option<Vec<u32>> {
    let (crc, mut rest) = bytes.split_at_checked(4)?;
    if u32::from_le_bytes(crc.try_into().ok()?) != crc32c::crc32c(rest) {
        return None;
    }
    let mut take = || {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            value |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    };
    let mut out = Vec::new();
    let mut at = 0u32;
    while let Some(skipped) = take() {
        let from = at.checked_add(skipped)?;
        at = from.checked_add(take()?)?;
        if at > objects {
            return None;
        }
        out.extend(from..at);
    }
    Some(out)
}

/// Writes down the dirty objects of a version that is not dirty as a whole.
///
/// What does not fit is left out: the version is then served without this protection.
pub(crate) fn store(file: &impl AsFd, indices: &[u32]) -> io::Result<()> {
    let Some(bytes) = encode(indices) else {
        return Ok(());
    };
    match rustix::fs::fsetxattr(file, ATTRIBUTE, &bytes, XattrFlags::empty()) {
        Ok(()) | Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// What [`store`] wrote; nothing when it wrote nothing.
pub(crate) fn load(file: &impl AsFd, objects: u32) -> io::Result<Vec<u32>> {
    let mut buf = [0u8; BYTES_MAX + 64];
    match rustix::fs::fgetxattr(file, ATTRIBUTE, &mut buf[..]) {
        Ok(n) => decode(&buf[..n], objects)
            .ok_or_else(|| io::Error::other("damaged record of dirty objects")),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

/// Removes the record: the version is plain.
pub(crate) fn remove(file: &impl AsFd) -> io::Result<()> {
    match rustix::fs::fremovexattr(file, ATTRIBUTE) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The size of the objects that dirty files are counted in, as far as that was written down.
pub(crate) fn object_bytes(dirty: &impl AsFd) -> io::Result<Option<u32>> {
    let mut buf = [0u8; 4];
    match rustix::fs::fgetxattr(dirty, OBJECT_SIZE, &mut buf[..]) {
        Ok(4) => Ok(Some(u32::from_le_bytes(buf))),
        Ok(_) | Err(Errno::RANGE) => Err(io::Error::other("damaged record of the size of objects")),
        Err(Errno::NODATA) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Writes it down, durably: dirty files come after it.
pub(crate) fn set_object_bytes(dirty: &impl AsFd, bytes: u32) -> io::Result<()> {
    let value = bytes.to_le_bytes();
    rustix::fs::fsetxattr(dirty, OBJECT_SIZE, &value, XattrFlags::empty())?;
    Ok(rustix::fs::fsync(dirty)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(set in proptest::collection::btree_set(0u32..100_000, 0..200)) {
            let indices: Vec<u32> = set.into_iter().collect();
            let bytes = encode(&indices).unwrap();
            prop_assert_eq!(decode(&bytes, 100_000), Some(indices));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), fix: bool) {
            let mut bytes = bytes;
            if fix && bytes.len() >= 4 {
                let crc = crc32c::crc32c(&bytes[4..]);
                bytes[..4].copy_from_slice(&crc.to_le_bytes());
            }
            if let Some(found) = decode(&bytes, 1000) {
                prop_assert!(found.len() <= 1000 && found.iter().all(|i| *i < 1000));
            }
        }
    }

    #[test]
    fn a_long_run_is_short_and_a_scattered_set_is_refused() {
        assert_eq!(
            encode(&(5..1_000_000).collect::<Vec<_>>()).unwrap().len(),
            8
        );
        let scattered: Vec<u32> = (0..10_000).map(|i| i * 2).collect();
        assert_eq!(encode(&scattered), None);
    }
}
