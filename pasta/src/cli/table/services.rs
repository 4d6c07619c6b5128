//! Protocols that are served, and the services for clients in the namespace.

use super::{Entry, Setting, flag, value};
use crate::value;
use pasta_ipc::start::{Protocol, Responder};

pub(super) const ENTRIES: &[Entry] = &[
    flag(None, "no-tcp", Setting::Without(Protocol::Tcp), "Drop TCP, forward no TCP port"),
    flag(None, "no-udp", Setting::Without(Protocol::Udp), "Drop UDP, forward no UDP port"),
    flag(None, "no-icmp", Setting::Without(Protocol::Icmp), "Drop echo (ping); implies --no-ndp"),
    flag(
        None,
        "no-ndp",
        Setting::WithoutResponder(Responder::Ndp),
        "Do not answer neighbour and router solicitations",
    ),
    flag(None, "no-dhcp", Setting::WithoutResponder(Responder::Dhcp), "Do not answer DHCP clients"),
    flag(
        None,
        "no-dhcpv6",
        Setting::WithoutResponder(Responder::Dhcpv6),
        "Do not answer DHCPv6 clients",
    ),
    flag(
        None,
        "no-ra",
        Setting::WithoutResponder(Responder::RouterAdvertisement),
        "Do not send router advertisements",
    ),
    value(
        Some('D'),
        "dns",
        "ADDRESS|none",
        |v| value::dns_server(v).map(Setting::Dns),
        "Resolver named to clients of DHCP and router advertisements, up to three of a family (default: the host's)",
    ),
    value(
        Some('S'),
        "search",
        "DOMAIN|none",
        |v| value::search(v).map(Setting::Search),
        "Search domain named to these clients, up to six (default: the host's)",
    ),
    flag(None, "dhcp-dns", Setting::AdvertiseDns, "Name the resolvers to these clients"),
    flag(None, "dhcp-search", Setting::AdvertiseSearch, "Name the search domains to these clients"),
    value(
        Some('H'),
        "hostname",
        "NAME",
        |v| value::domain("host name", v).map(Setting::HostName),
        "Host name of a new namespace (default: pasta- and the host's), and named to these clients",
    ),
    value(
        None,
        "fqdn",
        "NAME",
        |v| value::domain("domain name", v).map(Setting::Fqdn),
        "Fully qualified domain name, named to these clients",
    ),
];
