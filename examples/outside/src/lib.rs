//! A stock of goods, replicated with kvrep.

use kvrep_core::{ApplyContext, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many there are of each article.
#[derive(Default)]
pub struct Stock(BTreeMap<String, u64>);

/// What changes the stock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// So many of an article came in.
    Deliver(String, u64),
    /// Takes so many of an article out, if there are.
    Take(String, u64),
}

/// What is asked of the stock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Query {
    /// How many there are of an article.
    Count(String),
    /// How many there are of all articles together.
    Total,
}

/// The answer to a command or query. That something is out of stock is an answer, not a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// So many there are (of this article, after a command).
    There(u64),
    /// Nothing was taken: only so many are there.
    Only(u64),
}

impl StateMachine for Stock {
    type Command = Command;
    type Query = Query;
    type Response = Response;
    type Snapshot = BTreeMap<String, u64>;

    fn apply(&mut self, _: &mut ApplyContext, command: Command) -> Response {
        match command {
            Command::Deliver(article, number) => {
                let there = self.0.entry(article).or_default();
                *there = there.saturating_add(number);
                Response::There(*there)
            }
            Command::Take(article, number) => {
                let there = self.0.get(&article).copied().unwrap_or_default();
                let Some(left) = there.checked_sub(number) else {
                    return Response::Only(there);
                };
                if left == 0 {
                    self.0.remove(&article);
                } else {
                    self.0.insert(article, left);
                }
                Response::There(left)
            }
        }
    }

    fn query(&self, query: Query) -> Response {
        Response::There(match query {
            Query::Count(article) => self.0.get(&article).copied().unwrap_or_default(),
            Query::Total => self.0.values().fold(0, |sum, n| sum.saturating_add(*n)),
        })
    }

    fn snapshot(&self) -> Self::Snapshot {
        self.0.clone()
    }

    fn restore(&mut self, state: Self::Snapshot) {
        self.0 = state;
    }
}
