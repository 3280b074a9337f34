//! `tierdav top` on a terminal of the test's own (a pty) and without one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Gateway, content, eventually};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

const BINARY: &str = env!("CARGO_BIN_EXE_tierdav");

/// A terminal, and `tierdav top` in it.
struct Terminal {
    keys: File,
    /// The other end, held open so that the terminal outlives the program.
    side: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    fn start(columns: u16, rows: u16, admin: &str) -> Terminal {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let name = ptsname(&keys, Vec::new()).unwrap();
        let name = name.to_str().unwrap();
        let side = || File::options().read(true).write(true).open(name).unwrap();
        let keys = File::from(keys);
        resize(&keys, columns, rows);
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", BINARY, "top"])
            .args(["--admin", admin, "--interval", "100ms"])
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("setsid");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (keys.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Terminal {
            keys,
            side: side().into(),
            shown,
            child,
        }
    }

    fn all(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// The last frame that was drawn whole, as lines without colours.
    fn frame(&self) -> Vec<String> {
        let all = self.all();
        let frames: Vec<&str> = all.split("\x1b[H").collect();
        let Some(frame) = frames.len().checked_sub(2).and_then(|i| frames.get(i)) else {
            return Vec::new();
        };
        let lines = frame.split("\x1b[K");
        lines
            .map(|l| uncoloured(l).trim_matches(['\r', '\n']).to_owned())
            .collect()
    }

    fn until(&self, what: &str, done: impl Fn(&[String]) -> bool) -> Vec<String> {
        let start = Instant::now();
        loop {
            let frame = self.frame();
            if done(&frame) {
                return frame;
            }
            let late = start.elapsed() > Duration::from_secs(60);
            assert!(!late, "{what}: {frame:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, key: u8) {
        self.keys.write_all(&[key]).unwrap();
    }

    fn ended(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The other screen is left, the cursor is back, keys are seen again.
    fn is_given_back(&self) {
        eventually("its last words", || {
            self.all().ends_with("\x1b[?25h\x1b[?1049l")
        });
        assert!(self.is_as_before());
    }

    /// Whether keys are seen and wait for a line's end, as a shell wants it.
    fn is_as_before(&self) -> bool {
        let modes = tcgetattr(self.side.as_fd()).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, columns: u16, rows: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

/// Without the commands that colour.
fn uncoloured(text: &str) -> String {
    let mut out = String::new();
    let mut left = text;
    while let Some((before, after)) = left.split_once("\x1b[") {
        out += before;
        let end = after.find(|c: char| c.is_ascii_alphabetic());
        left = end.map_or("", |end| &after[end + 1..]);
    }
    out + left
}

fn gateway() -> Gateway {
    let gateway = Gateway::start(&["--max-dirty-age", "1s"]);
    assert_eq!(gateway.put("/hot.bin", &content(1, 3 << 20)).status, 201);
    for _ in 0..5 {
        assert_eq!(gateway.get("/hot.bin").status, 200);
    }
    eventually("it was flushed", || {
        gateway
            .admin("GET", "/.tierdav/status")
            .text()
            .contains("\"action\":\"flush\"")
    });
    gateway
}

#[test]
fn it_redraws_in_place_fits_the_terminal_and_leaves_it_clean() {
    let mut gateway = gateway();
    let mut terminal = Terminal::start(110, 40, &gateway.admin.to_string());
    let frame = terminal.until("the first frame", |f| f.len() > 20);
    let all = terminal.all();
    assert!(all.starts_with("\x1b[?1049h"), "{all:?}");
    assert!(!terminal.is_as_before());
    let text = frame.join("\n");
    for part in [
        "ready",
        "hit ratio",
        "cache     [",
        "backing",
        "hot files",
        "/hot.bin",
        "last moves, and why",
        "flushed ",
        "clients   ",
        "policy    ",
        "q quits",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    for line in &frame {
        assert!(line.chars().count() <= 110, "{line}");
    }
    // It stays up to date: another client's file appears by itself.
    assert_eq!(gateway.put("/later.bin", b"x").status, 201);
    assert_eq!(gateway.get("/later.bin").body, b"x");
    terminal.until("the new file", |f| {
        f.iter().any(|l| l.ends_with("/later.bin"))
    });

    // A smaller terminal: fewer and shorter lines, and still the last line at its place.
    resize(&terminal.keys, 60, 12);
    let frame = terminal.until("a small frame", |f| f.len() <= 13 && f.len() > 5);
    assert!(frame.iter().all(|l| l.chars().count() <= 60), "{frame:#?}");
    assert!(
        frame
            .iter()
            .any(|l| l.contains("q quits") || l.ends_with('…'))
    );
    // The smallest usual terminal has all parts.
    resize(&terminal.keys, 80, 24);
    let frame = terminal.until("a frame of 24 lines", |f| f.len() > 20 && f.len() < 26);
    for part in [
        "hit ratio",
        "dirty",
        "root",
        "/hot.bin",
        "last moves",
        "clients",
        "policy",
    ] {
        let shown = frame.iter().any(|l| l.contains(part));
        assert!(shown, "{part:?} is not in {frame:#?}");
    }
    resize(&terminal.keys, 110, 40);
    terminal.until("a large frame again", |f| f.len() > 20);

    // The server goes away: said, and the last state stays.
    gateway.terminate();
    terminal.until("trouble is shown", |f| {
        let text = f.join("\n");
        text.contains("no running server answers") && text.contains("/hot.bin")
    });
    terminal.press(b'q');
    assert_eq!(terminal.ended(), Some(0));
    terminal.is_given_back();
}

#[test]
fn ctrl_z_and_ctrl_c_leave_the_terminal_clean() {
    let gateway = gateway();
    let mut terminal = Terminal::start(80, 24, &gateway.admin.to_string());
    terminal.until("a frame", |f| f.len() > 10);

    // Suspended, it gives the terminal back; continued, it takes it again.
    terminal.press(0x1a);
    let id = rustix::process::Pid::from_child(&terminal.child);
    let stat = format!("/proc/{}/stat", id.as_raw_nonzero());
    eventually("it is stopped", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    });
    terminal.is_given_back();
    let before = terminal.all().len();
    rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
    eventually("it draws again", || {
        let all = terminal.all();
        let since = all.get(before..).unwrap_or_default();
        since.starts_with("\x1b[?1049h") && since.contains("q quits")
    });
    assert!(!terminal.is_as_before());

    terminal.press(0x03);
    assert_eq!(terminal.ended(), Some(0));
    terminal.is_given_back();
}

#[test]
fn without_a_terminal_it_prints_plain_lines() {
    let gateway = gateway();
    let admin = gateway.admin.to_string();
    let done = Command::new(BINARY)
        .args(["top", "--once", "--admin", &admin])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(!text.contains('\x1b'), "{text}");
    assert!(
        text.contains("/hot.bin") && text.contains("flushed"),
        "{text}"
    );

    // Blocks, until the reader goes.
    let mut child = Command::new(BINARY)
        .args(["top", "--interval", "100ms", "--admin", &admin])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while String::from_utf8_lossy(&read).matches("hit ratio").count() < 3 {
        let n = out.read(&mut buffer).unwrap();
        assert!(n > 0, "it ended");
        read.extend_from_slice(&buffer[..n]);
    }
    assert!(!read.contains(&0x1b));
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let done = Command::new(BINARY)
        .args(["top", "--admin", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1));
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(
        text.contains("no running server answers at 127.0.0.1:1"),
        "{text}"
    );
    let wrong = Command::new(BINARY)
        .args(["top", "--interval", "0s"])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}
