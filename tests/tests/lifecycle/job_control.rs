//! Stopping and going on, as a shell's job: the shell sees us stopped when COMMAND is, and
//! `fg` has COMMAND go on with the terminal.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::lab::pasta::as_ordinary_user;
use tests::lab::{Lab, process, wait};
use tests::{Outcome, sys};

use super::Window;

/// Ctrl-Z and Ctrl-C.
const SUSPEND: u8 = 26;
const INTERRUPT: u8 = 3;

/// How the programs under test are started by a person. Words are typed in two parts, so that the echo of
/// what was typed is not taken for the answer.
const PASTA: &str = "pasta -q --config-net";

impl Window {
    /// A shell with job control, as the lab's user.
    fn shell(lab: &Lab) -> Outcome<Self> {
        let terminal = nix::pty::openpty(None, None)?;
        let mut command = Command::new("/bin/sh");
        command.arg("-i").env_clear().current_dir("/tmp").env("PS1", "");
        command.env("PATH", "/tmp/programs:/usr/bin:/bin");
        as_ordinary_user(&mut command, lab.power());
        sys::attach_to_terminal(&mut command, &terminal.slave)?;
        let child = command.spawn()?;
        let keyboard = terminal.master.into();
        Ok(Self { child, keyboard, screen: String::new() })
    }

    fn press(&mut self, key: u8) -> Outcome {
        Ok(self.keyboard.write_all(&[key])?)
    }

    /// Types a line and waits until the screen shows `answer` after it.
    fn ask(&mut self, line: &str, answer: &str) -> Outcome {
        self.screen.clear();
        writeln!(self.keyboard, "{line}")?;
        self.wait_for(answer).map_err(|error| format!("{line}: {error}: {}", self.screen).into())
    }

    /// Asks whoever reads the keyboard to show that it does.
    fn expect_reader(&mut self, name: &str) -> Outcome {
        let (first, second) = name.split_at(1);
        self.ask(&format!("echo {first}''{second}"), name)
    }

    /// Ends the outer shell.
    fn close(mut self) -> Outcome {
        // A shell that thinks of stopped jobs refuses the first.
        self.keyboard.write_all(b"exit 0\nexit 0\n")?;
        self.end()?;
        process::wait_until_none_left()
    }
}

/// Waits until COMMAND is stopped, or is not.
fn wait_for_command(stopped: bool) -> Outcome {
    let command = process::only("lab-client")?;
    wait::until_within(Duration::from_secs(20), "the state of COMMAND", || {
        let state = command.status("State").ok()?;
        (state.starts_with('T') == stopped).then_some(())
    })
    .map_err(|error| format!("{error}, stopped {stopped}: {:?}", process::all()).into())
}

/// As `suspend` does, which not every shell has: an interactive shell has taken the terminal.
pub(crate) fn shell_that_stops_itself_gives_the_terminal_back(lab: &Lab) -> Outcome {
    for pids in ["", "--no-pidns"] {
        let mut window = Window::shell(lab)?;
        window.ask(&format!("{PASTA} {pids} -- sh -i"), "\n")?;
        window.expect_reader("inside")?;

        for _ in 0..3 {
            writeln!(window.keyboard, "in=side; kill -STOP $$; echo a''gain")?;
            window.ask("echo \"<$in>\"", "<>")?;
            window.ask("fg", "again")?;
            // It reads what is typed, and has its network.
            window.ask("echo \"<$in>\"", "<side>")?;
            window.ask("lab-client ping 198.51.100.1 1 56", "answered 1")?;
        }

        // Not `exit`: without a number of the group that had the terminal dash(1) takes that for an error.
        window.ask("kill -KILL $$", "\n")?;
        window.ask("echo code=$?", "code=137")?;
        window.close()?;
    }
    Ok(())
}

pub(crate) fn command_that_stops_itself_stops_us_by_the_same_signal(lab: &Lab) -> Outcome {
    for (signal, number) in [("STOP", 19), ("TSTP", 20), ("TTIN", 21), ("TTOU", 22)] {
        let mut window = Window::shell(lab)?;
        let inner = format!("kill -{signal} $$; echo a''gain; exit 5");
        writeln!(window.keyboard, "{PASTA} -- sh -c \"{}\"", inner.replace('$', "\\$"))?;

        window.ask("echo code=$?", &format!("code={}", 128 + number))?;
        window.ask("fg", "again")?;
        window.ask("echo code=$?", "code=5")?;

        window.close()?;
    }
    Ok(())
}

pub(crate) fn key_stops_a_command_and_us_and_the_shell_continues_both(lab: &Lab) -> Outcome {
    for pids in ["", "--no-pidns"] {
        let mut window = Window::shell(lab)?;
        // More than one process in our group.
        let inner = "sh -c 'lab-client hold; true'";
        window.ask(&format!("{PASTA} {pids} -- {inner}"), "holding")?;
        let pasta = process::all()?.into_iter().find(|it| it.name == "pasta").ok_or("no pasta")?;

        for _ in 0..3 {
            window.press(SUSPEND)?;
            window.expect_reader("outside")?;
            wait_for_command(true)?;
            window.ask("fg", "hold")?;
            // A key that comes before is lost with or without us: SIGCONT takes it back.
            wait_for_command(false)?;
            window.screen.clear();
            pasta.signal(Signal::SIGUSR1)?;
            window.wait_for("candidates")?;
        }

        window.press(INTERRUPT)?;
        window.expect_reader("outside")?;
        window.close()?;
    }
    Ok(())
}

pub(crate) fn stopped_from_outside_it_goes_on_when_continued(lab: &Lab) -> Outcome {
    let mut window = Window::shell(lab)?;
    window.ask(&format!("{PASTA} -- lab-client hold &"), "holding")?;
    for _ in 0..3 {
        window.ask("kill -TSTP $!; echo do''ne", "done")?;
        wait_for_command(true)?;
        window.ask("kill -CONT $!; echo do''ne", "done")?;
        wait_for_command(false)?;
    }

    window.ask("kill $!; echo do''ne", "done")?;
    wait::until("the end of COMMAND", || process::only("lab-client").is_err().then_some(()))?;
    window.close()
}

/// A script has no job control: what it runs after us must not be in the background.
pub(crate) fn terminal_is_the_callers_again_when_the_command_has_ended(lab: &Lab) -> Outcome {
    let mut window = Window::shell(lab)?;
    let script = format!("{PASTA} -- sh -i; echo nex''t; read line; echo \"got:$line\"");
    window.ask(&format!("sh -c '{}'", script.replace('\'', "'\\''")), "\n")?;
    window.expect_reader("inside")?;

    window.ask("exit", "next")?;
    window.ask("words", "got:words")?;

    window.close()
}
