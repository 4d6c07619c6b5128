//! See [`pasta_fuzz::ethernet_frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::ethernet_frame::check(octets));
