//! Entries on their way to a peer, before they are put into a frame.

use crate::entry::{Entry, Run};
use crate::wire::{self, FrameKind, HEADER_BYTES};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// A peer frame in two parts: what a message says, and the entries that follow it.
///
/// Where both ends are in one process the entries need not be encoded, copied and hashed again: the receiver takes over
/// the sender's memory. Everywhere else it becomes a [`frame`](Self::frame) like any other.
///
/// Caveat: replicas that share entries share their damage, too, if the memory rots; states are compared all the same.
///
/// ```
/// use kvrep_core::transport::Shipment;
/// use kvrep_core::wire::{FrameKind, own_body};
/// use kvrep_core::{Entry, EntryKind, LogPoint, ReplicaId, Run, Term, Timestamp};
///
/// let term = Term::ZERO.next_for(ReplicaId(1));
/// let entry = Entry::following(LogPoint::ZERO, term, Timestamp(0), 0, EntryKind::Noop, "".into());
/// let shipment = Shipment::new("envelope and message".into(), Run::from(vec![entry.clone()]));
/// assert_eq!(shipment.entries().first(), Some(&entry));
///
/// let frame = shipment.frame();
/// assert_eq!(frame.len(), shipment.frame_bytes());
/// assert!(own_body(&frame, FrameKind::Peer).unwrap().starts_with(b"envelope and message"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Shipment {
    head: Bytes,
    entries: Run,
}

impl Shipment {
    /// What a message says (with its envelope), and the entries that follow.
    #[must_use]
    pub fn new(head: Bytes, entries: Run) -> Self {
        Self { head, entries }
    }

    /// The body of its frame, but for the entries.
    #[must_use]
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &Run {
        &self.entries
    }

    /// Both parts.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, Run) {
        (self.head, self.entries)
    }

    /// The size of its frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        let entries: usize = self.entries.iter().map(Entry::encoded_bytes).sum();
        HEADER_BYTES + self.head.len() + entries
    }

    /// The whole frame.
    ///
    /// # Panics
    /// When it is larger than 4 GiB.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        EncodedRun::default().frame(self)
    }

    /// The body of its frame: what a receiver gets that takes no shipments.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.frame_bytes() - HEADER_BYTES);
        body.put_slice(&self.head);
        encode_entries(&self.entries, &mut body);
        body.freeze()
    }
}

impl fmt::Debug for Shipment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, entries) = (self.head.len(), self.entries.len());
        write!(f, "Shipment({head} bytes, {entries} entries)")
    }
}

/// Appends the encoding of entries.
pub(crate) fn encode_entries(entries: &[Entry], out: &mut BytesMut) {
    out.reserve(entries.iter().map(Entry::encoded_bytes).sum());
    for entry in entries {
        entry.encode(out);
    }
}

/// The run that was shipped last, encoded: peers that are equally far get the same bytes.
#[derive(Debug, Default)]
pub(crate) struct EncodedRun {
    of: Run,
    /// At most about half a frame; its memory is kept for the next run.
    bytes: BytesMut,
}

impl EncodedRun {
    /// See [`Shipment::frame`].
    pub(crate) fn frame(&mut self, shipment: &Shipment) -> Bytes {
        let Shipment { head, entries } = shipment;
        if !self.of.is_same(entries) {
            self.of = entries.clone();
            self.bytes.clear();
            encode_entries(entries, &mut self.bytes);
        }
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + head.len() + self.bytes.len());
        let start = wire::begin_frame(&mut frame, FrameKind::Peer);
        frame.put_slice(head);
        frame.put_slice(&self.bytes);
        wire::end_frame(&mut frame, start);
        frame.freeze()
    }
}
