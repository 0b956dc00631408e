//! Whether to look for more for a moment before sleeping.
//!
//! Waking a thread that sleeps takes the one who wakes it and the one who is woken several microseconds each, and tens
//! on a virtual machine whose core has gone idle. Where one client writes at a time, a write is a chain of such wakes,
//! and waits for little else. So whoever has just had something to do goes on looking for a moment, letting the other
//! tasks of its runtime and the other threads of its core run in between: what comes in that moment wakes nobody.
//!
//! It costs processor time, and is therefore only done while it pays: as long as most looks find something. When nobody
//! writes, or so little that the moment passes in vain, or others want the core, one sleeps as without it.
//!
//! Only on a single-threaded runtime: where there are several threads, one that looks keeps other tasks from it.

use std::pin::pin;
use std::task::{Context, Poll};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Duration;

/// Decides, look by look. A node has one, and whoever writes a link or a transport may have one for each connection. See
/// the [module](self).
///
/// ```
/// use kvrep_core::node::linger::Linger;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (say, mut heard) = tokio::sync::mpsc::channel(1);
/// tokio::spawn(async move { say.send("soon").await });
/// let mut linger = Linger::new();
/// assert_eq!(linger.on(heard.recv()).await, Some("soon"));
/// # }
/// ```
#[derive(Debug)]
pub struct Linger {
    allowed: bool,
    /// Grows with every look that found something, falls with every one in vain; at zero there is a rest.
    score: u32,
    /// So many more times it is not tried.
    rest: u32,
}

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Something came.
    Found,
    /// Nothing came.
    InVain,
    /// Others want this core: they ran for so long that sleeping would have been better.
    Crowded,
}

impl Linger {
    /// For the runtime that this is called in.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        Self::allowed(Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread)
    }

    fn allowed(allowed: bool) -> Self {
        Self {
            allowed,
            score: 1,
            rest: 0,
        }
    }

    /// Awaits `future`, for a moment without sleeping.
    pub async fn on<F: Future>(&mut self, future: F) -> F::Output {
        if !self.allowed {
            return future.await;
        }
        let mut future = pin!(future);
        let mut poll = |cx: &mut Context<'_>| future.as_mut().poll(cx);
        // What is there already says nothing about looking.
        let first = std::future::poll_fn(|cx| Poll::Ready(poll(cx))).await;
        if let Poll::Ready(output) = first {
            return output;
        }
        match self.look(&mut poll).await {
            Some(output) => output,
            None => std::future::poll_fn(poll).await,
        }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a moment of real time, also where the clock of the tasks stands still"
    )]
    async fn look<T>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        if !self.begins() {
            return None;
        }
        let begun = std::time::Instant::now();
        let mut now = begun;
        loop {
            tokio::task::yield_now().await;
            let polled = std::future::poll_fn(|cx| Poll::Ready(poll(cx))).await;
            if let Poll::Ready(output) = polled {
                self.ended(Ended::Found);
                return Some(output);
            }
            std::thread::yield_now();
            let before = std::mem::replace(&mut now, std::time::Instant::now());
            if now - before > CROWDED {
                self.ended(Ended::Crowded);
                return None;
            }
            if now - begun > MOMENT {
                self.ended(Ended::InVain);
                return None;
            }
        }
    }

    fn begins(&mut self) -> bool {
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        self.allowed
    }

    fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Found => self.score = (self.score + 1).min(SCORE_MAX),
            Ended::InVain => {
                self.score -= 1;
                if self.score == 0 {
                    (self.score, self.rest) = (1, REST);
                }
            }
            Ended::Crowded => (self.score, self.rest) = (1, REST_CROWDED),
        }
    }
}

/// How long a look takes at most: about what two wakes cost.
const MOMENT: Duration = Duration::from_micros(60);
/// Nobody who only answers a message runs for so long.
const CROWDED: Duration = Duration::from_micros(300);
/// How many looks in vain end a long row of good ones.
const SCORE_MAX: u32 = 8;
/// How often it is not tried after looks in vain.
const REST: u32 = 64;
/// How often it is not tried after others wanted the core.
const REST_CROWDED: u32 = 1_024;

impl Default for Linger {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many wakes are followed by a look that ends like this.
    fn looks(linger: &mut Linger, wakes: u32, ended: Ended) -> u32 {
        let look = |_: &u32| {
            let begins = linger.begins();
            if begins {
                linger.ended(ended);
            }
            begins
        };
        u32::try_from((0..wakes).filter(look).count()).unwrap()
    }

    #[test]
    fn it_is_done_as_long_as_it_pays_and_tried_now_and_then() {
        let mut linger = Linger::allowed(true);
        assert_eq!(looks(&mut linger, 1_000, Ended::Found), 1_000);
        let in_vain = looks(&mut linger, 1_000, Ended::InVain);
        assert!((SCORE_MAX..40).contains(&in_vain), "{in_vain}");
        assert!(looks(&mut linger, 1_000, Ended::Found) > 900);
        assert!(looks(&mut linger, 10_000, Ended::Crowded) <= 10);
        let mut never = Linger::allowed(false);
        assert_eq!(looks(&mut never, 1_000, Ended::Found), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_although_the_clock_of_the_tasks_stands_still() {
        let mut linger = Linger::new();
        for _ in 0..100 {
            let never = std::future::pending::<()>();
            let ended = tokio::time::timeout(Duration::from_secs(9), linger.on(never)).await;
            assert!(ended.is_err());
        }
        assert_eq!(linger.on(async { "there" }).await, "there");
    }
}
