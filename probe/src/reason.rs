//! Errors in the system's words.

use std::fmt;
use std::io;

/// What an error is, without the number that the standard library adds.
pub struct Reason<'a>(pub &'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let number = self.0.raw_os_error().map(|number| format!(" (os error {number})"));
        f.write_str(number.and_then(|number| text.strip_suffix(&number)).unwrap_or(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_words_and_no_number() {
        assert_eq!(Reason(&io::Error::from_raw_os_error(2)).to_string(), "No such file or directory");
        assert_eq!(Reason(&io::Error::other("the record is cut")).to_string(), "the record is cut");
    }
}
