//! The second listener: health, readiness, metrics, status, policy, locks, drain, and a page to look at. Never under the WebDAV root.
//!
//! It has no login: whoever reaches it may do all that it does. A browser reaches it for every site that it shows, so what
//! other sites ask for is refused: changes by `Origin` and `Sec-Fetch-Site`, and on loopback names that are not its own.

mod chart;
pub mod client;
mod door;
pub mod faults;
mod page;
pub mod policy;
pub mod status;
pub(crate) mod words;

pub use door::Door;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Serialize;

use crate::config::Live;
use crate::dav::Dav;
use crate::metrics::{self, Metrics, Window};
use crate::objects::ObjectCache;
use crate::reload::Reload;
use crate::volume::Volume;

pub use status::{Place, Status};

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
    /// What POST /reload reads again.
    pub reload: Arc<Reload>,
    /// When the server started.
    pub started: Instant,
    /// Where WebDAV is served.
    pub serving: String,
    /// What may change while it runs.
    pub live: Arc<Live>,
    /// The last hour.
    pub window: Window,
    /// Where the tiers are.
    pub places: Mutex<Vec<Place>>,
    /// What went wrong lately in the cache pool and the data pool.
    pub faults: Mutex<[faults::Recent; 2]>,
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
fn later(body: impl Into<Bytes>) -> Reply {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, body);
    let seconds = HeaderValue::from_static("2");
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

fn metrics_page(metrics: &Metrics) -> Reply {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    reply(StatusCode::OK, content_type, metrics.render())
}

fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => reply(StatusCode::OK, "application/json", body),
        Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
    }
}

fn see_other(location: &'static str) -> Reply {
    let mut response = text(StatusCode::SEE_OTHER, format!("see {location}\n"));
    response
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static(location));
    response
}

/// Refuses what a browser sends for another site. A name that leads here is a trick (DNS rebinding) unless it is loopback's own: on
/// loopback (`local`) always, elsewhere where a browser would change something. To what asks without one, any name is right.
fn guard<B>(request: &Request<B>, local: bool) -> Result<(), &'static str> {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let host = header("host").unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    let own = name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || literal.parse::<std::net::IpAddr>().is_ok();
    if local && !own {
        return Err("this listener is on loopback: ask for it as localhost or by its address\n");
    }
    if matches!(request.method(), &Method::GET | &Method::HEAD) {
        return Ok(());
    }
    let foreign = |origin: &str| origin.split_once("://").is_none_or(|(_, at)| at != host);
    let (origin, site) = (request.headers().get("origin"), header("sec-fetch-site"));
    if origin.is_some_and(|o| o.to_str().map_or(true, foreign))
        || site.is_some_and(|s| s != "same-origin" && s != "none")
    {
        return Err("another web site asks for this: refused\n");
    }
    if (origin.is_some() || site.is_some()) && !own {
        return Err(
            "a browser may change something under an IP address or localhost only: ask for it there (kubectl port-forward), or with curl\n",
        );
    }
    Ok(())
}

impl Admin {
    /// Keeps the last hour, and asks the pools how they are, until the server stops.
    async fn watch(self: Arc<Self>) {
        let mut step = tokio::time::interval(metrics::STEP);
        step.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.ask_pools().await;
        step.reset();
        while !self.stopping.load(Ordering::Relaxed) {
            step.tick().await;
            self.window.step(&self.metrics);
            tokio::spawn({
                let admin = Arc::clone(&self);
                async move { admin.ask_pools().await }
            });
        }
    }

    fn ready(&self) -> bool {
        self.volume.ready() && !self.stopping.load(Ordering::Relaxed)
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Reply {
        let path = request.uri().path();
        if matches!(path, "/" | "/.tierdav") {
            return see_other("/.tierdav/");
        }
        let Some(name) = path.strip_prefix("/.tierdav/") else {
            return text(
                StatusCode::NOT_FOUND,
                "try /.tierdav/ for a page, or /.tierdav/health, ready, metrics, status, history, policy or locks\n",
            );
        };
        match (request.method(), name.trim_end_matches('/')) {
            (&Method::GET | &Method::HEAD, "") => {
                let steps = self.window.steps(&self.metrics);
                page::reply(&self.status().await, &steps)
            }
            (&Method::GET | &Method::HEAD, "page.css") => page::style(),
            (&Method::GET | &Method::HEAD, "page.js") => page::script(),
            (&Method::GET | &Method::HEAD, "health") => text(StatusCode::OK, "ok\n"),
            (&Method::GET | &Method::HEAD, "ready") if self.ready() => {
                text(StatusCode::OK, "ready\n")
            }
            (&Method::GET | &Method::HEAD, "ready") => later("starting or stopping\n"),
            // The tiers are being closed.
            (&Method::POST | &Method::DELETE, _) if self.stopping.load(Ordering::Relaxed) => {
                later("stopping\n")
            }
            (&Method::GET, "metrics") => metrics_page(&self.metrics),
            (&Method::GET, "status") => json(&self.status().await),
            (&Method::GET, "history") => json(&self.window.steps(&self.metrics)),
            (&Method::GET, "locks") => json(&self.dav.locks()),
            (&Method::GET | &Method::POST, "policy") => self.policy_page(request).await,
            (&Method::DELETE, "locks") => self.break_lock(&request).await,
            (&Method::POST, "drain") => self.drain().await,
            (&Method::POST, "reload") => {
                let done = self.reload.run().await;
                match done.failed {
                    false => text(StatusCode::OK, done.said),
                    true => text(StatusCode::BAD_REQUEST, done.said),
                }
            }
            (
                _,
                "" | "page.css" | "page.js" | "health" | "ready" | "metrics" | "status" | "history"
                | "locks" | "drain" | "reload" | "policy",
            ) => text(StatusCode::METHOD_NOT_ALLOWED, "not this method\n"),
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
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
                    "{} objects or files could not be flushed (the log says why): the cache tier is still needed\n",
                    report.failed
                );
                self::text(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
            Ok(report) => json(&report),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn asked(method: &str, headers: &[(&str, &str)], local: bool) -> bool {
        let mut request = Request::builder().method(method).uri("/.tierdav/drain");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard(&request.body(()).unwrap(), local).is_ok()
    }

    #[test]
    fn other_web_sites_can_neither_change_nor_read_anything() {
        let host = ("host", "127.0.0.1:4919");
        assert!(asked("POST", &[host], true));
        assert!(asked("POST", &[], true));
        assert!(asked(
            "POST",
            &[host, ("origin", "http://127.0.0.1:4919")],
            true
        ));
        assert!(!asked(
            "POST",
            &[host, ("origin", "http://evil.example")],
            true
        ));
        assert!(!asked("POST", &[host, ("origin", "null")], false));
        assert!(!asked(
            "DELETE",
            &[host, ("sec-fetch-site", "cross-site")],
            false
        ));
        assert!(!asked("GET", &[("host", "rebound.example:4919")], true));
        assert!(asked("GET", &[("host", "tierdav.tierdav.svc:4919")], false));
        assert!(asked(
            "POST",
            &[("host", "tierdav.tierdav.svc:4919")],
            false
        ));
        // A name that its owner has just led here is the same site to a browser.
        let (rebound, address) = ("rebound.example:4919", "10.0.0.7:4919");
        for (host, own) in [(rebound, false), (address, true), ("localhost", true)] {
            let origin = format!("http://{host}");
            let headers = [("host", host), ("origin", &origin)];
            assert_eq!(asked("POST", &headers, false), own, "{host}");
            let headers = [("host", host), ("sec-fetch-site", "same-origin")];
            assert_eq!(asked("DELETE", &headers, false), own, "{host}");
        }
        for own in ["localhost", "LOCALHOST:4919", "[::1]:4919", "127.0.0.1"] {
            assert!(asked("GET", &[("host", own)], true), "{own}");
        }
    }
}
