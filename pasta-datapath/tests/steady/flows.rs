//! One flow at full speed in each direction, through the real stack: frames as the tap gives them, and a socket and
//! a tap that count what they are asked.

use crate::fake::rig::{Rig, key, policy};
use crate::fake::{self, TcpModel};
use nix::errno::Errno;
use pasta_datapath::flow::tcp::relay::HostSocket;
use pasta_datapath::flow::{FlowId, FlowKey, Readiness};
use pasta_datapath::link::writer::MAX_FRAME;
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::sys::send_buffer::SendBuffer;
use pasta_datapath::wire::ip::{IPV4_LEN, PROTOCOL_TCP, ipv4_header};
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, LEN, MAX_OPTIONS_LEN, SackBlocks, SynOptions, ToSend};
use pasta_datapath::wire::vnet::Segmentation;
use pasta_datapath::wire::window::{Mss, WindowScale, WireWindow};
use pasta_datapath::wire::{ethernet, vnet};
use pasta_ipc::types::{MacAddr, Service};
use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

const NAMESPACE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 7), 1024);
const REMOTE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 80);
const IRS: u32 = 1000;
const HEADERS: usize = vnet::LEN + ethernet::LEN + IPV4_LEN + LEN;
/// The segment size at the usual MTU of 1500.
const MSS: Mss = Mss::new(1460);
/// Payload of a super-frame: 44 segments.
pub(crate) const PAYLOAD: usize = 44 * MSS.get() as usize;

/// What the socket and the tap were asked; each is one system call in the real ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) sends: u64,
    pub(crate) rooms: u64,
    pub(crate) peeks: u64,
    pub(crate) consumes: u64,
    /// Frames with payload written to the tap, and without.
    pub(crate) frames: u64,
    pub(crate) bare: u64,
    /// Frames read from the tap.
    pub(crate) reads: u64,
    /// Octets of payload moved.
    pub(crate) octets: u64,
}

/// Counts that the socket, the tap and the test share, and the highest number that the namespace was sent.
#[derive(Debug, Default)]
struct Counts {
    calls: Cell<Calls>,
    highest: Cell<Seq>,
}

impl Counts {
    fn add(&self, change: impl FnOnce(&mut Calls)) {
        let mut calls = self.calls.get();
        change(&mut calls);
        self.calls.set(calls);
    }
}

/// Takes everything, has everything.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    counts: Rc<Counts>,
}

impl TcpModel for Socket {
    fn of(_: fake::Socket) -> Self {
        Self::default()
    }
}

impl HostSocket for Socket {
    fn mark(&mut self, _remote: IpAddr, _dscp: u8) {}

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.counts.add(|calls| {
            calls.sends += 1;
            calls.octets += len as u64;
        });
        Ok(len)
    }

    fn send_buffer(&mut self, _least: u32) -> SendBuffer {
        self.counts.add(|calls| calls.rooms += 1);
        SendBuffer { size: 4_000_000, queued: 0 }
    }

    fn peek(&mut self, _: u32, into: &mut [u8]) -> io::Result<usize> {
        self.counts.add(|calls| calls.peeks += 1);
        if into.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(into.len()) }
    }

    fn consume(&mut self, _: u32) -> io::Result<()> {
        self.counts.add(|calls| calls.consumes += 1);
        Ok(())
    }

    fn shut_down_write(&mut self) {}

    fn take_error(&mut self) -> Option<Errno> {
        None
    }

    fn keep_alive(&mut self) {}

    fn reset_on_close(&mut self) {}

    fn local_address(&self) -> Option<SocketAddr> {
        None
    }
}

/// A flow among `others`.
pub(crate) struct Steady {
    rig: Rig<Socket>,
    counts: Rc<Counts>,
    flow: FlowId,
    /// Frames of a batch, each in a place of its own.
    frames: Vec<u8>,
    places: Vec<(usize, usize)>,
    seq: Seq,
    ack: Seq,
}

fn flow_key(port: u16) -> FlowKey {
    let namespace = SocketAddr::from((NAMESPACE.0, port));
    FlowKey { namespace, ..key(Protocol::Tcp, "192.0.2.7:1", "198.51.100.1:80") }
}

impl Steady {
    /// The handshake is over; batches have `batch` frames.
    pub(crate) fn new(others: u16, batch: usize) -> Self {
        let nat = Nat::new(policy(Service::On), policy(Service::On));
        let mut rig = Rig::with(nat, usize::from(others) + 1);
        rig.has(&["192.0.2.7"], &[]);
        let counts = Rc::<Counts>::default();
        let seen = Rc::clone(&counts);
        rig.stack.link().device.hook = Some(Box::new(move |slices| note_frame(&seen, slices)));
        let mut steady = Self {
            rig,
            counts: Rc::clone(&counts),
            flow: FlowId::from_token(0),
            frames: vec![7; batch.max(1) * MAX_FRAME],
            places: Vec::with_capacity(batch),
            seq: Seq::from(IRS),
            ack: Seq::default(),
        };
        for port in (0..others).map(|n| 2000 + n).chain([NAMESPACE.1]) {
            if port == NAMESPACE.1 {
                let counts = Rc::clone(&counts);
                steady.rig.stack.sockets().tcp.push_back(Socket { counts });
            }
            (steady.seq, steady.ack) = (Seq::from(IRS), Seq::default());
            steady.write_frame(0, port, Flags::SYN, 0);
            steady.batch();
        }
        // Our SYN is the last frame that was written; it takes one number.
        (steady.seq, steady.ack) = (Seq::from(IRS + 1), counts.highest.get() + 1);
        steady.write_frame(0, NAMESPACE.1, Flags::ACK, 0);
        steady.batch();
        steady.flow = steady.find(NAMESPACE.1);
        counts.calls.set(Calls::default());
        steady
    }

    pub(crate) fn calls(&self) -> Calls {
        self.counts.calls.get()
    }

    /// The flow that frames from `port` belong to.
    pub(crate) fn find(&mut self, port: u16) -> FlowId {
        let found = self.rig.stack.flows().table.find(&flow_key(port));
        found.unwrap_or_else(|| panic!("no flow for {port}"))
    }

    /// Puts a segment behind the others of the batch.
    fn write_frame(&mut self, at: usize, port: u16, flags: Flags, payload: usize) {
        let syn = flags.contains(Flags::SYN).then_some(SynOptions {
            mss: MSS,
            window_scale: Some(WindowScale::new(7)),
            sack_permitted: true,
        });
        let (seq, ack, window) = (self.seq, self.ack, WireWindow::MAX);
        let header = ToSend { seq, ack, flags, window, syn, sack: SackBlocks::NONE };
        let header_len = header.header_len();
        let vnet = vnet::ToSend {
            transport: (ethernet::LEN + IPV4_LEN) as u16,
            checksum: 16,
            headers: (HEADERS - vnet::LEN) as u16,
            segmentation: Segmentation::Tcp(MSS.get()),
            network: vnet::Network::Ipv4,
        };
        let mac = MacAddr::OURS_BY_DEFAULT;
        let len = (header_len + payload) as u16;
        let network = ipv4_header(NAMESPACE.0, REMOTE.0, PROTOCOL_TCP, len);
        let mut transport = [0; LEN + MAX_OPTIONS_LEN];
        header.write(port, REMOTE.1, 0, &mut transport);
        let link = ethernet::header([2, 0, 0, 0, 0, 1], mac, ethernet::TYPE_IPV4);
        let parts: [&[u8]; 4] = [&vnet.octets(), &link, &network, &transport[..header_len]];
        let start = at * MAX_FRAME;
        let mut place = start;
        for part in parts {
            self.frames[place..place + part.len()].copy_from_slice(part);
            place += part.len();
        }
        self.places.push((start, place + payload));
        self.seq += payload as u32;
    }

    /// Handles what was written as a batch.
    fn batch(&mut self) {
        self.rig.now = self.rig.now + Duration::from_micros(50);
        let (now, reads) = (self.rig.now, self.places.len() as u64);
        self.counts.add(|calls| calls.reads += reads);
        self.rig.stack.fire_timers(now);
        // So it would be seen by a reactor whose reads come to an end.
        self.rig.stack.tap_is_empty();
        self.rig.stack.handle_frames(now, &self.frames, &self.places);
        self.places.clear();
        self.rig.stack.serve(now);
    }

    /// One batch of super-frames from the namespace to the socket.
    pub(crate) fn upload(&mut self) {
        let count = self.frames.len() / MAX_FRAME;
        (0..count).for_each(|at| self.write_frame(at, NAMESPACE.1, Flags::ACK, PAYLOAD));
        self.batch();
    }

    /// One acknowledgement of all that the namespace was sent, which makes room for as much again.
    pub(crate) fn download(&mut self) {
        let stack = &mut self.rig.stack;
        if self.counts.calls.get().frames == 0 {
            let side = pasta_datapath::flow::Side::Initiating;
            stack.socket_event(self.rig.now, self.flow, side, Readiness::READABLE);
        } else {
            self.ack = self.counts.highest.get();
        }
        self.write_frame(0, NAMESPACE.1, Flags::ACK, 0);
        self.batch();
    }
}

/// Counts a frame to the namespace.
fn note_frame(counts: &Counts, slices: &[IoSlice<'_>]) {
    let [head, payload] = slices else { return };
    let seq = head.get(vnet::LEN + ethernet::LEN + IPV4_LEN + 4..).and_then(|it| it.first_chunk());
    let Some(seq) = seq else { return };
    let end = Seq::from(u32::from_be_bytes(*seq)) + payload.len() as u32;
    counts.highest.set(end);
    counts.add(|calls| {
        if payload.is_empty() {
            calls.bare += 1;
        } else {
            calls.frames += 1;
            calls.octets += payload.len() as u64;
        }
    });
}
