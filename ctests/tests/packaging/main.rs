//! How the library gets onto machines and into builds: packages, and descriptions for build systems.

mod chroot;
mod consumers;
mod debian;
mod descriptions;
mod readme;
mod rpm;
