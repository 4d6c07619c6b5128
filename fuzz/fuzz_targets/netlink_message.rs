//! See [`pasta_fuzz::netlink_message`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| pasta_fuzz::netlink_message::check(octets));
