use super::*;
use pasta_ipc::Channel;
use pasta_ipc::DatapathToMonitor;
use pasta_ipc::port_forward::FamilyPorts;
use pasta_ipc::types::{Family, Transport};
use pasta_monitor::peer::ToSupervisor;
use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

type AtDatapath = Channel<DatapathToMonitor, MonitorToDatapath>;

/// A watcher of this very network namespace, from both sides.
struct Here {
    watcher: Watcher,
    ours: ToDatapath,
    theirs: AtDatapath,
    log: Log,
    known: BTreeMap<(PortSide, Transport), FamilyPorts>,
    received_count: usize,
}

/// Both sides are watched.
const BOTH: PortWatch = PortWatch { namespace: Watched::Yes, host: Watched::Yes };

impl Here {
    fn new(loopback: LoopbackTarget) -> Self {
        let open = || Some(open_here().unwrap());
        let (ours, theirs) = ToDatapath::pair().unwrap();
        let (supervisor, _) = ToSupervisor::pair().unwrap();
        let watcher = Watcher::new(loopback, BOTH, open(), open());
        let log = Log::new(Arc::new(supervisor));
        Self { watcher, ours, theirs, log, known: BTreeMap::new(), received_count: 0 }
    }

    /// One whole look, and what the datapath receives of it.
    fn look(&mut self) {
        loop {
            self.watcher.act(&self.ours, &self.log);
            while let Ok(received) = self.theirs.receive() {
                let MonitorToDatapath::Ports(snapshot) = received.message else { panic!() };
                self.received_count += 1;
                self.known.insert((snapshot.side, snapshot.transport), snapshot.ports);
            }
            if self.watcher.current.is_none() {
                break;
            }
        }
        assert!(self.watcher.sides.iter().all(|side| !side.failed));
    }

    fn knows(&self, side: PortSide, transport: Transport, port: u16) -> bool {
        !self.families(side, transport, port).is_empty()
    }

    /// The families that somebody listens on `port` for.
    fn families(&self, side: PortSide, transport: Transport, port: u16) -> Vec<Family> {
        let known = self.known.get(&(side, transport));
        let listens = |family: &Family| known.is_some_and(|it| it.get(*family).contains(port));
        Family::BOTH.into_iter().filter(listens).collect()
    }
}

#[test]
fn real_listeners_are_found_and_missed_when_they_are_gone() {
    use PortSide::{Host, Namespace};
    let mut here = Here::new(LoopbackTarget::Address);
    here.look();
    for (address, in_namespace) in
        [("0.0.0.0:0", true), ("[::]:0", true), ("127.0.0.1:0", false), ("[::1]:0", false)]
    {
        let tcp = TcpListener::bind(address).unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        let ports = [
            (Transport::Tcp, tcp.local_addr().unwrap().port()),
            (Transport::Udp, udp.local_addr().unwrap().port()),
        ];
        here.look();
        for (transport, port) in ports {
            assert!(here.knows(Host, transport, port), "{transport} {address}");
            let known = here.knows(Namespace, transport, port);
            assert_eq!(known, in_namespace, "{transport} {address}");
        }
        drop((tcp, udp));
        // Twice, for the case that this machine has more sockets than one datagram holds.
        here.look();
        here.look();
        for (transport, port) in ports {
            assert!(!here.knows(Host, transport, port), "{transport} {address}");
        }
    }
}

#[test]
fn services_on_loopback_count_where_local_connections_are_led_there() {
    let mut here = Here::new(LoopbackTarget::Loopback);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    here.look();
    assert!(here.knows(PortSide::Namespace, Transport::Tcp, tcp.local_addr().unwrap().port()));
}

#[test]
fn socket_that_is_connected_waits_for_nobody() {
    let mut here = Here::new(LoopbackTarget::Loopback);
    let (one, other) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
    let (one, other) = (one.unwrap(), other.unwrap());
    one.connect(other.local_addr().unwrap()).unwrap();
    here.look();
    let knows = |udp: &UdpSocket| {
        here.knows(PortSide::Namespace, Transport::Udp, udp.local_addr().unwrap().port())
    };
    assert!(knows(&other) && !knows(&one));
}

#[test]
fn real_listeners_are_known_by_the_families_that_they_take() {
    use nix::sys::socket::{SockaddrStorage, bind, setsockopt, sockopt};
    let mut here = Here::new(LoopbackTarget::Loopback);
    let listener = |v6_only: Option<bool>| {
        let (family, any) = match v6_only {
            None => (AddressFamily::Inet, "0.0.0.0:0"),
            Some(_) => (AddressFamily::Inet6, "[::]:0"),
        };
        let fd = socket(family, SockType::Datagram, SockFlag::empty(), None).unwrap();
        if let Some(v6_only) = v6_only {
            setsockopt(&fd, sockopt::Ipv6V6Only, &v6_only).unwrap();
        }
        let any: std::net::SocketAddr = any.parse().unwrap();
        bind(fd.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
        UdpSocket::from(fd)
    };
    let sockets = [None, Some(true), Some(false)].map(listener);
    here.look();
    let families = sockets.each_ref().map(|it| {
        let port = it.local_addr().unwrap().port();
        here.families(PortSide::Host, Transport::Udp, port)
    });
    assert_eq!(families, [vec![Family::V4], vec![Family::V6], vec![Family::V4, Family::V6]]);
}
