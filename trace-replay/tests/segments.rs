//! The gateway's own trace, replayed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::Gateway;
use std::process::Command;
use trace_replay::read::open;
use trace_replay::trace::Op;

#[test]
fn gateway_process() {
    common::serve();
}

/// What clients list costs more than what they look at: the trace tells them apart.
#[test]
fn listings_are_listings_in_the_trace_of_the_gateway_too() {
    let gateway = Gateway::start();
    let trace = gateway.dir.path().join("t.csv");
    let rows = "ts_us,client,method,op,path,length,status\n0,c,MKCOL,mkdir,a,,201\n1,c,PUT,write,a/f,5,201\n\
        2,c,PROPFIND,list,a,,207\n3,c,PROPFIND,stat,a,,207\n4,c,PROPFIND,stat,a/f,,207\n5,c,DELETE,unlink,a/f,,204\n";
    std::fs::write(&trace, rows).unwrap();
    let replayed = Command::new(env!("CARGO_BIN_EXE_trace-replay"))
        .args(["replay", "--quiet", "--target", &gateway.url])
        .arg(&trace)
        .output()
        .unwrap();
    assert!(replayed.status.success(), "{replayed:?}");
    let recorded = gateway.dir.path().join("cache/trace");
    // The live segment is whole up to what happened a moment ago, and at first there is none.
    let ops = common::wait_for("the DELETE in the gateway's trace", || {
        let mut reader = open(&recorded).ok()?;
        let mut ops = Vec::new();
        while let Some(entry) = reader.next_entry() {
            ops.push(entry.unwrap().op);
        }
        ops.contains(&Op::DavDelete).then_some(ops)
    });
    let count = |op| ops.iter().filter(|o| **o == op).count();
    assert_eq!((count(Op::DavList), count(Op::DavStat)), (1, 2), "{ops:?}");
}
