//! The filter against typing into a terminal.

use crate::child::run_well;
#[cfg(target_arch = "x86_64")]
use crate::child::{Ended, run};
use crate::isolation::{no_user_namespaces, skip};
use crate::sys::{self, Arg};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

/// Requests of ioctl(2): the two that are refused, and one that is not.
const REFUSED: [i64; 2] = [libc::TIOCSTI as i64, libc::TIOCLINUX as i64];
const ALLOWED: i64 = libc::TIOCGPGRP as i64;

/// No descriptor: a request that the filter lets pass ends in `EBADF`.
const NO_FILE: Arg = Arg::Int(-1);

pub(crate) fn nobody_types_into_a_terminal_after_the_filter() {
    if let Some(why) = no_user_namespaces() {
        return skip("typing", &why);
    }
    run_well("typing", || {
        // With every capability there, and without no_new_privs, as COMMAND is started.
        unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        seccomp::refuse_typing().unwrap();
        assert_eq!(nix::sys::prctl::get_no_new_privs(), Ok(false));
        // What is above the lower half the kernel does not look at, so the filter may not either.
        for above in [0, 1 << 32, i64::MIN] {
            for request in REFUSED {
                let asked = sys::call(libc::SYS_ioctl, &[NO_FILE, Arg::Int(request | above)]);
                assert_eq!(asked, Err(Errno::EPERM), "{request:#x} {above:#x}");
            }
            let asked = sys::call(libc::SYS_ioctl, &[NO_FILE, Arg::Int(ALLOWED | above)]);
            assert_eq!(asked, Err(Errno::EBADF), "{above:#x}");
        }
        // The descriptor is no part of it, and other calls with such an argument pass.
        let asked = sys::call(libc::SYS_ioctl, &[Arg::Int(0), Arg::Int(REFUSED[0])]);
        assert_eq!(asked, Err(Errno::EPERM));
        let flags = sys::call(libc::SYS_fcntl, &[NO_FILE, Arg::Int(REFUSED[0])]);
        assert_eq!(flags, Err(Errno::EBADF));
        // What is started inherits it.
        run_well("a child", || {
            let asked = sys::call(libc::SYS_ioctl, &[NO_FILE, Arg::Int(REFUSED[0])]);
            assert_eq!(asked, Err(Errno::EPERM));
        });
    });
    #[cfg(target_arch = "x86_64")]
    other_ways_of_calling_are_no_way_round();
}

/// The numbers of x32, and the calls of i386.
#[cfg(target_arch = "x86_64")]
fn other_ways_of_calling_are_no_way_round() {
    const X32: i64 = 0x4000_0000;
    run_well("x32", || {
        unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        seccomp::refuse_typing().unwrap();
        for number in [514, X32 | 514, X32 | libc::SYS_ioctl] {
            let asked = sys::call(number, &[NO_FILE, Arg::Int(REFUSED[0])]);
            assert_eq!(asked, Err(Errno::EPERM), "{number:#x}");
            // Where the kernel has no x32, or not this one of its numbers.
            let asked = sys::call(number, &[NO_FILE, Arg::Int(ALLOWED)]);
            assert!(matches!(asked, Err(Errno::ENOSYS | Errno::EBADF)), "{number:#x}: {asked:?}");
        }
    });
    let i386 = run(|| assert_eq!(sys::ioctl_of_i386(-1, ALLOWED as u32), Err(Errno::EBADF)));
    if i386 != Ended::Well {
        return skip("calls of i386", "this kernel has none");
    }
    run_well("i386", || {
        unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        seccomp::refuse_typing().unwrap();
        for request in REFUSED {
            assert_eq!(sys::ioctl_of_i386(-1, request as u32), Err(Errno::EPERM), "{request:#x}");
        }
        assert_eq!(sys::ioctl_of_i386(-1, ALLOWED as u32), Err(Errno::EBADF));
    });
}
