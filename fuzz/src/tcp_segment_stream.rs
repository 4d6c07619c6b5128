//! One TCP relay between a namespace that sends any segments it likes and a socket that behaves as
//! badly as one can.
//!
//! The input is a script: how the connection is opened, then steps. A step notes something with the
//! relay (a segment, a readiness event, a failure), changes what socket or tap will do, lets time
//! pass, or has the relay carry out what was noted. The octets of both streams are a function of
//! their place in the stream ([`octet`]), so every octet that arrives anywhere can be checked.
//!
//! What is checked, all the time, whatever the namespace does:
//!
//! - the socket is given the namespace's stream, from its start, without a hole, and nothing behind
//!   its end; what was taken and not accepted by the socket is in the backlog, which is bounded;
//! - the namespace is sent the socket's stream, inside the window, each octet under its own number, and FIN
//!   behind the last of them, once the far end has sent that (unless a peek was cut short, which kernels do
//!   only where there is urgent data);
//! - acknowledgement numbers and the edge of the advertised window do not go back, nor beyond what the socket accepted;
//! - nothing is consumed that was not peeked at; nothing is written or shut down twice;
//! - one turn sends a bounded amount, the next deadline is in the future, and the end gives back what
//!   was in the backlog.

mod socket;
mod tap;

use crate::input::Input;
use pasta_datapath::flow::Next;
use pasta_datapath::flow::tcp::connection::Connection;
use pasta_datapath::flow::tcp::relay::{Context, MAX_SLICES, Noted, QUANTUM, Relay};
use pasta_datapath::flow::tcp::window::CreditPool;
use pasta_datapath::sys::send_buffer::SendBuffer;
use pasta_datapath::time::Instant;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, Header};
use pasta_datapath::wire::window::{Mss, WindowScale, WireWindow};
use socket::Socket;
use std::io::IoSlice;
use std::time::Duration;
use tap::Tap;

/// Steps taken of one input, and payload carried: what keeps one input below a few milliseconds.
const STEPS: usize = 512;
const PAYLOAD: usize = 2 << 20;

/// Room for all flows together; one flow alone must not be bounded by it in any other way.
const BACKLOG: usize = 1 << 20;

/// After a tick the next deadline is later than that; after a late tick it may first have to catch up, this
/// often at most.
const CATCH_UP: usize = 3;

/// The octet at `place` of either stream.
fn octet(place: u32) -> u8 {
    (place.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// Octets that a send buffer claims to have room for.
fn free(room: SendBuffer) -> usize {
    room.size.saturating_sub(room.queued) as usize
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

struct World {
    now: Instant,
    relay: Relay,
    socket: Socket,
    tap: Tap,
    credit: CreditPool,
    scratch: Vec<u8>,
    /// Number of the namespace's SYN.
    irs: Seq,
    /// The most that the socket ever claimed to have room for.
    largest_room: usize,
    /// Octets of the namespace's stream that the relay took.
    taken: u32,
    fin_taken: bool,
    carried: usize,
    connected: bool,
    /// Noted since the last run.
    payloads: Vec<Vec<u8>>,
    reset_noted: bool,
    /// The socket can only be read from.
    failed: bool,
    last: Option<(Header, usize)>,
    is_over: bool,
}

impl World {
    fn open(input: &mut Input<'_>) -> Self {
        let options = input.octet();
        let syn = Header {
            source: 1024,
            destination: 80,
            seq: Seq::from(input.u32()),
            ack: Seq::default(),
            flags: Flags::SYN,
            window: WireWindow::from(input.u16()),
            mss: (options & 1 != 0).then(|| Mss::new(input.u16())),
            window_scale: (options & 2 != 0).then(|| WindowScale::new(input.octet() % 15)),
            sack_permitted: options & 4 != 0,
        };
        let iss = Seq::from(input.u32());
        let our_mss = Mss::new(input.u16());
        let connection = Connection::from_syn(Instant::START, &syn, iss, our_mss);
        let scale = if syn.window_scale.is_some() {
            pasta_datapath::flow::tcp::WINDOW_SCALE
        } else {
            WindowScale::NONE
        };
        let socket = Socket::new();
        let peek_size = 1 + usize::from(input.u16()) * 4;
        Self {
            now: Instant::START,
            relay: Relay::new(connection),
            largest_room: free(socket.room),
            socket,
            tap: Tap::new(
                syn.seq,
                iss,
                scale,
                syn.window_scale.unwrap_or(WindowScale::NONE),
                input.u16(),
            ),
            credit: CreditPool::new(BACKLOG, 4 * BACKLOG),
            scratch: vec![0; peek_size],
            irs: syn.seq,
            taken: 0,
            fin_taken: false,
            carried: 0,
            connected: false,
            payloads: Vec::new(),
            reset_noted: false,
            failed: false,
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
                self.socket.arrives(u32::from(input.u16()));
                self.relay.readable();
            }
            7 => {
                self.socket.has_ended = true;
                self.relay.ended();
            }
            8 => {
                self.socket.takes += usize::from(input.u16()) * 4;
                self.relay.writable();
            }
            9 => {
                let room = SendBuffer { size: input.u32() >> 4, queued: input.u32() >> 4 };
                self.socket.room = room;
                self.largest_room = self.largest_room.max(free(room));
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
            14 => self.tap.refuses = u32::from(input.octet()),
            15 => self.socket.peeks_at_most = 1 + usize::from(input.u16()),
            16 => self.socket.fails = input.octet() % 8,
            _ => {
                if !self.connected {
                    self.connected = true;
                    self.relay.connected();
                } else if input.octet() == 0xff {
                    self.relay.failed();
                    self.failed = true;
                }
            }
        }
        if self.payloads.len() >= MAX_SLICES {
            self.run();
        }
    }

    /// The next number, everything acknowledged, no flags but FIN and PSH: what moves a connection on.
    fn well_behaved_segment(&mut self, input: &mut Input<'_>) {
        let flags = Flags::from_octet(input.octet() & 0x09).with(Flags::ACK);
        let window = input.u16();
        let len = usize::from(input.u16());
        let (seq, ack) = (self.next(), self.tap.highest());
        self.segment(self.header(seq, ack, flags, window), len);
    }

    fn any_segment(&mut self, input: &mut Input<'_>) {
        let choice = input.octet();
        let near = u32::from(input.u16()).wrapping_sub(0x8000);
        let seq = match choice & 3 {
            0 => self.next() + near,
            1 => self.edge() + near,
            2 => self.irs + near,
            _ => Seq::from(input.u32()),
        };
        let behind = u32::from(input.u16());
        let ack = match choice >> 2 & 3 {
            0 => self.tap.highest() - behind,
            1 => self.tap.highest() + behind,
            2 => self.tap.acknowledged() + behind,
            _ => Seq::from(input.u32()),
        };
        let flags = input.octet();
        let flags = if choice & 0x10 == 0 { Flags::from_octet(flags) } else { Flags::ACK };
        let window = input.u16();
        let len = usize::from(input.u16());
        self.segment(self.header(seq, ack, flags, window), len);
    }

    fn header(&self, seq: Seq, ack: Seq, flags: Flags, window: u16) -> Header {
        let (source, destination) = (1024, 80);
        Header {
            source,
            destination,
            seq,
            ack,
            flags,
            window: WireWindow::from(window),
            mss: None,
            window_scale: None,
            sack_permitted: false,
        }
    }

    /// The next number that the relay expects.
    fn next(&self) -> Seq {
        self.relay.connection().clone().receiver().next()
    }

    /// The end of the window that the relay would take.
    fn edge(&self) -> Seq {
        self.relay.connection().clone().receiver().edge()
    }

    /// Notes a segment and checks what the relay takes of it.
    fn segment(&mut self, header: Header, len: usize) {
        let len = len.min(PAYLOAD.saturating_sub(self.carried));
        self.carried += len;
        self.last = Some((header, len));
        let expected = self.next();
        let syn_sent = self.relay.connection().is_syn_sent();
        self.tap.receives(&header);
        // What is out of order is not kept: nothing may be added to this backlog.
        let mut none = CreditPool::new(0, 0);
        let octets = vec![0; len];
        let range = match self.relay.segment(self.now, &header, &octets, &mut none) {
            Noted::Take(range) => range,
            Noted::NewConnection => 0..0,
        };
        self.reset_noted |= syn_sent && header.flags.contains(Flags::RST) && header.seq == expected;

        assert!(range.start <= range.end && range.end <= len, "{range:?} of {len} octets");
        let first = self.irs + 1;
        if !range.is_empty() {
            assert!(!self.fin_taken, "octets behind the end of the stream are taken");
            // Both fit: payload is bounded by `PAYLOAD`.
            let (start, count) = (range.start as u32, range.len() as u32);
            assert_eq!(header.seq + start, first + self.taken, "not the next octet is taken");
            let place = self.taken;
            self.payloads.push((place..place + count).map(octet).collect());
            self.taken += count;
        }
        let fin_taken = self.next() != first + self.taken;
        if fin_taken {
            assert_eq!(self.next(), first + self.taken + 1);
            assert!(self.fin_taken || header.flags.contains(Flags::FIN));
        }
        self.fin_taken = fin_taken;
    }

    /// Lets time pass; ticks come exactly at the deadlines.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.tick();
        }
        self.now = until;
    }

    /// Lets time pass without a tick, as if the process had been stopped.
    fn sleep(&mut self, time: Duration) {
        self.now = self.now + time;
        if self.due().is_some_and(|due| due <= self.now) {
            self.tick();
        }
    }

    /// The deadline of the relay, while there is one.
    fn due(&self) -> Option<Instant> {
        self.relay.deadline().filter(|_| !self.is_over)
    }

    /// Ticks the relay until nothing is due.
    fn tick(&mut self) {
        for _ in 0..CATCH_UP {
            self.relay.tick(self.now);
            self.run();
            if self.due().is_none_or(|due| due > self.now) {
                return;
            }
        }
        panic!("the deadline does not move on: {:?}", self.relay);
    }

    /// Has the relay carry out what was noted, for as many turns as it wants.
    fn run(&mut self) {
        let reset_noted = std::mem::take(&mut self.reset_noted);
        let payloads = std::mem::take(&mut self.payloads);
        let mut slices: Vec<IoSlice<'_>> = payloads.iter().map(|it| IoSlice::new(it)).collect();
        loop {
            self.socket.expect(self.taken, self.fin_taken);
            self.tap.turn();
            let Self { relay, socket, tap, credit, scratch, .. } = self;
            let (now, quantum) = (self.now, QUANTUM);
            let mut cx = Context { now, quantum, socket, tap, scratch, credit };
            let next = relay.run(&mut cx, &slices).next;
            slices.clear();
            self.tap.accepted(self.socket.accepted, self.socket.is_shut_down);
            self.failed |= self.socket.is_broken;
            self.tap.check_turn(next);
            if !self.socket.has_cut {
                self.tap.check_end(self.socket.arrived, self.socket.has_ended);
            }
            match next {
                Next::Wait => break,
                Next::More => {}
                Next::Over | Next::Reset => {
                    self.is_over = true;
                    break;
                }
            }
        }
        assert!(self.is_over || !reset_noted, "a reset was noted and forgotten");
        self.check_backlog();
    }

    fn check_backlog(&self) {
        let backlog = self.credit.backlog();
        if self.is_over {
            assert_eq!(backlog, 0, "the end gives back the backlog");
            return;
        }
        // What was taken while the socket was connecting or in this turn's error is gone with it.
        let outstanding = (self.taken - self.socket.accepted) as usize;
        if self.failed {
            assert!(backlog <= outstanding, "{backlog} octets of backlog");
        } else {
            assert_eq!(backlog, outstanding, "what the socket did not accept is in the backlog");
        }
        assert!(backlog <= self.largest_room, "{backlog} octets of backlog");
    }
}
