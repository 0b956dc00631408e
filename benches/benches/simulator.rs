//! The simulator: ten seconds of a group's life with its clients, checked after every event.

use criterion::{Criterion, criterion_group, criterion_main};
use kvrep_core::sim::{Cell, Simulation};

fn simulator(c: &mut Criterion) {
    let mut group = c.benchmark_group("simulator/10 seconds");
    for name in ["witness/wal/partitions", "alone/memory/crashes"] {
        let cell = Cell::named(name).expect("a cell of the simulator");
        group.bench_function(name, |b| {
            let mut seed = 0;
            b.iter(|| {
                seed += 1;
                let run = Simulation::new(cell, seed).seconds(10).operations(200);
                run.run().expect_ok();
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = kvrep_benches::short();
    targets = simulator
}
criterion_main!(benches);
