//! A leader that is killed at each step of a write (C2.4): before its log, after it, after one follower, after all, before
//! the answer. Afterwards the nodes agree, and nothing that was acknowledged is lost.
//!
//! Moments are held by stopping processes (SIGSTOP): what is sent to a stopped one waits in the system's buffers, and is
//! gone when it is killed. Every scene is played without a witness and with one.

use crate::{USERS, ok};
use kvrep_examples::document_store::stage::{PATIENCE, Port, Stage, at, stands};
use kvrep_examples::document_store::wire::framed;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const ACKNOWLEDGED: usize = 20;

/// A leader, two followers, and some acknowledged documents.
struct Scene {
    stage: Stage,
    leader: Port,
    followers: [Port; 2],
    /// Where every log ends.
    end: u64,
}

#[derive(Clone, Copy, Debug)]
enum Authority {
    Alone,
    Witness,
}

const BOTH: [Authority; 2] = [Authority::Alone, Authority::Witness];

impl Scene {
    async fn begin(authority: Authority) -> Self {
        let (stage, [leader, one, other]) = match authority {
            Authority::Alone => Stage::with().await.unwrap(),
            Authority::Witness => Stage::with_witness().await.unwrap(),
        };
        ok(leader, USERS).await;
        for age in 0..ACKNOWLEDGED {
            ok(leader, &format!(r#"["insert", "users", {{"age":{age}}}]"#)).await;
        }
        stage.equal(&[leader, one, other]).await.unwrap();
        let end = stands(leader).await.unwrap().last.index.0;
        Self {
            stage,
            leader,
            followers: [one, other],
            end,
        }
    }

    /// Sends a write whose answer nobody reads.
    async fn write(&self) -> TcpStream {
        let mut stream = TcpStream::connect(at(self.leader)).await.unwrap();
        let request = framed(r#"["insert", "users", {"email":"the one"}]"#).unwrap();
        stream.write_all(&request).await.unwrap();
        stream
    }

    fn pause(&mut self, ports: impl IntoIterator<Item = Port>) {
        for port in ports {
            self.stage.pause(port).unwrap();
        }
    }

    /// Waits until the write is durable in a node's log.
    async fn logged(&self, port: Port) {
        let deadline = Instant::now() + PATIENCE;
        while stands(port).await.unwrap().durable.0 <= self.end {
            assert!(Instant::now() < deadline, "{port} never has the write");
            sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    async fn kill(&mut self, ports: impl IntoIterator<Item = Port>) {
        for port in ports {
            self.stage.kill(port).await.unwrap();
        }
    }

    /// Starts nodes with the commands that started them first.
    async fn restart(&mut self, ports: impl IntoIterator<Item = Port>) {
        let leader = self.leader;
        for port in ports {
            let given = (port != leader).then_some(leader);
            self.stage.enter(port, given).await.unwrap();
        }
    }

    /// How often the write is there when all are back; they agree, and have what was acknowledged.
    async fn outcome(&self) -> usize {
        let [one, other] = self.followers;
        let all = [self.leader, one, other];
        self.stage.active(&all).await.unwrap();
        self.stage.equal(&all).await.unwrap();
        let found = ok(one, r#"["search", "users", {"age":{">=":0}}]"#).await;
        assert_eq!(
            found.as_array().unwrap().len(),
            ACKNOWLEDGED,
            "acknowledged writes"
        );
        let found = ok(other, r#"["search", "users", {"email":"the one"}]"#).await;
        found.as_array().unwrap().len()
    }
}

/// Whether the server said `ok` before it was killed.
async fn acknowledged(mut answer: TcpStream) -> bool {
    let mut said = Vec::new();
    // A connection that was reset says nothing.
    let _ = answer.read_to_end(&mut said).await;
    said.get(2..)
        .is_some_and(|text| text.starts_with(b"[\"ok\""))
}

#[tokio::test]
async fn c2_4_killed_before_its_log_the_write_never_was() {
    for authority in BOTH {
        let mut scene = Scene::begin(authority).await;
        scene.pause([scene.leader]);
        let answer = scene.write().await;
        scene.kill([scene.leader]).await;
        assert!(!acknowledged(answer).await);
        scene.stage.leader(&scene.followers).await.unwrap();
        scene.restart([scene.leader]).await;
        assert_eq!(scene.outcome().await, 0, "{authority:?}");
    }
}

#[tokio::test]
async fn c2_4_and_r2_61_killed_after_its_log_and_before_any_follower_the_write_is_resumed() {
    for authority in BOTH {
        let mut scene = Scene::begin(authority).await;
        scene.pause(scene.followers);
        let _answer = scene.write().await;
        scene.logged(scene.leader).await;
        scene.kill([scene.leader]).await;
        // What is in their buffers goes with them: only the leader's log has the write.
        scene.kill(scene.followers).await;
        let [one, other] = scene.followers;
        scene.restart([scene.leader, one, other]).await;
        assert_eq!(scene.outcome().await, 1, "{authority:?}");
    }
}

#[tokio::test]
async fn c2_4_killed_after_one_follower_that_one_takes_over_with_the_write() {
    for authority in BOTH {
        let mut scene = Scene::begin(authority).await;
        let [one, other] = scene.followers;
        scene.pause([other]);
        let answer = scene.write().await;
        scene.logged(one).await;
        scene.kill([scene.leader, other]).await;
        // Dropping the one that was stopped takes a second: it was not acknowledged but for a very slow machine.
        drop(answer);
        scene.restart([other]).await;
        assert_eq!(
            scene.stage.leader(&[one, other]).await,
            Ok(one),
            "{authority:?}"
        );
        scene.restart([scene.leader]).await;
        assert_eq!(scene.outcome().await, 1, "{authority:?}");
        // The wire has no request id: a client that does not know writes twice.
        ok(one, r#"["insert", "users", {"email":"the one"}]"#).await;
        assert_eq!(scene.outcome().await, 2, "a retry is a second write");
    }
}

#[tokio::test]
async fn c2_4_killed_after_all_followers_and_before_their_word_the_write_stays() {
    for authority in BOTH {
        let mut scene = Scene::begin(authority).await;
        let [one, other] = scene.followers;
        scene.pause(scene.followers);
        let answer = scene.write().await;
        scene.logged(scene.leader).await;
        scene.pause([scene.leader]);
        for follower in scene.followers {
            scene.stage.resume(follower).unwrap();
            scene.logged(follower).await;
        }
        scene.kill([scene.leader]).await;
        drop(answer);
        scene.stage.leader(&[one, other]).await.unwrap();
        scene.restart([scene.leader]).await;
        assert_eq!(scene.outcome().await, 1, "{authority:?}");
    }
}

#[tokio::test]
async fn c2_4_killed_before_the_answer_is_heard_the_write_stays() {
    for authority in BOTH {
        let mut scene = Scene::begin(authority).await;
        let _unread = scene.write().await;
        let deadline = Instant::now() + PATIENCE;
        while stands(scene.leader).await.unwrap().applied.0 <= scene.end {
            assert!(Instant::now() < deadline, "never carried out");
        }
        scene.kill([scene.leader]).await;
        scene.stage.leader(&scene.followers).await.unwrap();
        scene.restart([scene.leader]).await;
        assert_eq!(scene.outcome().await, 1, "{authority:?}");
    }
}
