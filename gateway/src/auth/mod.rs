//! Who a request comes from: Basic authentication against a file of users, or a client certificate.
//!
//! One line per password: `name:hash[:root=/sub][:ro]`, hash by bcrypt or argon2id (PHC string). A name may stand on
//! several lines: each of its passwords is valid, so that passwords can be changed on all devices without a gap. The
//! file is read again when it changes.
//!
//! Hashes are slow on purpose, so a success is remembered for a minute under a keyed hash of what was sent, a failure
//! too, and hashing runs on blocking threads, a few at a time. What guessing costs an address: see [`failures`].

mod failures;
mod file;
#[cfg(test)]
mod reread_tests;

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
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::dav::User;
use failures::{Failures, Pace};
use file::Entry;
pub(crate) use file::Stamp;
pub use file::{UsersError, line};

/// How often the file of users is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
const REMEMBER: Duration = Duration::from_secs(60);
const REMEMBERED_MAX: usize = 4096;
/// Hashes computed at once for addresses without many failures.
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
    /// Some that are no name and password: 401.
    Malformed,
    /// Too many failures with this name from this address: 503 (a 4xx would make davfs2 drop a user's upload for good).
    Wait,
}

struct State {
    entries: Arc<Vec<Entry>>,
    /// Counts the times that `entries` were read: what was verified against older ones is not remembered.
    generation: u64,
    stamp: Option<Stamp>,
    checked: Instant,
    /// What was sent, and whose it is; `None` is a wrong password.
    remembered: HashMap<u128, (Instant, Option<Arc<User>>)>,
    failures: Failures,
}

impl State {
    /// The verdict on these credentials, if it was found a short while ago.
    fn remembers(&self, key: u128) -> Option<Verdict> {
        let (at, user) = self.remembered.get(&key)?;
        let verdict = || user.clone().map_or(Verdict::Denied, Verdict::Known);
        (at.elapsed() < REMEMBER).then(verdict)
    }
}

/// What a client certificate names. With a file of users: the user on that line, with its root and rights, and nobody without a
/// line. Without a file, every name is a user with all rights.
pub struct Certificate {
    plain: Arc<User>,
    /// In which generation of the users, and who.
    found: Mutex<Option<(u64, Option<Arc<User>>)>>,
}

impl Certificate {
    /// With this name in it.
    pub fn new(name: &str) -> Certificate {
        Certificate {
            plain: Arc::new(file::plain_user(name)),
            found: Mutex::new(None),
        }
    }
}

/// The users of one server.
pub struct Users {
    file: Option<PathBuf>,
    keys: (RandomState, RandomState),
    hashing: Semaphore,
    /// One hash at a time for all addresses with many failures: guessing leaves the others their hashers.
    slow: Semaphore,
    /// Held while the file is read and its users take their place: of two readers the later one has the last word.
    reading: Mutex<()>,
    state: Mutex<State>,
}

impl Users {
    /// Reads the file; `None` is a server without passwords.
    ///
    /// # Errors
    /// A file that cannot be read or a line that makes no sense, with its number.
    pub fn open(file: Option<PathBuf>) -> Result<Users, UsersError> {
        // The stamp first: what changes while the file is read is seen at the next look.
        let stamp = file.as_deref().and_then(Stamp::of);
        let entries = match &file {
            Some(path) => file::load(path)?,
            None => Vec::new(),
        };
        let state = State {
            entries: Arc::new(entries),
            generation: 0,
            stamp,
            checked: Instant::now(),
            remembered: HashMap::new(),
            failures: Failures::default(),
        };
        Ok(Users {
            file,
            keys: Default::default(),
            hashing: Semaphore::new(HASHERS),
            slow: Semaphore::new(1),
            reading: Mutex::new(()),
            state: Mutex::new(state),
        })
    }

    /// Whether passwords are asked for.
    pub fn required(&self) -> bool {
        self.file.is_some()
    }

    /// The user that a client certificate names, if the file of users was looked at a moment ago; `None` means that
    /// [`Users::judge_certificate`] must be asked.
    pub fn recall_certificate(&self, certificate: &Certificate) -> Option<Arc<User>> {
        match self.look_is_due() {
            true => None,
            false => self.named(certificate),
        }
    }

    /// The same after a look at the file.
    pub async fn judge_certificate(
        self: &Arc<Self>,
        certificate: &Certificate,
    ) -> Option<Arc<User>> {
        if self.look_is_due() {
            let this = Arc::clone(self);
            // Whether it ends or not: the users stay as they were, then.
            let _ = tokio::task::spawn_blocking(move || this.reload_if_changed()).await;
        }
        self.named(certificate)
    }

    fn look_is_due(&self) -> bool {
        self.required() && self.state.lock().checked.elapsed() >= LOOK
    }

    fn named(&self, certificate: &Certificate) -> Option<Arc<User>> {
        if self.file.is_none() {
            return Some(Arc::clone(&certificate.plain));
        }
        let name = &certificate.plain.name;
        let state = self.state.lock();
        let mut found = certificate.found.lock();
        if let Some((generation, user)) = &*found
            && *generation == state.generation
        {
            return user.clone();
        }
        let entry = state.entries.iter().find(|e| e.user.name == *name);
        if entry.is_none() {
            tracing::warn!(
                name,
                "a client certificate names nobody in users_file: a password is asked for"
            );
        }
        let user = entry.map(|e| Arc::clone(&e.user));
        *found = Some((state.generation, user.clone()));
        user
    }

    /// Reads the file again; `false`: there is none.
    ///
    /// # Errors
    /// A file that makes no sense leaves the users as they were, and is logged.
    pub fn reload(&self) -> Result<bool, UsersError> {
        let Some(path) = &self.file else {
            return Ok(false);
        };
        let _reading = self.reading.lock();
        match file::load(path) {
            Ok(entries) => {
                let mut state = self.state.lock();
                state.entries = Arc::new(entries);
                state.generation += 1;
                state.remembered.clear();
                tracing::info!(file = %path.display(), "users read again");
                Ok(true)
            }
            Err(error) => {
                tracing::error!(%error, "the users stay as they were");
                Err(error)
            }
        }
    }

    fn reload_if_changed(&self) {
        let Some(path) = &self.file else { return };
        {
            let mut state = self.state.lock();
            if state.checked.elapsed() < LOOK {
                return;
            }
            state.checked = Instant::now();
            let stamp = Stamp::of(path);
            if stamp.is_none() || stamp == state.stamp {
                return;
            }
            state.stamp = stamp;
        }
        // Logged; tried again when the file changes.
        let _ = self.reload();
    }

    /// Judges a request's `Authorization` header.
    pub async fn judge(self: &Arc<Self>, headers: &HeaderMap, from: IpAddr) -> Verdict {
        if !self.required() {
            return Verdict::Anonymous;
        }
        let Some(authorization) = headers.get(header::AUTHORIZATION) else {
            return Verdict::Denied;
        };
        let Some((name, password)) = basic(authorization.as_bytes()) else {
            return Verdict::Malformed;
        };
        let sent = (name, password);
        let key = self.key(&sent);
        {
            let state = self.state.lock();
            if state.checked.elapsed() < LOOK
                && let Some(verdict) = state.remembers(key)
            {
                return verdict;
            }
        }
        let Some(_permit) = self.permit(from, &sent.0).await else {
            return self.known_already(key);
        };
        let this = Arc::clone(self);
        let verified = tokio::task::spawn_blocking(move || this.verify(&sent, key, from)).await;
        verified.unwrap_or(Verdict::Wait)
    }

    /// Waits for what an attempt with this name has to wait for; `None` is an attempt that is not worth a hash.
    async fn permit(&self, from: IpAddr, name: &str) -> Option<SemaphorePermit<'_>> {
        let pace = || self.state.lock().failures.pace(from, name, Instant::now());
        let queued = || async {
            let permit = tokio::time::timeout(failures::WAIT_MAX, self.slow.acquire());
            permit.await.ok()?.ok()
        };
        let mut now = pace();
        loop {
            let permit = match now {
                Pace::Free => self.hashing.acquire().await.ok()?,
                Pace::Queued => queued().await?,
                Pace::Turn(turn) => {
                    tokio::time::sleep_until(turn.into()).await;
                    return queued().await;
                }
                Pace::Refused => return None,
            };
            let then = std::mem::replace(&mut now, pace());
            if then == now {
                return Some(permit);
            }
        }
    }

    /// The user of an `Authorization` field that was found right a short while ago; `None` means that [`Users::judge`] must be
    /// asked.
    pub fn recall(&self, authorization: &[u8]) -> Option<Arc<User>> {
        let key = self.key(&basic(authorization)?);
        let state = self.state.lock();
        if state.checked.elapsed() >= LOOK {
            return None;
        }
        match state.remembers(key)? {
            Verdict::Known(user) => Some(user),
            Verdict::Anonymous | Verdict::Denied | Verdict::Malformed | Verdict::Wait => None,
        }
    }

    /// For an attempt that is not worth a hash: what is known of it after a look at the file.
    fn known_already(&self, key: u128) -> Verdict {
        self.reload_if_changed();
        self.state.lock().remembers(key).unwrap_or(Verdict::Wait)
    }

    fn verify(&self, sent: &(String, String), key: u128, from: IpAddr) -> Verdict {
        self.reload_if_changed();
        loop {
            let (entries, generation) = {
                let state = self.state.lock();
                if let Some(verdict) = state.remembers(key) {
                    return verdict;
                }
                (Arc::clone(&state.entries), state.generation)
            };
            let found = file::verify(&entries, &sent.0, &sent.1);
            if let Some(verdict) = self.conclude(found, generation, sent, key, from) {
                return verdict;
            }
        }
    }

    /// Remembers what was found; nothing if the users have changed since.
    fn conclude(
        &self,
        found: Option<Arc<User>>,
        generation: u64,
        sent: &(String, String),
        key: u128,
        from: IpAddr,
    ) -> Option<Verdict> {
        let mut state = self.state.lock();
        if state.generation != generation {
            return None;
        }
        if state.remembered.len() >= REMEMBERED_MAX {
            state
                .remembered
                .retain(|_, (at, user)| user.is_some() && at.elapsed() < REMEMBER);
            if state.remembered.len() >= REMEMBERED_MAX {
                state.remembered.clear();
            }
        }
        let now = Instant::now();
        state.remembered.insert(key, (now, found.clone()));
        Some(match found {
            Some(user) => Verdict::Known(user),
            None => {
                tracing::warn!(address = %from, user = %sent.0, "login failed");
                state.failures.count(from, &sent.0, now);
                Verdict::Denied
            }
        })
    }

    fn key(&self, sent: &(String, String)) -> u128 {
        u128::from(self.keys.0.hash_one(sent)) << 64 | u128::from(self.keys.1.hash_one(sent))
    }
}

/// For [`crate::fuzzing`]: how many passwords a file has.
pub(crate) fn fuzz_users(text: &str) -> usize {
    let entries = file::parse(String::new(), text).unwrap_or_default();
    assert!(entries.iter().all(|e| !e.user.name.is_empty()));
    entries.len()
}

fn basic(authorization: &[u8]) -> Option<(String, String)> {
    let value = std::str::from_utf8(authorization).ok()?;
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

    async fn guess(users: &Arc<Users>, name: &str, n: u32) {
        for i in 0..n {
            let sent = headers(name, &format!("wrong {i}"));
            let wrong = users.judge(&sent, HOME).await;
            assert!(matches!(wrong, Verdict::Denied), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn guessing_slows_its_name_down_but_locks_nobody_out() {
        let (pi, mo) = (bcrypt::hash("right", 4), bcrypt::hash("mine", 4));
        let (_file, users) = users(&format!("pi:{}\nmo:{}\n", pi.unwrap(), mo.unwrap()));
        guess(&users, "pi", failures::FREE).await;
        // Never seen before, from the same address: another name at once, the guessed name in its turn.
        for (name, password) in [("mo", "mine"), ("pi", "right")] {
            let right = users.judge(&headers(name, password), HOME).await;
            assert!(matches!(right, Verdict::Known(_)), "{name}: {right:?}");
        }
        // More guesses at once than turns within the longest wait: the rest is refused without a hash.
        let many = (0..30).map(|i| {
            let users = Arc::clone(&users);
            async move {
                users
                    .judge(&headers("pi", &format!("guess {i}")), HOME)
                    .await
            }
        });
        let judged = tokio::time::timeout(
            Duration::from_secs(60),
            futures_util::future::join_all(many),
        );
        let judged = judged.await.unwrap();
        assert!(
            judged.iter().any(|v| matches!(v, Verdict::Wait)),
            "{judged:?}"
        );
        // Remembered ones pass all the same.
        let right = users.judge(&headers("pi", "right"), HOME).await;
        assert!(matches!(right, Verdict::Known(_)), "{right:?}");
    }

    #[tokio::test]
    async fn guesses_sent_at_once_are_paced_as_those_sent_one_by_one() {
        let (_file, users) = users(&format!("pi:{}\n", bcrypt::hash("right", 4).unwrap()));
        let guess = async |i| {
            users
                .judge(&headers("pi", &format!("guess {i}")), HOME)
                .await
        };
        let judged = futures_util::future::join_all((0..300).map(guess)).await;
        let verified = judged.iter().filter(|v| matches!(v, Verdict::Denied));
        // Those that cost nothing, what the hashers had begun, and the turns within the longest wait, which itself takes time.
        let turns = (failures::WAIT_MAX.as_millis() / failures::TURN.as_millis()) as usize;
        let most = failures::FREE as usize + HASHERS + 3 * turns;
        let verified = verified.count();
        assert!(
            verified >= failures::FREE as usize && verified <= most,
            "{verified}"
        );
    }

    #[tokio::test]
    async fn a_wrong_password_sent_again_and_again_counts_once() {
        let (_file, users) = users(&format!("pi:{}\n", bcrypt::hash("right", 4).unwrap()));
        for _ in 0..3 * failures::FREE {
            let wrong = users.judge(&headers("pi", "outdated"), HOME).await;
            assert!(matches!(wrong, Verdict::Denied), "{wrong:?}");
        }
        let pace = users.state.lock().failures.pace(HOME, "pi", Instant::now());
        assert_eq!(pace, Pace::Free);
    }

    #[tokio::test]
    async fn a_password_verified_against_old_users_is_not_remembered_after_a_reload() {
        let (file, users) = users(&format!("pi:{}\n", bcrypt::hash("old", 4).unwrap()));
        let (entries, generation) = {
            let state = users.state.lock();
            (Arc::clone(&state.entries), state.generation)
        };
        let sent = ("pi".to_string(), "old".to_string());
        let key = users.key(&sent);
        let found = file::verify(&entries, &sent.0, &sent.1);
        assert!(found.is_some());
        // The users change while the hash is being computed.
        let new = format!("pi:{}\n", bcrypt::hash("new", 4).unwrap());
        std::fs::write(file.path(), new).unwrap();
        users.reload().unwrap();
        assert!(
            users
                .conclude(found, generation, &sent, key, HOME)
                .is_none()
        );
        assert!(users.state.lock().remembers(key).is_none());
        assert!(matches!(
            users.judge(&headers("pi", "old"), HOME).await,
            Verdict::Denied
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
