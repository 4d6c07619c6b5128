#![forbid(unsafe_code)]
//! Port forwards: the rules that follow from `-t`, `-u`, `-T` and `-U`.
//!
//! Each option is parsed by itself ([`spec`]). The rules also depend on the families that are served and
//! on two sysctls of the host, so they are built here, after the rest of the command line.
//!
//! An option that is not given means `auto`. Two rules that both name a port conflict and are refused. A
//! rule for every port (`all`, `auto`, exclusions) excludes the ports that another rule names.

pub mod spec;

use pasta_ipc::port_forward::{
    Direction, Effort, ForwardRule, MAX_RULES, PortWatch, RawRule, Watched,
};
use pasta_ipc::types::{IfName, PortRange, Service, Transport};
use spec::{Chunk, List, Spec, Target};
use std::fmt;
use std::net::IpAddr;

/// One of the four options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortOption {
    /// `-t`
    TcpIn,
    /// `-u`
    UdpIn,
    /// `-T`
    TcpOut,
    /// `-U`
    UdpOut,
}

impl PortOption {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TcpIn, Self::UdpIn, Self::TcpOut, Self::UdpOut];

    /// Its letter, with the dash.
    pub fn name(self) -> &'static str {
        match self {
            Self::TcpIn => "-t",
            Self::UdpIn => "-u",
            Self::TcpOut => "-T",
            Self::UdpOut => "-U",
        }
    }

    /// The direction of its connections.
    pub fn direction(self) -> Direction {
        match self {
            Self::TcpIn | Self::UdpIn => Direction::Inbound,
            Self::TcpOut | Self::UdpOut => Direction::Outbound,
        }
    }

    /// The transport protocol.
    pub fn transport(self) -> Transport {
        match self {
            Self::TcpIn | Self::TcpOut => Transport::Tcp,
            Self::UdpIn | Self::UdpOut => Transport::Udp,
        }
    }
}

/// Sysctls of the host about ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct System {
    /// Lowest port that can be bound without a capability (`net.ipv4.ip_unprivileged_port_start`).
    pub unprivileged_start: u16,
    /// Lowest port that the monitor can bind in the namespace: 1 with its capability there. A resolver at
    /// port 53 of the host's loopback is the commonest reason.
    pub namespace_start: u16,
    /// Ports that the kernel allocates itself (`net.ipv4.ip_local_port_range`).
    pub ephemeral: PortRange,
}

impl System {
    /// Defaults for sysctls that cannot be read. The ephemeral ports are those of RFC 6335, section 6.
    pub fn fallback() -> Self {
        // The constants are in order and not zero.
        let ephemeral = PortRange::new(49152, 65535);
        let ephemeral = ephemeral.unwrap_or_else(|_| unreachable!("a range of constants"));
        Self { unprivileged_start: 1024, namespace_start: 1, ephemeral }
    }
}

/// The rules of both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwards {
    /// Into the namespace.
    pub inbound: Vec<ForwardRule>,
    /// Out of it.
    pub outbound: Vec<ForwardRule>,
    /// Ports that were excluded although they were requested; one line each.
    pub remarks: Vec<String>,
}

impl Forwards {
    /// The sides whose listening ports have to be watched.
    pub fn watched(&self) -> PortWatch {
        let watched = |rules: &[ForwardRule]| {
            let auto = rules.iter().any(|rule| rule.effort() == Effort::Auto);
            if auto { Watched::Yes } else { Watched::No }
        };
        PortWatch { namespace: watched(&self.inbound), host: watched(&self.outbound) }
    }
}

/// Options of ports that conflict with each other or with the families served. The text is a whole line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict(String);

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Conflict {}

/// A rule that may still be cut by others.
#[derive(Clone, Debug)]
struct DraftRule {
    option: PortOption,
    text: String,
    listen: Option<IpAddr>,
    interface: Option<IfName>,
    ports: PortRange,
    target: Option<IpAddr>,
    target_first: u16,
    effort: Effort,
}

/// UDP ports of clients of DHCP (RFC 2131, section 4.1) and DHCPv6 (RFC 8415, section 7.2). Nobody offers a service
/// there, and the host's client would keep one in the namespace from its port.
const DHCP_CLIENTS: [u16; 2] = [68, 546];

/// Builds the rules of `specs`, in their order.
///
/// # Errors
///
/// [`Conflict`]: two rules for one port, a family that is not served, `none` after rules, too many rules.
pub fn build_rules(
    specs: &[(PortOption, Spec)],
    ipv4: Service,
    ipv6: Service,
    system: System,
) -> Result<Forwards, Conflict> {
    let mut forwards = Forwards::default();
    let implied = Spec::auto();
    let missing = PortOption::ALL
        .into_iter()
        .filter(|option| !specs.iter().any(|(given, _)| given == option))
        .map(|option| (option, &implied));
    let given = specs.iter().map(|(option, spec)| (*option, spec));
    let mut drafts: Vec<DraftRule> = Vec::new();
    for (option, spec) in given.chain(missing) {
        match &spec.list {
            List::None => {
                if drafts.iter().any(|draft| draft.option == option) {
                    let name = option.name();
                    return Err(Conflict(format!("'{name} none' after other ports of {name}")));
                }
            }
            List::Ports(chunks) => {
                check_family(option, spec, ipv4, ipv6)?;
                let (new, remark) = draft(option, spec, chunks, system);
                forwards.remarks.extend(remark);
                for draft in new {
                    insert(&mut drafts, draft)?;
                }
            }
        }
    }
    for draft in drafts {
        let table = match draft.option.direction() {
            Direction::Inbound => &mut forwards.inbound,
            Direction::Outbound => &mut forwards.outbound,
        };
        if table.len() == MAX_RULES {
            let what = draft.option.direction();
            return Err(Conflict(format!("more than {MAX_RULES} rules for ports ({what:?})")));
        }
        table.push(draft.finish()?);
    }
    Ok(forwards)
}

fn check_family(
    option: PortOption,
    spec: &Spec,
    ipv4: Service,
    ipv6: Service,
) -> Result<(), Conflict> {
    let off = match spec.listen {
        Some(IpAddr::V4(_)) if ipv4 == Service::Off => "IPv4",
        Some(IpAddr::V6(_)) if ipv6 == Service::Off => "IPv6",
        _ => return Ok(()),
    };
    Err(Conflict(format!("'{} {}': {off} is switched off", option.name(), spec.text)))
}

/// The rules of one option, and a line about ports that were excluded.
fn draft(
    option: PortOption,
    spec: &Spec,
    chunks: &[Chunk],
    system: System,
) -> (Vec<DraftRule>, Option<String>) {
    let rule = |ports: PortRange, target: Option<Target>, effort| {
        let Target { address, first } = target.unwrap_or_default();
        DraftRule {
            option,
            text: spec.text.clone(),
            listen: spec.listen,
            interface: spec.interface.clone(),
            ports,
            target: address,
            target_first: first.unwrap_or(ports.first()),
            effort,
        }
    };
    let is_auto = chunks.contains(&Chunk::Auto);
    let excluded: Vec<PortRange> = chunks
        .iter()
        .filter_map(|chunk| if let Chunk::Except(ports) = chunk { Some(*ports) } else { None })
        .collect();
    let mut drafts = Vec::new();
    let named = chunks.iter().filter_map(|chunk| match chunk {
        Chunk::Ports(ports, target) => Some((*ports, *target)),
        _ => None,
    });
    for (ports, target) in named {
        let effort = if is_auto { Effort::Auto } else { Effort::Explicit };
        drafts.push(rule(ports, target, effort));
    }
    drafts = without(drafts, &excluded);
    let all = chunks.iter().find_map(|chunk| match chunk {
        Chunk::All(address) => Some(*address),
        _ => None,
    });
    // A list of exclusions only, or `auto`, means every port.
    if all.is_none() && !drafts.is_empty() {
        return (drafts, None);
    }
    let Ok(every) = PortRange::new(1, u16::MAX) else { return (drafts, None) };
    let effort = if is_auto { Effort::Auto } else { Effort::BestEffort };
    let target = all.flatten().map(|address| Target { address: Some(address), first: None });
    let start = match option.direction() {
        Direction::Inbound => system.unprivileged_start,
        Direction::Outbound => system.namespace_start,
    };
    let low = PortRange::new(1, start.saturating_sub(1)).ok();
    let mut not: Vec<PortRange> = excluded;
    not.extend(low);
    not.push(system.ephemeral);
    if option.transport() == Transport::Udp {
        not.extend(DHCP_CLIENTS.into_iter().filter_map(|port| PortRange::new(port, port).ok()));
    }
    not.extend(drafts.iter().map(|draft| draft.ports));
    drafts.extend(without(vec![rule(every, target, effort)], &not));
    let remark = low.filter(|_| effort == Effort::BestEffort).map(|low| {
        format!(
            "'{} {}': ports {low} are excluded, they need a capability to bind (name them to include them)",
            option.name(),
            spec.text
        )
    });
    (drafts, remark)
}

/// `drafts` without the ports of `not`; a rule with a hole is split in two.
fn without(mut drafts: Vec<DraftRule>, not: &[PortRange]) -> Vec<DraftRule> {
    for hole in not {
        drafts = drafts.into_iter().flat_map(|draft| draft.cut(*hole)).collect();
    }
    drafts
}

/// Adds a rule. Two explicit rules for a port conflict; otherwise the rule with more effort keeps the
/// port, and among equals the first.
fn insert(drafts: &mut Vec<DraftRule>, new: DraftRule) -> Result<(), Conflict> {
    let explicit = |draft: &DraftRule| draft.effort == Effort::Explicit;
    let conflict = drafts.iter().find(|old| explicit(old) && explicit(&new) && old.conflicts(&new));
    if let Some(old) = conflict {
        return Err(Conflict(format!(
            "conflict: '{} {}' and '{} {}' listen on the same {} port",
            old.option.name(),
            old.text,
            new.option.name(),
            new.text,
            old.option.transport()
        )));
    }
    let cut_by = |weak: DraftRule, strong: &DraftRule| {
        if strong.conflicts(&weak) { weak.cut(strong.ports) } else { vec![weak] }
    };
    let old = std::mem::take(drafts).into_iter();
    let old =
        old.flat_map(|old| if old.effort > new.effort { cut_by(old, &new) } else { vec![old] });
    *drafts = old.collect();
    let mut rest = vec![new];
    for old in drafts.iter() {
        rest = rest.into_iter().flat_map(|new| cut_by(new, old)).collect();
    }
    drafts.extend(rest);
    Ok(())
}

impl DraftRule {
    /// Whether both would bind the same port of the same address and interface.
    fn conflicts(&self, other: &Self) -> bool {
        let same_address = match (self.listen, other.listen) {
            (Some(a), Some(b)) => {
                a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
            }
            _ => true,
        };
        let same_interface = match (&self.interface, &other.interface) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        self.option == other.option
            && same_address
            && same_interface
            && self.ports.overlaps(other.ports)
    }

    /// The rule without the ports of `hole`.
    fn cut(self, hole: PortRange) -> Vec<Self> {
        if !self.ports.overlaps(hole) {
            return vec![self];
        }
        let (first, last) = (self.ports.first(), self.ports.last());
        let before = hole.first().checked_sub(1).and_then(|end| PortRange::new(first, end).ok());
        let after = hole.last().checked_add(1).and_then(|start| PortRange::new(start, last).ok());
        let part = |ports: PortRange| {
            let target_first = self.target_first + (ports.first() - first);
            Self { ports, target_first, ..self.clone() }
        };
        before.into_iter().chain(after).map(part).collect()
    }

    fn finish(self) -> Result<ForwardRule, Conflict> {
        let Self { option, text, listen, interface, ports, target, target_first, effort } = self;
        let transport = option.transport();
        let raw = RawRule { transport, listen, interface, ports, target, target_first, effort };
        ForwardRule::try_from(raw)
            .map_err(|error| Conflict(format!("'{} {text}': {error}", option.name())))
    }
}

#[cfg(test)]
mod tests;
