//! See `fuzz/src/targets/`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sdpa_fuzz::rotate(bytes));
