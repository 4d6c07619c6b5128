//! What the namespace gets when there is no way for a new flow, or no longer one: a reset, an ICMP error, or
//! silence, as natively as the protocol allows.

use super::FlowKey;
use super::tcp::connection::reset_for;
use crate::counters::DropReason;
use crate::link::classify::is_impossible;
use crate::link::icmp_error::{self, Offending, QUOTED_TRANSPORT, Reporter, Unreachable};
use crate::link::writer::{self, FrameDevice, FrameWriter, Path, icmp_protocol};
use crate::nat::{Denied, Nat, Protocol};
use crate::part::part;
use crate::sockets::Sockets;
use crate::wire::icmp::{ECHO_HEAD, echo_request_head_of};
use crate::wire::tcp::{Header, LEN as TCP_LEN, ToSend};
use crate::wire::udp;
use crate::wire::window::Mss;
use nix::errno::Errno;
use pasta_ipc::types::MacAddr;
use std::net::IpAddr;

/// Why a flow has no socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSocket {
    /// There is no way there; the namespace gets an ICMP error.
    Unreachable(Unreachable),
    /// The destination itself refused.
    Refused,
    /// Nobody answered: the namespace has a time-out of its own.
    Silent,
    /// Descriptors or memory have run out.
    Exhausted,
}

impl From<Errno> for NoSocket {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ECONNREFUSED | Errno::ECONNRESET => Self::Refused,
            Errno::ETIMEDOUT => Self::Silent,
            errno => match Unreachable::from_errno(errno, 0) {
                Some(why) => Self::Unreachable(why),
                None => Self::Exhausted,
            },
        }
    }
}

impl From<Denied> for NoSocket {
    fn from(denied: Denied) -> Self {
        Self::Unreachable(match denied {
            Denied::FamilyOff | Denied::Destination => Unreachable::Prohibited,
            Denied::NothingMapped => Unreachable::Host,
        })
    }
}

/// Answers a segment for which there is no flow.
pub fn send_reset<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    mac: MacAddr,
    key: &FlowKey,
    reset: &ToSend,
) {
    let path = Path::new(tap.our_mac, mac, writer::TCP, key.remote, key.namespace);
    tap.write_tcp(&path, reset, Mss::MAX, &[]);
}

/// Tells the sender of a SYN why there is no connection, and who says so, if it is known.
pub fn refuse_syn<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    nat: &Nat,
    mac: MacAddr,
    key: &FlowKey,
    syn: &Header,
    (why, offender): (NoSocket, Option<Reporter>),
) -> DropReason {
    match why {
        NoSocket::Silent => DropReason::Unreachable,
        NoSocket::Refused | NoSocket::Exhausted => {
            if let Some(reset) = reset_for(syn, 0) {
                send_reset(tap, mac, key, &reset);
            }
            match why {
                NoSocket::Refused => DropReason::Unreachable,
                _ => DropReason::NoSocket,
            }
        }
        NoSocket::Unreachable(why) => {
            let [s0, s1] = syn.source.to_be_bytes();
            let [d0, d1] = syn.destination.to_be_bytes();
            let [q0, q1, q2, q3] = u32::from(syn.seq).to_be_bytes();
            let transport = [s0, s1, d0, d1, q0, q1, q2, q3];
            let offending = Offending {
                source: key.namespace,
                destination: key.remote,
                protocol: writer::TCP,
                transport,
                transport_len: TCP_LEN as u16,
                payload: &[],
            };
            let reporter = reporter(nat, key, why, offender);
            icmp_error::send(tap, mac, reporter, &offending, why);
            DropReason::Unreachable
        }
    }
}

/// Tells the sender of a datagram, or of an echo request, with `payload` why there is no socket for it.
pub fn refuse_datagram<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    nat: &Nat,
    mac: MacAddr,
    key: &FlowKey,
    payload: &[u8],
    why: NoSocket,
) -> DropReason {
    let (error, reason) = match (why, key.protocol) {
        (NoSocket::Unreachable(why), _) => (why, DropReason::Unreachable),
        (NoSocket::Exhausted, Protocol::Udp) => (Unreachable::Host, DropReason::NoSocket),
        _ => return DropReason::NoSocket,
    };
    let reporter = reporter(nat, key, error, None);
    let offending = offending(key, payload, payload.len());
    icmp_error::send(tap, mac, reporter, &offending, error);
    reason
}

/// A datagram with a payload of `len` octets, of which `front` is known, for an error to quote; of an echo request,
/// the payload begins with the sequence number. The checksum is there if `front` is all of it.
pub fn offending<'a>(key: &FlowKey, front: &'a [u8], len: usize) -> Offending<'a> {
    let (source, destination) = (key.namespace, key.remote);
    let (front, is_whole) = (part(front, ..len.min(front.len())), front.len() >= len);
    match key.protocol {
        Protocol::Echo => {
            let (sequence, payload) = front.split_first_chunk().unwrap_or((&[0; 2], &[]));
            let [kind, code, c0, c1, i0, i1] =
                echo_request_head_of(source, destination.ip(), front);
            let ([c0, c1], [s0, s1]) = (if is_whole { [c0, c1] } else { [0; 2] }, *sequence);
            let transport: [u8; QUOTED_TRANSPORT] = [kind, code, c0, c1, i0, i1, s0, s1];
            let protocol = icmp_protocol(destination.ip());
            let transport_len = u16::try_from(ECHO_HEAD + len.max(2)).unwrap_or(u16::MAX);
            Offending { source, destination, protocol, transport, transport_len, payload }
        }
        Protocol::Udp | Protocol::Tcp => {
            let checksum = if is_whole { udp::checksum(source, destination, front) } else { 0 };
            let header =
                udp::Header { source: source.port(), destination: destination.port(), checksum };
            let len = u16::try_from(len).unwrap_or(u16::MAX);
            let transport = udp::header(&header, len);
            let transport_len = len.saturating_add(udp::LEN as u16);
            let protocol = writer::UDP;
            Offending { source, destination, protocol, transport, transport_len, payload: front }
        }
    }
}

/// Sends an ICMP error of our own making.
pub fn send_error<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    nat: &Nat,
    mac: MacAddr,
    offending: &Offending<'_>,
    why: Unreachable,
) {
    let reporter = ours(nat, offending.destination.ip());
    icmp_error::send(tap, mac, reporter, offending, why);
}

fn ours(nat: &Nat, remote: IpAddr) -> Reporter {
    Reporter::near(nat.our_address(remote).unwrap_or(remote))
}

/// Who has reported an error, if that is not this host, whose addresses are not the namespace's to know.
pub fn from_network<S: Sockets>(sockets: &mut S, offender: Option<Reporter>) -> Option<Reporter> {
    offender.filter(|it| !sockets.has_address(it.address))
}

/// From whom an error comes, as the namespace sees it: who has reported it; else we. What the destination does not take
/// comes from itself, whatever stands for it, but for what a firewall on the way says in its place.
pub fn reporter(
    nat: &Nat,
    key: &FlowKey,
    why: Unreachable,
    offender: Option<Reporter>,
) -> Reporter {
    let remote = key.remote.ip();
    let target = nat.outbound(key.protocol, key.remote).map(|target| target.address.ip());
    let is_target = |address| target.is_ok_and(|target| target.to_canonical() == address);
    let is_foreign = |Reporter { address, .. }: &Reporter| {
        // The namespace's own would be itself to it.
        address.is_ipv4() == remote.is_ipv4()
            && !is_impossible(*address)
            && !nat.is_of_namespace(*address)
    };
    let (is_refused, foreign) =
        (matches!(why, Unreachable::Port | Unreachable::Protocol), offender.filter(is_foreign));
    match (offender, foreign) {
        (Some(offender), _) if is_target(offender.address) => {
            Reporter { address: remote, ..offender }
        }
        (_, Some(foreign)) => foreign,
        (_, None) if is_refused => Reporter::near(remote),
        (_, None) => ours(nat, remote),
    }
}
