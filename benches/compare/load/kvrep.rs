//! Clients of a group of kvrep processes, each with a connection and a session of its own.

use super::{Caller, Keys, Load, VALUE_BYTES};
use bytes::Bytes;
use kvrep_core::node::Client;
use kvrep_core::{ApplyContext, StateMachine};
use kvrep_transport_tcp::connect as connect_to;
use std::collections::{BTreeMap, HashMap};

/// The group's name.
pub(crate) const GROUP: &str = "compare";

/// Keys and values, in a hash table as Redis has them; a snapshot puts them in order.
#[derive(Default)]
pub(crate) struct KeyValue(HashMap<Bytes, Bytes>);

impl StateMachine for KeyValue {
    type Command = (Bytes, Bytes);
    type Query = Bytes;
    type Response = Option<Bytes>;
    type Snapshot = BTreeMap<Bytes, Bytes>;

    fn apply(&mut self, _: &mut ApplyContext, (key, value): (Bytes, Bytes)) -> Option<Bytes> {
        self.0.insert(key, value);
        None
    }

    fn query(&self, key: Bytes) -> Option<Bytes> {
        self.0.get(&key).cloned()
    }

    fn snapshot(&self) -> Self::Snapshot {
        let pairs = self.0.iter();
        pairs.map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    fn restore(&mut self, state: Self::Snapshot) {
        self.0 = state.into_iter().collect();
    }
}

/// The clients, each connected and with its session open.
pub(super) async fn connect(load: &Load) -> Result<Vec<Writer>, String> {
    let mut writers = Vec::new();
    for n in 0..load.clients {
        let client = connect_to::<KeyValue>(GROUP, load.at.clone());
        client.session().await.map_err(|e| e.to_string())?;
        writers.push(Writer {
            client,
            keys: Keys::of_client(n),
            value: Bytes::from(vec![b'v'; VALUE_BYTES]),
        });
    }
    Ok(writers)
}

pub(super) struct Writer {
    client: Client<KeyValue>,
    keys: Keys,
    value: Bytes,
}

impl Caller for Writer {
    async fn call(&mut self) -> Result<(), String> {
        let key = Bytes::copy_from_slice(&self.keys.next());
        let put = self.client.execute((key, self.value.clone()));
        put.await.map(drop).map_err(|e| e.to_string())
    }
}
