use super::*;
use crate::Fold;
use crate::node::link::LinkError;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::time::Duration;

/// Answers as written, to whatever target, and keeps what it was asked.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Result<Outcome, LinkError>>>,
    asked: Mutex<Vec<(usize, Op)>>,
}

#[async_trait]
impl ClientLink for Script {
    fn targets(&self) -> usize {
        3
    }

    fn resolve(&self, replica: crate::ReplicaId, _: Option<&str>) -> Option<usize> {
        Some(replica.0 as usize)
    }

    async fn call(&self, target: usize, op: Op, _: Instant) -> Result<Outcome, LinkError> {
        self.asked.lock().unwrap().push((target, op));
        self.answers
            .lock()
            .unwrap()
            .pop_front()
            .expect("not asked so often")
    }
}

type Sum = Fold<u64, u64>;

fn scripted(answers: Vec<Result<Outcome, LinkError>>) -> (Client<Sum>, Arc<Script>) {
    let script = Arc::new(Script {
        answers: Mutex::new(answers.into()),
        asked: Mutex::default(),
    });
    let client = Client::shared(script.clone(), ClientOptions::default());
    (client, script)
}

fn done(response: u64) -> Result<Outcome, LinkError> {
    Ok(Outcome::Done {
        response: encode(&response),
        token: Token::default(),
    })
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_command_without_a_session_goes_on_while_nobody_has_taken_it() {
    let (client, script) = scripted(vec![
        Err(LinkError::NotSent("refused".into())),
        Ok(Outcome::NotPrimary {
            primary: Some(crate::ReplicaId(2)),
            address: None,
        }),
        Ok(Outcome::Busy),
        done(9),
    ]);
    assert_eq!(client.execute_at_most_once(4).await, Ok(9));
    let asked = script.asked.lock().unwrap();
    let targets: Vec<_> = asked.iter().map(|(target, _)| *target).collect();
    assert_eq!(targets, [0, 1, 2, 2]);
    let plain = Op::Plain(encode(&4_u64));
    assert!(
        asked.iter().all(|(_, op)| *op == plain),
        "no session is opened"
    );
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_command_without_a_session_is_not_sent_again_once_it_may_have_been_taken() {
    for lost in [
        Ok(Outcome::Unknown),
        Err(LinkError::Lost("connection reset".into())),
    ] {
        let (client, script) = scripted(vec![lost, done(9)]);
        let ended = client.execute_at_most_once(4).await;
        assert!(
            matches!(ended, Err(ClientError::Unknown { .. })),
            "{ended:?}"
        );
        assert_eq!(script.asked.lock().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn when_every_target_is_hopeless_nothing_is_waited_for_and_one_that_is_not_is_found() {
    let hopeless = || Err(LinkError::Hopeless("another group".into()));
    let began = Instant::now();
    let (client, script) = scripted(vec![hopeless(), hopeless(), hopeless()]);
    let ended = client.execute_at_most_once(4).await;
    let all =
        matches!(&ended, Err(ClientError::Unavailable { last }) if last.contains("another group"));
    assert!(all, "{ended:?}");
    assert_eq!(script.asked.lock().unwrap().len(), 3);
    assert_eq!(began.elapsed(), Duration::ZERO);
    let not_sent = Err(LinkError::NotSent("refused".into()));
    let (client, _) = scripted(vec![hopeless(), not_sent, hopeless(), hopeless(), done(9)]);
    assert_eq!(client.execute_at_most_once(4).await, Ok(9));
}

/// Three targets, the first of which is stopped.
struct OneStopped;

#[async_trait]
impl ClientLink for OneStopped {
    fn targets(&self) -> usize {
        3
    }

    fn resolve(&self, _: crate::ReplicaId, _: Option<&str>) -> Option<usize> {
        None
    }

    async fn call(&self, target: usize, _: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        if target == 0 {
            tokio::time::sleep_until(deadline).await;
            return Err(LinkError::Lost("no reply in time".into()));
        }
        done(9)
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_read_that_anybody_may_answer_waits_only_a_little_for_a_stopped_replica() {
    let client = Client::<Sum>::shared(Arc::new(OneStopped), ClientOptions::default());
    let mut longest = Duration::ZERO;
    let mut waited = 0;
    for _ in 0..12 {
        let began = Instant::now();
        assert_eq!(client.query(Read::Local, ()).await, Ok(9));
        longest = longest.max(began.elapsed());
        waited += usize::from(!began.elapsed().is_zero());
    }
    let part = ClientOptions::default().attempt / 8;
    assert!(longest <= part + Duration::from_millis(2), "{longest:?}");
    assert_eq!(waited, 1, "then it is passed over");
}

/// Eight targets, of which all but one are silent. That one is suspect at first, and then sends to one of the others.
struct OneAwake {
    asked: Mutex<Vec<usize>>,
    awake: usize,
}

#[async_trait]
impl ClientLink for OneAwake {
    fn targets(&self) -> usize {
        8
    }

    fn resolve(&self, replica: crate::ReplicaId, _: Option<&str>) -> Option<usize> {
        Some(replica.0 as usize)
    }

    fn is_silent(&self, target: usize) -> bool {
        target != self.awake
    }

    async fn call(&self, target: usize, _: Op, deadline: Instant) -> Result<Outcome, LinkError> {
        let calls = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(target);
            asked.len()
        };
        match calls {
            _ if target != self.awake => {
                tokio::time::sleep_until(deadline).await;
                Err(LinkError::Lost("no reply in time".into()))
            }
            1 => Err(LinkError::NotSent("refused".into())),
            2 => Ok(Outcome::NotPrimary {
                primary: Some(crate::ReplicaId(1)),
                address: None,
            }),
            _ => done(9),
        }
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn who_is_silent_is_not_asked_while_another_is_not() {
    for awake in [0, 3, 7] {
        let link = Arc::new(OneAwake {
            asked: Mutex::default(),
            awake,
        });
        let client = Client::<Sum>::shared(link.clone(), ClientOptions::default());
        let began = Instant::now();
        assert_eq!(client.execute_at_most_once(4).await, Ok(9));
        assert_eq!(client.query(Read::Local, ()).await, Ok(9));
        assert_eq!(*link.asked.lock().unwrap(), [awake; 4]);
        assert!(began.elapsed() < ClientOptions::default().attempt / 4);
    }
}
