//! Traffic to be measured: for a given time, as fast as it goes.
//!
//! | question | does |
//! | --- | --- |
//! | `traffic out ENDPOINT MS [FLOWS]` | writes to a TCP sink; what arrives is counted elsewhere |
//! | `traffic in ENDPOINT MS [FLOWS]` | reads from a TCP source |
//! | `traffic beside ENDPOINT MS SOURCE FLOWS` | exchanges as below while FLOWS others read from SOURCE |
//! | `traffic beside-new ENDPOINT MS OTHER` | exchanges while a program opens connections to OTHER and waits for none |
//! | `traffic many-out ENDPOINT MS FLOWS` | as `out`, in one thread, once all connections are open |
//! | `traffic many-in ENDPOINT MS FLOWS` | likewise; a second fact is `slowest N`, of the slowest one |
//! | `traffic congestion NAME` | makes this the congestion control of the namespace |
//! | `traffic repeated` | tells how many segments TCP has repeated in the namespace so far |
//! | `traffic hold ENDPOINT MS FLOWS` | opens that many connections and keeps them; counts them |
//! | `traffic udp-out ENDPOINT SIZE MS [CALLS FLOWS]` | sends datagrams; what arrives is counted elsewhere |
//! | `traffic udp-in ENDPOINT SIZE MS [CALLS FLOWS]` | asks for datagrams and counts what comes |
//! | `traffic exchange ENDPOINT MS` | one octet to and fro on one connection |
//! | `traffic connections ENDPOINT MS` | connect, one octet to and fro, close |
//!
//! The fact is `count N nanoseconds T`: octets, datagrams, exchanges or connections, and the time
//! they took; for `beside` and `beside-new` it is how many exchanges there were, and how long those took that only one in a
//! hundred exceeded. That of `repeated` is `repeated N`.

use std::fs;
use std::io::{self, Read, Write};
use std::iter;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, socket, sockopt,
};

use super::tcp::connect;
use super::{Arguments, Facts, udp};
use crate::Outcome;
use crate::datagrams::{self, Calls, Flood};
use crate::lab::process;
use crate::lab::service::CHUNK;
use crate::many_flows::{ManyFlows, Role, Tally};

/// Stack of a thread that carries one flow, in octets; buffers are elsewhere.
const STACK: usize = 128 * 1024;

/// How long nothing has to come for incoming datagrams to have ended.
const END_OF_DATAGRAMS: Duration = Duration::from_millis(300);

/// Answers a question about speed.
///
/// # Errors
///
/// What the sockets report.
pub fn answer(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let question = arguments.word("question")?;
    if question == "congestion" {
        fs::write("/proc/sys/net/ipv4/tcp_congestion_control", arguments.word("name")?)?;
        return Ok(Vec::new());
    }
    if question == "repeated" {
        return Ok(vec![format!("repeated {}", repeated()?)]);
    }
    let endpoint = arguments.endpoint()?;
    let size = match question {
        "udp-out" | "udp-in" => arguments.value("size")?,
        _ => 0,
    };
    let time = Duration::from_millis(arguments.value("number of milliseconds")?);
    let mut slowest = None;
    let (count, took) = match question {
        "out" => many(arguments, |until| outgoing(endpoint, until), time)?,
        "in" => many(arguments, |until| incoming(endpoint, until), time)?,
        "beside" => {
            let (source, flows) = (arguments.endpoint()?, arguments.value("number of flows")?);
            beside(endpoint, time, source, flows)?
        }
        "beside-new" => {
            let other = arguments.endpoint()?;
            exchanges_beside(endpoint, time, 1, || open_and_drop(other, time))?
        }
        "many-out" | "many-in" => {
            let role = if question == "many-in" { Role::Sink } else { Role::Source };
            let (each, took) =
                many_flows(endpoint, arguments.value("number of flows")?, role, time)?;
            slowest = each.iter().min().copied();
            (each.iter().sum(), took)
        }
        "hold" => hold(endpoint, arguments.value("number of flows")?)?,
        "udp-out" | "udp-in" => {
            let calls = arguments.optional("kind of calls")?.unwrap_or(Calls::Single);
            let flows = arguments.optional("number of flows")?.unwrap_or(1);
            let flood = Flood { size, time, calls, flows };
            let carry = if question == "udp-in" { incoming_datagrams } else { outgoing_datagrams };
            carry(endpoint, &flood)?
        }
        "exchange" => exchanges(endpoint, time)?,
        "connections" => connections(endpoint, time)?,
        other => return Err(format!("no traffic {other}").into()),
    };
    let first = format!("count {count} nanoseconds {}", took.as_nanos());
    Ok(iter::once(first).chain(slowest.map(|octets| format!("slowest {octets}"))).collect())
}

/// How many segments TCP has repeated in the namespace (`RetransSegs`, `net/ipv4/proc.c` in Linux).
fn repeated() -> Outcome<u64> {
    let table = fs::read_to_string("/proc/self/net/snmp")?;
    let mut tcp = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = tcp.next().zip(tcp.next()).ok_or("no counters of TCP")?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "RetransSegs").ok_or("no RetransSegs")?;
    Ok(value.parse()?)
}

/// Connections that are kept to the end of the program.
static HELD: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());

/// Runs a transfer in as many threads as the next argument says, or here.
fn many(
    arguments: &mut Arguments<'_>,
    one: impl Fn(Duration) -> Outcome<(u64, Duration)> + Sync,
    time: Duration,
) -> Outcome<(u64, Duration)> {
    let flows: usize = if arguments.is_empty() { 1 } else { arguments.value("number of flows")? };
    if flows == 1 {
        return one(time);
    }
    let start = Instant::now();
    let count = thread::scope(|scope| {
        let threads: Vec<_> = (0..flows)
            .map(|_| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || one(time)))
            .collect::<Result<_, _>>()?;
        let counts = threads.into_iter().map(|thread| {
            let ended = thread.join().map_err(|_| "a flow panicked")?;
            ended.map(|(count, _)| count)
        });
        counts.sum::<Outcome<u64>>()
    })?;
    Ok((count, start.elapsed()))
}

/// How long exchanges take while other flows carry all they can; fails if one of these carries nothing.
fn beside(
    endpoint: SocketAddr,
    time: Duration,
    source: SocketAddr,
    flows: usize,
) -> Outcome<(u64, Duration)> {
    exchanges_beside(endpoint, time, flows, || match incoming(source, time)? {
        (0, _) => Err("a flow carried nothing".into()),
        _ => Ok(()),
    })
}

/// How many exchanges there are while as many threads do something else, and how long those take that only one in
/// a hundred exceeds.
pub fn exchanges_beside(
    endpoint: SocketAddr,
    time: Duration,
    threads: usize,
    other: impl Fn() -> Outcome + Sync,
) -> Outcome<(u64, Duration)> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, &other))
            .collect::<Result<_, _>>()?;
        let mut stream = connect(endpoint)?;
        stream.set_nodelay(true)?;
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < time {
            let before = Instant::now();
            stream.write_all(&[1])?;
            stream.read_exact(&mut [0])?;
            times.push(before.elapsed());
        }
        times.sort_unstable();
        let slow = times.get(times.len() * 99 / 100).copied().unwrap_or(time);
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok((times.len() as u64, slow))
    })
}

/// Opens connections, and drops each at once whatever has become of it. None keeps its port: as many are opened at the
/// end as at the beginning, and for who is measured next.
pub fn open_and_drop(endpoint: SocketAddr, time: Duration) -> Outcome {
    let family = if endpoint.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (flags, to) = (SockFlag::SOCK_NONBLOCK, SockaddrStorage::from(endpoint));
    let start = Instant::now();
    while start.elapsed() < time {
        let stream = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        match nix::sys::socket::connect(stream.as_raw_fd(), &to) {
            Ok(()) | Err(Errno::EINPROGRESS | Errno::ECONNREFUSED | Errno::EADDRNOTAVAIL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Opens connections.
fn open(endpoint: SocketAddr, flows: usize) -> Outcome<Vec<TcpStream>> {
    process::raise_descriptors()?;
    (0..flows).map(|_| connect(endpoint)).collect()
}

/// Opens connections and then moves octets on all of them; gives what each has carried.
fn many_flows(
    endpoint: SocketAddr,
    flows: usize,
    role: Role,
    time: Duration,
) -> Outcome<(Vec<u64>, Duration)> {
    let tally = Tally::default();
    let mut many_flows = ManyFlows::new(role, tally.clone())?;
    for stream in open(endpoint, flows)? {
        // Ends at once: what would be sent after the end, and the ports that would stay taken for a
        // minute, would be part of the next measurement.
        setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        many_flows.add(stream)?;
    }
    let start = Instant::now();
    many_flows.run(time)?;
    Ok((tally.take(), start.elapsed()))
}

/// Opens connections and keeps them.
fn hold(endpoint: SocketAddr, flows: usize) -> Outcome<(u64, Duration)> {
    let start = Instant::now();
    let opened = open(endpoint, flows)?;
    let count = opened.len() as u64;
    HELD.lock().map_err(|_| "a thread panicked")?.extend(opened);
    Ok((count, start.elapsed()))
}

fn outgoing(endpoint: SocketAddr, time: Duration) -> Outcome<(u64, Duration)> {
    let mut stream = connect(endpoint)?;
    stream.set_write_timeout(Some(time))?;
    let octets = vec![0x5a; CHUNK];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        match stream.write(&octets) {
            Ok(length) => count += length as u64,
            // Nothing went out for all that time: a number too.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((count, start.elapsed()))
}

fn incoming(endpoint: SocketAddr, time: Duration) -> Outcome<(u64, Duration)> {
    let mut stream = connect(endpoint)?;
    let mut octets = vec![0; CHUNK];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        match stream.read(&mut octets)? {
            0 => return Err("the source has ended".into()),
            length => count += length as u64,
        }
    }
    Ok((count, start.elapsed()))
}

fn outgoing_datagrams(endpoint: SocketAddr, flood: &Flood) -> Outcome<(u64, Duration)> {
    let sockets = datagram_sockets(endpoint, flood)?;
    sockets.iter().try_for_each(|it| flood.prepare_to_send(it))?;
    let start = Instant::now();
    let sent = flood.send(|flow, octets| sockets[flow].send(octets))?;
    Ok((sent, start.elapsed()))
}

fn incoming_datagrams(endpoint: SocketAddr, flood: &Flood) -> Outcome<(u64, Duration)> {
    let sockets = datagram_sockets(endpoint, flood)?;
    for socket in &sockets {
        datagrams::prepare_to_receive(socket, flood.calls)?;
        socket.send(flood.question().as_bytes())?;
    }
    flood.receive(&sockets, END_OF_DATAGRAMS)
}

fn datagram_sockets(endpoint: SocketAddr, flood: &Flood) -> Outcome<Vec<UdpSocket>> {
    (0..flood.flows).map(|_| udp::connected(0, endpoint)).collect()
}

fn exchanges(endpoint: SocketAddr, time: Duration) -> Outcome<(u64, Duration)> {
    let mut stream = connect(endpoint)?;
    stream.set_nodelay(true)?;
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        count += 1;
    }
    Ok((count, start.elapsed()))
}

fn connections(endpoint: SocketAddr, time: Duration) -> Outcome<(u64, Duration)> {
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        let mut stream = connect(endpoint)?;
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        count += 1;
    }
    Ok((count, start.elapsed()))
}
