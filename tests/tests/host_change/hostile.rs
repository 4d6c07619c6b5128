//! Messages to the monitor that are not from whom they seem to be, or should not be.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv, send};
use tests::client::packet::Random;
use tests::lab::DATAPATH;
use tests::lab::admin::forgery;

use super::*;

/// Number of the datapath's descriptor that leads to the monitor (`MONITOR` in its `main.rs`).
const TO_MONITOR: i32 = 4;

/// What answers to requests begin with: sockets, a listener, a refusal (`MonitorToDatapath`).
const ANSWERS: [u8; 3] = [3, 4, 5];

pub(super) fn s06_what_is_not_of_the_kernel_is_counted_and_changes_nothing(
    lab: &Lab,
    family: Family,
) -> Outcome {
    lab.needs_helpers()?;
    let mut watched = Watched::start(lab, &["-d", "--hold", "0"])?;
    watched.wait_for_default(family.gateway())?;
    let mut log = watched.inside.listen()?;
    let (own, forged) = ((family.host(), prefix_length(family)), renewed(family));

    let count = lab.host().run(|| {
        let [listener] = forgery::listeners()?[..] else { return Err("not one listener".into()) };
        let link = (index_of(UPLINK)?, UPLINK);
        Ok(forgery::tell_of_a_loss(listener, link, own, family.gateway(), forged)?)
    })?;

    // Something that shows when that has been dealt with.
    let mark = elsewhere(family);
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, mark, own.1))?;
    watched.wait_for_address(mark, true)?;
    let lines = log.lines()?;
    assert!(lines.iter().all(|it| it.contains(&format!("{mark}/"))), "{lines:#?}");
    watched.session.running().signal(Signal::SIGUSR1)?;
    let counted = format!(" bad {count},");
    wait::until(&counted, || watched.session.running().errors().contains(&counted).then_some(()))?;
    assert!(!watched.session.running().errors().contains("held"));
    watched.reach(lab, family)
}

/// Everything that a datapath could be after.
fn all_there_is(lab: &Lab, watched: &Watched) -> Outcome<(Vec<String>, Vec<String>)> {
    Ok((watched.inside.show()?, on_host(lab, Admin::show)?))
}

/// Takes over the datapath's end of its channel to the monitor; the datapath itself stands still.
fn take_over(datapath: &process::Process) -> Outcome<OwnedFd> {
    datapath.signal(Signal::SIGSTOP)?;
    datapath.descriptor(TO_MONITOR)
}

pub(super) fn s68_requests_of_a_datapath_that_was_taken_over_change_nothing(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let mut watched = Watched::start(lab, &[])?;
    watched.wait_for_default(Family::V4.gateway())?;
    watched.wait_for_default(Family::V6.gateway())?;
    watched.reach(lab, Family::V4)?;
    let before = all_there_is(lab, &watched)?;
    let mut log = watched.inside.listen()?;
    let datapath = process::only(DATAPATH)?;
    let channel = take_over(&datapath)?;

    // Requests as they should be, named 100 to 250: sockets of each kind, and listeners on ports that
    // are not to be had. There is room for so many answers as may be out.
    let mut answers = 0;
    for (n, name) in (100..=250_u8).enumerate() {
        let [kind, family] = [n as u8 & 1, (n >> 1) as u8 & 1];
        let request = if n % 3 == 0 {
            vec![2, name, kind, family, 22]
        } else {
            vec![1, name, kind, family, 1]
        };
        send(channel.as_raw_fd(), &request, MsgFlags::empty())?;
        wait::until("an answer", || {
            let mut octets = vec![0; 1 << 16];
            let length = recv(channel.as_raw_fd(), &mut octets, MsgFlags::empty()).ok()?;
            let answer = octets[..length].first().is_some_and(|it| ANSWERS.contains(it));
            answer.then(|| answers += 1)
        })?;
    }

    assert_eq!(answers, 151);
    assert_eq!(log.lines()?, [] as [String; 0]);
    assert_eq!(all_there_is(lab, &watched)?, before);
    // The monitor goes on with its work.
    let mark = elsewhere(Family::V4);
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, mark, 24))?;
    watched.wait_for_address(mark, true)
}

pub(super) fn s68_a_forged_message_ends_the_monitor_and_changes_nothing(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let mut random = Random::new(68);
    let mut noise = |length: usize| (0..length).map(|_| random.octet()).collect();
    let forged: Vec<Vec<u8>> = vec![
        // Hello once more, and one of another version.
        vec![0, 5],
        vec![0, 6],
        // A request with something behind it, of no kind, for no sockets and for too many.
        vec![1, 200, 0, 0, 1, 0],
        vec![1, 200, 0, 9, 1],
        vec![1, 200, 0, 0, 0],
        vec![1, 200, 0, 0, 33],
        // What others may say to it: to look, to end, to report.
        vec![3],
        vec![4],
        noise(1),
        noise(16),
        noise(4096),
    ];
    for octets in forged {
        let mut watched = Watched::start(lab, &[])?;
        watched.wait_for_default(Family::V4.gateway())?;
        let before = all_there_is(lab, &watched)?;
        let mut log = watched.inside.listen()?;
        let (datapath, monitor) = (process::only(DATAPATH)?, process::only(MONITOR)?);
        let channel = take_over(&datapath)?;

        send(channel.as_raw_fd(), &octets, MsgFlags::empty())?;

        monitor.wait_until_gone().map_err(|error| format!("{octets:?}: {error}"))?;
        assert_eq!(log.lines()?, [] as [String; 0], "{octets:?}");
        assert_eq!(all_there_is(lab, &watched)?, before, "{octets:?}");
        drop(channel);
        datapath.signal(Signal::SIGCONT)?;
        watched.reach(lab, Family::V4)?;
        watched.session.end(0)?.expect_code(0)?;
        process::wait_until_none_left()?;
    }
    Ok(())
}
