//! The error codes of the gateway. The crate `cluster` has those of the API.

protocol::codes! {
    ADDRESS_CHANGED = "gateway.address_changed", Failed, "The address of the Gateway is not the one that the stage reported.",
        "restart the gateway stage, then the master";
    API_MISSING = "gateway.api_missing", Failed, "The cluster does not have the Gateway API.",
        "ask an admin to install the Gateway API's experimental channel and a controller that supports TCPRoutes, such as Contour's gateway provisioner";
    CAPACITY_LOW = "gateway.capacity_low", Failed, "The Gateway has room for fewer ports than `min_capacity`.",
        "widen `port_range`, remove unused listeners from the Gateway, lower `min_capacity`, or set `raise_max_items`";
    CRD_CHANNEL = "gateway.crd_channel", Failed, "The cluster has the standard channel of the Gateway API, which lacks TCPRoute v1alpha2.",
        "ask the cluster's admin to install the experimental channel: `kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.1/experimental-install.yaml`";
    DELETED = "gateway.deleted", Failed, "The Gateway was deleted while the stage used it.",
        "restart the gateway stage, which uses or creates another Gateway, then the master";
    INFRASTRUCTURE_BUSY = "gateway.infrastructure_busy", Retryable, "Another session is installing or removing a controller.",
        "restart the gateway stage in a minute";
    INFRASTRUCTURE_TIMEOUT = "gateway.infrastructure_timeout", Timeout, "Installing or removing a controller did not finish in time.",
        "see the causes, and the controller's pods with kubectl; then restart the gateway stage";
    MANIFEST_DIGEST = "gateway.manifest_digest", Failed, "The manifests do not have the SHA-256 of `provision_digest`.",
        "the author or someone on the network path changed the manifests: review them before you set `provision_digest` to the new value";
    MANIFEST_MALFORMED = "gateway.manifest_malformed", Failed, "The manifests are not Kubernetes objects.",
        "`provision_manifests` accepts what `kubectl apply -f` accepts: objects with `apiVersion`, `kind` and `metadata.name`";
    MANIFEST_UNAVAILABLE = "gateway.manifest_unavailable", Failed, "The manifests cannot be read or downloaded.",
        "download them on a machine that reaches the URL, and set `provision_manifests` to the file; behind a proxy, set HTTPS_PROXY";
    MANIFEST_UNKNOWN_KIND = "gateway.manifest_unknown_kind", Failed, "The API does not know the kind of an object in the manifests.",
        "add the manifests of its CRD to `provision_manifests`";
    NAME_IN_USE = "gateway.name_in_use", Failed, "A Gateway with the name of this session's own Gateway exists, and another owner made it.",
        "name it with `gateway` to use it, or delete it";
    NO_ADDRESS = "gateway.no_address", Timeout, "The Gateway did not get a usable address in time.",
        "see its address: `kubectl describe gateway`; a local cluster needs `minikube tunnel` or similar";
    NO_CLASS = "gateway.no_class", Failed, "No GatewayClass on the cluster can provide a Gateway.",
        "ask an admin to install a controller that supports TCPRoutes, such as Contour's gateway provisioner, with a GatewayClass";
    NONE = "gateway.none", Failed, "The cluster has no Gateway.",
        "create a Gateway of a class that supports TCPRoutes (`kubectl get gatewayclasses`; docs/gateway.md)";
    NONE_USABLE = "gateway.none_usable", Failed, "No Gateway of the cluster can be used; the causes say why for each.",
        "correct one of these Gateways as its cause says, or set `gateway`, `gateway_namespace` or `gateway_class`";
    NOT_FOUND = "gateway.not_found", Failed, "The Gateway that the config names does not exist.",
        "create a Gateway of a class that supports TCPRoutes (`kubectl get gatewayclasses`; docs/gateway.md)";
    NOT_PROGRAMMED = "gateway.not_programmed", Timeout, "The controller did not program the Gateway in time.",
        "check that its controller runs, and see `kubectl describe gateway`";
    SESSION_LOST = "gateway.session_lost", Failed, "Another session took over the Gateway.",
        "restart the gateway stage, then the master; raise `lease_duration` for a laptop that sleeps longer";
    TASK_NAMESPACE_HELD = "gateway.task_namespace_held", Failed, "Another Determined master runs its tasks in the same namespace: the later one to start would end them.",
        "give each master a namespace of its own: `default_namespace` of its resource manager, and `task_namespace` here; or end the other one";
    TASKS_RUN = "gateway.tasks_run", Failed, "Tasks run that depend on another Gateway than the config asks for.",
        "undo the change of the config, or end the tasks; `devcluster-remote gc --now` removes their Gateway at once";
    TCPROUTE_MISSING = "gateway.tcproute_missing", Failed, "The cluster does not serve TCPRoute v1alpha2, which Determined uses.",
        "ask an admin to install the experimental channel of the Gateway API: the standard channel does not serve that version";
    UNRENEWED = "gateway.unrenewed", Failed, "The session's Lease was not renewed for its duration: another session may take the Gateway.",
        "check the connection to the Kubernetes API; the stage renews the Lease as soon as the API answers";
}
