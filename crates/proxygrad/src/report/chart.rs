//! Charts: lines over a common axis, and rows of dots with their quartiles.

use super::svg::{Drawing, Scale};
use crate::statistics::quantile;

/// CSS class of the colour of an entry.
fn colour(entry: usize) -> String {
    format!("c{}", entry % 10)
}

/// A range of values with labelled positions.
pub(crate) struct Axis {
    pub(crate) range: [f64; 2],
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From `low` to `high`, both rounded outward to whole steps of 1, 2 or 5 times a power of ten, with two to seven
    /// ticks. `label` writes a tick.
    pub(crate) fn round([low, high]: [f64; 2], label: impl Fn(f64) -> String) -> Self {
        let width = (high - low).max(1e-9 * low.abs().max(high.abs())).max(1e-9);
        let power = 10f64.powf((width / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| width / step <= 5.0);
        let step = step.unwrap_or(10.0 * power);
        let first = (low / step).floor();
        let last = (high / step).ceil().max(first + 1.0);
        let ticks = (0..=(last - first) as usize).map(|i| step * (first + i as f64));
        Self { range: [step * first, step * last], ticks: ticks.map(|tick| (tick, label(tick))).collect() }
    }

    /// The shares from 0 to 1 in quarters.
    pub(crate) fn quarters(label: impl Fn(f64) -> String) -> Self {
        let ticks = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share, label(share)));
        Self { range: [0.0, 1.0], ticks: ticks.to_vec() }
    }
}

/// Smallest and largest of values; `None` if none is finite.
pub(crate) fn extent(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let finite = values.filter(|value| value.is_finite());
    finite.fold(None, |extent, value| {
        let [low, high] = extent.unwrap_or([value; 2]);
        Some([low.min(value), high.max(value)])
    })
}

/// A named line; entries of several charts with the same place in their list have the same colour.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: Vec<[f64; 2]>,
}

/// Lines with a legend below.
pub(crate) fn lines(x: &Axis, x_label: &str, y: &Axis, lines: &[Line<'_>]) -> Drawing {
    const LEFT: f64 = 44.0;
    const BOTTOM: f64 = 240.0;
    const WIDTH: f64 = 620.0;
    const RIGHT: f64 = WIDTH - 24.0;
    const KEY: f64 = 18.0;
    // Of a legend's entry, by the length of the longest name.
    let longest = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    let keys = [4, 3, 2, 1].into_iter().find(|keys| longest <= 64 / keys).unwrap_or(1);
    let across = Scale { from: x.range, to: [LEFT, RIGHT] };
    let up = Scale { from: y.range, to: [BOTTOM, 8.0] };
    let mut drawing = Drawing::new(WIDTH, BOTTOM + 40.0 + KEY * lines.len().div_ceil(keys) as f64);
    for (value, label) in &y.ticks {
        drawing.line("grid", [LEFT, up.at(*value)], [RIGHT, up.at(*value)]);
        drawing.label("end", [LEFT - 6.0, up.at(*value) + 4.0], label);
    }
    for (value, label) in &x.ticks {
        drawing.label("middle", [across.at(*value), BOTTOM + 16.0], label);
    }
    drawing.label("middle", [(LEFT + WIDTH) / 2.0, BOTTOM + 32.0], x_label);
    for (entry, line) in lines.iter().enumerate() {
        let points: Vec<[f64; 2]> = line.points.iter().map(|[x, y]| [across.at(*x), up.at(*y)]).collect();
        let class = format!("{} course", colour(entry));
        drawing.path(&class, &points);
        let width = (RIGHT - LEFT) / keys as f64;
        let [x, y] = [LEFT + (entry % keys) as f64 * width, BOTTOM + 50.0 + KEY * (entry / keys) as f64];
        drawing.path(&class, &[[x, y - 4.0], [x + 20.0, y - 4.0]]);
        drawing.label("start", [x + 26.0, y], line.name);
    }
    drawing
}

/// A row of dots: values, each with a tooltip.
pub(crate) struct Dots<'a> {
    pub(crate) name: &'a str,
    /// Place of the entry in the list that gives colours.
    pub(crate) entry: usize,
    pub(crate) values: Vec<(f64, String)>,
}

/// Rows of dots, each with a box from the lower to the upper quartile and a line at the median. The tick at `even` is
/// emphasized.
pub(crate) fn dots(axis: &Axis, even: f64, rows: &[Dots<'_>]) -> Drawing {
    const WIDTH: f64 = 470.0;
    const ROW: f64 = 24.0;
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let left = (7.0 * longest as f64 + 12.0).clamp(110.0, 210.0);
    let scale = Scale { from: axis.range, to: [left, WIDTH - 16.0] };
    let bottom = ROW * rows.len() as f64 + 6.0;
    let mut drawing = Drawing::new(WIDTH, bottom + 22.0);
    for (value, label) in &axis.ticks {
        let x = scale.at(*value);
        drawing.line(if *value == even { "even" } else { "grid" }, [x, 4.0], [x, bottom]);
        drawing.label("middle", [x, bottom + 15.0], label);
    }
    for (row, Dots { name, entry, values }) in rows.iter().enumerate() {
        let middle = ROW * row as f64 + ROW / 2.0 + 4.0;
        drawing.label("end", [left - 8.0, middle + 4.0], name);
        let numbers: Vec<f64> = values.iter().map(|(value, _)| *value).collect();
        let [Some(low), Some(median), Some(high)] = [0.25, 0.5, 0.75].map(|q| quantile(&numbers, q)) else { continue };
        drawing.rectangle("box", [scale.at(low), middle - 8.0], [scale.at(high) - scale.at(low), 16.0]);
        for (i, (value, tooltip)) in values.iter().enumerate() {
            // Vertical jitter, so that equal dots do not overlap.
            let spread = (i * 7 % 11) as f64 - 5.0;
            drawing.dot(&colour(*entry), [scale.at(*value), middle + spread], tooltip);
        }
        drawing.line("median", [scale.at(median), middle - 8.0], [scale.at(median), middle + 8.0]);
    }
    drawing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ticks_around_their_values() {
        let ticks = |low, high| -> Vec<String> {
            Axis::round([low, high], |tick| format!("{tick:.2}")).ticks.into_iter().map(|(_, label)| label).collect()
        };
        assert_eq!(ticks(0.0, 1.0), ["0.00", "0.20", "0.40", "0.60", "0.80", "1.00"]);
        assert_eq!(ticks(-3.2, 11.0), ["-5.00", "0.00", "5.00", "10.00", "15.00"]);
        for [low, high] in [[0.0, 0.0], [5.0, 5.0], [0.13, 0.131], [-1e6, 2e6], [0.0, 1e-12]] {
            let Axis { range, ticks } = Axis::round([low, high], |_| String::new());
            assert!(range[0] <= low && high <= range[1] && range[0] < range[1], "{low} {high}: {range:?}");
            assert!((2..=7).contains(&ticks.len()), "{low} {high}: {}", ticks.len());
        }
    }

    #[test]
    fn every_line_and_dot_is_drawn() {
        let axis = Axis::quarters(|share| format!("{share}"));
        let line = |name| Line { name, points: vec![[0.0, 0.5], [1.0, 1.0]] };
        let html = lines(&axis, "time", &axis, &[line("one"), line("two")]).html();
        assert_eq!(html.matches("<polyline").count(), 4);
        assert!(html.contains("points=\"44.0,124.0 596.0,8.0\"") && html.contains(">two</text>"), "{html}");
        let values = vec![(0.25, "a".to_owned()), (0.75, "b".to_owned())];
        let html = dots(&axis, 0.5, &[Dots { name: "row", entry: 12, values }]).html();
        assert_eq!(html.matches("<circle class=\"c2\"").count(), 2);
        assert_eq!(html.matches("class=\"even\"").count(), 1);
    }
}
