//! What `lab-client` does inside the namespace.
//!
//! `lab-client serve` reads questions from its standard input and answers them ([`protocol`]);
//! `lab-client WORD...` answers one and ends. Questions are words; the modules below list theirs.
//! Sockets have a time limit, so that a question is always answered.

pub mod configuration;
pub mod leaks;
pub mod life;
pub mod link;
pub mod packet;
pub mod path;
pub mod ping;
pub mod protocol;
pub mod pry;
pub mod serve;
pub mod show;
pub mod tcp;
pub mod traffic;
pub mod udp;

use std::io::{self, BufRead, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::str::FromStr;
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use crate::{Failure, Outcome};

/// How long one operation of a socket may take. Chosen: half of the test's patience with a whole
/// answer, so that the client says what hung before the test gives up on the client.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What a question gives: facts, one a line.
pub type Facts = Vec<String>;

/// A client and what it keeps between questions.
#[derive(Debug, Default)]
pub struct Client {
    connections: tcp::Connections,
    services: serve::Services,
    sockets: udp::Sockets,
}

impl Client {
    /// Answers one question.
    ///
    /// # Errors
    ///
    /// Errors of the kernel as they are, and texts for everything else.
    pub fn answer(&mut self, words: &[&str]) -> Outcome<Facts> {
        let (&subject, rest) = words.split_first().ok_or("nothing asked")?;
        let mut arguments = Arguments { words: rest };
        match subject {
            "tcp" => self.connections.answer(&mut arguments),
            "serve" => self.services.answer(&mut arguments),
            "udp" => self.sockets.answer(&mut arguments),
            "path" => path::answer(&mut arguments),
            "ping" => ping::answer(&mut arguments),
            "pry" => pry::answer(&mut arguments),
            "show" => show::answer(),
            "link" => link::answer(&mut arguments),
            "traffic" => traffic::answer(&mut arguments),
            _ => life::answer(subject, &mut arguments),
        }
    }

    /// Answers questions until the input ends.
    ///
    /// # Errors
    ///
    /// When the input or the output fails.
    pub fn serve(&mut self, input: impl BufRead, mut output: impl Write) -> io::Result<()> {
        writeln!(output, "{}", protocol::READY)?;
        output.flush()?;
        for line in input.lines() {
            let line = line?;
            let words: Vec<&str> = line.split_whitespace().collect();
            output.write_all(protocol::write_answer(self.answer(&words)).as_bytes())?;
            output.flush()?;
        }
        Ok(())
    }
}

/// The words of a question that are not used up yet.
#[derive(Debug)]
pub struct Arguments<'a> {
    words: &'a [&'a str],
}

impl<'a> Arguments<'a> {
    /// A question's words after the first one.
    pub const fn new(words: &'a [&'a str]) -> Self {
        Self { words }
    }

    /// The next word; `what` says what it should have been.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn word(&mut self, what: &str) -> Outcome<&'a str> {
        let (first, rest) = self.words.split_first().ok_or_else(|| format!("no {what} given"))?;
        self.words = rest;
        Ok(first)
    }

    /// The next word as a `T`.
    ///
    /// # Errors
    ///
    /// When there is none or it is none.
    pub fn value<T: FromStr>(&mut self, what: &str) -> Outcome<T> {
        let word = self.word(what)?;
        word.parse().map_err(|_| Failure::from(format!("not a {what}: {word}")))
    }

    /// As [`Arguments::value`], if there is a next word.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn optional<T: FromStr>(&mut self, what: &str) -> Outcome<Option<T>> {
        if self.words.is_empty() { Ok(None) } else { self.value(what).map(Some) }
    }

    /// The next word as an address and port, in brackets with a zone where it needs one:
    /// `[fe80::1%eth0]:80`.
    ///
    /// # Errors
    ///
    /// When there is none or it is none, or its zone is not a link.
    pub fn endpoint(&mut self) -> Outcome<SocketAddr> {
        let word = self.word("address and port")?;
        let Some((address, rest)) = word.strip_prefix('[').and_then(|w| w.split_once('%')) else {
            return word.parse().map_err(|_| format!("not an endpoint: {word}").into());
        };
        let (zone, port) = rest.split_once("]:").ok_or("a zone without its end")?;
        let scope = if_nametoindex(zone)?;
        Ok(SocketAddr::V6(SocketAddrV6::new(address.parse()?, port.parse()?, 0, scope)))
    }

    /// The next word as an address with or without a zone: `fe80::1%eth0`. Port 0.
    ///
    /// # Errors
    ///
    /// As [`Arguments::endpoint`].
    pub fn address(&mut self) -> Outcome<SocketAddr> {
        let word = self.word("address")?;
        match word.split_once('%') {
            Some((address, zone)) => {
                let scope = if_nametoindex(zone)?;
                Ok(SocketAddr::V6(SocketAddrV6::new(address.parse()?, 0, 0, scope)))
            }
            None => Ok(SocketAddr::new(word.parse::<IpAddr>()?, 0)),
        }
    }

    /// Whether any word is left.
    pub const fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}
