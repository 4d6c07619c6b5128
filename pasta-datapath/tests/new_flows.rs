//! New flows and flows that exist: who goes first.

mod fake;

use fake::Socket;
use fake::rig::{HERE, HERE6, Rig, datagram, key, opened, policy, segment};
use pasta_datapath::counters::DropReason;
use pasta_datapath::flow::FlowKey;
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, SackBlocks, ToSend};
use pasta_datapath::wire::window::WireWindow;
use pasta_ipc::types::Service;
use std::time::Duration;

/// Connections that may wait.
const MOST: usize = 4096;

fn rig() -> Rig {
    let mut rig = Rig::<Socket>::with(Nat::new(policy(Service::On), policy(Service::On)), 8192);
    rig.has(&[HERE], &[HERE6]);
    rig.received();
    rig
}

/// The `n`th connection of the namespace, in turns of each family.
fn connection(n: usize) -> FlowKey {
    let port = 1024 + n;
    match n % 2 {
        0 => key(Protocol::Tcp, &format!("{HERE}:{port}"), "198.51.100.1:80"),
        _ => key(Protocol::Tcp, &format!("[{HERE6}]:{port}"), "[2001:db8:1::1]:80"),
    }
}

fn segment_of(n: usize, flags: Flags) -> Vec<u8> {
    let header = ToSend {
        seq: Seq::from(n as u32),
        ack: Seq::default(),
        flags,
        window: WireWindow::from(60_000),
        syn: None,
        sack: SackBlocks::NONE,
    };
    segment(&connection(n), &header, &[])
}

fn syn(n: usize) -> Vec<u8> {
    segment_of(n, Flags::SYN)
}

/// The `n`th program of the namespace that sends datagrams.
fn sender(n: usize) -> FlowKey {
    key(Protocol::Udp, &format!("{HERE}:{}", 1024 + n), "198.51.100.1:53")
}

/// Hands frames over as one batch; nobody has a turn yet.
fn read(rig: &mut Rig, frames: &[Vec<u8>]) {
    let (mut octets, mut places) = (Vec::new(), Vec::new());
    for frame in frames {
        places.push((octets.len(), octets.len() + frame.len()));
        octets.extend_from_slice(frame);
    }
    rig.stack.handle_frames(rig.now, &octets, &places);
}

#[test]
fn flow_that_exists_goes_before_connections_that_are_opened() {
    let mut rig = rig();
    let exchange = key(Protocol::Udp, &format!("{HERE}:9"), "198.51.100.1:9");
    rig.frames(&[datagram(&exchange, b"first")]);
    let socket = opened(&mut rig, 0);
    let mut frames: Vec<_> = (0..50).map(syn).collect();
    frames.push(datagram(&exchange, b"second"));

    read(&mut rig, &frames);
    assert_eq!(socket.borrow().sent, [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(rig.stack.sockets().opened.len(), 1, "no connection is opened yet");

    // One each turn, in order, and nobody sleeps meanwhile.
    for n in 0..50 {
        assert!(rig.stack.is_busy());
        rig.stack.serve(rig.now);
        assert_eq!(rig.stack.sockets().opened.len(), n + 2);
        assert!(rig.stack.flows().table.find(&connection(n)).is_some());
    }
    assert!(!rig.stack.is_busy());
}

/// An exchange that has gone on for a while meets a new connection in every third turn, and nothing is held up once it
/// is over.
#[test]
fn beside_a_flow_at_work_opening_pauses_for_twice_as_long_as_it_takes() {
    let turn = Duration::from_micros(40);
    let mut rig = rig();
    let exchange = key(Protocol::Udp, &format!("{HERE}:9"), "198.51.100.1:9");
    rig.frames(&[datagram(&exchange, b"first")]);
    rig.now = rig.now + Duration::from_secs(1);
    read(&mut rig, &(0..50).map(syn).collect::<Vec<_>>());

    let mut opened_in = Vec::new();
    for n in 0..12 {
        read(&mut rig, &[datagram(&exchange, b"more")]);
        let before = rig.stack.sockets().opened.len();
        assert!(rig.stack.is_busy(), "nobody sleeps meanwhile");
        rig.stack.serve(rig.now);
        let opens = rig.stack.sockets().opened.len() > before;
        if opens {
            opened_in.push(n);
        }
        assert_ne!(rig.stack.pauses(), opens, "{n}");
        rig.now = rig.now + turn;
    }
    assert_eq!(opened_in, [0, 3, 6, 9]);
    read(&mut rig, &[datagram(&exchange, b"more"), datagram(&sender(0), b"query")]);
    rig.stack.serve(rig.now);
    assert!(rig.stack.flows().table.find(&sender(0)).is_some(), "a datagram waits for no pause");

    rig.now = rig.now + Duration::from_millis(1);
    let before = rig.stack.sockets().opened.len();
    for n in 1..=10 {
        rig.stack.serve(rig.now);
        assert_eq!(rig.stack.sockets().opened.len(), before + n);
        rig.now = rig.now + turn;
    }
}

#[test]
fn datagrams_that_open_flows_wait_for_those_of_flows_that_exist() {
    let mut rig = rig();
    rig.frames(&[datagram(&sender(0), b"first")]);
    let socket = opened(&mut rig, 0);
    let mut frames: Vec<_> = (1..40).map(|n| datagram(&sender(n), b"new")).collect();
    frames.push(datagram(&sender(0), b"second"));
    read(&mut rig, &frames);
    assert_eq!(socket.borrow().sent, [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(rig.stack.sockets().opened.len(), 1, "no flow is opened yet");
    rig.stack.serve(rig.now);
    assert_eq!(rig.stack.sockets().opened.len(), 2);
}

#[test]
fn connections_that_wait_do_not_hold_up_the_first_datagram_of_another_program() {
    let mut rig = rig();
    let mut frames: Vec<_> = (0..100).map(syn).collect();
    frames.push(datagram(&sender(0), b"query"));
    read(&mut rig, &frames);
    rig.stack.serve(rig.now);
    assert!(rig.stack.flows().table.find(&sender(0)).is_some());
}

#[test]
fn datagrams_of_a_flow_that_waits_stay_in_order() {
    let mut rig = rig();
    let numbered = |n: usize, octet| datagram(&sender(n), &[octet]);
    read(
        &mut rig,
        &[numbered(0, 1), numbered(1, 1), numbered(1, 2), numbered(0, 2), numbered(1, 3)],
    );
    rig.stack.serve(rig.now);
    read(&mut rig, &[numbered(0, 3), numbered(1, 4)]);
    rig.stack.serve(rig.now);
    let sent = |rig: &mut Rig, n| opened(rig, n).borrow().sent.concat();
    assert_eq!((sent(&mut rig, 0), sent(&mut rig, 1)), (vec![1, 2, 3], vec![1, 2, 3, 4]));
}

/// What follows a SYN is for its connection, and gets no reset as for none.
#[test]
fn segments_behind_a_syn_that_waits_are_taken_when_it_is_opened() {
    let mut rig = rig();
    read(&mut rig, &[syn(0), segment_of(0, Flags::RST), syn(1)]);
    assert_eq!(rig.segments().len(), 0, "nothing is answered yet");
    while rig.stack.is_busy() {
        rig.stack.serve(rig.now);
    }
    assert!(rig.stack.flows().table.find(&connection(1)).is_some());
    assert_eq!(rig.dropped(DropReason::NoFlow), 0);
}

#[test]
fn connections_that_wait_are_bounded_and_the_others_counted() {
    let mut rig = rig();
    read(&mut rig, &(0..MOST + 10).map(syn).collect::<Vec<_>>());
    assert_eq!((rig.stack.new_flows(), rig.dropped(DropReason::NewFlowsFull)), (MOST, 10));
    while rig.stack.is_busy() {
        rig.stack.serve(rig.now);
    }
    // The namespace sends those again.
    read(&mut rig, &(MOST..MOST + 10).map(syn).collect::<Vec<_>>());
    while rig.stack.is_busy() {
        rig.stack.serve(rig.now);
    }
    assert_eq!(rig.stack.flows().table.len(), MOST + 10);
}

#[test]
fn connection_that_is_asked_for_twice_is_opened_once() {
    let mut rig = rig();
    rig.frames(&[syn(0), syn(0), syn(1), syn(0)]);
    assert_eq!(rig.stack.sockets().opened.len(), 2);
    assert_eq!(rig.stack.flows().table.len(), 2);
}

#[test]
fn octets_that_wait_are_bounded() {
    let mut rig = rig();
    let frames: Vec<_> = (0..40).map(|n| datagram(&sender(n), &[0; 60_000])).collect();
    read(&mut rig, &frames);
    assert_eq!((rig.stack.new_flows(), rig.dropped(DropReason::NewFlowsFull)), (17, 23));
}

/// One flow does not have all the others wait while its frames are handled.
#[test]
fn frames_of_one_flow_that_wait_are_bounded() {
    let mut rig = rig();
    let frames: Vec<_> = (0..100).map(|n| datagram(&sender(0), &[n])).collect();
    read(&mut rig, &frames);
    rig.stack.serve(rig.now);
    let sent: Vec<u8> = (0..64).collect();
    assert_eq!(opened(&mut rig, 0).borrow().sent.concat(), sent);
    assert_eq!(rig.dropped(DropReason::NewFlowsFull), 36);
}
