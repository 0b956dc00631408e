//! What an operator of the table is told: the library's sentences in the words of this program, which knows two servers and a
//! few options, and neither replicas' ids nor the library's types.

use super::state_dir::Durability;
use crate::common::operator::{Said, reworded, sets_of_one_opened, with_names};
use kvrep_core::ReplicaId;
use kvrep_core::node::LinkError;
use kvrep_transport_tcp::codec::Refusal;
use kvrep_transport_tcp::{Unreachable, Way};
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// Whom a server talks of.
pub struct Words {
    me: ReplicaId,
    durability: Durability,
    has_witness: bool,
    /// The witness of a table that begins.
    begins_with: Option<String>,
    address_of: Box<dyn Fn(ReplicaId) -> Option<String> + Send + Sync>,
    said: Mutex<Said>,
}

impl Words {
    /// Of this server. `address_of`: where others are, as far as that is known when they are talked of.
    #[must_use]
    pub fn new(
        (me, durability): (ReplicaId, Durability),
        witness: Option<&str>,
        address_of: impl Fn(ReplicaId) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            me,
            durability,
            has_witness: witness.is_some(),
            begins_with: None,
            address_of: Box::new(address_of),
            said: Mutex::default(),
        }
    }

    /// The table begins here, with this witness: one that knows a table already knows another one.
    #[must_use]
    pub fn begins_with(mut self, witness: Option<&str>) -> Self {
        self.begins_with = witness.map(str::to_owned);
        self
    }

    /// A sentence of the library.
    #[must_use]
    pub fn plainly(&self, text: &str) -> String {
        if let Some(witness) = &self.begins_with
            && let Some((before, _)) = KNOWS_OTHERS.iter().find_map(|what| text.split_once(what))
        {
            return format!(
                "{before}this server was to begin a table, and the witness at {witness} knows one already: it is the witness of another table (correct --witness), or this server had that table in another directory (start it there, or with --data). A table of its own needs a witness of its own"
            );
        }
        // Which numbers they are says nothing to him.
        if let Some((before, _)) = text.split_once(ANOTHERS_LOG) {
            // What the library advises beside it, another directory, would be an EMPTY table.
            let before = before
                .strip_suffix(" (")
                .map_or(before.into(), |b| format!("{b}: "));
            let before = reworded(&before, &PHRASES);
            return format!(
                "{before}it is the log of this server as it was before server.json beside it was lost, or of another server: put server.json back; if it is lost, and another server has the table, move the directory away and start this server with that one's address"
            );
        }
        let named = with_names(&sets_of_one_opened(text), |id| self.name(id));
        let safe = match self.durability {
            Durability::Log => named,
            Durability::Memory => reworded(&named, &IN_MEMORY),
        };
        reworded(&safe, &PHRASES)
    }

    /// A sentence of the library as another server says it of itself.
    #[must_use]
    pub fn of_another(&self, text: &str) -> String {
        let said = self.plainly(&text.replace("this replica", "that server"));
        said.replace("with force", "with --force")
    }

    /// Where a server is, for a line in the language of the console.
    pub(super) fn address(&self, id: ReplicaId) -> String {
        (self.address_of)(id).unwrap_or_else(|| "outro servidor".into())
    }

    /// There may have been a third server, so "the other one" would not do.
    fn name(&self, id: ReplicaId) -> String {
        if id == self.me {
            return "this server".into();
        }
        match (self.address_of)(id) {
            Some(address) => format!("the server at {address}"),
            None => "another server".into(),
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
        if let Way::Back { cause } = trouble.way {
            let other = self.name(trouble.peer);
            return format!(
                "{other} hears this server, and cannot reach it at {address} to answer ({cause}): say with --advertise HOST:PORT where the other server reaches this one, or open the way there"
            );
        }
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

/// Whether this sentence of the library says no more than that this server asks to be let in, and that nobody does it.
pub(super) fn only_asks(sentence: &str) -> bool {
    sentence.contains("to let it join, and no primary has answered")
}

/// Whether a server that says this takes over as soon as a client asks it.
pub(super) fn awaits_client(sentence: &str) -> bool {
    sentence.contains("no client has asked")
        || sentence.contains("takes over as soon as a client asks")
}

/// Why nobody at `address` says who it is.
pub(super) fn unheard(address: &str, error: &LinkError) -> String {
    match error {
        LinkError::NotSent(why) | LinkError::Lost(why) => why.clone(),
        LinkError::Hopeless(why) if why.contains("belongs to another group") => {
            format!("what listens at {address} is no table-server: correct the address")
        }
        LinkError::Hopeless(why) => format!("{why}; correct the address"),
        other => other.to_string(),
    }
}

/// What a replica finds that was to begin a group, at a witness that knows one without it.
const KNOWS_OTHERS: [&str; 2] = [
    "no holder of the state remains",
    "it was removed from the group",
];

/// How the library says that a log is another replica's.
const ANOTHERS_LOG: &str = "it belongs to replica ";

/// Advice that is good where there is a log, and would lose a table that is in memory. Longer ones come first.
const IN_MEMORY: [(&str, &str); 3] = [
    (
        "start the replica that has most with force, and then the others",
        "note that the table is in memory only, so EVERY SERVER THAT ENDS LOSES ITS COPY, and --force would begin with an EMPTY table: type print at the server that has the table and keep what it shows; then stop both servers, start one with --force and then the other one, and put the entries back with a client",
    ),
    (
        "stop all replicas when it suits, start this one with force, and then the others",
        "note that the table is in memory only, so EVERY SERVER THAT ENDS LOSES ITS COPY, and --force would begin with an EMPTY table: read the table out with a client (getkeys, get) while this server serves; then stop both servers, start this one with --force and then the other one, and put the entries back",
    ),
    (
        "If the directory that this replica had is there still, stop it and start it with that one",
        "Nothing of it was in its directory: leave it running, and it gets a copy",
    ),
];

/// The library's words, and ours. Longer ones come first.
const PHRASES: [(&str, &str); 28] = [
    (
        "its register is empty, so THE WITNESS HAS LOST WHAT THIS GROUP RECORDED",
        "THE WITNESS HAS LOST WHAT THIS TABLE RECORDED, for its register is empty",
    ),
    (
        "its register is an old one, so THE WITNESS HAS LOST WHAT THIS GROUP RECORDED",
        "THE WITNESS HAS LOST WHAT THIS TABLE RECORDED last, for its register is an old one",
    ),
    (
        "no primary has answered; check their addresses, and that they run",
        "no primary has answered: check the address, and that it runs",
    ),
    (
        "no primary has answered, only",
        "no server that serves has answered, only",
    ),
    (
        "knows this group as one to which this replica belonged before, with another storage: this replica began it anew, with nothing, and serves no more. Whoever has what the group had goes on with it; what was written here since is given up then",
        "has the table of this pair: this server belonged to it before, with another directory or memory; it was started as if for the first time, with an EMPTY table, which it serves no more. The one that has the table goes on with it as soon as a client asks; what was written here since is LOST then",
    ),
    (
        "was forced to begin this group anew, without what this replica has. That is given up, and this replica gets a copy of what is there now",
        "was started with --force and goes on without what this server has: that is LOST, and this server gets a copy of the table there",
    ),
    (
        "was forced to begin this group anew, without this replica, whose data are those from before. They stay where they are; to join that group, start this replica with an empty storage",
        "was started with --force and goes on without this server, whose table is an older one and is served no more. What is in its directory stays; to become the secondary there, start this server with another directory (--data) and that server's address",
    ),
    (
        "If the directory that this replica had is there still, stop it and start it with that one",
        "If its directory is there still, stop it and start it with that one (--data)",
    ),
    (
        " has begun anew, with nothing of what this group had. This replica has that, and takes over as soon as a client asks it for a write or a linearizable read",
        " was started without the table (which was in its memory only, or it was started in another directory), and does not count. This server has the table, and serves as soon as a client asks it",
    ),
    (
        " has what the group had, and takes over as soon as a client asks for a write or a linearizable read; this replica has nothing that counts, and follows it then",
        " has the table, and serves it as soon as a client asks; this server has nothing that counts, and gets a copy then",
    ),
    (
        "the primary is gone and no client has asked for a write or a linearizable read since: nobody takes over before",
        "the primary is gone; this server takes over as soon as a client asks it for anything",
    ),
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
        " lives: stop it, or remove it first",
        " has its other place, and lives: this one waits until that one is dead, and takes its place",
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
        "stop both servers when it suits, start this one with --force, and then the other one",
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

    /// Of the first server of a pair whose second one is n4711; where a third one is is not known.
    fn words(durability: Durability) -> Words {
        Words::new((ReplicaId(1), durability), None, |id| {
            (id == ReplicaId(4_711)).then(|| "h:5001".into())
        })
    }

    /// Sentences as the library says them.
    const SENTENCES: [&str; 12] = [
        "this replica is not in the last in-sync set {n4711} (version 3, decided by n4711 in term 2); one of those must return, or start this one with force (writes may be lost)",
        "no holder of the state remains: [n1] had it and came back without. Restore a copy, or start one replica with force",
        "restarted without a witness: all of {n1, n4711} (version 2, decided by n1 in term 1) must be heard; missing: [n4711]. Start them, or start this replica with force",
        "the group does not let it in: the group has 2 members, as many as allowed; remove or replace one first",
        "n4711 is primary and answers: nothing is forced; start this replica without force",
        "the primary is gone and no client has asked for a write or a linearizable read since: nobody takes over before",
        "n4711 has begun anew, with nothing of what this group had. This replica has that, and takes over as soon as a client asks it for a write or a linearizable read",
        "n4711 has what the group had, and takes over as soon as a client asks for a write or a linearizable read; this replica has nothing that counts, and follows it then",
        "n4711 knows this group as one to which this replica belonged before, with another storage: this replica began it anew, with nothing, and serves no more. Whoever has what the group had goes on with it; what was written here since is given up then. If the directory that this replica had is there still, stop it and start it with that one",
        "n4711 was forced to begin this group anew, without what this replica has. That is given up, and this replica gets a copy of what is there now",
        "stopped: n4711 was forced to begin this group anew, without this replica, whose data are those from before. They stay where they are; to join that group, start this replica with an empty storage",
        WITNESS_EMPTY,
    ];
    const WITNESS_EMPTY: &str = "the witness has an empty register, but this group was in {n1, n4711} (version 2, decided by n1 in term 1): it was started with another directory than before, and has lost what was recorded. Start it with the directory that it had; if that is lost, start the replica that has most with force, and then the others";
    const REGISTER_LOST: &str = "Start it with the directory that it had; if that is lost, stop all replicas when it suits, start this one with force, and then the others";

    #[test]
    fn an_operator_hears_of_servers_and_options_and_of_no_ids_or_types() {
        for durability in [Durability::Memory, Durability::Log] {
            for sentence in SENTENCES {
                let told = words(durability).plainly(sentence);
                for theirs in [
                    "::",
                    "n1",
                    "n4711",
                    "replica",
                    "with force",
                    "members_max",
                    "in-sync",
                    "linearizable",
                ] {
                    assert!(!told.contains(theirs), "{theirs} in {told}");
                }
            }
        }
        let told = words(Durability::Log).plainly(SENTENCES[2]);
        assert!(told.contains("the server at h:5001"), "{told}");
        assert!(told.contains("--force"), "{told}");
    }

    /// The directory has its log and lost its record.
    #[test]
    fn a_log_of_another_number_is_told_without_numbers_and_with_what_to_do() {
        let why = "d/log is not the data of this replica (it belongs to replica n4711 of group 00ff; this is n1 of group 00ff): choose another directory";
        let told = words(Durability::Log).plainly(why);
        assert!(
            told.starts_with("d/log is not the data of this server: it is the log"),
            "{told}"
        );
        for theirs in [
            "of group",
            "another server of",
            "n1",
            "replica",
            "(",
            "choose",
        ] {
            assert!(!told.contains(theirs), "{told}");
        }
        assert!(told.contains("put server.json back"), "{told}");
    }

    /// Three servers may have been involved: the second, a third that took its place, and this one.
    #[test]
    fn each_server_is_called_by_its_own_address_and_a_third_one_is_not_taken_for_the_second() {
        let told = words(Durability::Log).plainly("n4711, n9 and n1");
        assert_eq!(told, "the server at h:5001, another server and this server");
    }

    /// The witness of another table is none that this server could take over.
    #[test]
    fn a_first_start_with_a_witness_that_knows_a_table_is_not_told_to_use_force() {
        let words = words(Durability::Memory).begins_with(Some("h:7000"));
        let told = words.plainly(&format!("serves nothing: {}", SENTENCES[1]));
        assert!(
            told.starts_with("serves nothing: this server was to begin"),
            "{told}"
        );
        assert!(told.contains("h:7000 knows one already"), "{told}");
        assert!(!told.contains("start one"), "{told}");
    }

    /// What one is told to do must not lose the table.
    #[test]
    fn whoever_has_a_table_in_memory_is_not_told_to_restart_before_it_is_read_out() {
        for advice in [WITNESS_EMPTY, REGISTER_LOST] {
            let memory = words(Durability::Memory).plainly(advice);
            let (read, force) = (memory.find("print at"), memory.find("start one with"));
            let read = read.or(memory.find("read the table out"));
            let force = force.or(memory.find("start this one with"));
            assert!(read.is_some() && read < force, "{memory}");
            assert!(memory.contains("LOSES ITS COPY"), "{memory}");
            let log = words(Durability::Log).plainly(advice);
            assert!(!log.contains("LOSES"), "{log}");
        }
    }
}
