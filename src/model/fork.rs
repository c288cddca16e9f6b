//! A process for each connection: a callback that crashes costs its session.
//!
//! This process only takes connections, and forks. A child serves its session like a thread of `threads`, and leaves.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::children::{Busy, Children, Kind, Then};
use super::{Admission, Connection, Model, Service, Session, serve_the_rest};
use crate::sys::poll::{self, Interest};
use crate::sys::{child, descriptor};

/// The model `fork`.
pub(crate) struct Fork(pub(crate) Children);

impl Model for Fork {
    fn run<V: Service>(self, service: Arc<V>, listener: OwnedFd) -> io::Result<()> {
        let Fork(mut children) = self;
        let [all_quiet, busy] = descriptor::pipe()?;
        let outcome = match accept(&*service, &mut children, &listener) {
            Ok(Role::Child(connection)) => {
                drop((listener, all_quiet));
                let lifeline = children.into_lifeline();
                let serve = || serve(&service, connection, &lifeline, Busy(busy));
                // Not even a panic may lead back into the program's code, which goes on in the parent.
                child::leave(catch_unwind(AssertUnwindSafe(serve)).map_or(1, |()| 0))
            }
            Ok(Role::Parent) => Ok(()),
            Err(error) => Err(error),
        };
        drop((listener, busy));
        let drained = children.drain(&*service, &all_quiet);
        children.take_leave(&service);
        outcome.and(drained)
    }
}

/// Who comes back from taking connections.
enum Role {
    /// The process that took them, because it is to stop.
    Parent,
    /// The process that is to serve this one.
    Child(Connection),
}

fn accept<V: Service>(service: &V, children: &mut Children, listener: &OwnedFd) -> io::Result<Role> {
    let mut waiting = None;
    while !service.stopping() {
        let then = match waiting.take().map_or_else(|| service.accept(listener.as_fd()), Admission::Taken) {
            Admission::Taken(connection) => match children.fork(Kind::Session(connection.number)) {
                Ok(None) => return Ok(Role::Child(connection)),
                Ok(Some(_)) => Then::GoOn,
                Err(error) => {
                    service.exhausted(&error);
                    waiting = Some(connection);
                    Then::Pause
                }
            },
            Admission::Again => Then::GoOn,
            Admission::Empty => Then::Listen,
            Admission::Pause => Then::Pause,
        };
        let departed = children.wait(service, listener, then, None)?;
        departed.iter().for_each(|departed| departed.tell(service));
    }
    Ok(Role::Parent)
}

/// Serves one session to its end.
fn serve<V: Service>(service: &Arc<V>, connection: Connection, lifeline: &OwnedFd, busy: Busy) {
    service.forked();
    let mut session = service.open(connection);
    let mut scratch = Default::default();
    let mut busy = Some(busy);
    let mut settled = false;
    loop {
        let connection = (session.connection(), Interest::Read);
        let life = (lifeline.as_fd(), Interest::Read);
        let ready = if settled {
            poll::wait([connection, life], service.timeout()).map(|[readable, orphaned]| [readable, orphaned, false])
        } else {
            let stop = (service.stop_descriptor(), Interest::Read);
            poll::wait([connection, life, stop], service.timeout())
        };
        let next = match ready {
            Ok([_, true, _]) => return,
            Ok([_, _, true]) => {
                settled = true;
                serve_the_rest(&mut session, &mut scratch)
            }
            Ok([true, ..]) => session.serve(&mut scratch, &mut (), false),
            _ => session.expire(&mut ()),
        };
        if next.is_over() {
            return;
        }
        if settled && !session.in_message() {
            drop(busy.take());
        }
    }
}
