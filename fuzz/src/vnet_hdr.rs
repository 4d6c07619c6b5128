//! The virtio-net header: any that the namespace may write, and any that we write.

use crate::input::Input;
use pasta_datapath::wire::vnet::{ChecksumState, Network, Received, Segmentation, ToSend, split};

/// Reads `octets` as a frame, then as the fields of a header to write and read back.
///
/// # Panics
///
/// If a header asks for what was not offered, or does not read back.
pub fn check(octets: &[u8]) {
    if let Ok((received, frame)) = split(octets) {
        assert_eq!(octets.get(pasta_datapath::wire::vnet::LEN..), Some(frame));
        match received.segmentation {
            Segmentation::None => {}
            Segmentation::Tcp(size) | Segmentation::Udp(size) => assert_ne!(size, 0),
        }
    }
    let mut input = Input::new(octets);
    let segmentation = match (input.octet() % 3, input.u16().max(1)) {
        (0, _) => Segmentation::None,
        (1, size) => Segmentation::Tcp(size),
        (_, size) => Segmentation::Udp(size),
    };
    let (transport, checksum, headers) = (input.u16(), input.u16(), input.u16());
    let network = if input.bit() { Network::Ipv6 } else { Network::Ipv4 };
    let written = ToSend { transport, checksum, headers, segmentation, network }.octets();
    let expected = Received { checksum: ChecksumState::Trusted, segmentation };
    assert_eq!(split(&written), Ok((expected, &[][..])));
}
