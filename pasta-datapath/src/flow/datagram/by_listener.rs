//! Flows that go through a socket of many: what arrives there, what the namespace sends through it, and errors.
//!
//! An error of one datagram is pending for the next call on the socket, whosever that is: the call is made again, and
//! what sending itself cannot come to is never believed. Each flow learns of its own from the socket's queue.

use super::errors::{mtu_to, report_unsent};
use super::{
    Context, Datagram, DatagramFlow, DatagramSocket, Ends, Facts, Next, NotSent, ReadDatagrams,
    Sender, key_of, largest, write_to_tap,
};
use crate::counters::DropReason;
use crate::port_forward::listeners::{ListenSocket, Way};
use crate::sockets::Sockets;
use crate::wire::udp;
use nix::errno::Errno;
use std::io::IoSlice;

/// How often a datagram is sent while errors that others have earned come in between; chosen: who sends these all the
/// time must not cost much.
const TRIES: usize = 4;

/// Sends, again if the error is one that a datagram to somebody else may have earned.
fn send_from<K: ListenSocket>(
    socket: &K,
    way: &Way,
    slices: &[IoSlice<'_>],
    size: Option<u16>,
) -> Result<(), Errno> {
    let mut sent = Ok(());
    for _ in 0..TRIES {
        sent = socket.send_from(way, slices, size);
        match sent {
            Err(Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {}
            Err(errno) if is_earned(errno) => {}
            other => return other,
        }
    }
    match sent {
        // As full as a socket can be.
        Err(errno) if is_earned(errno) => Err(Errno::EAGAIN),
        other => other,
    }
}

/// Whether a socket without a peer comes to this error only by an ICMP error (`icmp_err_convert`, net/ipv4/icmp.c;
/// `icmpv6_err_convert()`, net/ipv6/icmp.c).
fn is_earned(errno: Errno) -> bool {
    let earned =
        [Errno::ECONNREFUSED, Errno::EPROTO, Errno::ENOPROTOOPT, Errno::EHOSTDOWN, Errno::ENONET];
    earned.contains(&errno)
}

impl<K: DatagramSocket> DatagramFlow<K> {
    /// Sends what the namespace sends, through the listener.
    pub(super) fn send_by_listener<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        Sender { mac, handling }: Sender,
        group: &[Datagram<'_>],
    ) -> Next
    where
        K: ListenSocket,
    {
        let is_outbound = self.is_outbound();
        self.note_last(group);
        let Self { ends, lifetime, gso, protocol, .. } = self;
        let (listener, interface, path) = match ends {
            Ends::Mapped { listener, interface, path } => (listener, *interface, path),
            Ends::Inbound { listener, path } => (listener, None, path),
            Ends::Outbound { .. } | Ends::Local { .. } => return Next::Wait,
        };
        let Some(socket) = cx.listeners.socket(listener.id) else {
            group.iter().for_each(|_| cx.tap.counters.drop(DropReason::NoFlow));
            return Next::Over;
        };
        for Datagram { payload, segment_size } in group {
            if is_outbound {
                lifetime.query(payload, *segment_size);
            } else {
                lifetime.answer(payload, *segment_size);
            }
        }
        if is_outbound {
            lifetime.sent(cx.now);
        } else {
            lifetime.answered(cx.now);
        }
        path.set_mac(mac);
        let peer = listener.addresses.peer.ip();
        cx.listeners.prepare_to_send(listener.id, peer, handling, udp::LEN + largest(group));
        let way = Way { addresses: listener.addresses, interface, handling };
        let send = |slices: &[IoSlice<'_>], size| send_from(socket, &way, slices, size);
        let mut next = Next::Wait;
        let key = key_of(*protocol, path);
        gso.send(group, send, |datagram, why| {
            cx.tap.counters.drop(why.reason());
            let NotSent::Refused(errno) = why else { return };
            // Its interface has gone, and may come back with another number: the next datagram opens it anew.
            if errno == Errno::ENODEV && interface.is_some() {
                next = Next::Over;
            }
            let mtu = match errno {
                Errno::EMSGSIZE => mtu_to(cx.sockets, cx.nat, &key, way.addresses.peer),
                _ => 0,
            };
            report_unsent(cx, (&key, mac), datagram, (errno, way.addresses.peer, mtu));
        });
        next
    }

    /// Carries on what came to the listener.
    pub(super) fn arrived<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        facts: &mut Facts,
        read: ReadDatagrams,
        octets: &[u8],
    ) -> Next {
        if self.is_outbound() {
            facts.answered = self.asks_for_names();
            self.lifetime.answer(octets, read.segment_size);
            self.lifetime.answered(cx.now);
        } else {
            self.lifetime.query(octets, read.segment_size);
            self.lifetime.sent(cx.now);
        }
        match &mut self.ends {
            Ends::Outbound { path, .. }
            | Ends::Mapped { path, .. }
            | Ends::Inbound { path, .. } => {
                write_to_tap(&mut cx.tap, path, cx.mtu, read, octets);
            }
            Ends::Local { end, .. } => {
                let arrived = (read, octets);
                if end.send(cx, &mut self.gso, facts, arrived).is_err() {
                    return Next::Over;
                }
            }
        }
        Next::Wait
    }
}
