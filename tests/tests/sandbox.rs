//! What is said of a sandbox that lacks something, what is refused then, and audits of running instances.

use std::process::ExitCode;

use tests::harness::{self, Case};
use tests::lab::{DATAPATH, Lab, MONITOR, Pasta, process};
use tests::sys::Refusal;
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, whole_sandbox_starts_strictly_and_says_nothing),
        case!(lab, measure_that_is_missing_is_named_once_and_refused_strictly),
        case!(lab, landlock_that_is_older_than_asked_for_is_refused),
        case!(lab, running_instances_are_audited_each_by_its_number),
        case!(lab, process_that_is_no_pasta_is_not_audited),
        case!(lab, instance_in_the_background_is_audited_by_its_pid_file),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// How a line about missing measures begins.
const INCOMPLETE: &str = "sandbox is incomplete: ";

fn whole_sandbox_starts_strictly_and_says_nothing(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    for pasta in [lab.pasta(), lab.pasta().as_root()] {
        let strict = pasta.configured().with(["--strict-sandbox"]);
        let finished = strict.run(["lab-client", "exit", "3"])?.expect_code(3)?;
        assert!(!finished.errors.contains(INCOMPLETE), "{finished:?}");
    }
    Ok(())
}

/// `LANDLOCK_CREATE_RULESET`, `linux/unistd.h`: the same on all architectures.
const LANDLOCK: libc::c_long = 444;

const fn refuse(
    call: libc::c_long,
    arguments: &'static [(u32, libc::c_int)],
    error: libc::c_int,
) -> Refusal {
    Refusal { call, arguments, error }
}

/// Measures that the kernel may refuse, and what is said then.
const MEASURES: [(&str, Refusal); 9] = [
    ("landlock: not built into the kernel", refuse(LANDLOCK, &[], libc::ENOSYS)),
    ("own pid namespace", refuse(libc::SYS_unshare, &[(0, libc::CLONE_NEWPID)], libc::EACCES)),
    ("own ipc namespace", refuse(libc::SYS_unshare, &[(0, libc::CLONE_NEWIPC)], libc::ENOSPC)),
    ("own uts namespace", refuse(libc::SYS_unshare, &[(0, libc::CLONE_NEWUTS)], libc::EPERM)),
    ("own cgroup namespace", refuse(libc::SYS_unshare, &[(0, libc::CLONE_NEWCGROUP)], libc::EPERM)),
    ("own session keyring", refuse(libc::SYS_keyctl, &[], libc::EDQUOT)),
    ("empty bounding set", refuse(libc::SYS_prctl, &[(0, libc::PR_CAPBSET_DROP)], libc::EPERM)),
    ("locked securebits", refuse(libc::SYS_prctl, &[(0, libc::PR_SET_SECUREBITS)], libc::EPERM)),
    ("memory-deny-write-execute", refuse(libc::SYS_prctl, &[(0, libc::PR_SET_MDWE)], libc::EINVAL)),
];

fn measure_that_is_missing_is_named_once_and_refused_strictly(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    for (name, refusal) in MEASURES {
        let pasta = lab.pasta().configured().refused(&[refusal]);

        let finished = pasta.run(["lab-client", "exit", "3"])?.expect_code(3)?;
        let lines: Vec<_> =
            finished.errors.lines().filter(|line| line.contains(INCOMPLETE)).collect();
        assert_eq!(lines.len(), 1, "{name}: {finished:?}");
        assert!(lines[0].contains(name), "{name}: {lines:?}");

        let strict = pasta.with(["--strict-sandbox"]);
        let finished = strict.run(["lab-client", "identity"])?.expect_code(1)?;
        assert_eq!(finished.output, [""; 0], "COMMAND ran without: {name}");
        assert!(finished.errors.contains(name), "{name}: {finished:?}");
        assert!(finished.errors.contains("--strict-sandbox"), "{name}: {finished:?}");
        process::wait_until_none_left()?;
    }
    Ok(())
}

fn landlock_that_is_older_than_asked_for_is_refused(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let strict = lab.pasta().configured().with(["--strict-sandbox=abi:99"]);
    let finished = strict.run(["lab-client", "identity"])?.expect_code(1)?;
    assert_eq!(finished.output, [""; 0]);
    assert!(finished.errors.contains("abi:99 is asked for"), "{finished:?}");
    Ok(())
}

/// The text of an audit of process `pid`, which must be clean.
fn audit(pasta: Pasta<'_>, option: &str, pid: i32) -> Outcome<String> {
    let finished = pasta.attach([option, &pid.to_string()])?.expect_code(0)?;
    assert_eq!(finished.errors, "", "{finished:?}");
    Ok(finished.output.join("\n"))
}

fn running_instances_are_audited_each_by_its_number(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let mut one = lab.pasta().configured().session()?;
    let mut two = lab.pasta().configured().with(["--no-host-loopback"]).session()?;
    for (session, mapped) in [(&mut one, "reachable at"), (&mut two, "not mapped")] {
        let pid = session.running().pid();
        let text = audit(lab.pasta(), "--audit", pid)?;
        let process = ["process".to_owned(), pid.to_string()];
        assert!(text.lines().any(|line| line.split_whitespace().eq(&process)), "{text}");
        assert!(text.contains(&format!("127.0.0.1 of the host: {mapped}")), "{text}");
        assert!(text.trim_end().ends_with("clean"), "{text}");
        let json = audit(lab.pasta(), "--audit=json", pid)?;
        assert!(json.starts_with("{\"supervisor\":{\"process\":"), "{json}");
        assert!(json.ends_with("\"verdict\":\"clean\"}"), "{json}");
    }
    if lab.needs_root().is_ok() {
        // Root sees what of a process that is not dumpable nobody else does.
        let text = audit(lab.pasta().as_root(), "--audit", one.running().pid())?;
        assert!(text.contains("socket"), "{text}");
    }
    // A helper is one of the instance too.
    let monitors = process::all()?.into_iter().filter(|process| process.name == MONITOR);
    for monitor in monitors {
        audit(lab.pasta(), "--audit", monitor.pid)?;
    }
    one.end(0)?.expect_code(0)?;
    two.end(0)?.expect_code(0)?;
    Ok(())
}

fn process_that_is_no_pasta_is_not_audited(lab: &Lab) -> Outcome {
    let finished = lab.pasta().attach(["--audit", "1"])?.expect_code(1)?;
    assert!(finished.errors.contains("process 1 is no pasta that runs"), "{finished:?}");
    let finished = lab.pasta().attach(["--audit"])?.expect_code(1)?;
    assert!(finished.errors.contains("--audit needs the PID"), "{finished:?}");
    Ok(())
}

fn instance_in_the_background_is_audited_by_its_pid_file(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let mut inside = tests::lab::pasta::contained_session(lab)?;
    let target = inside.running().pid().to_string();
    let file = "/tmp/audited.pid";
    lab.pasta().configured().attach(["-P", file, &target])?.expect_code(0)?;
    let pid = std::fs::read_to_string(file)?.trim().parse()?;
    let text = audit(lab.pasta(), "--audit", pid)?;
    assert!(text.trim_end().ends_with("clean"), "{text}");
    assert_eq!(process::only(DATAPATH)?.parent, pid);
    inside.end(0)?;
    Ok(())
}
