//! Options about ports: any text, in any of the four, one after the other.

use pasta::ports::spec::Spec;
use pasta::ports::{PortOption, System, build_rules};
use pasta_ipc::port_forward::ForwardRule;
use pasta_ipc::types::Service;

/// Reads `octets` as lines, each the value of an option that its first octet picks.
///
/// # Panics
///
/// If rules that listen on the same address overlap, or lead to ports that there are none of.
pub fn check(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let mut specs = Vec::new();
    for line in text.lines().take(8) {
        let mut letters = line.chars();
        let option = PortOption::ALL[letters.next().map_or(0, |letter| letter as usize % 4)];
        if let Ok(spec) = Spec::parse(option, letters.as_str()) {
            specs.push((option, spec));
        }
    }
    let Ok(ports) = build_rules(&specs, Service::On, Service::On, System::fallback()) else {
        return;
    };
    for rules in [&ports.inbound, &ports.outbound] {
        for (n, rule) in rules.iter().enumerate() {
            let last = rule.target_port(rule.ports().last());
            assert!(last.is_some_and(|port| port >= 1), "{rule:?}");
            for other in &rules[n + 1..] {
                assert!(!listen_on_the_same(rule, other), "{rule:?} {other:?}");
            }
        }
    }
}

pub(crate) fn listen_on_the_same(one: &ForwardRule, other: &ForwardRule) -> bool {
    one.transport() == other.transport()
        && one.listen() == other.listen()
        && one.interface() == other.interface()
        && one.ports().overlaps(other.ports())
}
