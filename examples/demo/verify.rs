//! The proof: what the clients were told, against what every replica has.

use super::catalog::{Answer, Asked, OneCopy, Query, Row};
use super::load::{Input, Recorded};
use super::processes::Group;
use super::questions::{Question, Told};
use super::report::{Check, Outcome};
use kvrep_core::check::{
    Budget, ClientId, History, Linearizability, Operation, Response, linearizable,
};
use kvrep_core::{ReplicaId, Time, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What one replica has.
struct Copy {
    rows: BTreeMap<String, Row>,
    digest: (u64, u64),
}

/// Everything that the demo claims.
///
/// # Errors
/// When a replica cannot be asked.
pub async fn verify(
    group: &Group,
    input: &Input,
    recorded: &[Recorded],
    token: Token,
) -> Result<Vec<Check>, String> {
    let mut copies = BTreeMap::new();
    for id in group.replicas() {
        copies.insert(id, copy_of(group, id, token).await?);
    }
    Ok(vec![
        every_acknowledged_record_is_everywhere(&copies, input, recorded),
        each_was_applied_once(&copies, input, recorded),
        all_copies_are_equal(&copies),
        the_history_is_linearizable(recorded, input),
    ])
}

async fn copy_of(group: &Group, id: ReplicaId, token: Token) -> Result<Copy, String> {
    let mut rows = BTreeMap::new();
    let mut after = String::new();
    loop {
        let query = Query::Page {
            after: after.clone(),
            rows: 4_096,
        };
        let Answer::Page(page) = ask(group, id, &query, token).await? else {
            return Err(format!("{id} does not answer a page with a page"));
        };
        let Some(last) = page.last() else {
            break;
        };
        after.clone_from(&last.key);
        rows.extend(page.into_iter().map(|row| (row.key.clone(), row)));
    }
    match ask(group, id, &Query::Digest, token).await? {
        Answer::Digest { records, digest } => Ok(Copy {
            rows,
            digest: (records, digest),
        }),
        other => Err(format!("{id} answers a digest with {other:?}")),
    }
}

async fn ask(group: &Group, id: ReplicaId, query: &Query, token: Token) -> Result<Answer, String> {
    let question = Question::Read {
        query: query.clone(),
        at_least: token,
    };
    let mut last = None;
    for _ in 0..20 {
        last = group
            .ask(id, question.clone(), Duration::from_secs(5))
            .await;
        if let Some(Told::Read(answer)) = last {
            return Ok(answer);
        }
    }
    Err(format!("{id} does not answer: {last:?}"))
}

/// For each key: writes acknowledged, writes of unknown outcome, and the values written.
fn writes(input: &Input, recorded: &[Recorded]) -> Vec<(u32, u32, BTreeSet<u64>)> {
    let mut writes = vec![(0, 0, BTreeSet::new()); input.names.len()];
    for operation in recorded {
        if let Asked::Put(key, digest) = operation.asked {
            let (acknowledged, unknown, values) = &mut writes[key as usize];
            match operation.told {
                Some(_) => *acknowledged += 1,
                None => *unknown += 1,
            }
            values.insert(digest);
        }
    }
    writes
}

fn every_acknowledged_record_is_everywhere(
    copies: &BTreeMap<ReplicaId, Copy>,
    input: &Input,
    recorded: &[Recorded],
) -> Check {
    let mut missing = Vec::new();
    let mut present = 0;
    for (name, (acknowledged, _, values)) in input.names.iter().zip(writes(input, recorded)) {
        if acknowledged == 0 {
            continue;
        }
        present += 1;
        for (id, copy) in copies {
            if !copy
                .rows
                .get(name)
                .is_some_and(|r| values.contains(&r.digest))
            {
                missing.push(format!("{name} on {id}"));
            }
        }
    }
    conclude(
        "every acknowledged record is on every replica",
        &missing,
        format!("{present} keys on {} replicas", copies.len()),
    )
}

fn each_was_applied_once(
    copies: &BTreeMap<ReplicaId, Copy>,
    input: &Input,
    recorded: &[Recorded],
) -> Check {
    let mut wrong = Vec::new();
    let (mut sum, mut doubtful) = (0, 0);
    for (name, (acknowledged, unknown, _)) in input.names.iter().zip(writes(input, recorded)) {
        sum += u64::from(acknowledged);
        doubtful += u64::from(unknown);
        for (id, copy) in copies {
            let times = copy.rows.get(name).map_or(0, |r| r.times);
            if !(acknowledged..=acknowledged + unknown).contains(&times) {
                wrong.push(format!(
                    "{name} on {id}: {times} times instead of {acknowledged}"
                ));
            }
        }
    }
    let detail = format!("{sum} acknowledged, {doubtful} of unknown outcome");
    conclude("each was applied once", &wrong, detail)
}

fn all_copies_are_equal(copies: &BTreeMap<ReplicaId, Copy>) -> Check {
    let digests: BTreeSet<_> = copies.values().map(|c| c.digest).collect();
    let shown: Vec<_> = digests
        .iter()
        .map(|(records, digest)| format!("{digest:016x} over {records} records"))
        .collect();
    let differing = if digests.len() == 1 {
        &[][..]
    } else {
        &shown[..]
    };
    conclude(
        "all replicas have equal digests",
        differing,
        shown.join(", "),
    )
}

fn the_history_is_linearizable(recorded: &[Recorded], input: &Input) -> Check {
    let time = |d: Duration| Time::ZERO + d;
    let mut history = History::new();
    for operation in recorded {
        history.push(Operation {
            client: ClientId(operation.client),
            op: operation.asked,
            invoked: time(operation.invoked),
            response: operation
                .told
                .map(|(at, ret)| Response { at: time(at), ret }),
        });
    }
    let reads = recorded
        .iter()
        .filter(|r| matches!(r.asked, Asked::Get(_)))
        .count();
    let detail = format!("{} operations, {reads} of them reads", recorded.len());
    let wrong = match linearizable::check(&OneCopy, &history, Budget::default()) {
        Linearizability::Holds => vec![],
        Linearizability::Violated(violation) => vec![format!(
            "key {}: {}",
            input.names[violation.key as usize],
            violation.explain(&OneCopy, &history)
        )],
        Linearizability::Undecided { keys } => {
            vec![format!("not decided for {} keys", keys.len())]
        }
    };
    conclude("the recorded history is linearizable", &wrong, detail)
}

fn conclude(claim: &str, wrong: &[String], detail: String) -> Check {
    const SHOWN: usize = 3;
    let (outcome, detail) = if wrong.is_empty() {
        (Outcome::Holds, detail)
    } else {
        let more = wrong.len().saturating_sub(SHOWN);
        let mut shown = wrong[..wrong.len().min(SHOWN)].join("; ");
        if more > 0 {
            shown.push_str(&format!("; and {more} more"));
        }
        (Outcome::Fails, shown)
    };
    Check {
        claim: claim.into(),
        outcome,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::input::Record;

    fn record(key: &str) -> Record {
        Record {
            key: key.into(),
            value: "{}".into(),
        }
    }

    fn copy(times: u32) -> BTreeMap<ReplicaId, Copy> {
        let digest = crate::demo::catalog::digest("{}");
        let row = Row {
            key: "a".into(),
            digest,
            times,
        };
        let rows = [("a".to_owned(), row)].into();
        let digest = (1, u64::from(times));
        [(ReplicaId(1), Copy { rows, digest })].into()
    }

    fn written(input: &Input) -> Vec<Recorded> {
        let put = Asked::Put(0, input.digests[0]);
        let told = Some((Duration::from_nanos(2), Some((input.digests[0], 1))));
        vec![Recorded {
            client: 1,
            asked: put,
            invoked: Duration::from_nanos(1),
            told,
        }]
    }

    #[test]
    fn a_lost_or_doubled_record_is_seen() {
        let input = Input::new(vec![record("a")]);
        let recorded = written(&input);
        let once = each_was_applied_once(&copy(1), &input, &recorded);
        assert_eq!(once.outcome, Outcome::Holds);
        for times in [0, 2] {
            let wrong = each_was_applied_once(&copy(times), &input, &recorded);
            assert_eq!(wrong.outcome, Outcome::Fails);
        }
        let empty = [(
            ReplicaId(1),
            Copy {
                rows: BTreeMap::new(),
                digest: (0, 0),
            },
        )]
        .into();
        let lost = every_acknowledged_record_is_everywhere(&empty, &input, &recorded);
        assert_eq!(lost.outcome, Outcome::Fails);
    }

    #[test]
    fn differing_digests_are_seen() {
        let mut copies = copy(1);
        assert_eq!(all_copies_are_equal(&copies).outcome, Outcome::Holds);
        let mut other = copy(2);
        copies.insert(ReplicaId(2), other.remove(&ReplicaId(1)).unwrap());
        assert_eq!(all_copies_are_equal(&copies).outcome, Outcome::Fails);
    }
}
