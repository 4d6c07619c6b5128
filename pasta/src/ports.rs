#![forbid(unsafe_code)]
//! Forwarded ports: what `-t`, `-u`, `-T` and `-U` say, as rules.
//!
//! Each option is read by itself ([`spec`]); what all of them add up to depends on the families that are
//! served and on two settings of the host, and is worked out here, after everything else of the command
//! line is known.
//!
//! An option that is not given means `auto`. Where rules overlap, two that name a port clash and are
//! refused; one that takes every port (`all`, `auto`, exclusions) leaves those out that another names.

pub mod spec;

use pasta_ipc::forward::{
    Direction, Effort, ForwardRule, MAX_RULES, PortRange, PortWatch, RawRule, Transport, Watched,
};
use pasta_ipc::types::{IfName, Service};
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

    /// Which way its connections go.
    pub fn direction(self) -> Direction {
        match self {
            Self::TcpIn | Self::UdpIn => Direction::Inbound,
            Self::TcpOut | Self::UdpOut => Direction::Outbound,
        }
    }

    /// What it forwards.
    pub fn transport(self) -> Transport {
        match self {
            Self::TcpIn | Self::TcpOut => Transport::Tcp,
            Self::UdpIn | Self::UdpOut => Transport::Udp,
        }
    }
}

/// What the host allows, from its sysctls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct System {
    /// Lowest port that takes no right to bind (`net.ipv4.ip_unprivileged_port_start`).
    pub unprivileged_start: u16,
    /// Ports that the kernel hands out by itself (`net.ipv4.ip_local_port_range`).
    pub ephemeral: PortRange,
}

impl System {
    /// What applies where the host does not say: RFC 6335, section 6, for the ephemeral ports.
    pub fn fallback() -> Self {
        // The constants are in order and not zero.
        let ephemeral = PortRange::new(49152, 65535);
        let ephemeral = ephemeral.unwrap_or_else(|_| unreachable!("a range of constants"));
        Self { unprivileged_start: 1024, ephemeral }
    }
}

/// The first port of a network namespace that takes no right to bind, unless its users change that.
const NAMESPACE_UNPRIVILEGED_START: u16 = 1024;

/// Everything that is to be forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwards {
    /// Into the namespace.
    pub inbound: Vec<ForwardRule>,
    /// Out of it.
    pub outbound: Vec<ForwardRule>,
    /// What was left out of what was asked for; one line each.
    pub remarks: Vec<String>,
}

impl Forwards {
    /// Whose listening ports have to be known.
    pub fn watched(&self) -> PortWatch {
        let watched = |rules: &[ForwardRule]| {
            let auto = rules.iter().any(|rule| rule.effort() == Effort::Auto);
            if auto { Watched::Yes } else { Watched::No }
        };
        PortWatch { namespace: watched(&self.inbound), host: watched(&self.outbound) }
    }
}

/// Options about ports that do not fit each other, or what is served. The text is a whole line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash(String);

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Clash {}

/// A rule while the others are still to come.
#[derive(Clone, Debug)]
struct Draft {
    option: PortOption,
    text: String,
    listen: Option<IpAddr>,
    interface: Option<IfName>,
    ports: PortRange,
    target: Option<IpAddr>,
    target_first: u16,
    effort: Effort,
}

/// Adds up `specs`, in their order.
///
/// # Errors
///
/// [`Clash`]: two rules for one port, a family that is not served, `none` after rules, too many rules.
pub fn add_up(
    specs: &[(PortOption, Spec)],
    ipv4: Service,
    ipv6: Service,
    system: System,
) -> Result<Forwards, Clash> {
    let mut forwards = Forwards::default();
    let implied = Spec::auto();
    let missing = PortOption::ALL
        .into_iter()
        .filter(|option| !specs.iter().any(|(given, _)| given == option))
        .map(|option| (option, &implied));
    let given = specs.iter().map(|(option, spec)| (*option, spec));
    let mut drafts: Vec<Draft> = Vec::new();
    for (option, spec) in given.chain(missing) {
        match &spec.list {
            List::None => {
                if drafts.iter().any(|draft| draft.option == option) {
                    let name = option.name();
                    return Err(Clash(format!("'{name} none' after other ports of {name}")));
                }
            }
            List::Ports(chunks) => {
                check_family(option, spec, ipv4, ipv6)?;
                let (new, remark) = draft(option, spec, chunks, system);
                forwards.remarks.extend(remark);
                for draft in new {
                    place(&mut drafts, draft)?;
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
            return Err(Clash(format!("more than {MAX_RULES} rules for ports ({what:?})")));
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
) -> Result<(), Clash> {
    let off = match spec.listen {
        Some(IpAddr::V4(_)) if ipv4 == Service::Off => "IPv4",
        Some(IpAddr::V6(_)) if ipv6 == Service::Off => "IPv6",
        _ => return Ok(()),
    };
    Err(Clash(format!("'{} {}': {off} is switched off", option.name(), spec.text)))
}

/// The rules of one option, and what was left out of them.
fn draft(
    option: PortOption,
    spec: &Spec,
    chunks: &[Chunk],
    system: System,
) -> (Vec<Draft>, Option<String>) {
    let rule = |ports: PortRange, target: Option<Target>, effort| {
        let Target { address, first } = target.unwrap_or_default();
        Draft {
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
    // Nothing but exclusions, or `auto`, is about every port.
    if all.is_none() && !drafts.is_empty() {
        return (drafts, None);
    }
    let Ok(every) = PortRange::new(1, u16::MAX) else { return (drafts, None) };
    let effort = if is_auto { Effort::Auto } else { Effort::BestEffort };
    let target = all.flatten().map(|address| Target { address: Some(address), first: None });
    let start = match option.direction() {
        Direction::Inbound => system.unprivileged_start,
        Direction::Outbound => NAMESPACE_UNPRIVILEGED_START,
    };
    let low = PortRange::new(1, start.saturating_sub(1)).ok();
    let mut not: Vec<PortRange> = excluded;
    not.extend(low);
    not.push(system.ephemeral);
    not.extend(drafts.iter().map(|draft| draft.ports));
    drafts.extend(without(vec![rule(every, target, effort)], &not));
    let remark = low.filter(|_| effort == Effort::BestEffort).map(|low| {
        format!(
            "'{} {}': ports {low} are left out, they take a right to bind (name them to have them)",
            option.name(),
            spec.text
        )
    });
    (drafts, remark)
}

/// What is left of `drafts` without the ports of `not`; a rule with a hole becomes two.
fn without(mut drafts: Vec<Draft>, not: &[PortRange]) -> Vec<Draft> {
    for hole in not {
        drafts = drafts.into_iter().flat_map(|draft| draft.cut(*hole)).collect();
    }
    drafts
}

/// Adds a rule to those that are there. Of two that name a port neither gives way; else the one that
/// names it has it, and among equals the first.
fn place(drafts: &mut Vec<Draft>, new: Draft) -> Result<(), Clash> {
    let explicit = |draft: &Draft| draft.effort == Effort::Explicit;
    let clash = drafts.iter().find(|old| explicit(old) && explicit(&new) && old.clashes(&new));
    if let Some(old) = clash {
        return Err(Clash(format!(
            "conflict: '{} {}' and '{} {}' listen on the same {} port",
            old.option.name(),
            old.text,
            new.option.name(),
            new.text,
            old.option.transport()
        )));
    }
    let give_way = |weak: Draft, strong: &Draft| {
        if strong.clashes(&weak) { weak.cut(strong.ports) } else { vec![weak] }
    };
    let old = std::mem::take(drafts).into_iter();
    let old =
        old.flat_map(|old| if old.effort > new.effort { give_way(old, &new) } else { vec![old] });
    *drafts = old.collect();
    let mut rest = vec![new];
    for old in drafts.iter() {
        rest = rest.into_iter().flat_map(|new| give_way(new, old)).collect();
    }
    drafts.extend(rest);
    Ok(())
}

impl Draft {
    /// Whether both would listen on one port of one address and interface.
    fn clashes(&self, other: &Self) -> bool {
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

    /// What is left of the rule without the ports of `hole`.
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

    fn finish(self) -> Result<ForwardRule, Clash> {
        let Self { option, text, listen, interface, ports, target, target_first, effort } = self;
        let transport = option.transport();
        let raw = RawRule { transport, listen, interface, ports, target, target_first, effort };
        ForwardRule::try_from(raw)
            .map_err(|error| Clash(format!("'{} {text}': {error}", option.name())))
    }
}

#[cfg(test)]
mod tests;
