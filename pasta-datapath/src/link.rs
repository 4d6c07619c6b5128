#![forbid(unsafe_code)]
//! What happens on the link and needs no host socket: parsing and classification, ARP and NDP, ICMP errors,
//! and the frames that are written.

pub mod answers;
pub mod classify;
pub mod icmp_error;
pub mod neighbour;
pub mod reachability;
pub mod reassembly;
pub mod responder;
pub mod tx_window;
pub mod writer;

use crate::counters::{Counters, DropReason};
use crate::flow::refuse::send_error;
use crate::nat::Nat;
use crate::time::Instant;
use crate::wire::window::Mss;
use crate::wire::{arp, ethernet};
use answers::Answers;
use icmp_error::Unreachable;
use neighbour::Neighbours;
use pasta_ipc::types::{Family, MacAddr, Mtu, NeighbourSnapshot, NetworkSnapshot, Service};
use reassembly::Reassembly;
use responder::ra::RouterAdvertiser;
use responder::{Responder, dhcpv4, dhcpv6, ndp, ra};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use writer::{FrameDevice, FrameWriter};

/// Our end of the link.
#[derive(Debug)]
pub struct Link<D> {
    /// What frames are read from and written to.
    pub device: D,
    /// Our link-layer address.
    pub our_mac: MacAddr,
    /// Who is where on the link.
    pub neighbours: Neighbours,
    /// What was said of them.
    answers: Answers,
    /// The tap's MTU.
    pub mtu: Mtu,
    /// What the namespace asks for itself.
    pub responder: Responder,
    /// Fragments that wait for others.
    pub reassembly: Reassembly,
}

impl<D> Link<D> {
    /// Our end of the link that `device` is; the namespace's is at `namespace_mac`.
    pub fn new(device: D, our_mac: MacAddr, namespace_mac: MacAddr) -> Self {
        let (neighbours, mtu) = (Neighbours::new(namespace_mac), Mtu::DEFAULT);
        let (responder, reassembly) = (Responder::of_neighbours(), Reassembly::default());
        let answers = Answers::new();
        Self { device, our_mac, neighbours, answers, mtu, responder, reassembly }
    }

    /// Lends what frames are written with.
    pub fn writer<'a>(&'a mut self, counters: &'a mut Counters) -> FrameWriter<'a, D> {
        FrameWriter { device: &mut self.device, our_mac: self.our_mac, counters }
    }

    /// The largest segment that fits the tap, for the family of `peer`.
    pub fn mss(&self, peer: IpAddr) -> Mss {
        Mss::fitting(self.mtu.get(), peer)
    }

    /// The link-layer address that the namespace learns for `address`: ours for what a mapping leads
    /// to the host, and where nothing is known.
    fn mac_at(&self, nat: &Nat, address: IpAddr) -> MacAddr {
        let known = |it: IpAddr| {
            if nat.is_mapped(it) { Some(self.our_mac) } else { self.neighbours.mac_of(it) }
        };
        let gateway = nat.gateway(address);
        known(address).or_else(|| known(gateway?)).unwrap_or(self.our_mac)
    }

    /// Where a question says that it comes from if its sender is `ours`, for the namespace notes that.
    /// None where that would be wrong: the address is the namespace's own, or that of a router in front
    /// of the host which the host does not know, or has not published yet.
    fn sender_mac(&self, nat: &Nat, ours: IpAddr) -> Option<MacAddr> {
        let is_router = nat.gateway(ours) == Some(ours) && !nat.is_mapped(ours);
        let is_unknown = is_router && self.neighbours.mac_of(ours).is_none();
        (!self.neighbours.is_own(ours) && !is_unknown).then(|| self.mac_at(nat, ours))
    }

    /// Whether neighbour discovery takes place (`--no-ndp`).
    fn has_neighbour_discovery(&self) -> bool {
        self.responder.services().ndp == Service::On
    }

    /// Whether DHCP requests are answered, and not carried as other datagrams are.
    pub fn answers_dhcp(&self, nat: &Nat) -> bool {
        let is_served = nat.serves(Ipv4Addr::UNSPECIFIED.into());
        is_served && self.responder.services().dhcp == Service::On
    }

    /// Takes in that `address` is `at` this MAC address, which `from` says.
    ///
    /// # Errors
    ///
    /// The counter, if nothing is learned.
    pub fn learn(
        &mut self,
        now: Instant,
        nat: &Nat,
        from: MacAddr,
        (address, at): (IpAddr, MacAddr),
    ) -> Result<(), DropReason> {
        let reached_at = nat.namespace_address(Family::of(address));
        if from != at || reached_at != Some(address) {
            return Err(DropReason::NeighbourNotOurs);
        }
        self.neighbours.set_namespace_mac(now, at);
        Ok(())
    }
}

impl<D: FrameDevice> Link<D> {
    /// Answers an ARP request.
    ///
    /// # Errors
    ///
    /// The counter, if it is not to be answered.
    pub fn answer_arp(
        &mut self,
        nat: &Nat,
        counters: &mut Counters,
        request: &arp::Request,
    ) -> Result<(), DropReason> {
        if !nat.serves(request.target.into()) {
            return Err(DropReason::FamilyOff);
        }
        if !responder::arp::is_answered(&self.neighbours, request) {
            return Err(DropReason::NeighbourNotOurs);
        }
        let mac = self.mac_at(nat, request.target.into());
        self.answers.note(request.target.into(), mac);
        responder::arp::reply(&mut self.writer(counters), request, mac);
        Ok(())
    }

    /// Answers a neighbour solicitation from `source` at `mac`.
    ///
    /// # Errors
    ///
    /// The counter, if it is not to be answered.
    pub fn answer_solicitation(
        &mut self,
        nat: &Nat,
        counters: &mut Counters,
        (mac, source): (MacAddr, Ipv6Addr),
        target: Ipv6Addr,
    ) -> Result<(), DropReason> {
        if !nat.serves(target.into()) {
            return Err(DropReason::FamilyOff);
        }
        if !self.has_neighbour_discovery() {
            return Err(DropReason::ProtocolOff);
        }
        if !ndp::is_answered(&self.neighbours, source, target) {
            return Err(DropReason::NeighbourNotOurs);
        }
        let target_mac = self.mac_at(nat, target.into());
        self.answers.note(target.into(), target_mac);
        let writer = &mut self.writer(counters);
        ndp::reply(writer, mac, source, (target, target_mac));
        Ok(())
    }

    /// Answers a DHCP client that has sent its request to `asked`.
    ///
    /// # Errors
    ///
    /// The counter, if it is not to be answered.
    pub fn answer_dhcp(
        &mut self,
        counters: &mut Counters,
        asked: Ipv4Addr,
        request: &[u8],
    ) -> Result<(), DropReason> {
        let mut answer = dhcpv4::answer(self.responder.offer(), asked, request)?;
        dhcpv4::send(&mut self.writer(counters), &mut answer);
        Ok(())
    }

    /// Answers a DHCPv6 client at `source` and `mac`.
    ///
    /// # Errors
    ///
    /// The counter, if it is not to be answered.
    pub fn answer_dhcpv6(
        &mut self,
        nat: &Nat,
        counters: &mut Counters,
        (mac, source): (MacAddr, Ipv6Addr),
        request: &[u8],
    ) -> Result<(), DropReason> {
        if !nat.serves(source.into()) {
            return Err(DropReason::FamilyOff);
        }
        if self.responder.services().dhcpv6 == Service::Off {
            return Err(DropReason::ProtocolOff);
        }
        if !source.is_unicast_link_local() {
            return Err(DropReason::ImpossibleSource);
        }
        let reply = dhcpv6::answer(self.responder.offer(), self.our_mac, request)?;
        let writer = &mut self.writer(counters);
        dhcpv6::send(writer, &reply, nat.our_link_local(), (mac, source));
        Ok(())
    }

    /// Answers a router solicitation from `source` at `mac`.
    ///
    /// # Errors
    ///
    /// The counter, if it is not to be answered.
    pub fn answer_router_solicitation(
        &mut self,
        now: Instant,
        nat: &Nat,
        counters: &mut Counters,
        (mac, source): (MacAddr, Ipv6Addr),
    ) -> Result<(), DropReason> {
        if !nat.serves(source.into()) {
            return Err(DropReason::FamilyOff);
        }
        if self.responder.services().router_advertisement == Service::Off {
            return Err(DropReason::ProtocolOff);
        }
        if self.responder.advertiser.solicited(now, source) {
            self.advertise_to(now, counters, (mac.octets(), source));
        }
        Ok(())
    }

    /// Sends router advertisements that are due.
    pub fn advertise(&mut self, now: Instant, counters: &mut Counters) {
        if !self.responder.advertiser.is_due(now) {
            return;
        }
        let all = (ethernet::multicast(ra::ALL_NODES), ra::ALL_NODES);
        let Self { device, our_mac, responder, .. } = self;
        let mut writer = FrameWriter { device, our_mac: *our_mac, counters };
        for former in responder.advertiser.former_routers() {
            let mut withdrawal = RouterAdvertiser::withdrawal(*our_mac);
            ra::send(&mut writer, &mut withdrawal, all.0, (*former, all.1));
        }
        self.advertise_to(now, counters, all);
        self.responder.advertiser.sent(now);
    }

    fn advertise_to(
        &mut self,
        now: Instant,
        counters: &mut Counters,
        (hardware, address): ([u8; 6], Ipv6Addr),
    ) {
        let Some((source, mut made)) = self.responder.advertiser.advertisement(now, self.our_mac)
        else {
            return;
        };
        ra::send(&mut self.writer(counters), &mut made, hardware, (source, address));
    }

    /// Takes in which addresses the namespace has, and asks who has those that are new.
    pub fn update(
        &mut self,
        now: Instant,
        nat: &Nat,
        counters: &mut Counters,
        snapshot: &NetworkSnapshot,
    ) {
        let reached_at = Family::BOTH.map(|family| nat.namespace_address(family));
        let new = self.neighbours.update(snapshot, reached_at);
        self.mtu = snapshot.mtu.unwrap_or(self.mtu);
        self.responder.update_network(now, nat, snapshot);
        self.solicit(nat, counters, &new);
        self.announce_changed(nat, counters);
    }

    /// Takes in who the template's neighbours are.
    pub fn learn_neighbours(
        &mut self,
        nat: &Nat,
        counters: &mut Counters,
        snapshot: &NeighbourSnapshot,
    ) {
        self.neighbours.learn(snapshot);
        self.announce_changed(nat, counters);
    }

    /// Announces addresses that are elsewhere than the namespace has learned.
    fn announce_changed(&mut self, nat: &Nat, counters: &mut Counters) {
        let mut answers = std::mem::take(&mut self.answers);
        let changed = answers.update(|address| {
            let answered = nat.serves(address) && !self.neighbours.is_own(address);
            answered.then(|| self.mac_at(nat, address))
        });
        self.answers = answers;
        let writer = &mut self.writer(counters);
        for (address, mac) in changed {
            match address {
                IpAddr::V4(address) => responder::arp::announce(writer, address, mac),
                IpAddr::V6(address) => ndp::announce(writer, address, mac),
            };
        }
    }

    /// Asks who has an address that does not answer, if that is due.
    pub fn ask_due(&mut self, now: Instant, nat: &Nat, counters: &mut Counters) {
        while let Some(address) = self.neighbours.reachability.next_question(now) {
            self.solicit(nat, counters, &[address]);
        }
    }

    /// Gives up packets whose fragments have not come in time, and tells their senders so.
    pub fn give_up_fragments(&mut self, now: Instant, nat: &Nat, counters: &mut Counters) {
        while let Some(partial) = self.reassembly.next_expired(now) {
            (0..partial.len()).for_each(|_| counters.drop(DropReason::FragmentsLate));
            if let Some(offending) = partial.offending() {
                let writer = &mut self.writer(counters);
                send_error(writer, nat, partial.mac(), &offending, Unreachable::FRAGMENTS_LATE);
            }
            self.reassembly.keep_buffers(partial);
        }
    }

    /// Asks who has each of `addresses`, which are the namespace's.
    fn solicit(&mut self, nat: &Nat, counters: &mut Counters, addresses: &[IpAddr]) {
        for address in addresses.iter().filter(|it| nat.serves(**it)) {
            match *address {
                IpAddr::V4(target) => {
                    let ours = match nat.our_address(*address) {
                        Some(IpAddr::V4(ours)) => {
                            self.sender_mac(nat, ours.into()).map(|it| (ours, it))
                        }
                        _ => None,
                    };
                    // From nobody (RFC 5227, section 2.1.1) is a question too.
                    let nobody = (Ipv4Addr::UNSPECIFIED, self.our_mac);
                    let writer = &mut self.writer(counters);
                    responder::arp::ask(writer, ours.unwrap_or(nobody), target);
                }
                IpAddr::V6(_) if !self.has_neighbour_discovery() => {}
                IpAddr::V6(target) => {
                    let source = nat.our_link_local();
                    // From nobody would be looking for a duplicate.
                    if let Some(mac) = self.sender_mac(nat, source.into()) {
                        let writer = &mut self.writer(counters);
                        ndp::ask(writer, (source, mac), target);
                    }
                }
            }
        }
    }
}
