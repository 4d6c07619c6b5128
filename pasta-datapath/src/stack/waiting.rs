//! Connections that the namespace wants to open, in front of what that costs.
//!
//! A frame of a flow costs a microsecond or two, a new flow some calls of the kernel: a socket made, connected and
//! watched. A program that opens connections in a loop fills the tap's queue with SYNs, and with each opened as it is
//! read, whoever exchanges small messages waits behind all of them, or is dropped. So frames are read as fast as they
//! come, flows that exist have theirs at once, and SYNs wait here, first come first served, a few each turn.
//!
//! One that finds the queue full is a counted drop: the namespace retransmits it after a second.

use crate::flow::FlowKey;
use crate::wire::tcp::Header;
use pasta_ipc::types::MacAddr;
use std::collections::VecDeque;

/// SYNs that may wait; chosen: some tens of milliseconds of work.
const MOST: usize = 1024;

/// A SYN of the namespace for which there is no flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syn {
    pub(super) key: FlowKey,
    pub(super) mac: MacAddr,
    pub(super) header: Header,
}

/// SYNs that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct WaitingSyns(VecDeque<Syn>);

/// As many wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl WaitingSyns {
    /// Has `syn` wait for its turn.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub(super) fn push(&mut self, syn: Syn) -> Result<(), Full> {
        if self.0.len() >= MOST {
            return Err(Full);
        }
        self.0.push_back(syn);
        Ok(())
    }

    /// The one that has waited longest.
    pub(super) fn next(&mut self) -> Option<Syn> {
        self.0.pop_front()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
