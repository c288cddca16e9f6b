//! A drop-in replacement of sendmail's libmilter.
//!
//! The rooms of the house, from the outside in: [`capi`] translates C, [`server`] runs a filter from start to stop,
//! [`model`] decides when a session runs, `milter_protocol` knows what a session says, [`sys`] talks to the system.

#![allow(rustdoc::private_intra_doc_links, reason = "the interface is C's; this documentation is for maintainers")]

mod capi;
mod model;
mod server;
mod sys;

#[cfg(fuzzing)]
pub use server::fuzzing;
