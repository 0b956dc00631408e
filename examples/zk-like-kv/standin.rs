//! In the place of a follower that is gone for good, until the leader serves and can give that place to another.
//!
//! A leader that was started again has nothing, and begins only when all that belong are heard: one who is missing could have writes that
//! nobody else has. Where the operator says that a follower does not return (`--no-lugar-de`), nobody can have them any more; and as every acknowledged write is on
//! all three, the other follower has all of those. So the leader itself plays the missing one, with nothing, as if it had been started again with an empty memory: the
//! group then begins with what the other follower has, and the ordinary replacement follows.
//!
//! Invariants: it is played only while nobody answers at its address, and only until the leader serves. Timestamps that only the missing one
//! may have shown are left out with those of the leader's earlier life.
//!
//! Caveat: a follower that is stopped (SIGSTOP) does not answer either. Should it go on, it finds that another one runs under its name, and ends.

use super::codec::JsonLines;
use super::failures::of_io;
use super::recent::Recent;
use super::server::{GROUP, group};
use super::table::Table;
use super::trio::Trio;
use kvrep_core::node::Node;
use kvrep_transport_tcp::{TcpConfig, TcpTransport};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Plays this follower of the three, from the leader's process.
///
/// # Errors
/// Why not, in words for the operator.
pub async fn stand_in(trio: &Trio, dead: SocketAddr) -> Result<Node, String> {
    let [leader, ..] = trio.servers();
    let id = trio
        .id_of(dead)
        .filter(|_| dead != leader)
        .ok_or_else(|| format!("{dead} não é um dos seguidores"))?;
    // Any port: the others are told which.
    let listener = TcpListener::bind((leader.ip(), 0)).await;
    let listener = listener.map_err(|error| of_io(&error))?;
    let at = listener.local_addr().map_err(|error| of_io(&error))?;
    let others = trio.members().filter(|(_, at)| *at != dead);
    let config = TcpConfig::new(at.to_string())
        .peers(others.map(|(id, at)| (id, at.to_string())))
        .codec(Arc::new(JsonLines::new(Arc::new(Recent::silent()))));
    let line = TcpTransport::from_listener(config, listener).map_err(|error| error.to_string())?;
    let builder = Node::builder(GROUP, id)
        .group(group(trio))
        .transport(line)
        .state_machine(Table::default());
    builder.start().await.map_err(|error| error.to_string())
}
