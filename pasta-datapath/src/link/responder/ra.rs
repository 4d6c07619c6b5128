//! Router advertisements (RFC 4861, section 6.2): what hosts that configure themselves learn, and when.
//!
//! A solicitation is answered at once, to the one that asks; one without a source, to all, three seconds
//! after the last such advertisement at the earliest. A change is advertised to all at once and twice more, 16
//! seconds apart; the rest every 200 to 600 seconds. A change within three seconds of another is advertised
//! at once too, unlike section 6.2.6 asks: the link has one host, and the monitor gathers changes.
//!
//! What goes is taken back. A prefix is advertised as deprecated for the two hours that hosts keep it: they
//! accept no shorter time at once (RFC 4862, section 5.5.3). Resolvers, search domains and a router with
//! another address are advertised with a lifetime of zero, together with the change (RFC 8106, section 5.1;
//! RFC 4861, section 6.2.8).
//!
//! A prefix has 64 bits, for no other makes addresses on Ethernet (RFC 4862, section 5.5.3): that around
//! each address, whatever the host's own prefix is. It is on the link where the host's covers it.
//!
//! Limits: 16 prefixes, and 16 more that have gone; then the first, and the last that have gone.

use super::offer::{INFINITE, Offer};
use crate::link::writer::{FrameDevice, FrameWriter};
use crate::time::Instant;
use crate::wire::ethernet;
use crate::wire::ip::{PROTOCOL_ICMPV6, ipv6_header};
use crate::wire::router_advertisement::{Advertisement, Head, PrefixInformation};
use pasta_ipc::start::Lifetimes;
use pasta_ipc::types::{Address, MacAddr, Mtu, Service};
use std::net::Ipv6Addr;
use std::time::Duration;

/// The group of all nodes on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// MAX_INITIAL_RTR_ADVERTISEMENTS and MAX_INITIAL_RTR_ADVERT_INTERVAL (RFC 4861, section 10).
const ANNOUNCEMENTS: u8 = 3;
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(16);
/// MIN_DELAY_BETWEEN_RAS (RFC 4861, section 10).
const MIN_DELAY: Duration = Duration::from_secs(3);
/// MinRtrAdvInterval and MaxRtrAdvInterval (RFC 4861, section 6.2.1), in seconds.
const MIN_INTERVAL: u64 = 200;
const MAX_INTERVAL: u64 = 600;

/// Seconds that we are a default router, and that names and resolvers hold: three intervals (RFC 4861,
/// section 6.2.1; RFC 8106, section 5.1).
const LIFETIME: u16 = 1800;
/// The same where nothing changes: the most there is (RFC 8319).
const LONGEST_LIFETIME: u16 = u16::MAX;
/// Seconds that a prefix is valid, and preferred. Chosen: the shortest valid time that hosts accept when
/// a prefix goes, and half of it.
const VALID: u32 = 7200;
const PREFERRED: u32 = 3600;
/// The hop limit that hosts are to use: none of their packets goes further than to us.
const HOP_LIMIT: u8 = 255;

const PREFIX_BITS: u8 = 64;
const MAX_PREFIXES: usize = 16;
/// Most resolvers, and routers, that are taken back.
const MAX_WITHDRAWN: usize = 6;
/// Smallest MTU that IPv6 has.
const MIN_MTU: u16 = 1280;

/// Says what is advertised when.
#[derive(Debug)]
pub struct RouterAdvertiser {
    lifetimes: Lifetimes,
    content: Option<Content>,
    gone: Vec<Gone>,
    withdrawn: Withdrawn,
    /// How many announcements of the last change are to come.
    announcements: u8,
    due: Option<Instant>,
    last: Option<Instant>,
    random: u64,
}

/// What is advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    source: Ipv6Addr,
    head: Head,
    mtu: Option<Mtu>,
    prefixes: Vec<Advertised>,
    resolvers: Vec<u8>,
    search: Vec<u8>,
}

/// A prefix that is advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Advertised {
    prefix: Ipv6Addr,
    on_link: bool,
    deprecated: bool,
}

/// A prefix that was.
#[derive(Clone, Copy, Debug)]
struct Gone {
    prefix: Ipv6Addr,
    on_link: bool,
    since: Instant,
}

/// What else was, and is advertised for no time as long as a change is announced.
#[derive(Clone, Debug, Default)]
struct Withdrawn {
    routers: Vec<Ipv6Addr>,
    resolvers: Vec<u8>,
    search: Vec<u8>,
}

impl RouterAdvertiser {
    /// Nothing is advertised yet. `seed` is where the times between advertisements come from.
    pub fn new(lifetimes: Lifetimes, seed: u64) -> Self {
        Self {
            lifetimes,
            content: None,
            gone: Vec::new(),
            withdrawn: Withdrawn::default(),
            announcements: 0,
            due: None,
            last: None,
            // All zero would stay zero.
            random: seed | 1,
        }
    }

    /// Takes in what is offered by `now`; `dhcpv6` says whether addresses are to be had so.
    pub fn update(&mut self, now: Instant, offer: &Offer, dhcpv6: Service) {
        let content = Content::of(offer, dhcpv6, self.lifetimes);
        if content == self.content {
            return;
        }
        if let Some(before) = self.content.take() {
            self.withdraw(now, &before, content.as_ref());
        }
        // What went before there was nothing at all may be back.
        let is_there = |prefix| content.iter().any(|it| it.has(prefix));
        self.gone.retain(|it| !is_there(it.prefix));
        self.announcements = ANNOUNCEMENTS;
        self.due = content.is_some().then_some(now);
        self.content = content;
    }

    /// Notes what `before` had and `after` has not, and forgets what that has again.
    fn withdraw(&mut self, now: Instant, before: &Content, after: Option<&Content>) {
        let is_there = |prefix| after.is_some_and(|it| it.has(prefix));
        let gone = before.prefixes.iter().filter(|it| !is_there(it.prefix));
        self.gone.extend(gone.map(|it| Gone {
            prefix: it.prefix,
            on_link: it.on_link,
            since: now,
        }));
        let surplus = self.gone.len().saturating_sub(MAX_PREFIXES);
        self.gone.drain(..surplus);

        let Some(after) = after else { return };
        let Withdrawn { routers, resolvers, search } = &mut self.withdrawn;
        routers.push(before.source);
        routers.retain(|it| *it != after.source);
        routers.truncate(MAX_WITHDRAWN);
        let all = [&before.resolvers[..], resolvers].concat();
        let old = all.chunks(16).filter(|it| !after.resolvers.chunks(16).any(|new| new == *it));
        *resolvers = distinct(old).take(MAX_WITHDRAWN).flatten().copied().collect();
        let all = [&before.search[..], search].concat();
        let old = names(&all).filter(|it| !names(&after.search).any(|new| new == *it));
        *search = distinct(old).take(MAX_WITHDRAWN).flatten().copied().collect();
    }

    /// Takes in a solicitation from `source`; whether that one is to be answered, to itself.
    pub fn solicited(&mut self, now: Instant, source: Ipv6Addr) -> bool {
        if self.content.is_some() && source.is_unspecified() {
            let earliest = self.last.map_or(now, |last| now.max(last + MIN_DELAY));
            self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
        }
        self.content.is_some() && !source.is_unspecified()
    }

    /// When something is to be sent to all.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether something is to be sent to all by `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Notes that all was sent at `now`.
    pub fn sent(&mut self, now: Instant) {
        self.last = Some(now);
        self.announcements = self.announcements.saturating_sub(1);
        let delay = match self.announcements {
            0 => {
                self.withdrawn = Withdrawn::default();
                Duration::from_secs(MIN_INTERVAL + self.draw() % (MAX_INTERVAL - MIN_INTERVAL))
            }
            _ => ANNOUNCEMENT_INTERVAL,
        };
        self.due = Some(now + delay);
        self.gone.retain(|it| now.since(it.since) < Duration::from_secs(VALID.into()));
    }

    /// The next random number (xorshift; nothing secret depends on it).
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// What is advertised at `now` by us at `mac`, and from which address.
    pub fn advertisement(&self, now: Instant, mac: MacAddr) -> Option<(Ipv6Addr, Advertisement)> {
        let content = self.content.as_ref()?;
        let (valid, preferred, lifetime) = match self.lifetimes {
            Lifetimes::Limited => (VALID, PREFERRED, LIFETIME.into()),
            Lifetimes::Unlimited => (INFINITE, INFINITE, INFINITE),
        };
        let mut made = Advertisement::new(content.head);
        made.source(mac);
        if let Some(mtu) = content.mtu {
            made.mtu(mtu.get().into());
        }
        // In the order of importance: what does not fit is left out.
        for it in &content.prefixes {
            let preferred = if it.deprecated { 0 } else { preferred };
            let Advertised { prefix, on_link, .. } = *it;
            made.prefix(&PrefixInformation { prefix, on_link, valid, preferred });
        }
        made.resolvers(&content.resolvers, lifetime);
        made.resolvers(&self.withdrawn.resolvers, 0);
        made.search(&content.search, lifetime);
        for Gone { prefix, on_link, since } in self.gone.iter().copied() {
            let age = u32::try_from(now.since(since).as_secs()).unwrap_or(u32::MAX);
            let (valid, preferred) = (VALID.saturating_sub(age), 0);
            made.prefix(&PrefixInformation { prefix, on_link, valid, preferred });
        }
        made.search(&self.withdrawn.search, 0);
        Some((content.source, made))
    }

    /// Addresses that we had, and as which we are no router any more.
    pub fn former_routers(&self) -> &[Ipv6Addr] {
        &self.withdrawn.routers
    }

    /// What is advertised as a router that is none any more.
    pub fn withdrawal(mac: MacAddr) -> Advertisement {
        let mut made =
            Advertisement::new(Head { hop_limit: HOP_LIMIT, managed: false, lifetime: 0 });
        made.source(mac);
        made
    }
}

/// Sends an advertisement from one address to another, which is at a link-layer address.
pub fn send<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    made: &mut Advertisement,
    hardware: [u8; 6],
    (source, destination): (Ipv6Addr, Ipv6Addr),
) -> bool {
    let octets = made.finish(source, destination);
    let link = ethernet::header(hardware, tap.our_mac, ethernet::TYPE_IPV6);
    // It fits the smallest MTU.
    let network = ipv6_header(source, destination, PROTOCOL_ICMPV6, octets.len() as u16);
    tap.write_complete(&[&link, &network, octets])
}

/// `items` without those that come once more.
fn distinct<'a>(items: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let mut seen: Vec<&[u8]> = Vec::new();
    items.filter(move |it| {
        let is_new = !seen.contains(it);
        seen.push(it);
        is_new
    })
}

/// The names of an encoded list, each with its root.
fn names(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let mut len = 0;
        while let Some(label) = list.get(len).filter(|it| **it > 0) {
            len += usize::from(*label) + 1;
        }
        let (name, rest) = list.split_at_checked(len + 1)?;
        list = rest;
        Some(name)
    })
}

impl Content {
    fn has(&self, prefix: Ipv6Addr) -> bool {
        self.prefixes.iter().any(|it| it.prefix == prefix)
    }

    fn of(offer: &Offer, dhcpv6: Service, lifetimes: Lifetimes) -> Option<Self> {
        let ours = offer.ipv6.as_ref()?;
        let mut prefixes: Vec<Advertised> = Vec::new();
        for address in &ours.addresses {
            let prefix = address.address().masked(PREFIX_BITS);
            let on_link = address.prefix.bits() <= PREFIX_BITS;
            match prefixes.iter_mut().find(|it| it.prefix == prefix) {
                Some(known) => {
                    known.on_link |= on_link;
                    known.deprecated &= address.deprecated;
                }
                None => {
                    prefixes.push(Advertised { prefix, on_link, deprecated: address.deprecated });
                }
            }
        }
        prefixes.truncate(MAX_PREFIXES);
        let lifetime = match (ours.default_router, lifetimes) {
            (false, _) => 0,
            (true, Lifetimes::Limited) => LIFETIME,
            (true, Lifetimes::Unlimited) => LONGEST_LIFETIME,
        };
        let managed = dhcpv6 == Service::On && !ours.addresses.is_empty();
        Some(Self {
            source: ours.server,
            head: Head { hop_limit: HOP_LIMIT, managed, lifetime },
            mtu: offer.mtu.filter(|mtu| mtu.get() >= MIN_MTU),
            prefixes,
            resolvers: ours.resolvers.clone(),
            search: offer.names.search.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
