//! Listening sockets that a service manager has opened and passed on: `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`.
//!
//! A description that names the address of such a socket means that socket, so a filter is activated with the
//! description it has always had.

use std::ffi::CStr;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::description::Description;
use super::listener::OpenError;
use crate::sys::descriptor;
use crate::sys::path::{Identity, Location, as_path};
use crate::sys::process;
use crate::sys::socket::{self, Bound};

/// The first descriptor that is passed.
const FIRST: RawFd = 3;

/// The sockets passed to this process.
pub(super) struct Activation {
    passed: Vec<Passed>,
}

struct Passed {
    number: RawFd,
    name: String,
}

impl Activation {
    /// What the environment says. What was passed to another process, such as the one that forked this one, is its.
    pub(super) fn of_this_process() -> Self {
        let number = |name: &CStr| process::environment(name)?.to_str().ok()?.parse::<RawFd>().ok();
        let mine = number(c"LISTEN_PID") == Some(process::id());
        let count = number(c"LISTEN_FDS").filter(|_| mine).unwrap_or(0);
        let names = process::environment(c"LISTEN_FDNAMES").map(|names| names.to_string_lossy().into_owned());
        let mut names = names.as_deref().unwrap_or_default().split(':');
        let passed = (FIRST..FIRST.saturating_add(count))
            // Fewer than announced: somebody has closed them.
            .take_while(|number| descriptor::duplicate_raw(*number).is_ok())
            .map(|number| Passed { number, name: names.next().unwrap_or_default().to_owned() })
            .collect();
        Activation { passed }
    }

    /// What a description stands for: passed sockets by name, the passed socket at this address, or itself.
    pub(super) fn resolve(&self, description: Description) -> Result<Vec<Description>, OpenError> {
        match description {
            Description::Passed(name) => self.named(&name),
            description => Ok(vec![match self.passed.iter().find(|passed| is_at(passed.number, &description)) {
                Some(passed) => Description::Descriptor(passed.number),
                None => description,
            }]),
        }
    }

    /// The sockets of a name, of which there may be several; `*` is all.
    fn named(&self, name: &str) -> Result<Vec<Description>, OpenError> {
        let named = self.passed.iter().filter(|passed| name == "*" || passed.name == name);
        let found: Vec<_> = named.map(|passed| Description::Descriptor(passed.number)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let names: Vec<_> = self.passed.iter().map(|passed| passed.name.as_str()).collect();
        let text = match names[..] {
            [] => {
                format!("fd:{name} is no descriptor's number, and no sockets were passed to this process (LISTEN_FDS)")
            }
            _ => format!(
                "fd:{name} is no descriptor's number, and none of the names in LISTEN_FDNAMES: {}",
                names.join(", ")
            ),
        };
        Err(OpenError::new(text, std::io::Error::from_raw_os_error(libc::EINVAL)))
    }
}

/// Whether a passed descriptor is a stream socket at the address that is described.
fn is_at(number: RawFd, description: &Description) -> bool {
    let Ok(socket) = descriptor::duplicate_raw(number) else { return false };
    let Ok(Some(bound)) = socket::bound_to(&socket) else { return false };
    match (description, bound) {
        (Description::Path(wanted), Bound::Path(path)) => {
            let same = |one: Identity, other: Identity| one.is_socket() && one == other;
            let identity = |path| Location::find(as_path(path)).and_then(|location| location.identity());
            *wanted == path || identity(wanted).is_ok_and(|one| identity(&path).is_ok_and(|other| same(one, other)))
        }
        (Description::Address(wanted), Bound::Address { address, dual_stack }) => {
            wanted.port() == address.port()
                && (wanted.ip() == address.ip() || (dual_stack && takes_all(wanted) && takes_all(&address)))
        }
        _ => false,
    }
}

fn takes_all(address: &SocketAddr) -> bool {
    address.ip().is_unspecified()
}
