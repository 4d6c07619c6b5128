//! The models: a namespace's TCP, the link, and a run of these with a host socket.

mod peer;
mod socket;

use crate::fake::rig::{self, Rig, key, policy};
use crate::fake::{self, Shared};
use pasta_datapath::control::PeerMessage;
use pasta_datapath::flow::{FlowId, FlowKey, Next, Readiness, Side};
use pasta_datapath::link::classify::{Content, Framing, classify};
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::time::Instant;
use pasta_datapath::token::Token;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, Header, SackBlocks, SynOptions, ToSend};
use pasta_datapath::wire::vnet::{self, Segmentation};
use pasta_datapath::wire::window::{Mss, WindowScale, WireWindow};
use pasta_ipc::port_forward::{Direction, Effort, ForwardRule, ForwardTable, RawRule};
use pasta_ipc::types::{Bounded, Generation, Mtu, PortRange, Service, Transport};
use peer::{Cookie, Peer, Segment};
use socket::{HostEnd, Socket};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// The tap's MTU: that of a large one, 65,520.
const MTU: u16 = 65_520;
const TRIP: Duration = Duration::from_micros(50);
/// No scenario needs more virtual time; reaching it is a stuck flow.
const END_OF_TIME: Duration = Duration::from_secs(3600);

/// Deterministic octets.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed | 1);
    (0..len).map(|_| random.next() as u8).collect()
}

/// xorshift64: small, fixed, good enough to shuffle events.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// What the link does to each segment, in per cent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) reordering: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both ends have everything and have closed.
    Orderly,
    PeerWasReset,
    BrokenOffByPeer,
    /// The relay has aborted the connection.
    GaveUp,
    /// The time the scenario runs for has passed.
    StillOpen,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    pub(crate) took: Duration,
    pub(crate) retransmitted_by_us: usize,
    pub(crate) retransmitted_by_peer: usize,
    pub(crate) max_backlog: usize,
    pub(crate) largest_flight_of_ours: u32,
    pub(crate) largest_segment_of_ours: usize,
}

/// Who sends the first SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opener {
    Peer,
    Us,
    /// Each, before it has the other's.
    Both,
}

/// What is to happen.
pub(crate) struct Scenario {
    link: Link,
    seed: u64,
    pub(crate) opener: Opener,
    /// The namespace answers our first SYN as if it had an older connection (RFC 9293, section 3.5.3).
    pub(crate) peer_has_an_old_connection: bool,
    pub(crate) upload: Vec<u8>,
    pub(crate) download: Vec<u8>,
    pub(crate) our_iss: u32,
    pub(crate) peer_iss: u32,
    pub(crate) peer_mss: u16,
    pub(crate) peer_scales: bool,
    pub(crate) peer_knows_sack: bool,
    pub(crate) send_buffer: usize,
    /// What the far end takes from the socket's send buffer.
    pub(crate) drain_per_ms: usize,
    pub(crate) peer_stops_reading_at: Option<(usize, Duration)>,
    pub(crate) window_update_is_lost: bool,
    pub(crate) download_starts_after_upload: bool,
    pub(crate) upload_starts_after_download: bool,
    pub(crate) socket_fails_after: Option<usize>,
    pub(crate) peer_resets_at: Option<usize>,
    pub(crate) peer_vanishes_at: Option<usize>,
    pub(crate) stays_open: Option<Duration>,
    /// The peer's listener answers with SYN cookies, and has a place in its queue after so many segments.
    pub(crate) cookie: Option<u32>,
    /// Size of the host kernel's receive buffers, and how many octets of them it holds.
    pub(crate) receive_buffers: Option<(usize, usize)>,
}

impl Scenario {
    pub(crate) fn new(link: Link, seed: u64) -> Self {
        Self {
            link,
            seed,
            opener: Opener::Peer,
            peer_has_an_old_connection: false,
            upload: Vec::new(),
            download: Vec::new(),
            our_iss: 1_000_000,
            peer_iss: 5_000,
            peer_mss: 1460,
            peer_scales: true,
            peer_knows_sack: false,
            send_buffer: 400_000,
            drain_per_ms: 1_000_000,
            peer_stops_reading_at: None,
            window_update_is_lost: false,
            download_starts_after_upload: false,
            upload_starts_after_download: false,
            socket_fails_after: None,
            peer_resets_at: None,
            peer_vanishes_at: None,
            stays_open: None,
            cookie: None,
            receive_buffers: None,
        }
    }

    /// Nobody answers at all.
    pub(crate) fn peer_vanishes_from_the_start(&mut self) {
        self.peer_vanishes_at = Some(0);
        self.link.loss = 100;
    }

    pub(crate) fn run(self) -> Outcome {
        World::new(self).run()
    }
}

enum Event {
    ToPeer(Segment),
    ToUs(Segment),
    PeerTimeout,
    PeerReadsOn,
    Drain,
    Deadline,
}

/// The segments that a frame to the namespace stands for, cut as the kernel would.
fn cut(frame: &[u8]) -> Vec<Segment> {
    let Ok((meta, _)) = vnet::split(frame) else { panic!("no frame: {frame:?}") };
    let content = classify(frame, Framing::Vnet).map(|frame| frame.content);
    let Ok(Content::Tcp { header, payload, .. }) = content else { return Vec::new() };
    let size = match meta.segmentation {
        Segmentation::Tcp(size) => usize::from(size),
        Segmentation::None | Segmentation::Udp(_) => payload.len().max(1),
    };
    if payload.is_empty() {
        return vec![Segment { header, payload: Vec::new() }];
    }
    let pieces = payload.chunks(size);
    let last = pieces.len() - 1;
    let segment = |(n, piece): (usize, &[u8])| {
        let flags = if n == last { header.flags } else { Flags::ACK };
        let seq = header.seq + (n * size) as u32;
        Segment { header: Header { seq, flags, ..header }, payload: piece.to_vec() }
    };
    pieces.enumerate().map(segment).collect()
}

/// A header to write that says what `header` says.
fn to_send(header: &Header) -> ToSend {
    let Header { seq, ack, flags, window, .. } = *header;
    let syn = flags.contains(Flags::SYN).then_some(SynOptions {
        mss: header.mss.unwrap_or(Mss::DEFAULT),
        window_scale: header.window_scale,
        sack_permitted: header.sack_permitted,
    });
    ToSend { seq, ack, flags, window, syn, sack: SackBlocks::NONE }
}

fn flow_key() -> FlowKey {
    key(Protocol::Tcp, "192.0.2.7:1024", "198.51.100.1:80")
}

/// Has a connection from outside come to a listener that leads to the peer.
fn accept(rig: &mut Rig<HostEnd>) {
    let rule = PortRange::new(1024, 1024).ok().and_then(|ports| {
        let (transport, effort) = (Transport::Tcp, Effort::Explicit);
        let (listen, interface, target) = (None, None, None);
        let target_first = 1024;
        ForwardRule::try_from(RawRule {
            transport,
            listen,
            interface,
            ports,
            target,
            target_first,
            effort,
        })
        .ok()
    });
    let rules = Bounded::truncated(rule).0;
    let (generation, direction) = (Generation(1), Direction::Inbound);
    let table = ForwardTable { generation, direction, rules };
    rig.message(PeerMessage::Forwards(Box::new(table)));
    let listener = Rc::clone(&rig.stack.sockets().listeners[0].1);
    let (local, peer) = (([203, 0, 113, 9], 1024).into(), flow_key().remote);
    let connection = (fake::Socket::connected(local, peer).0, peer);
    listener.borrow_mut().connections.push_back(connection);
    let token = listener.borrow().token;
    let Some(Token::Listener(index)) = token else { panic!("{token:?}") };
    rig.stack.listener_event(index);
    rig.stack.serve(rig.now);
}

struct World {
    scenario: Scenario,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    count: u64,
    random: Random,
    rig: Rig<HostEnd>,
    flow: FlowId,
    socket: Shared<Socket>,
    peer: Peer,
    highest_from_us: Option<Seq>,
    outcome: Outcome,
    gone: Option<Next>,
    updates_to_lose: u32,
    /// Deadlines that an event is on its way for.
    armed: Option<Instant>,
    peer_armed: Option<Instant>,
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let syn = Header {
            source: 1024,
            destination: 80,
            seq: Seq::from(scenario.peer_iss),
            ack: Seq::default(),
            flags: Flags::SYN,
            window: WireWindow::from(60_000),
            mss: Some(Mss::new(scenario.peer_mss)),
            window_scale: scenario.peer_scales.then_some(WindowScale::NONE),
            sack_permitted: scenario.peer_knows_sack,
        };
        let later = scenario.upload_starts_after_download;
        let peer = Peer {
            out: if later { Vec::new() } else { scenario.upload.clone() },
            iss: syn.seq,
            acked: 0,
            sent: 0,
            highest_sent: 0,
            window: 0,
            scale: WindowScale::NONE,
            duplicates: 0,
            expected: None,
            received: Vec::new(),
            fin_received: false,
            fin_allowed: !later && scenario.stays_open.is_none(),
            paused: false,
            mss: 1460,
            timer: None,
            retransmitted: 0,
            vanished: false,
            reset: false,
            old_connection: scenario.peer_has_an_old_connection,
            answered_syn: false,
            cookie: scenario.cookie.map(|drops| Cookie { drops, answered: None }),
        };
        let later = scenario.download_starts_after_upload;
        let mut socket = Socket {
            resets: false,
            queue: if later { Vec::new() } else { scenario.download.clone() },
            ended: !later && scenario.stays_open.is_none() && scenario.receive_buffers.is_none(),
            buffered: 0,
            received: Vec::new(),
            shut_down: false,
            size: scenario.send_buffer,
            wants_room: false,
            fail_after: scenario.socket_fails_after,
            hides_end: scenario.seed % 2 == 1,
            consumed: 0,
            buffers: scenario.receive_buffers,
            arrived: 0,
        };
        let outcome = Outcome {
            end: End::StillOpen,
            took: Duration::ZERO,
            retransmitted_by_us: 0,
            retransmitted_by_peer: 0,
            max_backlog: 0,
            largest_flight_of_ours: 0,
            largest_segment_of_ours: 0,
        };
        socket.arrive();
        let socket = Rc::new(std::cell::RefCell::new(socket));
        let mut rig = Rig::with(Nat::new(policy(Service::On), policy(Service::Off)), 4);
        rig.mtu = Mtu::try_from(MTU).ok();
        rig.has(&["192.0.2.7"], &[]);
        rig.received();
        rig.stack.sockets().isn = scenario.our_iss;
        rig.stack.sockets().tcp.push_back(HostEnd(Rc::clone(&socket)));
        match scenario.opener {
            Opener::Peer => rig.frames(&[rig::segment(&flow_key(), &to_send(&syn), &[])]),
            Opener::Us | Opener::Both => accept(&mut rig),
        }
        let Some(flow) = rig.stack.flows().table.find(&flow_key()) else { panic!("no flow") };
        Self {
            random: Random(scenario.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            updates_to_lose: u32::from(scenario.window_update_is_lost),
            scenario,
            now: Instant::START,
            events: BTreeMap::new(),
            count: 0,
            rig,
            flow,
            socket,
            peer,
            highest_from_us: None,
            outcome,
            gone: None,
            armed: None,
            peer_armed: None,
        }
    }

    fn at(&mut self, when: Instant, event: Event) {
        self.count += 1;
        self.events.insert((when, self.count), event);
    }

    /// Puts `segment` on the link, which may lose, duplicate or delay it.
    fn transmit(&mut self, segment: Segment, deliver: fn(Segment) -> Event) {
        let link = self.scenario.link;
        if self.random.percent(link.loss) {
            return;
        }
        let late = if self.random.percent(link.reordering) { TRIP * 5 } else { Duration::ZERO };
        if self.random.percent(link.duplication) {
            self.at(self.now + TRIP, deliver(segment.clone()));
        }
        self.at(self.now + TRIP + late, deliver(segment));
    }

    /// Has the stack take in that something happened to the host's socket.
    fn socket_event(&mut self, readiness: Readiness) {
        if self.gone.is_none() {
            self.rig.now = self.now;
            self.rig.stack.socket_event(self.now, self.flow, Side::Initiating, readiness);
        }
        self.settle();
    }

    /// Has the stack go on until it waits for something, and puts what it has sent on the link.
    fn settle(&mut self) {
        let stack = &mut self.rig.stack;
        stack.serve(self.now);
        while stack.is_busy() {
            stack.tap_is_empty();
            stack.serve(self.now);
        }
        self.socket.borrow_mut().wants_room |=
            !std::mem::take(&mut stack.sockets().rearmed).is_empty();
        let backlog = stack.flows().credit.backlog();
        self.outcome.max_backlog = self.outcome.max_backlog.max(backlog);
        let is_gone = stack.flows().table.get_mut(self.flow).is_none();
        let deadline = stack.deadline();
        for segment in self.rig.received().iter().flat_map(|frame| cut(frame)) {
            self.note_sent(&segment);
            self.transmit(segment, Event::ToPeer);
        }
        if is_gone && self.gone.is_none() {
            let resets = self.socket.borrow().resets;
            self.gone = Some(if resets { Next::Reset } else { Next::Over });
        }
        if let Some(due) = deadline.filter(|_| self.armed != deadline) {
            self.armed = Some(due);
            self.at(due.max(self.now), Event::Deadline);
        }
    }

    fn note_sent(&mut self, segment: &Segment) {
        let end = segment.header.seq + segment.payload.len() as u32;
        if segment.payload.is_empty() {
            return;
        }
        let largest = &mut self.outcome.largest_segment_of_ours;
        *largest = segment.payload.len().max(*largest);
        match self.highest_from_us {
            Some(highest) if !end.after(highest) => self.outcome.retransmitted_by_us += 1,
            _ => self.highest_from_us = Some(end),
        }
        if let Some(expected) = self.peer.expected {
            let flight = end.distance_from(expected);
            self.outcome.largest_flight_of_ours = self.outcome.largest_flight_of_ours.max(flight);
        }
    }

    fn run(mut self) -> Outcome {
        let limit = self.scenario.stays_open.unwrap_or(END_OF_TIME);
        if self.socket.borrow().ended {
            self.socket_event(Readiness::ENDED);
        }
        self.settle();
        if self.scenario.opener == Opener::Both {
            let syn = self.peer.syn(Flags::SYN);
            self.put_on_link(vec![syn]);
        }
        self.at(Instant::START + Duration::from_millis(1), Event::Drain);
        while let Some(((when, _), event)) = self.events.pop_first() {
            if when > Instant::START + limit {
                assert!(self.scenario.stays_open.is_some(), "stuck: {:?}", self.rig.stack);
                break;
            }
            self.now = when;
            self.handle(event);
            self.script();
            if let Some(end) = self.ended() {
                self.outcome.end = end;
                break;
            }
        }
        self.outcome.took = self.now - Instant::START;
        self.outcome.retransmitted_by_peer = self.peer.retransmitted;
        if self.outcome.end == End::Orderly {
            assert!(self.peer.received == self.scenario.download, "download differs");
            assert!(self.socket.borrow().received == self.scenario.upload, "upload differs");
            let backlog = self.rig.stack.flows().credit.backlog();
            assert_eq!(backlog, 0, "the backlog is released");
        }
        self.outcome
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::ToPeer(segment) => {
                let answers = self.peer.receive(self.now, &segment);
                self.put_on_link(answers);
            }
            Event::ToUs(segment) => {
                if self.gone.is_none() {
                    self.rig.now = self.now;
                    let header = to_send(&segment.header);
                    let frame = rig::segment(&flow_key(), &header, &segment.payload);
                    self.rig.frames(&[frame]);
                }
                self.settle();
            }
            Event::PeerTimeout => {
                let segments = self.peer.timeout(self.now);
                self.put_on_link(segments);
            }
            Event::PeerReadsOn => {
                self.peer.paused = false;
                let update = self.peer.ack();
                if self.updates_to_lose > 0 {
                    self.updates_to_lose -= 1;
                } else {
                    self.put_on_link(vec![update]);
                }
            }
            Event::Drain => {
                if self.gone.is_none() && self.socket.borrow_mut().arrive() {
                    let mut readiness = Readiness::READABLE;
                    {
                        let mut socket = self.socket.borrow_mut();
                        if socket.arrived == socket.queue.len() {
                            socket.ended = self.scenario.stays_open.is_none();
                            readiness = readiness.with(Readiness::ENDED, true);
                        }
                    }
                    self.socket_event(readiness);
                }
                let has_room = {
                    let mut socket = self.socket.borrow_mut();
                    socket.buffered -= socket.buffered.min(self.scenario.drain_per_ms);
                    // As the kernel: an event once half of what is queued would fit again.
                    let has_room = socket.size - socket.buffered >= socket.buffered / 2;
                    has_room && std::mem::take(&mut socket.wants_room)
                };
                if has_room {
                    self.socket_event(Readiness::WRITABLE);
                }
                self.at(self.now + Duration::from_millis(1), Event::Drain);
            }
            Event::Deadline => {
                self.armed = None;
                self.rig.now = self.now;
                self.rig.stack.fire_timers(self.now);
                self.settle();
            }
        }
    }

    fn put_on_link(&mut self, segments: Vec<Segment>) {
        for segment in segments {
            self.transmit(segment, Event::ToUs);
        }
        if let Some(due) = self.peer.timer.filter(|_| self.peer_armed != self.peer.timer) {
            self.peer_armed = Some(due);
            self.at(due.max(self.now), Event::PeerTimeout);
        }
    }

    /// What the scenario wants to happen once something has come about.
    fn script(&mut self) {
        let received = self.peer.received.len();
        let stops = self.scenario.peer_stops_reading_at.filter(|&(octets, _)| received >= octets);
        if let Some((_, pause)) = stops {
            self.scenario.peer_stops_reading_at = None;
            self.peer.paused = true;
            self.at(self.now + pause, Event::PeerReadsOn);
        }
        if self.scenario.download_starts_after_upload && self.socket.borrow().shut_down {
            self.scenario.download_starts_after_upload = false;
            {
                let mut socket = self.socket.borrow_mut();
                socket.queue = self.scenario.download.clone();
                socket.arrive();
                socket.ended = true;
            }
            self.socket_event(Readiness::READABLE.with(Readiness::ENDED, true));
        }
        if self.scenario.upload_starts_after_download && self.peer.fin_received {
            self.scenario.upload_starts_after_download = false;
            self.peer.out = self.scenario.upload.clone();
            self.peer.fin_allowed = true;
            let segments = self.peer.send(self.now);
            self.put_on_link(segments);
        }
        if self.scenario.peer_resets_at.is_some_and(|octets| received >= octets) {
            self.scenario.peer_resets_at = None;
            let seq = self.peer.seq(self.peer.sent);
            let reset = self.peer.segment(seq, Flags::RST.with(Flags::ACK), &[]);
            self.peer.vanished = true;
            self.transmit(reset, Event::ToUs);
        }
        if self.scenario.peer_vanishes_at.is_some_and(|octets| received >= octets)
            && self.peer.expected.is_some()
        {
            self.peer.vanished = true;
        }
    }

    fn ended(&self) -> Option<End> {
        if self.peer.reset {
            return Some(End::PeerWasReset);
        }
        match self.gone? {
            Next::Reset if self.scenario.peer_vanishes_at.is_some() => Some(End::GaveUp),
            Next::Reset if self.peer.vanished => Some(End::BrokenOffByPeer),
            Next::Over if self.peer.is_done() => Some(End::Orderly),
            // Our last acknowledgement of the peer's FIN was lost: it receives a reset for it in the
            // end, having received everything.
            Next::Over if self.peer.fin_received && self.peer.acked == self.peer.len() => {
                Some(End::Orderly)
            }
            _ => None,
        }
    }
}
