//! GET and HEAD of a small file that is in memory, without a request, a reply or a body of hyper's.
//!
//! The head of a reply that [`get`](super::get) gave is kept with the content it sent; asked plainly for the same again, the
//! same is said again. Whatever is not plain, or needs more than a look at the file's attributes, goes the usual way.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Response;
use http::header::HeaderMap;
use tiering::Tier;
use tiering::trace::{Op, Record};

use super::body::Body;
use super::{Call, Dav, User, guard, uri};
use crate::metrics;
use crate::objects::IoContext;
use crate::volume::{Meta, ResourcePath};

/// An answer: its head was written, the content follows.
pub struct QuickReply {
    /// Empty for HEAD.
    pub content: Bytes,
    /// The tier of the content.
    pub tier: Option<Tier>,
    /// From the request to the answer.
    pub latency: Duration,
}

impl Dav {
    /// Answers a GET, or HEAD, of `target` that has no conditions, ranges or body: writes the reply's head to `out` and returns the
    /// content. `None`: ask [`Dav::handle`]; `out` is as it was.
    pub fn quick(
        &self,
        head: bool,
        target: &str,
        user: Option<&User>,
        io_client: u32,
        out: &mut Vec<u8>,
    ) -> Option<QuickReply> {
        let started = self.recorder.now();
        let root = user.map_or_else(ResourcePath::root, |u| u.root.clone());
        let target = uri::target(target, &root).ok().filter(|t| !t.slash)?;
        let hot = self.volume.hot(&target.path)?;
        if self.locks.due(guard::now()) {
            return None;
        }
        let io = IoContext {
            client: io_client,
            path: self.recorder.path_id(&target.path.to_string()),
        };
        let (method, op, tier, content) = if head {
            (metrics::Method::Head, Op::Head, None, Bytes::new())
        } else {
            let tier = self.volume.hot_read(&hot, started, io)?;
            // The tier of no bytes is none.
            let tier = (!hot.content.is_empty()).then_some(tier);
            (metrics::Method::Get, Op::Get, tier, hot.content.clone())
        };
        out.extend_from_slice(&hot.head);
        date(out);
        let latency_ns = self.recorder.now().0.saturating_sub(started.0);
        let record = Record {
            at_ns: started.0,
            client: io.client,
            op,
            path: io.path,
            path2: 0,
            file: hot.file,
            object: u32::MAX,
            offset: 0,
            len: hot.content.len() as u64,
            tier: tier.into(),
            latency_ns,
            status: 200,
        };
        self.note(method, 0, content.len() as u64, record);
        Some(QuickReply {
            content,
            tier,
            latency: Duration::from_nanos(latency_ns),
        })
    }
}

impl Call<'_> {
    /// Keeps a whole content that was just sent, and the head it was sent with.
    pub(super) fn keep_hot(&self, meta: &Meta, response: &Response<Body>, content: &Bytes) {
        let head = || Bytes::from(rendered(response.headers()));
        let volume = &self.dav.volume;
        volume.keep_hot(&self.target.path, meta, head, content);
    }
}

/// The head of a 200 as hyper writes it, up to the date.
fn rendered(headers: &HeaderMap) -> Vec<u8> {
    let mut out = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The end of a head: the date, rendered once a second and thread.
fn date(out: &mut Vec<u8>) {
    thread_local! {
        static RENDERED: std::cell::RefCell<(u64, String)> = const { std::cell::RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let second = since.map_or(0, |d| d.as_secs());
    RENDERED.with_borrow_mut(|(of, text)| {
        if *of != second || text.is_empty() {
            *of = second;
            *text = format!("date: {}\r\n\r\n", httpdate::fmt_http_date(now));
        }
        out.extend_from_slice(text.as_bytes());
    });
}
