//! The headers of sendmail's libmilter, of the installed release and of others.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Library, TempDir, skip, stage::output};

/// Names the directory of `libmilter-dev_*.deb` of other releases, as `apt-get download` leaves them.
const PACKAGES: &str = "LIBMILTER_HEADER_DEBS";

const NAMES: [&str; 2] = ["mfapi.h", "mfdef.h"];

/// The headers of one release, in a place of their own.
#[derive(Debug)]
pub struct ReferenceHeaders {
    /// Where they come from, for messages.
    pub name: String,
    /// The directory that holds `libmilter/mfapi.h`.
    pub include_dir: PathBuf,
    _place: TempDir,
}

impl ReferenceHeaders {
    /// Those of the system and those of the packages in `LIBMILTER_HEADER_DEBS`. What is missing is reported as the
    /// skipped part of `test`. Releases whose headers are the same, byte for byte, are one element.
    ///
    /// # Panics
    ///
    /// When the directory has no packages, or they cannot be unpacked.
    #[must_use]
    pub fn all(test: &str) -> Vec<ReferenceHeaders> {
        let installed = Library::reference_or_skip(test).map(|reference| {
            // Elsewhere than the system's, so that compilers treat all of them alike.
            let place = TempDir::new();
            fs::create_dir(place.join("libmilter")).expect("a fresh directory");
            for name in NAMES {
                let [from, to] =
                    [reference.include_dir(), place.path()].map(|place| place.join("libmilter").join(name));
                fs::copy(&from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
            }
            ReferenceHeaders { name: "installed".to_owned(), include_dir: place.path().to_owned(), _place: place }
        });
        let mut all: Vec<ReferenceHeaders> = Vec::new();
        for headers in installed.into_iter().chain(unpacked(test)) {
            match all.iter_mut().find(|other| other.text() == headers.text()) {
                Some(same) => same.name = format!("{}, {}", same.name, headers.name),
                None => all.push(headers),
            }
        }
        all
    }

    fn text(&self) -> [String; 2] {
        NAMES.map(|name| {
            let path = self.include_dir.join("libmilter").join(name);
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
    }
}

fn unpacked(test: &str) -> Vec<ReferenceHeaders> {
    let Some(directory) = env::var_os(PACKAGES).map(PathBuf::from) else {
        skip(
            &format!("{test} (other releases)"),
            "libmilter-dev of Debian trixie and forky as files: apt-get download them to a directory that \
             LIBMILTER_HEADER_DEBS names",
        );
        return Vec::new();
    };
    let mut packages: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{PACKAGES}={}: {error}", directory.display()))
        .map(|entry| entry.expect("the directory stays").path())
        .filter(|path| file_name(path).starts_with("libmilter-dev_") && file_name(path).ends_with(".deb"))
        .collect();
    assert!(!packages.is_empty(), "{PACKAGES}={}: no libmilter-dev_*.deb", directory.display());
    packages.sort();
    let unpack = |package: PathBuf| {
        let place = TempDir::new();
        output(Command::new("dpkg").arg("-x").arg(&package).arg(place.path()));
        ReferenceHeaders {
            name: file_name(&package).split('_').nth(1).expect("there is a version").to_owned(),
            include_dir: place.join("usr/include"),
            _place: place,
        }
    };
    packages.into_iter().map(unpack).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
