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
    let said = Spoken {
        tipo: word(answer),
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
        }
        | Answer::GetOk {
            key,
            value,
            timestamp,
        } => Spoken {
            key: Some(key),
            value: Some(value),
            timestamp: Some(*timestamp),
            ..said
        },
        Answer::Null { key } => Spoken {
            key: Some(key),
            timestamp: Some(0),
            ..said
        },
        Answer::TryOtherServerOrLater { key, timestamp } => Spoken {
            key: Some(key),
            timestamp: Some(*timestamp),
            ..said
        },
        Answer::JoinOk { servidores } => Spoken {
            servidores: Some(servidores),
            ..said
        },
        Answer::ItIs => said,
        Answer::Erro { key, erro } => Spoken {
            key: key.as_deref(),
            erro: Some(erro),
            ..said
        },
    }
}

/// What an answer is called.
fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::PutOk { .. } => "PUT_OK",
        Answer::GetOk { .. } => "GET_OK",
        Answer::Null { .. } => "NULL",
        Answer::TryOtherServerOrLater { .. } => TRY,
        Answer::JoinOk { .. } => "JOIN_OK",
        Answer::ItIs => "SOU",
        Answer::Erro { .. } => "ERRO",
    }
}

/// Most messages fit at once.
fn written(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut json, message)?;
    Ok(json)
}

fn as_conteudo(answer: Answer) -> Value {
    let (tipo, conteudo) = match (word(&answer), answer) {
        (tipo, Answer::PutOk { timestamp, .. }) => (tipo, json!(timestamp)),
        (
            tipo,
            Answer::GetOk {
                value, timestamp, ..
            },
        ) => (tipo, json!([value, timestamp])),
        (tipo, Answer::Null { .. } | Answer::ItIs) => (tipo, Value::Null),
        // The word of that dialect.
        (_, Answer::TryOtherServerOrLater { .. }) => ("ERRO", "TRY_ANOTHER_SERVER_OR_LATER".into()),
        (tipo, Answer::JoinOk { servidores }) => (tipo, json!(servidores)),
        (tipo, Answer::Erro { erro, .. }) => (tipo, erro.into()),
    };
    json!({"tipo": tipo, "conteudo": conteudo})
}

fn as_command(answer: Answer, servidor: SocketAddr) -> Value {
    let command = word(&answer);
    let (key, value, timestamp): (Option<String>, Value, Value) = match answer {
        Answer::PutOk {
            key,
            value,
            timestamp,
        } => (Some(key), value.into(), timestamp.into()),
        // A text here, and only here.
        Answer::GetOk {
            key,
            value,
            timestamp,
        } => (Some(key), value.into(), timestamp.to_string().into()),
        Answer::Null { key } => (Some(key), Value::Null, 0.into()),
        Answer::TryOtherServerOrLater { key, timestamp } => {
            (Some(key), Value::Null, timestamp.into())
        }
        Answer::JoinOk { servidores } => (None, json!(servidores), 0.into()),
        Answer::ItIs => (None, Value::Null, 0.into()),
        Answer::Erro { key, erro } => (key, erro.into(), 0.into()),
    };
    json!({
        "command": command, "timestamp": timestamp, "key": key, "value": value,
        "host": servidor.ip().to_string(), "port": servidor.port(),
    })
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
