//! A counter that survives the crash of a replica.

use kvrep_core::{Fold, Node, Read, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpTransport, connect};

/// The state is a number, and so is a command.
type Counter = Fold<i64, i64>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addresses = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"];
    let members = [1, 2, 3].map(ReplicaId);
    let mut replicas = Vec::new();
    for (me, address) in members.into_iter().zip(addresses) {
        let tcp = TcpConfig::new(address).peers(members.into_iter().zip(addresses));
        let replica = Node::builder("counter", me)
            .members(members)
            .transport(TcpTransport::new(tcp))
            .state_machine(Counter::new(0, |counter, amount| *counter += amount));
        replicas.push(replica.start().await?);
    }

    let client = connect::<Counter>("counter", addresses);
    client.execute(40).await?; // Every live replica has it now.
    drop(replicas.remove(0)); // One crashes; the other two go on.
    client.execute(2).await?;
    println!("{}", client.query(Read::Linearizable, ()).await?);
    Ok(())
}
