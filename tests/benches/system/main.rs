//! How fast the whole program is: against the bare network and against Debian's `pasta`.
//!
//! `cargo bench -p tests --bench system [-- --rounds N] [--seconds S] [--ipv6] [--mtu N] [MEASURE...]`
//!
//! Every round measures everything for every contender, one after the other and not always in the same order, so
//! that whatever disturbs the machine, what the one before leaves behind included, disturbs all of them: the workspace's `pasta`, the client on the host
//! without any `pasta` ("bare"), the `pasta` found on the search path ("upstream"), and with `--before`
//! an earlier build in that directory. `--congestion` sets the congestion control of
//! everybody, `--busy` keeps two cores busy with something else meanwhile. What
//! counts are the ratios of the medians; the raw numbers go to `target/bench`, and with `--charts`
//! pictures of the ratios and the table as Markdown into a directory. Nothing is asserted.

mod chart;
mod datagrams;
mod life;
mod measure;
mod services;
mod table;

use std::env;
use std::fs::{self, File};
use std::hint;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use measure::{Bench, Contender, MEASURES};
use table::Results;
use tests::Outcome;
use tests::bench::{self, say, upstream};
use tests::lab::process;
use tests::lab::programs::{self, Programs};
use tests::lab::{Family, Lab};

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    /// How often everything is measured.
    rounds: usize,
    /// How long traffic runs for one number.
    time: Duration,
    family: Family,
    /// MTU of the tap; its default where none.
    mtu: Option<u32>,
    /// Congestion control of everybody; the machine's where none.
    congestion: Option<String>,
    /// Whether something else has work for two cores.
    busy: bool,
    /// Where an earlier build is.
    before: Option<PathBuf>,
    /// Where pictures go.
    charts: Option<PathBuf>,
    /// Names of the measures that are wanted, or parts of them; all when empty.
    filters: Vec<String>,
}

impl Options {
    fn parse(words: impl IntoIterator<Item = String>) -> Outcome<Self> {
        let mut options = Self {
            rounds: env::var("PASTA_BENCH_ROUNDS").map_or(Ok(5), |text| text.parse())?,
            time: Duration::from_secs(2),
            family: Family::V4,
            mtu: None,
            congestion: None,
            busy: false,
            before: None,
            charts: None,
            filters: Vec::new(),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.time = Duration::from_secs_f64(value()?.parse()?),
                "--ipv6" => options.family = Family::V6,
                "--mtu" => options.mtu = Some(value()?.parse()?),
                "--congestion" => options.congestion = Some(value()?),
                "--busy" => options.busy = true,
                "--charts" => options.charts = Some(value()?.into()),
                "--before" => options.before = Some(value()?.into()),
                "--bench" => {}
                _ if word.starts_with('-') => return Err(format!("unknown option {word}").into()),
                _ => options.filters.push(word),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    bench::main(run)
}

fn run() -> Outcome {
    let options = Options::parse(env::args().skip(1))?;
    let client = Path::new(env!("CARGO_BIN_EXE_lab-client"));
    programs::build(client)?;
    // Opened while the build directory is sure to be in sight.
    let drawings = options.charts.as_deref().map(drawings).transpose()?;
    let (path, mut raw) = raw_file(client)?;
    let upstream = upstream();
    let mut contenders = vec![Contender::Bare, Contender::Ours];
    let mut also = Vec::new();
    if let Some(directory) = &options.before {
        contenders.push(Contender::Before);
        let files = programs::with_companions(&directory.join("pasta")).into_iter();
        also.extend(files.map(|file| (measure::BEFORE, file)));
    }
    match upstream {
        Some(pasta) => {
            contenders.push(Contender::Upstream);
            let files = programs::with_companions(&pasta).into_iter();
            also.extend(files.map(|file| (measure::UPSTREAM, file)));
        }
        None => say("no pasta on the search path: no comparison with upstream\n"),
    }

    process::raise_descriptors()?;
    let lab = Lab::build(&Programs::find(client)?, &also)?;
    let network = (options.family, options.mtu, options.congestion.clone());
    let bench = Bench::new(&lab, network, options.time)?;
    let is_name = |part: &str| MEASURES.iter().any(|measure| measure.name == part);
    let matches = |name: &str, part: &str| name == part || !is_name(part) && name.contains(part);
    let wanted = |name: &str| {
        options.filters.is_empty() || options.filters.iter().any(|part| matches(name, part))
    };
    let mut results = Results::default();
    if options.busy {
        for _ in 0..2 {
            thread::spawn(|| {
                loop {
                    hint::black_box(0);
                }
            });
        }
    }
    for round in 1..=options.rounds {
        say(&format!("round {round} of {} ({})\n", options.rounds, options.family.name()));
        // Each is the first of a round as often as the others, and comes after each of them.
        let mut order = contenders.clone();
        order.rotate_left((round - 1) / 2 % contenders.len());
        if round % 2 == 0 {
            order.reverse();
        }
        for measure in MEASURES.iter().filter(|measure| wanted(measure.name)) {
            for &contender in &order {
                if !measure.applies_to(contender) {
                    continue;
                }
                match bench.run(measure, contender) {
                    Ok(value) => {
                        results.add(measure, contender, value);
                        let (name, unit) = (measure.name, measure.unit);
                        writeln!(raw, "{round},{name},{},{value},{unit}", contender.name())?;
                    }
                    Err(error) => {
                        say(&format!("  {} of {}: {error}\n", measure.name, contender.name()))
                    }
                }
            }
        }
    }
    if let Some([mut table, mut bare, mut upstream]) = drawings {
        table.write_all(results.markdown().as_bytes())?;
        let bars = results.bars(Contender::Bare);
        let title = "ours to the bare network, turned over where less is better";
        bare.write_all(chart::svg(title, &bars).as_bytes())?;
        let bars = results.bars(Contender::Upstream);
        let title = "ours to the C program, turned over where less is better";
        upstream.write_all(chart::svg(title, &bars).as_bytes())?;
    }
    say(&format!("\n{}\nraw numbers: {}\n", results.table(), path.display()));
    Ok(())
}

/// New files for the table and the pictures.
fn drawings(directory: &Path) -> Outcome<[File; 3]> {
    fs::create_dir_all(directory)?;
    let file = |name| File::create(directory.join(name));
    Ok([file("table.md")?, file("to-bare.svg")?, file("to-upstream.svg")?])
}

/// A new file for the raw numbers in the build directory, with its heading written.
fn raw_file(client: &Path) -> Outcome<(PathBuf, File)> {
    let target = client.parent().and_then(Path::parent).ok_or("no build directory")?;
    let directory = target.join("bench");
    fs::create_dir_all(&directory)?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let path = directory.join(format!("system-{seconds}.csv"));
    let mut file = File::create(&path)?;
    writeln!(file, "round,measure,contender,value,unit")?;
    Ok((path, file))
}
