//! Shows the main job: a command in a namespace, with traffic, checked octet by octet.
//!
//! `cargo run --release -p tests --bin demo [MEBIBYTES]` builds a host and a remote machine out of
//! network namespaces, runs `pasta --config-net` on the host as an ordinary user, and moves that much
//! (1024 unless given) from and to the remote machine through the tap, in both families. It needs no
//! network, no root and no other program.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use tests::Outcome;
use tests::lab::address::FAMILIES;
use tests::lab::programs::{self, Programs};
use tests::lab::{Lab, service};
use tests::pattern::Pattern;

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("demo: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    // A closed standard output leaves nobody to tell.
    let _ = writeln!(io::stdout(), "{line}");
}

fn demo() -> Outcome {
    let mebibytes: u64 = match env::args().nth(1) {
        Some(word) => word.parse().map_err(|_| format!("not a number of mebibytes: {word}"))?,
        None => 1024,
    };
    let client = env::current_exe()?.with_file_name("lab-client");
    programs::build(&client)?;
    let lab = Lab::build(&Programs::find(&client)?, &[])?;
    let mut inside = lab.session()?;
    say("pasta --config-net runs; in the namespace:");
    for family in FAMILIES {
        let octets = mebibytes << 20;
        let source =
            lab.remote().tcp(family.internet(), service::source(Pattern::new(1), octets))?;
        let start = Instant::now();
        inside.must(["tcp", "fetch", &source.endpoint(), "1", &octets.to_string()])?;
        report("download", &source.endpoint(), mebibytes, start);

        let sink = lab.remote().tcp(family.internet(), service::sink(Pattern::new(2)))?;
        let start = Instant::now();
        inside.must(["tcp", "send", &sink.endpoint(), "2", &octets.to_string()])?;
        let arrived = sink.next_report()?;
        if arrived != format!("verified {octets}") {
            return Err(format!("upload to {}: {arrived}", sink.endpoint()).into());
        }
        report("upload", &sink.endpoint(), mebibytes, start);
    }
    Ok(())
}

fn report(what: &str, peer: &str, mebibytes: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let gigabits = mebibytes as f64 * 8.388_608 / 1000.0 / seconds;
    say(&format!("{what:8} {mebibytes} MiB {peer:26} verified, {gigabits:.1} Gbit/s"));
}
