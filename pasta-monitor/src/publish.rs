#![forbid(unsafe_code)]
//! What the datapath needs to know: bindings, wishes and the namespace as read → [`NetworkSnapshot`].

use crate::bind::Binding;
use crate::desired::{Assigned, Desired};
use crate::namespace::NamespaceView;
use crate::net::PerFamily;
use pasta_ipc::types::{
    AddressLosses, Bounded, Completeness, Family, FamilySnapshot, FamilyState, Generation, Mtu,
    NetworkSnapshot,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The snapshot of `generation`.
pub fn snapshot(
    generation: Generation,
    bindings: &PerFamily<Binding>,
    (desired, losses): (&Desired, AddressLosses),
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
    let (ipv4, complete4) = family::<Ipv4Addr>(Family::V4, v4, bindings, desired, namespace);
    let (ipv6, complete6) = family::<Ipv6Addr>(Family::V6, v6, bindings, desired, namespace);
    let complete = complete4 && complete6 && desired.left_out == 0;
    NetworkSnapshot {
        generation,
        ipv4,
        ipv6,
        mtu: u16::try_from(namespace.tap.mtu).ok().and_then(|mtu| Mtu::try_from(mtu).ok()),
        losses,
        completeness: if complete { Completeness::Complete } else { Completeness::Truncated },
    }
}

fn family<A>(
    family: Family,
    typed: impl Fn(IpAddr) -> Option<A>,
    bindings: &PerFamily<Binding>,
    desired: &Desired,
    namespace: &NamespaceView,
) -> (FamilySnapshot<A>, bool) {
    let state = match bindings.get(family) {
        Binding::Off => return (FamilySnapshot::off(), true),
        Binding::Local => FamilyState::Local,
        Binding::Bound(_) => FamilyState::Bound,
        Binding::Held(..) => FamilyState::Held,
    };
    let Some(assigned) = desired.assigned.get(family) else {
        return (FamilySnapshot { state, ..FamilySnapshot::off() }, true);
    };
    let Assigned { addresses, gateway, our_address, host_primary } = assigned;
    let one = |it: &Option<IpAddr>| it.and_then(&typed);
    let addresses = addresses.iter().filter_map(|it| typed(it.address()));
    let (addresses, whole) = Bounded::truncated(addresses);
    let (present, seen) = Bounded::truncated(namespace.reachable_at(family).filter_map(&typed));
    let snapshot = FamilySnapshot {
        state,
        assigned: addresses,
        present,
        gateway: one(gateway),
        our_address: one(our_address),
        host_primary: one(host_primary),
    };
    (snapshot, whole == Completeness::Complete && seen == Completeness::Complete)
}

#[cfg(test)]
mod tests;
