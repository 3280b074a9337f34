//! What is synced, and in which order, before a change is acknowledged: by what strace sees of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::disk::Disk;
use common::fault::Fault;
use common::{Gateway, Mount};

const PROPPATCH: &[u8] =
    br#"<propertyupdate xmlns="DAV:"><set><prop><x xmlns="u:">v</x></prop></set></propertyupdate>"#;

/// The intent log is for the root's file system: its checkpoints sync no other.
#[test]
fn a_change_on_a_file_system_mounted_below_the_root_is_synced_there() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put("/deleted", b"here").status, 201);
    let at = gateway.root().join("disk");
    std::fs::create_dir(&at).unwrap();
    let _mount = Mount::tmpfs(at.clone(), "1m");
    for name in ["deleted", "moved", "changed"] {
        std::fs::write(at.join(name), name).unwrap();
    }
    let fault = Fault::inject_when(&gateway, "fsync", "EIO", "1+");
    let to = [("Destination", "/disk/to")];
    for (method, path, headers, body) in [
        ("DELETE", "/disk/deleted", &[][..], &b""[..]),
        ("MOVE", "/disk/moved", &to, b""),
        ("PROPPATCH", "/disk/changed", &[], PROPPATCH),
    ] {
        let reply = gateway.request(method, path, headers, body);
        assert_eq!(reply.status, 503, "{method}: {}", reply.text());
    }
    // What is in the log waits for nothing else.
    assert_eq!(gateway.request("DELETE", "/deleted", &[], b"").status, 204);
    assert!(fault.end() >= 3);
    assert_eq!(gateway.request("DELETE", "/disk/to", &[], b"").status, 204);
}

/// With a root that keeps no journal of inodes: tmpfs is none that is known to.
fn without_journal(flags: &[&str]) -> (Gateway, Mount) {
    let mut gateway = Gateway::start(flags);
    assert_eq!(gateway.terminate(), Some(0));
    if gateway.cache().exists() {
        std::fs::remove_dir_all(gateway.cache()).unwrap();
    }
    let root = Mount::tmpfs(gateway.root(), "32m");
    gateway.restart();
    (gateway, root)
}

/// Where a call that begins so was seen first, from line `from` on.
fn line(seen: &str, from: usize, call: &str, of: &str) -> usize {
    let mut lines = seen.lines().enumerate().skip(from);
    let found = lines.find(|(_, l)| l.contains(call) && l.contains(of));
    found
        .unwrap_or_else(|| panic!("no {call} of {of} from line {from} on:\n{seen}"))
        .0
}

#[test]
fn without_a_journal_names_are_synced_in_the_order_in_which_none_gets_lost() {
    let (gateway, _root) = without_journal(&["--cache-dir", "none"]);
    for name in ["/from", "/to"] {
        assert_eq!(gateway.request("MKCOL", name, &[], b"").status, 201);
    }
    assert_eq!(gateway.put("/from/f", b"content").status, 201);
    let watch = Fault::attach(&gateway, "fsync,renameat,renameat2", &["-y"]);
    let to = [("Destination", "/to/f")];
    assert_eq!(gateway.request("MOVE", "/from/f", &to, b"").status, 201);
    assert_eq!(gateway.request("MKCOL", "/made", &[], b"").status, 201);
    let seen = watch.seen();
    let target = line(&seen, 0, "fsync(", "/root/to>");
    line(&seen, target, "fsync(", "/root/from>");
    let made = line(&seen, 0, "fsync(", "/root/.tierdav/tmp/");
    let named = line(&seen, made, "rename", "\"made\"");
    line(&seen, named, "fsync(", "/root>");
}

/// An ext4 without a journal empties the device's cache before `syncfs` has written its last inodes.
#[test]
fn where_a_sync_of_all_may_end_without_a_flush_one_of_a_file_follows() {
    let (mut gateway, _root) = without_journal(&[]);
    assert_eq!(gateway.request("MKCOL", "/d", &[], b"").status, 201);
    let watch = Fault::attach(&gateway, "fsync,fdatasync,syncfs", &["-y"]);
    let to = [("Destination", "/e")];
    assert_eq!(gateway.request("COPY", "/d", &to, b"").status, 201);
    assert_eq!(gateway.terminate(), Some(0));
    let seen = watch.seen();
    let copied = line(&seen, 0, "syncfs(", "/root>");
    let flushed = line(&seen, copied, "fsync(", "/root/.tierdav>");
    let logged = line(&seen, flushed, "fdatasync(", "/cache/log/");
    let checkpoint = line(&seen, logged, "syncfs(", "/root/.tierdav/dirty>");
    let flushed = line(&seen, checkpoint, "fsync(", "/root/.tierdav>");
    let cache = line(&seen, flushed, "syncfs(", "/cache/objects>");
    line(&seen, cache, "fsync(", "/cache/objects>");
}

#[test]
fn a_root_that_keeps_no_order_is_told_of() {
    for (journal, flags, told) in [
        ("^has_journal", &[][..], 1),
        // Then each change is synced by itself.
        ("^has_journal", &["--cache-dir", "none"], 0),
        ("^has_journal", &["--durability", "relaxed"], 0),
        ("has_journal", &[], 0),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mkfs = ["mkfs.ext4", "-q", "-F", "-O", journal];
        let _disk = Disk::new(&mkfs, dir.path().join("root"));
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let gateway = Gateway::start_in(dir, flags);
        let log = gateway.log();
        assert_eq!(log.matches("shows no journal").count(), told, "{log}");
    }
}
