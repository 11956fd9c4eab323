//! The error codes of config-emit.

protocol::codes! {
    AMBIGUOUS_MANAGER = "config_emit.ambiguous_manager", Usage, "Which resource manager a gateway is for is not clear.",
        "say in each gateway stage which resource manager it is for, or with --resource-managers";
    AMBIGUOUS_NAME = "config_emit.ambiguous_name", Usage, "Two values would get the same name of a variable.",
        "give one of the instances another `name`, or use --format json";
    AMBIGUOUS_UPSTREAM = "config_emit.ambiguous_upstream", Usage, "More than one stage provides the master's address.",
        "name the one to use, and the others you need, with `upstreams`";
    BAD_OUTPUTS = "config_emit.bad_outputs", Upstream, "The outputs of a stage lack what is needed of them.",
        "see what the stage reports: its `outputs` message, or its file in the run directory";
    BAD_REFERENCE = "config_emit.bad_reference", Usage, "A reference names what no stage reports, or is not written as one.",
        "a reference is `${{ instance.path }}`; `devcluster-<kind> describe` prints what an instance of that kind reports";
    BASE_NOT_CONFIG = "config_emit.base_not_config", Usage, "The base is neither a devcluster.yaml nor the config of a master.",
        "name a devcluster.yaml or a master's config with --base";
    BASE_NOT_YAML = "config_emit.base_not_yaml", Usage, "The base is not valid YAML.",
        "correct that line: devcluster and Determined would not read the file either, or not as it is meant";
    BASE_UNREADABLE = "config_emit.base_unreadable", Usage, "The base cannot be read.",
        "name a devcluster.yaml, or the <temp_dir>/<stage>.conf that devcluster writes when it starts, with --base";
    CANNOT_EDIT = "config_emit.cannot_edit", Usage, "A value cannot be put into the base without changing what else it says.",
        "write that part of the file in a plainer way";
    CANNOT_WRITE = "config_emit.cannot_write", Failed, "The rendered file cannot be written.",
        "name a file in a directory of yours that exists with --out";
    CONTROL = "config_emit.control", Failed, "devcluster cannot be told to restart a stage.",
        "devcluster listens there unless it runs with --oneshot; restart the stages by hand";
    NO_KUBERNETES = "config_emit.no_kubernetes", Usage, "The master's config has no resource manager of type kubernetes.",
        "set `resource_manager: {type: kubernetes, …}` in the master's config_file";
    NO_MASTER_STAGE = "config_emit.no_master_stage", Usage, "The base has no master or agent stage of that name.",
        "list a `- master:` stage, or name yours with --stage";
    NO_UPSTREAM = "config_emit.no_upstream", Upstream, "No stage runs in the run directory.",
        "start the tunnel or the gateway with the same --run-dir first, or name what to wait for with --upstreams";
    REFUSED = "config_emit.refused", Usage, "Determined would reject the rendered config.",
        "correct these lines, or the config of the stage that reports the values";
    SOCKET_PATH_LONG = "config_emit.socket_path_long", Usage, "The path of devcluster's control socket is too long for this system.",
        "set a shorter `temp_dir` in the devcluster.yaml";
    STALE = "config_emit.stale", CheckFailed, "The rendered file is gone, or is not what would be written now.",
        "run config-emit again";
}
