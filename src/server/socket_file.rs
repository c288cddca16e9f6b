//! A socket's name in the file system: how it appears, and how it goes.
//!
//! Where a mode or an owner is wanted, or others might take a socket that does not listen yet for a stale one, the socket
//! is made in a directory that nobody else can enter, and appears at its path only when it is complete.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::listener::OpenError;
use crate::sys::error::Reason;
use crate::sys::path::{Identity, Location, Staging, as_path};
use crate::sys::socket::{self, MAX_PATH, Place};
use crate::sys::{accounts, process};

/// What an administrator wants; `None` is what the program and the system make of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Permission bits.
    pub(super) mode: Option<u16>,
    /// A name or number.
    pub(super) owner: Option<String>,
    /// A name or number.
    pub(super) group: Option<String>,
    pub(super) replace: Option<Replace>,
    /// Whether the name is removed at the end.
    pub(super) remove: Option<bool>,
}

/// Which sockets in the way are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replace {
    Never,
    /// Those that nobody listens on.
    Stale,
    Always,
}

impl Wanted {
    pub(super) const NOTHING: Self = Wanted { mode: None, owner: None, group: None, replace: None, remove: None };
}

/// The name of a socket of ours.
pub(super) struct SocketFile {
    path: CString,
    directory: Identity,
    identity: Identity,
    remove: Option<bool>,
}

impl SocketFile {
    /// Makes a socket that listens at `path`.
    pub(super) fn listen(
        path: &CStr,
        wanted: &Wanted,
        replace: Replace,
        backlog: libc::c_int,
    ) -> Result<(OwnedFd, Self), OpenError> {
        let look = Look::new(wanted)?;
        let location = Location::find(as_path(path))?;
        match replace {
            Replace::Never => {}
            Replace::Stale => remove_stale(&location)?,
            Replace::Always => remove_socket(&location)?,
        }
        let (socket, identity) = match (&look, replace) {
            (Look { mode: None, user: None, group: None }, Replace::Never | Replace::Always) => {
                listen_at(&location, backlog)?
            }
            _ => listen_with(&look, &location, backlog)?,
        };
        let file =
            SocketFile { path: path.to_owned(), directory: location.directory(), identity, remove: wanted.remove };
        Ok((socket, file))
    }

    /// Removes the name if it still is ours. Unless something else is wanted, root's stay, as filters started by root
    /// expect.
    pub(super) fn leave(&self) -> io::Result<()> {
        if self.remove.unwrap_or(!process::is_root()) { self.remove() } else { Ok(()) }
    }

    /// Removes the name if it still is ours.
    pub(super) fn remove(&self) -> io::Result<()> {
        match Location::find(as_path(&self.path)) {
            Ok(location) if location.directory() == self.directory => remove_ours(&location, self.identity),
            // The directory is another one, or gone, or out of reach since the program changed its user or root directory.
            // None was kept open: programs close all descriptors before smfi_main.
            _ => Ok(()),
        }
    }
}

fn remove_ours(location: &Location, ours: Identity) -> io::Result<()> {
    match location.identity() {
        Ok(identity) if identity == ours => match location.remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        // Somebody else's, or gone.
        _ => Ok(()),
    }
}

/// The mode and owner of a socket, where they are not the usual ones.
struct Look {
    mode: Option<libc::mode_t>,
    user: Option<libc::uid_t>,
    group: Option<libc::gid_t>,
}

impl Look {
    fn new(wanted: &Wanted) -> Result<Self, OpenError> {
        Ok(Look {
            mode: wanted.mode.map(libc::mode_t::from),
            user: wanted.owner.as_deref().map(|name| number("socket-owner", name, accounts::user)).transpose()?,
            group: wanted.group.as_deref().map(|name| number("socket-group", name, accounts::group)).transpose()?,
        })
    }
}

/// The number of an account, given as name or number.
fn number(option: &str, name: &str, look_up: fn(&str) -> io::Result<Option<u32>>) -> Result<u32, OpenError> {
    let explain = |what: String, cause| OpenError::new(format!("option {option}={name}: {what}"), cause);
    let found = look_up(name).map_err(|error| explain(format!("cannot look it up: {}", Reason(&error)), error))?;
    found
        .or_else(|| name.parse().ok().filter(|number| *number != u32::MAX))
        .ok_or_else(|| explain("there is no such account".into(), io::Error::from_raw_os_error(libc::EINVAL)))
}

fn listen_at(location: &Location, backlog: libc::c_int) -> Result<(OwnedFd, Identity), OpenError> {
    let socket = socket::bind(&Place::Path(location))?;
    let identity = location.identity()?;
    if let Err(error) = socket::listen(socket.as_fd(), backlog) {
        remove_ours(location, identity)?;
        return Err(error.into());
    }
    Ok((socket, identity))
}

fn listen_with(look: &Look, location: &Location, backlog: libc::c_int) -> Result<(OwnedFd, Identity), OpenError> {
    let staging = stage(location)?;
    let outcome = (|| {
        let (socket, identity) = listen_at(staging.inside(), backlog)?;
        if let Some(mode) = look.mode {
            staging.set_mode(mode).map_err(OpenError::because("cannot set its mode"))?;
        }
        if look.user.is_some() || look.group.is_some() {
            staging.set_owner(look.user, look.group).map_err(OpenError::because("cannot give it to its owner"))?;
        }
        staging.put().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::from_raw_os_error(libc::EADDRINUSE).into(),
            _ => OpenError::because("cannot put it to its place")(error),
        })?;
        Ok((socket, identity))
    })();
    if outcome.is_err() {
        // There may be nothing to remove.
        let _ = staging.inside().remove();
    }
    outcome
}

fn stage(location: &Location) -> Result<Staging<'_>, OpenError> {
    let staging = Staging::beside(location).map_err(OpenError::because("cannot make a directory beside it"))?;
    let (len, staged) = (location.path().count_bytes(), staging.inside().path().count_bytes());
    if staged <= MAX_PATH {
        return Ok(staging);
    }
    let most = MAX_PATH - (staged - len);
    let text = format!("socket path of {len} octets is too long, with the options asked for {most} are possible");
    Err(OpenError::new(text, io::Error::from_raw_os_error(libc::ENAMETOOLONG)))
}

/// Makes way for a socket, by removing any other one, or a link to one, and never what that leads to.
fn remove_socket(location: &Location) -> Result<(), OpenError> {
    if location.is_link_to_socket() || find_socket(location)? { Ok(location.remove()?) } else { Ok(()) }
}

/// Makes way for a socket, by removing one that nobody listens on.
fn remove_stale(location: &Location) -> Result<(), OpenError> {
    if !find_socket(location)? {
        return Ok(());
    }
    refuse_live(location)?;
    take_away_stale(location)
}

/// Removes a socket that seemed to be stale.
///
/// Another filter that starts may have done the same, and put its own socket there meanwhile. So what is there is taken
/// away first, and looked at again where nobody else can reach it.
fn take_away_stale(location: &Location) -> Result<(), OpenError> {
    let staging = stage(location)?;
    match staging.take() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        taken => taken.map_err(OpenError::because("cannot take the old one away"))?,
    }
    let outcome = find_socket(staging.inside()).and_then(|_| refuse_live(staging.inside()));
    match outcome {
        Ok(()) => Ok(staging.inside().remove()?),
        Err(refusal) => staging.put().map_err(OpenError::because("cannot put back what is there")).and(Err(refusal)),
    }
}

/// Whether there is a socket; what is something else is an error.
fn find_socket(location: &Location) -> Result<bool, OpenError> {
    match location.identity() {
        Ok(identity) if identity.is_socket() => Ok(true),
        Ok(_) => {
            let cause = io::Error::from_raw_os_error(libc::EEXIST);
            Err(OpenError::new("what is there is not a socket", cause))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn refuse_live(location: &Location) -> Result<(), OpenError> {
    match socket::is_answered(location) {
        Ok(false) => Ok(()),
        Ok(true) => {
            let cause = io::Error::from_raw_os_error(libc::EADDRINUSE);
            Err(OpenError::new("somebody listens there already", cause))
        }
        Err(error) => Err(OpenError::because("cannot tell whether somebody listens there")(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::sync::Barrier;

    use super::*;

    /// A directory for one socket, and nothing else.
    struct Room(PathBuf);

    impl Room {
        fn new(test: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("libmilter-{test}-{}", std::process::id()));
            std::fs::create_dir(&directory).unwrap();
            Room(directory)
        }

        fn path(&self) -> PathBuf {
            self.0.join("s")
        }

        fn location(&self) -> Location {
            Location::find(&self.path()).unwrap()
        }

        fn assert_answers_and_is_clean(&self) {
            UnixStream::connect(self.path()).unwrap();
            assert_eq!(std::fs::read_dir(&self.0).unwrap().count(), 1, "something is left behind");
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Of two that find the same stale socket at once, one gets the path and keeps it.
    #[test]
    fn a_race_for_a_stale_socket() {
        let room = Room::new("race");
        let location = room.location();
        for round in 0..50 {
            // Never a listener: a process that another test forks would listen on until it becomes its program.
            drop(socket::bind(&Place::Path(&location)).unwrap());
            let barrier = Barrier::new(2);
            let listen = || {
                barrier.wait();
                SocketFile::listen(location.path(), &Wanted::NOTHING, Replace::Stale, 5)
            };
            let outcomes = std::thread::scope(|scope| {
                let other = scope.spawn(listen);
                [listen(), other.join().unwrap()]
            });
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "round {round}");
            room.assert_answers_and_is_clean();
            std::fs::remove_file(room.path()).unwrap();
        }
    }

    #[test]
    fn a_socket_that_is_not_stale_any_more_stays() {
        let room = Room::new("alive");
        let _live = UnixListener::bind(room.path()).unwrap();
        let error = take_away_stale(&room.location()).unwrap_err();
        assert_eq!(error.to_string(), "somebody listens there already");
        room.assert_answers_and_is_clean();
    }
}
