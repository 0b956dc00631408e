//! What was measured, and how it is printed.

use crate::args::{Args, Section};
use crate::field::{self, Contestant, Side};
use crate::sample::Sample;
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// Everything that one run of this program measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) tables: Vec<Table>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Of the directory with the data.
    pub(crate) file_system: String,
}

/// One section.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) section: &'static str,
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Row>,
    pub(crate) ratios: Vec<Ratio>,
}

/// One contestant with one number of clients.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) clients: u32,
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    /// Threads of the runtime, where replicas and clients share one.
    pub(crate) workers: Option<u32>,
    pub(crate) conditions: &'static str,
    pub(crate) measured: Measured,
    #[serde(skip)]
    pub(crate) clients_max: u32,
}

/// The runs, or why there are none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measured {
    Runs(Vec<Sample>),
    Not(String),
}

/// A ratio of two medians.
#[derive(Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) clients: u32,
    pub(crate) ours: &'static str,
    pub(crate) theirs: &'static str,
    /// `None`: one of the two was not measured.
    pub(crate) measured: Option<f64>,
    pub(crate) wanted: f64,
    pub(crate) met: Option<bool>,
}

/// Median, smallest and largest of a row's runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Report {
    pub(crate) fn new(args: &Args, data: &Path, tables: Vec<Table>) -> Result<Self, String> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        Ok(Self {
            machine: Machine {
                cores: std::thread::available_parallelism().map_or(0, usize::from),
                kernel: kernel
                    .unwrap_or_else(|_| "unknown".into())
                    .trim()
                    .to_owned(),
                file_system: file_system_of(data),
            },
            rounds: args.rounds,
            seconds: args.seconds,
            tables,
        })
    }
}

impl Row {
    pub(crate) fn new(contestant: &Contestant, clients: u32, workers: Option<u32>) -> Self {
        Self {
            clients,
            name: contestant.name,
            side: contestant.side,
            workers,
            conditions: contestant.conditions,
            measured: Measured::Runs(Vec::new()),
            clients_max: contestant.clients_max,
        }
    }

    pub(crate) fn add(&mut self, sample: Sample) {
        if let Measured::Runs(runs) = &mut self.measured {
            runs.push(sample);
        }
    }

    /// Of one figure of its runs.
    pub(crate) fn spread(&self, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        let Measured::Runs(runs) = &self.measured else {
            return None;
        };
        let mut figures: Vec<f64> = runs.iter().map(figure).collect();
        figures.sort_unstable_by(f64::total_cmp);
        let middle = figures.len() / 2;
        Some(Spread {
            median: match figures.len() % 2 {
                0 => (figures.get(middle.checked_sub(1)?)? + figures[middle]) / 2.0,
                _ => figures[middle],
            },
            min: *figures.first()?,
            max: *figures.last()?,
        })
    }

    /// Who it is, and on how many threads.
    fn who(&self) -> String {
        match self.workers {
            Some(1) => format!("{}, 1 thread", self.name),
            Some(workers) => format!("{}, {workers} threads", self.name),
            None => self.name.to_owned(),
        }
    }

    pub(crate) fn per_s(&self) -> Option<Spread> {
        self.spread(|sample| sample.per_s)
    }
}

impl Table {
    pub(crate) fn new(section: Section, rows: Vec<Row>) -> Self {
        let mut table = Self {
            section: section.name(),
            title: field::title(section),
            rows: best_of_each(rows),
            ratios: Vec::new(),
        };
        for wanted in field::wanted(section) {
            if !table.rows.iter().any(|row| row.clients == wanted.clients) {
                continue;
            }
            let measured = table.ratio(wanted.ours, wanted.theirs, wanted.clients);
            table.ratios.push(Ratio {
                clients: wanted.clients,
                ours: wanted.ours,
                theirs: wanted.theirs,
                measured,
                wanted: wanted.at_least,
                met: measured.map(|ratio| ratio >= wanted.at_least),
            });
        }
        table
    }

    fn ratio(&self, ours: &str, theirs: &str, clients: u32) -> Option<f64> {
        let median = |name| {
            let mut rows = self.rows.iter();
            let row = rows.find(|row| row.name == name && row.clients == clients)?;
            row.per_s().map(|spread| spread.median)
        };
        Some(median(ours)? / median(theirs)?)
    }
}

/// Of the rows of one contestant with the same number of clients, the one whose number of threads served it best.
fn best_of_each(rows: Vec<Row>) -> Vec<Row> {
    let median = |row: &Row| row.per_s().map_or(0.0, |spread| spread.median);
    let mut best: Vec<Row> = Vec::new();
    for row in rows {
        let same = |other: &&mut Row| (other.name, other.clients) == (row.name, row.clients);
        match best.iter_mut().find(same) {
            Some(other) if median(other) < median(&row) => *other = row,
            Some(_) => {}
            None => best.push(row),
        }
    }
    best
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            cores,
            kernel,
            file_system,
        } = &self.machine;
        writeln!(
            f,
            "{cores} cores, Linux {kernel}, data on {file_system}; medians of {} turns of {} s, contestants in turn",
            self.rounds, self.seconds
        )?;
        self.tables
            .iter()
            .try_for_each(|table| write!(f, "\n{table}"))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        writeln!(
            f,
            "{:>7}  {:<26}{:>10}  {:<21}{:>9}{:>10}  what it promises",
            "clients", "who", "writes/s", "min – max", "p50 µs", "p99 µs"
        )?;
        for row in &self.rows {
            write!(f, "{:>7}  {:<26}", row.clients, row.who())?;
            let figures = (
                row.per_s(),
                row.spread(|sample| sample.p50_us),
                row.spread(|sample| sample.p99_us),
            );
            match (figures, &row.measured) {
                ((Some(per_s), Some(p50), Some(p99)), _) => writeln!(
                    f,
                    "{:>10}  {:<21}{:>9.1}{:>10.1}  {}",
                    grouped(per_s.median),
                    format!("{} – {}", grouped(per_s.min), grouped(per_s.max)),
                    p50.median,
                    p99.median,
                    row.conditions
                )?,
                (_, Measured::Not(why)) => writeln!(f, "not measured: {why}")?,
                (_, Measured::Runs(_)) => writeln!(f, "not measured")?,
            }
        }
        if !self.ratios.is_empty() {
            writeln!(
                f,
                "{:>7}  {:<25}{:>9}{:>9}  met",
                "clients", "ratio", "measured", "wanted"
            )?;
        }
        for ratio in &self.ratios {
            let name = format!("{} / {}", ratio.ours, ratio.theirs);
            let measured = ratio.measured.map_or("–".into(), |r| format!("{r:.2}"));
            let met = match ratio.met {
                Some(true) => "yes",
                Some(false) => "no",
                None => "not measured",
            };
            let wanted = format!("≥ {:.2}", ratio.wanted);
            writeln!(
                f,
                "{:>7}  {name:<25}{measured:>9}{wanted:>9}  {met}",
                ratio.clients
            )?;
        }
        Ok(())
    }
}

/// A whole number with its thousands set apart.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The type of the file system with this directory, as the system's table of mounts has it.
fn file_system_of(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut best = (0, "an unknown file system");
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(at), Some(kind)) = (words.next(), words.next())
            && dir.starts_with(at)
            && at.len() >= best.0
        {
            best = (at.len(), kind);
        }
    }
    match best.1 {
        "tmpfs" | "ramfs" => format!(
            "{} (memory: fsync costs nothing, so durable rows say nothing)",
            best.1
        ),
        kind => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ours: &[f64], theirs: &[f64]) -> Table {
        let row = |contestant: &Contestant, runs: &[f64]| {
            let mut row = Row::new(contestant, 64, None);
            for per_s in runs {
                row.add(Sample {
                    per_s: *per_s,
                    p50_us: 1.0,
                    p99_us: 2.0,
                });
            }
            row
        };
        let contestants = field::contestants(Section::TcpMemory);
        let rows = vec![row(&contestants[0], ours), row(&contestants[1], theirs)];
        Table::new(Section::TcpMemory, rows)
    }

    #[test]
    fn ratios_are_of_medians_and_say_whether_they_are_met() {
        let met = table(&[1.0, 200.0, 210.0], &[100.0, 99.0]);
        assert_eq!(met.ratios.len(), 1, "only what was measured: {met}");
        assert_eq!(met.ratios[0].met, Some(true), "{met}");
        assert_eq!(table(&[190.0], &[100.0]).ratios[0].met, Some(false));
        let absent = table(&[190.0], &[]);
        assert_eq!(absent.ratios[0].met, None);
        assert!(absent.to_string().contains("not measured"));
    }

    #[test]
    fn of_several_numbers_of_threads_the_best_median_counts() {
        let contestants = field::contestants(Section::InProcess);
        let rows = [(1, [5.0, 7.0, 100.0]), (2, [8.0, 9.0, 1.0])].map(|(workers, runs)| {
            let mut row = Row::new(&contestants[0], 64, Some(workers));
            for per_s in runs {
                let (p50_us, p99_us) = (1.0, 2.0);
                row.add(Sample {
                    per_s,
                    p50_us,
                    p99_us,
                });
            }
            row
        });
        let table = Table::new(Section::InProcess, rows.into());
        assert_eq!(table.rows.len(), 1);
        assert!(table.to_string().contains("kvrep, 2 threads"), "{table}");
    }

    #[test]
    fn thousands_are_set_apart() {
        let all = [0.4, 999.0, 1_000.0, 1_234_567.0].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "1,234,567"]);
    }
}
