//! See [`pasta_fuzz::dhcpv4`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::dhcpv4::check(octets));
