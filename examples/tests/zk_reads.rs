//! What clients of system 3 may rely on, checked against three real servers under load.

mod zk;

use kvrep_core::check::ClientId;
use kvrep_core::check::sessions::{Access, SessionOp, check};
use kvrep_core::random::Rng;
use kvrep_core::{Index, Time};
use kvrep_examples::zk_like_kv::session::{Session, Value};
use std::collections::BTreeSet;
use std::time::Instant;
use zk::Trio;

const CLIENTS: u64 = 8;
const OPERATIONS: u64 = 10_000;
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What one client saw.
#[derive(Default)]
struct Seen {
    operations: Vec<SessionOp<&'static str>>,
    written: Vec<u64>,
    behind: u64,
    null: u64,
}

async fn play(client: u64, mut session: Session, began: Instant) -> Seen {
    let now = || Time::from_nanos(u64::try_from(began.elapsed().as_nanos()).unwrap());
    let (mut random, mut seen) = (Rng::new(100 + client), Seen::default());
    for n in 0..OPERATIONS / CLIENTS {
        let key = KEYS[usize::try_from(random.below(KEYS.len() as u64)).unwrap()];
        let invoked = now();
        let access = if random.below(4) == 0 {
            let written = session.put(key, &format!("{client}-{n}")).await.unwrap();
            seen.written.push(written.timestamp);
            Access::Write(Index(written.timestamp))
        } else {
            let found = session.get(key).await.unwrap();
            match found.value {
                Value::Of(_) => Access::Read(Index(found.timestamp)),
                // C3.2: only to a client that has seen nothing of it.
                Value::Null => {
                    assert_eq!((found.sent, found.timestamp), (0, 0));
                    seen.null += 1;
                    Access::Read(Index::ZERO)
                }
                Value::Behind => {
                    assert!(found.timestamp < found.sent, "{found:?}");
                    // C3.5: it stays as it was.
                    assert_eq!(session.seen(key), found.sent);
                    seen.behind += 1;
                    continue;
                }
            }
        };
        seen.operations.push(SessionOp {
            client: ClientId(client),
            object: key,
            invoked,
            responded: now(),
            access,
        });
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_26_c3_4_no_client_of_ten_thousand_operations_ever_goes_back_and_all_servers_agree() {
    let trio = Trio::start(1, [&[], &[], &["--atraso-replicacao", "4"]]).await;
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(play(client, trio.session(&[0, 1, 2], client), began)))
        .collect();
    let mut all = Seen::default();
    for client in clients {
        let seen = client.await.unwrap();
        all.operations.extend(seen.operations);
        all.written.extend(seen.written);
        (all.behind, all.null) = (all.behind + seen.behind, all.null + seen.null);
    }
    assert_eq!(check(&all.operations), []);
    // A test of the test: the late follower was found behind, and something was read and written.
    assert!(all.behind > 0, "nobody was ever behind");
    assert!(all.written.len() > 1_000 && all.operations.len() > 5_000);
    // Every write has a timestamp of its own, and none was left out: one write warmed the servers up.
    let distinct: BTreeSet<u64> = all.written.iter().copied().collect();
    assert_eq!(distinct.len(), all.written.len());
    assert_eq!(distinct.last(), Some(&(all.written.len() as u64 + 1)));
    // PUT_OK came when all had it: now all have the same.
    for key in KEYS {
        let mut states = BTreeSet::new();
        for server in 0..3 {
            let found = trio.session(&[server], 1).get(key).await.unwrap();
            states.insert(format!("{:?} {}", found.value, found.timestamp));
        }
        assert_eq!(states.len(), 1, "{key}: {states:?}");
    }
    println!(
        "{} operations, {} writes, {} times behind, {} times nothing, in {:?}",
        OPERATIONS,
        all.written.len(),
        all.behind,
        all.null,
        began.elapsed()
    );
}
