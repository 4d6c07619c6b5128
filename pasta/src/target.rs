//! What is connected: a command in new namespaces, or a namespace that exists.
//!
//! | words | target |
//! | --- | --- |
//! | none, no `--netns` | a login shell in new namespaces |
//! | one, all digits | the network namespace of this process |
//! | others | a command in new namespaces |
//! | `--netns` | the network namespace behind this path |

use crate::options::InvalidOptions;
use crate::value::DomainName;
use nix::unistd::Pid;
use std::ffi::{CString, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// COMMAND in a new network namespace.
    Command(Command),
    /// A network namespace that exists.
    Existing(Existing),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => {
                write!(f, "command {}", command.program.path.to_string_lossy())
            }
            Self::Existing(existing) => write!(f, "namespace {}", existing.net.display()),
        }
    }
}

/// A command and the namespaces made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// What is run.
    pub(crate) program: Program,
    /// The user namespace it is run in.
    pub(crate) user: CommandUser,
    /// Whether it has a PID namespace of its own.
    pub(crate) pids: PidNamespace,
    /// What becomes of it when we are killed.
    pub(crate) orphan: Orphan,
    /// Its host name; none: `pasta-` and the host's.
    pub(crate) host_name: Option<DomainName>,
}

/// The program to run in the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Path, or name to look up in `PATH`.
    pub(crate) path: CString,
    /// Its arguments, `argv[0]` included.
    pub(crate) args: Vec<CString>,
}

/// The user namespace of COMMAND.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandUser {
    /// A new one.
    New,
    /// The one we are in (`--netns-only`).
    Ours,
    /// This one (`--userns`).
    At(PathBuf),
}

/// The PID namespace of COMMAND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PidNamespace {
    /// A new one, whose processes end with COMMAND.
    New,
    /// The caller's (`--no-pidns`).
    Shared,
}

/// What becomes of COMMAND when we are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orphan {
    /// It is killed too.
    Killed,
    /// It goes on, without a network (`--no-die-with-parent`).
    Left,
}

/// A network namespace that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Existing {
    /// Its path.
    pub(crate) net: PathBuf,
    /// The user namespace that is entered first.
    pub(crate) user: ExistingUser,
    /// The process that was named instead of a path.
    pub(crate) process: Option<Pid>,
    /// Whether we end with it.
    pub(crate) quit: Quit,
    /// Whether we stay in the foreground.
    pub(crate) ground: Ground,
}

/// The user namespace that is entered before an existing network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExistingUser {
    /// The one that owns the network namespace.
    Owner,
    /// None (`--netns-only`).
    Ours,
    /// This one (`--userns`).
    At(PathBuf),
}

/// Whether we end when the namespace is unlinked or unmounted, or its process ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Quit {
    /// We do.
    #[default]
    WithNamespace,
    /// We do not (`--no-netns-quit`).
    Never,
}

/// Where we run once all is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ground {
    /// The caller gets control back.
    #[default]
    Background,
    /// The caller waits for our end (`-f`).
    Foreground,
}

/// The options of the target, before they are checked.
#[derive(Debug, Default)]
pub(crate) struct TargetBuilder {
    pub(crate) net: Option<PathBuf>,
    pub(crate) user: UserOption,
    pub(crate) quit: Quit,
    pub(crate) ground: Ground,
    pub(crate) shared_pids: bool,
    pub(crate) outlives_us: bool,
    pub(crate) host_name: Option<DomainName>,
}

/// The last one of `--userns` and `--netns-only`.
#[derive(Debug, Default)]
pub(crate) enum UserOption {
    /// Neither was given.
    #[default]
    Default,
    /// `--netns-only`
    Ours,
    /// `--userns`
    At(PathBuf),
}

impl TargetBuilder {
    /// Determines the target from the words after the options; `shell` is the value of `SHELL`.
    ///
    /// # Errors
    ///
    /// [`InvalidOptions`], with the line to print.
    pub(crate) fn finish(
        self,
        words: Vec<OsString>,
        shell: Option<OsString>,
    ) -> Result<Target, InvalidOptions> {
        let process = process(&words)?;
        let net = match (self.net, process) {
            (Some(_), _) if !words.is_empty() => {
                return Err(InvalidOptions::new(
                    "both --netns and a PID or command were given: choose one",
                ));
            }
            (Some(path), _) => path,
            (None, Some(pid)) => format!("/proc/{pid}/ns/net").into(),
            (None, None) => {
                return Ok(Target::Command(Command {
                    program: program(words, shell)?,
                    user: match self.user {
                        UserOption::Default => CommandUser::New,
                        UserOption::Ours => CommandUser::Ours,
                        UserOption::At(path) => CommandUser::At(path),
                    },
                    pids: if self.shared_pids { PidNamespace::Shared } else { PidNamespace::New },
                    orphan: if self.outlives_us { Orphan::Left } else { Orphan::Killed },
                    host_name: self.host_name,
                }));
            }
        };
        for (given, name) in
            [(self.shared_pids, "--no-pidns"), (self.outlives_us, "--no-die-with-parent")]
        {
            if given {
                return Err(InvalidOptions::new(format!("{name} needs a command to run")));
            }
        }
        Ok(Target::Existing(Existing {
            net,
            user: match self.user {
                UserOption::Default => ExistingUser::Owner,
                UserOption::Ours => ExistingUser::Ours,
                UserOption::At(path) => ExistingUser::At(path),
            },
            process,
            quit: self.quit,
            ground: self.ground,
        }))
    }
}

/// The process to attach to: a single word of digits.
fn process(words: &[OsString]) -> Result<Option<Pid>, InvalidOptions> {
    let [word] = words else { return Ok(None) };
    let text = word.to_string_lossy();
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(Some(Pid::from_raw(pid))),
        _ => Err(InvalidOptions::new(format!("Invalid PID: {text}"))),
    }
}

/// The program to run: COMMAND, or `$SHELL` as a login shell.
fn program(words: Vec<OsString>, shell: Option<OsString>) -> Result<Program, InvalidOptions> {
    let c_string = |word: OsString| {
        CString::new(word.into_vec())
            .map_err(|_| InvalidOptions::new("a word of the command holds a NUL"))
    };
    let args = words.into_iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = args.first() {
        return Ok(Program { path: path.clone(), args });
    }
    let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    // A shell is a login shell if `argv[0]` starts with a dash.
    let mut name = OsString::from("-");
    name.push(&shell);
    Ok(Program { path: c_string(shell)?, args: vec![c_string(name)?] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_ascii_whitespace().map(OsString::from).collect()
    }

    fn target(builder: TargetBuilder, line: &str) -> Result<Target, String> {
        builder.finish(words(line), Some("/bin/zsh".into())).map_err(|error| error.to_string())
    }

    fn of_command(line: &str) -> Program {
        match target(TargetBuilder::default(), line) {
            Ok(Target::Command(command)) => command.program,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_command_it_is_the_callers_shell_as_a_login_shell() {
        let program = of_command("");
        assert_eq!(program.path.to_str(), Ok("/bin/zsh"));
        assert_eq!(program.args, [c"-/bin/zsh".to_owned()]);
        for shell in [None, Some("".into())] {
            let Ok(Target::Command(command)) = TargetBuilder::default().finish(Vec::new(), shell)
            else {
                panic!()
            };
            assert_eq!(command.program.args, [c"-/bin/sh".to_owned()]);
        }
    }

    #[test]
    fn a_single_number_is_a_process_and_anything_else_a_command() {
        let Ok(Target::Existing(existing)) = target(TargetBuilder::default(), "12") else {
            panic!()
        };
        assert_eq!(existing.net, PathBuf::from("/proc/12/ns/net"));
        assert_eq!(existing.process, Some(Pid::from_raw(12)));
        assert_eq!(existing.user, ExistingUser::Owner);
        for line in ["12 x", "0x10", "-1"] {
            assert_eq!(of_command(line).path.to_str().ok(), line.split(' ').next());
        }
        for line in ["2147483648", "0"] {
            let refused = target(TargetBuilder::default(), line);
            assert_eq!(refused, Err(format!("Invalid PID: {line}")));
        }
    }

    #[test]
    fn a_path_excludes_words() {
        let named = || TargetBuilder { net: Some("/run/netns/x".into()), ..Default::default() };
        assert!(matches!(target(named(), ""), Ok(Target::Existing(_))));
        for line in ["12", "ls"] {
            assert!(target(named(), line).unwrap_err().starts_with("both --netns"));
        }
        let shared = TargetBuilder { shared_pids: true, ..named() };
        assert!(target(shared, "").unwrap_err().contains("--no-pidns"));
        let outlives = TargetBuilder { outlives_us: true, ..named() };
        assert!(target(outlives, "").unwrap_err().contains("--no-die-with-parent"));
    }
}
