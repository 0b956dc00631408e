//! Meets the other servers of a table before a start: who answers, whom this server joins, and how it is let in.
//!
//! Whoever answers may be the one of the pair, a third server that took this one's place meanwhile, or one that began another table. A server that comes back
//! asks all that it knows ([`ask_all`]) and goes to the one that most likely serves ([`whom_to_join`]); a new one knows an address only, and waits until
//! somebody answers there ([`meet`]).

use super::loss::{has_nothing, may_serve};
use super::policy::GROUP;
use super::roll::{Answer, call, of_this_table};
use super::state_dir::Record;
use super::told::tell;
use super::words::unheard;
use crate::common::operator::Said;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::protocol::ProtocolStatus;
use kvrep_core::protocol::passive::Join;
use kvrep_core::{Configuration, GroupId, ReplicaId};
use kvrep_transport_tcp::{LinkLimits, TcpLink};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Asks everybody that is known, and says who has begun another table.
pub(super) async fn ask_all(me: ReplicaId, record: &Record) -> Vec<Answer> {
    let (answers, strays) = of_this_table(me, call(me, record.known()).await);
    for at in strays {
        tell(&format!(
            "{at}: that server was started as if for the first time, and began ANOTHER TABLE with nothing of this one in it: stop it. What it took meanwhile is in its table only"
        ));
    }
    answers
}

/// Who is asked for a place, and how: the other one of the pair; another server that answers and has the table, if that one is dead or has nothing. Another
/// server may have taken this one's place meanwhile, and be dead by now.
pub(super) fn whom_to_join(
    me: ReplicaId,
    known: (ReplicaId, String),
    answers: Vec<Answer>,
    record: &Record,
) -> ((ReplicaId, String), Join) {
    let said = |answer: Answer| Some(((answer.replica, answer.address), answer.said?));
    let mut said: Vec<_> = answers.into_iter().filter_map(said).collect();
    said.sort_by_key(|((id, at), status)| {
        (!may_serve(*id, status), has_nothing(status), *at != known.1)
    });
    match said.into_iter().next() {
        Some(((replica, address), status)) => {
            if began_anew(me, &status) {
                tell(&another_table(&address, record));
            }
            ((replica, address), place_for(me, replica, status))
        }
        None => (known, Join::full()),
    }
}

/// Who is at an address.
pub(super) struct Met {
    pub(super) answer: Answer,
    pub(super) replica: ReplicaId,
    pub(super) join: Join,
}

/// Asks who listens there, until somebody answers.
pub(super) async fn meet(address: &str, me: ReplicaId, data: &Path) -> Result<Met, String> {
    let mut said = Said::default();
    loop {
        match status_of(address).await {
            Ok((ReplicaId::WITNESS, _)) => {
                return Err(format!(
                    "a witness listens at {address}, and no table-server: give the primary's address there, and the witness's behind --witness"
                ));
            }
            Ok((replica, status)) if replica != me => {
                let answer = Answer {
                    said: Some(status.clone()),
                    ..Answer::silent(replica, address.to_owned())
                };
                let join = place_for(me, replica, status);
                return Ok(Met {
                    answer,
                    replica,
                    join,
                });
            }
            // This server does not listen yet, so it is another one.
            Ok(_) => {
                return Err(format!(
                    "{} was begun as a table of its own, and so was the one at {address}: to join that one, remove the directory (and with it what is in it)",
                    data.display()
                ));
            }
            Err(why) if said.is_news(&why, Instant::now()) => tell(&format!(
                "waits for the other server: {why}. The one that begins the table is started with its port alone, and this one joins it as soon as it answers"
            )),
            Err(_) => {}
        }
        sleep(MEET_EVERY).await;
    }
}

/// How to be let into the pair of the server that has answered. A place that is taken is asked for all the same: it is given if
/// its owner is dead.
fn place_for(me: ReplicaId, answered: ReplicaId, status: ProtocolStatus) -> Join {
    let primary = status.primary.unwrap_or(answered);
    let members = status.configuration.map(|c| c.members).unwrap_or_default();
    let taken = members.keys().find(|id| **id != primary && **id != me);
    match taken {
        Some(dead) if !members.contains_key(&me) => Join::full().in_place_of(*dead),
        Some(_) | None => Join::full(),
    }
}

/// Whether the other server serves a table that is not the one that this server had a copy of: a primary counts its secondary
/// among its own, dead or alive, until a third server has taken its place.
fn began_anew(me: ReplicaId, other: &ProtocolStatus) -> bool {
    let alone = |c: &Configuration| c.members.len() == 1 && !c.members.contains_key(&me);
    other.serving && other.configuration.as_ref().is_some_and(alone)
}

/// What a server is told that comes back, and finds that the other one has begun another table.
fn another_table(address: &str, record: &Record) -> String {
    let other = format!(
        "the server at {address} was started as if for the first time (in another directory?), and began ANOTHER TABLE, which does not know this server"
    );
    if record.durable {
        format!(
            "{other}. This server has its log, and goes on with it as soon as a client asks; what was written to the other table is LOST then"
        )
    } else {
        format!(
            "{other}. What the two had was in memory, and IS LOST, for both were started again: this server gets a copy of the other table"
        )
    }
}

/// Who listens there, and what it says of itself.
pub(super) async fn status_of(address: &str) -> Result<(ReplicaId, ProtocolStatus), String> {
    let deadline = Instant::now() + STATUS_WITHIN;
    let group = GroupId::named(GROUP);
    let link = TcpLink::connect(address, group, LinkLimits::default(), deadline).await;
    let link = link.map_err(|e| unheard(address, &e))?;
    match link.call(Op::Status, deadline).await {
        Ok(Outcome::Status(status)) => Ok((link.replica(), *status)),
        Ok(other) => Err(format!("{address} answers {other:?}")),
        Err(e) => Err(unheard(address, &e)),
    }
}

const MEET_EVERY: Duration = Duration::from_millis(200);
const STATUS_WITHIN: Duration = Duration::from_secs(1);
#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::protocol::Role;
    use kvrep_core::{Departed, MemberKind, Origin, StoreId, Term, Version};

    #[test]
    fn a_server_that_serves_a_table_of_its_own_is_told_from_the_primary_of_the_pair() {
        let status = |members: &[u32]| ProtocolStatus {
            role: Role::Primary,
            primary: Some(ReplicaId(1)),
            serving: true,
            configuration: Some(Configuration {
                origin: Origin(1),
                term: Term::ZERO.next_for(ReplicaId(1)),
                version: Version(1),
                in_sync: [(ReplicaId(1), StoreId(1))].into(),
                members: members
                    .iter()
                    .map(|id| (ReplicaId(*id), MemberKind::Full))
                    .collect(),
                departed: Departed::default(),
            }),
            ..ProtocolStatus::of_nothing(StoreId(1))
        };
        let me = ReplicaId(9);
        assert!(began_anew(me, &status(&[1])));
        // The pair's, and one in which a third server has this one's place.
        assert!(!began_anew(me, &status(&[1, 9])));
        assert!(!began_anew(me, &status(&[1, 10])));
    }
}
