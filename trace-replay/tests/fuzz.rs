//! The CSV reader, on traces and on many changed ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../gateway/fuzz/mutate.rs"]
mod mutate;

use trace_replay::read::{CsvReader, Reader};

/// Reads to the end or the first error; answers how many entries there were.
fn drain(reader: &mut dyn Reader) -> u64 {
    let mut entries = 0;
    while let Some(entry) = reader.next_entry() {
        if entry.is_err() {
            break;
        }
        entries += 1;
    }
    entries
}

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
        let entries = drain(&mut reader);
        assert!(entries + reader.unusable().lines <= data.len() as u64 + 1);
    });
}

/// Every reader of text, on changed examples of its format: it ends, and says what it left out.
#[test]
fn readers_of_text_end_on_any_input() {
    use trace_replay::read::{Format, open_as};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace");
    let seeds: [(Format, &[&str]); 7] = [
        (
            Format::CacheCsv,
            &[
                "version,time,op,size,lbn\n1,10,2a,512,42\n1,11.5,2a,4096,7\n",
                "10,a/b,512\n11,7,9\n",
            ],
        ),
        (
            Format::Rclone,
            &[
                "2026/11/24 12:01:34 DEBUG : /a: OpenFile: flags=O_RDONLY, perm=---\n\
               2026/11/24 12:01:34 DEBUG : a: ChunkedReader.RangeSeek from 512 to 1000 length -1\n\
               2026/11/24 12:01:34 DEBUG : a: ChunkedReader.Read at -1 length 512 chunkOffset 1000 chunkSize 1\n\
               2026/11/24 12:01:35.25 INFO  : /a: GET from 127.0.0.1:55742\n\
               2026/11/24 12:01:36 INFO  : a: Moved (server-side) to: d/b\n\
               2026/11/24 12:01:36 INFO  : /a: MOVE from 127.0.0.1:55772\n",
            ],
        ),
        (
            Format::Access,
            &[
                "10.0.0.7 - b [10/Oct/2000:13:55:36 -0700] \"GET /a%20b HTTP/1.1\" 200 2326 \"-\" \"davfs2\"\n",
            ],
        ),
        (
            Format::Msr,
            &[
                "128166372003061629,hm,1,Read,3154152,4096,12345\n128166372016853991,hm,1,Write,0,512,9\n",
            ],
        ),
        (
            Format::Fio,
            &[
                "fio version 3 iolog\n0 /a add\n1 /a open\n2 /a read 0 4096\n3 /a write 4096 512\n4 /a close\n",
            ],
        ),
        (
            Format::Blkparse,
            &["  8,0    3        1     0.000000000   697  Q   W 223490 + 8 [kjournald]\n"],
        ),
        (
            Format::Strace,
            &[
                "7 1700000000.000001 openat(AT_FDCWD</tmp>, \"a\", O_RDWR|O_CREAT, 0666) = 3</tmp/a> <0.000011>\n\
               7 1700000000.000021 write(3</tmp/a>, \"hello\"..., 5) = 5 <0.000005>\n\
               7 1700000000.000031 close(3</tmp/a>) = 0 <0.000005>\n",
            ],
        ),
    ];
    for (format, texts) in seeds {
        let seeds: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        for seed in &seeds {
            std::fs::write(&path, seed).unwrap();
            let mut reader = open_as(&path, Some(format)).unwrap();
            assert!(matches!(reader.next_entry(), Some(Ok(_))), "{format:?}");
        }
        mutate::drive(&seeds, 2_000, |data| {
            std::fs::write(&path, data).unwrap();
            let Ok(mut reader) = open_as(&path, Some(format)) else {
                return;
            };
            let entries = drain(&mut *reader);
            // A line is at most two operations.
            assert!(entries <= 2 * data.len() as u64 + 2, "{format:?}");
        });
    }
}
