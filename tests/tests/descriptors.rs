//! Few descriptors (`ulimit -Hn`): what runs goes on, and what is new is served whenever there are some.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use tests::harness::{self, Case};
use tests::lab::{Family, Lab, Machine, Session, service, wait};
use tests::{Outcome, case};

/// Limits of a low kind: below the usual 1024, and so low that sockets held ahead would be all of them.
const LIMITS: [u64; 3] = [64, 80, 128];

const PORT: u16 = 8000;

/// How soon a connection is served after others have gone: no time-out has to pass for it.
const SOON: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, sockets_held_ahead_leave_everything_new_its_descriptors),
        case!(lab, refusals_end_with_the_load),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

fn session(lab: &Lab, limit: u64) -> Outcome<Session> {
    let port = PORT.to_string();
    let options = ["-t", &port, "-u", &port, "-T", "9000", "-U", "9000"];
    let mut inside = lab.pasta().configured().with(options).limited_to(limit).session()?;
    for family in [Family::V4, Family::V6] {
        let at = SocketAddr::new(family.host(), PORT).to_string();
        inside.must(["serve", "tcp", &format!("tcp-{family:?}"), &at, "echo"])?;
        inside.must(["serve", "udp", &format!("udp-{family:?}"), &at])?;
    }
    Ok(inside)
}

fn connect(machine: &Machine, to: IpAddr) -> Outcome<TcpStream> {
    machine.run(|| {
        let stream = TcpStream::connect((to, PORT))?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(stream)
    })
}

/// A conversation to its end.
fn talk(mut stream: TcpStream) -> Outcome {
    stream.write_all(b"anybody?")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer == b"anybody?" { Ok(()) } else { Err(format!("answer {answer:?}").into()) }
}

/// A datagram there and back.
fn ask(machine: &Machine, from: IpAddr, to: IpAddr) -> Outcome {
    machine.run(|| {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect((to, PORT))?;
        socket.set_read_timeout(Some(SOON))?;
        socket.send(b"anybody?")?;
        let mut answer = [0; 9];
        let len = socket.recv(&mut answer)?;
        if answer.get(..len) == Some(b"anybody?") { Ok(()) } else { Err("other octets".into()) }
    })
}

/// Everything that takes a socket, once: both families, both directions, through the tap and spliced.
fn everything(lab: &Lab, inside: &mut Session, services: &[service::Service]) -> Outcome {
    for family in [Family::V4, Family::V6] {
        talk(connect(lab.host(), family.loopback())?)?;
        ask(lab.host(), family.loopback(), family.loopback())?;
        talk(connect(lab.remote(), family.host())?)?;
        ask(lab.remote(), family.internet(), family.host())?;
    }
    for service in services {
        inside.must(["tcp", "echo", &service.endpoint(), "1", "1000"])?;
    }
    Ok(())
}

/// Services that the namespace connects to: on the internet, and on the host's loopback.
fn services(lab: &Lab) -> Outcome<Vec<service::Service>> {
    let mut services = Vec::new();
    for family in [Family::V4, Family::V6] {
        services.push(lab.remote().tcp(family.internet(), service::echo)?);
        services.push(lab.host().tcp_at(SocketAddr::new(family.loopback(), 9000), service::echo)?);
    }
    Ok(services)
}

fn sockets_held_ahead_leave_everything_new_its_descriptors(lab: &Lab) -> Outcome {
    for limit in LIMITS {
        let services = services(lab)?;
        let mut inside = session(lab, limit)?;
        // The first time of each kind has a stock of sockets filled.
        for round in 0..3 {
            everything(lab, &mut inside, &services)
                .map_err(|error| format!("limit {limit}, round {round}: {error}"))?;
        }
        // There are descriptors for as many connections as a third of them.
        let echo = &services.first().ok_or("no service")?.endpoint();
        let names: Vec<String> = (0..limit / 3).map(|n| format!("c{n}")).collect();
        for name in &names {
            inside.must(["tcp", "open", name, echo]).map_err(|e| format!("limit {limit}: {e}"))?;
        }
        for name in &names {
            inside.must(["tcp", "exchange", name, "1", "1000"])?;
            inside.must(["tcp", "drop", name])?;
        }
        services.iter().try_for_each(service::Service::stop)?;
        inside.end(0)?.expect_code(0)?;
    }
    Ok(())
}

fn refusals_end_with_the_load(lab: &Lab) -> Outcome {
    for limit in LIMITS {
        let services = services(lab)?;
        let mut inside = session(lab, limit)?;
        let remote = services.first().ok_or("no service")?;
        inside.must(["tcp", "open", "kept", &remote.endpoint()])?;

        // More than there can be, of every kind; some are refused, some wait.
        let mut open = Vec::new();
        for n in 0..limit {
            let opened = inside.ask(["tcp", "open", &format!("c{n}"), &remote.endpoint()])?;
            if opened.result.is_err() {
                break;
            }
        }
        // The namespace's programs have the same limit, and its services need descriptors too.
        for n in 0..limit {
            // Not all were opened.
            inside.ask(["tcp", "drop", &format!("c{n}")])?;
        }
        // What the namespace has of the other half goes back when that is needed, first what is idle longest.
        inside.must(["tcp", "exchange", "kept", "1", "100000"])?;
        for family in [Family::V4, Family::V6] {
            for _ in 0..limit / 2 {
                open.push(connect(lab.host(), family.loopback())?);
                open.push(connect(lab.remote(), family.host())?);
            }
        }
        inside.must(["tcp", "exchange", "kept", "1", "100000"])?;
        drop(open);

        for family in [Family::V4, Family::V6] {
            let local = || talk(connect(lab.host(), family.loopback())?);
            wait::until_within(SOON, "a local client", || local().ok())?;
            let far = || talk(connect(lab.remote(), family.host())?);
            wait::until_within(SOON, "a remote client", || far().ok())?;
        }
        wait::until_within(SOON, "a connection of the namespace", || {
            inside.must(["tcp", "open", "new", &remote.endpoint()]).ok()
        })?;
        // From now on nothing is refused.
        for _ in 0..3 {
            everything(lab, &mut inside, &services).map_err(|e| format!("limit {limit}: {e}"))?;
        }
        inside.must(["tcp", "exchange", "kept", "1", "100000"])?;
        services.iter().try_for_each(service::Service::stop)?;
        inside.end(0)?.expect_code(0)?;
    }
    Ok(())
}
