//! Whoever traces a helper gets nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv};
use std::io::Read;
use std::os::fd::AsRawFd;
use tests::harness::{self, Case};
use tests::lab::pasta::{Running, bare_command};
use tests::lab::process::{self, Process};
use tests::lab::stages::Stages;
use tests::lab::tracer::Tracer;
use tests::lab::{DATAPATH, Lab, MONITOR, Pasta, Skip, USER};
use tests::sys::HeldCall;
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, helper_that_is_traced_does_not_start),
        case!(lab, helper_gets_nothing_before_it_has_hardened_itself),
        case!(lab, power_is_given_up_in_order_and_the_filter_comes_last),
        case!(lab, helpers_are_out_of_reach_at_every_stage_of_the_start),
        case!(lab, root_of_the_namespace_gets_nothing_of_any_process),
        case!(lab, helper_whose_file_is_not_readable_is_out_of_reach_from_exec_on),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

fn helper_that_is_traced_does_not_start(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let tracer = std::process::id();
    let pasta = lab.pasta().configured().command(["lab-client", "exit", "0"]);
    let (ended, errors) = Tracer::start(pasta, None)?.finish()?;
    assert_eq!(ended.code(), Some(1), "{errors}");
    assert!(errors.contains(&format!("process {tracer} traces it")), "{errors}");
    Ok(())
}

/// Where a call of `calls` was made, which is made once.
fn place(calls: &[HeldCall], wanted: impl Fn(&HeldCall) -> bool) -> Outcome<usize> {
    calls.iter().position(wanted).ok_or_else(|| format!("not made: {calls:?}").into())
}

fn is_prctl(held: &HeldCall, option: libc::c_int) -> bool {
    held.call == libc::SYS_prctl && held.arguments[0] == option as u64
}

/// The start whose order is looked at.
fn start(pasta: Pasta<'_>) -> Outcome<Stages> {
    Stages::start(pasta.configured().command(["lab-client", "exit", "0"]))
}

fn power_is_given_up_in_order_and_the_filter_comes_last(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    lab.needs_root()?;
    for pasta in [lab.pasta(), lab.pasta().as_root()] {
        let mut calls: BTreeMap<String, Vec<HeldCall>> = BTreeMap::new();
        // The program that a process becomes is known only after that.
        let mut becoming: BTreeMap<i32, HeldCall> = BTreeMap::new();
        let ended = start(pasta)?.each(|process, held| {
            if held.call == libc::SYS_execveat {
                becoming.insert(held.pid, held);
                return Ok(());
            }
            let of_program = calls.entry(process.name.clone()).or_default();
            of_program.extend(becoming.remove(&held.pid));
            of_program.push(held);
            Ok(())
        })?;
        assert_eq!(ended.code(), Some(0));
        for helper in [MONITOR, DATAPATH] {
            let calls = &calls[helper];
            let names: Vec<_> = calls.iter().map(|it| (it.call, it.arguments[0])).collect();
            let at = |wanted: &dyn Fn(&HeldCall) -> bool| place(calls, wanted);
            let of = |call: libc::c_long| at(&|it| it.call == call);
            // The first that the new program does.
            assert_eq!(of(libc::SYS_execveat)?, 0, "{helper}: {names:?}");
            assert!(is_prctl(&calls[1], libc::PR_SET_DUMPABLE), "{helper}: {names:?}");
            assert_eq!(calls[1].arguments[1], 0, "{helper}");
            let no_new_privs = at(&|it| is_prctl(it, libc::PR_SET_NO_NEW_PRIVS))?;
            let last = |call| calls.iter().rposition(|it: &HeldCall| it.call == call);
            // Never after it, so that a security module changes the label at the one exec there is.
            assert_eq!(last(libc::SYS_execveat), Some(0), "{helper}: {names:?}");
            for before in [libc::SYS_pivot_root, libc::SYS_capset, libc::SYS_unshare] {
                assert!(last(before).is_some_and(|it| it < no_new_privs), "{helper}: {names:?}");
            }
            let landlock = of(libc::SYS_landlock_restrict_self)?;
            assert!(no_new_privs < landlock, "{helper}: {names:?}");
            assert_eq!(last(libc::SYS_seccomp), Some(calls.len() - 1), "{helper}: {names:?}");
        }
        process::wait_until_none_left()?;
    }
    Ok(())
}

/// What `lab-client pry` says as user `user`.
fn pry(lab: &Lab, user: u32, pid: i32) -> Outcome<Vec<String>> {
    let mut command = Command::new(lab.program("lab-client"));
    command.args(["pry", &pid.to_string()]).uid(user).gid(user).env_clear().current_dir("/");
    let finished = Running::start(command)?.finish()?.expect_code(0)?;
    let facts: Vec<_> = finished
        .output
        .iter()
        .filter_map(|line| line.strip_prefix("- "))
        .map(str::to_owned)
        .collect();
    assert_eq!(facts.len(), 10, "{finished:?}");
    Ok(facts)
}

/// Nothing of what was tried worked.
fn assert_refused(facts: &[String], what: &str) {
    let refused = facts.iter().all(|fact| fact.ends_with(" EPERM") || fact.ends_with(" EACCES"));
    assert!(refused, "{what}: {facts:?}");
}

/// A user that is neither root nor [`USER`].
const STRANGER: u32 = 60_702;

fn helpers_are_out_of_reach_at_every_stage_of_the_start(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    lab.needs_root()?;
    // What is asked is what the same user gets of a program that has not hardened itself.
    let mut plain = Running::start(bare_command(lab, ["hold"]))?;
    plain.wait_for_line("holding")?;
    let facts = pry(lab, USER, plain.pid())?;
    if !facts.iter().any(|fact| fact == "trace open") {
        return Err(Skip::new(format!("nobody traces anybody here: {facts:?}")).into());
    }
    assert!(facts.iter().all(|fact| fact.ends_with(" open")), "{facts:?}");
    assert_refused(&pry(lab, STRANGER, plain.pid())?, "another user");
    drop(plain);

    let mut seen = BTreeSet::new();
    let ended = start(lab.pasta())?.each(|process, held| {
        let is_helper = [MONITOR, DATAPATH].contains(&&*process.name);
        // Until then the file's mode decides.
        let hardens = is_prctl(&held, libc::PR_SET_DUMPABLE);
        let stage = (process.name.clone(), held.call, held.arguments[0]);
        if !is_helper || hardens || !seen.insert(stage.clone()) {
            return Ok(());
        }
        for user in [USER, STRANGER] {
            assert_refused(&pry(lab, user, held.pid)?, &format!("user {user}, {stage:?}"));
        }
        Ok(())
    })?;
    assert_eq!(ended.code(), Some(0));
    for helper in [MONITOR, DATAPATH] {
        let stages = seen.iter().filter(|(name, ..)| name == helper).count();
        assert!(stages > 10, "{helper}: {seen:?}");
    }
    Ok(())
}

fn root_of_the_namespace_gets_nothing_of_any_process(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    // COMMAND is root of the monitor's user namespace and sees all processes. Started by root it is another user.
    let users = [lab.pasta(), lab.pasta().as_root()];
    for pasta in &users[..if lab.needs_root().is_ok() { 2 } else { 1 }] {
        let mut inside = pasta.clone().configured().with(["--no-pidns"]).session()?;
        let supervisor = process::only(MONITOR)?.parent;
        for pid in [supervisor, process::only(MONITOR)?.pid, process::only(DATAPATH)?.pid] {
            let mut facts = inside.must(["pry", &pid.to_string()])?;
            // What belongs to a process that is not dumpable is root's of the user namespace where it was executed:
            // in an ordinary user's lab the user's, who may count descriptors then, and not look at them.
            if lab.needs_root().is_err() {
                facts.retain(|fact| fact != "fd open");
            }
            assert_refused(&facts, &format!("{:?}", Process::read(pid)));
        }
        // It gets everything of what is its own.
        let own = process::only("lab-client")?.pid.to_string();
        let facts = inside.must(["pry", &own])?;
        assert!(facts.contains(&"fd open".to_owned()), "{facts:?}");
        inside.end(0)?.expect_code(0)?;
        process::wait_until_none_left()?;
    }
    Ok(())
}

fn helper_whose_file_is_not_readable_is_out_of_reach_from_exec_on(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    lab.needs_root()?;
    // Copies: the lab shows the build's own files.
    let directory = "/tmp/copies";
    fs::create_dir(directory)?;
    for name in ["pasta", MONITOR, DATAPATH] {
        fs::copy(lab.program(name), format!("{directory}/{name}"))?;
    }
    let pasta = || Pasta::new(lab, format!("{directory}/pasta").into()).configured();
    // What belongs to a process that may be traced by its user belongs to that user, else to root.
    for (mode, owner) in [(0o755, USER), (0o711, 0)] {
        for helper in [MONITOR, DATAPATH] {
            let copy = format!("{directory}/{helper}");
            fs::set_permissions(copy, Permissions::from_mode(mode))?;
            let mut tracer =
                Tracer::start(pasta().command(["lab-client", "exit", "0"]), Some(helper))?;
            let held = tracer.wait_for_held()?;
            assert_eq!(fs::metadata(format!("/proc/{held}/fd"))?.uid(), owner, "{mode:o} {helper}");
        }
    }
    process::wait_until_none_left()?;
    let mut inside = pasta().session()?;
    inside.must(["show"])?;
    inside.end(0)?.expect_code(0)?;
    Ok(())
}

/// The channel to the supervisor (start-up protocol).
const SUPERVISOR: i32 = 3;

fn helper_gets_nothing_before_it_has_hardened_itself(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    for helper in [MONITOR, DATAPATH] {
        let pasta = lab.pasta().configured().command(["lab-client", "exit", "0"]);
        let mut tracer = Tracer::start(pasta, Some(helper))?;
        let held = tracer.wait_for_held()?;
        let pid = tracer.pid();
        let process = Process::read(held.as_raw()).ok_or("nothing is held")?;
        let channel = process.descriptor(SUPERVISOR)?;
        // It says what it waits for when asked, and waits for nothing else then.
        let mut errors = tracer.errors()?;
        let (mut said, wanted) = (String::new(), format!("waiting for {helper}"));
        let ran = tracer.run_until(&wanted, || {
            let _ = nix::sys::signal::kill(pid, Signal::SIGUSR1);
            let mut block = [0; 4096];
            let len = errors.read(&mut block).unwrap_or(0);
            said.push_str(&String::from_utf8_lossy(&block[..len]));
            said.contains(&wanted)
        });
        ran.map_err(|error| format!("{error}: {said}"))?;
        // All that waits for it is the version of the protocol, three octets at most, and no descriptor.
        let mut octets = [0; 4096];
        let len = recv(channel.as_raw_fd(), &mut octets, MsgFlags::MSG_DONTWAIT)?;
        assert!(len <= 4, "{helper} was sent {:?}", &octets[..len]);
        let next = recv(channel.as_raw_fd(), &mut octets, MsgFlags::MSG_DONTWAIT);
        assert_eq!(next, Err(nix::Error::EAGAIN), "{helper}");
    }
    Ok(())
}
