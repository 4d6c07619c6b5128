use super::*;
use crate::candidate::rank_of;
use crate::host::testing::Host;
use crate::interest::{Interest, Wanted as WantedEvents};
use crate::namespace::testing::{apply, foreign, fresh};
use crate::namespace::{FoundAddress, FoundRoute, Owner};
use crate::plan::{Plan, plan};
use crate::policy::testing::plain;
use crate::record::LinkKind;
use pasta_ipc::types::FamilyState as Published;
use proptest::prelude::*;
use std::time::Duration;

const MAC: MacAddr = MacAddr::OURS_BY_DEFAULT;

/// A core and a namespace that it configures, as the shell would.
struct World {
    now: Instant,
    state: State,
    namespace: NamespaceView,
    flushed: Flushed,
}

impl World {
    fn start(host: HostView) -> Self {
        let state = State::start(plain(), host);
        let mut world =
            Self { now: Instant::START, state, namespace: fresh(), flushed: Flushed::default() };
        world.reconcile();
        world
    }

    fn see(&mut self, host: HostView, gone: BTreeSet<u32>) {
        self.state.handle(self.now, Event::HostRead { host: Box::new(host), gone });
        self.reconcile();
    }

    /// Lets time pass, with every deadline on the way.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        let mut last = None;
        while let Some(due) = self.state.next_deadline().filter(|it| *it <= end) {
            assert!(last != Some((due, self.now)), "a deadline that is not met: {due:?}");
            last = Some((due, self.now));
            self.now = self.now.max(due);
            self.state.handle(self.now, Event::DeadlineReached);
            self.reconcile();
        }
        self.now = end;
    }

    fn plan(&self) -> Plan {
        plan(&self.state.desired(MAC), &self.namespace)
    }

    fn reconcile(&mut self) {
        let view = Box::new(self.namespace.clone());
        let flushed = std::mem::take(&mut self.flushed);
        self.state.handle(self.now, Event::NamespaceRead { view, flushed });
        let before = foreign(&self.namespace);
        let had: Vec<_> = self.namespace.our_addresses().collect();
        let plan = self.plan();
        plan.additions.iter().for_each(|op| apply(&mut self.namespace, op));
        // What stays or is replaced was never without an address in between.
        let has: Vec<_> = self.namespace.our_addresses().collect();
        assert!(had.is_empty() || !has.is_empty());
        plan.removals.iter().for_each(|op| apply(&mut self.namespace, op));
        assert_eq!(foreign(&self.namespace), before, "what is not ours was changed");
        assert!(self.plan().is_empty(), "not there in one pass: {:?}", self.plan());
        self.state.handle(self.now, Event::Configured(Box::new(self.namespace.clone())));
        assert!(self.plan().is_empty(), "not at rest: {:?}", self.plan());
    }
}

/// One of two uplinks as it is at some time.
#[derive(Clone, Copy, Debug)]
struct Uplink {
    up: bool,
    addresses: u8,
    default: Option<(u8, u32)>,
}

fn any_uplink() -> impl Strategy<Value = Uplink> {
    let default = prop::option::of((1_u8..3, 1_u32..4));
    (any::<bool>(), 0_u8..8, default).prop_map(|(up, addresses, default)| Uplink {
        up,
        addresses,
        default,
    })
}

fn host_of(uplinks: [Uplink; 2]) -> HostView {
    let mut host = Host::default();
    for (index, uplink) in (3_u32..).zip(uplinks) {
        host = host.link_with(index, &format!("eth{index}"), |link| {
            link.up = uplink.up;
            link.carrier = uplink.up;
        });
        for bit in 0..3 {
            if uplink.addresses & (1 << bit) != 0 {
                let deprecated = bit == 2;
                let change = |it: &mut crate::record::Address| it.deprecated = deprecated;
                host = host
                    .address_with(index, &format!("10.{index}.0.{}/24", bit + 10), change)
                    .address_with(index, &format!("2001:db8:{index}::{}/64", bit + 10), change);
            }
        }
        // The kernel makes these along with the addresses.
        if uplink.up && uplink.addresses != 0 {
            let by_kernel = |it: &mut crate::record::Route| it.protocol = 2;
            host = host.route_with(index, &format!("10.{index}.0.0/24"), "", by_kernel).route_with(
                index,
                &format!("2001:db8:{index}::/64"),
                "",
                by_kernel,
            );
        }
        if let Some((router, metric)) = uplink.default.filter(|_| uplink.up) {
            host = host.route(index, "0.0.0.0/0", &format!("10.{index}.0.{router}"), metric).route(
                index,
                "::/0",
                &format!("fe80::{router}"),
                metric,
            );
        }
    }
    host.0
}

#[derive(Clone, Debug)]
enum Step {
    Host([Uplink; 2], BTreeSet<u32>),
    Wait(u64),
    UserDeletes(prop::sample::Index),
    UserAdds(u8),
    UserTakesDefault(bool),
    TapFlaps,
}

fn any_step() -> impl Strategy<Value = Step> {
    let uplinks = [any_uplink(), any_uplink()];
    let gone = prop::collection::btree_set(3_u32..5, 0..2);
    prop_oneof![
        4 => (uplinks, gone).prop_map(|(uplinks, gone)| Step::Host(uplinks, gone)),
        2 => (0_u64..20_000).prop_map(Step::Wait),
        1 => any::<prop::sample::Index>().prop_map(Step::UserDeletes),
        1 => (0_u8..4).prop_map(Step::UserAdds),
        1 => any::<bool>().prop_map(Step::UserTakesDefault),
        1 => Just(Step::TapFlaps),
    ]
}

impl World {
    fn step(&mut self, step: Step) {
        let everything = Prefix::everything(Family::V4);
        match step {
            Step::Host(uplinks, gone) => return self.see(host_of(uplinks), gone),
            Step::Wait(ms) => return self.wait(Duration::from_millis(ms)),
            Step::UserDeletes(which) => {
                let len = self.namespace.addresses.len();
                if len > 0 {
                    self.namespace.addresses.remove(which.index(len));
                }
            }
            Step::UserAdds(n) => {
                let address =
                    WantedAddress::new(crate::net::testing::net(&format!("203.0.113.{n}/24")));
                let there = |it: &FoundAddress| it.address == address;
                if !self.namespace.addresses.iter().any(there) {
                    let owner = Owner::Foreign;
                    self.namespace.addresses.push(FoundAddress { address, on_tap: true, owner });
                }
            }
            Step::UserTakesDefault(take) => {
                self.namespace.routes.retain(|it| it.route.destination != everything);
                if take {
                    let route = WantedRoute {
                        destination: everything,
                        gateway: Some(crate::net::testing::ip("203.0.113.254")),
                        onlink: true,
                        metric: 9,
                        mtu: None,
                        advmss: None,
                    };
                    let (on_tap, of_kernel, owner) = (true, false, Owner::Foreign);
                    self.namespace.routes.push(FoundRoute { route, on_tap, of_kernel, owner });
                }
            }
            Step::TapFlaps => {
                self.namespace.routes.clear();
                self.flushed.tap_was_down = true;
            }
        }
        self.reconcile();
    }
}

fn state_of(binding: &Binding) -> Published {
    match binding {
        Binding::Off => Published::Off,
        Binding::Local => Published::Local,
        Binding::Bound(_) => Published::Bound,
        Binding::Held(..) => Published::Held,
    }
}

/// What `host` looks like in a reading that lacks every object whose turn in `lacks` says so.
fn interrupted(host: &HostView, lacks: &[bool]) -> HostView {
    let mut part = host.clone();
    let mut lacks = lacks.iter().cycle().copied();
    let mut is_read = || !lacks.next().unwrap_or_default();
    part.links.retain(|_, _| is_read());
    part.addresses.retain(|_| is_read());
    part.routes.v4.retain(|_| is_read());
    part.routes.v6.retain(|_| is_read());
    part.completed_by(host);
    part
}

proptest! {
    /// Scenario S54: however many readings are interrupted one after the other, all stays.
    #[test]
    fn s54_nothing_goes_on_the_strength_of_interrupted_readings(
        uplinks in [any_uplink(), any_uplink()],
        readings in prop::collection::vec(prop::collection::vec(any::<bool>(), 1..20), 1..5),
    ) {
        let mut world = World::start(host_of(uplinks));
        let ours = |it: &World| {
            let addresses: BTreeSet<_> = it.namespace.our_addresses().collect();
            (addresses, it.namespace.our_routes().collect::<BTreeSet<_>>())
        };
        let (had, bindings) = (ours(&world), world.state.bindings());
        for lacks in readings {
            let part = interrupted(world.state.host(), &lacks);
            world.see(part, BTreeSet::new());
            world.wait(Duration::from_secs(300));
            prop_assert_eq!(&ours(&world), &had);
            prop_assert_eq!(world.state.bindings(), bindings.clone());
        }
        // The first that is complete is believed.
        world.see(HostView::default(), BTreeSet::new());
        world.wait(Duration::from_secs(300));
        prop_assert!(!world.state.is_bound());
    }

    /// The laws of rest, ownership and order are asserted at each step, in `reconcile`.
    #[test]
    fn any_history_keeps_the_laws_and_ends_where_a_fresh_start_does(
        steps in prop::collection::vec(any_step(), 1..24),
        last in [any_uplink(), any_uplink()],
    ) {
        let mut world = World::start(HostView::default());
        for step in steps {
            let before = world.state.bindings();
            world.step(step);
            for family in Family::BOTH {
                let (old, new) = (before.get(family), world.state.bindings());
                let change = (state_of(old), state_of(new.get(family)));
                prop_assert!(change != (Published::Local, Published::Held));
            }
        }
        world.see(host_of(last), BTreeSet::new());
        // Longer than flapping, holding and lingering last.
        world.wait(Duration::from_secs(300));
        let fresh = State::start(plain(), host_of(last));
        let running_out = last.iter().any(|it| it.addresses & 4 != 0);
        for family in Family::BOTH {
            let (ours, theirs) = (world.state.bindings(), fresh.bindings());
            match (ours.get(family), theirs.get(family)) {
                (Binding::Bound(one), Binding::Bound(other)) => {
                    // A template is kept among equals: nothing is better than it.
                    let (host, policy) = (host_of(last), plain());
                    let found = crate::candidate::candidates(
                        &host,
                        &policy,
                        family,
                        crate::candidate::Stopgaps::Wait,
                    );
                    let rank = |it: &crate::bind::Template| rank_of(&found, it.index);
                    if !running_out {
                        prop_assert!(rank(one) <= rank(other));
                    }
                    // And so is a primary; all else is as after a fresh start.
                    if one == other && !running_out {
                        let wanted = |state: &State| state.families.get(family).wanted.clone();
                        prop_assert_eq!(wanted(&world.state), wanted(&fresh));
                    }
                }
                // A template is kept while its last address runs out.
                (Binding::Bound(_), _) if running_out => {}
                (one, other) => prop_assert_eq!(state_of(one), state_of(other)),
            }
            // What was left stays as long as the host has it.
            let lingering = &world.state.families.get(family).lingering;
            let host = host_of(last);
            let stays = |(it, until): &(WantedAddress, Option<Instant>)| {
                until.is_none() && host.has_address(it.prefix.address())
            };
            prop_assert!(lingering.iter().all(stays));
        }
    }
}

/// Whether the kernel's filter for `interest` lets through anything of what makes `before` `after`.
fn is_received(interest: &Interest, before: &HostView, after: &HostView) -> bool {
    let of_interest = |link: u32| interest.links.as_ref().is_none_or(|it| it.contains(&link));
    let by_family = |family, link| match interest.families.get(family) {
        WantedEvents::Nothing => false,
        WantedEvents::OfLinks => of_interest(link),
        WantedEvents::All => true,
    };
    let link_is_received = |index: &u32| {
        let (old, new) = (before.links.get(index), after.links.get(index));
        let ignored = interest.ignored.contains(index) || new.is_some_and(|it| it.enslaved);
        old != new && (of_interest(*index) || !ignored)
    };
    let differs = |it: &&crate::record::Address| {
        before.addresses.contains(it) != after.addresses.contains(it)
    };
    let mut addresses = before.addresses.iter().chain(&after.addresses).filter(differs);
    let routes = Family::BOTH.into_iter().flat_map(|family| {
        let (old, new) = (before.routes.get(family), after.routes.get(family));
        old.iter().chain(new).filter(move |it| old.contains(it) != new.contains(it))
    });
    let route_is_received = |it: &crate::record::Route| {
        it.destination.bits() <= 3
            || it.hops.len() != 1
            || it.hops.iter().any(|hop| by_family(it.family(), hop.link))
    };
    before.links.keys().chain(after.links.keys()).any(link_is_received)
        || addresses.any(|it| by_family(it.prefix.family(), it.link))
        || routes.into_iter().any(route_is_received)
}

proptest! {
    /// What the kernel's filter drops would have changed nothing: not the bindings, not what is
    /// wanted. (That an address went from another link shows in the next reading, or in no event.)
    #[test]
    fn what_nobody_hears_would_have_changed_nothing(
        first in [any_uplink(), any_uplink()],
        second in [any_uplink(), any_uplink()],
        bridge in any::<bool>(),
        kind in prop::sample::select(vec![LinkKind::Ordinary, LinkKind::Bridge, LinkKind::Dummy]),
    ) {
        let host = |uplinks: [Uplink; 2], more: bool| {
            let mut host = Host(host_of(uplinks)).link_with(9, "other0", |it| it.kind = kind);
            if more {
                host = host.address(9, "172.17.0.1/16").route_with(9, "172.17.0.0/16", "", |it| {
                    it.protocol = 2;
                });
            }
            host.0
        };
        let mut world = World::start(host(first, false));
        world.wait(Duration::from_secs(300));
        let before = world.state.host().clone();
        let interest = Interest::of(
            &before,
            world.state.policy(),
            &world.state.bindings(),
            &world.state.left_links(),
        );
        // One thing after the other, as events come.
        let [one, other] = second;
        let [_, kept] = first;
        for after in [host([one, kept], bridge), host([first[0], other], bridge), host(first, bridge)] {
            prop_assume!(!after.links.is_empty());
            if is_received(&interest, &before, &after) {
                continue;
            }
            let (bindings, desired) = (world.state.bindings(), world.state.desired(MAC));
            let event = Event::HostRead { host: Box::new(after), gone: BTreeSet::new() };
            world.state.handle(world.now, event);
            prop_assert_eq!(world.state.bindings(), bindings);
            prop_assert_eq!(world.state.desired(MAC), desired);
            let event = Event::HostRead { host: Box::new(before.clone()), gone: BTreeSet::new() };
            world.state.handle(world.now, event);
        }
    }
}

#[test]
fn a_default_route_that_was_lost_is_kept_for_the_hold_time() {
    let uplink = |default| Uplink { up: true, addresses: 1, default };
    let none = Uplink { up: false, addresses: 0, default: None };
    let mut world = World::start(host_of([uplink(Some((1, 1))), none]));
    world.see(host_of([uplink(None), none]), BTreeSet::new());
    world.wait(Duration::from_millis(9_999));
    let has_default =
        |world: &World| world.namespace.our_routes().any(|it| it.destination.is_everything());
    assert!(has_default(&world));
    world.wait(Duration::from_millis(1));
    assert!(!has_default(&world));
    assert!(world.state.is_bound());
}

/// A namespace that follows one uplink with two addresses of each family.
fn following() -> World {
    let uplink = Uplink { up: true, addresses: 3, default: Some((1, 1)) };
    let none = Uplink { up: false, addresses: 0, default: None };
    World::start(host_of([uplink, none]))
}

fn addresses_of(world: &World, family: Family) -> usize {
    world.namespace.our_addresses().filter(|it| it.prefix.family() == family).count()
}

#[test]
fn what_the_kernel_flushes_of_ipv6_comes_back() {
    let mut world = following();
    let is_v6 = |it: &FoundAddress| it.address.prefix.family() == Family::V6;
    let all = addresses_of(&world, Family::V6);
    // Switched off and on, seen in between.
    world.namespace.tap.without_ipv6 = true;
    world.namespace.addresses.retain(|it| !is_v6(it));
    world.namespace.routes.retain(|it| it.route.destination.family() != Family::V6);
    world.reconcile();
    assert_eq!(addresses_of(&world, Family::V6), all);
    // And seen only afterwards, when the kernel has made its own link-local address again.
    let mut world = following();
    world.namespace.addresses.retain(|it| !is_v6(it) || is_link_local(it.ip()));
    world.flushed.link_local_went = true;
    world.reconcile();
    assert_eq!(addresses_of(&world, Family::V6), all);
    // One that a user deletes does not.
    let mut world = following();
    world.namespace.addresses.retain(|it| !is_v6(it) || is_link_local(it.ip()));
    world.reconcile();
    assert_eq!(addresses_of(&world, Family::V6), 1);
    // Nor do all of them.
    let mut world = following();
    world.namespace.addresses.retain(|it| !is_v6(it));
    world.flushed.link_local_went = true;
    world.reconcile();
    assert_eq!(addresses_of(&world, Family::V6), 0);
}

#[test]
fn a_secondary_address_that_went_with_its_primary_comes_back() {
    for (promotes, left) in [(false, 1), (true, 0)] {
        let mut world = following();
        world.namespace.tap.promotes_secondaries = Some(promotes);
        world.namespace.addresses.retain(|it| it.address.prefix.family() != Family::V4);
        world.reconcile();
        assert_eq!(addresses_of(&world, Family::V4), left, "promotion: {promotes}");
    }
}

#[test]
fn a_default_route_that_users_replaced_returns_when_theirs_goes() {
    let mut world = following();
    let is_ours = |it: &&FoundRoute| {
        it.owner == Owner::Ours && it.route.destination == Prefix::everything(Family::V4)
    };
    assert!(world.namespace.routes.iter().any(|it| is_ours(&it)));
    world.step(Step::UserTakesDefault(true));
    assert!(!world.namespace.routes.iter().any(|it| is_ours(&it)));
    world.step(Step::UserTakesDefault(false));
    world.wait(Duration::from_secs(2));
    assert!(world.namespace.routes.iter().any(|it| is_ours(&it)));
}

#[test]
fn who_follows_once_takes_the_mtu_once() {
    let uplink = Uplink { up: true, addresses: 1, default: Some((1, 1)) };
    let host = |mtu| {
        let mut host = host_of([uplink, Uplink { up: false, ..uplink }]);
        host.links.get_mut(&3).unwrap().mtu = mtu;
        host
    };
    for (follow, second) in [(Follow::Once, 1400), (Follow::Roam, 1300)] {
        let mut policy = plain();
        policy.following.mtu_source = pasta_ipc::start::MtuSource::Template;
        policy.following.follow = follow;
        let mut state = State::start(policy, HostView::default());
        let mut seen = |mtu| {
            let event = Event::HostRead { host: Box::new(host(mtu)), gone: BTreeSet::new() };
            state.handle(Instant::START, event);
            let wanted = state.wanted_mtu().map(u16_of);
            let mut view = fresh();
            view.tap.mtu = wanted.unwrap();
            state.handle(Instant::START, Event::Configured(Box::new(view)));
            wanted
        };
        assert_eq!(seen(1400), Some(1400));
        assert_eq!(seen(1300), Some(second));
    }
}

#[test]
fn an_mtu_that_users_changed_is_theirs() {
    let mut world = World::start(HostView::default());
    world.namespace.tap.mtu = 1400;
    world.reconcile();
    let uplink = Uplink { up: true, addresses: 1, default: Some((1, 1)) };
    world.see(host_of([uplink, uplink]), BTreeSet::new());
    assert_eq!(world.namespace.tap.mtu, 1400);
}

#[test]
fn a_lost_address_counts_whatever_link_it_was_on_unless_it_is_a_privacy_address() {
    let host = |others: &[&str]| {
        let mut host = Host::default().link(2, "eth0").link(3, "eth1");
        host = host.address(2, "192.0.2.7/24").address_with(3, "2001:db8::9/64", |it| {
            it.temporary = true;
        });
        others.iter().fold(host, |host, prefix| host.address(3, prefix)).0
    };
    let mut state = State::start(plain(), host(&["198.51.100.7/24"]));
    let mut read = |host: HostView| {
        let event = Event::HostRead { host: Box::new(host), gone: BTreeSet::new() };
        state.handle(Instant::START, event);
        state.losses().0
    };
    assert_eq!(read(host(&["198.51.100.7/24", "203.0.113.7/24"])), 0);
    assert_eq!(read(host(&["203.0.113.7/24"])), 1);
    assert_eq!(read(host(&["203.0.113.7/24"])), 1);
    let without_temporary = Host::default().link(3, "eth1").address(3, "203.0.113.7/24");
    let without_temporary = without_temporary.address(3, "192.0.2.7/24").0;
    assert_eq!(read(without_temporary), 1);
}

#[test]
fn a_named_template_that_is_renamed_is_told_of_and_kept() {
    let host = |name: &str| Host::default().link(2, name).address(2, "192.0.2.7/24").0;
    let mut state = State::start(crate::policy::testing::named("eth0"), host("eth0"));
    assert_eq!(state.renamed_template(), None);
    let event = Event::HostRead { host: Box::new(host("lan0")), gone: BTreeSet::new() };
    state.handle(Instant::START, event);
    assert_eq!(state.renamed_template().map(|(_, name)| name), Some("lan0"));
    assert!(state.is_bound());
}

#[test]
fn a_template_that_is_named_by_an_alternative_name_is_no_other() {
    let named = |link: &mut crate::record::Link| link.alternatives.push("enp99s0".into());
    let host = Host::default().link_with(2, "eth0", named).address(2, "192.0.2.7/24").0;
    let state = State::start(crate::policy::testing::named("enp99s0"), host);
    assert!(state.is_bound());
    assert_eq!(state.renamed_template(), None);
}

/// A host with a WLAN, and with a cable that is better; `wlan` are the WLAN's addresses.
fn with_cable(wlan: &[&str]) -> HostView {
    let host = Host::default()
        .link(3, "wlan0")
        .link(4, "eth0")
        .address(4, "198.51.100.7/24")
        .address(4, "2001:db8:4::7/64")
        .route(4, "0.0.0.0/0", "198.51.100.1", 100)
        .route(4, "::/0", "fe80::4", 100);
    let host = wlan.iter().fold(host, |host, prefix| host.address(3, prefix));
    host.route(3, "0.0.0.0/0", "192.0.2.1", 600).route(3, "::/0", "fe80::3", 600).0
}

fn without_cable(wlan: &[&str]) -> HostView {
    let host = Host::default().link(3, "wlan0");
    let host = wlan.iter().fold(host, |host, prefix| host.address(3, prefix));
    host.route(3, "0.0.0.0/0", "192.0.2.1", 600).route(3, "::/0", "fe80::3", 600).0
}

const WLAN: [&str; 2] = ["192.0.2.7/24", "2001:db8:3::7/64"];

impl World {
    /// Which of the WLAN's addresses the namespace has, and whether all of them are deprecated.
    fn of_wlan(&self) -> (Vec<String>, bool) {
        let all = self.namespace.our_addresses();
        let found: Vec<_> =
            all.filter(|it| WLAN.contains(&it.prefix.to_string().as_str())).collect();
        let deprecated = found.iter().all(|it| it.deprecated);
        (found.iter().map(|it| it.prefix.to_string()).collect(), deprecated)
    }

    /// A cable was plugged in, and is the template.
    fn moved_to_cable() -> Self {
        let mut world = Self::start(without_cable(&WLAN));
        world.see(with_cable(&WLAN), BTreeSet::new());
        world.wait(Duration::from_secs(2));
        let bound = |family| matches!(world.state.bindings().get(family), Binding::Bound(it) if it.index == 4);
        assert!(Family::BOTH.into_iter().all(bound));
        world
    }
}

#[test]
fn an_address_of_what_was_left_stays_as_long_as_the_host_has_it() {
    let mut world = World::moved_to_cable();
    world.wait(Duration::from_secs(3600));
    let (mut found, deprecated) = world.of_wlan();
    found.sort();
    assert_eq!((&found[..], deprecated), (&WLAN.map(str::to_owned)[..], true));
    assert_eq!(world.state.next_deadline(), None, "nothing waits for a time");
    assert_eq!(world.state.left_links(), [3].into());

    world.see(with_cable(&WLAN[..1]), BTreeSet::new());
    assert_eq!(world.of_wlan().0, WLAN[..1]);
    world.see(with_cable(&[]), BTreeSet::new());
    assert_eq!(world.of_wlan().0, [""; 0]);
}

#[test]
fn an_address_of_what_was_left_stays_for_the_linger_time_whatever_the_host_has() {
    let mut world = World::moved_to_cable();
    world.see(with_cable(&[]), BTreeSet::new());
    world.wait(Duration::from_secs(28));
    assert_eq!(world.of_wlan().0.len(), 2);
    world.wait(Duration::from_secs(2));
    assert_eq!(world.of_wlan().0, [""; 0]);
}

#[test]
fn what_was_left_and_taken_again_is_left_anew() {
    let mut world = World::moved_to_cable();
    for _ in 0..3 {
        world.see(without_cable(&WLAN), BTreeSet::new());
        let (found, deprecated) = world.of_wlan();
        assert_eq!((found.len(), deprecated), (2, false));
        assert!(world.state.families.v4.lingering.is_empty());
        world.see(with_cable(&WLAN), BTreeSet::new());
        world.wait(Duration::from_secs(120));
        assert_eq!(world.state.families.v4.lingering.len(), 1, "once, however often it was left");
    }
}

#[test]
fn a_deadline_that_has_passed_is_still_one() {
    let mut policy = plain();
    policy.following.bind_wait_ms = 8000;
    let mut state = State::start(policy, HostView::default());
    let end = Instant::START + Duration::from_secs(8);
    for ms in [0, 7999, 8000, 8001, 60_000] {
        state.handle(Instant::START + Duration::from_millis(ms), Event::DeadlineReached);
        assert_eq!(state.wakes_at(Readiness::Awaited), Some(end), "at {ms} ms");
        assert_eq!(state.wakes_at(Readiness::Given), None);
    }
}
