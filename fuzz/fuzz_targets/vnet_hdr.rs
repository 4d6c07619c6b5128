//! See [`pasta_fuzz::vnet_hdr`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::vnet_hdr::check(octets));
