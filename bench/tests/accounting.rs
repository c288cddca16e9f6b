//! The time and the memory of a filter are those of all its processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use bench::contestant::Contestant;
use bench::filter::{Filter, Socket};
use ctests::TempDir;

const COUNT: &str = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done";

/// A shell script in the place of a filter.
fn script(text: &str, directory: &TempDir) -> Contestant {
    let program = directory.write("script", format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    Contestant { name: "script".to_owned(), library: None, options: None, program }
}

fn await_that(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn processes_that_live_and_that_have_ended_count() {
    // One process counts, ends and is waited for; the other one counts and stays.
    for text in [format!("({COUNT}); sleep 60"), format!("({COUNT}; sleep 60); :")] {
        let directory = TempDir::new();
        let filter = Filter::start(&script(&text, &directory), "noop", Socket::Unix, &[]);
        await_that(|| filter.cpu() >= Duration::from_millis(50));
        await_that(|| filter.footprint().threads >= 2);
        assert!(filter.footprint().resident > 0);
        let before = filter.cpu();
        thread::sleep(Duration::from_secs(1));
        // To a clock tick each of user and system time.
        assert!(filter.cpu() + Duration::from_millis(20) >= before, "{text}");
        assert!(filter.kill() > 0);
    }
}
