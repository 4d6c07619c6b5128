//! Calls that no process makes: each is tried in a child of its own, which must be ended by SIGSYS.

use crate::child::{Ended, confine, quiet_stdio, run};
use crate::sys::{self, Arg, Arg::Int, Arg::Slash, Arg::Zeroes};
use seccomp::Role::{self, Datapath, Monitor, Supervisor};

const ALL: &[Role] = &[Supervisor, Monitor, Datapath];
const NOT_DATAPATH: &[Role] = &[Supervisor, Monitor];
const HELPERS: &[Role] = &[Monitor, Datapath];

/// What is tried, by whom, and how.
type Probe = (&'static str, &'static [Role], i64, &'static [Arg]);

const fn int(value: i32) -> Arg {
    Int(value as i64)
}

const AT_CWD: Arg = int(libc::AT_FDCWD);
const NON_BLOCKING: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
const TCP: i32 = libc::SOCK_STREAM | NON_BLOCKING;
const UDP: i32 = libc::SOCK_DGRAM | NON_BLOCKING;
const READ: i32 = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
/// `IPPROTO_MPTCP` (`linux/in.h`).
const MPTCP: i32 = 262;
/// `SIOCSIFHWADDR` and friends have one number on both architectures (`linux/sockios.h`).
const SIOCSIFHWADDR: i32 = 0x8924;
/// `linux/if_tun.h`, where `_IOW` has the same layout on both architectures.
const TUNSETIFF: i32 = 0x4004_54ca;
const TUNSETPERSIST: i32 = 0x4004_54cb;
const TUNSETOFFLOAD: i32 = 0x4004_54d0;
const TUNSETCARRIER: i32 = 0x4004_54e2;
const TCP_ULP: i32 = 31;
const TCP_FASTOPEN_CONNECT: i32 = 30;
const SO_ATTACH_BPF: i32 = 50;
const IPV6_HOPOPTS: i32 = 54;

const PROBES: &[Probe] = &[
    // Files.
    ("open a file", HELPERS, libc::SYS_openat, &[AT_CWD, Slash, int(READ)]),
    (
        "open to write",
        &[Supervisor],
        libc::SYS_openat,
        &[AT_CWD, Slash, int(READ | libc::O_WRONLY)],
    ),
    (
        "open to create",
        &[Supervisor],
        libc::SYS_openat,
        &[AT_CWD, Slash, int(READ | libc::O_CREAT)],
    ),
    (
        "open a path only",
        &[Supervisor],
        libc::SYS_openat,
        &[AT_CWD, Slash, int(READ | libc::O_PATH)],
    ),
    ("follow a link", &[Supervisor], libc::SYS_openat, &[AT_CWD, Slash, int(libc::O_CLOEXEC)]),
    ("openat2", ALL, libc::SYS_openat2, &[AT_CWD, Slash, Zeroes, Int(24)]),
    ("unlink", HELPERS, libc::SYS_unlinkat, &[AT_CWD, Slash, Int(0)]),
    ("rename", ALL, libc::SYS_renameat2, &[AT_CWD, Slash, AT_CWD, Slash, Int(0)]),
    ("link", ALL, libc::SYS_linkat, &[AT_CWD, Slash, AT_CWD, Slash, Int(0)]),
    ("change a mode", ALL, libc::SYS_fchmodat, &[AT_CWD, Slash, Int(0)]),
    ("stat", HELPERS, libc::SYS_newfstatat, &[AT_CWD, Slash, Zeroes, Int(0)]),
    ("make memory a file", ALL, libc::SYS_memfd_create, &[Slash, Int(0)]),
    (
        "name_to_handle_at",
        ALL,
        libc::SYS_name_to_handle_at,
        &[AT_CWD, Slash, Zeroes, Zeroes, Int(0)],
    ),
    // Programs and processes.
    ("execute", ALL, libc::SYS_execve, &[Slash, Zeroes, Zeroes]),
    (
        "execute by descriptor",
        ALL,
        libc::SYS_execveat,
        &[Int(0), Zeroes, Zeroes, Zeroes, Int(0x1000)],
    ),
    ("fork", ALL, libc::SYS_clone, &[int(libc::SIGCHLD)]),
    ("clone3", ALL, libc::SYS_clone3, &[Zeroes, Int(64)]),
    ("trace", ALL, libc::SYS_ptrace, &[Int(16), Int(1)]),
    (
        "read another's memory",
        ALL,
        libc::SYS_process_vm_readv,
        &[Int(1), Zeroes, Int(1), Zeroes, Int(1)],
    ),
    ("signal", ALL, libc::SYS_kill, &[Int(0), Int(0)]),
    ("signal by pidfd", HELPERS, libc::SYS_pidfd_send_signal, &[Int(0), Int(0), Int(0), Int(0)]),
    ("signal a thread", ALL, libc::SYS_tgkill, &[Int(1), Int(1), Int(0)]),
    ("take a pidfd", ALL, libc::SYS_pidfd_open, &[Int(1), Int(0)]),
    ("take a descriptor", ALL, libc::SYS_pidfd_getfd, &[Int(0), Int(0), Int(0)]),
    // Sockets.
    ("unix socket", ALL, libc::SYS_socket, &[int(libc::AF_UNIX), int(TCP), Int(0)]),
    (
        "netlink socket",
        ALL,
        libc::SYS_socket,
        &[int(libc::AF_NETLINK), int(libc::SOCK_RAW | NON_BLOCKING), Int(0)],
    ),
    (
        "packet socket",
        ALL,
        libc::SYS_socket,
        &[int(libc::AF_PACKET), int(libc::SOCK_RAW | NON_BLOCKING), Int(0)],
    ),
    (
        "alg socket",
        ALL,
        libc::SYS_socket,
        &[int(libc::AF_ALG), int(libc::SOCK_SEQPACKET | NON_BLOCKING), Int(0)],
    ),
    ("vsock socket", ALL, libc::SYS_socket, &[int(libc::AF_VSOCK), int(TCP), Int(0)]),
    (
        "raw socket",
        ALL,
        libc::SYS_socket,
        &[int(libc::AF_INET), int(libc::SOCK_RAW | NON_BLOCKING), int(libc::IPPROTO_ICMP)],
    ),
    ("mptcp socket", ALL, libc::SYS_socket, &[int(libc::AF_INET), int(TCP), int(MPTCP)]),
    ("default protocol", ALL, libc::SYS_socket, &[int(libc::AF_INET), int(TCP), Int(0)]),
    (
        "blocking socket",
        ALL,
        libc::SYS_socket,
        &[int(libc::AF_INET), int(libc::SOCK_STREAM), int(libc::IPPROTO_TCP)],
    ),
    (
        "tcp socket",
        &[Supervisor],
        libc::SYS_socket,
        &[int(libc::AF_INET), int(TCP), int(libc::IPPROTO_TCP)],
    ),
    (
        "echo socket",
        &[Supervisor, Monitor],
        libc::SYS_socket,
        &[int(libc::AF_INET), int(UDP), int(libc::IPPROTO_ICMP)],
    ),
    ("socketpair", ALL, libc::SYS_socketpair, &[int(libc::AF_UNIX), int(TCP), Int(0), Zeroes]),
    ("connect", &[Supervisor, Monitor], libc::SYS_connect, &[Int(0), Zeroes, Int(16)]),
    ("blocking accept", ALL, libc::SYS_accept4, &[Int(0), Int(0), Int(0), Int(0)]),
    ("send out of band", ALL, libc::SYS_sendmsg, &[Int(0), Zeroes, int(libc::MSG_OOB)]),
    (
        "send with fast open",
        ALL,
        libc::SYS_sendto,
        &[Int(0), Zeroes, Int(1), int(libc::MSG_FASTOPEN), Zeroes, Int(16)],
    ),
    ("send without a copy", ALL, libc::SYS_sendmsg, &[Int(0), Zeroes, int(libc::MSG_ZEROCOPY)]),
    ("receive out of band", ALL, libc::SYS_recvmsg, &[Int(0), Zeroes, int(libc::MSG_OOB)]),
    (
        "repair mode",
        HELPERS,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(libc::TCP_REPAIR), Zeroes, Int(4)],
    ),
    (
        "upper layer protocol",
        HELPERS,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(TCP_ULP), Zeroes, Int(4)],
    ),
    (
        "congestion control",
        HELPERS,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(libc::TCP_CONGESTION), Zeroes, Int(4)],
    ),
    (
        "fast open",
        HELPERS,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(libc::TCP_FASTOPEN), Zeroes, Int(4)],
    ),
    (
        "fast open on connect",
        HELPERS,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(TCP_FASTOPEN_CONNECT), Zeroes, Int(4)],
    ),
    (
        "socket filter",
        &[Datapath],
        libc::SYS_setsockopt,
        &[Int(0), int(libc::SOL_SOCKET), int(libc::SO_ATTACH_FILTER), Zeroes, Int(16)],
    ),
    (
        "eBPF socket filter",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::SOL_SOCKET), int(SO_ATTACH_BPF), Zeroes, Int(4)],
    ),
    (
        "mark",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::SOL_SOCKET), int(libc::SO_MARK), Zeroes, Int(4)],
    ),
    (
        "join a group",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IP), int(libc::IP_ADD_MEMBERSHIP), Zeroes, Int(8)],
    ),
    (
        "IP options",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IP), int(libc::IP_OPTIONS), Zeroes, Int(4)],
    ),
    (
        "transparent",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IP), int(libc::IP_TRANSPARENT), Zeroes, Int(4)],
    ),
    (
        "extension headers",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IPV6), int(IPV6_HOPOPTS), Zeroes, Int(4)],
    ),
    // What no code of ours uses.
    (
        "SO_RCVLOWAT",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::SOL_SOCKET), int(libc::SO_RCVLOWAT), Zeroes, Int(4)],
    ),
    (
        "SO_RCVBUF",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::SOL_SOCKET), int(libc::SO_RCVBUF), Zeroes, Int(4)],
    ),
    (
        "TCP_QUICKACK",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(libc::TCP_QUICKACK), Zeroes, Int(4)],
    ),
    (
        "TCP_MAXSEG",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(libc::TCP_MAXSEG), Zeroes, Int(4)],
    ),
    (
        "TCP_USER_TIMEOUT",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(libc::TCP_USER_TIMEOUT), Zeroes, Int(4)],
    ),
    (
        "TCP_KEEPIDLE",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(libc::TCP_KEEPIDLE), Zeroes, Int(4)],
    ),
    (
        "TCP_KEEPINTVL",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(libc::TCP_KEEPINTVL), Zeroes, Int(4)],
    ),
    (
        "TCP_KEEPCNT",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(libc::TCP_KEEPCNT), Zeroes, Int(4)],
    ),
    (
        "IP_TTL",
        NOT_DATAPATH,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IP), int(libc::IP_TTL), Zeroes, Int(4)],
    ),
    (
        "IP_TOS",
        NOT_DATAPATH,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IP), int(libc::IP_TOS), Zeroes, Int(4)],
    ),
    (
        "IP_RECVTTL",
        NOT_DATAPATH,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IP), int(libc::IP_RECVTTL), Zeroes, Int(4)],
    ),
    (
        "IP_RECVTOS",
        NOT_DATAPATH,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IP), int(libc::IP_RECVTOS), Zeroes, Int(4)],
    ),
    (
        "IP_BIND_ADDRESS_NO_PORT",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IP), int(libc::IP_BIND_ADDRESS_NO_PORT), Zeroes, Int(4)],
    ),
    (
        "IP_MTU_DISCOVER",
        NOT_DATAPATH,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IP), int(libc::IP_MTU_DISCOVER), Zeroes, Int(4)],
    ),
    (
        "IPV6_UNICAST_HOPS",
        NOT_DATAPATH,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IPV6), int(libc::IPV6_UNICAST_HOPS), Zeroes, Int(4)],
    ),
    (
        "IPV6_TCLASS",
        NOT_DATAPATH,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IPV6), int(libc::IPV6_TCLASS), Zeroes, Int(4)],
    ),
    (
        "IPV6_RECVHOPLIMIT",
        NOT_DATAPATH,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IPV6), int(libc::IPV6_RECVHOPLIMIT), Zeroes, Int(4)],
    ),
    (
        "IPV6_RECVTCLASS",
        NOT_DATAPATH,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IPV6), int(libc::IPV6_RECVTCLASS), Zeroes, Int(4)],
    ),
    (
        "IPV6_FREEBIND",
        ALL,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IPV6), int(libc::IPV6_FREEBIND), Zeroes, Int(4)],
    ),
    (
        "IPV6_MTU_DISCOVER",
        NOT_DATAPATH,
        libc::SYS_setsockopt,
        &[Int(0), int(libc::IPPROTO_IPV6), int(libc::IPV6_MTU_DISCOVER), Zeroes, Int(4)],
    ),
    (
        "TCP_CONGESTION",
        ALL,
        libc::SYS_getsockopt,
        &[Int(0), int(libc::IPPROTO_TCP), int(libc::TCP_CONGESTION), Zeroes, Zeroes],
    ),
    ("readv", ALL, libc::SYS_readv, &[Int(0), Zeroes, Int(0)]),
    ("recvmmsg", ALL, libc::SYS_recvmmsg, &[Int(0), Zeroes, Int(0), Int(0), Int(0)]),
    ("sendmmsg", ALL, libc::SYS_sendmmsg, &[Int(0), Zeroes, Int(0), Int(0)]),
    ("what is queued", ALL, libc::SYS_ioctl, &[Int(0), int(libc::FIONREAD as i32), Zeroes]),
    ("pipe of 1 MiB", ALL, libc::SYS_fcntl, &[Int(0), int(libc::F_SETPIPE_SZ), Int(1 << 20)]),
    // Devices and descriptors.
    ("name the tap", ALL, libc::SYS_ioctl, &[Int(0), int(TUNSETIFF), Zeroes]),
    ("keep the tap", ALL, libc::SYS_ioctl, &[Int(0), int(TUNSETPERSIST), Int(1)]),
    ("tap offloads", ALL, libc::SYS_ioctl, &[Int(0), int(TUNSETOFFLOAD), Int(0)]),
    ("tap carrier", ALL, libc::SYS_ioctl, &[Int(0), int(TUNSETCARRIER), Zeroes]),
    ("tap address", ALL, libc::SYS_ioctl, &[Int(0), int(SIOCSIFHWADDR), Zeroes]),
    ("type for the user", ALL, libc::SYS_ioctl, &[Int(0), Int(libc::TIOCSTI as i64), Zeroes]),
    ("blocking pipe", ALL, libc::SYS_pipe2, &[Zeroes, Int(0)]),
    (
        "splice at an offset",
        ALL,
        libc::SYS_splice,
        &[Int(0), Zeroes, Int(0), Int(0), Int(1), Int(0)],
    ),
    ("file flags", ALL, libc::SYS_fcntl, &[Int(0), int(libc::F_SETFL), Int(0)]),
    ("duplicate", ALL, libc::SYS_fcntl, &[Int(0), int(libc::F_DUPFD), Int(0)]),
    ("owner for signals", ALL, libc::SYS_fcntl, &[Int(0), int(libc::F_SETOWN), Int(1)]),
    ("dup", ALL, libc::SYS_dup, &[Int(0)]),
    // Memory.
    (
        "executable memory",
        ALL,
        libc::SYS_mmap,
        &[Int(0), Int(4096), Int(7), Int(0x22), Int(-1), Int(0)],
    ),
    (
        "shared memory",
        ALL,
        libc::SYS_mmap,
        &[Int(0), Int(4096), Int(3), Int(0x21), Int(-1), Int(0)],
    ),
    (
        "memory of a file",
        ALL,
        libc::SYS_mmap,
        &[Int(0), Int(4096), Int(1), Int(0x2), Int(0), Int(0)],
    ),
    (
        "memory at an address",
        ALL,
        libc::SYS_mmap,
        &[Int(4096), Int(4096), Int(3), Int(0x32), Int(-1), Int(0)],
    ),
    (
        "memory with a hidden flag",
        ALL,
        libc::SYS_mmap,
        &[Int(0), Int(4096), Int(3), Int(0x1_0000_0022), Int(-1), Int(0)],
    ),
    ("protection", ALL, libc::SYS_mprotect, &[Int(0), Int(4096), Int(5)]),
    (
        "move memory to an address",
        ALL,
        libc::SYS_mremap,
        &[Int(0), Int(4096), Int(4096), Int(3), Int(4096)],
    ),
    ("advice other than to free", ALL, libc::SYS_madvise, &[Int(0), Int(4096), Int(12)]),
    ("lock memory", ALL, libc::SYS_mlockall, &[Int(1)]),
    // Privilege and the rest of the kernel.
    ("enter a namespace", ALL, libc::SYS_setns, &[Int(0), Int(0)]),
    ("leave a namespace", ALL, libc::SYS_unshare, &[int(libc::CLONE_NEWUSER)]),
    ("mount", ALL, libc::SYS_mount, &[Slash, Slash, Slash, Int(0), Int(0)]),
    ("unmount", ALL, libc::SYS_umount2, &[Slash, Int(2)]),
    ("pivot_root", ALL, libc::SYS_pivot_root, &[Slash, Slash]),
    ("chroot", ALL, libc::SYS_chroot, &[Slash]),
    ("prctl", ALL, libc::SYS_prctl, &[int(libc::PR_SET_DUMPABLE), Int(1)]),
    ("another filter", ALL, libc::SYS_seccomp, &[Int(2), Int(0), Int(0)]),
    ("capabilities", ALL, libc::SYS_capset, &[Zeroes, Zeroes]),
    ("user id", ALL, libc::SYS_setresuid, &[Int(0), Int(0), Int(0)]),
    ("groups", ALL, libc::SYS_setgroups, &[Int(0), Int(0)]),
    ("limits", ALL, libc::SYS_prlimit64, &[Int(0), Int(7), Zeroes, Int(0)]),
    ("bpf", ALL, libc::SYS_bpf, &[Int(0), Zeroes, Int(8)]),
    ("io_uring", ALL, libc::SYS_io_uring_setup, &[Int(8), Zeroes]),
    ("asynchronous io", ALL, libc::SYS_io_setup, &[Int(1), Zeroes]),
    ("perf events", ALL, libc::SYS_perf_event_open, &[Zeroes, Int(0), Int(-1), Int(-1), Int(0)]),
    ("userfaultfd", ALL, libc::SYS_userfaultfd, &[Int(0)]),
    ("add a key", ALL, libc::SYS_add_key, &[Slash, Slash, Int(0), Int(0), Int(-2)]),
    ("keyring", ALL, libc::SYS_keyctl, &[Int(0), Int(-3), Int(1)]),
    ("shared memory of System V", ALL, libc::SYS_shmget, &[Int(0), Int(4096), Int(0o600)]),
    ("message queue", ALL, libc::SYS_mq_open, &[Slash, Int(0)]),
    ("kernel module", ALL, libc::SYS_finit_module, &[Int(0), Slash, Int(0)]),
    ("kernel log", ALL, libc::SYS_syslog, &[Int(3), Zeroes, Int(1)]),
    ("personality", ALL, libc::SYS_personality, &[Int(0)]),
    #[cfg(target_arch = "x86_64")]
    ("read with its x32 number", ALL, libc::SYS_read | 0x4000_0000, &[Int(0), Zeroes, Int(0)]),
];

/// Each probe under each policy that forbids it.
pub(crate) fn forbidden_calls_end_the_process() {
    let mut survived = Vec::new();
    let mut tried = 0;
    for (what, roles, number, args) in PROBES {
        for role in *roles {
            tried += 1;
            let ended = run(|| {
                quiet_stdio();
                confine(*role);
                let result = sys::call(*number, args);
                panic!("it returned {result:?}");
            });
            if ended != Ended::KilledByFilter {
                survived.push(format!("{role}, {what}: {ended:?}"));
            }
        }
    }
    assert!(survived.is_empty(), "{}", survived.join("\n"));
    println!("  {tried} probes, each ended by SIGSYS");
}
