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
        "TCP ports of the host that lead into the namespace (default: auto, the ports that are listened on there, but for low and ephemeral ones)",
    ),
    value(Some('u'), "udp-ports", "PORTS", |v| ports(PortOption::UdpIn, v), "The same for UDP"),
    value(
        Some('T'),
        "tcp-ns",
        "PORTS",
        |v| ports(PortOption::TcpOut, v),
        "TCP ports of the namespace's loopback that lead to the host's (default: auto, the ports that are listened on there, but for ephemeral ones)",
    ),
    value(Some('U'), "udp-ns", "PORTS", |v| ports(PortOption::UdpOut, v), "The same for UDP"),
    flag(
        None,
        "host-lo-to-ns-lo",
        Setting::LoopbackToLoopback,
        "Connections to the host's loopback arrive at the namespace's loopback",
    ),
    flag(
        None,
        "no-splice",
        Setting::NoSplice,
        "Local connections to forwarded ports go through the interface, as all others",
    ),
    flag(
        None,
        "splice-only",
        Setting::SpliceOnly,
        "Create no interface, only forward ports between both loopbacks",
    ),
];

fn ports(option: PortOption, text: &str) -> Result<Setting, InvalidValue> {
    let spec = Spec::parse(option, text);
    spec.map(|spec| Setting::Ports(option, spec))
        .map_err(|error| InvalidValue(format!("invalid value: {error}")))
}
