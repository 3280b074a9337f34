use super::super::xml::APACHE;
use super::*;

fn update(body: &str) -> String {
    format!(
        r#"<D:propertyupdate xmlns:D="DAV:" xmlns:A="{APACHE}" xmlns:x="urn:x">{body}</D:propertyupdate>"#
    )
}

#[tokio::test]
async fn davfs2_asks_five_properties_and_gets_what_exists() {
    let gw = Gateway::start().await;
    gw.mkcol("/d").await.is(201);
    gw.put("/d/f", "12345").await.is(201);
    let five = format!(
        r#"<resourcetype/><getcontentlength/><getetag/><getlastmodified/><executable xmlns="{APACHE}"/>"#
    );
    let found = gw.propfind("/d", "1", &five).await.is(207).xml();
    assert_eq!(hrefs(&found), ["/d/", "/d/f"]);
    assert!(
        super::found(&found, "/d/", DAV, "resourcetype", "200")
            .unwrap()
            .dav_child("collection")
            .is_some()
    );
    assert_eq!(value(&found, "/d/f", DAV, "getcontentlength").unwrap(), "5");
    assert_eq!(value(&found, "/d/f", APACHE, "executable").unwrap(), "F");
    assert!(
        super::found(&found, "/d/", DAV, "getcontentlength", "404").is_some(),
        "what is missing is said"
    );
    let quota = gw
        .propfind("/", "0", "<quota-available-bytes/><quota-used-bytes/>")
        .await
        .xml();
    let n = |name| {
        value(&quota, "/", DAV, name)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert!(n("quota-available-bytes") > 0 && n("quota-used-bytes") > 0);
    let of_file = gw.propfind("/d/f", "0", "<quota-used-bytes/>").await.xml();
    assert!(super::found(&of_file, "/d/f", DAV, "quota-used-bytes", "404").is_some());
}

#[tokio::test]
async fn depth_is_bounded_and_requests_must_be_well_formed() {
    let gw = Gateway::start().await;
    gw.put("/f", "1").await.is(201);
    for headers in [vec![("depth", "infinity")], vec![]] {
        let r = gw.send("PROPFIND", "/", &headers, "").await.is(403);
        assert!(r.xml().dav_child("propfind-finite-depth").is_some());
    }
    gw.send("PROPFIND", "/f", &[("depth", "infinity")], "")
        .await
        .is(207);
    gw.send("PROPFIND", "/f", &[("depth", "2")], "")
        .await
        .is(400);
    gw.send("PROPFIND", "/none", &[("depth", "0")], "")
        .await
        .is(404);
    for bad in [
        "<propfind",
        "<propfind xmlns=\"DAV:\"/>",
        "<!DOCTYPE x [<!ENTITY a \"b\">]><propfind xmlns=\"DAV:\"><allprop/></propfind>",
    ] {
        gw.send("PROPFIND", "/f", &[("depth", "0")], bad)
            .await
            .is(400);
    }
    let deep = Gateway::with(DavOptions {
        allow_infinite_depth: true,
        ..DavOptions::default()
    })
    .await;
    deep.mkcol("/a").await.is(201);
    deep.mkcol("/a/b").await.is(201);
    deep.put("/a/b/c", "1").await.is(201);
    let all = deep.send("PROPFIND", "/", &[], "").await.is(207).xml();
    assert_eq!(hrefs(&all), ["/", "/a/", "/a/b/", "/a/b/c"]);
}

#[tokio::test]
async fn a_small_body_cannot_ask_for_a_reply_without_bounds() {
    let gw = Gateway::start().await;
    let many = |n: usize| -> String { (0..n).map(|i| format!("<p{i}/>")).collect() };
    gw.propfind("/", "0", &many(1000)).await.is(207);
    gw.propfind("/", "0", &many(1100)).await.is(413);
    let long = |n: usize| format!("<x:a xmlns:x=\"{}\"/>", "n".repeat(n));
    gw.propfind("/", "0", &long(60_000)).await.is(207);
    let both = long(60_000) + "<p/>" + &long(60_001);
    gw.propfind("/", "0", &both).await.is(413);
    gw.propfind("/", "0", &long(70_000)).await.is(400);
    let bomb = format!(
        "<x xmlns:x=\"{}\">{}</x>",
        "n".repeat(50_000),
        "<x:a/>".repeat(10_000)
    );
    gw.propfind("/", "0", &bomb).await.is(413);
}

#[tokio::test]
async fn a_large_listing_is_streamed_whole() {
    let gw = Gateway::start().await;
    std::fs::create_dir(gw.root().join("big")).unwrap();
    for i in 0..2000 {
        std::fs::write(gw.root().join(format!("big/{i:04}")), "x").unwrap();
    }
    let all = gw
        .send("PROPFIND", "/big", &[("depth", "1")], "")
        .await
        .is(207)
        .xml();
    assert_eq!(hrefs(&all).len(), 2001);
}

#[tokio::test]
async fn chmod_is_a_proppatch_of_executable() {
    let gw = Gateway::start().await;
    let etag = gw.put("/f", "1").await.is(201).header("etag").to_string();
    for (on, value_wanted) in [("T", "T"), ("F", "F")] {
        let set = update(&format!(
            "<D:set><D:prop><A:executable>{on}</A:executable></D:prop></D:set>"
        ));
        let reply = gw.send("PROPPATCH", "/f", &[], set).await.is(207).xml();
        assert!(found(&reply, "/f", APACHE, "executable", "200").is_some());
        let got = gw
            .propfind("/f", "0", &format!(r#"<executable xmlns="{APACHE}"/>"#))
            .await
            .xml();
        assert_eq!(
            value(&got, "/f", APACHE, "executable").unwrap(),
            value_wanted
        );
    }
    assert_eq!(
        gw.send("HEAD", "/f", &[], "").await.header("etag"),
        etag,
        "the content did not change"
    );
}

#[tokio::test]
async fn proppatch_is_all_or_nothing_and_protects_live_properties() {
    let gw = Gateway::start().await;
    gw.put("/f", "1").await.is(201);
    let both = update("<D:set><D:prop><x:a>1</x:a><D:getetag>no</D:getetag></D:prop></D:set>");
    let reply = gw.send("PROPPATCH", "/f", &[], both).await.is(207).xml();
    assert!(found(&reply, "/f", DAV, "getetag", "403").is_some());
    assert!(found(&reply, "/f", "urn:x", "a", "424").is_some());
    let got = gw.propfind("/f", "0", r#"<a xmlns="urn:x"/>"#).await.xml();
    assert!(found(&got, "/f", "urn:x", "a", "404").is_some());
    // Document order: the last word counts.
    let order = update(
        "<D:set><D:prop><x:a>1</x:a></D:prop></D:set><D:remove><D:prop><x:a/></D:prop></D:remove><D:set><D:prop><x:a>2</x:a></D:prop></D:set>",
    );
    gw.send("PROPPATCH", "/f", &[], order).await.is(207);
    let got = gw.propfind("/f", "0", r#"<a xmlns="urn:x"/>"#).await.xml();
    assert_eq!(value(&got, "/f", "urn:x", "a").unwrap(), "2");
    gw.send("PROPPATCH", "/f", &[], "").await.is(400);
    gw.send(
        "PROPPATCH",
        "/none",
        &[],
        update("<D:remove><D:prop><x:a/></D:prop></D:remove>"),
    )
    .await
    .is(404);
}

#[tokio::test]
async fn dead_properties_survive_move_copy_put_and_restart() {
    let gw = Gateway::start().await;
    gw.put("/f", "1").await.is(201);
    let set = update(
        r#"<D:set xml:lang="de"><D:prop><x:a k="v">t&lt;<x:b/></x:a><D:displayname>Nice &amp; näme</D:displayname></D:prop></D:set>"#,
    );
    gw.send("PROPPATCH", "/f", &[], set).await.is(207);
    gw.put("/f", "2").await.is(204);
    gw.send("MOVE", "/f", &[("destination", "/g")], "")
        .await
        .is(201);
    gw.send("COPY", "/g", &[("destination", "/h")], "")
        .await
        .is(201);
    let gw = gw.restart().await;
    for path in ["/g", "/h"] {
        let got = gw
            .propfind(path, "0", r#"<a xmlns="urn:x"/><displayname/>"#)
            .await
            .xml();
        let a = found(&got, path, "urn:x", "a", "200").unwrap();
        assert_eq!((a.text().as_str(), a.lang()), ("t<", Some("de")));
        assert!(a.elements().next().unwrap().is("urn:x", "b"));
        assert_eq!(
            value(&got, path, DAV, "displayname").unwrap(),
            "Nice & näme"
        );
        let all = gw.send("PROPFIND", path, &[("depth", "0")], "").await.xml();
        assert!(found(&all, path, "urn:x", "a", "200").is_some());
        assert!(found(&all, path, DAV, "quota-used-bytes", "").is_none());
        let names = gw
            .send(
                "PROPFIND",
                path,
                &[("depth", "0")],
                r#"<propfind xmlns="DAV:"><propname/></propfind>"#,
            )
            .await
            .xml();
        assert_eq!(found(&names, path, "urn:x", "a", "200").unwrap().text(), "");
    }
}

#[tokio::test]
async fn properties_that_do_not_fit_are_507_and_change_nothing() {
    let gw = Gateway::start().await;
    gw.put("/f", "1").await.is(201);
    let huge = update(&format!(
        "<D:set><D:prop><x:small>1</x:small><x:a>{}</x:a></D:prop></D:set>",
        "y".repeat(200_000)
    ));
    let reply = gw.send("PROPPATCH", "/f", &[], huge).await.is(207).xml();
    assert!(found(&reply, "/f", "urn:x", "a", "507").is_some());
    let got = gw
        .propfind("/f", "0", r#"<small xmlns="urn:x"/>"#)
        .await
        .xml();
    assert!(found(&got, "/f", "urn:x", "small", "404").is_some());
}
