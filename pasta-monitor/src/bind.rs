#![forbid(unsafe_code)]
//! Which interface is the template, over time: the state of each family and its transitions.
//!
//! ```text
//!             candidate appears                 last usable address / link / interface lost
//!    Local ───────────────────────► Bound ──────────────────────────────────────► Held
//!      ▲                             │  ▲ ▲                                         │ │
//!      │                  better one │  │ └─────────── usable again ────────────────┘ │
//!      │                   (settled) └──┘ ◄─────────── other candidate ───────────────┤
//!      └───────────────────────────────── hold time over ─────────────────────────────┘
//! ```
//!
//! The states are stored facts and never concluded from names. A template is known by its index; a
//! link that was deleted and made again is another one, even with the same index or name, unless the
//! template is bound to its name (`-i`, or `--follow sticky`).
//!
//! A change without need, to a candidate that is only better, waits until the wish has lasted the
//! settle time. Where the host flaps, that time doubles: after three moves within a minute, up to half
//! a minute, until a minute passes without a wish. A loss is never delayed.

use crate::candidate::{Candidate, Named, Stopgaps, candidates, plausible, rank_of, usable};
use crate::host::HostView;
use crate::policy::Policy;
use crate::record::{Link, LinkKind};
use crate::time::{Instant, earliest};
use pasta_ipc::start::Follow;
use pasta_ipc::types::Family;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Moves within [`FLAPPING_SPAN`] from which on the settle time doubles.
const FLAPPING_MOVES: usize = 3;
/// Span in which moves are counted, and after which without a wish all is forgotten.
const FLAPPING_SPAN: Duration = Duration::from_secs(60);
/// Longest settle time that doubling leads to.
const MAX_SETTLE: Duration = Duration::from_secs(30);

/// How long a stable address may take to be proven unique before another of its link is taken. Chosen: with
/// the usual settings it takes two seconds at most (RFC 4862, sections 5.1 and 5.4.2).
const LONGEST_PROOF: Duration = Duration::from_secs(5);

/// The binding of one family to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// The family is not served.
    Off,
    /// There is no template: the namespace talks to the host only.
    #[default]
    Local,
    /// A template's addresses and routes are reproduced.
    Bound(Template),
    /// The template is lost and there is no other; its last good configuration is kept.
    Held(Template, Loss, Instant),
}

impl Binding {
    /// Whether `other` is a binding of the same kind to the same interface.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bound(one), Self::Bound(other))
            | (Self::Held(one, ..), Self::Held(other, ..)) => one.index == other.index,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}

/// The host interface that the namespace imitates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its index on the host, which decisions use.
    pub index: u32,
    /// Its name, for logs and for naming the tap.
    pub name: String,
    /// What kind of device it is.
    pub kind: LinkKind,
    /// The address that stands for the family.
    pub primary: IpAddr,
    /// Whether it was deleted: a link of its index is another one.
    pub gone: bool,
}

/// Why a template is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The interface is gone.
    Gone,
    /// It was taken down.
    Down,
    /// It has no carrier.
    Carrier,
    /// It was made a part of a bridge, bond or the like.
    Enslaved,
    /// It has no usable address.
    Address,
}

/// Why a family's state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A candidate appeared where there was none.
    LateBinding,
    /// The primary address is another one.
    AddressChanged,
    /// Another interface is better, and was for that long.
    Better(Duration),
    /// The template is lost.
    Lost(Loss),
    /// The lost template is usable again.
    Returned,
    /// The hold time is over.
    HoldOver,
}

/// What became of a family's template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The template is left though it could be used.
    Voluntary,
    /// The template is left because it cannot be used, or there was none.
    Needed,
}

/// One family's binding, and what has to be remembered to decide about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracker {
    binding: Binding,
    /// The better candidate, and since when it is that.
    wish: Option<(u32, Instant)>,
    /// The template that `--follow sticky` waits for.
    home: Option<Template>,
    moves: Vec<Instant>,
    doublings: u32,
    last_wish: Option<Instant>,
    /// Since when there are links whose better address is waited for.
    proof_awaited: Option<Instant>,
    deadline: Option<Instant>,
}

/// What a family is decided by.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The moment.
    pub now: Instant,
    /// What the host has.
    pub host: &'a HostView,
    /// Links that were deleted since the last time, by index; there may be others of that index now.
    pub gone: &'a BTreeSet<u32>,
    /// The command line.
    pub policy: &'a Policy,
    /// The family.
    pub family: Family,
}

impl Tracker {
    /// The state at start: bound at once if there is any candidate.
    pub fn start(at: Situation<'_>) -> Self {
        let mut tracker = Self::default();
        if !at.policy.serves(at.family) {
            tracker.binding = Binding::Off;
            return tracker;
        }
        let stopgaps = tracker.stopgaps(at);
        let found = candidates(at.host, at.policy, at.family, stopgaps);
        // Who will not leave it waits: one of several may be about to get a default route.
        let stays = matches!(at.policy.following.follow, Follow::Once | Follow::Sticky);
        if let Some(first) = found.first().filter(|_| !(stays && is_a_guess(&found))) {
            tracker.binding = Binding::Bound(Template::from(first));
        }
        tracker
    }

    /// The binding.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// When to look at it again, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes in what the host has at `at.now`, and says what changed.
    pub fn advance(&mut self, at: Situation<'_>) -> Option<(Reason, Move)> {
        self.deadline = None;
        match self.binding.clone() {
            Binding::Off => None,
            Binding::Local => self.bind_late(at),
            Binding::Bound(template) => self.keep_or_leave(at, template, None),
            Binding::Held(template, why, since) => {
                self.keep_or_leave(at, template, Some((why, since)))
            }
        }
    }

    fn bind_late(&mut self, at: Situation<'_>) -> Option<(Reason, Move)> {
        if at.policy.following.follow == Follow::Off {
            return None;
        }
        let stopgaps = self.stopgaps(at);
        let mut found = candidates(at.host, at.policy, at.family, stopgaps);
        if let Some(home) = &mut self.home {
            home.gone |= at.gone.contains(&home.index);
            let same = |it: &Link| it.index == home.index && !home.gone;
            found.retain(|it| same(it.link) || it.link.name == home.name);
        }
        let Some(first) = found.first() else {
            self.wish = None;
            return None;
        };
        // Of several that lead nowhere in particular, one may be about to get a default route.
        if is_a_guess(&found) {
            let due = self.wish_for(at, 0) + at.policy.settle();
            if at.now < due {
                self.deadline = earliest(self.deadline, Some(due));
                return None;
            }
        }
        self.binding = Binding::Bound(Template::from(first));
        (self.wish, self.home) = (None, None);
        Some((Reason::LateBinding, Move::Needed))
    }

    fn keep_or_leave(
        &mut self,
        at: Situation<'_>,
        template: Template,
        held: Option<(Loss, Instant)>,
    ) -> Option<(Reason, Move)> {
        if matches!(at.policy.following.follow, Follow::Once | Follow::Off) {
            return None;
        }
        let stopgaps = self.stopgaps(at);
        let mut found = candidates(at.host, at.policy, at.family, stopgaps);
        match template.look(at, stopgaps) {
            Ok(same) => {
                // What it has is no stopgap, since it is in use.
                if !found.iter().any(|it| it.link.index == same.index) {
                    found = candidates(at.host, at.policy, at.family, Stopgaps::Take);
                    let waits = candidates(at.host, at.policy, at.family, stopgaps);
                    found.retain(|it| it.link.index == same.index || waits.contains(it));
                }
                let reason = match held {
                    Some(_) => Some(Reason::Returned),
                    None if same.primary != template.primary => Some(Reason::AddressChanged),
                    None => None,
                };
                self.binding = Binding::Bound(same.clone());
                let moved = self.seek_better(at, &found, &same);
                moved.or(reason.map(|it| (it, Move::Needed)))
            }
            Err(loss) => {
                self.wish = None;
                let named = at.policy.template(at.family).is_some();
                let free = at.policy.following.follow == Follow::Roam || named;
                let (why, since) = held.unwrap_or((loss, at.now));
                let due = at.policy.hold().map(|hold| since + hold);
                let over = due.is_some_and(|due| at.now >= due);
                // Until then one that leads nowhere in particular is worse than what may return.
                let other = found.first().filter(|it| over || named || !it.rank.without_default);
                if let Some(other) = other.filter(|_| free) {
                    let other = Template::from(other);
                    let same = (&other.name, other.primary) == (&template.name, template.primary);
                    self.binding = Binding::Bound(other);
                    let reason = if same { Reason::Returned } else { Reason::Lost(loss) };
                    return Some((reason, Move::Needed));
                }
                if over {
                    self.binding = Binding::Local;
                    self.home = (!free).then_some(template);
                    return Some((Reason::HoldOver, Move::Needed));
                }
                self.deadline = earliest(self.deadline, due);
                let gone = template.gone || at.gone.contains(&template.index);
                self.binding = Binding::Held(Template { gone, ..template }, why, since);
                held.is_none().then_some((Reason::Lost(loss), Move::Needed))
            }
        }
    }

    /// Whether addresses are taken although better ones of their links are about to be proven unique.
    fn stopgaps(&mut self, at: Situation<'_>) -> Stopgaps {
        let found = |stopgaps| candidates(at.host, at.policy, at.family, stopgaps);
        if found(Stopgaps::Wait) == found(Stopgaps::Take) {
            self.proof_awaited = None;
            return Stopgaps::Wait;
        }
        let due = *self.proof_awaited.get_or_insert(at.now) + LONGEST_PROOF;
        if at.now >= due {
            return Stopgaps::Take;
        }
        self.deadline = earliest(self.deadline, Some(due));
        Stopgaps::Wait
    }

    /// Moves from a template that is usable to a better one, once that has been better for long enough.
    fn seek_better(
        &mut self,
        at: Situation<'_>,
        found: &[Candidate<'_>],
        template: &Template,
    ) -> Option<(Reason, Move)> {
        let free =
            at.policy.following.follow == Follow::Roam && at.policy.template(at.family).is_none();
        let ours = rank_of(found, template.index);
        // Without a default route on either side there is nothing to gain, but to leave a tunnel.
        let is_tunnel = |kind| kind == LinkKind::Tunnel;
        let is_better = |it: &&Candidate<'_>| {
            let leads_nowhere = ours.without_default && it.rank.without_default;
            let leaves_tunnel = is_tunnel(template.kind) && !is_tunnel(it.link.kind);
            it.link.index != template.index && it.rank < ours && (!leads_nowhere || leaves_tunnel)
        };
        let Some(best) = found.first().filter(is_better).filter(|_| free) else {
            self.wish = None;
            return None;
        };
        let needed = ours.without_default && !best.rank.without_default;
        if needed {
            self.binding = Binding::Bound(Template::from(best));
            self.wish = None;
            return Some((Reason::Better(Duration::ZERO), Move::Needed));
        }
        let since = self.wish_for(at, best.link.index);
        let settle = at.policy.settle();
        let settle = settle.saturating_mul(1 << self.doublings.min(16));
        let settle = settle.min(MAX_SETTLE.max(at.policy.settle()));
        if at.now < since + settle {
            self.deadline = earliest(self.deadline, Some(since + settle));
            return None;
        }
        self.binding = Binding::Bound(Template::from(best));
        self.wish = None;
        self.moves.push(at.now);
        self.moves.retain(|it| at.now.since(*it) < FLAPPING_SPAN);
        if self.moves.len() >= FLAPPING_MOVES {
            self.doublings = self.doublings.saturating_add(1);
        }
        Some((Reason::Better(settle), Move::Voluntary))
    }

    /// Since when there is the wish for the link `index`.
    fn wish_for(&mut self, at: Situation<'_>, index: u32) -> Instant {
        if self.last_wish.is_some_and(|last| at.now.since(last) >= FLAPPING_SPAN) {
            self.doublings = 0;
            self.moves.clear();
        }
        self.last_wish = Some(at.now);
        let since = self.wish.filter(|(link, _)| *link == index).map_or(at.now, |(_, at)| at);
        self.wish = Some((index, since));
        since
    }
}

/// Whether there are several candidates, of which none leads anywhere in particular.
fn is_a_guess(found: &[Candidate<'_>]) -> bool {
    found.len() > 1 && found.iter().all(|it| it.rank.without_default)
}

impl Template {
    /// The template as it is: with its present name and primary address.
    fn look(&self, at: Situation<'_>, stopgaps: Stopgaps) -> Result<Self, Loss> {
        let link = self.find(at).ok_or(Loss::Gone)?;
        let named = Named::of(at.policy, at.family);
        if !link.up {
            return Err(Loss::Down);
        }
        if named == Named::No && !plausible(link) {
            return Err(if link.enslaved { Loss::Enslaved } else { Loss::Carrier });
        }
        let is_primary = |address: IpAddr| address == self.primary;
        let of_link = |stopgaps| usable(at.host, link.index, at.family, named, stopgaps);
        let all = of_link(Stopgaps::Take);
        let kept = all.iter().map(|it| it.prefix.address()).find(|it| is_primary(*it));
        let first = of_link(stopgaps).first().map(|it| it.prefix.address());
        // One that runs out stays only where there is nothing else.
        let last_resort = || {
            let mut all = at.host.addresses_of(link.index, at.family);
            let found = all.find(|it| is_primary(it.prefix.address()) && it.deprecated)?;
            (!found.unproven).then_some(self.primary)
        };
        let primary = kept.or(first).or_else(last_resort).ok_or(Loss::Address)?;
        let (index, name, kind) = (link.index, link.name.clone(), link.kind);
        Ok(Self { index, name, kind, primary, gone: false })
    }

    /// The link that the template is. One that is bound to its name is found by it when the link that
    /// it was is gone.
    fn find<'a>(&self, at: Situation<'a>) -> Option<&'a Link> {
        let same = at.host.links.get(&self.index);
        let gone = self.gone || at.gone.contains(&self.index);
        let same = same.filter(|it| !gone && it.kind == self.kind);
        let by_name = || {
            let name = match (at.policy.template(at.family), at.policy.following.follow) {
                (Some(name), _) => name.as_str(),
                (None, Follow::Sticky) => &self.name,
                (None, _) => return None,
            };
            at.host.links.values().find(|link| link.is_called(name))
        };
        same.or_else(by_name)
    }
}

impl From<&Candidate<'_>> for Template {
    fn from(candidate: &Candidate<'_>) -> Self {
        let link = candidate.link;
        let (index, name, kind) = (link.index, link.name.clone(), link.kind);
        Self { index, name, kind, primary: candidate.primary, gone: false }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "interface gone",
            Self::Down => "interface down",
            Self::Carrier => "carrier lost",
            Self::Enslaved => "interface enslaved",
            Self::Address => "last address gone",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LateBinding => f.write_str("late binding"),
            Self::AddressChanged => f.write_str("address changed"),
            Self::Better(Duration::ZERO) => f.write_str("default route"),
            Self::Better(settled) => {
                write!(f, "better default route, settled {} ms", settled.as_millis())
            }
            Self::Lost(loss) => write!(f, "{loss}"),
            Self::Returned => f.write_str("usable again"),
            Self::HoldOver => f.write_str("hold time over"),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::net::PerFamily;

    /// The bindings at start.
    pub(crate) fn bind(host: &HostView, policy: &Policy) -> PerFamily<Binding> {
        PerFamily::each(|family| {
            let (now, gone) = (Instant::START, &BTreeSet::new());
            let situation = Situation { now, host, gone, policy, family };
            Tracker::start(situation).binding().clone()
        })
    }
}

#[cfg(test)]
mod tests;
