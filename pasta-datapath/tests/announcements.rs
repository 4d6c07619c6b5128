//! The namespace learns when an address that it has asked for is elsewhere.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which a failure ends")]

mod fake;

use fake::Socket;
use fake::rig::{OURS, Rig, mac, policy};
use pasta_datapath::control::PeerMessage;
use pasta_datapath::link::classify::{Content, Framing, classify};
use pasta_datapath::nat::Nat;
use pasta_datapath::wire::{arp, ethernet, icmp, ip, vnet};
use pasta_ipc::start::{FamilyPolicy, HostLoopback};
use pasta_ipc::types::{Bounded, Generation, MacAddr, NeighbourEntry, NeighbourSnapshot, Service};
use std::net::IpAddr;

const HERE: [&str; 2] = ["192.0.2.7", "2001:db8::7"];
const ROUTERS: [&str; 2] = ["192.0.2.1", "fe80::1"];
const OTHERS: [&str; 2] = ["192.0.2.9", "2001:db8::9"];

fn at(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace with these addresses, whose router is mapped to the host's loopback, or is not.
fn rig(loopback: Service) -> Rig {
    fn of<A>(loopback: Service) -> FamilyPolicy<A> {
        match loopback {
            Service::On => policy(Service::On),
            Service::Off => {
                FamilyPolicy { host_loopback: HostLoopback::None, ..policy(Service::On) }
            }
        }
    }
    let mut rig = Rig::<Socket>::with(Nat::new(of(loopback), of(loopback)), 64);
    rig.has(&HERE[..1], &HERE[1..]);
    rig.received();
    rig
}

/// The namespace asks for `target`; gives the frames that come back.
fn ask(rig: &mut Rig, target: &str) -> Vec<Vec<u8>> {
    let frame = match (at(target), HERE.map(at)) {
        (IpAddr::V4(target), [IpAddr::V4(sender), _]) => {
            let header = ethernet::header(ethernet::BROADCAST, mac(1), ethernet::TYPE_ARP);
            [&header[..], &arp::request(mac(1), sender, target)].concat()
        }
        (IpAddr::V6(target), [_, IpAddr::V6(source)]) => {
            let group = icmp::solicited_node(target);
            let header = ethernet::header(ethernet::multicast(group), mac(1), ethernet::TYPE_IPV6);
            let len = icmp::NEIGHBOUR_LEN as u16;
            let packet = ip::ipv6_header(source, group, ip::PROTOCOL_ICMPV6, len);
            let message = icmp::neighbour_solicitation(source, mac(1), target);
            [&header[..], &packet, &message].concat()
        }
        other => panic!("{other:?}"),
    };
    rig.frames(&[[&vnet::COMPLETE[..], &frame].concat()]);
    rig.received()
}

/// The host has these neighbours now; gives what is announced.
fn known(rig: &mut Rig, neighbours: &[(&str, MacAddr)]) -> Vec<(IpAddr, MacAddr)> {
    let entries = neighbours.iter().map(|(it, mac)| NeighbourEntry { address: at(it), mac: *mac });
    let entries = Bounded::truncated(entries).0;
    let known = NeighbourSnapshot { generation: Generation(1), entries };
    rig.message(PeerMessage::Neighbours(Box::new(known)));
    rig.received().iter().map(|octets| announced(octets)).collect()
}

/// What an announcement to everybody says.
fn announced(octets: &[u8]) -> (IpAddr, MacAddr) {
    let to = &octets[vnet::LEN..vnet::LEN + 6];
    let frame = classify(octets, Framing::Vnet).unwrap();
    match frame.content {
        Content::Arp(request) => {
            assert_eq!((request.sender, to), (request.target, &ethernet::BROADCAST[..]));
            assert_eq!(request.sender_mac, frame.mac);
            (request.sender.into(), request.sender_mac)
        }
        Content::NeighbourAnswer { address, at } => {
            assert_eq!(to, [0x33, 0x33, 0, 0, 0, 1]);
            // Router and override, not solicited.
            assert_eq!(octets[vnet::LEN + ethernet::LEN + 40 + 4], 0xa0);
            assert_eq!(at, frame.mac);
            (address, at)
        }
        other => panic!("no announcement: {other:?}"),
    }
}

#[test]
fn what_was_asked_for_is_announced_when_the_host_finds_it_elsewhere() {
    for (router, other) in ROUTERS.into_iter().zip(OTHERS) {
        let mut rig = rig(Service::Off);
        assert_eq!((ask(&mut rig, router).len(), ask(&mut rig, other).len()), (1, 1), "ours");
        // Whom the host does not know is behind the router.
        let both = |mac| [(at(router), mac), (at(other), mac)];
        assert_eq!(known(&mut rig, &[(router, mac(9))]), both(mac(9)));
        assert_eq!(known(&mut rig, &[(router, mac(9))]), [], "nothing new");
        assert_eq!(known(&mut rig, &[(router, mac(9)), (other, mac(8))]), [(at(other), mac(8))]);
        assert_eq!(known(&mut rig, &[(router, mac(7)), (other, mac(8))]), [(at(router), mac(7))]);
        assert_eq!(known(&mut rig, &[]), both(OURS));
    }
}

#[test]
fn nothing_is_announced_that_nobody_asked_for_or_that_leads_to_the_host() {
    for (router, other) in ROUTERS.into_iter().zip(OTHERS) {
        let mut silent = rig(Service::Off);
        assert_eq!(known(&mut silent, &[(router, mac(9)), (other, mac(8))]), []);
        let mut mapped = rig(Service::On);
        assert_eq!(ask(&mut mapped, router).len(), 1);
        assert_eq!(known(&mut mapped, &[(router, mac(9))]), []);
    }
}

#[test]
fn an_address_that_the_namespace_has_itself_by_now_is_not_announced() {
    for (router, other) in ROUTERS.into_iter().zip(OTHERS) {
        let mut rig = rig(Service::Off);
        assert_eq!(ask(&mut rig, other).len(), 1);
        rig.has(&[HERE[0], OTHERS[0]], &[HERE[1], OTHERS[1]]);
        rig.received();
        assert_eq!(known(&mut rig, &[(router, mac(9)), (other, mac(8))]), []);
    }
}
