//! What the live processes may do, as the kernel tells it, and what is linked into them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use tests::harness::{self, Case};
use tests::lab::pasta::NO_PORTS;
use tests::lab::process::{self, Process};
use tests::lab::{DATAPATH, Lab, MONITOR, Pasta, Session, Skip, USER};
use tests::{Outcome, case, sys};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, datapath_holds_no_capability_at_all),
        case!(lab, monitor_holds_net_admin_over_the_namespace_and_nothing_else),
        case!(lab, monitor_gives_net_admin_up_when_it_has_nothing_to_configure),
        case!(lab, monitor_gives_the_right_to_low_ports_up_when_no_rule_has_one),
        case!(lab, supervisor_holds_no_capability),
        case!(lab, every_process_is_filtered_and_cannot_gain_privileges),
        case!(lab, each_process_lives_in_its_own_namespaces),
        case!(lab, roots_of_the_helpers_are_empty_and_read_only),
        case!(lab, helpers_hold_no_file_but_the_tap),
        case!(lab, helpers_have_sessions_of_their_own_and_an_empty_environment),
        case!(lab, no_process_can_be_traced_or_dumped_by_its_own_user),
        case!(lab, started_by_root_everything_runs_as_another_user),
        case!(lab, sys_in_the_namespace_shows_its_own_interfaces),
        case!(lab, mounts_for_a_command_of_the_callers_user_namespace_stay_with_it),
        case!(lab, command_that_root_starts_reaches_neither_roots_keys_nor_its_terminal),
        case!(plain, datapath_links_no_netlink_and_the_monitor_no_frame_parser),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// `CAP_NET_ADMIN` (linux/capability.h) as the only bit of a set.
const NET_ADMIN: u64 = 1 << 12;

/// As [`NET_ADMIN`], with `CAP_NET_BIND_SERVICE`: by default low ports of the host's loopback are bound too.
const WITH_LOW_PORTS: u64 = NET_ADMIN | LOW_PORTS;

/// `CAP_NET_BIND_SERVICE`
const LOW_PORTS: u64 = 1 << 10;

/// All five sets, as `/proc/PID/status` names them.
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// A running `pasta` and its parts.
struct Parts {
    supervisor: Process,
    monitor: Process,
    datapath: Process,
    command: Process,
    _session: Session,
}

impl Parts {
    fn of(lab: &Lab, pasta: &Pasta<'_>) -> Outcome<Self> {
        lab.needs_helpers()?;
        let mut session = pasta.session()?;
        let pid = session.running().pid();
        Ok(Self {
            supervisor: Process::read(pid).ok_or("no supervisor")?,
            monitor: process::only(MONITOR)?,
            datapath: process::only(DATAPATH)?,
            command: process::only("lab-client")?,
            _session: session,
        })
    }

    fn usual(lab: &Lab) -> Outcome<Self> {
        Self::of(lab, &lab.pasta().configured())
    }

    const fn ours(&self) -> [&Process; 3] {
        [&self.supervisor, &self.monitor, &self.datapath]
    }

    const fn helpers(&self) -> [&Process; 2] {
        [&self.monitor, &self.datapath]
    }
}

fn assert_capabilities(process: &Process, wanted: [u64; 5]) -> Outcome {
    for (set, wanted) in SETS.iter().zip(wanted) {
        let held = process.capabilities(set)?;
        assert_eq!(held, wanted, "{set} of {}: {held:#x}, not {wanted:#x}", process.name);
    }
    Ok(())
}

fn datapath_holds_no_capability_at_all(lab: &Lab) -> Outcome {
    let parts = Parts::usual(lab)?;
    assert_capabilities(&parts.datapath, [0; 5])
}

fn monitor_holds_net_admin_over_the_namespace_and_nothing_else(lab: &Lab) -> Outcome {
    let parts = Parts::usual(lab)?;
    let [monitor, command] = [&parts.monitor, &parts.command];

    // A capability counts in the user namespace its holder lives in: that of the namespace.
    assert_eq!(monitor.namespace("user")?, command.namespace("user")?);
    assert_eq!(monitor.status("Seccomp")?, "2");
    assert_capabilities(monitor, [0, WITH_LOW_PORTS, WITH_LOW_PORTS, 0, 0])
}

fn monitor_gives_the_right_to_low_ports_up_when_no_rule_has_one(lab: &Lab) -> Outcome {
    for options in [["-T", "none", "-U", "none"], ["-T", "8000", "-U", "8000-8010,auto"]] {
        let parts = Parts::of(lab, &lab.pasta().configured().with(options))?;
        assert_capabilities(&parts.monitor, [0, NET_ADMIN, NET_ADMIN, 0, 0])?;
        drop(parts);
        process::wait_until_none_left()?;
    }
    Ok(())
}

fn monitor_gives_net_admin_up_when_it_has_nothing_to_configure(lab: &Lab) -> Outcome {
    for (pasta, held) in [(lab.pasta(), LOW_PORTS), (lab.pasta().with(NO_PORTS), 0)] {
        let parts = Parts::of(lab, &pasta)?;
        assert_capabilities(&parts.monitor, [0, held, held, 0, 0])?;
        drop(parts);
        process::wait_until_none_left()?;
    }
    Ok(())
}

fn supervisor_holds_no_capability(lab: &Lab) -> Outcome {
    let parts = Parts::usual(lab)?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(parts.supervisor.capabilities(set)?, 0, "{set}");
    }
    Ok(())
}

fn every_process_is_filtered_and_cannot_gain_privileges(lab: &Lab) -> Outcome {
    let parts = Parts::usual(lab)?;
    for process in parts.ours() {
        assert_eq!(process.status("Seccomp")?, "2", "{}", process.name);
        assert_eq!(process.status("NoNewPrivs")?, "1", "{}", process.name);
    }
    // COMMAND is the user's own program and runs as if we were not there.
    assert_eq!(parts.command.status("Seccomp")?, "0");
    assert_eq!(parts.command.status("NoNewPrivs")?, "0");
    Ok(())
}

fn each_process_lives_in_its_own_namespaces(lab: &Lab) -> Outcome {
    let Parts { supervisor, monitor, datapath, command, .. } = &Parts::usual(lab)?;

    for kind in ["mnt", "ipc", "uts", "cgroup"] {
        let all = [supervisor, monitor, datapath].map(|process| process.namespace(kind));
        let different: BTreeSet<_> = all.into_iter().collect::<Outcome<_>>()?;
        assert_eq!(different.len(), 3, "{kind}: {different:?}");
    }
    for kind in ["mnt", "ipc", "uts"] {
        for process in [supervisor, monitor, datapath] {
            let (theirs, ours) = (command.namespace(kind)?, process.namespace(kind)?);
            assert_ne!(theirs, ours, "COMMAND shares {kind} with {}", process.name);
        }
    }
    // Frames come from the namespace and flows go out on the host.
    assert_eq!(datapath.namespace("net")?, supervisor.namespace("net")?);
    assert_eq!(monitor.namespace("net")?, command.namespace("net")?);
    assert_ne!(monitor.namespace("net")?, supervisor.namespace("net")?);
    // The datapath is alone in a user namespace in which nobody is mapped.
    let users = [supervisor, monitor, datapath].map(|process| process.namespace("user"));
    assert_eq!(users.into_iter().collect::<Outcome<BTreeSet<_>>>()?.len(), 3);
    assert_eq!(fs::read_to_string(format!("/proc/{}/uid_map", datapath.pid))?, "");
    assert_eq!(fs::read_to_string(format!("/proc/{}/gid_map", datapath.pid))?, "");
    // It is process 1 of its PID namespace; the monitor shares the supervisor's, not COMMAND's.
    assert!(datapath.status("NSpid")?.ends_with("\t1"), "{}", datapath.status("NSpid")?);
    assert_eq!(monitor.namespace("pid")?, supervisor.namespace("pid")?);
    assert_ne!(command.namespace("pid")?, supervisor.namespace("pid")?);
    Ok(())
}

fn roots_of_the_helpers_are_empty_and_read_only(lab: &Lab) -> Outcome {
    let parts = Parts::usual(lab)?;
    for helper in parts.helpers() {
        let names: Vec<_> = fs::read_dir(format!("/proc/{}/root", helper.pid))?.collect();
        assert!(names.is_empty(), "{}: {names:?}", helper.name);
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", helper.pid))?;
        assert_eq!(mounts.lines().count(), 1, "{}: {mounts}", helper.name);
        let options = mounts.split_whitespace().nth(5).ok_or("no mount options")?;
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(options.split(',').any(|word| word == option), "{}: {mounts}", helper.name);
        }
    }
    Ok(())
}

fn helpers_hold_no_file_but_the_tap(lab: &Lab) -> Outcome {
    let parts = Parts::usual(lab)?;
    for helper in parts.helpers() {
        for entry in fs::read_dir(format!("/proc/{}/fd", helper.pid))? {
            let entry = entry?;
            let target = fs::read_link(entry.path())?;
            let target = target.to_string_lossy();
            let kernel_object = target.starts_with("socket:") || target.starts_with("anon_inode:");
            let tap = helper.name == DATAPATH && target.ends_with("/net/tun");
            // Three standard streams lead to /dev/null, shown with whatever is left of its path.
            let null = target.ends_with("/null");
            assert!(
                kernel_object || tap || null,
                "{} holds {target} as {:?}",
                helper.name,
                entry.file_name()
            );
        }
    }
    Ok(())
}

fn helpers_have_sessions_of_their_own_and_an_empty_environment(lab: &Lab) -> Outcome {
    let parts = Parts::usual(lab)?;
    let sessions = parts.ours().map(|process| process.session);
    let sessions: BTreeSet<_> = sessions.into_iter().collect();
    assert_eq!(sessions.len(), 3, "{sessions:?}");
    for helper in parts.helpers() {
        let environment = fs::read(format!("/proc/{}/environ", helper.pid))?;
        assert_eq!(environment, b"", "{}", helper.name);
        let arguments = fs::read(format!("/proc/{}/cmdline", helper.pid))?;
        let words = arguments.split(|octet| *octet == 0).filter(|word| !word.is_empty()).count();
        assert_eq!(words, 1, "{}: {:?}", helper.name, String::from_utf8_lossy(&arguments));
        let core = fs::read_to_string(format!("/proc/{}/limits", helper.pid))?;
        let line = core.lines().find(|line| line.starts_with("Max core file size"));
        let words: Vec<_> = line.ok_or("no limit")?.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{}: {words:?}", helper.name);
    }
    Ok(())
}

fn no_process_can_be_traced_or_dumped_by_its_own_user(lab: &Lab) -> Outcome {
    // The kernel gives what belongs to a process that is not dumpable to root; in a user namespace whose
    // root is mapped that is the namespace's, who may look anyway.
    lab.needs_root()?;
    let parts = Parts::usual(lab)?;
    for process in parts.ours() {
        let owner = fs::metadata(format!("/proc/{}/fd", process.pid))?.uid();
        assert_eq!(owner, 0, "{} is dumpable", process.name);
        assert_eq!(process.status("Uid")?.split('\t').next(), Some(&*USER.to_string()));
    }
    Ok(())
}

fn started_by_root_everything_runs_as_another_user(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    let parts = Parts::of(lab, &lab.pasta().as_root().configured())?;

    for process in [&parts.supervisor, &parts.monitor, &parts.datapath, &parts.command] {
        for field in ["Uid", "Gid"] {
            let ids = process.status(field)?;
            assert!(!ids.split('\t').any(|id| id == "0"), "{field} of {}: {ids}", process.name);
        }
        assert_eq!(process.status("Groups")?, "", "{}", process.name);
    }
    assert_capabilities(&parts.datapath, [0; 5])?;
    assert_capabilities(&parts.monitor, [0, WITH_LOW_PORTS, WITH_LOW_PORTS, 0, 0])?;
    assert_eq!(parts.supervisor.capabilities("CapPrm")?, 0);
    for process in parts.ours() {
        assert_eq!(process.status("Seccomp")?, "2", "{}", process.name);
        assert_eq!(process.status("NoNewPrivs")?, "1", "{}", process.name);
    }
    Ok(())
}

fn sys_in_the_namespace_shows_its_own_interfaces(lab: &Lab) -> Outcome {
    let names = |path| -> Outcome<Vec<String>> {
        let names =
            fs::read_dir(path)?.map(|it| Ok(it?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Outcome<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    if !mounts.lines().any(|line| line.contains(" /sys ") && line.contains(" - sysfs ")) {
        return Err(Skip::new("there is no /sys").into());
    }
    let mut inside = lab.session()?;
    assert_eq!(inside.must(["list", "/sys/class/net"])?, ["eth0", "lo"]);
    // What was mounted below is there.
    let groups = names("/sys/fs/cgroup")?;
    assert_eq!(inside.must(["list", "/sys/fs/cgroup"])?, groups);
    inside.end(0)?.expect_code(0)?;
    // The lab's own is as it was.
    assert_eq!(names("/sys/fs/cgroup")?, groups);
    Ok(())
}

fn mounts_for_a_command_of_the_callers_user_namespace_stay_with_it(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    let mounts = || fs::read_to_string("/proc/self/mountinfo");
    // As systemd has it: what is mounted in a copy of the mount namespace appears in the original.
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
    let before = mounts()?.lines().count();
    let pasta = lab.pasta().as_root().with(["--runas", "0", "--netns-only"]);
    let mut inside = pasta.session()?;
    inside.must(["identity"])?;
    assert_eq!(mounts()?.lines().count(), before, "{}", mounts()?);
    inside.end(0)?.expect_code(0)?;
    Ok(())
}

fn command_that_root_starts_reaches_neither_roots_keys_nor_its_terminal(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    // What the test has, all programs that it starts have.
    let ours = match sys::join_session_keyring() {
        Ok(number) => Some(number.to_string()),
        Err(error) if error.raw_os_error() == Some(Errno::ENOSYS as i32) => None,
        Err(error) => return Err(error.into()),
    };
    for (pasta, same) in [(lab.pasta().as_root(), false), (lab.pasta(), true)] {
        let mut inside = pasta.session()?;
        if let Some(ours) = &ours {
            let theirs = inside.must(["keyring"])?;
            assert_eq!(theirs == [ours.clone()], same, "{theirs:?}, ours is {ours}");
        }
        // Standard input is no terminal, which only a request that gets that far finds out.
        inside.ask(["type"])?.failure(if same { "ENOTTY" } else { "EPERM" })?;
        inside.end(0)?.expect_code(0)?;
        process::wait_until_none_left()?;
    }
    // Root that stays root has both already.
    let mut inside = lab.pasta().as_root().with(["--runas", "0"]).session()?;
    inside.ask(["type"])?.failure("ENOTTY")?;
    inside.end(0)?.expect_code(0)?;
    Ok(())
}

/// Names of all crates that `package` links, itself included.
fn crates_of(package: &str) -> Outcome<BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut tree = Command::new(cargo);
    tree.args(["tree", "--package", package, "--edges", "normal", "--prefix", "none"]);
    tree.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    let output = tree.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let names = String::from_utf8(output.stdout)?;
    Ok(names.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect())
}

fn datapath_links_no_netlink_and_the_monitor_no_frame_parser() -> Outcome {
    let datapath = crates_of("pasta-datapath")?;
    let monitor = crates_of("pasta-monitor")?;
    assert!(datapath.contains("pasta-ipc") && monitor.contains("pasta-ipc"), "not the tree");

    let netlink: Vec<_> = datapath.iter().filter(|name| name.contains("netlink")).collect();
    assert!(netlink.is_empty(), "the datapath links {netlink:?}");
    for name in ["tokio", "pasta-monitor", "pasta"] {
        assert!(!datapath.contains(name), "the datapath links {name}");
    }
    for name in ["smoltcp", "etherparse", "pnet", "pasta-datapath", "pasta"] {
        assert!(!monitor.contains(name), "the monitor links {name}");
    }
    Ok(())
}
