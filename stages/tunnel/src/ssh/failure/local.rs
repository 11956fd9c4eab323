//! ssh's complaints about this machine.

use protocol::StageError;

use super::{Lines, Target};

pub(super) fn own_options(lines: &Lines, _: &Target) -> Option<StageError> {
    let bad = [
        "Bad configuration option",
        "terminating, ",
        "Bad owner or permissions on",
        "Can't open user config file",
    ];
    bad.iter().any(|text| lines.has(text)).then(|| {
        StageError::new(
            "tunnel.ssh_config_invalid",
            "ssh does not accept its configuration",
        )
        .hint("correct the file and line that ssh names, or name another file with ssh_config_path")
    })
}

pub(super) fn control_socket(lines: &Lines, _: &Target) -> Option<StageError> {
    if lines.has("too long for Unix domain socket") || lines.has("ControlPath too long") {
        let message = "the path of ssh's control socket is too long for this system";
        return Some(
            StageError::new("tunnel.socket_path_too_long", message)
                .hint("set XDG_RUNTIME_DIR or TMPDIR to a directory with a shorter path"),
        );
    }
    if lines.has("unix_listener: cannot bind") && lines.has("No space left on device") {
        return Some(StageError::disk_full("ssh cannot make its control socket"));
    }
    None
}
