//! How the library gets onto machines and into builds: packages, and descriptions for build systems.

mod consumers;
