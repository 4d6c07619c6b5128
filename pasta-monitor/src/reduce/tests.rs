use super::*;
use crate::host::testing::Host;
use crate::namespace::{FoundAddress, FoundRoute, Owner};
use crate::op::NamespaceOp;
use crate::plan::{Plan, plan};
use crate::policy::testing::plain;
use crate::record::{AddressGeneration, Link, LinkKind};
use pasta_ipc::types::FamilyState as Published;
use proptest::prelude::*;
use std::time::Duration;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// A namespace that applies operations to sets.
fn fresh() -> NamespaceView {
    let tap = Link {
        index: 2,
        name: "tap0".into(),
        kind: LinkKind::Ordinary,
        mac: Some(MAC),
        up: false,
        carrier: true,
        loopback: false,
        enslaved: false,
        mtu: 1500,
        promotes_secondaries: Some(false),
        address_generation: Some(AddressGeneration::EUI64),
    };
    NamespaceView { tap, addresses: Vec::new(), routes: Vec::new() }
}

fn apply(view: &mut NamespaceView, op: &NamespaceOp) {
    let NamespaceView { tap, addresses, routes } = view;
    let key = |it: &WantedRoute| (it.destination, it.metric);
    let ours = |route| FoundRoute { route, on_tap: true, of_kernel: false, owner: Owner::Ours };
    match *op {
        NamespaceOp::SetMtu(mtu) => tap.mtu = mtu.get().into(),
        NamespaceOp::PromoteSecondaries => tap.promotes_secondaries = Some(true),
        NamespaceOp::SetAddressGeneration(mode) => tap.address_generation = Some(mode),
        NamespaceOp::RaiseTap => tap.up = true,
        NamespaceOp::AddAddress(address) => {
            addresses.push(FoundAddress { address, on_tap: true, owner: Owner::Ours });
        }
        NamespaceOp::AdjustAddress(address) => {
            let there = addresses.iter_mut().find(|it| it.address.prefix == address.prefix);
            there.unwrap().address = address;
        }
        NamespaceOp::RemoveAddress(address) => addresses.retain(|it| it.address != address),
        NamespaceOp::AddRoute(route) => routes.push(ours(route)),
        NamespaceOp::ReplaceRoute(route) => {
            *routes.iter_mut().find(|it| key(&it.route) == key(&route)).unwrap() = ours(route);
        }
        NamespaceOp::RemoveRoute(route) => routes.retain(|it| it.route != route),
    }
}

fn foreign(view: &NamespaceView) -> (Vec<FoundAddress>, Vec<FoundRoute>) {
    let (mut addresses, mut routes) = (view.addresses.clone(), view.routes.clone());
    addresses.retain(|it| it.owner == Owner::Foreign);
    routes.retain(|it| it.owner == Owner::Foreign);
    (addresses, routes)
}

/// A core and a namespace that it configures, as the shell would.
struct World {
    now: Instant,
    state: State,
    namespace: NamespaceView,
    flushed: bool,
}

impl World {
    fn start(host: HostView) -> Self {
        let state = State::start(plain(), host);
        let mut world = Self { now: Instant::START, state, namespace: fresh(), flushed: false };
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
        self.state.handle(self.now, Event::Settled(Box::new(self.namespace.clone())));
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
        let everything = crate::net::Prefix::everything(Family::V4);
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
                self.flushed = true;
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

proptest! {
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
        for family in Family::BOTH {
            let (ours, theirs) = (world.state.bindings(), fresh.bindings());
            // A template is kept among equals, and while its last address runs out.
            match (ours.get(family), theirs.get(family)) {
                (Binding::Bound(_), _) => {}
                (one, other) => prop_assert_eq!(state_of(one), state_of(other)),
            }
            let lingering = &world.state.families.get(family).lingering;
            prop_assert!(lingering.is_empty());
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
        state.losses()
    };
    assert_eq!(read(host(&["198.51.100.7/24", "203.0.113.7/24"])), 0);
    assert_eq!(read(host(&["203.0.113.7/24"])), 1);
    assert_eq!(read(host(&["203.0.113.7/24"])), 1);
    let without_temporary = Host::default().link(3, "eth1").address(3, "203.0.113.7/24");
    let without_temporary = without_temporary.address(3, "192.0.2.7/24").0;
    assert_eq!(read(without_temporary), 1);
}
