use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;

fn tagged(path: &str, token: &str) -> String {
    format!("<http://gw.test{path}> (<{token}>)")
}

#[tokio::test]
async fn davfs2_creates_a_file() {
    let gw = Gateway::start().await;
    let token = gw.lock("/new.txt", 201).await;
    let head = gw.send("HEAD", "/new.txt", &[], "").await.is(200);
    assert_eq!(head.header("content-length"), "0");
    let condition = tagged("/new.txt", &token);
    let headers = [("if-none-match", "*"), ("if", condition.as_str())];
    let put = gw.send("PUT", "/new.txt", &headers, "hello").await;
    assert!(put.status.is_success());
    let head = gw.send("HEAD", "/new.txt", &[], "").await.is(200);
    let listed = gw
        .propfind("/", "1", "<getetag/><getlastmodified/><getcontentlength/>")
        .await
        .is(207)
        .xml();
    assert_eq!(put.header("etag"), head.header("etag"));
    assert_eq!(
        value(&listed, "/new.txt", DAV, "getetag").unwrap(),
        put.header("etag")
    );
    assert_eq!(
        value(&listed, "/new.txt", DAV, "getlastmodified").unwrap(),
        put.header("last-modified")
    );
    assert_eq!(head.header("last-modified"), put.header("last-modified"));
    assert_eq!(
        value(&listed, "/new.txt", DAV, "getcontentlength").unwrap(),
        "5"
    );
    assert!(put.header("etag").starts_with('"') && put.header("etag").len() > 2);
    gw.send(
        "UNLOCK",
        "/new.txt",
        &[("lock-token", &format!("<{token}>"))],
        "",
    )
    .await
    .is(204);
    assert_eq!(gw.get("/new.txt").await.is(200).text(), "hello");
    // Overwriting: LOCK, PUT with If-Match, UNLOCK.
    let token = gw.lock("/new.txt", 200).await;
    let condition = tagged("/new.txt", &token);
    let headers = [("if-match", put.header("etag")), ("if", condition.as_str())];
    gw.send("PUT", "/new.txt", &headers, "hello!").await.is(204);
    gw.send("PUT", "/new.txt", &headers, "again").await.is(412);
}

#[tokio::test]
async fn a_lock_null_resource_is_empty_visible_and_somebody_elses_put_is_locked_out() {
    let gw = Gateway::start().await;
    let token = gw.lock("/null", 201).await;
    assert_eq!(gw.get("/null").await.is(200).body.len(), 0);
    assert!(hrefs(&gw.propfind("/", "1", "<getetag/>").await.xml()).contains(&"/null".to_string()));
    gw.send("PUT", "/null", &[("if-none-match", "*")], "x")
        .await
        .is(423);
    gw.put("/null", "x").await.is(423);
    gw.mkcol("/null").await.is(405);
    // Given up without a PUT, it stays (RFC 4918 section 7.3) and is an ordinary resource.
    gw.send(
        "UNLOCK",
        "/null",
        &[("lock-token", &format!("<{token}>"))],
        "",
    )
    .await
    .is(204);
    gw.get("/null").await.is(200);
    gw.send("PUT", "/null", &[("if-none-match", "*")], "x")
        .await
        .is(412);
    gw.dav.expire_at(u64::MAX).await;
    gw.get("/null").await.is(200);
}

#[tokio::test]
async fn what_only_a_lock_made_goes_when_the_lock_runs_out_and_what_was_put_stays() {
    let gw = Gateway::start().await;
    gw.lock("/never", 201).await;
    let token = gw.lock("/put", 201).await;
    gw.send("PUT", "/put", &[("if", &format!("(<{token}>)"))], "x")
        .await;
    gw.lock("/moved", 201).await;
    let gw = gw.restart().await;
    gw.get("/never").await.is(200);
    gw.dav.expire_at(u64::MAX).await;
    gw.get("/never").await.is(404);
    gw.get("/moved").await.is(404);
    assert_eq!(gw.get("/put").await.is(200).text(), "x");
    assert!(gw.dav.locks().is_empty());
}

#[tokio::test]
async fn what_was_done_to_a_locked_name_stays_when_the_lock_runs_out() {
    let gw = Gateway::start().await;
    let patch = |prop: &str| {
        format!(r#"<propertyupdate xmlns="DAV:"><set><prop>{prop}</prop></set></propertyupdate>"#)
    };
    let executable = r#"<executable xmlns="http://apache.org/dav/props/">T</executable>"#;
    for (path, prop) in [("/dead", r#"<x xmlns="u"/>"#), ("/mode", executable)] {
        let token = gw.lock(path, 201).await;
        let headers = [("if", &*format!("(<{token}>)"))];
        let patched = gw.send("PROPPATCH", path, &headers, patch(prop)).await;
        assert!(patched.is(207).text().contains("200 OK"));
    }
    // Also where its owner asked to go on at the new name, or another took a lock there.
    for (from, to) in [("/m1", "/n1"), ("/m2", "/n2"), ("/m3", "/n3")] {
        let token = gw.lock(from, 201).await;
        let headers = [("destination", to), ("if", &*format!("(<{token}>)"))];
        gw.send("MOVE", from, &headers, "").await.is(201);
        match to {
            "/n2" => {
                let condition = format!("(<{token}>)");
                let refresh = gw.send("LOCK", to, &[("if", &condition)], "").await;
                refresh.is(200);
            }
            "/n3" => drop(gw.lock(to, 200).await),
            _ => {}
        }
    }
    gw.mkcol("/c").await.is(201);
    let token = gw.lock("/c/member", 201).await;
    let condition = format!("</c/member> (<{token}>)");
    let headers = [("destination", "/d"), ("if", &*condition)];
    gw.send("MOVE", "/c", &headers, "").await.is(201);
    gw.lock("/untouched", 201).await;

    let gw = gw.restart().await;
    gw.dav.expire_at(u64::MAX).await;
    gw.get("/untouched").await.is(404);
    for path in ["/dead", "/mode", "/n1", "/n2", "/n3", "/d/member"] {
        assert_eq!(gw.get(path).await.is(200).body.len(), 0, "{path}");
        // And is an ordinary resource.
        let put = gw.send("PUT", path, &[("if-none-match", "*")], "x").await;
        put.is(412);
    }
}

#[tokio::test]
async fn a_move_needs_only_the_sources_token_and_the_late_upload_reaches_the_new_name() {
    let gw = Gateway::start().await;
    for (overwrites, unlock_at) in [(false, "/to1"), (true, "/from2")] {
        let (from, to) = (
            format!("/from{}", if overwrites { 2 } else { 1 }),
            format!("/to{}", if overwrites { 2 } else { 1 }),
        );
        if overwrites {
            gw.put(&to, "old").await.is(201);
        }
        let token = gw.lock(&from, 201).await;
        let etag = gw
            .send("HEAD", &from, &[], "")
            .await
            .header("etag")
            .to_string();
        let condition = tagged(&from, &token);
        let destination = format!("http://gw.test{to}");
        let headers = [
            ("destination", destination.as_str()),
            ("overwrite", "T"),
            ("if", condition.as_str()),
        ];
        gw.send("MOVE", &from, &[headers[0]], "").await.is(423);
        gw.send("MOVE", &from, &headers, "")
            .await
            .is(if overwrites { 204 } else { 201 });
        gw.get(&from).await.is(404);
        assert_eq!(
            gw.send("HEAD", &to, &[], "").await.header("etag"),
            etag,
            "MOVE keeps the tag"
        );
        // davfs2 goes on believing in its lock.
        let condition = tagged(&to, &token);
        let mut headers = vec![("if", condition.as_str())];
        headers.push(if overwrites {
            ("if-match", etag.as_str())
        } else {
            ("if-none-match", "*")
        });
        let put = gw.send("PUT", &to, &headers, "content").await;
        assert!(put.status.is_success(), "{put:?}");
        let again = [("if", condition.as_str()), ("if-match", put.header("etag"))];
        gw.send("PUT", &to, &again, "content 2").await.is(204);
        let unlock_token = format!("<{token}>");
        gw.send("UNLOCK", unlock_at, &[("lock-token", &unlock_token)], "")
            .await
            .is(204);
        assert_eq!(gw.get(&to).await.text(), "content 2");
    }
}

#[tokio::test]
async fn after_a_move_a_strangers_change_is_not_overwritten() {
    let gw = Gateway::start().await;
    gw.put("/a", "1").await.is(201);
    let token = gw.lock("/a", 200).await;
    let condition = tagged("/a", &token);
    gw.send(
        "MOVE",
        "/a",
        &[("destination", "/b"), ("if", &condition)],
        "",
    )
    .await
    .is(201);
    gw.put("/b", "stranger").await.is(204);
    gw.send("PUT", "/b", &[("if", &tagged("/b", &token))], "mine")
        .await
        .is(412);
    assert_eq!(gw.get("/b").await.text(), "stranger");
}

#[tokio::test]
async fn a_delayed_put_under_a_lock_taken_before_a_restart_is_accepted() {
    let gw = Gateway::start().await;
    let token = gw.lock("/delayed", 201).await;
    let gw = gw.restart().await;
    gw.put("/delayed", "stranger").await.is(423);
    let condition = tagged("/delayed", &token);
    let headers = [("if-none-match", "*"), ("if", condition.as_str())];
    assert!(
        gw.send("PUT", "/delayed", &headers, "mine")
            .await
            .status
            .is_success()
    );
    assert_eq!(gw.get("/delayed").await.text(), "mine");
    assert_eq!(gw.dav.locks().len(), 1);
}

#[tokio::test]
async fn a_stale_token_is_forgiven_only_where_an_entity_tag_proves_that_nothing_is_lost() {
    let gw = Gateway::start().await;
    let etag = gw.put("/f", "1").await.is(201).header("etag").to_string();
    let stale = tagged("/f", "urn:uuid:7f2c1d5e-0000-4000-8000-000000000000");
    gw.send("PUT", "/f", &[("if", &stale)], "2").await.is(412);
    gw.send(
        "PUT",
        "/f",
        &[("if", &stale), ("if-match", "\"other\"")],
        "2",
    )
    .await
    .is(412);
    gw.send("PUT", "/f", &[("if", &stale), ("if-match", &etag)], "2")
        .await
        .is(204);
    gw.send(
        "PUT",
        "/g",
        &[("if", &stale.replace("/f", "/g")), ("if-none-match", "*")],
        "2",
    )
    .await
    .is(201);
    let etag = gw
        .send("HEAD", "/f", &[], "")
        .await
        .header("etag")
        .to_string();
    gw.lock("/f", 200).await;
    gw.send("PUT", "/f", &[("if", &stale), ("if-match", &etag)], "3")
        .await
        .is(423);
}

#[tokio::test]
async fn an_upload_that_outlives_its_lock_is_kept_if_nobody_else_came() {
    let gw = Arc::new(Gateway::start().await);
    for (path, status) in [
        ("/old", 204),
        ("/new", 201),
        ("/changed", 412),
        ("/made", 412),
        ("/locked", 423),
    ] {
        let exists = !matches!(path, "/new" | "/made");
        if exists {
            gw.put(path, "before").await.is(201);
        }
        let token = gw.lock(path, if exists { 200 } else { 201 }).await;
        let (half, mut received) = tokio::sync::oneshot::channel();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let rest = async move {
            half.send(()).unwrap();
            gone.await.unwrap();
            Ok(Frame::data(Bytes::from_static(b"second")))
        };
        let first = Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"first ")));
        let body = futures_util::stream::iter([first]).chain(futures_util::stream::once(rest));
        let request = Request::put(path).header("if", format!("(<{token}>)"));
        let request = request.body(StreamBody::new(body)).unwrap();
        let upload = {
            let gw = Arc::clone(&gw);
            tokio::spawn(async move { gw.raw(request).await.status() })
        };
        (&mut received).await.unwrap();
        gw.dav.expire_at(u64::MAX).await;
        match path {
            "/changed" | "/made" => drop(gw.put(path, "another's").await),
            "/locked" => drop(gw.lock(path, 200).await),
            _ => {}
        }
        go.send(()).unwrap();
        assert_eq!(upload.await.unwrap(), status, "{path}");
        let content = gw.get(path).await.is(200);
        let kept = status < 300;
        assert_eq!(content.text() == "first second", kept, "{path}");
    }
}

#[tokio::test]
async fn every_if_form_is_honoured() {
    let gw = Gateway::start().await;
    let etag = gw.put("/f", "1").await.header("etag").to_string();
    let token = gw.lock("/f", 200).await;
    for (condition, status) in [
        (format!("(<{token}>)"), 204),
        (format!("(<{token}> [\"no\"])"), 412),
        (
            format!("(<{token}> [\"no\"]) (Not <DAV:no-lock> <{token}>)"),
            204,
        ),
        (format!("(<{token}>) ([{etag}])"), 204),
        ("(Not <DAV:no-lock>)".into(), 423),
        ("(<DAV:no-lock>)".into(), 412),
        (
            "(<urn:uuid:7f2c1d5e-0000-4000-8000-000000000000>)".into(),
            423,
        ),
        ("()".into(), 400),
        (format!("</f> (<{token}>)"), 204),
        (format!("<http://gw.test/elsewhere> (<{token}>)"), 412),
        (
            format!("<http://gw.test/elsewhere> (Not <{token}>) <http://gw.test/f> (<{token}>)"),
            204,
        ),
    ] {
        let got = gw.send("PROPPATCH", "/f", &[("if", &condition)], r#"<propertyupdate xmlns="DAV:"><set><prop><x xmlns="u"/></prop></set></propertyupdate>"#).await;
        let want = if status == 204 { 207 } else { status };
        assert_eq!(got.status.as_u16(), want, "{condition}");
    }
}

#[tokio::test]
async fn locks_of_collections_guard_members_to_their_depth() {
    let gw = Gateway::start().await;
    gw.mkcol("/flat").await.is(201);
    gw.put("/flat/old", "1").await.is(201);
    let flat = gw.lock_with("/flat", "exclusive", "0", 200).await;
    gw.put("/flat/new", "x").await.is(423);
    gw.mkcol("/flat/sub").await.is(423);
    gw.lock("/flat/locknull", 423).await;
    gw.put("/flat/old", "2").await.is(204);
    gw.send("DELETE", "/flat/old", &[], "").await.is(423);
    gw.send("MOVE", "/flat/old", &[("destination", "/x")], "")
        .await
        .is(423);
    let condition = format!("<http://gw.test/flat/> (<{flat}>)");
    gw.send("PUT", "/flat/new", &[("if", &condition)], "x")
        .await
        .is(201);

    gw.mkcol("/deep").await.is(201);
    gw.mkcol("/deep/sub").await.is(201);
    let deep = gw.lock_with("/deep/", "exclusive", "infinity", 200).await;
    gw.put("/deep/sub/x", "x").await.is(423);
    let refused = gw.send("DELETE", "/deep/sub", &[], "").await.is(423).xml();
    let href = refused
        .dav_child("lock-token-submitted")
        .unwrap()
        .dav_child("href")
        .unwrap();
    assert!(href.text().starts_with("/deep"));
    gw.send("PUT", "/deep/sub/x", &[("if", &format!("(<{deep}>)"))], "x")
        .await
        .is(201);
    gw.lock("/deep/sub/x", 423).await;
}

#[tokio::test]
async fn a_locked_member_is_named_when_its_collection_cannot_go_or_be_locked() {
    let gw = Gateway::start().await;
    gw.mkcol("/c").await.is(201);
    gw.put("/c/m", "1").await.is(201);
    let token = gw.lock("/c/m", 200).await;
    let refused = gw.send("DELETE", "/c", &[], "").await.is(207).xml();
    assert_eq!(hrefs(&refused), ["/c/m"]);
    assert!(
        refused
            .elements()
            .next()
            .unwrap()
            .dav_child("status")
            .unwrap()
            .text()
            .contains("423")
    );
    gw.send("MOVE", "/c", &[("destination", "/d")], "")
        .await
        .is(207);
    let body = r#"<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>"#;
    let refused = gw
        .send("LOCK", "/c", &[("depth", "infinity")], body)
        .await
        .is(207)
        .xml();
    assert_eq!(hrefs(&refused), ["/c/m", "/c/"]);
    gw.send(
        "DELETE",
        "/c",
        &[("if", &format!("</c/m> (<{token}>)"))],
        "",
    )
    .await
    .is(204);
    assert!(gw.dav.locks().is_empty(), "locks go with what they protect");
}

#[tokio::test]
async fn shared_locks_refresh_and_discovery() {
    let gw = Gateway::start().await;
    gw.put("/s", "1").await.is(201);
    let one = gw.lock_with("/s", "shared", "0", 200).await;
    let two = gw.lock_with("/s", "shared", "0", 200).await;
    gw.lock("/s", 423).await;
    gw.put("/s", "2").await.is(423);
    gw.send("PUT", "/s", &[("if", &format!("(<{two}>)"))], "2")
        .await
        .is(204);
    let found = gw.propfind("/s", "0", "<lockdiscovery/>").await.xml();
    let discovery = super::found(&found, "/s", DAV, "lockdiscovery", "200").unwrap();
    assert_eq!(discovery.elements().count(), 2);
    gw.send(
        "LOCK",
        "/s",
        &[("if", &format!("(<{one}>)")), ("timeout", "Infinite")],
        "",
    )
    .await
    .is(200);
    gw.send("LOCK", "/s", &[], "").await.is(400);
    gw.send("LOCK", "/s", &[("if", "(<urn:uuid:none>)")], "")
        .await
        .is(412);
    gw.send("UNLOCK", "/s", &[("lock-token", "<urn:uuid:none>")], "")
        .await
        .is(409);
    gw.send("UNLOCK", "/s", &[("lock-token", "none")], "")
        .await
        .is(400);
    gw.send("UNLOCK", "/s", &[], "").await.is(400);
    assert_eq!(gw.dav.locks().len(), 2);
    assert!(
        gw.dav.break_lock(&one).await
            && gw.dav.break_lock(&two).await
            && !gw.dav.break_lock(&two).await
    );
    gw.put("/s", "3").await.is(204);
}

#[tokio::test]
async fn copies_carry_no_lock_and_cannot_overwrite_a_locked_resource() {
    let gw = Gateway::start().await;
    gw.put("/a", "1").await.is(201);
    gw.put("/b", "2").await.is(201);
    let token = gw.lock("/a", 200).await;
    gw.send("COPY", "/a", &[("destination", "/c")], "")
        .await
        .is(201);
    gw.put("/c", "free").await.is(204);
    gw.send("COPY", "/b", &[("destination", "/a")], "")
        .await
        .is(423);
    gw.send(
        "COPY",
        "/b",
        &[("destination", "/a"), ("if", &format!("</a> (<{token}>)"))],
        "",
    )
    .await
    .is(204);
    gw.put("/a", "still locked").await.is(423);
}

#[tokio::test]
async fn another_users_token_opens_nothing() {
    let mut gw = Gateway::start().await;
    let user = |name: &str| {
        Some(Arc::new(User {
            name: name.into(),
            root: ResourcePath::root(),
            read_only: false,
        }))
    };
    gw.user = user("ann");
    let token = gw.lock("/f", 201).await;
    gw.user = user("bob");
    gw.send("PUT", "/f", &[("if", &format!("(<{token}>)"))], "x")
        .await
        .is(423);
    gw.send("UNLOCK", "/f", &[("lock-token", &format!("<{token}>"))], "")
        .await
        .is(403);
    gw.user = user("ann");
    assert!(
        gw.send("PUT", "/f", &[("if", &format!("(<{token}>)"))], "x")
            .await
            .status
            .is_success()
    );
}
