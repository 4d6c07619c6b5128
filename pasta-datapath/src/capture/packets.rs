#![forbid(unsafe_code)]
//! Turns a frame with its virtio-net header into the packets of a wire: what the kernel does when it
//! segments a super-frame and completes a checksum (`skb_segment()`, `net/core/skbuff.c`).
//!
//! A frame that is not what its header says is recorded as it is: whoever debugs wants to see it.

use super::Header;
use crate::wire::checksum::{Sum, pseudo_header};
use crate::wire::vnet::{self, ChecksumState, Segmentation};
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Flags of a TCP header that belong to the last segment: FIN and PSH.
const LAST_ONLY: u8 = 0x01 | 0x08;
/// And to the first: CWR.
const FIRST_ONLY: u8 = 0x80;

/// Resolves frames; holds the storage for that.
#[derive(Debug, Default)]
pub struct Resolver {
    whole: Vec<u8>,
    packet: Vec<u8>,
}

/// Where the headers of a packet are.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Length of the IP header.
    network: usize,
    /// Length of all headers, from the start of the frame.
    headers: usize,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ipv6: bool,
}

impl Layout {
    /// Looks for headers as far as a super-frame has them: IP without extension headers, TCP or UDP.
    fn of(frame: &[u8]) -> Option<Self> {
        let network = frame.get(ETHERNET..)?;
        let ethertype = frame.get(12..14)?;
        let (length, source, destination, protocol, ipv6) = if ethertype == IPV4 {
            let length = usize::from(network.first()? & 0x0f) * 4;
            let address = |at: usize| {
                let octets: [u8; 4] = network.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::from(Ipv4Addr::from(octets)))
            };
            (length, address(12)?, address(16)?, *network.get(9)?, false)
        } else if ethertype == IPV6 {
            let address = |at: usize| {
                let octets: [u8; 16] = network.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::from(Ipv6Addr::from(octets)))
            };
            (IPV6_HEADER, address(8)?, address(24)?, *network.get(6)?, true)
        } else {
            return None;
        };
        let transport = network.get(length..)?;
        let (own, least) = match protocol {
            TCP => (usize::from(transport.get(12)? >> 4) * 4, TCP_HEADER),
            UDP => (UDP_HEADER, UDP_HEADER),
            _ => return None,
        };
        let headers = ETHERNET + length + own;
        let fits = own >= least && length >= 20 && headers <= frame.len();
        let found = Self { network: length, headers, source, destination, protocol, ipv6 };
        fits.then_some(found)
    }

    fn transport(&self) -> usize {
        ETHERNET + self.network
    }
}

impl Resolver {
    /// Calls `emit` for each packet that the frame in `pieces` stands for.
    pub fn resolve(&mut self, pieces: &[IoSlice<'_>], header: Header, mut emit: impl FnMut(&[u8])) {
        self.whole.clear();
        pieces.iter().for_each(|piece| self.whole.extend_from_slice(piece));
        let (received, frame) = match header {
            Header::None => return emit(&self.whole),
            Header::VirtioNet => match vnet::split(&self.whole) {
                Ok(split) => split,
                Err(_) => return emit(self.whole.get(vnet::LEN..).unwrap_or_default()),
            },
        };
        let size = match received.segmentation {
            Segmentation::None if received.checksum == ChecksumState::Unverified => {
                return emit(frame);
            }
            Segmentation::None => usize::MAX,
            Segmentation::Tcp(size) | Segmentation::Udp(size) => usize::from(size),
        };
        let Some(layout) = Layout::of(frame) else { return emit(frame) };
        let payload = frame.get(layout.headers..).unwrap_or_default();
        let count = payload.len().div_ceil(size).max(1);
        for index in 0..count {
            let from = index.saturating_mul(size).min(payload.len());
            let to = from.saturating_add(size).min(payload.len());
            let part = payload.get(from..to).unwrap_or_default();
            self.packet.clear();
            self.packet.extend_from_slice(frame.get(..layout.headers).unwrap_or_default());
            self.packet.extend_from_slice(part);
            finish(&mut self.packet, layout, Part { index, count, offset: from });
            emit(&self.packet);
        }
    }
}

/// Which part of a super-frame a packet is.
#[derive(Clone, Copy, Debug)]
struct Part {
    index: usize,
    count: usize,
    /// Octets of payload before it.
    offset: usize,
}

/// Writes lengths, numbers and checksums of one packet.
fn finish(packet: &mut [u8], layout: Layout, part: Part) {
    let (transport, total) = (layout.transport(), packet.len());
    // A frame is at most 64 KiB and some octets long, and so is each of its parts.
    let length = |octets: usize| u16::try_from(octets).unwrap_or(u16::MAX);
    let put = |packet: &mut [u8], at: usize, value: u16| {
        if let Some(field) = packet.get_mut(at..at + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    };
    let get = |packet: &[u8], at: usize| {
        packet.get(at..at + 2).and_then(|it| it.try_into().ok()).map_or(0, u16::from_be_bytes)
    };
    if layout.ipv6 {
        put(packet, ETHERNET + 4, length(total - ETHERNET - IPV6_HEADER));
    } else {
        put(packet, ETHERNET + 2, length(total - ETHERNET));
        let number = get(packet, ETHERNET + 4).wrapping_add(part.index as u16);
        put(packet, ETHERNET + 4, number);
        put(packet, ETHERNET + 10, 0);
        let header = packet.get(ETHERNET..transport).unwrap_or_default();
        let checksum = Sum::default().octets(header).checksum();
        put(packet, ETHERNET + 10, checksum);
    }
    let checksum_at = match layout.protocol {
        TCP => {
            let sequence: Option<[u8; 4]> =
                packet.get(transport + 4..transport + 8).and_then(|it| it.try_into().ok());
            let sequence = sequence.map_or(0, u32::from_be_bytes).wrapping_add(part.offset as u32);
            if let Some(field) = packet.get_mut(transport + 4..transport + 8) {
                field.copy_from_slice(&sequence.to_be_bytes());
            }
            if let Some(flags) = packet.get_mut(transport + 13) {
                if part.index + 1 < part.count {
                    *flags &= !LAST_ONLY;
                }
                if part.index > 0 {
                    *flags &= !FIRST_ONLY;
                }
            }
            transport + 16
        }
        _ => {
            put(packet, transport + 4, length(total - transport));
            transport + 6
        }
    };
    put(packet, checksum_at, 0);
    let segment = packet.get(transport..).unwrap_or_default();
    let sum = pseudo_header(
        layout.source,
        layout.destination,
        layout.protocol,
        length(total - transport),
    );
    let checksum = match sum.octets(segment).checksum() {
        // Zero would say that there is none (RFC 768).
        0 if layout.protocol == UDP => 0xffff,
        checksum => checksum,
    };
    put(packet, checksum_at, checksum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vnet::{Network, ToSend};

    /// A frame with `payload`, whose transport checksum is still to be made.
    fn frame(ipv6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let own = if protocol == TCP { 20 } else { 8 };
        let mut frame = vec![0; 12];
        let length = (own + payload.len()) as u16;
        if ipv6 {
            frame.extend(IPV6);
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend([0x20; 16]);
            frame.extend([0x30; 16]);
        } else {
            frame.extend(IPV4);
            frame.extend([0x45, 0]);
            frame.extend((length + 20).to_be_bytes());
            frame.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend([192, 0, 2, 1, 192, 0, 2, 2]);
        }
        if protocol == TCP {
            frame.extend([0, 80, 1, 2]);
            frame.extend(0xffff_fff0_u32.to_be_bytes());
            // FIN, PSH, ACK, CWR.
            frame.extend([0, 0, 0, 9, 0x50, 0x99, 1, 0, 0xab, 0xcd, 0, 0]);
        } else {
            frame.extend([0, 53, 1, 2]);
            frame.extend(length.to_be_bytes());
            frame.extend([0xab, 0xcd]);
        }
        frame.extend(payload);
        frame
    }

    fn resolved(octets: &[u8], segmentation: Segmentation, ipv6: bool) -> Vec<Vec<u8>> {
        let network = if ipv6 { Network::Ipv6 } else { Network::Ipv4 };
        let header =
            ToSend { transport: 0, checksum: 0, headers: 0, segmentation, network }.octets();
        let mut packets = Vec::new();
        Resolver::default().resolve(
            &[IoSlice::new(&header), IoSlice::new(octets)],
            Header::VirtioNet,
            |packet| packets.push(packet.to_vec()),
        );
        packets
    }

    /// Checks every length and checksum, and gives the payload.
    fn checked(packet: &[u8]) -> Vec<u8> {
        let layout = Layout::of(packet).unwrap();
        let transport = layout.transport();
        if layout.ipv6 {
            let length = u16::from_be_bytes([packet[18], packet[19]]);
            assert_eq!(usize::from(length), packet.len() - 54);
        } else {
            let length = u16::from_be_bytes([packet[16], packet[17]]);
            assert_eq!(usize::from(length), packet.len() - 14);
            assert_eq!(Sum::default().octets(&packet[14..transport]).folded(), 0xffff);
        }
        let length = (packet.len() - transport) as u16;
        let sum = pseudo_header(layout.source, layout.destination, layout.protocol, length);
        assert_eq!(sum.octets(&packet[transport..]).folded(), 0xffff);
        packet[layout.headers..].to_vec()
    }

    #[test]
    fn super_frame_becomes_segments_with_numbers_flags_and_checksums() {
        let payload: Vec<u8> = (0..2500_u32).map(|it| it as u8).collect();
        for ipv6 in [false, true] {
            let packets = resolved(&frame(ipv6, TCP, &payload), Segmentation::Tcp(1000), ipv6);
            assert_eq!(packets.len(), 3);
            let found: Vec<u8> = packets.iter().flat_map(|it| checked(it)).collect();
            assert_eq!(found, payload);
            for (index, packet) in packets.iter().enumerate() {
                let at = Layout::of(packet).unwrap().transport();
                let sequence = u32::from_be_bytes(packet[at + 4..at + 8].try_into().unwrap());
                assert_eq!(sequence, 0xffff_fff0_u32.wrapping_add(1000 * index as u32));
                assert_eq!(packet[at + 13], [0x90, 0x10, 0x19][index]);
            }
            if !ipv6 {
                assert_eq!(packets[2][18..20], [0x12, 0x36]);
            }
        }
    }

    #[test]
    fn datagrams_and_single_packets_get_their_checksums() {
        let payload = [7; 2100];
        for ipv6 in [false, true] {
            let packets = resolved(&frame(ipv6, UDP, &payload), Segmentation::Udp(700), ipv6);
            assert_eq!(packets.len(), 3);
            assert!(packets.iter().all(|packet| checked(packet) == [7; 700]));
            for protocol in [TCP, UDP] {
                let packets = resolved(&frame(ipv6, protocol, &[]), Segmentation::None, ipv6);
                assert_eq!(packets.len(), 1);
                assert!(checked(&packets[0]).is_empty());
            }
        }
    }

    #[test]
    fn frame_that_needs_nothing_or_is_not_understood_stays_as_it_is() {
        let mut whole = Vec::new();
        let bare = frame(false, TCP, b"data");
        let pieces = [&vnet::COMPLETE[..], &bare];
        let pieces = pieces.map(IoSlice::new);
        Resolver::default().resolve(&pieces, Header::VirtioNet, |it| whole.push(it.to_vec()));
        Resolver::default().resolve(&pieces[1..], Header::None, |it| whole.push(it.to_vec()));
        assert_eq!(whole, [bare.clone(), bare]);
        let mut short = frame(false, TCP, b"a data offset of two words");
        short[14 + 20 + 12] = 0x20;
        for odd in [&[][..], &[1; 20], &frame(false, 50, b"esp"), &short] {
            assert_eq!(resolved(odd, Segmentation::Tcp(100), false), [odd.to_vec()]);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_frame_gives_packets_without_panic(octets: Vec<u8>, gso in 0..7_u8, size: u16) {
            let mut header = vnet::COMPLETE;
            header[0] = 1;
            header[1] = gso;
            header[4..6].copy_from_slice(&size.to_ne_bytes());
            let pieces = [IoSlice::new(&header), IoSlice::new(&octets)];
            let mut total = 0;
            Resolver::default().resolve(&pieces, Header::VirtioNet, |it| total += it.len());
            // A part repeats the headers for at least one octet of payload.
            proptest::prop_assert!(total <= (octets.len() + 1) * 140);
        }
    }
}
