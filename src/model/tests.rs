//! What every model promises, with sessions that echo octets.

use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Admission, Connection, Model, Next, Pace, Service, Session, Ticket};
use crate::sys::socket::{self, Acceptor, Family};
use crate::sys::wake::{self, Wake};

/// The step waits at the gate before it echoes.
const BLOCK: u8 = b'B';
/// A message begins, and ends.
const BEGIN: u8 = b'(';
const END: u8 = b')';
/// The peer introduces itself.
const HELLO: u8 = b'H';
/// The session and its thread end.
const EXIT: u8 = 0xff;

struct Echo {
    connection: OwnedFd,
    world: Arc<World>,
    in_step: Arc<AtomicBool>,
    introduced: bool,
    in_message: bool,
}

/// What the sessions of a test share with it.
#[derive(Default)]
struct World {
    gate_open: Mutex<bool>,
    gate: Condvar,
    blocked: AtomicUsize,
    expired: AtomicUsize,
    ended: AtomicUsize,
    /// Steps that found another step of their session running.
    collisions: AtomicUsize,
    /// Threads that have to end.
    exited: Mutex<Vec<ThreadId>>,
    /// Steps on a thread that had to end.
    haunted: AtomicUsize,
}

impl World {
    fn open_gate(&self) {
        *self.gate_open.lock() = true;
        self.gate.notify_all();
    }
}

impl Session for Echo {
    type Scratch = ();

    const KINDS: usize = 1;

    fn connection(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    fn serve(&mut self, (): &mut (), pace: &mut dyn Pace, hang_up: bool) -> Next {
        if self.in_step.swap(true, SeqCst) {
            self.world.collisions.fetch_add(1, SeqCst);
        }
        if self.world.exited.lock().contains(&std::thread::current().id()) {
            self.world.haunted.fetch_add(1, SeqCst);
        }
        let mut room = Vec::with_capacity(16);
        let next = match socket::receive(self.connection.as_fd(), &mut room) {
            Ok(0) => Next::End,
            Ok(len) => {
                pace.begin(0);
                for octet in &room[..len] {
                    match *octet {
                        BLOCK => {
                            self.world.blocked.fetch_add(1, SeqCst);
                            let mut open = self.world.gate_open.lock();
                            while !*open {
                                self.world.gate.wait(&mut open);
                            }
                            self.world.blocked.fetch_sub(1, SeqCst);
                        }
                        BEGIN => self.in_message = true,
                        END => self.in_message = false,
                        HELLO => self.introduced = true,
                        EXIT => {
                            self.world.exited.lock().push(std::thread::current().id());
                            return Next::Exit;
                        }
                        // Now and then a step takes longer than the patience of a model.
                        octet if octet % 61 == 0 => std::thread::sleep(Duration::from_millis(2)),
                        _ => {}
                    }
                }
                pace.end(0);
                match socket::send(self.connection.as_fd(), &[&room[..len], &[], &[]]) {
                    Ok(_) if len == room.capacity() || hang_up => Next::More,
                    Ok(_) => Next::Wait,
                    Err(_) => Next::End,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Next::Wait,
            Err(_) => Next::End,
        };
        self.in_step.store(false, SeqCst);
        next
    }

    fn fail(&mut self, _: &io::Error, _: &mut dyn Pace) -> Next {
        Next::End
    }

    fn expire(&mut self, _: &mut dyn Pace) -> Next {
        self.world.expired.fetch_add(1, SeqCst);
        Next::End
    }

    fn is_introduced(&self) -> bool {
        self.introduced
    }

    fn in_message(&self) -> bool {
        self.in_message
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.world.ended.fetch_add(1, SeqCst);
    }
}

struct EchoService {
    world: Arc<World>,
    turns: AtomicUsize,
    turn_at_least: Option<Duration>,
    introduction: Option<Duration>,
    timeout: Option<Duration>,
    drain: Duration,
    stop: Wake,
    stopping: AtomicBool,
    /// Attempts to take a connection that find no descriptors.
    pauses: AtomicUsize,
    /// How long an attempt to take a connection takes.
    admission: Duration,
    threads: Option<NonZero<u16>>,
    /// Peers that say their last word when the model is about to stop.
    last_words: Mutex<Vec<UnixStream>>,
}

impl Service for EchoService {
    type Session = Echo;

    fn accept(&self, listener: &Acceptor) -> Admission<Connection> {
        std::thread::sleep(self.admission);
        if self.pauses.fetch_update(SeqCst, SeqCst, |pauses| pauses.checked_sub(1)).is_ok() {
            return Admission::Pause;
        }
        let ticket = Ticket { number: 1, family: listener.family, refused: false };
        match socket::accept(listener.as_fd()) {
            Ok(descriptor) => Admission::Taken(Connection { descriptor, ticket }),
            Err(_) => Admission::Empty,
        }
    }

    fn open(self: &Arc<Self>, connection: Connection) -> Echo {
        Echo {
            connection: connection.descriptor,
            world: Arc::clone(&self.world),
            in_step: Arc::default(),
            introduced: false,
            in_message: false,
        }
    }

    fn depart(&self, _: usize) {}

    fn turn(&self) -> Option<Duration> {
        self.turns.fetch_add(1, SeqCst);
        self.turn_at_least
    }

    fn introduction(&self) -> Option<Duration> {
        self.introduction
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn drain(&self) -> Duration {
        self.drain
    }

    fn threads(&self) -> Option<NonZero<u16>> {
        self.threads
    }

    fn stopping(&self) -> bool {
        let stopping = self.stopping.load(SeqCst);
        if stopping {
            self.last_words.lock().drain(..).for_each(|mut stream| say(&mut stream, BLOCK));
        }
        stopping
    }

    fn stop_descriptor(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    fn forked(&self) {
        unreachable!("these tests have one process");
    }

    fn leaving(&self) {
        unreachable!("these tests have one process");
    }

    fn exhausted(&self, error: &io::Error) {
        panic!("no descriptors: {error}");
    }

    fn lost(&self, what: std::fmt::Arguments<'_>) {
        panic!("{what}");
    }

    fn warn(&self, what: std::fmt::Arguments<'_>) {
        panic!("{what}");
    }

    fn trouble(&self, what: &str, error: &io::Error) {
        panic!("cannot {what}: {error}");
    }

    fn broken(&self, error: &io::Error) {
        panic!("broken: {error}");
    }
}

/// A model that runs in a thread of its own, on a socket in a directory of its own.
struct Running {
    service: Arc<EchoService>,
    directory: std::path::PathBuf,
    model: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    fn start<M: Model + Default>(change: impl FnOnce(&mut EchoService)) -> Self {
        static TESTS: AtomicUsize = AtomicUsize::new(0);
        let number = TESTS.fetch_add(1, SeqCst);
        let directory = std::env::temp_dir().join(format!("libmilter-model-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let listeners = ["s", "t"].map(|name| {
            let socket: OwnedFd = UnixListener::bind(directory.join(name)).unwrap().into();
            crate::sys::descriptor::set_blocking(socket.as_fd(), false).unwrap();
            Acceptor { socket, family: Family::Local }
        });
        let mut service = EchoService {
            world: Arc::default(),
            turns: AtomicUsize::new(0),
            turn_at_least: None,
            introduction: None,
            timeout: None,
            drain: Duration::from_secs(60),
            stop: Wake::new().unwrap(),
            stopping: AtomicBool::new(false),
            pauses: AtomicUsize::new(0),
            admission: Duration::ZERO,
            threads: None,
            last_words: Mutex::default(),
        };
        change(&mut service);
        let service = Arc::new(service);
        let of_model = Arc::clone(&service);
        let model = Some(std::thread::spawn(move || M::default().run(of_model, listeners.into())));
        Running { service, directory, model }
    }

    fn world(&self) -> &World {
        &self.service.world
    }

    fn connect(&self) -> UnixStream {
        self.connect_to("s")
    }

    fn connect_to(&self, listener: &str) -> UnixStream {
        let stream = UnixStream::connect(self.directory.join(listener)).unwrap();
        // A test that fails should not hang.
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn stop(&self) {
        self.service.stopping.store(true, SeqCst);
        wake::call(self.service.stop.number());
    }

    fn is_running(&self) -> bool {
        self.model.as_ref().is_some_and(|model| !model.is_finished())
    }

    /// Waits for the model to return.
    fn join(&mut self) {
        self.model.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.world().open_gate();
        self.stop();
        if let Some(model) = self.model.take() {
            let _ = model.join();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn say(stream: &mut UnixStream, octet: u8) {
    stream.write_all(&[octet]).unwrap();
}

fn echo(stream: &mut UnixStream, octet: u8) {
    say(stream, octet);
    heard(stream, octet);
}

fn heard(stream: &mut UnixStream, octet: u8) {
    let mut heard = [0];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard[0], octet);
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn blocked_sessions_hold_nobody_up<M: Model + Default>() {
    let running = Running::start::<M>(|_| {});
    let mut blocked: Vec<UnixStream> = (0..20).map(|_| running.connect()).collect();
    blocked.iter_mut().for_each(|stream| say(stream, BLOCK));
    eventually("all block at once", || running.world().blocked.load(SeqCst) == blocked.len());
    let mut other = running.connect();
    (b'a'..=b'z').for_each(|octet| echo(&mut other, octet));
    // What comes for a blocked session waits for it.
    blocked.iter_mut().for_each(|stream| say(stream, b'x'));
    assert_eq!(running.world().blocked.load(SeqCst), blocked.len());
    running.world().open_gate();
    for stream in &mut blocked {
        heard(stream, BLOCK);
        heard(stream, b'x');
    }
    assert_eq!(running.world().collisions.load(SeqCst), 0);
}

fn everything_is_served_once_and_in_order<M: Model + Default>() {
    let running = Running::start::<M>(|_| {});
    std::thread::scope(|scope| {
        for client in 0..8_usize {
            let running = &running;
            scope.spawn(move || {
                for round in 0..40_usize {
                    let mut stream = running.connect();
                    let octets: Vec<u8> = (0..100).map(|i| ((i * 7 + client * 31 + round) % 251) as u8).collect();
                    let octets: Vec<u8> = octets.into_iter().filter(|octet| *octet != BLOCK).collect();
                    for chunk in octets.chunks(1 + round % 33) {
                        stream.write_all(chunk).unwrap();
                        if round % 2 == 0 {
                            let mut heard = vec![0; chunk.len()];
                            stream.read_exact(&mut heard).unwrap();
                            assert_eq!(heard, chunk);
                        }
                    }
                    match round % 3 {
                        0 => drop(stream),
                        _ => {
                            stream.shutdown(std::net::Shutdown::Write).unwrap();
                            let mut rest = Vec::new();
                            stream.read_to_end(&mut rest).unwrap();
                            assert_eq!(rest, if round % 2 == 0 { vec![] } else { octets });
                        }
                    }
                }
            });
        }
    });
    eventually("every session ends", || running.world().ended.load(SeqCst) == 8 * 40);
    assert_eq!(running.world().collisions.load(SeqCst), 0);
}

fn a_stop_waits_for_what_is_in_progress_only<M: Model + Default>() {
    let mut running = Running::start::<M>(|_| {});
    let (mut idle, mut blocked, mut in_message) = (running.connect(), running.connect(), running.connect());
    echo(&mut idle, b'x');
    echo(&mut in_message, BEGIN);
    say(&mut blocked, BLOCK);
    eventually("one blocks", || running.world().blocked.load(SeqCst) == 1);
    running.stop();
    eventually("the listener closes at once", || UnixStream::connect(running.directory.join("s")).is_err());
    assert!(running.is_running());
    running.world().open_gate();
    heard(&mut blocked, BLOCK);
    echo(&mut idle, b'y');
    assert!(running.is_running(), "a message is in progress");
    echo(&mut in_message, END);
    running.join();
    for stream in [&mut idle, &mut blocked, &mut in_message] {
        echo(stream, b'z');
    }
    drop((idle, blocked, in_message));
    eventually("sessions end after the run", || running.world().ended.load(SeqCst) == 3);
}

fn a_stop_waits_for_what_has_been_said<M: Model + Default>() {
    for _ in 0..50 {
        let mut running = Running::start::<M>(|_| {});
        let mut streams: Vec<UnixStream> = (0..4).map(|_| running.connect()).collect();
        streams.iter_mut().for_each(|stream| echo(stream, b'x'));
        streams.iter_mut().for_each(|stream| say(stream, b'y'));
        drop(streams);
        running.stop();
        running.join();
        assert_eq!(running.world().ended.load(SeqCst), 4);
    }
}

/// What comes between a stop and the moment when the model looks has no event yet that anybody has seen.
#[cfg(target_os = "linux")]
fn a_stop_waits_for_what_nobody_has_noticed<M: Model + Default>() {
    for _ in 0..20 {
        let mut running = Running::start::<M>(|_| {});
        let mut stream = running.connect();
        echo(&mut stream, b'x');
        running.service.last_words.lock().push(stream);
        running.stop();
        eventually("it is served", || running.world().blocked.load(SeqCst) == 1);
        std::thread::sleep(Duration::from_millis(20));
        assert!(running.is_running(), "somebody is being served who has spoken before the model stopped");
        running.world().open_gate();
        running.join();
        assert_eq!(running.world().ended.load(SeqCst), 1);
    }
}

fn a_stop_does_not_wait_for_ever<M: Model + Default>() {
    let mut running = Running::start::<M>(|service| service.drain = Duration::from_millis(50));
    let mut blocked = running.connect();
    say(&mut blocked, BLOCK);
    eventually("one blocks", || running.world().blocked.load(SeqCst) == 1);
    running.stop();
    running.join();
    let mut open = running.world().gate_open.lock();
    assert!(!std::mem::replace(&mut open, true));
    drop(open);
    running.world().gate.notify_all();
    heard(&mut blocked, BLOCK);
    echo(&mut blocked, b'x');
}

fn a_thread_that_has_to_end_costs_its_session_only<M: Model + Default>() {
    let mut running = Running::start::<M>(|_| {});
    let world = Arc::clone(&running.service.world);
    let mut others: Vec<UnixStream> = (0..3).map(|_| running.connect()).collect();
    let mut blocked: Vec<UnixStream> = (0..3).map(|_| running.connect()).collect();
    blocked.iter_mut().for_each(|stream| stream.write_all(&[BLOCK, EXIT]).unwrap());
    eventually("all block at once", || world.blocked.load(SeqCst) == blocked.len());
    for _ in 0..20 {
        let mut last = running.connect();
        echo(&mut last, BEGIN);
        say(&mut last, EXIT);
        assert_eq!(last.read(&mut [0]).unwrap(), 0);
        others.iter_mut().for_each(|stream| echo(stream, b'y'));
    }
    world.open_gate();
    blocked.iter_mut().for_each(|stream| assert_eq!(stream.read(&mut [0]).unwrap(), 0));
    others.iter_mut().for_each(|stream| echo(stream, b'z'));
    eventually("they are over", || world.ended.load(SeqCst) == 23);
    running.stop();
    running.join();
    assert_eq!((world.exited.lock().len(), world.haunted.load(SeqCst)), (23, 0));
}

fn silent_sessions_expire<M: Model + Default>() {
    let running = Running::start::<M>(|service| service.timeout = Some(Duration::from_secs(1)));
    let mut silent = running.connect();
    let mut talkative = running.connect();
    while running.world().expired.load(SeqCst) == 0 {
        echo(&mut talkative, b'x');
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    echo(&mut talkative, b'x');
}

fn strangers_do_not_stay<M: Model + Default>() {
    const LIMIT: Duration = Duration::from_secs(1);
    let running = Running::start::<M>(|service| service.introduction = Some(LIMIT));
    let mut known = running.connect();
    echo(&mut known, HELLO);
    let start = Instant::now();
    let (mut silent, mut talkative) = (running.connect(), running.connect());
    let ends = |stream: &mut UnixStream| matches!(stream.read(&mut [0]), Ok(0) | Err(_));
    while talkative.write_all(b"x").is_ok() && !ends(&mut talkative) {
        assert!(start.elapsed() < 20 * LIMIT, "talking is not enough");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(ends(&mut silent));
    assert!(start.elapsed() >= LIMIT);
    echo(&mut known, b'x');
    assert_eq!(running.world().expired.load(SeqCst), 2);
}

fn the_loop_turns_when_idle<M: Model + Default>() {
    const INTERVAL: Duration = Duration::from_millis(20);
    let running = Running::start::<M>(|service| service.turn_at_least = Some(INTERVAL));
    echo(&mut running.connect(), b'x');
    let before = running.service.turns.load(SeqCst);
    let start = Instant::now();
    let turns = || running.service.turns.load(SeqCst) - before;
    eventually("it turns", || turns() >= 20);
    let (turns, time) = (turns(), start.elapsed());
    assert!(turns <= time.div_duration_f32(INTERVAL) as usize * 2 + 8, "{turns} in {time:?}");
}

/// A session that ends makes room before the pause is over.
fn the_end_of_a_session_ends_a_pause<M: Model + Default>() {
    let running = Running::start::<M>(|_| {});
    let start = Instant::now();
    for _ in 0..20 {
        let mut first = running.connect();
        echo(&mut first, b'x');
        running.service.pauses.store(1, SeqCst);
        let mut second = running.connect();
        eventually("a pause", || running.service.pauses.load(SeqCst) == 0);
        drop(first);
        echo(&mut second, b'x');
    }
    assert!(start.elapsed() < 20 * super::PAUSE, "{:?}", start.elapsed());
}

fn a_pause_of_the_listener_ends<M: Model + Default>() {
    let running = Running::start::<M>(|service| service.pauses = AtomicUsize::new(3));
    let mut waiting = running.connect();
    echo(&mut waiting, b'x');
    assert_eq!(running.service.pauses.load(SeqCst), 0);
}

fn a_pause_after_a_slow_attempt_ends<M: Model + Default>() {
    let running = Running::start::<M>(|service| {
        service.pauses = AtomicUsize::new(2);
        service.admission = Duration::from_millis(20);
    });
    echo(&mut running.connect(), b'x');
}

fn nothing_is_taken_after_the_end<M: Model + Default>() {
    let mut running = Running::start::<M>(|service| service.admission = Duration::from_millis(20));
    let mut idle = running.connect();
    echo(&mut idle, b'x');
    let _waiting: Vec<UnixStream> = (0..5).map(|_| running.connect()).collect();
    running.stop();
    running.join();
    assert!(UnixStream::connect(running.directory.join("s")).is_err());
    echo(&mut idle, b'y');
}

fn every_listener_is_served<M: Model + Default>() {
    let mut running = Running::start::<M>(|service| service.pauses = AtomicUsize::new(3));
    let mut streams: Vec<UnixStream> = (0..40).map(|at| running.connect_to(["s", "t"][at % 2])).collect();
    streams.iter_mut().for_each(|stream| echo(stream, b'x'));
    running.stop();
    running.join();
    assert!(["s", "t"].iter().all(|name| UnixStream::connect(running.directory.join(name)).is_err()));
    streams.iter_mut().for_each(|stream| echo(stream, b'y'));
}

fn streams_do_not_keep_others_waiting<M: Model + Default>() {
    let running = Running::start::<M>(|_| {});
    let streams: Vec<UnixStream> = (0..8).map(|_| running.connect()).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for stream in &streams {
            let over = &over;
            scope.spawn(move || while !over.load(SeqCst) && (&mut &*stream).write_all(&[b'x'; 4096]).is_ok() {});
            scope.spawn(move || while (&mut &*stream).read(&mut [0; 4096]).is_ok_and(|len| len > 0) {});
        }
        // Each needs an event to be fetched, and a new one a connection to be taken.
        (0..20).for_each(|_| echo(&mut running.connect(), b'y'));
        over.store(true, SeqCst);
        streams.iter().for_each(|stream| stream.shutdown(std::net::Shutdown::Both).unwrap());
    });
}

fn no_more_threads_than_allowed<M: Model + Default>() {
    for limit in [1, 3] {
        let running = Running::start::<M>(|service| service.threads = NonZero::new(limit));
        let mut streams: Vec<UnixStream> = (0..8).map(|_| running.connect()).collect();
        for _ in 0..40 {
            // Callbacks that compute, and some that outlast the pool's patience.
            streams.iter_mut().for_each(|stream| echo(stream, 61));
        }
        streams.iter_mut().for_each(|stream| say(stream, BLOCK));
        eventually("as many block as may", || running.world().blocked.load(SeqCst) == usize::from(limit));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(running.world().blocked.load(SeqCst), usize::from(limit));
        running.world().open_gate();
        streams.iter_mut().for_each(|stream| heard(stream, BLOCK));
        streams.iter_mut().for_each(|stream| echo(stream, b'x'));
        assert_eq!(running.world().collisions.load(SeqCst), 0);
    }
}

macro_rules! promises {
    ($($model:ident: $($promise:ident)*;)*) => {
        $(#[allow(non_snake_case)]
        mod $model {
            $(#[test]
            fn $promise() {
                super::$promise::<crate::model::$model>();
            })*
        })*
    };
}

#[cfg(target_os = "linux")]
promises! {
    Pool: blocked_sessions_hold_nobody_up everything_is_served_once_and_in_order
        a_stop_waits_for_what_is_in_progress_only a_stop_waits_for_what_has_been_said a_stop_does_not_wait_for_ever silent_sessions_expire
        a_stop_waits_for_what_nobody_has_noticed a_pause_of_the_listener_ends a_pause_after_a_slow_attempt_ends
        nothing_is_taken_after_the_end every_listener_is_served strangers_do_not_stay the_loop_turns_when_idle the_end_of_a_session_ends_a_pause streams_do_not_keep_others_waiting
        a_thread_that_has_to_end_costs_its_session_only no_more_threads_than_allowed;
}

promises! {
    Threads: blocked_sessions_hold_nobody_up everything_is_served_once_and_in_order
        a_stop_waits_for_what_is_in_progress_only a_stop_waits_for_what_has_been_said a_stop_does_not_wait_for_ever silent_sessions_expire
        a_pause_of_the_listener_ends a_pause_after_a_slow_attempt_ends nothing_is_taken_after_the_end
        every_listener_is_served strangers_do_not_stay the_loop_turns_when_idle the_end_of_a_session_ends_a_pause streams_do_not_keep_others_waiting a_thread_that_has_to_end_costs_its_session_only;
}
