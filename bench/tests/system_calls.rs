//! What a message costs in system calls: an exact figure where times are not.

use bench::contestant::{Contestant, MODELS};
use bench::trial::system_calls;
use ctests::{TempDir, skip};
use milter_probe::Mta;

/// Calls a message of 16 commands with an answer each, one session: at best a wait, a read and a write for each, and
/// some more where the macros of a command come alone. Without answers before the end, one of each for all. The pool's
/// manager adds three calls a millisecond at most, and strace has a message take several.
#[test]
fn a_message_costs_few_system_calls() {
    if ctests::find("strace").is_none() {
        return skip("a_message_costs_few_system_calls", "strace");
    }
    let directory = TempDir::new();
    for (model, options) in MODELS.iter().filter(|(model, _)| matches!(*model, "pool" | "threads")) {
        let contestant = Contestant::ours(model, options, &directory);
        for (mode, mta, most) in [("noop", Mta::Sendmail, 62.0), ("nr", Mta::Postfix, 4.5)] {
            let calls = undisturbed(most, || system_calls(&contestant, mode, mta).unwrap());
            println!("{model}, {mode}, {mta:?}: {calls:.2} system calls a message");
            assert!(calls <= most, "{model}, {mode}, {mta:?}: {calls:.2} system calls a message, at most {most}");
        }
    }
}

/// The least of several counts, up to the first that will do. Whatever else the machine does can only add to them: a
/// thread that has to wait for a processor looks to the others as if it were blocked.
fn undisturbed(enough: f64, mut count: impl FnMut() -> f64) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..15 {
        least = least.min(count());
        if least <= enough {
            break;
        }
    }
    least
}
