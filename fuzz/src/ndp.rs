//! Router advertisements under offers, solicitations and times in any order; and what is read of any ICMPv6.
//!
//! Invariants: an advertisement fits a packet of 1280 octets, has a good checksum and whole options; a prefix
//! is masked, comes once, and is preferred no longer than valid; what is offered is in it as long as there is
//! room; after all was sent, the next time is later; nothing is sent before there is an offer.

use crate::dhcpv6::offer;
use crate::input::Input;
use pasta_datapath::link::responder::ra::{ALL_NODES, RouterAdvertiser};
use pasta_datapath::time::Instant;
use pasta_datapath::wire::icmp::{Message, parse_v6};
use pasta_ipc::start::Lifetimes;
use pasta_ipc::types::{Address, MacAddr, Service};
use std::net::Ipv6Addr;
use std::time::Duration;

/// Runs the steps that `octets` are.
///
/// # Panics
///
/// If an advertisement, or when one is sent, breaks an invariant.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    read(octets);
    let lifetimes = if input.bit() { Lifetimes::Limited } else { Lifetimes::Unlimited };
    let mut advertiser = RouterAdvertiser::new(lifetimes, input.u32().into());
    let (mut now, mut offered) = (Instant::START, None);
    while !input.is_empty() {
        match input.octet() % 4 {
            0 => {
                let offer = offer(&mut input);
                let dhcpv6 = if input.bit() { Service::On } else { Service::Off };
                advertiser.update(now, &offer, dhcpv6);
                offered = offer.ipv6;
            }
            1 => now = now + Duration::from_secs(input.u16().into()),
            2 => {
                let answers = advertiser.solicited(now, input.ipv6());
                assert!(!answers || offered.is_some(), "an answer without an offer");
            }
            _ => {
                if advertiser.is_due(now) {
                    advertiser.sent(now);
                    assert!(advertiser.next_deadline() > Some(now), "sent without end");
                }
            }
        }
        let advertised = advertiser.advertisement(now, MacAddr::OURS_BY_DEFAULT);
        assert_eq!(advertised.is_some(), offered.is_some());
        assert!(offered.is_some() || advertiser.next_deadline().is_none());
        let (Some((source, mut made)), Some(offered)) = (advertised, &offered) else { continue };
        assert_eq!(source, offered.server);
        let prefixes = prefixes(source, made.finish(source, ALL_NODES));
        for address in &offered.addresses {
            let prefix = address.address().masked(64);
            assert_eq!(prefixes.iter().filter(|it| **it == prefix).count(), 1, "{prefix}");
        }
    }
}

/// Reads `octets` as a message with a good checksum, and as one without.
fn read(octets: &[u8]) {
    let (source, destination) = (Ipv6Addr::LOCALHOST.into(), ALL_NODES.into());
    let any = parse_v6(octets, source, destination, 255);
    assert_eq!(any, parse_v6(octets, source, destination, 255));
    if let Ok(Message::NeighbourSolicitation { target }) = any {
        assert!(!target.is_multicast());
    }
}

/// The prefixes of an advertisement, once it has been checked.
fn prefixes(source: Ipv6Addr, octets: &[u8]) -> Vec<Ipv6Addr> {
    assert!(octets.len() <= 1240 && octets.len() % 8 == 0, "{} octets", octets.len());
    assert_eq!(parse_v6(octets, source.into(), ALL_NODES.into(), 255), Ok(Message::Other));
    let (mut rest, mut prefixes) = (octets.get(16..).unwrap_or_default(), Vec::new());
    while let [kind, units, ..] = rest {
        assert!(*units > 0, "an option of no length");
        let (option, more) = rest.split_at(usize::from(*units) * 8);
        rest = more;
        if *kind != 3 {
            continue;
        }
        let (valid, preferred) = (option.get(4..8), option.get(8..12));
        assert!(preferred <= valid, "preferred longer than valid");
        let prefix = option.get(16..32).and_then(|it| <[u8; 16]>::try_from(it).ok());
        let prefix = prefix.map(Ipv6Addr::from).unwrap_or(Ipv6Addr::UNSPECIFIED);
        assert_eq!(prefix, prefix.masked(64));
        assert!(!prefixes.contains(&prefix), "{prefix} comes twice");
        prefixes.push(prefix);
    }
    prefixes
}
