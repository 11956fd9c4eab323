//! The keys of devcluster's own stages, and what each of them holds.

/// What a field holds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Type {
    Any,
    Text,
    /// Text or a number: devcluster makes text of it.
    Word,
    Path,
    Port,
    Words,
    Signal,
    Steps,
    Texts,
    Variables,
}

use Type::{Any, Path, Port, Signal, Steps, Text, Texts, Variables, Word, Words};

pub(super) type Fields = &'static [(&'static str, Type)];

/// The fields of a kind, and those that have to be there.
pub(super) fn fields(kind: &str) -> (Fields, &'static [&'static str]) {
    match kind {
        "elastic" => (
            &[
                ("name", Word),
                ("api_port", Port),
                ("elastic_port", Port),
                ("environment", Texts),
                ("data_dir", Path),
                ("container_name", Word),
                ("image_name", Word),
                ("cmdline", Words),
                ("post", Steps),
            ],
            &[],
        ),
        "db" => (
            &[
                ("name", Word),
                ("port", Port),
                ("password", Word),
                ("db_name", Word),
                ("data_dir", Path),
                ("container_name", Word),
                ("image_name", Word),
                ("cmdline", Words),
                ("post", Steps),
            ],
            &[],
        ),
        "master" => (
            &[
                ("pre", Steps),
                ("post", Steps),
                ("cmdline", Words),
                ("config_file", Any),
                ("name", Text),
                ("kill_signal", Signal),
            ],
            &[],
        ),
        "agent" => (
            &[
                ("pre", Steps),
                ("cmdline", Words),
                ("config_file", Any),
                ("name", Text),
                ("kill_signal", Signal),
            ],
            &[],
        ),
        "custom" => (
            &[
                ("cmd", Words),
                ("name", Text),
                ("env", Variables),
                ("cwd", Path),
                ("pre", Steps),
                ("post", Steps),
                ("kill_signal", Signal),
            ],
            &["cmd", "name"],
        ),
        _ => (
            &[
                ("name", Text),
                ("container_name", Word),
                ("run_args", Words),
                ("kill_signal", Signal),
                ("pre", Steps),
                ("post", Steps),
            ],
            &["name", "container_name", "run_args"],
        ),
    }
}
