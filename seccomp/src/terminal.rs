//! The filter of COMMAND where it is of another user than the one who started us.
//!
//! Root at a terminal starts us, and COMMAND is `nobody`. The terminal is still root's: with TIOCSTI
//! COMMAND could put characters into its input, which root's shell reads as commands when we have ended.
//! TIOCLINUX pastes into a virtual console to the same end. Both requests are refused, whichever way they
//! are made; everything else is COMMAND's own business. Linux 6.2 has a switch for the former
//! (`dev.tty.legacy_tiocsti`), which may be on.
//!
//! | architecture of the call | numbers of ioctl(2) |
//! | --- | --- |
//! | x86-64 | 16, and 514 for x32; with and without the bit of x32 |
//! | i386 | 54 |
//! | arm64 | 29 |
//! | 32-bit arm | 54 |
//!
//! The kernel takes the request as an `unsigned int`, so the lower half of the argument alone is compared.

use crate::sys;
use std::io;
use std::mem::offset_of;

/// The calls that are ioctl(2), by architecture (`AUDIT_ARCH_*`, `linux/audit.h`).
#[cfg(target_arch = "x86_64")]
const CALLS: &[(u32, &[u32])] = &[(0xc000_003e, &[16, 514]), (0x4000_0003, &[54])];
#[cfg(target_arch = "aarch64")]
const CALLS: &[(u32, &[u32])] = &[(0xc000_00b7, &[29]), (0x4000_0028, &[54])];

/// `__X32_SYSCALL_BIT` (`asm/unistd.h`); other architectures have no such number.
const X32: u32 = 0x4000_0000;

/// The requests that are refused.
const REFUSED: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

/// Refuses to type into a terminal, with `EPERM`, for this process and all that it starts. Does not set
/// `no_new_privs`.
///
/// # Errors
///
/// `EACCES` without `CAP_SYS_ADMIN` in the user namespace, `EINVAL` where the kernel has no filters.
pub fn refuse_typing() -> io::Result<()> {
    sys::install_filter(&program())
}

fn program() -> Vec<libc::sock_filter> {
    let plain = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset: usize| plain(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32);
    let equals = |value: u32, jt: usize, jf: usize| libc::sock_filter {
        jt: jt as u8,
        jf: jf as u8,
        ..plain(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value)
    };
    let give = |action: u32| plain(libc::BPF_RET | libc::BPF_K, action);
    // `args[1]`; both architectures are little-endian, so its lower half comes first.
    let request = offset_of!(libc::seccomp_data, args) + size_of::<u64>();

    let mut ask = vec![load(request)];
    for (index, refused) in REFUSED.iter().enumerate() {
        ask.push(equals(*refused, REFUSED.len() - index, 0));
    }
    ask.push(give(libc::SECCOMP_RET_ALLOW));
    ask.push(give(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));

    let mut program = Vec::new();
    for (architecture, numbers) in CALLS {
        // Load, mask, a comparison for each number, allow, and what is asked of an ioctl.
        let numbers_len = numbers.len();
        program.push(load(offset_of!(libc::seccomp_data, arch)));
        program.push(equals(*architecture, 0, 3 + numbers_len + ask.len()));
        program.push(load(offset_of!(libc::seccomp_data, nr)));
        program.push(plain(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, !X32));
        for (index, number) in numbers.iter().enumerate() {
            program.push(equals(*number, numbers_len - index, 0));
        }
        program.push(give(libc::SECCOMP_RET_ALLOW));
        program.extend_from_slice(&ask);
    }
    program.push(give(libc::SECCOMP_RET_ALLOW));
    program
}
