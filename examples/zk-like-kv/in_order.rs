//! Work that is under way at the same time, and whose results come in the order in which it was begun.
//!
//! A follower passes on what all its clients write, tens of thousands of writes a second over one connection. A task for each costs the leader as much as the
//! write: a task is a block of memory of a kilobyte or two, which the system's allocator gives and takes back slowly. Here the work is polled by the task that
//! waits for it, in boxes that are used again.
//!
//! # Invariants
//!
//! * What is begun is polled at once, so it is asked for before the next is begun.
//! * Whenever the oldest is not done, all are polled: none waits for the ones before it.
//!
//! Caveat: a poll costs as much as there is work under way. That is right where much is done at once and finishes together, and for at most some
//! thousands.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};
use tokio::task::coop::unconstrained;
use tokio_util::sync::ReusableBoxFuture;

/// Work under way. See the [module](self).
pub struct InOrder<T> {
    begun: VecDeque<Begun<T>>,
    /// Boxes whose work is done.
    spare: Vec<ReusableBoxFuture<'static, T>>,
}

enum Begun<T> {
    UnderWay(ReusableBoxFuture<'static, T>),
    Done(T),
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self {
            begun: VecDeque::new(),
            spare: Vec::new(),
        }
    }
}

impl<T> fmt::Debug for InOrder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InOrder")
            .field("begun", &self.begun.len())
            .finish_non_exhaustive()
    }
}

impl<T: 'static> InOrder<T> {
    /// How many results have not been taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.begun.len()
    }

    /// Whether all results have been taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// Begins this, behind everything that was begun before.
    pub async fn begin(&mut self, work: impl Future<Output = T> + Send + 'static) {
        let mut boxed = match self.spare.pop() {
            Some(mut spare) => {
                spare.set(work);
                spare
            }
            None => ReusableBoxFuture::new(work),
        };
        let first = poll_fn(|context| Poll::Ready(boxed.poll(context)));
        let begun = match unconstrained(first).await {
            Poll::Ready(done) => {
                keep(&mut self.spare, boxed);
                Begun::Done(done)
            }
            Poll::Pending => Begun::UnderWay(boxed),
        };
        self.begun.push_back(begun);
    }

    /// The result of the oldest; `None` when nothing is under way. May be dropped at any await.
    pub async fn next(&mut self) -> Option<T> {
        // Much may be under way: nothing of it must look as if it had to wait because the others were asked.
        unconstrained(poll_fn(|context| self.poll_next(context))).await
    }

    /// The result of the oldest, if it is known already.
    pub fn try_next(&mut self) -> Option<T> {
        match self.begun.pop_front()? {
            Begun::Done(done) => Some(done),
            under_way @ Begun::UnderWay(_) => {
                self.begun.push_front(under_way);
                None
            }
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        for begun in &mut self.begun {
            if let Begun::UnderWay(work) = begun
                && let Poll::Ready(done) = work.poll(context)
                && let Begun::UnderWay(spare) = std::mem::replace(begun, Begun::Done(done))
            {
                keep(&mut self.spare, spare);
            }
        }
        if self.begun.is_empty() {
            return Poll::Ready(None);
        }
        match self.try_next() {
            Some(done) => Poll::Ready(Some(done)),
            None => Poll::Pending,
        }
    }
}

fn keep<T>(spare: &mut Vec<ReusableBoxFuture<'static, T>>, boxed: ReusableBoxFuture<'static, T>) {
    if spare.len() < SPARE_MAX {
        spare.push(boxed);
    }
}

/// Boxes that one who has much to do at times keeps while it has nothing to do: some two hundred kilobytes.
const SPARE_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    #[tokio::test]
    async fn results_come_in_the_order_of_their_beginning_however_they_end() {
        let mut in_order = InOrder::default();
        let mut ends = Vec::new();
        for n in 0..1_000 {
            let (end, ended) = oneshot::channel();
            ends.push(end);
            in_order
                .begin(async move { (n, ended.await.expect("it is ended")) })
                .await;
        }
        assert_eq!(in_order.len(), 1_000);
        let brief = Duration::from_millis(20);
        assert!(timeout(brief, in_order.next()).await.is_err());
        for end in ends.into_iter().rev() {
            end.send('x').expect("it is awaited");
        }
        for n in 0..1_000 {
            assert_eq!(in_order.next().await, Some((n, 'x')));
        }
        assert_eq!(in_order.next().await, None);
        assert!(in_order.is_empty());
    }

    #[tokio::test]
    async fn what_is_begun_is_asked_for_at_once_and_what_is_done_at_once_is_known() {
        let mut in_order = InOrder::default();
        let (asked, heard) = oneshot::channel();
        in_order
            .begin(async move {
                asked.send(()).expect("it is heard");
                1
            })
            .await;
        assert_eq!(heard.await, Ok(()));
        in_order.begin(async { 2 }).await;
        assert_eq!(in_order.try_next(), Some(1));
        assert_eq!(in_order.next().await, Some(2));
        assert_eq!(in_order.try_next(), None);
    }

    /// None waits for the ones before it: it may have more to do than to wait.
    #[tokio::test]
    async fn whoever_is_behind_goes_on_while_the_oldest_waits() {
        let mut in_order = InOrder::default();
        let (release, released) = oneshot::channel::<()>();
        in_order
            .begin(async move {
                released.await.expect("it is released");
            })
            .await;
        in_order
            .begin(async move {
                tokio::task::yield_now().await;
                release.send(()).expect("it is awaited");
            })
            .await;
        assert_eq!(in_order.next().await, Some(()));
        assert_eq!(in_order.next().await, Some(()));
    }
}
