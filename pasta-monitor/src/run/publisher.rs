//! Publishes snapshots to the datapath, and keeps the newest while the channel is full.

use pasta_ipc::types::{Generation, NeighbourSnapshot, NetworkSnapshot};
use pasta_ipc::{MonitorToDatapath, SendError};
use pasta_monitor::neighbours::Neighbours;
use pasta_monitor::peer::ToDatapath;

/// Sends each snapshot that differs from the one before. While the channel is full, only the newest
/// waits.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    newest: Option<NetworkSnapshot>,
    behind: bool,
    neighbours: Option<NeighbourSnapshot>,
    neighbours_behind: bool,
}

impl Publisher {
    /// Publishes `snapshot` with the next generation, if it differs from the last one.
    pub(super) fn publish(&mut self, datapath: &ToDatapath, mut snapshot: NetworkSnapshot) {
        let last = self.newest.as_ref().map_or(Generation(0), |it| it.generation);
        snapshot.generation = last;
        if self.newest.as_ref() == Some(&snapshot) {
            return;
        }
        snapshot.generation = last.next();
        self.newest = Some(snapshot);
        self.behind = true;
        self.catch_up(datapath);
    }

    /// Publishes who the template's neighbours are.
    pub(super) fn publish_neighbours(&mut self, datapath: &ToDatapath, neighbours: &Neighbours) {
        let last = self.neighbours.as_ref().map_or(Generation(0), |it| it.generation);
        let next = neighbours.snapshot(last.next());
        let same = self.neighbours.as_ref().is_some_and(|it| it.entries == next.entries);
        if same || (self.neighbours.is_none() && next.entries.as_slice().is_empty()) {
            return;
        }
        (self.neighbours, self.neighbours_behind) = (Some(next), true);
        self.catch_up(datapath);
    }

    /// The newest snapshot's number.
    pub(super) fn generation(&self) -> u64 {
        self.newest.as_ref().map_or(0, |it| it.generation.0)
    }

    /// Whether the newest snapshot is still to be sent.
    pub(super) fn is_behind(&self) -> bool {
        self.behind || self.neighbours_behind
    }

    /// Sends the newest snapshot if it is still to be sent and there is room.
    pub(super) fn catch_up(&mut self, datapath: &ToDatapath) {
        if let Some(newest) = self.neighbours.as_ref().filter(|_| self.neighbours_behind) {
            let message = MonitorToDatapath::Neighbours(Box::new(newest.clone()));
            // As below.
            self.neighbours_behind = matches!(datapath.send(&message), Err(SendError::WouldBlock));
        }
        let Some(newest) = self.newest.as_ref().filter(|_| self.behind) else { return };
        let message = MonitorToDatapath::Network(Box::new(newest.clone()));
        // A datapath that is gone needs no snapshots; that it is gone shows on the next receive.
        self.behind = matches!(datapath.send(&message), Err(SendError::WouldBlock));
    }
}
