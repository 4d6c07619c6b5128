use super::*;
use crate::link::responder::offer::Names;
use crate::wire::domain;
use pasta_ipc::types::{AssignedAddress, Ipv6Net};

const MAC: MacAddr = MacAddr::OURS_BY_DEFAULT;
/// Our DUID.
const SERVER: &[u8] = &[0, 3, 0, 1, 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55];
const CLIENT: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

const ASSIGNED: &str = "2001:db8:a::7";
const SECOND: &str = "2001:db8:a::8";
const NEIGHBOUR: &str = "2001:db8:a::99";
const ELSEWHERE: &str = "2001:db8:b::7";

const SOLICIT: u8 = 1;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION_REQUEST: u8 = 11;

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// What a client of a bound host is offered.
fn offer() -> Offer {
    let address = |text| AssignedAddress::from(Ipv6Net::new(ip(text), 64).unwrap());
    Offer {
        ipv6: Some(Ipv6Offer {
            addresses: vec![address(ASSIGNED), address(SECOND)],
            server: ip("fe80::1"),
            default_router: true,
            resolvers: ip("2001:db8::53").octets().to_vec(),
            lease: 3600,
        }),
        names: Names {
            search: domain::encode("a.example"),
            fqdn: ("box.example".to_owned(), domain::encode("box.example")),
            ..Names::default()
        },
        ..Offer::default()
    }
}

fn ours(offer: &mut Offer) -> &mut Ipv6Offer {
    offer.ipv6.as_mut().unwrap()
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap();
    [&code.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
}

/// An association for addresses with these in it.
fn association(id: u8, addresses: &[&str]) -> Vec<u8> {
    let inside = |it: &&str| option(5, &[&ip(it).octets()[..], &[0; 8]].concat());
    let inside: Vec<u8> = addresses.iter().flat_map(inside).collect();
    option(3, &[&[0, 0, 0, id][..], &[0; 8], &inside].concat())
}

fn client() -> Vec<u8> {
    option(1, CLIENT)
}

fn server() -> Vec<u8> {
    option(2, SERVER)
}

/// What is answered, option by option in words, after the type.
fn answered(offer: &Offer, kind: u8, options: &[Vec<u8>]) -> Result<Vec<String>, DropReason> {
    let request = [&[kind, 7, 8, 9][..], &options.concat()].concat();
    let octets = answer(offer, MAC, &request)?.octets().to_vec();
    assert_eq!(octets[1..4], [7, 8, 9]);
    let kind = match octets[0] {
        2 => "advertise".to_owned(),
        7 => "reply".to_owned(),
        other => panic!("type {other}"),
    };
    Ok([vec![kind], words(&octets[4..])].concat())
}

fn words(mut rest: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    while !rest.is_empty() {
        let len = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let (code, value) = (rest[1], &rest[4..4 + len]);
        rest = &rest[4 + len..];
        let u32_at = |at: usize| u32::from_be_bytes(value[at..at + 4].try_into().unwrap());
        let address = || Ipv6Addr::from(<[u8; 16]>::try_from(&value[..16]).unwrap());
        words.push(match code {
            1 => {
                assert_eq!(value, CLIENT);
                continue;
            }
            2 => {
                assert_eq!(value, SERVER);
                continue;
            }
            3 | 25 => {
                let inside = words_of(&value[12..]);
                let kind = if code == 3 { "ia" } else { "pd" };
                format!("{kind}{} {}/{} ({inside})", value[3], u32_at(4), u32_at(8))
            }
            4 => format!("ta{} ({})", value[3], words_of(&value[4..])),
            5 => format!("{} {}/{}", address(), u32_at(16), u32_at(20)),
            7 => format!("preference {}", value[0]),
            13 => format!("status {}", value[1]),
            14 => "rapid".to_owned(),
            23 => format!("dns {}", address()),
            24 | 39 => format!("{code} {}", value.escape_ascii()),
            32 => format!("refresh {}", u32_at(0)),
            other => panic!("option {other}"),
        });
    }
    words
}

fn words_of(octets: &[u8]) -> String {
    words(octets).join(", ")
}

const GRANTED: &str = "ia1 60/2880 (2001:db8:a::7 3600/3600)";
const REST: [&str; 3] =
    ["dns 2001:db8::53", "24 \\x01a\\x07example\\x00", "39 \\x00\\x03box\\x07example\\x00"];

fn with_rest(first: &[&str]) -> Vec<String> {
    first.iter().chain(&REST).map(|it| (*it).to_owned()).collect()
}

#[test]
fn solicit_is_offered_all_that_there_is() {
    let said = answered(&offer(), SOLICIT, &[client(), association(1, &[])]);
    assert_eq!(said, Ok(with_rest(&["advertise", "preference 255", GRANTED])));
    // Without an association there is none in the answer.
    let said = answered(&offer(), SOLICIT, &[client()]);
    assert_eq!(said, Ok(with_rest(&["advertise", "preference 255"])));
}

#[test]
fn rapid_commit_skips_the_offer() {
    let said = answered(&offer(), SOLICIT, &[client(), option(14, &[]), association(1, &[])]);
    assert_eq!(said, Ok(with_rest(&["reply", "rapid", GRANTED])));
}

#[test]
fn request_is_granted_unless_it_names_an_address_of_another_prefix() {
    let said =
        |address| answered(&offer(), REQUEST, &[client(), server(), association(1, &[address])]);
    assert_eq!(said(ASSIGNED), Ok(with_rest(&["reply", GRANTED])));
    assert_eq!(said(NEIGHBOUR), Ok(with_rest(&["reply", GRANTED])));
    assert_eq!(said(ELSEWHERE), Ok(with_rest(&["reply", "ia1 0/0 (status 4)"])));
}

#[test]
fn renewed_leases_lose_what_is_not_assigned_any_more() {
    for (kind, named) in [(RENEW, vec![server()]), (REBIND, Vec::new())] {
        let said = |addresses| {
            let options = [vec![client(), association(1, addresses)], named.clone()].concat();
            answered(&offer(), kind, &options)
        };
        assert_eq!(said(&[ASSIGNED]), Ok(with_rest(&["reply", GRANTED])));
        let moved = "ia1 60/2880 (2001:db8:a::7 3600/3600, 2001:db8:b::7 0/0)";
        assert_eq!(said(&[ELSEWHERE]), Ok(with_rest(&["reply", moved])));
        assert_eq!(said(&[ELSEWHERE, ASSIGNED]), Ok(with_rest(&["reply", moved])));
        let second = "ia1 60/2880 (2001:db8:a::8 3600/3600)";
        assert_eq!(said(&[SECOND]), Ok(with_rest(&["reply", second])));
    }
}

#[test]
fn an_address_that_is_about_to_go_stays_beside_the_new_one() {
    let mut offer = offer();
    ours(&mut offer).addresses[1].deprecated = true;
    let options = [client(), server(), association(1, &[SECOND])];
    let both = "ia1 60/2880 (2001:db8:a::7 3600/3600, 2001:db8:a::8 0/3600)";
    assert_eq!(answered(&offer, RENEW, &options), Ok(with_rest(&["reply", both])));
}

#[test]
fn confirm_says_whether_all_addresses_are_right() {
    let said = |addresses| answered(&offer(), CONFIRM, &[client(), association(1, addresses)]);
    let status = |number: u8| Ok(vec!["reply".to_owned(), format!("status {number}")]);
    assert_eq!(said(&[ASSIGNED]), status(0));
    assert_eq!(said(&[ASSIGNED, SECOND]), status(0));
    assert_eq!(said(&[ASSIGNED, ELSEWHERE]), status(4));
    assert_eq!(said(&[]), Err(DropReason::NotAnswered));
}

#[test]
fn information_is_given_without_an_association_or_an_identifier() {
    let said = answered(&offer(), INFORMATION_REQUEST, &[]);
    assert_eq!(said, Ok(with_rest(&["reply", "refresh 3600"])));
    let said = answered(&offer(), INFORMATION_REQUEST, &[client(), server()]);
    assert_eq!(said, Ok(with_rest(&["reply", "refresh 3600"])));
    let said = answered(&offer(), INFORMATION_REQUEST, &[client(), association(1, &[])]);
    assert_eq!(said, Err(DropReason::NotAnswered));
    let mut held = offer();
    ours(&mut held).lease = 60;
    let said = answered(&held, INFORMATION_REQUEST, &[]);
    assert_eq!(said, Ok(with_rest(&["reply", "refresh 600"])));
}

#[test]
fn leases_given_back_are_acknowledged() {
    for kind in [RELEASE, DECLINE] {
        let said = answered(&offer(), kind, &[client(), server(), association(1, &[ASSIGNED])]);
        assert_eq!(said, Ok(vec!["reply".to_owned(), "status 0".to_owned()]));
    }
}

#[test]
fn messages_with_the_wrong_identifiers_have_no_answer() {
    let (other, lease) = (option(2, &[0, 3, 0, 1, 7]), association(1, &[ASSIGNED]));
    let nothing = Err(DropReason::NotAnswered);
    for kind in 0..=255 {
        let of_us = matches!(kind, REQUEST | RENEW | RELEASE | DECLINE);
        let of_all = matches!(kind, SOLICIT | CONFIRM | REBIND);
        let says_something = |options: &[Vec<u8>]| {
            let said = answered(&offer(), kind, options);
            assert!(said.is_ok() || said == nothing, "{said:?}");
            said.is_ok()
        };
        let lease = || lease.clone();
        assert_eq!(says_something(&[client(), lease()]), of_all, "{kind}");
        assert_eq!(says_something(&[client(), server(), lease()]), of_us, "{kind}");
        assert!(!says_something(&[client(), other.clone(), lease()]), "{kind}");
        assert!(!says_something(&[lease()]) && !says_something(&[server(), lease()]), "{kind}");
    }
}

#[test]
fn one_association_gets_the_address_and_the_others_none() {
    let temporary = option(4, &[0, 0, 0, 8]);
    let prefix = option(25, &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    let options = [client(), temporary, prefix, association(1, &[]), association(2, &[])];
    let wanted = [
        "advertise",
        "preference 255",
        "ta8 (status 2)",
        "pd9 0/0 (status 6)",
        GRANTED,
        "ia2 0/0 (status 2)",
    ];
    assert_eq!(answered(&offer(), SOLICIT, &options), Ok(with_rest(&wanted)));
}

#[test]
fn lifetimes_are_those_of_the_offer() {
    let lease = |change: &dyn Fn(&mut Ipv6Offer)| {
        let mut offer = offer();
        change(ours(&mut offer));
        answered(&offer, SOLICIT, &[client(), association(1, &[])]).unwrap()[2].clone()
    };
    assert_eq!(lease(&|it| it.lease = 60), "ia1 30/48 (2001:db8:a::7 60/60)");
    let all = u32::MAX;
    assert_eq!(lease(&|it| it.lease = all), format!("ia1 {all}/{all} (2001:db8:a::7 {all}/{all})"));
    let deprecated = lease(&|it| it.addresses[0].deprecated = true);
    assert_eq!(deprecated, "ia1 60/2880 (2001:db8:a::7 0/3600)");
}

#[test]
fn without_an_assigned_address_nothing_is_answered() {
    let mut local = offer();
    ours(&mut local).addresses.clear();
    for offer in [local, Offer::default()] {
        let said = answered(&offer, SOLICIT, &[client(), association(1, &[])]);
        assert_eq!(said, Err(DropReason::NotAnswered));
        let said = answered(&offer, INFORMATION_REQUEST, &[]);
        assert_eq!(said, Err(DropReason::NotAnswered));
    }
}

#[test]
fn a_client_that_wants_its_name_updated_is_overridden() {
    let said = answered(&offer(), SOLICIT, &[client(), option(39, &[FQDN_S, 1, b'x', 0])]);
    assert_eq!(said.unwrap()[4], "39 \\x02\\x03box\\x07example\\x00");
}

#[test]
fn a_thousand_associations_fit_no_answer_and_break_none() {
    let many: Vec<Vec<u8>> = (0..=255).map(|n| association(n, &[ELSEWHERE; 3])).collect();
    let options = [vec![client(), server()], many].concat();
    let request = [&[RENEW, 7, 8, 9][..], &options.concat()].concat();
    let reply = answer(&offer(), MAC, &request).unwrap();
    assert!(words(&reply.octets()[4..]).len() > 10);
}
