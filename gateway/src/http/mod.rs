//! Sockets to requests: listeners, TLS, limits, timeouts, users, the access log, and a graceful stop.

mod access;
mod activity;
mod closing;
mod direct;
mod lane;
pub mod loops;
pub(crate) mod stall;
mod streams;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::AsyncRead;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::auth::{Certificate, Users, Verdict};
use crate::dav::{self, Body, Dav, RequestContext, User, Wanted};
use crate::metrics::{LoginFailure, Metrics};
use crate::recorder::Recorder;
use crate::volume::{Company, Content};
use access::{Asked, Entry};
use activity::{Activity, Busy};
use direct::Direct;
use lane::{Answer, Ask, Lane, Quick, Wish};
use loops::Loops;
use stall::Stalling;
use streams::{Paced, Streams};

/// Longest request path, bytes; longer is 414.
const PATH_MAX: usize = 16 << 10;
/// Most that is read from a connection at a time: a body in few large pieces costs less than in many. A connection may keep a
/// buffer of this size.
const READ_BYTES_MAX: usize = 128 << 10;
/// Bytes that hyper may buffer per connection beyond the headers' limit.
const WRITE_BUFFER_MAX: usize = 512 << 10;
/// Headers in a request; more is 431.
const HEADERS_MAX: usize = 128;
/// Seconds after which a client may come again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// What a connection is allowed.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once.
    pub max_connections: usize,
    /// Longest request line and headers, bytes.
    pub max_header_bytes: usize,
    /// Longest wait for a request's headers, an idle connection's next request included.
    pub header_timeout: Duration,
    /// Longest wait for a peer to take what was written.
    pub stall_timeout: Duration,
}

impl Limits {
    /// Longest head that is read.
    fn head_max(&self) -> usize {
        self.max_header_bytes.max(8192)
    }
}

/// The WebDAV front: everything that a connection needs.
pub struct Front {
    /// The protocol engine; without one, requests are answered 503.
    pub dav: OnceLock<Arc<Dav>>,
    /// Who may come in.
    pub users: Arc<Users>,
    /// For client ids.
    pub recorder: Recorder,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// Certificates, if TLS is on.
    pub tls: Option<Arc<tls::Tls>>,
    /// What a connection is allowed.
    pub limits: Limits,
    /// Where connections are served.
    pub loops: Loops,
    /// Set while stopping: new requests are answered 503.
    pub stopping: AtomicBool,
}

/// How long a stop waits for the first requests of connections that have just been made: a connection without a request is
/// closed then.
const FIRST_REQUEST: Duration = Duration::from_millis(100);

/// Binds `address` with a deep backlog.
///
/// # Errors
/// What the kernel said, with the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bind = || {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            None,
        )?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|e: io::Error| {
        io::Error::new(e.kind(), format!("cannot listen on {address}: {e}"))
    })
}

impl Front {
    fn spawn(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        closing: watch::Receiver<bool>,
        slot: OwnedSemaphorePermit,
    ) {
        let front = Arc::clone(self);
        // Registered anew with the loop that will serve it.
        let Ok(stream) = stream.into_std() else {
            return;
        };
        self.loops.spawn(async move {
            let open = front.metrics.connection_opened();
            match TcpStream::from_std(stream) {
                Ok(stream) => front.connection(stream, peer, closing).await,
                Err(error) => tracing::warn!(%peer, %error, "connection cannot be served"),
            }
            drop((open, slot));
        });
    }

    /// Serves `listener` until `stop` turns true, then lets running requests finish for up to `grace`.
    /// Returns how many connections had to be cut.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
        grace: Duration,
    ) -> usize {
        let (close, closing) = watch::channel(false);
        let slots = Arc::new(Semaphore::new(self.limits.max_connections));
        loop {
            // A slot first: when all are taken, clients wait in the kernel's backlog.
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot,
                _ = stop.wait_for(|s| *s) => break,
            };
            let Ok(slot) = slot else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|s| *s) => break,
            };
            match accepted {
                Ok((stream, peer)) => self.spawn(stream, peer, closing.clone(), slot),
                Err(error) => {
                    // Out of descriptors, most likely: the next accept would fail at once, too.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        // Whoever has connected already is served: the kernel would reset what waits in a backlog that is closed.
        if let Ok(listener) = listener.into_std() {
            while let Ok(slot) = Arc::clone(&slots).try_acquire_owned()
                && let Ok((stream, peer)) = listener.accept()
            {
                let stream = stream.set_nonblocking(true).map(|()| stream);
                if let Ok(stream) = stream.and_then(TcpStream::from_std) {
                    self.spawn(stream, peer, closing.clone(), slot);
                }
            }
        }
        tokio::time::sleep(FIRST_REQUEST).await;
        self.stopping.store(true, Ordering::Relaxed);
        let _ = close.send(true);
        let all = u32::try_from(self.limits.max_connections).unwrap_or(u32::MAX);
        let closed = tokio::time::timeout(grace, slots.acquire_many(all)).await;
        match closed {
            Ok(_) => 0,
            Err(_) => self.limits.max_connections - slots.available_permits(),
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        closing: watch::Receiver<bool>,
    ) {
        // Without it a small reply waits 40 ms for the peer's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY");
        }
        let stream = Stalling::new(stream, self.limits.stall_timeout);
        let activity = Activity::new();
        match self.tls.clone() {
            None => self.requests(stream, peer, None, activity, closing).await,
            Some(tls) => {
                match tokio::time::timeout(self.limits.header_timeout, tls.accept(stream)).await {
                    Ok(Ok((stream, name))) => {
                        let certificate = name.map(|n| Arc::new(Certificate::new(&n)));
                        self.requests(stream, peer, certificate, activity, closing)
                            .await;
                    }
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
                }
            }
        }
    }

    async fn requests<S>(
        self: Arc<Self>,
        stream: S,
        peer: SocketAddr,
        certificate: Option<Arc<Certificate>>,
        activity: Activity,
        closing: watch::Receiver<bool>,
    ) where
        S: AsyncRead + Direct + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(Streams {
            limit: self.limits.stall_timeout,
        });
        builder
            .http1()
            .timer(TokioTimer::new())
            // `Activity::idle` bounds that: hyper's clock would not see the requests that are answered before it.
            .header_read_timeout(None)
            .max_headers(HEADERS_MAX)
            .max_buf_size(self.limits.head_max().max(READ_BYTES_MAX))
            .half_close(false);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(128)
            .max_header_list_size(u32::try_from(self.limits.max_header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(WRITE_BUFFER_MAX)
            .keep_alive_interval(self.limits.header_timeout)
            .keep_alive_timeout(self.limits.stall_timeout);
        let _company = Company::join();
        let _connected = self.metrics.clients().connected(peer.ip().to_canonical());
        let io_client = self.recorder.client_id(&peer.ip().to_string());
        let front = Arc::clone(&self);
        let visitor = Visitor {
            front: Arc::clone(&self),
            peer,
            certificate: certificate.clone(),
            io_client,
        };
        let stream = Lane::new(stream, visitor, activity.clone(), self.limits.head_max());
        let seen = activity.clone();
        let service = service_fn(move |request| {
            let (front, certificate) = (Arc::clone(&front), certificate.clone());
            let busy = seen.begin();
            let shares = request.version() == http::Version::HTTP_2;
            if shares {
                seen.speaks_frames();
            }
            let company = shares.then(Company::join);
            async move {
                let response = front
                    .answer(request, peer, certificate, io_client, busy)
                    .await;
                drop(company);
                Ok::<_, Infallible>(match shares {
                    true => response.map(Paced::wrap),
                    false => response,
                })
            }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let connection = connection.into_owned();
        let ended =
            closing::until_closed(connection, |c| c.graceful_shutdown(), &activity, closing);
        // Hyper's limits begin with a request's first line (HTTP/1) or never (HTTP/2): a connection on which
        // nothing is asked must not hold its slot.
        match activity.bound(self.limits.header_timeout, ended).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%peer, %error, "connection ended"),
            None => tracing::debug!(%peer, "connection closed: no request for too long"),
        }
    }

    /// Answers a plain request for what is in memory, or for a small file of pools, on the connection's own thread.
    fn quick(
        &self,
        ask: Ask<'_>,
        files: bool,
        visitor: &Visitor,
        out: &mut Vec<u8>,
    ) -> Option<Answer> {
        if self.stopping.load(Ordering::Relaxed) || ask.target.len() > PATH_MAX {
            return None;
        }
        let dav = self.dav.get()?;
        let certified = visitor.certificate.as_ref();
        let user = match certified.and_then(|c| self.users.recall_certificate(c)) {
            Some(user) => Some(user),
            None if !self.users.required() => None,
            None => Some(self.users.recall(ask.authorization?)?),
        };
        let asker = (user.as_deref(), visitor.io_client);
        let answer = match ask.wish {
            Wish::Content(wanted) => match dav.quick((wanted, files), ask.target, asker, out) {
                Some(answer) => answer,
                None if wanted == Wanted::Whole => {
                    return self.later(dav, ask.target, user, visitor);
                }
                None => return None,
            },
            Wish::Properties(asked) => dav.quick_properties(asked, ask.target, asker, out)?,
        };
        let asked = Asked {
            method: answer.method,
            path: ask.target,
            peer: visitor.peer,
        };
        Some(match answer.content {
            Content::Memory(bytes) => {
                let sent = bytes.len() as u64;
                asked.at_once(self, user.as_deref(), answer.account, sent);
                Answer::Now(bytes)
            }
            Content::File(file) => {
                let front = Arc::clone(&visitor.front);
                Answer::Sent(file, asked.once_sent(front, user, answer.account))
            }
        })
    }

    /// Begins to answer a GET of a small file of pools.
    fn later(
        &self,
        dav: &Arc<Dav>,
        target: &str,
        user: Option<Arc<User>>,
        visitor: &Visitor,
    ) -> Option<Answer> {
        let reading = dav.quick_pooled(target, (user.as_deref(), visitor.io_client))?;
        let running = self.metrics.request_started();
        let front = Arc::clone(&visitor.front);
        let (path, peer) = (target.to_owned(), visitor.peer);
        Some(Answer::Later(Box::pin(async move {
            let (head, content, reply) = reading.await;
            let asked = Asked {
                method: reply.method,
                path: &path,
                peer,
            };
            let sent = content.len() as u64;
            asked.at_once(&front, user.as_deref(), reply.account, sent);
            drop(running);
            (head, content)
        })))
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        certificate: Option<Arc<Certificate>>,
        io_client: u32,
        busy: Busy,
    ) -> Response<Body> {
        let entry = Entry::new(&self, &request, peer);
        let (user, dav) = match self.admit(&request, peer, certificate).await {
            Ok(user) => (user, self.dav.get().ok_or_else(starting)),
            Err(refused) => (None, Err(refused)),
        };
        let response = match dav {
            Ok(dav) => {
                let ctx = RequestContext {
                    client: peer,
                    user: user.clone(),
                    io_client,
                    started: entry.started(),
                };
                dav.handle(ctx, request).await
            }
            Err(refused) => {
                // A stop waits for nobody's upload.
                if !self.stopping.load(Ordering::Relaxed) {
                    let (head, body) = request.into_parts();
                    dav::body::Incoming::new(body, &head.headers, self.limits.stall_timeout)
                        .discard();
                }
                refused
            }
        };
        entry.finish(self, user.as_deref(), busy, response)
    }

    /// Everything that can refuse a request before the protocol sees it.
    async fn admit(
        &self,
        request: &Request<Incoming>,
        peer: SocketAddr,
        certificate: Option<Arc<Certificate>>,
    ) -> Result<Option<Arc<User>>, Response<Body>> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(unavailable("the server is stopping"));
        }
        if path_len(request.uri()) > PATH_MAX {
            return Err(refusal(StatusCode::URI_TOO_LONG, "the path is too long"));
        }
        if head_len(request) > self.limits.head_max() {
            return Err(refusal(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request's headers are too long",
            ));
        }
        let hosts = request.headers().get_all(header::HOST).iter().count();
        if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
            return Err(refusal(
                StatusCode::BAD_REQUEST,
                "a request has one Host field",
            ));
        }
        if request.method() == Method::CONNECT {
            return Err(refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "CONNECT is not served",
            ));
        }
        if let Some(certificate) = certificate
            && let Some(user) = self.users.judge_certificate(&certificate).await
        {
            return Ok(Some(user));
        }
        match self.users.judge(request.headers(), peer.ip()).await {
            Verdict::Anonymous => Ok(None),
            Verdict::Known(user) => Ok(Some(user)),
            Verdict::Wait => {
                self.metrics.login_failed(LoginFailure::RateLimited);
                Err(unavailable(
                    "too many failed logins with this name from this address",
                ))
            }
            verdict @ (Verdict::Denied | Verdict::Malformed) => {
                if matches!(verdict, Verdict::Malformed) {
                    self.metrics.login_failed(LoginFailure::Malformed);
                } else if request.headers().contains_key(header::AUTHORIZATION) {
                    self.metrics.login_failed(LoginFailure::BadCredentials);
                }
                let mut response = refusal(
                    StatusCode::UNAUTHORIZED,
                    "a user name and password are needed",
                );
                let challenge =
                    HeaderValue::from_static("Basic realm=\"TierDAV\", charset=\"UTF-8\"");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, challenge);
                Err(response)
            }
        }
    }
}

fn starting() -> Response<Body> {
    unavailable("starting: the storage does not answer yet")
}

/// Who is at the other end of a connection.
struct Visitor {
    front: Arc<Front>,
    peer: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    io_client: u32,
}

impl Quick for Visitor {
    fn answer(&self, ask: Ask<'_>, files: bool, out: &mut Vec<u8>) -> Option<Answer> {
        self.front.quick(ask, files, self, out)
    }
}

fn path_len(uri: &Uri) -> usize {
    uri.path_and_query().map_or(0, |p| p.as_str().len())
}

/// Bytes of the request line and the headers, as far as they vary.
fn head_len(request: &Request<Incoming>) -> usize {
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    path_len(request.uri()) + fields.sum::<usize>()
}

/// A short text reply.
pub fn refusal(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(dav::body::full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// Trouble of ours: 503 with Retry-After, which davfs2 takes as "later" (a 4xx would cost the user's file).
pub fn unavailable(text: &'static str) -> Response<Body> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, text);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}
