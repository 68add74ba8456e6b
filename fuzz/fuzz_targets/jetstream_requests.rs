#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    riverlog_server::jetstream::fuzzing::fuzz_jetstream_requests(data)
});
