//! What the fuzz targets check: one module for each target, and what they share.
//!
//! Each module has one function that takes any octets and panics if the program breaks an invariant on
//! them; a target in `fuzz_targets/` is one call of it. So the same checks run under libFuzzer, in
//! `cargo test` here over the committed corpus, and wherever else octets come from.

pub mod cli_ports;
pub mod control_socket;
pub mod dhcpv4;
pub mod dhcpv6;
pub mod ethernet_frame;
pub mod flow_table;
pub mod forward_policy;
pub mod fragments;
pub mod frames;
pub mod icmp_error;
pub mod input;
pub mod ipc_decode;
pub mod ipv6_ext_headers;
pub mod ndp;
pub mod netlink_message;
pub mod pcap_writer;
pub mod resolv_conf;
pub mod sock_diag;
pub mod stack;
pub mod tcp_options;
pub mod tcp_segment_stream;
pub mod udp_dns_forward;
pub mod vnet_hdr;

#[path = "../../pasta-datapath/tests/fake/mod.rs"]
mod fake;
