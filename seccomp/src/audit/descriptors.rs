//! The open descriptors of this process, by number and kind, and which kinds a helper may hold.
//!
//! There is no `/proc` under an empty root, so the numbers are tried one by one, in blocks. Files
//! of a process are numbered from the bottom, so the first empty block is where they end; what lies
//! above is closed, which makes that certain.

use crate::Role;
use crate::caps::Keep;
use crate::sys;
use nix::sys::stat::{FileStat, major, minor};
use pasta_ipc::types::{FdEntry, Text};
use std::io;

/// Numbers looked at before concluding that nothing is open above. Chosen: some 30 us a block.
const BLOCK: u32 = 256;

const NULL_DEVICE: &str = "character device 1:3";
const REGULAR_FILE: &str = "regular file";
const TUN_DEVICE: &str = "character device 10:200";

/// Lists the open descriptors. A helper closes whatever lies beyond the first empty block.
///
/// # Errors
///
/// If closing is refused; it is not on the kernels we support.
pub(super) fn list(role: Role) -> io::Result<Vec<FdEntry>> {
    let mut found = Vec::new();
    let mut first = 0;
    loop {
        let end = first + BLOCK;
        let before = found.len();
        found.extend((first..end).filter_map(describe));
        if found.len() == before {
            break;
        }
        first = end;
    }
    if role != Role::Supervisor {
        #[expect(unsafe_code, reason = "only this function knows that nothing is open there")]
        // SAFETY: a whole block of numbers from `first` on is closed, so what lies above was left by
        // somebody before this program: nothing here owns it.
        unsafe { sys::close_from(first) }?;
    }
    Ok(found)
}

fn describe(number: u32) -> Option<FdEntry> {
    let fd = i32::try_from(number).ok()?;
    let stat = sys::stat_number(fd).ok()?;
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => match sys::socket_domain(fd) {
            Ok(libc::AF_UNIX) => "unix socket".to_owned(),
            Ok(libc::AF_INET) => "inet socket".to_owned(),
            Ok(libc::AF_INET6) => "inet6 socket".to_owned(),
            Ok(libc::AF_NETLINK) => "netlink socket".to_owned(),
            _ => "other socket".to_owned(),
        },
        _ => kind_of_file(&stat),
    };
    Some(FdEntry { number, kind: Text::truncated(&kind) })
}

fn kind_of_file(stat: &FileStat) -> String {
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFIFO => "pipe",
        libc::S_IFDIR => "directory",
        libc::S_IFREG => REGULAR_FILE,
        libc::S_IFBLK => "block device",
        libc::S_IFLNK => "symbolic link",
        libc::S_IFCHR => {
            return format!("character device {}:{}", major(stat.st_rdev), minor(stat.st_rdev));
        }
        // epoll, eventfd, signalfd, timerfd, inotify and pidfd live in a file system without types.
        0 => "anonymous inode",
        _ => "unknown",
    };
    kind.to_owned()
}

/// Which of `held` the table of `role` does not list, a line each. The supervisor holds what the
/// user gave it (stdio may be anything), so nothing is refused there.
pub(super) fn refused(role: Role, keep: Keep, held: &[FdEntry]) -> Vec<String> {
    let may_hold = |kind: &str| match role {
        Role::Supervisor => true,
        Role::Monitor => matches!(kind, "netlink socket") || common(kind),
        Role::Datapath => kind == TUN_DEVICE || common(kind),
    };
    // The capture is one file, open for appending.
    let captures = if keep.capture { 1 } else { 0 };
    let mut files = 0;
    let mut is_capture = |entry: &FdEntry| {
        files += u32::from(entry.kind.as_str() == REGULAR_FILE);
        entry.kind.as_str() == REGULAR_FILE && files <= captures
    };
    held.iter()
        .filter(|entry| !is_capture(entry))
        .filter(|entry| !may_hold(entry.kind.as_str()))
        .map(|entry| format!("descriptor {} is a {}", entry.number, entry.kind))
        .collect()
}

/// What both helpers hold. A directory would lead to every path below and above it, a terminal
/// takes input for others, a packet socket sees the host's frames: none of them is here.
fn common(kind: &str) -> bool {
    matches!(
        kind,
        NULL_DEVICE | "unix socket" | "inet socket" | "inet6 socket" | "pipe" | "anonymous inode"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str) -> FdEntry {
        FdEntry { number: 7, kind: Text::truncated(kind) }
    }

    #[test]
    fn directory_file_terminal_and_packet_socket_are_refused_to_both_helpers() {
        for role in [Role::Monitor, Role::Datapath] {
            for kind in [
                "directory",
                "regular file",
                "block device",
                "character device 136:0",
                "other socket",
            ] {
                assert_eq!(
                    refused(role, Keep::NOTHING, &[entry(kind)]),
                    [format!("descriptor 7 is a {kind}")]
                );
            }
        }
    }

    #[test]
    fn one_file_is_the_capture() {
        let keep = Keep { capture: true, ..Keep::NOTHING };
        let files = [entry(REGULAR_FILE), entry(REGULAR_FILE)];
        assert!(refused(Role::Datapath, keep, &files[..1]).is_empty());
        assert_eq!(refused(Role::Datapath, keep, &files).len(), 1);
        assert!(!refused(Role::Datapath, keep, &[entry("directory")]).is_empty());
    }

    #[test]
    fn tap_is_for_the_datapath_and_netlink_for_the_monitor() {
        assert!(refused(Role::Datapath, Keep::NOTHING, &[entry(TUN_DEVICE)]).is_empty());
        assert!(!refused(Role::Monitor, Keep::NOTHING, &[entry(TUN_DEVICE)]).is_empty());
        assert!(refused(Role::Monitor, Keep::NOTHING, &[entry("netlink socket")]).is_empty());
        assert!(!refused(Role::Datapath, Keep::NOTHING, &[entry("netlink socket")]).is_empty());
    }

    #[test]
    fn kinds_of_open_descriptors_are_told_apart() {
        let kind_of = |fd: std::os::fd::OwnedFd| {
            use std::os::fd::AsRawFd;
            describe(fd.as_raw_fd() as u32).unwrap().kind.as_str().to_owned()
        };
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(kind_of(null.into()), NULL_DEVICE);
        assert_eq!(kind_of(std::fs::File::open("/").unwrap().into()), "directory");
        let (a, _b) = std::os::unix::net::UnixDatagram::pair().unwrap();
        assert_eq!(kind_of(a.into()), "unix socket");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(kind_of(udp.into()), "inet socket");
        let (read, _write) = nix::unistd::pipe().unwrap();
        assert_eq!(kind_of(read), "pipe");
    }
}
