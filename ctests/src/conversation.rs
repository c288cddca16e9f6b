//! Playing the MTA's side of a conversation with a recorder.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use crate::{Filter, Library, Linkage, MtaConnection, Sanitizer, mta::SILENCE, recorder::Event, wire::Frame};

/// A library, and for ours how it runs sessions.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// What the filter is linked with.
    pub library: &'static Library,
    /// The model named in `LIBMILTER_OPTIONS`; `None` for the library's default.
    pub model: Option<&'static str>,
    /// The number of worker processes named there; `None` for none.
    pub processes: Option<u16>,
    /// Which kind of library it is.
    pub linkage: Linkage,
}

impl Setting {
    /// Our library in its default model.
    #[must_use]
    pub fn ours() -> Setting {
        Setting::of(Library::ours())
    }

    /// The variables of a program in this setting, `LIBMILTER_OPTIONS` with these further settings among them.
    pub(crate) fn environment(&self, more: &str) -> impl Iterator<Item = (&'static str, String)> {
        let options = self.options(more).map(|options| ("LIBMILTER_OPTIONS", options));
        options.into_iter().chain(self.library.sanitizer().map(Sanitizer::options))
    }

    /// The value of `LIBMILTER_OPTIONS` with this model, these processes and these further settings, if it is not empty.
    fn options(&self, more: &str) -> Option<String> {
        let model = self.model.map(|model| format!("model={model}"));
        let processes = self.processes.map(|processes| format!("processes={processes}"));
        let more = (!more.is_empty()).then(|| more.to_owned());
        let settings: Vec<String> = model.into_iter().chain(processes).chain(more).collect();
        (!settings.is_empty()).then(|| settings.join(", "))
    }

    fn of(library: &'static Library) -> Setting {
        Setting { library, model: None, processes: None, linkage: Linkage::Shared }
    }

    /// Our library in this model; further options may follow behind commas.
    #[must_use]
    pub fn model(model: &'static str) -> Setting {
        Setting { model: Some(model), ..Setting::ours() }
    }

    /// Our library, built with this sanitizer, in the models that run sessions on threads.
    #[must_use]
    pub fn sanitized(sanitizer: Sanitizer) -> [Setting; 2] {
        let pool = Setting::of(Library::sanitized(sanitizer));
        [pool, Setting { model: Some("threads"), ..pool }]
    }

    /// Our library in the models that run sessions on threads.
    #[must_use]
    pub fn threaded() -> [Setting; 2] {
        [Setting::ours(), Setting::model("threads")]
    }

    /// Our library in this many worker processes, in its default model.
    #[must_use]
    pub fn processes(processes: u16) -> Setting {
        Setting { processes: Some(processes), ..Setting::ours() }
    }

    /// Our library in every way to run sessions.
    #[must_use]
    pub fn every_model() -> [Setting; 4] {
        [Setting::ours(), Setting::model("threads"), Setting::model("fork"), Setting::processes(2)]
    }

    /// Our static library in its default model.
    #[must_use]
    pub fn ours_static() -> Setting {
        Setting { linkage: Linkage::Static, ..Setting::ours() }
    }

    /// The reference, if it is installed; otherwise the skipped part of `test`.
    #[must_use]
    pub fn reference(test: &str) -> Option<Setting> {
        Library::reference_or_skip(test).map(Setting::of)
    }

    /// Ours in the models that run sessions on threads, and the reference if it is installed.
    #[must_use]
    pub fn each(test: &str) -> Vec<Setting> {
        Setting::threaded().into_iter().chain(Setting::reference(test)).collect()
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.library.origin().fmt(f)?;
        if let Some(sanitizer) = self.library.sanitizer() {
            write!(f, "-{}", sanitizer.name())?;
        }
        if let Some(model) = self.model {
            write!(f, "-{model}")?;
        }
        if let Some(processes) = self.processes {
            write!(f, "-{processes}-processes")?;
        }
        f.write_str(if self.linkage == Linkage::Static { "-static" } else { "" })
    }
}

/// What the MTA does, in order.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// The steps.
    pub steps: Vec<Step>,
}

/// One thing the MTA does. Every step but the first [`Step::Connect`] needs a connection.
#[derive(Clone, Debug)]
pub enum Step {
    /// Opens a connection.
    Connect,
    /// Writes these octets at once.
    Send(Vec<u8>),
    /// Reads so many packets, or up to the end of the connection.
    Await(usize),
    /// Reads up to the end of the connection.
    AwaitEnd,
    /// Says that nothing more will be sent, and goes on reading.
    Shutdown,
    /// Closes the connection in both directions.
    Close,
    /// Waits until so many lines are on record.
    AwaitRecord(usize),
    /// Does nothing for a while.
    Pause(Duration),
}

impl Script {
    /// The same script with everything written one octet at a time.
    #[must_use]
    pub fn in_octets(&self) -> Script {
        let octets = |step: &Step| match step {
            Step::Send(octets) => octets.iter().map(|octet| Step::Send(vec![*octet])).collect(),
            other => vec![other.clone()],
        };
        Script { steps: self.steps.iter().flat_map(octets).collect() }
    }

    /// The same script with everything for one connection written at once, before anything is read.
    #[must_use]
    pub fn in_one_segment(&self) -> Script {
        let mut steps = Vec::new();
        for connection in self.steps.chunk_by(|_, next| !matches!(next, Step::Connect)) {
            let mut segment = Vec::new();
            let mut others = Vec::new();
            for step in connection {
                match step {
                    Step::Connect => steps.push(Step::Connect),
                    Step::Send(octets) => segment.extend_from_slice(octets),
                    other => others.push(other.clone()),
                }
            }
            steps.push(Step::Send(segment));
            steps.extend(others);
        }
        Script { steps }
    }
}

/// What came from the filter on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A packet.
    Frame(Frame),
    /// The end of the connection, in the middle of a packet if octets are given.
    End(Vec<u8>),
    /// Nothing within the time limit.
    Silence,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Frame(frame) => frame.fmt(f),
            Reply::End(partial) if partial.is_empty() => f.write_str("EOF"),
            Reply::End(partial) => write!(f, "EOF after {} octets of a packet", partial.len()),
            Reply::Silence => f.write_str("silence"),
        }
    }
}

/// All that a conversation showed.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// Everything received, in order, over all connections.
    pub replies: Vec<Reply>,
    /// Callbacks, calls and log messages, in order.
    pub record: Vec<Event>,
    /// What the program wrote to standard output and standard error.
    pub output: String,
    /// Whether the program still ran when everything was done.
    pub survived: bool,
}

/// How long to watch out for callbacks after the expected ones, where no end of a connection tells.
const SETTLING: Duration = Duration::from_millis(30);

/// Starts a filter that follows `plan`, plays `script` against it, and ends it.
///
/// # Panics
///
/// When the filter does not start, or uses another library than `setting` says.
#[must_use]
pub fn run(plan: &str, script: &Script, setting: &Setting) -> Transcript {
    let filter = Filter::start(setting, plan);
    let mut replies = Vec::new();
    let mut connection: Option<MtaConnection> = None;
    for step in &script.steps {
        let Some(open) = &mut connection else {
            match step {
                Step::Connect => connection = Some(filter.connect()),
                Step::AwaitRecord(lines) => await_record(&filter, *lines),
                Step::Pause(time) => thread::sleep(*time),
                _ => {}
            }
            continue;
        };
        match step {
            Step::Connect => connection = Some(filter.connect()),
            Step::Send(octets) => open.send(octets),
            Step::Await(count) => {
                for _ in 0..*count {
                    replies.push(open.receive(SILENCE));
                    if !matches!(replies.last(), Some(Reply::Frame(_))) {
                        break;
                    }
                }
            }
            Step::AwaitEnd => loop {
                replies.push(open.receive(SILENCE));
                if !matches!(replies.last(), Some(Reply::Frame(_))) {
                    break;
                }
            },
            Step::Shutdown => open.shutdown(),
            Step::Close => connection = None,
            Step::AwaitRecord(lines) => await_record(&filter, *lines),
            Step::Pause(time) => thread::sleep(*time),
        }
    }
    drop(connection);
    let record = filter.record();
    let (output, survived) = filter.end();
    Transcript { replies, record, output, survived }
}

fn await_record(filter: &Filter, lines: usize) {
    let deadline = Instant::now() + SILENCE;
    while filter.record().len() < lines && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    thread::sleep(SETTLING);
}
