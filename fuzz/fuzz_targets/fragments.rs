//! See [`pasta_fuzz::fragments`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::fragments::check(octets));
