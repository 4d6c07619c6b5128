#![forbid(unsafe_code)]
//! What one netlink message says, checked in full. Host and namespace are read as these.

use pasta_ipc::types::{Family, MacAddr, Prefix};
use std::net::IpAddr;

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index; never 0.
    pub index: u32,
    /// Its name as the kernel has it.
    pub name: String,
    /// Other names that it goes by (`ip link property add … altname`).
    pub alternatives: Vec<String>,
    /// What kind of device it is.
    pub kind: LinkKind,
    /// Its link-layer address, if it is one of Ethernet's for a single interface.
    pub mac: Option<MacAddr>,
    /// Administratively up.
    pub up: bool,
    /// Has carrier, and is in operation.
    pub carrier: bool,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// Whether it is part of a bridge, bond, team or VRF.
    pub enslaved: bool,
    /// Its MTU in octets.
    pub mtu: u32,
    /// Whether secondary IPv4 addresses take the place of a removed primary; none if unknown.
    pub promotes_secondaries: Option<bool>,
    /// How IPv6 link-local addresses come about; none without IPv6.
    pub address_generation: Option<AddressGeneration>,
    /// Whether IPv6 is switched off on it (`disable_ipv6`), or not there at all.
    pub without_ipv6: bool,
}

impl Link {
    /// Whether `name` is one of its names; no two links share one (`__dev_change_net_name()`, net/core/dev.c).
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternatives.iter().any(|it| it == name)
    }
}

/// Kinds of links that decisions tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A dummy.
    Dummy,
    /// A tunnel: point-to-point, without link-layer addresses, or of a tunnelling kind.
    Tunnel,
    /// Everything else: Ethernet, WLAN, bond, VLAN, veth, ...
    Ordinary,
}

/// How the kernel makes a link-local address (`IN6_ADDR_GEN_MODE_*`, `linux/if_link.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressGeneration(pub u8);

impl AddressGeneration {
    /// From the link-layer address: the kernel's default.
    pub const EUI64: Self = Self(0);
    /// Not at all.
    pub const NONE: Self = Self(1);
}

/// An address on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of its link.
    pub link: u32,
    /// Our end's address, and the length of the prefix it stands for.
    pub prefix: Prefix,
    /// The other end's address, on a point-to-point link.
    pub peer: Option<IpAddr>,
    /// IPv4: not the first of its subnet.
    pub secondary: bool,
    /// IPv6: a privacy address that will be replaced.
    pub temporary: bool,
    /// Not to be used for new flows: by flag, or by a preferred lifetime of zero.
    pub deprecated: bool,
    /// IPv6: not known to be unique yet, or known not to be.
    pub unproven: bool,
    /// IPv6: not known to be unique yet, and about to be.
    pub pending: bool,
    /// Whether the kernel makes a route for the prefix.
    pub prefix_route: bool,
    /// Who put it there (`IFA_PROTO`, Linux 5.18); none where the kernel does not say.
    pub tag: Option<u8>,
}

/// A unicast route, or one that has packets thrown away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Number of its table.
    pub table: u32,
    /// Where it leads; the host part is clear.
    pub destination: Prefix,
    /// Ways there, in the kernel's order.
    pub hops: Vec<Hop>,
    /// Metric; lower is better.
    pub metric: u32,
    /// Router preference, IPv6 only: higher is better, 0 is medium (RFC 4191).
    pub preference: i8,
    /// Who put it there (`RTPROT_*`, `linux/rtnetlink.h`).
    pub protocol: u8,
    /// MTU for its destinations in octets.
    pub mtu: Option<u32>,
    /// TCP's advertised segment size for its destinations in octets.
    pub advmss: Option<u32>,
    /// Whether what is above says all of it: no encapsulation, source prefix or type of service.
    pub plain: bool,
    /// Whether it leads nowhere: packets are thrown away, refused, or left to other rules.
    pub discards: bool,
    /// Whether it is a cache entry and not a configured route.
    pub cached: bool,
    /// The nexthop object whose hops it has, and with which it goes.
    pub nexthop: Option<u32>,
}

impl Route {
    /// Its family.
    pub fn family(&self) -> Family {
        self.destination.family()
    }
}

/// One way of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Index of the link it leaves through.
    pub link: u32,
    /// The next router; none if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the router is on the link whatever the addresses say.
    pub onlink: bool,
    /// Whether the kernel uses it at present.
    pub live: bool,
}

/// A nexthop object, which routes may use instead of hops of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nexthop {
    /// Its number.
    pub id: u32,
    /// Where it leads.
    pub ways: Ways,
    /// Whether that says all of it: no encapsulation.
    pub plain: bool,
}

/// Where a nexthop object leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ways {
    /// Nowhere: packets are thrown away.
    None,
    /// One way.
    One(Hop),
    /// The ways of others, by number.
    Group(Vec<u32>),
}

/// Somebody on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// Their address.
    pub address: IpAddr,
    /// Their link-layer address, if it is believed.
    pub mac: Option<MacAddr>,
}

/// A policy rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its family.
    pub family: Family,
    /// Whether it is one of the three that every namespace starts with.
    pub standard: bool,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A link there is.
    Link(Box<Link>),
    /// An address there is.
    Address(Address),
    /// A route there is.
    Route(Route),
    /// A policy rule there is.
    Rule(Rule),
    /// A neighbour there is.
    Neighbour(Neighbour),
    /// A nexthop object there is.
    Nexthop(Nexthop),
    /// Well-formed, and of no interest here.
    Other,
}

/// Something that is built of the records of dumps.
pub trait Collect: Clone {
    /// Takes in one record; those of no interest are dropped.
    fn take(&mut self, record: Record);
}
