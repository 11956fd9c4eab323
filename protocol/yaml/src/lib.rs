//! YAML as devcluster reads it: this crate reads what `PyYAML`'s `safe_load` returns, with the line and column of every
//! value, and its edits keep the rest of the user's file unchanged.
//!
//! `granit-parser` parses the syntax (YAML 1.2, lenient); `dialect` refuses what `PyYAML` refuses; `scalar` resolves plain
//! words by the rules of YAML 1.1.

mod block_scalar;
mod build;
mod changes;
mod dialect;
mod document;
mod edit;
mod emit;
mod error;
mod excerpt;
mod expected;
mod layout;
mod path;
mod render;
mod scalar;
mod scalars;
mod splice;
mod timestamp;
mod tree;

pub use document::Document;
pub use edit::Editor;
pub use emit::{quote, to_yaml};
pub use error::{Error, location};
pub use path::{Seg, show};
pub use scalars::Scalar;
pub use tree::PyYamlOnly;
