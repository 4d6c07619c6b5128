//! Servers of the namespace that are slow to accept: what comes to a full queue arrives once there is a place.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::thread;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use tests::harness::{self, Case};
use tests::lab::admin::Inside;
use tests::lab::{Family, Lab, Machine, Session, wait};
use tests::pattern::Pattern;
use tests::{Outcome, case};

/// Clients at once, and how many connections the server's queue holds.
const CLIENTS: usize = 8;
const BACKLOG: i32 = 2;

/// Segments that the full queue has dropped before the server accepts: more than there are clients.
const DROPPED: u64 = 10;

const PORT: u16 = 8000;

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, requests_of_any_size_arrive_whole),
        case!(families, every_client_receives_what_the_server_says_first),
        case!(families, clients_that_send_nothing_are_answered),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// A server in the namespace with a short queue, which has accepted nothing yet.
struct Server {
    inside: Inside,
    listener: TcpListener,
}

impl Server {
    fn new(session: &mut Session, family: Family) -> Outcome<Self> {
        let inside = Inside::of(session)?;
        let listener = inside.run(|| {
            let kind = match family {
                Family::V4 => AddressFamily::Inet,
                Family::V6 => AddressFamily::Inet6,
            };
            let listener = socket(kind, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&listener, sockopt::ReuseAddr, &true)?;
            let at = SockaddrStorage::from(SocketAddr::new(family.any(), PORT));
            bind(listener.as_raw_fd(), &at)?;
            listen(&listener, Backlog::new(BACKLOG)?)?;
            Ok(TcpListener::from(listener))
        })?;
        Ok(Self { inside, listener })
    }

    /// Waits until the full queue has dropped so many segments since `before`.
    fn wait_until_dropped(&self, before: u64, count: u64) -> Outcome {
        wait::until("segments that find the queue full", || {
            (self.dropped().ok()? >= before + count).then_some(())
        })
    }

    fn dropped(&self) -> Outcome<u64> {
        self.inside.run(|| {
            let text = fs::read_to_string("/proc/thread-self/net/netstat")?;
            let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
            let (names, values) = (lines.next().ok_or("no names")?, lines.next().ok_or("none")?);
            let found = names.split(' ').zip(values.split(' ')).find(|it| it.0 == "ListenDrops");
            Ok(found.ok_or("not counted")?.1.parse()?)
        })
    }

    /// Serves all clients, each with `serve`.
    fn serve(&self, serve: impl Fn(&mut TcpStream) -> Outcome + Sync) -> Outcome {
        let one = |mut stream: TcpStream| {
            stream.set_read_timeout(Some(wait::PATIENCE))?;
            serve(&mut stream)
        };
        thread::scope(|scope| {
            let mut served = Vec::new();
            for _ in 0..CLIENTS {
                let (stream, one) = (self.listener.accept()?.0, &one);
                served.push(scope.spawn(move || one(stream)));
            }
            served.into_iter().try_for_each(|it| it.join().map_err(|_| "the server panicked")?)
        })
    }
}

/// Has clients of `machine` do `client`, and the server `serve` once its queue has been full for long.
fn meet(
    session: &mut Session,
    family: Family,
    (machine, to): (&Machine, IpAddr),
    client: impl Fn(&mut TcpStream) -> Outcome + Sync,
    serve: impl Fn(&mut TcpStream) -> Outcome + Sync,
) -> Outcome {
    let server = Server::new(session, family)?;
    let before = server.dropped()?;
    let one = || {
        machine.run(|| {
            let mut stream = TcpStream::connect((to, PORT))?;
            stream.set_read_timeout(Some(wait::PATIENCE))?;
            client(&mut stream)
        })
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(one)).collect();
        server.wait_until_dropped(before, DROPPED)?;
        server.serve(serve)?;
        clients.into_iter().try_for_each(|it| it.join().map_err(|_| "a client panicked")?)
    })
}

/// Each client's request comes to the server as it was sent, and is answered with itself.
fn requests_of_any_size_arrive_whole(lab: &Lab, family: Family) -> Outcome {
    let mut session = session(lab)?;
    for octets in [1, 2, 11, 100_000] {
        let request = Pattern::new(octets as u64).octets(octets);
        let client = |stream: &mut TcpStream| {
            stream.write_all(&request)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            if answer == request { Ok(()) } else { Err(format!("{} octets", answer.len()).into()) }
        };
        let serve = |stream: &mut TcpStream| {
            let mut received = vec![0; octets];
            stream.read_exact(&mut received)?;
            assert!(received == request, "{octets} octets of another request");
            Ok(stream.write_all(&received)?)
        };
        meet(&mut session, family, (lab.remote(), family.host()), client, serve)
            .map_err(|error| format!("{octets} octets: {error}"))?;
    }
    Ok(())
}

fn session(lab: &Lab) -> Outcome<Session> {
    lab.pasta().configured().with(["-t", &PORT.to_string()]).session()
}

fn every_client_receives_what_the_server_says_first(lab: &Lab, family: Family) -> Outcome {
    let client = |stream: &mut TcpStream| {
        let mut banner = [0; 8];
        stream.read_exact(&mut banner)?;
        stream.write_all(b"ok")?;
        if &banner == b"welcome!" { Ok(()) } else { Err("another banner".into()) }
    };
    let serve = |stream: &mut TcpStream| {
        stream.write_all(b"welcome!")?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, b"ok");
        Ok(())
    };
    meet(&mut session(lab)?, family, (lab.remote(), family.host()), client, serve)
}

fn clients_that_send_nothing_are_answered(lab: &Lab, family: Family) -> Outcome {
    let client = |stream: &mut TcpStream| {
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if answer == b"goodbye" { Ok(()) } else { Err(format!("{answer:?}").into()) }
    };
    let serve = |stream: &mut TcpStream| {
        let mut received = Vec::new();
        stream.read_to_end(&mut received)?;
        assert_eq!(received, b"");
        Ok(stream.write_all(b"goodbye")?)
    };
    meet(&mut session(lab)?, family, (lab.remote(), family.host()), client, serve)
}
