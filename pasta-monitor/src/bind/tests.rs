use super::*;
use crate::host::testing::Host;
use crate::policy::testing::{named, plain};

fn at(ms: u64) -> Instant {
    Instant::START + Duration::from_millis(ms)
}

/// A tracker of IPv4 and its policy.
struct Family4(Tracker, Policy);

impl Family4 {
    fn start(host: &Host, policy: Policy) -> Self {
        let (now, gone, family) = (Instant::START, &BTreeSet::new(), Family::V4);
        let situation = Situation { now, host: &host.0, gone, policy: &policy, family };
        Self(Tracker::start(situation), policy)
    }

    /// Shows it the host at some time; the state after that.
    fn see(&mut self, ms: u64, host: &Host) -> String {
        self.see_without(ms, host, &[])
    }

    fn see_without(&mut self, ms: u64, host: &Host, gone: &[u32]) -> String {
        let gone = &gone.iter().copied().collect();
        let Self(tracker, policy) = self;
        let family = Family::V4;
        tracker.advance(Situation { now: at(ms), host: &host.0, gone, policy, family });
        match tracker.binding() {
            Binding::Off => "off".into(),
            Binding::Local => "local".into(),
            Binding::Bound(it) => format!("{} {}", it.name, it.primary),
            Binding::Held(it, why, _) => format!("held {}: {why}", it.name),
        }
    }
}

/// A host with WiFi at 600, and cable at `cable`.
fn host(wifi: bool, cable: Option<u32>) -> Host {
    let mut host = Host::default();
    if wifi {
        host = host.link(3, "wlan0").address(3, "192.0.2.7/24").route(
            3,
            "0.0.0.0/0",
            "192.0.2.1",
            600,
        );
    }
    match cable {
        None => host,
        Some(metric) => host.link(5, "eth0").address(5, "198.51.100.9/24").route(
            5,
            "0.0.0.0/0",
            "198.51.100.1",
            metric,
        ),
    }
}

fn with(follow: Follow) -> Policy {
    let mut policy = plain();
    policy.following.follow = follow;
    policy
}

#[test]
fn a_better_default_route_is_taken_after_the_settle_time_and_not_before() {
    let mut family = Family4::start(&host(true, None), plain());
    assert_eq!(family.see(0, &host(true, Some(100))), "wlan0 192.0.2.7");
    assert_eq!(family.0.next_deadline(), Some(at(1000)));
    assert_eq!(family.see(999, &host(true, Some(100))), "wlan0 192.0.2.7");
    assert_eq!(family.see(1000, &host(true, Some(100))), "eth0 198.51.100.9");
    assert_eq!(family.see(1001, &host(false, Some(100))), "eth0 198.51.100.9");
}

#[test]
fn an_equal_one_is_no_reason_to_move() {
    let mut family = Family4::start(&host(true, None), plain());
    assert_eq!(family.see(0, &host(true, Some(600))), "wlan0 192.0.2.7");
    assert_eq!(family.see(60_000, &host(true, Some(600))), "wlan0 192.0.2.7");
}

#[test]
fn a_loss_is_not_delayed_where_there_is_another() {
    let mut family = Family4::start(&host(true, Some(700)), plain());
    assert_eq!(family.see(1, &host(false, Some(700))), "eth0 198.51.100.9");
}

#[test]
fn without_another_the_last_configuration_is_held_for_its_time() {
    let mut family = Family4::start(&host(true, None), plain());
    assert_eq!(family.see(0, &Host::default()), "held wlan0: interface gone");
    assert_eq!(family.see(9_999, &Host::default()), "held wlan0: interface gone");
    assert_eq!(family.see(10_000, &Host::default()), "local");
    assert_eq!(family.see(10_001, &host(true, None)), "wlan0 192.0.2.7");
}

/// A host with addresses on these links, and a default route through none.
fn leading_nowhere(links: &[(u32, &str)]) -> Host {
    links.iter().fold(Host::default(), |host, (index, name)| {
        host.link(*index, name).address(*index, &format!("10.{index}.0.1/24")).route(
            *index,
            &format!("10.{index}.0.0/24"),
            "",
            10 - index,
        )
    })
}

#[test]
fn a_template_that_leads_nowhere_is_not_left_for_another_that_does_not_either() {
    let both = leading_nowhere(&[(3, "wlan0"), (4, "vbox0")]);
    let mut family = Family4::start(&leading_nowhere(&[(3, "wlan0")]), plain());
    assert_eq!(family.see(0, &both), "wlan0 10.3.0.1");
    assert_eq!(family.see(60_000, &both), "wlan0 10.3.0.1");
}

#[test]
fn one_that_leads_nowhere_takes_over_only_when_the_hold_time_is_over() {
    let other = leading_nowhere(&[(4, "vbox0")]);
    let mut family = Family4::start(&host(true, None), plain());
    assert_eq!(family.see(0, &other), "held wlan0: interface gone");
    assert_eq!(family.see(9_999, &other), "held wlan0: interface gone");
    assert_eq!(family.see(10_000, &other), "vbox0 10.4.0.1");
    // What leads somewhere is never waited for.
    let mut family = Family4::start(&host(true, None), plain());
    family.see(0, &other);
    assert_eq!(family.see(1, &host(false, Some(100))), "eth0 198.51.100.9");
}

#[test]
fn who_will_not_leave_its_template_does_not_guess_at_start() {
    let both = leading_nowhere(&[(3, "wlan0"), (4, "vbox0")]);
    for follow in [Follow::Once, Follow::Sticky] {
        let mut family = Family4::start(&both, with(follow));
        assert_eq!(family.0.binding(), &Binding::Local);
        assert_eq!(family.see(500, &host(true, None)), "wlan0 192.0.2.7");
        let mut family = Family4::start(&both, with(follow));
        family.see(0, &both);
        assert_eq!(family.see(1000, &both), "vbox0 10.4.0.1");
    }
    let alone = Family4::start(&leading_nowhere(&[(3, "wlan0")]), with(Follow::Once));
    assert!(matches!(alone.0.binding(), Binding::Bound(_)));
}

#[test]
fn hold_without_end_ends_only_with_a_return() {
    let mut policy = plain();
    policy.following.hold_ms = None;
    let mut family = Family4::start(&host(true, None), policy);
    family.see(0, &Host::default());
    assert_eq!(family.0.next_deadline(), None);
    assert_eq!(family.see(1 << 40, &Host::default()), "held wlan0: interface gone");
    assert_eq!(family.see(1 << 41, &host(true, None)), "wlan0 192.0.2.7");
}

#[test]
fn sticky_waits_for_its_template_and_takes_no_other() {
    let mut family = Family4::start(&host(true, None), with(Follow::Sticky));
    assert_eq!(family.see(1, &host(false, Some(1))), "held wlan0: interface gone");
    assert_eq!(family.see(20_000, &host(false, Some(1))), "local");
    assert_eq!(family.see(30_000, &host(true, Some(1))), "wlan0 192.0.2.7");
}

#[test]
fn once_and_off_never_leave_what_they_have() {
    for follow in [Follow::Once, Follow::Off] {
        let mut family = Family4::start(&host(true, None), with(follow));
        assert_eq!(family.see(60_000, &host(false, Some(1))), "wlan0 192.0.2.7");
    }
    let mut family = Family4::start(&Host::default(), with(Follow::Once));
    assert_eq!(family.see(1, &host(true, None)), "wlan0 192.0.2.7");
    let mut family = Family4::start(&Host::default(), with(Follow::Off));
    assert_eq!(family.see(1, &host(true, None)), "local");
}

#[test]
fn a_link_that_was_made_anew_is_another_one_in_spite_of_its_index() {
    let mut family = Family4::start(&host(true, None), plain());
    let same_index = Host::default().link(3, "usb0").address(3, "203.0.113.4/24");
    assert_eq!(family.see_without(1, &same_index, &[3]), "held wlan0: interface gone");
}

#[test]
fn a_template_that_is_made_anew_while_it_is_held_has_returned() {
    let family = Family::V4;
    let mut tracker = Family4::start(&host(true, None), plain());
    assert_eq!(tracker.see(0, &Host::default()), "held wlan0: interface gone");
    // Deleted only now, as by an unplugged adapter; then there is one of another index.
    let Family4(tracker, policy) = &mut tracker;
    let mut see = |ms, host: Host, gone: BTreeSet<u32>| {
        tracker.advance(Situation { now: at(ms), host: &host.0, gone: &gone, policy, family })
    };
    assert_eq!(see(1, Host::default(), [3].into()), None);
    let anew = Host::default().link(9, "wlan0").address(9, "192.0.2.7/24");
    let anew = anew.route(9, "0.0.0.0/0", "192.0.2.1", 600);
    assert_eq!(see(2, anew, BTreeSet::new()), Some((Reason::Returned, Move::Needed)));
}

#[test]
fn a_named_interface_is_known_by_its_name_when_it_returns() {
    let mut family = Family4::start(&host(true, None), named("wlan0"));
    assert_eq!(family.see_without(1, &Host::default(), &[3]), "held wlan0: interface gone");
    let back = Host::default().link(12, "wlan0").address(12, "192.0.2.7/24");
    assert_eq!(family.see(2, &back), "wlan0 192.0.2.7");
}

#[test]
fn a_renamed_template_stays_the_template() {
    let mut family = Family4::start(&host(true, None), named("wlan0"));
    let renamed = Host::default().link(3, "wifi").address(3, "192.0.2.7/24");
    let other = renamed.link(4, "wlan0").address(4, "203.0.113.4/24");
    assert_eq!(family.see(1, &other), "wifi 192.0.2.7");
}

#[test]
fn the_primary_is_kept_while_it_can_be() {
    let mut family = Family4::start(&host(true, None), plain());
    let both = |deprecated| {
        Host::default().link(3, "wlan0").address(3, "192.0.2.60/24").address_with(
            3,
            "192.0.2.7/24",
            |it| it.deprecated = deprecated,
        )
    };
    assert_eq!(family.see(1, &both(false)), "wlan0 192.0.2.7");
    assert_eq!(family.see(2, &both(true)), "wlan0 192.0.2.60");
    let mut family = Family4::start(&host(true, None), plain());
    let last =
        Host::default().link(3, "wlan0").address_with(3, "192.0.2.7/24", |it| it.deprecated = true);
    assert_eq!(family.see(1, &last), "wlan0 192.0.2.7");
}

#[test]
fn a_host_that_cannot_decide_is_followed_ever_more_slowly() {
    let mut family = Family4::start(&host(true, Some(700)), plain());
    let mut moves = 0;
    let mut last = String::new();
    // The better of the two changes every 1.2 s for a minute.
    for step in 0..600_u64 {
        let now = step * 100;
        let cable = if now / 1200 % 2 == 0 { 700 } else { 500 };
        let bound = family.see(now, &host(true, Some(cable)));
        moves += u32::from(!last.is_empty() && bound != last);
        last = bound;
    }
    assert!((1..=6).contains(&moves), "{moves}");
}

/// An address, and what is special about it.
type Special<'a> = (&'a str, fn(&mut crate::record::Address));

/// IPv6 of a host whose router has just configured it.
fn configured(addresses: &[Special<'_>]) -> Host {
    let host = Host::default().link(3, "eth0").route(3, "::/0", "fe80::1", 100);
    // One that leads nowhere in particular is no stopgap either.
    let host =
        host.link(4, "eth1").address(4, "2001:db8:4::7/64").route(4, "2001:db8:9::/48", "", 9);
    addresses.iter().fold(host, |host, (prefix, change)| host.address_with(3, prefix, *change))
}

fn temporary(address: &mut crate::record::Address) {
    address.temporary = true;
}

fn pending(address: &mut crate::record::Address) {
    (address.unproven, address.pending) = (true, true);
}

fn failed(address: &mut crate::record::Address) {
    address.unproven = true;
}

const PRIVACY: &str = "2001:db8::aaaa/64";
const STABLE: &str = "2001:db8::7/64";
const LOCAL: &str = "fd00::7/64";

/// A tracker of IPv6; what it is bound to after it has seen `host` at `ms`.
fn see6(tracker: &mut Tracker, policy: &Policy, ms: u64, host: &Host) -> String {
    let (gone, family) = (&BTreeSet::new(), Family::V6);
    tracker.advance(Situation { now: at(ms), host: &host.0, gone, policy, family });
    match tracker.binding() {
        Binding::Bound(it) => it.primary.to_string(),
        Binding::Held(_, why, _) => format!("held: {why}"),
        other => format!("{other:?}"),
    }
}

fn start6(policy: &Policy, host: &Host) -> Tracker {
    let (now, gone) = (Instant::START, &BTreeSet::new());
    Tracker::start(Situation { now, host: &host.0, gone, policy, family: Family::V6 })
}

#[test]
fn a_stable_address_that_is_being_proven_is_waited_for() {
    for policy in [plain(), named("eth0"), with(Follow::Sticky)] {
        for stopgap in [(PRIVACY, temporary as fn(&mut _)), (LOCAL, |_| {})] {
            let early = configured(&[stopgap, (STABLE, pending)]);
            let mut tracker = start6(&policy, &early);
            assert_eq!(tracker.binding(), &Binding::Local, "{stopgap:?}");
            assert_eq!(tracker.next_deadline(), Some(at(5000)));
            assert_eq!(see6(&mut tracker, &policy, 1600, &early), "Local");
            let late = configured(&[stopgap, (STABLE, |_| {})]);
            assert_eq!(see6(&mut tracker, &policy, 1700, &late), "2001:db8::7");
            assert_eq!(tracker.next_deadline(), None);
        }
    }
}

#[test]
fn a_stable_address_is_waited_for_until_its_proof_fails_or_takes_too_long() {
    let policy = plain();
    let early = configured(&[(PRIVACY, temporary), (STABLE, pending)]);
    let mut tracker = start6(&policy, &early);
    let without = configured(&[(PRIVACY, temporary), (STABLE, failed)]);
    assert_eq!(see6(&mut tracker, &policy, 900, &without), "2001:db8::aaaa");

    let mut tracker = start6(&policy, &early);
    assert_eq!(see6(&mut tracker, &policy, 4999, &early), "Local");
    assert_eq!(see6(&mut tracker, &policy, 5000, &early), "2001:db8::aaaa");
    // Once it is the primary it stays until there is a better one, however long that takes.
    assert_eq!(see6(&mut tracker, &policy, 90_000, &early), "2001:db8::aaaa");
    let late = configured(&[(PRIVACY, temporary), (STABLE, |_| {})]);
    assert_eq!(see6(&mut tracker, &policy, 91_000, &late), "2001:db8::7");
}

#[test]
fn a_template_whose_stable_address_is_proven_anew_is_held_meanwhile() {
    let policy = plain();
    let stable = |change| configured(&[(PRIVACY, temporary), (STABLE, change)]);
    let mut tracker = start6(&policy, &stable(|_| {}));
    assert_eq!(see6(&mut tracker, &policy, 100, &stable(pending)), "held: last address gone");
    assert_eq!(see6(&mut tracker, &policy, 1100, &stable(|_| {})), "2001:db8::7");
}
