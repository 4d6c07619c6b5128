//! The lab's own files: `/tmp`, `/etc`, the executables, and a usable `/dev/net/tun`.
//!
//! All of it is mounted in the lab's private mount namespace and ends with it. The executables are
//! put on a path that every user can reach, wherever they were built: a build directory under
//! `/root` is closed to the user that `pasta` runs as.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::enter::Power;
use super::{Skip, USER};
use crate::Outcome;

/// Where the executables are.
pub(super) const PROGRAMS: &str = "/tmp/programs";

/// What the lab's resolver configuration says until a test writes its own.
const RESOLV_CONF: &str = "nameserver 198.51.100.1\nnameserver 2001:db8:1::1\n";

/// The device behind every tap: character device 10, 200 (Documentation/networking/tuntap.rst).
pub(super) const TUN: &str = "/dev/net/tun";

/// Puts the lab's files in place. `programs` become executables of the same names in directories
/// below [`PROGRAMS`]: each pair is such a directory (empty: [`PROGRAMS`] itself) and a file.
///
/// # Errors
///
/// What the kernel refused, and [`Skip`] when there is no tap device to be had.
pub(super) fn prepare(power: Power, programs: &[(&str, PathBuf)]) -> Outcome {
    // Opened first: a build directory below /tmp is out of sight in a moment.
    let opened: Vec<(&str, &Path, File)> = programs
        .iter()
        .map(|(directory, path)| {
            let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
            file.map(|file| (*directory, path.as_path(), file))
                .map_err(|error| format!("cannot open {}: {error}", path.display()))
        })
        .collect::<Result<_, _>>()?;

    std::env::set_current_dir("/")?;
    let flags = MsFlags::MS_NOSUID;
    mount(Some("lab"), "/tmp", Some("tmpfs"), flags, Some("mode=1777"))?;
    fs::create_dir(PROGRAMS)?;
    for (directory, path, file) in opened {
        let directory = Path::new(PROGRAMS).join(directory);
        fs::create_dir_all(&directory)?;
        let name = path.file_name().ok_or("an executable without a name")?;
        place_executable(&file, &directory.join(name))?;
    }
    prepare_etc()?;
    prepare_tun(power)
}

/// Shows the executable `source` at `target`: by a bind mount, or as a copy owned by root where its
/// owner is neither root nor us (a program may refuse helpers that somebody else can replace).
fn place_executable(source: &File, target: &Path) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", source.as_raw_fd());
    if source.metadata()?.uid() == 0 {
        File::create(target)?;
        bind(Path::new(&path), target)
    } else {
        fs::copy(&path, target)?;
        fs::set_permissions(target, Permissions::from_mode(0o755))
    }
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none).map_err(io::Error::from)
}

/// An `/etc` with what programs look up, and nothing of the machine's.
fn prepare_etc() -> io::Result<()> {
    fs::create_dir("/tmp/etc")?;
    let write = |name: &str, text: &str| fs::write(Path::new("/tmp/etc").join(name), text);
    write("resolv.conf", RESOLV_CONF)?;
    write("hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    write("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")?;
    write(
        "passwd",
        &format!(
            "root:x:0:0:root:/:/bin/sh\n\
             lab:x:{USER}:{USER}:lab:/:/bin/sh\n\
             nobody:x:65534:65534:nobody:/:/bin/sh\n"
        ),
    )?;
    write("group", &format!("root:x:0:\nlab:x:{USER}:\nnogroup:x:65534:\n"))?;
    bind(Path::new("/tmp/etc"), Path::new("/etc"))
}

/// Sees to it that the user of the lab can open the tap device.
fn prepare_tun(power: Power) -> Outcome {
    let device = match fs::metadata(TUN) {
        Ok(device) if device.file_type().is_char_device() => device,
        Ok(_) => return Err(Skip::new("/dev/net/tun is not a device").into()),
        Err(error) => return Err(Skip::new(format!("no /dev/net/tun: {error}")).into()),
    };
    let everybody = 0o666;
    if power == Power::Root && device.mode() & everybody != everybody {
        let own = Path::new("/tmp/tun");
        mknod(own, SFlag::S_IFCHR, Mode::from_bits_truncate(everybody), makedev(10, 200))
            .map_err(|error| Skip::new(format!("cannot make a tun device: {error}")))?;
        fs::set_permissions(own, Permissions::from_mode(everybody))?;
        bind(own, Path::new(TUN))?;
    }
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => Ok(()),
        Err(error) => Err(Skip::new(format!("cannot open /dev/net/tun: {error}")).into()),
    }
}
