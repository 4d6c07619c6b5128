//! See [`pasta_fuzz::forward_policy`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::forward_policy::check(octets));
