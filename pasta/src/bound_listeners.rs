//! The host's listeners of explicit port forwards: bound here, with the caller's rights, and sent to the
//! datapath.
//!
//! A port that cannot be bound ends the start, and one in use is tried again for a moment before: an engine
//! that restarts a container unlinks its namespace and starts us for the next one at once, while the
//! instance before us is about to close the same ports. The datapath itself binds the ports of best-effort
//! rules.

use nix::errno::Errno;
use pasta_ipc::port_forward::{Effort, ForwardRule};
use pasta_ipc::socket::{FreeBind, ListenerAddress, MAX_LISTENERS, SocketFamily};
use pasta_ipc::types::{Bounded, Service, Transport};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

/// How long ports in use are tried again, all together. An instance that ends closes its listeners within
/// some 20 ms on an idle machine.
const IN_USE_LIMIT: Duration = Duration::from_millis(500);

/// Pause between two attempts.
const IN_USE_INTERVAL: Duration = Duration::from_millis(5);

/// Listeners, each with its address.
#[derive(Debug, Default)]
pub(crate) struct BoundListeners(Vec<(ListenerAddress, OwnedFd)>);

/// A port of a rule that cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenError {
    transport: Transport,
    address: Option<IpAddr>,
    port: u16,
    errno: Errno,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, address, port, errno } = self;
        write!(f, "cannot listen on {transport} port {port}")?;
        if let Some(address) = address {
            write!(f, " at {address}")?;
        }
        write!(f, ": {}", errno.desc())?;
        match errno {
            Errno::EACCES | Errno::EPERM => write!(
                f,
                " (ports below the sysctl net.ipv4.ip_unprivileged_port_start need the capability \
                 CAP_NET_BIND_SERVICE)"
            ),
            Errno::EMFILE => write!(f, " (raise the limit of open files, ulimit -Hn)"),
            Errno::ENODEV => write!(f, " (there is no such interface)"),
            Errno::EADDRNOTAVAIL => {
                write!(f, " (--freebind listens there before the host has the address)")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ListenError {}

impl BoundListeners {
    /// Binds every port of the explicit `rules`, for the families that are served; with `free_bind` also at
    /// addresses that the host does not have.
    ///
    /// # Errors
    ///
    /// [`ListenError`] for the first port that cannot be bound.
    pub(crate) fn open(
        rules: &[ForwardRule],
        ipv4: Service,
        ipv6: Service,
        free_bind: FreeBind,
    ) -> Result<Self, ListenError> {
        let families = SocketFamily::served(ipv4, ipv6);
        let mut listeners = Vec::new();
        let deadline = Instant::now() + IN_USE_LIMIT;
        for rule in rules.iter().filter(|rule| rule.effort() == Effort::Explicit) {
            for port in rule.ports().iter().filter_map(NonZeroU16::new) {
                let at = ListenerAddress {
                    transport: rule.transport(),
                    address: rule.listen(),
                    interface: rule.interface().cloned(),
                    port,
                };
                let opened = once_free(deadline, || at.open(families, free_bind));
                let socket = opened.map_err(|errno| ListenError {
                    transport: at.transport,
                    address: at.address,
                    port: port.get(),
                    errno,
                })?;
                listeners.push((at, socket));
            }
        }
        Ok(Self(listeners))
    }

    /// All listeners, in groups that fit one message.
    pub(crate) fn batches(
        &self,
    ) -> impl Iterator<Item = (Bounded<ListenerAddress, MAX_LISTENERS>, Vec<BorrowedFd<'_>>)> {
        self.0.chunks(MAX_LISTENERS).map(|batch| {
            let addresses = batch.iter().map(|(at, _)| at.clone());
            let sockets = batch.iter().map(|(_, socket)| socket.as_fd()).collect();
            (Bounded::truncated(addresses).0, sockets)
        })
    }
}

/// Opens a listener, and until `deadline` once more while its port is in use.
fn once_free(
    deadline: Instant,
    open: impl Fn() -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    loop {
        match open() {
            Err(Errno::EADDRINUSE) if Instant::now() < deadline => thread::sleep(IN_USE_INTERVAL),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::port_forward::RawRule;
    use pasta_ipc::types::PortRange;
    use std::net::{Ipv4Addr, TcpListener};

    fn rule(address: Ipv4Addr, port: u16, effort: Effort) -> ForwardRule {
        ForwardRule::try_from(RawRule {
            transport: Transport::Tcp,
            listen: Some(address.into()),
            interface: None,
            ports: PortRange::new(port, port).unwrap(),
            target: None,
            target_first: port,
            effort,
        })
        .unwrap()
    }

    #[test]
    fn only_explicit_ports_are_bound_and_one_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let open = |address, effort| {
            BoundListeners::open(
                &[rule(address, port, effort)],
                Service::On,
                Service::On,
                FreeBind::Off,
            )
        };
        let (here, free) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
        assert!(open(here, Effort::Auto).unwrap().0.is_empty());
        assert!(open(here, Effort::BestEffort).unwrap().0.is_empty());
        let error = open(here, Effort::Explicit).unwrap_err();
        assert_eq!(error.errno, Errno::EADDRINUSE);
        assert_eq!(
            error.to_string(),
            format!("cannot listen on TCP port {port} at 127.0.0.1: Address already in use")
        );
        // Not the address that was taken: a process that another test is starting may hold it open.
        let listeners = open(free, Effort::Explicit).unwrap();
        let (addresses, sockets) = listeners.batches().next().unwrap();
        assert_eq!((addresses.as_slice().len(), sockets.len()), (1, 1));
        assert_eq!(addresses.as_slice()[0].port.get(), port);
    }

    #[test]
    fn port_that_is_closed_a_moment_later_is_bound() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let closing = thread::spawn(move || {
            thread::sleep(4 * IN_USE_INTERVAL);
            drop(taken);
        });
        let rules = [rule(Ipv4Addr::LOCALHOST, port, Effort::Explicit)];
        let open = BoundListeners::open(&rules, Service::On, Service::On, FreeBind::Off);
        closing.join().unwrap();
        assert_eq!(open.unwrap().0.len(), 1);
    }
}
