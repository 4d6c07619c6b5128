//! See [`pasta_fuzz::udp_dns_forward`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::udp_dns_forward::check(octets));
