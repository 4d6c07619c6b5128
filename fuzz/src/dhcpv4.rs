//! DHCP requests, answered under any offer, and the answers read by a second reading of RFC 2131.
//!
//! Invariants: equal requests get equal answers; an answer repeats what it must and holds well-formed
//! options, each in one place, and zeros behind their end; it is no longer than the client takes; an address
//! is given if and only if it is assigned and the answer is no refusal; a lease comes with each address.

use crate::input::Input;
use pasta_datapath::counters::DropReason;
use pasta_datapath::link::responder::dhcpv4::answer;
use pasta_datapath::link::responder::offer::{Ipv4Offer, Names, Offer};
use pasta_datapath::wire::domain;
use pasta_ipc::types::{AssignedAddress, Ipv4Net, MacAddr, Mtu};
use std::net::Ipv4Addr;

/// Longest message of 576 octets without its headers, and of 1500.
const LENGTHS: [usize; 2] = [548, 1472];

/// Makes an offer of the first octets, and answers the rest.
///
/// # Panics
///
/// If an answer breaks an invariant.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let offer = offer(&mut input);
    let asked = input.ipv4();
    let request = input.rest();
    let answered = answer(&offer, asked, request);
    let again = answer(&offer, asked, request);
    let mut answered = match answered {
        Ok(answered) => answered,
        Err(reason) => {
            assert!(matches!(reason, DropReason::Malformed | DropReason::NotAnswered));
            return assert_eq!(again.err(), Some(reason));
        }
    };
    let reply = answered.reply.finish().to_vec();
    let repeated = again.map(|mut it| it.reply.finish().to_vec());
    assert_eq!(repeated.as_ref(), Ok(&reply), "equal requests, different answers");

    let takes_more = find(options(request.get(240..).unwrap_or_default()), 57).is_some();
    assert!((300..=LENGTHS[usize::from(takes_more)]).contains(&reply.len()), "{}", reply.len());
    let (fixed, rest) = reply.split_at(240);
    assert_eq!(fixed.first_chunk(), Some(&[2, 1, 6, 0]));
    for same in [4..8, 12..16, 24..34] {
        assert_eq!(fixed.get(same.clone()), request.get(same));
    }
    let is_relayed = request.get(24..28).is_some_and(|it| it != [0; 4]);
    let said = options(rest);
    let end: usize = said.iter().map(|(_, value)| 2 + value.len()).sum();
    assert_eq!(rest.get(end), Some(&255), "options have no end");
    assert!(rest.iter().skip(end + 1).all(|it| *it == 0), "something is behind the end");

    let yours = fixed.get(16..20).and_then(|it| <[u8; 4]>::try_from(it).ok());
    let yours = yours.map(Ipv4Addr::from).unwrap_or(Ipv4Addr::UNSPECIFIED);
    let is_assigned = |it: &Ipv4Offer| it.addresses.iter().any(|it| it.address() == yours);
    let given = offer.ipv4.as_ref().is_some_and(is_assigned);
    assert!(given || yours.is_unspecified(), "{yours} is not assigned");
    assert_eq!(find(said.clone(), 51).is_some(), given, "address and lease do not go together");
    let by_relay = find(options(request.get(240..).unwrap_or_default()), 82);
    let repeated = said.last().filter(|(code, _)| *code == 82).map(|(_, value)| value.clone());
    assert_eq!(repeated, by_relay, "what a relay has added is not repeated at the end");
    let kind = find(said.clone(), 53);
    let mut flags = request.get(10..12).map(<[u8]>::to_vec).unwrap_or_default();
    if is_relayed && kind.as_deref() == Some(&[6]) {
        flags.iter_mut().take(1).for_each(|it| *it |= 0x80);
    }
    assert_eq!(fixed.get(10..12), Some(&flags[..]));
    match kind.as_deref() {
        Some([6]) => {
            assert!(!given && said.iter().all(|(code, _)| [53, 54, 61, 82].contains(code)))
        }
        Some([2]) => assert!(given),
        Some([5]) => {}
        other => panic!("an answer of type {other:?}"),
    }
    let hardware = answered.hardware;
    let is_clients =
        fixed.get(28..34) == Some(&hardware[..]) && MacAddr::try_from(hardware).is_ok();
    assert!(is_clients || hardware == [0xff; 6], "to {hardware:?}");
    assert!([67, 68].contains(&answered.to.port()));
}

/// The options of a message, up to their end or one that does not fit.
fn options(mut octets: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut options = Vec::new();
    loop {
        match octets {
            [0, rest @ ..] => octets = rest,
            [] | [255, ..] | [_] => return options,
            [code, len, rest @ ..] => {
                let Some((value, rest)) = rest.split_at_checked(usize::from(*len)) else {
                    return options;
                };
                options.push((*code, value.to_vec()));
                octets = rest;
            }
        }
    }
}

fn find(options: Vec<(u8, Vec<u8>)>, code: u8) -> Option<Vec<u8>> {
    options.into_iter().find(|(it, _)| *it == code).map(|(_, value)| value)
}

fn offer(input: &mut Input<'_>) -> Offer {
    let addresses = (0..input.octet() % 4).filter_map(|_| {
        let (address, bits, deprecated) = (input.ipv4(), input.octet() % 33, input.bit());
        let prefix = Ipv4Net::new(address, bits).ok().filter(|_| !address.is_unspecified())?;
        Some(AssignedAddress { prefix, deprecated })
    });
    let addresses: Vec<_> = addresses.collect();
    let ours = Ipv4Offer {
        server: input.ipv4(),
        router: Some(input.ipv4()).filter(|_| input.bit()),
        resolvers: (0..input.octet() % 4).flat_map(|_| input.ipv4().octets()).collect(),
        lease: [u32::MAX, 60, 3600][usize::from(input.octet() % 3)],
        addresses,
    };
    Offer {
        ipv4: Some(ours).filter(|it| !it.addresses.is_empty()),
        mtu: Mtu::try_from(input.u16()).ok(),
        names: names(input),
        ..Offer::default()
    }
}

/// Names that an offer may have.
pub(crate) fn names(input: &mut Input<'_>) -> Names {
    let name = |input: &mut Input<'_>| {
        let label = "x".repeat(usize::from(input.octet() % 64));
        format!("{label}.{}", ["example", "a.example", "b"][usize::from(input.octet() % 3)])
    };
    let search: Vec<String> = (0..input.octet() % 8).map(|_| name(input)).collect();
    let (host_name, fqdn) = (name(input), name(input));
    let fqdn = if input.bit() { fqdn } else { String::new() };
    Names {
        search: domain::encode_list(search.iter().map(String::as_str)),
        search_compressed: domain::encode_compressed(search.iter().map(String::as_str)),
        host_name,
        fqdn: (fqdn.clone(), domain::encode(&fqdn)),
    }
}
