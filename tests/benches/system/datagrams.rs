//! Floods of datagrams between the client and the remote machine.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::measure::{counted, endpoint};
use tests::Outcome;
use tests::datagrams::{self, Calls, Flood};
use tests::lab::service::Service;
use tests::lab::{Lab, Session};

/// The services on the remote machine.
#[derive(Debug)]
pub(crate) struct Services {
    source: Service,
    /// By kind of calls: where datagrams are counted, and how many octets there were.
    sinks: [(Calls, SocketAddr, Arc<AtomicU64>); 2],
}

/// What became of a flood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    /// How many were sent.
    pub(crate) sent: f64,
    /// How many arrived.
    pub(crate) arrived: f64,
    /// How long that took.
    pub(crate) seconds: f64,
}

impl Services {
    /// Starts them.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub(crate) fn start(lab: &Lab, address: SocketAddr) -> Outcome<Self> {
        let sink = |calls| -> Outcome<_> {
            let (at, octets) = count_octets(lab, address, calls)?;
            Ok((calls, at, octets))
        };
        let source = lab.remote().udp_at(address, datagrams::source())?;
        Ok(Self { source, sinks: [sink(Calls::Single)?, sink(Calls::Grouped)?] })
    }

    /// Has datagrams carried, to the remote machine or from it.
    ///
    /// # Errors
    ///
    /// When nothing arrives, or the client cannot do it.
    pub(crate) fn carry(
        &self,
        session: &mut Session,
        is_outwards: bool,
        flood: &Flood,
    ) -> Outcome<Carried> {
        let Flood { size, time, calls, flows } = flood;
        let rest = [
            size.to_string(),
            time.as_millis().to_string(),
            calls.name().to_owned(),
            flows.to_string(),
        ];
        let mut ask = |question: &str, at: &str| {
            let words = ["traffic", question, at].map(str::to_owned);
            counted(&session.must([&words[..], &rest].concat())?)
        };
        if is_outwards {
            let sink = self.sinks.iter().find(|(of, ..)| of == calls);
            let (_, at, octets) = sink.ok_or("no sink for such calls")?;
            let before = octets.load(Ordering::Relaxed);
            // What counts is what arrived, in the time that was sent.
            let (sent, seconds) = ask("udp-out", &endpoint(*at))?;
            let arrived = (octets.load(Ordering::Relaxed) - before) as f64 / *size as f64;
            return Ok(Carried { sent, arrived, seconds });
        }
        let (arrived, seconds) = ask("udp-in", &self.source.endpoint())?;
        let sent = loop {
            if let Some(sent) = self.source.next_report()?.strip_prefix("sent ") {
                break sent.parse()?;
            }
        };
        Ok(Carried { sent, arrived, seconds })
    }
}

/// A service that counts the octets that arrive.
fn count_octets(
    lab: &Lab,
    address: SocketAddr,
    calls: Calls,
) -> Outcome<(SocketAddr, Arc<AtomicU64>)> {
    let socket = lab.remote().run(|| Ok(UdpSocket::bind(address)?))?;
    datagrams::prepare_to_receive(&socket, calls)?;
    let address = socket.local_addr()?;
    let counter = Arc::new(AtomicU64::new(0));
    let arrived = Arc::clone(&counter);
    thread::spawn(move || {
        let mut octets = vec![0; 65536];
        while let Ok(length) = socket.recv(&mut octets) {
            arrived.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    Ok((address, counter))
}
