//! OpenDKIM's miltertest as the MTA: somebody else's idea of the other end.

use std::process::Command;

use ctests::{Library, Program, Setting, TempDir, skip, workspace_dir};

/// Runs the script of a filter against it, with each library.
fn play(filter: &str) {
    let test = format!("miltertest {filter}");
    if Command::new("miltertest").arg("-V").output().is_err() {
        return skip(&test, "miltertest");
    }
    let directory = TempDir::new();
    let library = Library::reference().unwrap_or(Library::ours());
    let program = Program::compiled(&format!("ctests/filters/{filter}.c"), library, &directory);
    let socket = directory.join("socket");
    let address = format!("unix:{}", socket.display());
    for setting in Setting::each(&test) {
        let _filter = program.serve(&setting, &socket, &[&address]);
        let run = Command::new("miltertest")
            .args(["-D", &format!("socket={address}"), "-s", &format!("{filter}.lua")])
            .current_dir(workspace_dir().join("ctests/miltertest"))
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .expect("miltertest");
        let (output, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success() && output.ends_with("all done\n"), "{setting}: {}\n{output}{errors}", run.status);
    }
}

/// Not with every_call: its replacement body is larger than miltertest's buffer, which crashes.
#[test]
fn demo() {
    play("demo");
}

#[test]
fn verdicts() {
    play("verdicts");
}
