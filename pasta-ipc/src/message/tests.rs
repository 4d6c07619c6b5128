use super::*;
use crate::codec::{decode, encode};
use crate::control::*;
use crate::port_forward::*;
use crate::socket::*;
use crate::start::*;
use crate::status::*;
use crate::types::*;
use proptest::prelude::*;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

fn name(text: &str) -> IfName {
    IfName::try_from(text.to_owned()).unwrap()
}

fn mac() -> MacAddr {
    MacAddr::try_from([2, 0, 0, 0, 0, 1]).unwrap()
}

fn octets_of<M: Message>(message: &M) -> Vec<u8> {
    let mut buffer = vec![0; M::LIMIT];
    let len = encode(message, &mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

fn round_trip<M: Message + PartialEq + Debug>(message: M) -> Vec<u8> {
    let octets = octets_of(&message);
    assert_eq!(decode::<M>(&octets).unwrap(), message);
    for shorter in (0..octets.len()).step_by(1 + octets.len() / 64) {
        assert!(decode::<M>(&octets[..shorter]).is_err(), "{shorter} octets of {message:?}");
    }
    octets
}

fn tap() -> TapInfo {
    TapInfo { name: name("tap0"), mac: mac(), offloads: TapOffloads::TcpAndUdp }
}

fn monitor_start() -> MonitorStart {
    let address = Ipv4Net::new(Ipv4Addr::new(192, 0, 2, 7), 24).unwrap();
    MonitorStart {
        ipv4: FamilyStart {
            service: Service::On,
            addresses: vec![address].try_into().unwrap(),
            gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
            template: None,
        },
        ipv6: FamilyStart::plain(Service::Off),
        link: LinkStart {
            tap: TapUse::Make,
            configure: Configure::Namespace,
            name: None,
            mtu: Some(Mtu::DEFAULT),
            mac: Some(mac()),
        },
        template: Some(name("eth0")),
        copy: CopyStart { routes: CopyRoutes::All, addresses: CopyAddresses::All },
        following: Following::default(),
        ports: PortsStart {
            outbound: vec![rule(8000)].try_into().unwrap(),
            watch: PortWatch { namespace: Watched::Yes, host: Watched::No },
            loopback: LoopbackTarget::Address,
            changes: RuleChanges::Possible,
            host: HostSockets::InReach,
        },
        log_level: LogLevel::Info,
        run_as: None,
        root: RootFallback::None,
    }
}

fn policy<A>(address: A) -> FamilyPolicy<A> {
    FamilyPolicy {
        service: Service::On,
        host_loopback: HostLoopback::Address(address),
        guest_address: None,
        dns_forward: None,
        dns_host: None,
        outbound: None,
        outbound_interface: None,
    }
}

fn datapath_start() -> DatapathStart {
    DatapathStart {
        our_mac: MacAddr::OURS_BY_DEFAULT,
        tap: Some(tap()),
        ipv4: policy(Ipv4Addr::new(192, 0, 2, 1)),
        ipv6: policy(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        splice: Splice::On,
        loopback: LoopbackTarget::Loopback,
        log_level: LogLevel::Warn,
        services: Services {
            protocols: Protocols { udp: Service::Off, ..Protocols::default() },
            clients: ClientOptions {
                dns: DnsList::Given(vec![IpAddr::from([192, 0, 2, 53])].try_into().unwrap()),
                search: SearchList::Given(Bounded::default()),
                host_name: Some(Text::truncated("box")),
                ..ClientOptions::default()
            },
            ..Services::default()
        },
        free_bind: FreeBind::On,
        capture: Captured::No,
        ephemeral_ports: PortRange::new(32_768, 60_999).unwrap(),
        stats: None,
        changes: RuleChanges::Never,
    }
}

fn rule(port: u16) -> ForwardRule {
    let v6 = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
    ForwardRule::try_from(RawRule {
        transport: Transport::Udp,
        listen: Some(v6(1)),
        interface: Some(name("interface-name0")),
        ports: PortRange::new(port, port + 1).unwrap(),
        target: Some(v6(2)),
        target_first: 60_000,
        effort: Effort::Auto,
    })
    .unwrap()
}

fn table() -> ForwardTable {
    ForwardTable {
        generation: Generation(1),
        direction: Direction::Inbound,
        rules: Bounded::truncated((0..255).map(|n| rule(10_000 + n))).0,
    }
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn listeners() -> Bounded<ListenerAddress, MAX_LISTENERS> {
    let listener = |n| ListenerAddress {
        transport: Transport::Tcp,
        address: Some(IpAddr::V6(Ipv6Addr::from(u128::MAX))),
        interface: Some(name("interface-name0")),
        port: port(n),
    };
    Bounded::truncated((10_000..).take(MAX_LISTENERS).map(listener)).0
}

fn ports() -> PortSnapshot {
    PortSnapshot {
        generation: Generation(3),
        side: PortSide::Host,
        transport: Transport::Udp,
        ports: FamilyPorts { ipv4: (1..=u16::MAX).collect(), ipv6: (1..=1000).collect() },
    }
}

fn full_snapshot() -> NetworkSnapshot {
    let v4 = |n: u32| Ipv4Addr::from(0xc000_0200 | n);
    let v6 = |n: u128| Ipv6Addr::from((0x2001_0db8 << 96) | n);
    let (ipv4, ipv6) = (Prefix::host(v4(9)), Prefix::host(v6(9)));
    let (ipv4, ipv6) = (AssignedAddress::from(ipv4), AssignedAddress::from(ipv6));
    NetworkSnapshot {
        generation: Generation(7),
        ipv4: FamilySnapshot {
            state: FamilyState::Bound,
            assigned: Bounded::truncated([ipv4; 64]).0,
            default_route: true,
            present: Bounded::truncated((0..256).map(v4)).0,
            gateway: Some(v4(1)),
            our_address: Some(v4(1)),
            host_primary: Some(v4(2)),
            leaving: Bounded::truncated((0..256).map(v4)).0,
        },
        ipv6: FamilySnapshot {
            state: FamilyState::Held,
            assigned: Bounded::truncated([ipv6; 64]).0,
            default_route: false,
            present: Bounded::truncated((0..256).map(v6)).0,
            gateway: None,
            our_address: None,
            host_primary: None,
            leaving: Bounded::truncated((0..256).map(v6)).0,
        },
        mtu: Some(Mtu::DEFAULT),
        offered_mtu: Some(Mtu::DEFAULT),
        losses: AddressLosses(u64::MAX),
        completeness: Completeness::Truncated,
    }
}

fn resolvers() -> ResolverSnapshot {
    let server = |n: u128| Resolver {
        address: IpAddr::V6(Ipv6Addr::from(n)),
        interface: Some(name("interface-name0")),
    };
    ResolverSnapshot {
        generation: Generation(1),
        servers: Bounded::truncated((0..64).map(server)).0,
        search: Bounded::truncated((0..16).map(|_| Text::truncated(&"x".repeat(253)))).0,
    }
}

fn audit() -> AuditReport {
    let entry = |number| FdEntry { number, kind: Text::truncated("character device") };
    AuditReport {
        effective: 1 << 12,
        fds: Bounded::truncated((0..64).map(entry)).0,
        missing: Bounded::truncated((0..16).map(|_| Text::truncated(&"x".repeat(200)))).0,
        ..AuditReport::default()
    }
}

#[test]
fn every_variant_survives_the_wire_and_no_sampled_prefix_of_it_does() {
    let hello = Hello::OURS;
    let record = LogRecord { level: LogLevel::Warn, text: Text::truncated("line") };
    let line = || Text::truncated("why");

    round_trip(SupervisorToMonitor::Hello(hello));
    round_trip(SupervisorToMonitor::Start(Box::new(monitor_start())));
    round_trip(SupervisorToMonitor::Shutdown);
    let entry = |n: u128| NeighbourEntry { address: Ipv6Addr::from(n).into(), mac: mac() };
    let entries = Bounded::truncated((0..512).map(entry)).0;
    let full = NeighbourSnapshot { generation: Generation(u64::MAX), entries };
    round_trip(MonitorToDatapath::Neighbours(Box::new(full)));
    round_trip(SupervisorToMonitor::StatusWanted);
    round_trip(SupervisorToMonitor::ResyncWanted);
    let outbound = Bounded::truncated((0..510).map(rule_of)).0;
    let watch = PortWatch::default();
    let forwards = NamespaceForwards { generation: Generation(u64::MAX), outbound, watch };
    round_trip(SupervisorToMonitor::Forwards(Box::new(forwards)));
    round_trip(MonitorToSupervisor::ForwardsTaken { generation: Generation(u64::MAX) });
    round_trip(MonitorToSupervisor::Status(Box::new(full_monitor_status())));
    let rules = || Bounded::truncated((0..255).map(rule_of)).0;
    let (inbound, outbound) = (rules(), rules());
    let change = ForwardsChange { generation: Generation(u64::MAX), inbound, outbound };
    round_trip(SupervisorToDatapath::Change(Box::new(change)));
    round_trip(SupervisorToDatapath::StatusWanted { flows: 64 });
    round_trip(DatapathToSupervisor::Changed(Box::new(full_failures())));
    round_trip(DatapathToSupervisor::Status(Box::new(full_datapath_status())));
    round_trip(ClientToSupervisor::Hello(hello));
    round_trip(ClientToSupervisor::ForwardsWanted);
    round_trip(ClientToSupervisor::Change(Box::new(forward_change())));
    round_trip(ClientToSupervisor::StatusWanted { flows: 64 });
    round_trip(ClientToSupervisor::ResyncWanted);
    round_trip(SupervisorToClient::Hello(hello));
    round_trip(SupervisorToClient::Forwards(Box::new(forward_state())));
    round_trip(SupervisorToClient::Monitor(Some(Box::new(full_monitor_status()))));
    round_trip(SupervisorToClient::Datapath(Some(Box::new(full_datapath_status()))));
    round_trip(SupervisorToClient::ResyncSent);
    round_trip(SupervisorToClient::Refused(Text::truncated("why")));
    round_trip(SupervisorToMonitor::Explain(Box::new(monitor_start())));
    round_trip(MonitorToSupervisor::Explained(Box::new(full_explanation())));
    round_trip(MonitorToSupervisor::Hello(hello));
    round_trip(MonitorToSupervisor::TapReady(tap()));
    round_trip(MonitorToSupervisor::Ready(Box::new(audit())));
    round_trip(MonitorToSupervisor::Log(record.clone()));
    round_trip(MonitorToSupervisor::Failed(line()));
    round_trip(SupervisorToDatapath::Hello(hello));
    round_trip(SupervisorToDatapath::Start(Box::new(datapath_start())));
    round_trip(SupervisorToDatapath::Resolvers(resolvers()));
    round_trip(SupervisorToDatapath::Forwards(Box::new(table())));
    round_trip(SupervisorToDatapath::Listeners(listeners()));
    round_trip(SupervisorToDatapath::Shutdown);
    round_trip(DatapathToSupervisor::Hello(hello));
    round_trip(DatapathToSupervisor::Ready(Box::new(audit())));
    round_trip(DatapathToSupervisor::Log(record));
    round_trip(DatapathToSupervisor::Failed(line()));
    round_trip(MonitorToDatapath::Hello(hello));
    round_trip(MonitorToDatapath::Network(Box::new(full_snapshot())));
    let request = RequestId(9);
    round_trip(MonitorToDatapath::Ports(Box::new(ports())));
    round_trip(MonitorToDatapath::Sockets { request, count: 32.try_into().unwrap() });
    round_trip(MonitorToDatapath::Listener { request });
    round_trip(MonitorToDatapath::Refused { request, why: Refusal::Failed(98) });
    round_trip(DatapathToMonitor::Hello(hello));
    let (kind, listener) = (socket_kind(), namespace_listener());
    round_trip(DatapathToMonitor::SocketsWanted { request, kind, count: 1.try_into().unwrap() });
    round_trip(DatapathToMonitor::ListenerWanted { request, listener });
    round_trip(DatapathToMonitor::FlowsReset { generation: Generation(u64::MAX) });
    round_trip(InitToSupervisor::Warning(line()));
    round_trip(InitToSupervisor::Failed(line()));
    round_trip(InitToSupervisor::Ready);
    round_trip(InitToSupervisor::Killed(15));
    round_trip(InitToSupervisor::Stopped(i32::MAX));
    round_trip(InitToSupervisor::Continued);
    round_trip(SupervisorToInit::Release);
    round_trip(SupervisorToInit::Continue(TerminalGround::Background));
    round_trip(IsolationToSupervisor::Successor(ProcessId::try_from(i32::MAX).unwrap()));
    round_trip(IsolationToSupervisor::StatusFile);
}

fn rule_of(number: u16) -> ForwardRule {
    rule(1 + number)
}

fn requested(port: u16) -> RequestedForward {
    let rule = RawRule::from(rule(port));
    RequestedForward::new(Direction::Inbound, rule, RequestedPorts::Named).unwrap()
}

fn forward_change() -> ForwardChange {
    let forwards = Bounded::truncated([requested(80)]).0;
    ForwardChange { base: Generation(2), forwards, on_failure: OnFailure::KeepRest }
}

/// As large as it can be but for exclusions.
fn forward_state() -> ForwardState {
    let entry = |port| ForwardEntry {
        forward: requested(port),
        origin: Origin::Client { uid: u32::MAX, pid: i32::MAX },
    };
    let entries = Bounded::truncated((1..511).map(entry)).0;
    let generation = Generation(u64::MAX);
    ForwardState { generation, ipv4: Service::On, ipv6: Service::On, entries }
}

/// As large as it can be.
fn full_monitor_status() -> MonitorStatus {
    let lines = Bounded::truncated((0..64).map(|_| Text::truncated(&"x".repeat(240)))).0;
    // Every other port: no two are one range.
    let ports: PortSet = (0..65535).step_by(2).collect();
    let ports = FamilyPorts { ipv4: ports.clone(), ipv6: ports };
    let listening = || Some(Box::new(ListeningPorts::new(&ports, &ports)));
    MonitorStatus { lines, network: None, namespace: listening(), host: listening() }
}

/// As large as it can be.
fn full_failures() -> ForwardsChanged {
    let failure = |rule| ListenFailure {
        direction: Direction::Outbound,
        rule,
        port: u16::MAX,
        errno: i32::MAX,
    };
    let failures = Bounded::truncated((0..64).map(failure)).0;
    ForwardsChanged { generation: Generation(u64::MAX), failures }
}

/// As large as it can be.
fn full_datapath_status() -> DatapathStatus {
    let counter = |_| Counter { name: Text::truncated(&"x".repeat(40)), value: u64::MAX };
    let counters = || Bounded::truncated((0..64).map(counter)).0;
    let rule = |rule| RuleStatus {
        direction: Direction::Inbound,
        rule: u16::MAX - rule,
        open: u32::MAX,
        refused: u32::MAX,
        first_refused: Some((u16::MAX, i32::MAX)),
        accepted: u64::MAX,
        failed: u64::MAX,
    };
    let end = Some((Ipv6Addr::from(u128::MAX), u16::MAX).into());
    let flow = |_| FlowStatus {
        kind: FlowKind::Echo,
        namespace: end,
        remote: end,
        to_namespace: u64::MAX,
        from_namespace: u64::MAX,
    };
    let usage = Usage { used: u64::MAX, limit: u64::MAX };
    DatapathStatus {
        forwards: Generation(u64::MAX),
        counters: counters(),
        drops: counters(),
        flows: FlowCounts { tcp: u32::MAX, spliced: u32::MAX, datagram: u32::MAX, limit: u32::MAX },
        descriptors: usage,
        backlog: u64::MAX,
        window_credit: usage,
        rules: Bounded::truncated((0..510).map(rule)).0,
        top: Bounded::truncated((0..64).map(flow)).0,
    }
}

/// As large as it can be.
fn full_explanation() -> Explanation {
    let address = IpAddr::V6(Ipv6Addr::from(u128::MAX));
    let prefix = || PrefixText::truncated(&"f".repeat(100));
    let route =
        || ExplainedRoute { destination: prefix(), gateway: Some(address), metric: u32::MAX };
    let family = FamilyExplanation {
        state: FamilyState::Bound,
        template: Some(ExplainedTemplate {
            name: Text::truncated("interface-name0"),
            index: u32::MAX,
            primary: address,
        }),
        candidates: Text::truncated(&"x".repeat(300)),
        addresses: Bounded::truncated((0..100).map(|_| prefix())).0,
        gateway: Some(address),
        routes: Bounded::truncated((0..200).map(|_| route())).0,
        more_routes: u32::MAX,
    };
    Explanation {
        tap_name: name("interface-name0"),
        mtu: Some(Mtu::DEFAULT),
        ipv4: family.clone(),
        ipv6: family,
        left_out: u32::MAX,
    }
}

fn socket_kind() -> SocketKind {
    SocketKind { ipv6: true, transport: Transport::Udp }
}

fn namespace_listener() -> NamespaceListener {
    let (transport, family) = (Transport::Tcp, SocketFamily::Both);
    NamespaceListener { transport, family, port: port(443) }
}

/// A change here is a change of the protocol: raise [`PROTOCOL_VERSION`] with it.
#[test]
fn encodings_are_frozen() {
    let hex = |octets: &[u8]| octets.iter().map(|o| format!("{o:02x}")).collect::<String>();
    assert_eq!(PROTOCOL_VERSION, 16);
    let hello = Hello::OURS;
    assert_eq!(hex(&octets_of(&SupervisorToMonitor::Hello(hello))), "0010");
    assert_eq!(hex(&octets_of(&DatapathToMonitor::Hello(hello))), "0010");
    assert_eq!(hex(&octets_of(&SupervisorToMonitor::Shutdown)), "02");
    assert_eq!(hex(&octets_of(&SupervisorToDatapath::Shutdown)), "05");
    assert_eq!(
        hex(&octets_of(&SupervisorToMonitor::Start(Box::new(monitor_start())))),
        "010001c00002071801c0000201000100000000000001fbf0ff0102000000000101046574\
         6830000000fbe80301fb1027fb3075000000000101010120010db8000000000000000000\
         000001010f696e746572666163652d6e616d6530fb401ffb411f010120010db800000000\
         0000000000000002fb60ea020001000000030000"
    );
    assert_eq!(
        hex(&octets_of(&MonitorToSupervisor::TapReady(tap()))),
        "01047461703002000000000102"
    );
    assert_eq!(hex(&octets_of(&MonitorToSupervisor::TapGone)), "07");
    assert_eq!(hex(&octets_of(&MonitorToSupervisor::StatusFile)), "08");
    assert_eq!(hex(&octets_of(&DatapathToSupervisor::PortsOpen)), "05");
    let request = RequestId(9);
    let wanted = DatapathToMonitor::ListenerWanted { request, listener: namespace_listener() };
    assert_eq!(hex(&octets_of(&wanted)), "02090002fbbb01");
    let reset = DatapathToMonitor::FlowsReset { generation: Generation(9) };
    assert_eq!(hex(&octets_of(&reset)), "0309");
    let count = 32.try_into().unwrap();
    let wanted = DatapathToMonitor::SocketsWanted { request, kind: socket_kind(), count };
    assert_eq!(hex(&octets_of(&wanted)), "0109010120");
    let refused = MonitorToDatapath::Refused { request, why: Refusal::Failed(98) };
    assert_eq!(hex(&octets_of(&refused)), "050902c4");
    assert_eq!(hex(&octets_of(&SupervisorToMonitor::StatusWanted)), "03");
    assert_eq!(hex(&octets_of(&SupervisorToMonitor::ResyncWanted)), "04");
    let (lines, _) = Bounded::truncated([Text::truncated("one"), Text::truncated("")]);
    let status = MonitorStatus { lines, network: None, namespace: None, host: None };
    let status = MonitorToSupervisor::Status(Box::new(status));
    assert_eq!(hex(&octets_of(&status)), "0502036f6e6500000000");
    let taken = MonitorToSupervisor::ForwardsTaken { generation: Generation(3) };
    assert_eq!(hex(&octets_of(&taken)), "0903");
    let wanted = SupervisorToDatapath::StatusWanted { flows: 64 };
    assert_eq!(hex(&octets_of(&wanted)), "0740");
    assert_eq!(hex(&octets_of(&ClientToSupervisor::Hello(hello))), "0010");
    assert_eq!(hex(&octets_of(&ClientToSupervisor::ForwardsWanted)), "01");
    assert_eq!(hex(&octets_of(&ClientToSupervisor::StatusWanted { flows: 2 })), "0302");
    assert_eq!(hex(&octets_of(&ClientToSupervisor::ResyncWanted)), "04");
    let change = ClientToSupervisor::Change(Box::new(forward_change()));
    assert_eq!(
        hex(&octets_of(&change)),
        "0202010001010120010db8000000000000000000000001010f696e746572666163652d6e616d65305051010120010db8000000000000000000000002fb60ea020001"
    );
    assert_eq!(hex(&octets_of(&SupervisorToClient::ResyncSent)), "06");
    let refused = SupervisorToClient::Refused(Text::truncated("no"));
    assert_eq!(hex(&octets_of(&refused)), "07026e6f");
    let stale = SupervisorToClient::Changed(Box::new(ChangeResult::Stale(Generation(3))));
    assert_eq!(hex(&octets_of(&stale)), "020303");
    let explain = octets_of(&SupervisorToMonitor::Explain(Box::new(monitor_start())));
    let start = octets_of(&SupervisorToMonitor::Start(Box::new(monitor_start())));
    assert_eq!((explain[0], &explain[1..]), (5, &start[1..]));
    let family = |routes| FamilyExplanation {
        state: FamilyState::Local,
        template: None,
        candidates: Text::truncated("none"),
        addresses: Bounded::truncated([Text::truncated("a/8")]).0,
        gateway: Some([192, 0, 2, 1].into()),
        routes: Bounded::truncated(routes).0,
        more_routes: 3,
    };
    let route = ExplainedRoute { destination: Text::truncated("b/16"), gateway: None, metric: 100 };
    let explained = MonitorToSupervisor::Explained(Box::new(Explanation {
        tap_name: name("tap0"),
        mtu: None,
        ipv4: family(vec![route]),
        ipv6: family(Vec::new()),
        left_out: 2,
    }));
    let v4 = "0100046e6f6e650103612f380100c00002010104622f3136006403";
    let v6 = "0100046e6f6e650103612f380100c00002010003";
    assert_eq!(hex(&octets_of(&explained)), "06047461703000".to_owned() + v4 + v6 + "02");
    let entry = NeighbourEntry { address: [192, 0, 2, 1].into(), mac: mac() };
    let neighbours =
        NeighbourSnapshot { generation: Generation(3), entries: Bounded::truncated([entry]).0 };
    let neighbours = MonitorToDatapath::Neighbours(Box::new(neighbours));
    assert_eq!(hex(&octets_of(&neighbours)), "06030100c0000201020000000001");
    let network = NetworkSnapshot {
        generation: Generation(3),
        ipv4: FamilySnapshot::off(),
        ipv6: FamilySnapshot::off(),
        mtu: Some(Mtu::DEFAULT),
        offered_mtu: None,
        losses: AddressLosses(300),
        completeness: Completeness::Complete,
    };
    let network = MonitorToDatapath::Network(Box::new(network));
    assert_eq!(hex(&octets_of(&network)), "01030000000000000000000000000000000001fbf0ff00fb2c0100");
    let failed = MonitorToSupervisor::Failed(Text::truncated("why"));
    assert_eq!(hex(&octets_of(&failed)), "0403776879");
    let warning = InitToSupervisor::Warning(Text::truncated("why"));
    assert_eq!(hex(&octets_of(&warning)), "0003776879");
    let failed = InitToSupervisor::Failed(Text::truncated("why"));
    assert_eq!(hex(&octets_of(&failed)), "0103776879");
    assert_eq!(hex(&octets_of(&InitToSupervisor::Ready)), "02");
    assert_eq!(hex(&octets_of(&InitToSupervisor::Stopped(20))), "0428");
    assert_eq!(hex(&octets_of(&InitToSupervisor::Continued)), "05");
    assert_eq!(hex(&octets_of(&SupervisorToInit::Release)), "00");
    let on = SupervisorToInit::Continue(TerminalGround::Background);
    assert_eq!(hex(&octets_of(&on)), "0101");
    let successor = IsolationToSupervisor::Successor(ProcessId::try_from(77).unwrap());
    assert_eq!(hex(&octets_of(&successor)), "009a");
    assert_eq!(hex(&octets_of(&IsolationToSupervisor::StatusFile)), "01");
}

#[test]
fn full_messages_stay_below_their_limits() {
    assert!(round_trip(MonitorToDatapath::Network(Box::new(full_snapshot()))).len() < 16 * 1024);
    assert!(round_trip(SupervisorToDatapath::Resolvers(resolvers())).len() < 8 * 1024);
    let rules = round_trip(SupervisorToDatapath::Forwards(Box::new(table())));
    assert!(rules.len() < SupervisorToDatapath::LIMIT * 3 / 4);
    assert!(round_trip(SupervisorToDatapath::Listeners(listeners())).len() < 8 * 1024);
    assert!(round_trip(MonitorToDatapath::Ports(Box::new(ports()))).len() < 17 * 1024);
    let limit = MonitorToSupervisor::LIMIT * 3 / 4;
    let status = MonitorToSupervisor::Status(Box::new(full_monitor_status()));
    assert!(round_trip(status).len() < limit);
    let status = DatapathToSupervisor::Status(Box::new(full_datapath_status()));
    assert!(round_trip(status).len() < limit);
    let outbound = table().rules;
    let mut start = monitor_start();
    start.ports.outbound = outbound;
    let start = round_trip(SupervisorToMonitor::Start(Box::new(start)));
    assert!(start.len() < SupervisorToMonitor::LIMIT * 3 / 4);
    assert!(round_trip(DatapathToSupervisor::Ready(Box::new(audit()))).len() < 8 * 1024);
    let text = || Text::truncated(&"x".repeat(1024));
    assert!(round_trip(InitToSupervisor::Warning(text())).len() < InitToSupervisor::LIMIT * 3 / 4);
}

#[test]
fn absurd_lengths_are_refused_without_work() {
    // `Resolvers`, generation 0, then a list that claims 2^60 elements.
    let mut octets = vec![2, 0, 253];
    octets.extend((1_u64 << 60).to_le_bytes());
    assert!(decode::<SupervisorToDatapath>(&octets).is_err());
}

#[test]
fn out_of_range_values_are_refused_not_clamped() {
    // `TapReady` with name "", with a group address, with an unknown offload.
    for octets in [
        &[1, 0, 2, 0, 0, 0, 0, 1, 0][..],
        &[1, 4, b't', b'a', b'p', b'0', 3, 0, 0, 0, 0, 1, 0],
        &[1, 4, b't', b'a', b'p', b'0', 2, 0, 0, 0, 0, 1, 3],
    ] {
        assert!(decode::<MonitorToSupervisor>(octets).is_err(), "{octets:02x?}");
    }
}

#[test]
fn process_ids_are_positive() {
    // `Successor` with 0 and with -1, in the encoding of signed integers.
    for octets in [&[0, 0][..], &[0, 1]] {
        assert!(decode::<IsolationToSupervisor>(octets).is_err(), "{octets:02x?}");
    }
}

proptest! {
    #[test]
    fn any_octets_are_refused_or_mean_exactly_one_message(octets: Vec<u8>) {
        fn check<M: Message>(octets: &[u8]) {
            if let Ok(message) = decode::<M>(octets) {
                // Integers have several encodings; the meaning must still be one and the same.
                let again = octets_of(&message);
                assert_eq!(octets_of(&decode::<M>(&again).unwrap()), again);
            }
        }
        check::<SupervisorToMonitor>(&octets);
        check::<MonitorToSupervisor>(&octets);
        check::<SupervisorToDatapath>(&octets);
        check::<DatapathToSupervisor>(&octets);
        check::<MonitorToDatapath>(&octets);
        check::<DatapathToMonitor>(&octets);
        check::<InitToSupervisor>(&octets);
        check::<ClientToSupervisor>(&octets);
        check::<SupervisorToClient>(&octets);
        check::<SupervisorToInit>(&octets);
        check::<IsolationToSupervisor>(&octets);
        check::<SupervisorToIsolation>(&octets);
    }
}
