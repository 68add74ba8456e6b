#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| riverlog_engine::fuzzing::fuzz_consumer(data));
