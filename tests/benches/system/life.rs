//! Start, idleness and end.

use std::process::{Command, Stdio};
use std::thread;

use crate::measure::{Bench, Contender};
use tests::Outcome;
use tests::client::life::monotonic;
use tests::client::protocol::{Line, read_line};
use tests::lab::{pasta, process};

/// How many starts make one number.
const STARTS: usize = 9;

/// Ports are looked for everywhere, as a spawned command has it.
const ALL_AUTO: [&str; 8] = ["-t", "auto", "-u", "auto", "-T", "auto", "-U", "auto"];

impl Bench<'_> {
    /// Starts a COMMAND that prints the time and ends; gives the milliseconds from our call to its
    /// first instruction and from its last one to our end.
    fn start(&self, contender: Contender) -> Outcome<(f64, f64)> {
        let words = ["lab-client", "clock"];
        let mut command: Command = match contender {
            Contender::Bare => pasta::bare_command(self.lab, words.into_iter().skip(1)),
            _ => self.pasta(contender).command(words),
        };
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let before = monotonic()?;
        let output = command.output()?;
        let after = monotonic()?;
        let text = String::from_utf8(output.stdout)?;
        let printed = text.lines().find_map(|line| match read_line(line) {
            Line::Fact(fact) => fact.parse::<u64>().ok(),
            _ => None,
        });
        let printed =
            printed.ok_or_else(|| format!("no time printed: {:?} {text}", output.status))?;
        Ok(((printed - before) as f64 / 1e6, (after - printed) as f64 / 1e6))
    }

    pub(crate) fn median_of_starts(
        &self,
        contender: Contender,
        which: impl Fn((f64, f64)) -> f64,
    ) -> Outcome<f64> {
        let mut times = Vec::new();
        for _ in 0..STARTS {
            times.push(which(self.start(contender)?));
        }
        times.sort_by(f64::total_cmp);
        Ok(times[STARTS / 2])
    }

    /// What processor time all processes take that look for ports and have nothing else to do, in percent of a
    /// processor.
    pub(crate) fn idle(&self, contender: Contender) -> Outcome<f64> {
        let used = || -> Outcome<u64> {
            program_processes()?.iter().map(process::Process::processor_time).sum()
        };
        let _session = self.begin(self.with_ports(contender, ALL_AUTO).with(["-q"]))?;
        // What is done once, at the start, does not count.
        thread::sleep(self.time);
        let before = used()?;
        thread::sleep(self.time);
        Ok((used()? - before) as f64 / self.time.as_nanos() as f64 * 100.0)
    }
}

/// Memory of the program under test, in octets.
pub(crate) fn memory() -> Outcome<u64> {
    program_processes()?.iter().map(process::Process::memory).sum()
}

/// The processes of the program under test: all but the client.
pub(crate) fn program_processes() -> Outcome<Vec<process::Process>> {
    let all = process::all()?.into_iter();
    Ok(all.filter(|process| process.name != "lab-client").collect())
}
