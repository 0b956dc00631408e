//! Three replicas of the stock over TCP; the primary is lost, and nothing else.

use kvrep_core::{Node, Read, ReplicaId};
use kvrep_transport_tcp::{TcpConfig, TcpTransport, connect};
use outside::{Command, Query, Response, Stock};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const GROUP: &str = "stock";
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts three on free ports; also tells where they are.
async fn three() -> (Vec<Node>, Vec<String>) {
    let members = [1, 2, 3].map(ReplicaId);
    let mut transports = Vec::new();
    for _ in members {
        let transport = TcpTransport::bind(TcpConfig::new("127.0.0.1:0")).await;
        transports.push(transport.unwrap());
    }
    let addresses: Vec<String> = transports
        .iter()
        .map(|transport| transport.local_addr().unwrap().to_string())
        .collect();
    let mut nodes = Vec::new();
    for (me, transport) in members.into_iter().zip(transports) {
        for (peer, address) in members.into_iter().zip(&addresses) {
            transport.add_peer(peer, address);
        }
        let node = Node::builder(GROUP, me)
            .members(members)
            .transport(transport)
            .state_machine(Stock::default());
        nodes.push(node.start().await.unwrap());
    }
    (nodes, addresses)
}

/// The position of the one that says it serves; what a node says of itself is a few milliseconds old.
async fn primary(nodes: &[Node]) -> usize {
    let found = async {
        loop {
            let serving = |node: &Node| node.status().protocol.serving;
            if let Some(primary) = nodes.iter().position(serving) {
                return primary;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, found).await.expect("nobody serves")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_survives_the_loss_of_its_primary() {
    let (mut nodes, addresses) = three().await;
    let client = connect::<Stock>(GROUP, addresses);
    for number in 1..=50 {
        let article = format!("article {}", number % 10);
        let delivered = client.execute(Command::Deliver(article, number)).await;
        assert!(matches!(delivered, Ok(Response::There(_))), "{delivered:?}");
    }
    let lost = primary(&nodes).await;
    drop(nodes.remove(lost));

    let taken = |number| client.execute(Command::Take("article 3".into(), number));
    assert_eq!(taken(115).await.unwrap(), Response::There(0));
    assert_eq!(taken(1).await.unwrap(), Response::Only(0));
    let total = client.query(Read::Linearizable, Query::Total).await;
    assert_eq!(total.unwrap(), Response::There(50 * 51 / 2 - 115));
    let count = Query::Count("article 4".into());
    let own_writes = Read::AtLeast(client.token());
    let count = client.query(own_writes, count).await;
    assert_eq!(count.unwrap(), Response::There(4 + 14 + 24 + 34 + 44));

    let equal = async {
        while nodes[0].digest().await != nodes[1].digest().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, equal).await.expect("they never agree");
}
