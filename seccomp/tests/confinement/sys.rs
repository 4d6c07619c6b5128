#![allow(unsafe_code)]
//! System calls that the tests make by number, and forking.

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// An argument of [`call`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    /// An integer.
    Int(i64),
    /// The address of zeroed memory, 4 KiB.
    Zeroes,
    /// The address of the string "/".
    Slash,
}

/// Makes the system call `number`. For children that are about to end: what the call does to the
/// process is not looked after.
pub(crate) fn call(number: i64, args: &[Arg]) -> Result<i64, Errno> {
    static ZEROES: [u8; 4096] = [0; 4096];
    let mut raw = [0_u64; 6];
    for (raw, arg) in raw.iter_mut().zip(args) {
        *raw = match arg {
            Arg::Int(value) => *value as u64,
            Arg::Zeroes => ZEROES.as_ptr() as u64,
            Arg::Slash => c"/".as_ptr() as u64,
        };
    }
    let [a, b, c, d, e, f] = raw;
    // SAFETY: addresses are of static memory, long enough for what the tests' calls read there.
    // Calls that could change memory of ours are those that the filter must stop, or are made on
    // memory that the caller has just mapped.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

/// Forks. `None` in the child.
pub(crate) fn fork() -> Option<Pid> {
    // SAFETY: the test program has one thread (it has no harness and starts none), so the child may
    // do whatever the parent could.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => None,
        ForkResult::Parent { child } => Some(child),
    }
}

/// Ends the process at once. All six arguments are given, as one of the tests' filters looks at the
/// last.
pub(crate) fn exit(status: i32) -> ! {
    const ZERO: libc::c_long = 0;
    // SAFETY: takes integers and does not return.
    unsafe { libc::syscall(libc::SYS_exit_group, status, ZERO, ZERO, ZERO, ZERO, ZERO) };
    unreachable!("exit_group does not return")
}

/// Closes all descriptors from `first` on.
pub(crate) fn close_from(first: u32) {
    // SAFETY: called before this process owns any descriptor above stdio.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    assert_eq!(rc, 0);
}

/// Sets an integer option.
pub(crate) fn setsockopt(fd: impl AsFd, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    let (fd, len) = (fd.as_fd().as_raw_fd(), size_of_val(&value) as libc::socklen_t);
    // SAFETY: the kernel reads `len` octets at `value`, which is that long and outlives the call.
    let rc = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    Errno::result(rc).map(drop)
}

/// Reads an option; what it says does not matter.
pub(crate) fn getsockopt(fd: impl AsFd, level: i32, name: i32) -> Result<(), Errno> {
    let mut value = [0_u8; 256];
    let mut len = value.len() as libc::socklen_t;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` octets, the length of `value`, which outlives the
    // call.
    let rc = unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut len) };
    Errno::result(rc).map(drop)
}

/// Names an open descriptor that somebody else owns and keeps.
pub(crate) fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: callers pass numbers of descriptors that stay open until the process ends.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Takes over a descriptor that a call has just returned.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass what accept4 has just returned, which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Lets the runtime that we are in watch `fd`.
pub(crate) fn watch(fd: OwnedFd) -> tokio::io::unix::AsyncFd<OwnedFd> {
    // SAFETY: an `OwnedFd` names the same open file for as long as it lives, and the result owns
    // it.
    unsafe { tokio::io::unix::AsyncFd::register(fd) }.unwrap()
}

/// ioctl(2) of i386, by the interrupt that its programs use, with a null pointer as its third argument. Ends
/// the process by SIGSEGV where the kernel has no such calls.
#[cfg(target_arch = "x86_64")]
pub(crate) fn ioctl_of_i386(fd: i32, request: u32) -> Result<i32, Errno> {
    /// `ioctl` (`asm/unistd_32.h`).
    const IOCTL: i32 = 54;
    let result: i32;
    // SAFETY: the kernel takes the number in eax and the arguments in ebx, ecx and edx, gives the result
    // in eax and keeps every other register but r8 to r11, which are given up here. Rust may not name
    // rbx, so it is exchanged before and after. The tests pass no open descriptor, so no memory is
    // touched; the pointer is null.
    unsafe {
        std::arch::asm!(
            "xchg {fd:r}, rbx",
            "int 0x80",
            "xchg {fd:r}, rbx",
            fd = inout(reg) i64::from(fd) => _,
            inlateout("eax") IOCTL => result,
            in("ecx") request,
            in("edx") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(result) }
}
