//! From a readable policy to a BPF program. Runs when the crate is built and in its tests; nothing
//! of it is in the three programs.
//!
//! A policy file is a list of entries, each a system call, a `comment` that names who needs it, and
//! perhaps `when`: alternatives of which one must hold. An alternative tells for arguments (`arg0`
//! to `arg5`) what they must be:
//!
//! | condition | holds when |
//! | --- | --- |
//! | `"A|B"` | the low 32 bits, all that the kernel looks at in an `int`, are exactly these |
//! | `{ "is64": "A|B" }` | all 64 bits are exactly these |
//! | `{ "within": "A|B" }` | no other bit of the low 32 is set |
//! | `{ "within64": "A|B" }` | no other bit of all 64 is set |
//!
//! Words are names from `constants.json` of the architecture, or numbers. A call without `when` is
//! allowed whatever its arguments. What is not listed ends the process; that is not for a policy to
//! choose.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The file that names constants: name to value.
type Constants = BTreeMap<String, u64>;

/// A policy file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    /// Whom the list is for.
    #[allow(dead_code, reason = "for readers of the file; its presence is checked by reading it")]
    about: String,
    syscalls: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    syscall: String,
    comment: String,
    when: Option<Vec<BTreeMap<String, Condition>>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Condition {
    Is(String),
    Qualified(Qualified),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Qualified {
    Is64(String),
    Within(String),
    Within64(String),
}

/// What is wrong with a policy.
#[derive(Debug)]
pub(crate) enum PolicyError {
    /// Not JSON, or not of this form.
    Form(serde_json::Error),
    /// An entry, by its system call, and what is wrong with it.
    Entry(String, &'static str),
    /// A word that is neither a number nor in the constants.
    Constant(String),
    /// The compiler refused it: unknown system call, or too large.
    Compile(seccompiler::Error),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(error) => write!(f, "not a policy: {error}"),
            Self::Entry(syscall, why) => write!(f, "entry \"{syscall}\": {why}"),
            Self::Constant(word) => write!(f, "unknown constant \"{word}\""),
            Self::Compile(error) => write!(f, "cannot compile: {error}"),
        }
    }
}

impl std::error::Error for PolicyError {}

impl From<serde_json::Error> for PolicyError {
    fn from(error: serde_json::Error) -> Self {
        Self::Form(error)
    }
}

/// Compiles the entries of `shared` and `role` together into one program.
///
/// # Errors
///
/// [`PolicyError`] for the first thing that is wrong.
pub(crate) fn compile(
    shared: &str,
    role: &str,
    constants: &str,
    arch: seccompiler::TargetArch,
) -> Result<seccompiler::BpfProgram, PolicyError> {
    let constants: Constants = serde_json::from_str(constants)?;
    let entries = merge(serde_json::from_str(shared)?, serde_json::from_str(role)?)?;
    let mut rules = Vec::new();
    for entry in &entries {
        match &entry.when {
            None => rules.push(json!({ "syscall": entry.syscall })),
            Some(alternatives) => {
                for alternative in alternatives {
                    let args = conditions(&entry.syscall, alternative, &constants)?;
                    rules.push(json!({ "syscall": entry.syscall, "args": args }));
                }
            }
        }
    }
    let filter = json!({ "role": {
        "mismatch_action": "kill_process", "match_action": "allow", "filter": rules,
    } });
    let programs = seccompiler::compile_from_json(filter.to_string().as_bytes(), arch)
        .map_err(PolicyError::Compile)?;
    programs.into_values().next().ok_or(PolicyError::Entry("role".into(), "no program came out"))
}

/// The system calls that `shared` and `role` allow together, each with whether its arguments are
/// looked at.
///
/// # Errors
///
/// As [`compile`], apart from what the compiler finds.
#[cfg_attr(not(test), allow(dead_code, reason = "the build compiles only; tests look closer"))]
pub(crate) fn reach(shared: &str, role: &str) -> Result<BTreeMap<String, bool>, PolicyError> {
    let entries = merge(serde_json::from_str(shared)?, serde_json::from_str(role)?)?;
    Ok(entries.into_iter().map(|entry| (entry.syscall, entry.when.is_some())).collect())
}

/// Puts both lists together and checks what a reader relies on.
fn merge(shared: Policy, role: Policy) -> Result<Vec<Entry>, PolicyError> {
    for policy in [&shared, &role] {
        let mut seen = BTreeSet::new();
        for entry in &policy.syscalls {
            let wrong = |why| Err(PolicyError::Entry(entry.syscall.clone(), why));
            if entry.comment.trim().is_empty() {
                return wrong("no comment that names who needs it");
            }
            if entry.when.as_ref().is_some_and(|w| w.is_empty() || w.iter().any(BTreeMap::is_empty))
            {
                return wrong("\"when\" without a condition");
            }
            if !seen.insert(&entry.syscall) {
                return wrong("listed twice");
            }
        }
    }
    // The compiler would silently let the rules with conditions win.
    for entry in &role.syscalls {
        let twin = shared.syscalls.iter().find(|other| other.syscall == entry.syscall);
        if twin.is_some_and(|twin| twin.when.is_none() || entry.when.is_none()) {
            let why = "in the shared list too, and one of the two is without conditions";
            return Err(PolicyError::Entry(entry.syscall.clone(), why));
        }
    }
    Ok(shared.syscalls.into_iter().chain(role.syscalls).collect())
}

/// One alternative in the compiler's own form.
fn conditions(
    syscall: &str,
    alternative: &BTreeMap<String, Condition>,
    constants: &Constants,
) -> Result<Vec<Value>, PolicyError> {
    let mut args = Vec::new();
    for (name, condition) in alternative {
        let index: u8 = match name.strip_prefix("arg").map(str::parse) {
            Some(Ok(index @ 0..=5)) => index,
            _ => return Err(PolicyError::Entry(syscall.into(), "arguments are arg0 to arg5")),
        };
        let (width, within, words) = match condition {
            Condition::Is(words) => ("dword", false, words),
            Condition::Qualified(Qualified::Is64(words)) => ("qword", false, words),
            Condition::Qualified(Qualified::Within(words)) => ("dword", true, words),
            Condition::Qualified(Qualified::Within64(words)) => ("qword", true, words),
        };
        let value = value_of(words, constants)?;
        let mask = if width == "dword" { !value & u64::from(u32::MAX) } else { !value };
        args.push(if within {
            json!({ "index": index, "type": width, "op": { "masked_eq": mask }, "val": 0 })
        } else {
            json!({ "index": index, "type": width, "op": "eq", "val": value })
        });
    }
    Ok(args)
}

/// The bits of `A|B|0x10`.
fn value_of(words: &str, constants: &Constants) -> Result<u64, PolicyError> {
    words.split('|').try_fold(0, |bits, word| {
        let word = word.trim();
        let number = match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => word.parse().ok(),
        };
        let value = number.or_else(|| constants.get(word).copied());
        value.map(|value| bits | value).ok_or_else(|| PolicyError::Constant(word.into()))
    })
}

// Named in full because the build reads this file from another directory.
#[cfg(test)]
#[path = "policy/tests.rs"]
mod tests;
