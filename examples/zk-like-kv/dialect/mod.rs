//! How a request is read and an answer written: in the fields of `Mensagem`, or in one of two other dialects that clients
//! may use.
//!
//! Programs that others wrote put everything into `conteudo`, or name the kind `command`. Whoever asks in a dialect is answered in
//! it. `request` reads, `answer` writes, `timestamp` knows how differently a number may be written.
//!
//! Caveat: replication between servers has a dialect of its own ([`codec`](super::codec)); servers that others wrote cannot join.

mod answer;
mod request;
mod timestamp;

pub use answer::write_answer;
pub use request::read_request;
pub(super) use timestamp::lenient_timestamp;

use super::framing::MESSAGE_BYTES_MAX;

/// How whoever asks speaks, and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The fields of [`Mensagem`](super::message::Mensagem).
    Mensagem,
    /// `{"tipo":…,"conteudo":[…]}`.
    Conteudo,
    /// `{"command":…,"key":…,…}`.
    Command,
}

/// Key and value of a write together, as they are written in JSON. Everything else in a message fits into the rest.
pub const KEY_AND_VALUE_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (4 << 10);

#[cfg(test)]
mod tests;
