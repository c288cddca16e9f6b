//! Harness for the C tests.
