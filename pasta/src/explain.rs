//! `--explain`: what would be done with these options on this host, without doing it.
//!
//! The monitor is started as ever, but without a namespace: it reads the host, decides as it would at a
//! start, and answers. So there is one code path for the template, addresses and routes. The rest follows
//! from the start messages, which are made as at a start too. Nothing is created or bound, and no
//! capability is needed. Ports in use are looked up in /proc/net, as the kernel lists them.

mod document;
mod ports_in_use;

use crate::helpers::{self, Executables};
use crate::host::{self, RouteSockets};
use crate::identity::{self, Identity, Privilege};
use crate::launch::LaunchError;
use crate::log::{Helper, Log};
use crate::options::Options;
use crate::resolver::{Resolvers, WatchMode};
use crate::target::Target;
use crate::termination::Termination;
use crate::tun::Access;
use crate::value::DocumentForm;
use caps::{CapSet, Capability};
use document::Facts;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use pasta_ipc::channel::{Channel, expect_hello};
use pasta_ipc::message::Hello;
use pasta_ipc::start::{Captured, MonitorStart};
use pasta_ipc::types::{Explanation, Text};
use pasta_ipc::{
    DatapathToMonitor, MonitorToDatapath, MonitorToSupervisor, ReceiveError, SupervisorToMonitor,
};
use ports_in_use::PortsInUse;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The whole text to print.
///
/// # Errors
///
/// [`LaunchError`], as for a start with these options.
pub(crate) fn run(
    options: &Options,
    format: DocumentForm,
    log: &mut Log,
) -> Result<String, LaunchError> {
    let (services, warnings) =
        options.services(host::kernel_families()).map_err(LaunchError::Options)?;
    let system = host::port_system(&options.target);
    let forwards = options.forwards(&services, system).map_err(LaunchError::Options)?;
    let identity = match identity::privilege(options.run_as.as_ref()) {
        Ok(Privilege::Ordinary) => None,
        Ok(Privilege::Root(identity)) => Some(identity),
        Err(error) => return Err(LaunchError::Identity(error)),
    };
    let executables = Executables::find().map_err(LaunchError::Find)?;
    let routes = RouteSockets::open()
        .map_err(|error| LaunchError::System("read the host's network", error))?;
    let start = options.monitor_start(&services, &forwards, None, None);
    let explanation = ask(&executables, identity, &routes.dumps, start.clone(), log)?;

    let unusable = match &options.target {
        Target::Existing(existing) => File::open(&existing.net)
            .err()
            .map(|error| format!("cannot open namespace {}: {error}", existing.net.display())),
        Target::Command(_) => None,
    };
    let remarks = options.warnings.iter().chain(&warnings).chain(&forwards.remarks);
    let remarks = remarks.chain(&unusable);
    let may_bind_low =
        caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_BIND_SERVICE).unwrap_or(false);
    let document = document::of(&Facts {
        target: &options.target,
        monitor: &start,
        datapath: &options.datapath_start(&services, None, Captured::No, system.ephemeral),
        explanation: &explanation,
        resolvers: Resolvers::open(WatchMode::Off).snapshot().servers.as_slice(),
        forwards: &forwards,
        in_use: &PortsInUse::read(),
        unprivileged_start: if may_bind_low { 0 } else { system.unprivileged_start },
        keeps_net_admin: options.changes_namespace(),
        identity,
        remarks: remarks.map(String::as_str).collect(),
    });
    Ok(match format {
        DocumentForm::Text => document.to_text(),
        DocumentForm::Json => document.to_json(),
    })
}

/// Starts the monitor, and returns its answer.
fn ask(
    executables: &Executables,
    identity: Option<Identity>,
    dumps: &OwnedFd,
    start: MonitorStart,
    log: &mut Log,
) -> Result<Explanation, LaunchError> {
    let system = |error: io::Error| LaunchError::System("start the monitor", error);
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| system(errno.into()))?;
    let (channel, theirs) =
        Channel::<SupervisorToMonitor, MonitorToSupervisor>::pair().map_err(system)?;
    // Nobody is at the other end.
    let (publishing, _) =
        Channel::<MonitorToDatapath, DatapathToMonitor>::pair().map_err(system)?;
    let child = helpers::spawn(
        &helpers::Start {
            helper: Helper::Monitor,
            program: executables.monitor.as_fd(),
            null: null.as_fd(),
            descriptors: &[theirs.as_fd(), publishing.as_fd()],
            identity,
            tun: Access::Shared,
        },
        |channel, why| {
            let channel = Channel::<MonitorToSupervisor, SupervisorToMonitor>::from(channel);
            let failed = MonitorToSupervisor::Failed(Text::truncated(why));
            // If this fails, the exit status is all that is left.
            let _ = channel
                .send(&MonitorToSupervisor::Hello(Hello::OURS))
                .and_then(|()| channel.send(&failed));
        },
    )
    .map_err(system)?;
    drop(theirs);
    let request = SupervisorToMonitor::Explain(Box::new(start));
    let sent = channel
        .send(&SupervisorToMonitor::Hello(Hello::OURS))
        .and_then(|()| channel.send_with(&request, &[dumps.as_fd()]));
    let answer = receive(&channel, log);
    drop(channel);
    let ended = waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED);
    match answer {
        Ok(Some(explanation)) => Ok(*explanation),
        Ok(None) => Err(match (sent, ended) {
            (_, Ok(status)) => LaunchError::HelperEnded(Helper::Monitor, Termination::from(status)),
            (Err(error), _) => LaunchError::Send(Helper::Monitor, error),
            (Ok(()), Err(errno)) => system(errno.into()),
        }),
        Err(error) => Err(error),
    }
}

/// Waits for the answer; none if the monitor has ended without one.
fn receive(
    channel: &Channel<SupervisorToMonitor, MonitorToSupervisor>,
    log: &mut Log,
) -> Result<Option<Box<Explanation>>, LaunchError> {
    let violation = |why: String| LaunchError::Violation(Helper::Monitor, why);
    let mut handshake_done = false;
    loop {
        let message = match channel.receive() {
            Ok(received) => received.message,
            Err(ReceiveError::Closed) => return Ok(None),
            Err(ReceiveError::WouldBlock) => {
                let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => continue,
                    Err(errno) => {
                        return Err(LaunchError::System("wait for the monitor", errno.into()));
                    }
                }
            }
            Err(error) => return Err(violation(error.to_string())),
        };
        match message {
            MonitorToSupervisor::Hello(hello) if !handshake_done => {
                expect_hello(Some(hello)).map_err(|error| violation(error.to_string()))?;
                handshake_done = true;
            }
            _ if !handshake_done => return Err(violation("first message is not Hello".into())),
            MonitorToSupervisor::Log(record) => log.relay(Helper::Monitor, &record),
            MonitorToSupervisor::Failed(why) => {
                return Err(LaunchError::Reported(why.to_string()));
            }
            MonitorToSupervisor::Explained(explanation) => return Ok(Some(explanation)),
            MonitorToSupervisor::Hello(_)
            | MonitorToSupervisor::TapReady(_)
            | MonitorToSupervisor::Ready(_)
            | MonitorToSupervisor::Status(_)
            | MonitorToSupervisor::StatusFile
            | MonitorToSupervisor::TapGone
            | MonitorToSupervisor::ForwardsTaken { .. } => {
                return Err(violation("a message that Explain does not lead to".into()));
            }
        }
    }
}
