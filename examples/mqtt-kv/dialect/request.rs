//! What clients ask, in the words of the text and in those of other people's programs.
//!
//! A request is read by a pure function of its bytes, so that all servers carry out the same. One that cannot be carried out, but says where its
//! answer goes, is a request all the same: the server that would answer it says what is wrong.

use super::fields::Fields;
use crate::mqtt_kv::machine::{Command, Query};
use crate::mqtt_kv::topics::Topics;
use kvrep_core::protocol::active::{Call, Request};
use kvrep_core::session::Envelope;
use kvrep_core::state_machine::encode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What an answer must say of its request, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// `topico-resp`.
    pub topic: String,
    /// `idpedido` as it was written.
    pub id: String,
    /// `chave`.
    pub key: String,
    /// What was asked.
    pub asked: Asked,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// `consulta`.
    Query,
    /// `insercao`.
    Insertion,
    /// Neither, or not rightly.
    Wrong,
}

/// What stands in the stream where a client speaks.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A request.
    Request(Request),
    /// A request whose answer goes nowhere: why.
    Unanswerable(Request, String),
    /// Nothing: why.
    Nothing(String),
}

/// R0.13: which server is responsible, before it is taken modulo their number: the sum of the bytes of the key.
#[must_use]
pub fn hash(key: &str) -> u64 {
    key.bytes().map(u64::from).sum()
}

/// A query as we write it.
#[must_use]
pub fn query(key: &str, reply_to: &str, id: u64) -> String {
    serde_json::json!({"tipomsg": "consulta", "chave": key, "topico-resp": reply_to, "idpedido": id})
        .to_string()
}

/// An insertion as we write it.
#[must_use]
pub fn insertion(key: &str, value: &str, reply_to: &str, id: u64) -> String {
    serde_json::json!({
        "tipomsg": "insercao", "chave": key, "novovalor": value, "topico-resp": reply_to, "idpedido": id
    })
    .to_string()
}

/// What these fields ask. `kind` is the word of the message, in small letters.
#[must_use]
pub fn read(fields: &Fields<'_>, kind: Option<&str>, bytes: Bytes, topics: &Topics) -> Read {
    let asked = asked(fields, kind, bytes);
    let key = (fields.text(&["chave"]).ok().flatten()).filter(|key| key.len() <= bytes.max);
    let hash = hash(key.as_deref().unwrap_or_default());
    let (call, kind) = match &asked {
        Ok(Sound::Query(key)) => {
            let query = encode(&Query::Get(key.clone()));
            (Call::Read(query), Asked::Query)
        }
        Ok(Sound::Insertion(key, value)) => {
            let (key, value) = (key.clone(), value.clone());
            let command = encode(&Command::Insert { key, value });
            let envelope = Envelope::Plain(command);
            (Call::Write(envelope.encode()), Asked::Insertion)
        }
        Err(why) => {
            let query = encode(&Query::Wrong(why.clone()));
            (Call::Read(query), Asked::Wrong)
        }
    };
    let topic = match fields.text(&["topico-resp", "topico_resp", "topicoresp"]) {
        Ok(Some(topic)) if topics.takes_answers(&topic) => Ok(topic),
        Ok(Some(topic)) => Err(format!(
            "não se pode publicar uma resposta no tópico {:?}",
            shortened(&topic)
        )),
        Ok(None) => Err("falta o campo topico-resp".to_owned()),
        Err(why) => Err(why),
    };
    let id = id(fields).unwrap_or("null").to_owned();
    let request = |reply_to| Request {
        hash,
        call,
        reply_to,
        asked: None,
    };
    match (topic, asked) {
        (Ok(topic), _) => {
            let key = key.unwrap_or_default();
            let reply_to = ReplyTo {
                topic,
                id,
                key,
                asked: kind,
            };
            Read::Request(request(encode(&reply_to)))
        }
        // All that is needed is there, but for whom to tell.
        (Err(why), Ok(Sound::Insertion(..))) => {
            Read::Unanswerable(request(Default::default()), why)
        }
        (Err(why), Ok(Sound::Query(_))) => Read::Nothing(why),
        (Err(nowhere), Err(why)) => Read::Nothing(format!("{why}; {nowhere}")),
    }
}

/// How large a request is, and may be.
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// It is.
    pub here: usize,
    /// It may be.
    pub max: usize,
}

enum Sound {
    Query(String),
    Insertion(String, String),
}

/// What is asked, or what is wrong with it.
fn asked(fields: &Fields<'_>, kind: Option<&str>, bytes: Bytes) -> Result<Sound, String> {
    if bytes.here > bytes.max {
        let Bytes { here, max } = bytes;
        return Err(format!("o pedido tem {here} bytes; o máximo é {max}"));
    }
    let needed = |name: &str| {
        let text = fields.text(&[name])?;
        text.ok_or_else(|| format!("falta o campo {name}"))
    };
    let kind = kind.ok_or("falta o campo tipomsg, com consulta ou insercao")?;
    let sound = match kind {
        "consulta" | "consult" | "query" | "leitura" | "search" | "get" | "c" => {
            Sound::Query(needed("chave")?)
        }
        "insercao" | "inserção" | "insere" | "insert" | "put" | "i" => {
            Sound::Insertion(needed("chave")?, needed("novovalor")?)
        }
        other => {
            let other = shortened(other);
            return Err(format!(
                "tipomsg {other:?} é desconhecido: use consulta ou insercao"
            ));
        }
    };
    id(fields)?;
    Ok(sound)
}

/// `idpedido` as it was written.
fn id<'a>(fields: &Fields<'a>) -> Result<&'a str, String> {
    let id = fields.raw(&["idpedido"]).map(RawValue::get);
    let id = id.ok_or("falta o campo idpedido")?;
    if id.len() > ID_BYTES_MAX {
        return Err(format!("idpedido tem mais de {ID_BYTES_MAX} bytes"));
    }
    match id.as_bytes().first() {
        Some(b'"' | b'-' | b'0'..=b'9') => Ok(id),
        _ => Err("idpedido tem de ser um número ou uma cadeia de caracteres".into()),
    }
}

/// Enough of a strange text to be recognised.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// What is repeated to the client must not be large.
const ID_BYTES_MAX: usize = 256;
const SHOWN_CHARS: usize = 40;
