//! What the benchmarks under `tests/benches` share.

use crate::Outcome;
use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs a benchmark; why it failed is printed.
pub fn main(run: impl FnOnce() -> Outcome) -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Prints for people.
pub fn say(text: &str) {
    let mut output = io::stdout().lock();
    // A closed standard output leaves nobody to tell.
    let _ = output.write_all(text.as_bytes());
    let _ = output.flush();
}

/// Debian's `pasta`, if it is on the search path.
pub fn upstream() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    // Not resolved any further: Debian's is a link to `passt`, which goes by the name it is called by.
    env::split_paths(&path).map(|directory| directory.join("pasta")).find(|file| file.is_file())
}
