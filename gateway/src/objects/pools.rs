//! The boundary to a pair of object pools: the backing tier, and perhaps a cache tier, as objects in a cluster.
//!
//! A version whose content is in pools has only a placeholder in the tree. Each object is in the cache pool, in the data
//! pool, or in both; its name is its [`ObjectId`], and it carries its length and checksum ([`ObjectInfo`]). A cached object
//! carries a mark once the data pool has the same bytes: a listing and the attributes rebuild the residency map exactly.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tiering::{ObjectId, Tier};

/// Version of [`ObjectInfo`]'s encoding.
const LAYOUT: u8 = 1;
/// Bytes of an encoded [`ObjectInfo`].
pub const INFO_BYTES: usize = 16;

/// What an object's attribute says of it.
///
/// Encoded little endian: layout version (1 byte, 1), 3 zeros, length (4), crc32c of the bytes (4), bytes per object (4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its length in bytes.
    pub len: u32,
    /// crc32c of its bytes.
    pub crc: u32,
    /// Bytes per object of the version that it is part of.
    pub object_bytes: u32,
}

impl ObjectInfo {
    /// Where the checksum is in the attribute's value.
    pub const CRC_AT: usize = 8;

    /// Of an object of these bytes, before their checksum is taken.
    pub fn unsummed(parts: &[Bytes], object_bytes: u32) -> ObjectInfo {
        ObjectInfo {
            len: parts.iter().map(|part| part.len() as u32).sum(),
            crc: 0,
            object_bytes,
        }
    }

    /// The attribute's value.
    pub fn encode(&self) -> [u8; INFO_BYTES] {
        let mut out = [0; INFO_BYTES];
        out[0] = LAYOUT;
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..12].copy_from_slice(&self.crc.to_le_bytes());
        out[12..16].copy_from_slice(&self.object_bytes.to_le_bytes());
        out
    }

    /// Reads the attribute; `None` when it is none of ours.
    pub fn decode(bytes: &[u8]) -> Option<ObjectInfo> {
        let bytes: &[u8; INFO_BYTES] = bytes.try_into().ok()?;
        let at = |i: usize| {
            bytes[i..i + 4]
                .try_into()
                .map(u32::from_le_bytes)
                .unwrap_or_default()
        };
        (bytes[..4] == [LAYOUT, 0, 0, 0]).then(|| ObjectInfo {
            len: at(4),
            crc: at(8),
            object_bytes: at(12),
        })
    }
}

/// What can go wrong in a pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// There is no such object.
    #[error("not in the pool")]
    NotFound,
    /// The pool, its quota or the cluster is full.
    #[error("the pool is full")]
    Full,
    /// The object has no attribute of ours, or not the announced bytes.
    #[error("not an object of ours, or damaged")]
    Damaged,
    /// The cluster has shut this client out; only a new connection helps.
    #[error("the cluster has blocklisted this client")]
    Blocklisted,
    /// Another gateway owns the pools' namespace now.
    #[error("this gateway does not own its pools any more")]
    NotOwner,
    /// Anything else, above all a cluster that does not answer in time.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<PoolError> for io::Error {
    fn from(e: PoolError) -> io::Error {
        let kind = match &e {
            PoolError::NotFound => io::ErrorKind::NotFound,
            PoolError::Full => io::ErrorKind::StorageFull,
            PoolError::Damaged => io::ErrorKind::InvalidData,
            PoolError::Blocklisted | PoolError::NotOwner => io::ErrorKind::NotConnected,
            PoolError::Io(_) => io::ErrorKind::Other,
        };
        match e {
            PoolError::Io(e) => e,
            other => io::Error::new(kind, other),
        }
    }
}

/// Why the pools cannot be taken into use. The message says what to look at.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct AttachError {
    what: String,
    may_pass: bool,
}

impl AttachError {
    /// Something that only other settings mend.
    pub fn lasting(what: impl Into<String>) -> AttachError {
        AttachError {
            what: what.into(),
            may_pass: false,
        }
    }

    /// Something that the cluster or its operator mends: monitors, OSDs, pools or keys that are not there yet.
    pub fn passing(what: impl Into<String>) -> AttachError {
        AttachError {
            what: what.into(),
            may_pass: true,
        }
    }

    /// Whether the same settings may do later.
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }
}

/// A result that is on its way: the operation has begun when the future is returned, and goes on if it is dropped.
pub type Pending<T> = BoxFuture<'static, Result<T, PoolError>>;

/// Bytes in use, and bytes that may still be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolSpace {
    /// Bytes of objects.
    pub used: u64,
    /// Bytes that fit yet.
    pub available: u64,
}

/// A pair of pools. [`Tier::Cache`] means the cache pool, [`Tier::Backing`] the data pool.
///
/// The caller guarantees that the bytes of a published id never change, and that one id is written by one task at a time.
/// The implementation guarantees that each call is one atomic operation, on stable storage when it succeeds, and that no
/// call blocks the thread it is made on, except those that say so.
pub trait Pools: Send + Sync + 'static {
    /// The cache pool's name, if there is one.
    fn cache_pool(&self) -> Option<&str>;

    /// Whether there is a cache pool.
    fn has_cache(&self) -> bool {
        self.cache_pool().is_some()
    }

    /// Where the content ends up, for people and for the root's marker: cluster, data pool, namespace.
    fn describe(&self) -> String;

    /// Bytes from `offset` and the object's information. Bytes past its end are missing from the result.
    fn read(&self, tier: Tier, id: ObjectId, offset: u32, len: u32)
    -> Pending<(Bytes, ObjectInfo)>;

    /// Bytes from `offset` and their crc32c, without the object's information: for who knows that. The cluster's client has taken
    /// the checksum of what it received, so that the bytes are gone through once.
    fn read_summed(
        &self,
        tier: Tier,
        id: ObjectId,
        offset: u32,
        len: u32,
    ) -> Pending<(Bytes, u32)> {
        let read = self.read(tier, id, offset, len);
        Box::pin(async move {
            let (bytes, _) = read.await?;
            let sum = crc32c::crc32c(&bytes);
            Ok((bytes, sum))
        })
    }

    /// Writes an object whole; `clean` marks it as equal to the data pool's.
    fn write(
        &self,
        tier: Tier,
        id: ObjectId,
        parts: Vec<Bytes>,
        info: ObjectInfo,
        clean: bool,
    ) -> Pending<()>;

    /// Writes a new object whole, and returns its information: the checksum that the cluster's client takes of what it sends
    /// is the object's as well, so that the bytes are gone through once.
    fn write_new(
        &self,
        tier: Tier,
        id: ObjectId,
        parts: Vec<Bytes>,
        object_bytes: u32,
        clean: bool,
    ) -> Pending<ObjectInfo> {
        let mut info = ObjectInfo::unsummed(&parts, object_bytes);
        for part in &parts {
            info.crc = crc32c::crc32c_append(info.crc, part);
        }
        let written = self.write(tier, id, parts, info, clean);
        Box::pin(async move { written.await.map(|()| info) })
    }

    /// Copies an object with its information, without the bytes passing through here. The mark of a clean object is
    /// copied as well.
    fn copy(&self, from: (Tier, ObjectId), to: (Tier, ObjectId)) -> Pending<()>;

    /// Marks a cached object as equal to the data pool's.
    fn mark_clean(&self, id: ObjectId) -> Pending<()>;

    /// Takes the mark from a cached object. One that has none stays as it is.
    fn mark_dirty(&self, id: ObjectId) -> Pending<()>;

    /// An object's information, and whether it carries the mark.
    fn info(&self, tier: Tier, id: ObjectId) -> Pending<(ObjectInfo, bool)>;

    /// Removes an object; an absent one is fine. `true` if it was there.
    fn remove(&self, tier: Tier, id: ObjectId) -> Pending<bool>;

    /// All objects of a pool, in no order, and the names that are no object's. Blocks.
    fn list(&self, tier: Tier) -> Result<PoolListing, PoolError>;

    /// Makes this gateway the only one in the pools' namespace, which belongs to this root from now on, until the
    /// returned value is dropped. Blocks, as long as a dead owner's lock lives.
    ///
    /// # Errors
    /// Who owns it instead, or that the data pool does not answer.
    fn own(
        self: Arc<Self>,
        claim: Claim,
    ) -> Result<Box<dyn std::any::Any + Send + Sync>, AttachError>;

    /// Space of a pool, a few seconds old perhaps. Blocks.
    fn space(&self, tier: Tier) -> Result<PoolSpace, PoolError>;
}

/// Who wants the pools' namespace. The caller holds the lock file of the root.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The root's id, which its copies and clones have, too.
    pub root_id: String,
    /// Where the root's lock file lies: the same for two processes only if it cannot be held by both at once. Has no spaces.
    pub place: String,
    /// Tells people who it is.
    pub description: String,
}

/// What [`Pools::list`] found.
#[derive(Debug, Default)]
pub struct PoolListing {
    /// The objects.
    pub objects: Vec<ObjectId>,
    /// Other names.
    pub foreign: Vec<String>,
}

/// The name of an object in a pool: `{FileId:016x}.{index:08x}`.
pub fn object_name(id: ObjectId) -> String {
    format!("{:016x}.{:08x}", id.file.0, id.index)
}

/// Reads [`object_name`] back.
pub fn parse_object_name(name: &str) -> Option<ObjectId> {
    let (file, index) = name.split_once('.')?;
    let id = ObjectId::new(
        tiering::FileId(u64::from_str_radix(file, 16).ok()?),
        u32::from_str_radix(index, 16).ok()?,
    );
    (object_name(id) == name).then_some(id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_and_information_round_trip(file: u64, index: u32, len: u32, crc: u32, object_bytes: u32) {
            let id = ObjectId::new(tiering::FileId(file), index);
            prop_assert_eq!(parse_object_name(&object_name(id)), Some(id));
            let info = ObjectInfo { len, crc, object_bytes };
            prop_assert_eq!(ObjectInfo::decode(&info.encode()), Some(info));
        }

        #[test]
        fn what_is_not_ours_is_nothing(name in ".{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(id) = parse_object_name(&name) {
                prop_assert_eq!(object_name(id), name);
            }
            if let Some(info) = ObjectInfo::decode(&bytes) {
                prop_assert_eq!(&info.encode()[..], &bytes[..]);
            }
        }
    }
}
