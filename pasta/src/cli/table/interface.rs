//! The interface in the namespace, its configuration, and how that follows the host.

use super::{Entry, Setting, flag, value};
use crate::follow_options::{self, FollowOption};
use crate::value::{self, InvalidValue};
use pasta_ipc::start::MtuSource;

pub(super) const ENTRIES: &[Entry] = &[
    flag(
        None,
        "config-net",
        Setting::ConfigureNamespace,
        "Configure the interface as the host's: addresses, routes, up. Without it the interface is left down",
    ),
    flag(Some('4'), "ipv4-only", Setting::Ipv4Only, "IPv4 only"),
    flag(Some('6'), "ipv6-only", Setting::Ipv6Only, "IPv6 only"),
    value(
        Some('i'),
        "interface",
        "INTERFACE",
        |v| value::interface(v).map(Setting::Template),
        "Host interface whose addresses and routes are copied, the template (default: chosen by its routes)",
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
        "Address of the interface, may be repeated (default: those of the host)",
    ),
    value(
        Some('n'),
        "netmask",
        "LENGTH|MASK",
        |v| value::netmask(v).map(Setting::Netmask),
        "Prefix of the IPv4 address given with -a (default: by its class)",
    ),
    value(
        Some('g'),
        "gateway",
        "ADDRESS",
        |v| value::peer("gateway address", v).map(Setting::Gateway),
        "Default gateway, one for each family (default: the host's)",
    ),
    value(
        Some('m'),
        "mtu",
        "OCTETS|auto",
        mtu,
        "MTU of the interface; 0 leaves it alone, auto copies the template's (default: 65520)",
    ),
    value(
        None,
        "ns-mac-addr",
        "MAC",
        |v| value::mac(v).map(Setting::TapMac),
        "MAC address of the interface (default: random)",
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
        "roam|sticky|once|off",
        |v| follow_options::follow(v).map(Setting::Following),
        "roam: follow the host, to better interfaces too; sticky: stay with the first one; once: stop after the first configuration; off: do not follow (default: roam; sticky with -i)",
    ),
    value(
        None,
        "settle",
        "MS",
        |v| follow_options::settle(v).map(Setting::Following),
        "Quiet time before a change to a better interface (default: 1000)",
    ),
    value(
        None,
        "hold",
        "MS|inf",
        |v| follow_options::hold(v).map(Setting::Following),
        "How long the configuration is kept after its interface is lost (default: 10000)",
    ),
    value(
        None,
        "linger",
        "SECONDS",
        |v| follow_options::linger(v).map(Setting::Following),
        "At least how long old addresses are kept after a change to another interface (default: 30)",
    ),
    value(
        None,
        "tunnels",
        "avoid|allow|never",
        |v| follow_options::tunnels(v).map(Setting::Following),
        "Whether a tunnel, such as a VPN, may be the template (default: avoid, if there is anything else)",
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
        "auto|never",
        |v| follow_options::rename(v).map(Setting::Following),
        "Whether an interface that was made while the host was offline gets the name of the first template (default: auto)",
    ),
];

fn mtu(text: &str) -> Result<Setting, InvalidValue> {
    match text {
        "auto" => Ok(Setting::Following(FollowOption::Mtu(MtuSource::Template))),
        number => value::mtu(number).map(Setting::Mtu),
    }
}
