//! UDP: one flow for each pair of endpoints, each with a connected host socket of its own.
//!
//! Out: datagrams of one flow and equal size that were read in one batch leave in one call, cut by
//! the kernel (`UDP_SEGMENT`); only what is there already is grouped, nothing waits. In: the kernel
//! joins datagrams of one flow (`UDP_GRO`), and the tap takes them as one super-frame.
//!
//! The source port on the host is the namespace's own where it can be had, and any other where not.
//! Replies are taken from the connected address only (RFC 4787 calls it address and port dependent
//! filtering). When the host has lost the address that the socket sends from, the next datagram of the
//! flow gets a new socket; so do queries when another resolver is to be asked, and the answer of the
//! old one is waited for a little longer. A flow ends by time alone: 30 s without an answer, 180 s after the last datagram with
//! one (RFC 4787, REQ-5, asks for 2 min at least), 10 s after an answered DNS query.

pub mod coalesce;
pub mod forwarded;

use crate::counters::DropReason;
use crate::flow::source_check::SourceCheck;
use crate::link::icmp_error::{Offending, QUOTED_TRANSPORT};
use crate::link::writer::{FrameWriter, Path};
use crate::nat::Target;
use crate::sys::socket::{receive_datagrams, send_datagrams};
use crate::sys::tap::Tap;
use crate::time::Instant;
use crate::wire::ip::PROTOCOL_UDP;
use crate::wire::udp;
use coalesce::GroBatch;
use nix::errno::Errno;
use pasta_ipc::types::{MacAddr, Mtu};
use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

const ONE_WAY: Duration = Duration::from_secs(30);
const TWO_WAY: Duration = Duration::from_secs(180);
const DNS_ANSWERED: Duration = Duration::from_secs(10);
/// How long the answer of a resolver is waited for once another one is asked: what resolver(3) waits.
const QUERY_PENDING: Duration = Duration::from_secs(5);

/// Reads of one flow before others have a turn; chosen: as many datagrams as one frame can stand for.
const READS: usize = 64;

/// Most datagrams (`UDP_MAX_SEGMENTS`, include/linux/udp.h, before 6.9) and octets of one call.
pub const MAX_GROUP: usize = 64;
const MAX_GROUP_OCTETS: usize = 65_000;

/// A UDP flow of the namespace's.
#[derive(Debug)]
pub struct UdpFlow {
    socket: OwnedFd,
    /// What the socket was opened for.
    target: Target,
    source_check: SourceCheck,
    /// Socket of the resolver that was asked before, and until when.
    previous: Option<(OwnedFd, Instant)>,
    path: Path,
    mac: MacAddr,
    last_active: Instant,
    answered: bool,
    /// The kernel can cut groups of datagrams on this path, as far as known.
    groups: Cell<bool>,
}

/// A datagram to send, or several that the namespace's kernel left in one.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The octets.
    pub payload: &'a [u8],
    /// If it is several: the size of each but the last.
    pub segment_size: Option<u16>,
}

/// Why a datagram did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The socket is full, or had an old error to report: this datagram is lost.
    Dropped(DropReason),
    /// There is no way; the namespace gets an ICMP error.
    Refused(Errno),
}

/// What a readable flow came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The socket is empty.
    Drained,
    /// There may be more; others go first.
    More,
}

impl UdpFlow {
    /// A flow over a `socket` that is connected to `target`; `path` leads to the namespace's end at
    /// `mac`.
    pub fn new(
        now: Instant,
        socket: OwnedFd,
        (target, source_check): (Target, SourceCheck),
        path: Path,
        mac: MacAddr,
    ) -> Self {
        let (previous, groups) = (None, Cell::new(true));
        let last_active = now;
        Self {
            socket,
            target,
            source_check,
            previous,
            path,
            mac,
            last_active,
            answered: false,
            groups,
        }
    }

    /// The host socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Notes a datagram that came for the flow by another way than its socket.
    pub fn received(&mut self, now: Instant) {
        self.last_active = now;
        self.answered = true;
    }

    /// What the host socket was opened for.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// When it was last known that the host socket is good.
    pub fn source_check(&mut self) -> &mut SourceCheck {
        &mut self.source_check
    }

    /// Goes on over another socket. With `Pending::Awaited` the answer to what was sent over the one
    /// before is waited for.
    pub fn replace_socket(
        &mut self,
        now: Instant,
        socket: OwnedFd,
        (target, source_check): (Target, SourceCheck),
        pending: Pending,
    ) {
        let before = std::mem::replace(&mut self.socket, socket);
        let awaited = pending == Pending::Awaited && !self.answered;
        self.previous = awaited.then_some((before, now + QUERY_PENDING));
        (self.target, self.source_check, self.answered) = (target, source_check, false);
        self.groups.set(true);
    }

    /// Who in the namespace this flow is for.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// The flow's way to the namespace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When the flow ends unless something happens before.
    pub fn deadline(&self) -> Instant {
        self.last_active + lifetime(self.path.source().port(), self.answered)
    }

    /// Sends `group`: datagrams of this flow in order. Calls `failed` for each that did not leave.
    pub fn send(
        &mut self,
        now: Instant,
        mac: MacAddr,
        group: &[Datagram<'_>],
        mut failed: impl FnMut(&Self, &Datagram<'_>, NotSent),
    ) {
        self.last_active = now;
        self.source_check.sent(now);
        if mac != self.mac {
            self.mac = mac;
            self.path.set_mac(mac);
        }
        let send = |slices: &[IoSlice<'_>], size| send_datagrams(self.socket(), slices, size);
        coalesce::send(&self.groups, group, send, |datagram, why| failed(self, datagram, why));
    }

    /// The packet that `datagram` was, for an error to quote.
    pub fn offending(&self, payload_len: usize) -> Offending {
        let (source, destination) = (self.path.destination(), self.path.source());
        let len = u16::try_from(payload_len).unwrap_or(u16::MAX);
        let header =
            udp::Header { source: source.port(), destination: destination.port(), checksum: 0 };
        let transport: [u8; QUOTED_TRANSPORT] = udp::header(&header, len);
        let transport_len = len.saturating_add(udp::LEN as u16);
        Offending { source, destination, protocol: PROTOCOL_UDP, transport, transport_len }
    }

    /// Moves what the socket has received to the tap, datagrams of one size together.
    pub fn receive(
        &mut self,
        now: Instant,
        tap: &mut FrameWriter<'_, Tap>,
        mtu: Mtu,
        buffer: &mut [u8],
    ) -> Reading {
        self.receive_late(now, tap, mtu, buffer);
        let mut gathered = GroBatch::default();
        let mut reading = Reading::More;
        for _ in 0..READS {
            if !gathered.has_room(buffer) {
                gathered.write(tap, &self.path, mtu, buffer);
            }
            let free = buffer.get_mut(gathered.len()..).unwrap_or_default();
            let read = match receive_datagrams(self.socket.as_fd(), free) {
                Ok(read) => read,
                Err(Errno::EAGAIN) => {
                    reading = Reading::Drained;
                    break;
                }
                // An error that was queued with more detail; it is taken from there.
                Err(_) => continue,
            };
            self.last_active = now;
            self.answered = true;
            self.source_check.answered();
            gathered.add(read, tap, &self.path, mtu, buffer);
        }
        gathered.write(tap, &self.path, mtu, buffer);
        reading
    }

    /// Takes what the resolver that was asked before has to say, once; its time may be over.
    fn receive_late(
        &mut self,
        now: Instant,
        tap: &mut FrameWriter<'_, Tap>,
        mtu: Mtu,
        buffer: &mut [u8],
    ) {
        let Some((socket, until)) = &self.previous else { return };
        match receive_datagrams(socket.as_fd(), buffer) {
            Ok(read) => {
                let octets = buffer.get(..read.len).unwrap_or_default();
                coalesce::write_to_tap(tap, &self.path, mtu, read, octets);
            }
            Err(Errno::EAGAIN) if now < *until => return,
            Err(_) => {}
        }
        self.previous = None;
    }
}

/// What becomes of answers to what was sent over a socket that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// They are waited for.
    Awaited,
    /// There will be none.
    Lost,
}

/// How long a flow to `port` lives after its last datagram.
fn lifetime(port: u16, answered: bool) -> Duration {
    match (answered, port) {
        (false, _) => ONE_WAY,
        (true, 53 | 853) => DNS_ANSWERED,
        (true, _) => TWO_WAY,
    }
}
