//! Decisions without threads, events and time.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use super::*;
use crate::model::Pace;
use crate::sys::socket::Family;

/// A session that nobody serves.
pub(super) struct Anybody;

impl Session for Anybody {
    type Scratch = ();

    const KINDS: usize = 1;

    fn connection(&self) -> BorrowedFd<'_> {
        unreachable!("nobody serves this session")
    }

    fn serve(&mut self, (): &mut (), _: &mut dyn Pace, _: bool) -> Next {
        unreachable!("nobody serves this session")
    }

    fn fail(&mut self, _: &io::Error, _: &mut dyn Pace) -> Next {
        unreachable!("nobody serves this session")
    }

    fn expire(&mut self, _: &mut dyn Pace) -> Next {
        unreachable!("nobody serves this session")
    }

    fn is_introduced(&self) -> bool {
        true
    }

    fn in_message(&self) -> bool {
        false
    }
}

fn with_session() -> (State<Anybody>, Token) {
    let nothing = File::open("/dev/null").unwrap();
    let listener = Acceptor { socket: nothing.into(), family: Family::Local };
    let mut state = State::new(vec![listener], 1, None);
    let token = state.reserve(None);
    served(&mut state, token, false);
    (state, token)
}

fn served(state: &mut State<Anybody>, token: Token, hang_up: bool) {
    state.end(Done::Served { token, session: Anybody, hang_up, next: Next::Wait }, Instant::now());
}

fn stop(state: &mut State<Anybody>) {
    state.stop(Instant::now());
    drop(state.take_listeners());
}

/// Whether a session is to be served, and to the end of what it has received.
fn serves(state: &mut State<Anybody>) -> Option<bool> {
    match state.turn(true) {
        Turn::Run(Job::Serve { hang_up, .. }) => Some(hang_up),
        _ => None,
    }
}

#[test]
fn a_stop_serves_idle_sessions_once_more() {
    let (mut state, token) = with_session();
    stop(&mut state);
    assert!(!state.is_quiet());
    assert_eq!(serves(&mut state), Some(true));
    served(&mut state, token, true);
    assert!(state.is_quiet());
}

#[test]
fn a_stop_serves_sessions_in_a_step_once_more() {
    let (mut state, token) = with_session();
    state.note(token.into(), false);
    assert_eq!(serves(&mut state), Some(false));
    stop(&mut state);
    served(&mut state, token, false);
    assert!(!state.is_quiet());
    assert_eq!(serves(&mut state), Some(true));
    served(&mut state, token, true);
    assert!(state.is_quiet());
}

#[test]
fn a_hang_up_holds_until_everything_has_been_read() {
    let (mut state, token) = with_session();
    state.note(token.into(), true);
    assert_eq!(serves(&mut state), Some(true));
    state.end(Done::Served { token, session: Anybody, hang_up: true, next: Next::More }, Instant::now());
    assert_eq!(serves(&mut state), Some(true));
}
