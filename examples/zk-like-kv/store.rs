//! This server's part of the table: what it answers to a GET, and what the leader does for a PUT.
//!
//! Reads are answered from this server's copy, by comparing timestamps. Writes go to the group, and are answered when it has them.
//!
//! # Invariants
//!
//! * `PUT_OK` is said only after the group has committed, which with `Ack::All` means that both followers have the write.
//! * Every wait ends: for the three servers, for the group.

use super::console::Console;
use super::message::Answer;
use super::table::{Change, Get, Said, Table};
use kvrep_core::node::{ClientError, Node};
use kvrep_core::{Client, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The table at this server. See the [module](self).
#[derive(Debug)]
pub struct Store {
    console: Arc<Console>,
    put_within: Duration,
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

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.node.fmt(f)
    }
}

impl Store {
    /// Without a replica yet: nobody has written anything, as far as this server knows. A PUT may take so long before its
    /// outcome is unknown.
    #[must_use]
    pub fn new(console: Arc<Console>, put_within: Duration) -> Self {
        Self {
            console,
            put_within,
            replica: watch::Sender::new(None),
        }
    }

    /// Where its lines go.
    #[must_use]
    pub fn console(&self) -> &Arc<Console> {
        &self.console
    }

    /// The three servers are known, and this is the replica here.
    pub fn open(&self, replica: Replica) {
        self.replica.send_replace(Some(replica));
    }

    /// Serves nobody any more.
    #[must_use]
    pub fn close(&self) -> Option<Replica> {
        self.replica.send_replace(None)
    }

    /// Answers a GET.
    pub async fn get(&self, client: SocketAddr, key: String, timestamp: u64) -> Answer {
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
    pub async fn put(&self, client: SocketAddr, key: String, value: String) -> Answer {
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

/// So that the replica's own word about the deadline, which knows more, comes first.
const OWN_SLACK: Duration = Duration::from_millis(300);
