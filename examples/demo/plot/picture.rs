//! How a timeline is drawn: scales, places of labels, and the SVG itself.

use super::{Mark, MarkKind, Timeline};
use crate::demo::report::grouped;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// A timeline with its scales.
pub(super) struct Picture<'a> {
    timeline: &'a Timeline,
    /// Seconds from the left to the right edge.
    seconds: f64,
    /// Writes a second at the top of the upper panel, and the distance of its grid lines.
    rate: (f64, f64),
    /// Powers of ten of a millisecond at the bottom and at the top of the lower panel.
    decades: (i32, i32),
    pub(super) marks: Vec<PlacedMark<'a>>,
    /// Rows of labels above the upper panel.
    rows: usize,
}

pub(super) struct PlacedMark<'a> {
    pub(super) mark: &'a Mark,
    pub(super) x: f64,
    pub(super) row: usize,
    pub(super) side: Side,
}

/// On which side of its line a label stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl<'a> Picture<'a> {
    pub(super) fn of(timeline: &'a Timeline) -> Self {
        let every = timeline.bucket_every.as_secs_f64();
        let last_mark = timeline.marks.iter().map(|mark| mark.at.as_secs_f64());
        let seconds = last_mark
            .fold(timeline.buckets.len() as f64 * every, f64::max)
            .max(every);
        let most = timeline
            .buckets
            .iter()
            .map(|bucket| bucket.acknowledged)
            .max();
        let rate_step = round_step(most.unwrap_or(0) as f64 / every / 4.0).max(1.0);
        let rate_max = (most.unwrap_or(0) as f64 / every / rate_step)
            .ceil()
            .max(1.0)
            * rate_step;
        let latencies = timeline.buckets.iter().filter_map(|bucket| bucket.latency);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for (p50, p99) in latencies {
            low = low.min(decade_of(p50));
            high = high.max(decade_of(p99));
        }
        let decades = if low <= high {
            (
                low.floor() as i32,
                (high.ceil() as i32).max(low.floor() as i32 + 1),
            )
        } else {
            (0, 2)
        };
        let mut this = Self {
            timeline,
            seconds,
            rate: (rate_max, rate_step),
            decades,
            marks: Vec::new(),
            rows: 0,
        };
        this.place_marks();
        this
    }

    /// Gives each label a row in which it does not touch its neighbours.
    fn place_marks(&mut self) {
        let mut sorted: Vec<_> = self.timeline.marks.iter().collect();
        sorted.sort_by_key(|mark| (mark.at, mark.kind));
        let mut row_ends: Vec<f64> = Vec::new();
        for mark in sorted {
            let x = self.x(mark.at.as_secs_f64());
            let wide = mark.label.chars().count() as f64 * LETTER + 8.0;
            // A kill and the takeover after it are close together: one label to each side.
            let side = match mark.kind {
                MarkKind::Kill if x - wide > LEFT => Side::Left,
                MarkKind::Takeover | MarkKind::CaughtUp if x + wide > RIGHT => Side::Left,
                MarkKind::Kill | MarkKind::Takeover | MarkKind::CaughtUp => Side::Right,
            };
            let (from, to) = match side {
                Side::Left => (x - wide, x),
                Side::Right => (x, x + wide),
            };
            let free = row_ends.iter().position(|&end| end + 4.0 <= from);
            let row = free.unwrap_or(row_ends.len());
            if row == row_ends.len() {
                row_ends.push(to);
            } else {
                row_ends[row] = to;
            }
            self.marks.push(PlacedMark { mark, x, row, side });
        }
        self.rows = row_ends.len();
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (seconds / self.seconds)
    }

    fn rate_top(&self) -> f64 {
        HEAD + self.rows as f64 * ROW + 8.0
    }

    fn rate_y(&self, rate: f64) -> f64 {
        self.rate_top() + PANEL * (1.0 - rate / self.rate.0)
    }

    fn latency_top(&self) -> f64 {
        self.rate_top() + PANEL + GAP
    }

    fn latency_y(&self, decade: f64) -> f64 {
        let (low, high) = (f64::from(self.decades.0), f64::from(self.decades.1));
        let share = ((decade - low) / (high - low)).clamp(0.0, 1.0);
        self.latency_top() + PANEL * (1.0 - share)
    }

    fn bottom(&self) -> f64 {
        self.latency_top() + PANEL
    }

    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        let height = self.bottom() + FOOT;
        let (title, subtitle) = (
            escaped(&self.timeline.title),
            escaped(&self.timeline.subtitle),
        );
        writeln!(
            out,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="12" fill="#333">
<title>{title}</title>
<desc>Acknowledged writes a second and latency over time; kills, takeovers and returns as vertical lines. {subtitle}</desc>
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{LEFT}" y="30" font-size="18" font-weight="600" fill="#111">{title}</text>
<text x="{LEFT}" y="50" fill="#555">{subtitle}</text>"##
        )?;
        self.write_outages(out)?;
        self.write_time_axis(out)?;
        self.write_rate(out)?;
        self.write_latency(out)?;
        self.write_marks(out)?;
        self.write_legend(out)?;
        writeln!(out, "</svg>")
    }

    /// Shades the time between each kill and the takeover after it.
    fn write_outages(&self, out: &mut String) -> fmt::Result {
        let mut killed: Option<f64> = None;
        for placed in &self.marks {
            match (placed.mark.kind, killed) {
                (MarkKind::Kill, None) => killed = Some(placed.x),
                (MarkKind::Takeover, Some(from)) => {
                    let wide = placed.x - from;
                    for top in [self.rate_top(), self.latency_top()] {
                        writeln!(
                            out,
                            r##"<rect x="{from:.1}" y="{top:.1}" width="{wide:.1}" height="{PANEL}" fill="{VERMILION}" fill-opacity="0.15"/>"##
                        )?;
                    }
                    killed = None;
                }
                (MarkKind::Kill | MarkKind::Takeover | MarkKind::CaughtUp, _) => {}
            }
        }
        Ok(())
    }

    fn write_time_axis(&self, out: &mut String) -> fmt::Result {
        let step = round_step(self.seconds / 10.0);
        let digits = usize::from(step < 1.0) + usize::from(step < 0.1);
        let bottom = self.bottom();
        let mut n = 0;
        while f64::from(n) * step <= self.seconds * 1.000_001 {
            let seconds = f64::from(n) * step;
            let x = self.x(seconds);
            for top in [self.rate_top(), self.latency_top()] {
                let end = top + PANEL;
                writeln!(
                    out,
                    r##"<path d="M{x:.1} {top:.1}V{end:.1}" stroke="{GRID}"/>"##
                )?;
            }
            let y = bottom + 17.0;
            writeln!(
                out,
                r##"<text x="{x:.1}" y="{y:.1}" text-anchor="middle">{seconds:.digits$}</text>"##
            )?;
            n += 1;
        }
        let (x, y) = (f64::midpoint(LEFT, RIGHT), bottom + 36.0);
        writeln!(
            out,
            r##"<text x="{x:.1}" y="{y:.1}" text-anchor="middle" fill="#555">time since the start (s)</text>"##
        )
    }

    fn write_rate(&self, out: &mut String) -> fmt::Result {
        let (max, step) = self.rate;
        let mut n = 0;
        while f64::from(n) * step <= max * 1.000_001 {
            let rate = f64::from(n) * step;
            write_grid_line(out, self.rate_y(rate), &grouped(rate as u64))?;
            n += 1;
        }
        write_axis_title(out, self.rate_top(), "acknowledged writes / s")?;
        let every = self.timeline.bucket_every.as_secs_f64();
        // Steps, not slopes: a bucket's rate is that of all its time.
        let mut line = String::new();
        for (n, bucket) in self.timeline.buckets.iter().enumerate() {
            let y = self.rate_y(bucket.acknowledged as f64 / every);
            let (from, to) = (self.x(n as f64 * every), self.x((n + 1) as f64 * every));
            let command = if n == 0 { 'M' } else { 'L' };
            write!(line, "{command}{from:.1} {y:.1}H{to:.1}")?;
        }
        if line.is_empty() {
            return Ok(());
        }
        let zero = self.rate_y(0.0);
        writeln!(
            out,
            r##"<path d="{line}V{zero:.1}H{LEFT}Z" fill="{BLUE}" fill-opacity="0.15"/>
<path d="{line}" fill="none" stroke="{BLUE}" stroke-width="1.6" stroke-linejoin="round"/>"##
        )
    }

    fn write_latency(&self, out: &mut String) -> fmt::Result {
        for decade in (self.decades.0..self.decades.1).map(f64::from) {
            for minor in [2_f64, 5.0].map(f64::log10) {
                let y = self.latency_y(decade + minor);
                let line = format!("M{LEFT} {y:.1}H{RIGHT}");
                writeln!(out, r##"<path d="{line}" stroke="{GRID_MINOR}"/>"##)?;
            }
        }
        for decade in self.decades.0..=self.decades.1 {
            let y = self.latency_y(f64::from(decade));
            write_grid_line(out, y, &decade_label(decade))?;
        }
        write_axis_title(out, self.latency_top(), "latency (logarithmic)")?;
        self.write_latency_line(out, |(_, p99)| p99, P99_STYLE)?;
        self.write_latency_line(out, |(p50, _)| p50, P50_STYLE)
    }

    /// A line through the middle of the buckets, interrupted where nothing was acknowledged.
    fn write_latency_line(
        &self,
        out: &mut String,
        which: impl Fn((Duration, Duration)) -> Duration,
        style: &str,
    ) -> fmt::Result {
        let every = self.timeline.bucket_every.as_secs_f64();
        let mut path = String::new();
        let mut pen = 'M';
        for (n, bucket) in self.timeline.buckets.iter().enumerate() {
            let Some(latency) = bucket.latency else {
                pen = 'M';
                continue;
            };
            let x = self.x((n as f64 + 0.5) * every);
            let y = self.latency_y(decade_of(which(latency)));
            write!(path, "{pen}{x:.1} {y:.1}")?;
            if pen == 'M' {
                write!(path, "h0.1")?; // a lone bucket is a dot
            }
            pen = 'L';
        }
        writeln!(
            out,
            r##"<path d="{path}" fill="none" stroke-linejoin="round" stroke-linecap="round" {style}/>"##
        )
    }

    /// All lines, then all labels, so that no line runs through a label.
    fn write_marks(&self, out: &mut String) -> fmt::Result {
        let bottom = self.bottom();
        for &PlacedMark { mark, x, row, .. } in &self.marks {
            let (colour, dashes) = look(mark.kind);
            let top = HEAD + row as f64 * ROW + 2.0;
            writeln!(
                out,
                r##"<path d="M{x:.1} {top:.1}V{bottom:.1}" stroke="{colour}" stroke-width="1.4" stroke-dasharray="{dashes}"/>"##
            )?;
        }
        for &PlacedMark { mark, x, row, side } in &self.marks {
            let (colour, _) = look(mark.kind);
            let y = HEAD + row as f64 * ROW + 11.0;
            let (anchor, text_x) = match side {
                Side::Left => ("end", x - 4.0),
                Side::Right => ("start", x + 4.0),
            };
            let label = escaped(&mark.label);
            writeln!(
                out,
                r##"<text x="{text_x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="11" font-weight="600" fill="{colour}" stroke="#ffffff" stroke-width="4" paint-order="stroke">{label}</text>"##
            )?;
        }
        Ok(())
    }

    fn write_legend(&self, out: &mut String) -> fmt::Result {
        let y = self.bottom() + 62.0;
        let mark = |kind| {
            let (colour, dashes) = look(kind);
            format!(r#"stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dashes}""#)
        };
        let rate = format!(r#"stroke="{BLUE}" stroke-width="1.6""#);
        let mut entries = vec![
            ("acknowledged writes", rate),
            ("p50 latency", P50_STYLE.to_owned()),
            ("p99 latency", P99_STYLE.to_owned()),
        ];
        for (kind, text) in [
            (MarkKind::Kill, "kill (SIGKILL)"),
            (MarkKind::Takeover, "takeover"),
            (MarkKind::CaughtUp, "caught up again"),
        ] {
            if self.timeline.marks.iter().any(|mark| mark.kind == kind) {
                entries.push((text, mark(kind)));
            }
        }
        let mut x = LEFT;
        for (text, style) in entries {
            let (end, line_y, text_x) = (x + 26.0, y - 4.0, x + 32.0);
            writeln!(
                out,
                r##"<path d="M{x:.1} {line_y:.1}H{end:.1}" fill="none" {style}/>
<text x="{text_x:.1}" y="{y:.1}">{text}</text>"##
            )?;
            x = text_x + text.len() as f64 * LETTER + 24.0;
        }
        Ok(())
    }
}

fn write_grid_line(out: &mut String, y: f64, label: &str) -> fmt::Result {
    let (text_x, text_y) = (LEFT - 8.0, y + 4.0);
    writeln!(
        out,
        r##"<path d="M{LEFT} {y:.1}H{RIGHT}" stroke="{GRID}"/>
<text x="{text_x:.1}" y="{text_y:.1}" text-anchor="end">{label}</text>"##
    )
}

fn write_axis_title(out: &mut String, top: f64, text: &str) -> fmt::Result {
    let y = top + PANEL / 2.0;
    writeln!(
        out,
        r##"<text x="18" y="{y:.1}" transform="rotate(-90 18 {y:.1})" text-anchor="middle" fill="#555">{text}</text>"##
    )
}

/// The colour and the dashes of a mark.
fn look(kind: MarkKind) -> (&'static str, &'static str) {
    match kind {
        MarkKind::Kill => (VERMILION, "5 3"),
        MarkKind::Takeover => (GREEN, "none"),
        MarkKind::CaughtUp => (GREY, "1.5 3"),
    }
}

/// A step of 1, 2 or 5 times a power of ten, at least `least`.
pub(super) fn round_step(least: f64) -> f64 {
    if least <= 0.0 || !least.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|&factor| factor * power >= least);
    factor.unwrap_or(10.0) * power
}

/// The logarithm of a latency in milliseconds; nothing is below a microsecond.
fn decade_of(latency: Duration) -> f64 {
    (latency.as_secs_f64() * 1e3).max(1e-3).log10()
}

fn decade_label(decade: i32) -> String {
    match decade {
        ..0 => format!("{} µs", 10_f64.powi(decade + 3)),
        0..3 => format!("{} ms", 10_f64.powi(decade)),
        3.. => format!("{} s", 10_f64.powi(decade - 3)),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const WIDTH: f64 = 1100.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 1076.0;
const HEAD: f64 = 66.0;
const ROW: f64 = 15.0;
const PANEL: f64 = 190.0;
const GAP: f64 = 26.0;
const FOOT: f64 = 80.0;
/// Width of a letter, about.
pub(super) const LETTER: f64 = 6.6;

const BLUE: &str = "#0072b2";
const VERMILION: &str = "#d55e00";
const GREEN: &str = "#007a5a";
const GREY: &str = "#6b6b6b";
const GRID: &str = "#e2e2e2";
const GRID_MINOR: &str = "#f1f1f1";
const P50_STYLE: &str = r##"stroke="#5e3c99" stroke-width="1.8""##;
const P99_STYLE: &str = r##"stroke="#b0588c" stroke-width="1.6" stroke-dasharray="4 2.5""##;
