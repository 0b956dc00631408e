//! What a server says on its console when its role changes, or the other server's state: one line each.
//!
//! What comes and goes within a moment is not told: between two states that are told lies whatever it takes to get there. That a
//! server waits, and for what, is told by the library's own sentences; that a server has become secondary for the first
//! time, by whoever waits for its table.

use kvrep_core::ReplicaId;
use kvrep_core::protocol::{ProtocolStatus, Role};

/// What a server was told of last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Known {
    /// Neither primary nor secondary since it was started.
    #[default]
    Nothing,
    /// It serves; the secondary that has everything, if there is one.
    Primary(Option<ReplicaId>),
    /// It was primary.
    WasPrimary,
    /// It has the whole table of this primary.
    Secondary(ReplicaId),
    /// It has the whole table of a primary that it does not hear, and waits for a client that asks it.
    Forsaken(ReplicaId),
}

impl Known {
    /// What is new, if something is. `name`: what a server is called.
    pub(super) fn news(
        &mut self,
        me: ReplicaId,
        status: &ProtocolStatus,
        name: impl Fn(ReplicaId) -> String,
    ) -> Option<String> {
        let now = self.next(me, status)?;
        let before = std::mem::replace(self, now);
        if before == now {
            return None;
        }
        match (before, now) {
            (Known::Primary(None), Known::Primary(Some(up))) => {
                Some(format!("o secundário, {}, está UP", name(up)))
            }
            (Known::Primary(Some(down)), Known::Primary(None)) => Some(format!(
                "o secundário, {}, está DOWN: este servidor continua sozinho",
                name(down)
            )),
            (Known::Primary(Some(_)), Known::Primary(Some(up))) => {
                Some(format!("o secundário é agora {}", name(up)))
            }
            (_, Known::Primary(other)) => {
                let other = if other.is_some() { "UP" } else { "DOWN" };
                Some(format!(
                    "este servidor é agora o primário; o secundário está {other}"
                ))
            }
            (_, Known::WasPrimary) => Some("este servidor deixou de ser o primário".into()),
            (Known::WasPrimary | Known::Primary(_), Known::Secondary(primary)) => Some(format!(
                "este servidor é agora o secundário, pois foi substituído: o primário é {}",
                name(primary)
            )),
            (_, Known::Forsaken(primary)) => {
                Some(format!("o primário, {}, não responde", name(primary)))
            }
            (Known::Forsaken(before), Known::Secondary(primary)) if before == primary => {
                Some(format!("o primário, {}, responde outra vez", name(primary)))
            }
            (Known::Secondary(_) | Known::Forsaken(_), Known::Secondary(primary)) => {
                Some(format!("o primário é agora {}", name(primary)))
            }
            (Known::Nothing, Known::Secondary(_)) | (_, Known::Nothing) => None,
        }
    }

    /// What it is by now; nothing while it is on its way.
    fn next(self, me: ReplicaId, status: &ProtocolStatus) -> Option<Self> {
        let agreed = status.configuration.as_ref();
        match (status.role, status.primary) {
            (Role::Primary, _) if status.serving => {
                let ids = agreed.into_iter().flat_map(|c| c.in_sync.keys());
                Some(Known::Primary(ids.copied().find(|id| *id != me)))
            }
            (Role::Backup, Some(primary)) if agreed.is_some_and(|c| c.has(me, status.store)) => {
                Some(Known::Secondary(primary))
            }
            (Role::Seeking | Role::Backup, _) if matches!(self, Known::Primary(_)) => {
                Some(Known::WasPrimary)
            }
            // Why, and what is to be done, the library says.
            (Role::Seeking, None) if !status.waiting_for.is_empty() => match self {
                Known::Secondary(primary) => Some(Known::Forsaken(primary)),
                Known::Nothing | Known::Primary(_) | Known::WasPrimary | Known::Forsaken(_) => None,
            },
            (Role::Primary | Role::Seeking | Role::Candidate | Role::Backup | Role::Witness, _) => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::{Configuration, Departed, MemberKind, Origin, StoreId, Term, Version};

    const ME: ReplicaId = ReplicaId(1);

    fn status(role: Role, primary: Option<u32>, in_sync: &[u32]) -> ProtocolStatus {
        ProtocolStatus {
            role,
            primary: primary.map(ReplicaId),
            serving: role == Role::Primary,
            configuration: Some(Configuration {
                origin: Origin(1),
                term: Term::ZERO.next_for(ME),
                version: Version(1),
                in_sync: in_sync
                    .iter()
                    .map(|id| (ReplicaId(*id), StoreId(1)))
                    .collect(),
                members: [1, 9].map(|id| (ReplicaId(id), MemberKind::Full)).into(),
                departed: Departed::default(),
            }),
            ..ProtocolStatus::of_nothing(StoreId(1))
        }
    }

    #[test]
    fn a_primary_that_is_silent_and_answers_again_is_said_to() {
        let mut known = Known::default();
        let mut told = |role, primary, waiting_for: &str| {
            let status = ProtocolStatus {
                waiting_for: waiting_for.into(),
                ..status(role, primary, &[1, 9])
            };
            known.news(ME, &status, |id| format!("<{}>", id.0))
        };
        assert_eq!(told(Role::Backup, Some(9), ""), None);
        let silent = told(Role::Seeking, None, "it is gone").expect("silent");
        assert!(silent.contains("<9>, não responde"), "{silent}");
        assert_eq!(told(Role::Seeking, None, "it is gone"), None);
        let back = told(Role::Backup, Some(9), "").expect("back");
        assert!(back.contains("<9>, responde outra vez"), "{back}");
        let silent = told(Role::Seeking, None, "it is gone").expect("silent");
        assert!(silent.contains("não responde"), "{silent}");
        let takes = told(Role::Primary, Some(1), "").expect("primary");
        assert!(takes.contains("é agora o primário"), "{takes}");
    }

    #[test]
    fn every_change_is_told_once_and_what_lies_between_is_not() {
        let mut known = Known::default();
        let mut told = |role, primary, in_sync: &[u32]| {
            known.news(ME, &status(role, primary, in_sync), |id| {
                format!("<{}>", id.0)
            })
        };
        assert_eq!(told(Role::Seeking, None, &[]), None);
        let first = told(Role::Primary, Some(1), &[1]).expect("primary");
        assert!(first.contains("é agora o primário"), "{first}");
        assert_eq!(told(Role::Primary, Some(1), &[1]), None);
        let up = told(Role::Primary, Some(1), &[1, 9]).expect("UP");
        assert!(up.contains("<9>, está UP"), "{up}");
        let down = told(Role::Primary, Some(1), &[1]).expect("DOWN");
        assert!(down.contains("<9>, está DOWN"), "{down}");
        let gone = told(Role::Seeking, None, &[9]).expect("it is not primary any more");
        assert!(gone.contains("deixou de ser"), "{gone}");
        // It follows, and has not everything yet.
        assert_eq!(told(Role::Backup, Some(9), &[9]), None);
        let replaced = told(Role::Backup, Some(9), &[1, 9]).expect("secondary");
        assert!(replaced.contains("o primário é <9>"), "{replaced}");
        assert_eq!(told(Role::Seeking, None, &[1, 9]), None);
        // As long as nobody was told why.
        assert_eq!(told(Role::Backup, Some(9), &[1, 9]), None);
        let again = told(Role::Primary, Some(1), &[1]).expect("primary");
        assert!(again.contains("o secundário está DOWN"), "{again}");
    }
}
