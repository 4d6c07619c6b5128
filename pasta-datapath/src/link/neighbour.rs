//! Who is where on the link: whose addresses are the namespace's own, and where those of others are.
//!
//! Where the host knows a neighbour, the namespace learns its link-layer address, so that without the
//! mapping of the gateway (`--no-map-gw`) it sees its real router; everywhere else it learns ours.
//!
//! The namespace is asked for its own addresses as they appear: its users may have given the tap another
//! link-layer address, or made it a port of a bridge. It is asked again for those that do not answer
//! ([`Reachability`]).

use crate::link::classify::is_impossible;
use crate::link::reachability::Reachability;
use crate::time::Instant;
use pasta_ipc::types::{AssignedAddress, MacAddr, NeighbourSnapshot, NetworkSnapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of one snapshot that are asked for; chosen: more than a host's interface has, and few
/// enough for the tap's queue.
const MOST_ASKED: usize = 16;

/// Who is where: every address but the namespace's own is behind us.
///
/// The C program says the same to whoever asks. It is what makes routes that name no gateway work, and addresses of
/// the link that the namespace's prefix covers, which exist on the host's side only.
#[derive(Clone, Debug)]
pub struct Neighbours {
    ipv4: Vec<Ipv4Addr>,
    ipv6: Vec<Ipv6Addr>,
    /// Those of both that were read there.
    present: BTreeSet<IpAddr>,
    /// The template's neighbours, by address.
    known: BTreeMap<IpAddr, MacAddr>,
    namespace_mac: MacAddr,
    /// Whether its addresses answer, and where.
    pub reachability: Reachability,
}

impl Neighbours {
    /// Nobody is known yet; frames for the namespace go to `namespace_mac`, the tap's.
    pub fn new(namespace_mac: MacAddr) -> Self {
        Self {
            ipv4: Vec::new(),
            ipv6: Vec::new(),
            present: BTreeSet::new(),
            known: BTreeMap::new(),
            namespace_mac,
            reachability: Reachability::default(),
        }
    }

    /// The link-layer address that flows to `address` in the namespace are sent to.
    pub fn namespace_mac(&self, address: IpAddr) -> MacAddr {
        self.reachability.mac_of(address).unwrap_or(self.namespace_mac)
    }

    /// The namespace's address is at `mac`.
    pub fn set_namespace_mac(&mut self, now: Instant, mac: MacAddr) {
        let before = std::mem::replace(&mut self.namespace_mac, mac);
        if before != mac {
            self.reachability.learn_all(now, before, mac);
        }
    }

    /// Takes in which addresses are the namespace's: those it was given and those read there. Gives
    /// those to ask for: what was not there before, and where a family has any such, also the address
    /// of `reached_at`, where the namespace is reached and which alone tells anything.
    ///
    /// An address that was only given is nobody's yet; it is asked for when it is there. Link-local
    /// ones are asked for where there is no other of the family.
    pub fn update(
        &mut self,
        snapshot: &NetworkSnapshot,
        reached_at: [Option<IpAddr>; 2],
    ) -> Vec<IpAddr> {
        let (v4, v6) = (&snapshot.ipv4, &snapshot.ipv6);
        self.ipv4 = v4.assigned.as_slice().iter().map(AssignedAddress::address).collect();
        self.ipv4.extend(v4.present.as_slice());
        self.ipv6 = v6.assigned.as_slice().iter().map(AssignedAddress::address).collect();
        self.ipv6.extend(v6.present.as_slice());
        let present = v4.present.as_slice().iter().copied().map(IpAddr::V4);
        let present: Vec<IpAddr> =
            present.chain(v6.present.as_slice().iter().copied().map(IpAddr::V6)).collect();
        let before = std::mem::replace(&mut self.present, present.iter().copied().collect());

        let is_only_kind =
            |v4| present.iter().filter(|it| it.is_ipv4() == v4).all(|it| is_link_local(*it));
        let is_worth_it =
            |it: IpAddr| !is_impossible(it) && (!is_link_local(it) || is_only_kind(it.is_ipv4()));
        let new = present.iter().copied().filter(|it| !before.contains(it) && is_worth_it(*it));
        let new: Vec<IpAddr> = new.collect();
        let has_news = |v4| new.iter().any(|it| it.is_ipv4() == v4);
        // Those first: they are within the bound whatever else is new.
        let mut asked: Vec<IpAddr> =
            reached_at.into_iter().flatten().filter(|it| has_news(it.is_ipv4())).collect();
        let others = new.iter().filter(|it| !reached_at.contains(&Some(**it)));
        asked.extend(others);
        asked.truncate(MOST_ASKED);
        asked
    }

    /// Whether `address` is one of the namespace's.
    pub fn is_own(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.contains(&address),
            IpAddr::V6(address) => self.ipv6.contains(&address),
        }
    }

    /// Takes in who the template's neighbours are.
    pub fn learn(&mut self, snapshot: &NeighbourSnapshot) {
        let entries = snapshot.entries.as_slice().iter();
        self.known = entries.map(|entry| (entry.address, entry.mac)).collect();
    }

    /// The link-layer address that `address` has on the template's link, if the host knows it.
    pub fn mac_of(&self, address: IpAddr) -> Option<MacAddr> {
        self.known.get(&address).copied()
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use pasta_ipc::types::{
        AddressLosses, Bounded, Completeness, FamilySnapshot, Generation, Prefix,
    };

    pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    pub(crate) const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
    pub(crate) const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    /// A namespace that was given one of these, and has the other.
    pub(crate) fn neighbours() -> Neighbours {
        let mut ipv4 = FamilySnapshot::off();
        ipv4.assigned = Bounded::truncated([Prefix::host(OWN).into()]).0;
        let mut ipv6 = FamilySnapshot::off();
        ipv6.present = Bounded::truncated([OWN6]).0;
        let mut neighbours = Neighbours::new(MacAddr::OURS_BY_DEFAULT);
        let (generation, completeness) = (Generation(1), Completeness::Complete);
        let losses = AddressLosses(0);
        let snapshot = NetworkSnapshot {
            generation,
            ipv4,
            ipv6,
            mtu: None,
            offered_mtu: None,
            losses,
            completeness,
        };
        neighbours.update(&snapshot, [None; 2]);
        neighbours
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{OTHER, OTHER6, OWN, OWN6, neighbours};
    use super::*;
    use pasta_ipc::types::{
        AddressLosses, Bounded, Completeness, FamilySnapshot, Generation, Prefix,
    };

    #[test]
    fn neighbours_of_the_host_are_known_as_the_newest_snapshot_has_them() {
        let mac = MacAddr::try_from([2, 0, 0, 0, 0, 9]).unwrap();
        let entry = |address: IpAddr| pasta_ipc::types::NeighbourEntry { address, mac };
        let snapshot = |addresses: &[IpAddr]| NeighbourSnapshot {
            generation: Generation(1),
            entries: Bounded::truncated(addresses.iter().map(|it| entry(*it))).0,
        };
        let mut n = neighbours();
        n.learn(&snapshot(&[OTHER.into(), OTHER6.into()]));
        assert_eq!((n.mac_of(OTHER.into()), n.mac_of(OTHER6.into())), (Some(mac), Some(mac)));
        assert_eq!(n.mac_of(OWN.into()), None);
        n.learn(&snapshot(&[OTHER6.into()]));
        assert_eq!(n.mac_of(OTHER.into()), None);
    }

    #[test]
    fn the_namespaces_own_addresses_are_those_it_was_given_and_those_it_has() {
        let n = neighbours();
        assert!(n.is_own(OWN.into()) && n.is_own(OWN6.into()));
        assert!(!n.is_own(OTHER.into()) && !n.is_own(OTHER6.into()));
    }

    /// What is asked for when `addresses` are what is there.
    fn asked(
        neighbours: &mut Neighbours,
        reached_at: [&str; 2],
        addresses: &[&str],
    ) -> Vec<String> {
        let (mut ipv4, mut ipv6) = (FamilySnapshot::off(), FamilySnapshot::off());
        ipv4.present = Bounded::truncated(addresses.iter().filter_map(|it| it.parse().ok())).0;
        ipv6.present = Bounded::truncated(addresses.iter().filter_map(|it| it.parse().ok())).0;
        let (generation, completeness) = (Generation(1), Completeness::Complete);
        let losses = AddressLosses(0);
        let snapshot = NetworkSnapshot {
            generation,
            ipv4,
            ipv6,
            mtu: None,
            offered_mtu: None,
            losses,
            completeness,
        };
        let reached_at = reached_at.map(|it| it.parse().ok());
        neighbours.update(&snapshot, reached_at).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn new_addresses_are_asked_for_and_first_where_the_namespace_is_reached() {
        let mut n = Neighbours::new(MacAddr::OURS_BY_DEFAULT);
        let reached_at = ["192.0.2.7", "2001:db8::7"];
        let mut there = vec!["192.0.2.7", "2001:db8::7"];
        assert_eq!(asked(&mut n, reached_at, &there), reached_at);
        assert_eq!(asked(&mut n, reached_at, &there), [""; 0], "nothing is new");
        there.insert(0, "192.0.2.60");
        assert_eq!(asked(&mut n, reached_at, &there), ["192.0.2.7", "192.0.2.60"]);
        there.remove(0);
        assert_eq!(asked(&mut n, reached_at, &there), [""; 0], "one that has gone");
        there.push("192.0.2.60");
        assert_eq!(asked(&mut n, reached_at, &there), ["192.0.2.7", "192.0.2.60"], "is new again");
    }

    #[test]
    fn link_local_addresses_are_asked_for_where_there_is_no_other() {
        let mut n = Neighbours::new(MacAddr::OURS_BY_DEFAULT);
        let there = ["192.0.2.7", "169.254.0.7", "fe80::7"];
        assert_eq!(asked(&mut n, ["", ""], &there), ["192.0.2.7", "fe80::7"]);
        let there = ["192.0.2.7", "169.254.0.7", "fe80::7", "fe80::8", "2001:db8::7"];
        assert_eq!(asked(&mut n, ["192.0.2.7", "2001:db8::7"], &there), ["2001:db8::7"]);
        let mut n = Neighbours::new(MacAddr::OURS_BY_DEFAULT);
        assert_eq!(asked(&mut n, ["", ""], &["127.0.0.2", "::1"]), [""; 0], "loopback");
    }

    #[test]
    fn addresses_that_were_only_given_are_not_asked_for() {
        let ipv4 = FamilySnapshot {
            assigned: Bounded::truncated([Prefix::host(OWN).into()]).0,
            ..FamilySnapshot::off()
        };
        let (generation, completeness) = (Generation(1), Completeness::Complete);
        let losses = AddressLosses(0);
        let ipv6 = FamilySnapshot::off();
        let snapshot = NetworkSnapshot {
            generation,
            ipv4,
            ipv6,
            mtu: None,
            offered_mtu: None,
            losses,
            completeness,
        };
        let mut n = Neighbours::new(MacAddr::OURS_BY_DEFAULT);
        assert!(n.update(&snapshot, [None; 2]).is_empty());
        assert_eq!(asked(&mut n, ["192.0.2.7", ""], &["192.0.2.7"]), ["192.0.2.7"]);
    }

    #[test]
    fn no_more_than_a_bounded_number_is_asked_for_at_once() {
        let there: Vec<String> = (1..=100).map(|n| format!("192.0.2.{n}")).collect();
        let there: Vec<&str> = there.iter().map(String::as_str).chain(["2001:db8::7"]).collect();
        let asked = asked(
            &mut Neighbours::new(MacAddr::OURS_BY_DEFAULT),
            ["192.0.2.99", "2001:db8::7"],
            &there,
        );
        assert_eq!(asked.len(), MOST_ASKED);
        assert_eq!(asked[..3], ["192.0.2.99", "2001:db8::7", "192.0.2.1"]);
    }
}
