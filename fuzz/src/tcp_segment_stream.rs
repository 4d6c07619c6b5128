//! One TCP connection through the whole stack, between a namespace that sends any segments it likes and a socket
//! that behaves as badly as one can.
//!
//! The input is a script: how the connection is opened, then steps. A step puts a segment into the batch of
//! frames, changes what socket or tap will do, notes that something happened to the socket, lets time pass, or
//! has the stack take in what there is. The octets of both streams are a function of their place in the stream
//! ([`octet`]), so every octet that arrives anywhere can be checked. A SYN that opens another connection between
//! the same ends begins everything again; the script goes on with that one.
//!
//! What is checked, all the time, whatever the namespace does:
//!
//! - the socket is given the namespace's stream, from its start, without a hole, as far as the namespace has sent
//!   it, in whatever order, and nothing behind its end; what was taken and not accepted by the socket is in the
//!   backlog, which is bounded;
//! - the namespace is sent the socket's stream, inside the window, each octet under its own number, and FIN
//!   behind the last of them, once the far end has sent that (unless a peek was cut short, which kernels do
//!   only where there is urgent data);
//! - acknowledgement numbers and the edge of the advertised window do not go back, nor the former beyond what the
//!   socket accepted, nor the latter beyond what it had room for;
//! - nothing is consumed that was not peeked at; nothing is written or shut down twice;
//! - one turn sends a bounded amount, the next deadline is in the future, and the end closes the socket and gives
//!   back what was in the backlog.

mod socket;
mod stream;
mod tap;

use crate::fake::Shared;
use crate::fake::rig::{self, Rig, key, policy};
use crate::input::Input;
use nix::errno::Errno;
use pasta_datapath::flow::tcp::WINDOW_SCALE;
use pasta_datapath::flow::tcp::flow::TcpFlow;
use pasta_datapath::flow::{Flow, FlowId, FlowKey, Readiness, Side};
use pasta_datapath::link::classify::{Content, Framing, classify};
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::sockets::Progress;
use pasta_datapath::sys::send_buffer::SendBuffer;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, SackBlocks, SynOptions, ToSend};
use pasta_datapath::wire::vnet;
use pasta_datapath::wire::window::{Mss, WindowScale, WireWindow};
use pasta_ipc::types::{Mtu, Service};
use socket::{HostEnd, Socket};
use std::rc::Rc;
use std::time::Duration;
use stream::Stream;
use tap::Tap;

/// Steps taken of one input, and payload carried: what bounds its time, mostly to a millisecond.
const STEPS: usize = 512;
const PAYLOAD: usize = 2 << 20;

/// Most payload of one frame: what an IPv4 packet holds behind the longest header of a SYN.
const FRAME: usize = 65_535 - 20 - 60;
/// Headers of IPv4 and TCP, which an MTU has and an MSS has not.
const HEADERS: u16 = 40;

/// Frames of one batch: the stack gives a flow so many in one turn.
const BATCH: usize = 64;

/// After a tick the next deadline is later than that; after a late tick it may first have to catch up, this
/// often at most.
const CATCH_UP: usize = 3;
/// Turns of a flow in one call of `Stack::serve`: its own, and that for window credit.
const SERVED: usize = 2;
/// Turns until a flow waits for something to happen.
const MOST_TURNS: usize = 1_000;

/// The octet at `place` of either stream.
fn octet(place: u32) -> u8 {
    (place.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// Octets that a send buffer claims to have room for.
fn free(room: SendBuffer) -> u32 {
    room.size.saturating_sub(room.queued)
}

/// Reads `octets` as a script and plays it.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let mut world = World::open(&mut input);
    for _ in 0..STEPS {
        if input.is_empty() || world.is_over {
            break;
        }
        world.step(&mut input);
    }
    if !world.is_over {
        world.run();
    }
}

/// What is known of one connection from outside.
struct Known {
    id: FlowId,
    socket: Shared<Socket>,
    tap: Tap,
    /// Number of the namespace's SYN.
    irs: Seq,
    /// What the namespace has sent.
    stream: Stream,
    /// Octets of it that were taken in order, and whether FIN behind them was.
    taken: u32,
    fin_taken: bool,
    connected: bool,
    /// The socket can only be read from.
    failed: bool,
}

impl Known {
    fn new(id: FlowId, flow: &TcpFlow<HostEnd>, their_scale: Option<WindowScale>) -> Self {
        let mut connection = flow.connection().clone();
        let irs = connection.receiver().next() - 1;
        let scale = if their_scale.is_some() { WINDOW_SCALE } else { WindowScale::NONE };
        let their_scale = their_scale.unwrap_or(WindowScale::NONE);
        Self {
            id,
            socket: Rc::clone(&flow.socket().0),
            tap: Tap::new(irs, connection.sent(), scale, their_scale),
            irs,
            stream: Stream::default(),
            taken: 0,
            fin_taken: false,
            connected: false,
            failed: false,
        }
    }

    /// Where in the namespace's stream `seq` is.
    fn place(&self, seq: Seq) -> u32 {
        (seq - self.irs).wrapping_sub(1) as u32
    }
}

struct World {
    rig: Rig<HostEnd>,
    known: Known,
    /// Frames of the batch that is next, and the number behind those that are in order.
    frames: Vec<Vec<u8>>,
    planned: Seq,
    /// A reset that has to be obeyed is in front of the batch.
    reset_due: bool,
    /// What has happened to the socket and was not said yet.
    readiness: Readiness,
    carried: usize,
    last: Option<(ToSend, usize)>,
    is_over: bool,
}

fn flow_key() -> FlowKey {
    key(Protocol::Tcp, "192.0.2.7:1024", "198.51.100.1:80")
}

/// The flow, while there is one.
fn find(rig: &mut Rig<HostEnd>) -> Option<(FlowId, &TcpFlow<HostEnd>)> {
    let table = &mut rig.stack.flows().table;
    let id = table.find(&flow_key())?;
    match &table.get_mut(id)?.flow {
        Flow::Tcp(flow) => Some((id, flow)),
        _ => None,
    }
}

/// Sockets take time to connect.
fn connect_later(rig: &mut Rig<HostEnd>) {
    let answers = &mut rig.stack.sockets().answers;
    answers.resize_with(BATCH, || Ok(Progress::Connecting));
}

impl World {
    fn open(input: &mut Input<'_>) -> Self {
        let options = input.octet();
        let (seq, window) = (Seq::from(input.u32()), WireWindow::from(input.u16()));
        let mss = if options & 1 != 0 { Mss::new(input.u16()) } else { Mss::DEFAULT };
        let window_scale = (options & 2 != 0).then(|| WindowScale::new(input.octet() % 15));
        let syn = Some(SynOptions { mss, window_scale, sack_permitted: options & 4 != 0 });
        let (ack, flags, sack) = (Seq::default(), Flags::SYN, SackBlocks::NONE);
        let syn = ToSend { seq, ack, flags, window, syn, sack };
        let mut rig = Rig::with(Nat::new(policy(Service::On), policy(Service::Off)), 4);
        rig.stack.sockets().isn = input.u32();
        rig.mtu = Mtu::try_from(input.u16().saturating_add(HEADERS)).ok();
        // Of no meaning.
        input.u32();
        rig.has(&["192.0.2.7"], &[]);
        rig.received();
        // What is sent is checked whether the tap takes it or not.
        let written = Rc::clone(&rig.written);
        rig.stack.link().device.hook = Some(Box::new(move |slices| {
            let frame = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            written.borrow_mut().push(frame);
        }));
        connect_later(&mut rig);
        rig.frames(&[rig::segment(&flow_key(), &syn, &[])]);
        let Some((id, flow)) = find(&mut rig) else { panic!("no flow for a SYN") };
        let known = Known::new(id, flow, window_scale);
        assert_eq!(known.irs, seq);
        Self {
            rig,
            planned: seq + 1,
            known,
            frames: Vec::new(),
            reset_due: false,
            readiness: Readiness::default(),
            carried: 0,
            last: None,
            is_over: false,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.octet() % 18 {
            0..=2 => self.well_behaved_segment(input),
            3 | 4 => self.any_segment(input),
            5 => {
                if let Some((header, len)) = self.last {
                    self.segment(header, len);
                }
            }
            6 => {
                self.known.socket.borrow_mut().arrives(u32::from(input.u16()));
                self.happens(Readiness::READABLE);
            }
            7 => {
                self.known.socket.borrow_mut().has_ended = true;
                self.happens(Readiness::ENDED);
            }
            8 => {
                self.known.socket.borrow_mut().takes += usize::from(input.u16()) * 4;
                self.happens(Readiness::WRITABLE);
            }
            9 => {
                let room = SendBuffer { size: input.u32() >> 4, queued: input.u32() >> 4 };
                self.known.socket.borrow_mut().set_room(room);
            }
            10 | 11 => self.run(),
            // What was noted is carried out before time passes: events of one moment come together.
            12 => {
                self.run();
                self.wait(Duration::from_millis(u64::from(input.u16())));
            }
            13 => {
                self.run();
                self.sleep(Duration::from_millis(u64::from(input.u16()) * 256));
            }
            14 => self.rig.stack.link().device.refuses = usize::from(input.octet()),
            15 => {
                self.known.socket.borrow_mut().peeks_at_most = 1 + usize::from(input.u16());
            }
            16 => self.known.socket.borrow_mut().fails = input.octet() % 8,
            _ => {
                if !self.known.connected {
                    self.known.connected = true;
                    let readable = self.known.socket.borrow().arrived > 0;
                    self.happens(Readiness::WRITABLE.with(Readiness::READABLE, readable));
                } else if input.octet() == 0xff {
                    self.known.socket.borrow_mut().error = Some(Errno::ECONNRESET);
                    self.known.failed = true;
                    self.happens(Readiness::FAILED);
                }
            }
        }
        if self.frames.len() >= BATCH {
            self.run();
        }
    }

    fn happens(&mut self, readiness: Readiness) {
        self.readiness = self.readiness.with(readiness, true);
    }

    /// The next number, everything acknowledged, no flags but FIN and PSH: what moves a connection on.
    fn well_behaved_segment(&mut self, input: &mut Input<'_>) {
        let flags = Flags::from_octet(input.octet() & 0x09).with(Flags::ACK);
        let window = input.u16();
        let len = usize::from(input.u16());
        let (seq, ack) = (self.planned, self.known.tap.highest());
        self.segment(header(seq, ack, flags, window), len);
    }

    fn any_segment(&mut self, input: &mut Input<'_>) {
        let choice = input.octet();
        let near = u32::from(input.u16()).wrapping_sub(0x8000);
        let seq = match choice & 3 {
            0 => self.planned + near,
            1 => self.edge() + near,
            2 => self.known.irs + near,
            _ => Seq::from(input.u32()),
        };
        let behind = u32::from(input.u16());
        let ack = match choice >> 2 & 3 {
            0 => self.known.tap.highest() - behind,
            1 => self.known.tap.highest() + behind,
            2 => self.known.tap.acknowledged() + behind,
            _ => Seq::from(input.u32()),
        };
        let flags = input.octet();
        let flags = if choice & 0x10 == 0 { Flags::from_octet(flags) } else { Flags::ACK };
        let window = input.u16();
        let len = usize::from(input.u16());
        self.segment(header(seq, ack, flags, window), len);
    }

    /// The end of the window that the stack would take.
    fn edge(&mut self) -> Seq {
        let flow = find(&mut self.rig);
        flow.map_or(self.planned, |(_, flow)| flow.connection().clone().receiver().edge())
    }

    /// Puts a segment into the batch.
    fn segment(&mut self, header: ToSend, len: usize) {
        let len = len.min(PAYLOAD.saturating_sub(self.carried)).min(FRAME);
        self.carried += len;
        self.last = Some((header, len));
        let has = |flag| header.flags.contains(flag);
        if self.frames.is_empty() && has(Flags::RST) && header.seq == self.planned {
            let flow = find(&mut self.rig);
            self.reset_due = flow.is_some_and(|(_, flow)| flow.connection().is_syn_sent());
        }
        // Both fit: bounded by `FRAME`.
        let (count, syn) = (len as u32, u32::from(has(Flags::SYN)));
        let place = self.known.place(header.seq + syn);
        self.known.stream.sent(place, count, has(Flags::FIN));
        self.known.tap.receives(&header);
        if header.seq == self.planned && !has(Flags::SYN) && !has(Flags::RST) {
            self.planned += count + u32::from(has(Flags::FIN));
        }
        let payload: Vec<u8> = (0..count).map(|n| octet(place.wrapping_add(n))).collect();
        self.frames.push(rig::segment(&flow_key(), &header, &payload));
    }

    /// Lets time pass; ticks come exactly at the deadlines.
    fn wait(&mut self, time: Duration) {
        let until = self.rig.now + time;
        while !self.is_over
            && let Some(due) = self.rig.stack.deadline().filter(|due| *due <= until)
        {
            self.rig.now = self.rig.now.max(due);
            self.tick();
        }
        self.rig.now = until;
    }

    /// Lets time pass without a tick, as if the process had been stopped.
    fn sleep(&mut self, time: Duration) {
        self.rig.now = self.rig.now + time;
        self.tick();
    }

    /// Fires timers until nothing is due.
    fn tick(&mut self) {
        for _ in 0..CATCH_UP {
            if self.rig.stack.deadline().is_none_or(|due| due > self.rig.now) {
                return;
            }
            self.act(|rig| {
                rig.stack.fire_timers(rig.now);
                CATCH_UP
            });
            self.settle();
        }
        let due = self.rig.stack.deadline();
        assert!(due.is_none_or(|due| due > self.rig.now), "the deadline does not move on");
    }

    /// Has the stack take in the batch and what has happened to the socket, for as many turns as it wants.
    fn run(&mut self) {
        let frames = std::mem::take(&mut self.frames);
        let reset_due = std::mem::take(&mut self.reset_due);
        let before = self.known.id;
        let (mut octets, mut places) = (Vec::new(), Vec::new());
        for frame in &frames {
            places.push((octets.len(), octets.len() + frame.len()));
            octets.extend_from_slice(frame);
        }
        self.act(|rig| {
            rig.stack.handle_frames(rig.now, &octets, &places);
            let mut turns = 1;
            // A connection in the place of the one that was there is opened in a turn of its own.
            while rig.stack.new_flows() > 0 {
                rig.stack.serve(rig.now);
                turns += SERVED;
            }
            turns
        });
        let goes_on = !self.is_over && self.known.id == before;
        assert!(!goes_on || !reset_due, "a reset was noted and forgotten");
        self.settle();
        // What happens to a socket before it is connected shows when it is.
        let has_event = self.known.connected && self.readiness != Readiness::default();
        if has_event && !self.is_over {
            let (id, readiness) = (self.known.id, std::mem::take(&mut self.readiness));
            self.act(|rig| {
                rig.stack.socket_event(rig.now, id, Side::Initiating, readiness);
                1
            });
            self.settle();
        }
    }

    /// Gives the flow its turns until it waits for something.
    fn settle(&mut self) {
        for _ in 0..MOST_TURNS {
            if self.is_over || !self.rig.stack.is_busy() {
                return;
            }
            self.rig.stack.tap_is_empty();
            self.act(|rig| {
                rig.stack.serve(rig.now);
                SERVED
            });
        }
        panic!("the flow wants one turn after the other");
    }

    /// Has the stack do something, which gives the number of turns that the flow has in it, and checks what comes of
    /// it.
    fn act(&mut self, act: impl FnOnce(&mut Rig<HostEnd>) -> usize) {
        connect_later(&mut self.rig);
        let turns = act(&mut self.rig);
        self.rig.stack.sockets().rearmed.clear();
        while self.rig.stack.log().take().is_some() {}
        let frames = self.rig.received();
        let id = find(&mut self.rig).map(|(id, _)| id);
        let is_other = id.is_some_and(|id| id != self.known.id);
        self.known.tap.begin();
        for frame in &frames {
            let is_segment = self.check_frame(frame);
            assert!(!is_other || !is_segment, "sent something before the socket is connected");
        }
        self.check_sockets_stream();
        if id != Some(self.known.id) {
            assert!(self.known.socket.borrow().is_closed, "the socket of no flow is open");
            let backlog = self.rig.stack.flows().credit.backlog();
            assert_eq!(backlog, 0, "the end gives back the backlog");
        }
        self.known.tap.check_turns(turns, id == Some(self.known.id));
        match find(&mut self.rig) {
            None => self.is_over = true,
            Some((id, flow)) if is_other => {
                // Only the first SYN has options.
                self.known = Known::new(id, flow, None);
                self.planned = self.known.irs + 1;
                self.readiness = Readiness::default();
            }
            Some(_) => self.check_flow(),
        }
    }

    /// Checks a frame to the namespace; gives whether it is a segment.
    fn check_frame(&mut self, frame: &[u8]) -> bool {
        let content = match classify(frame, Framing::Vnet) {
            Ok(classified) => classified.content,
            Err(error) => panic!("{error:?}: {frame:?}"),
        };
        let Content::Tcp { source, destination, header, payload } = content else { return false };
        assert_eq!((source, destination), (flow_key().remote, flow_key().namespace));
        let Ok((meta, _)) = vnet::split(frame) else { panic!("no frame: {frame:?}") };
        // Segments grow with the largest window that was seen; what that was for a flow that has gone is not known.
        self.known.tap.mss = match find(&mut self.rig) {
            Some((id, flow)) if id == self.known.id => flow.connection().send_mss(),
            _ => Mss::MAX,
        };
        self.known.tap.sent(&header, meta.segmentation, payload);
        true
    }

    /// Checks what the socket was given against what the namespace has sent.
    fn check_sockets_stream(&mut self) {
        let Known { socket, stream, tap, failed, .. } = &mut self.known;
        let socket = socket.borrow();
        *failed |= socket.is_broken;
        assert!(socket.accepted <= stream.in_order(), "more than was sent");
        let has_end = !socket.is_shut_down || stream.may_end_at(socket.accepted);
        assert!(has_end, "ended where the namespace has not ended it");
        tap.accepted(socket.accepted, socket.is_shut_down, socket.largest_room);
        if !socket.has_cut {
            tap.check_end(socket.arrived, socket.has_ended);
        }
    }

    /// Checks a connection that goes on.
    fn check_flow(&mut self) {
        let backlog = self.rig.stack.flows().credit.backlog();
        let Some((_, flow)) = find(&mut self.rig) else { return };
        let mut connection = flow.connection().clone();
        let fin_taken = connection.is_fin_received();
        let (next, edge) = (connection.receiver().next(), connection.receiver().edge());
        self.planned = next;
        let taken = self.known.place(next) - u32::from(fin_taken);
        self.known.tap.mss = connection.send_mss();
        let Known { stream, socket, failed, .. } = &self.known;
        let socket = socket.borrow();
        assert!(taken <= stream.in_order(), "taken and never sent");
        assert!(!fin_taken || stream.may_end_at(taken), "no end is there");
        assert!(taken >= self.known.taken, "what was taken is given back");
        if self.known.fin_taken {
            assert_eq!((taken, true), (self.known.taken, fin_taken), "taken behind the end");
        }
        assert!(socket.accepted <= taken, "accepted before it was taken");
        if socket.is_shut_down {
            assert_eq!((taken, true), (socket.accepted, fin_taken), "ended too early");
        }
        // What was taken in the turn of an error is gone with it. What is out of order is inside the window.
        let outstanding = (taken - socket.accepted) as usize;
        let ahead = if edge.after(next) { edge.distance_from(next) as usize } else { 0 };
        assert!(*failed || backlog >= outstanding, "what the socket did not accept is lost");
        assert!(backlog <= outstanding + ahead, "{backlog} octets of backlog");
        assert!(backlog <= socket.largest_room as usize, "{backlog} octets of backlog");
        drop(socket);
        (self.known.taken, self.known.fin_taken) = (taken, fin_taken);
    }
}

/// The header of a segment without options.
fn header(seq: Seq, ack: Seq, flags: Flags, window: u16) -> ToSend {
    let window = WireWindow::from(window);
    ToSend { seq, ack, flags, window, syn: None, sack: SackBlocks::NONE }
}
