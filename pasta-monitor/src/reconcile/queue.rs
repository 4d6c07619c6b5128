//! The order in which operations are tried.

use crate::op::NamespaceOp;
use std::collections::VecDeque;

/// How the kernel answered an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is done, or was done before.
    Done,
    /// It depends on something that is not there yet.
    TooEarly,
    /// It cannot be done.
    Refused,
}

/// Operations to be carried out in order. One that fails never costs the others.
///
/// What depends on a later one is tried again after the last, until none of those that wait succeeds.
#[derive(Debug)]
pub struct Queue {
    /// Still to be tried in the present round.
    round: VecDeque<NamespaceOp>,
    /// To be tried again in the next round.
    waiting: Vec<NamespaceOp>,
    /// Whether one has left the queue in this round.
    progress: bool,
    refused: Vec<NamespaceOp>,
}

impl Queue {
    /// Nothing was tried yet.
    pub fn new(ops: Vec<NamespaceOp>) -> Self {
        Self { round: ops.into(), waiting: Vec::new(), progress: false, refused: Vec::new() }
    }

    /// What is to be tried; [`Queue::tried`] has to follow.
    pub fn front(&mut self) -> Option<NamespaceOp> {
        if self.round.is_empty() && self.progress {
            self.progress = false;
            self.round = std::mem::take(&mut self.waiting).into();
        }
        self.round.front().copied()
    }

    /// The next one was tried.
    pub fn tried(&mut self, attempt: Attempt) {
        let Some(op) = self.round.pop_front() else { return };
        self.progress |= attempt != Attempt::TooEarly;
        match attempt {
            Attempt::Done => {}
            Attempt::TooEarly => self.waiting.push(op),
            Attempt::Refused => self.refused.push(op),
        }
    }

    /// Those that came too early each time, once nothing is left to be tried.
    pub fn waiting(&self) -> &[NamespaceOp] {
        &self.waiting
    }

    /// All that were not carried out.
    pub fn into_refused(mut self) -> Vec<NamespaceOp> {
        self.refused.extend(self.waiting);
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::WantedAddress;
    use crate::net::testing::net;
    use std::collections::BTreeSet;

    fn add(last: u8) -> NamespaceOp {
        NamespaceOp::AddAddress(WantedAddress::new(net(&format!("192.0.2.{last}/24"))))
    }

    /// Runs a queue of `ops` against a kernel that wants each op's `needs` first, and refuses `bad`.
    fn run(ops: &[u8], needs: &[(u8, u8)], bad: &[u8]) -> (Vec<u8>, Vec<NamespaceOp>) {
        let mut queue = Queue::new(ops.iter().copied().map(add).collect());
        let (mut done, mut tries) = (BTreeSet::new(), Vec::new());
        while let Some(op) = queue.front() {
            let n = (1..=9).find(|n| add(*n) == op).unwrap();
            tries.push(n);
            assert!(tries.len() < 100, "it has no end");
            let missing = needs.iter().any(|(op, other)| *op == n && !done.contains(other));
            let attempt = match () {
                () if bad.contains(&n) => Attempt::Refused,
                () if missing => Attempt::TooEarly,
                () => Attempt::Done,
            };
            if attempt == Attempt::Done {
                done.insert(n);
            }
            queue.tried(attempt);
        }
        (tries, queue.into_refused())
    }

    #[test]
    fn what_depends_on_a_later_one_is_tried_after_it() {
        assert_eq!(run(&[1, 2, 3], &[(1, 3)], &[]), (vec![1, 2, 3, 1], vec![]));
        let backwards = [(1, 2), (2, 3)];
        assert_eq!(run(&[1, 2, 3], &backwards, &[]), (vec![1, 2, 3, 1, 2, 1], vec![]));
    }

    #[test]
    fn a_refusal_costs_only_what_depends_on_it() {
        let (tries, refused) = run(&[1, 2, 3, 4], &[(1, 2), (4, 3)], &[2]);
        assert_eq!(tries, [1, 2, 3, 4, 1]);
        assert_eq!(refused, [add(2), add(1)]);
    }

    #[test]
    fn a_circle_comes_to_its_end() {
        let (tries, refused) = run(&[1, 2], &[(1, 2), (2, 1)], &[]);
        assert_eq!(tries, [1, 2]);
        assert_eq!(refused, [add(1), add(2)]);
    }
}
