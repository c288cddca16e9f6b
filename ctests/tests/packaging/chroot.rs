//! A Debian of its own in a directory, where a test may install and start what it likes.

use ctests::stage::{exists, output};
use ctests::{TempDir, is_root, skip, target_dir};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

/// What a script in a [`Chroot`] can reach.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// What the machine can reach, to install from there.
    Machine,
    /// A loopback interface of its own, so that daemons listen where nobody else does.
    Loopback,
}

/// A freshly installed Debian of the machine's own release.
///
/// It has the machine's compiler of Rust, and cargo's cache of crates, because no release of Debian has a compiler that
/// is new enough. Installing packages starts nothing.
pub(crate) struct Chroot {
    root: TempDir,
}

/// Makes the surroundings of a script: all that it mounts and starts goes when it ends.
/// Arguments: root, compiler, cargo's directory, script.
const ENTER: &str = r#"
here() { mount --bind "$1" "$root$2" && mount -o remount,bind,ro "$root$2"; }
root=$1
here "$2" /opt/rust
here "$3" /opt/cargo
mount -t proc proc "$root/proc"
ip link set lo up
exec chroot "$root" sh -e -c "$4"
"#;

impl Chroot {
    /// Makes one; `None`, and `test` counts as skipped, where that is impossible.
    pub(crate) fn new_or_skip(test: &str) -> Option<Chroot> {
        if !is_root() {
            skip(test, "root, for a chroot");
            return None;
        }
        if let Some(missing) = ["debootstrap", "unshare", "ip"].into_iter().find(|program| !exists(program)) {
            skip(test, missing);
            return None;
        }
        let root = TempDir::new();
        output(Command::new("cp").args(["-a", "--reflink=auto"]).arg(base().join(".")).arg(root.path()));
        Some(Chroot { root })
    }

    /// The path of a file in it, for programs outside.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Runs a shell script, which ends with the first command that fails, and returns what it printed.
    pub(crate) fn run(&self, network: Network, script: &str) -> String {
        let rust = output(Command::new("rustc").args(["--print", "sysroot"]));
        let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo = cargo.unwrap_or_else(|| Path::new(&env::var_os("HOME").expect("a home")).join(".cargo"));
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]);
        if network == Network::Loopback {
            unshare.arg("--net");
        }
        unshare.args(["sh", "-e", "-c", ENTER, "sh"]).arg(self.root.path()).arg(rust.trim());
        unshare.arg(cargo).arg(script);
        unshare.env_clear().env("PATH", "/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        unshare.env("CARGO_HOME", "/opt/cargo").env("CARGO_NET_OFFLINE", "true");
        unshare.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        for proxy in ["http_proxy", "https_proxy", "no_proxy"] {
            if let Some(value) = env::var_os(proxy) {
                unshare.env(proxy, value);
            }
        }
        output(&mut unshare)
    }
}

/// The installation that all copies start from, made once and kept in the target directory.
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let release = fs::read_to_string("/etc/os-release").expect("a Debian system");
        let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).expect("a release");
        let base = target_dir().join(format!("ctests/debian-{codename}"));
        if base.exists() {
            return base;
        }
        // What apt fetches from Debian: address, suite, component.
        let format = "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)";
        let targets =
            output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]));
        let sources: Vec<&str> = targets.lines().filter_map(|line| line.strip_prefix("Debian ")).collect();
        let mirror = sources.iter().find_map(|source| match *source.split(' ').collect::<Vec<_>>() {
            [mirror, suite, _] if suite == codename => Some(mirror),
            _ => None,
        });
        // Under its name only when it is complete.
        let root = base.with_extension("new");
        let _ = fs::remove_dir_all(&root);
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", codename]).arg(&root).arg(mirror.expect("apt knows the release"));
        output(&mut debootstrap);
        let write = |name: &str, text: &str| fs::write(root.join(name), text).expect("root may write there");
        write("etc/apt/sources.list", &sources.iter().map(|source| format!("deb {source}\n")).collect::<String>());
        let settings = output(Command::new("apt-config").args(["dump", "Acquire"]));
        let proxies = settings.lines().filter(|line| line.contains("::Proxy"));
        let proxies: String = proxies.map(|line| format!("{line}\n")).collect();
        write("etc/apt/apt.conf.d/machine", &format!("Acquire::Retries 3;\n{proxies}"));
        write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
        output(Command::new("chmod").arg("755").arg(root.join("usr/sbin/policy-rc.d")));
        write("etc/hosts", "127.0.0.1 localhost\n");
        for directory in ["opt/rust", "opt/cargo"] {
            fs::create_dir(root.join(directory)).expect("root may write there");
        }
        fs::rename(root, &base).expect("the target directory is writable");
        base
    })
}
