//! UDP questions.
//!
//! | question | does |
//! | --- | --- |
//! | `udp echo ENDPOINT SIZE...` | sends datagrams of these sizes, one after the other, and wants each back unchanged |
//! | `udp provoke ENDPOINT` | sends one datagram and gives the error that comes back |
//! | `udp icmp PORT ENDPOINT` | sends one datagram from this source port; the fact is type and code of the ICMP error that comes back |
//! | `udp silence ENDPOINT MS` | sends one datagram and succeeds when nothing comes back in that time |
//! | `udp from PORT ENDPOINT [SIZE]` | the echo of a datagram, by default a small one, from this source port |
//! | `udp open NAME ENDPOINT` | makes a socket to keep |
//! | `udp bind NAME ADDRESS ENDPOINT` | the same, of this source address |
//! | `udp exchange NAME MS` | the echo of a small datagram over it, in that time |
//! | `udp hold NAME ADDRESS` | makes a socket at that address that talks to anybody |
//! | `udp send NAME ENDPOINT` | sends a datagram over that one, and waits for nothing |
//! | `udp next NAME` | waits for one, sends it back; the fact is who has sent it |

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::path::{IcmpError, icmp_error};
use super::{Arguments, Facts, TIME_LIMIT};
use crate::Outcome;
use crate::pattern::Pattern;

/// Sockets that stay open between questions, by name.
#[derive(Debug, Default)]
pub struct Sockets {
    open: BTreeMap<String, UdpSocket>,
}

impl Sockets {
    /// Answers a question about UDP.
    ///
    /// # Errors
    ///
    /// What the socket reports; a text for an answer that is wrong.
    pub fn answer(&mut self, arguments: &mut Arguments<'_>) -> Outcome<Facts> {
        match arguments.word("question")? {
            "open" => {
                let name = arguments.word("name")?.to_owned();
                self.open.insert(name, connected(0, arguments.endpoint()?)?);
                Ok(Facts::new())
            }
            "bind" => {
                let name = arguments.word("name")?.to_owned();
                let socket = UdpSocket::bind(arguments.address()?)?;
                socket.connect(arguments.endpoint()?)?;
                self.open.insert(name, socket);
                Ok(Facts::new())
            }
            "hold" => {
                let name = arguments.word("name")?.to_owned();
                let socket = UdpSocket::bind(arguments.endpoint()?)?;
                socket.set_read_timeout(Some(TIME_LIMIT))?;
                self.open.insert(name, socket);
                Ok(Facts::new())
            }
            "send" => {
                let socket = self.open.get(arguments.word("name")?).ok_or("no such socket")?;
                socket.send_to(b"datagram", arguments.endpoint()?)?;
                Ok(Facts::new())
            }
            "next" => {
                let socket = self.open.get(arguments.word("name")?).ok_or("no such socket")?;
                let mut octets = [0; 2048];
                let (length, peer) = socket.recv_from(&mut octets)?;
                socket.send_to(&octets[..length], peer)?;
                Ok(vec![peer.to_string()])
            }
            "exchange" => {
                let name = arguments.word("name")?;
                let socket = self.open.get(name).ok_or("no such socket")?;
                let limit = Duration::from_millis(arguments.value("number of milliseconds")?);
                socket.set_read_timeout(Some(limit))?;
                echo(socket, 32)?;
                Ok(Facts::new())
            }
            other => answer(other, arguments),
        }
    }
}

/// Answers a question that needs nothing kept.
fn answer(question: &str, arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    match question {
        "echo" => {
            let socket = connected(0, arguments.endpoint()?)?;
            let mut facts = Facts::new();
            while !arguments.is_empty() {
                let size = arguments.value("size")?;
                echo(&socket, size)?;
                facts.push(format!("echoed {size}"));
            }
            Ok(facts)
        }
        "from" => {
            let port = arguments.value("port")?;
            let socket = connected(port, arguments.endpoint()?)?;
            echo(&socket, arguments.optional("size")?.unwrap_or(32))?;
            Ok(Facts::new())
        }
        "provoke" => {
            let endpoint = arguments.endpoint()?;
            let socket = connected(0, endpoint)?;
            enable_errors(&socket, endpoint)?;
            socket.send(b"anybody?")?;
            socket.recv(&mut [0; 64])?;
            Ok(Facts::new())
        }
        "icmp" => {
            let (port, endpoint) = (arguments.value("port")?, arguments.endpoint()?);
            let socket = connected(port, endpoint)?;
            enable_errors(&socket, endpoint)?;
            socket.send(b"anybody?")?;
            // An error ends the wait, and is the queue's too.
            let Err(_) = socket.recv(&mut [0; 64]) else { return Err("an answer".into()) };
            let IcmpError { kind, code, .. } =
                icmp_error(&socket)?.ok_or("no error in the queue")?;
            Ok(vec![format!("{kind} {code}")])
        }
        "silence" => {
            let socket = connected(0, arguments.endpoint()?)?;
            let limit = Duration::from_millis(arguments.value("number of milliseconds")?);
            socket.set_read_timeout(Some(limit))?;
            socket.send(b"anybody?")?;
            match socket.recv(&mut [0; 64]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(Facts::new()),
                Err(error) => Err(error.into()),
                Ok(length) => Err(format!("{length} octets instead of silence").into()),
            }
        }
        other => Err(format!("no UDP question {other}").into()),
    }
}

/// Has errors queued: without it an application learns of closed ports and of nothing else (ip(7)).
fn enable_errors(socket: &UdpSocket, endpoint: SocketAddr) -> Outcome {
    match endpoint {
        SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(())
}

/// A socket with source port `port` (0: any) that talks to `endpoint` alone.
pub(super) fn connected(port: u16, endpoint: SocketAddr) -> Outcome<UdpSocket> {
    let socket = match endpoint {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?,
    };
    socket.connect(endpoint)?;
    socket.set_read_timeout(Some(TIME_LIMIT))?;
    Ok(socket)
}

fn echo(socket: &UdpSocket, size: usize) -> Outcome {
    let sent = Pattern::new(size as u64).octets(size);
    if socket.send(&sent)? != size {
        return Err("the datagram was cut short".into());
    }
    let mut received = vec![0; size + 1];
    let length = socket.recv(&mut received)?;
    if received[..length] == sent {
        Ok(())
    } else {
        Err(format!("{length} octets came back for {size}, or other ones").into())
    }
}
