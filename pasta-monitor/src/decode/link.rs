//! `RTM_NEWLINK`.

use super::{Unreadable, mac_address};
use crate::record::{AddressGeneration, Link, LinkKind, Record};
use netlink_packet_core::{NlasIterator, parse_string, parse_u8, parse_u32};

// linux/if_link.h.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

// linux/if.h.
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_POINTOPOINT: u32 = 1 << 4;
const IFF_RUNNING: u32 = 1 << 6;
const IFF_LOWER_UP: u32 = 1 << 16;
const IF_OPER_UNKNOWN: u8 = 0;
const IF_OPER_UP: u8 = 6;

/// Place of `promote_secondaries` in the array of `IFLA_INET_CONF` (`IPV4_DEVCONF_*`, counted from 1
/// in `linux/ip.h` and from 0 in the array).
const PROMOTE_SECONDARIES: usize = 19;
/// Place of `disable_ipv6` in the array of `IFLA_INET6_CONF` (`DEVCONF_*`, `linux/ipv6.h`).
const DISABLE_IPV6: usize = 26;

/// Link-layer types that have no addresses (`ARPHRD_*`, `linux/if_arp.h`): PPP, RAWIP, TUNNEL,
/// TUNNEL6, SIT, IPGRE, IP6GRE, NONE, VOID.
const WITHOUT_ADDRESSES: [u16; 9] = [512, 519, 768, 769, 776, 778, 823, 0xfffe, 0xffff];

/// Kinds of device that carry packets of one network through another.
const TUNNELS: [&str; 11] =
    ["tun", "wireguard", "ppp", "gre", "ip6gre", "ipip", "ip6tnl", "sit", "vti", "vti6", "xfrm"];

pub(super) fn decode(octets: &[u8]) -> Result<Record, Unreadable> {
    // struct ifinfomsg: family, padding, type, index, flags, change mask.
    let Some((&[family, _, t0, t1, i0, i1, i2, i3, f0, f1, f2, f3, ..], attributes)) =
        octets.split_first_chunk::<16>()
    else {
        return Err(Unreadable::Malformed("link message shorter than its header".into()));
    };
    // A bridge's view of its ports comes as the same message of another family.
    if family != 0 {
        return Ok(Record::Other);
    }
    let layer = u16::from_ne_bytes([t0, t1]);
    let index = u32::from_ne_bytes([i0, i1, i2, i3]);
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    if index == 0 {
        return Err(Unreadable::Invalid("link without index"));
    }

    let mut name = None;
    let mut alternatives = Vec::new();
    let mut kind = String::new();
    let mut mac = None;
    let mut mtu = None;
    let mut enslaved = false;
    let mut operational = IF_OPER_UNKNOWN;
    let mut promotes_secondaries = None;
    let (mut address_generation, mut ipv6_disabled) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_ADDRESS => mac = mac_address(value),
            IFLA_IFNAME => name = Some(name_of(value)),
            IFLA_MTU => mtu = Some(parse_u32(value)?),
            IFLA_MASTER => enslaved = parse_u32(value)? != 0,
            IFLA_OPERSTATE => operational = parse_u8(value)?,
            IFLA_LINKINFO => {
                for nested in NlasIterator::new(value) {
                    let nested = nested?;
                    if nested.kind() == IFLA_INFO_KIND {
                        kind = parse_string(nested.value())?;
                    }
                }
            }
            IFLA_PROP_LIST => {
                for nested in NlasIterator::new(value) {
                    let nested = nested?;
                    if nested.kind() == IFLA_ALT_IFNAME {
                        alternatives.push(name_of(nested.value()));
                    }
                }
            }
            IFLA_AF_SPEC => {
                for family in NlasIterator::new(value) {
                    let family = family?;
                    for nested in NlasIterator::new(family.value()) {
                        let nested = nested?;
                        match (family.kind(), nested.kind()) {
                            (AF_INET, IFLA_INET_CONF) => {
                                promotes_secondaries = setting(nested.value(), PROMOTE_SECONDARIES);
                            }
                            (AF_INET6, IFLA_INET6_CONF) => {
                                ipv6_disabled = setting(nested.value(), DISABLE_IPV6);
                            }
                            (AF_INET6, IFLA_INET6_ADDR_GEN_MODE) => {
                                let mode = parse_u8(nested.value())?;
                                address_generation = Some(AddressGeneration(mode));
                            }
                            _ => {}
                        }
                    }
                }
            }
            _ => {}
        }
    }

    let name = name.filter(|name| !name.is_empty()).ok_or(Unreadable::Invalid("no name"))?;
    let has = |flag| flags & flag != 0;
    let tunnel = has(IFF_POINTOPOINT)
        || WITHOUT_ADDRESSES.contains(&layer)
        || TUNNELS.contains(&kind.as_str());
    let kind = match kind.as_str() {
        "bridge" => LinkKind::Bridge,
        "dummy" => LinkKind::Dummy,
        _ if tunnel => LinkKind::Tunnel,
        _ => LinkKind::Ordinary,
    };
    let in_operation = matches!(operational, IF_OPER_UP | IF_OPER_UNKNOWN);
    Ok(Record::Link(Box::new(Link {
        index,
        name,
        alternatives,
        kind,
        mac,
        up: has(IFF_UP),
        carrier: has(IFF_LOWER_UP) && has(IFF_RUNNING) && in_operation,
        loopback: has(IFF_LOOPBACK),
        enslaved,
        mtu: mtu.ok_or(Unreadable::Invalid("link without MTU"))?,
        promotes_secondaries,
        address_generation,
        without_ipv6: address_generation.is_none() || ipv6_disabled == Some(true),
    })))
}

/// A name, which may be of any octets but NUL and slash; one that is not text stays distinct.
fn name_of(value: &[u8]) -> String {
    let octets = value.split(|octet| *octet == 0).next().unwrap_or_default();
    String::from_utf8_lossy(octets).into_owned()
}

/// Entry `place` of an array of settings, each an `int`; none if the kernel's array is shorter.
fn setting(array: &[u8], place: usize) -> Option<bool> {
    let entry = array.chunks_exact(4).nth(place)?;
    Some(entry.iter().any(|octet| *octet != 0))
}
