#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborforge_connector::fuzzing::openclaw(data));
