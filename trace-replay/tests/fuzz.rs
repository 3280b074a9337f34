//! The CSV reader, on traces and on many changed ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../gateway/fuzz/mutate.rs"]
mod mutate;

use trace_replay::read::{CsvReader, Reader};

#[test]
fn the_csv_reader_ends_on_any_input() {
    let seeds = [
        "ts_us,client,op,path,offset,length,latency_us,result,thread,path2,n\n5,es,mkdir,es/nodes/,,,24,ENOENT,main-1,,1\n",
        "ts_us,client,op,path,offset,length,latency_us,result,method,path2,status,range\n-5,d,list,/,,,24,ok,PROPFIND,,207,\n",
    ];
    let seeds = seeds.map(|s| s.as_bytes().to_vec());
    for seed in &seeds {
        let mut reader = CsvReader::new(seed.as_slice(), std::path::Path::new("t.csv")).unwrap();
        assert!(matches!(reader.next_entry(), Some(Ok(_))));
    }
    mutate::drive(&seeds, 20_000, |data| {
        let Ok(mut reader) = CsvReader::new(data, std::path::Path::new("t.csv")) else {
            return;
        };
        let mut entries = 0;
        while let Some(entry) = reader.next_entry() {
            if entry.is_err() {
                break;
            }
            entries += 1;
        }
        assert!(entries + reader.unusable().lines <= data.len() as u64 + 1);
    });
}
