//! One thread's conversations, and the loop that drives them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::conversation::{Conversation, Socket, Wait};
use super::endpoint::Endpoint;
use super::world::World;
use crate::failure::Failure;

/// How often answers are looked for that are overdue.
const WATCH: Duration = Duration::from_millis(100);

/// How long after a failure the next connection is tried.
const RETRY: Duration = Duration::from_millis(100);

/// How long to wait for room among the connections that the filter has not accepted yet.
const BACKLOG_RETRY: Duration = Duration::from_millis(1);

/// A place for a conversation.
enum Slot {
    Open(Box<Conversation>),
    /// To be opened; since when that has been tried.
    Due(Instant),
    /// Nothing more comes here.
    Finished,
}

/// The conversations of one thread.
pub(super) struct Driver<'a> {
    poll: Poll,
    endpoint: &'a Endpoint,
    slots: Vec<Slot>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Slots that have something to do, now or later.
    busy: usize,
    pub(super) world: World<'a>,
}

impl<'a> Driver<'a> {
    /// Places for so many conversations, none open.
    pub(super) fn new(connections: usize, endpoint: &'a Endpoint, world: World<'a>) -> io::Result<Self> {
        Ok(Driver {
            poll: Poll::new()?,
            endpoint,
            slots: (0..connections).map(|_| Slot::Finished).collect(),
            timers: BinaryHeap::new(),
            busy: 0,
            world,
        })
    }

    /// Opens the conversation of a slot.
    pub(super) fn start(&mut self, slot: usize) {
        self.busy += 1;
        self.open(slot, Instant::now());
    }

    /// Has the conversation of a slot send a message after a rest.
    pub(super) fn wake(&mut self, slot: usize) {
        if let Slot::Open(conversation) = &mut self.slots[slot] {
            self.busy += 1;
            conversation.wake(&mut self.world);
            self.go_on(slot);
        }
    }

    /// Runs until every conversation has ended or rests.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut watch = Instant::now() + WATCH;
        while self.busy > 0 && !self.world.course.has_given_up() {
            let now = Instant::now();
            let next = self.timers.peek().map_or(watch, |Reverse((at, _))| watch.min(*at));
            match self.poll.poll(&mut events, Some(next.saturating_duration_since(now))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let now = Instant::now();
            self.world.set_time(now);
            for event in &events {
                let slot = event.token().0;
                let Slot::Open(conversation) = &mut self.slots[slot] else { continue };
                self.busy += usize::from(conversation.is_resting());
                let heard = match event.is_readable() || event.is_read_closed() || event.is_error() {
                    true => conversation.listen(event.is_read_closed(), &mut self.world),
                    false => Ok(()),
                };
                match heard {
                    Ok(()) => self.go_on(slot),
                    Err(failure) => self.fail(slot, failure),
                }
            }
            self.fire(now);
            if now >= watch {
                watch = now + WATCH;
                self.look_for_overdue(now);
            }
        }
        Ok(())
    }

    /// Serves the timers that are up. One may be of a conversation that is no more; the new one then knows better.
    fn fire(&mut self, now: Instant) {
        while let Some(&Reverse((at, slot))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            match self.slots[slot] {
                Slot::Open(_) => self.go_on(slot),
                Slot::Due(since) => self.open(slot, since),
                Slot::Finished => {}
            }
        }
    }

    fn look_for_overdue(&mut self, now: Instant) {
        for slot in 0..self.slots.len() {
            let Slot::Open(conversation) = &self.slots[slot] else { continue };
            if let Some(failure) = conversation.overdue(now, &self.world) {
                self.fail(slot, failure);
            }
        }
    }

    /// Opens a conversation, unless there are enough.
    fn open(&mut self, slot: usize, since: Instant) {
        let now = Instant::now();
        if !self.world.wants_session(now) {
            self.finish(slot);
            return;
        }
        match self.endpoint.connect() {
            Ok(socket) => self.enter(slot, socket, now),
            // The filter has not accepted those before yet.
            Err(error) if error.kind() == ErrorKind::WouldBlock && now - since < self.world.plan.patience.connect => {
                self.slots[slot] = Slot::Due(since);
                self.timers.push(Reverse((now + BACKLOG_RETRY, slot)));
            }
            Err(error) => {
                let failure = self.world.cannot_connect(&error);
                self.fail(slot, failure);
            }
        }
    }

    fn enter(&mut self, slot: usize, socket: Socket, now: Instant) {
        let mut conversation = Box::new(Conversation::new(socket, now, &self.world));
        let registered = self.poll.registry().register(conversation.source(), Token(slot), Interest::READABLE);
        self.slots[slot] = Slot::Open(conversation);
        match registered {
            Ok(()) => self.go_on(slot),
            Err(error) => {
                let failure = self.world.cannot_connect(&error);
                self.fail(slot, failure);
            }
        }
    }

    /// Lets a conversation say what it can.
    fn go_on(&mut self, slot: usize) {
        let Slot::Open(conversation) = &mut self.slots[slot] else { return };
        let registry = self.poll.registry();
        let was_full = conversation.is_full();
        let spoken = conversation.speak(&mut self.world);
        // The room for sending is asked about only where it was lacking: it changes with each octet that is read.
        if conversation.is_full() != was_full {
            let interest = match was_full {
                true => Interest::READABLE,
                false => Interest::READABLE | Interest::WRITABLE,
            };
            if let Err(error) = registry.reregister(conversation.source(), Token(slot), interest) {
                let failure = self.world.cannot_connect(&error);
                return self.fail(slot, failure);
            }
        }
        match spoken {
            Ok(Wait::Readable | Wait::Writable) => {}
            Ok(Wait::Until(at)) => self.timers.push(Reverse((at, slot))),
            Ok(Wait::Told) => self.busy -= 1,
            Ok(Wait::Nothing) => self.reopen(slot, Instant::now()),
            Err(failure) => self.fail(slot, failure),
        }
    }

    fn fail(&mut self, slot: usize, failure: Failure) {
        self.world.count_failure(failure);
        self.reopen(slot, Instant::now() + RETRY);
    }

    /// Opens another conversation in the place of one that has ended.
    fn reopen(&mut self, slot: usize, at: Instant) {
        if self.world.rests() || self.world.course.is_over(at) {
            self.finish(slot);
        } else {
            self.slots[slot] = Slot::Due(at);
            self.timers.push(Reverse((at, slot)));
        }
    }

    fn finish(&mut self, slot: usize) {
        self.slots[slot] = Slot::Finished;
        self.busy -= 1;
    }
}
