//! Counters of one node, kept once and shown twice: in [`NodeStatus`](super::NodeStatus) and through the `metrics`
//! facade.

use crate::protocol::{ProtocolStatus, Role};
use crate::transport::TransportCounters;
use metrics::{Counter, Gauge, Histogram};
use std::time::Duration;

/// What a node has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeCounters {
    /// Requests taken from the queue.
    pub requests: u64,
    /// Calls of the engine with requests: `requests / request_batches` is how many were proposed together.
    pub request_batches: u64,
    /// Entries applied to the state machine.
    pub applied: u64,
    /// Requests answered *busy*; those that found the queue full are not among them.
    pub busy: u64,
    /// Requests answered *unknown*.
    pub unknown: u64,
    /// Requests that could not be read.
    pub malformed: u64,
    /// Syncs of the log on disk.
    pub syncs: u64,
    /// Batches made durable by them.
    pub synced_batches: u64,
    /// Bytes made durable by them.
    pub synced_bytes: u64,
    /// Snapshots of a primary that were put into the state machine.
    pub transfers: u64,
    /// Bytes of the last of them.
    pub transfer_bytes: u64,
    /// How long it took to receive the last of them: from its first piece to the last one durable, in microseconds.
    pub transfer_receive_micros: u64,
    /// How long it took to put the last of them into the state machine, in microseconds.
    pub transfer_load_micros: u64,
    /// Snapshots of this replica's own state that were written.
    pub snapshots: u64,
    /// How long it took to write the last of them, once it was frozen, in microseconds.
    pub snapshot_write_micros: u64,
}

pub(super) struct Telemetry {
    pub(super) counters: NodeCounters,
    shown: NodeCounters,
    requests: Counter,
    applied: Counter,
    busy: Counter,
    unknown: Counter,
    malformed: Counter,
    transfers: Counter,
    request_batch: Histogram,
    sync_seconds: Histogram,
    transfer_receive_seconds: Histogram,
    transfer_load_seconds: Histogram,
    snapshot_write_seconds: Histogram,
    sync_batches: Histogram,
    sync_bytes: Histogram,
    role: Gauge,
    serving: Gauge,
    term: Gauge,
    last_index: Gauge,
    durable_index: Gauge,
    commit_index: Gauge,
    applied_index: Gauge,
    in_sync: Gauge,
    frames_sent: Counter,
    frames_received: Counter,
    frames_dropped: Counter,
    frames_refused: Counter,
    messages_dropped: Counter,
}

impl Telemetry {
    pub(super) fn new(group: &str, replica: crate::ReplicaId) -> Self {
        let labels = [
            metrics::Label::new("group", group.to_owned()),
            metrics::Label::new("replica", replica.to_string()),
        ];
        let counter = |name: &'static str| metrics::counter!(name, labels.iter());
        let gauge = |name: &'static str| metrics::gauge!(name, labels.iter());
        let histogram = |name: &'static str| metrics::histogram!(name, labels.iter());
        Self {
            counters: NodeCounters::default(),
            shown: NodeCounters::default(),
            requests: counter("kvrep_requests_total"),
            applied: counter("kvrep_applied_total"),
            busy: counter("kvrep_busy_total"),
            unknown: counter("kvrep_unknown_total"),
            malformed: counter("kvrep_malformed_total"),
            transfers: counter("kvrep_transfers_total"),
            request_batch: histogram("kvrep_request_batch"),
            sync_seconds: histogram("kvrep_log_sync_seconds"),
            transfer_receive_seconds: histogram("kvrep_transfer_receive_seconds"),
            transfer_load_seconds: histogram("kvrep_transfer_load_seconds"),
            snapshot_write_seconds: histogram("kvrep_snapshot_write_seconds"),
            sync_batches: histogram("kvrep_log_sync_batches"),
            sync_bytes: histogram("kvrep_log_sync_bytes"),
            role: gauge("kvrep_role"),
            serving: gauge("kvrep_serving"),
            term: gauge("kvrep_term"),
            last_index: gauge("kvrep_last_index"),
            durable_index: gauge("kvrep_durable_index"),
            commit_index: gauge("kvrep_commit_index"),
            applied_index: gauge("kvrep_applied_index"),
            in_sync: gauge("kvrep_in_sync"),
            frames_sent: counter("kvrep_frames_sent_total"),
            frames_received: counter("kvrep_frames_received_total"),
            frames_dropped: counter("kvrep_frames_dropped_total"),
            frames_refused: counter("kvrep_frames_refused_total"),
            messages_dropped: counter("kvrep_messages_dropped_total"),
        }
    }

    pub(super) fn requests(&mut self, n: usize) {
        self.counters.requests += n as u64;
        self.counters.request_batches += 1;
        self.request_batch.record(n as f64);
    }

    pub(super) fn applied(&mut self, entries: usize) {
        self.counters.applied += entries as u64;
    }

    /// A snapshot of a primary is durable here.
    pub(super) fn received(&mut self, bytes: u64, took: Duration) {
        self.counters.transfer_bytes = bytes;
        self.counters.transfer_receive_micros = micros(took);
        self.transfer_receive_seconds.record(took.as_secs_f64());
    }

    /// It is in the state machine.
    pub(super) fn loaded(&mut self, took: Duration) {
        self.counters.transfers += 1;
        self.counters.transfer_load_micros = micros(took);
        self.transfer_load_seconds.record(took.as_secs_f64());
    }

    pub(super) fn snapshot_written(&mut self, took: Duration) {
        self.counters.snapshots += 1;
        self.counters.snapshot_write_micros = micros(took);
        self.snapshot_write_seconds.record(took.as_secs_f64());
    }

    pub(super) fn busy(&mut self, n: u64) {
        self.counters.busy += n;
    }

    pub(super) fn unknown(&mut self, n: u64) {
        self.counters.unknown += n;
    }

    pub(super) fn malformed(&mut self) {
        self.counters.malformed += 1;
    }

    pub(super) fn synced(&mut self, batches: usize, bytes: usize, took: Duration) {
        self.counters.syncs += 1;
        self.counters.synced_batches += batches as u64;
        self.counters.synced_bytes += bytes as u64;
        self.sync_seconds.record(took.as_secs_f64());
        self.sync_batches.record(batches as f64);
        self.sync_bytes.record(bytes as f64);
    }

    /// Hands what has changed to the `metrics` facade.
    pub(super) fn show(&mut self, status: &ProtocolStatus, transport: &TransportCounters) {
        let (now, before) = (self.counters, self.shown);
        self.shown = now;
        self.requests.increment(now.requests - before.requests);
        self.applied.increment(now.applied - before.applied);
        self.busy.increment(now.busy - before.busy);
        self.unknown.increment(now.unknown - before.unknown);
        self.malformed.increment(now.malformed - before.malformed);
        self.transfers.increment(now.transfers - before.transfers);
        self.role.set(match status.role {
            Role::Seeking => 0.0,
            Role::Candidate => 1.0,
            Role::Backup => 2.0,
            Role::Primary => 3.0,
            Role::Witness => 4.0,
        });
        self.serving.set(f64::from(u8::from(status.serving)));
        self.term.set(status.term.number as f64);
        self.last_index.set(status.last.index.0 as f64);
        self.durable_index.set(status.durable.0 as f64);
        self.commit_index.set(status.commit.0 as f64);
        self.applied_index.set(status.applied.0 as f64);
        let in_sync = status.configuration.as_ref().map_or(0, |c| c.in_sync.len());
        self.in_sync.set(in_sync as f64);
        self.frames_sent.absolute(transport.frames_sent);
        self.frames_received.absolute(transport.frames_received);
        self.frames_dropped.absolute(transport.frames_dropped);
        self.frames_refused.absolute(transport.refused);
        self.messages_dropped.absolute(status.dropped);
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
