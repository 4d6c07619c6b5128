//! Good frames of every kind that the namespace sends: what mutations start from.

use pasta_datapath::wire::checksum::{Sum, pseudo_header};
use pasta_datapath::wire::ip::{
    PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, ipv4_header, ipv6_header,
};
use pasta_datapath::wire::vnet::{self, Network, Segmentation, ToSend};
use pasta_datapath::wire::{arp, ethernet, icmp, udp};
use pasta_ipc::types::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const MAC: MacAddr = MacAddr::OURS_BY_DEFAULT;
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const HERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
const THERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// What the namespace is asked.
const ASKED: arp::Request = arp::Request { sender_mac: MAC, sender: THERE, target: HERE };

/// Payload of frames that stand for several, and the size that it is to be cut into.
const LARGE: [u8; 200] = [0xa5; 200];
const PIECE: u16 = 64;

/// Options of a SYN: MSS 1460, SACK permitted, time stamps, no-operation, window scale 7.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

/// Hop-by-hop options with a router alert, destination options with padding.
const EXTENSIONS: [u8; 16] = [60, 0, 5, 2, 0, 0, 1, 0, PROTOCOL_UDP, 0, 1, 4, 0, 0, 0, 0];

/// Names and octets; all begin with a virtio-net header.
pub fn good() -> Vec<(&'static str, Vec<u8>)> {
    let solicitation = solicitation();
    let unfinished = |transport, checksum, headers, segmentation, ipv6| {
        let network = if ipv6 { Network::Ipv6 } else { Network::Ipv4 };
        ToSend { transport, checksum, headers, segmentation, network }.octets()
    };
    let (v4, v6): ([IpAddr; 2], [IpAddr; 2]) =
        ([HERE.into(), THERE.into()], [HERE6.into(), THERE6.into()]);
    let none = Segmentation::None;
    vec![
        ("arp", link(vnet::COMPLETE, ethernet::TYPE_ARP, &arp::request(MAC, HERE, THERE))),
        ("arp-reply", link(vnet::COMPLETE, ethernet::TYPE_ARP, &arp::reply(&ASKED, MAC))),
        ("ns", packet(vnet::COMPLETE, v6, PROTOCOL_ICMPV6, &solicitation)),
        (
            "na",
            packet(
                vnet::COMPLETE,
                v6,
                PROTOCOL_ICMPV6,
                &icmp::neighbour_advertisement(HERE6, THERE6, HERE6, MAC),
            ),
        ),
        ("echo4", packet(vnet::COMPLETE, v4, PROTOCOL_ICMP, &echo(v4, 8))),
        ("echo6", packet(vnet::COMPLETE, v6, PROTOCOL_ICMPV6, &echo(v6, 128))),
        ("udp4", packet(vnet::COMPLETE, v4, PROTOCOL_UDP, &datagram(v4, &[1, 2, 3]))),
        ("udp6", packet(vnet::COMPLETE, v6, PROTOCOL_UDP, &datagram(v6, &[1, 2, 3]))),
        ("syn4", packet(vnet::COMPLETE, v4, PROTOCOL_TCP, &segment(v4, 2, &SYN_OPTIONS, &[]))),
        ("tcp6", packet(vnet::COMPLETE, v6, PROTOCOL_TCP, &segment(v6, 0x18, &[], b"GET /"))),
        (
            "unfinished4",
            packet(
                unfinished(34, 16, 54, none, false),
                v4,
                PROTOCOL_TCP,
                &segment(v4, 16, &[], &[7]),
            ),
        ),
        (
            "tso4",
            packet(
                unfinished(34, 16, 54, Segmentation::Tcp(PIECE), false),
                v4,
                PROTOCOL_TCP,
                &segment(v4, 0x18, &[], &LARGE),
            ),
        ),
        (
            "tso6",
            packet(
                unfinished(54, 16, 74, Segmentation::Tcp(PIECE), true),
                v6,
                PROTOCOL_TCP,
                &segment(v6, 0x10, &[], &LARGE),
            ),
        ),
        (
            "uso4",
            packet(
                unfinished(34, 6, 42, Segmentation::Udp(PIECE), false),
                v4,
                PROTOCOL_UDP,
                &datagram(v4, &LARGE),
            ),
        ),
        (
            "uso6",
            packet(
                unfinished(54, 6, 62, Segmentation::Udp(PIECE), true),
                v6,
                PROTOCOL_UDP,
                &datagram(v6, &LARGE),
            ),
        ),
        ("extensions6", {
            let carried = [&EXTENSIONS[..], &datagram(v6, &[9; 5])].concat();
            packet(vnet::COMPLETE, v6, 0, &carried)
        }),
        ("fragment6", packet(vnet::COMPLETE, v6, 44, &[17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4])),
    ]
}

fn link(vnet: [u8; vnet::LEN], ether_type: u16, packet: &[u8]) -> Vec<u8> {
    [&vnet[..], &ethernet::header([0xff; 6], MAC, ether_type), packet].concat()
}

fn packet(vnet: [u8; vnet::LEN], ends: [IpAddr; 2], protocol: u8, carried: &[u8]) -> Vec<u8> {
    let len = carried.len() as u16;
    match ends {
        [IpAddr::V4(from), IpAddr::V4(to)] => {
            let header = ipv4_header(from, to, protocol, len);
            link(vnet, ethernet::TYPE_IPV4, &[&header, carried].concat())
        }
        [IpAddr::V6(from), IpAddr::V6(to)] => {
            let header = ipv6_header(from, to, protocol, len);
            link(vnet, ethernet::TYPE_IPV6, &[&header, carried].concat())
        }
        ends => panic!("two families: {ends:?}"),
    }
}

/// Fills in the checksum at `at`; ICMP for IPv4 has no pseudo-header.
fn finish(ends: [IpAddr; 2], protocol: u8, at: usize, mut octets: Vec<u8>) -> Vec<u8> {
    let sum = match protocol {
        PROTOCOL_ICMP => Sum::default(),
        _ => pseudo_header(ends[0], ends[1], protocol, octets.len() as u16),
    };
    let checksum = sum.octets(&octets).checksum();
    octets[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    octets
}

fn solicitation() -> Vec<u8> {
    let mut octets = vec![135, 0, 0, 0, 0, 0, 0, 0];
    octets.extend(THERE6.octets());
    octets.extend([1, 1]);
    octets.extend(MAC.octets());
    finish([HERE6.into(), THERE6.into()], PROTOCOL_ICMPV6, 2, octets)
}

fn echo(ends: [IpAddr; 2], kind: u8) -> Vec<u8> {
    let protocol = if ends[0].is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
    finish(ends, protocol, 2, vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1, 0xaa, 0xbb, 0xcc])
}

fn datagram(ends: [IpAddr; 2], payload: &[u8]) -> Vec<u8> {
    let header = udp::Header { source: 1024, destination: 53, checksum: 0 };
    let octets = [&udp::header(&header, payload.len() as u16), payload].concat();
    finish(ends, PROTOCOL_UDP, 6, octets)
}

fn segment(ends: [IpAddr; 2], flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let offset = ((20 + options.len() as u8) / 4) << 4;
    let fixed = [4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, offset, flags, 0xff, 0xff, 0, 0, 0, 0];
    finish(ends, PROTOCOL_TCP, 16, [&fixed, options, payload].concat())
}
