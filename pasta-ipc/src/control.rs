//! The control socket: what clients and the supervisor may say to each other.
//!
//! The supervisor serves one request of a client at a time, and reads the next one only after the answer has left.
//! A change of the forwarded ports names the state that it was made from, so that of two clients at the same time
//! one gets [`ChangeResult::Stale`], and nothing of the other's change is undone.

use crate::message::{Hello, Message};
use crate::port_forward::{Direction, Effort, ForwardRule, InvalidRule, MAX_RULES, RawRule};
use crate::status::{DatapathStatus, InstanceStatus, MonitorStatus};
use crate::types::{Bounded, Generation, PortRange, Service, Text, Transport};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most entries of both directions.
pub const MAX_ENTRIES: usize = 2 * MAX_RULES;

/// Most ranges that an entry for all ports leaves out.
pub const MAX_EXCEPTIONS: usize = 255;

/// Most failures that are listed; the others are counted.
pub const MAX_FAILURES: usize = 64;

/// What was asked to be forwarded. Rules follow from it: one for all ports leaves out those that another one names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawForward", into = "RawForward")]
pub struct RequestedForward {
    direction: Direction,
    rule: ForwardRule,
    ports: RequestedPorts,
}

/// As it travels, before it is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawForward {
    /// Which way.
    pub direction: Direction,
    /// The rule for all that is asked for: with [`RequestedPorts::AllBut`] for ports 1 to 65535.
    pub rule: ForwardRule,
    /// Which of its ports.
    pub ports: RequestedPorts,
}

/// Which ports of a [`RequestedForward`]'s rule are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestedPorts {
    /// All of its ports, which were named.
    Named,
    /// All but these, and but those that the system leaves out (`auto`, `all`, exclusions only).
    AllBut(Bounded<PortRange, MAX_EXCEPTIONS>),
}

/// Why a request for forwarded ports is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidForward {
    /// Its rule is none.
    Rule(InvalidRule),
    /// Out of the namespace it is always its loopback.
    ListenOutbound,
    /// Ports are named and not followed as such, or are all and to be followed as if they were named.
    Effort,
}

impl fmt::Display for InvalidForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(error) => error.fmt(f),
            Self::ListenOutbound => {
                f.write_str("-T and -U take no address: they listen on the namespace's loopback")
            }
            Self::Effort => f.write_str("ports and effort do not go together"),
        }
    }
}

impl std::error::Error for InvalidForward {}

impl TryFrom<RawForward> for RequestedForward {
    type Error = InvalidForward;

    fn try_from(raw: RawForward) -> Result<Self, InvalidForward> {
        let RawForward { direction, rule, ports } = raw;
        let names_place = rule.listen().is_some() || rule.interface().is_some();
        if direction == Direction::Outbound && (names_place || rule.target().is_some()) {
            return Err(InvalidForward::ListenOutbound);
        }
        let is_all = (rule.ports().first(), rule.ports().last()) == (1, u16::MAX);
        let fits = match &ports {
            RequestedPorts::Named => rule.effort() != Effort::BestEffort,
            RequestedPorts::AllBut(_) => is_all && rule.effort() != Effort::Explicit,
        };
        if fits { Ok(Self { direction, rule, ports }) } else { Err(InvalidForward::Effort) }
    }
}

impl From<RequestedForward> for RawForward {
    fn from(forward: RequestedForward) -> Self {
        let RequestedForward { direction, rule, ports } = forward;
        Self { direction, rule, ports }
    }
}

impl RequestedForward {
    /// A request that is made up of its parts.
    ///
    /// # Errors
    ///
    /// [`InvalidForward`].
    pub fn new(
        direction: Direction,
        rule: RawRule,
        ports: RequestedPorts,
    ) -> Result<Self, InvalidForward> {
        let rule = ForwardRule::try_from(rule).map_err(InvalidForward::Rule)?;
        Self::try_from(RawForward { direction, rule, ports })
    }

    /// Which way.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The rule for all that is asked for.
    pub fn rule(&self) -> &ForwardRule {
        &self.rule
    }

    /// Which of its ports.
    pub fn ports(&self) -> &RequestedPorts {
        &self.ports
    }
}

impl fmt::Display for RequestedForward {
    /// As it is written on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = &self.rule;
        f.write_str(match (self.direction, rule.transport()) {
            (Direction::Inbound, Transport::Tcp) => "-t ",
            (Direction::Inbound, Transport::Udp) => "-u ",
            (Direction::Outbound, Transport::Tcp) => "-T ",
            (Direction::Outbound, Transport::Udp) => "-U ",
        })?;
        if let Some(address) = rule.listen() {
            write!(f, "{address}")?;
        }
        if let Some(interface) = rule.interface() {
            write!(f, "%{interface}")?;
        }
        if rule.listen().is_some() || rule.interface().is_some() {
            f.write_str("/")?;
        }
        match &self.ports {
            RequestedPorts::Named => {
                write!(f, "{}", rule.ports())?;
                let (first, count) = (rule.ports().first(), rule.ports().count());
                let to = rule.target_port(first).unwrap_or(first);
                let last = u32::from(to) + count - 1;
                match (rule.target(), to == first) {
                    (Some(target), true) => write!(f, ":{target}")?,
                    (Some(target), false) => write!(f, ":{target}/{}", Ports(to, last))?,
                    (None, true) => {}
                    (None, false) => write!(f, ":{}", Ports(to, last))?,
                }
                if rule.effort() == Effort::Auto { f.write_str(",auto") } else { Ok(()) }
            }
            RequestedPorts::AllBut(except) => {
                match (rule.target(), rule.effort()) {
                    (Some(target), Effort::Auto) => write!(f, "all:{target},auto")?,
                    (Some(target), _) => write!(f, "all:{target}")?,
                    (None, Effort::Auto) => f.write_str("auto")?,
                    (None, _) => f.write_str("all")?,
                }
                except.as_slice().iter().try_for_each(|ports| write!(f, ",~{ports}"))
            }
        }
    }
}

struct Ports(u16, u32);

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(first, last) = self;
        if u32::from(*first) == *last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

/// Who asked for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Nobody: an option that is not given means `auto`.
    Default,
    /// An option of the command line.
    CommandLine,
    /// A client of the control socket: its user and its process.
    Client {
        /// The user, as our user namespace knows it.
        uid: u32,
        /// The process, as our PID namespace knows it; it may have ended.
        pid: i32,
    },
}

/// What is forwarded, and who asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardEntry {
    /// What.
    pub forward: RequestedForward,
    /// Who.
    pub origin: Origin,
}

/// All that is forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardState {
    /// Grows by one with each change.
    pub generation: Generation,
    /// Whether IPv4 is served.
    pub ipv4: Service,
    /// Whether IPv6 is served.
    pub ipv6: Service,
    /// In the order in which they were asked for.
    pub entries: Bounded<ForwardEntry, MAX_ENTRIES>,
}

/// A change of what is forwarded: the whole of it, as it is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardChange {
    /// The state that it was made from.
    pub base: Generation,
    /// What is to be forwarded.
    pub forwards: Bounded<RequestedForward, MAX_ENTRIES>,
    /// What happens if a port that is named cannot be listened on.
    pub on_failure: OnFailure,
}

/// What happens to a change of which a part is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// Nothing of it is done.
    RollBack,
    /// The requests that can be met are.
    KeepRest,
}

/// A port of a request that cannot be listened on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardFailure {
    /// The request.
    pub forward: RequestedForward,
    /// The first of its ports.
    pub port: u16,
    /// Why, as the kernel has it.
    pub errno: i32,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeResult {
    /// It is done.
    Applied {
        /// The generation of the state that holds now.
        generation: Generation,
        /// Requests that were left out ([`OnFailure::KeepRest`]).
        left_out: Bounded<ForwardFailure, MAX_FAILURES>,
    },
    /// It could not be done, and the state before holds.
    RolledBack {
        /// Why.
        failures: Bounded<ForwardFailure, MAX_FAILURES>,
    },
    /// It makes no sense, and was not tried.
    Refused(Text<512>),
    /// The state that it was made from is not the present one.
    Stale(Generation),
}

/// What a client may say to the supervisor. Treated as hostile on arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientToSupervisor {
    /// Always first. Once.
    Hello(Hello),
    /// Asks for [`SupervisorToClient::Forwards`].
    ForwardsWanted,
    /// Asks for what it says; answered with [`SupervisorToClient::Changed`].
    Change(Box<ForwardChange>),
    /// Asks for [`SupervisorToClient::Instance`], `Forwards`, `Monitor` and `Datapath`, in this order.
    StatusWanted {
        /// How many flows are to be listed, those with the most octets first; [`crate::status::MAX_TOP`] at most.
        flows: u8,
    },
    /// Asks that host and namespace are read again; answered with [`SupervisorToClient::ResyncSent`].
    ResyncWanted,
}

/// What the supervisor may say to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorToClient {
    /// Always first. Once.
    Hello(Hello),
    /// All that is forwarded.
    Forwards(Box<ForwardState>),
    /// What became of a change.
    Changed(Box<ChangeResult>),
    /// The instance as a whole.
    Instance(Box<InstanceStatus>),
    /// What the monitor says; none if it has ended or does not answer.
    Monitor(Option<Box<MonitorStatus>>),
    /// What the datapath says; none if it has ended or does not answer. Last part of a status.
    Datapath(Option<Box<DatapathStatus>>),
    /// The monitor was asked to read again.
    ResyncSent,
    /// It is not served, and why. Last: the connection is closed.
    Refused(Text<512>),
}

impl Message for ClientToSupervisor {
    const LIMIT: usize = 64 * 1024;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        0
    }
}

impl Message for SupervisorToClient {
    const LIMIT: usize = 64 * 1024;
    const MAX_FDS: usize = 0;

    fn descriptors(&self) -> usize {
        0
    }
}
