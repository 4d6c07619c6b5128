//! Host sockets: made for a target, read and written without ever blocking.

use crate::flow::datagram::ReadDatagrams;
use crate::flow::datagram::queued_error::{QueuedError, Returned};
use crate::flow::datagram::send_options::SendOption;
use crate::flow::splice::StreamSocket;
use crate::flow::tcp::relay::HostSocket;
use crate::link::icmp_error::Reporter;
use crate::nat::{Protocol, Target};
use crate::sockets::{Connecting, Progress};
use crate::sys::pktinfo::{ip_address, note_handling};
use crate::sys::send_buffer::SendBuffer;
use crate::sys::{self, send_option};
use crate::wire::ip::Handling;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockProtocol,
    SockType, SockaddrIn, SockaddrStorage, bind, connect, getsockname, recv, recvmsg, sendmsg,
    setsockopt, shutdown, socket, sockopt,
};
use pasta_ipc::socket::{FreeBind, allow_free_bind};
use pasta_ipc::types::{Family, IfName};
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// How unacknowledged data is passed over when reading ahead, by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeekMethod {
    /// The kernel keeps an offset (`SO_PEEK_OFF` for TCP, Linux 6.9 and later).
    Offset,
    /// It is copied again and thrown away.
    Discard,
}

/// Finds out what the kernel has for TCP sockets of `family`; a kernel without the family says
/// nothing of interest.
pub fn probe_peek(family: AddressFamily) -> PeekMethod {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probed = socket(family, SockType::Stream, flags, SockProtocol::Tcp)
        .map_err(io::Error::from)
        .and_then(|socket| sys::set_peek_offset(&socket, 0));
    if probed.is_ok() { PeekMethod::Offset } else { PeekMethod::Discard }
}

/// The largest send buffer that a TCP socket can be given, in octets of kernel memory: twice
/// `net.core.wmem_max`, which nobody but the kernel's own tuning exceeds. Zero where it cannot be found out.
pub fn probe_send_buffer() -> u32 {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let families = [AddressFamily::Inet, AddressFamily::Inet6].into_iter();
    let probe =
        families.filter_map(|it| socket(it, SockType::Stream, flags, SockProtocol::Tcp).ok());
    let size = |probe: &OwnedFd| {
        sys::set_send_buffer(probe, u32::MAX).ok().map(|()| sys::send_buffer(probe).size)
    };
    probe.take(1).find_map(|probe| size(&probe)).unwrap_or(0)
}

/// A TCP socket towards the host's side.
#[derive(Debug)]
pub struct TcpSocket {
    fd: OwnedFd,
    method: PeekMethod,
    asks: bool,
    /// What size the send buffer was to have, the last time that it was made larger.
    enlarged_to: u32,
    /// Where the kernel's next peek starts; `None` before the option is first set.
    kernel_offset: Option<u32>,
}

impl TcpSocket {
    /// Takes over a connected or connecting socket.
    pub fn new(fd: OwnedFd, method: PeekMethod) -> Self {
        Self { fd, method, asks: false, enlarged_to: 0, kernel_offset: None }
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The error a socket has come to, if any; asking clears it.
pub fn take_error(fd: BorrowedFd<'_>) -> Option<Errno> {
    match nix::sys::socket::getsockopt(&fd, sockopt::SocketError) {
        Ok(0) => None,
        Ok(error) => Some(Errno::from_raw(error)),
        Err(errno) => Some(errno),
    }
}

impl HostSocket for TcpSocket {
    fn carried(&self) -> Option<[u64; 2]> {
        Some(super::raw::carried(&self.fd))
    }

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<()>(self.fd.as_raw_fd(), slices, &[], flags, None) {
                Err(Errno::EINTR) => continue,
                other => return Ok(other?),
            }
        }
    }

    fn send_buffer(&mut self, least: u32) -> SendBuffer {
        let buffer = sys::send_buffer(&self.fd);
        let size = SendBuffer::size_for(least);
        if size <= buffer.size.max(self.enlarged_to) {
            return buffer;
        }
        // In few steps where it grows.
        let size = size.saturating_add(size / 2);
        self.enlarged_to = size;
        // Where it fails the buffer grows as the kernel sees fit.
        let _ = sys::set_send_buffer(&self.fd, size);
        sys::send_buffer(&self.fd)
    }

    fn peek(&mut self, offset: u32, into: &mut [u8]) -> io::Result<usize> {
        if self.method == PeekMethod::Discard {
            return sys::peek_behind(&self.fd, offset as usize, into);
        }
        // Peeking starts at the front before the option is first set.
        let at_front = offset == 0 && self.kernel_offset.is_none();
        if !at_front && self.kernel_offset != Some(offset) {
            sys::set_peek_offset(&self.fd, offset)?;
            self.kernel_offset = Some(offset);
        }
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let read = loop {
            match recv(self.fd.as_raw_fd(), into, flags) {
                Err(Errno::EINTR) => continue,
                other => break other?,
            }
        };
        let moved = u32::try_from(read).unwrap_or(u32::MAX);
        if !at_front {
            self.kernel_offset = Some(offset.saturating_add(moved));
        }
        Ok(read)
    }

    fn consume(&mut self, octets: u32) -> io::Result<()> {
        let mut left = octets;
        while left > 0 {
            let taken = match sys::discard(&self.fd, left as usize) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let taken = u32::try_from(taken).unwrap_or(left).min(left);
            if taken == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= taken;
        }
        // The kernel moves its offset back by what is read (`sk_peek_offset_bwd()`).
        self.kernel_offset = self.kernel_offset.map(|offset| offset.saturating_sub(octets));
        Ok(())
    }

    fn shut_down_write(&mut self) {
        // Fails only where the connection is gone already, which shows as its error.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Write);
    }

    fn take_error(&mut self) -> Option<Errno> {
        take_error(self.fd.as_fd())
    }

    fn take_queued_error(&mut self) -> Option<QueuedError> {
        take_queued_error(self.fd.as_fd())
    }

    /// `IP_TOS`, `IPV6_TCLASS`; of TCP the kernel keeps the bits for congestion (`__ip_sock_set_tos()`,
    /// net/ipv4/ip_sockglue.c).
    fn mark(&mut self, remote: IpAddr, dscp: u8) {
        // Where it fails, it is treated as any other.
        let _ = send_option::set(&self.fd, remote, SendOption::TrafficClass(dscp));
    }

    /// `SO_KEEPALIVE`, tcp(7).
    fn keep_alive(&mut self) {
        // Where it fails, a peer that has gone is noticed when something is sent.
        if !std::mem::replace(&mut self.asks, true) {
            let _ = setsockopt(&self.fd, sockopt::KeepAlive, &true);
        }
    }

    /// `SO_LINGER` with time 0, socket(7).
    fn reset_on_close(&mut self) {
        StreamSocket::reset_on_close(&self.fd);
    }

    fn local_address(&self) -> Option<SocketAddr> {
        sys::local_address(&self.fd).ok()
    }
}

/// Opens a socket of `protocol` and starts to connect it to `target`. `port` is the source port to
/// try for: the namespace's own for UDP, the identifier for echo. A source address or interface that
/// cannot be had fails the call: traffic never leaves by another way than asked for. With `free_bind`
/// the source may be one that the host does not have.
///
/// # Errors
///
/// What the kernel says: as socket(2), bind(2) and connect(2).
pub fn open(
    protocol: Protocol,
    target: &Target,
    port: Option<u16>,
    (handling, free_bind): (Handling, FreeBind),
) -> Result<Connecting<OwnedFd>, Errno> {
    let fd = open_unbound(protocol, target)?;
    allow_free_bind(&fd, free_bind)?;
    if let Some(interface) = &target.interface {
        setsockopt(&fd, sockopt::BindToDevice, &OsString::from(interface.as_str()))?;
    }
    if protocol == Protocol::Tcp {
        prepare_opening(&fd, target.address.ip(), handling);
    }
    let any: IpAddr = match target.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let try_bind = |address: IpAddr, port: u16| {
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, port)))
    };
    match (target.source, port) {
        // The port is a preference: it may be taken, or be one that takes a right to bind.
        (source, Some(port)) => {
            let address = source.unwrap_or(any);
            let bound = try_bind(address, port);
            if bound.is_err() && source.is_some() {
                try_bind(address, 0)?;
            }
        }
        (Some(source), None) => try_bind(source, 0)?,
        (None, None) => {}
    }
    let progress = match connect(fd.as_raw_fd(), &SockaddrStorage::from(target.address)) {
        Ok(()) => Progress::Connected,
        Err(Errno::EINPROGRESS) => Progress::Connecting,
        Err(errno) => return Err(errno),
    };
    Ok(Connecting { socket: fd, progress })
}

/// Has a connected socket of IPv4 datagrams that is bound to no address take what anybody sends to its port.
///
/// # Errors
///
/// As connect(2); as bind(2), where the kernel had chosen the port and somebody else has got it now.
pub fn unconnect(fd: &OwnedFd) -> Result<(), Errno> {
    let port = || getsockname::<SockaddrIn>(fd.as_raw_fd()).map(|local| local.port());
    let wanted = port()?;
    sys::unconnect(fd.as_fd())?;
    // A port that was asked for stays, one that the kernel has chosen goes (`__udp_disconnect()`, net/ipv4/udp.c).
    if port()? != wanted {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, wanted));
        bind(fd.as_raw_fd(), &SockaddrStorage::from(any))?;
    }
    Ok(())
}

/// Has the packet that opens a TCP connection carried as `handling` says. One of few hops looks for routers: what they
/// say is queued, and not only the error number that it amounts to; for others that is not worth a call.
fn prepare_opening(fd: &OwnedFd, remote: IpAddr, handling: Handling) {
    let Handling { hop_limit, traffic_class, .. } = handling;
    if hop_limit != Handling::DEFAULT.hop_limit {
        // Where these fail the connection is opened all the same.
        let _ = send_option::set(fd, remote, SendOption::HopLimit(hop_limit));
    }
    if hop_limit < Handling::DEFAULT.hop_limit {
        let v4 = remote.is_ipv4();
        let _ = enable_errors(fd, if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 });
        let _ = receive_handling(fd, v4);
    }
    if traffic_class != Handling::DEFAULT.traffic_class {
        let _ = send_option::set(fd, remote, SendOption::TrafficClass(traffic_class));
    }
}

/// The number that the host gives `interface`; none if there is no such interface. A socket that is bound to it
/// by name says so (`SO_BINDTOIFINDEX`, Linux 5.0 and later).
pub fn interface_index(interface: &IfName) -> Option<NonZeroU32> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let families = [AddressFamily::Inet, AddressFamily::Inet6].into_iter();
    let probe =
        families.filter_map(|it| socket(it, SockType::Datagram, flags, SockProtocol::Udp).ok());
    let probe = probe.take(1).next()?;
    setsockopt(&probe, sockopt::BindToDevice, &OsString::from(interface.as_str())).ok()?;
    sys::bound_interface(&probe)
}

/// Whether the host still has the address that a connected socket of datagrams sends from: whether
/// another socket can be bound to it. Where that cannot be found out, it has.
pub fn has_its_address(fd: BorrowedFd<'_>) -> bool {
    let Ok(ours) = getsockname::<SockaddrStorage>(fd.as_raw_fd()) else { return true };
    let any_port = match (ours.as_sockaddr_in(), ours.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::new(v4.ip().into(), 0),
        (_, Some(v6)) => SocketAddrV6::new(v6.ip(), 0, 0, v6.scope_id()).into(),
        _ => return true,
    };
    has_address(any_port)
}

/// Whether the host has an address: whether a socket can be bound to it. Where that cannot be found out, it has.
pub fn has_address(any_port: SocketAddr) -> bool {
    let v4 = any_port.is_ipv4();
    let family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let bound = socket(family, SockType::Datagram, flags, SockProtocol::Udp)
        .and_then(|probe| bind(probe.as_raw_fd(), &SockaddrStorage::from(any_port)));
    // A link that is gone, and with it the scope, shows by the other two.
    !matches!(bound, Err(Errno::EADDRNOTAVAIL | Errno::ENODEV | Errno::EINVAL))
}

fn open_unbound(protocol: Protocol, target: &Target) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let v4 = target.address.is_ipv4();
    let family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    match protocol {
        Protocol::Tcp => {
            let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
            setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
            // Where it fails, the backlog is larger.
            let _ = sys::fill_send_buffer(&fd);
            // The last octet of urgent data is part of the stream (RFC 6093); without this, the kernel
            // takes it out, and numbers would no longer fit.
            setsockopt(&fd, sockopt::OobInline, &true)?;
            Ok(fd)
        }
        Protocol::Udp => {
            let fd = socket(family, SockType::Datagram, flags, SockProtocol::Udp)?;
            // One of IPv4 may have the same port.
            if !v4 {
                setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            }
            // Without these, replies come one by one and errors less precise: nothing is lost.
            let _ = sys::set_udp_gro(&fd);
            let _ = enable_errors(&fd, family);
            let _ = receive_handling(&fd, v4);
            Ok(fd)
        }
        Protocol::Echo => {
            let kind = if v4 { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
            let fd = socket(family, SockType::Datagram, flags, kind)?;
            // Without these, replies seem to come from next door.
            let _ = enable_errors(&fd, family);
            let _ = receive_handling(&fd, v4);
            Ok(fd)
        }
    }
}

/// Has a socket of datagrams say how each was carried: how many hops are left, as of errors, and how it was marked (DSCP,
/// and of a path that is congested ECN).
///
/// # Errors
///
/// As setsockopt(2); the rest is done all the same.
pub fn receive_handling(fd: &OwnedFd, v4: bool) -> Result<(), Errno> {
    let (class, hops) = match v4 {
        true => {
            (setsockopt(fd, sockopt::IpRecvTos, &true), setsockopt(fd, sockopt::Ipv4RecvTtl, &true))
        }
        false => (
            setsockopt(fd, sockopt::Ipv6RecvTClass, &true),
            setsockopt(fd, sockopt::Ipv6RecvHopLimit, &true),
        ),
    };
    class.and(hops)
}

fn enable_errors(fd: &OwnedFd, family: AddressFamily) -> Result<(), Errno> {
    if family == AddressFamily::Inet {
        setsockopt(fd, sockopt::Ipv4RecvErr, &true)
    } else {
        setsockopt(fd, sockopt::Ipv6RecvErr, &true)
    }
}

/// Sends one datagram, gathered from `slices`; with `segment_size`, several of that size at once.
///
/// # Errors
///
/// As sendmsg(2); `EMSGSIZE` with the next hop's MTU too small; `EINVAL` or `EIO` where the path
/// cannot segment.
pub fn send_datagrams(
    fd: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    segment_size: Option<u16>,
) -> Result<(), Errno> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let raw = fd.as_raw_fd();
    loop {
        let sent = match &segment_size {
            Some(size) => {
                let control = [ControlMessage::UdpGsoSegments(size)];
                sendmsg::<()>(raw, slices, &control, flags, None)
            }
            None => sendmsg::<()>(raw, slices, &[], flags, None),
        };
        match sent {
            Err(Errno::EINTR) => continue,
            other => return other.map(drop),
        }
    }
}

/// Errors that came as ICMP, and as ICMPv6 (include/uapi/linux/errqueue.h).
const SO_EE_ORIGIN_ICMP: u8 = 2;
const SO_EE_ORIGIN_ICMP6: u8 = 3;

/// Most datagrams, and errors, that may have come before a socket was connected; chosen: more than a receive queue of
/// any usual size holds (`net.core.rmem_default`), of the smallest ones.
const MOST_EARLY: u64 = 4096;

/// Throws away what is in the queues of a socket of datagrams; gives how many there were.
///
/// # Errors
///
/// `ENOBUFS` if there is no end to it.
pub fn discard_early(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut count = 0;
    while count < MOST_EARLY {
        let was_error = take_error(fd).is_some() | take_error_of(fd).is_some();
        match recv(fd.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) if !was_error => return Ok(count),
            Ok(_) => count += 1,
            Err(_) => {}
        }
        count += u64::from(was_error);
    }
    Err(Errno::ENOBUFS)
}

/// Reads one datagram of `peer`, or several of one size that the kernel has joined.
///
/// # Errors
///
/// As recvmsg(2), `EAGAIN` if nothing is waiting; `EPROTO` for one of somebody else, which is gone.
pub fn receive_datagrams(
    fd: BorrowedFd<'_>,
    peer: SocketAddr,
    buffer: &mut [u8],
) -> Result<ReadDatagrams, Errno> {
    let mut control = [0_u8; 128];
    loop {
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmsg::<SockaddrStorage>(fd.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(message) => {
                let from = message.address.as_ref().and_then(ip_address);
                // Those of echo have no port.
                let is_port = |from: u16| from == peer.port() || from == 0;
                if !from.is_some_and(|it| it.ip() == peer.ip() && is_port(it.port())) {
                    return Err(Errno::EPROTO);
                }
                let (mut segment_size, mut handling) = (None, Handling::TO_NAMESPACE);
                for record in message.cmsgs()? {
                    match record {
                        ControlMessageOwned::UdpGroSegments(size) => {
                            segment_size = u16::try_from(size).ok().filter(|size| *size > 0);
                        }
                        record => note_handling(&mut handling, &record),
                    }
                }
                let truncated = message.flags.contains(MsgFlags::MSG_TRUNC);
                let len = message.bytes;
                let segment_size = segment_size.filter(|size| usize::from(*size) < len);
                return Ok(ReadDatagrams { len, segment_size, truncated, handling });
            }
        }
    }
}

/// Takes one error off the socket's queue (`IP_RECVERR`, ip(7)); `None` if there is none.
pub fn take_queued_error(fd: BorrowedFd<'_>) -> Option<QueuedError> {
    take_error_of(fd).map(|(error, _)| error)
}

/// As [`take_queued_error`], with where the datagram went that caused it, if it says so.
pub fn take_error_of(fd: BorrowedFd<'_>) -> Option<(QueuedError, Option<SocketAddr>)> {
    let mut read = None;
    let returned = Returned::read_by(|buffer| {
        read = read_error(fd, buffer);
        read.as_ref().map_or(0, |(_, _, len)| *len)
    });
    let (error, to, _) = read?;
    Some((QueuedError { returned, ..error }, to))
}

/// Reads an error, where the datagram went that caused it, and to `buffer` what came back of that.
fn read_error(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Option<(QueuedError, Option<SocketAddr>, usize)> {
    let mut control = [0_u8; 256];
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(fd.as_raw_fd(), &mut slices, Some(&mut control), flags).ok()?;
    // What is said of the packet comes before what is said of the error.
    let mut handling = Handling::TO_NAMESPACE;
    for record in message.cmsgs().ok()? {
        let (error, offender) = match record {
            ControlMessageOwned::Ipv4RecvErr(error, address) => {
                let offender = address.map(|a| Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)));
                (error, offender.map(IpAddr::V4))
            }
            ControlMessageOwned::Ipv6RecvErr(error, address) => {
                let offender = address.map(|a| Ipv6Addr::from(a.sin6_addr.s6_addr));
                (error, offender.map(IpAddr::V6))
            }
            other => {
                note_handling(&mut handling, &other);
                continue;
            }
        };
        // The address is zero where the error is the kernel's own (SO_EE_ORIGIN_LOCAL); on a socket of both
        // families, IPv4 is mapped into IPv6.
        let offender = offender.map(|it| it.to_canonical()).filter(|it| !it.is_unspecified());
        let errno = Errno::from_raw(i32::try_from(error.ee_errno).unwrap_or(0));
        let family = match error.ee_origin {
            SO_EE_ORIGIN_ICMP => Some(Family::V4),
            SO_EE_ORIGIN_ICMP6 => Some(Family::V6),
            _ => None,
        };
        let icmp = family.map(|family| (family, error.ee_type, error.ee_code));
        let to = message.address.as_ref().and_then(ip_address);
        let hop_limit = handling.hop_limit;
        let offender = offender.map(|address| Reporter { address, hop_limit });
        let info = error.ee_info;
        let error = QueuedError { icmp, info, offender, ..QueuedError::of(errno) };
        return Some((error, to, message.bytes));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout};
    use std::net::UdpSocket;

    #[test]
    fn a_connected_socket_of_this_host_has_its_address() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without the family has nothing to try here.
            let Ok(server) = UdpSocket::bind(any) else { continue };
            let client = UdpSocket::bind(any).unwrap();
            client.connect(server.local_addr().unwrap()).unwrap();
            assert!(has_its_address(client.as_fd()), "{any}");
        }
    }

    #[test]
    fn a_send_buffer_that_is_too_small_is_made_larger_and_only_then() {
        const LEAST: u32 = 128 * 1024;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut client = TcpSocket::new(client.into(), PeekMethod::Discard);
        setsockopt(&client, sockopt::SndBuf, &4096).unwrap();
        let small = client.send_buffer(0);
        assert!(small.size < LEAST, "{small:?}");
        assert_eq!(client.send_buffer(1000), small, "there is room");
        let large = client.send_buffer(LEAST);
        assert!(large.size >= SendBuffer::size_for(LEAST), "{large:?}");
        assert_eq!(client.send_buffer(LEAST + 1000), large, "not for so little");
    }

    #[test]
    fn what_is_behind_is_peeked_at_and_nothing_else_is_taken_for_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut client = TcpSocket::new(client.into(), PeekMethod::Discard);
        let mut into = [0; 10];
        let mut peek = |offset| {
            let peeked = client.peek(offset, &mut into).map_err(|error| error.kind());
            peeked.map(|len| into[..len].to_vec())
        };
        std::io::Write::write_all(&mut peer, b"0123456789").unwrap();
        assert_eq!(peek(0).unwrap(), b"0123456789");
        assert_eq!(peek(7).unwrap(), b"789");
        assert_eq!(peek(10), Err(io::ErrorKind::WouldBlock));
        assert_eq!(peek(11), Err(io::ErrorKind::ResourceBusy), "not all of that is there");
        assert_eq!(peek((16 << 20) + 1), Err(io::ErrorKind::ResourceBusy), "too much to pass over");
        drop(peer);
        let mut ended = [PollFd::new(client.as_fd(), PollFlags::from_bits_retain(libc::POLLRDHUP))];
        nix::poll::poll(&mut ended, PollTimeout::NONE).unwrap();
        let mut peek = |offset| client.peek(offset, &mut into).map_err(|error| error.kind());
        assert_eq!(peek(10), Err(io::ErrorKind::WouldBlock), "the end does not show");
        client.consume(10).unwrap();
        assert_eq!(client.peek(0, &mut into).unwrap(), 0);
    }

    #[test]
    fn what_came_before_a_socket_was_connected_is_thrown_away() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without the family has nothing to try here.
            let Ok(peer) = UdpSocket::bind(any) else { continue };
            let stranger = UdpSocket::bind(any).unwrap();
            let peer_address = peer.local_addr().unwrap();
            let socket = UdpSocket::bind(any).unwrap();
            let here = socket.local_addr().unwrap();
            let (fd, family) = (OwnedFd::from(socket), peer_address.is_ipv4());
            let family = if family { AddressFamily::Inet } else { AddressFamily::Inet6 };
            enable_errors(&fd, family).unwrap();
            // Loopback delivers before send() returns.
            for socket in [&stranger, &peer, &stranger] {
                socket.send_to(b"early", here).unwrap();
            }
            connect(fd.as_raw_fd(), &SockaddrStorage::from(peer_address)).unwrap();
            assert_eq!(discard_early(fd.as_fd()), Ok(3), "{any}");
            assert_eq!(discard_early(fd.as_fd()), Ok(0));

            peer.send_to(b"answer", here).unwrap();
            let mut buffer = [0; 100];
            let read = receive_datagrams(fd.as_fd(), peer_address, &mut buffer).unwrap();
            assert_eq!(&buffer[..read.len], b"answer");
            // As one that is queued late would be read.
            peer.send_to(b"other", here).unwrap();
            let expected = stranger.local_addr().unwrap();
            let other = receive_datagrams(fd.as_fd(), expected, &mut buffer);
            assert_eq!(other, Err(Errno::EPROTO));
            drop(peer);
            send_datagrams(fd.as_fd(), &[IoSlice::new(b"nobody")], None).unwrap();
            assert_eq!(discard_early(fd.as_fd()), Ok(1), "an error");
            assert_eq!(take_queued_error(fd.as_fd()), None);
            assert_eq!(take_error(fd.as_fd()), None);
        }
    }

    #[test]
    fn error_says_how_far_it_came_and_brings_the_payload_back() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without the family has nothing to try here.
            let Ok(nobody) = UdpSocket::bind(any) else { continue };
            let address = nobody.local_addr().unwrap();
            drop(nobody);
            let target = Target { address, source: None, interface: None };
            let how = (Handling::DEFAULT, FreeBind::Off);
            let Ok(Connecting { socket: fd, .. }) = open(Protocol::Udp, &target, None, how) else {
                panic!("no socket");
            };
            let payload = [7; 700];
            send_datagrams(fd.as_fd(), &[IoSlice::new(&payload)], None).unwrap();
            let error = take_queued_error(fd.as_fd()).unwrap();
            // What the kernel sends itself has that many, if nobody has changed it.
            let hop_limit = Handling::DEFAULT.hop_limit;
            assert_eq!(error.offender, Some(Reporter { address: address.ip(), hop_limit }));
            assert_eq!(error.errno, Errno::ECONNREFUSED);
            let returned = error.returned.octets();
            assert_eq!(returned, &payload[..returned.len()]);
            assert!(returned.len() >= 500, "{}", returned.len());
        }
    }

    #[test]
    fn interfaces_have_numbers_and_missing_ones_none() {
        let index = |name: &str| interface_index(&IfName::try_from(name.to_owned()).unwrap());
        let expected = nix::net::if_::if_nametoindex("lo").unwrap();
        assert_eq!(index("lo").map(NonZeroU32::get), Some(expected));
        assert_eq!(index("nowhere0"), None);
    }

    #[test]
    fn an_address_of_somebody_else_is_gone() {
        // The kernel lets a socket be bound to one that is not there if it is asked to.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, SockProtocol::Udp).unwrap();
        setsockopt(&fd, sockopt::IpFreebind, &true).unwrap();
        let elsewhere = SocketAddr::new(Ipv4Addr::new(203, 0, 113, 7).into(), 0);
        bind(fd.as_raw_fd(), &SockaddrStorage::from(elsewhere)).unwrap();
        assert!(!has_its_address(fd.as_fd()));
    }
}
