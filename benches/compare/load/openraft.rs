//! Three replicas of openraft in this process, as its own benchmark has them: log and state machine in memory, replicas
//! that call each other directly, requests that carry nothing, and clients that call the leader's `client_write`.

use super::{Caller, Load, drive};
use crate::sample::Sample;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::{LogFlushed, LogState, RaftLogStorage, RaftStateMachine, Snapshot};
use openraft::{
    AnyError, Config, EmptyNode, EntryPayload, LogId, OptionalSend, Raft, RaftLogId, RaftLogReader,
    RaftSnapshotBuilder, SnapshotMeta, StorageError, StoredMembership, Vote,
};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Cursor;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

openraft::declare_raft_types!(
    Types:
        D = (),
        R = (),
        NodeId = u64,
        Node = EmptyNode,
        SnapshotData = Cursor<Vec<u8>>,
);

type Entry = openraft::Entry<Types>;
type StorageResult<T> = Result<T, StorageError<u64>>;

pub(super) async fn measure(load: &Load) -> Result<Sample, String> {
    // The settings of its benchmark.
    let config = Config {
        election_timeout_min: 200,
        election_timeout_max: 2_000,
        purge_batch_size: 1_024,
        max_payload_entries: 1_024,
        ..Config::default()
    };
    let config = Arc::new(config.validate().map_err(|e| e.to_string())?);
    let network = Network::default();
    let ids = 1..=3;
    for id in ids.clone() {
        let raft = Raft::new(
            id,
            Arc::clone(&config),
            network.clone(),
            Log::default(),
            Machine::default(),
        );
        let raft = raft.await.map_err(|e| e.to_string())?;
        network.add(id, raft);
    }
    let leader = network.get(1).ok_or("no replica 1")?;
    let members: BTreeMap<u64, EmptyNode> = ids.map(|id| (id, EmptyNode {})).collect();
    leader
        .initialize(members)
        .await
        .map_err(|e| e.to_string())?;
    let elected = leader.wait(Some(Duration::from_secs(10)));
    let elected = elected.current_leader(1, "the first replica leads").await;
    elected.map_err(|e| e.to_string())?;
    let callers = (0..load.clients).map(|_| Writer(leader.clone())).collect();
    let sample = drive(load, callers).await;
    for raft in network.all() {
        raft.shutdown().await.map_err(|e| e.to_string())?;
    }
    sample
}

struct Writer(Raft<Types>);

impl Caller for Writer {
    async fn call(&mut self) -> Result<(), String> {
        let written = self.0.client_write(()).await;
        written.map(drop).map_err(|e| e.to_string())
    }
}

/// The replicas by their ids.
#[derive(Clone, Default)]
struct Network(Arc<RwLock<BTreeMap<u64, Raft<Types>>>>);

impl Network {
    fn add(&self, id: u64, raft: Raft<Types>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(id, raft);
    }

    fn get(&self, id: u64) -> Option<Raft<Types>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).cloned()
    }

    fn all(&self) -> Vec<Raft<Types>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Link {
        Link {
            network: self.clone(),
            target,
            raft: self.get(target),
        }
    }
}

/// The way from one replica to another: a call.
struct Link {
    network: Network,
    target: u64,
    /// Looked up once: as it is, the other is called without a lock.
    raft: Option<Raft<Types>>,
}

type CallError<E> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

#[allow(clippy::result_large_err, reason = "openraft's own error")]
impl Link {
    fn raft<E: std::error::Error>(&mut self) -> Result<&Raft<Types>, CallError<E>> {
        if self.raft.is_none() {
            self.raft = self.network.get(self.target);
        }
        self.raft.as_ref().ok_or_else(|| {
            let why = AnyError::error("that replica does not run yet");
            RPCError::Unreachable(Unreachable::new(&why))
        })
    }

    fn remote<E: std::error::Error>(&self, error: RaftError<u64, E>) -> CallError<E> {
        RPCError::RemoteError(RemoteError::new(self.target, error))
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let answer = self.raft()?.append_entries(request).await;
        answer.map_err(|e| self.remote(e))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, EmptyNode, RaftError<u64, InstallSnapshotError>>,
    > {
        let answer = self.raft()?.install_snapshot(request).await;
        answer.map_err(|e| self.remote(e))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let answer = self.raft()?.vote(request).await;
        answer.map_err(|e| self.remote(e))
    }
}

/// The log, in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    vote: Option<Vote<u64>>,
    purged: Option<LogId<u64>>,
    entries: BTreeMap<u64, Entry>,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> StorageResult<Vec<Entry>> {
        let range: (Bound<u64>, Bound<u64>) =
            (range.start_bound().cloned(), range.end_bound().cloned());
        let log = self.lock();
        Ok(log.entries.range(range).map(|(_, e)| e.clone()).collect())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> StorageResult<LogState<Types>> {
        let log = self.lock();
        let last = log.entries.last_key_value().map(|(_, e)| e.log_id);
        Ok(LogState {
            last_purged_log_id: log.purged,
            last_log_id: last.or(log.purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> StorageResult<()> {
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> StorageResult<Option<Vote<u64>>> {
        Ok(self.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> StorageResult<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        {
            let mut log = self.lock();
            let entries = entries.into_iter().map(|e| (e.get_log_id().index, e));
            log.entries.extend(entries);
        }
        flushed.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> StorageResult<()> {
        self.lock().entries.split_off(&from.index);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<u64>) -> StorageResult<()> {
        let mut log = self.lock();
        log.purged = Some(upto);
        log.entries = log.entries.split_off(&(upto.index + 1));
        Ok(())
    }
}

/// A state machine of which only the position is kept.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<Position>>);

#[derive(Clone, Default)]
struct Position {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, EmptyNode>,
}

impl Machine {
    fn lock(&self) -> MutexGuard<'_, Position> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Snapshot<Types> {
        let at = self.lock().clone();
        Snapshot {
            meta: SnapshotMeta {
                last_log_id: at.applied,
                last_membership: at.membership,
                snapshot_id: format!("{:?}", at.applied),
            },
            snapshot: Box::default(),
        }
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> StorageResult<Snapshot<Types>> {
        Ok(self.snapshot())
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> StorageResult<(Option<LogId<u64>>, StoredMembership<u64, EmptyNode>)> {
        let at = self.lock().clone();
        Ok((at.applied, at.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> StorageResult<Vec<()>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut at = self.lock();
        let mut responses = Vec::new();
        for entry in entries {
            at.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank | EntryPayload::Normal(()) => {}
                EntryPayload::Membership(membership) => {
                    at.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            responses.push(());
        }
        Ok(responses)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> StorageResult<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, EmptyNode>,
        _: Box<Cursor<Vec<u8>>>,
    ) -> StorageResult<()> {
        *self.lock() = Position {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
        };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> StorageResult<Option<Snapshot<Types>>> {
        let snapshot = self.snapshot();
        Ok(snapshot.meta.last_log_id.is_some().then_some(snapshot))
    }
}
