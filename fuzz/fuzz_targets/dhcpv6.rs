//! See [`pasta_fuzz::dhcpv6`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::dhcpv6::check(octets));
