//! The `tierdav` server.
fn main() {}
