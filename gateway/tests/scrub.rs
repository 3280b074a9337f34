//! `tierdav scrub` and `drain` on the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::path::PathBuf;

use common::{Gateway, content, eventually};

fn objects(gateway: &Gateway, mark: &str) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(gateway.cache().join("objects")).unwrap();
    let files = shards.flat_map(|s| std::fs::read_dir(s.unwrap().path()).unwrap());
    let mut found: Vec<PathBuf> = files.map(|f| f.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == mark));
    found
}

/// Overwrites one byte in the middle of a file.
fn damage(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn scrub_names_damage_and_orphans_and_removes_only_what_costs_no_byte() {
    let mut gateway = Gateway::start(&["--max-dirty-age", "1s"]);
    assert_eq!(gateway.put("/clean", &content(1, 200_000)).status, 201);
    eventually("the file is flushed", || objects(&gateway, "c").len() == 1);
    assert_eq!(gateway.terminate(), Some(0));
    let whole = gateway.command("scrub", &[]);
    assert!(whole.status.success(), "{whole:?}");

    damage(&objects(&gateway, "c")[0]);
    let orphan = gateway
        .cache()
        .join("objects/ff/00000000000000ff.00000000.1.00000000.c");
    std::fs::write(&orphan, "x").unwrap();
    let found = gateway.command("scrub", &[]);
    assert_eq!(found.status.code(), Some(3), "{found:?}");
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(
        text.contains("damaged_clean") && text.contains("\"compared_objects\""),
        "{text}"
    );

    let repaired = gateway.command("scrub", &["--repair"]);
    assert!(repaired.status.success(), "{repaired:?}");
    assert!(!orphan.exists());
    gateway.restart();
    assert_eq!(gateway.get("/clean").body, content(1, 200_000));
}

#[test]
fn a_cache_of_another_object_size_is_refused() {
    let mut gateway = Gateway::start(&["--max-dirty-age", "1h"]);
    assert_eq!(gateway.put("/f", &content(1, 10_000)).status, 201);
    assert_eq!(gateway.terminate(), Some(0));
    let refused = gateway.command("drain", &["--object-size", "64KiB"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("holds objects of 4194304 bytes"),
        "{text}"
    );
    assert!(gateway.command("drain", &[]).status.success());
}

#[test]
fn a_damaged_only_copy_is_never_removed_and_never_served() {
    let mut gateway = Gateway::start(&["--max-dirty-age", "1h"]);
    assert_eq!(gateway.put("/dirty", &content(2, 200_000)).status, 201);
    assert_eq!(gateway.terminate(), Some(0));
    damage(&objects(&gateway, "d")[0]);
    assert_eq!(
        gateway.command("scrub", &["--repair"]).status.code(),
        Some(3)
    );
    assert_eq!(objects(&gateway, "d").len(), 1);
    gateway.restart();
    let mut client = gateway.connect();
    let served = client
        .request("GET", "/dirty", &[], b"")
        .map(|r| (r.status, r.body));
    assert!(!matches!(served, Ok((200, _))), "damaged bytes were served");
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_tierdav"))
        .args(["status", "--admin", &gateway.admin.to_string()])
        .output()
        .unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    let trouble = status.lines().find(|l| l.starts_with("TROUBLE")).unwrap();
    assert!(trouble.contains("found damage"), "{status}");
}

#[test]
fn drain_leaves_plain_files_and_an_empty_cache() {
    let mut gateway = Gateway::start(&["--max-dirty-age", "1h"]);
    for n in 0..20 {
        assert_eq!(
            gateway
                .put(&format!("/f{n}"), &content(n, 10_000 * n as usize))
                .status,
            201
        );
    }
    assert_eq!(gateway.terminate(), Some(0));
    let drained = gateway.command("drain", &[]);
    assert!(drained.status.success(), "{drained:?}");
    for n in 0..20 {
        assert_eq!(
            std::fs::read(gateway.root().join(format!("f{n}"))).unwrap(),
            content(n, 10_000 * n as usize)
        );
    }
    assert_eq!(
        (objects(&gateway, "d"), objects(&gateway, "c")),
        (vec![], vec![])
    );
}

#[test]
fn a_running_server_drains_to_plain_files_and_goes_on() {
    let gateway = Gateway::start(&["--max-dirty-age", "1h"]);
    let file = |n: u64| content(n, 50_000 + n as usize);
    for n in 0..20 {
        assert_eq!(gateway.put(&format!("/f{n}"), &file(n)).status, 201);
    }
    assert_ne!(objects(&gateway, "d"), Vec::<PathBuf>::new());
    let drained = gateway.command("drain", &["--admin", &gateway.admin.to_string()]);
    assert!(drained.status.success(), "{drained:?}");
    let left = (objects(&gateway, "d"), objects(&gateway, "c"));
    assert_eq!(left, (vec![], vec![]));
    for n in 0..20 {
        let plain = std::fs::read(gateway.root().join(format!("f{n}"))).unwrap();
        assert!(plain == file(n), "{n}");
        assert!(gateway.get(&format!("/f{n}")).body == file(n), "{n}");
    }
    // The cache is used again.
    assert_eq!(gateway.put("/after", &file(99)).status, 201);
    assert_ne!(objects(&gateway, "d"), Vec::<PathBuf>::new());
}
