#![forbid(unsafe_code)]
//! The steps of one pass: the namespace is brought to what is desired, and the datapath learns of it.
//!
//! ```text
//!  read ──► desired, plan ──► add ──► read ──► publish ──► remove ──► read ──┐
//!   ▲ again if it            │ ▲                                             │ again while the plan
//!   │ was disturbed    empty │ └─────────────────────────────────────────────┘ is not empty
//!   └────┘                   ▼
//!                      name the tap ──► publish ──► done
//! ```
//!
//! A [`Pass`] says what is to be done, one [`Step`] at a time, and takes in how it went; the shell only
//! carries out. Without `--config-net` nothing is planned, so that a pass reads and publishes.
//!
//! - What is read is believed only if it is of one moment: what the kernel is about to flush would look as
//!   if users had removed a part of it. A reading that was interrupted, or during which something on the
//!   tap changed, is made again; users who change it all the time do not keep us from what the host has made
//!   necessary, but nothing is learnt about them then, and another pass follows. Before the first configuration nobody has had the time to change anything,
//!   and any reading will do.
//! - An address that goes for good goes by a pass of its own, after the datapath has reset its flows ([`Parting`]).
//! - What the kernel refuses is left out of the plans of the same pass, and tried again by the next.
//! - A pass ends when the plan is empty, after three rounds at the latest: then users of the namespace
//!   change it at the same time, and their next change leads to another pass.
//! - A pass that cannot read the namespace fails. [`Refresh`](crate::refresh::Refresh) has it made again.

mod parting;
mod queue;

pub use parting::Parting;
pub use queue::{Attempt, Queue};

use crate::change::Change;
use crate::desired::Desired;
use crate::namespace::{NamespaceReading, NamespaceView};
use crate::op::NamespaceOp;
use crate::plan::plan;
use crate::publish::{Wishes, snapshot};
use crate::reduce::{Event, Flushed, State};
use crate::time::Instant;
use pasta_ipc::start::Configure;
use pasta_ipc::types::{AddressLosses, Generation, IfName, LogLevel, MacAddr, NetworkSnapshot};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often the namespace is brought closer to what is desired before we leave it at that. One round
/// suffices unless the namespace's users change it at the same time.
const ROUNDS: usize = 3;
/// How often the namespace is read while what is on the tap keeps changing. Once more suffices for
/// one change, however much it takes with it.
const READINGS: usize = 4;
/// With what is learnt from a reading that is not of one moment: nothing is thought removed by users.
const UNCERTAIN: Flushed = Flushed { tap_was_down: true, link_local_went: true };
/// Transitions that are kept for the log while the namespace cannot be read; later ones are not logged.
const MOST_PENDING: usize = 64;

/// Lines for the log.
pub type Lines = Vec<(LogLevel, String)>;

/// What passes were made for, and what the next one is to be made for.
#[derive(Debug)]
pub struct Reconciler {
    tap_mac: MacAddr,
    /// What the last pass was made for.
    goal: Option<Goal>,
    /// There were transitions after the last pass began.
    changed: bool,
    /// Transitions that the namespace has yet to make, and since when.
    pending: Vec<(Change, Instant)>,
}

/// What a pass is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Goal {
    desired: Desired,
    losses: AddressLosses,
}

/// What the shell is to do next in a pass.
#[derive(Debug)]
pub enum Step {
    /// Read the namespace, and then take in its events. [`Input::Read`] follows.
    Read,
    /// Read the namespace to see what has become of the operations. [`Input::ReadBack`] follows.
    ReadBack,
    /// Carry out these operations, in this order. [`Input::Applied`] follows.
    Apply(Vec<NamespaceOp>),
    /// Send this to the datapath unless it has it already, with a generation. [`Input::Done`] follows.
    Publish(Box<NetworkSnapshot>),
    /// Name the tap. [`Input::Done`] follows.
    Name(Naming),
    /// Nothing: the pass has come to its end.
    End,
    /// Nothing: the namespace cannot be read, and the pass is to be made again.
    Fail,
}

/// How a step went.
#[derive(Debug)]
pub enum Input {
    /// The pass begins.
    Begin,
    /// The namespace was read; none if that was not possible.
    Read {
        /// The reading.
        reading: Option<NamespaceReading>,
        /// Whether something changed meanwhile that it may show in part.
        disturbed: bool,
        /// What happened to the tap since the last pass.
        flushed: Flushed,
    },
    /// As `Read`, after operations.
    ReadBack(Option<NamespaceReading>),
    /// The operations were carried out, apart from these.
    Applied(Vec<NamespaceOp>),
    /// It is done.
    Done,
}

/// A name for the tap, which was made before there was a template to name it after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The tap is to be called `new`, and `old` is to lead to it as well.
    Rename {
        /// What it is called.
        old: IfName,
        /// What it is to be called.
        new: IfName,
    },
    /// The tap is in use by its name `old`, which stays; `new` is to lead to it as well.
    Add {
        /// What it is called.
        old: IfName,
        /// Its further name.
        new: IfName,
    },
}

/// What a pass that came to its end means for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Transitions that the namespace has made, and how long each took.
    pub changes: Vec<(Change, Duration)>,
    /// The longest of these times.
    pub longest: Option<Duration>,
}

impl Reconciler {
    /// No pass was made yet, over a tap with the link-layer address `tap_mac`.
    pub fn new(tap_mac: MacAddr) -> Self {
        Self { tap_mac, goal: None, changed: false, pending: Vec::new() }
    }

    /// The host has made `changes` necessary, the last of its events being received at `since`.
    pub fn add(&mut self, changes: Vec<Change>, since: Instant) {
        self.changed |= !changes.is_empty();
        let room = MOST_PENDING.saturating_sub(self.pending.len());
        self.pending.extend(changes.into_iter().take(room).map(|change| (change, since)));
    }

    /// Whether a pass is to be made for something else than the last one was, whatever came of that.
    pub fn is_behind(&self, now: Instant, state: &State) -> bool {
        let parting = state.parting().due().is_some_and(|due| due <= now);
        parting || self.changed || self.goal.as_ref() != Some(&self.goal_of(state))
    }

    /// Begins a pass.
    pub fn begin(&mut self, now: Instant, state: &mut State) -> Pass {
        self.changed = false;
        state.parting_mut().begin(now);
        self.goal = Some(self.goal_of(state));
        Pass::new(self.tap_mac)
    }

    /// A pass has come to its end, or has failed.
    pub fn finish(&mut self, now: Instant, state: &State, end: End) -> Made {
        // What it has learnt of the namespace is a part of what it was made for.
        self.goal = Some(self.goal_of(state));
        if end == End::Failed {
            return Made::default();
        }
        let took = |(change, since)| (change, now.since(since));
        let changes: Vec<_> = self.pending.drain(..).map(took).collect();
        let longest = changes.iter().map(|(_, took)| *took).max();
        Made { changes, longest }
    }

    fn goal_of(&self, state: &State) -> Goal {
        Goal { desired: state.desired(self.tap_mac), losses: state.losses() }
    }
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// [`Step::End`].
    Reached,
    /// [`Step::Fail`].
    Failed,
}

/// One pass, under way.
#[derive(Debug)]
pub struct Pass {
    tap_mac: MacAddr,
    stage: Stage,
    desired: Desired,
    /// Whether the namespace is to be changed.
    configures: bool,
    /// Rounds that were begun.
    rounds: usize,
    /// Readings at the present stage that were interrupted.
    interrupted: usize,
    /// Readings during which something changed that they may show in part.
    disturbed: usize,
    /// What the kernel has refused in this pass.
    refused: BTreeSet<NamespaceOp>,
    doubtful: bool,
}

/// What the answer is awaited of, and what was read so far.
#[derive(Debug)]
enum Stage {
    Beginning,
    Reading,
    Adding { removals: Vec<NamespaceOp> },
    ReadingAdded { removals: Vec<NamespaceOp> },
    PublishingAdded { seen: Box<NamespaceView>, removals: Vec<NamespaceOp> },
    Removing,
    ReadingRemoved,
    Naming { seen: Box<NamespaceView> },
    Publishing { seen: Box<NamespaceView> },
    Over,
}

impl Pass {
    fn new(tap_mac: MacAddr) -> Self {
        Self {
            tap_mac,
            stage: Stage::Beginning,
            desired: Desired::default(),
            configures: false,
            rounds: 0,
            interrupted: 0,
            disturbed: 0,
            refused: BTreeSet::new(),
            doubtful: false,
        }
    }

    /// Takes in how the last step went by `now`, and says what is next. What the log is to say is added to
    /// `lines`.
    ///
    /// An input that does not belong to the last step is a mistake of the shell and fails the pass.
    pub fn next(
        &mut self,
        now: Instant,
        state: &mut State,
        input: Input,
        lines: &mut Lines,
    ) -> Step {
        match (std::mem::replace(&mut self.stage, Stage::Over), input) {
            (Stage::Beginning, Input::Begin) => self.go(Stage::Reading, Step::Read),
            (Stage::Reading, Input::Read { reading, disturbed, flushed }) => {
                let seen = match self.believed(state, reading) {
                    Believed::Yes(seen) => seen,
                    Believed::Interrupted(seen) => {
                        if let Some(step) = self.again(Stage::Reading, Step::Read) {
                            return step;
                        }
                        return self.decide(now, state, seen, UNCERTAIN, lines);
                    }
                    Believed::Unreadable => return Step::Fail,
                };
                if disturbed && state.is_configured() {
                    self.disturbed += 1;
                    self.interrupted = 0;
                    if self.disturbed < READINGS {
                        return self.go(Stage::Reading, Step::Read);
                    }
                    let text = "namespace: kept changing while it was read";
                    lines.push((LogLevel::Debug, text.to_owned()));
                    self.doubtful = true;
                    return self.decide(now, state, seen, UNCERTAIN, lines);
                }
                self.decide(now, state, seen, flushed, lines)
            }
            (Stage::Adding { removals }, Input::Applied(refused)) => {
                self.refused.extend(refused);
                self.interrupted = 0;
                self.go(Stage::ReadingAdded { removals }, Step::ReadBack)
            }
            (Stage::ReadingAdded { removals }, Input::ReadBack(reading)) => {
                match self.believed(state, reading) {
                    Believed::Yes(seen) => self.publish_added(state, seen, removals),
                    Believed::Interrupted(seen) => {
                        let stage = Stage::ReadingAdded { removals: removals.clone() };
                        match self.again(stage, Step::ReadBack) {
                            Some(step) => step,
                            None => self.publish_added(state, seen, removals),
                        }
                    }
                    Believed::Unreadable => Step::Fail,
                }
            }
            (Stage::PublishingAdded { seen, removals }, Input::Done) => {
                if removals.is_empty() {
                    return self.round(now, state, seen, lines);
                }
                self.go(Stage::Removing, Step::Apply(removals))
            }
            (Stage::Removing, Input::Applied(refused)) => {
                self.refused.extend(refused);
                self.interrupted = 0;
                self.go(Stage::ReadingRemoved, Step::ReadBack)
            }
            (Stage::ReadingRemoved, Input::ReadBack(reading)) => {
                match self.believed(state, reading) {
                    Believed::Yes(seen) => self.round(now, state, seen, lines),
                    Believed::Interrupted(seen) => {
                        match self.again(Stage::ReadingRemoved, Step::ReadBack) {
                            Some(step) => step,
                            None => self.round(now, state, seen, lines),
                        }
                    }
                    Believed::Unreadable => Step::Fail,
                }
            }
            (Stage::Naming { seen }, Input::Done) => self.publish(state, seen),
            (Stage::Publishing { seen }, Input::Done) => {
                state.handle(now, Event::Configured(seen));
                Step::End
            }
            _ => Step::Fail,
        }
    }

    fn go(&mut self, stage: Stage, step: Step) -> Step {
        self.stage = stage;
        step
    }

    /// Reads once more after an interrupted reading, if it was not the last that is tried.
    fn again(&mut self, stage: Stage, step: Step) -> Option<Step> {
        self.interrupted += 1;
        if self.interrupted < READINGS {
            return Some(self.go(stage, step));
        }
        self.doubtful = true;
        self.interrupted = 0;
        None
    }

    /// Whether some of what was read may not have been of one moment: another pass is to be made.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Decides what is desired, now that it is known what users have made of the namespace.
    fn decide(
        &mut self,
        now: Instant,
        state: &mut State,
        seen: Box<NamespaceView>,
        flushed: Flushed,
        lines: &mut Lines,
    ) -> Step {
        let read = Event::NamespaceRead { view: seen.clone(), flushed };
        let left_alone = state.handle(now, read);
        lines.extend(left_alone.iter().map(|it| (LogLevel::Info, it.to_string())));
        self.desired = state.desired(self.tap_mac);
        let policy = state.policy();
        self.configures = policy.configure == Configure::Namespace
            && (self.desired.up || policy.changes_namespace());
        self.round(now, state, seen, lines)
    }

    /// Begins a round, if there is anything to do.
    fn round(
        &mut self,
        now: Instant,
        state: &mut State,
        seen: Box<NamespaceView>,
        lines: &mut Lines,
    ) -> Step {
        if !self.configures {
            return self.publish(state, seen);
        }
        let mut plan = plan(&self.desired, &seen);
        let stays = |address| self.desired.has_address(address);
        state.parting_mut().put_off(now, &mut plan, stays);
        plan.without(|op| self.refused.contains(op));
        if plan.is_empty() {
            return self.name(state, seen);
        }
        if self.rounds == ROUNDS {
            let text = format!("namespace is not as desired after {ROUNDS} rounds: {plan:?}");
            lines.push((LogLevel::Warn, text));
            return self.name(state, seen);
        }
        self.rounds += 1;
        let removals = plan.removals;
        if plan.additions.is_empty() {
            return self.publish_added(state, seen, removals);
        }
        self.go(Stage::Adding { removals }, Step::Apply(plan.additions))
    }

    fn publish_added(
        &mut self,
        state: &State,
        seen: Box<NamespaceView>,
        removals: Vec<NamespaceOp>,
    ) -> Step {
        let snapshot = self.snapshot(state, &seen);
        self.go(Stage::PublishingAdded { seen, removals }, Step::Publish(snapshot))
    }

    /// Names the tap after its first template, if it was made without one. That is tried once.
    fn name(&mut self, state: &mut State, seen: Box<NamespaceView>) -> Step {
        let Some(new) = state.late_name() else { return self.publish(state, seen) };
        state.name_is_decided();
        let old = IfName::try_from(seen.tap.name.clone()).ok().filter(|old| *old != new);
        let Some(old) = old else { return self.publish(state, seen) };
        let naming = if seen.tap_is_in_use() || state.users_have_named(&seen.tap.name) {
            Naming::Add { old, new }
        } else {
            Naming::Rename { old, new }
        };
        self.go(Stage::Naming { seen }, Step::Name(naming))
    }

    fn publish(&mut self, state: &State, seen: Box<NamespaceView>) -> Step {
        let snapshot = self.snapshot(state, &seen);
        self.go(Stage::Publishing { seen }, Step::Publish(snapshot))
    }

    fn snapshot(&self, state: &State, seen: &NamespaceView) -> Box<NetworkSnapshot> {
        let wishes = Wishes {
            desired: &self.desired,
            losses: state.losses(),
            leaving: state.parting().addresses(),
        };
        Box::new(snapshot(Generation::default(), &state.bindings(), &wishes, seen))
    }

    fn believed(&self, state: &State, reading: Option<NamespaceReading>) -> Believed {
        match reading {
            None => Believed::Unreadable,
            Some(reading) if reading.complete || !state.is_configured() => {
                Believed::Yes(Box::new(reading.view))
            }
            Some(reading) => Believed::Interrupted(Box::new(reading.view)),
        }
    }
}

/// What a reading is worth.
enum Believed {
    Yes(Box<NamespaceView>),
    Interrupted(Box<NamespaceView>),
    Unreadable,
}

#[cfg(test)]
mod tests;
