//! Questions about the process itself, and its end.
//!
//! | question | does |
//! | --- | --- |
//! | `exit CODE` | ends with this exit code, at once |
//! | `kill-self SIGNAL` | ends by this signal, given as a number |
//! | `hold` | prints `holding` and stays, with the signal dispositions it was started with |
//! | `await-signal` | prints `waiting`; the fact is the first of TERM, INT, HUP and QUIT that comes |
//! | `orphan [USER]` | starts a process that stays, as this user |
//! | `environment NAME` | the fact is the value of this environment variable |
//! | `clock` | the fact is the monotonic clock, in nanoseconds |
//! | `keyring` | the fact is the number of its session keyring |
//! | `type` | puts a character into the input of its standard input, as a terminal's |
//! | `list PATH` | the names in this directory, in order |
//! | `identity` | who it is, as the kernel says: fields of `/proc/self/status`, and the umask |

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, exit};

use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::pause;

use super::{Arguments, Facts};
use crate::{Outcome, sys};

/// The fields of `/proc/self/status` that `identity` tells.
const IDENTITY: [&str; 10] =
    ["Umask", "Pid", "PPid", "Uid", "Gid", "SigBlk", "SigIgn", "CapEff", "NoNewPrivs", "Seccomp"];

/// Answers a question about the process.
///
/// # Errors
///
/// When it is not known, or the kernel refuses.
pub fn answer(question: &str, arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    match question {
        "exit" => exit(arguments.value("exit code")?),
        "kill-self" => {
            raise(Signal::try_from(arguments.value::<i32>("signal")?)?)?;
            Err("survived the signal".into())
        }
        "hold" => {
            announce("holding")?;
            loop {
                pause();
            }
        }
        "await-signal" => {
            let mut wanted = SigSet::empty();
            for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
                wanted.add(signal);
            }
            wanted.thread_block()?;
            announce("waiting")?;
            Ok(vec![wanted.wait()?.to_string()])
        }
        "orphan" => {
            let mut orphan = Command::new(std::env::current_exe()?);
            if let Some(user) = arguments.optional("user")? {
                orphan.uid(user);
            }
            orphan.arg("hold").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = orphan.spawn()?;
            let mut stdout = child.stdout.take().ok_or("no standard output")?;
            // It has come up once it has said so; whatever it says later has no reader.
            io::Read::read_exact(&mut stdout, &mut [0])?;
            Ok(vec![format!("pid {}", child.id())])
        }
        "environment" => {
            let name = arguments.word("name")?;
            Ok(vec![std::env::var(name).map_err(|_| format!("{name} is not set"))?])
        }
        "clock" => Ok(vec![monotonic()?.to_string()]),
        "list" => {
            let entries = fs::read_dir(arguments.word("path")?)?;
            let names = entries.map(|it| Ok(it?.file_name().to_string_lossy().into_owned()));
            let mut names = names.collect::<Outcome<Facts>>()?;
            names.sort();
            Ok(names)
        }
        "keyring" => Ok(vec![sys::session_keyring()?.to_string()]),
        "type" => {
            sys::type_into(io::stdin())?;
            Ok(Facts::new())
        }
        "identity" => {
            let status = fs::read_to_string("/proc/self/status")?;
            let known =
                |line: &&str| IDENTITY.iter().any(|field| line.split(':').next() == Some(field));
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            Ok(status.lines().filter(known).map(words).collect())
        }
        other => Err(format!("no question {other}").into()),
    }
}

/// Says a word at once, before the answer.
fn announce(word: &str) -> Outcome {
    let mut output = io::stdout().lock();
    writeln!(output, "{word}")?;
    Ok(output.flush()?)
}

/// The monotonic clock in nanoseconds: the same for every process of the machine.
///
/// # Errors
///
/// What `clock_gettime(2)` reports.
pub fn monotonic() -> Outcome<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.num_nanoseconds())?)
}
