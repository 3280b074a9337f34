//! Who a request comes from: Basic authentication against a file of users, or a client certificate.
//!
//! One line per password: `name:hash[:root=/sub][:ro]`, hash by bcrypt or argon2id (PHC string). A name may stand on
//! several lines: each of its passwords is valid, so that passwords can be changed on all devices without a gap. The
//! file is read again when it changes.
//!
//! Hashes are slow on purpose, so a success is remembered for a minute under a keyed hash of what was sent, and hashing
//! runs on blocking threads, a few at a time. An address with too many failures waits (503 with Retry-After: a 4xx
//! would make davfs2 drop a user's upload for good); remembered successes from there still pass.

mod file;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::dav::User;
use file::{Entry, Stamp};
pub use file::{UsersError, hash_password};

const REMEMBER: Duration = Duration::from_secs(60);
const REMEMBERED_MAX: usize = 4096;
const FAILURES_MAX: u32 = 10;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
const ADDRESSES_MAX: usize = 4096;
/// Hashes computed at once.
const HASHERS: usize = 2;

/// What came of a request's credentials.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// There are no users: everyone is served.
    Anonymous,
    /// A known user.
    Known(Arc<User>),
    /// None, or wrong ones: 401.
    Denied,
    /// Too many failures from this address: 503.
    Wait,
}

struct State {
    entries: Arc<Vec<Entry>>,
    stamp: Option<Stamp>,
    checked: Instant,
    remembered: HashMap<u128, (Instant, Arc<User>)>,
    failures: HashMap<IpAddr, (Instant, u32)>,
}

/// The users of one server.
pub struct Users {
    file: Option<PathBuf>,
    keys: (RandomState, RandomState),
    hashing: Semaphore,
    state: Mutex<State>,
}

impl Users {
    /// Reads the file; `None` is a server without passwords.
    ///
    /// # Errors
    /// A file that cannot be read or a line that makes no sense, with its number.
    pub fn open(file: Option<PathBuf>) -> Result<Users, UsersError> {
        let (entries, stamp) = match &file {
            Some(path) => (file::load(path)?, Stamp::of(path)),
            None => (Vec::new(), None),
        };
        let state = State {
            entries: Arc::new(entries),
            stamp,
            checked: Instant::now(),
            remembered: HashMap::new(),
            failures: HashMap::new(),
        };
        Ok(Users {
            file,
            keys: Default::default(),
            hashing: Semaphore::new(HASHERS),
            state: Mutex::new(state),
        })
    }

    /// Whether passwords are asked for.
    pub fn required(&self) -> bool {
        self.file.is_some()
    }

    /// The user that a client certificate names: with the root and rights of its line, if it has one.
    pub fn by_certificate(&self, name: &str) -> Arc<User> {
        let entries = Arc::clone(&self.state.lock().entries);
        let entry = entries.iter().find(|e| e.user.name == name);
        entry.map_or_else(|| Arc::new(file::plain_user(name)), |e| Arc::clone(&e.user))
    }

    /// Reads the file again. A file that makes no sense leaves the users as they were and is logged.
    pub fn reload(&self) {
        let Some(path) = &self.file else { return };
        match file::load(path) {
            Ok(entries) => {
                let mut state = self.state.lock();
                state.entries = Arc::new(entries);
                state.remembered.clear();
                tracing::info!(file = %path.display(), "users read again");
            }
            Err(error) => tracing::error!(%error, "the users stay as they were"),
        }
    }

    fn reload_if_changed(&self) {
        let Some(path) = &self.file else { return };
        {
            let mut state = self.state.lock();
            if state.checked.elapsed() < Duration::from_secs(1) {
                return;
            }
            state.checked = Instant::now();
            let stamp = Stamp::of(path);
            if stamp.is_none() || stamp == state.stamp {
                return;
            }
            state.stamp = stamp;
        }
        self.reload();
    }

    /// Judges a request's `Authorization` header.
    pub async fn judge(self: &Arc<Self>, headers: &HeaderMap, from: IpAddr) -> Verdict {
        if !self.required() {
            return Verdict::Anonymous;
        }
        let Some((name, password)) = basic(headers) else {
            return Verdict::Denied;
        };
        let this = Arc::clone(self);
        let sent = (name, password);
        let key = self.key(&sent);
        {
            let mut state = self.state.lock();
            if let Some((at, user)) = state.remembered.get(&key)
                && at.elapsed() < REMEMBER
                && state.checked.elapsed() < Duration::from_secs(1)
            {
                return Verdict::Known(Arc::clone(user));
            }
            state
                .failures
                .retain(|_, (at, _)| at.elapsed() < FAILURE_WINDOW);
        }
        let Ok(_permit) = self.hashing.acquire().await else {
            return Verdict::Wait;
        };
        let verified = tokio::task::spawn_blocking(move || this.verify(&sent, key, from)).await;
        verified.unwrap_or(Verdict::Wait)
    }

    fn verify(&self, sent: &(String, String), key: u128, from: IpAddr) -> Verdict {
        self.reload_if_changed();
        let entries = {
            let state = self.state.lock();
            if let Some((at, user)) = state.remembered.get(&key)
                && at.elapsed() < REMEMBER
            {
                return Verdict::Known(Arc::clone(user));
            }
            if state
                .failures
                .get(&from)
                .is_some_and(|(_, n)| *n >= FAILURES_MAX)
            {
                return Verdict::Wait;
            }
            Arc::clone(&state.entries)
        };
        let found = file::verify(&entries, &sent.0, &sent.1);
        let mut state = self.state.lock();
        match found {
            Some(user) => {
                if state.remembered.len() >= REMEMBERED_MAX {
                    state.remembered.clear();
                }
                state
                    .remembered
                    .insert(key, (Instant::now(), Arc::clone(&user)));
                Verdict::Known(user)
            }
            None => {
                tracing::warn!(address = %from, user = %sent.0, "login failed");
                if state.failures.len() >= ADDRESSES_MAX {
                    state.failures.clear();
                }
                let slot = state.failures.entry(from).or_insert((Instant::now(), 0));
                *slot = (Instant::now(), slot.1 + 1);
                Verdict::Denied
            }
        }
    }

    fn key(&self, sent: &(String, String)) -> u128 {
        u128::from(self.keys.0.hash_one(sent)) << 64 | u128::from(self.keys.1.hash_one(sent))
    }
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_string(), password.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::net::Ipv4Addr;

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn headers(name: &str, password: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
        map.insert(header::AUTHORIZATION, value.parse().unwrap());
        map
    }

    fn users(lines: &str) -> (tempfile::NamedTempFile, Arc<Users>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        let users = Arc::new(Users::open(Some(file.path().to_path_buf())).unwrap());
        (file, users)
    }

    #[tokio::test]
    async fn both_passwords_of_a_rotation_are_valid_and_a_wrong_one_is_not() {
        let old = bcrypt::hash("old", 4).unwrap();
        let new = file::hash_password("new").unwrap();
        let (_file, users) = users(&format!("# devices\npi:{old}\npi:{new}:root=/pi:ro\n"));
        for password in ["old", "new", "old"] {
            assert!(matches!(
                users.judge(&headers("pi", password), HOME).await,
                Verdict::Known(_)
            ));
        }
        assert!(matches!(
            users.judge(&headers("pi", "guess"), HOME).await,
            Verdict::Denied
        ));
        assert!(matches!(
            users.judge(&HeaderMap::new(), HOME).await,
            Verdict::Denied
        ));
        let Verdict::Known(user) = users.judge(&headers("pi", "new"), HOME).await else {
            panic!("not known");
        };
        assert_eq!(
            (user.root.to_string().as_str(), user.read_only),
            ("/pi", true)
        );
    }

    #[tokio::test]
    async fn guessing_makes_an_address_wait_but_not_a_remembered_user() {
        let (_file, users) = users(&format!("pi:{}\n", bcrypt::hash("right", 4).unwrap()));
        assert!(matches!(
            users.judge(&headers("pi", "right"), HOME).await,
            Verdict::Known(_)
        ));
        for _ in 0..FAILURES_MAX {
            assert!(matches!(
                users.judge(&headers("pi", "wrong"), HOME).await,
                Verdict::Denied
            ));
        }
        assert!(matches!(
            users.judge(&headers("pi", "wrong"), HOME).await,
            Verdict::Wait
        ));
        assert!(matches!(
            users.judge(&headers("pi", "right"), HOME).await,
            Verdict::Known(_)
        ));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "a:$2y$04$abcdefghijklmnopqrstuuQ1\nplain:secret\n",
        )
        .unwrap();
        let text = Users::open(Some(file.path().to_path_buf()))
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert!(text.contains("line 2"), "{text}");
    }
}
