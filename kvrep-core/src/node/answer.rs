//! Where the answer to a request from within this process waits to be taken.
//!
//! A cell that the runner fills once and one task awaits, as a oneshot channel is. It is used again: of thousands of
//! calls a moment, each waiting for its answer, most would otherwise cost an allocation that the allocator's own caches are too
//! small for.
//!
//! Invariants:
//! * a cell is given out again only when nobody else holds it;
//! * a [`Reply`] that is dropped says so: nobody waits for ever.

use crate::client_wire::Outcome;
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The runner's end.
pub(super) struct Reply(Option<Arc<Cell>>);

/// The end of who waits: the outcome, or `None` if there will be none.
pub(super) struct Answer(Option<Arc<Cell>>);

struct Cell(Mutex<Stage>);

enum Stage {
    Empty,
    Awaited(Waker),
    Answered(Outcome),
    /// The other end is gone.
    Unanswered,
}

thread_local! {
    /// Cells that nobody uses, empty; at most [`SPARE_MAX`].
    static SPARE: RefCell<Vec<Arc<Cell>>> = const { RefCell::new(Vec::new()) };
}

/// Makes the two ends.
pub(super) fn answer() -> (Reply, Answer) {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
    let spare = spare.ok().flatten();
    let cell = spare.unwrap_or_else(|| Arc::new(Cell(Mutex::new(Stage::Empty))));
    (Reply(Some(Arc::clone(&cell))), Answer(Some(cell)))
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reply {
    /// Whoever does not wait any more is passed over.
    pub(super) fn send(mut self, outcome: Outcome) {
        if let Some(cell) = self.0.take() {
            Self::end(cell, Stage::Answered(outcome));
        }
    }

    fn end(cell: Arc<Cell>, stage: Stage) {
        let before = std::mem::replace(&mut *cell.lock(), stage);
        // Before the other end looks, so that it finds itself alone.
        drop(cell);
        if let Stage::Awaited(waker) = before {
            waker.wake();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(cell) = self.0.take() {
            Self::end(cell, Stage::Unanswered);
        }
    }
}

impl Future for Answer {
    type Output = Option<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let cell = self.0.as_ref().expect("an answer is taken once");
        let mut stage = cell.lock();
        let outcome = match &mut *stage {
            Stage::Awaited(waker) if waker.will_wake(context.waker()) => return Poll::Pending,
            Stage::Empty | Stage::Awaited(_) => {
                *stage = Stage::Awaited(context.waker().clone());
                return Poll::Pending;
            }
            Stage::Answered(_) | Stage::Unanswered => {
                match std::mem::replace(&mut *stage, Stage::Empty) {
                    Stage::Answered(outcome) => Some(outcome),
                    Stage::Empty | Stage::Awaited(_) | Stage::Unanswered => None,
                }
            }
        };
        drop(stage);
        if let Some(cell) = self.0.take() {
            keep(cell);
        }
        Poll::Ready(outcome)
    }
}

/// Keeps an empty cell for a later request, if nobody else holds it.
fn keep(cell: Arc<Cell>) {
    if Arc::strong_count(&cell) == 1 {
        // A thread that ends keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(cell);
            }
        });
    }
}

/// How many cells a thread keeps: about 200 KiB.
const SPARE_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_comes_before_or_after_it_is_awaited_and_cells_are_used_again() {
        for _ in 0..3 {
            let (reply, answer) = answer();
            reply.send(Outcome::Busy);
            assert_eq!(answer.await, Some(Outcome::Busy));
        }
        assert_eq!(SPARE.with_borrow(Vec::len), 1);
        let (reply, answer) = answer();
        let waiting = tokio::spawn(answer);
        tokio::task::yield_now().await;
        reply.send(Outcome::Behind);
        assert_eq!(waiting.await.unwrap(), Some(Outcome::Behind));
        assert_eq!(SPARE.with_borrow(Vec::len), 1);
    }

    #[tokio::test]
    async fn whoever_goes_first_does_the_other_no_harm() {
        let (reply, lost) = answer();
        drop(reply);
        assert_eq!(lost.await, None);
        let (reply, given_up) = answer();
        drop(given_up);
        // Into a cell that nobody looks into, and that nobody gets again.
        reply.send(Outcome::Busy);
        let (reply, other) = answer();
        reply.send(Outcome::Behind);
        assert_eq!(other.await, Some(Outcome::Behind));
        let (reply, mut answer) = answer();
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut answer).poll(&mut context).is_pending());
        let waiting = tokio::spawn(answer);
        tokio::task::yield_now().await;
        drop(reply);
        assert_eq!(waiting.await.unwrap(), None, "the later task is woken");
    }
}
