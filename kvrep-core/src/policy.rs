//! What a group may choose, and what each choice promises.
//!
//! Four questions, the same for every replicated system: who has a write before the client hears of it ([`Ack`]), who
//! takes over ([`Takeover`]), what may be read ([`Visibility`], [`Confirm`]), and how a returner catches up
//! ([`Transfer`]). Not every combination makes sense; [`GroupConfig::validate`] refuses those that could not keep what
//! their parts promise, with the reason. What the others promise (the simulator checks just that):
//!
//! | takeover | ack | visibility | authority | crashes and restarts, disks intact, no false suspicion | and pauses, partitions |
//! |---|---|---|---|---|---|
//! | `MostAdvanced`, `OnClientRequest` | `AllInSync` | `OnCommit` | `Witness` | linearizable | linearizable; available while an in-sync member reaches the witness |
//! | `MostAdvanced`, `OnClientRequest` | `AllInSync` | `OnCommit` | `Alone` | linearizable | unsafe: two primaries are possible; on heal the divergence is found, saved aside, reported |
//! | `MostAdvanced`, `OnClientRequest` | `Primary` | `OnCommit` | `Witness` | linearizable but for takeovers, each of which loses at most the window and is reported | the same |
//! | `MostAdvanced`, `OnClientRequest` | `Primary` | `OnCommit` | `Alone` | linearizable but for takeovers, each of which loses at most the window and is reported | unsafe, as above; the losses are reported |
//! | `Never` | `AllInSync` | `OnCommit` | `Alone` | linearizable; no writes while the primary is down | the same |
//! | `Never` | `All` | `OnCommit` | `Alone` | linearizable; no writes while any replica is down | the same |
//! | `Never` | `Primary` | `OnCommit` | `Alone` | linearizable while the primary keeps its disk; no writes while it is down | the same |
//! | `Never` | `All` | `OnAppend` | `Alone` | writes are linearizable, reads are not; every client reads its own writes and, with tokens, never an older state; no writes while any replica is down | the same |
//!
//! All rows hold while members come and go ([`Manage`](crate::Manage)), with what follows from the words: with `Ack::All` a
//! member that is added blocks writes until it has caught up, and one that is down until it is removed; with `Takeover::Never` a
//! handover is refused, and so is the removal of the fixed primary (that is another group's configuration).
//!
//! An acknowledged write lives as long as one of those does who had to have it: one member of the in-sync set, one replica, or
//! the primary. Logs in memory are lost with their process. [`Transfer`] changes no promise; [`Confirm::Lease`] rests on
//! clocks beside that, and a forced start breaks all of them.

use crate::config::{Authority, GroupConfig};
use crate::id::ReplicaId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Who has a write before the client hears of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Ack {
    /// Every member of the in-sync set, each as durable as its storage makes it. One that fails is dropped from the set
    /// first, so that writes go on.
    AllInSync,
    /// Every member of the group, with the storage it has now. One that is down blocks writes until it is back: at its
    /// deadline a write is answered *unknown*, and what is proposed beyond [`Limits::uncommitted_entries_max`](crate::Limits::uncommitted_entries_max) *busy*.
    All,
    /// The primary alone, as durable as its storage makes it; the others follow. What it has acknowledged and the one that
    /// takes over does not have is **lost**, and reported when the old primary returns: as
    /// [`AcknowledgedWritesLost`](crate::protocol::Event::AcknowledgedWritesLost), or, if it has restarted meanwhile and cannot tell what it
    /// had acknowledged, as [`TailTruncated`](crate::protocol::Event::TailTruncated) only, and then
    /// [`OnDivergence::Stop`](crate::protocol::passive::OnDivergence::Stop) does not stop it. The *loss window* is bounded: at
    /// most [`Limits::uncommitted_entries_max`](crate::Limits::uncommitted_entries_max) entries (and [`Limits::uncommitted_bytes_max`](crate::Limits::uncommitted_bytes_max) bytes and one batch) that
    /// some in-sync member lacks; beyond it proposals are answered *busy*. How large it is now is
    /// `last - replicated` of the primary's [`ProtocolStatus`](crate::protocol::ProtocolStatus).
    Primary,
}

/// Who becomes primary when the primary is gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Takeover {
    /// By itself, the reachable member with the most advanced log; ties go to the lowest id.
    MostAdvanced,
    /// The same one, but only once a client has asked somebody for a write or a linearizable read since the primary was
    /// lost. A group that nobody uses stays as it is.
    OnClientRequest,
    /// Nobody: only this member ever serves. While it is down the group takes no writes; when it returns, it first adopts
    /// the most advanced log that anybody has.
    Never {
        /// The one that serves.
        primary: ReplicaId,
    },
}

/// What a replica's state machine shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Visibility {
    /// Only what is decided. A read never shows what a crash could undo.
    OnCommit,
    /// What is as durable as the replica's own storage makes it: the primary applies before it ships, a backup before it
    /// acknowledges. Whoever is asked after a write was acknowledged shows it, without asking anybody; but what it shows
    /// may not be acknowledged yet, so there are no linearizable reads.
    OnAppend,
}

/// Whether the service goes on while a replica is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Transfer {
    /// It does.
    Concurrent,
    /// Proposals and linearizable reads are answered *busy* until the live replica that gets a snapshot, or that comes back into
    /// the in-sync set, has everything, or has made no progress for
    /// [`Timing::suspect_after`](crate::Timing::suspect_after). For systems that want the copy to be small and soon done.
    WorldStopped,
}

/// How a primary makes sure that it still is the primary before it answers a linearizable read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Confirm {
    /// It asks every in-sync member: one round for all reads that wait.
    Round,
    /// It holds a lease that every in-sync member grants with each heartbeat that it answers, and answers at once
    /// while that lasts; otherwise by a round. The price: after a crash nobody takes over before the lease has run out,
    /// and the promise rests on clocks: on nodes' clocks running at rates within `drift_ppm_max` of true time. They do go on
    /// while a process is stopped, but not while a machine sleeps, nor always while a virtual machine is paused or moved:
    /// where that happens, choose [`Round`](Self::Round).
    /// (Gray, Cheriton: *Leases*, SOSP 1989.)
    Lease {
        /// How long a grant lasts on the clock of the one who grants it. At least two heartbeats (or it would run out
        /// between them), at most [`Timing::suspect_after`](crate::Timing::suspect_after) (a silent primary is suspected only then, so a lease that is no
        /// longer delays no takeover that silence brings about).
        length: Duration,
        /// How much faster or slower than true time any clock of the group may run, in millionths. Crystals are good
        /// for 100; at most 100,000.
        drift_ppm_max: u32,
    },
}

impl GroupConfig {
    /// Checks that the policies fit each other: each refusal says which promise the combination could not keep.
    pub(crate) fn validate_policies(&self) -> Result<(), String> {
        let never = match self.takeover {
            Takeover::MostAdvanced | Takeover::OnClientRequest => false,
            Takeover::Never { primary } if !self.members.contains(&primary) => {
                return Err(format!(
                    "Takeover::Never names {primary}, which is not a member: nobody could ever serve"
                ));
            }
            Takeover::Never { .. } if self.authority != Authority::Alone => {
                return Err(
                    "Takeover::Never goes with Authority::Alone: a fixed primary has no rival for a witness to judge".into(),
                );
            }
            Takeover::Never { .. } => true,
        };
        if self.ack == Ack::All && !never {
            return Err(
                "Ack::All goes with Takeover::Never: a write that waits for all members is not helped by another primary".into(),
            );
        }
        if self.visibility == Visibility::OnAppend && !(self.ack == Ack::All && never) {
            return Err(
                "Visibility::OnAppend goes with Ack::All and Takeover::Never: otherwise what a replica has shown could be undone".into(),
            );
        }
        match self.confirm {
            Confirm::Round => Ok(()),
            Confirm::Lease { .. } if never => Err(
                "Confirm::Lease does not go with Takeover::Never: a fixed primary has no rival, and needs nobody's confirmation".into(),
            ),
            Confirm::Lease {
                length,
                drift_ppm_max,
            } => {
                if length < self.timing.heartbeat_every * 2 {
                    Err("a lease must last for at least two heartbeats: it would run out between them".into())
                } else if length > self.timing.suspect_after {
                    Err("a lease must not be longer than suspect_after: it would delay every takeover".into())
                } else if drift_ppm_max > 100_000 {
                    Err("drift_ppm_max is at most 100,000 (a tenth): clocks that differ by more are broken".into())
                } else {
                    Ok(())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = include_str!("policy.rs");

    fn group(authority: Authority) -> GroupConfig {
        GroupConfig::new([ReplicaId(1), ReplicaId(2)], authority)
    }

    fn lease(group: &GroupConfig) -> Confirm {
        Confirm::Lease {
            length: group.timing.suspect_after,
            drift_ppm_max: 100,
        }
    }

    /// Every combination of policies.
    fn combinations() -> Vec<GroupConfig> {
        let mut all = Vec::new();
        for authority in [Authority::Alone, Authority::Witness] {
            for takeover in [
                Takeover::MostAdvanced,
                Takeover::OnClientRequest,
                Takeover::Never {
                    primary: ReplicaId(2),
                },
            ] {
                for ack in [Ack::AllInSync, Ack::All, Ack::Primary] {
                    for visibility in [Visibility::OnCommit, Visibility::OnAppend] {
                        for transfer in [Transfer::Concurrent, Transfer::WorldStopped] {
                            for confirm in [Confirm::Round, lease(&group(authority))] {
                                all.push(GroupConfig {
                                    takeover,
                                    ack,
                                    visibility,
                                    transfer,
                                    confirm,
                                    ..group(authority)
                                });
                            }
                        }
                    }
                }
            }
        }
        all
    }

    /// The words of the table's columns.
    fn columns(group: &GroupConfig) -> [String; 4] {
        let takeover = match group.takeover {
            Takeover::MostAdvanced => "MostAdvanced",
            Takeover::OnClientRequest => "OnClientRequest",
            Takeover::Never { .. } => "Never",
        };
        [
            format!("`{takeover}`"),
            format!("`{:?}`", group.ack),
            format!("`{:?}`", group.visibility),
            format!("`{:?}`", group.authority),
        ]
    }

    #[test]
    fn every_legal_combination_has_one_row_in_the_table_and_no_other_has() {
        let rows: Vec<Vec<&str>> = DOCS
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `"))
            .map(|row| row.split('|').map(str::trim).collect())
            .collect();
        let (mut legal, mut used) = (0, std::collections::BTreeSet::new());
        for group in combinations() {
            let words = columns(&group);
            let fits = |row: &Vec<&str>| {
                format!("`{}", row[0]).contains(&words[0])
                    && (1..4).all(|column| row[column] == words[column])
            };
            let found: Vec<usize> = (0..rows.len()).filter(|n| fits(&rows[*n])).collect();
            match group.validate() {
                Ok(()) => {
                    legal += 1;
                    assert_eq!(found.len(), 1, "{words:?}");
                    used.extend(found);
                }
                // A lease beside a fixed primary is no question of the table's columns.
                Err(_) if group.confirm != Confirm::Round => {}
                Err(why) => assert_eq!(found, [], "{words:?}: {why}"),
            }
        }
        assert_eq!(legal, 40);
        assert_eq!(used.len(), rows.len(), "no row is without a combination");
    }

    #[track_caller]
    fn refused(group: &GroupConfig, why: &str) {
        let said = group.validate().unwrap_err();
        assert!(said.contains(why), "{said}");
    }

    #[test]
    fn what_could_not_be_kept_is_refused_with_the_reason() {
        let never = Takeover::Never {
            primary: ReplicaId(2),
        };
        let alone = GroupConfig {
            takeover: never,
            ..group(Authority::Alone)
        };
        assert_eq!(alone.validate(), Ok(()));
        let with = |change: &dyn Fn(&mut GroupConfig)| {
            let mut group = alone.clone();
            change(&mut group);
            group
        };
        let stranger = Takeover::Never {
            primary: ReplicaId(3),
        };
        refused(&with(&|g| g.takeover = stranger), "not a member");
        refused(
            &with(&|g| g.authority = Authority::Witness),
            "goes with Authority::Alone",
        );
        refused(
            &with(&|g| g.confirm = lease(g)),
            "does not go with Takeover::Never",
        );
        let all = with(&|g| g.ack = Ack::All);
        assert_eq!(all.validate(), Ok(()));
        let elected = GroupConfig {
            takeover: Takeover::MostAdvanced,
            ..all
        };
        refused(&elected, "goes with Takeover::Never");
        refused(
            &with(&|g| g.visibility = Visibility::OnAppend),
            "goes with Ack::All and Takeover::Never",
        );
    }

    #[test]
    fn a_lease_is_neither_too_short_nor_too_long_and_no_clock_is_broken() {
        let with = |length: u64, drift_ppm_max| GroupConfig {
            confirm: Confirm::Lease {
                length: Duration::from_millis(length),
                drift_ppm_max,
            },
            ..group(Authority::Witness)
        };
        assert_eq!(with(300, 100).validate(), Ok(()));
        assert_eq!(with(100, 100_000).validate(), Ok(()));
        refused(&with(99, 100), "two heartbeats");
        refused(&with(301, 100), "longer than suspect_after");
        refused(&with(300, 100_001), "drift_ppm_max");
    }

    #[test]
    fn every_policy_is_part_of_the_hash() {
        let hashes: std::collections::BTreeSet<u64> =
            combinations().iter().map(GroupConfig::hash).collect();
        assert_eq!(hashes.len(), combinations().len());
    }
}
