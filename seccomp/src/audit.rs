//! Reading back what is left, from inside and from outside, and comparing it with the table.
//!
//! Nothing here is taken from what we meant to do: `audit_self` asks the kernel about the calling
//! process just before its filter, and [`audit_from_outside`] reads what the kernel tells others
//! about it afterwards. Both are compared with the table and with each other; a disagreement is a
//! line, and one line is enough to refuse.
//!
//! A best-effort measure may be absent only if the report names it as missing.

mod descriptors;
mod running;
mod sockets;
mod status;

use crate::Role;
use crate::caps::{Keep, LOCKED_SECUREBITS, NO_EMPTY_BOUNDING, NO_SECUREBITS, SECUREBITS_MASK};
use crate::namespaces::{
    NO_CGROUP_NAMESPACE, NO_IPC_NAMESPACE, NO_PID_NAMESPACE, NO_UTS_NAMESPACE,
};
use crate::sys;
use nix::sys::prctl;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Pid, Uid, getgroups};
use pasta_ipc::types::{AuditReport, Bounded, FdEntry, Text};
pub use running::{Instance, Observation, observe};
pub use status::MalformedField;
use status::Status;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// `Seccomp:` of a status file when a filter is on (proc_pid_status(5)).
const SECCOMP_MODE_FILTER: u32 = 2;

/// Why an audit did not pass.
#[derive(Debug)]
pub enum AuditError {
    /// The process's state could not be read.
    Unreadable(io::Error),
    /// Its status file can neither be opened by us nor has it handed it over. The cause is of the former.
    NoStatusFile(Pid, io::Error),
    /// What was read is not in the form that the kernel documents.
    Malformed(MalformedField),
    /// It was read and is not what the table wants; a line per disagreement.
    Disagrees(Vec<String>),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(_) => f.write_str("cannot read the privileges of a process"),
            Self::NoStatusFile(pid, _) => {
                write!(f, "cannot read /proc/{pid}/status, and its process has no /proc either")
            }
            Self::Malformed(_) => f.write_str("cannot understand the privileges of a process"),
            Self::Disagrees(lines) => f.write_str(&lines.join("; ")),
        }
    }
}

impl std::error::Error for AuditError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(error) | Self::NoStatusFile(_, error) => Some(error),
            Self::Malformed(field) => Some(field),
            Self::Disagrees(_) => None,
        }
    }
}

/// Reads back our own privileges and compares them with the table. For helpers this is also where
/// unexpected descriptors are closed.
///
/// # Errors
///
/// [`AuditError`]; also if the kernel does not answer: an audit that cannot read must not pass.
pub(crate) fn audit_self(
    role: Role,
    keep: Keep,
    landlock_abi: u32,
    missing: &[String],
    status: Option<OwnedFd>,
) -> Result<AuditReport, AuditError> {
    let tracer = match status {
        Some(file) if role != Role::Supervisor => own_tracer(file)?,
        _ => NOBODY,
    };
    let fds = descriptors::list(role).map_err(AuditError::Unreadable)?;
    // The report has room for so many; what it leaves out is looked at all the same.
    let refused = descriptors::refused(role, keep, &fds);
    let report = read_self(landlock_abi, missing, fds).map_err(AuditError::Unreadable)?;
    let mut lines = compare(role, keep, &report);
    lines.extend(refused.into_iter().filter(|line| !lines.contains(line)).collect::<Vec<_>>());
    lines.extend(traced_by(tracer));
    if lines.is_empty() { Ok(report) } else { Err(AuditError::Disagrees(lines)) }
}

/// Nobody that traces us.
const NOBODY: i32 = 0;

/// Who traces us, as our status file says, which is closed.
fn own_tracer(file: OwnedFd) -> Result<i32, AuditError> {
    let text = read_from_start(&File::from(file)).map_err(AuditError::Unreadable)?;
    status::tracer(&text).map_err(AuditError::Malformed)
}

/// Reads a file of `/proc` whose descriptor others may have too: its offset is left alone.
fn read_from_start(file: &File) -> io::Result<String> {
    let (mut octets, mut block) = (Vec::new(), [0; 4096]);
    loop {
        match file.read_at(&mut block, octets.len() as u64)? {
            0 => return String::from_utf8(octets).map_err(io::Error::other),
            len => octets.extend_from_slice(block.get(..len).unwrap_or_default()),
        }
    }
}

/// The line about a process that `tracer` traces.
fn traced_by(tracer: i32) -> Option<String> {
    (tracer != NOBODY).then(|| format!("process {tracer} traces it"))
}

fn read_self(landlock_abi: u32, missing: &[String], fds: Vec<FdEntry>) -> io::Result<AuditReport> {
    let sets = sys::capabilities()?;
    Ok(AuditReport {
        effective: sets.effective,
        permitted: sets.permitted,
        inheritable: sets.inheritable,
        ambient: sys::ambient(),
        bounding: sys::bounding(),
        securebits: sys::securebits()?,
        groups: getgroups()?.len().try_into().unwrap_or(u32::MAX),
        no_new_privs: prctl::get_no_new_privs()?,
        dumpable: prctl::get_dumpable()?,
        landlock_abi,
        fds: Bounded::truncated(fds).0,
        missing: Bounded::truncated(missing.iter().map(|text| Text::truncated(text))).0,
    })
}

/// Compares a report with the table; a line per disagreement.
fn compare(role: Role, keep: Keep, report: &AuditReport) -> Vec<String> {
    let mut lines = Vec::new();
    let mut check = |what: &str, is: u64, wanted: u64| {
        if is != wanted {
            lines.push(format!("{what} is {is:#x}, not {wanted:#x}"));
        }
    };
    check("effective set", report.effective, keep.mask());
    check("permitted set", report.permitted, keep.mask());
    check("inheritable set", report.inheritable, 0);
    check("ambient set", report.ambient, 0);
    check("no_new_privs", report.no_new_privs.into(), 1);
    check("dumpable", report.dumpable.into(), 0);
    if role != Role::Supervisor {
        if !is_missing(report, NO_EMPTY_BOUNDING) {
            check("bounding set", report.bounding, 0);
        }
        if !is_missing(report, NO_SECUREBITS) {
            let bits = report.securebits & SECUREBITS_MASK;
            check("securebits", bits.into(), LOCKED_SECUREBITS.into());
        }
    }
    lines.extend(descriptors::refused(role, keep, report.fds.as_slice()));
    lines
}

/// Where a helper's user namespace is, seen from the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNamespace {
    /// It has another one than the supervisor.
    Other,
    /// It has the supervisor's: a monitor whose target is owned by that, or a datapath where user
    /// namespaces are switched off.
    Same,
}

/// A process that is looked at from outside.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Which one.
    pub pid: Pid,
    /// Its status file, if it has handed that over ([`crate::open_status_file`]).
    pub status: Option<BorrowedFd<'a>>,
}

impl From<Pid> for Observed<'_> {
    fn from(pid: Pid) -> Self {
        Self { pid, status: None }
    }
}

impl Observed<'_> {
    /// Reads its status file, by its path where that is visible (`hidepid`, proc(5)), and whose numbers
    /// of users it holds.
    fn read_status(self) -> Result<(Status, Shown), AuditError> {
        let path = format!("/proc/{}/status", self.pid);
        let (text, shown) = match (fs::read_to_string(path), self.status) {
            (Ok(text), _) => (text, Shown::Ours),
            (Err(error), None) => return Err(AuditError::NoStatusFile(self.pid, error)),
            (Err(_), Some(file)) => {
                (read_handed_over(file).map_err(AuditError::Unreadable)?, Shown::Openers)
            }
        };
        let status = Status::parse(&text).map_err(AuditError::Malformed)?;
        if status.pid != self.pid.as_raw() {
            let line = format!("status file is of process {}, not {}", status.pid, self.pid);
            return Err(AuditError::Disagrees(vec![line]));
        }
        Ok((status, shown))
    }
}

/// Whose numbers of users a status file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Those of our user namespace.
    Ours,
    /// Those of the user namespace in which it was opened.
    Openers,
}

/// Reads a status file that its process has opened. A file of another file system is refused.
fn read_handed_over(file: BorrowedFd<'_>) -> io::Result<String> {
    if fstatfs(file)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file of /proc"));
    }
    read_from_start(&File::from(file.try_clone_to_owned()?))
}

/// What [`audit_from_outside`] says where the user ids of a process rest on its own report.
pub const USER_IDS: &str = "user ids (/proc is mounted with hidepid; needs Linux 6.13)";

/// Refuses a helper that somebody traces, before it is given anything. Where its status file cannot be opened
/// ([`crate::open_status_file`]), [`audit_from_outside`] finds that out, and before it the helper itself.
///
/// # Errors
///
/// [`AuditError::Disagrees`] with the process that traces it.
pub fn refuse_tracer(pid: Pid) -> Result<(), AuditError> {
    let Ok((status, _)) = Observed::from(pid).read_status() else { return Ok(()) };
    match traced_by(status.tracer) {
        Some(line) => Err(AuditError::Disagrees(vec![line])),
        None => Ok(()),
    }
}

/// Reads what the kernel tells others about a process and compares it with the table of `role` and with
/// the process's own `report`. To be called by the supervisor, before it is confined. Returns what could
/// not be confirmed.
///
/// The namespaces of a non-dumpable process are readable to root alone; where they are not, the pid
/// namespace is still known from the status file, and the others rest on the report.
///
/// # Errors
///
/// [`AuditError`]; the process must not be trusted then.
pub fn audit_from_outside<'a>(
    process: impl Into<Observed<'a>>,
    role: Role,
    keep: Keep,
    user: UserNamespace,
    report: &AuditReport,
) -> Result<Vec<&'static str>, AuditError> {
    let process = process.into();
    let pid = process.pid;
    let (mut status, shown) = process.read_status()?;
    let mut unconfirmed = Vec::new();
    // The datapath opens it in its user namespace, where the kernel shows no user as what it is.
    if (role, user, shown) == (Role::Datapath, UserNamespace::Other, Shown::Openers) {
        status.uids = match sys::user_ids(pid) {
            Ok(ids) => ids.to_vec(),
            Err(_) => {
                unconfirmed.push(USER_IDS);
                Vec::new()
            }
        };
        // Where the user is known, so is the group: a process without a map cannot change either.
        status.gids.clear();
    }
    let keep = keep.of(role);
    let mut lines = compare(role, keep, report);
    lines.extend(compare_status(role, Uid::effective().as_raw(), &status, report));
    for name in ["user", "mnt", "pid", "ipc", "uts", "cgroup", "net"] {
        let read = |who: &str| fs::read_link(format!("/proc/{who}/ns/{name}"));
        // EACCES for a non-dumpable process unless we are root; our own is always readable.
        if let (Ok(own), Ok(theirs)) = (read("self"), read(&pid.to_string())) {
            lines.extend(compare_namespace(role, (name, user), own != theirs, report));
        }
    }
    if lines.is_empty() { Ok(unconfirmed) } else { Err(AuditError::Disagrees(lines)) }
}

/// Compares a status file with the report and with what the report cannot say. `uid` is the user
/// whom all three processes run as.
fn compare_status(role: Role, uid: u32, status: &Status, report: &AuditReport) -> Vec<String> {
    let mut lines = Vec::new();
    let mut check = |what: &str, is: u64, wanted: u64| {
        if is != wanted {
            lines.push(format!("{what} is {is:#x} from outside, not {wanted:#x}"));
        }
    };
    check("effective set", status.effective, report.effective);
    check("permitted set", status.permitted, report.permitted);
    check("inheritable set", status.inheritable, report.inheritable);
    check("ambient set", status.ambient, report.ambient);
    check("bounding set", status.bounding, report.bounding);
    check("no_new_privs", status.no_new_privs.into(), report.no_new_privs.into());
    check("seccomp mode", status.seccomp.into(), SECCOMP_MODE_FILTER.into());
    check("number of groups", status.groups.len() as u64, report.groups.into());
    check("number of threads", status.threads.into(), 1);
    for id in &status.uids {
        check("user id", (*id).into(), uid.into());
    }
    lines.extend(traced_by(status.tracer));
    if status.gids.iter().any(|id| Some(id) != status.gids.first()) {
        lines.push("group ids differ from each other".into());
    }
    if role == Role::Datapath
        && !is_missing(report, NO_PID_NAMESPACE)
        && status.pids.last() != Some(&1)
    {
        lines.push("process is not the first of a pid namespace".into());
    }
    lines
}

/// Compares whether namespace `name` of the process differs from ours with the table; `user` is what is
/// wanted of the user namespace.
fn compare_namespace(
    role: Role,
    (name, user): (&str, UserNamespace),
    differs: bool,
    report: &AuditReport,
) -> Option<String> {
    let (wanted, measure) = match (role, name) {
        (Role::Supervisor, _) => return None,
        (_, "user") => (user == UserNamespace::Other, None),
        (Role::Datapath, "net") => (false, None),
        (Role::Monitor, "pid") => (false, None),
        (Role::Datapath, "pid") => (true, Some(NO_PID_NAMESPACE)),
        (_, "ipc") => (true, Some(NO_IPC_NAMESPACE)),
        (_, "uts") => (true, Some(NO_UTS_NAMESPACE)),
        (_, "cgroup") => (true, Some(NO_CGROUP_NAMESPACE)),
        _ => (true, None),
    };
    if differs == wanted || measure.is_some_and(|measure| is_missing(report, measure)) {
        return None;
    }
    let is = if differs { "not the supervisor's" } else { "the supervisor's" };
    Some(format!("{name} namespace is {is}"))
}

/// Whether the report admits that `measure` could not be taken.
fn is_missing(report: &AuditReport, measure: &str) -> bool {
    report.missing.as_slice().iter().any(|text| text.as_str().starts_with(measure))
}

#[cfg(test)]
mod tests;
