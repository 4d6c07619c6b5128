//! Octets from the tap → what they are. Made once; nothing behind this looks at raw octets again.

use crate::counters::DropReason;
use crate::link::icmp_error::Unreachable;
use crate::part::part;
use crate::wire::checksum::pseudo_header;
use crate::wire::ip::{
    self, Fragmentation, Handling, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP,
    Packet, PacketError, Piece,
};
use crate::wire::seq::Seq;
use crate::wire::vnet::{self, ChecksumState, Segmentation};
use crate::wire::{Malformed, arp, dhcpv4, dhcpv6, ethernet, icmp, quoted, tcp, udp};
use pasta_ipc::types::{Family, MacAddr, TapOffloads};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4};

/// How frames on the tap begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// With a virtio-net header.
    Vnet,
    /// With the Ethernet header.
    Plain,
}

impl Framing {
    /// That of a tap with `offloads`.
    pub fn of(offloads: TapOffloads) -> Self {
        match offloads {
            TapOffloads::None => Self::Plain,
            TapOffloads::Tcp | TapOffloads::TcpAndUdp => Self::Vnet,
        }
    }
}

/// A frame that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Who sent it.
    pub mac: MacAddr,
    /// How what it carries is to be carried on; of no meaning where that goes no further.
    pub handling: Handling,
    /// What it is.
    pub content: Content<'a>,
}

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Who has an IPv4 address?
    Arp(arp::Request),
    /// Who has an IPv6 address?
    NeighbourSolicitation {
        /// The asker; unspecified while it only probes for a duplicate.
        source: Ipv6Addr,
        /// The address asked for.
        target: Ipv6Addr,
    },
    /// Someone asks for routers.
    RouterSolicitation {
        /// The asker; unspecified while it has no address.
        source: Ipv6Addr,
    },
    /// Someone has an address, by ARP or neighbour advertisement, asked or not.
    NeighbourAnswer {
        /// The address.
        address: IpAddr,
        /// Where it is, by what the message says; the frame itself may come from elsewhere.
        at: MacAddr,
    },
    /// A datagram to a DHCP server, whichever.
    Dhcp {
        /// Sender; has no address while it only looks for one.
        source: SocketAddrV4,
        /// Receiver; may be everybody.
        destination: SocketAddrV4,
        /// What it carries.
        payload: &'a [u8],
    },
    /// A datagram to all DHCPv6 servers.
    Dhcpv6 {
        /// Sender.
        source: Ipv6Addr,
        /// What it carries.
        payload: &'a [u8],
    },
    /// A part of a packet.
    Fragment(Packet<'a>, Piece),
    /// A ping to somewhere.
    Echo {
        /// The pinging host.
        source: IpAddr,
        /// Whom it pings.
        destination: IpAddr,
        /// The pinging program.
        id: u16,
        /// Sequence number and payload.
        body: &'a [u8],
    },
    /// A packet of ours did not arrive.
    Error(ErrorReport),
    /// A TCP segment, or several that the kernel left in one.
    Tcp {
        /// Sender.
        source: SocketAddr,
        /// Receiver.
        destination: SocketAddr,
        /// The header.
        header: tcp::Header,
        /// What it carries.
        payload: &'a [u8],
    },
    /// A UDP datagram, or several of one flow.
    Udp {
        /// Sender.
        source: SocketAddr,
        /// Receiver.
        destination: SocketAddr,
        /// What it carries.
        payload: &'a [u8],
        /// If it stands for several: the size of each but the last.
        segment_size: Option<u16>,
    },
}

/// An error that came for a packet of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorReport {
    /// What is wrong with the way.
    pub why: Unreachable,
    /// What the packet carried.
    pub protocol: u8,
    /// Where it came from: an address that is not the namespace's.
    pub remote: SocketAddr,
    /// Where it went.
    pub namespace: SocketAddr,
    /// Its sequence number, if it was of TCP.
    pub seq: Seq,
}

/// Says what the frame `octets` is.
///
/// # Errors
///
/// Why it is to be dropped.
pub fn classify(octets: &[u8], framing: Framing) -> Result<Frame<'_>, DropReason> {
    let (meta, frame) = match framing {
        Framing::Vnet => vnet::split(octets)?,
        Framing::Plain => {
            let checksum = ChecksumState::Unverified;
            (vnet::Received { checksum, segmentation: Segmentation::None }, octets)
        }
    };
    let (header, payload) = ethernet::split(frame)?;
    let (handling, content) = match header.ether_type {
        ethernet::TYPE_ARP => match arp::parse(payload)? {
            arp::Message::Request(request) => (Handling::DEFAULT, Content::Arp(request)),
            arp::Message::Reply { sender_mac, sender } => {
                let answer = Content::NeighbourAnswer { address: sender.into(), at: sender_mac };
                (Handling::DEFAULT, answer)
            }
            arp::Message::Other => return Err(DropReason::NeighbourNotOurs),
        },
        ethernet::TYPE_IPV4 => handled(ip::read_ipv4(payload)?, meta)?,
        ethernet::TYPE_IPV6 => handled(ip::read_ipv6(payload)?, meta)?,
        _ => return Err(DropReason::Unsupported),
    };
    Ok(Frame { mac: header.source, handling, content })
}

fn handled<'a>(
    (packet, piece): (Packet<'a>, Option<Piece>),
    meta: vnet::Received,
) -> Result<(Handling, Content<'a>), DropReason> {
    let content = match piece {
        None => content(&packet, meta)?,
        Some(piece) => {
            check_possible(packet.source, packet.destination)?;
            Content::Fragment(packet, piece)
        }
    };
    Ok((packet.handling, content))
}

fn content<'a>(packet: &Packet<'a>, meta: vnet::Received) -> Result<Content<'a>, DropReason> {
    let Packet { source, destination, protocol, handling, payload } = *packet;
    let hop_limit = handling.hop_limit;
    if let (PROTOCOL_ICMPV6, IpAddr::V6(source)) = (protocol, source) {
        let message = icmp::parse_v6(payload, source.into(), destination, hop_limit)?;
        // Before addresses are checked: a probe comes from the unspecified address, and an
        // advertisement that nobody asked for goes to a group.
        let is_whole = handling.fragmentation == Fragmentation::Forbidden;
        match message {
            icmp::Message::EchoRequest { .. }
            | icmp::Message::Error { .. }
            | icmp::Message::Other => {}
            // Neighbour discovery is not fragmented (RFC 6980, section 5).
            _ if !is_whole => return Err(DropReason::Malformed),
            icmp::Message::NeighbourSolicitation { target } => {
                return Ok(Content::NeighbourSolicitation { source, target });
            }
            icmp::Message::NeighbourAdvertisement { target, mac } => {
                let at = mac.ok_or(DropReason::NeighbourNotOurs)?;
                return Ok(Content::NeighbourAnswer { address: target.into(), at });
            }
            icmp::Message::RouterSolicitation => {
                if !source.is_unspecified() && is_impossible(source.into()) {
                    return Err(DropReason::ImpossibleSource);
                }
                return Ok(Content::RouterSolicitation { source });
            }
        }
    }
    // Before addresses are checked: a client that has none asks everybody, and of DHCPv6 a group.
    let port = match protocol {
        PROTOCOL_UDP => udp::split(payload).ok().map(|(header, _)| header.destination),
        _ => None,
    };
    match (source, destination, port) {
        (IpAddr::V6(source), IpAddr::V6(dhcpv6::ALL_SERVERS), Some(dhcpv6::SERVER_PORT)) => {
            return match datagram(packet, meta)? {
                Content::Udp { payload, segment_size: None, .. } => {
                    Ok(Content::Dhcpv6 { source, payload })
                }
                _ => Err(DropReason::Malformed),
            };
        }
        (IpAddr::V4(_), _, Some(dhcpv4::SERVER_PORT)) => {
            return match datagram(packet, meta)? {
                Content::Udp {
                    source: SocketAddr::V4(source),
                    destination: SocketAddr::V4(destination),
                    payload,
                    segment_size: None,
                } => Ok(Content::Dhcp { source, destination, payload }),
                // Several requests in one are none.
                _ => Err(DropReason::Malformed),
            };
        }
        _ => {}
    }
    check_possible(source, destination)?;
    // It should not have been sent (RFC 1122, section 3.2.1.7).
    if hop_limit == 0 {
        return Err(DropReason::Malformed);
    }
    let message = match protocol {
        PROTOCOL_TCP => return segment(packet, meta),
        PROTOCOL_UDP => return datagram(packet, meta),
        PROTOCOL_ICMP if source.is_ipv4() => icmp::parse_v4(payload)?,
        PROTOCOL_ICMPV6 if source.is_ipv6() => {
            icmp::parse_v6(payload, source, destination, hop_limit)?
        }
        _ => return Err(DropReason::Unsupported),
    };
    match message {
        icmp::Message::EchoRequest { id, body } => {
            Ok(Content::Echo { source, destination, id, body })
        }
        icmp::Message::Error { error, quote } => {
            Ok(Content::Error(error_report(destination, error, quote)?))
        }
        _ => Err(DropReason::Unsupported),
    }
}

/// The `error` that was sent to `destination` for what it quotes.
fn error_report(
    destination: IpAddr,
    error: icmp::Error,
    quote: &[u8],
) -> Result<ErrorReport, DropReason> {
    let family = Family::of(destination);
    let icmp::Error { kind, code, value } = error;
    let why = Unreachable::from_icmp(family, (kind, code), value).ok_or(DropReason::Unsupported)?;
    let quoted = quoted::parse(family, quote)?;
    // It goes to who has sent the packet.
    if quoted.source != destination {
        return Err(DropReason::Malformed);
    }
    let [from, to] = quoted.ports();
    let [.., s0, s1, s2, s3] = quoted.transport;
    Ok(ErrorReport {
        why,
        protocol: quoted.protocol,
        remote: SocketAddr::new(quoted.source, from),
        namespace: SocketAddr::new(quoted.destination, to),
        seq: Seq::from(u32::from_be_bytes([s0, s1, s2, s3])),
    })
}

fn segment<'a>(packet: &Packet<'a>, meta: vnet::Received) -> Result<Content<'a>, DropReason> {
    verify(packet, meta)?;
    let (header, payload) = tcp::split(packet.payload)?;
    let source = endpoint(packet.source, header.source)?;
    let destination = endpoint(packet.destination, header.destination)?;
    Ok(Content::Tcp { source, destination, header, payload })
}

fn datagram<'a>(packet: &Packet<'a>, meta: vnet::Received) -> Result<Content<'a>, DropReason> {
    let (header, payload) = udp::split(packet.payload)?;
    // IPv4 allows datagrams without a checksum; IPv6 does not (RFC 8200, section 8.1).
    match (header.checksum, packet.source) {
        (0, IpAddr::V4(_)) => {}
        // What is behind the length of a datagram is not of it (RFC 768; RFC 9868).
        _ => verify_octets(packet, part(packet.payload, ..udp::LEN + payload.len()), meta)?,
    }
    let segment_size = match meta.segmentation {
        Segmentation::Udp(size) if usize::from(size) < payload.len() => Some(size),
        _ => None,
    };
    let source = endpoint(packet.source, header.source)?;
    let destination = endpoint(packet.destination, header.destination)?;
    Ok(Content::Udp { source, destination, payload, segment_size })
}

fn verify(packet: &Packet<'_>, meta: vnet::Received) -> Result<(), DropReason> {
    verify_octets(packet, packet.payload, meta)
}

/// Verifies the checksum over `octets`, the front of the packet's payload that is of its protocol.
fn verify_octets(
    packet: &Packet<'_>,
    octets: &[u8],
    meta: vnet::Received,
) -> Result<(), DropReason> {
    if meta.checksum == ChecksumState::Trusted {
        return Ok(());
    }
    let Packet { source, destination, protocol, .. } = *packet;
    let len = u16::try_from(octets.len()).map_err(|_| DropReason::Malformed)?;
    let sum = pseudo_header(source, destination, protocol, len).octets(octets);
    if sum.folded() == 0xffff { Ok(()) } else { Err(DropReason::Malformed) }
}

fn endpoint(address: IpAddr, port: u16) -> Result<SocketAddr, DropReason> {
    if port == 0 {
        Err(DropReason::ImpossibleDestination)
    } else {
        Ok(SocketAddr::new(address, port))
    }
}

/// Checks the addresses of a packet that is to be carried.
///
/// # Errors
///
/// The counter of what is impossible.
pub fn check_possible(source: IpAddr, destination: IpAddr) -> Result<(), DropReason> {
    if is_impossible(source) {
        return Err(DropReason::ImpossibleSource);
    }
    if is_impossible(destination) {
        return Err(DropReason::ImpossibleDestination);
    }
    Ok(())
}

/// Addresses that a packet on a link between hosts cannot come from, and that we carry nothing to
/// (RFC 1122, section 3.2.1.3; RFC 4291, sections 2.5.2 to 2.7; RFC 4038 for mapped addresses).
pub fn is_impossible(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [first, ..] = a.octets();
            first == 0 || a.is_loopback() || a.is_multicast() || a.is_broadcast()
        }
        IpAddr::V6(a) => {
            let embedded = a.to_ipv4_mapped().is_some();
            a.is_unspecified() || a.is_loopback() || a.is_multicast() || embedded
        }
    }
}

impl From<Malformed> for DropReason {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<PacketError> for DropReason {
    fn from(error: PacketError) -> Self {
        match error {
            // Fragments are read as such.
            PacketError::Malformed | PacketError::TooManyExtensions | PacketError::Fragment => {
                Self::Malformed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::{ipv4_header, ipv6_header};
    use std::net::Ipv4Addr;

    const MAC: MacAddr = MacAddr::OURS_BY_DEFAULT;
    const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const THERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn frame(vnet: [u8; vnet::LEN], ether_type: u16, parts: &[&[u8]]) -> Vec<u8> {
        let mut octets = vnet.to_vec();
        octets.extend(ethernet::header([0xff; 6], MAC, ether_type));
        parts.iter().for_each(|part| octets.extend(*part));
        octets
    }

    fn udp_frame(source: Ipv4Addr, checksum: u16, vnet: [u8; vnet::LEN]) -> Vec<u8> {
        let udp = udp::header(&udp::Header { source: 9, destination: 53, checksum }, 2);
        let ip = ipv4_header(source, THERE, PROTOCOL_UDP, 10);
        frame(vnet, ethernet::TYPE_IPV4, &[&ip, &udp, &[1, 2]])
    }

    /// As the headers that we write have it.
    fn made() -> Handling {
        Handling { hop_limit: 255, ..Handling::DEFAULT }
    }

    fn to_finish() -> [u8; vnet::LEN] {
        let segmentation = Segmentation::None;
        vnet::ToSend {
            transport: 34,
            checksum: 6,
            headers: 42,
            segmentation,
            network: vnet::Network::Ipv4,
        }
        .octets()
    }

    #[test]
    fn unfinished_checksum_is_trusted_and_a_wrong_one_is_not() {
        let octets = udp_frame(HERE, 0x1234, to_finish());
        let got = classify(&octets, Framing::Vnet).unwrap();
        let expected = Content::Udp {
            source: (HERE, 9).into(),
            destination: (THERE, 53).into(),
            payload: &[1, 2],
            segment_size: None,
        };
        assert_eq!(got, Frame { mac: MAC, handling: made(), content: expected });
        let octets = udp_frame(HERE, 0x1234, vnet::COMPLETE);
        assert_eq!(classify(&octets, Framing::Vnet), Err(DropReason::Malformed));
        let octets = udp_frame(HERE, 0, vnet::COMPLETE);
        assert!(classify(&octets, Framing::Vnet).is_ok(), "IPv4 needs none");
    }

    /// RFC 768 has a length of its own; what is behind is not summed (RFC 9868).
    #[test]
    fn octets_behind_a_datagram_are_no_part_of_it() {
        let sum = udp::checksum((HERE, 9).into(), (THERE, 53).into(), &[1, 2]);
        let udp = udp::header(&udp::Header { source: 9, destination: 53, checksum: sum }, 2);
        let ip = ipv4_header(HERE, THERE, PROTOCOL_UDP, 14);
        let octets = frame(vnet::COMPLETE, ethernet::TYPE_IPV4, &[&ip, &udp, &[1, 2, 9, 9, 9, 9]]);
        let content = classify(&octets, Framing::Vnet).map(|frame| frame.content);
        let Ok(Content::Udp { payload, .. }) = content else { panic!("{content:?}") };
        assert_eq!(payload, [1, 2]);
    }

    #[test]
    fn frames_without_vnet_header_are_read_too() {
        let octets = udp_frame(HERE, 0, vnet::COMPLETE);
        assert!(classify(&octets[vnet::LEN..], Framing::Plain).is_ok());
    }

    #[test]
    fn impossible_sources_are_refused() {
        for source in [
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(224, 0, 0, 1),
            Ipv4Addr::new(0, 1, 2, 3),
        ] {
            let octets = udp_frame(source, 0, vnet::COMPLETE);
            assert_eq!(classify(&octets, Framing::Vnet), Err(DropReason::ImpossibleSource));
        }
        for source in [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, HERE.to_ipv6_mapped()] {
            let ip = ipv6_header(source, Ipv6Addr::from(1 << 120), PROTOCOL_TCP, 0);
            let octets = frame(vnet::COMPLETE, ethernet::TYPE_IPV6, &[&ip]);
            assert_eq!(classify(&octets, Framing::Vnet), Err(DropReason::ImpossibleSource));
        }
    }

    #[test]
    fn replies_and_advertisements_say_who_is_where() {
        let at = MacAddr::try_from([2, 0, 0, 0, 0, 1]).unwrap();
        let asked = arp::Request { sender_mac: MAC, sender: THERE, target: HERE };
        let octets = frame(vnet::COMPLETE, ethernet::TYPE_ARP, &[&arp::reply(&asked, at)]);
        let content = Content::NeighbourAnswer { address: HERE.into(), at };
        let handling = Handling::DEFAULT;
        assert_eq!(classify(&octets, Framing::Vnet), Ok(Frame { mac: MAC, handling, content }));
        let handling = made();

        let [here, there, all]: [Ipv6Addr; 3] =
            ["2001:db8::7", "fe80::1", "ff02::1"].map(|it| it.parse().unwrap());
        let len = icmp::NEIGHBOUR_LEN as u16;
        let ip = ipv6_header(here, there, PROTOCOL_ICMPV6, len);
        let advertised = icmp::neighbour_advertisement(here, there, here, at);
        let octets = frame(vnet::COMPLETE, ethernet::TYPE_IPV6, &[&ip, &advertised]);
        let content = Content::NeighbourAnswer { address: here.into(), at };
        assert_eq!(classify(&octets, Framing::Vnet), Ok(Frame { mac: MAC, handling, content }));

        // As one that nobody asked for: to all, and without the flag that says otherwise.
        let mut unasked = advertised;
        unasked[4] = 0x20;
        unasked[2..4].fill(0);
        let sum = pseudo_header(here.into(), all.into(), PROTOCOL_ICMPV6, len).octets(&unasked);
        unasked[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
        let ip = ipv6_header(here, all, PROTOCOL_ICMPV6, len);
        let octets = frame(vnet::COMPLETE, ethernet::TYPE_IPV6, &[&ip, &unasked]);
        let content = Content::NeighbourAnswer { address: here.into(), at };
        assert_eq!(classify(&octets, Framing::Vnet), Ok(Frame { mac: MAC, handling, content }));
    }

    #[test]
    fn answers_that_do_not_say_where_are_not_ours() {
        let mut reverse = arp::request(MAC, HERE, THERE);
        reverse[7] = 3;
        let octets = frame(vnet::COMPLETE, ethernet::TYPE_ARP, &[&reverse]);
        assert_eq!(classify(&octets, Framing::Vnet), Err(DropReason::NeighbourNotOurs));

        let [here, there]: [Ipv6Addr; 2] = ["2001:db8::7", "fe80::1"].map(|it| it.parse().unwrap());
        let mut advertised = icmp::neighbour_advertisement(here, there, here, MAC)[..24].to_vec();
        advertised[2..4].fill(0);
        let sum = pseudo_header(here.into(), there.into(), PROTOCOL_ICMPV6, 24).octets(&advertised);
        advertised[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
        let ip = ipv6_header(here, there, PROTOCOL_ICMPV6, 24);
        let octets = frame(vnet::COMPLETE, ethernet::TYPE_IPV6, &[&ip, &advertised]);
        assert_eq!(classify(&octets, Framing::Vnet), Err(DropReason::NeighbourNotOurs));
    }

    #[test]
    fn every_cut_of_a_frame_is_refused_without_a_panic() {
        let octets = udp_frame(HERE, 0, vnet::COMPLETE);
        for len in 0..octets.len() {
            assert!(classify(&octets[..len], Framing::Vnet).is_err(), "{len} octets");
        }
    }

    #[test]
    fn foreign_ether_types_and_protocols_are_unsupported() {
        let octets = frame(vnet::COMPLETE, 0x88cc, &[&[0; 50]]);
        assert_eq!(classify(&octets, Framing::Vnet), Err(DropReason::Unsupported));
        let ip = ipv4_header(HERE, THERE, 132, 0);
        let octets = frame(vnet::COMPLETE, ethernet::TYPE_IPV4, &[&ip]);
        assert_eq!(classify(&octets, Framing::Vnet), Err(DropReason::Unsupported));
    }
}
