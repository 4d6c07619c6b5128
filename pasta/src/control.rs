//! The control socket (`-c`): what clients ask for, and what the helpers say to it.
//!
//! [`server`] has the connections and their bounds, [`transaction`] the forwarded ports and changes of them. Here
//! requests become messages to the helpers, and what these answer becomes answers to clients. Requests for the status
//! that come together are answered together: a helper is asked by one at a time.

mod server;
mod socket;
mod transaction;

pub(crate) use socket::{ControlSocket, ControlSocketError};
pub(crate) use transaction::Served;

use crate::children::Event;
use crate::log::Helper;
use nix::unistd::getpid;
use pasta::ports::Forwards;
use pasta_ipc::control::ForwardState;
use pasta_ipc::port_forward::ForwardRule;
use pasta_ipc::status::{DatapathStatus, InstanceStatus, MAX_TOP, MonitorStatus, RuleOfEntry};
use pasta_ipc::types::{Bounded, LogLevel, Text};
use pasta_ipc::{
    ClientToSupervisor, DatapathToSupervisor, MonitorToSupervisor, SupervisorToClient,
    SupervisorToDatapath, SupervisorToMonitor,
};
use server::{ClientId, Incoming, Part, Server};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use transaction::{Order, Transactions};

/// How long the helpers may take for their status. Chosen: both answer within milliseconds; who asks learns that one
/// does not.
const STATUS_LIMIT: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Debug)]
pub(crate) enum ControlAction {
    /// Send this to the monitor.
    ToMonitor(SupervisorToMonitor),
    /// Send this to the datapath.
    ToDatapath(SupervisorToDatapath),
    /// Write a line of ours.
    Log(LogLevel, String),
}

/// What is forwarded, and who asks.
#[derive(Debug)]
pub(crate) struct Control {
    server: Server,
    transactions: Transactions,
    status: Option<StatusJob>,
    /// Those who ask while a status is put together.
    next_status: Vec<(ClientId, u8)>,
    /// Whether an answer of the datapath is due.
    datapath_owes: bool,
    helpers: Running,
    target: Text<256>,
    /// Ours: it cannot be asked for any more.
    pid: i32,
    /// Of the monitor and the datapath.
    pids: (Option<i32>, Option<i32>),
    started: Instant,
}

/// Which helpers run.
#[derive(Clone, Copy, Debug)]
struct Running {
    monitor: bool,
    datapath: bool,
}

/// A status that is put together.
#[derive(Debug)]
struct StatusJob {
    clients: Vec<(ClientId, u8)>,
    monitor: Progress<MonitorStatus>,
    datapath: Progress<DatapathStatus>,
    deadline: Instant,
}

#[derive(Debug)]
enum Progress<T> {
    Awaited,
    Here(Option<Box<T>>),
}

impl<T> Progress<T> {
    fn is_awaited(&self) -> bool {
        matches!(self, Self::Awaited)
    }

    fn take(self) -> Option<Box<T>> {
        match self {
            Self::Awaited => None,
            Self::Here(status) => status,
        }
    }
}

impl Control {
    /// Serves `socket`; `target` says what is connected, `pids` are those of the monitor and the datapath.
    ///
    /// # Errors
    ///
    /// What epoll(7) reports.
    pub(crate) fn new(
        socket: ControlSocket,
        served: Served,
        forwards: Forwards,
        target: &str,
        pids: (Option<i32>, Option<i32>),
    ) -> io::Result<Self> {
        Ok(Self {
            server: Server::new(socket)?,
            transactions: Transactions::new(served, forwards),
            status: None,
            next_status: Vec::new(),
            datapath_owes: false,
            helpers: Running { monitor: true, datapath: true },
            target: Text::truncated(target),
            pid: getpid().as_raw(),
            pids,
            started: Instant::now(),
        })
    }

    /// Readable when there is something to do.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }

    /// Where the socket's file is.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.server.socket().directory()
    }

    /// Removes the socket's file; a line for the log if that fails.
    pub(crate) fn remove_socket(&self) -> Option<String> {
        self.server.socket().remove()
    }

    /// When there is something to do although nothing comes.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let status = self.status.as_ref().map(|it| it.deadline);
        let deadlines = [status, self.transactions.next_deadline(), self.server.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Serves clients; `resolvers` makes the line about the host's resolvers.
    pub(crate) fn serve(
        &mut self,
        now: Instant,
        resolvers: impl Fn() -> String,
    ) -> Vec<ControlAction> {
        let mut actions = Vec::new();
        for incoming in self.server.poll(now) {
            match incoming {
                Incoming::Request(client, peer, message) => match message {
                    ClientToSupervisor::ForwardsWanted => {
                        let state = SupervisorToClient::Forwards(Box::new(self.state()));
                        self.server.answer(now, client, state, Part::Last);
                    }
                    ClientToSupervisor::Change(change) => {
                        let orders = self.transactions.request(now, client, peer, *change);
                        self.carry_out(now, orders, &mut actions);
                    }
                    ClientToSupervisor::StatusWanted { flows } => {
                        self.next_status.push((client, flows));
                    }
                    ClientToSupervisor::ResyncWanted => {
                        let answer = if self.helpers.monitor {
                            let resync = SupervisorToMonitor::ResyncWanted;
                            actions.push(ControlAction::ToMonitor(resync));
                            SupervisorToClient::ResyncSent
                        } else {
                            let why = "pasta-monitor has ended: nothing is followed any more";
                            SupervisorToClient::Refused(Text::truncated(why))
                        };
                        self.server.answer(now, client, answer, Part::Last);
                    }
                    // `server` takes it.
                    ClientToSupervisor::Hello(_) => {}
                },
                Incoming::Gone(client) => {
                    self.transactions.client_gone(client);
                    self.next_status.retain(|(it, _)| *it != client);
                }
                Incoming::Refused(line) => actions.push(ControlAction::Log(LogLevel::Warn, line)),
            }
        }
        let orders = self.transactions.tick(now);
        self.carry_out(now, orders, &mut actions);
        self.begin_status(now, &mut actions);
        self.end_status(now, &resolvers, &mut actions);
        actions
    }

    /// Takes in what has happened to the helpers and what they have said; statuses come by [`Control::status`].
    pub(crate) fn note(&mut self, now: Instant, event: &Event) -> Vec<ControlAction> {
        let mut actions = Vec::new();
        let orders = match event {
            Event::Monitor(MonitorToSupervisor::ForwardsTaken { generation }, _) => {
                self.transactions.monitor_taken(*generation)
            }
            Event::Datapath(DatapathToSupervisor::Changed(changed)) => {
                self.transactions.datapath_changed(now, changed)
            }
            Event::Datapath(DatapathToSupervisor::Status(status)) => {
                self.datapath_owes = false;
                if let Some(job) = &mut self.status {
                    job.datapath = Progress::Here(Some(status.clone()));
                }
                Vec::new()
            }
            Event::HelperEnded(Helper::Monitor, _) => self.monitor_ended(now),
            Event::HelperEnded(Helper::Datapath, _) => self.datapath_ended(now),
            Event::Violation(..) => {
                let mut orders = self.monitor_ended(now);
                orders.extend(self.datapath_ended(now));
                orders
            }
            _ => Vec::new(),
        };
        self.carry_out(now, orders, &mut actions);
        actions
    }

    fn monitor_ended(&mut self, now: Instant) -> Vec<Order> {
        self.helpers.monitor = false;
        if let Some(job) = self.status.as_mut().filter(|it| it.monitor.is_awaited()) {
            job.monitor = Progress::Here(None);
        }
        self.transactions.monitor_ended(now)
    }

    fn datapath_ended(&mut self, now: Instant) -> Vec<Order> {
        self.helpers.datapath = false;
        if let Some(job) = self.status.as_mut().filter(|it| it.datapath.is_awaited()) {
            job.datapath = Progress::Here(None);
        }
        self.transactions.datapath_ended(now)
    }

    /// Takes in the status of the monitor that this has asked for.
    pub(crate) fn monitor_status(&mut self, status: Box<MonitorStatus>) {
        if let Some(job) = &mut self.status {
            job.monitor = Progress::Here(Some(status));
        }
    }

    /// A message could not be sent.
    pub(crate) fn not_sent(&mut self, now: Instant, action: &ControlAction) -> Vec<ControlAction> {
        let mut actions = Vec::new();
        match action {
            ControlAction::ToMonitor(SupervisorToMonitor::StatusWanted) => {
                if let Some(job) = &mut self.status {
                    job.monitor = Progress::Here(None);
                }
            }
            ControlAction::ToDatapath(SupervisorToDatapath::StatusWanted { .. }) => {
                self.datapath_owes = false;
                if let Some(job) = &mut self.status {
                    job.datapath = Progress::Here(None);
                }
            }
            ControlAction::ToMonitor(SupervisorToMonitor::Forwards(_))
            | ControlAction::ToDatapath(SupervisorToDatapath::Change(_)) => {
                let orders = self.transactions.not_sent(now);
                self.carry_out(now, orders, &mut actions);
            }
            _ => {}
        }
        actions
    }

    fn state(&self) -> ForwardState {
        self.transactions.state()
    }

    fn carry_out(&mut self, now: Instant, orders: Vec<Order>, actions: &mut Vec<ControlAction>) {
        for order in orders {
            match order {
                Order::ToMonitor(forwards) => {
                    actions.push(ControlAction::ToMonitor(SupervisorToMonitor::Forwards(forwards)));
                }
                Order::ToDatapath(change) => {
                    actions.push(ControlAction::ToDatapath(SupervisorToDatapath::Change(change)));
                }
                Order::Answer(client, result) => {
                    let answer = SupervisorToClient::Changed(Box::new(result));
                    self.server.answer(now, client, answer, Part::Last);
                }
                Order::Log(line) => actions.push(ControlAction::Log(LogLevel::Info, line)),
            }
        }
    }

    /// Asks the helpers for their status, if somebody waits for it and no other is put together.
    fn begin_status(&mut self, now: Instant, actions: &mut Vec<ControlAction>) {
        if self.status.is_some() || self.next_status.is_empty() {
            return;
        }
        let clients = std::mem::take(&mut self.next_status);
        let flows = clients.iter().map(|(_, flows)| *flows).max().unwrap_or(0);
        let Running { monitor, datapath } = self.helpers;
        if monitor {
            actions.push(ControlAction::ToMonitor(SupervisorToMonitor::StatusWanted));
        }
        // One that is late counts for this status.
        if datapath && !self.datapath_owes {
            self.datapath_owes = true;
            let wanted = SupervisorToDatapath::StatusWanted { flows: flows.min(MAX_TOP as u8) };
            actions.push(ControlAction::ToDatapath(wanted));
        }
        self.status = Some(StatusJob {
            clients,
            monitor: if monitor { Progress::Awaited } else { Progress::Here(None) },
            datapath: if datapath { Progress::Awaited } else { Progress::Here(None) },
            deadline: now + STATUS_LIMIT,
        });
    }

    /// Answers those who wait for a status that is complete, or takes too long.
    fn end_status(
        &mut self,
        now: Instant,
        resolvers: &impl Fn() -> String,
        actions: &mut Vec<ControlAction>,
    ) {
        let is_over = |job: &mut StatusJob| {
            (!job.monitor.is_awaited() && !job.datapath.is_awaited()) || job.deadline <= now
        };
        let Some(job) = self.status.take_if(is_over) else { return };
        let instance = self.instance(now, resolvers());
        let forwards = self.state();
        let (monitor, datapath) = (job.monitor.take(), job.datapath.take());
        for (client, flows) in job.clients {
            let datapath = datapath.clone().map(|mut status| {
                let top = status.top.as_slice().iter().take(flows.into()).copied();
                status.top = Bounded::truncated(top).0;
                status
            });
            let parts = [
                SupervisorToClient::Instance(Box::new(instance.clone())),
                SupervisorToClient::Forwards(Box::new(forwards.clone())),
                SupervisorToClient::Monitor(monitor.clone()),
            ];
            for part in parts {
                self.server.answer(now, client, part, Part::More);
            }
            let last = SupervisorToClient::Datapath(datapath);
            self.server.answer(now, client, last, Part::Last);
        }
        self.begin_status(now, actions);
    }

    fn instance(&self, now: Instant, resolvers: String) -> InstanceStatus {
        let Forwards { inbound, outbound, inbound_places, outbound_places, .. } =
            self.transactions.forwards();
        let places = |rules: &[ForwardRule], places: &[u16]| {
            let rules = rules.iter().zip(places);
            let rules =
                rules.map(|(rule, entry)| RuleOfEntry { entry: *entry, ports: rule.ports() });
            Bounded::truncated(rules).0
        };
        InstanceStatus {
            version: Text::truncated(env!("CARGO_PKG_VERSION")),
            pid: self.pid,
            monitor_pid: self.pids.0,
            datapath_pid: self.pids.1,
            uptime_s: now.saturating_duration_since(self.started).as_secs(),
            target: self.target.clone(),
            resolvers: Text::truncated(&resolvers),
            unprivileged_start: self.transactions.unprivileged_start(),
            inbound: places(inbound, inbound_places),
            outbound: places(outbound, outbound_places),
        }
    }
}
