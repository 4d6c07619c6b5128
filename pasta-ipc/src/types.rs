//! Payloads of the messages. Each checks itself while it is decoded; holding one is the proof.
//!
//! Rules that every type here keeps: no recursion, no element of size zero, no map, no float, no
//! `usize` and no `char`; every list has its own bound.

use crate::forward::{ForwardRule, LoopbackTarget, MAX_RULES, PortWatch, Splice};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Frames that may wait in the tap for the datapath. Chosen: one TCP window of 4 MiB in small frames is
/// 2800 of them, and the tap drops silently what does not fit. The monitor makes the queue so long; the
/// datapath promises no more than that.
pub const TAP_QUEUE_FRAMES: u32 = 4000;

/// A list of at most `N` elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Bounded<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Bounded<T, N> {
    /// Keeps the first `N` elements of `items`, and says whether that was all of them.
    pub fn truncated(items: impl IntoIterator<Item = T>) -> (Self, Completeness) {
        let mut items = items.into_iter();
        let kept: Vec<T> = items.by_ref().take(N).collect();
        let rest = items.next();
        let completeness =
            if rest.is_none() { Completeness::Complete } else { Completeness::Truncated };
        (Self(kept), completeness)
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> Default for Bounded<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> TryFrom<Vec<T>> for Bounded<T, N> {
    type Error = TooMany;

    fn try_from(items: Vec<T>) -> Result<Self, TooMany> {
        if items.len() > N { Err(TooMany) } else { Ok(Self(items)) }
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoundedVisitor<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for BoundedVisitor<T, N> {
            type Value = Bounded<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                if seq.size_hint().is_some_and(|claimed| claimed > N) {
                    return Err(de::Error::custom(TooMany));
                }
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == N {
                        return Err(de::Error::custom(TooMany));
                    }
                    items.push(item);
                }
                Ok(Bounded(items))
            }
        }

        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

/// Whether a bounded list holds all there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Completeness {
    /// Nothing was left out.
    Complete,
    /// There were more than the bound allows; the rest was left out.
    Truncated,
}

/// More elements than a bounded list may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many elements")
    }
}

impl std::error::Error for TooMany {}

/// UTF-8 text of at most `N` octets.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text<const N: usize>(String);

impl<const N: usize> Text<N> {
    /// Keeps what fits of `text`, cut at a character boundary.
    pub fn truncated(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text.get(..end).unwrap_or_default().to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Text<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > N { Err(de::Error::custom("text too long")) } else { Ok(Self(text)) }
    }
}

/// The name of a network interface: 1 to 15 octets, no blank, no `/`, not `.` or `..`
/// (`dev_valid_name()` in `net/core/dev.c`; we also refuse `:` and non-ASCII as it does in effect).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

impl IfName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0
    }
}

impl TryFrom<String> for IfName {
    type Error = InvalidIfName;

    fn try_from(name: String) -> Result<Self, InvalidIfName> {
        let octets_ok = name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        let ok = matches!(name.len(), 1..=15) && octets_ok && name != "." && name != "..";
        if ok { Ok(Self(name)) } else { Err(InvalidIfName) }
    }
}

/// Not a possible name of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidIfName;

impl fmt::Display for InvalidIfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an interface name (1 to 15 characters, no blank, '/' or ':')")
    }
}

impl std::error::Error for InvalidIfName {}

/// A link-layer address that belongs to one station: not a group, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 6]", into = "[u8; 6]")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// What our end of the link is called unless `-M` says otherwise; the C program's value, which
    /// users' firewall rules know.
    pub const OURS_BY_DEFAULT: Self = Self([0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);

    /// The address in the order it is sent.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl From<MacAddr> for [u8; 6] {
    fn from(mac: MacAddr) -> Self {
        mac.0
    }
}

impl TryFrom<[u8; 6]> for MacAddr {
    type Error = InvalidMac;

    fn try_from(octets: [u8; 6]) -> Result<Self, InvalidMac> {
        let group = octets[0] & 1 != 0;
        if group || octets == [0; 6] { Err(InvalidMac) } else { Ok(Self(octets)) }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A group address or zero where a station's link-layer address belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMac;

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the address of a single station")
    }
}

impl std::error::Error for InvalidMac {}

/// Largest packet on the tap, in octets without the Ethernet header: 68 (RFC 791) to 65521 (what an
/// Ethernet frame of 65535 octets can carry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Mtu(u16);

impl Mtu {
    /// What the tap gets unless `-m` says otherwise: the largest multiple of 16 below the maximum,
    /// as the C program has it.
    pub const DEFAULT: Self = Self(65520);
    /// Largest MTU.
    pub const MAX: u16 = 65521;
    /// Smallest MTU.
    pub const MIN: u16 = 68;

    /// The MTU in octets.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl From<Mtu> for u16 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

impl TryFrom<u16> for Mtu {
    type Error = InvalidMtu;

    fn try_from(octets: u16) -> Result<Self, InvalidMtu> {
        if (Self::MIN..=Self::MAX).contains(&octets) { Ok(Self(octets)) } else { Err(InvalidMtu) }
    }
}

/// Out of the range of [`Mtu`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMtu;

impl fmt::Display for InvalidMtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an MTU ({} to {})", Mtu::MIN, Mtu::MAX)
    }
}

impl std::error::Error for InvalidMtu {}

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

/// An IPv4 address with its prefix length (0 to 32): an address on a link, not a masked network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Ipv4Addr, u8)", into = "(Ipv4Addr, u8)")]
pub struct Ipv4Net {
    address: Ipv4Addr,
    prefix: u8,
}

/// An IPv6 address with its prefix length (0 to 128): an address on a link, not a masked network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Ipv6Addr, u8)", into = "(Ipv6Addr, u8)")]
pub struct Ipv6Net {
    address: Ipv6Addr,
    prefix: u8,
}

/// A prefix length beyond the address's width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPrefix;

impl fmt::Display for InvalidPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("prefix length longer than the address")
    }
}

impl std::error::Error for InvalidPrefix {}

macro_rules! net {
    ($net:ty, $address:ty, $bits:ty, $width:literal) => {
        impl $net {
            /// Joins an address and a prefix length.
            ///
            /// # Errors
            ///
            /// [`InvalidPrefix`] if it is longer than the address.
            pub fn new(address: $address, prefix: u8) -> Result<Self, InvalidPrefix> {
                if prefix <= $width { Ok(Self { address, prefix }) } else { Err(InvalidPrefix) }
            }

            /// The address, with its host part.
            pub fn address(self) -> $address {
                self.address
            }

            /// The length of the prefix in bits.
            pub fn prefix(self) -> u8 {
                self.prefix
            }

            /// The first address of the network: the host part cleared.
            pub fn network(self) -> $address {
                (<$bits>::from(self.address) & self.mask()).into()
            }

            /// Whether `other` lies in this network.
            pub fn contains(self, other: $address) -> bool {
                (<$bits>::from(self.address) ^ <$bits>::from(other)) & self.mask() == 0
            }

            fn mask(self) -> $bits {
                <$bits>::MAX.checked_shl($width - u32::from(self.prefix)).unwrap_or(0)
            }
        }

        impl TryFrom<($address, u8)> for $net {
            type Error = InvalidPrefix;

            fn try_from((address, prefix): ($address, u8)) -> Result<Self, InvalidPrefix> {
                Self::new(address, prefix)
            }
        }

        impl From<$net> for ($address, u8) {
            fn from(net: $net) -> Self {
                (net.address, net.prefix)
            }
        }

        impl fmt::Display for $net {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.address, self.prefix)
            }
        }
    };
}

net!(Ipv4Net, Ipv4Addr, u32, 32);
net!(Ipv6Net, Ipv6Addr, u128, 128);

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

/// Whether an address family is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// It is.
    On,
    /// Switched off by `-4`, `-6`, or the host's kernel.
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
    /// What the namespace was told to use, primary first. Empty where it was told nothing.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_those_the_kernel_takes() {
        for good in ["eth0", "wlp0s20f3", "tap0", "a", "fifteen-chars-x"] {
            assert!(IfName::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "sixteen-chars-xx", "a\n"] {
            assert!(IfName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_and_zero_are_no_station() {
        assert!(MacAddr::try_from([1, 0, 0x5e, 0, 0, 1]).is_err());
        assert!(MacAddr::try_from([0; 6]).is_err());
        assert!(MacAddr::try_from([0xff; 6]).is_err());
        assert!(MacAddr::try_from([2, 0, 0, 0, 0, 1]).is_ok());
    }

    #[test]
    fn network_clears_the_host_part_at_every_width() {
        let net = |p| Ipv4Net::new(Ipv4Addr::new(192, 0, 2, 77), p).unwrap();
        assert_eq!(net(24).network(), Ipv4Addr::new(192, 0, 2, 0));
        assert_eq!(net(32).network(), Ipv4Addr::new(192, 0, 2, 77));
        assert_eq!(net(0).network(), Ipv4Addr::UNSPECIFIED);
        assert!(net(0).contains(Ipv4Addr::BROADCAST));
        assert!(!net(24).contains(Ipv4Addr::new(192, 0, 3, 77)));
        assert!(Ipv4Net::new(Ipv4Addr::LOCALHOST, 33).is_err());
        assert!(Ipv6Net::new(Ipv6Addr::LOCALHOST, 129).is_err());
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(Text::<3>::truncated("aéé").as_str(), "aé");
        assert_eq!(Text::<2>::truncated("aé").as_str(), "a");
    }

    #[test]
    fn truncation_of_a_list_is_said() {
        let (list, completeness) = Bounded::<u8, 2>::truncated([1, 2, 3]);
        assert_eq!((list.as_slice(), completeness), (&[1, 2][..], Completeness::Truncated));
        let (_, completeness) = Bounded::<u8, 3>::truncated([1, 2, 3]);
        assert_eq!(completeness, Completeness::Complete);
    }
}
