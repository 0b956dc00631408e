//! What was measured: a line for each row as it comes, or one JSON object at the end.

use kvrep_benches::load::{Sample, millis, row};
use serde::Serialize;

pub(crate) enum Report {
    Table,
    Json(Vec<Section>),
}

#[derive(Serialize)]
pub(crate) struct Section {
    measured: String,
    rows: Vec<Row>,
}

/// Times in milliseconds.
#[derive(Serialize)]
struct Row {
    what: String,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of the row before it that it stands beside.
    share: Option<f64>,
    messages_per_entry: Option<f64>,
}

impl Report {
    /// What the next rows are about.
    pub(crate) fn section(&mut self, measured: &str) {
        match self {
            Self::Table => println!("{measured}"),
            Self::Json(sections) => sections.push(Section {
                measured: measured.to_owned(),
                rows: Vec::new(),
            }),
        }
    }

    pub(crate) fn row(&mut self, what: &str, sample: &Sample, beside: Option<&Sample>) {
        self.batched(what, sample, beside, None);
    }

    /// A row of what goes into a log, with how many messages one of its entries has.
    pub(crate) fn batched(
        &mut self,
        what: &str,
        sample: &Sample,
        beside: Option<&Sample>,
        messages_per_entry: Option<f64>,
    ) {
        match self {
            Self::Table => {
                let batch = messages_per_entry.map_or_else(String::new, |batch| {
                    format!("   {batch:.1} messages an entry")
                });
                println!("{}{batch}", row(what, sample, beside));
            }
            Self::Json(sections) => {
                if let Some(section) = sections.last_mut() {
                    section.rows.push(Row {
                        what: what.to_owned(),
                        per_s: sample.per_s,
                        p50_ms: millis(sample.p50),
                        p99_ms: millis(sample.p99),
                        share: beside.map(|beside| sample.per_s / beside.per_s),
                        messages_per_entry,
                    });
                }
            }
        }
    }

    pub(crate) fn end(self) -> Result<(), String> {
        if let Self::Json(sections) = self {
            let json = serde_json::to_string_pretty(&sections);
            println!("{}", json.map_err(|error| error.to_string())?);
        }
        Ok(())
    }
}
