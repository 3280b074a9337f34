use std::collections::HashSet;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::StreamBody;

use super::super::put::PATCH_TYPE;
use super::*;

#[tokio::test]
async fn options_say_class_1_2_and_3() {
    let gw = Gateway::start().await;
    let r = gw.send("OPTIONS", "/", &[], "").await.is(200);
    assert!(r.header("dav").starts_with("1, 2, 3"));
    assert_eq!(r.header("ms-author-via"), "DAV");
    assert!(r.header("allow").contains("PROPFIND") && r.header("allow").contains("LOCK"));
    gw.send("OPTIONS", "*", &[], "").await.is(200);
    gw.send("POST", "/", &[], "").await.is(405);
    gw.send("BREW", "/", &[], "").await.is(501);
}

#[tokio::test]
async fn twenty_puts_of_one_size_have_twenty_tags() {
    let gw = Gateway::start().await;
    let mut tags = HashSet::new();
    for i in 0..20 {
        let put = gw.put("/same", format!("{i:04}")).await;
        let head = gw.send("HEAD", "/same", &[], "").await;
        assert_eq!(put.header("etag"), head.header("etag"));
        tags.insert(put.header("etag").to_string());
    }
    assert_eq!(tags.len(), 20);
}

#[tokio::test]
async fn tags_survive_move_and_restart_and_conditions_are_kept() {
    let gw = Gateway::start().await;
    let etag = gw.put("/a", "1").await.is(201).header("etag").to_string();
    gw.send("MOVE", "/a", &[("destination", "https://gw.test/b")], "")
        .await
        .is(201);
    let gw = gw.restart().await;
    assert_eq!(gw.send("HEAD", "/b", &[], "").await.header("etag"), etag);
    let not_modified = gw
        .send("GET", "/b", &[("if-none-match", &etag)], "")
        .await
        .is(304);
    assert_eq!(
        (not_modified.header("etag"), not_modified.body.len()),
        (etag.as_str(), 0)
    );
    let since = gw
        .send("HEAD", "/b", &[], "")
        .await
        .header("last-modified")
        .to_string();
    gw.send("GET", "/b", &[("if-modified-since", &since)], "")
        .await
        .is(304);
    gw.send(
        "GET",
        "/b",
        &[
            ("if-modified-since", &since),
            ("if-none-match", "\"other\""),
        ],
        "",
    )
    .await
    .is(200);
    gw.send("GET", "/b", &[("if-match", "\"other\"")], "")
        .await
        .is(412);
    gw.send("GET", "/b", &[("if-match", &format!("W/{etag}"))], "")
        .await
        .is(412);
    gw.send(
        "GET",
        "/b",
        &[("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")],
        "",
    )
    .await
    .is(412);
    gw.send("PUT", "/b", &[("if-match", "\"other\"")], "2")
        .await
        .is(412);
    gw.send("PUT", "/b", &[("if-none-match", "*")], "2")
        .await
        .is(412);
    gw.send("PUT", "/new", &[("if-match", "*")], "2")
        .await
        .is(412);
    gw.send("DELETE", "/b", &[("if-match", "\"other\"")], "")
        .await
        .is(412);
    gw.send("PUT", "/b", &[("if-match", &format!("\"x\", {etag}"))], "2")
        .await
        .is(204);
}

#[tokio::test]
async fn ranges_single_and_several() {
    let gw = Gateway::start().await;
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let etag = gw
        .put("/r.png", content.clone())
        .await
        .is(201)
        .header("etag")
        .to_string();
    assert_eq!(gw.get("/r.png").await.is(200).body, content);
    let one = gw
        .send("GET", "/r.png", &[("range", "bytes=1000000-2999999")], "")
        .await
        .is(206);
    assert_eq!(one.header("content-range"), "bytes 1000000-2999999/3000000");
    assert_eq!(one.body, content[1_000_000..]);
    let several = gw
        .send("GET", "/r.png", &[("range", "bytes=0-1,5-6,-2")], "")
        .await
        .is(206);
    let boundary = several
        .header("content-type")
        .split("boundary=")
        .nth(1)
        .unwrap()
        .to_string();
    let parts: Vec<Vec<u8>> = split(&several.body, format!("--{boundary}").as_bytes());
    let bodies: Vec<&[u8]> = parts[1..4]
        .iter()
        .map(|p| &p[find(p, b"\r\n\r\n") + 4..p.len() - 2])
        .collect();
    assert_eq!(
        bodies,
        [&content[0..2], &content[5..7], &content[2_999_998..]]
    );
    assert!(
        String::from_utf8_lossy(&parts[1])
            .contains("Content-Type: image/png\r\nContent-Range: bytes 0-1/3000000")
    );
    gw.send("GET", "/r.png", &[("range", "bytes=3000000-")], "")
        .await
        .is(416);
    gw.send(
        "GET",
        "/r.png",
        &[("range", "bytes=0-1"), ("if-range", &etag)],
        "",
    )
    .await
    .is(206);
    gw.send(
        "GET",
        "/r.png",
        &[("range", "bytes=0-1"), ("if-range", "\"other\"")],
        "",
    )
    .await
    .is(200);
    let head = gw.send("HEAD", "/r.png", &[], "").await.is(200);
    // Another version of the same second would have the same date.
    let date = head.header("last-modified").to_string();
    let dated = [("range", "bytes=0-1"), ("if-range", date.as_str())];
    gw.send("GET", "/r.png", &dated, "").await.is(200);
    assert_eq!(
        (head.header("content-length"), head.header("accept-ranges")),
        ("3000000", "bytes")
    );
    assert_eq!(gw.put("/empty", "").await.is(201).header("etag").len(), 18);
    assert_eq!(gw.get("/empty").await.is(200).header("content-length"), "0");
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap()
}

fn split(bytes: &[u8], by: &[u8]) -> Vec<Vec<u8>> {
    let mut out = vec![Vec::new()];
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i..].starts_with(by) {
            out.push(Vec::new());
            i += by.len();
        } else {
            out.last_mut().unwrap().push(bytes[i]);
            i += 1;
        }
    }
    out
}

#[tokio::test]
async fn an_upload_that_ends_early_leaves_the_old_content() {
    let gw = Gateway::start().await;
    gw.put("/f", "old").await.is(201);
    let short = Request::put("/f")
        .header("content-length", 100)
        .body(Full::new(Bytes::from_static(b"short")))
        .unwrap();
    assert_eq!(gw.raw(short).await.status(), 400);
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"part"))),
        Err(std::io::Error::other("gone")),
    ];
    let broken = Request::put("/f")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    assert_eq!(gw.raw(broken).await.status(), 400);
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"part"))),
        Err(std::io::Error::other("gone")),
    ];
    let broken = Request::put("/new")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    assert_eq!(gw.raw(broken).await.status(), 400);
    assert_eq!(gw.get("/f").await.text(), "old");
    gw.get("/new").await.is(404);
    // Discarding runs behind the reply.
    let litter = || {
        std::fs::read_dir(gw.root().join(".tierdav/tmp"))
            .unwrap()
            .count()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while litter() > 0 {
        assert!(std::time::Instant::now() < deadline, "litter stays");
        tokio::task::yield_now().await;
    }
    // Without Content-Length (chunked), as the macOS Finder sends it.
    let frames = [Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(
        b"chunked",
    )))];
    let chunked = Request::put("/f")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    assert_eq!(gw.raw(chunked).await.status(), 204);
    assert_eq!(gw.get("/f").await.text(), "chunked");
}

#[tokio::test]
async fn a_running_get_ends_with_the_version_it_began_with() {
    let gw = Gateway::start().await;
    let old = vec![1u8; 9_000_000];
    gw.put("/f", old.clone()).await.is(201);
    let request = Request::get("/f").body(Full::new(Bytes::new())).unwrap();
    let running = gw.raw(request).await;
    gw.put("/f", vec![2u8; 5]).await.is(204);
    assert_eq!(running.into_body().collect().await.unwrap().to_bytes(), old);
    assert_eq!(gw.get("/f").await.body, vec![2u8; 5]);
}

/// A body that must not be read.
struct Untouched;

impl http_body::Body for Untouched {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        panic!("read");
    }
}

#[tokio::test]
async fn refusals_come_before_the_body() {
    let gw = Gateway::with(DavOptions {
        max_body_bytes: Some(10),
        ..DavOptions::default()
    })
    .await;
    gw.put("/f", "x").await.is(201);
    for (method, path, header, status) in [
        ("PROPFIND", "/", ("content-length", "33554432"), 413),
        ("PROPPATCH", "/f", ("content-length", "33554432"), 413),
        ("LOCK", "/f", ("content-length", "33554432"), 413),
        ("PUT", "/f", ("content-length", "11"), 413),
        ("PUT", "/f", ("if-none-match", "*"), 412),
        ("PUT", "/no/f", ("x-nothing", ""), 409),
        ("PUT", "/", ("x-nothing", ""), 405),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header.0, header.1);
        let request = request
            .header("expect", "100-continue")
            .body(Untouched)
            .unwrap();
        assert_eq!(gw.raw(request).await.status(), status, "{method} {path}");
    }
    // One byte too many, unannounced.
    let frames = [Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(
        b"12345678901",
    )))];
    let chunked = Request::put("/f")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    assert_eq!(gw.raw(chunked).await.status(), 413);
    // The first part of something new is no way around it.
    gw.send(
        "PUT",
        "/new",
        &[("content-range", "bytes 0-10/*")],
        "12345678901",
    )
    .await
    .is(413);
    gw.get("/new").await.is(404);
    gw.put("/f", "1234567890").await.is(204);
}

#[tokio::test]
async fn parts_are_written_atomically() {
    let gw = Gateway::start().await;
    let tag = gw
        .send("PUT", "/p", &[("content-range", "bytes 0-4/10")], "01234")
        .await
        .is(201);
    let next = gw
        .send("PUT", "/p", &[("content-range", "bytes 5-9/10")], "56789")
        .await
        .is(204);
    assert_ne!(tag.header("etag"), next.header("etag"));
    assert_eq!(gw.get("/p").await.text(), "0123456789");
    gw.send("PUT", "/p", &[("content-range", "bytes 2-3/*")], "XY")
        .await
        .is(204);
    assert_eq!(gw.get("/p").await.text(), "01XY456789");
    for (range, body, status) in [
        ("bytes 2-3/*", "too long", 400),
        ("bytes 3-2/*", "x", 400),
        ("lines 0-0/1", "x", 400),
        ("bytes 11-11/*", "x", 416),
    ] {
        gw.send("PUT", "/p", &[("content-range", range)], body)
            .await
            .is(status);
    }
    gw.send("PUT", "/gap", &[("content-range", "bytes 5-9/10")], "56789")
        .await
        .is(416);
    gw.get("/gap").await.is(404);

    let patch = |range: &'static str, body: &'static str| {
        let gw = &gw;
        async move {
            gw.send(
                "PATCH",
                "/p",
                &[("content-type", PATCH_TYPE), ("x-update-range", range)],
                body,
            )
            .await
        }
    };
    patch("append", "ab").await.is(204);
    patch("bytes=0-0", "Z").await.is(204);
    patch("bytes=-1", "c").await.is(204);
    patch("bytes=12-", "def").await.is(204);
    assert_eq!(gw.get("/p").await.text(), "Z1XY456789acdef");
    patch("bytes=0-5", "x").await.is(400);
    patch("nonsense", "x").await.is(400);
    patch("bytes=100-", "x").await.is(416);
    gw.send("PATCH", "/p", &[("x-update-range", "append")], "x")
        .await
        .is(415);
    gw.send(
        "PATCH",
        "/none",
        &[("content-type", PATCH_TYPE), ("x-update-range", "append")],
        "x",
    )
    .await
    .is(404);
    assert_eq!(gw.get("/p").await.text(), "Z1XY456789acdef");
}

#[tokio::test]
async fn what_slow_uploads_have_in_memory_is_bounded_over_all_of_them() {
    const SIZE: usize = 1 << 20;
    let gw = Arc::new(Gateway::start().await);
    let (received, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let (go, gone) = tokio::sync::watch::channel(false);
    let mut uploads = Vec::new();
    for n in 0..100 {
        let (gw, received, mut gone) = (Arc::clone(&gw), received.clone(), gone.clone());
        let rest = async move {
            // Asked for when all before it has been taken.
            received.send(()).unwrap();
            gone.wait_for(|go| *go).await.unwrap();
            Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"!")))
        };
        let most = (0..SIZE - 1).step_by(64 << 10);
        let most = most.map(|at| Bytes::from(vec![b'x'; (SIZE - 1 - at).min(64 << 10)]));
        let body = futures_util::stream::iter(most.map(|part| Ok(Frame::data(part))));
        let body = StreamBody::new(body.chain(futures_util::stream::once(rest)));
        let request = Request::put(format!("/{n}")).header("content-length", SIZE);
        let request = request.body(body).unwrap();
        uploads.push(tokio::spawn(async move { gw.raw(request).await.status() }));
    }
    for _ in 0..uploads.len() {
        waiting.recv().await.unwrap();
    }
    // What has no room in memory is on its way in files.
    let files = std::fs::read_dir(gw.root().join(".tierdav/tmp")).unwrap();
    assert!(files.count() >= 36);
    go.send(true).unwrap();
    for upload in uploads {
        assert_eq!(upload.await.unwrap(), 201);
    }
    let last = gw.get("/99").await.is(200).body;
    assert!(last.len() == SIZE && last.ends_with(b"x!"));
}

#[tokio::test]
async fn content_fields_that_would_be_lost_are_refused() {
    let gw = Gateway::start().await;
    gw.send("PUT", "/f", &[("content-encoding", "gzip")], "x")
        .await
        .is(415);
    gw.send("PUT", "/f", &[("content-unheard-of", "x")], "x")
        .await
        .is(501);
    gw.send(
        "PUT",
        "/f",
        &[("content-type", "text/x"), ("content-language", "de")],
        "x",
    )
    .await
    .is(201);
}

#[tokio::test]
async fn a_short_backing_file_breaks_the_connection_and_is_never_padded() {
    let gw = Gateway::start().await;
    std::fs::write(gw.root().join("beside"), vec![7u8; 3_000_000]).unwrap();
    let request = Request::get("/beside")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let mut running = gw.raw(request).await.into_body();
    let first = running.frame().await.unwrap().unwrap();
    std::fs::File::options()
        .write(true)
        .open(gw.root().join("beside"))
        .unwrap()
        .set_len(600_000)
        .unwrap();
    let mut received = first.into_data().unwrap().len();
    let broken = loop {
        match running.frame().await {
            Some(Ok(frame)) => received += frame.into_data().unwrap().len(),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broken || received == 3_000_000);
    assert!(broken, "the file was cut before it was read to its end");
}
