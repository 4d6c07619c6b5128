//! Exchanges with real clients, captured in a namespace with `-p`: the same requests get the same octets. The
//! captures are of udhcpc 1.38 and dhcpcd 10.5, which took what they were offered.

use pasta_datapath::link::responder::offer::{Ipv4Offer, Ipv6Offer, Names, Offer};
use pasta_datapath::link::responder::{dhcpv4, dhcpv6};
use pasta_datapath::wire::domain;
use pasta_ipc::types::{MacAddr, Mtu, Prefix};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What the host had: 192.0.2.2/24 and 2001:db8::2/64, a resolver, no search list.
fn offer(resolver: Ipv4Addr) -> Offer {
    let ours = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    let search: [&str; 0] = [];
    Offer {
        ipv4: Some(Ipv4Offer {
            addresses: vec![Prefix::new([192, 0, 2, 2].into(), 24).expect("24 of 32 bits").into()],
            server: [192, 0, 2, 1].into(),
            router: Some([192, 0, 2, 1].into()),
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
    let offer = offer([10, 255, 255, 53].into());
    for name in ["udhcpc-discover", "udhcpc-request", "dhcpcd-discover", "dhcpcd-request"] {
        let request = golden(&format!("{name}.bin"));
        let mut answer = dhcpv4::answer(&offer, Ipv4Addr::BROADCAST, &request).unwrap();
        assert_eq!(answer.reply.finish(), golden(&format!("{name}.reply")), "{name}");
    }
}

#[test]
fn dhcpv6_clients_get_what_they_got() {
    let offer = offer([10, 255, 255, 53].into());
    for name in ["dhcpcd-solicit", "dhcpcd-request6"] {
        let request = golden(&format!("{name}.bin"));
        let answer = dhcpv6::answer(&offer, MacAddr::OURS_BY_DEFAULT, &request).unwrap();
        assert_eq!(answer.octets(), golden(&format!("{name}.reply")), "{name}");
    }
}
