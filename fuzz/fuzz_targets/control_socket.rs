//! See [`pasta_fuzz::control_socket`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::control_socket::check(octets));
