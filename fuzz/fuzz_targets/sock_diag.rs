//! See [`pasta_fuzz::sock_diag`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::sock_diag::check(octets));
