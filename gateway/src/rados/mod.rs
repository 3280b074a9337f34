//! Ceph pools through librados: the cache pool on SSDs and the data pool on HDDs.
//!
//! | part | does |
//! | --- | --- |
//! | `sys`, `shim.cc` | librados' asynchronous calls as futures; all that is unsafe |
//! | `connect` | a connection, or a full account of why there is none |
//! | `owner` | one gateway per namespace: the lock in the data pool |
//! | `space` | what the monitors said last of the pools' space |
//! | here | objects: names, attributes, errors |
//!
//! An object is named `{FileId:016x}.{index:08x}`. Its attribute `tierdav` is an [`ObjectInfo`]; a cached object that the
//! data pool has as well carries the attribute `tierdav.clean`. A write of bytes and attributes is one compound operation.

mod connect;
mod owner;
mod space;
mod sys;

use std::ffi::{CStr, CString};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tiering::{ObjectId, Tier};

use crate::config::PoolSettings;
use crate::metrics::RadosMetrics;
use crate::objects::pools::{
    AttachError, Claim, ObjectInfo, Pending, PoolError, PoolListing, PoolSpace, Pools, object_name,
    parse_object_name,
};

use space::LastAnswer;

pub use owner::Owner;

const INFO: &CStr = c"tierdav";
const CLEAN: &CStr = c"tierdav.clean";
/// The object that carries the owner's lock; no name of an object of ours.
const OWNER: &CStr = c"tierdav.owner";

/// The two pools of one cluster. The connection is replaced when the cluster has shut it out.
pub struct RadosPools {
    live: ArcSwap<Live>,
    options: PoolSettings,
    metrics: Arc<RadosMetrics>,
    /// Set while the owner's lock is not held: every operation is refused.
    fenced: AtomicBool,
    /// What the cluster said last.
    space: Arc<LastAnswer<Spaces>>,
}

/// Space of the two pools, as far as the cluster said.
#[derive(Clone, Copy)]
struct Spaces {
    cache: Option<PoolSpace>,
    data: Option<PoolSpace>,
}

/// One connection.
struct Live {
    handle: Arc<sys::Handle>,
    cache: Option<sys::Context>,
    data: sys::Context,
    fsid: String,
}

impl RadosPools {
    /// Connects and opens the pools. Blocks, for ten seconds or the operations' timeout at most if nobody answers.
    ///
    /// # Errors
    /// Names the monitors, the user, the keyring and what librados said; see [`AttachError::may_pass`].
    pub fn connect(
        options: PoolSettings,
        metrics: Arc<RadosMetrics>,
    ) -> Result<RadosPools, AttachError> {
        Ok(RadosPools {
            live: ArcSwap::from_pointee(Live::connect(&options, &metrics)?),
            options,
            metrics,
            fenced: AtomicBool::new(false),
            space: LastAnswer::new(),
        })
    }

    /// The pools and their namespace, for people.
    fn name(&self) -> String {
        let o = &self.options;
        let cache = o.cache_pool.as_deref().unwrap_or("no cache pool");
        format!("{} and {cache}, namespace {}", o.data_pool, o.namespace)
    }

    /// Refuses all operations from now on, or no longer.
    fn set_fenced(&self, fenced: bool) {
        self.fenced.store(fenced, Ordering::Relaxed);
        self.metrics.set_owner(!fenced);
    }

    fn begin<T: Send + 'static>(
        &self,
        tier: Tier,
        start: impl FnOnce(&sys::Context) -> sys::Wait,
        finish: impl FnOnce(sys::Reply) -> Result<T, PoolError> + Send + 'static,
    ) -> Pending<T> {
        let live = self.live.load();
        let context = match self.fenced.load(Ordering::Relaxed) {
            true => Err(PoolError::NotOwner),
            false => live.context(tier),
        };
        match context {
            Ok(context) => settle(start(context), finish),
            Err(e) => Box::pin(std::future::ready(Err(e))),
        }
    }

    fn begin_read<T: Send + 'static>(
        &self,
        tier: Tier,
        id: ObjectId,
        offset: u32,
        len: u32,
        attr: Option<&CStr>,
        finish: impl FnOnce(sys::Reply) -> Result<T, PoolError> + Send + 'static,
    ) -> Pending<T> {
        let read = |io: &sys::Context| io.read(&name(id), u64::from(offset), len as usize, attr);
        self.begin(tier, read, finish)
    }
}

impl Live {
    fn context(&self, tier: Tier) -> Result<&sys::Context, PoolError> {
        match (tier, &self.cache) {
            (Tier::Backing, _) => Ok(&self.data),
            (Tier::Cache, Some(cache)) => Ok(cache),
            (Tier::Cache, None) => Err(PoolError::NotFound),
        }
    }
}

/// What a number from librados means to a person who sets a gateway up.
fn explain(e: &io::Error) -> String {
    let hint = match e.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "the key or its capabilities are not accepted",
        Some(libc::ENOENT) => "not found",
        Some(libc::ETIMEDOUT) => "no answer",
        Some(libc::ENOTSUP) => "no key for this user, or no common way to authenticate",
        _ => return e.to_string(),
    };
    format!("{hint} ({e})")
}

fn error_of(e: io::Error) -> PoolError {
    match e.raw_os_error() {
        Some(libc::ENOENT) => PoolError::NotFound,
        Some(libc::ENOSPC | libc::EDQUOT) => PoolError::Full,
        Some(libc::ENODATA) => PoolError::Damaged,
        Some(libc::ESHUTDOWN) => PoolError::Blocklisted,
        _ => PoolError::Io(e),
    }
}

fn settle<T: Send + 'static>(
    wait: sys::Wait,
    finish: impl FnOnce(sys::Reply) -> Result<T, PoolError> + Send + 'static,
) -> Pending<T> {
    Box::pin(async move {
        match wait.await {
            Ok(Ok(reply)) => finish(reply),
            Ok(Err(e)) => Err(error_of(e)),
            Err(_) => Err(PoolError::Io(io::Error::other("the operation vanished"))),
        }
    })
}

fn name(id: ObjectId) -> CString {
    // Sixteen and eight hexadecimal digits and a point: never a NUL.
    CString::new(object_name(id)).unwrap_or_default()
}

fn info_of(reply: &sys::Reply) -> Result<ObjectInfo, PoolError> {
    ObjectInfo::decode(reply.attr()).ok_or(PoolError::Damaged)
}

impl Pools for RadosPools {
    fn cache_pool(&self) -> Option<&str> {
        self.options.cache_pool.as_deref()
    }

    fn describe(&self) -> String {
        let o = &self.options;
        format!("{} {} {}", self.live.load().fsid, o.data_pool, o.namespace)
    }

    fn read(
        &self,
        tier: Tier,
        id: ObjectId,
        offset: u32,
        len: u32,
    ) -> Pending<(Bytes, ObjectInfo)> {
        self.begin_read(tier, id, offset, len, Some(INFO), |reply| {
            let info = info_of(&reply)?;
            Ok((reply.into_bytes(), info))
        })
    }

    fn read_summed(
        &self,
        tier: Tier,
        id: ObjectId,
        offset: u32,
        len: u32,
    ) -> Pending<(Bytes, u32)> {
        // What asks for no bytes and for no attribute does not find out either that there is no such object.
        let attr = (len == 0).then_some(INFO);
        self.begin_read(tier, id, offset, len, attr, |reply| {
            let sum = reply.sum();
            Ok((reply.into_bytes(), sum))
        })
    }

    fn write(
        &self,
        tier: Tier,
        id: ObjectId,
        parts: Vec<Bytes>,
        info: ObjectInfo,
        clean: bool,
    ) -> Pending<()> {
        let mark = clean.then_some(CLEAN);
        self.begin(
            tier,
            |io| {
                io.write(&name(id), parts, (INFO, &info.encode()), None, mark)
                    .0
            },
            |_| Ok(()),
        )
    }

    fn write_new(
        &self,
        tier: Tier,
        id: ObjectId,
        parts: Vec<Bytes>,
        object_bytes: u32,
        clean: bool,
    ) -> Pending<ObjectInfo> {
        let mark = clean.then_some(CLEAN);
        let mut info = ObjectInfo::unsummed(&parts, object_bytes);
        let written = self.begin(
            tier,
            |io| {
                let attr = (INFO, &info.encode()[..]);
                let (wait, crc) = io.write(&name(id), parts, attr, Some(ObjectInfo::CRC_AT), mark);
                info.crc = crc;
                wait
            },
            |_| Ok(()),
        );
        Box::pin(async move { written.await.map(|()| info) })
    }

    fn copy(&self, from: (Tier, ObjectId), to: (Tier, ObjectId)) -> Pending<()> {
        match self.live.load().context(from.0) {
            Ok(source) => self.begin(
                to.0,
                |io| io.copy_from(&name(to.1), source, &name(from.1)),
                |_| Ok(()),
            ),
            Err(e) => Box::pin(std::future::ready(Err(e))),
        }
    }

    fn mark_clean(&self, id: ObjectId) -> Pending<()> {
        self.begin(Tier::Cache, |io| io.set_mark(&name(id), CLEAN), |_| Ok(()))
    }

    fn mark_dirty(&self, id: ObjectId) -> Pending<()> {
        let unmarked = self.begin(
            Tier::Cache,
            |io| io.unset_mark(&name(id), CLEAN),
            |_| Ok(()),
        );
        Box::pin(async move {
            match unmarked.await {
                // Here it means that there is no mark, not that there is no attribute of ours.
                Err(PoolError::Damaged) => Ok(()),
                done => done,
            }
        })
    }

    fn info(&self, tier: Tier, id: ObjectId) -> Pending<(ObjectInfo, bool)> {
        self.begin(
            tier,
            |io| io.attributes(&name(id), INFO, CLEAN),
            |reply| Ok((info_of(&reply)?, !reply.as_ref().is_empty())),
        )
    }

    fn remove(&self, tier: Tier, id: ObjectId) -> Pending<bool> {
        let removed = self.begin(tier, |io| io.remove(&name(id)), |_| Ok(true));
        Box::pin(async move {
            match removed.await {
                Err(PoolError::NotFound) => Ok(false),
                done => done,
            }
        })
    }

    fn list(&self, tier: Tier) -> Result<PoolListing, PoolError> {
        let mut found = PoolListing::default();
        self.live
            .load()
            .context(tier)?
            .list(|name| {
                let text = std::str::from_utf8(name).ok();
                match text.and_then(parse_object_name) {
                    Some(id) => found.objects.push(id),
                    None if name == OWNER.to_bytes() => {}
                    None => found
                        .foreign
                        .push(String::from_utf8_lossy(name).into_owned()),
                }
            })
            .map_err(error_of)?;
        Ok(found)
    }

    fn own(
        self: Arc<Self>,
        claim: Claim,
    ) -> Result<Box<dyn std::any::Any + Send + Sync>, AttachError> {
        Ok(Box::new(Owner::take(self, claim)?))
    }

    fn space(&self, tier: Tier) -> Result<PoolSpace, PoolError> {
        if tier == Tier::Cache && self.options.cache_pool.is_none() {
            return Err(PoolError::NotFound);
        }
        let live = self.live.load_full();
        let (cache, data) = (
            self.options.cache_pool.clone(),
            self.options.data_pool.clone(),
        );
        let spaces = self.space.get(Instant::now(), move || {
            let command = r#"{"prefix":"df","detail":"detail","format":"json"}"#;
            let reply = live.handle.mon_command(command).map_err(error_of)?;
            // Read once, asked by every upload.
            Ok(Spaces {
                cache: cache.and_then(|pool| space_of(&reply, &pool)),
                data: space_of(&reply, &data),
            })
        })?;
        match tier {
            Tier::Backing => spaces.data,
            Tier::Cache => spaces.cache,
        }
        .ok_or_else(|| PoolError::Io(io::Error::other("unexpected answer to `ceph df`")))
    }
}

/// Reads `ceph df detail`: what the cluster can take yet, or the pool's quota if that is less.
fn space_of(json: &[u8], pool: &str) -> Option<PoolSpace> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    let stats = value["pools"]
        .as_array()?
        .iter()
        .find(|p| p["name"] == pool)?
        .get("stats")?;
    let number = |key: &str| stats[key].as_u64();
    let used = number("stored")?;
    let available = match number("quota_bytes") {
        Some(quota) if quota > 0 => number("max_avail")?.min(quota.saturating_sub(used)),
        _ => number("max_avail")?,
    };
    Some(PoolSpace { used, available })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn space_is_what_the_pool_may_still_take() {
        let df = |quota: u64| {
            format!(
                r#"{{"pools":[{{"name":"x","stats":{{"stored":1,"max_avail":2}}}},
                {{"name":"d","stats":{{"stored":30,"max_avail":500,"quota_bytes":{quota}}}}}]}}"#
            )
        };
        let space = |quota, pool: &str| space_of(df(quota).as_bytes(), pool);
        let want = |available| {
            Some(PoolSpace {
                used: 30,
                available,
            })
        };
        assert_eq!(space(0, "d"), want(500));
        assert_eq!(space(100, "d"), want(70));
        assert_eq!(space(10, "d"), want(0));
        assert_eq!(space(0, "absent"), None);
        assert_eq!(space_of(b"{", "d"), None);
    }
}
