//! Results as tables: Markdown, which also reads well on a terminal.

use std::fmt::Write;

use crate::choice::CHOICE;
use crate::contestant::FLOOR;
use crate::results::{Results, Row, Spread};
use crate::targets::{Bound, TARGETS};

/// A table whose columns are as wide as they need to be.
struct Table {
    rows: Vec<Vec<String>>,
    /// Columns from here on hold numbers.
    numbers_from: usize,
}

impl Table {
    fn new(heading: Vec<String>, numbers_from: usize) -> Self {
        Table { rows: vec![heading], numbers_from }
    }

    fn render(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column < self.numbers_from {
                    true => write!(text, "| {cell:width$} "),
                    false => write!(text, "| {cell:>width$} "),
                };
            }
            text.push_str("|\n");
            if number == 0 {
                for (column, &width) in widths.iter().enumerate() {
                    let _ = match column < self.numbers_from {
                        true => write!(text, "|{}", "-".repeat(width + 2)),
                        false => write!(text, "|{}:", "-".repeat(width + 1)),
                    };
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// Three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn spread(spread: Spread) -> String {
    if spread.low == spread.high {
        return number(spread.median);
    }
    format!("{} ({}-{})", number(spread.median), number(spread.low), number(spread.high))
}

/// Every figure: that of the reference, and the ratios of the others to it with their quartiles.
pub fn all(results: &Results) -> String {
    figures(results, results.rows.iter(), |_| true)
}

/// The same of the figures that tell the models apart, without the yardstick.
pub fn choice(results: &Results) -> String {
    let rows = CHOICE.iter().flat_map(|(scenario, measures)| measures.iter().map(move |measure| (scenario, measure)));
    figures(results, rows.filter_map(|(scenario, measure)| results.row(scenario, *measure)), |name| name != FLOOR)
}

fn figures<'a>(results: &Results, rows: impl Iterator<Item = &'a Row>, is_shown: impl Fn(&str) -> bool) -> String {
    let reference = &results.contestants[0];
    let shown = results.contestants.iter().enumerate().skip(1).filter(|(_, name)| is_shown(name));
    let (others, names): (Vec<usize>, Vec<&String>) = shown.unzip();
    let mut heading = vec!["scenario".to_owned(), "measure".to_owned(), reference.clone()];
    heading.extend(names.iter().map(|name| format!("{name} / {reference}")));
    let mut table = Table::new(heading, 2);
    for row in rows {
        let mut cells = vec![row.scenario.clone(), row.measure.label().to_owned()];
        cells.push(row.value(0).map_or("-".to_owned(), |value| number(value.median)));
        for &contestant in &others {
            let ratio = row.ratio(contestant, 0).map(spread);
            // Without a partner the figure stands for itself.
            let alone = || row.value(contestant).map(|value| format!("= {}", number(value.median)));
            cells.push(ratio.or_else(alone).unwrap_or("-".to_owned()));
        }
        table.rows.push(cells);
    }
    table.render()
}

/// The figures to reach, what each contestant reached, and whether that is enough.
pub fn targets(results: &Results) -> String {
    let mut heading = vec!["scenario".to_owned(), "measure".to_owned(), "to reach".to_owned()];
    heading.extend(results.contestants[1..].iter().cloned());
    let mut table = Table::new(heading, 2);
    for target in TARGETS {
        let bound = match target.bound {
            Bound::RatioAtMost(limit) => format!("ratio <= {limit}"),
            Bound::RatioAtLeast(limit) => format!("ratio >= {limit}"),
            Bound::FloorAtMost(limit) => format!("to {FLOOR} <= {limit}"),
            Bound::AtMost(limit) => format!("<= {limit}"),
        };
        let mut cells = vec![target.scenario.to_owned(), target.measure.label().to_owned(), bound];
        for (contestant, name) in results.contestants.iter().enumerate().skip(1) {
            cells.push(match target.figure(results, contestant) {
                None => "-".to_owned(),
                // Nothing is asked of the yardstick.
                Some(figure) if name == FLOOR => spread(figure),
                Some(figure) if target.is_reached(figure) => format!("{} yes", spread(figure)),
                Some(figure) => format!("{} NO", spread(figure)),
            });
        }
        if cells[3..].iter().any(|cell| cell != "-") {
            table.rows.push(cells);
        }
    }
    table.render()
}

/// The machine, in a sentence or two.
pub fn machine(results: &Results) -> String {
    let machine = &results.machine;
    let kind = if results.quick { "short run" } else { "full run" };
    format!(
        "{}; {}; reference {}; {kind} of {}, load average {:.1} before and {:.1} after.\n",
        machine.processors, machine.system, machine.reference, machine.date, machine.load.0, machine.load.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(vec!["a".to_owned(), "value".to_owned()], 1);
        table.rows.push(vec!["longer".to_owned(), "1".to_owned()]);
        assert_eq!(table.render(), "| a      | value |\n|--------|------:|\n| longer |     1 |\n");
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [(0.0, "0.00"), (0.0123, "0.012"), (0.5, "0.50"), (12.34, "12.3"), (1234.5, "1234")] {
            assert_eq!(number(value), text);
        }
    }
}
