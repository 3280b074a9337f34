//! Others change the root beside the gateway, or two requests meet: no acknowledged byte is lost, and none is mixed up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Gateway, LOCK, Mount, content, eventually};

/// What is written stays in the cache tier alone for the time of a test.
const DIRTY: [&str; 4] = ["--write-policy", "back", "--max-dirty-age", "1h"];

fn copy(gateway: &Gateway, from: &str, to: &str) {
    let done = Command::new("cp")
        .args(["-a", from, to])
        .current_dir(gateway.root())
        .status();
    assert!(done.unwrap().success());
}

/// Each name's content is the one that belongs to its number.
fn are_whole(gateway: &Gateway, names: &[&str], when: &str) {
    for (n, name) in names.iter().enumerate() {
        let reply = gateway.get(name);
        assert_eq!(reply.status, 200, "{name}, {when}");
        assert!(reply.body == content(n as u64, 40_000), "{name}, {when}");
    }
}

#[test]
fn a_copy_that_is_read_leaves_the_original_in_the_cache() {
    let gateway = Gateway::start(&["--write-policy", "back", "--max-dirty-age", "1s"]);
    assert_eq!(gateway.put("/a", &content(0, 40_000)).status, 201);
    let entries = |dir: PathBuf| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let cached = || {
        entries(gateway.cache().join("objects"))
            .flat_map(entries)
            .collect::<Vec<_>>()
    };
    eventually("flushed and settled", || {
        let dirty = entries(gateway.root().join(".tierdav/dirty")).count();
        dirty == 0
            && cached()
                .iter()
                .any(|p| p.extension().is_some_and(|e| e == "c"))
    });
    let before = cached();
    copy(&gateway, "a", "b");
    for _ in 0..2 {
        assert!(gateway.get("/b").body == content(0, 40_000));
    }
    assert!(before.iter().all(|object| object.exists()), "{before:?}");
    // Written over, it is another matter.
    std::fs::write(gateway.root().join("a"), content(1, 40_000)).unwrap();
    assert!(gateway.get("/a").body == content(1, 40_000));
    assert!(!before.iter().any(|object| object.exists()), "{before:?}");
}

/// `cp -a` copies attributes, and with them whose content a file has.
#[test]
fn the_end_of_a_copy_made_beside_the_gateway_costs_the_original_nothing() {
    let mut gateway = Gateway::start(&DIRTY);
    assert_eq!(
        gateway.request("MKCOL", "/kept", &[], b"").status,
        201,
        "MKCOL"
    );
    let names = ["/deleted", "/overwritten", "/moved-over", "/kept/member"];
    for (n, name) in names.into_iter().enumerate() {
        assert_eq!(gateway.put(name, &content(n as u64, 40_000)).status, 201);
    }
    for name in &names[..3] {
        copy(&gateway, &name[1..], &format!("{}.copy", &name[1..]));
    }
    copy(&gateway, "kept", "kept.copy");
    let delete = |path: &str| gateway.request("DELETE", path, &[], b"").status;
    assert_eq!(delete("/deleted.copy"), 204);
    assert_eq!(gateway.put("/overwritten.copy", b"new").status, 204);
    gateway.put("/other", b"other");
    let to = [("Destination", "/moved-over.copy")];
    assert_eq!(gateway.request("MOVE", "/other", &to, b"").status, 204);
    assert_eq!(delete("/kept.copy"), 204);
    eventually("the deleted collection is gone", || {
        let tmp = std::fs::read_dir(gateway.root().join(".tierdav/tmp"));
        tmp.unwrap().next().is_none()
    });
    for round in 0..2 {
        are_whole(&gateway, &names, &format!("round {round}"));
        gateway.kill_and_restart();
    }
    let drained = gateway.admin("POST", "/.tierdav/drain");
    assert_eq!(drained.status, 200, "{}", drained.text());
    are_whole(&gateway, &names, "drained");
}

#[test]
fn the_end_of_a_symbolic_link_costs_what_it_leads_to_nothing() {
    let mut gateway = Gateway::start(&[&DIRTY[..], &["--symlinks", "inside-root"][..]].concat());
    let names = ["/deleted", "/overwritten", "/moved-over"];
    for (n, name) in names.into_iter().enumerate() {
        assert_eq!(gateway.put(name, &content(n as u64, 40_000)).status, 201);
        let link = gateway.root().join(format!("{}.link", &name[1..]));
        std::os::unix::fs::symlink(&name[1..], link).unwrap();
    }
    let linked = gateway.get("/deleted.link");
    assert!(linked.body == content(0, 40_000));
    let deleted = gateway.request("DELETE", "/deleted.link", &[], b"");
    assert_eq!(deleted.status, 204);
    assert_eq!(gateway.put("/overwritten.link", b"new").status, 204);
    gateway.put("/other", b"other");
    let to = [("Destination", "/moved-over.link")];
    assert_eq!(gateway.request("MOVE", "/other", &to, b"").status, 204);
    for round in 0..2 {
        are_whole(&gateway, &names, &format!("round {round}"));
        assert_eq!(gateway.get("/deleted.link").status, 404);
        assert_eq!(gateway.get("/overwritten.link").body, b"new");
        gateway.kill_and_restart();
    }
}

/// The first part of something new, and all of it by somebody else meanwhile.
#[test]
fn the_first_part_of_a_file_never_cuts_off_what_was_put_meanwhile() {
    let gateway = Gateway::start(&[]);
    let mut slow = gateway.connect();
    let part = [("Content-Range", "bytes 0-4/*"), ("Expect", "100-continue")];
    slow.send_head("PUT", "/f", &part, 5).unwrap();
    assert_eq!(slow.reply_head().unwrap().status, 100);
    assert_eq!(gateway.put("/f", b"all of twenty bytes!").status, 201);
    slow.send(b"PART!").unwrap();
    let reply = slow.reply(false).unwrap();
    let expected: &[u8] = match reply.status {
        503 => b"all of twenty bytes!",
        _ => b"PART!f twenty bytes!",
    };
    assert_eq!(
        gateway.get("/f").text(),
        String::from_utf8_lossy(expected),
        "{}",
        reply.status
    );
}

/// A member is replaced while its collection is copied: by PUT, whose bytes are in the cache at first, and by others beside.
#[test]
fn a_copy_of_a_collection_has_each_member_in_one_version() {
    const LENS: [usize; 2] = [200_000, 300_000];
    let gateway = Gateway::start(&DIRTY);
    gateway.request("MKCOL", "/d", &[], b"");
    let version = |n: u64| content(n, LENS[(n % 2) as usize]);
    assert_eq!(gateway.put("/d/f", &version(1)).status, 201);
    let over = std::sync::atomic::AtomicBool::new(false);
    let put_until = std::sync::atomic::AtomicU64::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = gateway.connect();
            let aside = gateway.root().join("aside");
            for n in (2..).step_by(2) {
                if over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                std::fs::write(&aside, version(n)).unwrap();
                put_until.store(n + 1, std::sync::atomic::Ordering::SeqCst);
                std::fs::rename(&aside, gateway.root().join("d/f")).unwrap();
                let put = client.request("PUT", "/d/f", &[], &version(n + 1));
                assert_eq!(put.unwrap().status, 204);
            }
        });
        let check = || {
            let mut client = gateway.connect();
            let began = Instant::now();
            let mut copies = 0;
            while began.elapsed() < Duration::from_secs(6) {
                let oldest = put_until.load(std::sync::atomic::Ordering::SeqCst);
                let to = [("Destination", "/e")];
                let copied = client.request("COPY", "/d", &to, b"").unwrap();
                if ![201, 204].contains(&copied.status) {
                    return Err(format!("COPY: {}", copied.status));
                }
                let newest = put_until.load(std::sync::atomic::Ordering::SeqCst);
                let got = client.request("GET", "/e/f", &[], b"").unwrap();
                let range = oldest.saturating_sub(2).max(1)..=newest + 1;
                if got.status != 200 || !range.clone().any(|n| got.body == version(n)) {
                    let zeros = got.body.iter().filter(|b| **b == 0).count();
                    return Err(format!(
                        "copy {copies}: {} bytes of none of {range:?}, {zeros} of them zero",
                        got.body.len()
                    ));
                }
                copies += 1;
            }
            println!("{copies} copies");
            Ok(())
        };
        let checked = check();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(checked, Ok(()));
    });
}

/// Half a record is what a full disk leaves of the one that did not fit.
#[test]
fn a_lock_that_is_granted_after_the_disk_was_full_outlives_a_kill() {
    let mut gateway = Gateway::start(&[]);
    for n in 0..200 {
        assert_eq!(gateway.put(&format!("/{n}"), b"x").status, 201);
    }
    // Nothing is left in the cache, which is replaced by a small one.
    assert_eq!(gateway.admin("POST", "/.tierdav/drain").status, 200);
    assert_eq!(gateway.terminate(), Some(0));
    let cache = gateway.cache();
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::create_dir(&cache).unwrap();
    let _small = Mount::tmpfs(cache.clone(), "4m");
    gateway.restart();
    // A record of a long one: room for some is there already when the disk is full.
    let owner = format!("<owner>{}</owner></lockinfo>", "o".repeat(4000));
    let long = String::from_utf8_lossy(LOCK).replace("</lockinfo>", &owner);
    let headers = [("Timeout", "Second-1800")];
    let lock = |path: &str| gateway.request("LOCK", path, &headers, long.as_bytes());
    assert_eq!(lock("/0").status, 200);
    let filler = cache.join("filler");
    let full = std::fs::write(&filler, vec![0; 8 << 20]);
    assert!(full.is_err(), "it should be full");
    let refused = (1..150).find(|n| lock(&format!("/{n}")).status != 200);
    let refused = refused.expect("a full disk");
    std::fs::remove_file(&filler).unwrap();
    let granted = (150..160).find(|n| lock(&format!("/{n}")).status == 200);
    let granted = granted.expect("a lock");
    gateway.kill_and_restart();
    for n in [0, refused - 1, granted] {
        let stranger = gateway.put(&format!("/{n}"), b"stranger");
        assert_eq!(stranger.status, 423, "the lock on /{n} is forgotten");
    }
}

/// A LOCK makes an empty resource, which goes with the lock if nobody ever PUTs anything: also where nobody hears of the lock.
#[test]
fn a_lock_whose_asker_goes_away_leaves_no_resource() {
    let gateway = Gateway::start(&[]);
    for n in 0..300 {
        let mut client = gateway.connect();
        let short = [("Timeout", "Second-1")];
        client
            .send_head("LOCK", &format!("/{n}"), &short, LOCK.len())
            .unwrap();
        client.send(LOCK).unwrap();
        // Now and then, later.
        std::thread::sleep(Duration::from_micros(n % 10 * 100));
    }
    eventually("what the LOCKs made is gone", || {
        let names = std::fs::read_dir(gateway.root()).unwrap();
        names
            .filter(|e| e.as_ref().unwrap().file_name() != ".tierdav")
            .count()
            == 0
    });
}

/// By mistake: it is refused, and touches nothing of the one that runs.
#[test]
fn a_second_gateway_on_the_same_root_leaves_the_trace_of_the_first_alone() {
    let mut gateway = Gateway::start(&[]);
    let trace = gateway.cache().join("trace");
    let segments = |ending: &str| {
        let all = std::fs::read_dir(&trace).unwrap();
        let paths = all.map(|e| e.unwrap().path());
        let mut of = paths
            .filter(|p| p.extension().is_some_and(|e| e == ending))
            .collect::<Vec<_>>();
        of.sort();
        of
    };
    for n in 0..20 {
        assert_eq!(gateway.put(&format!("/{n}"), &content(n, 1000)).status, 201);
    }
    eventually("the trace is on the disk", || {
        let live = segments("live");
        !live.is_empty() && std::fs::metadata(&live[0]).unwrap().len() > 1000
    });
    let before = segments("live");
    for _ in 0..20 {
        let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let refused = gateway.command("serve", &free);
        assert!(!refused.status.success());
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(why.contains("served by another instance"), "{why}");
        assert_eq!(segments("live"), before);
    }
    assert_eq!(gateway.terminate(), Some(0));
    assert_eq!((segments("live").len(), segments("parquet").len()), (0, 1));
}

/// What was moved or deleted is not locked where it was, though nobody waited to hear of it.
#[test]
fn a_move_or_delete_whose_asker_goes_away_takes_the_locks_along() {
    let gateway = Gateway::start(&[]);
    let (mut moved, mut deleted) = (0, 0);
    for n in 0..200_u64 {
        let path = format!("/{n}");
        assert_eq!(gateway.put(&path, b"x").status, 201);
        let locked = gateway.request("LOCK", &path, &[("Timeout", "Second-1800")], LOCK);
        let token = format!("({})", locked.header("lock-token"));
        let to = format!("/{n}.moved");
        let mut client = gateway.connect();
        let headers = [("If", token.as_str()), ("Destination", to.as_str())];
        let method = ["MOVE", "DELETE"][(n % 2) as usize];
        let headers = &headers[..2 - (n % 2) as usize];
        client.send_head(method, &path, headers, 0).unwrap();
        std::thread::sleep(Duration::from_micros(n / 2 % 10 * 100));
        drop(client);
    }
    for n in 0..200_u64 {
        let path = format!("/{n}");
        let there = gateway.request("HEAD", &path, &[], b"").status;
        if there == 200 {
            // It had not been begun when the client went away.
            continue;
        }
        eventually("where nothing is, nothing is locked", || {
            gateway.put(&path, b"y").status == 201
        });
        match n % 2 {
            0 => moved += 1,
            _ => deleted += 1,
        }
    }
    assert!(moved > 0 && deleted > 0, "{moved} moved, {deleted} deleted");
}

/// By who tidies up: what cannot be made for it is the server's trouble (a client gives up what is answered 404).
#[test]
fn without_the_directory_of_unfinished_files_changes_are_refused_as_the_server_s_trouble() {
    let mut gateway = Gateway::start(&[]);
    assert_eq!(gateway.put("/f", b"x").status, 201);
    std::fs::remove_dir_all(gateway.root().join(".tierdav/tmp")).unwrap();
    let long = content(1, 3 << 20);
    let changes = [
        ("PUT", "/new", &b"new"[..]),
        ("PUT", "/f", b"over"),
        ("PUT", "/long", &long),
        ("MKCOL", "/d", b""),
        ("COPY", "/f", b""),
    ];
    let change = |gateway: &Gateway, (method, path, body): (&str, &str, &[u8])| {
        let to = [("Destination", "/copy")];
        let headers = if method == "COPY" { &to[..] } else { &[] };
        gateway.request(method, path, headers, body).status
    };
    for each in changes {
        assert_eq!(change(&gateway, each), 503, "{} {}", each.0, each.1);
    }
    assert_eq!(gateway.get("/f").body, b"x");
    gateway.kill_and_restart();
    for each in changes {
        let status = change(&gateway, each);
        assert!(status < 300, "{} {}: {status}", each.0, each.1);
    }
}

/// rename(2) does nothing where both are names of one file.
#[test]
fn a_move_to_another_name_of_the_same_file_takes_the_old_name_away() {
    for flags in [&[][..], &["--cache-dir", "none"]] {
        let mut gateway = Gateway::start(flags);
        for name in ["/flushed", "/dirty"] {
            assert_eq!(gateway.put(name, &content(1, 40_000)).status, 201);
            if name == "/flushed" {
                assert_eq!(gateway.admin("POST", "/.tierdav/drain").status, 200);
            }
            let path = gateway.root().join(&name[1..]);
            std::fs::hard_link(&path, path.with_extension("linked")).unwrap();
            let linked = format!("{name}.linked");
            let to = [("Destination", linked.as_str())];
            assert_eq!(gateway.request("MOVE", name, &to, b"").status, 204);
            assert_eq!(gateway.get(name).status, 404, "{name}");
            assert!(gateway.get(&linked).body == content(1, 40_000), "{name}");
        }
        gateway.kill_and_restart();
        for name in ["/flushed", "/dirty"] {
            assert_eq!(gateway.get(name).status, 404, "{name}");
            let linked = gateway.get(&format!("{name}.linked"));
            assert!(linked.body == content(1, 40_000), "{name}");
        }
    }
}
