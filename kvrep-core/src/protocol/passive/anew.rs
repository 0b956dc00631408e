//! A replica that begins again what it had begun before: the same group, in the same term, with an empty storage.
//!
//! A group of one founder, which others joined later, begins with nobody to ask. If that founder is started once more as at the very
//! beginning, but with an empty directory (another working directory is enough), it begins once more, and serves: it knows nobody who could tell it
//! that there is such a group. Those who joined it do know. A term is one replica's and *one storage's*, for a restart never resumes one;
//! so a configuration that counts another storage of a replica, in the term in which that replica reigns now or in a later one, is
//! the proof that it has begun anew.
//!
//! Invariants:
//! * whoever has heard that proof reigns no more; it takes the configuration over, in which its storage counts for nothing;
//! * for the others it is a member that has come back without anything, whatever it says of itself: no primary, and its
//!   configuration is none of this group's.
//!
//! A founder that was *dropped* since is counted with no storage at all, and has no reason to speak to anybody: so a primary that was told of it alone when it
//! joined goes on telling it of its reign while it is silent ([`may_have_begun_anew`]). Whoever reigns in the first term there is, and is shown a later reign of members that it does not
//! even know, to which it belongs without counting, yields as well.
//!
//! So the holders of the older state go on, by the ordinary rules of a takeover; what was taken meanwhile by the one that had begun anew
//! is refuted when it follows them, set aside and reported there.
//!
//! Caveat: it takes somebody who knows. Until the first of them is heard the one that begins anew serves an empty state; and after a
//! restart of its own (which begins a higher term) the others cannot tell any more that it does not belong.

use super::local::Local;
use super::message::{Posture, Standing};
use super::succession::Rest;
use super::{Part, Passive};
use crate::id::{Configuration, LogPoint, ReplicaId, StoreId, Term};
use crate::protocol::{Event, Outbox};
use crate::time::Time;

/// Whether `shown` proves that the primary `me` of `term`, with `store`, has begun anew.
fn refutes(shown: &Configuration, term: Term, me: ReplicaId, store: StoreId) -> bool {
    let counted = shown.in_sync.get(&me);
    shown.term >= term && counted.is_some_and(|counted| *counted != store)
}

/// What a replica says of itself, as it is to be taken by one that knows this configuration.
pub(super) fn taken(
    known: Option<&Configuration>,
    from: ReplicaId,
    standing: Standing,
) -> Standing {
    let reigns = standing.posture == Posture::Primary && standing.promised.replica == from;
    let refuted = |known: &Configuration| refutes(known, standing.promised, from, standing.store);
    if !(reigns && known.is_some_and(refuted)) {
        return standing;
    }
    Standing {
        configuration: None,
        intent: None,
        last: LogPoint::ZERO,
        posture: Posture::Restarting,
        ..standing
    }
}

/// Whether `id`, which is silent, may be there in another life that does not know this group any more: it began the group by itself, perhaps, for this
/// primary was told of it alone when it joined, and it has been dropped since. Then it never speaks to this replica by itself, and without a witness
/// nothing else tells it.
pub(super) fn may_have_begun_anew(
    local: &Local,
    now: Time,
    id: ReplicaId,
    agreed: &Configuration,
) -> bool {
    let mut told_of = local.group.members.iter().filter(|one| **one != local.me);
    let founder = told_of.all(|one| *one == id) && local.group.members.contains(&id);
    local.is_alone()
        && founder
        && !agreed.in_sync.contains_key(&id)
        && !local.detector.verdict(now, id).is_live()
}

impl Passive {
    /// Ends a reign that somebody has shown to be a second beginning. Whether it was.
    ///
    /// Whoever reigns later in a group to which this replica belongs may have dropped it since, and then counts no storage of it. If this replica does
    /// not even know who shows that, and reigns in the first term there is, it has forgotten all of it: a member that was merely away knows the group, and
    /// a later reign has removed whom it does not know.
    pub(super) fn yields_to_former_life(
        &mut self,
        now: Time,
        from: ReplicaId,
        standing: &Standing,
        out: &mut Outbox,
    ) -> bool {
        let (Part::Primary(primary), Some(shown)) = (&self.role, &standing.configuration) else {
            return false;
        };
        let local = &mut self.local;
        let known = local.hard.configuration.as_ref().map(Configuration::rank);
        let dropped = primary.term == Term::ZERO.next_for(local.me)
            && !local.is_member(from)
            && shown.term > primary.term
            && shown.members.contains_key(&local.me)
            && !shown.in_sync.contains_key(&local.me);
        let refuted = dropped || refutes(shown, primary.term, local.me, local.store);
        if !refuted || Some(shown.rank()) <= known {
            return false;
        }
        local.learn(Some(shown), out);
        local.restarting = true;
        let why = format!(
            "{from} knows this group as one in which this replica reigned before, with another storage: this replica began it anew, with nothing, and serves no more. Whoever has what the \
             group had goes on with it; what was written here since is given up then. If the directory that this replica had is there still, stop it and start it with that one"
        );
        out.push(crate::protocol::Action::Event(Event::Refused(why)));
        self.seek(now, Rest::None, out);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Index, MemberKind, Version};

    const ME: ReplicaId = ReplicaId(1);

    fn term(number: u64, replica: u32) -> Term {
        Term {
            number,
            replica: ReplicaId(replica),
        }
    }

    fn shown(term: Term, store_of_me: u64) -> Configuration {
        Configuration {
            term,
            version: Version(3),
            in_sync: [(ME, StoreId(store_of_me)), (ReplicaId(9), StoreId(90))].into(),
            members: [1, 9].map(|id| (ReplicaId(id), MemberKind::Full)).into(),
        }
    }

    #[test]
    fn a_primary_is_refuted_by_another_storage_of_its_own_in_its_term_or_a_later_one_and_by_nothing_else()
     {
        let store = StoreId(11);
        assert!(refutes(&shown(term(1, 1), 10), term(1, 1), ME, store));
        assert!(refutes(&shown(term(2, 9), 10), term(1, 1), ME, store));
        // Its own doing.
        assert!(!refutes(&shown(term(1, 1), 11), term(1, 1), ME, store));
        // It has reigned anew since, as a member that had come back without its storage.
        assert!(!refutes(&shown(term(2, 9), 10), term(3, 1), ME, store));
        let mut without = shown(term(2, 9), 10);
        without.in_sync.remove(&ME);
        assert!(!refutes(&without, term(1, 1), ME, store));
    }

    #[test]
    fn whoever_began_anew_is_taken_for_a_member_without_anything() {
        let standing = |posture| Standing {
            store: StoreId(11),
            promised: term(1, 1),
            configuration: Some(shown(term(1, 1), 11)),
            intent: None,
            last: LogPoint::ZERO,
            commit: Index::ZERO,
            posture,
            asked: false,
            founders: 0,
        };
        let known = shown(term(1, 1), 10);
        let found = taken(Some(&known), ME, standing(Posture::Primary));
        assert_eq!(found.posture, Posture::Restarting);
        assert_eq!(found.configuration, None);
        for (known, posture) in [
            (None, Posture::Primary),
            (Some(shown(term(1, 1), 11)), Posture::Primary),
            (Some(known), Posture::Following),
        ] {
            let said = standing(posture);
            assert_eq!(taken(known.as_ref(), ME, said.clone()), said);
        }
    }
}
