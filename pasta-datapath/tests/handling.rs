//! Hop limit, traffic class and "don't fragment" of the namespace's packets on the host's side, and what routers say
//! of packets whose hops were used up, through the whole stack.

mod fake;

use fake::rig::{
    ReadIcmp, Rig, came, datagram, echo_request, ends, exceeded, handled, key, opened, policy,
    read_error, rule, segment,
};
use fake::{Shared, Socket, State};
use nix::errno::Errno;
use pasta_datapath::flow::datagram::queued_error::QueuedError;
use pasta_datapath::flow::datagram::send_options::{Oversize, SendOption};
use pasta_datapath::flow::{FlowKey, Readiness};
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::sockets::Progress;
use pasta_datapath::token::Token;
use pasta_datapath::wire::ip::{Fragmentation, Handling, read_ipv4, read_ipv6};
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, SackBlocks, ToSend};
use pasta_datapath::wire::{ethernet, vnet};
use pasta_ipc::port_forward::{Direction, Effort};
use pasta_ipc::start::FamilyPolicy;
use pasta_ipc::types::{Family, Service, Transport};
use std::net::IpAddr;
use std::rc::Rc;

/// An end in the namespace, a remote one, and a router on the way.
const FAMILIES: [[&str; 3]; 2] = [
    ["192.0.2.7:1024", "198.51.100.1:7", "203.0.113.1"],
    ["[2001:db8::7]:1024", "[2001:db8:1::1]:7", "2001:db8:2::1"],
];

const EXPEDITED: u8 = 0xb8;

fn with(hop_limit: u8, traffic_class: u8) -> Handling {
    Handling { hop_limit, traffic_class, fragmentation: Fragmentation::Forbidden }
}

fn options(socket: &Shared<State>) -> Vec<SendOption> {
    let options = std::mem::take(&mut socket.borrow_mut().options);
    options.into_iter().map(|(_, option)| option).collect()
}

/// A frame of an echo request, or of a datagram, of a flow.
fn frame(key: &FlowKey) -> Vec<u8> {
    match key.protocol {
        Protocol::Echo => echo_request(key, &[0, 9, b'x']),
        _ => datagram(key, b"x"),
    }
}

#[test]
fn socket_of_a_flow_sends_as_the_namespace_does_and_an_option_is_set_when_it_changes() {
    use SendOption::{HopLimit, TrafficClass};
    for ([here, remote, _], protocol) in
        FAMILIES.iter().flat_map(|it| [(it, Protocol::Udp), (it, Protocol::Echo)])
    {
        let mut key = key(protocol, here, remote);
        if protocol == Protocol::Echo {
            key.remote.set_port(0);
        }
        let mut rig = Rig::<Socket>::new();
        for (n, (handling, expected)) in [
            (with(64, 0), vec![]),
            (with(1, 0), vec![HopLimit(1)]),
            (with(1, 0), vec![]),
            (with(2, EXPEDITED), vec![HopLimit(2), TrafficClass(EXPEDITED)]),
            (with(64, 0), vec![HopLimit(64), TrafficClass(0)]),
        ]
        .into_iter()
        .enumerate()
        {
            rig.frames(&[handled(frame(&key), handling)]);
            let socket = opened(&mut rig, 0);
            assert_eq!(options(&socket), expected, "{key:?} {n}");
            assert_eq!(socket.borrow().sent.len(), n + 1);
        }
        // Of one batch, each leaves as it is to.
        rig.frames(&[1, 2, 3].map(|hops| handled(frame(&key), with(hops, 0))));
        let expected = [1, 2, 3].map(HopLimit);
        assert_eq!(options(&opened(&mut rig, 0)), expected);
    }
}

/// A program that marks its connection later, as those do that know only then what it is for.
#[test]
fn segments_with_payload_say_how_the_connection_is_marked_from_then_on() {
    use SendOption::TrafficClass;
    for [here, remote, _] in FAMILIES {
        let mut rig = Rig::<Socket>::new();
        let key = key(Protocol::Tcp, here, remote);
        rig.frames(&[handled(segment(&key, &syn(), &[]), with(64, 0))]);
        let socket = opened(&mut rig, 0);
        rig.event(&socket, Readiness::WRITABLE);
        let ours = rig.segments()[0].2.seq + 1;
        let mut seq = syn().seq + 1;
        for (payload, class, expected) in [
            (&b""[..], 0, vec![]),
            (b"", EXPEDITED, vec![]),
            (b"x", EXPEDITED, vec![TrafficClass(EXPEDITED)]),
            // The other bits are the business of its kernel and of ours.
            (b"x", EXPEDITED | 2, vec![]),
            (b"", 0, vec![]),
            (b"x", 0, vec![TrafficClass(0)]),
        ] {
            let header = ToSend { seq, ack: ours, flags: Flags::ACK, ..syn() };
            rig.frames(&[handled(segment(&key, &header, payload), with(64, class))]);
            assert_eq!(options(&socket), expected, "{remote} {payload:?} {class}");
            seq += u32::try_from(payload.len()).unwrap_or(0);
        }
        assert_eq!(socket.borrow().outgoing, b"xxx");

        let mut rig = Rig::<Socket>::new();
        rig.frames(&[handled(segment(&key, &syn(), &[]), with(64, EXPEDITED))]);
        let socket = opened(&mut rig, 0);
        rig.event(&socket, Readiness::WRITABLE);
        let ours = rig.segments()[0].2.seq + 1;
        let header = ToSend { seq: syn().seq + 1, ack: ours, flags: Flags::ACK, ..syn() };
        rig.frames(&[handled(segment(&key, &header, b"x"), with(64, EXPEDITED))]);
        assert_eq!(options(&socket), [], "it was opened so");
    }
}

#[test]
fn packet_without_hops_left_is_no_packet() {
    for [here, remote, _] in FAMILIES {
        let mut rig = Rig::<Socket>::new();
        let key = key(Protocol::Udp, here, remote);
        rig.frames(&[handled(frame(&key), with(0, 0))]);
        assert!(rig.stack.sockets().opened.is_empty());
    }
}

/// A listener that leads to the port that the namespace sends from.
fn listener(rig: &mut Rig) -> Shared<State> {
    rig.message(rule(Direction::Inbound, Transport::Udp, (5300, 1024), Effort::Explicit));
    Rc::clone(&rig.stack.sockets().listeners[0].1)
}

#[test]
fn datagram_of_a_shared_socket_says_itself_how_it_is_carried_whoever_has_begun() {
    for ([here, remote, _], begins) in FAMILIES.iter().flat_map(|it| [(it, true), (it, false)]) {
        let mut rig = Rig::<Socket>::new();
        let listener = listener(&mut rig);
        if begins {
            listener.borrow_mut().arrivals.push_back((ends(remote), b"question".to_vec()));
            came(&mut rig, &listener);
        }
        let key = key(Protocol::Udp, here, remote);
        let all = [with(64, 0), with(1, EXPEDITED), with(64, 0)];
        rig.frames(&all.map(|handling| handled(frame(&key), handling)));
        assert_eq!(listener.borrow().handled, all, "{remote} {begins}");
    }
}

#[test]
fn fragmentation_is_forbidden_where_the_sender_has_forbidden_it() {
    use Oversize::{Allowed, Fragmented, Refused};
    let [[here, remote, _], [here6, remote6, _]] = FAMILIES;
    let (v4, v6) = ((here, remote), (here6, remote6));
    // Octets of payload of an IPv4 datagram, or negative of one that may be fragmented.
    type Steps = &'static [(i32, Option<Oversize>)];
    let cases: [(_, Steps); 3] = [
        (v4, &[(100, None), (1400, Some(Refused)), (100, None), (8000, Some(Fragmented))]),
        (v4, &[(-100, Some(Allowed)), (-8000, None), (1400, Some(Refused)), (-1, Some(Allowed))]),
        (v6, &[(100, None), (1400, Some(Refused)), (100, None), (8000, Some(Fragmented))]),
    ];
    for (((here, remote), steps), shared) in
        cases.into_iter().flat_map(|it| [(it, false), (it, true)])
    {
        let mut rig = Rig::<Socket>::new();
        let socket = shared.then(|| listener(&mut rig));
        for (size, expected) in steps {
            let fragmentation =
                if *size < 0 { Fragmentation::Allowed } else { Fragmentation::Forbidden };
            let octets = vec![0; size.unsigned_abs() as usize];
            let frame = datagram(&key(Protocol::Udp, here, remote), &octets);
            rig.frames(&[handled(frame, Handling { fragmentation, ..Handling::DEFAULT })]);
            let socket = socket.clone().unwrap_or_else(|| opened(&mut rig, 0));
            let expected: Vec<_> = expected.iter().copied().map(SendOption::Oversize).collect();
            assert_eq!(options(&socket), expected, "{remote} {size} {shared}");
        }
    }
}

/// Source, type and code of the only frame to the namespace, which is an error, and what that quotes of the transport
/// header.
fn error(rig: &Rig) -> (IpAddr, (u8, u8), Vec<u8>) {
    let ReadIcmp { reporter, kind, quoted, .. } = read_error(rig);
    (reporter.address, kind, quoted)
}

fn syn() -> ToSend {
    ToSend {
        seq: Seq::from(0x0102_0304),
        ack: Seq::from(0),
        flags: Flags::SYN,
        window: 1000.into(),
        syn: None,
        sack: SackBlocks::default(),
    }
}

#[test]
fn router_where_the_hops_end_is_shown_to_the_namespace_for_datagrams() {
    for ([here, remote, router], shared) in FAMILIES.iter().flat_map(|it| [(it, false), (it, true)])
    {
        let mut rig = Rig::<Socket>::new();
        let listener = shared.then(|| listener(&mut rig));
        let key = key(Protocol::Udp, here, remote);
        rig.frames(&[handled(frame(&key), with(1, 0))]);
        let (queued, router, icmp) = exceeded(router, &[]);
        if let Some(socket) = listener {
            socket.borrow_mut().errors_of.push_back((queued, Some(ends(remote).peer)));
            let Some(Token::Listener(index)) = socket.borrow().token else { panic!("not watched") };
            rig.stack.listener_error(rig.now, index);
        } else {
            let socket = opened(&mut rig, 0);
            socket.borrow_mut().queued_errors.push_back(queued);
            rig.event(&socket, Readiness::FAILED);
        }
        let (from, kind, quoted) = error(&rig);
        assert_eq!((from, kind), (router, icmp));
        assert_eq!(quoted[..4], [4, 0, 0, 7], "the ports");
    }
}

#[test]
fn router_is_shown_for_the_echo_request_that_ended_there_and_not_the_last_one() {
    for [here, remote, router] in FAMILIES {
        let mut rig = Rig::<Socket>::new();
        let mut key = key(Protocol::Echo, here, remote);
        key.remote.set_port(0);
        for sequence in 1..=3 {
            let request = echo_request(&key, &[0, sequence, b'x']);
            rig.frames(&[handled(request, with(sequence, 0))]);
        }
        let socket = opened(&mut rig, 0);
        let kind = if key.remote.is_ipv4() { 8 } else { 128 };
        for (returned, expected) in [(&[kind, 0, 1, 2, 9, 9, 0, 2, b'x'][..], 2), (&[], 3)] {
            let (queued, router, icmp) = exceeded(router, returned);
            socket.borrow_mut().queued_errors.push_back(queued);
            rig.event(&socket, Readiness::FAILED);
            let (from, got, quoted) = error(&rig);
            assert_eq!((from, got), (router, icmp));
            assert_eq!(quoted[..2], [kind, 0]);
            assert_eq!(quoted[4..8], [4, 0, 0, expected], "identifier and sequence number");
        }
    }
}

#[test]
fn error_of_one_packet_is_not_that_of_the_next() {
    for ([here, remote, router], protocol) in
        FAMILIES.iter().flat_map(|it| [(it, Protocol::Udp), (it, Protocol::Echo)])
    {
        let mut key = key(protocol, here, remote);
        if protocol == Protocol::Echo {
            key.remote.set_port(0);
        }
        let mut rig = Rig::<Socket>::new();
        rig.frames(&[handled(frame(&key), with(1, 0))]);
        let socket = opened(&mut rig, 0);
        let (queued, router, icmp) = exceeded(router, &[]);
        // The kernel has both for us, and the namespace is faster than the event.
        socket.borrow_mut().error = Some(queued.errno);
        socket.borrow_mut().queued_errors.push_back(queued);
        rig.frames(&[handled(frame(&key), with(2, 0))]);
        assert_eq!((socket.borrow().sent.len(), rig.received().len()), (2, 0), "{key:?}");
        rig.event(&socket, Readiness::FAILED);
        let (from, kind, _) = error(&rig);
        assert_eq!((from, kind), (router, icmp));
    }
}

#[test]
fn router_is_shown_for_a_connection_that_ended_there() {
    for [here, remote, router] in FAMILIES {
        let mut rig = Rig::<Socket>::new();
        rig.stack.sockets().answers.push_back(Ok(Progress::Connecting));
        let key = key(Protocol::Tcp, here, remote);
        rig.frames(&[handled(segment(&key, &syn(), &[]), with(2, EXPEDITED))]);
        assert_eq!(rig.stack.sockets().opened[0].handling, with(2, EXPEDITED));
        let socket = opened(&mut rig, 0);
        let (queued, router, icmp) = exceeded(router, &[]);
        socket.borrow_mut().error = Some(Errno::EHOSTUNREACH);
        socket.borrow_mut().queued_errors.push_back(queued);
        rig.event(&socket, Readiness::FAILED);
        let (from, kind, quoted) = error(&rig);
        assert_eq!((from, kind), (router, icmp));
        assert_eq!(quoted[..8], [4, 0, 0, 7, 1, 2, 3, 4], "ports and sequence number");
    }
}

#[test]
fn error_that_the_host_reports_from_an_address_of_the_namespace_comes_from_the_gateway() {
    let mut rig = Rig::<Socket>::new();
    let [here, remote, _] = FAMILIES[0];
    rig.frames(&[datagram(&key(Protocol::Udp, here, remote), b"x")]);
    let (queued, ..) = exceeded("192.0.2.7", &[]);
    let socket = opened(&mut rig, 0);
    socket
        .borrow_mut()
        .queued_errors
        .push_back(QueuedError { icmp: Some((Family::V4, 3, 1)), ..queued });
    rig.event(&socket, Readiness::FAILED);
    let (from, kind, _) = error(&rig);
    assert_eq!((from, kind), (IpAddr::from([192, 0, 2, 1]), (3, 1)));
}

#[test]
fn echo_request_of_the_size_of_ethernet_is_not_fragmented_and_a_larger_one_is() {
    for ([here, remote, _], header) in FAMILIES.into_iter().zip([20, 40]) {
        let mut key = key(Protocol::Echo, here, remote);
        key.remote.set_port(0);
        let mut rig = Rig::<Socket>::new();
        for (size, expected) in [(1500, Oversize::Refused), (1501, Oversize::Fragmented)] {
            // Behind the identifier.
            let request = echo_request(&key, &vec![0; size - header - 6]);
            rig.frames(&[handled(request, Handling::DEFAULT)]);
            let expected = [SendOption::Oversize(expected)];
            assert_eq!(options(&opened(&mut rig, 0)), expected, "{remote} {size}");
        }
    }
}

#[test]
fn marks_of_the_network_and_hops_that_are_left_reach_the_namespace() {
    let marks = [(61, EXPEDITED | 3), (255, 0), (17, 1)].map(|(hops, class)| Handling {
        fragmentation: Fragmentation::Allowed,
        ..with(hops, class)
    });
    for ([here, remote, _], carrier) in
        FAMILIES.iter().flat_map(|it| [(it, "own"), (it, "shared"), (it, "echo")])
    {
        let mut rig = Rig::<Socket>::new();
        let shared = (carrier == "shared").then(|| listener(&mut rig));
        let mut key = key(Protocol::Udp, here, remote);
        if carrier == "echo" {
            (key.protocol, key.remote) = (Protocol::Echo, (key.remote.ip(), 0).into());
        }
        rig.frames(&[frame(&key)]);
        let socket = shared.clone().unwrap_or_else(|| opened(&mut rig, 0));
        for (marks, size) in marks.into_iter().zip([100, 100, 4000]) {
            socket.borrow_mut().carried = marks;
            let octets = vec![0; size];
            if let Some(listener) = &shared {
                listener.borrow_mut().arrivals.push_back((ends(remote), octets));
                came(&mut rig, listener);
            } else {
                let kind = if key.remote.is_ipv4() { 0 } else { 129 };
                let reply = [&[kind, 0, 0, 0, 9, 9, 0, 9], &octets[..]].concat();
                let is_echo = key.protocol == Protocol::Echo;
                socket.borrow_mut().datagrams.push_back(if is_echo { reply } else { octets });
                rig.event(&socket, Readiness::READABLE);
            }
            let frames = rig.received();
            let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
            let network = &frame[vnet::LEN + ethernet::LEN..];
            let read = if key.remote.is_ipv4() { read_ipv4(network) } else { read_ipv6(network) };
            let Ok((packet, _)) = read else { panic!("{read:?}") };
            let Handling { hop_limit, traffic_class, .. } = packet.handling;
            assert_eq!((hop_limit, traffic_class), (marks.hop_limit, marks.traffic_class));
        }
    }
}

/// The address that the host would send from itself, one that it has beside that, and one of the namespace's alone.
const SOURCES: [[&str; 3]; 2] =
    [["192.0.2.7", "192.0.2.22", "192.0.2.33"], ["2001:db8::7", "2001:db8::22", "2001:db8::33"]];

#[test]
fn address_that_a_program_has_picked_is_what_the_host_sends_from_where_it_has_it() {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Echo];
    for (([_, remote, _], sources), protocol) in
        FAMILIES.iter().zip(SOURCES).flat_map(|it| protocols.map(|protocol| (it, protocol)))
    {
        let mut rig = Rig::<Socket>::new();
        let [ipv4, ipv6] = SOURCES;
        rig.has(&ipv4, &ipv6);
        let addresses = sources.map(|it| it.parse::<IpAddr>());
        let [Ok(first), Ok(second), Ok(third)] = addresses else { panic!("no address") };
        rig.stack.sockets().addresses = vec![first, second];
        rig.received();
        for (n, (address, expected)) in
            [(first, None), (second, Some(second)), (third, None)].into_iter().enumerate()
        {
            let mut key = key(protocol, "192.0.2.7:1024", remote);
            key.namespace = (address, 1024 + n as u16).into();
            if protocol == Protocol::Echo {
                key.remote.set_port(0);
            }
            let frame = match protocol {
                Protocol::Tcp => segment(&key, &syn(), &[]),
                _ => frame(&key),
            };
            rig.frames(&[frame]);
            let opened = &rig.stack.sockets().opened[n];
            assert_eq!(opened.target.source, expected, "{protocol:?} from {address}");
        }
        if protocol != Protocol::Udp {
            continue;
        }
        // It loses the address; the flow goes on by another one, through a socket of its own or one that it shares.
        rig.stack.sockets().addresses = vec![first];
        opened(&mut rig, 1).borrow_mut().has_its_address = false;
        let mut key = key(protocol, "192.0.2.7:1024", remote);
        key.namespace = (second, 1025).into();
        rig.has(&ipv4, &ipv6);
        rig.frames(&[frame(&key)]);
        let listeners = &rig.stack.sockets().listeners;
        let (_, socket) = listeners.last().unwrap_or_else(|| panic!("no socket"));
        let answers = &socket.borrow().answers;
        let [(ends, _)] = &answers[..] else { panic!("{answers:?}") };
        assert!(ends.local.is_unspecified(), "{ends:?}");
    }
}

#[test]
fn address_that_was_asked_for_goes_before_the_one_of_the_program() {
    let outbound = FamilyPolicy { outbound: Some([192, 0, 2, 22].into()), ..policy(Service::On) };
    let mut rig = Rig::<Socket>::with(Nat::new(outbound, policy(Service::On)), 64);
    rig.has(&["192.0.2.7", "192.0.2.33", "192.0.2.22"], &[]);
    for (n, here) in ["192.0.2.33:1", "192.0.2.22:2"].into_iter().enumerate() {
        rig.frames(&[frame(&key(Protocol::Udp, here, "198.51.100.1:7"))]);
        let source = rig.stack.sockets().opened[n].target.source;
        assert_eq!(source, Some([192, 0, 2, 22].into()), "{here}");
    }
}
