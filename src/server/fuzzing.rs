//! What the fuzz targets in `fuzz/` reach, which build the library with `--cfg fuzzing`.

use std::ffi::{CStr, c_int};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use milter_protocol::{Actions, Callback, Callbacks, Modification, Profile, Steps};
use parking_lot::Mutex;

use super::buffer::Scratch;
use super::description::{Description, DescriptionError};
use super::options::{OptionError, Options};
use super::service::Server;
use super::session::Session;
use super::{Context, Filter};
use crate::model::Session as _;
use crate::sys::poll::{self, Interest};

/// The options that `text` of the environment makes of the defaults, or why it cannot be used.
///
/// # Errors
///
/// With the line for the log.
pub fn options(text: &str) -> Result<impl PartialEq + std::fmt::Debug + use<>, String> {
    let options = Options::DEFAULT.with(text);
    options.and_then(|options| options.agree().map(|()| options)).map_err(|OptionError(text)| text)
}

/// The same of an option that the program sets.
///
/// # Errors
///
/// With the line for the log.
pub fn option(name: &str, value: &str) -> Result<impl PartialEq + std::fmt::Debug + use<>, String> {
    let mut options = Options::DEFAULT;
    options.set(name, value).map(|()| options).map_err(|OptionError(text)| text)
}

/// What a socket description stands for, in the form of a description, or why it cannot be used.
///
/// # Errors
///
/// With the line for the log.
pub fn address(text: &CStr) -> Result<Vec<u8>, String> {
    match Description::parse(text) {
        Ok(Description::Path(path)) => Ok([b"unix:", path.to_bytes()].concat()),
        Ok(Description::Address(address)) => {
            let kind = if address.is_ipv4() { "inet" } else { "inet6" };
            Ok(format!("{kind}:{}@[{}]", address.port(), address.ip()).into_bytes())
        }
        Ok(Description::Descriptor(number)) => Ok(format!("fd:{number}").into_bytes()),
        Ok(Description::Passed(name)) => Ok(format!("fd:{name}").into_bytes()),
        Err(error) => Err(DescriptionError::to_string(&error)),
    }
}

/// Serves what an MTA sends in these pieces, then hangs up. Returns the callbacks with their arguments, and what the MTA
/// was sent. `verdicts` are returned by the callbacks in turn, then CONTINUE.
///
/// # Panics
///
/// Without memory or descriptors.
pub fn session<'a>(verdicts: &[u8], pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
    static NEXT: OnceLock<(Arc<Recorder>, Arc<Server>)> = OnceLock::new();
    let (recorder, server) = NEXT.get_or_init(|| {
        let recorder = Arc::new(Recorder::default());
        let server = Server::for_test(Arc::clone(&recorder) as _);
        (recorder, Arc::new(server))
    });
    *recorder.0.lock() = (verdicts.to_vec(), Vec::new());
    let (mut mta, connection) = UnixStream::pair().expect("a descriptor");
    let mut session = Session::new(Arc::new(Context::new(Arc::clone(server), 1, connection.into())), None);
    let mut scratch = Scratch::default();
    let mut over = false;
    for piece in pieces {
        if over {
            break;
        }
        mta.write_all(piece).expect("a connection with room");
        while !over && is_readable(&session) {
            over = session.serve(&mut scratch, &mut (), false).is_over();
        }
    }
    mta.shutdown(Shutdown::Write).expect("a connection");
    while !over {
        over = session.serve(&mut scratch, &mut (), true).is_over();
    }
    let mut output = Vec::new();
    mta.set_nonblocking(true).expect("a connection");
    let end = mta.read_to_end(&mut output).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::WouldBlock), "a session does not close its connection itself");
    (std::mem::take(&mut recorder.0.lock().1), output)
}

fn is_readable(session: &Session) -> bool {
    poll::wait([(session.connection(), Interest::Read)], Some(Duration::ZERO)).expect("a connection") == [true]
}

/// A filter that follows a list of verdicts and keeps what it was asked.
#[derive(Default)]
struct Recorder(Mutex<(Vec<u8>, Vec<String>)>);

impl Filter for Recorder {
    fn name(&self) -> &CStr {
        c"fuzzing"
    }

    fn profile(&self) -> Profile {
        let callbacks = Callbacks::all() - Callbacks::NEGOTIATE;
        Profile { version: 0x0100_0001, actions: Actions::VERSION_6, callbacks, promised: Steps::empty() }
    }

    fn call(&self, context: &Context, callback: &mut Callback<'_>) -> Option<c_int> {
        if matches!(callback, Callback::Eom) {
            context.modify(Modification::Quarantine { reason: b"fuzzing" });
            context.replace_body(b"another body");
        }
        let (verdicts, called) = &mut *self.0.lock();
        called.push(format!("{callback:?}"));
        Some(verdicts.pop().unwrap_or(0).into())
    }
}
