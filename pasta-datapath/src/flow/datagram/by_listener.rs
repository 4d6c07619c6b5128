//! Flows that go through a socket of many: what arrives there, what the namespace sends through it, and errors.
//!
//! An error of one datagram is pending for the next call on the socket, whosever that is: the call is made once more
//! before its error is believed. Each flow learns of its own from the socket's queue.

use super::{
    Context, Datagram, DatagramFlow, DatagramSocket, Ends, Facts, Next, NotSent, QueuedError,
    ReadDatagrams, Sender, key_of, largest, offending, reporter, write_to_tap,
};
use crate::counters::DropReason;
use crate::link::icmp_error::{self, Unreachable};
use crate::port_forward::listeners::{ListenSocket, Way};
use crate::sockets::Sockets;
use crate::wire::udp;
use nix::errno::Errno;
use std::io::IoSlice;

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
        let largest = largest(group);
        self.last_len = u16::try_from(largest).unwrap_or(u16::MAX);
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
        cx.listeners.prepare_to_send(listener.id, peer, handling, udp::LEN + largest);
        let way = Way { addresses: listener.addresses, interface, handling };
        let send = |slices: &[IoSlice<'_>], size| socket.send_from(&way, slices, size);
        let mut next = Next::Wait;
        let key = key_of(*protocol, path);
        gso.send(group, send, |datagram, why| {
            cx.tap.counters.drop(why.reason());
            // What is too large is in the socket's queue, with the MTU.
            let NotSent::Refused(errno) = why else { return };
            // Its interface has gone, and may come back with another number: the next datagram opens it anew.
            if errno == Errno::ENODEV && interface.is_some() {
                next = Next::Over;
            }
            if let Some(why) = Unreachable::from_errno(errno, 0) {
                let reporter = reporter(cx.nat, key.remote.ip(), why, None);
                let offending = offending(&key, datagram.payload, datagram.payload.len());
                icmp_error::send(&mut cx.tap, mac, reporter, &offending, why);
            }
        });
        next
    }

    /// Tells the namespace of an error that came back for one of its datagrams.
    pub(super) fn report_error<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        error: &QueuedError,
    ) -> Next {
        let (Ends::Mapped { path, .. } | Ends::Inbound { path, .. }) = &self.ends else {
            return Next::Wait;
        };
        let key = key_of(self.protocol, path);
        if let Some(why) = error.why(key.remote.ip()) {
            let reporter = reporter(cx.nat, key.remote.ip(), why, error.offender);
            let offending = offending(&key, error.returned.octets(), self.last_len.into());
            icmp_error::send(&mut cx.tap, path.mac(), reporter, &offending, why);
        }
        Next::Wait
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
