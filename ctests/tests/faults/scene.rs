//! A filter in which calls fail, and what its sessions say.

use ctests::{Filter, Setting, Surroundings, TempDir};

use crate::control::Control;

/// A filter that makes every call of the interface.
const PLAN: &str = r#"
start umask 077
start setconn $socket
start register
start opensocket 0
start note opened
start main
callbacks negotiate connect helo envfrom envrcpt header eoh body eom abort close unknown data
on negotiate setsymlist 3 "i {auth_type}"
on negotiate setsymlist 4 "{rcpt_addr} {rcpt_mailer}"
on helo sleep 3
on envfrom getsymval "i"
on unknown setreply "550" "5.7.1" "not known here"
on unknown setmlreply "550" "5.7.1" "not known" "here"
on unknown return REJECT
on eom addheader "X-Added" "value"
on eom insheader 0 "X-Inserted" "value"
on eom chgheader "Subject" 1 "changed"
on eom chgfrom "<changed@localhost>" "SIZE=1"
on eom addrcpt "<added@localhost>"
on eom addrcpt_par "<added@localhost>" "NOTIFY=NEVER"
on eom delrcpt "<b>"
on eom progress
on eom replacebody "line"*17000
on eom quarantine "to be looked at"
"#;

/// The first part of a session: it is in the middle of a message then.
pub(crate) const FIRST: &[&str] = &[
    "OPTNEG 6 1ff 1fffff",
    "MACRO C j=mx.localhost {daemon_name}=smtp {if_addr}=127.0.0.1",
    "CONNECT client.localhost inet 25 127.0.0.1",
    "MACRO H {tls_version}=TLSv1.3 {cipher}=TLS_AES_256_GCM_SHA384",
    "HELO client.localhost",
    "MACRO M i=queue1 {mail_addr}=a {auth_type}=PLAIN",
    "MAIL <a> SIZE=1000 BODY=8BITMIME SMTPUTF8",
    "MACRO R {rcpt_addr}=b {rcpt_mailer}=local",
    "RCPT <b> NOTIFY=NEVER ORCPT=rfc822;b",
];

/// The rest of it.
pub(crate) const REST: &[&str] = &[
    "RCPT <c>",
    "MACRO T i=queue1",
    "DATA",
    "HEADER Subject text",
    "HEADER X-Long \"value\"*2000",
    "EOH",
    "BODY \"text\"*12000",
    "BODY \"more\"*4000",
    "MACRO E i=queue1",
    "BODYEOB \"end\"",
];

/// Further messages and the end.
pub(crate) const MORE: &[&str] = &[
    "UNKNOWN \"NOOP with text\"",
    "MACRO M i=queue2 {mail_addr}=a",
    "MAIL <>",
    "ABORT",
    "MAIL <a>",
    "RCPT <b>",
    "DATA",
    "HEADER Subject second",
    "EOH",
    "BODYEOB",
    "QUIT",
];

/// Whether a command is answered.
pub(crate) fn is_answered(command: &str) -> bool {
    !command.starts_with("MACRO") && command != "ABORT"
}

/// The options with which everything that can look at sessions does.
pub(crate) const OBSERVED: &str =
    "trace=$place/trace, record=$place, metrics=$place/metrics.prom, hints=on, callback-warn=20";

/// A filter under test.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) filter: Filter,
    pub(crate) control: Control,
}

impl Scene {
    /// Starts the filter; `prepare` sets what fails from the start. In `options`, `$place` is a directory.
    pub(crate) fn start(setting: &Setting, options: &str, prepare: impl FnOnce(&Control)) -> Scene {
        let directory = TempDir::new();
        let control = Control::new(&directory);
        prepare(&control);
        let surroundings = Surroundings {
            options: options.replace("$place", directory.path().to_str().expect("paths of ours are UTF-8")),
            environment: control.environment(),
            wrapper: Vec::new(),
        };
        Scene { filter: Filter::launch_with(setting, &surroundings, PLAN, directory), control }
    }

    /// What the library has written to the system log.
    pub(crate) fn log(&self) -> Vec<String> {
        self.filter.lines().into_iter().filter(|line| line.starts_with("log ")).collect()
    }

    /// Calls of the interface that have failed.
    pub(crate) fn failed_calls(&self) -> usize {
        let lines = self.filter.lines();
        lines.iter().filter(|line| !line.starts_with("log ") && line.ends_with(" -1")).count()
    }
}
