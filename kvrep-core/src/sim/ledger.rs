//! The ledger: wrapped around the state machine under test, it knows which commands were carried out, and how often.
//!
//! Every command that a simulated client sends is preceded by its number. The ledger takes it off, refuses nothing, and
//! notes whether it has seen it; its notes are part of every snapshot. It also chains a digest over everything that
//! was carried out and answered, so that two machines that were told the same and did otherwise are found at once,
//! whatever the machine under test can say of itself.

use crate::id::Index;
use crate::random::Rng;
use crate::state_machine::{ApplyContext, FrozenState, Malformed, RawStateMachine};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A command's number in the run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId {
    /// The client.
    pub client: u32,
    /// Its how-manieth command, from 0.
    pub number: u32,
}

impl CommandId {
    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.client) << 32 | u64::from(self.number)
    }

    fn from_u64(id: u64) -> Self {
        Self {
            client: u32::try_from(id >> 32).unwrap_or(u32::MAX),
            number: u32::try_from(id & 0xffff_ffff).unwrap_or(u32::MAX),
        }
    }
}

/// What a ledger lets be seen from outside while an engine owns it.
#[derive(Debug, Default)]
pub(super) struct Window {
    digest: AtomicU64,
    double: AtomicU64,
}

impl Window {
    /// Chained over everything carried out.
    pub(super) fn digest(&self) -> u64 {
        self.digest.load(Relaxed)
    }

    /// A command that was carried out twice, if there is one.
    pub(super) fn double(&self) -> Option<CommandId> {
        match self.double.load(Relaxed) {
            0 => None,
            id => Some(CommandId::from_u64(id - 1)),
        }
    }
}

pub(super) struct Ledger {
    inner: Box<dyn RawStateMachine>,
    /// For each client, the index at which each of its commands was carried out; 0: not.
    carried_out: BTreeMap<u32, Vec<u64>>,
    window: Arc<Window>,
}

impl Ledger {
    pub(super) fn new(inner: Box<dyn RawStateMachine>, window: Arc<Window>) -> Self {
        Self {
            inner,
            carried_out: BTreeMap::new(),
            window,
        }
    }

    /// A command (or the answer to it) with its number in front.
    pub(super) fn wrap_command(id: CommandId, command: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(8 + command.len());
        out.put_u64(id.to_u64());
        out.put_slice(command);
        out.freeze()
    }

    /// Takes the answer to a command apart: to which, and what the machine said.
    pub(super) fn unwrap_answer(answer: &[u8]) -> Option<(CommandId, &[u8])> {
        let (id, said) = answer.split_first_chunk::<8>()?;
        Some((CommandId::from_u64(u64::from_be_bytes(*id)), said))
    }

    /// The query as clients send it.
    pub(super) fn wrap_query(query: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + query.len());
        out.put_u8(0);
        out.put_slice(query);
        out.freeze()
    }

    /// The number of a command that nobody sent.
    pub(super) const DISTURBANCE: u64 = u64::MAX;

    /// The query that is answered by [`Ledger::page`].
    pub(super) const ASK: [u8; 1] = [1];

    /// Reads the answer to [`Ledger::ASK`].
    pub(super) fn page(answer: &[u8]) -> Result<BTreeMap<u32, Vec<u64>>, Malformed> {
        crate::state_machine::decode(answer)
    }

    fn note(&mut self, id: u64, index: Index) {
        let CommandId { client, number } = CommandId::from_u64(id);
        let numbers = self.carried_out.entry(client).or_default();
        let at = number as usize;
        if numbers.len() <= at {
            numbers.resize(at + 1, 0);
        }
        if numbers[at] == 0 {
            numbers[at] = index.0;
        } else {
            self.window.double.store(id + 1, Relaxed);
        }
    }

    fn chain(&self, words: [u64; 2]) {
        let mut h = Rng::new(self.window.digest() ^ words[0]).next();
        h = Rng::new(h ^ words[1]).next();
        self.window.digest.store(h, Relaxed);
    }
}

impl RawStateMachine for Ledger {
    fn apply(&mut self, context: &mut ApplyContext, command: &[u8]) -> Result<Bytes, Malformed> {
        let Some((id, command)) = command.split_first_chunk::<8>() else {
            return Err(Malformed("a command without its number".into()));
        };
        let id = u64::from_be_bytes(*id);
        if id == Self::DISTURBANCE {
            return self.inner.apply(context, command);
        }
        self.note(id, context.index);
        let index = context.index.0;
        let answer = self.inner.apply(context, command);
        let said = match &answer {
            Ok(bytes) => xxhash_rust::xxh3::xxh3_64(bytes),
            Err(Malformed(why)) => !xxhash_rust::xxh3::xxh3_64(why.as_bytes()),
        };
        self.chain([id ^ index.rotate_left(40), said]);
        // The client must be able to tell whose answer it got.
        answer.map(|bytes| Self::wrap_command(CommandId::from_u64(id), &bytes))
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, Malformed> {
        match query.split_first() {
            Some((0, query)) => self.inner.query(query),
            Some((1, [])) => Ok(crate::state_machine::encode(&self.carried_out)),
            _ => Err(Malformed("a query without its kind".into())),
        }
    }

    fn freeze(&self) -> FrozenState {
        let head = (self.window.digest(), self.carried_out.clone());
        let inner = self.inner.freeze();
        Box::new(move |out| {
            let head = postcard::to_stdvec(&head).map_err(io::Error::other)?;
            out.write_all(&(head.len() as u64).to_be_bytes())?;
            out.write_all(&head)?;
            inner(out)
        })
    }

    fn restore(&mut self, state: &mut dyn Read) -> io::Result<()> {
        let mut length = [0; 8];
        state.read_exact(&mut length)?;
        let mut head = Vec::new();
        state
            .take(u64::from_be_bytes(length))
            .read_to_end(&mut head)?;
        let (digest, carried_out) = postcard::from_bytes(&head)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        self.inner.restore(state)?;
        self.carried_out = carried_out;
        self.window.digest.store(digest, Relaxed);
        Ok(())
    }

    fn digest(&self) -> Option<u64> {
        self.inner.digest()
    }
}
