//! The whole stack without a descriptor: how flows of every kind are opened, carried and ended.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which a failure ends")]

mod fake;

use fake::rig::{
    HERE, HERE6, OURS, ROUTER, Rig, came, datagram, echo_request, key, mac, opened, policy, rule,
    segment,
};
use fake::{Shared, Socket, State};
use nix::errno::Errno;
use pasta_datapath::control::PeerMessage;
use pasta_datapath::counters::DropReason;
use pasta_datapath::flow::datagram::QueuedError;
use pasta_datapath::flow::{FlowKey, Readiness};
use pasta_datapath::link::classify::{Content, Framing, classify};
use pasta_datapath::link::responder::Responder;
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::port_forward::listeners::DatagramAddresses;
use pasta_datapath::sockets::Progress;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, Header, SackBlocks, SynOptions, ToSend};
use pasta_datapath::wire::window::{Mss, WindowScale, WireWindow};
use pasta_datapath::wire::{arp, ethernet, icmp, ip, vnet};
use pasta_ipc::DatapathToMonitor;
use pasta_ipc::port_forward::{Direction, Effort};
use pasta_ipc::socket::{Refusal, RequestId};
use pasta_ipc::start::{ClientOptions, FamilyPolicy, HostLoopback, Responders};
use pasta_ipc::types::{
    Bounded, Generation, NeighbourEntry, NeighbourSnapshot, Service, Transport,
};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

const REMOTE: &str = "198.51.100.1:80";
const ISS: u32 = 1000;

fn tcp_key() -> FlowKey {
    key(Protocol::Tcp, "192.0.2.7:1024", REMOTE)
}

fn udp_key() -> FlowKey {
    key(Protocol::Udp, "192.0.2.7:1024", "198.51.100.1:7")
}

fn header(seq: u32, ack: Seq, flags: Flags) -> ToSend {
    let syn = flags.contains(Flags::SYN).then_some(SynOptions {
        mss: Mss::new(1460),
        window_scale: Some(WindowScale::new(7)),
        sack_permitted: true,
    });
    ToSend {
        seq: Seq::from(seq),
        ack,
        flags,
        window: WireWindow::from(60_000),
        syn,
        sack: SackBlocks::NONE,
    }
}

fn syn() -> Vec<u8> {
    segment(&tcp_key(), &header(ISS, Seq::default(), Flags::SYN), &[])
}

/// The only segment that was received.
fn only(rig: &Rig) -> (Header, Vec<u8>) {
    let segments = rig.segments();
    let [(source, destination, header, payload)] = &segments[..] else {
        panic!("not one segment: {segments:?}")
    };
    assert_eq!((*source, *destination), (tcp_key().remote, tcp_key().namespace));
    (*header, payload.clone())
}

/// A connection of the namespace's, established; gives our next number.
fn established(rig: &mut Rig) -> (Shared<State>, Seq) {
    rig.frames(&[syn()]);
    let (answer, _) = only(rig);
    assert_eq!(answer.flags, Flags::SYN.with(Flags::ACK));
    let next = answer.seq + 1;
    rig.frames(&[segment(&tcp_key(), &header(ISS + 1, next, Flags::ACK), &[])]);
    (opened(rig, 0), next)
}

/// A listener of the host for one port.
fn listening(rig: &mut Rig, transport: Transport) -> Shared<State> {
    rig.message(rule(Direction::Inbound, transport, (8080, 8080), Effort::Explicit));
    let (at, state) = &rig.stack.sockets().listeners[0];
    assert_eq!((at.transport, at.port.get()), (transport, 8080));
    Rc::clone(state)
}

fn connects(rig: &mut Rig, listener: &Shared<State>, local: &str, peer: &str) -> Shared<State> {
    let peer: SocketAddr = peer.parse().unwrap();
    let (socket, state) = Socket::connected(local.parse().unwrap(), peer);
    listener.borrow_mut().connections.push_back((socket, peer));
    came(rig, listener);
    state
}

fn request(rig: &mut Rig) -> RequestId {
    match rig.stack.next_request() {
        Some(DatapathToMonitor::SocketsWanted { request, .. }) => request,
        other => panic!("no request for sockets: {other:?}"),
    }
}

#[test]
fn connection_carries_octets_both_ways_and_closes_in_order() {
    let mut rig = Rig::new();
    let (socket, next) = established(&mut rig);
    rig.received();
    rig.frames(&[segment(&tcp_key(), &header(ISS + 1, next, Flags::ACK), b"request")]);
    assert_eq!(socket.borrow().outgoing, b"request");

    socket.borrow_mut().incoming.extend(b"answer");
    rig.event(&socket, Readiness::READABLE);
    let (answer, octets) = only(&rig);
    assert_eq!((answer.ack, &octets[..]), (Seq::from(ISS + 8), &b"answer"[..]));

    socket.borrow_mut().ended = true;
    rig.event(&socket, Readiness::ENDED.with(Readiness::READABLE, true));
    let (fin, _) = only(&rig);
    assert!(fin.flags.contains(Flags::FIN));
    let fin_ack = Flags::FIN.with(Flags::ACK);
    rig.frames(&[segment(&tcp_key(), &header(ISS + 8, fin.seq + 1, fin_ack), &[])]);
    assert!(socket.borrow().shut_down && socket.borrow().closed && !socket.borrow().resets);
    assert!(rig.stack.flows().table.is_empty());
}

#[test]
fn refused_connection_is_a_reset_and_an_unreachable_one_an_icmp_error() {
    for (errno, is_reset) in [(Errno::ECONNREFUSED, true), (Errno::EHOSTUNREACH, false)] {
        let mut rig = Rig::<Socket>::new();
        rig.stack.sockets().answers.push_back(Ok(Progress::Connecting));
        rig.frames(&[syn()]);
        assert!(rig.received().is_empty(), "it connects");
        let socket = opened(&mut rig, 0);
        socket.borrow_mut().error = Some(errno);
        rig.event(&socket, Readiness::FAILED);
        let frames = rig.received();
        assert_eq!(frames.len(), 1);
        let content = classify(&frames[0], Framing::Vnet).map(|frame| frame.content);
        let reset = Flags::RST.with(Flags::ACK);
        let found = matches!(content, Ok(Content::Tcp { header, .. }) if header.flags == reset);
        assert_eq!(found, is_reset, "{content:?}");
        assert_eq!(rig.dropped(DropReason::Unreachable), 1);
        assert!(rig.stack.flows().table.is_empty());
    }
}

#[test]
fn syn_behind_a_reset_in_one_batch_opens_another_connection() {
    let mut rig = Rig::new();
    let (first, next) = established(&mut rig);
    rig.received();
    let reset = segment(&tcp_key(), &header(ISS + 1, next, Flags::RST), &[]);
    let again = segment(&tcp_key(), &header(90_000, Seq::default(), Flags::SYN), &[]);
    rig.frames(&[reset, again]);
    assert!(first.borrow().closed && first.borrow().resets);
    assert_eq!(only(&rig).0.ack, Seq::from(90_001));
    assert_eq!(rig.stack.flows().table.len(), 1);
}

#[test]
fn segment_for_no_flow_is_answered_by_a_reset() {
    let mut rig = Rig::new();
    rig.frames(&[segment(&tcp_key(), &header(5, Seq::from(77), Flags::ACK), b"late")]);
    assert_eq!((only(&rig).0.seq, rig.dropped(DropReason::NoFlow)), (Seq::from(77), 1));
}

#[test]
fn datagrams_of_one_flow_go_out_in_order_and_answers_come_as_one_frame() {
    let mut rig = Rig::<Socket>::new();
    let batch: Vec<_> = [b"one", b"two"].iter().map(|it| datagram(&udp_key(), *it)).collect();
    rig.frames(&batch);
    let socket = opened(&mut rig, 0);
    assert_eq!(socket.borrow().sent, [b"one", b"two"]);
    assert_eq!(rig.stack.sockets().opened[0].port, Some(1024));
    socket.borrow_mut().datagrams.extend([vec![1; 100], vec![2; 100], vec![3; 50]]);
    rig.event(&socket, Readiness::READABLE);
    let received = rig.datagrams();
    let [(source, _, payload, size)] = &received[..] else { panic!("{received:?}") };
    assert_eq!((*source, payload.len(), *size), (udp_key().remote, 250, Some(100)));
}

#[test]
fn datagram_flow_ends_after_its_time_and_not_before() {
    let mut rig = Rig::<Socket>::new();
    rig.frames(&[datagram(&udp_key(), b"question")]);
    rig.wait(Duration::from_secs(20));
    rig.frames(&[datagram(&udp_key(), b"question")]);
    rig.wait(Duration::from_secs(29));
    let socket = opened(&mut rig, 0);
    assert!(!socket.borrow().closed);
    socket.borrow_mut().datagrams.push_back(b"answer".to_vec());
    rig.event(&socket, Readiness::READABLE);
    rig.wait(Duration::from_secs(179));
    assert!(!socket.borrow().closed);
    rig.wait(Duration::from_secs(1));
    assert!(socket.borrow().closed);
}

#[test]
fn query_goes_to_the_next_resolver_after_a_hard_error_and_the_first_may_still_answer() {
    let mut rig = Rig::<Socket>::with_resolvers(&[1, 2]);
    let query = key(Protocol::Udp, "192.0.2.7:1024", "192.0.2.53:53");
    rig.frames(&[datagram(&query, b"who")]);
    let first = opened(&mut rig, 0);
    assert_eq!(first.borrow().peer, Some("203.0.113.1:53".parse().unwrap()));
    let error = QueuedError::of(Errno::ECONNREFUSED);
    first.borrow_mut().queued_errors.push_back(error);
    rig.event(&first, Readiness::FAILED);
    assert_eq!(rig.received().len(), 1, "an ICMP error");
    rig.frames(&[datagram(&query, b"who")]);
    let second = opened(&mut rig, 1);
    assert_eq!(second.borrow().peer, Some("203.0.113.2:53".parse().unwrap()));
    assert!(!first.borrow().closed);
    first.borrow_mut().datagrams.push_back(b"late".to_vec());
    rig.event(&second, Readiness::READABLE);
    assert_eq!(rig.datagrams()[0].2, b"late");
    assert!(first.borrow().closed);
}

#[test]
fn query_goes_to_the_next_resolver_after_silence_and_not_while_one_answers() {
    let query = key(Protocol::Udp, "192.0.2.7:1024", "192.0.2.53:53");
    for answers in [false, true] {
        let mut rig = Rig::<Socket>::with_resolvers(&[1, 2]);
        rig.frames(&[datagram(&query, b"who")]);
        rig.wait(Duration::from_secs(2));
        let first = opened(&mut rig, 0);
        if answers {
            first.borrow_mut().datagrams.push_back(b"answer".to_vec());
            rig.event(&first, Readiness::READABLE);
        }
        rig.wait(Duration::from_secs(3));
        // Another client, and the same one.
        rig.frames(&[datagram(&key(Protocol::Udp, "192.0.2.7:1025", "192.0.2.53:53"), b"who")]);
        rig.frames(&[datagram(&query, b"who")]);
        let expected = if answers { "203.0.113.1:53" } else { "203.0.113.2:53" };
        assert_eq!(opened(&mut rig, 1).borrow().peer, expected.parse().ok(), "{answers}");
        let asked = if answers { first } else { opened(&mut rig, 2) };
        assert_eq!(asked.borrow().peer, expected.parse().ok(), "{answers}");
        assert_eq!(asked.borrow().sent.last().map(Vec::as_slice), Some(&b"who"[..]));
    }
}

#[test]
fn echo_has_a_flow_of_its_own_and_lives_a_minute() {
    let mut rig = Rig::<Socket>::new();
    let ping = key(Protocol::Echo, "192.0.2.7:77", "198.51.100.1:0");
    rig.frames(&[echo_request(&ping, &[0, 1, b'x'])]);
    let socket = opened(&mut rig, 0);
    // Type and code; the kernel fills in what is between those and the sequence number.
    assert_eq!(socket.borrow().sent[0].split_first().map(|(kind, _)| *kind), Some(8));
    socket.borrow_mut().datagrams.push_back(vec![0, 0, 0, 0, 9, 9, 0, 1, b'x']);
    rig.event(&socket, Readiness::READABLE);
    assert_eq!(rig.received().len(), 1);
    rig.wait(Duration::from_secs(59));
    assert!(!socket.borrow().closed);
    rig.wait(Duration::from_secs(1));
    assert!(socket.borrow().closed);
}

#[test]
fn remote_connection_to_a_listener_is_opened_into_the_namespace() {
    let mut rig = Rig::new();
    let listener = listening(&mut rig, Transport::Tcp);
    let socket = connects(&mut rig, &listener, "203.0.113.9:8080", "198.51.100.1:5000");
    let segments = rig.segments();
    let [(source, destination, syn, _)] = &segments[..] else { panic!("{segments:?}") };
    assert_eq!(source.to_string(), "198.51.100.1:5000");
    assert_eq!(destination.to_string(), "192.0.2.7:8080");
    assert_eq!(syn.flags, Flags::SYN);

    let namespace = key(Protocol::Tcp, "192.0.2.7:8080", "198.51.100.1:5000");
    let answer = header(ISS, syn.seq + 1, Flags::SYN.with(Flags::ACK));
    rig.frames(&[segment(&namespace, &answer, &[])]);
    let data = header(ISS + 1, syn.seq + 1, Flags::ACK);
    rig.frames(&[segment(&namespace, &data, b"hello")]);
    assert_eq!(socket.borrow().outgoing, b"hello");
    // The same peer from the same port again: it knows nothing of the first.
    let again = connects(&mut rig, &listener, "203.0.113.9:8080", "198.51.100.1:5000");
    assert!(socket.borrow().closed && !again.borrow().closed);
}

#[test]
fn local_connection_is_spliced_once_a_socket_of_the_namespace_is_there() {
    let mut rig = Rig::new();
    let listener = listening(&mut rig, Transport::Tcp);
    let client = connects(&mut rig, &listener, "127.0.0.1:8080", "127.0.0.1:5000");
    assert!(rig.received().is_empty(), "no frame");
    client.borrow_mut().incoming.extend(b"early");
    let (socket, service) = Socket::new();
    let request = request(&mut rig);
    rig.message(PeerMessage::Sockets(request, vec![socket]));
    assert_eq!(rig.stack.sockets().connected[0].0.to_string(), "127.0.0.1:8080");
    assert_eq!(service.borrow().outgoing, b"early");
    service.borrow_mut().incoming.extend(b"answer");
    rig.event(&service, Readiness::READABLE);
    assert_eq!(client.borrow().outgoing, b"answer");

    for side in [&client, &service] {
        side.borrow_mut().ended = true;
        rig.event(side, Readiness::ENDED);
    }
    assert!(client.borrow().closed && service.borrow().closed);
    assert!(!client.borrow().resets);
}

#[test]
fn local_connection_without_a_socket_or_a_service_is_reset() {
    for refused in [true, false] {
        let mut rig = Rig::new();
        let listener = listening(&mut rig, Transport::Tcp);
        let client = connects(&mut rig, &listener, "127.0.0.1:8080", "127.0.0.1:5000");
        let request = request(&mut rig);
        if refused {
            rig.message(PeerMessage::Refused(request, Refusal::Denied));
        } else {
            // Nor is there one at localhost of the other family.
            let refusals = [Err(Errno::ECONNREFUSED), Err(Errno::ECONNREFUSED)];
            rig.stack.sockets().answers.extend(refusals);
            rig.message(PeerMessage::Sockets(request, vec![Socket::new().0]));
            // One of the other family is asked for among those for stock.
            while !client.borrow().closed {
                let request = self::request(&mut rig);
                rig.message(PeerMessage::Sockets(request, vec![Socket::new().0]));
            }
        }
        assert!(client.borrow().closed && client.borrow().resets);
        let reason = if refused { DropReason::NoSocket } else { DropReason::Unreachable };
        assert_eq!(rig.dropped(reason), 1);
    }
}

#[test]
fn answer_that_nobody_has_asked_for_is_a_violation() {
    let mut rig = Rig::<Socket>::new();
    let answer = PeerMessage::Refused(RequestId(7), Refusal::Busy);
    assert!(rig.stack.handle_message(rig.now, answer).is_err());
}

#[test]
fn datagrams_of_a_listener_are_answered_from_the_address_that_was_asked() {
    let mut rig = Rig::<Socket>::new();
    let listener = listening(&mut rig, Transport::Udp);
    let peer = "198.51.100.1:5000".parse().unwrap();
    let addresses = DatagramAddresses { peer, local: "203.0.113.9".parse().unwrap() };
    listener.borrow_mut().arrivals.extend([(addresses, vec![1; 10]), (addresses, vec![2; 10])]);
    came(&mut rig, &listener);
    let received = rig.datagrams();
    let [(source, _, payload, Some(10))] = &received[..] else { panic!("{received:?}") };
    assert_eq!((*source, payload.len()), (peer, 20));
    let namespace = key(Protocol::Udp, "192.0.2.7:8080", "198.51.100.1:5000");
    rig.frames(&[datagram(&namespace, b"answer")]);
    assert_eq!(listener.borrow().answers, [(addresses, b"answer".to_vec())]);
    assert_eq!(rig.stack.flows().table.len(), 1);
    rig.wait(Duration::from_secs(180));
    assert!(rig.stack.flows().table.is_empty());
    listener.borrow_mut().arrivals.push_back((addresses, vec![1; 10]));
    came(&mut rig, &listener);
    assert_eq!(rig.stack.flows().table.len(), 1, "it begins anew");
}

#[test]
fn local_datagrams_wait_for_their_socket_up_to_a_bound() {
    let mut rig = Rig::<Socket>::new();
    let listener = listening(&mut rig, Transport::Udp);
    let peer = "127.0.0.1:5000".parse().unwrap();
    let addresses = DatagramAddresses { peer, local: "127.0.0.1".parse().unwrap() };
    for n in 0..5 {
        listener.borrow_mut().arrivals.push_back((addresses, vec![n; 30_000 + usize::from(n)]));
        came(&mut rig, &listener);
    }
    assert_eq!(rig.dropped(DropReason::SocketFull), 1);
    let (socket, service) = Socket::new();
    let request = request(&mut rig);
    rig.message(PeerMessage::Sockets(request, vec![socket]));
    assert_eq!(service.borrow().sent.len(), 4);
    service.borrow_mut().datagrams.push_back(b"answer".to_vec());
    rig.event(&service, Readiness::READABLE);
    assert_eq!(listener.borrow().answers, [(addresses, b"answer".to_vec())]);
}

#[test]
fn listeners_follow_the_rules_and_what_cannot_be_opened_is_logged_once() {
    let mut rig = Rig::<Socket>::new();
    while rig.stack.log().take().is_some() {}
    rig.stack.sockets().listen_error = Some(Errno::EADDRINUSE);
    rig.message(rule(Direction::Inbound, Transport::Tcp, (8080, 8080), Effort::Explicit));
    rig.message(rule(Direction::Inbound, Transport::Tcp, (8080, 8080), Effort::Explicit));
    let mut lines = std::iter::from_fn(|| rig.stack.log().take());
    assert!(lines.next().unwrap().1.starts_with("cannot listen on TCP port 8080"));
    assert_eq!(lines.next(), None);

    rig.stack.sockets().listen_error = None;
    let listener = listening(&mut rig, Transport::Tcp);
    rig.message(rule(Direction::Inbound, Transport::Tcp, (8081, 8081), Effort::Explicit));
    assert!(listener.borrow().closed, "nobody wants it any more");
    rig.stack.close_listeners();
    assert!(rig.stack.sockets().listeners[1].1.borrow().closed);
}

/// The next question on the tap: who asks, with which address, for what.
fn asked(rig: &Rig) -> Option<(pasta_ipc::types::MacAddr, IpAddr, IpAddr)> {
    let mut written = rig.written.borrow_mut();
    let octets = if written.is_empty() { return None } else { written.remove(0) };
    let frame = classify(&octets, Framing::Vnet).unwrap();
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
/// stack sends to then.
fn answers(
    rig: &mut Rig,
    from: pasta_ipc::types::MacAddr,
    address: &str,
    at: pasta_ipc::types::MacAddr,
) -> pasta_ipc::types::MacAddr {
    let frame = match address.parse().unwrap() {
        IpAddr::V4(sender) => {
            let target = ROUTER.parse().unwrap();
            let request = arp::Request { sender_mac: OURS, sender: target, target: sender };
            let header = ethernet::header(OURS.octets(), from, ethernet::TYPE_ARP);
            [&header[..], &arp::reply(&request, at)].concat()
        }
        IpAddr::V6(target) => {
            let to: Ipv6Addr = "fe80::1".parse().unwrap();
            let header = ethernet::header(OURS.octets(), from, ethernet::TYPE_IPV6);
            let len = icmp::NEIGHBOUR_LEN as u16;
            let packet = ip::ipv6_header(target, to, ip::PROTOCOL_ICMPV6, len);
            let message = icmp::neighbour_advertisement(target, to, target, at);
            [&header[..], &packet, &message].concat()
        }
    };
    rig.frames(&[[&pasta_datapath::wire::vnet::COMPLETE[..], &frame].concat()]);
    rig.stack.link().neighbours.namespace_mac(self::at(address))
}

fn at(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn bare(ipv4: FamilyPolicy<std::net::Ipv4Addr>, ipv6: FamilyPolicy<Ipv6Addr>) -> Rig {
    Rig::with(Nat::new(ipv4, ipv6), 64)
}

#[test]
fn namespace_is_asked_when_it_has_new_addresses_and_its_answer_counts() {
    let mut rig = bare(policy(Service::On), policy(Service::On));
    rig.has(&[HERE], &[HERE6]);
    assert_eq!(asked(&rig), Some((OURS, at(ROUTER), at(HERE))));
    assert_eq!(asked(&rig), Some((OURS, at("fe80::1"), at(HERE6))));
    assert_eq!(asked(&rig), None);
    assert_eq!(answers(&mut rig, mac(2), HERE, mac(2)), mac(2));
    assert_eq!(answers(&mut rig, mac(3), HERE6, mac(3)), mac(3));

    rig.has(&[HERE, "192.0.2.60"], &[HERE6]);
    assert_eq!(asked(&rig), Some((OURS, at(ROUTER), at(HERE))));
    assert_eq!(asked(&rig), Some((OURS, at(ROUTER), at("192.0.2.60"))));
    rig.has(&[HERE, "192.0.2.60"], &[HERE6]);
    assert_eq!(asked(&rig), None, "nothing is new");
    assert_eq!(rig.dropped(DropReason::NeighbourNotOurs), 0);
}

#[test]
fn answers_of_others_and_in_the_name_of_others_are_counted_drops() {
    let mut rig = bare(policy(Service::On), policy(Service::On));
    assert_eq!(answers(&mut rig, mac(2), HERE, mac(2)), mac(1), "nothing is known yet");
    rig.has(&[HERE, "192.0.2.60"], &[HERE6, "fe80::77"]);
    for (from, address, to) in [
        (mac(2), HERE, mac(3)),
        (mac(2), HERE6, mac(3)),
        (mac(2), "192.0.2.9", mac(2)),
        (mac(2), "192.0.2.60", mac(2)),
        (mac(2), "fe80::77", mac(2)),
    ] {
        assert_eq!(answers(&mut rig, from, address, to), mac(1), "{address}");
    }
    assert_eq!(rig.dropped(DropReason::NeighbourNotOurs), 6);
}

#[test]
fn family_that_is_off_is_neither_asked_nor_learned_from() {
    let mut rig = bare(policy(Service::On), policy(Service::Off));
    rig.has(&[HERE], &[HERE6]);
    assert_eq!(asked(&rig), Some((OURS, at(ROUTER), at(HERE))));
    assert_eq!(asked(&rig), None);
    assert_eq!(answers(&mut rig, mac(2), HERE6, mac(2)), mac(1));
}

#[test]
fn addresses_that_the_namespace_has_taken_from_us_are_not_asked_from() {
    let mut rig = bare(policy(Service::On), policy(Service::On));
    rig.has(&[HERE, ROUTER], &[HERE6, "fe80::1"]);
    assert_eq!(asked(&rig), Some((OURS, at("0.0.0.0"), at(HERE))));
    assert_eq!(asked(&rig), Some((OURS, at("0.0.0.0"), at(ROUTER))));
    assert_eq!(asked(&rig), None);
}

#[test]
fn router_that_is_not_mapped_is_never_said_to_be_at_our_address() {
    let ipv4 = FamilyPolicy { host_loopback: HostLoopback::None, ..policy(Service::On) };
    let ipv6 = FamilyPolicy { host_loopback: HostLoopback::None, ..policy(Service::On) };
    let mut rig = bare(ipv4, ipv6);
    rig.has(&[HERE], &[HERE6]);
    assert_eq!(asked(&rig), Some((OURS, at("0.0.0.0"), at(HERE))));
    assert_eq!(asked(&rig), None);

    let entries = [ROUTER, "fe80::1"].map(|it| NeighbourEntry { address: at(it), mac: mac(9) });
    let entries = Bounded::truncated(entries).0;
    let known = NeighbourSnapshot { generation: Generation(1), entries };
    rig.message(PeerMessage::Neighbours(Box::new(known)));
    rig.has(&["192.0.2.60"], &["2001:db8::60"]);
    assert_eq!(asked(&rig), Some((mac(9), at(ROUTER), at("192.0.2.60"))));
    assert_eq!(asked(&rig), Some((mac(9), at("fe80::1"), at("2001:db8::60"))));
}

#[test]
fn flows_of_an_address_that_leaves_are_reset_on_both_sides_and_the_others_live() {
    let mut rig = Rig::<Socket>::new();
    let stays = key(Protocol::Tcp, "192.0.2.8:1024", REMOTE);
    let syn_of = |key| segment(key, &header(ISS, Seq::default(), Flags::SYN), &[]);
    let (leaves, _) = established(&mut rig);
    rig.frames(&[syn_of(&stays), datagram(&udp_key(), b"one")]);
    let (other, datagrams) = (opened(&mut rig, 1), opened(&mut rig, 2));
    rig.received();

    rig.loses(&[HERE, "192.0.2.8"], &[HERE6], &[HERE]);
    assert!(only(&rig).0.flags.contains(Flags::RST));
    assert!(leaves.borrow().closed && leaves.borrow().resets && datagrams.borrow().closed);
    assert!(!other.borrow().closed);
    assert_eq!(rig.stack.counters().left, 2);
    let generation = Generation(2);
    assert_eq!(rig.stack.next_request(), Some(DatapathToMonitor::FlowsReset { generation }));
    assert_eq!(rig.stack.next_request(), None, "said once");

    rig.received();
    rig.frames(&[syn()]);
    assert!(only(&rig).0.flags.contains(Flags::RST), "nothing is opened from it meanwhile");
    rig.has(&["192.0.2.8"], &[HERE6]);
    assert_eq!(rig.stack.next_request(), None);
    rig.frames(&[syn()]);
    assert_eq!(rig.stack.sockets().opened.len(), 4, "its users may have it again");
}

#[test]
fn flows_of_an_ipv6_address_that_leaves_are_reset_too() {
    let mut rig = Rig::<Socket>::new();
    let ours = key(Protocol::Tcp, "[2001:db8::7]:1024", "[2001:db8:1::1]:80");
    rig.frames(&[segment(&ours, &header(ISS, Seq::default(), Flags::SYN), &[])]);
    rig.received();
    rig.loses(&[HERE], &[HERE6], &[HERE6]);
    let segments = rig.segments();
    let [(_, to, reset, _)] = &segments[..] else { panic!("{segments:?}") };
    assert!(*to == ours.namespace && reset.flags.contains(Flags::RST));
    assert!(opened(&mut rig, 0).borrow().closed);
}

/// To which link-layer addresses frames went since the last call, questions apart.
fn went_to(rig: &Rig) -> Vec<[u8; 6]> {
    let is_question = |octets: &Vec<u8>| {
        let content = classify(octets, Framing::Vnet).map(|it| it.content);
        matches!(content, Ok(Content::Arp(_) | Content::NeighbourSolicitation { .. }))
    };
    let frames = rig.received().into_iter().filter(|it| !is_question(it));
    let to = |octets: Vec<u8>| octets[pasta_datapath::wire::vnet::LEN..].first_chunk().copied();
    frames.filter_map(to).collect()
}

/// Has a connection or a datagram from outside come to a listener of a new port, for the namespace's `family`.
fn arrives(rig: &mut Rig, transport: Transport, family: [&str; 2]) {
    let [local, peer] = family.map(|it| SocketAddr::new(at(it), 8080));
    let listener = listening(rig, transport);
    match transport {
        Transport::Tcp => {
            let connection = (Socket::connected(local, peer).0, peer);
            listener.borrow_mut().connections.push_back(connection);
        }
        Transport::Udp => {
            let addresses = DatagramAddresses { peer, local: local.ip() };
            listener.borrow_mut().arrivals.push_back((addresses, vec![1]));
        }
    }
    came(rig, &listener);
}

#[test]
fn silent_namespace_at_another_link_layer_address_is_asked_for_and_found() {
    let (v4, v6) = (["203.0.113.9", "198.51.100.1"], ["2001:db8:1::9", "2001:db8:2::1"]);
    let (here, here6) = (("192.0.2.1", HERE), ("fe80::1", HERE6));
    for (family, (router, address)) in [(v4, here), (v6, here6)] {
        let mut rig = Rig::<Socket>::new();
        arrives(&mut rig, Transport::Tcp, family);
        assert_eq!(went_to(&rig), [mac(1).octets()]);
        rig.wait(Duration::from_millis(600));
        assert_eq!(asked(&rig), Some((OURS, at(router), at(address))));
        assert_eq!(answers(&mut rig, mac(2), address, mac(2)), mac(2));
        rig.wait(Duration::from_millis(600));
        assert_eq!(went_to(&rig), [mac(2).octets()], "the SYN is retransmitted");

        let mut rig = Rig::<Socket>::new();
        arrives(&mut rig, Transport::Udp, family);
        rig.wait(Duration::from_millis(600));
        assert_eq!(went_to(&rig), [mac(1).octets()]);
        answers(&mut rig, mac(2), address, mac(2));
        arrives(&mut rig, Transport::Udp, family);
        assert_eq!(went_to(&rig), [mac(2).octets()]);
    }
}

#[test]
fn frame_of_the_namespace_moves_flows_that_it_does_not_answer() {
    let mut rig = Rig::<Socket>::new();
    arrives(&mut rig, Transport::Tcp, ["203.0.113.9", "198.51.100.1"]);
    went_to(&rig);
    // Another flow, from the new address.
    let mut echo = echo_request(&key(Protocol::Echo, "192.0.2.7:9", "198.51.100.9:0"), &[0, 1]);
    let source = pasta_datapath::wire::vnet::LEN + 6;
    echo[source..source + 6].copy_from_slice(&mac(2).octets());
    rig.frames(&[echo]);
    rig.wait(Duration::from_millis(1100));
    assert_eq!(went_to(&rig), [mac(2).octets()]);
}

#[test]
fn question_that_nobody_answers_is_asked_no_more_than_once_a_second() {
    let mut rig = Rig::<Socket>::new();
    arrives(&mut rig, Transport::Tcp, ["203.0.113.9", "198.51.100.1"]);
    rig.wait(Duration::from_secs(60));
    let questions = std::iter::from_fn(|| {
        let octets = rig.written.borrow_mut().pop()?;
        let content = classify(&octets, Framing::Vnet).map(|it| it.content);
        Some(matches!(content, Ok(Content::Arp(_))))
    });
    let questions = questions.filter(|it| *it).count();
    // Three for each retransmission, of which there are six in that time.
    assert!((10..=18).contains(&questions), "{questions}");
}

/// A DHCP client's request for any address.
fn discover() -> Vec<u8> {
    include_bytes!("golden/udhcpc-discover.bin").to_vec()
}

#[test]
fn dhcp_requests_are_answered_or_carried_as_any_datagram() {
    let to_all = key(Protocol::Udp, "0.0.0.0:68", "255.255.255.255:67");
    let to_one = key(Protocol::Udp, "192.0.2.7:68", "198.51.100.1:67");
    for dhcp in [Service::On, Service::Off] {
        let mut rig: Rig = Rig::new();
        let services = Responders { dhcp, ..Responders::default() };
        rig.stack.link().responder = Responder::new(services, ClientOptions::default(), 7);
        rig.has(&[HERE], &[HERE6]);
        rig.written.borrow_mut().clear();
        rig.frames(&[datagram(&to_all, &discover()), datagram(&to_one, &discover())]);
        let answers = rig.datagrams();
        let opened = rig.stack.sockets().opened.len();
        let refused = rig.dropped(DropReason::ImpossibleSource);
        let wanted = match dhcp {
            Service::On => (2, 0, 0),
            Service::Off => (0, 1, 1),
        };
        assert_eq!((answers.len(), opened, refused), wanted, "{dhcp:?}");
        for (source, destination, payload, _) in answers {
            assert_eq!((source.port(), destination), (67, "192.0.2.7:68".parse().unwrap()));
            assert_eq!(payload[..4], [2, 1, 6, 0]);
        }
    }
}

#[test]
fn a_change_of_the_host_is_advertised_in_the_same_turn() {
    let mut rig: Rig = Rig::new();
    let services = Responders::default();
    rig.stack.link().responder = Responder::new(services, ClientOptions::default(), 7);
    rig.written.borrow_mut().clear();
    rig.has(&[HERE], &[HERE6]);
    assert_eq!(rig.stack.deadline(), Some(rig.now));
    let advertised = |rig: &mut Rig| {
        rig.stack.fire_timers(rig.now);
        let frames = rig.received();
        frames.iter().filter(|it| it.get(vnet::LEN + 54) == Some(&134)).count()
    };
    assert_eq!(advertised(&mut rig), 1);
    assert_eq!(advertised(&mut rig), 0);
    rig.has(&[HERE], &["2001:db8:9::7"]);
    assert_eq!(advertised(&mut rig), 1);
}
