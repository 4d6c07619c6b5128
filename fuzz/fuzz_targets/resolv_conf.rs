//! See [`pasta_fuzz::resolv_conf`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::resolv_conf::check(octets));
