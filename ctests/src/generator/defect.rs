//! What the two libraries are known to differ in.

use std::fmt;

/// A defect of the reference by its number in ctests/README.md, and so a reason for the two libraries to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Defect(pub u8);

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "defect {}", self.0)
    }
}
