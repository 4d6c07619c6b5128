//! Servers inside the namespace, as those of [`crate::lab::service`].
//!
//! | question | does |
//! | --- | --- |
//! | `serve tcp NAME ENDPOINT echo` | sends back what comes; reports the peer |
//! | `serve tcp NAME ENDPOINT source SEED LENGTH` | sends a pattern, waits for the end; reports the peer |
//! | `serve tcp NAME ENDPOINT sink SEED` | reads a pattern to the end; reports how much was right |
//! | `serve tcp NAME ENDPOINT reset` | resets after the first octet |
//! | `serve tcp NAME ENDPOINT fountain` | sends for as long as somebody reads |
//! | `serve tcp NAME ENDPOINT talker` | answers each octet with itself |
//! | `serve tcp NAME ENDPOINT blackhole` | reads and counts, of all connections together |
//! | `serve udp-count NAME ENDPOINT` | counts datagrams |
//! | `serve count NAME` | the fact is what was counted so far |
//! | `serve udp NAME ENDPOINT` | sends each datagram back; reports the peer |
//! | `serve report NAME` | waits for the next report; the fact is it |
//! | `serve stop NAME` | stops listening; connections go on |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Arguments, Facts};
use crate::Outcome;
use crate::lab::Machine;
use crate::lab::service::{self, Service, udp_echo};
use crate::pattern::Pattern;

/// Services that run, by name.
#[derive(Debug, Default)]
pub struct Services {
    running: BTreeMap<String, Service>,
    counts: BTreeMap<String, Arc<AtomicU64>>,
}

impl Services {
    /// Answers a question about services.
    ///
    /// # Errors
    ///
    /// What the sockets report.
    pub fn answer(&mut self, arguments: &mut Arguments<'_>) -> Outcome<Facts> {
        let question = arguments.word("question")?;
        let name = arguments.word("name")?;
        let service = match question {
            "tcp" => {
                let count = self.counts.entry(name.to_owned()).or_default();
                tcp(arguments, count)?
            }
            "udp" => Machine::here()?.udp_at(arguments.endpoint()?, udp_echo)?,
            "udp-count" => {
                let count = Arc::clone(self.counts.entry(name.to_owned()).or_default());
                Machine::here()?.udp_at(arguments.endpoint()?, move |_, _, _| {
                    count.fetch_add(1, Ordering::Relaxed);
                    Ok(String::new())
                })?
            }
            "count" => {
                let count = self.counts.get(name).ok_or("nothing is counted")?;
                return Ok(vec![count.load(Ordering::Relaxed).to_string()]);
            }
            "report" => return Ok(vec![self.named(name)?.next_report()?]),
            "stop" => {
                self.named(name)?.stop()?;
                return Ok(Facts::new());
            }
            other => return Err(format!("no question about services {other}").into()),
        };
        let port = format!("port {}", service.port());
        self.running.insert(name.to_owned(), service);
        Ok(vec![port])
    }

    fn named(&self, name: &str) -> Outcome<&Service> {
        Ok(self.running.get(name).ok_or("no such service")?)
    }
}

fn tcp(arguments: &mut Arguments<'_>, count: &Arc<AtomicU64>) -> Outcome<Service> {
    let (here, endpoint) = (Machine::here()?, arguments.endpoint()?);
    match arguments.word("kind of service")? {
        "echo" => here.tcp_at(endpoint, service::echo),
        "source" => {
            let pattern = Pattern::new(arguments.value("seed")?);
            here.tcp_at(endpoint, service::source(pattern, arguments.value("length")?))
        }
        "sink" => here.tcp_at(endpoint, service::sink(Pattern::new(arguments.value("seed")?))),
        "fountain" => here.tcp_at(endpoint, service::fountain),
        "talker" => here.tcp_at(endpoint, service::talker),
        "blackhole" => here.tcp_at(endpoint, service::blackhole(Arc::clone(count))),
        "reset" => here.tcp_at(endpoint, service::reset),
        other => Err(format!("no service {other}").into()),
    }
}
