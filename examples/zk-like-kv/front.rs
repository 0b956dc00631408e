//! What a server does for whoever connects: answers PUT and GET, passes PUT on to the leader, registers followers.
//!
//! All three servers run the same code; only what a PUT does depends on the role. Requests of different connections are served at
//! the same time; those of one, in turn. What another server passes on comes over one connection for all of that server's clients,
//! so the leader carries out as much of it at once as there is, and answers in the order in which it came.
//!
//! # Invariants
//!
//! * Answers on a connection have the order of its requests.
//! * Every wait ends: for the rest of a message, for the leader, for the group, for the client to take its answer.
//! * Whatever a client sends, it gets `ERRO` or a closed connection, and nobody else notices. What one connection has in flight is
//!   bounded in number and in bytes; beyond it nothing is read.

use super::dialect::{Dialect, read_request, write_answer};
use super::forward::Forwarder;
use super::framing::{self, BLANKS, Framed, Framing};
use super::in_order::InOrder;
use super::message::{Answer, Knows, Request};
use super::registering::confirm;
use super::registry::{Registration, Registry};
use super::store::{Put, Store, nothing_done};
use super::trio::Trio;
use crate::common::conversation::{Conversation, Ended, Manners};
use async_trait::async_trait;
use bytes::Bytes;
use kvrep_transport_tcp::ForeignService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// What a server is in the group.
#[derive(Debug)]
pub enum Role {
    /// Executes PUT, and registers followers.
    Leader(Arc<Registry>),
    /// Passes PUT on.
    Follower(Forwarder),
}

/// Serves connections. See the [module](self).
#[derive(Debug)]
pub struct Front {
    /// Where clients find this server.
    pub me: SocketAddr,
    /// What it is.
    pub role: Role,
    /// Its part of the table.
    pub store: Arc<Store>,
}

/// Whether a connection goes on.
enum Then {
    Next,
    End,
}

/// A write that another server passes on.
struct PassedOn {
    registry: Arc<Registry>,
    cliente: SocketAddr,
    put: Put,
}

type Talk = Conversation<TcpStream, Framing>;

/// Whether a connection is one of lines, as far as that is known.
///
/// A program that sends a bare object asks once, and reads until the connection ends. One that sends lines may have its line's end still
/// under way: it says more, or has ended a line before.
#[derive(Default)]
struct Lines {
    known: bool,
}

impl Lines {
    fn saw(&mut self, message: &Framed) {
        self.known |= message.ended_line;
    }

    /// The next message; none either if this is a bare object's connection, as far as can be seen `within` this time.
    ///
    /// May be dropped at any await.
    async fn next(&mut self, talk: &mut Talk, within: Duration) -> Result<Option<Framed>, Ended> {
        if !self.known {
            if !talk.says_more_than(BLANKS, within).await {
                return Ok(None);
            }
            self.known = true;
        }
        talk.next().await
    }
}

#[async_trait]
impl ForeignService for Front {
    async fn serve(&self, stream: TcpStream, first: Bytes, peer: SocketAddr) {
        let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let mut talk = framing::talk(stream, &first, MANNERS);
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
        let mut next = talk.next().await?;
        let mut lines = Lines::default();
        while let Some(message) = next {
            lines.saw(&message);
            next = match self.passed_on(message) {
                Ok(first) => self.carry_out(talk, first, &mut lines).await?,
                Err(message) => {
                    let then = self.converse_once(talk, &message, client).await?;
                    // It is read into the same buffer then, and not into a new one.
                    drop(message);
                    match then {
                        Then::Next => lines.next(talk, LINE_END_WITHIN).await?,
                        Then::End => None,
                    }
                }
            };
        }
        Ok(())
    }

    async fn converse_once(
        &self,
        talk: &mut Talk,
        message: &Framed,
        client: SocketAddr,
    ) -> Result<Then, Ended> {
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
        Ok(match dialect {
            Dialect::Mensagem => Then::Next,
            // Programs that speak these ask once, and read until the connection ends.
            Dialect::Conteudo | Dialect::Command => Then::End,
        })
    }

    /// What another server passes on to this leader; or the message as it was.
    fn passed_on(&self, message: Framed) -> Result<PassedOn, Framed> {
        let Role::Leader(registry) = &self.role else {
            return Err(message);
        };
        match read_request(&message.json) {
            Ok((
                Dialect::Mensagem,
                Request::Put {
                    key,
                    value,
                    cliente: Some(cliente),
                    passed_on_by,
                    seen,
                },
            )) => Ok(PassedOn {
                registry: Arc::clone(registry),
                cliente,
                put: Put {
                    key,
                    value,
                    seen,
                    passed_on_by,
                },
            }),
            _ => Err(message),
        }
    }

    /// Carries out at once what is passed on, and answers in order, until something else is said; that is returned. It stays here while nothing is under
    /// way, so that what the last writes were carried out in is used again.
    async fn carry_out(
        &self,
        talk: &mut Talk,
        first: PassedOn,
        lines: &mut Lines,
    ) -> Result<Option<Framed>, Ended> {
        let mut in_flight = InOrder::default();
        let mut bytes_in_flight = self.begin(first, &mut in_flight).await;
        let mut other = None;
        loop {
            if in_flight.is_empty()
                && let Some(other) = other.take()
            {
                return Ok(other);
            }
            let room = in_flight.len() < IN_FLIGHT_MAX && bytes_in_flight < IN_FLIGHT_BYTES_MAX;
            // Whoever waits for an answer is silent for as long as that takes.
            let within = match in_flight.is_empty() {
                true => LINE_END_WITHIN,
                false => MANNERS.idle,
            };
            tokio::select! {
                biased;
                next = lines.next(talk, within), if room && other.is_none() => {
                    match next?.map(|message| self.passed_on(message)) {
                        Some(Ok(put)) => bytes_in_flight += self.begin(put, &mut in_flight).await,
                        Some(Err(message)) => other = Some(Some(message)),
                        None => other = Some(None),
                    }
                }
                Some(mut done) = in_flight.next(), if !in_flight.is_empty() => loop {
                    let (answer, bytes) = done;
                    bytes_in_flight -= bytes;
                    let answer = write_answer(Dialect::Mensagem, answer, self.me);
                    let more = in_flight.try_next();
                    if talk.feed(&answer[..])? >= TOGETHER_BYTES || more.is_none() {
                        talk.flush().await?;
                    }
                    match more {
                        Some(next) => done = next,
                        None => break,
                    }
                },
            }
        }
    }

    /// Begins to carry this out. How many bytes it holds.
    async fn begin(&self, passed_on: PassedOn, in_flight: &mut InOrder<(Answer, usize)>) -> usize {
        let store = Arc::clone(&self.store);
        let PassedOn {
            registry,
            cliente,
            put,
        } = passed_on;
        let bytes = put.key.len() + put.value.len();
        let work = async move { (store.put(&registry, cliente, put).await, bytes) };
        in_flight.begin(work).await;
        bytes
    }

    async fn answer(
        &self,
        talk: &mut Talk,
        dialect: Dialect,
        request: Request,
        client: SocketAddr,
    ) -> Result<(), Ended> {
        let answer = match request {
            Request::Get { key, timestamp } => self.store.get(client, key, timestamp).await,
            Request::Put {
                key,
                value,
                cliente,
                passed_on_by,
                seen,
            } => {
                let client = cliente.unwrap_or(client);
                let put = Put {
                    key,
                    value,
                    seen,
                    passed_on_by,
                };
                match (&self.role, passed_on_by) {
                    (Role::Leader(registry), _) => self.store.put(registry, client, put).await,
                    (Role::Follower(forwarder), None) => forwarder.put(client, put).await,
                    // Two that take each other for the leader would pass it to and fro.
                    (Role::Follower(forwarder), Some(by)) => {
                        let (me, leader) = (self.me, forwarder.leader());
                        let why =
                            format!("{by} toma {me} por líder, mas {}", it_follows(me, leader));
                        nothing_done(put.key, why)
                    }
                }
            }
            Request::Join {
                servidor,
                knows,
                instead_of,
            } => match &self.role {
                Role::Leader(registry) => {
                    match self.admit(registry, servidor, &knows, instead_of).await {
                        Ok(()) => {
                            let registration = registry.register(servidor, &knows);
                            return self.register(talk, dialect, registration, instead_of).await;
                        }
                        Err(why) => refused(why),
                    }
                }
                Role::Follower(forwarder) => refused(format!(
                    "este servidor não é o líder: {}",
                    it_follows(self.me, forwarder.leader())
                )),
            },
            Request::Who => Answer::ItIs,
            Request::Seen { .. } => refused("VISTO só vem de um seguidor cadastrado".into()),
        };
        self.say(talk, dialect, answer).await
    }

    async fn say(&self, talk: &mut Talk, dialect: Dialect, answer: Answer) -> Result<(), Ended> {
        talk.send(&write_answer(dialect, answer, self.me)[..]).await
    }

    /// Lets a server register: one of the three, one that says truly where it is, or one that takes another one's place.
    async fn admit(
        &self,
        registry: &Registry,
        servidor: SocketAddr,
        knows: &Knows,
        instead_of: Option<SocketAddr>,
    ) -> Result<(), String> {
        if servidor == self.me {
            return Err(format!("{servidor} é o endereço do líder"));
        }
        let Some(trio) = registry.trio() else {
            confirm(servidor).await?;
            if *knows == Knows::TheLeader {
                registry.heed_those_who_know().await;
            }
            return Ok(());
        };
        if trio.id_of(servidor).is_some() {
            return Ok(());
        }
        let Some(dead) = instead_of else {
            return Err(they_are(&trio));
        };
        trio.with(dead, servidor)?;
        confirm(servidor).await?;
        // One after the other: who comes second is told who the three are by then.
        let _turn = registry.turn().await;
        let trio = registry.trio().unwrap_or(trio);
        if trio.id_of(servidor).is_some() {
            return Ok(());
        }
        let new = trio.with(dead, servidor)?;
        let (Some(old), Some(by)) = (trio.id_of(dead), new.id_of(servidor)) else {
            return Err(they_are(&trio));
        };
        if !self.store.is_open() {
            // The leader was started again and waits for all that belong: without this one it would for ever.
            if confirm(dead).await.is_ok() {
                return Err(format!("{dead} está no ar: pare-o primeiro"));
            }
            registry.is_gone(dead);
            self.store.opened_within(BEGIN_WITHIN).await?;
        }
        self.store.replace(&trio, old, by).await?;
        eprintln!("{}: {servidor} toma o lugar de {dead}", self.me);
        registry.replaced(new);
        Ok(())
    }

    /// Tells a follower who the three are as soon as they are known and whenever that changes, and keeps its registration
    /// while it stays. Nothing else is served on such a connection.
    async fn register(
        &self,
        talk: &mut Talk,
        dialect: Dialect,
        registration: Registration<'_>,
        mut instead_of: Option<SocketAddr>,
    ) -> Result<(), Ended> {
        let mut watched = registration.watch();
        loop {
            tokio::select! {
                changed = watched.changed() => if changed.is_err() {
                    return Ok(());
                },
                // It may go, or tell what it was shown.
                more = talk.next() => match more?.map(|message| read_request(&message.json)) {
                    Some(Ok((_, Request::Seen { timestamp }))) => {
                        self.store.shown(timestamp).await;
                        continue;
                    }
                    Some(Ok(_) | Err(_)) | None => return Ok(()),
                },
            }
            let Some(trio) = watched.borrow_and_update().clone() else {
                continue;
            };
            if trio.id_of(registration.address()).is_none() {
                // They became known without it: it is judged as if it came now.
                let (registry, servidor) = (registration.registry(), registration.address());
                match self
                    .admit(registry, servidor, &Knows::TheLeader, instead_of)
                    .await
                {
                    Ok(()) => continue,
                    Err(why) => return self.say(talk, dialect, refused(why)).await,
                }
            }
            // It has what it wanted; should another one take its place, it does not get it back by that.
            instead_of = None;
            let servidores = trio.servers().to_vec();
            self.say(talk, dialect, Answer::JoinOk { servidores })
                .await?;
        }
    }
}

fn it_follows(me: SocketAddr, leader: SocketAddr) -> String {
    format!("{me} segue {leader}: confira IP e porta do líder nos dois servidores")
}

fn they_are(trio: &Trio) -> String {
    let [leader, one, other] = trio.servers();
    format!(
        "os três servidores são {leader}, {one} e {other}; se um deles é um engano ou não volta mais, pare-o e inicie este com \
         --no-lugar-de e o endereço dele"
    )
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
/// For more than the first object of a connection, once it is answered: its line's end may have been lost and sent again.
const LINE_END_WITHIN: Duration = Duration::from_secs(1);
/// How long one that takes another's place waits for the leader to serve. It asks again.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);
/// Of what another server passes on: carried out at once.
const IN_FLIGHT_MAX: usize = 1_024;
/// And its keys and values together; one more may be larger.
const IN_FLIGHT_BYTES_MAX: usize = 256 << 10;
/// Answers that are ready at once are sent together.
const TOGETHER_BYTES: usize = 32 << 10;
