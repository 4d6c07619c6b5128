//! DHCPv6 requests, answered under any offer, and the answers read by a second reading of RFC 8415.
//!
//! Invariants: equal requests get equal answers; an answer has the transaction, the client's identifier and
//! ours, and options that fit, those inside of associations too; it fits a packet of 1280 octets; an address
//! that may be used is assigned, and is in one association; nothing is answered where no address is.

use crate::dhcpv4::names;
use crate::input::Input;
use pasta_datapath::counters::DropReason;
use pasta_datapath::link::responder::dhcpv6::answer;
use pasta_datapath::link::responder::offer::{Ipv6Offer, Offer};
use pasta_ipc::types::{AssignedAddress, Ipv6Net, MacAddr};
use std::net::Ipv6Addr;

/// Makes an offer of the first octets, and answers the rest.
///
/// # Panics
///
/// If an answer breaks an invariant.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let offer = offer(&mut input);
    let request = input.rest();
    let mac = MacAddr::OURS_BY_DEFAULT;
    let answered = answer(&offer, mac, request);
    let again = answer(&offer, mac, request).map(|it| it.octets().to_vec());
    let reply = answered.map(|it| it.octets().to_vec());
    assert_eq!(reply, again, "equal requests, different answers");
    let reply = match reply {
        Ok(reply) => reply,
        Err(reason) => {
            return assert!(matches!(reason, DropReason::Malformed | DropReason::NotAnswered));
        }
    };
    let assigned = offer.ipv6.map_or_else(Vec::new, |it| it.addresses);
    assert!(!assigned.is_empty(), "an answer without an address to give");
    assert!(reply.len() <= 1232, "{} octets", reply.len());
    let (head, rest) = reply.split_at(4);
    assert!([2, 7].contains(&head[0]) && request.get(1..4) == head.get(1..));
    let said = options(rest);
    let ours = [&[0, 3, 0, 1][..], &mac.octets()].concat();
    assert_eq!(find(&said, 2), Some(&ours[..]));
    let asked = options(request.get(4..).unwrap_or_default());
    assert_eq!(find(&said, 1), find(&asked, 1));

    let mut usable = 0;
    for (code, value) in said.iter().filter(|(code, _)| [3, 4, 25].contains(code)) {
        let inside = options(value.get(if *code == 4 { 4 } else { 12 }..).unwrap_or_default());
        assert!(*code == 3 || inside.iter().all(|(code, _)| *code == 13));
        for (_, value) in inside.iter().filter(|(code, _)| *code == 5) {
            let (address, times) = value.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
            let address = Ipv6Addr::from(*address);
            let [preferred, valid] = [0, 4].map(|at| times.get(at..at + 4));
            assert!(preferred <= valid, "{address} is preferred longer than it is valid");
            if valid > Some(&[0; 4][..]) {
                let is_assigned = assigned.iter().any(|it| it.address() == address);
                assert!(is_assigned, "{address} is not assigned");
                usable += usize::from(preferred > Some(&[0; 4][..]));
            }
        }
    }
    assert!(usable <= 1, "{usable} addresses for new flows");
}

/// The options of a message, all of which fit where it is one of ours.
fn options(mut octets: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    while let [a, b, c, d, rest @ ..] = octets {
        let len = usize::from(u16::from_be_bytes([*c, *d]));
        assert!(rest.len() >= len, "an option does not fit");
        let (value, rest) = rest.split_at(len);
        options.push((u16::from_be_bytes([*a, *b]), value.to_vec()));
        octets = rest;
    }
    assert!(octets.is_empty(), "half an option");
    options
}

fn find(options: &[(u16, Vec<u8>)], code: u16) -> Option<&[u8]> {
    options.iter().find(|(it, _)| *it == code).map(|(_, value)| &value[..])
}

/// What hosts are offered.
pub(crate) fn offer(input: &mut Input<'_>) -> Offer {
    let addresses = (0..input.octet() % 4).filter_map(|_| {
        let (address, bits, deprecated) = (input.ipv6(), input.octet() % 129, input.bit());
        Some(AssignedAddress { prefix: Ipv6Net::new(address, bits).ok()?, deprecated })
    });
    let addresses: Vec<_> = addresses.collect();
    let ours = Ipv6Offer {
        server: input.ipv6(),
        default_router: input.bit(),
        resolvers: (0..input.octet() % 4).flat_map(|_| input.ipv6().octets()).collect(),
        lease: [u32::MAX, 60, 3600][usize::from(input.octet() % 3)],
        addresses,
    };
    let mtu = input.u16().try_into().ok();
    Offer { ipv6: Some(ours).filter(|_| input.bit()), mtu, names: names(input), ..Offer::default() }
}
