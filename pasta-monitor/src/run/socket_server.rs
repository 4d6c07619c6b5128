//! Serves the datapath's socket requests: opens sockets in the namespace and passes them on.

use crate::run::RunError;
use crate::run::clock::Clock;
use nix::errno::Errno;
use pasta_ipc::port_forward::ForwardRule;
use pasta_ipc::socket::{
    ListenerAddress, NamespaceListener, Refusal, RequestId, SocketCount, SocketFamily, SocketKind,
    new_socket,
};
use pasta_ipc::start::MonitorStart;
use pasta_ipc::types::IfName;
use pasta_ipc::{DatapathToMonitor, MonitorToDatapath, SendError};
use pasta_monitor::peer::ToDatapath;
use pasta_monitor::sockets::{Gate, Order, Verdict};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

/// Answers the datapath's requests, one at a time and in their order.
#[derive(Debug)]
pub(super) struct SocketServer {
    gate: Gate,
    clock: Clock,
    /// An answer that the channel had no room for.
    waiting: Option<Answer>,
}

/// An answer and its descriptors, which are closed here once it is sent.
#[derive(Debug)]
struct Answer {
    message: MonitorToDatapath,
    sockets: Vec<OwnedFd>,
}

impl SocketServer {
    /// Serves what `start` allows.
    pub(super) fn new(start: &MonitorStart) -> Self {
        Self { gate: Gate::new(start), clock: Clock::default(), waiting: None }
    }

    /// From now on the datapath may listen in the namespace on the ports of `rules`.
    pub(super) fn allow(&mut self, rules: &[ForwardRule]) {
        self.gate.allow(rules);
    }

    /// Whether an answer is still to be sent. Until it is, nothing may be asked.
    pub(super) fn is_behind(&self) -> bool {
        self.waiting.is_some()
    }

    /// Does what `message` asks for, and answers or notes the answer.
    pub(super) fn serve(
        &mut self,
        message: &DatapathToMonitor,
        datapath: &ToDatapath,
    ) -> Result<(), RunError> {
        let Some(verdict) = self.gate.decide(self.clock.now(), message) else { return Ok(()) };
        self.waiting = Some(answer(verdict));
        self.catch_up(datapath)
    }

    /// Sends the answer that waits, if there is one and there is room.
    pub(super) fn catch_up(&mut self, datapath: &ToDatapath) -> Result<(), RunError> {
        while let Some(answer) = self.waiting.take() {
            let fds: Vec<_> = answer.sockets.iter().map(AsFd::as_fd).collect();
            match datapath.send_with(&answer.message, &fds) {
                // That the datapath is gone shows on the next receive.
                Ok(()) | Err(SendError::Closed) => {}
                Err(SendError::WouldBlock) => {
                    self.waiting = Some(answer);
                    return Ok(());
                }
                Err(SendError::Io(error)) => {
                    self.waiting = Some(answer.refused_by(error)?);
                }
            }
        }
        Ok(())
    }
}

impl Answer {
    fn refusal(request: RequestId, why: Refusal) -> Self {
        Self { message: MonitorToDatapath::Refused { request, why }, sockets: Vec::new() }
    }

    /// What to say instead where the kernel does not let this answer through.
    ///
    /// It bounds how many descriptors of a user are in flight, and how much memory a message may take
    /// now; both pass.
    fn refused_by(self, error: io::Error) -> Result<Self, RunError> {
        let passing = [Errno::ETOOMANYREFS, Errno::ENOBUFS, Errno::ENOMEM];
        let passes = passing.map(|it| Some(it as i32)).contains(&error.raw_os_error());
        match self.message {
            MonitorToDatapath::Sockets { request, .. }
            | MonitorToDatapath::Listener { request }
                if passes =>
            {
                Ok(Self::refusal(request, Refusal::Busy))
            }
            _ => Err(RunError::Send(error)),
        }
    }
}

/// Makes what was decided to be made.
fn answer(verdict: Verdict) -> Answer {
    let Verdict { request, outcome } = verdict;
    let made = outcome.and_then(|order| match order {
        Order::Sockets(kind, count) => {
            let (sockets, count) = connecting(kind, count).map_err(failed)?;
            Ok(Answer { message: MonitorToDatapath::Sockets { request, count }, sockets })
        }
        Order::Listener(wanted) => {
            let sockets = vec![listening(wanted).map_err(failed)?];
            Ok(Answer { message: MonitorToDatapath::Listener { request }, sockets })
        }
    });
    made.unwrap_or_else(|why| Answer::refusal(request, why))
}

fn failed(errno: Errno) -> Refusal {
    Refusal::Failed(errno as i32)
}

/// Up to `count` sockets of `kind`, neither bound nor connected: as many as can be had, at least one.
fn connecting(kind: SocketKind, count: SocketCount) -> Result<(Vec<OwnedFd>, SocketCount), Errno> {
    let mut sockets = Vec::with_capacity(count.get().into());
    let mut why = Errno::EMFILE;
    for _ in 0..count.get() {
        match new_socket(kind.transport, kind.ipv6) {
            Ok(socket) => sockets.push(socket),
            Err(errno) => {
                why = errno;
                break;
            }
        }
    }
    let made = u8::try_from(sockets.len()).map_err(|_| why)?;
    let made = SocketCount::try_from(made).map_err(|_| why)?;
    Ok((sockets, made))
}

/// A listener on the namespace's loopback, whatever address of it is asked for.
fn listening(wanted: NamespaceListener) -> Result<OwnedFd, Errno> {
    let NamespaceListener { transport, family, port } = wanted;
    let open = |address, interface| {
        ListenerAddress { transport, address, interface, port }
            .open(family, pasta_ipc::socket::FreeBind::Off)
    };
    let loopback = IfName::try_from("lo".to_owned()).map_err(|_| Errno::ENODEV)?;
    // A kernel before 5.7 lets only the privileged bind to a device. An address does the same there,
    // but one socket has one.
    match (open(None, Some(loopback)), family) {
        (Err(Errno::EPERM), SocketFamily::Ipv4) => open(Some(Ipv4Addr::LOCALHOST.into()), None),
        (Err(Errno::EPERM), SocketFamily::Ipv6) => open(Some(Ipv6Addr::LOCALHOST.into()), None),
        (opened, _) => opened,
    }
}

#[cfg(test)]
mod tests;
