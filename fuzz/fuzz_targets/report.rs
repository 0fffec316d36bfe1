#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blkiolatd_fuzz::report(data));
