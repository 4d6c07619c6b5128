//! Fragments both ways, through the whole stack: what the namespace's link cuts arrives whole, what is larger than its
//! MTU comes to it in pieces.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which a failure ends")]

mod fake;

use fake::rig::{HERE, HERE6, OURS, Rig, came, datagram, echo_request, key, mac, opened, rule};
use fake::{Socket, Tap};
use pasta_datapath::counters::{Counters, DropReason};
use pasta_datapath::flow::datagram::send_options::{Oversize, SendOption};
use pasta_datapath::flow::{FlowKey, Readiness};
use pasta_datapath::link::classify::{Content, Framing, classify};
use pasta_datapath::link::reassembly::Reassembly;
use pasta_datapath::link::writer::{FrameWriter, Path, UDP};
use pasta_datapath::nat::Protocol;
use pasta_datapath::port_forward::listeners::DatagramAddresses;
use pasta_datapath::wire::checksum::Sum;
use pasta_datapath::wire::ip::{
    IPV4_LEN, IPV6_LEN, PROTOCOL_FRAGMENT, PROTOCOL_ICMPV6, PROTOCOL_UDP, Packet, Piece,
    ipv4_header, ipv6_header, read_ipv6,
};
use pasta_datapath::wire::{ethernet, icmp, vnet};
use pasta_ipc::port_forward::{Direction, Effort};
use pasta_ipc::types::{Mtu, TapOffloads, Transport};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

const FAMILIES: [[&str; 2]; 2] =
    [["192.0.2.7:1024", "198.51.100.1:7"], ["[2001:db8::7]:1024", "[2001:db8:1::1]:7"]];

const LINK: usize = vnet::LEN + ethernet::LEN;

fn udp([here, remote]: [&str; 2]) -> FlowKey {
    key(Protocol::Udp, here, remote)
}

fn echo(ends: [&str; 2]) -> FlowKey {
    let mut key = udp(ends);
    (key.protocol, key.remote) = (Protocol::Echo, (key.remote.ip(), 0).into());
    key
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// A datagram of the namespace as its kernel cuts it for a link of `mtu` octets.
fn cut(key: &FlowKey, payload: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let (mut device, mut counters) = (Tap::new(TapOffloads::TcpAndUdp), Counters::default());
    let written = Rc::clone(&device.written);
    let path = Path::new(mac(1), OURS, UDP, key.namespace, key.remote);
    let mut writer = FrameWriter { device: &mut device, our_mac: mac(1), counters: &mut counters };
    assert!(writer.write_large_udp(&path, Mtu::try_from(mtu).unwrap(), payload));
    let frames = written.borrow().clone();
    for frame in &frames {
        assert!(frame.len() - LINK <= usize::from(mtu), "larger than the link carries");
    }
    frames
}

#[test]
fn datagram_in_fragments_leaves_whole_and_may_be_fragmented_again() {
    for ends in FAMILIES {
        let key = udp(ends);
        for (len, mtu) in [(1400, 1280), (8192, 1500), (65_507, 1500), (65_507, 576)] {
            let mut rig = Rig::<Socket>::new();
            let mut frames = cut(&key, &pattern(len), mtu);
            assert!(frames.len() > 1);
            frames.reverse();
            rig.frames(&frames);
            let socket = opened(&mut rig, 0);
            assert_eq!(socket.borrow().sent, [pattern(len)], "{len}");
            // A host of IPv6 may fragment from the start.
            let is_allowed = socket
                .borrow()
                .options
                .iter()
                .any(|(_, option)| *option == SendOption::Oversize(Oversize::Allowed));
            assert_eq!(is_allowed, key.remote.is_ipv4(), "{len}");
        }
    }
}

/// A fragment of a packet of a flow.
fn fragment(key: &FlowKey, piece: Piece, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u16;
    let (kind, network) = match (key.namespace.ip(), key.remote.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = ipv4_header(from, to, PROTOCOL_UDP, len);
            header[6..8].copy_from_slice(&((piece.offset >> 3) as u16).to_be_bytes());
            header[6] |= if piece.more { 0x20 } else { 0 };
            header[10..12].fill(0);
            let sum = Sum::default().octets(&header).checksum();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (ethernet::TYPE_IPV4, header.to_vec())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = ipv6_header(from, to, PROTOCOL_FRAGMENT, 8 + len);
            (ethernet::TYPE_IPV6, [&header[..], &piece.header(PROTOCOL_UDP)].concat())
        }
        _ => panic!("two families"),
    };
    let link = ethernet::header(OURS.octets(), mac(1), kind);
    [&vnet::COMPLETE[..], &link, &network, payload].concat()
}

/// Type, code and pointer of the only ICMP error that came, and the packet that it quotes.
fn parameter_problem(rig: &Rig) -> Option<(u8, u8, u32, Vec<u8>)> {
    let frames = rig.received();
    let frame = match &frames[..] {
        [] => return None,
        [frame] => frame,
        several => panic!("{} frames", several.len()),
    };
    let (packet, _) = read_ipv6(&frame[LINK..]).unwrap();
    let Packet { source, destination, payload, .. } = packet;
    icmp::parse_v6(payload, source, destination, 64).unwrap();
    let (head, quote) = payload.split_first_chunk::<8>().unwrap();
    let &[kind, code, _, _, p0, p1, p2, p3] = head;
    Some((kind, code, u32::from_be_bytes([p0, p1, p2, p3]), quote.to_vec()))
}

#[test]
fn fragment_that_cannot_be_is_answered_in_ipv6_and_names_the_field() {
    for ends in FAMILIES {
        let key = udp(ends);
        let is_ipv6 = key.remote.is_ipv6();
        // In the middle and not a multiple of eight; beyond the largest packet; both; and a good one.
        for (offset, more, len, field) in [
            (0, true, 1001, Some(4)),
            (65_528, false, 8, Some(42)),
            (65_528, true, 9, Some(4)),
            (8, true, 16, None),
        ] {
            let piece = Piece { identification: 77, offset, more };
            let mut rig = Rig::<Socket>::new();
            let frame = fragment(&key, piece, &pattern(len));
            rig.frames(std::slice::from_ref(&frame));
            let answer = parameter_problem(&rig);
            let sent = &frame[LINK..];
            let sent = &sent[..sent.len().min(IPV6_LEN + 8 + 1184)];
            let expected = field.filter(|_| is_ipv6).map(|at| (4, 0, at, sent.to_vec()));
            assert_eq!(answer, expected, "{ends:?} {offset} {len}");
            let counted = rig.dropped(DropReason::Malformed);
            assert_eq!(counted, u64::from(field.is_some()), "{ends:?} {offset} {len}");
        }
    }
}

#[test]
fn there_is_no_error_about_a_fragment_of_an_error() {
    let key = udp(FAMILIES[1]);
    for (kind, answered) in [(1, false), (127, false), (128, true)] {
        let mut rig = Rig::<Socket>::new();
        let piece = Piece { identification: 7, offset: 0, more: true };
        let mut frame = fragment(&key, piece, &[kind; 1001]);
        // The next header of the fragment's own.
        frame[LINK + IPV6_LEN] = PROTOCOL_ICMPV6;
        rig.frames(&[frame]);
        assert_eq!(parameter_problem(&rig).is_some(), answered, "{kind}");
        // The front of one that does not go on.
        let mut frame = fragment(&key, piece, &[kind; 1000]);
        frame[LINK + IPV6_LEN] = PROTOCOL_ICMPV6;
        rig.frames(&[frame]);
        rig.wait(Duration::from_secs(60));
        assert_eq!(rig.received().len(), usize::from(answered), "{kind}");
    }
}

#[test]
fn order_of_datagrams_is_that_in_which_they_are_whole() {
    for ends in FAMILIES {
        let key = udp(ends);
        let mut rig = Rig::<Socket>::new();
        let [first, second, third] = &cut(&key, &pattern(4000), 1500)[..] else { panic!("three") };
        let small = |octets: &[u8]| datagram(&key, octets);
        let frames = [
            small(b"one"),
            first.clone(),
            small(b"two"),
            third.clone(),
            second.clone(),
            small(b"four"),
        ];
        rig.frames(&frames);
        let expected = [b"one".to_vec(), b"two".to_vec(), pattern(4000), b"four".to_vec()];
        assert_eq!(opened(&mut rig, 0).borrow().sent, expected);
    }
}

#[test]
fn large_datagram_of_the_host_comes_in_fragments_and_is_whole() {
    for (ends, shared) in FAMILIES.iter().flat_map(|it| [(*it, false), (*it, true)]) {
        let key = udp(ends);
        for len in [1473, 8192, 65_507] {
            let mut rig = Rig::<Socket>::new();
            rig.mtu = Some(Mtu::try_from(1500).unwrap());
            rig.has(&[HERE], &[HERE6]);
            if shared {
                rig.message(rule(
                    Direction::Inbound,
                    Transport::Udp,
                    (5300, 1024),
                    Effort::Explicit,
                ));
                let listener = Rc::clone(&rig.stack.sockets().listeners[0].1);
                let local = if key.remote.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
                let addresses = DatagramAddresses { peer: key.remote, local };
                listener.borrow_mut().arrivals.push_back((addresses, pattern(len)));
                came(&mut rig, &listener);
            } else {
                rig.frames(&[datagram(&key, b"x")]);
                let socket = opened(&mut rig, 0);
                socket.borrow_mut().datagrams.push_back(pattern(len));
                rig.event(&socket, Readiness::READABLE);
            }
            let whole = whole(&rig.received());
            let [frame] = &whole[..] else { panic!("{len}: {} datagrams", whole.len()) };
            let read = classify(frame, Framing::Vnet).unwrap();
            let Content::Udp { source, destination, payload, .. } = read.content else {
                panic!("no datagram")
            };
            assert_eq!((source, destination), (key.remote, key.namespace));
            assert_eq!(payload, pattern(len));
        }
    }
}

/// The packets that the namespace makes of fragments, each of which its link carries.
fn whole(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (mut reassembly, mut counters) = (Reassembly::default(), Counters::default());
    let add = |frame: &Vec<u8>| {
        assert!(frame.len() - LINK <= 1500, "larger than the link carries");
        let read = classify(frame, Framing::Vnet).unwrap();
        let Content::Fragment(packet, piece) = read.content else { return None };
        let sender = (read.mac, Framing::Vnet);
        let now = pasta_datapath::time::Instant::START;
        reassembly.add(now, sender, (&packet, piece), &mut counters).unwrap()
    };
    frames.iter().filter_map(add).collect()
}

#[test]
fn large_echo_comes_and_goes_in_fragments() {
    for ends in FAMILIES {
        let key = echo(ends);
        let mut rig = Rig::<Socket>::new();
        rig.mtu = Some(Mtu::try_from(1500).unwrap());
        rig.has(&[HERE], &[HERE6]);
        let body = pattern(8000);
        rig.frames(&[echo_request(&key, &body)]);
        let socket = opened(&mut rig, 0);
        assert_eq!(socket.borrow().sent[0][6..], body);
        let kind = if key.remote.is_ipv4() { 0 } else { 129 };
        socket.borrow_mut().datagrams.push_back([&[kind, 0, 0, 0, 9, 9], &body[..]].concat());
        rig.event(&socket, Readiness::READABLE);
        let frames = rig.received();
        assert_eq!(frames.len(), 6);
        let whole = whole(&frames);
        let [frame] = &whole[..] else { panic!("{} replies", whole.len()) };
        let header = if key.remote.is_ipv4() { IPV4_LEN } else { IPV6_LEN + 8 };
        let message = &frame[LINK + header..];
        assert_eq!((message[0], &message[6..]), (kind, &body[..]));
    }
}

#[test]
fn what_is_not_whole_in_time_is_reported_to_its_sender() {
    for (ends, seconds, icmp) in [(FAMILIES[0], 30, [11, 1]), (FAMILIES[1], 60, [3, 1])] {
        let key = udp(ends);
        for (missing, reported) in [(1, true), (0, false)] {
            let mut rig = Rig::<Socket>::new();
            let mut frames = cut(&key, &pattern(2000), 1500);
            frames.remove(missing);
            rig.frames(&frames);
            rig.wait(Duration::from_secs(seconds - 1));
            assert_eq!((rig.received().len(), rig.dropped(DropReason::FragmentsLate)), (0, 0));
            rig.wait(Duration::from_secs(1));
            assert_eq!(rig.dropped(DropReason::FragmentsLate), 1);
            let received = rig.received();
            assert_eq!(received.len(), usize::from(reported));
            let Some(frame) = received.first() else { continue };
            let header = if key.remote.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
            let message = &frame[LINK + header..];
            assert_eq!(message[..2], icmp);
            assert_eq!(message[8 + header..][..4], [4, 0, 0, 7], "the ports");
            assert!(rig.stack.sockets().opened.is_empty());
        }
    }
}

#[test]
fn datagrams_of_ipv4_may_be_fragmented_in_the_namespace_and_have_numbers_of_their_own() {
    let key = udp(FAMILIES[0]);
    let mut rig = Rig::<Socket>::new();
    rig.frames(&[datagram(&key, b"x")]);
    let socket = opened(&mut rig, 0);
    // Two of one size are in one frame, which stands for two numbers.
    for group in [&[100, 100][..], &[50], &[60_000]] {
        let datagrams = group.iter().map(|len| pattern(*len));
        socket.borrow_mut().datagrams.extend(datagrams);
        rig.event(&socket, Readiness::READABLE);
    }
    let headers: Vec<_> = rig
        .received()
        .iter()
        .map(|frame| {
            let network = &frame[LINK..LINK + IPV4_LEN];
            assert_eq!(Sum::default().octets(network).folded(), 0xffff);
            (u16::from_be_bytes([network[4], network[5]]), network[6])
        })
        .collect();
    assert_eq!(headers, [(0, 0), (2, 0), (3, 0)]);
}
