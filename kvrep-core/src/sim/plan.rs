//! What is drawn once for a run: how many replicas and clients, how fast everything is, how small the limits are.
//!
//! Every seed draws its own (swarm testing, Groce et al. 2012): a run in which snapshots are tiny and nothing is lost finds
//! other bugs than one with everything at once.

use super::cell::{AuthorityKind, Cell, Medium};
use super::policy::{ConfirmKind, TakeoverKind};
use super::workload::Freshness;
use crate::config::{Ack, Confirm, GroupConfig, Limits, Takeover, Timing, Visibility};
use crate::id::ReplicaId;
use crate::random::Rng;
use std::time::Duration;

/// How links behave when nothing is wrong with them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub(super) delay_min: Duration,
    pub(super) delay_spread: Duration,
    pub(super) spike_one_in: u64,
    pub(super) spike: Duration,
    /// In hundred-thousandths.
    pub(super) loss: u32,
    /// In hundred-thousandths.
    pub(super) duplicates: u32,
    pub(super) keeps_order: bool,
}

/// How fast disks are.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskPace {
    pub(super) write: Duration,
    pub(super) sync: Duration,
    pub(super) snapshot: Duration,
}

/// The plan of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) group: GroupConfig,
    /// Replicas in all: the founders first, then the spares that may join.
    pub(super) members: usize,
    pub(super) witness: bool,
    pub(super) clients: u32,
    pub(super) links: Links,
    pub(super) disk: DiskPace,
    pub(super) fault_every: Duration,
    /// Which faults of the class this run uses; a bit each.
    pub(super) menu: u64,
    pub(super) client_timeout: Duration,
    pub(super) client_patience: Duration,
    /// In hundredths: how many operations are queries.
    pub(super) queries: u64,
    /// The fixed primary.
    pub(super) home: Option<ReplicaId>,
    /// By how many millionths a clock may run too fast or too slow.
    pub(super) drift_ppm: u32,
}

impl Plan {
    pub(super) fn draw(cell: Cell, rng: &mut Rng) -> Self {
        let members = match rng.below(16) {
            0 if cell.medium == Medium::Wal => 1,
            0..=2 => 2,
            3..=9 => 3,
            10..=12 => 4,
            _ => 5,
        };
        let (links, timing) = pace(cell, rng);
        let ids = (1..=members).map(|n| ReplicaId(n as u32));
        let mut group = GroupConfig::new(ids, cell.authority.into());
        group.timing = timing;
        group.limits = limits(rng);
        let policies = policies(cell, &mut group, rng);
        let disk = match rng.below(3) {
            0 => DiskPace {
                write: Duration::from_micros(30),
                sync: Duration::from_micros(200),
                snapshot: Duration::from_millis(2),
            },
            1 => DiskPace {
                write: Duration::from_micros(100),
                sync: Duration::from_millis(2),
                snapshot: Duration::from_millis(20),
            },
            _ => DiskPace {
                write: Duration::from_micros(500),
                sync: Duration::from_millis(10),
                snapshot: Duration::from_millis(80),
            },
        };
        let client_timeout = timing.suspect_after + Duration::from_millis(50 + rng.below(500));
        let plan = Self {
            group,
            members,
            witness: cell.authority == AuthorityKind::Witness,
            clients: 2 + rng.below(7) as u32,
            links,
            disk,
            fault_every: Duration::from_millis([400, 1_000, 2_000, 4_000][rng.below(4) as usize]),
            menu: rng.next() | rng.next(),
            client_timeout,
            client_patience: Duration::from_millis(1_500 + rng.below(6_000)),
            queries: 20 + rng.below(50),
            home: policies.0,
            drift_ppm: policies.1,
        };
        let spares = [0, 0, 1, 2][rng.below(4) as usize];
        Self {
            members: members + spares,
            ..plan
        }
    }
}

impl Plan {
    /// The freshest reads that the group promises.
    pub(super) fn freshest(&self) -> Freshness {
        match self.group.visibility {
            Visibility::OnCommit => Freshness::Linearizable,
            Visibility::OnAppend => Freshness::Seen,
        }
    }

    /// A group of another size.
    pub(super) fn resize(&mut self, members: usize) {
        self.members = members;
        self.group.members = (1..=members).map(|n| ReplicaId(n as u32)).collect();
        if self.home.is_some() {
            let first = ReplicaId(1);
            self.home = Some(first);
            self.group.takeover = Takeover::Never { primary: first };
        }
    }
}

/// Draws what the policies leave open. Returns the fixed primary and the bound on the clocks' drift.
fn policies(cell: Cell, group: &mut GroupConfig, rng: &mut Rng) -> (Option<ReplicaId>, u32) {
    let policy = cell.policy;
    let (mut home, mut drift_ppm_max) = (None, 0);
    let mut length = group.timing.suspect_after;
    if policy.takeover == TakeoverKind::Never {
        home = Some(ReplicaId(1 + rng.below(group.members.len() as u64) as u32));
    }
    if policy.confirm == ConfirmKind::Lease {
        drift_ppm_max = [100, 10_000, 100_000][rng.below(3) as usize];
        if rng.one_in(2) {
            length = (length * 2 / 3).max(group.timing.heartbeat_every * 2);
        }
    }
    if policy.ack == Ack::Primary {
        group.limits.uncommitted_entries_max = [4, 12, 40][rng.below(3) as usize];
    }
    let lease = Confirm::Lease {
        length,
        drift_ppm_max,
    };
    policy.choose(group, home.unwrap_or(ReplicaId(1)), lease);
    (home, drift_ppm_max)
}

fn pace(cell: Cell, rng: &mut Rng) -> (Links, Timing) {
    let near = Links {
        delay_min: Duration::from_micros(50),
        delay_spread: Duration::from_micros([100, 1_000, 4_000][rng.below(3) as usize]),
        spike_one_in: [0, 50, 500][rng.below(3) as usize],
        spike: Duration::from_millis(5),
        loss: [0, 20, 200][rng.below(3) as usize],
        duplicates: [0, 100, 2_000][rng.below(3) as usize],
        keeps_order: rng.one_in(3),
    };
    if rng.one_in(4) {
        let far = Links {
            delay_min: Duration::from_millis(5),
            delay_spread: Duration::from_millis(20),
            spike: Duration::from_millis(20),
            loss: if cell.needs_true_suspicions() {
                0
            } else {
                near.loss
            },
            ..near
        };
        let timing = Timing {
            heartbeat_every: Duration::from_millis(100),
            suspect_after: Duration::from_millis(600),
            probe_window: Duration::from_millis(120),
            resend_every: Duration::from_millis(200),
        };
        return (far, timing);
    }
    let mut near = near;
    if rng.one_in(4) {
        near.loss = 2_000;
    }
    if cell.needs_true_suspicions() {
        // A candidate takes who does not answer within the probe's window for dead: a lost probe is a false suspicion.
        near.loss = 0;
    }
    let timing = Timing {
        heartbeat_every: Duration::from_millis(50 + 50 * rng.below(2)),
        ..Timing::default()
    };
    (near, timing)
}

fn limits(rng: &mut Rng) -> Limits {
    let snapshot_log_entries = [15, 40, 150, 5_000][rng.below(4) as usize];
    Limits {
        command_bytes_max: 1 << 10,
        frame_bytes_max: [6 << 10, 64 << 10][rng.below(2) as usize],
        uncommitted_entries_max: [4, 1_000][usize::from(!rng.one_in(4))],
        uncommitted_bytes_max: 1 << 20,
        inflight_bytes_max: [300, 1 << 20][usize::from(!rng.one_in(4))],
        snapshot_log_bytes: 1 << 20,
        snapshot_log_entries,
        retained_entries: [0, 10, 200][rng.below(3) as usize],
        retained_bytes: 8 << 10,
        digest_every_entries: snapshot_log_entries.min(30),
        pending_reads_max: [2, 1_000][usize::from(!rng.one_in(8))],
        sessions_max: [6, 1_000][usize::from(!rng.one_in(8))],
        session_window: [4, 1_024][usize::from(!rng.one_in(4))],
        session_answer_bytes_max: 1 << 20,
        session_ttl: Duration::from_secs(7 * 24 * 3_600),
        members_max: Limits::default().members_max,
    }
}
