//! A storage that a test can stall or break.

use kvrep_core::storage::memory::MemoryStorage;
use kvrep_core::storage::{
    Durability, Recovered, SnapshotStore, Storage, StorageError, StorageEvent, StorageOp,
};
use kvrep_core::{Incarnation, StoreId};
use std::sync::{Arc, Condvar, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Works,
    Stalls,
    Fails,
}

/// What the test keeps.
#[derive(Clone)]
pub(crate) struct Gate(Arc<(Mutex<Mode>, Condvar)>);

impl Gate {
    pub(crate) fn set(&self, mode: Mode) {
        *self.0.0.lock().unwrap() = mode;
        self.0.1.notify_all();
    }
}

pub(crate) struct GatedStorage {
    inner: MemoryStorage,
    durability: Durability,
    gate: Gate,
}

impl GatedStorage {
    pub(crate) fn new(durability: Durability) -> (Self, Gate) {
        let gate = Gate(Arc::new((Mutex::new(Mode::Works), Condvar::new())));
        let storage = Self {
            inner: MemoryStorage::new(StoreId(1), Incarnation(1)),
            durability,
            gate: gate.clone(),
        };
        (storage, gate)
    }
}

impl Storage for GatedStorage {
    fn open(&mut self) -> Result<Recovered, StorageError> {
        self.inner.open()
    }

    fn write(&mut self, ops: Vec<StorageOp>) -> Result<Vec<StorageEvent>, StorageError> {
        self.inner.write(ops)
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let (mode, changed) = &*self.gate.0;
        let mode = changed
            .wait_while(mode.lock().unwrap(), |mode| *mode == Mode::Stalls)
            .unwrap();
        if *mode == Mode::Fails {
            return Err(StorageError::Io {
                action: "sync",
                path: "gate".into(),
                source: std::io::Error::other("the test says so"),
            });
        }
        self.inner.sync()
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.inner.snapshots()
    }

    fn durability(&self) -> Durability {
        self.durability
    }
}
