//! Finds and starts the two helpers.
//!
//! Each is executed by a descriptor that was opened before, so that the user that root changes to needs
//! no access to the directory. Standard input, output and error are `/dev/null`, its channels have fixed
//! descriptor numbers; it has no environment and no argument. The rest comes in messages.

use crate::identity::Identity;
use crate::log::Helper;
use crate::sys::{self, Child, Cloned, ForkedProcess};
use crate::tun;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Uid, chdir, execveat};
use std::convert::Infallible;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where packages install the helpers; set at build time.
const LIBEXEC_DIR: &str = match option_env!("PASTA_LIBEXECDIR") {
    Some(directory) => directory,
    None => "/usr/libexec/pasta",
};

/// Standard input, output and error; a helper's channels have the numbers after these.
const STANDARD_DESCRIPTORS: usize = 3;

/// The program's descriptor, and the channel for an error, are moved to this number or above. Chosen: above all fixed numbers.
const ABOVE_FIXED: i32 = 16;

/// Why a helper cannot be found.
#[derive(Debug)]
pub(crate) enum FindError {
    /// Neither beside our program nor in the directory set at build time. The cause is of the latter.
    Missing { name: &'static str, beside: PathBuf, cause: io::Error },
    /// It is only beside our program, where another user could have put it.
    Untrusted { name: &'static str, beside: PathBuf },
    /// The path of our own program is not known.
    OwnPath(io::Error),
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, beside, .. } => {
                write!(f, "cannot find {name} in {} or {LIBEXEC_DIR}", beside.display())
            }
            Self::Untrusted { name, beside } => write!(
                f,
                "{name} in {} is not used: it or the directory belongs to another user, or may be \
                 written by others",
                beside.display()
            ),
            Self::OwnPath(_) => f.write_str("cannot read /proc/self/exe"),
        }
    }
}

impl std::error::Error for FindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Missing { cause, .. } | Self::OwnPath(cause) => Some(cause),
            Self::Untrusted { .. } => None,
        }
    }
}

/// The helpers' programs, opened for execution only.
#[derive(Debug)]
pub(crate) struct Executables {
    /// `pasta-monitor`
    pub(crate) monitor: OwnedFd,
    /// `pasta-datapath`
    pub(crate) datapath: OwnedFd,
}

impl Executables {
    /// Opens both, beside our own program or in the directory set at build time.
    ///
    /// A helper beside our program is used only if no other user can have put it there: the directory and
    /// the helper belong to root, to the caller, or to the owner of our program, and neither everybody nor a
    /// group of others may write there. A group with the number of one of these users is that user's own, as
    /// distributions make them.
    ///
    /// # Errors
    ///
    /// [`FindError`].
    pub(crate) fn find() -> Result<Self, FindError> {
        let own = std::fs::read_link("/proc/self/exe").map_err(FindError::OwnPath)?;
        let owner = open_path(Path::new("/proc/self/exe"))
            .and_then(|program| fstat(&program))
            .map_err(|errno| FindError::OwnPath(errno.into()))?
            .st_uid;
        let trusted = [0, Uid::current().as_raw(), owner];
        let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
        let find = |helper: Helper| {
            let name = helper.name();
            open_trusted(&beside, name, &trusted).or_else(|near| {
                let far = open_path(&Path::new(LIBEXEC_DIR).join(name));
                far.map_err(|cause| match near {
                    Errno::EPERM => FindError::Untrusted { name, beside: beside.clone() },
                    _ => FindError::Missing { name, beside: beside.clone(), cause: cause.into() },
                })
            })
        };
        Ok(Self { monitor: find(Helper::Monitor)?, datapath: find(Helper::Datapath)? })
    }
}

fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

fn open_trusted(directory: &Path, name: &str, trusted: &[u32]) -> Result<OwnedFd, Errno> {
    let directory_fd = open_path(directory)?;
    let program = open_path(&directory.join(name))?;
    for fd in [directory_fd.as_fd(), program.as_fd()] {
        let stat = fstat(fd)?;
        if may_be_anothers((stat.st_uid, stat.st_gid, stat.st_mode), trusted) {
            return Err(Errno::EPERM);
        }
    }
    Ok(program)
}

/// Whether somebody who is not among `trusted` may write a file of this owner, group and mode.
fn may_be_anothers((owner, group, mode): (u32, u32, u32), trusted: &[u32]) -> bool {
    let by_group = mode & 0o020 != 0 && !trusted.contains(&group);
    !trusted.contains(&owner) || by_group || mode & 0o002 != 0
}

/// How a helper is to be started.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// Which one.
    pub(crate) helper: Helper,
    /// Its program.
    pub(crate) program: BorrowedFd<'a>,
    /// `/dev/null`, open for reading and writing.
    pub(crate) null: BorrowedFd<'a>,
    /// Its descriptors from number 3 on.
    pub(crate) descriptors: &'a [BorrowedFd<'a>],
    /// The user it changes to first; none: ours.
    pub(crate) identity: Option<Identity>,
    /// Whether it needs a device file of its own.
    pub(crate) tun: tun::Access,
}

/// Starts a helper. If the new process cannot execute it, `fail` reports that over the helper's
/// channel.
///
/// # Errors
///
/// What clone(2) reports.
pub(crate) fn spawn(start: &Start<'_>, fail: impl Fn(OwnedFd, &str)) -> io::Result<Child> {
    match sys::clone_process(0)? {
        Cloned::Parent(child) => Ok(child),
        Cloned::Child(forked) => {
            // Its own number may be another one's by the time that something fails.
            let channel = start.descriptors.first();
            let channel = channel.and_then(|it| sys::duplicate_above(*it, ABOVE_FIXED).ok());
            let Err(error) = exec_helper(&forked, start);
            if let Some(channel) = channel {
                fail(channel, &format!("cannot start {}: {error}", start.helper.name()));
            }
            sys::exit_now(1)
        }
    }
}

fn exec_helper(forked: &ForkedProcess, start: &Start<'_>) -> io::Result<Infallible> {
    if start.tun == tun::Access::OwnDevice {
        tun::provide_device()?;
    }
    if let Some(identity) = start.identity {
        identity.assume()?;
    }
    // Until the helper sets this itself; the end of its channel ends it too.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let program = sys::duplicate_above(start.program, ABOVE_FIXED)?;
    let standard = [start.null; STANDARD_DESCRIPTORS];
    forked.place_descriptors(&[&standard, start.descriptors].concat())?;
    SigSet::empty().thread_set_mask()?;
    sys::default_disposition(libc::SIGPIPE)?;
    // `pkill -USR1 pasta` finds the helpers too; the request is for the supervisor.
    sys::ignore_signal(libc::SIGUSR1)?;
    sys::ignore_signal(libc::SIGUSR2)?;
    chdir("/")?;
    let name = CString::new(start.helper.name())?;
    // Every other descriptor is close-on-exec.
    Ok(execveat(program, c"", &[name], &[] as &[CString], AtFlags::AT_EMPTY_PATH)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helper_that_others_may_write_is_not_ours() {
        let trusted = [0, 1000];
        for (owner, group, mode, wrong) in [
            (0, 0, 0o100_755, false),
            (0, 0, 0o100_775, false),
            (1000, 1000, 0o040_775, false),
            (1000, 100, 0o040_755, false),
            (1000, 100, 0o040_775, true),
            (0, 50, 0o100_775, true),
            (1000, 1000, 0o040_777, true),
            (1001, 1000, 0o040_755, true),
        ] {
            assert_eq!(
                may_be_anothers((owner, group, mode), &trusted),
                wrong,
                "{owner} {group} {mode:o}"
            );
        }
    }
}
