//! The substitute's part of a join: the state, piece by piece.

use super::item::Life;
use super::message::Message;
#[cfg(feature = "sim")]
use super::mutation::Mutation;
use super::word::Leave;
use super::{Active, Effect};
use crate::id::{Index, ReplicaId};
use crate::time::Time;
use bytes::Bytes;
use std::time::Duration;

/// A state on its way to one that joins.
#[derive(Debug)]
pub(super) struct Transfer {
    life: Life,
    at: Index,
    chain: u64,
    /// The whole; shared with the pieces.
    state: Bytes,
    sent: usize,
    got: usize,
    progress: Time,
    /// How long nothing may arrive before pieces are sent again. It grows while nothing does: what is only late must not be made later.
    patience: Duration,
    /// Planted bug: the machine's part is written later than it says.
    #[cfg(feature = "sim")]
    late: bool,
}

impl Transfer {
    /// Whether it is for this join.
    pub(super) fn is_of(&self, life: Life) -> bool {
        self.life == life
    }
}

impl Active {
    /// Writes the state for those who join here and have none on the way.
    pub(super) fn serve_newcomers(&mut self, now: Time, out: &mut Vec<Effect>) {
        if !self.is_serving() || self.healing.holds() {
            return;
        }
        let Some(history) = &self.history else {
            return;
        };
        let wanted: Vec<_> = (history.ring.joining())
            .filter(|(member, ..)| history.ring.substitute(*member) == Some(self.me))
            .filter(|(.., announced)| self.counts_since(*announced))
            .filter(|(member, life, _)| {
                let under_way = self.transfers.get(member);
                under_way.is_none_or(|transfer| transfer.life != *life)
            })
            .collect();
        let (mut open, mut given) = (Vec::new(), Vec::new());
        for (member, life, announced) in wanted {
            match self.may_give(member, announced) {
                Leave::Given => {}
                Leave::Open => {
                    open.push((member, announced));
                    continue;
                }
                Leave::Behind => {
                    self.step_aside(now, out);
                    return;
                }
            }
            given.push((member, life));
        }
        for (member, life) in given {
            self.begin_transfer(now, member, life);
        }
        self.ask_for_words(now, &open, out);
        self.send_all_pieces(out);
    }

    /// Writes the state for this newcomer.
    pub(super) fn begin_transfer(&mut self, now: Time, member: ReplicaId, life: Life) {
        let Some(history) = &self.history else {
            return;
        };
        let Ok(state) = history.write(&self.machine, self.confirmed) else {
            return;
        };
        let transfer = Transfer {
            life,
            at: history.at,
            chain: history.chain,
            state: state.into(),
            sent: 0,
            got: 0,
            progress: now,
            patience: self.group.timing.resend_every,
            #[cfg(feature = "sim")]
            late: self.has(Mutation::SnapshotUntied),
        };
        self.transfers.insert(member, transfer);
    }

    pub(super) fn send_all_pieces(&mut self, out: &mut Vec<Effect>) {
        let members: Vec<_> = self.transfers.keys().copied().collect();
        for member in members {
            self.send_pieces(member, out);
        }
    }

    fn send_pieces(&mut self, to: ReplicaId, out: &mut Vec<Effect>) {
        let (from, piece_bytes) = (self.me, self.group.piece_bytes);
        let Some(transfer) = self.transfers.get_mut(&to) else {
            return;
        };
        #[cfg(feature = "sim")]
        if transfer.late {
            return;
        }
        while transfer.sent < transfer.state.len()
            && transfer.sent < transfer.got + PIECES_AHEAD * piece_bytes
        {
            let end = (transfer.sent + piece_bytes).min(transfer.state.len());
            let message = Message::Piece {
                life: transfer.life,
                from,
                at: transfer.at,
                chain: transfer.chain,
                offset: transfer.sent as u64,
                whole: transfer.state.len() as u64,
                data: transfer.state.slice(transfer.sent..end),
            };
            out.push(Effect::Send { to, message });
            transfer.sent = end;
        }
    }

    /// So much has arrived.
    pub(super) fn on_got(
        &mut self,
        now: Time,
        (by, life): (ReplicaId, Life),
        chain: u64,
        bytes: u64,
        out: &mut Vec<Effect>,
    ) {
        let resend = self.group.timing.resend_every;
        let Some(transfer) = self.transfers.get_mut(&by) else {
            return;
        };
        let got = usize::try_from(bytes).unwrap_or(usize::MAX);
        if transfer.life != life || transfer.chain != chain || got > transfer.state.len() {
            return;
        }
        if got > transfer.got {
            transfer.got = got;
            transfer.progress = now;
            transfer.patience = resend;
        }
        if got == transfer.state.len() {
            self.is_given(by, life);
        }
        self.send_pieces(by, out);
    }

    pub(super) fn transfers_on_tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        #[cfg(feature = "sim")]
        self.write_late();
        let resend = self.group.timing.resend_every;
        let members: Vec<_> = self.transfers.keys().copied().collect();
        for member in members {
            if let Some(transfer) = self.transfers.get_mut(&member)
                && now - transfer.progress >= transfer.patience
            {
                transfer.sent = transfer.got;
                transfer.progress = now;
                transfer.patience = (transfer.patience * 2).min(resend * PATIENCE_MAX);
            }
            self.send_pieces(member, out);
        }
        self.serve_newcomers(now, out);
    }

    /// The planted bug: the head of then with the machine of now.
    #[cfg(feature = "sim")]
    fn write_late(&mut self) {
        for transfer in self.transfers.values_mut().filter(|transfer| transfer.late) {
            transfer.late = false;
            let length = transfer
                .state
                .first_chunk()
                .map_or(0, |l| u64::from_be_bytes(*l));
            let mut state = transfer.state[..8 + usize::try_from(length).unwrap_or(0)].to_vec();
            if self.machine.freeze()(&mut state).is_ok() {
                transfer.state = state.into();
            }
        }
    }
}

/// How many times longer than at first the patience gets, at most.
const PATIENCE_MAX: u32 = 16;

/// Pieces on their way, at most.
const PIECES_AHEAD: usize = 8;

/// Takes a state for a newcomer ([`Message::Piece`]) apart, for who writes it down in another form: what the scheme needs, and the state
/// machine's own snapshot. One behind the other they are the state again. `None`: these bytes are none.
///
/// ```
/// use kvrep_core::protocol::active::split_state;
/// let state = [&1_u64.to_be_bytes()[..], b"h", &2_u64.to_be_bytes(), b"se", b"snapshot"].concat();
/// let (scheme, snapshot) = split_state(&state.into()).unwrap();
/// assert_eq!((scheme.len(), &snapshot[..]), (19, &b"snapshot"[..]));
/// ```
#[must_use]
pub fn split_state(state: &Bytes) -> Option<(Bytes, Bytes)> {
    let mut at = 0_usize;
    // The history's part and the sessions', each with its length before it.
    for _ in 0..2 {
        let length = state.get(at..)?.first_chunk()?;
        let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
        at = at.checked_add(8)?.checked_add(length)?;
    }
    (at <= state.len()).then(|| (state.slice(..at), state.slice(at..)))
}
