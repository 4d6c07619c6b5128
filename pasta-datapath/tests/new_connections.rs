//! New connections and flows that exist: who goes first.

mod fake;

use fake::Socket;
use fake::rig::{HERE, HERE6, Rig, datagram, key, policy, segment};
use pasta_datapath::counters::DropReason;
use pasta_datapath::flow::FlowKey;
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, SackBlocks, ToSend};
use pasta_datapath::wire::window::WireWindow;
use pasta_ipc::types::Service;

/// SYNs that may wait.
const MOST: usize = 1024;

fn rig() -> Rig {
    let mut rig = Rig::<Socket>::with(Nat::new(policy(Service::On), policy(Service::On)), 4096);
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

fn syn(n: usize) -> Vec<u8> {
    let header = ToSend {
        seq: Seq::from(n as u32),
        ack: Seq::default(),
        flags: Flags::SYN,
        window: WireWindow::from(60_000),
        syn: None,
        sack: SackBlocks::NONE,
    };
    segment(&connection(n), &header, &[])
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
    let socket = std::rc::Rc::clone(&rig.stack.sockets().opened[0].state);
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

#[test]
fn connections_that_wait_are_bounded_and_the_others_counted() {
    let mut rig = rig();
    read(&mut rig, &(0..MOST + 10).map(syn).collect::<Vec<_>>());
    assert_eq!((rig.stack.waiting_syns(), rig.dropped(DropReason::TooManySyns)), (MOST, 10));
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
