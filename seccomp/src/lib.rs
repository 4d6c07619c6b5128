//! Everything in pasta that takes power away from a process.
//!
//! One way of giving up power per file, and the report of what is left:
//!
//! | file | gives up |
//! | --- | --- |
//! | [`namespaces`] | the host's mounts, processes, ipc objects, names and cgroups |
//! | `root` | every path |
//! | [`caps`] | capabilities, the ways back to them, groups, root's user id |
//! | `limits` | core dumps, new processes, file growth, descriptors without bound |
//! | `landlock` | files, TCP ports, abstract sockets and signals, as a second fence |
//! | `filter` | every system call that is not on the list of the process |
//! | `keyring` | the keys of whoever started it |
//! | `terminal` | of COMMAND: typing into the terminal of the one who started us |
//! | [`audit`] | nothing: it reads back what is left, from inside and from outside |
//!
//! # The order
//!
//! Each step needs what a later one takes away, so there is one order, and [`confine`] is its only
//! place. Before it, a helper is exec'd, calls [`harden_early`] first, and leaves its namespaces
//! with [`isolate_datapath`] or [`isolate_monitor`], because a process exec'd inside a user
//! namespace can be traced by that namespace's owner. Then:
//!
//! 1. bounding set and securebits, which need `CAP_SETPCAP`;
//! 2. groups, then all capabilities but those of the table;
//! 3. the parent-death signal, which a change of credentials would clear, and a look whether the
//!    supervisor had died before;
//! 4. resource limits, `no_new_privs`, memory-deny-write-execute;
//! 5. Landlock, which needs `no_new_privs` and forbids mounts;
//! 6. the self-audit, which compares what the kernel now says with the table;
//! 7. the system call filter, which allows none of the calls above.
//!
//! A step that the table calls mandatory ends the process if it fails; one that is best effort is
//! named in the report.

pub mod audit;
pub mod caps;
mod filter;
mod keyring;
mod landlock;
mod limits;
pub mod namespaces;
#[cfg(test)]
mod policy;
pub mod ports;
mod root;
mod sys;
mod terminal;

pub use audit::{
    AuditError, Instance, Observation, Observed, UserNamespace, audit_from_outside, observe,
    refuse_tracer,
};
pub use caps::{DropError, Keep, become_user, become_user_to_enter};
pub use filter::allowed_calls;
pub use keyring::new_session_keyring;
pub use namespaces::{IsolateError, isolate_datapath, isolate_monitor, open_status_file};
pub use root::RootError;
pub use terminal::refuse_typing;

use landlock::Allowed;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use pasta_ipc::types::AuditReport;
use ports::BindPorts;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Which of the three processes this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `pasta` after start-up.
    Supervisor,
    /// `pasta-monitor`.
    Monitor,
    /// `pasta-datapath`.
    Datapath,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Supervisor => "supervisor",
            Self::Monitor => "monitor",
            Self::Datapath => "datapath",
        })
    }
}

/// Proof that this process has given up all that its table takes away. Only [`confine`] and
/// [`confine_supervisor`] make one.
#[derive(Debug)]
pub struct Confined(());

/// What came of [`isolate_datapath`] or [`isolate_monitor`].
#[derive(Debug, Default)]
pub struct Isolated {
    /// Best-effort measures that could not be taken, each with the reason; they are reported.
    pub missing: Vec<String>,
    /// The process's status file, opened while there was a `/proc`: the self-audit looks there for a tracer.
    pub status: Option<OwnedFd>,
}

/// What [`confine`] needs to know.
#[derive(Debug)]
pub struct Confinement {
    /// Whose table holds.
    pub role: Role,
    /// What came of the isolation before.
    pub isolated: Isolated,
    /// What the monitor keeps. Others never keep anything.
    pub keep: Keep,
    /// Ports that it may bind, where Landlock tells them apart. The supervisor binds none.
    pub bind: BindPorts,
}

impl Confinement {
    /// As little as `role` can do with: no capability, and port 0.
    pub fn least(role: Role, isolated: Isolated) -> Self {
        Self { role, isolated, keep: Keep::NOTHING, bind: BindPorts::none() }
    }
}

/// Why a process could not be confined. It must end.
#[derive(Debug)]
pub enum ConfineError {
    /// A privilege could not be given up.
    Drop(DropError),
    /// A mandatory process attribute could not be set; the text names it.
    Attribute(&'static str, Errno),
    /// The supervisor had ended before its death could be signalled to us.
    SupervisorGone,
    /// What the kernel says afterwards is not what the table wants.
    Audit(AuditError),
    /// The system call filter could not be installed.
    Filter(seccompiler::Error),
}

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop(_) => f.write_str("cannot give up a privilege"),
            Self::Attribute(what, _) => write!(f, "cannot {what}"),
            Self::SupervisorGone => f.write_str("the supervisor has ended"),
            Self::Audit(_) => f.write_str("self-audit disagrees with the privilege table"),
            Self::Filter(_) => f.write_str("cannot install the system call filter"),
        }
    }
}

impl std::error::Error for ConfineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Drop(error) => Some(error),
            Self::Attribute(_, errno) => Some(errno),
            Self::SupervisorGone => None,
            Self::Audit(error) => Some(error),
            Self::Filter(error) => Some(error),
        }
    }
}

impl From<DropError> for ConfineError {
    fn from(error: DropError) -> Self {
        Self::Drop(error)
    }
}

/// What the report says where a helper could not look who traces it.
const NO_TRACER_CHECK: &str = "look for a tracer";

/// The first thing that each of the three programs does: nobody may trace it, read its memory or
/// take its descriptors, and it leaves no core.
///
/// # Errors
///
/// What prctl(2) and setrlimit(2) report; neither can fail on the kernels we support.
pub fn harden_early() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    limits::no_core()?;
    Ok(())
}

/// Gives up all that the table of `what.role` takes away, for good, and reports what is left.
///
/// `supervisor` is the channel to the supervisor, looked at once to see whether it had died before
/// its death could be signalled; helpers pass it. The role `Supervisor` is the same as
/// [`confine_supervisor`] without readable directories.
///
/// # Errors
///
/// [`ConfineError`]; the process must end then, it may be half confined.
pub fn confine(
    what: Confinement,
    supervisor: Option<BorrowedFd<'_>>,
) -> Result<(Confined, AuditReport), ConfineError> {
    if what.role == Role::Supervisor {
        return confine_supervisor(what.isolated.missing, &[], None);
    }
    let keep = what.keep.of(what.role);
    let Isolated { mut missing, status } = what.isolated;
    // There still is one where nothing was isolated.
    let status = status.map_or_else(open_status_file, Ok);
    note(&mut missing, caps::NO_EMPTY_BOUNDING, caps::empty_bounding());
    note(&mut missing, caps::NO_SECUREBITS, caps::lock_securebits());
    caps::drop_groups()?;
    caps::drop_all_but(keep)?;
    set_attribute("become non-dumpable", prctl::set_dumpable(false))?;
    set_attribute("be ended with the supervisor", prctl::set_pdeathsig(Signal::SIGKILL))?;
    if supervisor.is_some_and(has_hung_up) {
        return Err(ConfineError::SupervisorGone);
    }
    let status = status.map_err(|error| missing.push(format!("{NO_TRACER_CHECK}: {error}"))).ok();
    let allowed = Allowed { bind: &what.bind, readable: &[], removable: None };
    finish(what.role, keep, missing, allowed, status)
}

/// Confines the launcher once all is started: from here on it supervises.
///
/// It keeps its namespaces, its bounding set and its limits on processes and files, and may open
/// what lies under `readable`, directories opened beforehand, for reading. Files under `removable` it may remove: there
/// is the socket that it serves.
///
/// # Errors
///
/// As [`confine`].
pub fn confine_supervisor(
    missing: Vec<String>,
    readable: &[BorrowedFd<'_>],
    removable: Option<BorrowedFd<'_>>,
) -> Result<(Confined, AuditReport), ConfineError> {
    caps::drop_all_but(Keep::NOTHING)?;
    set_attribute("become non-dumpable", prctl::set_dumpable(false))?;
    let allowed = Allowed { bind: &BindPorts::none(), readable, removable };
    finish(Role::Supervisor, Keep::NOTHING, missing, allowed, None)
}

/// What is common to all three: limits, `no_new_privs`, MDWE, Landlock, self-audit, filter.
fn finish(
    role: Role,
    keep: Keep,
    mut missing: Vec<String>,
    allowed: Allowed<'_>,
    status: Option<OwnedFd>,
) -> Result<(Confined, AuditReport), ConfineError> {
    set_attribute("set resource limits", limits::limit(role, keep))?;
    set_attribute("set no_new_privs", prctl::set_no_new_privs())?;
    note(&mut missing, "memory-deny-write-execute", sys::refuse_exec_gain());
    let fenced = landlock::restrict(role, allowed);
    missing.extend(fenced.missing);
    let report =
        audit::audit_self(role, keep, fenced.abi, &missing, status).map_err(ConfineError::Audit)?;
    filter::install(role).map_err(ConfineError::Filter)?;
    Ok((Confined(()), report))
}

fn set_attribute(what: &'static str, result: Result<(), Errno>) -> Result<(), ConfineError> {
    result.map_err(|errno| ConfineError::Attribute(what, errno))
}

/// Notes that a best-effort measure was refused, and why.
fn note(missing: &mut Vec<String>, what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        missing.push(format!("{what}: {error}"));
    }
}

/// Whether the other end of `channel` is closed; an unusable channel counts as closed.
fn has_hung_up(channel: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(channel, PollFlags::POLLIN)];
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(_) => polled.iter().any(|p| p.revents().is_none_or(|events| events.intersects(gone))),
        Err(_) => true,
    }
}
