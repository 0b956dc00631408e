//! What an operator of the store is told: the library's sentences in the words of this program, which knows nodes by their
//! `host:port`, a directory and a few options, and neither replicas' ids nor the library's types.

use super::place::Place;
use crate::common::operator::{reworded, sets_of_one_opened};
use crate::document_store::cli::remote::ask;
use crate::document_store::wire::Response;
use kvrep_transport_tcp::codec::Refusal;
use kvrep_transport_tcp::{Unreachable, Way};
use serde_json::Value as Json;
use std::time::Duration;
use tokio::time::Instant;

/// A sentence of the library, at the node at `place`.
#[must_use]
pub fn plainly(place: Place, text: &str) -> String {
    reworded(&place.named(&sets_of_one_opened(text)), &PHRASES)
}

/// What the nodes of a store must have been started with alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alike {
    /// `--witness`.
    pub witness: Option<String>,
    /// `--nodes-max`.
    pub nodes_max: usize,
}

impl Alike {
    fn of(status: &Json) -> Option<Self> {
        let nodes_max = status["nodes_max"].as_u64()?;
        Some(Self {
            witness: status["witness"].as_str().map(ToOwned::to_owned),
            nodes_max: usize::try_from(nodes_max).ok()?,
        })
    }

    /// Which option differs, and how, in the words of the node that is refused.
    fn differs_from(&self, theirs: &Self) -> String {
        let said = |witness: &Option<String>| match witness {
            Some(at) => format!("--witness {at}"),
            None => "no --witness".into(),
        };
        let mut differ = Vec::new();
        if self.witness.is_some() != theirs.witness.is_some() {
            differ.push((said(&theirs.witness), said(&self.witness)));
        }
        if self.nodes_max != theirs.nodes_max {
            let said = |nodes_max| format!("--nodes-max {nodes_max}");
            differ.push((said(theirs.nodes_max), said(self.nodes_max)));
        }
        let words = differ
            .iter()
            .map(|(theirs, mine)| format!("it was started with {theirs}, this one with {mine}"));
        let words: Vec<String> = words.collect();
        if words.is_empty() {
            "it is of another version of this program: run the same everywhere".into()
        } else {
            words.join("; ") + ". Start all nodes of a store with the same"
        }
    }
}

/// Why another node, or the witness, cannot be reached, and what to do. Asks the other node what it was started with, where
/// that is the reason.
pub async fn unreachable(place: Place, mine: &Alike, trouble: Unreachable) -> String {
    let address = &trouble.address;
    if let Way::Back { cause } = trouble.way {
        let other = place.of(trouble.peer);
        return format!(
            "{other} hears this node, and cannot reach it at {address} to answer ({cause}): say with --advertise HOST:PORT where the others reach this one, or open the way there"
        );
    }
    match &trouble.refusal {
        Some(Refusal::OtherConfiguration { .. }) => {
            let status = ask(address, r#"["status"]"#, Instant::now() + ASKED_WITHIN).await;
            let theirs = match status {
                Ok(Response::Ok(status)) => serde_json::from_str(&status).ok(),
                Ok(Response::Ko(_)) | Err(_) => None,
            };
            let how = match theirs.as_ref().and_then(Alike::of) {
                Some(theirs) => mine.differs_from(&theirs),
                None => "it was started with another --witness or --nodes-max. Start all nodes of a store with the same".into(),
            };
            format!("the node at {address} refuses this one: {how}")
        }
        Some(Refusal::OtherGroup { .. }) => format!(
            "what listens at {address} is not of a document store: correct the address (a witness of a store is started with --group {})",
            super::group::GROUP
        ),
        Some(_) | None => plainly(place, &format!("{address}: {}", trouble.why)),
    }
}

/// The library's words, and ours. Longer ones come first.
const PHRASES: [(&str, &str); 25] = [
    (
        "its register is empty, so THE WITNESS HAS LOST WHAT THIS GROUP RECORDED",
        "THE WITNESS HAS LOST WHAT THIS STORE RECORDED, for its register is empty",
    ),
    (
        "its register is an old one, so THE WITNESS HAS LOST WHAT THIS GROUP RECORDED",
        "THE WITNESS HAS LOST WHAT THIS STORE RECORDED last, for its register is an old one",
    ),
    (
        "no primary has answered; check their addresses, and that they run",
        "no leader has answered: check the address, and that it runs",
    ),
    (
        "no primary has answered, only",
        "no leader has answered, only",
    ),
    (
        "While the other replicas have the data, let this one set the damaged files aside (OnCorruption::SetAside) or move the directory away; it then rejoins as a new member and fetches everything from the group. Otherwise restore the directory from a copy",
        "If another node has the data, move this node's directory away and start it with that node as its leader: it gets everything from there. Otherwise restore the directory from a copy",
    ),
    (
        "was forced to begin this group anew, without what this replica has. That is given up, and this replica gets a copy of what is there now",
        "was started with --force and goes on without what this node has: that is given up (it is set aside in the log's directory), and this node gets a copy of the store there",
    ),
    (
        "was forced to begin this group anew, without this replica, whose data are those from before. They stay where they are; to join that group, start this replica with an empty storage",
        "was started with --force and goes on without this node, whose store is an older one and is served no more. What is in its directory stays; to follow that node, start this one on another path, with that node's HOST:PORT behind its own",
    ),
    (
        "stop it, or start it again to join",
        "stop it, or start it again with the leader's HOST:PORT behind its own to join",
    ),
    (
        " lives: stop it, or remove it first",
        " lives: stop it first, and then remove it (docstore-cli: rmnode HOST:PORT)",
    ),
    (
        "as many as allowed; remove or replace one first",
        "as many as may be (--nodes-max), and none of them is dead; remove one: docstore-cli, rmnode HOST:PORT",
    ),
    (
        "the group does not let it in: the group has",
        "the store does not let it in: it has",
    ),
    (
        "start the replica that has most with force, and then the others",
        "start the node that has most with --force, and then the others",
    ),
    (
        "stop all replicas when it suits, start this one with force",
        "stop all nodes when it suits, start this one with --force",
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
        "start this replica without force",
        "start it without --force",
    ),
    ("the last in-sync set", "those that were active last,"),
    ("in-sync set", "active nodes"),
    ("a group without a witness", "a store without a witness"),
    ("its group", "its store"),
    ("the group", "the store"),
    ("this group", "this store"),
    ("replicas", "nodes"),
    ("replica", "node"),
];
const ASKED_WITHIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(witness: Option<&str>, nodes_max: usize) -> Alike {
        Alike {
            witness: witness.map(ToOwned::to_owned),
            nodes_max,
        }
    }

    #[test]
    fn an_operator_hears_of_nodes_and_options_and_of_no_ids_or_types() {
        let place = Place::find("127.0.0.1:8000").expect("a place");
        let id = place.replica().expect("an id");
        for sentence in [
            format!("this replica is not in the last in-sync set {{{id}}} (version 3, decided by {id} in term 2); one of those must return, or start this one with force (writes may be lost)"),
            format!("restarted without a witness: all of {{{id}}} (version 2, decided by {id} in term 1) must be heard; missing: [{id}]. Start them, or start this replica with force"),
            "the group does not let it in: the group has 64 members, as many as allowed; remove or replace one first".into(),
            format!("{id} was forced to begin this group anew, without what this replica has. That is given up, and this replica gets a copy of what is there now"),
            format!("stopped: {id} was forced to begin this group anew, without this replica, whose data are those from before. They stay where they are; to join that group, start this replica with an empty storage"),
            "log/7 is damaged at byte 3: x. While the other replicas have the data, let this one set the damaged files aside (OnCorruption::SetAside) or move the directory away; it then rejoins as a new member and fetches everything from the group. Otherwise restore the directory from a copy".into(),
        ] {
            let told = plainly(place, &sentence);
            for theirs in ["::", "replica", "with force", "members_max", "in-sync", &id.to_string()] {
                assert!(!told.contains(theirs), "{theirs} in {told}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_option_that_differs() {
        let mine = alike(Some("w:7000"), 64);
        let told = mine.differs_from(&alike(None, 64));
        assert!(
            told.contains("with no --witness, this one with --witness w:7000"),
            "{told}"
        );
        assert!(!told.contains("--nodes-max"), "{told}");
        let told = mine.differs_from(&alike(Some("w:7000"), 3));
        assert!(
            told.contains("with --nodes-max 3, this one with --nodes-max 64"),
            "{told}"
        );
        assert!(!told.contains("--witness"), "{told}");
        assert!(mine.differs_from(&mine).contains("version"));
    }
}
