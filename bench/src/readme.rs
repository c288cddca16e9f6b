//! Putting results into documents.

use std::fs;
use std::io;
use std::path::Path;

const END: &str = "<!-- end of bench -->\n";

/// Replaces what `make bench VARIABLES` wrote into a document: what is between the marks that say so.
///
/// # Errors
///
/// When the document cannot be read or written, or has no marks.
pub fn publish(path: &Path, variables: &str, new: &str) -> io::Result<()> {
    let begin = format!("<!-- bench: written by `make bench {variables}` -->\n");
    let text = fs::read_to_string(path)?;
    let text = between_marks(&text, &begin, &format!("\n{new}\n")).ok_or_else(|| {
        io::Error::other(format!("the marks are missing: {} and {}", begin.trim_end(), END.trim_end()))
    })?;
    fs::write(path, text)
}

fn between_marks(text: &str, begin: &str, new: &str) -> Option<String> {
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(END)?;
    Some([before, begin, new, END, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = format!("a\n<x>\nold\n{END}z\n");
        assert_eq!(between_marks(&text, "<x>\n", "new\n"), Some(format!("a\n<x>\nnew\n{END}z\n")));
        assert_eq!(between_marks(&text, "<y>\n", "new\n"), None);
        assert_eq!(between_marks("a\n", "<x>\n", "new\n"), None);
    }
}
