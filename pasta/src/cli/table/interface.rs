//! The interface in the namespace, its configuration, and how that follows the host.

use super::{Entry, Setting, flag, value};
use crate::follow_options::{self, FollowOption};
use crate::value::{self, InvalidValue};
use pasta_ipc::types::MtuSource;

pub(super) const ENTRIES: &[Entry] = &[
    flag(
        None,
        "config-net",
        Setting::ConfigureNamespace,
        "Configure link, addresses and routes in the namespace",
    ),
    flag(Some('4'), "ipv4-only", Setting::Ipv4Only, "Serve IPv4 only"),
    flag(Some('6'), "ipv6-only", Setting::Ipv6Only, "Serve IPv6 only"),
    value(
        Some('i'),
        "interface",
        "NAME",
        |v| value::interface(v).map(Setting::Template),
        "Host interface that is the template for addresses and routes (default: chosen by its routes)",
    ),
    value(
        Some('I'),
        "ns-ifname",
        "NAME",
        |v| value::interface(v).map(Setting::TapName),
        "Name of the interface in the namespace (default: as on the host, or tap0)",
    ),
    value(
        Some('a'),
        "address",
        "ADDRESS[/LENGTH]",
        |v| value::address(v).map(Setting::Address),
        "Address in the namespace, may be repeated (default: the host's)",
    ),
    value(
        Some('n'),
        "netmask",
        "LENGTH|MASK",
        |v| value::netmask(v).map(Setting::Netmask),
        "Prefix of the IPv4 address given with -a",
    ),
    value(
        Some('g'),
        "gateway",
        "ADDRESS",
        |v| value::peer("gateway address", v).map(Setting::Gateway),
        "Gateway of the namespace, one for each family (default: the host's)",
    ),
    value(
        Some('m'),
        "mtu",
        "OCTETS",
        mtu,
        "MTU of the interface in the namespace, 0 for the kernel's, auto for the template's (default: 65520)",
    ),
    value(
        None,
        "ns-mac-addr",
        "MAC",
        |v| value::mac(v).map(Setting::TapMac),
        "MAC address of the interface in the namespace (default: random)",
    ),
    flag(
        None,
        "no-copy-routes",
        Setting::NoCopyRoutes,
        "Deprecated: one default route instead of the host's routes, needs --config-net",
    ),
    flag(
        None,
        "no-copy-addrs",
        Setting::NoCopyAddresses,
        "Deprecated: one address instead of all of the host's, needs --config-net",
    ),
];

pub(super) const FOLLOWING: &[Entry] = &[
    value(
        None,
        "follow",
        "HOW",
        |v| follow_options::follow(v).map(Setting::Following),
        "How changes of the host's network are followed: roam, sticky, once, off (default: roam; sticky with -i)",
    ),
    value(
        None,
        "settle",
        "MS",
        |v| follow_options::settle(v).map(Setting::Following),
        "Quiet time before the template changes to another interface by choice (default: 1000)",
    ),
    value(
        None,
        "hold",
        "MS",
        |v| follow_options::hold(v).map(Setting::Following),
        "How long the configuration is kept after its interface is gone, inf for ever (default: 10000)",
    ),
    value(
        None,
        "linger",
        "SECONDS",
        |v| follow_options::linger(v).map(Setting::Following),
        "How long old addresses are kept after the template has changed (default: 30)",
    ),
    value(
        None,
        "tunnels",
        "HOW",
        |v| follow_options::tunnels(v).map(Setting::Following),
        "Whether a tunnel may be the template: avoid, allow, never (default: avoid)",
    ),
    value(
        None,
        "bind-wait",
        "MS",
        |v| follow_options::bind_wait(v).map(Setting::Following),
        "Wait up to this long for a network before COMMAND starts (default: 0)",
    ),
    value(
        None,
        "rename",
        "HOW",
        |v| follow_options::rename(v).map(Setting::Following),
        "Whether the interface gets the name of the first template: auto, never (default: auto)",
    ),
];

fn mtu(text: &str) -> Result<Setting, InvalidValue> {
    match text {
        "auto" => Ok(Setting::Following(FollowOption::Mtu(MtuSource::Template))),
        number => value::mtu(number).map(Setting::Mtu),
    }
}
