//! The admin listener's sockets: open from before recovery until everything is flushed, so that who asks whether the
//! server is ready is answered, never refused.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::{Admin, Reply, guard, later, metrics_page, text};
use crate::http::stall::Stalling;
use crate::metrics::Metrics;

/// Admin connections at once.
const CONNECTIONS_MAX: usize = 64;

/// Longest wait for a request's head, for its whole body, and for a peer to take what was written: who stalls must not keep a slot
/// from who asks for health. What is asked for may take longer.
pub(super) const PEER_TIME_MAX: Duration = Duration::from_secs(10);

/// Connections, the oldest first. One that is only open gives way to a new one: who scans ports, or forgets to hang up, must not
/// keep a probe waiting until the orchestrator takes the server for dead.
#[derive(Default)]
struct Guests {
    all: VecDeque<(AbortHandle, Arc<AtomicUsize>)>,
}

impl Guests {
    /// `false` if every connection is being answered.
    fn make_room(&mut self) -> bool {
        if self.all.len() >= CONNECTIONS_MAX {
            self.all.retain(|(guest, _)| !guest.is_finished());
        }
        if self.all.len() < CONNECTIONS_MAX {
            return true;
        }
        let idle = |(_, answering): &(_, Arc<AtomicUsize>)| answering.load(Ordering::Relaxed) == 0;
        let oldest = self.all.iter().position(idle);
        let gone = oldest.and_then(|at| self.all.remove(at));
        if let Some((guest, _)) = &gone {
            guest.abort();
        }
        gone.is_some()
    }

    fn admit(&mut self, guest: AbortHandle, answering: Arc<AtomicUsize>) {
        self.all.push_back((guest, answering));
    }
}

/// Answers for the server while there is no [`Admin`] yet.
pub struct Door {
    admin: OnceLock<Arc<Admin>>,
    metrics: Arc<Metrics>,
    /// What the start waits for, for people.
    waits_for: Mutex<Option<String>>,
}

impl Door {
    /// A server that is starting.
    pub fn new(metrics: Arc<Metrics>) -> Door {
        Door {
            admin: OnceLock::new(),
            metrics,
            waits_for: Mutex::new(None),
        }
    }

    /// The start goes on when this has passed.
    pub fn wait_for(&self, trouble: String) {
        *self.waits_for.lock() = Some(trouble);
    }

    /// From now on `admin` answers.
    pub fn open(&self, admin: Admin) {
        let admin = Arc::new(admin);
        // Called once; a second one would find the first still right.
        if self.admin.set(Arc::clone(&admin)).is_ok() {
            tokio::spawn(admin.watch());
        }
    }

    /// Serves as long as the process lives.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut guests = Guests::default();
        let local = listener.local_addr().is_ok_and(|a| a.ip().is_loopback());
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            if guests.make_room() {
                let answering = Arc::<AtomicUsize>::default();
                let guest = Arc::clone(&self).attend(stream, local, Arc::clone(&answering));
                guests.admit(tokio::spawn(guest).abort_handle(), answering);
            }
        }
    }

    /// Serves one connection; `answering` counts its requests that are being answered.
    async fn attend(self: Arc<Self>, stream: TcpStream, local: bool, answering: Arc<AtomicUsize>) {
        let service = service_fn(|request| {
            let (door, answering) = (Arc::clone(&self), Arc::clone(&answering));
            async move {
                answering.fetch_add(1, Ordering::Relaxed);
                let reply = door.answer(request, local).await;
                answering.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, Infallible>(reply)
            }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(PEER_TIME_MAX);
        let stream = Stalling::new(stream, PEER_TIME_MAX);
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "admin connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>, local: bool) -> Reply {
        if let Err(why) = guard(&request, local) {
            return text(StatusCode::FORBIDDEN, why);
        }
        if let Some(admin) = self.admin.get() {
            return admin.answer(request).await;
        }
        match request.uri().path().trim_end_matches('/') {
            "/.tierdav/health" => text(StatusCode::OK, "ok\n"),
            "/.tierdav/metrics" => metrics_page(&self.metrics),
            _ => later(match &*self.waits_for.lock() {
                Some(trouble) => format!("starting; waits for this to pass: {trouble}\n"),
                None => "starting\n".to_owned(),
            }),
        }
    }
}
