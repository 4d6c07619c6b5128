//! Errors for the namespace about any packet it may have sent, read back at the other end of the tap.

use crate::input::Input;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use pasta_datapath::counters::Counters;
use pasta_datapath::link::Link;
use pasta_datapath::link::classify::Framing;
use pasta_datapath::link::icmp_error::{
    Offending, QUOTED_PAYLOAD, QUOTED_PAYLOAD_V4, QUOTED_TRANSPORT, Reporter, Unreachable, send,
};
use pasta_datapath::link::writer::FrameDevice;
use pasta_datapath::sys::tap::Tap;
use pasta_datapath::wire::checksum::Sum;
use pasta_datapath::wire::icmp::{self, Message};
use pasta_datapath::wire::ip::{self, IPV4_LEN, IPV6_LEN, PROTOCOL_ICMP, PROTOCOL_ICMPV6};
use pasta_datapath::wire::{ethernet, vnet};
use pasta_ipc::types::{Family, IfName, MacAddr, TapInfo, TapOffloads};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

/// Reads `octets` as a packet, what was wrong with it, and who says so.
///
/// # Panics
///
/// If the error that is sent is not a good packet from the one to the other that quotes the packet.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let offloads = [TapOffloads::None, TapOffloads::Tcp, TapOffloads::TcpAndUdp];
    let offloads = offloads[usize::from(input.octet()) % offloads.len()];
    let why = match input.octet() % 9 {
        0 => Some(Unreachable::Network),
        1 => Some(Unreachable::Host),
        2 => Some(Unreachable::Port),
        3 => Some(Unreachable::Prohibited),
        4 => Some(Unreachable::TooBig(input.u32())),
        5 => Some(Unreachable::TimeExceeded(input.octet())),
        6 => Some(Unreachable::Field(input.octet())),
        7 => {
            Unreachable::from_icmp(family(&mut input), (input.octet(), input.octet()), input.u32())
        }
        _ => Unreachable::from_errno(Errno::from_raw(i32::from(input.octet())), input.u32()),
    };
    let source = SocketAddr::new(input.ip(), input.u16());
    let destination = SocketAddr::new(input.ip(), input.u16());
    let address = match source {
        SocketAddr::V4(_) => input.ipv4().into(),
        SocketAddr::V6(_) => input.ipv6().into(),
    };
    let reporter = Reporter { address, hop_limit: input.octet() };
    let protocol = input.octet();
    let transport_len = input.u16();
    let transport = input.array::<QUOTED_TRANSPORT>();
    let payload = &vec![input.octet(); usize::from(input.u16() % 2048)][..];
    let offending = Offending { source, destination, protocol, transport, transport_len, payload };
    let Some(why) = why else { return };
    let Ok(mac) = MacAddr::try_from([2, 0, 0, 0, 0, 1]) else { return };

    let ((mut link, far), mut counters) = (link(offloads, mac), Counters::default());
    let sent = send(&mut link.writer(&mut counters), mac, reporter, &offending, why);
    let mut buffer = [0; 2048];
    let received = recv(far.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
    if source.is_ipv4() != destination.is_ipv4() {
        assert!(!sent && received.is_err(), "a packet of two families is quoted");
        return;
    }
    let is_about_error = match protocol {
        PROTOCOL_ICMP => icmp::is_error(Family::V4, offending.transport[0]),
        PROTOCOL_ICMPV6 => icmp::is_error(Family::V6, offending.transport[0]),
        _ => false,
    };
    assert_ne!(sent, is_about_error, "an error about an error, or none about a packet");
    if is_about_error {
        return;
    }
    let frame = received.ok().and_then(|len| buffer.get(..len)).unwrap_or_default();
    check_frame(frame, Framing::of(link.device.offloads()), mac, reporter, &offending);
}

fn family(input: &mut Input<'_>) -> Family {
    if input.bit() { Family::V4 } else { Family::V6 }
}

/// A tap and its far end, which keeps frames apart as the kernel's does.
fn link(offloads: TapOffloads, mac: MacAddr) -> (Link<Tap>, OwnedFd) {
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC);
    let pair = socketpair(AddressFamily::Unix, kind, None, flags);
    let (Ok((near, far)), Ok(name)) = (pair, IfName::try_from("tap0".to_owned())) else {
        panic!("no socket pair");
    };
    let tap = Tap::new(near, &TapInfo { name, mac, offloads });
    (Link::new(tap, MacAddr::OURS_BY_DEFAULT, MacAddr::OURS_BY_DEFAULT), far)
}

fn check_frame(
    octets: &[u8],
    framing: Framing,
    mac: MacAddr,
    reporter: Reporter,
    offending: &Offending<'_>,
) {
    let frame = match framing {
        Framing::Plain => Some(octets),
        Framing::Vnet => octets.strip_prefix(&vnet::COMPLETE),
    };
    let Some(Ok((header, packet))) = frame.map(ethernet::split) else { panic!("{octets:?}") };
    assert_eq!(header.destination, mac.octets());
    assert_eq!(header.source, MacAddr::OURS_BY_DEFAULT);
    let namespace = offending.source.ip();
    let (read, ether_type, protocol, quoted_header) = match namespace {
        IpAddr::V4(_) => (ip::parse_ipv4(packet), ethernet::TYPE_IPV4, PROTOCOL_ICMP, IPV4_LEN),
        IpAddr::V6(_) => (ip::parse_ipv6(packet), ethernet::TYPE_IPV6, PROTOCOL_ICMPV6, IPV6_LEN),
    };
    let Ok(read) = read else { panic!("{read:?}: {packet:?}") };
    assert_eq!((header.ether_type, read.protocol), (ether_type, protocol));
    let Reporter { address, hop_limit } = reporter;
    assert_eq!((read.source, read.destination), (address, namespace));
    assert_eq!(read.handling.hop_limit, hop_limit);
    let message = match namespace {
        IpAddr::V4(_) => icmp::parse_v4(read.payload),
        IpAddr::V6(_) => icmp::parse_v6(read.payload, address, namespace, hop_limit),
    };
    // Which of them are read is the affair of those that read errors.
    let is_whole = matches!(message, Ok(Message::Other | Message::Error { .. }));
    assert!(is_whole, "checksum is wrong, or it is no error: {message:?}");

    let quote = read.payload.get(icmp::LEN..).unwrap_or_default();
    let (quoted, transport) = quote.split_at(quoted_header.min(quote.len()));
    let most = if namespace.is_ipv4() { QUOTED_PAYLOAD_V4 } else { QUOTED_PAYLOAD };
    let payload = offending.payload.iter().take(most);
    assert!(transport.iter().eq(offending.transport.iter().chain(payload)), "{transport:?}");
    check_quoted(quoted, offending);
}

/// The quoted network header says what the packet was; its payload is cut off.
fn check_quoted(header: &[u8], offending: &Offending<'_>) {
    let (from, to) = (offending.source.ip(), offending.destination.ip());
    let len_at = |at: usize| match header.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => panic!("{header:?}"),
    };
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            assert_eq!(Sum::default().octets(header).folded(), 0xffff, "quoted checksum");
            assert_eq!(len_at(2), offending.transport_len.saturating_add(20));
            assert_eq!(header.get(9), Some(&offending.protocol));
            assert_eq!(header.get(12..), Some(&[from.octets(), to.octets()].concat()[..]));
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            assert_eq!(len_at(4), offending.transport_len);
            assert_eq!(header.get(6), Some(&offending.protocol));
            assert_eq!(header.get(8..), Some(&[from.octets(), to.octets()].concat()[..]));
        }
        _ => panic!("a packet of two families is quoted"),
    }
}
