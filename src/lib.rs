//! A drop-in replacement of sendmail's libmilter.
//!
//! The rooms of the house, from the outside in: [`capi`] translates C, [`server`] runs a filter from start to stop,
//! [`model`] decides when a session runs, `milter_protocol` knows what a session says, [`sys`] talks to the system.

mod capi;
mod model;
mod server;
mod sys;
