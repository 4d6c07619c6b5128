#![forbid(unsafe_code)]
//! Frames for the namespace: headers in front of payload that is not copied.
//!
//! The headers of one flow are made once ([`Path`]); lengths and checksums are filled in for each frame. What
//! the frames are written to is behind [`FrameDevice`], so that this runs without a tap.

use crate::counters::{Counters, DropReason};
use crate::link::classify::Framing;
use crate::part::{part, part_mut};
use crate::wire::checksum::{Sum, pseudo_header};
use crate::wire::ip::{
    FRAGMENT_LEN, Fragmentation, HOP_LIMIT, Handling, IPV4_LEN, IPV6_LEN, MORE_FRAGMENTS,
    PROTOCOL_FRAGMENT, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, Piece,
    ipv4_header, ipv4_header_with, ipv6_header,
};
use crate::wire::vnet::{Network, Segmentation};
use crate::wire::window::Mss;
use crate::wire::{ethernet, tcp, udp, vnet};
use nix::errno::Errno;
use pasta_ipc::types::{MacAddr, Mtu, TapOffloads};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

/// Largest frame read or written, virtio-net header and Ethernet header included.
pub const MAX_FRAME: usize = vnet::LEN + ethernet::LEN + 65535;

/// Longest header in front of payload: virtio-net, Ethernet, IPv6, TCP with options.
const MAX_HEADERS: usize = vnet::LEN + ethernet::LEN + IPV6_LEN + tcp::LEN + tcp::MAX_OPTIONS_LEN;

/// Why no frame could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// None is waiting.
    WouldBlock,
    /// One was lost: the kernel could not hand it over.
    Lost,
    /// The tap was deleted or moved away, with what the kernel said.
    Gone(Errno),
}

/// What frames are read from and written to.
pub trait FrameDevice {
    /// What the kernel does for us on the frames that we write.
    fn offloads(&self) -> TapOffloads;

    /// Reads one frame to the front of `buffer`, which has room for [`MAX_FRAME`].
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError>;

    /// Writes one frame.
    ///
    /// # Errors
    ///
    /// [`DropReason::NoTap`] or [`DropReason::TapFull`].
    fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<(), DropReason>;
}

/// The link and network headers of one flow towards the namespace, made once.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Ethernet and network header; length and checksum of the latter are filled in for each frame.
    headers: [u8; ethernet::LEN + IPV6_LEN],
    /// Sum of an IPv4 header without its total length; of the pseudo-header without its length.
    ip_sum: Sum,
    pseudo_sum: Sum,
    mac: MacAddr,
    source: SocketAddr,
    destination: SocketAddr,
    /// Whether routers in the namespace may fragment what goes there. Not TCP: its sender learns of the MTU.
    fragmentation: Fragmentation,
    /// Largest packet of the way in the namespace, as far as known.
    mtu: u16,
    /// Hop limit and traffic class in the headers.
    carries: (u8, u8),
}

/// Smallest MTUs that a router is believed: what every IPv6 link has (RFC 8200, section 5); of IPv4, what Linux
/// believes (`ip_rt_min_pmtu`, net/ipv4/route.c).
const MIN_PATH_MTU_V4: u16 = 552;
const MIN_PATH_MTU_V6: u16 = 1280;

impl Path {
    /// From `source`, as the namespace sees it, to `destination` in the namespace at `mac`. The
    /// addresses are of one family: they came from one packet.
    pub fn new(
        our_mac: MacAddr,
        mac: MacAddr,
        protocol: u8,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Self {
        let mut headers = [0; ethernet::LEN + IPV6_LEN];
        let (link, network) = headers.split_at_mut(ethernet::LEN);
        let mut ip_sum = Sum::default();
        let fragmentation = match protocol {
            PROTOCOL_TCP => Fragmentation::Forbidden,
            _ => Fragmentation::Allowed,
        };
        let ether_type = match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let handling = Handling { hop_limit: HOP_LIMIT, traffic_class: 0, fragmentation };
                let mut header = ipv4_header_with(from, to, protocol, 0, handling);
                // Total length and checksum: filled in with each frame, and the identification.
                header.iter_mut().skip(2).take(2).for_each(|octet| *octet = 0);
                header.iter_mut().skip(10).take(2).for_each(|octet| *octet = 0);
                ip_sum = ip_sum.octets(&header);
                network.iter_mut().zip(header).for_each(|(to, from)| *to = from);
                ethernet::TYPE_IPV4
            }
            (from, to) => {
                let v6 = |address| match address {
                    IpAddr::V4(a) => a.to_ipv6_mapped(),
                    IpAddr::V6(a) => a,
                };
                network.copy_from_slice(&ipv6_header(v6(from), v6(to), protocol, 0));
                ethernet::TYPE_IPV6
            }
        };
        link.copy_from_slice(&ethernet::header(mac.octets(), our_mac, ether_type));
        let pseudo_sum = pseudo_header(source.ip(), destination.ip(), protocol, 0);
        let (mtu, carries) = (u16::MAX, (HOP_LIMIT, 0));
        Self { headers, ip_sum, pseudo_sum, mac, source, destination, fragmentation, mtu, carries }
    }

    /// As it is, for a packet whose hop limit and traffic class are these.
    #[must_use]
    pub fn carried(&self, handling: Handling) -> Self {
        let mut carried = *self;
        carried.carry(handling);
        carried
    }

    /// Has packets from now on hop limit and traffic class as these.
    #[inline]
    pub fn carry(&mut self, handling: Handling) {
        let Handling { hop_limit, traffic_class, .. } = handling;
        if self.carries != (hop_limit, traffic_class) {
            self.carries = (hop_limit, traffic_class);
            self.set_handling(hop_limit, traffic_class);
        }
    }

    #[cold]
    fn set_handling(&mut self, hop_limit: u8, traffic_class: u8) {
        let is_ipv6 = self.is_ipv6();
        let network = part_mut(&mut self.headers, ethernet::LEN..);
        if is_ipv6 {
            let fields = [(0, 0x60 | traffic_class >> 4), (1, traffic_class << 4), (7, hop_limit)];
            for (at, value) in fields {
                network.iter_mut().skip(at).take(1).for_each(|octet| *octet = value);
            }
        } else {
            for (at, value) in [(1, traffic_class), (8, hop_limit)] {
                network.iter_mut().skip(at).take(1).for_each(|octet| *octet = value);
            }
            self.ip_sum = Sum::default().octets(part(network, ..IPV4_LEN));
        }
    }

    /// The address the namespace sees.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// The namespace's end.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// The link-layer address of the namespace's end.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// The namespace's end is at `mac`.
    #[inline]
    pub fn set_mac(&mut self, mac: MacAddr) {
        if mac != self.mac {
            self.mac = mac;
            self.headers.iter_mut().zip(mac.octets()).for_each(|(to, from)| *to = from);
        }
    }

    /// A router in the namespace says that it carries no larger packets than this; believed for the rest of the flow.
    pub fn learn_mtu(&mut self, mtu: u32) {
        let least = if self.is_ipv6() { MIN_PATH_MTU_V6 } else { MIN_PATH_MTU_V4 };
        self.mtu = self.mtu.min(u16::try_from(mtu).unwrap_or(u16::MAX).max(least));
    }

    /// The largest packet that can go all the way, over a link of this MTU.
    pub fn mtu(&self, link: Mtu) -> u16 {
        self.mtu.min(link.get())
    }

    fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }

    fn network(&self) -> Network {
        if self.is_ipv6() { Network::Ipv6 } else { Network::Ipv4 }
    }

    fn network_len(&self) -> usize {
        if self.is_ipv6() { IPV6_LEN } else { IPV4_LEN }
    }

    /// Most octets of transport header and payload that fit one packet.
    pub fn max_transport(&self) -> usize {
        if self.is_ipv6() { 65535 } else { 65535 - IPV4_LEN }
    }
}

/// Headers being put together, front to back.
struct Head {
    octets: [u8; MAX_HEADERS],
    len: usize,
}

impl Head {
    fn new() -> Self {
        Self { octets: [0; MAX_HEADERS], len: 0 }
    }

    fn push(&mut self, part: &[u8]) {
        let room = self.octets.iter_mut().skip(self.len);
        room.zip(part).for_each(|(to, from)| *to = *from);
        self.len = (self.len + part.len()).min(MAX_HEADERS);
    }

    fn octets(&self) -> &[u8] {
        part(&self.octets, ..self.len)
    }

    /// Ethernet and network header of `path`.
    fn of(path: &Path) -> Self {
        let mut head = Self::new();
        head.push(part(&path.headers, ..ethernet::LEN + path.network_len()));
        head
    }

    /// Writes a field of the network header behind an Ethernet header.
    fn put(&mut self, at: usize, value: u16) {
        let octets = self.octets.iter_mut().skip(ethernet::LEN + at);
        octets.zip(value.to_be_bytes()).for_each(|(to, from)| *to = from);
    }
}

/// Ethernet and network header of a fragment with `len` octets.
fn fragment_header(path: &Path, len: usize, piece: Piece) -> Head {
    let mut head = Head::of(path);
    // Both are of one packet, whose length was checked.
    let (len, offset) = (len as u16, piece.offset as u16);
    if path.is_ipv6() {
        head.put(4, FRAGMENT_LEN as u16 + len);
        let fields = part(&path.headers, ethernet::LEN + 6..).first_chunk().copied();
        let [protocol, hop_limit] = fields.unwrap_or([PROTOCOL_UDP, HOP_LIMIT]);
        // The next header, beside the hop limit.
        head.put(6, u16::from_be_bytes([PROTOCOL_FRAGMENT, hop_limit]));
        head.push(&piece.header(protocol));
        return head;
    }
    let total = IPV4_LEN as u16 + len;
    // The lower half is what IPv4 has room for.
    let identification = piece.identification as u16;
    let fields = offset >> 3 | if piece.more { MORE_FRAGMENTS } else { 0 };
    head.put(2, total);
    head.put(4, identification);
    head.put(6, fields);
    head.put(10, path.ip_sum.word(total).word(identification).word(fields).checksum());
    head
}

/// Writes frames to the namespace and counts them; lent for a moment.
#[derive(Debug)]
pub struct FrameWriter<'a, D> {
    /// Where they go.
    pub device: &'a mut D,
    /// Our link-layer address.
    pub our_mac: MacAddr,
    /// What becomes of them.
    pub counters: &'a mut Counters,
}

impl<D: FrameDevice> FrameWriter<'_, D> {
    /// How frames begin.
    pub fn framing(&self) -> Framing {
        Framing::of(self.device.offloads())
    }

    /// Whether the kernel cuts UDP super-frames for us.
    pub fn segments_udp(&self) -> bool {
        self.device.offloads() == TapOffloads::TcpAndUdp
    }

    /// Writes one frame whose checksums are complete; `parts` begin with the Ethernet header.
    pub fn write_complete(&mut self, parts: &[&[u8]]) -> bool {
        let mut slices = [IoSlice::new(&[]); 8];
        let vnet: &[u8] = match self.framing() {
            Framing::Vnet => &vnet::COMPLETE,
            Framing::Plain => &[],
        };
        let all = std::iter::once(vnet).chain(parts.iter().copied());
        slices.iter_mut().zip(all).for_each(|(slice, part)| *slice = IoSlice::new(part));
        self.write(&slices)
    }

    /// Writes an ICMP or ICMPv6 message whose own checksum is complete, in a packet of its own.
    pub fn write_icmp(&mut self, path: &Path, head: &[u8], body: &[u8]) -> bool {
        let network = self.network_header(path, head.len() + body.len(), 1);
        self.write_complete(&[network.octets(), head, body])
    }

    /// As [`FrameWriter::write_icmp`], in fragments if the link's `mtu` is too small.
    pub fn write_large_icmp(&mut self, path: &Path, mtu: Mtu, head: &[u8], body: &[u8]) -> bool {
        if path.network_len() + head.len() + body.len() <= usize::from(path.mtu(mtu)) {
            return self.write_icmp(path, head, body);
        }
        self.write_fragments(path, mtu, head, body)
    }

    /// Writes a UDP datagram that the link's `mtu` is too small for, in fragments.
    pub fn write_large_udp(&mut self, path: &Path, mtu: Mtu, payload: &[u8]) -> bool {
        let len = udp::LEN + payload.len();
        if len > path.max_transport() {
            self.counters.drop(DropReason::TooLarge);
            return false;
        }
        let checksum = udp::checksum(path.source, path.destination, payload);
        let (source, destination) = (path.source.port(), path.destination.port());
        let header = udp::Header { source, destination, checksum };
        // Checked right above.
        let header = udp::header(&header, payload.len() as u16);
        self.write_fragments(path, mtu, &header, payload)
    }

    /// Writes a packet whose checksum is complete in fragments (RFC 791, section 3.2; RFC 8200, section 4.5). What
    /// follows one that the tap does not take is of no use.
    fn write_fragments(&mut self, path: &Path, mtu: Mtu, header: &[u8], payload: &[u8]) -> bool {
        let fixed = path.network_len() + if path.is_ipv6() { FRAGMENT_LEN } else { 0 };
        // In units of 8 octets; a link of IP carries at least one.
        let room = (usize::from(path.mtu(mtu)).saturating_sub(fixed) & !7).max(8);
        let identification = self.next_identification(1);
        let total = header.len() + payload.len();
        let split = |from: usize, to: usize| {
            let behind = |at: usize| at.saturating_sub(header.len());
            let front = part(header, from.min(header.len())..to.min(header.len()));
            (front, part(payload, behind(from)..behind(to)))
        };
        for start in (0..total).step_by(room) {
            let end = total.min(start + room);
            let piece = Piece { identification, offset: start, more: end < total };
            let network = fragment_header(path, end - start, piece);
            let (front, rest) = split(start, end);
            if !self.write_complete(&[network.octets(), front, rest]) {
                return false;
            }
        }
        true
    }

    /// The identification of the next packet that may be fragmented; `packets` are numbered from there.
    fn next_identification(&mut self, packets: usize) -> u32 {
        let next = self.counters.datagrams_to_tap;
        self.counters.datagrams_to_tap += packets as u64;
        // The lower bits are what numbers wrap in.
        next as u32
    }

    /// Writes a TCP segment; a payload larger than `segment_size` stands for several.
    pub fn write_tcp(
        &mut self,
        path: &Path,
        header: &tcp::ToSend,
        segment_size: Mss,
        payload: &[u8],
    ) -> bool {
        let segmentation = if payload.len() > usize::from(segment_size) {
            Segmentation::Tcp(segment_size.get())
        } else {
            Segmentation::None
        };
        let len = header.header_len();
        let (source, destination) = (path.source.port(), path.destination.port());
        self.write_transport(path, len, tcp::CHECKSUM_OFFSET, segmentation, payload, |checksum| {
            let mut octets = [0; tcp::LEN + tcp::MAX_OPTIONS_LEN];
            header.write(source, destination, checksum, &mut octets);
            octets
        })
    }

    /// Writes a UDP datagram, or with `segment_size` several of that size, the last possibly shorter.
    pub fn write_udp(&mut self, path: &Path, segment_size: Option<u16>, payload: &[u8]) -> bool {
        let segmentation = segment_size.map_or(Segmentation::None, Segmentation::Udp);
        let (source, destination) = (path.source.port(), path.destination.port());
        let payload_len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        let offset = udp::CHECKSUM_OFFSET;
        self.write_transport(path, udp::LEN, offset, segmentation, payload, |checksum| {
            udp::header(&udp::Header { source, destination, checksum }, payload_len)
        })
    }

    /// Writes a datagram of our own, whose checksum is complete, to a link-layer address that may be a
    /// group's; both ends are of one family.
    pub fn write_datagram(
        &mut self,
        hardware: [u8; 6],
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
    ) -> bool {
        let len = udp::LEN + payload.len();
        let (Ok(payload_len), Ok(len)) = (u16::try_from(payload.len()), u16::try_from(len)) else {
            self.counters.drop(DropReason::TooLarge);
            return false;
        };
        let ports = (source.port(), destination.port());
        let make = |checksum| {
            let (source, destination) = ports;
            udp::header(&udp::Header { source, destination, checksum }, payload_len)
        };
        let sum = pseudo_header(source.ip(), destination.ip(), PROTOCOL_UDP, len);
        let checksum = match sum.octets(&make(0)).octets(payload).checksum() {
            // A checksum of zero would mean that there is none (RFC 768).
            0 => 0xffff,
            checksum => checksum,
        };
        let udp = make(checksum);
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let link = ethernet::header(hardware, self.our_mac, ethernet::TYPE_IPV4);
                let network = ipv4_header(from, to, PROTOCOL_UDP, len);
                self.write_complete(&[&link, &network, &udp, payload])
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let link = ethernet::header(hardware, self.our_mac, ethernet::TYPE_IPV6);
                let network = ipv6_header(from, to, PROTOCOL_UDP, len);
                self.write_complete(&[&link, &network, &udp, payload])
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Headers that `make` writes for a checksum field, in front of `payload`. The kernel finishes
    /// the checksum, or we do where the tap has no virtio-net header.
    fn write_transport<const N: usize>(
        &mut self,
        path: &Path,
        header_len: usize,
        checksum_offset: u16,
        segmentation: Segmentation,
        payload: &[u8],
        make: impl Fn(u16) -> [u8; N],
    ) -> bool {
        let transport_len = header_len + payload.len();
        if transport_len > path.max_transport() {
            self.counters.drop(DropReason::TooLarge);
            return false;
        }
        // Checked against 65535 right above.
        let pseudo = path.pseudo_sum.word(transport_len as u16);
        let packets = match segmentation {
            Segmentation::Udp(size) => payload.len().div_ceil(usize::from(size).max(1)),
            Segmentation::None | Segmentation::Tcp(_) => 1,
        };
        let network = self.network_header(path, transport_len, packets);
        let mut head = Head::new();
        let transport = match self.framing() {
            Framing::Vnet => {
                let offset = ethernet::LEN + path.network_len();
                let vnet = vnet::ToSend {
                    transport: offset as u16,
                    checksum: checksum_offset,
                    headers: (offset + header_len) as u16,
                    segmentation,
                    network: path.network(),
                };
                head.push(&vnet.octets());
                make(pseudo.folded())
            }
            Framing::Plain => {
                let unsummed = make(0);
                let header = part(&unsummed, ..header_len);
                let checksum = match pseudo.octets(header).octets(payload).checksum() {
                    // A UDP checksum of zero would mean that there is none (RFC 768).
                    0 => 0xffff,
                    checksum => checksum,
                };
                make(checksum)
            }
        };
        head.push(network.octets());
        head.push(part(&transport, ..header_len));
        self.write(&[IoSlice::new(head.octets()), IoSlice::new(payload)])
    }

    /// Ethernet and network header of `path` for a packet that carries `transport_len` octets, and stands for so many
    /// packets.
    fn network_header(&mut self, path: &Path, transport_len: usize, packets: usize) -> Head {
        let mut head = Head::of(path);
        if path.is_ipv6() {
            head.put(4, u16::try_from(transport_len).unwrap_or(u16::MAX));
            return head;
        }
        let total = u16::try_from(IPV4_LEN + transport_len).unwrap_or(u16::MAX);
        // One that nobody fragments needs no number (RFC 6864).
        let identification = match path.fragmentation {
            Fragmentation::Forbidden => 0,
            // The lower half is what IPv4 has room for.
            Fragmentation::Allowed => self.next_identification(packets) as u16,
        };
        head.put(2, total);
        head.put(4, identification);
        head.put(10, path.ip_sum.word(total).word(identification).checksum());
        head
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> bool {
        match self.device.write(slices) {
            Ok(()) => {
                self.counters.octets_to_tap +=
                    slices.iter().map(|slice| slice.len() as u64).sum::<u64>();
                self.counters.to_tap += 1;
                true
            }
            Err(reason) => {
                self.counters.drop(reason);
                false
            }
        }
    }
}

/// The protocol number of an ICMP packet between addresses like `address`.
pub fn icmp_protocol(address: IpAddr) -> u8 {
    if address.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 }
}

/// Protocol numbers for [`Path::new`].
pub const TCP: u8 = PROTOCOL_TCP;
/// As [`TCP`].
pub const UDP: u8 = PROTOCOL_UDP;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::classify::{Content, classify};
    use crate::wire::seq::Seq;

    /// A tap that keeps the last frame.
    struct Device {
        offloads: TapOffloads,
        written: Vec<u8>,
    }

    impl FrameDevice for Device {
        fn offloads(&self) -> TapOffloads {
            self.offloads
        }

        fn read(&mut self, _: &mut [u8]) -> Result<usize, ReadError> {
            Err(ReadError::WouldBlock)
        }

        fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<(), DropReason> {
            self.written = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            Ok(())
        }
    }

    /// What `write` writes to a tap with `offloads`, and how the frame begins.
    fn written(
        offloads: TapOffloads,
        write: impl FnOnce(&mut FrameWriter<'_, Device>) -> bool,
    ) -> (Vec<u8>, Framing) {
        let (mut device, mut counters) =
            (Device { offloads, written: Vec::new() }, Counters::default());
        let our_mac = MacAddr::OURS_BY_DEFAULT;
        let mut writer = FrameWriter { device: &mut device, our_mac, counters: &mut counters };
        assert!(write(&mut writer));
        let framing = writer.framing();
        assert_eq!((counters.to_tap, counters.octets_to_tap), (1, device.written.len() as u64));
        (device.written, framing)
    }

    fn paths(protocol: u8) -> [Path; 2] {
        let mac = MacAddr::try_from([2, 0, 0, 0, 0, 1]).unwrap();
        let path = |source: &str, destination: &str| {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            Path::new(MacAddr::OURS_BY_DEFAULT, mac, protocol, source, destination)
        };
        [
            path("198.51.100.1:80", "192.0.2.7:1024"),
            path("[2001:db8:1::1]:80", "[2001:db8::7]:1024"),
        ]
    }

    #[test]
    fn segments_read_back_with_and_without_offloads_in_both_families() {
        let header = tcp::ToSend {
            seq: Seq::from(1),
            ack: Seq::from(2),
            flags: tcp::Flags::ACK,
            window: 9.into(),
            syn: None,
            sack: tcp::SackBlocks::default(),
        };
        for offloads in [TapOffloads::Tcp, TapOffloads::None] {
            for path in paths(TCP) {
                let (octets, framing) = written(offloads, |tap| {
                    tap.write_tcp(&path, &header, Mss::new(1460), &[7; 1001])
                });
                let frame = classify(&octets, framing).unwrap();
                let Content::Tcp { source, destination, header, payload } = frame.content else {
                    panic!("not a segment");
                };
                assert_eq!((source, destination), (path.source(), path.destination()));
                assert_eq!((header.seq, header.ack), (Seq::from(1), Seq::from(2)));
                assert_eq!(payload, [7; 1001]);
            }
        }
    }

    #[test]
    fn datagrams_read_back_with_and_without_offloads_in_both_families() {
        for offloads in [TapOffloads::TcpAndUdp, TapOffloads::None] {
            for path in paths(UDP) {
                for len in [0, 1, 1472, 60_000] {
                    let (octets, framing) =
                        written(offloads, |tap| tap.write_udp(&path, None, &vec![0xff; len]));
                    let frame = classify(&octets, framing).unwrap();
                    let Content::Udp { payload, .. } = frame.content else {
                        panic!("not a datagram");
                    };
                    assert_eq!(payload, vec![0xff; len]);
                }
            }
        }
    }

    #[test]
    fn more_than_a_packet_can_hold_is_refused_and_counted() {
        let mut device = Device { offloads: TapOffloads::TcpAndUdp, written: Vec::new() };
        let (our_mac, mut counters) = (MacAddr::OURS_BY_DEFAULT, Counters::default());
        let mut writer = FrameWriter { device: &mut device, our_mac, counters: &mut counters };
        assert!(!writer.write_udp(&paths(UDP)[0], None, &vec![0; 65508]));
        assert_eq!(counters.dropped(DropReason::TooLarge), 1);
    }
}
