//! The filters: what their builds need, how they start, and a short conversation with each.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    thread,
};

use ctests::{
    Build, MtaConnection,
    Need::{self, File, Header, Program as Tool},
    Program, Setting, TempDir,
};

/// A filter that listens on a UNIX socket.
pub(crate) struct Filter {
    /// As in `ctests/sources`.
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Need],
    /// How it is started, with these names: `$product`; `$source`, the directory it was built in; `$socket`; `$conf`, a
    /// file; `$open` and `$private`, directories for everybody and for its user.
    command: &'static [&'static str],
    /// The text of `$conf`.
    configuration: &'static str,
}

const COMPILER: Need = Tool("cc", "gcc");
const AUTOTOOLS: [Need; 3] =
    [Tool("autoreconf", "autoconf"), Tool("automake", "automake"), Tool("libtoolize", "libtool")];

/// One for each line of `ctests/sources/archives`.
pub(crate) static FILTERS: [Filter; 7] = [
    Filter {
        name: OPENDKIM,
        needs: &[
            COMPILER,
            AUTOTOOLS[0],
            AUTOTOOLS[1],
            AUTOTOOLS[2],
            Tool("pkg-config", "pkg-config"),
            Header("openssl/ssl.h", "libssl-dev"),
            Header("db.h", "libdb-dev"),
            Header("lua5.1/lua.h", "liblua5.1-0-dev"),
            Header("bsd/string.h", "libbsd-dev"),
        ],
        command: &["$product", "-f", "-x", "$conf", "-p", "local:$socket"],
        configuration: "Mode v\nSyslog no\nBackground no\n",
    },
    Filter {
        name: "opendmarc",
        needs: &[
            COMPILER,
            AUTOTOOLS[0],
            AUTOTOOLS[1],
            AUTOTOOLS[2],
            Tool("pkg-config", "pkg-config"),
            Header("bsd/string.h", "libbsd-dev"),
        ],
        command: &["$product", "-f", "-c", "$conf", "-p", "local:$socket"],
        configuration: "Syslog false\nBackground false\n",
    },
    Filter {
        name: "spamass-milter",
        needs: &[Tool("c++", "g++")],
        command: &["$product", "-p", "$socket"],
        configuration: "",
    },
    Filter {
        name: "mimedefang",
        needs: &[
            COMPILER,
            Tool("pod2man", "perl"),
            File("/usr/share/perl5/MIME/Tools.pm", "libmime-tools-perl"),
            Tool("sendmail", "postfix"),
        ],
        // It refuses to run as root.
        command: &["$product", "-D", "-p", "$socket", "-z", "$open", "-m", "$open/multiplexor", "-U", "nobody"],
        configuration: "",
    },
    Filter {
        name: "amavisd-milter",
        needs: &[COMPILER, AUTOTOOLS[0], AUTOTOOLS[1], AUTOTOOLS[2]],
        command: &[
            "$product",
            "-f",
            "-s",
            "local:$socket",
            "-S",
            "$private/amavisd",
            "-w",
            "$private",
            "-p",
            "$private/pid",
        ],
        configuration: "",
    },
    Filter {
        name: "milter-greylist",
        needs: &[COMPILER, Tool("yacc", "bison"), Tool("flex", "flex")],
        command: &["$product", "-D", "-f", "$conf", "-p", "$socket", "-P", "$private/pid"],
        configuration: "dumpfile \"$private/dump\"\nracl whitelist default\n",
    },
    Filter {
        name: "pymilter",
        needs: &[
            COMPILER,
            File("/usr/bin/python3-config", "python3-dev"),
            File("/usr/lib/python3/dist-packages/setuptools", "python3-setuptools"),
        ],
        command: &[
            "/usr/bin/env",
            "PYTHONPATH=$source/built",
            "/usr/bin/python3",
            "-c",
            "import Milter; Milter.factory = Milter.Base; Milter.runmilter('accept', '$socket', 30)",
        ],
        configuration: "",
    },
];

/// The filter that has tests of its own.
pub(crate) const OPENDKIM: &str = "opendkim";

/// Protocol steps that keep a command from a filter, or its reply from the MTA: `SMFIP_NOCONNECT` and `SMFIP_NR_CONN`,
/// `SMFIP_NOHELO` and `SMFIP_NR_HELO`.
const COMMANDS: [(&str, u32, u32); 2] =
    [("CONNECT localhost inet 1234 127.0.0.1", 0x1, 0x1000), ("HELO mta.example", 0x2, 0x2000)];

impl Filter {
    /// Starts it, negotiates, tells it of a client, and returns its replies.
    pub(crate) fn converse(&self, build: &Build, setting: &Setting) -> Vec<String> {
        let directory = TempDir::new();
        for (name, mode) in [("open", 0o777), ("private", 0o700)] {
            let path = directory.join(name);
            fs::create_dir(&path).expect("a writable directory");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a directory of ours");
        }
        let socket = directory.join("open/socket");
        answer_for_the_multiplexor(&directory.join("open/multiplexor"));
        let names = [
            ("$product", build.product()),
            ("$source", build.directory().to_owned()),
            ("$socket", socket.clone()),
            ("$conf", directory.join("conf")),
            ("$open", directory.join("open")),
            ("$private", directory.join("private")),
        ];
        let expand = |text: &str| {
            names.iter().fold(text.to_owned(), |text, (name, path)| text.replace(name, &path.display().to_string()))
        };
        directory.write("conf", expand(self.configuration));
        let command: Vec<String> = self.command.iter().map(|word| expand(word)).collect();
        let arguments: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        let _service = Program::at(&command[0]).serve(setting, &socket, &arguments);

        let mut mta = MtaConnection::unix(&socket).expect("the filter listens");
        let mut replies = vec![mta.ask("OPTNEG 6 1ff 1fffff")];
        let steps = replies[0].split(' ').nth(3).and_then(|word| u32::from_str_radix(word, 16).ok());
        let steps = steps.unwrap_or_else(|| panic!("{setting}: negotiation is answered with {}", replies[0]));
        for (command, no_command, no_reply) in COMMANDS {
            if steps & no_command == 0 {
                mta.command(command);
                if steps & no_reply == 0 {
                    replies.push(mta.reply());
                }
            }
        }
        replies.push(mta.ask("QUIT"));
        replies
    }
}

/// MIMEDefang does not serve before its multiplexor says how many of its workers are free.
fn answer_for_the_multiplexor(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("a writable directory");
    fs::set_permissions(socket, fs::Permissions::from_mode(0o777)).expect("a file of ours");
    thread::spawn(move || {
        for mut question in listener.incoming().flatten() {
            let _ = question.read(&mut [0; 100]);
            let _ = question.write_all(b"1\n");
        }
    });
}
