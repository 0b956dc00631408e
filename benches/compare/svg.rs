//! The report as a picture: a panel for each section, a bar for each row, with its range.
//!
//! Bars of one number of clients share a scale, for between one client and thousands lie orders of magnitude. Colours are those
//! of Okabe and Ito, told apart with every kind of colour vision; every bar is named, too.

use crate::field::Side;
use crate::report::{Report, Row, Table, grouped};
use std::fmt::{self, Write as _};

/// The picture.
pub(crate) fn of(report: &Report) -> String {
    let mut svg = String::new();
    write(&mut svg, report).expect("writing to a string does not fail");
    svg
}

fn write(out: &mut String, report: &Report) -> fmt::Result {
    let tables: f64 = report.tables.iter().map(height_of).sum();
    let height = HEAD + tables;
    let machine = &report.machine;
    let subtitle = escaped(&format!(
        "{} cores, Linux {}, data on {}; medians of {} turns of {} s, lines from the smallest to the largest",
        machine.cores, machine.kernel, machine.file_system, report.rounds, report.seconds
    ));
    writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="12" fill="#333">
<title>Acknowledged writes a second, kvrep beside its peers</title>
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="20" y="30" font-size="18" font-weight="600" fill="#111">Acknowledged writes a second, kvrep beside its peers</text>
<text x="20" y="50" fill="#555">{subtitle}</text>"##
    )?;
    let mut top = HEAD;
    for table in &report.tables {
        write_table(out, table, top)?;
        top += height_of(table);
    }
    writeln!(out, "</svg>")
}

fn height_of(table: &Table) -> f64 {
    TITLE + ROW * table.rows.len() as f64 + GAP
}

fn write_table(out: &mut String, table: &Table, top: f64) -> fmt::Result {
    let y = top + TITLE - 10.0;
    let title = escaped(table.title);
    writeln!(
        out,
        r##"<text x="20" y="{y:.1}" font-weight="600">{title}</text>"##
    )?;
    for (n, row) in table.rows.iter().enumerate() {
        let same = table
            .rows
            .iter()
            .filter(|other| other.clients == row.clients);
        let most = same
            .filter_map(Row::per_s)
            .map(|s| s.max)
            .fold(1.0, f64::max);
        write_row(out, row, top + TITLE + ROW * n as f64, most)?;
    }
    Ok(())
}

fn write_row(out: &mut String, row: &Row, y: f64, most: f64) -> fmt::Result {
    let (text, x) = (y + ROW * 0.7, LEFT - 8.0);
    let clients = row.clients;
    let name = escaped(row.name);
    writeln!(
        out,
        r##"<text x="{x}" y="{text:.1}" text-anchor="end">{name}, {clients}</text>"##
    )?;
    let Some(per_s) = row.per_s() else {
        return writeln!(
            out,
            r##"<text x="{LEFT}" y="{text:.1}" fill="#777">not measured</text>"##
        );
    };
    let wide = |figure: f64| (RIGHT - LEFT) * figure / most;
    let (bar, thick) = (wide(per_s.median), ROW - 6.0);
    let (low, high, middle) = (
        LEFT + wide(per_s.min),
        LEFT + wide(per_s.max),
        y + ROW / 2.0,
    );
    let colour = match row.side {
        Side::Ours => "#0072b2",
        Side::Peer => "#e69f00",
        Side::Limit => "#999999",
    };
    let (label, said) = (high.max(LEFT + bar) + 8.0, grouped(per_s.median));
    writeln!(
        out,
        r##"<rect x="{LEFT}" y="{:.1}" width="{bar:.1}" height="{thick}" fill="{colour}"/>
<path d="M{low:.1} {middle:.1}H{high:.1}" stroke="#111" stroke-width="1.5"/>
<text x="{label:.1}" y="{text:.1}">{said}</text>"##,
        y + 3.0
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const WIDTH: f64 = 900.0;
const HEAD: f64 = 66.0;
const TITLE: f64 = 34.0;
const ROW: f64 = 22.0;
const GAP: f64 = 14.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 790.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Section;
    use crate::field;
    use crate::report::{Machine, Measured};
    use crate::sample::Sample;

    #[test]
    fn every_row_is_drawn_or_said_not_to_be_measured() {
        let contestants = field::contestants(Section::TcpMemory);
        let mut rows: Vec<Row> = contestants.iter().map(|c| Row::new(c, 1, None)).collect();
        rows[0].add(Sample {
            per_s: 1_234.0,
            p50_us: 1.0,
            p99_us: 2.0,
        });
        rows[1].measured = Measured::Not("a < b".into());
        let measured = 1;
        let silent = rows.len() - measured;
        let svg = of(&Report {
            machine: Machine {
                cores: 2,
                kernel: "<6>".into(),
                file_system: "ext4".into(),
            },
            rounds: 1,
            seconds: 1.0,
            tables: vec![Table::new(Section::TcpMemory, rows)],
        });
        assert!(svg.contains("1,234") && svg.contains("&lt;6&gt;"), "{svg}");
        assert_eq!(svg.matches("not measured").count(), silent, "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}
