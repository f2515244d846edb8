//! See `capi/tests/hostile/`.

#![no_main]

#[path = "../../capi/tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::check(bytes));
