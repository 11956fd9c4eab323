//! ssh's messages about this machine.

use protocol::StageError;

use super::{Lines, Server};
use crate::codes;

pub(super) fn own_options(lines: &Lines, _: &Server) -> Option<StageError> {
    let is_bad = lines.has_any(&[
        "Bad configuration option",
        "terminating, ",
        "Bad owner or permissions on",
        "Can't open user config file",
    ]);
    let message = "ssh does not accept its configuration";
    is_bad.then(|| StageError::new(codes::SSH_CONFIG_INVALID, message))
}

pub(super) fn control_socket(lines: &Lines, _: &Server) -> Option<StageError> {
    if lines.has("unix_listener: cannot bind") && lines.has("No space left on device") {
        return Some(StageError::disk_full("ssh cannot make its control socket"));
    }
    let is_long = lines.has_any(&["too long for Unix domain socket", "ControlPath too long"]);
    let message = "the path of ssh's control socket is too long for this system";
    is_long.then(|| StageError::new(codes::SOCKET_PATH_TOO_LONG, message))
}
