//! What is measured, and how.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::datagrams;
use crate::life::{memory, program_processes};
use crate::services::{hold, many_flows, send_octets, serve, talk};
use tests::Outcome;
use tests::client::traffic;
use tests::datagrams::{Calls, Flood};
use tests::lab::delayed::DelayedLink;
use tests::lab::pasta::NO_PORTS;
use tests::lab::service::{self, Service};
use tests::lab::{Family, Lab, Pasta, Session, address, pasta, process};
use tests::many_flows::{Role, Tally};

/// Directory of the upstream program below the lab's programs.
pub(crate) const UPSTREAM: &str = "upstream";

/// Directory of an earlier build there.
pub(crate) const BEFORE: &str = "before";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// The client on the host, without any `pasta`.
    Bare,
    /// This workspace's `pasta`.
    Ours,
    /// An earlier build of this workspace's.
    Before,
    /// The `pasta` of the machine.
    Upstream,
}

impl Contender {
    /// Its name in the table and in the raw numbers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Ours => "ours",
            Self::Before => "before",
            Self::Upstream => "upstream",
        }
    }
}

/// Something to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    /// Its name.
    pub(crate) name: &'static str,
    /// The unit of its numbers.
    pub(crate) unit: &'static str,
    kind: Kind,
}

impl Measure {
    /// Whether there is such a number of `contender`.
    pub(crate) const fn applies_to(&self, contender: Contender) -> bool {
        match self.kind {
            Kind::Processor(_) | Kind::Memory | Kind::Idle | Kind::PerFlow => {
                !matches!(contender, Contender::Bare)
            }
            Kind::Backlog => matches!(contender, Contender::Ours | Contender::Before),
            _ => true,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp(Direction, u16),
    /// One flow over a link with this round trip in milliseconds, which loses so many packets of 10,000.
    Delayed(Direction, u64, u64),
    /// As many flows in one thread, all open before octets count.
    ManyFlows(Direction, u16),
    /// What the slowest of them carried, in percent of what they all carried on average.
    Slowest(Direction, u16),
    /// What one exchange in a hundred exceeds, in microseconds, beside so many bulk flows.
    Beside(u16),
    /// Exchanges beside a program that opens connections, and what they are to be given as.
    BesideNew(Direction, Exchanged),
    /// Octets for each of many idle connections.
    PerFlow,
    /// Processor time of `pasta`'s own processes.
    Processor(Direction),
    /// Segments that the sender repeats for each GB outwards.
    Repeated,
    /// What arrives in the slowest tenth of a second outwards, in percent of the median of all of them.
    SlowestTenth,
    /// Megabytes for each GB outwards that the host's socket did not take when they came.
    Backlog,
    Exchanges,
    Connections,
    Datagrams(Direction, Stream),
    /// How many of those that were sent arrive, in percent.
    Arrived(Direction, Stream),
    Start,
    End,
    Memory,
    /// Processor time of all processes that look for ports and have nothing to do, in percent of a processor.
    Idle,
}

/// Datagrams that are sent as fast as they go: octets of each, calls, flows.
type Stream = (usize, Calls, usize);

/// What a number says of exchanges.
#[derive(Clone, Copy, Debug)]
enum Exchanged {
    /// How many there are.
    Rate,
    /// What one in a hundred exceeds, in microseconds.
    Slow,
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    Out,
    In,
}

/// A bulk transfer that took place.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    octets: f64,
    seconds: f64,
    /// Processor time of the program under test, in seconds.
    processor: f64,
    /// Segments that were repeated where the client is.
    repeated: f64,
}

/// What flows have carried, in octets.
#[derive(Clone, Copy, Debug)]
struct Shares {
    total: f64,
    slowest: f64,
}

const fn measure(name: &'static str, unit: &'static str, kind: Kind) -> Measure {
    Measure { name, unit, kind }
}

/// Everything that is measured, in the order of the table.
pub(crate) const MEASURES: &[Measure] = &[
    measure("tcp-out", "Gbit/s", Kind::Tcp(Direction::Out, 1)),
    measure("tcp-in", "Gbit/s", Kind::Tcp(Direction::In, 1)),
    measure("tcp-out-5-ms", "Gbit/s", Kind::Delayed(Direction::Out, 5, 0)),
    measure("tcp-in-5-ms", "Gbit/s", Kind::Delayed(Direction::In, 5, 0)),
    measure("tcp-out-20-ms", "Gbit/s", Kind::Delayed(Direction::Out, 20, 0)),
    measure("tcp-in-20-ms", "Gbit/s", Kind::Delayed(Direction::In, 20, 0)),
    measure("tcp-out-60-ms", "Gbit/s", Kind::Delayed(Direction::Out, 60, 0)),
    measure("tcp-in-60-ms", "Gbit/s", Kind::Delayed(Direction::In, 60, 0)),
    measure("tcp-out-20-ms-lossy", "Gbit/s", Kind::Delayed(Direction::Out, 20, 10)),
    measure("tcp-in-20-ms-lossy", "Gbit/s", Kind::Delayed(Direction::In, 20, 10)),
    measure("tcp-out-8-flows", "Gbit/s", Kind::Tcp(Direction::Out, 8)),
    measure("tcp-in-8-flows", "Gbit/s", Kind::Tcp(Direction::In, 8)),
    measure("tcp-out-128-flows", "Gbit/s", Kind::Tcp(Direction::Out, 128)),
    measure("tcp-in-128-flows", "Gbit/s", Kind::Tcp(Direction::In, 128)),
    measure("tcp-out-10000-flows", "Gbit/s", Kind::ManyFlows(Direction::Out, 10_000)),
    measure("tcp-in-10000-flows", "Gbit/s", Kind::ManyFlows(Direction::In, 10_000)),
    measure("slowest-of-8-out", "%", Kind::Slowest(Direction::Out, 8)),
    measure("slowest-of-8-in", "%", Kind::Slowest(Direction::In, 8)),
    measure("slowest-of-128-out", "%", Kind::Slowest(Direction::Out, 128)),
    measure("slowest-of-128-in", "%", Kind::Slowest(Direction::In, 128)),
    measure("slowest-of-10000-out", "%", Kind::Slowest(Direction::Out, 10_000)),
    measure("slowest-of-10000-in", "%", Kind::Slowest(Direction::In, 10_000)),
    measure("cpu-out", "s/GB", Kind::Processor(Direction::Out)),
    measure("cpu-in", "s/GB", Kind::Processor(Direction::In)),
    measure("repeated-out", "1/GB", Kind::Repeated),
    measure("slowest-tenth-of-a-second-out", "%", Kind::SlowestTenth),
    measure("backlog-out", "MB/GB", Kind::Backlog),
    measure("tcp-request-response", "1/s", Kind::Exchanges),
    measure("tcp-slow-exchange-beside-8-flows", "us", Kind::Beside(8)),
    measure("exchange-beside-new-out", "1/s", Kind::BesideNew(Direction::Out, Exchanged::Rate)),
    measure("slow-exchange-beside-new-out", "us", Kind::BesideNew(Direction::Out, Exchanged::Slow)),
    measure("exchange-beside-new-in", "1/s", Kind::BesideNew(Direction::In, Exchanged::Rate)),
    measure("slow-exchange-beside-new-in", "us", Kind::BesideNew(Direction::In, Exchanged::Slow)),
    measure("tcp-connect-request-close", "1/s", Kind::Connections),
    measure("udp-out-1400", "1/s", Kind::Datagrams(Direction::Out, (1400, Calls::Single, 1))),
    measure("udp-in-1400", "1/s", Kind::Datagrams(Direction::In, (1400, Calls::Single, 1))),
    measure("udp-out-64", "1/s", Kind::Datagrams(Direction::Out, (64, Calls::Single, 1))),
    measure("udp-in-64", "1/s", Kind::Datagrams(Direction::In, (64, Calls::Single, 1))),
    measure("udp-out-512", "1/s", Kind::Datagrams(Direction::Out, (512, Calls::Single, 1))),
    measure("udp-in-512", "1/s", Kind::Datagrams(Direction::In, (512, Calls::Single, 1))),
    measure("udp-out-8900", "1/s", Kind::Datagrams(Direction::Out, (8900, Calls::Single, 1))),
    measure("udp-in-8900", "1/s", Kind::Datagrams(Direction::In, (8900, Calls::Single, 1))),
    measure("udp-out-64-flows", "1/s", Kind::Datagrams(Direction::Out, (1400, Calls::Single, 64))),
    measure("udp-in-64-flows", "1/s", Kind::Datagrams(Direction::In, (1400, Calls::Single, 64))),
    measure("udp-out-gso", "1/s", Kind::Datagrams(Direction::Out, (1400, Calls::Grouped, 1))),
    measure("udp-in-gso", "1/s", Kind::Datagrams(Direction::In, (1400, Calls::Grouped, 1))),
    measure("udp-arrived-out", "%", Kind::Arrived(Direction::Out, (1400, Calls::Single, 1))),
    measure("udp-arrived-in", "%", Kind::Arrived(Direction::In, (1400, Calls::Single, 1))),
    measure("udp-arrived-out-gso", "%", Kind::Arrived(Direction::Out, (1400, Calls::Grouped, 1))),
    measure("udp-arrived-in-gso", "%", Kind::Arrived(Direction::In, (1400, Calls::Grouped, 1))),
    measure("start-to-command", "ms", Kind::Start),
    measure("command-end-to-our-end", "ms", Kind::End),
    measure("idle-memory", "MiB", Kind::Memory),
    measure("idle-processor", "%", Kind::Idle),
    measure("memory-for-each-idle-flow", "octets", Kind::PerFlow),
];

/// The port of a service in the namespace.
const INSIDE: &str = "8000";
const FORWARDED: [&str; 8] = ["-t", INSIDE, "-u", "none", "-T", "none", "-U", "none"];

/// How many idle connections their memory is shared out to, where so many descriptors can be had: each
/// process has one for each.
const IDLE_FLOWS: u64 = 100_000;

/// Descriptors for everything else.
const SPARE: u64 = 2000;

/// Services that share them out, since each has no more than the ports of a host.
const HOLDERS: usize = 5;

/// How many times as long many flows run: there is no warm-up, and each moves little.
const MANY_FLOWS_TIMES: u32 = 3;

/// How long a flow is watched for its slowest moment, in parts of that length.
const WATCHED_TIMES: u32 = 3;
const WATCHED_PART: Duration = Duration::from_millis(100);

/// How long another connection carries traffic before it counts, in milliseconds: programs are in memory
/// then and neighbours are known. What counts is a connection from its beginning.
const WARM_UP: &str = "200";

/// A service that counts the octets that come to it.
type Sink = (Service, Arc<AtomicU64>);

/// The services at the end of the link with delay.
struct Delayed {
    link: DelayedLink,
    sink: Sink,
    source: Service,
}

/// The services, and what to do with them.
pub(crate) struct Bench<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) time: Duration,
    sink: Sink,
    source: Service,
    delayed: Delayed,
    many_flows_sink: (SocketAddr, Tally),
    many_flows_source: SocketAddr,
    talker: SocketAddr,
    first_octet_server: SocketAddr,
    holders: Vec<SocketAddr>,
    mtu: Option<u32>,
    congestion: Option<String>,
    datagrams: datagrams::Services,
    family: Family,
}

impl<'lab> Bench<'lab> {
    /// Starts the services on the remote machine.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub(crate) fn new(
        lab: &'lab Lab,
        (family, mtu, congestion): (Family, Option<u32>, Option<String>),
        time: Duration,
    ) -> Outcome<Self> {
        if let Some(name) = &congestion {
            let file = "/proc/sys/net/ipv4/tcp_congestion_control";
            lab.on_host(|_| Ok(fs::write(file, name)?))?;
            lab.on_remote(|_| Ok(fs::write(file, name)?))?;
        }
        let (remote, server) = (lab.remote(), family.internet());
        let any_port = SocketAddr::new(server, 0);
        let sink = |address| -> Outcome<Sink> {
            let arrived = Arc::new(AtomicU64::new(0));
            Ok((remote.tcp(address, service::blackhole(Arc::clone(&arrived)))?, arrived))
        };
        let (link, far) = (DelayedLink::build(lab)?, family.delayed().1);
        let delayed = Delayed { link, sink: sink(far)?, source: remote.tcp(far, send_octets)? };
        Ok(Self {
            lab,
            time,
            sink: sink(server)?,
            source: remote.tcp(server, send_octets)?,
            delayed,
            many_flows_sink: many_flows(lab, any_port, Role::Sink)?,
            many_flows_source: many_flows(lab, any_port, Role::Source)?.0,
            talker: serve(lab, any_port, |stream| while talk(&stream).is_ok() {})?,
            first_octet_server: serve(lab, any_port, |stream| drop(talk(&stream)))?,
            holders: (0..HOLDERS).map(|_| serve(lab, any_port, hold())).collect::<Outcome<_>>()?,
            mtu,
            congestion,
            datagrams: datagrams::Services::start(lab, any_port)?,
            family,
        })
    }

    /// Measures once.
    ///
    /// # Errors
    ///
    /// When the contender does not do what it should.
    pub(crate) fn run(&self, measure: &Measure, contender: Contender) -> Outcome<f64> {
        let value = self.measure(measure, contender)?;
        // Whatever is still ending would be part of the next number.
        process::wait_until_none_left()?;
        Ok(value)
    }

    fn measure(&self, measure: &Measure, contender: Contender) -> Outcome<f64> {
        let milliseconds = self.time.as_millis().to_string();
        let traffic = |words: &[&str]| -> Outcome<(f64, f64)> {
            let mut session = self.session(contender)?;
            session.must([&["traffic"], words, &[WARM_UP]].concat())?;
            counted(&session.must([&["traffic"], words, &[&milliseconds]].concat())?)
        };
        match measure.kind {
            Kind::Tcp(direction, flows) => {
                let transfer = self.transfer(contender, direction, flows)?;
                Ok(transfer.octets * 8.0 / 1e9 / transfer.seconds)
            }
            Kind::Delayed(direction, round_trip, losses) => {
                self.delayed.link.set(Duration::from_millis(round_trip), losses);
                let services = (&self.delayed.sink, &self.delayed.source);
                let transfer = self.transfer_with(contender, direction, 1, services)?;
                Ok(transfer.octets * 8.0 / 1e9 / transfer.seconds)
            }
            Kind::ManyFlows(direction, flows) => {
                let (each, seconds) = self.many_flows(contender, direction, flows)?;
                Ok(each.total * 8.0 / 1e9 / seconds)
            }
            Kind::Slowest(direction, flows) => {
                let (each, _) = self.many_flows(contender, direction, flows)?;
                Ok(each.slowest / (each.total / f64::from(flows)) * 100.0)
            }
            Kind::Processor(direction) => {
                let transfer = self.transfer(contender, direction, 1)?;
                Ok(transfer.processor / (transfer.octets / 1e9))
            }
            Kind::Repeated => {
                let transfer = self.transfer(contender, Direction::Out, 1)?;
                Ok(transfer.repeated / (transfer.octets / 1e9))
            }
            Kind::SlowestTenth => self.slowest_tenth(contender),
            Kind::Backlog => self.backlog(contender),
            Kind::Exchanges => traffic(&["exchange", &endpoint(self.talker)]).map(rate),
            Kind::Beside(flows) => {
                let (talker, source) = (endpoint(self.talker), self.source.endpoint());
                let mut session = self.session(contender)?;
                let words = ["traffic", "beside", &talker, &milliseconds, &source];
                let facts = session.must([&words[..], &[&flows.to_string()]].concat())?;
                Ok(counted(&facts)?.1 * 1e6)
            }
            Kind::BesideNew(direction, exchanged) => {
                let (count, slow) = self.beside_new(contender, direction)?;
                Ok(match exchanged {
                    Exchanged::Rate => count / self.time.as_secs_f64(),
                    Exchanged::Slow => slow * 1e6,
                })
            }
            Kind::PerFlow => {
                let mut session = self.session(contender)?;
                let before = memory()?;
                let flows = (process::raise_descriptors()?.saturating_sub(SPARE)).min(IDLE_FLOWS);
                let each = flows / HOLDERS as u64;
                for holder in &self.holders {
                    let holder = endpoint(*holder);
                    session.must(["traffic", "hold", &holder, "0", &each.to_string()])?;
                }
                Ok((memory()? as f64 - before as f64) / (each * HOLDERS as u64) as f64)
            }
            Kind::Connections => {
                traffic(&["connections", &endpoint(self.first_octet_server)]).map(rate)
            }
            Kind::Datagrams(direction, stream) => {
                let flow = self.datagrams(contender, direction, stream)?;
                Ok(flow.arrived / flow.seconds)
            }
            Kind::Arrived(direction, stream) => {
                let flow = self.datagrams(contender, direction, stream)?;
                Ok(flow.arrived / flow.sent * 100.0)
            }
            Kind::Start => self.median_of_starts(contender, |(start, _)| start),
            Kind::End => self.median_of_starts(contender, |(_, end)| end),
            Kind::Idle => self.idle(contender),
            Kind::Memory => {
                let _session = self.session(contender)?;
                Ok(memory()? as f64 / f64::from(1 << 20))
            }
        }
    }

    /// Tells nothing.
    pub(crate) fn pasta(&self, contender: Contender) -> Pasta<'lab> {
        self.with_mtu(self.program(contender).with(["-q"]))
    }

    fn with_mtu(&self, pasta: Pasta<'lab>) -> Pasta<'lab> {
        match self.mtu {
            Some(mtu) => pasta.with(["-m".to_owned(), mtu.to_string()]),
            None => pasta,
        }
    }

    fn program(&self, contender: Contender) -> Pasta<'lab> {
        // To look for new ports would be noise.
        self.with_ports(contender, NO_PORTS)
    }

    pub(crate) fn with_ports(&self, contender: Contender, ports: [&str; 8]) -> Pasta<'lab> {
        match contender {
            Contender::Upstream => Pasta::new(self.lab, self.lab.program(UPSTREAM).join("pasta")),
            Contender::Before => Pasta::new(self.lab, self.lab.program(BEFORE).join("pasta")),
            _ => self.lab.pasta(),
        }
        .configured()
        .with(ports)
    }

    fn session(&self, contender: Contender) -> Outcome<Session> {
        if contender == Contender::Bare {
            return pasta::bare_session(self.lab);
        }
        self.begin(self.pasta(contender))
    }

    /// A session of a `pasta` that logs at debug level.
    fn verbose(&self, contender: Contender) -> Outcome<Session> {
        self.begin(self.with_mtu(self.program(contender).with(["-d"])))
    }

    pub(crate) fn begin(&self, pasta: Pasta<'lab>) -> Outcome<Session> {
        let mut session = pasta.session()?;
        if let Some(name) = &self.congestion {
            session.must(["traffic", "congestion", name])?;
        }
        Ok(session)
    }

    /// A transfer by many flows for some of the usual time; gives its length in seconds.
    fn many_flows(
        &self,
        contender: Contender,
        direction: Direction,
        flows: u16,
    ) -> Outcome<(Shares, f64)> {
        let (sink, tally) = &self.many_flows_sink;
        let (question, service) = match direction {
            Direction::Out => ("many-out", *sink),
            Direction::In => ("many-in", self.many_flows_source),
        };
        let milliseconds = (self.time * MANY_FLOWS_TIMES).as_millis().to_string();
        let (service, number) = (endpoint(service), flows.to_string());
        let mut session = self.session(contender)?;
        tally.take();
        let facts = session.must(["traffic", question, &service, &milliseconds, &number])?;
        // What was written may still be anywhere: of that, only what arrived counts.
        let arrived = tally.take();
        let (first, rest) = facts.split_at(facts.len().min(1));
        let (read, seconds) = counted(first)?;
        let slowest = rest.iter().find_map(|fact| fact.strip_prefix("slowest "));
        let slowest = slowest.ok_or("no slowest flow reported")?.parse()?;
        let shares = match direction {
            Direction::Out if arrived.len() == usize::from(flows) => Shares {
                total: arrived.iter().sum::<u64>() as f64,
                slowest: arrived.iter().min().copied().unwrap_or_default() as f64,
            },
            Direction::Out => return Err(format!("{} flows arrived", arrived.len()).into()),
            Direction::In => Shares { total: read, slowest },
        };
        Ok((shares, seconds))
    }

    /// Exchanges beside connections that nobody waits for: of the namespace to a closed port, or from the remote
    /// machine to an open one of the namespace. Gives how many there were, and the slow ones' seconds.
    fn beside_new(&self, contender: Contender, direction: Direction) -> Outcome<(f64, f64)> {
        let milliseconds = self.time.as_millis().to_string();
        if let Direction::Out = direction {
            let closed = self.lab.remote().closed_port(self.talker.ip())?;
            let closed = address::endpoint(self.talker.ip(), closed);
            let words = ["traffic", "beside-new", &endpoint(self.talker), &milliseconds, &closed];
            return counted(&self.session(contender)?.must(words)?);
        }
        // Both stay until the end.
        let (_session, _service, port) = match contender {
            Contender::Bare => {
                let any_port = SocketAddr::new(self.family.any(), 0);
                let service = self.lab.host().tcp_at(any_port, service::talker)?;
                let port = service.port();
                (None, Some(service), port)
            }
            _ => {
                let here = SocketAddr::new(self.family.any(), INSIDE.parse()?);
                let pasta = self.with_mtu(self.with_ports(contender, FORWARDED).with(["-q"]));
                let mut session = self.begin(pasta)?;
                session.must(["serve", "tcp", "talker", &here.to_string(), "talker"])?;
                (Some(session), None, here.port())
            }
        };
        let to = SocketAddr::new(self.family.host(), port);
        let time = self.time;
        let beside = || traffic::exchanges_beside(to, time, 1, || traffic::open_and_drop(to, time));
        let (count, slow) = self.lab.remote().run(beside)?;
        Ok((count as f64, slow.as_secs_f64()))
    }

    /// A flood of datagrams to the remote machine or from it.
    fn datagrams(
        &self,
        contender: Contender,
        direction: Direction,
        (size, calls, flows): Stream,
    ) -> Outcome<datagrams::Carried> {
        let mut session = self.session(contender)?;
        let flood = Flood { size, time: self.time, calls, flows };
        self.datagrams.carry(&mut session, matches!(direction, Direction::Out), &flood)
    }

    /// A transfer to the remote machine or from it.
    fn transfer(
        &self,
        contender: Contender,
        direction: Direction,
        flows: u16,
    ) -> Outcome<Transfer> {
        self.transfer_with(contender, direction, flows, (&self.sink, &self.source))
    }

    fn transfer_with(
        &self,
        contender: Contender,
        direction: Direction,
        flows: u16,
        ((sink, arrived), source): (&Sink, &Service),
    ) -> Outcome<Transfer> {
        let flows = flows.to_string();
        let milliseconds = self.time.as_millis().to_string();
        let (question, service) = match direction {
            Direction::Out => ("out", sink),
            Direction::In => ("in", source),
        };
        let words = ["traffic", question, &service.endpoint()];
        let mut session = self.session(contender)?;
        session.must([&words[..], &[WARM_UP, &flows]].concat())?;
        let used = || -> Outcome<u64> {
            program_processes()?.iter().map(process::Process::processor_time).sum()
        };
        let repeated_before = repeated(&mut session)?;
        let (used_before, arrived_before) = (used()?, arrived.load(Ordering::Relaxed));
        let (read, seconds) =
            counted(&session.must([&words[..], &[&milliseconds, &flows]].concat())?)?;
        // What was written may still be anywhere: of that, only what arrived counts.
        let octets = match direction {
            Direction::Out => (arrived.load(Ordering::Relaxed) - arrived_before) as f64,
            Direction::In => read,
        };
        let processor = (used()? - used_before) as f64 / 1e9;
        let repeated = repeated(&mut session)? - repeated_before;
        Ok(Transfer { octets, seconds, processor, repeated })
    }

    /// What the slowest part of a transfer by one flow to the remote machine brought there, in percent of
    /// the median.
    fn slowest_tenth(&self, contender: Contender) -> Outcome<f64> {
        let (sink, arrived) = &self.sink;
        let milliseconds = (self.time * WATCHED_TIMES).as_millis().to_string();
        let words = ["traffic", "out", &sink.endpoint()];
        let mut session = self.session(contender)?;
        session.must([&words[..], &[WARM_UP]].concat())?;
        let (end, ended) = mpsc::channel::<()>();
        let mut rates = thread::scope(|scope| {
            let watch = scope.spawn(move || {
                let mut rates = Vec::new();
                let (mut at, mut before) = (Instant::now(), arrived.load(Ordering::Relaxed));
                while ended.recv_timeout(WATCHED_PART) == Err(RecvTimeoutError::Timeout) {
                    let (now, count) = (Instant::now(), arrived.load(Ordering::Relaxed));
                    rates.push((count - before) as f64 / (now - at).as_secs_f64());
                    (at, before) = (now, count);
                }
                rates
            });
            let result = session.must([&words[..], &[&milliseconds]].concat());
            drop(end);
            result.and(watch.join().map_err(|_| "a thread panicked".into()))
        })?;
        // Connects in the first.
        let rates = rates.get_mut(1..).filter(|rates| !rates.is_empty()).ok_or("too short")?;
        rates.sort_by(f64::total_cmp);
        let median = rates[rates.len() / 2];
        // Where nothing comes most of the time, nothing comes in the slowest part.
        Ok(if median > 0.0 { rates[0] / median * 100.0 } else { 0.0 })
    }

    /// What went through the backlog because the host's socket did not take it at once, as our own program counts it.
    fn backlog(&self, contender: Contender) -> Outcome<f64> {
        let (sink, arrived) = &self.sink;
        let milliseconds = self.time.as_millis().to_string();
        let mut session = self.verbose(contender)?;
        let before = arrived.load(Ordering::Relaxed);
        session.must(["traffic", "out", &sink.endpoint(), &milliseconds])?;
        let octets = (arrived.load(Ordering::Relaxed) - before) as f64;
        let backlog = session.end(0)?.backlog_octets()? as f64;
        Ok(backlog / 1e6 / (octets / 1e9))
    }
}

/// Segments that TCP has repeated so far where the client is.
fn repeated(session: &mut Session) -> Outcome<f64> {
    let facts = session.must(["traffic", "repeated"])?;
    let number = facts.first().and_then(|fact| fact.strip_prefix("repeated "));
    Ok(number.ok_or("no count of segments")?.parse()?)
}

pub(crate) fn endpoint(address: SocketAddr) -> String {
    address::endpoint(address.ip(), address.port())
}

/// `count N nanoseconds T` as N and seconds.
pub(crate) fn counted(facts: &[String]) -> Outcome<(f64, f64)> {
    let words: Vec<&str> = facts.iter().flat_map(|fact| fact.split_whitespace()).collect();
    match words[..] {
        ["count", count, "nanoseconds", time] => Ok((count.parse()?, time.parse::<f64>()? / 1e9)),
        _ => Err(format!("not a count: {facts:?}").into()),
    }
}

fn rate((count, seconds): (f64, f64)) -> f64 {
    count / seconds
}
