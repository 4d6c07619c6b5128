#![allow(unsafe_code)]
//! The system calls that no safe wrapper covers.
//!
//! Everything here is for processes of one thread (a test before it starts its lab, a child between
//! `fork` and `exec`) or for one socket; nothing keeps a pointer.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::{ForkResult, fork};

/// Splits this process in two.
///
/// # Errors
///
/// What `fork(2)` reports, and `EINVAL` when the process has more than one thread: the child would
/// run with locks held by threads that do not exist in it.
pub fn fork_single_threaded() -> io::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the process has one thread (counted above, and only this thread could start another),
    // so no lock is held by a thread that the child lacks, and the child may do anything.
    unsafe { fork() }.map_err(io::Error::from)
}

/// Gives the signals that end a program their default meaning again: what started the tests may
/// ignore some of them (nohup, a job in the background), and programs inherit that.
///
/// # Errors
///
/// What `sigaction(2)` reports; it has no reason to.
pub fn reset_deadly_signals() -> io::Result<()> {
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: the default disposition runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// Makes `command` start in a session of its own with `terminal` as its controlling terminal and
/// its standard streams, as a shell window would start it.
///
/// # Errors
///
/// Fails when `terminal` cannot be duplicated.
pub fn attach_to_terminal(command: &mut Command, terminal: &OwnedFd) -> io::Result<()> {
    command
        .stdin(terminal.try_clone()?)
        .stdout(terminal.try_clone()?)
        .stderr(terminal.try_clone()?);
    let start_session = || {
        nix::unistd::setsid()?;
        // SAFETY: TIOCSCTTY takes an int by value and no pointer; descriptor 0 is the terminal,
        // since `Command` sets the standard streams before it runs this closure.
        if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls, allocates nothing, takes no
    // lock and touches no memory shared with the parent.
    unsafe { command.pre_exec(start_session) };
    Ok(())
}

/// Makes `command` start with at most `count` descriptors (`RLIMIT_NOFILE`, soft and hard).
pub fn limit_descriptors(command: &mut Command, count: u64) {
    use nix::sys::resource::{Resource, setrlimit};
    let limit = move || Ok(setrlimit(Resource::RLIMIT_NOFILE, count, count)?);
    // SAFETY: between fork and exec the closure makes one system call, allocates nothing, takes no
    // lock and touches no memory shared with the parent.
    unsafe { command.pre_exec(limit) };
}

/// Makes the process of `command` the parent of every orphan below it (`PR_SET_CHILD_SUBREAPER`).
pub fn become_subreaper(command: &mut Command) {
    let become_one = || Ok(nix::sys::prctl::set_child_subreaper(true)?);
    // SAFETY: between fork and exec the closure makes one system call, allocates nothing, takes no
    // lock and touches no memory shared with the parent.
    unsafe { command.pre_exec(become_one) };
}

/// Has the program of `command` traced by the thread that starts it (`PTRACE_TRACEME`).
pub fn be_traced(command: &mut Command) {
    let be_traced = || Ok(nix::sys::ptrace::traceme()?);
    // SAFETY: between fork and exec the closure makes one system call, allocates nothing, takes no
    // lock and touches no memory shared with the parent.
    unsafe { command.pre_exec(be_traced) };
}

/// A system call that a program is to be refused, as by a kernel that cannot do it.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// Number of the call.
    pub call: libc::c_long,
    /// Which arguments make it the call that is meant: their places, and the lower halves of their
    /// values.
    pub arguments: &'static [(u32, libc::c_int)],
    /// What the program is given.
    pub error: libc::c_int,
}

/// Makes `command` start where the kernel refuses the calls of `refusals` (seccomp(2)), for good and
/// for all that it starts.
pub fn refuse_calls(command: &mut Command, refusals: &[Refusal]) {
    let program = refusing_program(refusals);
    let install = move || {
        let filter = libc::sock_fprog {
            len: program.len() as libc::c_ushort,
            filter: program.as_ptr().cast_mut(),
        };
        // Who has no privilege may install a filter only if nobody can gain one by it.
        nix::sys::prctl::set_no_new_privs()?;
        // SAFETY: the kernel reads a `struct sock_fprog` at the pointer, which is exactly that and
        // lives until the call returns, and `len` instructions where it points: `program`, which the
        // closure owns. It copies them, writes to neither and keeps no pointer.
        let rc = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls, allocates nothing, takes no
    // lock and touches no memory shared with the parent.
    unsafe { command.pre_exec(install) };
}

/// The filter of [`refuse_calls`]: for each refusal a row of comparisons that leads to its error, or
/// past it to the next; whatever is left over is allowed.
fn refusing_program(refusals: &[Refusal]) -> Vec<libc::sock_filter> {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let plain = |code, k| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // `struct seccomp_data`: the number, the architecture, an address, then six arguments of 64 bits.
    let number = 0;
    let argument = |index: u32| 16 + 8 * index + if cfg!(target_endian = "big") { 4 } else { 0 };
    let mut program = Vec::new();
    for refusal in refusals {
        let mut wanted = vec![(number, refusal.call as u32)];
        wanted.extend(
            refusal.arguments.iter().map(|(index, value)| (argument(*index), *value as u32)),
        );
        for (done, (offset, value)) in wanted.iter().enumerate() {
            let to_next = 2 * (wanted.len() - done) - 1;
            program.push(plain(BPF_LD | BPF_W | BPF_ABS, *offset));
            let compare = plain(BPF_JMP | BPF_JEQ | BPF_K, *value);
            program.push(libc::sock_filter { jf: to_next as u8, ..compare });
        }
        program.push(plain(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | refusal.error as u32));
    }
    program.push(plain(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW));
    program
}

/// A system call that a program waits in until it may go on.
#[derive(Clone, Copy, Debug)]
pub struct HeldCall {
    id: u64,
    /// The process, in our PID namespace.
    pub pid: i32,
    /// Number of the call.
    pub call: libc::c_long,
    /// Its first two arguments.
    pub arguments: [u64; 2],
}

/// Makes `command`, and all that it starts, wait in each call of `calls` until [`go_on`] (seccomp_unotify(2)). It is
/// announced on descriptor `listener` of the program, from its first instruction on.
pub fn hold_calls(command: &mut Command, calls: &[libc::c_long], listener: i32) {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let plain = |code, k| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // The number of the call comes first.
    let mut program = vec![plain(BPF_LD | BPF_W | BPF_ABS, 0)];
    for call in calls {
        let compare = plain(BPF_JMP | BPF_JEQ | BPF_K, *call as u32);
        program.push(libc::sock_filter { jf: 1, ..compare });
        program.push(plain(BPF_RET | BPF_K, libc::SECCOMP_RET_USER_NOTIF));
    }
    program.push(plain(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW));
    let install = move || {
        let filter = libc::sock_fprog {
            len: program.len() as libc::c_ushort,
            filter: program.as_ptr().cast_mut(),
        };
        nix::sys::prctl::set_no_new_privs()?;
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        // SAFETY: as in `refuse_calls`; the call gives a new descriptor.
        let rc = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: takes two integers; whatever had that number in this process is the program's no more.
        let rc = unsafe { libc::dup2(rc as i32, listener) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec the closure makes three system calls, allocates nothing, takes no
    // lock and touches no memory shared with the parent.
    unsafe { command.pre_exec(install) };
}

/// The next call that somebody waits in; waits for it.
///
/// # Errors
///
/// `ENOENT` if who made it has gone meanwhile, or nobody has the filter any more.
pub fn next_held(listener: &OwnedFd) -> io::Result<HeldCall> {
    /// `SECCOMP_IOCTL_NOTIF_RECV` (linux/seccomp.h)
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    // SAFETY: `seccomp_notif` is plain integers and an array of them, for which all zeroes is valid; the kernel
    // wants it so.
    let mut held: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a `struct seccomp_notif` at the pointer, which is exactly that and lives until the
    // call returns, and keeps no pointer. `listener` is open.
    let rc = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut held) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    let [first, second, ..] = held.data.args;
    let (pid, call) = (held.pid as i32, libc::c_long::from(held.data.nr));
    Ok(HeldCall { id: held.id, pid, call, arguments: [first, second] })
}

/// Lets a call be made.
///
/// # Errors
///
/// `ENOENT` if who made it has gone meanwhile.
pub fn go_on(listener: &OwnedFd, held: HeldCall) -> io::Result<()> {
    /// `SECCOMP_IOCTL_NOTIF_SEND` (linux/seccomp.h)
    const SEND: libc::c_ulong = 0xc018_2101;
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let answer = libc::seccomp_notif_resp { id: held.id, val: 0, error: 0, flags };
    // SAFETY: the kernel reads a `struct seccomp_notif_resp` at the pointer, which is exactly that and lives until
    // the call returns, and keeps no pointer. `listener` is open.
    let rc = unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const answer) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a packet socket bound to the link with index `link`: whatever is sent goes out as a whole
/// Ethernet frame, and whatever arrives is received as one (packet(7)).
///
/// # Errors
///
/// `EPERM` without `CAP_NET_RAW` over the network namespace, `ENODEV` for an unknown index.
pub fn packet_socket(link: u32) -> io::Result<OwnedFd> {
    let every_protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: takes three integers.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::c_int::from(every_protocol),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by the kernel and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `sockaddr_ll` is plain integers and an array of them, for which all zeroes is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every_protocol;
    address.sll_ifindex = i32::try_from(link).map_err(|_| io::ErrorKind::InvalidInput)?;
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `length` octets at `address`, which lives on this stack frame until
    // the call returns, and keeps no pointer. `socket` is open.
    let rc = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// Has this process killed when its parent ends (`PR_SET_PDEATHSIG`).
///
/// # Errors
///
/// What `prctl(2)` reports.
pub fn die_with_parent() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(io::Error::from)
}

/// Has every frame sent on the packet socket `socket` begin with a virtio-net header of ten octets
/// (`PACKET_VNET_HDR`, linux/if_packet.h).
///
/// # Errors
///
/// What `setsockopt(2)` reports.
pub fn expect_vnet_headers(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the kernel reads `length` octets at `on`, which is exactly that long and lives until
    // the call returns; it keeps no pointer. `socket` is open.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const on).cast(),
            length,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a tunnel, a device for packets without frames, in the calling thread's network namespace
/// (`TUNSETIFF`, Documentation/networking/tuntap.rst). It goes when `device` is closed.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` over the network namespace, `EBUSY` for a name that is taken.
pub fn make_tun(device: &File, name: &str) -> io::Result<()> {
    make_device(device, name, libc::IFF_TUN | libc::IFF_NO_PI)
}

/// Makes a tap with a virtio-net header, a device for frames; else as [`make_tun`].
///
/// # Errors
///
/// As [`make_tun`].
pub fn make_tap(device: &File, name: &str) -> io::Result<()> {
    make_device(device, name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)
}

fn make_device(device: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the structure consists of integers, arrays of them, and a pointer in a member that
    // nothing here reads; all zero is a valid value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One less than there is room for, so that the name ends in a zero.
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: this request takes a pointer to one `struct ifreq`, which the kernel reads and may
    // overwrite; `request` is exactly that, lives until the call returns, and no pointer is kept.
    // `device` is open.
    let rc = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A copy of descriptor `number` of process `pid` (pidfd_getfd(2)).
///
/// # Errors
///
/// `EBADF` if it has none of that number, `EPERM` for who may not trace it, `ENOSYS` before
/// Linux 5.6.
pub fn descriptor_of(pid: i32, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if process < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned it as a new descriptor, which nothing else owns.
    let process = unsafe { OwnedFd::from_raw_fd(process as i32) };
    // SAFETY: takes three integers; `process` is open.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as i32) })
}

/// The number of this process's session keyring (`KEYCTL_GET_KEYRING_ID`, keyctl(2)).
///
/// # Errors
///
/// `ENOSYS` where the kernel has no keys, `ENOKEY` if there is none.
pub fn session_keyring() -> io::Result<i32> {
    /// `KEY_SPEC_SESSION_KEYRING` (`linux/keyctl.h`).
    const SESSION: i64 = -3;
    keyctl([0, SESSION, 0])
}

/// Gives this process a new session keyring; gives its number (`KEYCTL_JOIN_SESSION_KEYRING`).
///
/// # Errors
///
/// `ENOSYS` where the kernel has no keys.
pub fn join_session_keyring() -> io::Result<i32> {
    keyctl([1, 0, 0])
}

fn keyctl([operation, first, second]: [i64; 3]) -> io::Result<i32> {
    // SAFETY: both operations used take integers, or a null pointer for "without a name".
    let number = unsafe { libc::syscall(libc::SYS_keyctl, operation, first, second, 0, 0) };
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(number as i32) }
}

/// Puts a character into the input of `terminal` (`TIOCSTI`, ioctl_tty(2)).
///
/// # Errors
///
/// `ENOTTY` for another file, `EIO` where Linux has switched it off.
pub fn type_into(terminal: impl AsFd) -> io::Result<()> {
    let character: u8 = b'x';
    // SAFETY: the kernel reads one octet at the pointer, which `character` is; it lives until the call
    // returns and no pointer is kept. `terminal` is open.
    let rc =
        unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSTI, &raw const character) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The network namespace of a socket (`SIOCGSKNS`, Linux 4.9).
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` over it.
pub fn namespace_of_socket(socket: &OwnedFd) -> io::Result<OwnedFd> {
    /// `SIOCGSKNS` (`linux/sockios.h`).
    const REQUEST: libc::Ioctl = 0x894c;
    // SAFETY: the request takes no argument; `socket` is open.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), REQUEST, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned it as a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The address family and the protocol of a socket (`SO_DOMAIN`, `SO_PROTOCOL`, socket(7)).
///
/// # Errors
///
/// `ENOTSOCK` for another file.
pub fn kind_of_socket(socket: &OwnedFd) -> io::Result<(libc::c_int, libc::c_int)> {
    let get = |name| {
        let mut value: libc::c_int = 0;
        let mut length = size_of_val(&value) as libc::socklen_t;
        let (level, pointer) = (libc::SOL_SOCKET, (&raw mut value).cast());
        // SAFETY: the kernel writes at most `length` octets to `value`, which is exactly that long, and
        // updates `length`; both live until the call returns and no pointer is kept. `socket` is open.
        let rc =
            unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, pointer, &raw mut length) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
    };
    Ok((get(libc::SO_DOMAIN)?, get(libc::SO_PROTOCOL)?))
}
