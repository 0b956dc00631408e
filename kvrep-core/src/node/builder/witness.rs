//! What a witness is made of: a group's name, a transport, and a place for its register.

use super::parts::{Parts, Place, common_settings};
use crate::config::Limits;
use crate::id::ReplicaId;
use crate::node::Node;
use crate::node::absent::Nothing;
use crate::node::guard::Guard;
use crate::node::start::{self, MakeProtocol, Plan, StartError};
use crate::protocol::witness::Witness;
use crate::storage::Storage;
use crate::storage::wal::OnCorruption;
use crate::transport::Transport;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Describes the witness of a group: a tiny process that decides who may be primary.
///
/// ```
/// use kvrep_core::node::{Client, LocalLink, Node};
/// use kvrep_core::transport::memory::MemoryNetwork;
/// use kvrep_core::{Authority, Fold, ReplicaId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let temporary = tempfile::tempdir()?;
/// # let directory = temporary.path().join("witness");
/// let network = MemoryNetwork::new();
/// let witness = Node::witness("counters")
///     .transport(network.transport())
///     .data_dir(directory) // its register must outlive it
///     .start()
///     .await?;
/// let node = Node::builder("counters", ReplicaId(1))
///     .authority(Authority::Witness)
///     .transport(network.transport())
///     .state_machine(Fold::new(0_i64, |sum, by: i64| *sum += by))
///     .start()
///     .await?;
/// let client = Client::<Fold<i64, i64>>::new(LocalLink::new([&node]));
/// assert_eq!(client.execute(2).await?, 2);
/// node.shutdown().await?;
/// witness.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct WitnessBuilder {
    group: String,
    parts: Parts,
}

impl WitnessBuilder {
    pub(in crate::node) fn new(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            parts: Parts::default(),
        }
    }

    common_settings!();

    /// Starts the witness.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs.
    pub async fn start(mut self) -> Result<Node, StartError> {
        let make: MakeProtocol = Box::new(|recovered| Ok(Box::new(Witness::new(&recovered)?)));
        start::start(Plan {
            transport: self.parts.transport(false)?,
            storage: self.parts.storage(&self.group, ReplicaId::WITNESS),
            from_copy: None,
            group: self.group,
            replica: ReplicaId::WITNESS,
            // The witness serves any configuration of its group.
            config_hash: 0,
            limits: witness_limits(),
            machine: Box::new(Nothing),
            guard: Guard::Off,
            protocol: make,
            options: self.parts.options,
        })
        .await
    }
}

impl fmt::Debug for WitnessBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessBuilder({})", self.group)
    }
}

/// What a witness and its callers say is small.
fn witness_limits() -> Limits {
    Limits {
        command_bytes_max: 4 << 10,
        frame_bytes_max: 64 << 10,
        ..Limits::default()
    }
}
