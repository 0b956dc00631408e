//! What a replica and a witness are made of alike: transport, storage, the bounds of their queues.

use super::{draw, this_life};
use crate::id::{GroupId, ReplicaId, StoreId};
use crate::node::absent::Nowhere;
use crate::node::start::{Options, StartError};
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;
use crate::storage::wal::{OnCorruption, Wal, WalOptions};
use crate::transport::Transport;
use std::path::PathBuf;
use std::sync::Arc;

/// What a replica and a witness have in common.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) transport: Option<Arc<dyn Transport>>,
    pub(super) storage: Option<Place>,
    pub(super) on_corruption: OnCorruption,
    pub(super) options: Options,
}

/// Where the data is kept.
pub(super) enum Place {
    Directory(PathBuf),
    Storage(Box<dyn Storage>),
}

macro_rules! common_settings {
    () => {
        /// Over what frames travel.
        #[must_use]
        pub fn transport(mut self, transport: impl Transport) -> Self {
            self.parts.transport = Some(Arc::new(transport));
            self
        }

        /// Keeps log, snapshots and hard state in this directory, in a [`Wal`](crate::storage::wal::Wal) with default options. It is made where
        /// there is none.
        #[must_use]
        pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
            self.parts.storage = Some(Place::Directory(directory.into()));
            self
        }

        /// What to do when the directory of [`data_dir`](Self::data_dir) is damaged in a way no crash explains: refuse to
        /// start (the default), or set everything in it aside and fetch it again from the group.
        #[must_use]
        pub fn on_corruption(mut self, what: OnCorruption) -> Self {
            self.parts.on_corruption = what;
            self
        }

        /// Where log, snapshots and hard state are kept. Without one, in memory: such a replica leaves the group by
        /// stopping, and joins it anew.
        #[must_use]
        pub fn storage(mut self, storage: impl Storage) -> Self {
            self.parts.storage = Some(Place::Storage(Box::new(storage)));
            self
        }

        /// How many requests may wait to be looked at (default 16,384); one more is answered
        /// [`Busy`](crate::client_wire::Outcome::Busy), or makes its connection wait.
        #[must_use]
        pub fn request_queue_max(mut self, requests: usize) -> Self {
            self.parts.options.request_queue_max = requests;
            self
        }

        /// How many frames of peers may wait to be looked at (default 8,192); one more waits in the transport.
        #[must_use]
        pub fn peer_queue_max(mut self, frames: usize) -> Self {
            self.parts.options.peer_queue_max = frames;
            self
        }

        /// How many requests may be under way (default 131,072); one more is answered
        /// [`Busy`](crate::client_wire::Outcome::Busy).
        #[must_use]
        pub fn pending_max(mut self, requests: usize) -> Self {
            self.parts.options.pending_max = requests;
            self
        }

        /// After how long a request that says no deadline is answered
        /// [`Unknown`](crate::client_wire::Outcome::Unknown) or [`Behind`](crate::client_wire::Outcome::Behind)
        /// (default 10 s).
        #[must_use]
        pub fn reply_within(mut self, time: Duration) -> Self {
            self.parts.options.reply_within = time;
            self
        }

        /// How long [`Node::shutdown`] may take before it is broken off (default 10 s).
        #[must_use]
        pub fn shutdown_within(mut self, time: Duration) -> Self {
            self.parts.options.shutdown_within = time;
            self
        }

        /// How long the storage may take to make a batch durable (default 15 s). Beyond that the node ends with
        /// [`NodeError::StorageStalled`](crate::node::NodeError::StorageStalled), so that the others can go on without it: a
        /// disk that hangs would otherwise stop all writes of the group. Time in which the process was stopped does not count.
        #[must_use]
        pub fn storage_stall_max(mut self, time: Duration) -> Self {
            self.parts.options.storage_stall_max = time;
            self
        }

        /// How many bytes may wait for the disk before commands are answered
        /// [`Busy`](crate::client_wire::Outcome::Busy) (default 64 MiB).
        #[must_use]
        pub fn log_backlog_bytes_max(mut self, bytes: usize) -> Self {
            self.parts.options.log_backlog_bytes_max = bytes;
            self
        }
    };
}

pub(super) use common_settings;

impl Parts {
    pub(super) fn transport(&self, alone: bool) -> Result<Arc<dyn Transport>, StartError> {
        self.options.check().map_err(StartError::Config)?;
        match &self.transport {
            Some(transport) => Ok(Arc::clone(transport)),
            None if alone => Ok(Arc::new(Nowhere)),
            None => Err(StartError::Config(
                "a member of a group needs a transport to reach the others: call transport(…)"
                    .into(),
            )),
        }
    }

    pub(super) fn storage(&mut self, group: &str, replica: ReplicaId) -> Box<dyn Storage> {
        match self.storage.take() {
            Some(Place::Storage(storage)) => storage,
            Some(Place::Directory(directory)) => {
                let mut options = WalOptions::new(GroupId::named(group), replica, draw());
                options.incarnation_min = this_life();
                options.on_corruption = self.on_corruption;
                Box::new(Wal::open_dir(directory, options))
            }
            None => Box::new(MemoryStorage::new(StoreId(draw()), this_life())),
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), String> {
        if self.request_queue_max == 0 || self.peer_queue_max == 0 || self.pending_max == 0 {
            return Err(
                "request_queue_max, peer_queue_max and pending_max must not be zero".into(),
            );
        }
        let queues = self.request_queue_max.max(self.peer_queue_max);
        if queues > QUEUE_MAX || self.pending_max > QUEUE_MAX {
            return Err(format!("queues hold at most {QUEUE_MAX}"));
        }
        if self.reply_within.is_zero() || self.shutdown_within.is_zero() {
            return Err("reply_within and shutdown_within must not be zero".into());
        }
        Ok(())
    }
}

const QUEUE_MAX: usize = 1 << 24;
