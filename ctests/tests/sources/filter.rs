//! The filters: what their builds need, how they start, and a short conversation with each.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use ctests::{
    Build, MtaConnection,
    Need::{self, Header, Program as Tool},
    Program, Setting, TempDir,
};

/// A filter that listens on a UNIX socket.
pub(crate) struct Filter {
    /// As in `ctests/sources`.
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Need],
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
    arguments: &["-f", "-c", "$conf", "-p", "local:$socket"],
    configuration: "Syslog false\nBackground false\n",
};

pub(crate) const AMAVISD_MILTER: Filter = Filter {
    name: "amavisd-milter",
    needs: &[COMPILER, AUTOTOOLS[0], AUTOTOOLS[1], AUTOTOOLS[2]],
    arguments: &["-f", "-s", "local:$socket", "-S", "$private/amavisd", "-w", "$private", "-p", "$private/pid"],
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
        let private = directory.join("private");
        fs::create_dir(&private).expect("a writable directory");
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("a directory of ours");
        let socket = directory.join("socket");
        let expand = |text: &str| {
            text.replace("$socket", &socket.display().to_string())
                .replace("$private", &private.display().to_string())
                .replace("$conf", &directory.join("conf").display().to_string())
        };
        directory.write("conf", self.configuration);
        let arguments: Vec<String> = self.arguments.iter().map(|word| expand(word)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let _service = Program::at(build.product()).serve(setting, &socket, &arguments);

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
