//! Publications that a broker does not take, or dies of, are given up, and nothing else is.

mod common;

use common::{Mosquitto, PATIENCE, connected};
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::ordered::{Event, Objection, OrderedTopic, PublishError, Rejection};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// What a broker of our own does about a publication.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reaction {
    Acknowledges,
    /// It ends the connection.
    Ends,
    /// The same, and says that it could not read what it got. (As mosquitto says it, without properties, the library does not hear it.)
    Objects,
    /// It ends, and is started again a moment later.
    Dies,
}

/// Bytes of MQTT 5, as far as it takes: every session is kept. Ends with the process.
fn scripted(mut on_publish: impl FnMut(&[u8]) -> Reaction + Send + 'static) -> SocketAddr {
    let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        loop {
            let (mut client, _) = listener.accept().unwrap();
            if serve(&mut client, &mut on_publish) == Some(Reaction::Dies) {
                drop(listener);
                drop(client);
                thread::sleep(Duration::from_millis(300));
                listener = TcpListener::bind(address).unwrap();
            }
        }
    });
    address
}

/// One connection; returns how it ended, where that was the broker's doing.
fn serve(
    client: &mut TcpStream,
    on_publish: &mut impl FnMut(&[u8]) -> Reaction,
) -> Option<Reaction> {
    loop {
        let (kind, body) = packet(client)?;
        let answer: Vec<u8> = match kind >> 4 {
            // CONNECT: a session is there unless it is to begin anew.
            1 => vec![0x20, 3, u8::from(body[7] & 2 == 0), 0, 0],
            3 => {
                let id = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                match on_publish(&body[id + 3..]) {
                    Reaction::Acknowledges => vec![0x40, 2, body[id], body[id + 1]],
                    Reaction::Objects => {
                        client.write_all(&[0xe0, 2, 0x81, 0]).ok()?;
                        client.shutdown(Shutdown::Write).ok()?;
                        // What is not read would take the word back.
                        client.read_to_end(&mut Vec::new()).ok();
                        return Some(Reaction::Objects);
                    }
                    ends => return Some(ends),
                }
            }
            12 => vec![0xd0, 0],
            _ => return None,
        };
        client.write_all(&answer).ok()?;
    }
}

fn packet(client: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut byte = [0];
    client.read_exact(&mut byte).ok()?;
    let (kind, mut length) = (byte[0], 0);
    for shift in [0, 7, 14, 21] {
        client.read_exact(&mut byte).ok()?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).ok()?;
    Some((kind, body))
}

/// Publishes all of it, what was abandoned again, until each is acknowledged or given up; returns why.
async fn fates(config: MqttConfig, payloads: &[Vec<u8>]) -> Vec<Result<(), Objection>> {
    let (publisher, mut deliveries) = OrderedTopic::new(config).open().unwrap();
    let mut fates = vec![None; payloads.len()];
    let mut under_way = BTreeMap::new();
    for (at, payload) in payloads.iter().enumerate() {
        under_way.insert(publisher.publish("t", payload.clone()).unwrap(), at);
    }
    let all = async {
        while fates.iter().any(Option::is_none) {
            match deliveries.next().await.expect("it is open") {
                Event::Acknowledged(id) => fates[under_way[&id]] = Some(Ok(())),
                Event::Abandoned(id) => {
                    let at = under_way[&id];
                    match publisher.publish("t", payloads[at].clone()) {
                        Ok(id) => drop(under_way.insert(id, at)),
                        Err(PublishError::TooLarge { bytes_max, .. }) => {
                            fates[at] = Some(Err(Objection::TooLarge { bytes_max }));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                Event::Rejected(Rejection::Publication { id, bytes, why, .. }) => {
                    let at = under_way[&id];
                    assert_eq!(bytes, payloads[at].len());
                    fates[at] = Some(Err(why));
                }
                Event::Connected { .. } | Event::Disconnected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, all).await;
    assert!(in_time.is_ok(), "only these were decided: {fates:?}");
    deliveries.close().await;
    fates.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_connections_die_of_is_given_up_and_all_else_gets_through() {
    for (ends, breaks_max) in [(Reaction::Objects, 3), (Reaction::Ends, 5)] {
        poison_is_found(ends, breaks_max).await;
    }
}

async fn poison_is_found(ends: Reaction, breaks_max: u32) {
    let broker = scripted(move |payload| match payload {
        b"poison" => ends,
        _ => Reaction::Acknowledges,
    });
    let payloads: Vec<_> = (0..40_u8)
        .map(|n| match n {
            0 | 20 => b"poison".to_vec(),
            n => vec![n],
        })
        .collect();
    let fates = fates(MqttConfig::new(broker.to_string()), &payloads).await;
    for (payload, fate) in payloads.iter().zip(fates) {
        let given_up =
            matches!(fate, Err(Objection::EndsConnections { breaks, .. }) if breaks <= breaks_max);
        assert!(given_up || fate.is_ok(), "{fate:?}");
        assert_eq!(given_up, payload == b"poison", "{payload:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_started_again_and_again_loses_nothing() {
    let mut lives = 0;
    let broker = scripted(move |_| {
        lives += 1;
        if lives <= 8 {
            Reaction::Dies
        } else {
            Reaction::Acknowledges
        }
    });
    let payloads = [b"one".to_vec(), b"two".to_vec()];
    let fates = fates(MqttConfig::new(broker.to_string()), &payloads).await;
    assert_eq!(fates, [Ok(()), Ok(())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mosquitto_refuses_as_too_large_is_given_up_and_its_limit_is_learnt() {
    let Some(broker) = Mosquitto::start("message_size_limit 20000\nmax_queued_messages 0") else {
        return;
    };
    let payloads: Vec<_> = (0..30_usize)
        .map(|n| match n {
            7 => vec![1; 24_000],
            8 | 20 => vec![2; 21_000],
            n => vec![3; 100 * n],
        })
        .collect();
    let given = fates(broker.config(), &payloads).await;
    for (payload, fate) in payloads.iter().zip(&given) {
        let given_up = matches!(
            fate,
            Err(Objection::TooLarge { .. } | Objection::FoundTooLarge { .. })
        );
        assert!(given_up || fate.is_ok(), "{fate:?}");
        assert_eq!(given_up, payload.len() > 20_000, "{}", payload.len());
    }
    // From then on it is refused at the door.
    let (publisher, mut deliveries) = OrderedTopic::new(broker.config()).open().unwrap();
    connected(&mut deliveries).await;
    publisher.publish("t", vec![0; 30_000]).unwrap();
    common::await_event(&mut deliveries, "a refusal", |event| match event {
        Event::Rejected(Rejection::Publication { why, .. }) => Some(why),
        _ => None,
    })
    .await;
    let refused = publisher.publish("t", vec![0; 30_000]);
    assert!(
        matches!(refused, Err(PublishError::TooLarge { bytes_max, .. }) if bytes_max <= 20_000),
        "{refused:?}"
    );
}
