//! The table at the moments that matter: crashes between two steps of a write, a partition, an update under load.

mod table_support;

use kvrep_examples::common::relay::{Flow, Relay};
use kvrep_examples::primary_backup_table::client_stub::{ClientStub, Outcome};
use kvrep_examples::primary_backup_table::network_client::{NetworkClient, Patience};
use kvrep_examples::primary_backup_table::pair::{Dump, Pair, Seat, WITHIN, dump, dump_when};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use table_support::{cput, del, get, hasty, plain, prepare, put};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A client that reaches the first server through a relay.
async fn through_relay(pair: &Pair, patience: Patience) -> (ClientStub, Relay) {
    let relay = Relay::to(pair.first.address()).await.expect("a relay");
    let network = NetworkClient::new(relay.address(), pair.second.address(), patience);
    (ClientStub::new(network), relay)
}

/// The write that a client sends again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Write {
    Put,
    CondPut,
    Del,
}

async fn written(client: &mut ClientStub, write: Write) -> Outcome<()> {
    match write {
        Write::Put => client.put("k".into(), "2".into()).await.expect("an answer"),
        Write::CondPut => cput(client, "n", "2").await,
        Write::Del => del(client, "k").await,
    }
}

/// C1.6 (after the backup's write, before the answer), A1.10: on the plain wire the retry is a second write; with an
/// identity it gets the first one's answer.
#[tokio::test]
async fn a_write_whose_answer_was_lost_with_the_primary_is_answered_by_the_secondary() {
    for (write, once_more) in [
        (Write::Put, Outcome::Done(())),
        (Write::CondPut, Outcome::Failed),
        (Write::Del, Outcome::Failed),
    ] {
        for (patience, wanted) in [
            (plain(), once_more),
            (Patience::default(), Outcome::Done(())),
        ] {
            let pair = prepare(&[]);
            let (mut first, mut second) = pair.start().await.expect("the pair");
            let (mut client, relay) = through_relay(&pair, patience).await;
            put(&mut client, "k", "1").await;
            relay.set(Flow::Requests); // its answers are lost
            let before = dump(&mut first).await.expect("a dump");
            let asking = async { written(&mut client, write).await };
            let crashing = async {
                let carried_out = |d: &Dump| d.entries != before.entries;
                dump_when(&mut second, "the write is there", carried_out)
                    .await
                    .expect("a dump");
                first.kill().await.expect("killed");
                drop(relay);
            };
            let (answer, ()) = tokio::join!(asking, crashing);
            assert_eq!(answer, wanted, "{write:?} {patience:?}");
        }
    }
}

/// C1.6 (before the backup's write): nobody has it any more, so the retry is the first.
#[tokio::test]
async fn a_write_that_only_the_dead_primary_had_is_carried_out_by_the_secondary() {
    for write in [Write::Put, Write::CondPut, Write::Del] {
        let advertised = RelayedSecond::prepare().await;
        let pair = &advertised.pair;
        let mut first = advertised.first.start().await.expect("the first");
        let mut second = advertised.start_second().await;
        let mut client = pair.client(plain());
        put(&mut client, "k", "1").await;
        let (mut doomed, relay) = through_relay(pair, plain()).await;
        advertised.to_second.set(Flow::Nothing);
        let asking = async { written(&mut doomed, write).await };
        let crashing = async {
            // It has been sent, and is not confirmed: the secondary counts for a second yet.
            sleep(Duration::from_millis(300)).await;
            first.kill().await.expect("killed");
            drop(relay);
        };
        let (answer, ()) = tokio::join!(asking, crashing);
        assert_eq!(answer, Outcome::Done(()), "{write:?}");
        assert!(dump(&mut second).await.expect("a dump").is_primary());
    }
}

/// A pair in which each server reaches the other through a relay.
struct RelayedSecond {
    pair: Pair,
    to_first: Relay,
    to_second: Relay,
    first: Seat,
    second: Seat,
}

impl RelayedSecond {
    async fn prepare() -> Self {
        Self::prepare_with(&[]).await
    }

    async fn prepare_with(both: &[&str]) -> Self {
        let pair = prepare(both);
        let to_first = Relay::to(pair.first.address()).await.expect("a relay");
        let to_second = Relay::to(pair.second.address()).await.expect("a relay");
        let first = pair.first.with(&["--advertise", &to_first.address()]);
        let (primary, advertised) = (to_first.address(), to_second.address());
        let mut arguments = vec![primary.as_str(), "--advertise", advertised.as_str()];
        arguments.extend(both);
        let second = pair
            .second
            .alone(pair.directory(), &arguments)
            .expect("built");
        Self {
            pair,
            to_first,
            to_second,
            first,
            second,
        }
    }

    async fn start_second(&self) -> kvrep_examples::common::processes::Process {
        let mut second = self.second.start().await.expect("the second");
        second
            .line("tabela atualizada", WITHIN)
            .await
            .expect("the table");
        second
    }

    fn cut(&self, flow: Flow) {
        self.to_first.set(flow);
        self.to_second.set(flow);
    }

    /// A client of one server only.
    fn client_of(&self, seat: &Seat) -> ClientStub {
        ClientStub::new(NetworkClient::new(seat.address(), seat.address(), hasty()))
    }
}

/// C1.8: a partition, not a crash. Two primaries are possible without a witness; when it heals, one refuses the other and
/// says so, and what is lost is reported.
#[tokio::test]
async fn two_primaries_after_a_partition_are_refused_and_reported() {
    let parted = RelayedSecond::prepare().await;
    let pair = &parted.pair;
    let mut first = parted.first.start().await.expect("the first");
    let mut second = parted.start_second().await;
    let (mut a, mut b) = (
        parted.client_of(&pair.second),
        parted.client_of(&pair.first),
    );
    put(&mut b, "k", "both").await;
    parted.cut(Flow::Nothing);
    put(&mut b, "k", "old").await;
    put(&mut b, "only-old", "1").await;
    put(&mut a, "k", "new").await;
    for server in [&mut first, &mut second] {
        let both = |d: &Dump| d.is_primary() && !d.is_up();
        dump_when(server, "primary, the other DOWN", both)
            .await
            .expect("a dump");
    }
    parted.cut(Flow::Both);
    // Never silently.
    first
        .line("LOST", WITHIN)
        .await
        .expect("the old one reports its loss");
    let back = |d: &Dump| !d.is_primary() && d.is_up() && d.is_complete();
    let old = dump_when(&mut first, "it follows", back)
        .await
        .expect("a dump");
    assert_eq!(old.entries, ["k: new"]);
    let new = dump_when(&mut second, "the other is UP", Dump::is_up)
        .await
        .expect("a dump");
    assert!(new.is_primary(), "{new:?}");
    assert_eq!(new.entries, old.entries);
}

/// C1.8 with a witness: there is one primary at any time, and nothing acknowledged is lost.
#[tokio::test]
async fn with_a_witness_a_partition_makes_no_second_primary() {
    let witness = table_support::Witness::start().await;
    let address = witness.address.clone();
    let parted = RelayedSecond::prepare_with(&["--witness", &address]).await;
    let pair = &parted.pair;
    let mut first = parted.first.start().await.expect("the first");
    let mut second = parted.start_second().await;
    let (mut a, mut b) = (
        parted.client_of(&pair.second),
        parted.client_of(&pair.first),
    );
    put(&mut b, "k", "both").await;
    parted.cut(Flow::Nothing);
    put(&mut b, "k", "first").await;
    let refused = a.put("k".into(), "second".into()).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(!dump(&mut second).await.expect("a dump").is_primary());
    parted.cut(Flow::Both);
    dump_when(&mut first, "the other is UP", Dump::is_up)
        .await
        .expect("a dump");
    assert_eq!(get(&mut a, "k").await.as_deref(), Some("first"));
    drop(witness);
}

/// R1.15, C1.5, C1.12: requests wait while a server is brought up to date, `print` works meanwhile, and the secondary ends
/// with the primary's table.
#[tokio::test]
async fn requests_wait_for_an_update_and_the_secondary_ends_with_the_primarys_table() {
    let pair = prepare(&[]);
    let mut first = pair.first.start().await.expect("the first");
    let mut client = pair.client(Patience::default());
    let large = "x".repeat(500_000);
    for n in 0..40 {
        put(&mut client, &format!("large{n:02}"), &large).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let (mut writers, written) = (JoinSet::new(), Arc::new(AtomicU32::new(0)));
    for writer in 0..4 {
        let mut client = pair.client(plain());
        let (done, written) = (Arc::clone(&done), Arc::clone(&written));
        writers.spawn(async move {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                put(&mut client, &format!("w{writer}"), &n.to_string()).await;
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut second = pair.second.launch().expect("the second");
    second.line("na porta", WITHIN).await.expect("it runs");
    // Whatever is printed meanwhile is a role, and a table or the word that there is none yet.
    for _ in 0..5 {
        for server in [&mut first, &mut second] {
            let now = dump(server).await.expect("a dump");
            let large = now
                .entries
                .iter()
                .filter(|e| e.starts_with("large"))
                .count();
            // Only who is being brought up to date may have less, and says so.
            assert!(
                large == 40 || !now.is_complete() && !now.is_primary(),
                "{large} of 40"
            );
        }
    }
    dump_when(&mut second, "the table", Dump::is_complete)
        .await
        .expect("a dump");
    let then = written.load(Ordering::Relaxed);
    let deadline = Instant::now() + WITHIN;
    while written.load(Ordering::Relaxed) < then + 100 {
        assert!(Instant::now() < deadline, "writes go on");
        sleep(Duration::from_millis(5)).await;
    }
    done.store(true, Ordering::Relaxed);
    while let Some(writer) = writers.join_next().await {
        writer.expect("no write failed");
    }
    let (at_first, at_second) = (
        dump(&mut first).await.expect("a dump"),
        dump(&mut second).await.expect("a dump"),
    );
    assert!(at_first.is_primary() && at_first.is_up());
    assert_eq!(at_first.entries, at_second.entries);
    assert_eq!(at_first.entries.len(), 44);
}

/// C1.5: a secondary that dies in the middle of an update is marked down, and requests go on.
#[tokio::test]
async fn a_secondary_that_dies_in_the_middle_of_an_update_does_not_stop_the_primary() {
    let pair = prepare(&[]);
    let mut first = pair.first.start().await.expect("the first");
    let mut client = pair.client(Patience::default());
    let large = "x".repeat(500_000);
    for n in 0..20 {
        put(&mut client, &format!("large{n:02}"), &large).await;
    }
    // Dead or merely stopped, at different moments of it; hello after hello.
    for moment in 0..6 {
        let mut second = pair.second.start().await.expect("the second");
        sleep(Duration::from_millis(moment * 15)).await;
        if moment % 2 == 0 {
            second.kill().await.expect("killed");
        } else {
            second.pause().expect("stopped");
        }
        put(&mut client, "k", &moment.to_string()).await;
        assert_eq!(get(&mut client, "k").await, Some(moment.to_string()));
        let down = |d: &Dump| d.is_primary() && !d.is_up();
        dump_when(&mut first, "the other is DOWN", down)
            .await
            .expect("a dump");
    }
    let mut second = pair.second.start().await.expect("the second");
    second
        .line("tabela atualizada", WITHIN)
        .await
        .expect("the table");
    assert_eq!(dump(&mut second).await.expect("a dump").entries.len(), 21);
}

/// Must show: 8 writers on one key, 10,000 writes, then a kill: the copies are identical.
#[tokio::test]
async fn ten_thousand_concurrent_writes_on_one_key_leave_identical_copies() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let mut client = pair.client(Patience::default());
        writers.spawn(async move {
            for n in 0..1_250 {
                put(&mut client, "k", &format!("{writer}.{n}")).await;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("no write failed");
    }
    let at_first = dump(&mut first).await.expect("a dump");
    first.kill().await.expect("killed");
    let mut client = pair.client(Patience::default());
    assert_eq!(client.size().await, Ok(Outcome::Done(1)));
    let at_second = dump(&mut second).await.expect("a dump");
    assert!(at_second.is_primary());
    assert_eq!(at_first.entries, at_second.entries);
    let last = get(&mut client, "k").await.expect("a value");
    assert!(last.ends_with(".1249"), "{last} is nobody's last write");
}
