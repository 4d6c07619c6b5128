//! Frames put together by hand: right ones to ask with, and broken ones to annoy with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// Everybody on the link.
pub const BROADCAST: MacAddress = [0xff; 6];

/// EtherTypes (IEEE registry).
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The Internet checksum of `parts` one after the other (RFC 1071); all but the last have an even
/// length.
pub fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub const fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    /// An octet.
    pub const fn octet(&mut self) -> u8 {
        self.number() as u8
    }
}

/// An Ethernet frame.
fn frame(to: MacAddress, from: MacAddress, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from[..], &kind.to_be_bytes()[..], payload].concat()
}

/// An ARP request for `target` (RFC 826); `sender` 0.0.0.0 makes it a probe (RFC 5227).
pub fn arp_request(from: MacAddress, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
    body.extend(from);
    body.extend(sender.octets());
    body.extend([0; 6]);
    body.extend(target.octets());
    frame(BROADCAST, from, ETHERTYPE_ARP, &body)
}

/// The sender of an ARP reply about `target`, if `frame` is one.
pub fn arp_reply_from(frame: &[u8], target: Ipv4Addr) -> Option<MacAddress> {
    let body = frame.strip_prefix(frame.get(..12)?)?.strip_prefix(&ETHERTYPE_ARP.to_be_bytes())?;
    let is_reply = body.get(6..8)? == [0, 2] && body.get(14..18)? == target.octets();
    if is_reply { body.get(8..14)?.try_into().ok() } else { None }
}

/// A neighbour solicitation for `target` (RFC 4861 section 4.3); from `::` it is that of duplicate
/// address detection and has no source link-layer address.
pub fn neighbour_solicitation(from: MacAddress, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let low = &target.octets()[13..];
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(low[0]), {
        u16::from_be_bytes([low[1], low[2]])
    });
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    if !source.is_unspecified() {
        message.extend([1, 1]);
        message.extend(from);
    }
    let to = [0x33, 0x33, 0xff, low[0], low[1], low[2]];
    let packet = ipv6(source, group, 58, 255, &icmpv6(source, group, message));
    frame(to, from, ETHERTYPE_IPV6, &packet)
}

/// The link-layer address that a neighbour advertisement gives for `target`, if `frame` is one.
pub fn advertised(frame: &[u8], target: Ipv6Addr) -> Option<MacAddress> {
    let packet = frame.get(12..)?.strip_prefix(&ETHERTYPE_IPV6.to_be_bytes())?;
    let message = packet.get(40..)?;
    let is_ours = packet.get(6)? == &58 && message.first()? == &136;
    if !is_ours || message.get(8..24)? != target.octets() {
        return None;
    }
    // The target link-layer address option (RFC 4861 section 4.6.1) is the only one to expect.
    message.get(24..)?.strip_prefix(&[2, 1])?.get(..6)?.try_into().ok()
}

/// A router solicitation from `source` (RFC 4861 section 4.1).
pub fn router_solicitation(from: MacAddress, source: Ipv6Addr) -> Vec<u8> {
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let message = [&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &from].concat();
    let packet = ipv6(source, group, 58, 255, &icmpv6(source, group, message));
    frame([0x33, 0x33, 0, 0, 0, 2], from, ETHERTYPE_IPV6, &packet)
}

/// The ICMPv6 message in `frame`, if it is one without extension headers.
pub fn icmpv6_message(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(12..)?.strip_prefix(&ETHERTYPE_IPV6.to_be_bytes())?;
    packet.get(40..).filter(|_| packet.get(6) == Some(&58))
}

/// A datagram of UDP over IPv4, without a checksum of its own.
pub fn datagram_v4(
    from: MacAddress,
    to: MacAddress,
    (source, destination): ((Ipv4Addr, u16), (Ipv4Addr, u16)),
    payload: &[u8],
) -> Vec<u8> {
    let udp = udp_header(source.1, destination.1, payload.len(), 0);
    let packet = ipv4(source.0, destination.0, 17, &[&udp[..], payload].concat());
    frame(to, from, ETHERTYPE_IPV4, &packet)
}

/// A datagram of UDP over IPv6.
pub fn datagram_v6(
    from: MacAddress,
    to: MacAddress,
    (source, destination): ((Ipv6Addr, u16), (Ipv6Addr, u16)),
    payload: &[u8],
) -> Vec<u8> {
    let (from_octets, to_octets) = (source.0.octets(), destination.0.octets());
    let unsummed = udp_header(source.1, destination.1, payload.len(), 0);
    let length = (8 + payload.len() as u32).to_be_bytes();
    let pseudo = [&from_octets[..], &to_octets, &length, &[0, 0, 0, 17]].concat();
    let sum = internet_checksum(&[&pseudo, &unsummed, payload]);
    let udp = udp_header(source.1, destination.1, payload.len(), sum);
    let packet = ipv6(source.0, destination.0, 17, 255, &[&udp[..], payload].concat());
    frame(to, from, ETHERTYPE_IPV6, &packet)
}

/// A datagram of UDP with some octets in it, of the family of `source`.
pub fn datagram(
    from: MacAddress,
    to: MacAddress,
    (source, destination): (SocketAddr, SocketAddr),
    payload: &[u8],
) -> Option<Vec<u8>> {
    let ports = (source.port(), destination.port());
    Some(match (source.ip(), destination.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            datagram_v4(from, to, ((a, ports.0), (b, ports.1)), payload)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            datagram_v6(from, to, ((a, ports.0), (b, ports.1)), payload)
        }
        _ => return None,
    })
}

/// The first segment of a TCP connection (RFC 9293 section 3.1).
pub fn syn(
    from: MacAddress,
    to: MacAddress,
    (source, destination): (SocketAddr, SocketAddr),
) -> Option<Vec<u8>> {
    let mut segment = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    // Sequence number, no acknowledgement, five words of header, SYN, a window.
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    Some(match (source.ip(), destination.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let pseudo = [&a.octets()[..], &b.octets(), &[0, 6, 0, 20]].concat();
            let sum = internet_checksum(&[&pseudo, &segment]);
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
            frame(to, from, ETHERTYPE_IPV4, &ipv4(a, b, 6, &segment))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let pseudo = [&a.octets()[..], &b.octets(), &[0, 0, 0, 20, 0, 0, 0, 6]].concat();
            let sum = internet_checksum(&[&pseudo, &segment]);
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
            frame(to, from, ETHERTYPE_IPV6, &ipv6(a, b, 6, 64, &segment))
        }
        _ => return None,
    })
}

/// An echo request without a payload (RFC 792, RFC 4443 section 4.1), of the family of `source`.
pub fn echo_request(
    from: MacAddress,
    to: MacAddress,
    (source, destination): (IpAddr, IpAddr),
) -> Option<Vec<u8>> {
    let mut message = vec![8, 0, 0, 0, 0, 7, 0, 1];
    Some(match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let sum = internet_checksum(&[&message]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            frame(to, from, ETHERTYPE_IPV4, &ipv4(a, b, 1, &message))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            message[0] = 128;
            frame(to, from, ETHERTYPE_IPV6, &ipv6(a, b, 58, 64, &icmpv6(a, b, message)))
        }
        _ => return None,
    })
}

/// Where the packet in `frame` ends, as its own header says; the end of `frame` for another one.
pub fn end_of_packet(frame: &[u8]) -> usize {
    let length =
        |at: usize| Some(usize::from(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?])));
    let end = match frame.get(12..14) {
        Some([0x08, 0x00]) => length(16).map(|it| 14 + it),
        Some([0x86, 0xdd]) => length(18).map(|it| 54 + it),
        // Of Ethernet and IPv4.
        Some([0x08, 0x06]) => Some(14 + 28),
        _ => None,
    };
    end.unwrap_or(frame.len())
}

fn udp_header(source: u16, destination: u16, payload: usize, sum: u16) -> Vec<u8> {
    let length = u16::try_from(8 + payload).unwrap_or(u16::MAX);
    [source, destination, length, sum].into_iter().flat_map(u16::to_be_bytes).collect()
}

/// What the datagram to `port` in `frame` carries, if it is one over IPv4 without options.
pub fn payload_v4(frame: &[u8], port: u16) -> Option<&[u8]> {
    let packet = frame.get(12..)?.strip_prefix(&ETHERTYPE_IPV4.to_be_bytes())?;
    let is_udp = packet.first()? == &0x45 && packet.get(9)? == &17;
    payload(packet.get(20..).filter(|_| is_udp)?, port)
}

/// The same over IPv6 without extension headers.
pub fn payload_v6(frame: &[u8], port: u16) -> Option<&[u8]> {
    let packet = frame.get(12..)?.strip_prefix(&ETHERTYPE_IPV6.to_be_bytes())?;
    payload(packet.get(40..).filter(|_| packet.get(6) == Some(&17))?, port)
}

fn payload(datagram: &[u8], port: u16) -> Option<&[u8]> {
    datagram.get(8..).filter(|_| datagram.get(2..4) == Some(&port.to_be_bytes()[..]))
}

fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, 58]].concat();
    let sum = internet_checksum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let fixed = [0x60, 0, 0, 0, length[0], length[1], next, hops];
    [&fixed[..], &from.octets(), &to.octets(), payload].concat()
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = internet_checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    header
}

/// Who a frame of the fuzzer claims to come from and go to.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Ethernet address of the namespace's link.
    pub from: MacAddress,
    /// Ethernet address of the other end.
    pub to: MacAddress,
    /// The namespace's IPv4 address and one to talk to.
    pub ipv4: (Ipv4Addr, Ipv4Addr),
    /// The namespace's IPv6 address and one to talk to.
    pub ipv6: (Ipv6Addr, Ipv6Addr),
}

/// A frame that begins as a right one and is then damaged in zero to eight places, cut short or
/// drawn out. One in sixteen is noise altogether.
pub fn damaged_frame(random: &mut Random, ends: &Ends) -> Vec<u8> {
    /// Longest piece of noise, in octets: more than fits the smallest headers, less than the MTU.
    const NOISE: usize = 600;
    if random.below(16) == 0 {
        let length = 14 + random.below(NOISE);
        return (0..length).map(|_| random.octet()).collect();
    }
    let mut octets = right_frame(random, ends);
    for _ in 0..random.below(9) {
        // Headers matter most: three of four hits are within the first 96 octets.
        let reach = if random.below(4) == 0 { octets.len() } else { octets.len().min(96) };
        let position = random.below(reach);
        octets[position] = match random.below(4) {
            0 => 0,
            1 => 0xff,
            2 => octets[position] ^ (1 << random.below(8)),
            _ => random.octet(),
        };
    }
    match random.below(6) {
        0 => octets.truncate(14 + random.below(octets.len() - 13)),
        1 => octets.extend((0..random.below(NOISE)).map(|i| i as u8)),
        _ => {}
    }
    octets
}

/// A frame with nothing wrong in it apart from checksums of its transport.
fn right_frame(random: &mut Random, ends: &Ends) -> Vec<u8> {
    let payload: Vec<u8> = (0..random.below(200)).map(|_| random.octet()).collect();
    let (kind, packet) = match random.below(12) {
        0 => return arp_request(ends.from, ends.ipv4.0, ends.ipv4.1),
        1 => return neighbour_solicitation(ends.from, ends.ipv6.0, ends.ipv6.1),
        2..=6 => {
            let (protocol, message) = transport(random, &payload, 1);
            (
                ETHERTYPE_IPV4,
                with_options(random, ipv4(ends.ipv4.0, ends.ipv4.1, protocol, &message)),
            )
        }
        _ => {
            let (mut next, mut message) = transport(random, &payload, 58);
            for _ in 0..random.below(4) {
                // Hop-by-hop, routing, fragment, destination options, authentication, no next header.
                let header = [0, 43, 44, 60, 51, 59][random.below(6)];
                let words = random.below(4);
                let mut extension = vec![next, words as u8];
                extension.extend((0..6 + 8 * words).map(|_| random.octet()));
                extension.extend(message);
                (next, message) = (header, extension);
            }
            (ETHERTYPE_IPV6, ipv6(ends.ipv6.0, ends.ipv6.1, next, 64, &message))
        }
    };
    frame(ends.to, ends.from, kind, &packet)
}

/// A TCP segment, a UDP datagram to some port or an ICMP message, with its protocol number.
fn transport(random: &mut Random, payload: &[u8], icmp: u8) -> (u8, Vec<u8>) {
    let port = [53_u16, 67, 68, 80, 123, 546, 547, 5353, 40000][random.below(9)];
    let source = 1024 + random.below(60000) as u16;
    let mut message = Vec::new();
    let protocol = match random.below(3) {
        0 => {
            message.extend(source.to_be_bytes());
            message.extend(port.to_be_bytes());
            message.extend(random.number().to_be_bytes());
            // Header of five to fifteen words, and any flags.
            let words = 5 + random.below(11);
            message.extend([(words as u8) << 4, random.octet() & 0x3f, 0xff, 0xff, 0, 0, 0, 0]);
            message
                .extend((0..(words - 5) * 4).map(|_| [0, 1, 2, 3, 4, 5, 8, 0xff][random.below(8)]));
            6
        }
        1 => {
            message.extend(source.to_be_bytes());
            message.extend(port.to_be_bytes());
            let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
            message.extend(length.to_be_bytes());
            message.extend([0, 0]);
            17
        }
        _ => {
            let kind = [0, 3, 8, 11, 128, 129, 133, 134, 135, 136, 137, 143][random.below(12)];
            message.extend([kind, 0, 0, 0]);
            message.extend((random.number() as u32).to_be_bytes());
            icmp
        }
    };
    message.extend(payload);
    (protocol, message)
}

/// Sometimes turns an IPv4 packet into a fragment or gives it a header with options.
fn with_options(random: &mut Random, mut packet: Vec<u8>) -> Vec<u8> {
    match random.below(6) {
        0 => packet[6] = 0x20 | random.octet() & 0x1f,
        1 => {
            let words = 1 + random.below(10);
            packet[0] = 0x45 + words as u8;
            let options: Vec<u8> = (0..words * 4).map(|_| random.octet()).collect();
            packet.splice(20..20, options);
        }
        _ => return packet,
    }
    let header = usize::from(packet[0] & 0xf) * 4;
    packet[10..12].fill(0);
    let sum = internet_checksum(&[&packet[..header]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The IPv4 part of an address, if it is one.
pub const fn as_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_example_in_rfc_1071() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet_checksum(&[&octets]), !0xddf2);
    }

    #[test]
    fn damaged_frames_are_frames_and_repeat_with_their_seed() {
        let ends = Ends {
            from: [2, 0, 0, 0, 0, 1],
            to: [2, 0, 0, 0, 0, 2],
            ipv4: (Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 1)),
            ipv6: (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED),
        };
        let (mut first, mut second) = (Random::new(5), Random::new(5));
        for _ in 0..10_000 {
            let frame = damaged_frame(&mut first, &ends);
            assert!((14..=1514).contains(&frame.len()), "{} octets", frame.len());
            assert_eq!(frame, damaged_frame(&mut second, &ends));
        }
    }
}
