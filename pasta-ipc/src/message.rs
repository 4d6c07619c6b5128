//! Who may say what to whom: one enum for each direction.
//!
//! Facts carry the whole state with a generation and replace what was said before; there are no
//! deltas. Nothing the datapath can say names a link, an address, a route, a path or a program.

use crate::port_forward::{
    ForwardTable, ForwardsChange, ForwardsChanged, NamespaceForwards, PortSnapshot,
};
use crate::socket::{
    ListenerAddress, MAX_LISTENERS, MAX_SOCKETS, NamespaceListener, Refusal, RequestId,
    SocketCount, SocketKind,
};
use crate::start::{Captured, DatapathStart, MonitorStart, RootFallback, UserId};
use crate::status::{DatapathStatus, MonitorStatus};
use crate::types::{
    AuditReport, Bounded, Explanation, Generation, LogRecord, NeighbourSnapshot, NetworkSnapshot,
    ResolverSnapshot, TapInfo, Text,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Raised by any change to the messages below or their types; both ends must agree exactly.
pub const PROTOCOL_VERSION: u16 = 16;

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
    /// network namespace, the host rtnetlink socket for events, the one for dumps; where the host's
    /// ports are watched or may be later, the host sock_diag socket.
    Start(Box<MonitorStart>),
    /// Asks for an orderly end. At any time after `Start`; the process ends.
    Shutdown,
    /// Asks for `Status`. At any time after `Start`.
    StatusWanted,
    /// Asks to read host and namespace again, and to put right what is not as it should be. At any
    /// time after `Start`.
    ResyncWanted,
    /// Asks what `Start` would lead to. Once, after `Hello`, instead of `Start`; the process ends.
    /// Descriptor: the host rtnetlink socket for dumps.
    Explain(Box<MonitorStart>),
    /// What the datapath may listen on inside the namespace from now on, and whose ports are watched. At any time
    /// after `Start` that says that this may change.
    Forwards(Box<NamespaceForwards>),
}

/// What the monitor may say to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MonitorToSupervisor {
    /// Always first. Once.
    Hello(Hello),
    /// The tap exists. Once, after `Start`, unless that asked for none. Descriptor: the tap, fully set
    /// up.
    TapReady(TapInfo),
    /// The namespace is configured and the process confined. Once, after `TapReady` if there is one.
    Ready(Box<AuditReport>),
    /// A line for the log. At any time after `Hello`.
    Log(LogRecord),
    /// Why the process is about to end. Once, last.
    Failed(Text<1024>),
    /// How things stand. Once for each `StatusWanted`.
    Status(Box<MonitorStatus>),
    /// What would be done. Once, after `Explain`; the process ends.
    Explained(Box<Explanation>),
    /// The tap was removed, or moved to another namespace. Once, after `TapReady`.
    TapGone,
    /// What the kernel tells others about this process. Once, after `Start` and before any other namespace
    /// is entered. Descriptor: its `/proc/self/status`, open.
    StatusFile,
    /// What `Forwards` of this generation allows is allowed. Once for each.
    ForwardsTaken {
        /// Which one.
        generation: Generation,
    },
}

/// What the supervisor may say to the datapath.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorToDatapath {
    /// Always first. Once.
    Hello(Hello),
    /// Everything else to start with. Once, after `Hello` and what is to be known or held from the
    /// start. Descriptors: the tap, if there is one; the capture file, if there is one.
    Start(Box<DatapathStart>),
    /// The host's resolvers. After `Hello`, any number.
    Resolvers(ResolverSnapshot),
    /// The rules of one direction. After `Hello`, any number.
    Forwards(Box<ForwardTable>),
    /// Listeners of explicit rules, bound and listening. After `Hello` and before `Start`, any number;
    /// before the `Forwards` that want them.
    /// Descriptors: one for each, in the same order.
    Listeners(Bounded<ListenerAddress, MAX_LISTENERS>),
    /// Asks for an orderly end. At any time after `Start`; the process ends.
    Shutdown,
    /// The rules of both directions, all or none of them. After `Start`, while no other change is under way.
    Change(Box<ForwardsChange>),
    /// Asks for `Status`. After `Start`, while no other status is asked for.
    StatusWanted {
        /// How many flows are to be listed.
        flows: u8,
    },
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
    /// Counters, to be shown whatever the level of the log. After `Start` that asks for them, at most once
    /// in that interval.
    Statistics(Text<1024>),
    /// The listeners in the namespace that follow from the first look at the host's ports are open, as far
    /// as they can be. Once, after `Ready`, where the host's ports are watched.
    PortsOpen,
    /// What became of `Change`. Once for each.
    Changed(Box<ForwardsChanged>),
    /// How things stand. Once for each `StatusWanted`.
    Status(Box<DatapathStatus>),
}

/// What the monitor may say to the datapath.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MonitorToDatapath {
    /// Always first. Once.
    Hello(Hello),
    /// All there is to know from netlink, replacing the one before. After `Hello`, any number.
    Network(Box<NetworkSnapshot>),
    /// Who listens. After `Hello`, any number.
    Ports(Box<PortSnapshot>),
    /// Answers `SocketsWanted`. Descriptors: so many sockets, not connected.
    Sockets {
        /// Which request.
        request: RequestId,
        /// How many came; may be fewer than were asked for.
        count: SocketCount,
    },
    /// Answers `ListenerWanted`. Descriptor: the socket, bound; of TCP, listening.
    Listener {
        /// Which request.
        request: RequestId,
    },
    /// Answers either: there is no socket.
    Refused {
        /// Which request.
        request: RequestId,
        /// Why.
        why: Refusal,
    },
    /// Who the template's neighbours are. After `Hello`, any number.
    Neighbours(Box<NeighbourSnapshot>),
}

/// What the datapath may say to the monitor. Treated as hostile on arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DatapathToMonitor {
    /// Always first. Once.
    Hello(Hello),
    /// Asks for sockets that connect from inside the namespace. While fewer than
    /// [`MAX_REQUESTS`] are not answered; `request` is greater than that of any before.
    SocketsWanted {
        /// Names the request.
        request: RequestId,
        /// What kind.
        kind: SocketKind,
        /// How many at most.
        count: SocketCount,
    },
    /// Asks for a listener on the namespace's loopback. As `SocketsWanted`.
    ListenerWanted {
        /// Names the request.
        request: RequestId,
        /// Where.
        listener: NamespaceListener,
    },
    /// Flows of the addresses that a snapshot says are leaving were reset. Once for each such snapshot at
    /// most; it may be left out, which costs the removal of these addresses a moment.
    FlowsReset {
        /// Which snapshot.
        generation: Generation,
    },
}

/// What process 1 of the namespace may say to the supervisor. Both run the same program image, so there
/// is no `Hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitToSupervisor {
    /// A step of preparing the namespace failed, but COMMAND can run. Any number, before `Ready`.
    Warning(Text<1024>),
    /// Why the process is about to end. Once, last.
    Failed(Text<1024>),
    /// The namespaces are prepared. Once. Descriptors: the user namespace, the network namespace.
    Ready,
    /// COMMAND was ended by this signal. Once, last, after `Release`.
    Killed(i32),
    /// COMMAND was stopped by this signal. Any number, after `Release`.
    Stopped(i32),
    /// COMMAND goes on. Once for each `Continue`: what was sent before is out of date.
    Continued,
}

/// What the supervisor may say to process 1 of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorToInit {
    /// COMMAND may start. Once, after `Ready`.
    Release,
    /// COMMAND is to go on. After `Stopped`.
    Continue(TerminalGround),
}

/// Whether a process group is the one that the terminal belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminalGround {
    /// It is.
    Foreground,
    /// Another one is, or there is no terminal.
    Background,
}

/// What a datapath that isolates itself may say to the supervisor, before it has read anything and
/// before `Hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IsolationToSupervisor {
    /// The process that is the datapath from now on: a new child of the supervisor, or the same process.
    /// Once.
    Successor(ProcessId),
    /// What the kernel tells others about that process, which sends it. Once; before or after `Successor`.
    /// Descriptor: its `/proc/self/status`, open.
    StatusFile,
}

/// What the supervisor in the background may say to the process that the caller waits for. Both run the
/// same program image, so there is no `Hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorToCaller {
    /// All is configured, bound and confined. Once, last.
    Ready,
    /// Why it is about to end. Once, last.
    Failed(Text<1024>),
}

/// What the process that the caller waits for may say to the supervisor: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallerToSupervisor {}

/// What the supervisor may say to a datapath that isolates itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorToIsolation {
    /// How it is to isolate itself. Once.
    Isolate(Isolation),
}

/// How a datapath isolates itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Where the rights for it come from.
    pub rights: IsolationRights,
    /// What is tried where pivot_root(2) is refused.
    pub root: RootFallback,
}

/// Where the rights to isolate a process come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IsolationRights {
    /// From a user namespace of its own.
    UserNamespace,
    /// It was started by root where user namespaces are switched off, and becomes this user afterwards.
    Root(UserId),
}

/// The id of a process in the supervisor's PID namespace; positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct ProcessId(i32);

/// Zero and negative numbers name no process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAProcessId;

impl fmt::Display for NotAProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("process id is not positive")
    }
}

impl std::error::Error for NotAProcessId {}

impl TryFrom<i32> for ProcessId {
    type Error = NotAProcessId;

    fn try_from(id: i32) -> Result<Self, NotAProcessId> {
        if id > 0 { Ok(Self(id)) } else { Err(NotAProcessId) }
    }
}

impl From<ProcessId> for i32 {
    fn from(id: ProcessId) -> Self {
        id.0
    }
}

/// Most requests of the datapath that are not answered.
pub const MAX_REQUESTS: usize = 64;

impl Message for SupervisorToMonitor {
    const LIMIT: usize = 64 * 1024;
    const MAX_FDS: usize = 5;

    fn descriptors(&self) -> usize {
        match self {
            Self::Start(start) => 4 + usize::from(start.ports.looks_at_host()),
            Self::Explain(_) => 1,
            Self::Hello(_)
            | Self::Shutdown
            | Self::StatusWanted
            | Self::ResyncWanted
            | Self::Forwards(_) => 0,
        }
    }
}

impl Message for MonitorToSupervisor {
    const LIMIT: usize = 64 * 1024;
    const MAX_FDS: usize = 1;

    fn descriptors(&self) -> usize {
        usize::from(matches!(self, Self::TapReady(_) | Self::StatusFile))
    }
}

impl Message for SupervisorToDatapath {
    const LIMIT: usize = 64 * 1024;
    const MAX_FDS: usize = MAX_LISTENERS;

    fn descriptors(&self) -> usize {
        match self {
            Self::Start(start) => {
                usize::from(start.tap.is_some()) + usize::from(start.capture == Captured::Yes)
            }
            Self::Listeners(listeners) => listeners.as_slice().len(),
            Self::Hello(_)
            | Self::Resolvers(_)
            | Self::Forwards(_)
            | Self::Shutdown
            | Self::Change(_)
            | Self::StatusWanted { .. } => 0,
        }
    }
}

impl Message for DatapathToSupervisor {
    const LIMIT: usize = 64 * 1024;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        0
    }
}

impl Message for MonitorToDatapath {
    const LIMIT: usize = 64 * 1024;
    const MAX_FDS: usize = MAX_SOCKETS as usize;

    fn descriptors(&self) -> usize {
        match self {
            Self::Sockets { count, .. } => usize::from(count.get()),
            Self::Listener { .. } => 1,
            Self::Hello(_)
            | Self::Network(_)
            | Self::Ports(_)
            | Self::Neighbours(_)
            | Self::Refused { .. } => 0,
        }
    }
}

impl Message for DatapathToMonitor {
    const LIMIT: usize = 512;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        0
    }
}

impl Message for InitToSupervisor {
    const LIMIT: usize = 2 * 1024;
    const MAX_FDS: usize = 2;

    fn descriptors(&self) -> usize {
        match self {
            Self::Ready => 2,
            Self::Warning(_)
            | Self::Failed(_)
            | Self::Killed(_)
            | Self::Stopped(_)
            | Self::Continued => 0,
        }
    }
}

impl Message for SupervisorToInit {
    const LIMIT: usize = 16;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        0
    }
}

impl Message for IsolationToSupervisor {
    const LIMIT: usize = 16;
    const MAX_FDS: usize = 1;

    fn descriptors(&self) -> usize {
        usize::from(matches!(self, Self::StatusFile))
    }
}

impl Message for SupervisorToIsolation {
    const LIMIT: usize = 16;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        0
    }
}

impl Message for SupervisorToCaller {
    const LIMIT: usize = 2 * 1024;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        0
    }
}

impl Message for CallerToSupervisor {
    const LIMIT: usize = 16;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        match *self {}
    }
}

#[cfg(test)]
mod tests;
