//! What an operator of the table is told: the library's sentences in the words of this program, which knows two servers and a
//! few options, and neither replicas' ids nor the library's types.

use crate::common::operator::{Said, reworded, with_names};
use kvrep_core::ReplicaId;
use kvrep_transport_tcp::Unreachable;
use kvrep_transport_tcp::codec::Refusal;
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// Whom a server talks of.
#[derive(Debug)]
pub struct Words {
    me: ReplicaId,
    /// The other server's address, as it is known at the start.
    other: Option<String>,
    has_witness: bool,
    said: Mutex<Said>,
}

impl Words {
    /// Of this server. `other`: where the other one is, if that is known; `witness`, too.
    #[must_use]
    pub fn new(me: ReplicaId, other: Option<String>, witness: Option<&str>) -> Self {
        Self {
            me,
            other,
            has_witness: witness.is_some(),
            said: Mutex::default(),
        }
    }

    /// A sentence of the library.
    #[must_use]
    pub fn plainly(&self, text: &str) -> String {
        let named = with_names(text, |id| self.name(id));
        reworded(&named, &PHRASES)
    }

    fn name(&self, id: ReplicaId) -> String {
        if id == self.me {
            "this server".into()
        } else {
            match &self.other {
                Some(address) => format!("the other server ({address})"),
                None => "the other server".into(),
            }
        }
    }

    /// Why the other server, or the witness, cannot be reached, and what to do; `None` if that was said lately.
    #[must_use]
    pub fn unreachable(&self, trouble: &Unreachable) -> Option<String> {
        let why = self.why_unreachable(trouble);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.is_news(&why, Instant::now()).then_some(why)
    }

    fn why_unreachable(&self, trouble: &Unreachable) -> String {
        let address = &trouble.address;
        match &trouble.refusal {
            Some(Refusal::OtherConfiguration { .. }) => {
                let (mine, theirs) = if self.has_witness {
                    ("with", "without")
                } else {
                    ("without", "with")
                };
                format!(
                    "the server at {address} refuses this one, for it was started {theirs} --witness and this one {mine}: give both servers the same --witness, or none (or it is another version of this program)"
                )
            }
            Some(Refusal::OtherGroup { .. }) => format!(
                "what listens at {address} is not of this table: correct the address (a witness of a table is started with --group {})",
                super::policy::GROUP
            ),
            Some(_) | None => self.plainly(&format!("{address}: {}", trouble.why)),
        }
    }
}

/// The library's words, and ours. Longer ones come first.
const PHRASES: [(&str, &str); 16] = [
    (
        "While the other replicas have the data, let this one set the damaged files aside (OnCorruption::SetAside) or move the directory away; it then rejoins as a new member and fetches everything from the group",
        "If the other server has the table, move the log away, and this one gets everything from there",
    ),
    (
        "the group does not let it in: the group has 2 members, as many as allowed; remove or replace one first",
        "the table does not let it in, for it has its two servers: this one waits until one of them is dead, and takes its place",
    ),
    (
        "the group does not let it in: ",
        "the table does not let it in: ",
    ),
    (
        "restarted without a witness: all of",
        "after a restart every server that had the whole table must be there: of",
    ),
    (
        "start one replica with force",
        "start one of them with --force",
    ),
    (
        "start this replica with force",
        "start this one with --force",
    ),
    ("start this one with force", "start it with --force"),
    (
        "start the replica that has most with force, and then the others",
        "start the server that has most with --force, and then the other one",
    ),
    (
        "stop all replicas when it suits, start this one with force, and then the others",
        "stop both servers when it suits, start this one with --force, and then the other one. WITHOUT --durable THE TABLE IS LOST BY THAT: read it out with a client first",
    ),
    (
        "start this replica without force",
        "start it without --force",
    ),
    ("this replica", "this server"),
    (
        "the last in-sync set ",
        "the last servers that had the whole table: ",
    ),
    ("in-sync set", "servers that have the whole table"),
    ("a group without a witness", "a table without a witness"),
    ("this group", "this table"),
    ("replica", "server"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(witness: Option<&str>) -> Words {
        Words::new(ReplicaId(1), Some("h:5001".into()), witness)
    }

    /// Sentences as the library says them.
    const SENTENCES: [&str; 6] = [
        "this replica is not in the last in-sync set {n4711} (version 3, decided by n4711 in term 2); one of those must return, or start this one with force (writes may be lost)",
        "no holder of the state remains: [n1] had it and came back without. Restore a copy, or start one replica with force",
        "restarted without a witness: all of {n1, n4711} (version 2, decided by n1 in term 1) must be heard; missing: [n4711]. Start them, or start this replica with force",
        "the group does not let it in: the group has 2 members, as many as allowed; remove or replace one first",
        "n4711 is primary and answers: nothing is forced; start this replica without force",
        "the primary is gone and no client has asked for a write or a linearizable read since: nobody takes over before",
    ];

    #[test]
    fn an_operator_hears_of_servers_and_options_and_of_no_ids_or_types() {
        for sentence in SENTENCES {
            let told = words(None).plainly(sentence);
            for theirs in [
                "::",
                "n1",
                "n4711",
                "replica",
                "with force",
                "members_max",
                "in-sync",
            ] {
                assert!(!told.contains(theirs), "{theirs} in {told}");
            }
        }
        let told = words(None).plainly(SENTENCES[2]);
        assert!(told.contains("the other server (h:5001)"), "{told}");
        assert!(told.contains("--force"), "{told}");
    }
}
