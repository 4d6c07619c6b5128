//! A TCP flow: a relay with its host socket and its headers towards the namespace.

use super::connection::{Connection, TimeoutAction};
use super::relay::{self, HostSocket, Noted, Relay, TapWriter};
use super::window::CreditPool;
use crate::counters::DropReason;
use crate::flow::datagram::Sender;
use crate::flow::refuse::{NoSocket, from_network, refuse_syn};
use crate::flow::{Context, Facts, FlowEvent, FlowKey, Next, Outcome, Readiness};
use crate::link::classify::{ErrorReport, Framing};
use crate::link::icmp_error::Unreachable;
use crate::link::tx_window::{Active, Counted};
use crate::link::writer::{FrameDevice, FrameWriter, Path};
use crate::nat::Protocol;
use crate::sockets::Sockets;
use crate::time::Instant;
use crate::wire::ip::DSCP;
use crate::wire::tcp::{Header, LEN, ToSend};
use crate::wire::window::Mss;
use pasta_ipc::types::Mtu;
use std::io::IoSlice;

/// A TCP connection of the namespace with its socket.
#[derive(Debug)]
pub struct TcpFlow<K> {
    relay: Relay,
    socket: K,
    path: Path,
    /// When it was counted as active.
    counted: Counted,
    /// The DSCP that the socket sends with.
    dscp: u8,
    /// The namespace's SYN, for an error to quote; none where we opened it.
    syn: Option<Header>,
}

/// The tap with the headers of one flow.
struct FlowTap<'a, 'b, D> {
    tap: &'a mut FrameWriter<'b, D>,
    path: &'a Path,
}

impl<D: FrameDevice> TapWriter for FlowTap<'_, '_, D> {
    fn send(&mut self, header: &ToSend, segment_size: Mss, payload: &[u8]) -> bool {
        self.tap.write_tcp(self.path, header, segment_size, payload)
    }

    fn frame_payload(&self, segment_size: Mss) -> usize {
        let size = usize::from(segment_size);
        match self.tap.framing() {
            Framing::Plain => size,
            Framing::Vnet => {
                let most = self.path.max_transport() - LEN;
                (most - most % size).max(size)
            }
        }
    }
}

impl<K: HostSocket> TcpFlow<K> {
    /// A flow of `connection` over `socket`, which has begun to connect; `syn` is the namespace's, where that
    /// opened it. What the socket sends has the DSCP of this traffic class.
    pub fn new(
        connection: Connection,
        socket: K,
        path: Path,
        (syn, traffic_class): (Option<Header>, u8),
    ) -> Self {
        let (relay, counted) = (Relay::new(connection), Counted::default());
        Self { relay, socket, path, counted, dscp: traffic_class & DSCP, syn }
    }

    /// Notes that the socket is connected.
    pub fn connected(&mut self) {
        self.relay.connected();
    }

    /// The flow's headers towards the namespace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`TcpFlow::path`], to change it.
    pub fn path_mut(&mut self) -> &mut Path {
        &mut self.path
    }

    /// The connection with the namespace, for inspection.
    pub fn connection(&self) -> &Connection {
        self.relay.connection()
    }

    /// The host socket.
    pub fn socket(&self) -> &K {
        &self.socket
    }

    /// Whether the host's side has opened it.
    pub fn is_inbound(&self) -> bool {
        self.syn.is_none()
    }

    /// Sends no segments larger than `mss` from now on.
    pub fn limit_mss(&mut self, mss: Mss) {
        self.relay.limit_mss(mss);
    }

    /// Notes a segment of the namespace; [`FlowEvent::Payloads`] follows once for a batch of them.
    #[inline]
    pub fn segment(
        &mut self,
        now: Instant,
        Sender { mac, handling }: Sender,
        (header, payload): (&Header, &[u8]),
        active: &mut Active,
        credit: &mut CreditPool,
    ) -> Noted {
        self.path.set_mac(mac);
        // What carries nothing, the kernel marks in its own way where no socket has made it.
        if !payload.is_empty() {
            active.count(now, &mut self.counted, payload.len());
            let dscp = handling.traffic_class & DSCP;
            if dscp != self.dscp {
                self.dscp = dscp;
                self.socket.mark(self.path.source().ip(), dscp);
            }
        }
        self.relay.segment(now, header, payload, credit)
    }

    /// Takes in what happened to this flow and does all that follows from it now.
    #[inline]
    pub fn on_event<S: Sockets<Tcp = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        event: FlowEvent<'_, S::Socket>,
    ) -> Outcome {
        let mut timeout = TimeoutAction::Nothing;
        let payloads = match event {
            FlowEvent::Payloads(payloads) => payloads,
            FlowEvent::Socket(_, readiness) => {
                if self.relay.is_connecting() {
                    return self.connect_event(cx, readiness);
                }
                self.note(readiness);
                &[]
            }
            FlowEvent::Deadline => {
                timeout = self.relay.tick(cx.now);
                &[]
            }
            FlowEvent::CreditFree => {
                self.relay.grow_window();
                &[]
            }
            FlowEvent::Reported(report) => {
                self.reported(cx.mtu, report);
                &[]
            }
            FlowEvent::Abort | FlowEvent::Evicted => {
                self.relay.abort();
                &[]
            }
            FlowEvent::Opened | FlowEvent::Turn => &[][..],
            // Of other kinds of flows.
            FlowEvent::Datagrams(..)
            | FlowEvent::Arrived(..)
            | FlowEvent::Error(_)
            | FlowEvent::Target(_) => &[],
        };
        let mut outcome = self.run(cx, payloads);
        outcome.facts.retransmitted =
            matches!(timeout, TimeoutAction::Retransmit | TimeoutAction::RetransmitSyn);
        outcome
    }

    /// Notes an error of the namespace for a segment of ours.
    fn reported(&mut self, link: Mtu, report: &ErrorReport) {
        let Unreachable::TooBig(mtu) = report.why else {
            return self.relay.unreachable(report.why, report.seq);
        };
        let mut path = self.path;
        path.learn_mtu(mtu);
        let mss = Mss::fitting(path.mtu(link), path.source().ip());
        if self.relay.too_large(report.seq, mss) {
            self.path = path;
        }
    }

    fn note(&mut self, readiness: Readiness) {
        if readiness.has(Readiness::FAILED) && self.socket.take_error().is_some() {
            self.relay.failed();
        }
        if readiness.has(Readiness::ENDED) {
            self.relay.ended();
        }
        if readiness.has(Readiness::URGENT) {
            self.relay.urgent();
        }
        if readiness.has(Readiness::READABLE) {
            self.relay.readable();
        }
        if readiness.has(Readiness::WRITABLE) {
            self.relay.writable();
        }
    }

    /// Something happened to a socket that connects.
    fn connect_event<S: Sockets<Tcp = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        readiness: Readiness,
    ) -> Outcome {
        let failed = readiness.has(Readiness::FAILED);
        if let Some(errno) = failed.then(|| self.socket.take_error()).flatten() {
            let (namespace, remote) = (self.path.destination(), self.path.source());
            let key = FlowKey { protocol: Protocol::Tcp, namespace, remote };
            if let Some(syn) = &self.syn {
                let (mac, queued) = (self.path.mac(), self.socket.take_queued_error());
                let why = queued.and_then(|error| error.why(remote.ip()));
                let why = why.map_or(NoSocket::from(errno), NoSocket::Unreachable);
                let offender = queued.and_then(|error| error.offender);
                let reason = (why, from_network(cx.sockets, offender));
                let reason = refuse_syn(&mut cx.tap, cx.nat, mac, &key, syn, reason);
                cx.tap.counters.drop(reason);
            }
            let facts = Facts { target_failed: true, ..Facts::default() };
            return Outcome { facts, ..Outcome::of(Next::Over) };
        }
        if !readiness.has(Readiness::WRITABLE) {
            return Outcome::of(Next::Wait);
        }
        self.relay.connected_and_empty();
        if readiness.has(Readiness::READABLE) {
            self.relay.readable();
        }
        if readiness.has(Readiness::ENDED) {
            self.relay.ended();
        }
        if readiness.has(Readiness::URGENT) {
            self.relay.urgent();
        }
        self.run(cx, &[])
    }

    #[inline]
    fn run<S: Sockets<Tcp = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        payloads: &[IoSlice<'_>],
    ) -> Outcome {
        let Self { relay, socket, path, .. } = self;
        let before = relay.connection().sent();
        let relay::Outcome { next, deadline, facts } = relay.run(
            &mut relay::Context {
                now: cx.now,
                quantum: cx.quantum,
                socket,
                tap: &mut FlowTap { tap: &mut cx.tap, path },
                scratch: cx.scratch,
                credit: cx.credit,
            },
            payloads,
        );
        if facts.backlog_overflowed {
            cx.tap.counters.drop(DropReason::BacklogFull);
        }
        match next {
            Next::Wait | Next::More => {}
            Next::Over => return Outcome::of(Next::Over),
            Next::Reset => {
                socket.reset_on_close();
                return Outcome::of(Next::Over);
            }
        }
        if facts.keepalive_received {
            socket.keep_alive();
        }
        // If it fails, the send buffer is polled.
        if facts.write_event_wanted && cx.sockets.rearm(socket, cx.id).is_err() {
            relay.writable();
        }
        let after = relay.connection().sent();
        // It goes back for a retransmission.
        let sent = if after.after(before) { after.distance_from(before) } else { 0 };
        let facts = Facts { credit_wanted: facts.credit_wanted, ..Facts::default() };
        Outcome { next, deadline, sent, facts }
    }

    /// Gives back what is lent to it; its end.
    pub fn release(&mut self, credit: &mut CreditPool) {
        self.relay.release(credit);
    }
}
