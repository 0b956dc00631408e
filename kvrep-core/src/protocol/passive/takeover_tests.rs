use super::*;
use crate::id::{Departed, Incarnation, Index};

const fn n(id: u32) -> ReplicaId {
    ReplicaId(id)
}

fn store(id: u32) -> StoreId {
    StoreId(u64::from(id) * 10)
}

fn config(number: u64, primary: u32, members: &[u32]) -> Configuration {
    Configuration {
        origin: Origin(1),
        term: Term {
            number,
            replica: n(primary),
        },
        version: Version(number),
        in_sync: members.iter().map(|id| (n(*id), store(*id))).collect(),
        members: [1, 2, 3].map(|id| (n(id), MemberKind::Full)).into(),
        departed: Departed::default(),
    }
}

fn at(term: u64, index: u64) -> LogPoint {
    LogPoint {
        term: Term {
            number: term,
            replica: n(1),
        },
        index: Index(index),
        hash: term * 1_000 + index,
    }
}

fn standing(id: u32, known: Option<&Configuration>, last: LogPoint, posture: Posture) -> Standing {
    Standing {
        store: store(id),
        promised: known.map_or(Term::ZERO, |c| c.term),
        configuration: known.cloned(),
        intent: None,
        last,
        commit: Index::ZERO,
        posture,
        asked: false,
        founders: 0,
        writes: last != LogPoint::ZERO,
    }
}

/// A situation of n2 in a group of three, to be varied.
struct Case {
    authority: Authority,
    known: Option<Configuration>,
    last: LogPoint,
    restarting: bool,
    heard: BTreeMap<ReplicaId, Standing>,
    register: Option<Option<Configuration>>,
    live: BTreeSet<ReplicaId>,
    gone: BTreeSet<ReplicaId>,
    round_over: bool,
    forced: bool,
    life: u64,
    chosen: bool,
    home: Option<ReplicaId>,
    waits_for_request: bool,
}

impl Case {
    fn new(authority: Authority) -> Self {
        let known = config(1, 1, &[1, 2, 3]);
        Self {
            authority,
            register: Some(Some(known.clone())),
            known: Some(known),
            last: at(1, 5),
            restarting: false,
            heard: BTreeMap::new(),
            live: BTreeSet::new(),
            gone: BTreeSet::new(),
            round_over: true,
            forced: false,
            life: 1,
            chosen: false,
            home: None,
            waits_for_request: false,
        }
    }

    fn hear(mut self, id: u32, last: LogPoint, posture: Posture) -> Self {
        let standing = standing(id, self.known.as_ref(), last, posture);
        self.heard.insert(n(id), standing);
        self
    }

    fn decide(&self) -> Decision {
        decide(&Situation {
            me: n(2),
            store: store(2),
            authority: self.authority,
            members: &[n(1), n(2), n(3)].into(),
            founders: 0,
            promised: self.known.as_ref().map_or(Term::ZERO, |c| c.term),
            configuration: self.known.as_ref(),
            intent: None,
            last: self.last,
            restarting: self.restarting,
            heard: &self.heard,
            register: self.register.as_ref(),
            live: &self.live,
            gone: &self.gone,
            round_over: self.round_over,
            rounds: 5,
            forced: self.forced,
            incarnation: Incarnation(self.life),
            chosen: self.chosen,
            home: self.home,
            waits_for_request: self.waits_for_request,
            ignores_last_set: false,
            #[cfg(feature = "sim")]
            insists: false,
        })
    }

    /// The members of the configuration that n2 tries to lead, or why it waits.
    fn outcome(&self) -> Result<Vec<u32>, String> {
        match self.decide() {
            Decision::Wait(why) => Err(why),
            Decision::Promote { new, .. } => {
                assert_eq!(new.term.replica, n(2), "one promotes oneself only");
                assert!(
                    self.known.as_ref().is_none_or(|k| new.term > k.term),
                    "a term is never resumed"
                );
                Ok(new.in_sync.keys().map(|id| id.0).collect())
            }
        }
    }
}

fn both() -> [Authority; 2] {
    [Authority::Witness, Authority::Alone]
}

#[test]
fn a_primary_that_answers_is_not_replaced() {
    for authority in both() {
        let case = Case::new(authority).hear(1, at(1, 9), Posture::Primary);
        assert_eq!(case.outcome(), Err(String::new()));
    }
}

#[test]
fn the_most_advanced_promotes_itself_with_those_it_heard() {
    for authority in both() {
        let ahead = Case::new(authority).hear(3, at(1, 4), Posture::Following);
        assert_eq!(ahead.outcome(), Ok(vec![2, 3]));
        let behind = Case::new(authority).hear(3, at(1, 6), Posture::Following);
        assert_eq!(behind.outcome(), Err(String::new()));
    }
}

#[test]
fn ties_go_to_the_lowest_id() {
    for authority in both() {
        let with_higher = Case::new(authority).hear(3, at(1, 5), Posture::Following);
        assert_eq!(with_higher.outcome(), Ok(vec![2, 3]));
        let with_lower = Case::new(authority)
            .hear(1, at(1, 5), Posture::Following)
            .hear(3, at(1, 5), Posture::Following);
        assert_eq!(with_lower.outcome(), Err(String::new()));
    }
}

#[test]
fn whoever_may_still_answer_is_waited_for_until_the_round_ends() {
    for authority in both() {
        let mut case = Case::new(authority).hear(3, at(1, 4), Posture::Following);
        case.live.insert(n(1));
        case.round_over = false;
        assert_eq!(case.outcome(), Err(String::new()));
    }
}

#[test]
fn a_silent_primary_is_asked_before_it_is_deposed_and_one_that_is_gone_is_not_waited_for() {
    for authority in both() {
        let mut case = Case::new(authority).hear(3, at(1, 5), Posture::Following);
        case.round_over = false;
        assert_eq!(case.outcome(), Err(String::new()), "silent, and no more");
        case.gone.insert(n(1));
        assert_eq!(case.outcome(), Ok(vec![2, 3]));
        case.gone.clear();
        case.round_over = true;
        assert_eq!(case.outcome(), Ok(vec![2, 3]), "it had the time to answer");
    }
}

#[test]
fn only_a_member_with_the_storage_it_was_counted_with_promotes_itself() {
    for authority in both() {
        let mut case = Case::new(authority);
        let mut recorded = config(1, 1, &[1, 2, 3]);
        recorded.in_sync.insert(n(2), StoreId(99)); // its disk was wiped since
        case.register = Some(Some(recorded.clone()));
        case.known = Some(recorded);
        assert!(
            case.outcome()
                .unwrap_err()
                .contains("not in the last in-sync set")
        );
        case.forced = true;
        assert_eq!(case.outcome(), Ok(vec![2]));
    }
}

#[test]
fn without_the_witness_answer_nobody_is_promoted() {
    let mut case = Case::new(Authority::Witness);
    case.register = None;
    assert!(
        case.outcome()
            .unwrap_err()
            .contains("witness does not answer")
    );
}

#[test]
fn a_witness_that_lost_its_register_is_reported_and_not_believed() {
    let mut case = Case::new(Authority::Witness);
    case.register = Some(None);
    assert!(
        case.outcome()
            .unwrap_err()
            .contains("has lost what was recorded")
    );
}

#[test]
fn alone_a_restarted_replica_waits_for_all_members_of_the_newest_set() {
    let mut case = Case::new(Authority::Alone).hear(3, at(1, 4), Posture::Restarting);
    case.restarting = true;
    let why = case.outcome().unwrap_err();
    assert!(why.contains("missing: [n1]"), "{why}");
    let all = case.hear(1, at(1, 3), Posture::Restarting);
    assert_eq!(all.outcome(), Ok(vec![1, 2, 3]), "everybody heard is kept");
}

#[test]
fn alone_the_newest_set_that_anybody_knows_counts_and_intents_do_too() {
    let mut case = Case::new(Authority::Alone).hear(3, at(1, 4), Posture::Following);
    if let Some(heard) = case.heard.get_mut(&n(3)) {
        heard.intent = Some(config(2, 3, &[1, 3]));
    }
    assert!(
        case.outcome()
            .unwrap_err()
            .contains("not in the last in-sync set")
    );
    // Where nobody of that set is missing, it goes on by itself, and nothing need be said.
    if let Some(heard) = case.heard.get_mut(&n(3)) {
        heard.intent = Some(config(2, 3, &[3]));
    }
    assert_eq!(case.outcome(), Err(String::new()));
}

#[test]
fn alone_an_intent_that_a_member_says_it_has_not_agreed_to_counts_no_more() {
    // n1 meant to succeed with n2, and died before n2 heard of it; n2 reigned instead, and dropped n1.
    let mut case = Case::new(Authority::Alone);
    case.known = Some(config(2, 2, &[2]));
    case.restarting = true;
    let mut case = case.hear(1, at(1, 4), Posture::Restarting);
    let abandoned = config(3, 1, &[1, 2]);
    let intends = |case: &mut Case, posture| {
        let heard = case.heard.get_mut(&n(1)).expect("n1 was heard");
        heard.intent = Some(abandoned.clone());
        heard.posture = posture;
    };
    intends(&mut case, Posture::Restarting);
    assert_eq!(case.outcome(), Ok(vec![2]), "the reign that was goes on");
    intends(&mut case, Posture::Candidate);
    assert_eq!(
        case.outcome(),
        Ok(vec![1, 2]),
        "one that is pursued may still come to something"
    );
    intends(&mut case, Posture::Restarting);
    case.known = Some(abandoned);
    case.last = at(1, 3);
    assert_eq!(
        case.outcome(),
        Err(String::new()),
        "n2 has agreed: n1 leads"
    );
}

#[test]
fn alone_a_continuous_member_leaves_out_a_restarted_one_that_is_ahead() {
    let case = Case::new(Authority::Alone).hear(3, at(1, 8), Posture::Restarting);
    assert_eq!(
        case.outcome(),
        Ok(vec![2]),
        "what n3 has more was not acknowledged"
    );
    let level = Case::new(Authority::Alone).hear(3, at(1, 5), Posture::Restarting);
    assert_eq!(level.outcome(), Ok(vec![2, 3]));
}

#[test]
fn alone_a_member_that_is_merely_late_is_not_dead() {
    let mut case = Case::new(Authority::Alone).hear(3, at(1, 4), Posture::Following);
    case.live.insert(n(1));
    assert_eq!(case.outcome(), Err(String::new()));
}

#[test]
fn the_first_start_is_begun_by_the_lowest_id_and_alone_needs_everybody() {
    for authority in both() {
        let mut case = Case::new(authority);
        case.known = None;
        case.register = Some(None);
        case.last = LogPoint::ZERO;
        let case = case.hear(3, LogPoint::ZERO, Posture::Restarting);
        match authority {
            Authority::Witness => assert_eq!(case.outcome(), Ok(vec![2, 3])),
            Authority::Alone => {
                assert!(case.outcome().unwrap_err().contains("must hear all"));
            }
        }
        let with_lowest = case.hear(1, LogPoint::ZERO, Posture::Restarting);
        assert_eq!(with_lowest.outcome(), Err(String::new()));
    }
}

#[test]
fn force_is_refused_while_a_primary_answers() {
    for authority in both() {
        let mut case = Case::new(authority).hear(1, at(1, 9), Posture::Primary);
        case.forced = true;
        let why = case.outcome().unwrap_err();
        assert!(why.contains("n1 is primary and answers"), "{why}");
    }
}

#[test]
fn a_forced_reign_is_above_those_that_the_missing_may_have_begun_meanwhile() {
    let mut case = Case::new(Authority::Alone);
    case.forced = true;
    let Decision::Promote { new, .. } = case.decide() else {
        panic!("it is forced");
    };
    let reigns_of_the_missing = config(1_000, 1, &[3]).term;
    assert!(new.term > reigns_of_the_missing, "{new:?}");
    // Also one that was forced, an hour earlier, and whatever followed it.
    let (then, now) = (1_800_000_000_000_000, 1_803_600_000_000_000);
    case.life = now;
    let Decision::Promote { new, .. } = case.decide() else {
        panic!("it is forced");
    };
    let forced_before = config(then + 1_000, 1, &[3]).term;
    assert!(new.term > forced_before, "{new:?}");
}

#[test]
fn force_is_refused_where_one_that_answers_has_more() {
    for authority in both() {
        let mut case = Case::new(authority).hear(1, at(1, 9), Posture::Restarting);
        case.forced = true;
        let why = case.outcome().unwrap_err();
        assert!(why.contains("n1 answers and has more"), "{why}");
        let mut case = Case::new(authority).hear(1, at(1, 9), Posture::Unfit);
        case.forced = true;
        assert_eq!(case.outcome(), Ok(vec![2]), "what it has is wrong");
    }
}

#[test]
fn ties_go_to_the_one_that_the_last_primary_chose() {
    for authority in both() {
        let mut chosen = Case::new(authority)
            .hear(1, at(1, 5), Posture::Following)
            .hear(3, at(1, 5), Posture::Following);
        chosen.chosen = true;
        assert_eq!(chosen.outcome(), Ok(vec![1, 2, 3]));
        chosen = chosen.hear(1, at(1, 6), Posture::Following);
        assert_eq!(
            chosen.outcome(),
            Err(String::new()),
            "but not past a longer log"
        );
        let other = Case::new(authority).hear(3, at(1, 5), Posture::Successor);
        assert_eq!(other.outcome(), Err(String::new()));
    }
}

#[test]
fn a_fixed_primary_begins_the_group_whatever_its_id() {
    let mut case = Case::new(Authority::Alone);
    for id in [1, 3] {
        case.heard.insert(
            n(id),
            standing(id, None, LogPoint::ZERO, Posture::Restarting),
        );
    }
    case.known = None;
    case.last = LogPoint::ZERO;
    case.restarting = true;
    case.home = Some(n(3));
    assert_eq!(case.decide(), Decision::Wait(String::new()));
    case.home = Some(n(2));
    assert!(matches!(case.decide(), Decision::Promote { .. }));
}

#[test]
fn among_equals_the_fixed_primary_takes_office_and_a_more_advanced_one_rules_for_it() {
    let known = config(1, 1, &[1, 2, 3]);
    let mut case = Case::new(Authority::Alone);
    case.known = Some(known.clone());
    case.last = at(1, 5);
    for id in [1, 3] {
        case.heard.insert(
            n(id),
            standing(id, Some(&known), at(1, 5), Posture::Following),
        );
    }
    case.home = Some(n(3));
    assert_eq!(case.decide(), Decision::Wait(String::new()));
    case.last = at(1, 6);
    assert!(matches!(case.decide(), Decision::Promote { .. }));
}

#[test]
fn where_the_primary_is_fixed_nobody_else_takes_over_from_the_dead() {
    let known = config(1, 1, &[1, 2]);
    let mut case = Case::new(Authority::Alone);
    case.known = Some(known);
    case.last = at(1, 5);
    case.live = BTreeSet::new();
    case.round_over = true;
    assert!(matches!(case.decide(), Decision::Promote { .. }));
    case.home = Some(n(1));
    assert!(matches!(case.decide(), Decision::Wait(_)));
}

#[test]
fn nobody_takes_over_unasked_where_a_client_must_ask_but_a_group_begins_unasked() {
    for authority in both() {
        let mut case = Case::new(authority);
        assert!(case.outcome().is_ok());
        case.waits_for_request = true;
        assert!(case.outcome().unwrap_err().contains("no client has asked"));
        case.chosen = true;
        assert!(case.outcome().is_ok(), "a handover is asked for");
    }
}
