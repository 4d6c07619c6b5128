//! Where the namespace is on the link: asked when it gets addresses, and learned from what it answers.
//!
//! What the host's side opens goes to this link-layer address. It begins as the tap's, and flows that
//! the namespace opens tell it too.

use super::Engine;
use crate::counters::DropReason;
use crate::link::neighbour;
use pasta_ipc::types::MacAddr;
use std::net::{IpAddr, Ipv4Addr};

impl Engine {
    /// Asks who has each of `addresses`, which are the namespace's.
    pub(super) fn solicit(&mut self, addresses: &[IpAddr]) {
        for address in addresses.iter().filter(|it| self.nat.serves(**it)) {
            match *address {
                IpAddr::V4(target) => {
                    let ours = match self.nat.our_address(*address) {
                        Some(IpAddr::V4(ours)) => self.sender_mac(ours.into()).map(|it| (ours, it)),
                        _ => None,
                    };
                    // From nobody (RFC 5227, section 2.1.1) is a question too.
                    let nobody = (Ipv4Addr::UNSPECIFIED, self.link.our_mac);
                    neighbour::send_arp_request(
                        &mut self.link.writer(&mut self.counters),
                        ours.unwrap_or(nobody),
                        target,
                    );
                }
                IpAddr::V6(target) => {
                    let source = self.nat.our_link_local();
                    // From nobody would be looking for a duplicate.
                    if let Some(mac) = self.sender_mac(source.into()) {
                        neighbour::send_solicitation(
                            &mut self.link.writer(&mut self.counters),
                            (source, mac),
                            target,
                        );
                    }
                }
            }
        }
    }

    /// Where a question says that it comes from if its sender is `ours`, for the namespace notes that.
    /// None where that would be wrong: the address is the namespace's own, or that of a router in front
    /// of the host which the host does not know, or has not published yet.
    fn sender_mac(&self, ours: IpAddr) -> Option<MacAddr> {
        let is_router = self.nat.gateway(ours) == Some(ours) && !self.nat.is_mapped(ours);
        let is_unknown = is_router && self.neighbours.mac_of(ours).is_none();
        (!self.neighbours.is_own(ours) && !is_unknown).then(|| self.mac_at(ours))
    }

    /// Takes in that `address` is `at` this MAC address, which `from` says.
    pub(super) fn learn_namespace_mac(
        &mut self,
        from: MacAddr,
        address: IpAddr,
        at: MacAddr,
    ) -> Result<(), DropReason> {
        let reached_at = self.nat.namespace_address(address.is_ipv4());
        if from != at || reached_at != Some(address) {
            return Err(DropReason::NeighbourNotOurs);
        }
        self.neighbours.set_namespace_mac(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Monitor, PeerMessage, Supervisor};
    use crate::engine::PortForwarding;
    use crate::link::Link;
    use crate::link::classify::{Content, Framing, classify};
    use crate::link::neighbour::Neighbours;
    use crate::link::writer::MAX_FRAME;
    use crate::nat::Nat;
    use crate::nat::inbound::LocalPolicy;
    use crate::sys::fd_budget::FdBudget;
    use crate::sys::tap::Tap;
    use crate::time::Instant;
    use crate::wire::{arp, ethernet, icmp, ip};
    use nix::errno::Errno;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use pasta_ipc::forward::{LoopbackTarget, SocketFamily, Splice};
    use pasta_ipc::types::{
        AddressLosses, Bounded, Completeness, FamilyPolicy, FamilySnapshot, FamilyState,
        Generation, HostLoopback, IfName, NeighbourEntry, NeighbourSnapshot, NetworkSnapshot,
        Service, TapInfo, TapOffloads,
    };
    use std::net::Ipv6Addr;
    use std::os::fd::OwnedFd;

    const OURS: MacAddr = MacAddr::OURS_BY_DEFAULT;
    const ROUTER: &str = "192.0.2.1";
    const HERE: &str = "192.0.2.7";
    const HERE6: &str = "2001:db8::7";

    fn mac(last: u8) -> MacAddr {
        MacAddr::try_from([2, 0, 0, 0, 0, last]).unwrap()
    }

    fn ip<A: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> A {
        text.parse().unwrap()
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_NONBLOCK;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
    }

    /// An engine, and the far ends of its tap and of its channels.
    struct Rig {
        engine: Engine,
        namespace: OwnedFd,
        _peers: [OwnedFd; 2],
        generation: u64,
    }

    impl Rig {
        /// The tap's own address ends in 1.
        fn new(ipv6: Service) -> Self {
            Self::with(Nat::new(policy(Service::On), policy(ipv6)))
        }

        fn with(nat: Nat) -> Self {
            let ((tap, namespace), (supervisor, s), (monitor, m)) = (pair(), pair(), pair());
            let name = IfName::try_from("tap0".to_owned()).unwrap();
            let info = TapInfo { name, mac: mac(1), offloads: TapOffloads::None };
            let tap = Link::new(Tap::new(tap, &info), OURS);
            let supervisor = Supervisor::handshake(supervisor).unwrap();
            let monitor = Monitor::handshake(monitor).unwrap();
            let local = LocalPolicy { splice: Splice::On, loopback: LoopbackTarget::Address };
            let ports = PortForwarding::new(local, SocketFamily::Both);
            let budget = FdBudget::new(64);
            let engine = Engine::new(
                tap,
                supervisor,
                monitor,
                nat,
                Neighbours::new(mac(1)),
                ports,
                budget,
                64,
            );
            let Ok(engine) = engine else { panic!("no engine") };
            Self { engine, namespace, _peers: [s, m], generation: 0 }
        }

        /// Has the engine hear that these addresses are there.
        fn has(&mut self, ipv4: &[&str], ipv6: &[&str]) {
            self.generation += 1;
            let snapshot = NetworkSnapshot {
                generation: Generation(self.generation),
                ipv4: family(ipv4, ROUTER),
                ipv6: family(ipv6, "fe80::1"),
                mtu: None,
                losses: AddressLosses(0),
                completeness: Completeness::Complete,
            };
            self.engine.handle_message(PeerMessage::Network(Box::new(snapshot)));
        }

        /// The next question on the tap: who asks, with which address, for what.
        fn asked(&self) -> Option<(MacAddr, IpAddr, IpAddr)> {
            let mut octets = vec![0; MAX_FRAME];
            let len = match nix::unistd::read(&self.namespace, &mut octets) {
                Err(Errno::EAGAIN) => return None,
                read => read.unwrap(),
            };
            let frame = classify(&octets[..len], Framing::Plain).unwrap();
            match frame.content {
                Content::Arp(request) => {
                    assert_eq!(request.sender_mac, frame.mac);
                    Some((frame.mac, request.sender.into(), request.target.into()))
                }
                Content::NeighbourSolicitation { source, target } => {
                    Some((frame.mac, source.into(), target.into()))
                }
                other => panic!("no question: {other:?}"),
            }
        }

        /// The namespace says, in a frame `from` there, that `address` is `at` this MAC address. Gives whom the
        /// engine sends to then.
        fn answers(&mut self, from: MacAddr, address: &str, at: MacAddr) -> MacAddr {
            let octets = match ip(address) {
                IpAddr::V4(sender) => {
                    let target = ip(ROUTER);
                    let asked = arp::Request { sender_mac: OURS, sender: target, target: sender };
                    let header = ethernet::header(OURS.octets(), from, ethernet::TYPE_ARP);
                    [&header[..], &arp::reply(&asked, at)].concat()
                }
                IpAddr::V6(target) => {
                    let (to, len): (Ipv6Addr, _) = (ip("fe80::1"), icmp::NEIGHBOUR_LEN as u16);
                    let header = ethernet::header(OURS.octets(), from, ethernet::TYPE_IPV6);
                    let packet = ip::ipv6_header(target, to, ip::PROTOCOL_ICMPV6, len);
                    let message = icmp::neighbour_advertisement(target, to, target, at);
                    [&header[..], &packet, &message].concat()
                }
            };
            nix::unistd::write(&self.namespace, &octets).unwrap();
            self.engine.read_tap(Instant::START).unwrap();
            self.engine.neighbours.namespace_mac()
        }

        fn not_ours(&self) -> u64 {
            self.engine.counters.dropped(DropReason::NeighbourNotOurs)
        }
    }

    fn policy<A>(service: Service) -> FamilyPolicy<A> {
        FamilyPolicy {
            service,
            host_loopback: HostLoopback::Gateway,
            guest_address: None,
            dns_forward: None,
            dns_host: None,
            outbound: None,
            outbound_interface: None,
        }
    }

    fn family<A: std::str::FromStr<Err: std::fmt::Debug> + Clone>(
        addresses: &[&str],
        router: &str,
    ) -> FamilySnapshot<A> {
        let addresses: Vec<A> = addresses.iter().map(|it| ip(it)).collect();
        FamilySnapshot {
            state: FamilyState::Bound,
            assigned: Bounded::truncated(addresses.iter().take(1).cloned()).0,
            present: Bounded::truncated(addresses).0,
            gateway: Some(ip(router)),
            our_address: Some(ip(router)),
            host_primary: None,
        }
    }

    #[test]
    fn namespace_is_asked_when_it_has_new_addresses_and_its_answer_counts() {
        let mut rig = Rig::new(Service::On);
        rig.has(&[HERE], &[HERE6]);
        assert_eq!(rig.asked(), Some((OURS, ip(ROUTER), ip(HERE))));
        assert_eq!(rig.asked(), Some((OURS, ip("fe80::1"), ip(HERE6))));
        assert_eq!(rig.asked(), None);
        assert_eq!(rig.answers(mac(2), HERE, mac(2)), mac(2));
        assert_eq!(rig.answers(mac(3), HERE6, mac(3)), mac(3));

        rig.has(&[HERE, "192.0.2.60"], &[HERE6]);
        assert_eq!(rig.asked(), Some((OURS, ip(ROUTER), ip(HERE))));
        assert_eq!(rig.asked(), Some((OURS, ip(ROUTER), ip("192.0.2.60"))));
        rig.has(&[HERE, "192.0.2.60"], &[HERE6]);
        assert_eq!(rig.asked(), None, "nothing is new");
        assert_eq!(rig.not_ours(), 0);
    }

    #[test]
    fn answers_of_others_and_in_the_name_of_others_are_counted_drops() {
        let mut rig = Rig::new(Service::On);
        assert_eq!(rig.answers(mac(2), HERE, mac(2)), mac(1), "nothing is known yet");
        rig.has(&[HERE, "192.0.2.60"], &[HERE6, "fe80::77"]);
        for (from, address, at) in [
            (mac(2), HERE, mac(3)),
            (mac(2), HERE6, mac(3)),
            (mac(2), "192.0.2.9", mac(2)),
            (mac(2), "192.0.2.60", mac(2)),
            (mac(2), "fe80::77", mac(2)),
        ] {
            assert_eq!(rig.answers(from, address, at), mac(1), "{address}");
        }
        assert_eq!(rig.not_ours(), 6);
    }

    #[test]
    fn family_that_is_off_is_neither_asked_nor_heard() {
        let mut rig = Rig::new(Service::Off);
        rig.has(&[HERE], &[HERE6]);
        assert_eq!(rig.asked(), Some((OURS, ip(ROUTER), ip(HERE))));
        assert_eq!(rig.asked(), None);
        assert_eq!(rig.answers(mac(2), HERE6, mac(2)), mac(1));
    }

    #[test]
    fn addresses_that_the_namespace_has_taken_from_us_are_not_asked_from() {
        let mut rig = Rig::new(Service::On);
        rig.has(&[HERE, ROUTER], &[HERE6, "fe80::1"]);
        let nobody = ip("0.0.0.0");
        assert_eq!(rig.asked(), Some((OURS, nobody, ip(HERE))));
        assert_eq!(rig.asked(), Some((OURS, nobody, ip(ROUTER))));
        assert_eq!(rig.asked(), None);
    }

    #[test]
    fn router_that_is_not_mapped_is_never_said_to_be_at_our_station() {
        let ipv4 = FamilyPolicy { host_loopback: HostLoopback::None, ..policy(Service::On) };
        let ipv6 = FamilyPolicy { host_loopback: HostLoopback::None, ..policy(Service::On) };
        let mut rig = Rig::with(Nat::new(ipv4, ipv6));
        rig.has(&[HERE], &[HERE6]);
        assert_eq!(rig.asked(), Some((OURS, ip("0.0.0.0"), ip(HERE))));
        assert_eq!(rig.asked(), None);

        let entries = [ROUTER, "fe80::1"].map(|it| NeighbourEntry { address: ip(it), mac: mac(9) });
        let entries = Bounded::truncated(entries).0;
        let known = NeighbourSnapshot { generation: Generation(1), entries };
        rig.engine.handle_message(PeerMessage::Neighbours(Box::new(known)));
        rig.has(&["192.0.2.60"], &["2001:db8::60"]);
        assert_eq!(rig.asked(), Some((mac(9), ip(ROUTER), ip("192.0.2.60"))));
        assert_eq!(rig.asked(), Some((mac(9), ip("fe80::1"), ip("2001:db8::60"))));
    }
}
