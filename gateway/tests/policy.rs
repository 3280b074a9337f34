//! Settings that change while the gateway runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Client, Gateway, Reply, content, eventually};
use serde_json::Value;

fn status(gateway: &Gateway) -> Value {
    serde_json::from_slice(&gateway.admin("GET", "/.tierdav/status").body).unwrap()
}

fn objects(gateway: &Gateway, of: &str) -> u64 {
    status(gateway)["tiers"][of]["objects"].as_u64().unwrap()
}

fn set(gateway: &Gateway, body: &str) -> Reply {
    let mut admin = Client::connect(gateway.admin).unwrap();
    admin
        .request("POST", "/.tierdav/policy", &[], body.as_bytes())
        .unwrap()
}

fn in_force(gateway: &Gateway, key: &str) -> (String, String) {
    let body = gateway.admin("GET", "/.tierdav/policy").body;
    let policy: Value = serde_json::from_slice(&body).unwrap();
    let settings = policy["settings"].as_array().unwrap();
    let found = settings.iter().find(|s| s["key"] == key).expect(key);
    let text = |name: &str| found[name].as_str().unwrap().to_owned();
    (text("value"), text("source"))
}

/// Five reads that promote nothing, then one more at an easier threshold.
#[test]
fn a_parameter_changed_live_changes_decisions_and_what_was_seen_before_counts() {
    let gateway = Gateway::start(&[
        "--cost-benefit-theta=1000",
        "--cost-benefit-margin=0",
        "--cache-capacity=64MiB",
    ]);
    let body = content(1, 200_000);
    std::fs::write(gateway.root().join("cold.bin"), &body).unwrap();
    for _ in 0..5 {
        assert_eq!(gateway.get("/cold.bin").body, body);
    }
    assert_eq!(objects(&gateway, "promoted"), 0);

    let answer = set(&gateway, "{\"cost_benefit_theta\": 3}");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("\"from\":\"1000\",\"to\":\"3\""));
    assert_eq!(
        in_force(&gateway, "cost_benefit_theta"),
        ("3".into(), "set while running".into())
    );
    // Alone it would have paid a third of what is asked: the five before were remembered.
    assert_eq!(gateway.get("/cold.bin").body, body);
    eventually("promoted", || objects(&gateway, "promoted") == 1);
    assert_eq!(gateway.get("/cold.bin").body, body);
}

#[test]
fn another_policy_takes_over_what_is_cached_and_a_wrong_value_changes_nothing() {
    let gateway = Gateway::start(&["--cache-capacity=64MiB", "--max-dirty-age=1h"]);
    let body = content(2, 300_000);
    assert_eq!(gateway.put("/new.bin", &body).status, 201);
    assert_eq!(objects(&gateway, "dirty"), 1);

    let wrong = set(
        &gateway,
        "policy = \"none\"\nlow_watermark = 2\nroot = \"/\"\n",
    );
    assert_eq!(wrong.status, 400);
    for part in [
        "low_watermark = \"2\" (set while running): must be 0.05 to high_watermark",
        "root = \"/\": cannot change while the gateway runs",
    ] {
        assert!(wrong.text().contains(part), "{part}\n{}", wrong.text());
    }
    assert_eq!(in_force(&gateway, "policy").0, "cost-benefit");
    assert_eq!(objects(&gateway, "dirty"), 1);

    // `none` empties a cache: it must have been told of what is in it.
    let admin = gateway.admin.to_string();
    let run = |args: &[&str]| {
        let mut tierdav = std::process::Command::new(env!("CARGO_BIN_EXE_tierdav"));
        tierdav.args(["policy", "--admin", &admin]).args(args);
        let out = tierdav.output().unwrap();
        (out.status.success(), String::from_utf8(out.stdout).unwrap())
    };
    let changed = run(&["policy=none"]);
    assert_eq!(changed, (true, "policy: cost-benefit -> none\n".to_owned()));
    eventually("empty", || {
        objects(&gateway, "dirty") + objects(&gateway, "clean") == 0
    });
    assert_eq!(std::fs::read(gateway.root().join("new.bin")).unwrap(), body);
    assert_eq!(gateway.get("/new.bin").body, body);
    assert!(!run(&["policy=best"]).0);
    assert!(run(&[]).1.starts_with("policy = \"none\""));

    assert_eq!(set(&gateway, "policy = \"lru\"").status, 200);
    assert_eq!(gateway.get("/new.bin").body, body);
    eventually("promoted", || objects(&gateway, "clean") == 1);
}

#[test]
fn sighup_applies_what_can_change_and_names_what_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tierdav.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("cost_benefit_theta = 2\n");
    let flag = format!("--config={}", file.display());
    let gateway = Gateway::start(&[&flag, "--cache-capacity=64MiB"]);
    assert_eq!(in_force(&gateway, "cost_benefit_theta").0, "2");

    write("cost_benefit_theta = 5\nmax_dirty_age = \"7s\"\nquota = \"1GiB\"\n");
    gateway.signal_hup();
    eventually("read again", || gateway.log().contains("restart it"));
    assert_eq!(in_force(&gateway, "cost_benefit_theta").0, "5");
    let meaning = status(&gateway)["policy"].to_string();
    assert!(meaning.contains("7.0 s"), "{meaning}");
    let log = gateway.log();
    let warned = log.lines().find(|l| l.contains("restart it")).unwrap();
    assert!(
        warned.contains("quota") && warned.contains("1GiB"),
        "{warned}"
    );

    write("cost_benefit_theta = -5\nmax_dirty_age = \"8s\"\n");
    gateway.signal_hup();
    eventually("refused", || gateway.log().contains("stay as they were"));
    assert!(gateway.log().contains("cost_benefit_theta = \"-5\""));
    assert_eq!(in_force(&gateway, "max_dirty_age").0, "7s");
    assert_eq!(in_force(&gateway, "cost_benefit_theta").0, "5");
}

#[test]
fn shadows_show_what_other_policies_would_achieve() {
    let gateway = Gateway::start(&["--shadow=lru,none", "--cache-capacity=64MiB"]);
    let body = content(3, 100_000);
    std::fs::write(gateway.root().join("cold.bin"), &body).unwrap();
    let of = |shadow: &Value, policy: &str, size: f64, what: &str| {
        let rows = shadow["estimates"].as_array().unwrap();
        let row = rows
            .iter()
            .find(|r| r["policy"] == policy && r["size"] == size);
        row.expect(policy)[what].as_f64().unwrap()
    };
    eventually("shadows hit", || {
        assert_eq!(gateway.get("/cold.bin").body, body);
        let shadow = &status(&gateway)["shadow"];
        !shadow.is_null() && of(shadow, "lru", 1.0, "read_hits") > 3.0
    });
    let shadow = &status(&gateway)["shadow"];
    assert_eq!(shadow["estimates"].as_array().unwrap().len(), 8);
    assert_eq!(shadow["sampling_ratio"], 1.0);
    assert_eq!(shadow["objects"], 1);
    assert_eq!(of(shadow, "none", 4.0, "read_hits"), 0.0);
    let (none, lru) = (
        of(shadow, "none", 1.0, "head_seconds"),
        of(shadow, "lru", 1.0, "head_seconds"),
    );
    assert!(none > lru && lru > 0.0, "{none} {lru}");

    let metrics = gateway.admin("GET", "/.tierdav/metrics").text();
    for sample in [
        "tierdav_shadow_read_hits_total{policy=\"none\",size=\"0.5x\"} 0\n",
        "tierdav_shadow_read_hit_bytes_total{policy=\"lru\",size=\"2x\"} ",
        "tierdav_shadow_backing_busy_seconds_total{policy=\"lru\",size=\"4x\"} ",
        "tierdav_shadow_sampling_ratio 1\n",
    ] {
        assert!(metrics.contains(sample), "{sample}\n{metrics}");
    }
    let mut tierdav = std::process::Command::new(env!("CARGO_BIN_EXE_tierdav"));
    tierdav.args(["status", "--admin", &gateway.admin.to_string()]);
    let text = String::from_utf8(tierdav.output().unwrap().stdout).unwrap();
    assert!(text.contains("backing busy"), "{text}");

    let wrong = set(&gateway, "{\"shadow\": [\"lru\", \"lru\"]}");
    assert!(
        wrong
            .text()
            .contains("shadow = \"lru,lru\" (set while running): must be at most 8 different"),
        "{}",
        wrong.text()
    );
    assert_eq!(set(&gateway, "{\"shadow\": []}").status, 200);
    assert!(status(&gateway)["shadow"].is_null());
}

/// The default policy is told not to promote before it has seen a thousand reads, so that any other does better.
#[test]
fn auto_changes_to_the_better_shadow_and_says_why() {
    let gateway = Gateway::start(&[
        "--policy=auto",
        "--shadow=lru",
        "--auto-period=1s",
        "--cost-benefit-theta=1000",
        "--cache-capacity=64MiB",
    ]);
    let body = content(4, 5_000);
    for n in 0..200 {
        std::fs::write(gateway.root().join(format!("hot-{n}")), &body).unwrap();
    }
    let policy = |gateway: &Gateway| status(gateway)["policy"]["name"].clone();
    assert_eq!(policy(&gateway), "cost-benefit");
    let mut client = gateway.connect();
    eventually("another policy", || {
        for n in 0..200 {
            let path = format!("/hot-{n}");
            client.request("GET", &path, &[], b"").unwrap();
        }
        policy(&gateway) == "lru"
    });
    assert_eq!(status(&gateway)["policy"]["by_auto"], true);
    let why = status(&gateway)["shadow"]["switched"].to_string();
    assert!(why.contains("lru instead of cost-benefit: in "), "{why}");
    // Written after the switch.
    eventually("it is logged", || {
        gateway.log().contains("lru instead of cost-benefit: in ")
    });
    assert_eq!(gateway.get("/hot-0").body, body);
    eventually("promoted", || objects(&gateway, "promoted") > 0);

    // Another setting keeps what was chosen; another policy ends it.
    assert_eq!(set(&gateway, "lru_2nd_ghost_share = 2").status, 200);
    assert_eq!(policy(&gateway), "lru");
    assert_eq!(in_force(&gateway, "policy").0, "auto");
    assert_eq!(set(&gateway, "policy = \"cost-benefit\"").status, 200);
    assert_eq!(policy(&gateway), "cost-benefit");
    assert_eq!(status(&gateway)["policy"]["by_auto"], false);
}

#[test]
fn reload_answers_with_what_changed_and_what_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tierdav.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("max_dirty_age = \"1h\"\n");
    let gateway = Gateway::start(&["--config", file.to_str().unwrap()]);
    let reload = || gateway.admin("POST", "/.tierdav/reload");

    write("max_dirty_age = \"2h\"\nquota = \"1GiB\"\n");
    let done = reload();
    assert_eq!(done.status, 200, "{}", done.text());
    for part in [
        "max_dirty_age: 1h -> 2h",
        "quota: none stays in force until a restart, then 1GiB",
    ] {
        assert!(done.text().contains(part), "{}", done.text());
    }
    assert_eq!(in_force(&gateway, "max_dirty_age").0, "2h");

    write("max_dirty_age = \"3\"\n");
    let refused = reload();
    assert_eq!(refused.status, 400);
    for part in ["the settings stay as they were", "max_dirty_age = \"3\""] {
        assert!(refused.text().contains(part), "{}", refused.text());
    }
    assert_eq!(in_force(&gateway, "max_dirty_age").0, "2h");
}
