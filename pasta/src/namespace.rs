//! Creates the namespaces of COMMAND, by creating their first process.
//!
//! That process (`init.rs`) and the launcher exchange messages ([`InitToSupervisor`],
//! [`SupervisorToInit`]): it reports errors, sends descriptors of its user and network namespace, and
//! waits. `Release` starts COMMAND; the end of the channel before that ends the process.

use crate::identity::UserChange;
use crate::inherited::InheritedState;
use crate::init::{self, InitConfig};
use crate::sys::{self, CallersDescriptors, Child, Cloned};
use crate::target::{Command, CommandUser, PidNamespace};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::stat::{FileStat, Mode, fstat, stat};
use nix::unistd::{getegid, geteuid};
use pasta_ipc::{Channel, InitToSupervisor, SupervisorToInit};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The namespaces that are always new for COMMAND. It stays in the cgroup and time namespaces of the
/// caller.
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// The namespaces could not be created. Names the usual cause.
#[derive(Debug)]
pub(crate) struct CreateError {
    errno: io::Error,
    cause: Option<Cause>,
    /// The user namespace that could not be entered.
    entering: Option<PathBuf>,
}

/// Why an ordinary user cannot create namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The limit of some namespaces is 0, or reached; or they are nested too deeply.
    Limit,
    /// `kernel.unprivileged_userns_clone=0`, a sysctl of Debian's kernels.
    Switch,
    /// AppArmor denies capabilities in user namespaces to programs without a profile.
    AppArmor,
    /// Not known: a seccomp filter or another security module.
    Unknown,
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.entering {
            return write!(f, "cannot enter user namespace {} (--userns)", path.display());
        }
        f.write_str("cannot create namespaces")?;
        match self.cause {
            None => Ok(()),
            Some(Cause::Limit) => f.write_str(
                " (the sysctl user.max_user_namespaces or another user.max_*_namespaces is 0 or \
                 reached, or user namespaces are nested too deeply)",
            ),
            Some(Cause::Switch) => f.write_str(
                " (user namespaces are switched off: kernel.unprivileged_userns_clone=0)",
            ),
            Some(Cause::AppArmor) => f.write_str(
                " (AppArmor restricts user namespaces: install pasta with its profile, and load that by \
                 apparmor_parser -r /etc/apparmor.d/pasta-userns; or see the sysctl \
                 kernel.apparmor_restrict_unprivileged_userns)",
            ),
            Some(Cause::Unknown) => f.write_str(
                " (user namespaces may be forbidden by a container's seccomp filter or by a \
                 security module such as AppArmor or SELinux)",
            ),
        }
    }
}

impl std::error::Error for CreateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.errno)
    }
}

impl CreateError {
    fn new(errno: io::Error) -> Self {
        let is_set = |path: &str, value: &str| {
            std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
        };
        let raw = errno.raw_os_error().map(Errno::from_raw);
        let cause = cause(raw, is_set);
        Self { errno, cause, entering: None }
    }

    fn entering(path: PathBuf, errno: io::Error) -> Self {
        Self { errno, cause: None, entering: Some(path) }
    }
}

/// Finds the usual cause of `errno`; `is_set` checks the value of a file of `/proc/sys`.
fn cause(errno: Option<Errno>, is_set: impl Fn(&str, &str) -> bool) -> Option<Cause> {
    match errno {
        // EUSERS was the error of a limit before Linux 4.9; some modules still return it.
        Some(Errno::ENOSPC | Errno::EUSERS) => Some(Cause::Limit),
        Some(Errno::EPERM | Errno::EACCES) => {
            Some(if is_set("/proc/sys/kernel/unprivileged_userns_clone", "0") {
                Cause::Switch
            } else if is_set("/proc/sys/user/max_user_namespaces", "0") {
                Cause::Limit
            } else if is_set("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
                Cause::AppArmor
            } else {
                Cause::Unknown
            })
        }
        _ => None,
    }
}

/// Process 1 of the new namespaces, as the launcher holds it.
#[derive(Debug)]
pub(crate) struct InitProcess {
    /// The process itself.
    pub(crate) child: Child,
    /// The channel to it.
    pub(crate) channel: Channel<SupervisorToInit, InitToSupervisor>,
}

/// Descriptors of the namespaces that the monitor is to enter.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// The user namespace.
    pub(crate) user: OwnedFd,
    /// The network namespace, owned by it.
    pub(crate) net: OwnedFd,
}

impl Namespaces {
    /// Whether a capability in this user namespace counts over the network that we are in ourselves.
    pub(crate) fn governs_our_network(&self) -> bool {
        let network = open("/proc/self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let Ok(network) = network else { return true };
        match sys::owning_user_namespace(network) {
            // It is of one above ours.
            Err(_) => false,
            Ok(owner) => self.user_is_ours() || !same_file(&owner, "/proc/self/ns/user"),
        }
    }

    /// Whether the user namespace is the one we are in.
    pub(crate) fn user_is_ours(&self) -> bool {
        same_file(&self.user, "/proc/self/ns/user")
    }
}

/// Whether the namespace behind `fd` is the one that `path` leads to.
pub(crate) fn same_file(fd: impl AsFd, path: &str) -> bool {
    let identity = |stat: FileStat| (stat.st_dev, stat.st_ino);
    let found = stat(path).map(identity);
    found.is_ok() && fstat(fd).map(identity) == found
}

impl InitProcess {
    /// Creates the namespaces and, in them, process 1, which will run `command`.
    ///
    /// A user namespace that was named is entered by this process, for good. `change` says whose we were
    /// before.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub(crate) fn create(
        command: &Command,
        inherited: &InheritedState,
        descriptors: &CallersDescriptors,
        change: UserChange,
    ) -> Result<Self, CreateError> {
        let (channel, theirs) = Channel::pair().map_err(CreateError::new)?;
        // The ids of this process have no mapping in the new namespace yet.
        let (uid, gid) = (geteuid(), getegid());
        let config = InitConfig { command, inherited, descriptors, uid, gid, change };
        let user = match &command.user {
            CommandUser::New => libc::CLONE_NEWUSER,
            CommandUser::Ours => 0,
            CommandUser::At(path) => {
                enter_user_namespace(path)
                    .map_err(|error| CreateError::entering(path.clone(), error))?;
                0
            }
        };
        let pids = match command.pids {
            PidNamespace::New => libc::CLONE_NEWPID,
            PidNamespace::Shared => 0,
        };
        match sys::clone_process(NAMESPACES | user | pids).map_err(CreateError::new)? {
            Cloned::Parent(child) => Ok(Self { child, channel }),
            Cloned::Child(forked) => init::run(forked, &theirs, config),
        }
    }
}

fn enter_user_namespace(path: &Path) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let namespace = open(path, flags, Mode::empty())?;
    setns(&namespace, CloneFlags::CLONE_NEWUSER)?;
    // Other credentials may have reset it.
    Ok(prctl::set_dumpable(false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacle_follows_from_sysctls() {
        let find = |errno, path: &'static str, value: &'static str| {
            cause(Some(errno), move |p, v| p.ends_with(path) && v == value)
        };
        let (eperm, eacces) = (Errno::EPERM, Errno::EACCES);
        assert_eq!(find(Errno::ENOSPC, "-", ""), Some(Cause::Limit));
        assert_eq!(find(eperm, "unprivileged_userns_clone", "0"), Some(Cause::Switch));
        assert_eq!(find(eperm, "max_user_namespaces", "0"), Some(Cause::Limit));
        let apparmor = "apparmor_restrict_unprivileged_userns";
        assert_eq!(find(eacces, apparmor, "1"), Some(Cause::AppArmor));
        assert_eq!(find(eacces, apparmor, "0"), Some(Cause::Unknown));
        assert_eq!(find(Errno::ENOMEM, "-", ""), None);
    }

    #[test]
    fn message_names_the_setting_to_look_at() {
        for (cause, name) in [
            (Cause::Limit, "user.max_user_namespaces"),
            (Cause::Switch, "kernel.unprivileged_userns_clone"),
            (Cause::AppArmor, "AppArmor"),
            (Cause::Unknown, "AppArmor"),
        ] {
            let errno = io::Error::from_raw_os_error(libc::EPERM);
            let error = CreateError { errno, cause: Some(cause), entering: None };
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
