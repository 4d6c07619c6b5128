//! The loop: wait, read batches, call the logic, carry out what it says.
//!
//! Order of a turn: timers, tap, host sockets, messages, then flows that wait for more. A flow that has
//! used its quantum goes to the end of the run queue (round robin); a turn with a flow in it does not sleep,
//! and serves few of them, so that new arrivals of other flows are seen soon. The clock is read once a turn, and
//! while busy polling (`engine/busy_poll.rs`).
//! No buffer is allocated for a frame.

mod batch;
mod busy_poll;
mod evict;
mod listen;
mod neighbour;
mod open;
mod ports;
mod reopen;
mod splice;
mod tcp;
mod timers;
mod token;
mod tx_window;

use crate::control::{Monitor, PeerMessage, Supervisor};
use crate::counters::Counters;
use crate::flow::FlowId;
use crate::flow::echo::EchoFlow;
use crate::flow::splice::{Side, SpliceFlow};
use crate::flow::table::FlowTable;
use crate::flow::tcp::window::CreditPool;
use crate::flow::udp::forwarded::ForwardedFlow;
use crate::flow::udp::{Reading, UdpFlow};
use crate::link::Link;
use crate::link::icmp_error;
use crate::link::neighbour::Neighbours;
use crate::nat::Nat;
use crate::sys::epoll::{CAPACITY, Event, Poller};
use crate::sys::fd_budget::FdBudget;
use crate::sys::socket::{PeekMethod, QueuedError, probe_peek, probe_send_buffer, take_error};
use crate::sys::tap::Tap;
use crate::time::Instant;
use batch::{BATCH, BATCH_OCTETS, BatchStorage};
use busy_poll::{BUSY_POLL_TIME, BusyPoll, Turn};
use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use pasta_ipc::ReceiveError;
use pasta_ipc::types::{LogLevel, Mtu};
pub use ports::PortForwarding;
use seccomp::Confined;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::hash::RandomState;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tcp::{RoundRobin, TcpFlow, quantum_for};
use token::Token;
use tx_window::Active;

/// What is peeked at once, for the same reason.
const SCRATCH_OCTETS: usize = 512 * 1024;
/// Backlog of all TCP flows beyond which windows of flows with a backlog no longer grow; chosen: a quarter of
/// a per cent of an ordinary machine's memory, and far more than flows whose windows match their sockets use.
const BACKLOG_OCTETS: usize = 64 * 1024 * 1024;
/// Backlog of all TCP flows beyond which a flow that would add to it is reset; chosen: windows that are
/// advertised already may still be used beyond the bound above, but not by all flows that there can be.
const MAX_BACKLOG: usize = 4 * BACKLOG_OCTETS;
/// Less than this for the namespace is little; chosen: what an exchange of messages may have.
const LITTLE: u64 = 16 * 1024;
/// Most flows; each is a descriptor and some 1,000 octets of ours.
pub const MAX_FLOWS: usize = 131_071;

/// Why the loop ended.
#[derive(Debug)]
pub enum Ended {
    /// The supervisor asked for it, or has gone.
    Asked,
    /// The tap was deleted or moved away.
    TapGone(Errno),
}

/// Why the loop could not go on.
#[derive(Debug)]
pub enum RunError {
    /// A peer broke the protocol.
    Peer(&'static str, ReceiveError),
    /// The kernel refused to wait.
    Wait(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(who, error) => write!(f, "{who}: {error}"),
            Self::Wait(error) => write!(f, "cannot wait for events: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

#[derive(Debug)]
enum Kind {
    // Boxed, so that the table pays for the flows that it has and for no largest kind.
    Tcp(Box<TcpFlow>),
    Udp(Box<UdpFlow>),
    Echo(Box<EchoFlow>),
    Forwarded(Box<ForwardedFlow>),
    Splice(Box<SpliceFlow>),
}

#[derive(Debug)]
struct Flow {
    kind: Kind,
    /// When the timer queue wakes it.
    armed: Option<Instant>,
    /// Whether it is in the queue of those that have more to do.
    queued: bool,
    /// Whether it is in the queue of those whose window is to grow.
    waits: bool,
}

/// The shell's state.
#[derive(Debug)]
pub struct Engine {
    link: Link<Tap>,
    counters: Counters,
    fd_budget: FdBudget,
    tap_ready: bool,
    poller: Poller,
    supervisor: Supervisor,
    monitor: Monitor,
    flows: FlowTable<Flow>,
    timers: BTreeSet<(Instant, FlowId)>,
    run_queue: VecDeque<FlowId>,
    round_robin: RoundRobin,
    /// Flows whose window is to grow when there is room for it in the tap's queue.
    waiting: VecDeque<FlowId>,
    nat: Nat,
    neighbours: Neighbours,
    mtu: Mtu,
    credit: CreditPool,
    active: Active,
    peek: (PeekMethod, PeekMethod),
    /// Of a socket, for sending, in octets of kernel memory.
    largest_buffer: u32,
    isn_key: RandomState,
    frames: Vec<u8>,
    scratch: Vec<u8>,
    ranges: Vec<(usize, usize)>,
    busy_poll: BusyPoll,
    storage: BatchStorage,
    events: Vec<Event>,
    ports: PortForwarding,
    started: std::time::Instant,
    said: LogLimits,
}

/// Warnings that are said once, or not too often.
#[derive(Debug, Default)]
struct LogLimits {
    no_ping: bool,
    exhausted: evict::RateLimit,
}

impl Engine {
    /// Puts together what the loop needs; nothing is read yet.
    ///
    /// # Errors
    ///
    /// Where descriptors cannot be waited for; the supervisor's channel comes back to say so.
    #[expect(clippy::disallowed_methods, reason = "the shell reads the clock, once a turn")]
    #[expect(clippy::too_many_arguments, reason = "the parts of the loop, each made by the caller")]
    pub fn new(
        link: Link<Tap>,
        supervisor: Supervisor,
        monitor: Monitor,
        nat: Nat,
        neighbours: Neighbours,
        ports: PortForwarding,
        fd_budget: FdBudget,
        max_flows: usize,
    ) -> Result<Self, (Supervisor, io::Error)> {
        let poller = match watch_fixed(&link.device, &supervisor, &monitor) {
            Ok(poller) => poller,
            Err(error) => return Err((supervisor, error)),
        };
        Ok(Self {
            link,
            counters: Counters::default(),
            fd_budget,
            tap_ready: true,
            poller,
            supervisor,
            monitor,
            flows: FlowTable::new(max_flows),
            timers: BTreeSet::new(),
            run_queue: VecDeque::new(),
            round_robin: RoundRobin::default(),
            waiting: VecDeque::new(),
            nat,
            neighbours,
            mtu: Mtu::DEFAULT,
            credit: CreditPool::new(BACKLOG_OCTETS, MAX_BACKLOG),
            active: Active::default(),
            peek: (probe_peek(AddressFamily::Inet), probe_peek(AddressFamily::Inet6)),
            largest_buffer: probe_send_buffer(),
            isn_key: RandomState::new(),
            frames: vec![0; BATCH_OCTETS],
            scratch: vec![0; SCRATCH_OCTETS],
            ranges: Vec::new(),
            busy_poll: BusyPoll::new(),
            storage: BatchStorage::default(),
            events: Vec::new(),
            ports,
            started: std::time::Instant::now(),
            said: LogLimits::default(),
        })
    }

    /// The supervisor's channel, for what is said before the loop runs.
    pub fn supervisor(&mut self) -> &mut Supervisor {
        &mut self.supervisor
    }

    /// Forwards frames until the supervisor asks it to stop; cannot be called by a process that is not confined.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub fn run(&mut self, _: &Confined) -> Result<Ended, RunError> {
        loop {
            if let Some(ended) = self.turn()? {
                let (backlog, counters) = (self.credit.backlog_total(), &self.counters);
                let line = format!("datapath ends: backlog octets {backlog}, {counters}");
                self.supervisor.log(LogLevel::Info, || line);
                // Whoever waits for us waits for the ports, and not for the tap.
                self.ports.close_all();
                if matches!(ended, Ended::Asked) {
                    self.supervisor.hang_up();
                }
                return Ok(ended);
            }
        }
    }

    fn turn(&mut self) -> Result<Option<Ended>, RunError> {
        let now = self.now();
        // Who waits for a window has one as soon as the tap's queue is empty, of which there is no event.
        let waited_for = !self.run_queue.is_empty() || !self.waiting.is_empty();
        let busy = self.tap_ready || waited_for || self.ports.is_busy();
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            let timer = self.timers.first().map(|(due, _)| *due);
            let deadlines = [timer, self.ports.deadline()];
            deadlines.into_iter().flatten().min().map(|due| due.since(now))
        };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        if !busy && self.busy_poll.looks() {
            self.look(now, &mut events)?;
        }
        if events.is_empty() {
            events.extend(self.poller.wait(timeout).map_err(RunError::Wait)?);
        }
        let now = self.now();
        let before = self.counters.octets_to_tap;

        self.fire_timers(now);
        let (mut near, mut far) = (false, false);
        self.tap_ready |= events.iter().any(|event| Token::from(event.token) == Token::Tap);
        if !self.tap_ready && events.len() < CAPACITY {
            self.credit.queue_is_empty();
        }
        if self.tap_ready {
            match self.read_tap(now) {
                Ok(few) => near = few,
                Err(errno) => return Ok(Some(Ended::TapGone(errno))),
            }
        }
        let mut ended = None;
        for event in &events {
            match Token::from(event.token) {
                Token::Tap => {}
                Token::Supervisor => ended = self.read_supervisor()?.or(ended),
                Token::Monitor => self.read_monitor()?,
                Token::Listener(index) => self.ports.came(index),
                Token::Flow(id, side) => {
                    match self.exchange_side(id, side) {
                        Some(Side::Initiating) => near = true,
                        Some(Side::Target) => far = true,
                        None => {}
                    }
                    self.socket_event(now, id, side, *event);
                }
            }
        }
        self.events = events;
        self.serve_listeners(now);
        self.serve_run_queue(now);
        self.serve_waiting(now);
        let little = self.counters.octets_to_tap - before < LITTLE;
        self.busy_poll.note(match (near, far) {
            (true, false) => Turn::Near,
            (false, true) if little => Turn::Far,
            _ => Turn::Other,
        });
        Ok(ended)
    }

    /// Which end of an exchange an event of this flow is from; none in the middle of a stream.
    fn exchange_side(&mut self, id: FlowId, side: Side) -> Option<Side> {
        match &self.flows.get_mut(id)?.kind {
            Kind::Splice(flow) => (!flow.is_stream()).then_some(side),
            _ => Some(Side::Target),
        }
    }

    /// Looks for events for a moment, since one is likely to come.
    fn look(&mut self, start: Instant, events: &mut Vec<Event>) -> Result<(), RunError> {
        let until = start + BUSY_POLL_TIME;
        loop {
            events.extend(self.poller.wait(Some(Duration::ZERO)).map_err(RunError::Wait)?);
            let found = !events.is_empty();
            if found || self.now() >= until {
                self.busy_poll.looked(found);
                return Ok(());
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the shell reads the clock")]
    pub(super) fn now(&self) -> Instant {
        let elapsed = std::time::Instant::now().duration_since(self.started);
        Instant::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Something happened to the socket of flow `id`.
    fn socket_event(&mut self, now: Instant, id: FlowId, side: Side, event: Event) {
        self.flows.touch(now, id);
        let Some(flow) = self.flows.get_mut(id) else { return };
        match &mut flow.kind {
            Kind::Tcp(tcp) => {
                if tcp.relay.is_connecting() {
                    self.connect_event(now, id, event);
                    return;
                }
                if event.is_failed() && tcp.socket.take_error().is_some() {
                    tcp.relay.failed();
                }
                if event.is_ended() {
                    tcp.relay.ended();
                }
                if event.is_urgent() {
                    tcp.relay.urgent();
                }
                if event.is_readable() {
                    tcp.relay.readable();
                }
                if event.is_writable() {
                    tcp.relay.writable();
                }
                self.run_tcp(now, id, &[]);
            }
            Kind::Splice(_) => self.splice_event(id, side, event),
            Kind::Forwarded(_) => self.feed(now, id),
            Kind::Udp(_) | Kind::Echo(_) => {
                if event.is_failed() {
                    self.report_socket_errors(id);
                }
                self.feed(now, id);
            }
        }
    }

    /// Runs a flow that may have more to do.
    fn feed(&mut self, now: Instant, id: FlowId) {
        let Self { link, counters, flows, scratch, mtu, run_queue, ports, .. } = self;
        let tap = &mut link.writer(counters);
        let Some(flow) = flows.get_mut(id) else { return };
        flow.queued = false;
        let reading = match &mut flow.kind {
            Kind::Tcp(_) => {
                let quantum = quantum_for(run_queue.len() + 1);
                return self.run_tcp_for(quantum, now, id, &[]);
            }
            Kind::Splice(_) => return self.run_splice(id),
            Kind::Forwarded(flow) => match ports.listener(flow.listener()) {
                Some(listener) => flow.receive(now, listener, scratch, |it| tap.counters.drop(it)),
                None => return self.remove(id),
            },
            Kind::Udp(udp) => udp.receive(now, tap, *mtu, scratch),
            Kind::Echo(echo) => echo.receive(now, tap, scratch),
        };
        if reading == Reading::More && !flow.queued {
            flow.queued = true;
            run_queue.push_back(id);
        }
        // An answer can bring the end nearer.
        let deadline = match &flow.kind {
            Kind::Udp(udp) => Some(udp.deadline()),
            Kind::Forwarded(forwarded) => Some(forwarded.deadline()),
            _ => None,
        };
        self.arm(id, deadline);
    }

    /// Tells the namespace what a datagram socket's error queue holds.
    fn report_socket_errors(&mut self, id: FlowId) {
        let Self { link, counters, flows, nat, .. } = self;
        let tap = &mut link.writer(counters);
        let Some(flow) = flows.get_mut(id) else { return };
        let (socket, mac, path, offending, target) = match &flow.kind {
            Kind::Udp(it) => (it.socket(), it.mac(), it.path(), it.offending(0), it.target()),
            Kind::Echo(it) => (it.socket(), it.mac(), it.path(), it.offending(), it.target()),
            Kind::Tcp(_) | Kind::Forwarded(_) | Kind::Splice(_) => return,
        };
        let mut hard = false;
        // What is pending besides the queue would fail the next call instead.
        let _ = take_error(socket);
        let remote = path.source().ip();
        // Bounded by the socket's own queue; each entry was one datagram.
        while let Some(QueuedError { errno, mtu, offender }) =
            crate::sys::socket::take_queued_error(socket)
        {
            let Some(why) = icmp_error::Unreachable::from_errno(errno, mtu) else { continue };
            hard |= !matches!(why, icmp_error::Unreachable::TooBig(_));
            let reporter = reporter(nat, remote, why, offender);
            icmp_error::send(tap, mac, reporter, &offending, why);
        }
        if hard {
            nat.resolver_failed(path.source(), target.address.ip());
        }
    }

    fn read_supervisor(&mut self) -> Result<Option<Ended>, RunError> {
        let mut messages = Vec::new();
        let result = self.supervisor.receive(|message| messages.push(message));
        let mut ended = None;
        for message in messages {
            match message {
                PeerMessage::Shutdown => ended = Some(Ended::Asked),
                message => self.handle_message(message),
            }
        }
        match result {
            Ok(()) => Ok(ended),
            Err(ReceiveError::Closed) => Ok(Some(Ended::Asked)),
            Err(error) => Err(RunError::Peer("supervisor", error)),
        }
    }

    fn read_monitor(&mut self) -> Result<(), RunError> {
        let mut messages = Vec::new();
        let result = self.monitor.receive(|message| messages.push(message));
        for message in messages {
            match message {
                PeerMessage::Sockets(request, sockets) => self.sockets_came(request, sockets)?,
                PeerMessage::Refused(request, why) => self.sockets_refused(request, why)?,
                message => self.handle_message(message),
            }
        }
        result.map_err(|error| RunError::Peer("monitor", error))
    }

    /// Makes what a peer has said count.
    pub fn handle_message(&mut self, message: PeerMessage) {
        match message {
            PeerMessage::Network(snapshot) => {
                self.nat.update_network(&snapshot);
                let reached_at = [true, false].map(|v4| self.nat.namespace_address(v4));
                let new = self.neighbours.update(&snapshot, reached_at);
                self.set_mtu(snapshot.mtu.unwrap_or(self.mtu));
                self.solicit(&new);
            }
            PeerMessage::Resolvers(snapshot) => self.nat.update_resolvers(&snapshot),
            PeerMessage::MonitorGone => {
                let line = || "monitor has gone; its last snapshot stays in force".to_owned();
                self.supervisor.log(LogLevel::Warn, line);
                self.no_more_sockets();
            }
            PeerMessage::Forwards(table) => self.rules_changed(&table),
            PeerMessage::Listeners(listeners) => self.listeners_came(listeners),
            PeerMessage::Ports(snapshot) => self.ports_changed(*snapshot),
            PeerMessage::Neighbours(snapshot) => self.neighbours.learn(&snapshot),
            // Over when there is an engine; for the loop; answers, which the loop takes.
            PeerMessage::Start(..)
            | PeerMessage::Shutdown
            | PeerMessage::Sockets(..)
            | PeerMessage::Refused(..) => {}
        }
    }
}

fn watch_fixed(tap: &Tap, supervisor: &Supervisor, monitor: &Monitor) -> io::Result<Poller> {
    let poller = Poller::new()?;
    if let Some(tap) = tap.as_fd() {
        poller.add_level(tap, Token::Tap.into())?;
    }
    poller.add_level(supervisor.as_fd(), Token::Supervisor.into())?;
    if let Some(fd) = monitor.as_fd() {
        poller.add_level(fd, Token::Monitor.into())?;
    }
    Ok(poller)
}

/// From whom an error comes, as the namespace sees it: the destination itself for a closed port; who
/// reported it, if that is nobody on this host; else we.
fn reporter(
    nat: &Nat,
    remote: IpAddr,
    why: icmp_error::Unreachable,
    offender: Option<IpAddr>,
) -> IpAddr {
    if why == icmp_error::Unreachable::Port {
        return remote;
    }
    let foreign = offender.filter(|address| {
        address.is_ipv4() == remote.is_ipv4() && !crate::link::classify::is_impossible(*address)
    });
    foreign.or_else(|| nat.our_address(remote)).unwrap_or(remote)
}
