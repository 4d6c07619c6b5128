//! UDP flows that begin at a listener, on the host or on the namespace's loopback.
//!
//! The listener is one socket for all its peers: each flow remembers from whom and to which address its
//! first datagram came, and answers leave from there. The other end is the namespace behind the tap, or
//! a connected socket of the flow's own on the other side. Listeners survive every change of addresses,
//! and so do the flows.
//!
//! Until a socket that was asked for is there, datagrams wait, up to a bound; beyond it they are counted
//! drops, as they would be in a socket's own queue.

use super::coalesce::Coalesced;
use super::{Datagram, NotSent, coalesce, lifetime};
use crate::counters::DropReason;
use crate::flow::udp::Reading;
use crate::link::writer::{FrameWriter, Path};
use crate::port_forward::listeners::ListenerId;
use crate::sys::pktinfo::{DatagramAddresses, send_from};
use crate::sys::socket::{ReadDatagrams, receive_datagrams, send_datagrams};
use crate::sys::tap::Tap;
use crate::time::Instant;
use nix::errno::Errno;
use pasta_ipc::types::{MacAddr, Mtu};
use std::cell::Cell;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Reads of one flow before others have a turn; chosen: as many as one call can stand for.
const READS: usize = super::MAX_GROUP;

/// Octets that wait for a socket of the flow's; chosen: a few datagrams of any size.
const MAX_WAITING: usize = 128 * 1024;

/// The end that is not the listener.
#[derive(Debug)]
enum Other {
    /// The namespace, as packets.
    Tap { path: Path, mac: MacAddr },
    /// A connected socket.
    Socket(OwnedFd),
    /// None yet; what is to be sent when there is one, each with the size of its parts.
    Waiting(Vec<(Vec<u8>, Option<u16>)>),
}

/// A UDP flow of a listener's.
#[derive(Debug)]
pub struct ForwardedFlow {
    listener: ListenerId,
    addresses: DatagramAddresses,
    destination: SocketAddr,
    other: Other,
    last_active: Instant,
    answered: bool,
    groups_out: Cell<bool>,
}

impl ForwardedFlow {
    /// A flow of `listener` that goes on through the tap along `path`.
    pub fn to_tap(
        now: Instant,
        listener: ListenerId,
        addresses: DatagramAddresses,
        path: Path,
        mac: MacAddr,
    ) -> Self {
        let destination = path.destination();
        Self::new(now, listener, addresses, destination, Other::Tap { path, mac })
    }

    /// A flow of `listener` to `destination`, whose socket is still to come.
    pub fn to_socket(
        now: Instant,
        listener: ListenerId,
        addresses: DatagramAddresses,
        destination: SocketAddr,
    ) -> Self {
        Self::new(now, listener, addresses, destination, Other::Waiting(Vec::new()))
    }

    fn new(
        now: Instant,
        listener: ListenerId,
        addresses: DatagramAddresses,
        destination: SocketAddr,
        other: Other,
    ) -> Self {
        let groups_out = Cell::new(true);
        Self {
            listener,
            addresses,
            destination,
            other,
            last_active: now,
            answered: false,
            groups_out,
        }
    }

    /// The listener that the flow belongs to.
    pub fn listener(&self) -> ListenerId {
        self.listener
    }

    /// The ends of the flow at the listener.
    pub fn addresses(&self) -> DatagramAddresses {
        self.addresses
    }

    /// Where it goes.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// Whether a socket for [`ForwardedFlow::destination`] is still to be had.
    pub fn wants_socket(&self) -> bool {
        matches!(self.other, Other::Waiting(_))
    }

    /// The flow's own socket.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.other {
            Other::Socket(socket) => Some(socket.as_fd()),
            Other::Tap { .. } | Other::Waiting(_) => None,
        }
    }

    /// When the flow ends unless something happens before.
    pub fn deadline(&self) -> Instant {
        self.last_active + lifetime(self.destination.port(), self.answered)
    }

    /// Gives the flow its socket, connected, and sends what has waited for it.
    pub fn set_socket(&mut self, socket: OwnedFd, dropped: impl FnMut(DropReason)) {
        let waiting = std::mem::replace(&mut self.other, Other::Socket(socket));
        if let Other::Waiting(waiting) = waiting {
            let datagrams: Vec<_> = waiting
                .iter()
                .map(|(octets, size)| Datagram { payload: octets, segment_size: *size })
                .collect();
            self.send_to_socket(&datagrams, dropped);
        }
    }

    /// Carries on what came to the listener.
    pub fn arrived(
        &mut self,
        now: Instant,
        tap: &mut FrameWriter<'_, Tap>,
        mtu: Mtu,
        read: ReadDatagrams,
        octets: &[u8],
    ) {
        self.last_active = now;
        match &mut self.other {
            Other::Tap { path, .. } => coalesce::write_to_tap(tap, path, mtu, read, octets),
            Other::Socket(_) if read.truncated => tap.counters.drop(DropReason::TooLarge),
            Other::Socket(_) => {
                let datagram = Datagram { payload: octets, segment_size: read.segment_size };
                self.send_to_socket(&[datagram], |reason| tap.counters.drop(reason));
            }
            Other::Waiting(waiting) => {
                let held: usize = waiting.iter().map(|(octets, _)| octets.len().max(256)).sum();
                if held + octets.len() > MAX_WAITING || read.truncated {
                    tap.counters.drop(DropReason::SocketFull);
                } else {
                    waiting.push((octets.to_vec(), read.segment_size));
                }
            }
        }
    }

    fn send_to_socket(&self, datagrams: &[Datagram<'_>], mut dropped: impl FnMut(DropReason)) {
        let Other::Socket(socket) = &self.other else { return };
        let send = |slices: &[IoSlice<'_>], size| send_datagrams(socket.as_fd(), slices, size);
        // That nobody listens there is not carried back: the listener's peer cannot be informed.
        coalesce::send(&self.groups_out, datagrams, send, |_, why| dropped(reason_of(why)));
    }

    /// Sends what the namespace answers, through the `listener`.
    pub fn answer(
        &mut self,
        now: Instant,
        mac: MacAddr,
        listener: BorrowedFd<'_>,
        datagrams: &[Datagram<'_>],
        mut dropped: impl FnMut(DropReason),
    ) {
        self.last_active = now;
        self.answered = true;
        if let Other::Tap { path, mac: ours } = &mut self.other
            && *ours != mac
        {
            *ours = mac;
            path.set_mac(mac);
        }
        let send =
            |slices: &[IoSlice<'_>], size| send_from(listener, &self.addresses, slices, size);
        coalesce::send(&self.groups_out, datagrams, send, |_, why| dropped(reason_of(why)));
    }

    /// Moves what the flow's own socket has received to the `listener`'s peer.
    pub fn receive(
        &mut self,
        now: Instant,
        listener: BorrowedFd<'_>,
        buffer: &mut [u8],
        mut dropped: impl FnMut(DropReason),
    ) -> Reading {
        let Other::Socket(socket) = &self.other else { return Reading::Drained };
        let send =
            |slices: &[IoSlice<'_>], size| send_from(listener, &self.addresses, slices, size);
        let mut send_on = |read: ReadDatagrams, octets: &[u8]| {
            let payload = octets.get(..read.len).unwrap_or_default();
            let datagram = Datagram { payload, segment_size: read.segment_size };
            if let Err(why) = coalesce::send_one(&datagram, &send) {
                dropped(reason_of(why));
            }
        };
        let mut joined: Option<Coalesced<()>> = None;
        let (mut reading, mut received) = (Reading::More, false);
        for _ in 0..READS {
            let start = joined.map_or(0, |joined| joined.len());
            let free = buffer.get_mut(start..).unwrap_or_default();
            let read = match receive_datagrams(socket.as_fd(), free) {
                Ok(read) => read,
                Err(Errno::EAGAIN) => {
                    reading = Reading::Drained;
                    break;
                }
                // An error that an earlier datagram earned; reading has cleared it.
                Err(_) => continue,
            };
            received = true;
            if joined.as_mut().is_some_and(|joined| joined.join((), read)) {
                continue;
            }
            if let Some(joined) = joined.take() {
                send_on(joined.read(), buffer);
            }
            buffer.copy_within(start..start + read.len, 0);
            joined = Coalesced::first((), read);
            if joined.is_none() {
                // Its own buffer is larger than any datagram: nothing is ever cut short.
                send_on(read, buffer);
            }
        }
        if let Some(joined) = joined {
            send_on(joined.read(), buffer);
        }
        if received {
            self.last_active = now;
            self.answered = true;
        }
        reading
    }
}

fn reason_of(why: NotSent) -> DropReason {
    match why {
        NotSent::Dropped(reason) => reason,
        NotSent::Refused(_) => DropReason::Unreachable,
    }
}
