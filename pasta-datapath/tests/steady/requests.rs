//! Requests that the link answers by itself, each of them as a client has sent it.

use crate::fake::rig::{family, mac, policy};
use pasta_datapath::counters::{Counters, DropReason};
use pasta_datapath::link::Link;
use pasta_datapath::link::responder::Responder;
use pasta_datapath::link::writer::{FrameDevice, ReadError};
use pasta_datapath::nat::Nat;
use pasta_datapath::time::Instant;
use pasta_datapath::wire::arp;
use pasta_ipc::start::{ClientOptions, Responders};
use pasta_ipc::types::{
    AddressLosses, Completeness, Generation, MacAddr, Mtu, NetworkSnapshot, Service, TapOffloads,
};
use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What clients have sent.
const DHCP: &[u8] = include_bytes!("../golden/dhcpcd-discover.bin");
/// For an address that is not assigned.
const REFUSED: &[u8] = include_bytes!("../golden/dhclient-request.bin");
const DHCPV6: [&[u8]; 3] = [
    include_bytes!("../golden/dhcpcd-solicit.bin"),
    include_bytes!("../golden/dhcpcd-request6.bin"),
    include_bytes!("../golden/networkd-release6.bin"),
];
const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);

/// A tap that counts frames.
#[derive(Debug, Default)]
pub(crate) struct Tap(u64);

impl FrameDevice for Tap {
    fn offloads(&self) -> TapOffloads {
        TapOffloads::TcpAndUdp
    }

    fn read(&mut self, _: &mut [u8]) -> Result<usize, ReadError> {
        Err(ReadError::WouldBlock)
    }

    fn write(&mut self, _: &[IoSlice<'_>]) -> Result<(), DropReason> {
        self.0 += 1;
        Ok(())
    }
}

/// A link whose namespace is offered addresses of both families.
pub(crate) fn link() -> (Link<Tap>, Nat, Counters) {
    let mut link = Link::new(Tap::default(), MacAddr::OURS_BY_DEFAULT, mac(1));
    link.responder = Responder::new(Responders::default(), ClientOptions::default(), 7);
    let (mut nat, mut counters) =
        (Nat::new(policy(Service::On), policy(Service::On)), Counters::default());
    let snapshot = NetworkSnapshot {
        generation: Generation(1),
        ipv4: family(&["192.0.2.7"], "192.0.2.1"),
        ipv6: family(&["2001:db8::7"], "fe80::1"),
        mtu: None,
        offered_mtu: Some(Mtu::DEFAULT),
        losses: AddressLosses(0),
        completeness: Completeness::Complete,
    };
    nat.update_network(&snapshot);
    link.update(Instant::START, &nat, &mut counters, &snapshot);
    (link, nat, counters)
}

/// Asks all there is to ask; whether each was answered.
pub(crate) fn all_answered((link, nat, counters): &mut (Link<Tap>, Nat, Counters)) -> bool {
    let before = link.device.0;
    let client = (mac(1), CLIENT);
    let (sender, target) = (Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(192, 0, 2, 1));
    let request = arp::Request { sender_mac: mac(1), sender, target };
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let answers = [
        link.answer_arp(nat, counters, &request),
        link.answer_solicitation(nat, counters, client, router),
        link.answer_router_solicitation(Instant::START, nat, counters, client),
        link.answer_dhcp(counters, Ipv4Addr::BROADCAST, DHCP),
        link.answer_dhcp(counters, Ipv4Addr::BROADCAST, REFUSED),
        link.answer_dhcpv6(nat, counters, client, DHCPV6[0]),
        link.answer_dhcpv6(nat, counters, client, DHCPV6[1]),
        link.answer_dhcpv6(nat, counters, client, DHCPV6[2]),
    ];
    answers.iter().all(Result::is_ok) && link.device.0 - before == answers.len() as u64
}
