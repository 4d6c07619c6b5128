//! What each process says of its state, on request.

use crate::port_forward::{Direction, FamilyPorts};
use crate::types::{Bounded, FamilyState, Generation, PortRange, Text};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Most flows that a status lists.
pub const MAX_TOP: usize = 64;

/// Most counters of a status.
pub const MAX_COUNTERS: usize = 64;

/// Most rules of both directions.
const MAX_RULES: usize = 2 * crate::port_forward::MAX_RULES;

/// Most ranges of listening ports of one transport and family.
const MAX_LISTENING: usize = 512;

/// The instance as a whole, as the supervisor knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// The version of the programs.
    pub version: Text<32>,
    /// The supervisor's process id.
    pub pid: i32,
    /// The monitor's, as it was at the start.
    pub monitor_pid: Option<i32>,
    /// The datapath's, as it was at the start.
    pub datapath_pid: Option<i32>,
    /// Since it supervises, in seconds.
    pub uptime_s: u64,
    /// What is connected: the command, or the namespace.
    pub target: Text<256>,
    /// The host's resolvers, a line.
    pub resolvers: Text<1024>,
    /// The lowest port of the host that can be listened on without a capability
    /// (`net.ipv4.ip_unprivileged_port_start`), as read at the start.
    pub unprivileged_start: u16,
    /// For each rule that a [`RuleStatus`] is about, in the order of the tables: the entry that it follows from.
    pub inbound: Bounded<RuleOfEntry, { crate::port_forward::MAX_RULES }>,
    /// As `inbound`, out of the namespace.
    pub outbound: Bounded<RuleOfEntry, { crate::port_forward::MAX_RULES }>,
}

/// A rule and the entry that it follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleOfEntry {
    /// Its place in the list of entries.
    pub entry: u16,
    /// Its ports.
    pub ports: PortRange,
}

/// How the host is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// By events.
    #[default]
    Live,
    /// Events were lost, and all is to be read again.
    Resync,
    /// By reading it every few seconds: there are no events.
    Poll,
    /// Not at all: it cannot be read.
    Blind,
    /// Not at all, as was asked for.
    Off,
}

/// What the monitor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorStatus {
    /// How things stand, in lines for the log.
    pub lines: Bounded<Text<240>, 64>,
    /// What of it is structured; none where nothing is followed.
    pub network: Option<NetworkStatus>,
    /// Who listens in the namespace; none where the kernel does not say.
    pub namespace: Option<Box<ListeningPorts>>,
    /// Who listens on the host; none where the kernel does not say or nobody may ask.
    pub host: Option<Box<ListeningPorts>>,
}

/// The network, as the monitor has made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Number of the newest snapshot.
    pub generation: Generation,
    /// How the host is watched.
    pub health: Health,
    /// IPv4.
    pub ipv4: FamilyStatus,
    /// IPv6.
    pub ipv6: FamilyStatus,
    /// The tap; none while it is not configured, or gone.
    pub tap: Option<TapStatus>,
    /// What has happened so far.
    pub events: EventCounts,
}

/// One family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyStatus {
    /// Its binding.
    pub state: FamilyState,
    /// The template's name and number.
    pub template: Option<Text<32>>,
    /// For how long, in seconds.
    pub since_s: u64,
    /// The namespace's addresses that we have assigned, with the length of their prefix.
    pub addresses: Bounded<Text<48>, 16>,
    /// The gateway that the namespace was given.
    pub gateway: Option<IpAddr>,
    /// Where this comes from, and what is to come.
    pub source: Text<160>,
}

/// The tap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapStatus {
    /// Its name in the namespace.
    pub name: Text<15>,
    /// Whether it is up.
    pub up: bool,
    /// Its MTU.
    pub mtu: u32,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// Events that changed the view.
    pub used: u64,
    /// Events that changed nothing.
    pub ignored: u64,
    /// Messages that could not be read.
    pub bad: u64,
    /// How often events were lost.
    pub overruns: u64,
    /// How often all was read again.
    pub resyncs: u64,
    /// How often the host was read.
    pub looks: u64,
    /// How often the state of a family or its template changed.
    pub transitions: u64,
    /// How long the last change took until all was done, in microseconds.
    pub last_apply_us: u64,
    /// And the longest.
    pub max_apply_us: u64,
}

/// Ports that are listened on, by transport and family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningPorts {
    /// TCP over IPv4.
    pub tcp_ipv4: Bounded<PortRange, MAX_LISTENING>,
    /// TCP over IPv6.
    pub tcp_ipv6: Bounded<PortRange, MAX_LISTENING>,
    /// UDP over IPv4.
    pub udp_ipv4: Bounded<PortRange, MAX_LISTENING>,
    /// UDP over IPv6.
    pub udp_ipv6: Bounded<PortRange, MAX_LISTENING>,
}

impl ListeningPorts {
    /// From the sets of TCP and UDP ports; what is beyond the bound is left out, the highest ports first.
    pub fn new(tcp: &FamilyPorts, udp: &FamilyPorts) -> Self {
        let ranges = |ports: &crate::types::PortSet| {
            let mut ranges: Vec<(u16, u16)> = Vec::new();
            for port in ports.iter().filter(|port| *port != 0) {
                match ranges.last_mut() {
                    Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
                    _ => ranges.push((port, port)),
                }
            }
            let ranges = ranges.into_iter().filter_map(|(a, b)| PortRange::new(a, b).ok());
            Bounded::truncated(ranges).0
        };
        Self {
            tcp_ipv4: ranges(&tcp.ipv4),
            tcp_ipv6: ranges(&tcp.ipv6),
            udp_ipv4: ranges(&udp.ipv4),
            udp_ipv6: ranges(&udp.ipv6),
        }
    }
}

/// What the datapath says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathStatus {
    /// The generation of the rules that hold.
    pub forwards: Generation,
    /// Counts since the start, by name.
    pub counters: Bounded<Counter, MAX_COUNTERS>,
    /// Frames and datagrams that were dropped, by reason.
    pub drops: Bounded<Counter, MAX_COUNTERS>,
    /// How many flows there are.
    pub flows: FlowCounts,
    /// Descriptors.
    pub descriptors: Usage,
    /// Octets that the namespace has sent and its sockets have not taken.
    pub backlog: u64,
    /// Octets of windows that are advertised to the namespace, and the limit that they share.
    pub window_credit: Usage,
    /// Each rule.
    pub rules: Bounded<RuleStatus, MAX_RULES>,
    /// The flows that have carried most, if asked for.
    pub top: Bounded<FlowStatus, MAX_TOP>,
}

/// A count with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The name: lower case, words with blanks between them.
    pub name: Text<40>,
    /// The count.
    pub value: u64,
}

/// How many flows there are, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounts {
    /// TCP connections through the tap.
    pub tcp: u32,
    /// TCP connections that are joined socket to socket.
    pub spliced: u32,
    /// UDP and echo.
    pub datagram: u32,
    /// Most flows in all.
    pub limit: u32,
}

/// How much of something is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// So much.
    pub used: u64,
    /// Of so much.
    pub limit: u64,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Which table it is in.
    pub direction: Direction,
    /// Its place there.
    pub rule: u16,
    /// Ports of it that are listened on.
    pub open: u32,
    /// Ports of it that cannot be listened on.
    pub refused: u32,
    /// The first of those, and why, as the kernel has it.
    pub first_refused: Option<(u16, i32)>,
    /// Connections and UDP flows that came to its listeners, and were opened.
    pub accepted: u64,
    /// Those that came and could not be opened.
    pub failed: u64,
}

/// What kind of flow it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowKind {
    /// A TCP connection through the tap.
    Tcp,
    /// A TCP connection that is joined socket to socket.
    Spliced,
    /// A UDP flow.
    Udp,
    /// An echo flow.
    Echo,
}

/// One flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// What it is.
    pub kind: FlowKind,
    /// Its end in the namespace, as far as there are frames.
    pub namespace: Option<SocketAddr>,
    /// Its other end, as the namespace sees it.
    pub remote: Option<SocketAddr>,
    /// Octets of payload for the namespace.
    pub to_namespace: u64,
    /// Octets of payload from it.
    pub from_namespace: u64,
}

impl RuleStatus {
    /// Of a rule of which nothing is known.
    pub fn empty(direction: Direction, rule: u16) -> Self {
        let (open, refused, first_refused, accepted, failed) = (0, 0, None, 0, 0);
        Self { direction, rule, open, refused, first_refused, accepted, failed }
    }
}
