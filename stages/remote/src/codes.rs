//! The error codes of the driver.

protocol::codes! {
    CONFIG = "remote.config", Usage, "The file cannot be used: it is not YAML, or has mistakes in it.",
        "nothing was written or started; correct the file and try again";
    DEVCLUSTER_MISSING = "remote.devcluster_missing", Usage, "There is no devcluster to run the stages.",
        "pipx install devcluster==1.3.2, or point $DEVCLUSTER at the one you have";
    DOCKER_MISSING = "remote.docker_missing", Failed, "Docker is not installed, or does not run.",
        "install Docker, https://docs.docker.com/get-docker, or play the database by a `custom` stage";
    IN_USE = "remote.in_use", Locked, "A devcluster already runs in this `temp_dir`.",
        "end that one, or set another `temp_dir` in this file";
    NO_FILE = "remote.no_file", Usage, "The file cannot be read.",
        "";
    OPEN_MASTER = "remote.open_master", Usage, "The file would let the whole internet reach a master that lets anyone in.",
        "set a password, or have the stage listen where only the cluster reaches it; --i-know goes on regardless";
    OTHER_PROGRAM = "remote.other_program", Usage, "The program of a stage is of another kind, release or protocol version.",
        "install one release: make install";
    OUT_EXISTS = "remote.out_exists", Usage, "The file that --out names exists already.",
        "name another file with --out, or move that one away";
    PLUGIN_ENDED = "remote.plugin_ended", Failed, "A plugin ended by itself.",
        "a plugin stays until it is told `shutdown` or its stdin ends; what it wrote to stderr is above";
    PLUGIN_MISSING = "remote.plugin_missing", Usage, "The program of a plugin is not there, or is not executable.",
        "`uses` is a program on $PATH, or a path relative to the file; is it executable (chmod +x)?";
    PLUGIN_PROTOCOL = "remote.plugin_protocol", Failed, "A plugin wrote to stdout what is not the protocol.",
        "stdout is for JSON lines alone, text for people goes to stderr; see PROTOCOL.md";
    UNSAFE_PROGRAM = "remote.unsafe_program", Failed, "Others can replace the program of a stage, so it is not run.",
        "take the right to write there from others, or move the program";
}
