//! What the inner pieces of a request cost, without a socket: `cargo bench -p gateway --bench pieces`.
//!
//! A path's resolution, a look into the residency map, a record of the trace, an entity tag, an entry of a PROPFIND, and whole
//! requests through `Dav::handle`. The directory is that of `TMPDIR`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gateway::dav::{Dav, DavOptions, RequestContext};
use gateway::metrics::Metrics;
use gateway::objects::residency::{Entry, Residency, State};
use gateway::objects::{CacheOptions, Durability, IoContext, ObjectCache};
use gateway::recorder::{Recorder, RecorderConfig};
use gateway::volume::{ResourcePath, Symlinks, Volume, VolumeOptions};
use http::Request;
use http_body_util::{BodyExt, Full};
use tiering::trace::{FrameWriter, Op, Record, header, read_live, write_parquet};
use tiering::{FileId, ObjectId};

const MEMBERS: u64 = 1000;
const BODY: &[u8] = &[7; 4096];
const OTHER: &[u8] = &[8; 4096];

fn residency(c: &mut Criterion) {
    let mut group = c.benchmark_group("residency look-up");
    for files in [1_000u64, 10_000, 100_000, 1_000_000] {
        let mut map = Residency::default();
        for file in 0..files {
            let entry = Entry {
                index: 0,
                len: 1,
                crc: 0,
                state: State::Clean,
                verified: true,
                fresh: false,
                alone: false,
            };
            map.insert(FileId(file.wrapping_mul(0x9e37_79b9_7f4a_7c15)), entry);
        }
        let each = map.memory_bytes() as f64 / files as f64;
        println!("{files} resident objects: {each:.1} bytes each");
        let mut n = 0u64;
        group.bench_function(files.to_string(), |b| {
            b.iter(|| {
                n = n.wrapping_add(0x2545_f491_4f6c_dd1d);
                let file = FileId((n % files).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                black_box(map.get(ObjectId::new(file, 0)))
            });
        });
    }
}

fn record(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(RecorderConfig::new(dir.path())).unwrap();
    let mut group = c.benchmark_group("trace");
    group.bench_function("path's number", |b| {
        b.iter(|| black_box(recorder.path_id(black_box("/a/directory/and/a/file.bin"))));
    });
    group.bench_function("record", |b| {
        b.iter(|| recorder.record(Record::new(Op::Get, recorder.now().0)));
    });
    group.finish();
    recorder.finish();
    let stats = recorder.stats();
    println!("trace: {stats:?}");
}

/// What a record costs again, later and on another thread: a live segment becomes a sealed one.
fn seal(c: &mut Criterion) {
    const RECORDS: u64 = 200_000;
    let (mut frame, mut segment) = (FrameWriter::default(), header(0));
    frame.client(1, "192.168.1.20");
    for n in 0..RECORDS {
        let path = (n % 1000) as u32 + 1;
        if n < 1000 {
            frame.path(
                path,
                &format!("/nodes/0/indices/shard-{}/segment-{path}.cfs", n % 7),
            );
        }
        frame.record(&Record {
            client: 1,
            path,
            file: FileId(u64::from(path)),
            offset: (n % 64) << 12,
            len: 4096,
            latency_ns: 20_000 + n % 977,
            status: 200,
            ..Record::new(Op::Get, n * 50_000)
        });
        if n % 500 == 0 {
            frame.finish(&mut segment);
        }
    }
    frame.finish(&mut segment);
    let mut group = c.benchmark_group("trace");
    group.throughput(Throughput::Elements(RECORDS));
    group.sample_size(10);
    group.bench_function("records sealed", |b| {
        b.iter(|| write_parquet(std::io::sink(), read_live(&segment[..]).unwrap()).unwrap());
    });
}

struct Server {
    volume: Arc<Volume>,
    dav: Arc<Dav>,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn new() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let metrics = Arc::new(Metrics::new());
        let recorder = Recorder::start(RecorderConfig::new(dir.path().join("trace"))).unwrap();
        let cache = CacheOptions {
            durability: Durability::Relaxed,
            ..CacheOptions::uncached()
        };
        let cache = ObjectCache::open(cache, recorder.clone(), metrics).unwrap();
        let volume = Volume::open(VolumeOptions {
            root,
            cache,
            log_dir: None,
            durability: Durability::Relaxed,
            symlinks: Symlinks::Refuse,
            quota_bytes: None,
            assume_journal: false,
            ownership: None,
        })
        .await
        .unwrap();
        let opts = DavOptions {
            sync_locks: false,
            ..DavOptions::default()
        };
        let dav = Dav::new(Arc::clone(&volume), recorder, opts).await;
        Server {
            volume,
            dav: dav.unwrap(),
            _dir: dir,
        }
    }

    async fn ask(&self, method: &str, path: &str, body: &'static [u8]) -> usize {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("depth", "1")
            .header("content-length", body.len());
        let request = request.body(Full::new(Bytes::from_static(body))).unwrap();
        let context = RequestContext {
            client: ([127, 0, 0, 1], 1).into(),
            user: None,
            io_client: 0,
            started: tiering::Nanos(0),
        };
        let response = self.dav.handle(context, request).await;
        assert!(response.status().is_success(), "{}", response.status());
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .len()
    }
}

fn requests(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(async {
        let server = Server::new().await;
        server.ask("PUT", "/f", BODY).await;
        server.ask("MKCOL", "/d", b"").await;
        for n in 0..MEMBERS {
            server.ask("PUT", &format!("/d/member-{n:06}"), b"x").await;
        }
        server
    });
    c.bench_function("path", |b| {
        b.iter(|| ResourcePath::parse(black_box("/a/directory/and/a/file.bin")));
    });
    let path = ResourcePath::parse("/f").unwrap();
    // The name looked up, its attributes, its entity tag.
    c.bench_function("state of a file", |b| {
        b.to_async(&runtime)
            .iter(|| async { server.volume.stat(&path).await.unwrap().etag.len() });
    });
    c.bench_function("4 KiB opened and read", |b| {
        b.to_async(&runtime).iter(|| async {
            let (_, reader) = server
                .volume
                .open_read(&path, IoContext::default())
                .await
                .unwrap();
            reader.read(0, 4096).await.unwrap().0.len()
        });
    });
    let mut group = c.benchmark_group("request");
    group.bench_function("GET 4 KiB", |b| {
        b.to_async(&runtime).iter(|| server.ask("GET", "/f", b""));
    });
    group.bench_function("PROPFIND Depth 1 of a file", |b| {
        b.to_async(&runtime)
            .iter(|| server.ask("PROPFIND", "/f", b""));
    });
    group.bench_function("PUT 4 KiB of what is there", |b| {
        b.to_async(&runtime).iter(|| server.ask("PUT", "/f", BODY));
    });
    let mut n = 0u64;
    group.bench_function("PUT 4 KiB", |b| {
        b.to_async(&runtime).iter_batched(
            || {
                n += 1;
                // Other bytes each time a name comes round.
                let body: &'static [u8] = if (n / 256).is_multiple_of(2) {
                    BODY
                } else {
                    OTHER
                };
                (format!("/new-{}", n % 256), body)
            },
            |(name, body)| {
                let server = &server;
                async move { server.ask("PUT", &name, body).await }
            },
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(MEMBERS));
    group.bench_function("PROPFIND entries", |b| {
        b.to_async(&runtime)
            .iter(|| server.ask("PROPFIND", "/d", b""));
    });
    group.finish();
}

criterion_group!(benches, residency, record, seal, requests);
criterion_main!(benches);
