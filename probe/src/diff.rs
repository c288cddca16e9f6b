//! Two texts line by line: where they differ, with the lines around.

use std::ops::Range;
use std::time::{Duration, Instant};

use similar::{Algorithm, DiffTag, capture_diff_slices_deadline, group_diff_ops};

/// Lines shown above and below a difference.
const CONTEXT: usize = 3;

/// How long to look for the smallest difference; after that one of any size will do.
const PATIENCE: Duration = Duration::from_secs(2);

/// A line of a unified diff, without its sign and without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Where in both texts the lines that follow are.
    Place(String),
    /// In both.
    Same(&'a [u8]),
    /// In the first only.
    Removed(&'a [u8]),
    /// In the second only.
    Added(&'a [u8]),
}

/// The difference of two texts, whose lines all end with LF; nothing if they are the same.
pub fn unified<'a>(before: &'a [u8], after: &'a [u8]) -> Vec<Line<'a>> {
    let (old, new) = (lines(before), lines(after));
    let deadline = Some(Instant::now() + PATIENCE);
    let operations = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, deadline);
    let mut unified = Vec::new();
    for hunk in group_diff_ops(operations, CONTEXT) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let of_old = place(first.old_range().start..last.old_range().end);
        let of_new = place(first.new_range().start..last.new_range().end);
        unified.push(Line::Place(format!("@@ -{of_old} +{of_new} @@")));
        for operation in &hunk {
            let (old, new) = (&old[operation.old_range()], &new[operation.new_range()]);
            if operation.tag() == DiffTag::Equal {
                unified.extend(old.iter().copied().map(Line::Same));
            } else {
                unified.extend(old.iter().copied().map(Line::Removed));
                unified.extend(new.iter().copied().map(Line::Added));
            }
        }
    }
    unified
}

/// Lines by number, from 1: the first, and how many unless it is one. No lines are those after the line before.
fn place(lines: Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        more => format!("{},{more}", lines.start + 1),
    }
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = text.split(|&octet| octet == b'\n').collect();
    lines.pop();
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(lines: &[Line<'_>]) -> String {
        let line = |(sign, text): (&str, &[u8])| format!("{sign}{}\n", String::from_utf8_lossy(text));
        let lines = lines.iter().map(|it| match it {
            Line::Place(place) => line(("", place.as_bytes())),
            Line::Same(text) => line((" ", text)),
            Line::Removed(text) => line(("-", text)),
            Line::Added(text) => line(("+", text)),
        });
        lines.collect()
    }

    #[test]
    fn nothing_differs() {
        assert_eq!(unified(b"a\nb\n", b"a\nb\n"), []);
        assert_eq!(unified(b"", b""), []);
    }

    #[test]
    fn differences_far_apart_have_places_of_their_own() {
        let before = b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";
        let after = b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\nx\n";
        let shown = "@@ -1,3 +1,4 @@\n+0\n 1\n 2\n 3\n@@ -7,4 +8,4 @@\n 7\n 8\n 9\n-10\n+x\n";
        assert_eq!(text(&unified(before, after)), shown);
        assert_eq!(text(&unified(b"", b"a\n")), "@@ -0,0 +1 @@\n+a\n");
        assert_eq!(text(&unified(b"a\n\xff\n", b"")), "@@ -1,2 +0,0 @@\n-a\n-\u{fffd}\n");
    }

    /// The second text, made of the first one and the difference.
    fn patched(before: &str, difference: &[Line<'_>]) -> String {
        let mut old = before.split_inclusive('\n').map(|line| line.trim_end().to_owned());
        let (mut taken, mut new) = (0, Vec::new());
        for line in difference {
            match line {
                Line::Place(place) => {
                    let (of_old, _) = place["@@ -".len()..].split_once(' ').unwrap();
                    let (start, count) = of_old.split_once(',').unwrap_or((of_old, "1"));
                    let start = start.parse::<usize>().unwrap() - usize::from(count != "0");
                    new.extend(old.by_ref().take(start - taken));
                    taken = start;
                }
                Line::Same(text) | Line::Removed(text) => {
                    assert_eq!(old.next().unwrap().as_bytes(), *text);
                    taken += 1;
                    if matches!(line, Line::Same(_)) {
                        new.push(String::from_utf8(text.to_vec()).unwrap());
                    }
                }
                Line::Added(text) => new.push(String::from_utf8(text.to_vec()).unwrap()),
            }
        }
        new.extend(old);
        new.iter().map(|line| format!("{line}\n")).collect()
    }

    proptest! {
        #[test]
        fn the_difference_makes_one_text_of_the_other(before in "([a-c]\n){0,30}", after in "([a-c]\n){0,30}") {
            let difference = unified(before.as_bytes(), after.as_bytes());
            prop_assert_eq!(patched(&before, &difference), &after[..], "{}", text(&difference));
            prop_assert_eq!(difference.is_empty(), before == after);
        }
    }
}
