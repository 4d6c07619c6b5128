//! The pure path: octets to what they are, the flow they belong to, and a TCP flow at full speed through the
//! stack, with a socket and a tap that do nothing. Frames a second of one core, without any kernel.

#[path = "../tests/fake/mod.rs"]
mod fake;
#[path = "../tests/steady/flows.rs"]
mod flows;

use criterion::{Criterion, Throughput, criterion_main};
use flows::{PAYLOAD, Steady};
use pasta_datapath::link::classify::{Framing, classify};
use pasta_datapath::link::writer::{Path, TCP};
use pasta_datapath::wire::checksum::Sum;
use pasta_ipc::types::MacAddr;
use std::hint::black_box;

#[path = "../../fuzz/src/frames.rs"]
#[expect(unreachable_pub, reason = "a file of the fuzz crate, whose public items these are there")]
mod frames;

fn classification(c: &mut Criterion) {
    let mut group = c.benchmark_group("classify");
    group.throughput(Throughput::Elements(1));
    for (name, octets) in frames::good() {
        group
            .bench_function(name, |b| b.iter(|| drop(black_box(classify(&octets, Framing::Vnet)))));
    }
    group.finish();
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("find flow among");
    group.throughput(Throughput::Elements(1));
    for others in [1, 1000, 50_000] {
        let mut steady = Steady::new(others, 1);
        group.bench_function(others.to_string(), |b| b.iter(|| steady.find(black_box(1024))));
    }
    group.finish();
}

fn tcp(c: &mut Criterion) {
    let mut group = c.benchmark_group("tcp");
    for batch in [1, 4] {
        let mut steady = Steady::new(1000, batch);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("from the namespace, frames at once: {batch}"), |b| {
            b.iter(|| steady.upload());
        });
    }
    let mut steady = Steady::new(1000, 1);
    let before = steady.calls().frames;
    steady.download();
    steady.download();
    let frames = (steady.calls().frames - before) / 2;
    group.throughput(Throughput::Elements(frames.max(1)));
    group.bench_function("to the namespace, a window at once", |b| b.iter(|| steady.download()));
    group.finish();
}

/// The headers of one flow towards the namespace, as the shell keeps them.
fn path() -> Path {
    let (source, destination) = (([198, 51, 100, 1], 80).into(), ([192, 0, 2, 7], 1024).into());
    Path::new(MacAddr::OURS_BY_DEFAULT, MacAddr::OURS_BY_DEFAULT, TCP, source, destination)
}

fn writing(c: &mut Criterion) {
    let mut group = c.benchmark_group("write");
    group.bench_function("headers of a flow", |b| b.iter(|| black_box(path())));
    let octets = vec![7; PAYLOAD];
    group.throughput(Throughput::Bytes(PAYLOAD as u64));
    group.bench_function("checksum, where the tap has no offloads", |b| {
        b.iter(|| Sum::default().octets(black_box(&octets)).checksum());
    });
    group.finish();
}

fn benches() {
    let mut criterion = Criterion::default().configure_from_args();
    for group in [classification, lookup, tcp, writing] {
        group(&mut criterion);
    }
}

criterion_main!(benches);
