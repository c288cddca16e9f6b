//! Who gets a session when there are as many as there may be.
//!
//! Connections wait with the kernel then. Where waiting is limited they are taken, wait here, and are refused when their
//! time is up, by a filter that stands in for the real one: the MTA hears a proper refusal for now.

use std::collections::{TryReserveError, VecDeque};
use std::ffi::{CStr, c_int};
use std::io;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use milter_protocol::{Actions, Callback, Callbacks, Profile, Steps};
use parking_lot::Mutex;

use super::Filter;
use super::context::Context;
use super::service::Server;
use crate::model::Service;
use crate::sys::shared::Shared;
use crate::sys::socket::Family;

/// How many sessions there may be, and how long others may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) sessions: Option<NonZero<u32>>,
    /// `None` is for as long as the MTA likes.
    pub(super) wait: Option<Duration>,
}

impl Limits {
    pub(super) const NONE: Self = Limits { sessions: None, wait: None };
}

/// A connection that waits for a session.
pub(super) struct Visitor {
    pub(super) connection: OwnedFd,
    pub(super) family: Family,
    since: Instant,
}

/// Where connections wait.
pub(super) struct Lobby {
    limits: Limits,
    visitors: Mutex<VecDeque<Visitor>>,
    /// In all processes.
    sessions: Shared<AtomicUsize>,
}

/// A place among the sessions that there may be; given back when it is dropped.
pub(super) struct Seat(Arc<Server>);

impl Seat {
    /// That of a session which the lobby has let in.
    pub(super) fn of(server: &Arc<Server>) -> Self {
        Seat(Arc::clone(server))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.depart(1);
    }
}

/// What has become of a connection that waits.
pub(super) enum Called {
    /// There is room for its session.
    In(Visitor),
    /// It has waited long enough.
    Off(Visitor),
}

impl Lobby {
    pub(super) fn new(limits: Limits) -> io::Result<Self> {
        Ok(Lobby { limits, visitors: Mutex::default(), sessions: Shared::new(AtomicUsize::new(0))? })
    }

    /// Counts one more session.
    pub(super) fn enter(&self) {
        self.sessions.fetch_add(1, SeqCst);
    }

    /// Counts sessions as over.
    pub(super) fn leave(&self, sessions: usize) {
        // A worker that dies between counting here and in its tally has a session counted twice: without an end at zero
        // the number would wrap, and nobody would ever get a session again.
        let _ = self.sessions.fetch_update(SeqCst, SeqCst, |all| Some(all.saturating_sub(sessions)));
    }

    /// How many sessions there are.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(SeqCst)
    }

    /// Whether there are as many sessions as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.limits.sessions.is_some_and(|most| self.sessions() >= most.get() as usize)
    }

    /// Whether connections that find no room are taken in to wait here.
    pub(super) fn is_open(&self) -> bool {
        self.limits.wait.is_some()
    }

    /// Whether nobody waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.limits.wait.is_none() || self.visitors.lock().is_empty()
    }

    /// Makes room for one more connection that waits, if connections do. Fails when there is no memory.
    pub(super) fn make_room(&self) -> Result<(), TryReserveError> {
        if self.is_open() { self.visitors.lock().try_reserve(1) } else { Ok(()) }
    }

    /// Has a connection wait.
    pub(super) fn seat_visitor(&self, connection: OwnedFd, family: Family) {
        self.visitors.lock().push_back(Visitor { connection, family, since: Instant::now() });
    }

    /// The connection that has waited for longest, if its time has come in one way or the other.
    pub(super) fn call(&self) -> Option<Called> {
        let wait = self.limits.wait?;
        let mut visitors = self.visitors.lock();
        let waited = visitors.front()?.since.elapsed();
        if !self.is_full() {
            visitors.pop_front().map(Called::In)
        } else if waited >= wait {
            visitors.pop_front().map(Called::Off)
        } else {
            None
        }
    }

    /// Sends everybody away.
    pub(super) fn close(&self) {
        self.visitors.lock().clear();
    }
}

/// What a callback returns to refuse for now (`SMFIS_TEMPFAIL`).
const TEMPFAIL: c_int = 4;

/// Stands in for the filter in sessions that cannot be had: whatever the MTA asks first, it is refused for now.
pub(super) struct Refusal;

impl Filter for Refusal {
    fn name(&self) -> &CStr {
        c"libmilter"
    }

    fn profile(&self) -> Profile {
        let callbacks = Callbacks::CONNECT | Callbacks::HELO | Callbacks::ENVFROM | Callbacks::ENVRCPT;
        Profile { version: 0x0100_0001, actions: Actions::empty(), callbacks, promised: Steps::empty() }
    }

    fn call(&self, _: &Context, _: &mut Callback<'_>) -> Option<c_int> {
        Some(TEMPFAIL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_end_twice_leave_room() {
        let lobby = Lobby::new(Limits { sessions: NonZero::new(1), wait: None }).unwrap();
        lobby.enter();
        assert!(lobby.is_full());
        lobby.leave(2);
        assert!(!lobby.is_full());
        lobby.enter();
        assert_eq!(lobby.sessions(), 1);
    }
}
