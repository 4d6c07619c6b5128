//! See [`pasta_fuzz::flow_table`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::flow_table::check(octets));
