//! The virtio-net header in front of each frame on the tap (`include/uapi/linux/virtio_net.h`).
//!
//! Ten octets, in the order of the machine. It says which checksum is still to be computed and into
//! which segments a super-frame is to be cut. What the namespace writes into it is used for nothing
//! but the two answers below; no field of it is ever an index.

use super::Malformed;

/// Length of the header, as set with `TUNSETVNETHDRSZ`.
pub const LEN: usize = 10;

/// The checksum at `csum_start + csum_offset` holds the pseudo-header sum and is to be finished.
const F_NEEDS_CSUM: u8 = 1;
/// The kernel has verified the checksum.
const F_DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// May be set beside a GSO type: the first segment has CWR set.
const GSO_ECN: u8 = 0x80;

/// How the kernel is to cut a super-frame, or has yet to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmentation {
    /// One packet.
    None,
    /// TCP segments of this many octets of payload, the last one possibly shorter.
    Tcp(u16),
    /// UDP datagrams of this many octets of payload, the last one possibly shorter.
    Udp(u16),
}

/// What the header says of a frame that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Whether the transport checksum needs to be verified by us.
    pub checksum: ChecksumState,
    /// Whether the frame stands for several.
    pub segmentation: Segmentation,
}

/// Whether a transport checksum can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumState {
    /// The kernel made it or has checked it: the frame never left this machine.
    Trusted,
    /// Nobody has checked it.
    Unverified,
}

/// Splits a frame as read from the tap into its header and the Ethernet frame.
///
/// # Errors
///
/// [`Malformed`] if it is too short or asks for a segmentation that was not offered.
pub fn split(octets: &[u8]) -> Result<(Received, &[u8]), Malformed> {
    let (header, frame) = octets.split_first_chunk::<LEN>().ok_or(Malformed)?;
    let [flags, gso_type, _, _, size0, size1, ..] = *header;
    let size = u16::from_ne_bytes([size0, size1]);
    let segmentation = match (gso_type & !GSO_ECN, size) {
        (GSO_NONE, _) => Segmentation::None,
        (GSO_TCPV4 | GSO_TCPV6, 1..) => Segmentation::Tcp(size),
        (GSO_UDP_L4, 1..) => Segmentation::Udp(size),
        _ => return Err(Malformed),
    };
    let checksum = match flags & (F_NEEDS_CSUM | F_DATA_VALID) {
        0 => ChecksumState::Unverified,
        _ => ChecksumState::Trusted,
    };
    Ok((Received { checksum, segmentation }, frame))
}

/// The network protocol of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What we ask of the kernel for a frame that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToSend {
    /// Offset of the transport header from the start of the Ethernet frame.
    pub transport: u16,
    /// Offset of the checksum field in the transport header.
    pub checksum: u16,
    /// Length of all headers: what each segment starts with.
    pub headers: u16,
    /// Into what the frame is to be cut.
    pub segmentation: Segmentation,
    /// The network protocol.
    pub network: Network,
}

/// The header of a frame whose checksums are complete.
pub const COMPLETE: [u8; LEN] = [0; LEN];

impl ToSend {
    /// The header's octets: the kernel is to finish the checksum and to cut the frame.
    pub fn octets(&self) -> [u8; LEN] {
        let (gso_type, size) = match (self.segmentation, self.network) {
            (Segmentation::None, _) => (GSO_NONE, 0),
            (Segmentation::Tcp(size), Network::Ipv4) => (GSO_TCPV4, size),
            (Segmentation::Tcp(size), Network::Ipv6) => (GSO_TCPV6, size),
            (Segmentation::Udp(size), _) => (GSO_UDP_L4, size),
        };
        let [h0, h1] = self.headers.to_ne_bytes();
        let [s0, s1] = size.to_ne_bytes();
        let [t0, t1] = self.transport.to_ne_bytes();
        let [c0, c1] = self.checksum.to_ne_bytes();
        [F_NEEDS_CSUM, gso_type, h0, h1, s0, s1, t0, t1, c0, c1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_send(segmentation: Segmentation, network: Network) -> ToSend {
        ToSend { transport: 34, checksum: 16, headers: 54, segmentation, network }
    }

    #[test]
    fn what_we_write_reads_back() {
        for (segmentation, network) in [
            (Segmentation::None, Network::Ipv4),
            (Segmentation::Tcp(1460), Network::Ipv4),
            (Segmentation::Tcp(1440), Network::Ipv6),
            (Segmentation::Udp(1200), Network::Ipv6),
        ] {
            let octets = to_send(segmentation, network).octets();
            let (read, rest) = split(&octets).unwrap();
            assert_eq!(read, Received { checksum: ChecksumState::Trusted, segmentation });
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn frame_with_neither_flag_is_to_be_verified() {
        let (read, frame) = split(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]).unwrap();
        assert_eq!(read.checksum, ChecksumState::Unverified);
        assert_eq!(frame, [7]);
    }

    #[test]
    fn segmentation_without_size_or_of_unknown_kind_is_refused() {
        for (gso_type, size) in [(GSO_TCPV4, 0), (GSO_UDP_L4, 0), (3, 1400), (6, 1), (0x7f, 9)] {
            let mut octets = COMPLETE;
            octets[1] = gso_type;
            octets[4] = size as u8;
            assert_eq!(split(&octets), Err(Malformed), "{gso_type} {size}");
        }
        assert_eq!(split(&[0; LEN - 1]), Err(Malformed));
    }
}
