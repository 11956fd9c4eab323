//! The meaning of outputs. A stage's `provides` maps a meaning to a place in its outputs, so that a consumer asks for a
//! meaning, never for a kind of stage.

use serde_json::{Map, Value};

/// The address at which pods reach the master: an object with the pointers `host` and `port`.
pub const MASTER_ADDRESS: &str = "determined.master_address";

/// Determined's `internal_task_gateway`, through which the master reaches tasks.
pub const TASK_GATEWAY: &str = "determined.task_gateway";

/// The path of a kubeconfig for the cluster of the tasks.
pub const KUBECONFIG: &str = "kubeconfig";

/// JSON pointers into outputs, by meaning: one pointer, or an object of pointers.
pub type Provides = Map<String, Value>;

/// The value with this meaning, or the named part of it.
pub fn find<'a>(
    provides: &Provides,
    outputs: &'a Map<String, Value>,
    meaning: &str,
    part: Option<&str>,
) -> Option<&'a Value> {
    let pointer = provides.get(meaning)?;
    let pointer = part.map_or(Some(pointer), |part| pointer.get(part))?;
    let pointer = pointer.as_str()?.strip_prefix('/')?;
    let (first, rest) = pointer.split_at(pointer.find('/').unwrap_or(pointer.len()));
    outputs.get(&unescape(first))?.pointer(rest)
}

pub(crate) fn unescape(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}
