//! Drop-in replacement of libmilter.
