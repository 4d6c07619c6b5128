//! Which protocols are served, and what clients in the namespace are offered.

use crate::types::{Bounded, Service, Text};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A protocol that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP (`--no-tcp`).
    Tcp,
    /// UDP (`--no-udp`).
    Udp,
    /// ICMP and ICMPv6 echo (`--no-icmp`).
    Icmp,
}

/// Which protocols of the namespace are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocols {
    /// TCP.
    pub tcp: Service,
    /// UDP.
    pub udp: Service,
    /// ICMP and ICMPv6 echo.
    pub icmp: Service,
}

/// A protocol that we answer ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Responder {
    /// Neighbour discovery (`--no-ndp`).
    Ndp,
    /// DHCP (`--no-dhcp`).
    Dhcp,
    /// DHCPv6 (`--no-dhcpv6`).
    Dhcpv6,
    /// Router advertisements (`--no-ra`).
    RouterAdvertisement,
}

/// Which protocols we answer ourselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Responders {
    /// Neighbour discovery.
    pub ndp: Service,
    /// DHCP.
    pub dhcp: Service,
    /// DHCPv6.
    pub dhcpv6: Service,
    /// Router advertisements.
    pub router_advertisement: Service,
}

/// The resolvers that clients are offered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsList {
    /// The host's.
    #[default]
    Host,
    /// These (`-D`); none at all after `-D none`.
    Given(Bounded<IpAddr, 6>),
}

/// The search domains that clients are offered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SearchList {
    /// The host's.
    #[default]
    Host,
    /// These (`-S`); none at all after `-S none`.
    Given(Bounded<Text<253>, 6>),
}

/// How long clients may use what they are offered without asking again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetimes {
    /// So long that the host's changes reach them.
    #[default]
    Limited,
    /// For ever: the host is not followed (`--follow off`).
    Unlimited,
}

/// What DHCP clients and others in the namespace are offered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientOptions {
    /// Resolvers.
    pub dns: DnsList,
    /// Search domains.
    pub search: SearchList,
    /// Whether resolvers are in the answers (`--dhcp-dns`).
    pub advertise_dns: bool,
    /// Whether search domains are in the answers (`--dhcp-search`).
    pub advertise_search: bool,
    /// The client's host name (`-H`).
    pub host_name: Option<Text<253>>,
    /// The client's fully qualified domain name (`--fqdn`).
    pub fqdn: Option<Text<253>>,
    /// How long all this may be used.
    pub lifetimes: Lifetimes,
}
