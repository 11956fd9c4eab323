//! Reading and editing, compared with the real PyYAML.

mod edit_chains;
mod editing;
mod pyyaml;
mod reading;
mod styled;
