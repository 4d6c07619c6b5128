#![allow(unsafe_code)]
//! System calls that no dependency wraps as this program needs them.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::signal::Signal;
use nix::sys::socket::UnixAddr;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, dup2_stdin};
use pasta_ipc::types::MacAddr;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The two returns of [`clone_process`].
#[derive(Debug)]
pub(crate) enum Cloned {
    /// In the process that called; the descriptor is a pidfd of the child.
    Parent(Child),
    /// In the new process.
    Child(ForkedProcess),
}

/// A child process that has not been reaped.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its id in our PID namespace; not reused until it is reaped.
    pub(crate) pid: Pid,
    /// Becomes readable when it ends.
    pub(crate) pidfd: OwnedFd,
}

/// Makes a copy of this process, as fork(2) does, in the new namespaces that `namespaces` names
/// (`CLONE_NEW*`, see clone(2)).
///
/// The C library does not know of the child: its cached thread id is stale, so the child must not
/// call `raise` or `abort`. It must leave by [`exit_now`] or exec.
///
/// # Errors
///
/// What clone(2) reports: `ENOSPC` over a limit of namespaces, `EPERM` where user namespaces are
/// switched off.
pub(crate) fn clone_process(namespaces: libc::c_int) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the child runs on a copy of our memory and stack, so a null stack is
    // right; both sides go on from here with valid frames. The kernel writes one int to `pidfd`
    // (third argument on x86_64 and aarch64 alike), which is alive across the call; the pointers of
    // the last two arguments are unused without the flags for them. This process has one thread,
    // so no lock can be held by a thread that the child lacks.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            std::ptr::null_mut::<libc::c_void>(),
            &raw mut pidfd,
            std::ptr::null_mut::<libc::c_void>(),
            std::ptr::null_mut::<libc::c_void>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child(ForkedProcess(()))),
        pid => {
            let pid = Pid::from_raw(libc::pid_t::try_from(pid).unwrap_or(-1));
            // SAFETY: with CLONE_PIDFD a successful clone has put a new descriptor there, which
            // has no other owner.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent(Child { pid, pidfd }))
        }
    }
}

/// A pidfd of an existing process (pidfd_open(2)).
///
/// # Errors
///
/// `ESRCH` if there is no such process; `ENOENT` or `EINVAL` if it is a thread.
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    pidfd_open_with(pid, 0)
}

/// A pidfd of a process or of a single thread, which becomes readable when that ends.
///
/// # Errors
///
/// `ESRCH` if there is none; before Linux 6.9, `EINVAL` for a thread.
pub(crate) fn pidfd_open_any(pid: Pid) -> io::Result<OwnedFd> {
    match pidfd_open(pid) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {
            pidfd_open_with(pid, libc::PIDFD_THREAD)
        }
        opened => opened,
    }
}

fn pidfd_open_with(pid: Pid, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), flags) };
    let fd = RawFd::try_from(check(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to the process behind `pidfd` (pidfd_send_signal(2)): never to another process
/// that has got its id.
///
/// # Errors
///
/// `ESRCH` if it has been reaped.
pub(crate) fn pidfd_send_signal(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill in what kill(2) would; no memory of ours is
    // touched. `fd` stays open for as long as `pidfd` is borrowed.
    let rc =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as libc::c_int, info, 0) };
    check(rc).map(drop)
}

/// Binds a unix socket to a name that the kernel chooses (autobind, unix(7)). A socket can be bound once, so
/// whoever gets it can take no other name of the host.
///
/// # Errors
///
/// What bind(2) reports; `ENOSPC` where a million names are taken.
pub(crate) fn take_a_name(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?)
}

/// A copy of the mounts at and below `path`, mounted nowhere (`open_tree`, Linux 5.2).
///
/// # Errors
///
/// `ENOSYS` before Linux 5.2, `EPERM` without `CAP_SYS_ADMIN` over the mount namespace.
pub(crate) fn clone_mounts(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the kernel reads a string at the pointer, which `path` is, with its end; it lives until the call
    // returns and no pointer is kept.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = RawFd::try_from(check(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Mounts what [`clone_mounts`] gave at `path` (`move_mount`, Linux 5.2).
///
/// # Errors
///
/// As [`clone_mounts`], `ENOENT` where there is no such path.
pub(crate) fn attach_mounts(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let (from, empty, to) = (tree.as_raw_fd(), c"".as_ptr(), path.as_ptr());
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH;
    // SAFETY: the kernel reads strings at both pointers, which live until the call returns; it keeps none.
    // `tree` is open.
    let rc = unsafe { libc::syscall(libc::SYS_move_mount, from, empty, libc::AT_FDCWD, to, flags) };
    check(rc).map(drop)
}

/// The kind of the namespace behind `fd`: its `CLONE_NEW` flag (`NS_GET_NSTYPE`, ioctl_ns(2)).
///
/// # Errors
///
/// `ENOTTY` for another file.
pub(crate) fn namespace_kind(fd: impl AsFd) -> io::Result<libc::c_int> {
    // SAFETY: the request takes no argument and touches no memory of ours.
    Ok(unsafe { request::ns_get_nstype(fd.as_fd().as_raw_fd()) }?)
}

/// The user namespace that owns the namespace behind `fd` (`NS_GET_USERNS`, ioctl_ns(2)).
///
/// # Errors
///
/// `EPERM` if it is not ours and not below ours.
pub(crate) fn owning_user_namespace(fd: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument and touches no memory of ours.
    let owner = unsafe { request::ns_get_userns(fd.as_fd().as_raw_fd()) }?;
    // SAFETY: the kernel has just made this descriptor for us, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(owner) })
}

/// What the kernel says of a tap (`TUNGETIFF`, Documentation/networking/tuntap.rst).
#[derive(Debug)]
pub(crate) struct TapRequest {
    /// Name of its interface, in the namespace where it was made or moved to.
    pub(crate) name: String,
    /// `IFF_TAP` and others (`linux/if_tun.h`).
    pub(crate) flags: libc::c_int,
}

/// Asks for the name and flags of a tap.
///
/// # Errors
///
/// `ENOTTY` for another file, `EBADFD` for a tun device without an interface.
pub(crate) fn tap_request(tap: impl AsFd) -> io::Result<TapRequest> {
    let mut request = empty_request();
    interface_ioctl(tap, libc::TUNGETIFF, &mut request)?;
    // SAFETY: the kernel has filled in this member of the union; any number is a value of its type.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let name = request.ifr_name.iter().take_while(|octet| **octet != 0);
    let name = name.map(|octet| octet.to_ne_bytes()[0]).collect();
    let name = String::from_utf8(name).map_err(io::Error::other)?;
    Ok(TapRequest { name, flags: libc::c_int::from(flags) & 0xffff })
}

/// The link-layer address of a tap's interface.
///
/// # Errors
///
/// `EBADFD` without an interface; `InvalidData` if it is not unicast.
pub(crate) fn tap_mac(tap: impl AsFd) -> io::Result<MacAddr> {
    let mut request = empty_request();
    interface_ioctl(tap, libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: the kernel has filled in this member of the union; any octet is a value of its type.
    let [a, b, c, d, e, f, ..] = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
    let octets = [a, b, c, d, e, f].map(|octet| octet.to_ne_bytes()[0]);
    MacAddr::try_from(octets).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Octets of the virtio-net header of a tap (`TUNGETVNETHDRSZ`).
///
/// # Errors
///
/// `EBADFD` without an interface.
pub(crate) fn vnet_header_size(tap: impl AsFd) -> io::Result<libc::c_int> {
    let mut size: libc::c_int = 0;
    let fd = tap.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one `int` at the pointer, which `size` is; it lives until we return and
    // no pointer is kept. `tap` stays open for as long as it is borrowed.
    let rc = unsafe { libc::ioctl(fd, libc::TUNGETVNETHDRSZ, &raw mut size) };
    check(rc.into()).map(|_| size)
}

fn empty_request() -> libc::ifreq {
    // SAFETY: the structure consists of integers, arrays of them, and a pointer in a member that
    // nothing here reads; all zero is a valid value of each.
    unsafe { std::mem::zeroed() }
}

/// Carries out a request that takes a `struct ifreq` (netdevice(7)).
fn interface_ioctl(
    fd: impl AsFd,
    number: libc::Ioctl,
    request: &mut libc::ifreq,
) -> io::Result<()> {
    // SAFETY: such a request takes a pointer to one `struct ifreq`, which the kernel reads and may
    // overwrite; `request` is exactly that, lives until the call returns, and no pointer is kept. `fd`
    // stays open for as long as it is borrowed.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), number, &raw mut *request) }.into())
        .map(drop)
}

/// Requests of `linux/nsfs.h`.
mod request {
    nix::ioctl_none!(ns_get_userns, 0xb7, 0x1);
    nix::ioctl_none!(ns_get_nstype, 0xb7, 0x3);
}

/// Closes every descriptor from `first` on but `keep`, which is owned from now on and closed on exec;
/// none if it is not open.
///
/// # Safety
///
/// No value may own a descriptor in that range.
///
/// # Errors
///
/// `ENOSYS` before Linux 5.9.
pub(crate) unsafe fn close_from(
    first: libc::c_uint,
    keep: Option<RawFd>,
) -> io::Result<Option<OwnedFd>> {
    let kept = match keep {
        // SAFETY: the number is looked at only; if it is open it stays so until it is closed below.
        Some(number) => match fcntl(unsafe { BorrowedFd::borrow_raw(number) }, F_SET_CLOEXEC) {
            // SAFETY: the call succeeded, so it is open, and as the caller ensures nothing owns it.
            Ok(_) => Some(unsafe { OwnedFd::from_raw_fd(number) }),
            Err(_) => None,
        },
        None => None,
    };
    let keep: Vec<_> = kept.as_ref().map(AsRawFd::as_raw_fd).into_iter().collect();
    for (first, last) in around(first, &keep) {
        // SAFETY: as the caller ensures, nothing owns these; closing touches no memory.
        unsafe { close_range(first, last) }?;
    }
    Ok(kept)
}

/// Moves `fd` to a number from `min` on. If it was standard input, that becomes `/dev/null`: without it
/// the next descriptor opened would have its number, and be lost when standard input is replaced.
///
/// # Errors
///
/// What fcntl(2), open(2) and dup2(2) report.
pub(crate) fn off_standard_input(fd: OwnedFd, min: RawFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() != libc::STDIN_FILENO {
        return Ok(fd);
    }
    let moved = duplicate_above(fd.as_fd(), min)?;
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    // The number belongs to standard input, which stays open.
    let _ = fd.into_raw_fd();
    Ok(moved)
}

const F_SET_CLOEXEC: FcntlArg<'_> = FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC);

/// The ranges from `first` on that are left between the numbers `keep`.
fn around(first: libc::c_uint, keep: &[RawFd]) -> Vec<(libc::c_uint, libc::c_uint)> {
    // A descriptor is not negative.
    let mut keep: Vec<_> = keep.iter().map(|number| number.unsigned_abs()).collect();
    keep.sort_unstable();
    let (mut next, mut ranges) = (first, Vec::new());
    for number in keep.into_iter().filter(|number| *number >= first) {
        if number > next {
            ranges.push((next, number - 1));
        }
        next = number.saturating_add(1);
    }
    ranges.push((next, libc::c_uint::MAX));
    ranges
}

/// Descriptors that the caller has left open for COMMAND. Nothing here owns them; they are closed on exec
/// of any other program.
#[derive(Debug, Default)]
pub(crate) struct CallersDescriptors(Vec<RawFd>);

impl CallersDescriptors {
    /// Takes what is open from `first` on.
    ///
    /// # Safety
    ///
    /// No value may own a descriptor in that range.
    ///
    /// # Errors
    ///
    /// What reading `/proc/self/fd` and fcntl(2) report.
    pub(crate) unsafe fn take(first: libc::c_uint) -> io::Result<Self> {
        let names = std::fs::read_dir("/proc/self/fd")?;
        let numbers = names.filter_map(|it| it.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
        let listed: Vec<_> = numbers.filter(|number| number.unsigned_abs() >= first).collect();
        // The directory itself is closed by now.
        let mut open = Vec::new();
        for number in listed {
            // SAFETY: the number is used for this call only, which fails if it is not open.
            match fcntl(unsafe { BorrowedFd::borrow_raw(number) }, F_SET_CLOEXEC) {
                Ok(_) => open.push(number),
                Err(Errno::EBADF) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Self(open))
    }

    /// Closes them, once COMMAND's first process has them.
    ///
    /// # Errors
    ///
    /// What close_range(2) reports.
    pub(crate) fn close(self) -> io::Result<()> {
        for number in self.0.iter().map(|number| number.unsigned_abs()) {
            // SAFETY: as `take` demands, nothing owns this number: it was open before anything here
            // opened a descriptor, and was kept open since.
            unsafe { close_range(number, number) }?;
        }
        Ok(())
    }

    /// Their numbers.
    pub(crate) fn numbers(&self) -> &[RawFd] {
        &self.0
    }
}

/// Closes the descriptors from `first` to `last`, both included.
///
/// # Safety
///
/// As [`close_from`].
unsafe fn close_range(first: libc::c_uint, last: libc::c_uint) -> io::Result<()> {
    // SAFETY: closing touches no memory, and the caller ensures that nothing uses these descriptors.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Proof that this process is a copy that [`clone_process`] has made: with one thread, and on its way to
/// exec or [`exit_now`], so that no destructor of a value copied from its parent runs. Descriptors may
/// be closed and replaced here although such values own them.
#[derive(Debug)]
pub(crate) struct ForkedProcess(());

impl ForkedProcess {
    /// Closes every descriptor from `first` on except those with the numbers `keep`.
    ///
    /// # Errors
    ///
    /// `ENOSYS` before Linux 5.9.
    pub(crate) fn close_from(&self, first: libc::c_uint, keep: &[RawFd]) -> io::Result<()> {
        for (first, last) in around(first, keep) {
            // SAFETY: values that own these descriptors are copies of the parent's. None is dropped in
            // this process, which ends by exec or `exit_now`; all that it still uses is `keep`.
            unsafe { close_range(first, last) }?;
        }
        Ok(())
    }

    /// Has the caller's descriptors survive exec.
    ///
    /// # Errors
    ///
    /// What fcntl(2) reports.
    pub(crate) fn pass_on(&self, descriptors: &CallersDescriptors) -> io::Result<()> {
        for number in descriptors.numbers() {
            // SAFETY: the descriptor is open: `CallersDescriptors` says so, and this process has closed
            // none of them.
            let fd = unsafe { BorrowedFd::borrow_raw(*number) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    }

    /// Makes the descriptors 0, 1, 2 and so on duplicates of `fds`, in this order, that survive exec.
    ///
    /// Whatever had these numbers is closed. `fds` themselves may be among them.
    ///
    /// # Errors
    ///
    /// What fcntl(2) and dup2(2) report.
    pub(crate) fn place_descriptors(&self, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let above = RawFd::try_from(fds.len()).map_err(io::Error::other)?;
        let moved: Vec<OwnedFd> =
            fds.iter().map(|fd| duplicate_above(*fd, above)).collect::<io::Result<_>>()?;
        for (number, fd) in (0..).zip(&moved) {
            // SAFETY: dup2 touches no memory. Values that own `number` are copies of the parent's and
            // never dropped in this process; `moved` has only numbers above.
            check(libc::c_long::from(unsafe { libc::dup2(fd.as_raw_fd(), number) }))?;
        }
        Ok(())
    }
}

/// Duplicates `fd` with close-on-exec at the lowest free number that is not below `min`.
///
/// # Errors
///
/// What fcntl(2) reports: `EMFILE` at the limit, `EINVAL` for a `min` out of range.
pub(crate) fn duplicate_above(fd: BorrowedFd<'_>, min: RawFd) -> io::Result<OwnedFd> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(min))?;
    // SAFETY: the call succeeded, so this is an open descriptor that the kernel has just made for us,
    // and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sets the disposition of the signal `number` back to its default.
///
/// # Errors
///
/// `EINVAL` for `SIGKILL` and `SIGSTOP`, those that the C library keeps for itself, and what is none.
pub(crate) fn default_disposition(number: libc::c_int) -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler, so there is no code whose safety is in question.
    let before = unsafe { libc::signal(number, libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ignores the signal `number`, also across exec.
///
/// # Errors
///
/// As [`default_disposition`].
pub(crate) fn ignore_signal(number: libc::c_int) -> io::Result<()> {
    // SAFETY: SIG_IGN installs no handler, so there is no code whose safety is in question.
    let before = unsafe { libc::signal(number, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends this process at once: no destructor, no exit handler, no flushing.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

fn check(rc: libc::c_long) -> io::Result<libc::c_long> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}
