//! `pasta-datapath`: started by `pasta`, never by hand.
//!
//! Order: harden, say hello, give up every namespace that can be given up, hear what there is to do,
//! prepare descriptors, give up everything else, say that we are ready, read the first frame.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use pasta_datapath::control::{Monitor, PeerMessage, Supervisor};
use pasta_datapath::link::Link;
use pasta_datapath::link::responder::Responder;
use pasta_datapath::log::Log;
use pasta_datapath::nat::Nat;
use pasta_datapath::nat::inbound::LocalPolicy;
use pasta_datapath::port_forward;
use pasta_datapath::reactor::{self, Ended, Reactor, RunError, Stack};
use pasta_datapath::stack::Limits;
use pasta_datapath::sys;
use pasta_datapath::sys::fd_budget::FdBudget;
use pasta_datapath::sys::host::HostSockets;
use pasta_datapath::sys::socket::probe_send_buffer;
use pasta_datapath::sys::tap::Tap;
use pasta_ipc::ReceiveError;
use pasta_ipc::port_forward::Direction;
use pasta_ipc::socket::SocketFamily;
use pasta_ipc::start::{Captured, DatapathStart, RuleChanges, Services};
use pasta_ipc::types::LogLevel;
use seccomp::ports::{BindPorts, Ports};
use seccomp::{Confinement, Isolated, Keep, Role};
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

/// Where the launcher puts our ends of the channels.
const SUPERVISOR: i32 = 3;
const MONITOR: i32 = 4;

/// Exit status after a peer broke the protocol.
const VIOLATION: u8 = 3;

/// Most flows; each is a descriptor and some 1,000 octets of ours.
const MAX_FLOWS: usize = 131_071;

fn main() -> ExitCode {
    // Until then its user may trace it: it takes nothing before.
    let hardened = seccomp::harden_early();
    let Some((supervisor, monitor)) = inherited() else {
        eprintln!("pasta-datapath is started by pasta, not by hand");
        return ExitCode::FAILURE;
    };
    let mut supervisor = match Supervisor::handshake(supervisor) {
        Ok(supervisor) => supervisor,
        // Nobody can receive the error.
        Err(_) => return ExitCode::FAILURE,
    };
    report_panics();
    let started = match hardened {
        Ok(()) => start(&mut supervisor, monitor),
        Err(error) => Err(failed("cannot harden the process")(&error)),
    };
    match started {
        Ok(Some(begin)) => serve(supervisor, begin),
        Ok(None) => ExitCode::SUCCESS,
        Err(why) => {
            supervisor.failed(&why);
            ExitCode::FAILURE
        }
    }
}

fn inherited() -> Option<(OwnedFd, OwnedFd)> {
    Some((sys::inherited(SUPERVISOR)?, sys::inherited(MONITOR)?))
}

/// What is known and open when start-up is over.
struct Begin {
    start: Box<DatapathStart>,
    /// The tap and the capture file, as far as there are any.
    fds: Vec<OwnedFd>,
    monitor: Monitor,
    isolated: Isolated,
    /// What was said before the options: resolvers, rules, listeners.
    before: Vec<PeerMessage>,
}

fn failed(what: &'static str) -> impl Fn(&dyn Display) -> String {
    move |error| format!("{what}: {error}")
}

/// Everything up to the options; `None` if the supervisor went away meanwhile.
fn start(supervisor: &mut Supervisor, monitor: OwnedFd) -> Result<Option<Begin>, String> {
    let isolated = seccomp::isolate_datapath().map_err(|e| failed("cannot isolate")(&e))?;
    let monitor = Monitor::handshake(monitor).map_err(|e| failed("monitor")(&e))?;
    let (mut begin, mut before) = (None, Vec::new());
    while begin.is_none() {
        let mut fds = [PollFd::new(supervisor.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failed("cannot wait for the supervisor")(&errno)),
        }
        let mut shutdown = false;
        let received = supervisor.receive(|message| match message {
            PeerMessage::Start(start, fds) => begin = Some((start, fds)),
            PeerMessage::Shutdown => shutdown = true,
            other => before.push(other),
        });
        match received {
            Ok(()) if shutdown => return Ok(None),
            Ok(()) => {}
            Err(ReceiveError::Closed) => return Ok(None),
            Err(error) => return Err(failed("supervisor")(&error)),
        }
    }
    Ok(begin.map(|(start, fds)| Begin { start, fds, monitor, isolated, before }))
}

fn serve(mut supervisor: Supervisor, begin: Begin) -> ExitCode {
    let Begin { start, fds, monitor, isolated, before } = begin;
    supervisor.set_level(start.log_level);
    let mut fds = fds.into_iter();
    let mut tap = match &start.tap {
        Some(info) => fds.next().map_or_else(Tap::none, |fd| Tap::new(fd, info)),
        None => Tap::none(),
    };
    let capture = fds.next().filter(|_| start.capture == Captured::Yes);
    let keep = Keep { capture: capture.is_some(), ..Keep::NOTHING };
    if let Some(file) = capture {
        // A limit on file sizes is to end the capture, not the process.
        if let Err(errno) = sys::ignore_file_size_signal() {
            return give_up(&mut supervisor, &errno);
        }
        tap.capture_to(file);
    }
    let families = SocketFamily::served(start.ipv4.service, start.ipv6.service);
    let mut nat = Nat::new(start.ipv4, start.ipv6);
    nat.limit_to(start.services.protocols);
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard);
    let fd_budget = FdBudget::of_process(descriptors);
    let flows = fd_budget.limit().min(MAX_FLOWS);
    let local = LocalPolicy { splice: start.splice, loopback: start.loopback };
    let mac = start.tap.as_ref().map_or(start.our_mac, |tap| tap.mac);
    let poller = match reactor::poller(&tap, &supervisor, &monitor) {
        Ok(poller) => poller,
        Err(error) => return give_up(&mut supervisor, &error),
    };
    // Half of the ports that are given to programs are left to those of the host, whatever ports ours have.
    let ports = start.ephemeral_ports.count() / 2;
    let ports = usize::try_from(ports).unwrap_or(usize::MAX).max(1);
    let limits = Limits { fd_budget, flows, ports, send_buffer: probe_send_buffer() };
    let (mut link, ports) =
        (Link::new(tap, start.our_mac, mac), port_forward::Ports::new(local, families));
    let Services { responders, clients, .. } = start.services;
    link.responder = Responder::new(responders, clients, RandomState::new().hash_one(0));
    let log = Log::new(start.log_level);
    let stack =
        Stack::new(HostSockets::new(poller, start.free_bind), link, nat, ports, log, limits);
    let mut reactor = Reactor::new(stack, supervisor, monitor);
    if let Some(seconds) = start.stats {
        reactor.show_counters(seconds);
    }
    let bind = match start.changes {
        // Which ports will be named is not known.
        RuleChanges::Possible => BindPorts { tcp: Ports::Any, udp: Ports::Any },
        RuleChanges::Never => inbound_ports(&before),
    };
    for message in before {
        if let Err(error) = reactor.handle_message(message) {
            return give_up(reactor.supervisor(), &error);
        }
    }
    let what = Confinement { bind, keep, ..Confinement::least(Role::Datapath, isolated) };
    let confined = seccomp::confine(what, Some(reactor.supervisor().as_fd()));
    let (confined, report) = match confined {
        Ok(done) => done,
        Err(error) => return give_up(reactor.supervisor(), &error),
    };
    if let Err(error) = reactor.supervisor().ready(report) {
        return give_up(reactor.supervisor(), &error);
    }
    match reactor.run(&confined) {
        Ok(Ended::Asked) => ExitCode::SUCCESS,
        Ok(Ended::TapGone(errno)) => {
            let line = || format!("the tap has gone ({errno}): the namespace has no network now");
            reactor.supervisor().log(LogLevel::Warn, line);
            ExitCode::SUCCESS
        }
        Err(error) => {
            reactor.supervisor().failed(&error.to_string());
            match error {
                RunError::Peer(..) => ExitCode::from(VIOLATION),
                RunError::Wait(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// The ports that the rules lead in by.
fn inbound_ports(before: &[PeerMessage]) -> BindPorts {
    let inbound = before.iter().rev().find_map(|message| match message {
        PeerMessage::Forwards(table) if table.direction == Direction::Inbound => Some(table),
        _ => None,
    });
    inbound.map_or_else(BindPorts::none, |table| BindPorts::of(table.rules.as_slice()))
}

fn give_up(supervisor: &mut Supervisor, error: &dyn Display) -> ExitCode {
    supervisor.failed(&error.to_string());
    ExitCode::FAILURE
}

/// A panic is reported with its place, without any octet of a frame, and ends the process by a call
/// that the filter allows: `abort` would look like a forbidden one.
fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |at| format!(" at {at}"));
        sys::say_last(SUPERVISOR, &format!("panicked{place}"));
        sys::exit_now(134);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::process::Command;

    /// Set for the process that is to panic.
    const PANICS: &str = "PASTA_TEST_PANICS";

    #[test]
    fn panic_ends_the_process_with_134_and_shows_nothing_of_its_message() {
        if env::var_os(PANICS).is_some() {
            report_panics();
            panic!("octets of a frame");
        }
        let mut again = Command::new(env::current_exe().unwrap());
        again.args([
            "--exact",
            "tests::panic_ends_the_process_with_134_and_shows_nothing_of_its_message",
        ]);
        let ended = again.args(["--nocapture"]).env(PANICS, "yes").output().unwrap();
        assert_eq!(ended.status.code(), Some(134), "{ended:?}");
        let said = [ended.stdout, ended.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("running 1 test") && !said.contains("octets"), "{said}");
    }
}
