//! A client: what it has seen of each key, and requests to servers chosen at random.
//!
//! It keeps the promise that a client never gets a value older than one it has seen: each GET carries the timestamp that
//! was seen of the key, and a server that is behind says so instead of answering. Who the leader is, it does not know.
//!
//! Invariant: what was seen of a key never goes back; only values move it, neither `NULL` nor
//! `TRY_OTHER_SERVER_OR_LATER` does.

use super::failures::{of_address, of_io, of_json, of_talk};
use super::framing;
use super::message::{Mensagem, TRY};
use crate::common::conversation::{Manners, dial};
use kvrep_core::random::Rng;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One client of the three servers.
#[derive(Debug)]
pub struct Session {
    servers: Vec<String>,
    seen: BTreeMap<String, u64>,
    random: Rng,
    patience: Duration,
}

/// What came of a PUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The server that was asked.
    pub server: String,
    /// What the client had seen of the key when it asked.
    pub sent: u64,
    /// The write's timestamp.
    pub timestamp: u64,
}

/// What came of a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The server that was asked.
    pub server: String,
    /// What it said.
    pub value: Value,
    /// What the client had seen of the key when it asked.
    pub sent: u64,
    /// The server's timestamp of the key.
    pub timestamp: u64,
}

/// What a server has of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// This.
    Of(String),
    /// Nothing.
    Null,
    /// Nothing as new as what the client has seen.
    Behind,
}

impl Session {
    /// A client of these servers (`IP:porta`) that has seen nothing. `seed` decides which of them is asked when.
    #[must_use]
    pub fn new(servers: Vec<String>, seed: u64, patience: Duration) -> Self {
        Self {
            servers,
            seen: BTreeMap::new(),
            random: Rng::new(seed),
            patience,
        }
    }

    /// Asks these servers from now on. What was seen stays seen.
    pub fn ask_at(&mut self, servers: Vec<String>) {
        self.servers = servers;
    }

    /// What it has seen of a key; 0: nothing.
    #[must_use]
    pub fn seen(&self, key: &str) -> u64 {
        self.seen.get(key).copied().unwrap_or(0)
    }

    /// Writes.
    ///
    /// # Errors
    /// Why there is no `PUT_OK`, in words for people. Unless they say that nothing was done, the value may have been written.
    pub async fn put(&mut self, key: &str, value: &str) -> Result<Written, String> {
        let sent = self.seen(key);
        let put = Mensagem {
            // A write gets a timestamp above what its client has seen, also from a leader that knows nothing of that.
            timestamp: (sent > 0).then_some(sent),
            ..Mensagem::put(key, value, None)
        };
        let (server, said) = self.ask(&put).await?;
        match (said.tipo.as_str(), said.timestamp) {
            ("PUT_OK", Some(timestamp)) => {
                self.see(key, timestamp);
                Ok(Written {
                    server,
                    sent,
                    timestamp,
                })
            }
            _ => Err(complaint(&server, said)),
        }
    }

    /// Reads.
    ///
    /// # Errors
    /// Why there is no answer, in words for people.
    pub async fn get(&mut self, key: &str) -> Result<Found, String> {
        let sent = self.seen(key);
        let (server, said) = self.ask(&Mensagem::get(key, sent)).await?;
        let timestamp = said.timestamp.unwrap_or(0);
        let value = match (said.tipo.as_str(), said.value.clone()) {
            ("GET_OK", Some(value)) if timestamp >= sent => {
                self.see(key, timestamp);
                Value::Of(value)
            }
            ("GET_OK", Some(_)) => {
                return Err(format!(
                    "{server} devolveu um valor mais antigo ({timestamp}) do que o já visto ({sent})"
                ));
            }
            ("NULL", _) => Value::Null,
            (TRY, _) => Value::Behind,
            _ => return Err(complaint(&server, said)),
        };
        Ok(Found {
            server,
            value,
            sent,
            timestamp,
        })
    }

    fn see(&mut self, key: &str, timestamp: u64) {
        let seen = self.seen.entry(key.to_owned()).or_default();
        *seen = timestamp.max(*seen);
    }

    /// Asks a server chosen at random; another one if certainly nothing was sent to it.
    async fn ask(&mut self, ask: &Mensagem) -> Result<(String, Mensagem), String> {
        let (server, stream) = self.connect().await?;
        match timeout(self.patience, ask_once(stream, ask)).await {
            Ok(Ok(said)) => Ok((server, said)),
            Ok(Err(why)) => Err(format!("{server}: {why}")),
            Err(_) => Err(format!("{server}: sem resposta em {:?}", self.patience)),
        }
    }

    async fn connect(&mut self) -> Result<(String, TcpStream), String> {
        let mut left = self.servers.clone();
        let mut why = "nenhum servidor conhecido: INIT primeiro".to_owned();
        while !left.is_empty() {
            let choice = self.random.below(left.len() as u64);
            let server = left.swap_remove(usize::try_from(choice).unwrap_or(0));
            match dial(&server, CONNECT_WITHIN).await {
                Ok(stream) => return Ok((server, stream)),
                Err(error) => why = format!("nada foi feito: {}", no_way(&server, &error)),
            }
        }
        Err(why)
    }
}

/// Why there is no connection. What has no number of the system's is the resolver's word about a name.
fn no_way(server: &str, error: &io::Error) -> String {
    if error.raw_os_error().is_some() || error.kind() == ErrorKind::TimedOut {
        return format!("{server}: {}", of_io(error));
    }
    of_address(server, error)
}

fn complaint(server: &str, said: Mensagem) -> String {
    let why = said.erro.unwrap_or(said.tipo);
    format!("{server}: {why}")
}

/// Asks over a connection of its own.
async fn ask_once(stream: TcpStream, ask: &Mensagem) -> Result<Mensagem, String> {
    let manners = Manners {
        idle: ANSWER_WITHIN,
        ..Manners::default()
    };
    let mut talk = framing::talk(stream, &[], manners);
    let json = serde_json::to_vec(ask).map_err(|error| error.to_string())?;
    talk.send(&json[..]).await.map_err(|e| of_talk(&e))?;
    match talk.next().await {
        Ok(Some(answer)) => serde_json::from_slice(&answer.json).map_err(|error| {
            format!(
                "não se entende a resposta: {}",
                of_json(&answer.json, &error)
            )
        }),
        Ok(None) => Err("a conexão terminou sem resposta".into()),
        Err(ended) => Err(of_talk(&ended)),
    }
}

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Whoever asks has a deadline of its own, which is shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(2 * 3_600);
