//! The bare client library: publishers, three subscribers that see everything, one of which answers.

use super::broker::Broker;
use bytes::Bytes;
use kvrep_benches::load::Caller;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

static DRAWN: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Bare {
    publishers: Vec<Arc<Publisher>>,
    _tasks: JoinSet<()>,
}

struct Publisher {
    client: AsyncClient,
    number: u64,
    topic: String,
    state: Mutex<(u64, BTreeMap<u64, oneshot::Sender<()>>)>,
}

pub(crate) struct Slot {
    publisher: Arc<Publisher>,
    bytes: usize,
}

pub(crate) async fn start(broker: &Broker, publishers: u32) -> Result<Bare, String> {
    let run = DRAWN.fetch_add(1, Ordering::Relaxed);
    let requests = format!("bare/{run}/requests");
    let mut tasks = JoinSet::new();
    for me in 0..3 {
        let (client, mut events) = open(broker, &format!("bare-{run}-s{me}"));
        subscribe(&client, &mut events, &requests).await?;
        tasks.spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(request)) = event
                    && let Some((publisher, id)) = words(&request.payload)
                    && id % 3 == me
                {
                    let answers = format!("bare/{run}/{publisher}");
                    let payload = request.payload.slice(..16);
                    let sent =
                        client.try_publish(answers, payload, PublishOptions::at_least_once());
                    sent.expect("there is room for an answer");
                }
            }
        });
    }
    let mut all = Vec::new();
    for number in 0..u64::from(publishers) {
        let (client, mut events) = open(broker, &format!("bare-{run}-p{number}"));
        subscribe(&client, &mut events, &format!("bare/{run}/{number}")).await?;
        let publisher = Arc::new(Publisher {
            client,
            number,
            topic: requests.clone(),
            state: Mutex::default(),
        });
        all.push(Arc::clone(&publisher));
        tasks.spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(answer)) = event
                    && let Some((_, id)) = words(&answer.payload)
                {
                    let mut state = publisher
                        .state
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    if let Some(waits) = state.1.remove(&id) {
                        // (Its turn may be over.)
                        let _ = waits.send(());
                    }
                }
            }
        });
    }
    Ok(Bare {
        publishers: all,
        _tasks: tasks,
    })
}

impl Bare {
    /// So many requests under way.
    pub(crate) fn callers(&self, clients: u32, bytes: usize) -> Vec<Slot> {
        let publishers = self.publishers.iter().cycle().take(clients as usize);
        publishers
            .map(|publisher| Slot {
                publisher: Arc::clone(publisher),
                bytes,
            })
            .collect()
    }
}

impl Caller for Slot {
    async fn call(&mut self) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let publisher = &self.publisher;
        let id = {
            let mut state = publisher
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            state.0 += 1;
            let id = state.0;
            state.1.insert(id, answer);
            id
        };
        let mut payload = Vec::with_capacity(self.bytes.max(16));
        payload.extend(publisher.number.to_be_bytes());
        payload.extend(id.to_be_bytes());
        payload.resize(self.bytes.max(16), 7);
        let options = PublishOptions::at_least_once();
        let sent = publisher
            .client
            .publish(publisher.topic.as_str(), payload, options);
        sent.await.map_err(|error| error.to_string())?;
        let answered = timeout(Duration::from_secs(10), answered).await;
        answered
            .map_err(|_| "a request was lost")?
            .map_err(|_| "the connection ended".to_owned())
    }
}

fn open(broker: &Broker, id: &str) -> (AsyncClient, EventLoop) {
    let (host, port) = broker.address.rsplit_once(':').unwrap_or_default();
    let at = rumqttc::Broker::tcp(host, port.parse().unwrap_or(1_883));
    let mut options = MqttOptions::new(format!("{id}-{}", std::process::id()), at);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options
        .set_network_options(network)
        .set_keep_alive(5)
        .set_outgoing_inflight_upper_limit(128)
        .set_max_request_batch(64)
        .set_request_channel_capacity(100_000);
    // The favour that kvrep's connections have, too.
    options.set_socket_connector(|host, network| async move {
        rumqttc::default_socket_connect(host, network)
            .await
            .map(Quick)
    });
    AsyncClient::builder(options).build()
}

/// Acknowledges at once what the broker sends, which is slow to send the next thing otherwise.
struct Quick(TcpStream);

impl AsyncRead for Quick {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        #[cfg(target_os = "linux")]
        if read.is_ready() {
            drop(socket2::SockRef::from(&self.0).set_tcp_quickack(true));
        }
        read
    }
}

impl AsyncWrite for Quick {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

async fn subscribe(
    client: &AsyncClient,
    events: &mut EventLoop,
    topic: &str,
) -> Result<(), String> {
    client
        .try_subscribe(topic, QoS::AtLeastOnce)
        .map_err(|error| error.to_string())?;
    let subscribed = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::SubAck(_))) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    timeout(Duration::from_secs(10), subscribed)
        .await
        .map_err(|_| "no subscription in time")?
}

fn words(payload: &Bytes) -> Option<(u64, u64)> {
    let publisher = payload.first_chunk().copied().map(u64::from_be_bytes)?;
    let id = payload.get(8..)?.first_chunk().copied();
    Some((publisher, u64::from_be_bytes(id?)))
}
