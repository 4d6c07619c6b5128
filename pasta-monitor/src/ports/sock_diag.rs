#![forbid(unsafe_code)]
//! Requests for the kernel's list of sockets, and its answers (`linux/inet_diag.h`, sock_diag(7)).
//!
//! Of each socket we use five fields of fixed place and one attribute, so they are read where they are: with
//! thousands of listeners, nothing is allocated for any of them.

use pasta_ipc::types::{Family, Transport};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of a request: the netlink header, and `struct inet_diag_req_v2`.
pub const REQUEST_LEN: usize = HEADER_LEN + 56;

/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;

/// `SOCK_DIAG_BY_FAMILY` (`linux/sock_diag.h`).
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR` (`linux/netlink.h`).
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x1 | 0x300;

/// States as `include/net/tcp_states.h` counts them; a UDP socket that is not connected is closed.
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// Octets of `struct inet_diag_msg`, behind which come attributes.
const DIAG_LEN: usize = 72;
/// `INET_DIAG_SKV6ONLY`, which the kernel says of each IPv6 socket that listens or is closed.
const V6_ONLY: u16 = 11;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// A socket that waits for others to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The address it is bound to.
    pub address: IpAddr,
    /// Its port; 0 if it has none.
    pub port: u16,
    /// The number of the link it is bound to, or 0.
    pub device: u32,
    /// Whether it takes IPv6 only (`IPV6_V6ONLY`), if it is of IPv6.
    pub v6_only: bool,
}

impl Listening {
    /// The families of those who reach it.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let is_v6 = self.address.to_canonical().is_ipv6();
        let takes_both = is_v6 && self.address.is_unspecified() && !self.v6_only;
        Family::BOTH
            .into_iter()
            .filter(move |family| takes_both || (*family == Family::V6) == is_v6)
    }
}

/// A part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One socket.
    Socket(Listening),
    /// There are no more.
    Done,
    /// The kernel says no, with this errno.
    Refused(i32),
}

/// What came is no answer of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed answer about sockets")
    }
}

impl std::error::Error for Malformed {}

/// Asks for all sockets of `family` and `transport` that wait for others; the answers carry `sequence`.
pub fn request(family: Family, transport: Transport, sequence: u32) -> [u8; REQUEST_LEN] {
    let family = match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    let (protocol, state) = match transport {
        Transport::Tcp => (IPPROTO_TCP, LISTEN),
        Transport::Udp => (IPPROTO_UDP, CLOSE),
    };
    let [l0, l1, l2, l3] = (REQUEST_LEN as u32).to_ne_bytes();
    let ([t0, t1], [f0, f1]) = (BY_FAMILY.to_ne_bytes(), DUMP.to_ne_bytes());
    let [s0, s1, s2, s3] = sequence.to_ne_bytes();
    let [m0, m1, m2, m3] = (1_u32 << state).to_ne_bytes();
    let head = [
        l0, l1, l2, l3, t0, t1, f0, f1, s0, s1, s2, s3, 0, 0, 0,
        0, // header; the kernel is port 0
        family, protocol, 0, 0, m0, m1, m2, m3, // no attributes; which states
    ];
    // The rest would name one socket: all zero, any.
    let mut octets = [0; REQUEST_LEN];
    for (to, from) in octets.iter_mut().zip(head) {
        *to = from;
    }
    octets
}

/// The parts of one datagram, in order; those that answer another request than `sequence` are left out.
/// Ends after the first that cannot be read.
pub fn parts(octets: &[u8], sequence: u32) -> impl Iterator<Item = Result<Part, Malformed>> + '_ {
    let mut rest = octets;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let read = split_message(rest).and_then(|(message, after)| {
                rest = after;
                if message.sequence != sequence {
                    return Ok(None);
                }
                part(message.kind, message.payload).map(Some)
            });
            if read.is_err() {
                rest = &[];
            }
            if let Some(part) = read.transpose() {
                return Some(part);
            }
        }
        None
    })
}

/// A netlink message.
struct Message<'a> {
    kind: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// Takes one message off the front.
fn split_message(octets: &[u8]) -> Result<(Message<'_>, &[u8]), Malformed> {
    let header: &[u8; HEADER_LEN] = octets.first_chunk().ok_or(Malformed)?;
    let &[l0, l1, l2, l3, t0, t1, _, _, s0, s1, s2, s3, _, _, _, _] = header;
    let len = u32::from_ne_bytes([l0, l1, l2, l3]);
    let len = usize::try_from(len).map_err(|_| Malformed)?;
    let (message, _) = octets.split_at_checked(len).ok_or(Malformed)?;
    let payload = message.get(HEADER_LEN..).ok_or(Malformed)?;
    // The next one is aligned; the last may end before that.
    let after = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
    let kind = u16::from_ne_bytes([t0, t1]);
    let sequence = u32::from_ne_bytes([s0, s1, s2, s3]);
    Ok((Message { kind, sequence, payload }, after))
}

fn part(kind: u16, payload: &[u8]) -> Result<Part, Malformed> {
    match kind {
        BY_FAMILY => socket(payload).map(Part::Socket),
        DONE | ERROR => {
            // How the dump went: nothing, or an errno with its sign turned.
            let result = payload.first_chunk().copied().map_or(0, i32::from_ne_bytes);
            Ok(if result == 0 { Part::Done } else { Part::Refused(result.saturating_neg()) })
        }
        _ => Err(Malformed),
    }
}

/// Reads a `struct inet_diag_msg`, less what we have no use for at its end, and the attribute that matters.
fn socket(payload: &[u8]) -> Result<Listening, Malformed> {
    let (&[family, _, _, _, p0, p1, _, _], rest) = payload.split_first_chunk().ok_or(Malformed)?;
    let (source, rest): (&[u8; 16], _) = rest.split_first_chunk().ok_or(Malformed)?;
    let (_, rest): (&[u8; 16], _) = rest.split_first_chunk().ok_or(Malformed)?;
    let device = rest.first_chunk().copied().ok_or(Malformed)?;
    let address = match family {
        AF_INET => {
            let [a, b, c, d, ..] = *source;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(*source)),
        _ => return Err(Malformed),
    };
    let port = u16::from_be_bytes([p0, p1]);
    let attributes = payload.get(DIAG_LEN..).unwrap_or_default();
    let v6_only = attribute(attributes, V6_ONLY).is_some_and(|value| value.first() == Some(&1));
    Ok(Listening { address, port, device: u32::from_ne_bytes(device), v6_only })
}

/// The value of the first attribute of `kind` (`struct nlattr`); none if it is not there, or one in front of it is
/// cut short.
fn attribute(octets: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = octets;
    loop {
        let &[l0, l1, k0, k1] = rest.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..len)?;
        if u16::from_ne_bytes([k0, k1]) == kind {
            return Some(value);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
pub(super) mod tests;
