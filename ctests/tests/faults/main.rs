//! Calls of the library that fail: memory that is not to be had, system calls with each error that they may give. It costs
//! a session at most, the log says so, and everything else goes on. `LIBMILTER_FAULTS=all` has every call fail in turn
//! instead of a sample.

mod address_space;
mod allocations;
mod control;
mod plan;
mod scene;
mod sessions;
mod system_calls;
mod talk;
