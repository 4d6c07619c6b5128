use super::*;
use crate::counters::Counters;
use crate::link::classify::{Content, Framing, classify};
use crate::link::responder::offer::Names;
use crate::link::writer::ReadError;
use crate::wire::{domain, vnet};
use pasta_ipc::types::{Ipv4Net, TapOffloads};
use std::io::IoSlice;

const ASSIGNED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn address(address: Ipv4Addr, bits: u8) -> AssignedAddress<Ipv4Addr> {
    Ipv4Net::new(address, bits).unwrap().into()
}

/// What a client of a bound host is offered.
fn offer() -> Offer {
    Offer {
        ipv4: Some(Ipv4Offer {
            addresses: vec![address(ASSIGNED, 24), address(SECOND, 25)],
            server: ROUTER,
            router: Some(ROUTER),
            resolvers: vec![192, 0, 2, 53, 192, 0, 2, 54],
            lease: 3600,
        }),
        ipv6: None,
        mtu: Some(Mtu::DEFAULT),
        names: Names {
            search: Vec::new(),
            search_compressed: domain::encode_compressed(["a.example", "example"]),
            host_name: "box".to_owned(),
            fqdn: ("box.example".to_owned(), domain::encode("box.example")),
        },
    }
}

fn bare(offer: &mut Offer) -> &mut Ipv4Offer {
    offer.ipv4.as_mut().unwrap()
}

/// A client's message.
struct Request {
    flags: u16,
    client: Ipv4Addr,
    relay: Ipv4Addr,
    /// Whom it is sent to.
    asked: Ipv4Addr,
    options: Vec<u8>,
}

/// One of this kind, with other options behind.
fn request(kind: u8, options: &[&[u8]]) -> Request {
    let (client, relay) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    let options = [&[53, 1, kind][..], &options.concat()].concat();
    Request { flags: 0, client, relay, asked: Ipv4Addr::BROADCAST, options }
}

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

/// The option `code` with an address.
fn with(code: u8, address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [code, 4, a, b, c, d]
}

impl Request {
    fn octets(&self) -> Vec<u8> {
        let mut octets = vec![0; 236];
        octets[..4].copy_from_slice(&[1, 1, 6, 0]);
        octets[4..8].copy_from_slice(b"xid!");
        octets[10..12].copy_from_slice(&self.flags.to_be_bytes());
        octets[12..16].copy_from_slice(&self.client.octets());
        octets[24..28].copy_from_slice(&self.relay.octets());
        octets[28..34].copy_from_slice(&CLIENT);
        octets.extend([99, 130, 83, 99]);
        octets.extend(&self.options);
        octets.push(255);
        octets
    }

    fn answered(&self, offer: &Offer) -> Result<Answered, DropReason> {
        answer(offer, self.asked, &self.octets()).map(|mut it| Answered::read(&mut it))
    }
}

/// An answer, read.
struct Answered {
    octets: Vec<u8>,
    options: Vec<(u8, Vec<u8>)>,
    hardware: [u8; 6],
    to: String,
    also_to: Option<String>,
    from: Ipv4Addr,
}

impl Answered {
    fn read(answer: &mut Answer) -> Self {
        let octets = answer.reply.finish().to_vec();
        assert_eq!((octets[0], &octets[4..8]), (2, &b"xid!"[..]));
        assert_eq!(octets[28..34], CLIENT);
        let (mut rest, mut options) = (&octets[240..], Vec::new());
        while rest[0] != 255 {
            let len = usize::from(rest[1]);
            options.push((rest[0], rest[2..2 + len].to_vec()));
            rest = &rest[2 + len..];
        }
        assert!(rest[1..].iter().all(|it| *it == 0), "nothing is behind the end");
        let also_to = answer.also_to.map(|it| it.to_string());
        let (hardware, to, from) = (answer.hardware, answer.to.to_string(), *answer.from.ip());
        Self { options, hardware, to, also_to, from, octets }
    }

    fn kind(&self) -> MessageType {
        self.option(53)[0].into()
    }

    /// The address that the client is given.
    fn yours(&self) -> Ipv4Addr {
        <[u8; 4]>::try_from(&self.octets[16..20]).unwrap().into()
    }

    fn option(&self, code: u8) -> &[u8] {
        self.find(code).unwrap_or_else(|| panic!("no option {code}"))
    }

    fn find(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(it, _)| *it == code).map(|(_, value)| &value[..])
    }

    fn codes(&self) -> Vec<u8> {
        self.options.iter().map(|(code, _)| *code).collect()
    }
}

fn kinds(answered: &Result<Answered, DropReason>) -> Result<(MessageType, Ipv4Addr), DropReason> {
    answered.as_ref().map(|it| (it.kind(), it.yours())).map_err(|it| *it)
}

#[test]
fn discover_is_offered_all_that_there_is() {
    let answered = request(DISCOVER, &[]).answered(&offer()).unwrap();
    assert_eq!((answered.kind(), answered.yours()), (MessageType::Offer, ASSIGNED));
    assert_eq!(answered.codes(), [53, 54, 51, 1, 3, 6, 12, 26, 58, 59, 81, 119]);
    assert_eq!(answered.option(54), ROUTER.octets());
    assert_eq!(answered.option(51), 3600_u32.to_be_bytes());
    assert_eq!(answered.option(58), 60_u32.to_be_bytes());
    assert_eq!(answered.option(59), 3150_u32.to_be_bytes());
    assert_eq!(answered.option(1), [255, 255, 255, 0]);
    assert_eq!(answered.option(3), ROUTER.octets());
    assert_eq!(answered.option(6), [192, 0, 2, 53, 192, 0, 2, 54]);
    assert_eq!(answered.option(12), b"box");
    assert_eq!(answered.option(26), 65520_u16.to_be_bytes());
    assert_eq!(answered.option(81), b"\x04\xff\xff\x03box\x07example\0");
    assert_eq!(answered.option(119), b"\x01a\x07example\0\xc0\x02");
}

#[test]
fn a_client_may_have_a_shorter_lease_of_a_minute_or_more() {
    let times = |wanted: &[u8], lease| {
        let mut offer = offer();
        bare(&mut offer).lease = lease;
        let answered = request(REQUEST, &[&with(50, ASSIGNED), wanted]).answered(&offer)?;
        let number = |code| {
            let octets = answered.options.iter().find(|it| it.0 == code).map(|it| it.1.clone());
            octets.map(|it| u32::from_be_bytes(it.try_into().unwrap()))
        };
        Ok([51, 58, 59].map(number))
    };
    let wants = |seconds: u32| [&[51, 4], &seconds.to_be_bytes()[..]].concat();
    let of = |lease, t1, t2| Ok([lease, t1, t2].map(Some));
    assert_eq!(times(&wants(90), 3600), of(90, 45, 79));
    assert_eq!(times(&wants(1), 3600), of(60, 30, 53));
    assert_eq!(times(&wants(86400), 3600), of(3600, 60, 3150));
    assert_eq!(times(&wants(3600), 60), of(60, 30, 53));
    assert_eq!(times(&wants(600), INFINITE), of(600, 60, 525));
    assert_eq!(times(&wants(INFINITE), INFINITE), Ok([Some(INFINITE), None, None]));
    assert_eq!(times(&[51, 2, 0, 9], 3600), Err(DropReason::Malformed));

    // It renews after half of the lease, whatever T1 is.
    let udhcpc = |seconds: &[u8]| [b"\x3c\x0cudhcp 1.38.0", seconds].concat();
    assert_eq!(times(&udhcpc(&[]), 3600), of(120, 60, 105));
    assert_eq!(times(&udhcpc(&[]), 60), of(60, 30, 53));
    assert_eq!(times(&udhcpc(&wants(90)), 3600), of(90, 45, 79));
    assert_eq!(times(&udhcpc(&[]), INFINITE), Ok([Some(INFINITE), None, None]));
    assert_eq!(times(b"\x3c\x07dhcpcd-", 3600), of(3600, 60, 3150));
}

#[test]
fn what_a_relay_has_added_is_repeated_at_the_end() {
    let relay = Ipv4Addr::new(192, 0, 2, 254);
    let added = [82, 6, 1, 4, b'e', b't', b'h', b'1'];
    let answered = |kind, options: &[&[u8]], offer: &Offer| {
        let request = Request { relay, ..request(kind, options) };
        request.answered(offer).unwrap()
    };
    let refused = answered(REQUEST, &[&added, &with(50, ELSEWHERE)], &offer());
    assert_eq!((refused.kind(), refused.codes()), (MessageType::Nak, vec![53, 54, 82]));
    let granted = answered(REQUEST, &[&with(50, ASSIGNED), &added, &[55, 2, 82, 1]], &offer());
    assert_eq!(granted.codes().last(), Some(&82));
    assert_eq!(granted.option(82), &added[2..]);
    // Of the flags only a refusal's are others than the client's.
    let flags = |answered: &Answered| answered.octets[10..12].to_vec();
    assert_eq!((flags(&refused), flags(&granted)), (vec![0x80, 0], vec![0, 0]));
    assert_eq!(granted.codes().iter().filter(|it| **it == 82).count(), 1);

    // The longest there is takes the room of what is less important.
    let mut full = offer();
    full.names.search_compressed = vec![1; 200];
    let longest = [&[82, 255][..], &[7; 255]].concat();
    let answered = answered(DISCOVER, &[&longest], &full);
    assert_eq!(answered.option(82), [7; 255]);
    assert!(answered.codes().starts_with(&[53, 54, 51, 1, 3]), "{:?}", answered.codes());
    assert!(!answered.codes().contains(&119) && answered.octets.len() <= 548);
}

#[test]
fn what_is_not_configured_is_not_offered() {
    let mut offer = offer();
    (offer.mtu, offer.names) = (None, Names::default());
    let ours = bare(&mut offer);
    (ours.router, ours.resolvers, ours.lease) = (None, Vec::new(), INFINITE);
    let answered = request(DISCOVER, &[]).answered(&offer).unwrap();
    assert_eq!(answered.codes(), [53, 54, 51, 1]);
    assert_eq!(answered.option(51), [255; 4]);
}

#[test]
fn requests_are_granted_or_refused_by_what_is_assigned() {
    let granted = |address| Ok((MessageType::Ack, address));
    let refused = Ok((MessageType::Nak, Ipv4Addr::UNSPECIFIED));
    let nothing = Err(DropReason::NotAnswered);
    let of = |wanted: &[u8], server: &[u8], client: Ipv4Addr| {
        let request = Request { client, ..request(REQUEST, &[wanted, server]) };
        kinds(&request.answered(&offer()))
    };
    let none = Ipv4Addr::UNSPECIFIED;
    let (right, wrong) = (with(50, ASSIGNED), with(50, ELSEWHERE));
    let (ours, others) = (with(54, ROUTER), with(54, ELSEWHERE));
    // Selecting, initializing again, renewing and rebinding (RFC 2131, table 4).
    assert_eq!(of(&right, &ours, none), granted(ASSIGNED));
    assert_eq!(of(&wrong, &ours, none), refused);
    assert_eq!(of(&right, &others, none), nothing, "an offer of another server");
    assert_eq!(of(&right, &[], none), granted(ASSIGNED));
    assert_eq!(of(&with(50, SECOND), &[], none), granted(SECOND));
    assert_eq!(of(&wrong, &[], none), refused);
    assert_eq!(of(&[], &[], ASSIGNED), granted(ASSIGNED));
    assert_eq!(of(&[], &[], ELSEWHERE), refused);
    assert_eq!(of(&[], &[], none), Err(DropReason::Malformed));
    assert_eq!(of(&[50, 3, 1, 2, 3], &[], none), Err(DropReason::Malformed));
}

#[test]
fn a_refusal_says_no_more_than_that() {
    let wanted = with(50, ELSEWHERE);
    let request = Request {
        client: Ipv4Addr::UNSPECIFIED,
        ..request(REQUEST, &[&wanted, &[61, 2, 7, 7], &[55, 2, 1, 3]])
    };
    let answered = request.answered(&offer()).unwrap();
    assert_eq!(answered.codes(), [53, 54, 61]);
    assert_eq!(answered.option(61), [7, 7]);
    assert_eq!((answered.hardware, answered.to.as_str()), ([255; 6], "255.255.255.255:68"));
}

#[test]
fn a_refused_client_that_has_an_address_is_sent_the_refusal_there_too() {
    let of = |client| {
        let request = Request { client, ..request(REQUEST, &[]) };
        let answered = request.answered(&offer()).unwrap();
        (answered.kind(), answered.to, answered.also_to)
    };
    let (everybody, there) = ("255.255.255.255:68".to_owned(), "198.51.100.7:68".to_owned());
    assert_eq!(of(ELSEWHERE), (MessageType::Nak, everybody, Some(there)));
    assert_eq!(of(ASSIGNED), (MessageType::Ack, "192.0.2.7:68".to_owned(), None));

    let (mut device, mut counters) = (Device(Vec::new()), Counters::default());
    let our_mac = MacAddr::OURS_BY_DEFAULT;
    let mut tap = FrameWriter { device: &mut device, our_mac, counters: &mut counters };
    let renewing = Request { client: ELSEWHERE, ..request(REQUEST, &[]) };
    assert!(send(&mut tap, &mut answer(&offer(), ROUTER, &renewing.octets()).unwrap()));
    assert_eq!(counters.to_tap, 2);
}

#[test]
fn an_answer_comes_from_the_server_that_was_asked() {
    let of = |client, asked| {
        let request = Request { client, asked, ..request(REQUEST, &[]) };
        let answered = request.answered(&offer()).unwrap();
        (answered.kind(), answered.option(54).to_vec(), answered.from)
    };
    let ours = |kind| (kind, ROUTER.octets().to_vec(), ROUTER);
    assert_eq!(of(ELSEWHERE, Ipv4Addr::BROADCAST), ours(MessageType::Nak));
    assert_eq!(of(ELSEWHERE, ROUTER), ours(MessageType::Nak));
    let former = Ipv4Addr::new(169, 254, 2, 2);
    assert_eq!(of(ELSEWHERE, former), (MessageType::Nak, former.octets().to_vec(), former));
    // The address is the same, and the router another one.
    assert_eq!(of(ASSIGNED, former), (MessageType::Ack, former.octets().to_vec(), former));
    assert_eq!(of(ASSIGNED, Ipv4Addr::BROADCAST), ours(MessageType::Ack));
    assert_eq!(of(ASSIGNED, Ipv4Addr::UNSPECIFIED), ours(MessageType::Ack));
}

#[test]
fn an_address_that_is_about_to_go_is_given_where_there_is_no_other() {
    let mut offer = offer();
    bare(&mut offer).addresses[1].deprecated = true;
    let second = request(REQUEST, &[&with(50, SECOND)]);
    assert_eq!(second.answered(&offer).unwrap().kind(), MessageType::Nak);
    bare(&mut offer).addresses.swap_remove(0);
    let answered = second.answered(&offer).unwrap();
    assert_eq!((answered.kind(), answered.yours()), (MessageType::Ack, SECOND));
}

#[test]
fn a_client_that_asks_for_an_assigned_address_is_offered_it() {
    let yours = |wanted| {
        let request = request(DISCOVER, &[&with(50, wanted)]);
        let answered = request.answered(&offer()).unwrap();
        (answered.yours(), answered.option(1).to_vec())
    };
    assert_eq!(yours(SECOND), (SECOND, vec![255, 255, 255, 128]));
    assert_eq!(yours(ELSEWHERE), (ASSIGNED, vec![255, 255, 255, 0]));
}

#[test]
fn rapid_commit_skips_the_offer() {
    let answered = request(DISCOVER, &[&[80, 0]]).answered(&offer()).unwrap();
    assert_eq!((answered.kind(), answered.yours()), (MessageType::Ack, ASSIGNED));
    assert_eq!(answered.option(80), [0; 0]);
    let answered = request(REQUEST, &[&with(50, ASSIGNED), &[80, 0]]).answered(&offer()).unwrap();
    assert_eq!(answered.find(80), None);
}

#[test]
fn inform_is_answered_without_address_and_lease() {
    const INFORM: u8 = 8;
    let of = |client| Request { client, ..request(INFORM, &[]) }.answered(&offer());
    let answered = of(ASSIGNED).unwrap();
    assert_eq!(kinds(&Ok(of(ASSIGNED).unwrap())), Ok((MessageType::Ack, Ipv4Addr::UNSPECIFIED)));
    assert_eq!(answered.codes(), [53, 54, 1, 3, 6, 12, 26, 81, 119]);
    assert_eq!((answered.hardware, answered.to.as_str()), (CLIENT, "192.0.2.7:68"));
    assert_eq!(kinds(&of(Ipv4Addr::UNSPECIFIED)), Err(DropReason::Malformed));
}

#[test]
fn bootp_is_granted_and_the_rest_has_no_answer() {
    let bootp = Request { options: vec![12, 1, b'x'], ..request(0, &[]) };
    assert_eq!(kinds(&bootp.answered(&offer())), Ok((MessageType::Ack, ASSIGNED)));
    for kind in [2, 4, 5, 6, 7, 9, 255] {
        let answered = request(kind, &[]).answered(&offer());
        assert_eq!(kinds(&answered), Err(DropReason::NotAnswered), "{kind}");
    }
    let nothing = Offer { ipv4: None, ..offer() };
    let answered = request(DISCOVER, &[]).answered(&nothing);
    assert_eq!(kinds(&answered), Err(DropReason::NotAnswered));
}

#[test]
fn a_group_is_no_client() {
    let mut octets = request(DISCOVER, &[]).octets();
    octets[28] |= 1;
    assert_eq!(
        answer(&offer(), Ipv4Addr::BROADCAST, &octets).map(|_| ()),
        Err(DropReason::Malformed)
    );
}

#[test]
fn a_router_outside_of_the_prefix_comes_with_a_route_to_it() {
    let mut offer = offer();
    let ours = bare(&mut offer);
    ours.addresses = vec![address(ASSIGNED, 32)];
    let answered = request(DISCOVER, &[]).answered(&offer).unwrap();
    assert_eq!(answered.option(1), [255; 4]);
    assert_eq!(answered.option(121), [32, 192, 0, 2, 1, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    assert_eq!(answered.option(3), ROUTER.octets());
}

#[test]
fn answers_go_where_the_client_listens() {
    let of = |flags, client, relay| {
        let request = Request { flags, client, relay, ..request(REQUEST, &[&with(50, ASSIGNED)]) };
        let answered = request.answered(&offer()).unwrap();
        assert_eq!(answered.octets[10..12], u16::to_be_bytes(flags));
        assert_eq!(answered.octets[12..16], Ipv4Addr::octets(&client));
        assert_eq!(answered.octets[24..28], Ipv4Addr::octets(&relay));
        (answered.hardware, answered.to)
    };
    let none = Ipv4Addr::UNSPECIFIED;
    assert_eq!(of(0, none, none), (CLIENT, "192.0.2.7:68".to_owned()));
    assert_eq!(of(0x8000, none, none), ([255; 6], "255.255.255.255:68".to_owned()));
    assert_eq!(of(0x8000, SECOND, none), (CLIENT, "192.0.2.8:68".to_owned()));
    assert_eq!(of(0, none, ELSEWHERE), (CLIENT, "198.51.100.7:67".to_owned()));
}

#[test]
fn what_is_asked_for_comes_first_and_nothing_twice() {
    let asked = [55, 6, 119, 3, 3, 250, 53, 26];
    let answered = request(DISCOVER, &[&asked, &[61, 1, 9]]).answered(&offer()).unwrap();
    assert_eq!(answered.codes(), [53, 54, 61, 51, 119, 3, 26, 1, 6, 12, 58, 59, 81]);
}

#[test]
fn options_that_do_not_fit_are_left_out_unless_the_client_takes_more() {
    let names: Vec<String> = (0..12).map(|n| format!("{n}.{}", "x".repeat(40 - n))).collect();
    let mut offer = offer();
    offer.names.search_compressed = domain::encode_compressed(names.iter().map(String::as_str));
    assert!(offer.names.search_compressed.len() > 400);
    let answered = request(DISCOVER, &[]).answered(&offer).unwrap();
    assert_eq!((answered.find(119), answered.octets.len() <= 548), (None, true));
    let answered = request(DISCOVER, &[&[57, 2, 5, 220]]).answered(&offer).unwrap();
    let parts = answered.options.iter().filter(|(code, _)| *code == 119);
    let whole: Vec<u8> = parts.flat_map(|(_, part)| part.clone()).collect();
    assert_eq!(whole, offer.names.search_compressed);
}

#[test]
fn fqdn_is_encoded_as_the_client_does() {
    let of = |flags| {
        let answered = request(DISCOVER, &[&[81, 3, flags, 0, 0]]).answered(&offer()).unwrap();
        answered.option(81).to_vec()
    };
    assert_eq!(of(0), b"\x00\xff\xffbox.example");
    assert_eq!(of(FQDN_S), b"\x02\xff\xffbox.example");
    assert_eq!(of(FQDN_E), b"\x04\xff\xff\x03box\x07example\0");
    assert_eq!(of(FQDN_E | FQDN_S), b"\x06\xff\xff\x03box\x07example\0");
}

/// A tap that keeps the last frame.
struct Device(Vec<u8>);

impl FrameDevice for Device {
    fn offloads(&self) -> TapOffloads {
        TapOffloads::TcpAndUdp
    }

    fn read(&mut self, _: &mut [u8]) -> Result<usize, ReadError> {
        Err(ReadError::WouldBlock)
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<(), DropReason> {
        self.0 = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        Ok(())
    }
}

#[test]
fn answer_is_sent_as_one_datagram_with_good_checksums() {
    let (mut device, mut counters) = (Device(Vec::new()), Counters::default());
    let our_mac = MacAddr::OURS_BY_DEFAULT;
    let mut tap = FrameWriter { device: &mut device, our_mac, counters: &mut counters };
    let mut answer =
        answer(&offer(), Ipv4Addr::BROADCAST, &request(DISCOVER, &[]).octets()).unwrap();
    assert!(send(&mut tap, &mut answer));
    let frame = classify(&device.0, Framing::Vnet).unwrap();
    assert_eq!((frame.mac, device.0[vnet::LEN..].first_chunk()), (our_mac, Some(&CLIENT)));
    let Content::Udp { source, destination, payload, .. } = frame.content else { panic!() };
    assert_eq!(source, "192.0.2.1:67".parse().unwrap());
    assert_eq!(destination, "192.0.2.7:68".parse().unwrap());
    assert_eq!(payload, answer.reply.finish());
}
