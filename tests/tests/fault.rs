//! What happens when a part fails or is ended, and what hostile frames achieve: nothing.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe, write};
use tests::harness::{self, Case};
use tests::lab::service::{self, Service};
use tests::lab::{DATAPATH, Family, Lab, MONITOR, Pasta, Session, UPLINK, enter, process, wait};
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, command_outlives_the_datapath_and_keeps_its_exit_code),
        case!(lab, traffic_outlives_the_monitor),
        case!(lab, strict_sandbox_does_not_outlive_the_monitor),
        case!(lab, helpers_that_are_stopped_are_named_and_keep_nobody_waiting),
        case!(lab, log_on_a_full_disk_stops_nothing),
        case!(lab, helpers_and_the_command_end_with_the_supervisor),
        case!(lab, command_outlives_the_supervisor_if_asked_to),
        case!(lab, helper_that_cannot_be_executed_is_named),
        case!(lab, process_that_cannot_be_killed_is_left_and_named),
        case!(lab, requests_that_reach_the_helpers_too_end_none_of_them),
        case!(lab, killed_command_ends_everything),
        case!(lab, killed_init_ends_everything),
        case!(lab, command_outlives_the_tap_and_keeps_its_exit_code),
        case!(lab, log_that_nobody_reads_stops_nothing),
        case!(lab, malformed_frames_end_no_process_and_stop_no_traffic),
        case!(lab, malformed_super_frames_end_no_process_and_stop_no_traffic),
        case!(lab, malformed_frames_do_not_disturb_an_open_connection),
        case!(lab, answers_show_nothing_of_other_frames),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// How many damaged frames are sent with each seed.
const FRAMES: &str = "100000";

/// A TCP echo service of the remote machine.
fn echo(lab: &Lab) -> Outcome<Service> {
    lab.remote().tcp(Family::V4.internet(), service::echo)
}

fn command_outlives_the_datapath_and_keeps_its_exit_code(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let echo = echo(lab)?;
    let mut inside = lab.session()?;
    inside.must(["tcp", "echo", &echo.endpoint(), "1", "1000"])?;
    let datapath = process::only(DATAPATH)?;

    datapath.signal(Signal::SIGKILL)?;
    datapath.wait_until_gone()?;

    inside.must(["identity"])?;
    let lost = inside.ask(["tcp", "connect-within", &echo.endpoint(), "1000"])?;
    assert!(lost.result.is_err(), "there is a network without a datapath: {lost:?}");
    let finished = inside.end(9)?.expect_code(9)?;
    assert!(finished.errors.contains("datapath"), "not in the log: {finished:?}");
    process::wait_until_none_left()
}

fn traffic_outlives_the_monitor(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let echo = echo(lab)?;
    let mut inside = lab.session()?;
    inside.must(["tcp", "open", "old", &echo.endpoint()])?;
    inside.must(["tcp", "exchange", "old", "1", "1000"])?;
    let monitor = process::only(MONITOR)?;

    monitor.signal(Signal::SIGKILL)?;
    monitor.wait_until_gone()?;

    inside.must(["tcp", "exchange", "old", "2", "100000"])?;
    inside.must(["tcp", "echo", &echo.endpoint(), "1", "1000000"])?;
    inside.must(["ping", "198.51.100.1", "1", "56"])?;
    let finished = inside.end(9)?.expect_code(9)?;
    assert!(finished.errors.contains("monitor"), "not in the log: {finished:?}");
    process::wait_until_none_left()
}

fn strict_sandbox_does_not_outlive_the_monitor(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    for pids in [None, Some("--no-pidns")] {
        let pasta = lab.pasta().configured().with(["--strict-sandbox"]).with(pids);
        let mut running = pasta.start(["lab-client", "hold"])?;
        running.wait_for_line("holding")?;
        process::only(MONITOR)?.signal(Signal::SIGKILL)?;
        let finished = running.finish()?.expect_code(1)?;
        assert!(finished.errors.contains("everything is ended (--strict-sandbox)"), "{finished:?}");
        process::wait_until_none_left()?;
    }
    Ok(())
}

fn helpers_that_are_stopped_are_named_and_keep_nobody_waiting(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let echo = echo(lab)?;
    let mut inside = lab.session()?;
    let pasta = Pid::from_raw(inside.running().pid());
    let errors = inside.running().errors_so_far();
    process::only(MONITOR)?.signal(Signal::SIGSTOP)?;
    // The status is short without it, and that is said.
    kill(pasta, Signal::SIGUSR1)?;
    wait::until("the line about the monitor", || {
        errors.text().contains("has not answered for five seconds").then_some(())
    })?;
    inside.must(["tcp", "echo", &echo.endpoint(), "1", "1000"])?;
    drop(errors);
    process::only(DATAPATH)?.signal(Signal::SIGSTOP)?;
    let begin = Instant::now();
    inside.end(9)?.expect_code(9)?;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    process::wait_until_none_left()
}

fn log_on_a_full_disk_stops_nothing(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let options = Some("size=64k,mode=777");
    mount(Some("small"), "/mnt", Some("tmpfs"), MsFlags::empty(), options)?;
    let words = ["-l", "/mnt/log", "--trace"];
    let mut inside = lab.pasta().configured().with(words).session()?;
    let errors = inside.running().errors_so_far();
    let echo = echo(lab)?;
    // All the rest of it.
    let _ = std::fs::write("/mnt/other", vec![0; 1 << 17]);
    wait::until("the line about the file", || {
        inside.must(["tcp", "echo", &echo.endpoint(), "1", "1000"]).ok()?;
        errors.text().contains("the log file cannot be written").then_some(())
    })?;
    drop(errors);
    for _ in 0..3 {
        inside.must(["tcp", "echo", &echo.endpoint(), "1", "1000"])?;
    }
    let finished = inside.end(9)?.expect_code(9)?;
    assert_eq!(
        finished.errors.matches("the log file cannot be written").count(),
        1,
        "{finished:?}"
    );
    Ok(())
}

fn helpers_and_the_command_end_with_the_supervisor(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let mut inside = lab.session()?;
    inside.must(["identity"])?;

    inside.running().signal(Signal::SIGKILL)?;

    process::wait_until_none_left()
}

fn command_outlives_the_supervisor_if_asked_to(lab: &Lab) -> Outcome {
    for pids in [None, Some("--no-pidns")] {
        for option in [None, Some("--no-die-with-parent")] {
            let mut running =
                lab.pasta().configured().with(pids).with(option).start(["lab-client", "hold"])?;
            running.wait_for_line("holding")?;
            let command = process::only("lab-client")?;
            running.signal(Signal::SIGKILL)?;
            running.wait()?;
            for helper in [MONITOR, DATAPATH] {
                wait::until("the end of the helpers", || {
                    process::only(helper).is_err().then_some(())
                })?;
            }
            match option {
                None => command.wait_until_gone()?,
                Some(_) => {
                    assert!(command.runs(), "{pids:?}");
                    command.signal(Signal::SIGTERM)?;
                }
            }
            process::wait_until_none_left().map_err(|error| format!("{pids:?}: {error}"))?;
        }
    }
    Ok(())
}

fn helper_that_cannot_be_executed_is_named(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    for helper in [MONITOR, DATAPATH] {
        let directory = format!("/tmp/of-{helper}");
        std::fs::create_dir(&directory)?;
        for name in ["pasta", MONITOR, DATAPATH] {
            let copy = format!("{directory}/{name}");
            std::fs::copy(lab.program(name), &copy)?;
            let mode = if name == helper { 0o644 } else { 0o755 };
            std::fs::set_permissions(&copy, PermissionsExt::from_mode(mode))?;
        }
        let pasta = Pasta::new(lab, format!("{directory}/pasta").into());
        let finished = pasta.configured().run(["true"])?.expect_code(1)?;
        let wanted = format!("cannot start {helper}: Permission denied");
        assert!(finished.errors.contains(&wanted), "{finished:?}");
        process::wait_until_none_left()?;
    }
    Ok(())
}

fn process_that_cannot_be_killed_is_left_and_named(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    let options = ["--runas", "0", "--netns-only", "--no-pidns"];
    let mut inside = lab.pasta().configured().as_root().with(options).session()?;
    // Process 1 has no capability any more, so it is nobody to the processes of others.
    let facts = inside.must(["orphan", "60701"])?;
    let orphan: i32 = facts[0].strip_prefix("pid ").ok_or("its number")?.parse()?;

    let finished = inside.end(3)?.expect_code(3)?;

    let wanted = format!("process {orphan} of the command is left");
    assert!(finished.errors.contains(&wanted), "{finished:?}");
    kill(Pid::from_raw(orphan), Signal::SIGKILL)?;
    process::wait_until_none_left()
}

fn requests_that_reach_the_helpers_too_end_none_of_them(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let mut inside = lab.session()?;
    for name in ["pasta", MONITOR, DATAPATH] {
        for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
            for found in process::all()?.iter().filter(|it| it.name == name) {
                found.signal(signal)?;
            }
        }
    }
    let echo = echo(lab)?;
    inside.must(["tcp", "echo", &echo.endpoint(), "1", "1000"])?;
    for name in [MONITOR, DATAPATH] {
        process::only(name)?;
    }
    Ok(())
}

/// The client that is COMMAND.
fn command() -> Outcome<process::Process> {
    process::only("lab-client")
}

fn killed_command_ends_everything(lab: &Lab) -> Outcome {
    let mut running = lab.pasta().configured().start(["lab-client", "hold"])?;
    running.wait_for_line("holding")?;

    command()?.signal(Signal::SIGKILL)?;

    assert_eq!(running.finish()?.code(), 128 + Signal::SIGKILL as i32);
    process::wait_until_none_left()
}

fn killed_init_ends_everything(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let mut running = lab.pasta().configured().start(["lab-client", "hold"])?;
    running.wait_for_line("holding")?;
    let init = process::Process::read(command()?.parent).ok_or("COMMAND has no parent")?;
    assert_ne!(init.pid, running.pid(), "COMMAND is a child of the supervisor itself");

    init.signal(Signal::SIGKILL)?;

    assert_eq!(running.finish()?.code(), 128 + Signal::SIGKILL as i32);
    process::wait_until_none_left()
}

fn command_outlives_the_tap_and_keeps_its_exit_code(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let mut inside = lab.session()?;

    inside.must(["link", "delete", UPLINK])?;

    let shown = inside.must(["show"])?;
    assert!(!shown.iter().any(|line| line.contains(UPLINK)), "{shown:#?}");
    inside.end(9)?.expect_code(9)?;
    process::wait_until_none_left()
}

/// Everything still works, and the processes are the ones that were there `before`.
fn all_is_well(lab: &Lab, inside: &mut Session, before: &[process::Process]) -> Outcome {
    for family in tests::lab::address::FAMILIES {
        let tcp = lab.remote().tcp(family.internet(), service::echo)?;
        let udp = lab.remote().udp_echo(family.internet())?;
        inside.must(["tcp", "echo", &tcp.endpoint(), "1", "1000000"])?;
        inside.must(["udp", "echo", &udp.endpoint(), "0", "1472", "9000"])?;
        inside.must(["ping", &family.internet().to_string(), "1", "56"])?;
    }
    assert_eq!(process::all()?, before, "other processes than before");
    Ok(())
}

fn malformed_frames_end_no_process_and_stop_no_traffic(lab: &Lab) -> Outcome {
    let mut inside = lab.session()?;
    let before = process::all()?;

    for seed in ["1", "2", "3"] {
        inside.must(["link", "frames", UPLINK, seed, FRAMES])?;
        all_is_well(lab, &mut inside, &before).map_err(|error| format!("seed {seed}: {error}"))?;
    }
    inside.end(9)?.expect_code(9)?;
    Ok(())
}

fn malformed_super_frames_end_no_process_and_stop_no_traffic(lab: &Lab) -> Outcome {
    let mut inside = lab.session()?;
    let before = process::all()?;

    for seed in ["4", "5"] {
        inside.must(["link", "super-frames", UPLINK, seed, FRAMES])?;
        all_is_well(lab, &mut inside, &before).map_err(|error| format!("seed {seed}: {error}"))?;
    }
    inside.end(9)?.expect_code(9)?;
    Ok(())
}

fn malformed_frames_do_not_disturb_an_open_connection(lab: &Lab) -> Outcome {
    let echo = echo(lab)?;
    let mut inside = lab.session()?;
    inside.must(["tcp", "open", "old", &echo.endpoint()])?;
    inside.must(["tcp", "exchange", "old", "1", "1000"])?;

    inside.must(["link", "frames", UPLINK, "6", FRAMES])?;

    inside.must(["tcp", "exchange", "old", "2", "100000"])?;
    Ok(())
}

fn answers_show_nothing_of_other_frames(lab: &Lab) -> Outcome {
    // Larger frames take another way through the buffers.
    for mtu in ["1500", "65520"] {
        // Not configured: what is advertised and leased is answered too then.
        let mut inside = lab.pasta().with(["--mtu", mtu]).session()?;
        inside.must(["link", "set", UPLINK, "up"])?;
        let before = process::all()?;
        let facts = inside.must(["link", "leaks", UPLINK])?;
        // Of these, two are echo requests, for which not every user may have sockets.
        let answered: u32 = facts[0].strip_prefix("answered ").ok_or("how many")?.parse()?;
        assert!((9..=11).contains(&answered), "{facts:?}");
        assert_eq!(process::all()?, before, "other processes than before");
        inside.end(0)?.expect_code(0)?;
    }
    Ok(())
}

/// Writes to a pipe until it is full.
fn fill(pipe: &OwnedFd) -> Outcome {
    let flags = OFlag::from_bits_retain(fcntl(pipe, FcntlArg::F_GETFL)?);
    fcntl(pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    for length in [4096, 1] {
        while write(pipe, &vec![b'x'; length]) != Err(Errno::EAGAIN) {}
    }
    fcntl(pipe, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

fn log_that_nobody_reads_stops_nothing(lab: &Lab) -> Outcome {
    let (_reader, writer) = pipe()?;
    let mut command = lab.pasta().configured().command(["lab-client", "hold"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(writer.try_clone()?);
    let mut child = command.spawn()?;
    let pid = Pid::from_raw(child.id().try_into()?);
    let output = child.stdout.take().ok_or("no standard output")?;
    BufReader::new(output).read_line(&mut String::new())?;

    fill(&writer)?;
    kill(pid, Signal::SIGUSR1)?;
    // What it says without the monitor is said at once.
    let monitor = process::only(MONITOR)?;
    monitor.signal(Signal::SIGKILL)?;
    monitor.wait_until_gone()?;
    kill(pid, Signal::SIGUSR1)?;
    kill(pid, Signal::SIGTERM)?;

    let status = wait::until("the end of pasta", || child.try_wait().transpose())??;
    assert_eq!(enter::shell_code(status), 128 + Signal::SIGTERM as i32);
    process::wait_until_none_left()
}
