//! How sessions end that fail, and what the log says about each.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use ctests::{Filter, Frame, PATIENCE, Setting, Signal, Surroundings, TempDir, eventually};

use crate::{
    control::Fault,
    scene::{FIRST, MORE, REST, Scene},
    talk::{Fate, Talk},
};

const ENOMEM: i32 = 12;

const OPENING: &str = "start setconn $socket\nstart register\nstart opensocket 0\nstart main\n";

fn launch(setting: &Setting, options: &str, plan: &str) -> Filter {
    let surroundings = Surroundings { options: options.to_owned(), ..Surroundings::default() };
    let filter = Filter::launch_with(setting, &surroundings, &format!("{OPENING}{plan}"), TempDir::new());
    eventually("it listens", || Talk::is_answered_at(&filter.socket()));
    filter
}

fn log(filter: &Filter) -> Vec<String> {
    filter.lines().into_iter().filter(|line| line.starts_with("log ")).collect()
}

fn stop(filter: &mut Filter) {
    filter.process().signal(Signal::TERM);
    assert!(filter.process().wait(PATIENCE).is_some_and(|status| status.success()), "{}", filter.lines().join("\n"));
}

/// A change that the MTA does not take ends the session like a reply that it does not take: with one line.
#[test]
fn a_peer_that_does_not_read_is_told_of() {
    for setting in Setting::every_model() {
        let plan = "on eom replacebody \"x\"*1000000\n";
        let mut filter = launch(&setting, "idle-timeout=1", plan);
        let mut mta = filter.connect();
        for command in ["OPTNEG 6 1ff 1fffff", "MAIL <a>", "RCPT <b>", "DATA"] {
            mta.ask(command);
        }
        mta.command("BODYEOB");
        // One for the session that has looked whether it listens.
        eventually("its end", || filter.lines().iter().filter(|line| *line == "close").count() == 2);
        stop(&mut filter);
        let log = log(&filter);
        assert_eq!(log.len(), 1, "{setting}: {log:?}");
        assert!(log[0].contains("the MTA does not take the reply"), "{setting}: {log:?}");
        drop(mta);
    }
}

/// An MTA that has lost its client may not wait for the reply. That is nothing to tell.
#[test]
fn a_reply_that_is_not_read_is_no_error() {
    for setting in Setting::every_model() {
        let mut filter = launch(&setting, "", "");
        let mut mta = UnixStream::connect(filter.socket()).expect("it listens");
        for (letter, payload) in [(b'O', &b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff"[..]), (b'M', b"<a>\0")] {
            mta.write_all(&Frame { letter, payload: payload.to_vec() }.octets()).expect("it takes commands");
            // Of each reply the first octet only.
            mta.read_exact(&mut [0]).expect("a reply");
        }
        drop(mta);
        filter.wait_for("abort");
        stop(&mut filter);
        assert_eq!(log(&filter), [""; 0], "{setting}");
    }
}

/// The number of a call.
fn number(scene: &Scene, name: &str) -> u64 {
    scene.control.calls().iter().position(|(call, _)| call == name).expect("it is known") as u64
}

/// Waiting that fails is tried again, without haste, and told once; nothing is lost.
#[test]
fn waiting_may_fail_for_a_while() {
    for setting in Setting::every_model() {
        for call in ["poll", "epoll_wait"] {
            let mut scene = Scene::start(&setting, "", |_| {});
            let socket = scene.filter.socket();
            eventually("it listens", || Talk::is_answered_at(&socket));
            let mut innocent = Talk::with(&socket);
            innocent.say(FIRST);
            let number = number(&scene, call);
            let before = scene.control.count(number);
            scene.control.set(number, ENOMEM, Fault::Always);
            let mut talk = thread::scope(|scope| {
                let talk = scope.spawn(|| {
                    let mut talk = Talk::with(&socket);
                    talk.say(FIRST);
                    talk
                });
                thread::sleep(Duration::from_millis(400));
                scene.control.set(number, ENOMEM, Fault::Never);
                talk.join().expect("it does not panic")
            });
            let tries = scene.control.count(number) - before;
            assert!(tries < 100, "{setting}, {call}: {tries} tries in less than half a second");
            for talk in [&mut innocent, &mut talk] {
                talk.say(REST);
                talk.say(MORE);
                assert_eq!(talk.fate, Fate::Well, "{setting}, {call}: {:?}", scene.log());
            }
            let lines = scene.log().iter().filter(|line| line.contains("cannot wait for events")).count();
            // No more than once in each process: not all of them may have waited.
            assert!(lines <= 1, "{setting}, {call}: {:?}", scene.log());
            assert!(lines == 1 || scene.control.failed() == 0, "{setting}, {call}: {:?}", scene.log());
            assert!(scene.filter.process().is_alive(), "{setting}, {call}");
            stop(&mut scene.filter);
        }
    }
}

/// A session whose own waiting goes on failing ends, and the log says why.
#[test]
fn waiting_that_goes_on_failing_ends_the_session() {
    for setting in [Setting::model("threads"), Setting::model("fork")] {
        let mut scene = Scene::start(&setting, "", |_| {});
        let socket = scene.filter.socket();
        eventually("it listens", || Talk::is_answered_at(&socket));
        let mut talk = Talk::with(&socket);
        talk.say(FIRST);
        scene.control.set(number(&scene, "poll"), ENOMEM, Fault::Always);
        // Whatever is said now is served after the wait that has begun before, or not at all.
        for _ in 0..2 {
            talk.say(&["RCPT <c>"]);
        }
        scene.control.set(number(&scene, "poll"), ENOMEM, Fault::Never);
        assert_eq!(talk.fate, Fate::Ended, "{setting}");
        let log = scene.log();
        assert_eq!(log.iter().filter(|line| line.contains("cannot wait for the MTA")).count(), 1, "{setting}: {log:?}");
        let mut later = Talk::with(&socket);
        later.say(FIRST);
        later.say(REST);
        later.say(MORE);
        assert_eq!(later.fate, Fate::Well, "{setting}");
        stop(&mut scene.filter);
    }
}
