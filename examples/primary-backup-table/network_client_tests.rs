//! The order of attempts, and the dialects of servers that others wrote, against servers of a few lines.

use super::*;
use crate::primary_backup_table::client_stub::{ClientStub, Outcome};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What a server does with a request; `None` hangs up.
type Answer = Box<dyn FnMut(&Message) -> Option<Message> + Send>;

/// Serves connections one after the other.
async fn server(mut answer: Answer) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let codec = TableCodec::new(Side::Server, Dialect::Plain, 1_000);
            let mut talk = Conversation::new(stream, codec, Manners::default());
            while let Ok(Some(Ok(request))) = talk.next().await {
                match answer(&request) {
                    Some(reply) => talk.send(reply).await.expect("a listener"),
                    None => break,
                }
            }
        }
    });
    (address, task)
}

async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("its address").to_string()
}

fn patience() -> Patience {
    Patience {
        timeout: Duration::from_millis(300),
        ..Patience::default()
    }
}

fn size() -> Message {
    Message::new(opcode::SIZE, Content::Result(0))
}

fn log() -> (Arc<Mutex<Vec<String>>>, impl FnMut(&Turn) + Send + 'static) {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let turns = Arc::clone(&log);
    let told = move |turn: &Turn| {
        let line = match turn {
            Turn::Other { next, .. } => format!("to {next}"),
            Turn::Again { .. } => "wait".to_owned(),
        };
        turns.lock().expect("no panic").push(line);
    };
    (log, told)
}

/// R1.21: P, S, wait TIMEOUT, P, S, give up. A1.8: TIMEOUT is what was configured.
#[tokio::test]
async fn both_are_tried_twice_with_a_pause_between_and_then_it_gives_up() {
    let asked: Arc<Mutex<Vec<char>>> = Arc::default();
    let hangs_up = |name| {
        let asked = Arc::clone(&asked);
        Box::new(move |_: &Message| {
            asked.lock().expect("no panic").push(name);
            None
        })
    };
    let ((p, _), (s, _)) = (server(hangs_up('P')).await, server(hangs_up('S')).await);
    let (turns, told) = log();
    let mut client = NetworkClient::new(p.clone(), s.clone(), patience()).on_turn(told);
    let began = Instant::now();
    let gave_up = client
        .send_receive(&size())
        .await
        .expect_err("nobody answers");
    assert!(matches!(gave_up, NoAnswer::GaveUp(_)));
    assert!(began.elapsed() >= patience().timeout);
    assert_eq!(*asked.lock().expect("no panic"), ['P', 'S', 'P', 'S']);
    let to_s = format!("to {s}");
    assert_eq!(
        *turns.lock().expect("no panic"),
        [to_s.clone(), "wait".into(), to_s]
    );
}

/// R1.20, R1.22: the same request goes to the secondary, and whoever answers is the primary from then on.
#[tokio::test]
async fn whoever_answers_is_the_primary_from_then_on() {
    let p = nobody().await;
    let answers = |_: &Message| Some(Message::new(opcode::SIZE + 1, Content::Result(3)));
    let (s, _) = server(Box::new(answers)).await;
    let (turns, told) = log();
    let mut client = NetworkClient::new(p, s.clone(), patience()).on_turn(told);
    for _ in 0..2 {
        let reply = client
            .send_receive(&size())
            .await
            .expect("the secondary answers");
        assert_eq!(reply.content, Content::Result(3));
        assert_eq!(client.primary(), s);
    }
    assert_eq!(*turns.lock().expect("no panic"), [format!("to {s}")]);
}

/// A server that takes the connection and says nothing counts as dead.
#[tokio::test]
async fn a_server_that_does_not_answer_is_left_and_its_late_answer_is_not_heard() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let p = silent.local_addr().expect("its address").to_string();
    let answers = |_: &Message| Some(Message::new(opcode::SIZE, Content::Result(4)));
    let (s, _) = server(Box::new(answers)).await;
    let mut client = NetworkClient::new(p, s, patience());
    let reply = client
        .send_receive(&size())
        .await
        .expect("the secondary answers");
    assert_eq!(reply.content, Content::Result(4));
}

/// Reply dialects of existing servers: the code repeated or plus one, failures as either, and no word for sessions.
#[tokio::test]
async fn servers_of_others_are_understood() {
    type Dialects = [(fn(&Message) -> Option<Message>, &'static str); 3];
    fn entry_exists(request: &Message) -> bool {
        request.opcode == opcode::COND_PUT
    }
    let dialects: Dialects = [
        (
            |request| match request.opcode {
                opcode::SESSION => Some(Message::failure()),
                opcode::GET_KEYS => Some(Message::new(61, Content::Keys(vec!["k".into()]))),
                code if entry_exists(request) => Some(Message::new(code + 1, Content::Result(-1))),
                code => Some(Message::new(code + 1, Content::Result(0))),
            },
            "always plus one",
        ),
        (
            |request| match request.opcode {
                10 | 40 => Some(Message::new(request.opcode, Content::Result(0))),
                20 => Some(Message::failure()),
                50 => Some(Message::new(50, Content::Result(0))),
                60 => Some(Message::failure()),
                _ => None,
            },
            "hangs up on what it does not know",
        ),
        (
            |request| match request.opcode {
                110 => Some(Message::new(111, Content::Result(-1))),
                20 => Some(Message::new(20, Content::Result(-1))),
                60 => Some(Message::new(60, Content::Keys(vec![]))),
                code => Some(Message::new(code, Content::Result(0))),
            },
            "repeats the code",
        ),
    ];
    for (answer, name) in dialects {
        let (p, _) = server(Box::new(answer)).await;
        let s = nobody().await;
        let (turns, told) = log();
        let network = NetworkClient::new(p, s, patience()).on_turn(told);
        let mut table = ClientStub::new(network);
        let (key, data) = (bytes::Bytes::from("k"), bytes::Bytes::from("v"));
        let put = table.put(key.clone(), data.clone()).await;
        assert_eq!(put, Ok(Outcome::Done(())), "{name}");
        let cput = table.cond_put(key.clone(), data).await;
        assert_eq!(cput, Ok(Outcome::Failed), "{name}");
        assert_eq!(table.del(key).await, Ok(Outcome::Done(())), "{name}");
        assert_eq!(table.size().await, Ok(Outcome::Done(0)), "{name}");
        let keys = table.get_keys().await;
        assert!(matches!(keys, Ok(Outcome::Done(_))), "{name}");
        assert!(turns.lock().expect("no panic").is_empty(), "{name}");
    }
}

/// A write has one identity in all its attempts, and the next write another.
#[tokio::test]
async fn a_write_that_is_sent_again_is_the_same_write() {
    let seen: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let answers = |lives: usize| {
        let (seen, mut writes) = (Arc::clone(&seen), 0);
        Box::new(move |request: &Message| match &request.content {
            Content::Once { session, seq, .. } => {
                seen.lock().expect("no panic").push((*session, *seq));
                writes += 1;
                (writes <= lives).then(|| Message::new(opcode::PUT + 1, Content::Result(0)))
            }
            _ => Some(Message::new(
                opcode::SESSION + 1,
                Content::Value(vec![0, 0, 0, 0, 0, 0, 0, 9].into()),
            )),
        })
    };
    // The primary answers the first write and hangs up on the second.
    let ((p, _), (s, _)) = (server(answers(1)).await, server(answers(9)).await);
    let mut table = ClientStub::new(NetworkClient::new(p, s, patience()));
    for _ in 0..3 {
        let put = table.put("k".into(), "v".into()).await;
        assert_eq!(put, Ok(Outcome::Done(())));
    }
    let seen = seen.lock().expect("no panic");
    assert_eq!(*seen, [(9, 1), (9, 2), (9, 2), (9, 3)]);
}

/// A request that is larger than any message blames nobody: neither server is asked, and the next request goes to the same primary.
#[tokio::test]
async fn a_request_that_is_too_large_is_refused_at_home_and_blames_no_server() {
    let answers = |request: &Message| match request.opcode {
        opcode::SESSION => Some(Message::failure()),
        code => Some(Message::new(code + 1, Content::Result(0))),
    };
    let (p, _) = server(Box::new(answers)).await;
    let (turns, told) = log();
    let network = NetworkClient::new(p.clone(), nobody().await, patience()).on_turn(told);
    let mut table = ClientStub::new(network);
    let huge =
        bytes::Bytes::from(vec![0; crate::primary_backup_table::message::FRAME_SENT_BYTES_MAX]);
    let refused = table.put("k".into(), huge).await.expect_err("too large");
    assert!(matches!(refused, NoAnswer::Unsendable(_)), "{refused}");
    assert!(
        refused.to_string().contains("nothing was sent"),
        "{refused}"
    );
    assert_eq!(table.size().await, Ok(Outcome::Done(0)));
    assert_eq!(table.network().primary(), p);
    assert!(turns.lock().expect("no panic").is_empty());
}
