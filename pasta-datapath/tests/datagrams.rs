//! Flows of datagrams through the whole stack, without a descriptor: whose socket carries them, and how long they
//! live.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which a failure ends")]

mod fake;

use fake::rig::{Rig, came, datagram, key, opened, rule};
use fake::{Shared, Socket, State};
use pasta_datapath::control::PeerMessage;
use pasta_datapath::flow::{FlowKey, Readiness};
use pasta_datapath::nat::Protocol;
use pasta_datapath::port_forward::listeners::DatagramAddresses;
use pasta_ipc::DatapathToMonitor;
use pasta_ipc::port_forward::{Direction, Effort};
use pasta_ipc::types::Transport;
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
        let (socket, service) = Socket::new();
        let Some(DatapathToMonitor::SocketsWanted { request, .. }) = rig.stack.next_request()
        else {
            panic!("no request for sockets")
        };
        rig.message(PeerMessage::Sockets(request, vec![socket]));
        service.borrow_mut().datagrams.push_back(second.to_vec());
        rig.event(&service, Readiness::READABLE);
        lives(&mut rig, seconds);
    }
}
