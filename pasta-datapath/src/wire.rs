//! The formats on the tap, viewed in place and written into slices.
//!
//! A view checks everything when it is made; after that its accessors cannot fail. Reading splits
//! slices and never indexes by a number that came from the wire. Writers take values and a slice, and
//! are tested by reading back what they wrote.
//!
//! These are our own and not a library's, because frames here are super-frames of up to 64 KiB with a
//! virtio-net header in front, checksums are mostly the kernel's work, and headers are written from a
//! template of each flow; `docs/decisions/0003-own-wire-views.md` has the reasoning.

#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod dhcpv4;
pub mod dhcpv6;
pub mod domain;
pub mod ethernet;
pub mod icmp;
pub mod ip;
pub mod quoted;
pub mod router_advertisement;
pub mod seq;
pub mod tcp;
pub mod udp;
pub mod vnet;
pub mod window;

/// Octets end before the format says they do, or contradict it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Takes a big-endian 16-bit number off the front.
fn take_u16(octets: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = octets.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*head), rest))
}
