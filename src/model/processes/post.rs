//! What one worker after another holds: a channel, and what is known of the worker at its other end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::model::{Connection, PAUSE, Ticket};
use crate::sys::channel::{self, Message};
use crate::sys::shared::Shared;
use crate::sys::socket::Family;

/// How long a connection may lie in a channel before it is taken back. A worker that has merely to be woken takes it much
/// sooner; where the machine is too busy for that, the first worker that answers gets it.
const IN_TIME: Duration = Duration::from_millis(10);

/// How long a worker may owe an answer before the operator is told.
const STUCK: Duration = Duration::from_secs(5);

/// A worker that lives shorter than this makes the next one wait.
const SHORT: Duration = Duration::from_secs(2);

/// The longest wait for a worker.
const LONGEST_VACANCY: Duration = Duration::from_secs(5);

/// What one worker after another does.
pub(super) struct Post {
    passing: OwnedFd,
    pub(super) taking: OwnedFd,
    pub(super) tally: Shared<Tally>,
    pub(super) holder: Holder,
    /// Messages that the worker has got or will get: those passed, less those taken back.
    sent: u64,
    /// Sessions that it has had or will have.
    sessions: u64,
    /// What it has to answer, from the message on until it has taken that.
    owed: Option<Owed>,
    /// Workers in a row that lived a short time only.
    pub(super) short_lives: u32,
}

pub(super) enum Holder {
    Worker { since: Instant },
    Nobody { until: Instant },
}

/// An answer that is due.
struct Owed {
    since: Instant,
    /// The message that lies in the channel, as far as is known.
    message: Outstanding,
    /// The operator knows.
    is_told: bool,
}

enum Outstanding {
    /// A connection that counts so much, to be taken back from the moment on.
    Connection {
        load: u64,
        until: Instant,
    },
    /// A connection that could not be taken back: the worker has received it, and is about to say so.
    Received,
    /// Nothing; a probe could not be passed yet.
    Nothing,
    Probe,
}

/// What a look at a worker has shown.
#[derive(Default)]
pub(super) struct Findings {
    /// What the worker has not taken in time.
    pub(super) returned: Option<Connection>,
    pub(super) news: Option<News>,
}

/// What the operator should know of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It has not taken a connection for so long.
    Stuck(Duration),
    /// It takes connections again.
    Answers,
}

/// What a worker tells the supervisor, in memory that both have.
#[derive(Default)]
pub(super) struct Tally {
    /// Messages taken.
    pub(super) taken: AtomicU64,
    /// Sessions ended.
    pub(super) ended: AtomicU64,
    /// The supervisor waits for the next message to be taken.
    pub(super) is_awaited: AtomicBool,
}

impl Ticket {
    /// The ticket as it goes with a connection.
    pub(super) fn label(self) -> u64 {
        self.number << 2 | u64::from(self.family == Family::Local) << 1 | u64::from(self.refused)
    }

    pub(super) fn from_label(label: u64) -> Self {
        let family = if label & 2 == 0 { Family::Internet } else { Family::Local };
        Ticket { number: label >> 2, family, refused: label & 1 != 0 }
    }

    /// How much it counts: who is refused needs no callback.
    pub(super) fn load(self) -> u64 {
        u64::from(!self.refused)
    }
}

impl Post {
    pub(super) fn new() -> io::Result<Self> {
        let [passing, taking] = channel::channel()?;
        let tally = Shared::new(Tally::default())?;
        let holder = Holder::Nobody { until: Instant::now() };
        Ok(Post { passing, taking, tally, holder, sent: 0, sessions: 0, owed: None, short_lives: 0 })
    }

    /// Sessions that the worker has, or will have when it has taken what was passed.
    pub(super) fn load(&self) -> u64 {
        self.sessions - self.tally.ended.load(SeqCst)
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.holder, Holder::Worker { .. })
    }

    /// Whether the worker is known to have taken all that was passed.
    pub(super) fn is_ready(&self) -> bool {
        self.is_held() && self.owed.is_none()
    }

    /// Whether something may be passed at the stop, when nothing is taken back any more: not to a worker that may be in the
    /// middle of taking what has been taken back from it, which only a probe may follow.
    pub(super) fn may_get_more(&self) -> bool {
        self.is_held() && !matches!(self.owed, Some(Owed { message: Outstanding::Nothing, .. }))
    }

    /// Has the worker call the supervisor when it takes the next message. It may have taken it already.
    pub(super) fn await_answer(&self) {
        self.tally.is_awaited.store(true, SeqCst);
    }

    fn has_answered(&self) -> bool {
        let is_asked = !matches!(self.owed, Some(Owed { message: Outstanding::Nothing, .. }));
        is_asked && self.tally.taken.load(SeqCst) == self.sent
    }

    /// Passes a connection to the worker, which is ready for it. (At the stop, when nothing is taken back any more, it need
    /// not be.)
    pub(super) fn pass(&mut self, connection: &Connection, now: Instant) -> io::Result<()> {
        let Connection { descriptor, ticket } = connection;
        channel::pass(self.passing.as_fd(), descriptor.as_fd(), ticket.label())?;
        self.sent += 1;
        self.sessions += ticket.load();
        let message = Outstanding::Connection { load: ticket.load(), until: now + IN_TIME };
        self.owed = Some(Owed { since: now, message, is_told: false });
        Ok(())
    }

    /// Sees whether the worker has answered; takes back what it has not taken in time, and asks for an answer instead.
    /// `any` is any descriptor.
    pub(super) fn look(&mut self, any: BorrowedFd<'_>, now: Instant) -> Findings {
        let mut findings = Findings::default();
        if !self.is_held() || self.owed.is_none() {
            return findings;
        }
        if self.has_answered() {
            findings.news = self.owed.take().filter(|owed| owed.is_told).map(|_| News::Answers);
            return findings;
        }
        if let Some(Owed { message: Outstanding::Connection { load, until }, .. }) = self.owed
            && until <= now
        {
            let message = match channel::take(self.taking.as_fd()) {
                Ok(Some(Message::Connection(descriptor, label))) => {
                    self.sent -= 1;
                    self.sessions -= load;
                    findings.returned = Some(Connection { descriptor, ticket: Ticket::from_label(label) });
                    Outstanding::Nothing
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outstanding::Received,
                // There is no descriptor for it.
                _ => Outstanding::Connection { load, until: now + PAUSE },
            };
            self.owe(message);
        }
        if matches!(self.owed, Some(Owed { message: Outstanding::Nothing, .. }))
            && channel::pass_probe(self.passing.as_fd(), any).is_ok()
        {
            self.sent += 1;
            self.owe(Outstanding::Probe);
        }
        if let Some(owed) = self.owed.as_mut().filter(|owed| !owed.is_told && now - owed.since >= STUCK) {
            owed.is_told = true;
            findings.news = Some(News::Stuck(now - owed.since));
        }
        findings
    }

    fn owe(&mut self, message: Outstanding) {
        if let Some(owed) = &mut self.owed {
            owed.message = message;
        }
    }

    /// When to look next even if the worker does not answer.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        let owed = self.owed.as_ref().filter(|_| self.is_held())?;
        let told = (!owed.is_told).then_some(owed.since + STUCK);
        let message = match owed.message {
            Outstanding::Connection { until, .. } => Some(until),
            Outstanding::Nothing => Some(now + PAUSE),
            Outstanding::Received | Outstanding::Probe => None,
        };
        told.into_iter().chain(message).min()
    }

    /// Notes the end of the worker; says how many sessions it had, what it has not taken, and how long the post stays
    /// vacant. What is neither in the channel nor over was the worker's, also if it had no time to say so.
    pub(super) fn vacate(&mut self, now: Instant) -> (u64, Option<Connection>, Duration) {
        let Holder::Worker { since } = self.holder else { return (0, None, Duration::ZERO) };
        let load = match self.owed {
            Some(Owed { message: Outstanding::Connection { load, .. }, .. }) => load,
            _ => 0,
        };
        let (left, owed) = match channel::take(self.taking.as_fd()) {
            Ok(Some(Message::Connection(descriptor, label))) => {
                (Some(Connection { descriptor, ticket: Ticket::from_label(label) }), None)
            }
            // There is no descriptor for the message, which the next worker has to take.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => (None, self.owed.take()),
            _ => (None, None),
        };
        let is_left = left.is_some() || owed.is_some();
        let lost = self.load() - if is_left { load } else { 0 };
        self.tally.taken.store(0, SeqCst);
        self.tally.ended.store(0, SeqCst);
        (self.sent, self.sessions) = if owed.is_some() { (1, load) } else { (0, 0) };
        self.owed = owed.map(|owed| Owed { since: now, ..owed });
        self.short_lives = if now - since < SHORT { self.short_lives.saturating_add(1) } else { 0 };
        let vacancy = vacancy(self.short_lives);
        self.holder = Holder::Nobody { until: now + vacancy };
        (lost, left, vacancy)
    }
}

/// How long a post stays vacant after so many workers in a row that lived a short time only.
pub(super) fn vacancy(short_lives: u32) -> Duration {
    match short_lives {
        0 | 1 => Duration::ZERO,
        lives => Duration::from_millis(100 << (lives - 2).min(10)).min(LONGEST_VACANCY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_keep_dying_are_replaced_more_and_more_slowly() {
        let vacancies: Vec<u128> = (0..10).map(|lives| vacancy(lives).as_millis()).collect();
        assert_eq!(vacancies, [0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(vacancy(u32::MAX), LONGEST_VACANCY);
    }

    #[test]
    fn tickets_go_with_connections() {
        for (family, refused) in [(Family::Internet, false), (Family::Local, false), (Family::Local, true)] {
            let ticket = Ticket { number: 1 << 40, family, refused };
            assert_eq!(Ticket::from_label(ticket.label()), ticket);
        }
    }

    /// A post that a worker holds.
    fn held(now: Instant) -> Post {
        let mut post = Post::new().unwrap();
        post.holder = Holder::Worker { since: now };
        post
    }

    fn connection(number: u64) -> Connection {
        let [descriptor, _] = channel::channel().unwrap();
        Connection { descriptor, ticket: Ticket { number, family: Family::Local, refused: false } }
    }

    /// What a worker does.
    fn take(post: &Post) -> Message {
        let message = channel::take(post.taking.as_fd()).unwrap().unwrap();
        post.tally.taken.fetch_add(1, SeqCst);
        message
    }

    #[test]
    fn a_worker_gets_nothing_more_before_it_has_taken_what_it_got() {
        let start = Instant::now();
        let mut post = held(start);
        let any = connection(0).descriptor;
        assert!(post.is_ready());
        post.pass(&connection(1), start).unwrap();
        assert!(post.look(any.as_fd(), start).returned.is_none());
        assert_eq!((post.is_ready(), post.load(), post.next_look(start)), (false, 1, Some(start + IN_TIME)));
        take(&post);
        assert!(post.look(any.as_fd(), start + IN_TIME).returned.is_none());
        assert_eq!((post.is_ready(), post.load(), post.next_look(start)), (true, 1, None));
    }

    #[test]
    fn what_is_not_taken_in_time_comes_back_and_the_worker_has_to_answer() {
        let start = Instant::now();
        let mut post = held(start);
        let any = connection(0).descriptor;
        post.pass(&connection(7), start).unwrap();
        let findings = post.look(any.as_fd(), start + IN_TIME);
        assert_eq!((findings.returned.unwrap().ticket.number, findings.news), (7, None));
        assert_eq!((post.is_ready(), post.load(), post.next_look(start)), (false, 0, Some(start + STUCK)));
        let told = post.look(any.as_fd(), start + STUCK).news;
        assert_eq!(told, Some(News::Stuck(STUCK)));
        assert_eq!((post.look(any.as_fd(), start + 2 * STUCK).news, post.next_look(start)), (None, None));
        assert!(matches!(take(&post), Message::Probe));
        assert_eq!(post.look(any.as_fd(), start + 2 * STUCK).news, Some(News::Answers));
        assert!(post.is_ready());
    }

    #[test]
    fn a_worker_that_answers_soon_is_no_news() {
        let start = Instant::now();
        let mut post = held(start);
        let any = connection(0).descriptor;
        post.pass(&connection(1), start).unwrap();
        assert!(post.look(any.as_fd(), start + IN_TIME).returned.is_some());
        take(&post);
        assert_eq!(post.look(any.as_fd(), start + IN_TIME).news, None);
        assert!(post.is_ready());
    }

    /// The worker is stopped between the two.
    #[test]
    fn what_has_been_taken_and_not_said_is_waited_for() {
        let start = Instant::now();
        let mut post = held(start);
        let any = connection(0).descriptor;
        post.pass(&connection(1), start).unwrap();
        channel::take(post.taking.as_fd()).unwrap();
        assert!(post.look(any.as_fd(), start + IN_TIME).returned.is_none());
        assert_eq!((post.is_ready(), post.load(), post.next_look(start)), (false, 1, Some(start + STUCK)));
        post.tally.taken.fetch_add(1, SeqCst);
        post.look(any.as_fd(), start + IN_TIME);
        assert!(post.is_ready());
    }

    #[test]
    fn what_no_worker_has_taken_is_left_and_the_rest_is_lost() {
        let start = Instant::now();
        let mut post = held(start);
        for number in 1..4 {
            post.pass(&connection(number), start).unwrap();
            take(&post);
        }
        post.tally.ended.fetch_add(1, SeqCst);
        post.pass(&connection(4), start).unwrap();
        let (lost, left, vacancy) = post.vacate(start + SHORT);
        assert_eq!((lost, left.map(|it| it.ticket.number), vacancy), (2, Some(4), Duration::ZERO));
        assert_eq!((post.load(), post.is_held()), (0, false));
        // It dies between taking a connection and saying so.
        let mut post = held(start);
        post.pass(&connection(5), start).unwrap();
        channel::take(post.taking.as_fd()).unwrap();
        let (lost, left, _) = post.vacate(start + SHORT);
        assert_eq!((lost, left.is_some()), (1, false));
        assert_eq!(post.load(), 0);
    }
}
