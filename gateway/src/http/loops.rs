//! Event loops: a few threads, each with its own connections.
//!
//! A connection stays with its loop, so that a request wakes one thread and no other: in a runtime that shares its tasks, each
//! batch of requests wakes a second thread to take half of them over, which costs more than most requests do.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// The loops. Dropping them ends them, with what still runs there.
#[derive(Debug)]
pub struct Loops {
    all: Vec<Loop>,
    _end: watch::Sender<()>,
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
        let start = |n| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let mut ended = ended.clone();
            std::thread::Builder::new()
                .name(format!("loop-{n}"))
                .spawn(move || {
                    // An error means that the sender is gone: that is the end.
                    runtime.block_on(async move { while ended.changed().await.is_ok() {} });
                    runtime.shutdown_background();
                })?;
            Ok(Loop {
                handle,
                connections: Arc::default(),
            })
        };
        let all = (0..count.get()).map(start).collect::<io::Result<_>>()?;
        Ok(Loops { all, _end: end })
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
