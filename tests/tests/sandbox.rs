//! What is said of a sandbox that lacks something, what is refused then, and audits of running instances.

use std::process::{Command, ExitCode};

use tests::harness::{self, Case};
use tests::lab::pasta::{contained_session, unshared_session};
use tests::lab::{DATAPATH, Lab, MONITOR, Pasta, Session, Skip, process, wait};
use tests::sys::Refusal;
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, whole_sandbox_starts_strictly_and_says_nothing),
        case!(lab, each_kind_of_start_is_reported_clean_and_is_clean_from_outside),
        case!(lab, measure_that_is_missing_is_named_once_and_refused_strictly),
        case!(lab, landlock_that_is_older_than_asked_for_is_refused),
        case!(lab, running_instances_are_audited_each_by_its_number),
        case!(lab, documented_checks_work_with_several_instances),
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

/// Lines of a report or an audit that begin so, without their columns.
fn lines(text: &str, wanted: &str) -> Vec<String> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    words.filter(|line| line.starts_with(wanted)).collect()
}

/// A clean start has nothing missing, in the report or from outside.
fn assert_clean(lab: &Lab, report: &str, pid: i32, automatic: bool) -> Outcome {
    for process in [MONITOR, DATAPATH] {
        assert_eq!(lines(report, process).len(), 1, "{report}");
    }
    assert_eq!(lines(report, "missing"), [""; 0], "{report}");
    assert_eq!(lines(report, "not confirmed"), [""; 0], "{report}");
    let mut texts = vec![report.to_owned(), audit(lab.pasta(), "--audit", pid)?];
    if lab.needs_root().is_ok() {
        let text = audit(lab.pasta().as_root(), "--audit", pid)?;
        // The kernel shows root everything, the filters too.
        assert_eq!(lines(&text, "not shown"), ["not shown none"; 3], "{text}");
        assert_eq!(lines(&text, "policy in force").len(), 3, "{text}");
        assert_eq!(lines(&text, "missing"), ["missing none"; 3], "{text}");
        texts.push(text);
    }
    for text in texts {
        let off = text.contains("; automatic rules are off") || text.contains("may be off");
        let listed = text.contains("while somebody listens there");
        assert!(listed && (automatic || off), "{text}");
    }
    Ok(())
}

fn each_kind_of_start_is_reported_clean_and_is_clean_from_outside(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let strict = ["--strict-sandbox", "--sandbox-report"];
    let users = [lab.pasta(), lab.pasta().as_root()];
    for pasta in &users {
        let mut inside = pasta.clone().configured().with(strict).session()?;
        let pid = process::only(MONITOR)?.parent;
        let report = wait::until("the report", || {
            let said = inside.running().errors();
            said.contains("exposure").then_some(said)
        })?;
        assert_clean(lab, &report, pid, true)?;
        inside.end(0)?.expect_code(0)?;
        process::wait_until_none_left()?;
    }
    type Target = fn(&Lab) -> Outcome<Session>;
    let targets: [(Target, bool); 2] = [(contained_session, true), (unshared_session, false)];
    for (pasta, (target, automatic)) in
        users.iter().flat_map(|user| targets.map(|target| (user, target)))
    {
        // Only root enters a namespace of its own.
        let can_enter = automatic || (pasta.is_root() && lab.needs_root().is_ok());
        if !can_enter {
            continue;
        }
        let mut inside = target(lab)?;
        let id = inside.running().pid().to_string();
        let words = ["-P", "/tmp/kind.pid", &id];
        let finished = pasta.clone().configured().with(strict).attach(words)?.expect_code(0)?;
        let pid = std::fs::read_to_string("/tmp/kind.pid")?.trim().parse()?;
        assert_clean(lab, &finished.errors, pid, automatic)?;
        inside.end(0)?;
        process::wait_until_none_left()?;
    }
    Ok(())
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

/// The commands that the threat model gives for a running instance.
fn documented_checks() -> Vec<&'static str> {
    let text = include_str!("../../docs/threat-model.md");
    text.lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .filter(|it| it.contains("$PASTA"))
        .collect()
}

fn documented_checks_work_with_several_instances(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    lab.needs_root()?;
    if Command::new("pgrep").arg("--version").output().is_err() {
        return Err(Skip::new("there is no pgrep").into());
    }
    let checks = documented_checks();
    assert!(checks.len() >= 6, "{checks:?}");
    let mut sessions = [lab.pasta().configured().session()?, lab.pasta().configured().session()?];
    for session in &mut sessions {
        let pid = session.running().pid().to_string();
        for check in &checks {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", check]).env_clear().env("PATH", "/usr/bin:/bin").env("PASTA", &pid);
            let output = shell.output()?;
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && errors.is_empty(), "{check}: {errors}");
            // The root of a helper has nothing in it; the others are of one process, and say something.
            let lines = String::from_utf8(output.stdout)?;
            assert_eq!(lines.is_empty(), check.starts_with("ls -A"), "{check}: {lines}");
            assert!(lines.matches("CapEff").count() <= 1, "{check}: {lines}");
        }
    }
    for session in sessions {
        session.end(0)?.expect_code(0)?;
    }
    Ok(())
}

fn process_that_is_no_pasta_is_not_audited(lab: &Lab) -> Outcome {
    let finished = lab.pasta().attach(["--audit", "1"])?.expect_code(1)?;
    assert!(finished.errors.contains("process 1 is not a running pasta"), "{finished:?}");
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
