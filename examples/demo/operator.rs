//! What the operator of a process is told: one sentence a line, on standard output.

use kvrep_core::ReplicaId;
use kvrep_core::node::NodeEvent;
use kvrep_core::protocol::Event;
use kvrep_core::storage::StorageEvent;
use std::io::Write as _;

/// The sentence for what must not be missed; `None` for what happens every day.
#[must_use]
pub fn sentence(event: &NodeEvent) -> Option<String> {
    match event {
        NodeEvent::Protocol(Event::Forced {
            replaced,
            not_awaited,
            from,
        }) => {
            let serving = replaced.as_ref().map_or_else(
                || "no configuration that is known here".into(),
                |old| format!("{} (version {})", list(old.in_sync.keys()), old.version.0),
            );
            Some(format!(
                "FORCED: this replica becomes primary with what it has. It does not wait for {}; it replaces {serving}. \
                 Acknowledged writes from entry {} on are LOST if only those had them. If one of those returns, such \
                 writes are refuted, set aside and reported there",
                list(not_awaited),
                from.0
            ))
        }
        NodeEvent::Protocol(Event::AcknowledgedWritesLost { from, commit }) => Some(format!(
            "ACKNOWLEDGED WRITES ARE LOST: entries {} to {} of this replica are not in the history that counts",
            from.0, commit.0
        )),
        NodeEvent::Protocol(Event::TailTruncated { from, entries }) => Some(format!(
            "{entries} entries from {} on, which are not known to be acknowledged, are not in the history that counts",
            from.0
        )),
        NodeEvent::Protocol(Event::Refused(why)) => Some(format!("serves nothing: {why}")),
        NodeEvent::Storage(StorageEvent::TailSaved {
            from,
            entries,
            path,
        }) => Some(format!(
            "{entries} entries from {} on are set aside in {}",
            from.0,
            path.display()
        )),
        _ => None,
    }
}

/// Prints a line.
pub fn tell(me: ReplicaId, what: &str) {
    // Whoever closed the other end does not want to read it.
    drop(writeln!(std::io::stdout(), "{me}: {what}"));
}

fn list<'a>(ids: impl IntoIterator<Item = &'a ReplicaId>) -> String {
    let words: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
    if words.is_empty() {
        "nobody".into()
    } else {
        words.join(", ")
    }
}
