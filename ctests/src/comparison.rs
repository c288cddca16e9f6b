//! The same mail past the same filter with every library.

use std::{
    fmt::Debug,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{Origin, Postfix, Service, Setting, Sink};

/// Does the same with every library; what is seen has to be the same, and is returned. Nothing else may have
/// arrived at `sink`.
///
/// # Panics
///
/// When something differs.
pub fn same_with_each<T: PartialEq + Debug>(test: &str, sink: &Sink, see: impl Fn(&Setting) -> Vec<T>) -> Vec<T> {
    let mut first: Option<(Setting, Vec<T>)> = None;
    for setting in Setting::each(test) {
        let seen = see(&setting);
        sink.assert_empty();
        let Some((other, expected)) = &first else {
            first = Some((setting, seen));
            continue;
        };
        for (number, (one, another)) in seen.iter().zip(expected).enumerate() {
            assert!(one == another, "{test}, {number}: {setting}\n{one:?}\n{other}\n{another:?}");
        }
        assert_eq!(seen.len(), expected.len(), "{test}: {setting} differs from {other}");
    }
    first.expect("ours is always there").1
}

/// Checks that Postfix had nothing to complain about: that is where a broken milter connection would show.
///
/// # Panics
///
/// When it had.
pub fn assert_untroubled(test: &str, postfix: &Postfix) {
    let log = postfix.log();
    let trouble = ["warning:", "error:", "fatal:", "panic:"];
    let troubled: Vec<&str> = log.lines().filter(|line| trouble.iter().any(|word| line.contains(word))).collect();
    assert_eq!(troubled, [""; 0], "{test}");
}

/// Waits until nobody is connected to `socket`. An interpreter such as Python's ends the threads that come
/// back to it after it has begun to go down, so a script is to be stopped after its last session.
///
/// # Panics
///
/// When somebody is after ten seconds.
pub fn await_idle(socket: &Path) {
    let socket = socket.to_str().expect("a path of ours");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // The listening socket, and one with the same name for each session.
        let table = fs::read_to_string("/proc/net/unix").expect("proc(5)");
        if table.lines().filter(|line| line.ends_with(socket)).count() <= 1 {
            return;
        }
        assert!(Instant::now() < deadline, "sessions that nobody ends");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Ends a filter as a service manager does: our library needs no time for that. The reference would
/// take up to five seconds of each test.
///
/// # Panics
///
/// When it does not end, or not well.
pub fn stop(setting: &Setting, filter: Service) {
    if setting.library.origin() == Origin::Ours {
        let output = filter.output();
        let (status, time) = filter.stop(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0), "{setting}: {status}: {output}");
        assert!(time < Duration::from_secs(2), "{setting}: it took {time:?}");
    }
}
