//! Every option there is, one line each.

use crate::following::{self, Wish};
use crate::value::{self, AddressOrNone, AddressValue, InvalidValue, RunAs};
use pasta::ports::PortOption;
use pasta::ports::spec::Spec;
use pasta_ipc::types::{IfName, MacAddr, MtuSource};
use std::net::IpAddr;

/// What one option on the command line says. Values have been checked by themselves; what depends
/// on other options has not.
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
    /// `--follow` and what belongs to it.
    Following(Wish),
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
    /// Known by name, and always an error.
    Refused(Arity, Why),
    /// `--help`
    Help,
    /// `--version`
    Version,
}

/// What an option that is refused would take, so that words are told apart rightly.
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
pub(super) enum Why {
    /// It is part of pasta, but not of this version.
    NotYet,
    /// It asks to attach to an existing namespace.
    Attach,
    /// It means something to the C program's other mode only.
    PasstOnly,
}

impl Why {
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

const fn refused(short: Option<char>, long: &'static str, arity: Arity, why: Why) -> Entry {
    Entry { short, long, help: "", kind: Kind::Refused(arity, why) }
}

const fn later(long: &'static str, arity: Arity) -> Entry {
    refused(None, long, arity, Why::NotYet)
}

const fn later_short(short: char, long: &'static str) -> Entry {
    refused(Some(short), long, Arity::Value, Why::NotYet)
}

/// In the order in which `--help` shows them; those that are refused are not shown.
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
        "Host interface whose addresses and routes are imitated (default: chosen by its routes)",
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
        "MTU of the interface in the namespace, 0 to leave it alone, auto for the template's (default: 65520)",
    ),
    value(
        None,
        "follow",
        "HOW",
        |v| following::follow(v).map(Setting::Following),
        "What of the host's network is followed: roam, sticky, once, off (default: roam; sticky with -i)",
    ),
    value(
        None,
        "settle",
        "MS",
        |v| following::settle(v).map(Setting::Following),
        "Quiet time before another interface is imitated without need (default: 1000)",
    ),
    value(
        None,
        "hold",
        "MS",
        |v| following::hold(v).map(Setting::Following),
        "How long the configuration outlives its interface, inf for ever (default: 10000)",
    ),
    value(
        None,
        "linger",
        "SECONDS",
        |v| following::linger(v).map(Setting::Following),
        "How long addresses stay after such a change (default: 30)",
    ),
    value(
        None,
        "tunnels",
        "HOW",
        |v| following::tunnels(v).map(Setting::Following),
        "Whether tunnels are imitated: avoid, allow, never (default: avoid)",
    ),
    value(
        None,
        "bind-wait",
        "MS",
        |v| following::bind_wait(v).map(Setting::Following),
        "Wait up to this long for a network before COMMAND starts (default: 0)",
    ),
    value(
        None,
        "rename",
        "HOW",
        |v| following::rename(v).map(Setting::Following),
        "Whether the interface is renamed after the first one imitated: auto, never (default: auto)",
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
        "The gateway's address does not lead to the host's loopback",
    ),
    value(
        None,
        "map-host-loopback",
        "ADDRESS|none",
        |v| value::mapped(v).map(Setting::MapHostLoopback),
        "Address that leads to the host's loopback (default: the gateway's)",
    ),
    value(
        None,
        "map-guest-addr",
        "ADDRESS|none",
        |v| value::mapped(v).map(Setting::MapGuestAddress),
        "Address that leads to the host's own address (default: none)",
    ),
    value(
        None,
        "dns-forward",
        "ADDRESS",
        |v| value::peer("DNS address", v).map(Setting::DnsForward),
        "Address at which DNS queries are taken, one for each family (default: none)",
    ),
    value(
        None,
        "dns-host",
        "ADDRESS",
        |v| value::dns_host(v).map(Setting::DnsHost),
        "Resolver they are forwarded to (default: the first of /etc/resolv.conf)",
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
        "Local connections go through the interface of the namespace, as all others",
    ),
    flag(
        None,
        "splice-only",
        Setting::SpliceOnly,
        "No interface at all, only forwarded ports between the loopback interfaces",
    ),
    value(
        None,
        "runas",
        "USER[:GROUP]",
        |v| value::run_as(v).map(Setting::RunAs),
        "User to become when started by root, by name or number (default: nobody)",
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
        "Print what each helper process can still do",
    ),
    Entry { short: Some('h'), long: "help", help: "Print this help", kind: Kind::Help },
    Entry { short: None, long: "version", help: "Print the version", kind: Kind::Version },
    refused(None, "netns", Arity::Value, Why::Attach),
    refused(None, "netns-only", Arity::Flag, Why::Attach),
    refused(None, "userns", Arity::Value, Why::Attach),
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
    refused(Some('s'), "socket", Arity::Value, Why::PasstOnly),
    refused(None, "socket-path", Arity::Value, Why::PasstOnly),
    refused(Some('1'), "one-off", Arity::Flag, Why::PasstOnly),
    refused(None, "no-dhcp-dns", Arity::Flag, Why::PasstOnly),
    refused(None, "no-dhcp-search", Arity::Flag, Why::PasstOnly),
    refused(None, "migrate-exit", Arity::Flag, Why::PasstOnly),
    refused(None, "migrate-no-linger", Arity::Flag, Why::PasstOnly),
    refused(None, "repair-path", Arity::Value, Why::PasstOnly),
    refused(None, "vhost-user", Arity::Flag, Why::PasstOnly),
    refused(None, "print-capabilities", Arity::Flag, Why::PasstOnly),
];

fn ports(option: PortOption, text: &str) -> Result<Setting, InvalidValue> {
    let spec = Spec::parse(option, text);
    spec.map(|spec| Setting::Ports(option, spec)).map_err(|error| {
        InvalidValue(format!("invalid value of option '{}': {error}", option.name()))
    })
}

fn mtu(text: &str) -> Result<Setting, InvalidValue> {
    match text {
        "auto" => Ok(Setting::Following(Wish::Mtu(MtuSource::Template))),
        number => value::mtu(number).map(Setting::Mtu),
    }
}
