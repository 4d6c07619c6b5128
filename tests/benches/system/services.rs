//! TCP services on the remote machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::sys::socket::{Backlog, listen};
use tests::Outcome;
use tests::lab::Lab;
use tests::lab::service::CHUNK;
use tests::many_flows::{self, Role, Tally};

pub(crate) fn send_octets(stream: &mut TcpStream) -> Outcome<String> {
    let octets = vec![0x5a; CHUNK];
    loop {
        stream.write_all(&octets)?;
    }
}

/// A listening socket that many may come to before they are served.
pub(crate) fn listener(lab: &Lab, address: SocketAddr) -> Outcome<TcpListener> {
    let listener = lab.remote().run(|| Ok(TcpListener::bind(address)?))?;
    listen(&listener, Backlog::new(4095)?)?;
    Ok(listener)
}

/// A TCP service that serves many connections in one thread.
pub(crate) fn many_flows(
    lab: &Lab,
    address: SocketAddr,
    role: Role,
) -> Outcome<(SocketAddr, Tally)> {
    let listener = listener(lab, address)?;
    Ok((listener.local_addr()?, many_flows::serve(listener, role)?))
}

/// Keeps every connection.
pub(crate) fn hold() -> impl Fn(TcpStream) + Send + 'static {
    let held = Mutex::new(Vec::new());
    move |stream| held.lock().unwrap_or_else(PoisonError::into_inner).push(stream)
}

/// Reads one octet and sends it back.
pub(crate) fn talk(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut octet = [0];
    stream.read_exact(&mut octet)?;
    stream.write_all(&octet)
}

/// A TCP service without threads for each connection: one is served after the other.
pub(crate) fn serve(
    lab: &Lab,
    address: SocketAddr,
    handle: impl Fn(TcpStream) + Send + 'static,
) -> Outcome<SocketAddr> {
    let listener = listener(lab, address)?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nodelay(true).is_ok() {
                handle(stream);
            }
        }
    });
    Ok(address)
}
