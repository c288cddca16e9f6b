//! The end of service: smfi_stop, signals, and what happens to sessions afterwards.

use std::time::{Duration, Instant};

use ctests::{Filter, MtaConnection, Setting, Signal, Surroundings, TempDir, eventually, free_port};

const OFFER: &str = "OPTNEG 6 1ff 1fffff";
/// What takes no time, and is over well before the five seconds for which our smfi_main waits for messages in progress.
const MOMENT: Duration = Duration::from_secs(4);
/// The time of everything else, such as those five seconds, or the five after which the reference looks for a stop.
const LIMIT: Duration = ctests::PATIENCE;

/// A filter with its socket open, and with these lines in its plan.
fn serving(setting: &Setting, plan: &str) -> Filter {
    serving_with(setting, &Surroundings::default(), plan)
}

fn serving_with(setting: &Setting, surroundings: &Surroundings, plan: &str) -> Filter {
    let plan = format!("start setconn $socket\nstart register\nstart opensocket\nstart main\n{plan}");
    let filter = Filter::launch_with(setting, surroundings, &plan, TempDir::new());
    filter.wait_for("opensocket 0");
    filter
}

/// The same with a stop that waits for longer than these tests do.
fn serving_patiently(setting: &Setting, plan: &str) -> Filter {
    serving_with(setting, &Surroundings { options: "drain=300".into(), ..Surroundings::default() }, plan)
}

/// Opens a session and goes through these commands, each answered with continue.
fn session(filter: &Filter, commands: &[&str]) -> MtaConnection {
    let mut mta = filter.connect();
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    for command in commands {
        assert_eq!(mta.ask(command), "CONTINUE", "{command}");
    }
    mta
}

/// Waits for the clean end of the process.
#[track_caller]
fn until_end(filter: &mut Filter, limit: Duration) {
    let status = filter.process().wait(limit);
    assert!(status.is_some_and(|status| status.success()), "{status:?} {}", filter.lines().join("\n"));
}

fn ours() -> [Setting; 4] {
    Setting::every_model()
}

#[test]
fn l11_signals_to_an_idle_filter() {
    for setting in Setting::each("l11_signals_to_an_idle_filter") {
        let limit = if setting.library.origin() == ctests::Origin::Ours { MOMENT } else { LIMIT };
        let mut filters = [Signal::TERM, Signal::HUP, Signal::INT].map(|signal| (serving(&setting, ""), signal));
        for (filter, _) in &filters {
            drop(session(filter, &["HELO h"]));
        }
        for (filter, signal) in &mut filters {
            filter.process().signal(*signal);
        }
        for (filter, _) in &mut filters {
            until_end(filter, limit);
            // Programs log errno after smfi_main (D33).
            assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
        }
    }
}

#[test]
fn l12_stop_in_a_callback() {
    for setting in Setting::each("l12_stop_in_a_callback") {
        // The process has to outlive smfi_main for the reply to get out of the reference.
        let mut filter = serving(&setting, "start sleep 500\non helo stop\n");
        let mut mta = session(&filter, &[]);
        mta.command("HELO h");
        assert_eq!(mta.receive(LIMIT).to_string(), "CONTINUE", "{setting}");
        assert_eq!(filter.wait_for("stop"), "stop 0", "{setting}");
        until_end(&mut filter, LIMIT);
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
    }
}

#[test]
fn defect_37_stop_in_a_callback_returns_at_once() {
    for setting in ours() {
        let mut filter = serving(&setting, "on helo stop\n");
        let mut mta = session(&filter, &[]);
        assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting}");
        until_end(&mut filter, MOMENT);
    }
}

#[test]
fn l13_defect_38_main_again() {
    for setting in ours() {
        let port = free_port();
        let plan = format!(
            "start setconn inet:{port}@127.0.0.1\nstart register\nstart opensocket\nstart note first\nstart main\n\
             start note second\nstart main\n"
        );
        let mut filter = Filter::launch(&setting, &plan, TempDir::new());
        for round in ["note first", "note second"] {
            filter.wait_for(round);
            let mut mta = MtaConnection::patiently(|| MtaConnection::tcp("127.0.0.1", port));
            assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting} {round}");
            assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting} {round}");
            drop(mta);
            filter.process().signal(Signal::TERM);
        }
        until_end(&mut filter, LIMIT);
        let returned = filter.lines().iter().filter(|line| *line == "main 0 errno 0").count();
        assert_eq!(returned, 2, "{setting}");
    }
}

#[test]
fn a_second_run_at_once_is_refused_and_the_first_still_stops() {
    for setting in ours() {
        let mut filter = serving(&setting, "on helo main\n");
        drop(session(&filter, &["HELO h"]));
        assert_eq!(filter.wait_for("main"), "main -1 errno set", "{setting}");
        drop(session(&filter, &["HELO h"]));
        filter.process().signal(Signal::TERM);
        until_end(&mut filter, MOMENT);
    }
}

#[test]
fn a_stop_in_a_forked_child_is_not_the_parents() {
    for setting in ours() {
        let mut filter = serving(&setting, "on helo in-child stop\n");
        let mta = session(&filter, &["HELO h"]);
        let before = filter.process().cpu_ticks();
        std::thread::sleep(Duration::from_secs(1));
        let used = filter.process().cpu_ticks() - before;
        assert!(used < 20, "{setting}: {used} ticks of a hundredth of a second without anything to do");
        drop(mta);
        drop(session(&filter, &["HELO h"]));
        filter.process().signal(Signal::TERM);
        until_end(&mut filter, MOMENT);
    }
}

#[test]
fn stop_before_main() {
    for setting in Setting::each("stop_before_main") {
        let plan = "start setconn $socket\nstart register\nstart stop\nstart main\n";
        let mut filter = Filter::launch(&setting, plan, TempDir::new());
        until_end(&mut filter, LIMIT);
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
    }
}

#[test]
fn the_listener_closes_at_once() {
    for setting in ours() {
        let mut filter = serving(&setting, "");
        // A message in progress keeps smfi_main waiting.
        let mut mta = session(&filter, &["MAIL <a>"]);
        filter.process().signal(Signal::TERM);
        let deadline = Instant::now() + MOMENT;
        while MtaConnection::unix(filter.socket()).is_ok() {
            assert!(Instant::now() < deadline, "{setting}: still accepting connections after a stop");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(filter.process().is_alive(), "{setting}: smfi_main did not wait for the message");
        assert_eq!(mta.ask("RCPT <b>"), "CONTINUE", "{setting}");
        assert_eq!(mta.ask("BODYEOB"), "CONTINUE", "{setting}");
        until_end(&mut filter, MOMENT);
    }
}

#[test]
fn open_sessions_do_not_delay_the_end() {
    for setting in ours() {
        let mut filter = serving(&setting, "");
        let _greeted = session(&filter, &["HELO h"]);
        let _done = session(&filter, &["MAIL <a>", "RCPT <b>", "BODYEOB"]);
        let _silent = filter.connect();
        filter.process().signal(Signal::TERM);
        until_end(&mut filter, MOMENT);
    }
}

#[test]
fn an_endless_message_delays_the_end_by_the_drain_time() {
    for setting in ours() {
        let mut filter = serving(&setting, "");
        let _mta = session(&filter, &["MAIL <a>"]);
        let start = Instant::now();
        filter.process().signal(Signal::TERM);
        until_end(&mut filter, LIMIT);
        assert!(start.elapsed() > MOMENT, "{setting}: only {:?}", start.elapsed());
    }
}

/// As long as smfi_main waits for one session it waits for the others, too, in whichever process they are.
#[test]
fn what_begins_while_a_stop_waits_is_waited_for() {
    let workers_with_threads = Setting { processes: Some(2), ..Setting::model("threads") };
    for setting in ours().into_iter().chain([workers_with_threads]) {
        let mut filter = serving_patiently(&setting, "on unknown sleep 1000\n");
        let mut first = session(&filter, &["MAIL <a>"]);
        // Of two workers one has the first and the third.
        let [mut second, _third, mut fourth] = [(); 3].map(|()| session(&filter, &["HELO h"]));
        filter.process().signal(Signal::TERM);
        eventually("the listener closes", || MtaConnection::unix(filter.socket()).is_err());
        // Sessions between messages are to have noticed, or this test asks for less than it might.
        std::thread::sleep(Duration::from_millis(200));

        assert_eq!(second.ask("MAIL <a>"), "CONTINUE", "{setting}");
        assert_eq!(first.ask("RCPT <b>"), "CONTINUE", "{setting}");
        assert_eq!(first.ask("BODYEOB"), "CONTINUE", "{setting}");
        assert!(filter.process().wait(Duration::from_millis(200)).is_none(), "{setting}: a message is in progress");
        assert_eq!(second.ask("RCPT <b>"), "CONTINUE", "{setting}");
        fourth.command("UNKNOWN x");
        filter.wait_for("unknown");
        assert_eq!(second.ask("BODYEOB"), "CONTINUE", "{setting}");
        assert_eq!(fourth.reply(), "CONTINUE", "{setting}");
        until_end(&mut filter, LIMIT);
    }
}

/// It has a copy of every descriptor of the process that the callback runs in.
#[test]
fn a_process_that_a_callback_has_forked_does_not_delay_the_end() {
    for setting in ours() {
        let mut filter = serving_patiently(&setting, "on helo helper\n");
        let _open = session(&filter, &["HELO h"]);
        filter.process().signal(Signal::TERM);
        until_end(&mut filter, LIMIT);
    }
}

#[test]
fn d31_stop_in_a_callback_that_goes_on_sleeping() {
    for setting in ours() {
        let mut filter = serving(&setting, "on helo stop\non helo sleep 60000\non helo crash\n");
        let mut mta = session(&filter, &[]);
        mta.command("HELO h");
        filter.wait_for("stop 0");
        until_end(&mut filter, LIMIT);
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
    }
}

#[test]
fn d31_stop_in_a_signal_handler() {
    for setting in ours() {
        let plan = "start stop-on USR1\nstart setconn $socket\nstart register\nstart opensocket\nstart main\n";
        let mut filter = Filter::launch(&setting, plan, TempDir::new());
        filter.wait_for("opensocket 0");
        drop(session(&filter, &["HELO h"]));
        filter.process().signal(Signal::USR1);
        until_end(&mut filter, MOMENT);
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
    }
}

#[test]
fn d31_stop_in_another_thread() {
    for setting in Setting::each("d31_stop_in_another_thread") {
        let plan = "start setconn $socket\nstart register\nstart opensocket\nstart later 100 stop\nstart main\n";
        let mut filter = Filter::launch(&setting, plan, TempDir::new());
        until_end(&mut filter, LIMIT);
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
    }
}

#[test]
fn d32_sessions_go_on_after_main() {
    for setting in ours() {
        let mut filter = serving(&setting, "start sleep 60000\n");
        let mut mta = session(&filter, &["HELO h"]);
        filter.process().signal(Signal::TERM);
        filter.wait_for("main 0");
        for command in ["MAIL <a>", "RCPT <b>", "BODYEOB"] {
            assert_eq!(mta.ask(command), "CONTINUE", "{setting} {command}");
        }
        assert_eq!(mta.ask("MAIL <a>"), "CONTINUE", "{setting}");
        drop(mta);
        filter.wait_for("abort");
        filter.wait_for("close");
        assert!(filter.process().is_alive(), "{setting}");
    }
}

#[test]
fn d28_signals_that_the_filter_has_blocked() {
    for setting in Setting::each("d28_signals_that_the_filter_has_blocked") {
        let mut filters = [Signal::TERM, Signal::HUP, Signal::INT].map(|signal| {
            let plan = "start block HUP TERM INT USR1\nstart setconn $socket\nstart register\nstart opensocket\n\
                        start main\n";
            let filter = Filter::launch(&setting, plan, TempDir::new());
            filter.wait_for("opensocket 0");
            drop(session(&filter, &["HELO h"]));
            (filter, signal)
        });
        for (filter, signal) in &mut filters {
            filter.process().signal(*signal);
        }
        for (filter, _) in &mut filters {
            until_end(filter, LIMIT);
            assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
        }
    }
}

#[test]
fn d29_a_thread_of_the_filter_that_waits_for_a_signal() {
    for setting in Setting::each("d29_a_thread_of_the_filter_that_waits_for_a_signal") {
        let plan = "start signal-thread USR1\nstart setconn $socket\nstart register\nstart opensocket\nstart main\n";
        let mut filter = Filter::launch(&setting, plan, TempDir::new());
        filter.wait_for("opensocket 0");
        let mut mta = session(&filter, &["HELO h"]);
        for _ in 0..3 {
            filter.process().signal(Signal::USR1);
            filter.wait_for("thread got signal");
        }
        assert_eq!(mta.ask("MAIL <a>"), "CONTINUE", "{setting}");
        assert!(filter.process().is_alive(), "{setting}");
    }
}

#[test]
fn d30_a_handler_of_the_filter_for_a_signal_of_the_library() {
    for setting in ours() {
        let plan = "start stop-on TERM\nstart setconn $socket\nstart register\nstart opensocket\nstart main\n";
        let mut filter = Filter::launch(&setting, plan, TempDir::new());
        filter.wait_for("opensocket 0");
        drop(session(&filter, &["HELO h"]));
        filter.process().signal(Signal::TERM);
        until_end(&mut filter, MOMENT);
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
    }
}

/// Sessions outlive the other signals, this one they do not outlive.
#[test]
fn an_interrupt_gives_messages_up() {
    for setting in ours() {
        let mut filter = serving(&setting, "on envfrom sleep 3000\nstart sleep 60000\n");
        let mut mta = session(&filter, &["HELO h"]);
        mta.command("MAIL <a>");
        filter.wait_for("envfrom");
        filter.process().signal(Signal::INT);
        for reply in ["CONTINUE", "EOF"] {
            assert_eq!(mta.receive(LIMIT).to_string(), reply, "{setting}");
        }
        for event in ["abort", "close", "main 0"] {
            filter.wait_for(event);
        }
    }
}

/// Only the first of these signals means something, as long as smfi_main runs.
#[test]
fn defect_39_more_signals_are_swallowed() {
    for setting in ours() {
        let mut filter = serving(&setting, "start sleep 300\nstart signals\n");
        let mut mta = session(&filter, &["MAIL <a>"]);
        for signal in [Signal::TERM, Signal::TERM, Signal::HUP] {
            filter.process().signal(signal);
        }
        assert_eq!(mta.ask("RCPT <b>"), "CONTINUE", "{setting}");
        assert_eq!(mta.ask("BODYEOB"), "CONTINUE", "{setting}");
        until_end(&mut filter, LIMIT);
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
        // The caller's mask is back.
        assert_eq!(filter.wait_for("signals"), "signals blocked:, PIPE ignored", "{setting}");
    }
}
