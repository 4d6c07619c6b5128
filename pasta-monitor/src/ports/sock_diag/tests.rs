use super::*;
use proptest::prelude::*;

/// A message of the kernel's.
pub(in crate::ports) fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let len = (HEADER_LEN + payload.len()) as u32;
    let mut octets = len.to_ne_bytes().to_vec();
    octets.extend(kind.to_ne_bytes());
    octets.extend([2, 0]);
    octets.extend(sequence.to_ne_bytes());
    octets.extend([0; 4]);
    octets.extend(payload);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

/// A `struct inet_diag_msg`.
fn diag(family: u8, address: &[u8], port: u16, device: u32) -> Vec<u8> {
    let mut octets = vec![family, LISTEN, 0, 0];
    octets.extend(port.to_be_bytes());
    octets.extend([0, 0]);
    octets.extend(address);
    octets.resize(40, 0);
    octets.extend(device.to_ne_bytes());
    octets.resize(72, 0);
    octets
}

fn all(octets: &[u8], sequence: u32) -> Vec<Result<Part, Malformed>> {
    parts(octets, sequence).collect()
}

#[test]
fn request_is_as_the_kernel_has_it() {
    let octets = request(Family::V6, Transport::Udp, 7);
    assert_eq!(octets.len(), 72);
    assert_eq!(octets[..8], [72_u32.to_ne_bytes(), [20, 0, 1, 3]].concat());
    assert_eq!(octets[8..16], [7_u32.to_ne_bytes(), [0; 4]].concat());
    assert_eq!(octets[16..20], [10, 17, 0, 0]);
    assert_eq!(octets[20..24], (1_u32 << 7).to_ne_bytes());
    assert!(octets[24..].iter().all(|octet| *octet == 0));
    let octets = request(Family::V4, Transport::Tcp, 7);
    assert_eq!(octets[16..20], [2, 6, 0, 0]);
    assert_eq!(octets[20..24], (1_u32 << 10).to_ne_bytes());
}

#[test]
fn sockets_of_both_families_and_the_end_are_read() {
    let v6: Ipv6Addr = "2001:db8::7".parse().unwrap();
    // Another one in front of it, of an odd length.
    let attribute = |kind: u16, value: &[u8]| {
        let head = [(4 + value.len() as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
        let mut octets = [&head, value].concat();
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    };
    let attributes = [attribute(8, &[1]), attribute(V6_ONLY, &[1])].concat();
    let octets = [
        message(BY_FAMILY, 3, &diag(AF_INET, &[192, 0, 2, 1], 8080, 0)),
        message(BY_FAMILY, 3, &[diag(AF_INET6, &v6.octets(), 443, 9), attributes].concat()),
        message(DONE, 3, &[0; 4]),
    ]
    .concat();
    let v4 =
        Listening { address: "192.0.2.1".parse().unwrap(), port: 8080, device: 0, v6_only: false };
    let v6 = Listening { address: v6.into(), port: 443, device: 9, v6_only: true };
    assert_eq!(all(&octets, 3), [Ok(Part::Socket(v4)), Ok(Part::Socket(v6)), Ok(Part::Done)]);
}

#[test]
fn attribute_that_is_cut_short_is_not_there() {
    let whole = [[5, 0, 11, 0], [1, 0, 0, 0]].concat();
    assert_eq!(attribute(&whole, V6_ONLY), Some(&[1][..]));
    for len in 0..5 {
        assert_eq!(attribute(&whole[..len], V6_ONLY), None, "{len}");
    }
    // Of no length: the list would never end.
    assert_eq!(attribute(&[0; 64], V6_ONLY), None);
}

#[test]
fn any_address_of_ipv6_takes_both_families_unless_it_is_said_not_to() {
    use Family::{V4, V6};
    for (address, v6_only, families) in [
        ("0.0.0.0", false, &[V4][..]),
        ("192.0.2.1", false, &[V4]),
        ("::", false, &[V4, V6]),
        ("::", true, &[V6]),
        ("::1", false, &[V6]),
        ("2001:db8::7", false, &[V6]),
        ("::ffff:127.0.0.1", false, &[V4]),
        ("::ffff:0.0.0.0", false, &[V4]),
    ] {
        let socket = Listening { address: address.parse().unwrap(), port: 1, device: 0, v6_only };
        assert_eq!(socket.families().collect::<Vec<_>>(), families, "{address} {v6_only}");
    }
}

#[test]
fn answers_to_an_earlier_request_are_left_out() {
    let octets = [message(DONE, 2, &[0; 4]), message(DONE, 3, &[0; 4])].concat();
    assert_eq!(all(&octets, 3), [Ok(Part::Done)]);
}

#[test]
fn refusals_carry_their_errno() {
    let payload = (-libc::ENOENT).to_ne_bytes();
    for kind in [ERROR, DONE] {
        assert_eq!(all(&message(kind, 3, &payload), 3), [Ok(Part::Refused(libc::ENOENT))]);
    }
}

#[test]
fn nothing_is_read_after_a_socket_that_cannot_be() {
    let bad = message(BY_FAMILY, 1, &diag(3, &[], 80, 0));
    let octets = [bad, message(DONE, 1, &[0; 4])].concat();
    assert_eq!(all(&octets, 1), [Err(Malformed)]);
}

#[test]
fn what_is_cut_short_or_unknown_is_malformed_and_the_end() {
    let whole = message(BY_FAMILY, 3, &diag(AF_INET, &[127, 0, 0, 1], 80, 1));
    for len in 1..whole.len() {
        assert_eq!(all(&whole[..len], 3), [Err(Malformed)], "{len}");
    }
    let other_family = message(BY_FAMILY, 3, &diag(1, &[], 80, 0));
    assert_eq!(all(&other_family, 3), [Err(Malformed)]);
    assert_eq!(all(&message(99, 3, &[]), 3), [Err(Malformed)]);
    let short = message(BY_FAMILY, 3, &[AF_INET; 40]);
    assert_eq!(all(&short, 3), [Err(Malformed)]);
}

proptest! {
    #[test]
    fn any_octets_end_the_iteration(octets in prop::collection::vec(any::<u8>(), 0..300), sequence: u32) {
        prop_assert!(all(&octets, sequence).len() <= octets.len() / HEADER_LEN + 1);
    }
}
