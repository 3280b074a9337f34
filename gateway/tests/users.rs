//! Users over the wire: passwords, rights, roots, changes while serving, and what guessing costs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::Barrier;

use base64::Engine as _;
use common::{Client, Gateway, Reply, eventually};

fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

fn serve(users: &str) -> (tempfile::NamedTempFile, Gateway) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), users).unwrap();
    let path = file.path().display().to_string();
    let gateway = Gateway::start(&["--users-file", &path]);
    (file, gateway)
}

fn ask(gateway: &Gateway, method: &str, path: &str, who: (&str, &str)) -> Reply {
    ask_over(&mut gateway.connect(), method, path, who)
}

fn ask_over(client: &mut Client, method: &str, path: &str, who: (&str, &str)) -> Reply {
    let sent = format!("{}:{}", who.0, who.1);
    let sent = base64::engine::general_purpose::STANDARD.encode(sent);
    let sent = format!("Basic {sent}");
    let reply = client.request(method, path, &[("Authorization", &sent)], b"");
    reply.expect("reply")
}

#[test]
fn a_file_without_users_is_told_and_lets_nobody_in() {
    let (_file, gateway) = serve("# nobody yet\n");
    assert_eq!(ask(&gateway, "GET", "/", ("a", "a")).status, 401);
    assert!(gateway.log().contains("has no users"), "{}", gateway.log());
}

#[test]
fn each_user_has_its_password_rights_and_root() {
    let (a, b, c) = (hash("a"), hash("b"), hash("c"));
    let (_file, gateway) = serve(&format!("all:{a}\nreader:{b}:ro\nbox:{c}:root=/box\n"));
    let reply = gateway.request("OPTIONS", "/", &[], b"");
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").starts_with("Basic realm="));
    for who in [("all", "b"), ("nobody", "a"), ("", "")] {
        assert_eq!(ask(&gateway, "GET", "/", who).status, 401, "{who:?}");
    }
    for path in ["/box", "/box/in", "/out"] {
        assert_eq!(ask(&gateway, "MKCOL", path, ("all", "a")).status, 201);
    }
    let reader = |method, path| ask(&gateway, method, path, ("reader", "b")).status;
    assert_eq!(reader("GET", "/box/"), 200);
    for method in ["PUT", "MKCOL", "DELETE", "PROPPATCH", "LOCK", "PATCH"] {
        assert_eq!(reader(method, "/new"), 403, "{method}");
    }
    let own = |method, path| ask(&gateway, method, path, ("box", "c")).status;
    assert_eq!(own("GET", "/in/"), 200);
    for path in ["/out/", "/../out/", "/%2e%2e/out/"] {
        assert_ne!(own("GET", path), 200, "{path}");
    }
    assert_eq!(own("PUT", "/in/f"), 201);
    assert!(gateway.root().join("box/in/f").exists());
}

#[test]
fn a_changed_password_counts_at_once_and_the_old_one_no_more() {
    let (file, gateway) = serve(&format!("pi:{}\n", hash("old")));
    assert_eq!(ask(&gateway, "GET", "/", ("pi", "old")).status, 200);
    std::fs::write(file.path(), format!("pi:{}\n", hash("new"))).unwrap();
    eventually("the new password", || {
        ask(&gateway, "GET", "/", ("pi", "new")).status == 200
    });
    assert_eq!(ask(&gateway, "GET", "/", ("pi", "old")).status, 401);
    // What makes no sense leaves everybody in.
    std::fs::write(file.path(), "pi\n").unwrap();
    eventually("the complaint", || {
        let status = ask(&gateway, "GET", "/", ("pi", "new")).status;
        assert_eq!(status, 200);
        gateway.log().contains("the users stay as they were")
    });
}

#[test]
fn guessing_is_slowed_down_counted_and_logged_but_locks_nobody_out() {
    let (_file, gateway) = serve(&format!("pi:{}\nmo:{}\n", hash("right"), hash("mine")));
    for n in 0..10 {
        let guess = format!("wrong {n}");
        assert_eq!(ask(&gateway, "GET", "/", ("pi", &guess)).status, 401);
    }
    // Neither was seen before.
    assert_eq!(ask(&gateway, "GET", "/", ("mo", "mine")).status, 200);
    assert_eq!(ask(&gateway, "GET", "/", ("pi", "right")).status, 200);
    // Many at once: some are refused, as trouble that passes.
    let all_there = Barrier::new(24);
    let refused = std::thread::scope(|scope| {
        let guess = |n: usize| {
            let mut client = gateway.connect();
            all_there.wait();
            ask_over(&mut client, "GET", "/", ("pi", &format!("guess {n}")))
        };
        let threads: Vec<_> = (0..24).map(|n| scope.spawn(move || guess(n))).collect();
        let replies = threads.into_iter().map(|t| t.join().unwrap());
        replies
            .filter(|r| r.status == 503 && !r.header("retry-after").is_empty())
            .count()
    });
    assert!(refused > 0);
    let metrics = gateway.admin("GET", "/.tierdav/metrics").text();
    assert!(metrics.contains("rate_limited"), "{metrics}");
    assert!(gateway.log().contains("login failed"));
}

#[test]
fn an_upload_without_a_password_gets_its_reply() {
    let (_file, gateway) = serve(&format!("pi:{}\n", hash("right")));
    // More than sockets hold: closed under its sender, the connection would be reset, and the reply lost.
    let reply = gateway
        .connect()
        .request("PUT", "/f", &[], &vec![7; 32 << 20]);
    assert_eq!(reply.unwrap().status, 401);
}

#[test]
fn a_user_name_cannot_write_lines_of_the_log() {
    let (_file, gateway) = serve(&format!("pi:{}\n", hash("right")));
    let name = "pi\nforged \u{1b}[31mand so on";
    assert_eq!(ask(&gateway, "GET", "/", (name, "x")).status, 401);
    let log = gateway.log();
    let line = log.lines().find(|l| l.contains("login failed")).unwrap();
    assert!(line.contains(r"pi\nforged "), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[test]
fn check_config_names_files_that_cannot_be_used() {
    let gateway = Gateway::start(&[]);
    let bad = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bad.path(), "pi:plain\n").unwrap();
    let bad = bad.path().display().to_string();
    let cases: [(&[&str], &str); 3] = [
        (
            &["--users-file", "/nonexistent/users"],
            "users_file /nonexistent/users: cannot be read",
        ),
        (&["--users-file", &bad], "line 1"),
        (
            &[
                "--tls-cert",
                "/nonexistent/c",
                "--tls-key",
                "/nonexistent/k",
            ],
            "tls_cert /nonexistent/c",
        ),
    ];
    for (flags, text) in cases {
        let refused = gateway.command("check-config", flags);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(text), "{said}");
    }
}
