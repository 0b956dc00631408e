//! One replica of the key-value store, as a process of its own.

use super::until_input_ends;
use crate::load::{GROUP, KeyValue};
use kvrep_core::{Authority, GroupConfig, Node, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpTransport};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(super) fn run(id: u32, peers: &[SocketAddr], data: Option<PathBuf>) -> Result<(), String> {
    // One thread: a process shares two cores with three others here, and a wake-up between threads is what a lone
    // client would wait for.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(serve(ReplicaId(id), peers, data))
}

async fn serve(id: ReplicaId, peers: &[SocketAddr], data: Option<PathBuf>) -> Result<(), String> {
    let addresses = (1..)
        .map(ReplicaId)
        .zip(peers.iter().map(SocketAddr::to_string));
    let addresses: std::collections::BTreeMap<_, _> = addresses.collect();
    let listen = addresses.get(&id).cloned().ok_or("no such replica")?;
    let mut group = GroupConfig::new(addresses.keys().copied(), Authority::Alone);
    // A busy machine is no failure here.
    group.timing.suspect_after = Duration::from_secs(5);
    let mut node = Node::builder(GROUP, id)
        .group(group)
        .transport(TcpTransport::new(TcpConfig::new(listen).peers(addresses)))
        .shutdown_within(Duration::from_secs(1))
        .state_machine(KeyValue::default());
    if let Some(data) = data {
        node = node.data_dir(data);
    }
    let node = node.start().await.map_err(|e| e.to_string())?;
    let told = tokio::task::spawn_blocking(until_input_ends);
    tokio::select! {
        // The others end at the same time: nobody is left to acknowledge what is under way.
        _ = told => node.shutdown().await.map_err(|e| e.to_string()),
        ended = node.wait() => ended.map_err(|e| e.to_string()),
    }
}
