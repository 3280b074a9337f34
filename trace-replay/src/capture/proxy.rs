//! A transparent proxy: passes requests and answers on as they stream, and records them.
//!
//! Each client's connection has its own connection to the server, so that order, keep-alive and connection-bound
//! logins stay as they are without us.

use super::record::{Recorder, Ticket, Watched};
use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore};

/// Connections of clients at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 1024;
/// Wait after a connection could not be accepted, for example for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Headers of one hop (RFC 9110, 7.6.1), which are not passed on.
const HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // Answered here, when the body is asked for.
    "expect",
];

type Passed = UnsyncBoxBody<Bytes, hyper::Error>;

/// Where to listen and where to pass on.
#[derive(Debug, Clone)]
pub struct Route {
    listen: SocketAddr,
    authority: String,
}

impl std::str::FromStr for Route {
    type Err = String;
    fn from_str(text: &str) -> Result<Route, String> {
        let (listen, target) = text
            .split_once('=')
            .ok_or("expected LISTEN=TARGET, for example 127.0.0.1:8080=http://127.0.0.1:4918")?;
        let listen = listen
            .to_socket_addrs()
            .map_err(|e| format!("`{listen}` is no address to listen on: {e}"))?
            .next()
            .ok_or_else(|| format!("`{listen}` is no address to listen on"))?;
        let uri: Uri = target.parse().map_err(|e| format!("`{target}`: {e}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("`{target}`: only http:// servers can be recorded"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!(
                "`{target}`: give host and port only; paths stay as clients ask for them"
            ));
        }
        let host = uri.host().ok_or_else(|| format!("`{target}`: no host"))?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        Ok(Route { listen, authority })
    }
}

impl Route {
    /// Takes the address; clients wait from now on.
    ///
    /// # Errors
    /// When it is taken or not ours.
    pub fn bind(&self) -> anyhow::Result<TcpListener> {
        crate::calls::raise_descriptor_limit();
        let listener = TcpListener::bind(self.listen)
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        listener.set_nonblocking(true)?;
        crate::cli::tell(format_args!(
            "http://{} passes on to http://{}; Ctrl-C ends the recording\n",
            listener.local_addr()?,
            self.authority
        ));
        Ok(listener)
    }

    /// Serves until `end`, then lets running requests finish.
    pub async fn serve(
        &self,
        listener: TcpListener,
        recorder: Arc<Recorder>,
        end: impl Future<Output = anyhow::Result<u8>>,
    ) -> anyhow::Result<u8> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        tokio::pin!(end);
        let status = loop {
            let next = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                status = &mut end => break status?,
                next = next => next,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Without it small answers wait for the client's acknowledgement; a stream that refuses works, too.
            let _ = stream.set_nodelay(true);
            let hop = Arc::new(Hop {
                authority: self.authority.clone(),
                peer: recorder.connection(peer.ip()),
                recorder: recorder.clone(),
                upstream: Mutex::default(),
            });
            let service = service_fn(move |request| {
                let hop = hop.clone();
                async move { Ok::<_, Infallible>(hop.pass(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .preserve_header_case(true)
                .serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                // How a client's connection ends is the client's business; its requests are recorded.
                let _ = connection.await;
                drop(place);
            });
        };
        drop(listener);
        graceful.shutdown().await;
        Ok(status)
    }
}

/// One client's connection and its counterpart.
struct Hop {
    authority: String,
    peer: super::record::Peer,
    recorder: Arc<Recorder>,
    upstream: Mutex<Option<SendRequest<Watched<Incoming>>>>,
}

impl Hop {
    async fn pass(&self, request: Request<Incoming>) -> Response<Passed> {
        let mut ticket = self.recorder.begin(&self.peer, &request);
        match self.forward(request, &ticket).await {
            Ok(mut response) => {
                strip(response.headers_mut());
                ticket.answered(response.status(), response.headers());
                response.map(|body| Watched::answer(body, ticket).boxed_unsync())
            }
            Err(e) => {
                let text = format!("trace-replay: http://{}: {e:#}\n", self.authority);
                ticket.unanswered();
                let body = Full::new(Bytes::from(text)).map_err(|e| match e {});
                let mut response = Response::new(body.boxed_unsync());
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        }
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        ticket: &Ticket,
    ) -> anyhow::Result<Response<Incoming>> {
        strip(request.headers_mut());
        *request.version_mut() = Version::HTTP_11;
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        *request.uri_mut() = path.parse()?;
        if !request.headers().contains_key(header::HOST) {
            let host = HeaderValue::from_str(&self.authority)?;
            request.headers_mut().insert(header::HOST, host);
        }
        let mut request = request.map(|body| Watched::upload(body, ticket));
        // Held to the head of the answer: HTTP/1.1 has one request at a time on a connection.
        let mut upstream = self.upstream.lock().await;
        for fresh in [false, true] {
            let mut sender = match upstream.take() {
                Some(sender) if !fresh => sender,
                _ => self.connect().await?,
            };
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    *upstream = Some(sender);
                    return Ok(response);
                }
                // A connection that was closed while it was idle takes nothing: the request is still whole.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        }
        bail!("closes connections before they are used")
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Watched<Incoming>>> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .context("cannot connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Removes what belongs to one hop, also what `Connection` names.
fn strip(headers: &mut http::HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP {
        headers.remove(name);
    }
}
