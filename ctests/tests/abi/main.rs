//! What compilers, linkers and packagers see: names, headers, layout, linking and installation.

mod calls;
mod headers;
mod install;
mod link;
mod reference;
mod stage;
mod symbols;
