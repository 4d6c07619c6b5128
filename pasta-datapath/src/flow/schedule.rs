//! When flows run again: timers, the run queue and its round robin, and the queue for window credit.
//!
//! The reasoning behind the quanta is in `docs/decisions/0015-round-robin.md`.

use super::tcp::relay::QUANTUM;
use super::tcp::window::{CreditPool, CreditQueue};
use super::{FlowId, Next, Outcome};
use crate::time::Instant;
use std::collections::{BTreeSet, VecDeque};

/// Quantum of a flow outside the run queue, for each round of it, while others are in it; chosen: one
/// super-frame, for request/response.
const INTERACTIVE_QUANTUM: usize = 64 * 1024;

/// Octets of a round of the run queue, and the smallest quantum. With more flows the quantum is smaller, so
/// that a round does not take long, but never so small that a turn costs more than it moves. Chosen: a round
/// of 512 flows, which is some tenths of a second.
const ROUND_OCTETS: usize = 512 * QUANTUM;
const MIN_QUANTUM: usize = 128 * 1024;

/// Ids of ended flows that may be in the queue for window credit, beside twice the number of flows; chosen.
const NAMES_KEPT: usize = 64;

/// Rounds of the run queue: one ends when all flows that were in it at the start have had their turn.
#[derive(Debug, Default)]
struct RoundRobin {
    number: u32,
    /// Flows that have yet to have their turn.
    left: usize,
}

impl RoundRobin {
    /// One more has had its turn, and `waiting` are in the queue.
    fn turn(&mut self, waiting: usize) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.number = self.number.wrapping_add(1);
            self.left = waiting;
        }
    }
}

/// Octets that a flow has sent outside the run queue, and in which round.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    round: u32,
    octets: u32,
}

impl Moved {
    fn in_round(self, round_robin: &RoundRobin) -> usize {
        if self.round == round_robin.number { self.octets as usize } else { 0 }
    }

    fn add(&mut self, octets: u32, round_robin: &RoundRobin) {
        let before = self.in_round(round_robin) as u32;
        *self = Self { round: round_robin.number, octets: before.saturating_add(octets) };
    }
}

/// Quantum of each of `flows` in the run queue, in octets.
fn quantum_for(flows: usize) -> usize {
    (ROUND_OCTETS / flows.max(1)).clamp(MIN_QUANTUM, QUANTUM)
}

/// Why a flow runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It has an event. While others are in the run queue it moves little: enough for request/response to go
    /// first, and no more than that for a bulk flow.
    Event,
    /// It is its turn in the run queue.
    Turn,
}

/// What the schedule keeps with each flow.
#[derive(Debug, Default)]
pub struct Scheduled {
    /// When the timer queue wakes it.
    armed: Option<Instant>,
    /// Whether it is in the run queue.
    queued: bool,
    /// Whether it is in the queue for window credit.
    waits: bool,
    moved: Moved,
}

/// The queues.
#[derive(Debug, Default)]
pub struct Schedule {
    timers: BTreeSet<(Instant, FlowId)>,
    run_queue: VecDeque<FlowId>,
    round_robin: RoundRobin,
    /// Flows whose window is to grow when there is room for it in the tap's queue.
    waiting: VecDeque<FlowId>,
}

impl Schedule {
    /// When the first timer is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Whether a flow waits for its turn, or for window credit: there is some as soon as the tap's queue is
    /// empty, of which there is no event.
    pub fn is_busy(&self) -> bool {
        !self.run_queue.is_empty() || !self.waiting.is_empty()
    }

    /// Flows in the run queue.
    pub fn queued(&self) -> usize {
        self.run_queue.len()
    }

    /// Flows that wait for window credit.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A flow whose timer is due.
    pub fn due(&mut self, now: Instant) -> Option<FlowId> {
        self.deadline().filter(|due| *due <= now)?;
        self.timers.pop_first().map(|(_, id)| id)
    }

    /// The next flow in the run queue; its turn counts.
    pub fn next_turn(&mut self) -> Option<FlowId> {
        let id = self.run_queue.pop_front()?;
        self.round_robin.turn(self.run_queue.len());
        Some(id)
    }

    /// The next flow in the queue for window credit.
    pub fn next_waiting(&mut self) -> Option<FlowId> {
        self.waiting.pop_front()
    }

    /// Takes flows that have ended out of the queue for window credit, if they may be many among `flows`.
    pub fn forget_ended(&mut self, flows: usize, exists: impl FnMut(&FlowId) -> bool) {
        if self.waiting.len() > 2 * flows + NAMES_KEPT {
            self.waiting.retain(exists);
        }
    }

    /// Most octets that a flow may move now.
    #[inline]
    pub fn quantum(&self, flow: &mut Scheduled, cause: Cause) -> usize {
        match cause {
            Cause::Turn => {
                flow.queued = false;
                quantum_for(self.run_queue.len() + 1)
            }
            Cause::Event if self.run_queue.is_empty() => QUANTUM,
            Cause::Event if flow.queued => 0,
            Cause::Event => {
                INTERACTIVE_QUANTUM.saturating_sub(flow.moved.in_round(&self.round_robin))
            }
        }
    }

    /// The timer of this flow has fired.
    pub fn fired(flow: &mut Scheduled) {
        flow.armed = None;
    }

    /// Window credit is free for this flow.
    pub fn served(flow: &mut Scheduled) {
        flow.waits = false;
    }

    /// Puts a flow that goes on where its outcome says.
    #[inline]
    pub fn settle(
        &mut self,
        id: FlowId,
        flow: &mut Scheduled,
        outcome: &Outcome,
        credit: &mut CreditPool,
    ) {
        if outcome.next == Next::More && !flow.queued {
            flow.queued = true;
            self.run_queue.push_back(id);
        }
        if outcome.facts.credit_wanted && !flow.waits {
            flow.waits = true;
            self.waiting.push_back(id);
            credit.set_queue(CreditQueue::Waiting);
        }
        if let Some(deadline) = outcome.deadline {
            self.arm(id, flow, deadline);
        }
    }

    /// Counts octets that a flow has moved outside the run queue.
    #[inline]
    pub fn count(&self, flow: &mut Scheduled, sent: u32) {
        if sent > 0 {
            flow.moved.add(sent, &self.round_robin);
        }
    }

    /// Makes the timer queue wake `id` at `deadline`, if that is before it would anyway.
    fn arm(&mut self, id: FlowId, flow: &mut Scheduled, deadline: Instant) {
        match flow.armed {
            Some(armed) if armed <= deadline => return,
            Some(armed) => {
                self.timers.remove(&(armed, id));
            }
            None => {}
        }
        flow.armed = Some(deadline);
        self.timers.insert((deadline, id));
    }

    /// Takes the timer of a flow out that has ended; its other places are left out when their turn comes.
    pub fn forget(&mut self, id: FlowId, flow: &Scheduled) {
        if let Some(armed) = flow.armed {
            self.timers.remove(&(armed, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Facts;
    use crate::flow::table::FlowTable;

    #[test]
    fn quantum_shrinks_with_the_number_of_flows_down_to_a_bound() {
        assert_eq!([0, 1, 512].map(quantum_for), [QUANTUM; 3]);
        assert_eq!(quantum_for(1024), QUANTUM / 2);
        assert_eq!([2048, 100_000].map(quantum_for), [MIN_QUANTUM; 2]);
    }

    #[test]
    fn a_round_ends_when_all_that_were_queued_at_its_start_have_had_their_turn() {
        let (mut round_robin, mut moved) = (RoundRobin::default(), Moved::default());
        round_robin.turn(3);
        moved.add(1000, &round_robin);
        for waiting in [5, 9] {
            moved.add(1000, &round_robin);
            round_robin.turn(waiting);
        }
        assert_eq!(moved.in_round(&round_robin), 3000);
        round_robin.turn(2);
        assert_eq!(moved.in_round(&round_robin), 0);
        moved.add(u32::MAX, &round_robin);
        moved.add(1000, &round_robin);
        assert_eq!(moved.in_round(&round_robin), u32::MAX as usize);
    }

    #[test]
    fn a_flow_is_queued_once_and_moves_little_until_its_turn() {
        let mut table = FlowTable::new(2);
        let [one, other] = [(); 2].map(|()| table.insert_nameless(()).unwrap());
        let (mut schedule, mut credit) = (Schedule::default(), CreditPool::new(0, 0));
        let (mut first, mut second) = (Scheduled::default(), Scheduled::default());
        assert_eq!(schedule.quantum(&mut first, Cause::Event), QUANTUM);
        let more = Outcome::of(Next::More);
        schedule.settle(one, &mut first, &more, &mut credit);
        schedule.settle(one, &mut first, &more, &mut credit);
        assert_eq!(schedule.queued(), 1);
        assert_eq!(schedule.quantum(&mut first, Cause::Event), 0, "its turn will come");
        assert_eq!(schedule.quantum(&mut second, Cause::Event), INTERACTIVE_QUANTUM);
        schedule.count(&mut second, 1000);
        assert_eq!(schedule.quantum(&mut second, Cause::Event), INTERACTIVE_QUANTUM - 1000);
        schedule.settle(other, &mut second, &more, &mut credit);
        assert_eq!(schedule.next_turn(), Some(one));
        assert_eq!(schedule.quantum(&mut first, Cause::Turn), QUANTUM);
        assert_eq!((schedule.next_turn(), schedule.next_turn()), (Some(other), None));
    }

    #[test]
    fn timer_moves_to_the_front_only_and_ends_with_its_flow() {
        let mut table = FlowTable::new(1);
        let id = table.insert_nameless(()).unwrap();
        let at =
            |ns| Outcome { deadline: Some(Instant::from_nanos(ns)), ..Outcome::of(Next::Wait) };
        let (mut schedule, mut flow) = (Schedule::default(), Scheduled::default());
        let mut credit = CreditPool::new(0, 0);
        for (ns, due) in [(50, 50), (70, 50), (20, 20)] {
            schedule.settle(id, &mut flow, &at(ns), &mut credit);
            assert_eq!(schedule.deadline(), Some(Instant::from_nanos(due)));
        }
        assert_eq!(schedule.due(Instant::from_nanos(19)), None);
        assert_eq!(schedule.due(Instant::from_nanos(20)), Some(id));
        Schedule::fired(&mut flow);
        schedule.settle(id, &mut flow, &at(90), &mut credit);
        schedule.forget(id, &flow);
        assert_eq!(schedule.deadline(), None);
    }

    #[test]
    fn who_wants_credit_waits_once_and_others_go_behind() {
        let mut table = FlowTable::new(1);
        let id = table.insert_nameless(()).unwrap();
        let (mut schedule, mut flow) = (Schedule::default(), Scheduled::default());
        let mut credit = CreditPool::new(0, 0);
        let facts = Facts { credit_wanted: true, ..Facts::default() };
        let outcome = Outcome { facts, ..Outcome::of(Next::Wait) };
        assert!(credit.may_lend());
        schedule.settle(id, &mut flow, &outcome, &mut credit);
        schedule.settle(id, &mut flow, &outcome, &mut credit);
        assert!(!credit.may_lend() && schedule.is_busy());
        assert_eq!((schedule.next_waiting(), schedule.next_waiting()), (Some(id), None));
    }
}
