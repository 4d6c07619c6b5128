//! Frames as the namespace may send them, through [`classify`].

use pasta_datapath::link::classify::{Content, Frame, Framing, classify, is_impossible};
use pasta_datapath::wire::vnet;
use std::net::SocketAddr;

/// Octets of padding that a link may put behind a packet.
const PADDING: [u8; 3] = [0xff, 0, 0x45];

/// Reads `octets` as a frame with and without a virtio-net header.
///
/// # Panics
///
/// If what [`classify`] says breaks an invariant.
pub fn check(octets: &[u8]) {
    let plain = classify(octets, Framing::Plain);
    let vnet = classify(octets, Framing::Vnet);
    assert_eq!(plain, classify(octets, Framing::Plain), "equal octets, different answers");
    assert_eq!(vnet, classify(octets, Framing::Vnet), "equal octets, different answers");
    let padded = [octets, &PADDING].concat();
    for (frame, framing) in [(&plain, Framing::Plain), (&vnet, Framing::Vnet)] {
        if let Ok(frame) = frame {
            check_frame(octets, frame, framing);
            assert_eq!(Ok(frame), classify(&padded, framing).as_ref(), "padding made a difference");
        }
    }
    if let Some((_, behind)) = octets.split_first_chunk::<{ vnet::LEN }>() {
        check_header_in_front(classify(behind, Framing::Plain).ok().as_ref(), vnet.ok());
    }
}

/// What is good without a virtio-net header stays what it is behind one, unless that is malformed; it
/// may only say that it stands for several.
fn check_header_in_front(plain: Option<&Frame<'_>>, vnet: Option<Frame<'_>>) {
    let (Some(plain), Some(mut vnet)) = (plain, vnet) else { return };
    if let Content::Udp { segment_size, .. } = &mut vnet.content {
        *segment_size = None;
    }
    assert_eq!(plain, &vnet, "the virtio-net header changed what the frame is");
}

fn check_frame(octets: &[u8], frame: &Frame<'_>, framing: Framing) {
    let mac = frame.mac.octets();
    assert!(mac[0] & 1 == 0 && mac != [0; 6], "not a unicast address");
    match frame.content {
        Content::Arp(request) => assert!(request.sender_mac.octets()[0] & 1 == 0),
        Content::NeighbourSolicitation { source, target } => {
            assert!(!target.is_multicast(), "asks for a group: {target} from {source}");
        }
        Content::Dhcpv6 { payload, .. } => check_inside(octets, payload),
        Content::RouterSolicitation { source } => {
            assert!(source.is_unspecified() || !is_impossible(source.into()), "from {source}");
        }
        Content::NeighbourAnswer { address, at } => {
            assert!(at.octets()[0] & 1 == 0 && at.octets() != [0; 6], "not a unicast address");
            assert!(address.is_ipv4() || !address.is_multicast(), "a group is nowhere: {address}");
        }
        Content::Fragment(packet, piece) => {
            check_ends((packet.source, 1).into(), (packet.destination, 1).into());
            check_inside(octets, packet.payload);
            assert!(piece.more || piece.offset > 0, "all of its packet");
            assert_eq!(piece.offset % 8, 0, "not where a fragment can begin");
        }
        Content::Echo { source, destination, body, .. } => {
            check_ends((source, 1).into(), (destination, 1).into());
            check_inside(octets, body);
            assert!(body.len() >= 2, "no room for the sequence number");
        }
        Content::Error(report) => {
            assert_eq!(report.remote.is_ipv4(), report.namespace.is_ipv4(), "of two families");
        }
        Content::Tcp { source, destination, header, payload } => {
            check_ends(source, destination);
            check_inside(octets, payload);
            assert_eq!((source.port(), destination.port()), (header.source, header.destination));
        }
        Content::Dhcp { source, destination, payload } => {
            check_inside(octets, payload);
            assert_eq!((source.port() == 0, destination.port()), (false, 67));
        }
        Content::Udp { source, destination, payload, segment_size } => {
            check_ends(source, destination);
            check_inside(octets, payload);
            if let Some(size) = segment_size {
                assert!((1..payload.len()).contains(&usize::from(size)), "stands for one");
                assert_eq!(framing, Framing::Vnet, "several without a virtio-net header");
            }
        }
    }
}

fn check_ends(source: SocketAddr, destination: SocketAddr) {
    assert!(!is_impossible(source.ip()), "from {source}");
    assert!(!is_impossible(destination.ip()), "to {destination}");
    assert!(source.port() != 0 && destination.port() != 0, "from {source} to {destination}");
    assert_eq!(source.is_ipv4(), destination.is_ipv4(), "from {source} to {destination}");
}

fn check_inside(octets: &[u8], part: &[u8]) {
    let (outer, inner) = (octets.as_ptr_range(), part.as_ptr_range());
    assert!(outer.start <= inner.start && inner.end <= outer.end, "payload is not of this frame");
}
