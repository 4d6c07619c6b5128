#![forbid(unsafe_code)]
//! The reducer: readings and the passing of time in, what the namespace should look like out.
//!
//! What is wanted is derived from the host and the command line alone. Readings of the namespace only
//! say what of it is to be left to the namespace's users: what they deleted stays deleted until the
//! host's side of it changes, and while they have a default route of a family (or had one until a
//! moment ago) ours is not added.

use crate::bind::{Binding, Move, Reason, Situation, Tracker};
use crate::change::Change;
use crate::desired::{
    Assigned, Desired, Wanted, WantedAddress, WantedRoute, is_neighbour, joined, mtu_like,
    neighbourhood, uses_ipv6, wanted,
};
use crate::host::{HostView, MAX_ADDRESSES};
use crate::namespace::{FoundAddress, NamespaceView, Owner};
use crate::net::{PerFamily, is_link_local};
use crate::policy::Policy;
use crate::reconcile::Parting;
use crate::record::Address;
use crate::time::{Instant, earliest};
use pasta_ipc::start::{Follow, Rename};
use pasta_ipc::types::{AddressLosses, Family, IfName, MacAddr, Mtu, Prefix};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What has happened to the tap since the reading before that makes the kernel remove things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// It was down, or may have been.
    pub tap_was_down: bool,
    /// Its link-local IPv6 address went.
    pub link_local_went: bool,
}

impl Flushed {
    /// What happened in either of two spans of time.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            tap_was_down: self.tap_was_down || other.tap_was_down,
            link_local_went: self.link_local_went || other.link_local_went,
        }
    }
}

/// Whether it was said that the namespace is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// That waits for a first template.
    Awaited,
    /// It was.
    Given,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The host was read.
    HostRead {
        /// What it has.
        host: Box<HostView>,
        /// Links that were deleted since the reading before.
        gone: BTreeSet<u32>,
    },
    /// The namespace was read after something happened in it.
    NamespaceRead {
        /// What it has.
        view: Box<NamespaceView>,
        /// What happened in the meantime that makes the kernel remove things.
        flushed: Flushed,
    },
    /// All that was planned is carried out; this is what the namespace has then.
    Configured(Box<NamespaceView>),
    /// Time has passed.
    DeadlineReached,
}

/// All that decisions depend on.
#[derive(Clone, Debug)]
pub struct State {
    policy: Policy,
    host: HostView,
    families: PerFamily<FamilyState>,
    /// How often a family's binding has changed.
    transitions: u64,
    /// The namespace as we left it.
    left: Option<NamespaceView>,
    /// Prefixes of the addresses that its users have put on the tap.
    users_prefixes: Vec<Prefix>,
    /// The MTU that we set last.
    mtu: Option<Mtu>,
    began_local: bool,
    /// How many times the host has lost addresses, those that come and go by themselves apart.
    losses: AddressLosses,
    /// Whether the tap's MTU is that of a template.
    mtu_is_of_template: bool,
    /// Addresses that the namespace is about to lose.
    parting: Parting,
    /// What the tap was called when it was configured.
    given_name: Option<String>,
}

/// What is to be remembered of one family.
#[derive(Clone, Debug, Default)]
struct FamilyState {
    tracker: Tracker,
    /// Since when the binding is of this kind and to this template.
    since: Instant,
    wanted: Option<Wanted>,
    /// Since when the template has no default route though it had one.
    default_lost: Option<Instant>,
    /// Addresses of templates that were left, the first ones first, and until when they stay whatever the
    /// host has; after that as long as the host has them.
    lingering: Vec<(WantedAddress, Option<Instant>)>,
    declined_addresses: Vec<WantedAddress>,
    declined_routes: Vec<WantedRoute>,
    users_default: UsersDefault,
}

/// Whether the namespace's users have a default route of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum UsersDefault {
    #[default]
    Absent,
    Present,
    GoneSince(Instant),
}

impl State {
    /// The state at start, with the first reading of the host.
    pub fn start(policy: Policy, host: HostView) -> Self {
        let gone = BTreeSet::new();
        let families = PerFamily::each(|family| {
            let now = Instant::START;
            let at = Situation { now, host: &host, gone: &gone, policy: &policy, family };
            let tracker = Tracker::start(at);
            FamilyState { tracker, ..FamilyState::default() }
        });
        let mut state = Self {
            policy,
            host,
            families,
            left: None,
            users_prefixes: Vec::new(),
            mtu: None,
            began_local: false,
            transitions: 0,
            losses: AddressLosses::default(),
            mtu_is_of_template: false,
            parting: Parting::default(),
            given_name: None,
        };
        let bound = |it| matches!(state.families.get(it).tracker.binding(), Binding::Bound(_));
        state.began_local = !Family::BOTH.into_iter().any(bound);
        for family in Family::BOTH {
            state.want(Instant::START, family, None);
        }
        state
    }

    /// The command line.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The host as it was read last.
    pub fn host(&self) -> &HostView {
        &self.host
    }

    /// The bindings.
    pub fn bindings(&self) -> PerFamily<Binding> {
        PerFamily::each(|family| self.families.get(family).tracker.binding().clone())
    }

    /// The name that was asked for (`-i`) and the present name of the template, where they differ: it was
    /// renamed, and is the template all the same.
    pub fn renamed_template(&self) -> Option<(&str, &str)> {
        let names = |family| match self.families.get(family).tracker.binding() {
            Binding::Bound(template) => {
                let asked = self.policy.template(family)?.as_str();
                let link = self.host().links.get(&template.index);
                let is_present = link.is_some_and(|link| link.is_called(asked));
                (!is_present).then_some((asked, template.name.as_str()))
            }
            _ => None,
        };
        Family::BOTH.into_iter().filter_map(names).find(|(asked, name)| asked != name)
    }

    /// Since when the binding of `family` is of its kind and to its template.
    pub fn since(&self, family: Family) -> Instant {
        self.families.get(family).since
    }

    /// How often the binding of a family has changed.
    pub fn transitions(&self) -> u64 {
        self.transitions
    }

    /// What the namespace is configured to use of `family`.
    pub fn assigned(&self, family: Family) -> Option<&Assigned> {
        self.families.get(family).wanted.as_ref().map(|it| &it.assigned)
    }

    /// Whether the default route of `family` is left to the namespace's users.
    pub fn users_have_default(&self, family: Family) -> bool {
        self.families.get(family).users_default != UsersDefault::Absent
    }

    /// The namespace as we left it.
    pub fn left(&self) -> Option<&NamespaceView> {
        self.left.as_ref()
    }

    /// Forgets what users have removed: it was asked for that all be as it should.
    pub fn forget_declined(&mut self) {
        for family in Family::BOTH {
            let state = self.families.get_mut(family);
            state.declined_addresses.clear();
            state.declined_routes.clear();
        }
    }

    /// Whether any family has a template.
    pub fn is_bound(&self) -> bool {
        let binding = |family| self.families.get(family).tracker.binding();
        Family::BOTH.into_iter().any(|it| matches!(binding(it), Binding::Bound(_)))
    }

    /// Until when readiness waits for a first template; none once there is one, or where nothing is
    /// followed.
    pub fn bind_deadline(&self) -> Option<Instant> {
        let waits = self.policy.follows() && !self.is_bound();
        waits.then(|| Instant::START + self.policy.bind_wait())
    }

    /// When to look again, if nothing happens before; with `readiness` that waits for a template too. It may be in
    /// the past: what is due then has not been done yet, however late it is.
    pub fn wakes_at(&self, readiness: Readiness) -> Option<Instant> {
        let ready = self.bind_deadline().filter(|_| readiness == Readiness::Awaited);
        [self.next_deadline(), self.parting.due(), ready].into_iter().fold(None, earliest)
    }

    /// How many times the host has lost addresses, of whatever interface: sockets that send from them
    /// are to be looked at.
    pub fn losses(&self) -> AddressLosses {
        self.losses
    }

    /// Takes in what happened by `now`, and says which transitions that made.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Change> {
        let mut gone = BTreeSet::new();
        match event {
            Event::HostRead { host, gone: deleted } => {
                if has_lost_addresses(&self.host, &host) {
                    self.losses = self.losses.next();
                }
                self.host = *host;
                gone = deleted;
            }
            Event::NamespaceRead { view, flushed } => {
                let had = PerFamily::each(|family| self.users_have_default(family));
                self.look_at_users(now, &view, flushed);
                let come = |family: &Family| self.users_have_default(*family) && !*had.get(*family);
                let binding = |family| self.families.get(family).tracker.binding();
                let left_alone = |family| Change::left_alone(family, binding(family));
                return Family::BOTH.into_iter().filter(come).filter_map(left_alone).collect();
            }
            Event::Configured(view) => {
                self.mtu = self.wanted_mtu().or(self.mtu);
                self.mtu_is_of_template |= self.is_bound();
                self.given_name.get_or_insert_with(|| view.tap.name.clone());
                self.left = Some(*view);
                return Vec::new();
            }
            Event::DeadlineReached => {}
        }
        let mut changes = Vec::new();
        for family in Family::BOTH {
            let before = self.families.get(family).clone();
            let at = Situation { now, host: &self.host, gone: &gone, policy: &self.policy, family };
            let moved = self.families.get_mut(family).tracker.advance(at);
            if !before.tracker.binding().is_like(self.families.get(family).tracker.binding()) {
                self.families.get_mut(family).since = now;
                self.transitions += 1;
            }
            self.want(now, family, moved);
            let after = self.families.get(family);
            changes.extend(Change::between(
                family,
                (before.tracker.binding(), before.wanted.as_ref()),
                (after.tracker.binding(), after.wanted.as_ref()),
                moved.map(|(reason, _)| reason),
                self.policy.hold(),
            ));
        }
        changes
    }

    /// The addresses that the namespace is about to lose.
    pub fn parting(&self) -> &Parting {
        &self.parting
    }

    /// As [`State::parting`], to be changed.
    pub fn parting_mut(&mut self) -> &mut Parting {
        &mut self.parting
    }

    /// The host's links whose addresses stay in the namespace although another one is the template.
    pub fn left_links(&self) -> BTreeSet<u32> {
        let all = Family::BOTH.into_iter().flat_map(|family| &self.families.get(family).lingering);
        let stays: BTreeSet<_> = all.map(|(it, _)| it.prefix.address()).collect();
        let of_host = self.host.addresses.iter();
        of_host.filter(|it| stays.contains(&it.prefix.address())).map(|it| it.link).collect()
    }

    /// Whether the namespace was configured before.
    pub fn is_configured(&self) -> bool {
        self.left.is_some()
    }

    /// When to look at it again, if nothing happens before; never where nothing is followed.
    pub fn next_deadline(&self) -> Option<Instant> {
        if !self.policy.follows() {
            return None;
        }
        let hold = self.policy.hold();
        let settle = self.policy.settle();
        let of_family = |it: &FamilyState| {
            let lingering = it.lingering.iter().filter_map(|(_, until)| *until).min();
            let default = it.default_lost.and_then(|since| Some(since + hold?));
            let users = match it.users_default {
                UsersDefault::GoneSince(since) => Some(since + settle),
                UsersDefault::Absent | UsersDefault::Present => None,
            };
            let rest = earliest(earliest(lingering, default), users);
            earliest(it.tracker.next_deadline(), rest)
        };
        earliest(of_family(&self.families.v4), of_family(&self.families.v6))
    }

    /// What the namespace should look like, on a tap of the link-layer address `tap_mac`.
    pub fn desired(&self, tap_mac: MacAddr) -> Desired {
        let mtu = self.wanted_mtu();
        let wanted = PerFamily::each(|family| self.families.get(family).with_lingering());
        let mut desired = joined(wanted, uses_ipv6(&self.policy, mtu), tap_mac);
        for family in Family::BOTH {
            let state = self.families.get(family);
            desired.addresses.retain(|it| {
                !state.declined_addresses.iter().any(|declined| declined.prefix == it.prefix)
            });
            desired.routes.retain(|it| !state.declined_routes.contains(it));
            *desired.leave_default.get_mut(family) = state.users_default != UsersDefault::Absent;
        }
        // What a route needs may have been declined.
        if self.has_declined() {
            let ours = neighbourhood(&desired.addresses, &desired.routes);
            let on_link: Vec<_> = ours.chain(self.users_prefixes.iter().copied()).collect();
            let reachable = |it: &WantedRoute| {
                it.onlink || it.gateway.is_none_or(|router| is_neighbour(router, &on_link))
            };
            desired.routes.retain(reachable);
        }
        // Whether the tap is up is its users' affair once it was configured, and so is its MTU once
        // they have changed it.
        desired.up = self.left.is_none();
        let users_mtu = || self.left.as_ref().map(|it| it.tap.mtu) != self.mtu.map(u16_of);
        desired.offered_mtu = mtu;
        desired.mtu =
            mtu.filter(|mtu| self.left.is_none() || (self.mtu != Some(*mtu) && !users_mtu()));
        desired
    }

    /// The name the tap should get now that there is a first template, if it is to get one.
    pub fn late_name(&self) -> Option<IfName> {
        let renames = self.policy.following.rename == Rename::Auto;
        if !renames || !self.began_local || self.policy.tap_name.is_some() || !self.is_bound() {
            return None;
        }
        let names = Family::BOTH.into_iter().find_map(|family| {
            match self.families.get(family).tracker.binding() {
                Binding::Bound(template) => Some(template.name.clone()),
                _ => None,
            }
        });
        names.and_then(|name| IfName::try_from(name).ok())
    }

    /// Destinations of all routes that the namespace may have of us.
    pub fn destinations(&self) -> BTreeSet<Prefix> {
        let of_family = |family| {
            let state = self.families.get(family);
            let wanted = state.wanted.iter().flat_map(|it| &it.routes);
            wanted.chain(&state.declined_routes).map(|it| it.destination)
        };
        Family::BOTH.into_iter().flat_map(of_family).collect()
    }

    /// Whether the tap may get the name of a template yet.
    pub fn may_name_tap(&self) -> bool {
        self.began_local
    }

    /// Whether the tap has another name than it was given: that of its users.
    pub fn users_have_named(&self, tap: &str) -> bool {
        self.given_name.as_ref().is_some_and(|given| given != tap)
    }

    /// The tap was renamed, or could not be; that is tried once.
    pub fn name_is_decided(&mut self) {
        self.began_local = false;
    }

    fn has_declined(&self) -> bool {
        let any =
            |it: &FamilyState| !it.declined_addresses.is_empty() || !it.declined_routes.is_empty();
        any(&self.families.v4) || any(&self.families.v6)
    }

    fn wanted_mtu(&self) -> Option<Mtu> {
        if !self.policy.follows_mtu() {
            return self.policy.mtu;
        }
        let frozen = matches!(self.policy.following.follow, Follow::Once | Follow::Off);
        if frozen && self.mtu_is_of_template {
            return self.mtu;
        }
        let of_template = Family::BOTH.into_iter().find_map(|family| {
            match self.families.get(family).tracker.binding() {
                Binding::Bound(template) | Binding::Held(template, ..) => {
                    let link = self.host.links.get(&template.index).filter(|_| !template.gone);
                    link.map(|link| link.mtu)
                }
                Binding::Off | Binding::Local => None,
            }
        });
        let ipv6 = self.policy.serves(Family::V6);
        of_template.map(|it| mtu_like(it, ipv6)).or(self.mtu).or(self.policy.mtu)
    }

    /// Decides what the tap should have of `family`.
    fn want(&mut self, now: Instant, family: Family, moved: Option<(Reason, Move)>) {
        let policy = &self.policy;
        let state = self.families.get_mut(family);
        if let UsersDefault::GoneSince(since) = state.users_default {
            if now >= since + policy.settle() {
                state.users_default = UsersDefault::Absent;
            }
        }
        let before = state.wanted.take();
        let fresh = |template, before| wanted(&self.host, policy, family, template, before);
        let frozen = matches!(policy.following.follow, Follow::Once | Follow::Off);
        let next = match state.tracker.binding() {
            Binding::Off => None,
            Binding::Local => Some(fresh(None, None)),
            // The last good configuration, unchanged.
            Binding::Held(..) if before.is_some() => before.clone(),
            Binding::Bound(_) if frozen && moved.is_none() && before.is_some() => before.clone(),
            Binding::Bound(template) | Binding::Held(template, ..) => {
                let same =
                    matches!(moved, None | Some((Reason::AddressChanged | Reason::Returned, _)));
                let same = before.as_ref().filter(|_| same);
                let mut next = fresh(Some(template), same);
                let lost = same.filter(|it| it.has_default() && !next.has_default());
                match lost {
                    None => state.default_lost = None,
                    Some(had) => {
                        let since = *state.default_lost.get_or_insert(now);
                        if policy.hold().is_none_or(|hold| now < since + hold) {
                            next.keep_default(had);
                        } else {
                            state.default_lost = None;
                        }
                    }
                }
                Some(next)
            }
        };
        if let Some((_, Move::Voluntary)) = moved {
            let until = Some(now + policy.linger());
            let left = before.iter().flat_map(|it| &it.addresses);
            state.lingering.extend(left.map(|it| (it.with_deprecated(true), until)));
        }
        // The host's own connections live as long as their address does, and so are the namespace's to.
        let host = &self.host;
        state.lingering.retain_mut(|(it, until)| {
            *until = until.filter(|until| now < *until);
            until.is_some() || host.has_address(it.prefix.address())
        });
        // One that is the template's again does not stay for having been left.
        let wants = |it: &WantedAddress| {
            let mut all = next.iter().flat_map(|it| &it.addresses);
            all.any(|wanted| wanted.prefix.address() == it.prefix.address())
        };
        state.lingering.retain(|(it, _)| !wants(it));
        let surplus = state.lingering.len().saturating_sub(MAX_ADDRESSES);
        state.lingering.drain(..surplus);
        if !matches!(state.tracker.binding(), Binding::Bound(_)) {
            state.default_lost = None;
        }
        // What was declined is so until the host's side of it, or the binding, changes.
        let none = Wanted::default();
        let kept = next.as_ref().filter(|_| moved.is_none()).unwrap_or(&none);
        state.declined_addresses.retain(|it| {
            // The tap's own link-local address is of no template.
            is_link_local(it.prefix.address())
                || kept.addresses.iter().any(|kept| kept.prefix == it.prefix)
        });
        let key = |it: &WantedRoute| (it.destination, it.metric, it.gateway);
        state.declined_routes.retain(|it| kept.routes.iter().any(|kept| key(kept) == key(it)));
        state.wanted = next;
    }

    /// Learns from what the namespace has what its users want left to them.
    fn look_at_users(&mut self, now: Instant, view: &NamespaceView, flushed: Flushed) {
        for family in Family::BOTH {
            let state = self.families.get_mut(family);
            state.users_default = match state.users_default {
                _ if view.has_foreign_default(family) => UsersDefault::Present,
                UsersDefault::Present => UsersDefault::GoneSince(now),
                before => before,
            };
        }
        let theirs = view.addresses.iter().filter(|it| it.on_tap && it.owner == Owner::Foreign);
        self.users_prefixes = theirs.map(|it| it.address.prefix).collect();
        let Some(left) = &self.left else { return };
        let was_down = flushed.tap_was_down || !view.tap.up || !left.tap.up;
        if was_down {
            return;
        }
        let ipv6_flushed = kernel_has_flushed_ipv6(view, flushed);
        let by_kernel = |family| family == Family::V6 && ipv6_flushed;
        let on_link: Vec<_> = view.addresses.iter().filter(|it| it.on_tap).collect();
        for address in left.our_addresses().filter(|it| !by_kernel(it.prefix.family())) {
            let state = self.families.get_mut(address.prefix.family());
            let there = view.has_address(address.prefix.address());
            let with_primary = !there && went_with_its_primary(&address, left, view);
            if !there && !with_primary && !state.declined_addresses.contains(&address) {
                state.declined_addresses.push(address);
            }
        }
        for route in left.our_routes().filter(|it| !by_kernel(it.destination.family())) {
            let family = route.destination.family();
            let state = self.families.get_mut(family);
            let there = view.our_routes().any(|it| it == route);
            let prefixes: Vec<_> = on_link.iter().map(|it| it.address.prefix).collect();
            let supported =
                route.onlink || route.gateway.is_none_or(|router| is_neighbour(router, &prefixes));
            // One that gave way to the users' own returns when theirs goes.
            let replaced = route.destination.is_everything() && view.has_foreign_default(family);
            if !there && supported && !replaced && !state.declined_routes.contains(&route) {
                state.declined_routes.push(route);
            }
        }
        // What is there again is not declined.
        for family in Family::BOTH {
            let state = self.families.get_mut(family);
            state.declined_addresses.retain(|it| !view.our_addresses().any(|there| there == *it));
            state.declined_routes.retain(|it| !view.our_routes().any(|there| there == *it));
        }
    }
}

impl FamilyState {
    /// What is wanted, with the addresses that stay for a while.
    fn with_lingering(&self) -> Option<Wanted> {
        let mut wanted = self.wanted.clone()?;
        for (address, _) in &self.lingering {
            let same = |it: &WantedAddress| it.prefix.address() == address.prefix.address();
            if !wanted.addresses.iter().any(same) {
                wanted.addresses.push(*address);
            }
        }
        Some(wanted)
    }
}

fn has_lost_addresses(before: &HostView, after: &HostView) -> bool {
    let there: BTreeSet<IpAddr> = after.addresses.iter().map(|it| it.prefix.address()).collect();
    let lost = |it: &Address| !it.temporary && !there.contains(&it.prefix.address());
    before.addresses.iter().any(lost)
}

/// Whether the kernel has taken all of IPv6 off the tap, as it does when IPv6 is switched off there or
/// the MTU is too small for it. When that is over it makes the link-local address anew, which one that
/// users have deleted is not.
fn kernel_has_flushed_ipv6(view: &NamespaceView, flushed: Flushed) -> bool {
    let is_link_local = |it: &FoundAddress| {
        it.on_tap && it.address.prefix.family() == Family::V6 && is_link_local(it.ip())
    };
    view.tap.without_ipv6 || flushed.link_local_went && view.addresses.iter().any(is_link_local)
}

/// Whether an address went because the first of its subnet did, which nobody has taken the place of.
fn went_with_its_primary(
    address: &WantedAddress,
    left: &NamespaceView,
    view: &NamespaceView,
) -> bool {
    let prefix = address.prefix;
    let is_primary = |it: &WantedAddress| {
        it.prefix.network() == prefix.network() && it.prefix.bits() == prefix.bits()
    };
    let primary = left.our_addresses().find(is_primary);
    prefix.family() == Family::V4
        && view.tap.promotes_secondaries == Some(false)
        && primary.is_some_and(|it| it.prefix != prefix && !view.has_address(it.prefix.address()))
}

fn u16_of(mtu: Mtu) -> u32 {
    mtu.get().into()
}

#[cfg(test)]
mod tests;
