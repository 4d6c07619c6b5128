//! Automatic ports: a family that nobody listens for is refused, as it is where the service runs.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use tests::harness::{self, Case};
use tests::lab::admin::Inside;
use tests::lab::{Family, Lab, Session, wait};
use tests::{Outcome, case};

/// The namespace's service, and the host's.
const INSIDE: u16 = 8000;
const HOST: u16 = 9000;

/// How long a datagram that is refused may take to say so; chosen: many round trips of the lab.
const REFUSED_WITHIN: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, ports_are_open_for_the_family_of_the_service_alone),
        case!(families, loopback_services_of_one_family_open_no_port_of_the_other),
        case!(lab, service_of_both_families_is_reached_by_both),
        case!(families, family_that_comes_later_leaves_the_first_alone),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

const fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

/// Somebody who listens, for TCP and for UDP.
#[derive(Debug)]
#[expect(dead_code, reason = "held for as long as it listens")]
struct Service(TcpListener, UdpSocket);

impl Service {
    fn at(address: IpAddr, port: u16) -> Outcome<Self> {
        Ok(Self(TcpListener::bind((address, port))?, UdpSocket::bind((address, port))?))
    }
}

/// Whether connections to `to` are refused: neither accepted, nor reset, nor left without an answer.
fn tcp_is_refused(to: SocketAddr) -> bool {
    TcpStream::connect(to).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Whether datagrams to `to` are.
fn udp_is_refused(to: SocketAddr) -> bool {
    let from: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let asked = || {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(REFUSED_WITHIN))?;
        socket.send(b"anybody?")?;
        socket.recv(&mut [0])
    };
    asked().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// All clients of the services: of the namespace's, and of the host's.
struct Clients<'a> {
    lab: &'a Lab,
    inside: Inside,
}

impl<'a> Clients<'a> {
    fn new(lab: &'a Lab, session: &mut Session) -> Outcome<Self> {
        Ok(Self { lab, inside: Inside::of(session)? })
    }

    /// Which of TCP and UDP are refused: to the namespace's service from afar and from the host itself, and to
    /// the host's from the namespace.
    fn refused(&self, family: Family) -> Outcome<[[bool; 2]; 3]> {
        let both = |address, port| {
            let to = SocketAddr::new(address, port);
            move || Ok([tcp_is_refused(to), udp_is_refused(to)])
        };
        Ok([
            self.lab.remote().run(both(family.host(), INSIDE))?,
            self.lab.host().run(both(family.loopback(), INSIDE))?,
            self.inside.run(both(family.loopback(), HOST))?,
        ])
    }

    fn wait_until(&self, family: Family, refused: [[bool; 2]; 3]) -> Outcome {
        let mut last = None;
        let waited = wait::until("ports to open and to close", || {
            last = self.refused(family).ok();
            (last == Some(refused)).then_some(())
        });
        waited.map_err(|error| format!("{error}: {last:?} instead of {refused:?}").into())
    }
}

/// What neither of them refuses, and what both do.
const OPEN: [bool; 2] = [false; 2];
const CLOSED: [bool; 2] = [true; 2];

fn session(lab: &Lab, options: &[&str]) -> Outcome<Session> {
    let auto = ["-t", "auto", "-u", "auto", "-T", "auto", "-U", "auto"];
    lab.pasta().configured().with(auto).with(options).session()
}

fn ports_are_open_for_the_family_of_the_service_alone(lab: &Lab, family: Family) -> Outcome {
    let mut session = session(lab, &[])?;
    let clients = Clients::new(lab, &mut session)?;
    let _inside = clients.inside.run(|| Service::at(family.host(), INSIDE))?;
    let _host = lab.host().run(|| Service::at(family.loopback(), HOST))?;

    clients.wait_until(family, [OPEN; 3])?;

    assert_eq!(clients.refused(other(family))?, [CLOSED; 3]);
    Ok(())
}

fn loopback_services_of_one_family_open_no_port_of_the_other(lab: &Lab, family: Family) -> Outcome {
    let mut session = session(lab, &["--host-lo-to-ns-lo"])?;
    let clients = Clients::new(lab, &mut session)?;
    let _inside = clients.inside.run(|| Service::at(family.loopback(), INSIDE))?;

    let local = || lab.host().run(|| Ok(tcp_is_refused((family.loopback(), INSIDE).into())));
    wait::until("the port to open", || local().ok().filter(|refused| !refused))?;

    assert_eq!(clients.refused(other(family))?, [CLOSED; 3]);
    Ok(())
}

fn service_of_both_families_is_reached_by_both(lab: &Lab) -> Outcome {
    let mut session = session(lab, &[])?;
    let clients = Clients::new(lab, &mut session)?;
    // One socket for both.
    let _inside = clients.inside.run(|| Service::at(Family::V6.any(), INSIDE))?;
    let _host = lab.host().run(|| Service::at(Family::V6.any(), HOST))?;

    for family in [Family::V4, Family::V6] {
        clients.wait_until(family, [OPEN; 3])?;
    }
    Ok(())
}

fn family_that_comes_later_leaves_the_first_alone(lab: &Lab, family: Family) -> Outcome {
    let mut session = session(lab, &[])?;
    let clients = Clients::new(lab, &mut session)?;
    let first = clients.inside.run(|| Service::at(family.host(), INSIDE))?;
    let _host = lab.host().run(|| Service::at(family.loopback(), HOST))?;
    clients.wait_until(family, [OPEN; 3])?;

    let second = clients.inside.run(|| Service::at(other(family).host(), INSIDE))?;
    clients.wait_until(other(family), [OPEN, OPEN, CLOSED])?;
    assert_eq!(clients.refused(family)?, [OPEN; 3]);

    drop(first);
    clients.wait_until(family, [CLOSED, CLOSED, OPEN])?;
    assert_eq!(clients.refused(other(family))?, [OPEN, OPEN, CLOSED]);
    drop(second);
    clients.wait_until(other(family), [CLOSED; 3])
}
