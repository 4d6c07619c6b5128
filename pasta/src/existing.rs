//! Opens a network namespace that exists, and finds the user namespace to enter first.
//!
//! The user namespace that owns the network namespace is the one whose capabilities count there
//! (network_namespaces(7)), so it is entered unless another one is named. A process that is named by its
//! id is held by a pidfd, which is looked at again after its files were opened: the id may have been
//! given to another process in between.

use crate::namespace::same_file;
use crate::namespace_watch::{NamespaceWatch, WatchError, process_of};
use crate::sys;
use crate::target::{Existing, ExistingUser, Quit};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A network namespace, open, and what was found out about it.
#[derive(Debug)]
pub(crate) struct OpenNamespace {
    /// The user namespace to enter; ours if there is nothing to enter.
    pub(crate) user: OwnedFd,
    /// The network namespace.
    pub(crate) net: OwnedFd,
    /// What ends it.
    pub(crate) watch: NamespaceWatch,
}

/// The namespace cannot be used.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// A file cannot be opened.
    Open(PathBuf, io::Error),
    /// The file is no namespace of the wanted kind.
    NotANamespace(PathBuf, &'static str),
    /// The network namespace is the one we are in.
    Ours(PathBuf),
    /// The process has ended.
    ProcessGone(i32),
    /// The owner of the namespace cannot be determined.
    Owner(PathBuf, io::Error),
    /// The end of the namespace cannot be watched.
    Watch(WatchError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, _) => write!(f, "cannot open namespace {}", path.display()),
            Self::NotANamespace(path, kind) => {
                write!(f, "{} is not a {kind} namespace", path.display())
            }
            Self::Ours(path) => write!(
                f,
                "{} is the network namespace that pasta itself runs in: there is nothing to connect \
                 (a process that is to have one of its own may not have made it yet)",
                path.display()
            ),
            Self::ProcessGone(pid) => write!(f, "process {pid} has ended"),
            Self::Owner(path, _) => write!(
                f,
                "cannot enter the user namespace that owns {} (only its owner and root can)",
                path.display()
            ),
            Self::Watch(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(_, error) | Self::Owner(_, error) => Some(error),
            Self::Watch(error) => error.source(),
            Self::NotANamespace(..) | Self::Ours(_) | Self::ProcessGone(_) => None,
        }
    }
}

impl OpenNamespace {
    /// Opens the namespaces of `existing`, and watches for their end.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub(crate) fn open(existing: &Existing) -> Result<Self, OpenError> {
        let process = match (existing.process, process_of(&existing.net)) {
            (Some(pid), _) => hold(pid, &existing.net)?.map(|pidfd| (pid, pidfd)),
            // A path through its directory. What cannot be held is looked at by the path alone.
            (None, Some(pid)) => hold(pid, &existing.net).ok().flatten().map(|pidfd| (pid, pidfd)),
            (None, None) => None,
        };
        let net = open_namespace(&existing.net, libc::CLONE_NEWNET, "network")?;
        if same_file(&net, "/proc/self/ns/net") {
            return Err(OpenError::Ours(existing.net.clone()));
        }
        let user = match &existing.user {
            ExistingUser::At(path) => open_namespace(path, libc::CLONE_NEWUSER, "user")?,
            ExistingUser::Ours => open_ours()?,
            ExistingUser::Owner => owner(&existing.net, &net)?,
        };
        if let Some((pid, _)) = process.as_ref().filter(|(_, pidfd)| has_ended(pidfd)) {
            return Err(OpenError::ProcessGone(pid.as_raw()));
        }
        let watch = match existing.quit {
            Quit::Never => NamespaceWatch::never(),
            Quit::WithNamespace => {
                let process = process.map(|(_, pidfd)| pidfd);
                NamespaceWatch::new(&existing.net, &net, process).map_err(OpenError::Watch)?
            }
        };
        Ok(Self { user, net, watch })
    }
}

/// A pidfd of the process or thread `pid`; none for a thread before Linux 6.9. `path` is for errors.
fn hold(pid: Pid, path: &Path) -> Result<Option<OwnedFd>, OpenError> {
    sys::pidfd_open_any(pid).map(Some).or_else(|error| {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ESRCH) => Err(OpenError::ProcessGone(pid.as_raw())),
            Some(Errno::EINVAL) => Ok(None),
            _ => Err(OpenError::Open(path.to_owned(), error)),
        }
    })
}

fn open_namespace(
    path: &Path,
    kind: libc::c_int,
    name: &'static str,
) -> Result<OwnedFd, OpenError> {
    // A FIFO or a device put there must not block us.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let fd = open(path, flags, Mode::empty())
        .map_err(|errno| OpenError::Open(path.to_owned(), errno.into()))?;
    match sys::namespace_kind(&fd) {
        Ok(found) if found == kind => Ok(fd),
        _ => Err(OpenError::NotANamespace(path.to_owned(), name)),
    }
}

fn open_ours() -> Result<OwnedFd, OpenError> {
    open_namespace(Path::new("/proc/self/ns/user"), libc::CLONE_NEWUSER, "user")
}

/// The user namespace that owns `net`. An owner above ours shows as one that we may not see (`EPERM`,
/// ioctl_ns(2)); then entering ours makes the kernel say what is missing.
fn owner(path: &Path, net: &OwnedFd) -> Result<OwnedFd, OpenError> {
    match sys::owning_user_namespace(net) {
        Ok(owner) => Ok(owner),
        Err(error) => Err(OpenError::Owner(path.to_owned(), error)),
    }
}

/// Whether the process behind `pidfd` has ended.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Ground;

    fn existing(net: &str, process: Option<i32>) -> Existing {
        Existing {
            net: net.into(),
            user: ExistingUser::Ours,
            process: process.map(Pid::from_raw),
            quit: Quit::Never,
            ground: Ground::Foreground,
        }
    }

    #[test]
    fn files_that_are_no_network_namespace_are_refused_by_name() {
        let refused = |path: &str| OpenNamespace::open(&existing(path, None)).unwrap_err();
        let other = "/proc/self/ns/uts is not a network namespace";
        assert_eq!(refused("/proc/self/ns/uts").to_string(), other);
        assert_eq!(refused("/dev/null").to_string(), "/dev/null is not a network namespace");
        assert_eq!(refused("/no/such").to_string(), "cannot open namespace /no/such");
        let error = open_namespace(Path::new("/proc/self/ns/net"), libc::CLONE_NEWUSER, "user");
        assert_eq!(error.unwrap_err().to_string(), "/proc/self/ns/net is not a user namespace");
    }

    #[test]
    fn our_own_network_namespace_is_refused() {
        let error = OpenNamespace::open(&existing("/proc/self/ns/net", None)).unwrap_err();
        assert!(matches!(error, OpenError::Ours(_)), "{error}");
    }

    #[test]
    fn thread_is_held_as_a_process_is() {
        let (send, receive) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            send.send(nix::unistd::gettid()).unwrap();
            let _ = wait.recv();
        });
        let held = hold(receive.recv().unwrap(), Path::new("/proc/self/task")).unwrap();
        assert!(held.as_ref().is_none_or(|held| !has_ended(held)));
        drop(end);
        thread.join().unwrap();
        // The kernel reports it a moment after `join` has returned.
        while held.as_ref().is_some_and(|held| !has_ended(held)) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_that_has_ended_is_named() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        let path = format!("/proc/{pid}/ns/net");
        let error = OpenNamespace::open(&existing(&path, Some(pid))).unwrap_err();
        assert_eq!(error.to_string(), format!("process {pid} has ended"));
    }
}
