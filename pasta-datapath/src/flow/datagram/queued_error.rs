//! Errors of datagrams, as sockets queue them (`IP_RECVERR`, ip(7)).

use crate::link::icmp_error::{QUOTED_PAYLOAD, QUOTED_TRANSPORT, Reporter, Unreachable};
use crate::part::part;
use crate::wire::icmp::echo_request_body;
use nix::errno::Errno;
use pasta_ipc::types::Family;
use std::net::IpAddr;

/// Most octets that are kept of what comes back: a header of ICMP, and what we quote behind it.
const MOST: usize = QUOTED_TRANSPORT + QUOTED_PAYLOAD;

/// An error that the network or the kernel reported for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedError {
    /// What sending would give.
    pub errno: Errno,
    /// Type and code of the ICMP or ICMPv6 error, if it came from the network: it says more.
    pub icmp: Option<(u8, u8)>,
    /// The next hop's MTU, with `EMSGSIZE`.
    pub mtu: u32,
    /// Who said so, if it came from the network.
    pub offender: Option<Reporter>,
    /// What came back of the datagram's payload; of an echo request, also its header.
    pub returned: Returned,
}

/// The front of a datagram, as far as it came back with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returned {
    octets: [u8; MOST],
    len: usize,
}

impl Default for Returned {
    fn default() -> Self {
        Self { octets: [0; MOST], len: 0 }
    }
}

impl Returned {
    /// What `read` fills the front of a buffer with; it gives how many octets that are.
    pub fn read_by(read: impl FnOnce(&mut [u8]) -> usize) -> Self {
        let mut returned = Self::default();
        returned.len = read(&mut returned.octets).min(MOST);
        returned
    }

    /// The front of `octets`.
    pub fn of(octets: &[u8]) -> Self {
        Self::read_by(|buffer| buffer.iter_mut().zip(octets).map(|(to, from)| *to = *from).count())
    }

    /// The octets.
    pub fn octets(&self) -> &[u8] {
        part(&self.octets, ..self.len)
    }

    /// Of an echo request, sequence number and payload.
    pub fn echo_body(&self) -> Option<&[u8]> {
        echo_request_body(self.octets())
    }
}

impl QueuedError {
    /// An error of which only this is known.
    pub fn of(errno: Errno) -> Self {
        Self { errno, icmp: None, mtu: 0, offender: None, returned: Returned::default() }
    }

    /// What it means for the namespace, of a flow to `remote`; `None` if it does not concern the way.
    pub fn why(&self, remote: IpAddr) -> Option<Unreachable> {
        match self.icmp {
            Some(icmp) => Unreachable::from_icmp(Family::of(remote), icmp, self.mtu),
            None => Unreachable::from_errno(self.errno, self.mtu),
        }
    }
}
