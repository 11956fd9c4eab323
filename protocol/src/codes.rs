//! Error codes: the type [`Code`], the macro with which a crate lists its codes, and the codes of the protocol.

use crate::error::Exit;

/// A stable, namespaced identifier of an error, with the properties of all errors of this code.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Such as `tunnel.server_busy`.
    pub name: &'static str,
    /// What happened, in one sentence.
    pub meaning: &'static str,
    /// What to do, unless the error has a more precise hint; may be empty.
    pub hint: &'static str,
    /// The exit code of a process that ends with this error.
    pub exit: Exit,
}

/// A list of codes.
pub type Codes = &'static [&'static Code];

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
    CONFIG = "protocol.config", Usage, "The config of a stage cannot be read, or contains mistakes.",
        "correct the file or its path; `describe` of the program prints every field";
    DISK_FULL = "protocol.disk_full", Failed, "There is no room for a file.",
        "free some space there (df -h, df -i), or use another directory: --run-dir, XDG_RUNTIME_DIR, XDG_STATE_HOME, TMPDIR";
    FORMAT_NEWER = "protocol.format_newer", Version, "A newer release wrote a state file, or an object on a cluster.",
        "install the newer release; or run the newer one's `cleanup`, then this one";
    INTERNAL = "protocol.internal", Internal, "The program has a bug, or the machine is out of a resource that every program needs.",
        "report it, with the message and the command line";
    INTERRUPTED = "protocol.interrupted", Failed, "The program was stopped before its work was done.",
        "";
    IO = "protocol.io", Failed, "The system refused an operation on a file, a directory or a process; the cause says why.",
        "the cause says what to correct: a path, a permission, or a limit (ulimit -a)";
    LOCKED = "protocol.locked", Locked, "Another process runs this instance.",
        "stop that process, or give this one another --name or --run-dir";
    LOCK_LOST = "protocol.lock_lost", Failed, "The lock of an instance was removed or replaced while the instance ran.",
        "another process may run this instance now; keep cleaners of temporary files away from the run directory, and start again";
    NO_UPSTREAM = "protocol.no_upstream", Upstream, "No messages arrived on stdin from an upstream stage.",
        "with --stdin chain, put a stage before this one: devcluster-tunnel … | devcluster-config-emit --stdin chain …";
    NOT_READY = "protocol.not_ready", CheckFailed, "`check` found no instance that is ready.",
        "start the instance, or wait for it with the verb `wait`";
    ONCE_UNSUPPORTED = "protocol.once_unsupported", Usage, "The stage has no `once`: its outputs are valid only while it runs.",
        "use `run`, with `-- command…` to keep the stage up while a command runs";
    PROGRAM_FAILED = "protocol.program_failed", Failed, "A program that was asked for an answer failed, did not answer in time, or gave an invalid answer.",
        "see what the program wrote, correct it and try again";
    PROGRAM_MISSING = "protocol.program_missing", Usage, "A required program does not exist or is not executable.",
        "install it beside devcluster-remote: make install";
    UNSAFE_DIR = "protocol.unsafe_dir", Usage, "A directory belongs to another user, or other users can write to it.",
        "name another directory, or remove the write permission of others: chmod go-w";
    UPSTREAM_FAILED = "protocol.upstream_failed", Upstream, "A stage that this one waits for failed or ended.",
        "see the messages of that stage, in its log or on its stderr, and start it again";
    UPSTREAM_MISSING = "protocol.upstream_missing", Upstream, "A stage that this one waits for is not running.",
        "start that stage with the same --run-dir; if it has ended, its last messages say why";
    USAGE = "protocol.usage", Usage, "The command line or the request on stdin is not valid.",
        "see --help";
    VERSION = "protocol.version", Version, "The other program has another protocol version or release.",
        "install both programs from the same release";
    WAIT_TIMEOUT = "protocol.wait_timeout", Timeout, "An instance was not ready within --timeout.",
        "see the messages of the instance; raise --timeout if it only needs more time";
}
