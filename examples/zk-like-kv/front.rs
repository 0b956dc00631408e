//! What a server does for whoever connects: answers PUT and GET, passes PUT on to the leader, registers followers.
//!
//! All three servers run the same code; only what a PUT does depends on the role. Reads are answered here, from this
//! server's table, by comparing timestamps. Requests of different connections are served at the same time; those of one, in
//! turn.
//!
//! # Invariants
//!
//! * `PUT_OK` is sent only after the group has committed, which with `Ack::All` means that both followers have the write.
//! * Every wait ends: for the rest of a message, for the leader, for the group, for the client to take its answer.
//! * Whatever a client sends, it gets `ERRO` or a closed connection, and nobody else notices.

use super::console::Console;
use super::dialect::{Dialect, read_request, write_answer};
use super::framing::Framing;
use super::message::{Answer, Mensagem, Request};
use super::registry::{Registration, Registry};
use super::table::{Change, Get, Said, Table};
use crate::common::conversation::{Conversation, Ended, Manners, dial};
use async_trait::async_trait;
use bytes::Bytes;
use kvrep_core::node::{ClientError, Node};
use kvrep_core::{Client, Read};
use kvrep_transport_tcp::ForeignService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// What a server is in the group.
#[derive(Debug)]
pub enum Role {
    /// Executes PUT, and registers followers.
    Leader(Registry),
    /// Passes PUT on.
    Follower {
        /// To whom.
        leader: SocketAddr,
    },
}

/// Serves connections. See the [module](self).
#[derive(Debug)]
pub struct Front {
    /// Where clients find this server.
    pub me: SocketAddr,
    /// What it is.
    pub role: Role,
    /// Where its lines go.
    pub console: Arc<Console>,
    /// How long a PUT may take before its outcome is unknown.
    pub put_within: Duration,
    /// The replica's client, once the three servers are known.
    pub replica: watch::Sender<Option<Replica>>,
}

/// This server's replica, as the front sees it.
#[derive(Clone)]
pub struct Replica {
    /// Asks the replica in this process.
    pub client: Client<Table>,
    /// The replica itself.
    pub node: Arc<Node>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.node.fmt(f)
    }
}

type Talk = Conversation<TcpStream, Framing>;

#[async_trait]
impl ForeignService for Front {
    async fn serve(&self, stream: TcpStream, first: Bytes, peer: SocketAddr) {
        let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let mut talk = Conversation::continued(stream, &first, Framing::default(), MANNERS);
        if let Err(ended) = self.converse(&mut talk, client).await {
            tracing::debug!(%client, %ended, "a conversation ended");
            if let Ended::Malformed(why) = ended {
                let erro = Answer::Erro {
                    key: None,
                    erro: why,
                };
                let _ = self.say(&mut talk, Dialect::Mensagem, erro).await;
            }
        }
        talk.finish().await;
    }
}

impl Front {
    async fn converse(&self, talk: &mut Talk, client: SocketAddr) -> Result<(), Ended> {
        while let Some(message) = talk.next().await? {
            let dialect = match read_request(&message.json) {
                Ok((dialect, request)) => {
                    self.answer(talk, dialect, request, client).await?;
                    dialect
                }
                Err((dialect, erro)) => {
                    let erro = Answer::Erro { key: None, erro };
                    self.say(talk, dialect, erro).await?;
                    dialect
                }
            };
            // Programs that send bare objects ask once, and read until the connection ends.
            if !message.ended_line || dialect != Dialect::Mensagem {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn answer(
        &self,
        talk: &mut Talk,
        dialect: Dialect,
        request: Request,
        client: SocketAddr,
    ) -> Result<(), Ended> {
        let answer = match request {
            Request::Get { key, timestamp } => self.get(client, key, timestamp).await,
            Request::Put {
                key,
                value,
                cliente,
            } => {
                let client = cliente.unwrap_or(client);
                match &self.role {
                    Role::Leader(_) => self.put(client, key, value).await,
                    Role::Follower { leader } => self.forward(*leader, client, key, value).await,
                }
            }
            Request::Join { servidor, knows } => match &self.role {
                Role::Leader(registry) => {
                    let registration = registry.register(servidor, knows);
                    return self.register(talk, dialect, registration).await;
                }
                Role::Follower { leader } => refused(format!("o líder é {leader}")),
            },
        };
        self.say(talk, dialect, answer).await
    }

    async fn say(&self, talk: &mut Talk, dialect: Dialect, answer: Answer) -> Result<(), Ended> {
        talk.send(&write_answer(dialect, answer, self.me)[..]).await
    }

    async fn get(&self, client: SocketAddr, key: String, timestamp: u64) -> Answer {
        let said = match self.replica() {
            // Nobody has written anything yet, as far as this server knows.
            None if timestamp == 0 => Ok(Said::Null),
            None => Ok(Said::Behind(0)),
            Some(replica) => {
                let query = Get {
                    key: key.clone(),
                    timestamp,
                };
                replica.client.query(Read::Local, query).await
            }
        };
        let answer = match said {
            Ok(said) => said.into_answer(key.clone()),
            Err(error) => Answer::Erro {
                key: Some(key.clone()),
                erro: error.to_string(),
            },
        };
        self.console.get(client, &key, timestamp, &answer);
        answer
    }

    /// The leader's: writes, and answers when all have it.
    async fn put(&self, client: SocketAddr, key: String, value: String) -> Answer {
        self.console.put(client, &key, &value);
        let deadline = Instant::now() + self.put_within;
        let put = Change::Put {
            key: key.clone(),
            value: value.clone(),
        };
        let written = async {
            let replica = self.formed().await;
            // It asks again while certainly nothing was done, as when the group is not complete yet.
            replica.client.execute_at_most_once(put).await
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
            Ok(Err(
                error @ (ClientError::Unavailable { .. }
                | ClientError::TooLarge { .. }
                | ClientError::Malformed(_)),
            )) => nothing_done(key, error.to_string()),
            Ok(Err(error)) => {
                let bound = self.put_within;
                unclear(
                    key,
                    format!("sem REPLICATION_OK de todos em {bound:?}: {error}"),
                )
            }
            Err(_) if self.replica().is_none() => {
                let bound = self.put_within;
                nothing_done(
                    key,
                    format!("os três servidores não estavam no ar em {bound:?}"),
                )
            }
            Err(_) => {
                let bound = self.put_within;
                unclear(key, format!("sem REPLICATION_OK de todos em {bound:?}"))
            }
        }
    }

    /// A follower's: lets the leader write, and relays its answer.
    async fn forward(
        &self,
        leader: SocketAddr,
        client: SocketAddr,
        key: String,
        value: String,
    ) -> Answer {
        self.console.forward(&key, &value);
        let deadline = Instant::now() + self.put_within + RELAY_SLACK;
        let Some(stream) = reach(leader, deadline).await else {
            return nothing_done(key, format!("o líder {leader} não responde"));
        };
        let ask = Mensagem::put(&key, &value, Some(client));
        match timeout_at(deadline, ask_once(stream, &ask)).await {
            Ok(Ok(said)) => match (said.tipo.as_str(), said.timestamp) {
                ("PUT_OK", Some(timestamp)) => Answer::PutOk {
                    key,
                    value,
                    timestamp,
                },
                _ => Answer::Erro {
                    key: Some(key),
                    erro: said.erro.unwrap_or(said.tipo),
                },
            },
            Ok(Err(why)) => unclear(key, why),
            Err(_) => unclear(key, format!("o líder {leader} não respondeu a tempo")),
        }
    }

    /// Tells a follower who the three are as soon as they are known, and keeps its registration while it stays.
    async fn register(
        &self,
        talk: &mut Talk,
        dialect: Dialect,
        registration: Registration<'_>,
    ) -> Result<(), Ended> {
        let trio = tokio::select! {
            trio = registration.trio() => trio,
            // Nothing more is said in the meantime, but it may go.
            more = talk.next() => return more.map(drop),
        };
        let servidores = trio.servers().to_vec();
        let answer = match trio.id_of(registration.address()) {
            Some(_) => Answer::JoinOk { servidores },
            None => refused(format!("os três servidores são {servidores:?}")),
        };
        self.say(talk, dialect, answer).await
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

/// A connection to the leader, which may be about to start.
async fn reach(leader: SocketAddr, deadline: Instant) -> Option<TcpStream> {
    while Instant::now() < deadline {
        if let Ok(stream) = dial(&leader.to_string(), REACH_WITHIN).await {
            return Some(stream);
        }
        sleep(REACH_AGAIN).await;
    }
    None
}

/// Asks over a connection of its own.
///
/// # Errors
/// Why there is no answer; the request may have been carried out.
pub async fn ask_once(stream: TcpStream, ask: &Mensagem) -> Result<Mensagem, String> {
    let manners = Manners {
        idle: ANSWER_WITHIN,
        ..MANNERS
    };
    let mut talk = Conversation::new(stream, Framing::default(), manners);
    let json = serde_json::to_vec(ask).map_err(|error| error.to_string())?;
    talk.send(&json[..]).await.map_err(|e| e.to_string())?;
    match talk.next().await {
        Ok(Some(answer)) => serde_json::from_slice(&answer.json).map_err(|e| e.to_string()),
        Ok(None) => Err("a conexão terminou sem resposta".into()),
        Err(ended) => Err(ended.to_string()),
    }
}

fn unclear(key: String, why: String) -> Answer {
    Answer::Erro {
        key: Some(key),
        erro: format!("resultado desconhecido, o valor pode ter sido gravado: {why}"),
    }
}

fn nothing_done(key: String, why: String) -> Answer {
    Answer::Erro {
        key: Some(key),
        erro: format!("nada foi feito: {why}"),
    }
}

fn refused(erro: String) -> Answer {
    Answer::Erro { key: None, erro }
}

/// How long a server waits for its clients.
const MANNERS: Manners = Manners {
    idle: Duration::from_secs(60),
    message: Duration::from_secs(5),
    write: Duration::from_secs(5),
};
/// Beyond any bound of a PUT: whoever waits for an answer has a deadline of its own.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);
/// So that the replica's own word about the deadline, which knows more, comes first.
const OWN_SLACK: Duration = Duration::from_millis(300);
/// A follower waits a little longer than the leader, so that the leader's word about the bound gets through.
const RELAY_SLACK: Duration = Duration::from_secs(1);
const REACH_WITHIN: Duration = Duration::from_secs(1);
const REACH_AGAIN: Duration = Duration::from_millis(50);
