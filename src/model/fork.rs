//! A process for each connection: a callback that crashes costs its session.
//!
//! This process only takes connections, and forks. A child serves its session like a thread of `threads`, and leaves.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::children::{Children, Kind, Parent, Standing, Then};
use super::{Admission, Connection, Model, Service, Session, Ticket, patience, serve_the_rest, wait_out_for_session};
use crate::sys::child::{self, Alone};
use crate::sys::poll::{self, Interest};
use crate::sys::shared::Shared;
use crate::sys::socket::{self, Acceptor};

/// The model `fork`.
pub(crate) struct Fork(pub(crate) Alone);

impl Model for Fork {
    fn run<V: Service>(self, service: Arc<V>, listeners: Vec<Acceptor>) -> io::Result<()> {
        let mut children = Children::gather(self.0)?;
        let outcome = match accept(&*service, &mut children, &listeners) {
            Ok(Role::Child(connection, standing)) => {
                drop(listeners);
                let parent = children.into_parent(standing);
                let serve = || {
                    serve(&service, connection, &parent);
                    parent.end_session();
                };
                // Not even a panic may lead back into the program's code, which goes on in the parent.
                child::leave(catch_unwind(AssertUnwindSafe(serve)).map_or(1, |()| 0))
            }
            Ok(Role::Parent) => Ok(()),
            Err(error) => Err(error),
        };
        drop(listeners);
        let drained = children.drain(&*service);
        children.take_leave(&service);
        outcome.and(drained)
    }
}

/// Who comes back from taking connections.
enum Role {
    /// The process that took them, because it is to stop.
    Parent,
    /// The process that is to serve this one.
    Child(Connection, Shared<Standing>),
}

fn accept<V: Service>(service: &V, children: &mut Children, listeners: &[Acceptor]) -> io::Result<Role> {
    let mut waiting = None;
    while !service.stopping() {
        let mut then = Then::Listen;
        for listener in listeners {
            match waiting.take().map_or_else(|| service.accept(listener), Admission::Taken) {
                Admission::Taken(connection) => match children.fork(Kind::Session(connection.ticket)) {
                    Ok(Some(standing)) => return Ok(Role::Child(connection, standing)),
                    Ok(None) => then = then.max(Then::GoOn),
                    Err(error) => {
                        service.exhausted(&error);
                        waiting = Some(connection);
                        then = Then::Pause;
                    }
                },
                Admission::Again => then = then.max(Then::GoOn),
                Admission::Empty => {}
                Admission::Pause => then = Then::Pause,
            }
        }
        for departed in children.wait(service, listeners, then, None)? {
            departed.bury(service);
        }
    }
    if let Some(Connection { ticket: Ticket { number, refused, .. }, .. }) = waiting {
        service.depart(usize::from(!refused));
        service.lost(format_args!("[{number}] no process could be started until the stop, the session is lost"));
    }
    Ok(Role::Parent)
}

/// Serves one session to its end.
fn serve<V: Service>(service: &Arc<V>, connection: Connection, parent: &Parent) {
    service.forked();
    // Its end is the parent's to count, who sees the process end in any case.
    let mut session = ManuallyDrop::new(service.open(connection));
    let began = Instant::now();
    let mut scratch = Default::default();
    let mut settled = false;
    let mut failed = 0;
    loop {
        let connection = (session.connection(), Interest::Read);
        let life = (parent.lifeline.as_fd(), Interest::Read);
        let stop = (service.stop_descriptor(), Interest::Read);
        let limit = patience(&**service, &session, began);
        let ready = match limit {
            Some(Duration::ZERO) => Ok([false; 3]),
            _ if settled => {
                poll::wait([connection, life], limit).map(|[readable, orphaned]| [readable, orphaned, false])
            }
            _ => poll::wait([connection, life, stop], limit),
        };
        let ready = match wait_out_for_session(&**service, ready, &mut failed) {
            Ok(Some(ready)) => Ok(ready),
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        if settled && !session.in_message() {
            parent.begin();
        }
        let next = match ready {
            Ok([_, true, _]) => return,
            Ok([_, _, true]) => {
                settled = true;
                serve_the_rest(&mut *session, &mut scratch)
            }
            Ok([true, ..]) => session.serve(&mut scratch, &mut (), false),
            Ok(_) => session.expire(&mut ()),
            Err(error) => session.fail(&error, &mut ()),
        };
        if next.is_over() {
            // What is to be finished is nothing to the MTA, which may have hung up itself.
            let _ = socket::hang_up(session.connection());
            return service.leaving();
        }
        if settled && !session.in_message() {
            parent.end(&**service);
        }
    }
}
