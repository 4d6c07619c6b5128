use super::*;
use pasta::ports::spec::Spec;
use pasta::ports::{PortOption, build_rules, requested};
use pasta_ipc::control::RequestedForward;
use pasta_ipc::port_forward::{ListenFailure, Watched};
use pasta_ipc::start::HostSockets;
use proptest::prelude::*;

const PEER: Peer = Peer { uid: 1000, pid: 77 };

fn asked(option: PortOption, text: &str) -> Vec<RequestedForward> {
    requested(option, &Spec::parse(option, text).unwrap()).unwrap()
}

fn tcp(text: &str) -> Vec<RequestedForward> {
    asked(PortOption::TcpIn, text)
}

/// With nothing but TCP port 8080 of the host forwarded.
fn transactions() -> Transactions {
    let none = |option| (option, Spec::none());
    let given = Spec::parse(PortOption::TcpIn, "8080").unwrap();
    let specs = [
        (PortOption::TcpIn, given),
        none(PortOption::UdpIn),
        none(PortOption::TcpOut),
        none(PortOption::UdpOut),
    ];
    let system = System::fallback();
    let forwards = build_rules(&specs, Service::On, Service::On, system).unwrap();
    let served = Served {
        ipv4: Service::On,
        ipv6: Service::On,
        protocols: Protocols::default(),
        to_host: Service::On,
        host_sockets: HostSockets::InReach,
        system,
    };
    Transactions::new(served, forwards)
}

fn change(base: u64, on_failure: OnFailure, forwards: Vec<RequestedForward>) -> ForwardChange {
    let forwards = Bounded::try_from(forwards).unwrap();
    ForwardChange { base: Generation(base), forwards, on_failure }
}

fn now() -> Instant {
    Instant::now()
}

fn changed(generation: Generation, failures: &[(Direction, u16)]) -> ForwardsChanged {
    let failure = |(direction, rule): &(Direction, u16)| ListenFailure {
        direction: *direction,
        rule: *rule,
        port: 8081,
        errno: Errno::EADDRINUSE as i32,
    };
    let failures = Bounded::truncated(failures.iter().map(failure)).0;
    ForwardsChanged { generation, failures }
}

fn generation_of(order: &Order) -> Generation {
    match order {
        Order::ToDatapath(change) => change.generation,
        Order::ToMonitor(forwards) => forwards.generation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn change_of_the_hosts_ports_needs_the_datapath_alone() {
    let mut it = transactions();
    it.monitor_ended(now());
    let both = [tcp("8080"), tcp("8081:81")].concat();
    let orders = it.request(now(), ClientId(1), PEER, change(1, OnFailure::RollBack, both));
    let [Order::ToDatapath(sent)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!(sent.inbound.as_slice().len(), 2);
    assert_eq!(it.state().generation, Generation(1), "not before the datapath has done it");
    let orders = it.datapath_changed(now(), &changed(sent.generation, &[]));
    let generation = Generation(2);
    let applied = ChangeResult::Applied { generation, left_out: Bounded::default() };
    assert_eq!(orders[0], Order::Answer(ClientId(1), applied));
    let origins: Vec<_> = it.state().entries.as_slice().iter().map(|it| it.origin).collect();
    let client = Origin::Client { uid: 1000, pid: 77 };
    assert_eq!(origins, [Origin::CommandLine, client], "what was there keeps who asked for it");
}

#[test]
fn monitor_allows_both_until_the_datapath_has_changed() {
    let mut it = transactions();
    let inside = asked(PortOption::TcpOut, "9000");
    let all = [tcp("8080"), inside.clone()].concat();
    let orders = it.request(now(), ClientId(1), PEER, change(1, OnFailure::RollBack, all));
    let [Order::ToMonitor(allowed)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!(allowed.outbound.as_slice().len(), 1);
    let orders = it.monitor_taken(allowed.generation);
    let orders = it.datapath_changed(now(), &changed(generation_of(&orders[0]), &[]));
    assert!(matches!(orders[0], Order::Answer(_, ChangeResult::Applied { .. })), "{orders:?}");
    // Away again: allowed until nobody listens there any more.
    let base = it.state().generation.0;
    let orders =
        it.request(now(), ClientId(1), PEER, change(base, OnFailure::RollBack, tcp("8080")));
    let [Order::ToMonitor(allowed)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!(allowed.outbound.as_slice().len(), 1);
    let orders = it.monitor_taken(allowed.generation);
    let orders = it.datapath_changed(now(), &changed(generation_of(&orders[0]), &[]));
    let Some(Order::ToMonitor(allowed)) = orders.last() else { panic!("{orders:?}") };
    assert!(allowed.outbound.as_slice().is_empty());
}

#[test]
fn automatic_ports_have_the_other_side_watched() {
    let mut it = transactions();
    let auto = asked(PortOption::UdpIn, "auto");
    let all = [tcp("8080"), auto].concat();
    let orders = it.request(now(), ClientId(1), PEER, change(1, OnFailure::RollBack, all));
    let [Order::ToMonitor(allowed)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!(allowed.watch, PortWatch { namespace: Watched::Yes, host: Watched::No });
}

#[test]
fn change_of_an_old_state_is_none() {
    let mut it = transactions();
    let both = || [tcp("8080"), tcp("8081")].concat();
    let first = it.request(now(), ClientId(1), PEER, change(1, OnFailure::RollBack, both()));
    // Of the same state, while the first is under way.
    assert_eq!(it.request(now(), ClientId(2), PEER, change(1, OnFailure::RollBack, both())), []);
    let orders = it.datapath_changed(now(), &changed(generation_of(&first[0]), &[]));
    let stale = Order::Answer(ClientId(2), ChangeResult::Stale(Generation(2)));
    assert!(orders.contains(&stale), "{orders:?}");
}

#[test]
fn failure_rolls_back_or_is_left_out() {
    let wanted = || [tcp("8080"), tcp("8081"), tcp("8082")].concat();
    let mut it = transactions();
    let sent = it.request(now(), ClientId(1), PEER, change(1, OnFailure::RollBack, wanted()));
    let fails = changed(generation_of(&sent[0]), &[(Direction::Inbound, 1)]);
    let orders = it.datapath_changed(now(), &fails);
    let [Order::Answer(_, ChangeResult::RolledBack { failures })] = &orders[..] else {
        panic!("{orders:?}")
    };
    assert_eq!(failures.as_slice()[0].forward, tcp("8081")[0]);
    assert_eq!((it.state().generation, it.state().entries.as_slice().len()), (Generation(1), 1));

    let sent = it.request(now(), ClientId(1), PEER, change(1, OnFailure::KeepRest, wanted()));
    let fails = changed(generation_of(&sent[0]), &[(Direction::Inbound, 1)]);
    let again = it.datapath_changed(now(), &fails);
    let [Order::ToDatapath(rest)] = &again[..] else { panic!("{again:?}") };
    assert_eq!(rest.inbound.as_slice().len(), 2);
    let orders = it.datapath_changed(now(), &changed(rest.generation, &[]));
    let Order::Answer(_, ChangeResult::Applied { left_out, .. }) = &orders[0] else {
        panic!("{orders:?}")
    };
    assert_eq!(left_out.as_slice()[0].forward, tcp("8081")[0]);
    assert_eq!(it.state().entries.as_slice().len(), 2);
}

#[test]
fn conflicts_and_what_is_switched_off_are_refused_with_the_reason() {
    let mut it = transactions();
    let twice = [tcp("8080"), tcp("8080:81")].concat();
    let orders = it.request(now(), ClientId(1), PEER, change(1, OnFailure::RollBack, twice));
    let [Order::Answer(_, ChangeResult::Refused(why))] = &orders[..] else { panic!("{orders:?}") };
    assert!(why.as_str().contains("conflict"), "{why}");
    it.served.protocols.udp = Service::Off;
    let udp = asked(PortOption::UdpIn, "53");
    let orders = it.request(now(), ClientId(1), PEER, change(1, OnFailure::RollBack, udp));
    let [Order::Answer(_, ChangeResult::Refused(why))] = &orders[..] else { panic!("{orders:?}") };
    assert!(why.as_str().contains("UDP is switched off"), "{why}");
    it.served.host_sockets = HostSockets::OutOfReach;
    let auto = asked(PortOption::TcpOut, "auto");
    let orders = it.request(now(), ClientId(1), PEER, change(1, OnFailure::RollBack, auto));
    let [Order::Answer(_, ChangeResult::Refused(why))] = &orders[..] else { panic!("{orders:?}") };
    assert!(why.as_str().contains("name the ports"), "{why}");
    it.served.to_host = Service::Off;
    let out = asked(PortOption::TcpOut, "53");
    let orders = it.request(now(), ClientId(1), PEER, change(1, OnFailure::RollBack, out));
    let [Order::Answer(_, ChangeResult::Refused(why))] = &orders[..] else { panic!("{orders:?}") };
    assert!(why.as_str().contains("--no-host-loopback"), "{why}");
}

#[test]
fn helper_that_has_ended_or_is_late_is_the_answer() {
    let mut it = transactions();
    let start = now();
    let sent = it.request(start, ClientId(1), PEER, change(1, OnFailure::RollBack, tcp("8081")));
    assert_eq!(it.tick(start), []);
    let orders = it.tick(it.next_deadline().unwrap());
    assert!(matches!(orders[..], [Order::Answer(_, ChangeResult::Refused(_))]), "{orders:?}");
    assert_eq!(it.next_deadline(), None, "answered once");
    // It comes to its end all the same.
    let orders = it.datapath_changed(now(), &changed(generation_of(&sent[0]), &[]));
    assert!(matches!(orders[..], [Order::Log(_)]), "{orders:?}");
    assert_eq!(it.state().entries.as_slice()[0].forward, tcp("8081")[0]);
    let base = it.state().generation.0;
    it.request(start, ClientId(1), PEER, change(base, OnFailure::RollBack, tcp("8082")));
    let orders = it.datapath_ended(now());
    assert!(matches!(orders[..], [Order::Answer(_, ChangeResult::Refused(_))]), "{orders:?}");
    assert_eq!(it.state().entries.as_slice()[0].forward, tcp("8081")[0]);
}

/// What happens next in the property test.
#[derive(Clone, Copy, Debug)]
enum Step {
    Change { ports: u8, inside: u8, keep: bool },
    Taken,
    Done,
    Fails(u16),
    MonitorEnds,
    NotSent,
    ClientGoes,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..8_u8, 0..4_u8, any::<bool>())
            .prop_map(|(ports, inside, keep)| Step::Change { ports, inside, keep }),
        6 => Just(Step::Taken),
        6 => Just(Step::Done),
        2 => (0..3_u16).prop_map(Step::Fails),
        1 => Just(Step::MonitorEnds),
        1 => Just(Step::NotSent),
        1 => Just(Step::ClientGoes),
    ]
}

proptest! {
    /// Whatever happens, what is said to be forwarded is what the datapath has done last, and every client has one
    /// answer to each request.
    #[test]
    fn state_is_what_the_datapath_has(steps in proptest::collection::vec(step(), 0..60)) {
        let mut it = transactions();
        let (mut has, mut waits) = (it.forwards().inbound.clone(), false);
        let (mut to_monitor, mut to_datapath) = (None, None);
        for step in steps {
            let orders = match step {
                Step::Change { ports, inside, keep } if !waits => {
                    waits = true;
                    let of = |bits: u8, option, first: u16| {
                        let ports = (0..8).filter(move |bit| bits & 1 << bit != 0);
                        ports.flat_map(move |bit| asked(option, &(first + bit).to_string()))
                    };
                    let forwards = of(ports, PortOption::TcpIn, 8080);
                    let forwards = forwards.chain(of(inside, PortOption::TcpOut, 9000)).collect();
                    let on_failure = if keep { OnFailure::KeepRest } else { OnFailure::RollBack };
                    let base = it.state().generation.0;
                    it.request(now(), ClientId(1), PEER, change(base, on_failure, forwards))
                }
                Step::Taken => match to_monitor.take() {
                    Some(generation) => it.monitor_taken(generation),
                    None => continue,
                },
                Step::Done => match to_datapath.take() {
                    Some(ForwardsChange { generation, inbound, .. }) => {
                        has = inbound.as_slice().to_vec();
                        it.datapath_changed(now(), &changed(generation, &[]))
                    }
                    None => continue,
                },
                Step::Fails(rule) => match to_datapath.take() {
                    Some(ForwardsChange { generation, .. }) => {
                        it.datapath_changed(now(), &changed(generation, &[(Direction::Inbound, rule)]))
                    }
                    None => continue,
                },
                Step::MonitorEnds => {
                    to_monitor = None;
                    it.monitor_ended(now())
                }
                // Only what was just ordered can fail to be sent.
                Step::NotSent if to_monitor.is_some() && to_datapath.is_none() => {
                    to_monitor = None;
                    it.not_sent(now())
                }
                Step::ClientGoes => {
                    it.client_gone(ClientId(1));
                    waits = false;
                    continue;
                }
                Step::Change { .. } | Step::NotSent => continue,
            };
            for order in orders {
                match order {
                    Order::ToMonitor(forwards) => to_monitor = Some(forwards.generation),
                    Order::ToDatapath(change) => {
                        prop_assert!(to_datapath.is_none(), "two changes at once");
                        to_datapath = Some(*change);
                    }
                    Order::Answer(_, _) => {
                        prop_assert!(waits, "an answer that nobody waits for");
                        waits = false;
                    }
                    Order::Log(_) => {}
                }
            }
            if to_datapath.is_none() {
                prop_assert_eq!(&it.forwards().inbound, &has);
            }
        }
    }
}
