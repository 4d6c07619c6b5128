//! Questions about the way to somewhere.
//!
//! | question | does |
//! | --- | --- |
//! | `path udp ENDPOINT HOPS [SIZE [PORT]]`, `path ping ADDRESS HOPS [SIZE]`, `path tcp ENDPOINT HOPS` | sends one packet that may make so many hops and has SIZE octets of payload, of UDP from PORT; the fact is who says what by ICMP, `ROUTER TYPE CODE VALUE`, or `answered` |

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrStorage, bind, connect, recv, recvmsg, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{Arguments, Facts, TIME_LIMIT, ping};
use crate::Outcome;

/// Answers the question.
///
/// # Errors
///
/// What the socket reports, if nobody has said anything by ICMP.
pub fn answer(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let kind = arguments.word("kind of packet")?;
    let target = match kind {
        "ping" => arguments.address()?,
        _ => arguments.endpoint()?,
    };
    let (kind, protocol) = match (kind, target) {
        ("udp", _) => (SockType::Datagram, SockProtocol::Udp),
        ("tcp", _) => (SockType::Stream, SockProtocol::Tcp),
        ("ping", SocketAddr::V4(_)) => (SockType::Raw, SockProtocol::Icmp),
        ("ping", SocketAddr::V6(_)) => (SockType::Raw, SockProtocol::IcmpV6),
        (other, _) => return Err(format!("no packet of kind {other}").into()),
    };
    let socket = probe(target, kind, protocol, arguments.value("number of hops")?)?;
    let size = arguments.optional("number of octets")?.unwrap_or(56);
    if let Some(port) = arguments.optional::<u16>("source port")? {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
    }
    let fact = match exchange(&socket, target, protocol, size) {
        Ok(()) => "answered".to_owned(),
        Err(error) => match icmp_error(&socket)? {
            Some(IcmpError { reporter, kind, code, value }) => {
                format!("{reporter} {kind} {code} {value}")
            }
            None => return Err(error.into()),
        },
    };
    Ok(vec![fact])
}

/// A socket for `target` whose packets make so many hops, and which has errors queued.
fn probe(
    target: SocketAddr,
    kind: SockType,
    protocol: SockProtocol,
    hops: i32,
) -> Outcome<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, flags, protocol)?;
    if target.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4Ttl, &hops)?;
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6Ttl, &hops)?;
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    let limit = TimeVal::seconds(i64::try_from(TIME_LIMIT.as_secs())?);
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    Ok(socket)
}

/// Sends one packet and waits for the answer.
fn exchange(
    socket: &OwnedFd,
    target: SocketAddr,
    protocol: SockProtocol,
    size: usize,
) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    connect(fd, &SockaddrStorage::from(target))?;
    match protocol {
        SockProtocol::Tcp => return Ok(()),
        SockProtocol::Udp => send(fd, &vec![7; size], MsgFlags::empty())?,
        _ => {
            let identifier = (std::process::id() & 0xffff) as u16;
            let request = ping::echo_request(target, identifier, 1, size);
            send(fd, &request, MsgFlags::empty())?
        }
    };
    recv(fd, &mut [0; 2048], MsgFlags::empty())?;
    Ok(())
}

/// An error by ICMP.
#[derive(Clone, Copy, Debug)]
pub struct IcmpError {
    /// Who says so.
    pub reporter: IpAddr,
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The MTU, if it is about that.
    pub value: u32,
}

/// The error that was reported by ICMP, if any was.
///
/// # Errors
///
/// What the socket reports.
pub fn icmp_error(socket: &impl AsRawFd) -> Outcome<Option<IcmpError>> {
    let mut control = [0; 256];
    let mut octets = [0; 64];
    let mut slices = [std::io::IoSliceMut::new(&mut octets)];
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_ERRQUEUE);
    let message = match recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), flags) {
        Err(Errno::EAGAIN) => return Ok(None),
        message => message?,
    };
    let error = message.cmsgs()?.find_map(|record| match record {
        ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => {
            Some((error, Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)).into()))
        }
        ControlMessageOwned::Ipv6RecvErr(error, Some(from)) => {
            Some((error, Ipv6Addr::from(from.sin6_addr.s6_addr).into()))
        }
        _ => None,
    });
    Ok(error.map(|(error, reporter)| IcmpError {
        reporter,
        kind: error.ee_type,
        code: error.ee_code,
        value: error.ee_info,
    }))
}
