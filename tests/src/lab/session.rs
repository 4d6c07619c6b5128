//! A client inside the namespace, asked one thing at a time.

use std::io::Write;
use std::process::ChildStdin;

use super::pasta::{Finished, Running};
use crate::Outcome;
use crate::client::protocol::{self, Line};

/// `lab-client serve` running as COMMAND: the test asks by lines, the client answers by lines.
#[derive(Debug)]
pub struct Session {
    running: Running,
    input: ChildStdin,
}

/// The client's answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it found out, one fact a line.
    pub lines: Vec<String>,
    /// `Err` names what failed: the symbolic name of an error of the kernel where there is one
    /// (`ECONNREFUSED`), otherwise a text.
    pub result: Result<(), String>,
}

impl Reply {
    /// Fails unless the client succeeded; gives what it found out.
    ///
    /// # Errors
    ///
    /// With the client's own words.
    pub fn success(self) -> Outcome<Vec<String>> {
        match self.result {
            Ok(()) => Ok(self.lines),
            Err(text) => Err(format!("the client failed: {text} ({:?})", self.lines).into()),
        }
    }

    /// Fails unless the client failed with the error named `name`.
    ///
    /// # Errors
    ///
    /// With what it did instead.
    pub fn failure(self, name: &str) -> Outcome {
        match &self.result {
            Err(text) if text.split_whitespace().next() == Some(name) => Ok(()),
            _ => Err(format!("wanted {name}, got {self:?}").into()),
        }
    }
}

impl Session {
    pub(super) fn open(mut running: Running) -> Outcome<Self> {
        let input = running.take_input().ok_or("no standard input")?;
        running.wait_for_line(protocol::READY)?;
        Ok(Self { running, input })
    }

    /// Asks the client to do `words` and waits for its answer.
    ///
    /// # Errors
    ///
    /// When no answer comes; the client's own failures are in the [`Reply`].
    pub fn ask<S: ToString>(&mut self, words: impl IntoIterator<Item = S>) -> Outcome<Reply> {
        let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
        let question = words.join(" ");
        writeln!(self.input, "{question}")?;
        let mut lines = Vec::new();
        loop {
            let line = self.running.next_line().map_err(|error| format!("{question}: {error}"))?;
            match protocol::read_line(&line) {
                Line::Fact(fact) => lines.push(fact.to_owned()),
                Line::Success => return Ok(Reply { lines, result: Ok(()) }),
                Line::Failure(text) => return Ok(Reply { lines, result: Err(text.to_owned()) }),
            }
        }
    }

    /// Asks the client to do `words`, which must succeed; gives what it found out.
    ///
    /// # Errors
    ///
    /// When the client fails or does not answer.
    pub fn must<S: ToString>(
        &mut self,
        words: impl IntoIterator<Item = S>,
    ) -> Outcome<Vec<String>> {
        let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
        let reply = self.ask(&words)?;
        reply.success().map_err(|error| format!("{}: {error}", words.join(" ")).into())
    }

    /// The process that was started: `pasta`.
    pub const fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Tells the client to end, which it does with exit code `code`, and waits for `pasta`.
    ///
    /// # Errors
    ///
    /// When `pasta` does not end.
    pub fn end(mut self, code: u8) -> Outcome<Finished> {
        writeln!(self.input, "exit {code}")?;
        drop(self.input);
        self.running.finish()
    }
}
