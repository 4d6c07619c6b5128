//! Shows the main job: a command in a namespace, with traffic, checked octet by octet, on a host that moves.
//!
//! `cargo run --release -p tests --bin demo [MEBIBYTES]` builds a host and a remote machine out of
//! network namespaces and runs `pasta --config-net` on the host as an ordinary user. It prints what each helper can
//! still do, moves that much (1024 unless given) from and to the remote machine through the tap, in both families,
//! and then lets the host go from one uplink to another in the middle of a download. It needs no network, no root
//! and no other program. Where the C program is on the search path, it goes through the move too.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use tests::Outcome;
use tests::bench::upstream;
use tests::lab::address::FAMILIES;
use tests::lab::admin::{Inside, index_of};
use tests::lab::pasta::Pasta;
use tests::lab::programs::{self, Programs};
use tests::lab::uplinks::{
    SECOND, add_second_uplink, bring_second_online, on_host, second, worsen_first_default,
};
use tests::lab::{Family, Lab, Session, service, wait};
use tests::pattern::Pattern;

/// Directory of the lab where the C program is shown.
const OTHERS: &str = "other";

/// How long a program may take to follow, before it counts as one that does not.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(3);

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
    programs::build_with_progress(&client)?;
    let programs = Programs::find(&client)?;
    let theirs = upstream();
    let other = theirs.as_deref().map_or_else(Vec::new, programs::with_companions);
    let other: Vec<_> = other.into_iter().map(|path| (OTHERS, path)).collect();
    let lab = Lab::build(&programs, &other)?;
    let mut inside = lab.pasta().configured().with(["--sandbox-report"]).session()?;
    say(
        "pasta --config-net runs, as an ordinary user. What each helper can still do, as the kernel says:\n",
    );
    say(&inside.running().errors());
    say("In the namespace:");
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
    drop(inside);

    say(
        "\nThe host is on WiFi (192.0.2.0/24), and a cable is plugged in (198.18.5.0/24), amid a download:",
    );
    worsen_first_default(&lab, Family::V4)?;
    add_second_uplink(&lab)?;
    // By default it takes a second of quiet before a change that is not needed.
    let ours = lab.pasta().configured().with(["--settle", "0"]);
    move_host(&lab, ("pasta --settle 0", ours), mebibytes)?;
    if let Some(theirs) = theirs {
        let name = theirs.display().to_string();
        let other = Pasta::new(&lab, lab.program(&format!("{OTHERS}/pasta"))).configured();
        // It is for comparison only.
        if let Err(error) = move_host(&lab, (&name, other), mebibytes) {
            say(&format!("  {name}: {error}"));
        }
    }
    Ok(())
}

/// Moves the host of `lab` to another uplink while there is a download in the namespace.
fn move_host(lab: &Lab, (name, pasta): (&str, Pasta<'_>), mebibytes: u64) -> Outcome {
    let family = Family::V4;
    let mut session = pasta.session()?;
    let inside = Inside::of(&mut session)?;
    let octets = mebibytes << 20;
    let server = lab.remote().tcp(family.internet(), service::source(Pattern::new(3), octets))?;
    say(&format!("  {name}: {}", default_route(&inside)?));
    let endpoint = server.endpoint();
    let (start, download) = (Instant::now(), move |mut session: Session| {
        let fetched = session.must(["tcp", "fetch", &endpoint, "3", &octets.to_string()]);
        fetched.map(|_| session)
    });
    let (_, gateway, _) = second(family);
    let (followed, downloaded) = thread::scope(|scope| {
        let download = scope.spawn(move || download(session));
        let plugged = Instant::now();
        let followed = bring_second_online(lab, family, Some(100)).map(|()| {
            let new = format!("via {gateway} ");
            let is_new = || default_route(&inside).is_ok_and(|route| route.contains(&new));
            let has = || is_new().then_some(());
            let seen = wait::until_within(FOLLOWS_WITHIN, "the new route", has);
            seen.ok().map(|()| plugged.elapsed())
        });
        (followed, download.join())
    });
    let route = default_route(&inside)?;
    match followed? {
        Some(time) => say(&format!("  {name}: {route}, {} ms after the cable", time.as_millis())),
        None => say(&format!("  {name}: {route}, still, after {} s", FOLLOWS_WITHIN.as_secs())),
    }
    let _session = downloaded.map_err(|_| "the download panicked")??;
    report("download", &server.endpoint(), mebibytes, start);
    let (address, _, length) = second(family);
    on_host(lab, |admin| admin.delete_address(index_of(SECOND.0)?, address, length))
}

/// The default route of the namespace.
fn default_route(inside: &Inside) -> Outcome<String> {
    let routes = inside.show()?.into_iter().filter(|line| line.starts_with("route 0.0.0.0/0 "));
    Ok(routes.min().map_or_else(|| "no default route".to_owned(), |it| it.trim().to_owned()))
}

fn report(what: &str, peer: &str, mebibytes: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let gigabits = mebibytes as f64 * 8.388_608 / 1000.0 / seconds;
    say(&format!("{what:8} {mebibytes} MiB {peer:26} verified, {gigabits:.1} Gbit/s"));
}
