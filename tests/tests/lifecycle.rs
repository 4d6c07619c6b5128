//! COMMAND's life: how it starts, what reaches it, how it ends, and that nothing is left.

#[path = "lifecycle/job_control.rs"]
mod job_control;
#[path = "lifecycle/reaping.rs"]
mod reaping;
#[path = "lifecycle/sys.rs"]
mod start;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use tests::harness::{self, Case};
use tests::lab::pasta::{Pasta, Running};
use tests::lab::{Lab, MONITOR, enter, process, wait};
use tests::{Outcome, case, sys};

use job_control::*;
use reaping::*;

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, exit_code_of_the_command_is_ours),
        case!(lab, signal_that_kills_the_command_shows_in_our_exit_code),
        case!(lab, signal_that_a_user_stops_the_command_with_is_our_end_too),
        case!(lab, what_the_caller_has_left_open_is_the_commands),
        case!(lab, command_that_cannot_be_executed_is_an_error),
        case!(lab, command_is_root_in_its_namespace_and_otherwise_as_the_caller_left_it),
        case!(lab, command_starts_with_no_signal_blocked_and_few_ignored),
        case!(lab, hang_up_that_the_caller_ignores_does_not_end_the_command),
        case!(lab, command_sees_the_callers_environment_and_streams),
        case!(lab, words_of_the_command_are_not_taken_for_options),
        case!(lab, login_shell_is_the_command_when_none_is_given),
        case!(lab, deadly_signals_end_a_command_that_does_not_handle_them),
        case!(lab, signals_reach_a_command_that_handles_them),
        case!(lab, interrupt_at_the_terminal_ends_the_command),
        case!(lab, interrupt_at_the_terminal_reaches_a_command_that_handles_it_and_nobody_else),
        case!(lab, shell_that_stops_itself_gives_the_terminal_back),
        case!(lab, command_that_stops_itself_stops_us_by_the_same_signal),
        case!(lab, key_stops_a_command_and_us_and_the_shell_continues_both),
        case!(lab, stopped_from_outside_it_goes_on_when_continued),
        case!(lab, terminal_is_the_callers_again_when_the_command_has_ended),
        case!(lab, interface_left_alone_is_one_line_at_a_terminal_and_nowhere_else),
        case!(lab, nothing_is_left_when_the_command_has_ended),
        case!(lab, orphans_end_with_the_command),
        case!(lab, nothing_is_left_for_an_ancestor_that_does_not_reap),
        case!(lab, nothing_is_left_for_an_ancestor_that_does_not_reap_when_attached),
        case!(lab, failed_start_leaves_nothing),
        case!(lab, status_tells_what_the_start_waits_for),
        case!(lab, version_and_help_are_printed_without_a_network),
        case!(lab, explanation_is_what_a_start_does_and_does_nothing),
        case!(lab, answer_that_cannot_be_written_is_an_error),
        case!(lab, unknown_option_is_named),
        case!(lab, errors_begin_with_the_name_and_have_no_number),
        case!(lab, quiet_run_says_nothing),
        case!(lab, two_instances_do_not_disturb_each_other),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// The client as COMMAND, asked one thing.
fn client<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["lab-client"], words].concat()
}

fn exit_code_of_the_command_is_ours(lab: &Lab) -> Outcome {
    for code in [0, 7, 255] {
        lab.pasta().configured().run(client(&["exit", &code.to_string()]))?.expect_code(code)?;
    }
    Ok(())
}

fn signal_that_kills_the_command_shows_in_our_exit_code(lab: &Lab) -> Outcome {
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGPIPE] {
        let number = signal as i32;
        let words = client(&["kill-self", &number.to_string()]).join(" ");
        let finished = lab.pasta().configured().run(words.split(' '))?;
        assert_eq!(finished.code(), 128 + number, "{signal}: {finished:?}");
    }
    Ok(())
}

fn signal_that_a_user_stops_the_command_with_is_our_end_too(lab: &Lab) -> Outcome {
    for (signal, dies) in
        [(Signal::SIGINT, true), (Signal::SIGTERM, true), (Signal::SIGSEGV, false)]
    {
        let number = (signal as i32).to_string();
        let finished = lab.pasta().configured().run(client(&["kill-self", &number]))?;
        let wanted = if dies { Some(signal as i32) } else { None };
        assert_eq!(finished.status.signal(), wanted, "{signal}: {finished:?}");
        assert_eq!(finished.code(), 128 + signal as i32);
    }
    Ok(())
}

fn what_the_caller_has_left_open_is_the_commands(lab: &Lab) -> Outcome {
    std::fs::write("/tmp/left-open", "words\n")?;
    let inner = "cat <&7; ls /proc/self/fd | wc -l";
    let pasta = lab.pasta().as_root().configured().command(["sh", "-c", inner]);
    let with_seven_open = || {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec 7</tmp/left-open; exec \"$@\"", "sh"]);
        command
    };
    let mut bare = with_seven_open();
    bare.args(["sh", "-c", inner]);
    let bare = Running::start(bare)?.finish()?.expect_code(0)?;
    let mut command = with_seven_open();
    command.arg(pasta.get_program()).args(pasta.get_args());
    let finished = Running::start(command)?.finish()?.expect_code(0)?;
    // The same descriptors as without us, and none of ours.
    assert_eq!(finished.output, bare.output, "{finished:?}");
    assert_eq!(finished.output.first().map(String::as_str), Some("words"));
    Ok(())
}

fn command_that_cannot_be_executed_is_an_error(lab: &Lab) -> Outcome {
    // As shells and env(1) have it: 127 for what is not found, 126 for what cannot be executed.
    for (command, code) in [("no-such-command", 127), ("/etc", 126), ("/etc/resolv.conf", 126)] {
        let finished = lab.pasta().configured().run([command])?.expect_code(code)?;
        assert!(finished.errors.contains(command), "{finished:?}");
    }
    Ok(())
}

fn command_is_root_in_its_namespace_and_otherwise_as_the_caller_left_it(lab: &Lab) -> Outcome {
    let before = umask(Mode::from_bits_truncate(0o027));
    let mut inside = lab.session()?;
    umask(before);

    let facts = inside.must(["identity"])?;

    let nothing = "0000000000000000";
    for wanted in [
        "Umask: 0027",
        "Uid: 0 0 0 0",
        "Gid: 0 0 0 0",
        &format!("SigBlk: {nothing}"),
        "NoNewPrivs: 0",
        "Seccomp: 0",
    ] {
        assert!(facts.iter().any(|fact| fact == wanted), "no {wanted:?} in {facts:#?}");
    }
    // Signals 32 and 33 belong to the C library, through which nobody can set them to anything.
    let ignored = facts.iter().find_map(|fact| fact.strip_prefix("SigIgn: "));
    let ignored = u64::from_str_radix(ignored.ok_or("no SigIgn")?, 16)? & !(0b11 << 31);
    assert_eq!(ignored, 0, "signals are ignored: {facts:#?}");
    assert!(!facts.contains(&format!("CapEff: {nothing}")), "{facts:#?}");
    assert!(!facts.contains(&"Pid: 1".to_owned()), "default signals do not end a process 1");
    Ok(())
}

fn command_starts_with_no_signal_blocked_and_few_ignored(lab: &Lab) -> Outcome {
    let mut command = lab.pasta().configured().command(client(&["identity"]));
    let blocked = &[Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGWINCH, Signal::SIGALRM];
    let ignored = &[
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR2,
        Signal::SIGTSTP,
        Signal::SIGPIPE,
    ];
    start::start_with_signals(&mut command, blocked, ignored);

    let finished = Running::start(command)?.finish()?.expect_code(0)?;

    let set = |field: &str| -> Outcome<u64> {
        let value = finished.output.iter().find_map(|line| line.strip_prefix(field));
        Ok(u64::from_str_radix(value.ok_or(format!("no {field:?} in {finished:?}"))?, 16)?)
    };
    assert_eq!(set("- SigBlk: ")?, 0);
    // What nohup(1) and shells leave on purpose. Signals 32 and 33 are the C library's.
    let left = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT].map(|it| 1 << (it as u32 - 1));
    assert_eq!(set("- SigIgn: ")? & !(0b11 << 31), left.iter().sum());
    Ok(())
}

fn hang_up_that_the_caller_ignores_does_not_end_the_command(lab: &Lab) -> Outcome {
    let mut command = lab.pasta().configured().command(client(&["hold"]));
    start::start_with_signals(&mut command, &[], &[Signal::SIGHUP]);
    let mut running = Running::start(command)?;
    running.wait_for_line("holding")?;

    running.signal(Signal::SIGHUP)?;
    running.signal(Signal::SIGTERM)?;

    // Signals are passed on by their numbers where several wait, and HUP has the lowest.
    assert_eq!(enter::shell_code(running.wait()?), 128 + Signal::SIGTERM as i32);
    process::wait_until_none_left()
}

fn command_sees_the_callers_environment_and_streams(lab: &Lab) -> Outcome {
    let mut command = lab.pasta().configured().command(client(&["environment", "MARK"]));
    command.env("MARK", "left-by-the-caller");

    let finished = Running::start(command)?.finish()?.expect_code(0)?;

    assert_eq!(finished.output, ["- left-by-the-caller", "= ok"]);
    Ok(())
}

fn words_of_the_command_are_not_taken_for_options(lab: &Lab) -> Outcome {
    // Without `--` too: reading options ends at the first word that is none.
    let words = ["lab-client", "--version"];
    let finished = lab.pasta().configured().with(words).run([""; 0])?.expect_code(1)?;

    assert_eq!(finished.output, ["= error no question --version"]);
    Ok(())
}

fn login_shell_is_the_command_when_none_is_given(lab: &Lab) -> Outcome {
    let shell = lab.program("lab-client");
    let mut command = lab.pasta().configured().command([""; 0]);
    command.env("SHELL", &shell);

    let finished = Running::start(command)?.finish()?.expect_code(0)?;

    assert_eq!(finished.output, [format!("- called -{}", shell.display()), "= ok".to_owned()]);
    Ok(())
}

const FORWARDED: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

fn deadly_signals_end_a_command_that_does_not_handle_them(lab: &Lab) -> Outcome {
    for signal in FORWARDED {
        let mut running = lab.pasta().configured().start(client(&["hold"]))?;
        running.wait_for_line("holding")?;

        running.signal(signal)?;

        let code = running.finish()?.code();
        assert_eq!(code, 128 + signal as i32, "{signal}");
        process::wait_until_none_left().map_err(|error| format!("{signal}: {error}"))?;
    }
    Ok(())
}

fn signals_reach_a_command_that_handles_them(lab: &Lab) -> Outcome {
    for signal in FORWARDED {
        let mut running = lab.pasta().configured().start(client(&["await-signal"]))?;
        running.wait_for_line("waiting")?;

        running.signal(signal)?;

        let finished = running.finish()?.expect_code(0)?;
        assert_eq!(finished.output, ["waiting", &format!("- {signal}"), "= ok"]);
    }
    Ok(())
}

/// How long a window waits for what is to appear there. Chosen: only a failure comes this far.
const SCREEN_PATIENCE_MS: u16 = 30_000;

/// `pasta` in a window of its own: what the window shows, and a way to type.
struct Window {
    child: std::process::Child,
    keyboard: File,
    screen: String,
}

impl Window {
    fn open(pasta: &Pasta<'_>, words: &[&str]) -> Outcome<Self> {
        let terminal = openpty(None, None)?;
        let mut command = pasta.command(client(words));
        sys::attach_to_terminal(&mut command, &terminal.slave)?;
        let child = command.spawn()?;
        Ok(Self { child, keyboard: terminal.master.into(), screen: String::new() })
    }

    /// Waits until the screen shows `text`.
    fn wait_for(&mut self, text: &str) -> Outcome {
        let mut octets = [0; 1024];
        while !self.screen.contains(text) {
            let mut polled = [PollFd::new(self.keyboard.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, SCREEN_PATIENCE_MS)? == 0 {
                return Err(format!("no {text:?} on the screen: {:?}", self.screen).into());
            }
            let length = self.keyboard.read(&mut octets)?;
            self.screen += &String::from_utf8_lossy(&octets[..length]);
        }
        Ok(())
    }

    /// Presses Ctrl-C.
    fn interrupt(&mut self) -> io::Result<()> {
        self.keyboard.write_all(&[3])
    }

    /// Waits for the end of `pasta`; gives its exit code.
    fn end(mut self) -> Outcome<i32> {
        let child = &mut self.child;
        let status = wait::until("the end of pasta", || child.try_wait().transpose())??;
        Ok(enter::shell_code(status))
    }
}

fn interrupt_at_the_terminal_ends_the_command(lab: &Lab) -> Outcome {
    let mut window = Window::open(&lab.pasta().configured(), &["hold"])?;
    window.wait_for("holding")?;

    window.interrupt()?;

    assert_eq!(window.end()?, 128 + Signal::SIGINT as i32);
    process::wait_until_none_left()
}

fn interrupt_at_the_terminal_reaches_a_command_that_handles_it_and_nobody_else(
    lab: &Lab,
) -> Outcome {
    let mut window = Window::open(&lab.pasta().configured(), &["serve"])?;
    window.wait_for("ready")?;
    window.keyboard.write_all(b"await-signal\n")?;
    window.wait_for("waiting")?;

    window.interrupt()?;

    // COMMAND goes on, the network with it, and a second signal has not come after the first.
    window.wait_for("SIGINT")?;
    window.keyboard.write_all(b"ping 198.51.100.1 1 56\n")?;
    window.wait_for("answered 1")?;
    window.keyboard.write_all(b"exit 9\n")?;
    assert_eq!(window.end()?, 9);
    process::wait_until_none_left()
}

fn interface_left_alone_is_one_line_at_a_terminal_and_nowhere_else(lab: &Lab) -> Outcome {
    let line = "pasta: the interface in the namespace is not configured";
    let plain = lab.pasta();
    for (pasta, lines) in
        [(plain.clone(), 1), (plain.clone().with(["-q"]), 0), (plain.clone().configured(), 0)]
    {
        let mut window = Window::open(&pasta, &["hold"])?;
        window.wait_for("holding")?;
        assert_eq!(window.screen.matches(line).count(), lines, "{pasta:?}: {}", window.screen);
        assert_eq!(window.screen.matches("pasta:").count(), lines, "{pasta:?}: {}", window.screen);
        window.interrupt()?;
        window.end()?;
    }

    let finished = plain.run(client(&["exit", "0"]))?.expect_code(0)?;
    assert_eq!((finished.output, finished.errors), (Vec::new(), String::new()));
    process::wait_until_none_left()
}

fn nothing_is_left_when_the_command_has_ended(lab: &Lab) -> Outcome {
    let inside = lab.session()?;
    assert!(!process::all()?.is_empty(), "no process to look at");

    inside.end(0)?.expect_code(0)?;

    process::wait_until_none_left()
}

fn orphans_end_with_the_command(lab: &Lab) -> Outcome {
    let mut inside = lab.session()?;
    inside.must(["orphan"])?;
    let clients = || -> Outcome<usize> {
        Ok(process::all()?.iter().filter(|process| process.name == "lab-client").count())
    };
    assert_eq!(clients()?, 2, "COMMAND and its orphan: {:?}", process::all()?);

    inside.end(3)?.expect_code(3)?;

    process::wait_until_none_left()
}

fn failed_start_leaves_nothing(lab: &Lab) -> Outcome {
    let finished = lab.pasta().configured().with(["-a", "127.0.0.1"]).run(client(&["hold"]))?;

    finished.expect_code(1)?;
    process::wait_until_none_left()
}

fn status_tells_what_the_start_waits_for(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    lab.remove_uplink()?;
    let pasta = lab.pasta().configured().with(["--bind-wait", "60000"]);
    let mut running = pasta.start(client(&["hold"]))?;
    // Only then are signals read; the monitor is confined before it waits.
    wait::until("the confined monitor", || {
        let monitor = process::only(MONITOR).ok()?;
        monitor.status("Seccomp").ok().filter(|mode| mode == "2")
    })?;

    // A look ends nothing.
    running.signal(Signal::SIGUSR2)?;
    wait::until("the status", || {
        running.signal(Signal::SIGUSR1).ok()?;
        let line =
            "pasta: status: starting: waiting for a network, 60000 ms at most (--bind-wait)\n";
        running.errors().contains(line).then_some(())
    })?;
    wait::until("the monitor's part of it", || {
        running.errors().contains("pasta: status: candidates IPv4: none").then_some(())
    })
    .map_err(|error| format!("{error}: {}", running.errors()))?;

    running.signal(Signal::SIGTERM)?;
    assert_eq!(enter::shell_code(running.wait()?), 128 + Signal::SIGTERM as i32);
    process::wait_until_none_left()
}

fn version_and_help_are_printed_without_a_network(lab: &Lab) -> Outcome {
    lab.remove_uplink()?;

    let version = lab.pasta().with(["--version"]).run([""; 0])?.expect_code(0)?;
    assert!(version.output[0].starts_with("pasta "), "{version:?}");

    let help = lab.pasta().with(["--help"]).run([""; 0])?.expect_code(0)?;
    let text = help.output.join("\n");
    assert!(text.contains("--config-net") && text.contains("--map-host-loopback"), "{text}");
    Ok(())
}

fn explanation_is_what_a_start_does_and_does_nothing(lab: &Lab) -> Outcome {
    let options = ["--explain", "-t", "8080:80", "-a", "192.0.2.99/24"];
    let explained = lab.pasta().configured().with(options);

    let text = explained.run(client(&["exit", "7"]))?.expect_code(0)?.output.join("\n");

    let squeezed: Vec<_> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for wanted in [
        "command lab-client exit 7",
        "state bound",
        "addresses 192.0.2.99/24",
        "capabilities CAP_NET_ADMIN CAP_NET_BIND_SERVICE",
        "to namespace transport TCP, ports 8080, to port 80, open always",
    ] {
        assert!(squeezed.iter().any(|line| line == wanted), "no {wanted:?} in {text}");
    }
    process::wait_until_none_left()?;

    // Without a network, a tap, or a namespace that exists; nothing is attached to.
    lab.remove_uplink()?;
    let json = lab.pasta().with(["--explain", "--json", "--netns", "/nowhere"]);
    let json = json.run([""; 0])?.expect_code(0)?.output.join("\n");
    assert!(json.contains("cannot open namespace /nowhere: No such file or directory"), "{json}");
    assert!(json.starts_with("{\"target\":{") && json.contains("\"state\":\"local\""), "{json}");
    process::wait_until_none_left()
}

fn answer_that_cannot_be_written_is_an_error(lab: &Lab) -> Outcome {
    for option in ["--help", "--version"] {
        let mut command = lab.pasta().with([option]).command(std::iter::empty::<&str>());
        command.stdout(File::options().write(true).open("/dev/full")?);
        let output = command.stderr(std::process::Stdio::piped()).output()?;
        assert_eq!(output.status.code(), Some(1), "{option}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"), "{option}");
    }
    Ok(())
}

fn unknown_option_is_named(lab: &Lab) -> Outcome {
    let finished = lab.pasta().with(["--no-such-option"]).run(client(&["exit", "0"]))?;

    let finished = finished.expect_code(1)?;
    assert!(finished.errors.contains("unrecognized option '--no-such-option'"), "{finished:?}");
    assert_eq!(finished.output, Vec::<String>::new());
    Ok(())
}

fn errors_begin_with_the_name_and_have_no_number(lab: &Lab) -> Outcome {
    for (options, command, wanted) in [
        (
            &["--netns", "/no/such"][..],
            "",
            "cannot open namespace /no/such: No such file or directory",
        ),
        (&["-P", "/no/such/pid"], "true", "cannot write PID file /no/such/pid (-P): No such file"),
        (&["-l", "/no/such/log"], "true", "cannot write log file /no/such/log (-l): No such file"),
        (
            &["-p", "/no/such/p"],
            "true",
            "frames are not captured: cannot write /no/such/p (-p): No such",
        ),
        (&["-c", "/no/such/c"], "true", "cannot make control socket /no/such/c (-c): No such file"),
        (
            &["status", "999999999"],
            "",
            "cannot look at process 999999999: No such file or directory",
        ),
        (&[], "/no/such", "cannot run '/no/such': No such file or directory"),
        (&["-m", "70000"], "", "MTU 70000 too large"),
        (&["-t", "80:"], "", "option '-t': invalid value"),
    ] {
        let command = Some(command).filter(|command| !command.is_empty());
        let finished = lab.pasta().with(options.iter().copied()).run(command)?;
        let said = &finished.errors;
        assert!(said.contains(wanted), "{options:?}: {said}");
        assert!(!said.contains("os error"), "{options:?}: {said}");
        let begins = |line: &str| line.starts_with("pasta: ");
        assert!(said.lines().all(begins), "{options:?}: {said}");
    }
    Ok(())
}

fn quiet_run_says_nothing(lab: &Lab) -> Outcome {
    let finished = lab.pasta().configured().with(["-q"]).run(client(&["exit", "0"]))?;

    let finished = finished.expect_code(0)?;
    assert_eq!((finished.output, finished.errors), (Vec::new(), String::new()));
    Ok(())
}

fn two_instances_do_not_disturb_each_other(lab: &Lab) -> Outcome {
    let mut first = lab.session()?;
    let mut second = lab.session()?;

    for inside in [&mut first, &mut second] {
        inside.must(["ping", "198.51.100.1", "1", "56"])?;
    }
    first.end(1)?.expect_code(1)?;

    second.must(["ping", "198.51.100.1", "1", "56"])?;
    second.end(2)?.expect_code(2)?;
    process::wait_until_none_left()
}
