//! When the runner wakes, and whether it then waits for more.

use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Duration, Instant, Sleep};

/// A timer that is only touched when it must ring earlier, or has rung: most deadlines move back before they come.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
        }
    }

    pub(super) fn set(&mut self, at: Option<Instant>) {
        if let Some(at) = at
            && self.armed.is_none_or(|armed| at < armed)
        {
            self.sleep.as_mut().reset(at);
            self.armed = Some(at);
        }
    }

    /// Rings at the time it is set to, or a little early; never when it is not set.
    pub(super) fn poll_ring(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.armed.is_none() {
            return Poll::Pending;
        }
        let rung = self.sleep.as_mut().poll(context);
        if rung.is_ready() {
            self.armed = None;
        }
        rung
    }
}

/// Whether to let others run before looking into the queues.
///
/// The first of many clients to write wakes this task, and tokio would run it next: with a batch of one. Standing back
/// lets the others queue, and one batch serves all; but a lone client would only wait longer. So it is tried now and
/// then, and kept up as long as it brings something. Standing back once lets tokio run no more than its event interval
/// (61 tasks), so it is done again while requests keep coming, for [`GATHER_TIME_MAX`] at most: other tasks of the
/// runtime may take long.
#[derive(Default)]
pub(super) struct Gathering {
    worth_it: bool,
    wakes: u32,
    until: Option<Instant>,
}

impl Gathering {
    pub(super) fn is_worth_it(&mut self) -> bool {
        self.wakes = self.wakes.wrapping_add(1);
        self.worth_it || self.wakes.is_multiple_of(GATHER_TRY_EVERY)
    }

    pub(super) fn begin(&mut self) {
        self.until = Some(Instant::now() + GATHER_TIME_MAX);
    }

    pub(super) fn has_time(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn gathered(&mut self, more: usize) {
        self.worth_it = more > 0;
    }
}

/// How many wake-ups there are between two tries to gather more.
const GATHER_TRY_EVERY: u32 = 32;
/// How long requests are gathered at most before they are proposed.
const GATHER_TIME_MAX: Duration = Duration::from_millis(1);
