#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| riverlog_server::fuzzing::fuzz_headers(data));
