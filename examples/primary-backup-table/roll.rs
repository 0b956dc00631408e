//! Whom a server knows of, and what they say when all of them are asked.
//!
//! Two serve a table, but more may have been started: one that waits for a place, one that lost its place while it was dead. So before anybody
//! says that a table is lost, or gives up what others may have, every server that it knows of is asked, and each tells in turn whom it knows of
//! ([`opcode::SERVERS`]). Each has a moment to answer in: who does not is *silent*, and nobody knows what that one has.

use super::arguments::address;
use super::meeting::status_of;
use super::message::{Content, Message, opcode};
use super::network_client::{Identity, NetworkClient, Patience};
use super::state_dir::OTHERS_MAX;
use bytes::Bytes;
use kvrep_core::protocol::ProtocolStatus;
use kvrep_core::{ReplicaId, StoreId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// The other servers that are known, by where they listen.
#[derive(Debug, Default)]
pub(super) struct Roll {
    known: Mutex<BTreeMap<ReplicaId, String>>,
    /// This server was started to begin a table, and has not begun it: it waits for its witness.
    begins: AtomicBool,
    /// This server had the table as it was last, came back without it, and waits.
    lost: AtomicBool,
}

/// What one of them said.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Who is there, as it says itself or as it was told of.
    pub(super) replica: ReplicaId,
    pub(super) address: String,
    /// What it says of itself; nothing where it is silent.
    pub(super) said: Option<ProtocolStatus>,
    /// It was started to begin the table, and has not begun it.
    pub(super) begins: bool,
    /// It had the table as it was last, and came back without it.
    pub(super) lost: bool,
}

/// When each was heard last, for words.
#[derive(Debug, Default)]
pub(super) struct Heard(BTreeMap<String, Instant>);

impl Heard {
    pub(super) fn note(&mut self, answers: &[Answer]) {
        let heard = answers.iter().filter(|answer| answer.said.is_some());
        let heard = heard.map(|answer| (answer.address.clone(), Instant::now()));
        self.0.extend(heard);
    }

    pub(super) fn of(&self, at: &str) -> String {
        match self.0.get(at) {
            Some(last) => format!("heard {} s ago", last.elapsed().as_secs()),
            None => "not heard since this server was started".into(),
        }
    }
}

impl Roll {
    pub(super) fn of(known: BTreeMap<ReplicaId, String>) -> Self {
        Self {
            known: Mutex::new(known),
            begins: AtomicBool::default(),
            lost: AtomicBool::default(),
        }
    }

    /// Whether a table is to begin here, and has not begun: others are told of it.
    pub(super) fn set_beginning(&self, begins: bool) {
        self.begins.store(begins, Ordering::Relaxed);
    }

    /// What this server had as it was last is lost: others are told.
    pub(super) fn set_lost(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self) -> BTreeMap<ReplicaId, String> {
        self.lock().clone()
    }

    /// These are known; nobody is forgotten, as far as there is room.
    pub(super) fn add(&self, known: BTreeMap<ReplicaId, String>) {
        let mut all = self.lock();
        for (replica, address) in known {
            if all.contains_key(&replica) || all.len() <= OTHERS_MAX {
                all.insert(replica, address);
            }
        }
    }

    /// The answer to whoever asks whom this server knows of.
    pub(super) fn told(&self) -> Message {
        let all = self.lock();
        let all = all.iter().map(|(id, at)| format!("{} {at}", id.0).into());
        let words = [(&self.begins, BEGINS), (&self.lost, LOST)];
        let words = words
            .into_iter()
            .filter(|(is, _)| is.load(Ordering::Relaxed));
        let words = words.map(|(_, word)| Bytes::from_static(word));
        Message::new(
            opcode::SERVERS + 1,
            Content::Keys(all.chain(words).collect()),
        )
    }
}

/// Asks all of these, and whomever they tell of, but `me`. Takes [`CALL_WITHIN`] at most.
pub(super) async fn call(me: ReplicaId, known: BTreeMap<ReplicaId, String>) -> Vec<Answer> {
    let deadline = Instant::now() + CALL_WITHIN;
    let mut asked = BTreeMap::new();
    let mut under_way = JoinSet::new();
    let mut new: Vec<_> = known.into_iter().collect();
    let mut answers = Vec::new();
    let mut answered = BTreeSet::new();
    loop {
        for (replica, address) in new.drain(..) {
            let known = asked.contains_key(&replica) || asked.values().any(|at| *at == address);
            if replica != me && !known && asked.len() <= OTHERS_MAX {
                asked.insert(replica, address.clone());
                under_way.spawn(ask(replica, address));
            }
        }
        let Ok(Some(answer)) = timeout_at(deadline, under_way.join_next()).await else {
            break;
        };
        // Nobody panics there, and nothing is given up before the deadline.
        let Ok((answer, told)) = answer else { continue };
        answered.insert(answer.address.clone());
        new = told;
        answers.push(answer);
    }
    let late = asked.into_iter().filter(|(_, at)| !answered.contains(at));
    let late: Vec<_> = late
        .map(|(replica, at)| Answer::silent(replica, at))
        .collect();
    answers.extend(late);
    answers.sort_by(|a, b| a.address.cmp(&b.address));
    answers
}

/// Those of the answers that are of this table, and where they are that began a table of their own: only who begins one has a number that another
/// server, this one, may have, too.
pub(super) fn of_this_table(me: ReplicaId, answers: Vec<Answer>) -> (Vec<Answer>, Vec<String>) {
    let (strays, answers): (Vec<_>, Vec<_>) =
        (answers.into_iter()).partition(|answer| answer.replica == me && answer.said.is_some());
    let strays = strays.into_iter().map(|stray| stray.address).collect();
    (answers, strays)
}

impl Answer {
    /// Nobody answered there.
    pub(super) fn silent(replica: ReplicaId, address: String) -> Self {
        Self {
            replica,
            address,
            said: None,
            begins: false,
            lost: false,
        }
    }
}

async fn ask(replica: ReplicaId, address: String) -> (Answer, Vec<(ReplicaId, String)>) {
    let (said, told) = tokio::join!(status_of(&address), told_of(&address));
    let tells = |what: &[u8]| told.iter().any(|word| word == what);
    let (begins, lost) = (tells(BEGINS), tells(LOST));
    let answer = match said {
        Ok((replica, status)) => Answer {
            replica,
            address,
            said: Some(status),
            begins,
            lost,
        },
        // It runs no node, lest its empty storage is taken for more than it is.
        Err(_) if lost => Answer {
            said: Some(ProtocolStatus::of_nothing(StoreId(0))),
            lost,
            ..Answer::silent(replica, address)
        },
        Err(_) => Answer::silent(replica, address),
    };
    (answer, told.iter().filter_map(one).collect())
}

/// What the server there tells of itself and others; nothing, if it does not say.
async fn told_of(at: &str) -> Vec<Bytes> {
    let patience = Patience {
        timeout: TOLD_WITHIN,
        identity: Identity::Never,
        ..Patience::default()
    };
    let mut server = NetworkClient::new(at.to_owned(), at.to_owned(), patience);
    let ask = Message::new(opcode::SERVERS, Content::Result(0));
    match timeout(TOLD_WITHIN, server.send_receive(&ask)).await {
        Ok(Ok(Message {
            content: Content::Keys(servers),
            ..
        })) => servers.into_iter().take(OTHERS_MAX + 3).collect(),
        Ok(Ok(_) | Err(_)) | Err(_) => Vec::new(),
    }
}

/// One server, as it is told.
fn one(text: &Bytes) -> Option<(ReplicaId, String)> {
    let text = std::str::from_utf8(text).ok()?;
    let (replica, at) = text.split_once(' ')?;
    let fits = at.len() <= ADDRESS_BYTES_MAX && !at.contains(char::is_whitespace);
    let replica = ReplicaId(replica.parse().ok()?);
    fits.then(|| Some((replica, address(at).ok()?)))?
}

/// How long all of it takes, at most.
pub(super) const CALL_WITHIN: Duration = Duration::from_secs(4);
/// Among the servers that are told, and none: whoever asks older servers hears nothing of it.
const BEGINS: &[u8] = b"begins";
/// Likewise.
const LOST: &[u8] = b"lost";
const TOLD_WITHIN: Duration = Duration::from_secs(1);
const ADDRESS_BYTES_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_whom_it_knows_of_and_what_is_no_server_is_passed_over() {
        let known: BTreeMap<_, _> = [(ReplicaId(1), "h:5000".into())].into();
        let roll = Roll::of(known.clone());
        let Content::Keys(told) = roll.told().content else {
            panic!("a list");
        };
        assert_eq!(
            told.iter().filter_map(one).collect::<BTreeMap<_, _>>(),
            known
        );
        for wrong in [
            "",
            "1",
            "x h:1",
            "1 h",
            "1 h:0",
            "-1 h:1",
            "1 h x:1",
            "99999999999 h:1",
        ] {
            assert_eq!(one(&Bytes::from_static(wrong.as_bytes())), None, "{wrong}");
        }
        for id in 2..100 {
            roll.add([(ReplicaId(id), "h:1".into())].into());
        }
        assert!(roll.known().len() <= OTHERS_MAX + 1);
    }

    #[tokio::test]
    async fn who_does_not_answer_is_silent_and_the_call_ends() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = port.local_addr().expect("its address").to_string();
        let known = [(ReplicaId(2), at.clone()), (ReplicaId(1), "h:1".into())];
        // It accepts, and says nothing.
        let answers = call(ReplicaId(1), known.into()).await;
        let told: Vec<_> = answers
            .iter()
            .map(|a| (&a.address, a.said.is_some()))
            .collect();
        assert_eq!(told, [(&at, false)]);
    }
}
