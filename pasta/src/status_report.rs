#![forbid(unsafe_code)]
//! The status of an instance: as text for people, as JSON and as metrics (OpenMetrics) for programs.
//!
//! The text is to answer why a port cannot be reached: for each list of ports who asked for it, whether it is listened
//! on and why not, whether anybody listens where it leads, and what has come.

mod metrics;

pub use metrics::to_metrics;

use crate::client::Status;
use crate::document::Value;
use crate::ports::option_of;
use nix::errno::Errno;
use pasta_ipc::control::{ForwardEntry, Origin, RequestedPorts};
use pasta_ipc::port_forward::{Direction, Effort};
use pasta_ipc::status::{
    Counter, FamilyStatus, FlowKind, FlowStatus, Health, ListeningPorts, NetworkStatus, RuleStatus,
};
use pasta_ipc::types::{FamilyState, PortRange, Transport};
use std::fmt::Write as _;

/// Columns of the name in front of a line.
const NAMES: usize = 12;

/// What is known of one entry: its rules together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Followed {
    /// Ports of its rules.
    ports: u32,
    open: u32,
    refused: u32,
    first_refused: Option<(u16, i32)>,
    accepted: u64,
    failed: u64,
}

fn followed(status: &Status, place: usize) -> Followed {
    let mut all = Followed::default();
    let instance = &status.instance;
    for (direction, rules) in
        [(Direction::Inbound, &instance.inbound), (Direction::Outbound, &instance.outbound)]
    {
        for (rule, of) in rules.as_slice().iter().enumerate() {
            if usize::from(of.entry) != place {
                continue;
            }
            all.ports += of.ports.count();
            let known = status.datapath.iter().flat_map(|it| it.rules.as_slice());
            let mut known = known
                .filter(|it| it.direction == direction && usize::from(it.rule) == rule)
                .copied();
            let Some(RuleStatus { open, refused, first_refused, accepted, failed, .. }) =
                known.next()
            else {
                continue;
            };
            all.open += open;
            all.refused += refused;
            all.first_refused = all.first_refused.or(first_refused);
            all.accepted += accepted;
            all.failed += failed;
        }
    }
    all
}

/// Why a port cannot be listened on, and what can be done about it.
pub fn listen_error(direction: Direction, port: u16, errno: i32, unprivileged: u16) -> String {
    let errno = Errno::from_raw(errno);
    let hint = match (errno, direction) {
        (Errno::EACCES | Errno::EPERM, Direction::Inbound) if port < unprivileged => format!(
            " (after the start pasta cannot listen on ports below {unprivileged}: name it when starting pasta with \
             the right to, or lower the sysctl net.ipv4.ip_unprivileged_port_start)"
        ),
        (Errno::EACCES | Errno::EPERM, Direction::Outbound) => {
            " (ports below net.ipv4.ip_unprivileged_port_start of the namespace, 1024 by default, need a list with \
             such a port when pasta is started)"
                .to_owned()
        }
        (Errno::EADDRINUSE, Direction::Inbound) => {
            " (another program of the host has it; `ss -lntup` shows which)".to_owned()
        }
        (Errno::EADDRINUSE, Direction::Outbound) => " (a program of the namespace has it)".to_owned(),
        (Errno::EADDRNOTAVAIL, _) => " (the host does not have this address)".to_owned(),
        (Errno::ENODEV, _) => " (there is no such interface)".to_owned(),
        (Errno::EMFILE, _) => " (the limit of open files, ulimit -Hn)".to_owned(),
        (Errno::ETIMEDOUT | Errno::EPIPE, _) => " (pasta-monitor did not answer)".to_owned(),
        _ => String::new(),
    };
    format!("port {port}: {}{hint}", errno.desc())
}

/// Whether somebody listens on `ports`, by family.
struct Listens {
    ipv4: u32,
    ipv6: u32,
    of: u32,
}

fn listens(ports: &ListeningPorts, transport: Transport, range: PortRange) -> Listens {
    let count = |ranges: &[PortRange]| -> u32 {
        let within = ranges.iter().filter(|it| it.overlaps(range));
        within
            .map(|it| {
                let first = it.first().max(range.first());
                u32::from(it.last().min(range.last()) - first) + 1
            })
            .sum()
    };
    let (ipv4, ipv6) = match transport {
        Transport::Tcp => (&ports.tcp_ipv4, &ports.tcp_ipv6),
        Transport::Udp => (&ports.udp_ipv4, &ports.udp_ipv6),
    };
    Listens { ipv4: count(ipv4.as_slice()), ipv6: count(ipv6.as_slice()), of: range.count() }
}

/// Whether anybody listens where an entry leads; none where that is not known, or is the condition.
fn target_text(status: &Status, entry: &ForwardEntry) -> Option<String> {
    let rule = entry.forward.rule();
    if *entry.forward.ports() != RequestedPorts::Named {
        return None;
    }
    let first = rule.target_port(rule.ports().first())?;
    let last = rule.target_port(rule.ports().last())?;
    let range = PortRange::new(first, last).ok()?;
    if let Some(target) = rule.target() {
        return Some(format!("leads to {target}, port {range}"));
    }
    let monitor = status.monitor.as_ref()?;
    let (side, ports) = match entry.forward.direction() {
        Direction::Inbound => ("in the namespace", monitor.namespace.as_ref()?),
        Direction::Outbound => ("on the host's loopback", monitor.host.as_ref()?),
    };
    let Listens { ipv4, ipv6, of } = listens(ports, rule.transport(), range);
    let what = match (ipv4, ipv6) {
        (0, 0) => format!("nobody listens on port {range} {side}"),
        (v4, v6) if v4 == of && v6 == of => format!("port {range} {side} is listened on"),
        (_, 0) => format!("port {range} {side} is listened on for IPv4 only{}", some(ipv4, of)),
        (0, _) => format!("port {range} {side} is listened on for IPv6 only{}", some(ipv6, of)),
        _ => format!("some of ports {range} {side} are listened on"),
    };
    Some(what)
}

fn some(count: u32, of: u32) -> String {
    if count == of { String::new() } else { format!(" ({count} of {of} ports)") }
}

fn open_text(status: &Status, entry: &ForwardEntry, followed: &Followed) -> String {
    if status.datapath.is_none() {
        return "the datapath does not answer".to_owned();
    }
    let Followed { ports, open, refused, .. } = *followed;
    let is_auto = entry.forward.rule().effort() == Effort::Auto;
    match (open, ports) {
        _ if ports == 0 => "no port is left for it by other lists".to_owned(),
        (0, _) if is_auto && refused == 0 => {
            "waits: nobody listens on a port of it on the other side".to_owned()
        }
        (0, _) => "NOT OPEN".to_owned(),
        (open, 1) if open >= 1 => "open".to_owned(),
        (open, _) if is_auto => format!("{open} ports open"),
        (open, ports) => format!("{open} of {ports} ports open"),
    }
}

fn origin_text(origin: Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::CommandLine => "command line".to_owned(),
        Origin::Client { uid, pid } => format!("process {pid} of user {uid}"),
    }
}

/// Takes control characters out: what helpers say may come from a network.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The whole status, for people.
pub fn to_text(status: &Status) -> String {
    let mut text = String::new();
    let instance = &status.instance;
    let mut line = |name: &str, what: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<NAMES$} {}", clean(what));
    };
    line(
        "pasta",
        &format!(
            "{}, process {}, up {} s, {}",
            instance.version, instance.pid, instance.uptime_s, instance.target
        ),
    );
    match &status.monitor {
        None => line("network", "pasta-monitor has ended or does not answer: nothing is followed"),
        Some(monitor) => match &monitor.network {
            None => line("network", "no interface, nothing is followed"),
            Some(network) => network_lines(network, &mut line),
        },
    }
    line("resolvers", &instance.resolvers.to_string());
    line("ports", &format!("generation {}", status.forwards.generation.0));
    let entries = status.forwards.entries.as_slice();
    if entries.is_empty() {
        line("", "none");
    }
    for (place, entry) in entries.iter().enumerate() {
        let followed = followed(status, place);
        let mut facts = vec![open_text(status, entry, &followed)];
        facts.extend(target_text(status, entry));
        facts.push(format!("{} accepted", followed.accepted));
        if followed.failed > 0 {
            facts.push(format!("{} failed", followed.failed));
        }
        facts.push(format!("from {}", origin_text(entry.origin)));
        line("", &format!("{}: {}", entry.forward, facts.join(", ")));
        if let Some((port, errno)) = followed.first_refused {
            let direction = entry.forward.direction();
            let why = listen_error(direction, port, errno, instance.unprivileged_start);
            let more = match followed.refused {
                0 | 1 => String::new(),
                count => format!("; {count} ports in all cannot be listened on"),
            };
            line("", &format!("    {why}{more}"));
        }
    }
    match &status.datapath {
        None => line("datapath", "pasta-datapath has ended or does not answer: no network"),
        Some(datapath) => {
            let flows = datapath.flows;
            line(
                "flows",
                &format!(
                    "TCP {}, spliced {}, UDP and echo {}, at most {}",
                    flows.tcp, flows.spliced, flows.datagram, flows.limit
                ),
            );
            let fds = datapath.descriptors;
            line("descriptors", &format!("{} of {}", fds.used, fds.limit));
            line("counted", &counters(datapath.counters.as_slice()));
            line("dropped", &counters(datapath.drops.as_slice()));
        }
    }
    for said in status.monitor.iter().flat_map(|it| it.lines.as_slice()).skip(3) {
        let _ = writeln!(text, "{}", clean(said.as_str()));
    }
    text
}

fn counters(counters: &[Counter]) -> String {
    let counted: Vec<_> = counters
        .iter()
        .filter(|it| it.value > 0)
        .map(|it| format!("{} {}", it.name, it.value))
        .collect();
    if counted.is_empty() { "none".to_owned() } else { counted.join(", ") }
}

fn network_lines(network: &NetworkStatus, line: &mut impl FnMut(&str, &str)) {
    let events = &network.events;
    line(
        "network",
        &format!(
            "generation {}, host {}, {} transitions, last change took {} ms",
            network.generation.0,
            health_text(network.health),
            events.transitions,
            events.last_apply_us / 1000,
        ),
    );
    for (name, family) in [("IPv4", &network.ipv4), ("IPv6", &network.ipv6)] {
        line(&format!("  {name}"), &family_text(family));
    }
    match &network.tap {
        None => line("  tap", "not configured, or gone"),
        Some(tap) => {
            let up = if tap.up { "up" } else { "DOWN" };
            line("  tap", &format!("{}, {up}, MTU {}", tap.name, tap.mtu));
        }
    }
}

fn health_text(health: Health) -> &'static str {
    match health {
        Health::Live => "followed by events",
        Health::Resync => "read again after lost events",
        Health::Poll => "polled",
        Health::Blind => "NOT READABLE",
        Health::Off => "not followed",
    }
}

fn family_text(family: &FamilyStatus) -> String {
    let mut text = family.state.name().to_owned();
    match family.state {
        FamilyState::Off => return text,
        FamilyState::Local => text.push_str(" (the host has no network of this family)"),
        FamilyState::Bound | FamilyState::Held => {}
    }
    if let Some(template) = &family.template {
        let _ = write!(text, " to {template}");
    }
    let _ = write!(text, " for {} s", family.since_s);
    let addresses: Vec<_> =
        family.addresses.as_slice().iter().map(|it| it.as_str().to_owned()).collect();
    match addresses.as_slice() {
        [] => text.push_str(", no address"),
        some => {
            let _ = write!(text, ", {}", some.join(" "));
        }
    }
    if let Some(gateway) = family.gateway {
        let _ = write!(text, " via {gateway}");
    }
    let _ = write!(text, ", from {}", family.source);
    text
}

/// Flows, those with the most octets first, for people.
pub fn flows_text(flows: &[FlowStatus]) -> String {
    let mut text = String::new();
    let end = |end: Option<std::net::SocketAddr>| {
        end.map_or_else(|| "-".to_owned(), |end| end.to_string())
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{:<8}{:<40}{:<40}{:>16}{:>16}",
        "KIND", "NAMESPACE", "REMOTE", "TO NAMESPACE", "FROM IT"
    );
    for flow in flows {
        let _ = writeln!(
            text,
            "{:<8}{:<40}{:<40}{:>16}{:>16}",
            kind_name(flow.kind),
            end(flow.namespace),
            end(flow.remote),
            flow.to_namespace,
            flow.from_namespace
        );
    }
    text
}

fn kind_name(kind: FlowKind) -> &'static str {
    match kind {
        FlowKind::Tcp => "tcp",
        FlowKind::Spliced => "spliced",
        FlowKind::Udp => "udp",
        FlowKind::Echo => "echo",
    }
}

/// Flows as JSON.
pub fn flows_value(flows: &[FlowStatus]) -> Value {
    let flow = |flow: &FlowStatus| {
        Value::Fields(vec![
            ("kind", Value::text(kind_name(flow.kind))),
            ("namespace", Value::optional(flow.namespace)),
            ("remote", Value::optional(flow.remote)),
            ("to_namespace", Value::Number(flow.to_namespace)),
            ("from_namespace", Value::Number(flow.from_namespace)),
        ])
    };
    Value::List(flows.iter().map(flow).collect())
}

/// The whole status, for programs.
pub fn to_value(status: &Status) -> Value {
    let instance = &status.instance;
    let pid = |pid: i32| Value::Number(u64::try_from(pid).unwrap_or(0));
    let entries = status.forwards.entries.as_slice().iter().enumerate();
    let monitor = status.monitor.as_ref();
    Value::Fields(vec![
        ("version", Value::text(&instance.version)),
        ("pid", pid(instance.pid)),
        ("monitor_pid", instance.monitor_pid.map_or(Value::None, pid)),
        ("datapath_pid", instance.datapath_pid.map_or(Value::None, pid)),
        ("uptime_s", Value::Number(instance.uptime_s)),
        ("target", Value::text(&instance.target)),
        ("resolvers", Value::text(&instance.resolvers)),
        ("network", monitor.and_then(|it| it.network.as_ref()).map_or(Value::None, network_value)),
        (
            "ports",
            Value::Fields(vec![
                ("generation", Value::Number(status.forwards.generation.0)),
                ("lists", Value::List(entries.map(|(n, it)| entry_value(status, n, it)).collect())),
            ]),
        ),
        ("datapath", datapath_value(status)),
    ])
}

fn entry_value(status: &Status, place: usize, entry: &ForwardEntry) -> Value {
    let rule = entry.forward.rule();
    let followed = followed(status, place);
    let (origin, by) = match entry.origin {
        Origin::Default => ("default", None),
        Origin::CommandLine => ("command line", None),
        Origin::Client { uid, pid } => ("client", Some((uid, pid))),
    };
    let ports = match entry.forward.ports() {
        RequestedPorts::Named => rule.ports().to_string(),
        RequestedPorts::AllBut(_) => "all".to_owned(),
    };
    let named = *entry.forward.ports() == RequestedPorts::Named;
    let target = rule.target_port(rule.ports().first()).filter(|_| named);
    let error = followed.first_refused.map(|(port, errno)| {
        listen_error(entry.forward.direction(), port, errno, status.instance.unprivileged_start)
    });
    let number = |n: u32| Value::Number(n.into());
    Value::Fields(vec![
        ("list", Value::text(&entry.forward)),
        ("option", Value::text(option_of(&entry.forward).name())),
        ("transport", Value::text(rule.transport().to_string().to_lowercase())),
        ("address", Value::optional(rule.listen())),
        ("interface", Value::optional(rule.interface())),
        ("ports", Value::text(ports)),
        ("target_address", Value::optional(rule.target())),
        ("target_port", target.map_or(Value::None, |port| Value::Number(port.into()))),
        ("auto", Value::Bool(rule.effort() == Effort::Auto)),
        ("origin", Value::text(origin)),
        ("uid", by.map_or(Value::None, |(uid, _)| Value::Number(uid.into()))),
        ("wanted", number(followed.ports)),
        ("open", number(followed.open)),
        ("refused", number(followed.refused)),
        ("error", Value::optional(error)),
        ("other_side", Value::optional(target_text(status, entry))),
        ("accepted", Value::Number(followed.accepted)),
        ("failed", Value::Number(followed.failed)),
    ])
}

fn network_value(network: &NetworkStatus) -> Value {
    let family = |family: &FamilyStatus| {
        let gateway = family.gateway;
        let addresses = family.addresses.as_slice().iter();
        Value::Fields(vec![
            ("state", Value::text(family.state.name())),
            ("template", Value::optional(family.template.as_ref())),
            ("since_s", Value::Number(family.since_s)),
            ("addresses", Value::texts(addresses.map(|it| it.as_str()))),
            ("gateway", Value::optional(gateway)),
            ("source", Value::text(&family.source)),
        ])
    };
    let tap = network.tap.as_ref().map_or(Value::None, |tap| {
        Value::Fields(vec![
            ("name", Value::text(&tap.name)),
            ("up", Value::Bool(tap.up)),
            ("mtu", Value::Number(tap.mtu.into())),
        ])
    });
    let events = &network.events;
    Value::Fields(vec![
        ("generation", Value::Number(network.generation.0)),
        ("health", Value::text(format!("{:?}", network.health).to_lowercase())),
        ("ipv4", family(&network.ipv4)),
        ("ipv6", family(&network.ipv6)),
        ("tap", tap),
        ("events_used", Value::Number(events.used)),
        ("events_ignored", Value::Number(events.ignored)),
        ("overruns", Value::Number(events.overruns)),
        ("resyncs", Value::Number(events.resyncs)),
        ("transitions", Value::Number(events.transitions)),
        ("last_apply_us", Value::Number(events.last_apply_us)),
        ("max_apply_us", Value::Number(events.max_apply_us)),
    ])
}

fn datapath_value(status: &Status) -> Value {
    let Some(datapath) = &status.datapath else { return Value::None };
    let counters = |counters: &[Counter]| {
        let counter = |it: &Counter| {
            Value::Fields(vec![("name", Value::text(&it.name)), ("value", Value::Number(it.value))])
        };
        Value::List(counters.iter().map(counter).collect())
    };
    let flows = datapath.flows;
    Value::Fields(vec![
        ("generation", Value::Number(datapath.forwards.0)),
        ("tcp_flows", Value::Number(flows.tcp.into())),
        ("spliced_flows", Value::Number(flows.spliced.into())),
        ("datagram_flows", Value::Number(flows.datagram.into())),
        ("most_flows", Value::Number(flows.limit.into())),
        ("descriptors", Value::Number(datapath.descriptors.used)),
        ("most_descriptors", Value::Number(datapath.descriptors.limit)),
        ("backlog_octets", Value::Number(datapath.backlog)),
        ("counters", counters(datapath.counters.as_slice())),
        ("drops", counters(datapath.drops.as_slice())),
    ])
}

#[cfg(test)]
mod tests;
