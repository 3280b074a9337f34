//! Bodies: small ready ones for replies, and the bounded, timed reading of requests'.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

use super::status::Refusal;
use super::xml::{Element, XmlError};

/// A reply's body.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;
/// Any error of a request's body.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A refused upload is read on and thrown away up to this length, so that its sender gets to see the reply.
const DRAIN_BYTES_MAX: u64 = 64 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|e| match e {}).boxed_unsync()
}

/// A body that is already there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|e| match e {})
        .boxed_unsync()
}

/// A request's body, read with an idle timeout and a bound on its length.
pub struct Incoming {
    body: UnsyncBoxBody<Bytes, BoxError>,
    idle_timeout: Duration,
    announced: Option<u64>,
    received: u64,
    max: Option<u64>,
    done: bool,
    expects_continue: bool,
}

impl Incoming {
    /// Wraps a body; its announced length is the `Content-Length` field, if any.
    pub fn new<B>(body: B, headers: &HeaderMap, idle_timeout: Duration) -> Incoming
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let done = body.is_end_stream();
        let expects_continue = headers.contains_key(header::EXPECT);
        let body = body.map_err(Into::into).boxed_unsync();
        Incoming {
            body,
            idle_timeout,
            announced,
            received: 0,
            max: None,
            done,
            expects_continue,
        }
    }

    /// Bounds the length; too long an announcement is refused at once.
    pub fn limit(&mut self, max: u64) -> Result<(), Refusal> {
        self.max = Some(max);
        if self.announced.is_some_and(|n| n > max) {
            Err(too_long(max))
        } else {
            Ok(())
        }
    }

    /// The length announced, if one was.
    pub fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Whether the client waits for `100 Continue` before it sends anything.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// False if it is known to be empty.
    pub fn may_have_bytes(&self) -> bool {
        !self.done && self.announced != Some(0)
    }

    /// Whether it has any. Of an announced body nothing is read; one without an announced length may turn out to be empty.
    pub async fn has_bytes(&mut self) -> Result<bool, Refusal> {
        if self.announced.is_some() || self.expects_continue {
            return Ok(self.may_have_bytes());
        }
        Ok(self.next().await?.is_some())
    }

    /// The next bytes, `None` at the end. A body that ends before its announced length is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        while !self.done {
            let frame = tokio::time::timeout(self.idle_timeout, self.body.frame());
            match frame.await {
                Err(_) => {
                    self.done = true;
                    return Err(Refusal::new(
                        StatusCode::REQUEST_TIMEOUT,
                        "request body stalled",
                    ));
                }
                Ok(None) => self.done = true,
                Ok(Some(Err(error))) => {
                    self.done = true;
                    tracing::debug!(error = &*error, "request body broke off");
                    return Err(Refusal::bad_request("request body broke off"));
                }
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if data.is_empty() {
                        continue;
                    }
                    self.received = self.received.saturating_add(data.len() as u64);
                    if let Some(max) = self.max.filter(|max| self.received > *max) {
                        return Err(too_long(max));
                    }
                    return Ok(Some(data));
                }
            }
        }
        match self.announced {
            Some(n) if n != self.received => Err(Refusal::bad_request(format!(
                "request body has {} bytes, {n} were announced",
                self.received
            ))),
            _ => Ok(None),
        }
    }

    /// Bytes read so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Reads a small body whole.
    pub async fn collect(&mut self, max: usize) -> Result<Vec<u8>, Refusal> {
        self.limit(max as u64)?;
        let mut bytes = Vec::new();
        while let Some(data) = self.next().await? {
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }

    /// Reads a small XML body; `None` if it is empty.
    pub async fn xml(&mut self, max: usize) -> Result<Option<Arc<Element>>, Refusal> {
        Ok(self.xml_as_sent(max).await?.1)
    }

    /// [`Incoming::xml`], and its bytes.
    pub async fn xml_as_sent(
        &mut self,
        max: usize,
    ) -> Result<(Bytes, Option<Arc<Element>>), Refusal> {
        let bytes = Bytes::from(self.collect(max).await?);
        if bytes.is_empty() {
            return Ok((bytes, None));
        }
        let parsed = Element::parse_again(&bytes).map_err(|e| match e {
            XmlError::Doctype => {
                Refusal::bad_request(e.to_string()).with_condition("<D:no-external-entities/>")
            }
            XmlError::Malformed(_) | XmlError::TooDeep => Refusal::bad_request(e.to_string()),
            XmlError::TooManyNames | XmlError::TooManyNodes => Refusal::too_large(e.to_string()),
        })?;
        Ok((bytes, Some(parsed)))
    }

    /// Gives up what was not read: reads on in the background within bounds, because a connection closed under a
    /// sending client loses the reply. A client that waits for `100 Continue` sends nothing.
    pub fn discard(mut self) {
        if self.done || (self.expects_continue && self.received == 0) {
            return;
        }
        tokio::spawn(async move {
            let drain = async {
                let mut drained = 0;
                while let Some(Ok(frame)) = self.body.frame().await {
                    drained += frame.data_ref().map_or(0, |d| d.len() as u64);
                    if drained > DRAIN_BYTES_MAX {
                        break;
                    }
                }
            };
            let _ = tokio::time::timeout(DRAIN_TIME_MAX, drain).await;
        });
    }
}

fn too_long(max: u64) -> Refusal {
    Refusal::too_large(format!("request body exceeds {max} bytes"))
}
