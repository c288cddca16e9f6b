//! What is compared.

use std::path::PathBuf;

use ctests::{Compile, Library, TempDir};

/// The models of this library, and how they are chosen.
pub const MODELS: [(&str, &str); 4] =
    [("pool", "model=pool"), ("threads", "model=threads"), ("fork", "model=fork"), ("processes", "processes=2")];

/// A library, the model it runs sessions with, and the filter built for it.
#[derive(Debug)]
pub struct Contestant {
    /// How tables call it.
    pub name: String,
    /// The library.
    pub library: &'static Library,
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

    /// The reference a second time, from a copy: the difference to the first is the noise of the measurement.
    pub fn copy_of(reference: &Library, directory: &TempDir) -> Self {
        let library = Box::leak(Box::new(reference.copied_to(&directory.join("copy"))));
        Contestant::new("copy", library, None, directory)
    }

    fn new(name: &str, library: &'static Library, options: Option<String>, directory: &TempDir) -> Self {
        let program = directory.join(format!("bench-{name}"));
        Compile::c(library).source("bench/filters/bench.c").flag("-O2").to(&program);
        Contestant { name: name.to_owned(), library, options, program }
    }
}
