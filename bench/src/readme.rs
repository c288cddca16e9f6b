//! Putting results into a document.

use std::fs;
use std::io;
use std::path::Path;

use crate::results::Results;
use crate::table;

const BEGIN: &str = "<!-- bench: written by `make bench PUBLISH=1` -->\n";
const END: &str = "<!-- end of bench -->\n";

/// Replaces what is between the marks of a document.
///
/// # Errors
///
/// When the document cannot be read or written, or has no marks.
pub fn publish(results: &Results, path: &Path) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let new = format!("\n{}\n{}\n", table::targets(results), table::machine(results));
    let text = between_marks(&text, &new)
        .ok_or_else(|| io::Error::other(format!("the marks are missing: {}and {END}", BEGIN.replace('\n', " "))))?;
    fs::write(path, text)
}

fn between_marks(text: &str, new: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some([before, BEGIN, new, END, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = format!("a\n{BEGIN}old\n{END}z\n");
        assert_eq!(between_marks(&text, "new\n"), Some(format!("a\n{BEGIN}new\n{END}z\n")));
        assert_eq!(between_marks("a\n", "new\n"), None);
    }
}
