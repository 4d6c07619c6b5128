//! The policies of both architectures, whichever this is.

use super::*;
use seccompiler::TargetArch;

/// The files of one architecture.
struct Files {
    arch: TargetArch,
    constants: &'static str,
    shared: &'static str,
    roles: [(&'static str, &'static str); 3],
    reach: &'static str,
}

macro_rules! files {
    ($arch:ident) => {
        Files {
            arch: TargetArch::$arch,
            constants: include_str!(concat!(
                "../../policies/",
                stringify!($arch),
                "/constants.json"
            )),
            shared: include_str!(concat!("../../policies/", stringify!($arch), "/shared.json")),
            roles: [
                (
                    "supervisor",
                    include_str!(concat!("../../policies/", stringify!($arch), "/supervisor.json")),
                ),
                (
                    "monitor",
                    include_str!(concat!("../../policies/", stringify!($arch), "/monitor.json")),
                ),
                (
                    "datapath",
                    include_str!(concat!("../../policies/", stringify!($arch), "/datapath.json")),
                ),
            ],
            reach: include_str!(concat!("../../policies/", stringify!($arch), "/reach.txt")),
        }
    };
}

fn both() -> [Files; 2] {
    [files!(x86_64), files!(aarch64)]
}

/// What `reach.txt` should say: a line per role and call, and whether arguments are looked at.
fn reach_of(files: &Files) -> String {
    let mut text = String::new();
    for (role, policy) in files.roles {
        for (syscall, ruled) in reach(files.shared, policy).unwrap() {
            let how = if ruled { "rules" } else { "any" };
            text.push_str(&format!("{role} {syscall} {how}\n"));
        }
    }
    text
}

#[test]
fn policies_of_both_architectures_compile() {
    for files in both() {
        for (role, policy) in files.roles {
            let program = compile(files.shared, policy, files.constants, files.arch);
            assert!(program.is_ok(), "{role} of {:?}: {}", files.arch, program.unwrap_err());
        }
    }
}

/// Whoever widens a policy changes the pinned list too, where a reviewer sees it.
#[test]
fn allowed_calls_are_those_of_the_pinned_list() {
    for files in both() {
        let is = reach_of(&files);
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let (is, pinned) = (lines(&is), lines(files.reach));
        let added: Vec<_> = is.difference(&pinned).collect();
        let gone: Vec<_> = pinned.difference(&is).collect();
        assert!(added.is_empty() && gone.is_empty(), "added {added:?}, gone {gone:?}");
    }
}

#[test]
fn datapath_has_no_more_calls_than_the_c_program_and_rules_for_many() {
    for files in both() {
        let (_, datapath) = files.roles[2];
        let calls = reach(files.shared, datapath).unwrap();
        let ruled = calls.values().filter(|ruled| **ruled).count();
        println!("{:?}: {} calls, {ruled} with rules", files.arch, calls.len());
        // passt's pasta has 43 on x86-64, none with a rule.
        assert!(calls.len() <= 43, "{}", calls.len());
        assert!(ruled >= 14, "{ruled}");
    }
}

/// All sources of a crate but its tests.
fn sources(directory: &std::path::Path, text: &mut String) {
    let mut entries: Vec<_> = std::fs::read_dir(directory).unwrap().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::path);
    for path in entries.iter().map(std::fs::DirEntry::path) {
        if path.is_dir() {
            sources(&path, text);
        } else if !path.ends_with("tests.rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            text.push_str(source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default());
        }
    }
}

/// What the library that wraps a call or an option calls it, where that is another name.
const WRAPPED: [(&str, &[&str]); 28] = [
    ("sched_yield", &["yield_now("]),
    ("epoll_pwait2", &["SYS_epoll_pwait2"]),
    ("getsockopt", &["getsockopt("]),
    ("setsockopt", &["setsockopt("]),
    ("recvfrom", &[" recv(", " recvfrom("]),
    ("sendto", &[" send(", "libc::send(", " sendto("]),
    ("fcntl", &["fcntl("]),
    ("socket", &[" socket("]),
    ("SO_ERROR", &["sockopt::SocketError"]),
    ("SO_REUSEADDR", &["sockopt::ReuseAddr"]),
    ("SO_LINGER", &["sockopt::Linger"]),
    ("SO_KEEPALIVE", &["sockopt::KeepAlive"]),
    ("SO_OOBINLINE", &["sockopt::OobInline"]),
    ("SO_BINDTODEVICE", &["sockopt::BindToDevice"]),
    ("TCP_NODELAY", &["sockopt::TcpNoDelay"]),
    ("IP_PKTINFO", &["sockopt::Ipv4PacketInfo"]),
    ("IP_RECVERR", &["sockopt::Ipv4RecvErr"]),
    ("IP_FREEBIND", &["sockopt::IpFreebind"]),
    ("IPV6_RECVPKTINFO", &["sockopt::Ipv6RecvPacketInfo"]),
    ("IPV6_RECVERR", &["sockopt::Ipv6RecvErr"]),
    ("IPV6_V6ONLY", &["sockopt::Ipv6V6Only"]),
    ("IP_RECVTTL", &["sockopt::Ipv4RecvTtl"]),
    ("IP_RECVTOS", &["sockopt::IpRecvTos"]),
    ("IPV6_RECVHOPLIMIT", &["sockopt::Ipv6RecvHopLimit"]),
    ("IPV6_RECVTCLASS", &["sockopt::Ipv6RecvTClass"]),
    ("F_SETPIPE_SZ", &["F_SETPIPE_SZ(PIPE_OCTETS"]),
    ("SO_ATTACH_FILTER", &["attach_filter", "AttachFilter"]),
    ("recvmsg", &["recvmsg"]),
];

/// What `policy` lists that `text` does not use: calls, and options and commands that rules name.
fn unused(policy: &str, text: &str) -> Vec<String> {
    let policy: Value = serde_json::from_str(policy).unwrap();
    let mut names = Vec::new();
    for entry in policy["syscalls"].as_array().unwrap() {
        names.push(entry["syscall"].as_str().unwrap().to_owned());
        let rules = entry["when"].as_array().into_iter().flatten();
        let words = rules.flat_map(|rule| [&rule["arg1"], &rule["arg2"]]).filter_map(Value::as_str);
        let options = ["SO_", "TCP_", "UDP_", "IP_", "IPV6_", "F_"];
        let words = words.filter(|word| options.iter().any(|start| word.starts_with(start)));
        names.extend(words.map(str::to_owned));
    }
    names.retain(|name| {
        let wrapped = WRAPPED.iter().find(|(it, _)| it == name);
        let same = [name.as_str()];
        !wrapped.map_or(&same[..], |(_, words)| words).iter().any(|word| text.contains(word))
    });
    names
}

#[test]
fn datapath_may_do_nothing_that_no_code_of_it_does() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut text = String::new();
    for name in ["pasta-datapath", "pasta-ipc"] {
        sources(&crates.join(name).join("src"), &mut text);
    }
    for files in both() {
        let (_, datapath) = files.roles[2];
        assert_eq!(unused(datapath, &text), [""; 0], "{:?}", files.arch);
    }
    // It finds what is not there.
    let more = r#"{ "syscalls": [ { "syscall": "setsockopt", "when": [ { "arg2": "TCP_QUICKACK" } ] } ] }"#;
    assert_eq!(unused(more, &text), ["TCP_QUICKACK"]);
}

#[test]
fn helpers_reach_no_path_no_process_and_no_namespace() {
    let never = [
        "open",
        "openat",
        "openat2",
        "creat",
        "execve",
        "execveat",
        "clone",
        "clone3",
        "fork",
        "vfork",
        "setns",
        "unshare",
        "mount",
        "ptrace",
        "prctl",
        "seccomp",
        "bpf",
        "kill",
        "tgkill",
        "pidfd_send_signal",
        "mprotect",
        "io_uring_setup",
        "socketpair",
        "unlinkat",
        "dup",
        "dup2",
        "dup3",
        "newfstatat",
        "statx",
        "readlinkat",
        "memfd_create",
        "accept",
    ];
    for files in both() {
        for (role, policy) in files.roles {
            let calls = reach(files.shared, policy).unwrap();
            for call in never {
                assert!(role == "supervisor" || !calls.contains_key(call), "{role}: {call}");
            }
        }
    }
}

#[test]
fn architectures_differ_only_where_the_kernel_does() {
    // aarch64 never had the call that a later one replaced.
    let only_x86 = ["epoll_wait"];
    let [x86, arm] = both();
    for ((role, on_x86), (_, on_arm)) in x86.roles.into_iter().zip(arm.roles) {
        let mut wanted = reach(x86.shared, on_x86).unwrap();
        wanted.retain(|call, _| !only_x86.contains(&call.as_str()));
        assert_eq!(reach(arm.shared, on_arm).unwrap(), wanted, "{role}");
    }
}

/// Checks the constants of this architecture against libc; a name added to the file and not here
/// fails the count.
#[test]
fn constants_are_those_of_libc() {
    let file = if cfg!(target_arch = "x86_64") { files!(x86_64) } else { files!(aarch64) };
    let constants: Constants = serde_json::from_str(file.constants).unwrap();
    let mut checked = 0;
    let mut check = |name: &str, value: u64| {
        assert_eq!(constants.get(name).copied(), Some(value), "{name}");
        checked += 1;
    };
    macro_rules! check {
        ($($name:ident)*) => { $( check(stringify!($name), libc::$name as u64); )* };
    }
    check! {
        AF_INET AF_INET6 SOCK_CLOEXEC SOCK_DGRAM SOCK_NONBLOCK SOCK_STREAM
        IPPROTO_ICMP IPPROTO_ICMPV6 IPPROTO_IP IPPROTO_IPV6 IPPROTO_TCP IPPROTO_UDP SOL_SOCKET
        SO_ATTACH_FILTER SO_BINDTODEVICE SO_BINDTOIFINDEX SO_BUF_LOCK SO_DOMAIN SO_ERROR SO_KEEPALIVE SO_LINGER SO_MEMINFO
        SO_OOBINLINE SO_PEEK_OFF SO_PEERCRED SO_PROTOCOL SO_RCVBUF SO_RCVLOWAT SO_REUSEADDR SO_SNDBUF SO_TYPE
        TCP_INFO TCP_KEEPCNT TCP_KEEPIDLE TCP_KEEPINTVL TCP_MAXSEG TCP_NODELAY TCP_NOTSENT_LOWAT
        TCP_QUICKACK TCP_USER_TIMEOUT UDP_GRO UDP_SEGMENT
        IP_BIND_ADDRESS_NO_PORT IP_FREEBIND IP_MTU IP_MTU_DISCOVER IP_PKTINFO IP_RECVERR
        IP_RECVTOS IP_RECVTTL IP_TOS IP_TTL
        IPV6_FREEBIND IPV6_MTU IPV6_MTU_DISCOVER IPV6_RECVERR IPV6_RECVHOPLIMIT
        IPV6_RECVPKTINFO IPV6_RECVTCLASS IPV6_TCLASS IPV6_UNICAST_HOPS IPV6_V6ONLY
        MSG_CMSG_CLOEXEC MSG_DONTWAIT MSG_ERRQUEUE MSG_MORE MSG_NOSIGNAL MSG_PEEK MSG_TRUNC
        MSG_WAITFORONE F_GETFD F_GETFL F_GETPIPE_SZ F_SETPIPE_SZ
        O_CLOEXEC O_NOFOLLOW O_NONBLOCK O_RDONLY
        SPLICE_F_MORE SPLICE_F_MOVE SPLICE_F_NONBLOCK TIOCGPGRP TIOCSPGRP
        MADV_DONTNEED MADV_FREE MAP_ANONYMOUS MAP_PRIVATE MREMAP_MAYMOVE PROT_READ PROT_WRITE
    }
    // libc has these under the names of the tty calls that share the numbers (tty_ioctl(2),
    // tcp(7)).
    check("SIOCOUTQ", libc::TIOCOUTQ);
    check("SIOCINQ", libc::FIONREAD);
    let private = |op: libc::c_int| (op | libc::FUTEX_PRIVATE_FLAG) as u64;
    check("FUTEX_WAIT_PRIVATE", private(libc::FUTEX_WAIT));
    check("FUTEX_WAKE_PRIVATE", private(libc::FUTEX_WAKE));
    check("FUTEX_WAIT_BITSET_PRIVATE", private(libc::FUTEX_WAIT_BITSET));
    assert_eq!(checked, constants.len());
}

const CONSTANTS: &str = r#"{ "ONE": 1, "TWO": 2 }"#;

fn policy(entries: &str) -> String {
    format!(r#"{{ "about": "a test", "syscalls": [{entries}] }}"#)
}

fn refused(shared: &str, role: &str) -> String {
    let (shared, role) = (policy(shared), policy(role));
    compile(&shared, &role, CONSTANTS, TargetArch::x86_64).unwrap_err().to_string()
}

#[test]
fn entry_without_comment_is_refused() {
    let error = refused("", r#"{ "syscall": "read", "comment": " " }"#);
    assert!(error.contains("\"read\": no comment"), "{error}");
    assert!(refused("", r#"{ "syscall": "read" }"#).contains("missing field `comment`"));
}

#[test]
fn rule_that_would_be_lost_is_refused() {
    let any = r#"{ "syscall": "fcntl", "comment": "a" }"#;
    let ruled = r#"{ "syscall": "fcntl", "comment": "a", "when": [ { "arg1": "ONE" } ] }"#;
    assert!(refused(any, ruled).contains("without conditions"));
    assert!(refused(ruled, any).contains("without conditions"));
    assert!(refused("", &format!("{ruled}, {ruled}")).contains("listed twice"));
    let empty = r#"{ "syscall": "fcntl", "comment": "a", "when": [] }"#;
    assert!(refused("", empty).contains("without a condition"));
    let empty = r#"{ "syscall": "fcntl", "comment": "a", "when": [ {} ] }"#;
    assert!(refused("", empty).contains("without a condition"));
}

#[test]
fn what_is_misspelt_is_refused() {
    let entry = |when: &str| {
        format!(r#"{{ "syscall": "fcntl", "comment": "a", "when": [ {{ {when} }} ] }}"#)
    };
    assert!(refused("", &entry(r#""arg1": "THREE""#)).contains("\"THREE\""));
    assert!(refused("", &entry(r#""arg6": "ONE""#)).contains("arg0 to arg5"));
    assert!(refused("", &entry(r#""flags": "ONE""#)).contains("arg0 to arg5"));
    assert!(refused("", &entry(r#""arg1": { "inside": "ONE" }"#)).contains("not a policy"));
    let unknown = r#"{ "syscall": "raed", "comment": "a" }"#;
    assert!(refused("", unknown).contains("raed"));
}

#[test]
fn words_are_joined_bit_by_bit() {
    let constants = serde_json::from_str(CONSTANTS).unwrap();
    assert_eq!(value_of("ONE|TWO|0x10|32", &constants).unwrap(), 0x33);
    assert_eq!(value_of("0", &constants).unwrap(), 0);
}

/// Constants of the policies that the C library's headers, as the libc crate has them, know too.
macro_rules! of_libc {
    ($($name:ident)*) => { [$((stringify!($name), libc::$name as u64)),*] };
}

/// docs/decisions/0017 says why they stand in a file.
#[test]
fn constants_are_those_of_the_headers() {
    let text =
        include_str!(concat!("../../policies/", env!("PASTA_TARGET_ARCH"), "/constants.json"));
    let constants: Constants = serde_json::from_str(text).unwrap();
    let known = of_libc! {
        AF_INET AF_INET6 SOCK_CLOEXEC SOCK_DGRAM SOCK_NONBLOCK
        SOCK_STREAM IPPROTO_ICMP IPPROTO_ICMPV6 IPPROTO_IP IPPROTO_IPV6
        IPPROTO_TCP IPPROTO_UDP SOL_SOCKET SO_ATTACH_FILTER SO_BINDTODEVICE SO_BINDTOIFINDEX
        SO_BUF_LOCK SO_DOMAIN SO_ERROR SO_KEEPALIVE SO_LINGER
        SO_MEMINFO SO_OOBINLINE SO_PEEK_OFF SO_PEERCRED SO_PROTOCOL
        SO_RCVBUF SO_RCVLOWAT SO_REUSEADDR SO_SNDBUF SO_TYPE
        TCP_INFO TCP_KEEPCNT TCP_KEEPIDLE TCP_KEEPINTVL TCP_MAXSEG
        TCP_NODELAY TCP_NOTSENT_LOWAT TCP_QUICKACK TCP_USER_TIMEOUT UDP_GRO
        UDP_SEGMENT IP_BIND_ADDRESS_NO_PORT IP_FREEBIND IP_MTU IP_MTU_DISCOVER
        IP_PKTINFO IP_RECVERR IP_RECVTOS IP_RECVTTL IP_TOS
        IP_TTL IPV6_FREEBIND IPV6_MTU IPV6_MTU_DISCOVER IPV6_RECVERR
        IPV6_RECVHOPLIMIT IPV6_RECVPKTINFO IPV6_RECVTCLASS IPV6_TCLASS IPV6_UNICAST_HOPS
        IPV6_V6ONLY MSG_CMSG_CLOEXEC MSG_DONTWAIT MSG_ERRQUEUE MSG_MORE
        MSG_NOSIGNAL MSG_PEEK MSG_TRUNC MSG_WAITFORONE F_GETFD
        F_GETFL F_GETPIPE_SZ F_SETPIPE_SZ O_CLOEXEC O_NOFOLLOW
        O_NONBLOCK O_RDONLY SPLICE_F_MORE SPLICE_F_MOVE SPLICE_F_NONBLOCK
        MADV_DONTNEED MADV_FREE MAP_ANONYMOUS MAP_PRIVATE MREMAP_MAYMOVE
        PROT_READ PROT_WRITE TIOCGPGRP TIOCSPGRP
    };
    for (name, value) in known {
        assert_eq!(constants.get(name).copied(), Some(value & 0xffff_ffff), "{name}");
    }
    let unchecked = constants.keys().filter(|it| !known.iter().any(|(name, _)| name == it));
    assert!(unchecked.count() <= 5, "a constant is missing in this test");
}
