//! See [`pasta_fuzz::ndp`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::ndp::check(octets));
