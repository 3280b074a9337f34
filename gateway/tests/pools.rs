//! Content in the pools of a real Ceph cluster (`TIERDAV_CEPH_DIR`, see deploy/dev/ceph.sh), and what goes wrong there.
#![cfg(feature = "rados")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::cluster::{OwnCluster, ceph};
use common::{Client, Gateway, content, eventually, pool_flags, pool_flags_in};

fn ceph_ok(args: &[&str]) -> String {
    let done = ceph(args);
    assert!(done.status.success(), "ceph.sh {args:?}: {done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

struct Pools {
    gateway: Gateway,
    flags: Vec<String>,
}

impl Pools {
    fn start(more: &[&str]) -> Pools {
        Pools::start_with(pool_flags(), more)
    }

    fn start_with(mut flags: Vec<String>, more: &[&str]) -> Pools {
        flags.extend(more.iter().map(|f| (*f).to_owned()));
        let refs: Vec<&str> = flags.iter().map(String::as_str).collect();
        Pools {
            gateway: Gateway::start(&refs),
            flags,
        }
    }

    fn flag(&self, name: &str) -> &str {
        let at = self.flags.iter().position(|f| f == name).expect(name);
        &self.flags[at + 1]
    }

    fn rados(&self, pool: &str, args: &[&str]) -> String {
        let namespace = self.flag("--ceph-namespace");
        let mut all = vec!["rados", "-p", pool, "-N", namespace];
        all.extend(args);
        ceph_ok(&all)
    }

    fn objects(&self, pool: &str) -> Vec<String> {
        let listing = self.rados(pool, &["ls"]);
        let names = listing.lines().filter(|n| *n != "tierdav.owner");
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names
    }

    fn scrub(&self, more: &[&str]) -> (Option<i32>, serde_json::Value) {
        let mut flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        flags.extend(more);
        let done = self.gateway.command("scrub", &flags);
        let report =
            serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
        (done.status.code(), report)
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.gateway.admin("GET", "/.tierdav/status").body).expect("status")
    }
}

fn version_of(gateway: &Gateway, path: &str) -> String {
    let etag = gateway.get(path).header("etag").to_owned();
    etag.trim_matches('"').to_owned()
}

#[test]
fn objects_are_striped_flushed_rebuilt_at_start_and_removed_with_their_file() {
    let mut p = Pools::start(&["--object-size", "64KiB", "--max-dirty-age", "1s"]);
    let body = content(1, 200_000);
    assert_eq!(p.gateway.put("/striped", &body).status, 201);
    let id = version_of(&p.gateway, "/striped");
    let names: Vec<String> = (0..4).map(|i| format!("{id}.{i:08x}")).collect();
    assert_eq!(p.objects("tierdav-cache"), names);
    assert_eq!(
        std::fs::metadata(p.gateway.root().join("striped"))
            .unwrap()
            .len(),
        200_000,
        "the placeholder has the content's size"
    );
    eventually("everything is flushed", || {
        p.objects("tierdav-data") == names
    });
    eventually("and the map says so", || {
        p.status()["tiers"]["clean"]["objects"] == 4
    });
    let before = p.status()["tiers"].clone();
    p.gateway.kill_and_restart();
    let after = p.status()["tiers"].clone();
    for key in ["clean", "dirty", "used_bytes"] {
        assert_eq!(before[key], after[key], "{key} is rebuilt exactly");
    }
    assert_eq!(p.gateway.get("/striped").body, body);

    // Ranges within and over objects, and a partial write: a new version of new objects.
    let range = p
        .gateway
        .request("GET", "/striped", &[("Range", "bytes=65530-65545")], b"");
    assert_eq!(range.body, body[65530..65546]);
    let patch = p.gateway.request(
        "PUT",
        "/striped",
        &[("Content-Range", "bytes 131070-131073/200000")],
        b"ABCD",
    );
    assert_eq!(patch.status, 204);
    let mut changed = body.clone();
    changed[131_070..131_074].copy_from_slice(b"ABCD");
    assert_eq!(p.gateway.get("/striped").body, changed);

    let copied = p
        .gateway
        .request("COPY", "/striped", &[("Destination", "/copy")], b"");
    assert_eq!(copied.status, 201);
    assert_eq!(
        p.gateway.request("DELETE", "/striped", &[], b"").status,
        204
    );
    assert_eq!(p.gateway.get("/copy").body, changed);
    assert_eq!(p.gateway.request("MKCOL", "/c", &[], b"").status, 201);
    for i in 0..5 {
        assert_eq!(
            p.gateway
                .put(&format!("/c/{i}"), &content(i, 70_000))
                .status,
            201
        );
    }
    let copied = p
        .gateway
        .request("COPY", "/c/", &[("Destination", "/d/")], b"");
    assert_eq!(copied.status, 201);
    assert_eq!(p.gateway.get("/d/3").body, content(3, 70_000));
    for path in ["/c/", "/d/", "/copy"] {
        assert_eq!(p.gateway.request("DELETE", path, &[], b"").status, 204);
    }
    eventually("no object outlives its file", || {
        p.objects("tierdav-cache").is_empty() && p.objects("tierdav-data").is_empty()
    });
    assert_eq!(p.gateway.terminate(), Some(0));
    assert_eq!(p.scrub(&["--deep"]).0, Some(0));
}

#[test]
fn damage_made_with_the_rados_tool_is_never_served_and_scrub_names_it() {
    let mut p = Pools::start(&["--max-dirty-age", "1s", "--policy", "lru"]);
    let names = ["damaged", "missing", "cached"];
    for (i, name) in names.iter().enumerate() {
        assert_eq!(
            p.gateway
                .put(&format!("/{name}"), &content(i as u64, 50_000))
                .status,
            201
        );
    }
    let ids = names.map(|n| format!("{}.00000000", version_of(&p.gateway, &format!("/{n}"))));
    eventually("all are flushed", || {
        p.status()["tiers"]["clean"]["objects"] == 3
    });
    let junk = p.gateway.dir.path().join("junk");
    std::fs::write(&junk, content(99, 50_000)).unwrap();
    let junk = junk.to_str().unwrap();
    // Other bytes of the same length under the old attribute, in both pools; an object gone from both; a wrong cached copy.
    for pool in ["tierdav-data", "tierdav-cache"] {
        p.rados(pool, &["put", &ids[0], junk]);
        p.rados(pool, &["rm", &ids[1]]);
    }
    p.rados("tierdav-cache", &["put", &ids[2], junk]);
    p.rados("tierdav-data", &["put", "00000000000000ff.00000000", junk]);

    for name in &names[..2] {
        let reply = p.gateway.get(&format!("/{name}"));
        assert_eq!(reply.status, 503, "{name} is not served");
        // Asked less plainly it goes another way through the gateway: the same is said.
        let other =
            p.gateway
                .connect()
                .request("GET", &format!("/{name}"), &[("X-Other", "1")], b"");
        let other = other.unwrap();
        let said = |reply: &common::Reply| {
            let mut headers = reply.headers.clone();
            headers.remove("date");
            (reply.status, headers, reply.body.clone())
        };
        assert_eq!(said(&reply), said(&other));
    }
    assert_eq!(
        p.gateway.get("/cached").body,
        content(2, 50_000),
        "the data pool serves"
    );
    p.gateway.kill_and_restart();
    // Promoted or not by then: what is served is right.
    assert_eq!(p.gateway.get("/cached").body, content(2, 50_000));
    assert_eq!(p.gateway.terminate(), Some(0));

    let (code, report) = p.scrub(&["--deep"]);
    assert_eq!(code, Some(3), "{report}");
    let text = report.to_string();
    for (problem, what) in [
        ("damaged_data", "/damaged"),
        ("missing", "/missing"),
        ("orphan", "00000000000000ff.00000000"),
    ] {
        let found = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["problem"] == problem && f["name"].as_str().unwrap().contains(what));
        assert!(found, "{problem} {what}: {text}");
    }
    let (_, repaired) = p.scrub(&["--deep", "--repair"]);
    assert!(repaired["removed"].as_u64().unwrap() >= 1, "{repaired}");
    let (code, left) = p.scrub(&["--deep"]);
    assert_eq!(code, Some(3), "what is lost stays named: {left}");
    assert!(!left.to_string().contains("orphan"), "{left}");

    // What is whole gets out all the same.
    let flags: Vec<&str> = p.flags.iter().map(String::as_str).collect();
    let done = p.gateway.command("export", &flags);
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["files"], 1, "{report}");
    let mut damaged: Vec<_> = report["damaged"].as_array().unwrap().iter().collect();
    damaged.sort_by_key(|d| d.as_str());
    assert_eq!(damaged, ["/damaged", "/missing"]);
    let cached = std::fs::read(p.gateway.root().join("cached")).unwrap();
    assert_eq!(cached, content(2, 50_000));
}

/// One client that writes and reads until it is told to stop; what was acknowledged must stay.
fn load(address: std::net::SocketAddr, id: u64, stop: &AtomicBool) -> (u64, u64) {
    let (mut done, mut refused) = (0, 0);
    let mut known: Vec<Option<(u64, usize)>> = vec![None; 6];
    let mut version = id << 32;
    let mut random = common::Random::new(id + 77);
    let mut client = Client::connect(address).expect("connect");
    while !stop.load(Ordering::Relaxed) {
        let n = random.below(known.len() as u64) as usize;
        let path = format!("/load-{id}-{n}");
        if known[n].is_none() || random.below(2) == 0 {
            version += 1;
            let len = random.below(300_000) as usize + 1;
            let reply = client
                .request("PUT", &path, &[], &content(version, len))
                .expect("PUT");
            match reply.status {
                201 | 204 => known[n] = Some((version, len)),
                503 | 507 => {
                    assert!(!reply.header("retry-after").is_empty() || reply.status == 507);
                    refused += 1;
                    continue;
                }
                other => panic!("PUT {path}: {other}"),
            }
        } else if let Some((version, len)) = known[n] {
            match client.request("GET", &path, &[], b"") {
                Ok(reply) if reply.status == 200 => {
                    assert_eq!(reply.body, content(version, len), "{path}");
                }
                Ok(reply) => {
                    assert_eq!(reply.status, 503, "GET {path}");
                    refused += 1;
                    continue;
                }
                // Broken off in the middle: never padded.
                Err(_) => {
                    refused += 1;
                    client = Client::connect(address).expect("connect");
                    continue;
                }
            }
        }
        done += 1;
    }
    let mut client = Client::connect(address).expect("connect");
    for (n, known) in known.iter().enumerate() {
        if let Some((version, len)) = known {
            let path = format!("/load-{id}-{n}");
            let mut reply = None;
            eventually("what was acknowledged is read again", || {
                reply = client.request("GET", &path, &[], b"").ok();
                if reply.is_none() {
                    client = Client::connect(address).expect("connect");
                }
                reply.as_ref().is_some_and(|r| r.status != 503)
            });
            let reply = reply.unwrap();
            assert_eq!(
                (reply.status, reply.body == content(*version, *len)),
                (200, true),
                "{path}"
            );
        }
    }
    (done, refused)
}

/// Runs `trouble` under the load of four clients.
fn under_load(gateway: &Gateway, trouble: impl FnOnce()) -> (u64, u64) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|id| {
                let (address, stop) = (gateway.address, &stop);
                scope.spawn(move || load(address, id, stop))
            })
            .collect();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(trouble));
        stop.store(true, Ordering::Relaxed);
        let sums = clients
            .into_iter()
            .map(|c| c.join().expect("a client"))
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        outcome.expect("the trouble itself");
        sums
    })
}

#[test]
fn killed_osds_and_monitor_cost_no_acknowledged_byte_and_service_resumes() {
    let cluster = OwnCluster::up();
    let settings = [
        "--object-size",
        "64KiB",
        "--max-dirty-age",
        "300ms",
        "--cache-capacity",
        "4MiB",
        "--ceph-op-timeout",
        "2s",
        "--policy",
        "lru",
    ];
    let mut p = Pools::start_with(pool_flags_in(cluster.dir()), &settings);
    let (done, refused) = under_load(&p.gateway, || {
        for osd in ["0", "1"] {
            cluster.ceph(&["kill-osd", osd]);
            // The outage itself is the experiment: long enough for operations to time out.
            std::thread::sleep(Duration::from_secs(4));
            cluster.ceph(&["restart-osd", osd]);
        }
        cluster.ceph(&["kill-mon"]);
        cluster.ceph(&["restart-mon"]);
        cluster.ceph(&["net-cut"]);
        std::thread::sleep(Duration::from_secs(3));
        cluster.ceph(&["net-heal"]);
    });
    println!("{done} operations done, {refused} refused");
    assert!(done > 20 && refused > 0, "{done} done, {refused} refused");
    eventually("the gateway is ready", || {
        p.gateway.put("/after", b"x").status < 300
    });
    assert_eq!(p.gateway.terminate(), Some(0));
    let (code, report) = p.scrub(&["--deep"]);
    // What a timed-out write left behind may be an orphan; nothing may be lost.
    let lost = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["problem"] != "orphan");
    assert_eq!(lost.count(), 0, "{code:?} {report}");
}

/// Lets the cluster refuse the gateway that has the lock.
fn shut_out(p: &Pools) {
    let lock = p.rados(
        "tierdav-data",
        &["lock", "info", "tierdav.owner", "owner", "--format", "json"],
    );
    let lock: serde_json::Value = serde_json::from_str(&lock).expect("lock info");
    let address = lock["lockers"][0]["addr"].as_str().expect("address");
    ceph_ok(&["ceph", "osd", "blocklist", "add", address]);
}

#[test]
fn a_gateway_that_had_a_successor_meanwhile_ends_and_does_not_serve_what_it_knew() {
    let mut p = Pools::start(&["--ceph-op-timeout", "5s"]);
    assert_eq!(p.gateway.put("/f", b"before").status, 201);
    // What a successor leaves behind.
    let taken = ["setxattr", "tierdav.owner", "tierdav.taken", "another"];
    p.rados("tierdav-data", &taken);
    shut_out(&p);
    assert_eq!(p.gateway.wait(), Some(1));
    let log = p.gateway.log();
    assert!(log.contains("another gateway had the pools' lock"), "{log}");
    p.gateway.restart();
    assert_eq!(p.gateway.get("/f").body, b"before");
    shut_out(&p);
    eventually("it connects anew", || {
        p.gateway.put("/f", b"after").status == 204
    });
}

#[test]
fn a_gateway_that_the_cluster_shut_out_comes_back_by_itself() {
    let p = Pools::start(&["--ceph-op-timeout", "5s"]);
    assert_eq!(p.gateway.put("/f", b"before").status, 201);
    let (refused, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // All the time: it may have come back before the command that shuts it out has ended.
        scope.spawn(|| {
            while !refused.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
                let status = p.gateway.put("/f", b"during").status;
                refused.store(status == 503, Ordering::Relaxed);
            }
        });
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            shut_out(&p);
            eventually("it is refused", || refused.load(Ordering::Relaxed));
        }));
        over.store(true, Ordering::Relaxed);
        seen.expect("a refusal");
    });
    eventually("it connects anew", || {
        p.gateway.put("/f", b"after").status == 204
    });
    assert_eq!(p.gateway.get("/f").body, b"after");
}

#[test]
fn a_full_pool_is_507_and_takes_again_when_it_has_room() {
    let pool = format!("full-{}", std::process::id());
    ceph_ok(&["ceph", "osd", "pool", "create", &pool, "4", "4"]);
    ceph_ok(&[
        "ceph",
        "osd",
        "pool",
        "set-quota",
        &pool,
        "max_bytes",
        "2000000",
    ]);
    let mut flags = pool_flags();
    let at = flags.iter().position(|f| f == "--data-pool").unwrap();
    flags[at + 1].clone_from(&pool);
    let at = flags.iter().position(|f| f == "--cache-pool").unwrap();
    flags.drain(at..at + 2);
    flags.extend(["--ceph-user", "client.admin"].map(str::to_owned));
    let refs: Vec<&str> = flags.iter().map(String::as_str).collect();
    let gateway = Gateway::start(&refs);
    let mut n = 0;
    eventually("the pool is full", || {
        n += 1;
        let status = gateway.put(&format!("/f{n}"), &content(n, 500_000)).status;
        assert!(matches!(status, 201 | 507), "{status}");
        status == 507
    });
    assert_eq!(
        gateway.get("/f1").body,
        content(1, 500_000),
        "what is stored is served"
    );
    assert_eq!(gateway.request("DELETE", "/f1", &[], b"").status, 204);
    ceph_ok(&["ceph", "osd", "pool", "set-quota", &pool, "max_bytes", "0"]);
    eventually("it takes again", || {
        gateway.put("/again", &content(5, 500_000)).status == 201
    });
    drop(gateway);
    ceph_ok(&[
        "ceph",
        "tell",
        "mon.a",
        "injectargs",
        "--mon-allow-pool-delete=true",
    ]);
    ceph_ok(&[
        "ceph",
        "osd",
        "pool",
        "rm",
        &pool,
        &pool,
        "--yes-i-really-really-mean-it",
    ]);
}

#[test]
fn pools_belong_to_one_root_and_one_gateway() {
    let p = Pools::start(&[]);
    assert_eq!(p.gateway.put("/f", b"x").status, 201);
    let flags: Vec<&str> = p.flags.iter().map(String::as_str).collect();
    let refused = |done: Output, what: &str| {
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{text}");
        assert!(text.contains(what), "{text}");
    };
    refused(
        p.gateway.command("scrub", &flags),
        "served by another instance",
    );
    // Another root on the same namespace: its objects would be orphans there.
    let other = tempfile::tempdir().unwrap();
    let root = other.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let mut flags_other = vec!["--root", root.to_str().unwrap()];
    flags_other.extend(&flags);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tierdav"));
    refused(
        command.arg("import").args(&flags_other).output().unwrap(),
        "ceph_namespace",
    );
    drop(p.gateway.get("/f"));
}

/// Of two gateways that start at once, the one that must wait would write its root's id over that of the other.
#[test]
fn a_new_namespace_becomes_that_of_the_root_that_has_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let flags = pool_flags();
    let namespace = flags.last().unwrap();
    let rados = |args: &[&str]| {
        let at = ["rados", "-p", "tierdav-data", "-N", namespace];
        ceph(&[&at, args].concat())
    };
    let locked = ["lock", "get", "tierdav.owner", "owner", "--lock-cookie"];
    let other = ["other elsewhere", "--lock-duration", "60"];
    let done = rados(&[&locked[..], &other].concat());
    assert!(done.status.success(), "{done:?}");
    // Asked before the gateway waits: what follows has to be done while it does.
    let holder = rados(&["lock", "info", "tierdav.owner", "owner"]);
    let holder: serde_json::Value = serde_json::from_slice(&holder.stdout).unwrap();
    let name = holder["lockers"][0]["name"].as_str().unwrap();
    let log = dir.path().join("log");
    let mut waits = Command::new(env!("CARGO_BIN_EXE_tierdav"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(["--admin-listen", "127.0.0.1:0", "--root"])
        .arg(dir.path().join("root"))
        .args(&flags)
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let logged = || std::fs::read_to_string(&log).unwrap();
    eventually("it waits", || logged().contains("waiting for it to end"));
    let bound = rados(&["getxattr", "tierdav.owner", "tierdav"]);
    let is_bound = bound.status.success();
    let done = rados(&["setxattr", "tierdav.owner", "tierdav", "other"]);
    let broken = ["lock", "break", "tierdav.owner", "owner", name];
    let broken = rados(&[&broken[..], &["--lock-cookie", "other elsewhere"]].concat());
    if is_bound || !broken.status.success() {
        waits.kill().unwrap();
    }
    let ended = waits.wait().unwrap();
    assert!(!is_bound, "it has written its id: {bound:?}");
    assert!(done.status.success(), "{done:?}");
    assert!(broken.status.success(), "{broken:?}");
    assert_eq!(ended.code(), Some(1), "{}", logged());
    let what = "has the data of root other";
    assert!(logged().contains(what), "{}", logged());
    // Nor does it keep the lock.
    let holder = rados(&["lock", "info", "tierdav.owner", "owner"]);
    let holder: serde_json::Value = serde_json::from_slice(&holder.stdout).unwrap();
    assert_eq!(holder["lockers"].as_array().map(Vec::len), Some(0));
}

/// A volume that was cloned while its gateway served: same id, same namespace, and a lock file of its own that is free.
#[test]
fn a_clone_of_a_root_waits_until_the_pools_lock_proves_its_owner_dead() {
    let mut p = Pools::start(&[]);
    assert_eq!(p.gateway.put("/f", b"served").status, 201);
    // Where it is the same lock file, a killed gateway is not waited for.
    p.gateway.kill_and_restart();
    let log = p.gateway.log();
    assert!(log.contains("shut the former owner out"), "{log}");
    assert!(!log.contains("waiting for it to end"), "{log}");
    let elsewhere = tempfile::tempdir().unwrap();
    let clone = elsewhere.path().join("root");
    let copied = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .arg(p.gateway.root())
        .arg(&clone)
        .status();
    assert!(copied.unwrap().success());
    let mut flags = vec!["--root", clone.to_str().unwrap()];
    flags.extend(p.flags.iter().map(String::as_str));
    let scrub = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierdav"));
        command.arg("scrub").args(&flags).output().unwrap()
    };
    let refused = scrub();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("is alive"), "{text}");
    // It was not shut out, neither for the moment nor to come back by itself.
    assert_eq!(p.gateway.put("/f", b"still served").status, 204);
    let log = p.gateway.log();
    assert!(!log.contains("lost the pools' lock"), "{log}");
    let Pools { mut gateway, .. } = p;
    gateway.kill();
    let shut_out = || ceph_ok(&["ceph", "osd", "blocklist", "ls"]).lines().count();
    let before = shut_out();
    let taken = scrub();
    assert!(shut_out() > before, "the dead owner may come back");
    assert_ne!(taken.status.code(), Some(1), "{taken:?}");
    assert!(taken.stdout.starts_with(b"{"), "{taken:?}");
}

#[test]
fn a_root_insists_on_its_pools_and_an_unreachable_cluster_is_named() {
    let mut p = Pools::start(&[]);
    assert_eq!(p.gateway.put("/f", b"x").status, 201);
    assert_eq!(p.gateway.terminate(), Some(0));
    let text = |flags: &[&str]| {
        let done = p.gateway.command("scrub", flags);
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let message = text(&["--cache-dir", "none"]);
    assert!(message.contains("data_pool"), "{message}");
    let conf = p.gateway.dir.path().join("ceph.conf");
    let good = std::fs::read_to_string(p.flag("--ceph-conf")).unwrap();
    let lines = good.lines().map(|l| match l.starts_with("mon host") {
        true => "mon host = v1:127.0.0.1:9".to_owned(),
        false => l.to_owned(),
    });
    std::fs::write(&conf, lines.map(|l| l + "\n").collect::<String>()).unwrap();
    let mut flags: Vec<&str> = p.flags.iter().map(String::as_str).collect();
    let at = flags.iter().position(|f| *f == "--ceph-conf").unwrap();
    flags[at + 1] = conf.to_str().unwrap();
    let message = text(&flags);
    for part in ["127.0.0.1:9", "client.tierdav", "keyring", "no answer"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    flags[at + 1] = p.flag("--ceph-conf");
    let nobody = [&flags[..], &["--ceph-user", "client.nobody"]].concat();
    assert!(text(&nobody).contains("client.nobody"));
    let no_pool = [&flags[..], &["--data-pool", "nowhere"]].concat();
    assert!(text(&no_pool).contains("nowhere"));
}

#[test]
fn plain_files_are_taken_into_pools_and_out_again_and_stay_the_same_resources() {
    let mut flags = pool_flags();
    flags.extend(["--object-size", "64KiB"].map(str::to_owned));
    let mut plain = Gateway::start(&["--cache-dir", "none"]);
    let proppatch = r#"<propertyupdate xmlns="DAV:"><set><prop><m xmlns="urn:t">kept</m></prop></set></propertyupdate>"#;
    let files = [("/a", 200_000), ("/dir/b", 64 << 10), ("/dir/empty", 0)];
    assert_eq!(plain.request("MKCOL", "/dir", &[], b"").status, 201);
    for (i, (path, len)) in files.iter().enumerate() {
        assert_eq!(plain.put(path, &content(i as u64, *len)).status, 201);
    }
    assert_eq!(
        plain
            .request("PROPPATCH", "/a", &[], proppatch.as_bytes())
            .status,
        207
    );
    std::fs::write(plain.root().join("beside"), content(9, 1000)).unwrap();
    std::fs::hard_link(plain.root().join("dir/b"), plain.root().join("linked")).unwrap();
    let all = ["/a", "/dir/b", "/dir/empty", "/beside"];
    let look = |g: &Gateway| {
        all.map(|path| {
            let r = g.get(path);
            (
                r.status,
                r.header("etag").to_owned(),
                r.header("last-modified").to_owned(),
                r.body,
            )
        })
    };
    let mut before = look(&plain);
    assert_eq!(plain.terminate(), Some(0));

    let refs: Vec<&str> = flags.iter().map(String::as_str).collect();
    let run = |command: &str, path: &str| -> serde_json::Value {
        let done = plain.command(command, &[&refs[..], &[path]].concat());
        assert!(done.status.success(), "{command}: {done:?}");
        serde_json::from_slice(&done.stdout).expect("report")
    };
    // A part first, then the rest: what is there already is not moved again.
    let part = run("import", "/dir");
    assert_eq!(
        (part["files"].as_u64(), part["linked"][0].as_str()),
        (Some(1), Some("/dir/b"))
    );
    let rest = run("import", "/");
    assert_eq!(
        (rest["files"].as_u64(), rest["already"].as_u64()),
        (Some(2), Some(1))
    );
    plain.restart_with(&refs);
    let mut pools = Pools {
        gateway: plain,
        flags: flags.clone(),
    };
    let pooled = look(&pools.gateway);
    // What no gateway wrote was called by its inode, which is free now.
    let beside = &mut before[3].1;
    assert_ne!(*beside, pooled[3].1);
    beside.clone_from(&pooled[3].1);
    assert!(pooled == before, "the same resources, from the pools");
    assert!(pools.objects("tierdav-data").len() + pools.objects("tierdav-cache").len() >= 5);
    let body = r#"<propfind xmlns="DAV:"><prop><m xmlns="urn:t"/></prop></propfind>"#;
    let props = pools
        .gateway
        .request("PROPFIND", "/a", &[("Depth", "0")], body.as_bytes());
    assert!(props.text().contains(">kept<"));
    assert_eq!(pools.gateway.terminate(), Some(0));
    assert_eq!(pools.scrub(&["--deep"]).0, Some(0));

    let done = pools.gateway.command("export", &refs);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(
        std::fs::read(pools.gateway.root().join("a")).unwrap(),
        content(0, 200_000)
    );
    assert!(pools.objects("tierdav-data").is_empty() && pools.objects("tierdav-cache").is_empty());
    pools.gateway.restart_with(&["--cache-dir", "none"]);
    assert!(
        look(&pools.gateway) == before,
        "the same resources, from plain files again"
    );
}

/// Mixed load with promotions, flushes and evictions at full tilt, for `TIERDAV_MIXED_SECONDS` (the suite: 300).
#[test]
fn after_a_mixed_load_with_moves_at_full_tilt_a_deep_scrub_finds_nothing() {
    let seconds = std::env::var("TIERDAV_MIXED_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let mut p = Pools::start(&[
        "--object-size",
        "64KiB",
        "--max-dirty-age",
        "100ms",
        "--cache-capacity",
        "2MiB",
        "--migrate-in-flight",
        "16",
        "--policy",
        "lru",
        // A slow operation is no refusal here.
        "--ceph-op-timeout",
        "10m",
    ]);
    let (done, refused) = under_load(&p.gateway, || {
        std::thread::sleep(Duration::from_secs(seconds));
    });
    let tiers = p.status()["tiers"].clone();
    println!(
        "{done} operations in {seconds} s; promoted {}, flushed {}, evicted {}",
        tiers["promoted"], tiers["flushed"], tiers["evicted"]
    );
    assert_eq!(refused, 0);
    for moved in ["promoted", "flushed", "evicted"] {
        assert!(
            tiers[moved]["objects"].as_u64() > Some(20),
            "{moved}: {tiers}"
        );
    }
    assert_eq!(p.gateway.terminate(), Some(0));
    let (code, report) = p.scrub(&["--deep"]);
    assert_eq!(code, Some(0), "{report}");
    assert!(report["checked_objects"].as_u64() > Some(20));
}
