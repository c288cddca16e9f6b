//! Files are opened in one module only. The system calls of others that take a path, or an address that may be one, are
//! listed here.

use std::fs;
use std::path::{Path, PathBuf};

use ctests::workspace_dir;

/// The module.
const HOME: &str = "src/sys/path";

/// Functions of the C library and system calls that take a path.
const CALLS: [&str; 62] = [
    "access",
    "bind",
    "chdir",
    "chmod",
    "chown",
    "chroot",
    "connect",
    "creat",
    "dlopen",
    "execv",
    "execve",
    "execvp",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fchmodat",
    "fchownat",
    "fopen",
    "freopen",
    "fstatat",
    "getxattr",
    "inotify_add_watch",
    "lchown",
    "link",
    "linkat",
    "lstat",
    "mkdir",
    "mkdirat",
    "mkdtemp",
    "mkfifo",
    "mkfifoat",
    "mknod",
    "mknodat",
    "mkostemp",
    "mkstemp",
    "mount",
    "open",
    "openat",
    "openat2",
    "opendir",
    "readlink",
    "readlinkat",
    "realpath",
    "remove",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "sendto",
    "setxattr",
    "shm_open",
    "stat",
    "statfs",
    "statvfs",
    "statx",
    "symlink",
    "symlinkat",
    "truncate",
    "unlink",
    "unlinkat",
    "utimensat",
    "utimes",
];

/// What the standard library has for paths.
const NAMES: [&str; 11] = [
    "fs::",
    "OpenOptions",
    "File::create",
    "File::open",
    "File::options",
    "Command::new",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
    ".is_symlink()",
    ".exists()",
];

/// File, what a line has in it, and why it is there.
const EXCEPTIONS: [(&str, &str, &str); 5] = [
    (
        "src/sys/process.rs",
        r#"std::fs::metadata("/proc/self/task")"#,
        "the kernel's count of threads; nothing is opened",
    ),
    ("src/sys/socket.rs", "libc::bind(", "the addresses of Unix sockets are those of a location, in the module"),
    ("src/sys/socket.rs", "libc::connect(", "the addresses of Unix sockets are those of a location, in the module"),
    (
        "src/sys/datagram.rs",
        "libc::sendto(",
        "the service manager's NOTIFY_SOCKET: nothing is made, and not for set-uid",
    ),
    ("src/sys/direct.rs", "libc::SYS_sendto, socket, octets, len, flags, NOWHERE", "sends on a connection"),
];

/// The sources below a directory, without files that are tests.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("there are sources").flatten() {
        let path = entry.path();
        let is_test = ["tests.rs", "check.rs", "fuzzing.rs"].iter().any(|name| path.ends_with(name));
        match path.extension() {
            _ if path.is_dir() => sources(&path, found),
            Some(extension) if extension == "rs" && !is_test => found.push(path),
            _ => {}
        }
    }
}

/// Whether a line has something in it that takes a path.
fn takes_path(line: &str) -> bool {
    // Traits for what is open, a type of open files, and our own one.
    const OTHERS: [&str; 4] = ["os::unix::fs::", "os::linux::fs::", "use std::fs::File;", "AppendFile::"];
    let line = line.split("//").next().unwrap_or_default();
    let line = OTHERS.iter().fold(line.to_owned(), |line, other| line.replace(other, ""));
    let calls = ["libc::", "SYS_"].iter().flat_map(|prefix| line.split(prefix).skip(1));
    let mut names =
        calls.map(|rest| rest.split(|end: char| !end.is_ascii_alphanumeric() && end != '_').next().unwrap_or_default());
    names.any(|name| CALLS.contains(&name.trim_end_matches("64"))) || NAMES.iter().any(|name| line.contains(name))
}

#[test]
fn one_module_opens_what_paths_name() {
    let root = workspace_dir();
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let (mut strays, mut used, mut at_home) = (Vec::new(), [false; EXCEPTIONS.len()], 0);
    for file in files {
        let name = file.strip_prefix(root).expect("below it").to_str().expect("UTF-8").to_owned();
        let text = fs::read_to_string(&file).expect("it is there");
        // Tests are at the end of their files.
        let code = text.split("\nmod tests {").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| takes_path(line)) {
            let exception = EXCEPTIONS.iter().position(|(file, part, _)| name == *file && line.contains(part));
            match exception {
                Some(at) => used[at] = true,
                None if name.starts_with(HOME) => at_home += 1,
                None => strays.push(format!("{name}:{}: {}", number + 1, line.trim())),
            }
        }
    }
    assert!(strays.is_empty(), "use {HOME}.rs, or say here why not:\n{}", strays.join("\n"));
    assert!(at_home > 5, "nothing is found in {HOME}");
    for ((file, part, _), is_used) in EXCEPTIONS.iter().zip(used) {
        assert!(is_used, "{file} has no {part} any more");
    }
}

#[test]
fn what_takes_a_path_is_noticed() {
    for line in [
        "check(unsafe { libc::open(path.as_ptr(), flags) })?;",
        "let there = std::fs::symlink_metadata(path);",
        "use std::fs::{self, File};",
        "libc::syscall(libc::SYS_openat2, number)",
        "File::open(path)?;",
    ] {
        assert!(takes_path(line), "{line}");
    }
    for line in [
        "use std::fs::File;",
        "use std::os::unix::fs::MetadataExt;",
        "AppendFile::open(path)",
        "libc::opening()",
        "// libc::open(path)",
    ] {
        assert!(!takes_path(line), "{line}");
    }
}
