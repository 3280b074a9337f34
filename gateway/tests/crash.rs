//! kill -9 under a storm of PUT, MOVE, DELETE, MKCOL and PROPPATCH, restart, and compare with what was acknowledged.
//!
//! `TIERDAV_KILLS=200` runs the long form; `TIERDAV_SEED=n` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Client, Gateway, Random, content};

const CLIENTS: u64 = 4;
const NAMES: u64 = 12;

/// What a path may hold: each a version with its length, or nothing.
type Allowed = Vec<Option<(u64, usize)>>;

/// One client's own record of its directory.
struct Storm {
    id: u64,
    random: Random,
    versions: u64,
    state: BTreeMap<String, Allowed>,
    /// A MOVE under way: both paths as they were, or both as they will be; nothing between.
    moving: Option<(String, String)>,
    /// Collections made and properties set; the last one may be under way.
    marks: Vec<Mark>,
}

/// Something besides content that was asked for.
struct Mark {
    path: String,
    /// The property's value; `None` is a collection.
    value: Option<String>,
    acknowledged: bool,
}

impl Storm {
    fn path(&self, n: u64) -> String {
        format!("/c{}/f{n}", self.id)
    }

    fn known(&self, path: &str) -> Option<(u64, usize)> {
        self.state
            .get(path)
            .and_then(|a| a.last().copied())
            .flatten()
    }

    /// Runs until the connection breaks; returns how many operations were acknowledged.
    fn run(&mut self, gateway: std::net::SocketAddr) -> u64 {
        let mut acknowledged = 0;
        let Ok(mut client) = Client::connect(gateway) else {
            return 0;
        };
        while self.step(&mut client).is_some() {
            acknowledged += 1;
        }
        acknowledged
    }

    /// One operation. While it is under way both outcomes are allowed; `None` is a broken connection.
    fn step(&mut self, client: &mut Client) -> Option<()> {
        let (a, b) = (self.random.below(NAMES), self.random.below(NAMES));
        let (from, to) = (self.path(a), self.path(b));
        let old_from = self.known(&from);
        let old_to = self.known(&to);
        match self.random.below(10) {
            0..6 => {
                self.versions += 1;
                let version = self.id << 48 | self.versions;
                let len = match self.random.below(8) {
                    0 => 0,
                    1..6 => self.random.below(20_000) as usize,
                    _ => self.random.below(3 << 20) as usize,
                };
                // Empty content looks the same in every version.
                let version = if len == 0 { 0 } else { version };
                self.state
                    .insert(from.clone(), vec![old_from, Some((version, len))]);
                let reply = client
                    .request("PUT", &from, &[], &content(version, len))
                    .ok()?;
                assert!(
                    matches!(reply.status, 201 | 204),
                    "PUT {from}: {}",
                    reply.status
                );
                self.state.insert(from, vec![Some((version, len))]);
            }
            6..8 if from != to && old_from.is_some() => {
                self.state.insert(from.clone(), vec![old_from, None]);
                self.state.insert(to.clone(), vec![old_to, old_from]);
                self.moving = Some((from.clone(), to.clone()));
                let destination = to.clone();
                let reply = client
                    .request("MOVE", &from, &[("Destination", destination.as_str())], b"")
                    .ok()?;
                assert!(
                    matches!(reply.status, 201 | 204),
                    "MOVE {from}: {}",
                    reply.status
                );
                self.moving = None;
                self.state.insert(from, vec![None]);
                self.state.insert(to, vec![old_from]);
            }
            8 if old_from.is_some() => {
                self.state.insert(from.clone(), vec![old_from, None]);
                let reply = client.request("DELETE", &from, &[], b"").ok()?;
                assert_eq!(reply.status, 204, "DELETE {from}");
                self.state.insert(from, vec![None]);
            }
            9 if self.random.below(2) == 0 => {
                self.versions += 1;
                let (path, value) = match self.random.below(2) {
                    0 => (format!("/c{}/dir{}", self.id, self.versions), None),
                    _ => (
                        format!("/c{}", self.id),
                        Some(format!("v{}", self.versions)),
                    ),
                };
                self.marks.push(Mark {
                    path: path.clone(),
                    value: value.clone(),
                    acknowledged: false,
                });
                let status = match value {
                    None => client.request("MKCOL", &path, &[], b"").ok()?.status,
                    Some(value) => {
                        client
                            .request("PROPPATCH", &path, &[], proppatch(&value).as_bytes())
                            .ok()?
                            .status
                    }
                };
                assert!(matches!(status, 201 | 207), "{path}: {status}");
                self.marks.iter_mut().for_each(|m| m.acknowledged = true);
            }
            _ => {
                let reply = client.request("GET", &from, &[], b"").ok()?;
                check(&from, &[old_from], reply.status, &reply.body);
            }
        }
        Some(())
    }

    /// Reads everything back; what was under way becomes what it turned out to be.
    fn verify(&mut self, gateway: &Gateway) {
        let mut client = gateway.connect();
        let before = self.state.clone();
        for (path, allowed) in &mut self.state {
            let reply = client
                .request("GET", path, &[], b"")
                .expect("GET after restart");
            let found = check(path, allowed, reply.status, &reply.body);
            if found.is_some() {
                let again = client.request("HEAD", path, &[], b"").expect("HEAD");
                assert_eq!(again.header("etag"), reply.header("etag"), "{path}");
            }
            *allowed = vec![found];
        }
        if let Some((from, to)) = self.moving.take() {
            let now = (self.known(&from), self.known(&to));
            let old = (before[&from][0], before[&to][0]);
            assert!(
                now == old || now == (None, old.0),
                "MOVE {from} {to}: {old:?} became {now:?}"
            );
        }
        let mut values: Vec<Mark> = Vec::new();
        for mark in self.marks.drain(..) {
            if mark.value.is_some() {
                values.push(mark);
                continue;
            }
            let reply = client
                .request("PROPFIND", &mark.path, &[("Depth", "0")], b"")
                .expect("PROPFIND");
            assert!(
                reply.status == 207 || !mark.acknowledged,
                "MKCOL {}: {}",
                mark.path,
                reply.status
            );
        }
        if let Some(last) = values.pop() {
            let reply = client
                .request("PROPFIND", &last.path, &[("Depth", "0")], FIND.as_bytes())
                .expect("PROPFIND");
            let has = |m: &Mark| {
                m.value
                    .as_ref()
                    .is_some_and(|v| reply.text().contains(&format!(">{v}<")))
            };
            let kept = has(&last) || !last.acknowledged && values.last().is_none_or(has);
            assert!(kept, "PROPPATCH {}: {}", last.path, reply.text());
        }
    }
}

const FIND: &str = r#"<propfind xmlns="DAV:"><prop><m xmlns="urn:t"/></prop></propfind>"#;

fn proppatch(value: &str) -> String {
    format!(
        r#"<propertyupdate xmlns="DAV:"><set><prop><m xmlns="urn:t">{value}</m></prop></set></propertyupdate>"#
    )
}

fn check(
    path: &str,
    allowed: &[Option<(u64, usize)>],
    status: u16,
    body: &[u8],
) -> Option<(u64, usize)> {
    for &state in allowed {
        match state {
            None if status == 404 => return None,
            Some((version, len)) if status == 200 && body == content(version, len) => return state,
            _ => {}
        }
    }
    panic!(
        "{path}: status {status}, {} bytes; allowed was {allowed:?}",
        body.len()
    );
}

fn storm(flags: &[&str], kills: u64) {
    let mut random = Random::from_env();
    let mut gateway = Gateway::start(flags);
    let mut storms: Vec<Storm> = (0..CLIENTS)
        .map(|id| Storm {
            id,
            random: Random::new(random.next()),
            versions: 0,
            state: BTreeMap::new(),
            moving: None,
            marks: Vec::new(),
        })
        .collect();
    for id in 0..CLIENTS {
        assert_eq!(
            gateway
                .request("MKCOL", &format!("/c{id}"), &[], b"")
                .status,
            201
        );
    }
    let mut acknowledged = 0;
    for _ in 0..kills {
        let address = gateway.address;
        let pause = Duration::from_millis(50 + random.below(600));
        acknowledged += std::thread::scope(|scope| {
            let running: Vec<_> = storms
                .iter_mut()
                .map(|s| scope.spawn(move || s.run(address)))
                .collect();
            // The moment of the kill is the experiment, not a wait for something.
            std::thread::sleep(pause);
            gateway.kill_and_restart();
            running
                .into_iter()
                .map(|r| r.join().expect("a storm"))
                .sum::<u64>()
        });
        for storm in &mut storms {
            storm.verify(&gateway);
        }
        // Over pools a placeholder goes after its objects.
        common::eventually("nothing is left in .tierdav/tmp", || {
            std::fs::read_dir(gateway.root().join(".tierdav/tmp")).map_or(0, Iterator::count) == 0
        });
    }
    println!("{kills} kills, {acknowledged} operations acknowledged, none lost");
    assert!(acknowledged > kills, "the storm did nothing");
    assert_eq!(gateway.terminate(), Some(0));
    let scrub = gateway.command("scrub", flags);
    assert!(scrub.status.success(), "scrub: {scrub:?}");
}

fn kills(normal: u64) -> u64 {
    std::env::var("TIERDAV_KILLS")
        .ok()
        .and_then(|k| k.parse().ok())
        .unwrap_or(normal)
}

/// Small objects and a short age, so that flushes, promotions and evictions run at the time of the kill.
const MOVING: [&str; 8] = [
    "--object-size",
    "64KiB",
    "--cache-capacity",
    "16MiB",
    "--max-dirty-age",
    "300ms",
    "--policy",
    "lru",
];

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_with_a_cache_tier() {
    storm(&MOVING, kills(10));
}

#[cfg(feature = "rados")]
#[test]
fn nothing_acknowledged_is_lost_by_kill_9_over_pools() {
    let pools = common::pool_flags();
    let mut flags: Vec<&str> = pools.iter().map(String::as_str).collect();
    flags.extend(MOVING);
    storm(&flags, kills(10));
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_without_a_cache_tier() {
    storm(&["--cache-dir", "none"], kills(10));
}
