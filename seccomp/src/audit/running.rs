//! A process of an instance that runs already, as the kernel shows it to others.
//!
//! Nothing is asked of the process itself. What of a non-dumpable process only root may read is left out for
//! others, and named. The kernel shows neither securebits nor Landlock rules to anybody. The filter is read back by
//! whoever has `CAP_SYS_ADMIN`, which takes tracing the process for some microseconds.

use super::sockets::{self, Side, Sockets};
use super::status::Status;
use super::{AuditError, NOBODY, Observed, SECCOMP_MODE_FILTER, traced_by};
use crate::{Keep, Role, filter, sys};
use nix::sys::stat::{FileStat, major, minor, stat};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Limits that are looked at: as `/proc/PID/limits` names them, and which are 0 for all and for the helpers.
const LIMITS: [(&str, Zero); 7] = [
    ("Max core file size", Zero::All),
    ("Max msgqueue size", Zero::All),
    ("Max locked memory", Zero::All),
    ("Max processes", Zero::Helpers),
    ("Max file size", Zero::Nobody),
    ("Max address space", Zero::Nobody),
    ("Max open files", Zero::Nobody),
];

/// Whose limit is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zero {
    All,
    Helpers,
    Nobody,
}

/// What was seen of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// What it has, a name and a value each.
    pub facts: Vec<(&'static str, String)>,
    /// What the table does not allow, a line each.
    pub disagreements: Vec<String>,
    /// Best-effort measures that are not in force.
    pub missing: Vec<String>,
    /// What could not be read.
    pub unread: Vec<&'static str>,
}

/// The processes whose networks are the host's and the namespace's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The supervisor.
    pub supervisor: Pid,
    /// The monitor.
    pub monitor: Pid,
}

/// Looks at process `pid`, which is to be the `role` of `instance`.
///
/// # Errors
///
/// [`AuditError`] if its status file cannot be read or understood.
pub fn observe(pid: Pid, role: Role, instance: Instance) -> Result<Observation, AuditError> {
    let (status, _) = Observed::from(pid).read_status()?;
    let mut seen = Observation::default();
    seen.take_status(role, &status);
    seen.take_files(pid, role, instance);
    let policy = format!("{:016x}, {} calls", filter::hash(role), filter::allowed_calls(role));
    seen.facts.push(("policy_of_this_build", policy));
    match sys::installed_filters(pid) {
        Ok(filters) => {
            let hashes: Vec<_> = filters.iter().map(|it| filter::hash_of(it)).collect();
            seen.take_filters(role, &hashes);
        }
        Err(_) => seen.unread.push("policy_in_force"),
    }
    let only = SEEN_AT_START_ONLY.join(", ");
    seen.facts.push(("seen_at_start_only", only));
    Ok(seen)
}

/// What the kernel shows to nobody but the process itself: here only that each has read it back before its filter
/// counts.
const SEEN_AT_START_ONLY: [&str; 2] = ["securebits", "landlock rights"];

impl Observation {
    fn take_status(&mut self, role: Role, status: &Status) {
        let list =
            |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let pids: Vec<_> = status.pids.iter().map(i32::to_string).collect();
        self.facts.extend([
            ("user_ids", list(&status.uids)),
            ("group_ids", list(&status.gids)),
            ("supplementary_groups", list(&status.groups)),
            ("process_ids", pids.join(" ")),
            ("threads", status.threads.to_string()),
            ("tracer", status.tracer.to_string()),
            ("effective", format!("{:#x}", status.effective)),
            ("permitted", format!("{:#x}", status.permitted)),
            ("inheritable", format!("{:#x}", status.inheritable)),
            ("ambient", format!("{:#x}", status.ambient)),
            ("bounding", format!("{:#x}", status.bounding)),
            ("no_new_privs", status.no_new_privs.to_string()),
            ("seccomp_mode", status.seccomp.to_string()),
        ]);
        // Which of them the monitor keeps is up to the options.
        let most = Keep { net_admin: true, net_bind_service: true, capture: false };
        let most = most.of(role).mask();
        let wrong = &mut self.disagreements;
        let mut check = |what: &str, is: u64, wanted: u64| {
            if is != wanted {
                wrong.push(format!("{what} is {is:#x}, not {wanted:#x}"));
            }
        };
        check("effective set", status.effective, status.effective & most);
        check("permitted set", status.permitted, status.effective);
        check("inheritable set", status.inheritable, 0);
        check("ambient set", status.ambient, 0);
        check("no_new_privs", status.no_new_privs.into(), 1);
        check("seccomp mode", status.seccomp.into(), SECCOMP_MODE_FILTER.into());
        check("number of threads", status.threads.into(), 1);
        for (what, ids) in [("user ids", &status.uids), ("group ids", &status.gids)] {
            if ids.iter().any(|id| Some(id) != ids.first()) {
                wrong.push(format!("{what} differ from each other"));
            }
        }
        if role == Role::Supervisor {
            return;
        }
        if status.tracer != NOBODY {
            wrong.extend(traced_by(status.tracer));
        }
        if status.bounding != 0 {
            self.missing.push(crate::caps::NO_EMPTY_BOUNDING.into());
        }
        if role == Role::Datapath && (status.pids.len() < 2 || status.pids.last() != Some(&1)) {
            self.missing.push(crate::namespaces::NO_PID_NAMESPACE.into());
        }
    }

    /// Takes what stands in other files than the status.
    fn take_files(&mut self, pid: Pid, role: Role, instance: Instance) {
        let Instance { supervisor, monitor } = instance;
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        match read("limits") {
            Ok(text) => self.take_limits(role, &text),
            Err(_) => self.unread.push("limits"),
        }
        for (name, file) in [("user_map", "uid_map"), ("group_map", "gid_map")] {
            match read(file) {
                Ok(text) => {
                    let words: Vec<_> = text.split_ascii_whitespace().collect();
                    self.facts.push((name, words.join(" ")));
                }
                Err(_) => self.unread.push(name),
            }
        }
        let link = |of: Pid, kind: &str| fs::read_link(format!("/proc/{of}/ns/{kind}"));
        for (name, kind, own) in [
            ("user_namespace", "user", None),
            ("network_namespace", "net", None),
            ("mount_namespace", "mnt", Some("own mount namespace")),
            ("ipc_namespace", "ipc", Some(crate::namespaces::NO_IPC_NAMESPACE)),
            ("uts_namespace", "uts", Some(crate::namespaces::NO_UTS_NAMESPACE)),
            ("cgroup_namespace", "cgroup", Some(crate::namespaces::NO_CGROUP_NAMESPACE)),
        ] {
            let Ok(theirs) = link(pid, kind) else {
                self.unread.push(name);
                continue;
            };
            let is_shared = link(supervisor, kind).is_ok_and(|ours| ours == theirs);
            if let (true, Some(measure)) = (is_shared && role != Role::Supervisor, own) {
                self.missing.push(measure.into());
            }
            self.facts.push((name, theirs.to_string_lossy().into_owned()));
        }
        match descriptors(pid, &Sockets::of(supervisor, monitor)) {
            Ok(kinds) => self.take_descriptors(role, &kinds),
            Err(_) => self.unread.push("descriptors"),
        }
        match read("mountinfo") {
            Ok(text) if role != Role::Supervisor => {
                self.facts.push(("mounts", text.lines().count().to_string()));
                if text.lines().count() != 1 {
                    self.disagreements.push("root is not empty".into());
                }
            }
            Ok(_) => {}
            Err(_) => self.unread.push("mounts"),
        }
    }

    fn take_descriptors(&mut self, role: Role, kinds: &BTreeMap<Kind, usize>) {
        let shown: Vec<_> = kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        self.facts.push(("descriptors", shown.join(", ")));
        let refused = kinds.iter().filter(|(kind, count)| !kind.is_listed(role, **count));
        self.disagreements.extend(refused.map(|(kind, n)| format!("holds {n} {kind}")));
    }

    /// Takes the hashes of the filters that are in force.
    fn take_filters(&mut self, role: Role, hashes: &[u64]) {
        let shown: Vec<_> = hashes.iter().map(|hash| format!("{hash:016x}")).collect();
        self.facts.push(("policy_in_force", shown.join(" ")));
        // Who has started us may have had one.
        if !hashes.contains(&filter::hash(role)) {
            self.disagreements.push("policy in force is not that of this build".into());
        }
    }

    fn take_limits(&mut self, role: Role, text: &str) {
        let mut shown = Vec::new();
        for (name, zero) in LIMITS {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let mut words = line.unwrap_or_default().split_ascii_whitespace();
            let (Some(soft), Some(hard)) = (words.next(), words.next()) else {
                self.disagreements.push(format!("{name}: not shown"));
                continue;
            };
            shown.push(format!("{}: {hard}", name.trim_start_matches("Max ")));
            let wants_zero = match zero {
                Zero::All => true,
                Zero::Helpers => role != Role::Supervisor,
                Zero::Nobody => false,
            };
            if wants_zero && (soft, hard) != ("0", "0") {
                self.disagreements.push(format!("{name} is {hard}, not 0"));
            }
        }
        self.facts.push(("limits", shown.join(", ")));
    }
}

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A socket of this network; of none if it is neither bound nor connected.
    Socket(Option<(Side, &'static str)>),
    /// A pipe, or an object of the kernel's that has no file.
    Anonymous(String),
    /// `/dev/null`
    Null,
    /// `/dev/net/tun`
    Tun,
    /// A file, and what kind of.
    File(String),
}

impl Kind {
    /// Of the descriptor that the link `path` stands for and leads to `target`.
    fn of(path: &Path, target: &str, sockets: &Sockets) -> Self {
        match target.split_once(':') {
            Some(("socket", inode)) => {
                let inode = inode.trim_matches(['[', ']']).parse();
                Self::Socket(inode.ok().and_then(|inode| sockets.get(inode)))
            }
            Some(("pipe", _)) => Self::Anonymous("pipe".into()),
            Some(("anon_inode", kind)) => Self::Anonymous(kind.trim_matches(['[', ']']).into()),
            // Paths are of another mount namespace; what they lead to is not.
            _ => match stat(path) {
                Ok(found) if is_device(&found, 1, 3) => Self::Null,
                Ok(found) if is_device(&found, 10, 200) => Self::Tun,
                _ => Self::File(target.to_owned()),
            },
        }
    }

    /// Whether a process of `role` may hold so many of it. The supervisor holds what the user gave it.
    fn is_listed(&self, role: Role, count: usize) -> bool {
        match (role, self) {
            (Role::Supervisor, _) | (_, Self::Anonymous(_) | Self::Null | Self::Socket(None)) => {
                true
            }
            (_, Self::Socket(Some((_, sockets::PACKET | sockets::RAW)))) => false,
            (Role::Datapath, Self::Socket(Some((_, kind)))) => *kind != sockets::NETLINK,
            (Role::Monitor, Self::Socket(Some(kind))) => *kind != (Side::Host, sockets::INET),
            (Role::Datapath, Self::Tun) => true,
            // The capture.
            (Role::Datapath, Self::File(_)) => count == 1,
            (Role::Monitor, Self::Tun | Self::File(_)) => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(Some((Side::Host, kind))) => write!(f, "{kind} of the host"),
            Self::Socket(Some((Side::Namespace, kind))) => write!(f, "{kind} of the namespace"),
            Self::Socket(None) => f.write_str("unbound socket"),
            Self::Anonymous(kind) => f.write_str(kind),
            Self::Null => f.write_str("/dev/null"),
            Self::Tun => f.write_str("/dev/net/tun"),
            Self::File(path) => f.write_str(path),
        }
    }
}

fn is_device(found: &FileStat, of_major: u64, of_minor: u64) -> bool {
    let is_character = found.st_mode & libc::S_IFMT == libc::S_IFCHR;
    is_character && (major(found.st_rdev), minor(found.st_rdev)) == (of_major, of_minor)
}

/// The open descriptors of a process by kind, and how many of each.
fn descriptors(pid: Pid, sockets: &Sockets) -> io::Result<BTreeMap<Kind, usize>> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        // One that was closed meanwhile is none.
        let Ok(target) = fs::read_link(&path) else { continue };
        *kinds.entry(Kind::of(&path, &target.to_string_lossy(), sockets)).or_insert(0) += 1;
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::CONFINED;
    use super::*;

    fn seen(role: Role, changes: &[(&str, &str)]) -> Observation {
        let mut text = CONFINED.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let mut seen = Observation::default();
        seen.take_status(role, &Status::parse(&text).unwrap());
        seen
    }

    #[test]
    fn process_that_is_as_the_table_says_has_no_line() {
        for role in [Role::Supervisor, Role::Monitor, Role::Datapath] {
            let seen = seen(role, &[]);
            assert_eq!((seen.disagreements, seen.missing), (vec![], vec![]), "{role}");
        }
        let both = [
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000001400"),
            ("CapEff:\t0000000000000000", "CapEff:\t0000000000001400"),
        ];
        assert_eq!(seen(Role::Monitor, &both).disagreements, [""; 0]);
        assert!(!seen(Role::Datapath, &both).disagreements.is_empty());
        assert!(!seen(Role::Supervisor, &both).disagreements.is_empty());
    }

    #[test]
    fn each_difference_is_a_line() {
        for (from, to) in [
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000001"),
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000000001"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000000001"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
            ("Threads:\t1", "Threads:\t2"),
            ("TracerPid:\t0", "TracerPid:\t9"),
            ("Uid:\t1000\t1000", "Uid:\t1000\t0"),
        ] {
            assert_eq!(seen(Role::Datapath, &[(from, to)]).disagreements.len(), 1, "{to}");
        }
        let bounding = [("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000001")];
        assert_eq!(seen(Role::Monitor, &bounding).missing, ["empty bounding set"]);
        let pids = [("NSpid:\t4242\t1", "NSpid:\t4242")];
        assert_eq!(seen(Role::Datapath, &pids).missing, ["own pid namespace"]);
    }

    #[test]
    fn descriptors_that_the_table_does_not_list_are_lines() {
        use sockets::{INET, NETLINK, PACKET, RAW};
        let refused = |role, kind: &Kind, count| {
            let mut seen = Observation::default();
            seen.take_descriptors(role, &BTreeMap::from([(kind.clone(), count)]));
            assert_eq!(seen.disagreements.is_empty(), kind.is_listed(role, count));
            !seen.disagreements.is_empty()
        };
        let socket = |side, kind| Kind::Socket(Some((side, kind)));
        let file = Kind::File("/tmp/capture".into());
        // Of the monitor, of the datapath.
        for (kind, count, wanted) in [
            (socket(Side::Host, PACKET), 1, [true, true]),
            (socket(Side::Namespace, PACKET), 1, [true, true]),
            (socket(Side::Namespace, RAW), 1, [true, true]),
            (socket(Side::Host, NETLINK), 1, [false, true]),
            (socket(Side::Namespace, NETLINK), 1, [false, true]),
            (socket(Side::Host, INET), 1, [true, false]),
            (socket(Side::Namespace, INET), 1, [false, false]),
            (socket(Side::Host, "unix socket"), 2, [false, false]),
            (Kind::Socket(None), 9, [false, false]),
            (Kind::Anonymous("eventpoll".into()), 2, [false, false]),
            (Kind::Null, 3, [false, false]),
            (Kind::Tun, 1, [true, false]),
            (file.clone(), 1, [true, false]),
            (file, 2, [true, true]),
        ] {
            let found = [Role::Monitor, Role::Datapath].map(|role| refused(role, &kind, count));
            assert_eq!(found, wanted, "{kind}");
            assert!(!refused(Role::Supervisor, &kind, count));
        }
    }

    #[test]
    fn own_descriptors_are_told_apart() {
        let sockets = Sockets::of(Pid::this(), Pid::this());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        let file = fs::File::open("/proc/self/status").unwrap();
        let kind = |fd: &dyn std::os::fd::AsRawFd| {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let target = fs::read_link(&path).unwrap();
            let sockets = Sockets::of(Pid::this(), Pid::this());
            Kind::of(Path::new(&path), &target.to_string_lossy(), &sockets)
        };
        assert_eq!(kind(&listener), Kind::Socket(Some((Side::Host, sockets::INET))));
        assert_eq!(kind(&null), Kind::Null);
        assert!(matches!(kind(&file), Kind::File(path) if path.ends_with("/status")));
        assert!(descriptors(Pid::this(), &sockets).unwrap().contains_key(&Kind::Null));
    }

    #[test]
    fn filter_of_another_build_is_a_line_and_one_more_is_none() {
        let of = |hashes: &[u64]| {
            let mut seen = Observation::default();
            seen.take_filters(Role::Monitor, hashes);
            seen.disagreements.len()
        };
        let (ours, other) = (filter::hash(Role::Monitor), filter::hash(Role::Datapath));
        assert_eq!([of(&[ours]), of(&[other, ours]), of(&[other]), of(&[])], [0, 0, 1, 1]);
    }

    #[test]
    fn limits_that_are_not_zero_are_lines_and_those_of_the_supervisor_differ() {
        let lines = [
            "Limit Soft Hard Units",
            "Max core file size 0 0 bytes",
            "Max processes 9 9 processes",
            "Max msgqueue size 0 0 bytes",
            "Max locked memory 0 0 bytes",
            "Max file size unlimited unlimited bytes",
            "Max address space 5 5 bytes",
            "Max open files 9 9 files",
        ];
        let text = lines.join("\n");
        let mut of = Observation::default();
        of.take_limits(Role::Datapath, &text);
        assert_eq!(of.disagreements, ["Max processes is 9, not 0"]);
        let mut of = Observation::default();
        of.take_limits(Role::Supervisor, &text);
        assert_eq!(of.disagreements, [""; 0]);
        assert!(of.facts[0].1.contains("address space: 5"), "{:?}", of.facts);
    }
}
