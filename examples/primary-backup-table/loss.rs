//! Whether the table is lost: in memory it lives as long as a server that had all of it runs.
//!
//! A server that starts again without its table waits for another one to give it. If none has it, or only an
//! older table than was acknowledged, they would wait for each other for ever; so the operator is told what is lost, as far as this server
//! knows, and what he can do. A pure function of what the servers say of themselves, and of what this one wrote down. It knows those
//! that it was told of, and not who may have been given a place while it was dead: it says so.

use super::roll::Answer;
use super::state_dir::Durability;
use kvrep_core::ReplicaId;
use kvrep_core::protocol::ProtocolStatus;
use std::fmt;

/// What is lost. Servers by where they listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// All that are known were asked, and have nothing either.
    Nobody { asked: Vec<String> },
    /// Nobody who answers has it.
    Silent {
        silent: Vec<String>,
        without: Vec<String>,
        /// What this server had when it ended, as far as its directory knows.
        last: Option<Last>,
    },
    /// This server had it as it was last; the one there has an older one.
    Older {
        at: String,
        silent: Vec<String>,
        last: Last,
    },
}

/// The table as it was last, which this server had and has no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// Where it had it.
    pub(super) durability: Durability,
    /// Who had it as well.
    pub(super) beside: Vec<String>,
    /// That is not known, for the record of it could not be written.
    pub(super) outdated: bool,
}

/// What the operator is to be told; nothing while somebody may still give this server the table.
pub(super) fn loss(me: &ProtocolStatus, last: Option<&Last>, answers: &[Answer]) -> Option<Loss> {
    let said = || {
        let said = answers.iter();
        said.filter_map(|a| Some((a, a.said.as_ref()?)))
    };
    // Nothing is lost of a table that has not begun.
    if !has_nothing(me)
        || answers.iter().any(|a| a.begins)
        || said().any(|(who, status)| may_serve(who.replica, status))
    {
        return None;
    }
    let silent = answers.iter().filter(|a| a.said.is_none());
    let silent: Vec<_> = silent.map(|a| a.address.clone()).collect();
    let without = said().filter(|(_, status)| has_nothing(status));
    let without: Vec<_> = without.map(|(who, _)| who.address.clone()).collect();
    let older = said().find(|(_, status)| !has_nothing(status));
    let is_known = last.is_some() || !without.is_empty();
    match (older, last) {
        (Some((who, _)), Some(last)) if silent.is_empty() => Some(Loss::Older {
            at: who.address.clone(),
            silent,
            last: last.clone(),
        }),
        // What it waits for it says itself.
        (Some(_), _) => None,
        (None, _) if silent.is_empty() => is_known.then_some(Loss::Nobody { asked: without }),
        (None, _) => is_known.then_some(Loss::Silent {
            silent,
            without,
            last: last.cloned(),
        }),
    }
}

impl Loss {
    /// In words. `heard`: when the server there was heard last, said of one that is silent.
    pub(super) fn told(&self, heard: impl Fn(&str) -> String) -> String {
        match self {
            Self::Nobody { asked } => {
                let others = match asked.as_slice() {
                    [] => "knows of no other".into(),
                    asked => format!("so was the server at {}", asked.join(", and the one at ")),
                };
                format!(
                    "nobody that this server knows of has the table any more: this one was started again without it, and {others}. {UNKNOWN}; if there is none, start one of them with --force to begin with an EMPTY table"
                )
            }
            Self::Silent {
                silent,
                without,
                last,
            } => {
                let silent = silent.iter().map(|at| format!("{at} ({})", heard(at)));
                let silent = each(&silent.collect::<Vec<_>>());
                let (what, may_have) = match (last, without.as_slice()) {
                    (Some(last), _) => (
                        last.to_string(),
                        "it may have the table, or an older one to go on with by --force there",
                    ),
                    (None, without) => (
                        format!("this server has no table, nor has {}", each(without)),
                        "it may have the table",
                    ),
                };
                format!(
                    "{what}. No answer comes from {silent}: see to it that it runs and can be reached, for {may_have}. {UNKNOWN}; if nobody has it, start this one, or one of those that answer, with --force to begin with an EMPTY table"
                )
            }
            Self::Older { at, silent, last } => {
                let silent = match silent.as_slice() {
                    [] => String::new(),
                    silent => format!(
                        "No answer comes from {}: see to that first, for it may have more. ",
                        each(silent)
                    ),
                };
                if last.outdated {
                    return format!(
                        "{last}. {silent}The server at {at} may have an older table: let a client ask that one; if it serves, this one joins it. If it says that it waits for this server, start it with --force to go on with what it has"
                    );
                }
                format!(
                    "{last}. {silent}The server at {at} has an older table: start that one with --force to go on with it, without what was written since; or stop that one, and start this one with --force to \
                     begin with an EMPTY table"
                )
            }
        }
    }
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it_was = match self.durability {
            Durability::Memory => "it was in its memory",
            Durability::Log => {
                "it was in its log, which is gone (stop this server and put the log back, if there is a copy),"
            }
        };
        if self.outdated {
            return write!(
                f,
                "who had the table last is not known, for that could not be written when this server ran: it may have been this one alone, and {it_was} when it ended"
            );
        }
        match self.beside.as_slice() {
            [] => write!(
                f,
                "the table is LOST as it was last, as far as this server knows: {it_was} alone when it ended, for the other one was DOWN"
            ),
            beside => write!(
                f,
                "this server has lost the table as it was last: {it_was} when it ended. The server at {} had it as well",
                beside.join(", and in the one at ")
            ),
        }
    }
}

/// It started without a table, and nobody has given it one.
pub(super) fn has_nothing(status: &ProtocolStatus) -> bool {
    status.configuration.is_none() && status.last.index.0 == 0 && status.primary.is_none()
}

/// Whether it serves, or had everything when that was last agreed on.
pub(super) fn may_serve(id: ReplicaId, status: &ProtocolStatus) -> bool {
    let agreed = status.configuration.as_ref();
    status.serving || status.primary.is_some() || agreed.is_some_and(|c| c.has(id, status.store))
}

/// Where one is that has the table, when nobody serves, and what it waits for.
pub(super) fn has_table(answers: &[Answer]) -> Option<(&str, &str)> {
    let said = || answers.iter().filter_map(|a| Some((a, a.said.as_ref()?)));
    if said().any(|(_, status)| status.serving) {
        return None;
    }
    let has = |(who, status): &(&Answer, &ProtocolStatus)| {
        !has_nothing(status) && may_serve(who.replica, status)
    };
    said()
        .find(has)
        .map(|(who, status)| (who.address.as_str(), status.waiting_for.as_str()))
}

/// Each of these servers, in words.
pub(super) fn each(at: &[String]) -> String {
    format!("the server at {}", at.join(", nor the one at "))
}

const UNKNOWN: &str = "Whether a server of which this one was never told has it, it does not know";

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::{Configuration, Departed, MemberKind, Origin, StoreId, Term, Version};

    fn status(store: u64, in_sync: Option<(u32, u64)>) -> ProtocolStatus {
        let configuration = in_sync.map(|(id, store)| Configuration {
            origin: Origin(1),
            term: Term::ZERO.next_for(ReplicaId(1)),
            version: Version(3),
            in_sync: [(ReplicaId(id), StoreId(store))].into(),
            members: [1, 2].map(|id| (ReplicaId(id), MemberKind::Full)).into(),
            departed: Departed::default(),
        });
        ProtocolStatus {
            configuration,
            ..ProtocolStatus::of_nothing(StoreId(store))
        }
    }

    fn answer(id: u32, said: Option<ProtocolStatus>) -> Answer {
        Answer {
            said,
            ..Answer::silent(ReplicaId(id), format!("h:{id}"))
        }
    }

    fn last() -> Last {
        Last {
            durability: Durability::Memory,
            beside: Vec::new(),
            outdated: false,
        }
    }

    fn told(loss: &Option<Loss>) -> String {
        loss.as_ref().expect("a loss").told(|_| "not heard".into())
    }

    /// A1.6: the last one that had the table in its memory comes back without it, and says what is lost and what to do.
    #[test]
    fn the_last_one_that_had_the_table_is_told_that_it_is_lost() {
        let (empty, last) = (status(10, None), last());
        let other = |status: ProtocolStatus, last| loss(&empty, last, &[answer(2, Some(status))]);
        let silent = [answer(2, None)];
        let alone = loss(&empty, Some(&last), &silent);
        assert!(
            told(&alone).contains("memory alone when it ended"),
            "{alone:?}"
        );
        assert_eq!(loss(&empty, None, &silent), None);
        for was_last in [Some(&last), None] {
            let nobody = other(status(20, None), was_last);
            assert!(
                told(&nobody).contains("so was the server at h:2"),
                "{nobody:?}"
            );
            // It counts, with the storage that it has: it will serve.
            assert_eq!(other(status(20, Some((2, 20))), was_last), None);
        }
        let at = "h:2".into();
        assert_eq!(
            other(status(20, Some((1, 10))), Some(&last)),
            Some(Loss::Older {
                at,
                silent: Vec::new(),
                last: last.clone(),
            })
        );
        assert_eq!(other(status(20, Some((1, 10))), None), None);
        let mut begins = answer(2, Some(status(20, None)));
        begins.begins = true;
        assert_eq!(loss(&empty, None, &[begins]), None);
        // Whoever has been given a table has lost none.
        assert_eq!(loss(&status(10, Some((1, 10))), Some(&last), &silent), None);
    }

    /// Not while a third server has it, or may have it.
    #[test]
    fn nobody_is_said_to_have_the_table_only_when_all_that_are_known_have_said_so() {
        let (empty, last) = (status(10, None), last());
        let without = || answer(2, Some(status(20, None)));
        let third = answer(3, Some(status(30, Some((3, 30)))));
        let has = [without(), third];
        assert_eq!(loss(&empty, Some(&last), &has), None);
        assert_eq!(has_table(&has), Some(("h:3", "")));
        assert_eq!(has_table(&[without()]), None);
        let unheard = loss(&empty, None, &[without(), answer(3, None)]);
        let unheard = told(&unheard);
        assert!(!unheard.contains("nobody that"), "{unheard}");
        for words in [
            "the server at h:3 (not heard)",
            "nor has the server at h:2",
            "never told",
        ] {
            assert!(unheard.contains(words), "{words}: {unheard}");
        }
        let all = [without(), answer(3, Some(status(30, None)))];
        let nobody = told(&loss(&empty, None, &all));
        assert!(nobody.contains("h:2, and the one at h:3"), "{nobody}");
        assert!(nobody.contains("never told"), "{nobody}");
    }
}
