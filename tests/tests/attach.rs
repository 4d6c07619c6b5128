//! Attaching to a namespace that exists: by process, by path; the start in the background and its
//! contract with the caller; the end.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use tests::harness::{self, Case};
use tests::lab::admin::Inside;
use tests::lab::machine::Machine;
use tests::lab::pasta::{NO_PORTS, Running, as_ordinary_user, contained_session, unshared_session};
use tests::lab::process::Process;
use tests::lab::session::Session;
use tests::lab::{DATAPATH, Family, Lab, MONITOR, UPLINK, process, service, wait};
use tests::netlink::Netlink;
use tests::sys::Refusal;
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, process_is_connected_by_its_id),
        case!(families, namespace_is_connected_by_its_path),
        case!(families, forwarded_port_leads_into_the_namespace),
        case!(lab, caller_gets_control_back_with_a_complete_pid_file_and_closed_streams),
        case!(lab, closed_standard_streams_do_no_harm),
        case!(lab, working_directory_is_not_held),
        case!(lab, it_ends_with_the_process),
        case!(lab, it_ends_when_the_file_is_unlinked),
        case!(lab, it_ends_when_the_file_is_unmounted),
        case!(lab, other_files_do_not_end_it),
        case!(lab, it_outlives_the_file_if_asked_to),
        case!(lab, signals_end_it_in_order_with_status_zero),
        case!(lab, tap_that_is_removed_or_moved_away_ends_it),
        case!(lab, end_of_a_helper_ends_it_with_an_error),
        case!(lab, failed_start_is_reported_and_leaves_the_pid_file_alone),
        case!(lab, failed_start_after_the_helpers_leaves_nothing),
        case!(lab, failed_start_leaves_no_new_pid_file),
        case!(lab, failed_start_has_ended_when_the_caller_continues),
        case!(lab, limit_on_file_sizes_is_an_error),
        case!(lab, interrupted_caller_ends_the_start),
        case!(lab, name_that_is_taken_is_an_error_and_another_one_is_not),
        case!(lab, what_is_no_namespace_is_refused),
        case!(lab, namespace_that_is_not_configured_has_a_tap_that_is_down),
        case!(lab, host_that_gets_its_network_later_is_followed),
        case!(lab, log_file_has_what_standard_error_no_longer_has),
        case!(lab, root_attaches_to_the_namespace_of_a_user),
        case!(lab, root_attaches_to_a_namespace_of_its_own),
        case!(lab, root_attaches_where_user_namespaces_are_switched_off),
        case!(lab, user_is_told_what_has_switched_user_namespaces_off),
        case!(lab, command_runs_in_a_user_namespace_that_exists),
        case!(lab, command_without_a_pid_namespace_leaves_nothing),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// Nothing is left so long after what ends it: a tenth of a second where the machine has time for it.
const SOON: Duration = Duration::from_secs(5);

/// Waits until no process of `pasta` is left, for [`SOON`] at most.
fn all_gone() -> Outcome {
    wait::until_within(SOON, "the end of pasta and its helpers", || {
        let left = process::all().ok()?;
        let ours = |it: &Process| ["pasta", MONITOR, DATAPATH].contains(&it.name.as_str());
        (!left.iter().any(ours)).then_some(())
    })
}

fn pid(session: &mut Session) -> String {
    session.running().pid().to_string()
}

/// TCP there and back between the namespace and the remote machine.
fn talk(lab: &Lab, inside: &mut Session, family: Family) -> Outcome {
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    inside.must(["tcp", "echo", &echo.endpoint(), "1", "100000"])?;
    Ok(())
}

fn process_is_connected_by_its_id(lab: &Lab, family: Family) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    lab.pasta().configured().attach([&id])?.expect_code(0)?;
    talk(lab, &mut inside, family)?;
    inside.end(0)?;
    all_gone()
}

/// A file on which the namespace of `session` is mounted.
fn mounted(session: &mut Session) -> Outcome<PathBuf> {
    // In a directory that others use too, for the events of other files.
    let directory = Path::new("/tmp/namespaces");
    fs::create_dir_all(directory)?;
    let path = directory.join("one");
    fs::File::create(&path)?;
    let namespace = format!("/proc/{}/ns/net", pid(session));
    mount(Some(namespace.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(path)
}

fn namespace_is_connected_by_its_path(lab: &Lab, family: Family) -> Outcome {
    let mut inside = contained_session(lab)?;
    let path = mounted(&mut inside)?;
    let words = ["--netns", path.to_str().ok_or("a path of ASCII")?];
    lab.pasta().configured().attach(words)?.expect_code(0)?;
    talk(lab, &mut inside, family)
}

fn forwarded_port_leads_into_the_namespace(lab: &Lab, family: Family) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    lab.pasta().configured().attach(["-t", "8000:8001", &id])?.expect_code(0)?;
    inside.must([
        "serve",
        "tcp",
        "echo",
        &tests::lab::address::endpoint(family.any(), 8001),
        "echo",
    ])?;
    let to = SocketAddr::new(family.host(), 8000);
    lab.remote().run(|| {
        let mut stream = TcpStream::connect(to)?;
        stream.write_all(b"words")?;
        let mut octets = [0; 5];
        stream.read_exact(&mut octets)?;
        assert_eq!(&octets, b"words");
        Ok(())
    })
}

fn caller_gets_control_back_with_a_complete_pid_file_and_closed_streams(lab: &Lab) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    let words = ["-q", "-P", "/tmp/pasta.pid", &id];
    // Waits for the end of its output too, which the supervisor must not hold.
    let finished = lab.pasta().configured().attach(words)?.expect_code(0)?;

    assert_eq!((finished.output, finished.errors.as_str()), (Vec::<String>::new(), ""));
    let text = fs::read_to_string("/tmp/pasta.pid")?;
    let number: i32 = text.strip_suffix('\n').ok_or("no end of line")?.parse()?;
    let supervisor = Process::read(number).ok_or("no process of this number")?;
    assert_eq!(supervisor.name, "pasta");
    assert_eq!(supervisor.session, number, "a session of its own");
    for fd in 0..3 {
        let target = fs::read_link(format!("/proc/{number}/fd/{fd}"));
        // Readable for root only; an ordinary user's lab sees that the output was closed.
        assert!(target.is_err() || target? == Path::new("/dev/null"));
    }
    supervisor.signal(Signal::SIGTERM)?;
    all_gone()
}

/// `command`, run by a shell as the script says, which has its words as `$@`.
fn by_shell(lab: &Lab, script: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.env_clear().current_dir("/");
    as_ordinary_user(&mut shell, lab.power());
    shell
}

fn closed_standard_streams_do_no_harm(lab: &Lab) -> Outcome {
    let family = Family::V4;
    for streams in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let mut inside = contained_session(lab)?;
        let words = ["-P".to_owned(), "/tmp/closed.pid".to_owned(), pid(&mut inside)];
        let pasta = lab.pasta().configured().with(words).command(std::iter::empty::<&str>());
        let script = format!("exec \"$@\" {streams}");
        Running::start(by_shell(lab, &script, &pasta))?.finish()?.expect_code(0)?;
        let number: i32 = fs::read_to_string("/tmp/closed.pid")?.trim_end().parse()?;
        for fd in 0..3 {
            // Readable for root only.
            let target = fs::read_link(format!("/proc/{number}/fd/{fd}"));
            assert!(target.is_err() || target? == Path::new("/dev/null"), "{streams}: {fd}");
        }
        talk(lab, &mut inside, family)?;
        inside.end(0)?;
        all_gone()?;
        fs::remove_file("/tmp/closed.pid")?;
    }
    Ok(())
}

fn working_directory_is_not_held(lab: &Lab) -> Outcome {
    let directory = Path::new("/tmp/working");
    fs::create_dir_all(directory)?;
    mount(Some("working"), directory, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let mut inside = contained_session(lab)?;
    let words = [pid(&mut inside)];
    let mut command = lab.pasta().with(words).command(std::iter::empty::<&str>());
    command.current_dir(directory);
    Running::start(command)?.finish()?.expect_code(0)?;
    umount2(directory, MntFlags::empty())?;
    process::only("pasta")?;
    inside.end(0)?;
    all_gone()
}

fn it_ends_with_the_process(lab: &Lab) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    lab.pasta().attach([&id])?.expect_code(0)?;
    let running = Process::read(inside.running().pid()).ok_or("the process")?;
    running.signal(Signal::SIGKILL)?;
    all_gone()
}

/// Attaches by a path of [`mounted`].
fn attached_by_path(lab: &Lab, more: &[&str]) -> Outcome<(Session, PathBuf)> {
    let mut inside = contained_session(lab)?;
    let path = mounted(&mut inside)?;
    let text = path.to_str().ok_or("a path of ASCII")?;
    let words = [&["--netns", text], more].concat();
    lab.pasta().with(NO_PORTS).attach(words)?.expect_code(0)?;
    Ok((inside, path))
}

fn it_ends_when_the_file_is_unlinked(lab: &Lab) -> Outcome {
    let (_inside, path) = attached_by_path(lab, &[])?;
    // As container engines do.
    umount2(&path, MntFlags::MNT_DETACH)?;
    fs::remove_file(&path)?;
    all_gone()
}

fn it_ends_when_the_file_is_unmounted(lab: &Lab) -> Outcome {
    let (_inside, path) = attached_by_path(lab, &[])?;
    umount2(&path, MntFlags::MNT_DETACH)?;
    all_gone()
}

fn other_files_do_not_end_it(lab: &Lab) -> Outcome {
    let (mut inside, path) = attached_by_path(lab, &[])?;
    let other = path.with_file_name("other");
    let supervisor = process::only("pasta")?;
    for _ in 0..100 {
        fs::File::create(&other)?;
        mount(Some("/proc/self/ns/uts"), &other, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        umount2(&other, MntFlags::MNT_DETACH)?;
        fs::remove_file(&other)?;
    }
    // It answers, so it has seen all of that.
    inside.must(["identity"])?;
    assert!(supervisor.runs());
    umount2(&path, MntFlags::MNT_DETACH)?;
    all_gone()
}

fn it_outlives_the_file_if_asked_to(lab: &Lab) -> Outcome {
    let (mut inside, path) = attached_by_path(lab, &["--no-netns-quit", "--config-net"])?;
    umount2(&path, MntFlags::MNT_DETACH)?;
    fs::remove_file(&path)?;
    talk(lab, &mut inside, Family::V4)?;
    process::only("pasta")?.signal(Signal::SIGTERM)?;
    all_gone()
}

/// `pasta` in the foreground, attached to `inside` and ready.
fn in_foreground(lab: &Lab, inside: &mut Session) -> Outcome<Running> {
    let words = ["-f".to_owned(), "-P".to_owned(), "/tmp/ready".to_owned(), pid(inside)];
    let command = lab.pasta().configured().with(words).command(std::iter::empty::<&str>());
    let running = Running::start(command)?;
    wait::until("the PID file", || {
        fs::read_to_string("/tmp/ready").is_ok_and(|text| text.ends_with('\n')).then_some(())
    })?;
    Ok(running)
}

fn signals_end_it_in_order_with_status_zero(lab: &Lab) -> Outcome {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut inside = contained_session(lab)?;
        let running = in_foreground(lab, &mut inside)?;
        assert_eq!(fs::read_to_string("/tmp/ready")?, format!("{}\n", running.pid()));
        fs::remove_file("/tmp/ready")?;
        running.signal(signal)?;
        running.finish()?.expect_code(0)?;
        all_gone()?;
        inside.must(["identity"])?;
    }
    Ok(())
}

fn tap_that_is_removed_or_moved_away_ends_it(lab: &Lab) -> Outcome {
    for end in [TapEnd::Removed, TapEnd::Moved] {
        let mut inside = contained_session(lab)?;
        let running = in_foreground(lab, &mut inside)?;
        fs::remove_file("/tmp/ready")?;
        Inside::of(&mut inside)?.run(|| {
            let netlink = Netlink::open()?;
            let tap = netlink.link(UPLINK)?.index;
            match end {
                TapEnd::Removed => netlink.delete_link(tap)?,
                // To one that ends with this test.
                TapEnd::Moved => netlink.move_link(tap, &Machine::new()?)?,
            }
            Ok(())
        })?;
        running.finish()?.expect_code(0)?;
        all_gone()?;
        inside.must(["identity"])?;
    }
    Ok(())
}

/// What becomes of the tap.
#[derive(Clone, Copy, Debug)]
enum TapEnd {
    Removed,
    Moved,
}

fn end_of_a_helper_ends_it_with_an_error(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    for helper in [DATAPATH, MONITOR] {
        let mut inside = contained_session(lab)?;
        let running = in_foreground(lab, &mut inside)?;
        fs::remove_file("/tmp/ready")?;
        process::only(helper)?.signal(Signal::SIGKILL)?;
        let finished = running.finish()?.expect_code(1)?;
        assert!(finished.errors.contains(helper), "{finished:?}");
        all_gone()?;
    }
    Ok(())
}

fn failed_start_is_reported_and_leaves_the_pid_file_alone(lab: &Lab) -> Outcome {
    fs::write("/tmp/older", "4711\n")?;
    std::os::unix::fs::chown("/tmp/older", Some(lab.user()), None)?;
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    let _taken = lab.host().run(|| Ok(std::net::TcpListener::bind("0.0.0.0:8000")?))?;
    let words = ["-P", "/tmp/older", "-t", "8000", &id];
    let finished = lab.pasta().configured().attach(words)?.expect_code(1)?;
    assert!(finished.errors.contains("port 8000"), "{finished:?}");
    assert_eq!(fs::read_to_string("/tmp/older")?, "4711\n");
    all_gone()
}

fn failed_start_leaves_no_new_pid_file(lab: &Lab) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    let taken = lab.host().run(|| Ok(std::net::TcpListener::bind("0.0.0.0:8000")?))?;
    let user = lab.pasta().configured();
    let mut ways = vec![user.clone()];
    if lab.needs_root().is_ok() {
        ways.push(user.clone().as_root());
    }
    for pasta in ways {
        for words in [["-t", "8000"], ["-I", "lo"]] {
            let file = "/tmp/new.pid";
            let words = ["-P", file, words[0], words[1], &id];
            pasta.clone().attach(words)?.expect_code(1)?;
            assert!(!Path::new(file).exists(), "{words:?}");
        }
    }
    // With COMMAND it is the process itself, which cannot remove a file of root's any more.
    for words in [["-t", "8000"], ["-I", "lo"]] {
        user.clone().with(["-P", "/tmp/new.pid"]).with(words).run(["true"])?.expect_code(1)?;
        assert!(!Path::new("/tmp/new.pid").exists(), "{words:?}");
    }
    drop(taken);
    user.with(["-P", "/tmp/new.pid"]).attach([&id])?.expect_code(0)?;
    assert!(Path::new("/tmp/new.pid").exists());
    Ok(())
}

fn failed_start_after_the_helpers_leaves_nothing(lab: &Lab) -> Outcome {
    let mut inside = contained_session(lab)?;
    let words = ["-I".to_owned(), "lo".to_owned(), pid(&mut inside)];
    let finished = lab.pasta().configured().attach(words)?.expect_code(1)?;
    assert!(finished.errors.contains("\"lo\""), "{finished:?}");
    assert_eq!(finished.errors.matches("\"lo\"").count(), 1, "said once: {finished:?}");
    all_gone()
}

fn failed_start_has_ended_when_the_caller_continues(lab: &Lab) -> Outcome {
    for _ in 0..10 {
        let mut inside = contained_session(lab)?;
        let words = ["-I".to_owned(), "lo".to_owned(), pid(&mut inside)];
        lab.pasta().with(words).attach(std::iter::empty::<&str>())?.expect_code(1)?;
        // Not even one that has ended and that nobody has waited for.
        let mut left = fs::read_dir("/proc")?
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("comm")).ok());
        assert!(!left.any(|name| name == "pasta\n"));
    }
    Ok(())
}

fn limit_on_file_sizes_is_an_error(lab: &Lab) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    for words in [["-P", "/tmp/limited", &id], ["-l", "/tmp/limited", &id]] {
        let pasta = lab.pasta().with(words).command(std::iter::empty::<&str>());
        let limited = by_shell(lab, "ulimit -f 0; exec \"$@\"", &pasta);
        let finished = Running::start(limited)?.finish()?.expect_code(1)?;
        assert!(finished.errors.contains("/tmp/limited"), "{finished:?}");
        all_gone()?;
    }
    Ok(())
}

fn interrupted_caller_ends_the_start(lab: &Lab) -> Outcome {
    lab.remove_uplink()?;
    let mut inside = contained_session(lab)?;
    let words = ["--bind-wait".to_owned(), "600000".to_owned(), pid(&mut inside)];
    let command = lab.pasta().configured().with(words).command(std::iter::empty::<&str>());
    let running = Running::start(command)?;
    wait::until("the helpers", || process::only(DATAPATH).ok())?;
    running.signal(Signal::SIGINT)?;
    assert_eq!(running.finish()?.code(), 128 + Signal::SIGINT as i32);
    all_gone()
}

fn name_that_is_taken_is_an_error_and_another_one_is_not(lab: &Lab) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    let pasta = || lab.pasta().configured().with(NO_PORTS);
    pasta().attach(["-I", "one", &id])?.expect_code(0)?;
    let finished = pasta().attach(["-I", "one", &id])?.expect_code(1)?;
    assert!(finished.errors.contains("\"one\"") && finished.errors.contains("-I"), "{finished:?}");
    pasta().attach(["-I", "two", &id])?.expect_code(0)?;
    inside.end(0)?;
    all_gone()
}

fn what_is_no_namespace_is_refused(lab: &Lab) -> Outcome {
    for (words, wanted) in [
        (&["--netns", "/dev/null"][..], "/dev/null is not a network namespace"),
        (&["--netns", "no-such"], "/run/netns/no-such"),
        (&["--netns", "/proc/self/ns/net"], "nothing to connect"),
        (&["2147483647"], "2147483647 has ended"),
        (&["--netns", "/tmp/x", "ls"], "both --netns"),
    ] {
        let finished = lab.pasta().attach(words)?.expect_code(1)?;
        assert!(finished.errors.contains(wanted), "{words:?}: {finished:?}");
    }
    all_gone()
}

fn namespace_that_is_not_configured_has_a_tap_that_is_down(lab: &Lab) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    lab.pasta().attach([&id])?.expect_code(0)?;
    let lines = inside.must(["show"])?;
    let tap = format!("link {UPLINK} ");
    assert!(lines.iter().any(|line| line.starts_with(&tap)), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("route")), "{lines:#?}");
    Ok(())
}

fn host_that_gets_its_network_later_is_followed(lab: &Lab) -> Outcome {
    let family = Family::V4;
    // The routes go with it, and the default route does not come back by itself.
    lab.on_host(|netlink| Ok(netlink.set_up(netlink.link(UPLINK)?.index, false)?))?;
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    lab.pasta().configured().with(["-4"]).attach([&id])?.expect_code(0)?;
    lab.on_host(|netlink| {
        let link = netlink.link(UPLINK)?.index;
        netlink.set_up(link, true)?;
        Ok(netlink.add_default_route(link, family.gateway())?)
    })?;
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    wait::until("traffic", || {
        let reply = inside.ask(["tcp", "connect-within", &echo.endpoint(), "500"]).ok()?;
        reply.result.is_ok().then_some(())
    })
}

fn log_file_has_what_standard_error_no_longer_has(lab: &Lab) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    lab.pasta().configured().attach(["-l", "/tmp/pasta.log", &id])?.expect_code(0)?;
    process::only("pasta")?.signal(Signal::SIGUSR1)?;
    wait::until("the status in the log", || {
        fs::read_to_string("/tmp/pasta.log").ok()?.contains("status: ").then_some(())
    })?;
    inside.end(0)?;
    all_gone()?;
    let text = fs::read_to_string("/tmp/pasta.log")?;
    assert!(text.starts_with("pasta "), "{text}");
    assert!(text.contains("info:    the namespace has ended\n"), "{text}");
    Ok(())
}

fn root_attaches_to_the_namespace_of_a_user(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    lab.pasta().as_root().configured().attach([&id])?.expect_code(0)?;
    for family in [Family::V4, Family::V6] {
        talk(lab, &mut inside, family)?;
    }
    for name in ["pasta", MONITOR, DATAPATH] {
        let uid = process::only(name)?.status("Uid")?;
        assert!(!uid.split_ascii_whitespace().any(|id| id == "0"), "{name}: {uid}");
    }
    inside.end(0)?;
    all_gone()
}

fn root_attaches_to_a_namespace_of_its_own(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    let mut inside = unshared_session(lab)?;
    let id = pid(&mut inside);
    lab.pasta().as_root().configured().attach([&id])?.expect_code(0)?;
    for family in [Family::V4, Family::V6] {
        talk(lab, &mut inside, family)?;
    }
    let monitor = process::only(MONITOR)?;
    assert!(!monitor.status("Uid")?.starts_with('0'), "{monitor:?}");
    inside.end(0)?;
    all_gone()
}

/// What `unshare(CLONE_NEWUSER)` gives where `user.max_user_namespaces` is 0.
const NO_USER_NAMESPACES: Refusal = Refusal {
    call: libc::SYS_unshare,
    arguments: &[(0, libc::CLONE_NEWUSER)],
    error: libc::ENOSPC,
};

fn root_attaches_where_user_namespaces_are_switched_off(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    lab.needs_helpers()?;
    let mut inside = unshared_session(lab)?;
    let id = pid(&mut inside);
    let pasta = lab.pasta().as_root().refused(&[NO_USER_NAMESPACES]).configured();
    let finished = pasta.attach([&id])?.expect_code(0)?;
    assert!(finished.errors.contains("user namespaces are switched off"), "{finished:?}");
    for family in [Family::V4, Family::V6] {
        talk(lab, &mut inside, family)?;
    }
    let (supervisor, datapath) = (process::only("pasta")?, process::only(DATAPATH)?);
    assert_eq!(datapath.namespace("user")?, supervisor.namespace("user")?);
    assert_ne!(datapath.namespace("mnt")?, supervisor.namespace("mnt")?);
    assert_ne!(datapath.namespace("pid")?, supervisor.namespace("pid")?);
    for name in ["pasta", MONITOR, DATAPATH] {
        let process = process::only(name)?;
        assert!(!process.status("Uid")?.split_ascii_whitespace().any(|id| id == "0"), "{name}");
    }
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(datapath.capabilities(set)?, 0, "{set}");
    }
    // CAP_NET_ADMIN, by which the namespace follows; here it counts in the initial user namespace.
    let low_ports = 1 << 10;
    assert_eq!(process::only(MONITOR)?.capabilities("CapEff")? & !low_ports, 1 << 12);
    inside.end(0)?;
    all_gone()
}

fn user_is_told_what_has_switched_user_namespaces_off(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let mut inside = contained_session(lab)?;
    let id = pid(&mut inside);
    let pasta = lab.pasta().refused(&[NO_USER_NAMESPACES]).configured();
    let finished = pasta.attach([&id])?.expect_code(1)?;
    assert!(finished.errors.contains("user.max_user_namespaces"), "{finished:?}");
    all_gone()
}

fn command_runs_in_a_user_namespace_that_exists(lab: &Lab) -> Outcome {
    let mut other = contained_session(lab)?;
    let user = format!("/proc/{}/ns/user", pid(&mut other));
    let mut inside = lab.pasta().configured().with(["--userns", &user]).session()?;
    let facts = inside.must(["identity"])?;
    assert!(facts.iter().any(|fact| fact == "Uid: 0 0 0 0"), "{facts:?}");
    talk(lab, &mut inside, Family::V4)?;
    inside.end(0)?.expect_code(0)?;
    all_gone()
}

fn command_without_a_pid_namespace_leaves_nothing(lab: &Lab) -> Outcome {
    let mut inside = lab.pasta().configured().with(["--no-pidns"]).session()?;
    let facts = inside.must(["orphan"])?;
    let orphan: i32 = facts[0].strip_prefix("pid ").ok_or("its number")?.parse()?;
    // It is a number of the caller's PID namespace.
    assert!(Process::read(orphan).is_some_and(|it| it.name == "lab-client"));
    talk(lab, &mut inside, Family::V4)?;
    inside.end(3)?.expect_code(3)?;
    assert_eq!(Process::read(orphan), None);
    process::wait_until_none_left()
}
