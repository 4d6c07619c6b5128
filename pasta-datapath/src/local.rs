//! Responders: they answer questions on the link from state alone and never touch a socket.
//!
//! Where the host knows a neighbour, the namespace is told its link-layer address, so that without the
//! mapping of the gateway (`--no-map-gw`) it sees its real router; everywhere else it is told ours.

use crate::io::tap::{Path, Tap};
use crate::wire::ip::PROTOCOL_ICMPV6;
use crate::wire::{arp, ethernet, icmp};
use pasta_ipc::types::{MacAddr, NeighbourSnapshot, NetworkSnapshot};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Answers who has an address: every address but the namespace's own is behind us.
///
/// The C program does the same. It is what makes routes that name no gateway work, and addresses of
/// the link that the namespace's prefix covers, which exist on the host's side only.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    ipv4: Vec<Ipv4Addr>,
    ipv6: Vec<Ipv6Addr>,
    /// The template's neighbours, by address.
    known: BTreeMap<IpAddr, MacAddr>,
}

impl Neighbours {
    /// Takes in which addresses are the namespace's: those it was given and those read there.
    pub fn update(&mut self, snapshot: &NetworkSnapshot) {
        let (v4, v6) = (&snapshot.ipv4, &snapshot.ipv6);
        self.ipv4 = [v4.assigned.as_slice(), v4.present.as_slice()].concat();
        self.ipv6 = [v6.assigned.as_slice(), v6.present.as_slice()].concat();
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

    /// Whether an ARP request is to be answered: not an announcement (RFC 5227, section 3), nor one
    /// for an address of the namespace, whose probes must find nobody.
    pub fn answers_arp(&self, request: &arp::Request) -> bool {
        request.sender != request.target && !self.ipv4.contains(&request.target)
    }

    /// Whether a solicitation is to be answered: not a probe for duplicates (from the unspecified
    /// address, RFC 4862, section 5.4), nor one for an address of the namespace.
    pub fn answers_solicitation(&self, source: Ipv6Addr, target: Ipv6Addr) -> bool {
        !source.is_unspecified() && source != target && !self.ipv6.contains(&target)
    }
}

/// Tells the asker of `request` that the address is at `mac`, in its name. Frames to there come to us
/// all the same.
pub fn send_arp_reply(tap: &mut Tap, request: &arp::Request, mac: MacAddr) -> bool {
    let to = request.sender_mac.octets();
    let header = ethernet::header(to, mac, ethernet::TYPE_ARP);
    tap.write_complete(&[&header, &arp::reply(request, mac)])
}

/// Tells the asker at `source` and `mac` that a target is at its link-layer address, in its name.
pub fn send_advertisement(
    tap: &mut Tap,
    mac: MacAddr,
    source: Ipv6Addr,
    (target, target_mac): (Ipv6Addr, MacAddr),
) -> bool {
    let (from, to) = (SocketAddr::from((target, 0)), SocketAddr::from((source, 0)));
    let path = Path::new(target_mac, mac, PROTOCOL_ICMPV6, from, to);
    let octets = icmp::neighbour_advertisement(target, source, target, target_mac);
    tap.write_icmp(&path, &octets, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::types::{Bounded, Completeness, FamilySnapshot, Generation};

    const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
    const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    fn neighbours() -> Neighbours {
        let mut ipv4 = FamilySnapshot::off();
        ipv4.assigned = Bounded::truncated([OWN]).0;
        let mut ipv6 = FamilySnapshot::off();
        ipv6.present = Bounded::truncated([OWN6]).0;
        let mut neighbours = Neighbours::default();
        let (generation, completeness) = (Generation(1), Completeness::Complete);
        neighbours.update(&NetworkSnapshot { generation, ipv4, ipv6, mtu: None, completeness });
        neighbours
    }

    fn request(sender: Ipv4Addr, target: Ipv4Addr) -> arp::Request {
        arp::Request { sender_mac: MacAddr::OURS_BY_DEFAULT, sender, target }
    }

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
    fn arp_is_answered_for_all_but_the_namespaces_own_addresses() {
        let n = neighbours();
        assert!(n.answers_arp(&request(OWN, OTHER)));
        assert!(n.answers_arp(&request(Ipv4Addr::UNSPECIFIED, OTHER)), "a probe for our address");
        assert!(!n.answers_arp(&request(Ipv4Addr::UNSPECIFIED, OWN)), "a probe for its own");
        assert!(!n.answers_arp(&request(OTHER, OTHER)), "an announcement");
    }

    #[test]
    fn solicitations_are_answered_for_all_but_the_namespaces_own_addresses_and_probes() {
        let n = neighbours();
        assert!(n.answers_solicitation(OWN6, OTHER6));
        assert!(!n.answers_solicitation(Ipv6Addr::UNSPECIFIED, OTHER6));
        assert!(!n.answers_solicitation(OTHER6, OWN6));
    }
}
