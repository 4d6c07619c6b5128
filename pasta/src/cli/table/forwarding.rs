//! Forwarded ports.

use super::{Entry, Setting, flag, value};
use crate::value::InvalidValue;
use pasta::ports::PortOption;
use pasta::ports::spec::Spec;

pub(super) const ENTRIES: &[Entry] = &[
    value(
        Some('t'),
        "tcp-ports",
        "PORTS",
        |v| ports(PortOption::TcpIn, v),
        "TCP ports of the host forwarded into the namespace (default: auto)",
    ),
    value(
        Some('u'),
        "udp-ports",
        "PORTS",
        |v| ports(PortOption::UdpIn, v),
        "UDP ports of the host forwarded into the namespace (default: auto)",
    ),
    value(
        Some('T'),
        "tcp-ns",
        "PORTS",
        |v| ports(PortOption::TcpOut, v),
        "TCP ports of the namespace's loopback forwarded to the host's (default: auto)",
    ),
    value(
        Some('U'),
        "udp-ns",
        "PORTS",
        |v| ports(PortOption::UdpOut, v),
        "UDP ports of the namespace's loopback forwarded to the host's (default: auto)",
    ),
    flag(
        None,
        "host-lo-to-ns-lo",
        Setting::LoopbackToLoopback,
        "Local connections to forwarded ports reach the namespace's loopback",
    ),
    flag(
        None,
        "no-splice",
        Setting::NoSplice,
        "Do not splice local connections: forward them through the interface, as all others",
    ),
    flag(
        None,
        "splice-only",
        Setting::SpliceOnly,
        "Create no interface, only forward ports between the loopback interfaces",
    ),
];

fn ports(option: PortOption, text: &str) -> Result<Setting, InvalidValue> {
    let spec = Spec::parse(option, text);
    spec.map(|spec| Setting::Ports(option, spec)).map_err(|error| {
        InvalidValue(format!("invalid value of option '{}': {error}", option.name()))
    })
}
