//! Hosts whose `/proc` hides processes, or is not there.

use std::process::ExitCode;

use nix::mount::{MsFlags, mount};
use tests::harness::{self, Case};
use tests::lab::pasta::{Pasta, contained_session};
use tests::lab::{DATAPATH, Lab, MONITOR, Session, service};
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, command_has_a_network_where_proc_hides_processes),
        case!(lab, namespace_is_connected_where_proc_hides_processes),
        case!(lab, root_starts_a_command_where_proc_hides_processes),
        case!(lab, root_attaches_where_proc_hides_processes),
        case!(lab, missing_proc_is_named),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// The ways of `/proc` to hide processes of others (proc(5)); the last one hides those that may not be
/// traced even from their own user.
const HIDING: [&str; 4] = ["hidepid=1", "hidepid=2", "hidepid=4", "hidepid=4,subset=pid"];

/// Puts another `/proc` over that of the lab.
fn mount_proc(options: &str) -> Outcome {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, Some(options))
        .map_err(|error| format!("mount -o {options}: {error}").into())
}

/// The version of the kernel.
fn kernel() -> Outcome<(u32, u32)> {
    let uname = nix::sys::utsname::uname()?;
    let release = uname.release().to_str().ok_or("a release of ASCII")?;
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Ok((numbers.next().ok_or("no version")??, numbers.next().ok_or("no version")??))
}

/// TCP there and back between the namespace and the remote machine.
fn talk(lab: &Lab, inside: &mut Session) -> Outcome {
    let echo = lab.remote().tcp(tests::lab::Family::V4.internet(), service::echo)?;
    inside.must(["tcp", "echo", &echo.endpoint(), "1", "100000"])?;
    Ok(())
}

fn spawned(lab: &Lab, pasta: &Pasta<'_>) -> Outcome {
    lab.needs_helpers()?;
    for options in HIDING {
        mount_proc(options)?;
        let mut inside = pasta.session().map_err(|error| format!("{options}: {error}"))?;
        talk(lab, &mut inside)?;
        let finished = inside.end(0)?.expect_code(0)?;
        // Both helpers are confirmed, and from outside.
        for helper in [MONITOR, DATAPATH] {
            let table = format!("{helper} (process ");
            assert!(finished.errors.contains(&table), "{options}: {}", finished.errors);
        }
        if kernel()? >= (6, 13) {
            assert!(!finished.errors.contains("not confirmed"), "{options}: {}", finished.errors);
        }
    }
    Ok(())
}

fn attached(lab: &Lab, pasta: &Pasta<'_>) -> Outcome {
    lab.needs_helpers()?;
    for options in HIDING {
        mount_proc(options)?;
        let mut inside = contained_session(lab)?;
        let id = inside.running().pid().to_string();
        let finished = pasta.clone().attach([&id])?;
        finished.expect_code(0).map_err(|error| format!("{options}: {error}"))?;
        talk(lab, &mut inside)?;
        inside.end(0)?;
    }
    Ok(())
}

fn command_has_a_network_where_proc_hides_processes(lab: &Lab) -> Outcome {
    spawned(lab, &lab.pasta().configured().with(["--sandbox-report"]))
}

fn namespace_is_connected_where_proc_hides_processes(lab: &Lab) -> Outcome {
    attached(lab, &lab.pasta().configured())
}

fn root_starts_a_command_where_proc_hides_processes(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    spawned(lab, &lab.pasta().configured().with(["--sandbox-report"]).as_root())
}

fn root_attaches_where_proc_hides_processes(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    attached(lab, &lab.pasta().configured().as_root())
}

fn missing_proc_is_named(lab: &Lab) -> Outcome {
    let mut inside = contained_session(lab)?;
    let path = "/tmp/namespace";
    std::fs::write(path, "")?;
    let namespace = format!("/proc/{}/ns/net", inside.running().pid());
    mount(Some(namespace.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    mount(Some("none"), "/proc", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    for words in [vec!["--config-net", "--", "true"], vec!["--config-net", "--netns", path]] {
        let finished = lab.pasta().attach(&words)?.expect_code(1)?;
        assert!(finished.errors.starts_with("pasta: /proc is not"), "{words:?}: {finished:?}");
        assert_eq!(finished.errors.lines().count(), 1, "{words:?}: {finished:?}");
    }
    Ok(())
}
