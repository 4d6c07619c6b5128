//! What the monitor would make of the host, for `--explain`. It is only shown, never acted on.

use super::{Bounded, FamilyState, IfName, Mtu, Text};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// An address and its prefix length, as text. The longest is an IPv6 address with dotted octets and
/// three digits.
pub type PrefixText = Text<49>;

/// What the monitor would make of the host as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The tap's name.
    pub tap_name: IfName,
    /// The tap's MTU; none leaves what the kernel chose.
    pub mtu: Option<Mtu>,
    /// IPv4.
    pub ipv4: FamilyExplanation,
    /// IPv6.
    pub ipv6: FamilyExplanation,
    /// How many addresses and routes of the host are not reproduced, for want of room.
    pub left_out: u32,
}

/// What it would make of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyExplanation {
    /// The binding.
    pub state: FamilyState,
    /// The interface that would be the template.
    pub template: Option<ExplainedTemplate>,
    /// Which interfaces could be, and why the others could not.
    pub candidates: Text<240>,
    /// Addresses of the tap, the primary first.
    pub addresses: Bounded<PrefixText, 64>,
    /// The default router.
    pub gateway: Option<IpAddr>,
    /// The first routes through the tap.
    pub routes: Bounded<ExplainedRoute, 128>,
    /// How many more there are.
    pub more_routes: u32,
}

/// An interface that would be the template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedTemplate {
    /// Its name.
    pub name: Text<15>,
    /// Its index.
    pub index: u32,
    /// Its primary address.
    pub primary: IpAddr,
}

/// A route through the tap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRoute {
    /// Where it leads.
    pub destination: PrefixText,
    /// The router; none if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Its metric.
    pub metric: u32,
}
