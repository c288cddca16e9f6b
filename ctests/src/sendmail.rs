//! A Sendmail of the test's own, from Debian's packages, which are unpacked and not installed: their
//! places belong to the Postfix of the machine.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Delivery, MailServer, Process, Sink, TempDir, free_port, has_ipv6, is_root,
    mail_server::{HOST, Site},
    program::find,
    skip,
    system_log::SystemLog,
};

/// A running Sendmail. It delivers before it answers. Without the filter it takes nothing.
#[derive(Debug)]
pub struct Sendmail {
    // First, so that it ends before the sink and the directory.
    _daemon: Process,
    log: SystemLog,
    site: Site,
}

/// The address of a filter at [`MailServer::filter_socket`].
pub const LOCAL: &str = "unix:$place/filter";

/// Names the directory of `sendmail-bin_*.deb` and `sendmail-cf_*.deb`, as `apt-get download` leaves them.
pub const PACKAGES: &str = "LIBMILTER_SENDMAIL_DEBS";

impl Sendmail {
    /// Starts one that looks for the filter at `address`, [`LOCAL`] or another one; `None`, and `test` counts as
    /// skipped, where it cannot run.
    ///
    /// # Panics
    ///
    /// When everything is there and it does not start.
    #[must_use]
    pub fn start_or_skip(test: &str, address: &str) -> Option<Sendmail> {
        let packages = packages();
        let lacks = if packages.is_none() {
            Some(
                "sendmail-bin and sendmail-cf as files: apt-get download them to a directory that LIBMILTER_SENDMAIL_DEBS names",
            )
        } else if !is_root() {
            Some("root, to run Sendmail")
        } else {
            ["m4", "dpkg", "unshare"].into_iter().find(|name| find(name).is_none())
        };
        if let Some(lacks) = lacks {
            skip(test, lacks);
            return None;
        }
        let directory = TempDir::new();
        for package in packages.expect("looked at above") {
            run(Command::new("dpkg").arg("-x").arg(package).arg(directory.join("packages")));
        }
        fs::create_dir(directory.join("queue")).expect("a fresh directory");
        let port = free_port();
        let place = directory.path().to_str().expect("a path of ours");
        let listener6 = if has_ipv6() { LISTENER6 } else { "" };
        let macros = [("$listener6", listener6), ("$filter", address), ("$place", place), ("$host", HOST)]
            .iter()
            .fold(CONFIGURATION.to_owned(), |text, (name, value)| text.replace(name, value))
            .replace("$port", &port.to_string());
        let macros = directory.write("sendmail.mc", macros);
        directory.write("sendmail.cf", run(Command::new("m4").arg(macros)));
        directory.write("switch", "hosts files\naliases files\npasswd files\n");
        directory.write("hosts", format!("127.0.0.1 {HOST} localhost\n::1 six.harbour.example\n"));
        // Nobody is there: it is not to ask the network.
        directory.write("resolv.conf", "nameserver 127.0.0.1\n");

        fs::create_dir(directory.join("dev")).expect("a fresh directory");
        let log = SystemLog::listen(&directory.join("dev/log"));
        let sink = Sink::listen(directory.join("sink"));
        let output = File::create(directory.join("output")).expect("a fresh directory");
        let mut command = Sendmail::command(&directory, &["-bD"]);
        command.stdout(output.try_clone().expect("a descriptor")).stderr(output);
        let mut daemon = Process::spawn(&mut command);
        let deadline = Instant::now() + Duration::from_secs(20);
        // A connection to try would make it look for the filter, which need not be there yet.
        while !directory.join("pid").exists() {
            let output = fs::read_to_string(directory.join("output")).unwrap_or_default();
            assert!(daemon.is_alive() && Instant::now() < deadline, "Sendmail does not start: {output}");
            thread::sleep(Duration::from_millis(5));
        }
        Some(Sendmail { _daemon: daemon, log, site: Site::new(sink, directory, port) })
    }

    /// Sendmail with these arguments, in its surroundings.
    fn command(site: &TempDir, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--uts", "--mount", "sh", "-c", SURROUNDINGS, "sh", HOST])
            .arg(site.path())
            .arg(site.join("packages/usr/libexec/sendmail/sendmail"))
            .arg("-C")
            .arg(site.join("sendmail.cf"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }
}

impl MailServer for Sendmail {
    fn site(&self) -> &Site {
        &self.site
    }

    /// Without the date and the name that it gives to messages that have none.
    fn next(&self) -> Delivery {
        let delivery = self.sink().next();
        let (head, body) = delivery.message.split_once("\n\n").unwrap_or((&delivery.message, ""));
        let kept = head.lines().filter(|line| !["Date:", "Message-Id:"].iter().any(|name| line.starts_with(name)));
        let message = kept.collect::<Vec<_>>().join("\n") + "\n\n" + body;
        Delivery { message, ..delivery }
    }

    fn release_held(&self) -> bool {
        let queue = fs::read_dir(self.directory().join("queue")).expect("our own directory");
        // The prefix of the files that describe messages in quarantine.
        let held = queue.flatten().any(|entry| entry.file_name().as_bytes().starts_with(b"hf"));
        if held {
            run(&mut Sendmail::command(self.directory(), &["-qQ", "-Q"]));
            run(&mut Sendmail::command(self.directory(), &["-q"]));
        }
        held
    }

    fn takes_xclient(&self) -> bool {
        false
    }

    /// Not that a filter was stopped before Sendmail could take its leave.
    fn complaints(&self) -> Vec<String> {
        let is_one = |line: &String| line.contains("ilter") && !line.contains("): write(Q) returned -1");
        self.log.warnings().into_iter().filter(is_one).collect()
    }
}

/// What it needs to believe that it has a name and the system's log, with nobody else noticing.
const SURROUNDINGS: &str = r#"
set -e
hostname "$1"
for name in hosts resolv.conf; do mount --bind "$2/$name" "/etc/$name"; done
for name in null random urandom; do >> "$2/dev/$name"; mount --bind "/dev/$name" "$2/dev/$name"; done
mount --bind "$2/dev" /dev
shift 2
exec "$@"
"#;

/// As in the documentation of sendmail-cf. All mail goes to the sink; a filter that fails is an error.
const CONFIGURATION: &str = "\
divert(-1)
include(`$place/packages/usr/share/sendmail/cf/m4/cf.m4')
divert(0)dnl
OSTYPE(`linux')dnl
define(`confDOMAIN_NAME', `$host')dnl
define(`ALIAS_FILE', `')dnl
define(`HELP_FILE', `')dnl
define(`STATUS_FILE', `')dnl
define(`QUEUE_DIR', `$place/queue')dnl
define(`confPID_FILE', `$place/pid')dnl
define(`confDONT_BLAME_SENDMAIL', `TrustStickyBit')dnl
define(`confDELIVERY_MODE', `i')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confREFUSE_LA', `1000')dnl
define(`confTO_IDENT', `0s')dnl
define(`confSERVICE_SWITCH_FILE', `$place/switch')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`promiscuous_relay')dnl
DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr=127.0.0.1, Port=$port')dnl
$listener6INPUT_MAIL_FILTER(`filter', `S=$filter, F=T, T=C:30s;S:30s;R:30s;E:60s')dnl
MAILER(`smtp')dnl
MAILER_DEFINITIONS
Msink,\tP=[IPC], F=mDFMXz8, E=\\r\\n, T=DNS/RFC822/SMTP, A=FILE $place/sink
LOCAL_RULE_0
R$* < @ $+ . > $*\t$: $1 < @ $2 > $3
R$* < @ $+ > $*\t$#sink $@ sink $: $1@$2
LOCAL_RULESETS
SLocal_check_rcpt
R$* nowhere@harbour.example $*\t$#error $@ 5.1.1 $: \"550 Unknown\"
";

/// The line for clients at ::1.
const LISTENER6: &str = "DAEMON_OPTIONS(`Name=MTA6, Family=inet6, Addr=::1, Port=$port')dnl\n";

/// The two packages, from the named directory or from where apt-get keeps what it fetched.
fn packages() -> Option<[PathBuf; 2]> {
    let directory = env::var_os(PACKAGES).map_or_else(|| PathBuf::from("/var/cache/apt/archives"), PathBuf::from);
    let files: Vec<PathBuf> = fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let package = |name: &str| {
        let named =
            |path: &&PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(|file| file.starts_with(name));
        files.iter().find(named).cloned()
    };
    Some([package("sendmail-bin_")?, package("sendmail-cf_")?])
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
