//! Source and destination addresses of flows.

use super::{Entry, Setting, flag, value};
use crate::value;

pub(super) const ENTRIES: &[Entry] = &[
    value(
        Some('M'),
        "mac-addr",
        "MAC",
        |v| value::mac(v).map(Setting::OurMac),
        "MAC address of the gateway, as seen in the namespace (default: 9a:55:9a:55:9a:55)",
    ),
    value(
        Some('o'),
        "outbound",
        "ADDRESS",
        |v| value::outbound(v).map(Setting::Outbound),
        "Source address of outbound traffic, one for each family (default: chosen by the kernel)",
    ),
    flag(
        None,
        "no-map-gw",
        Setting::NoMapGateway,
        "Do not map the gateway's address to the host's loopback",
    ),
    value(
        None,
        "map-host-loopback",
        "ADDRESS|none",
        |v| value::mapped(v).map(Setting::MapHostLoopback),
        "Address that is mapped to the host's loopback (default: the gateway's)",
    ),
    flag(
        None,
        "no-host-loopback",
        Setting::NoHostLoopback,
        "Nothing leads to the host's loopback: --no-map-gw, -T none and -U none",
    ),
    value(
        None,
        "map-guest-addr",
        "ADDRESS|none",
        |v| value::mapped(v).map(Setting::MapGuestAddress),
        "Address that is mapped to the host's own address (default: none)",
    ),
    value(
        None,
        "dns-forward",
        "ADDRESS",
        |v| value::peer("DNS address", v).map(Setting::DnsForward),
        "Forward DNS queries that are sent to this address, one for each family (default: none)",
    ),
    value(
        None,
        "dns-host",
        "ADDRESS",
        |v| value::dns_host(v).map(Setting::DnsHost),
        "Resolver that they are forwarded to (default: those of the host's /etc/resolv.conf, the next one after an error)",
    ),
    value(
        None,
        "outbound-if4",
        "INTERFACE",
        |v| value::interface(v).map(Setting::OutboundInterface4),
        "Host interface that outbound IPv4 is bound to; the template too, without -i",
    ),
    value(
        None,
        "outbound-if6",
        "INTERFACE",
        |v| value::interface(v).map(Setting::OutboundInterface6),
        "Host interface that outbound IPv6 is bound to; the template too, without -i",
    ),
    flag(
        None,
        "freebind",
        Setting::FreeBind,
        "Bind sockets also to addresses that the host does not have",
    ),
];
