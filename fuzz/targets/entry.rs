//! An entry of the stream.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| broker::properties::hold_of(bytes));
