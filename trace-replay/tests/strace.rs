//! Logs of strace: lines as they are documented, and a log of a program that runs now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use trace_replay::read::{Unusable, open};
use trace_replay::trace::{Entry, Op, Outcome};

fn read(path: &Path) -> (Vec<Entry>, Unusable) {
    let mut reader = open(path).unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry() {
        entries.push(entry.unwrap());
    }
    (entries, reader.unusable().clone())
}

fn lines(text: &str) -> (Vec<(Op, String, u64, u64)>, Unusable) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let numbered: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let (pid, call) = line.trim().split_once(' ').unwrap();
            format!("{pid} 1795451877.{i:06} {call}\n")
        })
        .collect();
    std::fs::write(&path, numbered.concat()).unwrap();
    let (entries, unusable) = read(&path);
    let short = |e: &Entry| (e.op, e.path.to_string(), e.offset, e.length);
    (entries.iter().map(short).collect(), unusable)
}

#[test]
fn offsets_are_shared_by_duplicates_and_children() {
    let (seen, unusable) = lines(
        r#"1 openat(AT_FDCWD</d>, "a, b", O_RDWR|O_CREAT|O_TRUNC, 0644) = 3</d/a, b> <0.000010>
        1 write(3</d/a, b>, "x)\", y"..., 100) = 100 <0.000010>
        1 dup2(3</d/a, b>, 7) = 7</d/a, b> <0.000010>
        1 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f) = 2 <0.000100>
        2 write(7</d/a, b>, "x", 10 <unfinished ...>
        1 fcntl(3</d/a, b>, F_DUPFD_CLOEXEC, 10) = 10</d/a, b> <0.000010>
        2 <... write resumed>) = 10 <0.000010>
        1 write(10</d/a, b>, "x", 5) = 5 <0.000010>
        1 lseek(3</d/a, b>, -15, SEEK_CUR) = 100 <0.000010>
        2 read(7</d/a, b>, "x", 15) = 15 <0.000010>
        1 pread64(3</d/a, b>, "x", 4, 50) = 4 <0.000010>
        1 pwritev(3</d/a, b>, [{iov_base="x", iov_len=4}, {iov_base="y", iov_len=4}], 2, 60) = 8 <0.000010>
        1 vfork( <unfinished ...>
        3 write(3</d/a, b>, "x", 1) = 1 <0.000010>"#,
    );
    let at = |op, offset, length| (op, "d/a, b".to_string(), offset, length);
    let expected = [
        at(Op::FileCreate, 0, 0),
        at(Op::FileWrite, 0, 100),
        at(Op::FileWrite, 100, 10),
        at(Op::FileWrite, 110, 5),
        at(Op::FileRead, 100, 15),
        at(Op::FileRead, 50, 4),
        at(Op::FileWrite, 60, 8),
        at(Op::FileWrite, 115, 1),
    ];
    assert_eq!(seen, expected);
    assert_eq!(unusable.reasons["call that never ended"], 1);
    assert_eq!(unusable.lines, 1, "{:?}", unusable.examples);
}

#[test]
fn a_descriptor_that_becomes_another_file_is_closed() {
    let (seen, _) = lines(
        r#"1 openat(AT_FDCWD</d>, "a", O_RDWR|O_CREAT, 0644) = 3</d/a> <0.000010>
        1 openat(AT_FDCWD</d>, "b", O_RDWR|O_CREAT, 0644) = 4</d/b> <0.000010>
        1 write(4</d/b>, "x", 9) = 9 <0.000010>
        1 dup2(4</d/b>, 4</d/b>) = 4</d/b> <0.000010>
        1 dup3(3</d/a>, 4</d/b>, 0) = 4</d/a> <0.000010>
        1 dup2(3</d/a>, 5) = 5</d/a> <0.000010>
        1 write(4</d/a>, "x", 1) = 1 <0.000010>"#,
    );
    let closed: Vec<_> = seen.iter().filter(|s| s.0 == Op::FileClose).collect();
    assert_eq!(closed, [&(Op::FileClose, "d/b".to_string(), 0, 0)]);
    let last = seen.last().unwrap();
    assert_eq!((last.1.as_str(), last.2), ("d/a", 0));
}

#[test]
fn names_are_resolved_and_what_is_unseen_is_counted() {
    let (seen, unusable) = lines(
        r#"1 openat(AT_FDCWD</d>, "e", O_RDONLY|O_DIRECTORY) = 3</d/e> <0.000010>
        1 unlinkat(3</d/e>, "../f\303\274", 0) = 0 <0.000010>
        1 rename("g", "/h") = 0 <0.000010>
        1 mmap(NULL, 4096, PROT_READ, MAP_SHARED, 3</d/e>, 0) = 0x7f0000000000 <0.000010>
        1 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000 <0.000010>
        2 mkdir("unknown", 0755) = 0 <0.000010>
        1 write(1</dev/pts/0<char 136:0>>, "x", 1) = 1 <0.000010>
        1 write(4<TCP:[1.1.1.1:5->1.1.1.2:6]>, "x", 1) = 1 <0.000010>
        1 mkdir("i"..., 0755) = 0 <0.000010>
        1 <... read resumed>"", 1) = 0 <0.000010>
        1 garbage
        1 --- SIGCHLD {si_signo=SIGCHLD} ---
        1 exit_group(0) = ?"#,
    );
    let paths: Vec<_> = seen.iter().map(|s| (s.0, s.1.as_str())).collect();
    let expected = [
        (Op::FileOpendir, "d/e"),
        (Op::FileUnlink, "d/f\u{fc}"),
        (Op::FileRename, "d/g"),
    ];
    assert_eq!(paths, expected);
    assert_eq!(unusable.lines, 5, "{:?}", unusable.examples);
    assert_eq!(
        unusable.reasons["mmap (its reads and writes are unseen)"],
        1
    );
    assert_eq!(unusable.reasons["neither a call nor the end of one"], 1);
    let mmap = unusable
        .examples
        .iter()
        .find(|e| e.contains("mmap"))
        .unwrap();
    assert!(mmap.contains("log:4: column 61: mmap"), "{mmap}");
}

#[test]
fn further_names_lead_back_to_the_file_and_keep_it_when_the_first_is_gone() {
    let (seen, unusable) = lines(
        r#"1 openat(AT_FDCWD</d>, "tmp", O_WRONLY|O_CREAT|O_EXCL, 0644) = 3</d/tmp> <0.000010>
        1 write(3</d/tmp>, "x", 10) = 10 <0.000010>
        1 link("tmp", "obj") = 0 <0.000010>
        1 link("obj", "third") = 0 <0.000010>
        1 link("tmp", "obj") = -1 EEXIST (File exists) <0.000010>
        1 openat(AT_FDCWD</d>, "obj", O_WRONLY|O_APPEND) = 4</d/obj> <0.000010>
        1 write(4</d/obj>, "x", 5) = 5 <0.000010>
        1 unlink("third") = 0 <0.000010>
        1 unlink("tmp") = 0 <0.000010>
        1 openat(AT_FDCWD</d>, "obj", O_WRONLY|O_APPEND) = 5</d/obj> <0.000010>
        1 write(5</d/obj>, "x", 1) = 1 <0.000010>
        1 linkat(AT_FDCWD</d>, "obj", AT_FDCWD</d>, "backup", 0) = 0 <0.000010>
        1 rename("new", "obj") = 0 <0.000010>
        1 unlink("obj") = 0 <0.000010>
        1 renameat2(AT_FDCWD</d>, "a", AT_FDCWD</d>, "b", RENAME_EXCHANGE) = 0 <0.000010>
        1 symlink("s/real", "soft") = 0 <0.000010>
        1 stat("soft", {st_mode=S_IFREG|0644, st_size=3, ...}) = 0 <0.000010>
        1 newfstatat(AT_FDCWD</d>, "soft", {st_mode=S_IFLNK|0777, st_size=6, ...}, AT_SYMLINK_NOFOLLOW) = 0 <0.000010>
        1 rename("soft", "softer") = 0 <0.000010>
        1 unlink("softer") = 0 <0.000010>"#,
    );
    let at = |op, path: &str, offset, length| (op, format!("d/{path}"), offset, length);
    let expected = [
        at(Op::FileCreate, "tmp", 0, 0),
        at(Op::FileWrite, "tmp", 0, 10),
        at(Op::FileOpen, "tmp", 0, 0),
        at(Op::FileWrite, "tmp", 10, 5),
        // The first of two names goes.
        at(Op::FileRename, "tmp", 0, 0),
        at(Op::FileOpen, "obj", 0, 0),
        at(Op::FileWrite, "obj", 15, 1),
        // Replaced, and kept by its backup.
        at(Op::FileRename, "obj", 0, 0),
        at(Op::FileRename, "new", 0, 0),
        at(Op::FileUnlink, "obj", 0, 0),
        at(Op::FileStat, "s/real", 0, 0),
    ];
    assert_eq!(seen, expected);
    assert_eq!(unusable.lines, 1, "{:?}", unusable.examples);
    assert_eq!(unusable.reasons["exchange of two names"], 1);
}

#[test]
fn symbolic_links_lead_to_names_and_not_to_the_files_that_had_them() {
    let (seen, unusable) = lines(
        r#"1 getcwd("/d", 4096) = 3 <0.000010>
        1 symlink("app.log", "cur") = 0 <0.000010>
        1 rename("app.log", "app.log.1") = 0 <0.000010>
        1 stat("cur", {st_mode=S_IFREG|0644, st_size=3, ...}) = 0 <0.000010>
        1 symlink("../v/f", "s/soft") = 0 <0.000010>
        1 rename("s", "t/s") = 0 <0.000010>
        1 stat("t/s/soft", {st_mode=S_IFREG|0644, st_size=3, ...}) = 0 <0.000010>"#,
    );
    let paths: Vec<_> = seen.iter().map(|s| (s.0, s.1.as_str())).collect();
    let expected = [
        (Op::FileRename, "d/app.log"),
        (Op::FileStat, "d/app.log"),
        (Op::FileRename, "d/s"),
        (Op::FileStat, "d/t/v/f"),
    ];
    assert_eq!(paths, expected);
    assert_eq!(unusable.lines, 0, "{:?}", unusable.examples);
}

#[test]
fn a_rename_over_a_link_to_the_file_replaces_the_link() {
    let (seen, unusable) = lines(
        r#"1 getcwd("/d", 4096) = 3 <0.000010>
        1 symlink("v1", "cur") = 0 <0.000010>
        1 rename("v1", "cur") = 0 <0.000010>
        1 stat("cur", {st_mode=S_IFREG|0644, st_size=3, ...}) = 0 <0.000010>
        1 link("cur", "same") = 0 <0.000010>
        1 rename("same", "cur") = 0 <0.000010>
        1 stat("same", {st_mode=S_IFREG|0644, st_size=3, ...}) = 0 <0.000010>"#,
    );
    let paths: Vec<_> = seen.iter().map(|s| (s.0, s.1.as_str())).collect();
    let expected = [
        (Op::FileRename, "d/v1"),
        (Op::FileStat, "d/cur"),
        // Two names of one file stay.
        (Op::FileStat, "d/cur"),
    ];
    assert_eq!(paths, expected);
    assert_eq!(unusable.lines, 0, "{:?}", unusable.examples);
}

#[test]
fn a_further_name_that_replaces_the_first_of_another_file_leaves_that_its_next() {
    let (seen, _) = lines(
        r#"1 getcwd("/d", 4096) = 3 <0.000010>
        1 link("a", "a2") = 0 <0.000010>
        1 link("b", "b2") = 0 <0.000010>
        1 rename("a2", "b") = 0 <0.000010>
        1 stat("b", {st_mode=S_IFREG|0644, st_size=3, ...}) = 0 <0.000010>
        1 stat("b2", {st_mode=S_IFREG|0644, st_size=3, ...}) = 0 <0.000010>
        1 unlink("a") = 0 <0.000010>
        1 unlink("b") = 0 <0.000010>
        1 unlink("b2") = 0 <0.000010>"#,
    );
    let paths: Vec<_> = seen.iter().map(|s| (s.0, s.1.as_str())).collect();
    let expected = [
        (Op::FileRename, "d/b"),
        (Op::FileStat, "d/a"),
        (Op::FileStat, "d/b2"),
        (Op::FileRename, "d/a"),
        (Op::FileUnlink, "d/b"),
        (Op::FileUnlink, "d/b2"),
    ];
    assert_eq!(paths, expected);
}

#[test]
fn a_renamed_directory_takes_what_is_known_of_its_files_along() {
    let (seen, _) = lines(
        r#"1 openat(AT_FDCWD</d>, "s/f", O_WRONLY|O_CREAT|O_EXCL, 0644) = 3</d/s/f> <0.000010>
        1 write(3</d/s/f>, "x", 10) = 10 <0.000010>
        1 link("s/f", "s/g") = 0 <0.000010>
        1 rename("s", "t") = 0 <0.000010>
        1 openat(AT_FDCWD</d>, "t/g", O_WRONLY|O_CREAT|O_APPEND, 0644) = 4</d/t/g> <0.000010>
        1 write(4</d/t/g>, "x", 5) = 5 <0.000010>"#,
    );
    let last = |op, offset, length| (op, "d/t/f".to_string(), offset, length);
    assert_eq!(
        seen[3..],
        [last(Op::FileOpen, 0, 0), last(Op::FileWrite, 10, 5)]
    );
}

#[test]
fn appends_go_to_the_end_that_the_log_has_shown() {
    let (seen, _) = lines(
        r#"1 newfstatat(AT_FDCWD</d>, "a", {st_mode=S_IFREG|0644, st_size=100, ...}, 0) = 0 <0.000010>
        1 openat(AT_FDCWD</d>, "a", O_WRONLY|O_CREAT|O_APPEND, 0644) = 3</d/a> <0.000010>
        1 write(3</d/a>, "x", 5) = 5 <0.000010>
        1 openat(AT_FDCWD</d>, "b", O_WRONLY|O_APPEND) = 4</d/b> <0.000010>
        1 fstat(4</d/b>, {st_mode=S_IFREG|0644, st_size=200, ...}) = 0 <0.000010>
        1 write(4</d/b>, "x", 6) = 6 <0.000010>
        1 openat(AT_FDCWD</d>, "c", O_WRONLY|O_APPEND) = 5</d/c> <0.000010>
        1 lseek(5</d/c>, 0, SEEK_END) = 300 <0.000010>
        1 write(5</d/c>, "x", 7) = 7 <0.000010>
        1 openat(AT_FDCWD</d>, "e", O_RDWR|O_APPEND) = 6</d/e> <0.000010>
        1 pwrite64(6</d/e>, "x", 5, 0) = 5 <0.000010>
        1 fstat(6</d/e>, {st_mode=S_IFREG|0644, st_size=1000, ...}) = 0 <0.000010>
        1 write(6</d/e>, "x", 8) = 8 <0.000010>
        1 ftruncate(6</d/e>, 10) = 0 <0.000010>
        1 write(6</d/e>, "x", 9) = 9 <0.000010>
        1 statx(AT_FDCWD</d>, "s", AT_STATX_SYNC_AS_STAT, STATX_ALL, {stx_mask=STATX_ALL, stx_mode=S_IFDIR|0755, stx_size=4096, ...}) = 0 <0.000010>"#,
    );
    let writes: Vec<_> = seen.iter().filter(|s| s.0 == Op::FileWrite).collect();
    let at: Vec<_> = writes.iter().map(|w| (w.1.as_str(), w.2)).collect();
    let e = [("d/e", 0), ("d/e", 1000), ("d/e", 10)];
    assert_eq!(at[..3], [("d/a", 100), ("d/b", 200), ("d/c", 300)]);
    assert_eq!(at[3..], e);
    assert_eq!(seen[1].0, Op::FileOpen, "what was seen is not made");
}

#[test]
fn copies_inside_the_kernel_are_a_read_and_a_write() {
    let (seen, unusable) = lines(
        r#"1 openat(AT_FDCWD</d>, "a", O_RDONLY) = 3</d/a> <0.000010>
        1 openat(AT_FDCWD</d>, "b", O_RDWR|O_CREAT|O_TRUNC, 0777) = 4</d/b> <0.000010>
        1 copy_file_range(3</d/a>, NULL, 4</d/b>, NULL, 1000, 0) = 1000 <0.000063>
        1 copy_file_range(3</d/a>, [100], 4</d/b>, [2000], 500, 0) = 500 <0.000043>
        1 sendfile(4</d/b>, 3</d/a>, [50] => [350], 300) = 300 <0.000040>
        1 sendfile(4</d/b>, 3</d/a>, NULL, 400) = 400 <0.000040>
        1 splice(3</d/a>, [10], 6<pipe:[1439348]>, NULL, 70, 0) = 70 <0.000041>
        1 splice(5<pipe:[1439348]>, NULL, 4</d/b>, NULL, 70, 0 <unfinished ...>
        1 <... splice resumed>) = 70 <0.000039>
        1 copy_file_range(3</d/a>, NULL, 4</d/b>, NULL, 9223372035781033984, 0) = 0 <0.000032>
        1 copy_file_range(3</d/a>, NULL, 4</d/b>, NULL, 10, 0) = -1 EXDEV (Invalid cross-device link) <0.000032>
        1 sendfile(4</d/b>, 3</d/a>, [x], 300) = 300 <0.000040>"#,
    );
    let read = |offset, length| (Op::FileRead, "d/a".to_string(), offset, length);
    let write = |offset, length| (Op::FileWrite, "d/b".to_string(), offset, length);
    let expected = [
        read(0, 1000),
        write(0, 1000),
        read(100, 500),
        write(2000, 500),
        read(50, 300),
        write(1000, 300),
        read(1000, 400),
        write(1300, 400),
        read(10, 70),
        write(1700, 70),
        read(1400, 0),
    ];
    assert_eq!(seen[2..], expected);
    assert_eq!(unusable.lines, 1, "{:?}", unusable.examples);
}

/// The suite installs strace; where it is missing or may not trace, the test says so.
#[test]
fn a_log_without_times_is_told_to_lack_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    for line in [
        "26825 08:54:59.547101 brk(NULL)         = 0x5625de3c8000\n",
        "execve(\"/usr/bin/cat\", [\"cat\", \"big\"], 0x7ffde95417f8 /* 40 vars */) = 0\n",
    ] {
        std::fs::write(&log, line).unwrap();
        let mut reader = open(&log).unwrap();
        assert!(reader.next_entry().is_none());
        let text = reader.unusable().text();
        assert!(text.contains("no time (strace -ttt)"), "{text}");
    }
}

#[test]
fn a_program_that_runs_under_strace_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().canonicalize().unwrap().join("work");
    std::fs::create_dir(&work).unwrap();
    let log = dir.path().join("log");
    let script = "exec 3>out; echo one >&3; (echo two >&3); exec 4>&3; echo three >&4; exec 3>&- 4>&-; \
        echo four >>out; dd if=out of=copy bs=5 status=none; mkdir sub; mv copy sub/moved; cat sub/moved >/dev/null; \
        truncate -s 7 sub/moved; rm out; rmdir none 2>/dev/null; true";
    let run = Command::new("strace")
        .args(["-f", "-ttt", "-T", "-yy", "-s", "4096", "-o"])
        .arg(&log)
        .args(["sh", "-c", script])
        .current_dir(&work)
        .output();
    match run {
        Ok(out) if out.status.success() => {}
        other => {
            eprintln!("skipped: strace cannot run here: {other:?}");
            return;
        }
    }
    let (mut entries, _) = read(&log);
    let prefix = format!("{}/", work.display())
        .trim_start_matches('/')
        .to_string();
    entries.retain(|e| e.path.starts_with(&prefix));
    let of = |op: Op, name: &str| -> Vec<(u64, u64)> {
        let path = format!("{prefix}{name}");
        let hit = |e: &&Entry| e.op == op && *e.path == *path && e.outcome.is_ok();
        entries
            .iter()
            .filter(hit)
            .map(|e| (e.offset, e.length))
            .collect()
    };
    assert_eq!(of(Op::FileWrite, "out"), [(0, 4), (4, 4), (8, 6), (14, 5)]);
    assert_eq!(
        of(Op::FileWrite, "copy"),
        [(0, 5), (5, 5), (10, 5), (15, 4)]
    );
    assert_eq!(
        of(Op::FileRead, "out"),
        [(0, 5), (5, 5), (10, 5), (15, 4), (19, 0)]
    );
    assert_eq!(of(Op::FileRead, "sub/moved")[0], (0, 19));
    assert_eq!(of(Op::FileTruncate, "sub/moved"), [(0, 7)]);
    assert_eq!(of(Op::FileMkdir, "sub").len(), 1);
    assert_eq!(of(Op::FileUnlink, "out").len(), 1);
    let moved = entries
        .iter()
        .find(|e| e.op == Op::FileRename && e.outcome.is_ok())
        .unwrap();
    assert_eq!(moved.path2.as_deref(), Some(&*format!("{prefix}sub/moved")));
    let failed = entries.iter().find(|e| e.op == Op::FileRmdir).unwrap();
    assert_eq!(failed.outcome, Outcome::Errno("ENOENT".into()));
}

proptest::proptest! {
    #[test]
    fn no_line_makes_the_reader_panic(calls in proptest::collection::vec("[a-z0-9<>(),\"\\\\/ =\\[\\]{}\u{fc}-]{0,60}", 0..8),
                                      name in proptest::sample::select(vec!["read(3</a>", "openat(AT_FDCWD</d>, \"", "rename(", "dup2(", "clone(", "fallocate(3</a>, 0, "])) {
        let text: Vec<String> = calls.iter().map(|c| format!("1 {name}{c}\n1 x{c}")).collect();
        if !text.is_empty() {
            let _ = lines(&text.join("\n"));
        }
    }
}
