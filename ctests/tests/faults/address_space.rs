//! Peers that send macros until there is no memory left.

use std::{fs, io::Write, os::unix::net::UnixStream, process::Command, thread, time::Duration};

use ctests::{Compile, Frame, PATIENCE, Process, Setting, Signal, TempDir, eventually, skip};

use crate::{
    scene::{FIRST, MORE, REST, is_answered},
    talk::{Fate, Talk},
};

const TEST: &str = "no_memory_left_costs_the_sessions_that_want_it";

/// Bytes of address space of the filter.
const LIMIT: u64 = 300 << 20;

const PEERS: usize = 100;

/// Stages that have macros of their own.
const STAGES: &[u8] = b"CHMRTNE";

/// One packet of macros for each stage, each as large as a packet may be.
fn macros() -> Vec<u8> {
    let packet = |stage: &u8| {
        let mut payload = vec![*stage];
        payload.extend(b"{large}\0");
        payload.resize(65_500, b'x');
        payload.push(0);
        Frame { letter: b'D', payload }.octets()
    };
    STAGES.iter().flat_map(packet).collect()
}

/// What is wrong; and whether the log tells of it.
fn play(setting: &Setting) -> (bool, Vec<&'static str>) {
    let directory = TempDir::new();
    let program = Compile::c(setting.library).source("ctests/filters/faults/steady.c").flag("-Wall").flag("-Wextra");
    let program = program.to(directory.join("steady"));
    let (socket, log) = (directory.join("socket"), directory.join("log"));
    let mut command = Command::new("prlimit");
    command.arg(format!("--as={LIMIT}")).arg(program).arg(format!("unix:{}", socket.display()));
    command.env_remove("LIBMILTER_OPTIONS");
    command.envs(setting.model.map(|model| ("LIBMILTER_OPTIONS", format!("model={model}"))));
    command.stderr(fs::File::create(&log).expect("our own directory"));
    let mut filter = Process::spawn(&mut command);
    let is_told = || {
        fs::read_to_string(&log).is_ok_and(|text| {
            text.lines().any(|line| line.starts_with("3 ") && (line.contains("memory") || line.contains("thread")))
        })
    };
    eventually("it listens", || Talk::is_answered_at(&socket));
    let mut innocent = Talk::with(&socket);
    innocent.say(FIRST);
    let macros = macros();
    let peers: Vec<UnixStream> = thread::scope(|scope| {
        let peers: Vec<_> = (0..PEERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut peer = UnixStream::connect(&socket).ok()?;
                    // Whoever is not served has nobody who reads.
                    peer.set_write_timeout(Some(Duration::from_secs(2))).expect("a limit");
                    let offer = Frame { letter: b'O', payload: [6, 0x1ff, 0x001f_ffff].map(u32::to_be_bytes).concat() };
                    let _ = peer.write_all(&offer.octets()).and_then(|()| peer.write_all(&macros));
                    Some(peer)
                })
            })
            .collect();
        peers.into_iter().filter_map(|peer| peer.join().expect("it does not panic")).collect()
    });
    innocent.say(REST);
    innocent.say(MORE);
    let whole: usize = [FIRST, REST, MORE].concat().iter().filter(|line| is_answered(line)).count();
    let is_whole = |talk: &Talk| talk.fate == Fate::Well && talk.answers.len() == whole;
    let mut wrong = Vec::new();
    if !is_whole(&innocent) {
        wrong.push("the innocent session is lost");
    }
    drop(peers);
    for _ in 0..5 {
        let mut later = Talk::with(&socket);
        later.say(FIRST);
        later.say(REST);
        later.say(MORE);
        if !is_whole(&later) {
            wrong.push("later mail is lost");
        }
    }
    if !filter.is_alive() {
        wrong.push("the process is dead");
        return (is_told(), wrong);
    }
    filter.signal(Signal::TERM);
    if !filter.wait(PATIENCE).is_some_and(|status| status.success()) {
        wrong.push("it does not stop as it should");
    }
    (is_told(), wrong)
}

/// Whoever was there before finishes, and later mail passes.
#[test]
fn no_memory_left_costs_the_sessions_that_want_it() {
    if !Command::new("prlimit").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip(TEST, "prlimit (util-linux)");
    }
    for setting in [Setting::ours(), Setting::model("threads")] {
        let (told, wrong) = play(&setting);
        assert!(wrong.is_empty(), "{setting}: {wrong:?}");
        assert!(told, "{setting}: the log says nothing");
    }
    // To compare with.
    if let Some(reference) = Setting::reference(TEST) {
        eprintln!("{reference}: {:?}", play(&reference).1);
    }
}
