//! A follower's way to a leader that these tests play.

use super::*;
use crate::common::conversation::Conversation;
use crate::zk_like_kv::framing::Framing;
use crate::zk_like_kv::message::Mensagem;
use tokio::net::TcpListener;

const WITHIN: Duration = Duration::from_secs(60);

type Talk = Conversation<TcpStream, Framing>;

/// A leader that listens, and a way to it.
async fn leader_and_forwarder(within: Duration) -> (TcpListener, Arc<Forwarder>) {
    let leader = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (console, _) = Console::kept();
    let at = leader.local_addr().unwrap();
    (
        leader,
        Arc::new(Forwarder::new(me(), at, Arc::new(console), within)),
    )
}

fn me() -> SocketAddr {
    "127.0.0.1:10098".parse().unwrap()
}

async fn accept(leader: &TcpListener) -> Talk {
    let (stream, _) = timeout(WITHIN, leader.accept()).await.unwrap().unwrap();
    framing::talk(stream, &[], MANNERS)
}

async fn asked(talk: &mut Talk) -> Mensagem {
    let message = timeout(WITHIN, talk.next()).await.unwrap().unwrap();
    let asked: Mensagem = serde_json::from_slice(&message.expect("a question").json).unwrap();
    // Who passes it on, and what its client has seen.
    assert_eq!(asked.servidor, Some(me().to_string()));
    assert_eq!(asked.timestamp, Some(3));
    asked
}

async fn answer(talk: &mut Talk, put: &Mensagem, timestamp: u64) {
    let ok = Mensagem {
        tipo: "PUT_OK".into(),
        timestamp: Some(timestamp),
        cliente: None,
        ..put.clone()
    };
    let ok = serde_json::to_vec(&ok).unwrap();
    talk.send(&ok[..]).await.unwrap();
}

fn put(forwarder: &Arc<Forwarder>, key: &str) -> tokio::task::JoinHandle<Answer> {
    let forwarder = Arc::clone(forwarder);
    let client = "10.0.0.7:5".parse().unwrap();
    let put = Put {
        key: key.to_owned(),
        value: "v".into(),
        seen: 3,
        passed_on_by: None,
    };
    tokio::spawn(async move { forwarder.put(client, put).await })
}

async fn erro(asked: tokio::task::JoinHandle<Answer>) -> String {
    match timeout(WITHIN, asked).await.unwrap().unwrap() {
        Answer::Erro { erro, .. } => erro,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn r3_22_many_clients_puts_share_one_connection_and_none_waits_for_another() {
    let (leader, forwarder) = leader_and_forwarder(WITHIN).await;
    let clients: Vec<_> = (0..100)
        .map(|n| put(&forwarder, &format!("k{n}")))
        .collect();
    let mut talk = accept(&leader).await;
    // Not one is answered before all have come.
    let mut puts = Vec::new();
    while puts.len() < clients.len() {
        puts.push(asked(&mut talk).await);
    }
    for (n, put) in puts.iter().enumerate() {
        assert_eq!(
            (put.tipo.as_str(), put.cliente.as_deref()),
            ("PUT", Some("10.0.0.7:5"))
        );
        answer(&mut talk, put, n as u64).await;
    }
    for (n, client) in clients.into_iter().enumerate() {
        let said = timeout(WITHIN, client).await.unwrap().unwrap();
        let (key, value) = (format!("k{n}"), "v".to_owned());
        let timestamp = puts.iter().position(|put| put.key.as_ref() == Some(&key));
        let timestamp = timestamp.unwrap() as u64;
        assert_eq!(
            said,
            Answer::PutOk {
                key,
                value,
                timestamp
            }
        );
    }
}

#[tokio::test]
async fn what_is_under_way_when_the_leader_goes_is_unknown_and_the_next_put_finds_it_again() {
    let (leader, forwarder) = leader_and_forwarder(WITHIN).await;
    let under_way = put(&forwarder, "a");
    let mut talk = accept(&leader).await;
    asked(&mut talk).await;
    drop(talk);
    assert!(erro(under_way).await.contains("resultado desconhecido"));
    let next = put(&forwarder, "b");
    let mut talk = accept(&leader).await;
    let question = asked(&mut talk).await;
    assert_eq!(question.key.as_deref(), Some("b"));
    answer(&mut talk, &question, 7).await;
    let said = timeout(WITHIN, next).await.unwrap().unwrap();
    assert!(
        matches!(said, Answer::PutOk { timestamp: 7, .. }),
        "{said:?}"
    );
}

#[tokio::test]
async fn an_answer_to_another_question_is_nobodys_and_a_leader_that_sends_one_is_left() {
    let (leader, forwarder) = leader_and_forwarder(WITHIN).await;
    let waiting = put(&forwarder, "a");
    let mut talk = accept(&leader).await;
    let question = asked(&mut talk).await;
    let other = Mensagem {
        key: Some("b".into()),
        ..question
    };
    answer(&mut talk, &other, 7).await;
    assert!(erro(waiting).await.contains("resultado desconhecido"));
    // It has hung up.
    assert!(!matches!(
        timeout(WITHIN, talk.next()).await.unwrap(),
        Ok(Some(_))
    ));
}

#[tokio::test]
async fn a_leader_that_says_nothing_is_waited_for_until_the_bound_and_then_left() {
    let within = Duration::from_secs(2);
    let (leader, forwarder) = leader_and_forwarder(within).await;
    let began = Instant::now();
    let waiting = put(&forwarder, "a");
    let mut talk = accept(&leader).await;
    asked(&mut talk).await;
    // Everything is on its way that is to come: from here on only time passes.
    tokio::time::pause();
    assert!(erro(waiting).await.contains("não respondeu a tempo"));
    assert!(began.elapsed() >= within + RELAY_SLACK);
    assert!(!matches!(
        timeout(WITHIN, talk.next()).await.unwrap(),
        Ok(Some(_))
    ));
    assert!(began.elapsed() < WITHIN);
}

#[tokio::test]
async fn a_leader_that_is_not_there_leaves_no_doubt_that_nothing_was_done() {
    let (leader, forwarder) = leader_and_forwarder(Duration::from_millis(1)).await;
    drop(leader);
    assert!(erro(put(&forwarder, "a")).await.contains("nada foi feito"));
}

#[tokio::test]
async fn a_connection_that_nobody_needs_is_given_up_before_the_leader_does() {
    let (leader, forwarder) = leader_and_forwarder(WITHIN).await;
    let asking = put(&forwarder, "a");
    let mut talk = accept(&leader).await;
    let question = asked(&mut talk).await;
    answer(&mut talk, &question, 1).await;
    asking.await.unwrap();
    tokio::time::pause();
    let began = Instant::now();
    assert!(matches!(
        timeout(WITHIN, talk.next()).await.unwrap(),
        Ok(None)
    ));
    assert!(began.elapsed() < 2 * IDLE);
}

#[test]
fn a3_7_what_is_passed_on_is_the_clients_mensagem_with_its_address() {
    for client in ["10.0.0.7:5", "[2001:db8::7]:65535"] {
        let client = client.parse().unwrap();
        let put = PassedOn {
            tipo: "PUT",
            key: "k\"",
            value: "ç\n",
            timestamp: Some(3),
            cliente: client,
            servidor: me(),
        };
        let mensagem = Mensagem {
            timestamp: Some(3),
            servidor: Some(me().to_string()),
            ..Mensagem::put("k\"", "ç\n", Some(client))
        };
        assert_eq!(
            serde_json::to_string(&put).unwrap(),
            serde_json::to_string(&mensagem).unwrap()
        );
    }
}
