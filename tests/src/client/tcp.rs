//! TCP questions.
//!
//! | question | does |
//! | --- | --- |
//! | `tcp connect ENDPOINT` | connects and closes; facts `local ADDRESS` |
//! | `tcp connect-within ENDPOINT MS` | the same with a time limit |
//! | `tcp fetch ENDPOINT SEED LENGTH [PAUSE]` | reads a pattern to the end; with PAUSE starts to read late |
//! | `tcp send ENDPOINT SEED LENGTH` | sends a pattern, finishes, reads the verdict; fact: the verdict |
//! | `tcp echo ENDPOINT SEED LENGTH` | sends and reads a pattern at the same time |
//! | `tcp last-word ENDPOINT SEED LENGTH` | reads to the end, then sends a pattern |
//! | `tcp flows ENDPOINT COUNT LENGTH` | that many echoes with all connections open at once |
//! | `tcp many ENDPOINT COUNT LENGTH` | sends LENGTH octets on each of COUNT connections, all at once |
//! | `tcp provoke ENDPOINT` | sends one octet and gives the error that reading ends with |
//! | `tcp open NAME ENDPOINT` | opens a connection to keep |
//! | `tcp exchange NAME SEED LENGTH` | sends a pattern on it and reads it back |
//! | `tcp read NAME` | reads one octet; the error is the answer, `EOF` at the end |
//! | `tcp drop NAME [reset]` | closes it, with a reset if asked to |

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::{Arguments, Facts, TIME_LIMIT};
use crate::lab::process;
use crate::lab::service::{send_pattern, verify_pattern, wait_until_filled};
use crate::many_flows::{ManyFlows, Role, Tally};
use crate::pattern::{Pattern, Verifier};
use crate::{Failure, Outcome};

/// Stack of a thread that serves one flow, in octets; buffers are elsewhere.
const FLOW_STACK: usize = 128 * 1024;

/// Connections that stay open between questions, by name.
#[derive(Debug, Default)]
pub struct Connections {
    open: BTreeMap<String, TcpStream>,
}

impl Connections {
    /// Answers a question about TCP.
    ///
    /// # Errors
    ///
    /// What the sockets report; a text for an octet that is wrong.
    pub fn answer(&mut self, arguments: &mut Arguments<'_>) -> Outcome<Facts> {
        match arguments.word("question")? {
            "connect" => {
                let stream = connect(arguments.endpoint()?)?;
                Ok(vec![format!("local {}", stream.local_addr()?)])
            }
            "connect-within" => {
                let endpoint = arguments.endpoint()?;
                let limit = Duration::from_millis(arguments.value("number of milliseconds")?);
                let stream = TcpStream::connect_timeout(&endpoint, limit)?;
                Ok(vec![format!("local {}", stream.local_addr()?)])
            }
            "fetch" => fetch(arguments),
            "many" => many_flows(arguments),
            "send" => send(arguments),
            "echo" => echo(arguments),
            "last-word" => last_word(arguments),
            "flows" => flows(arguments),
            "provoke" => {
                let mut stream = connect(arguments.endpoint()?)?;
                stream.write_all(&[0])?;
                read_one(&mut stream)
            }
            "open" => {
                let name = arguments.word("name")?.to_owned();
                let stream = connect(arguments.endpoint()?)?;
                self.open.insert(name, stream);
                Ok(Facts::new())
            }
            "exchange" => exchange(self.named(arguments)?, arguments),
            "read" => read_one(self.named(arguments)?),
            "drop" => {
                let name = arguments.word("name")?;
                let stream = self.open.remove(name).ok_or("no such connection")?;
                if !arguments.is_empty() {
                    let reset = libc::linger { l_onoff: 1, l_linger: 0 };
                    setsockopt(&stream, sockopt::Linger, &reset)?;
                }
                Ok(Facts::new())
            }
            other => Err(format!("no TCP question {other}").into()),
        }
    }

    fn named(&mut self, arguments: &mut Arguments<'_>) -> Outcome<&mut TcpStream> {
        let name = arguments.word("name")?;
        Ok(self.open.get_mut(name).ok_or("no such connection")?)
    }
}

/// Connects, and limits the time of everything that follows.
pub(super) fn connect(endpoint: SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(endpoint)?;
    stream.set_read_timeout(Some(TIME_LIMIT))?;
    stream.set_write_timeout(Some(TIME_LIMIT))?;
    Ok(stream)
}

/// Seed and length of a transfer.
fn transfer(arguments: &mut Arguments<'_>) -> Outcome<(Pattern, u64)> {
    let seed = arguments.value("seed")?;
    Ok((Pattern::new(seed), arguments.value("length")?))
}

fn all_of(length: u64, verified: u64) -> Outcome<Facts> {
    if verified == length {
        Ok(vec![format!("verified {verified}")])
    } else {
        Err(format!("end after {verified} of {length} octets").into())
    }
}

fn fetch(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let mut stream = connect(arguments.endpoint()?)?;
    let (pattern, length) = transfer(arguments)?;
    if !arguments.is_empty() {
        // A slow reader: everything on the way is full before the first octet is taken.
        wait_until_filled(&stream)?;
    }
    all_of(length, verify_pattern(&mut stream, pattern)?)
}

fn send(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let mut stream = connect(arguments.endpoint()?)?;
    let (pattern, length) = transfer(arguments)?;
    send_pattern(&mut stream, pattern, length)?;
    stream.shutdown(Shutdown::Write)?;
    let mut verdict = String::new();
    stream.read_to_string(&mut verdict)?;
    Ok(vec![verdict])
}

fn echo(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let stream = connect(arguments.endpoint()?)?;
    let (pattern, length) = transfer(arguments)?;
    all_of(length, send_and_read_back(&stream, pattern, length)?)
}

/// Sends a pattern, finishes, and at the same time reads to the end what comes back.
fn send_and_read_back(stream: &TcpStream, pattern: Pattern, length: u64) -> Outcome<u64> {
    let mut incoming = stream;
    thread::scope(|scope| {
        let sender = thread::Builder::new().stack_size(FLOW_STACK).spawn_scoped(scope, || {
            let mut outgoing = stream;
            send_pattern(&mut outgoing, pattern, length)?;
            outgoing.shutdown(Shutdown::Write)
        })?;
        let verified = verify_pattern(&mut incoming, pattern);
        sender.join().map_err(|_| "the sender panicked")??;
        verified
    })
}

fn last_word(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let mut stream = connect(arguments.endpoint()?)?;
    let (pattern, length) = transfer(arguments)?;
    let mut first = Vec::new();
    stream.read_to_end(&mut first)?;
    send_pattern(&mut stream, pattern, length)?;
    Ok(vec![format!("read {}", first.len())])
}

fn exchange(stream: &mut TcpStream, arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let (pattern, length) = transfer(arguments)?;
    let mut octets = pattern.octets(usize::try_from(length)?);
    stream.write_all(&octets)?;
    stream.read_exact(&mut octets)?;
    Verifier::new(pattern).check(&octets)?;
    Ok(Facts::new())
}

fn read_one(stream: &mut TcpStream) -> Outcome<Facts> {
    match stream.read(&mut [0])? {
        0 => Err("EOF".into()),
        _ => Ok(Facts::new()),
    }
}

/// Nobody sends before everybody is connected.
fn many_flows(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let endpoint = arguments.endpoint()?;
    let count: u64 = arguments.value("count")?;
    let length: u64 = arguments.value("length")?;
    process::raise_descriptors()?;
    let mut many_flows = ManyFlows::new(Role::Source, Tally::default())?;
    let streams: Outcome<Vec<_>> = (0..count).map(|_| connect(endpoint)).collect();
    streams?.into_iter().try_for_each(|stream| many_flows.add(stream))?;
    many_flows.send(length)?;
    Ok(Facts::new())
}

fn flows(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let endpoint = arguments.endpoint()?;
    let count: u64 = arguments.value("count")?;
    let length: u64 = arguments.value("length")?;
    process::raise_descriptors()?;

    // Nobody sends before everybody is connected, and nobody closes before everybody is done.
    let connected = Barrier::new(usize::try_from(count)?);
    let one = |seed: u64| -> Outcome<u64> {
        let stream = connect(endpoint);
        connected.wait();
        let verified = send_and_read_back(&stream?, Pattern::new(seed), length);
        connected.wait();
        verified
    };
    let verified = thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|seed| {
                let one = &one;
                let builder = thread::Builder::new().stack_size(FLOW_STACK);
                builder.spawn_scoped(scope, move || one(seed))
            })
            .collect::<Result<_, _>>()?;
        let mut whole = 0;
        for thread in threads {
            let verified = thread.join().map_err(|_| "a flow panicked")??;
            if verified == length {
                whole += 1;
            }
        }
        Ok::<u64, Failure>(whole)
    })?;
    if verified == count {
        Ok(vec![format!("whole {verified}")])
    } else {
        Err(format!("{verified} of {count} flows were whole").into())
    }
}
