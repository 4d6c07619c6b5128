//! Router advertisements (RFC 4861, section 4.2; RFC 8106 for names and resolvers), to be sent.

use super::icmp::{SOURCE_LINK_LAYER_ADDRESS, start_sum};
use crate::part::part;
use pasta_ipc::types::MacAddr;
use std::net::Ipv6Addr;

/// Longest message: what fits a packet of the smallest MTU that IPv6 has (RFC 8200, section 5).
pub const MAX_LEN: usize = 1280 - 40;

const ROUTER_ADVERTISEMENT: u8 = 134;

/// Types of options.
const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;

/// The first octet of flags: addresses are to be had by DHCPv6.
const MANAGED: u8 = 0x80;
/// Flags of a prefix: it is on the link; addresses are made from it.
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

/// What is said of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The hop limit that hosts are to use.
    pub hop_limit: u8,
    /// Whether addresses are to be had by DHCPv6.
    pub managed: bool,
    /// Seconds that it is a default router for; zero: it is none.
    pub lifetime: u16,
}

/// What is said of a prefix of 64 bits, from which addresses are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixInformation {
    /// The prefix; the rest is zero.
    pub prefix: Ipv6Addr,
    /// Whether all of it is on the link.
    pub on_link: bool,
    /// Seconds that it is valid for.
    pub valid: u32,
    /// Seconds that new flows may use it.
    pub preferred: u32,
}

/// An advertisement being written.
#[derive(Debug)]
pub struct Advertisement {
    octets: [u8; MAX_LEN],
    len: usize,
}

impl Advertisement {
    /// One without options.
    pub fn new(head: Head) -> Self {
        let mut made = Self { octets: [0; MAX_LEN], len: 0 };
        let flags = if head.managed { MANAGED } else { 0 };
        let [l0, l1] = head.lifetime.to_be_bytes();
        // How long neighbours are reachable, and when they are asked again, is left to hosts.
        made.push(&[ROUTER_ADVERTISEMENT, 0, 0, 0, head.hop_limit, flags, l0, l1]);
        made.push(&[0; 8]);
        made
    }

    fn push(&mut self, part: &[u8]) {
        let room = self.octets.iter_mut().skip(self.len);
        room.zip(part).for_each(|(to, from)| *to = *from);
        self.len += part.len();
    }

    /// Adds an option, filled up to a multiple of eight octets; false if it does not fit.
    fn option(&mut self, kind: u8, parts: &[&[u8]]) -> bool {
        let len: usize = 2 + parts.iter().map(|it| it.len()).sum::<usize>();
        let units = len.div_ceil(8);
        let Some(after) = Some(self.len + 8 * units).filter(|it| *it <= MAX_LEN) else {
            return false;
        };
        let Ok(units) = u8::try_from(units) else { return false };
        self.push(&[kind, units]);
        parts.iter().for_each(|it| self.push(it));
        self.len = after;
        true
    }

    /// Adds where the router is.
    pub fn source(&mut self, mac: MacAddr) -> bool {
        self.option(SOURCE_LINK_LAYER_ADDRESS, &[&mac.octets()])
    }

    /// Adds the link's MTU.
    pub fn mtu(&mut self, mtu: u32) -> bool {
        self.option(MTU, &[&[0; 2], &mtu.to_be_bytes()])
    }

    /// Adds a prefix.
    pub fn prefix(&mut self, it: &PrefixInformation) -> bool {
        let flags = AUTONOMOUS | if it.on_link { ON_LINK } else { 0 };
        let (valid, preferred) = (it.valid.to_be_bytes(), it.preferred.to_be_bytes());
        let parts: [&[u8]; 5] = [&[64, flags], &valid, &preferred, &[0; 4], &it.prefix.octets()];
        self.option(PREFIX_INFORMATION, &parts)
    }

    /// Adds resolvers, given one after the other, for so many seconds; none is no option.
    pub fn resolvers(&mut self, addresses: &[u8], lifetime: u32) -> bool {
        addresses.is_empty() || self.option(RDNSS, &[&[0; 2], &lifetime.to_be_bytes(), addresses])
    }

    /// Adds search domains, encoded one after the other, for so many seconds; none is no option.
    pub fn search(&mut self, names: &[u8], lifetime: u32) -> bool {
        names.is_empty() || self.option(DNSSL, &[&[0; 2], &lifetime.to_be_bytes(), names])
    }

    /// The whole message from `source` to `destination`, checksum complete.
    pub fn finish(&mut self, source: Ipv6Addr, destination: Ipv6Addr) -> &[u8] {
        self.set_checksum(0);
        let octets = part(&self.octets, ..self.len);
        let sum = start_sum(source.into(), destination.into(), self.len).octets(octets);
        self.set_checksum(sum.checksum());
        part(&self.octets, ..self.len)
    }

    fn set_checksum(&mut self, sum: u16) {
        let field = self.octets.iter_mut().skip(2).zip(sum.to_be_bytes());
        field.for_each(|(to, from)| *to = from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::icmp::{Message, parse_v6};

    const HEAD: Head = Head { hop_limit: 255, managed: true, lifetime: 1800 };

    #[test]
    fn advertisement_has_the_octets_of_the_rfcs() {
        let (source, all): (Ipv6Addr, Ipv6Addr) =
            ("fe80::1".parse().unwrap(), "ff02::1".parse().unwrap());
        let mut made = Advertisement::new(HEAD);
        let prefix = "2001:db8:a::".parse().unwrap();
        assert!(made.prefix(&PrefixInformation {
            prefix,
            on_link: true,
            valid: 7200,
            preferred: 0
        }));
        assert!(made.source(MacAddr::OURS_BY_DEFAULT));
        assert!(made.mtu(65520));
        let resolver = "2001:db8::53".parse::<Ipv6Addr>().unwrap().octets();
        assert!(made.resolvers(&resolver, 1800) && made.resolvers(&[], 1800));
        assert!(made.search(b"\x01a\0", 300) && made.search(&[], 300));
        let octets = made.finish(source, all).to_vec();
        let mut wanted =
            vec![134, 0, octets[2], octets[3], 255, 0x80, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        wanted.extend([3, 4, 64, 0xc0, 0, 0, 0x1c, 0x20, 0, 0, 0, 0, 0, 0, 0, 0]);
        wanted.extend([0x20, 1, 0xd, 0xb8, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        wanted.extend([1, 1, 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);
        wanted.extend([5, 1, 0, 0, 0, 0, 0xff, 0xf0]);
        wanted.extend([25, 3, 0, 0, 0, 0, 7, 8]);
        wanted.extend(resolver);
        wanted.extend([31, 2, 0, 0, 0, 0, 1, 0x2c, 1, b'a', 0, 0, 0, 0, 0, 0]);
        assert_eq!(octets, wanted);
        // The checksum is good.
        assert_eq!(parse_v6(&octets, source.into(), all.into(), 255), Ok(Message::Other));
        assert_eq!(made.finish(source, all), octets, "and once more");
    }

    #[test]
    fn a_prefix_that_reaches_beyond_the_link_is_not_on_it() {
        let mut made = Advertisement::new(Head { managed: false, lifetime: 0, ..HEAD });
        let prefix = Ipv6Addr::LOCALHOST;
        let information = PrefixInformation { prefix, on_link: false, valid: 1, preferred: 1 };
        assert!(made.prefix(&information));
        let octets = made.finish(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        assert_eq!((octets[5], &octets[6..8], octets[19]), (0, &[0, 0][..], AUTONOMOUS));
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut made = Advertisement::new(HEAD);
        let prefix = PrefixInformation {
            prefix: Ipv6Addr::LOCALHOST,
            on_link: true,
            valid: 1,
            preferred: 1,
        };
        let fitting = (0..100).take_while(|_| made.prefix(&prefix)).count();
        assert_eq!(fitting, (MAX_LEN - 16) / 32);
        let len = made.finish(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST).len();
        assert!(len <= MAX_LEN && len % 8 == 0, "{len}");
        assert!(!Advertisement::new(HEAD).search(&[1; 2100], 1));
    }
}
