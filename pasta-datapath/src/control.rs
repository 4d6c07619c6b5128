//! The other two processes: what they may say when, and what we tell them.

use crate::time::Instant;
use pasta_ipc::channel::expect_hello;
use pasta_ipc::message::Hello;
use pasta_ipc::port_forward::{
    Direction, ForwardTable, ForwardsChange, ForwardsChanged, PortSide, PortSnapshot,
};
use pasta_ipc::rate::TokenBucket;
use pasta_ipc::socket::{ListenerAddress, Refusal, RequestId};
use pasta_ipc::start::DatapathStart;
use pasta_ipc::status::DatapathStatus;
use pasta_ipc::types::{
    AddressLosses, AuditReport, Generation, LogLevel, LogRecord, NeighbourSnapshot,
    NetworkSnapshot, ResolverSnapshot, Text, Transport,
};
use pasta_ipc::{
    Channel, DatapathToMonitor, DatapathToSupervisor, MonitorToDatapath, ReceiveError, Received,
    SendError, SupervisorToDatapath,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Messages handled in one turn of the loop, so that a chatty peer cannot hold up frames; chosen.
const MESSAGES: usize = 8;

/// Snapshots of the monitor in a second, and at once. Chosen: far more than it makes of a storm of changes,
/// which it gathers for some milliseconds at a time; and below a tenth of a processor.
const SNAPSHOTS: (u32, u32) = (1_000, 5_000);

/// How far a peer has come; messages are allowed by phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `Hello` is due.
    New,
    /// `Hello` was received.
    Open,
    /// `Start` was received (supervisor only).
    Started,
}

/// What a peer has sent.
#[derive(Debug)]
pub enum PeerMessage<K = OwnedFd> {
    /// Options, and the tap if there is one.
    Start(Box<DatapathStart>, Vec<K>),
    /// What netlink knows.
    Network(Box<NetworkSnapshot>),
    /// What resolv.conf says.
    Resolvers(ResolverSnapshot),
    /// What is to be forwarded.
    Forwards(Box<ForwardTable>),
    /// What is to be forwarded from now on, all or nothing.
    Change(Box<ForwardsChange>),
    /// How things stand is asked for, with so many flows.
    StatusWanted(usize),
    /// Listeners that were made for us.
    Listeners(Vec<(ListenerAddress, K)>),
    /// Who listens.
    Ports(Box<PortSnapshot>),
    /// Who the template's neighbours are.
    Neighbours(Box<NeighbourSnapshot>),
    /// Sockets inside the namespace, as asked for.
    Sockets(RequestId, Vec<K>),
    /// There are none.
    Refused(RequestId, Refusal),
    /// The process is to end.
    Shutdown,
    /// The monitor has gone; what it said last stays in force.
    MonitorGone,
}

/// The supervisor's channel, over which the log travels too.
#[derive(Debug)]
pub struct Supervisor {
    channel: Channel<DatapathToSupervisor, SupervisorToDatapath>,
    phase: Phase,
    resolvers: Generation,
    ports: [Generation; 2],
    level: LogLevel,
    withheld: u64,
    change: Answer,
    status: Answer,
    /// Answers that the channel had no room for: one of each kind at most.
    unsent: Vec<DatapathToSupervisor>,
}

/// Whether an answer is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It is not: it may be asked for.
    Given,
    /// It is: nobody may ask again.
    Owed,
}

impl Answer {
    /// Notes a request.
    fn owe(&mut self, what: &str) -> Result<(), ReceiveError> {
        match std::mem::replace(self, Self::Owed) {
            Self::Given => Ok(()),
            Self::Owed => Err(violation(what)),
        }
    }
}

/// The monitor's channel.
#[derive(Debug)]
pub struct Monitor {
    channel: Option<Channel<DatapathToMonitor, MonitorToDatapath>>,
    phase: Phase,
    generation: Generation,
    losses: AddressLosses,
    /// Of listening ports, by side and transport.
    ports: [[Generation; 2]; 2],
    neighbours: Generation,
    /// How many snapshots it may send.
    intake: TokenBucket,
}

impl Supervisor {
    /// Takes over the channel and says hello.
    ///
    /// # Errors
    ///
    /// If the supervisor has gone.
    pub fn handshake(fd: OwnedFd) -> Result<Self, SendError> {
        let channel = Channel::from(fd);
        channel.send(&DatapathToSupervisor::Hello(Hello::OURS))?;
        Ok(Self {
            channel,
            phase: Phase::New,
            resolvers: Generation::default(),
            ports: <[Generation; 2]>::default(),
            level: LogLevel::Info,
            withheld: 0,
            change: Answer::Given,
            status: Answer::Given,
            unsent: Vec::new(),
        })
    }

    /// The descriptor, to wait for.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Lines less important than `level` are not sent.
    pub fn set_level(&mut self, level: LogLevel) {
        self.level = level;
    }

    /// Says that the process is confined and ready.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub fn ready(&self, report: AuditReport) -> Result<(), SendError> {
        self.channel.send(&DatapathToSupervisor::Ready(Box::new(report)))
    }

    /// Reports that the first listeners in the namespace are open. If that cannot be sent, the supervisor
    /// waits in vain, for a moment.
    pub fn ports_open(&self) {
        let _ = self.channel.send(&DatapathToSupervisor::PortsOpen);
    }

    /// Says what became of a change of rules.
    pub fn changed(&mut self, result: ForwardsChanged) {
        self.change = Answer::Given;
        self.unsent.push(DatapathToSupervisor::Changed(Box::new(result)));
        self.send_unsent();
    }

    /// Says how things stand.
    pub fn status(&mut self, status: DatapathStatus) {
        self.status = Answer::Given;
        self.unsent.push(DatapathToSupervisor::Status(Box::new(status)));
        self.send_unsent();
    }

    /// Sends what the channel had no room for; gives whether all is sent.
    pub fn send_unsent(&mut self) -> bool {
        while let Some(message) = self.unsent.first() {
            if matches!(self.channel.send(message), Err(SendError::WouldBlock)) {
                return false;
            }
            // That the supervisor has gone shows on the next receive.
            self.unsent.remove(0);
        }
        true
    }

    /// Ends the talk: the supervisor sees the end of the channel.
    pub fn hang_up(&self) {
        use nix::sys::socket::{Shutdown, shutdown};
        // Fails only where the supervisor has gone.
        let _ = shutdown(self.channel.as_fd().as_raw_fd(), Shutdown::Both);
    }

    /// Says why the process ends. Nothing can be done if even that fails.
    pub fn failed(&self, why: &str) {
        let _ = self.channel.send(&DatapathToSupervisor::Failed(Text::truncated(why)));
    }

    /// Sends a line for the log; what does not fit the channel is counted and said later.
    pub fn log(&mut self, level: LogLevel, line: impl FnOnce() -> String) {
        if level > self.level {
            return;
        }
        let mut text = line();
        if self.withheld > 0 {
            text = format!("{text} ({} lines were withheld before)", self.withheld);
        }
        let record = LogRecord { level, text: Text::truncated(&text) };
        match self.channel.send(&DatapathToSupervisor::Log(record)) {
            Ok(()) => self.withheld = 0,
            Err(_) => self.withheld += 1,
        }
    }

    /// Shows the counters; a line that does not fit the channel is counted as one of the log.
    pub fn statistics(&mut self, line: &str) {
        let message = DatapathToSupervisor::Statistics(Text::truncated(line));
        if self.channel.send(&message).is_err() {
            self.withheld += 1;
        }
    }

    /// Notes lines that were withheld before they came here.
    pub fn note_withheld(&mut self, lines: u64) {
        self.withheld += lines;
    }

    /// Takes what has arrived, up to a bound; the descriptor stays readable if there is more.
    ///
    /// # Errors
    ///
    /// [`ReceiveError::Closed`] and [`ReceiveError::Violation`] end the process.
    pub fn receive(&mut self, mut handler: impl FnMut(PeerMessage)) -> Result<(), ReceiveError> {
        for _ in 0..MESSAGES {
            match self.channel.receive() {
                Err(ReceiveError::WouldBlock) => return Ok(()),
                Err(error) => return Err(error),
                Ok(received) => {
                    if let Some(message) = self.take(received)? {
                        handler(message);
                    }
                }
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        received: Received<SupervisorToDatapath>,
    ) -> Result<Option<PeerMessage>, ReceiveError> {
        let Received { message, fds } = received;
        match (self.phase, message) {
            (Phase::New, SupervisorToDatapath::Hello(hello)) => {
                expect_hello(Some(hello))?;
                self.phase = Phase::Open;
                Ok(None)
            }
            (Phase::Open, SupervisorToDatapath::Start(start)) => {
                self.phase = Phase::Started;
                // The channel has checked that it came if it was to come.
                Ok(Some(PeerMessage::Start(start, fds)))
            }
            (Phase::Open, SupervisorToDatapath::Listeners(listeners)) => {
                let listeners = listeners.as_slice().iter().cloned().zip(fds).collect();
                Ok(Some(PeerMessage::Listeners(listeners)))
            }
            (Phase::Open | Phase::Started, SupervisorToDatapath::Resolvers(snapshot)) => {
                newer(&mut self.resolvers, snapshot.generation)?;
                Ok(Some(PeerMessage::Resolvers(snapshot)))
            }
            (Phase::Open | Phase::Started, SupervisorToDatapath::Forwards(table)) => {
                let [inbound, outbound] = &mut self.ports;
                let last = match table.direction {
                    Direction::Inbound => inbound,
                    Direction::Outbound => outbound,
                };
                newer(last, table.generation)?;
                Ok(Some(PeerMessage::Forwards(table)))
            }
            (Phase::Started, SupervisorToDatapath::Change(change)) => {
                self.change.owe("a change of rules while one is under way")?;
                for last in &mut self.ports {
                    newer(last, change.generation)?;
                }
                Ok(Some(PeerMessage::Change(change)))
            }
            (Phase::Started, SupervisorToDatapath::StatusWanted { flows }) => {
                self.status.owe("a second request for the status")?;
                Ok(Some(PeerMessage::StatusWanted(flows.into())))
            }
            (Phase::Started, SupervisorToDatapath::Shutdown) => Ok(Some(PeerMessage::Shutdown)),
            (phase, message) => Err(untimely(phase, &message)),
        }
    }
}

impl Monitor {
    /// Takes over the channel and says hello.
    ///
    /// # Errors
    ///
    /// If the monitor has gone already.
    pub fn handshake(fd: OwnedFd) -> Result<Self, SendError> {
        let channel = Channel::from(fd);
        channel.send(&DatapathToMonitor::Hello(Hello::OURS))?;
        let (phase, generation) = (Phase::New, Generation::default());
        let (losses, ports, neighbours) = Default::default();
        let (channel, intake) = (Some(channel), TokenBucket::new(SNAPSHOTS.0, SNAPSHOTS.1));
        Ok(Self { channel, phase, generation, losses, ports, neighbours, intake })
    }

    /// The descriptor, to wait for; none once the monitor has gone.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// Asks for something.
    ///
    /// # Errors
    ///
    /// [`SendError`]; `Closed` also once the monitor has gone.
    pub fn ask(&self, message: &DatapathToMonitor) -> Result<(), SendError> {
        self.channel.as_ref().ok_or(SendError::Closed)?.send(message)
    }

    /// As [`Supervisor::receive`]; the monitor's end is a message and no error.
    ///
    /// # Errors
    ///
    /// [`ReceiveError::Violation`] ends the process.
    pub fn receive(
        &mut self,
        now: Instant,
        mut handler: impl FnMut(PeerMessage),
    ) -> Result<(), ReceiveError> {
        for _ in 0..MESSAGES {
            let Some(channel) = &self.channel else { return Ok(()) };
            let Received { message, fds } = match channel.receive() {
                Err(ReceiveError::WouldBlock) => return Ok(()),
                Err(ReceiveError::Closed | ReceiveError::Io(_)) => {
                    self.channel = None;
                    handler(PeerMessage::MonitorGone);
                    return Ok(());
                }
                Err(error) => return Err(error),
                Ok(received) => received,
            };
            let is_snapshot = matches!(
                message,
                MonitorToDatapath::Network(_)
                    | MonitorToDatapath::Neighbours(_)
                    | MonitorToDatapath::Ports(_)
            );
            if is_snapshot && self.intake.take(Duration::from_nanos(now.as_nanos())).is_err() {
                return Err(violation("snapshots without end"));
            }
            match (self.phase, message) {
                (Phase::New, MonitorToDatapath::Hello(hello)) => {
                    expect_hello(Some(hello))?;
                    self.phase = Phase::Open;
                }
                (Phase::Open, MonitorToDatapath::Network(snapshot)) => {
                    newer(&mut self.generation, snapshot.generation)?;
                    if snapshot.losses < self.losses {
                        return Err(violation("count of lost addresses fell"));
                    }
                    self.losses = snapshot.losses;
                    handler(PeerMessage::Network(snapshot));
                }
                (Phase::Open, MonitorToDatapath::Neighbours(snapshot)) => {
                    newer(&mut self.neighbours, snapshot.generation)?;
                    handler(PeerMessage::Neighbours(snapshot));
                }
                (Phase::Open, MonitorToDatapath::Ports(snapshot)) => {
                    let [[host_tcp, host_udp], [tcp, udp]] = &mut self.ports;
                    let last = match (snapshot.side, snapshot.transport) {
                        (PortSide::Host, Transport::Tcp) => host_tcp,
                        (PortSide::Host, Transport::Udp) => host_udp,
                        (PortSide::Namespace, Transport::Tcp) => tcp,
                        (PortSide::Namespace, Transport::Udp) => udp,
                    };
                    newer(last, snapshot.generation)?;
                    handler(PeerMessage::Ports(snapshot));
                }
                (
                    Phase::Open,
                    MonitorToDatapath::Sockets { request, .. }
                    | MonitorToDatapath::Listener { request },
                ) => handler(PeerMessage::Sockets(request, fds)),
                (Phase::Open, MonitorToDatapath::Refused { request, why }) => {
                    handler(PeerMessage::Refused(request, why));
                }
                (phase, message) => return Err(untimely(phase, &message)),
            }
        }
        Ok(())
    }
}

fn violation(why: &str) -> ReceiveError {
    ReceiveError::Violation(why.to_owned())
}

fn untimely(phase: Phase, message: &impl std::fmt::Debug) -> ReceiveError {
    let name: String = format!("{message:?}").chars().take_while(|c| c.is_alphanumeric()).collect();
    ReceiveError::Violation(format!("{name} is not allowed in phase {phase:?}"))
}

/// Generations only grow; the channel keeps order, so anything else is not an old snapshot but a lie.
fn newer(last: &mut Generation, next: Generation) -> Result<(), ReceiveError> {
    if next <= *last {
        return Err(violation("generation of a snapshot did not grow"));
    }
    *last = next;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::types::{Bounded, Completeness, FamilySnapshot};

    type MonitorEnd = Channel<MonitorToDatapath, DatapathToMonitor>;

    fn monitor() -> (Monitor, MonitorEnd) {
        let (ours, theirs) = Channel::<DatapathToMonitor, MonitorToDatapath>::pair().unwrap();
        (Monitor::handshake(ours.into()).unwrap(), theirs)
    }

    fn network(generation: u64, losses: u64) -> MonitorToDatapath {
        MonitorToDatapath::Network(Box::new(NetworkSnapshot {
            generation: Generation(generation),
            ipv4: FamilySnapshot::off(),
            ipv6: FamilySnapshot::off(),
            mtu: None,
            offered_mtu: None,
            losses: AddressLosses(losses),
            completeness: Completeness::Complete,
        }))
    }

    #[test]
    fn snapshots_are_taken_after_hello_and_must_grow() {
        let (mut monitor, theirs) = monitor();
        theirs.send(&MonitorToDatapath::Hello(Hello::OURS)).unwrap();
        theirs.send(&network(2, 0)).unwrap();
        let mut count = 0;
        monitor.receive(Instant::START, |_| count += 1).unwrap();
        assert_eq!(count, 1);
        theirs.send(&network(2, 0)).unwrap();
        assert!(matches!(monitor.receive(Instant::START, |_| ()), Err(ReceiveError::Violation(_))));
    }

    #[test]
    fn count_of_lost_addresses_never_falls() {
        let (mut monitor, theirs) = monitor();
        theirs.send(&MonitorToDatapath::Hello(Hello::OURS)).unwrap();
        for (generation, losses) in [(1, 5), (2, 5), (3, 6)] {
            theirs.send(&network(generation, losses)).unwrap();
        }
        monitor.receive(Instant::START, |_| ()).unwrap();
        theirs.send(&network(4, 5)).unwrap();
        assert!(matches!(monitor.receive(Instant::START, |_| ()), Err(ReceiveError::Violation(_))));
    }

    #[test]
    fn snapshot_before_hello_is_a_violation_that_names_it() {
        let (mut monitor, theirs) = monitor();
        theirs.send(&network(1, 0)).unwrap();
        let error = monitor.receive(Instant::START, |_| ()).unwrap_err();
        assert!(error.to_string().contains("Network is not allowed"), "{error}");
    }

    #[test]
    fn end_of_the_monitor_is_reported_once() {
        let (mut monitor, theirs) = monitor();
        drop(theirs);
        let mut gone = 0;
        monitor
            .receive(Instant::START, |message| {
                gone += u32::from(matches!(message, PeerMessage::MonitorGone))
            })
            .unwrap();
        monitor.receive(Instant::START, |_| gone += 1).unwrap();
        assert_eq!(gone, 1);
    }

    #[test]
    fn supervisor_may_say_nothing_before_hello_and_repeat_no_generation() {
        let (ours, theirs) = Channel::<DatapathToSupervisor, SupervisorToDatapath>::pair().unwrap();
        let mut supervisor = Supervisor::handshake(ours.into()).unwrap();
        let snapshot = ResolverSnapshot {
            generation: Generation(1),
            servers: Bounded::default(),
            search: Bounded::default(),
        };
        let resolvers = SupervisorToDatapath::Resolvers(snapshot);
        theirs.send(&SupervisorToDatapath::Hello(Hello::OURS)).unwrap();
        theirs.send(&resolvers).unwrap();
        assert!(
            supervisor
                .receive(|message| assert!(matches!(message, PeerMessage::Resolvers(_))))
                .is_ok()
        );
        theirs.send(&resolvers).unwrap();
        assert!(matches!(supervisor.receive(|_| ()), Err(ReceiveError::Violation(_))));

        let (ours, theirs) = Channel::<DatapathToSupervisor, SupervisorToDatapath>::pair().unwrap();
        let mut supervisor = Supervisor::handshake(ours.into()).unwrap();
        theirs.send(&resolvers).unwrap();
        assert!(matches!(supervisor.receive(|_| ()), Err(ReceiveError::Violation(_))));
    }

    #[test]
    fn each_direction_of_rules_counts_its_own_generations() {
        let (ours, theirs) = Channel::<DatapathToSupervisor, SupervisorToDatapath>::pair().unwrap();
        let mut supervisor = Supervisor::handshake(ours.into()).unwrap();
        theirs.send(&SupervisorToDatapath::Hello(Hello::OURS)).unwrap();
        for direction in [Direction::Inbound, Direction::Outbound] {
            let (generation, rules) = (Generation(1), Bounded::default());
            let table = ForwardTable { generation, direction, rules };
            theirs.send(&SupervisorToDatapath::Forwards(Box::new(table))).unwrap();
        }
        let mut tables = 0;
        supervisor.receive(|_| tables += 1).unwrap();
        assert_eq!(tables, 2);
    }

    #[test]
    fn monitor_that_sends_snapshots_without_end_breaks_the_protocol() {
        let (mut monitor, theirs) = monitor();
        theirs.send(&MonitorToDatapath::Hello(Hello::OURS)).unwrap();
        let mut send = |generation: u64, now| {
            theirs.send(&network(generation, 0)).unwrap();
            monitor.receive(now, |_| ())
        };
        let at_once = u64::from(SNAPSHOTS.1);
        for generation in 1..=at_once {
            send(generation, Instant::START).unwrap();
        }
        let next = Instant::START + Duration::from_millis(1);
        send(at_once + 1, next).unwrap();
        assert!(send(at_once + 2, next).unwrap_err().to_string().contains("without end"));
    }
}
