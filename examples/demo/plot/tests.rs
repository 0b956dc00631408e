use super::picture::{LETTER, PlacedMark, Side, round_step};
use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Twelve seconds with three kills, as the demo makes them.
fn sample() -> Timeline {
    let kills = [(2_600, 2_648), (5_800, 5_871), (9_000, 9_039)];
    let mut acknowledgements = Vec::new();
    let mut noise = 1_u64;
    for at in (300..12_000).map(ms) {
        let down = kills
            .iter()
            .find(|&&(from, to)| ms(from) <= at && at < ms(to));
        if down.is_some() {
            continue;
        }
        for _ in 0..9 {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let after_kill = kills.iter().any(|&(_, to)| ms(to) <= at && at < ms(to + 3));
            let base = if after_kill { 52_000 } else { 900 };
            if noise >> 62 != 0 || after_kill {
                let tail = if (noise >> 40).is_multiple_of(50) {
                    9_000
                } else {
                    0
                };
                let latency = base + (noise >> 33) % 700 + tail;
                acknowledgements.push((at, Duration::from_micros(latency)));
            }
        }
    }
    let mut marks = Vec::new();
    for (n, &(from, to)) in kills.iter().enumerate() {
        let mark = |at, kind, label: String| Mark {
            at: ms(at),
            kind,
            label,
        };
        marks.push(mark(from, MarkKind::Kill, format!("n{} killed", n + 1)));
        marks.push(mark(
            to,
            MarkKind::Takeover,
            format!("n{} primary after {} ms", (n + 1) % 3 + 1, to - from),
        ));
        marks.push(mark(
            from + 1_400,
            MarkKind::CaughtUp,
            format!("n{} caught up", n + 1),
        ));
    }
    let subtitle = "34,006 records, 3 replicas, authority: witness; buckets of 50 ms";
    Timeline::new(
        "kvrep demo: load through three kills",
        subtitle,
        ms(50),
        acknowledgements,
        marks,
    )
}

#[test]
fn acknowledgements_fall_into_their_buckets() {
    let acknowledgements = [(ms(10), ms(1)), (ms(49), ms(3)), (ms(150), ms(7))];
    let timeline = Timeline::new("", "", ms(50), acknowledgements, Vec::new());
    let bucket = |acknowledged, p50, p99| Bucket {
        acknowledged,
        latency: Some((ms(p50), ms(p99))),
    };
    let none = Bucket::default();
    assert_eq!(
        timeline.buckets,
        [bucket(2, 1, 3), none, none, bucket(1, 7, 7)]
    );
}

#[test]
fn the_picture_shows_every_mark_and_is_well_formed() {
    let timeline = sample();
    let svg = timeline.svg();
    for mark in &timeline.marks {
        assert!(
            svg.contains(&format!(">{}</text>", mark.label)),
            "{}",
            mark.label
        );
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    if let Some(path) = std::env::var_os("KVREP_SAMPLE_SVG") {
        std::fs::write(path, svg).unwrap();
    }
}

#[test]
fn a_run_without_anything_still_gives_a_picture() {
    let svg = Timeline::new("<&>", "", ms(50), [], Vec::new()).svg();
    assert!(svg.contains("&lt;&amp;&gt;"));
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn labels_do_not_touch_each_other() {
    let picture_of = sample();
    let picture = Picture::of(&picture_of);
    let extent = |placed: &PlacedMark<'_>| {
        let wide = placed.mark.label.chars().count() as f64 * LETTER;
        match placed.side {
            Side::Left => (placed.x - wide, placed.x),
            Side::Right => (placed.x, placed.x + wide),
        }
    };
    for (n, a) in picture.marks.iter().enumerate() {
        for b in picture.marks[n + 1..].iter().filter(|b| b.row == a.row) {
            let (a, b) = (extent(a), extent(b));
            assert!(a.1 <= b.0 || b.1 <= a.0, "{a:?} and {b:?}");
        }
    }
}

#[test]
fn steps_are_round() {
    assert_eq!(
        [0.03, 1.2, 2.0, 700.0].map(round_step),
        [0.05, 2.0, 2.0, 1_000.0]
    );
    assert_eq!(round_step(0.0), 1.0);
}
