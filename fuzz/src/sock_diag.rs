//! Lists of sockets, as a kernel that has gone mad may send them.

use pasta_ipc::port_forward::{LoopbackTarget, PortSide};
use pasta_monitor::ports::sock_diag::{Part, parts};
use pasta_monitor::ports::{Look, Progress};

/// Octets of a netlink header, and of what is read of a socket.
const LEAST: usize = 16 + 44;

/// Reads `octets` as one datagram of an answer.
///
/// # Panics
///
/// If there are more sockets than fit, if reading goes on after what cannot be read, or if equal
/// octets give different answers.
pub fn check(octets: &[u8]) {
    let all: Vec<_> = parts(octets, 1).collect();
    assert_eq!(all, parts(octets, 1).collect::<Vec<_>>());
    let sockets = all.iter().filter(|part| matches!(part, Ok(Part::Socket(_)))).count();
    assert!(sockets <= octets.len() / LEAST);
    let bad = all.iter().position(Result::is_err);
    assert!(bad.is_none_or(|at| at + 1 == all.len()), "nothing follows what is malformed");

    for side in [PortSide::Host, PortSide::Namespace] {
        let mut look = Look::new(side, LoopbackTarget::Loopback);
        look.begin();
        assert!(look.question().is_some());
        let progress = look.take_in(octets);
        // The first of two lists of TCP: nothing is concluded, and it is not over.
        assert_ne!(progress, Ok(Progress::Over));
        assert!(look.pending().is_none());
    }
}
