//! What holds up the writes, in a sentence for an operator.
//!
//! A write waits for the slowest of those who must have it; that is how the scheme works, and mostly short. Once it has
//! lasted for longer than it takes to notice and drop a dead member, somebody must look, and is told where.

use super::local::Local;
use super::primary::Primary;
use crate::config::Ack;
use crate::id::{Index, ReplicaId};
use crate::time::Time;
use std::collections::BTreeSet;
use std::time::Duration;

/// Since when nothing was decided though something waited.
#[derive(Debug)]
pub(super) struct Blocked {
    commit: Index,
    since: Time,
}

impl Blocked {
    pub(super) fn begin(now: Time) -> Self {
        Self {
            commit: Index::ZERO,
            since: now,
        }
    }

    /// Counts from now on.
    pub(super) fn restart(&mut self, now: Time) {
        self.since = now;
    }

    fn lasts(&mut self, now: Time, commit: Index, last: Index) -> Duration {
        if commit != self.commit || commit >= last {
            self.commit = commit;
            self.since = now;
        }
        now - self.since
    }
}

impl Primary {
    /// Says whom the writes wait for, if they have waited for long, and takes it back when they go on.
    pub(super) fn explain(&mut self, local: &mut Local, now: Time) {
        let patience = local.group.timing.suspect_after * 2;
        let last = local.log.last().index;
        let lasts = self.blocked.lasts(now, local.commit, last);
        if let Some(lost) = self.register.lost() {
            // Whatever waits, this is why it will not end, and it must be heard of before anything waits.
            if local.waiting_for != lost {
                local.waiting_for = lost.into();
            }
        } else if lasts < patience {
            local.waiting_for.clear();
        } else {
            local.waiting_for = self.blockers(local);
        }
    }

    fn blockers(&self, local: &Local) -> String {
        if local.durable.index() <= local.commit {
            return "writes wait for this replica's own log: its disk is slow, or hangs".into();
        }
        if let Some(change) = self.changes.last() {
            return if local.is_alone() {
                format!(
                    "writes wait until {:?} have agreed to {}; start those that are missing",
                    change.awaited(),
                    change.new
                )
            } else {
                format!(
                    "writes wait until the witness has recorded {}; start it, or check its address",
                    change.new
                )
            };
        }
        let behind = self.behind(local);
        let (up, down): (Vec<_>, Vec<_>) = behind.into_iter().partition(|id| local.is_live(*id));
        match (&up[..], &down[..], local.group.ack) {
            ([], [], _) => "writes wait, and nobody is behind".into(),
            (_, [_, ..], Ack::All) => format!(
                "writes wait for {down:?}: every full member must have them. Start it, or remove it"
            ),
            (_, [_, ..], Ack::AllInSync | Ack::Primary) => {
                format!("writes wait until {down:?}, not heard of, are dropped")
            }
            (_, [], _) => format!(
                "writes wait for {up:?}, which answer but acknowledge nothing: a slow disk, a transfer, or too little bandwidth"
            ),
        }
    }

    /// Those whom the next decision waits for, if one is to be made.
    pub(super) fn awaits(&self, local: &Local) -> BTreeSet<ReplicaId> {
        if local.commit >= local.log.last().index {
            return BTreeSet::new();
        }
        self.behind(local)
    }

    /// Those who must have the next write and do not.
    fn behind(&self, local: &Local) -> BTreeSet<ReplicaId> {
        let lacks = |id: &ReplicaId| {
            let peer = self.peers.get(id);
            peer.is_none_or(|p| p.durable <= local.commit || p.incarnation != local.life(*id))
        };
        let required = self.required(local).map(|(id, _)| id);
        let full = self.configuration.members.keys().copied();
        let full = full.filter(|id| local.group.ack == Ack::All && self.configuration.is_full(*id));
        required
            .chain(full)
            .filter(|id| *id != local.me && lacks(id))
            .collect()
    }
}
