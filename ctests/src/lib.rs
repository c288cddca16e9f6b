//! Harness for tests that run C programs against a built libmilter.
//!
//! Two libraries can be tested: [`Library::ours`], built from this workspace, and
//! [`Library::reference`], sendmail's libmilter where the system has its development files.
//! [`Compile`] turns C and C++ sources into programs linked with one of them, [`Process`] runs
//! them, [`TempDir`] gives them a place, [`eventually`] waits for what they do, and [`skip()`] is how a test says that it
//! lacks something. [`ReferenceHeaders`] are those of several releases of sendmail's.
//!
//! [`Filter`] is the recorder, a filter that follows a plan; [`MtaConnection`] talks to it.
//! [`dialogue`] reads conversations from files, [`conversation`] plays them, [`verdict`] compares.
//!
//! [`Program`] is a filter that somebody else built; [`Postfix`] passes it mail that an [`SmtpClient`]
//! submits, and delivers to a [`Sink`]. [`opendkim`] configures Debian's OpenDKIM. [`Sendmail`] is the other
//! MTA, [`MailServer`] what both have in common, [`mailbag`] is mail of every kind, and [`comparison`] passes it with
//! every library. [`Build`] is a filter made from its authors' sources, and a [`Backend`] stands in for the daemon that a
//! filter asks.

#![forbid(unsafe_code)]

mod archive;
mod backend;
pub mod comparison;
mod compile;
pub mod conversation;
pub mod dialogue;
pub mod generator;
mod library;
pub mod mail_server;
pub mod mailbag;
mod mta;
pub mod opendkim;
mod patience;
pub mod postfix;
mod process;
mod program;
mod recorder;
mod reference_headers;
mod sanitizer;
pub mod sendmail;
mod sink;
mod skip;
mod smtp;
pub mod stage;
mod system_log;
mod tempdir;
pub mod verdict;
mod wire;
mod words;

pub use archive::{Archive, Build, Need, sources_dir};
pub use backend::Backend;
pub use compile::{Compile, Linkage};
pub use conversation::Setting;
pub use library::{Library, Origin, target_dir, workspace_dir};
pub use mail_server::{MailServer, has_ipv6};
pub use mta::MtaConnection;
pub use patience::{PATIENCE, eventually};
pub use postfix::Postfix;
pub use process::{Process, free_port, is_free, is_root, kill_child, signal_child};
pub use program::{Program, Service, find};
pub use recorder::{Event, Filter, Surroundings, recorder};
pub use reference_headers::ReferenceHeaders;
pub use rustix::process::{Pid, Signal, kill_process};
pub use sanitizer::Sanitizer;
pub use sendmail::Sendmail;
pub use sink::{Delivery, Sink};
pub use skip::{require_all, skip};
pub use smtp::{SmtpClient, SmtpReply};
pub use tempdir::TempDir;
pub use wire::Frame;
pub use words::Word;
