//! What goes into the log in one command, and what never will.

use super::*;
use crate::config::{Limits, Read};
use crate::node::LocalLink;

const TEXT: usize = 3 << 10;

fn answer(number: u64, bytes: usize) -> (CallId, Record) {
    let call = CallId { client: 1, number };
    let outcome = vec![7; bytes].into();
    (call, Record::Answer { call, outcome })
}

#[tokio::test]
async fn what_is_too_large_together_goes_in_parts_and_what_is_too_large_by_itself_is_left_out() {
    let limits = Limits {
        command_bytes_max: TEXT + 1_024,
        ..Limits::default()
    };
    let node = Node::builder("log", crate::ReplicaId(1))
        .limits(limits)
        .state_machine(Sequencer::default())
        .start()
        .await
        .unwrap();
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
