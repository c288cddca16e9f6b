//! What is compared.

use std::path::PathBuf;

use ctests::{Compile, Library, TempDir};

/// The models of this library, and how they are chosen.
pub const MODELS: [(&str, &str); 4] =
    [("pool", "model=pool"), ("threads", "model=threads"), ("fork", "model=fork"), ("processes", "processes=2")];

/// The server without a library: a yardstick.
pub const FLOOR: &str = "floor";

/// A library, the model it runs sessions with, and the filter built for it.
#[derive(Debug)]
pub struct Contestant {
    /// How tables call it.
    pub name: String,
    /// The library; the floor has none.
    pub library: Option<&'static Library>,
    /// `LIBMILTER_OPTIONS`; the reference knows none.
    pub options: Option<String>,
    /// The filter.
    pub program: PathBuf,
}

impl Contestant {
    /// The reference with the only model it has.
    pub fn reference(library: &'static Library, directory: &TempDir) -> Self {
        Contestant::new("reference", library, None, directory)
    }

    /// This library with one of its models.
    pub fn ours(model: &str, options: &str, directory: &TempDir) -> Self {
        Contestant::new(model, Library::ours(), Some(options.to_owned()), directory)
    }

    /// A server that does the least that can be done. It plays some of the filters only.
    pub fn floor(directory: &TempDir) -> Self {
        let program = directory.join(FLOOR);
        Compile::c(Library::ours()).source("bench/filters/floor.c").flag("-O2").to(&program);
        Contestant { name: FLOOR.to_owned(), library: None, options: None, program }
    }

    /// Whether it can be this filter.
    pub fn plays(&self, mode: &str) -> bool {
        self.library.is_some() || matches!(mode, "noop" | "nr" | "skipall")
    }

    /// The reference a second time, from a copy: the difference to the first is the noise of the measurement.
    pub fn copy_of(reference: &Library, directory: &TempDir) -> Self {
        let library = Box::leak(Box::new(reference.copied_to(&directory.join("copy"))));
        Contestant::new("copy", library, None, directory)
    }

    fn new(name: &str, library: &'static Library, options: Option<String>, directory: &TempDir) -> Self {
        let program = directory.join(format!("bench-{name}"));
        Compile::c(library).source("bench/filters/bench.c").flag("-O2").to(&program);
        Contestant { name: name.to_owned(), library: Some(library), options, program }
    }
}
