//! What is synced, and in which order, before a change is acknowledged: by what strace sees of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

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
