#![forbid(unsafe_code)]
//! Addresses that leave the namespace: said to the datapath first, removed afterwards.
//!
//! A reset that is sent to an address which is no longer there is dropped, and the program that it is for waits for
//! hours. So an address that goes for good is first published as one that leaves, and is removed when the datapath
//! has said that its flows were reset, or [`PATIENCE`] later: the datapath may be gone, or taken over, and has no
//! part in whether an address goes.

use crate::net::PerFamily;
use crate::op::NamespaceOp;
use crate::plan::Plan;
use crate::time::Instant;
use pasta_ipc::types::Family;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long the datapath may take to reset flows. Chosen: a hundred times what it takes, and short enough that
/// what comes of the host's change is there in time.
const PATIENCE: Duration = Duration::from_millis(100);

/// The addresses that leave, each with the time at which it is removed; none: at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parting {
    removed_at: BTreeMap<IpAddr, Option<Instant>>,
}

impl Parting {
    /// A pass begins, which removes those that are due.
    pub fn begin(&mut self, now: Instant) {
        for at in self.removed_at.values_mut() {
            *at = at.filter(|at| now < *at);
        }
    }

    /// Puts off the removal of addresses of which the datapath does not know yet. Those that go to make room for
    /// the same address with another prefix do not leave; which these are says `stays`.
    pub fn put_off(&mut self, now: Instant, plan: &mut Plan, stays: impl Fn(IpAddr) -> bool) {
        let leaves = |op: &NamespaceOp| match op {
            NamespaceOp::RemoveAddress(address) => {
                Some(address.prefix.address()).filter(|it| !stays(*it))
            }
            _ => None,
        };
        let leaving = plan.additions.iter().chain(&plan.removals).filter_map(leaves);
        let before = std::mem::take(&mut self.removed_at);
        self.removed_at = leaving
            .map(|address| match before.get(&address) {
                Some(at) => (address, at.filter(|at| now < *at)),
                None => (address, Some(now + PATIENCE)),
            })
            .collect();
        let waits = |op: &NamespaceOp| {
            leaves(op).is_some_and(|it| matches!(self.removed_at.get(&it), Some(Some(_))))
        };
        // What comes after one of the additions that waits, waits too: it must not come before.
        if let Some(place) = plan.additions.iter().position(waits) {
            plan.additions.truncate(place);
            plan.removals.clear();
        }
        plan.without(waits);
    }

    /// The datapath has reset the flows of all of them.
    pub fn flows_were_reset(&mut self) {
        for at in self.removed_at.values_mut().flatten() {
            *at = Instant::START;
        }
    }

    /// When one is to be removed, if it was put off.
    pub fn due(&self) -> Option<Instant> {
        self.removed_at.values().flatten().min().copied()
    }

    /// The addresses, of each family.
    pub fn addresses(&self) -> PerFamily<Vec<IpAddr>> {
        PerFamily::each(|family| {
            let all = self.removed_at.keys();
            all.filter(|it| Family::of(**it) == family).copied().collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::WantedAddress;
    use crate::net::testing::{ip, net};

    fn removal(text: &str) -> NamespaceOp {
        NamespaceOp::RemoveAddress(WantedAddress::new(net(text)))
    }

    fn at(ms: u64) -> Instant {
        Instant::START + Duration::from_millis(ms)
    }

    fn plan() -> Plan {
        Plan {
            additions: vec![removal("192.0.2.9/25")],
            removals: vec![removal("169.254.2.1/16"), removal("2001:db8::7/64")],
        }
    }

    /// What of the plan is left; 192.0.2.9 is to be there with another prefix.
    fn left(parting: &mut Parting, now: Instant, mut plan: Plan) -> Vec<NamespaceOp> {
        parting.put_off(now, &mut plan, |it| it == ip("192.0.2.9"));
        [plan.additions, plan.removals].concat()
    }

    #[test]
    fn an_address_goes_when_its_flows_were_reset() {
        let mut parting = Parting::default();
        assert_eq!(left(&mut parting, at(5), plan()), [removal("192.0.2.9/25")]);
        let leaving = PerFamily { v4: vec![ip("169.254.2.1")], v6: vec![ip("2001:db8::7")] };
        assert_eq!(parting.addresses(), leaving);
        assert_eq!(parting.due(), Some(at(105)));
        assert_eq!(left(&mut parting, at(6), plan()).len(), 1, "it is not put off anew");
        assert_eq!(parting.due(), Some(at(105)));
        parting.flows_were_reset();
        assert!(parting.due().is_some_and(|due| due <= at(6)));
        parting.begin(at(6));
        assert_eq!(parting.due(), None, "a pass that fails is not made again for this");
        assert_eq!(left(&mut parting, at(7), plan()).len(), 3);
        assert_eq!((parting.due(), parting.addresses()), (None, leaving), "one that is refused");
        assert_eq!(left(&mut parting, at(8), Plan::default()).len(), 0);
        assert_eq!(parting, Parting::default());
    }

    #[test]
    fn what_comes_after_an_addition_that_waits_waits_too() {
        let mut parting = Parting::default();
        let (first, second) = (NamespaceOp::RaiseTap, NamespaceOp::PromoteSecondaries);
        let plan = || Plan {
            additions: vec![first, removal("169.254.2.1/16"), second],
            removals: vec![removal("192.0.2.9/25")],
        };
        assert_eq!(left(&mut parting, at(0), plan()), [first]);
        parting.flows_were_reset();
        assert_eq!(left(&mut parting, at(1), plan()).len(), 4);
    }

    #[test]
    fn an_address_goes_though_the_datapath_says_nothing() {
        let mut parting = Parting::default();
        assert_eq!(left(&mut parting, at(0), plan()).len(), 1);
        assert_eq!(left(&mut parting, at(99), plan()).len(), 1);
        assert_eq!(left(&mut parting, at(100), plan()).len(), 3);
    }

    #[test]
    fn an_address_that_is_wanted_again_stays_and_leaves_anew() {
        let mut parting = Parting::default();
        left(&mut parting, at(0), plan());
        left(&mut parting, at(50), Plan::default());
        assert_eq!(left(&mut parting, at(110), plan()).len(), 1);
        assert_eq!(parting.due(), Some(at(210)));
    }
}
