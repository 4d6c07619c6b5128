//! A `/sys` that shows the interfaces of the network namespace it is mounted in, and not the host's.
//!
//! What is mounted below `/sys` (control groups above all) is put below the new one again. Where one of these
//! steps is refused, as in a container that hides parts of `/sys`, COMMAND keeps what the caller has.

use crate::sys;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const SYS: &str = "/sys";

/// Mounts it over the caller's, if there is one.
///
/// # Errors
///
/// What the kernel refuses; nothing has changed then.
pub(crate) fn mount_own() -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let Some(Mounted { below, readonly }) = mounted(&table) else { return Ok(()) };
    let trees: Vec<(PathBuf, OwnedFd)> = below
        .into_iter()
        .map(|path| sys::clone_mounts(&path).map(|tree| (path, tree)))
        .collect::<io::Result<_>>()?;
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // A user namespace may not make writable what was mounted read-only for it.
    flags.set(MsFlags::MS_RDONLY, readonly);
    mount(Some("sysfs"), SYS, Some("sysfs"), flags, None::<&str>)?;
    for (path, tree) in &trees {
        if let Err(error) = sys::attach_mounts(tree, path) {
            umount2(SYS, MntFlags::MNT_DETACH)?;
            return Err(error);
        }
    }
    Ok(())
}

/// What is mounted at and below `/sys`.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    /// Mount points below it, without those below another one.
    below: Vec<PathBuf>,
    readonly: bool,
}

/// Reads a table of mounts (proc_pid_mountinfo(5)); none if there is no sysfs at `/sys`.
fn mounted(table: &str) -> Option<Mounted> {
    let (mut sysfs, mut below) = (None, Vec::<PathBuf>::new());
    for line in table.lines() {
        let mut fields = line.split(' ');
        // Kernel's numbers, the root, then where and how; after a dash the type.
        let (Some(point), Some(options)) = (fields.nth(4), fields.next()) else { continue };
        let kind = fields.skip_while(|field| *field != "-").nth(1);
        if point == SYS && kind == Some("sysfs") {
            sysfs = Some(options.split(',').any(|option| option == "ro"));
        }
        // A space or the like in a name is written in octal: the kernel makes no such names there.
        let path = Path::new(point);
        let is_below = path.starts_with(SYS) && path != Path::new(SYS);
        if is_below && !below.iter().any(|other| path.starts_with(other)) {
            below.retain(|other| !other.starts_with(path));
            below.push(path.to_owned());
        }
    }
    sysfs.map(|readonly| Mounted { below, readonly })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_are_found_once_each() {
        let table = "\
22 27 0:20 / /sys ro,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
23 27 0:21 / /proc rw - proc proc rw
30 22 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
29 22 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 22 0:6 / /sys/kernel/debug rw - debugfs debugfs rw
32 31 0:7 / /sys/kernel/debug/tracing rw - tracefs tracefs rw
33 27 0:7 / /system rw - tmpfs tmpfs rw
";
        let below = ["/sys/fs/cgroup", "/sys/kernel/debug"].map(PathBuf::from).to_vec();
        assert_eq!(mounted(table), Some(Mounted { below, readonly: true }));
        let table = table.replace("/sys ro,", "/sys rw,");
        assert_eq!(mounted(&table).map(|it| it.readonly), Some(false));
    }

    #[test]
    fn without_sysfs_there_is_nothing_to_replace() {
        assert_eq!(mounted("33 27 0:7 / /sys rw - tmpfs tmpfs rw\n"), None);
        assert_eq!(mounted(""), None);
        assert_eq!(mounted("too short\n"), None);
    }
}
