//! The body of a request.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| event::body::properties::hold_of(bytes));
