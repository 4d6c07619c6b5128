//! Whether a user can open `/dev/net/tun`, and a private device file if not.
//!
//! On most machines every user may open the device. Where only root may, root starts the monitor with a
//! device file in a mount namespace of its own.

use crate::identity::Identity;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, stat};
use std::fmt;
use std::io;

const DIRECTORY: &str = "/dev/net";
const DEVICE: &str = "/dev/net/tun";

/// Major and minor number of the device (`Documentation/admin-guide/devices.txt`).
const NUMBER: (u64, u64) = (10, 200);

/// How the monitor opens the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// By the shared device file.
    Shared,
    /// By a device file in a mount namespace of its own.
    OwnDevice,
}

impl Access {
    /// What `identity` needs. The monitor reports a device that is missing.
    pub(crate) fn of(identity: Identity) -> Self {
        match stat(DEVICE) {
            Ok(file) if !may_open(identity, file.st_mode, file.st_uid, file.st_gid) => {
                Self::OwnDevice
            }
            _ => Self::Shared,
        }
    }
}

/// Whether `identity`, without supplementary groups, may open a file for reading and writing.
fn may_open(identity: Identity, mode: u32, owner: u32, group: u32) -> bool {
    let uid = identity.uid.as_raw();
    let bits = match () {
        () if uid == 0 => return true,
        () if uid == owner => mode >> 6,
        () if identity.gid.as_raw() == group => mode >> 3,
        () => mode,
    };
    bits & 0o6 == 0o6
}

/// The device file could not be created.
#[derive(Debug)]
struct NoDevice(&'static str, Errno);

impl fmt::Display for NoDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot provide {DEVICE}: {}: {}", self.0, self.1.desc())
    }
}

impl std::error::Error for NoDevice {}

/// Moves this process to a new mount namespace in which every user may open the device.
///
/// Only for a process of root that is about to exec. Other processes do not see the device file.
///
/// # Errors
///
/// Names the step that failed; `EPERM` where even root may not create device files (containers).
pub(crate) fn provide_device() -> io::Result<()> {
    let step = |what| move |errno| io::Error::other(NoDevice(what, errno));
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("no mount namespace"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(step("mounts stay shared"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), DIRECTORY, Some("tmpfs"), flags, Some("mode=0755,nr_inodes=2,size=4k"))
        .map_err(step("no file system"))?;
    let number = makedev(NUMBER.0, NUMBER.1);
    let mode = Mode::from_bits_truncate(0o666);
    // The process has one thread, so no other file is created with this umask.
    let mask = nix::sys::stat::umask(Mode::empty());
    let made = mknod(DEVICE, SFlag::S_IFCHR, mode, number);
    nix::sys::stat::umask(mask);
    made.map_err(step("no device file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};

    fn identity(uid: u32, gid: u32) -> Identity {
        Identity { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) }
    }

    #[test]
    fn most_specific_bits_decide() {
        assert!(!may_open(identity(65534, 65534), 0o020600, 0, 0));
        assert!(may_open(identity(65534, 65534), 0o020666, 0, 0));
        assert!(may_open(identity(65534, 10), 0o020660, 0, 10));
        assert!(!may_open(identity(65534, 10), 0o020606, 0, 10));
        assert!(!may_open(identity(7, 7), 0o020066, 7, 7));
        assert!(!may_open(identity(65534, 65534), 0o020664, 0, 0));
        assert!(may_open(identity(0, 0), 0o020600, 0, 0));
    }
}
