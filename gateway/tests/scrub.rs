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

#[test]
fn commands_beside_a_running_server_are_refused_and_touch_nothing_of_it() {
    // The upload is half done for as long as the commands take.
    let gateway = Gateway::start(&["--max-dirty-age", "1h", "--body-idle-timeout", "10m"]);
    let mut client = gateway.connect();
    let body = content(3, 9 << 20);
    let (first, rest) = body.split_at(6 << 20);
    client.send_head("PUT", "/f", &[], body.len()).unwrap();
    client.send(first).unwrap();
    let unfinished = || {
        let shards = std::fs::read_dir(gateway.cache().join("objects")).unwrap();
        let mut files = shards.flat_map(|s| std::fs::read_dir(s.unwrap().path()).unwrap());
        files.any(|f| f.unwrap().path().extension().is_some_and(|e| e == "tmp"))
    };
    eventually("objects are being written", unfinished);
    let live = || {
        let names = std::fs::read_dir(gateway.cache().join("trace")).unwrap();
        let mut names: Vec<_> = names.map(|n| n.unwrap().file_name()).collect();
        names.retain(|n| n.to_string_lossy().ends_with(".live"));
        names
    };
    gateway.request("OPTIONS", "/", &[], b"");
    eventually("a segment of the trace", || !live().is_empty());
    let (segments, size) = (live(), gateway.cache().join("object_size"));
    let size_before = std::fs::read(&size).unwrap();

    let copy = gateway.dir.path().join("copy");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(gateway.root())
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    let copy = copy.to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "none"];
    let other_size = ["--object-size", "64KiB"];
    let attempts: [(&str, &[&str]); 5] = [
        ("drain", &[]),
        ("scrub", &["--repair"]),
        ("serve", &listen),
        ("scrub", &other_size),
        // A copy of the root does not lock the root: the cache has a lock of its own.
        ("drain", &["--root", copy]),
    ];
    for (command, flags) in attempts {
        let refused = gateway.command(command, flags);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{command}: {refused:?}");
        let pid = format!("pid {} ", gateway.pid());
        assert!(
            said.contains("another instance") && said.contains(&pid),
            "{said}"
        );
    }
    assert_eq!(std::fs::read(&size).unwrap(), size_before);
    assert_eq!(live(), segments);
    client.send(rest).unwrap();
    assert_eq!(client.reply(false).unwrap().status, 201);
    assert!(gateway.get("/f").body == body);
}

#[test]
fn a_directory_that_no_gateway_has_used_is_neither_made_nor_called_sound() {
    let mut gateway = Gateway::start(&["--max-dirty-age", "1h"]);
    assert_eq!(gateway.put("/f", &content(1, 10_000)).status, 201);
    assert_eq!(gateway.terminate(), Some(0));
    let (absent, empty) = (
        gateway.dir.path().join("absent"),
        gateway.dir.path().join("empty"),
    );
    std::fs::create_dir(&empty).unwrap();
    for command in ["drain", "scrub"] {
        for dir in [&absent, &empty] {
            for key in ["root", "cache_dir"] {
                let flag = format!("--{}", key.replace('_', "-"));
                let refused = gateway.command(command, &[&flag, dir.to_str().unwrap()]);
                let said = String::from_utf8_lossy(&refused.stderr).into_owned();
                assert_eq!(refused.status.code(), Some(1), "{command}: {refused:?}");
                let named = format!("{key} = {}", dir.display());
                assert!(said.contains(&named) && said.contains("mounted?"), "{said}");
            }
        }
    }
    assert!(!absent.exists());
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
    assert!(gateway.command("drain", &[]).status.success());
    assert!(std::fs::read(gateway.root().join("f")).unwrap() == content(1, 10_000));
}

#[test]
fn a_marker_that_makes_no_sense_is_named_and_nothing_is_touched() {
    let mut gateway = Gateway::start(&["--max-dirty-age", "1h"]);
    assert_eq!(gateway.put("/f", &content(1, 10_000)).status, 201);
    assert_eq!(gateway.terminate(), Some(0));
    let before = objects(&gateway, "d");
    for marker in [
        gateway.root().join(".tierdav/format"),
        gateway.cache().join("volume"),
    ] {
        let right = std::fs::read_to_string(&marker).unwrap();
        for wrong in [String::new(), right.replace("tierdav 1", "tierdav 2")] {
            std::fs::write(&marker, &wrong).unwrap();
            let refused = gateway.command("drain", &[]);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{said}");
            assert!(
                said.contains(&format!("marker {}", marker.display())),
                "{said}"
            );
            assert_eq!(std::fs::read_to_string(&marker).unwrap(), wrong);
        }
        std::fs::write(&marker, right).unwrap();
    }
    assert_eq!(objects(&gateway, "d"), before);
    assert!(gateway.command("drain", &[]).status.success());
}

fn chown(to: &str, path: &std::path::Path) {
    let mut chown = std::process::Command::new("chown");
    let done = chown.args(["-R", to]).arg(path).status();
    assert!(done.unwrap().success(), "needs root");
}

#[test]
fn what_may_not_be_read_is_named_and_the_rest_is_checked() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let mut gateway = Gateway::start(&["--max-dirty-age", "1h"]);
    assert_eq!(gateway.put("/f", &content(1, 10_000)).status, 201);
    assert_eq!(gateway.terminate(), Some(0));
    // As the service has a user of its own, and root has put something there.
    chown("65534:65534", gateway.dir.path());
    let forbidden = gateway.root().join("forbidden");
    std::fs::write(&forbidden, "x").unwrap();
    let ours_alone = |path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    ours_alone(&forbidden);
    let as_service = |command| {
        let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_tierdav"));
        c.args([command, "--root"]).arg(gateway.root());
        c.arg("--cache-dir").arg(gateway.cache());
        c.uid(65534).gid(65534).output().unwrap()
    };
    let found = as_service("scrub");
    assert_eq!(found.status.code(), Some(3), "{found:?}");
    let report: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(report["checked_objects"], 1);
    assert_eq!(report["problems"], 1);
    assert_eq!(report["findings"][0]["problem"], "unreadable");
    assert_eq!(report["findings"][0]["name"], "/forbidden");

    // A file whose content is in the cache alone, and which may not be opened to flush it, is named.
    let file = gateway.root().join("f");
    chown("0:0", &file);
    ours_alone(&file);
    let refused = as_service("drain");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains(".tierdav/dirty/") && said.contains("Permission denied"),
        "{said}"
    );
    chown("65534:65534", &file);
    assert!(as_service("drain").status.success());
    assert!(std::fs::read(&file).unwrap() == content(1, 10_000));
}
