//! Nodes that come and go (C2.6).

use crate::{NUMBERS, ko, ok};
use kvrep_examples::common::processes::{Program, free_ports};
use kvrep_examples::document_store::stage::{PATIENCE, Stage, at, load};
use serde_json::json;

#[tokio::test]
async fn c2_6_a_follower_may_start_before_its_leader_and_may_be_pointed_at_a_follower() {
    let mut stage = Stage::empty().unwrap();
    let [leader, early, late] = free_ports().unwrap();
    stage.enter(early, Some(leader)).await.unwrap();
    let asks = format!("asks {} to let this node into its store", at(leader));
    stage.hears(early, &asks).await.unwrap();
    stage.enter(leader, None).await.unwrap();
    stage.active(&[leader, early]).await.unwrap();
    stage.enter(late, Some(early)).await.unwrap();
    stage.active(&[leader, early, late]).await.unwrap();
    let status = ok(late, r#"["status"]"#).await;
    assert_eq!(status["leader"], json!(at(leader)));
}

#[tokio::test]
async fn c2_6_one_entry_for_an_address_and_the_leader_is_no_follower_of_itself() {
    let (mut stage, [leader, follower]) = Stage::with().await.unwrap();
    ok(leader, NUMBERS).await;
    load(&[leader], "numbers", "n", 0..10).await.unwrap();
    // It comes again, without anything of its former life.
    stage.kill(follower).await.unwrap();
    let own = stage.directory().join("db").join(follower.to_string());
    std::fs::remove_dir_all(own).unwrap();
    stage.enter(follower, Some(leader)).await.unwrap();
    stage.active(&[leader, follower]).await.unwrap();
    stage.equal(&[leader, follower]).await.unwrap();
    let mut both = [at(leader), at(follower)];
    both.sort();
    let status = ok(leader, r#"["status"]"#).await;
    assert_eq!(status["nodes"], json!(both));
    stage
        .hears(leader, &format!("active followers: {}", at(follower)))
        .await
        .unwrap();

    let mut itself = stage.server(leader, Some(leader)).unwrap().start().unwrap();
    assert!(!itself.ended(PATIENCE).await.unwrap().success());
    assert!(itself.printed().join("\n").contains("cannot follow itself"));
}

#[tokio::test]
async fn r2_40_r2_41_and_r2_44_nodes_come_and_go_and_the_leader_knows_who_is_active() {
    let (mut stage, [leader, one]) = Stage::with().await.unwrap();
    ok(leader, NUMBERS).await;
    let [two] = free_ports().unwrap();
    stage.enter(two, Some(leader)).await.unwrap();
    stage.active(&[leader, one, two]).await.unwrap();
    stage.kill(one).await.unwrap();
    stage.active(&[leader, two]).await.unwrap();
    load(&[leader], "numbers", "n", 0..10).await.unwrap();
    // All that is left is restarted: each finds the others without being told of them.
    stage.kill(leader).await.unwrap();
    stage.kill(two).await.unwrap();
    stage.enter(two, None).await.unwrap();
    stage.enter(leader, None).await.unwrap();
    stage.enter(one, None).await.unwrap();
    stage.active(&[leader, one, two]).await.unwrap();
    assert_eq!(stage.equal(&[leader, one, two]).await.unwrap().0, 10);
}

#[tokio::test]
async fn a_store_of_its_own_does_not_become_a_follower_by_an_argument() {
    let (mut stage, [leader]) = Stage::with().await.unwrap();
    let [other] = free_ports().unwrap();
    stage.enter(other, None).await.unwrap();
    stage.leader(&[other]).await.unwrap();
    stage.kill(other).await.unwrap();
    let mut wrong = stage.server(other, Some(leader)).unwrap().start().unwrap();
    assert!(!wrong.ended(PATIENCE).await.unwrap().success());
    let why = wrong.printed().join("\n");
    assert!(
        why.contains("leads alone") && why.contains("another path"),
        "{why}"
    );
}

#[tokio::test]
async fn a_node_of_one_store_that_is_given_another_ones_leader_says_that_it_does_not_follow_it() {
    let (mut stage, [leader, follower]) = Stage::with().await.unwrap();
    ok(leader, NUMBERS).await;
    let [stranger] = free_ports().unwrap();
    for node in [follower, leader] {
        stage.kill(node).await.unwrap();
    }
    for node in [follower, leader] {
        stage.enter(node, Some(stranger)).await.unwrap();
        let told = stage.node(node).unwrap().printed().join("\n");
        assert!(told.contains("is not followed"), "{told}");
        assert!(told.contains(&at(leader)), "{told}");
    }
    stage.active(&[leader, follower]).await.unwrap();
}

#[tokio::test]
async fn a_first_command_that_was_wrong_leaves_nothing_behind() {
    let mut stage = Stage::empty().unwrap();
    let [node, nobody] = free_ports().unwrap();
    // There is no witness at that address.
    let wrong = stage.server(node, None).unwrap();
    let mut wrong = wrong.args(["--witness", &at(nobody)]).start().unwrap();
    wrong.line("listening", PATIENCE).await.unwrap();
    wrong.kill().await.unwrap();
    let own = stage.directory().join("db").join(node.to_string());
    assert!(!own.join("node.json").exists(), "it belongs to no store");
    stage.enter(node, None).await.unwrap();
    stage.active(&[node]).await.unwrap();
    let kept = stage.until(node, "remembered", |_| own.join("node.json").exists());
    kept.await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_gone_for_good_is_removed_by_the_wire_and_by_the_command_line() {
    let (mut stage, [leader, one, two]) = Stage::with().await.unwrap();
    let remove = |node: u16| format!(r#"["remove-node", "localhost:{node}"]"#);
    let why = ko(leader, &remove(one)).await;
    assert!(why.contains("is active: stop it first"), "{why}");
    assert!(
        ko(one, &remove(two))
            .await
            .contains("not leader; leader is")
    );
    let why = ko(leader, r#"["remove-node", "nonsense"]"#).await;
    assert!(why.contains("HOST:PORT"), "{why}");
    stage.kill(one).await.unwrap();
    stage.kill(two).await.unwrap();
    stage.active(&[leader]).await.unwrap();
    ok(leader, &remove(one)).await;
    assert!(
        ko(leader, &remove(one))
            .await
            .contains("is no node of this store")
    );
    let cli = Program::beside("the command line", "docstore-cli").unwrap();
    let mut cli = cli.arg(at(leader)).start().unwrap();
    let typed = format!("nodes\nrmnode localhost:{two}\nnodes\nexit\n");
    cli.type_bytes(typed.as_bytes()).await.unwrap();
    assert!(cli.ended(PATIENCE).await.unwrap().success());
    let printed = cli.printed().join("\n");
    for wanted in [format!("- {}: away", at(two)), "Node removed.".into()] {
        assert!(printed.contains(&wanted), "{printed}");
    }
    let status = ok(leader, r#"["status"]"#).await;
    assert_eq!(status["nodes"], json!([at(leader)]));
}

#[tokio::test]
async fn a_node_that_was_removed_while_it_was_away_belongs_again_when_it_is_started_once() {
    let (mut stage, [leader, one]) = Stage::with().await.unwrap();
    ok(leader, NUMBERS).await;
    stage.kill(one).await.unwrap();
    stage.active(&[leader]).await.unwrap();
    ok(leader, &format!(r#"["remove-node", "localhost:{one}"]"#)).await;
    load(&[leader], "numbers", "n", 0..10).await.unwrap();
    stage.enter(one, Some(leader)).await.unwrap();
    stage.active(&[leader, one]).await.unwrap();
    assert_eq!(stage.equal(&[leader, one]).await.unwrap().0, 10);
}

#[tokio::test]
async fn when_the_store_is_full_the_one_that_has_been_away_longest_makes_room() {
    let mut stage = Stage::empty().unwrap();
    let [leader, one, two, three] = free_ports().unwrap();
    let of_three = |program: Program| program.args(["--nodes-max", "3"]);
    for (port, of) in [(leader, None), (one, Some(leader)), (two, Some(leader))] {
        let program = of_three(stage.server(port, of).unwrap());
        stage.enter_as(port, &program).await.unwrap();
    }
    stage.active(&[leader, one, two]).await.unwrap();
    let program = of_three(stage.server(three, Some(leader)).unwrap());
    stage.enter_as(three, &program).await.unwrap();
    // All are alive: it is told so, in the words of this program.
    stage
        .hears(three, "as many as may be (--nodes-max)")
        .await
        .unwrap();
    stage.kill(two).await.unwrap();
    stage.active(&[leader, one, three]).await.unwrap();
    let mut nodes = [at(leader), at(one), at(three)];
    nodes.sort();
    let status = ok(leader, r#"["status"]"#).await;
    assert_eq!(status["nodes"], json!(nodes));
    stage
        .hears(
            leader,
            &format!("{} takes the place of {}", at(three), at(two)),
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_node_that_was_started_otherwise_is_told_once_which_option_differs() {
    let (mut stage, [leader]) = Stage::with().await.unwrap();
    let [one, other, nobody] = free_ports().unwrap();
    let witness = at(nobody);
    for (port, option, value) in [
        (one, "--witness", witness.as_str()),
        (other, "--nodes-max", "5"),
    ] {
        let program = stage.server(port, Some(leader)).unwrap();
        let program = program.args([option, value]);
        stage.enter_as(port, &program).await.unwrap();
        let wanted = format!("this one with {option} {value}");
        stage.hears(port, &wanted).await.unwrap();
        let printed = stage.node(port).unwrap().printed();
        let told = printed
            .iter()
            .filter(|line| line.contains("refuses this one"));
        assert_eq!(told.count(), 1, "{printed:?}");
        let text = printed.join("\n");
        for theirs in ["hash", "::", "WARN", "replica"] {
            assert!(!text.contains(theirs), "{theirs} in {text}");
        }
    }
}

#[tokio::test]
async fn an_address_that_is_wrong_is_wrong_usage_and_what_it_listens_on_is_said() {
    let mut stage = Stage::empty().unwrap();
    let [node] = free_ports().unwrap();
    let server = Program::beside("a node", "docstore-server").unwrap();
    let server = server.directory(stage.directory()).arg("db");
    let unknown = format!("no.such.host.invalid:{node}");
    let all = format!("0.0.0.0:{node}");
    for arguments in [
        &["localhost"][..],
        &["localhost:0"],
        &[&unknown],
        &[&all],
        &[&at(node), &at(node)],
        &[&at(node), "192.0.2.1:1"],
        &[&at(node), "--witness", "nowhere"],
        &[&at(node), "--witness", "no.such.host.invalid:7000"],
    ] {
        let mut wrong = server.clone().args(arguments).start().unwrap();
        let ended = wrong.ended(PATIENCE).await.unwrap();
        assert_eq!(
            ended.code(),
            Some(2),
            "{arguments:?}: {:?}",
            wrong.printed()
        );
    }
    let nowhere = Program::beside("a node", "docstore-server").unwrap();
    let nowhere = nowhere.args(["/proc/nowhere", &at(node)]);
    let mut nowhere = nowhere.start().unwrap();
    let told = nowhere.line("choose another path", PATIENCE).await;
    assert!(told.unwrap().contains("/proc/nowhere"));
    assert_eq!(nowhere.ended(PATIENCE).await.unwrap().code(), Some(1));
    let cli = Program::beside("the command line", "docstore-cli").unwrap();
    let mut wrong = cli.arg("localhost").start().unwrap();
    assert_eq!(wrong.ended(PATIENCE).await.unwrap().code(), Some(2));
    let program = server.args([&all, "--advertise", &at(node)]);
    stage.enter_as(node, &program).await.unwrap();
    let listens = format!(
        "[Server] listening on {all}; others find it at {}",
        at(node)
    );
    assert!(
        stage.node(node).unwrap().printed().contains(&listens),
        "{:?}",
        stage.node(node).unwrap().printed()
    );
}

#[tokio::test]
async fn a_node_that_the_leader_cannot_reach_is_told_where_it_was_tried() {
    let (mut stage, [leader]) = Stage::with().await.unwrap();
    let [node, nobody] = free_ports().unwrap();
    let wrong = stage.server(node, Some(leader)).unwrap();
    let wrong = wrong.args(["--advertise", &at(nobody)]);
    stage.enter_as(node, &wrong).await.unwrap();
    let told = format!(
        "cannot reach it at {} to answer (nobody listens there)",
        at(nobody)
    );
    let told = stage.hears(node, &told).await.unwrap();
    assert!(
        told.contains(&at(leader)) && told.contains("--advertise"),
        "{told}"
    );
}

#[tokio::test]
async fn nobody_makes_room_for_a_node_that_is_not_there() {
    let mut stage = Stage::empty().unwrap();
    let [leader, one, nobody, other] = free_ports().unwrap();
    let of_two = |program: Program| program.args(["--nodes-max", "2"]);
    for (port, of) in [(leader, None), (one, Some(leader))] {
        let program = of_two(stage.server(port, of).unwrap());
        stage.enter_as(port, &program).await.unwrap();
    }
    stage.active(&[leader, one]).await.unwrap();
    stage.kill(one).await.unwrap();
    stage.active(&[leader]).await.unwrap();
    // Nobody is there; somebody else is there.
    let mut stranger = Stage::empty().unwrap();
    stranger.enter(other, None).await.unwrap();
    for (place, why) in [
        (at(nobody), "cannot connect"),
        (format!("127.0.0.2:{other}"), "not found"),
    ] {
        let refused = ko(leader, &format!(r#"["make-room", "{place}"]"#)).await;
        assert!(
            refused.contains("is not found by the leader"),
            "{why}: {refused}"
        );
    }
    let mut nodes = [at(leader), at(one)];
    nodes.sort();
    let status = ok(leader, r#"["status"]"#).await;
    assert_eq!(status["nodes"], json!(nodes), "nobody lost its place");
    // A node that says the wrong place is told so, and the right one is let in.
    let wrong = of_two(stage.server(nobody, Some(leader)).unwrap());
    let [elsewhere] = free_ports().unwrap();
    let wrong = wrong.args(["--advertise", &at(elsewhere)]);
    stage.enter_as(nobody, &wrong).await.unwrap();
    stage
        .hears(nobody, "so nobody makes room for it")
        .await
        .unwrap();
    stage.kill(nobody).await.unwrap();
    let right = of_two(stage.server(nobody, Some(leader)).unwrap());
    stage.enter_as(nobody, &right).await.unwrap();
    stage.active(&[leader, nobody]).await.unwrap();
}

#[tokio::test]
async fn a_node_whose_leader_waits_itself_says_for_what() {
    let (mut stage, [leader, one, two]) = Stage::with().await.unwrap();
    for node in [leader, one, two] {
        stage.kill(node).await.unwrap();
    }
    // It waits for the two others, which were active.
    stage.enter(leader, None).await.unwrap();
    let [newcomer] = free_ports().unwrap();
    stage.enter(newcomer, Some(leader)).await.unwrap();
    let told = format!("{} answers, and does not lead now", at(leader));
    let told = stage.hears(newcomer, &told).await.unwrap();
    assert!(
        told.contains("missing") && told.contains(&at(one)),
        "{told}"
    );
}

#[tokio::test]
async fn a_node_that_was_replaced_while_it_was_stopped_leads_nothing_beside_its_replacement() {
    let mut stage = Stage::empty().unwrap();
    let [leader, stopped, newcomer] = free_ports().unwrap();
    for (node, of) in [(leader, None), (stopped, Some(leader))] {
        let two = stage.server(node, of).unwrap().args(["--nodes-max", "2"]);
        stage.enter_as(node, &two).await.unwrap();
    }
    stage.active(&[leader, stopped]).await.unwrap();
    ok(leader, NUMBERS).await;
    stage.pause(stopped).unwrap();
    stage.active(&[leader]).await.unwrap();
    let two = stage.server(newcomer, Some(leader)).unwrap();
    let two = two.args(["--nodes-max", "2"]);
    stage.enter_as(newcomer, &two).await.unwrap();
    stage.active(&[leader, newcomer]).await.unwrap();
    load(&[leader], "numbers", "n", 0..10).await.unwrap();
    stage.equal(&[leader, newcomer]).await.unwrap();

    stage.kill(leader).await.unwrap();
    stage.leader(&[newcomer]).await.unwrap();
    stage.resume(stopped).unwrap();
    // Nobody lives that it knows, and it would go on by itself.
    stage.hears(stopped, "was removed from").await.unwrap();
    ko(stopped, r#"["insert", "numbers", {"n":100}]"#).await;
    let status = ok(newcomer, r#"["status"]"#).await;
    assert_eq!(status["leader"], json!(at(newcomer)));
    assert_eq!(
        status["nodes"],
        json!(
            [at(leader), at(newcomer)]
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
        )
    );
}
