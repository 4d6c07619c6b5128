use super::sock_diag::tests::message;
use super::*;

const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;

fn socket(address: &str, port: u16, device: u32) -> Listening {
    Listening { address: address.parse().unwrap(), port, device, v6_only: false }
}

#[test]
fn namespaces_services_count_where_they_can_be_reached() {
    use LoopbackTarget::{Address, Loopback};
    for (address, device, by_address, by_loopback) in [
        ("0.0.0.0", 0, true, true),
        ("::", 0, true, true),
        ("192.0.2.1", 0, true, true),
        ("fe80::1", 2, true, true),
        ("127.0.0.1", 0, false, true),
        ("127.9.9.9", 0, false, true),
        ("::1", 0, false, true),
        ("::ffff:127.0.0.1", 0, false, true),
        ("::", LOOPBACK_DEVICE, false, false),
        ("127.0.0.1", LOOPBACK_DEVICE, false, false),
    ] {
        let socket = socket(address, 80, device);
        for (loopback, expected) in [(Address, by_address), (Loopback, by_loopback)] {
            let counted = counts(PortSide::Namespace, loopback, &socket);
            assert_eq!(counted, expected, "{socket:?} with {loopback:?}");
        }
    }
}

#[test]
fn hosts_services_count_if_its_loopback_leads_to_them() {
    for (address, device, expected) in [
        ("0.0.0.0", 0, true),
        ("::", 0, true),
        ("127.0.0.1", 0, true),
        ("::1", 0, true),
        ("::ffff:0.0.0.0", 0, true),
        ("::", LOOPBACK_DEVICE, true),
        ("::", 2, false),
        ("192.0.2.1", 0, false),
        ("2001:db8::1", 0, false),
    ] {
        let socket = socket(address, 80, device);
        let counted = counts(PortSide::Host, LoopbackTarget::Address, &socket);
        assert_eq!(counted, expected, "{socket:?}");
    }
}

fn at(millis: u64) -> Instant {
    Instant::after_start(Duration::from_millis(millis))
}

#[test]
fn first_look_waits_until_it_is_told_to_begin() {
    let mut pace = Pace::default();
    assert_eq!(pace.due(), None);
    pace.begin(at(70));
    assert_eq!(pace.due(), Some(at(70)));
}

#[test]
fn next_look_is_soon_and_takes_no_more_than_its_share() {
    for (cost_us, interval_ms) in [
        (0, 150),
        (40, 150),
        (1500, 150),
        (3000, 300),
        (19_000, 1900),
        (70_000, 7000),
        (500_000, 50_000),
    ] {
        let mut pace = Pace::default();
        pace.looked(at(1000), Duration::from_micros(cost_us));
        assert_eq!(pace.due(), Some(at(1000 + interval_ms)), "{cost_us} us");
    }
}

/// An answer about sockets that listen on every address of IPv4.
fn answer(sequence: u32, ports: &[u16]) -> Vec<u8> {
    let one = |port: &u16| {
        let mut diag = [0; 72];
        diag[0] = 2;
        diag[4..6].copy_from_slice(&port.to_be_bytes());
        message(BY_FAMILY, sequence, &diag)
    };
    ports.iter().flat_map(one).collect()
}

fn done(sequence: u32) -> Vec<u8> {
    message(DONE, sequence, &[0; 4])
}

/// One whole look; the answers to each of the four questions, as datagrams of ports.
fn look_at(look: &mut Look, answers: [&[&[u16]]; 4]) {
    look.begin();
    for datagrams in answers {
        look.question().unwrap();
        for ports in datagrams {
            assert_eq!(look.take_in(&answer(look.sequence, ports)), Ok(Progress::More));
        }
        look.take_in(&done(look.sequence)).unwrap();
    }
    assert_eq!(look.question(), None);
}

/// Those of IPv4.
fn snapshots(look: &mut Look) -> Vec<(Transport, u64, Vec<u16>)> {
    let mut all = Vec::new();
    while let Some(snapshot) = look.pending() {
        let ports = snapshot.ports.ipv4.iter().collect();
        all.push((snapshot.transport, snapshot.generation.0, ports));
        look.sent(snapshot.transport);
    }
    all
}

fn new_look() -> Look {
    Look::new(PortSide::Namespace, LoopbackTarget::Address)
}

#[test]
fn answers_of_both_lists_are_one_snapshot_and_only_changes_are_published() {
    use Transport::{Tcp, Udp};
    let mut look = new_look();
    look_at(&mut look, [&[&[80, 443]], &[&[8080]], &[], &[&[53]]]);
    assert_eq!(snapshots(&mut look), [(Tcp, 1, vec![80, 443, 8080]), (Udp, 1, vec![53])]);
    look_at(&mut look, [&[&[443, 80]], &[&[8080, 80]], &[&[53]], &[]]);
    assert_eq!(snapshots(&mut look), []);
    look_at(&mut look, [&[&[80]], &[&[8080]], &[&[53]], &[]]);
    assert_eq!(snapshots(&mut look), [(Tcp, 2, vec![80, 8080])]);
}

#[test]
fn families_are_apart() {
    let mut look = new_look();
    look.begin();
    for (family, address, v6_only) in [(2, [0; 16], 0), (10, [0; 16], 1)] {
        look.question().unwrap();
        let mut diag = [0; 72];
        (diag[0], diag[5]) = (family, 80 + family);
        diag[8..24].copy_from_slice(&address);
        let attribute = [5, 0, 11, 0, v6_only, 0, 0, 0];
        let answer = message(BY_FAMILY, look.sequence, &[&diag[..], &attribute].concat());
        look.take_in(&answer).unwrap();
        look.take_in(&done(look.sequence)).unwrap();
    }
    let ports = look.pending().unwrap().ports;
    assert_eq!((ports.ipv4.iter().collect(), ports.ipv6.iter().collect()), (vec![82], vec![90]));
}

#[test]
fn only_the_newest_waits_for_a_reader() {
    let mut look = new_look();
    look_at(&mut look, [&[&[80]], &[], &[], &[]]);
    look_at(&mut look, [&[&[81]], &[], &[], &[]]);
    assert!(look.is_behind());
    let tcp = snapshots(&mut look).remove(0);
    assert_eq!(tcp, (Transport::Tcp, 2, vec![81]));
    assert!(!look.is_behind());
}

#[test]
fn port_that_a_list_in_pieces_lacks_once_is_still_there() {
    let mut look = new_look();
    let pieces: [&[&[u16]]; 4] = [&[&[80, 81], &[82]], &[], &[], &[]];
    look_at(&mut look, pieces);
    snapshots(&mut look);
    look_at(&mut look, [&[&[80], &[82]], &[], &[], &[]]);
    assert_eq!(snapshots(&mut look), []);
    look_at(&mut look, pieces);
    assert_eq!(snapshots(&mut look), []);
    look_at(&mut look, [&[&[80], &[82]], &[], &[], &[]]);
    look_at(&mut look, [&[&[80], &[82]], &[], &[], &[]]);
    assert_eq!(snapshots(&mut look), [(Transport::Tcp, 2, vec![80, 82])]);
    // In one piece it is believed at once.
    look_at(&mut look, [&[&[80]], &[], &[], &[]]);
    assert_eq!(snapshots(&mut look), [(Transport::Tcp, 3, vec![80])]);
}

#[test]
fn transport_that_the_kernel_knows_nothing_of_is_asked_about_once() {
    let mut look = new_look();
    look.begin();
    look.question().unwrap();
    let refusal = message(2, look.sequence, &(-libc::ENOENT).to_ne_bytes());
    let refused = LookError::Refused(Transport::Tcp, libc::ENOENT);
    assert_eq!(look.take_in(&refusal), Err(refused));
    // The other goes on.
    for _ in 0..2 {
        assert_eq!(look.question().unwrap()[17], 17, "UDP");
        look.take_in(&answer(look.sequence, &[53])).unwrap();
        look.take_in(&done(look.sequence)).unwrap();
    }
    assert_eq!(snapshots(&mut look), [(Transport::Udp, 1, vec![53])]);
    look.begin();
    assert_eq!(look.question().unwrap()[17], 17, "UDP");
}

#[test]
fn look_that_fails_changes_nothing() {
    let mut look = new_look();
    look_at(&mut look, [&[&[80]], &[], &[], &[]]);
    snapshots(&mut look);
    look.begin();
    look.question().unwrap();
    look.take_in(&answer(look.sequence, &[81])).unwrap();
    assert_eq!(look.take_in(&[1; 20]), Err(LookError::Malformed(Malformed)));
    assert_eq!(snapshots(&mut look), []);
    look_at(&mut look, [&[&[80]], &[], &[], &[]]);
    assert_eq!(snapshots(&mut look), []);
}
