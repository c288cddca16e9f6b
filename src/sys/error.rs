//! Errors in the system's words.

use std::ffi::CStr;
use std::fmt;
use std::io;

/// Room for what the system says about an error.
const ROOM: usize = 256;

/// What an error is, in the words of the system and of other programs: without the number that the standard library
/// adds. Needs no memory.
///
/// Nothing in this library formats an [`io::Error`] in another way; a test looks for the standard library's words in the
/// built library.
pub(crate) struct Reason<'a>(pub(crate) &'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.raw_os_error(), self.0.get_ref()) {
            (Some(code), _) => write_system_error(f, code),
            (None, Some(own)) => fmt::Display::fmt(own, f),
            (None, None) => self.0.kind().fmt(f),
        }
    }
}

fn write_system_error(f: &mut fmt::Formatter<'_>, code: libc::c_int) -> fmt::Result {
    let mut text = [0_u8; ROOM];
    // SAFETY: the text is writable for the length given, and is terminated within it if the call succeeds.
    let failed = unsafe { libc::strerror_r(code, text.as_mut_ptr().cast(), text.len()) };
    match CStr::from_bytes_until_nul(&text) {
        Ok(text) if failed == 0 => f.write_str(&String::from_utf8_lossy(text.to_bytes())),
        _ => write!(f, "error {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_words_and_no_number() {
        let text = |error: io::Error| Reason(&error).to_string();
        assert_eq!(text(io::Error::from_raw_os_error(libc::ENOENT)), "No such file or directory");
        assert_eq!(text(io::Error::other("that is not ours")), "that is not ours");
        assert_eq!(text(io::ErrorKind::TimedOut.into()), "timed out");
    }
}
