//! [`ClientError`]: what became of an operation that has no answer.

/// How an operation failed; each says what was done.
///
/// ```
/// use kvrep_core::node::ClientError;
///
/// /// Whether the same command may be given again without fear of doing it twice.
/// fn nothing_was_done(error: &ClientError) -> bool {
///     matches!(error, ClientError::Unavailable { .. } | ClientError::TooLarge { .. })
/// }
/// assert!(nothing_was_done(&ClientError::Unavailable { last: "no primary".into() }));
/// assert!(!nothing_was_done(&ClientError::SessionExpired));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody took it before the deadline; or nobody ever will, as when every address is wrong or belongs to another group: then
    /// this comes at once. Nothing was done.
    #[error("nothing was done: no replica took the request ({last})")]
    Unavailable {
        /// What the last attempt met.
        last: String,
    },
    /// The command may have been carried out, or may still be; at most once.
    #[error("outcome unknown: no answer before the deadline ({last})")]
    Unknown {
        /// What the last attempt met.
        last: String,
    },
    /// The session expired between two attempts: whether the command was carried out cannot be told. The client goes
    /// on in a new session.
    #[error("outcome unknown: the session expired between two attempts")]
    SessionExpired,
    /// The group keeps fewer answers a session than the client's window asks for. Nothing was done.
    #[error(
        "nothing was done: the client's window is larger than the group's session_window; lower it"
    )]
    WindowTooLarge,
    /// The state machine does not know this command or query. Nothing was done.
    #[error("nothing was done: {0}")]
    Malformed(String),
    /// The group will not do what [`Client::manage`](super::Client::manage) asked for: why. Nothing was done, unless it says so.
    #[error("refused: {0}")]
    Refused(String),
    /// Larger than the group allows. Nothing was done.
    #[error("nothing was done: {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Carried out, but the response is larger than a reply may be.
    #[error("carried out, but the response of {bytes} bytes is too large to be sent")]
    ResponseTooLarge {
        /// Its size.
        bytes: u64,
    },
    /// Carried out, but the response is not one of this state machine's.
    #[error("carried out, but the response cannot be read: {0}; run the same version everywhere")]
    BadResponse(String),
}
