#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

const NOW: u64 = 1_000_000;

fn lock(token: &str, path: &str, shared: bool, deep: bool) -> Lock {
    Lock {
        token: token.into(),
        path: path.into(),
        shared,
        deep,
        owner: String::new(),
        principal: None,
        timeout_s: 1800,
        expires_ms: NOW + 1_800_000,
        came: false,
    }
}

fn table() -> (tempfile::TempDir, LockTable) {
    let dir = tempfile::tempdir().unwrap();
    let table = LockTable::open(dir.path(), true, NOW).unwrap();
    (dir, table)
}

fn claim(tokens: &[&str]) -> Claim {
    Claim {
        tokens: tokens.iter().map(|t| t.to_string()).collect(),
        principal: None,
    }
}

#[test]
fn what_is_kept_of_locks_is_bounded() {
    let (dir, table) = table();
    // One file, locked and moved again and again.
    for lap in 0..200 {
        let held = Lock {
            expires_ms: NOW + 1_000 + lap,
            ..lock(&format!("t{lap}"), "/a", false, false)
        };
        drop(table.lock(held, NOW).unwrap());
        table.renamed("/a", "/b", Some("e"));
        table.renamed("/b", "/a", Some("e"));
    }
    let moved = |table: &LockTable| table.state.lock().moved.len();
    assert_eq!(moved(&table), ON_ONE_MAX);
    assert!(table.moved_here("/a", "t199", Some("e"), NOW));
    assert!(!table.moved_here("/a", "t100", Some("e"), NOW));
    // Many files.
    for n in 0..MOVED_MAX + 10 {
        let token = format!("f{n}");
        drop(table.lock(lock(&token, "/x", false, false), NOW).unwrap());
        table.renamed("/x", &format!("/y{n}"), None);
        assert!(table.moved_here(&format!("/y{n}"), &token, None, NOW));
        assert!(moved(&table) <= MOVED_MAX);
    }
    // Shared locks on one, and owners.
    for n in 0..ON_ONE_MAX {
        drop(
            table
                .lock(lock(&format!("s{n}"), "/s", true, false), NOW)
                .unwrap(),
        );
    }
    let more = table.lock(lock("s", "/s", true, false), NOW);
    assert_eq!(more.err(), Some(Refused::TooMany));
    let long = |n: usize| Lock {
        owner: "o".repeat(1 << 20),
        ..lock(&format!("o{n}"), &format!("/o{n}"), false, false)
    };
    for n in 0..64 {
        drop(table.lock(long(n), NOW).unwrap());
    }
    assert_eq!(table.lock(long(64), NOW).err(), Some(Refused::TooMany));
    assert_eq!(table.unlock("/o0", "o0", None, NOW), Unlock::Done);
    drop(table.lock(long(64), NOW).unwrap());
    let count = moved(&table);
    drop(table);
    let again = LockTable::open(dir.path(), true, NOW).unwrap();
    assert_eq!(moved(&again), count);
}

#[test]
fn exclusive_locks_exclude_and_shared_ones_share() {
    let (_d, t) = table();
    t.lock(lock("s1", "/a", true, false), NOW).unwrap();
    t.lock(lock("s2", "/a", true, false), NOW).unwrap();
    assert_eq!(
        t.lock(lock("x", "/a", false, false), NOW).unwrap_err(),
        Refused::Conflict(vec!["/a".into(), "/a".into()])
    );
    assert!(t.check("/a", &claim(&[]), NOW).is_err());
    assert!(t.check("/a", &claim(&["s2"]), NOW).is_ok());
    assert!(t.check("/a", &claim(&["other"]), NOW).is_err());
}

#[test]
fn depth_is_kept_to() {
    let (_d, t) = table();
    t.lock(lock("deep", "/a", false, true), NOW).unwrap();
    assert!(t.check("/a/b/c", &claim(&[]), NOW).is_err());
    assert!(t.check("/ab", &claim(&[]), NOW).is_ok());
    assert!(t.check("", &claim(&[]), NOW).is_ok());
    assert!(t.check_tree("", &claim(&[]), NOW).is_err());
    assert_eq!(
        t.lock(lock("x", "/a/b", true, false), NOW).unwrap_err(),
        Refused::Conflict(vec!["/a".into()])
    );
    assert_eq!(
        t.lock(lock("x", "", false, true), NOW).unwrap_err(),
        Refused::Below(vec!["/a".into()])
    );
    t.lock(lock("flat", "", false, false), NOW).unwrap();
    assert!(t.check("/z", &claim(&[]), NOW).is_ok());
}

#[test]
fn names_that_sort_between_a_path_and_its_members_are_not_below_it() {
    let (_d, t) = table();
    for (i, p) in ["/a-b", "/a.b", "/a0", "/a1"].iter().enumerate() {
        t.lock(lock(&format!("t{i}"), p, false, true), NOW).unwrap();
    }
    assert!(t.check_tree("/a", &claim(&[]), NOW).is_ok());
    t.lock(lock("in", "/a/0", false, false), NOW).unwrap();
    assert!(t.check_tree("/a", &claim(&[]), NOW).is_err());
    t.removed("/a");
    assert!(t.check_tree("/a", &claim(&[]), NOW).is_ok());
    assert_eq!(t.all().len(), 4);
}

#[tokio::test]
async fn locks_survive_a_restart_and_what_was_given_up_does_not() {
    let (dir, t) = table();
    t.lock(lock("keep", "/k", false, false), NOW)
        .unwrap()
        .wait()
        .await
        .unwrap();
    t.lock(lock("drop", "/d", false, false), NOW)
        .unwrap()
        .wait()
        .await
        .unwrap();
    assert_eq!(t.unlock("/d", "drop", None, NOW), Unlock::Done);
    drop(t);
    let t = LockTable::open(dir.path(), true, NOW).unwrap();
    assert_eq!(t.all(), [lock("keep", "/k", false, false)]);
    drop(t);
    // Ran out while we were down: its owner gets a minute to come back.
    let later = NOW + 10_000_000;
    let t = LockTable::open(dir.path(), true, later).unwrap();
    assert!(t.check("/k", &claim(&[]), later + 59_000).is_err());
    assert!(t.check("/k", &claim(&[]), later + 60_000).is_ok());
}

#[test]
fn a_clock_that_was_set_back_before_a_start_lengthens_no_lock() {
    let (dir, t) = table();
    let later = NOW + 7_200_000;
    let held = Lock {
        expires_ms: later + 1_800_000,
        ..lock("t", "/k", false, false)
    };
    t.lock(held, later).unwrap();
    drop(t);
    let t = LockTable::open(dir.path(), true, NOW).unwrap();
    assert!(t.check("/k", &claim(&[]), NOW + 1_799_000).is_err());
    assert!(t.check("/k", &claim(&[]), NOW + 1_800_000).is_ok());
}

#[test]
fn the_journal_is_rewritten_when_mostly_stale() {
    let (dir, t) = table();
    for i in 0..20_000 {
        let token = format!("urn:uuid:{i}");
        t.lock(lock(&token, "/k", false, false), NOW).unwrap();
        t.unlock("/k", &token, None, NOW);
    }
    t.lock(lock("last", "/k", false, false), NOW).unwrap();
    drop(t);
    assert!(
        std::fs::metadata(dir.path().join("locks.journal"))
            .unwrap()
            .len()
            < 2_000_000
    );
    assert_eq!(
        LockTable::open(dir.path(), true, NOW).unwrap().all(),
        [lock("last", "/k", false, false)]
    );
}

#[test]
fn a_lock_stays_behind_a_move_and_its_owner_is_still_served() {
    let (dir, t) = table();
    t.lock(lock("t", "/tmp", false, false), NOW).unwrap();
    t.renamed("/tmp", "/new", Some("\"1\""));
    assert!(
        t.check("/new", &claim(&[]), NOW).is_ok(),
        "a lock does not move"
    );
    assert!(!t.held("t", NOW));
    assert!(t.moved_here("/new", "t", Some("\"1\""), NOW));
    assert!(
        !t.moved_here("/new", "t", Some("\"2\""), NOW),
        "somebody else changed it"
    );
    t.renamed("/new", "/newer", Some("\"1\""));
    drop(t);
    let t = LockTable::open(dir.path(), true, NOW).unwrap();
    assert!(t.moved_here("/newer", "t", Some("\"1\""), NOW));
    let (lock, _) = t
        .refresh("/newer", &claim(&["t"]), Duration::from_secs(60), NOW)
        .unwrap();
    assert_eq!((lock.path.as_str(), lock.timeout_s), ("/newer", 60));
    assert!(
        t.check("/newer", &claim(&[]), NOW).is_err(),
        "asking to go on makes it a lock again"
    );
    t.renamed("/newer", "/last", None);
    assert_eq!(t.unlock("/tmp", "t", None, NOW), Unlock::NoSuchLock);
    assert_eq!(t.unlock("/newer", "t", None, NOW), Unlock::Done);
}

#[test]
fn only_its_owner_uses_or_gives_up_a_lock() {
    let (_d, t) = table();
    let mut l = lock("t", "/a", false, false);
    l.principal = Some("ann".into());
    t.lock(l, NOW).unwrap();
    let bob = Claim {
        tokens: vec!["t".into()],
        principal: Some("bob".into()),
    };
    assert!(t.check("/a", &bob, NOW).is_err());
    assert_eq!(t.unlock("/a", "t", Some("bob"), NOW), Unlock::NotYours);
    assert_eq!(t.unlock("/b", "t", Some("ann"), NOW), Unlock::NoSuchLock);
    assert_eq!(t.unlock("/a", "t", Some("ann"), NOW), Unlock::Done);
}

#[test]
fn expiry_names_the_paths_that_nothing_holds_any_more() {
    let (_d, t) = table();
    t.lock(lock("a", "/a", false, false), NOW).unwrap();
    t.lock(lock("b1", "/b", true, false), NOW).unwrap();
    let mut longer = lock("b2", "/b", true, false);
    longer.expires_ms += 1;
    t.lock(longer, NOW).unwrap();
    let end = NOW + 1_800_000;
    assert!(t.expire(end - 1).is_empty());
    assert!(t.due(end));
    assert_eq!(t.expire(end), [("/a".to_string(), Ended::Bare)]);
    assert!(!t.due(end));
    assert_eq!(t.expire(end + 1), [("/b".to_string(), Ended::Bare)]);
    assert!(t.is_empty());
}
