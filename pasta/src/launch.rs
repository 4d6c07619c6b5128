//! Start-up, as a sequence of steps.
//!
//! | step | result |
//! | --- | --- |
//! | [`Prepared::new`] | programs and host sockets opened, ports bound, user known |
//! | [`Prepared::start`] | both helpers started; we are that user; namespaces and process 1 created |
//! | [`Starting::connect`] | the datapath has the tap |
//! | [`Connected::confirm`] | both helpers confined and audited |
//! | [`Confirmed::release`] | COMMAND running, or the caller has its result; we are confined |
//!
//! Each step consumes the value of the previous one. The processes start concurrently, and every wait
//! handles all events: the end of a helper, the end of process 1 and signals. After a failure everything
//! that was started is killed.
//!
//! TERM, INT, HUP and QUIT end the start. USR1 writes what is being waited for, which may take as long as
//! `--bind-wait` allows, and requests the monitor's status; USR2 makes the monitor read again. Both
//! requests are sent only after `Start`; the monitor answers when it has started.

mod error;
mod progress;

use crate::background::{self, Caller};
use crate::bound_listeners::BoundListeners;
use crate::children::{Children, StartedHelpers};
use crate::control::{Control, ControlSocket, Served};
use crate::existing::OpenNamespace;
use crate::given_tap::GivenTap;
use crate::helpers::{self, Executables};
use crate::host::{self, RouteSockets};
use crate::identity::{self, Identity, Privilege, UserChange};
use crate::inherited::InheritedState;
use crate::log::{Helper, Log, emit};
use crate::namespace::{InitProcess, Namespaces};
use crate::options::{Options, PerFamily, SandboxReport, Strictness};
use crate::pid_file::{PidFile, open_regular};
use crate::report;
use crate::resolver::{Resolvers, WatchMode};
use crate::sys::{self, CallersDescriptors};
use crate::target::Target;
use crate::tun::Access;
use caps::CapSet;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, ftruncate, getpid};
use pasta::ports::Forwards;
use pasta_ipc::channel::Channel;
use pasta_ipc::message::{Hello, Isolation, IsolationRights};
use pasta_ipc::port_forward::{Direction, ForwardRule, ForwardTable, Watched};
use pasta_ipc::start::{Captured, HostSockets, TapUse, UserId};
use pasta_ipc::types::{Bounded, Generation, Service, Text};
use pasta_ipc::{
    DatapathToMonitor, DatapathToSupervisor, IsolationToSupervisor, MonitorToDatapath,
    MonitorToSupervisor, SupervisorToDatapath, SupervisorToIsolation, SupervisorToMonitor,
};
use seccomp::{Confined, Keep, Observed, Role, UserNamespace};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Opens and empties the capture file, for appending only. Without it there is a network all the same, so
/// an error is a warning.
fn open_capture(path: &Path, log: &mut Log) -> Option<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND;
    let opened = open_regular(path, flags).and_then(|file| {
        ftruncate(&file, 0)?;
        Ok(file)
    });
    let failed = |error: io::Error| {
        log.warn(&format!(
            "frames are not captured: cannot write {} (-p): {error}",
            path.display()
        ));
    };
    opened.map_err(failed).ok()
}

pub(crate) use error::LaunchError;
use error::system;
use progress::{MonitorPhase, Progress, Received, step};

/// How long COMMAND waits at most for listeners that follow from what the host listens on. Chosen: a look
/// at some thousands of sockets takes a few milliseconds, and a machine may be busy.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// What is missing where user namespaces are switched off and the host is followed.
const NO_USER_NAMESPACE: &str = "own user namespace: switched off, and the monitor keeps cap_net_admin (--follow off gives that up)";

/// Where the monitor's capability counts over the host's network too.
const HOST_PORTS_NOT_WATCHED: &str = "automatic rules of -T and -U are off: the namespace belongs to the same user \
     namespace as the host's network, where the process that would look for the host's ports could end \
     connections; name the ports, or give --follow off";

type Services = PerFamily<Service, Service>;

/// All that is read and opened before another process is started.
#[derive(Debug)]
pub(crate) struct Prepared {
    services: Services,
    identity: Option<Identity>,
    executables: Executables,
    null: OwnedFd,
    routes: RouteSockets,
    forwards: Forwards,
    listeners: BoundListeners,
    files: OpenFiles,
    /// The tap that the caller has made.
    given: Option<GivenTap>,
    /// The namespace to attach to.
    existing: Option<OpenNamespace>,
}

/// Files that are written when all is ready.
#[derive(Debug)]
struct OpenFiles {
    pid: Option<PidFile>,
    capture: Option<OwnedFd>,
    control: Option<ControlSocket>,
}

impl Prepared {
    /// Reads settings of the host and opens what needs the caller's rights.
    ///
    /// # Errors
    ///
    /// [`LaunchError`].
    pub(crate) fn new(
        options: &Options,
        tap: Option<OwnedFd>,
        log: &mut Log,
    ) -> Result<Self, LaunchError> {
        let (services, warnings) =
            options.services(host::kernel_families()).map_err(LaunchError::Options)?;
        for warning in options.warnings.iter().chain(&warnings) {
            log.warn(warning);
        }
        for warning in options.missing_sources(host::has_address) {
            log.warn(&warning);
        }
        let forwards = options
            .forwards(&services, host::port_system(&options.target))
            .map_err(LaunchError::Options)?;
        for remark in &forwards.remarks {
            log.warn(remark);
        }
        let privilege =
            identity::privilege(options.run_as.as_ref()).map_err(LaunchError::Identity)?;
        let identity = match privilege {
            Privilege::Ordinary => None,
            Privilege::Root(identity) => {
                if options.run_as.is_none() {
                    log.notice(&options.identity_notice(identity));
                }
                Some(identity)
            }
        };
        let pid = options.files.pid.as_deref().map(PidFile::open).transpose();
        let capture = options.files.capture.as_deref().and_then(|path| open_capture(path, log));
        let pid = pid.map_err(LaunchError::PidFile)?;
        let owner = identity.map(Identity::id);
        let owner = owner.map(|UserId { uid, gid }| (Uid::from_raw(uid), Gid::from_raw(gid)));
        let control = options.files.control.as_deref();
        let control = control.map(|path| ControlSocket::open(path, owner)).transpose();
        let files = OpenFiles { pid, capture, control: control.map_err(LaunchError::Control)? };
        let given = options.files.tap.filter(|_| options.tap() == TapUse::Given);
        let given = given.map(|number| GivenTap::new(number, tap)).transpose();
        let existing = match &options.target {
            Target::Command(_) => None,
            Target::Existing(existing) => {
                Some(OpenNamespace::open(existing).map_err(LaunchError::Open)?)
            }
        };
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| LaunchError::System("open /dev/null", errno.into()))?;
        Ok(Self {
            identity,
            executables: Executables::find().map_err(LaunchError::Find)?,
            null,
            routes: RouteSockets::open().map_err(system("watch the host's network"))?,
            listeners: BoundListeners::open(
                &forwards.inbound,
                services.ipv4,
                services.ipv6,
                options.free_bind(),
            )
            .map_err(LaunchError::Listen)?,
            services,
            forwards,
            files,
            given: given.map_err(LaunchError::GivenTap)?,
            existing,
        })
    }

    /// Starts the helpers, changes the user if started by root, and creates the namespaces.
    ///
    /// # Errors
    ///
    /// [`LaunchError`].
    pub(crate) fn start<'a>(
        self,
        options: &'a Options,
        inherited: &InheritedState,
        descriptors: CallersDescriptors,
        caller: Option<&Caller>,
        log: &'a mut Log,
    ) -> Result<Starting<'a>, LaunchError> {
        log.debug("programs and host sockets are open");
        // Entering the namespaces that exist takes capabilities, which a change of the user would cost
        // before the program is executed: the monitor changes it afterwards.
        let run_as = self.identity.filter(|_| self.existing.is_some()).map(Identity::id);
        let isolation_rights = match (self.identity, run_as) {
            (Some(identity), Some(id)) if !identity::may_create_user_namespace(identity) => {
                log.warn("user namespaces are switched off: the helpers use those of the host");
                IsolationRights::Root(id)
            }
            _ => IsolationRights::UserNamespace,
        };
        let mut children = self
            .start_helpers(options, isolation_rights)
            .and_then(|started| Children::new(started, options.log.level))
            .map_err(system("start the helpers"))?;
        let changed = caller
            .map_or(Ok(()), |caller| children.watch_caller(caller))
            .and_then(|()| self.identity.map_or(Ok(()), Identity::assume));
        let mut received = Received::default();
        let watched = changed.map_err(system("change the user")).and_then(|()| {
            match (&options.target, self.existing) {
                (Target::Existing(_), Some(OpenNamespace { user, net, watch })) => {
                    received.namespaces = Some(Namespaces { user, net });
                    children.watch_namespace(watch).map_err(system("watch the namespace"))
                }
                (Target::Command(command), _) => {
                    let change = self.identity.map_or(UserChange::None, Identity::change);
                    let first = InitProcess::create(command, inherited, &descriptors, change);
                    let first = first.map_err(LaunchError::Create)?;
                    descriptors.close().map_err(system("close descriptors"))?;
                    children
                        .watch_init(first)
                        .map_err(system("watch the first process of the namespace"))
                }
                // `Prepared::new` opens the namespace of such a target.
                (Target::Existing(_), None) => Err(LaunchError::NamespaceEnded),
            }
        });
        let starting = Starting {
            progress: Progress {
                children,
                log,
                received,
                waiting_for: "the namespace".into(),
                monitor: MonitorPhase::NotStarted,
            },
            options,
            services: self.services,
            routes: self.routes,
            forwards: self.forwards,
            listeners: self.listeners,
            files: self.files,
            given: self.given,
            run_as,
            datapath_user: match isolation_rights {
                IsolationRights::UserNamespace => UserNamespace::Other,
                IsolationRights::Root(_) => UserNamespace::Same,
            },
        };
        match watched {
            Ok(()) => Ok(starting),
            Err(error) => Err(starting.progress.give_up(error)),
        }
    }

    fn start_helpers(
        &self,
        options: &Options,
        isolation_rights: IsolationRights,
    ) -> io::Result<StartedHelpers> {
        let (monitor, to_monitor) = Channel::<SupervisorToMonitor, MonitorToSupervisor>::pair()?;
        let (datapath, to_datapath) =
            Channel::<SupervisorToDatapath, DatapathToSupervisor>::pair()?;
        let (publishing, listening) = Channel::<MonitorToDatapath, DatapathToMonitor>::pair()?;
        let (isolation, to_isolation) =
            Channel::<SupervisorToIsolation, IsolationToSupervisor>::pair()?;
        for end in [to_monitor.as_fd(), to_datapath.as_fd(), publishing.as_fd(), listening.as_fd()]
        {
            sys::take_a_name(end)?;
        }
        let how = Isolation { rights: isolation_rights, root: options.files.root };
        let instruction = SupervisorToIsolation::Isolate(how);
        isolation.send(&instruction).map_err(io::Error::other)?;
        let monitor_child = helpers::spawn(
            &helpers::Start {
                helper: Helper::Monitor,
                program: self.executables.monitor.as_fd(),
                null: self.null.as_fd(),
                descriptors: &[to_monitor.as_fd(), publishing.as_fd()],
                identity: self.identity.filter(|_| self.existing.is_none()),
                tun: self.identity.map_or(Access::Shared, Access::of),
            },
            |channel, why| {
                let channel = Channel::<MonitorToSupervisor, SupervisorToMonitor>::from(channel);
                let failed = MonitorToSupervisor::Failed(Text::truncated(why));
                // If this fails, the exit status is all that is left.
                let _ = channel
                    .send(&MonitorToSupervisor::Hello(Hello::OURS))
                    .and_then(|()| channel.send(&failed));
            },
        )?;
        let datapath_child = helpers::spawn(
            &helpers::Start {
                helper: Helper::Datapath,
                program: self.executables.datapath.as_fd(),
                null: self.null.as_fd(),
                descriptors: &[to_datapath.as_fd(), listening.as_fd(), to_isolation.as_fd()],
                identity: match isolation_rights {
                    IsolationRights::UserNamespace => self.identity,
                    // Its namespaces take root's rights.
                    IsolationRights::Root(_) => None,
                },
                tun: Access::Shared,
            },
            |channel, why| {
                let channel = Channel::<DatapathToSupervisor, SupervisorToDatapath>::from(channel);
                let failed = DatapathToSupervisor::Failed(Text::truncated(why));
                // As above.
                let _ = channel
                    .send(&DatapathToSupervisor::Hello(Hello::OURS))
                    .and_then(|()| channel.send(&failed));
            },
        )?;
        Ok(StartedHelpers {
            monitor: (monitor_child, monitor),
            datapath: (datapath_child, datapath),
            isolation,
        })
    }
}

/// All processes are started; none has received `Start`.
#[derive(Debug)]
pub(crate) struct Starting<'a> {
    progress: Progress<'a>,
    options: &'a Options,
    services: Services,
    routes: RouteSockets,
    forwards: Forwards,
    listeners: BoundListeners,
    files: OpenFiles,
    given: Option<GivenTap>,
    /// The user that the monitor is to become.
    run_as: Option<UserId>,
    /// Whether the datapath has another user namespace than ours.
    datapath_user: UserNamespace,
}

impl<'a> Starting<'a> {
    /// Sends the namespaces to the monitor, and the tap that it makes to the datapath.
    ///
    /// # Errors
    ///
    /// [`LaunchError`]; everything that was started has been killed.
    pub(crate) fn connect(self) -> Result<Connected<'a>, LaunchError> {
        let Self {
            progress,
            options,
            services,
            routes,
            forwards,
            listeners,
            files,
            given,
            run_as,
            datapath_user,
        } = self;
        let keep = Keep {
            net_admin: options.changes_namespace(),
            net_bind_service: seccomp::ports::name_low_port(&forwards.outbound),
            capture: files.capture.is_some(),
        };
        let (progress, (resolvers, monitor_user)) = step(progress, |progress| {
            let mode = if options.follows() { WatchMode::On } else { WatchMode::Off };
            let mut resolvers = Resolvers::open(mode);
            let namespaces = progress.wait_for(|received, _| received.namespaces.take())?;
            let monitor_user = match namespaces.user_is_ours() {
                true => UserNamespace::Same,
                false => UserNamespace::Other,
            };
            let given_info = given.as_ref().map(|it| &it.info);
            let mut start = options.monitor_start(&services, &forwards, run_as, given_info);
            if start.ports.looks_at_host() && keep.net_admin && namespaces.governs_our_network() {
                // Whoever may list sockets can then end them too: the kernel looks at the capability of
                // who asks, not of who has opened the socket.
                progress.log.notice(HOST_PORTS_NOT_WATCHED);
                start.ports.host = HostSockets::OutOfReach;
                progress.received.host_sockets = HostSockets::OutOfReach;
                start.ports.watch.host = Watched::No;
            }
            progress.received.ports_open = start.ports.watch.host == Watched::No;
            let ports = start.ports.looks_at_host().then(host::open_port_socket).transpose();
            let ports = ports.map_err(system("watch the host's ports"))?;
            let start = SupervisorToMonitor::Start(Box::new(start));
            progress.wait_until_hardened(Helper::Monitor)?;
            let fds = [&namespaces.user, &namespaces.net, &routes.events, &routes.dumps];
            let mut fds = fds.map(AsFd::as_fd).to_vec();
            fds.extend(ports.as_ref().map(AsFd::as_fd));
            progress
                .children
                .start_monitor(&start, &fds)
                .map_err(|error| LaunchError::Send(Helper::Monitor, error))?;
            progress.monitor = MonitorPhase::Started;
            progress.log.debug("namespaces created");
            progress.waiting_for = "the interface in the namespace".into();

            progress.wait_until_hardened(Helper::Datapath)?;
            let to_datapath = |error| LaunchError::Send(Helper::Datapath, error);
            let list = resolvers.snapshot();
            if list.servers.as_slice().is_empty() {
                progress.log.warn("Couldn't get any nameserver address");
            }
            let list = SupervisorToDatapath::Resolvers(list);
            progress.children.send_to_datapath(&list).map_err(to_datapath)?;

            // Before the rules that need them.
            progress.children.send_listeners(&listeners).map_err(to_datapath)?;
            // From here on only the datapath holds them.
            drop(listeners);
            for table in
                [(Direction::Inbound, &forwards.inbound), (Direction::Outbound, &forwards.outbound)]
            {
                let table = forward_table(table);
                progress.children.send_to_datapath(&table).map_err(to_datapath)?;
            }

            let tap = match options.tap() {
                TapUse::Make => Some(progress.wait_for(|received, _| received.tap.take())?),
                TapUse::Given => given.map(|GivenTap { tap, info }| (info, tap)),
                TapUse::None => None,
            };
            let (info, tap) = tap.unzip();
            if let Some(info) = &info {
                progress.log.debug(&format!("tap {} made", info.name));
            }
            let capture = if files.capture.is_some() { Captured::Yes } else { Captured::No };
            let start = options.datapath_start(
                &services,
                info,
                capture,
                host::port_system(&options.target).ephemeral,
            );
            let start = SupervisorToDatapath::Start(Box::new(start));
            let fds: Vec<_> = tap.iter().chain(&files.capture).map(AsFd::as_fd).collect();
            progress.children.start_datapath(&start, &fds).map_err(to_datapath)?;
            Ok((resolvers, monitor_user))
        })?;
        Ok(Connected {
            progress,
            options,
            services,
            forwards,
            resolvers,
            keep,
            monitor_user,
            datapath_user,
            files,
        })
    }
}

/// The first `Forwards` message of one direction.
fn forward_table((direction, rules): (Direction, &Vec<ForwardRule>)) -> SupervisorToDatapath {
    // They fit: `ports::build_rules` limits their number.
    let (rules, _) = Bounded::truncated(rules.iter().cloned());
    let generation = Generation::default().next();
    SupervisorToDatapath::Forwards(Box::new(ForwardTable { generation, direction, rules }))
}

/// Both helpers have received `Start`.
#[derive(Debug)]
pub(crate) struct Connected<'a> {
    progress: Progress<'a>,
    options: &'a Options,
    services: Services,
    forwards: Forwards,
    resolvers: Resolvers,
    /// What the helpers keep.
    keep: Keep,
    /// Whether the monitor has entered another user namespace than ours.
    monitor_user: UserNamespace,
    /// Whether the datapath has another one.
    datapath_user: UserNamespace,
    files: OpenFiles,
}

impl<'a> Connected<'a> {
    /// Waits until both helpers report that they are confined, and audits them from outside.
    ///
    /// # Errors
    ///
    /// As [`Starting::connect`].
    pub(crate) fn confirm(self) -> Result<Confirmed<'a>, LaunchError> {
        let Self {
            progress,
            options,
            services,
            forwards,
            resolvers,
            keep,
            monitor_user,
            datapath_user,
            files,
        } = self;
        let (progress, lacking) = step(progress, |progress| {
            progress.waiting_for = match options.bind_wait() {
                Some(limit) => format!("a network, {limit} ms at most (--bind-wait)"),
                None => "the helpers".into(),
            };
            let (monitor, datapath) = progress.wait_for(|received, children| {
                let monitor = (children.pid(Helper::Monitor)?, received.monitor.as_ref()?.clone());
                let datapath =
                    (children.pid(Helper::Datapath)?, received.datapath.as_ref()?.clone());
                Some((monitor, datapath))
            })?;
            progress.log.debug("helpers are confined");
            let files = std::mem::take(&mut progress.received.status_files);
            for (helper, role, file, user, (pid, report)) in [
                (Helper::Monitor, Role::Monitor, &files.monitor, monitor_user, &monitor),
                (Helper::Datapath, Role::Datapath, &files.datapath, datapath_user, &datapath),
            ] {
                if options.reports.sandbox == SandboxReport::Print {
                    emit(&report::table(helper.name(), *pid, report));
                }
                for missing in report.missing.as_slice() {
                    progress.log.debug(&format!("{}: without {missing}", helper.name()));
                }
                let process = Observed { pid: *pid, status: file.as_ref().map(AsFd::as_fd) };
                let unconfirmed = seccomp::audit_from_outside(process, role, keep, user, report)
                    .map_err(|error| LaunchError::Audit(helper, error))?;
                for fact in unconfirmed {
                    let line = format!("{}: not confirmed from outside: {fact}", helper.name());
                    progress.log.debug(&line);
                    if options.reports.sandbox == SandboxReport::Print {
                        emit(&(line + "\n"));
                    }
                }
            }
            let of_start = match (datapath_user, keep.net_admin) {
                // The capability counts on the machine then, and the descriptors alone hold it back.
                (UserNamespace::Same, true) => Some(NO_USER_NAMESPACE.to_owned()),
                _ => None,
            };
            let lacking = report::Lacking::of(&[&monitor.1, &datapath.1], of_start);
            match (lacking.text(options.reports.strictness), options.reports.strictness) {
                (Some(text), Strictness::Refuse(_)) => return Err(LaunchError::Incomplete(text)),
                (Some(text), Strictness::Warn) => progress.log.warn(&text),
                (None, _) => {}
            }
            Ok(lacking)
        })?;
        if options.reports.sandbox == SandboxReport::Print {
            let reach = Some(progress.received.host_sockets);
            emit(&report::exposure(&options.exposure(&services, &forwards, reach)));
        }
        let served = Served {
            ipv4: services.ipv4,
            ipv6: services.ipv6,
            protocols: options.protocols(),
            to_host: options.ports_to_host(),
            host_sockets: progress.received.host_sockets,
            system: host::port_system(&options.target),
        };
        Ok(Confirmed { progress, options, served, forwards, resolvers, files, lacking })
    }
}

/// Everything but COMMAND is started and confined.
#[derive(Debug)]
pub(crate) struct Confirmed<'a> {
    progress: Progress<'a>,
    options: &'a Options,
    served: Served,
    forwards: Forwards,
    resolvers: Resolvers,
    files: OpenFiles,
    /// What the helpers lack, which is said.
    lacking: report::Lacking,
}

impl<'a> Confirmed<'a> {
    /// Confines the supervisor, and then releases COMMAND or tells `caller` that all is ready.
    ///
    /// # Errors
    ///
    /// As [`Starting::connect`].
    pub(crate) fn release(self, caller: Option<&Caller>) -> Result<Released<'a>, LaunchError> {
        let Self { progress, options, served, forwards, resolvers, files, lacking } = self;
        let (progress, (confined, control)) = step(progress, |progress| {
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                caps::clear(None, set).map_err(|error| {
                    LaunchError::System("give up capabilities", io::Error::other(error))
                })?;
            }
            progress.log.debug("helpers have passed the audit");
            if let Some(fd) = resolvers.as_fd() {
                let watched = progress.children.watch_resolvers(fd);
                watched.map_err(system("watch resolv.conf"))?;
            }
            if let Some(notice) = options.notice() {
                progress.log.notice_at_terminal(notice);
            }
            let pid = getpid();
            let target = options.target.to_string();
            let pid_of = |helper| progress.children.pid(helper).map(|pid| pid.as_raw());
            let pids = (pid_of(Helper::Monitor), pid_of(Helper::Datapath));
            let control = files.control.map(|it| Control::new(it, served, forwards, &target, pids));
            let control = control.transpose().map_err(system("serve the control socket"))?;
            if let Some(control) = &control {
                let watched = progress.children.watch_control(control.as_fd());
                watched.map_err(system("serve the control socket"))?;
            }
            let readable = resolvers.readable();
            let readable: Vec<_> = readable.iter().map(AsFd::as_fd).collect();
            let removable = control.as_ref().map(Control::directory);
            if caller.is_some() {
                // From here on errors go to the caller's process, which prints them.
                progress.log.leave_standard_error();
                background::leave_caller().map_err(system("leave what is the caller's"))?;
            }
            let (confined, own) = seccomp::confine_supervisor(Vec::new(), &readable, removable)
                .map_err(LaunchError::Confine)?;
            if options.reports.sandbox == SandboxReport::Print && caller.is_none() {
                emit(&report::table("pasta", pid, &own));
            }
            let lacking = report::Lacking::of(&[&own], None).without(&lacking);
            match (lacking.text(options.reports.strictness), options.reports.strictness) {
                (Some(text), Strictness::Refuse(_)) => return Err(LaunchError::Incomplete(text)),
                (Some(text), Strictness::Warn) => progress.log.warn(&text),
                (None, _) => {}
            }
            progress.waiting_for = "the first look at the host's ports".into();
            progress.wait_for_ports(FIRST_LOOK)?;
            if let Some(file) = files.pid {
                file.write(pid).map_err(LaunchError::PidFile)?;
            }
            match options.target {
                Target::Command(_) => {
                    progress.log.debug("supervisor is confined, the command starts");
                    progress.children.release().map_err(system("release the command"))?;
                }
                Target::Existing(_) => progress.log.debug("supervisor is confined, all is ready"),
            }
            if let Some(caller) = caller {
                let children = &progress.children;
                children.forget_caller(caller).map_err(system("watch the helpers only"))?;
                caller.ready().map_err(|_| LaunchError::CallerGone)?;
            }
            Ok((confined, control))
        })?;
        let Progress { children, log, .. } = progress;
        Ok(Released { confined, children, resolvers, control, log })
    }
}

/// All is ready; what supervision needs.
#[derive(Debug)]
pub(crate) struct Released<'a> {
    pub(crate) confined: Confined,
    pub(crate) children: Children,
    pub(crate) resolvers: Resolvers,
    pub(crate) control: Option<Control>,
    pub(crate) log: &'a mut Log,
}
