//! `trace-replay simulate` from the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn simulate(args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trace-replay"));
    command
        .current_dir(root)
        .arg("simulate")
        .args(args)
        .output()
        .unwrap()
}

fn json(args: &[&str]) -> Vec<Value> {
    let out = simulate(&[args, &["--json"]].concat());
    assert!(out.status.success(), "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap()
}

/// libCacheSim's records, one a second; a capital letter is twice as large.
fn records(letters: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (second, letter) in letters.chars().enumerate() {
        let size: u32 = if letter.is_uppercase() { 2000 } else { 1000 };
        out.extend(u32::try_from(second).unwrap().to_le_bytes());
        out.extend(u64::from(letter).to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend((-1_i64).to_le_bytes());
    }
    out
}

#[test]
fn oracle_general_is_read_plain_and_compressed_and_counted_like_libcachesim() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = records("abcdabcdabcd");
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (plain, gz, zst) = (file("t.bin"), file("t.bin.gz"), file("t.bin.zst"));
    std::fs::write(&plain, &bytes).unwrap();
    let mut encoder =
        flate2::write::GzEncoder::new(std::fs::File::create(&gz).unwrap(), Default::default());
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap();
    std::fs::write(&zst, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
    for path in [&plain, &gz, &zst] {
        let rows = json(&[
            path,
            "--format",
            "oracle-general",
            "--policy",
            "lru,belady,none",
            "--cache-objects",
            "3,4",
            "--ignore-object-size",
        ]);
        let seen: Vec<_> = rows
            .iter()
            .map(|r| {
                (
                    r["policy"].as_str().unwrap(),
                    r["cache_objects"].as_u64().unwrap(),
                    r["misses"].as_u64().unwrap(),
                )
            })
            .collect();
        // With room for three, what LRU drops is always what comes next.
        let want = [
            ("lru", 3, 12),
            ("belady", 3, 6),
            ("none", 3, 12),
            ("lru", 4, 4),
            ("belady", 4, 4),
            ("none", 4, 12),
        ];
        assert_eq!(seen, want, "{path}");
        for row in &rows {
            assert_eq!(row["requests"], 12);
            let ratio = row["misses"].as_f64().unwrap() / 12.0;
            assert_eq!(row["miss_ratio"].as_f64().unwrap(), ratio);
            assert_eq!(row["byte_miss_ratio"].as_f64().unwrap(), ratio);
            assert!(row["cache_bytes"].is_null());
        }
    }
}

#[test]
fn sizes_count_unless_they_are_to_be_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.oracleGeneral");
    std::fs::write(&path, records("aBcaBc")).unwrap();
    let path = path.to_str().unwrap();
    let only = |args: &[&str]| {
        let rows = json(
            &[
                &[path, "--format", "oracle-general", "--policy", "fifo"],
                args,
            ]
            .concat(),
        );
        assert_eq!(rows.len(), 1);
        let ratio = |name: &str| (rows[0][name].as_f64().unwrap() * 100.0).round();
        (
            ratio("miss_ratio"),
            ratio("byte_miss_ratio"),
            rows[0]["cache_bytes"].as_u64(),
        )
    };
    // 4000 bytes hold all; in 3000 each takes the place of the one that comes next.
    assert_eq!(only(&["--cache-size", "4000"]), (50.0, 50.0, Some(4000)));
    assert_eq!(only(&["--cache-size", "75%"]), (100.0, 100.0, Some(3000)));
    assert_eq!(only(&["--cache-objects", "2"]), (100.0, 100.0, None));
    assert_eq!(
        only(&["--cache-size", "100%", "--ignore-object-size"]),
        (50.0, 50.0, None)
    );
    let out = simulate(&[path, "--ignore-object-size", "--cache-size", "4000"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("--cache-objects or a share"));
}

#[test]
fn devices_are_simulated_on_all_cores_with_the_same_result() {
    let args = [
        "fixtures/es/smoke.csv.xz",
        "--policy",
        "lru,recency,cost-benefit",
        "--cache-size",
        "1%,10%",
    ];
    let rows = json(&args);
    assert_eq!(rows, json(&args));
    let order: Vec<_> = rows.iter().map(|r| r["policy"].as_str().unwrap()).collect();
    assert_eq!(
        order,
        [
            "lru",
            "recency",
            "cost-benefit",
            "lru",
            "recency",
            "cost-benefit"
        ]
    );
    for row in &rows {
        let share = |name: &str| row[name].as_f64().unwrap();
        assert!(share("bound_vs_none") <= share("clairvoyant_vs_none"));
        assert!(share("clairvoyant_vs_none") <= share("hdd_busy_vs_none"));
        assert!((0.0..=1.0).contains(&share("miss_ratio")));
    }
}

#[test]
fn csv_has_one_line_per_row_below_a_header() {
    for (args, first) in [
        (
            &["--cache-size", "5%"][..],
            "trace,policy,cache_bytes,requests,miss_ratio,byte_miss_ratio,",
        ),
        (
            &["--cache-objects", "9"][..],
            "trace,policy,cache_objects,cache_bytes,requests,misses,miss_ratio,byte_miss_ratio",
        ),
    ] {
        let out = simulate(
            &[
                &["fixtures/es/smoke.csv.xz", "--policy", "lru,fifo", "--csv"],
                args,
            ]
            .concat(),
        );
        let text = String::from_utf8(out.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 3 && lines[0].starts_with(first), "{text}");
        assert!(
            lines[2].starts_with("fixtures/es/smoke.csv.xz,fifo,"),
            "{text}"
        );
    }
}

#[test]
fn results_go_to_files_of_every_kind() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // In a directory that is not there yet.
    let [html, parquet, csv, whole] = ["n/a.html", "n/b.parquet", "n/c.csv", "n/d.json"].map(file);
    let mut args = vec!["fixtures/es/smoke.csv.xz", "--policy", "lru,cost-benefit"];
    for output in [&html, &parquet, &csv, &whole] {
        args.extend(["--output", output]);
    }
    let rows = json(&args);
    assert_eq!(rows.len(), 8);
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    assert_eq!(
        serde_json::from_str::<Vec<Value>>(&read(&whole)).unwrap(),
        rows
    );
    let table = read(&csv);
    assert_eq!(table.lines().count(), 9);

    use parquet::file::reader::{FileReader, SerializedFileReader};
    let reader = SerializedFileReader::new(std::fs::File::open(&parquet).unwrap()).unwrap();
    let names: Vec<String> = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .columns()
        .iter()
        .map(|c| c.name().to_owned())
        .collect();
    assert_eq!(names.join(","), table.lines().next().unwrap());
    let value = |field: &parquet::record::Field| match field {
        parquet::record::Field::Str(text) => Value::from(text.as_str()),
        parquet::record::Field::ULong(count) => Value::from(*count),
        parquet::record::Field::Double(number) => Value::from(*number),
        parquet::record::Field::Null => Value::Null,
        other => panic!("{other:?}"),
    };
    let back = reader.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        let fields = row.get_column_iter();
        Value::Object(
            fields
                .map(|(name, field)| (name.clone(), value(field)))
                .collect(),
        )
    });
    let back: Vec<Value> = back.collect();
    // What was printed is parsed here: the last bit of a number may differ.
    let near = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 1e-12,
        _ => a == b,
    };
    assert_eq!(back.len(), rows.len());
    for (ours, theirs) in back.iter().zip(&rows) {
        for (name, value) in theirs.as_object().unwrap() {
            assert!(near(&ours[name], value), "{name}: {} {value}", ours[name]);
        }
    }

    let page = read(&html);
    assert_eq!(
        page.matches("<figure").count(),
        5,
        "one chart for each measure"
    );
    assert!(page.contains("(clairvoyant)") && page.contains("cost-benefit"));
    let refused = simulate(&["fixtures/es/smoke.csv.xz", "--output", &file("rows.txt")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains(".json, .csv, .parquet or .html"));
}

#[test]
fn devices_can_be_named_or_given_in_numbers_and_bounds_are_left_out_when_too_long() {
    let with = |args: &[&str]| {
        let all = [
            "fixtures/es/smoke.csv.xz",
            "--policy",
            "lru",
            "--cache-size",
            "10%",
        ];
        json(&[&all, args].concat()).remove(0)
    };
    let busy = |row: &Value| row["hdd_busy_s"].as_f64().unwrap();
    let hdd = with(&[]);
    assert_eq!(busy(&hdd), busy(&with(&["--hdd", "11.5,143"])));
    let half = with(&["--hdd", "5.75,286", "--ssd", "nvme"]);
    // The moves differ a little, too: they end earlier.
    assert!((0.4..0.6).contains(&(busy(&half) / busy(&hdd))));
    assert!(half["ssd_busy_s"].as_f64() < hdd["ssd_busy_s"].as_f64());
    assert!(hdd["write_amplification"].as_f64().unwrap() >= 1.0);
    let short = with(&["--bounds-up-to", "10"]);
    assert!(hdd["bound_vs_none"].is_f64() && short["bound_vs_none"].is_null());
    assert_eq!(busy(&hdd), busy(&short));
}

#[test]
fn a_clairvoyant_is_no_tiering_policy() {
    let out = simulate(&["fixtures/es/smoke.csv.xz", "--policy", "belady"]);
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("add --plain"),
        "{out:?}"
    );
    let rows = json(&[
        "fixtures/es/smoke.csv.xz",
        "--plain",
        "--policy",
        "belady,lru",
        "--cache-size",
        "5%",
    ]);
    let missed = |at: usize| rows[at]["miss_ratio"].as_f64().unwrap();
    assert!(missed(0) < missed(1));
}

#[test]
fn lines_that_cannot_be_used_are_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rows = "1,read,a,0,100\nx,read,b,0,100\n3,read,c,0,1x\n";
    let ours = file("t.csv", &format!("ts_us,op,path,offset,length\n{rows}"));
    let cache = file("cache.csv", "time,object,size\n1,a,10\n?,b,10\n3,c,many\n");
    for (path, args) in [
        (&ours, &[][..]),
        (&ours, &["--plain"]),
        (&cache, &["--plain"]),
    ] {
        let out = simulate(&[&[path, "--policy", "lru", "--json"], args].concat());
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
        assert_eq!(said.matches("2 lines not used").count(), 1, "{said}");
        assert!(said.contains(&format!("{path}:3: column 1")), "{said}");
    }
}

#[test]
fn a_block_device_is_written_in_place_and_every_access_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("msr.csv");
    let mut rows = String::new();
    for (second, (kind, block)) in [
        ("Read", 0),
        ("Write", 1),
        ("Read", 0),
        ("Read", 1),
        ("Write", 1),
        ("Read", 1),
        ("Read", 0),
        ("Read", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let time = 128_166_372_003_061_629 + second as u64 * 10_000_000;
        rows += &format!("{time},usr,0,{kind},{},4096,41286\n", block * 8192);
    }
    std::fs::write(&path, rows).unwrap();
    let path = path.to_str().unwrap();
    // As libCacheSim counts the same records: a write is an access to the same object.
    let converted = dir.path().join("msr.oracleGeneral");
    let converted = converted.to_str().unwrap();
    let convert = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .args(["convert", path, "-o", converted])
        .output()
        .unwrap();
    assert!(convert.status.success(), "{convert:?}");
    for args in [
        &["--cache-size", "4096,8192,50%"][..],
        &["--cache-objects", "1,2"],
    ] {
        let args = |path| [&[path, "--plain", "--policy", "lru,belady"], args].concat();
        let (direct, by_way) = (json(&args(path)), json(&args(converted)));
        let counts = |rows: &[Value]| -> Vec<_> {
            rows.iter()
                .map(|r| (r["requests"].as_u64(), r["misses"].as_u64()))
                .collect()
        };
        assert_eq!(counts(&direct), counts(&by_way));
        assert_eq!(
            counts(&direct)[..4],
            [6, 6, 2, 2].map(|misses| (Some(8), Some(misses)))
        );
    }
    let row = &json(&[path, "--policy", "none", "--cache-size", "50%"])[0];
    assert_eq!(
        (&row["requests"], &row["cache_bytes"]),
        (&8.into(), &4096.into())
    );
    // 11.5 ms and 4 KiB at 143 MiB/s for each of the eight.
    let seconds = 8.0 * (0.0115 + 4096.0 / (143.0 * 1_048_576.0));
    assert!(
        (row["hdd_busy_s"].as_f64().unwrap() - seconds).abs() < 1e-6,
        "{row}"
    );
}

#[test]
fn objects_of_4_gib_and_more_are_counted_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.csv");
    std::fs::write(
        &path,
        "time,object,size\n1,a,6000000000\n2,b,2000\n3,a,6000000000\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let row = &json(&[path, "--policy", "lru", "--cache-objects", "2"])[0];
    let missed = 6_000_002_000.0 / 12_000_002_000.0;
    assert!(
        (row["byte_miss_ratio"].as_f64().unwrap() - missed).abs() < 1e-9,
        "{row}"
    );
    // In five billion bytes the large one never fits.
    let out = simulate(&[
        path,
        "--plain",
        "--policy",
        "lru",
        "--cache-size",
        "5000000000",
    ]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(said.contains("an object of 6000000000 bytes"), "{said}");
}
