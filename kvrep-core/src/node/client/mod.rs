//! The client: exactly-once commands and reads against a group, whoever is its primary.
//!
//! Each command carries (session, seq); the group executes that pair once, so that the client may send it again to
//! whomever, as often as it likes. It does so until there is an answer or the deadline has passed. Then the outcome is
//! honest: [`ClientError::Unavailable`] when certainly nothing was done, [`ClientError::Unknown`] when something may
//! have been.
//!
//! A command without a session ([`Client::execute_at_most_once`]) is sent on only while certainly nobody has taken it.
//!
//! Invariants:
//! * a command is never sent under a second number or in a second session once any attempt may have been executed;
//! * at most [`ClientOptions::window`] numbers are open at once, so that the group's table of answers stays small;
//! * the [`token`](Client::token) never goes back.

mod error;
mod numbers;
mod options;
mod route;

use super::link::ClientLink;
use crate::client_wire::{Op, Outcome};
use crate::config::{Read, Token};
use crate::id::{Configuration, SessionId};
use crate::manage::Manage;
use crate::protocol::ProtocolStatus;
use crate::state_machine::{Malformed, StateMachine, decode, encode};
use bytes::Bytes;
pub use error::ClientError;
use numbers::{Number, Numbers, Taken};
pub use options::ClientOptions;
use route::{GaveUp, Route, Routes, Sends, Start};
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Talks to a group. A clone shares the session and may be used at the same time; for a session of its own make
/// another client.
///
/// `S` is the state machine; for bytes in and out ([`execute_raw`](Self::execute_raw)) any type will do.
///
/// ```
/// # use kvrep_core::{ApplyContext, Read, ReplicaId, StateMachine};
/// use kvrep_core::node::{Client, LocalLink, Node};
/// # #[derive(Default)] struct Counter(i64);
/// # impl StateMachine for Counter {
/// #     type Command = i64; type Query = (); type Response = i64; type Snapshot = i64;
/// #     fn apply(&mut self, _: &mut ApplyContext, by: i64) -> i64 { self.0 += by; self.0 }
/// #     fn query(&self, (): ()) -> i64 { self.0 }
/// #     fn snapshot(&self) -> i64 { self.0 }
/// #     fn restore(&mut self, state: i64) { self.0 = state; }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder("counters", ReplicaId(1))
///     .state_machine(Counter::default())
///     .start()
///     .await?;
/// let client = Client::<Counter>::new(LocalLink::new([&node]));
/// assert_eq!(client.execute(2).await?, 2);
/// assert_eq!(client.query(Read::AtLeast(client.token()), ()).await?, 2);
/// node.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct Client<S> {
    shared: Arc<Shared>,
    machine: PhantomData<fn() -> S>,
}

struct Shared {
    link: Arc<dyn ClientLink>,
    options: ClientOptions,
    routes: Routes,
    numbers: Mutex<Numbers>,
    /// Some number became free.
    freed: Notify,
    /// Held by whoever opens the session.
    opening: tokio::sync::Mutex<()>,
}

impl<S> Client<S> {
    /// A client over `link` with the default options.
    pub fn new(link: impl ClientLink) -> Self {
        Self::with_options(link, ClientOptions::default())
    }

    /// A client over `link`.
    pub fn with_options(link: impl ClientLink, options: ClientOptions) -> Self {
        Self::shared(Arc::new(link), options)
    }

    /// A client over a link that others use too.
    pub fn shared(link: Arc<dyn ClientLink>, options: ClientOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                link,
                options,
                routes: Routes::new(),
                numbers: Mutex::new(Numbers::new(options.window.max(1))),
                freed: Notify::new(),
                opening: tokio::sync::Mutex::new(()),
            }),
            machine: PhantomData,
        }
    }

    /// What this client has seen: never older than any answer it got. For [`Read::AtLeast`].
    #[must_use]
    pub fn token(&self) -> Token {
        self.shared.numbers().token()
    }

    /// Carries out a command of bytes, exactly once.
    ///
    /// # Errors
    /// See [`ClientError`]; each says what was done.
    pub async fn execute_raw(&self, command: Bytes) -> Result<Bytes, ClientError> {
        self.shared.execute(command).await
    }

    /// Carries out a command of bytes, at most once, without a session. See
    /// [`execute_at_most_once`](Self::execute_at_most_once).
    ///
    /// # Errors
    /// See [`ClientError`]; each says what was done.
    pub async fn execute_raw_at_most_once(&self, command: Bytes) -> Result<Bytes, ClientError> {
        self.shared.execute_at_most_once(command).await
    }

    /// Answers a query of bytes.
    ///
    /// # Errors
    /// See [`ClientError`]. A query changes nothing, so a failed one may be asked again.
    pub async fn query_raw(&self, read: Read, query: Bytes) -> Result<Bytes, ClientError> {
        self.shared.query(read, query).await
    }

    /// The session, opened if there is none yet. The first command does it by itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn session(&self) -> Result<SessionId, ClientError> {
        let deadline = Instant::now() + self.shared.options.deadline;
        self.shared.open_session(deadline).await
    }

    /// What the replica at `target` knows of itself.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when it does not answer.
    pub async fn status(&self, target: usize) -> Result<ProtocolStatus, ClientError> {
        let deadline = Instant::now() + self.shared.options.deadline;
        let last = match self.shared.link.call(target, Op::Status, deadline).await {
            Ok(Outcome::Status(status)) => return Ok(*status),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        };
        Err(ClientError::Unavailable { last })
    }

    /// Asks the group's primary to change how it runs, and returns the configuration that counts then. Any link will
    /// do: whoever is not primary says who is.
    ///
    /// A lost answer is asked for again. That is harmless, but for a handover without a name, which may then happen
    /// twice.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: not done, and why; [`ClientError::Unavailable`] and [`ClientError::Unknown`] as ever.
    pub async fn manage(&self, manage: Manage) -> Result<Configuration, ClientError> {
        let deadline = Instant::now() + self.shared.options.deadline;
        // An answer may take as long as a change of the configuration: no attempt ends before the deadline.
        let (link, routes) = (&*self.shared.link, &self.shared.routes);
        let patience = self.shared.options.deadline;
        let mut route = Route::new(link, routes, Start::Primary, deadline, patience);
        match route.call(|| Op::Manage(manage.clone())).await {
            Ok(Outcome::Managed(configuration)) => Ok(*configuration),
            Ok(Outcome::Refused(why)) => Err(ClientError::Refused(why)),
            Ok(other) => Err(ClientError::Unknown {
                last: format!("an answer to another question: {other:?}"),
            }),
            Err(gave_up) => Err(gave_up.into_error()),
        }
    }

    /// Ends the session, so that the group need not keep it until it expires. Commands of clones that are under way
    /// then may fail with [`ClientError::SessionExpired`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn close(self) -> Result<(), ClientError> {
        let Some(session) = self.shared.numbers().end() else {
            return Ok(());
        };
        let mut route = self.shared.route(Start::Primary);
        let closed = route.call(|| Op::CloseSession(session)).await;
        closed.map(drop).map_err(GaveUp::into_error)
    }
}

impl<S: StateMachine> Client<S> {
    /// Carries out a command, exactly once.
    ///
    /// # Errors
    /// See [`ClientError`]; each says what was done.
    pub async fn execute(&self, command: S::Command) -> Result<S::Response, ClientError> {
        read_response(self.shared.execute(encode(&command)).await?)
    }

    /// Carries out a command at most once, without a session: nothing is kept for it in the group, and any number may
    /// be under way at once. It goes on to another replica only while certainly nobody has taken it; once it may have
    /// been carried out it is not sent again. So a failover under way costs an [`Unknown`](ClientError::Unknown) where
    /// [`execute`](Self::execute) would ask again and get the answer; whoever sends it again then may do it twice.
    ///
    /// ```
    /// # use kvrep_core::{Fold, ReplicaId};
    /// use kvrep_core::node::{Client, LocalLink, Node};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let highest = Fold::new(0_u64, |highest, seen: u64| *highest = seen.max(*highest));
    /// # let node = Node::builder("highest", ReplicaId(1)).state_machine(highest).start().await?;
    /// let client = Client::<Fold<u64, u64>>::new(LocalLink::new([&node]));
    /// // A highest number seen may be reported twice: an unknown outcome does no harm.
    /// assert_eq!(client.execute_at_most_once(21).await?, 21);
    /// # node.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`ClientError`]; each says what was done.
    pub async fn execute_at_most_once(
        &self,
        command: S::Command,
    ) -> Result<S::Response, ClientError> {
        read_response(self.shared.execute_at_most_once(encode(&command)).await?)
    }

    /// Answers a query, as fresh as `read` says.
    ///
    /// # Errors
    /// See [`ClientError`]. A query changes nothing, so a failed one may be asked again.
    pub async fn query(&self, read: Read, query: S::Query) -> Result<S::Response, ClientError> {
        read_response(self.shared.query(read, encode(&query)).await?)
    }
}

/// For links that lie over another group's client.
impl<S: StateMachine> Client<S> {
    /// [`execute`](Self::execute) with a deadline of its own.
    pub(crate) async fn execute_until(
        &self,
        deadline: Instant,
        command: S::Command,
    ) -> Result<S::Response, ClientError> {
        let route = self.shared.route_until(Start::Primary, deadline);
        let executed = self.shared.execute_on(route, encode(&command)).await;
        read_response(executed?)
    }

    /// [`query`](Self::query) of any replica, as [`Read::Local`], with a deadline of its own.
    pub(crate) async fn query_until(
        &self,
        deadline: Instant,
        query: S::Query,
    ) -> Result<S::Response, ClientError> {
        let route = self.shared.route_until(Start::Anywhere, deadline);
        let asked = self.shared.query_on(route, Read::Local, encode(&query));
        read_response(asked.await?)
    }

    /// Whether the last operation ended because every target is hopeless.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.shared.routes.is_hopeless()
    }
}

fn read_response<R: serde::de::DeserializeOwned>(bytes: Bytes) -> Result<R, ClientError> {
    decode(&bytes).map_err(|Malformed(why)| ClientError::BadResponse(why))
}

impl Shared {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self, start: Start) -> Route<'_> {
        let deadline = Instant::now() + self.options.deadline;
        self.route_until(start, deadline)
    }

    fn route_until(&self, start: Start, deadline: Instant) -> Route<'_> {
        let attempt = self.options.attempt;
        Route::new(&*self.link, &self.routes, start, deadline, attempt)
    }

    async fn execute(&self, command: Bytes) -> Result<Bytes, ClientError> {
        self.execute_on(self.route(Start::Primary), command).await
    }

    async fn execute_on(&self, mut route: Route<'_>, command: Bytes) -> Result<Bytes, ClientError> {
        loop {
            let number = self.number(&mut route).await?;
            let outcome = route.call(|| Op::Command {
                session: number.session,
                seq: number.seq,
                done_below: self.numbers().done_below(&number),
                command: command.clone(),
            });
            let outcome = outcome.await;
            match outcome {
                // No attempt can have been carried out: a new session loses nothing and doubles nothing.
                Ok(Outcome::SessionExpired) if !route.maybe_done() => {
                    self.numbers().forget(number.session);
                }
                Ok(Outcome::SessionExpired) => {
                    self.numbers().forget(number.session);
                    return Err(ClientError::SessionExpired);
                }
                Ok(Outcome::OutOfWindow) if !route.maybe_done() => {
                    return Err(ClientError::WindowTooLarge);
                }
                Ok(outcome) => return self.response(outcome),
                Err(gave_up) => return Err(gave_up.into_error()),
            }
        }
    }

    async fn execute_at_most_once(&self, command: Bytes) -> Result<Bytes, ClientError> {
        let mut route = self.route(Start::Primary).sending(Sends::UntilTaken);
        match route.call(|| Op::Plain(command.clone())).await {
            Ok(outcome) => self.response(outcome),
            Err(gave_up) => Err(gave_up.into_error()),
        }
    }

    async fn query(&self, read: Read, query: Bytes) -> Result<Bytes, ClientError> {
        let start = match read {
            Read::Linearizable => Start::Primary,
            Read::Local | Read::AtLeast(_) => Start::Anywhere,
        };
        self.query_on(self.route(start), read, query).await
    }

    async fn query_on(
        &self,
        mut route: Route<'_>,
        read: Read,
        query: Bytes,
    ) -> Result<Bytes, ClientError> {
        let asked = route.call(|| Op::Query {
            read,
            query: query.clone(),
        });
        match asked.await {
            Ok(outcome) => self.response(outcome),
            Err(GaveUp { last, .. }) => Err(ClientError::Unavailable { last }),
        }
    }

    /// A number for a command; waits while the window is full, opens a session when there is none.
    async fn number(&self, route: &mut Route<'_>) -> Result<NumberInUse<'_>, ClientError> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            let taken = self.numbers().take();
            match taken {
                Taken::Number(number) => {
                    return Ok(NumberInUse {
                        shared: self,
                        number,
                    });
                }
                Taken::NoSession => {
                    self.open_session(route.deadline()).await?;
                }
                Taken::WindowFull => {
                    // Registered before the second look, so that no wake-up is missed.
                    freed.as_mut().enable();
                    if self.numbers().is_full()
                        && tokio::time::timeout_at(route.deadline(), freed)
                            .await
                            .is_err()
                    {
                        return Err(ClientError::Unavailable {
                            last: "the session's window was full".into(),
                        });
                    }
                }
            }
        }
    }

    async fn open_session(&self, deadline: Instant) -> Result<SessionId, ClientError> {
        let _opening = self.opening.lock().await;
        if let Some(session) = self.numbers().session() {
            return Ok(session);
        }
        let mut route = self.route_until(Start::Primary, deadline);
        match route.call(|| Op::OpenSession).await {
            Ok(Outcome::Opened { session, token }) => {
                let mut numbers = self.numbers();
                numbers.begin(session);
                numbers.saw(token);
                Ok(session)
            }
            Ok(other) => Err(ClientError::Unavailable {
                last: format!("no session was opened: {other:?}"),
            }),
            // A session that nobody uses is nothing done.
            Err(GaveUp { last, .. }) => Err(ClientError::Unavailable { last }),
        }
    }

    fn response(&self, outcome: Outcome) -> Result<Bytes, ClientError> {
        match outcome {
            Outcome::Done { response, token } => {
                self.numbers().saw(token);
                Ok(response)
            }
            Outcome::Malformed(why) => Err(ClientError::Malformed(why)),
            Outcome::TooLarge { bytes, bytes_max } => {
                Err(ClientError::TooLarge { bytes, bytes_max })
            }
            Outcome::ResponseTooLarge { bytes } => Err(ClientError::ResponseTooLarge { bytes }),
            Outcome::Refused(why) => Err(ClientError::Refused(why)),
            other @ (Outcome::Opened { .. }
            | Outcome::Closed
            | Outcome::SessionExpired
            | Outcome::OutOfWindow
            | Outcome::NotPrimary { .. }
            | Outcome::Busy
            | Outcome::Behind
            | Outcome::Unknown
            | Outcome::Status(_)
            | Outcome::Managed(_)) => Err(ClientError::Unknown {
                last: format!("an answer to another question: {other:?}"),
            }),
        }
    }
}

/// A number that is given back when its command has ended, however it did: also when its future is dropped.
struct NumberInUse<'a> {
    shared: &'a Shared,
    number: Number,
}

impl std::ops::Deref for NumberInUse<'_> {
    type Target = Number;

    fn deref(&self) -> &Number {
        &self.number
    }
}

impl Drop for NumberInUse<'_> {
    fn drop(&mut self) {
        if self.shared.numbers().done(&self.number) {
            self.shared.freed.notify_waiters();
        }
    }
}

impl GaveUp {
    fn into_error(self) -> ClientError {
        let last = self.last;
        if self.maybe_done {
            ClientError::Unknown { last }
        } else {
            ClientError::Unavailable { last }
        }
    }
}

impl<S> Clone for Client<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            machine: PhantomData,
        }
    }
}

impl<S> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.shared.numbers();
        write!(f, "Client({:?}, {:?})", numbers.session(), numbers.token())
    }
}

#[cfg(test)]
mod tests;
