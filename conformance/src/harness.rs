//! A program under test, watched from outside: what it says, how much time it takes, and what it leaves on the machine. The
//! kit and this project's tests stand on it.

mod clock;
pub mod machine;
mod running;
mod stream;

pub use clock::within;
pub use running::{NotSaid, Output, Running, SOON, parse, until_some};
pub use stream::{Stream, shown};
