//! The error codes of config-emit.

protocol::codes! {
    AMBIGUOUS_MANAGER = "config_emit.ambiguous_manager", Usage, "The resource manager of a gateway is ambiguous.",
        "set `resource_manager` in each gateway stage, or use --resource-managers";
    AMBIGUOUS_NAME = "config_emit.ambiguous_name", Usage, "Two values would get the same variable name.",
        "give one of the instances another `name`, or use --format json";
    AMBIGUOUS_UPSTREAM = "config_emit.ambiguous_upstream", Usage, "More than one stage provides the master's address.",
        "list the one to use, and the other stages you need, in `upstreams`";
    BAD_OUTPUTS = "config_emit.bad_outputs", Upstream, "The outputs of a stage lack a required value.",
        "see the stage's `outputs` message, or its file in the run directory";
    BAD_REFERENCE = "config_emit.bad_reference", Usage, "A reference is malformed, or names a value that no stage reports.",
        "write a reference as `${{ instance.path }}`; `devcluster-<kind> describe` prints the outputs of an instance of that kind";
    BASE_NOT_CONFIG = "config_emit.base_not_config", Usage, "The base is neither a devcluster.yaml nor the config of a master.",
        "set --base to a devcluster.yaml or a master's config";
    BASE_NOT_YAML = "config_emit.base_not_yaml", Usage, "The base is not valid YAML.",
        "correct the line that the message names";
    BASE_UNREADABLE = "config_emit.base_unreadable", Usage, "The base cannot be read.",
        "set --base to a devcluster.yaml, or to the <temp_dir>/<stage>.conf that devcluster writes when it starts";
    CANNOT_EDIT = "config_emit.cannot_edit", Usage, "A value cannot be set in the base without changing other values.",
        "write that part of the file in a simpler way";
    CANNOT_WRITE = "config_emit.cannot_write", Failed, "The rendered file cannot be written.",
        "set --out to a file in an existing directory that you may write to";
    CONTROL = "config_emit.control", Failed, "devcluster cannot be asked to restart a stage.",
        "restart the stages by hand; with --oneshot, devcluster has no control socket";
    NO_KUBERNETES = "config_emit.no_kubernetes", Usage, "The master's config has no resource manager of type kubernetes.",
        "set `resource_manager: {type: kubernetes, …}` in the master's config_file";
    NO_MASTER_STAGE = "config_emit.no_master_stage", Usage, "The base has no master or agent stage of that name.",
        "add a `- master:` stage, or set --stage to the name of yours";
    NO_UPSTREAM = "config_emit.no_upstream", Upstream, "No stage runs in the run directory.",
        "start the tunnel or the gateway with the same --run-dir first, or list the stages to wait for in --upstreams";
    REFUSED = "config_emit.refused", Usage, "Determined would reject the rendered config.",
        "correct these lines, or the config of the stage that reports the values";
    SOCKET_PATH_LONG = "config_emit.socket_path_long", Usage, "The path of devcluster's control socket is too long for this system.",
        "devcluster makes this socket in its `temp_dir`: set `temp_dir` in the devcluster.yaml to a shorter path, such as /tmp/dc";
    STALE = "config_emit.stale", CheckFailed, "The rendered file is missing or outdated.",
        "run `devcluster-config-emit once` again, then restart the stage that reads the file";
}
