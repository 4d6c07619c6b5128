//! Who may say what to whom: one enum for each direction.
//!
//! Facts carry the whole state with a generation and replace what was said before; there are no
//! deltas. Nothing the datapath can say names a link, an address, a route, a path or a program.

use crate::types::{
    AuditReport, DatapathStart, LogRecord, MonitorStart, NetworkSnapshot, ResolverSnapshot,
    TapInfo, Text,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Raised by any change to the messages below or their types; both ends must agree exactly.
pub const PROTOCOL_VERSION: u16 = 2;

/// One direction of a channel.
pub trait Message: Serialize + DeserializeOwned {
    /// Largest encoded message, in octets; also bounds what decoding may allocate. All are below
    /// half of the kernel's default socket buffer (208 KiB), so that a message always fits.
    const LIMIT: usize;

    /// Most descriptors that a message of this direction may carry. Zero: the receiver offers the
    /// kernel no room for any.
    const MAX_FDS: usize;

    /// How many descriptors travel with this very message: exactly so many, or it is a violation.
    fn descriptors(&self) -> usize;
}

/// Always the first message of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The speaker's [`PROTOCOL_VERSION`].
    pub version: u16,
}

impl Hello {
    /// What this build says.
    pub const OURS: Self = Self { version: PROTOCOL_VERSION };
}

/// What the supervisor may say to the monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorToMonitor {
    /// Always first. Once.
    Hello(Hello),
    /// Everything to start with. Once, after `Hello`. Descriptors: the target's user namespace, its
    /// network namespace, the host rtnetlink socket for events, the one for dumps.
    Start(Box<MonitorStart>),
    /// Asks for an orderly end. At any time after `Start`; the process ends.
    Shutdown,
}

/// What the monitor may say to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MonitorToSupervisor {
    /// Always first. Once.
    Hello(Hello),
    /// The tap exists. Once, after `Start`. Descriptor: the tap, fully set up.
    TapReady(TapInfo),
    /// The namespace is configured and the process confined. Once, after `TapReady`.
    Ready(Box<AuditReport>),
    /// A line for the log. At any time after `Hello`.
    Log(LogRecord),
    /// Why the process is about to end. Once, last.
    Failed(Text<1024>),
}

/// What the supervisor may say to the datapath.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorToDatapath {
    /// Always first. Once.
    Hello(Hello),
    /// Everything to start with. Once, after `Hello`. Descriptor: the tap.
    Start(Box<DatapathStart>),
    /// The host's resolvers. After `Start`, any number.
    Resolvers(ResolverSnapshot),
    /// Asks for an orderly end. At any time after `Start`; the process ends.
    Shutdown,
}

/// What the datapath may say to the supervisor. Treated as hostile on arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DatapathToSupervisor {
    /// Always first. Once.
    Hello(Hello),
    /// The process is confined and about to read its first frame. Once, after `Start`.
    Ready(Box<AuditReport>),
    /// A line for the log. At any time after `Hello`.
    Log(LogRecord),
    /// Why the process is about to end. Once, last.
    Failed(Text<1024>),
}

/// What the monitor may say to the datapath.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MonitorToDatapath {
    /// Always first. Once.
    Hello(Hello),
    /// All there is to know from netlink, replacing the one before. After `Hello`, any number.
    Network(Box<NetworkSnapshot>),
}

/// What the datapath may say to the monitor. Treated as hostile on arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DatapathToMonitor {
    /// Always first. Once. There is nothing else to say.
    Hello(Hello),
}

impl Message for SupervisorToMonitor {
    const LIMIT: usize = 32 * 1024;
    const MAX_FDS: usize = 4;

    fn descriptors(&self) -> usize {
        if matches!(self, Self::Start(_)) { 4 } else { 0 }
    }
}

impl Message for MonitorToSupervisor {
    const LIMIT: usize = 32 * 1024;
    const MAX_FDS: usize = 1;

    fn descriptors(&self) -> usize {
        usize::from(matches!(self, Self::TapReady(_)))
    }
}

impl Message for SupervisorToDatapath {
    const LIMIT: usize = 32 * 1024;
    const MAX_FDS: usize = 1;

    fn descriptors(&self) -> usize {
        usize::from(matches!(self, Self::Start(_)))
    }
}

impl Message for DatapathToSupervisor {
    const LIMIT: usize = 32 * 1024;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        0
    }
}

impl Message for MonitorToDatapath {
    const LIMIT: usize = 64 * 1024;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        0
    }
}

impl Message for DatapathToMonitor {
    const LIMIT: usize = 512;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests;
