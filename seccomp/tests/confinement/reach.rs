//! What each policy reaches, found by trying every system call number in the kernel itself.
//!
//! A filter of ours is installed first that answers `EDOM` to every call whose sixth argument is a
//! magic number. The kernel takes the strictest answer of all filters, so a call that the role's
//! filter allows comes back with `EDOM` and has no effect, and one that it forbids ends the
//! process.

use crate::child::{Ended, confine, quiet_stdio, run};
use crate::sys::{self, Arg::Int};
use nix::errno::Errno;
use seccomp::Role;
use seccompiler::sock_filter;
use std::collections::BTreeSet;

/// Any value that no call has there by chance.
const MAGIC: u32 = 0x7a5e_11ed;

/// Beyond the last number of Linux 6.18 (469, `file_setattr`).
const LAST_NUMBER: i64 = 500;

/// Numbers of uretprobe and uprobe, which only x86-64 has. The kernel lets them past every filter
/// (Linux 6.14, 6.18); from anywhere but its own trampolines they end the process by SIGILL or
/// answer ENXIO, so there is nothing to reach behind them.
const UPROBES: &[i64] = if cfg!(target_arch = "x86_64") { &[335, 336] } else { &[] };

/// Calls of the pinned lists whose arguments are not looked at, with their numbers.
macro_rules! numbers {
    ($($name:ident)*) => { [ $( (stringify!($name), libc::$name) ),* ] };
}

const PINNED: &str =
    include_str!(concat!("../../policies/", env!("PASTA_TARGET_ARCH"), "/reach.txt"));

/// Calls that a role may make with any arguments are exactly those of the pinned list.
pub(crate) fn kernel_allows_the_pinned_calls_and_no_others() {
    for role in [Role::Supervisor, Role::Monitor, Role::Datapath] {
        let allowed: BTreeSet<i64> = tried().filter(|n| is_allowed(role, *n)).collect();
        assert_eq!(allowed, pinned(role), "{role}");
        println!("  {role}: {} of {} numbers for any arguments", allowed.len(), tried().count());
    }
}

fn tried() -> impl Iterator<Item = i64> {
    (0..=LAST_NUMBER).filter(|number| !UPROBES.contains(number))
}

fn is_allowed(role: Role, number: i64) -> bool {
    let ended = run(|| {
        quiet_stdio();
        install_witness();
        confine(role);
        // No rule of any call takes all ones.
        let ones = Int(-1);
        let result = sys::call(number, &[ones, ones, ones, ones, ones, Int(MAGIC.into())]);
        assert_eq!(result, Err(Errno::EDOM));
    });
    match ended {
        Ended::Well => true,
        Ended::KilledByFilter => false,
        other => panic!("{role}, call {number}: {other:?}"),
    }
}

/// Answers `EDOM` to calls with the magic number, as the file's head tells.
fn install_witness() {
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    // Offset of the low half of the sixth argument in `struct seccomp_data`, little endian.
    let sixth = 16 + 5 * 8;
    let program = [
        op((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, sixth),
        op((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, MAGIC),
        op((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EDOM as u32),
        op((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    seccompiler::apply_filter(&program).unwrap();
}

fn pinned(role: Role) -> BTreeSet<i64> {
    let numbers = numbers! {
        SYS_bind SYS_brk SYS_clock_gettime SYS_close SYS_connect SYS_epoll_ctl SYS_epoll_pwait
        SYS_epoll_pwait2 SYS_exit SYS_exit_group SYS_fstat SYS_ftruncate
        SYS_getrandom SYS_getsockname SYS_inotify_add_watch SYS_inotify_rm_watch
        SYS_listen SYS_munmap SYS_newfstatat SYS_pidfd_send_signal SYS_pread64 SYS_pwrite64 SYS_read
        SYS_readlinkat SYS_readv SYS_restart_syscall SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sched_yield SYS_shutdown
        SYS_sigaltstack SYS_unlinkat SYS_waitid SYS_write SYS_writev
    };
    #[cfg(target_arch = "x86_64")]
    let only_here = numbers! { SYS_epoll_wait };
    #[cfg(not(target_arch = "x86_64"))]
    let only_here: [(&str, i64); 0] = [];
    let number = |call: &str| {
        let found =
            numbers.iter().chain(&only_here).find(|(n, _)| n.strip_prefix("SYS_") == Some(call));
        found.unwrap_or_else(|| panic!("{call} is not in the list of this test")).1
    };
    PINNED
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("{role} "))?.strip_suffix(" any"))
        .map(number)
        .collect()
}
