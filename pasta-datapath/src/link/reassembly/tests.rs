use super::*;
use crate::link::classify::{Content, classify};
use crate::wire::ip::{PROTOCOL_UDP, read_ipv6};
use crate::wire::udp;

const V4: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)),
];

fn v6() -> [IpAddr; 2] {
    ["2001:db8::7", "2001:db8:1::1"].map(|it| it.parse().unwrap())
}

fn mac() -> MacAddr {
    MacAddr::try_from([2, 0, 0, 0, 0, 1]).unwrap()
}

/// What fragments are added to, and how they fare.
#[derive(Default)]
struct Rig {
    reassembly: Reassembly,
    counters: Counters,
    now: Option<Instant>,
}

impl Rig {
    fn now(&self) -> Instant {
        self.now.unwrap_or(Instant::START)
    }

    fn add_of(
        &mut self,
        [source, destination]: [IpAddr; 2],
        identification: u32,
        (offset, more): (usize, bool),
        payload: &[u8],
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let handling = Handling { hop_limit: 9, traffic_class: 0xb8, ..Handling::DEFAULT };
        let packet = Packet { source, destination, protocol: PROTOCOL_UDP, handling, payload };
        let piece = Piece { identification, offset, more };
        let sender = (mac(), Framing::Vnet);
        self.reassembly.add(self.now(), sender, (&packet, piece), &mut self.counters)
    }

    /// Of one packet of IPv4.
    fn add(&mut self, at: (usize, bool), payload: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
        self.add_of(V4, 1, at, payload)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.counters.dropped(reason)
    }
}

/// A datagram with `len` octets of payload, checksum and all.
fn datagram([source, destination]: [IpAddr; 2], len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    let header =
        |checksum| udp::header(&udp::Header { source: 9, destination: 53, checksum }, len as u16);
    let whole = (8 + len) as u16;
    let sum = crate::wire::checksum::pseudo_header(source, destination, PROTOCOL_UDP, whole);
    let sum = sum.octets(&header(0)).octets(&payload).checksum();
    [&header(sum)[..], &payload].concat()
}

/// The places of fragments with so many octets of a packet.
fn cut(whole: &[u8], size: usize) -> Vec<((usize, bool), &[u8])> {
    let last = whole.len().div_ceil(size) - 1;
    whole.chunks(size).enumerate().map(|(n, it)| ((n * size, n < last), it)).collect()
}

#[test]
fn fragments_in_any_order_are_put_together_in_both_families() {
    for ends in [V4, v6()] {
        for len in [9, 1000, 8192, 65_507, 65_519, 65_527] {
            if ends == V4 && len > 65_507 {
                continue;
            }
            let whole = datagram(ends, len);
            let size = if len < 1000 { 8 } else { 1448 };
            let pieces = cut(&whole, size);
            let in_order: Vec<_> = (0..pieces.len()).collect();
            let backwards: Vec<_> = in_order.iter().rev().copied().collect();
            let mixed: Vec<_> =
                in_order.iter().map(|n| n * 7).filter(|n| *n < pieces.len()).collect();
            let rest: Vec<_> = in_order.iter().filter(|n| *n % 7 != 0).copied().collect();
            for order in [in_order, backwards, [mixed, rest].concat()] {
                let mut rig = Rig::default();
                let (last, first) = order.split_last().unwrap();
                for n in first {
                    let (at, octets) = pieces[*n];
                    assert_eq!(rig.add_of(ends, 1, at, octets), Ok(None), "{n} of {len}");
                }
                let (at, octets) = pieces[*last];
                let frame = rig.add_of(ends, 1, at, octets).unwrap().unwrap();
                let read = classify(&frame, Framing::Vnet).unwrap();
                // The largest have no room for the header that says so.
                let fragmentation = match len > 65_519 {
                    true => Fragmentation::Forbidden,
                    false => Fragmentation::Allowed,
                };
                let expected = Handling { hop_limit: 9, traffic_class: 0xb8, fragmentation };
                assert_eq!((read.mac, read.handling), (mac(), expected));
                let Content::Udp { source, payload, .. } = read.content else { panic!("{len}") };
                assert_eq!((source, payload), (SocketAddr::new(ends[0], 9), &whole[8..]));
                assert_eq!(rig.reassembly.held(), (0, 0));
            }
        }
    }
}

#[test]
fn all_orders_of_a_few_fragments_give_the_same() {
    let whole = datagram(V4, 30);
    let pieces = cut(&whole, 8);
    assert_eq!(pieces.len(), 5);
    // Every permutation, by its number in the factorial system.
    for mut number in 0..120 {
        let mut left: Vec<_> = (0..5).collect();
        let mut rig = Rig::default();
        for base in (1..=5).rev() {
            let (at, octets) = pieces[left.remove(number % base)];
            number /= base;
            let frame = rig.add(at, octets).unwrap();
            assert_eq!(frame.is_some(), left.is_empty());
            if let Some(frame) = frame {
                assert_eq!(&frame[frame.len() - whole.len()..], whole);
            }
        }
    }
}

#[test]
fn packets_with_other_ends_or_numbers_do_not_mix() {
    let mut rig = Rig::default();
    assert_eq!(rig.add_of(V4, 1, (0, true), &[1; 8]), Ok(None));
    let [here, there] = V4;
    for (ends, id) in [(V4, 2), ([there, here], 1), ([here, here], 1), (v6(), 1)] {
        assert_eq!(rig.add_of(ends, id, (8, false), &[2; 8]), Ok(None), "{ends:?} {id}");
    }
    assert_eq!(rig.reassembly.held().0, 5);
    assert!(rig.add_of(V4, 1, (8, false), &[3; 8]).unwrap().is_some());
}

#[test]
fn overlap_makes_all_of_a_packet_void_also_what_comes_later() {
    let conflict = Err(DropReason::FragmentConflict);
    for ends in [V4, v6()] {
        // Offset, whether more follow, length; each last one is in conflict with those before.
        for pieces in [
            &[(0, true, 16), (8, true, 16)][..],
            &[(8, true, 16), (0, true, 16)],
            &[(0, true, 32), (8, true, 8)],
            &[(8, true, 8), (0, true, 32)],
            &[(0, true, 16), (0, true, 8)],
            // One octet is enough.
            &[(0, true, 16), (8, false, 1)],
            // Two ends, or something behind the end.
            &[(16, false, 8), (32, false, 8)],
            &[(16, false, 8), (8, false, 8)],
            &[(32, true, 8), (16, false, 8)],
            &[(16, false, 8), (24, true, 8)],
            &[(16, false, 8), (16, true, 8)],
            &[(16, true, 8), (16, false, 8)],
        ] {
            let mut rig = Rig::default();
            let (last, first) = pieces.split_last().unwrap();
            for (offset, more, len) in first {
                let added = rig.add_of(ends, 1, (*offset, *more), &vec![1; *len]);
                assert_eq!(added, Ok(None), "{pieces:?}");
            }
            let (offset, more, len) = *last;
            let added = rig.add_of(ends, 1, (offset, more), &vec![2; len]);
            assert_eq!(added, conflict, "{pieces:?}");
            assert_eq!(rig.dropped(DropReason::FragmentConflict), first.len() as u64);
            assert_eq!(rig.add_of(ends, 1, (64, true), &[3; 8]), conflict);
            assert_eq!(rig.reassembly.held(), (1, PACKET_COST));
            rig.now = Some(Instant::START + Duration::from_secs(60));
            let expired = rig.reassembly.next_expired(rig.now()).unwrap();
            assert!(expired.offending().is_none() && expired.is_empty());
            assert_eq!(rig.add_of(ends, 1, (64, true), &[3; 8]), Ok(None), "a new one");
        }
    }
}

#[test]
fn fragment_that_comes_twice_does_no_harm() {
    let mut rig = Rig::default();
    for expected in [Ok(None), Err(DropReason::FragmentDuplicate)] {
        assert_eq!(rig.add((0, true), &[1; 8]), expected);
        assert_eq!(rig.add((16, false), &[1; 5]), expected);
    }
    assert!(rig.add((8, true), &[1; 8]).unwrap().is_some());
}

#[test]
fn fragments_that_cannot_be_are_refused() {
    let mut rig = Rig::default();
    let malformed = Err(DropReason::Malformed);
    assert_eq!(rig.add((0, true), &[1; 9]), malformed, "no multiple of 8");
    assert_eq!(rig.add((8, false), &[]), malformed, "nothing");
    assert_eq!(rig.add((65_512, false), &[1; 4]), malformed, "too large as a whole");
    assert_eq!(rig.add_of(v6(), 1, (65_528, false), &[1; 8]), malformed, "too large as a whole");
    assert_eq!(rig.reassembly.held(), (0, 0));
    assert_eq!(rig.add_of(v6(), 1, (65_528, false), &[1; 7]), Ok(None));
    assert_eq!(rig.add((65_512, false), &[1; 3]), Ok(None));
}

#[test]
fn packet_is_given_up_in_time_and_quoted_only_if_its_front_is_there() {
    for (ends, seconds) in [(V4, 30), (v6(), 60)] {
        for (offset, quoted) in [(0, true), (8, false)] {
            let mut rig = Rig::default();
            assert_eq!(rig.add_of(ends, 1, (offset, true), &[5; 16]), Ok(None));
            // What comes later does not put it off.
            rig.now = Some(Instant::START + Duration::from_secs(9));
            assert_eq!(rig.add_of(ends, 1, (offset + 16, true), &[5; 8]), Ok(None));
            let due = Instant::START + Duration::from_secs(seconds);
            assert_eq!(rig.reassembly.deadline(), Some(due));
            let before = Instant::START + Duration::from_secs(seconds - 1);
            assert!(rig.reassembly.next_expired(before).is_none());
            let expired = rig.reassembly.next_expired(due).unwrap();
            assert_eq!((expired.len(), expired.mac()), (2, mac()));
            let offending = expired.offending();
            assert_eq!(
                offending.map(|it| (it.source.ip(), it.transport, it.protocol)),
                quoted.then_some((ends[0], [5; 8], PROTOCOL_UDP))
            );
            assert!(rig.reassembly.next_expired(due).is_none());
            assert_eq!((rig.reassembly.held(), rig.reassembly.deadline()), ((0, 0), None));
        }
    }
}

#[test]
fn flood_of_one_source_costs_itself_and_not_others() {
    let mut rig = Rig::default();
    let honest = datagram(V4, 3000);
    let pieces = cut(&honest, 1480);
    assert_eq!(rig.add(pieces[0].0, pieces[0].1), Ok(None));
    let hostile = [IpAddr::from([192, 0, 2, 66]), V4[1]];
    // By number, and by size.
    for (flood, size) in [(1000, 8), (4000, 1480)] {
        for id in 0..flood {
            assert_eq!(rig.add_of(hostile, id, (8, true), &vec![1; size]), Ok(None));
            let (packets, octets) = rig.reassembly.held();
            assert!(packets <= MAX_PACKETS && octets <= MAX_OCTETS, "{packets} {octets}");
        }
        // The last ones are there.
        for id in flood - 100..flood {
            assert!(rig.add_of(hostile, id, (8 + size, false), &[1]).is_ok(), "{id}");
        }
    }
    // One packet of many large fragments each.
    for id in 0..100 {
        for n in 0..44 {
            let _ = rig.add_of(hostile, 10_000 + id, (n * 1480, true), &[1; 1480]);
            assert!(rig.reassembly.held().1 <= MAX_OCTETS);
        }
    }
    assert!(rig.dropped(DropReason::FragmentsEvicted) > 4000);
    assert_eq!(rig.add(pieces[1].0, pieces[1].1), Ok(None));
    assert!(rig.add(pieces[2].0, pieces[2].1).unwrap().is_some());
}

#[test]
fn packet_of_too_many_fragments_is_given_up() {
    let mut rig = Rig::default();
    for n in 0..MAX_PIECES {
        assert_eq!(rig.add((n * 8, true), &[1; 8]), Ok(None));
    }
    let evicted = DropReason::FragmentsEvicted;
    assert_eq!(rig.add((MAX_PIECES * 8, true), &[1; 8]), Err(evicted));
    assert_eq!(rig.dropped(evicted), MAX_PIECES as u64);
}

#[test]
fn congestion_of_any_fragment_is_that_of_the_packet() {
    let mut rig = Rig::default();
    let [source, destination] = v6();
    let mut frame = None;
    for (offset, more, traffic_class) in [(0, true, 2), (8, true, 3), (16, false, 2)] {
        let handling = Handling { traffic_class, ..Handling::DEFAULT };
        let payload = &[0; 8];
        let packet = Packet { source, destination, protocol: 59, handling, payload };
        let piece = Piece { identification: 1, offset, more };
        let sender = (mac(), Framing::Plain);
        let added = rig.reassembly.add(rig.now(), sender, (&packet, piece), &mut rig.counters);
        frame = added.unwrap();
    }
    let frame = frame.unwrap();
    let (packet, _) = read_ipv6(&frame[ethernet::LEN..]).unwrap();
    assert_eq!(packet.handling.traffic_class, 3);
}
