//! Colours, for terminals only.

use std::fmt::{self, Display};
use std::io;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// Headings.
pub const HEADING: Style = Style::new().bold();
/// What went well.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What went neither well nor badly.
pub const FAIR: Style = AnsiColor::Yellow.on_default().bold();
/// What went badly.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What the filter put in.
pub const ADDED: Style = AnsiColor::Green.on_default();
/// What the filter took out.
pub const REMOVED: Style = AnsiColor::Red.on_default();
/// Where something is.
pub const PLACE: Style = AnsiColor::Cyan.on_default();
/// What is there but does not matter.
pub const FAINT: Style = Style::new().dimmed();

/// Paints text, or leaves it plain.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    coloured: bool,
}

impl Palette {
    /// No colours.
    pub const PLAIN: Palette = Palette { coloured: false };

    /// Colours if `stream` is a terminal that takes them and the user has not said otherwise (`NO_COLOR`).
    pub fn for_stream(stream: &impl anstream::stream::RawStream) -> Self {
        Palette { coloured: AutoStream::choice(stream) != ColorChoice::Never }
    }

    /// Colours for standard error.
    pub fn for_errors() -> Self {
        Self::for_stream(&io::stderr())
    }

    /// Whether it has any colours.
    pub fn is_coloured(self) -> bool {
        self.coloured
    }

    /// The text in a style.
    pub fn paint<T: Display>(self, style: Style, text: T) -> Painted<T> {
        Painted { style: if self.coloured { style } else { Style::new() }, text }
    }
}

/// Text in a style.
#[derive(Clone, Copy, Debug)]
pub struct Painted<T> {
    style: Style,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:#}", self.style, self.text, self.style)
    }
}
