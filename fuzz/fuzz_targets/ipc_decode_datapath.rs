//! See [`pasta_fuzz::ipc_decode`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::ipc_decode::datapath(octets));
