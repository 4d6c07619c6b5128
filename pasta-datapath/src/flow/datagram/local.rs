//! The end of a flow at a socket on the other side, joined to the listener without frames.
//!
//! `localhost` is two addresses, and a service may have one of them. Where nobody listens at the one, the other is
//! tried: as long as nothing has come back, a datagram that was refused is sent there once, and the next one goes
//! where the last attempt went. A refusal on the same host shows as soon as the datagram was sent.

use super::{Datagram, DatagramSocket, Gso, MAX_WAITING, NotSent, ReadDatagrams};
use crate::counters::DropReason;
use crate::flow::{Context, Facts, Side, TargetSocket};
use crate::nat::{Protocol, Target};
use crate::sockets::{Interest, Sockets};
use crate::token::Token;
use crate::wire::ip::Handling;
use pasta_ipc::types::Transport;
use std::io::IoSlice;
use std::net::SocketAddr;

/// Octets that are kept of what was sent and may be refused later; chosen: a question, and no large part of what
/// waits.
const MAX_KEPT: usize = 4096;

/// Where the other end of a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the namespace: its sockets come from the monitor.
    Namespace,
    /// On the host.
    Host,
}

/// The end of a flow at a socket on the other side.
#[derive(Debug)]
pub struct LocalEnd<K> {
    place: Place,
    destination: SocketAddr,
    /// What is tried where the destination refuses.
    otherwise: Option<SocketAddr>,
    /// The source port to try for.
    port: u16,
    /// None yet: it is wanted.
    socket: Option<K>,
    /// Datagrams, each with the size of its parts: all that wait for a socket, or the last one that may be refused.
    pending: Vec<(Vec<u8>, Option<u16>)>,
    /// Something has come back from the destination.
    proven: bool,
    /// What is pending went to both.
    retried: bool,
}

impl<K: DatagramSocket> LocalEnd<K> {
    /// An end at `destination`, for which a socket is wanted; `otherwise` is tried where that refuses. It is to have
    /// the source port `port` if that can be had.
    pub fn new(
        place: Place,
        destination: SocketAddr,
        otherwise: Option<SocketAddr>,
        port: u16,
    ) -> Self {
        let (socket, pending) = (None, Vec::new());
        let (proven, retried) = (false, false);
        Self { place, destination, otherwise, port, socket, pending, proven, retried }
    }

    /// On which side it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Where it leads.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// Where a socket of the namespace is wanted for.
    pub fn wanted_destination(&self) -> Option<SocketAddr> {
        let is_wanted = self.socket.is_none() && self.place == Place::Namespace;
        is_wanted.then_some(self.destination)
    }

    /// The socket, if there is one.
    pub fn socket(&self) -> Option<&K> {
        self.socket.as_ref()
    }

    /// Something has come back: what was sent has arrived.
    pub fn answered(&mut self) {
        self.proven = true;
        self.pending.clear();
    }

    /// Sends what came to the listener, or has it wait for a socket.
    pub fn send<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        gso: &mut Gso,
        facts: &mut Facts,
        (read, octets): (ReadDatagrams, &[u8]),
    ) -> Result<(), Gone> {
        let Some(socket) = &self.socket else {
            let held: usize = self.pending.iter().map(|(octets, _)| octets.len().max(256)).sum();
            if held + octets.len() > MAX_WAITING || read.truncated {
                cx.tap.counters.drop(DropReason::SocketFull);
            } else {
                self.pending.push((octets.to_vec(), read.segment_size));
            }
            return Ok(());
        };
        if read.truncated {
            cx.tap.counters.drop(DropReason::TooLarge);
            return Ok(());
        }
        let datagram = Datagram { payload: octets, segment_size: read.segment_size };
        send_group(cx, gso, socket, &[datagram]);
        if self.proven || self.otherwise.is_none() {
            return Ok(());
        }
        let is_refused = socket.take_pending_error().is_some();
        self.retried = false;
        self.pending.clear();
        if is_refused || octets.len() <= MAX_KEPT {
            self.pending.push((octets.to_vec(), read.segment_size));
        }
        if is_refused { self.refused(cx, gso, facts) } else { Ok(()) }
    }

    /// Takes the socket that was wanted, and sends what has waited for it.
    pub fn set_socket<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        gso: &mut Gso,
        facts: &mut Facts,
        given: TargetSocket<K>,
    ) -> Result<(), Gone> {
        if self.socket.is_some() {
            return Ok(());
        }
        let (socket, connected) = match given {
            TargetSocket::Host(connecting) => (connecting.socket, Ok(connecting.progress)),
            TargetSocket::Namespace(socket) => {
                let to = self.destination;
                let connected = cx.sockets.connect(&socket, Transport::Udp, to, self.port);
                (socket, connected)
            }
        };
        let token = Token::Flow(cx.id, Side::Target);
        let connected = connected.and_then(|_| socket.discard_early());
        match connected {
            Err(_) => return self.refused(cx, gso, facts),
            Ok(_) if cx.sockets.watch(&socket, token, Interest::Reading).is_err() => {
                return Err(self.give_up(cx));
            }
            Ok(early) => (0..early).for_each(|_| cx.tap.counters.drop(DropReason::NoFlow)),
        }
        let waiting = self.pending.iter();
        let datagrams: Vec<_> = waiting
            .map(|(octets, size)| Datagram { payload: octets, segment_size: *size })
            .collect();
        send_group(cx, gso, &socket, &datagrams);
        self.socket = Some(socket);
        if self.otherwise.is_none() {
            self.pending = Vec::new();
            return Ok(());
        }
        self.check(cx, gso, facts)
    }

    /// Wants a socket: of the namespace by `facts`, of the host at once.
    pub fn want<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        gso: &mut Gso,
        facts: &mut Facts,
    ) -> Result<(), Gone> {
        if self.place == Place::Namespace {
            facts.socket_wanted = true;
            return Ok(());
        }
        let target = Target { address: self.destination, source: None, interface: None };
        match cx.sockets.open(Protocol::Udp, &target, Some(self.port), Handling::DEFAULT) {
            Ok(connecting) => self.set_socket(cx, gso, facts, TargetSocket::Host(connecting)),
            Err(_) => self.refused(cx, gso, facts),
        }
    }

    /// Looks whether what was sent was refused.
    pub fn check<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        gso: &mut Gso,
        facts: &mut Facts,
    ) -> Result<(), Gone> {
        match self.socket.as_ref().and_then(DatagramSocket::take_pending_error) {
            Some(_) => self.refused(cx, gso, facts),
            None => Ok(()),
        }
    }

    /// The destination refuses: turns to the other one, if there is one that has not refused the same.
    fn refused<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        gso: &mut Gso,
        facts: &mut Facts,
    ) -> Result<(), Gone> {
        self.proven = false;
        let Some(otherwise) = self.otherwise.filter(|_| !self.retried) else {
            if self.socket.is_none() {
                return Err(self.give_up(cx));
            }
            // The next datagram may find somebody.
            self.pending.drain(..).for_each(|_| cx.tap.counters.drop(DropReason::Unreachable));
            return Ok(());
        };
        self.otherwise = Some(std::mem::replace(&mut self.destination, otherwise));
        (self.retried, self.socket) = (true, None);
        self.want(cx, gso, facts)
    }

    fn give_up<S: Sockets<Socket = K>>(&mut self, cx: &mut Context<'_, S>) -> Gone {
        self.pending.drain(..).for_each(|_| cx.tap.counters.drop(DropReason::NoSocket));
        Gone
    }
}

/// There is no socket for the other end, and there will be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Sends `group` over `socket`; that nobody listens there is not carried back, since the listener's peer cannot be
/// informed.
fn send_group<S: Sockets>(
    cx: &mut Context<'_, S>,
    gso: &mut Gso,
    socket: &S::Socket,
    group: &[Datagram<'_>],
) {
    let send = |slices: &[IoSlice<'_>], size| DatagramSocket::send(socket, slices, size);
    gso.send(group, send, |_, why: NotSent| cx.tap.counters.drop(why.reason()));
}
