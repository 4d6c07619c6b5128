//! An empty, read-only root directory.
//!
//! After [`empty_root`] no path leads anywhere: `/` is a tmpfs with room for its own inode,
//! read-only, and the old tree is detached. Descriptors that are open keep working; a directory
//! descriptor would still lead to the whole old tree, which is why the audit refuses those.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot, pivot_root};
use pasta_ipc::start::RootFallback;
use std::fmt;

/// Where the tmpfs is mounted before it becomes the root: the first of these that is a directory.
/// They only need to exist; what they hold is covered in our private mount namespace alone.
const MOUNT_POINTS: [&str; 5] = ["/proc", "/tmp", "/dev", "/etc", "/usr"];

/// The tmpfs's own root takes the one inode, so that nothing can be made in it even if it were made
/// writable; a page is the smallest size (0 would mean unlimited, tmpfs(5)).
const TMPFS_OPTIONS: &str = "nr_inodes=1,size=4k,mode=0555";

/// Which step towards the empty root the kernel refused, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootError {
    /// What was tried, as in "cannot ...".
    pub step: &'static str,
    /// The kernel's reason.
    pub errno: Errno,
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.step)
    }
}

impl std::error::Error for RootError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.errno)
    }
}

/// Replaces the root of the calling process's mount namespace, which must be its own already.
///
/// # Errors
///
/// [`RootError`] naming the step; the process must not go on then, its mounts are half changed.
pub(crate) fn empty_root(fallback: RootFallback) -> Result<(), RootError> {
    let failed = |step| move |errno| RootError { step, errno };
    const NOTHING: Option<&str> = None;

    // Nothing that we mount may show outside, and nothing mounted outside may show here.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
        .map_err(failed("make the mount tree private"))?;

    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID;
    let mut mounted = Err(Errno::ENOENT);
    for point in MOUNT_POINTS {
        mounted =
            mount(Some("tmpfs"), point, Some("tmpfs"), flags, Some(TMPFS_OPTIONS)).map(|()| point);
        if !matches!(mounted, Err(Errno::ENOENT | Errno::ENOTDIR)) {
            break;
        }
    }
    let point = mounted.map_err(failed("mount an empty tmpfs"))?;
    chdir(point).map_err(failed("enter the empty tmpfs"))?;

    // With both arguments the same, the old root ends up mounted on top of the new one
    // (pivot_root(2), notes), from where it is detached.
    match (pivot_root(".", "."), fallback) {
        (Ok(()), _) => {
            umount2(".", MntFlags::MNT_DETACH).map_err(failed("detach the old root"))?;
        }
        // An initramfs cannot be a new root's old one. The tmpfs covers it instead; no path and no
        // descriptor leads below.
        (Err(Errno::EINVAL | Errno::EPERM), RootFallback::Chroot) => {
            mount(Some("."), "/", NOTHING, MsFlags::MS_MOVE, NOTHING)
                .map_err(failed("move the empty tmpfs to the root"))?;
            chroot(".").map_err(failed("change the root"))?;
        }
        (Err(errno), _) => return Err(failed("make the empty tmpfs the root")(errno)),
    }
    chdir("/").map_err(failed("enter the new root"))
}
