//! The processes of a lab, as `/proc` shows them.
//!
//! The lab has a PID namespace of its own, so these are the processes of one test: process 1 that
//! reaps, process 2 that is the test, and what the test started.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait;
use crate::{Outcome, sys};

/// Processes that belong to the lab itself: its reaper and the test.
const LABS_OWN: i32 = 2;

/// A process of the lab that is not the lab's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number in the lab's PID namespace.
    pub pid: i32,
    /// Its parent's number; 0 for a parent that is out of sight.
    pub parent: i32,
    /// Its session's number.
    pub session: i32,
    /// File name of the program, from its argument list.
    pub name: String,
}

impl Process {
    /// Reads process `pid`; nothing when it is gone or a zombie.
    pub fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the command in parentheses and may hold anything, so count from its end.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        if matches!(state, "Z" | "X") {
            return None;
        }
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let first = arguments.split(|octet| *octet == 0).next()?;
        let name = Path::new(std::str::from_utf8(first).ok()?).file_name();
        let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Some(Self { pid, parent, session, name })
    }

    /// One field of `/proc/PID/status`, without surrounding blanks.
    ///
    /// # Errors
    ///
    /// When the process or the field is not there.
    pub fn status(&self, field: &str) -> Outcome<String> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let value = value.ok_or_else(|| format!("no field {field} for {self:?}"))?;
        Ok(value.trim().to_owned())
    }

    /// A capability set from `/proc/PID/status`: `CapEff`, `CapPrm`, `CapInh`, `CapBnd` or `CapAmb`.
    ///
    /// # Errors
    ///
    /// As [`Process::status`].
    pub fn capabilities(&self, set: &str) -> Outcome<u64> {
        Ok(u64::from_str_radix(&self.status(set)?, 16)?)
    }

    /// Identity of its namespace of kind `kind` (`net`, `user`, `mnt`, ...): equal for two
    /// processes exactly when they share it.
    ///
    /// # Errors
    ///
    /// When the process is gone or may not be looked at.
    pub fn namespace(&self, kind: &str) -> Outcome<PathBuf> {
        Ok(fs::read_link(format!("/proc/{}/ns/{kind}", self.pid))?)
    }

    /// Memory it holds, in octets, with shared pages counted in parts (PSS).
    ///
    /// # Errors
    ///
    /// When it is gone or may not be looked at.
    pub fn memory(&self) -> Outcome<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?;
        let kibibytes =
            text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next());
        Ok(kibibytes.ok_or("no Pss")?.parse::<u64>()? * 1024)
    }

    /// Processor time of its only thread so far, in nanoseconds.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn processor_time(&self) -> Outcome<u64> {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.pid))?;
        Ok(text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?)
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        Self::read(self.pid).is_some()
    }

    /// A copy of its descriptor `number`: what it is connected to, the test is from now on.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn descriptor(&self, number: i32) -> Outcome<OwnedFd> {
        Ok(sys::descriptor_of(self.pid, number)?)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill(Pid::from_raw(self.pid), signal)?)
    }

    /// Waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it is still there after the lab's patience.
    pub fn wait_until_gone(&self) -> Outcome {
        wait::until(&format!("the end of {self:?}"), || (!self.runs()).then_some(()))
    }
}

/// All processes of the lab that are not the lab's own, by number.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub fn all() -> Outcome<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if pid > LABS_OWN {
            processes.extend(Process::read(pid));
        }
    }
    processes.sort_by_key(|process| process.pid);
    Ok(processes)
}

/// The only process whose program is called `name`.
///
/// # Errors
///
/// When there is none, or more than one.
pub fn only(name: &str) -> Outcome<Process> {
    let all = all()?;
    let mut named = all.iter().filter(|process| process.name == name);
    match (named.next(), named.next()) {
        (Some(process), None) => Ok(process.clone()),
        (None, _) => Err(format!("no process {name} among {all:?}").into()),
        (Some(_), Some(_)) => Err(format!("more than one process {name} among {all:?}").into()),
    }
}

/// Lets this process, and what it starts, have as many descriptors as it may; gives how many that are.
///
/// # Errors
///
/// What `setrlimit(2)` reports.
pub fn raise_descriptors() -> Outcome<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

/// Waits until nothing that a test started is left.
///
/// # Errors
///
/// Lists what is left after the lab's patience.
pub fn wait_until_none_left() -> Outcome {
    let none = || all().is_ok_and(|all| all.is_empty()).then_some(());
    wait::until("the end of all processes", none)
        .map_err(|error| format!("{error}; left: {:?}", all().unwrap_or_default()).into())
}
