//! Curves over the number of connections, as SVG that needs nothing else and follows the reader's colour scheme.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use crate::measure::Measure;
use crate::results::{Results, Spread};
use crate::scenario::SWEEP;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 160.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = 58.0;

/// Colours of the contestants in turn, on a light ground and on a dark one. The reference is grey.
const COLOURS: [(&str, &str); 6] = [
    ("#6e7781", "#8b949e"),
    ("#0969da", "#58a6ff"),
    ("#bc4c00", "#f0883e"),
    ("#1a7f37", "#3fb950"),
    ("#8250df", "#bc8cff"),
    ("#bf3989", "#f778ba"),
];

/// How the vertical axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// From zero, in even steps.
    Linear,
    /// Each step is a factor.
    Logarithmic,
}

/// One picture.
struct Chart {
    file: &'static str,
    title: &'static str,
    axis: &'static str,
    scale: Scale,
    /// What is drawn for each contestant, how it is called in the legend, and whether the line is dashed.
    curves: &'static [(Measure, &'static str, bool)],
}

const CHARTS: [Chart; 4] = [
    Chart {
        file: "throughput.svg",
        title: "Throughput: filter and load generator on one core",
        axis: "messages a second",
        scale: Scale::Linear,
        curves: &[(Measure::Messages, "", false)],
    },
    Chart {
        file: "latency.svg",
        title: "Latency of a message",
        axis: "milliseconds",
        scale: Scale::Logarithmic,
        curves: &[(Measure::MessageP99, " p99", false), (Measure::MessageP50, " p50", true)],
    },
    Chart {
        file: "cpu.svg",
        title: "Processor time of the filter",
        axis: "microseconds a message",
        scale: Scale::Linear,
        curves: &[(Measure::CpuPerMessage, "", false)],
    },
    Chart {
        file: "memory.svg",
        title: "Resident memory of the filter under load",
        axis: "MiB",
        scale: Scale::Logarithmic,
        curves: &[(Measure::Memory, "", false)],
    },
];

/// A line of a chart.
struct Curve {
    name: String,
    colour: usize,
    dashed: bool,
    points: Vec<(f64, Spread)>,
}

/// Writes every picture that the results have samples for.
///
/// # Errors
///
/// When a file cannot be written.
pub fn all(results: &Results, directory: &Path) -> io::Result<()> {
    for chart in &CHARTS {
        let curves = curves(chart, results);
        if curves.iter().any(|curve| curve.points.len() > 1) {
            fs::write(directory.join(chart.file), draw(chart, &curves))?;
        }
    }
    Ok(())
}

fn curves(chart: &Chart, results: &Results) -> Vec<Curve> {
    let mut curves = Vec::new();
    for (contestant, name) in results.contestants.iter().enumerate() {
        for &(measure, suffix, dashed) in chart.curves {
            // Microseconds make unreadable axes.
            let unit = if matches!(measure, Measure::MessageP50 | Measure::MessageP99) { 1e-3 } else { 1.0 };
            let rows = results.rows.iter().filter(|row| row.scenario.starts_with(SWEEP) && row.measure == measure);
            let points = rows.filter_map(|row| {
                let Spread { median, low, high } = row.value(contestant)?;
                let spread = Spread { median: median * unit, low: low * unit, high: high * unit };
                Some((row.connections as f64, spread))
            });
            let name = format!("{name}{suffix}");
            curves.push(Curve { name, colour: contestant % COLOURS.len(), dashed, points: points.collect() });
        }
    }
    curves
}

/// A vertical axis: its ends and its marks.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    marks: Vec<f64>,
}

impl Axis {
    fn new(scale: Scale, low: f64, high: f64) -> Self {
        match scale {
            Scale::Linear => {
                let rough = (high / 5.0).max(f64::MIN_POSITIVE);
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough);
                let step = step.unwrap_or(10.0 * power);
                let count = (high / step).ceil().max(1.0);
                let marks = (0..=count as usize).map(|number| number as f64 * step).collect();
                Axis { scale, low: 0.0, high: count * step, marks }
            }
            Scale::Logarithmic => {
                let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
                let steps =
                    (first..last.max(first + 1)).flat_map(|power| [1.0, 2.0, 5.0].map(|d| d * 10_f64.powi(power)));
                let steps: Vec<f64> = steps.chain([10_f64.powi(last.max(first + 1))]).collect();
                let begin = steps.iter().rposition(|step| *step <= low).unwrap_or_default();
                let end = steps.iter().position(|step| *step >= high).unwrap_or(steps.len() - 1).max(begin + 1);
                let marks = steps[begin..=end].to_vec();
                Axis { scale, low: steps[begin], high: steps[end], marks }
            }
        }
    }

    /// Where a value lies, in pixels from the top.
    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM)
    }
}

fn draw(chart: &Chart, curves: &[Curve]) -> String {
    let spreads = || curves.iter().flat_map(|curve| curve.points.iter().map(|(_, spread)| *spread));
    let low = spreads().map(|spread| spread.low).fold(f64::INFINITY, f64::min);
    let high = spreads().map(|spread| spread.high).fold(0.0, f64::max);
    let axis = Axis::new(chart.scale, low, high);
    let mut numbers: Vec<f64> = curves.iter().flat_map(|curve| curve.points.iter().map(|(x, _)| *x)).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.dedup();
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    let across = |x: f64| LEFT + (x / first).ln() / (last / first).ln() * (WIDTH - LEFT - RIGHT);

    let mut svg = String::new();
    let mut put = |text: std::fmt::Arguments<'_>| svg.write_fmt(text).expect("strings take everything");
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n\
         <title>{}</title>\n<style>\n{}</style>\n<rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"28\">{}</text>\n",
        chart.title,
        chart.title,
        style(),
        chart.title
    ));
    let right = WIDTH - RIGHT;
    for &mark in &axis.marks {
        let y = axis.place(mark);
        put(format_args!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\n"));
        put(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 8.0,
            y + 4.0,
            label(mark)
        ));
    }
    let bottom = HEIGHT - BOTTOM;
    for &number in &numbers {
        let x = across(number);
        put(format_args!("<path class=\"grid\" d=\"M{x:.1} {bottom}v5\"/>\n"));
        put(format_args!(
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            bottom + 20.0,
            label(number)
        ));
    }
    let middle = (LEFT + right) / 2.0;
    put(format_args!("<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">connections</text>\n", HEIGHT - 14.0));
    let half = (TOP + bottom) / 2.0;
    put(format_args!(
        "<text transform=\"translate(18 {half}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        chart.axis
    ));
    for curve in curves.iter().filter(|curve| !curve.points.is_empty()) {
        let there = curve.points.iter().map(|(x, spread)| (across(*x), axis.place(spread.high)));
        let back = curve.points.iter().rev().map(|(x, spread)| (across(*x), axis.place(spread.low)));
        put(format_args!("<path class=\"band c{}\" d=\"{}Z\"/>\n", curve.colour, path(there.chain(back))));
        let middle = curve.points.iter().map(|(x, spread)| (across(*x), axis.place(spread.median)));
        let dashed = if curve.dashed { " dashed" } else { "" };
        put(format_args!("<path class=\"line c{}{dashed}\" d=\"{}\"/>\n", curve.colour, path(middle)));
    }
    for (number, curve) in curves.iter().filter(|curve| !curve.points.is_empty()).enumerate() {
        let y = TOP + 8.0 + 20.0 * number as f64;
        let dashed = if curve.dashed { " dashed" } else { "" };
        put(format_args!("<path class=\"line c{}{dashed}\" d=\"M{} {y}h24\"/>\n", curve.colour, right + 14.0));
        put(format_args!("<text x=\"{}\" y=\"{}\">{}</text>\n", right + 44.0, y + 4.0, curve.name));
    }
    put(format_args!("</svg>\n"));
    svg
}

/// Plain rules without variables: not everything that shows SVG knows those.
fn style() -> String {
    let scheme = |ground: &str, text: &str, grid: &str, pick: fn(&(&'static str, &'static str)) -> &'static str| {
        let mut rules = format!(".ground{{fill:{ground}}}text{{fill:{text}}}.grid{{stroke:{grid}}}");
        for (number, colour) in COLOURS.iter().map(pick).enumerate() {
            let _ = write!(rules, ".line.c{number}{{stroke:{colour}}}.band.c{number}{{fill:{colour}}}");
        }
        rules
    };
    format!(
        "text{{font:13px system-ui,sans-serif}}.title{{font-size:16px;font-weight:600}}.grid{{fill:none}}\n\
         .line{{stroke-width:2.2;fill:none;stroke-linejoin:round}}.dashed{{stroke-dasharray:5 4}}.band{{fill-opacity:.14}}\n\
         {}\n@media(prefers-color-scheme:dark){{{}}}\n",
        scheme("#fff", "#24292f", "#d0d7de", |colour| colour.0),
        scheme("#0d1117", "#e6edf3", "#30363d", |colour| colour.1)
    )
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut text = String::new();
    for (number, (x, y)) in points.enumerate() {
        let _ = write!(text, "{}{x:.1} {y:.1}", if number == 0 { 'M' } else { 'L' });
    }
    text
}

fn label(value: f64) -> String {
    if value >= 10_000.0 { format!("{}k", value / 1000.0) } else { format!("{}", (value * 1000.0).round() / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_everything_and_have_round_marks() {
        let axis = Axis::new(Scale::Linear, 3.0, 7_300.0);
        assert_eq!((axis.low, axis.high, axis.marks.len()), (0.0, 8_000.0, 5));
        let axis = Axis::new(Scale::Logarithmic, 0.3, 130.0);
        assert_eq!((axis.low, axis.high), (0.2, 200.0));
        assert!((axis.place(0.2) - (HEIGHT - BOTTOM)).abs() < 1e-9 && (axis.place(200.0) - TOP).abs() < 1e-9);
        let axis = Axis::new(Scale::Logarithmic, 1.0, 1.0);
        assert!(axis.high > axis.low);
    }

    #[test]
    fn pictures_have_a_line_and_a_name_for_each_curve() {
        let spread = |median: f64| Spread { median, low: median * 0.9, high: median * 1.1 };
        let curve = |name: &str, colour| Curve {
            name: name.to_owned(),
            colour,
            dashed: false,
            points: vec![(1.0, spread(100.0)), (64.0, spread(300.0))],
        };
        let svg = draw(&CHARTS[0], &[curve("reference", 0), curve("pool", 1)]);
        assert_eq!(svg.matches("class=\"band").count(), 2);
        assert!(svg.contains(">reference<") && svg.contains(">pool<") && svg.contains(">messages a second<"));
        assert!(svg.contains("prefers-color-scheme:dark") && svg.ends_with("</svg>\n"));
    }
}
