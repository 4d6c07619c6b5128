use super::*;
use crate::link::responder::offer::{Ipv6Offer, Names};
use crate::wire::domain;
use pasta_ipc::types::{AssignedAddress, Ipv6Net};

const START: Instant = Instant::START;
const MAC: MacAddr = MacAddr::OURS_BY_DEFAULT;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// What is offered where the host has these addresses, which are deprecated after a `!`.
fn offer(addresses: &[&str]) -> Offer {
    let address = |text: &&str| {
        let (address, bits) = text.trim_start_matches('!').split_once('/').unwrap();
        let prefix = Ipv6Net::new(ip(address), bits.parse().unwrap()).unwrap();
        AssignedAddress { prefix, deprecated: text.starts_with('!') }
    };
    Offer {
        ipv6: Some(Ipv6Offer {
            addresses: addresses.iter().map(address).collect(),
            server: ip("fe80::1"),
            default_router: true,
            resolvers: Vec::new(),
            lease: 3600,
        }),
        ..Offer::default()
    }
}

fn ours(offer: &mut Offer) -> &mut Ipv6Offer {
    offer.ipv6.as_mut().unwrap()
}

fn advertiser(offer: &Offer) -> RouterAdvertiser {
    let mut made = RouterAdvertiser::new(Lifetimes::Limited, 7);
    made.update(START, offer, Service::On);
    made
}

/// What is advertised at `now`: flags and router lifetime, then each option in words.
fn said(advertiser: &RouterAdvertiser, now: Instant) -> Vec<String> {
    let (source, mut made) = advertiser.advertisement(now, MAC).unwrap();
    let octets = made.finish(source, ALL_NODES).to_vec();
    let managed = if octets[5] & 0x80 == 0 { "" } else { " managed" };
    let mut said = vec![format!("{}{managed}", u16::from_be_bytes([octets[6], octets[7]]))];
    let mut rest = &octets[16..];
    while !rest.is_empty() {
        let (option, more) = rest.split_at(usize::from(rest[1]) * 8);
        rest = more;
        let u32_at = |at: usize| u32::from_be_bytes(option[at..at + 4].try_into().unwrap());
        let address = |at: usize| {
            Ipv6Addr::from(<[u8; 16]>::try_from(&option[at..at + 16]).unwrap()).to_string()
        };
        said.push(match option[0] {
            1 => continue,
            3 => {
                assert_eq!((option[2], option[3] & 0x7f), (64, 0x40));
                let on_link = if option[3] & 0x80 == 0 { " off link" } else { "" };
                format!("{} {}/{}{on_link}", address(16), u32_at(8), u32_at(4))
            }
            5 => format!("mtu {}", u32_at(4)),
            25 => {
                let servers: Vec<_> = (8..option.len()).step_by(16).map(address).collect();
                format!("dns {} {}", u32_at(4), servers.join(" "))
            }
            31 => {
                let names = String::from_utf8_lossy(&option[8..]).into_owned();
                format!("search {} {}", u32_at(4), names.trim_end_matches('\0').escape_debug())
            }
            other => panic!("option {other}"),
        });
    }
    said
}

#[test]
fn prefixes_of_the_assigned_addresses_are_advertised() {
    let offer = offer(&["2001:db8:a::7/64", "2001:db8:a::8/128", "2001:db8:b::7/48"]);
    let a = advertiser(&offer);
    let wanted = ["1800 managed", "2001:db8:a:: 3600/7200", "2001:db8:b:: 3600/7200"];
    assert_eq!(said(&a, START), wanted);
}

#[test]
fn a_prefix_wider_than_the_hosts_makes_addresses_and_is_not_on_the_link() {
    let a = advertiser(&offer(&["2001:db8:a::7/128", "!2001:db8:b::7/64", "!2001:db8:b::8/64"]));
    let wanted = ["1800 managed", "2001:db8:a:: 3600/7200 off link", "2001:db8:b:: 0/7200"];
    assert_eq!(said(&a, START), wanted);
    let a = advertiser(&offer(&["!2001:db8:b::7/64", "2001:db8:b::8/64"]));
    assert_eq!(said(&a, START)[1..], ["2001:db8:b:: 3600/7200"]);
}

#[test]
fn all_that_is_configured_is_advertised() {
    let mut all = offer(&["2001:db8:a::7/64"]);
    all.mtu = Some(Mtu::DEFAULT);
    all.names = Names { search: domain::encode_list(["a.b", "c"]), ..Names::default() };
    ours(&mut all).resolvers = [ip("2001:db8::1").octets(), ip("2001:db8::2").octets()].concat();
    let wanted = [
        "1800 managed",
        "mtu 65520",
        "2001:db8:a:: 3600/7200",
        "dns 1800 2001:db8::1 2001:db8::2",
        "search 1800 \\u{1}a\\u{1}b\\0\\u{1}c",
    ];
    assert_eq!(said(&advertiser(&all), START), wanted);

    // What does not change holds for ever.
    let mut unlimited = RouterAdvertiser::new(Lifetimes::Unlimited, 7);
    unlimited.update(START, &all, Service::Off);
    let said = said(&unlimited, START);
    assert_eq!(said[0], "65535");
    assert_eq!(said[2], format!("2001:db8:a:: {INFINITE}/{INFINITE}"));
    assert_eq!(said[3], format!("dns {INFINITE} 2001:db8::1 2001:db8::2"));
}

#[test]
fn local_mode_has_no_prefix_and_no_default_router() {
    let mut local = offer(&[]);
    ours(&mut local).default_router = false;
    assert_eq!(said(&advertiser(&local), START), ["0"]);
    let mut too_small = offer(&[]);
    too_small.mtu = Some(Mtu::try_from(1279).unwrap());
    assert_eq!(said(&advertiser(&too_small), START), ["1800"]);
}

#[test]
fn a_prefix_that_went_is_deprecated_at_once_until_hosts_have_forgotten_it() {
    let mut a = advertiser(&offer(&["2001:db8:a::7/64"]));
    a.sent(START);
    let moved = START + seconds(5);
    a.update(moved, &offer(&["2001:db8:b::7/64"]), Service::On);
    assert!(a.is_due(moved));
    let wanted = ["1800 managed", "2001:db8:b:: 3600/7200", "2001:db8:a:: 0/7200"];
    assert_eq!(said(&a, moved), wanted);
    assert_eq!(said(&a, moved + seconds(600))[2], "2001:db8:a:: 0/6600");
    // It comes back.
    let mut back = RouterAdvertiser { random: 7, ..a };
    back.update(moved + seconds(1), &offer(&["2001:db8:a::7/64"]), Service::On);
    let wanted = ["1800 managed", "2001:db8:a:: 3600/7200", "2001:db8:b:: 0/7200"];
    assert_eq!(said(&back, moved + seconds(1)), wanted);
    back.sent(moved + seconds(7199));
    assert_eq!(said(&back, moved + seconds(7199)).len(), 3);
    back.sent(moved + seconds(7202));
    assert_eq!(said(&back, moved + seconds(7202)), wanted[..2]);
}

#[test]
fn a_prefix_that_comes_back_after_there_was_nothing_is_advertised_once() {
    let mut a = advertiser(&offer(&["2001:db8:a::7/64"]));
    a.update(START, &offer(&["2001:db8:b::7/64"]), Service::On);
    a.update(START, &Offer::default(), Service::On);
    assert!(a.advertisement(START, MAC).is_none() && a.next_deadline().is_none());
    a.update(START, &offer(&["2001:db8:a::7/64"]), Service::On);
    let wanted = ["1800 managed", "2001:db8:a:: 3600/7200", "2001:db8:b:: 0/7200"];
    assert_eq!(said(&a, START), wanted);
}

#[test]
fn what_else_went_is_taken_back_while_the_change_is_announced() {
    let mut before = offer(&["2001:db8:a::7/64"]);
    before.names = Names { search: domain::encode_list(["a", "b"]), ..Names::default() };
    ours(&mut before).resolvers = [ip("2001:db8::1").octets(), ip("2001:db8::2").octets()].concat();
    let mut after = before.clone();
    after.names = Names { search: domain::encode_list(["b"]), ..Names::default() };
    ours(&mut after).resolvers = ip("2001:db8::2").octets().to_vec();
    ours(&mut after).server = ip("fe80::2");
    let mut a = advertiser(&before);
    let mut now = START;
    for _ in 0..5 {
        a.sent(now);
        now = a.next_deadline().unwrap();
    }
    a.update(now, &after, Service::On);
    for round in 1..=4 {
        let said = said(&a, now);
        let (dns, search) = ("dns 0 2001:db8::1", "search 0 \\u{1}a");
        let withdrawn = |text| said.iter().any(|it| it == text);
        assert_eq!((withdrawn(dns), withdrawn(search)), (round < 4, round < 4), "{said:?}");
        let former = if round < 4 { vec![ip("fe80::1")] } else { Vec::new() };
        assert_eq!(a.former_routers(), former);
        assert_eq!(a.advertisement(now, MAC).unwrap().0, ip("fe80::2"));
        a.sent(now);
        now = a.next_deadline().unwrap();
    }
    // Back again: nothing is taken back that is there.
    a.update(now, &before, Service::On);
    assert_eq!(a.former_routers(), [ip("fe80::2")]);
    assert!(!said(&a, now).iter().any(|it| it.contains(" 0 ")), "{:?}", said(&a, now));
}

#[test]
fn a_change_is_announced_three_times_and_then_now_and_then() {
    let mut a = advertiser(&offer(&["2001:db8:a::7/64"]));
    let mut sent = vec![START];
    for _ in 0..6 {
        let now = *sent.last().unwrap();
        assert!(a.is_due(now));
        a.sent(now);
        assert!(!a.is_due(now));
        sent.push(a.next_deadline().unwrap());
    }
    let pauses: Vec<u64> = sent.windows(2).map(|it| it[1].since(it[0]).as_secs()).collect();
    assert_eq!(pauses[..2], [16, 16]);
    assert!(pauses[2..].iter().all(|it| (200..600).contains(it)), "{pauses:?}");
    assert_ne!(pauses[2], pauses[3]);
    // The same once more is no change; another one is, however soon.
    let (due, now) = (a.next_deadline(), *sent.last().unwrap());
    a.update(now, &offer(&["2001:db8:a::7/64"]), Service::On);
    assert_eq!(a.next_deadline(), due);
    a.update(now, &offer(&["2001:db8:b::7/64"]), Service::On);
    assert!(a.is_due(now));
}

#[test]
fn solicitations_are_answered_to_the_asker_or_soon_to_all() {
    let mut a = RouterAdvertiser::new(Lifetimes::Limited, 7);
    assert!(!a.solicited(START, ip("fe80::7")), "there is nothing to say yet");
    assert!(!a.solicited(START, Ipv6Addr::UNSPECIFIED));
    assert_eq!(a.next_deadline(), None);
    a.update(START, &offer(&["2001:db8:a::7/64"]), Service::On);
    a.sent(START);
    let due = a.next_deadline();
    assert!(a.solicited(START, ip("fe80::7")));
    assert_eq!(a.next_deadline(), due);
    assert!(!a.solicited(START + seconds(1), Ipv6Addr::UNSPECIFIED));
    assert_eq!(a.next_deadline(), Some(START + seconds(3)));
    assert!(!a.solicited(START + seconds(9), Ipv6Addr::UNSPECIFIED));
    assert_eq!(a.next_deadline(), Some(START + seconds(3)));
}

#[test]
fn lists_are_bounded_and_the_first_and_the_newest_are_kept() {
    let many = |second: u32| -> Vec<String> {
        (0..40).map(|n| format!("2001:db8:{second}:{n}::7/64")).collect()
    };
    let mut a = advertiser(&offer(&[]));
    for round in 1..=3 {
        let addresses = many(round);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        a.update(START, &offer(&addresses), Service::On);
    }
    let said = said(&a, START);
    assert_eq!((a.gone.len(), said.len()), (MAX_PREFIXES, 1 + 2 * MAX_PREFIXES));
    assert!(said[1].starts_with("2001:db8:3:: "), "{said:?}");
    assert!(a.gone.iter().all(|it| it.prefix.segments()[2] == 2));
}
