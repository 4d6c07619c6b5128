//! Whoever traces a helper gets nothing of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::ExitCode;

use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv};
use std::io::Read;
use std::os::fd::AsRawFd;
use tests::harness::{self, Case};
use tests::lab::process::{self, Process};
use tests::lab::tracer::Tracer;
use tests::lab::{DATAPATH, Lab, MONITOR, Pasta, USER};
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, helper_that_is_traced_does_not_start),
        case!(lab, helper_gets_nothing_before_it_has_hardened_itself),
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
