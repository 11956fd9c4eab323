//! The error codes of the driver.

protocol::codes! {
    CONFIG = "remote.config", Usage, "The file is not valid YAML, or contains mistakes.",
        "nothing was written or started; correct the file and try again";
    DEVCLUSTER_MISSING = "remote.devcluster_missing", Usage, "devcluster, which runs the stages, is not installed.",
        "pipx install devcluster==1.3.2, or set $DEVCLUSTER to the path of an installed one";
    DOCKER_MISSING = "remote.docker_missing", Failed, "Docker is not installed or not running.",
        "install Docker, https://docs.docker.com/get-docker, or run the database as a `custom` stage";
    IN_USE = "remote.in_use", Locked, "Another devcluster is running in this `temp_dir`.",
        "end that devcluster, or set another `temp_dir` in this file";
    NO_FILE = "remote.no_file", Usage, "The file cannot be read.",
        "check the path";
    OPEN_MASTER = "remote.open_master", Usage, "The file would expose a master without a password to the whole internet.",
        "set a password, or let the stage listen where only the cluster can reach it; to start anyway, use --i-know";
    OTHER_PROGRAM = "remote.other_program", Usage, "The program of a stage has another kind, release or protocol version.",
        "install one release: make install";
    OUT_EXISTS = "remote.out_exists", Usage, "The file of --out exists already.",
        "name another file with --out, or move that file away";
    PLUGIN_ENDED = "remote.plugin_ended", Failed, "A plugin ended without a shutdown request.",
        "a plugin must stay until it gets `shutdown` or its stdin ends; see what it wrote to stderr above";
    PLUGIN_MISSING = "remote.plugin_missing", Usage, "The program of a plugin does not exist or is not executable.",
        "`uses` is a program on $PATH, or a path relative to the file; make the program executable: chmod +x";
    PLUGIN_PROTOCOL = "remote.plugin_protocol", Failed, "A plugin wrote an invalid line to stdout.",
        "write only protocol messages to stdout, and text for people to stderr; see PROTOCOL.md";
    UNSAFE_PROGRAM = "remote.unsafe_program", Failed, "Other users can replace the program of a stage, so it is not run.",
        "remove the write permission of other users from the program and its directory (chmod go-w), or move the program to a directory that only you can write to";
}
