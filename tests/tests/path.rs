//! The path to a server behind two routers, as programs of the namespace see it.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use tests::harness::{self, Case};
use tests::lab::admin::Inside;
use tests::lab::path::{Path, container_behind};
use tests::lab::service::{echo, source, verify_pattern};
use tests::lab::{Family, Lab, Session, wait};
use tests::pattern::Pattern;
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, each_router_is_shown_once_by_datagrams),
        case!(families, each_router_is_shown_once_by_echo_requests),
        case!(families, each_router_is_shown_once_by_connections),
        case!(families, mtu_of_the_path_is_learned_and_what_is_larger_arrives),
        case!(families, container_behind_a_smaller_mtu_gets_what_is_larger),
        case!(families, packet_that_arrives_is_answered_however_few_hops_it_had),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// Type and code of "time exceeded", and of "port unreachable".
const fn codes(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("11 0 0", "3 3 0"),
        Family::V6 => ("3 0 0", "1 4 0"),
    }
}

/// The two routers, as they are shown.
fn routers(family: Family) -> [String; 2] {
    let (exceeded, _) = codes(family);
    [family.neighbour(), family.between_routers().1].map(|router| format!("{router} {exceeded}"))
}

/// What a packet of this kind, and from this source port, is answered, with one hop more each time.
fn walk(inside: &mut Session, kind: &[&str], target: &str, hops: usize) -> Outcome<Vec<String>> {
    let (kind, rest) = kind.split_first().ok_or("no kind of packet")?;
    let mut shown = Vec::new();
    for hops in 1..=hops {
        let hops = hops.to_string();
        shown.append(&mut inside.must([&["path", kind, target, &hops], rest].concat())?);
    }
    Ok(shown)
}

fn each_router_is_shown_once_by_datagrams(lab: &Lab, family: Family) -> Outcome {
    let path = Path::build(lab)?;
    let closed = path.far.closed_port(family.far())?;
    let target = SocketAddr::new(family.far(), closed).to_string();
    // A socket for each flow, and one that flows share.
    for options in [["-u", "none"], ["-u", "6060"]] {
        let mut inside = lab.pasta().configured().with(options).session()?;
        let [first, second] = routers(family);
        let last = format!("{} {}", family.far(), codes(family).1);
        assert_eq!(
            walk(&mut inside, &["udp", "56", "6060"], &target, 3)?,
            [first, second, last],
            "{options:?}"
        );
        inside.end(0)?;
    }
    Ok(())
}

fn each_router_is_shown_once_by_echo_requests(lab: &Lab, family: Family) -> Outcome {
    let _path = Path::build(lab)?;
    let mut inside = lab.session()?;
    let [first, second] = routers(family);
    let shown = walk(&mut inside, &["ping"], &family.far().to_string(), 3)?;
    assert_eq!(shown, [first, second, "answered".to_owned()]);
    Ok(())
}

fn each_router_is_shown_once_by_connections(lab: &Lab, family: Family) -> Outcome {
    let path = Path::build(lab)?;
    let service = path.far.tcp(family.far(), echo)?;
    let mut inside = lab.session()?;
    let [first, second] = routers(family);
    let shown = walk(&mut inside, &["tcp"], &service.endpoint(), 3)?;
    assert_eq!(shown, [first, second, "answered".to_owned()]);
    Ok(())
}

/// A router says what the last link carries; then the namespace cuts what is larger, and it arrives.
fn mtu_of_the_path_is_learned_and_what_is_larger_arrives(lab: &Lab, family: Family) -> Outcome {
    let path = Path::build(lab)?;
    path.limit_last_link(1400)?;
    let echo = path.far.udp_echo(family.far())?;
    let (router, us) = (family.between_routers().1, family.gateway());
    let expected = match family {
        Family::V4 => "3 4 1400",
        Family::V6 => "2 0 1400",
    };
    // As large as the first link carries, also where the tap carries more.
    let size = (1500 - family.udp_overhead()).to_string();
    let mut learned = false;
    for options in [["--mtu", "1500", "-u", "none"], ["--mtu", "65520", "-u", "6060"]] {
        for (kind, target) in [("udp", echo.endpoint()), ("ping", family.far().to_string())] {
            let mut inside = lab.pasta().configured().with(options).session()?;
            // The source port with which flows share a socket, where they do.
            let port: &[&str] = if kind == "udp" { &["6060"] } else { &[] };
            let question = [&["path", kind, &target, "64", &size][..], port].concat();
            // The host learns it, too: from then on the namespace learns it from us.
            let said = inside.must(&question)?;
            let says = |who: IpAddr| said == [format!("{who} {expected}")];
            assert!(says(router) || says(us) && learned, "{options:?} {kind}: {said:?}");
            learned = true;
            assert_eq!(inside.must(&question)?, ["answered"], "{options:?} {kind}");
            inside.end(0)?;
        }
    }
    Ok(())
}

/// The namespace's own router says what its link to the container carries, and what comes from outside fits it.
fn container_behind_a_smaller_mtu_gets_what_is_larger(lab: &Lab, family: Family) -> Outcome {
    const OCTETS: u64 = 1 << 20;
    let pattern = Pattern::new(OCTETS);
    let stream = lab.remote().tcp(family.internet(), source(pattern, OCTETS))?;
    let answer = |socket: &UdpSocket, peer: SocketAddr, _: &[u8]| -> Outcome<String> {
        socket.send_to(&[7; 4000], peer)?;
        Ok(peer.to_string())
    };
    let datagrams = lab.remote().udp_at(SocketAddr::new(family.internet(), 0), answer)?;
    let (stream, datagrams): (SocketAddr, SocketAddr) =
        (stream.endpoint().parse()?, datagrams.endpoint().parse()?);
    let mut session = lab.session()?;
    let container = container_behind(&Inside::of(&mut session)?, 1300)?;
    container.run(|| {
        let mut connection = TcpStream::connect(stream)?;
        assert_eq!(verify_pattern(&mut connection, pattern)?, OCTETS);
        let socket = UdpSocket::bind((family.any(), 0))?;
        socket.connect(datagrams)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        // The first one is what the router learns us by, where it may not cut it.
        let octets = wait::until("an answer", || {
            let mut octets = [0; 5000];
            socket.send(b"anybody?").ok()?;
            socket.recv(&mut octets).ok()
        })?;
        assert_eq!(octets, 4000);
        Ok(())
    })?;
    session.end(0)?;
    Ok(())
}

fn packet_that_arrives_is_answered_however_few_hops_it_had(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.session()?;
    let neighbour: IpAddr = family.neighbour();
    let shown = walk(&mut inside, &["ping"], &neighbour.to_string(), 1)?;
    assert_eq!(shown, ["answered"]);
    Ok(())
}
