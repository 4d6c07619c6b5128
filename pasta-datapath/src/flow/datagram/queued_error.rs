//! Errors of datagrams, as sockets queue them (`IP_RECVERR`, ip(7)).

use crate::flow::FlowKey;
use crate::link::icmp_error::{QUOTED_PAYLOAD, QUOTED_TRANSPORT, Reporter, Unreachable};
use crate::part::part;
use crate::wire::icmp::{ECHO_HEAD, echo_request_body};
use crate::wire::ip::{IPV4_LEN, IPV6_LEN};
use crate::wire::udp;
use nix::errno::Errno;
use pasta_ipc::types::Family;
use std::net::IpAddr;

/// Most octets that are kept of what comes back: a header of ICMP, and what we quote behind it.
const MOST: usize = QUOTED_TRANSPORT + QUOTED_PAYLOAD;

/// Octets that a router sends back of a packet at least if it puts an extension behind (RFC 4884, section 5.1).
const PADDED: usize = 128;

/// An error that the network or the kernel reported for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedError {
    /// What sending would give.
    pub errno: Errno,
    /// Family, type and code of the ICMP or ICMPv6 error, if it came from the network: it says more.
    pub icmp: Option<(Family, u8, u8)>,
    /// The next hop's MTU, with `EMSGSIZE`, or the octet that the error points to.
    pub info: u32,
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

    /// Of an echo request whose sequence number and payload have `len` octets, these.
    pub fn echo_body(&self, len: usize, key: &FlowKey) -> Option<&[u8]> {
        let body = echo_request_body(self.octets())?;
        Some(certain(body, len, header_len(key) + ECHO_HEAD))
    }

    /// Of a datagram of a flow whose payload has `len` octets, that.
    pub fn datagram(&self, len: usize, key: &FlowKey) -> &[u8] {
        certain(self.octets(), len, header_len(key) + udp::LEN)
    }
}

fn header_len(key: &FlowKey) -> usize {
    if key.remote.is_ipv4() { IPV4_LEN } else { IPV6_LEN }
}

/// What of `octets` is certainly of `len` that stood behind so many octets of headers. Where there are more, the router
/// has padded the front of the packet to 128 octets and put an extension behind (RFC 4884, section 5.1), or has answered
/// another packet.
fn certain(octets: &[u8], len: usize, headers: usize) -> &[u8] {
    let most = if octets.len() > len { len.min(PADDED - headers) } else { octets.len() };
    part(octets, ..most)
}

impl QueuedError {
    /// An error of which only this is known.
    pub fn of(errno: Errno) -> Self {
        Self { errno, icmp: None, info: 0, offender: None, returned: Returned::default() }
    }

    /// What it means for the namespace, of a flow to `remote`; `None` if it does not concern the way.
    pub fn why(&self, remote: IpAddr) -> Option<Unreachable> {
        let Some((family, kind, code)) = self.icmp else {
            return Unreachable::from_errno(self.errno, self.info);
        };
        let why = Unreachable::from_icmp(family, (kind, code), self.info)?;
        if family == Family::of(remote) { Some(why) } else { why.across(family) }
    }

    /// Whether the host itself found a datagram too large for its way, which sending has said already.
    pub fn is_local_size(&self) -> bool {
        self.errno == Errno::EMSGSIZE && self.icmp.is_none()
    }
}
