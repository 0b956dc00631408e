use super::*;
use std::time::Duration;

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

fn cluster(me: u32) -> Cluster {
    let mut cluster = Cluster::new(ReplicaId(me), 5, TickConfig::default()).unwrap();
    cluster.start(at(0));
    cluster
}

/// Seconds in which these are heard, and what was told.
fn live(
    cluster: &mut Cluster,
    seconds: std::ops::Range<u64>,
    heard: &[&str],
) -> Vec<(u32, Verdict)> {
    let mut told = Vec::new();
    for second in seconds {
        let now = at(second * 1_000);
        let sent = if cluster.speaks(now) {
            Sent::Yes
        } else {
            Sent::No
        };
        cluster.tick(now, sent);
        told.extend(cluster.updates(at(second * 1_000)));
        for datagram in heard {
            cluster.heard(at(second * 1_000 + 10), datagram.as_bytes());
        }
        told.extend(cluster.updates(at(second * 1_000 + 10)));
    }
    told.into_iter()
        .map(|(server, verdict)| (server.0, verdict))
        .collect()
}

#[test]
fn r4_8_every_server_starts_disconnected_the_own_one_too() {
    let states = cluster(1).states(at(1));
    assert_eq!(states.len(), 5);
    assert!(
        states
            .iter()
            .all(|(_, verdict)| *verdict == Verdict::Disconnected)
    );
}

#[test]
fn r4_7_r4_9_r4_11_r4_12_a_server_is_active_when_heard_and_degrades_tick_by_tick() {
    let mut three = cluster(3);
    assert_eq!(
        live(&mut three, 1..4, &["1", "3"]),
        [(1, Verdict::Active), (3, Verdict::Active)]
    );
    // Then only the own ones come back. Heard at 3.01: tick 4 → 3, 5 → 2, 6 → 1, 7 → 0.
    let state = |three: &Cluster, millis| three.states(at(millis))[0].1;
    assert_eq!(live(&mut three, 4..5, &["3"]), []);
    assert_eq!(state(&three, 4_000), Verdict::Active, "A4.1: 3 is active");
    assert_eq!(live(&mut three, 5..6, &["3"]), []);
    assert_eq!(state(&three, 5_000), Verdict::Unconfirmed);
    let named = three.block(at(5_000), Language::Pt);
    assert!(
        named.contains("Server 1 is Aguardando Confirmação"),
        "{named}"
    );
    assert_eq!(
        three.turn(at(5_500)),
        Turn::Theirs(ReplicaId(1)),
        "2 is still eligible"
    );
    assert_eq!(live(&mut three, 6..7, &["3"]), [(1, Verdict::Unresponsive)]);
    assert_eq!(three.turn(at(6_500)), Turn::Mine);
    assert_eq!(state(&three, 6_500), Verdict::Unresponsive);
    assert_eq!(live(&mut three, 7..9, &["3"]), [(1, Verdict::Disconnected)]);
    assert_eq!(state(&three, 7_000), Verdict::Disconnected);
    assert_eq!(live(&mut three, 9..11, &["1", "3"]), [(1, Verdict::Active)]);
    assert_eq!(three.turn(at(10_500)), Turn::Theirs(ReplicaId(1)));
}

#[test]
fn r4_10_c4_1_a_server_that_does_not_hear_itself_sees_itself_degrade() {
    let mut two = cluster(2);
    live(&mut two, 1..4, &["1", "2"]);
    let told = live(&mut two, 4..9, &["1"]);
    assert_eq!(
        told,
        [(2, Verdict::Unresponsive), (2, Verdict::Disconnected)]
    );
}

#[test]
fn r4_16_r4_17_only_the_lowest_active_one_answers() {
    let turns: Vec<_> = (2..=4)
        .map(|me| {
            let mut one = cluster(me);
            live(&mut one, 1..4, &["2", "3", "4"]);
            one.turn(at(3_500))
        })
        .collect();
    assert_eq!(
        turns,
        [
            Turn::Mine,
            Turn::Theirs(ReplicaId(2)),
            Turn::Theirs(ReplicaId(2))
        ]
    );
}

#[test]
fn c4_3_a_server_answers_nothing_in_its_first_two_periods() {
    let mut five = cluster(5);
    live(&mut five, 1..2, &["5"]);
    assert_eq!(five.turn(at(1_999)), Turn::Listening);
    live(&mut five, 2..3, &["5"]);
    assert_eq!(five.turn(at(2_000)), Turn::Mine);
}

/// Servers that hear each other at once. Each ticks at its own times, and does not run where it is `None`.
struct Room {
    now: u64,
    servers: Vec<Option<(Cluster, Time)>>,
    /// What waits for those that are stopped.
    stopped: Vec<Option<(Cluster, Time)>>,
}

impl Room {
    fn new() -> Self {
        let nobody = || (0..5).map(|_| None).collect();
        Self {
            now: 0,
            servers: nobody(),
            stopped: nobody(),
        }
    }

    fn start(&mut self, me: u32) {
        let mut one = Cluster::new(ReplicaId(me), 5, TickConfig::default()).unwrap();
        one.start(at(self.now));
        let due = one.next_tick(at(self.now));
        self.servers[me as usize - 1] = Some((one, due));
    }

    fn stop(&mut self, me: u32) {
        let place = me as usize - 1;
        self.stopped[place] = self.servers[place].take();
    }

    fn go_on(&mut self, me: u32) {
        let place = me as usize - 1;
        self.servers[place] = self.stopped[place].take();
    }

    /// Time passes; returns who answers.
    fn pass(&mut self, millis: u64) -> Vec<u32> {
        self.now += millis;
        let now = at(self.now);
        for place in 0..5 {
            let Some((one, due)) = &mut self.servers[place] else {
                continue;
            };
            if now < *due {
                continue;
            }
            let speaks = one.speaks(now);
            one.tick(now, if speaks { Sent::Yes } else { Sent::No });
            *due = one.next_tick(now);
            if speaks {
                let id = (place + 1).to_string();
                for (other, _) in self.servers.iter_mut().flatten() {
                    other.heard(now, id.as_bytes());
                }
            }
        }
        let all = (1..).zip(&self.servers);
        let mine = all.filter(|(_, server)| {
            let turn = server.as_ref().map(|(one, _)| one.turn(now));
            turn == Some(Turn::Mine)
        });
        mine.map(|(me, _)| me).collect()
    }
}

#[test]
fn c4_4_r4_18_when_a_lower_one_returns_somebody_answers_all_the_time() {
    // Who answers, in steps of 10 ms.
    let pass = |room: &mut Room, millis: u64| {
        let steps = (0..millis / 10).map(|_| room.pass(10));
        steps.collect::<Vec<_>>()
    };
    for after in (0..3_000).step_by(70) {
        let mut room = Room::new();
        room.start(2);
        pass(&mut room, 3_000 + after);
        // It starts; and after a sleep it goes on.
        room.start(1);
        let answered = pass(&mut room, 5_000);
        assert!(answered.iter().all(|who| who.len() == 1), "{after}");
        assert_eq!(answered.last(), Some(&vec![1]));
        room.stop(1);
        let answered = pass(&mut room, 4_000 + after);
        assert_eq!(answered.last(), Some(&vec![2]));
        room.go_on(1);
        let answered = pass(&mut room, 5_000);
        assert!(answered.iter().all(|who| who.len() == 1), "{after}");
        assert_eq!(answered.last(), Some(&vec![1]));
    }
}

#[test]
fn a4_3_id_0_is_accepted_silently_and_ids_beyond_the_maximum_are_ignored() {
    let mut one = cluster(1);
    live(&mut one, 1..3, &["1"]);
    assert_eq!(one.heard(at(2_500), b"0"), Heard::Alive);
    assert_eq!(one.updates(at(2_500)), []);
    assert_eq!(one.states(at(2_500)).len(), 5);
    assert_eq!(
        one.turn(at(2_500)),
        Turn::Theirs(ReplicaId(0)),
        "it answers"
    );
    assert_eq!(one.heard(at(2_500), b"6"), Heard::Invalid);
    assert_eq!(one.invalid(), 1);
}

#[test]
fn r4_19_malformed_heartbeats_change_nothing_and_are_counted() {
    let mut one = cluster(1);
    for wrong in [
        b"".as_slice(),
        b"one",
        b"\xff\xfe",
        &[b'1'; 512],
        b"-1",
        b"1;2",
    ] {
        assert_eq!(one.heard(at(10), wrong), Heard::Invalid, "{wrong:?}");
    }
    assert_eq!(one.invalid(), 6);
    assert_eq!(one.updates(at(10)), []);
}

#[test]
fn a4_9_a_second_server_with_the_same_id_is_noticed_and_said_once() {
    let mut said = 0;
    let mut alone = cluster(1);
    let mut shared = cluster(1);
    for second in 1..30 {
        assert_eq!(alone.tick(at(second * 1_000), Sent::Yes), OwnIdIs::Mine);
        alone.heard(at(second * 1_000 + 1), b"1");
        let own_id = shared.tick(at(second * 1_000), Sent::Yes);
        said += usize::from(own_id == OwnIdIs::SharedWithAnother);
        shared.heard(at(second * 1_000 + 1), b"1");
        shared.heard(at(second * 1_000 + 500), b"1");
    }
    assert_eq!(said, 1);
}

#[test]
fn r4_13_the_thresholds_and_the_period_can_be_changed() {
    let config = TickConfig {
        period: Duration::from_millis(100),
        counter_on_heard: 8,
        active_from: 5,
        unconfirmed_from: 4,
        unresponsive_from: 2,
    };
    let mut two = Cluster::new(ReplicaId(2), 5, config).unwrap();
    two.start(at(0));
    for tick in 1..5 {
        two.tick(at(tick * 100), Sent::Yes);
    }
    two.heard(at(401), b"1");
    let state = |millis| two.states(at(millis))[0].1;
    assert_eq!(state(700), Verdict::Active);
    assert_eq!(state(800), Verdict::Unconfirmed);
    assert_eq!(state(900), Verdict::Unresponsive);
    assert_eq!(state(1_100), Verdict::Disconnected);
}
