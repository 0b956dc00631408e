//! `hello` and `update_state`: what a server that wakes does.
//!
//! Both are the library's: a replica that starts without the table asks the other one to be let in, again and again, over the
//! replicas' own framed connection on the same port (told from clients' by its first bytes), and the primary sends it
//! everything and then counts it. These two say when each of that is done.

use kvrep_core::node::{Node, NodeStatus};
use std::time::Duration;
use tokio::time::timeout;

/// The other server did not do it in time. The node goes on trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other server did not answer in time")]
pub struct NotDone;

/// Tells the current primary that this server woke: done when it has heard so, and knows of this server as its secondary.
/// Saying it twice, or while an update runs, changes nothing.
///
/// # Errors
/// [`NotDone`]: nobody has heard it yet.
pub async fn hello(node: &Node, within: Duration) -> Result<(), NotDone> {
    let me = node.identity().replica;
    until(node, within, |status| {
        let protocol = &status.protocol;
        let known = protocol.configuration.as_ref();
        protocol.primary.is_some() && known.is_some_and(|c| c.members.contains_key(&me))
    })
    .await
}

/// Asks the current primary for its table: done when this server has all of it in place of its own, and the primary has
/// marked it `UP`.
///
/// # Errors
/// [`NotDone`]: the update has not come to its end yet.
pub async fn update_state(node: &Node, within: Duration) -> Result<(), NotDone> {
    let (me, store) = (node.identity().replica, node.identity().store);
    until(node, within, |status| {
        let protocol = &status.protocol;
        let known = protocol.configuration.as_ref();
        protocol.primary.is_some() && known.is_some_and(|c| c.has(me, store))
    })
    .await
}

async fn until(
    node: &Node,
    within: Duration,
    done: impl Fn(&NodeStatus) -> bool,
) -> Result<(), NotDone> {
    let mut watch = node.watch();
    let reached = timeout(within, watch.wait_for(done)).await;
    match reached {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(NotDone),
    }
}
