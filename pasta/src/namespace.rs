//! Creating the namespaces that COMMAND runs in, by creating their first process.
//!
//! That process (`init.rs`) and the launcher talk over a pair of sockets: it says what it could not
//! do, hands over descriptors of its user and network namespace, and waits. One octet releases it;
//! the end of the socket before that ends it.

use crate::inherited::InheritedState;
use crate::init::{self, InitConfig};
use crate::options::Program;
use crate::sys::{self, Child, Cloned};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    send, sendmsg, socketpair,
};
use nix::unistd::{getegid, geteuid};
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// All that is new for COMMAND. The cgroup and time namespaces stay the caller's.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// Longest message of the first process, in octets.
const MAX_MESSAGE: usize = 512;

/// The octet that lets COMMAND start.
const RELEASE: u8 = b'r';

/// The namespaces could not be created. Names what in the system usually stands in the way.
#[derive(Debug)]
pub(crate) struct CreateError {
    errno: io::Error,
    obstacle: Option<Obstacle>,
}

/// What keeps an ordinary user from creating namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// The limit of some namespaces is 0, or reached; or they are nested too deeply.
    Limit,
    /// `kernel.unprivileged_userns_clone=0`, a switch of Debian's kernels.
    Switch,
    /// AppArmor makes user namespaces without power for programs without a profile.
    AppArmor,
    /// Nothing we know of: a seccomp filter or another security module around us.
    Unknown,
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot create namespaces")?;
        match self.obstacle {
            None => Ok(()),
            Some(Obstacle::Limit) => f.write_str(
                " (the sysctl user.max_user_namespaces or another user.max_*_namespaces is 0 or \
                 reached, or user namespaces are nested too deeply)",
            ),
            Some(Obstacle::Switch) => f.write_str(
                " (user namespaces are switched off: kernel.unprivileged_userns_clone=0)",
            ),
            Some(Obstacle::AppArmor) => f.write_str(
                " (AppArmor restricts user namespaces: install the profile that comes with pasta, \
                 or see the sysctl kernel.apparmor_restrict_unprivileged_userns)",
            ),
            Some(Obstacle::Unknown) => f.write_str(
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
        let obstacle = obstacle(raw, is_set);
        Self { errno, obstacle }
    }
}

/// Finds what stands in the way; `is_set` says whether a file of `/proc/sys` holds a value.
fn obstacle(errno: Option<Errno>, is_set: impl Fn(&str, &str) -> bool) -> Option<Obstacle> {
    match errno {
        // EUSERS is what a limit was called before Linux 4.9; some modules still say it.
        Some(Errno::ENOSPC | Errno::EUSERS) => Some(Obstacle::Limit),
        Some(Errno::EPERM | Errno::EACCES) => {
            Some(if is_set("/proc/sys/kernel/unprivileged_userns_clone", "0") {
                Obstacle::Switch
            } else if is_set("/proc/sys/user/max_user_namespaces", "0") {
                Obstacle::Limit
            } else if is_set("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
                Obstacle::AppArmor
            } else {
                Obstacle::Unknown
            })
        }
        _ => None,
    }
}

/// The first process of the new namespaces, as the launcher holds it.
#[derive(Debug)]
pub(crate) struct InitProcess {
    /// The process itself.
    pub(crate) child: Child,
    socket: OwnedFd,
}

/// What the first process says.
#[derive(Debug)]
pub(crate) enum Word {
    /// Something is not as it should be, but COMMAND can run.
    Warning(String),
    /// Why it ends.
    Failed(String),
    /// The namespaces are ready.
    Ready(Namespaces),
}

/// Descriptors of the namespaces that the monitor is to enter.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// The user namespace.
    pub(crate) user: OwnedFd,
    /// The network namespace, owned by it.
    pub(crate) net: OwnedFd,
}

impl AsFd for InitProcess {
    /// The socket, readable when it has said something or is gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl InitProcess {
    /// Creates the namespaces and, in them, the process that will run `program`.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub(crate) fn create(
        program: &Program,
        inherited: &InheritedState,
    ) -> Result<Self, CreateError> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| CreateError::new(errno.into()))?;
        // Inside, our ids have no name until they are mapped.
        let config = InitConfig { program, inherited, uid: geteuid(), gid: getegid() };
        match sys::clone_process(NAMESPACES).map_err(CreateError::new)? {
            Cloned::Parent(child) => Ok(Self { child, socket: ours }),
            Cloned::Child => init::run(Link(theirs), config),
        }
    }

    /// What it says next; none: it is gone.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nothing yet; `InvalidData` for what it never says.
    pub(crate) fn receive(&self) -> io::Result<Option<Word>> {
        let mut buffer = [0; MAX_MESSAGE];
        let mut control = nix::cmsg_space!([i32; 2]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (len, fds) = {
            let raw = self.socket.as_raw_fd();
            let message = recvmsg::<()>(raw, &mut slices, Some(&mut control), flags)?;
            let mut fds = Vec::new();
            for record in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = record {
                    fds.extend(sys::own_received(raw));
                }
            }
            (message.bytes, fds)
        };
        let Some((tag, text)) = buffer.get(..len).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(text).into_owned();
        match (*tag, <[OwnedFd; 2]>::try_from(fds)) {
            (b'w', Err(_)) => Ok(Some(Word::Warning(text))),
            (b'f', Err(_)) => Ok(Some(Word::Failed(text))),
            (b'n', Ok([user, net])) => Ok(Some(Word::Ready(Namespaces { user, net }))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Lets it start COMMAND.
    ///
    /// # Errors
    ///
    /// `EPIPE` if it is gone.
    pub(crate) fn release(&self) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &[RELEASE], MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }
}

/// The first process's end of the socket.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

impl Link {
    /// Moves to descriptor `number`, for a process that closes everything from there on.
    ///
    /// # Errors
    ///
    /// What dup2(2) reports.
    pub(crate) fn move_to(self, number: i32) -> io::Result<Self> {
        if self.0.as_raw_fd() == number {
            return Ok(self);
        }
        sys::place(self.0.as_fd(), number)?;
        sys::own_new(number).map(Self)
    }

    /// Says that something is not as it should be.
    pub(crate) fn warn(&self, text: &str) {
        self.say(b'w', text);
    }

    /// Says why this process is about to end.
    pub(crate) fn fail(&self, text: &str) {
        self.say(b'f', text);
    }

    fn say(&self, tag: u8, text: &str) {
        let mut message = vec![tag];
        message.extend(text.bytes().take(MAX_MESSAGE - 1));
        // A launcher that is gone needs no telling, and its end is noticed where we wait for it.
        let _ = send(self.0.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL);
    }

    /// Hands the namespaces over.
    ///
    /// # Errors
    ///
    /// `EPIPE` if the launcher is gone.
    pub(crate) fn ready(&self, namespaces: &Namespaces) -> io::Result<()> {
        let fds = [namespaces.user.as_raw_fd(), namespaces.net.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let octets = [IoSlice::new(b"n")];
        sendmsg::<()>(self.0.as_raw_fd(), &octets, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Waits until COMMAND may start; false: the launcher is gone.
    pub(crate) fn wait_for_release(&self) -> bool {
        let mut octet = [0];
        loop {
            let flags = MsgFlags::empty();
            match nix::sys::socket::recv(self.0.as_raw_fd(), &mut octet, flags) {
                Err(Errno::EINTR) => continue,
                got => return got == Ok(1) && octet == [RELEASE],
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacle_is_named_by_what_the_system_says() {
        let find = |errno, path: &'static str, value: &'static str| {
            obstacle(Some(errno), move |p, v| p.ends_with(path) && v == value)
        };
        let (eperm, eacces) = (Errno::EPERM, Errno::EACCES);
        assert_eq!(find(Errno::ENOSPC, "-", ""), Some(Obstacle::Limit));
        assert_eq!(find(eperm, "unprivileged_userns_clone", "0"), Some(Obstacle::Switch));
        assert_eq!(find(eperm, "max_user_namespaces", "0"), Some(Obstacle::Limit));
        let apparmor = "apparmor_restrict_unprivileged_userns";
        assert_eq!(find(eacces, apparmor, "1"), Some(Obstacle::AppArmor));
        assert_eq!(find(eacces, apparmor, "0"), Some(Obstacle::Unknown));
        assert_eq!(find(Errno::ENOMEM, "-", ""), None);
    }

    #[test]
    fn message_names_the_setting_to_look_at() {
        for (obstacle, name) in [
            (Obstacle::Limit, "user.max_user_namespaces"),
            (Obstacle::Switch, "kernel.unprivileged_userns_clone"),
            (Obstacle::AppArmor, "AppArmor"),
            (Obstacle::Unknown, "AppArmor"),
        ] {
            let errno = io::Error::from_raw_os_error(libc::EPERM);
            let error = CreateError { errno, obstacle: Some(obstacle) };
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
