//! Members of a group over TCP: who is let in, who is told why not, and what is seen of the others.

mod common;

use common::{Node, PATIENCE, me, reaches, two, two_bound, until};
use kvrep_core::transport::{Destination, Hint, InboxEvent, LocalPeer, Transport, TransportError};
use kvrep_core::{GroupId, Incarnation, ReplicaId};
use kvrep_transport_tcp::codec::{Cause, Refusal};
use kvrep_transport_tcp::{
    TcpConfig, TcpLimits, TcpTiming, TcpTransport, Unlisted, Unreachable, Way,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test]
async fn a_port_in_use_is_reported_with_a_remedy() {
    let one = Node::alone(|config| config).await;
    let error = TcpTransport::bind(TcpConfig::new(one.address()))
        .await
        .unwrap_err();
    assert!(matches!(&error, TransportError::Listen { address, .. } if *address == one.address()));
    assert!(error.to_string().contains("choose another port"), "{error}");
    // The same when the address is bound only at the start.
    let late = TcpTransport::new(TcpConfig::new(one.address()));
    let mailbox = kvrep_core::testing::mailbox::Mailbox::new(1);
    assert!(late.start(me(2), mailbox.inbox()).await.is_err());
}

#[tokio::test]
async fn what_is_no_address_is_reported_with_a_remedy() {
    for address in ["nonsense", "127.0.0.1", "127.0.0.1:99999", "203.0.113.1:0"] {
        let error = TcpTransport::bind(TcpConfig::new(address))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(address), "{error}");
    }
}

#[tokio::test]
async fn another_group_configuration_or_replica_is_refused() {
    let strangers = [
        LocalPeer {
            group: GroupId::named("other"),
            ..me(2)
        },
        LocalPeer {
            config_hash: 8,
            ..me(2)
        },
        me(3),
    ];
    for stranger in strangers {
        let (one, other) = two_bound(|config| config.unlisted(Unlisted::Refuse)).await;
        let (one, other) = (
            Node::start(me(1), one).await,
            Node::start(stranger, other).await,
        );
        until("refused by one", || one.counters().refused > 0).await;
        until("refused by the other", || other.counters().refused > 0).await;
        one.send(ReplicaId(2), 1);
        other.send(ReplicaId(1), 1);
        assert_eq!(one.counters().frames_dropped, 1);
        assert_eq!(other.counters().frames_dropped, 1);
        assert!(one.mailbox.next(Duration::ZERO).await.is_none());
        assert!(other.mailbox.next(Duration::ZERO).await.is_none());
    }
}

#[tokio::test]
async fn a_program_is_told_why_a_peer_cannot_be_reached() {
    let told: Arc<Mutex<Vec<Unreachable>>> = Arc::default();
    let (one, other) = two_bound(|config| {
        let told = Arc::clone(&told);
        config.on_unreachable(move |why| told.lock().unwrap().push(why.clone()))
    })
    .await;
    let elsewhere = one.local_addr().unwrap().to_string();
    let _one = Node::start(me(1), one).await;
    let stranger = LocalPeer {
        config_hash: 8,
        ..me(2)
    };
    let _other = Node::start(stranger, other).await;
    until("both are told", || {
        let told = told.lock().unwrap();
        [1, 2]
            .iter()
            .all(|id| told.iter().any(|t| t.peer == ReplicaId(*id)))
    })
    .await;
    let told = told.lock().unwrap();
    let of_one = told.iter().find(|t| t.peer == ReplicaId(1)).unwrap();
    assert_eq!(of_one.address, elsewhere);
    assert!(matches!(
        of_one.refusal,
        Some(Refusal::OtherConfiguration { .. })
    ));
    assert!(!of_one.why.contains("hash"), "{}", of_one.why);
}

#[tokio::test]
async fn a_refused_peer_backs_off() {
    let (one, other) = two_bound(|config| config).await;
    let one = Node::start(me(1), one).await;
    let _other = Node::start(
        LocalPeer {
            config_hash: 8,
            ..me(2)
        },
        other,
    )
    .await;
    until("refused", || one.counters().refused > 0).await;
    let began = Instant::now();
    until("refused again", || one.counters().refused > 3).await;
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn the_witness_takes_any_configuration_and_needs_no_list() {
    let config = TcpConfig::new("127.0.0.1:0").unlisted(Unlisted::Answer);
    let witness = TcpTransport::bind(config).await.unwrap();
    let at = witness.local_addr().unwrap().to_string();
    let witness_peer = LocalPeer {
        config_hash: 0,
        ..me(ReplicaId::WITNESS.0)
    };
    let witness = Node::start(witness_peer, witness).await;
    let one = Node::alone(|config| config.peer(ReplicaId::WITNESS, at)).await;
    witness.await_hint(ReplicaId(1), Hint::Connected).await;
    reaches(&one, &witness, 1).await;
    reaches(&witness, &one, 2).await;
    // The witness is not part of the group.
    let frame = kvrep_core::wire::encode_frame(kvrep_core::wire::FrameKind::Peer, b"to all");
    one.transport.send(Destination::Group, frame);
    one.send(ReplicaId::WITNESS, 3);
    let heard = witness.await_event("a frame", |event| match event {
        InboxEvent::Peer(body) => Some(body),
        _ => None,
    });
    assert_ne!(heard.await, "to all");
}

#[tokio::test]
async fn a_member_that_is_not_listed_is_told_so() {
    let one = Node::alone(|config| config.unlisted(Unlisted::Refuse)).await;
    let at = one.address();
    let config = TcpConfig::new("127.0.0.1:0").peer(ReplicaId(1), at);
    let five = Node::start(me(5), TcpTransport::bind(config).await.unwrap()).await;
    until("refused", || one.counters().refused > 0).await;
    five.send(ReplicaId(1), 1);
    assert_eq!(five.counters().frames_dropped, 1);
}

#[tokio::test]
async fn a_listed_member_that_comes_back_elsewhere_is_found_there() {
    let (one, two) = two(|config| config).await;
    one.await_hint(ReplicaId(2), Hint::Connected).await;
    let (there, before) = (one.address(), two.address());
    two.transport.close().await;
    one.await_hint(ReplicaId(2), Hint::Gone).await;
    let config = TcpConfig::new("127.0.0.1:0").peer(ReplicaId(1), there);
    let later = LocalPeer {
        incarnation: me(2).incarnation.next(),
        ..me(2)
    };
    let two = Node::start(later, TcpTransport::bind(config).await.unwrap()).await;
    assert_ne!(two.address(), before);
    reaches(&two, &one, 1).await;
    reaches(&one, &two, 2).await;
    let told = one.transport.address_of(ReplicaId(2));
    assert_eq!(told, Some(two.address()), "clients are sent there, too");
}

#[tokio::test]
async fn of_two_processes_under_one_id_the_earlier_is_refused_and_told_so() {
    let (one, two) = two(|config| config).await;
    reaches(&two, &one, 1).await;
    let config = TcpConfig::new("127.0.0.1:0").peer(ReplicaId(1), one.address());
    let later = LocalPeer {
        incarnation: me(2).incarnation.next(),
        ..me(2)
    };
    let other = Node::start(later, TcpTransport::bind(config).await.unwrap()).await;
    reaches(&other, &one, 2).await;
    two.await_hint(ReplicaId(1), Hint::Superseded).await;
    reaches(&other, &one, 3).await;
}

#[tokio::test]
async fn of_two_newcomers_under_one_id_that_nobody_lists_the_earlier_is_told_so_too() {
    let elder = Node::alone(|config| config).await;
    let newcomer = async |incarnation| {
        let config = TcpConfig::new("127.0.0.1:0").peer(ReplicaId(1), elder.address());
        let peer = LocalPeer {
            incarnation,
            ..me(5)
        };
        Node::start(peer, TcpTransport::bind(config).await.unwrap()).await
    };
    let first = newcomer(me(5).incarnation).await;
    reaches(&first, &elder, 1).await;
    // It listens elsewhere, which takes the place of what was learned of the first.
    let other = newcomer(me(5).incarnation.next()).await;
    reaches(&other, &elder, 2).await;
    first.await_hint(ReplicaId(1), Hint::Superseded).await;
    reaches(&elder, &other, 3).await;
}

#[tokio::test]
async fn a_peer_whose_process_ended_is_reported_gone_at_once() {
    let (one, two) = two(|config| config).await;
    one.await_hint(ReplicaId(2), Hint::Connected).await;
    two.transport.close().await;
    let began = Instant::now();
    one.await_hint(ReplicaId(2), Hint::Gone).await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // Once: further attempts find nobody either, which is no news.
    let more = one.mailbox.next(Duration::from_millis(300)).await;
    assert!(more.is_none(), "{more:?}");
}

#[tokio::test]
async fn a_reset_that_reconnects_is_no_end_of_the_process() {
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let two = TcpTransport::bind(TcpConfig::new("127.0.0.1:0").peer(ReplicaId(1), "127.0.0.1:9"));
    let two = Node::start(me(2), two.await.unwrap()).await;
    let through = proxy.local_addr().unwrap().to_string();
    let one = Node::alone(|config| config.peer(ReplicaId(2), through)).await;
    for _ in 0..3 {
        let (mut dialled, _) = proxy.accept().await.unwrap();
        let mut onward = tokio::net::TcpStream::connect(two.address()).await.unwrap();
        let carry = tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut dialled, &mut onward).await;
        });
        let next = one.mailbox.next(PATIENCE).await;
        assert_eq!(format!("{next:?}"), "Some(Hint(n2, Connected))");
        carry.abort();
    }
}

#[tokio::test]
async fn a_new_life_replaces_the_connections_of_the_old() {
    let (one, two) = two(|config| config).await;
    reaches(&two, &one, 1).await;
    let address = two.address();
    two.transport.close().await;
    let config = TcpConfig::new(address).peer(ReplicaId(1), one.address());
    let again = LocalPeer {
        incarnation: Incarnation(2),
        ..me(2)
    };
    let two = Node::start(again, TcpTransport::new(config)).await;
    reaches(&two, &one, 2).await;
    reaches(&one, &two, 3).await;
}

#[tokio::test]
async fn a_quiet_group_stays_connected_by_its_signs_of_life() {
    let mut timing = TcpTiming::default();
    timing.idle_after = Duration::from_millis(600);
    let (one, two) = two(|config| config.timing(timing)).await;
    reaches(&one, &two, 1).await;
    reaches(&two, &one, 1).await;
    let quiet = Duration::from_millis(2_000);
    let (seen_by_one, seen_by_two) = tokio::join!(one.mailbox.next(quiet), two.mailbox.next(quiet));
    assert!(
        seen_by_one.is_none() && seen_by_two.is_none(),
        "{seen_by_one:?} {seen_by_two:?}"
    );
}

#[tokio::test]
async fn a_peer_that_falls_silent_without_a_word_is_disconnected() {
    // A listener that takes connections and never says anything, as a stopped process does.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = mute.local_addr().unwrap().to_string();
    let mut timing = TcpTiming::default();
    timing.handshake_within = Duration::from_millis(50);
    let one = Node::alone(|config| config.timing(timing).peer(ReplicaId(2), at)).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(mute.accept().await.unwrap());
    }
    one.send(ReplicaId(2), 1);
    assert_eq!(one.counters().frames_dropped, 1);
    assert!(
        one.mailbox.next(Duration::ZERO).await.is_none(),
        "neither connected nor gone"
    );
}

#[tokio::test]
async fn a_transport_that_is_dropped_without_close_ends_too() {
    let (one, two) = two(|config| config).await;
    one.await_hint(ReplicaId(2), Hint::Connected).await;
    drop(two);
    one.await_hint(ReplicaId(2), Hint::Gone).await;
}

#[tokio::test]
async fn a_long_queue_does_not_hold_up_the_signs_of_life() {
    const FRAMES: usize = 1_500;
    let mut timing = TcpTiming::default();
    timing.idle_after = Duration::from_millis(1_000);
    let mut limits = TcpLimits::default();
    limits.queue_bytes_max = 128 << 20;
    let (one, two) = two(|config| config.timing(timing).limits(limits)).await;
    one.await_hint(ReplicaId(2), Hint::Connected).await;
    two.await_hint(ReplicaId(1), Hint::Connected).await;
    let frame = kvrep_core::wire::encode_frame(kvrep_core::wire::FrameKind::Peer, &[0; 60_000]);
    for _ in 0..FRAMES {
        one.transport
            .send(Destination::One(ReplicaId(2)), frame.clone());
    }
    // Read slowly: some three times the idle time for all of it, but so fast that what the kernels hold between the two,
    // which no sign of life overtakes, is read within a fraction of that time.
    let mut heard = 0;
    while heard < FRAMES {
        match two.mailbox.next(PATIENCE).await {
            Some(InboxEvent::Peer(_)) => heard += 1,
            other => panic!("after {heard} frames: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seen = one.mailbox.next(Duration::ZERO).await;
    assert!(seen.is_none(), "disconnected meanwhile: {seen:?}");
}

#[tokio::test]
async fn a_connection_that_goes_dead_in_the_middle_is_given_up_without_calling_the_peer_gone() {
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = TcpConfig::new("127.0.0.1:0").peer(ReplicaId(1), "127.0.0.1:9");
    let two = Node::start(me(2), TcpTransport::bind(config).await.unwrap()).await;
    let through = proxy.local_addr().unwrap().to_string();
    let mut timing = TcpTiming::default();
    timing.idle_after = Duration::from_millis(300);
    let one = Node::alone(|config| config.timing(timing).peer(ReplicaId(2), through)).await;
    let (mut dialled, _) = proxy.accept().await.unwrap();
    let mut onward = tokio::net::TcpStream::connect(two.address()).await.unwrap();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut dialled, &mut onward) => panic!("it ended"),
        () = reaches(&one, &two, 1) => {}
    }
    // From here on nothing is carried, though everything stays open.
    let before = one.counters().frames_dropped;
    until("given up", || {
        one.send(ReplicaId(2), 2);
        one.counters().frames_dropped > before
    })
    .await;
    one.await_hint(ReplicaId(2), Hint::Connected).await;
    let more = one.mailbox.next(Duration::ZERO).await;
    assert!(more.is_none(), "{more:?}");
}

#[tokio::test]
async fn a_member_that_nobody_told_of_is_found_where_the_rule_says() {
    let elder = TcpTransport::bind(TcpConfig::new("127.0.0.1:0"))
        .await
        .unwrap();
    let address = elder.local_addr().unwrap().to_string();
    let elder = Node::start(me(2), elder).await;
    let lost = Node::alone(|config| {
        config.locate(move |replica| (replica == ReplicaId(2)).then(|| address.clone()))
    })
    .await;
    reaches(&lost, &elder, 1).await;
    // The other way the elder dials whom it has heard.
    reaches(&elder, &lost, 2).await;
    lost.send(ReplicaId(3), 3);
    assert!(lost.counters().frames_dropped > 0, "the rule knows no such");
}

#[test]
fn an_address_that_nobody_could_dial_is_refused_by_the_name_of_its_peer() {
    for garbage in [
        "",
        "7001",
        "host:",
        ":7001",
        "host:http",
        "host:70000",
        "host:0",
    ] {
        let config = TcpConfig::new("127.0.0.1:0").peer(ReplicaId(2), garbage);
        let why = config.validate().unwrap_err();
        assert!(why.contains("the address of n2"), "{garbage:?}: {why}");
    }
    for good in ["localhost:1", "10.0.0.2:65535", "[::1]:7001"] {
        let config = TcpConfig::new("127.0.0.1:0").peer(ReplicaId(2), good);
        assert_eq!(config.validate(), Ok(()), "{good}");
    }
}

/// It hears nothing: whoever it asks must say over the connection that it made that the way back leads nowhere.
#[tokio::test]
async fn whoever_is_heard_and_cannot_be_reached_is_told_where_it_was_tried_and_why() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let wrong = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let told: Arc<Mutex<Vec<Unreachable>>> = Arc::default();
    let elder = Node::alone(|config| config).await;
    let hears = Arc::clone(&told);
    let newcomer = TcpConfig::new("127.0.0.1:0")
        .peer(elder.id, elder.address())
        .peer(ReplicaId(2), &wrong)
        .on_unreachable(move |why| hears.lock().unwrap().push(why.clone()));
    let newcomer = TcpTransport::bind(newcomer).await.unwrap();
    let newcomer = Node::start(me(2), newcomer).await;
    newcomer.await_hint(elder.id, Hint::Unheard).await;
    let told = told.lock().unwrap();
    let back = told.iter().find(|t| t.peer == elder.id).unwrap();
    let cause = Cause::NobodyListens;
    assert_eq!(
        (back.way, &back.address, &back.refusal),
        (Way::Back { cause }, &wrong, &None)
    );
    assert!(back.why.contains("correct the address"), "{}", back.why);
}

#[tokio::test]
async fn whoever_is_reached_is_told_nothing() {
    let (one, other) = two_bound(|config| config).await;
    let (one, other) = (
        Node::start(me(1), one).await,
        Node::start(me(2), other).await,
    );
    reaches(&one, &other, 1).await;
    reaches(&other, &one, 1).await;
    // Longer than it takes to be told.
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        let left = deadline - Instant::now();
        let event = other.mailbox.next(left).await;
        assert!(
            !matches!(
                event,
                Some(InboxEvent::Hint {
                    hint: Hint::Unheard,
                    ..
                })
            ),
            "{event:?}"
        );
    }
}
