//! The programs in `examples/`: built with the flags of pkg-config, and doing what they say.

use ctests::stage::{build, exists, pkg_config, prefix};
use ctests::{Process, Signal, TempDir, skip, workspace_dir};
use milter_probe::{Client, Envelope, Fate, Mail, Mailbox, Mta, Outcome, Session, Target};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PLAIN: &str = include_str!("../../mail/plain.eml");
const MULTIPART: &str = include_str!("../../mail/multipart.eml");

/// How an example is built.
#[derive(Clone, Copy, Debug)]
enum Build {
    Shared,
    Static,
    /// With the compiler's checks of memory, leaks and undefined behaviour.
    Sanitized,
}

/// An example that runs.
struct Example {
    process: Process,
    directory: TempDir,
}

/// Compiles an example into `directory`.
fn compile(source: &str, kind: Build, directory: &TempDir) -> PathBuf {
    let program = directory.join("example");
    let compiler = if source.ends_with(".cpp") { "c++" } else { "cc" };
    let mut flags = match kind {
        Build::Static => pkg_config(&["--static", "--cflags", "--libs"]),
        Build::Shared | Build::Sanitized => pkg_config(&["--cflags", "--libs"]),
    };
    flags.extend(["-Wall", "-Wextra", "-pedantic", "-Werror", "-O2", "-g", "-pthread"].map(str::to_owned));
    flags.push(match kind {
        Build::Static => "-static".to_owned(),
        Build::Shared | Build::Sanitized => format!("-Wl,-rpath,{}", prefix().join("lib").display()),
    });
    if matches!(kind, Build::Sanitized) {
        flags.extend(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"].map(str::to_owned));
    }
    let path = workspace_dir().join("examples").join(source);
    build(compiler, &path, &flags, &program).unwrap_or_else(|error| panic!("{source}, {kind:?}:\n{error}"));
    program
}

impl Example {
    fn start(program: &Path, arguments: &[&str]) -> Example {
        let directory = TempDir::new();
        let output = File::create(directory.join("output")).expect("a writable directory");
        let process = Process::spawn(
            Command::new(program)
                .arg(format!("unix:{}", directory.join("socket").display()))
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(output.try_clone().expect("a descriptor"))
                .stderr(output)
                .env_remove("LIBMILTER_OPTIONS"),
        );
        let mut example = Example { process, directory };
        let deadline = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(example.socket()).is_err() {
            let well = example.process.is_alive() && Instant::now() < deadline;
            assert!(well, "{} does not listen: {}", program.display(), example.output());
            thread::sleep(Duration::from_millis(2));
        }
        example
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.join("output")).unwrap_or_default()).into_owned()
    }

    fn session(&self, mta: Mta, macros: &[&str]) -> Session {
        let patience = mta.patience();
        let stream = Target::Unix(self.socket()).connect(patience.connect).expect("the example listens");
        let mut session = Session::negotiate(stream, mta, patience).expect("the example negotiates");
        let macros: Vec<_> = macros.iter().map(|text| text.parse().expect("name=value")).collect();
        session.greet(&Client::default(), "client.example", &macros).expect("the example answers");
        session
    }

    /// Passes one message in a session of its own.
    fn pass(&self, mta: Mta, text: &str) -> Outcome {
        let mut session = self.session(mta, &[]);
        let outcome = deliver(&mut session, text, None);
        session.quit().expect("the example takes the end of the session");
        outcome
    }

    /// Stops the example; the sanitizers complain here.
    fn stop(mut self) -> String {
        self.process.signal(Signal::TERM);
        let status = self.process.wait(Duration::from_secs(30));
        let output = self.output();
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{output}");
        output
    }
}

fn deliver(session: &mut Session, text: &str, sender: Option<&str>) -> Outcome {
    let mut envelope = Envelope::suggested_by(text.as_bytes());
    if let Some(sender) = sender {
        envelope.sender = Mailbox::parse(sender.as_bytes());
    }
    session.deliver(&Mail::parse(text.as_bytes()), &envelope, &mut |_| {}).expect("the example keeps to the protocol")
}

/// The values of a header in the delivered message.
fn values(outcome: &Outcome, name: &str) -> Vec<String> {
    let mail = outcome.delivery.mail();
    let found = mail.headers.iter().filter(|header| header.is(name.as_bytes()));
    found.map(|header| String::from_utf8_lossy(header.unspaced_value()).into_owned()).collect()
}

/// Runs an example in every build, played by each MTA.
fn in_every_build(source: &str, arguments: &[&str], check: impl Fn(&Example, Mta)) {
    let mut kinds = vec![Build::Shared, Build::Static];
    if exists("cc") && sanitizers_link() {
        kinds.push(Build::Sanitized);
    } else {
        skip(&format!("{source} with sanitizers"), "libasan and libubsan of the compiler");
    }
    for kind in kinds {
        let directory = TempDir::new();
        let program = compile(source, kind, &directory);
        for mta in [Mta::Postfix, Mta::Sendmail] {
            let example = Example::start(&program, arguments);
            check(&example, mta);
            example.stop();
        }
    }
}

fn sanitizers_link() -> bool {
    let directory = TempDir::new();
    let source = directory.write("empty.c", "int main(void) { return 0; }\n");
    build("cc", &source, &["-fsanitize=address,undefined".to_owned()], &directory.join("empty")).is_ok()
}

#[test]
fn minimal_refuses_one_sender() {
    in_every_build("minimal.c", &[], |example, mta| {
        let mut session = example.session(mta, &[]);
        let refused = deliver(&mut session, PLAIN, Some("<Spammer@example.com>"));
        assert_eq!(refused.fate, Fate::Rejected);
        assert_eq!(refused.reply.to_string(), "550 5.7.1 Your mail is not welcome here");
        assert_eq!(deliver(&mut session, PLAIN, None).fate, Fate::Accepted);
    });
}

#[test]
fn add_header_replaces_forged_marks() {
    let forged =
        PLAIN.replace("Subject:", "x-checked: a\nSubject:").replace("Date:", "X-Checked: b\nX-Checked: c\nDate:");
    in_every_build("add_header.c", &[], |example, mta| {
        let mut session = example.session(mta, &[]);
        for (number, text) in [(1, PLAIN), (2, &forged), (3, PLAIN)] {
            let outcome = deliver(&mut session, text, None);
            assert_eq!(outcome.fate, Fate::Accepted);
            let mark = format!("by mta.example.org as 4PROBE000{number}");
            assert_eq!(values(&outcome, "X-Checked"), [mark], "{outcome:?}");
            // At the top, but for what the MTA itself puts there.
            assert!(outcome.delivery.mail().headers[0].is(b"X-Checked"), "{outcome:?}");
        }
    });
}

#[test]
fn replace_body_keeps_the_first_part() {
    let (kept, _) = MULTIPART.split_once("Content-Type: text/csv").expect("there is an attachment");
    let kept = format!("{}--\n", kept.trim_end());
    in_every_build("replace_body.c", &[], |example, mta| {
        let outcome = example.pass(mta, MULTIPART);
        assert_eq!(outcome.fate, Fate::Accepted);
        assert_eq!(String::from_utf8_lossy(&outcome.delivery.mail().render()), kept);
        let single = kept.as_str();
        for untouched in [PLAIN, single, "Content-Type: multipart/mixed; boundary=\"b\"\n\nno parts\n"] {
            assert_eq!(example.pass(mta, untouched).delivery.changes, [], "{untouched}");
        }
    });
}

#[test]
fn greylist_refuses_first_attempts() {
    in_every_build("greylist.c", &["0"], |example, mta| {
        for sender in ["<a@example.com>", "<>"] {
            let mut session = example.session(mta, &[]);
            let first = deliver(&mut session, PLAIN, Some(sender));
            assert_eq!(first.fate, Fate::Deferred);
            assert_eq!(first.reply.to_string(), "451 4.7.1 Greylisted, please try again later");
            assert_eq!(deliver(&mut session, PLAIN, Some(sender)).fate, Fate::Accepted);
        }
    });
    let directory = TempDir::new();
    let patient = Example::start(&compile("greylist.c", Build::Shared, &directory), &["3600"]);
    let fates: Vec<Fate> = (0..2).map(|_| patient.pass(Mta::Postfix, PLAIN).fate).collect();
    assert_eq!(fates, [Fate::Deferred, Fate::Deferred]);
    patient.stop();
}

#[test]
fn no_reply_counts_without_answering() {
    let mail = Mail::parse(PLAIN.as_bytes());
    let counted = format!("{} fields, {} octets", mail.headers.len(), mail.body.len());
    in_every_build("no_reply.c", &[], |example, mta| {
        let mut session = example.session(mta, &[]);
        let steps = format!("{:?}", session.negotiation().steps);
        assert!(["NR_HEADER", "NR_BODY"].iter().all(|step| steps.contains(step)), "{steps}");
        for _ in 0..2 {
            let outcome = deliver(&mut session, PLAIN, None);
            assert_eq!(values(&outcome, "X-Counted"), [counted.as_str()]);
        }
    });
}

/// What `inspect` prints of one session, without the number of the session.
const INSPECTED: [&str; 13] = [
    "negotiate actions=0x1ff steps=0x1fffff",
    "connect \"localhost\" 127.0.0.1 [j=mta.example.org] [_=localhost [127.0.0.1]] [{daemon_name}=MTA] \
     [{if_name}=mta.example.org] [{if_addr}=127.0.0.1]",
    "helo \"client.example\"",
    "envfrom \"<a@example.com>\" \"SIZE=50\" \"BODY=8BITMIME\" [i=4PROBE0001] [{auth_authen}=alice] \
     [{mail_mailer}=smtp] [{mail_host}=example.com] [{mail_addr}=a@example.com]",
    "envrcpt \"<b@example.org>\" [i=4PROBE0001] [{rcpt_mailer}=smtp] [{rcpt_host}=example.org] \
     [{rcpt_addr}=b@example.org]",
    "data [i=4PROBE0001]",
    "header \"From\" \"<a@example.com>\"",
    "header \"To\" \"<b@example.org>\"",
    "header \"Subject\" \"s\"",
    "eoh",
    "body 6 octets, first 0x62",
    "eom [i=4PROBE0001]",
    "closed",
];

#[test]
fn inspect_prints_stages_arguments_and_macros() {
    let text = "From: <a@example.com>\nTo: <b@example.org>\nSubject: s\n\nbody\n";
    let directory = TempDir::new();
    let example = Example::start(&compile("inspect.c", Build::Shared, &directory), &[]);
    let mut session = example.session(Mta::Sendmail, &["auth_authen=alice"]);
    deliver(&mut session, text, Some("<a@example.com> SIZE=50 BODY=8BITMIME"));
    session.quit().expect("the example takes the end of the session");
    // The connection that looked whether the example listens printed one line, too, and the log has one about it.
    let printed = example.stop();
    let of_sessions = printed.lines().filter(|line| line.starts_with("0x"));
    let lines: Vec<&str> = of_sessions.filter_map(|line| Some(line.split_once(' ')?.1)).skip(1).collect();
    assert_eq!(lines, INSPECTED);
}

#[test]
fn tag_subject_marks_what_comes_from_strangers() {
    in_every_build("tag_subject.cpp", &["[external]"], |example, mta| {
        let outcome = example.pass(mta, PLAIN);
        assert_eq!(values(&outcome, "Subject"), ["[external] Fog signal out of order"]);
        let tagged = String::from_utf8(outcome.delivery.mail().render()).expect("UTF-8 stays UTF-8");
        assert_eq!(example.pass(mta, &tagged).delivery.changes, []);
        let mut session = example.session(mta, &["auth_authen=alice"]);
        assert_eq!(deliver(&mut session, PLAIN, None).delivery.changes, []);
    });
}

/// Every example is tested, is short, and begins with what it shows and how it is built.
#[test]
fn examples_are_short_and_say_how_to_build_them() {
    let tests = include_str!("examples.rs");
    let directory = workspace_dir().join("examples");
    let mut seen = 0;
    for entry in fs::read_dir(directory).expect("there are examples") {
        let path = entry.expect("the directory stays").path();
        let file = path.file_name().expect("it has one").to_string_lossy().into_owned();
        let name = path.file_stem().expect("it has one").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("it is a text");
        assert!(tests.contains(&format!("\"{file}\"")), "no test runs {file}");
        assert!(text.lines().count() < 100, "{file} has a hundred lines");
        let compiler = if file.ends_with(".cpp") { "c++" } else { "cc" };
        for line in [
            format!("/*\n * {name} - "),
            format!(" *   {compiler} {file} -o {name} "),
            "$(pkg-config --cflags --libs milter)\n".to_owned(),
            format!(" *   ./{name} unix:/tmp/{name}.sock"),
            format!(" *   milter-probe send --connect unix:/tmp/{name}.sock "),
        ] {
            assert!(text.contains(&line), "{file} lacks {line:?}");
        }
        seen += 1;
    }
    assert!(seen > 0);
}
