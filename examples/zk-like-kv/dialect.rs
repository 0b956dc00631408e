//! How a request is read and an answer written: in the fields of `Mensagem`, or in one of two other dialects that clients
//! may use.
//!
//! Programs that others wrote put everything into `conteudo`, or name the kind `command`. Whoever asks in a dialect is answered in
//! it.
//!
//! Caveats: a timestamp may come as a number, as a fraction or as a text; what is no number at all counts as 0, "never seen",
//! which at worst shows a client something older than it could have asked for. Replication between servers has a dialect of its
//! own ([`codec`](super::codec)); servers that others wrote cannot join.

use super::framing::MESSAGE_BYTES_MAX;
use super::message::{Answer, Knows, Request, TRY};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::net::SocketAddr;

/// How whoever asks speaks, and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The fields of [`Mensagem`](super::message::Mensagem).
    Mensagem,
    /// `{"tipo":…,"conteudo":[…]}`.
    Conteudo,
    /// `{"command":…,"key":…,…}`.
    Command,
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

/// Reads a request and its dialect.
///
/// # Errors
/// The dialect in which to say so, and what is wrong with it.
pub fn read_request(json: &[u8]) -> Result<(Dialect, Request), (Dialect, String)> {
    let any: AnyDialect = serde_json::from_slice(json)
        .map_err(|error| (Dialect::Mensagem, format!("não é uma Mensagem: {error}")))?;
    let (dialect, kind) = match (&any.tipo, &any.command, &any.conteudo) {
        (Some(tipo), _, Some(_)) => (Dialect::Conteudo, tipo.0.clone()),
        (Some(tipo), _, None) => (Dialect::Mensagem, tipo.0.clone()),
        (None, Some(command), _) => (Dialect::Command, command.0.clone()),
        (None, None, _) => return Err((Dialect::Mensagem, "falta o campo tipo".into())),
    };
    request_of(&kind, any)
        .map(|request| (dialect, request))
        .map_err(|why| (dialect, why))
}

fn request_of(kind: &str, mut any: AnyDialect<'_>) -> Result<Request, String> {
    if let Some(conteudo) = any.conteudo.take() {
        (any.key, any.value, any.timestamp) = unpack(kind, &conteudo);
    }
    let key = |any: &mut AnyDialect<'_>| any.key.take().ok_or("falta o campo key");
    match kind {
        "PUT" => {
            let (key, value) = (key(&mut any)?, any.value.ok_or("falta o campo value")?);
            bounded(&key, &value)?;
            Ok(Request::Put {
                key,
                value,
                // Whoever cannot be named is shown as the one who is connected.
                cliente: any.cliente.and_then(|cliente| cliente.0.parse().ok()),
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

/// The answer as a JSON object of this dialect, without a line's end. `servidor` is the server that the client asked.
///
/// # Panics
/// Never: an answer is plain data.
#[must_use]
pub fn write_answer(dialect: Dialect, answer: Answer, servidor: SocketAddr) -> Vec<u8> {
    let written = match dialect {
        Dialect::Mensagem => written(&as_mensagem(&answer, servidor)),
        Dialect::Conteudo => serde_json::to_vec(&as_conteudo(answer)),
        Dialect::Command => serde_json::to_vec(&as_command(answer, servidor)),
    };
    written.expect("plain data serialises")
}

/// A [`Mensagem`](super::message::Mensagem) that answers; its texts need not be copied.
#[derive(Serialize)]
struct Spoken<'a> {
    tipo: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    servidor: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    servidores: Option<&'a [SocketAddr]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    erro: Option<&'a str>,
}

fn as_mensagem(answer: &Answer, servidor: SocketAddr) -> Spoken<'_> {
    let of = |tipo| Spoken {
        tipo,
        key: None,
        value: None,
        timestamp: None,
        servidor,
        servidores: None,
        erro: None,
    };
    match answer {
        Answer::PutOk {
            key,
            value,
            timestamp,
        } => Spoken {
            key: Some(key),
            value: Some(value),
            timestamp: Some(*timestamp),
            ..of("PUT_OK")
        },
        Answer::GetOk {
            key,
            value,
            timestamp,
        } => Spoken {
            key: Some(key),
            value: Some(value),
            timestamp: Some(*timestamp),
            ..of("GET_OK")
        },
        Answer::Null { key } => Spoken {
            key: Some(key),
            timestamp: Some(0),
            ..of("NULL")
        },
        Answer::TryOtherServerOrLater { key, timestamp } => Spoken {
            key: Some(key),
            timestamp: Some(*timestamp),
            ..of(TRY)
        },
        Answer::JoinOk { servidores } => Spoken {
            servidores: Some(servidores),
            ..of("JOIN_OK")
        },
        Answer::ItIs => of("SOU"),
        Answer::Erro { key, erro } => Spoken {
            key: key.as_deref(),
            erro: Some(erro),
            ..of("ERRO")
        },
    }
}

/// Most messages fit at once.
fn written(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut json, message)?;
    Ok(json)
}

fn as_conteudo(answer: Answer) -> Value {
    match answer {
        Answer::PutOk { timestamp, .. } => json!({"tipo": "PUT_OK", "conteudo": timestamp}),
        Answer::GetOk {
            value, timestamp, ..
        } => json!({"tipo": "GET_OK", "conteudo": [value, timestamp]}),
        Answer::Null { .. } => json!({"tipo": "NULL", "conteudo": null}),
        // The word of that dialect.
        Answer::TryOtherServerOrLater { .. } => {
            json!({"tipo": "ERRO", "conteudo": "TRY_ANOTHER_SERVER_OR_LATER"})
        }
        Answer::JoinOk { servidores } => json!({"tipo": "JOIN_OK", "conteudo": servidores}),
        Answer::ItIs => json!({"tipo": "SOU", "conteudo": null}),
        Answer::Erro { erro, .. } => json!({"tipo": "ERRO", "conteudo": erro}),
    }
}

fn as_command(answer: Answer, servidor: SocketAddr) -> Value {
    let said = |command: &str, key: Option<String>, value: Value, timestamp: Value| {
        json!({
            "command": command, "timestamp": timestamp, "key": key, "value": value,
            "host": servidor.ip().to_string(), "port": servidor.port(),
        })
    };
    match answer {
        Answer::PutOk {
            key,
            value,
            timestamp,
        } => said("PUT_OK", Some(key), value.into(), timestamp.into()),
        // A text here, and only here.
        Answer::GetOk {
            key,
            value,
            timestamp,
        } => {
            let timestamp = timestamp.to_string();
            said("GET_OK", Some(key), value.into(), timestamp.into())
        }
        Answer::Null { key } => said("NULL", Some(key), Value::Null, 0.into()),
        Answer::TryOtherServerOrLater { key, timestamp } => {
            said(TRY, Some(key), Value::Null, timestamp.into())
        }
        Answer::JoinOk { servidores } => said("JOIN_OK", None, json!(servidores), 0.into()),
        Answer::ItIs => said("SOU", None, Value::Null, 0.into()),
        Answer::Erro { key, erro } => said("ERRO", key, erro.into(), 0.into()),
    }
}

/// A timestamp however it is written; what is no number counts as none.
pub(super) fn lenient_timestamp<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<u64>, D::Error> {
    let value = Option::<Value>::deserialize(from)?;
    Ok(value.as_ref().and_then(timestamp_of))
}

/// A fraction is rounded up: a client that has seen 2.5 must not be shown 2.
fn timestamp_of(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(rounded_up)),
        Value::String(text) => {
            let whole = text.trim().parse();
            whole
                .ok()
                .or_else(|| text.trim().parse().ok().map(rounded_up))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and what is no number becomes 0"
)]
fn rounded_up(seconds: f64) -> u64 {
    seconds.ceil() as u64
}

/// Enough of a word that came from outside.
fn shortened(word: &str) -> String {
    word.chars().take(40).collect()
}
/// Key and value of a write together, as they are written in JSON. Everything else in a message fits into the rest.
pub const KEY_AND_VALUE_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (4 << 10);

const USUAL_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zk_like_kv::message::Mensagem;

    fn server() -> SocketAddr {
        "127.0.0.1:10098".parse().unwrap()
    }

    fn written(dialect: Dialect, answer: Answer) -> String {
        String::from_utf8(write_answer(dialect, answer, server())).unwrap()
    }

    fn get_ok() -> Answer {
        Answer::GetOk {
            key: "k".into(),
            value: "v".into(),
            timestamp: 7,
        }
    }

    fn behind() -> Answer {
        Answer::TryOtherServerOrLater {
            key: "k".into(),
            timestamp: 3,
        }
    }

    #[test]
    fn r3_15_requests_are_read_in_all_three_dialects() {
        let put = |cliente: Option<&str>| Request::Put {
            key: "k".into(),
            value: "v".into(),
            cliente: cliente.map(|cliente| cliente.parse().unwrap()),
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
            (r#"{"tipo":"QUEM"}"#, (m, Request::Who)),
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

    #[test]
    fn r3_27_answers_carry_the_servers_timestamp_and_look_as_the_text_says() {
        let put_ok = Answer::PutOk {
            key: "k".into(),
            value: "v".into(),
            timestamp: 7,
        };
        let null = Answer::Null { key: "k".into() };
        for (answer, expected) in [
            (
                put_ok,
                r#"{"tipo":"PUT_OK","key":"k","value":"v","timestamp":7,"servidor":"127.0.0.1:10098"}"#,
            ),
            (
                get_ok(),
                r#"{"tipo":"GET_OK","key":"k","value":"v","timestamp":7,"servidor":"127.0.0.1:10098"}"#,
            ),
            (
                null,
                r#"{"tipo":"NULL","key":"k","timestamp":0,"servidor":"127.0.0.1:10098"}"#,
            ),
            (
                behind(),
                r#"{"tipo":"TRY_OTHER_SERVER_OR_LATER","key":"k","timestamp":3,"servidor":"127.0.0.1:10098"}"#,
            ),
        ] {
            assert_eq!(written(Dialect::Mensagem, answer), expected);
        }
    }

    #[test]
    fn a3_1_other_dialects_are_answered_in_their_own_words() {
        let conteudo = |answer| written(Dialect::Conteudo, answer);
        assert_eq!(
            conteudo(get_ok()),
            r#"{"tipo":"GET_OK","conteudo":["v",7]}"#
        );
        assert_eq!(
            conteudo(behind()),
            r#"{"tipo":"ERRO","conteudo":"TRY_ANOTHER_SERVER_OR_LATER"}"#
        );
        let null = Answer::Null { key: "k".into() };
        assert_eq!(conteudo(null), r#"{"tipo":"NULL","conteudo":null}"#);
        let command =
            |answer| -> Value { serde_json::from_str(&written(Dialect::Command, answer)).unwrap() };
        let said = command(get_ok());
        assert_eq!(said["command"], "GET_OK");
        assert_eq!(said["timestamp"], "7");
        assert_eq!(
            (&said["host"], &said["port"]),
            (&json!("127.0.0.1"), &json!(10_098))
        );
        let said = command(behind());
        // A3.12: the word with OTHER everywhere but in the dialect that has another.
        assert_eq!(
            (&said["command"], &said["timestamp"]),
            (&json!(TRY), &json!(3))
        );
    }

    /// A request of this key and value in each dialect.
    fn puts(key: &str, value: &str) -> [Vec<u8>; 3] {
        [
            json!({"tipo": "PUT", "key": key, "value": value}),
            json!({"tipo": "PUT", "conteudo": [key, value]}),
            json!({"command": "PUT", "key": key, "value": value}),
        ]
        .map(|put| put.to_string().into_bytes())
    }

    #[test]
    fn what_can_be_written_fits_into_every_message_about_it_and_the_rest_is_refused() {
        let cliente: SocketAddr = "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535"
            .parse()
            .unwrap();
        // A quote is two bytes in JSON, a control character six.
        for (unit, bytes) in [("x", 1), ("\"", 2), ("\u{1}", 6), ("ç", 2)] {
            let key = "k".repeat(KEY_AND_VALUE_BYTES_MAX % bytes + bytes);
            let value = unit.repeat((KEY_AND_VALUE_BYTES_MAX - key.len()) / bytes);
            for (json, expected) in puts(&key, &value).iter().zip([
                Dialect::Mensagem,
                Dialect::Conteudo,
                Dialect::Command,
            ]) {
                let (dialect, request) = read_request(json).unwrap();
                assert_eq!(dialect, expected);
                let Request::Put { key, value, .. } = request else {
                    panic!("{request:?}");
                };
                let passed_on =
                    serde_json::to_vec(&Mensagem::put(&key, &value, Some(cliente))).unwrap();
                assert!(passed_on.len() <= MESSAGE_BYTES_MAX);
                let found = Answer::GetOk {
                    key,
                    value,
                    timestamp: u64::MAX,
                };
                assert!(write_answer(dialect, found, cliente).len() <= MESSAGE_BYTES_MAX);
            }
            let more = format!("{value}y");
            for json in puts(&key, &more) {
                let (_, why) = read_request(&json).unwrap_err();
                assert!(why.contains("no máximo 258048 bytes"), "{why}");
            }
        }
        let key = "k".repeat(KEY_AND_VALUE_BYTES_MAX + 1);
        let get = json!({"tipo": "GET", "key": key}).to_string();
        assert!(
            read_request(get.as_bytes())
                .unwrap_err()
                .1
                .contains("no máximo")
        );
    }

    #[test]
    fn timestamps_that_are_no_numbers_count_as_never_seen_and_large_ones_saturate() {
        for (value, expected) in [
            (json!(-3), Some(0)),
            (json!("x"), None),
            (json!([1]), None),
            (json!(1e300), Some(u64::MAX)),
            (json!("1e3"), Some(1_000)),
            (json!(u64::MAX), Some(u64::MAX)),
        ] {
            assert_eq!(timestamp_of(&value), expected, "{value}");
        }
    }
}
