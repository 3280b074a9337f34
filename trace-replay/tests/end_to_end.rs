//! The replayer against a tiny WebDAV stand-in that can be told to misbehave: the replayer must notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use trace_replay::client::Target;
use trace_replay::exchange::Verify;
use trace_replay::plan::{Writes, plan};
use trace_replay::read::{CsvReader, open};
use trace_replay::replay::{Options, Speed, run};
use trace_replay::report::Report;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// One bit of the last byte of every GET is flipped.
    FlipBit,
    /// PUTs are acknowledged, the second one to a path is not kept.
    LoseSecondPut,
    /// Every third PUT fails.
    InternalError,
    /// Every second request is 503 with Retry-After: 0.
    Busy,
}

/// `None` is a collection.
type Store = Mutex<BTreeMap<String, Option<Vec<u8>>>>;

struct StandIn {
    store: Store,
    fault: Fault,
    requests: AtomicU32,
    puts: AtomicU32,
}

fn answer(status: u16, body: Vec<u8>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

async fn handle(server: Arc<StandIn>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = head.uri.path().trim_end_matches('/').to_string();
    let text = |name: &str| {
        head.headers
            .get(name)
            .map(|v| v.to_str().unwrap().to_string())
    };
    if server.fault == Fault::Busy
        && server
            .requests
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(2)
    {
        let mut busy = answer(503, vec![]);
        busy.headers_mut()
            .insert("retry-after", "0".parse().unwrap());
        return busy;
    }
    let mut store = server.store.lock().unwrap();
    let found = store.get(&path).cloned();
    match head.method.as_str() {
        "PUT" => {
            let count = server.puts.fetch_add(1, Ordering::Relaxed);
            if server.fault == Fault::InternalError && count % 3 == 2 {
                return answer(500, vec![]);
            }
            if server.fault == Fault::LoseSecondPut && found.is_some() {
                return answer(204, vec![]);
            }
            let mut content = Vec::new();
            let mut start = 0;
            if let Some(range) = text("content-range") {
                content = found.clone().flatten().unwrap_or_default();
                start = range
                    .trim_start_matches("bytes ")
                    .split('-')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap();
            }
            content.resize(content.len().max(start + body.len()), 0);
            content[start..start + body.len()].copy_from_slice(&body);
            store.insert(path, Some(content));
            answer(if found.is_some() { 204 } else { 201 }, vec![])
        }
        "GET" => match found {
            Some(Some(mut content)) => {
                if let (Fault::FlipBit, Some(last)) = (server.fault, content.last_mut()) {
                    *last ^= 1;
                }
                let Some(range) = text("range") else {
                    return answer(200, content);
                };
                let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap();
                let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
                answer(206, content[from..=to].to_vec())
            }
            _ => answer(404, vec![]),
        },
        "PROPFIND" => answer(
            if path.is_empty() || found.is_some() {
                207
            } else {
                404
            },
            vec![],
        ),
        "MKCOL" => {
            if found.is_some() {
                return answer(405, vec![]);
            }
            let parent = path.rsplit_once('/').unwrap().0.to_string();
            if !parent.is_empty() && !store.contains_key(&parent) {
                return answer(409, vec![]);
            }
            store.insert(path, None);
            answer(201, vec![])
        }
        "DELETE" | "MOVE" => {
            let beneath: Vec<String> = store
                .keys()
                .filter(|k| **k == path || k.starts_with(&format!("{path}/")))
                .cloned()
                .collect();
            if beneath.is_empty() {
                return answer(404, vec![]);
            }
            let to =
                text("destination").map(|d| d.parse::<http::Uri>().unwrap().path().to_string());
            for name in beneath {
                let node = store.remove(&name).unwrap();
                if let Some(to) = &to {
                    store.insert(format!("{to}{}", &name[path.len()..]), node);
                }
            }
            answer(204, vec![])
        }
        _ => answer(StatusCode::METHOD_NOT_ALLOWED.as_u16(), vec![]),
    }
}

async fn serve(fault: Fault) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = Arc::new(StandIn {
        store: Store::default(),
        fault,
        requests: AtomicU32::new(0),
        puts: AtomicU32::new(0),
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = server.clone();
            let service = service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, std::convert::Infallible>(handle(server, request).await) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

fn options(speed: Speed) -> Options {
    Options {
        speed,
        clients: 4,
        seed: 11,
        verify: Verify::All,
        ..Options::default()
    }
}

async fn replay_rows(rows: &str, fault: Fault) -> Report {
    let text = format!("ts_us,client,thread,op,path,path2,offset,length,result\n{rows}");
    let plan = plan(
        &mut CsvReader::new(text.as_bytes(), Path::new("t")).unwrap(),
        Writes::Partial,
    )
    .unwrap();
    let target = Target::parse(&serve(fault).await, "").unwrap();
    run(plan, target, options(Speed::Max)).await
}

const ROWS: &str = "1,c,a,mkdir,d,,,,ok\n2,c,a,create,d/f x#,,,,ok\n3,c,a,write,d/f x#,,0,600000,ok\n4,c,a,close,d/f x#,,,,ok
5,c,b,read,d/f x#,,1000,500000,ok\n6,c,a,write,d/f x#,,100,50,ok\n7,c,a,fsync,d/f x#,,,,ok\n8,c,b,read,d/f x#,,0,600000,ok
9,c,a,rename,d,e,,,ok\n10,c,b,stat,d,,,,ENOENT\n11,c,b,create,e/g,,,,ok\n12,c,b,write,e/g,,0,77,ok\n";

#[tokio::test]
async fn a_right_server_replays_clean() {
    let report = replay_rows(ROWS, Fault::None).await;
    assert!(report.is_clean(), "{}", report.text());
    assert_eq!(report.json()["read_back"]["requests"], 2);
}

#[tokio::test]
async fn one_flipped_bit_is_named_by_path_and_offset() {
    let report = replay_rows(ROWS, Fault::FlipBit).await;
    assert!(report.replay.wrong_content > 0);
    let text = report.text();
    assert!(
        text.contains("/d/f x#: differs at offset 599999: expected version"),
        "{text}"
    );
}

#[tokio::test]
async fn a_lost_write_is_recognised_as_the_old_version() {
    let rows = "0,c,a,create,f,,,,ok\n1,c,a,write,f,,0,100,ok\n2,c,a,close,f,,,,ok\n3,c,a,write,f,,0,100,ok\n4,c,a,close,f,,,,ok\n5,c,a,read,f,,0,100,ok\n";
    let report = replay_rows(rows, Fault::LoseSecondPut).await;
    let text = report.text();
    assert!(
        text.contains("differs at offset 0: expected version 2 of /f, found version 1"),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_error_fails_the_run() {
    let rows: String = (0..5)
        .map(|i| format!("{i},c,a,create,f{i},,,,ok\n{i},c,a,close,f{i},,,,ok\n"))
        .collect();
    let report = replay_rows(&rows, Fault::InternalError).await;
    assert_eq!(report.replay.wrong_status, 1, "{}", report.text());
    assert!(!report.is_clean());
}

#[tokio::test]
async fn a_read_of_what_could_not_be_uploaded_names_the_upload() {
    let rows: String = (0..3)
        .map(|i| {
            format!(
                "{i},c,a,create,f{i},,,,ok\n{i},c,a,write,f{i},,0,9,ok\n{i},c,a,close,f{i},,,,ok\n"
            )
        })
        .collect();
    let report = replay_rows(&rows, Fault::InternalError).await;
    assert_eq!(report.read_back.failures(), 1);
    assert_eq!(
        report.read_back.examples(),
        [
            "GET /f2: status 404, expected success; its upload had failed: \
          PUT /f2: status 500, expected success as recorded"
        ]
    );
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_that_is_counted() {
    let report = replay_rows(ROWS, Fault::Busy).await;
    assert!(report.is_clean(), "{}", report.text());
    assert!(report.replay.retried > 0);
}

#[tokio::test]
async fn an_interrupted_run_asks_a_busy_server_no_more() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (interrupt, interrupted) = tokio::sync::watch::channel(false);
    let server = std::thread::spawn(move || {
        use std::io::{BufRead, Write};
        let (stream, _) = listener.accept().unwrap();
        let lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
        let mut asked = 0;
        for line in lines {
            // Whoever has heard enough closes the connection.
            let Ok(line) = line else { break };
            if line.is_empty() {
                asked += 1;
                interrupt.send_replace(true);
                let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
        }
        asked
    });
    let text = "ts_us,client,op,path\n1,c,mkdir,d\n2,c,mkdir,d/e\n";
    let mut reader = CsvReader::new(text.as_bytes(), Path::new("t")).unwrap();
    let plan = plan(&mut reader, Writes::Partial).unwrap();
    let options = Options {
        interrupt: Some(interrupted),
        ..options(Speed::Max)
    };
    let report = run(plan, Target::parse(&url, "").unwrap(), options).await;
    assert_eq!(server.join().unwrap(), 1);
    assert_eq!(report.partial.as_ref().unwrap().not_started, 1);
    assert_eq!(
        report.replay.examples(),
        ["MKCOL /d: status 503, and the interrupted run does not try again"]
    );
}

#[tokio::test]
async fn timed_mode_keeps_the_recorded_distances() {
    let text = "ts_us,client,op,path,result\n0,c,mkdir,a,ok\n100000,c,mkdir,b,ok\n";
    let plan = plan(
        &mut CsvReader::new(text.as_bytes(), Path::new("t")).unwrap(),
        Writes::Partial,
    )
    .unwrap();
    let target = Target::parse(&serve(Fault::None).await, "").unwrap();
    let report = run(plan, target, options(Speed::Timed(2.0))).await;
    assert!(report.is_clean());
    assert!(report.replay.elapsed_us >= 50_000);
}

#[tokio::test]
async fn a_target_that_is_in_use_is_told_as_that() {
    let text = "ts_us,client,op,path,result\n0,c,mkdir,a,ok\n";
    let target = Target::parse(&serve(Fault::None).await, "").unwrap();
    let mut told = String::new();
    for _ in 0..2 {
        let mut reader = CsvReader::new(text.as_bytes(), Path::new("t")).unwrap();
        let plan = plan(&mut reader, Writes::Partial).unwrap();
        told = run(plan, target.clone(), options(Speed::Max)).await.text();
    }
    let said = "MKCOL /a: status 405, expected success as recorded; it is there already: name another --prefix";
    assert!(told.contains(said), "{told}");
}

#[tokio::test]
async fn who_waits_for_another_starts_late_and_the_report_says_by_how_much() {
    let text = "ts_us,client,op,path,result\n0,c,mkdir,a,ok\n0,c,mkdir,a/b,ok\n";
    for (speed, late) in [(Speed::Timed(1.0), true), (Speed::Max, false)] {
        let mut reader = CsvReader::new(text.as_bytes(), Path::new("t")).unwrap();
        let plan = plan(&mut reader, Writes::Partial).unwrap();
        let target = Target::parse(&serve(Fault::None).await, "").unwrap();
        let report = run(plan, target, options(speed)).await;
        let most = report.json()["replay"]["late_us"]["max"].as_u64().unwrap();
        assert_eq!(most > 0, late, "{most}");
        assert_eq!(report.text().contains("\nlate  "), late);
    }
}

#[tokio::test]
async fn the_recorded_elasticsearch_node_replays_clean() {
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/es/smoke.csv.xz");
    let plan = plan(&mut *open(&trace).unwrap(), Writes::Partial).unwrap();
    assert_eq!(plan.unusable.lines, 0);
    let target = Target::parse(&serve(Fault::None).await, "").unwrap();
    let report = run(plan, target, options(Speed::Max)).await;
    assert!(report.is_clean(), "{}", report.text());
}
