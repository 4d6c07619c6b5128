//! What `--explain` prints, made from the start messages and the monitor's answer.

use super::ports_in_use::PortsInUse;
use crate::identity::Identity;
use crate::target::{CommandUser, Existing, ExistingUser, PidNamespace, Target};
use pasta::document::Value;
use pasta::ports::Forwards;
use pasta_ipc::port_forward::{Effort, ForwardRule, LoopbackTarget, Splice};
use pasta_ipc::start::{
    Configure, DatapathStart, FamilyPolicy, Follow, HostLoopback, MonitorStart, TapUse,
};
use pasta_ipc::types::{Explanation, FamilyExplanation, FamilyState, PortRange, Resolver};
use seccomp::Role;
use std::net::IpAddr;

/// What the document is made of.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) target: &'a Target,
    /// The start messages.
    pub(super) monitor: &'a MonitorStart,
    pub(super) datapath: &'a DatapathStart,
    pub(super) explanation: &'a Explanation,
    /// The host's resolvers.
    pub(super) resolvers: &'a [Resolver],
    pub(super) forwards: &'a Forwards,
    pub(super) in_use: &'a PortsInUse,
    /// The lowest port that we may bind.
    pub(super) unprivileged_start: u16,
    pub(super) keeps_net_admin: bool,
    /// The user that root would become.
    pub(super) identity: Option<Identity>,
    pub(super) remarks: Vec<&'a str>,
}

/// The document.
pub(super) fn of(facts: &Facts<'_>) -> Value {
    let Facts { datapath, explanation, .. } = facts;
    let mut fields = vec![("target", target(facts.target)), ("interface", interface(facts))];
    if facts.monitor.link.tap != TapUse::None {
        let (v4, v6) = (&datapath.ipv4, &datapath.ipv6);
        fields.push(("ipv4", family(facts, &explanation.ipv4, v4)));
        fields.push(("ipv6", family(facts, &explanation.ipv6, v6)));
        fields.push(("dns", dns(facts)));
    }
    fields.push(("ports", ports(facts)));
    fields.push(("confinement", confinement(facts)));
    fields.push(("remarks", Value::texts(&facts.remarks)));
    Value::Fields(fields)
}

fn target(target: &Target) -> Value {
    Value::Fields(match target {
        Target::Command(command) => {
            let words = command.program.args.iter().skip(1).map(|word| word.to_string_lossy());
            let path = command.program.path.to_string_lossy();
            let pids = match command.pids {
                PidNamespace::New => "new",
                PidNamespace::Shared => "the caller's",
            };
            let user = match &command.user {
                CommandUser::New => "new".to_owned(),
                CommandUser::Ours => "the caller's".to_owned(),
                CommandUser::At(path) => path.display().to_string(),
            };
            vec![
                ("kind", Value::text("command")),
                ("command", Value::texts(std::iter::once(path).chain(words))),
                ("network_namespace", Value::text("new")),
                ("user_namespace", Value::text(user)),
                ("pid_namespace", Value::text(pids)),
            ]
        }
        Target::Existing(Existing { net, user, .. }) => {
            let user = match user {
                ExistingUser::Owner => "the owner of the network namespace".to_owned(),
                ExistingUser::Ours => "the caller's".to_owned(),
                ExistingUser::At(path) => path.display().to_string(),
            };
            vec![
                ("kind", Value::text("namespace")),
                ("network_namespace", Value::text(net.display())),
                ("user_namespace", Value::text(user)),
            ]
        }
    })
}

fn interface(facts: &Facts<'_>) -> Value {
    let Facts { monitor, datapath, explanation, .. } = facts;
    let configured = monitor.link.configure == Configure::Namespace;
    let follow = match monitor.following.follow {
        Follow::Roam => "roam",
        Follow::Sticky => "sticky",
        Follow::Once => "once",
        Follow::Off => "off",
    };
    Value::Fields(match monitor.link.tap {
        TapUse::None => vec![("made", Value::Bool(false))],
        TapUse::Given => {
            vec![("made", Value::Bool(false)), ("mac_of_gateway", Value::text(datapath.our_mac))]
        }
        TapUse::Make => vec![
            ("made", Value::Bool(true)),
            ("name", Value::text(&explanation.tap_name)),
            ("configured", Value::Bool(configured)),
            ("mtu", explanation.mtu.map_or(Value::None, |mtu| Value::Number(mtu.get().into()))),
            ("mac", monitor.link.mac.map_or_else(|| Value::text("random"), Value::text)),
            ("mac_of_gateway", Value::text(datapath.our_mac)),
            ("follow", Value::text(follow)),
            ("not_reproduced", Value::Number(explanation.left_out.into())),
        ],
    })
}

fn family<A: Copy + Into<IpAddr>>(
    facts: &Facts<'_>,
    family: &FamilyExplanation,
    policy: &FamilyPolicy<A>,
) -> Value {
    let state = family.state.name();
    if family.state == FamilyState::Off {
        return Value::Fields(vec![("state", Value::text(state))]);
    }
    let template = family.template.as_ref().map(|it| {
        Value::Fields(vec![
            ("name", Value::text(&it.name)),
            ("index", Value::Number(it.index.into())),
            ("address", Value::text(it.primary)),
        ])
    });
    let primary = family.template.as_ref().map(|it| it.primary);
    let mut fields = vec![
        ("state", Value::text(state)),
        ("template", template.unwrap_or(Value::None)),
        ("candidates", Value::text(&family.candidates)),
    ];
    let configured = facts.monitor.link.configure == Configure::Namespace;
    if configured && facts.monitor.link.tap == TapUse::Make {
        let routes = family.routes.as_slice().iter().map(|route| {
            Value::Fields(vec![
                ("to", Value::text(&route.destination)),
                ("via", Value::optional(route.gateway)),
                ("metric", Value::Number(route.metric.into())),
            ])
        });
        fields.push(("addresses", Value::texts(family.addresses.as_slice())));
        fields.push(("routes", Value::List(routes.collect())));
        fields.push(("more_routes", Value::Number(family.more_routes.into())));
    }
    let loopback: Option<IpAddr> = match policy.host_loopback {
        HostLoopback::Gateway => family.gateway,
        HostLoopback::Address(address) => Some(address.into()),
        HostLoopback::None => None,
    };
    let guest: Option<IpAddr> = policy.guest_address.map(Into::into);
    let source: Option<IpAddr> = policy.outbound.map(Into::into);
    fields.push(("gateway", Value::optional(family.gateway)));
    fields.push(("host_loopback_at", Value::optional(loopback)));
    fields.push(("host_address_at", Value::optional(guest)));
    fields.push(("host_address", Value::optional(primary)));
    fields.push(("outbound_address", Value::optional(source)));
    fields.push(("outbound_interface", Value::optional(policy.outbound_interface.as_ref())));
    Value::Fields(fields)
}

fn dns(facts: &Facts<'_>) -> Value {
    let Facts { datapath, .. } = facts;
    let (v4, v6) = (&datapath.ipv4, &datapath.ipv6);
    let list = |v4: Option<std::net::Ipv4Addr>, v6: Option<std::net::Ipv6Addr>| {
        Value::texts(v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6)))
    };
    // Without --dns-host it is the first of the family.
    let first = |is: fn(&IpAddr) -> bool| facts.resolvers.iter().map(|it| it.address).find(is);
    let to_v4 = v4.dns_host.map(IpAddr::V4).or_else(|| first(IpAddr::is_ipv4));
    let to_v6 = v6.dns_host.map(IpAddr::V6).or_else(|| first(IpAddr::is_ipv6));
    let to_v4 = v4.dns_forward.and(to_v4);
    let forwarded = Value::texts(to_v4.into_iter().chain(v6.dns_forward.and(to_v6)));
    let resolvers = facts.resolvers.iter().map(|it| match &it.interface {
        Some(interface) => format!("{}%{interface}", it.address),
        None => it.address.to_string(),
    });
    Value::Fields(vec![
        ("queries_taken_at", list(v4.dns_forward, v6.dns_forward)),
        ("forwarded_to", forwarded),
        ("host_resolvers", Value::texts(resolvers)),
    ])
}

fn ports(facts: &Facts<'_>) -> Value {
    let Facts { forwards, datapath, .. } = facts;
    let inbound = forwards.inbound.iter().map(|it| rule(it, Some(facts)));
    let outbound = forwards.outbound.iter().map(|it| rule(it, None));
    Value::Fields(vec![
        ("to_namespace", Value::List(inbound.collect())),
        ("to_host_loopback", Value::List(outbound.collect())),
        ("spliced", Value::Bool(datapath.splice == Splice::On)),
        ("to_loopback", Value::Bool(datapath.loopback == LoopbackTarget::Loopback)),
    ])
}

/// One rule; with `facts` those of its ports are listed that could not be listened on.
fn rule(rule: &ForwardRule, facts: Option<&Facts<'_>>) -> Value {
    let first = rule.ports().first();
    let target = rule.target_port(first).filter(|port| *port != first);
    let effort = match rule.effort() {
        Effort::Explicit => "always",
        Effort::BestEffort => "where possible",
        Effort::Auto => "while somebody listens there",
    };
    let mut fields = vec![
        ("transport", Value::text(rule.transport())),
        ("ports", Value::text(rule.ports())),
        ("at", Value::optional(rule.listen())),
        ("over", Value::optional(rule.interface())),
        ("to_port", target.map_or(Value::None, |port| Value::Number(port.into()))),
        ("to_address", Value::optional(rule.target())),
        ("open", Value::text(effort)),
    ];
    if let Some(Facts { in_use, unprivileged_start, .. }) = facts {
        let ranges = |wanted: &dyn Fn(u16) -> bool| {
            let ranges = ranges(rule.ports().iter().filter(|port| wanted(*port)));
            if ranges.is_empty() { Value::None } else { Value::texts(ranges) }
        };
        let taken = ranges(&|port| in_use.takes(rule.transport(), rule.listen(), port));
        fields.push(("taken", taken));
        fields.push(("not_permitted", ranges(&|port| port < *unprivileged_start)));
    }
    Value::Fields(fields)
}

/// Ascending `ports`, those in a row as one.
fn ranges(ports: impl Iterator<Item = u16>) -> Vec<PortRange> {
    let mut ranges: Vec<PortRange> = Vec::new();
    for port in ports {
        let before = ranges.last().copied().filter(|it| it.last().checked_add(1) == Some(port));
        let first = before.map_or(port, PortRange::first);
        if before.is_some() {
            ranges.pop();
        }
        ranges.extend(PortRange::new(first, port));
    }
    ranges
}

fn confinement(facts: &Facts<'_>) -> Value {
    let low = seccomp::ports::name_low_port(&facts.forwards.outbound);
    let kept = [("CAP_NET_ADMIN", facts.keeps_net_admin), ("CAP_NET_BIND_SERVICE", low)];
    let kept: Vec<_> = kept.into_iter().filter(|(_, kept)| *kept).map(|(name, _)| name).collect();
    let process = |name, role, capabilities: &[&str]| {
        let calls = u64::try_from(seccomp::allowed_calls(role)).unwrap_or(u64::MAX);
        let fields = vec![
            ("capabilities", Value::texts(capabilities)),
            ("system_calls", Value::Number(calls)),
        ];
        (name, Value::Fields(fields))
    };
    let user = facts.identity.map(|it| format!("{}:{}", it.uid, it.gid));
    let mut fields = vec![
        process("pasta", Role::Supervisor, &[]),
        process("pasta-monitor", Role::Monitor, &kept),
        process("pasta-datapath", Role::Datapath, &[]),
    ];
    if let Some(user) = user {
        fields.push(("user", Value::text(user)));
    }
    Value::Fields(fields)
}

#[cfg(test)]
mod tests;
