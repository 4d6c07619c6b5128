//! UDP: one flow for each pair of endpoints, each with a connected host socket of its own.
//!
//! Out: datagrams of one flow and equal size that were read in one batch leave in one call, cut by
//! the kernel (`UDP_SEGMENT`); only what is there already is grouped, nothing waits. In: the kernel
//! joins datagrams of one flow (`UDP_GRO`), and the tap takes them as one super-frame.
//!
//! The source port on the host is the namespace's own where it can be had, and any other where not.
//! Replies are taken from the connected address only (RFC 4787 calls it address and port dependent
//! filtering). A flow ends by time alone: 30 s without an answer, 180 s after the last datagram with
//! one (RFC 4787, REQ-5, asks for 2 min at least), 10 s after an answered DNS query.

use crate::counters::DropReason;
use crate::icmp_error::{Offending, QUOTED_TRANSPORT, Unreachable};
use crate::io::sockets::{ReadDatagrams, receive_datagrams, send_datagrams};
use crate::io::tap::{Path, Tap};
use crate::time::Instant;
use crate::wire::ip::PROTOCOL_UDP;
use crate::wire::udp;
use nix::errno::Errno;
use pasta_ipc::types::{MacAddr, Mtu};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

const ONE_WAY: Duration = Duration::from_secs(30);
const TWO_WAY: Duration = Duration::from_secs(180);
const DNS_ANSWERED: Duration = Duration::from_secs(10);

/// Reads of one flow before others have a turn; chosen.
const READS: usize = 32;

/// Most datagrams (`UDP_MAX_SEGMENTS`, include/linux/udp.h, before 6.9) and octets of one call.
pub const MAX_GROUP: usize = 64;
const MAX_GROUP_OCTETS: usize = 65_000;

/// A UDP flow of the namespace's.
#[derive(Debug)]
pub struct UdpFlow {
    socket: OwnedFd,
    path: Path,
    mac: MacAddr,
    last_active: Instant,
    answered: bool,
    /// The kernel can cut groups of datagrams on this path, as far as known.
    groups: bool,
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
    /// There is no way; the namespace is to be told.
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
    /// A flow over a connected `socket`; `path` leads to the namespace's end at `mac`.
    pub fn new(now: Instant, socket: OwnedFd, path: Path, mac: MacAddr) -> Self {
        Self { socket, path, mac, last_active: now, answered: false, groups: true }
    }

    /// The host socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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
        let dns = matches!(self.path.source().port(), 53 | 853);
        let lifetime = match (self.answered, dns) {
            (false, _) => ONE_WAY,
            (true, true) => DNS_ANSWERED,
            (true, false) => TWO_WAY,
        };
        self.last_active + lifetime
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
        if mac != self.mac {
            self.mac = mac;
            self.path.set_mac(mac);
        }
        let mut rest = group;
        while let Some((first, _)) = rest.split_first() {
            let (now_sent, later) = rest.split_at(self.group_len(rest).clamp(1, rest.len()));
            rest = later;
            if now_sent.len() > 1 {
                let mut slices = [IoSlice::new(&[]); MAX_GROUP];
                slices.iter_mut().zip(now_sent).for_each(|(s, d)| *s = IoSlice::new(d.payload));
                let slices = slices.get(..now_sent.len()).unwrap_or_default();
                let size = u16::try_from(first.payload.len()).ok();
                match send_datagrams(self.socket(), slices, size) {
                    Ok(()) => continue,
                    // The path cannot cut: one by one, for good.
                    Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE) => self.groups = false,
                    Err(_) => {}
                }
            }
            for datagram in now_sent {
                if let Err(why) = self.send_one(datagram) {
                    failed(self, datagram, why);
                }
            }
        }
    }

    /// How many datagrams at the front of `rest` can leave in one call.
    fn group_len(&self, rest: &[Datagram<'_>]) -> usize {
        let Some((first, others)) = rest.split_first() else { return 0 };
        let size = first.payload.len();
        if !self.groups || first.segment_size.is_some() || size == 0 {
            return 1;
        }
        let (mut count, mut octets) = (1, size);
        for datagram in others.iter().take(MAX_GROUP - 1) {
            let len = datagram.payload.len();
            let fits = len > 0 && len <= size && octets + len <= MAX_GROUP_OCTETS;
            if !fits || datagram.segment_size.is_some() {
                break;
            }
            count += 1;
            octets += len;
            // Only the last one may be shorter.
            if len < size {
                break;
            }
        }
        count
    }

    fn send_one(&mut self, datagram: &Datagram<'_>) -> Result<(), NotSent> {
        let Some(size) = datagram.segment_size else {
            return self.send_plain(datagram.payload);
        };
        let whole = [IoSlice::new(datagram.payload)];
        match send_datagrams(self.socket(), &whole, Some(size)) {
            Ok(()) => Ok(()),
            Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE) => {
                let mut pieces = datagram.payload.chunks(usize::from(size).max(1));
                pieces.try_for_each(|piece| self.send_plain(piece))
            }
            Err(errno) => Err(Self::not_sent(errno)),
        }
    }

    fn send_plain(&mut self, payload: &[u8]) -> Result<(), NotSent> {
        let slices = [IoSlice::new(payload)];
        match send_datagrams(self.socket(), &slices, None) {
            // An error that an earlier datagram earned; asking has cleared it.
            Err(Errno::ECONNREFUSED) => send_datagrams(self.socket(), &slices, None),
            other => other,
        }
        .map_err(Self::not_sent)
    }

    fn not_sent(errno: Errno) -> NotSent {
        match errno {
            Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => {
                NotSent::Dropped(DropReason::SocketFull)
            }
            errno => NotSent::Refused(errno),
        }
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

    /// Moves what the socket has received to the tap.
    pub fn receive(&mut self, now: Instant, tap: &mut Tap, mtu: Mtu, buffer: &mut [u8]) -> Reading {
        for _ in 0..READS {
            let read = match receive_datagrams(self.socket.as_fd(), buffer) {
                Ok(read) => read,
                Err(Errno::EAGAIN) => return Reading::Drained,
                // An error that was queued with more detail; it is taken from there.
                Err(_) => continue,
            };
            self.last_active = now;
            self.answered = true;
            let octets = buffer.get(..read.len).unwrap_or_default();
            self.to_tap(tap, mtu, read, octets);
        }
        Reading::More
    }

    fn to_tap(&self, tap: &mut Tap, mtu: Mtu, read: ReadDatagrams, octets: &[u8]) {
        let headers = if self.path.source().is_ipv4() { 28 } else { 48 };
        let largest = usize::from(mtu.get()).saturating_sub(headers);
        let size = read.segment_size.map_or(octets.len(), usize::from);
        if size > largest || read.truncated {
            tap.counters.drop(DropReason::TooLarge);
            return;
        }
        match read.segment_size {
            Some(size) if !tap.segments_udp() => {
                for piece in octets.chunks(usize::from(size).max(1)) {
                    tap.write_udp(&self.path, None, piece);
                }
            }
            // The kernel cuts up to what one packet can hold.
            Some(size) => {
                let room = self.path.max_transport() - udp::LEN;
                let whole = room - room % usize::from(size);
                for piece in octets.chunks(whole.max(1)) {
                    let several = piece.len() > usize::from(size);
                    tap.write_udp(&self.path, several.then_some(size), piece);
                }
            }
            None => {
                tap.write_udp(&self.path, None, octets);
            }
        }
    }
}

/// What the namespace is told of a failed datagram; nothing where it is not about the way.
pub fn told(errno: Errno, mtu: u32) -> Option<Unreachable> {
    Unreachable::from_errno(errno, mtu)
}
