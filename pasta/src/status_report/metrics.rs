//! The status in the text format of OpenMetrics 1.0.

use crate::client::Status;
use crate::ports::option_of;
use pasta_ipc::types::FamilyState;
use std::fmt::Write as _;

use super::followed;

/// All metrics; `memory` gives the resident memory of a process in octets, where that can be found out.
pub fn to_metrics(status: &Status, memory: impl Fn(i32) -> Option<u64>) -> String {
    let mut out = Metrics(String::new());
    let instance = &status.instance;
    out.family("pasta", "info", "The instance.");
    out.sample("pasta_info", &[("version", instance.version.as_str())], 1);
    out.gauge(
        "pasta_uptime_seconds",
        "Time since the instance began to supervise.",
        instance.uptime_s,
    );
    let processes = [
        ("pasta", Some(instance.pid)),
        ("pasta-monitor", instance.monitor_pid),
        ("pasta-datapath", instance.datapath_pid),
    ];
    let processes = processes.map(|(name, pid)| (name, pid.and_then(&memory)));
    if processes.iter().any(|(_, memory)| memory.is_some()) {
        out.family("pasta_resident_memory_bytes", "gauge", "Resident memory of a process.");
        for (name, memory) in processes {
            if let Some(memory) = memory {
                out.sample("pasta_resident_memory_bytes", &[("process", name)], memory);
            }
        }
    }
    if let Some(datapath) = &status.datapath {
        out.family("pasta_flows", "gauge", "Flows that there are, by kind.");
        let flows = datapath.flows;
        for (kind, count) in
            [("tcp", flows.tcp), ("spliced", flows.spliced), ("datagram", flows.datagram)]
        {
            out.sample("pasta_flows", &[("kind", kind)], count.into());
        }
        out.gauge("pasta_flows_limit", "Most flows that there can be.", flows.limit.into());
        out.gauge(
            "pasta_descriptors",
            "Descriptors of the datapath that are in use.",
            datapath.descriptors.used,
        );
        out.gauge(
            "pasta_descriptors_limit",
            "Most descriptors of the datapath.",
            datapath.descriptors.limit,
        );
        out.gauge(
            "pasta_backlog_bytes",
            "Octets of the namespace that sockets have not taken.",
            datapath.backlog,
        );
        out.gauge(
            "pasta_window_credit_bytes",
            "Octets of windows that are advertised to the namespace, of a shared limit.",
            datapath.window_credit.used,
        );
        out.gauge(
            "pasta_window_credit_limit_bytes",
            "The shared limit of advertised windows.",
            datapath.window_credit.limit,
        );
        for counter in datapath.counters.as_slice() {
            let name = format!("pasta_{}", name_of(counter.name.as_str()));
            out.family(&name, "counter", "A count since the start.");
            out.sample(&format!("{name}_total"), &[], counter.value);
        }
        out.family("pasta_drops", "counter", "What was dropped, by reason.");
        for drop in datapath.drops.as_slice() {
            out.sample("pasta_drops_total", &[("reason", drop.name.as_str())], drop.value);
        }
    }
    let entries = status.forwards.entries.as_slice();
    out.gauge(
        "pasta_ports_generation",
        "Generation of the forwarded ports.",
        status.forwards.generation.0,
    );
    let all: Vec<_> = entries.iter().enumerate().map(|(n, it)| (it, followed(status, n))).collect();
    out.family("pasta_ports_open", "gauge", "Ports of a list that are listened on.");
    let labels = |entry: &pasta_ipc::control::ForwardEntry| {
        (option_of(&entry.forward).name().to_owned(), entry.forward.to_string())
    };
    for (entry, followed) in &all {
        let (option, list) = labels(entry);
        let labels = [("option", option.as_str()), ("list", list.as_str())];
        out.sample("pasta_ports_open", &labels, followed.open.into());
    }
    out.family("pasta_ports_refused", "gauge", "Ports of a list that cannot be listened on.");
    for (entry, followed) in &all {
        let (option, list) = labels(entry);
        let labels = [("option", option.as_str()), ("list", list.as_str())];
        out.sample("pasta_ports_refused", &labels, followed.refused.into());
    }
    // These begin anew when a listener is closed, so they are no counters.
    out.family("pasta_ports_arrivals", "gauge", "Connections that came to open listeners.");
    for (entry, followed) in &all {
        let (option, list) = labels(entry);
        for (result, count) in [("accepted", followed.accepted), ("failed", followed.failed)] {
            let labels = [("option", option.as_str()), ("list", list.as_str()), ("result", result)];
            out.sample("pasta_ports_arrivals", &labels, count);
        }
    }
    if let Some(network) = status.monitor.as_ref().and_then(|it| it.network.as_ref()) {
        out.gauge(
            "pasta_network_generation",
            "Generation of the namespace's network.",
            network.generation.0,
        );
        let events = &network.events;
        out.family("pasta_network_transitions", "counter", "Changes of a family's state.");
        out.sample("pasta_network_transitions_total", &[], events.transitions);
        out.family("pasta_netlink_events", "counter", "Events of the kernel, by use.");
        for (used, count) in [("used", events.used), ("ignored", events.ignored)] {
            out.sample("pasta_netlink_events_total", &[("result", used)], count);
        }
        out.family("pasta_netlink_overruns", "counter", "How often events were lost.");
        out.sample("pasta_netlink_overruns_total", &[], events.overruns);
        out.family(
            "pasta_network_convergence_seconds",
            "gauge",
            "Time from the last event of a change until all was done.",
        );
        for (which, us) in [("last", events.last_apply_us), ("max", events.max_apply_us)] {
            let value = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
            out.text_sample("pasta_network_convergence_seconds", &[("which", which)], &value);
        }
        out.family("pasta_network_state", "stateset", "State of a family's binding to the host.");
        for (family, state) in [("ipv4", network.ipv4.state), ("ipv6", network.ipv6.state)] {
            for each in
                [FamilyState::Off, FamilyState::Local, FamilyState::Bound, FamilyState::Held]
            {
                let labels = [("family", family), ("pasta_network_state", each.name())];
                out.sample("pasta_network_state", &labels, u64::from(each == state));
            }
        }
    }
    out.0.push_str("# EOF\n");
    out.0
}

/// A name of ours as one of a metric.
fn name_of(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    name.chars().map(fits).collect()
}

struct Metrics(String);

impl Metrics {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.text_sample(name, labels, &value.to_string());
    }

    fn text_sample(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        self.0.push_str(name);
        if !labels.is_empty() {
            let label = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escaped(value));
            let labels: Vec<_> = labels.iter().map(label).collect();
            let _ = write!(self.0, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.0, " {value}");
    }
}

/// A value of a label (OpenMetrics 1.0, section "ABNF").
fn escaped(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}
