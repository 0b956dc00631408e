//! The checker of linearizability on a history of ten thousand operations: several clients at a time, spread over keys.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvrep_core::Time;
use kvrep_core::check::models::{CounterOp, Counters};
use kvrep_core::check::{Budget, ClientId, History, Linearizability, linearizable};
use kvrep_core::random::Rng;

const OPERATIONS: u64 = 10_000;

/// Counters that do as they should: clients in turn, each answered while the others are under way.
fn history(clients: u64, keys: u64) -> History<CounterOp<u64>, i64> {
    let mut random = Rng::new(7);
    let mut sums = vec![0; keys as usize];
    let mut history = History::new();
    let mut now = 0;
    let mut done = 0;
    while done < OPERATIONS {
        let round: Vec<_> = (0..clients)
            .map(|client| {
                let key = random.below(keys);
                let op = match random.below(2) {
                    0 => CounterOp::Add(key, 1),
                    _ => CounterOp::Read(key),
                };
                now += 1;
                let at = Time::from_nanos(now);
                (history.invoke(at, ClientId(client), op.clone()), op)
            })
            .collect();
        for (id, op) in round {
            let (key, by) = match op {
                CounterOp::Add(key, by) => (key, by),
                CounterOp::Read(key) => (key, 0),
            };
            sums[key as usize] += by;
            now += 1;
            history.respond(Time::from_nanos(now), id, sums[key as usize]);
            done += 1;
        }
    }
    history
}

fn checker(c: &mut Criterion) {
    let mut group = c.benchmark_group("checker/linearizable");
    group.throughput(Throughput::Elements(OPERATIONS));
    for (clients, keys) in [(4, 100), (16, 100), (16, 1_000)] {
        let history = history(clients, keys);
        let model = Counters::new();
        group.bench_function(format!("{clients} clients, {keys} keys"), |b| {
            b.iter(|| {
                let verdict = linearizable::check(&model, &history, Budget::default());
                assert!(matches!(verdict, Linearizability::Holds));
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = kvrep_benches::short();
    targets = checker
}
criterion_main!(benches);
