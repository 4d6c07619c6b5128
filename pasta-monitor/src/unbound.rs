//! What is said to a user who starts without a network.

use crate::bind::Binding;
use crate::candidate::{Named, Stopgaps, default_link, usable};
use crate::host::HostView;
use crate::policy::Policy;
use crate::reduce::State;
use pasta_ipc::types::Family;

/// The line for a start after which no family has a template; none if one has, or none is served.
pub fn notice(state: &State) -> Option<String> {
    let (policy, bindings) = (state.policy(), state.bindings());
    let mut families = Family::BOTH.into_iter().filter(|family| policy.serves(*family)).peekable();
    let is_served = families.peek().is_some();
    let all_local = families.all(|family| matches!(bindings.get(family), Binding::Local));
    let lack = lack(policy, state.host()).filter(|_| is_served && all_local)?;
    let waited = policy.bind_wait();
    let after = match policy.follows() && !waited.is_zero() {
        true => format!(", {} ms after the start (--bind-wait)", waited.as_millis()),
        false => String::new(),
    };
    let until = if policy.follows() { " until it has one" } else { "" };
    if let Some(link) = way_without_address(policy, state.host()) {
        // Its addresses are on another one, as with BGP between numberless links: IPv4 leaves from there.
        return Some(format!(
            "interface \"{link}\" leads out and has no address of its own{after}: the namespace has fixed \
             addresses{until}; -a and -g give it others"
        ));
    }
    Some(format!("{lack}{after}: the namespace reaches the host only{until}"))
}

/// The interface by which the host reaches the network without an address on it, if none was named.
fn way_without_address<'a>(policy: &Policy, host: &'a HostView) -> Option<&'a str> {
    let is_named = Family::BOTH.into_iter().any(|family| policy.template(family).is_some());
    let link_of = |family| {
        let (index, link) = default_link(host, family)?;
        let has_address = !usable(host, index, family, Named::No, Stopgaps::Take).is_empty();
        (!has_address).then_some(link.name.as_str())
    };
    Family::BOTH.into_iter().filter(|family| policy.serves(*family) && !is_named).find_map(link_of)
}

/// What the host lacks, or the interface that was named; none for one that does not exist, which was
/// warned of.
fn lack(policy: &Policy, host: &HostView) -> Option<String> {
    let Some(name) = Family::BOTH.into_iter().find_map(|family| policy.template(family)) else {
        return Some("the host has no network".to_owned());
    };
    let (index, link) = host.links.iter().find(|(_, link)| link.is_called(name.as_str()))?;
    let has_address = |family| host.addresses_of(*index, family).next().is_some();
    let lack = match (link.up, link.carrier) {
        (false, _) => "is down",
        (true, false) => "has no carrier",
        (true, true) if !Family::BOTH.into_iter().any(has_address) => "has no address",
        (true, true) => "has no address that can be used",
    };
    Some(format!("interface \"{name}\" {lack}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Host;
    use crate::policy::testing::{named, plain};
    use pasta_ipc::start::Follow;

    fn line(policy: Policy, host: Host) -> String {
        notice(&State::start(policy, host.0)).unwrap_or_default()
    }

    #[test]
    fn a_host_without_a_network_is_told_of() {
        let wanted =
            "the host has no network: the namespace reaches the host only until it has one";
        assert_eq!(line(plain(), Host::default()), wanted);
        let mut policy = plain();
        policy.following.bind_wait_ms = 250;
        let wanted = "the host has no network, 250 ms after the start (--bind-wait): the namespace \
                      reaches the host only until it has one";
        assert_eq!(line(policy.clone(), Host::default()), wanted);
        policy.following.follow = Follow::Off;
        let wanted = "the host has no network: the namespace reaches the host only";
        assert_eq!(line(policy, Host::default()), wanted);
    }

    #[test]
    fn what_a_named_interface_lacks_is_told() {
        let begins = |host: Host, wanted: &str| {
            let line = line(named("eth0"), host);
            assert!(line.starts_with(&format!("interface \"eth0\" {wanted}: ")), "{line}");
        };
        begins(Host::default().link_with(2, "eth0", |it| it.up = false), "is down");
        begins(Host::default().link_with(2, "eth0", |it| it.carrier = false), "has no carrier");
        begins(Host::default().link(2, "eth0"), "has no address");
        // The monitor has warned of that.
        assert_eq!(line(named("eth0"), Host::default().link(2, "eth1")), "");
    }

    #[test]
    fn a_way_out_without_an_address_is_no_lack_of_a_network() {
        let host = Host::default().link(2, "eth0").route(2, "0.0.0.0/0", "192.0.2.1", 0);
        let wanted = "interface \"eth0\" leads out and has no address of its own: the namespace has \
                      fixed addresses until it has one; -a and -g give it others";
        assert_eq!(line(plain(), host), wanted);
    }

    #[test]
    fn one_family_with_a_network_is_enough() {
        let host = Host::default().link(2, "eth0").address(2, "192.0.2.7/24");
        let host = host.route(2, "0.0.0.0/0", "192.0.2.1", 0);
        assert_eq!(line(plain(), host), "");
    }
}
