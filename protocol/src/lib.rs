//! The milter protocol without I/O.
#![forbid(unsafe_code)]
