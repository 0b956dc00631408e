//! This server's part of the table: what it answers to a GET, and what the leader does for a PUT.
//!
//! Reads are answered from this server's copy, by comparing timestamps. Writes go to the group, and are answered when it has them.
//! A server without a copy (it has just been started, or is not one of the three) cannot know which keys exist: it says
//! `TRY_OTHER_SERVER_OR_LATER`, at once, and never `NULL`.
//!
//! # Invariants
//!
//! * `PUT_OK` is said only after the group has committed, which with `Ack::All` means that both followers have the write.
//! * Every wait ends: for the three servers, for the group.

use super::console::Console;
use super::hearsay::Hearsay;
use super::message::Answer;
use super::registry::Registry;
use super::table::{Ask, Change, Said, Table};
use super::trio::Trio;
use super::words::{plainly, together};
use kvrep_core::node::{ClientError, Node};
use kvrep_core::state_machine::{Malformed, decode};
use kvrep_core::{Client, Index, Manage, Read, ReplicaId, StateMachine};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// The table at this server. See the [module](self).
#[derive(Debug)]
pub struct Store {
    console: Arc<Console>,
    put_within: Duration,
    hearsay: Hearsay,
    /// Once the three servers are known.
    replica: watch::Sender<Option<Replica>>,
}

/// This server's replica, as its clients need it.
#[derive(Clone)]
pub struct Replica {
    /// Asks the replica in this process.
    pub client: Client<Table>,
    /// The replica itself.
    pub node: Arc<Node>,
}

/// What a client wants to be written.
#[derive(Clone, Debug)]
pub struct Put {
    /// Where.
    pub key: String,
    /// What.
    pub value: String,
    /// What the client has seen of the key: the write gets a timestamp above it.
    pub seen: u64,
    /// Which server passes it on.
    pub passed_on_by: Option<SocketAddr>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.node.fmt(f)
    }
}

impl Store {
    /// Without a replica yet: nobody has written anything, as far as this server knows. A PUT may take so long before its
    /// outcome is unknown.
    #[must_use]
    pub fn new(console: Arc<Console>, put_within: Duration, hearsay: Hearsay) -> Self {
        Self {
            console,
            put_within,
            hearsay,
            replica: watch::Sender::new(None),
        }
    }

    /// Where its lines go.
    #[must_use]
    pub fn console(&self) -> &Arc<Console> {
        &self.console
    }

    /// What was shown to it.
    #[must_use]
    pub fn hearsay(&self) -> &Hearsay {
        &self.hearsay
    }

    /// The three servers are known, and this is the replica here.
    pub fn open(&self, replica: Replica) {
        self.replica.send_replace(Some(replica));
    }

    /// Whether this server serves.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.replica.borrow().is_some()
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// When it does not in time, in words for an operator.
    pub async fn opened_within(&self, within: Duration) -> Result<(), String> {
        let opened = timeout_at(Instant::now() + within, self.formed()).await;
        let waits = |_| format!("o líder ainda espera pelos outros servidores, há {within:?}");
        opened.map(drop).map_err(waits)
    }

    /// Serves nobody any more.
    #[must_use]
    pub fn close(&self) -> Option<Replica> {
        self.replica.send_replace(None)
    }

    /// Answers a GET.
    pub async fn get(&self, client: SocketAddr, key: String, timestamp: u64) -> Answer {
        let said = match self.replica() {
            None => None,
            Some(replica) => {
                let ask = Ask::Get {
                    key: key.clone(),
                    timestamp,
                };
                asked(&replica, ask).await
            }
        };
        // Without a table here, others may have one.
        let said = said.unwrap_or(Said::Behind(0));
        if matches!(said, Said::Behind(_)) {
            self.shown(timestamp).await;
        }
        let answer = said.into_answer(key.clone());
        self.console.get(client, &key, timestamp, &answer);
        answer
    }

    /// Somebody has seen this timestamp, here or elsewhere.
    pub async fn shown(&self, timestamp: u64) {
        if self.hearsay.is_news(timestamp) {
            let clock = match self.replica() {
                Some(replica) => clock(&replica).await,
                None => None,
            };
            self.hearsay.heard(timestamp, clock);
        }
    }

    /// The leader's: what was shown and never given must not be given any more.
    async fn leave_out_shown(&self, replica: &Replica) -> Result<(), ClientError> {
        let Some(up_to) = self.hearsay.to_leave_out() else {
            return Ok(());
        };
        // It may have been shown before there was a replica that knows.
        self.hearsay.heard(up_to, clock(replica).await);
        if self.hearsay.is_news(up_to) {
            let timestamps = 0;
            let skip = Change::Skip { timestamps, up_to };
            replica.client.execute_at_most_once(skip).await?;
            self.hearsay.settle(up_to);
        }
        Ok(())
    }

    /// The leader's: writes, and answers when all have it.
    pub async fn put(&self, registry: &Registry, client: SocketAddr, put: Put) -> Answer {
        let Put {
            key,
            value,
            seen,
            passed_on_by,
        } = put;
        self.console.put(client, &key, &value);
        let deadline = Instant::now() + self.put_within;
        let formed = match self.replica() {
            Some(replica) => Ok(replica),
            None => timeout_at(deadline + OWN_SLACK, self.formed()).await,
        };
        // Not before this leader serves: after a start it must first hear who the three are.
        if let (Ok(_), Some(by), Some(trio)) = (&formed, passed_on_by, registry.trio())
            && trio.id_of(by).is_none()
        {
            let [leader, one, other] = trio.servers();
            let why =
                format!("{by} não é um dos três servidores, que são {leader}, {one} e {other}");
            return nothing_done(key, why);
        }
        let Ok(replica) = formed else {
            return self.excuse(registry, key, None);
        };
        let change = Change::put(&key, &value);
        let written = async {
            self.shown(seen).await;
            self.leave_out_shown(&replica).await?;
            // It asks again while certainly nothing was done, as when the group is not complete yet.
            let said = replica.client.execute_raw_at_most_once(change).await?;
            decode::<Said>(&said).map_err(|Malformed(why)| ClientError::BadResponse(why))
        };
        match timeout_at(deadline + OWN_SLACK, written).await {
            Ok(Ok(Said::Written(timestamp))) => {
                self.console.put_ok(client, &key, timestamp);
                Answer::PutOk {
                    key,
                    value,
                    timestamp,
                }
            }
            Ok(Ok(other)) => unclear(key, format!("{other:?}")),
            Ok(Err(error)) => self.excuse(registry, key, Some(error)),
            Err(_) => self.excuse(registry, key, None),
        }
    }

    /// Why there is no `PUT_OK`, and who is to blame.
    fn excuse(&self, registry: &Registry, key: String, error: Option<ClientError>) -> Answer {
        let bound = self.put_within;
        let (Some(replica), Some(trio)) = (self.replica(), registry.trio()) else {
            let registered = match &registry.registered()[..] {
                [] => "nenhum seguidor se cadastrou".into(),
                some => format!("só se cadastrou {}", together(some)),
            };
            return nothing_done(
                key,
                format!("os três servidores não estavam no ar em {bound:?}: {registered}"),
            );
        };
        let stands = replica.node.status().protocol;
        match error {
            Some(ClientError::Unavailable { .. }) if stands.waiting_for.is_empty() => {
                nothing_done(key, format!("o líder esteve ocupado por {bound:?}"))
            }
            Some(ClientError::Unavailable { .. }) => {
                nothing_done(key, plainly(&trio, &stands.waiting_for))
            }
            Some(ClientError::TooLarge { bytes, bytes_max }) => nothing_done(
                key,
                format!("são {bytes} bytes, e no máximo {bytes_max} cabem"),
            ),
            Some(ClientError::Malformed(why)) => nothing_done(key, why),
            Some(_) | None => {
                let from = if stands.awaited.is_empty() {
                    "todos".into()
                } else {
                    together(stands.awaited.iter().map(|id| trio.name_of(*id)))
                };
                unclear(key, format!("sem REPLICATION_OK de {from} em {bound:?}"))
            }
        }
    }

    /// The leader's: one server takes the place of another, which is not there any more.
    ///
    /// # Errors
    /// Why not, in words for the operator of the one that is to belong.
    pub async fn replace(&self, trio: &Trio, dead: ReplicaId, by: ReplicaId) -> Result<(), String> {
        let Some(replica) = self.replica() else {
            return Err("o líder ainda espera pelos três servidores que conhece".into());
        };
        let agreed = replica.node.status().protocol.configuration;
        let done = |members: &BTreeMap<ReplicaId, _>| {
            members.contains_key(&by) && !members.contains_key(&dead)
        };
        if agreed.is_some_and(|agreed| done(&agreed.members)) {
            // The answer to an earlier attempt was lost.
            return Ok(());
        }
        let deadline = Instant::now() + SEEN_GONE_WITHIN;
        let asked = loop {
            match replica.client.manage(Manage::Replace { dead, by }).await {
                // One that has just ended is not seen to be gone at once.
                Err(ClientError::Refused(why))
                    if why.contains("lives") && Instant::now() < deadline =>
                {
                    sleep(ASK_AGAIN).await;
                }
                other => break other,
            }
        };
        match asked {
            Ok(_) => Ok(()),
            Err(ClientError::Refused(why)) if why.contains("lives") => {
                let dead = trio.name_of(dead);
                Err(format!("{dead} está no ar: pare-o primeiro"))
            }
            Err(ClientError::Refused(why)) => {
                Err(format!("o líder recusa a troca: {}", plainly(trio, &why)))
            }
            Err(_) => Err("o líder não pôde trocar os servidores agora".into()),
        }
    }

    fn replica(&self) -> Option<Replica> {
        self.replica.borrow().clone()
    }

    /// Waits until this server has a replica.
    async fn formed(&self) -> Replica {
        let mut watched = self.replica.subscribe();
        loop {
            if let Some(replica) = watched.borrow_and_update().clone() {
                return replica;
            }
            // The sender is a field of this: it cannot be gone.
            let _ = watched.changed().await;
        }
    }
}

/// The highest timestamp that this replica knows of.
async fn clock(replica: &Replica) -> Option<u64> {
    match asked(replica, Ask::Clock).await? {
        Said::Clock(clock) => Some(clock),
        Said::Written(_) | Said::Value(..) | Said::Null | Said::Behind(_) => None,
    }
}

/// What the table here says, at once; nothing where there is none: the group does not count this server (any more), or nothing has
/// reached it yet.
async fn asked(replica: &Replica, ask: Ask) -> Option<Said> {
    let look = move |table: &Table| table.query(ask);
    let (said, token) = replica.node.read_local(Read::Local, look).await.ok()?;
    (token.index > Index::ZERO).then_some(said)
}

/// The outcome of a PUT is not known.
#[must_use]
pub fn unclear(key: String, why: String) -> Answer {
    Answer::Erro {
        key: Some(key),
        erro: format!("resultado desconhecido, o valor pode ter sido gravado: {why}"),
    }
}

/// A PUT was not carried out, and will not be.
#[must_use]
pub fn nothing_done(key: String, why: String) -> Answer {
    Answer::Erro {
        key: Some(key),
        erro: format!("nada foi feito: {why}"),
    }
}

/// How long a server that has ended may seem to live.
const SEEN_GONE_WITHIN: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// So that the replica's own word about the deadline, which knows more, comes first.
const OWN_SLACK: Duration = Duration::from_millis(300);
