//! How Unix sockets appear and disappear.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use ctests::{Filter, Setting, TempDir, is_root, skip};

use crate::{LIMIT, OPENINGS, assert_negotiates, launch, patiently, refusal, serving, stop};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("the socket is there").permissions().mode() & 0o7777
}

#[test]
fn mode_whatever_the_umask() {
    for setting in [Setting::ours(), Setting::model("threads")] {
        for plan in OPENINGS {
            for (text, wanted) in [("0666", 0o666), ("660", 0o660), ("0", 0)] {
                let filter = launch(&setting, &format!("socket-mode={text}"), plan, TempDir::new());
                let deadline = Instant::now() + LIMIT;
                while !filter.socket().exists() {
                    assert!(Instant::now() < deadline, "{setting} {text}: {}", filter.lines().join("\n"));
                }
                assert_eq!(mode(&filter.socket()), wanted, "{setting} {text}");
            }
        }
    }
}

/// Whoever sees the path sees the final mode and owner, and can connect.
#[test]
fn no_moment_before_mode_and_owner() {
    if !is_root() {
        return skip("no_moment_before_mode_and_owner", "root, to give sockets away");
    }
    for round in 0..20 {
        let directory = TempDir::new();
        let path = directory.join("socket");
        let over = AtomicBool::new(false);
        let sightings = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut sightings = 0_u32;
                let deadline = Instant::now() + LIMIT;
                while (!over.load(Ordering::SeqCst) || sightings == 0) && Instant::now() < deadline {
                    match fs::symlink_metadata(&path) {
                        Ok(found) => {
                            let seen = (found.permissions().mode() & 0o7777, found.uid(), found.gid());
                            assert_eq!(seen, (0o620, 65534, 12345), "round {round}, sighting {sightings}");
                            drop(UnixStream::connect(&path).expect("it listens"));
                            sightings += 1;
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
                    }
                    if sightings > 50 {
                        break;
                    }
                }
                sightings
            });
            let options = "socket-mode=0620, socket-owner=nobody, socket-group=12345";
            let filter = launch(&Setting::ours(), options, OPENINGS[round % 2], directory);
            filter.wait_for("note opened");
            over.store(true, Ordering::SeqCst);
            let sightings = watch.join().expect("nothing but the final state");
            let hidden = fs::read_dir(filter.directory()).expect("our own directory").flatten();
            let hidden = hidden.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count();
            assert_eq!(hidden, 0, "something is left behind");
            sightings
        });
        assert!(sightings > 0);
    }
}

#[test]
fn owners_and_modes_that_are_none() {
    let plan = "start opensocket 0\nstart main\n";
    for (options, message) in [
        ("socket-mode=rw", "option socket-mode=rw: the value must be permission bits in octal"),
        ("socket-mode=1777", "option socket-mode=1777: the value must be"),
        ("socket-owner=nobody-of-that-name", "option socket-owner=nobody-of-that-name: there is no such account"),
        ("socket-group=nobody-of-that-name", "option socket-group=nobody-of-that-name: there is no such account"),
        ("socket-owner=", "option socket-owner=: the value must be the name or number of a user"),
        ("socket-replace=yes", "option socket-replace=yes: the value must be never, stale or always"),
        ("socket-remove=maybe", "option socket-remove=maybe: the value must be yes or no"),
        ("signals=some", "option signals=some: the value must be take or leave"),
        ("listen=", "option listen=: the value must be a socket description"),
    ] {
        let said = refusal(options, plan, TempDir::new());
        assert!(said.contains(message), "{options}: {said}");
    }
}

#[test]
fn an_owner_that_cannot_be_had() {
    let user = if is_root() { "start setuid 65534\n" } else { "" };
    let directory = TempDir::new();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("our own directory");
    let said = refusal("socket-owner=root", &format!("{user}start opensocket 0\nstart main\n"), directory);
    assert!(said.contains("cannot give it to its owner: Operation not permitted"), "{said}");
}

/// The directory beside makes the path longer.
#[test]
fn a_path_too_long_for_the_detour() {
    for (length, fits) in [(98, true), (99, false)] {
        let directory = TempDir::new();
        let start = directory.join("").to_str().expect("an UTF-8 path").to_owned();
        let path = format!("{start}{}", "p".repeat(length - start.len()));
        let plan = format!("start setconn unix:{path}\nstart opensocket 0\nstart main\n");
        if fits {
            let filter = launch(&Setting::ours(), "socket-mode=0600", &plan, directory);
            filter.wait_for("opensocket 0");
        } else {
            let said = refusal("socket-mode=0600", &plan, directory);
            assert!(said.contains("socket path of 99 octets is too long, with the options asked for 98"), "{said}");
        }
    }
}

#[test]
fn sockets_in_the_way() {
    let stale = |directory: &TempDir| drop(directory.stale_socket("socket"));
    let file = |directory: &TempDir| drop(directory.write("socket", "mail"));
    let live = |directory: &TempDir| {
        std::mem::forget(UnixListener::bind(directory.join("socket")).expect("a fresh directory"));
    };
    type Make<'a> = &'a dyn Fn(&TempDir);
    let cases: [(&str, &str, Make<'_>, Option<&str>); 10] = [
        ("never", "1", &stale, Some("Address already in use")),
        ("never", "0", &live, Some("Address already in use")),
        ("stale", "0", &stale, None),
        ("stale", "0", &|_| {}, None),
        ("stale", "0", &live, Some("somebody listens there already")),
        ("stale", "1", &live, Some("somebody listens there already")),
        ("stale", "0", &file, Some("what is there is not a socket")),
        ("always", "0", &stale, None),
        ("always", "0", &live, None),
        ("always", "0", &file, Some("what is there is not a socket")),
    ];
    for more in ["", ", socket-mode=0640"] {
        for (replace, remove, make, message) in cases {
            let (options, plan) = (
                format!("socket-replace={replace}{more}"),
                format!("start opensocket {remove}\nstart note opened\nstart main\n"),
            );
            let directory = TempDir::new();
            make(&directory);
            let path = directory.join("socket");
            let before = fs::symlink_metadata(&path).map(|found| (found.ino(), found.file_type().is_socket()));
            match message {
                None => drop(serving(&Setting::ours(), &options, &plan, directory)),
                Some(message) => {
                    let keep = directory.path().to_owned();
                    let mut filter = launch(&Setting::ours(), &options, &plan, directory);
                    assert!(filter.process().wait(LIMIT).is_some(), "{options}");
                    let lines = filter.lines();
                    assert!(lines.iter().any(|line| line.contains(message)), "{options}: {lines:?}");
                    assert!(lines.iter().any(|line| line.starts_with("main -1")), "{options}: {lines:?}");
                    let after = fs::symlink_metadata(&path).map(|found| (found.ino(), found.file_type().is_socket()));
                    assert_eq!(after.ok(), before.ok(), "{options}");
                    let left = fs::read_dir(keep).expect("our own directory").flatten();
                    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
                    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('.')), "{options}: {left:?}");
                }
            }
        }
    }
}

/// Of filters that start at the same time and find the same stale socket, one gets the path and keeps it.
#[test]
fn a_race_for_a_stale_socket() {
    for _ in 0..5 {
        let shared = TempDir::new();
        let path = shared.stale_socket("contested");
        let plan = format!("start setconn unix:{}\nstart opensocket 0\nstart main\n", path.display());
        let filters: Vec<Filter> = (0..2)
            .map(|_| launch(&Setting::ours(), "socket-replace=stale, socket-mode=0600", &plan, TempDir::new()))
            .collect();
        let won = filters.iter().filter(|filter| filter.wait_for("opensocket") == "opensocket 0").count();
        assert_eq!(won, 1, "{:?}", filters.iter().map(Filter::lines).collect::<Vec<_>>());
        assert_negotiates(patiently(&path));
    }
}

#[test]
fn removal_at_a_stop() {
    for (options, user, stays) in [
        ("socket-remove=yes", "", false),
        ("socket-remove=yes, socket-mode=0600", "", false),
        ("socket-remove=no", "start setuid 65534\n", true),
        ("socket-mode=0600", "start setuid 65534\n", false),
        ("socket-mode=0600", "", true),
    ] {
        if !is_root() {
            skip("removal_at_a_stop", "root, to be it and to become somebody else");
            return;
        }
        let directory = TempDir::new();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("our own directory");
        let mut filter = serving(&Setting::ours(), options, &format!("{user}{}", OPENINGS[0]), directory);
        stop(&mut filter);
        assert_eq!(filter.socket().exists(), stays, "{options} {user}");
    }
}

#[test]
fn removal_spares_what_is_not_ours() {
    let options = "socket-remove=yes, socket-mode=0600";
    let mut filter = serving(&Setting::ours(), options, OPENINGS[0], TempDir::new());
    fs::remove_file(filter.socket()).expect("the socket exists");
    let _other = UnixListener::bind(filter.socket()).expect("the path is free");
    stop(&mut filter);
    assert!(filter.socket().exists());
}

/// A directory in which everybody may do everything is no danger: what an attacker puts there is not touched.
#[test]
fn links_in_a_shared_directory_are_not_followed() {
    let directory = TempDir::new();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("our own directory");
    let victim = directory.write("victim", "mail");
    if is_root() {
        chown(&victim, Some(1), Some(1)).expect("root may give files away");
    }
    let before = fs::metadata(&victim).expect("just written");
    std::os::unix::fs::symlink(&victim, directory.join("socket")).expect("a fresh directory");
    let options = "socket-mode=0777, socket-replace=always";
    let keep = directory.path().to_owned();
    let mut filter = launch(&Setting::ours(), options, "start opensocket 1\nstart main\n", directory);
    assert!(filter.process().wait(LIMIT).is_some());
    assert!(filter.lines().iter().any(|line| line.contains("what is there is not a socket")), "{keep:?}");
    let after = fs::metadata(&victim).expect("still there");
    assert_eq!((after.mode(), after.uid(), after.len()), (before.mode(), before.uid(), before.len()));
}
