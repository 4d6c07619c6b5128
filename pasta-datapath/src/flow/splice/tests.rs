use super::*;
use crate::sys::pipe::Pipe;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// A flow between two pairs of sockets; the far ends are the client's and the service's.
struct Joined {
    flow: SpliceFlow<OwnedFd, Pipe>,
    pipes: Pipes<Pipe>,
    scratch: Vec<u8>,
    client: UnixStream,
    service: UnixStream,
}

fn pair() -> (OwnedFd, UnixStream) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
    (ours, UnixStream::from(theirs))
}

fn joined() -> Joined {
    let (initiating, client) = pair();
    let (target, service) = pair();
    let mut flow = SpliceFlow::new(initiating, ([192, 0, 2, 2], 80).into(), None);
    flow.target = Target::Connected(target);
    Joined { flow, pipes: Pipes::new(16), scratch: vec![0; SMALL], client, service }
}

impl Joined {
    /// What epoll would say: both sockets can be read and written.
    fn turn(&mut self) -> Next {
        for side in [Side::Initiating, Side::Target] {
            self.flow.readable(side);
            self.flow.writable(side);
        }
        self.flow.run(&mut self.pipes, &mut self.scratch)
    }

    /// Sends `octets` from the client, and reads them at the service as they come.
    fn carry(&mut self, octets: &[u8]) -> Vec<u8> {
        let (mut sent, mut got) = (0, Vec::new());
        let mut buffer = vec![0; 100_000];
        while got.len() < octets.len() {
            match self.client.write(&octets[sent..]) {
                Ok(written) => sent += written,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(matches!(self.turn(), Next::Wait | Next::More));
            match self.service.read(&mut buffer) {
                Ok(read) => got.extend_from_slice(&buffer[..read]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        got
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect()
}

#[test]
fn octets_arrive_in_order_whatever_their_number() {
    for len in [1, 100, SMALL - 1, SMALL, SMALL + 1, 1_000_000, 5_000_000] {
        let mut joined = joined();
        let octets = pattern(len);
        assert!(joined.carry(&octets) == octets, "{len} octets");
        assert!(joined.pipes.made() <= 1);
    }
}

#[test]
fn blocked_output_keeps_what_was_read_and_loses_nothing() {
    let mut joined = joined();
    let octets = pattern(3_000_000);
    let mut sent = 0;
    // Until nothing moves any more.
    loop {
        let before = sent;
        while let Ok(written) = joined.client.write(&octets[sent..]) {
            sent += written;
            if sent == octets.len() {
                break;
            }
        }
        joined.turn();
        if sent == before {
            break;
        }
    }
    assert!(sent < octets.len(), "nothing was blocked");
    let mut got = Vec::new();
    let mut buffer = vec![0; 100_000];
    while got.len() < sent {
        match joined.service.read(&mut buffer) {
            Ok(read) => got.extend_from_slice(&buffer[..read]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        joined.turn();
    }
    assert!(got == octets[..sent]);
}

#[test]
fn small_messages_use_no_pipe_and_come_back_too() {
    let mut joined = joined();
    for n in 0..100_u8 {
        joined.client.write_all(&[n; 50]).unwrap();
        assert_eq!(joined.turn(), Next::Wait);
        let mut buffer = [0; 50];
        joined.service.read_exact(&mut buffer).unwrap();
        assert_eq!(buffer, [n; 50]);
        joined.service.write_all(&buffer).unwrap();
        assert_eq!(joined.turn(), Next::Wait);
        joined.client.read_exact(&mut buffer).unwrap();
    }
    assert_eq!(joined.pipes.made(), 0);
}

#[test]
fn each_direction_ends_by_itself_and_the_flow_with_the_second() {
    let mut joined = joined();
    joined.client.write_all(b"question").unwrap();
    joined.client.shutdown(std::net::Shutdown::Write).unwrap();
    joined.flow.hung_up(Side::Initiating);
    assert_eq!(joined.turn(), Next::Wait);
    joined.service.set_nonblocking(false).unwrap();
    let mut question = String::new();
    joined.service.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");

    joined.service.write_all(b"answer").unwrap();
    assert_eq!(joined.turn(), Next::Wait);
    joined.service.shutdown(std::net::Shutdown::Write).unwrap();
    joined.flow.hung_up(Side::Target);
    assert_eq!(joined.turn(), Next::Over);
    joined.client.set_nonblocking(false).unwrap();
    let mut answer = String::new();
    joined.client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[test]
fn peer_that_is_gone_breaks_the_flow_off() {
    let mut joined = joined();
    drop(joined.service);
    joined.client.write_all(b"x").unwrap();
    joined.flow.readable(Side::Initiating);
    assert_eq!(joined.flow.run(&mut joined.pipes, &mut joined.scratch), Next::Reset);
}

#[test]
fn nothing_moves_before_the_target_is_connected() {
    let (initiating, mut client) = pair();
    let (target, mut service) = pair();
    let (first, second) = (([192, 0, 2, 2], 80).into(), ([192, 0, 2, 3], 80).into());
    let mut flow = SpliceFlow::new(initiating, first, Some(second));
    let (mut pipes, mut scratch) = (Pipes::<Pipe>::new(16), vec![0; SMALL]);
    client.write_all(b"early").unwrap();
    assert!(flow.wants_socket());
    assert_eq!(flow.run(&mut pipes, &mut scratch), Next::Wait);
    assert!(flow.try_otherwise() && flow.destination() == second && !flow.try_otherwise());
    flow.target = Target::Connecting(target);
    assert!(!flow.wants_socket());
    assert_eq!(flow.run(&mut pipes, &mut scratch), Next::Wait);
    flow.connected();
    assert_eq!(flow.run(&mut pipes, &mut scratch), Next::Wait);
    let mut buffer = [0; 5];
    service.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"early");
}

#[test]
fn stream_goes_on_where_no_pipe_can_be_had() {
    let mut joined = joined();
    let lent: Vec<_> = std::iter::from_fn(|| joined.pipes.borrow()).collect();
    assert!(!lent.is_empty());
    setsockopt(&joined.client, sockopt::SndBuf, &20_000).unwrap();
    let octets = pattern(400_000);
    assert!(joined.carry(&octets) == octets);
    for pipe in lent {
        joined.pipes.give_back(pipe);
    }
}
