//! The sub-command `inspect`: what a filter asks for when it negotiates.

use std::io::{self, Write};
use std::process::ExitCode;

use milter_protocol::escape::EscapedJson;
use milter_protocol::{Escaped, Stage};
use serde_json::{Value, json};

use crate::arguments::Inspect;
use crate::macros::MacroLists;
use crate::mta::{Mta, Patience};
use crate::negotiation::{COMMANDS, Negotiation, Treatment};
use crate::palette::{FAINT, HEADING, Palette};
use crate::send::Error;
use crate::session::Session;
use crate::target::Target;

/// Runs the sub-command.
pub fn run(options: &Inspect) -> Result<ExitCode, Error> {
    let filter = |failure| Error::Filter(options.socket.clone(), failure);
    let patience = options.timeout.map_or(options.mta.patience(), Patience::uniform);
    let stream = options.socket.connect(patience.connect).map_err(filter)?;
    let session = Session::negotiate(stream, options.mta, patience).map_err(filter)?;
    let wishes = Wishes::new(&options.socket, options.mta, session.negotiation());
    let mut stdout = io::stdout().lock();
    let written = if options.json {
        writeln!(stdout, "{}", EscapedJson(&format!("{:#}", wishes.json())))
    } else {
        wishes.write(&mut stdout, Palette::for_stream(&io::stdout()))
    };
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Error::File("standard output".into(), error));
        }
        _ => {}
    }
    drop(stdout);
    session.quit().map_err(filter)?;
    Ok(ExitCode::SUCCESS)
}

/// What a filter wants from an MTA.
struct Wishes<'a> {
    target: &'a Target,
    mta: Mta,
    negotiation: &'a Negotiation,
    stages: Vec<StageWishes>,
}

/// What it wants at one command.
struct StageWishes {
    name: &'static str,
    treatment: Treatment,
    macros: Vec<String>,
    /// The filter has asked for these macros; otherwise they are the MTA's choice.
    chosen: bool,
}

impl<'a> Wishes<'a> {
    fn new(target: &'a Target, mta: Mta, negotiation: &'a Negotiation) -> Self {
        let lists = MacroLists::new(mta, &negotiation.macros);
        let stages = COMMANDS.map(|(command, name)| {
            let treatment = negotiation.treatment(mta, command);
            let stage = mta.macro_stage(command).flatten().filter(|_| treatment != Treatment::LeftOut);
            let names = |stage: Stage| lists.names(stage).into_iter().map(str::to_owned).collect();
            StageWishes {
                name,
                treatment,
                macros: stage.map(names).unwrap_or_default(),
                chosen: stage.is_some_and(|stage| negotiation.macros.iter().any(|(chosen, _)| *chosen == stage)),
            }
        });
        Wishes { target, mta, negotiation, stages: stages.into() }
    }

    fn write(&self, out: &mut impl Write, palette: Palette) -> io::Result<()> {
        let Wishes { target, mta, negotiation, stages } = self;
        let heading = format!("Filter at {target}, asked by {}", mta.name());
        writeln!(out, "{}", palette.paint(HEADING, heading))?;
        let list = |words: Vec<_>, none: &str| if words.is_empty() { none.to_owned() } else { words.join(", ") };
        writeln!(out, "  version  {}", negotiation.version)?;
        writeln!(out, "  may      {}", list(negotiation.actions(), "change nothing"))?;
        writeln!(out, "  and      {}", list(negotiation.extras(), "nothing else"))?;
        let row = format!("{:<18}{:<20}{}", "Stage", "Treatment", "Macros");
        writeln!(out, "\n{}", palette.paint(HEADING, row))?;
        for StageWishes { name, treatment, macros, chosen } in stages {
            let macros = match &macros[..] {
                [] => "-".to_owned(),
                names => Escaped(names.join(" ").as_bytes()).to_string(),
            };
            let choice = if *chosen { " (the filter's choice)" } else { "" };
            let row = format!("{name:<18}{:<20}{macros}{choice}", treatment_name(*treatment));
            let style = if *treatment == Treatment::LeftOut { FAINT } else { Default::default() };
            writeln!(out, "{}", palette.paint(style, row))?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let stages = self.stages.iter().map(|stage| {
            json!({
                "stage": stage.name,
                "treatment": treatment_name(stage.treatment),
                "macros": stage.macros,
                "macros_chosen": stage.chosen,
            })
        });
        json!({
            "socket": self.target.to_string(),
            "mta": self.mta.name(),
            "version": self.negotiation.version,
            "actions": self.negotiation.actions(),
            "extras": self.negotiation.extras(),
            "stages": Value::from_iter(stages),
        })
    }
}

fn treatment_name(treatment: Treatment) -> &'static str {
    match treatment {
        Treatment::LeftOut => "not sent",
        Treatment::Announced => "macros only",
        Treatment::Unanswered => "sent, not answered",
        Treatment::Answered => "sent and answered",
    }
}
