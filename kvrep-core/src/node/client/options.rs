//! [`ClientOptions`]: how patient a client is.

use std::time::Duration;

/// How patient a client is.
///
/// ```
/// use kvrep_core::node::ClientOptions;
/// use std::time::Duration;
///
/// let patient = ClientOptions::default().deadline(Duration::from_secs(60)); // rather wait than not know
/// assert_eq!(patient.deadline, Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// How long an operation may take, retries included (default 5 s).
    pub deadline: Duration,
    /// How long one attempt waits for an answer before another replica is tried (default 400 ms); doubles with every
    /// attempt that was not answered. Longer than the group's `Timing::suspect_after`, so that a primary that waits for
    /// a stopped backup has dropped it, and answers, before it is given up. A read that any replica may answer
    /// ([`Read::Local`](crate::Read::Local), [`Read::AtLeast`](crate::Read::AtLeast)) begins with an eighth of it.
    pub attempt: Duration,
    /// Commands under way at once in the session (default 1,024); more wait. At most the group's
    /// `Limits::session_window`.
    pub window: u64,
}

impl ClientOptions {
    /// Sets how long an operation may take, retries included.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how long one attempt waits for an answer at first.
    #[must_use]
    pub fn attempt(mut self, attempt: Duration) -> Self {
        self.attempt = attempt;
        self
    }

    /// Sets how many commands may be under way at once in the session.
    #[must_use]
    pub fn window(mut self, commands: u64) -> Self {
        self.window = commands;
        self
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            attempt: Duration::from_millis(400),
            window: crate::config::Limits::default().session_window,
        }
    }
}
