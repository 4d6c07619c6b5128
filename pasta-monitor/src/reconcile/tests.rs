use super::*;
use crate::host::HostView;
use crate::host::testing::Host;
use crate::namespace::testing::{apply, foreign, fresh};
use crate::namespace::{FoundAddress, Owner};
use crate::net::testing::{ip, net};
use crate::policy::Policy;
use crate::policy::testing::plain;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::net::Ipv4Addr;

const MAC: MacAddr = MacAddr::OURS_BY_DEFAULT;

fn at(ms: u64) -> Instant {
    Instant::START + Duration::from_millis(ms)
}

/// How a reading goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Unreadable,
    Interrupted,
    /// Half of it is missing, and there are events to say so.
    Disturbed,
}

/// A step as it was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Read,
    ReadBack,
    Applied(Vec<NamespaceOp>),
    Published(Box<NetworkSnapshot>),
    Named(Naming),
}

/// A core, a namespace, and what the shell would do between them.
struct World {
    now: Instant,
    state: State,
    reconciler: Reconciler,
    namespace: NamespaceView,
    /// How the next readings go.
    faults: VecDeque<Fault>,
    /// Of the operations that the kernel refuses.
    refuses: fn(&NamespaceOp) -> bool,
    /// What users do after each operation.
    users: fn(&mut NamespaceView),
    lines: Lines,
    made: Made,
    /// Whether the datapath resets flows at once.
    datapath_answers: bool,
    /// Whether the last pass was.
    doubtful: bool,
}

impl World {
    fn start(policy: Policy, host: HostView) -> Self {
        Self {
            now: Instant::START,
            state: State::start(policy, host),
            reconciler: Reconciler::new(MAC),
            namespace: fresh(),
            faults: VecDeque::new(),
            refuses: |_| false,
            users: |_| {},
            lines: Lines::new(),
            made: Made::default(),
            datapath_answers: true,
            doubtful: false,
        }
    }

    /// With a namespace that was configured for `host`.
    fn configured(host: HostView) -> Self {
        let mut world = Self::start(plain(), host);
        assert_eq!(world.pass().1, End::Reached);
        world
    }

    fn host(&mut self, host: HostView) {
        let event = Event::HostRead { host: Box::new(host), gone: BTreeSet::new() };
        self.reconciler.add(self.state.handle(self.now, event), self.now);
    }

    fn reading(&mut self) -> (Option<NamespaceReading>, Fault) {
        let fault = self.faults.pop_front().unwrap_or(Fault::None);
        let mut view = self.namespace.clone();
        if fault == Fault::Disturbed {
            view.addresses.clear();
        }
        let reading = NamespaceReading { view, complete: fault != Fault::Interrupted };
        (Some(reading).filter(|_| fault != Fault::Unreadable), fault)
    }

    fn apply(&mut self, ops: &[NamespaceOp]) -> Vec<NamespaceOp> {
        let before = foreign(&self.namespace);
        let (refused, rest): (Vec<_>, Vec<_>) =
            ops.iter().copied().partition(|op| (self.refuses)(op));
        rest.iter().for_each(|op| apply(&mut self.namespace, op));
        assert_eq!(foreign(&self.namespace), before, "what is not ours was changed");
        (self.users)(&mut self.namespace);
        refused
    }

    /// Whether another pass is to be made, but for what the datapath has said during the last one.
    fn is_behind(&self) -> bool {
        let answered = self.state.parting().due() == Some(Instant::START);
        self.reconciler.is_behind(self.now, &self.state) && !answered
    }

    /// Makes a pass, and where the datapath has answered another one.
    fn pass(&mut self) -> (Vec<Seen>, End) {
        let (mut seen, mut end) = self.one_pass();
        if end == End::Reached && self.state.parting().due() == Some(Instant::START) {
            let (more, last) = self.one_pass();
            seen.extend(more);
            end = last;
        }
        (seen, end)
    }

    fn one_pass(&mut self) -> (Vec<Seen>, End) {
        let mut pass = self.reconciler.begin(self.now, &mut self.state);
        let (mut seen, mut input) = (Vec::new(), Input::Begin);
        let end = loop {
            assert!(seen.len() < 60, "it has no end: {seen:?}");
            let step = pass.next(self.now, &mut self.state, input, &mut self.lines);
            input = match step {
                Step::Read => {
                    seen.push(Seen::Read);
                    let (reading, fault) = self.reading();
                    let disturbed = fault == Fault::Disturbed;
                    Input::Read { reading, disturbed, flushed: Flushed::default() }
                }
                Step::ReadBack => {
                    seen.push(Seen::ReadBack);
                    // Nobody looks at events meanwhile.
                    let (reading, fault) = self.reading();
                    let view = self.namespace.clone();
                    Input::ReadBack(match fault {
                        Fault::Disturbed => Some(NamespaceReading { view, complete: true }),
                        _ => reading,
                    })
                }
                Step::Apply(ops) => {
                    let refused = self.apply(&ops);
                    seen.push(Seen::Applied(ops));
                    Input::Applied(refused)
                }
                Step::Publish(snapshot) => {
                    if self.datapath_answers {
                        self.state.parting_mut().flows_were_reset();
                    }
                    seen.push(Seen::Published(snapshot));
                    Input::Done
                }
                Step::Name(naming) => {
                    seen.push(Seen::Named(naming));
                    Input::Done
                }
                Step::End => break End::Reached,
                Step::Fail => break End::Failed,
            };
        };
        self.doubtful = pass.is_doubtful();
        self.made = self.reconciler.finish(self.now, &self.state, end);
        (seen, end)
    }

    /// What is still to be done.
    fn plan(&self) -> crate::plan::Plan {
        plan(&self.state.desired(MAC), &self.namespace)
    }
}

/// A host with one uplink, which has this address.
fn host(prefix: &str) -> HostView {
    let (network, _) = prefix.rsplit_once('.').unwrap();
    Host::default()
        .link(3, "eth0")
        .address(3, prefix)
        .route(3, "0.0.0.0/0", &format!("{network}.1"), 100)
        .0
}

const HOME: &str = "192.0.2.7/24";
const AWAY: &str = "198.51.100.7/24";

fn adds(prefix: &str, op: &NamespaceOp) -> bool {
    matches!(op, NamespaceOp::AddAddress(it) if it.prefix == net(prefix))
}

fn removes(prefix: &str, op: &NamespaceOp) -> bool {
    matches!(op, NamespaceOp::RemoveAddress(it) if it.prefix == net(prefix))
}

#[test]
fn a_pass_with_nothing_to_do_reads_and_publishes() {
    let mut world = World::configured(host(HOME));
    let (seen, end) = world.pass();
    assert!(matches!(&seen[..], [Seen::Read, Seen::Published(_)]), "{seen:?}");
    assert_eq!(end, End::Reached);
    assert!(!world.reconciler.is_behind(world.now, &world.state));
}

#[test]
fn additions_come_first_then_the_snapshot_then_removals() {
    let mut world = World::configured(host(HOME));
    world.host(host(AWAY));
    assert!(world.reconciler.is_behind(world.now, &world.state));
    let (seen, end) = world.pass();
    let [
        Seen::Read,
        Seen::Applied(additions),
        Seen::ReadBack,
        Seen::Published(_),
        Seen::Published(between),
        Seen::Applied(removals),
        Seen::ReadBack,
        Seen::Published(last),
    ] = &seen[..]
    else {
        panic!("{seen:?}")
    };
    assert!(additions.iter().any(|op| adds(AWAY, op)));
    assert!(removals.iter().any(|op| removes(HOME, op)));
    let v4 = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap();
    let (old, new) = (v4("192.0.2.7"), v4("198.51.100.7"));
    let assigned = between.ipv4.assigned.as_slice().iter().map(|it| it.address());
    assert_eq!(assigned.collect::<Vec<_>>(), [new]);
    assert_eq!(between.ipv4.present.as_slice(), [old, new]);
    assert_eq!(between.ipv4.leaving.as_slice(), [old]);
    assert!(last.ipv4.leaving.as_slice().is_empty());
    assert_eq!(last.ipv4.present.as_slice(), [new]);
    assert_eq!(end, End::Reached);
    assert!(!world.reconciler.is_behind(world.now, &world.state));
}

#[test]
fn an_address_that_goes_waits_for_the_datapath_and_not_for_long() {
    for answers in [false, true] {
        let mut world = World::configured(host(HOME));
        world.datapath_answers = false;
        world.host(host(AWAY));
        let (seen, end) = world.pass();
        let removed = |seen: &[Seen]| {
            let applied = |it: &Seen| matches!(it, Seen::Applied(ops) if ops.iter().any(|op| removes(HOME, op)));
            seen.iter().any(applied)
        };
        assert!(!removed(&seen) && end == End::Reached, "{seen:?}");
        let Some(Seen::Published(snapshot)) = seen.last() else { panic!("{seen:?}") };
        assert_eq!(snapshot.ipv4.leaving.as_slice(), ["192.0.2.7".parse::<Ipv4Addr>().unwrap()]);
        assert!(!world.reconciler.is_behind(world.now, &world.state));
        if answers {
            world.state.parting_mut().flows_were_reset();
        } else {
            world.now = world.state.parting().due().unwrap();
            assert!(world.now <= at(100));
        }
        assert!(world.reconciler.is_behind(world.now, &world.state));
        world.faults = [Fault::Unreadable].into();
        assert_eq!(world.pass().1, End::Failed);
        assert!(!world.reconciler.is_behind(world.now, &world.state), "the retry has its own time");
        let (seen, _) = world.pass();
        assert!(removed(&seen) && world.plan().is_empty(), "{seen:?}");
        assert_eq!(world.state.parting().due(), None);
    }
}

#[test]
fn the_address_of_local_mode_leaves_as_any_other() {
    let mut world = World::configured(HostView::default());
    world.datapath_answers = false;
    world.host(host(HOME));
    let (seen, _) = world.pass();
    let [.., Seen::Published(snapshot)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(snapshot.ipv4.leaving.as_slice(), [crate::desired::LOCAL_ADDRESS]);
    // As long as it is there, new connections must not find another way.
    let router = |world: &World| {
        let mut all = world.namespace.our_routes();
        all.find(|it| it.destination.is_everything()).and_then(|it| it.gateway)
    };
    assert!(world.namespace.has_address(ip("192.0.2.7")));
    assert_eq!(router(&world), Some(ip("169.254.2.2")));
    world.state.parting_mut().flows_were_reset();
    world.pass();
    assert!(!world.namespace.has_address(crate::desired::LOCAL_ADDRESS.into()));
    assert_eq!(router(&world), Some(ip("192.0.2.1")));
}

#[test]
fn without_config_net_a_pass_only_reads_and_publishes() {
    let policy = Policy { configure: Configure::LoopbackOnly, ..plain() };
    let mut world = World::start(policy, host(HOME));
    let (seen, end) = world.pass();
    assert!(matches!(&seen[..], [Seen::Read, Seen::Published(_)]), "{seen:?}");
    assert_eq!((end, &world.namespace), (End::Reached, &fresh()));
}

#[test]
fn where_nothing_is_followed_only_the_first_pass_changes_the_namespace() {
    let mut policy = plain();
    policy.following.follow = pasta_ipc::start::Follow::Off;
    let mut world = World::start(policy, host(HOME));
    assert!(world.pass().0.iter().any(|it| matches!(it, Seen::Applied(_))));
    world.namespace.addresses.clear();
    let (seen, _) = world.pass();
    assert!(matches!(&seen[..], [Seen::Read, Seen::Published(_)]), "{seen:?}");
}

#[test]
fn a_lost_address_of_another_link_is_published_though_nothing_else_is_desired() {
    let with_other = |addresses: &[&str]| {
        let other = Host(host(HOME)).link(4, "eth1");
        addresses.iter().fold(other, |host, prefix| host.address(4, prefix)).0
    };
    let mut world = World::configured(with_other(&["203.0.113.7/24"]));
    world.host(with_other(&[]));
    assert!(world.reconciler.is_behind(world.now, &world.state));
    let (seen, _) = world.pass();
    let [Seen::Read, Seen::Published(snapshot)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(snapshot.losses, AddressLosses(1));
    assert!(!world.reconciler.is_behind(world.now, &world.state));
}

#[test]
fn an_interrupted_reading_is_made_again_and_the_fourth_has_to_do() {
    let mut world = World::configured(host(HOME));
    world.faults = [Fault::Interrupted; READINGS - 1].into();
    let (seen, end) = world.pass();
    assert_eq!((seen.len(), end), (READINGS + 1, End::Reached));
    assert!(!world.doubtful);
    world.faults = [Fault::Interrupted; READINGS].into();
    let (seen, end) = world.pass();
    assert_eq!((&seen[..READINGS], end), (&vec![Seen::Read; READINGS][..], End::Reached));
    assert!(world.doubtful, "another pass is to be made");
}

#[test]
fn a_disturbed_reading_is_made_again_and_nothing_learnt_from_it() {
    let mut world = World::configured(host(HOME));
    world.faults = [Fault::Disturbed, Fault::Interrupted, Fault::Disturbed].into();
    let (seen, end) = world.pass();
    assert_eq!((seen.len(), end), (5, End::Reached));
    assert!(!world.doubtful);
    world.faults = [Fault::Disturbed; READINGS].into();
    let (seen, end) = world.pass();
    assert_eq!((&seen[..READINGS], end), (&vec![Seen::Read; READINGS][..], End::Reached));
    assert!(world.doubtful, "another pass is to be made");
    // Else the addresses that were missing would count as removed by users.
    assert_eq!(world.plan(), crate::plan::Plan::default());
    assert_eq!(world.lines.last().map(|it| it.0), Some(LogLevel::Debug));
}

#[test]
fn users_who_change_the_tap_all_the_time_do_not_keep_the_host_from_being_followed() {
    for fault in [Fault::Disturbed, Fault::Interrupted] {
        let mut world = World::configured(host(HOME));
        world.host(host(AWAY));
        world.faults = [fault; 40].into();
        assert_eq!(world.pass().1, End::Reached, "{fault:?}");
        assert!(world.doubtful && world.namespace.has_address(ip("198.51.100.7")));
        world.faults.clear();
        assert_eq!(world.pass().1, End::Reached);
        assert!(!world.doubtful && world.plan().is_empty(), "{:?}", world.plan());
    }
}

#[test]
fn before_the_first_configuration_any_reading_will_do() {
    for fault in [Fault::Interrupted, Fault::Disturbed] {
        let mut world = World::start(plain(), host(HOME));
        world.faults = [fault; 9].into();
        let (seen, end) = world.pass();
        let readings = seen.iter().filter(|it| **it == Seen::Read).count();
        assert_eq!((readings, end), (1, End::Reached));
    }
}

#[test]
fn a_namespace_that_cannot_be_read_fails_the_pass_at_any_step_and_the_next_converges() {
    for readings in 0..3 {
        let mut world = World::configured(host(HOME));
        world.host(host(AWAY));
        world.faults =
            [Fault::None; 3].into_iter().take(readings).chain([Fault::Unreadable]).collect();
        assert_eq!(world.pass().1, End::Failed, "after {readings} readings");
        assert!(!world.is_behind(), "the retry has its own time");
        assert_eq!(world.pass().1, End::Reached);
        assert!(world.plan().is_empty());
    }
}

#[test]
fn transitions_are_logged_when_the_namespace_has_made_them() {
    let mut world = World::configured(host(HOME));
    world.now = at(1000);
    world.host(host(AWAY));
    world.faults = [Fault::Unreadable].into();
    world.pass();
    assert_eq!(world.made, Made::default());
    world.now = at(2030);
    world.pass();
    let took = Duration::from_millis(1030);
    let [(change, first)] = &world.made.changes[..] else { panic!("{:?}", world.made) };
    assert!(change.to_string().contains("198.51.100.7"), "{change}");
    assert_eq!((*first, world.made.longest), (took, Some(took)));
    world.pass();
    assert_eq!(world.made, Made::default());
}

#[test]
fn transitions_that_wait_for_the_log_are_bounded() {
    let mut world = World::configured(host(HOME));
    for n in 0..MOST_PENDING {
        world.host(host(if n % 2 == 0 { AWAY } else { HOME }));
    }
    world.host(host(AWAY));
    world.pass();
    assert_eq!(world.made.changes.len(), MOST_PENDING);
}

#[test]
fn what_the_kernel_refuses_is_tried_once_in_a_pass_and_again_in_the_next() {
    let mut world = World::configured(host(HOME));
    world.host(host(AWAY));
    world.refuses = |op| adds(AWAY, op);
    let tries = |seen: &[Seen]| {
        let applied =
            |it: &Seen| matches!(it, Seen::Applied(ops) if ops.iter().any(|op| adds(AWAY, op)));
        seen.iter().filter(|it| applied(it)).count()
    };
    let (seen, end) = world.pass();
    assert_eq!((tries(&seen), end), (1, End::Reached));
    let (seen, _) = world.pass();
    assert_eq!(tries(&seen), 1);
    world.refuses = |_| false;
    world.pass();
    assert!(world.plan().is_empty());
}

#[test]
fn users_who_undo_everything_are_fought_for_three_rounds() {
    let mut world = World::configured(host(HOME));
    world.host(host(AWAY));
    world.users = |namespace| namespace.addresses.retain(|it| it.ip() != ip("198.51.100.7"));
    let (seen, end) = world.pass();
    let rounds = seen.iter().filter(|it| matches!(it, Seen::Applied(ops) if adds(AWAY, &ops[0])));
    assert_eq!((rounds.count(), end), (ROUNDS, End::Reached));
    let (level, text) = world.lines.last().unwrap();
    assert_eq!(*level, LogLevel::Warn);
    assert!(text.starts_with("namespace is not as desired after 3 rounds: "), "{text}");
}

#[test]
fn a_tap_that_was_made_without_a_template_gets_its_name_once() {
    for in_use in [false, true] {
        let mut world = World::configured(HostView::default());
        if in_use {
            let address = FoundAddress {
                address: crate::desired::WantedAddress::new(net("203.0.113.9/24")),
                on_tap: true,
                owner: Owner::Foreign,
            };
            world.namespace.addresses.push(address);
        }
        world.host(host(HOME));
        let (seen, _) = world.pass();
        let name = |text: &str| IfName::try_from(text.to_owned()).unwrap();
        let (old, new) = (name("tap0"), name("eth0"));
        let naming = if in_use { Naming::Add { old, new } } else { Naming::Rename { old, new } };
        let [.., Seen::Named(named), Seen::Published(_)] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(*named, naming);
        // The kernel may have refused: it is not tried again.
        assert!(!world.pass().0.iter().any(|it| matches!(it, Seen::Named(_))));
    }
}

#[test]
fn an_answer_to_another_step_fails_the_pass() {
    let mut world = World::configured(host(HOME));
    let mut pass = world.reconciler.begin(at(0), &mut world.state);
    let step = pass.next(at(0), &mut world.state, Input::Done, &mut Lines::new());
    assert!(matches!(step, Step::Fail));
    let step = pass.next(at(0), &mut world.state, Input::Begin, &mut Lines::new());
    assert!(matches!(step, Step::Fail), "it is over");
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::Unreadable),
        2 => Just(Fault::Interrupted),
        2 => Just(Fault::Disturbed),
    ]
}

fn any_host() -> impl Strategy<Value = HostView> {
    let uplink = (any::<bool>(), 0_u8..4, prop::option::of(1_u32..3));
    prop::collection::vec(uplink, 2).prop_map(|uplinks| {
        let mut host = Host::default();
        for (n, (up, addresses, metric)) in (3_u8..).zip(uplinks) {
            host = host.link_with(n.into(), &format!("eth{n}"), |link| link.up = up);
            for bit in (0..2).filter(|bit| addresses & 1 << bit != 0) {
                host = host.address(n.into(), &format!("192.0.{n}.{}/24", 7 + bit));
                host = host.address(n.into(), &format!("2001:db8:{n}::{}/64", 7 + bit));
            }
            if let Some(metric) = metric.filter(|_| up && addresses != 0) {
                host = host.route(n.into(), "0.0.0.0/0", &format!("192.0.{n}.1"), metric);
            }
        }
        host.0
    })
}

proptest! {
    #[test]
    fn whatever_fails_a_pass_without_faults_converges_and_removes_nothing_before_it_is_published(
        start in any_host(),
        happenings in prop::collection::vec((any_host(), prop::collection::vec(any_fault(), 0..12)), 0..6),
    ) {
        let mut world = World::configured(start);
        let mut last = None;
        for (host, faults) in happenings {
            world.now = world.now + Duration::from_millis(300);
            world.host(host);
            world.faults = faults.into();
            let (seen, end) = world.pass();
            last = Some(end);
            prop_assert!(!world.is_behind());
            if end == End::Reached {
                // After a reading that was not of one moment another pass is to be made.
                prop_assert!(world.doubtful || world.plan().is_empty(), "{:?}", world.plan());
                prop_assert!(matches!(seen.last(), Some(Seen::Published(_))));
            } else {
                prop_assert_eq!(world.made.longest, None);
            }
            let is_removal = |op: &NamespaceOp| {
                matches!(op, NamespaceOp::RemoveAddress(_) | NamespaceOp::RemoveRoute(_))
            };
            let mut published = false;
            for it in &seen {
                match it {
                    Seen::Published(_) => published = true,
                    // One that excludes its successor has to go before.
                    Seen::Applied(ops) if ops.iter().all(is_removal) => prop_assert!(published),
                    _ => {}
                }
            }
        }
        world.faults.clear();
        let (_, end) = world.pass();
        prop_assert_eq!(end, End::Reached);
        prop_assert!(world.plan().is_empty(), "{:?} after {:?}", world.plan(), last);
    }
}
