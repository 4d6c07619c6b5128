//! The lines between a test and the client it runs inside the namespace.
//!
//! A question is one line of words. The answer is any number of facts and then one verdict:
//!
//! ```text
//! > tcp connect 198.51.100.1:80
//! - local 192.0.2.2:41324
//! = ok
//! > tcp connect 198.51.100.1:81
//! = error ECONNREFUSED
//! ```

use std::io;

use nix::errno::Errno;

use crate::Failure;

/// First line of a client that is ready for questions.
pub const READY: &str = "ready";

const FACT: &str = "- ";
const SUCCESS: &str = "= ok";
const FAILURE: &str = "= error ";

/// A line of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Something the client found out.
    Fact(&'a str),
    /// The last line: it worked.
    Success,
    /// The last line: it failed like this.
    Failure(&'a str),
}

/// Reads a line; what is not of this protocol (a warning of `pasta`, say) counts as a fact.
pub fn read_line(line: &str) -> Line<'_> {
    if line == SUCCESS {
        Line::Success
    } else if let Some(text) = line.strip_prefix(FAILURE) {
        Line::Failure(text)
    } else {
        Line::Fact(line.strip_prefix(FACT).unwrap_or(line))
    }
}

/// Puts an answer into lines.
pub fn write_answer(answer: Result<Vec<String>, Failure>) -> String {
    match answer {
        Ok(facts) => {
            facts.iter().map(|fact| format!("{FACT}{fact}\n")).collect::<String>() + SUCCESS + "\n"
        }
        Err(error) => format!("{FAILURE}{}\n", name_of(&error).replace('\n', " ")),
    }
}

/// The kernel's name for an error, where it is one of the kernel's.
fn name_of(error: &Failure) -> String {
    if let Some(errno) = error.downcast_ref::<Errno>() {
        return format!("{errno:?}");
    }
    match error.downcast_ref::<io::Error>() {
        Some(error) => match error.raw_os_error() {
            Some(number) => format!("{:?}", Errno::from_raw(number)),
            None => format!("{:?} {error}", error.kind()),
        },
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_were_written() {
        let text = write_answer(Ok(vec!["one".into(), "two 2".into()]));
        let lines: Vec<Line<'_>> = text.lines().map(read_line).collect();
        assert_eq!(lines, [Line::Fact("one"), Line::Fact("two 2"), Line::Success]);
    }

    #[test]
    fn errors_of_the_kernel_have_its_names() {
        let refused: Failure = io::Error::from_raw_os_error(libc::ECONNREFUSED).into();
        assert_eq!(write_answer(Err(refused)), "= error ECONNREFUSED\n");
        assert_eq!(write_answer(Err(Errno::EPERM.into())), "= error EPERM\n");
        assert_eq!(read_line("= error EPERM"), Line::Failure("EPERM"));
    }
}
