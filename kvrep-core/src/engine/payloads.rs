//! The payloads of a batch of commands.

use crate::session::Envelope;
use bytes::{Bytes, BytesMut};

/// Makes the payloads of a batch in memory that they share: small commands do not cost an allocation each. They leave
/// the log together, or nearly so, and nothing else keeps them.
pub(super) struct Payloads {
    room: BytesMut,
    to_come: usize,
}

impl Payloads {
    pub(super) fn for_about(commands: usize) -> Self {
        Self {
            room: BytesMut::new(),
            to_come: commands,
        }
    }

    pub(super) fn encode(&mut self, command: &Envelope) -> Bytes {
        let bytes = Envelope::BYTES_MAX + command.command_bytes();
        if bytes > SHARED_BYTES_MAX / 8 {
            return command.encode();
        }
        if self.room.capacity() < bytes {
            let wanted = bytes * self.to_come.max(1);
            self.room = BytesMut::with_capacity(wanted.min(SHARED_BYTES_MAX));
        }
        self.to_come = self.to_come.saturating_sub(1);
        command.encode_to(&mut self.room);
        self.room.split().freeze()
    }
}

/// How much memory payloads share at most.
const SHARED_BYTES_MAX: usize = 16 << 10;
