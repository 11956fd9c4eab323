//! The wire from outside: what the page, the schemas and the code say of it is the same.

mod round_trip;
mod schema;
mod spec;
