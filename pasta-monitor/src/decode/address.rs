//! `RTM_NEWADDR`.

use super::{Unreadable, family};
use crate::net::{Family, Prefix};
use crate::record::{Address, Record};
use netlink_packet_core::Parseable;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

pub(super) fn decode(octets: &[u8]) -> Result<Record, Unreadable> {
    let message = AddressMessage::parse(octets)?;
    let header = &message.header;
    let Some(family) = family(header.family) else { return Ok(Record::Other) };
    if header.index == 0 {
        return Err(Unreadable::Invalid("address without link"));
    }

    let (mut local, mut address, mut tag, mut preferred) = (None, None, None, None);
    // The header has room for the first eight flags only; the attribute, where present, has all.
    let mut flags = AddressFlags::from_bits_retain(u32::from(header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(value) => local = Some(*value),
            AddressAttribute::Address(value) => address = Some(*value),
            AddressAttribute::Flags(value) => flags = *value,
            AddressAttribute::Protocol(value) => tag = Some(u8::from(*value)),
            AddressAttribute::CacheInfo(times) => preferred = Some(times.ifa_preferred),
            _ => {}
        }
    }

    // Anycast and multicast addresses come in this message too, with neither of the two.
    let Some(ours) = local.or(address) else {
        return Err(Unreadable::Invalid("address message without address"));
    };
    let peer = address.filter(|address| *address != ours);
    if [Some(ours), peer].into_iter().flatten().any(|it| Family::of(it) != family) {
        return Err(Unreadable::Invalid("address of another family than its message"));
    }
    let prefix = Prefix::new(ours, header.prefix_len)
        .ok_or(Unreadable::Invalid("prefix longer than the address"))?;

    // One bit, two meanings (IFA_F_SECONDARY and IFA_F_TEMPORARY, linux/if_addr.h).
    let first_bit = flags.contains(AddressFlags::Secondary);
    let unproven = AddressFlags::Tentative | AddressFlags::Optimistic | AddressFlags::Dadfailed;
    Ok(Record::Address(Address {
        link: header.index,
        prefix,
        peer,
        secondary: first_bit && family == Family::V4,
        temporary: first_bit && family == Family::V6,
        deprecated: flags.contains(AddressFlags::Deprecated) || preferred == Some(0),
        unproven: flags.intersects(unproven) && family == Family::V6,
        prefix_route: !flags.contains(AddressFlags::Noprefixroute),
        tag,
    }))
}
