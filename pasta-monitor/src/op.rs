#![forbid(unsafe_code)]
//! [`NamespaceOp`]: all that the monitor can do to the namespace.

use crate::desired::{WantedAddress, WantedRoute};
use crate::record::AddressGeneration;
use pasta_ipc::types::Mtu;
use std::fmt;

/// One change to the namespace. All concern the tap; none names another link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceOp {
    /// Sets the MTU.
    SetMtu(Mtu),
    /// Lets a secondary IPv4 address take the place of a primary one that is removed.
    PromoteSecondaries,
    /// Sets how the kernel makes link-local addresses from then on.
    SetAddressGeneration(AddressGeneration),
    /// Brings the link up.
    RaiseTap,
    /// Adds an address, IPv6 without duplicate address detection.
    AddAddress(WantedAddress),
    /// Makes an address of ours deprecated, or ordinary again.
    AdjustAddress(WantedAddress),
    /// Adds a route.
    AddRoute(WantedRoute),
    /// Puts a route in the place of ours with the same destination and metric, in one step.
    ReplaceRoute(WantedRoute),
    /// Removes one of our routes.
    RemoveRoute(WantedRoute),
    /// Removes one of our addresses.
    RemoveAddress(WantedAddress),
}

impl fmt::Display for NamespaceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetMtu(mtu) => write!(f, "set the tap's MTU to {}", mtu.get()),
            Self::PromoteSecondaries => f.write_str("switch promotion of secondaries on"),
            Self::SetAddressGeneration(AddressGeneration(mode)) => {
                write!(f, "set generation of link-local addresses to {mode}")
            }
            Self::RaiseTap => f.write_str("bring the tap up"),
            Self::AddAddress(address) => write!(f, "add address {}", address.prefix),
            Self::AdjustAddress(address) if address.deprecated => {
                write!(f, "deprecate address {}", address.prefix)
            }
            Self::AdjustAddress(address) => write!(f, "prefer address {}", address.prefix),
            Self::AddRoute(route) => write!(f, "add route {route}"),
            Self::ReplaceRoute(route) => write!(f, "replace route {route}"),
            Self::RemoveRoute(route) => write!(f, "remove route {route}"),
            Self::RemoveAddress(address) => write!(f, "remove address {}", address.prefix),
        }
    }
}

impl fmt::Display for WantedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " metric {}", self.metric)
    }
}
