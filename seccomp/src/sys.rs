#![allow(unsafe_code)]
//! System calls that no dependency wraps.

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::stat::{FileStat, fstat};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use seccompiler::sock_filter;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Highest bit that a 64-bit capability set can have; the kernel has 41 capabilities in 6.18.
const CAP_BITS: u32 = 64;

/// `_LINUX_CAPABILITY_VERSION_3` (`linux/capability.h`): two 32-bit words per set.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// The three sets of capget(2) as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapSets {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

/// Which side of [`clone_sibling`] we are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// The old one; the new one's pid in our pid namespace.
    Parent(i32),
}

fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// prctl(2) with integer arguments only.
fn prctl(option: libc::c_int, arg: libc::c_ulong) -> io::Result<libc::c_int> {
    prctl2(option, arg, 0)
}

fn prctl2(
    option: libc::c_int,
    arg2: libc::c_ulong,
    arg3: libc::c_ulong,
) -> io::Result<libc::c_int> {
    const ZERO: libc::c_ulong = 0;
    // SAFETY: every option that this module uses takes integers, so the kernel reads and writes no
    // memory of ours; unused arguments are zero, as those options demand.
    check(unsafe { libc::prctl(option, arg2, arg3, ZERO, ZERO) })
}

/// The system call filters of process `pid` as they were installed, the oldest first. It stands still meanwhile, for
/// some microseconds.
///
/// # Errors
///
/// `EPERM` unless we may trace it and have `CAP_SYS_ADMIN` and no filter; `EIO` where the kernel keeps none
/// (`CONFIG_CHECKPOINT_RESTORE`, ptrace(2)).
pub(crate) fn installed_filters(pid: Pid) -> io::Result<Vec<Vec<sock_filter>>> {
    ptrace::seize(pid, ptrace::Options::empty())?;
    ptrace::interrupt(pid)?;
    let stopped = waitpid(pid, Some(WaitPidFlag::__WALL))?;
    let mut filters = Vec::new();
    let read = loop {
        match installed_filter(pid, filters.len()) {
            Ok(filter) => filters.push(filter),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break Ok(filters),
            Err(error) => break Err(error),
        }
    };
    // A signal that it was about to receive it receives. If this fails, it goes on when we end.
    let signal = match stopped {
        WaitStatus::Stopped(_, signal) => Some(signal),
        _ => None,
    };
    let _ = ptrace::detach(pid, signal);
    read
}

/// Filter number `number` of a process that we trace and that is stopped.
fn installed_filter(pid: Pid, number: usize) -> io::Result<Vec<sock_filter>> {
    /// `PTRACE_SECCOMP_GET_FILTER` (`linux/ptrace.h`)
    const GET_FILTER: u32 = 0x420c;
    let get = |program: *mut sock_filter| {
        let number = number as *mut libc::c_void;
        // SAFETY: with a null pointer the kernel gives the number of instructions and writes nothing; otherwise it
        // writes as many as that, which is what there is room for: the filters of a process do not change while it
        // is stopped. It keeps no pointer. `number` is an integer for this request.
        let rc = unsafe { libc::ptrace(GET_FILTER as _, pid.as_raw(), number, program) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc as usize) }
    };
    let len = get(std::ptr::null_mut())?;
    let mut program = vec![sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; len];
    get(program.as_mut_ptr())?;
    Ok(program)
}

/// Forks like fork(2), but the new process is a child of our parent (`CLONE_PARENT`).
///
/// libc does not know of the new process, so its idea of the thread id stays the old one there.
/// Only raise(3), abort(3) and robust or error-checking mutexes look at it; nothing else does.
///
/// # Errors
///
/// `EAGAIN`, `ENOMEM` as for fork; `EINVAL` if the caller is init of its pid namespace.
pub(crate) fn clone_sibling() -> io::Result<Cloned> {
    let flags = libc::CLONE_PARENT as libc::c_ulong | libc::SIGCHLD as libc::c_ulong;
    const ZERO: libc::c_ulong = 0;
    // SAFETY: no CLONE_VM and no stack is given, so the child goes on with a copy of our memory and
    // shares none; no flag makes the kernel use the tid or tls pointers, which are zero. The caller
    // is single-threaded (isolate checks it: `unshare(CLONE_NEWUSER)` fails otherwise), so no lock
    // is held by a thread that the child lacks. All five arguments are zero apart from the flags,
    // so that their order, which differs between architectures, does not matter.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, ZERO, ZERO, ZERO, ZERO) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Cloned::Child),
        Ok(pid) if pid > 0 => Ok(Cloned::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process at once: no exit handlers, nothing flushed (`_exit(2)`).
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Takes over a descriptor that the start-up protocol put at a fixed number, if it is a socket.
///
/// # Safety
///
/// Nothing in this process may own that number: a helper calls this once, at its start.
///
/// # Errors
///
/// `EBADF` if nothing is open there, `InvalidInput` if it is not a socket. It stays untouched then.
pub(crate) unsafe fn take_inherited_socket(number: RawFd) -> io::Result<OwnedFd> {
    let stat = stat_number(number)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFSOCK {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptor is not a socket"));
    }
    // SAFETY: `number` is open (fstat has just succeeded), and as the caller ensures nothing owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// What fstat(2) says of the descriptor `number`.
///
/// # Errors
///
/// `EBADF` if it is not open.
pub(crate) fn stat_number(number: RawFd) -> nix::Result<FileStat> {
    look_at(number, |fd| fstat(fd))
}

/// Calls `look` with the descriptor `number`, which may be closed: system calls answer `EBADF` then.
fn look_at<T>(
    number: RawFd,
    look: impl FnOnce(BorrowedFd<'_>) -> nix::Result<T>,
) -> nix::Result<T> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: it is not -1, and the closures here make one call with it that neither closes nor keeps it.
    look(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Closes every descriptor from `first` on (close_range(2), Linux 5.9).
///
/// # Safety
///
/// No value of this process may own a descriptor in that range.
///
/// # Errors
///
/// `ENOSYS` before Linux 5.9.
pub(crate) unsafe fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: integers only; as the caller ensures, nothing owns these.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Removes capability number `cap` from the bounding set. `Ok(false)`: there is no such number.
///
/// # Errors
///
/// `EPERM` without `CAP_SETPCAP`.
pub(crate) fn drop_from_bounding(cap: u32) -> io::Result<bool> {
    match prctl(libc::PR_CAPBSET_DROP, cap.into()) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads the bounding set, bit by bit until the kernel knows no more.
pub(crate) fn bounding() -> u64 {
    bits_while_known(|cap| prctl(libc::PR_CAPBSET_READ, cap.into()))
}

/// Reads the ambient set, bit by bit until the kernel knows no more.
pub(crate) fn ambient() -> u64 {
    let is_set = libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong;
    bits_while_known(|cap| prctl2(libc::PR_CAP_AMBIENT, is_set, cap.into()))
}

fn bits_while_known(read: impl Fn(u32) -> io::Result<libc::c_int>) -> u64 {
    (0..CAP_BITS).map_while(|cap| read(cap).ok().map(|set| (set as u64 & 1) << cap)).sum()
}

/// Reads our effective, permitted and inheritable sets.
///
/// # Errors
///
/// What capget(2) reports; it cannot fail for the calling thread on the kernels we support.
pub(crate) fn capabilities() -> io::Result<CapSets> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Words {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut words = [Words::default(); 2];
    // SAFETY: version 3 makes the kernel read one `Header` and write exactly two `Words`, which is
    // what the pointers lead to; both live until the call returns and no pointer is kept.
    let rc = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    let [low, high] = words;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(CapSets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// Reads the securebits (capabilities(7)).
///
/// # Errors
///
/// What prctl(2) reports.
pub(crate) fn securebits() -> io::Result<u32> {
    prctl(libc::PR_GET_SECUREBITS, 0).map(|bits| bits as u32)
}

/// Sets the securebits.
///
/// # Errors
///
/// `EPERM` without `CAP_SETPCAP` or if a locked bit would change.
pub(crate) fn set_securebits(bits: u32) -> io::Result<()> {
    prctl(libc::PR_SET_SECUREBITS, bits.into()).map(drop)
}

/// Joins a new session keyring without a name (`KEYCTL_JOIN_SESSION_KEYRING`, keyctl(2)).
///
/// # Errors
///
/// `ENOSYS` where the kernel has no keys, `EDQUOT` if the user has no room for another.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    /// `KEYCTL_JOIN_SESSION_KEYRING` (`linux/keyctl.h`).
    const OPERATION: libc::c_long = 1;
    const ZERO: libc::c_long = 0;
    // SAFETY: the operation takes a null pointer for "without a name"; the other arguments are integers
    // that it does not look at. The kernel touches no memory of ours.
    let rc = unsafe { libc::syscall(libc::SYS_keyctl, OPERATION, ZERO, ZERO, ZERO, ZERO) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Installs `program` as a filter of this process (seccomp(2)), for good.
///
/// # Errors
///
/// `EACCES` without both `no_new_privs` and `CAP_SYS_ADMIN` in the user namespace.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the kernel reads a `struct sock_fprog` at the pointer, which is exactly that and lives until
    // the call returns, and `len` instructions where it points: `program`, which is borrowed for as long.
    // It copies them, writes to neither and keeps no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) }).map(drop)
}

/// Refuses for good that memory becomes executable that was not mapped so (`PR_SET_MDWE`).
///
/// # Errors
///
/// `EINVAL` before Linux 6.3 and where the architecture lacks it.
pub(crate) fn refuse_exec_gain() -> io::Result<()> {
    prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN.into()).map(drop)
}

/// The user ids of process `pid`, as our user namespace shows them: real, effective, saved and that for
/// files (`PIDFD_GET_INFO`, Linux 6.13).
///
/// # Errors
///
/// `ENOTTY` or `EINVAL` before Linux 6.13, `ESRCH` if there is no such process.
pub(crate) fn user_ids(pid: Pid) -> io::Result<[u32; 4]> {
    /// `struct pidfd_info` as it was first (`PIDFD_INFO_SIZE_VER0`, `linux/pidfd.h`).
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        pid: u32,
        tgid: u32,
        ppid: u32,
        ruid: u32,
        rgid: u32,
        euid: u32,
        egid: u32,
        suid: u32,
        sgid: u32,
        fsuid: u32,
        fsgid: u32,
        exit_code: i32,
    }
    /// `PIDFD_INFO_CREDS`: the ids of users and groups are wanted, and there.
    const CREDENTIALS: u64 = 1 << 1;
    /// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
    const GET_INFO: libc::Ioctl = nix::request_code_readwrite!(0xff, 11, size_of::<Info>());
    const ZERO: libc::c_long = 0;
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid.as_raw()), ZERO) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and it has no other owner.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = Info { mask: CREDENTIALS, ..Info::default() };
    // SAFETY: the size of `info` is part of the request, and the kernel reads and writes no more than
    // that; `info` lives until the call returns and no pointer is kept. `fd` is open.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), GET_INFO, &raw mut info) })?;
    if info.mask & CREDENTIALS == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok([info.ruid, info.euid, info.suid, info.fsuid])
}

/// Reads the address family of the socket `number` (`SO_DOMAIN`, socket(7)).
///
/// # Errors
///
/// `ENOTSOCK` if it is none, `EBADF` if it is not open.
pub(crate) fn socket_domain(number: RawFd) -> io::Result<libc::c_int> {
    let mut domain: libc::c_int = 0;
    let mut len = size_of_val(&domain) as libc::socklen_t;
    let value = (&raw mut domain).cast();
    // SAFETY: the kernel writes at most `len` octets to `value`, which is `domain`: exactly that
    // long; it updates `len`. Both outlive the call and no pointer is kept. `number` is looked at only.
    check(unsafe {
        libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_DOMAIN, value, &raw mut len)
    })?;
    Ok(domain)
}
