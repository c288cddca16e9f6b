//! What callbacks can rely on: concurrency, threads, signal masks, descriptors, contexts.

use std::{fs, os::unix::net::UnixStream, process::Command, thread, time::Duration};

use ctests::{Filter, MtaConnection, PATIENCE, Setting, eventually};

const OFFER: &str = "OPTNEG 6 1ff 1fffff";

fn ours() -> [Setting; 4] {
    Setting::every_model()
}

fn negotiated(filter: &Filter) -> MtaConnection {
    let mut mta = filter.connect();
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    mta
}

/// How many sessions have got as far as xxfi_helo.
fn in_helo(filter: &Filter) -> usize {
    filter.lines().iter().filter(|line| line.starts_with("helo")).count()
}

/// Defect 28 of the reference's pool: sessions queue behind a callback that blocks.
#[test]
fn l19_defect_28_callbacks_that_block_do_not_wait_for_each_other() {
    for setting in ours() {
        let filter = Filter::start(&setting, "on helo sleep 600000\n");
        let mut sessions: Vec<MtaConnection> = (0..6).map(|_| negotiated(&filter)).collect();
        for mta in &mut sessions {
            mta.command("HELO h");
        }
        eventually(format_args!("{setting}: all of them are in their callback"), || in_helo(&filter) == 6);
    }
}

/// D35: a session that is quick is not held up by many that block.
#[test]
fn d35_quick_sessions_beside_blocked_ones() {
    for setting in ours() {
        let filter = Filter::start(&setting, "on helo sleep 600000\n");
        let mut blocked: Vec<MtaConnection> = (0..40).map(|_| negotiated(&filter)).collect();
        for mta in &mut blocked {
            mta.command("HELO h");
        }
        eventually(format_args!("{setting}: all of them are blocked"), || in_helo(&filter) == 40);
        let mut quick = negotiated(&filter);
        for command in ["MAIL <a>", "RCPT <b>", "DATA", "HEADER S v", "EOH", "BODY x", "BODYEOB"] {
            assert_eq!(quick.ask(command), "CONTINUE", "{setting}");
        }
    }
}

#[test]
fn d36_one_thread_per_session_in_the_thread_model() {
    let events = ["connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "close"];
    let plan: String =
        events.iter().map(|event| format!("on {event} affinity\n")).collect::<String>() + "on close setpriv NULL\n";
    let filter = Filter::start(&Setting::model("threads"), &plan);
    let mut sessions: Vec<MtaConnection> = (0..5).map(|_| negotiated(&filter)).collect();
    for command in
        ["CONNECT h unknown", "HELO h", "MAIL <a>", "RCPT <b>", "DATA", "HEADER S v", "EOH", "BODY x", "BODYEOB"]
    {
        for mta in &mut sessions {
            assert_eq!(mta.ask(command), "CONTINUE");
        }
    }
    for mta in &mut sessions {
        assert_eq!(mta.ask("QUIT"), "EOF");
    }
    let lines = filter.lines();
    assert!(!lines.contains(&"thread other".to_owned()));
    assert_eq!(lines.iter().filter(|line| *line == "thread same").count(), 5 * 9);
}

#[test]
fn d37_contexts_of_many_sessions_at_once() {
    for setting in Setting::each("d37_contexts_of_many_sessions_at_once") {
        let filter = Filter::start(
            &setting,
            "on connect identity\non helo identity\non envfrom identity\non eom identity\non close identity end\n",
        );
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let mut mta = negotiated(&filter);
                        for command in ["CONNECT h unknown", "HELO h", "MAIL <a>", "RCPT <b>", "BODYEOB"] {
                            assert_eq!(mta.ask(command), "CONTINUE");
                        }
                        assert_eq!(mta.ask("QUIT"), "EOF");
                    }
                });
            }
        });
        let lines = filter.lines();
        assert_eq!(lines.iter().filter(|line| *line == "eom").count(), 80, "{setting}");
        let broken: Vec<_> = lines.iter().filter(|line| line.contains("context")).collect();
        assert!(broken.is_empty(), "{setting}: {broken:?}");
    }
}

#[test]
fn l21_d34_signals_in_callbacks_and_their_children() {
    for setting in Setting::each("l21_d34_signals_in_callbacks_and_their_children") {
        let filter = Filter::start(&setting, "on helo signals\non helo child\n");
        assert_eq!(negotiated(&filter).ask("HELO h"), "CONTINUE", "{setting}");
        let signals: Vec<String> = filter.lines().into_iter().filter(|line| line.starts_with("signals")).collect();
        assert_eq!(signals, vec!["signals blocked: HUP INT TERM, PIPE ignored"; 2], "{setting}");
    }
}

#[test]
fn l22_defect_34_descriptors_of_a_child() {
    for setting in ours() {
        let filter = Filter::start(&setting, "on helo child\n");
        let _other = negotiated(&filter);
        assert_eq!(negotiated(&filter).ask("HELO h"), "CONTINUE", "{setting}");
        assert_eq!(filter.wait_for("child"), "child descriptors 0 1 2", "{setting}");
    }
}

#[test]
fn defect_45_every_descriptor_is_close_on_exec() {
    for setting in ours() {
        let mut filter = Filter::start(&setting, "");
        let mut mta = negotiated(&filter);
        assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting}");
        let pid = filter.process().pid();
        let mut looked_at = 0;
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("a live process") {
            let entry = entry.expect("a readable directory");
            let number: u32 = entry.file_name().to_string_lossy().parse().expect("a number");
            if number < 3 {
                continue;
            }
            // Some are open for a moment only.
            let Ok(information) = fs::read_to_string(entry.path()) else { continue };
            let flags = information.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags").trim();
            let flags = u32::from_str_radix(flags, 8).expect("an octal number");
            assert_ne!(flags & 0o2_000_000, 0, "{setting}: descriptor {number} {information}");
            looked_at += 1;
        }
        assert!(looked_at >= 3, "{setting}: record, listener and session are open");
    }
}

/// With no descriptor left for another connection, the filter waits, says so, and serves it later. Workers have limits
/// of their own: `processes::workers_without_descriptors`.
#[test]
fn defect_43_no_descriptor_left() {
    for setting in [Setting::ours(), Setting::model("threads"), Setting::model("fork")] {
        let mut filter = Filter::start(&setting, "");
        let pid = filter.process().pid();
        // Once one is served, smfi_main has all the descriptors it needs.
        let _served = negotiated(&filter);
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("a live process").count();
        let limit =
            Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={}", open + 3)]).status();
        // The record keeps its descriptor, far above the new limit.
        if !limit.is_ok_and(|status| status.success()) {
            return ctests::skip("defect_43_no_descriptor_left", "prlimit (util-linux)");
        }
        let mut sessions: Vec<MtaConnection> = (0..12).map(|_| filter.connect()).collect();
        for mta in &mut sessions {
            mta.command(OFFER);
        }
        filter.wait_for("log 3 ");
        let before = filter.process().cpu_ticks();
        thread::sleep(Duration::from_secs(1));
        let used = filter.process().cpu_ticks() - before;
        assert!(used < 20, "{setting}: {used} ticks of a hundredth of a second while others wait");
        let errors = filter.lines().iter().filter(|line| line.starts_with("log 3")).count();
        assert!((1..5).contains(&errors), "{setting}: {errors} messages: {}", filter.lines().join("\n"));
        // Each that ends makes room for one that waits.
        while let Some(mut mta) = (!sessions.is_empty()).then(|| sessions.remove(0)) {
            let reply = mta.reply();
            assert!(
                reply.starts_with("OPTNEG"),
                "{setting}: {reply} with {} left\n{}",
                sessions.len(),
                filter.lines().join("\n")
            );
        }
    }
}

/// A peer that sends a packet octet by octet does not keep others waiting.
#[test]
fn a_slow_peer_beside_others() {
    for setting in ours() {
        let filter = Filter::start(&setting, "");
        let mut slow: Vec<MtaConnection> = (0..20).map(|_| filter.connect()).collect();
        for mta in &mut slow {
            mta.send(b"\0\0\0");
        }
        let mut mta = negotiated(&filter);
        assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting}");
        for mta in &mut slow {
            mta.send(b"\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff");
            assert_eq!(mta.reply(), "OPTNEG 6 1ff 0", "{setting}");
        }
    }
}

/// smfi_progress comes from other threads too; packets stay whole.
#[test]
fn defect_22_progress_from_another_thread() {
    for setting in ours() {
        let later: String = (0..20).map(|delay| format!("on eom later {} progress\n", 5 * delay)).collect();
        let plan = later + "on eom sleep 50\non eom replacebody \"B\"*655350\non eom sleep 2000\n";
        let filter = Filter::start(&setting, &plan);
        let mut mta = negotiated(&filter);
        assert_eq!(mta.ask("MAIL <a>"), "CONTINUE", "{setting}");
        assert_eq!(mta.ask("RCPT <b>"), "CONTINUE", "{setting}");
        mta.command("BODYEOB");
        let (mut progress, mut body) = (0, 0);
        loop {
            let ctests::conversation::Reply::Frame(frame) = mta.receive(PATIENCE) else {
                panic!("{setting}: the session ended")
            };
            match frame.letter {
                b'p' => progress += 1,
                b'b' => body += frame.payload.len(),
                b'c' => break,
                _ => panic!("{setting}: {frame}"),
            }
        }
        assert_eq!((progress, body), (20, 655_350), "{setting}");
    }
}

/// An MTA that waits for the end of a long callback has to hear of it before.
#[test]
fn progress_is_told_at_once() {
    for setting in Setting::each("progress_is_told_at_once") {
        let filter = Filter::start(&setting, "on eom progress\non eom sleep 60000\n");
        let mut mta = negotiated(&filter);
        assert_eq!(mta.ask("MAIL <a>"), "CONTINUE", "{setting}");
        assert_eq!(mta.ask("RCPT <b>"), "CONTINUE", "{setting}");
        mta.command("BODYEOB");
        assert_eq!(mta.reply(), "PROGRESS", "{setting}");
    }
}

/// A callback that closes descriptors which are not its own: where nothing can be served any more the run ends and says
/// so, and a worker is replaced.
#[test]
fn a_callback_that_closes_every_descriptor() {
    for setting in [Setting::ours(), Setting::model("threads")] {
        let mut filter = Filter::start(&setting, "on helo close-all\n");
        negotiated(&filter).command("HELO h");
        let socket = filter.socket();
        eventually(format_args!("{setting}: the end of the run"), || {
            // `threads` learns of it from the next connection.
            let _ = UnixStream::connect(&socket);
            filter.process().wait(Duration::from_millis(10)).is_some()
        });
        let lines = filter.lines();
        assert!(lines.iter().any(|line| line.contains("smfi_main cannot go on")), "{setting}: {lines:?}");
    }
    for setting in [Setting::model("fork"), Setting::processes(1), Setting::processes(2)] {
        let filter = Filter::start(&setting, "on helo close-all\n");
        for _ in 0..4 {
            negotiated(&filter).command("HELO h");
        }
        negotiated(&filter);
    }
}
