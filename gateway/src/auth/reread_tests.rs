//! A file of users that changes while it is being read.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

fn line(password: &str) -> String {
    format!("pi:{}\n", bcrypt::hash(password, 4).unwrap())
}

/// In place of the file of users one that is read for as long as the test wants.
fn hold(at: &Path) {
    let pipe = at.with_extension("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    std::fs::rename(pipe, at).unwrap();
}

/// Puts `new` in the place of what is being read there, as `mv` does. `end` lets the reader have `old`.
fn replace(at: &Path, old: &str, new: &str) -> impl FnOnce() {
    // Opened as soon as somebody reads.
    let mut read = OpenOptions::new().write(true).open(at).unwrap();
    let other = at.with_extension("new");
    std::fs::write(&other, line(new)).unwrap();
    std::fs::rename(other, at).unwrap();
    let old = line(old);
    move || read.write_all(old.as_bytes()).unwrap()
}

fn knows(users: &Users, password: &str) -> bool {
    let entries = Arc::clone(&users.state.lock().entries);
    file::verify(&entries, "pi", password).is_some()
}

#[test]
fn a_change_while_the_file_is_read_for_the_first_time_is_seen_by_the_next_look() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    hold(&path);
    let users = std::thread::scope(|scope| {
        let opened = scope.spawn(|| Users::open(Some(path.clone())));
        replace(&path, "old", "new")();
        opened.join().unwrap().unwrap()
    });
    assert!(knows(&users, "old"));
    let long_ago = Instant::now().checked_sub(LOOK).unwrap();
    users.state.lock().checked = long_ago;
    users.reload_if_changed();
    assert!(knows(&users, "new"));
}

#[test]
fn of_two_who_read_the_file_the_later_one_has_the_last_word() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    std::fs::write(&path, line("first")).unwrap();
    let users = Users::open(Some(path.clone())).unwrap();
    hold(&path);
    std::thread::scope(|scope| {
        scope.spawn(|| users.reload().unwrap());
        let end = replace(&path, "old", "new");
        let (done, later) = channel();
        let (users, done) = (&users, done);
        scope.spawn(move || {
            users.reload().unwrap();
            let _ = done.send(());
        });
        // It waits for the earlier one, however long that takes.
        let overtook = later.recv_timeout(Duration::from_millis(300));
        end();
        assert_eq!(overtook, Err(RecvTimeoutError::Timeout));
    });
    assert!(knows(&users, "new"));
}
