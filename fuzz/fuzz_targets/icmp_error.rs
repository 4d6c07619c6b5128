//! See [`pasta_fuzz::icmp_error`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::icmp_error::check(octets));
