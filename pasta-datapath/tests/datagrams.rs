//! Flows of datagrams through the whole stack, without a descriptor: whose socket carries them, and how long they
//! live.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which a failure ends")]

mod fake;

use fake::rig::{HERE, HERE6, Rig, came, datagram, echo_request, key, opened, policy, rule};
use fake::{Shared, Socket, State};
use nix::errno::Errno;
use pasta_datapath::control::PeerMessage;
use pasta_datapath::counters::DropReason;
use pasta_datapath::flow::datagram::QueuedError;
use pasta_datapath::flow::{FlowKey, Readiness, Side};
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::port_forward::listeners::DatagramAddresses;
use pasta_datapath::token::Token;
use pasta_datapath::wire::{ethernet, vnet};
use pasta_ipc::DatapathToMonitor;
use pasta_ipc::port_forward::{Direction, Effort, FamilyPorts, PortSide, PortSnapshot};
use pasta_ipc::start::FamilyPolicy;
use pasta_ipc::types::{Family as IpFamily, Generation, IfName, Service, Transport};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

/// A query for the root's name servers, and the answer, as far as anybody looks.
const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01";
const ANSWER: &[u8] = b"\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01";
/// The first messages of WireGuard, cut short.
const HANDSHAKE: &[u8] = b"\x01\x00\x00\x00\x5b\xe1\x17\x33\x9c\x9c\x9c\x9c\x9c\x9c\x9c\x9c\x9c";
const RESPONSE: &[u8] = b"\x02\x00\x00\x00\x5b\xe1\x17\x34\x9c\x9c\x9c\x9c\x9c\x9c\x9c\x9c\x9c";

/// A tunnel over port 53 is idle for 179 s and goes on; an answered query is over after 10 s.
const LIVES: [(&[u8], &[u8], u64); 2] = [(HANDSHAKE, RESPONSE, 179), (QUERY, ANSWER, 9)];

fn udp(namespace: &str, remote: &str) -> FlowKey {
    key(Protocol::Udp, namespace, remote)
}

/// The listener that was opened as number `n`.
fn listener(rig: &mut Rig, n: usize) -> Shared<State> {
    Rc::clone(&rig.stack.sockets().listeners[n].1)
}

/// A listener of the host that leads to port 53 of the namespace.
fn to_port_53(rig: &mut Rig) -> Shared<State> {
    rig.message(rule(Direction::Inbound, Transport::Udp, (5300, 53), Effort::Explicit));
    listener(rig, 0)
}

fn from(peer: &str, local: &str) -> DatagramAddresses {
    DatagramAddresses { peer: peer.parse().unwrap(), local: local.parse().unwrap() }
}

/// The monitor gives the socket that is asked for next, if any is.
fn given(rig: &mut Rig) -> Option<Shared<State>> {
    let request = match rig.stack.next_request()? {
        DatapathToMonitor::SocketsWanted { request, .. }
        | DatapathToMonitor::ListenerWanted { request, .. } => request,
        DatapathToMonitor::Hello(_) | DatapathToMonitor::FlowsReset { .. } => return None,
    };
    let (socket, state) = Socket::new();
    rig.message(PeerMessage::Sockets(request, vec![socket]));
    Some(state)
}

fn flows(rig: &mut Rig) -> usize {
    rig.stack.flows().table.len()
}

/// The only flow lives for so many seconds, and no longer.
fn lives(rig: &mut Rig, seconds: u64) {
    rig.wait(Duration::from_secs(seconds));
    assert_eq!(flows(rig), 1, "ended within {seconds} s");
    rig.wait(Duration::from_secs(1));
    assert_eq!(flows(rig), 0, "lives longer than {seconds} s");
}

#[test]
fn flow_of_the_namespace_to_port_53_ends_soon_only_if_it_is_an_exchange() {
    for (remote, here) in
        [("198.51.100.1:53", "192.0.2.7:1024"), ("[2001:db8:1::1]:53", "[2001:db8::7]:1024")]
    {
        for (first, second, seconds) in LIVES {
            let mut rig = Rig::new();
            rig.frames(&[datagram(&udp(here, remote), first)]);
            let socket = opened(&mut rig, 0);
            socket.borrow_mut().datagrams.push_back(second.to_vec());
            rig.event(&socket, Readiness::READABLE);
            lives(&mut rig, seconds);
        }
    }
}

#[test]
fn flow_from_the_host_to_port_53_ends_soon_only_if_it_is_an_exchange() {
    for (first, second, seconds) in LIVES {
        let mut rig = Rig::new();
        let listener = to_port_53(&mut rig);
        let arrival = (from("198.51.100.1:5000", "203.0.113.9"), first.to_vec());
        listener.borrow_mut().arrivals.push_back(arrival);
        came(&mut rig, &listener);
        rig.frames(&[datagram(&udp("192.0.2.7:53", "198.51.100.1:5000"), second)]);
        lives(&mut rig, seconds);
    }
}

#[test]
fn spliced_flow_to_port_53_ends_soon_only_if_it_is_an_exchange() {
    for (first, second, seconds) in LIVES {
        let mut rig = Rig::new();
        let listener = to_port_53(&mut rig);
        let arrival = (from("127.0.0.1:5000", "127.0.0.1"), first.to_vec());
        listener.borrow_mut().arrivals.push_back(arrival);
        came(&mut rig, &listener);
        let service = given(&mut rig).unwrap();
        service.borrow_mut().datagrams.push_back(second.to_vec());
        rig.event(&service, Readiness::READABLE);
        lives(&mut rig, seconds);
    }
}

/// A family: an address of the namespace, two remote ones, one of the host.
struct Family {
    here: &'static str,
    remotes: [&'static str; 3],
    host: &'static str,
    picked: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        here: "192.0.2.7",
        remotes: ["198.51.100.1:7", "198.51.100.2:7", "198.51.100.3:7"],
        host: "::ffff:203.0.113.9",
        picked: "::ffff:0.0.0.0",
    },
    Family {
        here: "[2001:db8::7]",
        remotes: ["[2001:db8:1::1]:7", "[2001:db8:1::2]:7", "[2001:db8:1::3]:7"],
        host: "2001:db8::9",
        picked: "::",
    },
];

impl Family {
    /// The flow from `port` to a remote address.
    fn flow(&self, port: u16, remote: usize) -> FlowKey {
        udp(&format!("{}:{port}", self.here), self.remotes[remote])
    }

    /// A remote address on a socket of both families, with the host's address that it talks to.
    fn peer(&self, remote: usize, local: &str) -> DatagramAddresses {
        let peer: SocketAddr = self.remotes[remote].parse().unwrap();
        let ip = match peer.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
            v6 => v6,
        };
        DatagramAddresses { peer: SocketAddr::new(ip, peer.port()), local: local.parse().unwrap() }
    }

    /// A datagram of a remote address comes to a socket of its family.
    fn arrives_alone(&self, rig: &mut Rig, at: &Shared<State>, remote: usize, octets: &[u8]) {
        let peer: SocketAddr = self.remotes[remote].parse().unwrap();
        let local: IpAddr = self.host.parse().unwrap();
        let addresses = DatagramAddresses { peer, local: local.to_canonical() };
        at.borrow_mut().arrivals.push_back((addresses, octets.to_vec()));
        came(rig, at);
    }

    fn is_v4(&self) -> bool {
        self.here == FAMILIES[0].here
    }

    /// A datagram of a remote address comes to a socket of both families.
    fn arrives(&self, rig: &mut Rig, at: &Shared<State>, remote: usize, octets: &[u8]) {
        at.borrow_mut().arrivals.push_back((self.peer(remote, self.host), octets.to_vec()));
        came(rig, at);
    }
}

/// Who sent what the namespace has received, and what.
fn received(rig: &Rig) -> Vec<(String, Vec<u8>)> {
    rig.datagrams().into_iter().map(|(from, _, octets, _)| (from.to_string(), octets)).collect()
}

fn listens(rig: &mut Rig, ports: &[u16]) {
    let all = || ports.iter().copied().collect();
    let ports = FamilyPorts { ipv4: all(), ipv6: all() };
    let (side, transport) = (PortSide::Namespace, Transport::Udp);
    let snapshot = PortSnapshot { generation: Generation(1), side, transport, ports };
    rig.message(PeerMessage::Ports(Box::new(snapshot)));
}

#[test]
fn datagrams_of_a_forwarded_port_leave_through_its_listener_each_peer_apart() {
    for family in &FAMILIES {
        let mut rig = Rig::new();
        let listener = to_port_53(&mut rig);
        rig.frames(&[datagram(&family.flow(53, 0), b"one"), datagram(&family.flow(53, 1), b"two")]);
        assert!(rig.stack.sockets().opened.is_empty(), "no other socket");
        let sent = [(0, b"one"), (1, b"two")]
            .map(|(remote, octets)| (family.peer(remote, family.picked), octets.to_vec()));
        assert_eq!(listener.borrow().answers, sent);
        for (remote, octets) in [(1, b"from two"), (0, b"from one"), (2, b"stranger")] {
            family.arrives(&mut rig, &listener, remote, octets);
            assert_eq!(received(&rig), [(family.remotes[remote].to_owned(), octets.to_vec())]);
        }
        assert_eq!(flows(&mut rig), 3);
        // The stranger is answered from where it asked.
        rig.frames(&[datagram(&family.flow(53, 2), b"answer")]);
        let answer = listener.borrow().answers.last().cloned();
        assert_eq!(answer, Some((family.peer(2, family.host), b"answer".to_vec())));
        rig.wait(Duration::from_secs(180));
        assert_eq!((flows(&mut rig), listener.borrow().closed), (0, false));
    }
}

#[test]
fn port_that_sends_before_it_is_seen_to_listen_keeps_its_socket() {
    for family in &FAMILIES {
        let mut rig = Rig::new();
        rig.message(rule(Direction::Inbound, Transport::Udp, (5060, 6060), Effort::Auto));
        rig.frames(&[datagram(&family.flow(6060, 0), b"one")]);
        let (at, _) = &rig.stack.sockets().listeners[0];
        let any = if family.is_v4() { "0.0.0.0" } else { "::" };
        assert_eq!((at.port.get(), at.address), (5060, any.parse().ok()));
        let socket = listener(&mut rig, 0);
        family.arrives_alone(&mut rig, &socket, 0, b"answer");
        assert_eq!(received(&rig), [(family.remotes[0].to_owned(), b"answer".to_vec())]);
        family.arrives_alone(&mut rig, &socket, 1, b"stranger");
        assert_eq!((received(&rig), rig.dropped(DropReason::NoFlow)), (vec![], 1));

        // The program may be seen to serve both families; the other one gets a listener of its own.
        listens(&mut rig, &[6060]);
        family.arrives_alone(&mut rig, &socket, 1, b"stranger");
        assert_eq!(received(&rig), [(family.remotes[1].to_owned(), b"stranger".to_vec())]);
        assert_eq!(rig.stack.sockets().listeners.len(), 2);
        assert!(!socket.borrow().closed);

        listens(&mut rig, &[]);
        family.arrives_alone(&mut rig, &socket, 2, b"stranger");
        assert_eq!((received(&rig), rig.dropped(DropReason::NoFlow)), (vec![], 2));
        rig.frames(&[datagram(&family.flow(6060, 0), b"two")]);
        assert_eq!(socket.borrow().answers.len(), 2);
        assert!(!socket.borrow().closed);
        rig.wait(Duration::from_secs(180));
        assert!(socket.borrow().closed, "nobody uses it");
        assert_eq!(flows(&mut rig), 0);
    }
}

#[test]
fn second_peer_of_a_source_port_sees_the_port_that_the_first_one_sees() {
    for family in &FAMILIES {
        // The namespace's own port can be had, or not.
        for (taken, expected) in [(false, 1024), (true, 40_001)] {
            let mut rig = Rig::new();
            if taken {
                rig.message(rule(Direction::Inbound, Transport::Udp, (1024, 53), Effort::Explicit));
                rig.frames(&[datagram(&family.flow(9, 0), b"x")]);
            }
            rig.frames(&[datagram(&family.flow(1024, 0), b"one")]);
            let number = rig.stack.sockets().opened.len() - 1;
            let first = opened(&mut rig, number);
            assert_eq!(first.borrow().sent, [b"one"]);
            first.borrow_mut().datagrams.push_back(b"on its way".to_vec());
            rig.frames(&[datagram(&family.flow(1024, 1), b"two")]);
            assert!(first.borrow().closed);
            assert_eq!(received(&rig)[0].1, b"on its way");
            let number = rig.stack.sockets().listeners.len() - 1;
            let shared = listener(&mut rig, number);
            let at = rig.stack.sockets().listeners[number].0.clone();
            assert_eq!(at.port.get(), expected);
            let any = at.address.unwrap();
            assert_eq!((any.is_unspecified(), any.is_ipv4()), (true, family.is_v4()));

            rig.frames(&[datagram(&family.flow(1024, 0), b"three")]);
            let sent: Vec<_> =
                shared.borrow().answers.iter().map(|(to, it)| (to.peer, it.clone())).collect();
            let peer = |n: usize| family.remotes[n].parse::<SocketAddr>().unwrap();
            assert_eq!(sent, [(peer(1), b"two".to_vec()), (peer(0), b"three".to_vec())]);
            for (remote, expected) in [(0, 1), (1, 1), (2, 0)] {
                let local = any;
                let arrival = (DatagramAddresses { peer: peer(remote), local }, b"re".to_vec());
                shared.borrow_mut().arrivals.push_back(arrival);
                came(&mut rig, &shared);
                assert_eq!(received(&rig).len(), expected, "{remote}");
            }
            rig.wait(Duration::from_secs(180));
            assert!(shared.borrow().closed);
        }
    }
}

/// Nothing that comes meanwhile is lost, where the kernel can.
#[test]
fn socket_of_the_first_peer_becomes_the_one_that_the_second_shares() {
    for family in &FAMILIES {
        let mut rig = Rig::new();
        rig.stack.sockets().unconnects = true;
        rig.frames(&[datagram(&family.flow(1024, 0), b"one")]);
        let first = opened(&mut rig, 0);
        rig.frames(&[datagram(&family.flow(1024, 1), b"two")]);
        assert_eq!(first.borrow().closed, !family.is_v4(), "one of IPv6 keeps its peer");
        if !family.is_v4() {
            continue;
        }
        assert_eq!(rig.stack.sockets().listeners.len(), 0);
        let local = IpAddr::from([0, 0, 0, 0]);
        for remote in 0..2 {
            let peer = family.remotes[remote].parse().unwrap();
            first.borrow_mut().arrivals.push_back((DatagramAddresses { peer, local }, vec![7]));
            came(&mut rig, &first);
            assert_eq!(received(&rig).len(), 1, "{remote}");
        }
    }
}

#[test]
fn flow_to_a_resolver_keeps_out_of_the_way_of_a_listener() {
    let mut rig = Rig::<Socket>::with_resolvers(&[1]);
    rig.message(rule(Direction::Inbound, Transport::Udp, (5060, 6060), Effort::Auto));
    for port in [5060, 6060, 7070] {
        rig.frames(&[datagram(&udp(&format!("192.0.2.7:{port}"), "192.0.2.53:53"), QUERY)]);
    }
    let ports: Vec<_> = rig.stack.sockets().opened.iter().map(|it| it.port).collect();
    assert_eq!(ports, [None, None, Some(7070)]);
    listens(&mut rig, &[6060]);
    assert_eq!(rig.stack.sockets().listeners[0].0.port.get(), 5060);
}

#[test]
fn two_addresses_of_the_namespace_with_one_port_and_one_peer_stay_apart() {
    let mut rig = Rig::new();
    rig.has(&[HERE, "192.0.2.60"], &[HERE6]);
    let listener = to_port_53(&mut rig);
    let remote = "198.51.100.1:7";
    for here in ["192.0.2.7:53", "192.0.2.60:53"] {
        rig.frames(&[datagram(&udp(here, remote), here.as_bytes())]);
    }
    assert_eq!(listener.borrow().answers.len(), 1);
    assert_eq!(opened(&mut rig, 0).borrow().sent, [b"192.0.2.60:53"]);
    assert_eq!(flows(&mut rig), 2);
}

#[test]
fn error_of_a_datagram_reaches_the_flow_that_sent_it() {
    for family in &FAMILIES {
        let mut rig = Rig::<Socket>::new();
        let listener = to_port_53(&mut rig);
        rig.frames(&[datagram(&family.flow(53, 0), b"one"), datagram(&family.flow(53, 1), b"two")]);
        rig.received();
        let error = QueuedError::of(Errno::ECONNREFUSED);
        let nobody = Some("[2001:db8::dead]:9".parse().unwrap());
        let peer = Some(family.peer(1, family.host).peer);
        listener.borrow_mut().errors_of.extend([(error, nobody), (error, None), (error, peer)]);
        let Some(Token::Listener(index)) = listener.borrow().token else { panic!("not watched") };
        rig.stack.listener_error(rig.now, index);
        let frames = rig.received();
        assert_eq!(frames.len(), 1, "one ICMP error");
        let remote: SocketAddr = family.remotes[1].parse().unwrap();
        let octets = match remote.ip() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let count = frames[0].windows(octets.len()).filter(|it| **it == octets).count();
        assert_eq!(count, 2, "from the peer, about a packet to the peer");
    }
}

#[test]
fn flow_whose_address_the_host_has_lost_keeps_its_port() {
    for family in &FAMILIES {
        let mut rig = Rig::<Socket>::new();
        rig.frames(&[datagram(&family.flow(1024, 0), b"one")]);
        let first = opened(&mut rig, 0);
        first.borrow_mut().has_its_address = false;
        rig.frames(&[datagram(&family.flow(1024, 0), b"two")]);
        assert_eq!(first.borrow().sent.len(), 2, "nobody looks without a reason");
        rig.has(&[HERE], &[HERE6]);
        rig.frames(&[datagram(&family.flow(1024, 0), b"three")]);
        assert!(first.borrow().closed);
        let (at, socket) = &rig.stack.sockets().listeners[0];
        assert_eq!((at.port.get(), socket.borrow().answers.len()), (1024, 1));
        assert_eq!(flows(&mut rig), 1);
    }
}

/// An address of localhost, as a service has it and as a client of the listener has it; those of the other family.
const LOCALHOSTS: [[&str; 4]; 2] = [
    ["127.0.0.1:53", "[::ffff:127.0.0.1]:5000", "::ffff:127.0.0.1", "[::1]:53"],
    ["[::1]:53", "[::1]:5000", "::1", "127.0.0.1:53"],
];

/// A listener that leads to port 53 of the other side, whose client is on this side's loopback.
fn spliced(rig: &mut Rig, direction: Direction) -> Shared<State> {
    match direction {
        Direction::Inbound => to_port_53(rig),
        Direction::Outbound => {
            rig.message(rule(direction, Transport::Udp, (5300, 53), Effort::Explicit));
            given(rig).unwrap()
        }
    }
}

/// The sockets that were connected on the other side: where to, and what they were sent.
fn sent(rig: &mut Rig, direction: Direction) -> Vec<(String, Vec<Vec<u8>>)> {
    let kernel = rig.stack.sockets();
    let of = |to: &SocketAddr, state: &Shared<State>| (to.to_string(), state.borrow().sent.clone());
    match direction {
        Direction::Inbound => kernel.connected.iter().map(|(to, it)| of(to, it)).collect(),
        Direction::Outbound => {
            kernel.opened.iter().map(|it| of(&it.target.address, &it.state)).collect()
        }
    }
}

#[test]
fn local_datagram_goes_to_localhost_of_the_other_family_where_the_first_refuses() {
    for (direction, [first, peer, local, other]) in [Direction::Inbound, Direction::Outbound]
        .into_iter()
        .flat_map(|it| LOCALHOSTS.map(|addresses| (it, addresses)))
    {
        // It refuses when it is connected, or what it is sent.
        for unreachable in [true, false] {
            let mut rig = Rig::<Socket>::new();
            if unreachable {
                rig.stack.sockets().answers.push_back(Err(Errno::ENETUNREACH));
            } else {
                rig.stack.sockets().closed_ports.push(first.parse().unwrap());
            }
            let listener = spliced(&mut rig, direction);
            let question = (from(peer, local), QUERY.to_vec());
            listener.borrow_mut().arrivals.push_back(question);
            came(&mut rig, &listener);
            while given(&mut rig).is_some() {}

            let sent = sent(&mut rig, direction);
            assert_eq!(sent.last(), Some(&(other.to_owned(), vec![QUERY.to_vec()])), "{first}");
            assert_eq!(sent.len(), if unreachable { 1 } else { 2 });
            let service = match direction {
                Direction::Inbound => Rc::clone(&rig.stack.sockets().connected[sent.len() - 1].1),
                Direction::Outbound => opened(&mut rig, sent.len() - 1),
            };
            service.borrow_mut().datagrams.push_back(ANSWER.to_vec());
            rig.event(&service, Readiness::READABLE);
            assert_eq!(listener.borrow().answers, [(from(peer, local), ANSWER.to_vec())]);
        }
    }
}

#[test]
fn datagram_that_both_families_refuse_is_a_counted_drop_and_the_next_one_tries_again() {
    for direction in [Direction::Inbound, Direction::Outbound] {
        let [[first, peer, local, other], _] = LOCALHOSTS;
        let mut rig = Rig::<Socket>::new();
        let closed = [first, other].map(|it| it.parse::<SocketAddr>().unwrap());
        rig.stack.sockets().closed_ports.extend(closed);
        let listener = spliced(&mut rig, direction);
        for (n, expected) in [(1, 2), (2, 3)] {
            listener.borrow_mut().arrivals.push_back((from(peer, local), QUERY.to_vec()));
            came(&mut rig, &listener);
            while given(&mut rig).is_some() {}
            assert_eq!(rig.dropped(DropReason::Unreachable), n);
            assert_eq!(sent(&mut rig, direction).len(), expected);
        }
        // Somebody listens at the first one by now.
        rig.stack.sockets().closed_ports.clear();
        let last = match direction {
            Direction::Inbound => Rc::clone(&rig.stack.sockets().connected[2].1),
            Direction::Outbound => opened(&mut rig, 2),
        };
        last.borrow_mut().refuses = false;
        listener.borrow_mut().arrivals.push_back((from(peer, local), QUERY.to_vec()));
        came(&mut rig, &listener);
        assert_eq!(sent(&mut rig, direction)[2], (first.to_owned(), vec![QUERY.to_vec(); 2]));
        assert_eq!(rig.dropped(DropReason::Unreachable), 2);
    }
}

#[test]
fn flow_that_has_to_leave_by_an_interface_has_the_port_too_and_begins_anew_when_that_is_gone() {
    let on_eth1 = || Some(IfName::try_from("eth1".to_owned()).unwrap());
    let nat = Nat::new(
        FamilyPolicy { outbound_interface: on_eth1(), ..policy(Service::On) },
        FamilyPolicy { outbound_interface: on_eth1(), ..policy(Service::On) },
    );
    for family in &FAMILIES {
        let mut rig = Rig::<Socket>::with(nat.clone(), 64);
        rig.has(&[HERE], &[HERE6]);
        let listener = to_port_53(&mut rig);
        rig.received();
        rig.frames(&[datagram(&family.flow(53, 0), b"one"), datagram(&family.flow(53, 1), b"two")]);
        assert_eq!(listener.borrow().answers.len(), 2);
        assert_eq!(listener.borrow().interface.map(NonZeroU32::get), Some(3));
        listener.borrow_mut().send_error = Some(Errno::ENODEV);
        rig.frames(&[datagram(&family.flow(53, 0), b"three")]);
        assert_eq!((rig.received().len(), flows(&mut rig)), (1, 1), "an ICMP error");
        listener.borrow_mut().send_error = None;
        rig.frames(&[datagram(&family.flow(53, 0), b"four")]);
        assert_eq!((listener.borrow().answers.len(), flows(&mut rig)), (3, 2));
        assert!(rig.stack.sockets().opened.is_empty());
    }
}

#[test]
fn nothing_that_came_before_a_socket_was_connected_goes_on() {
    let udp = udp("192.0.2.7:1024", "198.51.100.1:7");
    let ping = key(Protocol::Echo, "192.0.2.7:77", "198.51.100.1:0");
    for frame in [datagram(&udp, b"question"), echo_request(&ping, &[0, 1, b'x'])] {
        let mut rig = Rig::<Socket>::new();
        rig.stack.sockets().early.push(vec![0, 0, 0, 0, 9, 9, 0, 1, b'x']);
        rig.frames(&[frame]);
        let socket = opened(&mut rig, 0);
        assert_eq!(socket.borrow().sent.len(), 1);
        rig.event(&socket, Readiness::READABLE);
        assert_eq!((rig.received().len(), rig.dropped(DropReason::NoFlow)), (0, 1));
    }
    for direction in [Direction::Inbound, Direction::Outbound] {
        let mut rig = Rig::<Socket>::new();
        let [[_, peer, local, _], _] = LOCALHOSTS;
        let listener = spliced(&mut rig, direction);
        rig.stack.sockets().early.push(b"early".to_vec());
        listener.borrow_mut().arrivals.push_back((from(peer, local), QUERY.to_vec()));
        came(&mut rig, &listener);
        while given(&mut rig).is_some() {}
        let service = match direction {
            Direction::Inbound => Rc::clone(&rig.stack.sockets().connected[0].1),
            Direction::Outbound => opened(&mut rig, 0),
        };
        rig.event(&service, Readiness::READABLE);
        assert!(listener.borrow().answers.is_empty());
        assert_eq!(rig.dropped(DropReason::NoFlow), 1);
    }
}

/// Type and code of the only frame to the namespace, which is an error.
fn icmp(rig: &Rig) -> (u8, u8) {
    let frames = rig.received();
    let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
    let network = &frame[vnet::LEN + ethernet::LEN..];
    let transport = if network[0] >> 4 == 4 { &network[20..] } else { &network[40..] };
    (transport[0], transport[1])
}

#[test]
fn error_of_the_network_keeps_its_meaning_whatever_carries_the_flow() {
    let cases = [((3, 13), (1, 1)), ((11, 0), (3, 0)), ((3, 4), (2, 0)), ((3, 3), (1, 4))];
    for (family, (v4, v6)) in FAMILIES.iter().flat_map(|it| cases.map(|case| (it, case))) {
        let kind = if family.is_v4() { v4 } else { v6 };
        // The kernel's errno says less.
        let errno = Errno::EHOSTUNREACH;
        let icmp_of =
            Some((if family.is_v4() { IpFamily::V4 } else { IpFamily::V6 }, kind.0, kind.1));
        let error = QueuedError { icmp: icmp_of, info: 1400, ..QueuedError::of(errno) };

        let mut rig = Rig::<Socket>::new();
        rig.frames(&[datagram(&family.flow(1024, 0), b"one")]);
        let socket = opened(&mut rig, 0);
        socket.borrow_mut().queued_errors.push_back(error);
        rig.event(&socket, Readiness::FAILED);
        assert_eq!(icmp(&rig), kind, "a socket of its own");

        // Opened by the namespace, and by the peer.
        for begins in [false, true] {
            let mut rig = Rig::<Socket>::new();
            let listener = to_port_53(&mut rig);
            if begins {
                family.arrives(&mut rig, &listener, 0, b"question");
            }
            rig.frames(&[datagram(&family.flow(53, 0), b"one")]);
            rig.received();
            let to = Some(family.peer(0, family.host).peer);
            listener.borrow_mut().errors_of.push_back((error, to));
            let Some(Token::Listener(index)) = listener.borrow().token else {
                panic!("not watched")
            };
            rig.stack.listener_error(rig.now, index);
            assert_eq!(icmp(&rig), kind, "a listener, begun by the peer: {begins}");
        }
    }
}

#[test]
fn error_without_a_queue_reaches_the_namespace_too() {
    for family in &FAMILIES {
        let mut rig = Rig::<Socket>::new();
        rig.frames(&[datagram(&family.flow(1024, 0), b"one")]);
        let socket = opened(&mut rig, 0);
        socket.borrow_mut().error = Some(Errno::ECONNREFUSED);
        rig.event(&socket, Readiness::FAILED);
        assert_eq!(icmp(&rig), if family.is_v4() { (3, 3) } else { (1, 4) });
    }
}

#[test]
fn datagrams_of_a_listener_are_an_exchange_of_messages_and_connections_are_not() {
    for (transport, expected) in [(Transport::Udp, Some(Side::Target)), (Transport::Tcp, None)] {
        let mut rig = Rig::<Socket>::new();
        rig.message(rule(Direction::Inbound, transport, (5300, 53), Effort::Explicit));
        let listener = listener(&mut rig, 0);
        let Some(Token::Listener(index)) = listener.borrow().token else { panic!("not watched") };
        assert_eq!(rig.stack.listener_event(index), expected);
    }
}
