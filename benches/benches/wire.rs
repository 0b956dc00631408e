//! Frames: made, and taken off a buffer as a connection's reader does.

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvrep_core::wire::{FrameKind, decode_frame, encode_frame};
use std::hint::black_box;

fn wire(c: &mut Criterion) {
    for bytes in [64, 256, 16 << 10] {
        let body = vec![7; bytes];
        let frame = encode_frame(FrameKind::Peer, &body);
        let mut group = c.benchmark_group(format!("wire/{bytes}"));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("encode", |b| {
            b.iter(|| encode_frame(FrameKind::Peer, black_box(&body)));
        });
        group.bench_function("decode", |b| {
            let fresh = || BytesMut::from(&frame[..]);
            b.iter_batched(
                fresh,
                |mut buffer| decode_frame(&mut buffer, bytes),
                criterion::BatchSize::SmallInput,
            );
        });
    }
}

criterion_group! {
    name = benches;
    config = kvrep_benches::short();
    targets = wire
}
criterion_main!(benches);
