//! The second listener: health, readiness, metrics, status, locks, drain. Never under the WebDAV root.

pub mod client;
mod door;

pub use door::Door;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::dav::Dav;
use crate::metrics::Metrics;
use crate::objects::{CacheStatus, ObjectCache};
use crate::volume::Volume;

/// What the admin listener can see and do.
pub struct Admin {
    /// The namespace.
    pub volume: Arc<Volume>,
    /// The object cache.
    pub cache: Arc<ObjectCache>,
    /// The protocol engine, for its locks.
    pub dav: Arc<Dav>,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// Set while stopping.
    pub stopping: Arc<AtomicBool>,
    /// Rung by POST /reload.
    pub reload: Arc<Notify>,
    /// When the server started.
    pub started: Instant,
    /// Where WebDAV is served.
    pub serving: String,
}

/// What `tierdav status` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's version.
    pub version: String,
    /// Where WebDAV is served.
    pub serving: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Whether requests are served.
    pub ready: bool,
    /// Requests under way.
    pub in_flight: u64,
    /// Connections open.
    pub connections: u64,
    /// Locks held.
    pub locks: usize,
    /// The tiers.
    pub tiers: CacheStatus,
}

type Reply = Response<Full<Bytes>>;

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", body)
}

/// 503: it works again in a moment.
fn later(body: &'static str) -> Reply {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, body);
    let seconds = HeaderValue::from_static("2");
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => reply(StatusCode::OK, "application/json", body),
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
    }
}

impl Admin {
    fn ready(&self) -> bool {
        self.volume.ready() && !self.stopping.load(Ordering::Relaxed)
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path().trim_end_matches('/').to_string();
        let Some(name) = path.strip_prefix("/.tierdav/") else {
            return text(
                StatusCode::NOT_FOUND,
                "try /.tierdav/health, ready, metrics, status or locks\n",
            );
        };
        match (request.method(), name) {
            (&Method::GET | &Method::HEAD, "health") => text(StatusCode::OK, "ok\n"),
            (&Method::GET | &Method::HEAD, "ready") if self.ready() => {
                text(StatusCode::OK, "ready\n")
            }
            (&Method::GET | &Method::HEAD, "ready") => later("starting or stopping\n"),
            // The tiers are being closed.
            (&Method::POST | &Method::DELETE, _) if self.stopping.load(Ordering::Relaxed) => {
                later("stopping\n")
            }
            (&Method::GET, "metrics") => reply(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                self.metrics.render(),
            ),
            (&Method::GET, "status") => json(&self.status()),
            (&Method::GET, "locks") => json(&self.dav.locks()),
            (&Method::DELETE, "locks") => self.break_lock(&request).await,
            (&Method::POST, "drain") => self.drain().await,
            (&Method::POST, "reload") => {
                self.reload.notify_one();
                text(
                    StatusCode::ACCEPTED,
                    "certificates and users are being read again\n",
                )
            }
            (_, "health" | "ready" | "metrics" | "status" | "locks" | "drain" | "reload") => {
                text(StatusCode::METHOD_NOT_ALLOWED, "not this method\n")
            }
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            serving: self.serving.clone(),
            uptime_s: self.started.elapsed().as_secs(),
            ready: self.ready(),
            in_flight: self.metrics.in_flight(),
            connections: self.metrics.connections(),
            locks: self.dav.locks().len(),
            tiers: self.cache.status(),
        }
    }

    async fn break_lock(&self, request: &Request<Incoming>) -> Reply {
        let query = request.uri().query().unwrap_or_default();
        let token = query.split('&').find_map(|p| p.strip_prefix("token="));
        let Some(token) = token else {
            return text(StatusCode::BAD_REQUEST, "say ?token=…\n");
        };
        let token = percent_encoding::percent_decode_str(token).decode_utf8_lossy();
        if self.dav.break_lock(&token).await {
            tracing::warn!(%token, "lock broken by the administrator");
            text(StatusCode::OK, "broken\n")
        } else {
            text(StatusCode::NOT_FOUND, "no lock has this token\n")
        }
    }

    async fn drain(&self) -> Reply {
        match self.cache.drain_running().await {
            Ok(report) if report.failed > 0 => {
                let text = format!(
                    "{} objects could not be flushed: they are in the cache tier only\n",
                    report.failed
                );
                self::text(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
            Ok(report) => json(&report),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}
