//! See [`pasta_fuzz::cli_ports`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::cli_ports::check(octets));
