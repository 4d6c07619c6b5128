//! See [`pasta_fuzz::ipv6_ext_headers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::ipv6_ext_headers::check(octets));
