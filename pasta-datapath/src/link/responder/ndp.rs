//! Neighbour discovery (RFC 4861, section 7.2): as ARP, of IPv6. Router discovery is in [`super::ra`].
//!
//! Every target but the namespace's own addresses is answered for, with the router and override flags set
//! ([`Neighbours`]). Limits: none but those of the link, for nothing is kept of a question.

use super::ra::ALL_NODES;
use crate::link::neighbour::Neighbours;
use crate::link::writer::{FrameDevice, FrameWriter, Path};
use crate::wire::ip::{PROTOCOL_ICMPV6, ipv6_header};
use crate::wire::{ethernet, icmp};
use pasta_ipc::types::MacAddr;
use std::net::{Ipv6Addr, SocketAddr};

/// Whether a solicitation is to be answered: not a probe for duplicates (from the unspecified address, RFC 4862,
/// section 5.4), nor one for an address of the namespace.
pub fn is_answered(neighbours: &Neighbours, source: Ipv6Addr, target: Ipv6Addr) -> bool {
    !source.is_unspecified() && source != target && !neighbours.is_own(target.into())
}

/// Tells the asker at `source` and `mac` that a target is at its link-layer address, in its name.
pub fn reply<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    mac: MacAddr,
    source: Ipv6Addr,
    (target, target_mac): (Ipv6Addr, MacAddr),
) -> bool {
    let (from, to) = (SocketAddr::from((target, 0)), SocketAddr::from((source, 0)));
    let path = Path::new(target_mac, mac, PROTOCOL_ICMPV6, from, to);
    let octets = icmp::neighbour_advertisement(target, source, target, target_mac);
    tap.write_icmp(&path, &octets, &[])
}

/// Asks those who listen to the group of `target` who has it, as `source` at `mac`.
pub fn ask<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    (source, mac): (Ipv6Addr, MacAddr),
    target: Ipv6Addr,
) -> bool {
    let group = icmp::solicited_node(target);
    let octets = icmp::neighbour_solicitation(source, mac, target);
    send_to_group(tap, (source, mac), group, &octets)
}

/// Tells everybody that `address` is at `mac`, in its name and unasked (RFC 4861, section 7.2.6).
pub fn announce<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    address: Ipv6Addr,
    mac: MacAddr,
) -> bool {
    let octets = icmp::neighbour_advertisement(address, ALL_NODES, address, mac);
    send_to_group(tap, (address, mac), ALL_NODES, &octets)
}

fn send_to_group<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    (source, mac): (Ipv6Addr, MacAddr),
    group: Ipv6Addr,
    octets: &[u8; icmp::NEIGHBOUR_LEN],
) -> bool {
    let link = ethernet::header(ethernet::multicast(group), mac, ethernet::TYPE_IPV6);
    let network = ipv6_header(source, group, PROTOCOL_ICMPV6, icmp::NEIGHBOUR_LEN as u16);
    tap.write_complete(&[&link, &network, octets])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::neighbour::testing::{OTHER6, OWN6, neighbours};

    #[test]
    fn all_but_the_namespaces_own_addresses_and_probes_are_answered() {
        let answers = |source, target| is_answered(&neighbours(), source, target);
        assert!(answers(OWN6, OTHER6));
        assert!(!answers(Ipv6Addr::UNSPECIFIED, OTHER6));
        assert!(!answers(OTHER6, OWN6));
    }
}
