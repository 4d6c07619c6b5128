//! See [`pasta_fuzz::tcp_options`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::tcp_options::check(octets));
