//! `RTM_NEWNEIGH`.

use super::{Unreadable, ip_address, mac_address};
use crate::record::{Neighbour, Record};
use netlink_packet_core::NlasIterator;
use pasta_ipc::types::Family;

// linux/neighbour.h.
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// States in which the link-layer address is believed: reachable, stale, delay, probe, permanent. One
/// that needs no resolution (`NUD_NOARP`) is a group or the like, and no neighbour.
const BELIEVED: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;

pub(super) fn decode(octets: &[u8]) -> Result<Record, Unreadable> {
    // struct ndmsg: family, padding, index, state, flags, type.
    let Some((&[family, _, _, _, i0, i1, i2, i3, s0, s1, _, _], attributes)) =
        octets.split_first_chunk::<12>()
    else {
        return Err(Unreadable::Malformed("neighbour message shorter than its header".into()));
    };
    let link = u32::from_ne_bytes([i0, i1, i2, i3]);
    let believed = u16::from_ne_bytes([s0, s1]) & BELIEVED != 0;
    let (mut address, mut mac) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            NDA_DST => address = Some(ip_address(value)),
            NDA_LLADDR => mac = mac_address(value),
            _ => {}
        }
    }
    // A bridge's table comes as the same message of another family, and has no addresses of ours.
    let family = match i32::from(family) {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        _ => return Ok(Record::Other),
    };
    // A proxy's entry for every link names none (pneigh_fill_info of net/core/neighbour.c), and is
    // nobody's address.
    let (Some(address), 1..) = (address, link) else { return Ok(Record::Other) };
    let address = address?;
    if Family::of(address) != family {
        return Err(Unreadable::Invalid("neighbour's address of another family than its message"));
    }
    Ok(Record::Neighbour(Neighbour { link, address, mac: mac.filter(|_| believed) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::mac;
    use std::net::Ipv4Addr;

    fn message(family: u8, state: u16, address: &[u8], mac: &[u8]) -> Vec<u8> {
        let mut octets = vec![family, 0, 0, 0];
        octets.extend(7_u32.to_ne_bytes());
        octets.extend(state.to_ne_bytes());
        octets.extend([0, 0]);
        for (kind, value) in [(NDA_DST, address), (NDA_LLADDR, mac)] {
            octets.extend((value.len() as u16 + 4).to_ne_bytes());
            octets.extend(kind.to_ne_bytes());
            octets.extend(value);
            octets.resize(octets.len().next_multiple_of(4), 0);
        }
        octets
    }

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn only_what_the_kernel_believes_has_a_link_layer_address() {
        for (state, believed) in
            [(0x02, true), (0x04, true), (0x80, true), (0x01, false), (0x20, false), (0x40, false)]
        {
            let found = decode(&message(2, state, &[192, 0, 2, 1], &MAC)).unwrap();
            let mac = believed.then(|| mac(MAC));
            let address = Ipv4Addr::new(192, 0, 2, 1).into();
            assert_eq!(found, Record::Neighbour(Neighbour { link: 7, address, mac }), "{state}");
        }
    }

    #[test]
    fn odd_sizes_are_refused_and_odd_families_are_no_neighbours() {
        assert!(decode(&message(2, 2, &[192, 0, 2], &MAC)).is_err());
        assert!(decode(&message(10, 2, &[192, 0, 2, 1], &MAC)).is_err());
        assert!(decode(&[2; 11]).is_err());
        assert_eq!(decode(&message(7, 2, &[1, 2, 3, 4], &MAC)), Ok(Record::Other));
        let mut of_every_link = message(2, 2, &[192, 0, 2, 1], &MAC);
        of_every_link[4..8].fill(0);
        assert_eq!(decode(&of_every_link), Ok(Record::Other));
        // Of another length, a group's, and none.
        for mac in [&[2, 2, 3][..], &[1, 0, 0x5e, 0, 0, 1], &[0; 6]] {
            let odd = decode(&message(2, 2, &[192, 0, 2, 1], mac)).unwrap();
            assert!(matches!(odd, Record::Neighbour(Neighbour { mac: None, .. })), "{mac:?}");
        }
    }
}
