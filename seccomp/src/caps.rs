//! Capabilities, securebits, groups and users: from whatever the process has to what its table
//! says.

use crate::Role;
use crate::sys;
use ::caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getgroups, setgroups, setresgid, setresuid};
use std::fmt;
use std::io;

/// Securebits of a helper, each with its lock (`linux/securebits.h`): NOROOT and its lock (bits 0,
/// 1), NO_SETUID_FIXUP (2, 3), KEEP_CAPS off but locked (5), NO_CAP_AMBIENT_RAISE (6, 7).
pub(crate) const LOCKED_SECUREBITS: u32 = 0b1110_1111;

/// The bits of [`LOCKED_SECUREBITS`] that we have an opinion on; Linux 6.14 added others above.
pub(crate) const SECUREBITS_MASK: u32 = 0xff;

/// Capabilities as bits of a capability set (`linux/capability.h`).
const NET_BIND_SERVICE_BIT: u64 = 1 << 10;
const NET_ADMIN_BIT: u64 = 1 << 12;

/// What the reports say of a measure not taken; [`crate::audit`] looks for them.
pub(crate) const NO_EMPTY_BOUNDING: &str = "empty bounding set";
/// As [`NO_EMPTY_BOUNDING`].
pub(crate) const NO_SECUREBITS: &str = "locked securebits";

/// What a helper still holds once it is confined: the monitor capabilities over the user namespace it is
/// in, the datapath a file. What a role may not hold is left out, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// `CAP_NET_ADMIN`: it follows the host.
    pub net_admin: bool,
    /// `CAP_NET_BIND_SERVICE`: a rule names a low port inside the namespace.
    pub net_bind_service: bool,
    /// A file to append to, without a limit on its size: the datapath captures frames.
    pub capture: bool,
}

impl Keep {
    /// No capability and no file.
    pub const NOTHING: Self = Self { net_admin: false, net_bind_service: false, capture: false };

    /// What the table leaves to `role` of it.
    pub(crate) fn of(self, role: Role) -> Self {
        match role {
            Role::Supervisor => Self::NOTHING,
            Role::Monitor => Self { capture: false, ..self },
            Role::Datapath => Self { capture: self.capture, ..Self::NOTHING },
        }
    }

    /// The capability set as a mask.
    pub(crate) fn mask(self) -> u64 {
        let bit = |kept: bool, bit| if kept { bit } else { 0 };
        bit(self.net_admin, NET_ADMIN_BIT) | bit(self.net_bind_service, NET_BIND_SERVICE_BIT)
    }

    fn set(self) -> ::caps::CapsHashSet {
        let one = |kept: bool, capability| kept.then_some(capability);
        let admin = one(self.net_admin, Capability::CAP_NET_ADMIN);
        let service = one(self.net_bind_service, Capability::CAP_NET_BIND_SERVICE);
        admin.into_iter().chain(service).collect()
    }
}

/// Which privilege could not be given up.
#[derive(Debug)]
pub enum DropError {
    /// A capability set could not be written; the text is the library's.
    Capabilities(&'static str, String),
    /// The supplementary groups could not be dropped although the kernel allows it here.
    Groups(Errno),
    /// The group id could not be changed.
    GroupId(Errno),
    /// The user id could not be changed, or could be changed back.
    UserId(Errno),
    /// The process could not be made non-dumpable again.
    Dumpable(Errno),
}

impl fmt::Display for DropError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capabilities(what, why) => write!(f, "cannot {what}: {why}"),
            Self::Groups(_) => f.write_str("cannot drop supplementary groups"),
            Self::GroupId(_) => f.write_str("cannot change the group id"),
            Self::UserId(_) => f.write_str("cannot change the user id"),
            Self::Dumpable(_) => f.write_str("cannot become non-dumpable"),
        }
    }
}

impl std::error::Error for DropError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Capabilities(..) => None,
            Self::Groups(errno)
            | Self::GroupId(errno)
            | Self::UserId(errno)
            | Self::Dumpable(errno) => Some(errno),
        }
    }
}

/// Empties the bounding set, so that no exec could ever give a capability back.
///
/// # Errors
///
/// `EPERM` without `CAP_SETPCAP`; bits already dropped stay dropped.
pub(crate) fn empty_bounding() -> io::Result<()> {
    // Dropping takes a capability also where there is nothing left to drop.
    if sys::bounding() == 0 {
        return Ok(());
    }
    for cap in 0..u64::BITS {
        if !sys::drop_from_bounding(cap)? {
            break;
        }
    }
    Ok(())
}

/// Sets and locks the securebits: uid 0 is nobody special, ambient capabilities cannot be raised.
///
/// # Errors
///
/// `EPERM` without `CAP_SETPCAP`.
pub(crate) fn lock_securebits() -> io::Result<()> {
    let bits = sys::securebits()?;
    // Setting takes a capability also where nothing would change.
    if bits & LOCKED_SECUREBITS == LOCKED_SECUREBITS {
        return Ok(());
    }
    sys::set_securebits(bits | LOCKED_SECUREBITS)
}

/// Drops the supplementary groups where the kernel lets us. It does not in a user namespace without
/// a group map or with `setgroups` denied, which is where the helpers of an ordinary user live.
///
/// # Errors
///
/// Anything but that refusal.
pub(crate) fn drop_groups() -> Result<(), DropError> {
    match setgroups(&[]) {
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(DropError::Groups(errno)),
    }
}

/// Reduces every set but the bounding set to `keep`; inheritable and ambient become empty.
///
/// # Errors
///
/// If a set cannot be written, as when `keep` is not held.
pub(crate) fn drop_all_but(keep: Keep) -> Result<(), DropError> {
    let kept = keep.set();
    let failed = |what| {
        move |error: ::caps::errors::CapsError| DropError::Capabilities(what, error.to_string())
    };
    ::caps::clear(None, CapSet::Ambient).map_err(failed("clear the ambient set"))?;
    ::caps::clear(None, CapSet::Inheritable).map_err(failed("clear the inheritable set"))?;
    // Effective first: it may never hold what permitted does not.
    ::caps::set(None, CapSet::Effective, &kept).map_err(failed("reduce the effective set"))?;
    ::caps::set(None, CapSet::Permitted, &kept).map_err(failed("reduce the permitted set"))
}

/// For a launcher that real root started: becomes `uid` and `gid` for good, before any namespace is
/// made. No capability and no supplementary group is left, and the bounding set is empty: no setuid
/// program can give anything back. A user namespace made afterwards starts with a full set of its
/// own (`set_cred_user_ns()` in `kernel/user_namespace.c`), so COMMAND and the helpers lose
/// nothing.
///
/// Changing ids makes the kernel reset two things: dumpability, which is off again when this
/// returns, and a parent-death signal set before, which is gone.
///
/// # Errors
///
/// [`DropError`]; the process must end then.
pub fn become_user(uid: Uid, gid: Gid) -> Result<(), DropError> {
    empty_bounding()
        .map_err(|error| DropError::Capabilities("empty the bounding set", error.to_string()))?;
    setgroups(&[]).map_err(DropError::Groups)?;
    setresgid(gid, gid, gid).map_err(DropError::GroupId)?;
    setresuid(uid, uid, uid).map_err(DropError::UserId)?;
    drop_all_but(Keep::NOTHING)?;
    prctl::set_dumpable(false).map_err(DropError::Dumpable)?;
    if !getgroups().map_err(DropError::Groups)?.is_empty() {
        return Err(DropError::Groups(Errno::EPERM));
    }
    if !uid.is_root() && setresuid(Uid::from_raw(0), uid, uid).is_ok() {
        return Err(DropError::UserId(Errno::EPERM));
    }
    Ok(())
}

/// For a helper that real root started and that is to enter namespaces that exist: becomes `uid` and
/// `gid` for good, and keeps what entering and isolating take: `CAP_SYS_ADMIN`, `CAP_NET_ADMIN`,
/// `CAP_NET_BIND_SERVICE`, `CAP_SETPCAP` and `CAP_SYS_CHROOT`. Entering a user namespace replaces them by a full set there.
///
/// # Errors
///
/// [`DropError`]; the process must end then.
pub fn become_user_to_enter(uid: Uid, gid: Gid) -> Result<(), DropError> {
    let kept = [
        Capability::CAP_SYS_ADMIN,
        Capability::CAP_NET_ADMIN,
        Capability::CAP_NET_BIND_SERVICE,
        Capability::CAP_SETPCAP,
        Capability::CAP_SYS_CHROOT,
    ];
    setgroups(&[]).map_err(DropError::Groups)?;
    setresgid(gid, gid, gid).map_err(DropError::GroupId)?;
    // A change from root to another user clears the permitted set without this (capabilities(7)).
    prctl::set_keepcaps(true).map_err(DropError::UserId)?;
    setresuid(uid, uid, uid).map_err(DropError::UserId)?;
    prctl::set_keepcaps(false).map_err(DropError::UserId)?;
    let failed = |error: ::caps::errors::CapsError| {
        DropError::Capabilities("keep what entering takes", error.to_string())
    };
    let kept = kept.into_iter().collect();
    ::caps::clear(None, CapSet::Effective).map_err(failed)?;
    ::caps::set(None, CapSet::Permitted, &kept).map_err(failed)?;
    ::caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    prctl::set_dumpable(false).map_err(DropError::Dumpable)
}
