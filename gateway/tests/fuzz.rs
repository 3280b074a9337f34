//! Every parser of outside bytes, on its seeds and on many changed ones: what `gateway/fuzz` does for hours, briefly.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../fuzz/mutate.rs"]
mod mutate;

#[test]
fn no_parser_of_outside_bytes_panics() {
    for target in gateway::fuzzing::TARGETS {
        mutate::drive(&(target.seeds)(), 20_000, target.run);
    }
}

#[test]
fn every_parser_has_a_libfuzzer_target() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");
    let manifest = std::fs::read_to_string(format!("{dir}/Cargo.toml")).unwrap();
    for target in gateway::fuzzing::TARGETS {
        let name = target.name;
        let file = std::fs::read_to_string(format!("{dir}/fuzz_targets/{name}.rs")).unwrap();
        assert!(file.contains(&format!("fuzzing::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
