use super::*;
use pasta_ipc::Channel;
use pasta_ipc::DatapathToMonitor;
use pasta_ipc::types::{PortSet, Transport};
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
    known: BTreeMap<(PortSide, Transport), PortSet>,
    received_count: usize,
}

impl Here {
    fn new(loopback: LoopbackTarget) -> Self {
        let open = || Some(open_here().unwrap());
        let (ours, theirs) = ToDatapath::pair().unwrap();
        let (supervisor, _) = ToSupervisor::pair().unwrap();
        let watcher = Watcher::new(loopback, open(), open());
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
        self.known.get(&(side, transport)).is_some_and(|ports| ports.contains(port))
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
