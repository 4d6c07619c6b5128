use super::host::{AGAIN, POLL_INTERVAL, RESYNC_INTERVAL};
use super::namespace::RETRY;
use super::*;
use crate::host::testing::Host;
use crate::net::PerFamily;
use crate::policy::testing::plain;
use crate::record::{Address, Neighbour};
use proptest::prelude::*;

/// The tap's index.
const TAP: u32 = 2;

fn at(ms: u64) -> Instant {
    Instant::START + Duration::from_millis(ms)
}

fn wall(ms: u64) -> OtherClocks {
    let boot = Duration::from_millis(ms);
    let wall = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + boot;
    OtherClocks { boot, wall }
}

fn refresh(source: Source) -> Refresh {
    Refresh::new(source, TAP, at(0), wall(0))
}

/// Events that say this.
fn notices(notices: Vec<Notice>) -> ReceivedEvents {
    ReceivedEvents { notices, ..ReceivedEvents::default() }
}

fn overrun() -> ReceivedEvents {
    ReceivedEvents { overrun: true, ..ReceivedEvents::default() }
}

fn address(link: u32, prefix: &str) -> Address {
    Host::default().address(link, prefix).0.addresses.remove(0)
}

fn link(index: u32, up: bool) -> Record {
    let mut links = Host::default().link_with(index, "x", |it| it.up = up).0.links;
    Record::Link(Box::new(links.remove(&index).unwrap()))
}

/// An event of the host that says something new.
fn news() -> ReceivedEvents {
    notices(vec![Notice::There(Record::Address(address(3, "192.0.2.7/24")))])
}

/// Takes in an event of the host that says something new.
fn change(refresh: &mut Refresh, ms: u64) {
    refresh.host_events(at(ms), &news(), &HostView::default());
}

fn lose(refresh: &mut Refresh, ms: u64) {
    refresh.host_events(at(ms), &overrun(), &HostView::default());
}

/// Reads the host at `ms`, which takes no time.
fn read(refresh: &mut Refresh, ms: u64, outcome: HostOutcome) -> HostRead {
    let reading = refresh.begin_host(at(ms)).expect("a reading is due");
    refresh.finish_host(at(ms), reading, outcome)
}

/// When the host is to be read.
fn host_due(refresh: &Refresh) -> Option<Instant> {
    refresh.host.due()
}

#[test]
fn without_an_event_nothing_is_read_and_only_the_clocks_are_compared() {
    let mut watched = refresh(Source::Events);
    assert!(watched.begin_host(at(3_600_000)).is_none());
    assert!(!watched.begin_pass(at(3_600_000), false));
    assert_eq!(watched.next_deadline(), Some(at(15_000)));
    assert_eq!(refresh(Source::Nothing).next_deadline(), None);
}

#[test]
fn a_burst_is_read_once_and_what_was_known_not_at_all() {
    let mut refresh = refresh(Source::Events);
    let known = Host::default().address(3, "192.0.2.7/24").0;
    refresh.host_events(at(0), &news(), &known);
    assert_eq!((host_due(&refresh), refresh.counters().ignored), (None, 1));
    change(&mut refresh, 100);
    change(&mut refresh, 105);
    assert!(refresh.begin_host(at(114)).is_none());
    let reading = refresh.begin_host(at(115)).unwrap();
    assert_eq!(reading.since, at(105));
    refresh.finish_host(at(120), reading, HostOutcome::Complete);
    assert_eq!((host_due(&refresh), refresh.counters().looks), (None, 1));
}

#[test]
fn an_event_during_a_reading_leads_to_another() {
    let mut refresh = refresh(Source::Events);
    change(&mut refresh, 0);
    let reading = refresh.begin_host(at(10)).unwrap();
    change(&mut refresh, 12);
    let gone = notices(vec![Notice::Gone(link(7, false))]);
    refresh.host_events(at(13), &gone, &HostView::default());
    refresh.finish_host(at(20), reading, HostOutcome::Complete);
    assert_eq!(host_due(&refresh), Some(at(23)));
    assert_eq!(refresh.begin_host(at(23)).unwrap().gone, [7].into());
}

#[test]
fn everything_is_read_at_once_when_events_were_lost_and_then_not_for_half_a_second() {
    let mut refresh = refresh(Source::Events);
    lose(&mut refresh, 1000);
    assert_eq!((host_due(&refresh), refresh.health()), (Some(at(1000)), Health::Resync));
    let reading = refresh.begin_host(at(1000)).unwrap();
    let read = refresh.finish_host(at(1007), reading, HostOutcome::Complete);
    assert_eq!(read.resynchronised, Some(Duration::from_millis(7)));
    assert_eq!(refresh.health(), Health::Live);
    // A storm goes on.
    lose(&mut refresh, 1100);
    lose(&mut refresh, 1200);
    assert_eq!(host_due(&refresh), Some(at(1000) + RESYNC_INTERVAL));
    assert!(refresh.begin_host(at(1499)).is_none());
    let counters = refresh.counters();
    assert_eq!((counters.overruns, counters.resyncs), (2, 1));
}

#[test]
fn events_lost_during_a_dump_lead_to_another_one() {
    let mut refresh = refresh(Source::Events);
    lose(&mut refresh, 0);
    let reading = refresh.begin_host(at(0)).unwrap();
    lose(&mut refresh, 5);
    refresh.finish_host(at(10), reading, HostOutcome::Complete);
    assert_eq!((refresh.health(), refresh.counters().overruns), (Health::Resync, 2));
    assert!(host_due(&refresh).is_some_and(|due| due <= at(0) + RESYNC_INTERVAL));
    assert!(read(&mut refresh, 500, HostOutcome::Complete).resynchronised.is_some());
}

#[test]
fn neither_loss_nor_wish_puts_off_a_reading_that_is_due_before() {
    let mut refresh = refresh(Source::Events);
    lose(&mut refresh, 0);
    read(&mut refresh, 0, HostOutcome::Complete);
    refresh.resync_wanted(at(10));
    lose(&mut refresh, 11);
    assert_eq!(host_due(&refresh), Some(at(10)));
}

#[test]
fn an_interrupted_dump_is_made_again_after_a_second_until_one_is_complete() {
    let mut refresh = refresh(Source::Events);
    change(&mut refresh, 0);
    let mut ms = 10;
    for _ in 0..5 {
        read(&mut refresh, ms, HostOutcome::Interrupted);
        assert_eq!((host_due(&refresh), refresh.health()), (Some(at(ms) + AGAIN), Health::Live));
        ms += 1000;
    }
    read(&mut refresh, ms, HostOutcome::Complete);
    assert_eq!(host_due(&refresh), None);
}

#[test]
fn a_host_that_cannot_be_read_is_tried_every_five_seconds_and_logged_once_an_hour() {
    let mut refresh = refresh(Source::Events);
    change(&mut refresh, 0);
    let (mut ms, mut logged) = (10, 0);
    while ms < 3_600_000 {
        logged += u32::from(read(&mut refresh, ms, HostOutcome::Failed).failure_is_logged);
        assert_eq!(refresh.health(), Health::Blind);
        assert_eq!(host_due(&refresh), Some(at(ms) + POLL_INTERVAL));
        ms += 5000;
    }
    assert_eq!(logged, 1);
    assert!(read(&mut refresh, 3_600_010, HostOutcome::Failed).failure_is_logged);
    read(&mut refresh, 3_605_010, HostOutcome::Complete);
    assert_eq!((host_due(&refresh), refresh.health()), (None, Health::Live));
}

#[test]
fn a_host_without_events_is_read_at_once_and_every_five_seconds() {
    let mut refresh = refresh(Source::Events);
    refresh.host_unwatched(at(100));
    let mut ms = 100;
    for _ in 0..3 {
        assert_eq!(host_due(&refresh), Some(at(ms)));
        read(&mut refresh, ms, HostOutcome::Complete);
        assert_eq!(refresh.health(), Health::Poll);
        ms += 5000;
    }
    // There are no events that a sleep could have cost.
    assert_eq!(refresh.next_deadline(), Some(at(ms)));
}

#[test]
fn a_host_that_could_not_be_watched_from_the_start_is_polled() {
    let mut refresh = refresh(Source::Polling);
    assert_eq!(host_due(&refresh), Some(at(0) + POLL_INTERVAL));
    read(&mut refresh, 5000, HostOutcome::Interrupted);
    assert_eq!(host_due(&refresh), Some(at(5000) + AGAIN));
}

#[test]
fn what_is_asked_for_during_a_reading_is_another_reading() {
    let mut refresh = refresh(Source::Events);
    change(&mut refresh, 0);
    let reading = refresh.begin_host(at(10)).unwrap();
    assert!(refresh.resync_wanted(at(11)));
    assert!(!refresh.finish_host(at(20), reading, HostOutcome::Complete).asked);
    assert_eq!(host_due(&refresh), Some(at(11)));
    assert!(read(&mut refresh, 20, HostOutcome::Complete).asked);
    assert!(refresh.begin_pass(at(20), false), "the namespace was asked for, too");
    assert!(!refresh.begin_pass(at(20), false));
}

#[test]
fn where_nothing_is_followed_nothing_is_read_whatever_happens() {
    let mut refresh = refresh(Source::Nothing);
    assert!(!refresh.resync_wanted(at(0)));
    assert!(refresh.compare_clocks(at(15_000), wall(75_000)));
    assert_eq!((host_due(&refresh), refresh.health()), (None, Health::Off));
}

#[test]
fn s22_after_a_sleep_the_host_is_read() {
    let mut refresh = refresh(Source::Events);
    assert!(!refresh.compare_clocks(at(15_000), wall(15_000)));
    assert_eq!(host_due(&refresh), None);
    assert!(refresh.compare_clocks(at(16_000), wall(76_000)));
    assert_eq!(host_due(&refresh), Some(at(16_000)));
}

fn interest(templates: &[u32]) -> Interest {
    let host = HostView::default();
    let mut interest = Interest::of(&host, &plain(), &PerFamily::default(), &BTreeSet::new());
    interest.templates = templates.iter().copied().collect();
    interest
}

#[test]
fn a_filter_is_replaced_only_by_another_and_the_host_read_after_it() {
    let mut refresh = refresh(Source::Events);
    assert_eq!(refresh.filter_for(at(0), interest(&[])), Some(&interest(&[])));
    read(&mut refresh, 0, HostOutcome::Complete);
    assert_eq!(refresh.filter_for(at(5), interest(&[])), None);
    assert_eq!(host_due(&refresh), None);
    assert_eq!(refresh.filter_for(at(6), interest(&[3])), Some(&interest(&[3])));
    assert_eq!(host_due(&refresh), Some(at(6)));
}

#[test]
fn neighbours_are_read_when_events_were_lost_or_the_links_are_others() {
    let mut refresh = refresh(Source::Events);
    let links = |links: &[u32]| links.iter().copied().collect::<BTreeSet<_>>();
    assert!(refresh.begin_neighbours(at(0), links(&[])).is_some(), "nothing is known at the start");
    refresh.finish_neighbours(at(0), Neighbours::of(links(&[])), true);
    assert!(refresh.begin_neighbours(at(0), links(&[])).is_none());
    assert_eq!(refresh.begin_neighbours(at(0), links(&[3])), Some(links(&[3])));
    // Events are lost while they are read.
    lose(&mut refresh, 0);
    refresh.finish_neighbours(at(0), Neighbours::of(links(&[3])), true);
    assert_eq!(refresh.begin_neighbours(at(0), links(&[3])), Some(links(&[3])));
}

#[test]
fn neighbours_that_were_not_all_read_are_kept_and_read_again() {
    let mut refresh = refresh(Source::Events);
    let (links, address) = (BTreeSet::from([3]), "192.0.2.1".parse().unwrap());
    let mut found = Neighbours::of(links.clone());
    let mac = Some([2, 0, 0, 0, 0, 1].try_into().unwrap());
    found.learn(&Neighbour { link: 3, address, mac });
    assert!(refresh.begin_neighbours(at(0), links.clone()).is_some());
    refresh.finish_neighbours(at(0), found.clone(), true);
    lose(&mut refresh, 0);
    assert!(refresh.begin_neighbours(at(0), links.clone()).is_some());
    refresh.finish_neighbours(at(5), Neighbours::of(links.clone()), false);
    assert_eq!(refresh.take_neighbours(), Some(&found), "nobody is gone");

    assert!(refresh.begin_neighbours(at(1004), links.clone()).is_none());
    assert!(refresh.next_deadline().is_some_and(|due| due <= at(1005)));
    assert!(refresh.begin_neighbours(at(1005), links.clone()).is_some());
    refresh.finish_neighbours(at(1006), Neighbours::of(links.clone()), true);
    assert_eq!(refresh.take_neighbours(), Some(&Neighbours::of(links.clone())));
    assert!(refresh.begin_neighbours(at(9000), links).is_none());
}

#[test]
fn an_overrun_is_made_up_for_by_a_reading_that_is_complete() {
    for outcome in [HostOutcome::Failed, HostOutcome::Interrupted] {
        let mut refresh = refresh(Source::Events);
        lose(&mut refresh, 100);
        assert!(refresh.resync_wanted(at(100)));
        let read = read(&mut refresh, 100, outcome);
        assert_eq!((read.resynchronised, read.asked), (None, false), "{outcome:?}");
        let again = host_due(&refresh).unwrap();
        let ms = u64::try_from(again.since_start().as_millis()).unwrap();
        let read = super::tests::read(&mut refresh, ms, HostOutcome::Complete);
        assert!(read.asked && read.resynchronised.is_some_and(|it| it >= again.since(at(100))));
        assert_eq!(refresh.counters().resyncs, 2);
        assert_eq!(refresh.health(), Health::Live);
    }
}

#[test]
fn where_sleep_is_announced_nothing_waits_for_the_clocks() {
    let mut refresh = refresh(Source::Events);
    assert_eq!(refresh.next_deadline(), Some(at(15_000)));
    refresh.sleep_is_announced();
    assert_eq!(refresh.next_deadline(), None);
}

#[test]
fn neighbours_are_published_when_they_have_changed_and_lead_to_no_reading() {
    let mut refresh = refresh(Source::Events);
    refresh.finish_neighbours(at(0), Neighbours::of([3].into()), true);
    assert!(refresh.take_neighbours().is_some());
    assert!(refresh.take_neighbours().is_none());
    let (link, mac) = (3, Some([2, 0, 0, 0, 0, 1].try_into().unwrap()));
    let neighbour = Neighbour { link, address: "192.0.2.1".parse().unwrap(), mac };
    for notice in [Notice::There, Notice::Gone] {
        let events = notices(vec![notice(Record::Neighbour(neighbour))]);
        refresh.host_events(at(0), &events, &HostView::default());
        assert!(refresh.take_neighbours().is_some());
        assert_eq!(host_due(&refresh), None);
    }
}

/// A route of the namespace's users.
fn route(link: u32, to: &str) -> Record {
    Record::Route(Host::default().route(link, to, "", 0).0.routes.v4[0].clone())
}

/// Takes in one event of the namespace.
fn see(refresh: &mut Refresh, ms: u64, notice: Notice) -> NamespaceEvents {
    refresh.namespace_events(at(ms), &notices(vec![notice]))
}

#[test]
fn only_changes_on_the_tap_and_new_default_routes_disturb_a_reading() {
    let mut refresh = refresh(Source::Events);
    let of = |link| Record::Address(address(link, "192.0.2.7/24"));
    for (notice, disturbed, due) in [
        (Notice::There(of(TAP)), true, true),
        (Notice::Gone(of(TAP)), true, true),
        (Notice::There(of(9)), false, true),
        (Notice::There(route(TAP, "198.18.0.0/24")), false, true),
        (Notice::Gone(route(TAP, "198.18.0.0/24")), true, true),
        // Users' way to everything, which ours gives way to.
        (Notice::There(route(TAP, "0.0.0.0/0")), true, true),
        (Notice::There(route(9, "0.0.0.0/0")), true, true),
        (Notice::Gone(route(9, "0.0.0.0/0")), false, true),
        (Notice::There(link(TAP, true)), true, true),
        (Notice::There(link(9, true)), false, false),
        (Notice::Gone(link(9, true)), false, false),
    ] {
        let found = see(&mut refresh, 0, notice.clone());
        assert_eq!(found, NamespaceEvents { disturbed, tap_deleted: false }, "{notice:?}");
        assert_eq!(refresh.begin_pass(at(10), false), due, "{notice:?}");
        refresh.pass_done();
    }
    assert!(refresh.namespace_events(at(20), &overrun()).disturbed);
    assert!(refresh.begin_pass(at(30), false));
}

#[test]
fn a_pass_that_fails_is_made_again_a_second_later_with_all_that_it_knew() {
    let mut refresh = refresh(Source::Events);
    see(&mut refresh, 0, Notice::There(link(TAP, false)));
    assert!(refresh.begin_pass(at(10), false));
    assert!(refresh.take_flushed().tap_was_down);
    refresh.pass_failed(at(15));
    assert!(!refresh.begin_pass(at(1014), false));
    assert_eq!(refresh.next_deadline(), Some(at(15) + RETRY));
    assert!(refresh.begin_pass(at(1015), false));
    assert!(refresh.take_flushed().tap_was_down);
    refresh.pass_done();
    assert!(!refresh.begin_pass(at(10_000), false));
    assert_eq!(refresh.take_flushed(), Flushed::default());
}

#[test]
fn an_event_during_a_pass_leads_to_another_and_so_does_another_wish() {
    let mut refresh = refresh(Source::Events);
    assert!(refresh.begin_pass(at(0), true));
    refresh.take_flushed();
    let gone = Notice::Gone(Record::Address(address(TAP, "fe80::1/64")));
    see(&mut refresh, 5, gone);
    refresh.pass_done();
    assert!(!refresh.begin_pass(at(14), false));
    assert!(refresh.begin_pass(at(15), false));
    assert!(refresh.take_flushed().link_local_went);
    refresh.pass_failed(at(16));
    assert!(refresh.begin_pass(at(17), true), "what is new does not wait for the retry");
}

#[test]
fn what_we_do_to_the_tap_at_the_start_says_nothing_about_its_users() {
    let mut refresh = refresh(Source::Events);
    assert!(refresh.begin_pass(at(0), true));
    refresh.take_flushed();
    see(&mut refresh, 1, Notice::There(link(TAP, false)));
    refresh.configured();
    assert_eq!(refresh.take_flushed(), Flushed::default());
}

#[test]
fn without_the_tap_there_are_no_more_passes() {
    let mut refresh = refresh(Source::Events);
    see(&mut refresh, 0, Notice::There(link(TAP, false)));
    assert!(see(&mut refresh, 1, Notice::Gone(link(TAP, false))).tap_deleted);
    assert!(!see(&mut refresh, 1, Notice::Gone(link(TAP, false))).tap_deleted);
    assert!(refresh.tap_is_gone());
    assert!(!refresh.begin_pass(at(100), true));
    assert_eq!(refresh.next_deadline(), Some(at(15_000)));
}

/// What happens to the host, or is done about it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Change,
    Known,
    Overrun,
    Asked,
    Slept,
    Filter(u32),
    Wait(u64),
    Begin,
    Finish(HostOutcome),
}

fn any_step() -> impl Strategy<Value = Step> {
    let outcome = prop::sample::select(vec![
        HostOutcome::Complete,
        HostOutcome::Interrupted,
        HostOutcome::Failed,
    ]);
    prop_oneof![
        Just(Step::Change),
        Just(Step::Known),
        Just(Step::Overrun),
        Just(Step::Asked),
        Just(Step::Slept),
        (0_u32..3).prop_map(Step::Filter),
        (0_u64..700).prop_map(Step::Wait),
        Just(Step::Begin),
        outcome.prop_map(Step::Finish),
    ]
}

/// A host, and what is known of it.
struct World {
    refresh: Refresh,
    ms: u64,
    slept: u64,
    /// Since when there is something that no complete reading has shown that began after it.
    unread: Option<u64>,
    /// The reading under way, and what was unread when it began.
    reading: Option<(HostReading, Option<u64>)>,
}

impl World {
    fn new() -> Self {
        let refresh = refresh(Source::Events);
        Self { refresh, ms: 0, slept: 0, unread: None, reading: None }
    }

    fn run(&mut self, step: Step) {
        let now = at(self.ms);
        let mut dirty = true;
        match step {
            Step::Change => change(&mut self.refresh, self.ms),
            Step::Overrun => lose(&mut self.refresh, self.ms),
            Step::Asked => assert!(self.refresh.resync_wanted(now)),
            Step::Slept => {
                self.slept += 60_000;
                assert!(self.refresh.compare_clocks(now, wall(self.ms + self.slept)));
            }
            Step::Filter(n) => dirty = self.refresh.filter_for(now, interest(&[n])).is_some(),
            Step::Known | Step::Wait(_) | Step::Begin | Step::Finish(_) => dirty = false,
        }
        if dirty {
            self.unread.get_or_insert(self.ms);
        }
        match step {
            Step::Known => {
                let known = Host::default().address(3, "192.0.2.7/24").0;
                self.refresh.host_events(now, &news(), &known);
            }
            Step::Wait(ms) => self.ms += ms,
            Step::Begin if self.reading.is_none() => {
                if let Some(reading) = self.refresh.begin_host(now) {
                    assert!(self.unread.is_some(), "a reading that nothing has led to");
                    self.reading = Some((reading, self.unread.take()));
                }
            }
            Step::Finish(outcome) => {
                let Some((reading, unread)) = self.reading.take() else { return };
                self.refresh.finish_host(now, reading, outcome);
                if outcome != HostOutcome::Complete {
                    self.unread = unread.or(self.unread);
                }
            }
            _ => {}
        }
    }

    /// What is unread will be read, and nothing else.
    fn check(&self) {
        let due = host_due(&self.refresh);
        assert_eq!(due.is_some(), self.unread.is_some(), "{due:?}, unread {:?}", self.unread);
        let latest = at(self.ms) + POLL_INTERVAL;
        assert!(due.is_none_or(|due| due <= latest), "{due:?} at {}", self.ms);
    }
}

proptest! {
    #[test]
    fn nothing_is_forgotten_and_nothing_is_read_without_a_cause(
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
            world.check();
        }
        // Once it is quiet, every event is followed by a reading that began after it.
        world.run(Step::Finish(HostOutcome::Interrupted));
        let mut left = 2;
        while let Some(due) = host_due(&world.refresh) {
            prop_assert!(left > 0, "it has no end");
            left -= 1;
            world.ms = world.ms.max(u64::try_from(due.since_start().as_millis()).unwrap());
            world.run(Step::Begin);
            world.run(Step::Finish(HostOutcome::Complete));
        }
        prop_assert_eq!(world.unread, None);
        prop_assert_eq!(world.refresh.health(), Health::Live);
    }

    #[test]
    fn an_event_is_read_within_50_ms_and_losses_alone_twice_a_second_at_most(
        events in prop::collection::vec((0_u64..40, any::<bool>()), 1..60),
        quiet in any::<bool>(),
    ) {
        let mut refresh = refresh(Source::Events);
        let (mut ms, mut oldest, mut last) = (0, None, None::<Instant>);
        for (gap, lost) in events {
            ms += gap;
            if let Some(due) = host_due(&refresh).filter(|due| *due <= at(ms)) {
                let reading = refresh.begin_host(due).unwrap();
                refresh.finish_host(due, reading, HostOutcome::Complete);
                if let Some(oldest) = oldest.take() {
                    prop_assert!(due <= at(oldest) + Duration::from_millis(50));
                } else if let Some(last) = last.filter(|_| quiet) {
                    prop_assert!(due >= last + RESYNC_INTERVAL);
                }
                last = Some(due);
            }
            if lost || quiet {
                lose(&mut refresh, ms);
            } else {
                change(&mut refresh, ms);
                oldest.get_or_insert(ms);
            }
        }
    }

    #[test]
    fn no_pass_misses_what_happened_to_the_tap(
        steps in prop::collection::vec((0_u8..6, 0_u64..30), 0..60),
    ) {
        let mut refresh = refresh(Source::Events);
        // Whether the tap went down and no pass knows; whether the pass at hand knows; whether an event
        // came that no pass began after.
        let (mut unknown, mut known, mut unread) = (false, false, false);
        let (mut ms, mut passing) = (0, false);
        for (step, gap) in steps {
            ms += gap;
            match step {
                0 => {
                    see(&mut refresh, ms, Notice::There(link(TAP, false)));
                    (unknown, unread) = (true, true);
                }
                1 => {
                    see(&mut refresh, ms, Notice::There(link(TAP, true)));
                    unread = true;
                }
                2 if !passing => {
                    passing = refresh.begin_pass(at(ms), false);
                    prop_assert!(!passing || unread, "a pass that nothing has led to");
                    unread &= !passing;
                }
                3 if passing => {
                    let found = refresh.take_flushed().tap_was_down;
                    known |= std::mem::take(&mut unknown);
                    prop_assert_eq!(found, known);
                }
                4 if passing => {
                    refresh.pass_done();
                    (passing, known) = (false, false);
                }
                5 if passing => {
                    refresh.pass_failed(at(ms));
                    unknown |= std::mem::take(&mut known);
                    (passing, unread) = (false, true);
                }
                _ => {}
            }
            let due = refresh.namespace.due();
            prop_assert_eq!(due.is_some(), unread);
            prop_assert!(due.is_none_or(|due| due <= at(ms) + RETRY));
        }
    }
}

fn destinations(all: &[&str]) -> BTreeSet<pasta_ipc::types::Prefix> {
    all.iter().map(|it| crate::net::testing::net(it)).collect()
}

#[test]
fn what_is_far_from_the_tap_is_read_when_it_may_have_changed_and_matters() {
    let mut refresh = refresh(Source::Events);
    let ours = destinations(&["0.0.0.0/0", "203.0.113.0/24"]);
    assert!(refresh.begin_far(at(0), &ours), "nothing is known at the start");
    refresh.finish_far(at(0), Duration::ZERO, true);
    assert!(!refresh.begin_far(at(1), &ours));
    for (n, (record, matters)) in [
        (route(9, "198.18.0.0/24"), false),
        (route(9, "0.0.0.0/0"), true),
        (route(9, "203.0.113.0/24"), true),
        (route(TAP, "198.18.0.0/24"), true),
        (Record::Address(address(9, "192.0.2.7/24")), true),
        (Record::Address(address(TAP, "192.0.2.7/24")), false),
    ]
    .into_iter()
    .enumerate()
    {
        see(&mut refresh, 10 + n as u64, Notice::There(record.clone()));
        assert_eq!(refresh.begin_far(at(10 + n as u64), &ours), matters, "{record:?}");
        refresh.finish_far(at(10 + n as u64), Duration::ZERO, true);
    }
    assert!(refresh.begin_far(at(20), &destinations(&["233.252.0.0/24"])), "new destinations");
    refresh.finish_far(at(20), Duration::ZERO, false);
    assert!(refresh.begin_far(at(21), &ours), "it was not of one moment");
}

#[test]
fn a_namespace_that_is_dear_to_read_is_read_seldom_and_keeps_nobody_waiting() {
    let mut refresh = refresh(Source::Events);
    let ours = destinations(&["0.0.0.0/0"]);
    assert!(refresh.begin_pass(at(0), true) && refresh.begin_far(at(0), &ours));
    let dear = Duration::from_millis(40);
    refresh.finish_far(at(0), dear, true);
    refresh.pass_done();
    refresh.namespace_spent(at(0), dear);
    assert!(!refresh.listens_to_namespace(at(1959)) && refresh.listens_to_namespace(at(1960)));

    // Its users change something; the host does in the middle of the pause.
    see(&mut refresh, 5, Notice::There(Record::Address(address(9, "192.0.2.7/24"))));
    assert!(!refresh.begin_pass(at(1959), false));
    assert!(refresh.begin_pass(at(500), true), "the host's changes do not wait");
    assert!(!refresh.begin_far(at(500), &ours));
    refresh.pass_done();
    // Nor is anything forgotten.
    assert!(refresh.begin_pass(at(1960), false) && refresh.begin_far(at(1960), &ours));
}

#[test]
fn what_users_have_made_stale_is_read_for_a_change_of_the_host_unless_it_is_dear() {
    let ours = destinations(&["0.0.0.0/0"]);
    let theirs = Notice::There(Record::Address(address(9, "192.0.2.7/24")));
    for (cost, read) in [(1, true), (10, true), (11, false)] {
        let mut refresh = refresh(Source::Events);
        assert!(refresh.begin_pass(at(0), true) && refresh.begin_far(at(0), &ours));
        refresh.finish_far(at(0), Duration::from_millis(cost), true);
        refresh.pass_done();
        see(&mut refresh, 5, theirs.clone());
        // In the pause that its cost has made.
        assert!(refresh.begin_pass(at(20), true));
        assert_eq!(refresh.begin_far(at(20), &ours), read, "{cost} ms");
        assert_eq!(refresh.namespace.due().is_some(), !read, "{cost} ms");
    }
}

#[test]
fn a_default_route_of_users_is_read_in_a_pause_and_what_waits_for_its_end_is_not_forgotten() {
    let ours = destinations(&["0.0.0.0/0"]);
    let mut refresh = refresh(Source::Events);
    assert!(refresh.begin_pass(at(0), true) && refresh.begin_far(at(0), &ours));
    refresh.finish_far(at(0), Duration::from_millis(9), true);
    refresh.pass_done();
    // A cheap pass for the host, whose pause is over sooner.
    assert!(refresh.begin_pass(at(20), true));
    refresh.pass_done();
    see(&mut refresh, 30, Notice::Gone(route(9, "0.0.0.0/0")));
    assert!(refresh.begin_pass(at(40), false) && !refresh.begin_far(at(40), &ours));
    refresh.pass_done();
    assert!(refresh.begin_pass(at(441), false) && refresh.begin_far(at(441), &ours));
    refresh.finish_far(at(441), Duration::from_millis(9), true);

    see(&mut refresh, 450, Notice::There(route(9, "0.0.0.0/0")));
    assert!(refresh.begin_pass(at(460), false) && refresh.begin_far(at(460), &ours));
}
