#![forbid(unsafe_code)]
//! Port forwards: the rules that follow from `-t`, `-u`, `-T` and `-U`.
//!
//! Each option is parsed by itself ([`spec`]). The rules also depend on the families that are served and
//! on two sysctls of the host, so they are built here, after the rest of the command line.
//!
//! An option that is not given means `auto`. Two rules that both name a port conflict and are refused. A
//! rule for every port (`all`, `auto`, exclusions) excludes the ports that another rule names.

pub mod spec;

use pasta_ipc::control::{ForwardEntry, MAX_ENTRIES, Origin, RequestedForward, RequestedPorts};
use pasta_ipc::port_forward::{
    Direction, Effort, ForwardRule, MAX_RULES, PortWatch, RawRule, Watched,
};
use pasta_ipc::types::{Bounded, PortRange, Service, Transport};
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
    /// What was asked for.
    pub entries: Vec<ForwardEntry>,
    /// For each rule of `inbound`, the place of its entry.
    pub inbound_places: Vec<u16>,
    /// For each rule of `outbound`, the place of its entry.
    pub outbound_places: Vec<u16>,
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
    /// The entry that it follows from.
    place: u16,
    text: String,
    rule: RawRule,
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
    let implied = Spec::auto();
    let missing = PortOption::ALL
        .into_iter()
        .filter(|option| !specs.iter().any(|(given, _)| given == option))
        .map(|option| (option, &implied, Origin::Default));
    let given = specs.iter().map(|(option, spec)| (*option, spec, Origin::CommandLine));
    let mut entries: Vec<(ForwardEntry, String)> = Vec::new();
    for (option, spec, origin) in given.chain(missing) {
        if spec.list == List::None && entries.iter().any(|it| option_of(&it.0.forward) == option) {
            let name = option.name();
            return Err(Conflict(format!("'{name} none' after other ports of {name}")));
        }
        for forward in requested(option, spec)? {
            entries.push((ForwardEntry { forward, origin }, spec.text.clone()));
        }
    }
    derive(entries, ipv4, ipv6, system)
}

/// The rules that follow from `entries`, in their order; [`build_rules`] with the entries there are.
///
/// # Errors
///
/// [`Conflict`], as [`build_rules`].
pub fn rules_of(
    entries: Vec<ForwardEntry>,
    ipv4: Service,
    ipv6: Service,
    system: System,
) -> Result<Forwards, Conflict> {
    let with_text = |entry: ForwardEntry| {
        let shown = entry.forward.to_string();
        // Without the option.
        let text = shown.split_once(' ').map_or("", |(_, text)| text).to_owned();
        (entry, text)
    };
    derive(entries.into_iter().map(with_text).collect(), ipv4, ipv6, system)
}

fn derive(
    entries: Vec<(ForwardEntry, String)>,
    ipv4: Service,
    ipv6: Service,
    system: System,
) -> Result<Forwards, Conflict> {
    if entries.len() > MAX_ENTRIES {
        return Err(Conflict(format!("more than {MAX_ENTRIES} lists of ports")));
    }
    let mut forwards = Forwards::default();
    let mut drafts: Vec<DraftRule> = Vec::new();
    for (place, (entry, text)) in entries.iter().enumerate() {
        check_family(&entry.forward, text, ipv4, ipv6)?;
        let (new, remark) = draft(place, &entry.forward, text, system);
        forwards.remarks.extend(remark);
        for draft in new {
            insert(&mut drafts, draft)?;
        }
    }
    for draft in drafts {
        let (table, places) = match draft.option.direction() {
            Direction::Inbound => (&mut forwards.inbound, &mut forwards.inbound_places),
            Direction::Outbound => (&mut forwards.outbound, &mut forwards.outbound_places),
        };
        if table.len() == MAX_RULES {
            let options = match draft.option.direction() {
                Direction::Inbound => "-t and -u",
                Direction::Outbound => "-T and -U",
            };
            return Err(Conflict(format!("more than {MAX_RULES} rules of {options}")));
        }
        places.push(draft.place);
        table.push(draft.finish()?);
    }
    forwards.entries = entries.into_iter().map(|(entry, _)| entry).collect();
    Ok(forwards)
}

/// The option that asks for `forward`.
pub fn option_of(forward: &RequestedForward) -> PortOption {
    match (forward.direction(), forward.rule().transport()) {
        (Direction::Inbound, Transport::Tcp) => PortOption::TcpIn,
        (Direction::Inbound, Transport::Udp) => PortOption::UdpIn,
        (Direction::Outbound, Transport::Tcp) => PortOption::TcpOut,
        (Direction::Outbound, Transport::Udp) => PortOption::UdpOut,
    }
}

fn check_family(
    forward: &RequestedForward,
    text: &str,
    ipv4: Service,
    ipv6: Service,
) -> Result<(), Conflict> {
    let off = match forward.rule().listen() {
        Some(IpAddr::V4(_)) if ipv4 == Service::Off => "IPv4",
        Some(IpAddr::V6(_)) if ipv6 == Service::Off => "IPv6",
        _ => return Ok(()),
    };
    Err(Conflict(format!("'{} {text}': {off} is switched off", option_of(forward).name())))
}

/// What one option asks for, each range of ports by itself.
///
/// # Errors
///
/// [`Conflict`] if so much cannot be asked for at once.
pub fn requested(option: PortOption, spec: &Spec) -> Result<Vec<RequestedForward>, Conflict> {
    let List::Ports(chunks) = &spec.list else { return Ok(Vec::new()) };
    let conflict =
        |error: &dyn fmt::Display| Conflict(format!("'{} {}': {error}", option.name(), spec.text));
    let raw = |ports: PortRange, target: Option<Target>, effort| {
        let Target { address, first } = target.unwrap_or_default();
        RawRule {
            transport: option.transport(),
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
    let mut requests = Vec::new();
    for chunk in chunks {
        let Chunk::Ports(ports, target) = chunk else { continue };
        let effort = if is_auto { Effort::Auto } else { Effort::Explicit };
        for rule in without(vec![raw(*ports, *target, effort)], &excluded) {
            let request = RequestedForward::new(option.direction(), rule, RequestedPorts::Named);
            requests.push(request.map_err(|error| conflict(&error))?);
        }
    }
    let all = chunks.iter().find_map(|chunk| match chunk {
        Chunk::All(address) => Some(*address),
        _ => None,
    });
    // A list of exclusions only, or `auto`, means every port.
    if all.is_some() || requests.is_empty() {
        let Ok(every) = PortRange::new(1, u16::MAX) else { return Ok(requests) };
        let effort = if is_auto { Effort::Auto } else { Effort::BestEffort };
        let target = all.flatten().map(|address| Target { address: Some(address), first: None });
        let except = Bounded::try_from(joined(excluded)).map_err(|error| conflict(&error))?;
        let (rule, ports) = (raw(every, target, effort), RequestedPorts::AllBut(except));
        let request = RequestedForward::new(option.direction(), rule, ports);
        requests.push(request.map_err(|error| conflict(&error))?);
    }
    Ok(requests)
}

/// The same ports in order, as few ranges as possible.
fn joined(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort();
    let mut joined: Vec<PortRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if u32::from(range.first()) <= u32::from(last.last()) + 1 => {
                let end = last.last().max(range.last());
                *last = PortRange::new(last.first(), end).unwrap_or(*last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// The rules of one request, and a line about ports that were excluded.
fn draft(
    place: usize,
    forward: &RequestedForward,
    text: &str,
    system: System,
) -> (Vec<DraftRule>, Option<String>) {
    let option = option_of(forward);
    let rule = RawRule::from(forward.rule().clone());
    let place = u16::try_from(place).unwrap_or(u16::MAX);
    let (except, effort) = match forward.ports() {
        RequestedPorts::Named => {
            return (vec![DraftRule { option, place, text: text.to_owned(), rule }], None);
        }
        RequestedPorts::AllBut(except) => (except, rule.effort),
    };
    let start = match option.direction() {
        Direction::Inbound => system.unprivileged_start,
        Direction::Outbound => system.namespace_start,
    };
    let low = PortRange::new(1, start.saturating_sub(1)).ok();
    let mut not: Vec<PortRange> = except.as_slice().to_vec();
    not.extend(low);
    not.push(system.ephemeral);
    if option.transport() == Transport::Udp {
        not.extend(DHCP_CLIENTS.into_iter().filter_map(|port| PortRange::new(port, port).ok()));
    }
    let drafts = without(vec![rule], &not).into_iter();
    let drafts = drafts.map(|rule| DraftRule { option, place, text: text.to_owned(), rule });
    let remark = low.filter(|_| effort == Effort::BestEffort).map(|low| {
        format!(
            "'{} {text}': ports {low} are excluded, they need a capability to bind (name them to include them)",
            option.name(),
        )
    });
    (drafts.collect(), remark)
}

/// `rules` without the ports of `not`; a rule with a hole is split in two.
fn without(mut rules: Vec<RawRule>, not: &[PortRange]) -> Vec<RawRule> {
    for hole in not {
        rules = rules.into_iter().flat_map(|rule| cut(rule, *hole)).collect();
    }
    rules
}

/// `rule` without the ports of `hole`.
fn cut(rule: RawRule, hole: PortRange) -> Vec<RawRule> {
    if !rule.ports.overlaps(hole) {
        return vec![rule];
    }
    let (first, last) = (rule.ports.first(), rule.ports.last());
    let before = hole.first().checked_sub(1).and_then(|end| PortRange::new(first, end).ok());
    let after = hole.last().checked_add(1).and_then(|start| PortRange::new(start, last).ok());
    let part = |ports: PortRange| {
        // One that goes too far is found by `RequestedForward::new` or `DraftRule::finish`.
        let target_first = rule.target_first.saturating_add(ports.first() - first);
        RawRule { ports, target_first, ..rule.clone() }
    };
    before.into_iter().chain(after).map(part).collect()
}

/// Adds a rule. Two explicit rules for a port conflict; otherwise the rule with more effort keeps the
/// port, and among equals the first.
fn insert(drafts: &mut Vec<DraftRule>, new: DraftRule) -> Result<(), Conflict> {
    let explicit = |draft: &DraftRule| draft.rule.effort == Effort::Explicit;
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
        if strong.conflicts(&weak) { weak.cut(strong.rule.ports) } else { vec![weak] }
    };
    let old = std::mem::take(drafts).into_iter();
    let old =
        old.flat_map(
            |old| {
                if old.rule.effort > new.rule.effort { cut_by(old, &new) } else { vec![old] }
            },
        );
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
        let same_address = match (self.rule.listen, other.rule.listen) {
            (Some(a), Some(b)) => {
                a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
            }
            _ => true,
        };
        let same_interface = match (&self.rule.interface, &other.rule.interface) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        self.option == other.option
            && same_address
            && same_interface
            && self.rule.ports.overlaps(other.rule.ports)
    }

    /// The rule without the ports of `hole`.
    fn cut(self, hole: PortRange) -> Vec<Self> {
        let Self { option, place, text, rule } = self;
        let part = |rule| Self { option, place, text: text.clone(), rule };
        cut(rule, hole).into_iter().map(part).collect()
    }

    fn finish(self) -> Result<ForwardRule, Conflict> {
        let Self { option, text, rule, .. } = self;
        ForwardRule::try_from(rule)
            .map_err(|error| Conflict(format!("'{} {text}': {error}", option.name())))
    }
}

#[cfg(test)]
mod tests;
