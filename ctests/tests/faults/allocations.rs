//! Lack of memory: the n-th allocation of the library fails, or all do for a while. It costs a session or a call, and
//! nothing else.

use std::{collections::BTreeMap, thread, time::Duration};

use ctests::{PATIENCE, Setting, Signal, eventually};

use crate::{
    control::{ALLOC, Fault, functions},
    plan::{Progress, Share, in_parallel},
    scene::{FIRST, MORE, OBSERVED, REST, Scene, is_answered},
    talk::{Fate, Talk},
};

const ENOMEM: i32 = 12;

/// How long there is no memory at all.
const SHORTAGE: Duration = Duration::from_millis(300);

/// Runs of each sweep in a sample.
const SAMPLE: usize = 12;

/// What came of one run.
#[derive(Debug, Default)]
struct Outcome {
    /// Allocations in which something could fail.
    allocations: u64,
    failed: u64,
    /// Sessions that met a failing allocation and did not go as they should.
    lost: usize,
    died: bool,
    /// What is wrong.
    bad: Vec<String>,
    /// Where the first allocation failed.
    place: Vec<u64>,
}

/// Plays sessions of which only those in the middle meet failing allocations; unless these are to be the first, there is
/// one before, in a message, that ends after them.
fn play(setting: &Setting, options: &str, is_first: bool, fault: Fault) -> Outcome {
    let mut outcome = Outcome::default();
    let mut scene = Scene::start(setting, options, |_| {});
    let socket = scene.filter.socket();
    eventually("it listens", || {
        assert!(scene.filter.process().is_alive(), "{setting}: it does not start: {:?}", scene.filter.lines());
        Talk::is_answered_at(&socket)
    });
    let mut innocent = (!is_first).then(|| Talk::with(&socket));
    if let Some(innocent) = &mut innocent {
        innocent.say(FIRST);
    }
    let log = scene.log().len();

    let before = scene.control.count(ALLOC);
    scene.control.set(ALLOC, ENOMEM, fault);
    // Two at once, one of them cut in the middle, and then one alone.
    let touched = thread::scope(|scope| {
        let whole = scope.spawn(|| {
            let mut talk = Talk::with(&socket);
            talk.say(FIRST);
            talk.say(REST);
            talk.say(MORE);
            talk
        });
        let others = scope.spawn(|| {
            let mut cut = Talk::with(&socket);
            cut.say(FIRST);
            let mut last = Talk::with(&socket);
            last.say(FIRST);
            last.say(REST);
            [cut, last]
        });
        if matches!(fault, Fault::Always) {
            // Who comes meanwhile waits until it is over.
            thread::sleep(SHORTAGE);
            scene.control.set(ALLOC, ENOMEM, Fault::Never);
        }
        let mut touched = vec![whole.join().expect("it does not panic")];
        touched.extend(others.join().expect("it does not panic"));
        touched
    });
    scene.control.set(ALLOC, ENOMEM, Fault::Never);
    outcome.allocations = scene.control.count(ALLOC) - before;
    outcome.failed = scene.control.failed();
    outcome.place = scene.control.place();

    if let Some(innocent) = &mut innocent {
        innocent.say(REST);
        innocent.say(MORE);
    }
    let failed_calls = scene.failed_calls();
    let later = [(); 2].map(|()| {
        let mut later = Talk::with(&socket);
        later.say(FIRST);
        later.say(REST);
        later.say(MORE);
        later
    });

    outcome.died = !scene.filter.process().is_alive();
    let complete: usize = [FIRST, REST, MORE].concat().iter().filter(|line| is_answered(line)).count();
    outcome.lost = touched.iter().filter(|talk| talk.fate != Fate::Well).count();
    let mut check = |right: bool, what: &str| {
        if !right {
            outcome.bad.push(what.to_owned());
        }
    };
    check(!outcome.died, "the process is dead");
    check(!scene.log().iter().any(|line| line.contains("SIGABRT")), "a process of the filter is dead");
    check(outcome.lost <= 1 || matches!(fault, Fault::Always), "more than one session is lost");
    check(touched.iter().all(|talk| talk.fate != Fate::Silent), "a session is silent");
    let is_whole = |talk: &Talk| talk.fate == Fate::Well && talk.answers.len() == complete;
    check(innocent.iter().all(is_whole), "an innocent session is lost");
    check(later.iter().all(is_whole), "later mail is lost");
    check(innocent.iter().chain(&later).all(|talk| talk.answers == later[0].answers), "answers differ afterwards");
    let differs = touched.iter().any(|talk| !later[0].answers.starts_with(&talk.answers));
    check(
        outcome.lost == 0 && failed_calls == 0 && !differs || scene.log().len() > log,
        "something is lost and the log says nothing",
    );
    // A stop waits for messages.
    drop(touched);
    if !outcome.died {
        scene.filter.process().signal(Signal::TERM);
        let end = scene.filter.process().wait(PATIENCE);
        check(end.is_some_and(|status| status.success()), "it does not stop as it should");
    }
    if !outcome.bad.is_empty() {
        outcome.bad.extend(scene.log().into_iter().skip(log).take(3));
        outcome.bad.extend(scene.filter.output().lines().take(3).map(str::to_owned));
    }
    outcome
}

/// Fails one allocation after another, and all.
fn sweep(setting: &Setting, options: &str, is_first: bool, share: Share) -> Vec<String> {
    let observed = if options.is_empty() { "" } else { ", observed" };
    let name = format!("{setting}{observed}{}", if is_first { ", the first sessions" } else { "" });
    let undisturbed = play(setting, options, is_first, Fault::Never);
    assert!(undisturbed.bad.is_empty(), "{name}: {:?}", undisturbed.bad);
    let count = undisturbed.allocations;
    assert!(count > 0, "{name}: the library does not seem to allocate");
    let faults: Vec<Fault> =
        share.of(&(1..=count).collect::<Vec<_>>()).into_iter().map(Fault::Nth).chain([Fault::Always]).collect();
    let progress = Progress::new(&format!("allocations, {name}"), faults.len());
    let outcomes = in_parallel(&faults, |fault| {
        let outcome = play(setting, options, is_first, *fault);
        progress.step();
        outcome
    });
    let reached = outcomes.iter().filter(|outcome| outcome.failed > 0).count();
    let died = outcomes.iter().filter(|outcome| outcome.died).count();
    let lost: usize = outcomes.iter().map(|outcome| outcome.lost).sum();
    let bad_runs = outcomes.iter().filter(|outcome| !outcome.bad.is_empty()).count();
    assert!(reached > 0, "{name}: no allocation has failed");
    let mut places: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (fault, outcome) in faults.iter().zip(&outcomes) {
        if outcome.bad.is_empty() {
            continue;
        }
        let place = functions(setting.library.shared_object(), &outcome.place).join("\n      ");
        let what = format!("{fault:?}: {}", outcome.bad.join("; "));
        places.entry(place).or_insert((0, what)).0 += 1;
    }
    let bad: Vec<String> = places
        .into_iter()
        .map(|(place, (times, what))| format!("{name}: {times} times, {what}\n      {place}\n"))
        .collect();
    progress.end(format_args!("{reached} reached, {died} deaths, {lost} sessions lost, {bad_runs} bad"), &bad);
    bad
}

/// What is lost when memory is short for a moment is the session concerned, and the log says so.
#[test]
fn an_allocation_that_fails_costs_one_session() {
    let mut bad = Vec::new();
    for setting in Setting::every_model() {
        for options in ["", OBSERVED] {
            for is_first in [false, true] {
                bad.extend(sweep(&setting, options, is_first, Share::or_sample(SAMPLE)));
            }
        }
    }
    // To compare with.
    if let Some(reference) = Setting::reference("an_allocation_that_fails_costs_one_session") {
        sweep(&reference, "", false, Share::or_sample(SAMPLE));
    }
    assert!(bad.is_empty(), "{} places\n{}", bad.len(), bad.concat());
}
