//! What a server answers, written in the dialect of whoever asked.

use super::Dialect;
use crate::zk_like_kv::message::{Answer, TRY};
use serde::Serialize;
use serde_json::{Value, json};
use std::net::SocketAddr;

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

const USUAL_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

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
}
