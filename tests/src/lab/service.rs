//! Servers on the machines of a lab, as threads of the test.
//!
//! A service is a listening socket made inside a [`Machine`] and a handler that is called once for
//! each connection, in a thread of its own. What a handler gives is kept as a report that the test
//! can ask for, so that both ends of a transfer are checked.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::address;
use super::machine::Machine;
use super::wait::PATIENCE;
use crate::Outcome;
use crate::pattern::{Pattern, Verifier};

/// How much is read or written at once, in octets: more than one segment of the tap.
pub const CHUNK: usize = 128 * 1024;

/// What handlers run on, in octets: they keep their buffers elsewhere.
const STACK: usize = 128 * 1024;

/// Largest UDP payload (RFC 768: 65535 less its own header; IPv4 takes 20 more off that).
const LARGEST_DATAGRAM: usize = 65535;

/// What a handler found out.
pub type Report = Result<String, String>;

/// A running service. It listens until the test ends.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    reports: Receiver<Report>,
    /// The listening socket, of TCP.
    listener: Option<TcpListener>,
}

impl Service {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens: the port alone.
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where a client in the namespace finds it.
    pub fn endpoint(&self) -> String {
        address::endpoint(self.address.ip(), self.address.port())
    }

    /// The report of the next connection or datagram that was handled.
    ///
    /// # Errors
    ///
    /// When there is none within the lab's patience, and what the handler failed with.
    pub fn next_report(&self) -> Outcome<String> {
        let report = self.reports.recv_timeout(PATIENCE);
        Ok(report.map_err(|error| format!("no report from {}: {error}", self.address))??)
    }

    /// The address that the next report begins with: whom the service saw.
    ///
    /// # Errors
    ///
    /// As [`Service::next_report`], and when the report is something else.
    pub fn next_peer(&self) -> Outcome<SocketAddr> {
        Ok(self.next_report()?.parse()?)
    }

    /// Stops listening; connections go on. Only for TCP.
    ///
    /// # Errors
    ///
    /// What `shutdown(2)` reports.
    pub fn stop(&self) -> Outcome {
        let listener = self.listener.as_ref().ok_or("not a TCP service")?;
        // Ends accept(2) in the thread that waits in it, too.
        Ok(nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both)?)
    }

    /// The report of another connection or datagram that was handled, if there is one by now.
    pub fn try_report(&self) -> Option<Outcome<String>> {
        self.reports.try_recv().ok().map(|report| Ok(report?))
    }

    /// Whether nobody has come yet.
    pub fn was_left_alone(&self) -> bool {
        self.reports.try_recv().is_err()
    }
}

/// Sends `report` to whoever is still interested.
fn tell(reports: &Sender<Report>, report: Outcome<String>) {
    // Without a receiver the test has ended or does not ask.
    let _ = reports.send(report.map_err(|error| error.to_string()));
}

impl Machine {
    /// A TCP service on `address` and a free port.
    ///
    /// # Errors
    ///
    /// What `bind(2)` reports.
    pub fn tcp<H>(&self, address: IpAddr, handler: H) -> Outcome<Service>
    where
        H: Fn(&mut TcpStream) -> Outcome<String> + Send + Sync + 'static,
    {
        self.tcp_at(SocketAddr::new(address, 0), handler)
    }

    /// A TCP service on `address`.
    ///
    /// # Errors
    ///
    /// What `bind(2)` reports.
    pub fn tcp_at<H>(&self, address: SocketAddr, handler: H) -> Outcome<Service>
    where
        H: Fn(&mut TcpStream) -> Outcome<String> + Send + Sync + 'static,
    {
        let listener = self.run(move || Ok(TcpListener::bind(address)?))?;
        // std asks for a backlog of 128 (4096 on newer versions); thousands may come at once.
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4095)?)?;
        let address = listener.local_addr()?;
        let kept = listener.try_clone()?;
        let (sender, reports) = mpsc::channel();
        let handler = Arc::new(handler);
        thread::Builder::new().name(format!("tcp {address}")).spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let (handler, sender) = (Arc::clone(&handler), sender.clone());
                let work = move || tell(&sender, handler(&mut stream));
                if thread::Builder::new().stack_size(STACK).spawn(work).is_err() {
                    return;
                }
            }
        })?;
        Ok(Service { address, reports, listener: Some(kept) })
    }

    /// A UDP service on `address`; `handler` gets each datagram and may answer it.
    ///
    /// # Errors
    ///
    /// What `bind(2)` reports.
    pub fn udp_at<H>(&self, address: SocketAddr, handler: H) -> Outcome<Service>
    where
        H: Fn(&UdpSocket, SocketAddr, &[u8]) -> Outcome<String> + Send + 'static,
    {
        let socket = self.run(move || Ok(UdpSocket::bind(address)?))?;
        let address = socket.local_addr()?;
        let (sender, reports) = mpsc::channel();
        thread::Builder::new().name(format!("udp {address}")).spawn(move || {
            let mut octets = vec![0; LARGEST_DATAGRAM];
            loop {
                // Errors are those of earlier answers, for instance a client that has gone.
                if let Ok((length, peer)) = socket.recv_from(&mut octets) {
                    tell(&sender, handler(&socket, peer, &octets[..length]));
                }
            }
        })?;
        Ok(Service { address, reports, listener: None })
    }

    /// A UDP service that sends every datagram back and reports who sent it.
    ///
    /// # Errors
    ///
    /// What `bind(2)` reports.
    pub fn udp_echo(&self, address: IpAddr) -> Outcome<Service> {
        self.udp_at(SocketAddr::new(address, 0), udp_echo)
    }

    /// A port on `address` on which nothing listens, and will not for the time of the test.
    ///
    /// # Errors
    ///
    /// What `bind(2)` reports.
    pub fn closed_port(&self, address: IpAddr) -> Outcome<u16> {
        // Nobody else picks ports in a namespace of ours, and the kernel's choice is not repeated
        // soon, so the port stays free after the socket is closed.
        self.run(move || Ok(TcpListener::bind((address, 0))?.local_addr()?.port()))
    }
}

/// A datagram from `machine` there and back, of the lab's patience; gives where it came from.
///
/// # Errors
///
/// As [`ask_within`].
pub fn ask(machine: &Machine, from: IpAddr, to: SocketAddr, octets: &[u8]) -> Outcome<SocketAddr> {
    ask_within(PATIENCE, machine, from, to, octets)
}

/// A datagram from `machine` there and back within `limit`; gives where it came from.
///
/// # Errors
///
/// What the socket reports, and another answer.
pub fn ask_within(
    limit: Duration,
    machine: &Machine,
    from: IpAddr,
    to: SocketAddr,
    octets: &[u8],
) -> Outcome<SocketAddr> {
    machine.run(|| {
        let socket = UdpSocket::bind((from, 0))?;
        // Only what comes from there is taken.
        socket.connect(to)?;
        socket.set_read_timeout(Some(limit))?;
        socket.send(octets)?;
        let mut answer = vec![0; octets.len() + 1];
        let len = socket
            .recv(&mut answer)
            .map_err(|error| format!("{} octets from {from} to {to}: {error}", octets.len()))?;
        if &answer[..len] == octets {
            Ok(socket.local_addr()?)
        } else {
            Err("another datagram came back".into())
        }
    })
}

/// Answers a datagram with itself; reports the sender's address.
///
/// # Errors
///
/// What `sendto(2)` reports.
pub fn udp_echo(socket: &UdpSocket, peer: SocketAddr, octets: &[u8]) -> Outcome<String> {
    socket.send_to(octets, peer)?;
    Ok(peer.to_string())
}

/// Sends back what comes, until the peer has finished; reports the peer's address.
///
/// # Errors
///
/// What the socket reports.
pub fn echo(stream: &mut TcpStream) -> Outcome<String> {
    let peer = stream.peer_addr()?;
    let mut octets = vec![0; CHUNK];
    loop {
        match stream.read(&mut octets)? {
            0 => break,
            length => stream.write_all(&octets[..length])?,
        }
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(peer.to_string())
}

/// Sends a word to an echo service and reads it back.
///
/// # Errors
///
/// What the socket reports, and when something else comes back.
pub fn exchange(stream: &mut TcpStream) -> Outcome {
    stream.write_all(b"anybody?")?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    if &answer == b"anybody?" { Ok(()) } else { Err("other octets came back".into()) }
}

/// A handler that sends `length` octets of `pattern`, finishes, and waits for the peer's end;
/// reports the peer's address.
pub fn source(
    pattern: Pattern,
    length: u64,
) -> impl Fn(&mut TcpStream) -> Outcome<String> + Send + Sync + 'static {
    move |stream| {
        let peer = stream.peer_addr()?;
        send_pattern(stream, pattern, length)?;
        stream.shutdown(Shutdown::Write)?;
        let mut left = Vec::new();
        stream.read_to_end(&mut left)?;
        if left.is_empty() {
            Ok(peer.to_string())
        } else {
            Err(format!("{} octets that nobody asked for", left.len()).into())
        }
    }
}

/// A handler that reads `pattern` to the end and answers and reports how many octets were right.
pub fn sink(
    pattern: Pattern,
) -> impl Fn(&mut TcpStream) -> Outcome<String> + Send + Sync + 'static {
    move |stream| {
        let verified = verify_pattern(stream, pattern)?;
        let verdict = format!("verified {verified}");
        stream.write_all(verdict.as_bytes())?;
        Ok(verdict)
    }
}

/// Closes the connection with a reset after the first octet came.
///
/// # Errors
///
/// What the socket reports.
pub fn reset(stream: &mut TcpStream) -> Outcome<String> {
    stream.read_exact(&mut [0])?;
    setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok("reset".to_owned())
}

/// Sends for as long as somebody reads.
///
/// # Errors
///
/// What the socket reports in the end.
pub fn fountain(stream: &mut TcpStream) -> Outcome<String> {
    let octets = vec![0x5a; CHUNK];
    loop {
        stream.write_all(&octets)?;
    }
}

/// Answers each octet with itself.
///
/// # Errors
///
/// What the socket reports in the end.
pub fn talker(stream: &mut TcpStream) -> Outcome<String> {
    stream.set_nodelay(true)?;
    let mut octet = [0];
    loop {
        stream.read_exact(&mut octet)?;
        stream.write_all(&octet)?;
    }
}

/// A handler that reads and counts the octets of all connections together.
pub fn blackhole(
    count: Arc<AtomicU64>,
) -> impl Fn(&mut TcpStream) -> Outcome<String> + Send + Sync + 'static {
    move |stream| {
        let mut octets = vec![0; CHUNK];
        loop {
            match stream.read(&mut octets)? {
                0 => return Ok(String::new()),
                length => drop(count.fetch_add(length as u64, Ordering::Relaxed)),
            }
        }
    }
}

/// Writes `length` octets of `pattern`.
///
/// # Errors
///
/// What the stream reports.
pub fn send_pattern(stream: &mut impl Write, pattern: Pattern, length: u64) -> io::Result<()> {
    let mut octets = vec![0; CHUNK];
    let mut offset = 0;
    while offset < length {
        let piece = usize::try_from(length - offset).unwrap_or(usize::MAX).min(CHUNK);
        pattern.fill(offset, &mut octets[..piece]);
        stream.write_all(&octets[..piece])?;
        offset += piece as u64;
    }
    Ok(())
}

/// Reads to the end of the stream and gives how many octets there were, all of them right.
///
/// # Errors
///
/// What the stream reports, and the offset of the first wrong octet.
pub fn verify_pattern(stream: &mut impl Read, pattern: Pattern) -> Outcome<u64> {
    let mut verifier = Verifier::new(pattern);
    let mut octets = vec![0; CHUNK];
    loop {
        match stream.read(&mut octets) {
            Ok(0) => return Ok(verifier.verified()),
            Ok(length) => verifier.check(&octets[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until what is queued for `stream` has not grown for a while: the peer can send no
/// more, or has no more.
///
/// # Errors
///
/// What the socket reports.
pub fn wait_until_filled(stream: &TcpStream) -> Outcome {
    // Chosen: many round trips of the lab, whose delay is below a millisecond.
    const QUIET: Duration = Duration::from_millis(300);
    let mut octets = vec![0; 16 << 20];
    let mut queued = 0;
    loop {
        thread::sleep(QUIET);
        let now = stream.peek(&mut octets)?;
        if now == queued {
            return Ok(());
        }
        queued = now;
    }
}
