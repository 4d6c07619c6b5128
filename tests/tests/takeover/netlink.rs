//! A monitor that runs somebody else's code sends the kernel every change it can think of, over every netlink
//! socket that it holds. Those of the host's network change nothing there.

use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use nix::sys::stat::fstat;
use tests::lab::injector::{Called, Injector};
use tests::lab::pasta::{bare_session, unshared_session};
use tests::lab::process::{self, Process};
use tests::lab::{Family, Lab, MONITOR, Session, UPLINK, service};
use tests::{Outcome, sys};

/// Which network a netlink socket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Host,
    Namespace,
}

/// A netlink socket of the monitor: its number, network and protocol.
type Held = (u64, Network, i32);

/// Flags of a request that is acknowledged: `NLM_F_REQUEST`, `NLM_F_ACK` (`linux/netlink.h`).
const REQUEST: u16 = 5;

/// As [`REQUEST`], of something new: `NLM_F_EXCL`, `NLM_F_CREATE`.
const CREATE: u16 = REQUEST | 0x200 | 0x400;

/// `NLMSG_ERROR`: an acknowledgement, or an error.
const ACKNOWLEDGED: u16 = 2;

/// The sequence number of our requests; no program counts as far in a test.
const SEQUENCE: u32 = 0x7a5e_11ed;

/// An attribute of a message.
fn attribute(kind: u16, octets: &[u8]) -> Vec<u8> {
    let mut whole = ((octets.len() + 4) as u16).to_ne_bytes().to_vec();
    whole.extend(kind.to_ne_bytes());
    whole.extend(octets);
    whole.resize(whole.len().next_multiple_of(4), 0);
    whole
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut whole = ((body.len() + 16) as u32).to_ne_bytes().to_vec();
    whole.extend(kind.to_ne_bytes());
    whole.extend(flags.to_ne_bytes());
    whole.extend(SEQUENCE.to_ne_bytes());
    whole.extend([0; 4]);
    whole.extend(body);
    whole
}

/// `struct ifinfomsg` of link `index`, to go up (1) or down (0).
fn link(index: u32, up: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(up.to_ne_bytes());
    body.extend(1_u32.to_ne_bytes());
    body
}

/// `struct ifaddrmsg` and 203.0.113.9 on link `index`.
fn address(index: u32) -> Vec<u8> {
    let mut body = vec![2, 32, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(2, &[203, 0, 113, 9]));
    body
}

/// `struct rtmsg` of 203.0.113.0/24 over link `index`.
fn route(index: u32) -> Vec<u8> {
    let mut body = vec![2, 24, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0];
    body.extend(attribute(1, &[203, 0, 113, 0]));
    body.extend(attribute(4, &index.to_ne_bytes()));
    body
}

/// Changes of every kind of object; `index` is a link of the network.
fn changes(index: u32) -> Vec<(&'static str, Vec<u8>)> {
    let mut neighbour = vec![2, 0, 0, 0];
    neighbour.extend(index.to_ne_bytes());
    neighbour.extend([0x80, 0, 0, 0]);
    neighbour.extend(attribute(1, &[192, 0, 2, 77]));
    neighbour.extend(attribute(2, &[2, 0, 0, 0, 0, 1]));
    let rule = [2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0].to_vec();
    let mut discipline = vec![0; 4];
    discipline.extend(index.to_ne_bytes());
    discipline.extend([0; 12]);
    let mut named = link(0, 0);
    named.extend(attribute(3, b"taken\0"));
    named.extend(attribute(18, &attribute(1, b"dummy\0")));
    let mut hop = vec![2, 0, 0, 0, 0, 0, 0, 0];
    hop.extend(attribute(5, &index.to_ne_bytes()));
    vec![
        ("a link", message(16, CREATE, &named)),
        ("a link goes", message(17, REQUEST, &link(index, 0))),
        ("a link goes down", message(19, REQUEST, &link(index, 0))),
        ("an address", message(20, CREATE, &address(index))),
        ("an address goes", message(21, REQUEST, &address(index))),
        ("a route", message(24, CREATE, &route(index))),
        ("a route goes", message(25, REQUEST, &route(index))),
        ("a neighbour", message(28, CREATE, &neighbour)),
        ("a neighbour goes", message(29, REQUEST, &neighbour)),
        ("a rule", message(32, CREATE, &rule)),
        ("a rule goes", message(33, REQUEST, &rule)),
        ("a queue", message(36, CREATE, &discipline)),
        ("a queue goes", message(37, REQUEST, &discipline)),
        ("another namespace's number", message(88, REQUEST, &[0, 0, 0, 0])),
        ("a next hop", message(104, CREATE, &hop)),
        ("a next hop goes", message(105, REQUEST, &hop)),
    ]
}

/// `struct inet_diag_req_v2` that names a TCP connection of IPv4.
fn connection(ours: SocketAddr, theirs: SocketAddr) -> Vec<u8> {
    let mut body = vec![2, 6, 0, 0, 0xff, 0xff, 0xff, 0xff];
    body.extend(ours.port().to_be_bytes());
    body.extend(theirs.port().to_be_bytes());
    for address in [ours.ip(), theirs.ip()] {
        let IpAddr::V4(address) = address else { return Vec::new() };
        body.extend(address.octets());
        body.extend([0; 12]);
    }
    // Any interface, any cookie.
    body.extend([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    body
}

/// The port that process `pid` has connected to `theirs` from, by what it reads in `/proc/net/tcp`.
fn own_port(pid: i32, theirs: SocketAddr) -> Outcome<u16> {
    let IpAddr::V4(address) = theirs.ip() else { return Err("not of IPv4".into()) };
    let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.octets()), theirs.port());
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = lines.filter(|words| words.get(2) == Some(&&*remote));
    let line = found.next().ok_or("no connection")?;
    let port = line[1].split_once(':').ok_or("no port")?.1;
    Ok(u16::from_str_radix(port, 16)?)
}

/// Sends `request` over the monitor's socket `number`, as the monitor; the kernel's answer. There is none where
/// the socket has a filter that lets only events pass.
fn ask(monitor: &mut Injector, number: u64, request: &[u8]) -> Outcome<Option<Result<(), Errno>>> {
    let address = monitor.put(request)?;
    let flags = libc::MSG_DONTWAIT as u64;
    let sent =
        monitor.call(libc::SYS_sendto, [number, address, request.len() as u64, flags, 0, 0])?;
    if let Called::Failed(errno) = sent {
        return Ok(Some(Err(errno)));
    }
    let mut answer = [0; 1024];
    loop {
        let place = monitor.put(&answer)?;
        let length = answer.len() as u64;
        match monitor.call(libc::SYS_recvfrom, [number, place, length, flags, 0, 0])? {
            Called::Gave(_) => {}
            Called::Failed(Errno::EAGAIN) => return Ok(None),
            other => return Err(format!("no answer: {other:?}").into()),
        }
        monitor.get(place, &mut answer)?;
        let word = |at: usize| [answer[at], answer[at + 1], answer[at + 2], answer[at + 3]];
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        if kind == ACKNOWLEDGED && u32::from_ne_bytes(word(8)) == SEQUENCE {
            let errno = -i32::from_ne_bytes(word(16));
            return Ok(Some(if errno == 0 { Ok(()) } else { Err(Errno::from_raw(errno)) }));
        }
    }
}

/// The monitor's netlink sockets.
fn held(monitor: &Process, supervisor: &Process) -> Outcome<Vec<Held>> {
    let host = std::fs::metadata(format!("/proc/{}/ns/net", supervisor.pid))?;
    let mut held = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", monitor.pid))? {
        let number: i32 = entry?.file_name().to_string_lossy().parse()?;
        let socket = monitor.descriptor(number)?;
        let Ok((libc::AF_NETLINK, protocol)) = sys::kind_of_socket(&socket) else { continue };
        let namespace = fstat(sys::namespace_of_socket(&socket)?)?;
        let is_hosts = namespace.st_ino == std::os::unix::fs::MetadataExt::ino(&host);
        let network = if is_hosts { Network::Host } else { Network::Namespace };
        held.push((u64::try_from(number)?, network, protocol));
    }
    Ok(held)
}

pub(super) fn monitor_with_other_code_in_it_changes_nothing_of_the_host(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    lab.needs_root()?;
    // Root's own descriptors are the hazard: opened by it, they could do what it may.
    attack(lab, || {
        let mut inside = lab.pasta().configured().as_root().session()?;
        let supervisor = inside.running().pid();
        Ok((supervisor, inside))
    })?;
    Ok(())
}

/// The monitor has a capability over the machine there.
pub(super) fn monitor_of_the_machines_user_namespace_changes_nothing_of_the_host(
    lab: &Lab,
) -> Outcome {
    lab.needs_helpers()?;
    lab.needs_root()?;
    attack(lab, || {
        let mut inside = unshared_session(lab)?;
        let (file, target) = ("/tmp/attached.pid", inside.running().pid().to_string());
        let pasta = lab.pasta().configured().as_root();
        pasta.attach(["-P", file, &target])?.expect_code(0)?;
        Ok((std::fs::read_to_string(file)?.trim().parse()?, inside))
    })
}

/// Has the monitor of what `start` starts send all changes; nothing of the host may be another one after.
fn attack(lab: &Lab, start: impl FnOnce() -> Outcome<(i32, Session)>) -> Outcome {
    // A connection of the host that could be destroyed.
    let echo = lab.remote().tcp(Family::V4.internet(), service::echo)?;
    let mut client = bare_session(lab)?;
    client.must(["tcp", "open", "held", &echo.endpoint()])?;
    let theirs: SocketAddr = echo.endpoint().parse()?;
    let ours = SocketAddr::new(Family::V4.host(), own_port(client.running().pid(), theirs)?);
    let state = || {
        lab.on_host(|it| Ok((it.links()?, it.addresses()?, it.routes()?, it.link(UPLINK)?.index)))
    };
    let before = state()?;
    let uplink = before.3;

    let (supervisor, inside) = start()?;
    let supervisor = Process::read(supervisor).ok_or("no supervisor")?;
    let monitor = process::only(MONITOR)?;
    let held = held(&monitor, &supervisor)?;
    let of = |network, protocol| {
        held.iter().filter(move |it| (it.1, it.2) == (network, protocol)).map(|it| it.0)
    };
    let mut taken = Injector::stop(monitor.pid)?;

    // It may change the namespace, so the calls work.
    let tap = 2;
    let mut works = false;
    for number in of(Network::Namespace, libc::NETLINK_ROUTE) {
        if ask(&mut taken, number, &message(20, CREATE, &address(tap)))? == Some(Ok(())) {
            let gone = ask(&mut taken, number, &message(21, REQUEST, &address(tap)))?;
            assert_eq!(gone, Some(Ok(())));
            works = true;
        }
    }
    assert!(works, "nothing of the namespace can be changed over {held:?}");

    let mut tried = 0;
    for number in of(Network::Host, libc::NETLINK_ROUTE) {
        for (what, request) in changes(uplink) {
            let answer = ask(&mut taken, number, &request)?;
            assert!(
                matches!(answer, None | Some(Err(Errno::EPERM))),
                "{what}, over descriptor {number}: {answer:?}"
            );
            tried += u32::from(answer.is_some());
        }
    }
    assert!(tried >= 16, "{tried} changes refused over {held:?}");
    for diag in of(Network::Host, libc::NETLINK_SOCK_DIAG) {
        let destroyed = ask(&mut taken, diag, &message(21, REQUEST, &connection(ours, theirs)))?;
        assert_eq!(destroyed, Some(Err(Errno::EPERM)));
    }

    // A socket of its own would be of the namespace, and another namespace is out of reach.
    let (family, kind) = (AddressFamily::Netlink as u64, SockType::Raw as u64);
    let kind = kind | SockFlag::SOCK_CLOEXEC.bits() as u64;
    let opened = taken.call(libc::SYS_socket, [family, kind, 0, 0, 0, 0])?;
    assert_eq!(opened, Called::Killed);
    drop(taken);
    monitor.wait_until_gone()?;

    assert_eq!(state()?, before);
    client.must(["tcp", "exchange", "held", "1", "1000"])?;
    client.end(0)?;
    inside.end(9)?.expect_code(9)?;
    Ok(())
}
