//! What each verb does.

pub(crate) mod cleanup;
pub(crate) mod command;
pub(crate) mod describe;
pub(crate) mod diagnose;
pub(crate) mod explain;
pub(crate) mod observe;
pub(crate) mod once;
pub(crate) mod run;
pub(crate) mod stdin;
pub(crate) mod validate;
