//! What a request asks of the table, and what the table's answer is as a message. Knows neither connections nor replicas.
//!
//! Replies are in one dialect: opcode + 1 for success, 99 with −1 for any failure; a key that is not there is a value of size
//! 0, no keys an empty list.

use super::message::{Content, Message, NO_SESSION, opcode};
use super::table::{Command, Query, Response};
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::state_machine::{decode, encode};
use kvrep_core::{Read, Seq, SessionId};

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A write, carried out each time that it comes.
    Write(Command),
    /// A write of a session, carried out once.
    Once {
        /// The session.
        session: SessionId,
        /// Its number in it.
        seq: Seq,
        /// The client has the answers to everything below.
        done_below: Seq,
        /// The write.
        command: Command,
    },
    /// A read.
    Read(Query),
    /// A session.
    Session,
}

/// What a request asks; `None` if it is no request of this protocol.
#[must_use]
pub fn asked(request: Message) -> Option<Ask> {
    match (request.opcode, request.content) {
        (opcode::GET, Content::Key(key)) => Some(Ask::Read(Query::Get { key })),
        (opcode::SIZE, Content::Result(_)) => Some(Ask::Read(Query::Size)),
        (opcode::GET_KEYS, Content::Result(_)) => Some(Ask::Read(Query::Keys)),
        (opcode::KEYS_AFTER, Content::Result(_)) => Some(Ask::Read(Query::KeysAfter { key: None })),
        (opcode::KEYS_AFTER, Content::Key(key)) => {
            Some(Ask::Read(Query::KeysAfter { key: Some(key) }))
        }
        (opcode::SESSION, Content::Result(_)) => Some(Ask::Session),
        (
            opcode::ONCE,
            Content::Once {
                session,
                seq,
                done_below,
                write,
            },
        ) => Some(Ask::Once {
            session: SessionId(session),
            seq: Seq(seq),
            done_below: Seq(done_below),
            command: command(*write)?,
        }),
        (opcode, content) => command(Message { opcode, content }).map(Ask::Write),
    }
}

fn command(request: Message) -> Option<Command> {
    match (request.opcode, request.content) {
        (opcode::PUT, Content::Entry { key, data, .. }) => Some(Command::Put { key, data }),
        (opcode::COND_PUT, Content::Entry { key, data, .. }) => {
            Some(Command::CondPut { key, data })
        }
        (opcode::DEL, Content::Key(key)) => Some(Command::Del { key }),
        _ => None,
    }
}

impl Ask {
    /// The same for the replicas.
    #[must_use]
    pub fn to_op(&self) -> Op {
        match self {
            Self::Write(command) => Op::Plain(encode(command)),
            Self::Once {
                session,
                seq,
                done_below,
                command,
            } => Op::Command {
                session: *session,
                seq: *seq,
                done_below: *done_below,
                command: encode(command),
            },
            Self::Read(query) => Op::Query {
                read: Read::Linearizable,
                query: encode(query),
            },
            Self::Session => Op::OpenSession,
        }
    }

    /// Whether it may be asked again when it is not known whether it was carried out.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        match self {
            Self::Write(_) => false,
            Self::Once { .. } | Self::Read(_) | Self::Session => true,
        }
    }

    /// The opcode of the request that it came in; that of the write itself where it was wrapped.
    fn opcode(&self) -> i16 {
        match self {
            Self::Write(command) | Self::Once { command, .. } => match command {
                Command::Put { .. } => opcode::PUT,
                Command::CondPut { .. } => opcode::COND_PUT,
                Command::Del { .. } => opcode::DEL,
            },
            Self::Read(query) => match query {
                Query::Get { .. } => opcode::GET,
                Query::Size => opcode::SIZE,
                Query::Keys => opcode::GET_KEYS,
                Query::KeysAfter { .. } => opcode::KEYS_AFTER,
            },
            Self::Session => opcode::SESSION,
        }
    }

    /// The reply to it, if the outcome is one that can be said on this wire.
    #[must_use]
    pub fn reply(&self, outcome: Outcome) -> Option<Message> {
        let opcode = self.opcode() + 1;
        match outcome {
            Outcome::Done { response, .. } => Some(match decode(&response) {
                Ok(response) => answer(opcode, response),
                Err(_) => Message::failure(),
            }),
            Outcome::Opened { session, .. } => {
                let id = session.0.to_be_bytes().to_vec();
                Some(Message::new(opcode, Content::Value(id.into())))
            }
            Outcome::SessionExpired | Outcome::OutOfWindow => {
                let content = Content::Result(NO_SESSION);
                Some(Message::new(opcode::RT_ERROR, content))
            }
            Outcome::TooLarge { .. }
            | Outcome::ResponseTooLarge { .. }
            | Outcome::Malformed(_)
            | Outcome::Refused(_) => Some(Message::failure()),
            Outcome::NotPrimary { .. }
            | Outcome::Busy
            | Outcome::Behind
            | Outcome::Unknown
            | Outcome::Closed
            | Outcome::Status(_)
            | Outcome::Managed(_) => None,
        }
    }
}

fn answer(opcode: i16, response: Response) -> Message {
    let content = match response {
        Response::Failed => return Message::failure(),
        Response::Done => Content::Result(0),
        Response::Data(data) => Content::Value(data.unwrap_or_default()),
        Response::Size(entries) => Content::Result(i32::try_from(entries).unwrap_or(i32::MAX)),
        Response::Keys(keys) => Content::Keys(keys),
    };
    Message::new(opcode, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::Token;

    fn done(response: Response) -> Outcome {
        Outcome::Done {
            response: encode(&response),
            token: Token::default(),
        }
    }

    fn entry() -> Content {
        Content::Entry {
            timestamp: 0,
            key: "k".into(),
            data: "v".into(),
        }
    }

    /// R1.36 and the reply dialect.
    #[test]
    fn replies_are_opcode_plus_one_or_an_error() {
        let reply = |opcode, content, response| {
            let ask = asked(Message::new(opcode, content)).expect("a request");
            ask.reply(done(response)).expect("a reply")
        };
        let (key, any) = (|| Content::Key("k".into()), || Content::Result(1));
        for (request, said, wanted) in [
            (
                (10, entry()),
                Response::Done,
                Message::new(11, Content::Result(0)),
            ),
            (
                (20, entry()),
                Response::Done,
                Message::new(21, Content::Result(0)),
            ),
            ((20, entry()), Response::Failed, Message::failure()),
            (
                (40, key()),
                Response::Done,
                Message::new(41, Content::Result(0)),
            ),
            ((40, key()), Response::Failed, Message::failure()),
            (
                (30, key()),
                Response::Data(None),
                Message::new(31, Content::Value("".into())),
            ),
            (
                (30, key()),
                Response::Data(Some("v".into())),
                Message::new(31, Content::Value("v".into())),
            ),
            (
                (50, any()),
                Response::Size(7),
                Message::new(51, Content::Result(7)),
            ),
            (
                (60, any()),
                Response::Keys(vec![]),
                Message::new(61, Content::Keys(vec![])),
            ),
        ] {
            assert_eq!(reply(request.0, request.1, said), wanted);
        }
    }

    /// R1.17: no operation of clients is one of servers; what is not known is refused.
    #[test]
    fn what_is_no_request_of_a_client_asks_nothing() {
        for (opcode, content) in [
            (70, Content::Key("127.0.0.1:1".into())),
            (80, Content::Result(0)),
            (90, entry()),
            (11, Content::Result(0)),
            (99, Content::Result(-1)),
            (opcode::PUT, Content::Key("k".into())),
            (opcode::GET, entry()),
            (opcode::ONCE, entry()),
            (opcode::KEYS_AFTER, entry()),
            (opcode::SERVERS, Content::Result(0)),
        ] {
            assert_eq!(
                asked(Message::new(opcode, content.clone())),
                None,
                "{opcode} {content:?}"
            );
        }
    }

    /// R1.11: what the primary itself could not do is told as an error; what nobody knows is not told at all.
    #[test]
    fn failures_are_told_and_unknown_outcomes_are_not() {
        let ask = asked(Message::new(opcode::PUT, entry())).expect("a request");
        let too_large = Outcome::TooLarge {
            bytes: 2,
            bytes_max: 1,
        };
        assert_eq!(ask.reply(too_large), Some(Message::failure()));
        assert_eq!(ask.reply(Outcome::Unknown), None);
        assert!(!ask.may_be_repeated());
        let session = asked(Message::new(opcode::SESSION, Content::Result(0))).expect("a request");
        let opened = Outcome::Opened {
            session: SessionId(7),
            token: Token::default(),
        };
        let id = Content::Value(vec![0, 0, 0, 0, 0, 0, 0, 7].into());
        assert_eq!(session.reply(opened), Some(Message::new(111, id)));
    }
}
