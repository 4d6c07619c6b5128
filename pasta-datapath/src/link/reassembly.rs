//! Fragments of the namespace's packets put together (RFC 791, section 3.2; RFC 8200, section 4.5).
//!
//! A link of the namespace carries no packet larger than its MTU, and a datagram may be larger than that. Fragments wait
//! here until all octets of their packet are there; what is handed on is a frame like one that was read, so that nothing
//! behind this knows of fragments. Of IPv6 it keeps a fragment header that says "all of it" (RFC 6946), for its sender
//! allows fragmentation.
//!
//! **Overlaps.** A fragment that overlaps another one, or contradicts what is known of the packet's length, makes the
//! whole packet void, also what comes of it later (RFC 5722, for both families). One that came twice is of no use and
//! does no harm.
//!
//! **Bounds.** [`MAX_PACKETS`] packets and [`MAX_OCTETS`] of memory, for 30 s (IPv4) or 60 s (IPv6) from their first
//! fragment. Where there is too much, the source address that takes most loses its oldest packet: a flood from one
//! address costs itself and not others. If time is up and the front of the packet is there, its sender gets "time
//! exceeded", code 1.
//!
//! It reads no transport header: ports are checked when the packet is whole, as those of any other.

use super::icmp_error::{Offending, QUOTED_TRANSPORT, Unreachable};
use crate::counters::{Counters, DropReason};
use crate::link::classify::Framing;
use crate::part::part;
use crate::time::Instant;
use crate::wire::ip::{
    FRAGMENT_LEN, Fragmentation, Handling, IPV4_LEN, IPV6_LEN, PROTOCOL_FRAGMENT, PROTOCOL_ICMPV6,
    Packet, Piece, ipv4_header_with, ipv6_header_with,
};
use crate::wire::{ethernet, icmp, vnet};
use pasta_ipc::types::{Family, MacAddr};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Packets that wait for fragments; chosen: some dozens of programs that each have a few on their way.
pub const MAX_PACKETS: usize = 256;

/// Octets of memory for them; chosen: 64 of the largest packets.
pub const MAX_OCTETS: usize = 4 << 20;

/// Fragments of one packet; chosen: the largest one over a link of 296 octets.
const MAX_PIECES: usize = 256;

/// What a packet and a fragment cost beside their octets.
const PACKET_COST: usize = 256;
const PIECE_COST: usize = size_of::<Placed>();

/// RFC 1122, section 3.3.2, asks for 60 to 120 s of a host; Linux waits 30 s (`IP_FRAG_TIME`), and so do those for
/// whom this stands.
const TIME_V4: Duration = Duration::from_secs(30);
/// RFC 8200, section 4.5.
const TIME_V6: Duration = Duration::from_secs(60);

/// Where the header of IPv6 has the length of the payload, and the one of a fragment behind it its offset, in octets of
/// the packet.
const PAYLOAD_LENGTH_AT: u8 = 4;
const FRAGMENT_OFFSET_AT: u8 = (IPV6_LEN + 2) as u8;

/// Buffers of packets that were handed on, kept for others.
const SPARE: usize = 4;

/// "Congestion experienced", and the bits in which it is said (RFC 3168, section 5.3).
const ECN_CE: u8 = 3;

/// What fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    /// Of IPv4 alone.
    protocol: u8,
    identification: u32,
}

/// Where octets of a packet are.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// In the packet.
    offset: usize,
    len: usize,
    /// In the buffer.
    at: usize,
}

/// A packet, of which fragments have come.
#[derive(Debug)]
pub struct Partial {
    key: Key,
    mac: MacAddr,
    due: Instant,
    /// What the first fragment says of all.
    head: Option<(u8, Handling)>,
    congestion: bool,
    /// The octets that it has, once the last fragment has come.
    total: Option<usize>,
    received: usize,
    /// In the order of the packet.
    pieces: Vec<Placed>,
    /// In the order of arrival.
    octets: Vec<u8>,
    /// No fragment of it is taken any more.
    is_void: bool,
}

/// Packets that wait for fragments.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// Those of one family in the order in which they began.
    packets: Vec<Partial>,
    /// What each source takes.
    sources: Vec<(IpAddr, usize)>,
    octets: usize,
    spare: Vec<(Vec<Placed>, Vec<u8>)>,
    frame: Vec<u8>,
}

impl Partial {
    fn new(now: Instant, mac: MacAddr, key: Key, (pieces, octets): (Vec<Placed>, Vec<u8>)) -> Self {
        let due = now + if key.source.is_ipv4() { TIME_V4 } else { TIME_V6 };
        let (head, total) = (None, None);
        let (congestion, is_void) = (false, false);
        Self { key, mac, due, head, congestion, total, received: 0, pieces, octets, is_void }
    }

    fn cost(&self) -> usize {
        PACKET_COST + self.octets.len() + self.pieces.len() * PIECE_COST
    }

    /// Where a fragment belongs among the others.
    ///
    /// # Errors
    ///
    /// The counter, if there is no place for it; [`DropReason::FragmentConflict`] if there can be none.
    fn place_of(&self, piece: Piece, len: usize) -> Result<usize, DropReason> {
        let end = piece.offset + len;
        let place = self.pieces.partition_point(|it| it.offset < piece.offset);
        let (before, behind) = self.pieces.split_at(place);
        if behind.first().is_some_and(|it| (it.offset, it.len) == (piece.offset, len)) {
            let was_last = self.total == Some(end);
            return Err(match was_last != piece.more {
                true => DropReason::FragmentDuplicate,
                false => DropReason::FragmentConflict,
            });
        }
        let overlaps = before.last().is_some_and(|it| it.offset + it.len > piece.offset)
            || behind.first().is_some_and(|it| it.offset < end);
        let is_beyond = match (piece.more, self.total) {
            (true, total) => total.is_some_and(|total| end > total),
            (false, Some(total)) => end != total,
            (false, None) => !behind.is_empty(),
        };
        if overlaps || is_beyond {
            return Err(DropReason::FragmentConflict);
        }
        if self.pieces.len() >= MAX_PIECES {
            return Err(DropReason::FragmentsEvicted);
        }
        Ok(place)
    }

    fn put(&mut self, place: usize, packet: &Packet<'_>, piece: Piece) {
        let len = packet.payload.len();
        self.pieces.insert(place, Placed { offset: piece.offset, len, at: self.octets.len() });
        self.octets.extend_from_slice(packet.payload);
        self.received += len;
        self.congestion |= packet.handling.traffic_class & ECN_CE == ECN_CE;
        if piece.offset == 0 {
            self.head = Some((packet.protocol, packet.handling));
        }
        if !piece.more {
            self.total = Some(piece.offset + len);
        }
    }

    fn is_whole(&self) -> bool {
        self.total == Some(self.received)
    }

    /// How many fragments it has.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether it has none: it is void.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Who sends it.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// The packet, for an error to quote, if its front has come.
    pub fn offending(&self) -> Option<Offending<'_>> {
        let ((protocol, _), first) = (self.head?, self.pieces.first()?);
        let mut transport = [0; QUOTED_TRANSPORT];
        let octets = part(&self.octets, first.at..first.at + first.len);
        let payload = part(octets, QUOTED_TRANSPORT.min(octets.len())..);
        transport.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
        let Key { source, destination, .. } = self.key;
        let (source, destination) = (SocketAddr::new(source, 0), SocketAddr::new(destination, 0));
        let transport_len = u16::try_from(first.len).unwrap_or(u16::MAX);
        Some(Offending { source, destination, protocol, transport, transport_len, payload })
    }

    /// Writes the frame that the packet is as a whole.
    fn write(&self, framing: Framing, frame: &mut Vec<u8>) {
        let Some((protocol, mut handling)) = self.head else { return };
        handling.fragmentation = Fragmentation::Allowed;
        if self.congestion {
            handling.traffic_class |= ECN_CE;
        }
        if framing == Framing::Vnet {
            frame.extend_from_slice(&vnet::COMPLETE);
        }
        let link = |kind| ethernet::header([0; 6], self.mac, kind);
        let len = |len| u16::try_from(len).unwrap_or(u16::MAX);
        match (self.key.source, self.key.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend_from_slice(&link(ethernet::TYPE_IPV4));
                let len = len(self.received);
                frame.extend_from_slice(&ipv4_header_with(from, to, protocol, len, handling));
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend_from_slice(&link(ethernet::TYPE_IPV6));
                let (identification, offset, more) = (self.key.identification, 0, false);
                let all = Piece { identification, offset, more }.header(protocol);
                // The largest have no room for it. What Ethernet cannot carry may be fragmented anyway.
                let with_header = u16::try_from(FRAGMENT_LEN + self.received);
                let (next, len, between) = match with_header {
                    Ok(len) => (PROTOCOL_FRAGMENT, len, &all[..]),
                    Err(_) => (protocol, len(self.received), &[][..]),
                };
                let header = ipv6_header_with(from, to, next, len, handling);
                frame.extend_from_slice(&header);
                frame.extend_from_slice(between);
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return,
        }
        for Placed { at, len, .. } in &self.pieces {
            frame.extend_from_slice(part(&self.octets, *at..at + len));
        }
    }
}

/// Most octets behind the network header of a packet that is put together (RFC 791, section 3.1; RFC 8200, section 4.5).
fn most(source: IpAddr) -> usize {
    usize::from(u16::MAX) - if source.is_ipv4() { IPV4_LEN } else { 0 }
}

/// Which field of a packet says that a fragment is one that cannot be, by its octet (RFC 8200, section 4.5): the payload
/// length of one in the middle that does not end where another could begin, or the offset of one that reaches beyond
/// the largest packet.
fn impossible_field(packet: &Packet<'_>, piece: Piece) -> Option<u8> {
    let Packet { source, payload, .. } = packet;
    if piece.more && payload.len() % 8 != 0 {
        Some(PAYLOAD_LENGTH_AT)
    } else if piece.offset + payload.len() > most(*source) {
        Some(FRAGMENT_OFFSET_AT)
    } else {
        None
    }
}

/// What is reported to the sender of a fragment that cannot be: what is wrong, and the packet. In IPv4 nothing is, as by
/// Linux.
pub fn fault<'a>(packet: &Packet<'a>, piece: Piece) -> Option<(Unreachable, Offending<'a>)> {
    let Packet { source, destination, protocol, payload, .. } = *packet;
    if source.is_ipv4() {
        return None;
    }
    let field = impossible_field(packet, piece)?;
    // There is none about an error (RFC 4443, section 2.4, e.1).
    let first = payload.first().filter(|_| piece.offset == 0 && protocol == PROTOCOL_ICMPV6);
    if first.is_some_and(|kind| icmp::is_error(Family::V6, *kind)) {
        return None;
    }
    let (source, destination) = (SocketAddr::new(source, 0), SocketAddr::new(destination, 0));
    let transport = piece.header(protocol);
    let transport_len = u16::try_from(FRAGMENT_LEN + payload.len()).unwrap_or(u16::MAX);
    let protocol = PROTOCOL_FRAGMENT;
    let offending = Offending { source, destination, protocol, transport, transport_len, payload };
    Some((Unreachable::Field(field), offending))
}

impl Reassembly {
    /// When time is up for a packet.
    pub fn deadline(&self) -> Option<Instant> {
        self.packets.iter().map(|packet| packet.due).min()
    }

    /// How many packets wait, and what they cost in octets of memory.
    pub fn held(&self) -> (usize, usize) {
        (self.packets.len(), self.octets)
    }

    /// Takes in a fragment that came from `mac`; gives the frame of the packet if that is whole, to be given back to
    /// [`Reassembly::reuse`].
    ///
    /// # Errors
    ///
    /// The counter, if the fragment is dropped. Others of the packet, and of packets that have to go, are counted.
    pub fn add(
        &mut self,
        now: Instant,
        (mac, framing): (MacAddr, Framing),
        (packet, piece): (&Packet<'_>, Piece),
        counters: &mut Counters,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let Packet { source, destination, protocol, payload, .. } = *packet;
        if payload.is_empty() || impossible_field(packet, piece).is_some() {
            return Err(DropReason::Malformed);
        }
        // Of IPv6, the last one of several may name another protocol (RFC 8200, section 4.5).
        let protocol = if source.is_ipv4() { protocol } else { 0 };
        let identification = piece.identification;
        let key = Key { source, destination, protocol, identification };
        let index = match self.packets.iter().rposition(|it| it.key == key) {
            Some(index) => index,
            None => self.begin(now, mac, key, counters),
        };
        let Some(partial) = self.packets.get_mut(index) else { return Err(DropReason::Malformed) };
        if partial.is_void {
            return Err(DropReason::FragmentConflict);
        }
        let place = match partial.place_of(piece, payload.len()) {
            Ok(place) => place,
            Err(DropReason::FragmentDuplicate) => return Err(DropReason::FragmentDuplicate),
            Err(reason) => {
                self.make_void(index, reason, counters);
                return Err(reason);
            }
        };
        partial.put(place, packet, piece);
        self.charge(source, payload.len() + PIECE_COST);
        if self.packets.get(index).is_some_and(Partial::is_whole) {
            let partial = self.remove(index);
            let mut frame = std::mem::take(&mut self.frame);
            partial.write(framing, &mut frame);
            self.keep_buffers(partial);
            return Ok(Some(frame));
        }
        while self.octets > MAX_OCTETS && self.evict(counters) {}
        Ok(None)
    }

    /// Takes back the frame of a packet.
    pub fn reuse(&mut self, mut frame: Vec<u8>) {
        frame.clear();
        self.frame = frame;
    }

    /// The next packet whose time is up.
    pub fn next_expired(&mut self, now: Instant) -> Option<Partial> {
        let index = self.packets.iter().position(|it| it.due <= now)?;
        Some(self.remove(index))
    }

    /// Takes back what an expired packet has held.
    pub fn keep_buffers(&mut self, partial: Partial) {
        let Partial { mut pieces, mut octets, .. } = partial;
        if self.spare.len() < SPARE {
            pieces.clear();
            octets.clear();
            self.spare.push((pieces, octets));
        }
    }

    /// Begins a packet; gives its place.
    fn begin(&mut self, now: Instant, mac: MacAddr, key: Key, counters: &mut Counters) -> usize {
        if self.packets.len() >= MAX_PACKETS {
            self.evict(counters);
        }
        let buffers = self.spare.pop().unwrap_or_default();
        self.packets.push(Partial::new(now, mac, key, buffers));
        self.charge(key.source, PACKET_COST);
        self.packets.len() - 1
    }

    /// Removes the oldest packet of the source that takes most; `false` if there is none.
    fn evict(&mut self, counters: &mut Counters) -> bool {
        let largest = self.sources.iter().max_by_key(|(_, cost)| *cost).map(|(source, _)| *source);
        let index = self.packets.iter().position(|it| Some(it.key.source) == largest);
        let Some(index) = index else { return false };
        let partial = self.remove(index);
        (0..partial.len()).for_each(|_| counters.drop(DropReason::FragmentsEvicted));
        self.keep_buffers(partial);
        true
    }

    /// Drops all fragments of a packet, and those that are yet to come.
    fn make_void(&mut self, index: usize, reason: DropReason, counters: &mut Counters) {
        let Some(partial) = self.packets.get_mut(index) else { return };
        let (source, before) = (partial.key.source, partial.cost());
        partial.pieces.drain(..).for_each(|_| counters.drop(reason));
        // Nothing of it is needed any more.
        partial.octets = Vec::new();
        (partial.is_void, partial.head) = (true, None);
        let after = partial.cost();
        self.release(source, before - after);
    }

    fn remove(&mut self, index: usize) -> Partial {
        let partial = self.packets.remove(index);
        self.release(partial.key.source, partial.cost());
        partial
    }

    fn charge(&mut self, source: IpAddr, cost: usize) {
        self.octets += cost;
        match self.sources.iter_mut().find(|(it, _)| *it == source) {
            Some((_, sum)) => *sum += cost,
            None => self.sources.push((source, cost)),
        }
    }

    fn release(&mut self, source: IpAddr, cost: usize) {
        self.octets -= cost;
        if let Some(index) = self.sources.iter().position(|(it, _)| *it == source) {
            if let Some((_, sum)) = self.sources.get_mut(index) {
                *sum -= cost;
                if *sum == 0 {
                    self.sources.swap_remove(index);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
