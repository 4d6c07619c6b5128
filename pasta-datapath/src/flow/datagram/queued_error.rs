//! Errors of datagrams, as sockets queue them (`IP_RECVERR`, ip(7)).

use crate::link::icmp_error::Unreachable;
use crate::wire::icmp::echo_request_sequence;
use nix::errno::Errno;
use pasta_ipc::types::Family;
use std::net::IpAddr;

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
    pub offender: Option<IpAddr>,
    /// The front of what came back of the datagram's payload, and zeros; of an echo request, all of its header.
    pub quoted: [u8; 8],
}

impl QueuedError {
    /// The sequence number of the echo request that it is about.
    pub fn sequence(&self) -> Option<&[u8; 2]> {
        echo_request_sequence(&self.quoted)
    }

    /// What it means for the namespace, of a flow to `remote`; `None` if it does not concern the way.
    pub fn why(&self, remote: IpAddr) -> Option<Unreachable> {
        match self.icmp {
            Some(icmp) => Unreachable::from_icmp(Family::of(remote), icmp, self.mtu),
            None => Unreachable::from_errno(self.errno, self.mtu),
        }
    }
}
