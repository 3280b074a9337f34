//! System calls of a running gateway that fail, by strace's fault injection: what fails is refused as the server's trouble
//! (5xx), nothing acknowledged is lost, nothing wrong is served, and service goes on when the trouble ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::fault::Fault;
use common::storm::{MOVING, end, gather};
use common::{Gateway, LOCK, Mount, Random, eventually};

/// What fails, and how. `pwrite64` and the like are of files only: the sockets and the runtime use other calls.
const FAULTS: [(&str, &str); 16] = [
    ("fdatasync,fsync", "EIO"),
    ("syncfs", "EIO"),
    ("pwrite64,pwritev,pwritev2", "ENOSPC"),
    ("pwrite64,pwritev,pwritev2", "EIO"),
    ("pread64,preadv,preadv2", "EIO"),
    ("openat,openat2", "EMFILE"),
    ("openat,openat2", "EIO"),
    ("linkat", "EIO"),
    ("renameat,renameat2,rename", "EIO"),
    ("unlinkat,unlink", "EIO"),
    ("mkdirat,mkdir", "ENOSPC"),
    ("setxattr,fsetxattr", "ENOSPC"),
    ("getxattr,fgetxattr", "EIO"),
    ("ftruncate,fallocate", "ENOSPC"),
    ("statx,newfstatat,fstat", "EIO"),
    ("getdents64", "EIO"),
];

/// Times that all of them are gone through at most: a slow disk lets few calls happen in the time of one.
const ROUNDS_MAX: usize = 10;

fn trouble(flags: &[&str]) {
    let mut random = Random::from_env();
    let mut gateway = Gateway::start(flags);
    let mut storms = gather(&gateway, &mut random, 3, true);
    let (mut injected, mut refused) = (0, 0);
    let rounds = FAULTS.iter().cycle().take(ROUNDS_MAX * FAULTS.len());
    for (n, (calls, error)) in rounds.enumerate() {
        if n >= FAULTS.len() && injected > 100 && refused > 20 {
            break;
        }
        let (address, stop) = (gateway.address, AtomicBool::new(false));
        let every = 3 + random.below(20);
        let done = std::thread::scope(|scope| {
            let running: Vec<_> = storms
                .iter_mut()
                .map(|s| {
                    let stop = &stop;
                    scope
                        .spawn(move || (s.run_until(address, stop), std::mem::take(&mut s.refused)))
                })
                .collect();
            let fault = Fault::inject(&gateway, calls, error, every);
            // The time under the fault is the experiment.
            std::thread::sleep(Duration::from_millis(1200));
            injected += fault.end();
            stop.store(true, Ordering::Relaxed);
            let ends = running.into_iter().map(|r| r.join().expect("a storm"));
            ends.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
        });
        println!(
            "{error} of {calls}, one in {every}: {} done, {} refused; {injected} failures so far",
            done.0, done.1
        );
        refused += done.1;
        eventually("service goes on", || {
            gateway.put("/after", b"x").status < 300
        });
        gateway.kill_and_restart();
        for storm in &mut storms {
            storm.verify(&gateway);
        }
    }
    assert!(
        injected > 100 && refused > 20,
        "{injected} calls failed, {refused} requests"
    );
    end(&mut gateway, flags);
}

/// davfs2 sends again what was answered 503. By then the name has the same bytes, but perhaps only in the kernel's memory.
#[test]
fn what_is_sent_again_after_a_failed_sync_is_synced() {
    for len in [1000, 2 << 20] {
        let gateway = Gateway::start(&["--cache-dir", "none"]);
        let content = common::content(1, len);
        assert_eq!(gateway.put("/other", b"other").status, 201);
        // Of each thread's: the file, and then its directory.
        let fault = Fault::inject_when(&gateway, "fsync", "EIO", "2");
        assert_eq!(gateway.put("/f", &content).status, 503);
        assert_eq!(fault.end(), 1);
        assert!(gateway.get("/f").body == content);
        let watch = Fault::attach(&gateway, "fsync", &[]);
        assert_eq!(gateway.put("/f", &content).status, 204);
        assert!(watch.seen().contains("fsync("), "204 without a sync");
    }
}

/// The kernel's CephFS and NFS know neither `RENAME_NOREPLACE` nor `RENAME_EXCHANGE`, which nothing but these calls asks for.
#[test]
fn a_file_system_that_renames_only_plainly_does_for_all_changes() {
    let without: &[&str] = &["--cache-dir", "none"];
    for flags in [&[][..], without] {
        let mut gateway = Gateway::start(flags);
        let fault = Fault::inject_when(&gateway, "renameat2", "EINVAL", "1+");
        let change = |method: &str, path: &str, to: &str, status: u16| {
            let to = [("Destination", to)];
            let headers = if to[0].1.is_empty() { &[][..] } else { &to[..] };
            let body = if method == "PUT" {
                path.as_bytes()
            } else {
                b""
            };
            let reply = gateway.request(method, path, headers, body);
            assert_eq!(reply.status, status, "{method} {path}");
        };
        change("PUT", "/new", "", 201);
        change("PUT", "/new", "", 204);
        change("MKCOL", "/d", "", 201);
        change("MKCOL", "/d", "", 405);
        change("PUT", "/d/member", "", 201);
        change("MOVE", "/new", "/d/moved", 201);
        change("COPY", "/d", "/e", 201);
        change("MOVE", "/d", "/f", 201);
        change("MKCOL", "/g", "", 201);
        change("PUT", "/g/goes", "", 201);
        change("MOVE", "/f", "/g", 204);
        change("COPY", "/g", "/e", 204);
        change("PUT", "/file", "", 201);
        change("MOVE", "/file", "/g", 204);
        change("DELETE", "/none", "", 404);
        assert!(fault.end() > 8);
        for _ in 0..2 {
            assert_eq!(gateway.get("/g").body, b"/file");
            assert_eq!(gateway.get("/e/member").body, b"/d/member");
            assert_eq!(gateway.get("/e/moved").body, b"/new");
            for gone in ["/new", "/d", "/f", "/g/goes", "/e/goes", "/file"] {
                assert_eq!(gateway.get(gone).status, 404, "{gone}");
            }
            eventually("nothing is left aside", || {
                let tmp = std::fs::read_dir(gateway.root().join(".tierdav/tmp"));
                tmp.unwrap().next().is_none()
            });
            gateway.kill_and_restart();
        }
    }
}

/// Neither the log nor what stands in for it can be synced. More changes than the log lets be under way.
#[test]
fn a_cache_disk_that_syncs_nothing_refuses_changes_and_lets_them_through_when_it_does_again() {
    let mut gateway = Gateway::start(&["--max-dirty-age", "1h"]);
    assert_eq!(gateway.put("/before", b"before").status, 201);
    // Counted for each thread: of a second one the first call would be let through, too.
    let fault = Fault::inject_when(&gateway, "fdatasync,fsync,syncfs", "EIO", "1+");
    let mut client = gateway.connect();
    for n in 0..300 {
        let body = format!("refused {n}");
        let reply = client.request("PUT", &format!("/{n}"), &[], body.as_bytes());
        let status = reply.expect("a reply").status;
        assert!((500..600).contains(&status), "{n}: {status}");
    }
    assert!(fault.end() > 300);
    eventually("changes are made again", || {
        gateway.put("/after", b"after").status < 300
    });
    for _ in 0..2 {
        assert_eq!(gateway.get("/before").body, b"before");
        assert_eq!(gateway.get("/after").body, b"after");
        for n in 0..300 {
            // Whole or not at all: a change may have been made before its sync failed.
            let found = gateway.get(&format!("/{n}"));
            let whole = found.body == format!("refused {n}").as_bytes();
            assert!(found.status == 404 || whole, "/{n}: {}", found.status);
        }
        gateway.kill_and_restart();
    }
}

#[test]
fn failing_system_calls_cost_no_acknowledged_byte_with_a_cache_tier() {
    trouble(&MOVING);
}

#[test]
fn failing_system_calls_cost_no_acknowledged_byte_without_a_cache_tier() {
    trouble(&["--cache-dir", "none"]);
}

#[cfg(feature = "rados")]
#[test]
fn failing_system_calls_cost_no_acknowledged_byte_over_pools() {
    let flags = common::storm::moving_over_pools();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    trouble(&flags);
}

fn moves(gateway: &Gateway, result: &str) -> u64 {
    let text = gateway.admin("GET", "/.tierdav/metrics").text();
    let end = format!("result=\"{result}\"}} ");
    let lines = text
        .lines()
        .filter(|l| l.starts_with("tierdav_moves_total"));
    let counts = lines.filter_map(|l| l.split_once(&end)?.1.parse::<u64>().ok());
    counts.sum()
}

#[test]
fn flushes_that_fail_are_counted_and_named_in_the_log_with_their_cause() {
    let gateway = Gateway::start(&["--max-dirty-age", "1h", "--log-level", "warn"]);
    let body = common::content(1, 300_000);
    for name in ["/1", "/2", "/3"] {
        assert_eq!(gateway.put(name, &body).status, 201);
    }
    let writes = "pwrite64,pwritev,pwritev2,copy_file_range";
    let fault = Fault::inject(&gateway, writes, "ENOSPC", 1);
    let sooner = gateway.request_admin(
        "POST",
        "/.tierdav/policy",
        b"{\"max_dirty_age\": \"100ms\"}",
    );
    assert_eq!(sooner.status, 200, "{}", sooner.text());
    eventually("flushes fail", || moves(&gateway, "failed") > 1);
    let log = gateway.log();
    let said: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("could not be moved"))
        .collect();
    // Once a minute, however many they are.
    assert_eq!(said.len(), 1, "{log}");
    for part in [" WARN ", "action=flush", "object=", "no space"] {
        assert!(said[0].contains(part), "{part}: {log}");
    }
    fault.end();
    let flushed = |name| std::fs::read(gateway.root().join(name)).is_ok_and(|now| now == body);
    eventually("all are flushed", || {
        ["1", "2", "3"].into_iter().all(flushed)
    });
}

/// davfs2 gives an upload up for all of them; its user is told what there is too little of.
#[test]
fn a_quota_of_the_file_system_and_too_large_a_file_are_not_told_as_a_full_disk() {
    let gateway = Gateway::start(&["--cache-dir", "none"]);
    let body = common::content(1, 3_000_000);
    let writes = "pwrite64,pwritev,pwritev2,fallocate";
    for (error, status, told) in [
        ("ENOSPC", 507, "sufficient-disk-space"),
        ("EDQUOT", 507, "quota-not-exceeded"),
        ("EFBIG", 413, "too large"),
    ] {
        let fault = Fault::inject(&gateway, writes, error, 1);
        let reply = gateway.put("/new", &body);
        assert_eq!(reply.status, status, "{error}: {}", reply.text());
        assert!(reply.text().contains(told), "{error}: {}", reply.text());
        assert!(fault.end() > 0);
    }
    assert_eq!(gateway.put("/new", &body).status, 201);
}

#[test]
fn a_lock_that_a_quota_of_the_file_system_leaves_no_room_for_is_refused_as_such() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put("/a", b"a").status, 201);
    let journal = gateway.cache().join("state/locks.journal");
    assert!(journal.exists());
    let lock = || gateway.request("LOCK", "/a", &[("Timeout", "Second-1800")], LOCK);
    for (error, told) in [
        ("ENOSPC", "sufficient-disk-space"),
        ("EDQUOT", "quota-not-exceeded"),
    ] {
        let inject = format!("inject=pwrite64:error={error}");
        let path = journal.to_str().unwrap();
        let fault = Fault::attach(&gateway, "pwrite64", &["-P", path, "-e", &inject]);
        let reply = lock();
        assert_eq!(reply.status, 507, "{error}: {}", reply.text());
        assert!(reply.text().contains(told), "{error}: {}", reply.text());
        assert!(fault.end() > 0);
    }
    assert_eq!(lock().status, 200);
}

#[test]
fn moves_that_are_not_wanted_any_more_are_no_failures() {
    let small = ["--cache-capacity", "4MiB", "--object-size", "64KiB"];
    let flags = [&small[..], &["--max-dirty-age", "300ms", "--policy", "lru"]].concat();
    let gateway = Gateway::start(&flags);
    for n in 0..60 {
        let body = common::content(n, 700_000);
        assert!(gateway.put(&format!("/{}", n % 40), &body).status < 300);
    }
    for n in 0..40 {
        let path = format!("/{n}");
        assert_eq!(gateway.get(&path).status, 200);
        assert_eq!(gateway.request("DELETE", &path, &[], b"").status, 204);
    }
    assert!(moves(&gateway, "ok") > 0);
    assert_eq!(moves(&gateway, "failed"), 0);
    assert!(!gateway.log().contains("could not be moved"));
}

#[test]
fn a_full_disk_under_the_trace_fills_with_no_names_and_the_trace_goes_on_when_there_is_room() {
    let mut gateway = Gateway::start(&[]);
    assert_eq!(gateway.terminate(), Some(0));
    let trace = gateway.cache().join("trace");
    let _mount = Mount::tmpfs(trace.clone(), "64k");
    let fill = trace.join("fill");
    std::fs::write(&fill, vec![0; 65536]).unwrap();
    gateway.restart();
    let errors = || {
        let text = gateway.admin("GET", "/.tierdav/metrics").text();
        let mut lines = text.lines();
        let line = lines.find_map(|l| l.strip_prefix("tierdav_trace_errors_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    for n in 0..200 {
        assert_eq!(gateway.put(&format!("/{n}"), b"content").status, 201);
    }
    eventually("the trace fails", || errors() > 0);
    let names = std::fs::read_dir(&trace).unwrap().count();
    assert!(
        names < 3 && errors() < 100,
        "{names} names, {} errors",
        errors()
    );
    std::fs::remove_file(&fill).unwrap();
    eventually("the trace goes on", || {
        gateway.get("/1");
        std::fs::read_dir(&trace).unwrap().count() > 0
    });
}

fn status(gateway: &Gateway) -> String {
    let done = gateway.command_alone("status", &["--admin", &gateway.admin.to_string()]);
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn status_says_that_a_disk_is_full_and_that_the_intent_log_is_kept() {
    let mut gateway = Gateway::start(&[]);
    assert_eq!(gateway.terminate(), Some(0));
    let full = Mount::tmpfs(gateway.root(), "17m");
    std::fs::remove_dir_all(gateway.cache()).unwrap();
    gateway.restart();
    assert!(
        !status(&gateway).contains("TROUBLE"),
        "{}",
        status(&gateway)
    );
    std::fs::write(gateway.root().join("fill"), vec![0; 3 << 20]).unwrap();
    let said = status(&gateway);
    let root = gateway.root().display().to_string();
    let line = said.lines().find(|l| l.starts_with("TROUBLE")).unwrap();
    assert!(line.contains(&root) && line.contains("is full"), "{said}");
    std::fs::remove_file(gateway.root().join("fill")).unwrap();

    let fault = Fault::inject(&gateway, "syncfs", "EIO", 1);
    eventually("a checkpoint fails", || {
        gateway.put("/f", b"content");
        status(&gateway).contains("the intent log is kept")
    });
    fault.end();
    gateway.kill();
    drop(full);
}
