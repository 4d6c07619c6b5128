//! The cable is pulled and plugged in again while octets are on their way.

use std::io::Write;
use std::sync::mpsc;
use std::thread;

use super::*;
use tests::pattern::Pattern;

/// Octets of one transfer: long enough that some are on their way when the cable is pulled.
const LENGTH: usize = if cfg!(debug_assertions) { 64 << 20 } else { 1 << 30 };
const SEED: u64 = 11;

/// Takes the far end of the host's cable down or up, with the addresses that IPv6 loses by that.
fn plug(lab: &Lab, up: bool) -> Outcome {
    lab.on_remote(|netlink| {
        let link = netlink.link("uplink")?.index;
        netlink.set_up(link, up)?;
        for address in [Family::V6.gateway(), Family::V6.neighbour()] {
            // It may be there.
            let _ = netlink.add_address(link, address, 64);
        }
        Ok(())
    })
}

/// Pulls the cable, waits until that is noticed, and plugs it in again.
fn pull_and_plug(lab: &Lab, log: &dyn Fn() -> String) -> Outcome {
    plug(lab, false)?;
    wait::until("the hold", || log().contains(" held ").then_some(()))?;
    plug(lab, true)?;
    wait::until("the return", || log().contains("usable again").then_some(()))
}

pub(super) fn s19_a_download_outlives_a_pulled_cable(lab: &Lab, family: Family) -> Outcome {
    let (begun, wait_for_begin) = mpsc::channel::<()>();
    let server = lab.remote().tcp(family.internet(), move |stream| {
        let pattern = Pattern::new(SEED);
        let mut octets = vec![0; 1 << 20];
        for n in 0..LENGTH >> 20 {
            pattern.fill((n << 20) as u64, &mut octets);
            stream.write_all(&octets)?;
            if n == LENGTH >> 22 {
                // Without a receiver the test has failed already.
                let _ = begun.send(());
            }
        }
        Ok(String::new())
    })?;
    let mut watched = Watched::start(lab, &["-d", "--hold", "inf"])?;
    let log = watched.session.running().errors_so_far();
    let question = ["tcp", "fetch", &server.endpoint(), &SEED.to_string(), &LENGTH.to_string()]
        .map(str::to_owned);
    let session = &mut watched.session;
    let (changed, fetched) = thread::scope(|scope| {
        let fetch = scope.spawn(move || session.must(question).map(drop));
        let changed = wait_for_begin
            .recv_timeout(wait::PATIENCE)
            .map_err(Into::into)
            .and_then(|()| pull_and_plug(lab, &|| log.text()));
        (changed, fetch.join())
    });
    changed?;
    fetched.map_err(|_| "the download panicked")??;
    watched.reach(lab, family)
}

pub(super) fn s19_an_upload_outlives_a_pulled_cable(lab: &Lab, family: Family) -> Outcome {
    let (begun, wait_for_begin) = mpsc::channel::<()>();
    let server = lab.remote().tcp(family.internet(), move |stream| {
        // A part is read before, the rest after.
        let mut peeked = vec![0; 1 << 16];
        stream.peek(&mut peeked)?;
        let _ = begun.send(());
        service::sink(Pattern::new(SEED))(stream)
    })?;
    let mut watched = Watched::start(lab, &["-d", "--hold", "inf"])?;
    let log = watched.session.running().errors_so_far();
    let question = ["tcp", "send", &server.endpoint(), &SEED.to_string(), &LENGTH.to_string()]
        .map(str::to_owned);
    let session = &mut watched.session;
    let (changed, sent) = thread::scope(|scope| {
        let send = scope.spawn(move || session.must(question));
        let changed = wait_for_begin
            .recv_timeout(wait::PATIENCE)
            .map_err(Into::into)
            .and_then(|()| pull_and_plug(lab, &|| log.text()));
        (changed, send.join())
    });
    changed?;
    let verdict = sent.map_err(|_| "the upload panicked")??;
    assert!(verdict.contains(&format!("verified {LENGTH}")), "{verdict:?}");
    watched.reach(lab, family)
}
