//! Payloads of the messages. Each checks itself while it is decoded; holding one is the proof.
//!
//! Rules that every type here keeps: no recursion, no element of size zero, no map, no float, no
//! `usize` and no `char`; every list has its own bound.

mod bounded;
mod explanation;
mod link;
mod net;
mod services;

pub use bounded::{Bounded, Completeness, Text, TooMany};
pub use explanation::{
    ExplainedRoute, ExplainedTemplate, Explanation, FamilyExplanation, PrefixText,
};
pub use link::{IfName, InvalidIfName, InvalidMac, InvalidMtu, MacAddr, Mtu, TAP_QUEUE_FRAMES};
pub use net::{Address, Family, InvalidPrefix, Ipv4Net, Ipv6Net, Prefix};
pub use services::{
    ClientOptions, DnsList, Protocol, Protocols, Responder, Responders, SearchList,
};

use crate::forward::{ForwardRule, LoopbackTarget, MAX_RULES, PortWatch, Splice};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

/// Number of a published snapshot: grows with each change, counted per publisher.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

impl Generation {
    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// How many times the host has lost addresses, counted by the monitor; only grows. Privacy addresses
/// (RFC 8981) do not count: they come and go by themselves.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct AddressLosses(pub u64);

impl AddressLosses {
    /// One more.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// How important a log line is; the order is from most to least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogLevel {
    /// This process is about to end, or a feature is lost.
    Error,
    /// Someone should look, and can do something.
    Warn,
    /// Once per life or per change.
    Info,
    /// Per flow.
    Debug,
    /// Per frame or segment.
    Trace,
}

/// One line for the log. The supervisor escapes control characters and is the only one to write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// How important it is.
    pub level: LogLevel,
    /// The line: lower case, no full stop, no end of line.
    pub text: Text<1024>,
}

/// What the monitor needs to know before it enters the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorStart {
    /// Whether IPv4 is served.
    pub ipv4: Service,
    /// Whether IPv6 is served.
    pub ipv6: Service,
    /// Whether the namespace is configured (`--config-net`), or only `lo` is brought up.
    pub configure: Configure,
    /// Whether there is a tap at all.
    pub tap: TapUse,
    /// The host interface to imitate (`-i`); none: chosen by the state of the host.
    pub template: Option<IfName>,
    /// The name of the tap (`-I`); none: the template's, or `tap0`.
    pub tap_name: Option<IfName>,
    /// MTU of the tap; none leaves the kernel's (`-m 0`).
    pub mtu: Option<Mtu>,
    /// Link-layer address of the tap (`--ns-mac-addr`); none: the kernel draws one.
    pub tap_mac: Option<MacAddr>,
    /// Addresses from `-a`, in the order given: they replace the host's for their family.
    pub ipv4_addresses: Bounded<Ipv4Net, 64>,
    /// As `ipv4_addresses`.
    pub ipv6_addresses: Bounded<Ipv6Net, 64>,
    /// Gateway from `-g`: replaces the host's routes for IPv4.
    pub ipv4_gateway: Option<Ipv4Addr>,
    /// As `ipv4_gateway`.
    pub ipv6_gateway: Option<Ipv6Addr>,
    /// How the host's network is followed while the program runs.
    pub following: Following,
    /// What the datapath may listen on inside the namespace.
    pub outbound: Bounded<ForwardRule, MAX_RULES>,
    /// Whose listening ports are published.
    pub ports: PortWatch,
    /// Whether services on the namespace's loopback count among its listening ports: they do where
    /// local connections are led there.
    pub loopback: LoopbackTarget,
    /// Lines less important than this are not sent.
    pub log_level: LogLevel,
    /// The host interface to imitate for IPv4 without `template` (`--outbound-if4`).
    pub ipv4_outbound_interface: Option<IfName>,
    /// As `ipv4_outbound_interface` (`--outbound-if6`).
    pub ipv6_outbound_interface: Option<IfName>,
    /// Which of the template's routes are reproduced.
    pub routes: CopyRoutes,
    /// Which of the template's addresses are reproduced.
    pub addresses: CopyAddresses,
    /// The user to become before the namespaces are entered, where root attaches; none: ours.
    pub run_as: Option<UserId>,
    /// What is tried where pivot_root(2) is refused.
    pub root: RootFallback,
}

/// A user and its group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserId {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Which routes of the template are reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyRoutes {
    /// All that go over it.
    All,
    /// One default route (`--no-copy-routes`).
    DefaultOnly,
}

/// Which addresses of the template are reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyAddresses {
    /// All that are of use.
    All,
    /// The primary one of each family (`--no-copy-addrs`).
    PrimaryOnly,
}

/// What is done where pivot_root(2) is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootFallback {
    /// The process ends.
    #[default]
    None,
    /// The empty root is moved to `/` and entered by chroot(2) (`--chroot-fallback`).
    Chroot,
}

/// How the host's network is followed. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    /// What is followed (`--follow`).
    pub follow: Follow,
    /// Quiet time before the template is changed without need (`--settle`).
    pub settle_ms: u32,
    /// How long the last good configuration survives a loss (`--hold`); none: for ever.
    pub hold_ms: Option<u32>,
    /// How long addresses of a template that was left without need stay (`--linger`).
    pub linger_ms: u32,
    /// Longest delay of `Ready` for a first binding (`--bind-wait`).
    pub bind_wait_ms: u32,
    /// Whether tunnels can be template (`--tunnels`).
    pub tunnels: Tunnels,
    /// Whether the tap may be renamed after its first template (`--rename`).
    pub rename: Rename,
    /// Where the tap's MTU comes from.
    pub mtu_source: MtuSource,
}

impl Default for Following {
    /// Following as without any option about it; the times are chosen, each reason is that of its
    /// option's documentation.
    fn default() -> Self {
        Self {
            follow: Follow::Roam,
            settle_ms: 1000,
            hold_ms: Some(10_000),
            linger_ms: 30_000,
            bind_wait_ms: 0,
            tunnels: Tunnels::Avoid,
            rename: Rename::Auto,
            mtu_source: MtuSource::Fixed,
        }
    }
}

/// What of the host's network is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Follow {
    /// The template's configuration, and other templates that are better.
    Roam,
    /// The configuration of the first template.
    Sticky,
    /// The first template, as it was when it became that.
    Once,
    /// Nothing: all stays as read at start.
    Off,
}

/// Whether point-to-point and VPN devices can be template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tunnels {
    /// Where there is nothing else.
    Avoid,
    /// As any other.
    Allow,
    /// Not at all.
    Never,
}

/// Whether the tap may be renamed after its first template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rename {
    /// Where nothing stands against it.
    Auto,
    /// Not at all.
    Never,
}

/// Where the tap's MTU comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MtuSource {
    /// From [`MonitorStart::mtu`].
    Fixed,
    /// From the template, as it is at the time (`--mtu auto`).
    Template,
}

/// Whether an address family or a protocol is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// It is.
    #[default]
    On,
    /// Switched off by an option, or not in the host's kernel.
    Off,
}

/// How much of the namespace is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Configure {
    /// Link, addresses and routes (`--config-net`).
    Namespace,
    /// Only `lo` is brought up; the tap is made and left down.
    LoopbackOnly,
}

/// Whether there is a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TapUse {
    /// There is one.
    Make,
    /// The caller has made one (`-F`): it is used as it is, and its link is not configured.
    Given,
    /// There is none, and the namespace has its loopback only (`--splice-only`).
    None,
}

/// What the tap turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapInfo {
    /// Its name in the namespace.
    pub name: IfName,
    /// Its link-layer address.
    pub mac: MacAddr,
    /// What the kernel lets us hand over in one frame.
    pub offloads: TapOffloads,
}

/// Offloads that the kernel accepted for the tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TapOffloads {
    /// No virtio-net header: one segment a frame, checksums in user space.
    None,
    /// Virtio-net header, checksums and TCP segmentation are the kernel's work.
    Tcp,
    /// As `Tcp`, and UDP segmentation too (Linux 6.2).
    TcpAndUdp,
}

/// What the datapath needs to know before it is confined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathStart {
    /// Link-layer address of our end of the tap (`-M`).
    pub our_mac: MacAddr,
    /// The tap, which travels with this message; none: local connections only.
    pub tap: Option<TapInfo>,
    /// Address translation for IPv4.
    pub ipv4: FamilyPolicy<Ipv4Addr>,
    /// Address translation for IPv6.
    pub ipv6: FamilyPolicy<Ipv6Addr>,
    /// Whether local connections are joined socket to socket.
    pub splice: Splice,
    /// Where those go in the namespace that come in on a forwarded port.
    pub loopback: LoopbackTarget,
    /// Lines less important than this are not sent.
    pub log_level: LogLevel,
    /// Which protocols are served.
    pub protocols: Protocols,
    /// What we answer ourselves.
    pub responders: Responders,
    /// What DHCP clients and others in the namespace are told.
    pub clients: ClientOptions,
    /// Whether sockets may be bound to addresses that the host does not have (`--freebind`).
    pub free_bind: FreeBind,
    /// Whether frames are captured (`-p`).
    pub capture: Captured,
    /// Shortest time between two lines of counters in the log (`--stats`), in seconds; none: at the end
    /// only.
    pub stats: Option<NonZeroU32>,
}

/// Whether frames are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Captured {
    /// Into the file whose descriptor comes along.
    Yes,
    /// They are not.
    #[default]
    No,
}

/// Whether sockets may be bound to addresses that the host does not have (`IP_FREEBIND`, ip(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FreeBind {
    /// They may.
    On,
    /// They may not.
    #[default]
    Off,
}

/// Address translation of one family, from the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyPolicy<A> {
    /// Whether the family is served at all.
    pub service: Service,
    /// Which address of the namespace's view leads to the host's loopback.
    pub host_loopback: HostLoopback<A>,
    /// Which address leads to the host's own address (`--map-guest-addr`).
    pub guest_address: Option<A>,
    /// At which address DNS queries are taken and forwarded (`--dns-forward`).
    pub dns_forward: Option<A>,
    /// Where they go (`--dns-host`); none: the first resolver of the family.
    pub dns_host: Option<A>,
    /// Source address of host sockets (`-o`); none: the kernel picks.
    pub outbound: Option<A>,
    /// The interface that host sockets are bound to (`--outbound-if4`, `--outbound-if6`); none: any.
    pub outbound_interface: Option<IfName>,
}

/// Which address leads to the host's loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostLoopback<A> {
    /// The gateway that the namespace was given, whichever it is at the time.
    Gateway,
    /// This one, always (`--map-host-loopback ADDRESS`).
    Address(A),
    /// None does (`--no-map-gw`, `--map-host-loopback none`).
    None,
}

/// State of an address family's binding to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FamilyState {
    /// Not served.
    Off,
    /// No template: the namespace talks to the host only.
    Local,
    /// A template's addresses and routes are reproduced.
    Bound,
    /// The template was lost; the last good configuration is still in force.
    Held,
}

/// What netlink knows of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilySnapshot<A> {
    /// The binding.
    pub state: FamilyState,
    /// What the namespace was assigned, primary first. Empty where nothing was.
    pub assigned: Bounded<A, 64>,
    /// All addresses of this family read in the namespace, ours and its users' (no loopback).
    pub present: Bounded<A, 256>,
    /// Gateway that the namespace was given.
    pub gateway: Option<A>,
    /// Our own address on the link: source of what we ourselves send. IPv4: the gateway; IPv6: a
    /// link-local address.
    pub our_address: Option<A>,
    /// The template's primary address on the host: what `--map-guest-addr` leads to.
    pub host_primary: Option<A>,
}

impl<A> FamilySnapshot<A> {
    /// A family that is not served.
    pub fn off() -> Self {
        Self {
            state: FamilyState::Off,
            assigned: Bounded::default(),
            present: Bounded::default(),
            gateway: None,
            our_address: None,
            host_primary: None,
        }
    }
}

/// All that the datapath needs to know from netlink; replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSnapshot {
    /// Strictly greater than that of the one before.
    pub generation: Generation,
    /// IPv4.
    pub ipv4: FamilySnapshot<Ipv4Addr>,
    /// IPv6.
    pub ipv6: FamilySnapshot<Ipv6Addr>,
    /// MTU of the tap as read back; none while it is not known.
    pub mtu: Option<Mtu>,
    /// Greater than in the snapshot before: sockets may send from an address that the host has lost.
    pub losses: AddressLosses,
    /// Whether any list above was cut.
    pub completeness: Completeness,
}

/// Who the template's neighbours are; replaces the list before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourSnapshot {
    /// Strictly greater than that of the one before.
    pub generation: Generation,
    /// Those that the host's kernel believes.
    pub entries: Bounded<NeighbourEntry, 512>,
}

/// One neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourEntry {
    /// Their address.
    pub address: IpAddr,
    /// Their link-layer address.
    pub mac: MacAddr,
}

/// The host's resolvers; replaces the list before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverSnapshot {
    /// Strictly greater than that of the one before.
    pub generation: Generation,
    /// In the order of resolv.conf.
    pub servers: Bounded<Resolver, 64>,
}

/// One resolver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Where it listens.
    pub address: IpAddr,
    /// The host interface a scoped address (`fe80::1%eth0`) belongs to.
    pub interface: Option<IfName>,
}

/// What a helper found when it read back its own privileges, just before its syscall filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Effective capabilities, bit per number (capabilities(7)).
    pub effective: u64,
    /// Permitted capabilities.
    pub permitted: u64,
    /// Inheritable capabilities.
    pub inheritable: u64,
    /// Ambient capabilities.
    pub ambient: u64,
    /// Bounding set.
    pub bounding: u64,
    /// Securebits (`prctl(PR_GET_SECUREBITS)`).
    pub securebits: u32,
    /// Number of supplementary groups.
    pub groups: u32,
    /// Whether `no_new_privs` is set.
    pub no_new_privs: bool,
    /// Whether the process may be traced and dumped.
    pub dumpable: bool,
    /// Landlock ABI whose rights are enforced; 0 where the kernel has none.
    pub landlock_abi: u32,
    /// Open descriptors by kind.
    pub fds: Bounded<FdEntry, 64>,
    /// Best-effort measures that could not be taken, each with the reason.
    pub missing: Bounded<Text<200>, 16>,
}

/// One open descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdEntry {
    /// Its number.
    pub number: u32,
    /// What `fstat` says it is: `socket`, `pipe`, `character device`, ...
    pub kind: Text<24>,
}
