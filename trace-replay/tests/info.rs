//! `info` on made and on real traces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use trace_replay::info::{Info, collect};
use trace_replay::read::{CsvReader, open};
use trace_replay::trace::Op;

fn of(text: &'static str) -> Info {
    let mut reader = CsvReader::new(text.as_bytes(), Path::new("t.csv")).unwrap();
    collect(&mut reader).unwrap()
}

fn fixture(name: &str) -> Info {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    collect(&mut *open(&root.join("fixtures/es").join(name)).unwrap()).unwrap()
}

const SMALL: &str = "ts_us,client,op,path,offset,length,latency_us,result,thread,path2,n
1000,a,create,x,,,10,ok,,,
2000,a,write,x,0,4096,10,ok,,,
2000,a,write,x,4096,4096,10,ok,,,
3000,a,write,y,0,100,10,ok,,,
4000,a,read,x,0,4096,10,ok,,,
5000,a,read,x,100,50,10,ok,,,
9000,a,unlink,x,,,10,ok,,,
9001,a,unlink,z,,,10,ENOENT,,,
";

#[test]
fn a_small_trace_by_hand() {
    let info = of(SMALL);
    assert_eq!(info.writes.sequential_share, 1.0);
    assert_eq!(info.reads.sequential_share, 0.5);
    assert!((info.reads.sequential_bytes_share - 4096.0 / 4146.0).abs() < 1e-12);
    // Gaps: 1000, 0, 1000, 1000, 1000, 4000, 1.
    let gaps: Vec<_> = info.gap_us.buckets().map(|b| (b.from, b.count)).collect();
    assert_eq!(gaps, [(0, 1), (1, 1), (512, 4), (2048, 1)]);
    // x, x (0), y; then x past y's 100 bytes, and x at once.
    assert_eq!((info.reads.first_uses, info.writes.first_uses), (0, 2));
    let reuse: Vec<_> = info
        .reads
        .reuse_bytes
        .buckets()
        .map(|b| (b.from, b.count))
        .collect();
    assert_eq!(reuse, [(0, 1), (64, 1)]);
    assert_eq!(
        (
            info.lifetimes.born,
            info.lifetimes.died,
            info.lifetimes.died_bytes
        ),
        (1, 1, 8192)
    );
    let last = info.over_time.intervals.last().unwrap();
    assert_eq!((last.touched_bytes, last.living_bytes), (8292, 100));
    assert_eq!(info.hottest[0].path, "x");
    assert_eq!(
        (info.hottest[0].reads, info.hottest[0].written_bytes),
        (2, 8192)
    );
}

#[test]
fn the_mean_of_latencies_that_are_no_times_is_still_their_mean() {
    let info = of("ts_us,op,path,offset,length,latency_us
1,read,x,0,1,18446744073709551615\n2,read,x,0,1,18446744073709551611\n");
    let reads = &info.operations[&Op::FileRead];
    assert_eq!(reads.latency_us_mean, u64::MAX - 2);
}

#[test]
fn what_nothing_moves_at_once_is_counted_and_not_taken_apart() {
    let info = of("ts_us,op,path,offset,length
1,read,x,0,1125899906842624\n2,write,x,9007199254740992,1\n3,truncate,x,0,1125899906842624\n");
    assert_eq!((info.entries, info.pieces, info.unusable.lines), (1, 0, 2));
    let why = &info.unusable.examples[0];
    assert!(why.starts_with("t.csv:2: column 5 (length)"), "{why}");
}

#[test]
fn an_empty_trace_is_a_page_too() {
    let info = of("ts_us,client,op,path,offset,length,latency_us,result,thread,path2,n\n");
    let html = info.html("empty.csv");
    assert!(html.contains("No data.") && !html.contains("NaN"), "{html}");
    assert!(!info.text().contains("NaN"));
}

#[test]
fn a_hostile_path_reaches_neither_the_terminal_nor_the_page_as_code() {
    let info = of(
        "ts_us,client,op,path,offset,length,latency_us,result,thread,path2,n
1,a,write,<img src=x onerror=alert(1)>\u{1b}[2J,0,10,1,ok,,,
",
    );
    let html = info.html("<b>.csv");
    assert!(
        html.contains("&lt;img src=x onerror=alert(1)&gt;\\u{1b}[2J"),
        "{html}"
    );
    assert!(!html.contains("<img") && !html.contains("<b>"));
    assert!(!info.text().contains('\u{1b}'));
}

#[test]
fn real_traces_have_every_item_on_the_page_and_in_the_text() {
    for (name, level) in [
        ("local_256.csv.xz", "file operations"),
        ("dav_apache_256_dav.csv.xz", "WebDAV requests"),
    ] {
        let info = fixture(name);
        let (html, text) = (info.html(name), info.text());
        for item in [
            level,
            "How often",
            "Bytes read and written",
            "Footprint",
            "Size of one access",
            "Time between the starts",
            "Reuse distance",
            "Lifetimes",
            "Hottest paths",
            "sequential",
        ] {
            assert!(html.contains(item), "{name}: {item}");
        }
        for item in [
            level,
            "size of one",
            "reuse distance",
            "between starts",
            "lifetimes",
            "hottest paths",
            "sequential",
            "touched",
        ] {
            assert!(text.contains(item), "{name}: {item}");
        }
        assert!(html.len() < 300_000, "{}", html.len());
        // Every access has a place in the order, and the sums over time are the sums.
        let written: u64 = info
            .over_time
            .intervals
            .iter()
            .map(|i| i.written_bytes)
            .sum();
        assert_eq!(written, info.written_bytes);
        assert_eq!(
            info.over_time.intervals.last().unwrap().touched_bytes,
            info.working_set_bytes
        );
    }
}
