use super::*;
use nix::sys::socket::{SockType, SockaddrIn, SockaddrStorage, getsockname, getsockopt, sockopt};
use pasta_ipc::Channel;
use pasta_ipc::port_forward::{Effort, ForwardRule, LoopbackTarget, PortWatch, RawRule};
use pasta_ipc::start::{
    Configure, CopyAddresses, CopyRoutes, CopyStart, FamilyStart, Following, LinkStart, PortsStart,
    RootFallback, TapUse,
};
use pasta_ipc::types::{Bounded, LogLevel, PortRange, Service, Transport};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

type AtDatapath = Channel<DatapathToMonitor, MonitorToDatapath>;

fn start(ports: PortRange) -> MonitorStart {
    let rule = |transport| {
        ForwardRule::try_from(RawRule {
            transport,
            listen: None,
            interface: None,
            ports,
            target: None,
            target_first: ports.first(),
            effort: Effort::BestEffort,
        })
    };
    let rules = vec![rule(Transport::Tcp).unwrap(), rule(Transport::Udp).unwrap()];
    MonitorStart {
        ipv4: FamilyStart::plain(Service::On),
        ipv6: FamilyStart::plain(Service::On),
        link: LinkStart {
            tap: TapUse::Make,
            configure: Configure::LoopbackOnly,
            name: None,
            mtu: None,
            mac: None,
        },
        template: None,
        copy: CopyStart { routes: CopyRoutes::All, addresses: CopyAddresses::All },
        following: Following::default(),
        ports: PortsStart {
            outbound: Bounded::try_from(rules).unwrap(),
            watch: PortWatch::default(),
            loopback: LoopbackTarget::Address,
            changes: pasta_ipc::start::RuleChanges::Never,
            host: pasta_ipc::start::HostSockets::InReach,
        },
        log_level: LogLevel::Info,
        run_as: None,
        root: RootFallback::None,
    }
}

/// A port that nobody has just now.
fn free_port() -> u16 {
    TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

fn sockets_wanted(request: u32, transport: Transport, count: u8) -> DatapathToMonitor {
    let kind = SocketKind { ipv6: false, transport };
    let count = count.try_into().unwrap();
    DatapathToMonitor::SocketsWanted { request: RequestId(request), kind, count }
}

fn listener_wanted(
    request: u32,
    transport: Transport,
    family: SocketFamily,
    port: u16,
) -> DatapathToMonitor {
    let listener = NamespaceListener { transport, family, port: port.try_into().unwrap() };
    DatapathToMonitor::ListenerWanted { request: RequestId(request), listener }
}

fn pair() -> (SocketServer, ToDatapath, AtDatapath, u16) {
    let port = free_port();
    let socket_server = SocketServer::new(&start(PortRange::new(port, port).unwrap()));
    let (ours, theirs) = ToDatapath::pair().unwrap();
    (socket_server, ours, theirs, port)
}

#[test]
fn sockets_of_each_kind_arrive_and_none_stays_here() {
    let (mut socket_server, ours, theirs, _) = pair();
    for (n, transport) in (1..).zip([Transport::Tcp, Transport::Udp]) {
        socket_server.serve(&sockets_wanted(n, transport, 32), &ours).unwrap();
        let got = theirs.receive().unwrap();
        let count = 32.try_into().unwrap();
        assert_eq!(got.message, MonitorToDatapath::Sockets { request: RequestId(n), count });
        let kind = match transport {
            Transport::Tcp => SockType::Stream,
            Transport::Udp => SockType::Datagram,
        };
        for fd in &got.fds {
            assert_eq!(getsockopt(fd, sockopt::SockType), Ok(kind));
            let name = getsockname::<SockaddrIn>(fd.as_raw_fd()).unwrap();
            assert_eq!((name.ip(), name.port()), (Ipv4Addr::UNSPECIFIED, 0));
        }
        assert!(!socket_server.is_behind());
    }
}

#[test]
fn listener_takes_connections_to_the_loopback_addresses_of_its_families() {
    for (family, v4, v6) in [
        (SocketFamily::Ipv4, true, false),
        (SocketFamily::Ipv6, false, true),
        (SocketFamily::Both, true, true),
    ] {
        let (mut socket_server, ours, theirs, port) = pair();
        socket_server.serve(&listener_wanted(1, Transport::Tcp, family, port), &ours).unwrap();
        let mut got = theirs.receive().unwrap();
        assert_eq!(got.message, MonitorToDatapath::Listener { request: RequestId(1) });
        let listener = TcpListener::from(got.fds.remove(0));
        listener.set_nonblocking(false).unwrap();
        let device = getsockopt(&listener, sockopt::BindToDevice).unwrap();
        assert_eq!(device.to_string_lossy().trim_end_matches('\0'), "lo");
        for (address, reached) in [("127.0.0.1", v4), ("127.1.2.3", v4), ("::1", v6)] {
            let connected = TcpStream::connect((address, port));
            assert_eq!(connected.is_ok(), reached, "{address} by {family:?}");
            let Ok(mut client) = connected else { continue };
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"x").unwrap();
            let mut octet = [0];
            server.read_exact(&mut octet).unwrap();
            assert_eq!(&octet, b"x");
        }
    }
}

#[test]
fn port_that_is_taken_or_has_no_rule_is_refused_with_the_reason() {
    let (mut socket_server, ours, theirs, port) = pair();
    let _taken = TcpListener::bind(("0.0.0.0", port)).unwrap();
    socket_server
        .serve(&listener_wanted(1, Transport::Tcp, SocketFamily::Ipv4, port), &ours)
        .unwrap();
    let why = Refusal::Failed(Errno::EADDRINUSE as i32);
    let refused = |request, why| MonitorToDatapath::Refused { request: RequestId(request), why };
    assert_eq!(theirs.receive().unwrap().message, refused(1, why));
    let other = if port == u16::MAX { port - 1 } else { port + 1 };
    socket_server
        .serve(&listener_wanted(2, Transport::Tcp, SocketFamily::Ipv4, other), &ours)
        .unwrap();
    assert_eq!(theirs.receive().unwrap().message, refused(2, Refusal::Denied));
}

#[test]
fn udp_listener_is_bound_to_its_port_alone() {
    let (mut socket_server, ours, theirs, port) = pair();
    let ask = |n| listener_wanted(n, Transport::Udp, SocketFamily::Both, port);
    socket_server.serve(&ask(1), &ours).unwrap();
    let got = theirs.receive().unwrap();
    let fd = got.fds.first().unwrap().as_raw_fd();
    let name = getsockname::<SockaddrStorage>(fd).unwrap();
    assert_eq!(
        name.as_sockaddr_in6().map(|it| (it.ip(), it.port())),
        Some((Ipv6Addr::UNSPECIFIED, port))
    );
    socket_server.serve(&ask(2), &ours).unwrap();
    let (request, why) = (RequestId(2), Refusal::Failed(Errno::EADDRINUSE as i32));
    assert_eq!(theirs.receive().unwrap().message, MonitorToDatapath::Refused { request, why });
}

#[test]
fn answer_waits_for_a_datapath_that_does_not_read() {
    let (mut socket_server, ours, theirs, _) = pair();
    let mut asked = 0;
    while !socket_server.is_behind() {
        asked += 1;
        socket_server.serve(&sockets_wanted(asked, Transport::Udp, 1), &ours).unwrap();
    }
    for request in 1..=asked {
        let message = theirs.receive().unwrap().message;
        let named = match message {
            MonitorToDatapath::Sockets { request, .. }
            | MonitorToDatapath::Refused { request, why: Refusal::Busy } => request,
            other => panic!("{other:?}"),
        };
        assert_eq!(named, RequestId(request));
        socket_server.catch_up(&ours).unwrap();
    }
    assert!(!socket_server.is_behind());
    assert!(theirs.receive().is_err());
}
