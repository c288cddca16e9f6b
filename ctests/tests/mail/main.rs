//! Filters at work: real mail through a real MTA.

mod opendkim;
