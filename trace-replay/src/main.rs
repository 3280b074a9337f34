//! The `trace-replay` tool.
fn main() {}
