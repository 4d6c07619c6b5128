//! When the neighbours of the templates are read again, and when they are published.

use crate::neighbours::Neighbours;
use crate::record::Neighbour;
use std::collections::BTreeSet;

/// The neighbours of the templates, as far as they are known.
#[derive(Debug)]
pub(super) struct NeighbourRefresh {
    known: Neighbours,
    /// They are to be read.
    lost: bool,
    /// They are to be published.
    changed: bool,
}

impl Default for NeighbourRefresh {
    fn default() -> Self {
        Self { known: Neighbours::default(), lost: true, changed: false }
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

    pub(super) fn begin(&mut self, links: BTreeSet<u32>) -> Option<BTreeSet<u32>> {
        let wanted = std::mem::take(&mut self.lost) || links != *self.known.links();
        wanted.then_some(links)
    }

    pub(super) fn finish(&mut self, neighbours: Neighbours) {
        (self.known, self.changed) = (neighbours, true);
    }

    pub(super) fn take(&mut self) -> Option<&Neighbours> {
        std::mem::take(&mut self.changed).then_some(&self.known)
    }
}
