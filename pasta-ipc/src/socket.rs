//! Sockets that one process opens and another one uses: listeners, and sockets that live inside the
//! namespace.
//!
//! A listener is opened by the launcher or by the datapath on the host, and by the monitor in the
//! namespace, each where it has the rights; all are read by the datapath. What such a socket is stands
//! here, once.

use crate::types::{Family, IfName, Service, Transport};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen,
    setsockopt, socket, sockopt,
};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd, OwnedFd};

/// Most listeners in one message; the kernel passes 253 descriptors at most.
pub const MAX_LISTENERS: usize = 64;

/// Most sockets in one message, as a pool is filled.
pub const MAX_SOCKETS: u8 = 32;

/// What a listening socket of the host is bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenerAddress {
    /// TCP or UDP.
    pub transport: Transport,
    /// Its address; none: every address of the families that are served, by one socket.
    pub address: Option<IpAddr>,
    /// The interface it is bound to.
    pub interface: Option<IfName>,
    /// Its port.
    pub port: NonZeroU16,
}

impl ListenerAddress {
    /// Opens the socket, which does not block; a TCP one listens. Where no address was named it takes
    /// what comes by `families`. With `free_bind` the address may be one that the host does not have.
    ///
    /// # Errors
    ///
    /// As socket(2), bind(2), listen(2): among others `EADDRINUSE`, `EACCES` for a low port, `EMFILE`;
    /// `ENODEV` where there is no such interface, `EPERM` where the kernel (before 5.7) lets only the
    /// privileged bind to one.
    pub fn open(&self, families: SocketFamily, free_bind: FreeBind) -> Result<OwnedFd, Errno> {
        let (address, one_family): (IpAddr, bool) = match (self.address, families) {
            (Some(address), _) => (address, true),
            (None, SocketFamily::Ipv4) => (Ipv4Addr::UNSPECIFIED.into(), true),
            (None, SocketFamily::Ipv6) => (Ipv6Addr::UNSPECIFIED.into(), true),
            (None, SocketFamily::Both) => (Ipv6Addr::UNSPECIFIED.into(), false),
        };
        let fd = new_socket(self.transport, address.is_ipv6())?;
        if address.is_ipv6() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &one_family)?;
        }
        if self.transport == Transport::Tcp {
            // Connections of an earlier listener may still linger (socket(7)). For UDP it would let
            // anybody share the port.
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        }
        allow_free_bind(&fd, free_bind)?;
        if let Some(interface) = &self.interface {
            setsockopt(&fd, sockopt::BindToDevice, &OsString::from(interface.as_str()))?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, self.port.get())))?;
        if self.transport == Transport::Tcp {
            // As many as the kernel lets wait (`net.core.somaxconn`, 4096 by default): accepted in bursts.
            listen(&fd, Backlog::MAXCONN)?;
        }
        Ok(fd)
    }
}

/// Names a request until it is answered.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RequestId(pub u32);

/// The family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SocketFamily {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both, by one IPv6 socket; for listeners.
    Both,
}

impl SocketFamily {
    /// Whether it takes `family`.
    pub const fn takes(self, family: Family) -> bool {
        match self {
            Self::Ipv4 => matches!(family, Family::V4),
            Self::Ipv6 => matches!(family, Family::V6),
            Self::Both => true,
        }
    }

    /// The family of a listener for what is served; at least one family is.
    pub const fn served(ipv4: Service, ipv6: Service) -> Self {
        match (ipv4, ipv6) {
            (Service::On, Service::On) => Self::Both,
            (Service::On, Service::Off) => Self::Ipv4,
            (Service::Off, _) => Self::Ipv6,
        }
    }
}

/// A kind of socket that connects from inside the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SocketKind {
    /// Whether it is of IPv6; these sockets are of one family.
    pub ipv6: bool,
    /// TCP or UDP.
    pub transport: Transport,
}

/// A listener on the loopback interface of the namespace, on every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespaceListener {
    /// TCP or UDP.
    pub transport: Transport,
    /// Which connections it takes.
    pub family: SocketFamily,
    /// Its port.
    pub port: NonZeroU16,
}

/// How many sockets are asked for at once: 1 to [`MAX_SOCKETS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct SocketCount(u8);

impl SocketCount {
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl From<SocketCount> for u8 {
    fn from(count: SocketCount) -> Self {
        count.0
    }
}

impl TryFrom<u8> for SocketCount {
    type Error = InvalidCount;

    fn try_from(count: u8) -> Result<Self, InvalidCount> {
        if (1..=MAX_SOCKETS).contains(&count) { Ok(Self(count)) } else { Err(InvalidCount) }
    }
}

/// Not a number of sockets that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCount;

impl fmt::Display for InvalidCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a number of sockets (1 to {MAX_SOCKETS})")
    }
}

impl std::error::Error for InvalidCount {}

/// Why a request got no socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Too many were asked for in too short a time; it can be asked again later.
    Busy,
    /// No rule allows it.
    Denied,
    /// The kernel refused, with this errno.
    Failed(i32),
}

/// Whether sockets may be bound to addresses that the host does not have (`IP_FREEBIND`, ip(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FreeBind {
    /// They may.
    On,
    /// They may not.
    #[default]
    Off,
}

/// Lets a socket be bound to an address that the host does not have, if so asked (`IP_FREEBIND`, ip(7);
/// the kernel takes it for sockets of IPv6 too).
///
/// # Errors
///
/// As setsockopt(2).
pub fn allow_free_bind(socket: &OwnedFd, free_bind: FreeBind) -> Result<(), Errno> {
    match free_bind {
        FreeBind::On => setsockopt(socket, sockopt::IpFreebind, &true),
        FreeBind::Off => Ok(()),
    }
}

/// A socket of ours, of one family, that does not block and is closed on exec.
///
/// # Errors
///
/// As socket(2).
pub fn new_socket(transport: Transport, ipv6: bool) -> Result<OwnedFd, Errno> {
    let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let (kind, protocol) = match transport {
        Transport::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Transport::Udp => (SockType::Datagram, SockProtocol::Udp),
    };
    socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn socket_counts_are_bounded() {
        assert!(SocketCount::try_from(0).is_err());
        assert!(SocketCount::try_from(MAX_SOCKETS + 1).is_err());
        assert_eq!(SocketCount::try_from(MAX_SOCKETS).map(SocketCount::get), Ok(MAX_SOCKETS));
    }

    fn at(transport: Transport, address: Option<IpAddr>) -> ListenerAddress {
        // A port that nobody has, as far as can be known.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        ListenerAddress {
            transport,
            address,
            interface: None,
            port: NonZeroU16::new(port).unwrap(),
        }
    }

    #[test]
    fn port_that_is_taken_is_refused_for_both_transports() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let at = at(transport, Some(Ipv4Addr::LOCALHOST.into()));
            let _held = at.open(SocketFamily::Both, FreeBind::Off).unwrap();
            assert_eq!(at.open(SocketFamily::Both, FreeBind::Off).unwrap_err(), Errno::EADDRINUSE);
        }
    }

    #[test]
    fn listener_without_an_address_takes_the_families_that_are_served() {
        let ipv6 = TcpListener::bind("[::1]:0").is_ok();
        let reaches = |families, address: IpAddr| {
            let at = at(Transport::Tcp, None);
            let _held = at.open(families, FreeBind::Off).unwrap();
            TcpStream::connect((address, at.port.get())).is_ok()
        };
        let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        assert!(reaches(SocketFamily::Ipv4, v4) && !reaches(SocketFamily::Ipv4, v6));
        if ipv6 {
            assert!(reaches(SocketFamily::Ipv6, v6) && !reaches(SocketFamily::Ipv6, v4));
            assert!(reaches(SocketFamily::Both, v6) && reaches(SocketFamily::Both, v4));
        }
    }

    #[test]
    fn address_that_the_host_lacks_is_bound_only_on_request() {
        let foreign = ["192.0.2.77", "2001:db8::77"].map(|it| it.parse::<IpAddr>().unwrap());
        for (address, transport) in
            foreign.into_iter().flat_map(|it| [(it, Transport::Tcp), (it, Transport::Udp)])
        {
            if address.is_ipv6() && TcpListener::bind("[::1]:0").is_err() {
                continue;
            }
            let at = at(transport, Some(address));
            assert_eq!(
                at.open(SocketFamily::Both, FreeBind::Off).unwrap_err(),
                Errno::EADDRNOTAVAIL
            );
            assert!(at.open(SocketFamily::Both, FreeBind::On).is_ok(), "{address} {transport}");
        }
    }

    #[test]
    fn interface_that_is_missing_is_an_error() {
        let interface = Some(IfName::try_from("nowhere0".to_owned()).unwrap());
        let at = ListenerAddress { interface, ..at(Transport::Tcp, None) };
        assert_eq!(at.open(SocketFamily::Ipv4, FreeBind::Off).unwrap_err(), Errno::ENODEV);
    }
}
