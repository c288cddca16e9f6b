//! What compilers, linkers, packagers and readers see: names, headers, layout, linking, installation, examples, manual.

mod calls;
mod examples;
mod headers;
mod install;
mod libsm;
mod link;
mod manual;
mod options;
mod paths;
mod reference;
mod styles;
mod symbols;
mod types;
