#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::read::CsvReader;
use std::path::Path;

fn files(rows: &str, writes: Writes) -> Plan {
    let text = format!("ts_us,client,thread,op,path,path2,offset,length,result\n{rows}");
    plan(
        &mut CsvReader::new(text.as_bytes(), Path::new("t")).unwrap(),
        writes,
    )
    .unwrap()
}

fn kinds(plan: &Plan) -> Vec<String> {
    plan.requests
        .iter()
        .map(|r| format!("{} {}", r.kind.name(), plan.paths[r.path as usize]))
        .collect()
}

/// Whether `later` waits for `earlier`, directly or through others.
fn follows(plan: &Plan, later: usize, earlier: usize) -> bool {
    plan.waits[later]
        .iter()
        .any(|&w| w as usize == earlier || follows(plan, w as usize, earlier))
}

#[test]
fn writes_go_up_at_close_and_changes_as_ranges() {
    let rows = "1,c,t,create,f,,,,ok\n2,c,t,write,f,,0,10,ok\n3,c,t,close,f,,,,ok\n4,c,t,write,f,,10,5,ok\n5,c,t,fsync,f,,,,ok\n6,c,t,close,f,,,,ok\n";
    let partial = files(rows, Writes::Partial);
    assert_eq!(kinds(&partial), ["PUT f", "PUT range f"]);
    assert_eq!(
        (partial.requests[1].offset, partial.requests[1].length),
        (10, 5)
    );
    let whole = files(rows, Writes::Whole);
    assert_eq!(kinds(&whole), ["PUT f", "PUT f"]);
    assert_eq!(whole.requests[1].length, 15);
}

#[test]
fn a_read_of_another_thread_waits_for_the_write_and_a_move_for_both() {
    let plan = files(
        "1,c,a,create,d/f,,,,ok\n2,c,a,write,d/f,,0,10,ok\n3,c,a,close,d/f,,,,ok\n4,c,b,read,d/f,,0,10,ok\n5,x,z,rename,d,e,,,ok\n6,c,q,read,e/f,,0,4,ok\n",
        Writes::Partial,
    );
    assert_eq!(kinds(&plan), ["PUT d/f", "GET d/f", "MOVE d", "GET e/f"]);
    assert!(follows(&plan, 1, 0) && follows(&plan, 2, 1) && follows(&plan, 3, 2));
    assert_eq!(
        plan.requests[3].content, plan.requests[0].content,
        "content travels with the name"
    );
}

#[test]
fn unrelated_paths_of_two_threads_do_not_wait() {
    let plan = files(
        "1,c,a,mkdir,x,,,,ok\n2,c,b,mkdir,y,,,,ok\n",
        Writes::Partial,
    );
    assert!(!follows(&plan, 1, 0));
}

#[test]
fn what_is_used_before_it_is_made_existed() {
    let plan = files(
        "1,c,a,stat,n,,,,ENOENT\n2,c,a,read,in/a,,100,50,ok\n3,c,a,mkdir,n,,,,ok\n",
        Writes::Partial,
    );
    let existing: Vec<_> = plan
        .existing
        .iter()
        .map(|e| (&*plan.paths[e.path as usize], e.content))
        .collect();
    assert_eq!(existing, [("in", None), ("in/a", Some(0))]);
    assert_eq!(plan.contents[0].len(), 150);
    assert_eq!(plan.requests[0].expect, Expect::Failure(404, 409));
}

#[test]
fn a_truncation_that_makes_a_hole_of_more_than_a_tebibyte_is_counted_and_not_made() {
    let rows = |len: u64| {
        format!(
            "1,c,a,create,f,,,,ok\n2,c,a,write,f,,0,9,ok\n3,c,a,truncate,f,,,{len},ok\n4,c,a,close,f,,,,ok\n"
        )
    };
    for (len, skipped) in [(9 + (1 << 40), 0), (10 + (1 << 40), 1), (1 << 50, 1)] {
        for shape in [Shape::Requests, Shape::Calls] {
            let text = format!(
                "ts_us,client,thread,op,path,path2,offset,length,result\n{}",
                rows(len)
            );
            let mut reader = CsvReader::new(text.as_bytes(), Path::new("t")).unwrap();
            let settings = Settings {
                shape,
                ..Settings::default()
            };
            let plan = plan_with(&mut reader, &settings).unwrap();
            let longest = plan.contents.iter().map(Content::len).max();
            assert_eq!(longest, Some(if skipped == 1 { 9 } else { len }));
            let of_holes = |(why, n): (&&str, &u64)| why.contains("hole").then_some(*n);
            assert_eq!(
                plan.not_sent.iter().filter_map(of_holes).sum::<u64>(),
                skipped
            );
        }
    }
}

#[test]
fn a_file_that_dies_before_its_close_is_never_sent() {
    let plan = files(
        "1,c,a,create,f,,,,ok\n2,c,a,write,f,,0,9,ok\n3,c,a,unlink,f,,,,ok\n",
        Writes::Partial,
    );
    assert!(plan.requests.is_empty());
    assert_eq!(plan.not_sent["unlink of a file that was never sent"], 1);
}

proptest::proptest! {
    #[test]
    fn any_trace_is_planned_without_panic_and_waits_point_back(
        ops in proptest::collection::vec((0_usize..10, 0_usize..6, 0_usize..6, 0_u64..50, 0_u64..50, 0_usize..3), 0..60),
        whole: bool,
    ) {
        let names = ["create", "write", "close", "read", "rename", "unlink", "mkdir", "stat", "list", "truncate"];
        let paths = ["a", "a/b", "a/b/c", "d", "d/e", "a/f"];
        let rows: String = ops.iter().enumerate().map(|(i, (op, p, q, offset, len, t))| {
            format!("{i},c,t{t},{},{},{},{offset},{len},ok\n", names[*op], paths[*p], paths[*q])
        }).collect();
        let plan = files(&rows, if whole { Writes::Whole } else { Writes::Partial });
        for (i, request) in plan.requests.iter().enumerate() {
            proptest::prop_assert!(plan.waits[i].iter().all(|&w| (w as usize) < i));
            if request.kind == Kind::Get {
                let len = plan.contents[request.content.unwrap() as usize].len();
                proptest::prop_assert!(request.offset + request.length <= len);
            }
        }
    }
}

#[test]
fn what_a_renamed_collection_holds_existed_under_its_first_name_or_was_made() {
    let rows = "1,c,t,mkdir,d,,,,ok\n2,c,t,create,d/f,,,,ok\n3,c,t,write,d/f,,0,9,ok\n4,c,t,rename,d,e,,,ok\n5,c,t,read,e/f,,0,9,ok
6,c,t,rename,old,new,,,ok\n7,c,t,read,new/g,,0,4,ok\n8,c,t,write,new/g,,0,2,ok\n9,c,t,read,new/g,,0,4,ok\n";
    let plan = files(rows, Writes::Partial);
    let existing: Vec<(&str, bool)> = plan
        .existing
        .iter()
        .map(|e| (&*plan.paths[e.path as usize], e.content.is_none()))
        .collect();
    assert_eq!(existing, [("old", true), ("old/g", false)]);
    let read = &plan.requests[plan.requests.len() - 1];
    assert_eq!(plan.contents[read.content.unwrap() as usize].len(), 4);
}

#[test]
fn without_lanes_only_the_paths_keep_their_order() {
    let text = "ts_us,client,op,path,path2,offset,length,result\n1,c,create,f,,,,ok\n2,c,write,f,,0,9,ok\n3,c,mkdir,d,,,,ok\n4,c,read,f,,0,9,ok\n5,c,rename,f,d/g,,,ok\n";
    let plan = |free_lanes| {
        let settings = Settings {
            shape: Shape::Calls,
            free_lanes,
            ..Settings::default()
        };
        let mut reader = CsvReader::new(text.as_bytes(), Path::new("t")).unwrap();
        plan_with(&mut reader, &settings).unwrap()
    };
    let (kept, free) = (plan(false), plan(true));
    assert!(follows(&kept, 2, 1) && follows(&kept, 3, 2));
    // The mkdir has nothing to do with the file; read, write and rename of it have.
    assert!(!follows(&free, 2, 1) && !follows(&free, 3, 2));
    assert!(follows(&free, 3, 1) && follows(&free, 4, 3) && follows(&free, 4, 2));
}

#[test]
fn what_is_used_in_a_collection_that_is_made_later_exists_with_it_from_the_start() {
    // A hard link, say: nothing shows the making of a/b/f.
    let rows = "1,c,t,mkdir,a,,,,ok\n2,c,t,mkdir,a/b,,,,ok\n3,c,t,mkdir,a/c,,,,ok\n4,c,t,read,a/b/f,,0,9,ok\n5,c,t,rename,a,z,,,ok\n6,c,t,unlink,z/b/f,,,,ok\n";
    let exists = |plan: &Plan| -> Vec<String> {
        let path = |e: &Existing| plan.paths[e.path as usize].to_string();
        plan.existing.iter().map(path).collect()
    };
    let plan = files(rows, Writes::Partial);
    assert_eq!(exists(&plan), ["a", "a/b", "a/b/f"]);
    assert_eq!(
        kinds(&plan),
        ["MKCOL a/c", "GET a/b/f", "MOVE a", "DELETE z/b/f"]
    );
    let settings = Settings {
        shape: Shape::Calls,
        ..Settings::default()
    };
    let text = format!("ts_us,client,thread,op,path,path2,offset,length,result\n{rows}");
    let mut reader = CsvReader::new(text.as_bytes(), Path::new("t")).unwrap();
    let plan = plan_with(&mut reader, &settings).unwrap();
    assert_eq!(exists(&plan), ["a", "a/b", "a/b/f"]);
    assert_eq!(plan.not_sent.values().sum::<u64>(), 2);
}

#[test]
fn a_copied_collection_has_what_is_in_it() {
    let text = "ts_us,client,method,op,path,path2,length,status\n\
        1,c,MKCOL,mkdir,a,,,201\n2,c,PUT,write,a/f,,10,201\n3,c,COPY,copy,a,b,,201\n4,c,GET,read,b/f,,10,200\n\
        5,c,COPY,copy,old,b,,204\n6,c,GET,read,b/g,,7,200\n";
    let mut reader = CsvReader::new(text.as_bytes(), Path::new("t")).unwrap();
    let plan = plan(&mut reader, Writes::Partial).unwrap();
    let exists: Vec<_> = plan
        .existing
        .iter()
        .map(|e| (&*plan.paths[e.path as usize], e.content.is_some()))
        .collect();
    assert_eq!(exists, [("old", false), ("old/g", true)]);
    let request = |index: usize| &plan.requests[index];
    assert_eq!(request(3).content, request(1).content);
    assert_eq!(request(5).content, plan.existing[1].content);
    assert_eq!(request(5).length, 7);
    let remaining: Vec<_> = plan
        .remaining
        .iter()
        .map(|r| &*plan.paths[r.0 as usize])
        .collect();
    assert_eq!(remaining, ["a/f", "b/g", "old/g"]);
}

/// As rsync and editors save.
#[test]
fn each_of_many_files_gets_its_last_name() {
    let rows: String = (0..40_000)
        .map(|n| format!("1,c,t,create,d/{n}.tmp,,,,ok\n2,c,t,rename,d/{n}.tmp,d/{n},,,ok\n"))
        .collect();
    let plan = files(&rows, Writes::Partial);
    assert_eq!(plan.requests.len(), 80_000);
    let mut left: Vec<&str> = plan
        .remaining
        .iter()
        .map(|r| &*plan.paths[r.0 as usize])
        .collect();
    left.sort_unstable();
    let mut named: Vec<String> = (0..40_000).map(|n| format!("d/{n}")).collect();
    named.sort_unstable();
    assert_eq!(left, named);
}
