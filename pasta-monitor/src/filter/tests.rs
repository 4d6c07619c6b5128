//! The programs are tried where they run: in the kernel, on a socket of datagrams.

use super::*;
use crate::interest::MAX_LISTED;
use crate::sys::attach_filter;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteNextHop};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;

/// Sends messages past a filter.
struct Kernel {
    to: UnixDatagram,
    from: UnixDatagram,
}

impl Kernel {
    fn with(program: &[Instruction]) -> Self {
        let (to, from) = UnixDatagram::pair().unwrap();
        attach_filter(&from, program).unwrap();
        from.set_nonblocking(true).unwrap();
        Self { to, from }
    }

    fn passes_octets(&self, octets: &[u8]) -> bool {
        // Whether the sender gets an error for what the filter drops depends on the kind of socket.
        let _ = self.to.send(octets);
        let mut buffer = [0; 4096];
        match self.from.recv(&mut buffer) {
            Ok(len) => {
                assert_eq!(&buffer[..len], octets, "a message passes whole or not at all");
                true
            }
            Err(_) => false,
        }
    }

    fn passes(&self, message: RouteNetlinkMessage) -> bool {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        assert!(matches!(message.payload, NetlinkPayload::InnerMessage(_)));
        let mut octets = vec![0; message.buffer_len()];
        message.serialize(&mut octets);
        self.passes_octets(&octets)
    }
}

fn interest() -> Interest {
    Interest {
        families: PerFamily { v4: Wanted::OfLinks, v6: Wanted::OfLinks },
        links: Some([2, 70_000].into()),
        ignored: [1, 4].into(),
        templates: [2].into(),
        nexthops: false,
        every_table: false,
    }
}

fn link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfName("name0".into()));
    message.attributes.extend(attributes);
    message
}

fn address(family: AddressFamily, index: u32) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    (message.header.family, message.header.index) = (family, index);
    RouteNetlinkMessage::NewAddress(message)
}

fn route(table: u8, len: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    (message.header.table, message.header.destination_prefix_length) = (table, len);
    let to = Ipv4Addr::new(198, 51, 100, 0);
    message.attributes.push(RouteAttribute::Destination(to.into()));
    message.attributes.extend(attributes);
    message
}

const MAIN: u8 = RouteHeader::RT_TABLE_MAIN;

#[test]
fn links_of_interest_and_unknown_ones_pass_and_ports_and_known_others_do_not() {
    use RouteNetlinkMessage::{DelLink, NewLink};
    let kernel = Kernel::with(&program(&interest()));
    assert!(kernel.passes(NewLink(link(2, vec![]))));
    assert!(kernel.passes(DelLink(link(2, vec![]))));
    assert!(kernel.passes(NewLink(link(9, vec![]))), "a new one");
    assert!(!kernel.passes(NewLink(link(4, vec![]))), "known to be out");
    let enslaved = || vec![LinkAttribute::Controller(4)];
    assert!(!kernel.passes(NewLink(link(9, enslaved()))));
    assert!(kernel.passes(NewLink(link(2, enslaved()))), "the template becomes a port");
    assert!(kernel.passes(NewLink(link(70_000, enslaved()))));
    let mut port = link(9, vec![]);
    port.header.interface_family = AddressFamily::Bridge;
    assert!(!kernel.passes(NewLink(port)));
    let wireless = netlink_packet_core::DefaultNla::new(11, vec![1, 2, 3, 4]);
    assert!(!kernel.passes(NewLink(link(2, vec![LinkAttribute::Other(wireless)]))));
}

#[test]
fn addresses_pass_by_link_unless_the_family_wants_all_or_nothing() {
    let kernel = Kernel::with(&program(&interest()));
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        assert!(kernel.passes(address(family, 2)));
        assert!(kernel.passes(address(family, 70_000)));
        assert!(!kernel.passes(address(family, 9)));
    }
    let families = PerFamily { v4: Wanted::All, v6: Wanted::Nothing };
    let kernel = Kernel::with(&program(&Interest { families, ..interest() }));
    assert!(kernel.passes(address(AddressFamily::Inet, 9)));
    assert!(!kernel.passes(address(AddressFamily::Inet6, 2)));
}

#[test]
fn routes_pass_by_table_link_and_width() {
    use RouteNetlinkMessage::{DelRoute, NewRoute};
    let kernel = Kernel::with(&program(&interest()));
    let through = |link| vec![RouteAttribute::Oif(link)];
    assert!(kernel.passes(NewRoute(route(MAIN, 24, through(2)))));
    assert!(kernel.passes(DelRoute(route(MAIN, 24, through(70_000)))));
    assert!(!kernel.passes(NewRoute(route(MAIN, 24, through(9)))));
    assert!(!kernel.passes(NewRoute(route(77, 0, through(2)))), "another table");
    for wide in [0, 1, 3] {
        assert!(kernel.passes(NewRoute(route(MAIN, wide, through(9)))), "a way to everything");
    }
    assert!(!kernel.passes(NewRoute(route(MAIN, 4, through(9)))));
    let ways = vec![RouteAttribute::MultiPath(vec![RouteNextHop::default()])];
    assert!(kernel.passes(NewRoute(route(MAIN, 24, ways))));
    assert!(kernel.passes(NewRoute(route(MAIN, 24, vec![]))), "through no link: who knows");
    let families = PerFamily { v4: Wanted::All, v6: Wanted::OfLinks };
    let kernel = Kernel::with(&program(&Interest { families, ..interest() }));
    assert!(kernel.passes(NewRoute(route(MAIN, 24, through(9)))));
    assert!(!kernel.passes(NewRoute(route(77, 24, through(2)))));
    // Where rules decide, so may a wide route of any table.
    let kernel = Kernel::with(&program(&Interest { every_table: true, ..interest() }));
    assert!(kernel.passes(NewRoute(route(77, 0, through(9)))));
    assert!(kernel.passes(DelRoute(route(77, 3, through(9)))));
    assert!(!kernel.passes(NewRoute(route(77, 4, through(2)))));
    assert!(kernel.passes(NewRoute(route(MAIN, 24, through(2)))));
    assert!(!kernel.passes(NewRoute(route(MAIN, 24, through(9)))));
}

#[test]
fn rules_pass_and_nexthops_and_neighbours_where_they_matter() {
    let kernel = Kernel::with(&program(&interest()));
    assert!(kernel.passes(RouteNetlinkMessage::NewRule(Default::default())));
    assert!(kernel.passes(RouteNetlinkMessage::DelRule(Default::default())));
    let neighbour = |index| {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = index;
        RouteNetlinkMessage::NewNeighbour(message)
    };
    assert!(kernel.passes(neighbour(2)));
    assert!(!kernel.passes(neighbour(70_000)), "not of a template");
    let mut nexthop = [0; 24];
    nexthop[..2].copy_from_slice(&24_u16.to_ne_bytes());
    nexthop[4..6].copy_from_slice(&NEXTHOP.to_ne_bytes());
    assert!(!kernel.passes_octets(&nexthop));
    let kernel = Kernel::with(&program(&Interest { nexthops: true, ..interest() }));
    assert!(kernel.passes_octets(&nexthop));
}

#[test]
fn of_the_namespace_passes_what_is_on_the_tap_or_where_ours_leads() {
    use RouteNetlinkMessage::{DelLink, DelRoute, NewLink, NewRoute};
    const TAP: u32 = 70_000;
    let destinations = |all: &[&str]| -> BTreeSet<Prefix> {
        let parse = |text: &&str| -> Prefix {
            let (address, len) = text.split_once('/').unwrap();
            Prefix::new(address.parse().unwrap(), len.parse().unwrap()).unwrap()
        };
        all.iter().map(parse).collect()
    };
    let through = |link| vec![RouteAttribute::Oif(link)];
    let kernel = Kernel::with(&namespace_program(TAP, &destinations(&[])));
    assert!(kernel.passes(NewLink(link(TAP, vec![]))));
    assert!(kernel.passes(DelLink(link(TAP, vec![]))));
    assert!(!kernel.passes(NewLink(link(9, vec![]))));
    assert!(kernel.passes(address(AddressFamily::Inet, 9)), "it may be one of ours elsewhere");
    for len in [24, 32] {
        assert!(kernel.passes(NewRoute(route(MAIN, len, through(TAP)))));
        assert!(kernel.passes(DelRoute(route(MAIN, len, through(TAP)))));
        assert!(!kernel.passes(NewRoute(route(MAIN, len, through(9)))));
        assert!(!kernel.passes(NewRoute(route(77, len, through(TAP)))));
    }
    assert!(kernel.passes(NewRoute(route(MAIN, 0, through(9)))), "to everything");
    assert!(kernel.passes(NewRoute(route(MAIN, 24, vec![]))), "by a nexthop object");
    let hops = vec![RouteAttribute::MultiPath(vec![RouteNextHop::default()])];
    assert!(kernel.passes(NewRoute(route(MAIN, 24, hops))));
    assert!(!kernel.passes(RouteNetlinkMessage::NewRule(Default::default())));

    let ours = ["203.0.113.0/24", "198.51.100.0/24", "2001:db8::/64"];
    let kernel = Kernel::with(&namespace_program(TAP, &destinations(&ours)));
    assert!(kernel.passes(DelRoute(route(MAIN, 24, through(9)))), "to the same");
    assert!(!kernel.passes(NewRoute(route(MAIN, 25, through(9)))), "of another length");
    let mut other = route(MAIN, 24, through(9));
    other.attributes[0] = RouteAttribute::Destination(Ipv4Addr::new(198, 51, 101, 0).into());
    assert!(!kernel.passes(NewRoute(other)), "to another");
    let mut six = route(MAIN, 64, through(9));
    six.header.address_family = AddressFamily::Inet6;
    six.attributes[0] =
        RouteAttribute::Destination("2001:db8::".parse::<std::net::Ipv6Addr>().unwrap().into());
    assert!(kernel.passes(NewRoute(six)));

    // As many as there can be, and more than are listed.
    let many = |count: u32| {
        let all = (0..count).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + (n << 8)));
        all.map(|it| Prefix::new(it.into(), 24).unwrap()).collect::<BTreeSet<Prefix>>()
    };
    let listed = MAX_LISTED as u32;
    let kernel = Kernel::with(&namespace_program(TAP, &many(listed)));
    let to = |n: u32| {
        let mut to = route(MAIN, 24, through(9));
        let address = Ipv4Addr::from_bits(0x0a00_0000 + (n << 8));
        to.attributes[0] = RouteAttribute::Destination(address.into());
        NewRoute(to)
    };
    assert!(kernel.passes(to(listed - 1)) && !kernel.passes(to(listed)));
    let kernel = Kernel::with(&namespace_program(TAP, &many(listed + 1)));
    assert!(kernel.passes(to(listed + 5)));
}

#[test]
fn what_is_too_short_or_of_no_kind_is_dropped() {
    let kernel = Kernel::with(&program(&interest()));
    for kind in [LINK, ADDRESS, ROUTE, NEIGHBOUR] {
        let mut octets = [0; 16];
        octets[0] = 16;
        octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        assert!(!kernel.passes_octets(&octets), "{kind}");
    }
    for kind in [0_u16, 15, 18, 36, 88, u16::MAX] {
        let mut octets = [0; 64];
        octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        assert!(!kernel.passes_octets(&octets), "{kind}");
    }
}

#[test]
fn the_longest_program_is_one_that_the_kernel_takes() {
    let many = |from: u32| (from..).take(MAX_LISTED).collect::<BTreeSet<u32>>();
    let all = Interest {
        links: Some(many(2)),
        ignored: many(1000),
        templates: many(2).into_iter().take(2).collect(),
        ..interest()
    };
    let kernel = Kernel::with(&program(&all));
    let last = MAX_LISTED as u32 + 1;
    assert!(kernel.passes(address(AddressFamily::Inet, last)));
    assert!(!kernel.passes(address(AddressFamily::Inet, last + 1)));
    assert!(!kernel.passes(RouteNetlinkMessage::NewLink(link(1127, vec![]))));
    assert!(kernel.passes(RouteNetlinkMessage::NewLink(link(1128, vec![]))));
    // Without a list, the events of all links pass.
    let kernel = Kernel::with(&program(&Interest { links: None, ..all }));
    assert!(kernel.passes(address(AddressFamily::Inet, 9999)));
    assert!(Kernel::with(&pass_all()).passes_octets(&[0; 16]));
}
