//! Kept listings: whatever changes in a collection, by whatever way, nobody is told what was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use super::listings::{Gathered, LISTING_BYTES_MAX, Piece};
use super::tests::{Fixture, p, put};
use super::*;

/// Longer than the steps in which file systems keep time.
const STEP: std::time::Duration = std::time::Duration::from_millis(20);

fn listing(text: &str) -> Listing {
    Listing {
        asked: Bytes::from_static(b"asked"),
        root: ResourcePath::root(),
        minimal: false,
        pieces: vec![Piece::Plain(Bytes::from(text.to_owned()))],
    }
}

/// What a reply would say of the members.
fn words(members: &[(String, Meta)]) -> String {
    let word = |(name, m): &(String, Meta)| {
        let Meta {
            kind,
            len,
            modified,
            etag,
            executable,
            ..
        } = m;
        format!("{name} {kind:?} {len} {modified:?} {etag} {executable}\n")
    };
    members.iter().map(word).collect()
}

/// Lists the collection, as the protocol engine does it; `true` when that was told from what was kept.
async fn list(v: &Volume, path: &str) -> (String, bool) {
    let path = p(path);
    if let Some(kept) = v.listed(&path) {
        let said = kept.pieces.iter().map(|p| p.said().unwrap());
        return (
            String::from_utf8(said.collect::<Vec<_>>().concat()).unwrap(),
            true,
        );
    }
    let (members, watched) = v.list_watched(&path).await.unwrap();
    let text = words(&members);
    if let Some(watched) = watched {
        v.keep_listing(watched, listing(&text));
    }
    (text, false)
}

async fn fresh(v: &Volume, path: &str) -> String {
    words(&v.list(&p(path)).await.unwrap())
}

#[tokio::test]
async fn whatever_changes_the_next_listing_tells() {
    let f = Fixture::new(false);
    let v = f.open().await;
    let at = |name: &str| f.root().join(name);
    for dir in ["/d", "/d/sub", "/other"] {
        v.mkcol(&p(dir), unchecked()).await.unwrap();
    }
    put(&v, "/d/a", b"a").await.unwrap();
    put(&v, "/other/x", b"x").await.unwrap();
    type Change<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let changes: Vec<Change> = vec![
        ("nothing", Box::new(|| {})),
        (
            "created",
            Box::new(|| fs::write(at("d/new"), b"1").unwrap()),
        ),
        (
            "written",
            Box::new(|| fs::write(at("d/new"), b"22").unwrap()),
        ),
        (
            "truncated",
            Box::new(|| {
                fs::File::options()
                    .write(true)
                    .open(at("d/new"))
                    .unwrap()
                    .set_len(1)
                    .unwrap()
            }),
        ),
        (
            "mode",
            Box::new(|| {
                fs::set_permissions(at("d/new"), fs::Permissions::from_mode(0o700)).unwrap()
            }),
        ),
        (
            "times",
            Box::new(|| {
                fs::File::open(at("d/new"))
                    .unwrap()
                    .set_modified(SystemTime::UNIX_EPOCH)
                    .unwrap()
            }),
        ),
        (
            "renamed",
            Box::new(|| fs::rename(at("d/new"), at("d/newer")).unwrap()),
        ),
        (
            "moved in over",
            Box::new(|| fs::rename(at("other/x"), at("d/newer")).unwrap()),
        ),
        (
            "moved out",
            Box::new(|| fs::rename(at("d/newer"), at("other/x")).unwrap()),
        ),
        (
            "in a subcollection",
            Box::new(|| fs::write(at("d/sub/deep"), b"1").unwrap()),
        ),
        (
            "removed in a subcollection",
            Box::new(|| {
                // File systems keep time in steps.
                let made = fs::metadata(at("d/sub")).unwrap().modified().unwrap();
                while made.elapsed().unwrap_or_default() < STEP {
                    std::thread::yield_now();
                }
                fs::remove_file(at("d/sub/deep")).unwrap();
            }),
        ),
        (
            "a symbolic link",
            Box::new(|| symlink("a", at("d/link")).unwrap()),
        ),
        (
            "replaced by a link",
            Box::new(|| {
                fs::remove_file(at("d/link")).unwrap();
                fs::rename(at("d/a"), at("d/link")).unwrap();
            }),
        ),
        (
            "directory exchanged",
            Box::new(|| {
                fs::rename(at("d"), at("gone")).unwrap();
                fs::create_dir(at("d")).unwrap();
            }),
        ),
        (
            "directory back",
            Box::new(|| {
                fs::remove_dir(at("d")).unwrap();
                fs::rename(at("gone"), at("d")).unwrap();
            }),
        ),
    ];
    let mut kept = 0;
    for (what, change) in changes {
        // Until it is told from memory, or is never going to be.
        for _ in 0..3 {
            kept += u32::from(list(&v, "/d").await.1);
        }
        let before = list(&v, "/d").await.0;
        change();
        let now = fresh(&v, "/d").await;
        assert_eq!(list(&v, "/d").await.0, now, "{what}");
        assert!(
            now != before || ["nothing", "a symbolic link", "directory back"].contains(&what),
            "{what}"
        );
    }
    assert!(kept > 20, "{kept}");
}

#[tokio::test]
async fn what_another_name_may_change_is_not_kept() {
    let f = Fixture::new(false);
    let v = f.open().await;
    v.mkcol(&p("/d"), unchecked()).await.unwrap();
    put(&v, "/d/a", b"a").await.unwrap();
    fs::hard_link(f.root().join("d/a"), f.root().join("b")).unwrap();
    for n in 0..3 {
        let (text, kept) = list(&v, "/d").await;
        assert!(
            !kept && text.starts_with(&format!("a File {} ", 1 + n)),
            "{text}"
        );
        fs::write(f.root().join("b"), vec![b'b'; 2 + n]).unwrap();
    }
    fs::remove_file(f.root().join("b")).unwrap();
    list(&v, "/d").await;
    assert!(list(&v, "/d").await.1);
}

#[tokio::test]
async fn a_collection_moved_with_its_parent_is_not_what_its_old_name_means() {
    let f = Fixture::new(false);
    let v = f.open().await;
    for (dir, file) in [("/a", "/a/d"), ("/b", "/b/d")] {
        v.mkcol(&p(dir), unchecked()).await.unwrap();
        v.mkcol(&p(file), unchecked()).await.unwrap();
        put(&v, &format!("{file}/of{}", &dir[1..]), b"1")
            .await
            .unwrap();
    }
    for _ in 0..2 {
        list(&v, "/a/d").await;
    }
    assert!(list(&v, "/a/d").await.1);
    v.rename(&p("/a"), &p("/c"), true, unchecked())
        .await
        .unwrap();
    assert!(v.listed(&p("/a/d")).is_none());
    v.rename(&p("/b"), &p("/a"), true, unchecked())
        .await
        .unwrap();
    let (text, _) = list(&v, "/a/d").await;
    assert!(text.starts_with("ofb "), "{text}");
}

#[tokio::test]
async fn properties_and_versions_of_members_are_changes() {
    for cached in [false, true] {
        let f = Fixture::new(cached);
        let v = f.open().await;
        v.mkcol(&p("/d"), unchecked()).await.unwrap();
        put(&v, "/d/a", b"a").await.unwrap();
        for n in 0..3 {
            list(&v, "/d").await;
            let prop = DeadProp {
                namespace: "urn:x".into(),
                name: "n".into(),
                xml: format!("<n xmlns=\"urn:x\">{n}</n>").into_bytes(),
            };
            v.patch_props(&p("/d/a"), vec![PropChange::Set(prop)], None, unchecked())
                .await
                .unwrap();
            assert!(v.listed(&p("/d")).is_none());
            list(&v, "/d").await;
            put(&v, "/d/a", format!("{n}").as_bytes()).await.unwrap();
            assert!(v.listed(&p("/d")).is_none());
        }
    }
}

#[test]
fn large_replies_are_kept_compressed_and_come_back_as_they_were() {
    let said: Vec<Bytes> = (0..600u32)
        .map(|n| {
            let members = (0..100).map(|m| {
                format!(
                    "<D:href>/d/file-{n:06}-{m:06}</D:href>{}",
                    "<D:x/>".repeat(100)
                )
            });
            Bytes::from(members.collect::<String>())
        })
        .collect();
    let mut gathered = Gathered::default();
    assert!(said.iter().all(|piece| gathered.add(piece)));
    let pieces = gathered.pieces();
    assert!(pieces.iter().any(|p| matches!(p, Piece::Packed(..))));
    let again: Vec<Bytes> = pieces.iter().map(|p| p.said().unwrap()).collect();
    assert_eq!(again, said);
    // What cannot be compressed is too much sooner.
    let mut gathered = Gathered::default();
    let mut x = 1u64;
    let mut noise = || {
        let mut next = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (x >> 56) as u8
        };
        Bytes::from((0..65_536).map(|_| next()).collect::<Vec<u8>>())
    };
    let added = std::iter::repeat_with(&mut noise)
        .take_while(|p| gathered.add(p))
        .count();
    assert!((100..128).contains(&added), "{added}");
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_grows_old() {
    let f = Fixture::new(false);
    let v = f.open().await;
    let keep = async |n: usize, len: usize| {
        let path = p(&format!("/d{n}"));
        if v.stat(&path).await.is_err() {
            v.mkcol(&path, unchecked()).await.unwrap();
        }
        let (_, watched) = v.list_watched(&path).await.unwrap();
        v.keep_listing(watched.unwrap(), listing(&"x".repeat(len)));
        v.listed(&path).is_some()
    };
    assert!(keep(0, LISTING_BYTES_MAX).await);
    assert!(!keep(1, LISTING_BYTES_MAX + 1).await);
    assert!(keep(2, LISTING_BYTES_MAX).await);
    assert!(keep(3, 1).await);
    assert!(v.listed(&p("/d0")).is_none() && v.listed(&p("/d2")).is_some());
    for n in 4..400 {
        assert!(keep(n, 1).await);
    }
    let kept = |v: &Volume| {
        (0..400)
            .filter(|n| v.listed(&p(&format!("/d{n}"))).is_some())
            .count()
    };
    assert_eq!(kept(&v), 256);
    v.inner.listings.forget_old(Instant::now());
    assert_eq!(kept(&v), 256);
    v.inner
        .listings
        .forget_old(Instant::now() + std::time::Duration::from_secs(121));
    assert_eq!(kept(&v), 0);
}

/// Changes by one thread, each counted when it has been made; listings by others must tell at least what was counted before
/// they began.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_listing_never_tells_less_than_was_there_when_it_was_asked_for() {
    let f = Fixture::new(false);
    let v = f.open().await;
    v.mkcol(&p("/d"), unchecked()).await.unwrap();
    let (file, done) = (f.root().join("d/grows"), Arc::new(AtomicU64::new(0)));
    fs::write(&file, b"").unwrap();
    let writer = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            use std::io::Write;
            let mut file = fs::File::options().append(true).open(file).unwrap();
            for n in 1..=3000 {
                file.write_all(b"x").unwrap();
                done.store(n, Ordering::SeqCst);
                // Now and then long enough for a listing to be told from memory.
                if n % 8 == 0 {
                    for _ in 0..20 {
                        std::thread::yield_now();
                    }
                }
            }
        })
    };
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (v, done) = (Arc::clone(&v), Arc::clone(&done));
            tokio::spawn(async move {
                let mut told = 0;
                while done.load(Ordering::SeqCst) < 3000 {
                    let before = done.load(Ordering::SeqCst);
                    let (text, kept) = list(&v, "/d").await;
                    told += u64::from(kept);
                    let len: u64 = text.split(' ').nth(2).unwrap().parse().unwrap();
                    assert!(len >= before, "{len} < {before}, kept: {kept}");
                }
                told
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    writer.join().unwrap();
    list(&v, "/d").await;
    assert_eq!(list(&v, "/d").await, (fresh(&v, "/d").await, true));
}
