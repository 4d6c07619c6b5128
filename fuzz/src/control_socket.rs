//! Octets on the control socket: what a client may send, and what follows from a change of ports.
//!
//! A message is within its limit, can be sent on and arrives as the same one. What a change asks for leads to rules
//! of which no two listen on the same, each of an entry that is there, or is refused; and it is shown as text that
//! reads as the same request.

use crate::ipc_decode::check as check_message;
use pasta::ports::spec::Spec;
use pasta::ports::{System, option_of, requested, rules_of};
use pasta_ipc::codec::decode;
use pasta_ipc::control::{ForwardEntry, Origin, RequestedForward};
use pasta_ipc::types::Service;
use pasta_ipc::{ClientToSupervisor, SupervisorToClient};

/// Takes `octets` as a message of either side.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn check(octets: &[u8]) {
    check_message::<ClientToSupervisor>(octets);
    check_message::<SupervisorToClient>(octets);
    let forwards = match decode::<ClientToSupervisor>(octets) {
        Ok(ClientToSupervisor::Change(change)) => change.forwards.as_slice().to_vec(),
        _ => return,
    };
    forwards.iter().for_each(check_text);
    let entry = |forward: &RequestedForward| ForwardEntry {
        forward: forward.clone(),
        origin: Origin::CommandLine,
    };
    let entries: Vec<_> = forwards.iter().map(entry).collect();
    let Ok(ports) = rules_of(entries.clone(), Service::On, Service::Off, System::fallback()) else {
        return;
    };
    assert_eq!(ports.entries, entries);
    for (rules, places) in
        [(&ports.inbound, &ports.inbound_places), (&ports.outbound, &ports.outbound_places)]
    {
        assert_eq!(rules.len(), places.len());
        for (n, (rule, place)) in rules.iter().zip(places).enumerate() {
            let entry = &entries[usize::from(*place)];
            let (asked, ports) = (entry.forward.rule(), rule.ports());
            assert_eq!((rule.transport(), rule.listen()), (asked.transport(), asked.listen()));
            assert!(asked.ports().contains(ports.first()) && asked.ports().contains(ports.last()));
            assert_eq!(rule.target_port(ports.first()), asked.target_port(ports.first()));
            for other in &rules[n + 1..] {
                assert!(!crate::cli_ports::listen_on_the_same(rule, other), "{rule:?} {other:?}");
            }
        }
    }
}

/// What is shown of a request can be given to a client again.
fn check_text(forward: &RequestedForward) {
    let (option, shown) = (option_of(forward), forward.to_string());
    let Some((_, text)) = shown.split_once(' ') else { panic!("{shown}") };
    let spec = match Spec::parse(option, text) {
        Ok(spec) => spec,
        // The name of an interface may hold what means something else in a list.
        Err(_) if forward.rule().interface().is_some() => return,
        Err(error) => panic!("{shown}: {error}"),
    };
    let again = match requested(option, &spec) {
        Ok(again) => again,
        Err(error) => panic!("{shown}: {error}"),
    };
    if forward.rule().interface().is_none() {
        assert!(is_same(&again, forward), "{shown}: {again:?} is not {forward:?}");
    }
}

/// Exclusions may be written in more than one way, and a list of all ports may be a range of them.
fn is_same(again: &[RequestedForward], forward: &RequestedForward) -> bool {
    let [one] = again else { return false };
    one.rule() == forward.rule() && one.direction() == forward.direction()
}
