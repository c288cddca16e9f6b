//! Lines for the operator.
//!
//! They go to the system log under the program's own identity and begin with the filter's name. Errors of sessions are
//! caused from outside and might come in floods, so they are limited; everything else happens once per cause.
//!
//! A line says what peers, filters and administrators have chosen. So whatever is formatted into one is escaped, and cut
//! where it is too long; and writing one takes no memory, as it may be the lack of it that the line is about.

use std::ffi::CStr;
use std::fmt::{self, Write};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use milter_protocol::escape::{self, Escaped};

use crate::sys::shared::Shared;
use crate::sys::syslog;
pub(super) use crate::sys::syslog::Level;

/// Writes a line about the filter called `name`, which is empty before there is one.
pub(super) fn write(level: Level, name: &CStr, text: fmt::Arguments<'_>) {
    let separator = if name.is_empty() { "" } else { ": " };
    let mut line = Line::new();
    line.add(format_args!("{}{separator}{text}", Escaped(name.to_bytes())));
    syslog::write(level, line.text());
}

/// Tells that a run has ended, in the words that operators look for.
pub(super) fn ended(name: &CStr, how: &str) {
    let mut line = Line::new();
    line.add(format_args!("{}={how}", Escaped(name.to_bytes())));
    syslog::write(Level::Debug, line.text());
}

/// Writes an error about the filter called `name`.
pub(super) fn error(name: &CStr, text: fmt::Arguments<'_>) {
    write(Level::Error, name, text);
}

/// Bytes that a line may have. With what the C library puts before it, that is as much as the C library writes without
/// memory of its own: 1024.
const LINE_SIZE: usize = 900;

/// What shows that a line was cut.
const CUT: &str = "...";

/// One line, within a fixed size: what is not printable is escaped, what is too long is cut between two characters.
struct Line {
    text: [u8; LINE_SIZE],
    len: usize,
    is_cut: bool,
}

impl Line {
    fn new() -> Self {
        Line { text: [0; LINE_SIZE], len: 0, is_cut: false }
    }

    fn add(&mut self, text: fmt::Arguments<'_>) {
        // An error says that the line is cut, which it shows itself.
        let _ = self.write_fmt(text);
    }

    fn text(&self) -> &[u8] {
        &self.text[..self.len]
    }

    /// Appends bytes; false if they do not fit before the sign that the line is cut.
    fn append(&mut self, bytes: &[u8]) -> bool {
        let has_room = bytes.len() <= LINE_SIZE - CUT.len() - self.len;
        if has_room {
            self.text[self.len..][..bytes.len()].copy_from_slice(bytes);
            self.len += bytes.len();
        }
        has_room
    }

    fn cut(&mut self, len: usize) {
        self.text[len..][..CUT.len()].copy_from_slice(CUT.as_bytes());
        self.len = len + CUT.len();
        self.is_cut = true;
    }
}

impl Write for Line {
    /// Fails when the line is full.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.is_cut {
                return Err(fmt::Error);
            }
            let before = self.len;
            if escape::write_char(&mut Unescaped(self), character).is_err() {
                self.cut(before);
            }
        }
        Ok(())
    }
}

/// A line, for text that is escaped already.
struct Unescaped<'a>(&'a mut Line);

impl Write for Unescaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.append(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Tells one trouble from the next: what comes again and again without a pause is one, in whichever processes of a run.
pub(super) struct Episode {
    start: Instant,
    /// When there was trouble last: milliseconds since the start, and one more, so that 0 is never.
    last: Shared<AtomicU64>,
}

impl Episode {
    /// Trouble that was away for so long is a new one. What is tried now and then is tried more often.
    const PAUSE: Duration = Duration::from_secs(60);

    pub(super) fn new() -> io::Result<Self> {
        Ok(Episode { start: Instant::now(), last: Shared::new(AtomicU64::new(0))? })
    }

    /// Notes trouble; true if it is a new one and worth a line.
    pub(super) fn begins(&self) -> bool {
        self.begins_at(self.start.elapsed())
    }

    fn begins_at(&self, now: Duration) -> bool {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = milliseconds(now) + 1;
        let last = self.last.swap(now, Relaxed);
        last == 0 || now.saturating_sub(last) >= milliseconds(Self::PAUSE)
    }
}

/// Lets through so many lines in so much time, and counts the others; all processes of a run together.
pub(super) struct Limiter {
    start: Instant,
    /// Number of the stretch of time in its upper half, lines so far in its lower half.
    window: Shared<AtomicU64>,
}

impl Limiter {
    const LINES: u32 = 100;
    const TIME: Duration = Duration::from_secs(10);

    pub(super) fn new() -> io::Result<Self> {
        Ok(Limiter { start: Instant::now(), window: Shared::new(AtomicU64::new(0))? })
    }

    /// Writes a line unless there were too many; false then. After a flood the number of those left out is told.
    pub(super) fn write(&self, level: Level, name: &CStr, text: fmt::Arguments<'_>) -> bool {
        let (allowed, suppressed) = self.pass(Instant::now());
        if suppressed > 0 {
            write(Level::Warning, name, format_args!("{suppressed} further messages about sessions left out"));
        }
        if allowed {
            write(level, name, text);
        }
        allowed
    }

    /// Whether a line may pass, and how many were left out in the window that has just ended.
    fn pass(&self, now: Instant) -> (bool, u32) {
        let current = ((now - self.start).as_secs() / Self::TIME.as_secs()) as u32;
        let next = |window| {
            let (number, lines) = halves(window);
            let lines = if number == current { lines.saturating_add(1) } else { 1 };
            Some(u64::from(current) << 32 | u64::from(lines))
        };
        match self.window.fetch_update(Relaxed, Relaxed, next).map_or_else(halves, halves) {
            (number, lines) if number == current => (lines < Self::LINES, 0),
            (_, lines) => (true, lines.saturating_sub(Self::LINES)),
        }
    }
}

fn halves(window: u64) -> (u32, u32) {
    ((window >> 32) as u32, window as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: fmt::Arguments<'_>) -> String {
        let mut line = Line::new();
        line.add(text);
        String::from_utf8(line.text().to_vec()).unwrap()
    }

    #[test]
    fn a_line_is_one_line_of_printable_text() {
        let text = line(format_args!("a: \x1b[1m{}\n\u{7f}{}ü", "\u{202e}\0", Escaped(b"\xfe\x9b\xc2\x9b")));
        assert_eq!(text, r"a: \u{1b}[1m\u{202e}\u{0}\n\u{7f}\xfe\x9b\u{9b}ü");
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        for (start, character, shown) in [("", "ä", "ä"), ("x", "ä", "ä"), ("xy", "\u{202e}", r"\u{202e}")] {
            let text = line(format_args!("{start}{}", character.repeat(LINE_SIZE)));
            let room = LINE_SIZE - CUT.len() - start.len();
            assert_eq!(text, format!("{start}{}...", shown.repeat(room / shown.len())));
        }
        let fits = "x".repeat(LINE_SIZE - CUT.len());
        assert_eq!(line(format_args!("{fits}")), fits);
        assert_eq!(line(format_args!("{fits}{}", "")), fits);
        assert_eq!(line(format_args!("{fits}y{fits}")), format!("{fits}..."));
    }

    #[test]
    fn trouble_that_does_not_pause_is_one() {
        let episode = Episode::new().unwrap();
        let begins = [0, 1, 60, 119, 179, 180].map(|seconds| episode.begins_at(Duration::from_secs(seconds)));
        assert_eq!(begins, [true, false, false, false, true, false]);
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let limiter = Limiter::new().unwrap();
        let passed = (0..Limiter::LINES + 5).filter(|_| limiter.pass(limiter.start).0).count();
        assert_eq!(passed as u32, Limiter::LINES);
        assert_eq!(limiter.pass(limiter.start + Limiter::TIME), (true, 5));
        assert_eq!(limiter.pass(limiter.start + Limiter::TIME), (true, 0));
    }
}
