//! How fast forwarded ports are: against the bare network and against Debian's `pasta`.
//!
//! `cargo bench -p tests --bench ports [-- --rounds N] [--seconds S] [--ipv6] [MEASURE...]`
//!
//! "Bare" is the same client and the same service without a namespace between them: over loopback
//! where ours is spliced, from the remote machine where ours goes through the tap. `--before` names a
//! directory with the programs of an earlier build, which takes part as well. Each round measures
//! everything for every contender, one after the other; what counts are ratios of medians.
//!
//! `idle-auto` is what the monitor of ours takes of a core while it looks for ports that come and go, with
//! so many listeners on the host that need no forwarding.

use std::collections::BTreeMap;
use std::env;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::Outcome;
use tests::bench::{self, say, upstream};
use tests::client::{Arguments, traffic};
use tests::lab::programs::{self, Programs};
use tests::lab::{Family, Lab, MONITOR, Machine, Pasta, Session, process, service, wait};

/// Directories of the other programs below the lab's programs.
const UPSTREAM: &str = "upstream";
const BEFORE: &str = "before";

/// Ports of the services, in the namespace and forwarded.
const BLACKHOLE: u16 = 8000;
const FOUNTAIN: u16 = 8001;
const TALKER: u16 = 8002;
const DATAGRAMS: u16 = 8003;

/// How long another connection carries traffic before it counts, in milliseconds.
const WARM_UP: &str = "200";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Contender {
    Bare,
    Ours,
    Before,
    Upstream,
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// From the host's loopback to the namespace, spliced.
    SplicedIn,
    /// From the namespace's loopback to the host's, spliced.
    SplicedOut,
    /// From the remote machine to the namespace, through the tap.
    Tap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// From the client to the service, in Gbit/s.
    Upload,
    /// From the service to the client, in Gbit/s.
    Download,
    /// An octet to and fro on one connection, per second.
    Exchanges,
    /// Connections with one octet to and fro, per second.
    Connections,
    /// Datagrams of 1400 octets that arrive, per second.
    Datagrams,
}

const WAYS: [(Way, &str); 3] =
    [(Way::SplicedIn, "spliced-in"), (Way::SplicedOut, "spliced-out"), (Way::Tap, "tap-in")];

const KINDS: [(Kind, &str, &str); 5] = [
    (Kind::Upload, "upload", "Gbit/s"),
    (Kind::Download, "download", "Gbit/s"),
    (Kind::Exchanges, "request-response", "1/s"),
    (Kind::Connections, "connections", "1/s"),
    (Kind::Datagrams, "udp-1400", "1/s"),
];

struct Options {
    rounds: usize,
    time: Duration,
    family: Family,
    before: Option<PathBuf>,
    filters: Vec<String>,
}

impl Options {
    fn parse(words: impl IntoIterator<Item = String>) -> Outcome<Self> {
        let (rounds, time) = (5, Duration::from_secs(2));
        let mut options =
            Self { rounds, time, family: Family::V4, before: None, filters: Vec::new() };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.time = Duration::from_secs_f64(value()?.parse()?),
                "--ipv6" => options.family = Family::V6,
                "--before" => options.before = Some(value()?.into()),
                "--bench" => {}
                _ if word.starts_with('-') => return Err(format!("unknown option {word}").into()),
                _ => options.filters.push(word),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|part| name.contains(part.as_str()))
    }
}

/// What a monitor that has nothing to forward takes of a core, in percent, with so many `listeners` on
/// ports that the host hands out by itself.
fn idle_auto(lab: &Lab, listeners: usize, time: Duration) -> Outcome<f64> {
    process::raise_descriptors()?;
    let _held: Vec<TcpListener> = lab.host().run(|| {
        let listen = |_| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        (0..listeners).map(listen).collect::<Outcome<_>>()
    })?;
    let automatic = ["-t", "auto", "-u", "auto", "-T", "auto", "-U", "auto"];
    let _session = lab.pasta().configured().with(automatic).session()?;
    let monitor = process::all()?.into_iter().find(|it| it.name == MONITOR);
    let monitor = monitor.ok_or("no monitor runs")?;
    // What it does at the start is not looked at.
    thread::sleep(Duration::from_secs(1));
    let (start, before) = (Instant::now(), monitor.processor_time()?);
    thread::sleep(time);
    let taken = Duration::from_nanos(monitor.processor_time()? - before);
    Ok(100.0 * taken.as_secs_f64() / start.elapsed().as_secs_f64())
}

fn main() -> ExitCode {
    bench::main(run)
}

fn run() -> Outcome {
    let options = Options::parse(env::args().skip(1))?;
    let client = Path::new(env!("CARGO_BIN_EXE_lab-client"));
    programs::build(client)?;
    let (mut contenders, mut also) = (vec![Contender::Bare, Contender::Ours], Vec::new());
    if let Some(directory) = &options.before {
        contenders.push(Contender::Before);
        let files = programs::with_companions(&directory.join("pasta")).into_iter();
        also.extend(files.map(|file| (BEFORE, file)));
    }
    match upstream() {
        Some(pasta) => {
            contenders.push(Contender::Upstream);
            let files = programs::with_companions(&pasta).into_iter();
            also.extend(files.map(|file| (UPSTREAM, file)));
        }
        None => say("no pasta on the search path: no comparison with upstream\n"),
    }
    let lab = Lab::build(&Programs::find(client)?, &also)?;
    if options.wants("idle-auto") {
        for listeners in [10, 1000, 10_000] {
            let share = idle_auto(&lab, listeners, options.time)?;
            say(&format!("idle-auto, {listeners} listeners: {share:.2} % of a core\n"));
        }
    }
    let bare = HostServices::start(&lab, options.family)?;
    let mut values: BTreeMap<(Way, Kind, Contender), Vec<f64>> = BTreeMap::new();
    for round in 1..=options.rounds {
        say(&format!("round {round} of {} ({})\n", options.rounds, options.family.name()));
        for (way, way_name) in WAYS {
            for (kind, kind_name, _) in KINDS {
                let name = format!("{way_name} {kind_name}");
                if !options.wants(&name) {
                    continue;
                }
                for &contender in &contenders {
                    match measure(&lab, &options, &bare, contender, way, kind) {
                        Ok(value) => values.entry((way, kind, contender)).or_default().push(value),
                        Err(error) => say(&format!("  {name} of {contender:?}: {error}\n")),
                    }
                    process::wait_until_none_left()?;
                }
            }
        }
    }
    table(&mut values);
    Ok(())
}

/// The services of the host's loopback, and their counters.
struct HostServices {
    blackhole: Arc<AtomicU64>,
    datagrams: Arc<AtomicU64>,
}

impl HostServices {
    /// On the host's loopback, and on its own address for the remote machine's clients.
    fn start(lab: &Lab, family: Family) -> Outcome<Self> {
        let (blackhole, datagrams) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let host = lab.host();
        // Other ports than the forwarded ones, which both programs listen on.
        let at = |port| SocketAddr::new(family.any(), port + 1000);
        host.tcp_at(at(BLACKHOLE), service::blackhole(Arc::clone(&blackhole)))?;
        host.tcp_at(at(FOUNTAIN), service::fountain)?;
        host.tcp_at(at(TALKER), service::talker)?;
        let count = Arc::clone(&datagrams);
        host.udp_at(at(DATAGRAMS), move |_, _, _| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(String::new())
        })?;
        Ok(Self { blackhole, datagrams })
    }
}

fn start(lab: &Lab, contender: Contender, way: Way) -> Outcome<Session> {
    let pasta = match contender {
        Contender::Upstream => Pasta::new(lab, lab.program(UPSTREAM).join("pasta")),
        Contender::Before => Pasta::new(lab, lab.program(BEFORE).join("pasta")),
        _ => lab.pasta(),
    };
    let options: [&str; 9] = match way {
        Way::SplicedIn | Way::Tap => {
            ["-t", "8000-8002", "-u", "8003", "-T", "none", "-U", "none", "-q"]
        }
        Way::SplicedOut => {
            ["-t", "none", "-u", "none", "-T", "8000-8002:9000-9002", "-U", "8003:9003", "-q"]
        }
    };
    pasta.configured().with(options).session()
}

fn measure(
    lab: &Lab,
    options: &Options,
    host: &HostServices,
    contender: Contender,
    way: Way,
    kind: Kind,
) -> Outcome<f64> {
    let family = options.family;
    let (question, port) = match kind {
        Kind::Upload => ("out", BLACKHOLE),
        Kind::Download => ("in", FOUNTAIN),
        Kind::Exchanges => ("exchange", TALKER),
        Kind::Connections => ("connections", TALKER),
        Kind::Datagrams => ("udp-out", DATAGRAMS),
    };
    let address = match way {
        Way::SplicedIn | Way::SplicedOut => family.loopback(),
        Way::Tap => family.host(),
    };
    let bare = contender == Contender::Bare;
    let port = if bare { port + 1000 } else { port };
    let endpoint = SocketAddr::new(address, port).to_string();
    let mut words = vec![question, &endpoint];
    if kind == Kind::Datagrams {
        words.push("1400");
    }
    let milliseconds = options.time.as_millis().to_string();
    let mut session = if bare { None } else { Some(start(lab, contender, way)?) };
    if let Some(session) = session.as_mut().filter(|_| way != Way::SplicedOut) {
        let any = |port| SocketAddr::new(family.any(), port).to_string();
        session.must(["serve", "tcp", "blackhole", &any(BLACKHOLE), "blackhole"])?;
        session.must(["serve", "tcp", "fountain", &any(FOUNTAIN), "fountain"])?;
        session.must(["serve", "tcp", "talker", &any(TALKER), "talker"])?;
        session.must(["serve", "udp-count", "datagrams", &any(DATAGRAMS)])?;
    }
    // Outward listeners are there soon after the start.
    let go = |session: &mut Option<Session>, time: &str| -> Outcome<(f64, f64)> {
        let mut question = words.clone();
        question.push(time);
        let facts = match (way, session) {
            (Way::SplicedOut, Some(session)) => {
                session.must([&["traffic"], question.as_slice()].concat())?
            }
            (Way::Tap, _) => on(lab.remote(), &question)?,
            _ => on(lab.host(), &question)?,
        };
        counted(&facts)
    };
    wait::until("the forwarded port", || go(&mut session, WARM_UP).ok())?;
    let name = match kind {
        Kind::Upload => Some(("blackhole", &host.blackhole)),
        Kind::Datagrams => Some(("datagrams", &host.datagrams)),
        _ => None,
    };
    let arrived = |session: &mut Option<Session>| -> Outcome<f64> {
        match (name, session) {
            (None, _) => Ok(0.0),
            (Some((name, _)), Some(session)) if way != Way::SplicedOut => {
                let facts = session.must(["serve", "count", name])?;
                Ok(facts.first().ok_or("no count")?.parse()?)
            }
            (Some((_, counter)), _) => Ok(counter.load(Ordering::Relaxed) as f64),
        }
    };
    let before = arrived(&mut session)?;
    let (count, seconds) = go(&mut session, &milliseconds)?;
    let count = if name.is_some() { arrived(&mut session)? - before } else { count };
    Ok(match kind {
        Kind::Upload | Kind::Download => count * 8.0 / 1e9 / seconds,
        _ => count / seconds,
    })
}

/// Has a client of ours at `machine` answer a question about traffic.
fn on(machine: &Machine, question: &[&str]) -> Outcome<Vec<String>> {
    machine.run(|| traffic::answer(&mut Arguments::new(question)))
}

/// `count N nanoseconds T` as N and seconds.
fn counted(facts: &[String]) -> Outcome<(f64, f64)> {
    let words: Vec<&str> = facts.iter().flat_map(|fact| fact.split_whitespace()).collect();
    match words[..] {
        ["count", count, "nanoseconds", time] => Ok((count.parse()?, time.parse::<f64>()? / 1e9)),
        _ => Err(format!("not a count: {facts:?}").into()),
    }
}

/// Median, least and most.
fn spread(values: &mut [f64]) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let median = *values.get(values.len() / 2)?;
    Some((median, *values.first()?, *values.last()?))
}

fn table(values: &mut BTreeMap<(Way, Kind, Contender), Vec<f64>>) {
    say("| measure | unit | bare | ours | before | upstream | ours/bare | ours/before \
         | ours/upstream |\n");
    say("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (way, way_name) in WAYS {
        for (kind, kind_name, unit) in KINDS {
            let of = |contender| values.get_mut(&(way, kind, contender)).and_then(|it| spread(it));
            let [bare, ours, before, upstream] =
                [Contender::Bare, Contender::Ours, Contender::Before, Contender::Upstream].map(of);
            let Some((median, ..)) = ours else { continue };
            let cell = |value: Option<(f64, f64, f64)>| match value {
                Some((m, least, most)) if m < 1000.0 => format!("{m:.1} ({least:.1}–{most:.1})"),
                Some((m, least, most)) => format!("{m:.0} ({least:.0}–{most:.0})"),
                None => "-".to_owned(),
            };
            let ratio = |to: Option<(f64, f64, f64)>| {
                to.map_or_else(|| "-".to_owned(), |(m, ..)| format!("{:.2}", median / m))
            };
            say(&format!(
                "| {way_name} {kind_name} | {unit} | {} | {} | {} | {} | {} | {} | {} |\n",
                cell(bare),
                cell(ours),
                cell(before),
                cell(upstream),
                ratio(bare),
                ratio(before),
                ratio(upstream)
            ));
        }
    }
}
