//! The forms of section 2 of the requirements: what the tests of them share.

mod anything;
mod aside;
mod in_order;
mod requests;

use super::*;
use crate::mqtt_kv::machine::{Command, Query, Response, Table};
use kvrep_core::config::Token;
use kvrep_core::protocol::active::{
    Call, Claim, Confirmed, Decision, Heartbeat, Life, Request, Stamp,
};
use kvrep_core::session::{Envelope, Machine};
use kvrep_core::state_machine::encode;
use kvrep_core::{GroupId, Incarnation, Index, Limits, RawStateMachine, Term, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

fn member(replica: u32) -> StreamMember {
    StreamMember {
        group: GroupId::named("mqtt-kv"),
        replica: ReplicaId(replica),
        incarnation: Incarnation(1),
        members: [0, 1, 2].map(ReplicaId).to_vec(),
        config_hash: u64::MAX - 5,
        request_bytes_max: 1_000,
        state_bytes_max: 1 << 20,
    }
}

fn dialect(replica: u32) -> Json {
    let mut dialect = Json::new(Topics::default());
    dialect.open(&member(replica)).expect("sound topics");
    dialect
}

fn read(payload: &str) -> Item {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let mut items = dialect(0).read_items(&payload);
    assert_eq!(items.len(), 1);
    items.remove(0).item
}

fn request(payload: &str) -> Request {
    match read(payload) {
        Item::Request(request) => request,
        other => panic!("{payload}: {other:?}"),
    }
}

enum Meant {
    Get(String),
    Insert(String, String),
    Wrong(String),
}

fn meant(request: &Request) -> Meant {
    match &request.call {
        Call::Read(query) => match decode(query).expect("a query") {
            Query::Get(key) => Meant::Get(key),
            Query::Wrong(why) => Meant::Wrong(why),
        },
        Call::Write(envelope) => match Envelope::decode(envelope.clone()).expect("an envelope") {
            Envelope::Plain(command) => {
                let Command::Insert { key, value } = decode(&command).expect("a command");
                Meant::Insert(key, value)
            }
            other => panic!("{other:?}"),
        },
    }
}

fn done(response: &Response) -> Outcome {
    let token = Token {
        term: Term::ZERO,
        index: Index(1),
    };
    Outcome::Done {
        response: encode(response),
        token,
    }
}

fn answer(dialect: &mut Json, request: &Request, response: &Response) -> Option<(String, Value)> {
    let (topic, payload) = dialect.answer(&request.reply_to, &done(response))?;
    Some((
        topic.to_string(),
        serde_json::from_slice(&payload).expect("JSON"),
    ))
}

fn sample_life() -> Life {
    Life {
        incarnation: Incarnation(5),
        attempt: 1,
    }
}

fn sample_heartbeat() -> Heartbeat {
    Heartbeat {
        replica: ReplicaId(2),
        life: sample_life(),
        serving: true,
        at: Index(4),
        chain: u64::MAX,
        answered: Index(3),
        confirmed: Confirmed {
            at: Index(2),
            chain: u64::MAX - 2,
        },
        origin: Some(7),
        holding: false,
        view: u64::MAX - 1,
        failed: vec![(ReplicaId(0), sample_life())],
        claims: vec![Claim {
            mark: Stamp {
                replica: ReplicaId(2),
                incarnation: Incarnation(5),
                seq: 3,
            },
            at: Index(4),
            chain: 1,
            digest: Some(u64::MAX),
        }],
    }
}
