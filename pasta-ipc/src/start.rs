//! What the monitor and the datapath need to know to start with, from the command line.

mod services;

pub use services::{
    ClientOptions, DnsList, Lifetimes, Protocol, Protocols, Responder, Responders, SearchList,
};

use crate::port_forward::{ForwardRule, LoopbackTarget, MAX_RULES, PortWatch, Splice, Watched};
use crate::socket::FreeBind;
use crate::types::{
    Bounded, IfName, Ipv4Net, Ipv6Net, LogLevel, MacAddr, Mtu, PortRange, Service, TapInfo,
};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

/// What the monitor needs to know before it enters the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorStart {
    /// IPv4.
    pub ipv4: FamilyStart<Ipv4Addr, Ipv4Net>,
    /// IPv6.
    pub ipv6: FamilyStart<Ipv6Addr, Ipv6Net>,
    /// The interface in the namespace.
    pub link: LinkStart,
    /// The host interface to imitate for both families (`-i`); none: chosen by the state of the host.
    pub template: Option<IfName>,
    /// What of the template is reproduced.
    pub copy: CopyStart,
    /// How the host's network is followed while the program runs.
    pub following: Following,
    /// Forwarded ports.
    pub ports: PortsStart,
    /// Lines less important than this are not sent.
    pub log_level: LogLevel,
    /// The user to become before the namespaces are entered, where root attaches; none: ours.
    pub run_as: Option<UserId>,
    /// What is tried where pivot_root(2) is refused.
    pub root: RootFallback,
}

/// What the monitor needs to know of one family, with addresses `A` and prefixes `N`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyStart<A, N> {
    /// Whether it is served.
    pub service: Service,
    /// Addresses from `-a`, in the order given: they replace the host's.
    pub addresses: Bounded<N, 64>,
    /// Gateway from `-g`: replaces the host's routes.
    pub gateway: Option<A>,
    /// The host interface to imitate if none is named for both families (`--outbound-if4`,
    /// `--outbound-if6`).
    pub template: Option<IfName>,
}

impl<A, N> FamilyStart<A, N> {
    /// A family that is served, without any option of its own.
    pub fn plain(service: Service) -> Self {
        Self { service, addresses: Bounded::default(), gateway: None, template: None }
    }
}

/// The interface in the namespace, as it is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStart {
    /// Whether there is a tap at all.
    pub tap: TapUse,
    /// Whether the namespace is configured (`--config-net`), or only `lo` is brought up.
    pub configure: Configure,
    /// The name of the tap (`-I`); none: the template's, or `tap0`.
    pub name: Option<IfName>,
    /// MTU of the tap; none leaves the kernel's (`-m 0`).
    pub mtu: Option<Mtu>,
    /// Link-layer address of the tap (`--ns-mac-addr`); none: the kernel draws one.
    pub mac: Option<MacAddr>,
}

/// What of the template is reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStart {
    /// Which of its routes.
    pub routes: CopyRoutes,
    /// Which of its addresses.
    pub addresses: CopyAddresses,
}

/// What the monitor needs to know of forwarded ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsStart {
    /// What the datapath may listen on inside the namespace.
    pub outbound: Bounded<ForwardRule, MAX_RULES>,
    /// Whose listening ports are published.
    pub watch: PortWatch,
    /// Whether services on the namespace's loopback count among its listening ports: they do where
    /// local connections are led there.
    pub loopback: LoopbackTarget,
    /// Whether the rules may change.
    pub changes: RuleChanges,
    /// Whether there is a socket that lists the host's sockets.
    pub host: HostSockets,
}

impl PortsStart {
    /// Whether the host's listening ports are looked at, now or later.
    pub fn looks_at_host(&self) -> bool {
        let is_wanted = self.watch.host == Watched::Yes || self.changes == RuleChanges::Possible;
        is_wanted && self.host == HostSockets::InReach
    }

    /// As [`PortsStart::looks_at_host`], of the namespace's.
    pub fn looks_at_namespace(&self) -> bool {
        self.watch.namespace == Watched::Yes || self.changes == RuleChanges::Possible
    }
}

/// Whether the monitor may list the host's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostSockets {
    /// It gets a socket for that where one is needed.
    #[default]
    InReach,
    /// It gets none: with its capability it could end connections of the host over it.
    OutOfReach,
}

/// Whether the rules for ports may change after the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleChanges {
    /// They may: there is a control socket.
    Possible,
    /// They are those of the start for good.
    #[default]
    Never,
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
    /// From [`LinkStart::mtu`].
    Fixed,
    /// From the template, as it is at the time (`--mtu auto`).
    Template,
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
    /// Protocols and services.
    pub services: Services,
    /// Whether sockets may be bound to addresses that the host does not have (`--freebind`).
    pub free_bind: FreeBind,
    /// Whether frames are captured (`-p`).
    pub capture: Captured,
    /// Ports that the host gives to programs that ask for none (`net.ipv4.ip_local_port_range`).
    pub ephemeral_ports: PortRange,
    /// Shortest time between two lines of counters in the log (`--stats`), in seconds; none: at the end
    /// only.
    pub stats: Option<NonZeroU32>,
    /// Whether the rules for ports may change: which ports will be bound is not known beforehand then.
    pub changes: RuleChanges,
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

/// Protocols and services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// Which protocols are served.
    pub protocols: Protocols,
    /// What we answer ourselves.
    pub responders: Responders,
    /// What DHCP clients and others in the namespace are offered.
    pub clients: ClientOptions,
}
