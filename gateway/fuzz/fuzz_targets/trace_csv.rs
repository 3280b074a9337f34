#![no_main]

use trace_replay::read::{CsvReader, Reader};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(mut reader) = CsvReader::new(data, std::path::Path::new("t.csv")) {
        while let Some(Ok(_)) = reader.next_entry() {}
    }
});
