//! Before a node is forced: the nodes that it knows of are asked whether one of them leads.
//!
//! Without a witness a forced node leads in a term above all others, and whoever led follows it and gives up what only it had; so force is not for a store that is
//! served. Asked are the leader that was given, those that belonged to the store when this node last heard of it, and those of which they tell. Each has until
//! one deadline: who is silent may lead all the same, and is named.

use super::notes::Notes;
use super::place::Place;
use crate::document_store::cli::remote::ask;
use crate::document_store::wire::Response;
use kvrep_core::ReplicaId;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Whom was asked in vain, in words, if this node may be forced.
///
/// # Errors
/// Why not, and what to do instead.
pub(super) async fn may_be_forced(
    me: Place,
    notes: &Notes,
    has_log: bool,
) -> Result<String, String> {
    let known = notes.leader.iter().chain(&notes.nodes).cloned();
    let silent = asked(&me.to_string(), known.collect(), has_log).await?;
    // One that belonged to a store has been let in before.
    let is_new = notes.nodes.is_empty();
    if !has_log
        && is_new
        && let Some(leader) = &notes.leader
    {
        return Err(format!(
            "nothing is forced: this node is new, and has nothing to lead with; {leader} was asked, and does not lead. Leave --force out to join its store, or the leader's address to begin another store, which is EMPTY"
        ));
    }
    let silent: Vec<_> = silent.into_iter().collect();
    let asked = match silent.as_slice() {
        [] if is_new && notes.leader.is_none() => "force: this node knows of no other".into(),
        [] => "force: every other node that this one knows of was asked, and none leads".into(),
        silent => format!(
            "force: no answer came from {}, and what is there is not known; of those that answer none leads",
            silent.join(", ")
        ),
    };
    Ok(if has_log {
        asked
    } else {
        format!(
            "{asked}. The store starts EMPTY, for there is no log here: what others have of an older one is given up when they follow this node"
        )
    })
}

/// Of the store that a forced node begins, if it has no log: those that it knew belong to it still, so they follow when they return.
pub(super) fn members(me: ReplicaId, notes: &Notes, nodes_max: usize) -> BTreeSet<ReplicaId> {
    let known = notes.leader.iter().chain(&notes.nodes);
    let known = known.filter_map(|node| Place::find(node).ok()?.replica().ok());
    let others = known.filter(|id| *id != me).collect::<BTreeSet<_>>();
    let room = nodes_max.saturating_sub(1);
    others.into_iter().take(room).chain([me]).collect()
}

/// Who is silent, of these and those that they tell of.
async fn asked(
    me: &str,
    known: BTreeSet<String>,
    has_log: bool,
) -> Result<BTreeSet<String>, String> {
    let deadline = Instant::now() + ASKED_WITHIN;
    let (mut seen, mut silent) = (BTreeSet::from([me.to_owned()]), BTreeSet::new());
    let mut under_way = JoinSet::new();
    let mut new = known;
    loop {
        for node in std::mem::take(&mut new) {
            if seen.len() <= ASKED_MAX && seen.insert(node.clone()) {
                under_way.spawn(async move {
                    let answer = ask(&node, r#"["status"]"#, deadline).await;
                    (node, answer)
                });
            }
        }
        let Some(answer) = under_way.join_next().await else {
            return Ok(silent);
        };
        // Nobody panics there, and nothing is given up.
        let Ok((node, answer)) = answer else { continue };
        let status = match answer {
            Ok(Response::Ok(status)) => serde_json::from_str(&status).ok(),
            Ok(Response::Ko(_)) | Err(_) => None,
        };
        let Some(status): Option<Json> = status else {
            silent.insert(node);
            continue;
        };
        refuse_if_led(me, &node, &status)?;
        if !has_log
            && status["nodes"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        {
            return Err(format!(
                "nothing is forced: {node} answers, and has something of the store, of which this node has nothing: start that one with --force to go on with what it has; or stop it first, if that is to be given up"
            ));
        }
        let nodes = status["nodes"].as_array().into_iter().flatten();
        let nodes = nodes.filter_map(|at| Some(Place::find_number(at.as_str()?)?.to_string()));
        new = nodes.collect();
    }
}

/// What a node says of itself.
fn refuse_if_led(me: &str, node: &str, status: &Json) -> Result<(), String> {
    let leader = match (status["role"].as_str(), status["leader"].as_str()) {
        (Some("leader"), _) => node,
        (Some("follower"), Some(leader)) if status["active"] == true && leader != me => leader,
        _ => return Ok(()),
    };
    let says = if leader == node {
        format!("{node} leads the store, and answers")
    } else {
        format!("{node} answers, and follows {leader}")
    };
    Err(format!(
        "nothing is forced: {says}; start this node without --force, and it follows (behind its own address say one of those, if its directory was lost)"
    ))
}

/// How long all of it takes, at most.
const ASKED_WITHIN: Duration = Duration::from_secs(4);
const ASKED_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_whoever_leads_or_follows_a_leader_stands_in_the_way() {
        let refused = |role: &str, leader: Json, active: bool| {
            let status = json!({"role": role, "leader": leader, "active": active});
            refuse_if_led("h:1", "h:2", &status).err()
        };
        let leads = refused("leader", json!("h:2"), true).expect("it leads");
        assert!(leads.contains("h:2 leads"), "{leads}");
        let follows = refused("follower", json!("h:3"), true).expect("it follows");
        assert!(follows.contains("follows h:3"), "{follows}");
        for (role, leader, active) in [
            ("seeking", Json::Null, false),
            ("follower", Json::Null, true),
            ("follower", json!("h:3"), false),
            // This one led, and is dead.
            ("follower", json!("h:1"), true),
        ] {
            assert_eq!(refused(role, leader, active), None, "{role}");
        }
    }
}
