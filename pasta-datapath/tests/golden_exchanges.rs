//! Exchanges with real clients, captured in a namespace with `-p`: the same requests get the same octets. The
//! captures are of udhcpc 1.38, dhcpcd 10.5, systemd-networkd 262, NetworkManager 1.58 and dhclient 4.4.3, which took
//! what they were offered; two ask in another network for the address that they had, and one extends its lease there.

use pasta_datapath::counters::DropReason;
use pasta_datapath::link::responder::offer::{Ipv4Offer, Ipv6Offer, Names, Offer};
use pasta_datapath::link::responder::{dhcpv4, dhcpv6};
use pasta_datapath::wire::domain;
use pasta_ipc::types::{MacAddr, Mtu, Prefix};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// A network that the host was in, by the first octets of its addresses.
#[derive(Clone, Copy)]
struct Network([u8; 3]);

const FIRST: Network = Network([192, 0, 2]);
const FIRST_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SECOND: Network = Network([203, 0, 113]);
const SECOND_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// What the host had: its address and the gateway's in that network, 2001:db8::2/64, a resolver, no search list.
fn offer(Network([a, b, c]): Network, resolver: Ipv4Addr) -> Offer {
    let ours = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    let search: [&str; 0] = [];
    let (address, gateway) = (Ipv4Addr::new(a, b, c, 2), Ipv4Addr::new(a, b, c, 1));
    Offer {
        ipv4: Some(Ipv4Offer {
            addresses: vec![Prefix::new(address, 24).expect("24 of 32 bits").into()],
            server: gateway,
            router: Some(gateway),
            resolvers: resolver.octets().to_vec(),
            lease: 3600,
        }),
        ipv6: Some(Ipv6Offer {
            addresses: vec![Prefix::new(ours, 64).expect("64 of 128 bits").into()],
            server: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            default_router: true,
            resolvers: Vec::new(),
            lease: 3600,
        }),
        mtu: Some(Mtu::DEFAULT),
        names: Names { search: domain::encode_list(search), ..Names::default() },
    }
}

fn golden(name: &str) -> Vec<u8> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    std::fs::read(format!("{directory}/{name}")).expect("a file of this tree")
}

#[test]
fn dhcp_clients_get_what_they_got() {
    let resolver = Ipv4Addr::new(10, 255, 255, 53);
    let exchanges = [
        ("udhcpc-discover", FIRST, resolver),
        ("udhcpc-request", FIRST, resolver),
        ("dhcpcd-discover", FIRST, resolver),
        ("dhcpcd-request", FIRST, resolver),
        ("networkd-discover", FIRST, FIRST_GATEWAY),
        ("networkmanager-discover", FIRST, FIRST_GATEWAY),
        ("networkmanager-request", FIRST, FIRST_GATEWAY),
        ("networkmanager-refused", SECOND, SECOND_GATEWAY),
        ("dhclient-discover", FIRST, FIRST_GATEWAY),
        ("dhclient-request", FIRST, FIRST_GATEWAY),
        ("dhclient-refused", SECOND, SECOND_GATEWAY),
    ];
    for (name, network, resolver) in exchanges {
        let request = golden(&format!("{name}.bin"));
        let offer = offer(network, resolver);
        let mut answer = dhcpv4::answer(&offer, Ipv4Addr::BROADCAST, &request).unwrap();
        assert_eq!(answer.reply.finish(), golden(&format!("{name}.reply")), "{name}");
    }
}

#[test]
fn a_lease_that_is_given_back_is_not_answered() {
    let offer = offer(FIRST, FIRST_GATEWAY);
    let released = dhcpv4::answer(&offer, FIRST_GATEWAY, &golden("networkd-release.bin"));
    assert_eq!(released.err(), Some(DropReason::NotAnswered));
}

#[test]
fn a_lease_that_is_extended_in_another_network_is_refused_by_the_server_that_was_asked() {
    let offer = offer(SECOND, SECOND_GATEWAY);
    for name in ["networkd", "networkmanager", "dhclient", "dhcpcd"] {
        let request = golden(&format!("{name}-renew-refused.bin"));
        let mut answer = dhcpv4::answer(&offer, FIRST_GATEWAY, &request).unwrap();
        assert_eq!(answer.reply.finish(), golden(&format!("{name}-renew-refused.reply")), "{name}");
        let also_to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 68);
        assert_eq!((*answer.from.ip(), answer.also_to), (FIRST_GATEWAY, Some(also_to)), "{name}");
    }
}

#[test]
fn dhcpv6_clients_get_what_they_got() {
    let offer = offer(FIRST, FIRST_GATEWAY);
    let names = [
        "dhcpcd-solicit",
        "dhcpcd-request6",
        "networkd-solicit",
        "networkd-release6",
        "networkmanager-solicit",
        "dhclient-solicit",
        "dhclient-request6",
    ];
    for name in names {
        let request = golden(&format!("{name}.bin"));
        let answer = dhcpv6::answer(&offer, MacAddr::OURS_BY_DEFAULT, &request).unwrap();
        assert_eq!(answer.octets(), golden(&format!("{name}.reply")), "{name}");
    }
}
