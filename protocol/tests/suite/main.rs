//! PROTOCOL.md, the schemas and the code agree about the wire.

mod round_trip;
mod schema;
mod spec;
