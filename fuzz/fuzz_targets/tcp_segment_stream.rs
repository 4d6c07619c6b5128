//! See [`pasta_fuzz::tcp_segment_stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::tcp_segment_stream::check(octets));
