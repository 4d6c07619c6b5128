//! Which flow goes when there are too many, through the whole stack.

mod fake;

use fake::rig::{
    HERE, HERE6, Rig, came, datagram, echo_request, key, opened, policy, rule, segment,
};
use fake::{Shared, Socket, State};
use pasta_datapath::counters::DropReason;
use pasta_datapath::flow::{FlowKey, Readiness};
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::port_forward::listeners::DatagramAddresses;
use pasta_datapath::sockets::Progress;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, SackBlocks, ToSend};
use pasta_datapath::wire::window::WireWindow;
use pasta_ipc::port_forward::{Direction, Effort};
use pasta_ipc::types::{Service, Transport};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const FLOWS: u16 = 8;

/// A rig with few flows, and few ports of the host.
fn few(flows: u16, ports: usize) -> Rig {
    let nat = Nat::new(policy(Service::On), policy(Service::On));
    let mut rig = Rig::<Socket>::limited(nat, usize::from(flows), ports);
    rig.has(&[HERE], &[HERE6]);
    rig.received();
    rig
}

fn udp(port: u16) -> FlowKey {
    key(Protocol::Udp, &format!("192.0.2.7:{port}"), "198.51.100.1:7")
}

fn sends(rig: &mut Rig, port: u16) {
    rig.frames(&[datagram(&udp(port), b"x")]);
}

/// Whether the flow of the namespace from `port` is there.
fn has(rig: &mut Rig, port: u16) -> bool {
    rig.stack.flows().table.find(&udp(port)).is_some()
}

fn answered(rig: &mut Rig, n: usize) {
    let socket = opened(rig, n);
    socket.borrow_mut().datagrams.push_back(b"answer".to_vec());
    rig.event(&socket, Readiness::READABLE);
}

fn syn(rig: &mut Rig, port: u16, progress: Progress) {
    rig.stack.sockets().answers.push_back(Ok(progress));
    let key = key(Protocol::Tcp, &format!("192.0.2.7:{port}"), "198.51.100.1:80");
    let header = ToSend {
        seq: Seq::from(1000),
        ack: Seq::default(),
        flags: Flags::SYN,
        window: WireWindow::from(60_000),
        syn: None,
        sack: SackBlocks::NONE,
    };
    rig.frames(&[segment(&key, &header, &[])]);
}

fn tcp_flows(rig: &mut Rig, ports: std::ops::Range<u16>) -> usize {
    let table = &mut rig.stack.flows().table;
    let to = |port: &u16| key(Protocol::Tcp, &format!("192.0.2.7:{port}"), "198.51.100.1:80");
    ports.filter(|port| table.find(&to(port)).is_some()).count()
}

/// A UDP listener of the host, for port 53 of the namespace.
fn listener(rig: &mut Rig) -> Shared<State> {
    rig.message(rule(Direction::Inbound, Transport::Udp, (5300, 53), Effort::Explicit));
    Rc::clone(&rig.stack.sockets().listeners[0].1)
}

fn arrives(rig: &mut Rig, listener: &Shared<State>, port: u16) {
    let peer = SocketAddr::new([198, 51, 100, 9].into(), port);
    let addresses = DatagramAddresses { peer, local: [203, 0, 113, 9].into() };
    listener.borrow_mut().arrivals.push_back((addresses, b"x".to_vec()));
    came(rig, listener);
}

/// The namespace answers the peer at `port`.
fn answers(rig: &mut Rig, port: u16) {
    let key = key(Protocol::Udp, "192.0.2.7:53", &format!("198.51.100.9:{port}"));
    rig.frames(&[datagram(&key, b"answer")]);
}

/// How many of the flows that peers have opened are there.
fn peers(rig: &mut Rig, ports: std::ops::Range<u16>) -> usize {
    let table = &mut rig.stack.flows().table;
    let of = |port: &u16| key(Protocol::Udp, "192.0.2.7:53", &format!("198.51.100.9:{port}"));
    ports.filter(|port| table.find(&of(port)).is_some()).count()
}

#[test]
fn flows_of_ever_new_ports_end_the_oldest_of_them_and_no_other() {
    let mut rig = few(FLOWS, 1000);
    sends(&mut rig, 1);
    answered(&mut rig, 0);
    for port in 100..200 {
        sends(&mut rig, port);
    }
    assert!(has(&mut rig, 1), "it has an answer, and is in use");
    assert!(has(&mut rig, 199) && !has(&mut rig, 100));
    assert_eq!(rig.dropped(DropReason::NoSocket), 0);
    assert_eq!(rig.stack.flows().table.len(), usize::from(FLOWS));
}

#[test]
fn connections_that_nobody_answers_go_before_flows_in_use() {
    let mut rig = few(FLOWS, 1000);
    sends(&mut rig, 1);
    answered(&mut rig, 0);
    for port in 100..107 {
        syn(&mut rig, port, Progress::Connecting);
    }
    // They may be answered yet.
    sends(&mut rig, 2);
    assert_eq!((has(&mut rig, 2), tcp_flows(&mut rig, 100..107)), (false, 7));
    rig.wait(Duration::from_secs(1));
    sends(&mut rig, 2);
    assert_eq!((has(&mut rig, 2), tcp_flows(&mut rig, 100..107)), (true, 6));
    assert!(has(&mut rig, 1));
    assert_eq!(tcp_flows(&mut rig, 100..101), 0, "the oldest");
    // Of datagrams without an answer and connections without one, the latter go first.
    sends(&mut rig, 3);
    assert!(has(&mut rig, 2) && has(&mut rig, 3));
    assert_eq!(tcp_flows(&mut rig, 100..107), 5);
}

#[test]
fn flows_in_use_stay_and_a_new_one_of_their_side_is_refused() {
    let mut rig = few(4, 1000);
    for port in 1..=4 {
        sends(&mut rig, port);
        answered(&mut rig, usize::from(port) - 1);
    }
    sends(&mut rig, 5);
    assert_eq!((has(&mut rig, 5), rig.dropped(DropReason::NoSocket)), (false, 1));
    rig.wait(Duration::from_secs(119));
    sends(&mut rig, 2);
    rig.wait(Duration::from_secs(1));
    sends(&mut rig, 5);
    assert!(has(&mut rig, 5) && has(&mut rig, 2) && !has(&mut rig, 1));
}

#[test]
fn peers_with_idle_flows_do_not_lock_the_namespace_out_nor_it_them() {
    let mut rig = few(FLOWS, 1000);
    let listener = listener(&mut rig);
    // As long as nobody else needs them, all are theirs.
    for port in 1..=FLOWS {
        arrives(&mut rig, &listener, port);
        answers(&mut rig, port);
    }
    assert_eq!(peers(&mut rig, 1..FLOWS + 1), usize::from(FLOWS));
    for port in 100..104 {
        sends(&mut rig, port);
        assert!(has(&mut rig, port));
        answered(&mut rig, usize::from(port) - 100);
    }
    assert_eq!(peers(&mut rig, 1..FLOWS + 1), 4);
    // Both have their half: each is refused, and none is ended.
    sends(&mut rig, 104);
    arrives(&mut rig, &listener, 50);
    assert!(!has(&mut rig, 104));
    assert_eq!((peers(&mut rig, 50..51), peers(&mut rig, 1..FLOWS + 1)), (0, 4));

    let mut rig = few(FLOWS, 1000);
    let listener = self::listener(&mut rig);
    for port in 100..100 + FLOWS {
        sends(&mut rig, port);
        answered(&mut rig, usize::from(port) - 100);
    }
    for port in 1..=4 {
        arrives(&mut rig, &listener, port);
        answers(&mut rig, port);
    }
    assert_eq!(peers(&mut rig, 1..5), 4);
    assert!(!has(&mut rig, 100) && has(&mut rig, 100 + FLOWS - 1));
}

#[test]
fn namespace_takes_no_more_than_its_share_of_ports_and_identifiers() {
    let mut rig = few(100, 3);
    sends(&mut rig, 1);
    answered(&mut rig, 0);
    for port in 10..20 {
        sends(&mut rig, port);
    }
    let open = |rig: &mut Rig, protocol| {
        let opened = rig.stack.sockets().opened.iter();
        let open = opened.filter(|it| it.protocol == protocol && !it.state.borrow().closed);
        open.count()
    };
    assert_eq!(open(&mut rig, Protocol::Udp), 3);
    assert!(has(&mut rig, 1) && has(&mut rig, 19) && has(&mut rig, 18));

    for id in 1..=10 {
        let ping = key(Protocol::Echo, &format!("192.0.2.7:{id}"), "198.51.100.1:0");
        rig.frames(&[echo_request(&ping, &[0, 1, b'x'])]);
    }
    assert_eq!((open(&mut rig, Protocol::Udp), open(&mut rig, Protocol::Echo)), (3, 3));
    assert_eq!(rig.dropped(DropReason::NoSocket), 0);
}

#[test]
fn sockets_that_many_flows_share_count_once() {
    let mut rig = few(100, 3);
    let to = |port: u16, peer: u8| {
        key(Protocol::Udp, &format!("192.0.2.7:{port}"), &format!("198.51.100.{peer}:7"))
    };
    let listening = |rig: &mut Rig| {
        rig.stack.sockets().listeners.iter().filter(|(_, it)| !it.borrow().closed).count()
    };
    for port in 1..=5 {
        for peer in 1..=10 {
            rig.frames(&[datagram(&to(port, peer), b"x")]);
        }
    }
    assert!(listening(&mut rig) <= 3);
    assert_eq!(rig.dropped(DropReason::NoSocket), 0);
    let last = (1..=10).filter(|peer| rig.stack.flows().table.find(&to(5, *peer)).is_some());
    assert_eq!(last.count(), 10);
}
