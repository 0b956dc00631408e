//! What stands in for a part that a node has none of.

use crate::id::ReplicaId;
use crate::state_machine::{ApplyContext, FrozenState, Malformed, RawStateMachine};
use crate::transport::{
    Capabilities, Destination, Inbox, LocalPeer, Order, Transport, TransportCounters,
    TransportError,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::io::{self, Read};

/// The state machine of a witness: there is none.
pub(super) struct Nothing;

impl RawStateMachine for Nothing {
    fn apply(&mut self, _: &mut ApplyContext, _: &[u8]) -> Result<Bytes, Malformed> {
        Err(Malformed("a witness keeps no data".into()))
    }

    fn query(&self, _: &[u8]) -> Result<Bytes, Malformed> {
        Err(Malformed("a witness keeps no data".into()))
    }

    fn freeze(&self) -> FrozenState {
        Box::new(|_| Ok(()))
    }

    fn restore(&mut self, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }

    fn digest(&self) -> Option<u64> {
        None
    }
}

/// The transport of a group of one.
pub(super) struct Nowhere;

#[async_trait]
impl Transport for Nowhere {
    async fn start(&self, _: LocalPeer, _: Inbox) -> Result<(), TransportError> {
        Ok(())
    }

    fn send(&self, _: Destination, _: Bytes) {}

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            order: Order::None,
            native_group: false,
            frame_bytes_max: usize::MAX,
        }
    }

    fn address_of(&self, _: ReplicaId) -> Option<String> {
        None
    }

    fn counters(&self) -> TransportCounters {
        TransportCounters::default()
    }

    async fn close(&self) {}
}
