//! From the first message to the last: start-up as a sequence of steps, then serving.
//!
//! Each step gives up something or uses what the next one gives up, so the order is fixed: enter the
//! namespace, open what needs a path or a privilege, empty the root, read the host, make the tap and
//! hand it over, configure the namespace, drop every other privilege, and only then wait for messages.

use crate::run::clock::{Clock, ClockChanges};
use crate::run::follow::{Follower, Subscriptions};
use crate::run::ports::Watcher;
use crate::run::socket_server::SocketServer;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{fstat, stat};
use nix::unistd::{Gid, Uid};
use pasta_ipc::channel::Channel;
use pasta_ipc::message::{Hello, Message};
use pasta_ipc::port_forward::{NamespaceForwards, PortSide};
use pasta_ipc::rate::TokenBucket;
use pasta_ipc::start::{Configure, MonitorStart, Rename, RuleChanges, TapUse, UserId};
use pasta_ipc::status::MonitorStatus;
use pasta_ipc::types::{Bounded, Family, Generation, IfName, MacAddr, Text};
use pasta_ipc::{
    DatapathToMonitor, MonitorToDatapath, MonitorToSupervisor, ReceiveError, SendError,
    SupervisorToMonitor,
};
use pasta_monitor::apply::Namespace;
use pasta_monitor::bind::Binding;
use pasta_monitor::desired::{Desired, tap_name};
use pasta_monitor::filter;
use pasta_monitor::host::HostView;
use pasta_monitor::log::Log;
use pasta_monitor::netlink::{self, Netlink};
use pasta_monitor::peer::{DatapathPhase, SupervisorPhase, ToDatapath, ToSupervisor};
use pasta_monitor::policy::Policy;
use pasta_monitor::reduce::{Readiness, State};
use pasta_monitor::tap::TunDevice;
use pasta_monitor::watch::{self, Events};
use pasta_monitor::{read, sys};
use seccomp::ports::{BindPorts, Ports};
use seccomp::{Confined, Confinement, Keep, Role};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

mod clock;
mod error;
mod explain;
mod follow;
mod ports;
mod publisher;
mod socket_server;

pub(crate) use error::RunError;

/// What the supervisor gave us to start with.
struct Start {
    what: Box<MonitorStart>,
    user_namespace: OwnedFd,
    net_namespace: OwnedFd,
    host_events: OwnedFd,
    host_dumps: OwnedFd,
    host_sockets: Option<OwnedFd>,
}

/// What the supervisor asks for at the start.
enum Request {
    /// To configure and follow a namespace.
    Start(Start),
    /// To say what that would come to; with the socket for dumps of the host.
    Explain(Box<MonitorStart>, OwnedFd),
}

/// Runs until the supervisor asks us to end, or is gone.
pub(crate) fn run(
    supervisor: &ToSupervisor,
    datapath: ToDatapath,
    log: &Log,
) -> Result<(), RunError> {
    // A peer that is gone shows when we wait for it.
    let _ = supervisor.send(&MonitorToSupervisor::Hello(Hello::OURS));
    let _ = datapath.send(&MonitorToDatapath::Hello(Hello::OURS));
    let start = match wait_for_start(supervisor)? {
        Some(Request::Start(start)) => start,
        Some(Request::Explain(what, host_dumps)) => {
            return explain::run(&what, host_dumps, supervisor, log);
        }
        None => return Ok(()),
    };
    // Before any other namespace is entered: the ids in it are those that the supervisor knows. Without
    // it the supervisor decides.
    if let Ok(file) = seccomp::open_status_file() {
        let _ = supervisor.send_with(&MonitorToSupervisor::StatusFile, &[file.as_fd()]);
    }
    log.set_level(start.what.log_level);
    let policy = Policy::from(&*start.what);

    if let Some(UserId { uid, gid }) = start.what.run_as {
        seccomp::become_user_to_enter(Uid::from_raw(uid), Gid::from_raw(gid))
            .map_err(RunError::ChangeUser)?;
    }
    enter(start.user_namespace, start.net_namespace)?;
    let tun = match start.what.link.tap {
        TapUse::Make => Some(TapSource::Device(TunDevice::open()?)),
        TapUse::Given => Some(TapSource::Given),
        TapUse::None => None,
    };
    let socket = netlink::open_here().map_err(RunError::Netlink)?;
    let namespace_events = netlink::open_here().map_err(RunError::Netlink)?;
    let far = netlink::open_strict().map_err(RunError::Netlink)?;
    let looks = start.what.ports.looks_at_namespace();
    let sockets = looks.then(ports::open_here).transpose().map_err(RunError::SockDiag)?;
    let renames = policy.changes_namespace()
        && policy.tap_name.is_none()
        && policy.following.rename == Rename::Auto;
    let packets = renames.then(ports::open_here).transpose().map_err(RunError::SockDiag)?;
    sys::bring_up(&socket, "lo").map_err(RunError::Loopback)?;
    let isolated = seccomp::isolate_monitor(start.what.root)?;

    // One thread, without helpers: the kernel lets only such a process enter a user namespace, and
    // the filter lets it start no other.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_io().enable_time().build().map_err(RunError::Runtime)?;
    runtime.block_on(async {
        let supervisor = Peer::new(supervisor)?;
        let datapath_channel = datapath;
        let datapath = Peer::new(&datapath_channel)?;

        let rules = start.what.ports.outbound.as_slice();
        let keep = Keep {
            net_admin: tun.is_some() && policy.changes_namespace(),
            net_bind_service: seccomp::ports::name_low_port(rules),
            capture: false,
        };
        let bind = match start.what.ports.changes {
            // Which ports will be named is not known.
            RuleChanges::Possible => BindPorts { tcp: Ports::Any, udp: Ports::Any },
            RuleChanges::Never => BindPorts::of(rules),
        };
        let socket_server = SocketServer::new(&start.what);
        let ports = &start.what.ports;
        let watcher = Watcher::new(ports.loopback, ports.watch, sockets, start.host_sockets);
        let follower = match tun {
            None => None,
            Some(tun) => {
                let prepared = Prepared {
                    tun,
                    socket,
                    namespace_events,
                    packets,
                    far,
                    host_events: Some(start.host_events),
                    host_dumps: start.host_dumps,
                };
                let channel = datapath.channel;
                let configured = configure(prepared, policy, &supervisor, channel, log).await?;
                let Some(follower) = configured else { return Ok(()) };
                Some(follower)
            }
        };
        let (changes, forwards) = (start.what.ports.changes, Generation::default());
        let work = Work { follower, socket_server, watcher, changes, forwards };
        let what = Confinement { role: Role::Monitor, isolated, keep, bind };
        let (confined, report) = seccomp::confine(what, Some(supervisor.channel.as_fd()))?;
        let ready = MonitorToSupervisor::Ready(Box::new(report));
        serve(confined, ready, &supervisor, &datapath, work, log).await
    })
}

/// Waits for `Hello` and `Start` or `Explain`; `None` if the supervisor is gone. Nothing runs yet, so this blocks.
fn wait_for_start(supervisor: &ToSupervisor) -> Result<Option<Request>, RunError> {
    let mut phase = SupervisorPhase::Handshake;
    loop {
        let mut received = match supervisor.receive() {
            Ok(received) => received,
            Err(ReceiveError::Closed) => return Ok(None),
            Err(ReceiveError::WouldBlock) => {
                let mut wait = [PollFd::new(supervisor.as_fd(), PollFlags::POLLIN)];
                match poll(&mut wait, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => continue,
                    Err(errno) => return Err(RunError::Wait(errno.into())),
                }
            }
            Err(error) => return Err(error.into()),
        };
        phase = phase.after(&received.message)?;
        if let SupervisorToMonitor::Explain(what) = received.message {
            let Some(host_dumps) = received.fds.pop() else {
                return Err(RunError::Violation("Explain without its descriptor".into()));
            };
            return Ok(Some(Request::Explain(what, host_dumps)));
        }
        if let SupervisorToMonitor::Start(what) = received.message {
            // The channel has checked that there are four, or five where the host's ports are looked at.
            let mut fds = received.fds.drain(..);
            let (Some(user_namespace), Some(net_namespace), Some(host_events), Some(host_dumps)) =
                (fds.next(), fds.next(), fds.next(), fds.next())
            else {
                return Err(RunError::Violation("Start without its descriptors".into()));
            };
            return Ok(Some(Request::Start(Start {
                what,
                user_namespace,
                net_namespace,
                host_events,
                host_dumps,
                host_sockets: fds.next(),
            })));
        }
    }
}

/// Enters the namespaces of the target, and closes what names them. The user namespace may be the one
/// we are in.
fn enter(user: OwnedFd, net: OwnedFd) -> Result<(), RunError> {
    let identity = |stat: nix::sys::stat::FileStat| (stat.st_dev, stat.st_ino);
    let target = fstat(&user).map(identity);
    let ours = stat("/proc/self/ns/user").map(identity);
    if target.is_err() || target != ours {
        setns(&user, CloneFlags::CLONE_NEWUSER).map_err(RunError::EnterUser)?;
    }
    setns(&net, CloneFlags::CLONE_NEWNET).map_err(RunError::EnterNet)
}

/// Where the tap comes from.
enum TapSource {
    /// It is made with this.
    Device(TunDevice),
    /// The datapath gets it from the supervisor (`-F`); its name and link-layer address are in `Start`.
    Given,
}

/// What was opened while it still could be.
struct Prepared {
    tun: TapSource,
    socket: OwnedFd,
    namespace_events: OwnedFd,
    /// Lists the namespace's packet sockets.
    packets: Option<OwnedFd>,
    /// Dumps what of the namespace is not ours and not on the tap.
    far: OwnedFd,
    host_events: Option<OwnedFd>,
    host_dumps: OwnedFd,
}

/// Reads the host, makes the tap, configures the namespace and tells the datapath. `None` if the
/// supervisor is gone.
async fn configure(
    prepared: Prepared,
    policy: Policy,
    supervisor: &Peer<'_, MonitorToSupervisor, SupervisorToMonitor>,
    datapath: &ToDatapath,
    log: &Log,
) -> Result<Option<Follower>, RunError> {
    let clock = Clock::default();
    // Subscribe first, then read: events in between are queued.
    let host_events = prepared.host_events.filter(|_| policy.follows());
    let host_events =
        host_events.and_then(|it| subscribe(it, ("host", &watch::HOST), &filter::pass_all(), log));
    let host = Netlink::start(prepared.host_dumps);
    let state = read_host(&host, policy, log).await?;

    let policy = state.policy();
    let name = tap_name(policy, &state.bindings());
    let mut mtu = None;
    let (index, mac) = match prepared.tun {
        // A tap of another namespace is no link here: then there is nothing to read of it.
        TapSource::Given => (
            nix::net::if_::if_nametoindex(name.as_str()).unwrap_or(0),
            policy.tap_mac.unwrap_or(MacAddr::OURS_BY_DEFAULT),
        ),
        TapSource::Device(device) => {
            let tap = device.make(&name, policy.tap_mac)?;
            let index = nix::net::if_::if_nametoindex(tap.info.name.as_str());
            let mac = tap.info.mac;
            let ready = MonitorToSupervisor::TapReady(tap.info);
            if !supervisor.tell(&ready, &[tap.fd.as_fd()]).await? {
                return Ok(None);
            }
            // Where the namespace is configured, it is set along with the rest.
            let unconfigured = policy.configure == Configure::LoopbackOnly;
            mtu = state.desired(mac).offered_mtu.filter(|_| unconfigured);
            (index.map_err(RunError::NoTap)?, mac)
        }
    };

    // What its users do elsewhere is not even queued, from the first event on. It is read after this for the first time.
    let program = filter::namespace_program(index, &BTreeSet::new());
    let namespace_events =
        subscribe(prepared.namespace_events, ("namespace", &watch::NAMESPACE), &program, log);
    let namespace = Namespace::new(Netlink::start(prepared.socket), index);
    namespace.lengthen_queue(log).await;
    if let Some(mtu) = mtu {
        namespace.set_mtu(mtu, log).await;
    }
    announce(&state, &state.desired(mac), log);
    let subscriptions = Subscriptions {
        host: host_events,
        namespace: namespace_events,
        clocks: ClockChanges::subscribe(log),
    };
    let (packets, far) = (prepared.packets, prepared.far);
    let sockets = follow::Sockets { host, namespace, packets, far };
    let mut follower = Follower::new(state, sockets, mac, subscriptions, clock);
    follower.start(datapath, log).await?;
    Ok(Some(follower))
}

/// Reads the host for the first time.
async fn read_host(host: &Netlink, policy: Policy, log: &Log) -> Result<State, RunError> {
    let reading = read::host(host, &HostView::default(), log).await;
    if let Some(failure) = &reading.failure {
        log.warn(failure);
    }
    let state = State::start(policy, reading.view);
    check_template(&state, log)?;
    Ok(state)
}

/// Subscribes to what changes on one side. That it cannot be is no reason not to work.
fn subscribe(
    socket: OwnedFd,
    (side, groups): (&str, &[u32]),
    program: &[libc::sock_filter],
    log: &Log,
) -> Option<Events> {
    let events = Events::subscribe(socket, groups, program);
    events.map_err(|error| log.warn(&format!("cannot watch the {side}: {error}"))).ok()
}

/// An interface that was named and is not there is waited for; where nothing is followed, in vain.
fn check_template(state: &State, log: &Log) -> Result<(), RunError> {
    let policy = state.policy();
    let exists = |name: &IfName| state.host().links.values().any(|it| it.is_called(name.as_str()));
    let served = Family::BOTH.into_iter().filter(|family| policy.serves(*family));
    let named: BTreeSet<_> = served.filter_map(|family| policy.template(family)).collect();
    for name in named.into_iter().filter(|name| !exists(name)) {
        if !policy.follows() {
            return Err(RunError::NoTemplate(name.clone()));
        }
        log.warn(&format!("interface \"{name}\" does not exist on the host: it is waited for"));
    }
    Ok(())
}

/// Says in the log what was found and chosen.
fn announce(state: &State, desired: &Desired, log: &Log) {
    let bindings = state.bindings();
    for family in Family::BOTH {
        let gateway = desired.assigned.get(family).as_ref().and_then(|it| it.gateway);
        let via = gateway.map_or_else(String::new, |it| format!(" via {it}"));
        match bindings.get(family) {
            Binding::Off => {}
            Binding::Local => log.info(&format!("host: {family} local{via}")),
            Binding::Bound(template) | Binding::Held(template, ..) => log.info(&format!(
                "host: {family} bound {}({}): {}{via}",
                template.name, template.index, template.primary
            )),
        }
    }
    follow::warn_of_what_is_left_out(desired, log);
}

/// Messages of the datapath in a second, and at once. Chosen: a request is for up to 32 sockets, so this is more
/// than it may have; and below a tenth of a processor.
const REQUESTS: (u32, u32) = (10_000, 4_096);

/// How long nothing is received from a datapath that sends more than that. Chosen: as many messages as come in
/// this time cost less than waking for each.
const PAUSE: Duration = Duration::from_millis(10);

/// All that is done for the datapath.
struct Work {
    /// None where there is no tap: then there is nothing to follow.
    follower: Option<Follower>,
    socket_server: SocketServer,
    watcher: Watcher,
    /// Whether the rules for ports may change, and their generation.
    changes: RuleChanges,
    forwards: Generation,
}

impl Work {
    /// Whether a message to the datapath waits for the channel.
    fn is_behind(&mut self) -> bool {
        let follower = self.follower.as_mut();
        let follower = follower.is_some_and(|follower| follower.publisher().is_behind());
        follower || self.socket_server.is_behind() || self.watcher.is_behind()
    }

    /// How things stand, for the log and for programs.
    fn status(&mut self, log: &Log) -> MonitorStatus {
        let none = || Bounded::truncated([Text::truncated("tap     none, nothing is followed")]).0;
        let (lines, network) = match &self.follower {
            Some(follower) => {
                let (lines, network) = follower.status();
                (lines, Some(network))
            }
            None => (none(), None),
        };
        let namespace = self.watcher.listening(PortSide::Namespace, log).map(Box::new);
        let host = self.watcher.listening(PortSide::Host, log).map(Box::new);
        MonitorStatus { lines, network, namespace, host }
    }

    /// Tells it, as far as there is room; answers first, somebody waits for them.
    fn catch_up(&mut self, datapath: &ToDatapath) -> Result<(), RunError> {
        self.socket_server.catch_up(datapath)?;
        if let Some(follower) = &mut self.follower {
            follower.publisher().catch_up(datapath);
        }
        self.watcher.catch_up(datapath);
        Ok(())
    }
}

/// Waits until there is something to follow; for ever where nothing is followed.
async fn wait_for(follower: Option<&Follower>, readiness: Readiness) {
    match follower {
        Some(follower) => follower.wait(readiness).await,
        None => std::future::pending().await,
    }
}

/// Follows host and namespace and handles messages until the supervisor asks us to end, or is gone.
///
/// `ready` is sent to the supervisor at once, or with `--bind-wait` when there is a template,
/// at the latest when that time is over.
async fn serve(
    _: Confined,
    ready: MonitorToSupervisor,
    supervisor: &Peer<'_, MonitorToSupervisor, SupervisorToMonitor>,
    datapath: &Peer<'_, MonitorToDatapath, DatapathToMonitor>,
    mut work: Work,
    log: &Log,
) -> Result<(), RunError> {
    let mut supervisor_phase = SupervisorPhase::Serving;
    let mut datapath_phase = DatapathPhase::Handshake;
    let mut datapath_lives = true;
    let mut ready = Some(ready);
    let (clock, mut intake) = (Clock::default(), TokenBucket::new(REQUESTS.0, REQUESTS.1));
    let mut closed_until = None;
    loop {
        let waits = work.follower.as_ref().is_some_and(Follower::is_to_be_waited_for);
        if let Some(ready) = ready.take_if(|_| !waits) {
            if let Some(follower) = &work.follower {
                follower.say_what_is_missing(log);
            }
            if !supervisor.tell(&ready, &[]).await? {
                return Ok(());
            }
            work.watcher.begin();
        }
        let is_behind = work.is_behind();
        let readiness = if ready.is_some() { Readiness::Awaited } else { Readiness::Given };
        tokio::select! {
            received = supervisor.next() => match received {
                Ok(message) => {
                    supervisor_phase = supervisor_phase.after(&message)?;
                    match message {
                        SupervisorToMonitor::StatusWanted => {
                            let status = MonitorToSupervisor::Status(Box::new(work.status(log)));
                            match supervisor.tell(&status, &[]).await {
                                Ok(true) => {}
                                Ok(false) => return Ok(()),
                                // Somebody is curious, which is no reason to end.
                                Err(RunError::Send(error)) => {
                                    log.warn(&format!("cannot say how things stand: {error}"));
                                }
                                Err(error) => return Err(error),
                            }
                        }
                        SupervisorToMonitor::ResyncWanted => {
                            if let Some(follower) = &mut work.follower {
                                follower.resync_wanted(log);
                            }
                        }
                        SupervisorToMonitor::Forwards(forwards) => {
                            let NamespaceForwards { generation, outbound, watch } = *forwards;
                            if work.changes == RuleChanges::Never || generation <= work.forwards {
                                let why = "rules that may not change, or are not newer";
                                return Err(RunError::Violation(why.into()));
                            }
                            work.forwards = generation;
                            work.socket_server.allow(outbound.as_slice());
                            work.watcher.watch(watch);
                            let taken = MonitorToSupervisor::ForwardsTaken { generation };
                            if !supervisor.tell(&taken, &[]).await? {
                                return Ok(());
                            }
                        }
                        // The phase has it.
                        SupervisorToMonitor::Hello(_)
                        | SupervisorToMonitor::Start(_)
                        | SupervisorToMonitor::Explain(_)
                        | SupervisorToMonitor::Shutdown => {}
                    }
                }
                Err(ReceiveError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
            // One request for each turn, and none before the answer to the last is gone: whatever the
            // datapath asks, the other branches have their turn.
            received = datapath.next(),
                if datapath_lives && !work.socket_server.is_behind() && closed_until.is_none() =>
            {
                if intake.take(clock.now().since_start()).is_err() {
                    closed_until = Some(clock.now() + PAUSE);
                }
                let server = &mut work.socket_server;
                let said = serve_datapath(received, &mut datapath_phase, server, datapath.channel)?;
                datapath_lives &= !said.is_gone(log);
                if let (Answered::FlowsReset(generation), Some(follower)) = (said, &mut work.follower) {
                    follower.flows_were_reset(generation);
                }
            }
            () = clock.wait_until(closed_until), if closed_until.is_some() => closed_until = None,
            ready = datapath.room(), if datapath_lives && is_behind => {
                let mut ready = ready.map_err(RunError::Wait)?;
                work.catch_up(datapath.channel)?;
                if work.is_behind() {
                    ready.clear_ready();
                }
            }
            () = work.watcher.wait(), if datapath_lives => work.watcher.act(datapath.channel, log),
            () = wait_for(work.follower.as_ref(), readiness) => {
                let Work { follower: Some(follower), socket_server, .. } = &mut work else { continue };
                let mut reset = None;
                // Reading takes as long as the namespace's users make it; nobody waits for a socket meanwhile.
                let mut acting = Box::pin(follower.act(datapath.channel, log));
                loop {
                    tokio::select! {
                        () = &mut acting => break,
                        received = datapath.next(), if datapath_lives && !socket_server.is_behind() => {
                            let phase = &mut datapath_phase;
                            let said = serve_datapath(received, phase, socket_server, datapath.channel)?;
                            datapath_lives &= !said.is_gone(log);
                            if let Answered::FlowsReset(generation) = said {
                                reset = Some(generation);
                            }
                        }
                    }
                }
                drop(acting);
                if let Some(generation) = reset {
                    follower.flows_were_reset(generation);
                }
            }
        }
        if work.follower.as_mut().is_some_and(Follower::has_lost_tap)
            && !supervisor.tell(&MonitorToSupervisor::TapGone, &[]).await?
        {
            return Ok(());
        }
        if supervisor_phase == SupervisorPhase::Ending {
            return Ok(());
        }
    }
}

/// What the datapath has said that others than the server of sockets have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    /// Nothing.
    Nothing,
    /// The flows of addresses that leave were reset.
    FlowsReset(Generation),
    /// It is gone.
    Gone,
}

impl Answered {
    /// Whether the datapath is gone, which the log says.
    fn is_gone(self, log: &Log) -> bool {
        if self == Self::Gone {
            log.warn("datapath is gone");
        }
        self == Self::Gone
    }
}

/// Answers what came of the datapath. One request for each turn, and none before the answer to the last is gone:
/// whatever the datapath asks, others have their turn.
fn serve_datapath(
    received: Result<DatapathToMonitor, ReceiveError>,
    phase: &mut DatapathPhase,
    server: &mut SocketServer,
    datapath: &ToDatapath,
) -> Result<Answered, RunError> {
    let message = match received {
        Ok(message) => message,
        Err(ReceiveError::Closed) => return Ok(Answered::Gone),
        Err(error) => return Err(error.into()),
    };
    *phase = phase.after(&message)?;
    server.serve(&message, datapath)?;
    Ok(match message {
        DatapathToMonitor::FlowsReset { generation } => Answered::FlowsReset(generation),
        _ => Answered::Nothing,
    })
}

/// A channel, and the runtime's knowledge of whether it can be read or written.
struct Peer<'a, Out, In> {
    channel: &'a Channel<Out, In>,
    readiness: AsyncFd<BorrowedFd<'a>>,
}

impl<'a, Out: Message, In: Message> Peer<'a, Out, In> {
    fn new(channel: &'a Channel<Out, In>) -> Result<Self, RunError> {
        let readiness = sys::watch(channel.as_fd()).map_err(RunError::Wait)?;
        Ok(Self { channel, readiness })
    }

    /// The next message. Nothing is lost if this is dropped while it waits.
    async fn next(&self) -> Result<In, ReceiveError> {
        loop {
            let mut ready = self.readiness.readable().await.map_err(ReceiveError::Io)?;
            match self.channel.receive() {
                Err(ReceiveError::WouldBlock) => ready.clear_ready(),
                received => return received.map(|it| it.message),
            }
        }
    }

    /// Sends a message, waiting for room. False if the peer is gone.
    async fn tell(&self, message: &Out, fds: &[BorrowedFd<'_>]) -> Result<bool, RunError> {
        loop {
            let mut ready = self.room().await.map_err(RunError::Wait)?;
            match self.channel.send_with(message, fds) {
                Ok(()) => return Ok(true),
                Err(SendError::Closed) => return Ok(false),
                Err(SendError::WouldBlock) => ready.clear_ready(),
                Err(SendError::Io(error)) => return Err(RunError::Send(error)),
            }
        }
    }

    /// Waits until the channel may have room. Whoever then finds that there is none clears what this
    /// gives, and waits again; nothing is lost if this is dropped while it waits.
    async fn room(&self) -> io::Result<AsyncFdReadyGuard<'_, BorrowedFd<'a>>> {
        self.readiness.writable().await
    }
}
