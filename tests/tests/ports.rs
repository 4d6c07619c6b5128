//! Ports: forwarded into the namespace and out of it, through the tap and spliced.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use std::os::fd::AsRawFd;
use tests::harness::{self, Case};
use tests::lab::admin::{Admin, Inside, index_of};
use tests::lab::service::{self, ask, ask_within, exchange, send_pattern, verify_pattern};
use tests::lab::{Family, Lab, Machine, Session, UPLINK, process, wait};
use tests::pattern::Pattern;
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, remote_client_is_seen_with_its_own_address),
        case!(families, datagrams_of_a_remote_client_are_answered_from_where_they_went),
        case!(families, local_client_is_joined_to_the_namespaces_address),
        case!(families, local_client_shows_as_the_gateway_without_splicing),
        case!(families, local_client_reaches_loopback_services_if_asked_for),
        case!(families, hosts_own_address_shows_as_what_leads_back_to_it),
        case!(families, local_datagrams_take_the_same_ways),
        case!(families, large_transfers_through_the_tap_arrive_unchanged),
        case!(families, large_transfers_of_local_clients_arrive_unchanged),
        case!(families, each_direction_ends_by_itself_through_the_tap),
        case!(families, each_direction_ends_by_itself_when_spliced),
        case!(families, closed_port_of_the_namespace_is_a_reset),
        case!(families, reset_of_the_service_reaches_the_client),
        case!(families, listening_address_and_interface_limit_who_is_let_in),
        case!(families, rule_with_a_target_address_leads_there),
        case!(lab, ports_are_translated_one_by_one),
        case!(families, service_of_the_hosts_loopback_is_reached_from_the_namespaces),
        case!(families, datagrams_to_the_hosts_loopback_are_answered),
        case!(families, automatic_port_is_there_while_somebody_listens),
        case!(families, automatic_port_of_the_host_is_there_while_somebody_listens),
        case!(lab, local_client_of_a_family_nobody_serves_is_joined_to_the_other),
        case!(lab, hundreds_of_connections_at_once_are_all_served),
        case!(lab, thousands_of_connections_at_once_are_all_served),
        case!(lab, connections_wait_for_descriptors_and_are_served_when_there_are_some),
        case!(lab, all_ports_of_the_namespace_leave_room_under_a_low_limit),
        case!(lab, clients_that_send_nothing_do_not_keep_others_waiting),
        case!(lab, all_ports_start_within_an_ordinary_limit_of_descriptors),
        case!(families, s63_forwarded_port_survives_renumbering),
        case!(families, silent_services_are_reached_at_another_link_layer_address),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// Octets of a large transfer: enough for many turns of every buffer on the way.
const LARGE: u64 = if cfg!(debug_assertions) { 64 << 20 } else { 256 << 20 };

/// How long a datagram may take that may be lost; chosen: many round trips of the lab.
const SOON: Duration = Duration::from_millis(500);

/// A client that waits no longer than the lab's patience.
fn client(machine: &Machine, from: Option<IpAddr>, to: SocketAddr) -> Outcome<TcpStream> {
    machine.run(move || {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let stream = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        if let Some(from) = from {
            bind(stream.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
        }
        connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
        let stream = TcpStream::from(stream);
        stream.set_read_timeout(Some(wait::PATIENCE))?;
        stream.set_write_timeout(Some(wait::PATIENCE))?;
        Ok(stream)
    })
}

/// A whole conversation with an echo service, to the end.
fn talk(machine: &Machine, from: Option<IpAddr>, to: SocketAddr) -> Outcome<SocketAddr> {
    let mut stream = client(machine, from, to)?;
    exchange(&mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    if stream.read(&mut [0])? != 0 {
        return Err("octets after the end".into());
    }
    Ok(stream.local_addr()?)
}

/// A session with `options` in whose namespace an echo service runs on `port` of every address of
/// the family.
fn serving(lab: &Lab, family: Family, port: u16, options: &[&str]) -> Outcome<Session> {
    let mut inside = lab.pasta().configured().with(options).session()?;
    inside.must(["serve", "tcp", "echo", &at(family.any(), port), "echo"])?;
    Ok(inside)
}

fn at(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// The peer that the service named `name` saw last, less its zone.
fn peer(inside: &mut Session, name: &str) -> Outcome<SocketAddr> {
    let report = inside.must(["serve", "report", name])?;
    let report = report.first().ok_or("no report")?;
    match report.split_once('%') {
        Some((address, rest)) => {
            let (_, port) = rest.split_once("]:").ok_or("a zone without its end")?;
            Ok(format!("{address}]:{port}").parse()?)
        }
        None => Ok(report.parse()?),
    }
}

/// What the gateway shows as: the address that leads back to the host's loopback.
fn gateway(family: Family) -> IpAddr {
    family.gateway()
}

fn remote_client_is_seen_with_its_own_address(lab: &Lab, family: Family) -> Outcome {
    let mut inside = serving(lab, family, 8001, &["-t", "8000:8001"])?;
    for _ in 0..3 {
        let to = SocketAddr::new(family.host(), 8000);
        let seen = talk(lab.remote(), Some(family.internet()), to)?;
        assert_eq!(peer(&mut inside, "echo")?, seen);
    }
    Ok(())
}

fn datagrams_of_a_remote_client_are_answered_from_where_they_went(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let mut inside = lab.pasta().configured().with(["-u", "5300:53"]).session()?;
    inside.must(["serve", "udp", "echo", &at(family.any(), 53)])?;
    for octets in [0, 1, 1000, 1472, 20_000] {
        let to = SocketAddr::new(family.host(), 5300);
        let seen = ask(lab.remote(), family.internet(), to, &vec![7; octets])?;
        assert_eq!(peer(&mut inside, "echo")?, seen);
    }
    // A second address of the host's: the answer comes from that one.
    lab.on_host(|netlink| {
        let (lo, length) = (netlink.link("lo")?.index, if family == Family::V4 { 32 } else { 128 });
        Ok(netlink.add_address(lo, family.host_second(), length)?)
    })?;
    let second = SocketAddr::new(family.host_second(), 5300);
    // The kernel adds the way to a new IPv6 address a moment after it says that it is there.
    let asked = || ask_within(SOON, lab.host(), family.host(), second, b"x").is_ok();
    until_outcome("an answer of the second address", asked)
}

fn local_client_is_joined_to_the_namespaces_address(lab: &Lab, family: Family) -> Outcome {
    let mut inside = serving(lab, family, 8000, &["-t", "8000"])?;
    talk(lab.host(), None, SocketAddr::new(family.loopback(), 8000))?;
    assert_eq!(peer(&mut inside, "echo")?.ip(), family.host());
    Ok(())
}

fn local_client_shows_as_the_gateway_without_splicing(lab: &Lab, family: Family) -> Outcome {
    for (options, shown) in [
        (&["--no-splice"][..], gateway(family)),
        (&["--no-splice", "--no-map-gw"], gateway(family)),
        (&["--no-splice", "--map-host-loopback", &family.unused().to_string()], family.unused()),
    ] {
        let mut inside = serving(lab, family, 8000, &[&["-t", "8000"], options].concat())?;
        talk(lab.host(), None, SocketAddr::new(family.loopback(), 8000))?;
        assert_eq!(peer(&mut inside, "echo")?.ip(), shown, "{options:?}");
        inside.end(0)?;
    }
    Ok(())
}

fn local_client_reaches_loopback_services_if_asked_for(lab: &Lab, family: Family) -> Outcome {
    let service = at(family.loopback(), 8000);
    let to = SocketAddr::new(family.loopback(), 8000);

    let options = ["-t", "8000", "--host-lo-to-ns-lo"];
    let mut inside = lab.pasta().configured().with(options).session()?;
    inside.must(["serve", "tcp", "echo", &service, "echo"])?;
    talk(lab.host(), None, to)?;
    assert_eq!(peer(&mut inside, "echo")?.ip(), family.loopback());
    inside.end(0)?;

    let mut inside = lab.pasta().configured().with(["-t", "8000"]).session()?;
    inside.must(["serve", "tcp", "echo", &service, "echo"])?;
    assert!(talk(lab.host(), None, to).is_err(), "its loopback was reached");
    // Nobody else gets there in any case.
    let to = SocketAddr::new(family.host(), 8000);
    assert!(talk(lab.remote(), None, to).is_err(), "its loopback was reached from afar");
    Ok(())
}

fn hosts_own_address_shows_as_what_leads_back_to_it(lab: &Lab, family: Family) -> Outcome {
    let to = SocketAddr::new(family.host(), 8000);
    let mut inside = serving(lab, family, 8000, &["-t", "8000"])?;
    talk(lab.host(), None, to)?;
    assert_eq!(peer(&mut inside, "echo")?.ip(), gateway(family));
    inside.end(0)?;

    let mapped = family.unused().to_string();
    let mut inside = serving(lab, family, 8000, &["-t", "8000", "--map-guest-addr", &mapped])?;
    talk(lab.host(), None, to)?;
    assert_eq!(peer(&mut inside, "echo")?.ip(), family.unused());
    Ok(())
}

fn local_datagrams_take_the_same_ways(lab: &Lab, family: Family) -> Outcome {
    let loopback = family.loopback();
    for (options, shown) in [
        (&[][..], family.host()),
        (&["--no-splice"], gateway(family)),
        (&["--host-lo-to-ns-lo"], loopback),
    ] {
        let options = [&["-u", "5300:53"], options].concat();
        let mut inside = lab.pasta().configured().with(&options).session()?;
        inside.must(["serve", "udp", "echo", &at(family.any(), 53)])?;
        for octets in [0, 1, 1000, 20_000] {
            let to = SocketAddr::new(loopback, 5300);
            let seen = ask(lab.host(), loopback, to, &vec![7; octets])?;
            let peer = peer(&mut inside, "echo")?;
            assert_eq!((peer.ip(), peer.port()), (shown, seen.port()), "{options:?}");
        }
        inside.end(0)?;
    }
    Ok(())
}

/// Both directions of a large transfer, one after the other.
fn transfer(lab: &Lab, inside: &mut Session, machine: &Machine, to: SocketAddr) -> Outcome {
    let _ = lab;
    let pattern = Pattern::new(1);
    let download = SocketAddr::new(to.ip(), to.port());
    let upload = SocketAddr::new(to.ip(), to.port() + 1);
    let mut stream = client(machine, None, download)?;
    assert_eq!(verify_pattern(&mut stream, pattern)?, LARGE);
    drop(stream);
    inside.must(["serve", "report", "source"])?;

    let mut stream = client(machine, None, upload)?;
    send_pattern(&mut stream, pattern, LARGE)?;
    stream.shutdown(Shutdown::Write)?;
    let mut verdict = String::new();
    stream.read_to_string(&mut verdict)?;
    assert_eq!(verdict, format!("verified {LARGE}"));
    Ok(())
}

fn transferring(lab: &Lab, family: Family) -> Outcome<Session> {
    let mut inside = lab.pasta().configured().with(["-t", "8000-8001"]).session()?;
    let (length, any) = (LARGE.to_string(), family.any());
    inside.must(["serve", "tcp", "source", &at(any, 8000), "source", "1", &length])?;
    inside.must(["serve", "tcp", "sink", &at(any, 8001), "sink", "1"])?;
    Ok(inside)
}

fn large_transfers_through_the_tap_arrive_unchanged(lab: &Lab, family: Family) -> Outcome {
    let mut inside = transferring(lab, family)?;
    transfer(lab, &mut inside, lab.remote(), SocketAddr::new(family.host(), 8000))
}

fn large_transfers_of_local_clients_arrive_unchanged(lab: &Lab, family: Family) -> Outcome {
    let mut inside = transferring(lab, family)?;
    transfer(lab, &mut inside, lab.host(), SocketAddr::new(family.loopback(), 8000))
}

/// The client ends first and receives the rest; then the service does.
fn ends_apart(machine: &Machine, to: SocketAddr) -> Outcome {
    // The echo service answers the end with its own: what is under way still arrives.
    let mut stream = client(machine, None, to)?;
    let pattern = Pattern::new(5);
    let sent = pattern.octets(300_000);
    stream.write_all(&sent)?;
    stream.shutdown(Shutdown::Write)?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    assert!(received == sent, "{} of {} octets came back", received.len(), sent.len());

    // The source ends first and waits for the client's end, which it then reports.
    let mut stream = client(machine, None, SocketAddr::new(to.ip(), to.port() + 1))?;
    assert_eq!(verify_pattern(&mut stream, Pattern::new(6))?, 300_000);
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

fn ending_apart(lab: &Lab, family: Family) -> Outcome<Session> {
    let mut inside = serving(lab, family, 8000, &["-t", "8000-8001"])?;
    inside.must(["serve", "tcp", "source", &at(family.any(), 8001), "source", "6", "300000"])?;
    Ok(inside)
}

fn each_direction_ends_by_itself_through_the_tap(lab: &Lab, family: Family) -> Outcome {
    let mut inside = ending_apart(lab, family)?;
    ends_apart(lab.remote(), SocketAddr::new(family.host(), 8000))?;
    inside.must(["serve", "report", "source"])?;
    Ok(())
}

fn each_direction_ends_by_itself_when_spliced(lab: &Lab, family: Family) -> Outcome {
    let mut inside = ending_apart(lab, family)?;
    ends_apart(lab.host(), SocketAddr::new(family.loopback(), 8000))?;
    inside.must(["serve", "report", "source"])?;
    Ok(())
}

/// Whether the connection was accepted for us and reset at once, or reset while it opened.
fn is_reset(outcome: Outcome<SocketAddr>) -> Outcome {
    let Err(error) = outcome else { return Err("somebody answered".into()) };
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let errno = error.downcast_ref::<nix::errno::Errno>();
    let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    if kind.is_some_and(|kind| reset.contains(&kind))
        || errno == Some(&nix::errno::Errno::ECONNRESET)
    {
        Ok(())
    } else {
        Err(format!("not a reset: {error}").into())
    }
}

fn closed_port_of_the_namespace_is_a_reset(lab: &Lab, family: Family) -> Outcome {
    let _inside = lab.pasta().configured().with(["-t", "8000"]).session()?;
    is_reset(talk(lab.remote(), None, SocketAddr::new(family.host(), 8000)))?;
    is_reset(talk(lab.host(), None, SocketAddr::new(family.loopback(), 8000)))
}

fn reset_of_the_service_reaches_the_client(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.pasta().configured().with(["-t", "8000"]).session()?;
    inside.must(["serve", "tcp", "reset", &at(family.any(), 8000), "reset"])?;
    is_reset(talk(lab.remote(), None, SocketAddr::new(family.host(), 8000)))?;
    is_reset(talk(lab.host(), None, SocketAddr::new(family.loopback(), 8000)))
}

fn listening_address_and_interface_limit_who_is_let_in(lab: &Lab, family: Family) -> Outcome {
    let (host, loopback) = (family.host(), family.loopback());
    let first = format!("{host}/8000");
    let second = format!("{loopback}/8001:8000");
    let third = "%eth0/8002:8000".to_owned();
    let options = ["-t", &first, "-t", &second, "-t", &third];
    let mut inside = serving(lab, family, 8000, &options)?;

    talk(lab.remote(), None, SocketAddr::new(host, 8000))?;
    talk(lab.remote(), None, SocketAddr::new(host, 8002))?;
    talk(lab.host(), None, SocketAddr::new(loopback, 8001))?;
    for _ in 0..3 {
        peer(&mut inside, "echo")?;
    }
    for (machine, address, port) in
        [(lab.remote(), host, 8001), (lab.host(), loopback, 8000), (lab.host(), loopback, 8002)]
    {
        let refused = client(machine, None, SocketAddr::new(address, port));
        assert!(refused.is_err(), "{address} {port} let somebody in");
    }
    Ok(())
}

fn rule_with_a_target_address_leads_there(lab: &Lab, family: Family) -> Outcome {
    let (target, any) = (family.unused(), family.any());
    let rule = match family {
        Family::V4 => format!("{any}/8000:{target}/80"),
        Family::V6 => format!("[{any}]/8000:{target}/80"),
    };
    let mut inside = lab.pasta().configured().with(["-t", &rule]).session()?;
    inside.must(["link", "address", "lo", &target.to_string()])?;
    inside.must(["serve", "tcp", "echo", &at(target, 80), "echo"])?;
    // The kernel adds the route to an address after the address; without one it says that it cannot be reached.
    wait_for(&mut inside, &["tcp", "connect", &at(target, 80)])?;
    peer(&mut inside, "echo")?;
    let seen = talk(lab.remote(), None, SocketAddr::new(family.host(), 8000))?;
    assert_eq!(peer(&mut inside, "echo")?, seen);
    // Never spliced: it would not come from here then.
    talk(lab.host(), None, SocketAddr::new(family.loopback(), 8000))?;
    assert_eq!(peer(&mut inside, "echo")?.ip(), gateway(family));
    Ok(())
}

fn ports_are_translated_one_by_one(lab: &Lab) -> Outcome {
    let options = ["-t", "8000-8002:9000-9002"];
    let mut inside = lab.pasta().configured().with(options).session()?;
    let family = Family::V4;
    for n in 0..3 {
        let name = format!("echo{n}");
        inside.must(["serve", "tcp", &name, &at(family.any(), 9000 + n), "echo"])?;
        talk(lab.remote(), None, SocketAddr::new(family.host(), 8000 + n))?;
        peer(&mut inside, &name)?;
    }
    Ok(())
}

fn service_of_the_hosts_loopback_is_reached_from_the_namespaces(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let service = lab.host().tcp(family.loopback(), service::echo)?;
    let rule = format!("8000:{}", service.port());
    let mut inside = lab.pasta().configured().with(["-T", &rule]).session()?;
    let to = at(family.loopback(), 8000);
    wait_for(&mut inside, &["tcp", "connect", &to])?;
    inside.must(["tcp", "echo", &to, "1", "5000000"])?;
    assert_eq!(service.next_peer()?.ip(), family.loopback());
    // Only its own loopback leads there.
    let other = inside.ask(["tcp", "connect", &at(family.host(), 8000)])?;
    other.failure("ECONNREFUSED")
}

fn datagrams_to_the_hosts_loopback_are_answered(lab: &Lab, family: Family) -> Outcome {
    let service = lab.host().udp_echo(family.loopback())?;
    let rule = format!("5300:{}", service.port());
    let mut inside = lab.pasta().configured().with(["-U", &rule]).session()?;
    let to = at(family.loopback(), 5300);
    wait_for(&mut inside, &["udp", "echo", &to, "8"])?;
    inside.must(["udp", "echo", &to, "0", "1472", "20000"])?;
    assert_eq!(service.next_peer()?.ip(), family.loopback());
    Ok(())
}

/// Asks until the answer is a success.
fn wait_for(inside: &mut Session, question: &[&str]) -> Outcome {
    wait::until(&question.join(" "), || match inside.ask(question) {
        Ok(reply) if reply.result.is_err() => None,
        other => Some(other.map(drop)),
    })?
}

/// Tries until `wanted` says that the outcome is right.
fn until_outcome(what: &str, mut attempt: impl FnMut() -> bool) -> Outcome {
    wait::until(what, || attempt().then_some(()))
}

fn automatic_port_is_there_while_somebody_listens(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.pasta().configured().with(["-t", "auto"]).session()?;
    let to = SocketAddr::new(family.host(), 8000);
    assert!(client(lab.remote(), None, to).is_err(), "nobody listens");

    inside.must(["serve", "tcp", "echo", &at(family.any(), 8000), "echo"])?;
    until_outcome("the port to open", || talk(lab.remote(), None, to).is_ok())?;
    let mut kept = client(lab.remote(), None, to)?;
    exchange(&mut kept)?;

    inside.must(["serve", "stop", "echo"])?;
    until_outcome("the port to close", || client(lab.remote(), None, to).is_err())?;
    exchange(&mut kept)
}

fn automatic_port_of_the_host_is_there_while_somebody_listens(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let mut inside = lab.pasta().configured().with(["-T", "auto"]).session()?;
    let loopback = SocketAddr::new(family.loopback(), 8000);
    let to = loopback.to_string();
    inside.ask(["tcp", "connect", &to])?.failure("ECONNREFUSED")?;
    let service = lab.host().tcp_at(loopback, service::echo)?;
    wait_for(&mut inside, &["tcp", "echo", &to, "1", "1000"])?;
    service.stop()?;
    wait::until("the port to close", || match inside.ask(["tcp", "connect", &to]) {
        Ok(reply) if reply.result.is_ok() => None,
        other => Some(other.map(drop)),
    })?
}

fn local_client_of_a_family_nobody_serves_is_joined_to_the_other(lab: &Lab) -> Outcome {
    let mut inside = serving(lab, Family::V4, 8000, &["-t", "8000"])?;
    talk(lab.host(), None, SocketAddr::new(Family::V6.loopback(), 8000))?;
    assert_eq!(peer(&mut inside, "echo")?.ip(), Family::V4.host());
    Ok(())
}

fn hundreds_of_connections_at_once_are_all_served(lab: &Lab) -> Outcome {
    const COUNT: usize = 400;
    let family = Family::V4;
    let mut inside = serving(lab, family, 8000, &["-t", "8000"])?;
    for (machine, address) in [(lab.remote(), family.host()), (lab.host(), family.loopback())] {
        let to = SocketAddr::new(address, 8000);
        let open: Result<Vec<_>, _> = (0..COUNT).map(|_| client(machine, None, to)).collect();
        let mut open = open?;
        for stream in &mut open {
            exchange(stream)?;
        }
        drop(open);
        for _ in 0..COUNT {
            peer(&mut inside, "echo")?;
        }
    }
    Ok(())
}

/// As many as the limit of descriptors allows: through the tap a connection takes one, spliced two.
fn thousands_of_connections_at_once_are_all_served(lab: &Lab) -> Outcome {
    // The test has one for each as well; its own limit is raised.
    let hard = process::raise_descriptors()?;
    let family = Family::V4;
    let _inside = serving(lab, family, 8000, &["-t", "8000"])?;
    let ways = [(lab.remote(), family.host(), 1), (lab.host(), family.loopback(), 2)];
    for (machine, address, each) in ways {
        let count = (hard.saturating_sub(1000) / each).min(10_000);
        let to = SocketAddr::new(address, 8000);
        let open: Result<Vec<_>, _> = (0..count).map(|_| client(machine, None, to)).collect();
        let mut open = open?;
        for stream in &mut open {
            exchange(stream)?;
        }
        drop(open);
        talk(machine, None, to)?;
    }
    Ok(())
}

fn connections_wait_for_descriptors_and_are_served_when_there_are_some(lab: &Lab) -> Outcome {
    const COUNT: usize = 400;
    let family = Family::V4;
    let pasta = lab.pasta().configured().with(["-t", "8000", "-u", "none"]).limited_to(600);
    let mut inside = pasta.session()?;
    inside.must(["serve", "tcp", "echo", &at(family.any(), 8000), "echo"])?;
    // Two descriptors for each: there are not enough for all.
    let to = SocketAddr::new(family.loopback(), 8000);
    let open: Result<Vec<_>, _> = (0..COUNT).map(|_| client(lab.host(), None, to)).collect();
    let mut open = open?;
    let waiting = open.split_off(COUNT / 2);
    for stream in &mut open {
        exchange(stream)?;
    }
    drop(open);
    for mut stream in waiting {
        exchange(&mut stream)?;
    }
    Ok(())
}

fn all_ports_of_the_namespace_leave_room_under_a_low_limit(lab: &Lab) -> Outcome {
    let family = Family::V4;
    let options = ["-T", "all", "-U", "all", "-t", "8000", "-u", "none"];
    let mut inside = lab.pasta().configured().with(options).limited_to(512).session()?;
    inside.must(["serve", "tcp", "echo", &at(family.any(), 8000), "echo"])?;
    for _ in 0..100 {
        talk(lab.remote(), None, SocketAddr::new(family.host(), 8000))?;
        talk(lab.host(), None, SocketAddr::new(family.loopback(), 8000))?;
    }
    let finished = inside.end(0)?;
    assert!(
        finished.errors.contains("limit of descriptors"),
        "not in the log: {}",
        finished.errors
    );
    Ok(())
}

fn clients_that_send_nothing_do_not_keep_others_waiting(lab: &Lab) -> Outcome {
    let family = Family::V4;
    let _inside = serving(lab, family, 8000, &["-t", "8000"])?;
    let to = SocketAddr::new(family.loopback(), 8000);
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(client(lab.host(), None, to)?);
    }
    talk(lab.host(), None, to)?;
    for stream in &silent {
        stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    }
    // They are all still open.
    let open = |stream: &mut TcpStream| matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    assert!(silent.iter_mut().all(open));
    Ok(())
}

fn all_ports_start_within_an_ordinary_limit_of_descriptors(lab: &Lab) -> Outcome {
    let family = Family::V4;
    let mut command = lab.pasta().configured().with(["-t", "all", "-u", "all"]);
    command = command.with(["-T", "none", "-U", "none"]);
    let mut inside = command.limited_to(4096).session()?;
    inside.must(["serve", "tcp", "echo", &at(family.any(), 1100), "echo"])?;
    talk(lab.remote(), None, SocketAddr::new(family.host(), 1100))?;
    let finished = inside.end(0)?;
    let lines: Vec<&str> =
        finished.errors.lines().filter(|line| line.contains("descriptors")).collect();
    assert!(lines.len() <= 2, "one line for each protocol: {lines:#?}");
    assert!(!lines.is_empty(), "not in the log: {}", finished.errors);
    Ok(())
}

fn s63_forwarded_port_survives_renumbering(lab: &Lab, family: Family) -> Outcome {
    let mut inside = serving(lab, family, 8000, &["-t", "8000", "-u", "8000"])?;
    inside.must(["serve", "udp", "datagrams", &at(family.any(), 8000)])?;
    talk(lab.remote(), None, SocketAddr::new(family.host(), 8000))?;
    let mut kept = client(lab.remote(), None, SocketAddr::new(family.host(), 8000))?;
    exchange(&mut kept)?;

    let new = match family {
        Family::V4 => IpAddr::from([192, 0, 2, 60]),
        Family::V6 => "2001:db8::60".parse()?,
    };
    lab.on_host(|netlink| {
        let uplink = netlink.link(tests::lab::UPLINK)?.index;
        let length = tests::lab::address::prefix_length(family);
        netlink.add_address(uplink, new, length)?;
        Ok(())
    })?;
    let to = SocketAddr::new(new, 8000);
    until_outcome("the new address", || talk(lab.remote(), None, to).is_ok())?;
    let asked = || ask_within(SOON, lab.remote(), family.internet(), to, b"x").is_ok();
    until_outcome("an answer of the new address", asked)?;
    exchange(&mut kept)
}

fn silent_services_are_reached_at_another_link_layer_address(lab: &Lab, family: Family) -> Outcome {
    // The services only answer: nothing that the namespace opens tells its link-layer address.
    let mut inside = serving(lab, family, 8000, &["-t", "8000", "-u", "8000"])?;
    inside.must(["serve", "udp", "datagrams", &at(family.host(), 8000)])?;
    let to = SocketAddr::new(family.host(), 8000);
    let mut kept = client(lab.remote(), None, to)?;
    exchange(&mut kept)?;
    let change = |last| {
        let octets = [2, 0, 0, 0, 0, last];
        move || Admin::open()?.set_mac(index_of(UPLINK)?, octets)
    };
    let namespace = Inside::of(&mut inside)?;
    // Each time the first that comes after the change has to find the way.
    namespace.run(change(0x97))?;
    talk(lab.remote(), None, to)?;
    namespace.run(change(0x98))?;
    let asked = || ask_within(SOON, lab.remote(), family.internet(), to, b"x").is_ok();
    until_outcome("an answer of the new link-layer address", asked)?;
    namespace.run(change(0x99))?;
    exchange(&mut kept)
}
