//! A client that costs little: so many connections, each a thread that sends a request, reads the reply and sends the next.
//!
//! `load METHOD HOST:PORT SIZE CONNECTIONS SECONDS NAMES PREFIX`: PUTs or GETs `/PREFIX-0` to `/PREFIX-(NAMES - 1)` in turn, or
//! with NAMES 0 a new name each time; PUTs go on until each name had one. Prints requests per second and percentiles of their
//! times. wrk builds each request as a string of its own: with bodies of 4 MiB it takes more of the processor than the gateway
//! does. Here the kernel sends large ones from a file, without a copy. No dependencies: `rustc -O`.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Replies are read in pieces of this size.
const READ_BYTES: usize = 1 << 20;
/// Bodies from this size on are sent from a file.
const FROM_FILE_BYTES: usize = 256 << 10;

struct Load {
    method: String,
    host: String,
    size: usize,
    names: u64,
    prefix: String,
    end: Instant,
    next: AtomicU64,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [method, host, size, connections, seconds, names, prefix] = args.as_slice() else {
        eprintln!("usage: load METHOD HOST:PORT SIZE CONNECTIONS SECONDS NAMES PREFIX");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no number"));
    let began = Instant::now();
    let load = Load {
        method: method.clone(),
        host: host.clone(),
        size: number(size) as usize,
        names: number(names),
        prefix: prefix.clone(),
        end: began + Duration::from_secs(number(seconds)),
        next: AtomicU64::new(0),
    };
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let run = || load.run().unwrap_or_else(|e| panic!("{} {}: {e}", load.method, load.host));
        let threads: Vec<_> = (0..number(connections)).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|t| t.join().expect("a connection failed")).collect()
    });
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e3);
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    println!("Requests/sec: {rate:.2}\np50 ms: {:.2}\np99 ms: {:.2}", at(0.5), at(0.99));
}

impl Load {
    fn run(&self) -> io::Result<Vec<Duration>> {
        let mut stream = TcpStream::connect(&self.host)?;
        stream.set_nodelay(true)?;
        let put = self.method == "PUT";
        let mut body: Vec<u8> = (0..self.size as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        let file = if put && self.size >= FROM_FILE_BYTES { Some(unnamed_file(&body)?) } else { None };
        let mut buf = vec![0; READ_BYTES];
        let mut times = Vec::new();
        loop {
            let start = Instant::now();
            let all = !put || self.next.load(Ordering::Relaxed) >= self.names;
            if start >= self.end && all {
                return Ok(times);
            }
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let name = if self.names == 0 { n } else { n % self.names };
            let length = if put { format!("Content-Length: {}\r\n", self.size) } else { String::new() };
            let head = format!("{} /{}-{name} HTTP/1.1\r\nHost: {}\r\n{length}\r\n", self.method, self.prefix, self.host);
            // Never what is there already, which a server may notice.
            let mark = n.to_le_bytes();
            let marked = mark.len().min(body.len());
            match &file {
                Some(file) => {
                    file.write_all_at(&mark, 0)?;
                    stream.write_all(head.as_bytes())?;
                    send_file(&mut stream, file, self.size)?;
                }
                None => {
                    body[..marked].copy_from_slice(&mark[..marked]);
                    send(&mut stream, head.as_bytes(), if put { &body } else { &[] })?;
                }
            }
            let got = receive(&mut stream, &mut buf)?;
            if !put && got != self.size {
                return Err(io::Error::other(format!("{got} bytes instead of {}", self.size)));
            }
            times.push(start.elapsed());
        }
    }
}

/// A file in memory that is gone with its last user.
fn unnamed_file(content: &[u8]) -> io::Result<File> {
    let path = format!("/dev/shm/load-{}-{:?}", std::process::id(), std::thread::current().id());
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    file.write_all(content)?;
    Ok(file)
}

fn send_file(stream: &mut TcpStream, file: &File, len: usize) -> io::Result<()> {
    unsafe extern "C" {
        fn sendfile(out: i32, from: i32, offset: *mut i64, count: usize) -> isize;
    }
    let mut at = 0i64;
    while (at as usize) < len {
        // SAFETY: both descriptors are open as long as their owners, which are borrowed; `at` is written before the call returns.
        let sent = unsafe { sendfile(stream.as_raw_fd(), file.as_raw_fd(), &mut at, len - at as usize) };
        if sent <= 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn send(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> io::Result<()> {
    let sent = stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
    let in_head = sent.min(head.len());
    stream.write_all(&head[in_head..])?;
    stream.write_all(&body[sent - in_head..])
}

/// Reads a reply; the length of its body. A status other than 2xx is an error.
fn receive(stream: &mut TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    let head_end = loop {
        let n = stream.read(&mut buf[have..])?;
        have += n;
        match buf[..have].windows(4).position(|w| w == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None if n == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    };
    let head = String::from_utf8_lossy(&buf[..head_end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 2") {
        return Err(io::Error::other(head));
    }
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    let mut left: usize = length;
    left = left.saturating_sub(have - head_end);
    while left > 0 {
        let most = left.min(buf.len());
        match stream.read(&mut buf[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => left -= n,
        }
    }
    Ok(length)
}
