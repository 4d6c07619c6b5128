//! Entering the namespaces a lab lives in.
//!
//! The process that calls [`enter`] becomes three:
//!
//! ```text
//! caller (waits, ends with the test's status)
//!  └─ process 1 of a new PID namespace (reaps, ends with the test's status)
//!      └─ process 2: the test, in which `enter` returns
//! ```
//!
//! The PID namespace is what makes cleaning up certain: whatever a test leaves behind, however it
//! ends, the kernel kills when process 1 ends. It also makes "is anything left?" a question with an
//! exact answer, since `/proc` shows the processes of this test and no others.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, exit};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, wait, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, getegid, geteuid};

use crate::sys;

/// What the lab may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Root of the machine: the programs under test run as another, ordinary user.
    Root,
    /// Root of a user namespace in which one user is mapped: the programs under test run as it.
    UserNamespace,
}

/// Why there can be no lab here.
#[derive(Debug)]
pub struct EnterError {
    /// What was attempted.
    pub step: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

impl std::fmt::Display for EnterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.step, self.source)
    }
}

impl std::error::Error for EnterError {}

/// Names the step that failed.
fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> EnterError {
    move |source| EnterError { step, source: source.into() }
}

/// The namespaces of a lab, apart from the user namespace.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// Enters new namespaces; returns in the process in which the test runs.
///
/// The network namespace has nothing but a loopback link that is down; the mount tree is a private
/// copy of the machine's with its own `/proc`.
///
/// # Errors
///
/// Says which step the kernel refused; the caller is then still where it was, or in namespaces that
/// end with it. Needs a process of one thread.
pub fn enter() -> Result<Power, EnterError> {
    sys::die_with_parent().map_err(at("tie the test to its runner"))?;
    let power = leave_the_machine()?;
    match sys::fork_single_threaded().map_err(at("start process 1 of the lab"))? {
        ForkResult::Parent { child } => exit(code_of(child)),
        ForkResult::Child => {}
    }
    sys::die_with_parent().map_err(at("tie process 1 to the test"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(at("make the mounts private"))?;
    let hardened = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), hardened, none).map_err(at("mount /proc"))?;
    match sys::fork_single_threaded().map_err(at("start the test"))? {
        ForkResult::Parent { child } => exit(reap_until(child)),
        ForkResult::Child => Ok(power),
    }
}

fn leave_the_machine() -> Result<Power, EnterError> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() && unshare(NAMESPACES).is_ok() {
        return Ok(Power::Root);
    }
    unshare(CloneFlags::CLONE_NEWUSER | NAMESPACES)
        .map_err(at("make namespaces (user.max_user_namespaces, AppArmor, seccomp?)"))?;
    map_to_root(uid, gid)?;
    Ok(Power::UserNamespace)
}

/// Makes `uid` and `gid` root of the user namespace that this process has just made.
fn map_to_root(uid: Uid, gid: Gid) -> Result<(), EnterError> {
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {uid} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {gid} 1")))
        .map_err(at::<io::Error>("map the user"))
}

/// Moves this process to a network namespace of its own, as a container engine does for a container:
/// with this owner.
///
/// # Errors
///
/// Which step the kernel refused. Needs a process of one thread.
pub fn isolate(owner: Owner) -> Result<(), EnterError> {
    let (uid, gid) = (geteuid(), getegid());
    match owner {
        Owner::NewUserNamespace => {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
                .map_err(at("make a user and a network namespace"))?;
            map_to_root(uid, gid)
        }
        Owner::Ours => unshare(CloneFlags::CLONE_NEWNET).map_err(at("make a network namespace")),
    }
}

/// The owner of a network namespace that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A user namespace that is made with it.
    NewUserNamespace,
    /// The user namespace of the process.
    Ours,
}

/// Waits for `child` and gives its exit code, as a shell would put it.
fn code_of(child: Pid) -> i32 {
    loop {
        match waitpid(child, None) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Ok(_) | Err(_) => return 1,
        }
    }
}

/// Reaps whatever comes to process 1 until `child` ends, and gives its exit code.
fn reap_until(child: Pid) -> i32 {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return 1,
        }
    }
}

/// The exit code of a finished process as a shell would put it: its own, or 128 and its signal.
pub fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
