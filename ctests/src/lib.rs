//! Harness for tests that run C programs against a built libmilter.
//!
//! Two libraries can be tested: [`Library::ours`], built from this workspace, and
//! [`Library::reference`], sendmail's libmilter where the system has its development files.
//! [`Compile`] turns C and C++ sources into programs linked with one of them, [`Process`] runs
//! them, [`TempDir`] gives them a place, and [`skip`] is how a test says that it lacks something.

#![forbid(unsafe_code)]

mod compile;
mod library;
mod process;
mod skip;
mod tempdir;

pub use compile::{Compile, Linkage};
pub use library::{Library, Origin, target_dir, workspace_dir};
pub use process::{Process, free_port};
pub use skip::{require_all, skip};
pub use tempdir::TempDir;
