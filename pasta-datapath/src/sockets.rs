#![forbid(unsafe_code)]
//! What the stack asks of the host's kernel, so that it runs without one: sockets, readiness and pipes.
//!
//! The traits of what is done with a socket are with the flows that do it: [`HostSocket`] for TCP,
//! [`DatagramSocket`] for UDP and echo, [`StreamSocket`] for splices, [`ListenSocket`] for listeners. Here is
//! how sockets come into being. The kernel's own are in [`crate::sys::host`].

use crate::flow::datagram::DatagramSocket;
use crate::flow::splice::StreamSocket;
use crate::flow::splice::pipes::Splicing;
use crate::flow::tcp::relay::HostSocket;
use crate::flow::{FlowId, FlowKey};
use crate::link::writer::FrameDevice;
use crate::nat::{Protocol, Target};
use crate::port_forward::listeners::ListenSocket;
use crate::token::Token;
use crate::wire::ip::Handling;
use nix::errno::Errno;
use pasta_ipc::socket::{ListenerAddress, SocketFamily, SocketKind};
use pasta_ipc::types::{IfName, Transport};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

/// A socket that has begun to connect.
#[derive(Debug)]
pub struct Connecting<K> {
    /// The socket.
    pub socket: K,
    /// Whether it is connected already.
    pub progress: Progress,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// An event will say how it ends.
    Connecting,
    /// It is there.
    Connected,
}

/// Which events a socket is watched for; both are edge-triggered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All that can happen to a stream.
    Stream,
    /// What can be read, and errors: every datagram that is sent would be an event otherwise.
    Reading,
}

/// The kernel behind the stack, or what stands for it.
pub trait Sockets: Debug {
    /// A socket of any kind; dropping it closes it.
    type Socket: DatagramSocket + StreamSocket + ListenSocket + Debug;
    /// A socket of a TCP flow, made of one of those.
    type Tcp: HostSocket + Debug;
    /// What octets of a splice go through.
    type Pipe: Splicing<Self::Socket> + Debug;
    /// The tap.
    type Tap: FrameDevice + Debug;

    /// Opens a socket of `protocol` and starts to connect it to `target`. `port` is the source port to
    /// try for: the namespace's own for UDP, the identifier for echo. A source address or interface that
    /// cannot be had fails the call: traffic never leaves by another way than asked for. The packet that opens a
    /// TCP connection is handled as `handling` says; where its hop limit is not the usual one, errors that come
    /// back are queued ([`HostSocket::take_queued_error`]).
    ///
    /// # Errors
    ///
    /// What the kernel says: as socket(2), bind(2) and connect(2).
    fn open(
        &mut self,
        protocol: Protocol,
        target: &Target,
        port: Option<u16>,
        handling: Handling,
    ) -> Result<Connecting<Self::Socket>, Errno>;

    /// Starts to connect a socket that the monitor has opened inside the namespace; `port` as for
    /// [`Sockets::open`].
    ///
    /// # Errors
    ///
    /// As connect(2).
    fn connect(
        &mut self,
        socket: &Self::Socket,
        transport: Transport,
        destination: SocketAddr,
        port: u16,
    ) -> Result<Progress, Errno>;

    /// Whether the host has `address`, so that sockets can send from it.
    fn has_address(&mut self, address: IpAddr) -> bool;

    /// Has a connected socket of IPv4 datagrams take what anybody sends to its port, and report it under `token`. What comes
    /// meanwhile is not lost.
    ///
    /// # Errors
    ///
    /// As connect(2), bind(2) and epoll_ctl(2); the socket is of no use then.
    fn unconnect(&mut self, socket: &Self::Socket, token: Token) -> Result<(), Errno>;

    /// The number that the host gives an interface; none if there is no such interface.
    fn interface_index(&mut self, interface: &IfName) -> Option<NonZeroU32>;

    /// Makes a connected or connecting socket one of a TCP flow.
    fn tcp(&mut self, socket: Self::Socket, peer: SocketAddr) -> Self::Tcp;

    /// Opens a listener of the host.
    ///
    /// # Errors
    ///
    /// As bind(2).
    fn listen(
        &mut self,
        at: &ListenerAddress,
        families: SocketFamily,
    ) -> Result<Self::Socket, Errno>;

    /// Sets what every listener has, whoever opened it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is no socket for `transport`, or may block.
    fn prepare_listener(
        &mut self,
        socket: &Self::Socket,
        transport: Transport,
    ) -> Result<(), Errno>;

    /// Whether a socket is what was asked for.
    fn is_of(&self, socket: &Self::Socket, kind: SocketKind) -> bool;

    /// Has what happens to `socket` reported under `token`, until it is closed.
    ///
    /// # Errors
    ///
    /// As epoll_ctl(2).
    fn watch(
        &mut self,
        socket: &Self::Socket,
        token: Token,
        interest: Interest,
    ) -> Result<(), Errno>;

    /// What an initial sequence number for `key` is counted from: unpredictable for others, and always the same
    /// for the same ends (RFC 6528, section 3).
    fn isn_offset(&self, key: &FlowKey) -> u32;

    /// Has what is ready now reported again, and an event sent when the send buffer of a socket that the
    /// kernel calls full has room.
    ///
    /// # Errors
    ///
    /// As epoll_ctl(2).
    fn rearm(&mut self, socket: &Self::Tcp, flow: FlowId) -> Result<(), Errno>;
}
