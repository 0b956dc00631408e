//! A server that had the table as it was last, and comes back without it.
//!
//! Without a witness a server that was started again with its log serves once it has heard all that had the whole table beside it. One of those may come back with nothing:
//! it is heard all the same, and the log counts. That is right where both had the same when they ended, and wrong where the one that lost its table had gone on without the
//! other: then an older table would be served, and nobody would have been asked. Only the one that lost it can know, from its record ([`Held`]). So its node, which
//! would be heard, is not started until one that it knows serves, or until nobody is left whom that would mislead ([`next`], a pure function).
//!
//! Meanwhile [`wait`] keeps the port: other servers that ask hear that the table is lost here ([`Roll::set_lost`]), clients are hung up on, the library's connections are closed.
//!
//! A record that says of itself that a later one could not be written ([`Record::outdated`]) is taken for the worst that it may hide: this server alone had the
//! table. So it waits, where a server that answers may have an older one; if that one turns out to serve, it is joined.
//!
//! Caveat: the record is written beside serving. Of one that dies within milliseconds of having taken over, nobody knows that it did.

use super::loss::{Last, Loss, has_nothing};
use super::meeting::ask_all;
use super::policy::{CLIENTS_MAX, request_within};
use super::roll::{Answer, Heard, Roll};
use super::server::{Options, announce};
use super::service::Service;
use super::state_dir::{Durability, Record, StateDir, StateDirError};
use super::told::tell;
use bytes::BytesMut;
use kvrep_core::ReplicaId;
use kvrep_core::protocol::ProtocolStatus;
use kvrep_core::wire::MAGIC;
use kvrep_transport_tcp::ForeignService as _;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// What the record says of a table that this server had as it was last, and has no more.
#[derive(Clone, Debug)]
pub(super) struct Held {
    me: ReplicaId,
    /// Where it had it.
    durability: Durability,
    /// Who had it as well, with the addresses that are known.
    beside: BTreeMap<ReplicaId, Option<String>>,
    /// The record is older than what was the case when it ended: it may have had it, and alone.
    outdated: bool,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It starts: that it has nothing misleads nobody.
    Start,
    /// It starts, and joins the one there, which serves. What is lost of the table, if that one did not have it as it was last.
    Join { at: String, lost: Option<Last> },
    /// It does not start yet.
    Wait(Why),
}

/// Why it does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody who answers has the table as it was last.
    Lost(Loss),
    /// One has it and does not serve yet, and another one has an older table.
    Rivals { at: String, older: String },
}

impl Held {
    /// Nothing where this server has its table still, or did not have all of it when it ended.
    ///
    /// # Errors
    /// It has a log that cannot be looked at.
    pub(super) fn lost(record: &Record, dir: &StateDir) -> Result<Option<Self>, StateDirError> {
        let me = ReplicaId(record.replica);
        let has_it = record.durable && dir.has_log()?;
        let outdated = record.outdated;
        if has_it || !(outdated || record.in_sync.contains(&record.replica)) {
            return Ok(None);
        }
        let known = record.known();
        let others = record.in_sync.iter().map(|id| ReplicaId(*id));
        // Who had it then may have an older one by now.
        let others = others.filter(|id| *id != me && !outdated);
        Ok(Some(Self {
            me,
            durability: record.durability(),
            beside: others.map(|id| (id, known.get(&id).cloned())).collect(),
            outdated,
        }))
    }

    /// What is said of it.
    fn last(&self) -> Last {
        Last {
            durability: self.durability,
            beside: (self.beside.values())
                .map(|at| at.clone().unwrap_or_else(|| "an unknown address".into()))
                .collect(),
            outdated: self.outdated,
        }
    }

    /// What is said of it where this server is known to have had the table alone.
    pub(super) fn alone(&self) -> Option<Last> {
        (self.beside.is_empty() && !self.outdated).then(|| self.last())
    }

    /// Whether this one has a table, and counts this server among those that must be heard before it serves.
    fn is_awaited_by(&self, status: &ProtocolStatus) -> bool {
        let agreed = status.configuration.as_ref();
        !has_nothing(status) && agreed.is_none_or(|c| c.in_sync.contains_key(&self.me))
    }
}

/// What is to be done, when these are the answers of all that are known.
pub(super) fn next(held: &Held, answers: &[Answer]) -> Next {
    let said = || {
        let said = answers.iter();
        said.filter_map(|a| Some((a, a.said.as_ref()?)))
    };
    let had_it = |who: &Answer| held.beside.contains_key(&who.replica);
    if let Some((who, _)) = said().find(|(_, status)| status.serving) {
        return Next::Join {
            at: who.address.clone(),
            lost: (!had_it(who)).then(|| held.last()),
        };
    }
    let has_it = said().find(|(who, status)| had_it(who) && !has_nothing(status));
    let older = said().find(|(who, status)| !had_it(who) && held.is_awaited_by(status));
    // Of those that are known to have had the whole table none is misled.
    let is_unsure = |who: &&Answer| who.said.is_none() && !had_it(who);
    let is_sure = has_it.is_some() || !answers.iter().any(|who| is_unsure(&who));
    let silent = || {
        let silent = answers.iter().filter(|a| a.said.is_none());
        silent.map(|a| a.address.clone()).collect()
    };
    match (has_it, older) {
        (Some((has_it, _)), Some((older, _))) => Next::Wait(Why::Rivals {
            at: has_it.address.clone(),
            older: older.address.clone(),
        }),
        (None, Some((older, _))) => Next::Wait(Why::Lost(Loss::Older {
            at: older.address.clone(),
            silent: silent(),
            last: held.last(),
        })),
        (_, None) if is_sure => Next::Start,
        (_, None) => Next::Wait(Why::Lost(Loss::Silent {
            silent: silent(),
            without: said()
                .filter(|(_, status)| has_nothing(status))
                .map(|(who, _)| who.address.clone())
                .collect(),
            last: Some(held.last()),
        })),
    }
}

impl Why {
    fn told(&self, heard: &Heard) -> String {
        let why = match self {
            Self::Lost(loss) => loss.told(|at| heard.of(at)),
            Self::Rivals { at, older } => format!(
                "the server at {at} had the table as it was last, and has it still, but does not serve; the one at {older} has an older table. Let a client ask the one at {at}, and if it says that it waits for this server, start it with --force"
            ),
        };
        format!(
            "{why}. Until then this server waits, lest an older table is served unasked: it serves nothing, and joins whoever serves"
        )
    }
}

/// Waits, if need be, until this server may start. What the others said last.
///
/// # Errors
/// The port is not free.
pub(super) async fn wait(
    held: &Held,
    record: &mut Record,
    (options, dir): (&Options, &StateDir),
    answers: Vec<Answer>,
) -> Result<Vec<Answer>, String> {
    let answers = match next(held, &answers) {
        Next::Start | Next::Join { .. } => answers,
        Next::Wait(_) => {
            let listen = SocketAddr::new(options.listen, options.wanted.port);
            let listener = TcpListener::bind(listen).await;
            let listener = listener.map_err(|e| format!("cannot listen on {listen}: {e}"))?;
            let roll = Roll::of(record.known());
            roll.set_lost();
            let within = request_within(options.timeout);
            let service = Service::new(options.dialect, within, Arc::new(roll));
            announce(options, dir);
            tokio::select! {
                answers = ask_on(held, record) => answers,
                never = keep_port(listener, Arc::new(service)) => match never {},
            }
        }
    };
    if let Next::Join {
        at,
        lost: Some(last),
    } = next(held, &answers)
    {
        let lost = if last.outdated {
            "if it was DOWN meanwhile, what was written then is LOST"
        } else {
            "what was written while that one was DOWN is LOST, unless it got that before this server ended"
        };
        tell(&format!(
            "{last}. The server at {at} serves, and this one joins it: {lost}"
        ));
    }
    Ok(answers)
}

/// Asks all that are known until this server may start, and says why it waits as that changes.
async fn ask_on(held: &Held, record: &mut Record) -> Vec<Answer> {
    let (mut said, mut heard) = (None, Heard::default());
    loop {
        let answers = ask_all(held.me, record).await;
        heard.note(&answers);
        for answer in &answers {
            record.hear_of(answer.replica, &answer.address);
        }
        let Next::Wait(why) = next(held, &answers) else {
            return answers;
        };
        if said.as_ref() != Some(&why) {
            tell(&why.told(&heard));
        }
        said = Some(why);
        sleep(ASK_EVERY).await;
    }
}

/// Serves clients in place of a node.
async fn keep_port(listener: TcpListener, service: Arc<Service>) -> Infallible {
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = serving.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) if serving.len() < CLIENTS_MAX => {
                    serving.spawn(attend(stream, from, Arc::clone(&service)));
                }
                // One too many.
                Ok(_) => {}
                Err(_) => sleep(ACCEPT_AGAIN).await,
            }
        }
    }
}

/// Who speaks as the library does hears nothing: not even that somebody is there without the table.
async fn attend(mut stream: TcpStream, from: SocketAddr, service: Arc<Service>) {
    let mut first = BytesMut::with_capacity(1_024);
    let begun = timeout(BEGINS_WITHIN, stream.read_buf(&mut first)).await;
    if matches!(begun, Ok(Ok(1..))) && first.first() != MAGIC.first() {
        service.serve(stream, first.freeze(), from).await;
    }
}

const ASK_EVERY: Duration = Duration::from_secs(1);
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Whoever has typed nothing by then connects again.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary_backup_table::meeting::status_of;
    use crate::primary_backup_table::message::Dialect;
    use crate::primary_backup_table::roll::call;
    use kvrep_core::{Configuration, Departed, MemberKind, Origin, StoreId, Term, Version};

    const ME: u32 = 2;

    /// It has a table, of which these had everything; the first of them serves, or nobody.
    fn with_table(in_sync: &[u32], serving: bool) -> Option<ProtocolStatus> {
        let ids = || in_sync.iter().map(|id| ReplicaId(*id));
        Some(ProtocolStatus {
            serving,
            configuration: Some(Configuration {
                origin: Origin(1),
                term: Term::ZERO.next_for(ReplicaId(1)),
                version: Version(2),
                in_sync: ids().map(|id| (id, StoreId(u64::from(id.0)))).collect(),
                members: ids().map(|id| (id, MemberKind::Full)).collect(),
                departed: Departed::default(),
            }),
            ..without()
        })
    }

    fn without() -> ProtocolStatus {
        ProtocolStatus::of_nothing(StoreId(7))
    }

    fn answer(id: u32, said: Option<ProtocolStatus>) -> Answer {
        Answer {
            said,
            ..Answer::silent(ReplicaId(id), format!("h:{id}"))
        }
    }

    fn held(beside: &[u32]) -> Held {
        let beside = beside.iter().map(|id| (ReplicaId(*id), None));
        Held {
            me: ReplicaId(ME),
            durability: Durability::Memory,
            beside: beside.collect(),
            outdated: false,
        }
    }

    fn told(next: &Next) -> String {
        match next {
            Next::Wait(why) => why.told(&Heard::default()),
            other => panic!("{other:?}"),
        }
    }

    /// A1.6: what the record says, and what is in the directory.
    #[test]
    fn only_who_had_the_table_as_it_was_last_and_has_it_no_more_has_lost_it() {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(temporary.path()).expect("made");
        let lost = |record: &Record| Held::lost(record, &dir).expect("readable");
        for durability in [Durability::Memory, Durability::Log] {
            let mut record = Record::new(5_001, ReplicaId(ME), durability);
            for (in_sync, is_lost, is_alone) in [
                (vec![], false, false),
                (vec![1], false, false),
                (vec![1, ME], true, false),
                (vec![ME], true, true),
            ] {
                record.in_sync = in_sync;
                let held = lost(&record);
                assert_eq!(held.is_some(), is_lost, "{record:?}");
                let alone = held.and_then(|held| held.alone());
                assert_eq!(alone.is_some(), is_alone, "{record:?}");
            }
        }
        let mut record = Record::new(5_001, ReplicaId(ME), Durability::Log);
        record.in_sync = vec![ME];
        std::fs::create_dir(dir.log()).expect("made");
        assert!(lost(&record).is_some(), "it is empty");
        std::fs::write(dir.log().join("lock"), "").expect("written");
        assert!(lost(&record).is_some(), "a lock is no log");
        std::fs::write(dir.log().join("identity"), "damaged").expect("written");
        assert!(lost(&record).is_none());
        record.durable = false;
        assert!(lost(&record).is_some(), "it is not its own");
    }

    #[test]
    fn the_one_that_alone_had_it_waits_for_whoever_may_have_an_older_one() {
        let held = held(&[]);
        let next = |said: Option<ProtocolStatus>| next(&held, &[answer(1, said)]);
        let silent = told(&next(None));
        for part in ["memory alone", "h:1 (not heard since", "--force", "waits"] {
            assert!(silent.contains(part), "{part}: {silent}");
        }
        let older = told(&next(with_table(&[1, ME], false)));
        for part in ["memory alone", "h:1 has an older table", "--force", "waits"] {
            assert!(older.contains(part), "{part}: {older}");
        }
        assert_eq!(next(Some(without())), Next::Start);
        // It does not count on this server, so it learns nothing.
        assert_eq!(next(with_table(&[1], false)), Next::Start);
        let forced = next(with_table(&[1], true));
        let is_joined = |lost: &Option<Last>| lost.is_some();
        assert!(matches!(&forced, Next::Join { at, lost } if at == "h:1" && is_joined(lost)));
        assert_eq!(super::next(&held, &[]), Next::Start);
    }

    /// A1.6: what could not be written may be that the other one was DOWN.
    #[test]
    fn who_has_an_outdated_record_waits_as_if_it_had_had_the_table_alone() {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(temporary.path()).expect("made");
        let mut record = Record::new(5_001, ReplicaId(ME), Durability::Memory);
        for in_sync in [vec![], vec![1], vec![1, ME]] {
            record.in_sync = in_sync;
            record.outdated = true;
            let held = Held::lost(&record, &dir).expect("readable");
            let held = held.expect("it may have had it");
            assert!(held.alone().is_none(), "that is not known");
            let older = [answer(1, with_table(&[1, ME], false))];
            let older = told(&next(&held, &older));
            for part in [
                "could not be written",
                "may have an older table",
                "let a client ask",
            ] {
                assert!(older.contains(part), "{part}: {older}");
            }
            let silent = told(&next(&held, &[answer(1, None)]));
            assert!(silent.contains("could not be written"), "{silent}");
            let serves = next(&held, &[answer(1, with_table(&[1], true))]);
            assert!(matches!(serves, Next::Join { lost: Some(_), .. }));
        }
    }

    #[test]
    fn a_third_server_is_heard_as_well() {
        let alone = held(&[]);
        let older = || answer(1, with_table(&[1, ME], false));
        let third = |said| answer(3, said);
        let silent = told(&next(&alone, &[older(), third(None)]));
        assert!(silent.contains("No answer comes from the server at h:3"));
        assert!(silent.contains("h:1 has an older table"), "{silent}");
        let told_one = told(&next(&alone, &[answer(1, None), third(Some(without()))]));
        assert!(told_one.contains("h:1 (not heard"), "{told_one}");
        let joined = next(&alone, &[older(), third(with_table(&[3], true))]);
        assert!(matches!(joined, Next::Join { at, .. } if at == "h:3"));
    }

    /// Two that wait so find each other, though neither runs a node.
    #[tokio::test]
    async fn who_asks_hears_that_the_table_is_lost_and_the_library_hears_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("its address").to_string();
        let roll = Roll::of([(ReplicaId(3), "127.0.0.1:1".into())].into());
        roll.set_lost();
        let service = Service::new(Dialect::Plain, Duration::from_secs(1), Arc::new(roll));
        let asking = async {
            assert!(status_of(&at).await.is_err());
            call(ReplicaId(1), [(ReplicaId(ME), at.clone())].into()).await
        };
        let answers = tokio::select! {
            answers = asking => answers,
            never = keep_port(listener, Arc::new(service)) => match never {},
        };
        let lost = answers.iter().find(|a| a.lost).expect("it says so");
        assert_eq!((lost.replica, &lost.address), (ReplicaId(ME), &at));
        assert!(lost.said.as_ref().is_some_and(has_nothing));
        let third = answers.iter().find(|a| a.replica == ReplicaId(3));
        assert!(third.is_some_and(|a| a.said.is_none()), "{answers:?}");
    }

    /// Two had it, and one of them lost it: the other one is as good.
    #[test]
    fn whoever_had_the_table_beside_this_one_is_not_misled() {
        let pair = held(&[1]);
        let table = || with_table(&[1, ME], false);
        for said in [None, Some(without()), table()] {
            assert_eq!(next(&pair, &[answer(1, said)]), Next::Start);
        }
        let joined = next(&pair, &[answer(1, with_table(&[1], true))]);
        let at = "h:1".into();
        assert_eq!(joined, Next::Join { at, lost: None });
        // A former server of the pair has an older table, which counts on this one as well.
        let former = || answer(3, with_table(&[3, ME], false));
        let rivals = told(&next(&pair, &[answer(1, table()), former()]));
        assert!(rivals.contains("h:3 has an older table"), "{rivals}");
        let older = told(&next(&pair, &[answer(1, None), former()]));
        assert!(older.contains("had it as well"), "{older}");
        assert!(older.contains("No answer comes from the server at h:1"));
        let silent = [answer(1, table()), answer(3, None)];
        assert_eq!(next(&pair, &silent), Next::Start);
    }
}
