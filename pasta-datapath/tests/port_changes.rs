//! Changes of the forwarded ports while the stack runs: all of a change or nothing, whatever fails.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which a failure ends")]

mod fake;

use fake::rig::{HERE, Rig, came, key, policy, segment};
use fake::{Shared, Socket, State};
use nix::errno::Errno;
use pasta_datapath::control::PeerMessage;
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, SackBlocks, ToSend};
use pasta_datapath::wire::window::WireWindow;
use pasta_ipc::DatapathToMonitor;
use pasta_ipc::port_forward::{
    Direction, Effort, ForwardRule, ForwardsChange, ForwardsChanged, RawRule,
};
use pasta_ipc::socket::{ListenerAddress, Refusal};
use pasta_ipc::types::{Bounded, Generation, PortRange, Service, Transport};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// Where a port of the host is listened on, in the tests: overlapping addresses among them.
const PLACES: [Option<&str>; 4] = [None, Some("0.0.0.0"), Some("192.0.2.2"), Some("::")];

fn rule(address: Option<&str>, port: u16, to: u16) -> ForwardRule {
    ForwardRule::try_from(RawRule {
        transport: Transport::Udp,
        listen: address.map(|it| it.parse().unwrap()),
        interface: None,
        ports: PortRange::new(port, port).unwrap(),
        target: None,
        target_first: to,
        effort: Effort::Explicit,
    })
    .unwrap()
}

/// A state: for ports of the host where they are listened on and where they lead; ports of the namespace.
#[derive(Clone, Debug, Default)]
struct Ports {
    host: BTreeMap<u16, (usize, u16)>,
    inside: BTreeSet<u16>,
}

impl Ports {
    fn change(&self, generation: u64) -> PeerMessage<Socket> {
        let inbound = self.host.iter().map(|(port, (place, to))| rule(PLACES[*place], *port, *to));
        let outbound = self.inside.iter().map(|port| rule(None, *port, *port));
        PeerMessage::Change(Box::new(ForwardsChange {
            generation: Generation(generation),
            inbound: Bounded::truncated(inbound).0,
            outbound: Bounded::truncated(outbound).0,
        }))
    }

    fn listeners(&self) -> BTreeSet<(u16, Option<IpAddr>)> {
        let place = |place: usize| PLACES[place].map(|it| it.parse().unwrap());
        self.host.iter().map(|(port, (at, _))| (*port, place(*at))).collect()
    }
}

/// The stack, with a monitor that gives some listeners and refuses others.
struct World {
    rig: Rig,
    generation: u64,
    /// Ports of the namespace that the monitor refuses.
    refused_inside: BTreeSet<u16>,
    inside: Vec<(u16, Shared<State>)>,
}

impl World {
    fn new() -> Self {
        let rig = Rig::new();
        Self { rig, generation: 0, refused_inside: BTreeSet::new(), inside: Vec::new() }
    }

    /// Another program has this port of the host.
    fn taken_by_others(&mut self, address: Option<&str>, port: u16) -> Shared<State> {
        let at = ListenerAddress {
            transport: Transport::Udp,
            address: address.map(|it| it.parse().unwrap()),
            interface: None,
            port: port.try_into().unwrap(),
        };
        let (socket, state) = Socket::new();
        std::mem::forget(socket);
        self.rig.stack.sockets().listeners.push((at, Rc::clone(&state)));
        state
    }

    /// Makes a change, and gives what became of it.
    fn change(&mut self, to: &Ports) -> ForwardsChanged {
        self.generation += 1;
        self.rig.message(to.change(self.generation));
        for _ in 0..1000 {
            while let Some(message) = self.rig.stack.next_request() {
                let DatapathToMonitor::ListenerWanted { request, listener } = message else {
                    panic!("{message:?}")
                };
                let port = listener.port.get();
                let answer = if self.refused_inside.contains(&port) {
                    PeerMessage::Refused(request, Refusal::Failed(Errno::EADDRINUSE as i32))
                } else {
                    let (socket, state) = Socket::new();
                    self.inside.push((port, state));
                    PeerMessage::Sockets(request, vec![socket])
                };
                self.rig.message(answer);
            }
            self.rig.stack.serve(self.rig.now);
            if let Some(changed) = self.rig.stack.take_changed() {
                assert_eq!(changed.generation.0, self.generation);
                return changed;
            }
        }
        panic!("the change does not end")
    }

    /// Listeners of ours that are open on the host, with their sockets.
    fn open(&mut self, others: &[Shared<State>]) -> BTreeMap<(u16, Option<IpAddr>), Shared<State>> {
        let is_ours = |state: &Shared<State>| !others.iter().any(|it| Rc::ptr_eq(it, state));
        let listeners = &self.rig.stack.sockets().listeners;
        let open = listeners.iter().filter(|(_, state)| !state.borrow().closed && is_ours(state));
        let mut map = BTreeMap::new();
        for (at, state) in open {
            let old = map.insert((at.port.get(), at.address), Rc::clone(state));
            assert!(old.is_none(), "{at:?} is open twice");
        }
        map
    }

    fn open_inside(&self) -> BTreeSet<u16> {
        let open = self.inside.iter().filter(|(_, state)| !state.borrow().closed);
        open.map(|(port, _)| *port).collect()
    }
}

fn ports() -> impl Strategy<Value = Ports> {
    let host = proptest::collection::btree_map(8000_u16..8006, (0..PLACES.len(), 80_u16..83), 0..6);
    let inside = proptest::collection::btree_set(9000_u16..9005, 0..5);
    (host, inside).prop_map(|(host, inside)| Ports { host, inside })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The state before or the state after, never between; what is in both is not touched.
    #[test]
    fn change_happens_as_a_whole_or_not_at_all(
        states in proptest::collection::vec(ports(), 1..5),
        taken in proptest::collection::btree_set(8000_u16..8006, 0..3),
        refused in proptest::collection::btree_set(9000_u16..9005, 0..2),
    ) {
        let mut world = World::new();
        let mut now = Ports::default();
        // Before the first state nothing fails.
        prop_assert!(world.change(&states[0]).failures.as_slice().is_empty());
        now.clone_from(&states[0]);
        let others: Vec<_> = taken
            .iter()
            .filter(|port| !now.host.contains_key(port))
            .map(|port| world.taken_by_others(None, *port))
            .collect();
        world.refused_inside = refused;
        for next in &states[1..] {
            let before = world.open(&others);
            let changed = world.change(next);
            let impossible = next
                .listeners()
                .iter()
                .any(|(port, _)| taken.contains(port) && !states[0].host.contains_key(port))
                || next
                    .inside
                    .iter()
                    .any(|port| world.refused_inside.contains(port) && !now.inside.contains(port));
            prop_assert_eq!(!changed.failures.as_slice().is_empty(), impossible, "{:?}", changed);
            if !impossible {
                now = next.clone();
            }
            let after = world.open(&others);
            prop_assert_eq!(after.keys().copied().collect::<BTreeSet<_>>(), now.listeners());
            prop_assert_eq!(world.open_inside(), now.inside.clone());
            for (place, state) in &after {
                if let Some(old) = before.get(place).filter(|_| !impossible) {
                    prop_assert!(Rc::ptr_eq(old, state), "{place:?} was opened anew");
                }
            }
        }
    }
}

#[test]
fn failures_name_each_rule_once_with_its_first_port() {
    let mut world = World::new();
    world.taken_by_others(None, 8001);
    world.taken_by_others(None, 8003);
    world.refused_inside.insert(9000);
    let host = BTreeMap::from([(8000, (0, 80)), (8001, (0, 80)), (8003, (1, 80))]);
    let changed = world.change(&Ports { host, inside: BTreeSet::from([9000, 9001]) });
    let failures: Vec<_> = changed.failures.as_slice().to_vec();
    let seen: Vec<_> =
        failures.iter().map(|it| (it.direction, it.rule, it.port, it.errno)).collect();
    let in_use = Errno::EADDRINUSE as i32;
    let wanted = [
        (Direction::Inbound, 1, 8001, in_use),
        (Direction::Inbound, 2, 8003, in_use),
        (Direction::Outbound, 0, 9000, in_use),
    ];
    assert_eq!(seen, wanted);
    assert!(world.open_inside().is_empty(), "what was opened for it is closed");
}

#[test]
fn listener_that_was_closed_for_another_is_opened_again_if_that_fails() {
    let mut world = World::new();
    let at = |place| Ports { host: BTreeMap::from([(8000, (place, 80))]), ..Ports::default() };
    assert!(world.change(&at(1)).failures.as_slice().is_empty());
    let others = [world.taken_by_others(Some("::"), 8000)];
    // Of both families: ours is in its way, and behind that the other program's.
    let changed = world.change(&at(0));
    assert_eq!(changed.failures.as_slice()[0].errno, Errno::EADDRINUSE as i32);
    assert_eq!(world.open(&others).into_keys().collect::<BTreeSet<_>>(), at(1).listeners());
    others[0].borrow_mut().closed = true;
    assert!(world.change(&at(0)).failures.as_slice().is_empty(), "once it is free");
}

#[test]
fn monitor_that_does_not_answer_fails_the_change_in_time() {
    let mut world = World::new();
    let change = Ports { host: BTreeMap::new(), inside: BTreeSet::from([9000]) };
    world.rig.message(change.change(1));
    assert!(world.rig.stack.next_request().is_some());
    world.rig.wait(Duration::from_millis(1900));
    assert!(world.rig.stack.take_changed().is_none());
    world.rig.wait(Duration::from_millis(200));
    let changed = world.rig.stack.take_changed().unwrap();
    assert_eq!(changed.failures.as_slice()[0].errno, Errno::ETIMEDOUT as i32);
    world.generation = 1;
    // The next one works, whatever the answer to the first would be.
    assert!(world.change(&Ports::default()).failures.as_slice().is_empty());
}

#[test]
fn flow_of_a_listener_that_stays_lives_on() {
    let mut world = World::new();
    let host = BTreeMap::from([(8000, (0, 80)), (8001, (0, 81))]);
    world.change(&Ports { host: host.clone(), inside: BTreeSet::new() });
    let listener = world.open(&[])[&(8000, None)].clone();
    let addresses = pasta_datapath::port_forward::listeners::DatagramAddresses {
        peer: "198.51.100.9:5000".parse().unwrap(),
        local: "192.0.2.2".parse().unwrap(),
    };
    let send = |world: &mut World| {
        listener.borrow_mut().arrivals.push_back((addresses, b"x".to_vec()));
        came(&mut world.rig, &listener);
        world.rig.datagrams().len()
    };
    assert_eq!(send(&mut world), 1);
    for port in 8002..8012 {
        let mut next = host.clone();
        next.insert(port, (0, 80));
        next.remove(&8001);
        let changed = world.change(&Ports { host: next, inside: BTreeSet::new() });
        assert!(changed.failures.as_slice().is_empty());
        assert_eq!(send(&mut world), 1);
    }
    world.rig.message(PeerMessage::StatusWanted(4));
    while world.rig.stack.is_busy() {
        world.rig.stack.serve(world.rig.now);
    }
    let status = world.rig.stack.take_status().unwrap();
    assert_eq!((status.flows.datagram, status.rules.as_slice()[0].accepted), (1, 1), "one flow");
    assert_eq!(status.top.as_slice()[0].to_namespace, 11);
}

#[test]
fn status_of_many_flows_is_made_in_slices() {
    const FLOWS: u16 = 5000;
    let mut rig = Rig::with(Nat::new(policy(Service::On), policy(Service::On)), 8192);
    rig.has(&[HERE], &[]);
    for port in 0..FLOWS {
        let key = key(Protocol::Tcp, &format!("192.0.2.7:{}", 10_000 + port), "198.51.100.1:80");
        let syn = ToSend {
            seq: Seq::from(1000),
            ack: Seq::default(),
            flags: Flags::SYN,
            window: WireWindow::from(60_000),
            syn: None,
            sack: SackBlocks::NONE,
        };
        rig.frames(&[segment(&key, &syn, &[])]);
    }
    let status = |rig: &mut Rig, listed: usize| {
        rig.message(PeerMessage::StatusWanted(listed));
        let mut turns = 0;
        loop {
            rig.stack.serve(rig.now);
            turns += 1;
            if let Some(status) = rig.stack.take_status() {
                return (status, turns);
            }
        }
    };
    let (counted, turns) = status(&mut rig, 0);
    assert_eq!((counted.flows.tcp, counted.top.as_slice().len()), (u32::from(FLOWS), 0));
    assert!(turns >= FLOWS / 1024, "{turns} turns");
    let (listed, turns) = status(&mut rig, 1000);
    assert_eq!(listed.top.as_slice().len(), pasta_ipc::status::MAX_TOP);
    assert!(turns >= FLOWS / 128, "{turns} turns, with a system call for each flow");
}
