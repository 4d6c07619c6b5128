//! The whole stack over a kernel that is not there: frames, socket events, time and messages in any order.
//!
//! The input is a script of steps. A step sends frames of a few flows or any octets as a frame, changes what the
//! kernel will say, lets something happen to a socket or to a listener, delivers a message of the monitor or of the
//! supervisor, or lets time pass.
//!
//! What is checked all the time:
//!
//! - nothing panics, and every frame to the namespace is well formed;
//! - flows are bounded, and the sockets that are open are those of flows, listeners and the pool;
//! - timers move on, and what waits for its turn gets it;
//! - flows of datagrams end in their time, and no backlog is left where no flow is.

use crate::fake::rig::{Rig, datagram, echo_request, key, policy, segment};
use crate::fake::{Shared, Socket, State};
use crate::input::Input;
use nix::errno::Errno;
use pasta_datapath::control::PeerMessage;
use pasta_datapath::counters::DropReason;
use pasta_datapath::flow::datagram::queued_error::{QueuedError, Returned};
use pasta_datapath::flow::{Flow, FlowKey, Readiness};
use pasta_datapath::link::classify::{Framing, classify};
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::port_forward::listeners::DatagramAddresses;
use pasta_datapath::sockets::Progress;
use pasta_datapath::token::Token;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, SackBlocks, SynOptions, ToSend};
use pasta_datapath::wire::window::{Mss, WindowScale, WireWindow};
use pasta_ipc::DatapathToMonitor;
use pasta_ipc::port_forward::{Direction, Effort, ForwardRule, ForwardTable, RawRule};
use pasta_ipc::socket::{Refusal, RequestId};
use pasta_ipc::start::FamilyPolicy;
use pasta_ipc::types::{
    Bounded, Family, Generation, PortRange, Resolver, ResolverSnapshot, Service, Transport,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// Steps taken of one input: what keeps it below some milliseconds.
const STEPS: usize = 256;
/// Few, so that they are used up.
const FLOWS: usize = 8;
/// Octets that one step gives to a socket.
const MOST_OCTETS: u16 = 4096;
/// Timers that may be due in one step of time, and turns until nobody waits for one.
const MOST_TIMERS: usize = 100_000;
const MOST_TURNS: usize = 1_000;
/// Longer than a flow of datagrams lives.
const LIFETIME: Duration = Duration::from_secs(200);

/// Reads `octets` as a script and plays it.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let mut world = World::new();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.check();
    }
    world.flush();
    world.wait(LIFETIME);
    world.check();
    let mut flows = world.rig.stack.flows().table.values_mut();
    let is_late = flows.any(|entry| matches!(entry.flow, Flow::Datagram(_)));
    assert!(!is_late, "a flow of datagrams goes on for ever");
}

struct World {
    rig: Rig,
    /// Frames of the batch that is next.
    frames: Vec<Vec<u8>>,
    /// Sockets that the test has made: accepted ones, and those of the namespace.
    made: Vec<Shared<State>>,
    requests: Vec<RequestId>,
}

impl World {
    fn new() -> Self {
        let dns_forward = Some(Ipv4Addr::new(192, 0, 2, 53));
        let ipv4 = FamilyPolicy { dns_forward, ..policy(Service::On) };
        let mut rig = Rig::with(Nat::new(ipv4, policy(Service::On)), FLOWS);
        rig.has(&["192.0.2.7"], &["2001:db8::7"]);
        Self { rig, frames: Vec::new(), made: Vec::new(), requests: Vec::new() }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.octet() % 16 {
            0..=3 => self.segment(input),
            4 => {
                let key = self.key(Protocol::Udp, input);
                let payload = vec![7; usize::from(input.u16() % MOST_OCTETS)];
                self.frames.push(datagram(&key, &payload));
            }
            5 => {
                let id = u16::from(input.octet() % 4);
                let ping = key(Protocol::Echo, "192.0.2.7:0", "198.51.100.1:0");
                let namespace = SocketAddr::new(ping.namespace.ip(), id);
                let body = vec![1; 2 + usize::from(input.octet())];
                self.frames.push(echo_request(&FlowKey { namespace, ..ping }, &body));
            }
            6 => {
                let len = usize::from(input.octet());
                self.frames.push((0..len).map(|_| input.octet()).collect());
            }
            7 => self.flush(),
            8 | 9 => self.socket_event(input),
            10 => self.wait(Duration::from_millis(u64::from(input.u16()))),
            11 => self.kernel(input),
            12 | 13 => self.message(input),
            14 => self.connection(input),
            _ => self.arrival(input),
        }
        if self.frames.len() >= 64 {
            self.flush();
        }
    }

    /// One of a few flows.
    fn key(&self, protocol: Protocol, input: &mut Input<'_>) -> FlowKey {
        let choice = input.octet();
        let port = 1000 + u16::from(choice & 7);
        let (namespace, remote) = match choice >> 3 & 3 {
            0 => ("192.0.2.7:0", "198.51.100.1:80"),
            1 => ("[2001:db8::7]:0", "[2001:db8:1::1]:80"),
            2 => ("192.0.2.7:0", "192.0.2.53:53"),
            _ => ("192.0.2.7:0", "192.0.2.1:8080"),
        };
        let of_one = key(protocol, namespace, remote);
        // Also as the answer to what came to a listener.
        let (ours, theirs) =
            if choice & 0x80 == 0 { (port, of_one.remote.port()) } else { (8080, port) };
        FlowKey {
            namespace: SocketAddr::new(of_one.namespace.ip(), ours),
            remote: SocketAddr::new(of_one.remote.ip(), theirs),
            ..of_one
        }
    }

    fn segment(&mut self, input: &mut Input<'_>) {
        let key = self.key(Protocol::Tcp, input);
        let choice = input.octet();
        let (mut seq, mut ack) = (Seq::from(1000), Seq::default());
        let table = &mut self.rig.stack.flows().table;
        if let Some((_, entry)) = table.look_up(&key, None)
            && let Flow::Tcp(flow) = &entry.flow
        {
            let mut connection = flow.connection().clone();
            (seq, ack) = (connection.receiver().next(), connection.sender().highest());
        }
        if choice & 1 != 0 {
            seq += u32::from(input.u16()).wrapping_sub(0x100);
        }
        if choice & 2 != 0 {
            ack += u32::from(input.u16()).wrapping_sub(0x100);
        }
        let flags = match choice >> 2 & 3 {
            0 => Flags::SYN,
            1 => Flags::ACK,
            2 => Flags::ACK.with(Flags::from_octet(input.octet())),
            _ => Flags::from_octet(input.octet()),
        };
        let syn = flags.contains(Flags::SYN).then(|| SynOptions {
            mss: Mss::new(input.u16()),
            window_scale: (choice & 16 != 0).then_some(WindowScale::new(7)),
            sack_permitted: choice & 32 != 0,
        });
        let window = WireWindow::from(input.u16());
        let header = ToSend { seq, ack, flags, window, syn, sack: SackBlocks::NONE };
        let len = if choice & 64 == 0 { 0 } else { usize::from(input.u16() % MOST_OCTETS) };
        self.frames.push(segment(&key, &header, &vec![3; len]));
    }

    fn flush(&mut self) {
        let frames = std::mem::take(&mut self.frames);
        self.rig.frames(&frames);
        self.settle();
    }

    /// Every socket that has to do with a flow.
    fn sockets(&mut self) -> Vec<Shared<State>> {
        let kernel = self.rig.stack.sockets();
        let opened = kernel.opened.iter().map(|it| Rc::clone(&it.state));
        let all = opened.chain(self.made.iter().map(Rc::clone));
        all.filter(|it| !it.borrow().closed && matches!(it.borrow().token, Some(Token::Flow(..))))
            .collect()
    }

    fn socket_event(&mut self, input: &mut Input<'_>) {
        self.flush();
        let sockets = self.sockets();
        let which = usize::from(input.octet());
        let Some(socket) = sockets.get(which % sockets.len().max(1)) else { return };
        let (bits, len) = (input.octet(), usize::from(input.u16() % MOST_OCTETS));
        let mut readiness = Readiness::default();
        {
            let mut state = socket.borrow_mut();
            if bits & 1 != 0 {
                readiness = readiness.with(Readiness::READABLE, true);
                state.incoming.extend(std::iter::repeat_n(5, len));
                state.datagrams.push_back(vec![5; len]);
            }
            if bits & 2 != 0 {
                readiness = readiness.with(Readiness::WRITABLE, true);
                state.takes = len * 16;
            }
            if bits & 4 != 0 {
                readiness = readiness.with(Readiness::ENDED, true);
                state.ended = true;
            }
            if bits & 0x18 == 0x18 {
                readiness = readiness.with(Readiness::FAILED, true);
                let errno = Errno::from_raw(i32::from(input.octet()));
                state.error = Some(errno);
                let info = u32::from(input.u16());
                let family = if bits & 0x40 != 0 { Family::V4 } else { Family::V6 };
                let icmp = (bits & 0x20 != 0).then_some((family, info as u8, (info >> 8) as u8));
                let returned = Returned::of(&vec![bits; usize::from(info as u16)]);
                let error = QueuedError { icmp, info, returned, ..QueuedError::of(errno) };
                state.queued_errors.push_back(error);
            }
            readiness = readiness.with(Readiness::URGENT, bits & 0xe0 == 0xe0);
        }
        self.rig.event(socket, readiness);
        self.settle();
    }

    /// Changes what the kernel says to calls that come.
    fn kernel(&mut self, input: &mut Input<'_>) {
        let choice = input.octet();
        let errno = Errno::from_raw(i32::from(input.octet() % 128));
        match choice % 6 {
            0 => self.rig.stack.sockets().answers.push_back(Ok(Progress::Connecting)),
            1 => self.rig.stack.sockets().answers.push_back(Err(errno)),
            2 => {
                let error = (choice & 0x80 != 0).then_some(errno);
                self.rig.stack.sockets().listen_error = error;
            }
            3 => self.rig.stack.link().device.refuses = usize::from(input.octet() % 8),
            4 => {
                for socket in self.sockets() {
                    let error = (choice & 0x80 != 0).then_some(errno);
                    socket.borrow_mut().send_error = error;
                }
            }
            _ => {
                for socket in self.sockets() {
                    socket.borrow_mut().has_its_address = choice & 0x80 != 0;
                }
            }
        }
    }

    fn message(&mut self, input: &mut Input<'_>) {
        self.flush();
        let choice = input.octet();
        match choice % 8 {
            0 => {
                let v4: &[&str] = if choice & 8 == 0 { &["192.0.2.7"] } else { &["192.0.2.8"] };
                let v6: &[&str] = if choice & 16 == 0 { &["2001:db8::7"] } else { &[] };
                self.rig.has(v4, v6);
            }
            1 => {
                let server =
                    |last| Resolver { address: IpAddr::from([203, 0, 113, last]), interface: None };
                let servers = Bounded::truncated([server(1), server(2)]).0;
                let generation = Generation(1);
                self.rig.message(PeerMessage::Resolvers(ResolverSnapshot {
                    generation,
                    servers,
                    search: Bounded::default(),
                }));
            }
            2 | 3 => self.rules(input),
            4 => {
                self.requests.clear();
                self.rig.message(PeerMessage::MonitorGone);
            }
            _ => {
                while let Some(message) = self.rig.stack.next_request() {
                    match message {
                        DatapathToMonitor::SocketsWanted { request, .. }
                        | DatapathToMonitor::ListenerWanted { request, .. } => {
                            self.requests.push(request);
                        }
                        DatapathToMonitor::FlowsReset { .. } => {}
                        DatapathToMonitor::Hello(_) => panic!("no request"),
                    }
                }
                let Some(request) = self.requests.pop() else { return };
                self.answer(request, choice);
            }
        }
        self.settle();
    }

    fn answer(&mut self, request: RequestId, choice: u8) {
        let message = match choice >> 4 & 3 {
            0 => PeerMessage::Refused(request, Refusal::Busy),
            1 => PeerMessage::Refused(request, Refusal::Denied),
            _ => {
                let (socket, state) = Socket::new();
                self.made.push(state);
                PeerMessage::Sockets(request, vec![socket])
            }
        };
        self.rig.message(message);
    }

    fn rules(&mut self, input: &mut Input<'_>) {
        let choice = input.octet();
        let rule = |transport| {
            ForwardRule::try_from(RawRule {
                transport,
                listen: None,
                interface: None,
                ports: PortRange::new(8080, 8080 + u16::from(choice & 3)).ok()?,
                target: None,
                target_first: 8080,
                effort: Effort::Explicit,
            })
            .ok()
        };
        let rules: Vec<_> = match choice >> 2 & 3 {
            0 => Vec::new(),
            1 => rule(Transport::Tcp).into_iter().collect(),
            _ => [Transport::Tcp, Transport::Udp].into_iter().filter_map(rule).collect(),
        };
        let direction = if choice & 16 == 0 { Direction::Inbound } else { Direction::Outbound };
        let (rules, generation) = (Bounded::truncated(rules).0, Generation(1));
        let table = ForwardTable { generation, direction, rules };
        self.rig.message(PeerMessage::Forwards(Box::new(table)));
    }

    /// An open listener, and whether it is on the host.
    fn listener(&mut self, input: &mut Input<'_>) -> Option<Shared<State>> {
        self.flush();
        let kernel = self.rig.stack.sockets();
        let host = kernel.listeners.iter().map(|(_, state)| Rc::clone(state));
        let all = host.chain(self.made.iter().map(Rc::clone));
        let is_listener = |it: &Shared<State>| {
            !it.borrow().closed && matches!(it.borrow().token, Some(Token::Listener(_)))
        };
        let all: Vec<_> = all.filter(is_listener).collect();
        all.get(usize::from(input.octet()) % all.len().max(1)).map(Rc::clone)
    }

    fn came(&mut self, listener: &Shared<State>) {
        if let Some(Token::Listener(index)) = listener.borrow().token {
            self.rig.stack.listener_event(index);
        }
        self.rig.stack.serve(self.rig.now);
        self.settle();
    }

    fn peer(input: &mut Input<'_>) -> (SocketAddr, IpAddr) {
        let choice = input.octet();
        let (peer, local): (IpAddr, IpAddr) = match choice >> 3 & 3 {
            0 => ([127, 0, 0, 1].into(), [127, 0, 0, 1].into()),
            1 => ([198, 51, 100, 1].into(), [203, 0, 113, 9].into()),
            _ => (input.ip(), input.ip()),
        };
        (SocketAddr::new(peer, 1000 + u16::from(choice & 7)), local)
    }

    fn connection(&mut self, input: &mut Input<'_>) {
        let Some(listener) = self.listener(input) else { return };
        let (peer, local) = Self::peer(input);
        let (socket, state) = Socket::connected(SocketAddr::new(local, 8080), peer);
        self.made.push(state);
        listener.borrow_mut().connections.push_back((socket, peer));
        self.came(&listener);
    }

    fn arrival(&mut self, input: &mut Input<'_>) {
        let Some(listener) = self.listener(input) else { return };
        let (peer, local) = Self::peer(input);
        let octets = vec![9; usize::from(input.u16() % MOST_OCTETS)];
        listener.borrow_mut().arrivals.push_back((DatagramAddresses { peer, local }, octets));
        self.came(&listener);
    }

    /// Lets time pass, with every timer at its time.
    fn wait(&mut self, time: Duration) {
        self.flush();
        let until = self.rig.now + time;
        for _ in 0..MOST_TIMERS {
            let Some(due) = self.rig.stack.deadline().filter(|due| *due <= until) else {
                self.rig.now = until;
                return;
            };
            self.rig.now = self.rig.now.max(due);
            self.rig.stack.fire_timers(self.rig.now);
            self.rig.stack.serve(self.rig.now);
            self.settle();
        }
        panic!("the deadline does not move on");
    }

    /// Gives everybody who waits for it a turn.
    fn settle(&mut self) {
        for _ in 0..MOST_TURNS {
            if !self.rig.stack.is_busy() {
                return;
            }
            self.rig.stack.tap_is_empty();
            self.rig.stack.serve(self.rig.now);
        }
        panic!("somebody waits for a turn that does not come");
    }

    fn check(&mut self) {
        for frame in self.rig.received() {
            let classified = classify(&frame, Framing::Vnet);
            assert_ne!(classified, Err(DropReason::Malformed), "{frame:?}");
        }
        let flows = self.rig.stack.flows();
        let (count, backlog) = (flows.table.len(), flows.credit.backlog());
        assert!(count <= FLOWS);
        assert!(count > 0 || backlog == 0, "{backlog} octets of backlog without a flow");
        let open = self.sockets().len();
        // A flow of queries may keep the socket of the resolver that was asked before.
        assert!(open <= 2 * count, "{open} sockets of {count} flows are open");
        while self.rig.stack.log().take().is_some() {}
    }
}
