//! A state of any size whose frozen view is cheap: shards behind shared pointers, copied when written to.

use bytes::Bytes;
use kvrep_core::{ApplyContext, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bytes of a shard's block.
pub(crate) const SHARD_BYTES: usize = 512 << 10;

/// How long it last took to freeze the state in this process, in microseconds.
pub(crate) static FREEZE_MICROS: AtomicU64 = AtomicU64::new(0);

/// Blocks of bytes with some keys beside each.
#[derive(Default)]
pub(crate) struct Sharded(Vec<Arc<Shard>>);

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Shard {
    block: Bytes,
    keys: BTreeMap<u32, Bytes>,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Command {
    /// Adds or replaces a shard's block.
    Fill { shard: u32, block: Bytes },
    /// Writes a key.
    Put { key: u32, value: Bytes },
}

impl StateMachine for Sharded {
    type Command = Command;
    type Query = ();
    type Response = u64;
    type Snapshot = Vec<Arc<Shard>>;

    fn apply(&mut self, _: &mut ApplyContext, command: Command) -> u64 {
        match command {
            Command::Fill { shard, block } => {
                let at = shard as usize;
                if at >= self.0.len() {
                    self.0.resize_with(at + 1, Arc::default);
                }
                Arc::make_mut(&mut self.0[at]).block = block;
            }
            Command::Put { key, value } => {
                let shards = self.0.len().max(1);
                if let Some(shard) = self.0.get_mut(key as usize % shards) {
                    Arc::make_mut(shard).keys.insert(key, value);
                }
            }
        }
        self.0.len() as u64
    }

    fn query(&self, (): ()) -> u64 {
        self.0.len() as u64
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "measured; the state does not depend on it"
    )]
    fn snapshot(&self) -> Self::Snapshot {
        let begun = Instant::now();
        let frozen = self.0.clone();
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        FREEZE_MICROS.store(took, Ordering::Relaxed);
        frozen
    }

    fn restore(&mut self, state: Self::Snapshot) {
        self.0 = state;
    }
}

/// Bytes that do not repeat, the same for the same shard.
pub(crate) fn block(shard: u32) -> Bytes {
    let mut x = u64::from(shard) + 0x9e37_79b9_7f4a_7c15;
    let mut block = Vec::with_capacity(SHARD_BYTES);
    while block.len() < SHARD_BYTES {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        block.extend_from_slice(&x.to_be_bytes());
    }
    block.into()
}
