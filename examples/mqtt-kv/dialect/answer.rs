//! Answers to clients.

use super::request::ReplyTo;
use crate::mqtt_kv::machine::Response;
use bytes::Bytes;
use kvrep_core::client_wire::Outcome;
use kvrep_core::state_machine::decode;
use serde::Serialize;
use serde_json::value::RawValue;

/// In which form a server answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Form {
    /// The JSON object of the text.
    #[default]
    Object,
    /// The value and nothing else, for clients that expect that (`--resposta-crua`).
    Raw,
}

#[derive(Serialize)]
struct Answer<'a> {
    idpedido: &'a RawValue,
    chave: &'a str,
    valor: Option<&'a str>,
    resposta: &'a str,
    status: &'a str,
    idserv: u32,
}

/// What is published to the client.
#[must_use]
pub fn write(to: &ReplyTo, outcome: &Outcome, server: u32, form: Form) -> Option<Bytes> {
    let response = match outcome {
        Outcome::Done { response, .. } => decode(response)
            .unwrap_or_else(|_| Response::Wrong("a resposta não pode ser lida".into())),
        Outcome::Malformed(why) => Response::Wrong(format!("o pedido não pode ser lido: {why}")),
        Outcome::TooLarge { bytes, bytes_max } => Response::Wrong(format!(
            "o pedido tem {bytes} bytes; o máximo é {bytes_max}"
        )),
        Outcome::ResponseTooLarge { bytes } => Response::Wrong(format!(
            "a resposta teria {bytes} bytes, mais do que uma resposta pode ter"
        )),
        Outcome::Busy => Response::Wrong("há pedidos demais: tente de novo".into()),
        Outcome::Unknown | Outcome::Behind => {
            Response::Wrong("não se sabe se o pedido foi executado".into())
        }
        Outcome::Refused(why) => Response::Wrong(why.clone()),
        // Of sessions, primaries and operators: nothing that a request of this system leads to.
        Outcome::Opened { .. }
        | Outcome::Closed
        | Outcome::SessionExpired
        | Outcome::OutOfWindow
        | Outcome::NotPrimary { .. }
        | Outcome::Status(_)
        | Outcome::Managed(_) => Response::Wrong("o pedido não foi executado".into()),
    };
    let (valor, resposta, status) = match &response {
        Response::Value(value) => (Some(value.as_str()), value.as_str(), "ok"),
        Response::Missing => (None, MISSING, "naoexiste"),
        Response::Wrong(why) => (None, why.as_str(), "erro"),
    };
    if form == Form::Raw {
        return Some(Bytes::copy_from_slice(resposta.as_bytes()));
    }
    let answer = Answer {
        idpedido: serde_json::from_str(&to.id).ok()?,
        chave: &to.key,
        valor,
        resposta,
        status,
        idserv: server,
    };
    serde_json::to_vec(&answer).ok().map(Bytes::from)
}

/// `resposta` where there is no such key.
pub const MISSING: &str = "nao existe";
