//! See [`pasta_fuzz::stack`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::stack::check(octets));
