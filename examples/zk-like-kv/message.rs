//! `Mensagem`: what clients and servers say to each other, what is asked with it and what is answered.
//!
//! A message is one JSON object with the fields of [`Mensagem`]; programs that others wrote may say the same in another
//! [dialect](super::dialect), and everything else here does not know which. How a message ends, how large it may be, is the
//! business of [`framing`](super::framing).

use super::dialect::lenient_timestamp;
use super::trio::SERVERS;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One message, as this program writes it. Fields that say nothing are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mensagem {
    /// What it is.
    pub tipo: String,
    /// The key it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The timestamp of the key: the client's in a question (in a PUT only if it has seen the key), the server's in an answer.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient_timestamp"
    )]
    pub timestamp: Option<u64>,
    /// Who asked first, where a server passes a request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cliente: Option<String>,
    /// Which server answers, registers, or passes a request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servidor: Option<String>,
    /// All servers: in answer to a registration, and in one by a follower that knows them from an earlier one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servidores: Option<Vec<String>>,
    /// The follower whose place the one that registers takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_lugar_de: Option<String>,
    /// What went wrong, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erro: Option<String>,
}

impl Mensagem {
    /// A message of this kind that says nothing yet.
    #[must_use]
    pub fn of(tipo: &str) -> Self {
        Self {
            tipo: tipo.into(),
            ..Self::default()
        }
    }

    /// Asks for a write; `cliente` only where another one asked first.
    #[must_use]
    pub fn put(key: &str, value: &str, cliente: Option<SocketAddr>) -> Self {
        Self {
            key: Some(key.into()),
            value: Some(value.into()),
            cliente: cliente.map(|cliente| cliente.to_string()),
            ..Self::of("PUT")
        }
    }

    /// Asks for a value at least as new as `timestamp`.
    #[must_use]
    pub fn get(key: &str, timestamp: u64) -> Self {
        Self {
            key: Some(key.into()),
            timestamp: Some(timestamp),
            ..Self::of("GET")
        }
    }

    /// Tells the leader of a timestamp that a client has shown.
    #[must_use]
    pub fn seen(timestamp: u64) -> Self {
        Self {
            timestamp: Some(timestamp),
            ..Self::of("VISTO")
        }
    }

    /// Registers a follower; `servidores` if it has known all of them before, `no_lugar_de` if it takes another one's place.
    #[must_use]
    pub fn join(
        servidor: SocketAddr,
        servidores: Option<[SocketAddr; SERVERS]>,
        no_lugar_de: Option<SocketAddr>,
    ) -> Self {
        let all = |servers: [SocketAddr; SERVERS]| servers.map(|at| at.to_string()).to_vec();
        Self {
            servidor: Some(servidor.to_string()),
            servidores: servidores.map(all),
            no_lugar_de: no_lugar_de.map(|at| at.to_string()),
            ..Self::of("JOIN")
        }
    }
}

/// What a client, or a server that passes on, wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A write.
    Put {
        /// What to write.
        key: String,
        /// Its new value.
        value: String,
        /// Who asked first, if another server passes it on.
        cliente: Option<SocketAddr>,
        /// Which server passes it on.
        passed_on_by: Option<SocketAddr>,
        /// What the client has seen of the key, if it says so: the write comes after that.
        seen: u64,
    },
    /// A read.
    Get {
        /// What to read.
        key: String,
        /// What the client has seen of it.
        timestamp: u64,
    },
    /// A follower registers.
    Join {
        /// Where it listens.
        servidor: SocketAddr,
        /// What it knows.
        knows: Knows,
        /// The follower whose place it is to take, if one of the three is wrong or gone for good.
        instead_of: Option<SocketAddr>,
    },
    /// The leader asks whether the server is the one that has registered.
    Who,
    /// A registered follower was shown this timestamp, and has none as high.
    Seen {
        /// The timestamp.
        timestamp: u64,
    },
}

/// What a follower knows when it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knows {
    /// Itself and the leader.
    TheLeader,
    /// All three servers: it has registered before, and has a replica.
    All(Vec<SocketAddr>),
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Written, on all servers.
    PutOk {
        /// What.
        key: String,
        /// The value.
        value: String,
        /// The new timestamp.
        timestamp: u64,
    },
    /// The value.
    GetOk {
        /// Of what.
        key: String,
        /// The value.
        value: String,
        /// The server's timestamp of it.
        timestamp: u64,
    },
    /// Nobody has written this key, as far as the server and the client know.
    Null {
        /// Which.
        key: String,
    },
    /// The client has seen something newer than this server has.
    TryOtherServerOrLater {
        /// Of which key.
        key: String,
        /// The server's timestamp of it; 0 without one.
        timestamp: u64,
    },
    /// The follower is one of these three servers.
    JoinOk {
        /// All of them, the leader first.
        servidores: Vec<SocketAddr>,
    },
    /// It is the server that `servidor` says, as of every answer.
    ItIs,
    /// It cannot be answered, and why.
    Erro {
        /// Of which key, if it is known.
        key: Option<String>,
        /// Why.
        erro: String,
    },
}

/// What a server says that is behind what the client has seen.
pub const TRY: &str = "TRY_OTHER_SERVER_OR_LATER";
