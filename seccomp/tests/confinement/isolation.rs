//! Whole confinements: isolated, confined, and audited from outside by an unprivileged launcher.

use crate::child::{Ended, pipe, quiet_stdio, run, run_well};
use crate::sys::{self, Arg};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, bind as bind_socket, socket,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, getegid, geteuid, getpid, pause};
use pasta_ipc::message::IsolationToSupervisor;
use pasta_ipc::message::{Isolation, IsolationRights, ProcessId, SupervisorToIsolation};
use pasta_ipc::start::RootFallback;
use pasta_ipc::types::AuditReport;
use pasta_ipc::{
    Channel, DatapathToSupervisor, MonitorToSupervisor, SupervisorToDatapath, SupervisorToMonitor,
};
use seccomp::namespaces::ReportChannel;
use seccomp::ports::{BindPorts, Ports};
use seccomp::{Confinement, Isolated, Keep, Role, UserNamespace, audit_from_outside};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};

/// Who an unprivileged launcher is when the tests run as root (chosen: nobody real).
const ORDINARY: u32 = 54_321;

/// As which users the whole can be tried here.
fn launchers() -> Vec<Option<u32>> {
    // As root twice: as root itself, and as the user that a launcher started by root becomes.
    if geteuid().is_root() { vec![None, Some(ORDINARY)] } else { vec![None] }
}

/// Runs `body` in a child that has become the launcher's user.
fn as_launcher(user: Option<u32>, body: impl FnOnce()) {
    run_well(&format!("launcher as {user:?}"), || {
        seccomp::harden_early().unwrap();
        if let Some(id) = user {
            seccomp::become_user(Uid::from_raw(id), Gid::from_raw(id)).unwrap();
        }
        body();
    });
}

/// Why user namespaces cannot be tried here, if they cannot.
pub(crate) fn no_user_namespaces() -> Option<String> {
    match run(|| unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).unwrap()) {
        Ended::Well => None,
        ended => Some(format!("no user namespaces here: {ended:?}")),
    }
}

/// Prints why a test does not run, so that it is never silently left out.
pub(crate) fn skip(what: &str, why: &str) {
    println!("  SKIPPED {what}: {why}");
}

/// Whether all best-effort measures were taken; names those that this kernel lacks.
fn all_measures(report: &AuditReport) -> bool {
    for missing in report.missing.as_slice() {
        skip("best-effort measure", missing.as_str());
    }
    report.missing.as_slice().is_empty()
}

/// Starts a datapath that isolates and confines itself; returns its pid and report.
fn start_datapath() -> (Pid, AuditReport, Channel<SupervisorToDatapath, DatapathToSupervisor>) {
    let (ours, theirs) = Channel::pair().unwrap();
    let (report, pids) = ReportChannel::pair().unwrap();
    let Some(first) = sys::fork() else {
        drop((ours, pids));
        datapath(report, theirs);
    };
    drop((theirs, report));
    let how = Isolation { rights: IsolationRights::UserNamespace, root: RootFallback::None };
    pids.send(&SupervisorToIsolation::Isolate(how)).unwrap();
    let pid = receive_successor(&pids);
    assert_eq!(waitpid(first, None), Ok(WaitStatus::Exited(first, 0)));
    wait_for(&ours);
    let DatapathToSupervisor::Ready(report) = ours.receive().unwrap().message else {
        panic!("not ready");
    };
    (Pid::from_raw(pid.into()), *report, ours)
}

/// Receives the id of the datapath's second process, before or after its status file.
fn receive_successor(pids: &Channel<SupervisorToIsolation, IsolationToSupervisor>) -> ProcessId {
    loop {
        wait_for(pids);
        if let IsolationToSupervisor::Successor(pid) = pids.receive().unwrap().message {
            return pid;
        }
    }
}

/// What a datapath does, and what it must not see.
fn datapath(
    pid_report: ReportChannel,
    supervisor: Channel<DatapathToSupervisor, SupervisorToDatapath>,
) -> ! {
    seccomp::harden_early().unwrap();
    quiet_stdio();
    let isolated = seccomp::namespaces::isolate_datapath_reporting(pid_report).unwrap();
    assert_eq!(fs::read_dir("/").unwrap().count(), 0, "the root is empty");
    assert_eq!(fs::read_dir("/..").unwrap().count(), 0, "and so is what is above it");
    assert_eq!(File::create("/file").unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(getpid().as_raw(), 1);
    assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM), "an unmapped id");
    let epoll = new_epoll();
    let what = Confinement::least(Role::Datapath, isolated);
    let (_confined, report) = seccomp::confine(what, Some(supervisor.as_fd())).unwrap();
    supervisor.send(&DatapathToSupervisor::Ready(Box::new(report))).unwrap();
    end_with(&supervisor, &epoll);
}

/// Blocks until there is something to receive.
fn wait_for(channel: &impl AsFd) {
    let mut polled = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    // Only a failure comes this far.
    assert_eq!(poll(&mut polled, PollTimeout::from(10_000_u16)), Ok(1), "no message");
}

/// Ends when the other side does.
fn end_with(channel: &impl AsFd, epoll: &Epoll) -> ! {
    let (mut events, event) = ([EpollEvent::empty(); 1], EpollEvent::new(EpollFlags::EPOLLIN, 0));
    epoll.add(channel, event).unwrap();
    epoll.wait(&mut events, EpollTimeout::NONE).unwrap();
    sys::exit(0)
}

/// Made before the filter, like all that a helper needs.
fn new_epoll() -> Epoll {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap()
}

pub(crate) fn datapath_is_isolated_confined_and_audited_from_outside() {
    if let Some(why) = no_user_namespaces() {
        return skip("datapath", &why);
    }
    for user in launchers() {
        as_launcher(user, || {
            let (pid, report, channel) = start_datapath();
            if all_measures(&report) {
                assert!(report.landlock_abi >= 6, "nothing is missing, so this is in force");
                assert_eq!((report.bounding, report.securebits), (0, 0xef));
            }
            assert!(report.effective == 0 && report.permitted == 0);
            if user.is_some() {
                assert_eq!(report.groups, 0);
            }
            audit_from_outside(pid, Role::Datapath, Keep::NOTHING, UserNamespace::Other, &report)
                .unwrap();

            let boasting = AuditReport { groups: report.groups + 1, ..report.clone() };
            assert!(
                audit_from_outside(
                    pid,
                    Role::Datapath,
                    Keep::NOTHING,
                    UserNamespace::Other,
                    &boasting
                )
                .is_err()
            );
            assert!(
                audit_from_outside(
                    getpid(),
                    Role::Datapath,
                    Keep::NOTHING,
                    UserNamespace::Other,
                    &report
                )
                .is_err()
            );
            if user.is_some() {
                let fds = fs::read_dir(format!("/proc/{pid}/fd"));
                assert_eq!(fds.unwrap_err().raw_os_error(), Some(libc::EACCES), "not even ours");
            }
            drop(channel);
            assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)), "ends with its channel");
        });
    }
}

/// A namespace for the monitor to enter, held by its owner process.
fn start_namespace() -> Pid {
    let (uid, gid) = (geteuid(), getegid());
    let (mut done, made) = pipe();
    let Some(owner) = sys::fork() else {
        drop(done);
        // Its map files would belong to root otherwise.
        nix::sys::prctl::set_dumpable(true).unwrap();
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).unwrap();
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
        drop(made);
        loop {
            pause();
        }
    };
    drop(made);
    assert_eq!(done.read(&mut [0]).unwrap(), 0, "the owner says when it is done");
    owner
}

fn monitor(
    namespaces: [File; 2],
    keep: Keep,
    supervisor: Channel<MonitorToSupervisor, SupervisorToMonitor>,
) -> ! {
    seccomp::harden_early().unwrap();
    quiet_stdio();
    let [user, net] = namespaces;
    setns(&user, CloneFlags::CLONE_NEWUSER).unwrap();
    setns(&net, CloneFlags::CLONE_NEWNET).unwrap();
    drop((user, net));
    let isolated = seccomp::isolate_monitor(RootFallback::None).unwrap();
    assert_eq!(fs::read_dir("/").unwrap().count(), 0, "the root is empty");
    let epoll = new_epoll();
    let bind = BindPorts { tcp: Ports::Only([80].into()), ..BindPorts::none() };
    let what = Confinement { keep, bind, ..Confinement::least(Role::Monitor, isolated) };
    let (_confined, report) = seccomp::confine(what, Some(supervisor.as_fd())).unwrap();
    // The low port that is named needs the capability; another is refused before that.
    for (port, allowed) in [(80, keep.net_bind_service), (81, false), (0, true)] {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let tcp = socket(AddressFamily::Inet, SockType::Stream, flags, SockProtocol::Tcp).unwrap();
        let bound = bind_socket(tcp.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port));
        assert_eq!(bound, if allowed { Ok(()) } else { Err(Errno::EACCES) }, "port {port}");
    }
    supervisor.send(&MonitorToSupervisor::Ready(Box::new(report))).unwrap();
    end_with(&supervisor, &epoll);
}

pub(crate) fn monitor_keeps_what_it_needs_and_is_audited_from_outside() {
    if let Some(why) = no_user_namespaces() {
        return skip("monitor", &why);
    }
    for user in launchers() {
        for (net_admin, net_bind_service) in
            [(true, false), (false, false), (false, true), (true, true)]
        {
            let keep = Keep { net_admin, net_bind_service, capture: false };
            as_launcher(user, || {
                let owner = start_namespace();
                let open = |name| File::open(format!("/proc/{owner}/ns/{name}")).unwrap();
                let namespaces = [open("user"), open("net")];
                let (ours, theirs) = Channel::<SupervisorToMonitor, _>::pair().unwrap();
                let Some(pid) = sys::fork() else {
                    drop(ours);
                    monitor(namespaces, keep, theirs);
                };
                drop(theirs);
                wait_for(&ours);
                let MonitorToSupervisor::Ready(report) = ours.receive().unwrap().message else {
                    panic!("not ready");
                };
                all_measures(&report);
                let bit = |kept: bool, bit: u64| u64::from(kept) << bit;
                assert_eq!(report.effective, bit(net_admin, 12) | bit(net_bind_service, 10));
                audit_from_outside(pid, Role::Monitor, keep, UserNamespace::Other, &report)
                    .unwrap();
                for other in [
                    Keep { net_admin: !net_admin, ..keep },
                    Keep { net_bind_service: !net_bind_service, ..keep },
                ] {
                    assert!(
                        audit_from_outside(
                            pid,
                            Role::Monitor,
                            other,
                            UserNamespace::Other,
                            &report
                        )
                        .is_err()
                    );
                }
                drop(ours);
                assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)));
                kill(owner, Signal::SIGKILL).unwrap();
                waitpid(owner, None).unwrap();
            });
        }
    }
}

pub(crate) fn helper_dies_with_its_supervisor() {
    if let Some(why) = no_user_namespaces() {
        return skip("parent-death signal", &why);
    }
    // The datapath inherits the write end; end of file means that it is gone.
    let (mut gone, held) = pipe();
    let ended = run(|| {
        let (_pid, _report, channel) = start_datapath();
        // Kept open, so that only the signal can end it.
        std::mem::forget(channel);
        nix::sys::signal::raise(Signal::SIGKILL).unwrap();
    });
    assert!(matches!(ended, Ended::Otherwise(ref how) if how.contains("SIGKILL")), "{ended:?}");
    drop(held);
    assert_eq!(gone.read(&mut [0]).unwrap(), 0);
}

pub(crate) fn helper_whose_supervisor_is_gone_refuses_to_start() {
    run_well("helper", || {
        quiet_stdio();
        let (ours, theirs) = Channel::<DatapathToSupervisor, SupervisorToDatapath>::pair().unwrap();
        drop(theirs);
        let what = Confinement::least(Role::Datapath, Isolated::default());
        let error = seccomp::confine(what, Some(ours.as_fd())).unwrap_err();
        assert_eq!(error.to_string(), "the supervisor has ended");
    });
}

pub(crate) fn helper_with_a_directory_or_a_file_open_refuses_to_start() {
    for path in ["/", "/proc/self/exe"] {
        for role in [Role::Monitor, Role::Datapath] {
            run_well(path, || {
                quiet_stdio();
                let _held = File::open(path).unwrap();
                let what = Confinement::least(role, Isolated::default());
                let error = seccomp::confine(what, None).unwrap_err();
                assert!(matches!(error, seccomp::ConfineError::Audit(_)), "{error}");
            });
        }
    }
}

pub(crate) fn helpers_have_session_keyrings_of_their_own() {
    if let Some(why) = no_user_namespaces() {
        return skip("session keyrings", &why);
    }
    let keyring = || sys::call(libc::SYS_keyctl, &[Arg::Int(0), Arg::Int(-3)]);
    run_well("session keyrings", || {
        let join = [Arg::Int(1), Arg::Int(0)];
        match sys::call(libc::SYS_keyctl, &join) {
            Err(Errno::ENOSYS) => return skip("session keyrings", "the kernel has no keys"),
            joined => drop(joined.unwrap()),
        }
        let ours = keyring().unwrap();
        let (report, pids) = ReportChannel::pair().unwrap();
        let Some(first) = sys::fork() else {
            let isolated = seccomp::namespaces::isolate_datapath_reporting(report).unwrap();
            assert_ne!(keyring().unwrap(), ours, "{:?}", isolated.missing);
            sys::exit(0);
        };
        drop(report);
        let how = Isolation { rights: IsolationRights::UserNamespace, root: RootFallback::None };
        pids.send(&SupervisorToIsolation::Isolate(how)).unwrap();
        let second = Pid::from_raw(receive_successor(&pids).into());
        assert_eq!(waitpid(first, None), Ok(WaitStatus::Exited(first, 0)));
        assert_eq!(waitpid(second, None), Ok(WaitStatus::Exited(second, 0)), "the datapath");

        run_well("the monitor", || {
            unshare(CloneFlags::CLONE_NEWUSER).unwrap();
            let isolated = seccomp::isolate_monitor(RootFallback::None).unwrap();
            assert_ne!(keyring().unwrap(), ours, "{:?}", isolated.missing);
        });
    });
}

pub(crate) fn helper_that_somebody_traces_refuses_to_start() {
    for role in [Role::Monitor, Role::Datapath] {
        run_well("traced", || {
            quiet_stdio();
            // `PTRACE_TRACEME`: whoever has started this traces it.
            sys::call(libc::SYS_ptrace, &[Arg::Int(0)]).unwrap();
            let error = seccomp::confine(Confinement::least(role, Isolated::default()), None);
            let seccomp::ConfineError::Audit(error) = error.unwrap_err() else { panic!() };
            let tracer = nix::unistd::getppid();
            assert_eq!(error.to_string(), format!("process {tracer} traces it"));
        });
    }
    // Seen from outside; the child is traced before it says that it is there.
    let (mut traced, says) = pipe();
    let Some(child) = sys::fork() else {
        drop(traced);
        sys::call(libc::SYS_ptrace, &[Arg::Int(0)]).unwrap();
        drop(says);
        loop {
            pause();
        }
    };
    assert!(seccomp::refuse_tracer(getpid()).is_ok());
    drop(says);
    assert_eq!(traced.read(&mut [0]).unwrap(), 0);
    let error = seccomp::refuse_tracer(child).unwrap_err();
    assert_eq!(error.to_string(), format!("process {} traces it", getpid()));
    kill(child, Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
}

pub(crate) fn user_that_root_becomes_cannot_go_back() {
    if !geteuid().is_root() {
        return skip("become_user", "not root");
    }
    run_well("become_user", || {
        let (uid, gid) = (Uid::from_raw(ORDINARY), Gid::from_raw(ORDINARY));
        seccomp::become_user(uid, gid).unwrap();
        assert!(nix::unistd::setuid(Uid::from_raw(0)).is_err());
        assert!(nix::unistd::setgid(Gid::from_raw(0)).is_err());
        assert_eq!(nix::sys::prctl::get_dumpable(), Ok(false));
        let status = fs::read_to_string("/proc/self/status");
        // Our own status file belongs to root while we are not dumpable, and is readable to all.
        let status = status.unwrap();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000")), "{set}");
        }
        // A user namespace made afterwards is whole, as COMMAND expects.
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).unwrap();
    });
}
