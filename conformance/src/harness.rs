//! Observes a program under test from outside: its messages, its time, and what it leaves on the machine. The kit and this
//! project's tests use it.

mod clock;
pub mod machine;
mod running;
mod stream;

pub use clock::within;
pub use running::{MissingMessage, Output, Running, SOON, parse, until_some};
pub use stream::{Stream, shown};
