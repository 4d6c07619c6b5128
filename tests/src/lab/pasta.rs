//! Running the program under test.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::enter::{Power, shell_code};
use super::session::Session;
use super::wait::{self, PATIENCE};
use super::{Lab, USER, files};
use crate::Outcome;
use crate::sys::Refusal;

/// `pasta` about to be started: its options, and as whom.
#[derive(Clone, Debug)]
pub struct Pasta<'lab> {
    lab: &'lab Lab,
    program: PathBuf,
    options: Vec<String>,
    as_root: bool,
    descriptors: Option<u64>,
    refused: Vec<Refusal>,
}

impl<'lab> Pasta<'lab> {
    /// The `pasta` that is `program`, with no option yet.
    pub const fn new(lab: &'lab Lab, program: PathBuf) -> Self {
        let options = Vec::new();
        let refused = Vec::new();
        Self { lab, program, options, as_root: false, descriptors: None, refused }
    }

    /// Adds options, each word by itself.
    #[must_use]
    pub fn with<S: ToString>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(|option| option.to_string()));
        self
    }

    /// Attaches with these words and waits for the result of the start: in the background its end.
    ///
    /// # Errors
    ///
    /// When it cannot be executed, or does not come back.
    pub fn attach<S: ToString>(self, words: impl IntoIterator<Item = S>) -> Outcome<Finished> {
        Running::start(self.with(words).command(std::iter::empty::<&str>()))?.finish()
    }

    /// Adds `--config-net`: the namespace is configured when COMMAND starts.
    #[must_use]
    pub fn configured(self) -> Self {
        self.with(["--config-net"])
    }

    /// Starts it as whoever the lab is: as root of the machine in root's lab.
    #[must_use]
    pub const fn as_root(mut self) -> Self {
        self.as_root = true;
        self
    }

    /// Whether it is started as whoever the lab is.
    pub const fn is_root(&self) -> bool {
        self.as_root
    }

    /// Starts it with no more than `count` descriptors to be had (`RLIMIT_NOFILE`, soft and hard).
    #[must_use]
    pub const fn limited_to(mut self, count: u64) -> Self {
        self.descriptors = Some(count);
        self
    }

    /// Starts it where the kernel refuses certain system calls.
    #[must_use]
    pub fn refused(mut self, calls: &[Refusal]) -> Self {
        self.refused.extend_from_slice(calls);
        self
    }

    /// The command as it would be run, as the lab's user and with an environment of its own;
    /// standard streams are still the test's.
    pub fn command<S: AsRef<str>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.options);
        let mut words = words.into_iter().peekable();
        if words.peek().is_some() {
            command.arg("--");
            command.args(words.map(|word| word.as_ref().to_owned()));
        }
        command.env_clear().current_dir("/");
        command.env("PATH", format!("{}:/usr/bin:/bin", files::PROGRAMS));
        if !self.as_root {
            as_ordinary_user(&mut command, self.lab.power());
        }
        if let Some(count) = self.descriptors {
            crate::sys::limit_descriptors(&mut command, count);
        }
        if !self.refused.is_empty() {
            crate::sys::refuse_calls(&mut command, &self.refused);
        }
        command
    }

    /// Starts `pasta` with COMMAND `words`; its standard streams are pipes to the test.
    ///
    /// # Errors
    ///
    /// When it cannot be executed.
    pub fn start<S: AsRef<str>>(&self, words: impl IntoIterator<Item = S>) -> Outcome<Running> {
        Running::start(self.command(words))
    }

    /// Runs `pasta` with COMMAND `words` to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be executed or does not end.
    pub fn run<S: AsRef<str>>(&self, words: impl IntoIterator<Item = S>) -> Outcome<Finished> {
        self.start(words)?.finish()
    }

    /// Starts a client inside that does what it is asked: see [`Session`].
    ///
    /// # Errors
    ///
    /// When the client does not come up.
    pub fn session(&self) -> Outcome<Session> {
        Session::open(self.start(["lab-client", "serve"])?)
    }
}

/// A client on the host itself, without any `pasta`: what everything is compared with.
///
/// # Errors
///
/// When the client does not come up.
pub fn bare_session(lab: &Lab) -> Outcome<Session> {
    Session::open(Running::start(bare_command(lab, ["serve"]))?)
}

/// A client on the host in a network namespace of its own, as in a container: something to attach to.
///
/// # Errors
///
/// When the client does not come up.
pub fn contained_session(lab: &Lab) -> Outcome<Session> {
    Session::open(Running::start(bare_command(lab, ["contained", "serve"]))?)
}

/// As [`contained_session`], as root of the lab, whose user namespace owns the network namespace.
///
/// # Errors
///
/// When the client does not come up.
pub fn unshared_session(lab: &Lab) -> Outcome<Session> {
    let mut command = Command::new(lab.program("lab-client"));
    command.args(["unshared", "serve"]).env_clear().current_dir("/");
    Session::open(Running::start(command)?)
}

/// The client as a command of the host, as the user that `pasta` would run as.
pub fn bare_command<'a>(lab: &Lab, words: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(lab.program("lab-client"));
    command.args(words).env_clear().current_dir("/");
    as_ordinary_user(&mut command, lab.power());
    command
}

/// Makes `command` run as the user that the programs under test run as.
pub fn as_ordinary_user(command: &mut Command, power: Power) {
    // As an ordinary user's lab the test has only the one user, who is ordinary by itself. Setting
    // a user as root also clears the supplementary groups (std's documentation of `uid`).
    if power == Power::Root {
        command.uid(USER).gid(USER);
    }
}

/// A started program, with its output collected as it comes. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
    seen: Vec<String>,
}

/// Options with which no port is forwarded or looked for.
pub const NO_PORTS: [&str; 8] = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];

/// What a program writes to its standard error.
#[derive(Clone, Debug)]
pub struct Errors(Arc<Mutex<String>>);

impl Errors {
    /// All of it so far.
    pub fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a program left when it ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// The lines of its standard output, those that were waited for included.
    pub output: Vec<String>,
    /// Its standard error.
    pub errors: String,
}

impl Finished {
    /// Exit code as a shell puts it: 128 and the signal for a killed process.
    pub fn code(&self) -> i32 {
        shell_code(self.status)
    }

    /// Octets of TCP that went through the backlog, as the datapath logs with `-d` when it ends.
    ///
    /// # Errors
    ///
    /// When the line is missing.
    pub fn backlog_octets(&self) -> Outcome<u64> {
        let (_, rest) = self.errors.split_once("backlog octets ").ok_or("no count of octets")?;
        Ok(rest.split_once(',').ok_or("not a count")?.0.parse()?)
    }

    /// Fails unless the exit code is `code`.
    ///
    /// # Errors
    ///
    /// With all that the program said.
    pub fn expect_code(self, code: i32) -> Outcome<Self> {
        if self.status.code() == Some(code) {
            Ok(self)
        } else {
            Err(format!("wanted exit code {code}, got {self:?}").into())
        }
    }
}

impl Running {
    /// Starts `command` with pipes as its standard streams.
    ///
    /// # Errors
    ///
    /// When it cannot be executed.
    pub fn start(mut command: Command) -> Outcome<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let stream = child.stderr.take().ok_or("no standard error")?;
        let collected = Arc::clone(&errors);
        thread::spawn(move || collect(stream, &collected));
        Ok(Self { child, lines, errors, seen: Vec::new() })
    }

    /// Number of the process that was started.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends the process that was started a signal.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// The next line of standard output.
    ///
    /// # Errors
    ///
    /// At the end of the output, or when the lab's patience ends; with all that was said.
    pub fn next_line(&mut self) -> Outcome<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.seen.push(line.clone());
                Ok(line)
            }
            Err(cause) => {
                let what = match cause {
                    RecvTimeoutError::Timeout => "no more output in time",
                    RecvTimeoutError::Disconnected => "end of output",
                };
                Err(format!("{what}; output {:?}, errors {:?}", self.seen, self.errors()).into())
            }
        }
    }

    /// Waits for the line `wanted`.
    ///
    /// # Errors
    ///
    /// As [`Running::next_line`].
    pub fn wait_for_line(&mut self, wanted: &str) -> Outcome {
        while self.next_line()? != wanted {}
        Ok(())
    }

    /// What it wrote to its standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its standard error, to be read while something else has this.
    pub fn errors_so_far(&self) -> Errors {
        Errors(Arc::clone(&self.errors))
    }

    /// Its standard input; taken once.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits for its end, without closing its standard input.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn wait(&mut self) -> Outcome<ExitStatus> {
        let child = &mut self.child;
        let ended = wait::until("the end of the program", || child.try_wait().transpose());
        match ended {
            Ok(status) => Ok(status?),
            Err(error) => Err(format!("{error}; errors {:?}", self.errors()).into()),
        }
    }

    /// Closes its standard input, waits for its end and for the end of its output: whoever
    /// inherited the output has then ended or closed it too.
    ///
    /// # Errors
    ///
    /// When it does not end, or its output stays open.
    pub fn finish(mut self) -> Outcome<Finished> {
        drop(self.take_input());
        let status = self.wait()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err("the program ended but its output stayed open".into());
                }
            }
        }
        let errors = wait::until("the end of standard error", || {
            (Arc::strong_count(&self.errors) == 1).then(|| self.errors())
        })?;
        Ok(Finished { status, output: std::mem::take(&mut self.seen), errors })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Appends what comes to `collected` until the stream ends.
fn collect(mut stream: impl Read, collected: &Mutex<String>) {
    let mut octets = [0; 4096];
    loop {
        match stream.read(&mut octets) {
            Ok(0) => return,
            Ok(length) => {
                let text = String::from_utf8_lossy(&octets[..length]);
                collected.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
