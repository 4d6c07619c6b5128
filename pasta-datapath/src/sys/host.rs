//! The host's kernel behind the stack.

use super::pipe::Pipe;
use super::socket::{PeekMethod, TcpSocket, open, probe_peek};
use super::tap::Tap;
use super::{epoll::Poller, listen_socket, pktinfo, send_option, socket};
use crate::flow::datagram::send_options::SendOption;
use crate::flow::datagram::{DatagramSocket, QueuedError, ReadDatagrams};
use crate::flow::splice::StreamSocket;
use crate::flow::{FlowId, FlowKey};
use crate::nat::{Protocol, Target};
use crate::port_forward::listeners::{DatagramAddresses, ListenSocket, Way};
use crate::sockets::{Connecting, Interest, Progress, Sockets};
use crate::token::Token;
use crate::wire::ip::Handling;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockaddrStorage, bind, connect, recv, send, setsockopt,
    shutdown, sockopt,
};
use pasta_ipc::socket::{FreeBind, ListenerAddress, SocketFamily, SocketKind};
use pasta_ipc::types::{IfName, Transport};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The kernel's sockets, and what waits for them.
#[derive(Debug)]
pub struct HostSockets {
    poller: Poller,
    /// By family, IPv4 first.
    peek: (PeekMethod, PeekMethod),
    /// Secret of initial sequence numbers.
    isn_key: RandomState,
    /// Whether sockets may be bound to addresses that the host does not have.
    free_bind: FreeBind,
}

impl HostSockets {
    /// Sockets that `poller` waits for.
    pub fn new(poller: Poller, free_bind: FreeBind) -> Self {
        let peek = (probe_peek(AddressFamily::Inet), probe_peek(AddressFamily::Inet6));
        Self { poller, peek, isn_key: RandomState::new(), free_bind }
    }

    /// What waits for them.
    pub fn poller(&mut self) -> &mut Poller {
        &mut self.poller
    }
}

fn to_errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

impl Sockets for HostSockets {
    type Socket = OwnedFd;
    type Tcp = TcpSocket;
    type Pipe = Pipe;
    type Tap = Tap;

    fn open(
        &mut self,
        protocol: Protocol,
        target: &Target,
        port: Option<u16>,
        handling: Handling,
    ) -> Result<Connecting<OwnedFd>, Errno> {
        open(protocol, target, port, (handling, self.free_bind))
    }

    fn connect(
        &mut self,
        socket: &OwnedFd,
        transport: Transport,
        destination: SocketAddr,
        port: u16,
    ) -> Result<Progress, Errno> {
        match transport {
            // Where it fails small messages are slower, no more.
            Transport::Tcp => {
                let _ = setsockopt(socket, sockopt::TcpNoDelay, &true);
            }
            Transport::Udp => {
                let any: IpAddr = match destination {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                // The port is a preference: it may be taken, or be one that takes a right to bind.
                let from = SockaddrStorage::from(SocketAddr::new(any, port));
                let _ = bind(socket.as_raw_fd(), &from);
                // Without it every datagram is read by itself.
                let _ = super::set_udp_gro(socket);
            }
        }
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(destination)) {
            Ok(()) => Ok(Progress::Connected),
            Err(Errno::EINPROGRESS) => Ok(Progress::Connecting),
            Err(errno) => Err(errno),
        }
    }

    fn unconnect(&mut self, socket: &OwnedFd, token: Token) -> Result<(), Errno> {
        socket::unconnect(socket)?;
        let watched = self.poller.watch_reading(socket.as_fd(), token.into());
        watched.map_err(|error| to_errno(&error))
    }

    fn has_address(&mut self, address: IpAddr) -> bool {
        socket::has_address(SocketAddr::new(address, 0))
    }

    fn interface_index(&mut self, interface: &IfName) -> Option<NonZeroU32> {
        socket::interface_index(interface)
    }

    fn tcp(&mut self, socket: OwnedFd, peer: SocketAddr) -> TcpSocket {
        let method = if peer.is_ipv4() { self.peek.0 } else { self.peek.1 };
        TcpSocket::new(socket, method)
    }

    fn listen(&mut self, at: &ListenerAddress, families: SocketFamily) -> Result<OwnedFd, Errno> {
        at.open(families, self.free_bind)
    }

    fn prepare_listener(&mut self, socket: &OwnedFd, transport: Transport) -> Result<(), Errno> {
        listen_socket::prepare(socket, transport)
    }

    fn is_of(&self, socket: &OwnedFd, kind: SocketKind) -> bool {
        listen_socket::is_of(socket, kind)
    }

    fn watch(&mut self, socket: &OwnedFd, token: Token, interest: Interest) -> Result<(), Errno> {
        let added = match interest {
            Interest::Stream => self.poller.add(socket.as_fd(), token.into()),
            Interest::Reading => self.poller.add_reading(socket.as_fd(), token.into()),
        };
        added.map_err(|error| to_errno(&error))
    }

    fn isn_offset(&self, key: &FlowKey) -> u32 {
        // Half of the hash is enough.
        self.isn_key.hash_one(key) as u32
    }

    fn rearm(&mut self, socket: &TcpSocket, flow: FlowId) -> Result<(), Errno> {
        self.poller.rearm(socket.as_fd(), flow.as_token()).map_err(|error| to_errno(&error))
    }
}

impl DatagramSocket for OwnedFd {
    fn send(&self, slices: &[IoSlice<'_>], segment_size: Option<u16>) -> Result<(), Errno> {
        socket::send_datagrams(self.as_fd(), slices, segment_size)
    }

    fn receive(&self, peer: SocketAddr, buffer: &mut [u8]) -> Result<ReadDatagrams, Errno> {
        socket::receive_datagrams(self.as_fd(), peer, buffer)
    }

    fn discard_early(&self) -> Result<u64, Errno> {
        socket::discard_early(self.as_fd())
    }

    fn take_pending_error(&self) -> Option<Errno> {
        socket::take_error(self.as_fd())
    }

    fn take_queued_error(&self) -> Option<QueuedError> {
        socket::take_queued_error(self.as_fd())
    }

    fn set_send_option(&self, remote: IpAddr, option: SendOption) {
        // Where it fails the datagram leaves as the one before.
        let _ = send_option::set(self, remote, option);
    }

    fn path_mtu(&self, remote: IpAddr) -> u32 {
        super::path_mtu(self, remote)
    }

    fn has_its_address(&self) -> bool {
        socket::has_its_address(self.as_fd())
    }
}

impl StreamSocket for OwnedFd {
    fn carried(&self) -> Option<[u64; 2]> {
        Some(super::raw::carried(self))
    }

    fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        retry(|| recv(self.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT))
    }

    fn write(&self, octets: &[u8]) -> Result<usize, Errno> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        retry(|| send(self.as_raw_fd(), octets, flags))
    }

    fn shut_down_write(&self) {
        // Fails only where the connection is gone, which shows as its error.
        let _ = shutdown(self.as_raw_fd(), Shutdown::Write);
    }

    fn take_error(&self) -> Option<Errno> {
        socket::take_error(self.as_fd())
    }

    fn reset_on_close(&self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // Where it fails the peer sees an ordinary end, which is all that is left to do.
        let _ = setsockopt(self, sockopt::Linger, &linger);
    }

    fn local_address(&self) -> Option<SocketAddr> {
        super::local_address(self).ok()
    }
}

impl ListenSocket for OwnedFd {
    fn accept(&self) -> io::Result<(Self, SocketAddr)> {
        super::accept(self)
    }

    fn receive_from(&self, buffer: &mut [u8]) -> Result<(ReadDatagrams, DatagramAddresses), Errno> {
        pktinfo::receive_from(self.as_fd(), buffer)
    }

    fn send_from(
        &self,
        way: &Way,
        slices: &[IoSlice<'_>],
        segment_size: Option<u16>,
    ) -> Result<(), Errno> {
        pktinfo::send_from(self.as_fd(), way, slices, segment_size)
    }

    fn take_error_of(&self) -> Option<(QueuedError, Option<SocketAddr>)> {
        socket::take_error_of(self.as_fd())
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}
