//! `RTM_NEWADDR`.

use super::{Unreadable, ip_address};
use crate::record::{Address, Record};
use netlink_packet_core::{NlasIterator, parse_u8, parse_u32};
use pasta_ipc::types::{Family, Prefix};

// linux/if_addr.h.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;

/// One bit with two meanings: IPv4's `IFA_F_SECONDARY`, IPv6's `IFA_F_TEMPORARY`.
const IFA_F_SECONDARY: u32 = 0x01;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

pub(super) fn decode(octets: &[u8]) -> Result<Record, Unreadable> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let Some((&[family, bits, flags, _, i0, i1, i2, i3], attributes)) =
        octets.split_first_chunk::<8>()
    else {
        return Err(Unreadable::Malformed("address message shorter than its header".into()));
    };
    let index = u32::from_ne_bytes([i0, i1, i2, i3]);
    let family = match i32::from(family) {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        _ => return Ok(Record::Other),
    };
    if index == 0 {
        return Err(Unreadable::Invalid("address without link"));
    }

    let (mut local, mut address, mut tag, mut preferred) = (None, None, None, None);
    // The header has room for the first eight flags only; the attribute, where present, has all.
    let mut flags = u32::from(flags);
    // The label may be of any octets, and is not looked at.
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFA_LOCAL => local = Some(ip_address(value)?),
            IFA_ADDRESS => address = Some(ip_address(value)?),
            IFA_FLAGS => flags = parse_u32(value)?,
            IFA_PROTO => tag = Some(parse_u8(value)?),
            // struct ifa_cacheinfo: preferred and valid lifetime, two time stamps.
            IFA_CACHEINFO => {
                let &[p0, p1, p2, p3, ..] = value
                    .first_chunk::<16>()
                    .ok_or(Unreadable::Invalid("address with lifetimes cut short"))?;
                preferred = Some(u32::from_ne_bytes([p0, p1, p2, p3]));
            }
            _ => {}
        }
    }
    let has = |flag| flags & flag != 0;

    // Anycast and multicast addresses come in this message too, with neither of the two.
    let Some(ours) = local.or(address) else {
        return Err(Unreadable::Invalid("address message without address"));
    };
    let peer = address.filter(|address| *address != ours);
    if [Some(ours), peer].into_iter().flatten().any(|it| Family::of(it) != family) {
        return Err(Unreadable::Invalid("address of another family than its message"));
    }
    let prefix = Prefix::new(ours, bits)
        .map_err(|_| Unreadable::Invalid("prefix longer than the address"))?;

    let first_bit = has(IFA_F_SECONDARY);
    Ok(Record::Address(Address {
        link: index,
        prefix,
        peer,
        secondary: first_bit && family == Family::V4,
        temporary: first_bit && family == Family::V6,
        deprecated: has(IFA_F_DEPRECATED) || preferred == Some(0),
        unproven: has(IFA_F_TENTATIVE | IFA_F_OPTIMISTIC | IFA_F_DADFAILED) && family == Family::V6,
        pending: has(IFA_F_TENTATIVE | IFA_F_OPTIMISTIC)
            && !has(IFA_F_DADFAILED)
            && family == Family::V6,
        prefix_route: !has(IFA_F_NOPREFIXROUTE),
        tag,
    }))
}
