//! The session layer: an empty command through it, new and repeated, with few and with many sessions.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvrep_core::session::{Envelope, Machine};
use kvrep_core::{
    Entry, EntryKind, Fold, Limits, LogPoint, ReplicaId, Seq, SessionId, Term, Timestamp, Typed,
};

/// A state machine behind sessions, with the log that leads to it.
struct Fed {
    machine: Machine,
    at: LogPoint,
}

impl Fed {
    fn new() -> Self {
        let counter = Fold::new(0_u64, |sum: &mut u64, ()| *sum += 1);
        let machine = Machine::new(Box::new(Typed(counter)), &Limits::default());
        Self {
            machine: machine.expect("a new machine"),
            at: LogPoint::ZERO,
        }
    }

    fn apply(&mut self, envelope: &Envelope) {
        let term = Term::ZERO.next_for(ReplicaId(1));
        let payload = envelope.encode();
        let kind = EntryKind::Command;
        let entry = Entry::following(self.at, term, Timestamp(1), 1, kind, payload);
        self.at = entry.point();
        std::hint::black_box(self.machine.apply(&entry));
    }

    /// Opens a session; its id is the hash of the log there.
    fn open(&mut self) -> SessionId {
        self.apply(&Envelope::Open);
        SessionId(self.at.hash)
    }
}

fn command(session: SessionId, seq: u64) -> Envelope {
    Envelope::Command {
        session,
        seq: Seq(seq),
        done_below: Seq(seq),
        command: Bytes::new(),
    }
}

fn sessions(c: &mut Criterion) {
    for sessions in [1_usize, 10_000] {
        let mut fed = Fed::new();
        let ids: Vec<_> = (0..sessions).map(|_| fed.open()).collect();
        let executed = fed.machine.executed();
        let mut group = c.benchmark_group(format!("sessions/{sessions}"));
        group.throughput(Throughput::Elements(1));
        let mut n = 0;
        group.bench_function("new command", |b| {
            b.iter(|| {
                let (id, seq) = (ids[n % sessions], (n / sessions) as u64 + 1);
                fed.apply(&command(id, seq));
                n += 1;
            });
        });
        assert!(
            fed.machine.executed() > executed,
            "commands are carried out"
        );
        let mut fed = Fed::new();
        let id = fed.open();
        fed.apply(&command(id, 1));
        let executed = fed.machine.executed();
        group.bench_function("repeated command", |b| {
            b.iter(|| fed.apply(&command(id, 1)));
        });
        assert_eq!(fed.machine.executed(), executed, "but not twice");
    }
}

criterion_group! {
    name = benches;
    config = kvrep_benches::short();
    targets = sessions
}
criterion_main!(benches);
