//! Datagrams of sockets that many peers talk to: from whom they come, and to which of our addresses.

use crate::flow::datagram::ReadDatagrams;
use crate::part::part;
use crate::port_forward::listeners::{DatagramAddresses, Way};
use crate::wire::ip::Handling;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Reads one datagram, or several of one size that the kernel has joined, from a socket that was asked
/// to say where each came to (`IP_PKTINFO`, ip(7); `IPV6_RECVPKTINFO`, ipv6(7)).
///
/// # Errors
///
/// As recvmsg(2), `EAGAIN` if nothing is waiting; `EPROTO` where the kernel does not say.
pub fn receive_from(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(ReadDatagrams, DatagramAddresses), Errno> {
    let mut control = [0_u8; 128];
    let message = loop {
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmsg::<SockaddrStorage>(fd.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(message) => {
                let (mut segment_size, mut local) = (None, None);
                let mut handling = Handling::TO_NAMESPACE;
                for record in message.cmsgs()? {
                    match record {
                        ControlMessageOwned::UdpGroSegments(size) => {
                            segment_size = u16::try_from(size).ok().filter(|size| *size > 0);
                        }
                        ControlMessageOwned::Ipv4PacketInfo(info) => {
                            // The local one; the header's may be a broadcast address (ip(7)).
                            let address = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                            local = Some(IpAddr::V4(address));
                        }
                        ControlMessageOwned::Ipv6PacketInfo(info) => {
                            local = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                        }
                        record => note_handling(&mut handling, &record),
                    }
                }
                let peer = message.address.as_ref().and_then(ip_address);
                let len = message.bytes;
                let truncated = message.flags.contains(MsgFlags::MSG_TRUNC);
                let segment_size = segment_size.filter(|size| usize::from(*size) < len);
                let read = ReadDatagrams { len, segment_size, truncated, handling };
                break (read, peer, local);
            }
        }
    };
    let (read, Some(peer), Some(local)) = message else { return Err(Errno::EPROTO) };
    Ok((read, DatagramAddresses { peer, local }))
}

/// Notes what a control message says of how a datagram was carried, if it is about that.
pub fn note_handling(handling: &mut Handling, record: &ControlMessageOwned) {
    // They are octets of the header, whatever their type here.
    match *record {
        ControlMessageOwned::Ipv4Tos(class) => handling.traffic_class = class,
        ControlMessageOwned::Ipv6TClass(class) => handling.traffic_class = class as u8,
        ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) => {
            handling.hop_limit = hops as u8;
        }
        _ => {}
    }
}

/// An IP address of the library's as one of ours.
pub fn ip_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|it| SocketAddrV4::from(*it).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|it| SocketAddrV6::from(*it).into()))
}

/// Sends one datagram, gathered from `slices`, on its `way`; with `segment_size`, several of that size at once.
///
/// # Errors
///
/// As sendmsg(2); `EINVAL` or `EIO` where the path cannot segment.
pub fn send_from(
    fd: BorrowedFd<'_>,
    way: &Way,
    slices: &[IoSlice<'_>],
    segment_size: Option<u16>,
) -> Result<(), Errno> {
    let Way { addresses: DatagramAddresses { peer, local }, interface, handling } = *way;
    let (to, index) = (SockaddrStorage::from(peer), interface.map_or(0, NonZeroU32::get));
    let (v4, v6);
    let from = match local {
        IpAddr::V4(address) => {
            let unset = libc::in_addr { s_addr: 0 };
            let source = libc::in_addr { s_addr: u32::from(address).to_be() };
            let ipi_ifindex = index as i32;
            v4 = libc::in_pktinfo { ipi_ifindex, ipi_spec_dst: source, ipi_addr: unset };
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        IpAddr::V6(address) => {
            // A link-local address means nothing without its link, which is the peer's.
            let scope = match peer {
                SocketAddr::V6(peer) if address.is_unicast_link_local() => peer.scope_id(),
                _ => index,
            };
            let source = libc::in6_addr { s6_addr: address.octets() };
            v6 = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: scope };
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let raw = fd.as_raw_fd();
    let is_left_to_kernel = interface.is_none() && local.to_canonical().is_unspecified();
    let Handling { hop_limit, traffic_class, .. } = handling;
    let (hops, class) = (hop_limit.into(), traffic_class.into());
    let is_v4 = peer.ip().to_canonical().is_ipv4();
    let hop_limit = (hop_limit != Handling::DEFAULT.hop_limit).then_some(match is_v4 {
        true => ControlMessage::Ipv4Ttl(&hops),
        false => ControlMessage::Ipv6HopLimit(&hops),
    });
    let traffic_class = (traffic_class != Handling::DEFAULT.traffic_class).then_some(match is_v4 {
        true => ControlMessage::Ipv4Tos(&handling.traffic_class),
        false => ControlMessage::Ipv6TClass(&class),
    });
    let segments = segment_size.as_ref().map(ControlMessage::UdpGsoSegments);
    let from = (!is_left_to_kernel).then_some(from);
    let mut control = [ControlMessage::Ipv6HopLimit(&hops); 4];
    let wanted = [segments, from, hop_limit, traffic_class].into_iter().flatten();
    let count = control.iter_mut().zip(wanted).map(|(to, message)| *to = message).count();
    let control = part(&control, ..count);
    loop {
        match sendmsg(raw, slices, control, flags, Some(&to)) {
            Err(Errno::EINTR) => continue,
            other => return other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::listen_socket;
    use pasta_ipc::socket::{ListenerAddress, SocketFamily};
    use pasta_ipc::types::Transport;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn answer_leaves_from_the_address_that_was_asked_in_both_families() {
        let port = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap().port();
        let (transport, address, interface) = (Transport::Udp, None, None);
        let at = ListenerAddress { transport, address, interface, port: port.try_into().unwrap() };
        let listener = at.open(SocketFamily::Both, pasta_ipc::socket::FreeBind::Off).unwrap();
        listen_socket::prepare(&listener, Transport::Udp).unwrap();
        for (ours, server) in [("127.0.0.1", "127.0.0.9"), ("::1", "::1")] {
            let ours: IpAddr = ours.parse().unwrap();
            let client = UdpSocket::bind((ours, 0)).unwrap();
            client.connect((server.parse::<IpAddr>().unwrap(), port)).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.send(b"question").unwrap();

            let mut buffer = [0; 100];
            // Loopback delivers before send() returns.
            let (read, addresses) = receive_from(listener.as_fd(), &mut buffer).unwrap();
            assert_eq!(&buffer[..read.len], b"question");
            assert_eq!(addresses.peer.ip().to_canonical(), ours);
            assert_eq!(addresses.local.to_canonical(), server.parse::<IpAddr>().unwrap());

            let handling = Handling::DEFAULT;
            let way = Way { addresses, interface: None, handling };
            send_from(listener.as_fd(), &way, &[IoSlice::new(b"answer")], None).unwrap();
            // A connected socket takes answers from the address it is connected to alone.
            let len = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"answer");
            let both = [IoSlice::new(b"fir"), IoSlice::new(b"sec")];
            send_from(listener.as_fd(), &way, &both, Some(3)).unwrap();
            for expected in [b"fir", b"sec"] {
                let len = client.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], expected);
            }
        }
        let nothing = receive_from(listener.as_fd(), &mut [0; 10]).unwrap_err();
        assert_eq!(nothing, Errno::EAGAIN);
    }
}
