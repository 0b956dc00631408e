//! Who becomes primary: asking around, and deciding.
//!
//! A replica that knows no primary *seeks*: in each round it probes everybody and, with a witness, reads the register.
//! From the answers it decides, as a pure function ([`decide`]), whether to wait (and for whom, in words an operator
//! understands) or to promote itself, and with which set.
//!
//! Invariants:
//! * only a member of the newest recorded set, with the storage it was counted with, promotes itself;
//! * a primary that answers is not replaced;
//! * one whose state was found to be wrong is passed over, though its log counts;
//! * `Alone`: either all members of the newest configuration that anybody knows were heard (the new set is then
//!   everybody heard), or this replica never lost touch since it was a member and the others are dead.

use super::hard_state::newest;
use super::message::{Posture, Standing};
use crate::config::Authority;
use crate::id::{
    Configuration, Incarnation, LogPoint, MemberKind, Nonce, Origin, ReplicaId, StoreId, Term,
    Version,
};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};

/// Asking around.
#[derive(Debug)]
pub(super) struct Seeking {
    /// The round; answers to earlier ones do not count.
    pub(super) nonce: Nonce,
    pub(super) heard: BTreeMap<ReplicaId, Standing>,
    /// What the witness said in this round.
    pub(super) register: Option<Option<Configuration>>,
    /// When the round ends.
    pub(super) deadline: Time,
    /// Rounds since this replica began to seek.
    pub(super) rounds: u32,
    /// After a defeat: not before.
    pub(super) not_before: Time,
}

impl Seeking {
    pub(super) fn idle() -> Self {
        Self {
            nonce: Nonce(0),
            heard: BTreeMap::new(),
            register: None,
            deadline: Time::ZERO,
            rounds: 0,
            not_before: Time::ZERO,
        }
    }

    pub(super) fn begin_round(&mut self, nonce: Nonce, deadline: Time) {
        self.nonce = nonce;
        self.heard.clear();
        self.register = None;
        self.deadline = deadline;
        self.rounds = self.rounds.saturating_add(1);
    }
}

/// Everything that the decision depends on.
#[derive(Debug)]
pub(super) struct Situation<'a> {
    pub(super) me: ReplicaId,
    pub(super) store: StoreId,
    pub(super) authority: Authority,
    /// The full members of the configuration that is known; before there is one, the founders.
    pub(super) members: &'a BTreeSet<ReplicaId>,
    /// Hash of the founding members that this replica was started with.
    pub(super) founders: u64,
    /// The highest term promised or heard of.
    pub(super) promised: Term,
    pub(super) configuration: Option<&'a Configuration>,
    pub(super) intent: Option<&'a Configuration>,
    pub(super) last: LogPoint,
    pub(super) restarting: bool,
    pub(super) heard: &'a BTreeMap<ReplicaId, Standing>,
    pub(super) register: Option<&'a Option<Configuration>>,
    /// Those whom the detector counts on.
    pub(super) live: &'a BTreeSet<ReplicaId>,
    /// Those that are seen to be gone: nobody waits for their answers.
    pub(super) gone: &'a BTreeSet<ReplicaId>,
    pub(super) round_over: bool,
    pub(super) rounds: u32,
    pub(super) forced: bool,
    /// This life.
    pub(super) incarnation: Incarnation,
    /// The last primary chose this replica to succeed it.
    pub(super) chosen: bool,
    /// The fixed primary, where nobody else may serve.
    pub(super) home: Option<ReplicaId>,
    /// Nobody takes over before a client asks for it, and none has.
    pub(super) waits_for_request: bool,
    /// A planted bug: the last set is not looked at.
    pub(super) ignores_last_set: bool,
    /// A planted bug: the fixed primary takes office whatever log it has.
    #[cfg(feature = "sim")]
    pub(super) insists: bool,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing yet; why, for the operator (empty: no news).
    Wait(String),
    /// Try to become primary with this configuration, in place of that one.
    Promote {
        new: Configuration,
        old: Option<Configuration>,
    },
}

/// Rounds after which a better candidate that does nothing is passed over (with a witness, where that is safe).
const PATIENCE_ROUNDS: u32 = 6;

/// Rounds before an operator is told what a replica waits for.
const ROUNDS_BEFORE_WORDS: u32 = 4;

pub(super) fn decide(s: &Situation<'_>) -> Decision {
    let mut heard = s.heard.iter();
    if let Some((id, _)) =
        heard.find(|(_, h)| h.posture == Posture::Primary && h.promised >= s.promised)
    {
        // It will ship to us.
        return wait_if(s.forced, || {
            format!(
                "{id} is primary and answers: nothing is forced; start this replica without force"
            )
        });
    }
    // Silence is no proof: whoever was stopped itself has heard nobody for a while, and would depose a primary that lives. So a
    // silent member is given the round to answer in, and only one that is seen to be gone is not.
    let accounted = s
        .members
        .iter()
        .all(|m| *m == s.me || s.heard.contains_key(m) || s.gone.contains(m));
    if !accounted && !s.round_over {
        return Decision::Wait(String::new());
    }
    let ahead = |h: &Standing| h.posture != Posture::Unfit && h.last.rank() > s.last.rank();
    if let Some((id, h)) = s.heard.iter().find(|(_, h)| s.forced && ahead(h)) {
        return Decision::Wait(format!(
            "{id} answers and has more of the history (up to entry {}, not {}): nothing is forced. Force that one, or stop it first if what it has is to be given up",
            h.last.index.0, s.last.index.0
        ));
    }
    let decision = match s.authority {
        Authority::Witness => with_witness(s),
        Authority::Alone => alone(s),
    };
    match decision {
        Decision::Promote { old: Some(_), .. } if s.waits_for_request && !s.chosen && !s.forced => {
            wait_if(speaks(s), || before_a_request(s))
        }
        decision @ (Decision::Promote { .. } | Decision::Wait(_)) => decision,
    }
}

/// Why nobody has taken over yet, where a client must ask for it.
fn before_a_request(s: &Situation<'_>) -> String {
    let known = s.configuration.map(|c| &c.in_sync);
    let lost = |(id, store): (&ReplicaId, &StoreId)| {
        let heard = s.heard.get(id).filter(|h| h.store != *store);
        heard.map(|_| *id)
    };
    match known.into_iter().flatten().find_map(lost) {
        Some(id) => format!(
            "{id} has begun anew, with nothing of what this group had. This replica has that, and takes over as soon as a client asks it for a write or a linearizable read"
        ),
        None => "the primary is gone and no client has asked for a write or a linearizable read since: nobody takes over before".into(),
    }
}

fn with_witness(s: &Situation<'_>) -> Decision {
    let Some(register) = s.register else {
        return wait_if(speaks(s), || {
            "the witness does not answer; start it, or check its address".into()
        });
    };
    let Some(recorded) = register else {
        let known = newest_known(s);
        if let Some(known) = known
            && !s.forced
        {
            return Decision::Wait(format!(
                "the witness has an empty register, but this group was in {known}: it was started with another directory than before, and has lost what was recorded. Start it with the directory that it had; if that is lost, start the replica that has most with force, and then the others"
            ));
        }
        return genesis(s, known);
    };
    // Within a round another one may have recorded something; over several rounds it is the register that is old.
    if let Some(known) = newest_known(s).filter(|known| known.rank() > recorded.rank())
        && !s.forced
    {
        return wait_if(speaks(s), || {
            format!(
                "the witness has recorded {recorded}, but this group was in {known} since: it was started with an old copy of its directory. Start it with the directory that it had; if that is lost, start the replica that has most with force, and then the others"
            )
        });
    }
    if !recorded.has(s.me, s.store) && !s.forced && !s.ignores_last_set {
        return wait_if(speaks(s), || missing(s, recorded));
    }
    let candidates = || s.heard.iter().filter(|(id, h)| recorded.has(**id, h.store));
    if best(s, candidates().filter(is_fit)) != s.me && s.rounds < PATIENCE_ROUNDS {
        return Decision::Wait(String::new());
    }
    let mut in_sync: BTreeMap<_, _> = candidates().map(|(id, h)| (*id, h.store)).collect();
    if s.forced {
        in_sync.clear();
    }
    promote(s, Some(recorded), in_sync)
}

fn alone(s: &Situation<'_>) -> Decision {
    let Some(known) = newest_known(s) else {
        let missing: Vec<_> = s
            .members
            .iter()
            .filter(|m| **m != s.me && !s.heard.contains_key(m))
            .collect();
        if !missing.is_empty() && !s.forced {
            return wait_if(speaks(s), || {
                format!(
                    "before its first start a group without a witness must hear all of its members; missing: {missing:?}. Start them, or start one replica with force"
                )
            });
        }
        return genesis(s, None);
    };
    if s.forced {
        return promote(s, Some(known), BTreeMap::new());
    }
    #[cfg(feature = "sim")]
    if s.insists && !known.has(s.me, s.store) {
        return promote(s, Some(known), BTreeMap::new());
    }
    if !known.has(s.me, s.store) && !s.ignores_last_set {
        return wait_if(speaks(s), || missing(s, known));
    }
    let holders = || s.heard.iter().filter(|(id, h)| known.has(**id, h.store));
    let unheard: Vec<ReplicaId> = known
        .in_sync
        .keys()
        .copied()
        .filter(|id| *id != s.me && !s.heard.contains_key(id))
        .collect();
    if unheard.is_empty() {
        // Everybody was heard: the most advanced, restarted or not, with everybody.
        if best(s, holders().filter(is_fit)) != s.me {
            return Decision::Wait(String::new());
        }
        let in_sync = holders().map(|(id, h)| (*id, h.store)).collect();
        return promote(s, Some(known), in_sync);
    }
    if let Some(home) = s.home {
        return wait_if(speaks(s), || {
            format!(
                "only {home} serves, and it begins when all of {known} are heard; missing: {unheard:?}. Start them, or start one replica with force"
            )
        });
    }
    if s.restarting {
        return wait_if(speaks(s), || {
            format!(
                "restarted without a witness: all of {known} must be heard; missing: {unheard:?}. Start them, or start this replica with force"
            )
        });
    }
    if unheard.iter().any(|id| s.live.contains(id)) {
        return Decision::Wait(String::new()); // not dead, merely late
    }
    let steady = |h: &Standing| h.posture != Posture::Restarting && h.posture != Posture::Unfit;
    let continuous = || holders().filter(|(_, h)| steady(h));
    if best(s, continuous()) != s.me {
        return Decision::Wait(String::new());
    }
    let in_sync = holders()
        .filter(|(_, h)| h.last.rank() <= s.last.rank())
        .map(|(id, h)| (*id, h.store))
        .collect();
    promote(s, Some(known), in_sync)
}

/// The first configuration of a group: everybody heard, all of them empty; the lowest id begins. With a witness most
/// members must be heard: one that the others refuse (another configuration, a wrong address) must not become the group.
/// A fixed primary begins itself.
fn genesis(s: &Situation<'_>, known: Option<&Configuration>) -> Decision {
    let other = |h: &Standing| h.configuration.is_none() && h.founders != s.founders;
    if let Some((id, _)) = s.heard.iter().find(|(_, h)| other(h))
        && !s.forced
    {
        return wait_if(speaks(s), || {
            format!(
                "{id} was started with other members than {:?}; start all founders of a group with the same",
                s.members
            )
        });
    }
    if (s.heard.len() + 1) * 2 <= s.members.len() && !s.forced {
        return wait_if(speaks(s), || {
            let missing: Vec<_> = s
                .members
                .iter()
                .filter(|m| **m != s.me && !s.heard.contains_key(m))
                .collect();
            format!(
                "before its first start a group must hear most of its members; missing: {missing:?}. Start them, check their addresses and that all have the same configuration, or start one replica with force"
            )
        });
    }
    let lowest = s.heard.keys().copied().chain([s.me]).min();
    if s.home.or(lowest) != Some(s.me) && !s.forced {
        return Decision::Wait(String::new());
    }
    let in_sync = s
        .heard
        .iter()
        .filter(|(_, h)| h.configuration.is_none() && h.last == LogPoint::ZERO && !s.forced)
        .map(|(id, h)| (*id, h.store))
        .collect();
    match promote(s, known, in_sync) {
        // The register is empty whatever was known before.
        Decision::Promote { new, .. } => Decision::Promote { new, old: None },
        wait @ Decision::Wait(_) => wait,
    }
}

fn promote(
    s: &Situation<'_>,
    old: Option<&Configuration>,
    mut in_sync: BTreeMap<ReplicaId, StoreId>,
) -> Decision {
    in_sync.insert(s.me, s.store);
    let mut members: BTreeMap<_, _> = match old {
        Some(old) => old.members.clone(),
        None => s.members.iter().map(|id| (*id, MemberKind::Full)).collect(),
    };
    // Only force makes one primary who was no full member.
    members.insert(s.me, MemberKind::Full);
    let mut departed = old.map(|old| old.departed.clone()).unwrap_or_default();
    departed.returns(s.me);
    let known = s.configuration.or(old);
    let origin = known.map_or(Origin::of(s.store), |known| known.origin);
    let heard = s.heard.values().map(|h| h.promised).max();
    let mut above = s
        .promised
        .max(heard.unwrap_or_default())
        .max(old.map(|o| o.term).unwrap_or_default());
    if s.forced && s.authority == Authority::Alone {
        // Those that are not awaited may have had reigns of their own, of which nobody here knows, be it by force. If they return, it is they that
        // are refuted, as the operator was told, and not this replica with what it has acknowledged since: his last word counts.
        above.number = (above.number.saturating_add(UNKNOWN_REIGNS)).max(s.incarnation.0);
    }
    Decision::Promote {
        new: Configuration {
            origin,
            term: above.next_for(s.me),
            version: old.map_or(Version(1), |o| o.version.next()),
            in_sync,
            members,
            departed,
        },
        old: old.cloned(),
    }
}

/// More than a member can have begun while the one that is forced knew nothing of it. A forced reign's number is also that of the life in which it was forced,
/// at least: drivers count lives in microseconds since 1970, so of two forced reigns that know nothing of each other the later one is above the earlier one
/// and all that followed it.
const UNKNOWN_REIGNS: u64 = 1 << 20;

/// The term of a group that was forced at some time, as `Alone` counts them.
pub(super) fn forced_reign(configuration: &Configuration) -> Option<Term> {
    Some(configuration.term).filter(|term| term.number > UNKNOWN_REIGNS)
}

/// The one with the most advanced log among this replica and `others`; ties go to the fixed primary, then to the one that the
/// last primary chose, then to the lowest id.
fn best<'a>(
    s: &Situation<'_>,
    others: impl Iterator<Item = (&'a ReplicaId, &'a Standing)>,
) -> ReplicaId {
    let claim = |last: LogPoint, chosen: bool, id: ReplicaId| {
        let home = s.home == Some(id);
        (last.rank(), home, chosen, std::cmp::Reverse(id))
    };
    let mut best = claim(s.last, s.chosen, s.me);
    for (id, standing) in others {
        let chosen = standing.posture == Posture::Successor;
        best = best.max(claim(standing.last, chosen, *id));
    }
    best.3.0
}

/// Whether it may become primary: its state is not known to be wrong.
fn is_fit((_, standing): &(&ReplicaId, &Standing)) -> bool {
    standing.posture != Posture::Unfit
}

/// The newest configuration that this replica or anybody heard knows; intents count, as long as they may have come to
/// something.
fn newest_known<'a>(s: &Situation<'a>) -> Option<&'a Configuration> {
    let own = s.intent.filter(|intent| !is_void(s, intent));
    let intents = s.heard.values().filter_map(|h| {
        let trying = matches!(
            h.posture,
            Posture::Candidate | Posture::Successor | Posture::Primary
        );
        let of_this_group =
            |i: &Configuration| s.configuration.is_none_or(|own| own.origin == i.origin);
        (h.intent.as_ref()).filter(|i| of_this_group(i) && (trying || !is_void(s, i)))
    });
    s.heard
        .values()
        .filter_map(|h| h.configuration.as_ref())
        .chain(intents)
        .fold(newest(s.configuration, own), |best, next| {
            newest(best, Some(next))
        })
}

/// Whether an intent that its author does not pursue any more came to nothing: it needed the agreement of a member that says
/// it has not agreed. Without this rule a successor that died before anybody agreed to its reign would come back with a higher
/// term than the reign that was instead, and two replicas that know less than all would go on from there.
fn is_void(s: &Situation<'_>, intent: &Configuration) -> bool {
    let author = intent.term.replica;
    let not_agreed =
        |known: Option<&Configuration>| known.map(Configuration::rank) < Some(intent.rank());
    intent.in_sync.iter().any(|(id, store)| {
        *id != author
            && if *id == s.me {
                *store == s.store && not_agreed(s.configuration)
            } else {
                let told = s.heard.get(id).filter(|h| h.store == *store);
                told.is_some_and(|h| not_agreed(h.configuration.as_ref()))
            }
    })
}

fn missing(s: &Situation<'_>, recorded: &Configuration) -> String {
    let lost: Vec<_> = recorded
        .in_sync
        .iter()
        .filter(|(id, store)| **id == s.me || s.heard.get(id).is_some_and(|h| h.store != **store))
        .map(|(id, _)| *id)
        .collect();
    if lost.len() == recorded.in_sync.len() {
        return format!(
            "no holder of the state remains: {lost:?} had it and came back without. Restore a copy, or start one replica with force"
        );
    }
    let unheard = |id: &ReplicaId| *id != s.me && !s.heard.contains_key(id);
    let holds = |(id, store): (&ReplicaId, &StoreId)| {
        let heard = s.heard.get(id).filter(|h| h.store == *store);
        heard.map(|_| *id)
    };
    if let Some(holder) = recorded.in_sync.iter().find_map(holds)
        && !recorded.in_sync.keys().any(unheard)
    {
        // Nobody is missing: it takes over by itself, or when it is asked.
        return if s.waits_for_request {
            format!(
                "{holder} has what the group had, and takes over as soon as a client asks for a write or a linearizable read; this replica has nothing that counts, and follows it then"
            )
        } else {
            String::new()
        };
    }
    if recorded.members.get(&s.me) == Some(&MemberKind::Learner) {
        return format!(
            "a learner never takes over; one of {recorded} must return, or start this one with force (writes may be lost)"
        );
    }
    format!(
        "this replica is not in the last in-sync set {recorded}; one of those must return, or start this one with force (writes may be lost)"
    )
}

/// Whether it has lasted for so long that the operator should hear of it: not in the first rounds of an ordinary start.
fn speaks(s: &Situation<'_>) -> bool {
    s.round_over && s.rounds >= ROUNDS_BEFORE_WORDS
}

/// Says why, if it is to be said.
fn wait_if(over: bool, why: impl FnOnce() -> String) -> Decision {
    Decision::Wait(if over { why() } else { String::new() })
}

#[cfg(test)]
#[path = "takeover_tests.rs"]
mod tests;
