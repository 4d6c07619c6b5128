//! Answers that are large, late, or errors.

use std::sync::mpsc;

use std::net::SocketAddr;

use tests::Outcome;
use tests::lab::{Family, Lab, address, service, wait};

use super::{forwarding, names, replace, server};

/// One that two datagrams of the tap's MTU do not hold: EDNS allows it (RFC 6891, section 6.2.5).
const LARGE: &str = "4000";

pub(super) fn a_large_answer_passes_in_fragments(lab: &Lab, family: Family) -> Outcome {
    let server = server(lab, family.internet())?;
    lab.write_resolv_conf(&names(family.internet()))?;
    let (mut inside, at) = forwarding(lab, family, &["-m", "1280"])?;

    inside.must(["udp", "echo", &at, LARGE])?;

    server.next_report()?;
    Ok(())
}

pub(super) fn the_next_server_is_asked_by_tcp_after_a_refusal(
    lab: &Lab,
    family: Family,
) -> Outcome {
    // Nobody listens at the first one.
    let (closed, open) = (family.internet(), family.internet_second());
    let server = lab.remote().tcp_at(SocketAddr::new(open, 53), service::echo)?;
    lab.write_resolv_conf(&[closed, open].map(|it| format!("nameserver {it}\n")).concat())?;
    let (mut inside, at) = forwarding(lab, family, &[])?;

    inside.ask(["tcp", "echo", &at, "7", "1000"])?.failure("ECONNREFUSED")?;

    inside.must(["tcp", "echo", &at, "7", "1000"])?;
    server.next_report()?;
    Ok(())
}

pub(super) fn a_query_under_way_is_answered_though_the_list_has_changed(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let (first, second) = (family.internet(), family.internet_second());
    let (arrived, arrival) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    lab.remote().udp_at(SocketAddr::new(first, 53), move |socket, peer, query| {
        arrived.send(())?;
        released.recv()?;
        service::udp_echo(socket, peer, query)
    })?;
    let silent =
        lab.remote().udp_at(SocketAddr::new(second, 53), |_, peer, _| Ok(peer.to_string()))?;
    lab.write_resolv_conf(&names(first))?;
    let (mut inside, at) = forwarding(lab, family, &[])?;
    inside.must(["udp", "hold", "kept", &address::endpoint(family.host(), 0)])?;
    inside.must(["udp", "send", "kept", &at])?;
    arrival.recv_timeout(wait::PATIENCE)?;

    replace(&names(second))?;
    wait::until("a query at the new server", || {
        inside.must(["udp", "send", "kept", &at]).ok()?;
        (!silent.was_left_alone()).then_some(())
    })?;
    release.send(())?;

    let from = inside.must(["udp", "next", "kept"])?;
    assert_eq!(from, [at]);
    Ok(())
}
