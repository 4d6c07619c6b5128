//! When the neighbours of the templates are read again, and when they are published.

use super::host::AGAIN;
use crate::neighbours::Neighbours;
use crate::record::Neighbour;
use crate::time::Instant;
use std::collections::BTreeSet;

/// The neighbours of the templates, as far as they are known.
#[derive(Debug)]
pub(super) struct NeighbourRefresh {
    known: Neighbours,
    /// They are to be read.
    lost: bool,
    /// They are to be read again, since not all of them were.
    again: Option<Instant>,
    /// They are to be published.
    changed: bool,
}

impl Default for NeighbourRefresh {
    fn default() -> Self {
        Self { known: Neighbours::default(), lost: true, again: None, changed: false }
    }
}

impl NeighbourRefresh {
    /// An event: somebody is there.
    pub(super) fn learn(&mut self, neighbour: &Neighbour) {
        self.changed |= self.known.learn(neighbour);
    }

    /// An event: somebody is gone.
    pub(super) fn forget(&mut self, neighbour: &Neighbour) {
        self.changed |= self.known.forget(neighbour);
    }

    /// Events were lost, or it was asked for.
    pub(super) fn lost(&mut self) {
        self.lost = true;
    }

    /// When they are to be read again, if not for a cause that is known by then.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }

    pub(super) fn begin(&mut self, now: Instant, links: BTreeSet<u32>) -> Option<BTreeSet<u32>> {
        let again = self.again.is_some_and(|at| at <= now);
        let wanted = self.lost || again || links != *self.known.links();
        if wanted {
            (self.lost, self.again) = (false, None);
        }
        wanted.then_some(links)
    }

    pub(super) fn finish(&mut self, now: Instant, mut neighbours: Neighbours, complete: bool) {
        if !complete {
            neighbours.completed_by(&self.known);
            self.again = Some(now + AGAIN);
        }
        (self.known, self.changed) = (neighbours, true);
    }

    pub(super) fn take(&mut self) -> Option<&Neighbours> {
        std::mem::take(&mut self.changed).then_some(&self.known)
    }
}
