//! Random histories of a host, for as long as one likes: `cargo run -p tests --bin histories -- --seconds 3600`.
//!
//! `--seed N` begins with history number N, which is also how one is had again. Ends with the first that does not end
//! as the rules say.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tests::lab::Lab;
use tests::lab::programs::{self, Programs};
use tests::{Outcome, histories};

fn main() -> ExitCode {
    match run() {
        Ok(count) => {
            say(&format!("{count} histories ended as the rules say"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("histories: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    // A closed standard output leaves nobody to read it.
    let _ = writeln!(io::stdout(), "{line}");
}

fn run() -> Outcome<u64> {
    let (mut seconds, mut seed) = (60, 1);
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--seconds" => seconds = value.parse()?,
            "--seed" => seed = value.parse()?,
            _ => return Err(format!("{word} is none of --seconds and --seed").into()),
        }
    }
    let client = env::current_exe()?.with_file_name("lab-client");
    programs::build(&client)?;
    let lab = Lab::build(&Programs::find(&client)?, &[])?;
    histories::run(&lab, seed, Duration::from_secs(seconds), |count| {
        if count % 10 == 0 {
            say(&format!("{count} histories, the next has seed {}", seed + count));
        }
    })
}
