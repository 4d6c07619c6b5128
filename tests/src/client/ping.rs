//! `ping ADDRESS COUNT SIZE`: echo requests with SIZE octets of payload, each answered unchanged.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv,
    send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::packet::internet_checksum;
use super::{Arguments, Facts, TIME_LIMIT};
use crate::Outcome;
use crate::pattern::Pattern;

/// Octets of an echo message before its payload (RFC 792, RFC 4443 section 4.1).
const HEADER: usize = 8;

/// Answers the question.
///
/// # Errors
///
/// What the socket reports, `ETIMEDOUT` when no answer comes.
pub fn answer(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let target = arguments.address()?;
    let count: u16 = arguments.value("count")?;
    let size: usize = arguments.value("size")?;
    let limit = match arguments.is_empty() {
        true => TIME_LIMIT,
        false => std::time::Duration::from_millis(arguments.value("number of milliseconds")?),
    };
    let pinger = Pinger::new(target)?;
    let identifier = (std::process::id() & 0xffff) as u16;
    for sequence in 1..=count {
        let request = echo_request(target, identifier, sequence, size);
        send(pinger.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        pinger.wait_for(&request, limit)?;
    }
    Ok(vec![format!("answered {count}")])
}

/// A raw socket that talks ICMP to one address.
struct Pinger {
    socket: OwnedFd,
    target: SocketAddr,
}

impl Pinger {
    fn new(target: SocketAddr) -> Outcome<Self> {
        let (family, protocol) = match target {
            SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(target))?;
        Ok(Self { socket, target })
    }

    /// Waits for the answer to `request`, past other messages of the same peer.
    fn wait_for(&self, request: &[u8], limit: std::time::Duration) -> Outcome {
        let deadline = Instant::now() + limit;
        let mut octets = vec![0; 65536];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT).into());
            }
            let left = TimeVal::microseconds(i64::try_from(left.as_micros())?.max(1));
            setsockopt(&self.socket, sockopt::ReceiveTimeout, &left)?;
            let length = match recv(self.socket.as_raw_fd(), &mut octets, MsgFlags::empty()) {
                Ok(length) => length,
                Err(nix::errno::Errno::EAGAIN) => continue,
                Err(error) => return Err(error.into()),
            };
            if answers(self.target, request, &octets[..length])? {
                return Ok(());
            }
        }
    }
}

/// Whether `octets`, as a raw socket gives them, answer `request`; an error when they answer it with
/// another payload.
fn answers(target: SocketAddr, request: &[u8], octets: &[u8]) -> Outcome<bool> {
    let (message, reply) = match target {
        // A raw IPv4 socket gives the packet with its header, whose length is in the first octet.
        SocketAddr::V4(_) => {
            let header = octets.first().map_or(0, |first| usize::from(first & 0xf) * 4);
            (octets.get(header..).unwrap_or_default(), 0)
        }
        SocketAddr::V6(_) => (octets, 129),
    };
    if message.len() < HEADER || message[0] != reply || message[4..8] != request[4..8] {
        return Ok(false);
    }
    if message[HEADER..] == request[HEADER..] {
        Ok(true)
    } else {
        Err("the answer has another payload".into())
    }
}

pub(super) fn echo_request(
    target: SocketAddr,
    identifier: u16,
    sequence: u16,
    size: usize,
) -> Vec<u8> {
    let mut message = vec![if target.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(Pattern::new(u64::from(sequence)).octets(size));
    if target.is_ipv4() {
        let sum = internet_checksum(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}
