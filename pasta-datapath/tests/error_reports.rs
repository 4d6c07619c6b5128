//! ICMP errors of the namespace for what came from us: who learns of them, and what becomes of the flow.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which a failure ends")]

mod fake;

use fake::rig::{Rig, came, datagram, icmp_error, icmp_error_to, key, opened, rule, segment};
use fake::{Shared, Socket, State};
use pasta_datapath::counters::DropReason;
use pasta_datapath::flow::{FlowKey, Readiness};
use pasta_datapath::link::classify::{Framing, classify};
use pasta_datapath::nat::Protocol;
use pasta_datapath::port_forward::listeners::DatagramAddresses;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, Header, SackBlocks, SynOptions, ToSend};
use pasta_datapath::wire::window::{Mss, WindowScale};
use pasta_datapath::wire::{ethernet, vnet};
use pasta_ipc::port_forward::{Direction, Effort};
use pasta_ipc::types::Transport;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// A family: who is in the namespace, who is outside, the host's address, a router in the namespace.
struct Net {
    here: &'static str,
    remote: &'static str,
    local: &'static str,
    router: &'static str,
}

const NETS: [Net; 2] = [
    Net {
        here: "192.0.2.7:8080",
        remote: "198.51.100.1:4000",
        local: "203.0.113.9:8080",
        router: "10.0.0.1",
    },
    Net {
        here: "[2001:db8::7]:8080",
        remote: "[2001:db8:1::1]:4000",
        local: "[2001:db8:2::9]:8080",
        router: "2001:db8:3::1",
    },
];

impl Net {
    fn key(&self, protocol: Protocol) -> FlowKey {
        key(protocol, self.here, self.remote)
    }

    fn router(&self) -> IpAddr {
        self.router.parse().unwrap()
    }

    fn is_ipv4(&self) -> bool {
        self.router().is_ipv4()
    }

    /// Type and code of what says that the packet is too large for the next link, that nobody listens, that policy
    /// forbids, that there is no host, that no hop is left.
    fn errors(&self) -> [(u8, u8); 5] {
        if self.is_ipv4() {
            [(3, 4), (3, 3), (3, 13), (3, 1), (11, 0)]
        } else {
            [(2, 0), (1, 4), (1, 1), (1, 3), (3, 0)]
        }
    }

    /// What is left of a packet of this size for TCP's payload.
    fn mss(&self, mtu: usize) -> usize {
        mtu - if self.is_ipv4() { 40 } else { 60 }
    }
}

/// A connection from outside whose SYN has gone to the namespace; with the frame of that.
fn opening(rig: &mut Rig, net: &Net) -> (Shared<State>, Vec<u8>) {
    rig.message(rule(Direction::Inbound, Transport::Tcp, (8080, 8080), Effort::Explicit));
    let listener = Rc::clone(&rig.stack.sockets().listeners[0].1);
    let peer: SocketAddr = net.remote.parse().unwrap();
    let (socket, state) = Socket::connected(net.local.parse().unwrap(), peer);
    listener.borrow_mut().connections.push_back((socket, peer));
    came(rig, &listener);
    let frames = rig.received();
    let [syn] = &frames[..] else { panic!("{} frames", frames.len()) };
    (state, syn.clone())
}

/// A connection of the namespace that takes a large window of large segments; gives our next number.
fn established(rig: &mut Rig, net: &Net) -> (Shared<State>, Seq) {
    let window_scale = Some(WindowScale::new(7));
    let mss = Mss::new(8000);
    let syn = SynOptions { mss, window_scale, sack_permitted: true };
    let head = |seq, ack, flags, syn| {
        let (window, sack) = (u16::MAX.into(), SackBlocks::NONE);
        ToSend { seq: Seq::from(seq), ack, flags, window, syn, sack }
    };
    let key = net.key(Protocol::Tcp);
    rig.frames(&[segment(&key, &head(1000, Seq::default(), Flags::SYN, Some(syn)), &[])]);
    let next = sent(rig)[0].0.seq + 1;
    rig.frames(&[segment(&key, &head(1001, next, Flags::ACK, None), &[])]);
    let socket = opened(rig, 0);
    rig.received();
    (socket, next)
}

/// Segments to the namespace since the last call: header, size that the kernel is to cut them to, payload's length.
fn sent(rig: &Rig) -> Vec<(Header, usize, usize)> {
    let all = rig.written.borrow().clone();
    let sizes = all.iter().map(|frame| usize::from(u16::from_le_bytes([frame[4], frame[5]])));
    let sizes: Vec<_> = sizes.collect();
    let segments = rig.segments();
    let segments = segments.into_iter().zip(sizes);
    segments.map(|((.., header, payload), size)| (header, size, payload.len())).collect()
}

fn flows(rig: &mut Rig) -> usize {
    rig.stack.flows().table.len()
}

#[test]
fn connection_that_the_namespace_refuses_by_an_error_is_reset() {
    for net in &NETS {
        let [too_large, refusals @ .., exceeded] = net.errors();
        for kind in refusals {
            let mut rig = Rig::new();
            let (socket, syn) = opening(&mut rig, net);
            for other in [too_large, exceeded] {
                rig.frames(&[icmp_error(net.router(), other, 1280, &syn)]);
                assert_eq!(flows(&mut rig), 1, "{other:?} may pass");
            }
            rig.frames(&[icmp_error(net.router(), kind, 0, &syn)]);
            assert!(socket.borrow().resets && socket.borrow().closed, "{kind:?}");
            assert_eq!(flows(&mut rig), 0);
            rig.frames(&[icmp_error(net.router(), kind, 0, &syn)]);
            assert_eq!(rig.dropped(DropReason::NoFlow), 1);
        }
    }
}

#[test]
fn error_for_what_was_never_sent_refuses_nothing() {
    for net in &NETS {
        let mut rig = Rig::new();
        let (socket, mut syn) = opening(&mut rig, net);
        let seq = vnet::LEN + ethernet::LEN + if net.is_ipv4() { 20 } else { 40 } + 4;
        syn[seq] ^= 1;
        rig.frames(&[icmp_error(net.router(), net.errors()[1], 0, &syn)]);
        assert!(!socket.borrow().closed);
        assert_eq!(flows(&mut rig), 1);
    }
}

#[test]
fn error_that_is_sent_to_another_host_than_it_quotes_is_malformed() {
    for net in &NETS {
        let mut rig = Rig::new();
        let (_, syn) = opening(&mut rig, net);
        let closed = net.errors()[1];
        let other = Some(net.router());
        rig.frames(&[icmp_error_to(other, net.router(), closed, 0, &syn)]);
        assert_eq!(flows(&mut rig), 1);
        assert_eq!(rig.dropped(DropReason::Malformed), 1);
    }
}

#[test]
fn segments_become_as_small_as_a_router_of_the_namespace_says_and_what_was_lost_is_sent_again() {
    for net in &NETS {
        let mut rig = Rig::new();
        let (socket, next) = established(&mut rig, net);
        socket.borrow_mut().incoming.extend(vec![7; 100_000]);
        rig.event(&socket, Readiness::READABLE);
        let lost = rig.written.borrow()[0].clone();
        let before = sent(&rig);
        assert!(before.iter().all(|(_, size, _)| *size == 8000), "{before:?}");
        let [too_large, refusals @ .., _] = net.errors();
        rig.frames(&[icmp_error(net.router(), too_large, 1400, &lost)]);
        let again = sent(&rig);
        assert_eq!(again[0].0.seq, next, "from the first that is not acknowledged");
        let len = again.iter().map(|(.., len)| len).sum::<usize>();
        assert_eq!(len, before.iter().map(|(.., len)| len).sum::<usize>());
        assert!(again.iter().all(|(_, size, len)| *size == net.mss(1400) || *len < *size));
        // The same again, and larger ones, are no news. What refuses may pass, and the connection goes on.
        for (kind, mtu) in [(too_large, 1400), (too_large, 8000), (refusals[0], 0)] {
            rig.frames(&[icmp_error(net.router(), kind, mtu, &lost)]);
            assert_eq!(sent(&rig), [], "{kind:?} {mtu}");
        }
        // No router has links of that MTU.
        rig.frames(&[icmp_error(net.router(), too_large, 68, &lost)]);
        let least = net.mss(if net.is_ipv4() { 552 } else { 1280 });
        assert_eq!(sent(&rig)[0].1, least);
        assert_eq!(flows(&mut rig), 1);
    }
}

#[test]
fn datagrams_become_as_small_as_a_router_of_the_namespace_says() {
    for net in &NETS {
        let mut rig = Rig::new();
        rig.frames(&[datagram(&net.key(Protocol::Udp), b"question")]);
        let socket = opened(&mut rig, 0);
        let answers = |rig: &mut Rig, len: usize| {
            socket.borrow_mut().datagrams.push_back(vec![9; len]);
            rig.event(&socket, Readiness::READABLE);
            rig.received()
        };
        rig.received();
        let whole = answers(&mut rig, 4000);
        assert_eq!(whole.len(), 1);
        let [too_large, _, forbidden, no_host, exceeded] = net.errors();
        rig.frames(&[icmp_error(net.router(), too_large, 1400, &whole[0])]);
        let pieces = answers(&mut rig, 4000);
        assert_eq!(pieces.len(), 3);
        let link = vnet::LEN + ethernet::LEN;
        assert!(pieces.iter().all(|it| it.len() - link <= 1400));
        // One that quotes a piece is understood, too.
        rig.frames(&[icmp_error(net.router(), too_large, 1300, &pieces[0])]);
        assert_eq!(answers(&mut rig, 4000).len(), 4);
        let fits = answers(&mut rig, 1000);
        assert!(fits.len() == 1 && classify(&fits[0], Framing::Vnet).is_ok());
        for kind in [forbidden, no_host, exceeded] {
            rig.frames(&[icmp_error(net.router(), kind, 0, &fits[0])]);
            assert_eq!(flows(&mut rig), 1, "{kind:?} may pass");
        }
    }
}

#[test]
fn flow_ends_when_nobody_of_the_namespace_is_there_any_more() {
    for net in &NETS {
        let closed = net.errors()[1];
        let mut rig = Rig::new();
        rig.frames(&[datagram(&net.key(Protocol::Udp), b"question")]);
        let socket = opened(&mut rig, 0);
        socket.borrow_mut().datagrams.push_back(b"late".to_vec());
        rig.received();
        rig.event(&socket, Readiness::READABLE);
        let late = rig.received();
        // What else the batch has for it leaves first.
        let more = datagram(&net.key(Protocol::Udp), b"more");
        rig.frames(&[icmp_error(net.router(), closed, 0, &late[0]), more]);
        assert_eq!(socket.borrow().sent, [b"question".to_vec(), b"more".to_vec()]);
        assert!(socket.borrow().closed, "the host refuses what the peer sends next");
        assert_eq!(flows(&mut rig), 0);
    }
}

#[test]
fn peer_of_a_listener_begins_anew_when_nobody_was_there() {
    for net in &NETS {
        let mut rig = Rig::new();
        rig.message(rule(Direction::Inbound, Transport::Udp, (8080, 8080), Effort::Explicit));
        let listener = Rc::clone(&rig.stack.sockets().listeners[0].1);
        let local: SocketAddr = net.local.parse().unwrap();
        let ends = DatagramAddresses { peer: net.remote.parse().unwrap(), local: local.ip() };
        for _ in 0..2 {
            listener.borrow_mut().arrivals.push_back((ends, b"x".to_vec()));
            came(&mut rig, &listener);
            let frames = rig.received();
            assert_eq!(frames.len(), 1);
            rig.frames(&[icmp_error(net.router(), net.errors()[1], 0, &frames[0])]);
            assert_eq!(flows(&mut rig), 0);
        }
    }
}
