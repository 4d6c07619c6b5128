//! ARP (RFC 826): who asks for an address learns where it is, the namespace is asked for its own, and learns when an
//! address is elsewhere than it was answered.
//!
//! Every address but the namespace's own is answered for, on the link or not, probes included ([`Neighbours`]).
//! Limits: none but those of the link, for nothing is kept of a question.

use crate::link::neighbour::Neighbours;
use crate::link::writer::{FrameDevice, FrameWriter};
use crate::wire::{arp, ethernet};
use pasta_ipc::types::MacAddr;
use std::net::Ipv4Addr;

/// Whether a request is to be answered: not an announcement (RFC 5227, section 3), nor one for an address of the
/// namespace, whose probes must find nobody.
pub fn is_answered(neighbours: &Neighbours, request: &arp::Request) -> bool {
    request.sender != request.target && !neighbours.is_own(request.target.into())
}

/// Tells the asker of `request` that the address is at `mac`, in its name. Frames to there come to us
/// all the same.
pub fn reply<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    request: &arp::Request,
    mac: MacAddr,
) -> bool {
    let to = request.sender_mac.octets();
    let header = ethernet::header(to, mac, ethernet::TYPE_ARP);
    tap.write_complete(&[&header, &arp::reply(request, mac)])
}

/// Asks everybody who has `target`, as `sender` at `mac`.
pub fn ask<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    (sender, mac): (Ipv4Addr, MacAddr),
    target: Ipv4Addr,
) -> bool {
    let header = ethernet::header(ethernet::BROADCAST, mac, ethernet::TYPE_ARP);
    tap.write_complete(&[&header, &arp::request(mac, sender, target)])
}

/// Tells everybody that `address` is at `mac`, in its name and unasked (RFC 5227, section 3).
pub fn announce<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    address: Ipv4Addr,
    mac: MacAddr,
) -> bool {
    ask(tap, (address, mac), address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::neighbour::testing::{OTHER, OWN, neighbours};

    #[test]
    fn all_but_the_namespaces_own_addresses_and_announcements_are_answered() {
        let answers = |sender, target| {
            let sender_mac = MacAddr::OURS_BY_DEFAULT;
            is_answered(&neighbours(), &arp::Request { sender_mac, sender, target })
        };
        assert!(answers(OWN, OTHER));
        assert!(answers(Ipv4Addr::UNSPECIFIED, OTHER), "a probe for our address");
        assert!(!answers(Ipv4Addr::UNSPECIFIED, OWN), "a probe for its own");
        assert!(!answers(OTHER, OTHER), "an announcement");
    }
}
