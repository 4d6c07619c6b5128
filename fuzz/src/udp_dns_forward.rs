//! Queries to the address at which DNS is taken, while resolvers change, fail and answer.
//!
//! The input is a script of steps: a datagram of one of a few clients to that address or beside it, an answer, an
//! error of a socket, another list of resolvers, or time.
//!
//! What is checked all the time:
//!
//! - a query to port 53 or 853 of the address leaves for a resolver of the list that is in force, for the same port; to
//!   another port or address it leaves for just that;
//! - what is sent on is what came, and what the namespace gets comes from where it has asked, to who has asked;
//! - there are as many flows as conversations at most.

use crate::fake::rig::{Rig, datagram, key, policy};
use crate::input::Input;
use nix::errno::Errno;
use pasta_datapath::control::PeerMessage;
use pasta_datapath::flow::datagram::QueuedError;
use pasta_datapath::flow::{FlowKey, Readiness};
use pasta_datapath::nat::{Nat, Protocol};
use pasta_ipc::start::{FamilyPolicy, HostLoopback};
use pasta_ipc::types::{Bounded, Generation, Resolver, ResolverSnapshot, Service};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// Steps taken of one input.
const STEPS: usize = 128;
/// Clients, each with a port of its own.
const CLIENTS: u16 = 4;
/// The address at which DNS is taken, in words of the namespace.
const FORWARD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// Another one, where nobody takes anything.
const BESIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The first port of the clients.
const FIRST: u16 = 1000;

/// Reads `octets` as a script and plays it.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let pinned = input.bit().then(|| Ipv4Addr::new(203, 0, 113, 99));
    let ipv4 = FamilyPolicy {
        dns_forward: Some(FORWARD),
        dns_host: pinned,
        host_loopback: HostLoopback::None,
        ..policy(Service::On)
    };
    let mut rig = Rig::with(Nat::new(ipv4, policy(Service::Off)), 64);
    rig.has(&["192.0.2.7"], &[]);
    let mut world = World {
        rig,
        pinned: pinned.map(IpAddr::from),
        servers: Vec::new(),
        seen: 0,
        asked: Vec::new(),
    };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.check();
    }
}

struct World {
    rig: Rig,
    pinned: Option<IpAddr>,
    servers: Vec<IpAddr>,
    /// So many of the sockets have been looked at.
    seen: usize,
    /// Who has asked where, a pair for each datagram.
    asked: Vec<(SocketAddr, SocketAddr)>,
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.octet() % 8 {
            0..=3 => self.query(input),
            4 => self.answer(input),
            5 => self.fail(input),
            6 => self.resolvers(input),
            _ => self.rig.wait(Duration::from_millis(u64::from(input.u16()) * 8)),
        }
    }

    fn query(&mut self, input: &mut Input<'_>) {
        let choice = input.octet();
        let port = [53, 853, 54, input.u16().max(1)][usize::from(choice & 3)];
        let to = if choice & 0x40 == 0 { FORWARD } else { BESIDE };
        let client =
            SocketAddr::new([192, 0, 2, 7].into(), FIRST + u16::from(choice >> 2) % CLIENTS);
        let remote = SocketAddr::new(to.into(), port);
        let of_one = key(Protocol::Udp, "192.0.2.7:1", "198.51.100.1:1");
        let of_one = FlowKey { namespace: client, remote, ..of_one };
        let payload = vec![choice; usize::from(input.octet())];
        self.asked.push((client, remote));
        let before = self.rig.stack.sockets().opened.len();
        self.rig.frames(&[datagram(&of_one, &payload)]);
        let opened = self.rig.stack.sockets().opened.len();
        assert!(opened <= before + 1, "one datagram has opened {} sockets", opened - before);
        // What was sent at all is what came last.
        for socket in &self.rig.stack.sockets().opened[before..] {
            assert!(socket.state.borrow().sent.iter().all(|it| *it == payload));
        }
    }

    /// A socket that is open, if there is one.
    fn socket(&mut self, input: &mut Input<'_>) -> Option<crate::fake::Shared<crate::fake::State>> {
        let open = self.rig.stack.sockets().opened.iter().filter(|it| !it.state.borrow().closed);
        let open: Vec<_> = open.map(|it| Rc::clone(&it.state)).collect();
        open.get(usize::from(input.octet()) % open.len().max(1)).cloned()
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let Some(socket) = self.socket(input) else { return };
        socket.borrow_mut().datagrams.push_back(vec![7; usize::from(input.octet())]);
        self.rig.event(&socket, Readiness::READABLE);
    }

    fn fail(&mut self, input: &mut Input<'_>) {
        let Some(socket) = self.socket(input) else { return };
        let errno = [Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::EMSGSIZE, Errno::ENETDOWN];
        let errno = errno[usize::from(input.octet() & 3)];
        {
            let mut state = socket.borrow_mut();
            state.error = Some(errno);
            state.queued_errors.push_back(QueuedError::of(errno));
        }
        self.rig.event(&socket, Readiness::default().with(Readiness::FAILED, true));
    }

    fn resolvers(&mut self, input: &mut Input<'_>) {
        let address = |input: &mut Input<'_>| match input.octet() % 4 {
            0 => IpAddr::from([127, 0, 0, 53]),
            last => IpAddr::from([203, 0, 113, last]),
        };
        self.servers = (0..input.octet() % 4).map(|_| address(input)).collect();
        let servers = self.servers.iter().map(|it| Resolver { address: *it, interface: None });
        self.rig.message(PeerMessage::Resolvers(ResolverSnapshot {
            generation: Generation(1),
            servers: Bounded::truncated(servers).0,
            search: Bounded::default(),
        }));
    }

    fn check(&mut self) {
        let Self { rig, pinned, servers, seen, asked } = self;
        let opened = &rig.stack.sockets().opened;
        for socket in &opened[*seen..] {
            let target = socket.target.address;
            let is_server = match pinned {
                Some(pinned) => target.ip() == *pinned,
                // Where the host names none, that of the host itself (resolv.conf(5)).
                None if servers.is_empty() => target.ip() == IpAddr::from([127, 0, 0, 1]),
                None => servers.contains(&target.ip()),
            };
            let is_query = is_server && [53, 853].contains(&target.port());
            let is_taken =
                target.ip() == IpAddr::from(FORWARD) && [53, 853].contains(&target.port());
            let is_direct = !is_taken && asked.iter().any(|(_, to)| *to == target);
            assert!(is_query || is_direct, "{target} is asked");
        }
        *seen = opened.len();
        // One for each pair of ends that was ever used.
        let mut pairs = asked.clone();
        pairs.sort_unstable();
        pairs.dedup();
        let flows = rig.stack.flows().table.values_mut().count();
        assert!(flows <= pairs.len(), "{flows} flows for {} conversations", pairs.len());
        for (from, to, ..) in rig.datagrams() {
            assert!(asked.contains(&(to, from)), "{from} answers {to}, which has not asked it");
        }
        rig.written.borrow_mut().clear();
    }
}
