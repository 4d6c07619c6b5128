//! The table of options.

use crate::follow_options::{self, FollowOption};
use crate::value::{self, AddressOrNone, AddressValue, InvalidValue, RunAs};
use pasta::ports::PortOption;
use pasta::ports::spec::Spec;
use pasta_ipc::types::{IfName, MacAddr, MtuSource};
use std::net::IpAddr;

/// One option of the command line. Its value is checked by itself, not yet against other options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// `-4`
    Ipv4Only,
    /// `-6`
    Ipv6Only,
    /// `-i`
    Template(IfName),
    /// `-I`
    TapName(IfName),
    /// `-a`
    Address(AddressValue),
    /// `-n`
    Netmask(u8),
    /// `-g`
    Gateway(IpAddr),
    /// `-m`: octets, 0 for "leave it alone".
    Mtu(u16),
    /// `-M`
    OurMac(MacAddr),
    /// `--ns-mac-addr`
    TapMac(MacAddr),
    /// `-o`
    Outbound(IpAddr),
    /// `--map-host-loopback`
    MapHostLoopback(AddressOrNone),
    /// `--no-map-gw`
    NoMapGateway,
    /// `--map-guest-addr`
    MapGuestAddress(AddressOrNone),
    /// `--dns-forward`
    DnsForward(IpAddr),
    /// `--dns-host`
    DnsHost(IpAddr),
    /// `--config-net`
    ConfigureNamespace,
    /// `--follow` and related options.
    Following(FollowOption),
    /// `-t`, `-u`, `-T`, `-U`
    Ports(PortOption, Spec),
    /// `--host-lo-to-ns-lo`
    LoopbackToLoopback,
    /// `--no-splice`
    NoSplice,
    /// `--splice-only`
    SpliceOnly,
    /// `-d`
    Debug,
    /// `--trace`
    Trace,
    /// `-q`
    Quiet,
    /// `-f`
    Foreground,
    /// `-e`
    Stderr,
    /// `--runas`
    RunAs(RunAs),
    /// `--sandbox-report`
    SandboxReport,
}

/// One option.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its letter.
    pub(super) short: Option<char>,
    /// Its name without dashes.
    pub(super) long: &'static str,
    /// One line for `--help`.
    pub(super) help: &'static str,
    /// What it takes and means.
    pub(super) kind: Kind,
}

/// What an option takes and means.
#[derive(Debug)]
pub(super) enum Kind {
    /// Takes nothing.
    Flag(Setting),
    /// Takes a value, shown under this name, read by this function.
    Value(&'static str, fn(&str) -> Result<Setting, InvalidValue>),
    /// Known, and refused.
    Refused(Arity, Refusal),
    /// `--help`
    Help,
    /// `--version`
    Version,
}

/// Whether an option takes a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arity {
    /// Nothing.
    Flag,
    /// A value.
    Value,
    /// A value after `=`, or nothing.
    OptionalValue,
}

/// Why an option is refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// Not implemented in this version.
    NotYet,
    /// It attaches to an existing namespace.
    Attach,
    /// Only for the passt mode of the C program.
    PasstOnly,
}

impl Refusal {
    pub(super) fn refusal(self, long: &str) -> InvalidValue {
        InvalidValue(match self {
            Self::NotYet => format!("option '--{long}' is not supported by this version"),
            Self::Attach => {
                format!(
                    "option '--{long}': attaching to a namespace is not supported in this version"
                )
            }
            Self::PasstOnly => format!("option '--{long}' is for passt mode only"),
        })
    }
}

impl Kind {
    /// Whether the option takes a value.
    pub(super) fn arity(&self) -> Arity {
        match self {
            Self::Flag(_) | Self::Help | Self::Version => Arity::Flag,
            Self::Value(..) => Arity::Value,
            Self::Refused(arity, _) => *arity,
        }
    }
}

const fn flag(
    short: Option<char>,
    long: &'static str,
    setting: Setting,
    help: &'static str,
) -> Entry {
    Entry { short, long, help, kind: Kind::Flag(setting) }
}

const fn value(
    short: Option<char>,
    long: &'static str,
    name: &'static str,
    parse: fn(&str) -> Result<Setting, InvalidValue>,
    help: &'static str,
) -> Entry {
    Entry { short, long, help, kind: Kind::Value(name, parse) }
}

const fn refused(short: Option<char>, long: &'static str, arity: Arity, refusal: Refusal) -> Entry {
    Entry { short, long, help: "", kind: Kind::Refused(arity, refusal) }
}

const fn later(long: &'static str, arity: Arity) -> Entry {
    refused(None, long, arity, Refusal::NotYet)
}

const fn later_short(short: char, long: &'static str) -> Entry {
    refused(Some(short), long, Arity::Value, Refusal::NotYet)
}

/// In the order of `--help`, which omits those that are refused.
pub(super) const TABLE: &[Entry] = &[
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
    value(
        Some('M'),
        "mac-addr",
        "MAC",
        |v| value::mac(v).map(Setting::OurMac),
        "MAC address of the gateway as the namespace sees it (default: 9a:55:9a:55:9a:55)",
    ),
    value(
        None,
        "ns-mac-addr",
        "MAC",
        |v| value::mac(v).map(Setting::TapMac),
        "MAC address of the interface in the namespace (default: random)",
    ),
    value(
        Some('o'),
        "outbound",
        "ADDRESS",
        |v| value::outbound(v).map(Setting::Outbound),
        "Source address of host sockets, one for each family (default: chosen by the kernel)",
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
        "Address at which DNS queries are accepted, one for each family (default: none)",
    ),
    value(
        None,
        "dns-host",
        "ADDRESS",
        |v| value::dns_host(v).map(Setting::DnsHost),
        "Resolver to forward these queries to (default: the first of /etc/resolv.conf)",
    ),
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
    value(
        None,
        "runas",
        "USER[:GROUP]",
        |v| value::run_as(v).map(Setting::RunAs),
        "User to change to when started by root, by name or number (default: nobody)",
    ),
    flag(
        Some('f'),
        "foreground",
        Setting::Foreground,
        "Stay in the foreground (always so with a command)",
    ),
    flag(Some('d'), "debug", Setting::Debug, "Log more, with timestamps"),
    flag(None, "trace", Setting::Trace, "Log even more, implies --debug"),
    flag(Some('q'), "quiet", Setting::Quiet, "Log warnings and errors only"),
    flag(Some('e'), "stderr", Setting::Stderr, "Deprecated, without effect"),
    flag(
        None,
        "sandbox-report",
        Setting::SandboxReport,
        "Print the privileges that each process has left",
    ),
    Entry { short: Some('h'), long: "help", help: "Print this help", kind: Kind::Help },
    Entry { short: None, long: "version", help: "Print the version", kind: Kind::Version },
    refused(None, "netns", Arity::Value, Refusal::Attach),
    refused(None, "netns-only", Arity::Flag, Refusal::Attach),
    refused(None, "userns", Arity::Value, Refusal::Attach),
    later("no-netns-quit", Arity::Flag),
    later("stats", Arity::Value),
    later_short('l', "log-file"),
    later("log-size", Arity::Value),
    later_short('c', "conf-path"),
    later_short('F', "fd"),
    later_short('p', "pcap"),
    later_short('P', "pid"),
    later_short('D', "dns"),
    later_short('S', "search"),
    later("dhcp-dns", Arity::Flag),
    later("dhcp-search", Arity::Flag),
    later("no-tcp", Arity::Flag),
    later("no-udp", Arity::Flag),
    later("no-icmp", Arity::Flag),
    later("no-dhcp", Arity::Flag),
    later("no-dhcpv6", Arity::Flag),
    later("no-ndp", Arity::Flag),
    later("no-ra", Arity::Flag),
    later("freebind", Arity::Flag),
    later("outbound-if4", Arity::Value),
    later("outbound-if6", Arity::Value),
    later("chroot-fallback", Arity::Flag),
    later_short('H', "hostname"),
    later("fqdn", Arity::Value),
    later("no-copy-routes", Arity::Flag),
    later("no-copy-addrs", Arity::Flag),
    later("strict-sandbox", Arity::OptionalValue),
    later("explain", Arity::Flag),
    refused(Some('s'), "socket", Arity::Value, Refusal::PasstOnly),
    refused(None, "socket-path", Arity::Value, Refusal::PasstOnly),
    refused(Some('1'), "one-off", Arity::Flag, Refusal::PasstOnly),
    refused(None, "no-dhcp-dns", Arity::Flag, Refusal::PasstOnly),
    refused(None, "no-dhcp-search", Arity::Flag, Refusal::PasstOnly),
    refused(None, "migrate-exit", Arity::Flag, Refusal::PasstOnly),
    refused(None, "migrate-no-linger", Arity::Flag, Refusal::PasstOnly),
    refused(None, "repair-path", Arity::Value, Refusal::PasstOnly),
    refused(None, "vhost-user", Arity::Flag, Refusal::PasstOnly),
    refused(None, "print-capabilities", Arity::Flag, Refusal::PasstOnly),
];

fn ports(option: PortOption, text: &str) -> Result<Setting, InvalidValue> {
    let spec = Spec::parse(option, text);
    spec.map(|spec| Setting::Ports(option, spec)).map_err(|error| {
        InvalidValue(format!("invalid value of option '{}': {error}", option.name()))
    })
}

fn mtu(text: &str) -> Result<Setting, InvalidValue> {
    match text {
        "auto" => Ok(Setting::Following(FollowOption::Mtu(MtuSource::Template))),
        number => value::mtu(number).map(Setting::Mtu),
    }
}
