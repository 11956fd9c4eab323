//! ssh's messages about this machine.

use protocol::StageError;

use super::{Lines, Server, error};

pub(super) fn own_options(lines: &Lines, _: &Server) -> Option<StageError> {
    let is_bad = lines.has_any(&[
        "Bad configuration option",
        "terminating, ",
        "Bad owner or permissions on",
        "Can't open user config file",
    ]);
    let message = "ssh does not accept its configuration";
    let hint =
        "correct the file and line that ssh names, or name another file with ssh_config_path";
    is_bad.then(|| error("tunnel.ssh_config_invalid", message, hint))
}

pub(super) fn control_socket(lines: &Lines, _: &Server) -> Option<StageError> {
    if lines.has("unix_listener: cannot bind") && lines.has("No space left on device") {
        return Some(StageError::disk_full("ssh cannot make its control socket"));
    }
    let is_long = lines.has_any(&["too long for Unix domain socket", "ControlPath too long"]);
    let message = "the path of ssh's control socket is too long for this system";
    let hint = "set XDG_RUNTIME_DIR or TMPDIR to a directory with a shorter path";
    is_long.then(|| error("tunnel.socket_path_too_long", message, hint))
}
