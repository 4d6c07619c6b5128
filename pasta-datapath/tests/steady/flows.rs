//! One flow at full speed in each direction, through everything but the kernel: frames as the tap gives
//! them, the flow table, the real relay, and a socket and a tap that count what they are asked.

use pasta_datapath::flow::table::FlowTable;
use pasta_datapath::flow::tcp::connection::Connection;
use pasta_datapath::flow::tcp::relay::{Context, HostSocket, Noted, QUANTUM, Relay, TapWriter};
use pasta_datapath::flow::tcp::window::CreditPool;
use pasta_datapath::flow::{FlowId, FlowKey};
use pasta_datapath::link::classify::{Content, Framing, classify};
use pasta_datapath::link::writer::MAX_FRAME;
use pasta_datapath::nat::Protocol;
use pasta_datapath::sys::send_buffer::SendBuffer;
use pasta_datapath::time::Instant;
use pasta_datapath::wire::ip::{IPV4_LEN, PROTOCOL_TCP, ipv4_header};
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, Header, LEN, SackBlocks, ToSend};
use pasta_datapath::wire::vnet::Segmentation;
use pasta_datapath::wire::{ethernet, vnet};
use pasta_ipc::types::MacAddr;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const NAMESPACE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 7), 1024);
const REMOTE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 80);
const IRS: u32 = 1000;
const ISS: u32 = 5000;
const HEADERS: usize = vnet::LEN + ethernet::LEN + IPV4_LEN + LEN;
/// The segment size at the usual MTU of 1500.
const MSS: u16 = 1460;
/// Payload of a super-frame: 44 segments.
pub(crate) const PAYLOAD: usize = 44 * MSS as usize;

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

/// Takes everything, has everything.
#[derive(Default)]
struct Socket {
    calls: Calls,
}

impl HostSocket for Socket {
    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls.sends += 1;
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.calls.octets += len as u64;
        Ok(len)
    }

    fn send_buffer(&mut self, _least: u32) -> SendBuffer {
        self.calls.rooms += 1;
        SendBuffer { size: 4_000_000, queued: 0 }
    }

    fn peek(&mut self, _: u32, into: &mut [u8]) -> io::Result<usize> {
        self.calls.peeks += 1;
        if into.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(into.len()) }
    }

    fn consume(&mut self, _: u32) -> io::Result<()> {
        self.calls.consumes += 1;
        Ok(())
    }

    fn shut_down_write(&mut self) {}
}

#[derive(Default)]
struct Tap {
    calls: Calls,
    highest: Seq,
}

impl TapWriter for Tap {
    fn send(&mut self, header: &ToSend, _: u16, payload: &[u8]) -> bool {
        if payload.is_empty() {
            self.calls.bare += 1;
        } else {
            self.calls.frames += 1;
            self.calls.octets += payload.len() as u64;
            self.highest = header.seq + payload.len() as u32;
        }
        true
    }

    fn frame_payload(&self, _: u16) -> usize {
        PAYLOAD
    }
}

/// A flow among `others`, and the buffers that the shell lends.
pub(crate) struct Steady {
    now: Instant,
    table: FlowTable<Relay>,
    socket: Socket,
    tap: Tap,
    credit: CreditPool,
    scratch: Vec<u8>,
    /// Frames of a batch, each in a place of its own.
    frames: Vec<Vec<u8>>,
    seq: Seq,
    ack: Seq,
}

fn key(port: u16) -> FlowKey {
    let namespace = SocketAddr::from((NAMESPACE.0, port));
    FlowKey { protocol: Protocol::Tcp, namespace, remote: REMOTE.into() }
}

fn syn() -> Header {
    Header {
        source: NAMESPACE.1,
        destination: REMOTE.1,
        seq: Seq::from(IRS),
        ack: Seq::default(),
        flags: Flags::SYN,
        window: 60_000,
        mss: Some(MSS),
        window_scale: Some(7),
        sack_permitted: true,
    }
}

fn relay() -> Relay {
    Relay::new(Connection::from_syn(Instant::START, &syn(), Seq::from(ISS), MSS))
}

impl Steady {
    /// The handshake is over; batches have `batch` frames.
    pub(crate) fn new(others: u16, batch: usize) -> Self {
        let mut table = FlowTable::new(usize::from(others) + 1);
        for port in 0..others {
            assert!(table.insert(key(2000 + port), relay()).is_ok(), "the table is large enough");
        }
        let mut relay = relay();
        relay.connected();
        assert!(table.insert(key(NAMESPACE.1), relay).is_ok(), "the table is large enough");
        let mut steady = Self {
            now: Instant::START,
            table,
            socket: Socket::default(),
            tap: Tap::default(),
            credit: CreditPool::new(1 << 20, 1 << 22),
            scratch: vec![0; 512 * 1024],
            frames: vec![Vec::with_capacity(MAX_FRAME); batch],
            seq: Seq::from(IRS + 1),
            ack: Seq::from(ISS + 1),
        };
        let id = steady.find(NAMESPACE.1);
        steady.run(id, &[]);
        steady
    }

    pub(crate) fn calls(&self) -> Calls {
        let (socket, tap) = (self.socket.calls, self.tap.calls);
        let octets = socket.octets + tap.octets;
        Calls { frames: tap.frames, bare: tap.bare, reads: tap.reads, octets, ..socket }
    }

    /// The flow that frames from `port` belong to.
    pub(crate) fn find(&self, port: u16) -> FlowId {
        let found = self.table.find(&key(port));
        found.unwrap_or_else(|| panic!("no flow for {port}"))
    }

    fn run(&mut self, id: FlowId, payloads: &[IoSlice<'_>]) {
        let Self { now, table, socket, tap, credit, scratch, .. } = self;
        if let Some(relay) = table.get_mut(id) {
            let (now, quantum) = (*now, QUANTUM);
            let _ =
                relay.run(&mut Context { now, quantum, socket, tap, scratch, credit }, payloads);
        }
    }

    fn write_frame(&mut self, at: usize, payload: usize) {
        let header = ToSend {
            seq: self.seq,
            ack: self.ack,
            flags: Flags::ACK,
            window: u16::MAX,
            syn: None,
            sack: SackBlocks::NONE,
        };
        let vnet = vnet::ToSend {
            transport: (ethernet::LEN + IPV4_LEN) as u16,
            checksum: 16,
            headers: (HEADERS - vnet::LEN) as u16,
            segmentation: Segmentation::Tcp(MSS),
            ipv6: false,
        };
        let mac = MacAddr::OURS_BY_DEFAULT;
        let network = ipv4_header(NAMESPACE.0, REMOTE.0, PROTOCOL_TCP, (LEN + payload) as u16);
        let mut transport = [0; LEN];
        header.write(NAMESPACE.1, REMOTE.1, 0, &mut transport);
        let frame = &mut self.frames[at];
        frame.resize(HEADERS + payload, 7);
        let link = ethernet::header([2, 0, 0, 0, 0, 1], mac, ethernet::TYPE_IPV4);
        let parts: [&[u8]; 4] = [&vnet.octets(), &link, &network, &transport];
        let mut place = 0;
        for part in parts {
            frame[place..place + part.len()].copy_from_slice(part);
            place += part.len();
        }
        self.seq += payload as u32;
    }

    /// Handles the first `count` frames as a batch.
    fn batch(&mut self, count: usize) {
        self.now = self.now + Duration::from_micros(50);
        let frames = std::mem::take(&mut self.frames);
        let mut slices = [IoSlice::new(&[]); 64];
        let (mut filled, mut touched) = (0, None);
        for frame in frames.iter().take(count) {
            self.tap.calls.reads += 1;
            let Ok(classified) = classify(frame, Framing::Vnet) else { panic!("a bad frame") };
            let Content::Tcp { source, destination, header, payload } = classified.content else {
                panic!("not a segment")
            };
            let (namespace, remote) = (source, destination);
            let key = FlowKey { protocol: Protocol::Tcp, namespace, remote };
            let Some(id) = self.table.find(&key) else { panic!("no flow") };
            self.table.touch(self.now, id);
            let Some(relay) = self.table.get_mut(id) else { panic!("no flow") };
            if let Noted::Take(taken) = relay.segment(self.now, &header, payload, &mut self.credit)
                && !taken.is_empty()
            {
                slices[filled] = IoSlice::new(&payload[taken]);
                filled += 1;
            }
            touched = Some(id);
        }
        if let Some(id) = touched {
            self.run(id, &slices[..filled]);
        }
        self.frames = frames;
    }

    /// One batch of super-frames from the namespace to the socket.
    pub(crate) fn upload(&mut self) {
        let count = self.frames.len();
        (0..count).for_each(|at| self.write_frame(at, PAYLOAD));
        self.batch(count);
    }

    /// One acknowledgement of all that the namespace was sent, which makes room for as much again.
    pub(crate) fn download(&mut self) {
        let id = self.find(NAMESPACE.1);
        if let Some(relay) = self.table.get_mut(id) {
            relay.readable();
        }
        if self.tap.calls.frames > 0 {
            self.ack = self.tap.highest;
        }
        self.write_frame(0, 0);
        self.batch(1);
    }
}
