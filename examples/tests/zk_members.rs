//! Who the three servers of system 3 are, with real processes: registered, mistaken, gone, replaced.

mod zk;

use kvrep_examples::zk_like_kv::session::{Session, Value};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use zk::{Trio, WITHIN};

#[tokio::test]
async fn a_follower_that_was_a_mistake_is_replaced_and_the_table_stays() {
    let bound: &[&str] = &["--limite-put", "2000"];
    let mut trio = Trio::start(1, [bound; 3]).await;
    let before = trio.writes(1, "k", "kept").await;
    // The third ran at the wrong port: it is stopped, and the right one is not let in as if nothing were the matter.
    let wrong = trio.addresses[2].clone();
    trio.servers[2].kill().await.unwrap();
    trio.move_to_another_port(2);
    let fourth = trio.server(2, 1, bound);
    trio.said("--no-lugar-de e o endereço dele").await;
    drop(fourth);
    let options = [bound, &["--no-lugar-de", &wrong]].concat();
    trio.servers[2] = trio.server(2, 1, &options);
    let written = trio.writes(2, "k", "new").await;
    assert!(written > before);
    trio.said(&format!("{} toma o lugar de {wrong}", trio.addresses[2]))
        .await;
    // The others know it from now on: the leader may be started again and has the table from them, with the right three.
    trio.servers[1].kill().await.unwrap();
    trio.servers[1] = trio.server(1, 1, bound);
    let again = trio.writes(0, "other", "v").await;
    assert!(again > written);
    for server in 0..3 {
        let found = trio.session(&[server], 1).get("k").await.unwrap();
        assert_eq!(found.value, Value::Of("new".into()));
    }
    // Nobody takes the place of one that lives.
    let join = |at: &str| {
        let (me, dead) = (&trio.addresses[0], at);
        format!("{{\"tipo\":\"JOIN\",\"servidor\":\"{me}\",\"no_lugar_de\":\"{dead}\"}}\n")
    };
    let said = trio.ask(1, join(&trio.addresses[2]).as_bytes()).await;
    assert_eq!(said["tipo"], "JOIN_OK", "it is one of the three: {said}");
    let mut other = trio.server_at_a_free_port(1, &["--no-lugar-de", &trio.addresses[2]]);
    // It does not wait for that place to become free when its operator has forgotten it.
    let ended = other.ended(WITHIN).await.unwrap();
    assert_eq!(ended.code(), Some(1));
    trio.said("está no ar: pare-o primeiro").await;
    trio.servers[2].kill().await.unwrap();
    trio.servers[2] = trio.server(2, 1, bound);
    assert!(trio.writes(2, "other", "again").await > again);
}

#[tokio::test]
async fn of_two_that_are_to_take_the_same_place_one_does_and_the_other_ends_with_the_reason() {
    let bound: &[&str] = &["--limite-put", "2000"];
    let mut trio = Trio::start(1, [bound; 3]).await;
    trio.writes(1, "k", "kept").await;
    let gone = trio.addresses[2].clone();
    trio.servers[2].kill().await.unwrap();
    trio.move_to_another_port(2);
    let options = [bound, &["--no-lugar-de", &gone]].concat();
    trio.servers[2] = trio.server(2, 1, &options);
    let mut other = trio.server_at_a_free_port(1, &options);
    let ended = tokio::select! {
        ended = other.ended(WITHIN) => ended,
        ended = trio.servers[2].ended(WITHIN) => ended,
    };
    assert_eq!(ended.unwrap().code(), Some(1));
    trio.said(&format!("{gone} não é um dos seguidores, que são"))
        .await;
    assert!(!trio.errors().contains("member"), "{}", trio.errors());
    trio.writes(0, "k", "new").await;
}

#[tokio::test]
async fn a_server_that_has_not_got_the_table_says_so_and_never_that_a_key_does_not_exist() {
    let bound: &[&str] = &["--limite-put", "2000"];
    let mut trio = Trio::start(1, [bound; 3]).await;
    trio.writes(1, "k", "kept").await;
    // A leader that was started again while a follower is away waits for that one's table, too.
    let wrong = trio.addresses[2].clone();
    trio.servers[2].kill().await.unwrap();
    trio.servers[1].kill().await.unwrap();
    trio.servers[1] = trio.server(1, 1, bound);
    trio.said(&format!("falta {wrong}")).await;
    let found = trio.session(&[1], 1).get("k").await.unwrap();
    assert_eq!(found.value, Value::Behind);
    // The follower is there again, and everything reaches it late.
    trio.servers[2] = trio.server(2, 1, &[bound, &["--atraso-replicacao", "1500"]].concat());
    let mut before = 0;
    loop {
        match trio.session(&[2], 1).get("k").await {
            Ok(found) if found.value == Value::Of("kept".into()) => break,
            Ok(found) => {
                assert_eq!(found.value, Value::Behind);
                before += 1;
            }
            Err(why) => assert!(why.contains("conexão recusada"), "{why}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(before > 0, "it was asked before it had anything");
    // One that was replaced and returns belongs no more: it has nothing to say, and nothing to pass on.
    trio.writes(1, "k", "kept").await;
    trio.servers[2].kill().await.unwrap();
    trio.move_to_another_port(2);
    trio.servers[2] = trio.server(2, 1, &[bound, &["--no-lugar-de", &wrong]].concat());
    trio.writes(2, "other", "v").await;
    let _replaced = trio.server_at(wrong.parse().unwrap(), 3, 1, bound);
    trio.said("os três servidores são").await;
    let mut session = Session::new(vec![wrong.clone()], 1, WITHIN);
    assert_eq!(session.get("k").await.unwrap().value, Value::Behind);
    let why = session.put("k", "v").await.unwrap_err();
    let reason = format!("nada foi feito: {wrong} não é um dos três servidores");
    assert!(why.contains(&reason), "{why}");
    let found = trio.session(&[0], 1).get("k").await.unwrap();
    assert_eq!(found.value, Value::Of("kept".into()));
}

#[tokio::test]
async fn a_follower_that_is_gone_for_good_is_replaced_although_the_leader_was_started_again_meanwhile()
 {
    let bound: &[&str] = &["--limite-put", "2000"];
    let mut trio = Trio::start(1, [bound; 3]).await;
    let before = trio.writes(1, "k", "kept").await;
    let gone = trio.addresses[2].clone();
    trio.servers[2].kill().await.unwrap();
    trio.servers[1].kill().await.unwrap();
    trio.servers[1] = trio.server(1, 1, bound);
    trio.said(&format!("falta {gone}")).await;
    trio.move_to_another_port(2);
    let options = [bound, &["--no-lugar-de", &gone]].concat();
    trio.servers[2] = trio.server(2, 1, &options);
    let written = trio.writes(2, "other", "new").await;
    assert!(written > before);
    for server in 0..3 {
        let mut session = trio.session(&[server], 1);
        for (key, value) in [("k", "kept"), ("other", "new")] {
            let found = session.get(key).await.unwrap();
            assert_eq!(found.value, Value::Of(value.into()), "at {server}");
        }
    }
    trio.said(&format!("{} toma o lugar de {gone}", trio.addresses[2]))
        .await;
    // The three are a group like any other from here on.
    trio.servers[1].kill().await.unwrap();
    trio.servers[1] = trio.server(1, 1, bound);
    assert!(trio.writes(0, "k", "again").await > written);
}

#[tokio::test]
async fn a_registration_from_an_address_where_no_such_server_is_counts_for_nothing() {
    let mut trio = Trio::prepared();
    let bound: &[&str] = &["--limite-put", "300"];
    trio.servers = vec![trio.server(0, 1, bound), trio.server(1, 1, bound)];
    trio.listens(1).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = nobody.local_addr().unwrap();
    // Nobody; another server than the one that is said; the leader itself.
    let other = trio.addresses[0].replace("127.0.0.1", "localhost");
    for (servidor, why) in [
        (nobody.to_string(), "confira IP e porta"),
        (trio.addresses[1].clone(), "é o endereço do líder"),
        (other, "ip:porta"),
    ] {
        let join = format!("{{\"tipo\":\"JOIN\",\"servidor\":\"{servidor}\"}}\n");
        let said = trio.ask(1, join.as_bytes()).await;
        assert!(said["erro"].as_str().unwrap().contains(why), "{said}");
    }
    let why = trio.session(&[1], 1).put("k", "v").await.unwrap_err();
    assert!(
        why.contains("só se cadastrou") && why.contains(&trio.addresses[0]),
        "{why}"
    );
    trio.servers.push(trio.server(2, 1, bound));
    trio.writes(1, "k", "v").await;
}

/// What a client that has seen nothing, and one that has seen what is newest, get at a server that belongs no more.
async fn strangers_answers(trio: &Trio, stranger: &str, key: &str) -> [Value; 2] {
    let new = Session::new(vec![stranger.to_owned()], 1, WITHIN);
    let mut old = trio.session(&[1], 1);
    assert!(matches!(old.get(key).await.unwrap().value, Value::Of(_)));
    old.ask_at(vec![stranger.to_owned()]);
    let mut answers = Vec::new();
    for mut session in [new, old] {
        answers.push(session.get(key).await.unwrap().value);
    }
    answers.try_into().unwrap()
}

/// The excluded one may run again when it was only stopped, and then learns it from the leader.
#[tokio::test]
async fn a_follower_that_was_stopped_and_replaced_says_so_when_it_goes_on_and_shows_nothing_old() {
    let bound: &[&str] = &["--limite-put", "2000"];
    let mut trio = Trio::start(1, [bound; 3]).await;
    let old = trio.writes(1, "k", "old").await;
    let stopped = trio.addresses[2].clone();
    trio.servers[2].pause().unwrap();
    trio.move_to_another_port(2);
    let options = [bound, &["--no-lugar-de", &stopped]].concat();
    let takes = format!("{} toma o lugar de {stopped}", trio.addresses[2]);
    // As long as it may live, nobody takes its place: 30 s.
    let began = Instant::now();
    let replacement = loop {
        let mut new = trio.server_at(trio.addresses[2].parse().unwrap(), 3, 1, &options);
        tokio::select! {
            ended = new.ended(WITHIN) => assert_eq!(ended.unwrap().code(), Some(1)),
            () = trio.said(&takes) => break new,
        }
        trio.said("está no ar: pare-o primeiro").await;
        assert!(began.elapsed() < 2 * WITHIN, "{}", trio.errors());
    };
    let mut replaced = std::mem::replace(&mut trio.servers[2], replacement);
    let new = trio.writes(2, "k", "new").await;
    assert!(new > old);

    replaced.resume().unwrap();
    let deadline = Instant::now() + WITHIN;
    loop {
        let [of_new, of_old] = strangers_answers(&trio, &stopped, "k").await;
        // Whoever has seen the newer one is never shown the older one.
        assert_eq!(of_old, Value::Behind);
        if of_new == Value::Behind {
            break;
        }
        assert_eq!(of_new, Value::Of("old".into()));
        assert!(Instant::now() < deadline, "{}", trio.errors());
    }
    trio.said("este servidor não é mais um dos três: pare-o")
        .await;
    let mut session = Session::new(vec![stopped.clone()], 1, WITHIN);
    let why = session.put("k", "stray").await.unwrap_err();
    assert!(why.contains("nada foi feito"), "{why}");

    // A second one that was replaced and is started again; and the leader is started again while both run.
    let gone = trio.addresses[0].clone();
    trio.servers[0].kill().await.unwrap();
    trio.move_to_another_port(0);
    trio.servers[0] = trio.server(0, 1, &[bound, &["--no-lugar-de", &gone]].concat());
    trio.said(&format!("{} toma o lugar de {gone}", trio.addresses[0]))
        .await;
    let before = trio.writes(0, "k", "newer").await;
    let mut second = trio.server_at(gone.parse().unwrap(), 4, 1, bound);
    trio.said(&format!("os três servidores são {}", trio.addresses[1]))
        .await;
    for server in [0, 2] {
        trio.servers[server].pause().unwrap();
    }
    trio.servers[1].kill().await.unwrap();
    trio.servers[1] = trio.server(1, 1, bound);
    trio.listens(1).await;
    // Time for the strangers to be quicker than those who belong.
    sleep(Duration::from_millis(500)).await;
    for server in [0, 2] {
        trio.servers[server].resume().unwrap();
    }
    let after = trio.writes(2, "other", "v").await;
    assert!(after > before);
    for server in 0..3 {
        let found = trio.session(&[server], 1).get("k").await.unwrap();
        assert_eq!(
            found.value,
            Value::Of("newer".into()),
            "at {server}: {}",
            trio.errors()
        );
    }
    for stranger in [&stopped, &gone] {
        let answers = strangers_answers(&trio, stranger, "k").await;
        assert_eq!(answers, [Value::Behind, Value::Behind], "{stranger}");
    }
    for stranger in [&mut replaced, &mut second] {
        stranger.interrupt().unwrap();
        assert!(stranger.ended(WITHIN).await.unwrap().success());
    }
}

/// A leader may be silent for long, as long as the third server is missing; whoever is silent and no leader is told from it.
#[tokio::test]
async fn a_follower_whose_leader_is_another_service_says_so_and_goes_on_trying() {
    let mut trio = Trio::prepared();
    // It takes connections, and says nothing.
    let silent = TcpListener::bind(&trio.addresses[0]).await.unwrap();
    trio.servers.push(trio.server(1, 0, &[]));
    trio.said("não responde como um servidor (sem resposta)")
        .await;
    drop(silent);
    // It answers whatever comes, as a web server does.
    let web = TcpListener::bind(&trio.addresses[0]).await.unwrap();
    let web = tokio::spawn(async move {
        while let Ok((mut stream, _)) = web.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    trio.said("não fala como um servidor").await;
    web.abort();
    assert!(web.await.is_err());
    // The leader comes at last, and waits for the third server in silence, of which nothing is said.
    trio.servers.push(trio.server(0, 0, &[]));
    trio.listens(0).await;
    trio.servers.push(trio.server(2, 0, &[]));
    trio.writes(1, "k", "v").await;
}
