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
    let me = node.identity().replica;
    until(node, within, |status| {
        let protocol = &status.protocol;
        let known = protocol.configuration.as_ref();
        protocol.primary.is_some() && known.is_some_and(|c| c.has(me, protocol.store))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary_backup_table::policy::{FIRST, GROUP, group};
    use crate::primary_backup_table::table::{Command, Table};
    use kvrep_core::node::{Client, LocalLink};
    use kvrep_core::protocol::passive::Join;
    use kvrep_core::transport::memory::MemoryNetwork;
    use kvrep_core::{Authority, GroupConfig, Read, ReplicaId};

    const WITHIN: Duration = Duration::from_secs(60);

    /// The pair, with frames that fit the network in memory.
    fn small() -> GroupConfig {
        let mut pair = group([FIRST], Authority::Alone);
        pair.limits.command_bytes_max = 1 << 20;
        pair.limits.frame_bytes_max = 2 << 20;
        pair
    }

    /// R1.32, C1.5: `hello` fails while nobody hears it; then both succeed, however often they are said.
    #[tokio::test]
    async fn hello_is_done_when_it_was_heard_and_update_state_when_the_table_is_here() {
        let network = MemoryNetwork::new();
        let second = Node::builder(GROUP, ReplicaId(2))
            .group(small())
            .join(Join::full())
            .transport(network.transport())
            .state_machine(Table::default())
            .start();
        let second = second.await.expect("it starts");
        let brief = Duration::from_millis(20);
        assert_eq!(hello(&second, brief).await, Err(NotDone));
        assert_eq!(update_state(&second, brief).await, Err(NotDone));
        let first = Node::builder(GROUP, FIRST)
            .group(small())
            .transport(network.transport())
            .state_machine(Table::default())
            .start();
        let first = first.await.expect("it starts");
        let client = Client::<Table>::new(LocalLink::new([&first]));
        let (key, data) = ("k".into(), "v".into());
        let put = client.execute(Command::Put { key, data }).await;
        put.expect("it takes writes");
        for _ in 0..2 {
            assert_eq!(hello(&second, WITHIN).await, Ok(()));
            assert_eq!(update_state(&second, WITHIN).await, Ok(()));
        }
        let entries = |table: &Table| table.entries().count();
        let newest = Read::AtLeast(client.token());
        let (seen, _) = second.read_local(newest, entries).await.expect("it reads");
        assert_eq!(seen, 1);
    }
}
