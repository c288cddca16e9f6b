//! A Postfix of the test's own: private configuration, queue and port.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    MailServer, Process, Sink, TempDir, free_port, has_ipv6,
    mail_server::{HOST, Site},
    program::find,
    skip,
};

/// A running Postfix.
#[derive(Debug)]
pub struct Postfix {
    // First, so that it ends before the sink and the directory.
    _master: Process,
    site: Site,
}

/// The services, as in master(5). Nothing runs in a chroot: sockets lie outside of the queue.
const SERVICES: &str = "\
pickup   unix       n - n 60    1 pickup
cleanup  unix       n - n -     0 cleanup
qmgr     unix       n - n 300   1 qmgr
rewrite  unix       - - n -     - trivial-rewrite
bounce   unix       - - n -     0 bounce
defer    unix       - - n -     0 bounce
trace    unix       - - n -     0 bounce
lmtp     unix       - - n -     - lmtp
error    unix       - - n -     - error
retry    unix       - - n -     - error
proxymap unix       - - n -     - proxymap
scache   unix       - - n -     1 scache
showq    unix       n - n -     - showq
flush    unix       n - n 1000? 0 flush
anvil    unix       - - n -     1 anvil
postlog  unix-dgram n - n -     1 postlogd
";

impl Postfix {
    /// Starts one with `parameters`, main.cf's names and values, in place of or on top of the usual
    /// configuration. In a value `$filter` is the address of the filter, [`MailServer::filter_socket`]. `None`, and `test` counts as
    /// skipped, where Postfix cannot run.
    ///
    /// # Panics
    ///
    /// When it is installed but does not start.
    #[must_use]
    pub fn start_or_skip(test: &str, parameters: &[(&str, &str)]) -> Option<Postfix> {
        let (Some(postfix), Some(postconf)) = (find("postfix"), find("postconf")) else {
            skip(test, "postfix");
            return None;
        };
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() != 0) {
            skip(test, "root, to run Postfix");
            return None;
        }
        let account = Command::new("id").args(["-u", "postfix"]).output().expect("id(1)");
        let account = String::from_utf8_lossy(&account.stdout).trim().parse().expect("an account named postfix");

        let directory = TempDir::new();
        let open = |path: PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own");
        open(directory.path().to_path_buf());
        for name in ["config", "queue", "data"] {
            fs::create_dir(directory.join(name)).expect("a fresh directory");
            open(directory.join(name));
        }
        chown(directory.join("data"), Some(account), None).expect("root may give directories away");

        let port = free_port();
        directory.write("config/main.cf", configuration(&directory, parameters));
        let hosts = if has_ipv6() { &["127.0.0.1", "[::1]"][..] } else { &["127.0.0.1"] };
        let listeners: String = hosts.iter().map(|host| format!("{host}:{port} inet n - n - - smtpd\n")).collect();
        directory.write("config/master.cf", listeners + SERVICES);
        let sink = Sink::listen(directory.join("sink"));
        let config = directory.join("config");
        // Creates what belongs into the queue directory.
        let check = Command::new(postfix)
            .arg("-c")
            .arg(&config)
            .arg("check")
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .expect("postfix(1) can be started");
        assert!(check.status.success(), "postfix check: {}", String::from_utf8_lossy(&check.stderr));
        // Not with "postfix start", so that it stays a child of ours and in its process group.
        let daemons = Command::new(postconf).args(["-d", "-h", "daemon_directory"]).output().expect("postconf(1)");
        let master = PathBuf::from(String::from_utf8_lossy(&daemons.stdout).trim()).join("master");
        let mut master = Process::spawn(Command::new(master).arg("-d").arg("-c").arg(&config).stdin(Stdio::null()));
        let deadline = Instant::now() + Duration::from_secs(20);
        // A connection to try would make it look for the filter, which need not be there yet.
        loop {
            let log = fs::read_to_string(directory.join("maillog")).unwrap_or_default();
            if log.contains("daemon started") {
                return Some(Postfix { _master: master, site: Site::new(sink, directory, port) });
            }
            assert!(master.is_alive() && Instant::now() < deadline, "Postfix does not start: {log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Submits a message with the sendmail command.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn sendmail(&self, sender: &str, recipients: &[&str], message: &str) {
        let mut sendmail = self
            .command("sendmail", &["-i", "-f", sender, "--"])
            .args(recipients)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sendmail(1)");
        let mut input = sendmail.stdin.take().expect("a pipe");
        input.write_all(message.as_bytes()).expect("sendmail reads the message");
        drop(input);
        assert!(sendmail.wait().expect("a child can be waited for").success(), "{}", self.log());
    }

    /// The queue as postqueue(1) shows it, a JSON object for each message.
    ///
    /// # Panics
    ///
    /// When it shows nothing.
    #[must_use]
    pub fn queue(&self) -> Vec<String> {
        let output = self.command("postqueue", &["-j"]).output().expect("postqueue(1)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Lets a message that is on hold go.
    ///
    /// # Panics
    ///
    /// When there is no such message on hold.
    pub fn release(&self, queue_id: &str) {
        for (name, arguments) in [("postsuper", ["-H", queue_id]), ("postqueue", ["-i", queue_id])] {
            let output = self.command(name, &arguments).output().expect(name);
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory().join("maillog")).unwrap_or_default()
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(find(name).unwrap_or_else(|| panic!("Postfix comes with {name}")));
        command.args(arguments).env("MAIL_CONFIG", self.directory().join("config")).env_remove("LD_LIBRARY_PATH");
        command
    }
}

impl MailServer for Postfix {
    fn site(&self) -> &Site {
        &self.site
    }

    fn release_held(&self) -> bool {
        let queue = self.queue();
        let held = queue.iter().filter(|entry| entry.contains("\"queue_name\": \"hold\""));
        let names = held.filter_map(|entry| entry.split_once("\"queue_id\": \"")?.1.split('"').next());
        names.map(|name| self.release(name)).count() > 0
    }

    /// With [`crate::mailbag::PARAMETERS`].
    fn takes_xclient(&self) -> bool {
        true
    }

    fn complaints(&self) -> Vec<String> {
        let trouble = ["warning:", "error:", "fatal:", "panic:"];
        // Said of this machine: its file system takes the time from another clock than Postfix.
        let clocks = ["file system clock is", "resetting file time stamps"];
        let troubled = |line: &&str| {
            trouble.iter().any(|word| line.contains(word)) && !clocks.iter().any(|words| line.contains(words))
        };
        self.log().lines().filter(troubled).map(str::to_owned).collect()
    }
}

fn configuration(directory: &TempDir, parameters: &[(&str, &str)]) -> String {
    let place = directory.path().display();
    let defaults = [
        ("compatibility_level", "3.6"),
        ("queue_directory", "$place/queue"),
        ("data_directory", "$place/data"),
        ("maillog_file", "$place/maillog"),
        ("maillog_file_prefixes", "$place"),
        ("inet_interfaces", "loopback-only"),
        ("inet_protocols", "all"),
        ("myhostname", HOST),
        ("mydestination", ""),
        ("alias_maps", ""),
        ("alias_database", ""),
        ("mynetworks", "127.0.0.0/8 [::1]/128"),
        ("smtpd_relay_restrictions", "permit_mynetworks, reject"),
        ("smtpd_peername_lookup", "no"),
        ("local_header_rewrite_clients", ""),
        ("default_transport", "lmtp:unix:$place/sink"),
        ("smtpd_milters", "$filter"),
    ];
    let mut text = String::new();
    let kept = defaults.iter().filter(|(name, _)| parameters.iter().all(|(other, _)| other != name));
    for (name, value) in kept.chain(parameters) {
        let value = value.replace("$filter", "unix:$place/filter").replace("$place", &place.to_string());
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}
