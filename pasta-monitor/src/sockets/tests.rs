use super::*;
use crate::peer::testing::plain_start;
use pasta_ipc::port_forward::{Effort, RawRule};
use pasta_ipc::socket::MAX_SOCKETS;
use pasta_ipc::types::{Bounded, PortRange};
use proptest::prelude::*;

const TCP4: SocketKind = SocketKind { ipv6: false, transport: Transport::Tcp };

fn rule(transport: Transport, first: u16, last: u16, effort: Effort) -> ForwardRule {
    let raw = RawRule {
        transport,
        listen: None,
        interface: None,
        ports: PortRange::new(first, last).unwrap(),
        target: None,
        target_first: first,
        effort,
    };
    ForwardRule::try_from(raw).unwrap()
}

fn gate(rules: Vec<ForwardRule>) -> Gate {
    let mut start = plain_start();
    start.ports.outbound = Bounded::try_from(rules).unwrap();
    Gate::new(&start)
}

fn listener(transport: Transport, family: SocketFamily, port: u16) -> NamespaceListener {
    NamespaceListener { transport, family, port: port.try_into().unwrap() }
}

fn ask_listener(
    gate: &mut Gate,
    transport: Transport,
    family: SocketFamily,
    port: u16,
) -> Result<Order, Refusal> {
    let listener = listener(transport, family, port);
    let message = DatapathToMonitor::ListenerWanted { request: RequestId(7), listener };
    let verdict = gate.decide(Instant::START, &message).unwrap();
    assert_eq!(verdict.request, RequestId(7));
    verdict.outcome
}

fn ask_sockets(
    gate: &mut Gate,
    now: Instant,
    kind: SocketKind,
    count: u8,
) -> Result<Order, Refusal> {
    let count = SocketCount::try_from(count).unwrap();
    let message = DatapathToMonitor::SocketsWanted { request: RequestId(1), kind, count };
    gate.decide(now, &message).unwrap().outcome
}

fn at(micros: u64) -> Instant {
    Instant::after_start(Duration::from_micros(micros))
}

#[test]
fn listener_needs_a_rule_with_its_transport_and_port() {
    use Transport::{Tcp, Udp};
    for effort in [Effort::Explicit, Effort::BestEffort, Effort::Auto] {
        let mut gate = gate(vec![rule(Tcp, 8000, 8001, effort), rule(Udp, 53_000, 53_000, effort)]);
        for (transport, port, allowed) in [
            (Tcp, 7999, false),
            (Tcp, 8000, true),
            (Tcp, 8001, true),
            (Tcp, 8002, false),
            (Udp, 8000, false),
            (Udp, 53_000, true),
            (Tcp, 53_000, false),
        ] {
            let wanted = listener(transport, SocketFamily::Both, port);
            let expected = if allowed { Ok(Order::Listener(wanted)) } else { Err(Refusal::Denied) };
            assert_eq!(ask_listener(&mut gate, transport, SocketFamily::Both, port), expected);
        }
    }
}

#[test]
fn low_port_is_allowed_as_any_other_of_a_rule() {
    let family = SocketFamily::Ipv4;
    for effort in [Effort::Explicit, Effort::BestEffort, Effort::Auto] {
        let mut gate = gate(vec![rule(Transport::Tcp, 53, 1024, effort)]);
        for (port, allowed) in [(52, false), (53, true), (1023, true), (1024, true), (1025, false)]
        {
            let outcome = ask_listener(&mut gate, Transport::Tcp, family, port);
            assert_eq!(outcome.is_ok(), allowed, "port {port}, {effort:?}");
        }
    }
}

#[test]
fn family_that_is_off_is_denied() {
    use SocketFamily::{Both, Ipv4, Ipv6};
    let outbound = Bounded::try_from(vec![rule(Transport::Tcp, 80, 80, Effort::Explicit)]).unwrap();
    let mut start = plain_start();
    start.ipv6.service = Service::Off;
    start.ports.outbound = outbound;
    let mut gate = Gate::new(&start);
    for (family, allowed) in [(Ipv4, true), (Ipv6, false), (Both, false)] {
        assert_eq!(ask_listener(&mut gate, Transport::Tcp, family, 80).is_ok(), allowed);
    }
    let kind = SocketKind { ipv6: true, ..TCP4 };
    assert_eq!(ask_sockets(&mut gate, Instant::START, kind, 1), Err(Refusal::Denied));
    assert!(ask_sockets(&mut gate, Instant::START, TCP4, 1).is_ok());
}

#[test]
fn burst_is_served_then_only_what_time_brings() {
    let mut gate = gate(Vec::new());
    for _ in 0..BURST / u32::from(MAX_SOCKETS) {
        assert!(ask_sockets(&mut gate, Instant::START, TCP4, MAX_SOCKETS).is_ok());
    }
    assert_eq!(ask_sockets(&mut gate, Instant::START, TCP4, 1), Err(Refusal::Busy));
    assert_eq!(ask_sockets(&mut gate, at(19), TCP4, 1), Err(Refusal::Busy));
    let three = Order::Sockets(TCP4, SocketCount::try_from(3).unwrap());
    assert_eq!(ask_sockets(&mut gate, at(60), TCP4, MAX_SOCKETS), Ok(three));
    assert_eq!(ask_sockets(&mut gate, at(60), TCP4, 1), Err(Refusal::Busy));
}

#[test]
fn refused_listener_costs_nothing() {
    let mut gate = gate(Vec::new());
    for _ in 0..2 * BURST {
        let outcome = ask_listener(&mut gate, Transport::Tcp, SocketFamily::Ipv4, 8080);
        assert_eq!(outcome, Err(Refusal::Denied));
    }
    assert!(ask_sockets(&mut gate, Instant::START, TCP4, 1).is_ok());
}

/// Sends octets as the datapath would send a message, and gives what arrives.
fn arrival(octets: &[u8]) -> Option<DatapathToMonitor> {
    use nix::sys::socket::{MsgFlags, send};
    use std::os::fd::{AsRawFd, OwnedFd};
    let (ours, theirs) = crate::peer::ToDatapath::pair().unwrap();
    let theirs: OwnedFd = theirs.into();
    send(theirs.as_raw_fd(), octets, MsgFlags::empty()).unwrap();
    ours.receive().ok().map(|it| it.message)
}

proptest! {
    /// The datapath may be in the hands of somebody else. A new kind of message or order has to be
    /// thought about here: none may name an address, a route or a link, or lead to a change of one.
    #[test]
    fn s68_whatever_octets_come_sockets_are_all_that_is_made(
        // What is wanted, the name of the request, and whether of TCP or UDP, IPv4 or IPv6.
        head in (1_u8..3, 0_u8..=250, 0_u8..2),
        // How many, or a port near those of the rule as the wire has it; or anything.
        tail in prop_oneof![
            (0_u8..2, 0_u8..40).prop_map(|(a, b)| vec![a, b]),
            (0x38_u8..0x50, 0_u8..3).prop_map(|(low, a)| vec![a, 251, low, 0x1f]),
            prop::collection::vec(any::<u8>(), 0..12),
        ],
    ) {
        let mut gate = gate(vec![rule(Transport::Tcp, 8000, 8010, Effort::Explicit)]);
        let octets = [&[head.0, head.1, head.2], &tail[..]].concat();
        let Some(message) = arrival(&octets) else { return Ok(()) };
        let order = match message {
            DatapathToMonitor::Hello(_) | DatapathToMonitor::FlowsReset { .. } => {
                prop_assert_eq!(gate.decide(Instant::START, &message), None);
                return Ok(());
            }
            DatapathToMonitor::SocketsWanted { .. } | DatapathToMonitor::ListenerWanted { .. } => {
                gate.decide(Instant::START, &message).unwrap().outcome
            }
        };
        match order {
            Ok(Order::Sockets(_, count)) => prop_assert!(count.get() <= MAX_SOCKETS),
            Ok(Order::Listener(NamespaceListener { transport, family: _, port })) => {
                prop_assert_eq!(transport, Transport::Tcp);
                prop_assert!((8000..=8010).contains(&port.get()));
            }
            Err(Refusal::Denied | Refusal::Busy | Refusal::Failed(_)) => {}
        }
    }

    /// In no stretch of time more is given than the burst and what that time brings.
    #[test]
    fn rate_is_kept_over_any_stretch(steps in prop::collection::vec((0_u64..200_000, 1_u8..=32), 1..200)) {
        let mut gate = gate(Vec::new());
        let mut now = 0;
        let mut given = Vec::new();
        for (wait, count) in steps {
            now += wait;
            if let Ok(Order::Sockets(_, count)) = ask_sockets(&mut gate, at(now), TCP4, count) {
                given.push((now, u64::from(count.get())));
            }
        }
        for (n, (first, _)) in given.iter().enumerate() {
            let mut sum = 0;
            for (last, count) in given.iter().skip(n) {
                sum += count;
                let most = u64::from(BURST) + (last - first) * u64::from(RATE) / 1_000_000 + 1;
                prop_assert!(sum <= most, "{} of {} in {} us", sum, most, last - first);
            }
        }
    }

    /// Who asks for less than the rate is never sent away.
    #[test]
    fn within_the_rate_nobody_waits(waits in prop::collection::vec(640_u64..5000, 1..300)) {
        let mut gate = gate(Vec::new());
        let mut now = 0;
        for wait in waits {
            now += wait;
            let all = Order::Sockets(TCP4, SocketCount::try_from(MAX_SOCKETS).unwrap());
            prop_assert_eq!(ask_sockets(&mut gate, at(now), TCP4, MAX_SOCKETS), Ok(all));
        }
    }
}
