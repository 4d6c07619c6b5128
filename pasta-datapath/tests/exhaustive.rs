//! Numbers that the wire carries, against a second reckoning in wider ones: all of them where they have 16 bits, and
//! the surroundings of each power of two, with all distances of 16 bits, where they have 32.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pasta_datapath::wire::checksum::Sum;
use pasta_datapath::wire::ip::{IPV4_LEN, IPV6_LEN, parse_ipv4, parse_ipv6};
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::window::{Mss, Window, WindowScale, WireWindow};
use pasta_datapath::wire::{tcp, udp};
use pasta_ipc::types::Prefix;

/// All powers of two of 32 bits, and the numbers next to them.
fn edges() -> Vec<u32> {
    let powers = (0..32).map(|bit| 1_u32 << bit).chain([0]);
    let mut all: Vec<_> =
        powers.flat_map(|it| [it.wrapping_sub(1), it, it.wrapping_add(1)]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn sequence_numbers_less_than_half_their_space_apart_are_in_order() {
    let distances = (0..=u16::MAX).map(u32::from);
    let far = (0..=u16::MAX).map(|it| (1 << 31) - 1 - u32::from(it));
    let distances: Vec<u32> = distances.chain(far).collect();
    for base in [0, 1, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, u32::MAX - 1, u32::MAX] {
        for &distance in &distances {
            // As it would be if numbers did not wrap.
            let wide = i64::from(distance);
            let (early, late) = (Seq::from(base), Seq::from(base) + distance);
            assert_eq!(u32::from(late), base.wrapping_add(distance));
            assert_eq!((late - early, early - late), (wide as i32, -wide as i32));
            assert_eq!((early.before(late), late.after(early)), (wide > 0, wide > 0));
            assert!(!late.before(early) && !early.after(late));
            assert_eq!((late.distance_from(early), early.distance_from(late)), (distance, 0));
            assert_eq!((early.latest(late), late.latest(early)), (late, late));
            assert_eq!(late - distance, early);
        }
    }
}

#[test]
fn distances_of_all_edges_are_those_of_wider_numbers() {
    for one in edges() {
        for other in edges() {
            let wide = (i64::from(one) - i64::from(other)).rem_euclid(1 << 32);
            let signed = if wide >= 1 << 31 { wide - (1 << 32) } else { wide };
            let (one, other) = (Seq::from(one), Seq::from(other));
            assert_eq!(i64::from(one - other), signed);
            assert_eq!((one.before(other), one.after(other)), (signed < 0, signed > 0));
            assert_eq!(i64::from(one.distance_from(other)), signed.max(0));
        }
    }
}

#[test]
fn every_field_of_a_window_is_kept_by_every_scale() {
    for shift in 0..=WindowScale::MAX.shift() {
        let scale = WindowScale::new(shift);
        for field in 0..=u16::MAX {
            let window = WireWindow::from(field) << scale;
            assert_eq!(u64::from(window.octets()), u64::from(field) << shift);
            assert_eq!(window >> scale, WireWindow::from(field));
            assert_eq!(window.whole(scale), window);
        }
        for octets in edges() {
            // What is written is never more than there is, and less by no more than one step.
            let wide = u64::from(octets) >> shift;
            let field = u64::from(u16::from(Window::new(octets) >> scale));
            assert_eq!(field, wide.min(u16::MAX.into()), "{octets} >> {shift}");
            assert_eq!(u64::from(Window::new(octets).whole(scale).octets()), wide << shift);
        }
    }
    for shift in 0..=u8::MAX {
        assert!(WindowScale::new(shift) <= WindowScale::MAX);
    }
}

#[test]
fn every_mtu_has_a_segment_size_that_is_not_zero_and_fits() {
    let peers: [(IpAddr, u16); 2] =
        [(Ipv4Addr::LOCALHOST.into(), 40), (Ipv6Addr::LOCALHOST.into(), 60)];
    for (peer, headers) in peers {
        for mtu in 0..=u16::MAX {
            let mss = Mss::fitting(mtu, peer).get();
            assert!(mss >= 1);
            assert!(mtu <= headers || mss == mtu - headers, "{mtu}: {mss}");
        }
    }
}

#[test]
fn every_word_sums_as_in_one_s_complement() {
    for word in 0..=u16::MAX {
        let octets = word.to_be_bytes();
        assert_eq!(Sum::default().octets(&octets), Sum::default().word(word));
        assert_eq!(Sum::default().word(word).checksum(), !word);
        for other in [0, 1, 0x7fff, 0x8000, 0xfffe, u16::MAX] {
            let wide = u32::from(word) + u32::from(other);
            let folded = (wide & 0xffff) + (wide >> 16);
            let sum = Sum::default().word(word).word(other);
            assert_eq!(u32::from(sum.folded()), folded, "{word:#x} + {other:#x}");
            // What was summed with its checksum has all bits set.
            assert_eq!(sum.word(sum.checksum()).folded(), 0xffff);
        }
    }
}

#[test]
fn a_packet_has_as_many_octets_as_its_header_says_or_is_none() {
    for total in 0..=u16::MAX {
        let claimed = usize::from(total);
        for there in [claimed.saturating_sub(1), claimed, claimed + 1, IPV4_LEN, 1500] {
            let mut octets = vec![0xa5; there.max(IPV4_LEN)];
            let there = octets.len();
            octets[..IPV4_LEN].copy_from_slice(&[
                0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
            ]);
            octets[2..4].copy_from_slice(&total.to_be_bytes());
            let sum = Sum::default().octets(&octets[..IPV4_LEN]).checksum();
            octets[10..12].copy_from_slice(&sum.to_be_bytes());
            let payload = parse_ipv4(&octets).map(|it| it.payload.len());
            let fits = (IPV4_LEN..=there).contains(&claimed);
            assert_eq!(payload.ok(), fits.then(|| claimed - IPV4_LEN), "{total} of {there}");
        }
    }
}

#[test]
fn an_ipv6_packet_has_as_many_octets_as_its_header_says_or_is_none() {
    for len in 0..=u16::MAX {
        let claimed = usize::from(len);
        for there in [claimed.saturating_sub(1), claimed, claimed + 1, 0, 1460] {
            let mut octets = vec![0; IPV6_LEN + there];
            octets[0] = 0x60;
            octets[6] = 17;
            octets[4..6].copy_from_slice(&len.to_be_bytes());
            let payload = parse_ipv6(&octets).map(|it| it.payload.len());
            assert_eq!(payload.ok(), (claimed <= there).then_some(claimed), "{len} of {there}");
        }
    }
}

#[test]
fn a_datagram_has_as_many_octets_as_its_header_says_or_is_none() {
    for len in 0..=u16::MAX {
        let claimed = usize::from(len);
        for there in [claimed.saturating_sub(1), claimed, claimed + 1, 7, 8, 1480] {
            let mut octets = vec![0; there];
            if let Some(field) = octets.get_mut(4..6) {
                field.copy_from_slice(&len.to_be_bytes());
            }
            let payload = udp::split(&octets).map(|(_, payload)| payload.len());
            let fits = (udp::LEN..=there).contains(&claimed);
            assert_eq!(payload.ok(), fits.then(|| claimed - udp::LEN), "{len} of {there}");
        }
        // What is written claims what there is, as far as the field goes.
        let header = udp::Header { source: 1, destination: 2, checksum: 0 };
        let written = udp::header(&header, len);
        let wide = (u32::from(len) + 8).min(u16::MAX.into());
        assert_eq!(u32::from(u16::from_be_bytes([written[4], written[5]])), wide);
    }
}

#[test]
fn a_segment_begins_where_its_header_ends_or_is_none() {
    for offset in 0..=u8::MAX {
        for there in 0..=80 {
            let mut octets = vec![0; there];
            if let Some(field) = octets.get_mut(12) {
                *field = offset;
            }
            let header = usize::from(offset >> 4) * 4;
            let payload = tcp::split(&octets).map(|(_, payload)| payload.len());
            let fits = (tcp::LEN..=there).contains(&header);
            assert_eq!(payload.ok(), fits.then(|| there - header), "{offset:#x} of {there}");
        }
    }
}

#[test]
fn a_prefix_contains_what_begins_with_its_bits() {
    let wide = |address: IpAddr| match address {
        IpAddr::V4(a) => (u128::from(a.to_bits()), 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    };
    let check = |address: IpAddr, len: u8, other: IpAddr| {
        let Ok(prefix) = Prefix::new(address, len) else { panic!("{address}/{len}") };
        let ((a, width), (b, _)) = (wide(address), wide(other));
        let host = width - u32::from(len);
        // The first bits, by division: no shift that could be too long.
        let network = |it: u128| if host == 128 { 0 } else { it / (1 << host) };
        assert_eq!(prefix.contains(other), network(a) == network(b), "{other} in {prefix}");
        let (first, _) = wide(prefix.network().address());
        assert_eq!(first, if host == 128 { 0 } else { network(a) * (1 << host) }, "{prefix}");
        assert!(prefix.contains(prefix.network().address()) && prefix.contains(address));
    };
    // All addresses of a network of 16 bits, with all lengths below.
    for len in 16..=32 {
        for low in 0..=u16::MAX {
            let other = Ipv4Addr::from_bits(0x0a00_0000 | u32::from(low));
            check(Ipv4Addr::new(10, 0, 0x80, 0x01).into(), len, other.into());
        }
    }
    // All lengths of both families, with all edges.
    let v4 = edges().into_iter().map(|it| IpAddr::from(Ipv4Addr::from_bits(it)));
    let v4: Vec<IpAddr> = v4.collect();
    let powers = (0..128).map(|bit| 1_u128 << bit).chain([0]);
    let v6 = powers.flat_map(|it| [it.wrapping_sub(1), it, it + 1]);
    let v6: Vec<IpAddr> = v6.map(|it| Ipv6Addr::from_bits(it).into()).collect();
    for address in &v4 {
        (0..=32).for_each(|len| v4.iter().step_by(7).for_each(|it| check(*address, len, *it)));
        assert!((33..=u8::MAX).all(|len| Prefix::new(*address, len).is_err()));
    }
    for address in v6.iter().step_by(5) {
        (0..=128).for_each(|len| v6.iter().step_by(11).for_each(|it| check(*address, len, *it)));
        assert!((129..=u8::MAX).all(|len| Prefix::new(*address, len).is_err()));
    }
}
