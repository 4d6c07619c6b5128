//! What payloads of the messages are made of. Each checks itself while it is decoded; holding one is the
//! proof.
//!
//! Rules that every type here keeps: no recursion, no element of size zero, no map, no float, no
//! `usize` and no `char`; every list has its own bound.

mod bounded;
mod explanation;
mod link;
mod net;
mod port;

pub use bounded::{Bounded, Completeness, Text, TooMany};
pub use explanation::{
    ExplainedRoute, ExplainedTemplate, Explanation, FamilyExplanation, PrefixText,
};
pub use link::{IfName, InvalidIfName, InvalidMac, InvalidMtu, MacAddr, Mtu, TAP_QUEUE_FRAMES};
pub use net::{Address, Family, InvalidPrefix, Ipv4Net, Ipv6Net, Prefix};
pub use port::{InvalidPorts, PortRange, PortSet, Transport};

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// What is not as the user may expect, without anybody's fault: shown unless he wants quiet.
    Notice,
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

/// Whether an address family or a protocol is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// It is.
    #[default]
    On,
    /// Switched off by an option, or not in the host's kernel.
    Off,
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

impl FamilyState {
    /// Its name in the log, in the status and in what is for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Local => "local",
            Self::Bound => "bound",
            Self::Held => "held",
        }
    }
}

/// An address that the namespace was assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "A: Address + Serialize",
    deserialize = "A: Address + Deserialize<'de>"
))]
pub struct AssignedAddress<A> {
    /// The address, and the length of the prefix that is on the link.
    pub prefix: Prefix<A>,
    /// Whether new flows shall not use it.
    pub deprecated: bool,
}

impl<A: Address> AssignedAddress<A> {
    /// The address.
    pub fn address(&self) -> A {
        self.prefix.address()
    }
}

impl<A> From<Prefix<A>> for AssignedAddress<A> {
    fn from(prefix: Prefix<A>) -> Self {
        Self { prefix, deprecated: false }
    }
}

/// What netlink knows of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "A: Address + Serialize",
    deserialize = "A: Address + Deserialize<'de>"
))]
pub struct FamilySnapshot<A> {
    /// The binding.
    pub state: FamilyState,
    /// What the namespace was assigned, primary first. Empty where nothing was.
    pub assigned: Bounded<AssignedAddress<A>, 64>,
    /// Whether there is a way to everything else.
    pub default_route: bool,
    /// All addresses of this family read in the namespace, ours and its users' (no loopback).
    pub present: Bounded<A, 256>,
    /// Gateway that the namespace was given.
    pub gateway: Option<A>,
    /// Our own address on the link: source of what we ourselves send. IPv4: the gateway; IPv6: a
    /// link-local address.
    pub our_address: Option<A>,
    /// The template's primary address on the host: what `--map-guest-addr` leads to.
    pub host_primary: Option<A>,
    /// Addresses that are about to be removed from the namespace: flows of theirs are to be reset.
    pub leaving: Bounded<A, 256>,
}

impl<A> FamilySnapshot<A> {
    /// A family that is not served.
    pub fn off() -> Self {
        Self {
            state: FamilyState::Off,
            assigned: Bounded::default(),
            default_route: false,
            present: Bounded::default(),
            gateway: None,
            our_address: None,
            host_primary: None,
            leaving: Bounded::default(),
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
    /// MTU that clients in the namespace are to set; none leaves the tap's.
    pub offered_mtu: Option<Mtu>,
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

/// Most search domains of the host. Chosen: more than anybody has; the C library took six for decades.
pub const MAX_SEARCH: usize = 16;

/// The host's resolvers; replaces the list before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverSnapshot {
    /// Strictly greater than that of the one before.
    pub generation: Generation,
    /// In the order of resolv.conf.
    pub servers: Bounded<Resolver, 64>,
    /// The domains that names are searched in.
    pub search: Bounded<Text<253>, MAX_SEARCH>,
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
