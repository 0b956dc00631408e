//! A node that belonged to a store, and whose log is gone.
//!
//! What it had acknowledged may be nowhere else, and what others have may be older or newer. So it begins nothing: it asks the nodes that `node.json` names, and
//! those of which they tell, until one of them leads, and joins that one. Until then it does not listen: a node that waits to hear of it must not
//! take one with nothing for one that has nothing more to tell. The operator is told who answers, and that `--force` decides.

use super::hearing::Hearing;
use super::notes::Notes;
use super::place::Place;
use crate::common::log_dir::advice;
use crate::common::operator::Said;
use crate::document_store::cli::remote::ask;
use crate::document_store::wire::Response;
use kvrep_core::storage::wal::has_log;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Whether the node has a log, and not only a directory for one.
///
/// # Errors
/// That cannot be seen: what to do.
pub(super) fn keeps_log(log: &Path) -> Result<bool, String> {
    has_log(log).map_err(|e| {
        let what = advice(&e, "this node", "another path for the store");
        format!("cannot read the log, {}: {e}; {what}", log.display())
    })
}

/// Asks until a node leads, which is to be joined: where it is.
///
/// # Errors
/// Nobody else has the store: what to do.
pub(super) async fn whom_to_join(
    me: Place,
    notes: &Notes,
    log: &Path,
    hearing: &Hearing,
) -> Result<Place, String> {
    let me = me.to_string();
    let known = notes.leader.iter().chain(&notes.nodes);
    let mut known: BTreeSet<String> = known.filter(|node| **node != me).cloned().collect();
    let gone = format!(
        "the log of this node, {}, is gone, though the node belonged to a store",
        log.display()
    );
    if known.is_empty() {
        return Err(format!(
            "{gone}, and no other node had that: put the log back, or start with --force to begin with a store that is EMPTY"
        ));
    }
    let mut said = Said::default();
    loop {
        let mut answers = Vec::new();
        for (node, status) in asked(&known).await {
            let Some(status) = status else {
                answers.push(format!("{node} does not answer"));
                continue;
            };
            if status["role"] == "leader"
                && let Some(leader) = Place::find_number(&node)
            {
                return Ok(leader);
            }
            answers.push(match status["waiting_for"].as_str() {
                None | Some("") => format!("{node} answers, and does not lead"),
                Some(waits) => format!("{node} answers, and does not lead ({waits})"),
            });
            let nodes = status["nodes"].as_array().into_iter().flatten();
            let nodes = nodes.filter_map(|at| Some(Place::find_number(at.as_str()?)?.to_string()));
            known.extend(nodes.filter(|node| *node != me));
            while known.len() > ASKED_MAX {
                known.pop_last();
            }
        }
        let why = format!(
            "{gone}: it serves nothing, and joins whoever leads the store. None does: {}. Start those, or put the log back. If none of them ever leads by itself, start the best of them with --force to go on with what that one has; or, if none has anything, this one, which begins with a store that is EMPTY",
            answers.join("; ")
        );
        if said.is_news(&why, Instant::now()) {
            hearing.tell(&why);
        }
        sleep(ASKED_EVERY).await;
    }
}

/// What each of these says of itself; nothing where it is silent.
async fn asked(known: &BTreeSet<String>) -> Vec<(String, Option<Json>)> {
    let deadline = Instant::now() + ASKED_WITHIN;
    let mut under_way = JoinSet::new();
    for node in known.clone() {
        under_way.spawn(async move {
            let status = match ask(&node, r#"["status"]"#, deadline).await {
                Ok(Response::Ok(status)) => serde_json::from_str(&status).ok(),
                Ok(Response::Ko(_)) | Err(_) => None,
            };
            (node, status)
        });
    }
    let mut answers = under_way.join_all().await;
    answers.sort_by(|a, b| a.0.cmp(&b.0));
    answers
}

const ASKED_EVERY: Duration = Duration::from_secs(1);
const ASKED_WITHIN: Duration = Duration::from_secs(2);
const ASKED_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_log_is_told_from_what_cannot_be_read() {
        let temporary = tempfile::tempdir().expect("a directory");
        let log = temporary.path().join("log");
        std::fs::create_dir(&log).expect("made");
        std::fs::write(log.join("lock"), "").expect("written");
        assert_eq!(keeps_log(&log), Ok(false));
        std::fs::write(log.join("identity"), "damaged").expect("written");
        assert_eq!(keeps_log(&log), Ok(true));
        let why = keeps_log(&log.join("lock")).expect_err("a file");
        assert!(why.contains("move away what is there"), "{why}");
    }
}
