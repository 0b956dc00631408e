//! A [`Probe`] speaks JSON to a group as other people's programs do, and keeps everything that comes back.

use super::stage::{Stuck, WITHIN};
use super::topics::Topics;
use bytes::Bytes;
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::ordered::{Event, OrderedTopic, Publisher};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

/// Publishes requests and keeps every answer.
#[derive(Debug)]
pub struct Probe {
    publisher: Publisher,
    topics: Topics,
    heard: Arc<Heard>,
    reading: JoinHandle<()>,
    next: u64,
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `idserv`.
    pub server: u64,
    /// `status`.
    pub status: String,
    /// `valor`.
    pub value: Option<String>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Signs of life by server: how many, where the last one was in the order, up to where it had answered.
    signs: Mutex<BTreeMap<u64, (u64, u64, u64)>>,
    /// By `idpedido`.
    answers: Mutex<BTreeMap<u64, Vec<Answer>>>,
    /// When the first answer to each came.
    answered_at: Mutex<BTreeMap<u64, Instant>>,
    /// Everything else: by topic.
    others: Mutex<Vec<(String, Bytes)>>,
    connected: Mutex<bool>,
    more: Notify,
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    fn note(&self, topic: &str, payload: Bytes) {
        if topic == Topics::default().monitor {
            if let Ok(json) = serde_json::from_slice::<Value>(&payload)
                && let Some(server) = json["idServ"].as_u64()
            {
                let mut signs = lock(&self.signs);
                let sign = signs.entry(server).or_default();
                let number = |name: &str| json[name].as_u64().unwrap_or(0);
                *sign = (sign.0 + 1, number("posicao"), number("respondido_ate"));
            }
        } else if topic == ANSWERS
            && let Ok(json) = serde_json::from_slice::<Value>(&payload)
            && let Some(id) = json["idpedido"].as_u64()
        {
            let answer = Answer {
                server: json["idserv"].as_u64().unwrap_or(u64::MAX),
                status: json["status"].as_str().unwrap_or_default().to_owned(),
                value: json["valor"].as_str().map(str::to_owned),
            };
            lock(&self.answered_at)
                .entry(id)
                .or_insert_with(Instant::now);
            lock(&self.answers).entry(id).or_default().push(answer);
        } else {
            let mut others = lock(&self.others);
            if others.len() < OTHERS_MAX {
                others.push((topic.to_owned(), payload));
            }
        }
    }
}

impl Probe {
    /// Connects, and hears its answers and the signs of life.
    ///
    /// # Errors
    /// When the broker does not take it in time.
    pub async fn connect(config: MqttConfig) -> Result<Self, Stuck> {
        let topics = Topics::default();
        let opened = OrderedTopic::new(config)
            .subscribe(ANSWERS)
            .subscribe(RAW_ANSWERS)
            .subscribe(&topics.monitor)
            .open();
        let wrong =
            |error: kvrep_core::transport::TransportError| Stuck::Otherwise(error.to_string());
        let (publisher, mut deliveries) = opened.map_err(wrong)?;
        let heard = Arc::new(Heard::default());
        let keeping = Arc::clone(&heard);
        let reading = tokio::spawn(async move {
            while let Some(event) = deliveries.next().await {
                match event {
                    Event::Connected { .. } => *lock(&keeping.connected) = true,
                    Event::Delivered {
                        topic,
                        payload,
                        ack,
                        ..
                    } => {
                        ack.acknowledge();
                        keeping.note(&topic, payload);
                    }
                    _ => {}
                }
                keeping.more.notify_waiters();
            }
        });
        let probe = Self {
            publisher,
            topics,
            heard,
            reading,
            next: 0,
        };
        probe
            .until("a conexão", |heard| lock(&heard.connected).then_some(()))
            .await?;
        Ok(probe)
    }

    /// Publishes this on the request topic.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn say(&self, payload: impl Into<Bytes>) -> Result<(), Stuck> {
        let said = self
            .publisher
            .publish(self.topics.requests.as_str(), payload.into());
        said.map(drop)
            .map_err(|error| Stuck::Otherwise(error.to_string()))
    }

    /// Publishes a query and returns its `idpedido`.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn query(&mut self, key: &str) -> Result<u64, Stuck> {
        self.next += 1;
        self.say(super::dialect::request::query(key, ANSWERS, self.next))?;
        Ok(self.next)
    }

    /// Publishes an insertion and returns its `idpedido`.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<u64, Stuck> {
        self.next += 1;
        self.say(super::dialect::request::insertion(
            key, value, ANSWERS, self.next,
        ))?;
        Ok(self.next)
    }

    /// Waits for the (first) answer to this request.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn answer(&self, id: u64) -> Result<Answer, Stuck> {
        let what = format!("a resposta ao pedido {id}");
        self.until(&what, |heard| {
            lock(&heard.answers).get(&id)?.first().cloned()
        })
        .await
    }

    /// Waits for an answer to this request, but not for long: whether there is one.
    pub async fn is_answered_soon(&self, id: u64) -> bool {
        let is_there = |heard: &Heard| lock(&heard.answers).get(&id).map(|_| ());
        let soon = Instant::now() + AGAIN_AFTER;
        self.found_by(soon, is_there).await.is_some()
    }

    /// Asks, and waits.
    ///
    /// # Errors
    /// When no answer comes in time.
    pub async fn get(&mut self, key: &str) -> Result<Answer, Stuck> {
        let id = self.query(key)?;
        self.answer(id).await
    }

    /// Inserts, and waits.
    ///
    /// # Errors
    /// When no answer comes in time.
    pub async fn put(&mut self, key: &str, value: &str) -> Result<Answer, Stuck> {
        let id = self.insert(key, value)?;
        self.answer(id).await
    }

    /// Inserts, waits, and inserts the same again where no answer comes: the broker may have lost the insertion or its answer.
    ///
    /// # Errors
    /// When no answer comes in time.
    pub async fn put_surely(&mut self, key: &str, value: &str) -> Result<Answer, Stuck> {
        let mut tried = Vec::new();
        let deadline = Instant::now() + WITHIN;
        while Instant::now() < deadline {
            tried.push(self.insert(key, value)?);
            let again_at = Instant::now() + AGAIN_AFTER;
            let first = |heard: &Heard| {
                let answers = lock(&heard.answers);
                let answer = tried.iter().find_map(|id| answers.get(id)?.first());
                answer.cloned()
            };
            if let Some(answer) = self.found_by(again_at, first).await {
                return Ok(answer);
            }
        }
        Err(Stuck::Otherwise(format!(
            "a inserção de {key:?} não teve resposta em {WITHIN:?}, publicada {} vezes",
            tried.len()
        )))
    }

    /// Waits until each of these servers answers for itself, asking again and again.
    ///
    /// # Errors
    /// When one does not in time.
    pub async fn each_answers(&mut self, servers: usize) -> Result<(), Stuck> {
        let deadline = Instant::now() + WITHIN;
        for server in 0..servers {
            let key = key_of(server, servers, 0);
            loop {
                let id = self.query(&key)?;
                let by = |heard: &Heard| {
                    let answers = lock(&heard.answers);
                    answers.get(&id).map(|answers| answers[0].server)
                };
                let by = self.found_by(Instant::now() + AGAIN_AFTER, by).await;
                if by == Some(server as u64) {
                    break;
                }
                if Instant::now() >= deadline {
                    return Err(Stuck::Otherwise(format!(
                        "o servidor {server} não responde em {WITHIN:?}"
                    )));
                }
                sleep(ASKED_EVERY).await;
            }
        }
        Ok(())
    }

    /// All answers to this request so far.
    #[must_use]
    pub fn answers(&self, id: u64) -> Vec<Answer> {
        lock(&self.heard.answers)
            .get(&id)
            .cloned()
            .unwrap_or_default()
    }

    /// When the first answer to this request came.
    #[must_use]
    pub fn answered_at(&self, id: u64) -> Option<Instant> {
        lock(&self.heard.answered_at).get(&id).copied()
    }

    /// What came on [`RAW_ANSWERS`], as it came.
    #[must_use]
    pub fn raw(&self) -> Vec<Bytes> {
        let others = lock(&self.heard.others);
        let raw = others.iter().filter(|(topic, _)| topic == RAW_ANSWERS);
        raw.map(|(_, payload)| payload.clone()).collect()
    }

    /// Waits until so many came there.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn raw_until(&self, number: usize) -> Result<Vec<Bytes>, Stuck> {
        let enough = |_: &Heard| Some(self.raw()).filter(|raw| raw.len() >= number);
        self.until("as respostas cruas", enough).await
    }

    /// Waits until this server has said that it has answered everything that was asked so far, and the others could hear it.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn settled(&self, server: u64) -> Result<(), Stuck> {
        let signs = || lock(&self.heard.signs).get(&server).copied();
        let before = signs().map_or(0, |(number, ..)| number);
        let what = format!("um sinal de vida de {server} que não deve nada");
        let is_settled = |_: &Heard| {
            let (number, at, answered) = signs()?;
            (number > before + 2 && at == answered).then_some(())
        };
        self.until(&what, is_settled).await
    }

    async fn until<T>(&self, what: &str, found: impl Fn(&Heard) -> Option<T>) -> Result<T, Stuck> {
        let found = self.found_by(Instant::now() + WITHIN, found).await;
        found.ok_or_else(|| Stuck::Otherwise(format!("{what} não veio em {WITHIN:?}")))
    }

    async fn found_by<T>(
        &self,
        deadline: Instant,
        found: impl Fn(&Heard) -> Option<T>,
    ) -> Option<T> {
        loop {
            // Registered before looking, so that nothing comes in between.
            let mut more = std::pin::pin!(self.heard.more.notified());
            more.as_mut().enable();
            if let Some(found) = found(&self.heard) {
                return Some(found);
            }
            timeout_at(deadline, more).await.ok()?;
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// A key that this server of so many is responsible for.
#[must_use]
pub fn key_of(server: usize, servers: usize, n: usize) -> String {
    let mut key = format!("chave-{n}-");
    for letter in 'a'..='z' {
        key.push(letter);
        if super::dialect::request::hash(&key) % servers as u64 == server as u64 {
            return key;
        }
        key.pop();
    }
    key
}

/// Where a probe's answers go.
pub const ANSWERS: &str = "resp-sonda";
/// Where answers go that are kept as they are.
pub const RAW_ANSWERS: &str = "resp-sonda-crua";
const OTHERS_MAX: usize = 100_000;
const ASKED_EVERY: Duration = Duration::from_millis(20);
const AGAIN_AFTER: Duration = Duration::from_secs(2);
