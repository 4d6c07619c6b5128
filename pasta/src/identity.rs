//! The user of this process, and the user that root changes to before a namespace is created.

use crate::sys::{self, Cloned};
use crate::termination::Termination;
use crate::value::{NameOrId, RunAs};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, setgroups, setresgid, setresuid};
use pasta_ipc::start::UserId;
use std::fmt;
use std::io;
use std::os::fd::AsFd;

/// The user that root changes to without `--runas`.
const DEFAULT_USER: &str = "nobody";

/// The id of `nobody` if the password file has none (`overflowuid`).
const OVERFLOW_ID: u32 = 65534;

/// A user and a group to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The user.
    pub(crate) uid: Uid,
    /// The group; supplementary groups are dropped.
    pub(crate) gid: Gid,
}

impl Identity {
    /// The numbers.
    pub(crate) fn id(self) -> UserId {
        UserId { uid: self.uid.as_raw(), gid: self.gid.as_raw() }
    }

    /// Changes to this user and group for good; with another user than root all capabilities are lost, and
    /// the session keyring is a new one.
    /// The kernel resets the dumpable flag when the user changes, so it is cleared again.
    ///
    /// # Errors
    ///
    /// `EPERM` if we are not root, `EDQUOT` if the user has no room for a keyring.
    pub(crate) fn assume(self) -> io::Result<()> {
        setgroups(&[])?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        prctl::set_dumpable(false)?;
        if !self.uid.is_root() {
            new_keyring()?;
        }
        Ok(())
    }

    /// Whether root started us, and everything else is another user's.
    pub(crate) fn change(self) -> UserChange {
        if self.uid.is_root() { UserChange::None } else { UserChange::FromRoot }
    }
}

/// Leaves root's session keyring to root.
fn new_keyring() -> io::Result<()> {
    match seccomp::new_session_keyring() {
        // A filter of a container: then nobody here reaches any key.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other.map_err(|error| {
            io::Error::new(error.kind(), format!("no new session keyring: {error}"))
        }),
    }
}

/// Whether COMMAND is of another user than the one who started us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserChange {
    /// It is of the same user.
    None,
    /// Root started us, and it is of an ordinary user.
    FromRoot,
}

/// Whether this process is root of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// An ordinary user, or uid 0 of a user namespace that is not the initial one.
    Ordinary,
    /// Root of the machine, and the user to change to.
    Root(Identity),
}

/// Why the user to change to cannot be determined.
#[derive(Debug)]
pub(crate) enum IdentityError {
    /// `/proc/self/uid_map` cannot be read.
    UidMap(io::Error),
    /// The password or group file cannot be read.
    Lookup(String, nix::errno::Errno),
    /// No such user.
    NoUser(String),
    /// No such group.
    NoGroup(String),
    /// The login is another name of root.
    RootByName(String),
    /// Only root can become another user.
    NotRoot(Identity),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UidMap(_) => f.write_str("cannot read /proc/self/uid_map"),
            Self::Lookup(name, _) => write!(f, "cannot look up '{name}'"),
            Self::NoUser(name) => write!(f, "no such user: '{name}'"),
            Self::NoGroup(name) => write!(f, "no such group: '{name}'"),
            Self::RootByName(name) => {
                write!(f, "user '{name}' is root, which --runas takes as a number only")
            }
            Self::NotRoot(identity) => write!(
                f,
                "cannot run as user {}, group {}: only root can change its user",
                identity.uid, identity.gid
            ),
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::UidMap(error) => Some(error),
            Self::Lookup(_, errno) => Some(errno),
            _ => None,
        }
    }
}

/// Determines whether we are root and, if so, the user to change to.
///
/// # Errors
///
/// [`IdentityError`].
pub(crate) fn privilege(run_as: Option<&RunAs>) -> Result<Privilege, IdentityError> {
    let (uid, gid) = (geteuid(), getegid());
    let root = uid.is_root() && {
        let map = std::fs::read_to_string("/proc/self/uid_map").map_err(IdentityError::UidMap)?;
        is_initial_map(&map)
    };
    let wanted = run_as.map(resolve).transpose()?;
    match (root, wanted) {
        (true, Some(identity)) => Ok(Privilege::Root(identity)),
        (true, None) => default_identity().map(Privilege::Root),
        (false, None) => Ok(Privilege::Ordinary),
        (false, Some(identity)) if identity == (Identity { uid, gid }) => Ok(Privilege::Ordinary),
        (false, Some(identity)) => Err(IdentityError::NotRoot(identity)),
    }
}

/// Whether `identity` can create a user namespace here: tried by a process that does nothing else.
pub(crate) fn may_create_user_namespace(identity: Identity) -> bool {
    match sys::clone_process(0) {
        Ok(Cloned::Child(_)) => {
            let created = identity.assume().is_ok() && unshare(CloneFlags::CLONE_NEWUSER).is_ok();
            sys::exit_now(if created { 0 } else { 1 })
        }
        Ok(Cloned::Parent(child)) => {
            let ended = waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED);
            matches!(ended.map(Termination::from), Ok(Termination::Exited(0)))
        }
        // Whatever is missing then, the start will say so.
        Err(_) => true,
    }
}

/// Whether this is the map of the initial user namespace: every id maps to itself.
fn is_initial_map(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

fn default_identity() -> Result<Identity, IdentityError> {
    let found = User::from_name(DEFAULT_USER)
        .map_err(|errno| IdentityError::Lookup(DEFAULT_USER.into(), errno))?;
    Ok(match found {
        Some(user) if !user.uid.is_root() => Identity { uid: user.uid, gid: user.gid },
        _ => Identity { uid: Uid::from_raw(OVERFLOW_ID), gid: Gid::from_raw(OVERFLOW_ID) },
    })
}

fn resolve(run_as: &RunAs) -> Result<Identity, IdentityError> {
    let (uid, own_group) = match &run_as.user {
        NameOrId::Id(id) => (Uid::from_raw(*id), Gid::from_raw(*id)),
        NameOrId::Name(name) => {
            let user = User::from_name(name)
                .map_err(|errno| IdentityError::Lookup(name.clone(), errno))?
                .ok_or_else(|| IdentityError::NoUser(name.clone()))?;
            if user.uid.is_root() {
                return Err(IdentityError::RootByName(name.clone()));
            }
            (user.uid, user.gid)
        }
    };
    let gid = match &run_as.group {
        None => own_group,
        Some(NameOrId::Id(id)) => Gid::from_raw(*id),
        Some(NameOrId::Name(name)) => {
            Group::from_name(name)
                .map_err(|errno| IdentityError::Lookup(name.clone(), errno))?
                .ok_or_else(|| IdentityError::NoGroup(name.clone()))?
                .gid
        }
    };
    Ok(Identity { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_full_identity_map_is_the_initial_user_namespace() {
        assert!(is_initial_map("         0          0 4294967295\n"));
        assert!(!is_initial_map("0 1000 1\n"));
        assert!(!is_initial_map("0 0 4294967294\n"));
        assert!(!is_initial_map("0 0 4294967295\n1 1 1\n"));
        assert!(!is_initial_map(""));
    }

    #[test]
    fn id_alone_is_its_own_group_and_root_by_name_is_refused() {
        let id = |uid, gid| Identity { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) };
        let run_as = |text| resolve(&crate::value::run_as(text).unwrap());
        assert_eq!(run_as("1234").unwrap(), id(1234, 1234));
        assert_eq!(run_as("0").unwrap(), id(0, 0));
        assert_eq!(run_as("1234:root").unwrap(), id(1234, 0));
        assert!(matches!(run_as("root"), Err(IdentityError::RootByName(_))));
        assert!(matches!(run_as("no-such-user-here"), Err(IdentityError::NoUser(_))));
        assert!(matches!(run_as("1:no-such-group-here"), Err(IdentityError::NoGroup(_))));
    }
}
