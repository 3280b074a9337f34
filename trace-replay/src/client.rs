//! One keep-alive HTTP/1.1 connection to the target.

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls::Tls;

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Target {
    /// `host:port`.
    pub authority: Arc<str>,
    /// Path in front of every request's, without trailing slash.
    pub prefix: Arc<str>,
    /// Value of the Authorization header.
    pub authorization: Option<http::HeaderValue>,
    /// Set for https.
    pub tls: Option<Tls>,
}

/// Why a request got no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(Arc<str>, std::io::Error),
    /// The connection broke, or the answer was no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

impl Target {
    /// Takes `http[s]://host[:port][/path]`; the system's authorities vouch for https.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn parse(url: &str, prefix: &str) -> Result<Target, String> {
        Target::trusting(url, prefix, None)
    }

    /// The same; the authorities in a PEM file vouch for https.
    ///
    /// # Errors
    /// What is wrong with the address or the file.
    pub fn trusting(url: &str, prefix: &str, ca_file: Option<&Path>) -> Result<Target, String> {
        let uri: Uri = url.parse().map_err(|e| format!("--target {url}: {e}"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => {
                return Err(format!(
                    "--target {url}: an address begins with http:// or https://"
                ));
            }
        };
        let host = uri
            .host()
            .ok_or_else(|| format!("--target {url}: no host"))?;
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = secure
            .then(|| Tls::new(host, ca_file).map_err(|e| format!("--target {url}: {e}")))
            .transpose()?;
        let prefix = format!(
            "{}/{}",
            uri.path().trim_end_matches('/'),
            prefix.trim_matches('/')
        );
        Ok(Target {
            authority: format!("{host}:{port}").into(),
            prefix: prefix.trim_end_matches('/').into(),
            authorization: None,
            tls,
        })
    }

    /// The request target of a path below the prefix.
    pub fn request_path(&self, path: &str) -> String {
        use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
        const KEEP: &AsciiSet = &NON_ALPHANUMERIC
            .remove(b'/')
            .remove(b'-')
            .remove(b'.')
            .remove(b'_')
            .remove(b'~');
        format!("{}/{}", self.prefix, utf8_percent_encode(path, KEEP))
    }

    /// The absolute URL of a path, for Destination and If.
    pub fn url(&self, path: &str) -> String {
        format!("{}{}", self.origin(), self.request_path(path))
    }

    /// Scheme and authority.
    pub fn origin(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

/// A connection that is opened when needed and again after it broke.
pub struct Connection {
    target: Target,
    sender: Option<SendRequest<Body>>,
    /// Connections opened.
    pub opened: u64,
}

impl Connection {
    /// Opens nothing yet.
    pub fn new(target: Target) -> Connection {
        Connection {
            target,
            sender: None,
            opened: 0,
        }
    }

    /// Whether the next request goes over a connection that has been used before.
    pub fn is_reused(&self) -> bool {
        self.sender.as_ref().is_some_and(|s| !s.is_closed())
    }

    /// Sends one request and waits for the answer's head.
    pub async fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, ClientError> {
        if let Ok(host) = http::HeaderValue::from_str(&self.target.authority) {
            request.headers_mut().insert(http::header::HOST, host);
        }
        if let Some(authorization) = &self.target.authorization {
            request
                .headers_mut()
                .insert(http::header::AUTHORIZATION, authorization.clone());
        }
        let mut sender = match self.sender.take().filter(|s| !s.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        self.sender = Some(sender);
        Ok(response)
    }

    async fn connect(&mut self) -> Result<SendRequest<Body>, ClientError> {
        let failed = |e| ClientError::Connect(self.target.authority.clone(), e);
        let stream = TcpStream::connect(&*self.target.authority)
            .await
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let sender = match &self.target.tls {
            Some(tls) => speak(tls.connect(stream).await.map_err(failed)?).await?,
            None => speak(stream).await?,
        };
        self.opened += 1;
        Ok(sender)
    }

    /// Drops the connection: its answer was not read to the end.
    pub fn close(&mut self) {
        self.sender = None;
    }
}

/// HTTP over an open stream, in a task of its own.
async fn speak<S>(stream: S) -> Result<SendRequest<Body>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
