//! The end of a connection that is to be closed: what was asked gets its reply first.
//!
//! Hyper knows of the requests that it has seen. Those that the [lane](super::lane) answers it has not, and a connection on which
//! nothing else was asked it drops at once; so it is told to close when no answer is under way.

use std::future::poll_fn;
use std::pin::{Pin, pin};

use tokio::sync::watch;

use super::activity::Activity;

/// Runs `connection`; has it `close` once `stop` turns true and nothing that `activity` knows of waits.
pub async fn until_closed<C: Future>(
    connection: C,
    close: impl Fn(Pin<&mut C>),
    activity: &Activity,
    mut stop: watch::Receiver<bool>,
) -> C::Output {
    let mut connection = pin!(connection);
    let mut stop = pin!(async move {
        // Nobody who could stop it: as good as a stop.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let (mut stopping, mut told) = (false, false);
    poll_fn(|cx| {
        loop {
            let polled = connection.as_mut().poll(cx);
            if polled.is_ready() || told {
                return polled;
            }
            stopping = stopping || stop.as_mut().poll(cx).is_ready();
            if !stopping || activity.is_blocked() {
                return polled;
            }
            close(connection.as_mut());
            told = true;
        }
    })
    .await
}
