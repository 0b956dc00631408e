//! What a client or a server asks, read from any dialect.
//!
//! What cannot be carried unaltered is refused: a text that is not UTF-8, half of a surrogate pair, a key and value that would not fit
//! into every message about them.

use super::timestamp::{lenient_timestamp, timestamp_of};
use super::{Dialect, KEY_AND_VALUE_BYTES_MAX};
use crate::zk_like_kv::failures::of_json;
use crate::zk_like_kv::message::{Knows, Request};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// Reads a request and its dialect.
///
/// # Errors
/// The dialect in which to say so, and what is wrong with it.
pub fn read_request(json: &[u8]) -> Result<(Dialect, Request), (Dialect, String)> {
    let any: AnyDialect = serde_json::from_slice(json).map_err(|error| {
        (
            Dialect::Mensagem,
            format!("nada foi feito: {}", of_json(json, &error)),
        )
    })?;
    let (dialect, kind) = match (&any.tipo, &any.command, &any.conteudo) {
        (Some(tipo), _, Some(_)) => (Dialect::Conteudo, tipo.0.clone()),
        (Some(tipo), _, None) => (Dialect::Mensagem, tipo.0.clone()),
        (None, Some(command), _) => (Dialect::Command, command.0.clone()),
        (None, None, _) => return Err((Dialect::Mensagem, "falta o campo tipo".into())),
    };
    request_of(dialect, &kind, any)
        .map(|request| (dialect, request))
        .map_err(|why| (dialect, why))
}

/// Every field that any dialect uses.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AnyDialect<'a> {
    #[serde(borrow)]
    tipo: Option<Text<'a>>,
    #[serde(borrow)]
    command: Option<Text<'a>>,
    conteudo: Option<Value>,
    key: Option<String>,
    value: Option<String>,
    #[serde(deserialize_with = "lenient_timestamp")]
    timestamp: Option<u64>,
    #[serde(borrow)]
    cliente: Option<Text<'a>>,
    #[serde(borrow)]
    servidor: Option<Text<'a>>,
    servidores: Option<Vec<String>>,
    no_lugar_de: Option<String>,
}

/// A text that need not be copied to be looked at.
#[derive(Default, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn request_of(dialect: Dialect, kind: &str, mut any: AnyDialect<'_>) -> Result<Request, String> {
    if let Some(conteudo) = any.conteudo.take() {
        (any.key, any.value, any.timestamp) = unpack(kind, &conteudo);
    }
    let key = |any: &mut AnyDialect<'_>| any.key.take().ok_or("falta o campo key");
    match kind {
        "PUT" => {
            let (key, value) = (key(&mut any)?, any.value.ok_or("falta o campo value")?);
            bounded(&key, &value)?;
            let address = |at: Option<Text<'_>>| at.and_then(|at| at.0.parse().ok());
            Ok(Request::Put {
                key,
                value,
                // Whoever cannot be named is shown as the one who is connected.
                cliente: address(any.cliente),
                passed_on_by: address(any.servidor),
                // What stands there in other dialects says nothing of what was seen.
                seen: match dialect {
                    Dialect::Mensagem => any.timestamp.unwrap_or(0),
                    Dialect::Conteudo | Dialect::Command => 0,
                },
            })
        }
        "GET" => {
            let key = key(&mut any)?;
            bounded(&key, "")?;
            Ok(Request::Get {
                key,
                timestamp: any.timestamp.unwrap_or(0),
            })
        }
        "JOIN" => {
            let servidor = any.servidor.unwrap_or_default();
            let servidor = servidor.0.parse();
            let servidor = servidor.map_err(|_| "o campo servidor deve ser ip:porta")?;
            let addresses =
                |all: Vec<String>| all.iter().filter_map(|at| at.parse().ok()).collect();
            let knows = any.servidores.map(addresses);
            let instead_of = any.no_lugar_de.map(|at| at.parse()).transpose();
            Ok(Request::Join {
                servidor,
                knows: knows.map_or(Knows::TheLeader, Knows::All),
                instead_of: instead_of.map_err(|_| "o campo no_lugar_de deve ser ip:porta")?,
            })
        }
        "QUEM" => Ok(Request::Who),
        "VISTO" => Ok(Request::Seen {
            timestamp: any.timestamp.unwrap_or(0),
        }),
        _ => Err(format!("tipo desconhecido: {}", shortened(kind))),
    }
}

/// What is written must fit into every message that it will be in: with `cliente` on its way to the leader, with `servidor` in an
/// answer, in any dialect.
fn bounded(key: &str, value: &str) -> Result<(), String> {
    // Each byte is at most six in JSON: what is short needs no counting.
    if (key.len() + value.len()) * 6 <= KEY_AND_VALUE_BYTES_MAX {
        return Ok(());
    }
    let in_json = |text| serde_json::to_string(text).map_or(usize::MAX, |json| json.len() - 2);
    let bytes = in_json(key).saturating_add(in_json(value));
    if bytes <= KEY_AND_VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "nada foi feito: key e value têm juntos no máximo {KEY_AND_VALUE_BYTES_MAX} bytes em JSON, e estes têm {bytes}"
    ))
}

/// `["k","v"]` of a PUT, `["k",ts]` of a GET.
fn unpack(kind: &str, conteudo: &Value) -> (Option<String>, Option<String>, Option<u64>) {
    let text = |at: usize| conteudo.get(at).and_then(Value::as_str).map(Into::into);
    match kind {
        "PUT" => (text(0), text(1), None),
        _ => (text(0), None, conteudo.get(1).and_then(timestamp_of)),
    }
}

/// Enough of a word that came from outside.
fn shortened(word: &str) -> String {
    word.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn server() -> SocketAddr {
        "127.0.0.1:10098".parse().unwrap()
    }

    #[test]
    fn r3_15_requests_are_read_in_all_three_dialects() {
        let put = |cliente: Option<&str>| Request::Put {
            key: "k".into(),
            value: "v".into(),
            cliente: cliente.map(|cliente| cliente.parse().unwrap()),
            passed_on_by: None,
            seen: 0,
        };
        let passed_on = Request::Put {
            key: "k".into(),
            value: "v".into(),
            cliente: Some("10.0.0.7:5".parse().unwrap()),
            passed_on_by: Some(server()),
            seen: 4,
        };
        let get = |timestamp| Request::Get {
            key: "k".into(),
            timestamp,
        };
        let join = |knows, instead_of| Request::Join {
            servidor: server(),
            knows,
            instead_of,
        };
        let (m, c, o) = (Dialect::Mensagem, Dialect::Conteudo, Dialect::Command);
        for (json, expected) in [
            (r#"{"tipo":"PUT","key":"k","value":"v"}"#, (m, put(None))),
            (
                r#"{"tipo":"PUT","key":"k","value":"v","cliente":"10.0.0.7:5"}"#,
                (m, put(Some("10.0.0.7:5"))),
            ),
            (
                r#"{"tipo":"GET","key":"k","timestamp":4,"more":[1]}"#,
                (m, get(4)),
            ),
            (
                r#"{"tipo":"GET","key":"k","value":null,"timestamp":null}"#,
                (m, get(0)),
            ),
            (r#"{"tipo":"PUT","conteudo":["k","v"]}"#, (c, put(None))),
            (r#"{"tipo":"GET","conteudo":["k",2.5]}"#, (c, get(3))),
            (r#"{"tipo":"GET","conteudo":["k",0]}"#, (c, get(0))),
            (
                r#"{"command":"PUT","timestamp":0,"key":"k","value":"v","host":"h","port":1}"#,
                (o, put(None)),
            ),
            (
                r#"{"command":"GET","timestamp":"12","key":"k"}"#,
                (o, get(12)),
            ),
            (
                r#"{"tipo":"JOIN","servidor":"127.0.0.1:10098"}"#,
                (m, join(Knows::TheLeader, None)),
            ),
            (
                r#"{"tipo":"JOIN","servidor":"127.0.0.1:10098","servidores":["x"]}"#,
                (m, join(Knows::All(vec![]), None)),
            ),
            (
                r#"{"tipo":"JOIN","servidor":"127.0.0.1:10098","no_lugar_de":"127.0.0.1:10098"}"#,
                (m, join(Knows::TheLeader, Some(server()))),
            ),
            (
                r#"{"tipo":"PUT","key":"k","value":"v","timestamp":4,"cliente":"10.0.0.7:5","servidor":"127.0.0.1:10098"}"#,
                (m, passed_on),
            ),
            (
                r#"{"command":"PUT","timestamp":99,"key":"k","value":"v"}"#,
                (o, put(None)),
            ),
            (r#"{"tipo":"QUEM"}"#, (m, Request::Who)),
            (
                r#"{"tipo":"VISTO","timestamp":4}"#,
                (m, Request::Seen { timestamp: 4 }),
            ),
        ] {
            assert_eq!(read_request(json.as_bytes()), Ok(expected), "{json}");
        }
    }

    #[test]
    fn what_is_no_request_is_answered_in_its_dialect_with_the_reason() {
        for (json, dialect, why) in [
            ("{}", Dialect::Mensagem, "tipo"),
            ("[1]", Dialect::Mensagem, "Mensagem"),
            (r#"{"tipo":"PUT","key":"k"}"#, Dialect::Mensagem, "value"),
            (r#"{"tipo":"GET"}"#, Dialect::Mensagem, "key"),
            (
                r#"{"tipo":"PUT_OK","key":"k"}"#,
                Dialect::Mensagem,
                "desconhecido",
            ),
            (
                r#"{"tipo":"PUT","conteudo":["k"]}"#,
                Dialect::Conteudo,
                "value",
            ),
            (
                r#"{"tipo":"REPLICATION","conteudo":["k","v",1]}"#,
                Dialect::Conteudo,
                "desconhecido",
            ),
            (
                r#"{"command":"PUT","key":7}"#,
                Dialect::Mensagem,
                "Mensagem",
            ),
            (r#"{"command":"STOP"}"#, Dialect::Command, "desconhecido"),
            (
                r#"{"tipo":"JOIN","servidor":"nowhere"}"#,
                Dialect::Mensagem,
                "ip:porta",
            ),
            (
                r#"{"tipo":"JOIN","servidor":"127.0.0.1:1","no_lugar_de":"nowhere"}"#,
                Dialect::Mensagem,
                "no_lugar_de",
            ),
        ] {
            let (said, reason) = read_request(json.as_bytes()).unwrap_err();
            assert_eq!(said, dialect, "{json}");
            assert!(reason.contains(why), "{json}: {reason}");
        }
    }
}
