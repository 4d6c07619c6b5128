//! Frames of the namespace: read in batches, each handled once, each flow they touch carried on once.

use super::{Engine, Flow, Kind};
use crate::counters::DropReason;
use crate::flow::tcp::connection::reset_for;
use crate::flow::tcp::relay::Noted;
use crate::flow::udp::{Datagram, NotSent};
use crate::flow::{FlowId, FlowKey};
use crate::link::classify::{Content, Frame, Framing, classify};
use crate::link::icmp_error;
use crate::link::neighbour;
use crate::link::writer::{FrameDevice, MAX_FRAME, ReadError};
use crate::nat::Protocol;
use crate::sys;
use crate::time::Instant;
use crate::wire::tcp::{Flags, Header};
use nix::errno::Errno;
use pasta_ipc::types::MacAddr;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

/// Frames read before sockets have a turn, while few flows send; datagrams sent at once.
pub(super) const BATCH: usize = 64;
/// Frames read before sockets have a turn where many flows send: so many for each, up to a bound. What a
/// flow has in one batch goes out with one call and is acknowledged with one frame, and that is most of
/// what a small frame costs. Measured with 128 flows of BBR and an MTU of 1500: 1.5 to 1.7 times as much.
const MOST_FRAMES: usize = 512;
const FRAMES_A_FLOW: usize = 4;
/// A batch of large frames ends with so many octets: eight of the largest frames. Measured with a
/// second-level cache of 1 MiB: with four, one flow and eight move 0.84 as much, for an eighth more
/// processor time.
const LARGE_OCTETS: usize = 8 * (MAX_FRAME + 64);
/// Frames are large if they are no smaller than this on average; chosen: where the octets of a frame cost
/// about as much as its calls.
const LARGE_FRAME: usize = 16 * 1024;
/// What a batch is read into.
pub(super) const BATCH_OCTETS: usize = 2 * 1024 * 1024;
/// A frame below this may be one of an exchange of small messages.
const LONE_FRAME: usize = 2048;
/// What a batch of frames has for the flows it touches.
struct Batch<'a> {
    /// What to take of each segment, which may be nothing, and its position among all.
    segments: Vec<(FlowId, usize, &'a [u8])>,
    datagrams: Vec<(FlowId, MacAddr, Datagram<'a>)>,
}

/// Storage of a [`Batch`] between two of them.
#[derive(Debug, Default)]
pub(super) struct BatchStorage {
    segments: Vec<(FlowId, usize, &'static [u8])>,
    datagrams: Vec<(FlowId, MacAddr, Datagram<'static>)>,
}

impl Engine {
    /// Reads a batch and handles it; gives whether it was small.
    pub(super) fn read_tap(&mut self, now: Instant) -> Result<bool, Errno> {
        let mut frames = std::mem::take(&mut self.frames);
        let mut gone = None;
        let lone_is_likely = self.busy_poll.follows_far();
        self.ranges.clear();
        self.active.roll(now);
        let most = (self.active.flows() * FRAMES_A_FLOW).clamp(BATCH, MOST_FRAMES);
        let mut start = 0;
        while self.ranges.len() < most
            && (start + MAX_FRAME <= LARGE_OCTETS || start < self.ranges.len() * LARGE_FRAME)
            && let Some(free) = frames.get_mut(start..start + MAX_FRAME)
        {
            match self.link.device.read(free) {
                Ok(len) => {
                    self.counters.from_tap += 1;
                    self.credit.frame_received();
                    self.ranges.push((start, start + len));
                    start += len.next_multiple_of(64);
                    // One small frame is most likely the only one, if sockets had something to say
                    // since the last: an exchange of messages. The kernel says so if it is not, for the
                    // price of the read that is saved.
                    if len < LONE_FRAME && self.ranges.len() == 1 && lone_is_likely {
                        self.tap_ready = false;
                        break;
                    }
                }
                Err(error @ (ReadError::WouldBlock | ReadError::Lost)) => {
                    if error == ReadError::Lost {
                        self.counters.drop(DropReason::Malformed);
                    }
                    self.tap_ready = false;
                    self.credit.queue_is_empty();
                    break;
                }
                Err(ReadError::Gone(errno)) => {
                    gone = Some(errno);
                    break;
                }
            }
        }
        let small = matches!(self.ranges.len(), 1 | 2) && start < LONE_FRAME;
        self.handle_frames(now, &frames);
        self.frames = frames;
        gone.map_or(Ok(small), Err)
    }

    fn handle_frames(&mut self, now: Instant, frames: &[u8]) {
        let storage = std::mem::take(&mut self.storage);
        let BatchStorage { segments, datagrams } = storage;
        let mut batch = Batch { segments, datagrams };
        let ranges = std::mem::take(&mut self.ranges);
        for (start, end) in &ranges {
            let octets = frames.get(*start..*end).unwrap_or_default();
            let handled = classify(octets, Framing::of(self.link.device.offloads()))
                .and_then(|frame| self.handle_frame(now, frame, &mut batch));
            if let Err(reason) = handled {
                self.counters.drop(reason);
            }
        }
        self.ranges = ranges;
        self.flush(now, &mut batch);
        batch.segments.clear();
        batch.datagrams.clear();
        let Batch { segments, datagrams } = batch;
        // Empty vectors keep their memory for the next batch.
        let segments = segments.into_iter().map(|_| unreachable!("was cleared")).collect();
        let datagrams = datagrams.into_iter().map(|_| unreachable!("was cleared")).collect();
        self.storage = BatchStorage { segments, datagrams };
    }

    /// The link-layer address that the namespace learns for `address`: ours for what a mapping leads
    /// to the host, and where nothing is known.
    pub(super) fn mac_at(&self, address: IpAddr) -> MacAddr {
        let ours = self.link.our_mac;
        let known = |it: IpAddr| {
            if self.nat.is_mapped(it) { Some(ours) } else { self.neighbours.mac_of(it) }
        };
        let gateway = self.nat.gateway(address);
        known(address).or_else(|| known(gateway?)).unwrap_or(ours)
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
                if !self.nat.serves(request.target.into()) {
                    return Err(DropReason::FamilyOff);
                }
                if !self.neighbours.answers_arp(&request) {
                    return Err(DropReason::NeighbourNotOurs);
                }
                let mac = self.mac_at(request.target.into());
                neighbour::send_arp_reply(&mut self.link.writer(&mut self.counters), &request, mac);
                Ok(())
            }
            Content::NeighbourSolicitation { source, target } => {
                if !self.nat.serves(target.into()) {
                    return Err(DropReason::FamilyOff);
                }
                if !self.neighbours.answers_solicitation(source, target) {
                    return Err(DropReason::NeighbourNotOurs);
                }
                let target_mac = self.mac_at(target.into());
                neighbour::send_advertisement(
                    &mut self.link.writer(&mut self.counters),
                    mac,
                    source,
                    (target, target_mac),
                );
                Ok(())
            }
            Content::NeighbourAnswer { address, at } => self.learn_namespace_mac(mac, address, at),
            Content::Tcp { source, destination, header, payload } => {
                self.handle_segment(now, mac, (source, destination), &header, payload, batch)
            }
            Content::Udp { source, destination, payload, segment_size } => {
                let key =
                    FlowKey { protocol: Protocol::Udp, namespace: source, remote: destination };
                let id = match self.flows.find(&key) {
                    Some(id) => {
                        self.renew_udp(now, mac, (id, key), payload.len())?;
                        id
                    }
                    None => self.open_udp(now, mac, key, payload.len())?,
                };
                self.flows.touch(now, id);
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
            None if header.is_opening() => return self.open_tcp(now, mac, key, header),
            None => {
                if let Some(reset) = reset_for(header, payload.len()) {
                    self.send_reset(mac, key, &reset);
                }
                return Err(DropReason::NoFlow);
            }
        };
        // What a kernel answers to our own question shows no use of the connection.
        let controls = header.flags.contains(Flags::SYN) || header.flags.contains(Flags::FIN);
        if controls || !payload.is_empty() {
            self.flows.touch(now, id);
        }
        let Some(Flow { kind: Kind::Tcp(flow), .. }) = self.flows.get_mut(id) else {
            return Err(DropReason::NoFlow);
        };
        if mac != flow.mac {
            flow.mac = mac;
            flow.path.set_mac(mac);
        }
        if !payload.is_empty() {
            self.active.count(now, &mut flow.counted, payload.len());
        }
        match flow.relay.segment(now, header, payload, &mut self.credit) {
            Noted::Take(taken) => {
                let position = batch.segments.len();
                batch.segments.push((id, position, payload.get(taken).unwrap_or_default()));
                Ok(())
            }
            Noted::NewConnection => {
                self.run_tcp(now, id, &[]);
                self.open_tcp(now, mac, key, header)
            }
        }
    }

    /// Gives the flows that a batch touched what it had for them.
    fn flush(&mut self, now: Instant, batch: &mut Batch<'_>) {
        let windows = self.active.windows(self.mtu, self.waiting.len());
        self.credit.set_limits(windows.with_buffers_of(self.largest_buffer));
        batch.segments.sort_unstable_by_key(|(id, position, _)| (*id, *position));
        for of_one in batch.segments.chunk_by(|(one, ..), (other, ..)| one == other) {
            for group in of_one.chunks(BATCH) {
                let mut slices = [IoSlice::new(&[]); BATCH];
                let payloads = group.iter().filter(|(.., payload)| !payload.is_empty());
                let mut count = 0;
                for (slice, (.., payload)) in slices.iter_mut().zip(payloads) {
                    *slice = IoSlice::new(payload);
                    count += 1;
                }
                let Some((id, ..)) = group.first() else { continue };
                self.run_tcp(now, *id, slices.get(..count).unwrap_or_default());
            }
        }
        let alike =
            |(of, from, _): &_, (other, other_from, _): &_| of == other && from == other_from;
        for of_one in batch.datagrams.chunk_by(alike) {
            for group in of_one.chunks(BATCH) {
                let Some((id, mac, _)) = group.first() else { continue };
                self.send_datagrams(now, *id, *mac, group);
            }
        }
    }

    fn send_datagrams(
        &mut self,
        now: Instant,
        id: FlowId,
        mac: MacAddr,
        group: &[(FlowId, MacAddr, Datagram<'_>)],
    ) {
        let Self { link, counters, nat, flows, .. } = self;
        if let Some(Flow { kind: Kind::Forwarded(_), .. }) = flows.get_mut(id) {
            return self.answer_forwarded(now, id, mac, group);
        }
        let Some(Flow { kind: Kind::Udp(flow), .. }) = flows.get_mut(id) else { return };
        let empty = Datagram { payload: &[], segment_size: None };
        let mut datagrams = [empty; BATCH];
        datagrams.iter_mut().zip(group).for_each(|(slot, (_, _, datagram))| *slot = *datagram);
        let datagrams = datagrams.get(..group.len()).unwrap_or_default();
        let tap = &mut link.writer(counters);
        let (mut doubtful, mut hard) = (false, false);
        flow.send(now, mac, datagrams, |flow, datagram, why| match why {
            NotSent::Dropped(reason) => tap.counters.drop(reason),
            // The socket's own address has gone: the next datagram gets another socket.
            NotSent::Refused(Errno::EINVAL) => {
                tap.counters.drop(DropReason::Unreachable);
                doubtful = true;
            }
            NotSent::Refused(errno) => {
                hard |= errno != Errno::EMSGSIZE;
                tap.counters.drop(DropReason::Unreachable);
                let remote = flow.path().source().ip();
                let mtu = sys::path_mtu(flow.socket(), remote);
                if let Some(why) = icmp_error::Unreachable::from_errno(errno, mtu) {
                    let reporter = nat.our_address(remote).unwrap_or(remote);
                    let offending = flow.offending(datagram.payload.len());
                    icmp_error::send(tap, mac, reporter, &offending, why);
                }
            }
        });
        if doubtful {
            flow.source_check().doubt();
        }
        if hard {
            nat.resolver_failed(flow.path().source(), flow.target().address.ip());
        }
    }
}
