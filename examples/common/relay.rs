//! A relay between two programs, which can be cut: a partition without privileges.
//!
//! A program is told the relay's address instead of the other's. While the relay is cut, connections stay open, new ones are
//! taken, and nothing gets through: what a network does that loses packets. What was under way arrives when it heals.

use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// What gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Everything.
    Both,
    /// Only what the one who connected says; no answers.
    Requests,
    /// Nothing.
    Nothing,
}

/// A relay to one address. Dropped, it ends, and its connections with it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    flow: watch::Sender<Flow>,
    task: AbortHandle,
}

impl Relay {
    /// A relay that listens on a free port of the loopback.
    ///
    /// # Errors
    /// When there is none.
    pub async fn to(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (flow, flows) = watch::channel(Flow::Both);
        let task = tokio::spawn(accept(listener, target, flows)).abort_handle();
        Ok(Self {
            address,
            flow,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What gets through from now on.
    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: String, flow: watch::Receiver<Flow>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(carry(stream, target.clone(), flow.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(near: TcpStream, target: String, flow: watch::Receiver<Flow>) {
    // Before anything may pass, nobody is called.
    let mut opened = flow.clone();
    if opened
        .wait_for(|flow| *flow != Flow::Nothing)
        .await
        .is_err()
    {
        return;
    }
    let Ok(far) = TcpStream::connect(&target).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let requests = pump(near_read, far_write, flow.clone(), |flow| {
        flow != Flow::Nothing
    });
    let answers = pump(far_read, near_write, flow, |flow| flow == Flow::Both);
    // Whoever closes does so both ways.
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    passes: fn(Flow) -> bool,
) {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        // An end does not get through either.
        if flow.wait_for(|flow| passes(*flow)).await.is_err() || read == 0 {
            return;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn nothing_gets_through_a_cut_and_everything_when_it_heals() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let relay = Relay::to(target).await.unwrap();
        let mut near = TcpStream::connect(relay.address()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let (mut at_far, mut at_near) = ([0; 3], [0; 3]);
        relay.set(Flow::Requests);
        near.write_all(b"one").await.unwrap();
        far.read_exact(&mut at_far).await.unwrap();
        far.write_all(b"two").await.unwrap();
        let answer = timeout(Duration::from_millis(50), near.read_exact(&mut at_near));
        assert!(answer.await.is_err());
        relay.set(Flow::Both);
        near.read_exact(&mut at_near).await.unwrap();
        assert_eq!((&at_far, &at_near), (b"one", b"two"));
    }
}
