//! Following a program and all that it starts (ptrace(2)), and holding one of them at its exec.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::wait;
use crate::{Outcome, sys};

/// A program and its processes, all traced by the calling thread, which alone may use this. They end with it.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    /// The program to hold, by its name.
    hold: Option<&'static str>,
    held: Option<Pid>,
    /// All that have come up.
    known: BTreeSet<Pid>,
    ended: Option<ExitStatus>,
}

impl Tracer {
    /// Starts `command`, traced, with its standard error kept. The process that executes `hold` stays where it
    /// is then: nothing of the program has run. Others that execute something are traced no more.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(mut command: Command, hold: Option<&'static str>) -> Outcome<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        sys::be_traced(&mut command);
        let child = command.spawn()?;
        Ok(Self { child, hold, held: None, known: BTreeSet::new(), ended: None })
    }

    /// Number of the program's process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Its standard error, which never blocks.
    ///
    /// # Errors
    ///
    /// When it was taken before.
    pub fn errors(&mut self) -> Outcome<ChildStderr> {
        let stream = self.child.stderr.take().ok_or("no standard error")?;
        fcntl(&stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(stream)
    }

    /// Waits for the process that is to be held.
    ///
    /// # Errors
    ///
    /// When it does not come, or the program ends before.
    pub fn wait_for_held(&mut self) -> Outcome<Pid> {
        wait::until("the process to hold", || match self.go_on() {
            Ok(()) => {
                self.held.map(Ok).or_else(|| self.ended.map(|end| Err(format!("{end}").into())))
            }
            Err(error) => Some(Err(error)),
        })?
    }

    /// Lets the program run until `done`.
    ///
    /// # Errors
    ///
    /// When that does not come.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut() -> bool) -> Outcome {
        wait::until(what, || match self.go_on() {
            Ok(()) => done().then_some(Ok(())),
            Err(error) => Some(Err(error)),
        })?
    }

    /// Lets the program run to its end; gives how it ended and what it wrote to its standard error.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn finish(mut self) -> Outcome<(ExitStatus, String)> {
        let ended = wait::until("the end of the program", || match self.go_on() {
            Ok(()) => self.ended.map(Ok),
            Err(error) => Some(Err(error)),
        })??;
        let mut errors = String::new();
        // Little enough for the pipe; all that could hold its other end has ended.
        self.child.stderr.take().ok_or("no standard error")?.read_to_string(&mut errors)?;
        Ok((ended, errors))
    }

    /// Takes what has happened, and has everything go on that is not held.
    fn go_on(&mut self) -> Outcome {
        loop {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
            let status = match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(()),
                status => status?,
            };
            match status {
                WaitStatus::Exited(pid, code) if pid == self.pid() => {
                    self.ended = Some(ExitStatus::from_raw(code << 8));
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.pid() => {
                    self.ended = Some(ExitStatus::from_raw(signal as i32));
                }
                WaitStatus::PtraceEvent(pid, _, event)
                    if event == Event::PTRACE_EVENT_EXEC as i32 =>
                {
                    let arguments = fs::read(format!("/proc/{pid}/cmdline"))?;
                    if self.hold.is_some_and(|name| arguments.starts_with(name.as_bytes())) {
                        self.held = Some(pid);
                    } else if self.hold.is_some() && pid != self.pid() {
                        ptrace::detach(pid, None)?;
                    } else {
                        resume(pid, None)?;
                    }
                }
                WaitStatus::PtraceEvent(pid, ..) | WaitStatus::PtraceSyscall(pid) => {
                    resume(pid, None)?
                }
                WaitStatus::Stopped(pid, signal) => {
                    // The first stop of each is the tracer's own.
                    let is_new = self.known.insert(pid);
                    if is_new && pid == self.pid() {
                        let options = Options::PTRACE_O_TRACEFORK
                            | Options::PTRACE_O_TRACEVFORK
                            | Options::PTRACE_O_TRACECLONE
                            | Options::PTRACE_O_TRACEEXEC
                            | Options::PTRACE_O_EXITKILL;
                        ptrace::setoptions(pid, options)?;
                    }
                    resume(pid, Some(signal).filter(|_| !is_new))?;
                }
                _ => {}
            }
        }
    }
}

fn resume(pid: Pid, signal: Option<Signal>) -> Outcome {
    match ptrace::cont(pid, signal) {
        // Killed meanwhile.
        Err(nix::Error::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // All of them end with their tracer anyway, but the test goes on.
        for pid in &self.known {
            // Fails for one that has ended.
            let _ = nix::sys::signal::kill(*pid, Signal::SIGKILL);
        }
    }
}
