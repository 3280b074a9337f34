//! Event loops: a few threads, each with its own connections.
//!
//! A connection stays with its loop, so that a request wakes one thread and no other: in a runtime that shares its tasks, each
//! batch of requests wakes a second thread to take half of them over, which costs more than most requests do.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// How long the end waits for what threads still do for connections that it cut off: they may wait for a disk.
const LAST_WORK: Duration = Duration::from_secs(1);

/// The loops. Dropping them ends them, with what still runs there.
#[derive(Debug)]
pub struct Loops {
    all: Vec<Loop>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    end: watch::Sender<()>,
}

#[derive(Debug)]
struct Loop {
    handle: Handle,
    connections: Arc<AtomicUsize>,
}

/// Counts a connection while it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Loops {
    /// Starts `count` loops.
    ///
    /// # Errors
    /// What the kernel said to a new thread.
    pub fn start(count: NonZeroUsize) -> io::Result<Loops> {
        let (end, ended) = watch::channel(());
        let mut threads = Vec::new();
        let start = |n| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let mut ended = ended.clone();
            let thread = std::thread::Builder::new()
                .name(format!("loop-{n}"))
                .spawn(move || {
                    // An error means that the sender is gone: that is the end, too.
                    let _ = runtime.block_on(ended.changed());
                    runtime.shutdown_timeout(LAST_WORK);
                })?;
            threads.push(thread);
            Ok(Loop {
                handle,
                connections: Arc::default(),
            })
        };
        let all = (0..count.get()).map(start).collect::<io::Result<_>>()?;
        Ok(Loops {
            all,
            threads: Mutex::new(threads),
            end,
        })
    }

    /// Cuts off the connections that are left and waits until all that they held is dropped; for what threads still do for them
    /// [`LAST_WORK`] at most. Blocks.
    pub fn end(&self) {
        let _ = self.end.send(());
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }

    /// Runs a connection on the loop that has the fewest.
    pub fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let least = self
            .all
            .iter()
            .min_by_key(|l| l.connections.load(Ordering::Relaxed));
        if let Some(Loop {
            handle,
            connections,
        }) = least
        {
            connections.fetch_add(1, Ordering::Relaxed);
            let counted = Counted(Arc::clone(connections));
            handle.spawn(async move {
                connection.await;
                drop(counted);
            });
        }
    }
}
