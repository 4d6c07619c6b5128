//! Errors of datagrams that the namespace gets, through the whole stack: from whom they come, what they quote, and that
//! nobody gets those of another.

mod fake;

use fake::rig::{
    OURS, Rig, came, datagram, echo_request, ends, exceeded, handled, key, mac, opened, policy,
    read_error, rule,
};
use fake::{Shared, Socket, State, Tap};
use nix::errno::Errno;
use pasta_datapath::counters::{Counters, DropReason};
use pasta_datapath::flow::datagram::errors::ERRORS_A_TURN;
use pasta_datapath::flow::datagram::queued_error::QueuedError;
use pasta_datapath::flow::{FlowKey, Readiness};
use pasta_datapath::link::icmp_error::Reporter;
use pasta_datapath::link::writer::{FrameWriter, Path, UDP};
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::token::Token;
use pasta_datapath::wire::checksum::{Sum, pseudo_header};
use pasta_datapath::wire::ip::{Fragmentation, Handling, PROTOCOL_ICMPV6, PROTOCOL_UDP};
use pasta_ipc::port_forward::{Direction, Effort};
use pasta_ipc::start::FamilyPolicy;
use pasta_ipc::types::{Family, Service, TapOffloads, Transport};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// An end in the namespace, a remote one, and a router on the way.
const FAMILIES: [[&str; 3]; 2] = [
    ["192.0.2.7:1024", "198.51.100.1:7", "203.0.113.1"],
    ["[2001:db8::7]:1024", "[2001:db8:1::1]:7", "2001:db8:2::1"],
];

fn with(hop_limit: u8, traffic_class: u8) -> Handling {
    Handling { hop_limit, traffic_class, fragmentation: Fragmentation::Forbidden }
}

/// A listener that the namespace's port 1024 leaves by.
fn listener(rig: &mut Rig) -> Shared<State> {
    rig.message(rule(Direction::Inbound, Transport::Udp, (5300, 1024), Effort::Explicit));
    Rc::clone(&rig.stack.sockets().listeners[0].1)
}

fn udp([here, remote, _]: [&str; 3]) -> FlowKey {
    key(Protocol::Udp, here, remote)
}

/// The kernel has an error for what was sent from a listener, to `peer`.
fn error_of(rig: &mut Rig, listener: &Shared<State>, error: QueuedError, peer: SocketAddr) {
    listener.borrow_mut().errors_of.push_back((error, Some(peer)));
    let Some(Token::Listener(index)) = listener.borrow().token else { panic!("not watched") };
    rig.stack.listener_error(rig.now, index);
}

/// The kernel has an error for what was sent from a flow's own socket.
fn error_at(rig: &mut Rig, socket: &Shared<State>, error: QueuedError) {
    socket.borrow_mut().queued_errors.push_back(error);
    rig.event(socket, Readiness::FAILED);
}

/// The checksum in a transport header that is quoted with all of the payload, and the one that it has to be.
fn checksums(key: &FlowKey, quoted: &[u8]) -> (u16, u16) {
    let at = if key.protocol == Protocol::Echo { 2 } else { 6 };
    let written = u16::from_be_bytes([quoted[at], quoted[at + 1]]);
    let mut unsummed = quoted.to_vec();
    unsummed[at..at + 2].fill(0);
    let number = match (key.protocol, key.remote.is_ipv4()) {
        (Protocol::Echo, true) => None,
        (Protocol::Echo, false) => Some(PROTOCOL_ICMPV6),
        _ => Some(PROTOCOL_UDP),
    };
    let (from, to, len) = (key.namespace.ip(), key.remote.ip(), quoted.len() as u16);
    let sum = number.map_or(Sum::default(), |number| pseudo_header(from, to, number, len));
    (written, sum.octets(&unsummed).checksum())
}

#[test]
fn packet_that_came_back_whole_is_quoted_so_and_the_error_has_the_hops_that_it_came_with() {
    for ([here, remote, router], carrier) in
        FAMILIES.iter().flat_map(|it| [(it, "own"), (it, "shared"), (it, "echo")])
    {
        let mut key = key(Protocol::Udp, here, remote);
        if carrier == "echo" {
            (key.protocol, key.remote) = (Protocol::Echo, (key.remote.ip(), 0).into());
        }
        for size in [1_u16, 30, 80, 101, 520, 529, 1184, 1185, 1400] {
            let mut rig = Rig::<Socket>::new();
            let shared = (carrier == "shared").then(|| listener(&mut rig));
            let payload: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            // An echo request: a sequence number, and behind it the same.
            let body = [&[0, 7], &payload[..]].concat();
            let (sent, header): (_, &[u8]) = match (key.protocol, key.remote.is_ipv4()) {
                (Protocol::Echo, true) => (echo_request(&key, &body), &[8, 0, 1, 2, 9, 9, 0, 7]),
                (Protocol::Echo, false) => (echo_request(&key, &body), &[128, 0, 1, 2, 9, 9, 0, 7]),
                _ => (datagram(&key, &payload), &[]),
            };
            rig.frames(&[handled(sent, with(3, 0))]);
            // A router that knows RFC 4884 fills up what is short; others send back what they have room for.
            let padding = if size <= 80 { 50 } else { 0 };
            let returned = [header, &payload, &[0; 50][..padding]].concat();
            let (queued, address, icmp) = exceeded(router, &returned);
            match &shared {
                Some(socket) => {
                    socket.borrow_mut().errors_of.push_back((queued, Some(ends(remote).peer)));
                    let token = socket.borrow().token;
                    let Some(Token::Listener(index)) = token else { panic!("not watched") };
                    rig.stack.listener_error(rig.now, index);
                }
                None => {
                    let socket = opened(&mut rig, 0);
                    socket.borrow_mut().queued_errors.push_back(queued);
                    rig.event(&socket, Readiness::FAILED);
                }
            }
            let read = read_error(&rig);
            assert_eq!((read.reporter, read.kind), (Reporter { address, hop_limit: 61 }, icmp));
            assert_eq!((read.quoted_hops, read.quoted_len), (1, 8 + size), "{carrier} {remote}");
            let most = usize::from(size).min(if key.remote.is_ipv4() { 520 } else { 1184 });
            assert_eq!(read.quoted[8..], payload[..most], "{carrier} {remote} {size}");
            // As it was sent, also where the end is not quoted.
            let whole = [&read.quoted[..8], &payload].concat();
            let (written, expected) = checksums(&key, &whole);
            // Of larger ones not all is kept.
            let kept = if carrier == "echo" { 1184 } else { 1192 };
            let expected = if size > kept { 0 } else { expected };
            assert_eq!(written, expected, "{carrier} {remote} {size}");
        }
    }
}

#[test]
fn packet_of_which_only_the_front_came_back_has_its_length_and_no_checksum() {
    for ([here, remote, router], protocol) in
        FAMILIES.iter().flat_map(|it| [(it, Protocol::Udp), (it, Protocol::Echo)])
    {
        let mut key = key(protocol, here, remote);
        let mut rig = Rig::<Socket>::new();
        let kind = if key.remote.is_ipv4() { 8 } else { 128 };
        let (sent, returned): (_, &[u8]) = match protocol {
            Protocol::Echo => {
                key.remote.set_port(0);
                let body = [&[0, 7], &[5; 100][..]].concat();
                (echo_request(&key, &body), &[kind, 0, 1, 2, 9, 9, 0, 7])
            }
            _ => (datagram(&key, &[5; 100]), &[]),
        };
        rig.frames(&[handled(sent, with(3, 0))]);
        let socket = opened(&mut rig, 0);
        socket.borrow_mut().queued_errors.push_back(exceeded(router, returned).0);
        rig.event(&socket, Readiness::FAILED);
        let read = read_error(&rig);
        assert_eq!((read.quoted_len, read.quoted.len()), (108, 8), "{key:?}");
        assert_eq!(checksums(&key, &read.quoted).0, 0, "{key:?}");
    }
}

/// A router that knows RFC 4884 sends back 128 octets of a packet and an extension behind, which is no payload.
#[test]
fn extension_behind_the_front_of_a_packet_is_not_taken_for_its_end() {
    for ([here, remote, router], certain) in FAMILIES.into_iter().zip([100, 80]) {
        for size in [certain + 1, certain + 11, 500] {
            let key = udp([here, remote, router]);
            let mut rig = Rig::<Socket>::new();
            rig.frames(&[handled(datagram(&key, &vec![5; size]), with(3, 0))]);
            let extension = [0x20, 0, 1, 2, 0, 8, 1, 1, 0, 1, 2, 1];
            let returned = [&vec![5; certain][..], &extension].concat();
            let socket = opened(&mut rig, 0);
            error_at(&mut rig, &socket, exceeded(router, &returned).0);
            let read = read_error(&rig);
            assert_eq!(usize::from(read.quoted_len), 8 + size);
            assert_eq!(read.quoted[6..8], [0, 0], "no checksum");
            let quoted = &read.quoted[8..];
            let is_payload = quoted.iter().all(|octet| *octet == 5);
            assert!(is_payload || size == 500, "{remote} {size}: {quoted:?}");
        }
    }
}

#[test]
fn datagram_that_is_too_large_for_the_way_of_a_shared_socket_is_answered_with_the_mtu() {
    for ([here, remote, router], begins) in
        FAMILIES.into_iter().flat_map(|it| [(it, true), (it, false)])
    {
        let key = udp([here, remote, router]);
        let mut rig = Rig::<Socket>::new();
        let listener = listener(&mut rig);
        if begins {
            listener.borrow_mut().arrivals.push_back((ends(remote), b"first".to_vec()));
            came(&mut rig, &listener);
            rig.received();
        }
        listener.borrow_mut().send_error = Some(Errno::EMSGSIZE);
        rig.frames(&[datagram(&key, &[5; 1450])]);
        let read = read_error(&rig);
        let expected = if key.remote.is_ipv4() { ((3, 4), 1400) } else { ((2, 0), 1400) };
        assert_eq!((read.kind, read.value), expected, "{remote} {begins}");
        // The queue says it once more, of IPv4 without the port, and the flow lives.
        let too_large = QueuedError { info: 1400, ..QueuedError::of(Errno::EMSGSIZE) };
        for port in [0, key.remote.port()] {
            let peer = SocketAddr::new(ends(remote).peer.ip(), port);
            error_of(&mut rig, &listener, too_large, peer);
        }
        assert_eq!(rig.received().len(), 0);
        listener.borrow_mut().send_error = None;
        rig.frames(&[datagram(&key, b"small")]);
        let answers = &listener.borrow().answers;
        assert_eq!(answers.last().map(|(_, octets)| &octets[..]), Some(&b"small"[..]));
    }
}

#[test]
fn errors_that_others_have_earned_are_not_told_to_who_sends_through_the_same_socket() {
    for ends in FAMILIES {
        let key = udp(ends);
        let mut rig = Rig::<Socket>::new();
        let listener = listener(&mut rig);
        // Some are in the way, as one router can send them.
        listener.borrow_mut().earned.extend([Errno::ECONNREFUSED, Errno::EHOSTUNREACH]);
        rig.frames(&[datagram(&key, b"arrives")]);
        assert_eq!(listener.borrow().answers.len(), 1);
        // Always new ones: it is lost, and nobody is blamed.
        listener.borrow_mut().earned.extend([Errno::ECONNREFUSED; 100]);
        rig.frames(&[datagram(&key, b"is lost")]);
        assert_eq!((listener.borrow().answers.len(), rig.received().len()), (1, 0));
        assert_eq!(rig.dropped(DropReason::SocketFull), 1);
        // What sending itself comes to is reported.
        listener.borrow_mut().earned.clear();
        listener.borrow_mut().send_error = Some(Errno::ENETUNREACH);
        rig.frames(&[datagram(&key, b"no way")]);
        let expected = if key.remote.is_ipv4() { (3, 0) } else { (1, 0) };
        assert_eq!(read_error(&rig).kind, expected);
    }
}

#[test]
fn errors_without_end_are_taken_a_few_in_a_turn() {
    const ALL: usize = 3 * ERRORS_A_TURN + 1;
    for (at, shared) in FAMILIES.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let [_, remote, router] = at;
        let mut rig = Rig::<Socket>::new();
        let socket = if shared { Some(listener(&mut rig)) } else { None };
        rig.frames(&[handled(datagram(&udp(at), b"x"), with(1, 0))]);
        let error = exceeded(router, b"x").0;
        let left = match socket {
            Some(listener) => {
                let all = std::iter::repeat_n((error, Some(ends(remote).peer)), ALL - 1);
                listener.borrow_mut().errors_of.extend(all);
                error_of(&mut rig, &listener, error, ends(remote).peer);
                Box::new(move || listener.borrow().errors_of.len()) as Box<dyn Fn() -> usize>
            }
            None => {
                let socket = opened(&mut rig, 0);
                socket.borrow_mut().queued_errors.extend(std::iter::repeat_n(error, ALL - 1));
                socket.borrow_mut().queued_errors.push_back(error);
                let (id, side) = socket.borrow().flow();
                rig.stack.socket_event(rig.now, id, side, Readiness::FAILED);
                Box::new(move || socket.borrow().queued_errors.len())
            }
        };
        assert_eq!(left(), ALL - ERRORS_A_TURN, "{remote} {shared}");
        let mut turns = 0;
        while left() > 0 {
            rig.stack.serve(rig.now);
            turns += 1;
            assert!(turns < 10, "they are left");
        }
        assert_eq!((turns, rig.received().len()), (3, ALL), "{remote} {shared}");
    }
}

/// A resolver that is asked in the place of one of the other family.
#[test]
fn error_of_a_resolver_of_the_other_family_is_told_in_this_one_and_the_next_is_asked() {
    let ipv4 = FamilyPolicy { dns_forward: "192.0.2.53".parse().ok(), ..policy(Service::On) };
    let ipv6 = FamilyPolicy { dns_forward: "2001:db8::53".parse().ok(), ..policy(Service::On) };
    let asked = [("192.0.2.7:1024", "192.0.2.53:53"), ("[2001:db8::7]:1024", "[2001:db8::53]:53")];
    for ((here, remote), servers) in
        asked.into_iter().zip([["2001:db8:9::1", "2001:db8:9::2"], ["203.0.113.1", "203.0.113.2"]])
    {
        let mut rig = Rig::<Socket>::with(Nat::new(ipv4.clone(), ipv6.clone()), 64);
        rig.has(&["192.0.2.7"], &["2001:db8::7"]);
        rig.resolvers(&servers);
        rig.received();
        let query = key(Protocol::Udp, here, remote);
        rig.frames(&[datagram(&query, b"who")]);
        let first = opened(&mut rig, 0);
        assert_eq!(first.borrow().peer.map(|peer| peer.ip().to_string()), Some(servers[0].into()));
        let (icmp, expected) = match query.remote.is_ipv4() {
            true => ((Family::V6, 1, 4), (3, 3)),
            false => ((Family::V4, 3, 3), (1, 4)),
        };
        let address = servers[0].parse::<IpAddr>();
        let offender = address.ok().map(|address| Reporter { address, hop_limit: 61 });
        let error =
            QueuedError { icmp: Some(icmp), offender, ..QueuedError::of(Errno::ECONNREFUSED) };
        error_at(&mut rig, &first, error);
        let read = read_error(&rig);
        let reporter = Reporter { address: query.remote.ip(), hop_limit: 61 };
        assert_eq!((read.reporter, read.kind), (reporter, expected));
        rig.frames(&[datagram(&query, b"who")]);
        let second = opened(&mut rig, 1).borrow().peer;
        assert_eq!(second.map(|peer| peer.ip().to_string()), Some(servers[1].into()));
    }
}

#[test]
fn port_unreachable_comes_from_who_says_so_and_from_the_target_as_the_namespace_has_it() {
    for [here, remote, router] in FAMILIES {
        let key = udp([here, remote, router]);
        let (family, kind) = match key.remote.is_ipv4() {
            true => (Family::V4, (3, 3)),
            false => (Family::V6, (1, 4)),
        };
        // A firewall on the way; the target; the host itself, whose address is its own.
        let host = if key.remote.is_ipv4() { "203.0.113.250" } else { "2001:db8:ffff::1" };
        for (from, expected) in [
            (router, Some((router, 61))),
            (remote, Some((remote, 61))),
            (host, Some((remote, 255))),
        ] {
            let mut rig = Rig::<Socket>::new();
            let of_host = host.parse::<IpAddr>();
            rig.stack.sockets().addresses.extend(of_host);
            rig.frames(&[datagram(&key, b"x")]);
            let address = from.parse().or_else(|_| from.parse::<SocketAddr>().map(|it| it.ip()));
            let offender = address.ok().map(|address| Reporter { address, hop_limit: 61 });
            let icmp = Some((family, kind.0, kind.1));
            let error = QueuedError { icmp, offender, ..QueuedError::of(Errno::ECONNREFUSED) };
            let socket = opened(&mut rig, 0);
            error_at(&mut rig, &socket, error);
            let read = read_error(&rig);
            let seen = (read.reporter.address, read.reporter.hop_limit);
            let expected = expected.map(|(text, hops)| {
                let address =
                    text.parse().or_else(|_| text.parse::<SocketAddr>().map(|it| it.ip()));
                (address, hops)
            });
            assert_eq!(Some((Ok(seen.0), seen.1)), expected, "{from}");
            assert_eq!(read.kind, kind);
        }
    }
}

#[test]
fn address_of_the_host_itself_is_not_shown() {
    for ([here, remote, router], (host, gateway)) in
        FAMILIES.into_iter().zip([("203.0.113.250", "192.0.2.1"), ("2001:db8:ffff::1", "fe80::1")])
    {
        let key = udp([here, remote, router]);
        let mut rig = Rig::<Socket>::new();
        rig.stack.sockets().addresses.extend(host.parse::<IpAddr>());
        rig.frames(&[datagram(&key, b"x")]);
        let (family, (kind, code)) = match key.remote.is_ipv4() {
            true => (Family::V4, (3, 1)),
            false => (Family::V6, (1, 3)),
        };
        let offender = host.parse().ok().map(|address| Reporter { address, hop_limit: 64 });
        let icmp = Some((family, kind, code));
        let error = QueuedError { icmp, offender, ..QueuedError::of(Errno::EHOSTUNREACH) };
        let socket = opened(&mut rig, 0);
        error_at(&mut rig, &socket, error);
        let read = read_error(&rig);
        assert_eq!(read.reporter.address.to_string(), gateway);
        assert_eq!(read.kind, (kind, code));
    }
}

/// Several datagrams that the namespace's kernel left in one frame.
#[test]
fn error_for_several_datagrams_quotes_the_first() {
    for (at, shared) in FAMILIES.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let key = udp(at);
        let mut rig = Rig::<Socket>::new();
        let socket = if shared { Some(listener(&mut rig)) } else { None };
        rig.frames(&[datagram(&key, b"first")]);
        let socket = socket.unwrap_or_else(|| opened(&mut rig, 0));
        socket.borrow_mut().send_error = Some(Errno::ENETUNREACH);
        let payload: Vec<u8> = (0..250).collect();
        rig.frames(&[several(&key, &payload, 100)]);
        let read = read_error(&rig);
        assert_eq!((read.quoted_len, &read.quoted[8..]), (108, &payload[..100]), "{at:?} {shared}");
        let (written, expected) = checksums(&key, &read.quoted);
        assert_eq!(written, expected, "{at:?} {shared}");
    }
}

/// A frame that stands for datagrams of `size` octets.
fn several(key: &FlowKey, payload: &[u8], size: u16) -> Vec<u8> {
    let (mut device, mut counters) = (Tap::new(TapOffloads::TcpAndUdp), Counters::default());
    let written = Rc::clone(&device.written);
    let path = Path::new(mac(1), OURS, UDP, key.namespace, key.remote);
    let mut writer = FrameWriter { device: &mut device, our_mac: mac(1), counters: &mut counters };
    assert!(writer.write_udp(&path, Some(size), payload));
    let frames = written.borrow().clone();
    let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
    frame.clone()
}
