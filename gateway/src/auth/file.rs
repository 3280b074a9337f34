//! The file of users.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};

use crate::dav::User;
use crate::volume::ResourcePath;

/// The file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error(
        "users_file {path}: cannot be read: {source}; `tierdav hash-password NAME >> {path}` makes one"
    )]
    Read {
        /// The file.
        path: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A line makes no sense.
    #[error(
        "users_file {path}, line {line}: {why}; a line is name:hash[:root=/sub][:ro], the hash by bcrypt or argon2id (tierdav hash-password NAME makes one)"
    )]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// No line can have this name.
    #[error(
        "{0:?} cannot be a user's name: no ':', no line break, no blank or '#' at the beginning, no blank at the end"
    )]
    Name(String),
    /// A password could not be hashed.
    #[error("cannot hash the password: {0}")]
    Hash(String),
}

/// One password of one user.
pub struct Entry {
    pub user: Arc<User>,
    hash: String,
}

/// What a file was when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Tells of a `chmod`, too: it may be what lets the file be read.
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(path: &Path) -> Option<Stamp> {
        let m = std::fs::metadata(path).ok()?;
        Some(Stamp {
            inode: m.ino(),
            size: m.size(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        })
    }
}

/// A user with all rights.
pub fn plain_user(name: &str) -> User {
    User {
        name: name.to_string(),
        root: ResourcePath::root(),
        read_only: false,
    }
}

pub fn load(path: &Path) -> Result<Vec<Entry>, UsersError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| UsersError::Read {
        path: name.clone(),
        source,
    })?;
    let entries = parse(name, &text)?;
    if entries.is_empty() {
        tracing::warn!(users_file = %path.display(), "has no users: no password is let in");
    }
    Ok(entries)
}

/// Reads the lines; `name` is the file's, for messages.
pub fn parse(name: String, text: &str) -> Result<Vec<Entry>, UsersError> {
    let mut entries = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = entry(line).map_err(|why| UsersError::Line {
            path: name.clone(),
            line: n + 1,
            why,
        })?;
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(line: &str) -> Result<Entry, &'static str> {
    let mut fields = line.split(':');
    let (Some(name), Some(hash)) = (fields.next(), fields.next()) else {
        return Err("no ':' in it");
    };
    if name.is_empty() {
        return Err("the name is empty");
    }
    let bcrypt = ["$2y$", "$2b$", "$2a$"].iter().any(|p| hash.starts_with(p));
    if !bcrypt && PasswordHash::new(hash).is_err() {
        return Err("the hash is neither bcrypt nor argon2");
    }
    let mut user = plain_user(name);
    for field in fields {
        match field.split_once('=') {
            None if field == "ro" => user.read_only = true,
            None if field == "rw" || field.is_empty() => {}
            Some(("root", root)) => {
                user.root = ResourcePath::parse(root)
                    .map_err(|_| "its root is not a path below the root")?;
            }
            _ => return Err("an unknown field"),
        }
    }
    Ok(Entry {
        user: Arc::new(user),
        hash: hash.to_string(),
    })
}

/// The user whose password this is. An unknown name takes as long as one of the known ones.
pub fn verify(entries: &[Entry], name: &str, password: &str) -> Option<Arc<User>> {
    let lines = |name| entries.iter().filter(move |e| e.user.name == name);
    if lines(name).next().is_none() {
        for entry in lines(stand_in(entries, name)?) {
            matches(&entry.hash, password);
        }
        return None;
    }
    lines(name)
        .find(|e| matches(&e.hash, password))
        .map(|e| Arc::clone(&e.user))
}

/// Whose lines are verified for an unknown name: algorithms, costs and numbers of lines differ, so always the same for the same
/// name, but nobody without the file can tell whose.
fn stand_in<'a>(entries: &'a [Entry], name: &str) -> Option<&'a str> {
    let mut hasher = DefaultHasher::new();
    (&entries.first()?.hash, name).hash(&mut hasher);
    let at = hasher.finish() % entries.len() as u64;
    Some(&entries.get(at as usize)?.user.name)
}

fn matches(hash: &str, password: &str) -> bool {
    if hash.starts_with("$2") {
        return bcrypt::verify(password, hash).unwrap_or(false);
    }
    let Ok(parsed) = PasswordHash::new(hash) else {
        return false;
    };
    Argon2::default()
        .verify_password(password.as_bytes(), &parsed)
        .is_ok()
}

/// The line for a user with this password, and all rights.
///
/// # Errors
/// A name that would be read as something else, or a hash that cannot be computed.
pub fn line(name: &str, password: &str) -> Result<String, UsersError> {
    let line = format!("{name}:{}", hash_password(password)?);
    match &parse(String::new(), &line).unwrap_or_default()[..] {
        [entry] if entry.user.name == name && entry.hash.len() + name.len() + 1 == line.len() => {
            Ok(line)
        }
        _ => Err(UsersError::Name(name.to_owned())),
    }
}

/// An argon2id hash with the crate's default costs (19 MiB, 2 passes: OWASP's first choice).
///
/// # Errors
/// When the hash cannot be computed.
pub fn hash_password(password: &str) -> Result<String, UsersError> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    hash.map(|h| h.to_string())
        .map_err(|e| UsersError::Hash(e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_may_be_read_from_now_on_has_changed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = Stamp::of(file.path());
        // Where the kernel's clock for files is coarse, the first may fall into the same moment.
        let changed = (0..100_000).any(|n| {
            let mode = std::fs::Permissions::from_mode(0o600 | (n & 1) << 5);
            std::fs::set_permissions(file.path(), mode).unwrap();
            Stamp::of(file.path()) != before
        });
        assert!(changed);
    }

    #[test]
    fn an_unknown_name_takes_as_long_as_one_of_the_known_ones_and_always_the_same() {
        let text = format!("a:{}\nb:{}\n", "$2b$04$", hash_password("b").unwrap());
        let entries = parse(String::new(), &text).unwrap();
        let again = parse(String::new(), &text).unwrap();
        let mut stood_in = std::collections::HashSet::new();
        for n in 0..64 {
            let name = format!("unknown {n}");
            let who = stand_in(&entries, &name).unwrap();
            assert_eq!(stand_in(&again, &name), Some(who));
            stood_in.insert(who);
        }
        assert_eq!(stood_in.len(), 2);
        assert!(verify(&entries, "unknown", "b").is_none());
        assert!(verify(&[], "unknown", "b").is_none());
    }

    #[test]
    fn a_line_is_only_made_for_a_name_that_is_read_as_it_was_written() {
        for name in ["pi", "two words", "ünï", "a#b"] {
            let entries = parse(String::new(), &line(name, "secret").unwrap()).unwrap();
            assert!(verify(&entries, name, "secret").is_some(), "{name}");
        }
        for name in ["", "#pi", " pi", "a:b", "a\nb", "\u{a0}pi"] {
            assert!(
                matches!(line(name, "secret"), Err(UsersError::Name(_))),
                "{name:?}"
            );
        }
    }
}
