//! What the operator of a process is told, one sentence a line, and how he asks it to end.

use kvrep_core::ReplicaId;
use kvrep_core::node::{Node, NodeError, NodeEvent};
use kvrep_core::protocol::Event;
use kvrep_core::storage::StorageEvent;
use std::io::{self, Write as _};

/// Tells what must not be missed, and what the node waits for as that changes, until the node ends by itself. May be dropped
/// at any time, as when the program is to end.
///
/// # Errors
/// Why the node ended.
pub async fn attend(node: &Node, mut tell: impl FnMut(&str)) -> Result<(), NodeError> {
    let (mut events, mut watch) = (node.events(), node.watch());
    let mut waited_for = String::new();
    loop {
        tokio::select! {
            ended = node.wait() => return ended,
            Ok(event) = events.recv() => {
                if let NodeEvent::Protocol(Event::Refused(why)) = &event {
                    if *why == waited_for {
                        continue;
                    }
                    waited_for.clone_from(why); // said once
                }
                if let Some(what) = sentence(&event) {
                    tell(&what);
                }
            }
            Ok(()) = watch.changed() => {
                let now = watch.borrow_and_update().protocol.waiting_for.clone();
                if now != waited_for && !now.is_empty() {
                    tell(&now);
                }
                waited_for = now;
            }
        }
    }
}

/// Ends when the process is asked to end, by Ctrl-C or SIGTERM. They are listened for from the call on, so that none is
/// missed while a program starts.
///
/// # Errors
/// When the system does not let this process listen for signals.
#[cfg(unix)]
pub fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends when the process is asked to end, by Ctrl-C.
///
/// # Errors
/// None here.
#[cfg(not(unix))]
pub fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

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
        NodeEvent::Protocol(Event::RivalRefused { term }) => Some(format!(
            "refused the writes of {}, which still took itself for the primary (in term {}): it must follow now",
            term.replica, term.number
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

/// A sentence of the library without the advice to force a replica, for programs that have no such option.
#[must_use]
pub fn without_force(sentence: &str) -> &str {
    match sentence.split_once(", or start ") {
        Some((before, advice)) if advice.contains("with force") => before,
        _ => sentence,
    }
}

/// Prints a line on standard output.
pub fn tell(me: ReplicaId, what: &str) {
    // Whoever closed the other end does not want to read it.
    drop(writeln!(io::stdout(), "{me}: {what}"));
}

fn list<'a>(ids: impl IntoIterator<Item = &'a ReplicaId>) -> String {
    let words: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
    if words.is_empty() {
        "nobody".into()
    } else {
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_to_force_is_left_out_and_everything_else_is_said() {
        let missing = "only r1 serves; missing: {r1}. Start them";
        for advice in ["one replica with force", "this replica with force"] {
            assert_eq!(
                without_force(&format!("{missing}, or start {advice}")),
                missing
            );
        }
        for other in [
            missing,
            "stopped: nothing is forced",
            "wait, or start another",
        ] {
            assert_eq!(without_force(other), other);
        }
    }
}
