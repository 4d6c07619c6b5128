//! Runs the cases of one test file, each in a process of its own.
//!
//! The usual harness of Rust runs tests as threads of one process, and a process with threads cannot
//! enter a user namespace. So each test file has `harness = false` and a `main` that calls
//! [`main`]; that lists the cases, and for each one runs its own executable again with the case's
//! name in the environment. A case that hangs or dies takes nothing else with it.
//!
//! The command line and the output are those of the usual harness, as far as `cargo test` and people
//! use them. Added is one line for each test that could not run here:
//!
//! ```text
//! SKIPPED download/ipv6: cannot open /dev/net/tun: Permission denied
//! ```
//!
//! A crate that imitates the usual harness would do most of this, but brings options of `clap` with
//! it that cargo would then switch on for `pasta` too whenever the whole workspace is built.

mod options;

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio, exit};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use crate::Outcome;
use crate::lab::address::FAMILIES;
use crate::lab::programs::{self, Programs};
use crate::lab::wait;
use crate::lab::{Family, Lab, Skip};
use crate::sys;
use options::Options;

/// Tells the process of a case which one it is.
const CASE: &str = "PASTA_LAB_CASE";

/// Exit code of the process of a case that could not run; the reason is the last line it printed.
const SKIPPED: i32 = 77;

/// How long a case may take. Chosen: more than any number of deadlines inside one adds up to.
const LIMIT: Duration = Duration::from_secs(240);

/// One test, or one for each address family.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    name: &'static str,
    body: Body,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    Plain(fn() -> Outcome),
    Lab(fn(&Lab) -> Outcome),
    Families(fn(&Lab, Family) -> Outcome),
}

impl Case {
    /// A test that needs no lab.
    pub const fn plain(name: &'static str, body: fn() -> Outcome) -> Self {
        Self { name, body: Body::Plain(body) }
    }

    /// A test in a lab.
    pub const fn lab(name: &'static str, body: fn(&Lab) -> Outcome) -> Self {
        Self { name, body: Body::Lab(body) }
    }

    /// A test in a lab, for each address family.
    pub const fn families(name: &'static str, body: fn(&Lab, Family) -> Outcome) -> Self {
        Self { name, body: Body::Families(body) }
    }
}

/// Makes a [`Case`] of a function, named like it: `case!(lab, function)`.
#[macro_export]
macro_rules! case {
    ($kind:ident, $function:ident) => {
        $crate::harness::Case::$kind(stringify!($function), $function)
    };
}

/// A case as it is run: with its family, where it has one.
#[derive(Clone, Debug)]
struct Run {
    name: String,
    body: Body,
    family: Option<Family>,
}

/// How a case ended.
#[derive(Clone, Debug)]
enum Verdict {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Runs what the command line asks for; `client` is where the build put `lab-client`.
pub fn main(client: &str, cases: &[Case]) -> ExitCode {
    let client = Path::new(client);
    let runs = runs_of(cases);
    if let Some(wanted) = env::var_os(CASE) {
        match runs.iter().find(|run| wanted == *run.name) {
            Some(run) => run_here(run, client),
            None => return ExitCode::FAILURE,
        }
    }
    let options = match Options::parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            say(&format!("error: {error}\n"));
            return ExitCode::from(2);
        }
    };
    let all = runs.len();
    let wanted: Vec<Run> = runs.into_iter().filter(|run| options.wants(&run.name)).collect();
    if options.list {
        for run in &wanted {
            say(&format!("{}: test\n", run.name));
        }
        return ExitCode::SUCCESS;
    }
    let built = if wanted.is_empty() { Ok(()) } else { programs::build(client) };
    if let Err(error) = built {
        say(&format!("error: {error}\n"));
        return ExitCode::from(101);
    }
    let start = Instant::now();
    say(&format!("\nrunning {} test{}\n", wanted.len(), if wanted.len() == 1 { "" } else { "s" }));
    let verdicts = run_all(&wanted, &options);
    summary(&wanted, &verdicts, all - wanted.len(), start.elapsed())
}

/// Prints: the harness is the one place in this crate whose output is for people.
fn say(text: &str) {
    // A closed standard output leaves nobody to tell.
    let _ = io::stdout().write_all(text.as_bytes());
}

fn runs_of(cases: &[Case]) -> Vec<Run> {
    let mut runs = Vec::new();
    for &Case { name, body } in cases {
        match body {
            Body::Families(_) => runs.extend(FAMILIES.iter().map(|&family| Run {
                name: format!("{name}/{}", family.name()),
                body,
                family: Some(family),
            })),
            _ => runs.push(Run { name: name.to_owned(), body, family: None }),
        }
    }
    runs
}

/// Runs the case in this process and ends it.
fn run_here(run: &Run, client: &Path) -> ! {
    let lab = || -> Outcome<Lab> {
        sys::reset_deadly_signals()?;
        Lab::build(&Programs::find(client)?, &[])
    };
    let outcome = match (run.body, run.family) {
        (Body::Plain(body), _) => body(),
        (Body::Lab(body), _) => lab().and_then(|lab| body(&lab)),
        (Body::Families(body), Some(family)) => lab().and_then(|lab| body(&lab, family)),
        (Body::Families(_), None) => Err("a case for families without one".into()),
    };
    let code = match outcome {
        Ok(()) => 0,
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(skip) => {
                say(&format!("{skip}\n"));
                SKIPPED
            }
            None => {
                say(&format!("{error}\n"));
                1
            }
        },
    };
    exit(code)
}

/// Runs the cases on several threads, telling how each ended as it does.
fn run_all(runs: &[Run], options: &Options) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let verdicts: Mutex<Vec<Option<Verdict>>> = Mutex::new(vec![None; runs.len()]);
    thread::scope(|scope| {
        for _ in 0..options.threads.min(runs.len()) {
            scope.spawn(|| {
                while let Some((index, run)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    runs.get(index).map(|run| (index, run))
                } {
                    let start = Instant::now();
                    let verdict = match run_apart(run, options.capture) {
                        Ok(verdict) => verdict,
                        Err(error) => Verdict::Failed(format!("cannot run the case: {error}")),
                    };
                    say(&format!(
                        "test {} ... {} ({:.2}s)\n",
                        run.name,
                        match &verdict {
                            Verdict::Passed => "ok".to_owned(),
                            Verdict::Skipped(reason) => format!("ignored, {reason}"),
                            Verdict::Failed(_) => "FAILED".to_owned(),
                        },
                        start.elapsed().as_secs_f64()
                    ));
                    if let Ok(mut verdicts) = verdicts.lock() {
                        verdicts[index] = Some(verdict);
                    }
                }
            });
        }
    });
    let lost = || Verdict::Failed("the case was not run".to_owned());
    let verdicts = verdicts.into_inner().unwrap_or_default();
    verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(lost)).collect()
}

/// Runs one case in a process of its own.
fn run_apart(run: &Run, capture: bool) -> Outcome<Verdict> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let mut reader = File::from(reader);
    let mut command = Command::new(env::current_exe()?);
    command.env(CASE, &run.name).stdin(Stdio::null());
    command.stdout(writer.try_clone()?);
    if capture {
        command.stderr(writer);
    } else {
        drop(writer);
    }
    let mut child = command.spawn()?;
    drop(command);
    let collector = thread::spawn(move || {
        let mut output = Vec::new();
        // An error ends the output where it is.
        let _ = reader.read_to_end(&mut output);
        String::from_utf8_lossy(&output).into_owned()
    });
    let ended = wait::until_within(LIMIT, "the end of the case", || child.try_wait().transpose());
    if ended.is_err() {
        // The namespaces of the case, and every process in them, end with this process.
        child.kill()?;
        child.wait()?;
    }
    let output = collector.join().unwrap_or_default();
    let last = output.lines().last().unwrap_or_default().to_owned();
    match ended {
        Err(error) => Ok(Verdict::Failed(format!("{output}{error}"))),
        Ok(status) => match status?.code() {
            Some(0) => Ok(Verdict::Passed),
            Some(SKIPPED) => Ok(Verdict::Skipped(last)),
            Some(1) => Ok(Verdict::Failed(output)),
            other => Ok(Verdict::Failed(format!("{output}(ended with {other:?})"))),
        },
    }
}

/// Prints failures, skipped tests and the closing line.
fn summary(runs: &[Run], verdicts: &[Verdict], filtered: usize, took: Duration) -> ExitCode {
    let mut text = String::from("\n");
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), 0);
    for (run, verdict) in runs.iter().zip(verdicts) {
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Skipped(_) => skipped += 1,
            Verdict::Failed(output) => failed.push((run, output)),
        }
    }
    if !failed.is_empty() {
        text += "failures:\n\n";
        for (run, output) in &failed {
            text += &format!("---- {} ----\n{output}\n", run.name);
        }
        text += "failures:\n";
        for (run, _) in &failed {
            text += &format!("    {}\n", run.name);
        }
        text += "\n";
    }
    for (run, verdict) in runs.iter().zip(verdicts) {
        if let Verdict::Skipped(reason) = verdict {
            text += &format!("SKIPPED {}: {reason}\n", run.name);
        }
    }
    text += &format!(
        "test result: {}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {filtered} \
         filtered out; finished in {:.2}s\n\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len(),
        took.as_secs_f64()
    );
    say(&text);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
