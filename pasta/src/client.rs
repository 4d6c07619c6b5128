#![forbid(unsafe_code)]
//! A client of the control socket (`-c`). Every call waits for the answer, up to a deadline.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use pasta_ipc::channel::{Channel, ReceiveError, SendError, expect_hello};
use pasta_ipc::control::{ChangeResult, ForwardChange, ForwardState};
use pasta_ipc::message::Hello;
use pasta_ipc::status::{DatapathStatus, InstanceStatus, MonitorStatus};
use pasta_ipc::{ClientToSupervisor, SupervisorToClient};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an answer is waited for; chosen: an instance gives its helpers some seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection to an instance.
#[derive(Debug)]
pub struct Client {
    channel: Channel<ClientToSupervisor, SupervisorToClient>,
    patience: Duration,
}

/// All of a status.
#[derive(Clone, Debug)]
pub struct Status {
    /// The instance as a whole.
    pub instance: InstanceStatus,
    /// What is forwarded.
    pub forwards: ForwardState,
    /// What the monitor says; none if it has ended or does not answer.
    pub monitor: Option<MonitorStatus>,
    /// What the datapath says; none if it has ended or does not answer.
    pub datapath: Option<DatapathStatus>,
}

/// Why an instance could not be asked.
#[derive(Debug)]
pub enum ClientError {
    /// It cannot be connected to.
    Connect(PathBuf, Errno),
    /// It does not answer.
    Late,
    /// It has gone, or refused without a word.
    Gone,
    /// It does not serve us, and says why.
    Refused(String),
    /// It is of another version, or no `pasta`.
    Protocol(String),
    /// The system refused something.
    System(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(path, errno) => {
                write!(f, "cannot connect to {}: {}", path.display(), errno.desc())?;
                match errno {
                    Errno::ECONNREFUSED => f.write_str(" (no instance is listening there)"),
                    Errno::EPROTOTYPE => {
                        f.write_str(" (it is the socket of another program, or of another pasta)")
                    }
                    _ => Ok(()),
                }
            }
            Self::Late => f.write_str("pasta does not answer"),
            Self::Gone => f.write_str("pasta has closed the connection"),
            Self::Refused(why) => f.write_str(why),
            Self::Protocol(why) => write!(f, "protocol violation: {why}"),
            Self::System(error) => write!(f, "cannot talk to pasta: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl Client {
    /// Connects to the instance that serves `path`, and waits for its answer until `deadline`; by default a few
    /// seconds.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn connect(path: &Path, deadline: Option<Instant>) -> Result<Self, ClientError> {
        let failed = |errno| ClientError::Connect(path.to_owned(), errno);
        let address = UnixAddr::new(path).map_err(failed)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None);
        let socket = socket.map_err(failed)?;
        connect(socket.as_raw_fd(), &address).map_err(failed)?;
        let client = Self { channel: socket.into(), patience: PATIENCE };
        client.send(&ClientToSupervisor::Hello(Hello::OURS))?;
        match client.receive(deadline.unwrap_or_else(|| Instant::now() + PATIENCE))? {
            SupervisorToClient::Hello(hello) => {
                let checked = expect_hello(Some(hello));
                checked.map_err(|error| ClientError::Protocol(error.to_string()))?;
            }
            other => return Err(unexpected(&other)),
        }
        Ok(client)
    }

    /// What is forwarded.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn forwards(&self) -> Result<ForwardState, ClientError> {
        match self.ask(&ClientToSupervisor::ForwardsWanted)? {
            SupervisorToClient::Forwards(state) => Ok(*state),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for a change of what is forwarded.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; what became of the change itself is no error here.
    pub fn change(&self, change: ForwardChange) -> Result<ChangeResult, ClientError> {
        match self.ask(&ClientToSupervisor::Change(Box::new(change)))? {
            SupervisorToClient::Changed(result) => Ok(*result),
            other => Err(unexpected(&other)),
        }
    }

    /// How things stand, with so many flows.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn status(&self, flows: u8) -> Result<Status, ClientError> {
        let first = self.ask(&ClientToSupervisor::StatusWanted { flows })?;
        let SupervisorToClient::Instance(instance) = first else { return Err(unexpected(&first)) };
        let next = || self.receive(Instant::now() + self.patience);
        let forwards = match next()? {
            SupervisorToClient::Forwards(state) => *state,
            other => return Err(unexpected(&other)),
        };
        let monitor = match next()? {
            SupervisorToClient::Monitor(status) => status.map(|it| *it),
            other => return Err(unexpected(&other)),
        };
        let datapath = match next()? {
            SupervisorToClient::Datapath(status) => status.map(|it| *it),
            other => return Err(unexpected(&other)),
        };
        Ok(Status { instance: *instance, forwards, monitor, datapath })
    }

    /// Has host and namespace read again.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn resync(&self) -> Result<(), ClientError> {
        match self.ask(&ClientToSupervisor::ResyncWanted)? {
            SupervisorToClient::ResyncSent => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, message: &ClientToSupervisor) -> Result<SupervisorToClient, ClientError> {
        self.send(message)?;
        self.receive(Instant::now() + self.patience)
    }

    fn send(&self, message: &ClientToSupervisor) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.channel.send(message) {
                Ok(()) => return Ok(()),
                // Why it was closed is still to be received.
                Err(SendError::Closed) => return Ok(()),
                Err(SendError::WouldBlock) => self.wait(PollFlags::POLLOUT, deadline)?,
                Err(SendError::Io(error)) => return Err(ClientError::System(error)),
            }
        }
    }

    fn receive(&self, deadline: Instant) -> Result<SupervisorToClient, ClientError> {
        loop {
            match self.channel.receive() {
                Ok(received) => match received.message {
                    SupervisorToClient::Refused(why) => {
                        return Err(ClientError::Refused(why.to_string()));
                    }
                    message => return Ok(message),
                },
                Err(ReceiveError::WouldBlock) => self.wait(PollFlags::POLLIN, deadline)?,
                Err(ReceiveError::Closed) => return Err(ClientError::Gone),
                Err(ReceiveError::Violation(why)) => return Err(ClientError::Protocol(why)),
                Err(ReceiveError::Io(error)) => return Err(ClientError::System(error)),
            }
        }
    }

    fn wait(&self, flags: PollFlags, deadline: Instant) -> Result<(), ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::Late);
        }
        let mut fds = [PollFd::new(self.channel.as_fd(), flags)];
        let ms = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        match poll(&mut fds, PollTimeout::from(ms)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(ClientError::System(errno.into())),
        }
    }
}

fn unexpected(message: &SupervisorToClient) -> ClientError {
    let name: String = format!("{message:?}").chars().take_while(|c| c.is_alphanumeric()).collect();
    ClientError::Protocol(format!("{name} is no answer to that"))
}
