//! The stack between a namespace that sends frames and a host's kernel that is not there.

use super::{Kernel, Shared, State, Tap, TcpModel};
use nix::errno::Errno;
use pasta_datapath::control::PeerMessage;
use pasta_datapath::counters::{Counters, DropReason};
use pasta_datapath::flow::datagram::queued_error::{QueuedError, Returned};
use pasta_datapath::flow::{FlowKey, Readiness};
use pasta_datapath::link::Link;
use pasta_datapath::link::classify::{Content, Framing, classify};
use pasta_datapath::link::icmp_error::Reporter;
use pasta_datapath::link::writer::{FrameWriter, Path, TCP, UDP, icmp_protocol};
use pasta_datapath::log::Log;
use pasta_datapath::nat::inbound::LocalPolicy;
use pasta_datapath::nat::{Nat, Protocol};
use pasta_datapath::port_forward::Ports;
use pasta_datapath::port_forward::listeners::DatagramAddresses;
use pasta_datapath::stack::{Limits, Stack};
use pasta_datapath::sys::fd_budget::FdBudget;
use pasta_datapath::time::Instant;
use pasta_datapath::token::Token;
use pasta_datapath::wire::checksum::{Sum, pseudo_header};
use pasta_datapath::wire::icmp::{self, Error, Message, error_head};
use pasta_datapath::wire::ip::{
    FRAGMENT_LEN, Fragmentation, Handling, IPV4_LEN, IPV6_LEN, PROTOCOL_FRAGMENT, PROTOCOL_ICMPV6,
    read_ipv4, read_ipv6,
};
use pasta_datapath::wire::tcp::{Header, ToSend};
use pasta_datapath::wire::window::Mss;
use pasta_datapath::wire::{ethernet, vnet};
use pasta_ipc::port_forward::{
    Direction, Effort, ForwardRule, ForwardTable, LoopbackTarget, RawRule, Splice,
};
use pasta_ipc::socket::SocketFamily;
use pasta_ipc::start::{FamilyPolicy, HostLoopback};
use pasta_ipc::types::{
    Address, Bounded, Completeness, Family, FamilySnapshot, FamilyState, Generation, LogLevel,
    MacAddr, Mtu, NetworkSnapshot, PortRange, Prefix, Resolver, ResolverSnapshot, Service,
    TapOffloads, Transport,
};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

pub const OURS: MacAddr = MacAddr::OURS_BY_DEFAULT;
pub const ROUTER: &str = "192.0.2.1";
pub const HERE: &str = "192.0.2.7";
pub const HERE6: &str = "2001:db8::7";

/// A link-layer address of the namespace's side.
pub fn mac(last: u8) -> MacAddr {
    match MacAddr::try_from([2, 0, 0, 0, 0, last]) {
        Ok(mac) => mac,
        Err(error) => panic!("{error}"),
    }
}

/// The policy of a family that is served, or not.
pub fn policy<A>(service: Service) -> FamilyPolicy<A> {
    FamilyPolicy {
        service,
        host_loopback: HostLoopback::Gateway,
        guest_address: None,
        dns_forward: None,
        dns_host: None,
        outbound: None,
        outbound_interface: None,
    }
}

/// What the monitor says of a family with these addresses.
pub fn family<A: Address + std::str::FromStr>(
    addresses: &[&str],
    router: &str,
) -> FamilySnapshot<A> {
    let address = |it: &str| match it.parse::<A>() {
        Ok(address) => address,
        Err(_) => panic!("{it} is no address"),
    };
    let addresses: Vec<A> = addresses.iter().map(|it| address(it)).collect();
    FamilySnapshot {
        state: FamilyState::Bound,
        assigned: Bounded::truncated(addresses.iter().map(|it| Prefix::host(*it).into())).0,
        default_route: true,
        present: Bounded::truncated(addresses).0,
        gateway: Some(address(router)),
        our_address: Some(address(router)),
        host_primary: None,
        leaving: Bounded::default(),
    }
}

/// The stack and what is around it.
pub struct Rig<T: TcpModel = super::Socket> {
    pub stack: Stack<Kernel<T>>,
    pub now: Instant,
    /// Frames to the namespace that were not looked at yet.
    pub written: Shared<Vec<Vec<u8>>>,
    /// What the monitor says of the tap.
    pub mtu: Option<Mtu>,
    generation: u64,
}

impl<T: TcpModel> Rig<T> {
    /// The namespace's own link-layer address ends in 1; it has no address yet.
    pub fn with(nat: Nat, flows: usize) -> Self {
        Self::limited(nat, flows, 1000)
    }

    /// As [`Rig::with`]; the namespace takes at most so many ports of the host.
    pub fn limited(nat: Nat, flows: usize, ports: usize) -> Self {
        let tap = Tap::new(TapOffloads::TcpAndUdp);
        let written = Rc::clone(&tap.written);
        let local = LocalPolicy { splice: Splice::On, loopback: LoopbackTarget::Loopback };
        let forwards = Ports::new(local, SocketFamily::Both);
        let fd_budget = FdBudget::new(2 * flows);
        let limits = Limits { fd_budget, flows, ports, send_buffer: 4_000_000 };
        let (link, log) = (Link::new(tap, OURS, mac(1)), Log::new(LogLevel::Debug));
        let stack = Stack::new(Kernel::default(), link, nat, forwards, log, limits);
        Self { stack, now: Instant::START, written, mtu: None, generation: 0 }
    }

    /// Both families are served and have an address.
    pub fn new() -> Self {
        let mut rig = Self::with(Nat::new(policy(Service::On), policy(Service::On)), 64);
        rig.has(&[HERE], &[HERE6]);
        rig.written.borrow_mut().clear();
        rig
    }

    /// As [`Rig::new`]; queries to 192.0.2.53 go to the first of these hosts of 203.0.113.0/24.
    pub fn with_resolvers(hosts: &[u8]) -> Self {
        let ipv4 =
            FamilyPolicy { dns_forward: Some([192, 0, 2, 53].into()), ..policy(Service::On) };
        let mut rig = Self::with(Nat::new(ipv4, policy(Service::On)), 64);
        rig.has(&[HERE], &[HERE6]);
        let hosts: Vec<_> = hosts.iter().map(|last| format!("203.0.113.{last}")).collect();
        rig.resolvers(&hosts);
        rig.received();
        rig
    }

    /// The host has these resolvers.
    pub fn resolvers(&mut self, servers: &[impl AsRef<str>]) {
        let addresses = servers.iter().filter_map(|it| it.as_ref().parse().ok());
        let servers = addresses.map(|address| Resolver { address, interface: None });
        self.message(PeerMessage::Resolvers(ResolverSnapshot {
            generation: Generation(1),
            servers: Bounded::truncated(servers).0,
            search: Bounded::default(),
        }));
    }

    /// The monitor says that the namespace has these addresses.
    pub fn has(&mut self, ipv4: &[&str], ipv6: &[&str]) {
        self.loses(ipv4, ipv6, &[]);
    }

    /// The monitor says that the namespace has these addresses, and is about to lose `leaving`.
    pub fn loses(&mut self, ipv4: &[&str], ipv6: &[&str], leaving: &[&str]) {
        self.generation += 1;
        let mut snapshot = NetworkSnapshot {
            generation: Generation(self.generation),
            ipv4: family(ipv4, ROUTER),
            ipv6: family(ipv6, "fe80::1"),
            mtu: self.mtu,
            offered_mtu: None,
            losses: pasta_ipc::types::AddressLosses(0),
            completeness: Completeness::Complete,
        };
        let (ipv4, ipv6) = (&mut snapshot.ipv4.leaving, &mut snapshot.ipv6.leaving);
        *ipv4 = Bounded::truncated(leaving.iter().filter_map(|it| it.parse().ok())).0;
        *ipv6 = Bounded::truncated(leaving.iter().filter_map(|it| it.parse().ok())).0;
        self.message(PeerMessage::Network(Box::new(snapshot)));
    }

    pub fn message(&mut self, message: PeerMessage<super::Socket>) {
        if let Err(error) = self.stack.handle_message(self.now, message) {
            panic!("{error}");
        }
    }

    /// Hands frames over, as one batch.
    pub fn frames(&mut self, frames: &[Vec<u8>]) {
        let (mut octets, mut places) = (Vec::new(), Vec::new());
        for frame in frames {
            places.push((octets.len(), octets.len() + frame.len()));
            octets.extend_from_slice(frame);
        }
        self.stack.handle_frames(self.now, &octets, &places);
        self.stack.serve(self.now);
        while self.stack.new_flows() > 0 {
            self.stack.serve(self.now);
        }
    }

    /// Something happened to a socket.
    pub fn event(&mut self, socket: &Shared<State>, readiness: Readiness) {
        let (id, side) = socket.borrow().flow();
        self.stack.socket_event(self.now, id, side, readiness);
        self.stack.serve(self.now);
    }

    /// Lets time pass, with every timer at its time.
    pub fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.stack.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.stack.fire_timers(self.now);
            self.stack.serve(self.now);
        }
        self.now = until;
    }

    /// The frames to the namespace since the last call.
    pub fn received(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.written.borrow_mut())
    }

    /// The segments among them: who they are from and for, header, payload.
    pub fn segments(&self) -> Vec<(SocketAddr, SocketAddr, Header, Vec<u8>)> {
        let segment = |frame: &Vec<u8>| match classify(frame, Framing::Vnet).ok()?.content {
            Content::Tcp { source, destination, header, payload } => {
                Some((source, destination, header, payload.to_vec()))
            }
            _ => None,
        };
        self.received().iter().filter_map(segment).collect()
    }

    /// The datagrams among them: who they are from and for, payload, size of each if they are several.
    pub fn datagrams(&self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>, Option<u16>)> {
        let datagram = |frame: &Vec<u8>| match classify(frame, Framing::Vnet).ok()?.content {
            Content::Udp { source, destination, payload, segment_size } => {
                Some((source, destination, payload.to_vec(), segment_size))
            }
            _ => None,
        };
        self.received().iter().filter_map(datagram).collect()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.stack.counters().dropped(reason)
    }
}

/// The socket that was opened as number `n`.
pub fn opened(rig: &mut Rig, n: usize) -> Shared<State> {
    Rc::clone(&rig.stack.sockets().opened[n].state)
}

/// The rule that forwards one port to another one, on every address.
pub fn rule(
    direction: Direction,
    transport: Transport,
    (from, to): (u16, u16),
    effort: Effort,
) -> PeerMessage<super::Socket> {
    let (Ok(ports), (listen, interface, target)) = (PortRange::new(from, from), (None, None, None))
    else {
        panic!("{from} is no port")
    };
    let raw = RawRule { transport, listen, interface, ports, target, target_first: to, effort };
    let rules = ForwardRule::try_from(raw).ok().and_then(|it| Bounded::try_from(vec![it]).ok());
    let Some(rules) = rules else { panic!("no rule leads from {from} to {to}") };
    PeerMessage::Forwards(Box::new(ForwardTable { generation: Generation(1), direction, rules }))
}

/// Something came to a listener.
pub fn came(rig: &mut Rig, listener: &Shared<State>) {
    let Some(Token::Listener(index)) = listener.borrow().token else { panic!("not watched") };
    rig.stack.listener_event(index);
    rig.stack.serve(rig.now);
}

/// A key, from text.
pub fn key(protocol: Protocol, namespace: &str, remote: &str) -> FlowKey {
    let address = |it: &str| match it.parse() {
        Ok(address) => address,
        Err(_) => panic!("{it} is no address"),
    };
    FlowKey { protocol, namespace: address(namespace), remote: address(remote) }
}

/// The frame that `write` writes on the way that the namespace's frames of `key` go.
fn frame_of(key: &FlowKey, write: impl FnOnce(&mut FrameWriter<'_, Tap>, &Path)) -> Vec<u8> {
    let protocol = match key.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Echo => icmp_protocol(key.remote.ip()),
    };
    let path = Path::new(mac(1), OURS, protocol, key.namespace, key.remote);
    let (mut device, mut counters) = (Tap::new(TapOffloads::TcpAndUdp), Counters::default());
    let written = Rc::clone(&device.written);
    let mut writer = FrameWriter { device: &mut device, our_mac: mac(1), counters: &mut counters };
    write(&mut writer, &path);
    let frame = written.borrow_mut().pop();
    frame.unwrap_or_default()
}

/// A segment of the namespace.
pub fn segment(key: &FlowKey, header: &ToSend, payload: &[u8]) -> Vec<u8> {
    frame_of(key, |writer, path| {
        writer.write_tcp(path, header, Mss::MAX, payload);
    })
}

/// A datagram of the namespace.
pub fn datagram(key: &FlowKey, payload: &[u8]) -> Vec<u8> {
    frame_of(key, |writer, path| {
        writer.write_udp(path, None, payload);
    })
}

/// `frame`, with a network header that says so; of IPv4 it may be fragmented or not.
pub fn handled(mut frame: Vec<u8>, handling: Handling) -> Vec<u8> {
    let Handling { hop_limit, traffic_class, fragmentation } = handling;
    let network = &mut frame[vnet::LEN + ethernet::LEN..];
    if network[0] >> 4 == 6 {
        (network[0], network[1]) = (0x60 | traffic_class >> 4, traffic_class << 4);
        network[7] = hop_limit;
        return frame;
    }
    (network[1], network[8]) = (traffic_class, hop_limit);
    network[6] = if fragmentation == Fragmentation::Forbidden { 0x40 } else { 0 };
    network[10..12].fill(0);
    let checksum = Sum::default().octets(&network[..IPV4_LEN]).checksum();
    network[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The error that `router` of the namespace sends for `frame`, which we wrote: its network header is quoted, and
/// eight octets behind it.
pub fn icmp_error(router: IpAddr, kind: (u8, u8), value: u32, frame: &[u8]) -> Vec<u8> {
    icmp_error_to(None, router, kind, value, frame)
}

/// As [`icmp_error`], sent to another host than it quotes, if there is one.
pub fn icmp_error_to(
    other: Option<IpAddr>,
    router: IpAddr,
    (kind, code): (u8, u8),
    value: u32,
    frame: &[u8],
) -> Vec<u8> {
    let octets = &frame[vnet::LEN + ethernet::LEN..];
    let (read, header) = match (octets[0] >> 4, octets[6]) {
        (6, PROTOCOL_FRAGMENT) => (read_ipv6(octets), IPV6_LEN + FRAGMENT_LEN),
        (6, _) => (read_ipv6(octets), IPV6_LEN),
        _ => (read_ipv4(octets), IPV4_LEN),
    };
    let (packet, _) = read.unwrap_or_else(|error| panic!("{error:?}"));
    let quote = &octets[..header + 8];
    let to = other.unwrap_or(packet.source);
    let head = error_head(router, to, Error { kind, code, value }, quote);
    let key = FlowKey {
        protocol: Protocol::Echo,
        namespace: SocketAddr::new(router, 0),
        remote: SocketAddr::new(to, 0),
    };
    frame_of(&key, |writer, path| {
        writer.write_icmp(path, &head, quote);
    })
}

/// An echo request of the namespace; `body` begins with the sequence number.
pub fn echo_request(key: &FlowKey, body: &[u8]) -> Vec<u8> {
    let [i0, i1] = key.namespace.port().to_be_bytes();
    let head = |checksum: u16| {
        let [c0, c1] = checksum.to_be_bytes();
        [if key.remote.is_ipv4() { 8 } else { 128 }, 0, c0, c1, i0, i1]
    };
    let (from, to) = (key.namespace.ip(), key.remote.ip());
    let len = (6 + body.len()) as u16;
    let start =
        if from.is_ipv4() { Sum::default() } else { pseudo_header(from, to, PROTOCOL_ICMPV6, len) };
    let checksum = start.octets(&head(0)).octets(body).checksum();
    frame_of(key, |writer, path| {
        writer.write_icmp(path, &head(checksum), body);
    })
}

/// An ICMP error that came to the namespace.
pub struct ReadIcmp {
    pub reporter: Reporter,
    pub kind: (u8, u8),
    pub value: u32,
    /// Hops that the quoted packet had left, and how long it says that it was behind its network header.
    pub quoted_hops: u8,
    pub quoted_len: u16,
    /// What is quoted behind that header.
    pub quoted: Vec<u8>,
}

/// Reads the only frame that came, an ICMP error.
pub fn read_error(rig: &Rig) -> ReadIcmp {
    let frames = rig.received();
    let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
    let network = &frame[vnet::LEN + ethernet::LEN..];
    let is_ipv4 = network[0] >> 4 == 4;
    let read = if is_ipv4 { read_ipv4(network) } else { read_ipv6(network) };
    let Ok((packet, _)) = read else { panic!("{read:?}") };
    let message = match is_ipv4 {
        true => icmp::parse_v4(packet.payload),
        false => icmp::parse_v6(packet.payload, packet.source, packet.destination, 255),
    };
    let Ok(Message::Error { error, quote }) = message else { panic!("{message:?}") };
    let (quoted_hops, len_at, header) = if is_ipv4 { (quote[8], 2, 20) } else { (quote[7], 4, 40) };
    let len = u16::from_be_bytes([quote[len_at], quote[len_at + 1]]);
    ReadIcmp {
        reporter: Reporter { address: packet.source, hop_limit: packet.handling.hop_limit },
        kind: (error.kind, error.code),
        value: error.value,
        quoted_hops,
        quoted_len: len - if is_ipv4 { 20 } else { 0 },
        quoted: quote[header..].to_vec(),
    }
}

/// What a router three hops away says of a packet of which this comes back.
pub fn exceeded(router: &str, returned: &[u8]) -> (QueuedError, IpAddr, (u8, u8)) {
    let Ok(address) = router.parse::<IpAddr>() else { panic!("no address") };
    let icmp = if address.is_ipv4() { (11, 0) } else { (3, 0) };
    let offender = Some(Reporter { address, hop_limit: 61 });
    let (icmp_of, returned) = (Some((Family::of(address), icmp.0, icmp.1)), Returned::of(returned));
    let error =
        QueuedError { icmp: icmp_of, offender, returned, ..QueuedError::of(Errno::EHOSTUNREACH) };
    (error, address, icmp)
}

/// The ends of a flow on a socket of both families.
pub fn ends(remote: &str) -> DatagramAddresses {
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        v6 => v6,
    };
    let Ok(peer) = remote.parse::<SocketAddr>() else { panic!("no address") };
    let local = if peer.is_ipv4() { [203, 0, 113, 9].into() } else { [9; 16].into() };
    DatagramAddresses {
        peer: SocketAddr::new(mapped(peer.ip()), peer.port()),
        local: mapped(local),
    }
}
