//! An ancestor that never waits, as process 1 of many containers: what we leave to it stays.

use std::fs;
use std::process::Command;

use tests::lab::pasta::{Running, contained_session};
use tests::lab::process::Process;
use tests::lab::{DATAPATH, Lab, MONITOR, process, wait};
use tests::{Outcome, sys};

/// Names of the processes that have ended and that nobody has waited for, in order.
fn zombies() -> Outcome<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // It may be gone by now.
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
            continue;
        };
        if status.contains("State:\tZ") {
            let name = status.lines().next().and_then(|line| line.strip_prefix("Name:\t"));
            names.push(name.ok_or("no name")?.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Starts `command` below a process that becomes the parent of every orphan and waits for none.
fn start_below_a_process_that_never_waits(command: &Command) -> Outcome<Running> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "\"$@\" & exec sleep 600", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    sys::become_subreaper(&mut shell);
    Running::start(shell)
}

/// Waits until nothing runs but the process that never waits: all others have ended, and been waited for
/// or not.
fn wait_until_alone(dumb: &Running) -> Outcome {
    let others = |it: &Process| it.pid != dumb.pid();
    wait::until("the end of pasta", || (!process::all().ok()?.iter().any(others)).then_some(()))
}

pub(crate) fn nothing_is_left_for_an_ancestor_that_does_not_reap(lab: &Lab) -> Outcome {
    for pids in [None, Some("--no-pidns")] {
        for (what, words) in [
            ("COMMAND ends", ["--config-net", "-q"]),
            ("the start fails", ["-a", "192.0.2.99/99"]),
            ("the start fails late", ["-I", "lo"]),
        ] {
            let pasta = lab.pasta().as_root().with(pids).with(words);
            // What COMMAND leaves behind is process 1's of its namespace, or ours.
            let command = pasta.command(["sh", "-c", "lab-client orphan; true"]);
            let mut dumb = start_below_a_process_that_never_waits(&command)?;
            wait::until("the end of pasta itself", || {
                zombies().ok()?.contains(&"pasta".to_owned()).then_some(())
            })
            .map_err(|error| format!("{what}: {error}: {}", dumb.errors()))?;
            wait_until_alone(&dumb)?;
            // Its parent is that process, which would have to wait for it without us too.
            assert_eq!(zombies()?, ["pasta"], "{what}: {}", dumb.errors());
            dumb.signal(nix::sys::signal::Signal::SIGKILL)?;
            dumb.wait()?;
            process::wait_until_none_left()?;
        }
    }
    Ok(())
}

pub(crate) fn nothing_is_left_for_an_ancestor_that_does_not_reap_when_attached(
    lab: &Lab,
) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = inside.running().pid().to_string();
    let pasta = lab.pasta().as_root().configured().with(["-q", &id]);
    let command = pasta.command(std::iter::empty::<&str>());
    let mut dumb = start_below_a_process_that_never_waits(&command)?;
    // The process that the caller has started ends when all is ready.
    wait::until("the end of the caller's process", || {
        process::only(MONITOR).ok()?;
        process::only(DATAPATH).ok()?;
        (zombies().ok()? == ["pasta"]).then_some(())
    })?;

    inside.end(0)?;

    wait_until_alone(&dumb)?;
    // The supervisor is an orphan, since it is in the background.
    assert_eq!(zombies()?, ["pasta", "pasta"]);
    dumb.signal(nix::sys::signal::Signal::SIGKILL)?;
    dumb.wait()?;
    Ok(())
}
