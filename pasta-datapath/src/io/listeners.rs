//! Listening sockets of the host, and what a socket that was handed over has to be.

use crate::sys;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen,
    setsockopt, socket, sockopt,
};
use pasta_ipc::forward::{ListenerAddress, SocketKind, Transport};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Which families the namespace is served in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Both: what listens on any address takes both.
    Both,
}

/// Opens a listener; a TCP one listens.
///
/// # Errors
///
/// As socket(2), bind(2), listen(2); `ENODEV` where the interface is missing.
pub fn open(at: &ListenerAddress, families: Families) -> Result<OwnedFd, Errno> {
    let any: (IpAddr, bool) = match families {
        Families::Ipv4 => (Ipv4Addr::UNSPECIFIED.into(), true),
        Families::Ipv6 => (Ipv6Addr::UNSPECIFIED.into(), true),
        Families::Both => (Ipv6Addr::UNSPECIFIED.into(), false),
    };
    let (address, one_family) = at.address.map_or(any, |address| (address, true));
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, protocol) = match at.transport {
        Transport::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Transport::Udp => (SockType::Datagram, SockProtocol::Udp),
    };
    let fd = socket(family, kind, flags, protocol)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &one_family)?;
    }
    if at.transport == Transport::Tcp {
        // Connections of an earlier listener may still linger (socket(7)). For UDP it would let
        // anybody share the port.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if let Some(interface) = &at.interface {
        setsockopt(&fd, sockopt::BindToDevice, &OsString::from(interface.as_str()))?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, at.port.get())))?;
    if at.transport == Transport::Tcp {
        // As many as the kernel lets wait (`net.core.somaxconn`, 4096 by default): accepted in bursts.
        listen(&fd, Backlog::MAXCONN)?;
    }
    Ok(fd)
}

/// Sets what every listener has, whoever opened it.
///
/// # Errors
///
/// `EINVAL` if it is no socket for `transport`.
pub fn prepare(fd: &OwnedFd, transport: Transport) -> Result<(), Errno> {
    let v6 = is_ipv6(fd, transport).ok_or(Errno::EINVAL)?;
    match transport {
        // Accepted sockets have both from the listener.
        Transport::Tcp => {
            setsockopt(fd, sockopt::TcpNoDelay, &true)?;
            setsockopt(fd, sockopt::OobInline, &true)
        }
        Transport::Udp => {
            // Each datagram says to which address it came, and answers leave from there.
            if v6 {
                setsockopt(fd, sockopt::Ipv6RecvPacketInfo, &true)?;
            } else {
                setsockopt(fd, sockopt::Ipv4PacketInfo, &true)?;
            }
            // Without it every datagram is read by itself.
            let _ = sys::set_udp_gro(fd);
            Ok(())
        }
    }
}

/// Whether a socket is what was asked for: non-blocking is checked by use, the rest here.
pub fn is_of(fd: &OwnedFd, kind: SocketKind) -> bool {
    is_ipv6(fd, kind.transport) == Some(kind.ipv6)
}

/// The family of a socket, if it is one of IP for `transport`.
fn is_ipv6(fd: impl AsFd, transport: Transport) -> Option<bool> {
    let wanted = match transport {
        Transport::Tcp => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        Transport::Udp => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    };
    match sys::kind_of(fd) {
        Ok((libc::AF_INET, kind, protocol)) if (kind, protocol) == wanted => Some(false),
        Ok((libc::AF_INET6, kind, protocol)) if (kind, protocol) == wanted => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    fn at(transport: Transport, address: Option<&str>, port: u16) -> ListenerAddress {
        let address = address.map(|it| it.parse().unwrap());
        ListenerAddress {
            transport,
            address,
            interface: None,
            port: NonZeroU16::new(port).unwrap(),
        }
    }

    /// A port that nobody has, as far as can be known.
    fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn listener_accepts_and_tells_the_peer() {
        let at = at(Transport::Tcp, Some("127.0.0.1"), free_port());
        let listener = open(&at, Families::Both).unwrap();
        prepare(&listener, Transport::Tcp).unwrap();
        assert!(is_of(&listener, SocketKind { ipv6: false, transport: Transport::Tcp }));
        assert!(!is_of(&listener, SocketKind { ipv6: true, transport: Transport::Tcp }));
        assert!(!is_of(&listener, SocketKind { ipv6: false, transport: Transport::Udp }));
        assert_eq!(prepare(&listener, Transport::Udp), Err(Errno::EINVAL));
        let client = std::net::TcpStream::connect(("127.0.0.1", at.port.get())).unwrap();
        let (accepted, peer) = sys::accept(&listener).unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(sys::local_address(&accepted).unwrap(), client.peer_addr().unwrap());
        assert_eq!(sys::accept(&listener).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn port_that_is_taken_is_refused_for_both_transports() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let at = at(transport, Some("127.0.0.1"), free_port());
            let _held = open(&at, Families::Both).unwrap();
            assert_eq!(open(&at, Families::Both).unwrap_err(), Errno::EADDRINUSE);
        }
    }

    #[test]
    fn something_else_than_a_socket_is_refused() {
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert_eq!(prepare(&null, Transport::Tcp), Err(Errno::EINVAL));
    }
}
