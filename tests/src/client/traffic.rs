//! Traffic to be measured: for a given time, as fast as it goes.
//!
//! | question | does |
//! | --- | --- |
//! | `traffic out ENDPOINT MS` | writes to a TCP sink; what arrives is counted elsewhere |
//! | `traffic in ENDPOINT MS` | reads from a TCP source |
//! | `traffic udp-out ENDPOINT SIZE MS` | sends datagrams; what arrives is counted elsewhere |
//! | `traffic udp-in ENDPOINT SIZE MS` | asks for datagrams and counts what comes |
//! | `traffic exchange ENDPOINT MS` | one octet to and fro on one connection |
//! | `traffic connections ENDPOINT MS` | connect, one octet to and fro, close |
//!
//! The fact is `count N nanoseconds T`: octets, datagrams, exchanges or connections, and the time
//! they took.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::tcp::connect;
use super::{Arguments, Facts, udp};
use crate::Outcome;
use crate::lab::service::CHUNK;

/// How often the clock is read: once in that many sends.
const SENDS_BETWEEN_LOOKS: u32 = 16;

/// How long nothing has to come for incoming datagrams to have ended.
const END_OF_DATAGRAMS: Duration = Duration::from_millis(300);

/// Answers a question about speed.
///
/// # Errors
///
/// What the sockets report.
pub fn answer(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let question = arguments.word("question")?;
    let endpoint = arguments.endpoint()?;
    let size = match question {
        "udp-out" | "udp-in" => arguments.value("size")?,
        _ => 0,
    };
    let time = Duration::from_millis(arguments.value("number of milliseconds")?);
    let (count, took) = match question {
        "out" => outgoing(endpoint, time)?,
        "in" => incoming(endpoint, time)?,
        "udp-out" => outgoing_datagrams(endpoint, size, time)?,
        "udp-in" => incoming_datagrams(endpoint, size, time)?,
        "exchange" => exchanges(endpoint, time)?,
        "connections" => connections(endpoint, time)?,
        other => return Err(format!("no traffic {other}").into()),
    };
    Ok(vec![format!("count {count} nanoseconds {}", took.as_nanos())])
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

fn outgoing_datagrams(
    endpoint: SocketAddr,
    size: usize,
    time: Duration,
) -> Outcome<(u64, Duration)> {
    let socket = udp::connected(0, endpoint)?;
    let octets = vec![0x5a; size];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        for _ in 0..SENDS_BETWEEN_LOOKS {
            match socket.send(&octets) {
                Ok(_) => count += 1,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok((count, start.elapsed()))
}

fn incoming_datagrams(
    endpoint: SocketAddr,
    size: usize,
    time: Duration,
) -> Outcome<(u64, Duration)> {
    let socket = udp::connected(0, endpoint)?;
    socket.send(format!("{size} {}", time.as_millis()).as_bytes())?;
    let mut octets = vec![0; size + 1];
    let (mut count, mut first, mut last) = (0, None, Instant::now());
    loop {
        match socket.recv(&mut octets) {
            Ok(length) if length == size => {
                last = Instant::now();
                if first.is_none() {
                    first = Some(last);
                    socket.set_read_timeout(Some(END_OF_DATAGRAMS))?;
                } else {
                    count += 1;
                }
            }
            Ok(length) => return Err(format!("a datagram of {length} octets").into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok((count, last - first.ok_or("no datagram came")?))
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
