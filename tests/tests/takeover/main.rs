//! What a helper achieves that somebody has taken over: nothing outside its own part.

#[cfg(target_arch = "x86_64")]
mod netlink;

use std::fs;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
use netlink::{
    monitor_of_the_machines_user_namespace_changes_nothing_of_the_host,
    monitor_with_other_code_in_it_changes_nothing_of_the_host,
};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, UnixAddr, bind, send};
use pasta_ipc::channel::{Channel, SendError};
use pasta_ipc::message::Message;
use pasta_ipc::types::{LogLevel, LogRecord, Text};
use pasta_ipc::{
    DatapathToSupervisor, MonitorToSupervisor, SupervisorToDatapath, SupervisorToMonitor,
};
use tests::harness::{self, Case};
use tests::lab::process::{self, Process};
use tests::lab::wait::PATIENCE;
use tests::lab::{DATAPATH, Lab, MONITOR};
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, lines_of_the_monitor_without_end_cost_little_and_end_it),
        case!(lab, lines_of_the_datapath_without_end_cost_little_and_end_it),
        case!(lab, lines_that_nobody_asked_for_end_both_helpers),
        case!(lab, garbage_on_any_channel_ends_both_helpers_or_who_receives_it),
        case!(lab, channels_of_the_helpers_take_no_name_of_the_host),
        case!(lab, memory_of_the_helpers_has_a_limit),
        #[cfg(target_arch = "x86_64")]
        case!(lab, monitor_with_other_code_in_it_changes_nothing_of_the_host),
        #[cfg(target_arch = "x86_64")]
        case!(lab, monitor_of_the_machines_user_namespace_changes_nothing_of_the_host),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// The channel to the supervisor (start-up protocol).
const SUPERVISOR: i32 = 3;

/// What the supervisor may spend on a helper that floods it: 5 percent of a processor, in a build with
/// debug assertions, and what comes at once.
fn allowance(time: Duration) -> Duration {
    time / 20 + Duration::from_millis(500)
}

/// A line of the log.
fn line(level: LogLevel) -> LogRecord {
    LogRecord {
        level,
        text: Text::truncated("the same again and again, as long as a line may well be"),
    }
}

/// Sends `message` as `helper`, as often as there is room, until the supervisor has had enough of it.
fn flood<Out: Message, In: Message>(lab: &Lab, helper: &str, message: &Out) -> Outcome {
    lab.needs_helpers()?;
    let mut inside = lab.session()?;
    let supervisor = Process::read(inside.running().pid()).ok_or("no supervisor")?;
    let victim = process::only(helper)?;
    let channel = Channel::<Out, In>::from(victim.descriptor(SUPERVISOR)?);
    let (begin, before) = (Instant::now(), supervisor.processor_time()?);
    let memory = supervisor.memory()?;
    let mut most = memory;
    while victim.runs() {
        match channel.send(message) {
            Ok(()) => {}
            Err(SendError::WouldBlock) => most = most.max(supervisor.memory()?),
            Err(SendError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("{helper} may say what it likes for {PATIENCE:?}").into());
        }
    }
    let (time, spent) = (begin.elapsed(), supervisor.processor_time()? - before);
    assert!(u128::from(spent) < allowance(time).as_nanos(), "{spent} ns of {time:?}");
    assert!(most - memory < 4 << 20, "{} octets more", most - memory);
    victim.wait_until_gone()?;
    // COMMAND goes on, and the reason is in the log.
    inside.must(["identity"])?;
    let finished = inside.end(7)?.expect_code(7)?;
    let reason = format!("{helper}: sends messages without end");
    assert!(finished.errors.contains(&reason), "{:?}", finished.errors.lines().last());
    process::wait_until_none_left()
}

fn lines_of_the_monitor_without_end_cost_little_and_end_it(lab: &Lab) -> Outcome {
    let message = MonitorToSupervisor::Log(line(LogLevel::Warn));
    flood::<MonitorToSupervisor, SupervisorToMonitor>(lab, MONITOR, &message)
}

fn lines_of_the_datapath_without_end_cost_little_and_end_it(lab: &Lab) -> Outcome {
    let message = DatapathToSupervisor::Statistics(Text::truncated("flows 1"));
    flood::<DatapathToSupervisor, SupervisorToDatapath>(lab, DATAPATH, &message)
}

/// What is no message: nothing that there is, one with more behind it, and what is longer than any.
fn garbage() -> [Vec<u8>; 4] {
    [vec![250], vec![0, 0, 0, 0, 0], vec![0xff; 512], vec![3; 20_000]]
}

fn garbage_on_any_channel_ends_both_helpers_or_who_receives_it(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    // From whom, over which of its channels, and who is ended by it.
    let ways: [(&str, i32, &[&str]); 4] = [
        (MONITOR, SUPERVISOR, &[MONITOR, DATAPATH]),
        (DATAPATH, SUPERVISOR, &[MONITOR, DATAPATH]),
        (MONITOR, SUPERVISOR + 1, &[DATAPATH]),
        (DATAPATH, SUPERVISOR + 1, &[MONITOR]),
    ];
    for (from, number, ended) in ways {
        for octets in garbage() {
            let what = format!("{} octets of {from} on {number}", octets.len());
            let mut inside = lab.session()?;
            let sender = process::only(from)?;
            let victims = ended.iter().map(|it| process::only(it)).collect::<Outcome<Vec<_>>>()?;
            let channel = sender.descriptor(number)?;
            sender.signal(Signal::SIGSTOP)?;
            send(channel.as_raw_fd(), &octets, MsgFlags::MSG_DONTWAIT)
                .map_err(|error| format!("{what}: {error}"))?;
            // It may have been ended by now.
            let _ = sender.signal(Signal::SIGCONT);
            for victim in &victims {
                victim.wait_until_gone().map_err(|error| format!("{what}: {error}"))?;
            }
            // COMMAND goes on, and keeps its status.
            inside.must(["identity"])?;
            drop(channel);
            let finished = inside.end(7)?.expect_code(7)?;
            assert!(finished.errors.contains("pasta-"), "{what}: {finished:?}");
            process::wait_until_none_left()?;
        }
    }
    Ok(())
}

fn channels_of_the_helpers_take_no_name_of_the_host(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let inside = lab.session()?;
    for helper in [MONITOR, DATAPATH] {
        let process = process::only(helper)?;
        for number in [SUPERVISOR, SUPERVISOR + 1] {
            let channel = process.descriptor(number)?;
            let name = UnixAddr::new_abstract(b"pasta/test/somebody's name")?;
            let bound = bind(channel.as_raw_fd(), &name);
            assert_eq!(bound, Err(nix::Error::EINVAL), "{helper}, descriptor {number}");
        }
    }
    inside.end(0)?.expect_code(0)?;
    Ok(())
}

fn memory_of_the_helpers_has_a_limit(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let inside = lab.session()?;
    for (helper, limit) in [(MONITOR, 2_u64 << 30), (DATAPATH, 8 << 30)] {
        let limits = fs::read_to_string(format!("/proc/{}/limits", process::only(helper)?.pid))?;
        let line = limits.lines().find(|line| line.starts_with("Max address space"));
        let words: Vec<_> = line.ok_or("no limit")?.split_whitespace().collect();
        let limit = limit.to_string();
        assert_eq!(words[3..5], [&*limit, &*limit], "{helper}");
    }
    inside.end(0)?.expect_code(0)?;
    Ok(())
}

fn lines_that_nobody_asked_for_end_both_helpers(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let inside = lab.session()?;
    let datapath = process::only(DATAPATH)?;
    let monitor = process::only(MONITOR)?;
    let channel = Channel::<DatapathToSupervisor, SupervisorToDatapath>::from(
        datapath.descriptor(SUPERVISOR)?,
    );
    channel.send(&DatapathToSupervisor::Log(line(LogLevel::Debug)))?;
    datapath.wait_until_gone()?;
    monitor.wait_until_gone()?;
    let finished = inside.end(7)?.expect_code(7)?;
    assert!(finished.errors.contains("lines that nobody asked for"), "{finished:?}");
    Ok(())
}
