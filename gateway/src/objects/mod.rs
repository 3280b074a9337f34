//! Content of files as fixed-size objects over two tiers: where bytes are, and how they move.
//!
//! A resource's content is cut into objects (4 MiB unless configured). Each object is *cold* (only in the
//! backing tier: a range of the plain file beneath the root), *clean* (in both tiers) or *dirty* (its bytes
//! are in the cache tier only). A [`FileId`] names one immutable version, so an object never changes once it
//! is published: movement cannot race with versions, and a reader keeps its version by pinning it.
//!
//! ```text
//! PUT:       stage -> Staging::write… -> finish (bytes in their stores) -> [namespace commit] -> publish
//! GET:       reader (pins the version) -> read… -> drop (unpins)
//! movement:  event -> policy -> action -> migrator -> stores -> residency -> confirmation to the policy
//! ```
//!
//! This module must not know: names, WebDAV, why an object should move (that is `tiering`).
//!
//! Rules that everything here keeps:
//! - A dirty object is never forgotten: its entry leaves the residency map only by a flush whose bytes are on
//!   stable storage, or with its version.
//! - A half-copied object is never served: objects are written under a `.tmp` name and renamed.
//! - Cached bytes found at start are checked against their checksum before their first use; a damaged clean
//!   object is dropped (the backing tier serves), a damaged dirty one is an error.
//! - A full or failing cache never fails a write: the bytes go to the backing tier.

mod cache;
mod dir;
mod error;
mod file_system_sync;
mod flush;
mod gathering;
mod heat;
mod io;
mod migrator;
mod not_moved;
mod options;
mod pool_scrub;
mod pooled;
pub mod pools;
mod purge;
mod read_ahead;
mod reader;
#[doc(hidden)]
pub mod residency;
mod running;
mod scrub;
mod shadow;
mod staging;
mod status;
mod store;
mod telemetry;
mod throttle;
mod tree;
mod tuning;

#[cfg(test)]
mod answers_tests;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod flush_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod pooled_tests;
#[cfg(test)]
mod purge_tests;
#[cfg(test)]
pub(crate) mod test_pools;
#[cfg(test)]
mod tests;

pub use cache::ObjectCache;
pub use error::CacheError;
pub use file_system_sync::{FileSystemSync, Writes};
pub use gathering::Gathered;
pub use heat::{CELLS, Evidence};
pub use migrator::{FlushReport, MigratorHandle, StepReport};
pub use options::{Backing, CacheOptions, Capacity, Durability, IoContext, WritePolicy};
pub use pool_scrub::{Checked, PoolScrub, PooledFile, PooledTree, Unseen};
pub use purge::Extent;
pub use reader::{CheckedObject, ContentReader, Place};
pub use residency::Amount;
pub use scrub::{Finding, Problem, ScrubReport};
pub use shadow::{ShadowStatus, Switched};
pub use staging::{INLINE_BYTES_MAX, Staged, StagedObject, Staging, TreeBytes};
pub use status::{CacheStatus, Cell, HotFile, HotObjects, RecentAction};
pub use store::{Mark, ObjectStore, StoreError, Stored};
pub use tiering::{FileId, ObjectId, Tier};
pub use tuning::{Memory, Tuning};
