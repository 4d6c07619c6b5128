//! What has been started and received so far; one step of the start.

use super::error::{LaunchError, system};
use crate::children::{Children, Event};
use crate::log::{Helper, Log};
use crate::namespace::Namespaces;
use crate::signals::ReceivedSignal;
use nix::sys::signal::Signal;
use pasta_ipc::channel::SendError;
use pasta_ipc::start::HostSockets;
use pasta_ipc::types::{AuditReport, TapInfo};
use pasta_ipc::{DatapathToSupervisor, InitToSupervisor, MonitorToSupervisor};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long the end of a helper that has closed its channel is waited for. Chosen: it takes less than a
/// millisecond.
const GONE_TIMEOUT: Duration = Duration::from_secs(1);

/// What was received and is wanted by a later step.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) namespaces: Option<Namespaces>,
    pub(super) tap: Option<(TapInfo, OwnedFd)>,
    pub(super) monitor: Option<AuditReport>,
    pub(super) datapath: Option<AuditReport>,
    /// The helpers that have said `Hello`: they have hardened themselves before.
    pub(super) hardened: Hardened,
    /// Whether the first listeners in the namespace are open.
    pub(super) ports_open: bool,
    /// Whether the monitor may list the host's sockets.
    pub(super) host_sockets: HostSockets,
    /// The status files that the helpers have handed over.
    pub(super) status_files: StatusFiles,
}

/// Which helpers can no longer be traced by their own user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hardened {
    pub(super) monitor: bool,
    pub(super) datapath: bool,
}

/// `/proc/PID/status` of the helpers, as far as they could open it.
#[derive(Debug, Default)]
pub(super) struct StatusFiles {
    pub(super) monitor: Option<OwnedFd>,
    pub(super) datapath: Option<OwnedFd>,
}

/// The children, and what was received from them.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    pub(super) children: Children,
    pub(super) log: &'a mut Log,
    pub(super) received: Received,
    /// What is being waited for, for the status.
    pub(super) waiting_for: String,
    pub(super) monitor: MonitorPhase,
}

/// Whether `Start` was sent to the monitor; requests are allowed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MonitorPhase {
    NotStarted,
    Started,
}

impl Progress<'_> {
    /// Waits until `wanted` finds what it wants.
    pub(super) fn wait_for<T>(
        &mut self,
        mut wanted: impl FnMut(&mut Received, &Children) -> Option<T>,
    ) -> Result<T, LaunchError> {
        loop {
            if let Some(found) = wanted(&mut self.received, &self.children) {
                return Ok(found);
            }
            for event in self.children.next(None).map_err(system("wait for the helpers"))? {
                self.take(event)?;
            }
        }
    }

    /// Waits until `helper` cannot be traced by its user any more, and refuses one that is being traced: it
    /// gets no descriptor and learns nothing before.
    pub(super) fn wait_until_hardened(&mut self, helper: Helper) -> Result<(), LaunchError> {
        let before = std::mem::replace(
            &mut self.waiting_for,
            format!("{}, which has to harden itself", helper.name()),
        );
        let pid = self.wait_for(|received, children| {
            let hardened = match helper {
                Helper::Monitor => received.hardened.monitor,
                Helper::Datapath => received.hardened.datapath,
            };
            children.pid(helper).filter(|_| hardened)
        })?;
        self.waiting_for = before;
        seccomp::refuse_tracer(pid).map_err(|error| LaunchError::Audit(helper, error))
    }

    /// Waits until the first listeners in the namespace are open, for `limit` at most: what COMMAND asks
    /// first, its resolver mostly, may be one of them.
    pub(super) fn wait_for_ports(&mut self, limit: Duration) -> Result<(), LaunchError> {
        let deadline = Instant::now() + limit;
        while !self.received.ports_open {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.log.debug("the first look at the host's ports takes long");
                break;
            }
            let events = self.children.next(Some(left)).map_err(system("wait for the helpers"))?;
            for event in events {
                self.take(event)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), LaunchError> {
        match event {
            Event::Signal(ReceivedSignal { signal: Some(Signal::SIGUSR1), .. }) => {
                self.log.status(&format!("starting: waiting for {}", self.waiting_for));
                if self.monitor == MonitorPhase::Started && self.children.request_status().is_err()
                {
                    self.log.status("cannot ask the monitor");
                }
            }
            Event::Signal(ReceivedSignal { signal: Some(Signal::SIGUSR2), .. }) => {
                if self.monitor == MonitorPhase::Started && self.children.request_refresh().is_err()
                {
                    self.log.warn("cannot ask the monitor to read again");
                }
            }
            Event::Signal(received) if received.is_stop() => {
                self.children.own_process().stop_by(Signal::SIGTSTP);
            }
            // COMMAND does not run yet, so the signal is for us, whoever sent it.
            Event::Signal(received) => match received.for_command() {
                Some(signal) => return Err(LaunchError::Interrupted(signal)),
                None => return Ok(()),
            },
            Event::Init(message, fds) => match message {
                InitToSupervisor::Warning(text) => self.log.warn(text.as_str()),
                InitToSupervisor::Failed(why) => {
                    return Err(LaunchError::Reported(why.to_string()));
                }
                // COMMAND does not run yet.
                InitToSupervisor::Killed(_)
                | InitToSupervisor::Stopped(_)
                | InitToSupervisor::Continued => {}
                InitToSupervisor::Ready => {
                    let namespaces = <[OwnedFd; 2]>::try_from(fds).ok();
                    self.received.namespaces =
                        namespaces.map(|[user, net]| Namespaces { user, net });
                }
            },
            Event::CallerGone => return Err(LaunchError::CallerGone),
            Event::NamespaceEnded => return Err(LaunchError::NamespaceEnded),
            Event::InitEnded(termination) => return Err(LaunchError::InitEnded(termination)),
            Event::Monitor(message, fds) => match message {
                MonitorToSupervisor::Hello(_) => self.received.hardened.monitor = true,
                MonitorToSupervisor::TapReady(info) => {
                    self.received.tap = fds.into_iter().next().map(|tap| (info, tap));
                }
                MonitorToSupervisor::Ready(report) => self.received.monitor = Some(*report),
                MonitorToSupervisor::StatusFile => {
                    self.received.status_files.monitor = fds.into_iter().next();
                }
                MonitorToSupervisor::Log(record) => self.log.relay(Helper::Monitor, &record),
                MonitorToSupervisor::Status(status) => {
                    status.lines.as_slice().iter().for_each(|line| self.log.status(line.as_str()));
                }
                // `children` refuses it: nobody asked.
                // The datapath ends too, where the tap was removed.
                MonitorToSupervisor::Explained(_)
                | MonitorToSupervisor::TapGone
                // Nor for this.
                | MonitorToSupervisor::ForwardsTaken { .. } => {}
                MonitorToSupervisor::Failed(why) => {
                    return Err(LaunchError::Reported(why.to_string()));
                }
            },
            Event::Datapath(message) => match message {
                DatapathToSupervisor::Hello(_) => self.received.hardened.datapath = true,
                DatapathToSupervisor::Ready(report) => self.received.datapath = Some(*report),
                DatapathToSupervisor::Log(record) => self.log.relay(Helper::Datapath, &record),
                DatapathToSupervisor::Statistics(line) => self.log.statistics(&line),
                DatapathToSupervisor::PortsOpen => self.received.ports_open = true,
                // As above.
                DatapathToSupervisor::Changed(_) | DatapathToSupervisor::Status(_) => {}
                DatapathToSupervisor::Failed(why) => {
                    return Err(LaunchError::Reported(why.to_string()));
                }
            },
            Event::DatapathStatusFile(file) => self.received.status_files.datapath = Some(file),
            Event::Violation(helper, why) => return Err(LaunchError::Violation(helper, why)),
            Event::HelperEnded(helper, termination) => {
                return Err(LaunchError::HelperEnded(helper, termination));
            }
        }
        Ok(())
    }

    /// Why a helper that has closed its channel has done so, if that is seen soon.
    fn why_gone(&mut self) -> Option<LaunchError> {
        let deadline = Instant::now() + GONE_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let events = self.children.next(Some(left)).ok()?;
            for event in events {
                if let Err(error) = self.take(event) {
                    return Some(error);
                }
            }
            if left.is_zero() {
                return None;
            }
        }
    }

    /// Kills everything that was started, and returns the error.
    pub(super) fn give_up(self, error: LaunchError) -> LaunchError {
        self.children.tear_down();
        error
    }
}

/// Runs one step; on failure, everything that was started is killed.
pub(super) fn step<'a, T>(
    mut progress: Progress<'a>,
    work: impl FnOnce(&mut Progress<'a>) -> Result<T, LaunchError>,
) -> Result<(Progress<'a>, T), LaunchError> {
    match work(&mut progress) {
        Ok(done) => Ok((progress, done)),
        // Why it has gone is in its channel, or in its exit status.
        Err(gone @ LaunchError::Send(_, SendError::Closed)) => {
            let why = progress.why_gone().unwrap_or(gone);
            Err(progress.give_up(why))
        }
        Err(error) => Err(progress.give_up(error)),
    }
}
