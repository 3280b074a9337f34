//! When a connection was last used.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

#[derive(Debug)]
struct State {
    requests: usize,
    /// Requests whose replies have ended.
    finished: usize,
    /// HTTP/2 from now on.
    frames: bool,
    /// The peer has yet to take what was written, or to get an answer that is not one of the requests.
    blocked: bool,
    idle_since: Instant,
}

/// The requests of one connection that are being answered, and since when there are none.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<State>>);

/// One request being answered; drop it when its reply's body is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Mutex<State>>);

impl Activity {
    /// Idle from now on.
    pub fn new() -> Activity {
        Activity(Arc::new(Mutex::new(State {
            requests: 0,
            finished: 0,
            frames: false,
            blocked: false,
            idle_since: Instant::now(),
        })))
    }

    /// A request has begun.
    pub fn begin(&self) -> Busy {
        self.0.lock().requests += 1;
        Busy(Arc::clone(&self.0))
    }

    /// A request was answered that was never begun here.
    pub fn touch(&self) {
        self.0.lock().idle_since = Instant::now();
    }

    /// A reply is finished here before the last of it has left, and an answer to come is not counted: the peer takes no more of
    /// it for the moment, or has yet to get it, or neither any longer.
    pub fn blocked(&self, blocked: bool) {
        let mut state = self.0.lock();
        state.blocked = blocked;
        state.idle_since = Instant::now();
    }

    /// Whether that is so.
    pub fn is_blocked(&self) -> bool {
        self.0.lock().blocked
    }

    /// How many requests have had their replies, down to the end of the body; those of [`Activity::touch`] do not count.
    pub fn finished(&self) -> usize {
        self.0.lock().finished
    }

    /// The connection has turned out to speak HTTP/2.
    pub fn speaks_frames(&self) {
        self.0.lock().frames = true;
    }

    /// Whether what is read now begins with the request line of a new HTTP/1 request.
    pub fn awaits_request_line(&self) -> bool {
        let state = self.0.lock();
        state.requests == 0 && !state.frames
    }

    /// Waits until there was no request, and nothing to be written, for `limit`.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let until = {
                let state = self.0.lock();
                let since = if state.requests == 0 && !state.blocked {
                    state.idle_since
                } else {
                    Instant::now()
                };
                since + limit
            };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Runs the connection, whose requests these are, to its end, or until it was idle for `limit`: then there is none.
    pub async fn bound<C: Future>(&self, limit: Duration, connection: C) -> Option<C::Output> {
        tokio::select! {
            // After a moment in which nothing ran, a request may lie in the socket that came in time: it is looked at first.
            biased;
            ended = connection => Some(ended),
            () = self.idle(limit) => None,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.requests -= 1;
        state.finished += 1;
        state.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_idle_only_after_the_limit_without_requests() {
        let activity = Activity::new();
        let limit = Duration::from_secs(10);
        let busy = activity.begin();
        let long = tokio::time::timeout(limit * 5, activity.idle(limit)).await;
        assert!(long.is_err(), "a request is under way");
        drop(busy);
        let ended = Instant::now();
        activity.idle(limit).await;
        assert!(ended.elapsed() >= limit && ended.elapsed() < limit * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_seen_together_with_the_end_of_the_limit_is_answered() {
        let limit = Duration::from_secs(10);
        // Often, as the other order would pass half of the time.
        for _ in 0..64 {
            let activity = Activity::new();
            let connection = async {
                tokio::time::sleep(limit).await;
                let _busy = activity.begin();
                tokio::time::sleep(limit * 3).await;
            };
            assert_eq!(activity.bound(limit, connection).await, Some(()));
        }
    }
}
