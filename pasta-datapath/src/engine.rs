//! The loop: wait, read batches, call the logic, carry out what it says.
//!
//! Order of a turn: timers, tap, host sockets, messages. A flow that has used its share goes to the
//! end of a queue, and a turn with something in that queue does not sleep. The clock is read once a
//! turn. No buffer is allocated for a frame.

mod open;

use crate::classify::{Content, Frame, classify};
use crate::counters::DropReason;
use crate::flow::table::FlowTable;
use crate::flow::{FlowId, FlowKey};
use crate::forward::{Forwarding, Protocol};
use crate::icmp::EchoFlow;
use crate::icmp_error;
use crate::io::epoll::{Event, Poller};
use crate::io::sockets::{PeekMethod, QueuedError, TcpSocket, probe_peek, take_error};
use crate::io::tap::{MAX_FRAME, Path, ReadError, Tap};
use crate::local::{self, Neighbours};
use crate::peer::{Monitor, News, Supervisor};
use crate::sys;
use crate::tcp::connection::reset_for;
use crate::tcp::mapping::{Fate, Mapping, Parking, ToTap};
use crate::time::Instant;
use crate::udp::{Datagram, NotSent, Reading, UdpFlow};
use crate::wire::tcp::{Header, ToSend};
use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use pasta_ipc::ReceiveError;
use pasta_ipc::types::{LogLevel, MacAddr, Mtu};
use seccomp::Confined;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::hash::RandomState;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

/// Frames read before sockets have a turn.
const BATCH: usize = 64;
/// What a batch is read into: four of the largest frames, which stays inside a core's second-level
/// cache (reading more at once costs a quarter of the throughput), or many small ones.
const BATCH_OCTETS: usize = 4 * (MAX_FRAME + 64);
/// A frame below this may be one of an exchange of small messages.
const LONE_FRAME: usize = 2048;
/// What is peeked at once, for the same reason.
const SCRATCH_OCTETS: usize = 512 * 1024;
/// Octets that all flows together may have parked; chosen: a quarter of a per cent of an ordinary
/// machine's memory, and far more than flows with a truthful window ever use.
const PARKING_OCTETS: usize = 64 * 1024 * 1024;
/// Most flows; each is a descriptor and some 400 octets.
pub const MAX_FLOWS: usize = 131_071;

/// Tokens that no flow has: their lives would have to reach 2^32 - 1 first.
const TOKEN_TAP: u64 = u64::MAX;
const TOKEN_SUPERVISOR: u64 = u64::MAX - 1;
const TOKEN_MONITOR: u64 = u64::MAX - 2;

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

/// A TCP connection of the namespace's with its socket.
#[derive(Debug)]
struct TcpFlow {
    mapping: Mapping,
    socket: TcpSocket,
    path: Path,
    mac: MacAddr,
    /// Number of the namespace's SYN, for an error to quote.
    syn: Header,
}

#[derive(Debug)]
enum Kind {
    // The others are a quarter of the size.
    Tcp(Box<TcpFlow>),
    Udp(UdpFlow),
    Echo(EchoFlow),
}

#[derive(Debug)]
struct Flow {
    kind: Kind,
    /// When the timer queue wakes it.
    armed: Option<Instant>,
    /// Whether it is in the queue of those that have more to do.
    queued: bool,
}

/// One flow's way to the tap.
struct FlowTap<'a> {
    tap: &'a mut Tap,
    path: &'a Path,
}

impl ToTap for FlowTap<'_> {
    fn send(&mut self, header: &ToSend, segment_size: u16, payload: &[u8]) -> bool {
        self.tap.write_tcp(self.path, header, segment_size, payload)
    }

    fn frame_payload(&self, segment_size: u16) -> usize {
        let size = usize::from(segment_size).max(1);
        match self.tap.framing() {
            crate::classify::Framing::Plain => size,
            crate::classify::Framing::Vnet => {
                let room = self.path.max_transport() - crate::wire::tcp::LEN;
                (room - room % size).max(size)
            }
        }
    }
}

/// What a batch of frames has for the flows it touches.
struct Batch<'a> {
    segments: Vec<(FlowId, &'a [u8])>,
    touched: Vec<FlowId>,
    datagrams: Vec<(FlowId, MacAddr, Datagram<'a>)>,
}

/// Storage of a [`Batch`] between two of them.
#[derive(Debug, Default)]
struct BatchStorage {
    segments: Vec<(FlowId, &'static [u8])>,
    touched: Vec<FlowId>,
    datagrams: Vec<(FlowId, MacAddr, Datagram<'static>)>,
}

/// The shell's state.
#[derive(Debug)]
pub struct Engine {
    tap: Tap,
    tap_ready: bool,
    poller: Poller,
    supervisor: Supervisor,
    monitor: Monitor,
    flows: FlowTable<Flow>,
    timers: BTreeSet<(Instant, FlowId)>,
    hungry: VecDeque<FlowId>,
    forwarding: Forwarding,
    neighbours: Neighbours,
    mtu: Mtu,
    parking: Parking,
    peek: (PeekMethod, PeekMethod),
    isn_key: RandomState,
    frames: Vec<u8>,
    scratch: Vec<u8>,
    ranges: Vec<(usize, usize)>,
    /// Frames that the last batch had.
    last_batch: usize,
    storage: BatchStorage,
    events: Vec<Event>,
    started: std::time::Instant,
    said: Said,
}

/// Warnings that are said once.
#[derive(Debug, Default)]
struct Said {
    no_ping: bool,
    no_socket: bool,
}

impl Engine {
    /// Puts together what the loop needs; nothing is read yet.
    ///
    /// # Errors
    ///
    /// Where descriptors cannot be waited for; the supervisor's channel comes back to say so.
    #[expect(clippy::disallowed_methods, reason = "the shell reads the clock, once a turn")]
    pub fn new(
        tap: Tap,
        supervisor: Supervisor,
        monitor: Monitor,
        forwarding: Forwarding,
        max_flows: usize,
    ) -> Result<Self, (Supervisor, io::Error)> {
        let poller = match watch_fixed(&tap, &supervisor, &monitor) {
            Ok(poller) => poller,
            Err(error) => return Err((supervisor, error)),
        };
        Ok(Self {
            tap,
            tap_ready: true,
            poller,
            supervisor,
            monitor,
            flows: FlowTable::new(max_flows),
            timers: BTreeSet::new(),
            hungry: VecDeque::new(),
            forwarding,
            neighbours: Neighbours::default(),
            mtu: Mtu::DEFAULT,
            parking: Parking::new(PARKING_OCTETS),
            peek: (probe_peek(AddressFamily::Inet), probe_peek(AddressFamily::Inet6)),
            isn_key: RandomState::new(),
            frames: vec![0; BATCH_OCTETS],
            scratch: vec![0; SCRATCH_OCTETS],
            ranges: Vec::with_capacity(BATCH),
            last_batch: 0,
            storage: BatchStorage::default(),
            events: Vec::new(),
            started: std::time::Instant::now(),
            said: Said::default(),
        })
    }

    /// The supervisor's channel, for what is said before the loop runs.
    pub fn supervisor(&mut self) -> &mut Supervisor {
        &mut self.supervisor
    }

    /// Forwards frames until it is told to stop; cannot be called by a process that is not confined.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub fn run(&mut self, _: &Confined) -> Result<Ended, RunError> {
        loop {
            if let Some(ended) = self.turn()? {
                let counters = self.tap.counters.to_string();
                self.supervisor.log(LogLevel::Info, || format!("datapath ends: {counters}"));
                return Ok(ended);
            }
        }
    }

    fn turn(&mut self) -> Result<Option<Ended>, RunError> {
        let now = self.now();
        let busy = self.tap_ready || !self.hungry.is_empty();
        let timeout = if busy {
            Some(std::time::Duration::ZERO)
        } else {
            self.timers.first().map(|(due, _)| due.since(now))
        };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        events.extend(self.poller.wait(timeout).map_err(RunError::Wait)?);
        let now = self.now();

        self.fire_timers(now);
        self.tap_ready |= events.iter().any(|event| event.token == TOKEN_TAP);
        if self.tap_ready
            && let Err(errno) = self.read_tap(now)
        {
            return Ok(Some(Ended::TapGone(errno)));
        }
        let mut ended = None;
        for event in &events {
            match event.token {
                TOKEN_TAP => {}
                TOKEN_SUPERVISOR => ended = self.hear_supervisor()?.or(ended),
                TOKEN_MONITOR => self.hear_monitor()?,
                token => self.socket_event(now, FlowId::from_token(token), *event),
            }
        }
        self.events = events;
        // Only those that were in the queue when the turn began: new ones have had their share.
        for _ in 0..self.hungry.len() {
            if let Some(id) = self.hungry.pop_front() {
                self.feed(now, id);
            }
        }
        Ok(ended)
    }

    #[expect(clippy::disallowed_methods, reason = "the shell reads the clock, once a turn")]
    fn now(&self) -> Instant {
        let elapsed = std::time::Instant::now().duration_since(self.started);
        Instant::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            let Some(flow) = self.flows.get_mut(id) else { continue };
            flow.armed = None;
            match &mut flow.kind {
                Kind::Tcp(tcp) => {
                    tcp.mapping.tick(now);
                    self.run_tcp(now, id, &[]);
                }
                Kind::Udp(udp) => {
                    let deadline = udp.deadline();
                    self.expire(now, id, deadline);
                }
                Kind::Echo(echo) => {
                    let deadline = echo.deadline();
                    self.expire(now, id, deadline);
                }
            }
        }
    }

    /// Ends a flow whose life is over, or looks again when it may be.
    fn expire(&mut self, now: Instant, id: FlowId, deadline: Instant) {
        if deadline <= now {
            self.remove(id);
        } else {
            self.arm(id, Some(deadline));
        }
    }

    /// Makes the timer queue wake `id` at `deadline`, if that is before it would anyway.
    fn arm(&mut self, id: FlowId, deadline: Option<Instant>) {
        let (Some(deadline), Some(flow)) = (deadline, self.flows.get_mut(id)) else { return };
        match flow.armed {
            Some(armed) if armed <= deadline => return,
            Some(armed) => {
                self.timers.remove(&(armed, id));
            }
            None => {}
        }
        flow.armed = Some(deadline);
        self.timers.insert((deadline, id));
    }

    fn remove(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.remove(id)
            && let Some(armed) = flow.armed
        {
            self.timers.remove(&(armed, id));
        }
    }

    fn read_tap(&mut self, now: Instant) -> Result<(), Errno> {
        let mut frames = std::mem::take(&mut self.frames);
        let mut gone = None;
        self.ranges.clear();
        let mut start = 0;
        while self.ranges.len() < BATCH
            && let Some(room) = frames.get_mut(start..start + MAX_FRAME)
        {
            match self.tap.read(room) {
                Ok(len) => {
                    self.ranges.push((start, start + len));
                    start += len.next_multiple_of(64);
                    // One small frame after a turn that had one is most likely the only one: the
                    // kernel says so if it is not, for the price of the read that is saved.
                    if len < LONE_FRAME && self.ranges.len() == 1 && self.last_batch <= 1 {
                        self.tap_ready = false;
                        break;
                    }
                }
                Err(ReadError::WouldBlock) => {
                    self.tap_ready = false;
                    break;
                }
                Err(ReadError::Gone(errno)) => {
                    gone = Some(errno);
                    break;
                }
            }
        }
        self.last_batch = self.ranges.len();
        self.handle_frames(now, &frames);
        self.frames = frames;
        gone.map_or(Ok(()), Err)
    }

    fn handle_frames(&mut self, now: Instant, frames: &[u8]) {
        let storage = std::mem::take(&mut self.storage);
        let BatchStorage { segments, touched, datagrams } = storage;
        let mut batch = Batch { segments, touched, datagrams };
        let ranges = std::mem::take(&mut self.ranges);
        for (start, end) in &ranges {
            let octets = frames.get(*start..*end).unwrap_or_default();
            let handled = classify(octets, self.tap.framing())
                .and_then(|frame| self.handle_frame(now, frame, &mut batch));
            if let Err(reason) = handled {
                self.tap.counters.drop(reason);
            }
        }
        self.ranges = ranges;
        self.flush(now, &batch);
        batch.segments.clear();
        batch.datagrams.clear();
        batch.touched.clear();
        let Batch { segments, touched, datagrams } = batch;
        // Empty vectors keep their memory for the next batch.
        let segments = segments.into_iter().map(|_| unreachable!("was cleared")).collect();
        let datagrams = datagrams.into_iter().map(|_| unreachable!("was cleared")).collect();
        self.storage = BatchStorage { segments, touched, datagrams };
    }

    fn handle_frame<'a>(
        &mut self,
        now: Instant,
        frame: Frame<'a>,
        batch: &mut Batch<'a>,
    ) -> Result<(), DropReason> {
        let mac = frame.mac;
        match frame.content {
            Content::Arp(request) => {
                if !self.forwarding.serves(request.target.into()) {
                    return Err(DropReason::FamilyOff);
                }
                if !self.neighbours.answers_arp(&request) {
                    return Err(DropReason::NeighbourNotOurs);
                }
                local::send_arp_reply(&mut self.tap, &request);
                Ok(())
            }
            Content::NeighbourSolicitation { source, target } => {
                if !self.forwarding.serves(target.into()) {
                    return Err(DropReason::FamilyOff);
                }
                if !self.neighbours.answers_solicitation(source, target) {
                    return Err(DropReason::NeighbourNotOurs);
                }
                local::send_advertisement(&mut self.tap, mac, source, target);
                Ok(())
            }
            Content::Tcp { source, destination, header, payload } => {
                self.handle_segment(now, mac, (source, destination), &header, payload, batch)
            }
            Content::Udp { source, destination, payload, segment_size } => {
                let key =
                    FlowKey { protocol: Protocol::Udp, namespace: source, remote: destination };
                let id = match self.flows.find(&key) {
                    Some(id) => id,
                    None => self.open_udp(now, mac, key, payload.len())?,
                };
                batch.datagrams.push((id, mac, Datagram { payload, segment_size }));
                Ok(())
            }
            Content::Echo { source, destination, id, body } => {
                self.handle_echo(now, mac, (source, destination), id, body)
            }
        }
    }

    fn handle_segment<'a>(
        &mut self,
        now: Instant,
        mac: MacAddr,
        (source, destination): (SocketAddr, SocketAddr),
        header: &Header,
        payload: &'a [u8],
        batch: &mut Batch<'a>,
    ) -> Result<(), DropReason> {
        let key = FlowKey { protocol: Protocol::Tcp, namespace: source, remote: destination };
        let found = self.flows.find(&key);
        let id = match found {
            Some(id) => id,
            None if is_opening(header) => return self.open_tcp(now, mac, key, header),
            None => {
                if let Some(reset) = reset_for(header, payload.len()) {
                    self.send_reset(mac, key, &reset);
                }
                return Err(DropReason::NoFlow);
            }
        };
        let Some(Flow { kind: Kind::Tcp(flow), .. }) = self.flows.get_mut(id) else {
            return Err(DropReason::NoFlow);
        };
        if mac != flow.mac {
            flow.mac = mac;
            flow.path.set_mac(mac);
        }
        let taken = flow.mapping.segment(now, header, payload.len());
        if !taken.is_empty() {
            batch.segments.push((id, payload.get(taken).unwrap_or_default()));
        }
        if !batch.touched.contains(&id) {
            batch.touched.push(id);
        }
        Ok(())
    }

    /// Tells the sender of a segment for which there is no flow.
    fn send_reset(&mut self, mac: MacAddr, key: FlowKey, reset: &ToSend) {
        let our_mac = self.tap.our_mac();
        let path = Path::new(our_mac, mac, crate::io::tap::TCP, key.remote, key.namespace);
        self.tap.write_tcp(&path, reset, u16::MAX, &[]);
    }

    /// Gives the flows that a batch touched what it had for them.
    fn flush(&mut self, now: Instant, batch: &Batch<'_>) {
        for id in &batch.touched {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let payloads = batch.segments.iter().filter(|(of, _)| of == id);
            let mut count = 0;
            for (slice, (_, payload)) in slices.iter_mut().zip(payloads) {
                *slice = IoSlice::new(payload);
                count += 1;
            }
            self.run_tcp(now, *id, slices.get(..count).unwrap_or_default());
        }
        let mut rest = batch.datagrams.as_slice();
        while let Some((id, mac, _)) = rest.first() {
            let run = rest.iter().take_while(|(of, from, _)| of == id && from == mac).count();
            let (group, later) = rest.split_at(run);
            rest = later;
            self.send_datagrams(now, *id, *mac, group);
        }
    }

    fn send_datagrams(
        &mut self,
        now: Instant,
        id: FlowId,
        mac: MacAddr,
        group: &[(FlowId, MacAddr, Datagram<'_>)],
    ) {
        let Self { tap, forwarding, flows, .. } = self;
        let Some(Flow { kind: Kind::Udp(flow), .. }) = flows.get_mut(id) else { return };
        let empty = Datagram { payload: &[], segment_size: None };
        let mut datagrams = [empty; BATCH];
        datagrams.iter_mut().zip(group).for_each(|(slot, (_, _, datagram))| *slot = *datagram);
        let datagrams = datagrams.get(..group.len()).unwrap_or_default();
        flow.send(now, mac, datagrams, |flow, datagram, why| match why {
            NotSent::Dropped(reason) => tap.counters.drop(reason),
            NotSent::Refused(errno) => {
                tap.counters.drop(DropReason::Unreachable);
                let remote = flow.path().source().ip();
                let mtu = sys::path_mtu(flow.socket(), remote);
                if let Some(why) = icmp_error::Unreachable::from_errno(errno, mtu) {
                    let reporter = forwarding.our_address(remote).unwrap_or(remote);
                    let offending = flow.offending(datagram.payload.len());
                    icmp_error::send(tap, mac, reporter, &offending, why);
                }
            }
        });
    }

    /// Something happened to the socket of flow `id`.
    fn socket_event(&mut self, now: Instant, id: FlowId, event: Event) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        match &mut flow.kind {
            Kind::Tcp(tcp) => {
                if tcp.mapping.is_connecting() {
                    self.connect_event(now, id, event);
                    return;
                }
                if event.is_failed() && tcp.socket.take_error().is_some() {
                    tcp.mapping.failed();
                }
                if event.is_ended() {
                    tcp.mapping.ended();
                }
                if event.is_readable() {
                    tcp.mapping.readable();
                }
                if event.is_writable() {
                    tcp.mapping.writable();
                }
                self.run_tcp(now, id, &[]);
            }
            Kind::Udp(_) | Kind::Echo(_) => {
                if event.is_failed() {
                    self.tell_errors(id);
                }
                self.feed(now, id);
            }
        }
    }

    /// Runs a flow that may have more to do.
    fn feed(&mut self, now: Instant, id: FlowId) {
        let Self { tap, flows, scratch, mtu, hungry, .. } = self;
        let Some(flow) = flows.get_mut(id) else { return };
        flow.queued = false;
        let reading = match &mut flow.kind {
            Kind::Tcp(_) => return self.run_tcp(now, id, &[]),
            Kind::Udp(udp) => udp.receive(now, tap, *mtu, scratch),
            Kind::Echo(echo) => echo.receive(now, tap, scratch),
        };
        if reading == Reading::More && !flow.queued {
            flow.queued = true;
            hungry.push_back(id);
        }
        // An answer can bring the end nearer.
        let deadline = match &flow.kind {
            Kind::Udp(udp) => Some(udp.deadline()),
            _ => None,
        };
        self.arm(id, deadline);
    }

    fn run_tcp(&mut self, now: Instant, id: FlowId, payloads: &[IoSlice<'_>]) {
        let Self { tap, flows, poller, scratch, parking, hungry, .. } = self;
        let Some(flow) = flows.get_mut(id) else { return };
        let Kind::Tcp(tcp) = &mut flow.kind else { return };
        let mut to_tap = FlowTap { tap, path: &tcp.path };
        let fate = tcp.mapping.run(now, &mut tcp.socket, payloads, &mut to_tap, scratch, parking);
        match fate {
            Fate::Alive => {}
            Fate::Hungry if flow.queued => {}
            Fate::Hungry => {
                flow.queued = true;
                hungry.push_back(id);
            }
            Fate::Over => return self.remove(id),
            Fate::BrokenOff => {
                tcp.socket.reset_on_close();
                return self.remove(id);
            }
        }
        // Where asking fails, the recheck of the send buffer does the same more slowly.
        if tcp.mapping.take_write_event_wanted()
            && poller.rearm(tcp.socket.as_fd(), id.as_token()).is_err()
        {
            tcp.mapping.writable();
        }
        let deadline = tcp.mapping.deadline();
        self.arm(id, deadline);
    }

    /// Tells the namespace what a datagram socket's error queue holds.
    fn tell_errors(&mut self, id: FlowId) {
        let Self { tap, flows, forwarding, .. } = self;
        let Some(flow) = flows.get_mut(id) else { return };
        let (socket, mac, path, offending) = match &flow.kind {
            Kind::Udp(udp) => (udp.socket(), udp.mac(), udp.path(), udp.offending(0)),
            Kind::Echo(echo) => (echo.socket(), echo.mac(), echo.path(), echo.offending()),
            Kind::Tcp(_) => return,
        };
        // What is pending besides the queue would fail the next call instead.
        let _ = take_error(socket);
        let remote = path.source().ip();
        // Bounded by the socket's own queue; each entry was one datagram.
        while let Some(QueuedError { errno, mtu, offender }) =
            crate::io::sockets::take_queued_error(socket)
        {
            let Some(why) = icmp_error::Unreachable::from_errno(errno, mtu) else { continue };
            let reporter = reporter(forwarding, remote, why, offender);
            icmp_error::send(tap, mac, reporter, &offending, why);
        }
    }

    fn hear_supervisor(&mut self) -> Result<Option<Ended>, RunError> {
        let mut heard = Vec::new();
        let result = self.supervisor.receive(|news| heard.push(news));
        let mut ended = None;
        for news in heard {
            match news {
                News::Shutdown => ended = Some(Ended::Asked),
                news => self.take_in(news),
            }
        }
        match result {
            Ok(()) => Ok(ended),
            Err(ReceiveError::Closed) => Ok(Some(Ended::Asked)),
            Err(error) => Err(RunError::Peer("supervisor", error)),
        }
    }

    fn hear_monitor(&mut self) -> Result<(), RunError> {
        let mut heard = Vec::new();
        let result = self.monitor.receive(|news| heard.push(news));
        heard.into_iter().for_each(|news| self.take_in(news));
        result.map_err(|error| RunError::Peer("monitor", error))
    }

    /// Makes what a peer has said count.
    pub fn take_in(&mut self, news: News) {
        match news {
            News::Network(snapshot) => {
                self.forwarding.update_network(&snapshot);
                self.neighbours.update(&snapshot);
                self.mtu = snapshot.mtu.unwrap_or(self.mtu);
            }
            News::Resolvers(snapshot) => self.forwarding.update_resolvers(&snapshot),
            News::MonitorGone => {
                let line = || "monitor has gone; its last snapshot stays in force".to_owned();
                self.supervisor.log(LogLevel::Warn, line);
            }
            News::Forwards(_)
            | News::Listeners(_)
            | News::Ports(_)
            | News::Sockets(..)
            | News::Refused(..) => {}
            // The first is over when there is an engine; the second is for the loop.
            News::Start(..) | News::Shutdown => {}
        }
    }
}

fn watch_fixed(tap: &Tap, supervisor: &Supervisor, monitor: &Monitor) -> io::Result<Poller> {
    let poller = Poller::new()?;
    if let Some(tap) = tap.as_fd() {
        poller.add_level(tap, TOKEN_TAP)?;
    }
    poller.add_level(supervisor.as_fd(), TOKEN_SUPERVISOR)?;
    if let Some(fd) = monitor.as_fd() {
        poller.add_level(fd, TOKEN_MONITOR)?;
    }
    Ok(poller)
}

fn is_opening(header: &Header) -> bool {
    use crate::wire::tcp::Flags;
    let flags = header.flags;
    flags.contains(Flags::SYN) && !flags.contains(Flags::ACK) && !flags.contains(Flags::RST)
}

/// From whom an error comes, as the namespace sees it: the destination itself for a closed port; who
/// reported it, if that is nobody on this host; else we.
fn reporter(
    forwarding: &Forwarding,
    remote: IpAddr,
    why: icmp_error::Unreachable,
    offender: Option<IpAddr>,
) -> IpAddr {
    if why == icmp_error::Unreachable::Port {
        return remote;
    }
    let foreign = offender.filter(|address| {
        address.is_ipv4() == remote.is_ipv4() && !crate::classify::is_impossible(*address)
    });
    foreign.or_else(|| forwarding.our_address(remote)).unwrap_or(remote)
}
