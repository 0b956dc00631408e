//! The group's policies, as a part of a cell's name.

use crate::config::{Ack, Authority, Confirm, GroupConfig, Takeover, Transfer, Visibility};
use crate::id::ReplicaId;
use std::fmt;

/// [`Takeover`], whoever the fixed primary is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TakeoverKind {
    /// [`Takeover::MostAdvanced`].
    MostAdvanced,
    /// [`Takeover::OnClientRequest`].
    OnClientRequest,
    /// [`Takeover::Never`], with a member that the seed draws.
    Never,
}

/// [`Confirm`], with a lease that the seed draws.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConfirmKind {
    /// [`Confirm::Round`].
    Round,
    /// [`Confirm::Lease`]; the nodes' clocks run at different rates, within its bound.
    Lease,
}

/// What a group has chosen. The default is what [`GroupConfig::new`] chooses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Policy {
    /// See [`Takeover`].
    pub takeover: TakeoverKind,
    /// See [`Ack`].
    pub ack: Ack,
    /// See [`Visibility`].
    pub visibility: Visibility,
    /// See [`Confirm`].
    pub confirm: ConfirmKind,
    /// See [`Transfer`].
    pub transfer: Transfer,
}

impl Policy {
    /// What a group has that chooses nothing.
    pub const STANDARD: Self = Self {
        takeover: TakeoverKind::MostAdvanced,
        ack: Ack::AllInSync,
        visibility: Visibility::OnCommit,
        confirm: ConfirmKind::Round,
        transfer: Transfer::Concurrent,
    };

    /// Every combination that [`GroupConfig::validate`] lets pass with this authority.
    #[must_use]
    pub fn legal(authority: Authority) -> Vec<Self> {
        let mut all = Vec::new();
        for takeover in [
            TakeoverKind::MostAdvanced,
            TakeoverKind::OnClientRequest,
            TakeoverKind::Never,
        ] {
            for ack in [Ack::AllInSync, Ack::All, Ack::Primary] {
                for visibility in [Visibility::OnCommit, Visibility::OnAppend] {
                    for confirm in [ConfirmKind::Round, ConfirmKind::Lease] {
                        for transfer in [Transfer::Concurrent, Transfer::WorldStopped] {
                            all.push(Self {
                                takeover,
                                ack,
                                visibility,
                                confirm,
                                transfer,
                            });
                        }
                    }
                }
            }
        }
        all.retain(|policy| {
            let mut group = GroupConfig::new([ReplicaId(1), ReplicaId(2)], authority);
            let lease = Confirm::Lease {
                length: group.timing.suspect_after,
                drift_ppm_max: 100,
            };
            policy.choose(&mut group, ReplicaId(1), lease);
            group.validate().is_ok()
        });
        all
    }

    /// Writes it into a group's configuration.
    pub(super) fn choose(self, group: &mut GroupConfig, home: ReplicaId, lease: Confirm) {
        group.ack = self.ack;
        group.visibility = self.visibility;
        group.transfer = self.transfer;
        group.takeover = match self.takeover {
            TakeoverKind::MostAdvanced => Takeover::MostAdvanced,
            TakeoverKind::OnClientRequest => Takeover::OnClientRequest,
            TakeoverKind::Never => Takeover::Never { primary: home },
        };
        group.confirm = match self.confirm {
            ConfirmKind::Round => Confirm::Round,
            ConfirmKind::Lease => lease,
        };
    }
}

/// The words for what is not standard, joined by hyphens: `never-all-append`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let takeover = match self.takeover {
            TakeoverKind::MostAdvanced => None,
            TakeoverKind::OnClientRequest => Some("on-request"),
            TakeoverKind::Never => Some("never"),
        };
        let ack = match self.ack {
            Ack::AllInSync => None,
            Ack::All => Some("all"),
            Ack::Primary => Some("primary"),
        };
        let visibility = match self.visibility {
            Visibility::OnCommit => None,
            Visibility::OnAppend => Some("append"),
        };
        let confirm = match self.confirm {
            ConfirmKind::Round => None,
            ConfirmKind::Lease => Some("lease"),
        };
        let transfer = match self.transfer {
            Transfer::Concurrent => None,
            Transfer::WorldStopped => Some("stopped"),
        };
        let words: Vec<&str> = [takeover, ack, visibility, confirm, transfer]
            .into_iter()
            .flatten()
            .collect();
        f.write_str(&words.join("-"))
    }
}
