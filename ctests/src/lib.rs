//! Harness for tests that run C programs against a built libmilter.
//!
//! Two libraries can be tested: [`Library::ours`], built from this workspace, and
//! [`Library::reference`], sendmail's libmilter where the system has its development files.
//! [`Compile`] turns C and C++ sources into programs linked with one of them, [`Process`] runs
//! them, [`TempDir`] gives them a place, and [`skip`] is how a test says that it lacks something.
//!
//! [`Filter`] is the recorder, a filter that follows a plan; [`MtaConnection`] talks to it.
//! [`dialogue`] reads conversations from files, [`conversation`] plays them, [`verdict`] compares.

#![forbid(unsafe_code)]

mod compile;
pub mod conversation;
pub mod dialogue;
mod library;
mod mta;
mod process;
mod recorder;
mod skip;
mod tempdir;
pub mod verdict;
mod wire;
mod words;

pub use compile::{Compile, Linkage};
pub use conversation::Setting;
pub use library::{Library, Origin, target_dir, workspace_dir};
pub use mta::MtaConnection;
pub use process::{Process, free_port};
pub use recorder::{Event, Filter, recorder};
pub use rustix::process::Signal;
pub use skip::{require_all, skip};
pub use tempdir::TempDir;
pub use wire::Frame;
pub use words::Word;
