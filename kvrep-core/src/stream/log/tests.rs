//! What goes into the log in one command, and what never will.

use super::LogLink;
use super::member::{put_batch, trouble_of};
use super::sequencer::{CallId, Record, Sequencer};
use crate::client_wire::{Op, Outcome};
use crate::config::{Limits, Read};
use crate::id::Index;
use crate::node::{Client, ClientError, ClientLink, Feed, LinkError, LocalLink, Node, NodeEvent};
use crate::protocol::Event;
use crate::protocol::active::{Life, Message};
use crate::stream::StreamEvent;
use async_trait::async_trait;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

#[test]
fn what_the_log_loses_is_said_to_its_members_operators() {
    let lost = NodeEvent::Protocol(Event::AcknowledgedWritesLost {
        from: Index(7),
        commit: Index(9),
        writes: None,
    });
    assert!(trouble_of(&lost).is_some_and(|what| what.contains("from @7 on")));
    let dropped = NodeEvent::Protocol(Event::Dropped(crate::ReplicaId(2)));
    assert_eq!(trouble_of(&dropped), None);
}

const TEXT: usize = 3 << 10;

fn answer(number: u64, bytes: usize) -> (CallId, Record) {
    let call = CallId { client: 1, number };
    let outcome = vec![7; bytes].into();
    (call, Record::Answer { call, outcome })
}

/// A log of one node, whose commands have at most so many bytes.
async fn node(command_bytes_max: usize) -> Node {
    let limits = Limits {
        command_bytes_max,
        ..Limits::default()
    };
    let node = Node::builder("log", crate::ReplicaId(1))
        .limits(limits)
        .state_machine(Sequencer::default());
    node.start().await.unwrap()
}

#[tokio::test]
async fn what_is_too_large_together_goes_in_parts_and_what_is_too_large_by_itself_is_left_out() {
    let node = node(TEXT + 1_024).await;
    let log = Client::<Sequencer>::new(LocalLink::new([&node]));
    let mut records: Vec<_> = (0..8).map(|n| answer(n, TEXT).1).collect();
    let (large, record) = answer(8, 2 * TEXT);
    records.insert(5, record);
    let (tell, mut told) = mpsc::channel(16);
    put_batch(&log, records, &tell).await;

    for number in 0..8 {
        let kept = log.query(Read::Linearizable, answer(number, 0).0).await;
        assert_eq!(kept.unwrap().map(|kept| kept.len()), Some(TEXT), "{number}");
    }
    assert_eq!(log.query(Read::Linearizable, large).await.unwrap(), None);
    drop(tell);
    let Some(StreamEvent::Trouble(what)) = told.recv().await else {
        panic!("it is told");
    };
    assert!(what.contains("command_bytes_max"), "{what}");
    assert!(told.recv().await.is_none(), "once");
}

#[tokio::test]
async fn a_piece_of_a_state_that_is_too_large_for_the_log_goes_in_smaller_ones() {
    let node = node(TEXT).await;
    let mut feed = node.subscribe();
    let log = Client::<Sequencer>::new(LocalLink::new([&node]));
    let state: Vec<u8> = (0..10 * TEXT).map(|n| (n % 251) as u8).collect();
    let piece = Record::Message {
        from: crate::ReplicaId(1),
        config_hash: 0,
        to: None,
        message: Message::Piece {
            life: Life::default(),
            from: crate::ReplicaId(1),
            at: Index(1),
            chain: 0,
            offset: 0,
            whole: state.len() as u64,
            data: state.clone().into(),
        },
    };
    let (tell, mut told) = mpsc::channel(16);
    put_batch(&log, vec![piece], &tell).await;
    drop(tell);
    assert!(told.recv().await.is_none(), "nothing is amiss");
    let mut heard = Vec::new();
    while heard.len() < state.len() {
        let Some(Feed::Applied(command)) = feed.next().await else {
            panic!("nothing is missed");
        };
        let (records, _) = command.decode::<Sequencer>().unwrap();
        for record in records {
            if let Record::Message {
                message: Message::Piece { offset, data, .. },
                ..
            } = record
            {
                assert_eq!(offset, heard.len() as u64);
                heard.extend_from_slice(&data);
            }
        }
    }
    assert_eq!(heard, state);
}

/// A link to a log that is not there: why, and after how long that is said.
struct Nowhere(LinkError, Duration);

#[async_trait]
impl ClientLink for Nowhere {
    fn targets(&self) -> usize {
        1
    }

    fn resolve(&self, _: crate::ReplicaId, _: Option<&str>) -> Option<usize> {
        None
    }

    async fn call(&self, _: usize, _: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        let Self(why, after) = self;
        tokio::time::sleep_until(deadline.min(Instant::now() + *after)).await;
        Err(why.clone())
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn why_the_log_is_not_reached_is_said_and_what_never_will_be_ends_at_once() {
    for after in [Duration::ZERO, Duration::from_secs(60)] {
        let nobody = LinkError::NotSent("nobody of this group answers".into());
        // What is lost on the way to the log's session is nothing done.
        let lost = LinkError::Lost("nobody of this group answers".into());
        for why in [nobody, lost] {
            let client = Client::<Sequencer>::new(LogLink::new("group", Nowhere(why, after)));
            let error = client.execute(Vec::new()).await.unwrap_err();
            let told = matches!(&error, ClientError::Unavailable { last } if last.contains("nobody of this group"));
            assert!(told, "{error:?}");
        }
    }

    let began = Instant::now();
    let wrong = LinkError::Hopeless("it is of another group".into());
    let link = LogLink::new("group", Nowhere(wrong, Duration::ZERO));
    let error = Client::<Sequencer>::new(link).execute(Vec::new()).await;
    let told = matches!(&error, Err(ClientError::Unavailable { last }) if last.contains("of another group"));
    assert!(told, "{error:?}");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// A log that takes what it is given, and whose active group has nobody.
#[tokio::test]
async fn that_the_log_has_a_request_which_nobody_answers_is_said() {
    let node = node(TEXT).await;
    let options = crate::node::ClientOptions::default().deadline(Duration::from_millis(300));
    let link = LogLink::new("group", LocalLink::new([&node]));
    let client = Client::<Sequencer>::with_options(link, options);
    let error = client.execute_at_most_once(Vec::new()).await.unwrap_err();
    let told = matches!(&error, ClientError::Unknown { last } if last.contains("in the log"));
    assert!(told, "{error:?}");
}
