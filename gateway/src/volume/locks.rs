//! Who may change which part of the namespace now.
//!
//! A change holds its paths, each with everything below it, from its checks until it is applied,
//! over its wait for stable storage. Changes of unrelated paths run and sync together. Granted in
//! order of arrival wherever they collide, so that no MOVE starves under a stream of PUTs.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Notify;

use super::path::ResourcePath;

struct Entry {
    ticket: u64,
    paths: Vec<ResourcePath>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// In order of arrival, granted or not.
    entries: Vec<Entry>,
}

/// The table of held and wanted paths.
#[derive(Default)]
pub(crate) struct PathLocks {
    table: Mutex<Table>,
    changed: Notify,
}

/// Holds its paths until dropped.
pub(crate) struct PathGuard {
    locks: Arc<PathLocks>,
    ticket: u64,
}

impl PathLocks {
    /// Waits until no earlier caller holds or wants a path above, at or below one of `paths`.
    ///
    /// Cancel safe: a dropped wait gives up its place.
    pub async fn lock(self: &Arc<Self>, paths: &[&ResourcePath]) -> PathGuard {
        let guard = self.enqueue(paths);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.granted(guard.ticket) {
                return guard;
            }
            changed.await;
        }
    }

    fn enqueue(self: &Arc<Self>, paths: &[&ResourcePath]) -> PathGuard {
        let mut table = self.table.lock();
        let ticket = table.next;
        table.next += 1;
        table.entries.push(Entry {
            ticket,
            paths: paths.iter().map(|p| (*p).clone()).collect(),
        });
        PathGuard {
            locks: Arc::clone(self),
            ticket,
        }
    }

    fn granted(&self, ticket: u64) -> bool {
        let table = self.table.lock();
        let Some(own) = table.entries.iter().position(|e| e.ticket == ticket) else {
            return true;
        };
        let (earlier, rest) = table.entries.split_at(own);
        earlier.iter().all(|e| !collide(&e.paths, &rest[0].paths))
    }
}

fn collide(a: &[ResourcePath], b: &[ResourcePath]) -> bool {
    a.iter()
        .any(|x| b.iter().any(|y| x.is_within(y) || y.is_within(x)))
}

impl Drop for PathGuard {
    fn drop(&mut self) {
        self.locks
            .table
            .lock()
            .entries
            .retain(|e| e.ticket != self.ticket);
        self.locks.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use futures_util::FutureExt;

    fn p(s: &str) -> ResourcePath {
        ResourcePath::parse(s).unwrap()
    }

    #[tokio::test]
    async fn unrelated_paths_pass_and_related_ones_wait_in_order() {
        let locks = Arc::new(PathLocks::default());
        let ab = locks.lock(&[&p("/a/b")]).await;
        let ac = locks.lock(&[&p("/a/c")]).now_or_never().expect("unrelated");
        let (pa, pad) = (p("/a"), p("/a/d"));
        let paths = [&pa];
        let mut a = Box::pin(locks.lock(&paths));
        assert!(a.as_mut().now_or_never().is_none());
        // /a/d collides only with the waiting /a, and keeps behind it.
        let paths = [&pad];
        let mut ad = Box::pin(locks.lock(&paths));
        assert!(ad.as_mut().now_or_never().is_none());
        drop(ab);
        assert!(a.as_mut().now_or_never().is_none());
        drop(ac);
        let held = a.as_mut().now_or_never().expect("free now");
        assert!(ad.as_mut().now_or_never().is_none());
        drop(held);
        assert!(ad.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_cancelled_wait_gives_up_its_place() {
        let locks = Arc::new(PathLocks::default());
        let a = locks.lock(&[&p("/a")]).await;
        assert!(
            locks
                .lock(&[&ResourcePath::root()])
                .now_or_never()
                .is_none()
        );
        assert!(locks.lock(&[&p("/b")]).now_or_never().is_some());
        drop(a);
        assert!(locks.table.lock().entries.is_empty());
    }
}
