//! Errors reported to the namespace: for datagrams that could not be sent, and for those for which an error came back.

use super::{
    Context, Datagram, DatagramFlow, DatagramSocket, Ends, Facts, HostEnd, Next, QueuedError,
    key_of,
};
use crate::flow::FlowKey;
use crate::flow::refuse::{from_network, offending, reporter};
use crate::link::icmp_error::{self, Reporter, Unreachable};
use crate::nat::{Nat, Protocol, Target};
use crate::part::part;
use crate::sockets::Sockets;
use crate::wire::ip::Handling;
use nix::errno::Errno;
use pasta_ipc::types::{Family, MacAddr};
use std::net::SocketAddr;

/// Errors of one socket before others have a turn; chosen: as many as datagrams. Whoever sends errors could go on for
/// ever.
pub const ERRORS_A_TURN: usize = 64;

impl<K: DatagramSocket> DatagramFlow<K> {
    /// Tells the namespace what the host socket's error queue holds, up to a bound.
    pub(super) fn report_errors<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        facts: &mut Facts,
    ) -> Next {
        let Ends::Outbound { path, host } = &mut self.ends else { return Next::Wait };
        let (key, mac) = (key_of(self.protocol, path), path.mac());
        // What is pending is the last of the queue, or the only one where there is no queue.
        let pending = host.socket.take_pending_error();
        let mut count = 0;
        let mut tell = |host: &HostEnd<K>, error: &QueuedError| {
            let Some(why) = error.why(key.remote.ip()) else { return };
            facts.target_failed |= !why.is_of_packet();
            let len = usize::from(self.last_len);
            let front = match key.protocol {
                Protocol::Echo => {
                    error.returned.echo_body(len, &key).unwrap_or(&host.last_sequence)
                }
                Protocol::Udp | Protocol::Tcp => error.returned.datagram(len, &key),
            };
            report(cx, (&key, mac), (why, error.offender), front, len);
        };
        while count < ERRORS_A_TURN {
            let Some(error) = host.socket.take_queued_error() else { break };
            count += 1;
            // What the host itself found too large was reported when it was sent.
            if !error.is_local_size() {
                tell(host, &error);
            }
        }
        if let Some(errno) = pending.filter(|it| count == 0 && *it != Errno::EMSGSIZE) {
            tell(host, &QueuedError::of(errno));
        }
        host.errors_left = count == ERRORS_A_TURN;
        if host.errors_left { Next::More } else { Next::Wait }
    }

    /// Goes on with the errors that were left.
    pub(super) fn report_left<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        facts: &mut Facts,
    ) -> Next {
        match &self.ends {
            Ends::Outbound { host, .. } if host.errors_left => self.report_errors(cx, facts),
            _ => Next::Wait,
        }
    }

    /// Tells the namespace of an error that came back for one of its datagrams, through the listener.
    pub(super) fn report_error<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        error: &QueuedError,
    ) -> Next {
        let (Ends::Mapped { path, .. } | Ends::Inbound { path, .. }) = &self.ends else {
            return Next::Wait;
        };
        let key = key_of(self.protocol, path);
        if let Some(why) = error.why(key.remote.ip()).filter(|_| !error.is_local_size()) {
            let len = usize::from(self.last_len);
            let front = error.returned.datagram(len, &key);
            report(cx, (&key, path.mac()), (why, error.offender), front, len);
        }
        Next::Wait
    }
}

/// Reports an error to the sender at `mac`, for a datagram with a payload of `len` octets, of which `front` is known.
fn report<S: Sockets>(
    cx: &mut Context<'_, S>,
    (key, mac): (&FlowKey, MacAddr),
    (why, offender): (Unreachable, Option<Reporter>),
    front: &[u8],
    len: usize,
) {
    let offender = from_network(cx.sockets, offender);
    let reporter = reporter(cx.nat, key, why, offender);
    icmp_error::send(&mut cx.tap, mac, reporter, &offending(key, front, len), why);
}

/// Reports to the sender at `mac` that a datagram of a flow was not sent to `target`, of whose way this is the MTU;
/// `false` if the error does not concern the way.
pub(super) fn report_unsent<S: Sockets>(
    cx: &mut Context<'_, S>,
    (key, mac): (&FlowKey, MacAddr),
    datagram: &Datagram<'_>,
    (errno, target, mtu): (Errno, SocketAddr, u32),
) -> bool {
    let target = Family::of(target.ip().to_canonical());
    let why = Unreachable::from_errno(errno, mtu);
    let is_across = target != Family::of(key.remote.ip());
    let why = if is_across { why.and_then(|why| why.across(target)) } else { why };
    let Some(why) = why else { return false };
    // Of several the first.
    let payload = datagram.payload;
    let first = part(payload, ..datagram.size().min(payload.len()));
    report(cx, (key, mac), (why, None), first, first.len());
    true
}

/// The MTU of the way to the peer of a flow that goes through a socket without one; zero where it is not known. Such a
/// socket cannot be asked, and for IPv4 its queue does not say which port the datagram was for.
pub(super) fn mtu_to<S: Sockets>(
    sockets: &mut S,
    nat: &Nat,
    key: &FlowKey,
    peer: SocketAddr,
) -> u32 {
    let interface = nat.outbound(key.protocol, key.remote).ok().and_then(|it| it.interface);
    let address = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let target = Target { address, source: None, interface };
    let opened = sockets.open(Protocol::Udp, &target, None, Handling::DEFAULT);
    opened.map_or(0, |connecting| connecting.socket.path_mtu(address.ip()))
}
