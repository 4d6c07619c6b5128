#![forbid(unsafe_code)]
//! The smallest list of changes that turns what is ours in the namespace into what is desired.
//!
//! Laws, which the tests hold this to: one pass converges; a plan run again is empty; what is not ours
//! is in no plan; what replaces something is added before that is removed.
//!
//! Nothing is added that would shadow a foreign object: an address that is there already, a route with
//! the same destination and metric. While users of the namespace have a default route of a family, ours
//! is not added or changed; one that is there stays, unless it is no longer wanted.
//!
//! The tap is brought up once, with the first configuration. Afterwards that is the users' business:
//! while they have it down, the plan is empty.

use crate::desired::{
    Desired, LOCAL_ADDRESS, WantedAddress, WantedRoute, is_neighbour, neighbourhood,
};
use crate::namespace::{NamespaceView, Owner};
use crate::op::NamespaceOp;
use crate::record::AddressGeneration;
use pasta_ipc::types::Family;

/// What to do, in order. The new state is published to the datapath between the two lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is added or changed.
    pub additions: Vec<NamespaceOp>,
    /// What is taken away.
    pub removals: Vec<NamespaceOp>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.additions.is_empty() && self.removals.is_empty()
    }

    /// Leaves out what `refused` says of.
    pub fn without(&mut self, refused: impl Fn(&NamespaceOp) -> bool) {
        self.additions.retain(|op| !refused(op));
        self.removals.retain(|op| !refused(op));
    }
}

/// The smallest list of changes that turns what is ours in `namespace` into `desired`.
pub fn plan(desired: &Desired, namespace: &NamespaceView) -> Plan {
    let mut plan = Plan::default();
    if !namespace.tap.up && !desired.up {
        return plan;
    }
    let after_raising = link(desired, namespace, &mut plan.additions);
    addresses(desired, namespace, &mut plan);
    plan.additions.extend(after_raising.map(NamespaceOp::SetAddressGeneration));
    routes(desired, namespace, &mut plan);
    plan
}

/// The link itself. Returns how link-local addresses shall come about once ours is there.
///
/// Before the tap comes up the kernel is configured to make none: its own would be subject to duplicate
/// address detection, a second during which nothing can connect. We add the same one without it, and
/// set back what was there, so that the kernel makes its own if users take the link down and up.
fn link(
    desired: &Desired,
    namespace: &NamespaceView,
    ops: &mut Vec<NamespaceOp>,
) -> Option<AddressGeneration> {
    let tap = &namespace.tap;
    ops.extend(desired.mtu.filter(|mtu| u32::from(mtu.get()) != tap.mtu).map(NamespaceOp::SetMtu));
    if tap.promotes_secondaries == Some(false) {
        ops.push(NamespaceOp::PromoteSecondaries);
    }
    if !desired.up {
        return None;
    }
    let found = namespace.address_generation();
    let wanted = found.map(|mode| match (desired.ipv6, mode) {
        (false, _) => AddressGeneration::NONE,
        (true, AddressGeneration::NONE) => AddressGeneration::EUI64,
        (true, usual) => usual,
    });
    let while_raising = if tap.up { wanted } else { wanted.map(|_| AddressGeneration::NONE) };
    if while_raising != found {
        ops.extend(while_raising.map(NamespaceOp::SetAddressGeneration));
    }
    if !tap.up {
        ops.push(NamespaceOp::RaiseTap);
    }
    wanted.filter(|_| wanted != while_raising)
}

fn addresses(desired: &Desired, namespace: &NamespaceView, plan: &mut Plan) {
    let is_foreign = |wanted: &WantedAddress| {
        let same = |ip| ip == wanted.prefix.address();
        namespace.addresses.iter().any(|it| it.owner == Owner::Foreign && same(it.ip()))
    };
    for wanted in desired.addresses.iter().filter(|it| !is_foreign(it)) {
        if let Some(ours) = namespace.our_addresses().find(|ours| same_object(ours, wanted)) {
            let adjust = NamespaceOp::AdjustAddress(*wanted);
            match (ours.deprecated, wanted.deprecated) {
                (true, false) => plan.additions.push(adjust),
                (false, true) => plan.removals.push(adjust),
                _ => {}
            }
            continue;
        }
        // The kernel cannot hold both, so this one time removal comes first.
        let in_the_way = namespace.our_addresses().filter(|ours| exclude_each_other(ours, wanted));
        plan.additions.extend(in_the_way.map(NamespaceOp::RemoveAddress));
        plan.additions.push(NamespaceOp::AddAddress(*wanted));
    }
    let surplus = namespace.our_addresses().filter(|ours| {
        !desired.addresses.iter().any(|it| same_object(it, ours) || exclude_each_other(it, ours))
    });
    // While it is there, the kernel takes the address of local mode as source of new connections, which
    // would be left without an address a moment later: it goes before the default route changes.
    let replaced = |ours: &WantedAddress| {
        let family = ours.prefix.family();
        ours.prefix.address() == LOCAL_ADDRESS
            && desired.addresses.iter().any(|it| it.prefix.family() == family)
    };
    for ours in surplus {
        let ops = if replaced(&ours) { &mut plan.additions } else { &mut plan.removals };
        ops.push(NamespaceOp::RemoveAddress(ours));
    }
}

/// Whether both are the same but for being deprecated, which can be changed in place.
fn same_object(one: &WantedAddress, other: &WantedAddress) -> bool {
    (one.prefix, one.prefix_route) == (other.prefix, other.prefix_route)
}

/// Whether the kernel refuses the one while the other is there: IPv6 has an address once on a link,
/// IPv4 once with each prefix length.
fn exclude_each_other(one: &WantedAddress, other: &WantedAddress) -> bool {
    !same_object(one, other)
        && one.prefix.address() == other.prefix.address()
        && (one.prefix.family() == Family::V6 || one.prefix.bits() == other.prefix.bits())
}

fn routes(desired: &Desired, namespace: &NamespaceView, plan: &mut Plan) {
    let alike =
        |a: &WantedRoute, b: &WantedRoute| (a.destination, a.metric) == (b.destination, b.metric);
    let leave_default =
        |family| namespace.has_foreign_default(family) || *desired.leave_default.get(family);
    let is_foreign = |wanted: &WantedRoute| {
        let default = wanted.destination.is_everything();
        let mut foreign = namespace.routes.iter().filter(|it| it.owner == Owner::Foreign);
        foreign.any(|it| alike(&it.route, wanted))
            || (default && leave_default(wanted.destination.family()))
    };
    for wanted in desired.routes.iter().filter(|it| !is_foreign(it)) {
        match namespace.our_routes().find(|ours| alike(ours, wanted)) {
            Some(ours) if ours == *wanted => {}
            Some(_) => plan.additions.push(NamespaceOp::ReplaceRoute(*wanted)),
            None => plan.additions.push(NamespaceOp::AddRoute(*wanted)),
        }
    }
    // One that may not be replaced goes when what it depends on goes.
    let on_link: Vec<_> = neighbourhood(&desired.addresses, &desired.routes).collect();
    let orphaned = |ours: &WantedRoute| {
        let router = ours.gateway.filter(|it| !is_neighbour(*it, &on_link));
        ours.destination.is_everything()
            && leave_default(ours.destination.family())
            && router.is_some()
            && !desired.routes.contains(ours)
    };
    // Nor does it go because the host's own has another metric now.
    let stays = |ours: &WantedRoute| {
        ours.destination.is_everything()
            && leave_default(ours.destination.family())
            && desired.routes.iter().any(|it| it.destination == ours.destination)
    };
    // One that shares its place with the users' cannot be replaced: that would replace theirs too.
    let outdated = |ours: &WantedRoute| {
        let foreign = namespace.routes.iter().filter(|it| it.owner == Owner::Foreign);
        let shared = foreign.map(|it| &it.route).any(|it| alike(it, ours));
        shared && !desired.routes.contains(ours)
    };
    let surplus = namespace.our_routes().filter(|ours| {
        let unwanted = !desired.routes.iter().any(|it| alike(it, ours));
        (unwanted && !stays(ours)) || orphaned(ours) || outdated(ours)
    });
    // Routes go before the addresses they may depend on.
    let surplus = surplus.map(NamespaceOp::RemoveRoute).collect::<Vec<_>>();
    plan.removals.splice(0..0, surplus);
}

#[cfg(test)]
mod tests;
