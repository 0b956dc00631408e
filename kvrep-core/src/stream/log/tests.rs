//! What goes into the log in one command, and what never will.

use super::member::{put_batch, trouble_of};
use super::sequencer::{CallId, Record, Sequencer};
use crate::config::{Limits, Read};
use crate::id::Index;
use crate::node::{Client, Feed, LocalLink, Node, NodeEvent};
use crate::protocol::Event;
use crate::protocol::active::{Life, Message};
use crate::stream::StreamEvent;
use tokio::sync::mpsc;

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
