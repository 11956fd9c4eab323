//! Error codes: what a [`Code`] is, how a program lists its own, and those that every program may end with.

use crate::error::Exit;

/// A stable, namespaced identifier of an error, and what is always true of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Such as `tunnel.server_busy`.
    pub name: &'static str,
    /// What happened, in a sentence.
    pub meaning: &'static str,
    /// What to do where the error itself does not say it better; may be empty.
    pub hint: &'static str,
    /// The exit code of a process that ends with it.
    pub exit: Exit,
}

/// A list of codes.
pub type Codes = &'static [&'static Code];

impl Code {
    /// The same call may work later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.exit, Exit::Retryable | Exit::Timeout)
    }
}

/// Declares the codes of a crate and `ALL` of them: `CONSTANT = "name", exit, "meaning", "hint";`.
#[macro_export]
macro_rules! codes {
    ($($id:ident = $name:literal, $exit:ident, $meaning:literal, $hint:literal;)+) => {
        $(
            #[doc = $meaning]
            pub const $id: &$crate::Code = &$crate::Code {
                name: $name,
                meaning: $meaning,
                hint: $hint,
                exit: $crate::Exit::$exit,
            };
        )+
        /// Every code of this crate.
        pub const ALL: $crate::Codes = &[$($id),+];
    };
}

codes! {
    CONFIG = "protocol.config", Usage, "The config of a stage cannot be read, or has mistakes in it.",
        "`<program> run --help` lists every field";
    DISK_FULL = "protocol.disk_full", Failed, "There is no room for a file.",
        "free some space there (df -h, df -i), or use another place: --run-dir, XDG_RUNTIME_DIR, XDG_STATE_HOME, TMPDIR";
    INTERNAL = "protocol.internal", Internal, "The program has a bug, or the machine runs out of something that every program needs.",
        "";
    INTERRUPTED = "protocol.interrupted", Failed, "The program was stopped before its work was done.",
        "";
    IO = "protocol.io", Failed, "The system refused an operation on a file, a directory or a process; the cause says why.",
        "";
    LOCKED = "protocol.locked", Locked, "Another process runs this instance.",
        "stop that one, or give this one another --name or --run-dir";
    NO_UPSTREAM = "protocol.no_upstream", Upstream, "Nothing came on stdin, where another stage was to speak.",
        "with --stdin chain, put a stage before this one: devcluster-tunnel … | devcluster-config-emit --stdin chain …";
    NOT_READY = "protocol.not_ready", CheckFailed, "`check` found no instance that is ready.",
        "start the instance, or wait for it with the verb `wait`";
    ONCE_UNSUPPORTED = "protocol.once_unsupported", Usage, "The stage has no `once`: what it reports holds only while it runs.",
        "use `run`, with `-- command…` to hold the stage while a command runs";
    PROGRAM_FAILED = "protocol.program_failed", Failed, "A program that was called for an answer ended early, gave none in time, or gave a wrong one.",
        "what the program wrote says why; correct it and try again";
    PROGRAM_MISSING = "protocol.program_missing", Usage, "A program that has to be run is not there, or cannot be run.",
        "install it beside devcluster-remote: make install";
    UNSAFE_DIR = "protocol.unsafe_dir", Usage, "A directory belongs to another user, or other users can change it.",
        "name another directory, or take its write permission from others";
    UPSTREAM_FAILED = "protocol.upstream_failed", Upstream, "A stage that this one waits for failed or ended.",
        "what that stage wrote says why";
    UPSTREAM_MISSING = "protocol.upstream_missing", Upstream, "A stage that this one waits for does not run.",
        "start it with the same --run-dir, or see what it wrote when it ended";
    USAGE = "protocol.usage", Usage, "The command line, or a request on stdin, cannot be used.",
        "";
    VERSION = "protocol.version", Version, "The program at the other end speaks another version of the protocol.",
        "install both programs from the same release";
    WAIT_TIMEOUT = "protocol.wait_timeout", Timeout, "An instance was not ready within the time of --timeout.",
        "allow more with --timeout, or see what it wrote";
}
