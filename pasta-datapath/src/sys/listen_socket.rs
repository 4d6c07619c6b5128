//! What a listening socket has to be, whoever opened it, and what it is given.

use crate::sys;
use crate::sys::socket::receive_handling;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use pasta_ipc::socket::SocketKind;
use pasta_ipc::types::Transport;
use std::os::fd::{AsFd, OwnedFd};

/// Sets what every listener has, whoever opened it.
///
/// # Errors
///
/// `EINVAL` if it is no socket for `transport`, or may block.
pub fn prepare(fd: &OwnedFd, transport: Transport) -> Result<(), Errno> {
    let v6 = is_ipv6(fd, transport).ok_or(Errno::EINVAL)?;
    match transport {
        // Accepted sockets have all of it from the listener.
        Transport::Tcp => {
            setsockopt(fd, sockopt::TcpNoDelay, &true)?;
            // Where it fails, the backlog is larger.
            let _ = sys::fill_send_buffer(fd);
            setsockopt(fd, sockopt::OobInline, &true)
        }
        Transport::Udp => {
            // Each datagram says to which address it came, and answers leave from there.
            if v6 {
                setsockopt(fd, sockopt::Ipv6RecvPacketInfo, &true)?;
            } else {
                setsockopt(fd, sockopt::Ipv4PacketInfo, &true)?;
            }
            // Without these, every datagram is read by itself, and nobody learns why one did not arrive.
            let _ = sys::set_udp_gro(fd);
            let _ = setsockopt(fd, sockopt::Ipv4RecvErr, &true);
            let _ = receive_handling(fd, true);
            if v6 {
                let _ = setsockopt(fd, sockopt::Ipv6RecvErr, &true);
                let _ = receive_handling(fd, false);
            }
            Ok(())
        }
    }
}

/// Whether a socket is what was asked for.
pub fn is_of(fd: &OwnedFd, kind: SocketKind) -> bool {
    is_ipv6(fd, kind.transport) == Some(kind.ipv6)
}

/// The family of a socket, if it is one of IP for `transport` that does not block.
fn is_ipv6(fd: impl AsFd, transport: Transport) -> Option<bool> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).ok()?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        return None;
    }
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

    #[test]
    fn listener_accepts_and_tells_the_peer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let listener = OwnedFd::from(listener);
        prepare(&listener, Transport::Tcp).unwrap();
        assert!(is_of(&listener, SocketKind { ipv6: false, transport: Transport::Tcp }));
        assert!(!is_of(&listener, SocketKind { ipv6: true, transport: Transport::Tcp }));
        assert!(!is_of(&listener, SocketKind { ipv6: false, transport: Transport::Udp }));
        assert_eq!(prepare(&listener, Transport::Udp), Err(Errno::EINVAL));
        let client = std::net::TcpStream::connect(at).unwrap();
        let (accepted, peer) = sys::accept(&listener).unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(sys::local_address(&accepted).unwrap(), client.peer_addr().unwrap());
        assert_eq!(sys::accept(&listener).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn socket_that_may_block_is_refused() {
        let listener = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        assert!(!is_of(&listener, SocketKind { ipv6: false, transport: Transport::Tcp }));
        assert_eq!(prepare(&listener, Transport::Tcp), Err(Errno::EINVAL));
    }

    #[test]
    fn something_else_than_a_socket_is_refused() {
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert_eq!(prepare(&null, Transport::Tcp), Err(Errno::EINVAL));
    }
}
