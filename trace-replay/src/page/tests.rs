#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use proptest::prelude::*;

const HOSTILE: &str = "a<script>alert(1)</script>\"'&\u{202e}gpj.exe\x1b[2J\0";

fn linear(label: &str) -> Axis {
    Axis::linear(label, Unit::Number)
}

/// The page is well-formed XML but for its head: every element that is opened is closed in order.
fn balanced(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    for piece in html.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').expect(piece);
        let name = tag.split([' ', '/']).find(|n| !n.is_empty()).unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "{piece}");
        } else if !tag.ends_with('/') && !["!doctype", "meta"].contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn text_of_a_trace_never_becomes_markup() {
    let mut page = Page::new(HOSTILE);
    let mut table = Table::new([HOSTILE, "b"]);
    table.row([HOSTILE, HOSTILE]);
    let chart = Chart::new(HOSTILE, linear(HOSTILE), linear(HOSTILE))
        .note(HOSTILE)
        .line(HOSTILE, vec![(0.0, 1.0), (1.0, 2.0)])
        .points(HOSTILE, vec![(0.5, 1.0)]);
    page.heading(HOSTILE)
        .paragraph(HOSTILE)
        .code(HOSTILE)
        .list([HOSTILE])
        .table(HOSTILE, &table)
        .chart(&chart)
        .bars(HOSTILE, [(HOSTILE, 1.0, HOSTILE.to_string())]);
    let html = page.html();
    balanced(&html);
    assert!(!html.contains("<script"));
    assert!(html.contains(
        "a&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;\\u{202e}gpj.exe\\u{1b}[2J\\u{0}"
    ));
    assert!(!html.contains(['\u{202e}', '\x1b', '\0']));
}

#[test]
fn a_page_fetches_nothing() {
    let html = Page::new("x").html();
    for word in ["http://", "https://", "src=", "href=", "url(", "@import"] {
        assert!(!html.contains(word), "{word}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn charts_without_data_say_so() {
    let nothing = [
        Vec::new(),
        vec![(f64::NAN, 1.0), (1.0, f64::INFINITY)],
        vec![(0.0, 1.0), (-1.0, 2.0)],
    ];
    for points in nothing {
        let chart = Chart::new("t", Axis::log("x", Unit::Seconds), linear("y")).line("a", points);
        let html = svg::figure(&chart, 1);
        assert!(html.contains("No data."), "{html}");
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    }
}

#[test]
fn a_value_that_is_no_number_is_a_gap() {
    let chart = Chart::new("t", linear("x"), linear("y")).line(
        "a",
        vec![
            (0.0, 1.0),
            (1.0, 1.0),
            (2.0, f64::NAN),
            (3.0, 1.0),
            (4.0, 1.0),
        ],
    );
    let html = svg::figure(&chart, 1);
    let path = html.split("class=\"line c0\"").nth(1).unwrap();
    let path = path
        .split("d=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert_eq!(path.matches('M').count(), 2, "{path}");
}

#[test]
fn values_without_a_place_on_a_log_axis_are_counted() {
    let chart = Chart::new("t", Axis::log("x", Unit::Seconds), linear("y"))
        .step("a", vec![(0.0, 0.1), (0.001, 0.5), (1.0, 1.0)]);
    assert!(svg::figure(&chart, 1).contains("1 values have no place"));
}

#[test]
fn units_read_as_people_write_them() {
    for (unit, value, text) in [
        (Unit::Bytes, 4096.0, "4 KiB"),
        (Unit::Bytes, 0.0, "0 B"),
        (Unit::BytesPerSecond, 1.5 * 1048576.0, "1.5 MiB/s"),
        (Unit::Seconds, 0.00025, "250 us"),
        (Unit::Seconds, 0.001, "1 ms"),
        (Unit::Seconds, 90.0, "90 s"),
        (Unit::Seconds, 600.0, "10 min"),
        (Unit::Share, 0.995, "99.5 %"),
        (Unit::Count, 1000.0, "1k"),
        (Unit::Count, 999.0, "999"),
        (Unit::PerSecond, 12_345.0, "12.3k/s"),
        (Unit::Number, 1.25, "1.25"),
        (Unit::Number, f64::NAN, "?"),
    ] {
        assert_eq!(unit.text(value), text);
    }
}

#[test]
fn long_series_are_thinned_without_losing_peaks() {
    let mut points: Vec<(f64, f64)> = (0..200_000).map(|i| (f64::from(i), 1.0)).collect();
    points[123_456].1 = 1000.0;
    let chart = Chart::new("t", linear("x"), linear("y")).line("a", points);
    let html = svg::figure(&chart, 1);
    assert!(html.len() < 100_000, "{}", html.len());
    assert!(html.contains(" 26.0L"), "the peak reaches the top");
}

proptest! {
    #[test]
    fn every_chart_is_drawn_within_its_frame(
        values in prop::collection::vec((prop::num::f64::ANY, prop::num::f64::ANY), 0..40),
        x_log: bool, y_log: bool,
    ) {
        let axis = |log| if log { Axis::log("a", Unit::Bytes) } else { Axis::linear("a", Unit::Seconds) };
        let bars = values.iter().map(|v| (v.0, v.0 * 2.0, v.1)).collect();
        let chart = Chart::new("t", axis(x_log), axis(y_log))
            .line("l", values.clone()).step("s", values.clone()).points("p", values).bars("b", bars);
        let html = svg::figure(&chart, 1);
        balanced(&html);
        let drawn = html.split("</desc>").nth(1).unwrap_or_default();
        prop_assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{}", drawn);
    }

    #[test]
    fn ticks_lie_on_the_axis_in_order(low in -1e12_f64..1e12, width in 1e-6_f64..1e12, log: bool) {
        let low = if log { low.abs().max(1e-9) } else { low };
        for unit in [Unit::Bytes, Unit::Seconds, Unit::Count] {
            let axis = Axis { log, ..Axis::linear("a", unit) };
            let ticks = axis.scale([low, low + width].into_iter()).unwrap().ticks();
            prop_assert!(ticks.len() <= 13);
            prop_assert!(ticks.windows(2).all(|t| t[0] < t[1]), "{:?}", ticks);
        }
    }
}
