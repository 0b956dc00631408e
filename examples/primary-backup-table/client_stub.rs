//! The table as a client sees it: operations and their results. Which server answers is not its business.

use super::message::{Content, Message, opcode};
use super::network_client::{NetworkClient, NoAnswer};
use bytes::Bytes;

/// A remote table.
pub struct ClientStub(NetworkClient);

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It succeeded.
    Done(T),
    /// The table could not do it: the key exists, there is no such key, or the server failed.
    Failed,
}

impl ClientStub {
    /// A table by way of this client.
    #[must_use]
    pub fn new(network: NetworkClient) -> Self {
        Self(network)
    }

    /// The way to the servers.
    #[must_use]
    pub fn network(&self) -> &NetworkClient {
        &self.0
    }

    /// Stores data under a key.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn put(&mut self, key: Bytes, data: Bytes) -> Result<Outcome<()>, NoAnswer> {
        self.write(opcode::PUT, entry(key, data)).await
    }

    /// Stores data under a key that is new.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn cond_put(&mut self, key: Bytes, data: Bytes) -> Result<Outcome<()>, NoAnswer> {
        self.write(opcode::COND_PUT, entry(key, data)).await
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn del(&mut self, key: Bytes) -> Result<Outcome<()>, NoAnswer> {
        self.write(opcode::DEL, Content::Key(key)).await
    }

    /// The data under a key.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn get(&mut self, key: Bytes) -> Result<Outcome<Option<Bytes>>, NoAnswer> {
        Ok(match self.ask(opcode::GET, Content::Key(key)).await? {
            Content::Value(data) if data.is_empty() => Outcome::Done(None),
            Content::Value(data) => Outcome::Done(Some(data)),
            _ => Outcome::Failed,
        })
    }

    /// The number of entries.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn size(&mut self) -> Result<Outcome<i32>, NoAnswer> {
        Ok(match self.ask(opcode::SIZE, Content::Result(0)).await? {
            Content::Result(entries) if entries >= 0 => Outcome::Done(entries),
            _ => Outcome::Failed,
        })
    }

    /// All keys. Where they are more than one answer holds, they are read in pieces: a key that is written or removed meanwhile may or may not be
    /// among them, and every other one is there once.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn get_keys(&mut self) -> Result<Outcome<Vec<Bytes>>, NoAnswer> {
        if let Content::Keys(keys) = self.ask(opcode::GET_KEYS, Content::Result(0)).await? {
            return Ok(Outcome::Done(keys));
        }
        // So do some servers tell an empty list, and ours one that is too long.
        match self.size().await? {
            Outcome::Done(0) => Ok(Outcome::Done(Vec::new())),
            Outcome::Done(_) => self.keys_in_pieces().await,
            Outcome::Failed => Ok(Outcome::Failed),
        }
    }

    async fn keys_in_pieces(&mut self) -> Result<Outcome<Vec<Bytes>>, NoAnswer> {
        let (mut keys, mut behind) = (Vec::new(), Content::Result(0));
        loop {
            let Content::Keys(more) = self.ask(opcode::KEYS_AFTER, behind).await? else {
                return Ok(Outcome::Failed);
            };
            let Some(last) = more.last() else {
                return Ok(Outcome::Done(keys));
            };
            // Whoever goes round in circles is not listened to for ever.
            if keys.last().is_some_and(|before| before >= last) {
                return Ok(Outcome::Failed);
            }
            behind = Content::Key(last.clone());
            keys.extend(more);
        }
    }

    async fn write(&mut self, code: i16, content: Content) -> Result<Outcome<()>, NoAnswer> {
        Ok(match self.ask(code, content).await? {
            Content::Result(0) => Outcome::Done(()),
            _ => Outcome::Failed,
        })
    }

    /// What the reply carries; every failure as −1.
    async fn ask(&mut self, code: i16, content: Content) -> Result<Content, NoAnswer> {
        let reply = self.0.send_receive(&Message::new(code, content)).await?;
        Ok(match reply.opcode {
            opcode::RT_ERROR => Content::Result(-1),
            _ => reply.content,
        })
    }
}

fn entry(key: Bytes, data: Bytes) -> Content {
    Content::Entry {
        timestamp: 0,
        key,
        data,
    }
}
