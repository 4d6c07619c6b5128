#![forbid(unsafe_code)]
//! What the datapath needs to know: bindings, wishes and the namespace as read → [`NetworkSnapshot`].

use crate::bind::Binding;
use crate::desired::{Assigned, Desired};
use crate::namespace::NamespaceView;
use crate::net::PerFamily;
use pasta_ipc::types::{
    Address, AddressLosses, AssignedAddress, Bounded, Completeness, Family, FamilySnapshot,
    FamilyState, Generation, Mtu, NetworkSnapshot, Prefix,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is published beside bindings and what was read.
#[derive(Clone, Debug)]
pub struct Wishes<'a> {
    /// What the namespace should look like.
    pub desired: &'a Desired,
    /// How many times the host has lost addresses.
    pub losses: AddressLosses,
    /// Addresses that the namespace is about to lose.
    pub leaving: PerFamily<Vec<IpAddr>>,
}

/// The snapshot of `generation`.
pub fn snapshot(
    generation: Generation,
    bindings: &PerFamily<Binding>,
    wishes: &Wishes<'_>,
    namespace: &NamespaceView,
) -> NetworkSnapshot {
    let v4 = |it: IpAddr| match it {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    };
    let v6 = |it: IpAddr| match it {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(v6),
    };
    let (ipv4, complete4) = family::<Ipv4Addr>(Family::V4, v4, bindings, wishes, namespace);
    let (ipv6, complete6) = family::<Ipv6Addr>(Family::V6, v6, bindings, wishes, namespace);
    let complete = complete4 && complete6 && wishes.desired.left_out == 0;
    NetworkSnapshot {
        generation,
        ipv4,
        ipv6,
        mtu: u16::try_from(namespace.tap.mtu).ok().and_then(|mtu| Mtu::try_from(mtu).ok()),
        offered_mtu: wishes.desired.offered_mtu,
        losses: wishes.losses,
        completeness: if complete { Completeness::Complete } else { Completeness::Truncated },
    }
}

fn family<A: Address>(
    family: Family,
    typed: impl Fn(IpAddr) -> Option<A>,
    bindings: &PerFamily<Binding>,
    wishes: &Wishes<'_>,
    namespace: &NamespaceView,
) -> (FamilySnapshot<A>, bool) {
    let state = match bindings.get(family) {
        Binding::Off => return (FamilySnapshot::off(), true),
        Binding::Local => FamilyState::Local,
        Binding::Bound(_) => FamilyState::Bound,
        Binding::Held(..) => FamilyState::Held,
    };
    let Some(assigned) = wishes.desired.assigned.get(family) else {
        return (FamilySnapshot { state, ..FamilySnapshot::off() }, true);
    };
    let Assigned { addresses, gateway, has_default, our_address, host_primary } = assigned;
    let one = |it: &Option<IpAddr>| it.and_then(&typed);
    let addresses = addresses.iter().filter_map(|it| {
        let prefix = Prefix::new(typed(it.prefix.address())?, it.prefix.bits()).ok()?;
        Some(AssignedAddress { prefix, deprecated: it.deprecated })
    });
    let (addresses, whole) = Bounded::truncated(addresses);
    let leaving = wishes.leaving.get(family).iter().copied().filter_map(&typed);
    let (leaving, _) = Bounded::truncated(leaving);
    let (present, seen) = Bounded::truncated(namespace.reachable_at(family).filter_map(&typed));
    let snapshot = FamilySnapshot {
        state,
        assigned: addresses,
        default_route: *has_default,
        present,
        gateway: one(gateway),
        our_address: one(our_address),
        host_primary: one(host_primary),
        leaving,
    };
    (snapshot, whole == Completeness::Complete && seen == Completeness::Complete)
}

#[cfg(test)]
mod tests;
