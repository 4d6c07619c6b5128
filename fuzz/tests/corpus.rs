//! The committed corpus, replayed by `cargo test` on any toolchain, without libFuzzer.

use std::path::Path;

/// A target, and what it does with an input.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 23] = [
    ("cli_ports", pasta_fuzz::cli_ports::check),
    ("control_socket", pasta_fuzz::control_socket::check),
    ("dhcpv4", pasta_fuzz::dhcpv4::check),
    ("dhcpv6", pasta_fuzz::dhcpv6::check),
    ("ethernet_frame", pasta_fuzz::ethernet_frame::check),
    ("flow_table", pasta_fuzz::flow_table::check),
    ("forward_policy", pasta_fuzz::forward_policy::check),
    ("fragments", pasta_fuzz::fragments::check),
    ("icmp_error", pasta_fuzz::icmp_error::check),
    ("ipc_decode_datapath", pasta_fuzz::ipc_decode::datapath),
    ("ipc_decode_monitor", pasta_fuzz::ipc_decode::monitor),
    ("ipc_decode_supervisor", pasta_fuzz::ipc_decode::supervisor),
    ("ipv6_ext_headers", pasta_fuzz::ipv6_ext_headers::check),
    ("ndp", pasta_fuzz::ndp::check),
    ("netlink_message", pasta_fuzz::netlink_message::check),
    ("pcap_writer", pasta_fuzz::pcap_writer::check),
    ("resolv_conf", pasta_fuzz::resolv_conf::check),
    ("sock_diag", pasta_fuzz::sock_diag::check),
    ("stack", pasta_fuzz::stack::check),
    ("tcp_options", pasta_fuzz::tcp_options::check),
    ("tcp_segment_stream", pasta_fuzz::tcp_segment_stream::check),
    ("udp_dns_forward", pasta_fuzz::udp_dns_forward::check),
    ("vnet_hdr", pasta_fuzz::vnet_hdr::check),
];

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

/// The names in `directory`, in order; none if it is not there.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_kept_input_keeps_the_invariants() {
    for (target, check) in TARGETS {
        let directory = corpus().join(target);
        let names = names(&directory);
        assert!(!names.is_empty(), "{target} has no corpus");
        for name in names {
            println!("{target}/{name}");
            check(&std::fs::read(directory.join(name)).unwrap());
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    assert_eq!(names(corpus()), TARGETS.map(|(target, _)| target));
    let targets = names(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz_targets")));
    assert_eq!(targets, TARGETS.map(|(target, _)| format!("{target}.rs")));
}
