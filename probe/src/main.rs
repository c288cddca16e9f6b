//! The MTA side of the milter protocol as a command-line tool.
fn main() {}
