//! TCP from SYN to close in virtual time: the real stack between a model of the namespace's TCP and
//! a model of a host socket, over a link that loses, duplicates and reorders. No socket, no clock.

mod fake;
#[path = "simulation/world.rs"]
mod world;

use std::time::Duration;
use world::{End, Link, Opener, Scenario, pattern};

const MIB: usize = 1024 * 1024;

fn clean() -> Link {
    Link::default()
}

/// What is carried in each direction over a link that loses or reorders: some windows, in little time.
const BOTH_WAYS: usize = 256 * 1024;

/// Both directions at once, everything checked by [`Scenario::run`]: contents, order, both ends.
fn both_ways(link: Link, seed: u64) {
    let mut scenario = Scenario::new(link, seed);
    scenario.upload = pattern(seed, BOTH_WAYS);
    scenario.download = pattern(seed + 1, BOTH_WAYS);
    assert_eq!(scenario.run().end, End::Orderly, "seed {seed}, {link:?}");
}

#[test]
fn clean_link_carries_both_directions_and_closes_both() {
    both_ways(clean(), 1);
}

/// As [`both_ways`], opened by us or by both at once.
fn both_ways_from(opener: Opener, link: Link, seed: u64) {
    let mut scenario = Scenario::new(link, seed);
    scenario.opener = opener;
    scenario.upload = pattern(seed, BOTH_WAYS);
    scenario.download = pattern(seed + 1, BOTH_WAYS);
    assert_eq!(scenario.run().end, End::Orderly, "seed {seed}, {link:?}, {opener:?}");
}

#[test]
fn connection_to_the_namespace_carries_both_directions() {
    both_ways_from(Opener::Us, clean(), 1);
    for seed in 1..=20 {
        both_ways_from(Opener::Us, Link { loss: 3, duplication: 3, reordering: 5 }, seed);
    }
}

#[test]
fn connection_that_both_open_at_once_is_one() {
    both_ways_from(Opener::Both, clean(), 1);
    for seed in 1..=10 {
        both_ways_from(Opener::Both, Link { duplication: 5, ..clean() }, seed);
    }
}

#[test]
fn older_connection_of_the_namespace_is_ended_and_the_new_one_opens() {
    let mut scenario = Scenario::new(clean(), 1);
    scenario.opener = Opener::Us;
    scenario.peer_has_an_old_connection = true;
    scenario.download = pattern(1, 1000);
    let outcome = scenario.run();
    assert_eq!(outcome.end, End::Orderly);
    // Our SYN is retransmitted after its timeout.
    assert!(outcome.took >= Duration::from_secs(1), "{:?}", outcome.took);
}

/// The namespace's listener answers with SYN cookies, and drops so many segments before it has a place.
fn to_full_listener(drops: u32) -> Scenario {
    let mut scenario = Scenario::new(clean(), 1);
    scenario.opener = Opener::Us;
    scenario.cookie = Some(drops);
    scenario
}

/// How many segments a full listener drops.
const DROPS: std::ops::Range<u32> = 0..7;

#[test]
fn listener_with_cookies_gets_every_octet_from_the_first_on() {
    for drops in DROPS {
        for octets in [1, 2, 3, 11, 1460, 5000, 50_000] {
            let mut scenario = to_full_listener(drops);
            scenario.download = pattern(1, octets);
            scenario.upload = pattern(2, 1000);
            scenario.upload_starts_after_download = true;
            assert_eq!(scenario.run().end, End::Orderly, "{octets} octets, {drops} drops");
        }
    }
}

#[test]
fn listener_with_cookies_that_speaks_first_is_told_again_of_the_connection() {
    for drops in DROPS {
        let mut scenario = to_full_listener(drops);
        scenario.upload = pattern(1, 5000);
        scenario.download = pattern(2, 2000);
        scenario.download_starts_after_upload = true;
        assert_eq!(scenario.run().end, End::Orderly, "{drops} drops");
    }
}

#[test]
fn listener_with_cookies_gets_the_end_of_a_client_that_sends_nothing() {
    for drops in DROPS {
        let mut scenario = to_full_listener(drops);
        scenario.upload = pattern(1, 5000);
        scenario.upload_starts_after_download = true;
        assert_eq!(scenario.run().end, End::Orderly, "{drops} drops");
    }
}

#[test]
fn idle_connection_of_a_listener_with_cookies_is_probed_once_no_cookie_is_taken() {
    let mut scenario = to_full_listener(0);
    scenario.stays_open = Some(Duration::from_secs(1200));
    assert_eq!(scenario.run().end, End::StillOpen);
    let mut scenario = to_full_listener(100);
    scenario.stays_open = Some(Duration::from_secs(1200));
    assert_eq!(scenario.run().end, End::PeerWasReset, "nobody has it");
}

#[test]
fn silent_namespace_is_not_waited_for_without_end() {
    let mut scenario = Scenario::new(clean(), 1);
    scenario.opener = Opener::Us;
    scenario.peer_vanishes_from_the_start();
    assert_eq!(scenario.run().end, End::GaveUp);
}

#[test]
fn clean_link_retransmits_nothing() {
    let mut scenario = Scenario::new(clean(), 1);
    scenario.upload = pattern(1, MIB);
    scenario.download = pattern(2, MIB);
    let outcome = scenario.run();
    assert_eq!((outcome.retransmitted_by_us, outcome.retransmitted_by_peer), (0, 0));
}

#[test]
fn loss_is_repaired_in_both_directions() {
    for seed in 1..=20 {
        both_ways(Link { loss: 3, ..clean() }, seed);
    }
}

#[test]
fn duplicates_are_harmless() {
    for seed in 1..=10 {
        both_ways(Link { duplication: 10, ..clean() }, seed);
    }
}

#[test]
fn reordering_is_repaired() {
    for seed in 1..=10 {
        both_ways(Link { reordering: 10, ..clean() }, seed);
    }
}

#[test]
fn everything_at_once_is_survived() {
    for seed in 1..=30 {
        both_ways(Link { loss: 2, duplication: 3, reordering: 5 }, seed);
    }
}

#[test]
fn sequence_numbers_wrap_in_both_directions() {
    let mut scenario = Scenario::new(Link { loss: 1, ..clean() }, 5);
    scenario.our_iss = u32::MAX - 100_000;
    scenario.peer_iss = u32::MAX - 200_000;
    scenario.upload = pattern(5, MIB);
    scenario.download = pattern(6, MIB);
    assert_eq!(scenario.run().end, End::Orderly);
}

#[test]
fn slow_host_socket_holds_the_sender_back_and_loses_nothing() {
    let mut scenario = Scenario::new(clean(), 7);
    scenario.send_buffer = 20_000;
    scenario.drain_per_ms = 3_000;
    scenario.upload = pattern(7, MIB);
    let outcome = scenario.run();
    assert_eq!(outcome.end, End::Orderly);
    assert_eq!(outcome.retransmitted_by_peer, 0, "nothing accepted may be dropped");
    assert!(outcome.max_backlog <= 20_000, "{} octets of backlog", outcome.max_backlog);
}

#[test]
fn slow_host_socket_never_makes_the_sender_wait_for_a_time_out() {
    let mut scenario = Scenario::new(clean(), 8);
    scenario.send_buffer = 20_000;
    scenario.drain_per_ms = 1_000;
    scenario.upload = pattern(8, 500_000);
    let outcome = scenario.run();
    // At 1,000 octets a millisecond, half a million take half a second; windows that are advertised late
    // would add their waits.
    assert!(outcome.took < Duration::from_millis(800), "took {:?}", outcome.took);
}

#[test]
fn receiver_that_stops_reading_stops_the_flow_and_nothing_is_lost() {
    let mut scenario = Scenario::new(clean(), 9);
    scenario.download = pattern(9, MIB);
    scenario.peer_stops_reading_at = Some((100_000, Duration::from_secs(30)));
    let outcome = scenario.run();
    assert_eq!(outcome.end, End::Orderly);
    assert!(outcome.took > Duration::from_secs(30));
}

#[test]
fn rest_of_a_buffer_never_holds_the_far_end_back() {
    // The kernel holds one buffer at a time. Of each the namespace's window takes nearly all, and the
    // rest is so little that consuming it could be put off.
    for rest in [1, 500, 1000, 2000, 3000] {
        let mut scenario = Scenario::new(clean(), 24);
        scenario.peer_mss = 60_000;
        scenario.receive_buffers = Some((60_000 + rest, 60_000 + rest));
        scenario.download = pattern(24, MIB);
        let outcome = scenario.run();
        assert_eq!(outcome.end, End::Orderly);
        assert!(outcome.took < Duration::from_millis(500), "{rest} octets: {:?}", outcome.took);
    }
}

#[test]
fn lost_window_update_is_asked_for() {
    let mut scenario = Scenario::new(clean(), 10);
    scenario.download = pattern(10, MIB);
    scenario.peer_stops_reading_at = Some((100_000, Duration::from_secs(3)));
    scenario.window_update_is_lost = true;
    assert_eq!(scenario.run().end, End::Orderly);
}

#[test]
fn namespace_may_close_first_and_still_receive() {
    let mut scenario = Scenario::new(Link { loss: 2, ..clean() }, 11);
    scenario.upload = pattern(11, 1000);
    scenario.download = pattern(12, MIB);
    scenario.download_starts_after_upload = true;
    assert_eq!(scenario.run().end, End::Orderly);
}

#[test]
fn host_may_close_first_and_still_receive() {
    let mut scenario = Scenario::new(Link { loss: 2, ..clean() }, 13);
    scenario.download = pattern(13, 1000);
    scenario.upload = pattern(14, MIB);
    scenario.upload_starts_after_download = true;
    assert_eq!(scenario.run().end, End::Orderly);
}

#[test]
fn simultaneous_close_of_an_empty_connection_ends_it() {
    for seed in 0..20 {
        let link = Link { loss: 10, ..clean() };
        assert_eq!(Scenario::new(link, seed).run().end, End::Orderly, "seed {seed}");
    }
}

#[test]
fn window_scale_is_left_out_where_the_namespace_offers_none() {
    let mut scenario = Scenario::new(clean(), 15);
    scenario.peer_scales = false;
    scenario.upload = pattern(15, MIB);
    scenario.download = pattern(16, MIB);
    let outcome = scenario.run();
    assert_eq!(outcome.end, End::Orderly);
    assert!(outcome.largest_flight_of_ours <= 65_535);
}

#[test]
fn segments_are_no_larger_than_half_of_the_largest_window() {
    let mut scenario = Scenario::new(clean(), 15);
    scenario.peer_mss = 60_000;
    scenario.peer_scales = false;
    scenario.download = pattern(16, MIB);
    let outcome = scenario.run();
    // The peer's window.
    assert_eq!((outcome.end, outcome.largest_segment_of_ours), (End::Orderly, 30_000));
}

#[test]
fn small_segments_are_carried_too() {
    let mut scenario = Scenario::new(Link { loss: 1, ..clean() }, 17);
    scenario.peer_mss = 88;
    scenario.upload = pattern(17, 50_000);
    scenario.download = pattern(18, 50_000);
    assert_eq!(scenario.run().end, End::Orderly);
}

#[test]
fn host_reset_reaches_the_namespace_at_once() {
    let mut scenario = Scenario::new(clean(), 19);
    scenario.download = pattern(19, MIB);
    scenario.socket_fails_after = Some(300_000);
    let outcome = scenario.run();
    assert_eq!(outcome.end, End::PeerWasReset);
    assert!(outcome.took < Duration::from_millis(500), "took {:?}", outcome.took);
}

#[test]
fn namespace_reset_breaks_the_socket_off() {
    let mut scenario = Scenario::new(clean(), 20);
    scenario.download = pattern(20, MIB);
    scenario.peer_resets_at = Some(200_000);
    assert_eq!(scenario.run().end, End::BrokenOffByPeer);
}

#[test]
fn connection_with_a_namespace_that_vanishes_is_aborted_on_both_sides() {
    let mut scenario = Scenario::new(clean(), 21);
    scenario.download = pattern(21, MIB);
    scenario.peer_vanishes_at = Some(200_000);
    let outcome = scenario.run();
    assert_eq!(outcome.end, End::GaveUp);
    assert!(outcome.took < Duration::from_secs(120), "took {:?}", outcome.took);
}

#[test]
fn idle_connection_is_probed_and_a_dead_one_ended() {
    let mut scenario = Scenario::new(clean(), 22);
    scenario.stays_open = Some(Duration::from_secs(1200));
    assert_eq!(scenario.run().end, End::StillOpen, "a live namespace keeps it");
    let mut scenario = Scenario::new(clean(), 23);
    scenario.stays_open = Some(Duration::from_secs(1200));
    scenario.peer_vanishes_at = Some(0);
    assert_eq!(scenario.run().end, End::GaveUp);
}
