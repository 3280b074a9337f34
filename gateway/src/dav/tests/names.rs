use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;

#[tokio::test]
async fn the_namespace_answers_as_rfc_4918_says() {
    let gw = Gateway::start().await;
    gw.mkcol("/c/").await.is(201);
    gw.mkcol("/c").await.is(405);
    gw.mkcol("/no/c").await.is(409);
    gw.send("MKCOL", "/d", &[("content-type", "text/plain")], "body")
        .await
        .is(415);
    gw.get("/d").await.is(404);
    gw.put("/c/f", "1").await.is(201);
    gw.put("/c/f", "2").await.is(204);
    gw.put("/c", "2").await.is(405);
    gw.put("/", "2").await.is(405);
    gw.mkcol("/").await.is(405);
    gw.mkcol("/c/f").await.is(405);
    gw.put("/no/f", "2").await.is(409);
    gw.put("/new/", "2").await.is(409);
    gw.get("/c/f/").await.is(404);
    gw.mkcol("/c/f/sub").await.is(409);
    gw.send("DELETE", "/c", &[("depth", "0")], "").await.is(400);
    gw.send("DELETE", "/", &[], "").await.is(403);
    gw.send("DELETE", "/c", &[], "").await.is(204);
    gw.send("DELETE", "/c", &[], "").await.is(404);
}

#[tokio::test]
async fn a_change_of_a_name_with_a_question_mark_does_not_meet_what_is_named_before_it() {
    let gw = Gateway::start().await;
    gw.mkcol("/k").await.is(201);
    gw.put("/k/f", "1").await.is(201);
    for target in ["/k/f?.txt", "/k/?old", "/k/f?"] {
        for method in super::super::CHANGES {
            let headers = [("destination", "/k/g")];
            gw.send(method, target, &headers, "").await.is(400);
        }
    }
    assert_eq!(gw.get("/k/f?x").await.is(200).text(), "1");
    gw.put("/k/f%3F.txt", "2").await.is(201);
    assert_eq!(gw.get("/k/f%3F.txt").await.is(200).text(), "2");
}

#[tokio::test]
async fn what_no_listing_shows_does_not_go_with_the_collection_that_it_is_in() {
    let gw = Gateway::start().await;
    gw.mkcol("/d").await.is(201);
    gw.mkcol("/d/sub").await.is(201);
    gw.mkcol("/other").await.is(201);
    gw.put("/f", "1").await.is(201);
    let unseen = gw
        .root()
        .join("d/sub")
        .join(OsStr::from_bytes(b"\xe9t\xe9.txt"));
    std::fs::write(&unseen, b"kept").unwrap();
    let listed = gw.propfind("/d/sub", "1", "<getetag/>").await.is(207).xml();
    assert_eq!(hrefs(&listed), ["/d/sub/"]);
    let refused = gw.send("DELETE", "/d/sub", &[], "").await.is(409);
    assert!(
        refused.text().starts_with("sub has a name"),
        "{}",
        refused.text()
    );
    let refused = gw.send("DELETE", "/d", &[], "").await.is(409);
    assert!(
        refused.text().starts_with("d/sub has a name"),
        "{}",
        refused.text()
    );
    for (method, from) in [
        ("MOVE", "/other"),
        ("MOVE", "/f"),
        ("COPY", "/other"),
        ("COPY", "/f"),
    ] {
        let reply = gw.send(method, from, &[("destination", "/d")], "").await;
        reply.is(409);
    }
    gw.get("/f").await.is(200);
    assert_eq!(std::fs::read(&unseen).unwrap(), b"kept");
    std::fs::rename(&unseen, unseen.with_file_name("seen")).unwrap();
    gw.send("DELETE", "/d", &[], "").await.is(204);
}

#[tokio::test]
async fn copy_and_move_keep_to_their_headers() {
    let gw = Gateway::with(DavOptions {
        public_base_url: vec!["https://dav.example.org/base".parse().unwrap()],
        ..DavOptions::default()
    })
    .await;
    gw.mkcol("/c").await.is(201);
    gw.put("/c/f", "1").await.is(201);
    gw.put("/f", "2").await.is(201);
    let send = |method: &'static str,
                path: &'static str,
                destination: &'static str,
                more: Vec<(&'static str, &'static str)>| {
        let gw = &gw;
        async move {
            let mut headers = vec![("destination", destination)];
            headers.extend(more);
            gw.send(method, path, &headers, "").await.status.as_u16()
        }
    };
    assert_eq!(send("COPY", "/f", "http://other.test/x", vec![]).await, 502);
    assert_eq!(send("COPY", "/f", "https://gw.test/t1", vec![]).await, 201);
    assert_eq!(
        send("COPY", "/f", "https://dav.example.org/base/t2", vec![]).await,
        201
    );
    assert_eq!(send("COPY", "/f", "/t%20%233", vec![]).await, 201);
    assert_eq!(send("COPY", "/f", "nonsense", vec![]).await, 400);
    assert_eq!(gw.send("COPY", "/f", &[], "").await.status, 400);
    assert_eq!(
        send("COPY", "/f", "/t1", vec![("overwrite", "F")]).await,
        412
    );
    assert_eq!(
        send("MOVE", "/f", "/t1", vec![("overwrite", "F")]).await,
        412
    );
    assert_eq!(send("COPY", "/f", "/t1", vec![]).await, 204);
    assert_eq!(send("COPY", "/f", "/f", vec![]).await, 403);
    assert_eq!(send("MOVE", "/c/", "/c", vec![]).await, 403);
    assert_eq!(send("COPY", "/c", "/c/d", vec![]).await, 403);
    assert_eq!(send("MOVE", "/c", "/c/d", vec![]).await, 403);
    assert_eq!(send("MOVE", "/c/f", "/c", vec![]).await, 403);
    assert_eq!(send("MOVE", "/c", "/x", vec![("depth", "0")]).await, 400);
    assert_eq!(send("COPY", "/c", "/x", vec![("depth", "1")]).await, 400);
    assert_eq!(send("COPY", "/f", "/no/x", vec![]).await, 409);
    assert_eq!(send("COPY", "/none", "/x", vec![]).await, 404);
    assert_eq!(send("COPY", "/f", "/.tierdav/x", vec![]).await, 403);
    assert_eq!(
        send("COPY", "/c", "/shallow", vec![("depth", "0")]).await,
        201
    );
    gw.get("/shallow/f").await.is(404);
    assert_eq!(send("COPY", "/c/", "/all", vec![]).await, 201);
    assert_eq!(gw.get("/all/f").await.text(), "1");
    assert_eq!(send("MOVE", "/all/", "/moved/", vec![]).await, 201);
    assert_eq!(gw.get("/moved/f").await.text(), "1");
    assert_eq!(send("COPY", "/f", "/moved", vec![]).await, 204);
    assert_eq!(gw.get("/moved").await.text(), "2");
    assert_eq!(gw.get("/t%20%233").await.text(), "2");
}

#[tokio::test]
async fn any_utf8_name_works_and_nothing_else() {
    let gw = Gateway::start().await;
    let long = "x".repeat(255);
    for name in [
        "%C3%BC%20%23%3F%25%26%3C%27%22",
        "a%01%1Fb",
        "%0A",
        "...",
        &long,
        ".hidden",
        "~%5C",
    ] {
        let path = format!("/{name}");
        gw.put(&path, name.to_string()).await.is(201);
        assert_eq!(gw.get(&path).await.is(200).text(), name);
        let listed = gw
            .propfind("/", "1", "<displayname/><getetag/>")
            .await
            .is(207)
            .xml();
        let found = hrefs(&listed).into_iter().filter(|h| {
            let decoded = |s: &str| {
                percent_encoding::percent_decode_str(s)
                    .decode_utf8()
                    .unwrap()
                    .to_string()
            };
            decoded(h) == decoded(&path)
        });
        assert_eq!(found.count(), 1, "{name}");
        gw.send("PROPFIND", &path, &[("depth", "0")], "")
            .await
            .is(207)
            .xml();
        let page = gw.get("/").await.is(200);
        assert!(page.text().contains("<table>"));
    }
    gw.put(&format!("/{}", "x".repeat(256)), "").await.is(414);
    gw.put("/%FF", "").await.is(400);
    gw.put("/a%2Fb", "").await.is(400);
    gw.put("/%2e%2e/x", "").await.is(400);
    gw.get("/../../etc/passwd").await.is(400);
    gw.get("/.tierdav").await.is(404);
    gw.get("/.tierdav/format").await.is(404);
    gw.put("/.tierdav/x", "").await.is(403);
    gw.mkcol("/.tierdav").await.is(403);
    assert!(!gw.get("/").await.text().contains("tierdav/"));
}

#[tokio::test]
async fn a_symbolic_link_out_of_the_root_leads_nowhere() {
    let gw = Gateway::start().await;
    std::os::unix::fs::symlink("/etc", gw.root().join("link")).unwrap();
    gw.get("/link/passwd").await.is(404);
    gw.get("/link").await.is(404);
    assert_eq!(
        hrefs(&gw.propfind("/", "1", "<getetag/>").await.xml()),
        ["/"]
    );
}

#[tokio::test]
async fn users_see_their_root_and_readers_only_read() {
    let mut gw = Gateway::start().await;
    gw.mkcol("/ann").await.is(201);
    gw.put("/secret", "x").await.is(201);
    let root = ResourcePath::parse("/ann").unwrap();
    gw.user = Some(Arc::new(User {
        name: "ann".into(),
        root: root.clone(),
        read_only: false,
    }));
    gw.put("/mine", "1").await.is(201);
    gw.get("/secret").await.is(404);
    gw.get("/../secret").await.is(400);
    assert_eq!(
        hrefs(&gw.propfind("/", "1", "<getetag/>").await.xml()),
        ["/", "/mine"]
    );
    gw.send(
        "MOVE",
        "/mine",
        &[("destination", "http://gw.test/moved")],
        "",
    )
    .await
    .is(201);
    gw.send("DELETE", "/", &[], "").await.is(403);
    let token = gw.lock("/moved", 200).await;
    let found = gw.propfind("/moved", "0", "<lockdiscovery/>").await;
    assert!(
        found.text().contains("<D:lockroot><D:href>/moved</D:href>"),
        "{}",
        found.text()
    );
    gw.send(
        "UNLOCK",
        "/moved",
        &[("lock-token", &format!("<{token}>"))],
        "",
    )
    .await
    .is(204);
    gw.user = Some(Arc::new(User {
        name: "eve".into(),
        root,
        read_only: true,
    }));
    gw.get("/moved").await.is(200);
    for method in [
        "PUT",
        "DELETE",
        "MKCOL",
        "MOVE",
        "COPY",
        "LOCK",
        "UNLOCK",
        "PROPPATCH",
        "PATCH",
    ] {
        gw.send(method, "/moved", &[("destination", "/x")], "")
            .await
            .is(403);
    }
}

#[tokio::test]
async fn a_browser_gets_a_sortable_page() {
    let gw = Gateway::start().await;
    gw.mkcol("/c").await.is(201);
    gw.mkcol("/c/sub").await.is(201);
    gw.put("/c/b%3Cscript%3E", "22").await.is(201);
    gw.put("/c/a", "1").await.is(201);
    let page = gw.get("/c/").await.is(200);
    assert!(page.header("content-type").starts_with("text/html"));
    let at = |page: &Reply, s: &str| {
        page.text()
            .find(s)
            .unwrap_or_else(|| panic!("{s}: {}", page.text()))
    };
    assert!(
        at(&page, "sub/</a>") < at(&page, ">a</a>")
            && at(&page, ">a</a>") < at(&page, "b&lt;script&gt;</a>")
    );
    assert!(at(&page, "href=\"./b%3Cscript%3E\"") > 0);
    let by_size = gw.get("/c/?sort=size&order=desc").await.is(200);
    assert!(at(&by_size, "b&lt;") < at(&by_size, ">a</a>"));
    let bare = gw.get("/c").await.is(200);
    assert!(bare.text().contains("href=\"./c/a\""));
    gw.send("HEAD", "/c/", &[], "").await.is(200);
}
