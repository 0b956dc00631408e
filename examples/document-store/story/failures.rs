//! Kills, stops, restarts.

use kvrep_examples::common::processes::Program;
use kvrep_examples::common::story::Story;
use kvrep_examples::document_store::stage::{
    PATIENCE, Port, Stage, asked, at, stands, tell as told_by,
};
use kvrep_examples::document_store::wire::Response;
use serde_json::Value as Json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Tells it.
pub(crate) async fn tell(story: &mut Story) -> Result<(), String> {
    let (mut stage, [a, b, c]) = Stage::with().await?;
    story.step(format!(
        "start a leader and two followers: docstore-server db localhost:{a}; … db localhost:{b} localhost:{a}; … db localhost:{c} localhost:{a}"
    ));
    let status = told_by(a, r#"["status"]"#).await?;
    story.saw(status.to_string());
    story.equal("the first leads", &status["role"], &Json::from("leader"));
    transcript(story, a).await?;
    readers(story, [a, b, c]).await?;

    story.step("kill a follower (SIGKILL), write, start it again with its command");
    stage.kill(b).await?;
    stage.active(&[a, c]).await?;
    story.check(
        "the leader has removed it from the active ones",
        Ok(String::new()),
    );
    insert(a, "while one was away").await?;
    stage.enter(b, Some(a)).await?;
    stage.active(&[a, b, c]).await?;
    agree(story, &stage, &[a, b, c]).await?;

    story.step("kill the leader (SIGKILL)");
    stage.kill(a).await?;
    let began = Instant::now();
    let leader = stage.leader(&[b, c]).await?;
    story.saw(format!("{} leads after {:?}", at(leader), began.elapsed()));
    story.equal(
        "of equals the lowest host:port took over",
        &leader,
        &b.min(c),
    );
    story.equal("nothing acknowledged is lost", &count(leader).await?, &4);
    insert(leader, "under the new leader").await?;

    story.step("start the old leader with the command that once made it the leader");
    stage.enter(a, None).await?;
    stage.active(&[a, b, c]).await?;
    let refused = ko(a, r#"["insert", "users", {"email":"old"}]"#).await?;
    story.saw(refused.clone());
    story.equal(
        "it follows",
        &refused,
        &format!("not leader; leader is {}", at(leader)),
    );
    agree(story, &stage, &[a, b, c]).await?;

    let others: Vec<Port> = [a, b, c]
        .into_iter()
        .filter(|port| *port != leader)
        .collect();
    let new = paused_leader(story, &mut stage, leader, &others).await?;
    stage.active(&[a, b, c]).await?;

    let followers: Vec<Port> = [a, b, c].into_iter().filter(|port| *port != new).collect();
    after_one_follower(story, &mut stage, new, [followers[0], followers[1]]).await?;
    agree(story, &stage, &[a, b, c]).await?;
    last_man(story).await
}

async fn transcript(story: &mut Story, leader: Port) -> Result<(), String> {
    story.step(format!("type to docstore-cli localhost:{leader}"));
    let program = Program::beside("the command line", "docstore-cli").map_err(|e| e.to_string())?;
    let program = program.arg(format!("localhost:{leader}"));
    let mut cli = program.start().map_err(|e| e.to_string())?;
    for line in [
        "addcol users *email=str,name=str,*age=int",
        "add users email=a name=a age=18",
        "add users email=b name=b age=18",
        "search users age>10 age<20",
        "update users email=a email=c,age=19",
        "exit",
    ] {
        story.saw(format!("db > {line}"));
        cli.type_line(line).await.map_err(|e| e.to_string())?;
    }
    cli.ended(PATIENCE).await.map_err(|e| e.to_string())?;
    let printed = cli.printed().join("\n");
    story.saw(printed.clone());
    let all = [
        "Col added.",
        "Doc added with _id ",
        "Results:",
        "  age: 18",
        "Doc updated.",
        "Bye",
    ];
    let missing: Vec<&str> = all
        .into_iter()
        .filter(|part| !printed.contains(part))
        .collect();
    story.equal("the transcript's answers are there", &missing, &Vec::new());
    Ok(())
}

async fn readers(story: &mut Story, [leader, b, c]: [Port; 3]) -> Result<(), String> {
    story.step("read at every node, write at a follower");
    let all = r#"["search", "users", {}]"#;
    let shown = told_by(leader, all).await?;
    for follower in [b, c] {
        story.equal(
            format!(
                "{} shows the same documents in the same order",
                at(follower)
            ),
            &told_by(follower, all).await?,
            &shown,
        );
    }
    let refused = ko(b, r#"["insert", "users", {"email":"x"}]"#).await?;
    story.equal(
        "a follower takes no write",
        &refused,
        &format!("not leader; leader is {}", at(leader)),
    );
    insert(leader, "third").await
}

async fn paused_leader(
    story: &mut Story,
    stage: &mut Stage,
    old: Port,
    others: &[Port],
) -> Result<Port, String> {
    story.step("stop the leader (SIGSTOP) until another leads, write there, let it go on");
    stage.pause(old)?;
    let new = stage.leader(others).await?;
    insert(new, "behind the stopped one's back").await?;
    let documents = count(new).await?;
    stage.resume(old)?;
    let deadline = Instant::now() + PATIENCE;
    let (mut acknowledged, mut stale) = (0, 0);
    loop {
        match asked(old, r#"["search", "users", {}]"#)
            .await
            .map_err(|e| e.to_string())?
        {
            Response::Ok(found) => {
                let found: Vec<Json> = serde_json::from_str(&found).map_err(|e| e.to_string())?;
                stale += usize::from(found.len() != documents);
            }
            Response::Ko(why) => story.saw(format!("read: {why}")),
        }
        let write = r#"["insert", "users", {"email":"of the fenced one"}]"#;
        match asked(old, write).await.map_err(|e| e.to_string())? {
            Response::Ok(_) => acknowledged += 1,
            Response::Ko(why) => {
                story.saw(format!("write: {why}"));
                if why == format!("not leader; leader is {}", at(new)) {
                    break;
                }
            }
        }
        if Instant::now() > deadline {
            return Err("the old leader never follows".into());
        }
    }
    story.equal("it acknowledged nothing more", &acknowledged, &0);
    story.equal("it showed nothing old", &stale, &0);
    Ok(new)
}

async fn after_one_follower(
    story: &mut Story,
    stage: &mut Stage,
    leader: Port,
    [one, other]: [Port; 2],
) -> Result<(), String> {
    story.step(
        "stop a follower, write, and kill the leader when only the other follower has the write",
    );
    let before = stands(leader).await?.last.index;
    stage.pause(other)?;
    let write = tokio::spawn(asked(
        leader,
        r#"["insert", "users", {"email":"half done"}]"#,
    ));
    let deadline = Instant::now() + PATIENCE;
    while stands(one).await?.durable <= before {
        if Instant::now() > deadline {
            return Err("the write never reaches a follower".into());
        }
        sleep(Duration::from_millis(2)).await;
    }
    stage.kill(leader).await?;
    stage.kill(other).await?;
    let answer = write.await.map_err(|e| e.to_string())?;
    story.saw(match &answer {
        Ok(answer) => format!("the client heard {answer:?}"),
        Err(why) => format!("the client heard: {why}"),
    });
    stage.enter(other, Some(leader)).await?;
    let new = stage.leader(&[one, other]).await?;
    story.equal("the one that has it took over", &at(new), &at(one));
    stage.enter(leader, None).await?;
    stage.active(&[leader, one, other]).await?;
    let found = told_by(other, r#"["search", "users", {"email":"half done"}]"#).await?;
    story.equal(
        "the write was resumed",
        &found.as_array().map(Vec::len),
        &Some(1),
    );
    Ok(())
}

async fn last_man(story: &mut Story) -> Result<(), String> {
    story.step("two other nodes: the follower is killed, the leader writes alone and is killed, the follower comes back alone");
    let (mut stage, [leader, follower]) = Stage::with().await?;
    told_by(leader, r#"["create", "users", {"email":"str"}]"#).await?;
    stage.kill(follower).await?;
    insert(leader, "only the leader has it").await?;
    stage.kill(leader).await?;
    stage.enter(follower, Some(leader)).await?;
    let waits = stage.hears(follower, &at(leader)).await?;
    story.saw(waits);
    let refused = ko(follower, r#"["search", "users", {}]"#).await?;
    story.saw(refused.clone());
    let names = if refused.contains(&at(leader)) {
        Ok(String::new())
    } else {
        Err(refused)
    };
    story.check("it serves nothing, and says for whom it waits", names);
    stage.kill(follower).await?;

    story.step("the operator says --force");
    let forced = stage.server(follower, None)?.arg("--force");
    stage.enter_as(follower, &forced).await?;
    let told = stage.hears(follower, "[Server] FORCED").await?;
    story.saw(told);
    stage.leader(&[follower]).await?;
    insert(follower, "after force").await?;

    story.step("the other one returns after all");
    stage.enter(leader, None).await?;
    let aside = stage.hears(leader, "set aside").await?;
    story.saw(aside);
    stage.active(&[leader, follower]).await?;
    agree(story, &stage, &[leader, follower]).await
}

async fn insert(port: Port, email: &str) -> Result<(), String> {
    let request = format!(r#"["insert", "users", {{"email":"{email}"}}]"#);
    told_by(port, &request).await.map(drop)
}

async fn count(port: Port) -> Result<usize, String> {
    let found = told_by(port, r#"["search", "users", {}]"#).await?;
    Ok(found.as_array().map_or(0, Vec::len))
}

async fn ko(port: Port, request: &str) -> Result<String, String> {
    match told_by(port, request).await {
        Ok(result) => Err(format!("{request} was done: {result}")),
        Err(why) => Ok(why),
    }
}

async fn agree(story: &mut Story, stage: &Stage, ports: &[Port]) -> Result<(), String> {
    let equal = stage.equal(ports).await;
    let found = equal.map(|(documents, digest)| format!("{documents} documents, digest {digest}"));
    story.check("all nodes have the same", found);
    Ok(())
}
