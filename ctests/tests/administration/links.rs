//! Ways to what options and socket descriptions name: which links are followed, and that nobody can exchange one in between.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use ctests::{Filter, MtaConnection, Setting, TempDir, is_root, skip};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{OFFER, OPENINGS, assert_negotiates, greet, launch, patiently, refusal, serving, stop};

/// Every option, and the line of a plan, that names a place, with the directory as `$`.
const USES: [(&str, &str); 6] = [
    ("trace=$/trace", ""),
    ("record=$", ""),
    ("metrics=$/metrics", ""),
    ("metrics=unix:$/metrics", ""),
    ("listen=unix:$/socket", ""),
    ("listen=unix:$own/socket", "start setconn unix:$/socket\n"),
];

/// Not root.
const SOMEBODY: u32 = 1;
const NOBODY: u32 = 65534;

/// What `text` says with a directory in it; the filter's own one is another.
fn with(text: &str, place: &Path, own: &TempDir) -> String {
    let [place, own] = [place, own.path()].map(|path| path.to_str().expect("a path of ours"));
    text.replace("$own", own).replace('$', place)
}

/// The options and the plan of a use.
fn uses(place: &Path, own: &TempDir, before: &str) -> [(String, String); USES.len()] {
    USES.map(|(option, line)| (with(option, place, own), format!("{before}{}{}", with(line, place, own), OPENINGS[0])))
}

/// A directory of this owner and mode.
fn directory(path: PathBuf, owner: u32, mode: u32) -> PathBuf {
    fs::create_dir(&path).expect("our own directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("our own directory");
    chown(&path, Some(owner), Some(owner)).expect("root may give directories away");
    path
}

/// A link of this owner.
fn link(path: PathBuf, target: &Path, owner: u32) -> PathBuf {
    symlink(target, &path).expect("our own directory");
    lchown(&path, Some(owner), Some(owner)).expect("root may give links away");
    path
}

/// What a directory holds: names, and for each of them what would be another one if the file were replaced or changed.
fn contents(directory: &Path) -> Vec<(PathBuf, u64, u64)> {
    let entries = fs::read_dir(directory).expect("our own directory").flatten();
    let mut contents: Vec<_> = entries
        .map(|entry| entry.metadata().map(|status| (entry.path(), status.ino(), status.len())).expect("our own file"))
        .collect();
    contents.sort();
    contents
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).expect("our own directory").count()
}

/// A filter serves, and has made something behind `way`.
fn assert_serves(setting: &Setting, way: &Path, user: &str, case: &str) {
    for at in 0..USES.len() {
        let own = TempDir::new();
        fs::set_permissions(own.path(), fs::Permissions::from_mode(0o777)).expect("our own directory");
        let [(options, plan)] = [uses(way, &own, user)].map(|uses| uses[at].clone());
        let mut filter = serving(setting, &options, &plan, own);
        greet(&filter);
        assert!(entries(way) > 0, "{case}, {options}");
        stop(&mut filter);
        for entry in fs::read_dir(way).expect("our own directory").flatten() {
            fs::remove_file(entry.path()).expect("our own file");
        }
    }
}

/// A filter refuses to start, says why, and has made nothing in `victim`.
fn assert_refuses(way: &Path, victim: &Path, reason: &str, case: &str) {
    for at in 0..USES.len() {
        let own = TempDir::new();
        let (options, plan) = uses(way, &own, "")[at].clone();
        let line = refusal(&options, &plan, own);
        assert!(line.contains(reason), "{case}, {options}: {line}");
        assert_eq!(entries(victim), 0, "{case}, {options}");
    }
}

#[test]
fn links_that_others_can_change_are_not_followed() {
    if !is_root() {
        return skip("links_that_others_can_change_are_not_followed", "root, to make links of other users");
    }
    let [place, victim] = [TempDir::new(), TempDir::new()];
    let victim = victim.path();
    let shared = directory(place.join("shared"), 0, 0o1777);
    let foreign = directory(place.join("foreign"), SOMEBODY, 0o755);
    let planted = link(shared.join("planted"), victim, SOMEBODY);
    let twice = link(shared.join("twice"), victim, 0);
    fs::hard_link(&twice, shared.join("again")).expect("our own directory");
    let inner = directory(foreign.join("inner"), 0, 0o755);
    let cases = [
        ("another user's directory", link(foreign.join("theirs"), victim, SOMEBODY)),
        ("root's link in another user's directory", link(foreign.join("roots"), victim, 0)),
        ("root's directory in another user's", link(inner.join("link"), victim, 0)),
        ("the group's directory", link(directory(place.join("group"), 0, 0o775).join("link"), victim, 0)),
        ("everybody's directory", link(directory(place.join("everybody"), 0, 0o777).join("link"), victim, 0)),
        ("somebody's link in a sticky directory", planted.clone()),
        ("a link of two names in a sticky directory", twice),
        (
            "another user's sticky directory",
            link(directory(place.join("sticky"), SOMEBODY, 0o1777).join("link"), victim, 0),
        ),
    ];
    for (case, way) in &cases {
        let reason = format!("{} is a symbolic link that users other than root", way.display());
        assert_refuses(way, victim, &reason, case);
    }
    let reason = format!("{} is a symbolic link that users other than root", planted.display());
    assert_refuses(&link(place.join("detour"), &planted, 0), victim, &reason, "a detour");
    let back = inner.join("..").join("..").join("..").join(victim.file_name().expect("a name"));
    let reason = format!("the way leads back from {}, which other users can move", inner.display());
    assert_refuses(&back, victim, &reason, "a way back");
}

#[test]
fn links_of_root_and_of_the_user_are_followed() {
    if !is_root() {
        return skip("links_of_root_and_of_the_user_are_followed", "root, to make links of other users");
    }
    let [place, target] = [TempDir::new(), TempDir::new()];
    let target = target.path();
    let shared = directory(place.join("shared"), 0, 0o1777);
    for (case, way) in [
        ("root's directory", link(place.join("link"), target, 0)),
        ("what root has given away in its own directory", link(place.join("given"), target, SOMEBODY)),
        ("root's link in a sticky directory", link(shared.join("link"), target, 0)),
        ("a relative link", link(shared.join("relative"), Path::new("../link/."), 0)),
    ] {
        assert_serves(&Setting::ours(), &way, "", case);
    }
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("our own directory");
    chown(target, Some(NOBODY), Some(NOBODY)).expect("root may give directories away");
    let home = directory(place.join("home"), NOBODY, 0o755);
    let user = format!("start setuid {NOBODY}\n");
    for (case, way) in [
        ("the user's directory", link(home.join("link"), target, NOBODY)),
        ("the user's link in a sticky directory", link(shared.join("users"), target, NOBODY)),
        ("root's link, for the user", place.join("link")),
    ] {
        assert_serves(&Setting::ours(), &way, &user, case);
    }
}

/// Daemons run as root and have their sockets in directories of other users.
#[test]
fn directories_of_others_are_entered() {
    if !is_root() {
        return skip("directories_of_others_are_entered", "root, to make directories of other users");
    }
    let place = TempDir::new();
    let foreign = directory(place.join("foreign"), SOMEBODY, 0o755);
    let inner = directory(directory(place.join("outer"), SOMEBODY, 0o755).join("inner"), SOMEBODY, 0o711);
    for setting in [Setting::ours(), Setting::model("threads")] {
        assert_serves(&setting, &foreign, "", "a directory of another user");
        assert_serves(&setting, &inner, "", "a directory in one of another user");
    }
    let options = format!("listen=unix:{}/socket, socket-mode=0600, socket-replace=stale", inner.display());
    for _ in 0..2 {
        // The second finds the socket that the first has left.
        let mut filter = serving(&Setting::ours(), &options, OPENINGS[0], TempDir::new());
        UnixStream::connect(inner.join("socket")).expect("it listens");
        stop(&mut filter);
    }
}

/// Without /proc the path itself is the only address of a socket.
#[test]
fn a_root_directory_of_another_user_without_proc() {
    if !is_root() {
        return skip("a_root_directory_of_another_user_without_proc", "root, to change the root directory");
    }
    let place = TempDir::new();
    let root = directory(place.join("root"), SOMEBODY, 0o755);
    let inner = directory(root.join("inner"), SOMEBODY, 0o755);
    let plan = format!(
        "start chroot {}\nstart setconn unix:/inner/socket\nstart opensocket 0\nstart note opened\nstart main\n",
        root.display()
    );
    let mut filter = launch(&Setting::ours(), "socket-remove=yes", &plan, TempDir::new());
    filter.wait_for("note opened");
    assert_negotiates(patiently(&inner.join("socket")));
    stop(&mut filter);
    assert_eq!(entries(&inner), 0);
}

/// What is in the way of a socket is removed as sendmail's library does: a link to a socket, and not the socket.
#[test]
fn a_link_in_the_way_of_the_socket() {
    for setting in Setting::each("a_link_in_the_way_of_the_socket") {
        let targets: [(&str, bool); 6] =
            [("stale", true), ("live", true), ("chain", true), ("file", false), ("directory", false), ("none", false)];
        for (target, is_replaced) in targets {
            let directory = TempDir::new();
            drop(directory.stale_socket("stale"));
            let _live = UnixListener::bind(directory.join("live")).expect("a fresh directory");
            directory.write("file", "mail");
            fs::create_dir(directory.join("directory")).expect("a fresh directory");
            symlink("stale", directory.join("chain")).expect("a fresh directory");
            symlink(target, directory.join("socket")).expect("a fresh directory");
            let plan = "start opensocket 1\nstart note opened\n";
            let filter = launch(&setting, "", plan, directory);
            filter.wait_for("note opened");
            let opened = filter.wait_for("opensocket");
            assert_eq!(opened == "opensocket 0", is_replaced, "{setting} {target}: {opened}");
            let is_link = fs::symlink_metadata(filter.socket()).expect("it is there").is_symlink();
            assert_eq!(is_link, !is_replaced, "{setting} {target}");
            for spared in ["stale", "live", "file", "directory", "chain"] {
                assert!(fs::symlink_metadata(filter.directory().join(spared)).is_ok(), "{setting} {target}: {spared}");
            }
        }
    }
}

/// Another user exchanges a directory and a link all the time while filters start.
#[test]
fn nobody_wins_a_race_for_the_way() {
    const STARTS: u32 = 50;
    if !is_root() {
        return skip("nobody_wins_a_race_for_the_way", "root, to be endangered");
    }
    let [place, victim] = [TempDir::new(), TempDir::new()];
    let foreign = directory(place.join("foreign"), SOMEBODY, 0o755);
    let way = directory(foreign.join("way"), SOMEBODY, 0o755);
    let planted = link(foreign.join("planted"), victim.path(), SOMEBODY);
    // Files that the filter would take for its own: an empty one is the start of each, and nobody listens on the socket.
    for name in ["trace", "metrics"] {
        fs::write(victim.join(name), "").expect("our own directory");
    }
    drop(UnixListener::bind(victim.join("socket")).expect("our own directory"));
    let before = contents(victim.path());
    let (over, served, refused) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        // However the scope ends.
        let _end = Ended(&over);
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                renameat_with(CWD, &way, CWD, &planted, RenameFlags::EXCHANGE).expect("both are there");
            }
        });
        for at in 0..USES.len() {
            for _ in 0..STARTS {
                let own = TempDir::new();
                let (options, plan) = uses(&way, &own, "")[at].clone();
                let mut filter = launch(&Setting::ours(), &options, &plan, own);
                if has_started(&mut filter) {
                    served.fetch_add(1, Ordering::SeqCst);
                    greet(&filter);
                    stop(&mut filter);
                } else {
                    refused.fetch_add(1, Ordering::SeqCst);
                }
                assert_eq!(contents(victim.path()), before, "{options}: {:?}", filter.lines());
            }
        }
    });
    let (served, refused) = (served.into_inner(), refused.into_inner());
    assert!(served > 0 && refused > 0, "{served} started, {refused} did not: nothing was exchanged");
}

/// Sets a flag when it goes.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until a filter serves at its own socket, or has ended.
fn has_started(filter: &mut Filter) -> bool {
    loop {
        if filter.process().wait(Duration::ZERO).is_some() {
            return false;
        }
        // Between smfi_opensocket and a failure of smfi_main nobody answers.
        if MtaConnection::unix(filter.socket()).is_ok_and(|mut mta| mta.ask(OFFER).starts_with("OPTNEG")) {
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
