//! See [`pasta_fuzz::pcap_writer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::pcap_writer::check(octets));
