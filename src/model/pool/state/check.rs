//! Explores every order in which the threads of a small pool, its manager and the kernel can act, and checks in each
//! that nobody is forgotten.
//!
//! A thread acts in the pieces in which it holds the mutex, or does something without it that others can see: the
//! pieces are those of `pool.rs`. Worlds that look alike are explored once. A callback may never return.

use std::collections::HashSet;
use std::fs::File;
use std::rc::Rc;

use super::tests::Anybody;
use super::*;
use crate::sys::socket::Family;

const SESSIONS: usize = 2;

/// What is the same in all worlds of an exploration.
#[derive(Clone, Copy)]
struct Setting {
    processors: usize,
    limit: Option<NonZero<u16>>,
    /// How long steps take by the clock.
    step: Duration,
    /// How often something is sent to each session.
    sent: [usize; SESSIONS],
    /// How many callbacks never return.
    stuck: usize,
}

/// What a thread does next.
enum Thread {
    Lead {
        fetched: bool,
    },
    /// Has decided something that is to be done without the mutex.
    Errands(Errands, Job<Anybody>, Stage),
    /// Reads what was sent.
    Serve(Job<Anybody>),
    /// Is in a callback, which returns unless it is stuck.
    Callback {
        job: Job<Anybody>,
        stuck: bool,
    },
    Poll {
        wait: bool,
    },
    /// Has fetched events and not said so yet.
    Fetched(Vec<u64>),
    Parked,
    /// Is at what it does next right now.
    Acting,
    Gone,
}

/// What follows errands.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Serve,
    Callback { stuck: bool },
}

/// What can happen next.
#[derive(Clone, Copy, Debug)]
enum Action {
    Send(usize),
    /// The thread goes on.
    Go(usize),
    /// The thread begins a callback, perhaps of a kind that tends to block, perhaps one that never returns.
    Call {
        thread: usize,
        hand_over: bool,
        stuck: bool,
    },
    Retire(usize),
    /// The manager has woken up, and looks; `late` says that steps that are in progress have lasted too long.
    Look {
        late: bool,
    },
    ManagerErrands,
}

struct World {
    setting: Setting,
    now: Instant,
    state: State<Anybody>,
    threads: Vec<Thread>,
    tokens: Vec<Token>,
    /// Sent to a session and not read, and how often something may still be sent.
    unread: [bool; SESSIONS],
    to_send: [usize; SESSIONS],
    /// Events that nobody has fetched.
    edges: [bool; SESSIONS],
    nudged: bool,
    stuck: usize,
    armed: bool,
    errands: Option<Errands>,
}

impl World {
    fn new(setting: Setting, now: Instant) -> Self {
        let nothing = File::open("/dev/null").expect("there is one");
        let listener = Acceptor { socket: nothing.into(), family: Family::Local };
        let mut state = State::new(vec![listener], setting.processors, setting.limit);
        state.mean_step = setting.step;
        let tokens: Vec<Token> = (0..SESSIONS).map(|_| state.reserve(None)).collect();
        for &token in &tokens {
            state.end(Done::Served { token, session: Anybody, hang_up: false, next: Next::Wait }, now);
        }
        let errands = Some(state.look_after(now));
        World {
            setting,
            now,
            state,
            threads: Vec::new(),
            tokens,
            unread: [false; SESSIONS],
            to_send: setting.sent,
            edges: [false; SESSIONS],
            nudged: false,
            stuck: 0,
            armed: false,
            errands,
        }
    }

    /// What can happen; the first part by itself, the second only if somebody from outside wants it.
    fn actions(&self) -> (Vec<Action>, Vec<Action>) {
        let (mut inner, mut outer) = (Vec::new(), Vec::new());
        for (number, thread) in self.threads.iter().enumerate() {
            match thread {
                Thread::Serve(_) => {
                    for hand_over in [false, true] {
                        inner.push(Action::Call { thread: number, hand_over, stuck: false });
                        if self.stuck < self.setting.stuck {
                            outer.push(Action::Call { thread: number, hand_over, stuck: true });
                        }
                    }
                }
                Thread::Poll { wait: true } if self.edges == [false; SESSIONS] && !self.nudged => {}
                Thread::Parked if self.state.is_parked(number as u64) => outer.push(Action::Retire(number)),
                Thread::Callback { stuck: true, .. } | Thread::Acting | Thread::Gone => {}
                _ => inner.push(Action::Go(number)),
            }
        }
        if self.errands.is_some() {
            inner.push(Action::ManagerErrands);
        } else if self.armed {
            inner.push(Action::Look { late: true });
            outer.push(Action::Look { late: false });
        }
        outer.extend((0..SESSIONS).filter(|&session| self.to_send[session] > 0).map(Action::Send));
        (inner, outer)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(session) => {
                self.to_send[session] -= 1;
                self.unread[session] = true;
                self.edges[session] = true;
            }
            Action::Go(number) => self.go(number),
            Action::Call { thread, hand_over, stuck } => {
                let Thread::Serve(job) = std::mem::replace(&mut self.threads[thread], Thread::Acting) else {
                    unreachable!("it serves")
                };
                if let Job::Serve { token, .. } = &job {
                    let session = self.tokens.iter().position(|other| other == token).expect("it is one of them");
                    self.unread[session] = false;
                }
                self.stuck += usize::from(stuck);
                self.threads[thread] = if hand_over {
                    Thread::Errands(self.state.hand_over(thread as u64), job, Stage::Callback { stuck })
                } else {
                    Thread::Callback { job, stuck }
                };
            }
            Action::Retire(number) => {
                self.state.retire(number as u64);
                self.threads[number] = Thread::Gone;
            }
            Action::Look { late } => {
                self.armed = false;
                let now = if late { self.now + PATIENCE } else { self.now };
                self.errands = Some(self.state.look_after(now));
            }
            Action::ManagerErrands => {
                let errands = self.errands.take().expect("there are some");
                self.run_errands(errands);
            }
        }
    }

    fn go(&mut self, number: usize) {
        let id = number as u64;
        let next = match std::mem::replace(&mut self.threads[number], Thread::Acting) {
            Thread::Lead { fetched } => match self.state.turn(fetched) {
                Turn::Run(job) => Thread::Errands(self.state.enter_step(id, self.now), job, Stage::Serve),
                Turn::Poll { wait } => {
                    self.state.begin_poll();
                    Thread::Poll { wait }
                }
                Turn::Leave => self.park(id),
            },
            Thread::Errands(errands, job, stage) => {
                self.run_errands(errands);
                match stage {
                    Stage::Serve => Thread::Serve(job),
                    Stage::Callback { stuck } => Thread::Callback { job, stuck },
                }
            }
            Thread::Callback { job, .. } => {
                let Job::Serve { token, session, hang_up, .. } = job else { unreachable!("only sessions are served") };
                self.state.end(Done::Served { token, session, hang_up, next: Next::Wait }, self.now);
                let leads = self.state.leave_step(id, Some(self.setting.step), self.now + self.setting.step);
                if leads || self.state.rejoin() { Thread::Lead { fetched: false } } else { self.park(id) }
            }
            Thread::Poll { .. } => {
                let edges = std::mem::take(&mut self.edges);
                self.nudged = false;
                let fetched = self.tokens.iter().zip(edges).filter(|(_, edge)| *edge);
                Thread::Fetched(fetched.map(|(token, _)| u64::from(*token)).collect())
            }
            Thread::Fetched(events) => {
                self.state.end_poll();
                events.into_iter().for_each(|event| self.state.note(event, false));
                Thread::Lead { fetched: true }
            }
            Thread::Parked => Thread::Lead { fetched: false },
            Thread::Serve(_) | Thread::Acting | Thread::Gone => unreachable!("it has nothing to do"),
        };
        self.threads[number] = next;
    }

    fn park(&mut self, id: u64) -> Thread {
        self.state.park(id, &Arc::new(Condvar::new()));
        Thread::Parked
    }

    fn run_errands(&mut self, errands: Errands) {
        self.armed |= errands.timer.is_some();
        self.nudged |= errands.nudge;
        if errands.start {
            // Numbers are used again, so that there is an end to the worlds.
            match self.threads.iter_mut().find(|thread| matches!(thread, Thread::Gone)) {
                Some(thread) => *thread = Thread::Lead { fetched: false },
                None => self.threads.push(Thread::Lead { fetched: false }),
            }
        }
    }

    /// What always holds.
    fn check(&self) -> Result<(), &'static str> {
        let leads = |(number, thread): (usize, &Thread)| match thread {
            Thread::Lead { .. } | Thread::Poll { .. } | Thread::Fetched(_) => true,
            Thread::Parked => !self.state.is_parked(number as u64),
            Thread::Errands(..) | Thread::Serve(_) | Thread::Callback { .. } => {
                self.state.steps.iter().any(|step| step.thread == number as u64)
            }
            Thread::Acting | Thread::Gone => false,
        };
        let of_threads = self.threads.iter().filter_map(|thread| match thread {
            Thread::Errands(errands, ..) => Some(errands),
            _ => None,
        });
        let to_start = self.errands.iter().chain(of_threads).filter(|errands| errands.start).count();
        let leaders = self.threads.iter().enumerate().filter(|thread| leads(*thread)).count();
        let alive = self.threads.iter().filter(|thread| !matches!(thread, Thread::Gone)).count();
        let limit = self.setting.limit.map_or(usize::MAX, |limit| limit.get().into());
        match () {
            _ if self.state.leaders != leaders + to_start => Err("leaders are miscounted"),
            // One that comes back when all others wait for events leads without waking any of them.
            _ if self.state.leaders > self.setting.processors + 1 => Err("there are too many leaders"),
            _ if self.state.threads != alive + to_start => Err("threads are miscounted"),
            _ if self.state.threads > limit => Err("there are more threads than allowed"),
            _ => Ok(()),
        }
    }

    /// What holds when nothing happens any more unless from outside.
    fn check_at_rest(&self) -> Result<(), &'static str> {
        let all_stuck = self.setting.limit.is_some_and(|limit| self.stuck == usize::from(limit.get()));
        let forgotten = self.tokens.iter().zip(self.unread).any(|(token, unread)| {
            let in_callback = self.threads.iter().any(|thread| {
                matches!(thread, Thread::Callback { job: Job::Serve { token: other, .. }, .. } if other == token)
            });
            unread && !in_callback
        });
        if forgotten && !all_stuck { Err("a session is forgotten") } else { Ok(()) }
    }

    /// Says the same of worlds that will go on alike; which thread is which makes no difference.
    fn fingerprint(&self) -> String {
        let job = |job: &Job<Anybody>| match job {
            Job::Serve { token, hang_up, continued, .. } => format!("{}{hang_up}{continued}", u64::from(*token)),
            Job::Expire { .. } | Job::Admit(_) => unreachable!("neither happens"),
        };
        let state = &self.state;
        let describe = |(number, thread): (usize, &Thread)| {
            let doing = match thread {
                Thread::Lead { fetched } => format!("L{fetched}"),
                Thread::Errands(errands, of, stage) => format!("E{errands:?}{}{stage:?}", job(of)),
                Thread::Serve(of) => format!("S{}", job(of)),
                Thread::Callback { job: of, stuck } => format!("C{}{stuck}", job(of)),
                Thread::Poll { wait } => format!("P{wait}"),
                Thread::Fetched(events) => format!("F{events:?}"),
                Thread::Parked => "K".into(),
                Thread::Acting | Thread::Gone => return None,
            };
            let in_step = state.steps.iter().any(|step| step.thread == number as u64);
            let parked = state.parked.iter().position(|parked| parked.thread == number as u64);
            Some(format!("{doing}{in_step}{parked:?}"))
        };
        let mut threads: Vec<String> = self.threads.iter().enumerate().filter_map(describe).collect();
        threads.sort();
        let ready: Vec<String> = state.ready.iter().map(job).collect();
        let news: Vec<_> = self.tokens.iter().map(|token| state.slots.news(*token)).collect();
        let counts = (state.leaders, state.pollers, state.threads, state.watch.is_some(), self.stuck);
        let kernel = (self.unread, self.to_send, self.edges, self.nudged, self.armed);
        format!("{threads:?}{ready:?}{news:?}{counts:?}{kernel:?}{:?}", self.errands)
    }
}

/// How a world came about.
struct Past {
    action: Action,
    before: Option<Rc<Past>>,
}

fn history(past: Option<&Rc<Past>>) -> Vec<Action> {
    let mut actions: Vec<Action> =
        std::iter::successors(past, |past| past.before.as_ref()).map(|past| past.action).collect();
    actions.reverse();
    actions
}

/// Explores all worlds, the nearest first, and gives how many there are.
fn explore(setting: Setting) -> usize {
    let now = Instant::now();
    let mut known = HashSet::new();
    let mut frontier: VecDeque<Option<Rc<Past>>> = VecDeque::from([None]);
    while let Some(past) = frontier.pop_front() {
        let history = history(past.as_ref());
        let mut world = World::new(setting, now);
        history.iter().for_each(|action| world.act(*action));
        if !known.insert(world.fingerprint()) {
            continue;
        }
        let (inner, outer) = world.actions();
        let at_rest = if inner.is_empty() { world.check_at_rest() } else { Ok(()) };
        if let Err(what) = world.check().and(at_rest) {
            panic!("{what} after {history:?}");
        }
        let actions = inner.into_iter().chain(outer);
        frontier.extend(actions.map(|action| Some(Rc::new(Past { action, before: past.clone() }))));
    }
    known.len()
}

fn nobody_is_forgotten(step: Duration, limit: Option<u16>) {
    let limit = limit.and_then(NonZero::new);
    let worlds = explore(Setting { processors: 2, limit, step, sent: [2, 1], stuck: 2 });
    assert!(worlds > 200, "{worlds}");
}

#[test]
fn quick_steps() {
    nobody_is_forgotten(Duration::ZERO, None);
}

#[test]
fn long_steps() {
    nobody_is_forgotten(2 * LONG_STEP, None);
}

#[test]
fn two_threads() {
    nobody_is_forgotten(2 * LONG_STEP, Some(2));
}

#[test]
fn one_thread() {
    nobody_is_forgotten(Duration::ZERO, Some(1));
}
