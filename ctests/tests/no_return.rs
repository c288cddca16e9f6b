//! Callbacks that do not return: they end their thread, or an exception leaves them.

use std::time::Duration;

use ctests::{Compile, Filter, Library, MtaConnection, PATIENCE, Program, Setting, Signal, TempDir};

/// A session up to the callback that does not return: the commands before it, and the one that runs it.
const CALLBACKS: [(&str, &[&str], &str); 13] = [
    ("negotiate", &[], "OPTNEG 6 1ff 1fffff"),
    ("connect", &["OPTNEG 6 1ff 1fffff"], "CONNECT h inet6 25 2001:db8::1"),
    ("helo", &["OPTNEG 6 1ff 1fffff"], "HELO h"),
    ("envfrom", &["OPTNEG 6 1ff 1fffff"], "MAIL <a> SIZE=1"),
    ("envrcpt", &["OPTNEG 6 1ff 1fffff", "MAIL <a>"], "RCPT <b>"),
    ("data", &["OPTNEG 6 1ff 1fffff", "MAIL <a>", "RCPT <b>"], "DATA"),
    ("header", &["OPTNEG 6 1ff 1fffff", "MAIL <a>", "RCPT <b>"], "HEADER S v"),
    ("eoh", &["OPTNEG 6 1ff 1fffff", "MAIL <a>", "RCPT <b>", "HEADER S v"], "EOH"),
    ("body", &["OPTNEG 6 1ff 1fffff", "MAIL <a>", "RCPT <b>", "EOH"], r#"BODY "x"*65535"#),
    ("eom", &["OPTNEG 6 1ff 1fffff", "MAIL <a>", "RCPT <b>", "EOH"], "BODYEOB"),
    ("unknown", &["OPTNEG 6 1ff 1fffff"], "UNKNOWN FROBNICATE"),
    ("abort", &["OPTNEG 6 1ff 1fffff", "MAIL <a>"], "ABORT"),
    ("close", &["OPTNEG 6 1ff 1fffff"], "QUIT"),
];

/// The callbacks that the other session of a test never comes to.
const NOT_FOR_OTHERS: [&str; 1] = ["negotiate"];

fn session(filter: &Filter, commands: &[&str]) -> MtaConnection {
    let mut mta = filter.connect();
    for command in commands {
        let reply = mta.ask(command);
        assert!(reply == "CONTINUE" || reply.starts_with("OPTNEG"), "{command}: {reply}");
    }
    mta
}

/// Where the C library unwinds the stack of a thread that ends, that is the end of one session.
#[test]
fn a_callback_may_end_its_thread() {
    let settings = [Setting::ours(), Setting::model("threads"), Setting::ours_static()];
    for (setting, how) in settings.iter().flat_map(|setting| [(setting, "exit-thread"), (setting, "cancel-thread")]) {
        for (callback, before, last) in CALLBACKS {
            let case = format!("{setting}, {how} in {callback}");
            // The other session is the first, the one that loses its thread the second.
            let nth = if NOT_FOR_OTHERS.contains(&callback) { 2 } else { 1 };
            let callbacks = "connect helo envfrom envrcpt header eoh body eom abort close unknown data";
            let negotiate = if callback == "negotiate" { " negotiate" } else { "" };
            let plan = format!("callbacks {callbacks}{negotiate}\non {callback}#{nth} {how}\n");
            let mut filter = Filter::start(setting, &plan);
            let mut other = session(&filter, &["OPTNEG 6 1ff 1fffff"]);

            let mut mta = session(&filter, before);
            mta.command(last);
            assert_eq!(mta.reply(), "EOF", "{case}");
            filter.wait_for("thread over");
            let lines = filter.lines();
            let end = lines.iter().position(|line| line == "cleanup").unwrap_or_else(|| panic!("{case}: {lines:?}"));
            // No callback follows, xxfi_close included, and the operator learns of it once.
            let rest: Vec<&str> =
                lines[end + 1..].iter().map(|line| line.split(" \"").next().unwrap_or(line)).collect();
            assert!(matches!(rest[..], ["log 3", "thread over"] | ["thread over", "log 3"]), "{case}: {rest:?}");

            for command in ["MAIL <a>", "RCPT <b>", "DATA", "HEADER S v", "EOH", "BODY x", "BODYEOB"] {
                assert_eq!(other.ask(command), "CONTINUE", "{case}: {command}");
            }
            drop(session(&filter, &["OPTNEG 6 1ff 1fffff", "HELO h"]));
            filter.process().signal(Signal::TERM);
            // A stop that waited for the thread that is gone would take five seconds.
            let status = filter.process().wait(Duration::from_secs(4));
            assert!(status.is_some_and(|status| status.success()), "{case}: {status:?}");
        }
    }
}

/// More often than there are threads, and from blocked threads: somebody always serves the others.
#[test]
fn many_callbacks_end_their_threads() {
    for setting in [Setting::ours(), Setting::model("threads")] {
        let filter = Filter::start(&setting, "on helo exit-thread\non envfrom sleep 20\non envfrom exit-thread\n");
        let mut other = session(&filter, &["OPTNEG 6 1ff 1fffff"]);
        for _ in 0..10 {
            let mut leaving: Vec<MtaConnection> = (0..8).map(|_| session(&filter, &["OPTNEG 6 1ff 1fffff"])).collect();
            for (number, mta) in leaving.iter_mut().enumerate() {
                mta.command(if number % 2 == 0 { "HELO h" } else { "MAIL <a>" });
            }
            assert_eq!(other.ask("UNKNOWN x"), "CONTINUE", "{setting}");
            for mut mta in leaving {
                assert_eq!(mta.reply(), "EOF", "{setting}");
            }
        }
        let lines = filter.lines();
        assert_eq!(lines.iter().filter(|line| *line == "cleanup").count(), 80, "{setting}");
    }
}

/// A filter that cancels threads: `HELO self` the one that runs it, `HELO other` the one that ran `HELO marked` if there is
/// still one. No callback has a cancellation point.
const CANCELS: &str = r#"
#include <pthread.h>
#include <string.h>
#include <libmilter/mfapi.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t end;
static pthread_t marked;
static int is_marked;

static void on_end(void *value)
{
	(void) value;
	pthread_mutex_lock(&lock);
	is_marked = 0;
	pthread_mutex_unlock(&lock);
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
	(void) ctx;
	pthread_mutex_lock(&lock);
	if (strcmp(name, "self") == 0)
		pthread_cancel(pthread_self());
	if (strcmp(name, "marked") == 0) {
		marked = pthread_self();
		is_marked = 1;
		pthread_setspecific(end, &marked);
	}
	if (strcmp(name, "other") == 0 && is_marked)
		pthread_cancel(marked);
	pthread_mutex_unlock(&lock);
	return SMFIS_CONTINUE;
}

static sfsistat on_unknown(SMFICTX *ctx, const char *command)
{
	(void) ctx, (void) command;
	return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
	struct smfiDesc filter = { .xxfi_version = SMFI_VERSION, .xxfi_helo = on_helo, .xxfi_unknown = on_unknown };

	return argc != 2 || pthread_key_create(&end, on_end) != 0 || smfi_setconn(argv[1]) != MI_SUCCESS
	       || smfi_register(filter) != MI_SUCCESS || smfi_main() != MI_SUCCESS;
}
"#;

/// Never in the library's own code: the next callback of the thread is its last.
#[test]
fn a_thread_that_is_cancelled_ends_in_a_callback() {
    const OFFER: &str = "OPTNEG 6 1ff 1fffff";
    for setting in [Setting::ours(), Setting::model("threads"), Setting::model("fork")] {
        let directory = TempDir::new();
        let program = Compile::c(setting.library).source(directory.write("cancels.c", CANCELS)).flag("-pthread");
        let program = program.to(directory.join("cancels"));
        let socket = directory.join("socket");
        let filter = Program::at(program).serve(&setting, &socket, &[&format!("unix:{}", socket.display())]);
        let session = || {
            let mut mta = MtaConnection::unix(&socket).expect("the filter listens");
            assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
            mta
        };
        let mut other = session();
        for _ in 0..8 {
            assert_eq!(session().ask("HELO self"), "EOF", "{setting}");
            assert_eq!(other.ask("UNKNOWN x"), "CONTINUE", "{setting}");
        }

        let mut idle = session();
        assert_eq!(idle.ask("HELO marked"), "CONTINUE", "{setting}");
        let mut replies = vec![other.ask("HELO other"), idle.ask("UNKNOWN x")];
        replies.extend((0..8).map(|_| session().ask("UNKNOWN x")));
        let ended: Vec<usize> = (0..replies.len()).filter(|nth| replies[*nth] != "CONTINUE").collect();
        assert!(ended.iter().all(|nth| replies[*nth] == "EOF"), "{setting}: {replies:?}");
        match setting.model {
            Some("threads") => assert_eq!(ended, [1], "{setting}"),
            Some(_) => assert_eq!(ended, [0; 0], "each in a process of its own"),
            // The thread may be the one that cancels, or serve anybody next.
            None => assert!(ended.len() <= 1, "{setting}: {replies:?}"),
        }
        let (status, _) = filter.stop(PATIENCE);
        assert!(status.success(), "{setting}: {status}");
    }
}

/// A filter in C++ that throws in xxfi_helo; libraries in C let that end the process where it is thrown.
const THROWS: &str = r#"
#include <exception>
#include <cstdio>
#include <cstdlib>
#include <libmilter/mfapi.h>

static int depth;

struct Frame {
	Frame() { depth++; }
	~Frame() { depth--; }
};

static void on_terminate()
{
	std::printf("terminated at depth %d\n", depth);
	std::fflush(stdout);
	std::_Exit(7);
}

static sfsistat on_helo(SMFICTX *, char *)
{
	Frame frame;
	throw 1;
}

int main(int, char **argv)
{
	struct smfiDesc filter = smfiDesc();
	filter.xxfi_version = SMFI_VERSION;
	filter.xxfi_helo = on_helo;
	std::set_terminate(on_terminate);
	return smfi_setconn(argv[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS || smfi_main() != MI_SUCCESS;
}
"#;

#[test]
fn an_exception_that_leaves_a_callback_ends_the_process() {
    for setting in Setting::each("an_exception_that_leaves_a_callback_ends_the_process") {
        let directory = TempDir::new();
        let library: &Library = setting.library;
        let program = Compile::cxx(library).source(directory.write("throws.cc", THROWS)).to(directory.join("throws"));
        let socket = directory.join("socket");
        let address = format!("unix:{}", socket.display());
        let mut filter = Program::at(program).serve(&setting, &socket, &[&address]);
        let mut mta = MtaConnection::unix(&socket).expect("the filter listens");
        assert!(mta.ask("OPTNEG 6 1ff 1fffff").starts_with("OPTNEG"), "{setting}");
        mta.command("HELO h");
        let status = filter.process().wait(PATIENCE);
        assert_eq!(status.and_then(|status| status.code()), Some(7), "{setting}: {}", filter.output());
        assert_eq!(filter.output(), "terminated at depth 1\n", "{setting}");
    }
}
