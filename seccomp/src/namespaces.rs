//! Leaving the namespaces, and the session keyring, that a helper has no business in.
//!
//! Both functions are for a process that was exec'd *before* it creates or enters a user namespace
//! and that is non-dumpable since its first line: a process exec'd inside a user namespace can be
//! traced by that namespace's owner even when it is non-dumpable.

use crate::Isolated;
use crate::caps::{DropError, NO_SECUREBITS, become_user, lock_securebits};
use crate::keyring::{NO_KEYRING, new_session_keyring};
use crate::root::{RootError, empty_root};
use crate::sys::{Cloned, clone_sibling, exit_now, take_inherited_socket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getpid, getsid, setsid};
use pasta_ipc::message::{
    Isolation, IsolationRights, IsolationToSupervisor, NotAProcessId, ProcessId,
    SupervisorToIsolation,
};
use pasta_ipc::start::{RootFallback, UserId};
use pasta_ipc::{Channel, ReceiveError, SendError};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

/// The datapath's end of the channel on which it reports its successor (start-up protocol).
pub const ISOLATION_CHANNEL: RawFd = 5;

/// The channel on which a datapath reports its successor.
pub type ReportChannel = Channel<IsolationToSupervisor, SupervisorToIsolation>;

/// What the report says of a namespace that could not be left; [`crate::audit`] looks for it.
pub(crate) const NO_PID_NAMESPACE: &str = "own pid namespace";
/// As [`NO_PID_NAMESPACE`].
pub(crate) const NO_IPC_NAMESPACE: &str = "own ipc namespace";
/// As [`NO_PID_NAMESPACE`].
pub(crate) const NO_UTS_NAMESPACE: &str = "own uts namespace";
/// As [`NO_PID_NAMESPACE`].
pub(crate) const NO_CGROUP_NAMESPACE: &str = "own cgroup namespace";

/// Why a helper could not be isolated. It must end: its namespaces are half changed.
#[derive(Debug)]
pub enum IsolateError {
    /// No session of our own (`setsid`).
    Session(Errno),
    /// No user namespace of our own. The text names the usual switch for this error.
    UserNamespace(Errno),
    /// No mount namespace of our own although the user namespace was made.
    MountNamespace(Errno),
    /// The first process of the new pid namespace could not be made.
    FirstProcess(io::Error),
    /// The channel for the report is missing or is not a socket.
    ReportChannel(io::Error),
    /// The report could not be sent.
    Report(SendError),
    /// The process id of the successor is not valid.
    ProcessId(NotAProcessId),
    /// The process could not be kept from being traced.
    Dumpable(Errno),
    /// The root could not be replaced.
    Root(RootError),
    /// The supervisor has not said how.
    Instruction(ReceiveError),
    /// The user could not be changed.
    ChangeUser(DropError),
}

impl fmt::Display for IsolateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(_) => f.write_str("cannot start a session"),
            Self::UserNamespace(Errno::ENOSPC) => f.write_str(
                "cannot create a user namespace (see sysctl user.max_user_namespaces, or they \
                 are nested too deeply)",
            ),
            Self::UserNamespace(Errno::EPERM | Errno::EACCES) => f.write_str(
                "cannot create a user namespace (see sysctl kernel.unprivileged_userns_clone, \
                 AppArmor, or the seccomp filter of a container)",
            ),
            Self::UserNamespace(_) => f.write_str("cannot create a user namespace"),
            Self::MountNamespace(Errno::EPERM | Errno::EACCES) => f.write_str(
                "user namespaces can be created here but hold no power (AppArmor: install the \
                 profile that comes with pasta)",
            ),
            Self::MountNamespace(_) => f.write_str("cannot create a mount namespace"),
            Self::FirstProcess(_) => f.write_str("cannot create the first process of a namespace"),
            Self::ReportChannel(_) | Self::Report(_) | Self::ProcessId(_) => {
                f.write_str("cannot report the pid to the launcher")
            }
            Self::Dumpable(_) => f.write_str("cannot become non-dumpable"),
            Self::Root(_) => f.write_str("cannot empty the root directory"),
            Self::Instruction(_) => f.write_str("cannot learn how to isolate"),
            Self::ChangeUser(_) => f.write_str("cannot change the user"),
        }
    }
}

impl std::error::Error for IsolateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Session(errno)
            | Self::UserNamespace(errno)
            | Self::MountNamespace(errno)
            | Self::Dumpable(errno) => Some(errno),
            Self::FirstProcess(error) | Self::ReportChannel(error) => Some(error),
            Self::Report(error) => Some(error),
            Self::ProcessId(error) => Some(error),
            Self::Root(error) => Some(error),
            Self::Instruction(error) => Some(error),
            Self::ChangeUser(error) => Some(error),
        }
    }
}

/// Isolates the datapath: session, user namespace without a map, mount, pid, ipc, uts and cgroup
/// namespaces, empty root.
///
/// Where user namespaces are switched off and root has started it, the others are made with root's
/// rights; then it becomes an ordinary user.
///
/// The process that calls this does not come back: it reports the pid of its successor, as seen by
/// the launcher, on the channel [`ISOLATION_CHANNEL`] and ends with status 0. What returns is the
/// successor: init of the new pid namespace and still a child of
/// the launcher. An init ignores signals without a handler, so the caller wants a signalfd or
/// handler for SIGTERM.
///
/// Only for a process with a single thread.
///
/// # Errors
///
/// [`IsolateError`]; the process must end then.
pub fn isolate_datapath() -> Result<Isolated, IsolateError> {
    #[expect(unsafe_code, reason = "the start-up protocol reserves the number for this function")]
    // SAFETY: the datapath is started with its channel under this number and takes it over here, once.
    let report = unsafe { take_inherited_socket(ISOLATION_CHANNEL) };
    let report = report.map_err(IsolateError::ReportChannel)?;
    isolate_datapath_reporting(report.into())
}

/// As [`isolate_datapath`], with the report sent on `report` instead of [`ISOLATION_CHANNEL`].
///
/// # Errors
///
/// As [`isolate_datapath`].
pub fn isolate_datapath_reporting(report: ReportChannel) -> Result<Isolated, IsolateError> {
    let Isolation { rights, root } = receive_instruction(&report)?;
    own_session()?;
    if rights == IsolationRights::UserNamespace {
        // No map is ever written: the process shows as the overflow user to itself, and the kernel
        // refuses further user namespaces to an unmapped id.
        unshare(CloneFlags::CLONE_NEWUSER).map_err(IsolateError::UserNamespace)?;
    }
    stay_untraceable()?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(IsolateError::MountNamespace)?;
    let mut missing = leave_small_namespaces();
    leave_keyring(&mut missing);
    match unshare(CloneFlags::CLONE_NEWPID) {
        Ok(()) => become_first_process(&report)?,
        Err(errno) => {
            missing.push(format!("{NO_PID_NAMESPACE}: {}", errno.desc()));
            report_successor(&report, getpid().as_raw())?;
        }
    }
    let status = open_status_file().ok();
    if let Some(file) = &status {
        hand_over_status_file(&report, file);
    }
    drop(report);
    empty_root(root).map_err(IsolateError::Root)?;
    if let IsolationRights::Root(UserId { uid, gid }) = rights {
        // The right to lock them goes with the user.
        if let Err(error) = lock_securebits() {
            missing.push(format!("{NO_SECUREBITS}: {error}"));
        }
        become_user(Uid::from_raw(uid), Gid::from_raw(gid)).map_err(IsolateError::ChangeUser)?;
    }
    Ok(Isolated { missing, status })
}

/// Isolates the monitor, which is in the target's user and network namespaces already: session,
/// mount, ipc, uts and cgroup namespaces, empty root.
///
/// # Errors
///
/// [`IsolateError`]; the process must end then.
pub fn isolate_monitor(root: RootFallback) -> Result<Isolated, IsolateError> {
    own_session()?;
    stay_untraceable()?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(IsolateError::MountNamespace)?;
    let mut missing = leave_small_namespaces();
    leave_keyring(&mut missing);
    let status = open_status_file().ok();
    empty_root(root).map_err(IsolateError::Root)?;
    Ok(Isolated { missing, status })
}

/// Waits for the supervisor's instruction; nothing runs yet, so this blocks.
fn receive_instruction(channel: &ReportChannel) -> Result<Isolation, IsolateError> {
    loop {
        match channel.receive() {
            Ok(received) => {
                let SupervisorToIsolation::Isolate(how) = received.message;
                return Ok(how);
            }
            Err(ReceiveError::WouldBlock) => {
                let mut wait = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
                match poll(&mut wait, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => {
                        return Err(IsolateError::Instruction(ReceiveError::Io(errno.into())));
                    }
                }
            }
            Err(error) => return Err(IsolateError::Instruction(error)),
        }
    }
}

/// Keys typed at the user's terminal signal its foreground group, never a session of its own.
fn own_session() -> Result<(), IsolateError> {
    match setsid() {
        Ok(_) => Ok(()),
        // Refused to the leader of a process group; fine if it leads the session too.
        Err(Errno::EPERM) if getsid(None) == Ok(getpid()) => Ok(()),
        Err(errno) => Err(IsolateError::Session(errno)),
    }
}

/// Sets the process non-dumpable again: entering a user namespace changes credentials, and where
/// they grow the kernel falls back to `fs.suid_dumpable`, which an administrator may have set to 1.
fn stay_untraceable() -> Result<(), IsolateError> {
    prctl::set_dumpable(false).map_err(IsolateError::Dumpable)
}

/// Unshares what neither helper needs, one by one, so that one refusal does not cost the others.
fn leave_small_namespaces() -> Vec<String> {
    let wanted = [
        (CloneFlags::CLONE_NEWIPC, NO_IPC_NAMESPACE),
        (CloneFlags::CLONE_NEWUTS, NO_UTS_NAMESPACE),
        (CloneFlags::CLONE_NEWCGROUP, NO_CGROUP_NAMESPACE),
    ];
    let refused = |(flag, name): (CloneFlags, &str)| {
        unshare(flag).err().map(|errno| format!("{name}: {}", errno.desc()))
    };
    wanted.into_iter().filter_map(refused).collect()
}

/// Neither helper has to do with keys.
fn leave_keyring(missing: &mut Vec<String>) {
    if let Err(error) = new_session_keyring() {
        missing.push(format!("{NO_KEYRING}: {error}"));
    }
}

/// Goes on as process 1 of the pid namespace that was unshared; the caller's process ends.
fn become_first_process(report: &ReportChannel) -> Result<(), IsolateError> {
    match clone_sibling().map_err(IsolateError::FirstProcess)? {
        Cloned::Child => Ok(()),
        Cloned::Parent(pid) => {
            let sent = report_successor(report, pid);
            exit_now(if sent.is_ok() { 0 } else { 1 })
        }
    }
}

/// Hands our status file to the supervisor, which cannot open it itself where `/proc` is mounted with
/// `hidepid`. Without it the audit from outside decides.
fn hand_over_status_file(report: &ReportChannel, file: &OwnedFd) {
    // If this fails, the supervisor lacks it as well.
    let _ = report.send_with(&IsolationToSupervisor::StatusFile, &[file.as_fd()]);
}

/// Opens what the kernel tells others about this process. Whoever gets the descriptor can read it at any
/// later time: `hidepid` is enforced at the lookup only (`proc_pid_permission()`, fs/proc/base.c). Users
/// and groups are shown as those of the user namespace in which it was opened.
///
/// # Errors
///
/// Where `/proc` is not mounted.
pub fn open_status_file() -> io::Result<OwnedFd> {
    File::open("/proc/self/status").map(OwnedFd::from)
}

fn report_successor(report: &ReportChannel, pid: i32) -> Result<(), IsolateError> {
    let pid = ProcessId::try_from(pid).map_err(IsolateError::ProcessId)?;
    report.send(&IsolationToSupervisor::Successor(pid)).map_err(IsolateError::Report)
}
