//! A stub resolver on the host's loopback, as systemd-resolved: with default options its address in
//! `/etc/resolv.conf` works in the namespace as it is, by `-T auto` and `-U auto`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tests::lab::pasta::contained_session;
use tests::lab::service::{self, Service};
use tests::lab::{Lab, Session, wait};
use tests::{Outcome, lab::address};

use super::{names, reaches, replace, server};

/// The address of systemd-resolved.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// The resolver of the host, over UDP and TCP.
struct Stub {
    udp: Service,
    tcp: Service,
}

impl Stub {
    fn start(lab: &Lab) -> Outcome<Self> {
        let at = SocketAddr::new(STUB, 53);
        let udp = lab.host().udp_at(at, service::udp_echo)?;
        Ok(Self { udp, tcp: lab.host().tcp_at(at, service::echo)? })
    }
}

fn at_stub() -> String {
    address::endpoint(STUB, 53)
}

/// One query each way, answered at once.
fn asks(inside: &mut Session, stub: &Stub) -> Outcome {
    inside.must(["udp", "echo", &at_stub(), "64"])?;
    stub.udp.next_report()?;
    inside.must(["tcp", "echo", &at_stub(), "1", "100"])?;
    stub.tcp.next_peer()?;
    Ok(())
}

pub(crate) fn names_resolve_at_the_stub_of_the_host_from_the_start(lab: &Lab) -> Outcome {
    lab.write_resolv_conf(&names(STUB))?;
    let stub = Stub::start(lab)?;
    for _ in 0..10 {
        for options in [vec![], vec!["--config-net"], vec!["--config-net", "-4"]] {
            let pasta = lab.pasta().with(options);
            // The very first thing that COMMAND does.
            pasta.run(["lab-client", "udp", "echo", &at_stub(), "64"])?.expect_code(0)?;
            pasta.run(["lab-client", "tcp", "echo", &at_stub(), "1", "100"])?.expect_code(0)?;
        }
    }
    asks(&mut lab.session()?, &stub)
}

pub(crate) fn names_resolve_at_the_stub_of_the_host_when_attached(lab: &Lab) -> Outcome {
    lab.write_resolv_conf(&names(STUB))?;
    let stub = Stub::start(lab)?;
    for _ in 0..10 {
        let mut inside = contained_session(lab)?;
        let id = inside.running().pid().to_string();
        let file = "/tmp/stub.pid";
        lab.pasta().configured().attach(["-q", "-P", file, &id])?.expect_code(0)?;
        asks(&mut inside, &stub)?;
        inside.end(0)?;
    }
    Ok(())
}

pub(crate) fn stub_that_is_started_later_is_found(lab: &Lab) -> Outcome {
    lab.write_resolv_conf(&names(STUB))?;
    let mut inside = lab.session()?;
    assert!(inside.ask(["tcp", "connect-within", &at_stub(), "1000"])?.result.is_err());
    let _stub = Stub::start(lab)?;
    let found = |inside: &mut Session| {
        wait::until("an answer of the stub", || {
            inside.ask(["udp", "echo", &at_stub(), "64"]).ok()?.result.ok()?;
            inside.ask(["tcp", "echo", &at_stub(), "1", "100"]).ok()?.result.ok()
        })
    };
    found(&mut inside)
}

pub(crate) fn host_moves_from_the_stub_to_a_server_and_back(lab: &Lab) -> Outcome {
    let family = tests::lab::Family::V4;
    let stub = Stub::start(lab)?;
    let remote = server(lab, family.internet())?;
    lab.write_resolv_conf(&names(STUB))?;
    let mut inside = lab.session()?;
    let at_gateway = address::endpoint(family.gateway(), 53);
    for _ in 0..2 {
        // Both by its own address, as a file that is shared says, and by that of the gateway.
        asks(&mut inside, &stub).map_err(|error| format!("before: {error}"))?;
        reaches(&mut inside, &at_gateway, &stub.udp)?;

        replace(&names(family.internet()))?;
        reaches(&mut inside, &address::endpoint(family.internet(), 53), &remote)?;
        // Who has not noticed the change is answered still.
        asks(&mut inside, &stub)?;

        replace(&names(STUB))?;
    }
    Ok(())
}
