//! The filters: what their builds need, how they start, and a short conversation with each.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::{Command, Stdio},
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
    /// What comes before the program on the command line.
    wrapper: &'static [&'static str],
    /// Instead of the product of the build, a file of this text.
    script: Option<&'static str>,
    arguments: &'static [&'static str],
    /// The text of `$conf`.
    configuration: &'static str,
}

const COMPILER: Need = Tool("cc", "gcc");
const AUTOTOOLS: [Need; 3] =
    [Tool("autoreconf", "autoconf"), Tool("automake", "automake"), Tool("libtoolize", "libtool")];

pub(crate) const OPENDKIM: Filter = Filter {
    name: "opendkim",
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
    wrapper: &[],
    script: None,
    arguments: &["-f", "-x", "$conf", "-p", "local:$socket"],
    configuration: "Mode v\nSyslog no\nBackground no\n",
};

pub(crate) const OPENDMARC: Filter = Filter {
    name: "opendmarc",
    needs: &[
        COMPILER,
        AUTOTOOLS[0],
        AUTOTOOLS[1],
        AUTOTOOLS[2],
        Header("bsd/string.h", "libbsd-dev"),
        Tool("pkg-config", "pkg-config"),
    ],
    wrapper: &[],
    script: None,
    arguments: &["-f", "-c", "$conf", "-p", "local:$socket"],
    configuration: "Syslog false\nBackground false\n",
};

pub(crate) const SPAMASS_MILTER: Filter = Filter {
    name: "spamass-milter",
    needs: &[Tool("c++", "g++")],
    wrapper: &[],
    script: None,
    arguments: &["-p", "$socket"],
    configuration: "",
};

pub(crate) const MIMEDEFANG: Filter = Filter {
    name: "mimedefang",
    needs: &[
        COMPILER,
        File("/usr/share/perl5/MIME/Tools.pm", "libmime-tools-perl"),
        File("/usr/share/perl5/Archive/Zip.pm", "libarchive-zip-perl"),
        Tool("pod2man", "perl"),
    ],
    wrapper: &[],
    script: None,
    // It refuses to run as root.
    arguments: &["-D", "-p", "$socket", "-z", "$open", "-m", "$open/multiplexor", "-U", "nobody"],
    configuration: "",
};

pub(crate) const AMAVISD_MILTER: Filter = Filter {
    name: "amavisd-milter",
    needs: &[COMPILER, AUTOTOOLS[0], AUTOTOOLS[1], AUTOTOOLS[2]],
    wrapper: &[],
    script: None,
    arguments: &["-f", "-s", "local:$socket", "-S", "$private/amavisd", "-w", "$private", "-p", "$private/pid"],
    configuration: "",
};

pub(crate) const MILTER_GREYLIST: Filter = Filter {
    name: "milter-greylist",
    needs: &[COMPILER, Tool("yacc", "bison"), Tool("flex", "flex")],
    wrapper: &[],
    script: None,
    arguments: &["-D", "-f", "$conf", "-p", "$socket", "-P", "$private/pid"],
    configuration: "dumpfile \"$private/dump\"\nracl whitelist default\n",
};

pub(crate) const PYMILTER: Filter = Filter {
    name: "pymilter",
    needs: &[
        COMPILER,
        File("/usr/bin/python3-config", "python3-dev"),
        File("/usr/lib/python3/dist-packages/setuptools", "python3-setuptools"),
    ],
    wrapper: &["env", "PYTHONPATH=$source:$source/built", "/usr/bin/python3"],
    script: Some(
        "import sys\nimport Milter\nMilter.factory = Milter.Base\nMilter.runmilter('accept', sys.argv[1], 30)\n",
    ),
    arguments: &["$socket"],
    configuration: "",
};

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
        let expand = |text: &str| {
            text.replace("$socket", &socket.display().to_string())
                .replace("$open", &directory.join("open").display().to_string())
                .replace("$private", &directory.join("private").display().to_string())
                .replace("$conf", &directory.join("conf").display().to_string())
                .replace("$source", &build.directory().display().to_string())
        };
        directory.write("conf", expand(self.configuration));
        let program = match self.script {
            Some(text) => Program::at(directory.write("script", text)),
            None => Program::at(build.product()),
        };
        let words = |words: &[&str]| words.iter().map(|word| expand(word)).collect::<Vec<String>>();
        let (wrapper, arguments) = (words(self.wrapper), words(self.arguments));
        let program = program.under(&wrapper.iter().map(String::as_str).collect::<Vec<_>>());
        let _service = program.serve(setting, &socket, &arguments.iter().map(String::as_str).collect::<Vec<_>>());

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

/// The libmilter that the dynamic linker has to find for a product.
pub(crate) fn needs_libmilter(build: &Build) -> Option<String> {
    let output = Command::new("readelf")
        .args(["--dynamic", "--wide"])
        .arg(build.product())
        .stderr(Stdio::inherit())
        .output()
        .expect("readelf, a part of every C compiler's surroundings");
    assert!(output.status.success(), "{}: {}", build.product().display(), output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| Some(line.split_once('[')?.1.trim_end().trim_end_matches(']').to_owned()))
        .find(|name| name.starts_with("libmilter"))
}
