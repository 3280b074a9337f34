//! Clients that write, move, delete and read at random, each with its own record of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Client, Gateway, Random, content};

const NAMES: u64 = 12;

/// Small objects and a short age, so that flushes, promotions and evictions run all the time.
pub const MOVING: [&str; 8] = [
    "--object-size",
    "64KiB",
    "--cache-capacity",
    "16MiB",
    "--max-dirty-age",
    "300ms",
    "--policy",
    "lru",
];

/// [`MOVING`] over the pools of the suite's cluster.
pub fn moving_over_pools() -> Vec<String> {
    let mut flags = super::pool_flags();
    flags.extend(MOVING.map(str::to_owned));
    flags
}

/// So many clients, each with its directory.
pub fn gather(gateway: &Gateway, random: &mut Random, clients: u64, refusals: bool) -> Vec<Storm> {
    let client = |id| {
        let made = gateway.request("MKCOL", &format!("/c{id}"), &[], b"");
        assert_eq!(made.status, 201);
        Storm::new(id, random.next(), refusals)
    };
    (0..clients).map(client).collect()
}

/// Lets all run until `cut` ends the gateway, at a moment of chance, and starts it again; then everything is read back. Returns how
/// many operations were acknowledged.
pub fn round(
    storms: &mut [Storm],
    gateway: &mut Gateway,
    random: &mut Random,
    cut: impl FnOnce(&mut Gateway),
) -> u64 {
    let address = gateway.address;
    let pause = Duration::from_millis(50 + random.below(600));
    let acknowledged = std::thread::scope(|scope| {
        let running: Vec<_> = storms
            .iter_mut()
            .map(|s| scope.spawn(move || s.run(address)))
            .collect();
        // The moment is the experiment, not a wait for something.
        std::thread::sleep(pause);
        cut(gateway);
        let ended = running.into_iter().map(|r| r.join().expect("a storm"));
        ended.sum()
    });
    for storm in storms {
        storm.verify(gateway);
    }
    acknowledged
}

/// A clean end, and a scrub that finds nothing.
pub fn end(gateway: &mut Gateway, flags: &[&str]) {
    assert_eq!(gateway.terminate(), Some(0));
    finds_nothing(gateway, flags);
}

/// A scrub finds nothing.
pub fn finds_nothing(gateway: &Gateway, flags: &[&str]) {
    let scrub = gateway.command("scrub", flags);
    assert!(scrub.status.success(), "scrub: {scrub:?}");
}

/// What a path may hold: each a version with its length, or nothing.
type Allowed = Vec<Option<(u64, usize)>>;

/// One client's own record of its directory.
pub struct Storm {
    id: u64,
    random: Random,
    versions: u64,
    state: BTreeMap<String, Allowed>,
    /// A MOVE under way: both paths as they were, or both as they will be; nothing between.
    moving: Option<(String, String)>,
    /// Collections made and properties set; the last one may be under way.
    marks: Vec<Mark>,
    /// Whether an operation may be refused as trouble of the server's (5xx): then both outcomes stay allowed.
    refusals: bool,
    /// Operations refused.
    pub refused: u64,
}

/// Something besides content that was asked for.
struct Mark {
    path: String,
    /// The property's value; `None` is a collection.
    value: Option<String>,
    acknowledged: bool,
}

impl Storm {
    /// A client with the directory `/c{id}`, which exists.
    fn new(id: u64, seed: u64, refusals: bool) -> Storm {
        Storm {
            id,
            random: Random::new(seed),
            versions: 0,
            state: BTreeMap::new(),
            moving: None,
            marks: Vec::new(),
            refusals,
            refused: 0,
        }
    }

    /// Whether the server did it.
    fn done(&mut self, what: &str, status: u16, good: &[u16]) -> bool {
        if self.refusals && status >= 500 {
            self.refused += 1;
            return false;
        }
        assert!(good.contains(&status), "{what}: {status}");
        true
    }

    /// What `path` may hold, and now `new`, too.
    fn allow(&mut self, path: &str, new: Option<(u64, usize)>) {
        let allowed = self
            .state
            .entry(path.to_owned())
            .or_insert_with(|| vec![None]);
        allowed.push(new);
    }

    fn path(&self, n: u64) -> String {
        format!("/c{}/f{n}", self.id)
    }

    fn is_certain(&self, paths: &[&str]) -> bool {
        let one = |p: &&&str| self.state.get(**p).is_none_or(|a| a.len() == 1);
        paths.iter().filter(one).count() == paths.len()
    }

    fn known(&self, path: &str) -> Option<(u64, usize)> {
        self.state
            .get(path)
            .and_then(|a| a.last().copied())
            .flatten()
    }

    /// Runs until the connection breaks; returns how many operations were acknowledged.
    pub fn run(&mut self, gateway: std::net::SocketAddr) -> u64 {
        let mut acknowledged = 0;
        let Ok(mut client) = Client::connect(gateway) else {
            return 0;
        };
        while self.step(&mut client).is_some() {
            acknowledged += 1;
        }
        acknowledged
    }

    /// Runs until it is told to stop, over broken connections and refusals; returns how many operations succeeded.
    pub fn run_until(&mut self, gateway: std::net::SocketAddr, stop: &AtomicBool) -> u64 {
        let mut acknowledged = 0;
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut client) = Client::connect(gateway) else {
                continue;
            };
            loop {
                if stop.load(Ordering::Relaxed) {
                    return acknowledged;
                }
                let refused = self.refused;
                if self.step(&mut client).is_none() {
                    self.refused += 1;
                    self.moving = None;
                    break;
                }
                acknowledged += u64::from(self.refused == refused);
            }
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
                self.allow(&from, Some((version, len)));
                let body = content(version, len);
                let reply = client.request("PUT", &from, &[], &body).ok()?;
                if self.done(&from, reply.status, &[201, 204]) {
                    self.state.insert(from, vec![Some((version, len))]);
                }
            }
            6..8 if from != to && old_from.is_some() && self.is_certain(&[&from, &to]) => {
                self.state.insert(from.clone(), vec![old_from, None]);
                self.state.insert(to.clone(), vec![old_to, old_from]);
                self.moving = Some((from.clone(), to.clone()));
                let headers = [("Destination", to.as_str())];
                let reply = client.request("MOVE", &from, &headers, b"").ok()?;
                self.moving = None;
                if self.done(&from, reply.status, &[201, 204]) {
                    self.state.insert(from, vec![None]);
                    self.state.insert(to, vec![old_from]);
                }
            }
            8 if old_from.is_some() && self.is_certain(&[&from]) => {
                self.state.insert(from.clone(), vec![old_from, None]);
                let reply = client.request("DELETE", &from, &[], b"").ok()?;
                if self.done(&from, reply.status, &[204]) {
                    self.state.insert(from, vec![None]);
                }
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
                let reply = match value {
                    None => client.request("MKCOL", &path, &[], b"").ok()?,
                    Some(value) => client
                        .request("PROPPATCH", &path, &[], proppatch(&value).as_bytes())
                        .ok()?,
                };
                // A property that could not be set is a status within a 207.
                let inner = |code: &u16| reply.text().contains(&format!("HTTP/1.1 {code}"));
                let status = match [500, 503, 507].into_iter().find(inner) {
                    Some(code) if self.refusals => code,
                    _ => reply.status,
                };
                if self.done(&path, status, &[201, 207]) {
                    let mark = self.marks.last_mut().expect("just pushed");
                    mark.acknowledged = true;
                }
            }
            _ => {
                let reply = client.request("GET", &from, &[], b"").ok()?;
                if self.refusals && reply.status >= 500 {
                    self.refused += 1;
                    return Some(());
                }
                let none = vec![None];
                let allowed = self.state.get(&from).unwrap_or(&none);
                check(&from, allowed, reply.status, &reply.body);
            }
        }
        Some(())
    }

    /// Reads everything back; what was under way becomes what it turned out to be.
    pub fn verify(&mut self, gateway: &Gateway) {
        let mut client = gateway.connect();
        let before = self.state.clone();
        for (path, allowed) in &mut self.state {
            let reply = client
                .request("GET", path, &[], b"")
                .expect("GET after restart");
            let found = check(path, allowed, reply.status, &reply.body);
            if found.is_some() {
                let again = client.request("HEAD", path, &[], b"").expect("HEAD");
                let told = |reply: &super::Reply| (reply.status, reply.header("etag").to_owned());
                assert_eq!(told(&again), told(&reply), "{path}");
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
        // The last one that was acknowledged, or one that was asked for after it.
        let since = values.iter().rposition(|m| m.acknowledged);
        let Some(last) = values.last() else { return };
        let reply = client
            .request("PROPFIND", &last.path, &[("Depth", "0")], FIND.as_bytes())
            .expect("PROPFIND");
        let has = |m: &Mark| {
            let value = m.value.as_deref().unwrap_or_default();
            reply.text().contains(&format!(">{value}<"))
        };
        let kept = since.is_none() || values[since.unwrap_or(0)..].iter().any(has);
        assert!(kept, "PROPPATCH {}: {}", last.path, reply.text());
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
