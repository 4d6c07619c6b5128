use super::*;
use crate::ports::spec::Spec;
use crate::ports::{Forwards, PortOption, System, build_rules};
use pasta_ipc::control::ForwardState;
use pasta_ipc::port_forward::FamilyPorts;
use pasta_ipc::status::{
    DatapathStatus, EventCounts, FlowCounts, InstanceStatus, MonitorStatus, RuleOfEntry, TapStatus,
    Usage,
};
use pasta_ipc::types::{Bounded, Generation, Service, Text};
use std::collections::BTreeSet;

/// The status of an instance with these TCP ports; the datapath says of each rule what `rule` makes.
fn status(lists: &[&str], rule: impl Fn(&mut RuleStatus)) -> Status {
    let spec = |text: &&str| (PortOption::TcpIn, Spec::parse(PortOption::TcpIn, text).unwrap());
    let none = |option| (option, Spec::none());
    let mut specs: Vec<_> = lists.iter().map(spec).collect();
    specs.extend([none(PortOption::UdpIn), none(PortOption::TcpOut), none(PortOption::UdpOut)]);
    let forwards = build_rules(&specs, Service::On, Service::On, System::fallback()).unwrap();
    let Forwards { inbound, inbound_places, entries, .. } = forwards;
    let rules = inbound.iter().zip(&inbound_places);
    let rules = rules.map(|(rule, entry)| RuleOfEntry { entry: *entry, ports: rule.ports() });
    let of_rule = |(place, _): (usize, _)| {
        let mut status = RuleStatus::empty(Direction::Inbound, u16::try_from(place).unwrap());
        rule(&mut status);
        status
    };
    let family = |state, address: &str| FamilyStatus {
        state,
        template: Some(Text::truncated("eth0(5)")),
        since_s: 41,
        addresses: Bounded::truncated([Text::truncated(address)]).0,
        gateway: None,
        source: Text::truncated("host"),
    };
    let network = NetworkStatus {
        generation: Generation(7),
        health: Health::Live,
        ipv4: family(FamilyState::Bound, "198.51.100.9/24"),
        ipv6: family(FamilyState::Off, ""),
        tap: Some(TapStatus { name: Text::truncated("eth0"), up: true, mtu: 1500 }),
        events: EventCounts { last_apply_us: 1_002_003, ..EventCounts::default() },
    };
    let listening =
        FamilyPorts { ipv4: [80_u16, 81].into_iter().collect(), ..FamilyPorts::default() };
    let namespace = ListeningPorts::new(&listening, &FamilyPorts::default());
    let counter = |name: &str, value| Counter { name: Text::truncated(name), value };
    let datapath = DatapathStatus {
        forwards: Generation(1),
        counters: Bounded::truncated([counter("frames to tap", 3)]).0,
        drops: Bounded::truncated([counter("no flow", 2), counter("tap full", 0)]).0,
        flows: FlowCounts { tcp: 1, spliced: 2, datagram: 3, limit: 4 },
        descriptors: Usage { used: 5, limit: 6 },
        backlog: 7,
        window_credit: Usage { used: 8, limit: 9 },
        rules: Bounded::truncated(inbound.iter().enumerate().map(of_rule)).0,
        top: Bounded::default(),
    };
    Status {
        instance: InstanceStatus {
            version: Text::truncated("0.1.0"),
            pid: 100,
            monitor_pid: Some(101),
            datapath_pid: None,
            uptime_s: 9,
            target: Text::truncated("command sh\u{1b}[2J"),
            resolvers: Text::truncated("dns 192.0.2.53"),
            unprivileged_start: 1024,
            inbound: Bounded::truncated(rules).0,
            outbound: Bounded::default(),
        },
        forwards: ForwardState {
            generation: Generation(2),
            ipv4: Service::On,
            ipv6: Service::On,
            entries: Bounded::truncated(entries).0,
        },
        monitor: Some(MonitorStatus {
            lines: Bounded::default(),
            network: Some(network),
            namespace: Some(Box::new(namespace)),
            host: None,
        }),
        datapath: Some(datapath),
    }
}

fn line_of(text: &str, what: &str) -> String {
    let line = text.lines().find(|line| line.contains(what));
    line.unwrap_or_else(|| panic!("{what} is not in {text}")).trim().to_owned()
}

#[test]
fn port_that_cannot_be_listened_on_is_shown_with_the_reason() {
    let refused = |rule: &mut RuleStatus| {
        (rule.refused, rule.first_refused) = (1, Some((8080, Errno::EADDRINUSE as i32)));
    };
    let text = to_text(&status(&["8080:80"], refused));
    assert!(line_of(&text, "-t 8080:80").contains("NOT OPEN"), "{text}");
    assert!(text.contains("port 8080: Address already in use (another program"), "{text}");
}

#[test]
fn port_of_which_nobody_listens_on_the_other_side_is_shown_as_that() {
    let open = |rule: &mut RuleStatus| (rule.open, rule.accepted, rule.failed) = (1, 12, 3);
    let text = to_text(&status(&["8080:79", "8081:80", "8082-8083:80-81"], open));
    let line = line_of(&text, "-t 8080:79");
    assert!(line.contains("open, nobody listens on port 79 in the namespace"), "{line}");
    assert!(line.contains("12 accepted, 3 failed, from command line"), "{line}");
    let line = line_of(&text, "-t 8081:80");
    assert!(line.contains("port 80 in the namespace is listened on for IPv4 only"), "{line}");
    assert!(line_of(&text, "-t 8082").contains("1 of 2 ports open"), "{text}");
}

#[test]
fn helpers_that_do_not_answer_are_said_to() {
    let mut status = status(&["8080"], |_| ());
    (status.monitor, status.datapath) = (None, None);
    let text = to_text(&status);
    assert!(line_of(&text, "datapath").contains("no network") || text.contains("no network"));
    assert!(line_of(&text, "network").contains("pasta-monitor has ended"));
    let json: serde_json::Value = serde_json::from_str(&to_value(&status).to_json()).unwrap();
    assert!(json["datapath"].is_null() && json["network"].is_null());
}

#[test]
fn text_of_others_controls_no_terminal() {
    let text = to_text(&status(&["8080"], |_| ()));
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(line_of(&text, "IPv4").contains("bound to eth0(5) for 41 s, 198.51.100.9/24"));
}

#[test]
fn low_port_after_the_start_names_the_sysctl() {
    let why = listen_error(Direction::Inbound, 80, Errno::EACCES as i32, 1024);
    assert!(why.contains("net.ipv4.ip_unprivileged_port_start"), "{why}");
    let why = listen_error(Direction::Inbound, 8080, Errno::EACCES as i32, 1024);
    assert!(!why.contains("sysctl"), "{why}");
}

#[test]
fn json_has_what_the_text_has() {
    let open = |rule: &mut RuleStatus| (rule.open, rule.accepted) = (1, 12);
    let document = to_value(&status(&["127.0.0.1/8080:80"], open)).to_json();
    let json: serde_json::Value = serde_json::from_str(&document).unwrap();
    let list = &json["ports"]["lists"][0];
    assert_eq!(list["list"], "-t 127.0.0.1/8080:80");
    assert_eq!((&list["open"], &list["accepted"]), (&1.into(), &12.into()));
    assert_eq!(list["target_port"], 80);
    assert_eq!(json["network"]["ipv4"]["state"], "bound");
    assert_eq!(json["datapath"]["drops"][0]["value"], 2);
}

/// The rules of the format that a scraper would trip over (OpenMetrics 1.0).
#[test]
fn metrics_are_in_families_that_come_once_and_end() {
    let text = to_metrics(&status(&["8080", "127.0.0.1/9000:80"], |_| ()), |pid| {
        (pid == 100).then_some(4096)
    });
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut families = BTreeSet::new();
    let mut family = String::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let words: Vec<_> = line.split(' ').collect();
        if let ["#", "TYPE", name, _] = words[..] {
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            family = name.to_owned();
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&family), "{line} is not of {family}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(text.contains("pasta_drops_total{reason=\"no flow\"} 2\n"), "{text}");
    assert!(text.contains("pasta_network_convergence_seconds{which=\"last\"} 1.002003\n"));
    assert!(text.contains("pasta_resident_memory_bytes{process=\"pasta\"} 4096\n"));
}
