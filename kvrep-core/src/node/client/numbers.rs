//! The numbers of a session's commands: which are in use, and below which all are done.

use crate::config::Token;
use crate::id::{Seq, SessionId};
use std::collections::VecDeque;

/// A command's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) session: SessionId,
    pub(super) seq: Seq,
}

/// What [`Numbers::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Number(Number),
    NoSession,
    WindowFull,
}

/// The session as the client knows it, and what the client has seen.
pub(super) struct Numbers {
    session: Option<SessionId>,
    /// Everything below is done.
    done_below: Seq,
    /// From `done_below` on: whether that number is done. The first is not.
    done: VecDeque<bool>,
    window: u64,
    token: Token,
}

impl Numbers {
    pub(super) fn new(window: u64) -> Self {
        Self {
            session: None,
            done_below: Seq(1),
            done: VecDeque::new(),
            window,
            token: Token::default(),
        }
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.session
    }

    pub(super) fn begin(&mut self, session: SessionId) {
        self.session = Some(session);
        self.done_below = Seq(1);
        self.done.clear();
    }

    /// The session is no more, if it is still the current one.
    pub(super) fn forget(&mut self, session: SessionId) {
        if self.session == Some(session) {
            self.session = None;
        }
    }

    /// Ends the session and returns it.
    pub(super) fn end(&mut self) -> Option<SessionId> {
        self.session.take()
    }

    pub(super) fn is_full(&self) -> bool {
        self.done.len() as u64 >= self.window
    }

    pub(super) fn take(&mut self) -> Taken {
        let Some(session) = self.session else {
            return Taken::NoSession;
        };
        if self.is_full() {
            return Taken::WindowFull;
        }
        let seq = Seq(self.done_below.0 + self.done.len() as u64);
        self.done.push_back(false);
        Taken::Number(Number { session, seq })
    }

    /// Below which number answers may be forgotten, for a command that goes out with `number` now.
    pub(super) fn done_below(&self, number: &Number) -> Seq {
        if self.session == Some(number.session) {
            self.done_below
        } else {
            // Of a session that is gone: says nothing.
            Seq(1)
        }
    }

    /// The command with this number has ended. Returns whether numbers became free.
    pub(super) fn done(&mut self, number: &Number) -> bool {
        if self.session != Some(number.session) {
            return true;
        }
        let at = number.seq.0 - self.done_below.0;
        if let Some(done) = usize::try_from(at)
            .ok()
            .and_then(|at| self.done.get_mut(at))
        {
            *done = true;
        }
        let before = self.done_below;
        while self.done.front() == Some(&true) {
            self.done.pop_front();
            self.done_below = self.done_below.next();
        }
        self.done_below != before
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    pub(super) fn saw(&mut self, token: Token) {
        self.token = self.token.max(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(numbers: &mut Numbers) -> Number {
        match numbers.take() {
            Taken::Number(number) => number,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stuck_command_holds_the_window_until_it_ends() {
        let mut numbers = Numbers::new(3);
        assert_eq!(numbers.take(), Taken::NoSession);
        numbers.begin(SessionId(7));
        let stuck = take(&mut numbers);
        for seq in [2, 3] {
            let number = take(&mut numbers);
            assert_eq!(number.seq, Seq(seq));
            assert!(!numbers.done(&number), "the first is still open");
        }
        assert_eq!(numbers.take(), Taken::WindowFull);
        assert_eq!(numbers.done_below(&stuck), Seq(1));
        assert!(numbers.done(&stuck));
        let next = take(&mut numbers);
        assert_eq!((next.seq, numbers.done_below(&next)), (Seq(4), Seq(4)));
    }

    #[test]
    fn a_number_of_an_earlier_session_changes_nothing() {
        let mut numbers = Numbers::new(3);
        numbers.begin(SessionId(7));
        let old = take(&mut numbers);
        numbers.forget(SessionId(7));
        numbers.begin(SessionId(9));
        let new = take(&mut numbers);
        numbers.done(&old);
        assert_eq!(numbers.done_below(&new), Seq(1));
        numbers.forget(SessionId(7));
        assert_eq!(numbers.session(), Some(SessionId(9)));
    }
}
