//! Start-up, as a sequence of steps.
//!
//! | step | then there are |
//! | --- | --- |
//! | [`Prepared::new`] | programs opened, host sockets opened, user to become known |
//! | [`Prepared::start`] | both helpers, starting; we are that user; namespaces and process 1 |
//! | [`Starting::connect`] | a tap, in the hands of the datapath |
//! | [`Connected::confirm`] | both helpers confined, and found so |
//! | [`Confirmed::release`] | COMMAND, running; we are confined |
//!
//! Each step takes the value of the one before. Three programs start at the same time, and whatever
//! is waited for is waited for together: a helper that ends, a process 1 that ends and a signal are
//! noticed in every step. What fails takes everything down again.
//!
//! Of the signals, TERM, INT, HUP and QUIT end the start. USR1 has written what is waited for, which
//! may take as long as `--bind-wait` says, and how things stand as the monitor sees them; USR2 has it
//! look again. It is asked once it has been told to start, and answers when it has.

use crate::caller::Caller;
use crate::children::{Children, Event, Started};
use crate::helpers::{self, Executables, FindError};
use crate::host::{self, RouteSockets};
use crate::identity::{self, Identity, IdentityError, Standing};
use crate::listeners::{ListenError, Listeners};
use crate::log::{Helper, Log, emit};
use crate::namespace::{CreateError, FirstProcess, Namespaces, Word};
use crate::options::{InvalidOptions, KernelHas, Options, PerFamily, SandboxReport};
use crate::report;
use crate::resolver::{Following, Resolvers};
use crate::signals::Arrived;
use crate::status::Ending;
use crate::tun::Access;
use caps::CapSet;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{getpid, pipe2};
use pasta::ports::Forwards;
use pasta_ipc::channel::{Channel, SendError};
use pasta_ipc::forward::{Direction, ForwardRule, ForwardTable, Watched};
use pasta_ipc::message::Hello;
use pasta_ipc::types::{AuditReport, Bounded, Generation, Service, TapInfo, TapUse, Text};
use pasta_ipc::{
    DatapathToMonitor, DatapathToSupervisor, MonitorToDatapath, MonitorToSupervisor,
    SupervisorToDatapath, SupervisorToMonitor,
};
use seccomp::{AuditError, ConfineError, Confined, Keep, Role};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Why COMMAND could not be started.
#[derive(Debug)]
pub(crate) enum LaunchError {
    /// What was asked for is not to be had here.
    Options(InvalidOptions),
    /// It is not clear whom to become.
    Identity(IdentityError),
    /// A forwarded port cannot be listened on.
    Listen(ListenError),
    /// A helper's program is missing.
    Find(FindError),
    /// A system call failed; the text says what for.
    System(&'static str, io::Error),
    /// The namespaces could not be created.
    Create(CreateError),
    /// Process 1 or a helper says why it ended.
    Told(String),
    /// Process 1 ended without saying why.
    FirstEnded(Ending),
    /// A helper ended without saying why.
    HelperEnded(Helper, Ending),
    /// A helper broke the protocol.
    Violation(Helper, String),
    /// A helper could not be told something.
    Send(Helper, SendError),
    /// A helper is not confined as it should be.
    Audit(Helper, AuditError),
    /// We could not be confined ourselves.
    Confine(ConfineError),
    /// A signal ended it.
    Interrupted(Signal),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(error) => write!(f, "{error}"),
            Self::Identity(error) => write!(f, "{error}"),
            Self::Listen(error) => write!(f, "{error}"),
            Self::Find(error) => write!(f, "{error}"),
            Self::System(what, _) => write!(f, "cannot {what}"),
            Self::Create(error) => write!(f, "{error}"),
            Self::Told(why) => f.write_str(why),
            Self::FirstEnded(ending) => {
                write!(f, "first process of the namespace {ending} before it was ready")
            }
            Self::HelperEnded(helper, ending) => {
                write!(f, "{} {ending} before it was ready", helper.name())
            }
            Self::Violation(helper, why) => write!(f, "{}: {why}", helper.name()),
            Self::Send(helper, _) => write!(f, "cannot talk to {}", helper.name()),
            Self::Audit(helper, _) => write!(f, "{} is not confined", helper.name()),
            Self::Confine(_) => f.write_str("cannot confine the supervisor"),
            Self::Interrupted(signal) => write!(f, "interrupted by {signal}"),
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // These show their own text; what caused them is next.
            Self::Identity(error) => error.source(),
            Self::Find(error) => error.source(),
            Self::Create(error) => error.source(),
            Self::System(_, error) => Some(error),
            Self::Send(_, error) => Some(error),
            Self::Audit(_, error) => Some(error),
            Self::Confine(error) => Some(error),
            _ => None,
        }
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> LaunchError {
    move |error| LaunchError::System(what, error)
}

type Services = PerFamily<Service, Service>;

/// All that can be known and opened before there is another process.
#[derive(Debug)]
pub(crate) struct Prepared {
    services: Services,
    identity: Option<Identity>,
    executables: Executables,
    null: OwnedFd,
    routes: RouteSockets,
    forwards: Forwards,
    listeners: Listeners,
}

impl Prepared {
    /// Looks around and opens what has to be opened with the caller's rights.
    ///
    /// # Errors
    ///
    /// [`LaunchError`].
    pub(crate) fn new(options: &Options, log: &mut Log) -> Result<Self, LaunchError> {
        let (services, warnings) =
            options.services(KernelHas::probe()).map_err(LaunchError::Options)?;
        for warning in options.warnings.iter().chain(&warnings) {
            log.warn(warning);
        }
        let forwards =
            options.forwards(&services, host::port_system()).map_err(LaunchError::Options)?;
        for remark in &forwards.remarks {
            log.warn(remark);
        }
        let standing =
            identity::standing(options.run_as.as_ref()).map_err(LaunchError::Identity)?;
        let identity = match standing {
            Standing::Ordinary => None,
            Standing::Root(identity) => Some(identity),
        };
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| LaunchError::System("open /dev/null", errno.into()))?;
        Ok(Self {
            identity,
            executables: Executables::find().map_err(LaunchError::Find)?,
            null,
            routes: RouteSockets::open().map_err(system("watch the host's network"))?,
            listeners: Listeners::open(&forwards.inbound, services.ipv4, services.ipv6)
                .map_err(LaunchError::Listen)?,
            services,
            forwards,
        })
    }

    /// Starts the helpers, becomes the user whom root shall be, and creates the namespaces.
    ///
    /// # Errors
    ///
    /// [`LaunchError`].
    pub(crate) fn start<'a>(
        self,
        options: &'a Options,
        caller: &Caller,
        log: &'a mut Log,
    ) -> Result<Starting<'a>, LaunchError> {
        log.debug("programs and host sockets are open");
        let mut children =
            self.start_helpers().and_then(Children::new).map_err(system("start the helpers"))?;
        let created = match self.identity.map(Identity::assume) {
            Some(Err(error)) => Err(LaunchError::System("change the user", error)),
            Some(Ok(())) | None => {
                FirstProcess::create(&options.program, caller).map_err(LaunchError::Create)
            }
        };
        let adopted = created.and_then(|first| {
            children.adopt(first).map_err(system("watch the first process of the namespace"))
        });
        let starting = Starting {
            progress: Progress {
                children,
                log,
                seen: Seen::default(),
                awaited: "the namespace".into(),
                monitor: Told::Nothing,
            },
            options,
            services: self.services,
            routes: self.routes,
            forwards: self.forwards,
            listeners: self.listeners,
        };
        match adopted {
            Ok(()) => Ok(starting),
            Err(error) => Err(starting.progress.give_up(error)),
        }
    }

    fn start_helpers(&self) -> io::Result<Started> {
        let (monitor, to_monitor) = Channel::<SupervisorToMonitor, MonitorToSupervisor>::pair()?;
        let (datapath, to_datapath) =
            Channel::<SupervisorToDatapath, DatapathToSupervisor>::pair()?;
        let (publishing, listening) = Channel::<MonitorToDatapath, DatapathToMonitor>::pair()?;
        let (pid_out, pid_in) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let monitor_child = helpers::spawn(
            &helpers::Start {
                helper: Helper::Monitor,
                program: self.executables.monitor.as_fd(),
                null: self.null.as_fd(),
                descriptors: &[to_monitor.as_fd(), publishing.as_fd()],
                identity: self.identity,
                tun: self.identity.map_or(Access::Shared, Access::of),
            },
            |channel, why| {
                let channel = Channel::<MonitorToSupervisor, SupervisorToMonitor>::from(channel);
                let failed = MonitorToSupervisor::Failed(Text::truncated(why));
                // If it cannot be said, the status says something.
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
                descriptors: &[to_datapath.as_fd(), listening.as_fd(), pid_in.as_fd()],
                identity: self.identity,
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
        Ok(Started {
            monitor: (monitor_child, monitor),
            datapath: (datapath_child, datapath),
            datapath_pid: pid_out,
        })
    }
}

/// What has been heard so far that a later step waits for.
#[derive(Debug, Default)]
struct Seen {
    namespaces: Option<Namespaces>,
    tap: Option<(TapInfo, OwnedFd)>,
    monitor: Option<AuditReport>,
    datapath: Option<AuditReport>,
}

/// The children, and what they have said.
#[derive(Debug)]
struct Progress<'a> {
    children: Children,
    log: &'a mut Log,
    seen: Seen,
    /// What is waited for, in words.
    awaited: String,
    monitor: Told,
}

/// What the monitor has been told, and so whether it may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Start,
}

impl Progress<'_> {
    /// Waits until `wanted` finds what it wants.
    fn wait_for<T>(
        &mut self,
        mut wanted: impl FnMut(&mut Seen, &Children) -> Option<T>,
    ) -> Result<T, LaunchError> {
        loop {
            if let Some(found) = wanted(&mut self.seen, &self.children) {
                return Ok(found);
            }
            for event in self.children.next(None).map_err(system("wait for the helpers"))? {
                self.take(event)?;
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<(), LaunchError> {
        match event {
            Event::Signal(Arrived { signal: Some(Signal::SIGUSR1), .. }) => {
                self.log.status(&format!("starting: waiting for {}", self.awaited));
                if self.monitor == Told::Start && self.children.ask_for_status().is_err() {
                    self.log.status("monitor cannot be asked");
                }
            }
            Event::Signal(Arrived { signal: Some(Signal::SIGUSR2), .. }) => {
                if self.monitor == Told::Start && self.children.ask_for_look().is_err() {
                    self.log.warn("monitor cannot be asked to look again");
                }
            }
            // Nobody else can act on it yet, whoever sent it.
            Event::Signal(arrived) => match arrived.for_command() {
                Some(signal) => return Err(LaunchError::Interrupted(signal)),
                None => return Ok(()),
            },
            Event::First(Word::Warning(text)) => self.log.warn(&text),
            Event::First(Word::Failed(why)) => return Err(LaunchError::Told(why)),
            Event::First(Word::Ready(namespaces)) => self.seen.namespaces = Some(namespaces),
            Event::FirstEnded(ending) => return Err(LaunchError::FirstEnded(ending)),
            Event::Monitor(message, fds) => match message {
                MonitorToSupervisor::Hello(_) => {}
                MonitorToSupervisor::TapReady(info) => {
                    self.seen.tap = fds.into_iter().next().map(|tap| (info, tap));
                }
                MonitorToSupervisor::Ready(report) => self.seen.monitor = Some(*report),
                MonitorToSupervisor::Log(record) => self.log.relay(Helper::Monitor, &record),
                MonitorToSupervisor::Status(lines) => {
                    lines.as_slice().iter().for_each(|line| self.log.status(line.as_str()));
                }
                MonitorToSupervisor::Failed(why) => {
                    return Err(LaunchError::Told(why.to_string()));
                }
            },
            Event::Datapath(message) => match message {
                DatapathToSupervisor::Hello(_) => {}
                DatapathToSupervisor::Ready(report) => self.seen.datapath = Some(*report),
                DatapathToSupervisor::Log(record) => self.log.relay(Helper::Datapath, &record),
                DatapathToSupervisor::Failed(why) => {
                    return Err(LaunchError::Told(why.to_string()));
                }
            },
            Event::Violation(helper, why) => return Err(LaunchError::Violation(helper, why)),
            Event::HelperEnded(helper, ending) => {
                return Err(LaunchError::HelperEnded(helper, ending));
            }
        }
        Ok(())
    }

    /// Ends all that was started; the error is handed back.
    fn give_up(self, error: LaunchError) -> LaunchError {
        self.children.tear_down();
        error
    }
}

/// Runs one step; what fails takes everything down.
fn step<'a, T>(
    mut progress: Progress<'a>,
    work: impl FnOnce(&mut Progress<'a>) -> Result<T, LaunchError>,
) -> Result<(Progress<'a>, T), LaunchError> {
    match work(&mut progress) {
        Ok(done) => Ok((progress, done)),
        Err(error) => Err(progress.give_up(error)),
    }
}

/// All processes are there; none of them has been told what to do.
#[derive(Debug)]
pub(crate) struct Starting<'a> {
    progress: Progress<'a>,
    options: &'a Options,
    services: Services,
    routes: RouteSockets,
    forwards: Forwards,
    listeners: Listeners,
}

impl<'a> Starting<'a> {
    /// Lets the monitor into the namespace and hands the tap that it makes to the datapath.
    ///
    /// # Errors
    ///
    /// [`LaunchError`]; nothing is left of what was started.
    pub(crate) fn connect(self) -> Result<Connected<'a>, LaunchError> {
        let Self { progress, options, services, routes, forwards, listeners } = self;
        let keep = Keep {
            net_admin: options.changes_namespace(),
            net_bind_service: seccomp::ports::name_low_port(&forwards.outbound),
        };
        let (progress, resolvers) = step(progress, |progress| {
            let ports = match forwards.watched().host {
                Watched::Yes => {
                    Some(host::open_port_socket().map_err(system("watch the host's ports"))?)
                }
                Watched::No => None,
            };
            let following = if options.follows() { Following::On } else { Following::Off };
            let mut resolvers = Resolvers::open(following);
            let namespaces = progress.wait_for(|seen, _| seen.namespaces.take())?;
            let start =
                SupervisorToMonitor::Start(Box::new(options.monitor_start(&services, &forwards)));
            let fds = [&namespaces.user, &namespaces.net, &routes.events, &routes.dumps];
            let mut fds = fds.map(AsFd::as_fd).to_vec();
            fds.extend(ports.as_ref().map(AsFd::as_fd));
            progress
                .children
                .start_monitor(&start, &fds)
                .map_err(|error| LaunchError::Send(Helper::Monitor, error))?;
            progress.monitor = Told::Start;
            progress.log.debug("namespaces created");
            progress.awaited = "the interface in the namespace".into();

            let to_datapath = |error| LaunchError::Send(Helper::Datapath, error);
            let list = resolvers.snapshot();
            if list.servers.as_slice().is_empty() {
                progress.log.warn("Couldn't get any nameserver address");
            }
            let list = SupervisorToDatapath::Resolvers(list);
            progress.children.tell_datapath(&list).map_err(to_datapath)?;

            // Before the rules that want them.
            progress.children.hand_over(&listeners).map_err(to_datapath)?;
            // They close when the datapath closes them, once nobody else holds them.
            drop(listeners);
            for table in
                [(Direction::Inbound, &forwards.inbound), (Direction::Outbound, &forwards.outbound)]
            {
                let table = forward_table(table);
                progress.children.tell_datapath(&table).map_err(to_datapath)?;
            }

            let tap = match options.tap() {
                TapUse::Make => Some(progress.wait_for(|seen, _| seen.tap.take())?),
                TapUse::None => None,
            };
            let (info, tap) = tap.unzip();
            if let Some(info) = &info {
                progress.log.debug(&format!("tap {} made", info.name));
            }
            let start = options.datapath_start(&services, info);
            let start = SupervisorToDatapath::Start(Box::new(start));
            let fds: Vec<_> = tap.iter().map(AsFd::as_fd).collect();
            progress.children.start_datapath(&start, &fds).map_err(to_datapath)?;
            Ok(resolvers)
        })?;
        Ok(Connected { progress, options, services, resolvers, keep })
    }
}

/// The rules of one direction, as the datapath is told them first.
fn forward_table((direction, rules): (Direction, &Vec<ForwardRule>)) -> SupervisorToDatapath {
    // There are no more than fit: `ports::add_up` has seen to that.
    let (rules, _) = Bounded::truncated(rules.iter().cloned());
    let generation = Generation::default().next();
    SupervisorToDatapath::Forwards(Box::new(ForwardTable { generation, direction, rules }))
}

/// The helpers have all they need.
#[derive(Debug)]
pub(crate) struct Connected<'a> {
    progress: Progress<'a>,
    options: &'a Options,
    services: Services,
    resolvers: Resolvers,
    /// What the monitor keeps.
    keep: Keep,
}

impl<'a> Connected<'a> {
    /// Waits until both helpers are confined, and looks from outside whether they are.
    ///
    /// # Errors
    ///
    /// As [`Starting::connect`].
    pub(crate) fn confirm(self) -> Result<Confirmed<'a>, LaunchError> {
        let Self { progress, options, services, resolvers, keep } = self;
        let (progress, ()) = step(progress, |progress| {
            progress.awaited = match options.bind_wait() {
                Some(limit) => format!("a network, {limit} ms at most (--bind-wait)"),
                None => "the helpers".into(),
            };
            let (monitor, datapath) = progress.wait_for(|seen, children| {
                let monitor = (children.pid(Helper::Monitor)?, seen.monitor.as_ref()?.clone());
                let datapath = (children.pid(Helper::Datapath)?, seen.datapath.as_ref()?.clone());
                Some((monitor, datapath))
            })?;
            progress.log.debug("helpers are confined");
            for (helper, role, keep, (pid, report)) in [
                (Helper::Monitor, Role::Monitor, keep, &monitor),
                (Helper::Datapath, Role::Datapath, Keep::NOTHING, &datapath),
            ] {
                if options.sandbox_report == SandboxReport::Print {
                    emit(&report::table(helper.name(), *pid, report));
                }
                for missing in report.missing.as_slice() {
                    progress.log.debug(&format!("{}: without {missing}", helper.name()));
                }
                seccomp::audit_from_outside(*pid, role, keep, report)
                    .map_err(|error| LaunchError::Audit(helper, error))?;
            }
            if let Some(text) = report::missing(&[&monitor.1, &datapath.1]) {
                progress.log.warn(&text);
            }
            Ok(())
        })?;
        if options.sandbox_report == SandboxReport::Print {
            emit(&report::exposure(&options.exposure(&services)));
        }
        Ok(Confirmed { progress, resolvers, report: options.sandbox_report })
    }
}

/// All is as it should be but for COMMAND.
#[derive(Debug)]
pub(crate) struct Confirmed<'a> {
    progress: Progress<'a>,
    resolvers: Resolvers,
    report: SandboxReport,
}

impl<'a> Confirmed<'a> {
    /// Gives up all that supervising does not need, and lets COMMAND start.
    ///
    /// # Errors
    ///
    /// As [`Starting::connect`].
    pub(crate) fn release(self) -> Result<Released<'a>, LaunchError> {
        let Self { progress, resolvers, report } = self;
        let (progress, confined) = step(progress, |progress| {
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                caps::clear(None, set).map_err(|error| {
                    LaunchError::System("give up capabilities", io::Error::other(error))
                })?;
            }
            progress.log.debug("helpers are found confined");
            if let Some(fd) = resolvers.as_fd() {
                let watched = progress.children.watch_resolvers(fd);
                watched.map_err(system("watch resolv.conf"))?;
            }
            let pid = getpid();
            let readable = resolvers.readable();
            let readable: Vec<_> = readable.iter().map(AsFd::as_fd).collect();
            let (confined, own) =
                seccomp::confine_supervisor(Vec::new(), &readable).map_err(LaunchError::Confine)?;
            if report == SandboxReport::Print {
                emit(&report::table("pasta", pid, &own));
            }
            progress.log.debug("supervisor is confined, the command starts");
            let released = progress.children.release();
            released.map_err(system("release the command")).map(|()| confined)
        })?;
        Ok(Released { confined, children: progress.children, resolvers, log: progress.log })
    }
}

/// COMMAND is running; what supervising takes.
#[derive(Debug)]
pub(crate) struct Released<'a> {
    pub(crate) confined: Confined,
    pub(crate) children: Children,
    pub(crate) resolvers: Resolvers,
    pub(crate) log: &'a mut Log,
}
