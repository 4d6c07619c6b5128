#![forbid(unsafe_code)]
//! What the namespace would look like, for `--explain`: state → [`Explanation`].

use crate::bind::Binding;
use crate::desired::{Desired, tap_name};
use crate::reduce::State;
use crate::status::candidates_of;
use pasta_ipc::types::{
    Bounded, ExplainedRoute, ExplainedTemplate, Explanation, Family, FamilyExplanation,
    FamilyState, MacAddr, Text,
};

/// What the namespace would look like by the present state of the host.
pub fn explanation(state: &State) -> Explanation {
    // There is no tap. Only its link-local address, which is not shown, depends on its own.
    let desired = state.desired(MacAddr::OURS_BY_DEFAULT);
    Explanation {
        tap_name: tap_name(state.policy(), &state.bindings()),
        mtu: desired.mtu,
        ipv4: of_family(state, &desired, Family::V4),
        ipv6: of_family(state, &desired, Family::V6),
        left_out: count(desired.left_out),
    }
}

fn of_family(state: &State, desired: &Desired, family: Family) -> FamilyExplanation {
    let bindings = state.bindings();
    let (is, template) = match bindings.get(family) {
        Binding::Off => (FamilyState::Off, None),
        Binding::Local => (FamilyState::Local, None),
        Binding::Bound(template) => (FamilyState::Bound, Some(template)),
        Binding::Held(template, ..) => (FamilyState::Held, Some(template)),
    };
    let assigned = desired.assigned.get(family).clone().unwrap_or_default();
    let prefix = |prefix: &dyn std::fmt::Display| Text::truncated(&prefix.to_string());
    let routes: Vec<_> =
        desired.routes.iter().filter(|it| it.destination.family() == family).collect();
    let (shown, _) = Bounded::truncated(routes.iter().map(|it| ExplainedRoute {
        destination: prefix(&it.destination),
        gateway: it.gateway,
        metric: it.metric,
    }));
    FamilyExplanation {
        state: is,
        template: template.map(|it| ExplainedTemplate {
            name: Text::truncated(&it.name),
            index: it.index,
            primary: it.primary,
        }),
        candidates: match is {
            FamilyState::Off => Text::default(),
            _ => Text::truncated(&candidates_of(state.host(), state.policy(), family)),
        },
        addresses: Bounded::truncated(assigned.addresses.iter().map(|it| prefix(&it.prefix))).0,
        gateway: assigned.gateway,
        more_routes: count(routes.len() - shown.as_slice().len()),
        routes: shown,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Host;
    use crate::policy::testing::plain;

    fn host() -> Host {
        Host::default().link(5, "eth0").address(5, "198.51.100.9/24").route(
            5,
            "0.0.0.0/0",
            "198.51.100.1",
            100,
        )
    }

    #[test]
    fn template_addresses_routes_and_reasons_are_named() {
        let explained = explanation(&State::start(plain(), host().0));
        assert_eq!(explained.tap_name.as_str(), "eth0");
        let ipv4 = explained.ipv4;
        assert_eq!(ipv4.state, FamilyState::Bound);
        let template = ipv4.template.unwrap();
        assert_eq!((template.name.as_str(), template.index), ("eth0", 5));
        assert_eq!(template.primary.to_string(), "198.51.100.9");
        assert_eq!(ipv4.addresses.as_slice()[0].as_str(), "198.51.100.9/24");
        assert_eq!(ipv4.gateway.unwrap().to_string(), "198.51.100.1");
        let default = ipv4.routes.as_slice().last().unwrap();
        assert_eq!((default.destination.as_str(), default.metric), ("0.0.0.0/0", 100));
        assert_eq!(ipv4.candidates.as_str(), "eth0(5) metric 100; not: none");
        let ipv6 = explained.ipv6;
        assert_eq!((ipv6.state, ipv6.template), (FamilyState::Local, None));
        assert_eq!(ipv6.candidates.as_str(), "none; not: eth0(5) no usable address");
        assert!(ipv6.addresses.as_slice().is_empty());
    }

    #[test]
    fn more_routes_than_are_shown_are_counted() {
        let host = (0..200)
            .fold(host(), |host, n| host.route(5, &format!("203.0.{n}.0/24"), "198.51.100.1", 0));
        let ipv4 = explanation(&State::start(plain(), host.0)).ipv4;
        assert_eq!((ipv4.routes.as_slice().len(), ipv4.more_routes), (128, 201 - 128));
    }
}
