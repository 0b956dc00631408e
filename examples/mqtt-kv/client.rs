//! A client: asks, waits, asks again, and takes one answer.
//!
//! Each request has a topic of its own for its answer, below one that is this client's alone. So an answer that comes twice, or late, is told
//! from the one that is waited for, also where servers send bare values (`--resposta-crua`).
//!
//! A query without an answer is published again under the same `idpedido`. An insertion is not: it would be carried out a second time, perhaps over
//! what somebody else has written meanwhile. Only where the broker may have lost it, it is.

use super::connection::{Attempts, Once, is_final, trouble, without_retry};
use super::dialect::request;
use super::topics::Topics;
use super::words;
use bytes::Bytes;
use kvrep_core::transport::TransportError;
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::ordered::{Deliveries, Event, OrderedTopic, Publisher, Rejection};
use serde::Deserialize;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `consulta CHAVE`.
    Query(String),
    /// `insere CHAVE VALOR`.
    Insert(String, String),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The value that is there (now), and who said so.
    Value(String, Option<u32>),
    /// There is no such key, and who said so.
    Missing(Option<u32>),
    /// The broker has the insertion, and nobody answered it (in time, or was waited for): servers may be told not to (A0.7).
    Published,
    /// A server said why not.
    Wrong(String),
}

/// Why nothing came of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// Nobody answered.
    #[error("sem resposta em {} ms: não se sabe se o pedido foi executado", .0.as_millis())]
    Silent(Duration),
    /// The broker could not be reached.
    #[error("{0}")]
    NoBroker(String),
    /// The broker does not take it.
    #[error("o pedido não pode ser publicado: {0}")]
    Refused(String),
}

/// How long a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For an answer.
    pub answer: Duration,
    /// Until a query is published again.
    pub again: Duration,
    /// What is waited for after an insertion.
    pub insertion: Awaited,
}

/// What is waited for after an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// An answer.
    Answer,
    /// That the broker has it.
    Broker,
}

/// A client with its connection.
#[derive(Debug)]
pub struct Client {
    publisher: Publisher,
    deliveries: Deliveries,
    broker: String,
    attempts: Attempts,
    topics: Topics,
    /// Its topics begin with this.
    name: String,
    next: u64,
    patience: Patience,
    connected: bool,
    said: Once,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    valor: Option<String>,
    #[serde(default)]
    resposta: Option<String>,
    status: String,
    #[serde(default)]
    idserv: Option<u32>,
}

impl Client {
    /// Begins to connect.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn open(
        config: &MqttConfig,
        topics: Topics,
        patience: Patience,
        attempts: Attempts,
    ) -> Result<Self, TransportError> {
        let drawn = RandomState::new().hash_one(std::process::id());
        let name = format!("resp/{drawn:016x}");
        let answers = format!("{name}/+");
        let (publisher, deliveries) = OrderedTopic::new(config.clone())
            .subscribe(answers)
            .open()?;
        Ok(Self {
            publisher,
            deliveries,
            broker: config.broker.clone(),
            attempts,
            topics,
            name,
            next: 0,
            patience,
            connected: false,
            said: Once::default(),
        })
    }

    /// Asks, and waits for what comes of it. `tell` hears of a broker that does not answer.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn ask(&mut self, ask: &Ask, mut tell: impl FnMut(&str)) -> Result<Told, Failed> {
        self.next += 1;
        let topic = format!("{}/{}", self.name, self.next);
        let payload: Bytes = match ask {
            Ask::Query(key) => request::query(key, &topic, self.next).into(),
            Ask::Insert(key, value) => request::insertion(key, value, &topic, self.next).into(),
        };
        let deadline = Instant::now() + self.patience.answer;
        self.until_connected(deadline, &mut tell).await?;
        let mut under_way = Some(self.publish(&payload)?);
        let mut is_published = false;
        let is_enough =
            matches!(ask, Ask::Insert(..)) && self.patience.insertion == Awaited::Broker;
        let mut again = match ask {
            Ask::Query(_) => Instant::now() + self.patience.again,
            Ask::Insert(..) => deadline,
        };
        loop {
            let Ok(event) = timeout_at(again.min(deadline), self.deliveries.next()).await else {
                if again < deadline {
                    again = Instant::now() + self.patience.again;
                    // The first one may be under way still: then this is one too many, and does no harm.
                    under_way = self
                        .publisher
                        .publish(self.topics.requests.as_str(), payload.clone())
                        .ok();
                    continue;
                }
                let silent = Failed::Silent(self.patience.answer);
                let published = matches!(ask, Ask::Insert(..)) && is_published;
                return if published {
                    Ok(Told::Published)
                } else {
                    Err(silent)
                };
            };
            let event = event.ok_or_else(|| Failed::NoBroker("a conexão terminou".into()))?;
            self.note(&event, &mut tell)?;
            match event {
                Event::Acknowledged(id) if under_way == Some(id) => {
                    is_published = true;
                    if is_enough {
                        return Ok(Told::Published);
                    }
                }
                Event::Abandoned(id) if under_way == Some(id) => {
                    under_way = Some(self.publish(&payload)?);
                }
                Event::Rejected(rejection @ Rejection::Publication { id, .. })
                    if under_way == Some(id) =>
                {
                    return Err(Failed::Refused(words::refused_by(&self.broker, &rejection)));
                }
                Event::Delivered {
                    topic: came_on,
                    payload,
                    ack,
                    ..
                } => {
                    ack.acknowledge();
                    // R0.26: what comes on another topic is an answer that was there before, or came too late.
                    if *came_on == *topic {
                        return Ok(told(&payload));
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether an insertion is done when the broker has it.
    #[must_use]
    pub fn awaits_broker_only(&self) -> bool {
        self.patience.insertion == Awaited::Broker
    }

    /// Ends the connection in good order.
    pub async fn close(mut self) {
        self.deliveries.close().await;
    }

    fn publish(
        &self,
        payload: &Bytes,
    ) -> Result<kvrep_transport_mqtt::ordered::PublicationId, Failed> {
        let published = self
            .publisher
            .publish(self.topics.requests.as_str(), payload.clone());
        published.map_err(|error| Failed::Refused(words::unpublished(&error)))
    }

    async fn until_connected(
        &mut self,
        deadline: Instant,
        tell: &mut impl FnMut(&str),
    ) -> Result<(), Failed> {
        while !self.connected {
            let event = timeout_at(deadline, self.deliveries.next()).await;
            let Ok(Some(event)) = event else {
                return Err(Failed::NoBroker(format!(
                    "o broker {} não respondeu em {} ms: o pedido não foi publicado",
                    self.broker,
                    self.patience.answer.as_millis()
                )));
            };
            self.note(&event, tell)?;
            if let Event::Delivered { ack, .. } = event {
                ack.acknowledge();
            }
        }
        Ok(())
    }

    fn note(&mut self, event: &Event, tell: &mut impl FnMut(&str)) -> Result<(), Failed> {
        match event {
            Event::Connected { .. } => {
                self.connected = true;
                self.said.well();
            }
            Event::Disconnected { .. } => self.connected = false,
            // It ends the request, and is told then.
            Event::Rejected(Rejection::Publication { .. }) => return Ok(()),
            _ => {}
        }
        let Some(why) = trouble(&self.broker, event) else {
            return Ok(());
        };
        if is_final(self.attempts, event) {
            return Err(Failed::NoBroker(without_retry(&why)));
        }
        if self.said.is_news(&why) {
            tell(&why);
        }
        Ok(())
    }
}

/// What an answer says: the object of the text, or else the bare value.
fn told(payload: &[u8]) -> Told {
    let Ok(answer) = serde_json::from_slice::<Answer>(payload) else {
        return Told::Value(String::from_utf8_lossy(payload).into_owned(), None);
    };
    match (answer.status.as_str(), answer.valor, answer.resposta) {
        ("ok", Some(value), _) | ("ok", None, Some(value)) => Told::Value(value, answer.idserv),
        ("naoexiste", ..) => Told::Missing(answer.idserv),
        (_, _, why) => Told::Wrong(why.unwrap_or(answer.status)),
    }
}

impl Ask {
    /// What a line says. A key or a value in double quotes is read as JSON has it, so it may have spaces, quotes and line breaks; a key without them is one word, and a value
    /// without them is the rest of the line as it stands.
    ///
    /// # Errors
    /// What can be said instead.
    pub fn of_line(line: &str) -> Result<Self, String> {
        let line = line.trim_start();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        let pair = match rest.strip_prefix('"') {
            Some(_) => quoted(rest).ok_or(
                "a chave começa com aspas: feche-as, e escreva \\\" onde a chave tem aspas",
            )?,
            None => {
                let (key, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                (key.to_owned(), value)
            }
        };
        match (word.to_lowercase().as_str(), pair) {
            ("consulta", (key, more)) if !rest.is_empty() && more.trim().is_empty() => {
                Ok(Self::Query(key))
            }
            ("insere", (key, value)) if !value.is_empty() => {
                let whole = quoted(value.trim()).filter(|(_, more)| more.is_empty());
                Ok(Self::Insert(
                    key,
                    whole.map_or_else(|| value.to_owned(), |(value, _)| value),
                ))
            }
            ("consulta" | "insere", _) => Err(USAGE.into()),
            (word, _) => Err(format!("não entendi {:?}; {USAGE}", shortened(word))),
        }
    }
}

/// What can be typed.
const USAGE: &str = "escreva: insere CHAVE VALOR | consulta CHAVE | sai";
/// Of a word that is told.
const SHOWN_CHARS: usize = 40;

/// Enough of a long word to be recognised.
fn shortened(word: &str) -> &str {
    word.char_indices()
        .nth(SHOWN_CHARS)
        .map_or(word, |(end, _)| &word[..end])
}

/// Whether this line asks for the end.
#[must_use]
pub fn asks_to_leave(line: &str) -> bool {
    matches!(line.trim().to_lowercase().as_str(), "sai" | "sair")
}

/// What stands in the quotes that this begins with, and what is behind them and a space.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let inside = strings.next()?.ok()?;
    let behind = &text[strings.byte_offset()..];
    match behind.strip_prefix(char::is_whitespace) {
        Some(behind) => Some((inside, behind)),
        None => behind.is_empty().then_some((inside, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_not_understood_is_told_and_two_words_leave() {
        for leaves in ["sai", "sair", " Sair "] {
            assert!(asks_to_leave(leaves), "{leaves}");
        }
        for stays in ["", "saia", "sai agora", "consulta sair"] {
            assert!(!asks_to_leave(stays), "{stays}");
        }
        let why = Ask::of_line("inserir k v").unwrap_err();
        assert!(
            why.starts_with("não entendi \"inserir\"; escreva: insere"),
            "{why}"
        );
        let why = Ask::of_line(&"é".repeat(1_000)).unwrap_err();
        assert!(why.len() < 200, "{why}");
        let why = Ask::of_line("insere k").unwrap_err();
        assert!(why.starts_with("escreva"), "{why}");
    }

    #[test]
    fn a_line_is_a_query_an_insertion_or_a_word_about_what_can_be_typed() {
        let query = |key: &str| Ok(Ask::Query(key.into()));
        assert_eq!(Ask::of_line("consulta k"), query("k"));
        assert_eq!(Ask::of_line("  CONSULTA\tk  "), query("k"));
        let insert = Ask::Insert("k".into(), "dois  valores ".into());
        assert_eq!(Ask::of_line("insere k dois  valores "), Ok(insert));
        let insert = |key: &str, value: &str| Ok(Ask::Insert(key.into(), value.into()));
        assert_eq!(
            Ask::of_line(r#"insere "minha cor" "azul claro" "#),
            insert("minha cor", "azul claro")
        );
        assert_eq!(Ask::of_line(r#"consulta "minha cor""#), query("minha cor"));
        assert_eq!(
            Ask::of_line(r#"insere "a\"b" "1\n2""#),
            insert("a\"b", "1\n2")
        );
        assert_eq!(Ask::of_line(r#"insere k """#), insert("k", ""));
        // Not all of the value is in quotes: it is as it stands.
        for value in [r#""azul" e "claro""#, r#"d'água"#, r#""aberto"#] {
            assert_eq!(
                Ask::of_line(&format!("insere k {value}")),
                insert("k", value)
            );
        }
        for wrong in [
            "",
            "consulta",
            "consulta a b",
            "insere",
            "insere k",
            "apaga k",
            r#"consulta "aberta"#,
            r#"insere "minha cor""#,
            r#"consulta "a" b"#,
        ] {
            assert!(Ask::of_line(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a0_6_answers_are_objects_or_bare_values() {
        let said = |text: &str| told(text.as_bytes());
        let object =
            r#"{"idpedido":7,"chave":"k","valor":"v","resposta":"v","status":"ok","idserv":2}"#;
        assert_eq!(said(object), Told::Value("v".into(), Some(2)));
        let missing = r#"{"idpedido":7,"valor":null,"status":"naoexiste","idserv":2}"#;
        assert_eq!(said(missing), Told::Missing(Some(2)));
        let wrong = r#"{"resposta":"falta","status":"erro"}"#;
        assert_eq!(said(wrong), Told::Wrong("falta".into()));
        for bare in ["v", "", "7", r#"{"a":1}"#] {
            assert_eq!(said(bare), Told::Value(bare.into(), None), "{bare}");
        }
    }
}
