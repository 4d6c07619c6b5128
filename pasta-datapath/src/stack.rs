#![forbid(unsafe_code)]
//! The stack: frames, socket events, deadlines and messages in; frames and calls to the host's kernel out.
//!
//! It has parts, each of which owns its state: [`Link`] the neighbours and what is written, [`Flows`] the flows and
//! when they run, [`Nat`] where a new one leads, [`Ports`] the listeners, [`Counters`] the fate of frames. What is
//! here leads from one to the other: which flow a frame is for, how a new one is opened, and what follows from the
//! [`Outcome`](crate::flow::Outcome) of any flow (`settle`). It has neither clock nor descriptor: time comes in, and the host's
//! kernel is behind [`Sockets`].

mod accept;
mod batch;
mod capacity;
mod error_reports;
mod fragments;
mod leaving;
mod new_flows;
mod open;
mod openings;
mod parts;
mod share;
mod survey;

use crate::control::PeerMessage;
use crate::counters::{Counters, DropReason};
use crate::flow::datagram::{Datagram, MAX_GROUP, Sender};
use crate::flow::flows::{Entry, Flows};
use crate::flow::refuse::send_reset;
use crate::flow::schedule::{Cause, Schedule};
use crate::flow::tcp::connection::reset_for;
use crate::flow::tcp::relay::Noted;
use crate::flow::tcp::window::CreditQueue;
use crate::flow::{Flow, FlowEvent, FlowId, FlowKey, Readiness, Side, TargetSocket};
use crate::link::Link;
use crate::link::classify::{Content, Frame, Framing, check_possible, classify};
use crate::link::writer::{FrameDevice, ReadError};
use crate::log::Log;
use crate::nat::{Nat, Protocol};
use crate::part::part;
use crate::port_forward::Ports;
use crate::port_forward::socket_pool::Request;
use crate::sockets::Sockets;
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header};
use accept::Acceptor;
use batch::{Batch, Datagrams, place_of};
use leaving::Leaving;
use new_flows::{NewFlows, Opening, Origin};
use nix::errno::Errno;
use open::Opener;
use openings::Openings;
pub use parts::Limits;
use parts::Parts;
use pasta_ipc::port_forward::ForwardsChanged;
use pasta_ipc::socket::{Refusal, RequestId};
use pasta_ipc::status::DatapathStatus;
use pasta_ipc::types::{LogLevel, MacAddr, NetworkSnapshot, Transport};
use pasta_ipc::{DatapathToMonitor, ReceiveError};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use survey::Survey;

/// Frames read before sockets have a turn, while few flows send; datagrams sent at once.
const BATCH: usize = MAX_GROUP;
/// Frames read before sockets have a turn where many flows send: so many for each, up to a bound. What a
/// flow has in one batch goes out with one call and is acknowledged with one frame, and that is most of
/// what a small frame costs. Measured with 128 flows of BBR and an MTU of 1500: 1.5 to 1.7 times as much.
const MOST_FRAMES: usize = 512;
const FRAMES_A_FLOW: usize = 4;

/// What is peeked or read at once; chosen: as much as a flow may move in a turn.
const SCRATCH_OCTETS: usize = 512 * 1024;

/// How many flows of the run queue have their turn before tap and sockets are polled again.
const FLOWS_A_TURN: usize = 1;
/// How many flows that wait for window credit have their turn at once; chosen: some milliseconds.
const WAITING_A_TURN: usize = 512;

/// All that decides.
#[derive(Debug)]
pub struct Stack<S: Sockets> {
    parts: Parts<S>,
    batch: Batch,
    /// What the namespace wants to open.
    new_flows: NewFlows,
    /// The status that is being put together.
    survey: Option<Survey>,
}

impl<S: Sockets> Stack<S> {
    /// Puts the parts together; nothing is read yet.
    pub fn new(
        sockets: S,
        link: Link<S::Tap>,
        nat: Nat,
        ports: Ports<S::Socket>,
        log: Log,
        limits: Limits,
    ) -> Self {
        let (flows, counters) = (Flows::new(limits.flows), Counters::default());
        let scratch = vec![0; SCRATCH_OCTETS];
        let leaving = Leaving::default();
        let openings = Openings::default();
        let parts = Parts {
            link,
            flows,
            nat,
            ports,
            counters,
            log,
            sockets,
            limits,
            scratch,
            leaving,
            openings,
        };
        let new_flows = NewFlows::default();
        Self { parts, batch: Batch::default(), new_flows, survey: None }
    }

    /// The host's kernel.
    pub fn sockets(&mut self) -> &mut S {
        &mut self.parts.sockets
    }

    /// Our end of the link.
    pub fn link(&mut self) -> &mut Link<S::Tap> {
        &mut self.parts.link
    }

    /// The flows.
    pub fn flows(&mut self) -> &mut Flows<S> {
        &mut self.parts.flows
    }

    /// What became of frames.
    pub fn counters(&self) -> &Counters {
        &self.parts.counters
    }

    /// Lines that are to be sent.
    pub fn log(&mut self) -> &mut Log {
        &mut self.parts.log
    }

    /// Closes every listener.
    pub fn close_listeners(&mut self) {
        self.parts.ports.close_all();
    }

    /// Whether there is something to do at once.
    pub fn is_busy(&self) -> bool {
        let Parts { flows, ports, .. } = &self.parts;
        flows.schedule.is_busy()
            || ports.turns.is_busy()
            || self.new_flows() > 0
            || ports.is_changing()
            || self.survey.as_ref().is_some_and(|it| !it.is_over())
    }

    /// Whether connections that are yet to be opened wait for flows that exist.
    pub fn pauses(&self) -> bool {
        self.new_flows.has_connections() && self.parts.openings.pauses()
    }

    /// How many flows of the namespace are yet to be opened.
    pub fn new_flows(&self) -> usize {
        self.new_flows.len()
    }

    /// When there is something to do again.
    pub fn deadline(&self) -> Option<Instant> {
        let Parts { flows, ports, link, .. } = &self.parts;
        let deadlines = [
            flows.schedule.deadline(),
            ports.deadline(),
            link.neighbours.reachability.deadline(),
            link.responder.advertiser.next_deadline(),
            link.reassembly.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// How many frames are to be read before sockets have a turn.
    pub fn frames_wanted(&mut self, now: Instant) -> usize {
        self.parts.flows.active.roll(now);
        (self.parts.flows.active.flows() * FRAMES_A_FLOW).clamp(BATCH, MOST_FRAMES)
    }

    /// Reads a frame to the front of `buffer`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    #[inline]
    pub fn read_frame(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let read = self.parts.link.device.read(buffer);
        match read {
            Ok(_) => {
                self.parts.counters.from_tap += 1;
                self.parts.flows.credit.frame_received();
            }
            Err(ReadError::WouldBlock) => self.tap_is_empty(),
            Err(ReadError::Lost) => {
                self.parts.counters.drop(DropReason::Malformed);
                self.tap_is_empty();
            }
            Err(ReadError::Gone(_)) => {}
        }
        read
    }

    /// Notes that nothing is in the tap's queue.
    pub fn tap_is_empty(&mut self) {
        self.parts.flows.credit.queue_is_empty();
    }

    /// Handles a batch of frames, each at one of `places` in `frames`; each flow they touch runs once. New flows are
    /// opened by [`Stack::serve`].
    pub fn handle_frames(&mut self, now: Instant, frames: &[u8], places: &[(usize, usize)]) {
        self.handle_batch(now, Opening::Waits, frames, places);
    }

    fn handle_batch(
        &mut self,
        now: Instant,
        opening: Opening,
        frames: &[u8],
        places: &[(usize, usize)],
    ) {
        let framing = Framing::of(self.parts.link.device.offloads());
        let mut batch = std::mem::take(&mut self.batch);
        for (start, end) in places {
            let octets = part(frames, *start..*end);
            let handled = classify(octets, framing).and_then(|frame| {
                let sender = Sender { mac: frame.mac, handling: frame.handling };
                let origin = Origin { now, sender, octets, batch: frames, opening };
                self.handle_frame(&origin, frame, &mut batch)
            });
            if let Err(reason) = handled {
                self.parts.counters.drop(reason);
            }
        }
        self.flush(now, frames, &mut batch);
        batch.clear();
        self.batch = batch;
    }

    fn handle_frame(
        &mut self,
        origin: &Origin<'_>,
        frame: Frame<'_>,
        batch: &mut Batch,
    ) -> Result<(), DropReason> {
        let Parts { link, nat, counters, .. } = &mut self.parts;
        let Origin { now, sender, .. } = *origin;
        let mac = sender.mac;
        let (key, payload, segment_size) = match frame.content {
            Content::Tcp { source, destination, header, payload } => {
                let key =
                    FlowKey { protocol: Protocol::Tcp, namespace: source, remote: destination };
                carried(nat, Protocol::Tcp)?;
                let segment = (&header, payload);
                return self.handle_segment(origin, key, segment, batch);
            }
            Content::Udp { source, destination, payload, segment_size } => {
                let key =
                    FlowKey { protocol: Protocol::Udp, namespace: source, remote: destination };
                (key, payload, segment_size)
            }
            Content::Dhcp { destination, payload, .. } if link.answers_dhcp(nat) => {
                return link.answer_dhcp(counters, *destination.ip(), payload);
            }
            Content::Dhcp { source, destination, payload } => {
                let (namespace, remote) = (source.into(), SocketAddr::from(destination));
                check_possible((*source.ip()).into(), remote.ip())?;
                let key = FlowKey { protocol: Protocol::Udp, namespace, remote };
                (key, payload, None)
            }
            Content::Echo { source, destination, id, body } => {
                let key = FlowKey {
                    protocol: Protocol::Echo,
                    namespace: SocketAddr::new(source, id),
                    remote: SocketAddr::new(destination, 0),
                };
                (key, body, None)
            }
            Content::Fragment(packet, piece) => {
                return self.handle_fragment(origin, (&packet, piece), batch);
            }
            Content::Error(report) => return self.note_error_report(&report, batch),
            Content::Arp(request) => return link.answer_arp(nat, counters, &request),
            Content::NeighbourSolicitation { source, target } => {
                return link.answer_solicitation(nat, counters, (mac, source), target);
            }
            Content::Dhcpv6 { source, payload } => {
                return link.answer_dhcpv6(nat, counters, (mac, source), payload);
            }
            Content::RouterSolicitation { source } => {
                return link.answer_router_solicitation(now, nat, counters, (mac, source));
            }
            Content::NeighbourAnswer { address, at } => {
                return self.neighbour_answered(now, mac, (address, at));
            }
        };
        carried(nat, key.protocol)?;
        self.parts.answered(now, key.namespace.ip(), mac);
        // Of several, an error is about the first.
        let first = part(payload, ..segment_size.map_or(payload.len(), usize::from));
        let Some(flow) = self.find_datagram_flow(origin, key, first)? else {
            return Ok(());
        };
        let payload = place_of(payload, origin.batch);
        batch.add_datagrams(Datagrams { flow, sender, payload, segment_size });
        Ok(())
    }

    /// Takes in that `address` is `at` this MAC address, which the one at `mac` says.
    fn neighbour_answered(
        &mut self,
        now: Instant,
        mac: MacAddr,
        (address, at): (IpAddr, MacAddr),
    ) -> Result<(), DropReason> {
        let is_answer = mac == at && self.parts.answered(now, address, at);
        let Parts { link, nat, .. } = &mut self.parts;
        let learned = link.learn(now, nat, mac, (address, at));
        if is_answer { Ok(()) } else { learned }
    }

    #[inline]
    fn handle_segment(
        &mut self,
        origin: &Origin<'_>,
        key: FlowKey,
        (header, payload): (&Header, &[u8]),
        batch: &mut Batch,
    ) -> Result<(), DropReason> {
        let Origin { now, sender, .. } = *origin;
        let mac = sender.mac;
        // What a kernel answers to our own question shows no use of the connection.
        let controls = header.flags.contains(Flags::SYN) || header.flags.contains(Flags::FIN);
        let used = (controls || !payload.is_empty()).then_some(now);
        self.parts.answered(now, key.namespace.ip(), mac);
        let Flows { table, active, credit, .. } = &mut self.parts.flows;
        let Some((id, entry)) = table.look_up(&key, used) else {
            if header.is_opening() {
                return self.open_connection(origin, key, header);
            }
            if self.new_flows.contains(&key) {
                return self.wait_for_turn(origin, key);
            }
            if let Some(reset) = reset_for(header, payload.len()) {
                send_reset(
                    &mut self.parts.link.writer(&mut self.parts.counters),
                    mac,
                    &key,
                    &reset,
                );
            }
            return Err(DropReason::NoFlow);
        };
        let Flow::Tcp(flow) = &mut entry.flow else { return Err(DropReason::NoFlow) };
        match flow.segment(now, sender, (header, payload), active, credit) {
            Noted::Take(taken) => {
                let payload = part(payload, taken);
                batch.add_segment(id, place_of(payload, origin.batch));
                Ok(())
            }
            Noted::NewConnection => {
                self.parts.drive(now, id, FlowEvent::Payloads(&[]));
                self.open_connection(origin, key, header)
            }
        }
    }

    /// The flow of datagrams with `key`, of which `payload` is one, that can send; none if it is yet to be opened.
    fn find_datagram_flow(
        &mut self,
        origin: &Origin<'_>,
        key: FlowKey,
        payload: &[u8],
    ) -> Result<Option<FlowId>, DropReason> {
        let Origin { now, sender: Sender { mac, .. }, .. } = *origin;
        self.parts.nat.ask(now, key.remote);
        let listeners = &self.parts.ports.listeners;
        match self.parts.flows.table.look_up(&key, Some(now)) {
            Some((id, Entry { flow: Flow::Datagram(flow), .. })) => {
                // Its socket was closed with the interface that it was bound to.
                if flow.mapping().is_some_and(|it| listeners.get(it.id).is_none()) {
                    self.parts.remove(id);
                    return self.open_datagram(origin, key, payload);
                }
                if flow.source_check_due(now, self.parts.nat.revision()) {
                    self.opener(now, mac).renew_datagram((id, key), payload)?;
                }
                Ok(Some(id))
            }
            Some(_) => Err(DropReason::NoFlow),
            None => self.open_datagram(origin, key, payload),
        }
    }

    /// Gives the flows that a batch touched what it had for them.
    fn flush(&mut self, now: Instant, frames: &[u8], batch: &mut Batch) {
        let windows = self
            .parts
            .flows
            .active
            .windows(self.parts.link.mtu, self.parts.flows.schedule.waiting());
        self.parts.flows.credit.set_limits(windows.with_buffers_of(self.parts.limits.send_buffer));
        for group in batch.segments(BATCH) {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let mut count = 0;
            let payloads = group.iter().filter(|segment| !segment.payload.is_empty());
            for (slice, segment) in slices.iter_mut().zip(payloads) {
                *slice = IoSlice::new(part(frames, segment.payload.clone()));
                count += 1;
            }
            let Some(first) = group.first() else { continue };
            let payloads = part(&slices, ..count);
            self.parts.drive(now, first.flow, FlowEvent::Payloads(payloads));
        }
        for group in batch.datagrams(BATCH) {
            self.parts.counters.datagrams_out += group.len() as u64;
            let mut datagrams = [Datagram { payload: &[], segment_size: None }; BATCH];
            for (slot, of) in datagrams.iter_mut().zip(group) {
                let payload = part(frames, of.payload.clone());
                *slot = Datagram { payload, segment_size: of.segment_size };
            }
            let Some(first) = group.first() else { continue };
            let datagrams = part(&datagrams, ..group.len());
            self.parts.drive(now, first.flow, FlowEvent::Datagrams(first.sender, datagrams));
        }
        for (flow, report) in batch.error_reports() {
            self.parts.drive(now, *flow, FlowEvent::Reported(report));
        }
    }

    /// Takes in that something happened to a socket; gives the side of an exchange of messages that this is.
    pub fn socket_event(
        &mut self,
        now: Instant,
        id: FlowId,
        side: Side,
        readiness: Readiness,
    ) -> Option<Side> {
        let exchange = self.parts.flows.table.get_mut(id)?.flow.exchange_side(side);
        self.parts.flows.table.touch(now, id);
        self.parts.drive(now, id, FlowEvent::Socket(side, readiness));
        exchange
    }

    /// Takes in that something came to the listener at this place; gives the side of an exchange of messages that
    /// this is.
    pub fn listener_event(&mut self, index: u32) -> Option<Side> {
        let ports = &mut self.parts.ports;
        ports.came(index);
        let listener = ports.listeners.by_index(index).and_then(|id| ports.listeners.get(id))?;
        (listener.spec.transport() == Transport::Udp).then_some(Side::Target)
    }

    /// Takes in that something which was sent from the listener at this place did not arrive.
    pub fn listener_error(&mut self, now: Instant, index: u32) {
        if let Some(id) = self.parts.ports.listeners.by_index(index) {
            Acceptor::new(&mut self.parts, now).take_errors(id);
        }
    }

    /// Runs flows whose deadline has passed, sends advertisements that are due, and asks who does not answer.
    pub fn fire_timers(&mut self, now: Instant) {
        let Parts { link, nat, counters, .. } = &mut self.parts;
        link.advertise(now, counters);
        link.ask_due(now, nat, counters);
        link.give_up_fragments(now, nat, counters);
        self.parts.move_flows(now);
        while let Some(id) = self.parts.flows.schedule.due(now) {
            let Some(entry) = self.parts.flows.table.get_mut(id) else { continue };
            Schedule::fired(&mut entry.scheduled);
            self.parts.drive(now, id, FlowEvent::Deadline);
        }
    }

    /// Serves those that wait for their turn: listeners, the run queue, the queue for window credit.
    pub fn serve(&mut self, now: Instant) {
        Acceptor::new(&mut self.parts, now).serve();
        self.open_new_flows(now);
        self.serve_run_queue(now);
        self.serve_waiting(now);
        if let Some(survey) = &mut self.survey {
            survey.go_on(&mut self.parts);
        }
    }

    /// The status that was asked for, once it is complete; once.
    #[inline]
    pub fn take_status(&mut self) -> Option<DatapathStatus> {
        let survey = self.survey.take_if(|survey| survey.is_over())?;
        Some(survey.finish(&mut self.parts))
    }

    /// What became of a change of rules; once.
    #[inline]
    pub fn take_changed(&mut self) -> Option<ForwardsChanged> {
        self.parts.ports.take_changed()
    }

    /// Serves the run queue in round robin: only flows that were in it at the start, and only so many that
    /// events do not wait long.
    fn serve_run_queue(&mut self, now: Instant) {
        let mut served = 0;
        for _ in 0..self.parts.flows.schedule.queued() {
            if served == FLOWS_A_TURN {
                return;
            }
            let Some(id) = self.parts.flows.schedule.next_turn() else { return };
            // Ids of flows that have ended do not take the turn of others.
            served += usize::from(self.parts.flows.table.get_mut(id).is_some());
            let facts = self.parts.run(now, id, Cause::Turn, FlowEvent::Turn);
            self.parts.provide_socket(now, id, facts);
        }
    }

    /// Lets windows grow, in the order in which flows came to wait for window credit, as long as some is left.
    fn serve_waiting(&mut self, now: Instant) {
        let Flows { table, schedule, .. } = &mut self.parts.flows;
        schedule.forget_ended(table.len(), |id| table.get_mut(*id).is_some());
        for _ in 0..schedule.waiting().min(WAITING_A_TURN) {
            let Flows { table, schedule, credit, .. } = &mut self.parts.flows;
            if !credit.has_credit() {
                break;
            }
            let Some(id) = schedule.next_waiting() else { break };
            let Some(entry) = table.get_mut(id) else { continue };
            Schedule::served(&mut entry.scheduled);
            credit.set_queue(CreditQueue::Empty);
            self.parts.drive(now, id, FlowEvent::CreditFree);
        }
        let queue = match self.parts.flows.schedule.waiting() {
            0 => CreditQueue::Empty,
            _ => CreditQueue::Waiting,
        };
        self.parts.flows.credit.set_queue(queue);
    }

    fn opener(&mut self, now: Instant, mac: MacAddr) -> Opener<'_, S> {
        Opener::new(&mut self.parts, now, mac)
    }

    /// Takes in what a peer has said.
    ///
    /// # Errors
    ///
    /// [`ReceiveError::Violation`] if the monitor may not say that.
    pub fn handle_message(
        &mut self,
        now: Instant,
        message: PeerMessage<S::Socket>,
    ) -> Result<(), ReceiveError> {
        match message {
            PeerMessage::Network(snapshot) => self.network_changed(now, &snapshot),
            PeerMessage::Resolvers(snapshot) => {
                let Parts { link, nat, .. } = &mut self.parts;
                nat.update_resolvers(&snapshot);
                link.responder.update_resolvers(now, nat, &snapshot);
            }
            PeerMessage::MonitorGone => {
                let line = || "monitor has gone; its last snapshot stays in force".to_owned();
                self.parts.log.add(LogLevel::Warn, line);
                self.monitor_gone(now);
            }
            PeerMessage::Forwards(table) => {
                let (ports, mut cx) = self.parts.ports(now);
                ports.rules_changed(&mut cx, &table);
            }
            PeerMessage::Change(change) => {
                let (ports, mut cx) = self.parts.ports(now);
                ports.begin_change(&mut cx, &change);
            }
            PeerMessage::StatusWanted(flows) => {
                self.survey = Some(Survey::new(&self.parts, flows));
            }
            PeerMessage::Listeners(listeners) => self.parts.ports.hand_over(listeners),
            PeerMessage::Ports(snapshot) => {
                let (ports, mut cx) = self.parts.ports(now);
                ports.ports_changed(&mut cx, *snapshot);
            }
            PeerMessage::Neighbours(snapshot) => {
                let Parts { link, nat, counters, .. } = &mut self.parts;
                link.learn_neighbours(nat, counters, &snapshot);
            }
            PeerMessage::Sockets(request, sockets) => self.answered(now, request, Ok(sockets))?,
            PeerMessage::Refused(request, why) => self.answered(now, request, Err(why))?,
            // Over when there is a stack, and for the reactor.
            PeerMessage::Start(..) | PeerMessage::Shutdown => {}
        }
        Ok(())
    }

    fn network_changed(&mut self, now: Instant, snapshot: &NetworkSnapshot) {
        let Parts { link, nat, counters, flows, .. } = &mut self.parts;
        let before = link.mtu;
        nat.update_network(snapshot);
        link.update(now, nat, counters, snapshot);
        if link.mtu != before {
            for entry in flows.table.values_mut() {
                if let Flow::Tcp(tcp) = &mut entry.flow {
                    tcp.limit_mss(link.mss(tcp.path().source().ip()));
                }
            }
        }
        self.parts.leaving.update(snapshot);
        self.parts.reset_leaving(now, snapshot.generation);
    }

    /// Takes in what the monitor has answered to `request`.
    fn answered(
        &mut self,
        now: Instant,
        request: RequestId,
        answer: Result<Vec<S::Socket>, Refusal>,
    ) -> Result<(), ReceiveError> {
        let requests = &mut self.parts.ports.requests;
        let Some(asked) = requests.answered(request) else {
            return Err(violation("an answer that nobody has asked for"));
        };
        let answer = match answer {
            Ok(sockets) => Ok(sockets),
            Err(Refusal::Busy) => {
                requests.busy(now, asked);
                return Ok(());
            }
            Err(Refusal::Denied) => Err(Errno::EACCES),
            Err(Refusal::Failed(errno)) => Err(Errno::from_raw(errno)),
        };
        match (asked, answer) {
            (Request::Sockets(kind, _), Ok(sockets)) => {
                if !sockets.iter().all(|socket| self.parts.sockets.is_of(socket, kind)) {
                    return Err(violation("sockets of another kind than were asked for"));
                }
                let given = self.parts.ports.requests.pool.fill(kind, sockets);
                self.parts.ports.turns.retry();
                for (id, socket) in given {
                    let target = FlowEvent::Target(TargetSocket::Namespace(socket));
                    self.parts.drive(now, id, target);
                }
            }
            (Request::Sockets(kind, _), Err(_)) => {
                let waiting: Vec<_> = self.parts.ports.requests.pool.give_up(kind).collect();
                waiting.into_iter().for_each(|id| self.parts.end_waiting(now, id));
            }
            (Request::Listener(at), answer) => {
                let answer = match answer.map(|sockets| sockets.into_iter().next()) {
                    Ok(Some(socket)) => Ok(socket),
                    // The channel has checked that it came.
                    Ok(None) => return Ok(()),
                    Err(errno) => Err(errno),
                };
                let (ports, mut cx) = self.parts.ports(now);
                ports
                    .listener_answered(&mut cx, at, answer)
                    .map_err(|_| violation("a listener of another kind than was asked for"))?;
            }
        }
        Ok(())
    }

    /// What the monitor is to be sent next, if anything is and may be; it counts as sent.
    #[inline]
    pub fn next_request(&mut self) -> Option<DatapathToMonitor> {
        if let Some(message) = self.parts.leaving.message() {
            return Some(message);
        }
        if !self.parts.ports.requests.is_pending() {
            return None;
        }
        let left = self.parts.descriptors_left();
        let stock = self.parts.limits.fd_budget.stock();
        self.parts.ports.requests.next(left, stock)
    }

    /// As [`crate::port_forward::Ports::has_served_first_look`].
    #[inline]
    pub fn has_served_first_look(&mut self) -> bool {
        self.parts.ports.has_served_first_look()
    }

    /// Takes back a request that could not be sent.
    pub fn not_sent(&mut self, message: &DatapathToMonitor) {
        match message {
            DatapathToMonitor::FlowsReset { generation } => {
                self.parts.leaving.not_sent(*generation);
            }
            request => self.parts.ports.requests.not_sent(request),
        }
    }

    /// The monitor has gone: nobody gets a socket of the namespace any more.
    pub fn monitor_gone(&mut self, now: Instant) {
        let waiting = self.parts.ports.requests.give_up_all();
        waiting.into_iter().for_each(|id| self.parts.end_waiting(now, id));
        let (ports, mut cx) = self.parts.ports(now);
        ports.change_without_monitor(&mut cx);
    }
}

/// Whether `protocol` is served.
#[inline]
fn carried(nat: &Nat, protocol: Protocol) -> Result<(), DropReason> {
    if nat.carries(protocol) { Ok(()) } else { Err(DropReason::ProtocolOff) }
}

fn violation(why: &str) -> ReceiveError {
    ReceiveError::Violation(why.to_owned())
}
