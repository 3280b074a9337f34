//! Whole requests against a real volume in a temporary directory, without sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contents;
mod locking;
mod names;
mod properties;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use super::xml::{DAV, Element};
use super::{Body, Dav, DavOptions, RequestContext, User};
use crate::metrics::Metrics;
use crate::objects::{CacheOptions, Durability, ObjectCache};
use crate::recorder::Recorder;
use crate::volume::{ResourcePath, Volume, VolumeOptions};

/// A gateway whose state outlives `restart`.
pub struct Gateway {
    dir: tempfile::TempDir,
    opts: DavOptions,
    volume: Arc<Volume>,
    pub dav: Arc<Dav>,
    pub user: Option<Arc<User>>,
}

/// A reply, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub fn xml(&self) -> Element {
        Element::parse_up_to(usize::MAX, &self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Reply {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{:?} {}",
            self.headers,
            String::from_utf8_lossy(&self.body)
        );
        self
    }
}

async fn open(dir: &std::path::Path, opts: &DavOptions) -> (Arc<Volume>, Arc<Dav>) {
    let metrics = Arc::new(Metrics::default());
    let recorder = Recorder::disabled();
    let (root, cache_dir) = (dir.join("root"), dir.join("cache"));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(&cache_dir).unwrap();
    let cache_options = CacheOptions {
        cache_dir: Some(cache_dir.clone()),
        ..CacheOptions::uncached()
    };
    let cache = ObjectCache::open(cache_options, recorder.clone(), metrics).unwrap();
    let options = VolumeOptions {
        root,
        cache,
        log_dir: Some(cache_dir.join("log")),
        durability: Durability::Commit,
        symlinks: Default::default(),
        quota_bytes: None,
        assume_journal: false,
        ownership: None,
    };
    let volume = Volume::open(options).await.unwrap();
    let dav = Dav::new(Arc::clone(&volume), recorder, opts.clone())
        .await
        .unwrap();
    (volume, dav)
}

impl Gateway {
    pub async fn start() -> Gateway {
        Gateway::with(DavOptions::default()).await
    }

    pub async fn with(opts: DavOptions) -> Gateway {
        let dir = tempfile::tempdir().unwrap();
        let (volume, dav) = open(dir.path(), &opts).await;
        Gateway {
            dir,
            opts,
            volume,
            dav,
            user: None,
        }
    }

    pub async fn restart(self) -> Gateway {
        let Gateway {
            dir,
            opts,
            volume,
            dav,
            user,
        } = self;
        volume.shutdown().await.unwrap();
        drop((volume, dav));
        let (volume, dav) = open(dir.path(), &opts).await;
        Gateway {
            dir,
            opts,
            volume,
            dav,
            user,
        }
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    pub async fn raw<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<super::body::BoxError>,
    {
        let client = "127.0.0.1:1".parse().unwrap();
        let ctx = RequestContext {
            client,
            user: self.user.clone(),
            io_client: 0,
            started: tiering::Nanos(0),
        };
        self.dav.handle(ctx, request).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let body = body.into();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gw.test");
        if !body.is_empty() || method == "PUT" {
            request = request.header("content-length", body.len());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, body) = self
            .raw(request.body(Full::new(body)).unwrap())
            .await
            .into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        // RFC 9110 section 15.5.6.
        let allow = head.headers.get("allow").is_some();
        assert!(
            allow || head.status != StatusCode::METHOD_NOT_ALLOWED,
            "{method} {path}"
        );
        if let Some(len) = head
            .headers
            .get("content-length")
            .filter(|_| method != "HEAD")
        {
            assert_eq!(len.to_str().unwrap(), body.len().to_string());
        }
        Reply {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send("PUT", path, &[], body).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    pub async fn mkcol(&self, path: &str) -> Reply {
        self.send("MKCOL", path, &[], "").await
    }

    /// PROPFIND for the content of a `DAV:prop`.
    pub async fn propfind(&self, path: &str, depth: &str, prop: &str) -> Reply {
        let body = format!(r#"<propfind xmlns="DAV:"><prop>{prop}</prop></propfind>"#);
        self.send("PROPFIND", path, &[("depth", depth)], body).await
    }

    /// LOCK as davfs2 does it; returns the token.
    pub async fn lock(&self, path: &str, status: u16) -> String {
        self.lock_with(path, "exclusive", "0", status).await
    }

    pub async fn lock_with(&self, path: &str, scope: &str, depth: &str, status: u16) -> String {
        let body = format!(
            r#"<?xml version="1.0" encoding="utf-8"?><lockinfo xmlns="DAV:"><lockscope><{scope}/></lockscope><locktype><write/></locktype><owner>davfs2 1.6.1</owner></lockinfo>"#
        );
        let headers = [("depth", depth), ("timeout", "Second-1800")];
        let asked = std::time::Instant::now();
        let reply = self.send("LOCK", path, &headers, body).await.is(status);
        let token = reply
            .header("lock-token")
            .trim_matches(['<', '>'])
            .to_string();
        if status < 300 && reply.status != StatusCode::MULTI_STATUS {
            let xml = reply.xml();
            let active = xml
                .dav_child("lockdiscovery")
                .unwrap()
                .dav_child("activelock")
                .unwrap();
            let href = active
                .dav_child("locktoken")
                .unwrap()
                .dav_child("href")
                .unwrap();
            assert_eq!(href.text(), token);
            // What is left of it: the lock is as old as its record took to be on the disk.
            let left = active.dav_child("timeout").unwrap().text();
            let left: u64 = left.strip_prefix("Second-").unwrap().parse().unwrap();
            let least = 1799_u64.saturating_sub(asked.elapsed().as_secs());
            assert!((least..=1800).contains(&left), "{left}");
            assert_eq!(active.dav_child("owner").unwrap().text(), "davfs2 1.6.1");
        }
        token
    }
}

/// The text of a property in the 200 propstat of the response for `href`.
pub fn value(multistatus: &Element, href: &str, namespace: &str, name: &str) -> Option<String> {
    found(multistatus, href, namespace, name, "200").map(|e| e.text())
}

pub fn found(
    multistatus: &Element,
    href: &str,
    namespace: &str,
    name: &str,
    status: &str,
) -> Option<Element> {
    let response = multistatus
        .elements()
        .find(|r| r.dav_child("href").unwrap().text() == href)?;
    let stats = response.elements().filter(|e| e.is(DAV, "propstat"));
    let mut stats = stats.filter(|s| s.dav_child("status").unwrap().text().contains(status));
    stats.find_map(|s| {
        s.dav_child("prop")?
            .elements()
            .find(|e| e.is(namespace, name))
            .cloned()
    })
}

pub fn hrefs(multistatus: &Element) -> Vec<String> {
    multistatus
        .elements()
        .map(|r| r.dav_child("href").unwrap().text())
        .collect()
}
