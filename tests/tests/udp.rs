//! UDP between the namespace and the network, through the tap.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use tests::harness::{self, Case};
use tests::lab::service::{Service, ask, ask_within};
use tests::lab::{Family, Lab, Session, UPLINK, address, wait};
use tests::netlink::Fate;
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, datagrams_of_every_size_come_back_unchanged),
        case!(families, datagrams_larger_than_the_namespaces_mtu_come_back_unchanged),
        case!(families, closed_port_is_refused),
        case!(families, unreachable_host_is_reported_as_such),
        case!(families, silent_host_gives_no_answer_and_no_error),
        case!(families, far_side_sees_the_host_and_the_same_source_port),
        case!(families, one_source_port_talks_to_two_servers),
        case!(families, two_peers_of_a_source_port_see_one_port_of_the_host),
        case!(families, two_peers_see_one_port_also_where_the_hosts_is_taken),
        case!(families, datagrams_of_a_forwarded_port_leave_from_it),
        case!(families, automatic_port_that_sends_first_is_left_from_and_reached),
        case!(families, listening_address_is_what_a_forwarded_port_sends_from),
        case!(families, address_that_a_program_has_picked_is_what_the_host_sends_from),
        case!(families, local_datagram_reaches_a_service_of_the_other_family_alone),
        case!(families, datagram_of_the_namespaces_loopback_reaches_a_service_of_the_other_family),
        case!(lab, without_ipv6_on_the_host_localhost_reaches_the_namespace),
        case!(families, half_of_the_hosts_ephemeral_ports_are_left_to_the_host),
        case!(families, prohibited_destination_is_reported_as_such),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

fn datagrams_of_every_size_come_back_unchanged(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().udp_echo(family.internet())?;
    let mut inside = lab.session()?;

    let sizes = ["0", "1", "100", "1472", "9000", "60000"];
    let facts = inside.must([&["udp", "echo", &echo.endpoint()], &sizes[..]].concat())?;

    assert_eq!(facts, sizes.map(|size| format!("echoed {size}")));
    Ok(())
}

fn datagrams_larger_than_the_namespaces_mtu_come_back_unchanged(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let echo = lab.remote().udp_echo(family.internet())?;
    for mtu in ["1500", "1280"] {
        // A socket of the flow's own, and one that it shares.
        for options in [["-u", "none"], ["-u", "6060"]] {
            let options = [&["--mtu", mtu], &options[..]].concat();
            let mut inside = lab.pasta().configured().with(&options).session()?;
            let sizes = ["1400", "1473", "8192", "65507"];
            let facts = inside.must([&["udp", "echo", &echo.endpoint()], &sizes[..]].concat())?;
            assert_eq!(facts, sizes.map(|size| format!("echoed {size}")), "{options:?}");
            inside.must(["udp", "from", "6060", &echo.endpoint(), "8192"])?;
            inside.end(0)?;
        }
    }
    Ok(())
}

fn closed_port_is_refused(lab: &Lab, family: Family) -> Outcome {
    let port = lab.remote().closed_port(family.internet())?;
    let mut inside = lab.session()?;

    let closed = address::endpoint(family.internet(), port);
    inside.ask(["udp", "provoke", &closed])?.failure("ECONNREFUSED")
}

fn unreachable_host_is_reported_as_such(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.session()?;

    let nowhere = address::endpoint(family.unreachable(), 9);
    inside.ask(["udp", "provoke", &nowhere])?.failure(family.unreachable_error())
}

fn silent_host_gives_no_answer_and_no_error(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.session()?;

    let silent = address::endpoint(family.silent(), 9);
    inside.must(["udp", "silence", &silent, "500"])?;
    Ok(())
}

fn far_side_sees_the_host_and_the_same_source_port(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().udp_echo(family.internet())?;
    let mut inside = lab.session()?;

    inside.must(["udp", "from", "4242", &echo.endpoint()])?;

    let peer = echo.next_peer()?;
    assert_eq!((peer.ip(), peer.port()), (family.host(), 4242));
    Ok(())
}

fn one_source_port_talks_to_two_servers(lab: &Lab, family: Family) -> Outcome {
    let first = lab.remote().udp_echo(family.internet())?;
    let second = lab.remote().udp_echo(family.internet_second())?;
    let mut inside = lab.session()?;

    for echo in [&first, &second, &first] {
        inside.must(["udp", "from", "4242", &echo.endpoint()])?;
    }
    Ok(())
}

/// A program of the namespace that sends from `port` to two servers, each of which sees the flow come from `seen`,
/// or from wherever the first one sees it come from; gives the servers.
fn talks_to_two(
    lab: &Lab,
    family: Family,
    inside: &mut Session,
    port: u16,
    seen: Option<SocketAddr>,
) -> Outcome<[Service; 2]> {
    let servers = [
        lab.remote().udp_echo(family.internet())?,
        lab.remote().udp_echo(family.internet_second())?,
    ];
    inside.must(["udp", "hold", "program", &any(family, port)])?;
    for server in &servers {
        inside.must(["udp", "send", "program", &server.endpoint()])?;
    }
    let peers = [servers[0].next_peer()?, servers[1].next_peer()?];
    assert_eq!(peers[0], peers[1]);
    assert_eq!(peers[0].ip(), family.host());
    assert!(seen.is_none_or(|seen| seen == peers[0]), "{peers:?} instead of {seen:?}");
    // Both answers, and both servers once more: each of the flows goes on.
    for _ in 0..2 * servers.len() {
        inside.must(["udp", "next", "program"])?;
    }
    for server in &servers {
        assert_eq!(server.next_peer()?, peers[0]);
    }
    Ok(servers)
}

fn any(family: Family, port: u16) -> String {
    SocketAddr::new(family.any(), port).to_string()
}

/// Somebody to whom the program has sent nothing sends it something, and is answered from there.
fn is_reached(lab: &Lab, family: Family, inside: &mut Session, port: u16) -> Outcome {
    let to = SocketAddr::new(family.host(), port);
    let stranger = lab.remote().run(|| {
        let socket = UdpSocket::bind((family.internet(), 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(wait::PATIENCE))?;
        Ok(socket)
    })?;
    wait::until("a datagram of a stranger", || {
        let _ = stranger.send(b"stranger");
        // What is still on its way from the servers is answered as well.
        let peer = inside.must(["udp", "next", "program"]).ok()?;
        (peer[0] == stranger.local_addr().ok()?.to_string()).then_some(())
    })?;
    let mut answer = [0; 64];
    let length = stranger.recv(&mut answer)?;
    assert_eq!(&answer[..length], b"stranger");
    Ok(())
}

fn two_peers_of_a_source_port_see_one_port_of_the_host(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.pasta().configured().with(["-u", "none"]).session()?;
    let seen = SocketAddr::new(family.host(), 4242);
    talks_to_two(lab, family, &mut inside, 4242, Some(seen))?;
    // It is no port of the namespace's for others.
    let asked = ask_within(SOON, lab.remote(), family.internet(), seen, b"x");
    assert!(asked.is_err(), "a stranger was answered");
    Ok(())
}

/// How long a datagram may take that must not be answered; chosen: many round trips of the lab.
const SOON: Duration = Duration::from_millis(300);

fn two_peers_see_one_port_also_where_the_hosts_is_taken(lab: &Lab, family: Family) -> Outcome {
    let any: IpAddr = family.any();
    let _taken = lab.host().run(move || Ok(UdpSocket::bind((any, 4242))?))?;
    // Otherwise the port is one of the namespace's loopback too.
    let mut inside = lab.pasta().configured().with(["-U", "none"]).session()?;
    talks_to_two(lab, family, &mut inside, 4242, None)?;
    Ok(())
}

fn datagrams_of_a_forwarded_port_leave_from_it(lab: &Lab, family: Family) -> Outcome {
    for options in [&[][..], &["--outbound-if4", UPLINK, "--outbound-if6", UPLINK]] {
        let options = [&["-u", "5060:6060"], options].concat();
        let mut inside = lab.pasta().configured().with(options).session()?;
        let seen = SocketAddr::new(family.host(), 5060);
        talks_to_two(lab, family, &mut inside, 6060, Some(seen))?;
        is_reached(lab, family, &mut inside, 5060)?;
        inside.end(0)?;
    }
    Ok(())
}

fn automatic_port_that_sends_first_is_left_from_and_reached(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.pasta().configured().with(["-u", "auto"]).session()?;
    let seen = SocketAddr::new(family.host(), 5060);
    talks_to_two(lab, family, &mut inside, 5060, Some(seen))?;
    is_reached(lab, family, &mut inside, 5060)
}

fn listening_address_is_what_a_forwarded_port_sends_from(lab: &Lab, family: Family) -> Outcome {
    let (second, prefix) = (family.host_second(), address::prefix_length(family));
    lab.on_host(|netlink| {
        let uplink = netlink.link(UPLINK)?.index;
        Ok(netlink.add_address(uplink, second, prefix)?)
    })?;
    let server = lab.remote().udp_echo(family.internet())?;
    let rule = format!("{second}/5060:6060");
    let mut inside = lab.pasta().configured().with(["-u", &rule]).session()?;
    inside.must(["udp", "hold", "program", &any(family, 6060)])?;
    inside.must(["udp", "send", "program", &server.endpoint()])?;
    assert_eq!(server.next_peer()?, SocketAddr::new(second, 5060));
    inside.must(["udp", "next", "program"])?;
    Ok(())
}

/// Of those that the namespace has from the host.
fn address_that_a_program_has_picked_is_what_the_host_sends_from(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let (second, prefix) = (family.host_second(), address::prefix_length(family));
    lab.on_host(|netlink| {
        let uplink = netlink.link(UPLINK)?.index;
        Ok(netlink.add_address(uplink, second, prefix)?)
    })?;
    let server = lab.remote().udp_echo(family.internet())?;
    // A socket for each flow, and one that flows share.
    for options in [["-u", "none"], ["-u", "6060"]] {
        let mut inside = lab.pasta().configured().with(options).session()?;
        for (n, address) in [family.host(), second].into_iter().enumerate() {
            let (name, source) = (n.to_string(), SocketAddr::new(address, 6060).to_string());
            inside.must(["udp", "hold", &name, &source])?;
            inside.must(["udp", "send", &name, &server.endpoint()])?;
            assert_eq!(server.next_peer()?.ip(), address, "{options:?}");
            inside.must(["udp", "next", &name])?;
            assert_eq!(server.next_peer()?.ip(), address, "{options:?}");
        }
        inside.end(0)?;
    }
    Ok(())
}

fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

/// The client is of `family`, the service of the other one.
fn local_datagram_reaches_a_service_of_the_other_family_alone(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let to = SocketAddr::new(family.loopback(), 5300);
    for (options, address) in
        [(&[][..], other(family).host()), (&["--host-lo-to-ns-lo"], other(family).loopback())]
    {
        let options = [&["-u", "5300:6060"], options].concat();
        let mut inside = lab.pasta().configured().with(&options).session()?;
        inside.must(["serve", "udp", "echo", &SocketAddr::new(address, 6060).to_string()])?;
        for octets in [0, 1000, 20_000] {
            ask(lab.host(), family.loopback(), to, &vec![7; octets])?;
        }
        inside.end(0)?;
    }
    Ok(())
}

fn datagram_of_the_namespaces_loopback_reaches_a_service_of_the_other_family(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let service = lab.host().udp_echo(other(family).loopback())?;
    let rule = format!("5300:{}", service.port());
    let mut inside = lab.pasta().configured().with(["-U", &rule]).session()?;
    let to = SocketAddr::new(family.loopback(), 5300).to_string();
    wait::until("the listener", || {
        inside.ask(["udp", "echo", &to, "8"]).ok()?.result.ok().map(drop)
    })?;
    inside.must(["udp", "echo", &to, "0", "1472", "20000"])?;
    Ok(())
}

fn without_ipv6_on_the_host_localhost_reaches_the_namespace(lab: &Lab) -> Outcome {
    lab.host().run(|| {
        let setting = format!("/proc/sys/net/ipv6/conf/{UPLINK}/disable_ipv6");
        Ok(std::fs::write(setting, "1")?)
    })?;
    let to = SocketAddr::new(Family::V6.loopback(), 5300);
    for options in [&[][..], &["--no-splice"], &["--host-lo-to-ns-lo"]] {
        // On every address of both families, or on those of IPv4 alone.
        for service in ["[::]:6060", "0.0.0.0:6060"] {
            // Through the tap, a port that is closed is not known to be.
            let options = [&["-u", "5300:6060"], options].concat();
            let mut inside = lab.pasta().configured().with(&options).session()?;
            inside.must(["serve", "udp", "echo", service])?;
            let asked = ask(lab.host(), Family::V6.loopback(), to, b"anybody?");
            asked.map_err(|error| format!("{options:?} {service}: {error}"))?;
            inside.end(0)?;
        }
    }
    Ok(())
}

/// A program that sends from ever new ports takes no more than half of what the host gives to its own programs; its
/// own last flows go on.
fn half_of_the_hosts_ephemeral_ports_are_left_to_the_host(lab: &Lab, family: Family) -> Outcome {
    const PORTS: std::ops::Range<u16> = 40_000..40_020;
    lab.host().run(|| {
        let range = format!("{} {}", PORTS.start, PORTS.end - 1);
        Ok(std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", range)?)
    })?;
    let silent = SocketAddr::new(family.internet(), 7);
    let silent = lab.remote().udp_at(silent, |_, peer, _| Ok(peer.to_string()))?;
    let server = lab.remote().udp_echo(family.internet_second())?;
    let mut inside = lab.pasta().configured().with(["-u", "none"]).session()?;
    for port in PORTS {
        let name = port.to_string();
        inside.must(["udp", "hold", &name, &any(family, port)])?;
        inside.must(["udp", "send", &name, &silent.endpoint()])?;
        assert_eq!(silent.next_peer()?.port(), port);
    }
    let any: IpAddr = family.any();
    let free = lab.host().run(move || {
        let sockets = PORTS.map_while(|_| UdpSocket::bind((any, 0)).ok());
        Ok(sockets.collect::<Vec<_>>().len())
    })?;
    assert!(free >= PORTS.len() / 2, "only {free} ports are free");
    let last = (PORTS.end - 1).to_string();
    inside.must(["udp", "send", &last, &server.endpoint()])?;
    inside.must(["udp", "next", &last])?;
    Ok(())
}

/// As the router says it, and not as the kernel's error number does, which is that of an unreachable host.
fn prohibited_destination_is_reported_as_such(lab: &Lab, family: Family) -> Outcome {
    let expected = if family == Family::V4 { "3 13" } else { "1 1" };
    lab.on_remote(|netlink| Ok(netlink.add_dead_end(prohibited(family), Fate::Prohibited)?))?;
    let to = SocketAddr::new(prohibited(family), 9).to_string();
    // A socket of its own, and one that is shared.
    for options in [["-u", "none"], ["-u", "6060"]] {
        let mut inside = lab.pasta().configured().with(options).session()?;
        assert_eq!(inside.must(["udp", "icmp", "6060", &to])?, [expected], "{options:?}");
        inside.end(0)?;
    }
    Ok(())
}

fn prohibited(family: Family) -> IpAddr {
    match family {
        Family::V4 => [198, 51, 100, 200].into(),
        Family::V6 => [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x200].into(),
    }
}
