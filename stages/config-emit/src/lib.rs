//! A later stage's config, written from a base and from what the stages before it found out.
//!
//! [`render`] does it as a pure function of texts and values; [`determined`] knows what a Determined master refuses.

mod config;
pub mod determined;
mod file;
mod render;
mod stage;
mod target;
mod values;

pub use config::{Config, Outputs};
pub use render::{RenderError, Rendered, render};
pub use stage::ConfigEmit;
pub use values::{GatewayValues, MasterAddress, Values};
