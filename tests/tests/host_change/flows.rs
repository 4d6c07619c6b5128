//! What becomes of flows when the host's network changes under them.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use super::*;
use tests::lab::service::Service;
use tests::pattern::Pattern;

/// Exchanges a datagram over the kept socket; one may be lost on the way.
pub(super) fn exchange_with_one_loss(session: &mut Session) -> Outcome {
    if session.ask(["udp", "exchange", "kept", "2000"])?.result.is_err() {
        let again = session.must(["udp", "exchange", "kept", "2000"]);
        return again
            .map(drop)
            .map_err(|error| format!("{error}: {}", session.running().errors()).into());
    }
    Ok(())
}

/// What shows that the namespace has moved away from its first template.
fn lingering(family: Family) -> String {
    format!("address {}/{} deprecated", family.host(), prefix_length(family))
}

/// Waits until `service` has received from `address`, after what it received before.
fn has_datagram_from(service: &Service, address: IpAddr) -> Outcome {
    wait::until(&format!("a datagram from {address}"), || {
        let report = service.try_report()?.ok()?;
        report.parse::<SocketAddr>().ok().filter(|peer| peer.ip() == address).map(drop)
    })
}

pub(super) fn s14_a_running_download_survives_the_move(lab: &Lab, family: Family) -> Outcome {
    worsen_first_default(lab, family)?;
    add_second_uplink(lab)?;
    let Watched { mut session, inside } = Watched::start(lab, &[])?;
    let (moved, wait_for_move) = mpsc::channel::<()>();
    let wait_for_move = std::sync::Mutex::new(wait_for_move);
    let (half, all) = (1_000_000, 2_000_000);
    let pattern = Pattern::new(7);
    let server = lab.remote().tcp(family.internet(), move |stream| {
        // The second half comes when the move is over.
        let octets = pattern.octets(all);
        std::io::Write::write_all(stream, &octets[..half])?;
        wait_for_move.lock().map_err(|_| "a broken lock")?.recv()?;
        std::io::Write::write_all(stream, &octets[half..])?;
        Ok(String::new())
    })?;
    let endpoint = server.endpoint();

    let (session, downloaded) = thread::scope(|scope| {
        let download = scope.spawn(move || {
            let length = all.to_string();
            let downloaded = session.must(["tcp", "fetch", &endpoint, "7", &length]);
            (session, downloaded.map(drop))
        });
        let changed = bring_second_online(lab, family, Some(100)).and_then(|()| {
            let (new, gateway, _) = second(family);
            let has = |start: &str| {
                let lines = inside.show().ok()?;
                lines.iter().any(|line| line.starts_with(start)).then_some(())
            };
            wait::until("the new address", || has(&format!("address {new}/")))?;
            wait::until("the new default", || has(&default_via(gateway)))
        });
        // Without a receiver the download has failed already.
        let _ = moved.send(());
        let done = download.join().map_err(|_| "the download panicked")?;
        changed.map(|()| done)
    })?;
    downloaded?;
    let mut watched = Watched { session, inside };
    watched.reach(lab, family)
}

pub(super) fn s61_while_held_new_flows_fail_at_once(lab: &Lab, family: Family) -> Outcome {
    let tcp = lab.remote().tcp(family.internet(), service::echo)?;
    let udp = lab.remote().udp_echo(family.internet())?;
    let mut watched = Watched::start(lab, &["-d", "--hold", "inf"])?;
    watched.reach(lab, family)?;

    go_offline(lab, &[family])?;
    wait::until("the hold", || {
        watched.session.running().errors().contains(" held ").then_some(())
    })?;

    // The time limit is far beyond "at once"; running into it is another error.
    let connected = watched.session.ask(["tcp", "connect-within", &tcp.endpoint(), "20000"])?;
    connected.failure("ENETUNREACH")?;
    watched.session.ask(["udp", "provoke", &udp.endpoint()])?.failure("ENETUNREACH")?;

    come_online(lab, family, Some(0))?;
    watched.reach(lab, family)
}

pub(super) fn s62_a_datagram_flow_goes_on_from_the_new_address(
    lab: &Lab,
    family: Family,
) -> Outcome {
    worsen_first_default(lab, family)?;
    add_second_uplink(lab)?;
    let mut watched = Watched::start(lab, &["-d"])?;
    let server = lab.remote().udp_echo(family.internet())?;
    watched.session.must(["udp", "open", "kept", &server.endpoint()])?;
    watched.session.must(["udp", "exchange", "kept", "20000"])?;
    has_datagram_from(&server, family.host())?;

    bring_second_online(lab, family, Some(100))?;
    watched.wait_for(&lingering(family), true)?;
    watched.session.must(["udp", "exchange", "kept", "20000"])?;
    go_offline(lab, &[family])?;

    exchange_with_one_loss(&mut watched.session)?;
    has_datagram_from(&server, second(family).0)?;
    Ok(())
}

pub(super) fn s62_an_echo_flow_goes_on_from_the_new_address(lab: &Lab, family: Family) -> Outcome {
    worsen_first_default(lab, family)?;
    add_second_uplink(lab)?;
    let mut watched = Watched::start(lab, &[])?;
    let to = family.internet().to_string();
    // All pings of one process have one identifier, and so are one flow.
    watched.session.must(["ping", &to, "1", "32", "20000"])?;

    bring_second_online(lab, family, Some(100))?;
    watched.wait_for(&lingering(family), true)?;
    go_offline(lab, &[family])?;

    if watched.session.ask(["ping", &to, "1", "32", "2000"])?.result.is_err() {
        watched.session.must(["ping", &to, "1", "32", "2000"])?;
    }
    Ok(())
}

pub(super) fn an_outbound_address_is_pinned_and_works_when_it_is_back(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let (second, len) = (family.host_second(), prefix_length(family));
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, second, len))?;
    let server = lab.remote().udp_echo(family.internet())?;
    let mut watched = Watched::start(lab, &["-o", &second.to_string()])?;
    watched.session.must(["udp", "open", "kept", &server.endpoint()])?;
    watched.session.must(["udp", "exchange", "kept", "20000"])?;
    has_datagram_from(&server, second)?;

    on_host(lab, |admin| admin.delete_address(index_of(UPLINK)?, second, len))?;
    watched.wait_for_address(second, false)?;
    let lost = watched.session.ask(["udp", "exchange", "kept", "300"])?;
    assert!(lost.result.is_err() && server.try_report().is_none(), "{lost:?}");
    watched.session.ask(["udp", "provoke", &server.endpoint()])?.failure("ENETUNREACH")?;
    let tcp = lab.remote().tcp(family.internet(), service::echo)?;
    let connected = watched.session.ask(["tcp", "connect-within", &tcp.endpoint(), "20000"])?;
    connected.failure("ENETUNREACH")?;

    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, second, len))?;
    watched.wait_for_address(second, true)?;
    exchange_with_one_loss(&mut watched.session)?;
    has_datagram_from(&server, second)?;
    Ok(())
}
