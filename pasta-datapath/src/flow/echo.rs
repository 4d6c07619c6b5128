//! Echo: one flow for each program that pings one address, over a ping socket (icmp(7)).
//!
//! The kernel lets us have one only if our group is in `net.ipv4.ping_group_range` of the host; where
//! it is not, requests are counted drops and the log says once what to change.

use crate::flow::source_check::SourceCheck;
use crate::flow::udp::Reading;
use crate::link::icmp_error::{Offending, QUOTED_TRANSPORT};
use crate::link::writer::{FrameWriter, Path, icmp_protocol};
use crate::nat::Target;
use crate::sys::socket::{receive_datagrams, send_datagrams};
use crate::sys::tap::Tap;
use crate::time::Instant;
use crate::wire::icmp::{echo_reply_body, echo_reply_head, echo_request_head};
use nix::errno::Errno;
use pasta_ipc::types::MacAddr;
use std::io::IoSlice;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A flow without requests or replies ends after this long (RFC 5508, REQ-2: 60 s at least).
const LIFETIME: Duration = Duration::from_secs(60);

/// Replies of one flow before others have a turn; chosen.
const READS: usize = 32;

/// An echo flow of the namespace's.
#[derive(Debug)]
pub struct EchoFlow {
    socket: OwnedFd,
    /// What the socket was opened for.
    target: Target,
    source_check: SourceCheck,
    path: Path,
    mac: MacAddr,
    id: u16,
    last_active: Instant,
    /// Sequence number of the last request, for errors to quote.
    last_sequence: [u8; 2],
}

impl EchoFlow {
    /// A flow over a ping socket that is connected to `target`, for the program that pings with `id`.
    pub fn new(
        now: Instant,
        socket: OwnedFd,
        (target, source_check): (Target, SourceCheck),
        path: Path,
        mac: MacAddr,
        id: u16,
    ) -> Self {
        let last_sequence = [0; 2];
        Self { socket, target, source_check, path, mac, id, last_active: now, last_sequence }
    }

    /// What the host socket was opened for.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// When it was last known that the host socket is good.
    pub fn source_check(&mut self) -> &mut SourceCheck {
        &mut self.source_check
    }

    /// Goes on over another socket to the same target.
    pub fn replace_socket(&mut self, socket: OwnedFd, source_check: SourceCheck) {
        (self.socket, self.source_check) = (socket, source_check);
    }

    /// The host socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Who in the namespace pings.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// The flow's way to the namespace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When the flow ends unless something happens before.
    pub fn deadline(&self) -> Instant {
        self.last_active + LIFETIME
    }

    /// Sends a request with `body`: sequence number and payload.
    ///
    /// # Errors
    ///
    /// As sendmsg(2).
    pub fn send(&mut self, now: Instant, mac: MacAddr, body: &[u8]) -> Result<(), Errno> {
        self.last_active = now;
        self.source_check.sent(now);
        if mac != self.mac {
            self.mac = mac;
            self.path.set_mac(mac);
        }
        if let Some(sequence) = body.first_chunk() {
            self.last_sequence = *sequence;
        }
        let head = echo_request_head(self.path.source().ip());
        let slices = [IoSlice::new(&head), IoSlice::new(body)];
        send_datagrams(self.socket(), &slices, None)
    }

    /// The last request, for an error to quote.
    pub fn offending(&self) -> Offending {
        let (source, destination) = (self.path.destination(), self.path.source());
        let [kind, ..] = echo_request_head(destination.ip());
        let [i0, i1] = self.id.to_be_bytes();
        let [s0, s1] = self.last_sequence;
        let transport: [u8; QUOTED_TRANSPORT] = [kind, 0, 0, 0, i0, i1, s0, s1];
        let protocol = icmp_protocol(destination.ip());
        Offending { source, destination, protocol, transport, transport_len: 8 }
    }

    /// Moves replies to the tap.
    pub fn receive(
        &mut self,
        now: Instant,
        tap: &mut FrameWriter<'_, Tap>,
        buffer: &mut [u8],
    ) -> Reading {
        let (from, to): (IpAddr, IpAddr) = (self.path.source().ip(), self.path.destination().ip());
        for _ in 0..READS {
            let read = match receive_datagrams(self.socket.as_fd(), buffer) {
                Ok(read) => read,
                Err(Errno::EAGAIN) => return Reading::Drained,
                Err(_) => continue,
            };
            self.last_active = now;
            self.source_check.answered();
            let octets = buffer.get(..read.len).unwrap_or_default();
            if let Some(body) = echo_reply_body(octets) {
                tap.write_icmp(&self.path, &echo_reply_head(from, to, self.id, body), body);
            }
        }
        Reading::More
    }
}
