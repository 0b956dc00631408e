//! Who waits for which answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

#[derive(Default)]
pub(crate) struct Pending {
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    next: AtomicU64,
}

impl Pending {
    /// Sends, by a number, until that is answered: a datagram may be lost.
    pub(crate) async fn ask(&self, send: impl Fn(u64)) -> Result<(), String> {
        for _ in 0..ATTEMPTS {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let (answer, answered) = oneshot::channel();
            self.lock().insert(number, answer);
            send(number);
            if timeout(PATIENCE, answered).await.is_ok() {
                return Ok(());
            }
            self.lock().remove(&number);
        }
        Err(format!("no answer to any of {ATTEMPTS} datagrams"))
    }

    /// What begins with this number came back.
    pub(crate) fn answered(&self, bytes: &[u8]) {
        let Some(number) = bytes
            .first_chunk()
            .map(|number| u64::from_be_bytes(*number))
        else {
            return;
        };
        let answer = self.lock().remove(&number);
        if let Some(answer) = answer {
            let _ = answer.send(());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const ATTEMPTS: u32 = 20;
const PATIENCE: Duration = Duration::from_millis(100);
