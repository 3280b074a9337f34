//! Loopback addresses of a test's own. On one that all share, a port that was let go of may be somebody else's a moment later.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// An address in 127.128.0.0/9, by this process and a count. That others have it, too, is no more than unlikely.
pub fn own() -> IpAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id() % (1 << 15);
    let host = COUNT.fetch_add(1, Ordering::Relaxed) % 254 + 1;
    Ipv4Addr::from_bits(0x7f80_0000 | process << 8 | host).into()
}

/// A port that is free, and that nobody is given before somebody asks for it.
pub fn free() -> SocketAddr {
    let held = TcpListener::bind((own(), 0)).expect("a loopback address");
    held.local_addr().expect("its address")
}
