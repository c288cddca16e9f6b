//! Measures this libmilter beside the installed reference.
//!
//! Each scenario runs the same C filter with every library in turn, several times over, so that each figure has a
//! partner that was taken at the same moment: what counts is the ratio of the two, and how much it scatters.
//!
//! | module | what |
//! |---|---|
//! | [`contestant`] | a library and a model to run sessions with, and the filter built for it |
//! | [`filter`] | a running filter, and what the system says about it |
//! | [`machine`] | the machine: its processors, its limits, its description |
//! | [`scenario`] | what is measured |
//! | [`trial`], [`measure`] | how one sample is taken, and which figures it has |
//! | [`rounds`] | taking turns, and showing how far it has come |
//! | [`results`] | samples, ratios, quartiles |
//! | [`targets`] | the figures to reach |
//! | [`choice`] | the figures that tell the models apart |
//! | [`table`], [`plot`], [`readme`] | results for people |
#![forbid(unsafe_code)]

pub mod choice;
pub mod contestant;
pub mod filter;
pub mod machine;
pub mod measure;
pub mod plot;
pub mod readme;
pub mod results;
pub mod rounds;
pub mod scenario;
pub mod table;
pub mod targets;
pub mod trial;
