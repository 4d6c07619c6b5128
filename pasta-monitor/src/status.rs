#![forbid(unsafe_code)]
//! How things stand, in lines for the log: what SIGUSR1 asks for.
//!
//! ```text
//! family  state  template  since  primary          gateway       source
//! IPv4    bound  eth0(5)   41 s   198.51.100.9/24  198.51.100.1  host
//! IPv6    held   wlan0(3)  4 s    2001:db8::7/64   fe80::1       host (local in 6 s: carrier lost)
//! tap     eth0(2), up, mtu 65520, ours: 2 addresses 3 routes, foreign: 0 addresses 1 route
//! monitor live, gen 7, events: used 31 ignored 781 bad 0, overruns 1, resyncs 1, looks 33, ...
//! policy  follow roam, settle 1000 ms, hold 10000 ms, linger 30000 ms, tunnels avoid, pinned: none
//! candidates IPv4: eth0(5) metric 100, wlan0(3) metric 600; not: docker0(4) bridge
//! ```

use crate::bind::Binding;
use crate::candidate::{Named, Stopgaps, candidates, plausible, usable};
use crate::host::HostView;
use crate::namespace::{NamespaceView, Owner};
use crate::net::is_link_local;
use crate::policy::Policy;
use crate::record::{Link, LinkKind};
use crate::reduce::State;
use crate::time::Instant;
use pasta_ipc::start::{Follow, Tunnels};
use pasta_ipc::status::{EventCounts, FamilyStatus, NetworkStatus, TapStatus};
use pasta_ipc::types::{Bounded, Family, FamilyState, Generation, Text};
use std::time::Duration;

/// Links that are listed of each family; what is beyond is counted.
const LISTED: usize = 12;

pub use pasta_ipc::status::Health;

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events that changed the view.
    pub used: u64,
    /// Events that were none; those that the kernel's filter drops are not known.
    pub ignored: u64,
    /// Messages that could not be read.
    pub bad: u64,
    /// How often events were lost.
    pub overruns: u64,
    /// How often all was read again because of that, or because it was asked for.
    pub resyncs: u64,
    /// How often the host was read.
    pub looks: u64,
    /// How long it took from the last event of a change until all was done, the last time.
    pub last_apply: Duration,
    /// And the longest.
    pub max_apply: Duration,
}

impl Counters {
    /// A change took so long.
    pub fn applied(&mut self, took: Duration) {
        self.last_apply = took;
        self.max_apply = self.max_apply.max(took);
    }
}

/// What the status is made of, beside the state.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The moment.
    pub now: Instant,
    /// How the host is watched.
    pub health: Health,
    /// What has happened.
    pub counters: Counters,
    /// Number of the newest snapshot.
    pub generation: u64,
}

/// How things stand.
pub fn lines(state: &State, facts: &Facts) -> Vec<String> {
    let mut lines =
        vec![row(["family", "state", "template", "since", "primary", "gateway", "source"])];
    lines.extend(Family::BOTH.into_iter().map(|it| of_family(state, facts.now, it)));
    lines.push(state.left().map_or_else(|| "tap     not configured".to_owned(), of_tap));
    lines.push(of_monitor(facts));
    lines.push(of_policy(state.policy()));
    for family in Family::BOTH.into_iter().filter(|it| state.policy().serves(*it)) {
        let candidates = candidates_of(state.host(), state.policy(), family);
        lines.push(format!("candidates {family}: {candidates}"));
    }
    lines
}

fn row<T: AsRef<str>>(fields: [T; 7]) -> String {
    let [family, name, template, since, primary, gateway, source] = fields;
    let (family, name, template) = (family.as_ref(), name.as_ref(), template.as_ref());
    let (since, primary) = (since.as_ref(), primary.as_ref());
    let (gateway, source) = (gateway.as_ref(), source.as_ref());
    format!("{family:<7} {name:<6} {template:<12} {since:<7} {primary:<24} {gateway:<16} {source}")
}

/// How things stand, for programs.
pub fn network(state: &State, facts: &Facts) -> NetworkStatus {
    let Counters { used, ignored, bad, overruns, resyncs, looks, last_apply, max_apply } =
        facts.counters;
    let us = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    NetworkStatus {
        generation: Generation(facts.generation),
        health: facts.health,
        ipv4: family_status(state, facts.now, Family::V4),
        ipv6: family_status(state, facts.now, Family::V6),
        tap: state.left().map(|view| TapStatus {
            name: Text::truncated(&view.tap.name.to_string()),
            up: view.tap.up,
            mtu: view.tap.mtu,
        }),
        events: EventCounts {
            used,
            ignored,
            bad,
            overruns,
            resyncs,
            looks,
            transitions: state.transitions(),
            last_apply_us: us(last_apply),
            max_apply_us: us(max_apply),
        },
    }
}

fn family_status(state: &State, now: Instant, family: Family) -> FamilyStatus {
    let (of_family, template, source) = state_of(state, now, family);
    let assigned = state.assigned(family);
    let addresses = assigned.into_iter().flat_map(|it| &it.addresses);
    let addresses = addresses.map(|it| Text::truncated(&it.prefix.to_string()));
    FamilyStatus {
        state: of_family,
        template: template.map(|it| Text::truncated(&it)),
        since_s: now.since(state.since(family)).as_secs(),
        addresses: Bounded::truncated(addresses).0,
        gateway: assigned.and_then(|it| it.gateway),
        source: Text::truncated(&source),
    }
}

/// The binding of a family, its template's name and number, and where that comes from.
fn state_of(state: &State, now: Instant, family: Family) -> (FamilyState, Option<String>, String) {
    let bindings = state.bindings();
    let policy = state.policy().families.get(family);
    let (of_family, template, mut source) = match bindings.get(family) {
        Binding::Off => (FamilyState::Off, None, String::new()),
        Binding::Local => (FamilyState::Local, None, "local mode".to_owned()),
        Binding::Bound(template) => (FamilyState::Bound, Some(template), "host".to_owned()),
        Binding::Held(template, why, since) => {
            let left = |hold: Duration| (*since + hold).since(now).as_secs();
            let until = state
                .policy()
                .hold()
                .map_or("kept".to_owned(), |hold| format!("local in {} s", left(hold)));
            (FamilyState::Held, Some(template), format!("host ({until}: {why})"))
        }
    };
    if !policy.addresses.is_empty() || policy.gateway.is_some() {
        source = format!("{source}, options");
    }
    if state.users_have_default(family) {
        source = format!("{source}, default route is the namespace's own");
    }
    let template = template.map(|it| format!("{}({})", it.name, it.index));
    (of_family, template, source)
}

fn of_family(state: &State, now: Instant, family: Family) -> String {
    let (of_family, template, source) = state_of(state, now, family);
    let assigned = state.assigned(family);
    let primary = assigned.and_then(|it| it.addresses.first()).map(|it| it.prefix.to_string());
    let gateway = assigned.and_then(|it| it.gateway).map(|it| it.to_string());
    let none = || "-".to_owned();
    row([
        family.to_string(),
        of_family.name().to_owned(),
        template.unwrap_or_else(none),
        format!("{} s", now.since(state.since(family)).as_secs()),
        primary.unwrap_or_else(none),
        gateway.unwrap_or_else(none),
        source,
    ])
}

fn of_tap(view: &NamespaceView) -> String {
    let tap = &view.tap;
    let up = if tap.up { "up" } else { "down" };
    let count = |owner| {
        // What the kernel makes by itself is nobody's.
        let addresses = view.addresses.iter().filter(|it| {
            it.on_tap && it.owner == owner && (owner == Owner::Ours || !is_link_local(it.ip()))
        });
        let routes =
            view.routes.iter().filter(|it| it.on_tap && it.owner == owner && !it.of_kernel);
        format!("{} addresses {} routes", addresses.count(), routes.count())
    };
    let (ours, foreign) = (count(Owner::Ours), count(Owner::Foreign));
    format!(
        "tap     {}({}), {up}, mtu {}, ours: {ours}, foreign: {foreign}",
        tap.name, tap.index, tap.mtu
    )
}

fn of_monitor(facts: &Facts) -> String {
    let Facts { health, counters, generation, .. } = facts;
    let Counters { used, ignored, bad, overruns, resyncs, looks, last_apply, max_apply } = counters;
    let (last, max) = (last_apply.as_millis(), max_apply.as_millis());
    let health = match health {
        Health::Live => "live",
        Health::Resync => "resync",
        Health::Poll => "poll",
        Health::Blind => "blind",
        Health::Off => "off",
    };
    format!(
        "monitor {health}, gen {generation}, events: used {used} ignored {ignored} bad {bad}, \
         overruns {overruns}, resyncs {resyncs}, looks {looks}, last apply {last} ms, max {max} ms"
    )
}

fn of_policy(policy: &Policy) -> String {
    let follow = match policy.following.follow {
        Follow::Roam => "roam",
        Follow::Sticky => "sticky",
        Follow::Once => "once",
        Follow::Off => "off",
    };
    let tunnels = match policy.following.tunnels {
        Tunnels::Avoid => "avoid",
        Tunnels::Allow => "allow",
        Tunnels::Never => "never",
    };
    let mut pinned = Vec::new();
    for family in Family::BOTH {
        let asked = policy.families.get(family);
        if !asked.addresses.is_empty() {
            pinned.push(format!("{family} addresses"));
        }
        if asked.gateway.is_some() {
            pinned.push(format!("{family} gateway"));
        }
        if let Some(name) = &asked.template {
            pinned.push(format!("{family} template {name}"));
        }
    }
    if let Some(name) = &policy.tap_name {
        pinned.push(format!("tap name {name}"));
    }
    let pinned = if pinned.is_empty() { "none".to_owned() } else { pinned.join(", ") };
    let hold = policy.hold().map_or("inf".to_owned(), |it| format!("{} ms", it.as_millis()));
    let (settle, linger) = (policy.settle().as_millis(), policy.linger().as_millis());
    format!(
        "policy  follow {follow}, settle {settle} ms, hold {hold}, linger {linger} ms, \
         tunnels {tunnels}, pinned: {pinned}"
    )
}

/// Which links could be the template of `family`, and why the others could not.
pub fn candidates_of(host: &HostView, policy: &Policy, family: Family) -> String {
    let found = candidates(host, policy, family, Stopgaps::Wait);
    let name = |link: &Link| format!("{}({})", link.name, link.index);
    let eligible = found.iter().map(|it| format!("{} {}", name(it.link), it.rank));
    let is_found = |link: &&Link| found.iter().any(|it| it.link.index == link.index);
    let others = host.links.values().filter(|link| !link.loopback && !is_found(link));
    let others = others.map(|it| format!("{} {}", name(it), why_not(host, policy, family, it)));
    let (eligible, others) = (some_of(eligible), some_of(others));
    format!("{eligible}; not: {others}")
}

/// The first of a list, and how many more there are.
fn some_of(list: impl Iterator<Item = String>) -> String {
    let all: Vec<_> = list.collect();
    let more = all.len().saturating_sub(LISTED);
    match all.get(..LISTED.min(all.len())).unwrap_or_default() {
        [] => "none".to_owned(),
        some if more == 0 => some.join(", "),
        some => format!("{} and {more} more", some.join(", ")),
    }
}

/// Why a link is no candidate.
fn why_not(host: &HostView, policy: &Policy, family: Family, link: &Link) -> &'static str {
    let named = policy.template(family).map(|it| it.as_str() == link.name);
    match named {
        Some(false) => "not named",
        _ if !link.up => "down",
        None if link.enslaved => "enslaved",
        None if !plausible(link) => "no carrier",
        _ if usable(host, link.index, family, Named::of(policy, family), Stopgaps::Take)
            .is_empty() =>
        {
            "no usable address"
        }
        _ if candidates(host, policy, family, Stopgaps::Take)
            .iter()
            .any(|it| it.link.index == link.index) =>
        {
            "address not proven unique yet"
        }
        _ if link.kind == LinkKind::Tunnel && policy.following.tunnels == Tunnels::Never => {
            "tunnel"
        }
        _ if link.kind == LinkKind::Bridge => "bridge without default route",
        _ if link.kind == LinkKind::Dummy => "dummy without default route",
        _ => "no default route",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Host;
    use crate::policy::testing::plain;
    use crate::reduce::Event;
    use std::collections::BTreeSet;

    fn host() -> Host {
        Host::default()
            .link_with(1, "lo", |link| link.loopback = true)
            .link(5, "eth0")
            .address(5, "198.51.100.9/24")
            .route(5, "0.0.0.0/0", "198.51.100.1", 100)
            .link(3, "wlan0")
            .address(3, "192.0.2.7/24")
            .route(3, "0.0.0.0/0", "192.0.2.1", 600)
            .link_with(4, "docker0", |link| link.kind = LinkKind::Bridge)
            .address(4, "172.17.0.1/16")
    }

    fn facts(seconds: u64) -> Facts {
        let now = Instant::START + Duration::from_secs(seconds);
        Facts { now, health: Health::Live, counters: Counters::default(), generation: 7 }
    }

    fn squeezed(lines: &[String]) -> Vec<String> {
        lines.iter().map(|it| it.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn every_family_and_every_link_that_was_not_chosen_is_listed_with_its_reason() {
        let state = State::start(plain(), host().0);
        let lines = squeezed(&lines(&state, &facts(41)));
        assert_eq!(lines[1], "IPv4 bound eth0(5) 41 s 198.51.100.9/24 198.51.100.1 host");
        assert_eq!(lines[2], "IPv6 local - 41 s - fe80::1 local mode");
        assert!(lines[4].starts_with("monitor live, gen 7, events: used 0 "), "{}", lines[4]);
        let policy = "policy follow roam, settle 1000 ms, hold 10000 ms, linger 30000 ms, \
                      tunnels avoid, pinned: none";
        assert_eq!(lines[5], policy);
        let wanted = "candidates IPv4: eth0(5) metric 100, wlan0(3) metric 600; \
                      not: docker0(4) bridge without default route";
        assert_eq!(lines[6], wanted);
        assert!(lines[7].starts_with("candidates IPv6: none; not: wlan0(3) no usable address"));
    }

    #[test]
    fn what_is_held_says_why_and_for_how_long() {
        let mut state = State::start(
            plain(),
            Host::default()
                .link(3, "wlan0")
                .address(3, "192.0.2.7/24")
                .route(3, "0.0.0.0/0", "192.0.2.1", 600)
                .0,
        );
        let lost = Host::default().link_with(3, "wlan0", |link| link.carrier = false).0;
        let event = Event::HostRead { host: Box::new(lost), gone: BTreeSet::new() };
        state.handle(facts(5).now, event);
        let lines = squeezed(&lines(&state, &facts(9)));
        let wanted =
            "IPv4 held wlan0(3) 4 s 192.0.2.7/24 192.0.2.1 host (local in 6 s: carrier lost)";
        assert_eq!(lines[1], wanted);
    }

    #[test]
    fn lists_are_cut_and_lines_fit_their_message() {
        let mut host = host();
        for index in 100..400 {
            host = host.link(index, &format!("interface{index}"));
        }
        let state = State::start(plain(), host.0);
        let all = lines(&state, &facts(0));
        let candidates = all.iter().find(|it| it.starts_with("candidates IPv4")).unwrap();
        assert!(candidates.ends_with(" more"), "{candidates}");
        assert!(all.len() < 64);
    }
}
