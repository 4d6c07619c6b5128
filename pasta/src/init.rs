//! Process 1 of the new PID namespace: prepares the namespaces, starts COMMAND, and reaps.
//!
//! The kernel ignores TERM and INT sent to a process 1 without a handler, also from outside, so COMMAND
//! is a child of this process. Process 1 passes signals on, reaps orphans, and ends with COMMAND's
//! status; the kernel then kills the rest of the namespace. It stays in the caller's process group and
//! session. Once COMMAND has been started, it holds no capability, and no descriptor but standard input,
//! output and error, its signals, and the channel on which it reports the signal that ended COMMAND.
//!
//! When COMMAND is stopped, it reports that, and the supervisor stops; with the supervisor it continues
//! COMMAND, and gives it the terminal back where the caller has given that to us, as su(1) does.
//!
//! Where root started us and COMMAND is another user's, a filter keeps both from typing into the terminal.
//!
//! It passes on signals from outside the PID namespace, whose sender has no id here. A key at the
//! terminal signals the whole foreground process group, COMMAND included, so these are not passed on.

use crate::identity::UserChange;
use crate::inherited::{InheritedState, handled_signals};
use crate::log::emit;
use crate::signals::{ReceivedSignal, Sender};
use crate::sys::{self, CallersDescriptors, Child, Cloned, ForkedProcess};
use crate::sysfs;
use crate::target::{Command, CommandUser, Orphan, PidNamespace, Program};
use crate::terminal;
use crate::termination::Termination;
use caps::CapSet;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{
    Gid, Pid, Uid, execvp, gethostname, getpgid, getpgrp, gettid, sethostname, tcsetpgrp,
};
use pasta_ipc::message::TerminalGround;
use pasta_ipc::types::Text;
use pasta_ipc::{Channel, InitToSupervisor, ReceiveError, SupervisorToInit};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The first descriptor that is not standard input, output or error.
const ABOVE_STANDARD: u32 = 3;

/// Process 1's end of the channel.
pub(crate) type InitChannel = Channel<InitToSupervisor, SupervisorToInit>;

/// Exit status after an error, also where COMMAND could not be started.
const FAILED: i32 = 1;

/// Exit status where COMMAND cannot be found.
const NOT_FOUND: i32 = 127;

/// Exit status where COMMAND cannot be executed.
const NOT_EXECUTABLE: i32 = 126;

/// Longest host name (`__NEW_UTS_LEN`, `linux/utsname.h`).
const MAX_HOST_NAME: usize = 64;

/// The parameters of process 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitConfig<'a> {
    /// COMMAND and its namespaces.
    pub(crate) command: &'a Command,
    /// What is restored for COMMAND.
    pub(crate) inherited: &'a InheritedState,
    /// What the caller has left open for it.
    pub(crate) descriptors: &'a CallersDescriptors,
    /// The user that is mapped to user 0 of the namespace.
    pub(crate) uid: Uid,
    /// The group that is mapped to group 0.
    pub(crate) gid: Gid,
    /// Whether the terminal is another user's.
    pub(crate) change: UserChange,
}

/// Runs process 1, which is a copy of the launcher in new namespaces.
pub(crate) fn run(forked: ForkedProcess, channel: &InitChannel, config: InitConfig<'_>) -> ! {
    let mut kept = config.descriptors.numbers().to_vec();
    kept.push(channel.as_fd().as_raw_fd());
    if forked.close_from(ABOVE_STANDARD, &kept).is_err() {
        sys::exit_now(FAILED);
    }
    if end_with_parent(config.command.orphan).is_err() {
        sys::exit_now(FAILED);
    }
    let prepared = prepare(channel, config).and_then(|[user, net]| {
        channel
            .send_with(&InitToSupervisor::Ready, &[user.as_fd(), net.as_fd()])
            .map_err(|error| format!("cannot hand over namespaces: {error}"))
    });
    if let Err(why) = prepared {
        // If this fails, the launcher sees the end of the process.
        let _ = channel.send(&InitToSupervisor::Failed(Text::truncated(&why)));
        sys::exit_now(FAILED);
    }
    if !wait_for_release(channel) {
        sys::exit_now(FAILED);
    }
    let started = start(config).and_then(|running| {
        let mut kept =
            vec![channel.as_fd(), running.signals.as_fd(), running.command.pidfd.as_fd()];
        kept.extend(running.terminal.as_ref().map(AsFd::as_fd));
        let kept: Vec<_> = kept.iter().map(AsRawFd::as_raw_fd).collect();
        forked.close_from(ABOVE_STANDARD, &kept)?;
        Ok(running)
    });
    sys::exit_now(match started {
        Ok(running) => {
            let termination = running.supervise(channel);
            if let Termination::Killed(signal) = termination {
                // If this fails, the exit status says it too.
                let _ = channel.send(&InitToSupervisor::Killed(signal as i32));
            }
            termination.as_exit_status()
        }
        Err(error) => {
            emit(&format!("pasta: cannot start the command: {error}\n"));
            FAILED
        }
    })
}

/// Has this process killed when its parent ends, unless it is to be left: COMMAND ends with the supervisor,
/// without which the namespace has no network.
fn end_with_parent(orphan: Orphan) -> io::Result<()> {
    match orphan {
        Orphan::Killed => Ok(prctl::set_pdeathsig(Signal::SIGKILL)?),
        Orphan::Left => Ok(()),
    }
}

/// Blocks until COMMAND may start; false: the launcher has ended.
fn wait_for_release(channel: &InitChannel) -> bool {
    loop {
        match channel.receive() {
            Ok(received) => return received.message == SupervisorToInit::Release,
            Err(ReceiveError::WouldBlock) => {
                let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return false,
                }
            }
            Err(_) => return false,
        }
    }
}

/// Prepares the namespaces, and opens the user and the network namespace. Steps that COMMAND can do
/// without only cause a warning.
fn prepare(channel: &InitChannel, config: InitConfig<'_>) -> Result<[OwnedFd; 2], String> {
    match config.command.user {
        CommandUser::New => map_ids(config)?,
        // A user namespace that was just created by another program may still lack its map.
        CommandUser::At(_) if is_unmapped() => map_ids(config)?,
        CommandUser::At(_) | CommandUser::Ours => {}
    }
    let warn = |what: &str, error: &dyn Display| {
        let text = Text::truncated(&format!("{what}: {error}"));
        // If this fails, the launcher has ended, which is noticed later.
        let _ = channel.send(&InitToSupervisor::Warning(text));
    };
    // Where the user namespace is not a new one, what is mounted here would appear outside too.
    let private = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    if let Err(errno) = mount(None::<&str>, "/", None::<&str>, private, None::<&str>) {
        return Err(format!("cannot keep mounts of the namespace to it: {}", errno.desc()));
    }
    // Without it COMMAND has what the caller has.
    let _ = sysfs::mount_own();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if config.command.pids == PidNamespace::Shared {
        // What COMMAND leaves behind becomes a child of this process, which ends it.
        prctl::set_child_subreaper(true)
            .map_err(|errno| format!("cannot become subreaper: {}", errno.desc()))?;
    } else if let Err(errno) = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>) {
        warn("cannot mount /proc in the namespace", &errno.desc());
    }
    // Group 0, the only group of the namespace, may open echo sockets.
    if let Err(error) = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0") {
        warn("cannot allow echo sockets in the namespace", &error);
    }
    // TCP sizes its frames by the pacing rate unless the minimum RTT is small. Segments of the namespace
    // go only to the datapath, so bursts do no harm and small frames cost processor time: this disables
    // the dependency on the RTT. Where it fails (before Linux 5.18) many flows are slower.
    let _ = fs::write("/proc/sys/net/ipv4/tcp_tso_rtt_log", "20");
    let named = match &config.command.host_name {
        Some(name) => sethostname(name.as_str()),
        None => gethostname().and_then(|host| sethostname(host_name(host))),
    };
    if let Err(errno) = named {
        warn("cannot set the host name of the namespace", &errno.desc());
    }
    let open_own = |path: &str| -> Result<OwnedFd, String> {
        open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| format!("cannot open {path} in the namespace: {}", errno.desc()))
    };
    Ok([open_own("/proc/self/ns/user")?, open_own("/proc/self/ns/net")?])
}

/// Whether our user namespace has no map of users yet.
fn is_unmapped() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.trim().is_empty())
}

/// Maps the caller to user 0 and group 0 of the new user namespace.
fn map_ids(config: InitConfig<'_>) -> Result<(), String> {
    // The map files of a non-dumpable process are owned by root.
    let dumpable = |yes| {
        prctl::set_dumpable(yes).map_err(|errno| format!("cannot set dumpable: {}", errno.desc()))
    };
    dumpable(true)?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {} 1\n", config.uid)),
        ("gid_map", format!("0 {} 1\n", config.gid)),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| format!("cannot write {file} of the namespace: {error}"))?;
    }
    dumpable(false)
}

/// The host's name with our prefix, cut to the length that the kernel accepts.
fn host_name(host: OsString) -> OsString {
    let mut name = b"pasta-".to_vec();
    name.extend(host.as_bytes());
    name.truncate(MAX_HOST_NAME);
    OsString::from_vec(name)
}

/// COMMAND, running, and the signals for it.
struct Running {
    command: Child,
    signals: SignalFd,
    pids: PidNamespace,
    /// The controlling terminal, if there is one.
    terminal: Option<OwnedFd>,
    /// Whether the supervisor knows that COMMAND was stopped, and has not gone on since.
    is_reported: Cell<bool>,
    /// The signal of a stop after that one.
    stopped_again: Cell<Option<Signal>>,
}

/// Starts COMMAND and gives up every capability.
fn start(config: InitConfig<'_>) -> io::Result<Running> {
    let early = pending()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&handled_signals(), flags)?;
    let terminal = terminal::open_device().ok();
    if config.change == UserChange::FromRoot {
        seccomp::refuse_typing().map_err(|error| {
            io::Error::new(error.kind(), format!("it could type into root's terminal: {error}"))
        })?;
    }
    let command = match sys::clone_process(0)? {
        Cloned::Parent(command) => command,
        Cloned::Child(forked) => {
            let Err(error) = exec_command(&forked, config);
            let path = config.command.program.path.to_string_lossy();
            emit(&format!("pasta: cannot run '{path}': {error}\n"));
            sys::exit_now(cannot_run(&error))
        }
    };
    for signal in early {
        kill(command.pid, signal)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    let (is_reported, stopped_again) = (Cell::new(false), Cell::new(None));
    Ok(Running {
        command,
        signals,
        pids: config.command.pids,
        terminal,
        is_reported,
        stopped_again,
    })
}

/// The signals that are pending from before COMMAND was started: all are passed on, those of the
/// terminal included.
fn pending() -> io::Result<Vec<Signal>> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&handled_signals(), flags)?;
    let mut pending = Vec::new();
    while let Some(info) = signals.read_signal()? {
        pending.extend(ReceivedSignal::from(&info).for_command());
    }
    Ok(pending)
}

fn exec_command(forked: &ForkedProcess, config: InitConfig<'_>) -> io::Result<Infallible> {
    forked.close_from(ABOVE_STANDARD, config.descriptors.numbers())?;
    forked.pass_on(config.descriptors)?;
    config.inherited.restore()?;
    // Without a PID namespace the end of process 1 ends nothing else.
    if config.command.pids == PidNamespace::Shared {
        end_with_parent(config.command.orphan)?;
    }
    let Program { path, args } = &config.command.program;
    Ok(execvp(path, args)?)
}

/// The exit status where COMMAND cannot be run, as shells and env(1) have it.
fn cannot_run(error: &io::Error) -> i32 {
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

impl Running {
    /// Passes signals on and reaps until COMMAND has ended; returns how.
    fn supervise(&self, channel: &InitChannel) -> Termination {
        let mut supervisor = Some(channel);
        loop {
            if let Some(status) = self.reap(channel) {
                return self.ended(status);
            }
            if let Err(errno) = self.wait(supervisor).and_then(|()| self.pass_on()) {
                emit(&format!("pasta: cannot wait for the command: {}\n", errno.desc()));
                return Termination::Unknown;
            }
            while let Some(channel) = supervisor {
                match channel.receive().map(|received| received.message) {
                    Ok(SupervisorToInit::Continue(ground)) => {
                        if let Some(status) = self.go_on(ground, channel) {
                            return self.ended(status);
                        }
                    }
                    Ok(SupervisorToInit::Release) => {}
                    Err(ReceiveError::WouldBlock) => break,
                    // It has ended.
                    Err(_) => supervisor = None,
                }
            }
        }
    }

    /// What is left to do when COMMAND has ended; returns how it has.
    fn ended(&self, status: Termination) -> Termination {
        if self.pids == PidNamespace::Shared {
            end_orphans();
        }
        status
    }

    /// The supervisor goes on: so does COMMAND, unless it has gone on already and was stopped once more,
    /// which is reported anew. How it has ended, if it has.
    fn go_on(&self, ground: TerminalGround, channel: &InitChannel) -> Option<Termination> {
        let ended = self.reap(channel);
        // Whoever has continued the supervisor has mostly continued the whole process group.
        let flags = WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG;
        let status = waitid(Id::Pid(self.command.pid), flags);
        let goes_on = matches!(status, Ok(WaitStatus::Continued(_)));
        let again = self.stopped_again.take().filter(|_| !goes_on);
        // A group outside the PID namespace has the number 0 here.
        let group = getpgid(Some(self.command.pid)).ok().filter(|group| *group != getpgrp());
        match group {
            _ if again.is_some() => {}
            Some(group) => self.continue_group(group, ground),
            // It may be about to be stopped again.
            None if goes_on => {}
            // If it fails, it has ended.
            None => drop(kill(self.command.pid, Signal::SIGCONT)),
        }
        // If one of these fails, the supervisor has ended.
        let _ = channel.send(&InitToSupervisor::Continued);
        self.is_reported.set(again.is_some());
        if let Some(signal) = again {
            let _ = channel.send(&InitToSupervisor::Stopped(signal as i32));
        }
        ended
    }

    /// Waits for a signal or a message.
    fn wait(&self, supervisor: Option<&InitChannel>) -> nix::Result<()> {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![readable(self.signals.as_fd())];
        fds.extend(supervisor.map(|channel| readable(channel.as_fd())));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Passes on the signals that have arrived, as far as they are for COMMAND.
    fn pass_on(&self) -> nix::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            let received = ReceivedSignal::from(&info);
            // Without a PID namespace the supervisor is a process like others.
            let passes = match self.pids {
                PidNamespace::New => received.sender == Sender::Outside,
                PidNamespace::Shared => received.sender != Sender::Terminal,
            };
            let stop = received.signal.filter(|_| received.is_stop());
            if passes {
                if let Some(signal) = received.for_command().or(stop) {
                    // Fails if it has just ended; the next iteration reaps it.
                    let _ = kill(self.command.pid, signal);
                }
            }
        }
        Ok(())
    }

    /// Continues a process group of COMMAND's own, and gives it the terminal if that is ours.
    fn continue_group(&self, group: Pid, ground: TerminalGround) {
        if let (TerminalGround::Foreground, Some(terminal)) = (ground, &self.terminal) {
            // SIGTTOU is blocked here. Fails if COMMAND has left the session.
            let _ = tcsetpgrp(terminal, group);
        }
        let _ = killpg(group, Signal::SIGCONT);
    }

    /// Reaps what has ended; how COMMAND has, if it was among them. Reports that COMMAND was stopped.
    fn reap(&self, channel: &InitChannel) -> Option<Termination> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
        loop {
            match waitid(Id::All, flags) {
                Ok(WaitStatus::StillAlive) => return None,
                Ok(WaitStatus::Stopped(pid, signal)) => {
                    if pid != self.command.pid {
                        continue;
                    }
                    if self.is_reported.replace(true) {
                        // Somebody has continued it since.
                        self.stopped_again.set(Some(signal));
                    } else {
                        // If this fails, the supervisor has ended.
                        let _ = channel.send(&InitToSupervisor::Stopped(signal as i32));
                    }
                }
                Ok(status) if status.pid() == Some(self.command.pid) => {
                    return Some(Termination::from(status));
                }
                // An orphan, or interrupted: there may be more.
                Ok(_) | Err(Errno::EINTR) => {}
                // Only this function reaps COMMAND, so there is always a child.
                Err(_) => return Some(Termination::Unknown),
            }
        }
    }
}

/// Kills what COMMAND has left behind, without a PID namespace whose end does that: as subreaper, this
/// process is the parent of every orphan. Ends when there is none but those that it may not kill, or where
/// the kernel does not list children (`CONFIG_PROC_CHILDREN`).
fn end_orphans() {
    let path = format!("/proc/self/task/{}/children", gettid());
    let mut left = BTreeSet::new();
    loop {
        let list = fs::read_to_string(&path).unwrap_or_default();
        let children = list.split_ascii_whitespace().filter_map(|it| it.parse().ok());
        let children: Vec<i32> = children.filter(|child| !left.contains(child)).collect();
        if children.is_empty() {
            return;
        }
        for child in children {
            match kill(Pid::from_raw(child), Signal::SIGKILL) {
                // Its children become ours when it has ended.
                Ok(()) => drop(waitid(Id::Pid(Pid::from_raw(child)), WaitPidFlag::WEXITED)),
                // One of another user, which we have no right over any more.
                Err(errno) => {
                    let why = errno.desc();
                    emit(&format!("pasta: process {child} of the command is left: {why}\n"));
                    left.insert(child);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_name_is_marked_and_fits_the_kernel() {
        assert_eq!(host_name("box".into()), "pasta-box");
        let long = host_name("x".repeat(64).into());
        assert_eq!(long.len(), MAX_HOST_NAME);
        assert!(long.to_string_lossy().starts_with("pasta-xxx"));
    }
}
