//! `RTM_NEWNEXTHOP`.

use super::{Unreadable, ip_address};
use crate::record::{Hop, Nexthop, Record, Ways};
use netlink_packet_core::{NlasIterator, parse_u32};

// linux/nexthop.h.
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;
const NHA_FDB: u16 = 11;

// linux/rtnetlink.h.
const RTNH_F_DEAD: u32 = 1;
const RTNH_F_ONLINK: u32 = 4;
const RTNH_F_LINKDOWN: u32 = 16;

/// Most members of a group that are looked at. Chosen: far more ways than any route has.
const MOST_MEMBERS: usize = 256;

pub(super) fn decode(octets: &[u8]) -> Result<Record, Unreadable> {
    // struct nhmsg: family, scope, protocol, padding, flags.
    let Some((&[_, _, _, _, f0, f1, f2, f3], attributes)) = octets.split_first_chunk::<8>() else {
        return Err(Unreadable::Malformed("nexthop message shorter than its header".into()));
    };
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    let (mut id, mut link, mut gateway, mut group) = (None, None, None, None);
    let (mut plain, mut leads) = (true, true);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            NHA_ID => id = Some(parse_u32(value)?),
            NHA_OIF => link = Some(parse_u32(value)?),
            NHA_GATEWAY => gateway = Some(ip_address(value)?),
            NHA_GROUP => group = Some(members(value)?),
            NHA_ENCAP | NHA_ENCAP_TYPE => plain = false,
            NHA_BLACKHOLE | NHA_FDB => leads = false,
            _ => {}
        }
    }
    let id = id.ok_or(Unreadable::Invalid("nexthop without number"))?;
    let ways = match (group, link) {
        _ if !leads => Ways::None,
        (Some(group), _) => Ways::Group(group),
        (None, Some(link)) => Ways::One(Hop {
            link,
            gateway,
            onlink: flags & RTNH_F_ONLINK != 0,
            live: flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) == 0,
        }),
        (None, None) => Ways::None,
    };
    Ok(Record::Nexthop(Nexthop { id, ways, plain }))
}

/// The numbers of a group's members: of each `struct nexthop_grp`, which is eight octets, the first four.
fn members(octets: &[u8]) -> Result<Vec<u32>, Unreadable> {
    let members = octets.chunks_exact(8);
    if !members.remainder().is_empty() {
        return Err(Unreadable::Invalid("group of nexthops cut short"));
    }
    let id = |member: &[u8]| member.first_chunk().map(|id| u32::from_ne_bytes(*id));
    Ok(members.take(MOST_MEMBERS).filter_map(id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::ip;

    fn message(flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut octets = vec![2, 0, 0, 0];
        octets.extend(flags.to_ne_bytes());
        octets.extend(crate::decode::testing::attributes(attributes));
        octets
    }

    fn nexthop(flags: u32, attributes: &[(u16, &[u8])]) -> Nexthop {
        match decode(&message(flags, attributes)) {
            Ok(Record::Nexthop(nexthop)) => nexthop,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_nexthop_is_a_way_or_a_group_of_others_or_leads_nowhere() {
        let (id, link): (&[u8], &[u8]) = (&7_u32.to_ne_bytes(), &3_u32.to_ne_bytes());
        let found = nexthop(4, &[(NHA_ID, id), (NHA_OIF, link), (NHA_GATEWAY, &[192, 0, 2, 1])]);
        let way = Hop { link: 3, gateway: Some(ip("192.0.2.1")), onlink: true, live: true };
        assert_eq!(found, Nexthop { id: 7, ways: Ways::One(way), plain: true });
        let dead = nexthop(17, &[(NHA_ID, id), (NHA_OIF, link)]);
        assert!(matches!(dead.ways, Ways::One(Hop { live: false, gateway: None, .. })));

        let group = [8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0].map(|it: u8| it);
        let found = nexthop(0, &[(NHA_ID, id), (NHA_GROUP, &group)]);
        let members = [[8_u8, 0, 0, 0], [9, 0, 0, 0]].map(u32::from_ne_bytes);
        assert_eq!(found.ways, Ways::Group(members.into()));
        let nowhere = nexthop(0, &[(NHA_ID, id), (NHA_BLACKHOLE, &[])]);
        assert_eq!(nowhere.ways, Ways::None);
        assert!(!nexthop(0, &[(NHA_ID, id), (NHA_OIF, link), (NHA_ENCAP_TYPE, &[1, 0])]).plain);
    }

    #[test]
    fn a_nexthop_that_is_malformed_is_none() {
        let id: &[u8] = &7_u32.to_ne_bytes();
        for octets in [
            vec![2, 0, 0, 0, 0, 0, 0],
            message(0, &[]),
            message(0, &[(NHA_ID, &[1, 2])]),
            message(0, &[(NHA_ID, id), (NHA_GROUP, &[1, 0, 0, 0])]),
            message(0, &[(NHA_ID, id), (NHA_GATEWAY, &[1, 2, 3])]),
        ] {
            assert!(decode(&octets).is_err(), "{octets:?}");
        }
    }
}
